//! Sizes in bytes: sums of numbers with suffixes, systemd's base 1024, Podman's units.

use super::Expected;

/// systemd's parse_size() with base 1024: `1G 500M`, suffixes in falling order.
pub(crate) fn bytes(text: &str) -> Result<u64, Expected> {
    const SUFFIXES: [(char, u32); 7] =
        [('E', 60), ('P', 50), ('T', 40), ('G', 30), ('M', 20), ('K', 10), ('B', 0)];
    let mut rest = text.trim();
    let mut sum = 0u64;
    let mut largest = u32::MAX;
    if rest.is_empty() {
        return Err(Expected::Size);
    }
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (number, tail) = rest.split_at(end);
        let tail = tail.trim_start();
        let (shift, tail) = match SUFFIXES.iter().find(|(suffix, _)| tail.starts_with(*suffix)) {
            Some((_, shift)) => (*shift, &tail[1..]),
            None => (0, tail),
        };
        if shift >= largest {
            return Err(Expected::Size);
        }
        largest = shift;
        let part = scaled(number, 1u64 << shift).ok_or(Expected::Size)?;
        sum = sum.checked_add(part).ok_or(Expected::Size)?;
        rest = tail.trim_start();
    }
    Ok(sum)
}

/// Podman's (docker/go-units' RAMInBytes): `512m`, `1.5GiB`, any case, base 1024.
pub(crate) fn podman(text: &str) -> Result<i64, Expected> {
    let lower = text.trim().to_ascii_lowercase();
    let end = lower.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(lower.len());
    let (number, suffix) = lower.split_at(end);
    let shift = match suffix.trim() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        "t" | "tb" | "tib" => 40,
        "p" | "pb" | "pib" => 50,
        _ => return Err(Expected::Size),
    };
    let bytes = scaled(number, 1 << shift).ok_or(Expected::Size)?;
    i64::try_from(bytes).map_err(|_| Expected::Size)
}

/// A decimal number times a unit, without the rounding of floating point.
fn scaled(number: &str, unit: u64) -> Option<u64> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() && fraction.is_empty() || fraction.contains('.') {
        return None;
    }
    let whole: u64 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    let mut sum = whole.checked_mul(unit)?;
    let mut place = unit;
    for digit in fraction.bytes() {
        let digit = u64::from(digit.checked_sub(b'0')?);
        sum = sum.checked_add(digit.checked_mul(place)? / 10)?;
        place /= 10;
    }
    Some(sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_sums_of_falling_suffixes() {
        assert_eq!(bytes("4096"), Ok(4096));
        assert_eq!(bytes("1G 500M"), Ok((1 << 30) + (500 << 20)));
        assert_eq!(bytes("1.5K"), Ok(1536));
        assert_eq!(bytes("16E"), Err(Expected::Size));
        for bad in ["", "K", "1Ki", "1M 1G", "-1", "1.2.3"] {
            assert_eq!(bytes(bad), Err(Expected::Size), "{bad}");
        }
    }

    #[test]
    fn podman_has_units_of_its_own() {
        assert_eq!(podman("64000k"), Ok(65_536_000));
        assert_eq!(podman("1.5GiB"), Ok(3 << 29));
        assert_eq!(podman("1x"), Err(Expected::Size));
        assert_eq!(podman("9000000p"), Err(Expected::Size));
    }
}
