//! When a service is started again, and which of its ends are good: `Restart=`,
//! `SuccessExitStatus=` and their kin, systemd.service(5).

use super::keys::Keys;
use super::value::{self, Expected, exit, time};
use crate::finding::Span;
use activator::manifest::{RateLimit, Restart, Service, ServiceKind, Statuses};

const SECTION: &str = "Service";

/// Reads the keys into a service that has its kind, and else the defaults.
pub(crate) fn read(keys: &mut Keys<'_>, service: &mut Service) {
    service.restart = restart(keys, service.kind);
    service.restart_delay_us =
        keys.setting(SECTION, "RestartSec", time::microseconds).unwrap_or(service.restart_delay_us);
    service.restart_steps =
        keys.setting(SECTION, "RestartSteps", value::unsigned).unwrap_or_default();
    service.restart_max_delay_us =
        keys.setting(SECTION, "RestartMaxDelaySec", time::timeout).unwrap_or_default();
    growing(keys, service);
    service.start_limit = start_limit(keys, service.start_limit);
    service.success = statuses(keys, "SuccessExitStatus");
    service.restart_prevent = statuses(keys, "RestartPreventExitStatus");
    service.restart_force = statuses(keys, "RestartForceExitStatus");
}

fn restart(keys: &mut Keys<'_>, kind: ServiceKind) -> Restart {
    const WORDS: &[&str] =
        &["no", "on-success", "on-failure", "on-abnormal", "on-abort", "on-watchdog", "always"];
    const VALUES: [Restart; 7] = [
        Restart::No,
        Restart::OnSuccess,
        Restart::OnFailure,
        Restart::OnAbnormal,
        Restart::OnAbort,
        Restart::OnWatchdog,
        Restart::Always,
    ];
    let word = |text: &str| value::one_of(text, WORDS, &VALUES);
    let restart = keys.setting(SECTION, "Restart", word).unwrap_or(Restart::No);
    if kind == ServiceKind::Oneshot && matches!(restart, Restart::Always | Restart::OnSuccess) {
        let unit = keys.unit;
        if let Some(line) = unit.all(SECTION, "Restart").next_back() {
            let expected = Expected::Other("another value: with `Type=oneshot` it would never end");
            keys.bad(line, &expected);
        }
    }
    restart
}

/// Where a restart is to be no end for those bound to the service. `debug` is `normal` with longer
/// logs.
pub(crate) fn direct(keys: &mut Keys<'_>, service: &Service) -> Option<Span> {
    const WORDS: &[&str] = &["normal", "direct", "debug"];
    let mode = |text: &str| value::one_of(text, WORDS, &[false, true, false]);
    let direct = keys.setting(SECTION, "RestartMode", mode) == Some(true);
    let line = keys.unit.all(SECTION, "RestartMode").next_back();
    line.filter(|_| direct && service.restart != Restart::No).map(|line| line.value.span())
}

/// A delay that grows needs both keys, and a longer one at the end: else systemd warns, and the
/// delay stays as it is.
fn growing(keys: &mut Keys<'_>, service: &mut Service) {
    let (steps, longest) = (service.restart_steps, service.restart_max_delay_us);
    if steps > 0 && longest > service.restart_delay_us {
        return;
    }
    let unit = keys.unit;
    let given = |key| unit.all(SECTION, key).next_back();
    let (steps_line, longest_line) = (given("RestartSteps"), given("RestartMaxDelaySec"));
    let (line, expected) = match (steps > 0, longest > 0) {
        (false, false) => return,
        (true, false) => (steps_line, "`RestartMaxDelaySec=` beside it, which it leads to"),
        (false, true) => (longest_line, "`RestartSteps=` beside it, which lead to it"),
        (true, true) => (longest_line, "a longer time than `RestartSec=`"),
    };
    if let Some(line) = line {
        keys.bad(line, &Expected::Other(expected));
    }
    service.restart_steps = 0;
    service.restart_max_delay_us = 0;
}

fn start_limit(keys: &mut Keys<'_>, default: RateLimit) -> RateLimit {
    let interval = keys.last_of(
        &[
            ("Unit", "StartLimitIntervalSec"),
            ("Unit", "StartLimitInterval"),
            (SECTION, "StartLimitInterval"),
        ],
        time::microseconds,
    );
    let burst =
        keys.last_of(&[("Unit", "StartLimitBurst"), (SECTION, "StartLimitBurst")], value::unsigned);
    RateLimit {
        interval_us: interval.unwrap_or(default.interval_us),
        burst: burst.unwrap_or(default.burst),
    }
}

fn statuses(keys: &mut Keys<'_>, key: &str) -> Statuses {
    let mut statuses = Statuses::default();
    for (line, word) in keys.list_words(SECTION, key) {
        match exit::parse(&word.text) {
            Ok(exit::Status::Code(code)) => statuses.codes.push(code),
            Ok(exit::Status::Signal(signal)) => statuses.signals.push(signal),
            Err(expected) => keys.bad_word(line, &word, &expected),
        }
    }
    statuses.codes.sort_unstable();
    statuses.codes.dedup();
    statuses.signals.sort_unstable();
    statuses.signals.dedup();
    statuses
}
