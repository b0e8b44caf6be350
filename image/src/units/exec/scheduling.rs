//! CPU and I/O scheduling, sched(7) and ioprio_set(2).

use crate::units::keys::Keys;
use crate::units::value::{self, Expected, time};
use activator::manifest::Scheduling;

/// Classes of ioprio_set(2), from 0.
const IO_CLASSES: &[&str] = &["none", "realtime", "best-effort", "idle"];
const BEST_EFFORT: u32 = 2;
/// IOPRIO_NORM: the middle of 0 to 7.
const IO_PRIORITY: u32 = 4;
/// More CPUs than any guest has; what cpu_set_t holds.
const CPUS: u16 = 1024;

/// Reads all of it.
pub(super) fn read(keys: &mut Keys<'_>, section: &str) -> Scheduling {
    const POLICIES: &[&str] = &["other", "batch", "idle", "fifo", "rr"];
    let policy = |text: &str| value::one_of(text, POLICIES, &[0, 3, 5, 1, 2]);
    let policy = keys.setting(section, "CPUSchedulingPolicy", policy);
    let priority = keys
        .setting(section, "CPUSchedulingPriority", |text| value::number(text, 0, 99))
        .map(|priority| priority as u32);
    let real_time = matches!(policy, Some(1 | 2));
    let expected = match (real_time, priority) {
        (true, Some(0)) => Some("a number from 1 to 99 for `fifo` and `rr`"),
        (false, Some(1..)) => Some("0, or `CPUSchedulingPolicy=fifo` or `rr` beside it"),
        _ => None,
    };
    if let (Some(expected), Some(line)) =
        (expected, keys.unit.all(section, "CPUSchedulingPriority").next_back())
    {
        keys.bad(line, &Expected::Other(expected));
    }
    Scheduling {
        policy,
        // systemd's default for the two is the lowest; the others have none.
        priority: real_time.then(|| priority.unwrap_or(1)),
        reset_on_fork: keys.flag(section, "CPUSchedulingResetOnFork"),
        affinity: affinity(keys, section),
        io_priority: io_priority(keys, section),
        timer_slack_ns: keys.setting(section, "TimerSlackNSec", time::nanoseconds),
    }
}

/// `CPUAffinity=`: numbers and ranges, all lines together.
fn affinity(keys: &mut Keys<'_>, section: &str) -> Vec<u16> {
    let mut cpus = vec![];
    for (line, word) in keys.list_words(section, "CPUAffinity") {
        for part in word.text.split(',').filter(|part| !part.is_empty()) {
            match range(part) {
                Some((first, last)) => cpus.extend(first..=last),
                None => {
                    keys.bad_word(line, &word, &Expected::Other("numbers of CPUs such as `0-3 5`"));
                }
            }
        }
    }
    cpus.sort_unstable();
    cpus.dedup();
    cpus
}

fn range(text: &str) -> Option<(u16, u16)> {
    let number = |text: &str| text.parse::<u16>().ok().filter(|number| *number < CPUS);
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (number(first)?, number(last)?);
    (first <= last).then_some((first, last))
}

fn io_priority(keys: &mut Keys<'_>, section: &str) -> Option<u32> {
    let class = keys.setting(section, "IOSchedulingClass", |text| match text.parse::<u32>() {
        Ok(class) if class <= 3 => Ok(class),
        _ => value::one_of(text, IO_CLASSES, &[0, 1, 2, 3]),
    });
    let priority = keys
        .setting(section, "IOSchedulingPriority", |text| value::number(text, 0, 7))
        .map(|priority| priority as u32);
    match (class, priority) {
        (None, None) => None,
        // Class "none" has no priority.
        (Some(0), _) => Some(0),
        (class, priority) => {
            Some(class.unwrap_or(BEST_EFFORT) << 13 | priority.unwrap_or(IO_PRIORITY))
        }
    }
}
