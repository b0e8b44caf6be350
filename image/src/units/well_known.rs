//! Units that every guest has without a file: systemd.special(7), resolved away on the host.
//!
//! The guest starts its units when everything that these stand for is done: mounts, modules,
//! the loopback, a log. So an order after one of them is always kept, and needs no edge.

/// Targets that the boot reaches: what they want is started at boot.
const BOOT: [&str; 18] = [
    "basic.target",
    "default.target",
    "getty.target",
    "graphical.target",
    "local-fs.target",
    "multi-user.target",
    "network-online.target",
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
    "podman-user-wait-network-online.service",
];

/// Their names, for "did you mean".
pub(crate) fn targets() -> impl Iterator<Item = &'static str> {
    BOOT.into_iter()
}

/// Whether what a target wants is started at boot.
pub(crate) fn is_boot_target(name: &str) -> bool {
    BOOT.contains(&name)
}

/// Whether an order or a dependency on a unit is always met.
pub(crate) fn is_always_there(name: &str) -> bool {
    let part_of_systemd = name.starts_with("systemd-")
        && [".service", ".socket", ".target"].iter().any(|suffix| name.ends_with(suffix));
    let of_the_kernel = [".mount", ".slice", ".swap"].iter().any(|suffix| name.ends_with(suffix));
    is_boot_target(name) || OTHERS.contains(&name) || part_of_systemd || of_the_kernel
}
