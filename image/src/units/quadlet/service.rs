//! `[Service]` of a Quadlet becomes the service that runs the container with crun.
//!
//! Podman's service is ready when the runtime has started the container, and is stopped by
//! `podman rm` with the container's own signal and time-out. Here crun stays in the foreground:
//! it passes signals on, and ends with the container's exit code.

use crate::container::Container;
use crate::finding::Finding;
use crate::oci;
use crate::units::keys::Keys;
use crate::units::service::ServiceUnit;
use crate::units::value::{Expected, signal};
use activator::manifest::{self, Command, KillMode, ServiceKind};

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
        // Podman's notify says that the runtime has started; so does a successful exec of crun.
        None | Some("notify") => ServiceKind::Exec,
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
    service.start = vec![start(&container.id())];
    service.stop.clear();
    service.reload.clear();
    service.execution.user = None;
    service.container = Some(manifest::Container {
        id: container.id(),
        template: format!("{BUNDLES}/{}/config.json", container.id()),
        writable: container.writes().then(|| oci::folder(&container.image)),
        ..manifest::Container::default()
    });
}

fn start(id: &str) -> Command {
    let bundle = format!("{}/{id}", manifest::Container::BUNDLES);
    let arguments = [
        CRUN,
        "--root",
        manifest::Container::STATE,
        "--cgroup-manager=cgroupfs",
        "run",
        "--bundle",
        &bundle,
        id,
    ];
    Command {
        program: CRUN.into(),
        arguments: arguments.map(str::to_owned).to_vec(),
        ..Command::default()
    }
}
