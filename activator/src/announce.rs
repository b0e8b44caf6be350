//! The sending end of sd_notify(3), for the tools that are services themselves.

use std::ffi::{OsStr, OsString};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

/// Where our service manager listens.
#[derive(Debug)]
pub(crate) struct Announcer {
    to: Option<(UnixDatagram, SocketAddr)>,
    /// How often to say that we live; None if nobody asked.
    watchdog: Option<Duration>,
}

impl Announcer {
    /// By `$NOTIFY_SOCKET`, `$WATCHDOG_USEC` and `$WATCHDOG_PID`. Without the first nothing is
    /// ever sent; nor is it to an address of another family than Unix.
    pub(crate) fn from_environment() -> Self {
        let number = |name| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
        let ours = number("WATCHDOG_PID").is_none_or(|pid| pid == u64::from(std::process::id()));
        let period = number("WATCHDOG_USEC").filter(|us| ours && *us > 0);
        let to = std::env::var_os("NOTIFY_SOCKET").as_deref().and_then(address);
        let to = to.and_then(|address| {
            let socket = UnixDatagram::unbound().ok()?;
            // A manager that reads nothing does not stop us.
            socket.set_nonblocking(true).ok()?;
            Some((socket, address))
        });
        // Half the time, as sd_watchdog_enabled(3) advises.
        Self {
            watchdog: period.filter(|_| to.is_some()).map(|us| Duration::from_micros(us / 2)),
            to,
        }
    }

    /// How often to send `WATCHDOG=1`.
    pub(crate) fn watchdog(&self) -> Option<Duration> {
        self.watchdog
    }

    /// Sends lines of `NAME=value`. A failure is not ours to mend.
    pub(crate) fn say(&self, lines: &str) {
        if let Some((socket, address)) = &self.to {
            let _ = socket.send_to_addr(lines.as_bytes(), address);
        }
    }
}

fn address(text: &OsStr) -> Option<SocketAddr> {
    match text.as_bytes() {
        [b'/', ..] => SocketAddr::from_pathname(OsString::from(text)).ok(),
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name).ok(),
        _ => None,
    }
}
