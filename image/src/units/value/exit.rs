//! Exit codes and signals as ends of a process, systemd.exec(5) "Process Exit Codes".

use super::{Expected, signal};

/// One end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Status {
    Code(u8),
    Signal(i32),
}

/// Those of the C library, of LSB, of sysexits.h, and systemd's own, by name.
const CODES: [(&str, u8); 70] = [
    ("SUCCESS", 0),
    ("FAILURE", 1),
    ("INVALIDARGUMENT", 2),
    ("NOTIMPLEMENTED", 3),
    ("NOPERMISSION", 4),
    ("NOTINSTALLED", 5),
    ("NOTCONFIGURED", 6),
    ("NOTRUNNING", 7),
    ("USAGE", 64),
    ("DATAERR", 65),
    ("NOINPUT", 66),
    ("NOUSER", 67),
    ("NOHOST", 68),
    ("UNAVAILABLE", 69),
    ("SOFTWARE", 70),
    ("OSERR", 71),
    ("OSFILE", 72),
    ("CANTCREAT", 73),
    ("IOERR", 74),
    ("TEMPFAIL", 75),
    ("PROTOCOL", 76),
    ("NOPERM", 77),
    ("CONFIG", 78),
    ("CHDIR", 200),
    ("NICE", 201),
    ("FDS", 202),
    ("EXEC", 203),
    ("MEMORY", 204),
    ("LIMITS", 205),
    ("OOM_ADJUST", 206),
    ("SIGNAL_MASK", 207),
    ("STDIN", 208),
    ("STDOUT", 209),
    ("CHROOT", 210),
    ("IOPRIO", 211),
    ("TIMERSLACK", 212),
    ("SECUREBITS", 213),
    ("SETSCHEDULER", 214),
    ("CPUAFFINITY", 215),
    ("GROUP", 216),
    ("USER", 217),
    ("CAPABILITIES", 218),
    ("CGROUP", 219),
    ("SETSID", 220),
    ("CONFIRM", 221),
    ("STDERR", 222),
    ("PAM", 224),
    ("NETWORK", 225),
    ("NAMESPACE", 226),
    ("NO_NEW_PRIVILEGES", 227),
    ("SECCOMP", 228),
    ("SELINUX_CONTEXT", 229),
    ("PERSONALITY", 230),
    ("APPARMOR", 231),
    ("ADDRESS_FAMILIES", 232),
    ("RUNTIME_DIRECTORY", 233),
    ("CHOWN", 235),
    ("SMACK_PROCESS_LABEL", 236),
    ("KEYRING", 237),
    ("STATE_DIRECTORY", 238),
    ("CACHE_DIRECTORY", 239),
    ("LOGS_DIRECTORY", 240),
    ("CONFIGURATION_DIRECTORY", 241),
    ("NUMA_POLICY", 242),
    ("CREDENTIALS", 243),
    ("BPF", 245),
    ("KSM", 246),
    ("MOUNT_API_VFS", 247),
    ("QUOTA", 248),
    ("EXCEPTION", 255),
];

/// `75`, `TEMPFAIL`, `SIGKILL`. A number is an exit code.
pub(crate) fn parse(text: &str) -> Result<Status, Expected> {
    let named = CODES.iter().find(|(name, _)| *name == text).map(|(_, code)| *code);
    if let Some(code) = named.or_else(|| text.parse().ok()) {
        return Ok(Status::Code(code));
    }
    let plain = text.bytes().all(|byte| byte.is_ascii_digit());
    match signal::number(text) {
        Ok(signal) if !plain => Ok(Status::Signal(signal)),
        _ => Err(Expected::Other("exit codes from 0 to 255 and names of signals")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_have_names_and_signals_too() {
        assert_eq!(parse("75"), Ok(Status::Code(75)));
        assert_eq!(parse("TEMPFAIL"), Ok(Status::Code(75)));
        assert_eq!(parse("SIGTERM"), Ok(Status::Signal(15)));
        assert_eq!(parse("9"), Ok(Status::Code(9)));
        for bad in ["256", "-1", "tempfail", ""] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
