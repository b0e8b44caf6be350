//! The types of values: what a text must look like, and what it means.

pub(crate) mod base64;
pub(crate) mod capability;
pub(crate) mod duration;
pub(crate) mod errno;
pub(crate) mod exit;
pub(crate) mod signal;
pub(crate) mod size;
pub(crate) mod time;

/// What a value should have been. The text completes "expected ...".
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Expected {
    #[error("yes or no")]
    Boolean,
    #[error("a number from {least} to {most}")]
    Number { least: i64, most: i64 },
    #[error("a time such as `5min 20s`, or `infinity`")]
    Time,
    #[error("a shorter time")]
    ShorterTime,
    #[error("a size such as `64M` (K, M, G, T are powers of 1024)")]
    Size,
    #[error("an octal mode from 0 to 7777")]
    Mode,
    #[error("a signal such as `SIGTERM`")]
    Signal,
    #[error("one of {}", .0.join(", "))]
    OneOf(&'static [&'static str]),
    #[error("an absolute path without `..`")]
    AbsolutePath,
    #[error("{0}")]
    Other(&'static str),
}

/// systemd's parse_boolean(): any case.
pub(crate) fn boolean(text: &str) -> Result<bool, Expected> {
    match text.to_ascii_lowercase().as_str() {
        "1" | "yes" | "y" | "true" | "t" | "on" => Ok(true),
        "0" | "no" | "n" | "false" | "f" | "off" => Ok(false),
        _ => Err(Expected::Boolean),
    }
}

/// A number with C's prefixes (`0x`, `0b`, `0o`, and a leading `0` for octal).
pub(crate) fn integer(text: &str) -> Option<i128> {
    let (negative, digits) = match text.strip_prefix(['+', '-']) {
        Some(rest) => (text.starts_with('-'), rest),
        None => (false, text),
    };
    let (base, digits) = match digits.as_bytes() {
        [b'0', b'x' | b'X', ..] => (16, &digits[2..]),
        [b'0', b'b' | b'B', ..] => (2, &digits[2..]),
        [b'0', b'o' | b'O', ..] => (8, &digits[2..]),
        [b'0', _, ..] => (8, &digits[1..]),
        _ => (10, digits),
    };
    // from_str_radix takes a sign of its own.
    let plain = digits.starts_with(|c: char| c.is_ascii_hexdigit());
    let number = i128::from(u64::from_str_radix(digits, base).ok().filter(|_| plain)?);
    Some(if negative { -number } else { number })
}

/// A number within bounds.
pub(crate) fn number(text: &str, least: i64, most: i64) -> Result<i64, Expected> {
    integer(text)
        .and_then(|number| i64::try_from(number).ok())
        .filter(|number| (least..=most).contains(number))
        .ok_or(Expected::Number { least, most })
}

/// A number from 0 to 4294967295.
pub(crate) fn unsigned(text: &str) -> Result<u32, Expected> {
    number(text, 0, i64::from(u32::MAX)).map(|number| number as u32)
}

/// An access mode in octal digits.
pub(crate) fn mode(text: &str) -> Result<u32, Expected> {
    let plain = text.bytes().all(|byte| byte.is_ascii_digit());
    u32::from_str_radix(text, 8).ok().filter(|mode| plain && *mode <= 0o7777).ok_or(Expected::Mode)
}

/// One of a few words.
pub(crate) fn one_of<T: Copy>(
    text: &str,
    words: &'static [&'static str],
    values: &[T],
) -> Result<T, Expected> {
    let at = words.iter().position(|word| *word == text);
    at.and_then(|at| values.get(at).copied()).ok_or(Expected::OneOf(words))
}

/// An absolute path, with slashes made single, none at the end, and no dots.
pub(crate) fn path(text: &str) -> Result<String, Expected> {
    if !text.starts_with('/') || text.contains('\0') || text.len() > 4095 {
        return Err(Expected::AbsolutePath);
    }
    let mut simple = String::new();
    for part in text.split('/').filter(|part| !part.is_empty() && *part != ".") {
        if part == ".." {
            return Err(Expected::AbsolutePath);
        }
        simple.push('/');
        simple.push_str(part);
    }
    Ok(if simple.is_empty() { "/".into() } else { simple })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_the_prefixes_of_c() {
        assert_eq!(integer("0x1699"), Some(5785));
        assert_eq!(integer("+5801"), Some(5801));
        assert_eq!(integer("016545"), Some(7525));
        assert_eq!(integer("05801"), None);
        assert_eq!(integer("-1"), Some(-1));
        for bad in ["", "-", "+-1", "0x", "0x+1", "1 ", "a"] {
            assert_eq!(integer(bad), None, "{bad}");
        }
    }

    #[test]
    fn booleans_are_of_any_case() {
        assert_eq!(boolean("YES"), Ok(true));
        assert_eq!(boolean("f"), Ok(false));
        assert_eq!(boolean("ja"), Err(Expected::Boolean));
        assert_eq!(boolean(""), Err(Expected::Boolean));
    }

    #[test]
    fn modes_are_octal() {
        assert_eq!(mode("0660"), Ok(0o660));
        assert_eq!(mode("777"), Ok(0o777));
        for bad in ["10000", "0o7", "8", "", "+7"] {
            assert_eq!(mode(bad), Err(Expected::Mode), "{bad}");
        }
    }

    #[test]
    fn paths_are_made_simple() {
        assert_eq!(path("//a/./b/").as_deref(), Ok("/a/b"));
        assert_eq!(path("/").as_deref(), Ok("/"));
        assert_eq!(path("/a/../b"), Err(Expected::AbsolutePath));
        assert_eq!(path("a"), Err(Expected::AbsolutePath));
    }
}
