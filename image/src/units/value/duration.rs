//! Times as Go writes them, `time.ParseDuration`: what Podman's options take.

/// Name of a unit, microseconds.
const UNITS: [(&str, f64); 7] =
    [("ns", 1e-3), ("us", 1.0), ("µs", 1.0), ("ms", 1e3), ("s", 1e6), ("m", 60e6), ("h", 3600e6)];
/// A time beyond centuries is none.
const MOST: f64 = 1e16;

/// In microseconds: `1h30m`, `1.5s`, `500ms`, `0`; None is none of them. `disable` is 0, which for
/// the times of a health check is never (podman-run(1), `--health-interval`).
pub(crate) fn microseconds(text: &str) -> Option<u64> {
    if text == "0" || text == "disable" {
        return Some(0);
    }
    let mut rest = text;
    let mut sum = 0.0;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..end].parse().ok()?;
        rest = &rest[end..];
        let end = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
        let (_, unit) = UNITS.iter().find(|(name, _)| *name == &rest[..end])?;
        sum += number * unit;
        rest = &rest[end..];
    }
    (!text.is_empty() && sum < MOST).then_some(sum as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_gos() {
        for (text, expected) in [
            ("30s", Some(30_000_000)),
            ("1m30s", Some(90_000_000)),
            ("1.5h", Some(5_400_000_000)),
            ("1.5s.5s", Some(2_000_000)),
            ("500ms", Some(500_000)),
            ("0", Some(0)),
            ("disable", Some(0)),
            ("30", None),
            ("", None),
            ("5 s", None),
            ("s", None),
            ("-1s", None),
            ("9999999999h", None),
        ] {
            assert_eq!(microseconds(text), expected, "{text}");
        }
    }
}
