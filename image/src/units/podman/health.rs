//! Health checks (podman-run(1), `--health-cmd`). Podman leaves them to timers of systemd; here
//! the service's own checks run `podman healthcheck run NAME`, which does the rest: what to run,
//! what to count, what `HealthOnFailure=` comes to.

use super::command::PODMAN;
use super::container::Maker;
use super::lines::Text;
use crate::units::value::{self, Expected, duration};
use activator::manifest::{Command, HealthCheck, OnUnhealthy, Probe, StartupCheck};

/// `--health-interval` and `--health-timeout` by default, in seconds.
const DEFAULT_US: u64 = 30_000_000;
/// Exit code of Podman where it did not come to the check: there is no such container, or it does
/// not run (podman-run(1), "Exit Status").
const PODMAN_FAILED: u8 = 125;
/// `--health-retries` by default.
const RETRIES: u32 = 3;

/// The checks that a container asks for. Its name may have specifiers yet.
pub(super) fn of(maker: &mut Maker<'_>) -> Option<HealthCheck> {
    let command = maker.lines.last("HealthCmd")?;
    if command.text == "none" {
        return None;
    }
    let name = maker.name().text;
    let probe = |interval_us, timeout_us| Probe {
        command: Command {
            program: PODMAN.into(),
            arguments: [PODMAN, "healthcheck", "run", &name].map(str::to_owned).to_vec(),
            ..Command::default()
        },
        interval_us,
        timeout_us,
    };
    let time = |maker: &mut Maker<'_>, key: &str, default: u64| {
        let text = maker.lines.last(key)?;
        match duration::microseconds(&text.text) {
            Some(time) => Some(time),
            None => {
                wrong(maker, key, &text);
                Some(default)
            }
        }
    };
    let number = |maker: &mut Maker<'_>, key: &str| {
        let text = maker.lines.last(key)?;
        let number = value::unsigned(&text.text);
        if let Err(expected) = &number {
            maker.lines.wrong(key, &text, expected);
        }
        number.ok()
    };
    let startup = maker.lines.last("HealthStartupCmd").is_some().then(|| StartupCheck {
        probe: probe(
            time(maker, "HealthStartupInterval", DEFAULT_US).unwrap_or(DEFAULT_US),
            time(maker, "HealthStartupTimeout", DEFAULT_US).unwrap_or(DEFAULT_US),
        ),
        // Podman restarts the container itself.
        retries: 0,
        successes: number(maker, "HealthStartupSuccess").unwrap_or(0),
    });
    let ready = maker.lines.last("Notify");
    Some(HealthCheck {
        probe: probe(
            time(maker, "HealthInterval", DEFAULT_US).unwrap_or(DEFAULT_US),
            time(maker, "HealthTimeout", DEFAULT_US).unwrap_or(DEFAULT_US),
        ),
        retries: number(maker, "HealthRetries").unwrap_or(RETRIES).max(1),
        start_period_us: time(maker, "HealthStartPeriod", 0).unwrap_or(0),
        on_failure: OnUnhealthy::None,
        startup,
        no_verdict: Some(PODMAN_FAILED),
        makes_ready: ready.is_some_and(|text| text.text.eq_ignore_ascii_case("healthy")),
    })
}

fn wrong(maker: &mut Maker<'_>, key: &str, text: &Text) {
    let expected = "a time such as `30s` or `1m30s`, or `disable`";
    maker.lines.wrong(key, text, &Expected::Other(expected));
}
