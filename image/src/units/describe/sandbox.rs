//! What is taken from a process, in words.

use super::line;
use activator::manifest::{
    Device, DeviceRule, Mount, Network, PathRule, ProtectHome, ProtectSystem, Sandbox,
    SystemCallFilter,
};
use std::net::IpAddr;

/// Everything that is on.
pub(super) fn describe(text: &mut String, sandbox: &Sandbox) {
    match sandbox.protect_system {
        ProtectSystem::No => {}
        ProtectSystem::Yes => line(text, "read-only", "/usr and /boot"),
        ProtectSystem::Full => line(text, "read-only", "/usr, /boot and /etc"),
        ProtectSystem::Strict => line(text, "read-only", "everything but /dev, /proc and /sys"),
    }
    match sandbox.protect_home {
        ProtectHome::No => {}
        ProtectHome::Yes => line(text, "homes", "are empty, and cannot be reached"),
        ProtectHome::ReadOnly => line(text, "homes", "are read-only"),
        ProtectHome::Tmpfs => line(text, "homes", "are empty"),
    }
    if let Some(root) = &sandbox.root_directory {
        line(text, "root", root);
    }
    let namespaces = sandbox.namespaces;
    for (on, what) in [
        (sandbox.private_tmp, "a /tmp of its own"),
        (sandbox.private_devices, "no devices but /dev/null and its like"),
        (sandbox.protect_kernel_tunables, "no writes to /proc/sys and /sys"),
        (sandbox.protect_kernel_modules, "no kernel modules"),
        (sandbox.protect_kernel_logs, "no kernel log"),
        (sandbox.protect_control_groups, "no writes to cgroups"),
        (sandbox.protect_clock, "no setting of the clock"),
        (sandbox.protect_hostname, "no setting of the host name"),
        (sandbox.proc_subset_pid, "nothing but processes in /proc"),
        (sandbox.mount_api_vfs, "/proc, /sys and /dev of its own"),
        (namespaces.network, "a network of its own, with nothing in it"),
        (namespaces.ipc, "System V IPC of its own"),
        (namespaces.users, "users of its own"),
        (namespaces.mounts, "mounts of its own"),
        (sandbox.restrict_realtime, "no realtime scheduling"),
        (sandbox.restrict_suid_sgid, "no setting of setuid and setgid bits"),
        (sandbox.lock_personality, "no other personality"),
        (sandbox.memory_deny_write_execute, "no memory that is writable and executable"),
        (sandbox.native_only, "no system calls of other architectures"),
        (sandbox.private_keyring, "a keyring of its own"),
        (sandbox.shared_keyring, "its user's keyring in that"),
        (sandbox.remove_ipc, "no IPC objects left behind"),
    ] {
        if on {
            line(text, "confined", what);
        }
    }
    if !sandbox.protect_proc.is_empty() {
        line(text, "/proc", &format!("of others is {}", sandbox.protect_proc));
    }
    for mount in &sandbox.mounts {
        let (word, what) = show(mount);
        line(text, word, &what);
    }
    if let Some(path) = &sandbox.network_namespace_path {
        line(text, "network", &format!("of {path}"));
    }
    if let Some(group) = &sandbox.joins {
        line(text, "shares", &format!("what is its own with the group of {group}"));
    }
    if let Some((allow, families)) = &sandbox.address_families {
        let numbers: Vec<String> = families.iter().map(u32::to_string).collect();
        let only = if *allow { "only" } else { "all but" };
        line(text, "families", &format!("{only} {}", numbers.join(" ")));
    }
    if sandbox.restrict_namespaces != 0 {
        line(text, "namespaces", &format!("not {:#x}", sandbox.restrict_namespaces));
    }
    if let Some(filter) = &sandbox.system_calls {
        line(text, "calls", &calls(filter));
    }
    if let Some(it) = &sandbox.devices {
        let standard = it.standard.then(|| "/dev/null and its like".to_owned());
        let all: Vec<String> = standard.into_iter().chain(it.rules.iter().map(device)).collect();
        line(text, "devices", &format!("only {}", all.join(", ")));
    }
    if !sandbox.denied_addresses.is_empty() {
        line(text, "addresses", &addresses(sandbox));
    }
}

fn device(DeviceRule { device, access }: &DeviceRule) -> String {
    let letters =
        [(DeviceRule::READ, 'r'), (DeviceRule::WRITE, 'w'), (DeviceRule::MAKE, 'm')].into_iter();
    let access: String =
        letters.filter(|(bit, _)| access & bit != 0).map(|(_, letter)| letter).collect();
    match device {
        Device::Path(path) => format!("{path} {access}"),
        Device::Character(names) => format!("char-{names} {access}"),
        Device::Block(names) => format!("block-{names} {access}"),
    }
}

fn addresses(sandbox: &Sandbox) -> String {
    let list = |networks: &[Network]| -> String {
        let texts: Vec<String> = networks.iter().map(network).collect();
        texts.join(" ")
    };
    let mut text = format!("not {}", list(&sandbox.denied_addresses));
    if !sandbox.allowed_addresses.is_empty() {
        text.push_str(&format!(", but {}", list(&sandbox.allowed_addresses)));
    }
    text
}

fn network(Network { address, prefix }: &Network) -> String {
    let address: IpAddr = match (<[u8; 4]>::try_from(&address[..]), address) {
        (Ok(bytes), _) => bytes.into(),
        (Err(_), bytes) => <[u8; 16]>::try_from(&bytes[..]).unwrap_or_default().into(),
    };
    format!("{address}/{prefix}")
}

fn show(mount: &Mount) -> (&'static str, String) {
    let path = |rule: &PathRule| {
        let optional = if rule.optional { " (if it is there)" } else { "" };
        format!("{}{optional}", rule.path)
    };
    match mount {
        Mount::ReadWrite(rule) => ("writable", path(rule)),
        Mount::ReadOnly(rule) => ("read-only", path(rule)),
        Mount::Inaccessible(rule) => ("hidden", path(rule)),
        Mount::Exec(rule) => ("runs", path(rule)),
        Mount::NoExec(rule) => ("runs not", path(rule)),
        Mount::Temporary(rule, options) => ("tmpfs", format!("{} {options}", path(rule))),
        Mount::Bind(bind) => {
            let read_only = if bind.read_only { " read-only" } else { "" };
            let alone = if bind.recursive { "" } else { " without what is mounted below" };
            ("bind", format!("{} on {}{read_only}{alone}", path(&bind.source), bind.target))
        }
    }
}

/// Numbers say little to people, and names would fill pages.
fn calls(filter: &SystemCallFilter) -> String {
    let (only, count) = match filter.allow {
        true => ("only", filter.calls.iter().filter(|(_, errno)| errno.is_none()).count()),
        false => ("all but", filter.calls.len()),
    };
    let end = match filter.errno {
        None => "others kill it".to_owned(),
        Some(errno) => format!("others fail with error {errno}"),
    };
    format!("{only} {count} of them; {end}")
}
