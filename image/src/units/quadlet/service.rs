//! `[Service]` of a Quadlet becomes the service that runs the container with crun.
//!
//! Podman's service is ready when the runtime has started the container, and is stopped by
//! `podman rm` with the container's own signal and time-out. Here crun stays in the foreground:
//! it passes signals on, and ends with the container's exit code.

use super::{health, preparation};
use crate::container::{CgroupsMode, Container, Notify, Reload, Root};
use crate::finding::Finding;
use crate::oci;
use crate::units::keys::Keys;
use crate::units::service::ServiceUnit;
use crate::units::syntax::shorten;
use crate::units::value::{Expected, signal};
use activator::manifest::{self, Command, KillMode, NotifyAccess, Output, ServiceKind};

/// crun's path in the image.
const CRUN: &str = "/usr/bin/crun";
/// Below it, one folder for each container's prepared bundle.
const BUNDLES: &str = "/usr/lib/rouse/bundles";

/// Makes of the `[Service]` of a Quadlet the service that runs the container with crun.
pub(crate) fn complete(keys: &mut Keys<'_>, unit: &mut ServiceUnit, container: &Container) {
    let definition = keys.unit;
    let service = &mut unit.service;
    let kind = definition.all("Service", "Type").next_back();
    service.kind = match kind.map(|line| line.value.text.as_str()) {
        Some("oneshot") => ServiceKind::Oneshot,
        None | Some("notify") => match container.notify {
            // Podman's notify says that the runtime has started; so does an exec of crun.
            Notify::Runtime => ServiceKind::Exec,
            Notify::Container | Notify::Healthy => ServiceKind::Notify,
        },
        Some(_) => {
            if let Some(line) = kind {
                let expected = Expected::OneOf(&["notify", "oneshot"]);
                keys.bad(line, &expected);
            }
            ServiceKind::Exec
        }
    };
    service.kill_mode = match service.kill_mode {
        _ if !definition.has("Service", "KillMode") => KillMode::Mixed,
        mode @ (KillMode::Mixed | KillMode::ControlGroup) => mode,
        _ => {
            if let Some(line) = definition.all("Service", "KillMode").next_back() {
                keys.bad(line, &Expected::OneOf(&["mixed", "control-group"]));
            }
            KillMode::Mixed
        }
    };
    for (key, why) in [
        ("ExecStart", "is made from `[Container]`"),
        ("ExecStop", "is not needed: the container is stopped by a signal"),
        ("ExecReload", "is not supported in a Quadlet by this version"),
        ("User", "does not change who the container runs as"),
        ("Group", "does not change who the container runs as"),
    ] {
        if let Some(line) = definition.all("Service", key).next_back() {
            let help = match key {
                "User" | "Group" => format!("put `{key}=` into [Container]"),
                _ => "take the line out".into(),
            };
            keys.findings.push(
                Finding::error(line.key_span.clone(), format!("`{key}=` {why}"))
                    .label("refused in a Quadlet")
                    .help(help),
            );
        }
    }
    if let Some(signal) = container.stop_signal.as_deref() {
        service.kill_signal = signal::number(signal).unwrap_or(service.kill_signal);
    }
    // 0 would be "never" in the manifest, and means "at once" for Podman.
    let stop_us = (container.stop_timeout.saturating_mul(1_000_000)).max(1);
    let given =
        definition.has("Service", "TimeoutStopSec") || definition.has("Service", "TimeoutSec");
    service.stop_timeout_us = match service.stop_timeout_us {
        limit if given && limit > 0 => limit.min(stop_us),
        _ => stop_us,
    };
    if !definition.has("Service", "TimeoutAbortSec") {
        service.abort_timeout_us = service.stop_timeout_us;
    }
    let id = container.id();
    let bundle = format!("{}/{id}", manifest::Container::BUNDLES);
    let mut start = crun(&["run", "--bundle", &bundle, &id]);
    if container.cgroups_mode == CgroupsMode::Disabled {
        start.arguments[3] = "--cgroup-manager=disabled".into();
    }
    service.start = vec![start];
    log(service, container, keys.findings);
    service.stop.clear();
    service.reload = reload(keys, container).into_iter().collect();
    service.health = health(container, keys.findings);
    if service.kind == ServiceKind::Notify {
        service.notify_access = NotifyAccess::All;
    }
    if container.notify == Notify::Healthy {
        // Else crun would hand on what the container says of itself.
        let stage2 = service.execution.stage2.get_or_insert_default();
        stage2.unset_environment.push("NOTIFY_SOCKET".into());
    }
    service.execution.user = None;
    unit.container = Some(container.span.clone());
    service.container = Some(manifest::Container {
        id: container.id(),
        template: format!("{BUNDLES}/{}/config.json", container.id()),
        writable: (container.root() == Root::Layer).then(|| oci::root_folder(container)),
        preparation: preparation::of(keys, container),
        ..manifest::Container::default()
    });
}

