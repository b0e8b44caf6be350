//! Units that every guest has without a file: systemd.special(7), resolved away on the host.
//!
//! The guest starts its units when everything that these stand for is done: mounts, modules,
//! the loopback, a log. So an order after one of them is always kept, and needs no edge.

use super::manager::Manager;

/// The first address is there.
pub(crate) const NETWORK_ONLINE: &str = "network-online.target";
/// What Podman's generator has a user's services wait for instead: their manager has no such
/// target, and this asks the system's.
pub(crate) const NETWORK_ONLINE_OF_USERS: &str = "podman-user-wait-network-online.service";

/// Targets that the boot reaches: what they want is started at boot.
const BOOT: [&str; 18] = [
    "basic.target",
    "default.target",
    "getty.target",
    "graphical.target",
    "local-fs.target",
    "multi-user.target",
    NETWORK_ONLINE,
    "network.target",
    "nss-lookup.target",
    "nss-user-lookup.target",
    "paths.target",
    "remote-fs.target",
    "rpcbind.target",
    "slices.target",
    "sockets.target",
    "swap.target",
    "sysinit.target",
    "timers.target",
];

/// Others that are there, or that nobody has to wait for.
const OTHERS: [&str; 26] = [
    "ctrl-alt-del.target",
    "emergency.target",
    "exit.target",
    "final.target",
    "first-boot-complete.target",
    "getty-pre.target",
    "halt.target",
    "initrd.target",
    "kexec.target",
    "local-fs-pre.target",
    "network-pre.target",
    "poweroff.target",
    "reboot.target",
    "remote-fs-pre.target",
    "rescue.target",
    "shutdown.target",
    "sleep.target",
    "soft-reboot.target",
    "ssh-access.target",
    "time-set.target",
    "time-sync.target",
    "umount.target",
    "cryptsetup.target",
    "init.scope",
    "syslog.socket",
    NETWORK_ONLINE_OF_USERS,
];

/// Those of a user's manager. What wants one that only the system has is never started.
const BOOT_OF_USERS: [&str; 5] =
    ["basic.target", "default.target", "paths.target", "sockets.target", "timers.target"];

/// Targets of a user's session, which a lingering user without a login does not have.
const SESSION: [&str; 6] = [
    "app.slice",
    "bluetooth.target",
    "graphical-session-pre.target",
    "graphical-session.target",
    "printer.target",
    "sound.target",
];

/// Their names, for "did you mean".
pub(crate) fn targets(manager: &Manager) -> impl Iterator<Item = &'static str> {
    boot_targets(manager).iter().copied()
}

fn boot_targets(manager: &Manager) -> &'static [&'static str] {
    match manager {
        Manager::System => &BOOT,
        Manager::User(..) => &BOOT_OF_USERS,
    }
}

/// Whether what a target wants is started at boot.
pub(crate) fn is_boot_target(name: &str, manager: &Manager) -> bool {
    boot_targets(manager).contains(&name)
}

/// Whether it is a target of the system alone: what a user's unit wants of it never happens.
pub(crate) fn is_of_the_system(name: &str, manager: &Manager) -> bool {
    matches!(manager, Manager::User(..)) && BOOT.contains(&name) && !BOOT_OF_USERS.contains(&name)
}

/// Whether an order or a dependency on a unit is always met. A user's units may name targets of
/// the system: systemd does not find them, and keeps the order of what is not there.
pub(crate) fn is_always_there(name: &str) -> bool {
    let part_of_systemd = name.starts_with("systemd-")
        && [".service", ".socket", ".target"].iter().any(|suffix| name.ends_with(suffix));
    let of_the_kernel = [".mount", ".slice", ".swap"].iter().any(|suffix| name.ends_with(suffix));
    BOOT.contains(&name)
        || OTHERS.contains(&name)
        || SESSION.contains(&name)
        || part_of_systemd
        || of_the_kernel
}
