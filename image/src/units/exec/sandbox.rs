//! The sandboxing keys: `Protect*=`, `Private*=` and `Restrict*=`.

use super::{filters, mounts, restrictions, system_calls};
use crate::units::keys::Keys;
use crate::units::value::{self, Expected};
use activator::manifest::{Namespaces, ProtectHome, ProtectSystem, Sandbox};

/// Reads all of them.
pub(super) fn read(keys: &mut Keys<'_>, section: &str) -> Sandbox {
    let mut flag = |key: &str| keys.flag(section, key);
    let mut sandbox = Sandbox {
        private_devices: flag("PrivateDevices"),
        protect_kernel_tunables: flag("ProtectKernelTunables"),
        protect_kernel_modules: flag("ProtectKernelModules"),
        protect_kernel_logs: flag("ProtectKernelLogs"),
        protect_clock: flag("ProtectClock"),
        proc_subset_pid: false,
        mount_api_vfs: flag("MountAPIVFS"),
        restrict_realtime: flag("RestrictRealtime"),
        restrict_suid_sgid: flag("RestrictSUIDSGID"),
        lock_personality: flag("LockPersonality"),
        memory_deny_write_execute: flag("MemoryDenyWriteExecute"),
        remove_ipc: flag("RemoveIPC"),
        namespaces: Namespaces {
            network: flag("PrivateNetwork"),
            ipc: flag("PrivateIPC"),
            mounts: flag("PrivateMounts"),
            users: false,
            identity: false,
        },
        ..Sandbox::default()
    };
    sandbox.protect_system = protect_system(keys, section);
    sandbox.protect_home = protect_home(keys, section);
    // A tmpfs of its own is what a guest has to be disconnected from.
    sandbox.private_tmp = flag_or(keys, section, "PrivateTmp", &["yes", "no", "disconnected"], 2);
    sandbox.protect_control_groups =
        flag_or(keys, section, "ProtectControlGroups", &["yes", "no"], 2);
    sandbox.protect_hostname = flag_or(keys, section, "ProtectHostname", &["yes", "no"], 2);
    let users: &'static [&str] = &["yes", "no", "self", "identity"];
    sandbox.namespaces.users = flag_or(keys, section, "PrivateUsers", users, 2);
    let last = keys.unit.all(section, "PrivateUsers").next_back();
    sandbox.namespaces.identity = last.is_some_and(|line| line.value.text == "identity");
    // Either keeps the service's mounts to itself.
    let flags: &'static [&str] = &["shared", "slave", "private"];
    let mount_flags = keys
        .setting(section, "MountFlags", |text| value::one_of(text, flags, &[false, true, true]));
    sandbox.namespaces.mounts |= mount_flags.unwrap_or(false);
    let processes: &'static [&str] = &["default", "noaccess", "invisible", "ptraceable"];
    let protect_proc = keys.setting(section, "ProtectProc", |text| {
        value::one_of(text, processes, &["", "noaccess", "invisible", "ptraceable"])
    });
    sandbox.protect_proc = protect_proc.unwrap_or_default().to_owned();
    let subsets: &'static [&str] = &["all", "pid"];
    let subset =
        keys.setting(section, "ProcSubset", |text| value::one_of(text, subsets, &[false, true]));
    sandbox.proc_subset_pid = subset.unwrap_or(false);
    let keyrings: &'static [&str] = &["inherit", "private", "shared"];
    let keyring = keys.setting(section, "KeyringMode", |text| {
        value::one_of(text, keyrings, &[(false, false), (true, false), (true, true)])
    });
    (sandbox.private_keyring, sandbox.shared_keyring) = keyring.unwrap_or_default();
    sandbox.root_directory = path(keys, section, "RootDirectory").filter(|path| path != "/");
    sandbox.network_namespace_path = path(keys, section, "NetworkNamespacePath");
    sandbox.mounts = mounts::read(keys, section);
    sandbox.address_families = restrictions::address_families(keys, section);
    sandbox.restrict_namespaces = restrictions::namespaces(keys, section);
    sandbox.native_only = restrictions::native_only(keys, section);
    sandbox.system_calls = system_calls::read(keys, section);
    filters::read(keys, section, &mut sandbox);
    sandbox
}

fn path(keys: &mut Keys<'_>, section: &str, key: &str) -> Option<String> {
    let text = keys.text(section, key)?;
    keys.path(&text)
}

/// A boolean that also takes words, which from `yes_from` on mean yes.
fn flag_or(
    keys: &mut Keys<'_>,
    section: &str,
    key: &str,
    words: &'static [&'static str],
    yes_from: usize,
) -> bool {
    let parsed = keys.setting(section, key, |text| match value::boolean(text) {
        Ok(flag) => Ok(flag),
        Err(_) => match words.iter().position(|word| *word == text) {
            Some(at) => Ok(at >= yes_from),
            None => Err(Expected::OneOf(words)),
        },
    });
    parsed.unwrap_or(false)
}

fn protect_system(keys: &mut Keys<'_>, section: &str) -> ProtectSystem {
    let parsed = keys.setting(section, "ProtectSystem", |text| match text {
        "full" => Ok(ProtectSystem::Full),
        "strict" => Ok(ProtectSystem::Strict),
        other => match value::boolean(other) {
            Ok(true) => Ok(ProtectSystem::Yes),
            Ok(false) => Ok(ProtectSystem::No),
            Err(_) => Err(Expected::OneOf(&["yes", "no", "full", "strict"])),
        },
    });
    parsed.unwrap_or_default()
}

fn protect_home(keys: &mut Keys<'_>, section: &str) -> ProtectHome {
    let parsed = keys.setting(section, "ProtectHome", |text| match text {
        "read-only" => Ok(ProtectHome::ReadOnly),
        "tmpfs" => Ok(ProtectHome::Tmpfs),
        other => match value::boolean(other) {
            Ok(true) => Ok(ProtectHome::Yes),
            Ok(false) => Ok(ProtectHome::No),
            Err(_) => Err(Expected::OneOf(&["yes", "no", "read-only", "tmpfs"])),
        },
    });
    parsed.unwrap_or_default()
}
