//! Health checks (podman-run(1), `--health-cmd`). Podman leaves them to timers of systemd; here
//! the service's own checks run `podman healthcheck run NAME`, which does the rest: what to run,
//! what to count, what `HealthOnFailure=` comes to.
//!
//! Without `HealthCmd=` it runs what the image's HEALTHCHECK says, which is known when the image
//! is put into the guest.

use super::command::PODMAN;
use super::container::Maker;
use super::lines::Text;
use crate::finding::{Finding, Span};
use crate::oci;
use crate::units::value::{self, Expected, duration};
use activator::manifest::{Command, HealthCheck, OnUnhealthy, Probe, StartupCheck};

/// `--health-interval` and `--health-timeout` by default, in seconds.
const DEFAULT_US: u64 = 30_000_000;
/// Exit code of Podman where it did not come to the check: there is no such container, or it does
/// not run (podman-run(1), "Exit Status").
const PODMAN_FAILED: u8 = 125;
/// `--health-retries` by default.
const RETRIES: u32 = 3;

/// A service whose health check is its image's, if that has one.
#[derive(Debug)]
pub struct ImageHealth {
    /// The user whose service it is; None is the system's.
    pub user: Option<String>,
    /// Its name.
    pub service: String,
    /// The image, as the unit names it.
    pub image: String,
    /// `Image=`
    pub(in crate::units) span: Span,
    /// What the image does not say of it.
    pub(in crate::units) check: HealthCheck,
}

impl ImageHealth {
    /// The service's check; None if the image has none. As with Podman, it comes with its own
    /// times, whatever the unit says of those.
    pub fn with(&self, image: Option<&oci::HealthCheck>) -> Result<Option<HealthCheck>, Finding> {
        let Some(said) = image.filter(|said| said.test.first().is_some_and(|it| it != "NONE"))
        else {
            return if self.check.makes_ready { Err(self.never_ready()) } else { Ok(None) };
        };
        let mut check = self.check.clone();
        let time = |ns: u64, default| if ns > 0 { ns.div_ceil(1000) } else { default };
        check.probe.interval_us = time(said.interval_ns, DEFAULT_US);
        check.probe.timeout_us = time(said.timeout_ns, DEFAULT_US);
        check.start_period_us = time(said.start_period_ns, 0);
        // For Podman, unlike Docker, an image that says no number means the first failure.
        check.retries = said.retries.max(1);
        Ok(Some(check))
    }

    fn never_ready(&self) -> Finding {
        let message = "`Notify=healthy` waits for a health check, and the image has none";
        Finding::error(self.span.clone(), message).label("never ready").help("add `HealthCmd=`")
    }
}

/// The checks of a container.
pub(crate) struct Checks {
    /// Specifiers in the words of its commands are not replaced yet.
    pub(crate) check: HealthCheck,
    /// There is no `HealthCmd=`: whether there are checks at all is for the image to say.
    pub(crate) of_image: bool,
}

/// The checks that a container asks for, and those that its image may.
pub(super) fn of(maker: &mut Maker<'_>) -> Option<Checks> {
    let command = maker.lines.last("HealthCmd");
    if command.as_ref().is_some_and(|command| command.text == "none") {
        return None;
    }
    let of_image = command.is_none();
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
    let check = HealthCheck {
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
    };
    Some(Checks { check, of_image })
}

fn wrong(maker: &mut Maker<'_>, key: &str, text: &Text) {
    let expected = "a time such as `30s` or `1m30s`, or `disable`";
    maker.lines.wrong(key, text, &Expected::Other(expected));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::finding::Source;
    use std::sync::Arc;

    fn asked(makes_ready: bool) -> ImageHealth {
        let source = Arc::new(Source { path: "a.container".into(), text: String::new() });
        let probe = Probe { interval_us: 1, timeout_us: 1, ..Probe::default() };
        let check = HealthCheck {
            probe,
            retries: 9,
            start_period_us: 1,
            on_failure: OnUnhealthy::None,
            startup: None,
            no_verdict: Some(PODMAN_FAILED),
            makes_ready,
        };
        let (service, image) = ("a.service".into(), "x".into());
        ImageHealth { user: None, service, image, span: Span::file(&source), check }
    }

    #[test]
    fn an_images_check_comes_with_its_own_times() {
        let test = ["CMD", "/check"].map(str::to_owned).to_vec();
        let interval_ns = 5_000_000_000;
        let said = oci::HealthCheck { test, interval_ns, ..oci::HealthCheck::default() };
        let check = asked(true).with(Some(&said)).unwrap().unwrap();
        assert_eq!((check.probe.interval_us, check.probe.timeout_us), (5_000_000, DEFAULT_US));
        assert_eq!((check.retries, check.start_period_us, check.makes_ready), (1, 0, true));
    }

    #[test]
    fn without_a_check_nothing_gets_healthy() {
        let none = oci::HealthCheck { test: vec!["NONE".into()], ..oci::HealthCheck::default() };
        for said in [None, Some(&none)] {
            assert_eq!(asked(false).with(said), Ok(None));
            assert!(asked(true).with(said).unwrap_err().message.contains("Notify=healthy"));
        }
    }
}
