//! Comparison of versions, as systemd's conditions do it (systemd.unit(5),
//! `ConditionKernelVersion=`; the order is that of the UAPI group's version format).

use super::glob;
use std::cmp::Ordering;

/// What stands before a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Operator {
    Less,
    LessOrEqual,
    Equal,
    NotEqual,
    GreaterOrEqual,
    Greater,
}

impl Operator {
    /// Whether it holds between two that compare so.
    pub(super) fn is(self, ordering: Ordering) -> bool {
        match self {
            Self::Less => ordering.is_lt(),
            Self::LessOrEqual => ordering.is_le(),
            Self::Equal => ordering.is_eq(),
            Self::NotEqual => ordering.is_ne(),
            Self::GreaterOrEqual => ordering.is_ge(),
            Self::Greater => ordering.is_gt(),
        }
    }
}

/// The operator of a text, if it begins with one, and the rest.
pub(super) fn operator(text: &str) -> (Option<Operator>, &str) {
    // The longer ones first.
    let known = [
        ("<=", Operator::LessOrEqual),
        (">=", Operator::GreaterOrEqual),
        ("==", Operator::Equal),
        ("!=", Operator::NotEqual),
        ("<>", Operator::NotEqual),
        ("<", Operator::Less),
        (">", Operator::Greater),
        ("=", Operator::Equal),
    ];
    let found = known.into_iter().find_map(|(sign, it)| Some((it, text.strip_prefix(sign)?)));
    found.map_or((None, text), |(operator, rest)| (Some(operator), rest))
}

/// `>=6.1`, or a pattern.
pub(super) fn holds(test: &str, version: &str) -> bool {
    match patterns(test) {
        Some((wanted, pattern)) => glob::matches(pattern, version) == wanted,
        None => match operator(test) {
            (Some(operator), wanted) => operator.is(compare(version, wanted)),
            (None, pattern) => glob::matches(pattern, version),
        },
    }
}

/// The same, where `=` and `!=` mean the text itself.
pub(super) fn holds_plain(test: &str, value: &str) -> bool {
    match (patterns(test), test.strip_prefix("!="), test.strip_prefix('=')) {
        (Some((wanted, pattern)), ..) => glob::matches(pattern, value) == wanted,
        (None, Some(other), _) => value != other,
        (None, None, Some(same)) if !same.starts_with('=') => value == same,
        _ => matches!(operator(test), (Some(operator), wanted)
            if operator.is(compare(value, wanted))),
    }
}

/// `=$` and `!=$` are about patterns.
fn patterns(test: &str) -> Option<(bool, &str)> {
    let equal = test.strip_prefix("=$").map(|pattern| (true, pattern));
    equal.or_else(|| test.strip_prefix("!=$").map(|pattern| (false, pattern)))
}

/// Numbers by their value, letters by theirs; `~` comes before the end, which comes before `-`,
/// `^`, `.`, letters and numbers.
pub(super) fn compare(left: &str, right: &str) -> Ordering {
    let is_known = |c: char| c.is_ascii_alphanumeric() || "~-^.".contains(c);
    let (mut left, mut right) = (left, right);
    loop {
        left = left.trim_start_matches(|c| !is_known(c));
        right = right.trim_start_matches(|c| !is_known(c));
        for sign in ['~', '\0', '-', '^', '.'] {
            // The end of a text stands as \0.
            let first = |text: &str| text.chars().next().unwrap_or('\0') == sign;
            match (first(left), first(right)) {
                (true, false) => return Ordering::Less,
                (false, true) => return Ordering::Greater,
                (true, true) if sign == '\0' => return Ordering::Equal,
                (true, true) => {
                    (left, right) = (&left[1..], &right[1..]);
                    break;
                }
                (false, false) => {}
            }
        }
        let digit = |text: &str| text.starts_with(|c: char| c.is_ascii_digit());
        let ordering = if digit(left) || digit(right) {
            let (a, rest_a) = take(left, |c| c.is_ascii_digit());
            let (b, rest_b) = take(right, |c| c.is_ascii_digit());
            (left, right) = (rest_a, rest_b);
            let (short_a, short_b) = (a.trim_start_matches('0'), b.trim_start_matches('0'));
            // One without a number is older.
            a.is_empty()
                .cmp(&b.is_empty())
                .reverse()
                .then(short_a.len().cmp(&short_b.len()))
                .then(short_a.cmp(short_b))
        } else {
            let (a, rest_a) = take(left, |c| c.is_ascii_alphabetic());
            let (b, rest_b) = take(right, |c| c.is_ascii_alphabetic());
            (left, right) = (rest_a, rest_b);
            a.cmp(b)
        };
        if ordering.is_ne() {
            return ordering;
        }
    }
}

fn take(text: &str, of: impl Fn(char) -> bool) -> (&str, &str) {
    text.split_at(text.find(|c| !of(c)).unwrap_or(text.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_of_versions() {
        let expected =
            ["1.0~rc1", "1.0", "1.0-1", "1.0^1", "1.0.1", "1.0a", "1.9", "1.10", "2", "10"];
        for (index, left) in expected.iter().enumerate() {
            for (other, right) in expected.iter().enumerate() {
                assert_eq!(compare(left, right), index.cmp(&other), "{left} {right}");
            }
        }
        assert_eq!(compare("007", "7"), Ordering::Equal);
        assert_eq!(compare("1_2", "1+2"), Ordering::Equal);
    }

    #[test]
    fn operators_and_patterns() {
        assert!(holds(">=6.1", "6.12.9"));
        assert!(holds("6.*", "6.12.9"));
        assert!(holds("=$6.*", "6.12.9") && !holds("!=$6.*", "6.12.9"));
        assert!(!holds("6.1", "6.12.9") && !holds("=6.1", "6.12.9"));
        assert!(holds_plain("=13", "13") && !holds_plain("=13.0", "13"));
        assert!(holds_plain("==013", "13") && holds_plain("!=12", "13"));
        assert!(!holds_plain("", "13"));
    }
}
