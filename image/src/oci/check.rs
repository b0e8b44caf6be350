//! What can be found wrong with a container of engine crun before its image is there.

use super::{capability, specification, unsupported, wrong};
use crate::container::{Container, Network};
use crate::finding::Finding;

/// Options of a Tmpfs= that stand for themselves; size=, mode=, nr_inodes= and nr_blocks= have
/// values.
const TMPFS_OPTIONS: [&str; 12] = [
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
    unsupported::check(container, &mut findings);
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

/// Podman's rule for names.
fn is_name(name: &str) -> bool {
    let rest = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
    name.bytes().next().is_some_and(|first| first.is_ascii_alphanumeric())
        && name.bytes().all(rest)
        && name.len() <= 128
}
