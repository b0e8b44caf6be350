//! What can be found wrong with a container of engine crun before its image is there.

use super::capability::{self, CapabilityError};
use super::{specification, storage, unsupported, wrong};
use crate::container::{Container, Network, Space};
use crate::finding::Finding;

/// Options of a Tmpfs= that stand for themselves; size=, mode=, nr_inodes= and nr_blocks= have
/// values.
const TMPFS_OPTIONS: [&str; 13] = [
    "U",
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
    "rprivate",
];

/// Sysctls that each container has for itself, namespaces(7); net.* are, without Network=host.
const SYSCTLS: [&str; 9] = [
    "kernel.domainname",
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
    // At the line with that key and text.
    let mut add = |key: &str, text: &str, message: String, help: &str| {
        findings.push(wrong(&container.span_with(key, text), message).help(help));
    };
    if !is_name(&container.name) {
        add(
            "ContainerName",
            "",
            format!("`{}` cannot be a container's name", container.name),
            "start with a letter or digit, and go on with those, `_`, `.` and `-`",
        );
    }
    if container.owner.is_some() && container.network == Network::Host {
        add(
            "Network",
            "",
            "`Network=host` of a user's container is not supported by this version".into(),
            "write `Network=none`: its sockets come from a socket unit",
        );
    }
    let capabilities = capability::merge(&container.add_capabilities, &container.drop_capabilities);
    if let Err(error) = capabilities {
        let (CapabilityError::Unknown(name) | CapabilityError::Both(name)) = &error;
        let key = match container.drop_capabilities.contains(name) {
            true => "DropCapability",
            false => "AddCapability",
        };
        let written = name.trim_start_matches("CAP_");
        add(key, written, error.to_string(), "capabilities(7) lists them; ALL stands for all");
    }
    for (name, _, _) in &container.ulimits {
        if specification::rlimit(name).is_none() {
            let help = "getrlimit(2) lists them, such as nofile";
            add("Ulimit", name, format!("there is no limit `{name}`"), help);
        }
    }
    for (path, options) in &container.tmpfs {
        let known = |option: &str| {
            let valued = ["size=", "mode=", "nr_inodes=", "nr_blocks=", "uid=", "gid="];
            TMPFS_OPTIONS.contains(&option) || valued.iter().any(|name| option.starts_with(name))
        };
        for option in options.iter().filter(|option| !known(option)) {
            let help = "size=, mode=, ro, exec and the like are known";
            let message = format!("`Tmpfs={path}` has the option `{option}`, which crun lacks");
            add("Tmpfs", path, message, help);
        }
    }
    for (name, _) in &container.sysctls {
        if let Some((message, help)) = sysctl(container, name) {
            add("Sysctl", name, message, help);
        }
    }
    unsupported::check(container, &mut findings);
    findings
}

/// What is wrong with a sysctl, and what to do about it.
fn sysctl(container: &Container, name: &str) -> Option<(String, &'static str)> {
    if name.starts_with("net.") {
        if container.network == Network::Host {
            let message =
                format!("with `Network=host`, `{name}` is the guest's, not the container's");
            return Some((message, "leave it out"));
        }
        return storage::has_anothers_network(container).then(|| {
            let message =
                format!("a user namespace has no say about `{name}` of another's network");
            (message, "set it where that network is made, or leave it out")
        });
    }
    let has_names = container.extra.uts != Space::Guest;
    let own = SYSCTLS.contains(&name) && (has_names || name != "kernel.domainname");
    let help = "namespaces(7) lists what it has";
    (!own && !name.starts_with("fs.mqueue."))
        .then(|| (format!("a container has no `{name}` of its own"), help))
}

/// Podman's rule for names of containers and volumes.
pub(super) fn is_name(name: &str) -> bool {
    let rest = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
    name.bytes().next().is_some_and(|first| first.is_ascii_alphanumeric())
        && name.bytes().all(rest)
        && name.len() <= 128
}
