//! `LimitNOFILE=` and its kin, setrlimit(2).

use crate::units::keys::Keys;
use crate::units::value::{self, Expected, size, time};

/// What the manifest calls infinity.
const INFINITY: u64 = u64::MAX;

/// What a limit counts.
#[derive(Clone, Copy)]
enum Measure {
    Bytes,
    Seconds,
    Microseconds,
    Number,
    /// -20 to 19, which the kernel counts from 40 down.
    Nice,
}

/// Key, RLIMIT number of x86-64 and aarch64 (getrlimit(2)), measure.
const LIMITS: [(&str, u32, Measure); 16] = [
    ("LimitCPU", 0, Measure::Seconds),
    ("LimitFSIZE", 1, Measure::Bytes),
    ("LimitDATA", 2, Measure::Bytes),
    ("LimitSTACK", 3, Measure::Bytes),
    ("LimitCORE", 4, Measure::Bytes),
    ("LimitRSS", 5, Measure::Bytes),
    ("LimitNPROC", 6, Measure::Number),
    ("LimitNOFILE", 7, Measure::Number),
    ("LimitMEMLOCK", 8, Measure::Bytes),
    ("LimitAS", 9, Measure::Bytes),
    ("LimitLOCKS", 10, Measure::Number),
    ("LimitSIGPENDING", 11, Measure::Number),
    ("LimitMSGQUEUE", 12, Measure::Bytes),
    ("LimitNICE", 13, Measure::Nice),
    ("LimitRTPRIO", 14, Measure::Number),
    ("LimitRTTIME", 15, Measure::Microseconds),
];

/// RLIMIT number, soft and hard limit of each key that is given.
pub(super) fn read(keys: &mut Keys<'_>, section: &str) -> Vec<(u32, u64, u64)> {
    let mut limits = vec![];
    for (key, number, measure) in LIMITS {
        let limit = keys.setting(section, key, |text| {
            let (soft, hard) = text.split_once(':').unwrap_or((text, text));
            let (soft, hard) = (limit(soft, measure)?, limit(hard, measure)?);
            if soft > hard {
                return Err(Expected::Other("a soft limit that is not above the hard one"));
            }
            Ok((number, soft, hard))
        });
        limits.extend(limit);
    }
    limits
}

fn limit(text: &str, measure: Measure) -> Result<u64, Expected> {
    if text == "infinity" {
        return Ok(INFINITY);
    }
    match measure {
        Measure::Bytes => size::bytes(text),
        Measure::Seconds => Ok(time::microseconds(text)?.div_ceil(1_000_000)),
        // A bare number is in microseconds here.
        Measure::Microseconds => match text.parse() {
            Ok(number) => Ok(number),
            Err(_) => time::microseconds(text),
        },
        Measure::Number => value::number(text, 0, i64::MAX).map(|number| number as u64),
        Measure::Nice => match text.starts_with(['+', '-']) {
            true => value::number(text, -20, 19).map(|nice| (20 - nice) as u64),
            false => value::number(text, 0, 40).map(|number| number as u64),
        },
    }
}
