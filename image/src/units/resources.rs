//! Limits of a service's cgroup, systemd.resource-control(5): file and value of each.

use super::keys::Keys;
use super::value::{self, Expected, size, time};
use activator::manifest::Service;

const SECTION: &str = "Service";
/// CPUQuotaPeriodSec= by default.
const PERIOD_US: u64 = 100_000;

/// Files below the service's cgroup and what to write, in a fixed order.
pub(crate) fn read(keys: &mut Keys<'_>) -> Vec<(String, String)> {
    const BYTES: [(&str, &str); 6] = [
        ("MemoryMin", "memory.min"),
        ("MemoryLow", "memory.low"),
        ("MemoryHigh", "memory.high"),
        ("MemoryMax", "memory.max"),
        ("MemorySwapMax", "memory.swap.max"),
        ("MemoryZSwapMax", "memory.zswap.max"),
    ];
    let mut files = vec![];
    let memory = u64::from(keys.facts.input.config.vm.memory) << 20;
    for (key, file) in BYTES {
        let bytes = |text: &str| bytes(text, memory);
        files.extend(keys.setting(SECTION, key, bytes).map(|value| (file, value)));
    }
    files.extend(oom_group(keys).map(|value| ("memory.oom.group", value)));
    let tasks = |text: &str| match text {
        "infinity" => Ok("max".to_owned()),
        share if share.ends_with('%') => share_of(share, most_tasks(memory), 1),
        number => value::number(number, 1, i64::MAX).map(|number| number.to_string()),
    };
    files.extend(keys.setting(SECTION, "TasksMax", tasks).map(|value| ("pids.max", value)));
    let weight = |text: &str| value::number(text, 1, 10_000).map(|weight| weight.to_string());
    let cpu = |text: &str| match text {
        "idle" => Ok(("cpu.idle", "1".to_owned())),
        text => weight(text).map(|weight| ("cpu.weight", weight)),
    };
    files.extend(keys.setting(SECTION, "CPUWeight", cpu));
    files.extend(quota(keys).map(|value| ("cpu.max", value)));
    files.extend(keys.setting(SECTION, "AllowedCPUs", list).map(|value| ("cpuset.cpus", value)));
    let nodes = keys.setting(SECTION, "AllowedMemoryNodes", list);
    files.extend(nodes.map(|value| ("cpuset.mems", value)));
    let io = keys.setting(SECTION, "IOWeight", weight);
    files.extend(io.map(|value| ("io.weight", format!("default {value}"))));
    // Or a reload would not take it back.
    let known = |file: &str| Service::CGROUP_DEFAULTS.iter().any(|(known, _)| *known == file);
    debug_assert!(files.iter().all(|(file, _)| known(file)), "{files:?}");
    files.into_iter().map(|(file, value)| (file.to_owned(), value)).collect()
}

/// A share is one of `memory` in appliance.toml, in bytes; a page is the least that counts.
fn bytes(text: &str, memory: u64) -> Result<String, Expected> {
    const PAGE: u64 = 4096;
    if text == "infinity" {
        return Ok("max".into());
    }
    if text.ends_with('%') {
        return share_of(text, memory / PAGE, PAGE);
    }
    size::bytes(text).map(|bytes| bytes.to_string())
}

/// What the kernel takes for `kernel.threads-max` (an eighth of the memory for stacks of 16 KiB,
/// fork(2)) where it is below `kernel.pid_max`.
fn most_tasks(memory: u64) -> u64 {
    (memory / (8 * 16 * 1024)).min(32_768)
}

/// `12.34%` of `count` units.
fn share_of(text: &str, count: u64, unit: u64) -> Result<String, Expected> {
    let parts = text.strip_suffix('%').and_then(|share| hundredths(share.trim_end()));
    let parts = parts.filter(|parts| *parts <= 10_000);
    let parts = parts.ok_or(Expected::Other("a share from `0%` to `100%`"))?;
    Ok((count * parts / 10_000 * unit).to_string())
}

/// `12.34` as 1234: systemd takes two digits behind the point.
fn hundredths(text: &str) -> Option<u64> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if fraction.len() > 2 || !digits(whole) || !digits(fraction) {
        return None;
    }
    let whole: u64 = whole.parse().ok()?;
    let fraction: u64 = format!("{fraction:0<2}").parse().ok()?;
    whole.checked_mul(100)?.checked_add(fraction)
}

/// `OOMPolicy=kill`: the kernel kills all processes of the service together. With "stop", the
/// default, the service ends when its main process is the one; "continue" is the kernel's own way.
fn oom_group(keys: &mut Keys<'_>) -> Option<String> {
    const WORDS: &[&str] = &["continue", "stop", "kill"];
    let word = |text: &str| value::one_of(text, WORDS, &[false, false, true]);
    let kill = keys.setting(SECTION, "OOMPolicy", word).unwrap_or(false);
    kill.then(|| "1".to_owned())
}

/// `CPUQuota=20%` of one processor, in microseconds of each period.
fn quota(keys: &mut Keys<'_>) -> Option<String> {
    let period = keys.setting(SECTION, "CPUQuotaPeriodSec", |text| {
        let period = time::microseconds(text)?;
        // What the kernel takes, as systemd clamps it.
        Ok(period.clamp(1_000, 1_000_000))
    });
    let period = period.unwrap_or(PERIOD_US);
    let percent = keys.setting(SECTION, "CPUQuota", |text| {
        let expected = Expected::Other("a share of one processor such as `20%`");
        let number = text.strip_suffix('%').and_then(|number| number.trim().parse::<u64>().ok());
        number.filter(|number| (1..=1_000_000).contains(number)).ok_or(expected)
    })?;
    // Less than a millisecond is refused by the kernel.
    let quota = (percent * period / 100).max(1_000);
    Some(format!("{quota} {period}"))
}

/// `0-3 5`, as the kernel writes it: `0-3,5`.
fn list(text: &str) -> Result<String, Expected> {
    let expected = || Expected::Other("numbers and ranges such as `0-3,5`");
    let number = |text: &str| text.parse::<u16>().map_err(|_| expected());
    let mut parts = vec![];
    for part in text.split([',', ' ', '\t']).filter(|part| !part.is_empty()) {
        match part.split_once('-') {
            Some((first, last)) if number(first)? <= number(last)? => parts.push(part),
            None if number(part).is_ok() => parts.push(part),
            _ => return Err(expected()),
        }
    }
    Ok(parts.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_and_sizes() {
        assert_eq!(list("0-3 5,7").as_deref(), Ok("0-3,5,7"));
        assert!(list("3-0").is_err());
        let bytes = |text: &str| bytes(text, 256 << 20);
        for (text, expected) in [
            ("64M", "67108864"),
            ("infinity", "max"),
            ("50%", "134217728"),
            ("0.01%", "24576"),
            ("100 %", "268435456"),
        ] {
            assert_eq!(bytes(text).as_deref(), Ok(expected), "{text}");
        }
        for bad in ["101%", "%", "1.234%", "-1%", "x"] {
            assert!(bytes(bad).is_err(), "{bad}");
        }
    }
}
