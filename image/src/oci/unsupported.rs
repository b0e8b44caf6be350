//! What the engine crun cannot do of a container, or Podman would not do either: each by name, at
//! the line that asks for it.

use super::check::is_name;
use super::{Activation, files, mount_key, storage, user_namespace, wrong};
use crate::container::{Container, Network, Space, Volume, VolumeSource, Written};
use crate::finding::Finding;

/// What to do about what needs Podman.
const USE_PODMAN: &str = "take it out, or set `engine = \"podman\"` in appliance.toml";
/// Options of a `Volume=`.
const VOLUME_OPTIONS: [&str; 28] = [
    "ro",
    "rw",
    "z",
    "Z",
    "U",
    "O",
    "copy",
    "nocopy",
    "idmap",
    "bind",
    "rbind",
    "exec",
    "noexec",
    "suid",
    "nosuid",
    "dev",
    "nodev",
    "relatime",
    "noatime",
    "private",
    "rprivate",
    "shared",
    "rshared",
    "slave",
    "rslave",
    "nodiratime",
    "diratime",
    "strictatime",
];

/// All findings about a container's keys.
pub(super) fn check(container: &Container, findings: &mut Vec<Finding>) {
    findings.extend(container.rootfs.as_ref().and_then(root));
    network(container, findings);
    names(container, findings);
    for volume in storage::volumes(container) {
        findings.extend(volume_finding(container, &volume));
    }
    for written in &container.mounts {
        if let Err(option) = mount_key::parse(&written.text) {
            findings.push(
                wrong(&written.span, format!("`Mount=` does not take `{option}`"))
                    .label("refused by the engine crun")
                    .help(
                        "bind, tmpfs, volume, image, glob, devpts and ramfs are taken; others need \
                         `engine = \"podman\"`",
                    ),
            );
        }
    }
    findings.extend(user_namespace::check(container));
    if let Some(driver) = &container.log_driver {
        match driver.text.as_str() {
            "none" | "passthrough" | "k8s-file" | "json-file" => {}
            "journald" => {
                findings.push(needs_podman(driver, "`LogDriver=journald` needs a journal"));
            }
            other => findings.push(
                wrong(&driver.span, format!("`LogDriver=` does not take `{other}`"))
                    .label("expected none, passthrough, k8s-file or json-file")
                    .help("leave the line out: what it writes goes to the unit's log"),
            ),
        }
    }
    for profile in container.app_armor.iter().filter(|it| it.text != "unconfined") {
        findings.push(
            wrong(&profile.span, format!("`AppArmor={}` is a profile", profile.text))
                .label("the guest loads none; expected `unconfined`")
                .help("take the line out if the container does well without it"),
        );
    }
    if container.extra.privileged {
        findings.push(Finding::note(
            container.span_of("PodmanArgs"),
            "`--privileged` gives no devices by itself: name them with `AddDevice=`",
        ));
    }
}

/// What depends on its sockets.
pub(super) fn with_sockets(container: &Container, activation: Activation) -> Option<Finding> {
    if activation == Activation::None || container.extra.pid != Space::Guest {
        return None;
    }
    let message = "with `--pid=host` no program would take the sockets: LISTEN_PID is wrong";
    Some(
        wrong(&container.span_of("PodmanArgs"), message)
            .label("the container's first process is not 1")
            .help("take `--pid=host` out"),
    )
}

fn needs_podman(written: &Written, message: &str) -> Finding {
    wrong(&written.span, message).label("refused by the engine crun").help(USE_PODMAN)
}

/// `Rootfs=PATH[:OPTION,...]`
fn root(written: &Written) -> Option<Finding> {
    let (path, options) = written.text.split_once(':').unwrap_or((&written.text, "O"));
    if !path.starts_with('/') {
        let message = format!("`Rootfs={path}` is not an absolute path");
        return Some(
            wrong(&written.span, message)
                .label("expected a path of the guest")
                .help("put the files there with `[files]` in appliance.toml, and name that path"),
        );
    }
    let other = options.split(',').find(|option| *option != "O")?;
    Some(needs_podman(written, &format!("`Rootfs=` has the option `{other}`")))
}

/// The engine crun makes no network.
fn network(container: &Container, findings: &mut Vec<Finding>) {
    let span = container.span_of("Network");
    match &container.network {
        Network::None | Network::Host | Network::Path(_) | Network::Container(_) => {}
        Network::Bridge => findings.push(
            wrong(&span, "the container has no `Network=`, and the engine crun makes no bridge")
                .label("Podman would connect it to a bridge")
                .help(
                    "add `Network=none`: activated sockets work with it; or `Network=host`; or set \
                     `engine = \"podman\"` in appliance.toml",
                ),
        ),
        Network::Other(text) => findings.push(
            wrong(&span, format!("`Network={text}` needs a network that Podman makes"))
                .label("expected `none`, `host`, `ns:PATH` or `container:NAME`")
                .help(
                    "`Network=none` is enough for activated sockets; other networks need \
                     `engine = \"podman\"`",
                ),
        ),
    }
    let dns = [&container.dns, &container.dns_options, &container.dns_search];
    if container.network == Network::None
        && let Some(written) = dns.into_iter().flatten().next()
    {
        findings.push(
            wrong(&written.span, "a container with `Network=none` can ask no name server")
                .label("Podman refuses it as well")
                .help("take the line out, or write `Network=host`"),
        );
    }
}

fn names(container: &Container, findings: &mut Vec<Finding>) {
    for written in container.add_hosts.iter().filter(|it| files::host(&it.text).is_none()) {
        let message = format!("`AddHost=` does not take `{}`", written.text);
        findings.push(wrong(&written.span, message).label("expected `name:address`").help(
            "write an address; `host-gateway` is only known to Podman, with \
                     `engine = \"podman\"`",
        ));
    }
    let zones = container.timezone.iter().filter(|zone| zone.text.contains(".."));
    for zone in zones {
        findings.push(
            wrong(&zone.span, format!("there is no time zone `{}`", zone.text))
                .help("write one such as `Europe/Berlin`, or `local`"),
        );
    }
}

fn volume_finding(container: &Container, volume: &Volume) -> Option<Finding> {
    if let VolumeSource::Name(name) = &volume.source
        && !is_name(name)
    {
        return Some(
            wrong(&volume.span, format!("`{name}` cannot be a volume's name"))
                .label("expected letters, digits, `_`, `.` and `-`")
                .help("change it here, or in the `VolumeName=` of its `.volume`"),
        );
    }
    // The file is not there, which is a finding of its own.
    if matches!(volume.source, VolumeSource::Unit(_)) {
        return None;
    }
    if let VolumeSource::Path(path) = &volume.source
        && path.starts_with('.')
    {
        let message =
            format!("`Volume={path}` is meant from the unit's folder, which no guest has");
        return Some(
            wrong(&volume.span, message)
                .label("expected an absolute path of the guest")
                .help("put the files there with `[files]` in appliance.toml, and name that path"),
        );
    }
    let known = |option: &&String| VOLUME_OPTIONS.contains(&option.as_str());
    if let Some(option) = volume.options.iter().find(|option| !known(option)) {
        let message = format!("`Volume=` has the option `{option}`");
        return Some(
            wrong(&volume.span, message).label("refused by the engine crun").help(USE_PODMAN),
        );
    }
    let is_overlay = volume.options.iter().any(|option| option == "O");
    (is_overlay && container.owner.is_some()).then(|| {
        wrong(&volume.span, "`O` in a user's container is not supported by this version")
            .label("refused by the engine crun")
            .help("take the option out")
    })
}
