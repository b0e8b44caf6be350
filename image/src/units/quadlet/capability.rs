//! Names of capabilities, capabilities(7).

use crate::units::value::Expected;

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

/// `net_raw`, `CAP_NET_RAW` and `all` in any case, as `CAP_NET_RAW` and `CAP_ALL`.
pub(super) fn parse(text: &str) -> Result<String, Expected> {
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("CAP_").unwrap_or(&upper);
    match name == "ALL" || NAMES.contains(&name) {
        true => Ok(format!("CAP_{name}")),
        false => Err(Expected::Other("capabilities such as `CAP_NET_RAW`, or `all`")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_spelling_becomes_one() {
        for text in ["net_raw", "CAP_NET_RAW", "cap_net_raw"] {
            assert_eq!(parse(text).as_deref(), Ok("CAP_NET_RAW"));
        }
        assert_eq!(parse("all").as_deref(), Ok("CAP_ALL"));
        assert!(parse("CAP_FLY").is_err());
    }
}
