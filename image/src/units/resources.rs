//! Limits of a service's cgroup, systemd.resource-control(5): file and value of each.

use super::keys::Keys;
use super::value::{self, Expected, size, time};

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
    for (key, file) in BYTES {
        files.extend(keys.setting(SECTION, key, bytes).map(|value| (file, value)));
    }
    let tasks = |text: &str| match text {
        "infinity" => Ok("max".to_owned()),
        number => value::number(number, 1, i64::MAX).map(|number| number.to_string()),
    };
    files.extend(keys.setting(SECTION, "TasksMax", tasks).map(|value| ("pids.max", value)));
    let weight = |text: &str| value::number(text, 1, 10_000).map(|weight| weight.to_string());
    files.extend(keys.setting(SECTION, "CPUWeight", weight).map(|value| ("cpu.weight", value)));
    files.extend(quota(keys).map(|value| ("cpu.max", value)));
    files.extend(keys.setting(SECTION, "AllowedCPUs", list).map(|value| ("cpuset.cpus", value)));
    let nodes = keys.setting(SECTION, "AllowedMemoryNodes", list);
    files.extend(nodes.map(|value| ("cpuset.mems", value)));
    let io = keys.setting(SECTION, "IOWeight", weight);
    files.extend(io.map(|value| ("io.weight", format!("default {value}"))));
    files.into_iter().map(|(file, value)| (file.to_owned(), value)).collect()
}

fn bytes(text: &str) -> Result<String, Expected> {
    match text {
        "infinity" => Ok("max".into()),
        text if text.ends_with('%') => {
            Err(Expected::Other("a size such as `64M`; a share of all memory is not supported"))
        }
        text => size::bytes(text).map(|bytes| bytes.to_string()),
    }
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
        assert_eq!(bytes("64M").as_deref(), Ok("67108864"));
        assert_eq!(bytes("infinity").as_deref(), Ok("max"));
        assert!(bytes("50%").is_err());
    }
}
