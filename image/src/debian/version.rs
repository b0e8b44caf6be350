//! The order of Debian's versions: deb-version(7).
//!
//! Our own, since it must compare slices of an index tens of thousands of times, and what the
//! crates for it do first is to copy both sides into structures.

use std::cmp::Ordering;

/// Compares two versions, `[epoch:]upstream[-revision]`. Total, also for what is no valid version.
pub fn compare(a: &str, b: &str) -> Ordering {
    let ((a_epoch, a), (b_epoch, b)) = (epoch(a), epoch(b));
    let ((a, a_revision), (b, b_revision)) = (revision(a), revision(b));
    a_epoch
        .cmp(&b_epoch)
        .then_with(|| part(a.as_bytes(), b.as_bytes()))
        .then_with(|| part(a_revision.as_bytes(), b_revision.as_bytes()))
}

fn epoch(version: &str) -> (u64, &str) {
    match version.split_once(':') {
        Some((epoch, rest)) => (epoch.parse().unwrap_or(0), rest),
        None => (0, version),
    }
}

fn revision(version: &str) -> (&str, &str) {
    version.rsplit_once('-').unwrap_or((version, ""))
}

/// Compares by turns a stretch of non-digits, letter by letter, and a stretch of digits, as a number.
fn part(mut a: &[u8], mut b: &[u8]) -> Ordering {
    loop {
        while a.first().is_some_and(|at| !at.is_ascii_digit())
            || b.first().is_some_and(|at| !at.is_ascii_digit())
        {
            let order = weight(a.first()).cmp(&weight(b.first()));
            if order.is_ne() {
                return order;
            }
            (a, b) = (a.get(1..).unwrap_or_default(), b.get(1..).unwrap_or_default());
        }
        let (a_number, b_number) = (number(&mut a), number(&mut b));
        let order = a_number.len().cmp(&b_number.len()).then_with(|| a_number.cmp(b_number));
        if order.is_ne() || (a.is_empty() && b.is_empty()) {
            return order;
        }
    }
}

/// A tilde is before the end, the end (or a digit) before letters, letters before all else.
fn weight(at: Option<&u8>) -> i32 {
    match at {
        Some(b'~') => -1,
        None => 0,
        Some(at) if at.is_ascii_digit() => 0,
        Some(at) if at.is_ascii_alphabetic() => i32::from(*at),
        Some(at) => i32::from(*at) + 256,
    }
}

/// Takes the digits at the front, without leading zeros.
fn number<'a>(text: &mut &'a [u8]) -> &'a [u8] {
    let length = text.iter().take_while(|at| at.is_ascii_digit()).count();
    let (digits, rest) = text.split_at(length);
    *text = rest;
    let zeros = digits.iter().take_while(|at| **at == b'0').count();
    &digits[zeros..]
}

#[cfg(test)]
mod tests {
    use super::*;
    use Ordering::{Equal, Greater, Less};

    #[test]
    fn versions_are_ordered_as_dpkg_orders_them() {
        // Each row was checked with dpkg --compare-versions.
        let rows = [
            ("1.0", "1.0", Equal),
            ("1.0", "1.0-0", Equal),
            ("0:1.0", "1.0", Equal),
            ("1.00", "1.0", Equal),
            ("1.0", "1.1", Less),
            ("1.9", "1.10", Less),
            ("1:1.0", "2.0", Greater),
            ("1.0~rc1", "1.0", Less),
            ("1.0~~", "1.0~", Less),
            ("1.0~", "1.0", Less),
            ("1.0+b1", "1.0", Greater),
            ("1.0a", "1.0", Greater),
            ("1.0a", "1.0+", Less),
            ("1.0-1", "1.0-1+deb13u1", Less),
            ("1.0-1~bpo12+1", "1.0-1", Less),
            ("1.0-1+b2", "1.0-1+b10", Less),
            ("2.41-12", "2.41-12+deb13u3", Less),
            ("6.12.107-1", "6.12.117-1", Less),
            ("1.2.3-4-5", "1.2.3-4-6", Less),
            ("1.0.", "1.0", Greater),
            ("20240101", "9", Greater),
            ("99999999999999999999999", "100000000000000000000000", Less),
            ("", "0", Equal),
            ("1.0-a", "1.0-a~", Greater),
        ];
        for (a, b, order) in rows {
            assert_eq!(compare(a, b), order, "{a} {b}");
            assert_eq!(compare(b, a), order.reverse(), "{b} {a}");
        }
    }
}
