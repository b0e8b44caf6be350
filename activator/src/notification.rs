//! What a service says of itself with sd_notify(3). PID 1 reads it: nothing here allocates.

use crate::control::Text;
use crate::wire;

/// Longest name of a stored fd.
pub const NAME: usize = 255;

/// The name of a stored fd.
pub type Name = heapless::Vec<u8, NAME>;

/// What one message says, but for the fds that may have come with it ([`Keep`]).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Notification {
    /// `READY=1`
    pub ready: bool,
    /// `RELOADING=1`, with `MONOTONIC_USEC=` in microseconds if it is there.
    pub reloading: Option<Option<u64>>,
    /// `STOPPING=1`
    pub stopping: bool,
    /// `MAINPID=`; whether the sender may name that process is for the reader to check.
    pub main_pid: Option<u32>,
    /// `EXTEND_TIMEOUT_USEC=`
    pub extend_timeout_us: Option<u64>,
    /// `WATCHDOG=`
    pub watchdog: Option<Watchdog>,
    /// `WATCHDOG_USEC=`
    pub watchdog_us: Option<u64>,
    /// `RESTART_RESET=1`
    pub restart_reset: bool,
    /// `STATUS=`, as much of it as is shown.
    pub status: Option<Text>,
}

/// `WATCHDOG=`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Watchdog {
    /// `1`
    Alive,
    /// `trigger`: the service gives itself up.
    Trigger,
}

/// What is to become of stored fds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Keep {
    /// `FDSTORE=1`: those of the message, with `FDNAME=` and `FDPOLL=`.
    Add(Name, Watch),
    /// `FDSTOREREMOVE=1`: those of that name.
    Remove(Name),
}

/// Whether a stored fd is closed when its other end is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Watch {
    /// It is.
    HangUps,
    /// `FDPOLL=0`: it is not.
    Nothing,
}

impl Notification {
    /// Reads one message: lines of `NAME=value`. What is not known is left out, as sd_notify(3)
    /// promises.
    pub fn parse(text: &[u8]) -> Self {
        let mut said = Self::default();
        let mut monotonic = None;
        for (name, value) in lines(text) {
            match (name, value) {
                (b"READY", b"1") => said.ready = true,
                (b"RELOADING", b"1") => said.reloading = Some(None),
                (b"STOPPING", b"1") => said.stopping = true,
                (b"RESTART_RESET", b"1") => said.restart_reset = true,
                (b"MONOTONIC_USEC", _) => monotonic = number(value),
                (b"MAINPID", _) => {
                    let pid = number(value).and_then(|pid| u32::try_from(pid).ok());
                    said.main_pid = pid.filter(|pid| (2..=i32::MAX.unsigned_abs()).contains(pid));
                }
                (b"EXTEND_TIMEOUT_USEC", _) => said.extend_timeout_us = number(value),
                (b"WATCHDOG", b"1") => said.watchdog = Some(Watchdog::Alive),
                (b"WATCHDOG", b"trigger") => said.watchdog = Some(Watchdog::Trigger),
                (b"WATCHDOG_USEC", _) => said.watchdog_us = number(value),
                (b"STATUS", _) => said.status = Some(Text::new(value)),
                _ => {}
            }
        }
        said.reloading = said.reloading.map(|_| monotonic);
        said
    }
}

impl Keep {
    /// Reads the same message; None if it is not about stored fds.
    pub fn parse(text: &[u8]) -> Option<Self> {
        let (mut adds, mut removes) = (false, false);
        let (mut name, mut watch) = (None, Watch::HangUps);
        for (key, value) in lines(text) {
            match (key, value) {
                (b"FDSTORE", b"1") => adds = true,
                (b"FDSTOREREMOVE", b"1") => removes = true,
                (b"FDNAME", _) => name = name_of(value),
                (b"FDPOLL", b"0") => watch = Watch::Nothing,
                _ => {}
            }
        }
        match (removes, adds) {
            (true, _) => name.map(Self::Remove),
            (false, true) => Some(Self::Add(name.unwrap_or_else(stored), watch)),
            (false, false) => None,
        }
    }
}

fn lines(text: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    text.split(|byte| *byte == b'\n').filter_map(|line| {
        let at = line.iter().position(|byte| *byte == b'=')?;
        Some((line.get(..at)?, line.get(at + 1..)?))
    })
}

/// A name that LISTEN_FDNAMES can carry: printable ASCII but the colon.
fn name_of(text: &[u8]) -> Option<Name> {
    let plain = |byte: &u8| matches!(byte, b' '..=b'~') && *byte != b':';
    if text.len() > NAME || !text.iter().all(plain) {
        return None;
    }
    Name::from_slice(text).ok()
}

/// The name of what has none.
fn stored() -> Name {
    Name::from_slice(b"stored").unwrap_or_default()
}

fn number(text: &[u8]) -> Option<u64> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

wire! {
    enum Watch { HangUps, Nothing }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_lines_are_read_and_others_left_out() {
        let text = b"STATUS=up\nREADY=1\nMAINPID=42\nX=1\nERRNO=2\nEXTEND_TIMEOUT_USEC=5000000\n";
        let expected = Notification {
            ready: true,
            main_pid: Some(42),
            extend_timeout_us: Some(5_000_000),
            status: Some(Text::new(b"up")),
            ..Notification::default()
        };
        assert_eq!(Notification::parse(text), expected);
        let expected = Notification {
            reloading: Some(Some(7)),
            watchdog: Some(Watchdog::Alive),
            watchdog_us: Some(9),
            restart_reset: true,
            ..Notification::default()
        };
        let text = b"RELOADING=1\nMONOTONIC_USEC=7\nWATCHDOG=1\nWATCHDOG_USEC=9\nRESTART_RESET=1";
        assert_eq!(Notification::parse(text), expected);
        let trigger = Notification::parse(b"WATCHDOG=trigger");
        assert_eq!(trigger.watchdog, Some(Watchdog::Trigger));
    }

    #[test]
    fn nonsense_says_nothing() {
        for text in [
            &b""[..],
            b"\n\n",
            b"READY=0",
            b"READY",
            b"MAINPID=1",
            b"MAINPID=-3",
            b"MAINPID=4294967295",
            b"MAINPID=x",
            b"\xff=1",
            b"FDSTOREREMOVE=1",
            b"FDNAME=x",
        ] {
            assert_eq!(Notification::parse(text), Notification::default(), "{text:?}");
            assert_eq!(Keep::parse(text), None, "{text:?}");
        }
    }

    #[test]
    fn what_is_stored_has_a_name() {
        let name = |text: &[u8]| Name::from_slice(text).unwrap();
        let add = |text: &[u8], watch| Some(Keep::Add(name(text), watch));
        assert_eq!(Keep::parse(b"FDSTORE=1"), add(b"stored", Watch::HangUps));
        assert_eq!(Keep::parse(b"FDSTORE=1\nFDNAME=a b"), add(b"a b", Watch::HangUps));
        assert_eq!(Keep::parse(b"FDPOLL=0\nFDNAME=\nFDSTORE=1"), add(b"", Watch::Nothing));
        assert_eq!(Keep::parse(b"FDNAME=a:b\nFDSTORE=1"), add(b"stored", Watch::HangUps));
        let remove = Keep::parse(b"FDSTOREREMOVE=1\nFDNAME=a");
        assert_eq!(remove, Some(Keep::Remove(name(b"a"))));
    }
}
