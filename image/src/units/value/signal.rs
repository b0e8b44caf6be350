//! Signals by name or number, signal(7). The numbers are those of x86-64 and aarch64.

use super::{Expected, integer};

const NAMES: [&str; 31] = [
    "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2",
    "PIPE", "ALRM", "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG",
    "XCPU", "XFSZ", "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
];

/// glibc's SIGRTMIN and SIGRTMAX; what scripts and units mean by these names.
const REAL_TIME: (i32, i32) = (34, 64);

/// `SIGTERM`, `TERM`, `15`, `SIGRTMIN+3`, in any case.
pub(crate) fn number(text: &str) -> Result<i32, Expected> {
    if let Some(number) = integer(text) {
        let number = i32::try_from(number).map_err(|_| Expected::Signal)?;
        return (1..=REAL_TIME.1).contains(&number).then_some(number).ok_or(Expected::Signal);
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    if let Some(at) = NAMES.iter().position(|known| *known == name) {
        return Ok(at as i32 + 1);
    }
    let real_time = |base: i32, rest: &str| {
        let offset: i32 = if rest.is_empty() { 0 } else { rest.parse().ok()? };
        let number = base.checked_add(offset)?;
        (REAL_TIME.0..=REAL_TIME.1).contains(&number).then_some(number)
    };
    let number = match (name.strip_prefix("RTMIN"), name.strip_prefix("RTMAX")) {
        (Some(rest), _) => real_time(REAL_TIME.0, rest),
        (_, Some(rest)) => real_time(REAL_TIME.1, rest),
        _ => None,
    };
    number.ok_or(Expected::Signal)
}

/// `SIGTERM`
pub(crate) fn show(number: i32) -> String {
    let at = usize::try_from(number).ok().and_then(|number| number.checked_sub(1));
    match at.and_then(|at| NAMES.get(at)) {
        Some(name) => format!("SIG{name}"),
        None => format!("signal {number}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_have_names_and_numbers() {
        assert_eq!(number("SIGTERM"), Ok(15));
        assert_eq!(number("int"), Ok(2));
        assert_eq!(number("9"), Ok(9));
        assert_eq!(number("SIGRTMIN+3"), Ok(37));
        assert_eq!(number("RTMAX-1"), Ok(63));
        for bad in ["", "SIGFOO", "0", "65", "SIGRTMIN+40", "SIG"] {
            assert_eq!(number(bad), Err(Expected::Signal), "{bad}");
        }
        assert_eq!(show(15), "SIGTERM");
    }
}
