//! Time spans, systemd.time(7).

use super::Expected;

/// What `infinity` is.
pub(crate) const INFINITY: u64 = u64::MAX;

/// Name of a unit, microseconds.
const UNITS: [(&str, u64); 30] = [
    ("seconds", 1_000_000),
    ("second", 1_000_000),
    ("sec", 1_000_000),
    ("s", 1_000_000),
    ("minutes", 60_000_000),
    ("minute", 60_000_000),
    ("min", 60_000_000),
    ("months", 2_629_800_000_000),
    ("month", 2_629_800_000_000),
    ("M", 2_629_800_000_000),
    ("msec", 1_000),
    ("ms", 1_000),
    ("m", 60_000_000),
    ("hours", 3_600_000_000),
    ("hour", 3_600_000_000),
    ("hr", 3_600_000_000),
    ("h", 3_600_000_000),
    ("days", 86_400_000_000),
    ("day", 86_400_000_000),
    ("d", 86_400_000_000),
    ("weeks", 604_800_000_000),
    ("week", 604_800_000_000),
    ("w", 604_800_000_000),
    ("years", 31_557_600_000_000),
    ("year", 31_557_600_000_000),
    ("y", 31_557_600_000_000),
    ("usec", 1),
    ("us", 1),
    ("µs", 1),
    ("μs", 1),
];

/// Microseconds; a number without a unit is in seconds.
pub(crate) fn microseconds(text: &str) -> Result<u64, Expected> {
    const BLANK: [char; 2] = [' ', '\t'];
    let mut rest = text.trim_matches(BLANK);
    if rest == "infinity" {
        return Ok(INFINITY);
    }
    if rest.is_empty() {
        return Err(Expected::Time);
    }
    let mut sum = 0u64;
    while !rest.is_empty() {
        let whole_end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let (whole, tail) = rest.split_at(whole_end);
        let (fraction, tail) = match tail.strip_prefix('.') {
            Some(tail) => {
                let end = tail.find(|c: char| !c.is_ascii_digit()).unwrap_or(tail.len());
                if end == 0 {
                    return Err(Expected::Time);
                }
                tail.split_at(end)
            }
            None => ("", tail),
        };
        if whole.is_empty() && fraction.is_empty() {
            return Err(Expected::Time);
        }
        let after = tail.trim_start_matches(BLANK);
        let (unit, after) = match UNITS.iter().find(|(name, _)| after.starts_with(name)) {
            Some((name, unit)) => (*unit, &after[name.len()..]),
            // "1 2" is a sum of seconds, "1.2.3" is nothing.
            None if tail.is_empty() || after.len() < tail.len() => (1_000_000, after),
            None => return Err(Expected::Time),
        };
        let whole: u64 = if whole.is_empty() { Ok(0) } else { whole.parse() }
            .map_err(|_| Expected::ShorterTime)?;
        let mut part = whole.checked_mul(unit).ok_or(Expected::ShorterTime)?;
        let mut place = unit;
        for digit in fraction.bytes() {
            place /= 10;
            part = part.saturating_add(u64::from(digit - b'0') * place);
        }
        sum = sum.checked_add(part).filter(|sum| *sum < INFINITY).ok_or(Expected::ShorterTime)?;
        rest = after.trim_start_matches(BLANK);
    }
    Ok(sum)
}

/// Nanoseconds; a number without a unit is in nanoseconds, `TimerSlackNSec=`.
pub(crate) fn nanoseconds(text: &str) -> Result<u64, Expected> {
    let number = text.strip_suffix("nsec").or(text.strip_suffix("ns")).unwrap_or(text).trim_end();
    if !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()) {
        return number.parse().map_err(|_| Expected::ShorterTime);
    }
    microseconds(text)?.checked_mul(1000).ok_or(Expected::ShorterTime)
}

/// For timeouts, where 0 switches off as `infinity` does; the manifest's 0 is never.
pub(crate) fn timeout(text: &str) -> Result<u64, Expected> {
    microseconds(text).map(|time| if time == INFINITY { 0 } else { time })
}

/// Whole seconds, rounded up as systemd does; what setsockopt(2) takes.
pub(crate) fn seconds(text: &str) -> Result<u32, Expected> {
    let seconds = microseconds(text)?.div_ceil(1_000_000);
    u32::try_from(seconds).ok().filter(|s| *s <= i32::MAX as u32).ok_or(Expected::ShorterTime)
}

/// As systemd would write it: `1min 30s`.
pub(crate) fn show(microseconds: u64) -> String {
    if microseconds == INFINITY {
        return "infinity".into();
    }
    let mut rest = microseconds;
    let mut parts = vec![];
    for (name, unit) in [
        ("d", 86_400_000_000),
        ("h", 3_600_000_000),
        ("min", 60_000_000),
        ("s", 1_000_000),
        ("ms", 1_000),
        ("us", 1),
    ] {
        if rest >= unit {
            parts.push(format!("{}{name}", rest / unit));
            rest %= unit;
        }
    }
    if parts.is_empty() { "0".into() } else { parts.join(" ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_sums() {
        assert_eq!(microseconds("5min 20s"), Ok(320_000_000));
        assert_eq!(microseconds("1.5"), Ok(1_500_000));
        assert_eq!(microseconds("100ms"), Ok(100_000));
        assert_eq!(microseconds("2 h"), Ok(7_200_000_000));
        assert_eq!(microseconds("1m"), Ok(60_000_000));
        assert_eq!(microseconds("1M"), Ok(2_629_800_000_000));
        assert_eq!(microseconds("55s500ms"), Ok(55_500_000));
        assert_eq!(microseconds("infinity"), Ok(INFINITY));
        for bad in ["", "s", "-1", "3. 1", "12.34.56", "1 parsec", "1sx"] {
            assert_eq!(microseconds(bad), Err(Expected::Time), "{bad}");
        }
        assert_eq!(microseconds("99999999999999999999"), Err(Expected::ShorterTime));
    }

    #[test]
    fn slack_is_in_nanoseconds() {
        assert_eq!(nanoseconds("50"), Ok(50));
        assert_eq!(nanoseconds("50 ns"), Ok(50));
        assert_eq!(nanoseconds("50us"), Ok(50_000));
        assert_eq!(nanoseconds("ns"), Err(Expected::Time));
    }

    #[test]
    fn a_timeout_of_zero_is_never() {
        assert_eq!(timeout("0"), Ok(0));
        assert_eq!(timeout("infinity"), Ok(0));
    }

    #[test]
    fn spans_are_shown() {
        assert_eq!(show(90_000_000), "1min 30s");
        assert_eq!(show(100_000), "100ms");
        assert_eq!(show(0), "0");
    }
}
