//! How a run of a service went, and what `Restart=` makes of it.

use super::Service;
use activator::control::Exit;
use activator::manifest::{self, Restart, ServiceKind, Statuses};
use activator::wire;

/// `RestartSec=` is at least that long, so that a service that cannot even be cloned does not
/// keep PID 1 busy.
const SHORTEST_RESTART_US: u64 = 10_000;

/// How a run went. The first trouble of a run stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    Success,
    /// An exit code that is no success.
    Code,
    /// A signal.
    Signal,
    /// A signal, with a core dump.
    Dump,
    Timeout,
    /// `WATCHDOG=1` did not come in time.
    Watchdog,
    /// `Type=notify` ended well without `READY=1`, or `Type=forking` without a main process.
    Protocol,
    /// No child could be made.
    Resources,
    /// `ExecCondition=` says no, which is no failure.
    Skipped,
    /// A limit holds `Restart=`. Only others are told so.
    StartLimit,
}

wire! {
    enum Outcome {
        Success, Code, Signal, Dump, Timeout, Watchdog, Protocol, Resources, Skipped,
        StartLimit,
    }
}

impl Outcome {
    /// `SERVICE_RESULT` (systemd.exec(5)).
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Code => "exit-code",
            Self::Signal => "signal",
            Self::Dump => "core-dump",
            Self::Timeout => "timeout",
            Self::Watchdog => "watchdog",
            Self::Protocol => "protocol",
            Self::Resources => "resources",
            Self::Skipped => "exec-condition",
            Self::StartLimit => "start-limit-hit",
        }
    }

    /// Whether it leaves nothing to complain about.
    pub(super) fn is_good(self) -> bool {
        matches!(self, Self::Success | Self::Skipped)
    }
}

/// What the end of a main process means, by `SuccessExitStatus=` and the signals that are clean
/// (systemd.service(5)).
pub(super) fn judge(spec: &manifest::Service, exit: Exit) -> Outcome {
    let clean = [libc::SIGHUP, libc::SIGINT, libc::SIGTERM, libc::SIGPIPE];
    match exit {
        Exit::Signal(signal) if spec.kind != ServiceKind::Oneshot && clean.contains(&signal) => {
            Outcome::Success
        }
        _ => judge_command(spec, exit),
    }
}

/// What the end of another command means. It is no daemon that a signal may end.
pub(super) fn judge_command(spec: &manifest::Service, exit: Exit) -> Outcome {
    match exit {
        Exit::Code(0) => Outcome::Success,
        // A dump is never a success.
        Exit::Code(_) | Exit::Signal(_) if names(&spec.success, exit) => Outcome::Success,
        Exit::Code(_) => Outcome::Code,
        Exit::Signal(_) => Outcome::Signal,
        Exit::Dumped(_) => Outcome::Dump,
    }
}

impl Service {
    /// Whether `Restart=` and its exceptions want another run after this one.
    pub(super) fn restarts(&self, spec: &manifest::Service) -> bool {
        use Outcome::{Code, Dump, Signal, Skipped, Success, Watchdog};
        let ended_with = |statuses| self.main_exit.is_some_and(|exit| names(statuses, exit));
        if ended_with(&spec.restart_prevent) {
            return false;
        }
        if ended_with(&spec.restart_force) {
            return true;
        }
        match spec.restart {
            Restart::No => false,
            Restart::Always => self.outcome != Skipped,
            Restart::OnSuccess => self.outcome == Success,
            Restart::OnFailure => !self.outcome.is_good(),
            Restart::OnAbnormal => !matches!(self.outcome, Success | Code | Skipped),
            Restart::OnAbort => matches!(self.outcome, Signal | Dump),
            Restart::OnWatchdog => self.outcome == Watchdog,
        }
    }

    /// How long to wait before the next run: `RestartSec=`, growing to `RestartMaxDelaySec=` in
    /// `RestartSteps=` restarts, each longer than the one before by the same factor.
    pub(super) fn restart_delay(&self, spec: &manifest::Service) -> u64 {
        let (first, last) = (spec.restart_delay_us, spec.restart_max_delay_us);
        let delay = match (self.restarts_in_row, spec.restart_steps) {
            (_, 0) | (0, _) => first,
            _ if first == 0 || first >= last => first,
            (done, steps) if done >= steps => last,
            (done, steps) => {
                let factor = root(last as f64 / first as f64, steps);
                (first as f64 * power(factor, done)) as u64
            }
        };
        delay.max(SHORTEST_RESTART_US)
    }
}

