//! Names of capabilities, capabilities(7).

/// In the order of their numbers, from 0: all that Linux 6.12 knows.
const NAMES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// The mask of all of them.
pub(crate) const ALL: u64 = (1 << NAMES.len()) - 1;

/// `CAP_NET_RAW` or `net_raw`, in any case.
pub(crate) fn number(text: &str) -> Option<u32> {
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("CAP_").unwrap_or(&upper);
    let at = NAMES.iter().position(|known| *known == name)?;
    u32::try_from(at).ok()
}

/// `CAP_NET_RAW`, for all that are set in a mask.
pub(crate) fn show(mask: u64) -> String {
    let set = |at: &usize| mask & 1 << at != 0;
    let names = (0..NAMES.len()).filter(set).map(|at| format!("CAP_{}", NAMES[at]));
    names.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_the_kernels() {
        for (name, expected) in [
            ("CAP_CHOWN", 0),
            ("net_bind_service", 10),
            ("CAP_SYS_ADMIN", 21),
            ("Cap_Checkpoint_Restore", 40),
        ] {
            assert_eq!(number(name), Some(expected), "{name}");
        }
        assert_eq!(number("CAP_FLY"), None);
        assert_eq!(show(1 << 10 | 1), "CAP_CHOWN CAP_NET_BIND_SERVICE");
        assert_eq!(ALL, 0x1ff_ffff_ffff);
    }
}