/// Where what the container writes goes: `LogDriver=`, `LogOpt=`.
fn log(service: &mut manifest::Service, container: &Container, findings: &mut Vec<Finding>) {
    let mut output = match &container.log_driver {
        Some(driver) if driver.text == "none" => Some(Output::Null),
        _ => None,
    };
    let has_path = output.is_none()
        && container.log_options.iter().any(|option| option.text.starts_with("path="));
    for option in &container.log_options {
        let (name, value) = option.text.split_once('=').unwrap_or((&option.text, ""));
        let wrong = |message: String| Finding::error(option.span.clone(), message);
        match name {
            "path" if !value.starts_with('/') => findings.push(
                wrong(format!("`LogOpt=path={}` is not an absolute path", shorten(value)))
                    .label("expected a path of the guest"),
            ),
            "path" if output.is_none() => {
                let (append, truncate) = (true, false);
                output = Some(Output::File { path: value.into(), append, truncate });
                let message = "the file of `LogOpt=path=` gets what the container writes, \
                               without the time and stream that Podman puts before each line";
                findings.push(Finding::note(option.span.clone(), message));
            }
            "path" => {}
            "max-size" | "max-file" if has_path => {
                let message =
                    format!("`LogOpt={name}` has no effect: nothing bounds the file of `path=`");
                findings.push(
                    Finding::warning(option.span.clone(), message)
                        .label("not bounded")
                        .help("leave `LogOpt=path=` out for the unit's log, which is bounded"),
                );
            }
            "max-size" | "max-file" => {
                let message = format!("`LogOpt={name}` has no effect: the unit's log is bounded");
                findings.push(Finding::note(option.span.clone(), message));
            }
            "tag" | "label" | "labels" | "env" => {
                let message = format!("`LogOpt={name}` has no effect: a line has its unit's name");
                findings.push(Finding::note(option.span.clone(), message));
            }
            _ => findings.push(
                wrong(format!("`LogOpt=` does not take `{}`", shorten(name)))
                    .label("expected path=, max-size= or tag=")
                    .help("see podman-run(1), --log-opt"),
            ),
        }
    }
    if let Some(output) = output {
        service.execution.stderr = output.clone();
        service.execution.stdout = output;
    }
}

/// Its health checks, which run in it.
pub(super) fn health(
    container: &Container,
    findings: &mut Vec<Finding>,
) -> Option<Box<manifest::HealthCheck>> {
    let id = container.id();
    health::compile(container, &|words| exec(&id, words), findings)
}

/// `ReloadCmd=`, `ReloadSignal=`
fn reload(keys: &mut Keys<'_>, container: &Container) -> Option<Command> {
    let id = container.id();
    match container.reload.as_ref()? {
        Reload::Command(words) => Some(exec(&id, words)),
        Reload::Signal(written) => match signal::number(&written.text) {
            Ok(number) => Some(crun(&["kill", &id, &number.to_string()])),
            Err(expected) => {
                let message = format!("`ReloadSignal=` does not take `{}`", written.text);
                keys.findings.push(
                    Finding::error(written.span.clone(), message)
                        .label(format!("expected {expected}"))
                        .help("see signal(7)"),
                );
                None
            }
        },
    }
}

/// Runs some words in a container that is up.
fn exec(id: &str, words: &[String]) -> Command {
    let mut command = crun(&["exec", id]);
    command.arguments.extend_from_slice(words);
    command
}

fn crun(words: &[&str]) -> Command {
    let common = [CRUN, "--root", manifest::Container::STATE, "--cgroup-manager=cgroupfs"];
    let arguments = common.iter().chain(words).map(|&word| word.to_owned()).collect();
    Command { program: CRUN.into(), arguments, ..Command::default() }
}