/// The positive root of a number that is not less than 1, by halving: the C library's mathematics
/// are a library of their own, which PID 1 does without.
fn root(number: f64, degree: u32) -> f64 {
    let (mut low, mut high) = (1.0, number);
    for _ in 0..64 {
        let middle = (low + high) / 2.0;
        match power(middle, degree) > number {
            true => high = middle,
            false => low = middle,
        }
    }
    low
}

fn power(mut base: f64, mut exponent: u32) -> f64 {
    let mut result = 1.0;
    while exponent > 0 {
        if exponent % 2 == 1 {
            result *= base;
        }
        base *= base;
        exponent /= 2;
    }
    result
}

fn names(statuses: &Statuses, exit: Exit) -> bool {
    match exit {
        Exit::Code(code) => statuses.codes.contains(&code),
        Exit::Signal(signal) | Exit::Dumped(signal) => statuses.signals.contains(&signal),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::supervise::tests::service as plain;

    #[test]
    fn the_restart_delay_grows_by_the_same_factor_to_the_longest() {
        let spec = manifest::Service {
            restart_delay_us: 100_000,
            restart_max_delay_us: 1_600_000,
            restart_steps: 4,
            ..plain()
        };
        let mut service = Service::new(&spec);
        let mut delays = vec![];
        for done in 0..6 {
            service.restarts_in_row = done;
            // Powers of two come out of the floating point a microsecond short at worst.
            delays.push((service.restart_delay(&spec) + 1) / 100_000);
        }
        assert_eq!(delays, [1, 2, 4, 8, 16, 16]);
    }

    #[test]
    fn prevent_beats_force_beats_restart() {
        let mut spec = plain();
        let mut service = Service::new(&spec);
        let mut restarts = |spec: &manifest::Service, exit| {
            service.outcome = judge(spec, exit);
            service.main_exit = Some(exit);
            service.restarts(spec)
        };
        spec.restart = Restart::OnFailure;
        assert!(restarts(&spec, Exit::Code(3)));
        assert!(!restarts(&spec, Exit::Code(0)));
        spec.restart_force.codes = vec![0, 3];
        assert!(restarts(&spec, Exit::Code(0)));
        spec.restart_prevent.codes = vec![3];
        assert!(!restarts(&spec, Exit::Code(3)));
        assert!(restarts(&spec, Exit::Dumped(11)));
        spec.restart_prevent.signals = vec![11];
        assert!(!restarts(&spec, Exit::Dumped(11)));
        spec.success.signals = vec![6];
        assert!(restarts(&spec, Exit::Dumped(6)), "a dump is never a success");
    }

    #[test]
    fn no_signal_is_clean_for_a_command_that_is_no_daemon() {
        let mut spec = plain();
        spec.success.codes = vec![3];
        let judged = [Exit::Code(3), Exit::Code(4), Exit::Signal(libc::SIGTERM)];
        let judged = judged.map(|exit| (judge(&spec, exit), judge_command(&spec, exit)));
        let same = |outcome| (outcome, outcome);
        let signal = (Outcome::Success, Outcome::Signal);
        assert_eq!(judged, [same(Outcome::Success), same(Outcome::Code), signal]);
    }

    #[test]
    fn each_restart_setting_wants_what_systemd_service_says() {
        use Outcome::*;
        let all = [Success, Code, Signal, Dump, Timeout, Watchdog, Protocol, Resources, Skipped];
        let table = [
            (Restart::No, vec![]),
            (Restart::Always, all[..8].to_vec()),
            (Restart::OnSuccess, vec![Success]),
            (Restart::OnFailure, all[1..8].to_vec()),
            (Restart::OnAbnormal, all[2..8].to_vec()),
            (Restart::OnAbort, vec![Signal, Dump]),
            (Restart::OnWatchdog, vec![Watchdog]),
        ];
        for (restart, expected) in table {
            let spec = manifest::Service { restart, ..plain() };
            let mut service = Service::new(&spec);
            let wants = |outcome: &Outcome| {
                service.outcome = *outcome;
                service.restarts(&spec)
            };
            let got: Vec<Outcome> = all
                .into_iter()
                .filter({
                    let mut wants = wants;
                    move |outcome| wants(outcome)
                })
                .collect();
            assert_eq!(got, expected, "{restart:?}");
        }
    }
}
