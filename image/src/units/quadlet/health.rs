//! `HealthCmd=` and its kin become a [`HealthCheck`], podman-run(1).

use crate::container::{Container, Health, Notify, Written};
use crate::finding::Finding;
use crate::units::syntax::shorten;
use crate::units::value::duration;
use activator::exit;
use activator::manifest::{Command, HealthCheck, OnUnhealthy, Probe, StartupCheck};

/// Between two checks, and how long one may take: 30 s.
const INTERVAL_US: u64 = 30_000_000;
const RETRIES: u32 = 3;

/// The health checks of a container, if it has any; findings for what does not parse. `command`
/// makes the command line that runs some words in the container. A container without `HealthCmd=`
/// may get one from its image ([`without`]).
pub(crate) fn compile(
    container: &Container,
    command: &dyn Fn(&[String]) -> Command,
    findings: &mut Vec<Finding>,
) -> Option<Box<HealthCheck>> {
    let health = &container.health;
    let written = health.command.as_ref()?;
    let Some(words) = words(&written.text) else {
        without(container, findings);
        return None;
    };
    let mut reader = Reader { findings };
    let on_failure = reader.action(health.on_failure.as_ref());
    let interval_us = reader.time(&health.interval, "HealthInterval", INTERVAL_US);
    if interval_us == 0 && container.notify == Notify::Healthy {
        never_ready(container, reader.findings);
    }
    Some(Box::new(HealthCheck {
        probe: Probe {
            command: command(&words),
            interval_us,
            timeout_us: reader.time(&health.timeout, "HealthTimeout", INTERVAL_US),
        },
        retries: reader.number(&health.retries, "HealthRetries", RETRIES).max(1),
        start_period_us: reader.time(&health.start_period, "HealthStartPeriod", 0),
        on_failure,
        startup: reader.startup(health, command),
        no_verdict: Some(exit::TRY_AGAIN),
        makes_ready: container.notify == Notify::Healthy,
    }))
}

/// Findings about keys that do nothing for a container that has no check, its image's neither.
pub(crate) fn without(container: &Container, findings: &mut Vec<Finding>) {
    if container.notify == Notify::Healthy {
        return never_ready(container, findings);
    }
    if let Some(startup) = &container.health.startup_command {
        findings.push(
            Finding::error(startup.span.clone(), "`HealthStartupCmd=` needs a `HealthCmd=`")
                .label("the start of what?")
                .help("add `HealthCmd=`, as Podman would say, or take the line out"),
        );
    }
}

fn never_ready(container: &Container, findings: &mut Vec<Finding>) {
    findings.push(
        Finding::error(
            container.span_of("Notify"),
            "`Notify=healthy` waits for a health check, and none ever runs",
        )
        .label("never ready")
        .help("add `HealthCmd=`, with an interval"),
    );
}

struct Reader<'f> {
    findings: &'f mut Vec<Finding>,
}

impl Reader<'_> {
    fn startup(
        &mut self,
        health: &Health,
        command: &dyn Fn(&[String]) -> Command,
    ) -> Option<StartupCheck> {
        let words = words(&health.startup_command.as_ref()?.text)?;
        Some(StartupCheck {
            probe: Probe {
                command: command(&words),
                interval_us: self.time(
                    &health.startup_interval,
                    "HealthStartupInterval",
                    INTERVAL_US,
                ),
                timeout_us: self.time(&health.startup_timeout, "HealthStartupTimeout", INTERVAL_US),
            },
            retries: self.number(&health.startup_retries, "HealthStartupRetries", 0),
            successes: self.number(&health.startup_success, "HealthStartupSuccess", 0),
        })
    }

    /// A time as Go writes it, in microseconds; `disable` is 0.
    fn time(&mut self, written: &Option<Written>, key: &str, default: u64) -> u64 {
        let Some(written) = written else { return default };
        duration::microseconds(&written.text).unwrap_or_else(|| {
            self.wrong(written, key, "a time such as `30s`, `1m30s` or `500ms`");
            default
        })
    }

    fn number(&mut self, written: &Option<Written>, key: &str, default: u32) -> u32 {
        let Some(written) = written else { return default };
        written.text.parse().unwrap_or_else(|_| {
            self.wrong(written, key, "a number");
            default
        })
    }

    fn action(&mut self, written: Option<&Written>) -> OnUnhealthy {
        let Some(written) = written else { return OnUnhealthy::None };
        match written.text.as_str() {
            "none" => OnUnhealthy::None,
            "kill" => OnUnhealthy::Kill,
            "restart" => OnUnhealthy::Restart,
            "stop" => OnUnhealthy::Stop,
            _ => {
                self.wrong(written, "HealthOnFailure", "none, kill, restart or stop");
                OnUnhealthy::None
            }
        }
    }

    fn wrong(&mut self, written: &Written, key: &str, expected: &str) {
        let message = format!("`{key}=` does not take `{}`", shorten(&written.text));
        self.findings.push(
            Finding::error(written.span.clone(), message)
                .label(format!("expected {expected}"))
                .help("see podman-run(1), or leave the line out for the default"),
        );
    }
}

/// What runs in the container: a JSON array as it stands, `CMD a b` without a shell, anything
/// else by `/bin/sh -c`; None is `none`.
fn words(text: &str) -> Option<Vec<String>> {
    let shell = |text: &str| Some(vec!["/bin/sh".to_owned(), "-c".to_owned(), text.to_owned()]);
    let fields = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    if let Ok(words) = serde_json::from_str::<Vec<String>>(text) {
        let (first, rest) = words.split_first()?;
        return match first.to_ascii_uppercase().as_str() {
            "NONE" => None,
            "CMD" => Some(rest.to_vec()),
            "CMD-SHELL" => shell(&rest.join(" ")),
            _ if rest.is_empty() => shell(first),
            _ => Some(words),
        };
    }
    let (first, rest) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
    match first.to_ascii_uppercase().as_str() {
        "NONE" | "" => None,
        "CMD" => Some(fields(rest)),
        "CMD-SHELL" => shell(rest),
        _ => shell(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_podmans() {
        let shell = |text: &str| Some(vec!["/bin/sh".into(), "-c".into(), text.into()]);
        let list = |words: &[&str]| Some(words.iter().map(|&word| word.to_owned()).collect());
        for (text, expected) in [
            ("curl -f localhost || exit 1", shell("curl -f localhost || exit 1")),
            ("CMD-SHELL a && b", shell("a && b")),
            ("CMD /bin/a  b", list(&["/bin/a", "b"])),
            (r#"["/bin/a", "b c"]"#, list(&["/bin/a", "b c"])),
            (r#"["CMD", "/bin/a"]"#, list(&["/bin/a"])),
            (r#"["/bin/a b"]"#, shell("/bin/a b")),
            ("none", None),
        ] {
            assert_eq!(words(text), expected, "{text}");
        }
    }
}
