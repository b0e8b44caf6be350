//! Signals by name or number, signal(7). The numbers are those of x86-64 and aarch64.

use super::{Expected, integer};
use activator::signals::{self, REAL_TIME};

/// `SIGTERM`, `TERM`, `15`, `SIGRTMIN+3`, in any case.
pub(crate) fn number(text: &str) -> Result<i32, Expected> {
    if let Some(number) = integer(text) {
        let number = i32::try_from(number).map_err(|_| Expected::Signal)?;
        return (1..=REAL_TIME.1).contains(&number).then_some(number).ok_or(Expected::Signal);
    }
    signals::number(text).ok_or(Expected::Signal)
}

/// `SIGTERM`
pub(crate) fn show(number: i32) -> String {
    match signals::name(number) {
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
