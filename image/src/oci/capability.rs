//! Which capabilities a container has, capabilities(7).

use std::collections::BTreeSet;

/// What a container has if it asks for nothing else: Podman's default.
pub const DEFAULT: [&str; 11] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_NET_BIND_SERVICE",
    "CAP_SETFCAP",
    "CAP_SETGID",
    "CAP_SETPCAP",
    "CAP_SETUID",
    "CAP_SYS_CHROOT",
];

/// All that Linux 6.12 knows.
pub const ALL: [&str; 41] = [
    "CAP_AUDIT_CONTROL",
    "CAP_AUDIT_READ",
    "CAP_AUDIT_WRITE",
    "CAP_BLOCK_SUSPEND",
    "CAP_BPF",
    "CAP_CHECKPOINT_RESTORE",
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_DAC_READ_SEARCH",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_IPC_LOCK",
    "CAP_IPC_OWNER",
    "CAP_KILL",
    "CAP_LEASE",
    "CAP_LINUX_IMMUTABLE",
    "CAP_MAC_ADMIN",
    "CAP_MAC_OVERRIDE",
    "CAP_MKNOD",
    "CAP_NET_ADMIN",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_BROADCAST",
    "CAP_NET_RAW",
    "CAP_PERFMON",
    "CAP_SETFCAP",
    "CAP_SETGID",
    "CAP_SETPCAP",
    "CAP_SETUID",
    "CAP_SYSLOG",
    "CAP_SYS_ADMIN",
    "CAP_SYS_BOOT",
    "CAP_SYS_CHROOT",
    "CAP_SYS_MODULE",
    "CAP_SYS_NICE",
    "CAP_SYS_PACCT",
    "CAP_SYS_PTRACE",
    "CAP_SYS_RAWIO",
    "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME",
    "CAP_SYS_TTY_CONFIG",
    "CAP_WAKE_ALARM",
];

/// Stands for [`ALL`] in an add or a drop.
pub const EVERY: &str = "CAP_ALL";

/// Why a container's capabilities make no sense.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CapabilityError {
    /// Linux has none of that name.
    #[error("there is no capability {0}")]
    Unknown(String),
    /// One is both added and dropped.
    #[error("{0} is both added and dropped")]
    Both(String),
}

/// The default with what is added and without what is dropped, sorted. All can be dropped, and
/// some then added; or all added, and some then dropped.
pub fn merge<'a>(
    add: &'a [String],
    drop: &'a [String],
) -> Result<BTreeSet<&'a str>, CapabilityError> {
    let [add, drop]: [BTreeSet<&str>; 2] =
        [add, drop].map(|names| names.iter().map(String::as_str).collect());
    let known = |name: &str| name == EVERY || ALL.contains(&name);
    if let Some(name) = add.iter().chain(&drop).find(|name| !known(name)) {
        return Err(CapabilityError::Unknown((*name).into()));
    }
    if let Some(name) = add.intersection(&drop).next() {
        return Err(CapabilityError::Both((*name).into()));
    }
    let base: &[&str] = match (add.contains(EVERY), drop.contains(EVERY)) {
        (true, _) => &ALL,
        (_, true) => &[],
        _ => &DEFAULT,
    };
    let mut merged: BTreeSet<&str> = base.iter().copied().chain(add).collect();
    merged.retain(|name| !drop.contains(name) && *name != EVERY);
    Ok(merged)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn what_is_added_and_dropped_is_merged_as_podman_does_it() {
        let none = names("");
        assert_eq!(merge(&none, &none), Ok(DEFAULT.into()));
        let (add, drop) = (names("CAP_NET_RAW"), names("CAP_CHOWN CAP_MKNOD"));
        let merged = merge(&add, &drop).unwrap();
        assert!(merged.contains("CAP_NET_RAW") && !merged.contains("CAP_CHOWN"));
        assert_eq!(merged.len(), 11);
        let (all, one) = (names("CAP_ALL"), names("CAP_SYS_ADMIN"));
        assert_eq!(merge(&one, &all), Ok(["CAP_SYS_ADMIN"].into()));
        assert_eq!(merge(&all, &one).unwrap().len(), 40);
        assert_eq!(merge(&one, &one), Err(CapabilityError::Both("CAP_SYS_ADMIN".into())));
        let unknown = names("CAP_X");
        assert_eq!(merge(&unknown, &none), Err(CapabilityError::Unknown("CAP_X".into())));
    }
}
