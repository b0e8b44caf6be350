//! Names of signals, signal(7). The numbers are those of x86-64 and aarch64.

const NAMES: [&str; 31] = [
    "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2",
    "PIPE", "ALRM", "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG",
    "XCPU", "XFSZ", "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
];
/// Other names of some.
const ALIASES: [(&str, i32); 3] = [("POLL", 29), ("IOT", 6), ("CLD", 17)];

/// glibc's SIGRTMIN and SIGRTMAX; what scripts and units mean by these names.
pub const REAL_TIME: (i32, i32) = (34, 64);

/// The name without `SIG`; None for a real-time signal.
pub fn name(number: i32) -> Option<&'static str> {
    NAMES.get(usize::try_from(number).ok()?.checked_sub(1)?).copied()
}

/// `SIGTERM`, `TERM`, `SIGRTMIN+3`, in any case.
pub fn number(text: &str) -> Option<i32> {
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    if let Some(at) = NAMES.iter().position(|known| *known == name) {
        return Some(at as i32 + 1);
    }
    if let Some((_, number)) = ALIASES.iter().find(|(known, _)| *known == name) {
        return Some(*number);
    }
    let real_time = |base: i32, rest: &str| {
        let offset: i32 = if rest.is_empty() { 0 } else { rest.parse().ok()? };
        let number = base.checked_add(offset)?;
        (REAL_TIME.0..=REAL_TIME.1).contains(&number).then_some(number)
    };
    match (name.strip_prefix("RTMIN"), name.strip_prefix("RTMAX")) {
        (Some(rest), _) => real_time(REAL_TIME.0, rest),
        (_, Some(rest)) => real_time(REAL_TIME.1, rest),
        _ => None,
    }
}
