//! What can be found wrong with a container of engine crun before its image is there.

use super::mount::{BIND_OPTIONS, PROPAGATION};
use super::{capability, specification, wrong};
use crate::container::{Container, Network, VolumeSource};
use crate::finding::Finding;

/// Options of a Tmpfs= that stand for themselves; size=, mode=, nr_inodes= and nr_blocks= have
/// values.
const TMPFS_OPTIONS: [&str; 11] = [
    "rw",
    "ro",
    "exec",
    "noexec",
    "suid",
    "nosuid",
    "dev",
    "nodev",
    "tmpcopyup",
    "notmpcopyup",
    "noatime",
];

/// Sysctls that each container has for itself, namespaces(7); net.* are, without Network=host.
const SYSCTLS: [&str; 8] = [
    "kernel.msgmax",
    "kernel.msgmnb",
    "kernel.msgmni",
    "kernel.sem",
    "kernel.shmall",
    "kernel.shmmax",
    "kernel.shmmni",
    "kernel.shm_rmid_forced",
];

/// Findings about what crun alone cannot do, or Podman would not do either.
pub fn check(container: &Container) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut add = |message: String, help: &str| {
        findings.push(wrong(&container.span, message).help(help));
    };
    if !is_name(&container.name) {
        add(
            format!("`{}` cannot be a container's name", container.name),
            "start with a letter or digit, and go on with those, `_`, `.` and `-`",
        );
    }
    if let Some(finding) = network(container) {
        findings.push(finding);
    }
    let mut add = |message: String, help: &str| {
        findings.push(wrong(&container.span, message).help(help));
    };
    if container.owner.is_some() && container.network == Network::Host {
        add(
            "`Network=host` of a user's container is not supported by this version".into(),
            "write `Network=none`: its sockets come from a socket unit",
        );
    }
    let capabilities = capability::merge(&container.add_capabilities, &container.drop_capabilities);
    if let Err(error) = capabilities {
        add(error.to_string(), "capabilities(7) lists them; ALL stands for all");
    }
    for (name, _, _) in &container.ulimits {
        if specification::rlimit(name).is_none() {
            add(format!("there is no limit `{name}`"), "getrlimit(2) lists them, such as nofile");
        }
    }
    for (path, options) in &container.tmpfs {
        let known = |option: &str| {
            let valued = ["size=", "mode=", "nr_inodes=", "nr_blocks=", "uid=", "gid="];
            TMPFS_OPTIONS.contains(&option) || valued.iter().any(|name| option.starts_with(name))
        };
        for option in options.iter().filter(|option| !known(option)) {
            let help = "size=, mode=, ro, exec and the like are known";
            add(format!("`Tmpfs={path}` has the option `{option}`, which crun lacks"), help);
        }
    }
    for volume in &container.volumes {
        let destination = &volume.destination;
        let VolumeSource::Path(source) = &volume.source else {
            add(
                format!("`Volume=` at `{destination}` is a volume that Podman makes"),
                "name a path of the guest: `/source:/destination`",
            );
            continue;
        };
        let known = |option: &str| BIND_OPTIONS.contains(&option) || PROPAGATION.contains(&option);
        for option in volume.options.iter().filter(|option| !known(option)) {
            add(
                format!("`Volume={source}:{destination}` has the option `{option}`"),
                "only Podman can do that: set engine = \"podman\" in appliance.toml",
            );
        }
    }
    for (name, _) in &container.sysctls {
        let own = SYSCTLS.contains(&name.as_str()) || name.starts_with("fs.mqueue.");
        match (name.starts_with("net."), &container.network) {
            (true, Network::Host) => add(
                format!("with `Network=host`, `{name}` is the guest's, not the container's"),
                "leave it out",
            ),
            (true, _) => {}
            (false, _) if own => {}
            (false, _) => {
                add(
                    format!("a container has no `{name}` of its own"),
                    "namespaces(7) lists what it has",
                );
            }
        }
    }
    findings
}

/// The engine crun makes no network.
fn network(container: &Container) -> Option<Finding> {
    let span = container.span_of("Network");
    match &container.network {
        Network::None | Network::Host => None,
        Network::Bridge => Some(
            wrong(&span, "the container has no `Network=`, and the engine crun makes no bridge")
                .label("Podman would connect it to a bridge")
                .help("add `Network=none`: activated sockets work with it; or `Network=host`"),
        ),
        Network::Path(text) | Network::Container(text) | Network::Other(text) => Some(
            wrong(&span, format!("`Network={text}` needs a network that Podman makes"))
                .label("expected `none` or `host`")
                .help(
                    "`Network=none` is enough for activated sockets; other networks need \
                     `engine = \"podman\"`",
                ),
        ),
    }
}

/// Podman's rule for names.
fn is_name(name: &str) -> bool {
    let rest = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
    name.bytes().next().is_some_and(|first| first.is_ascii_alphanumeric())
        && name.bytes().all(rest)
        && name.len() <= 128
}
