//! What the process inherits: its sockets, and signals that must end it.
#![allow(unsafe_code)]

use std::fmt;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};

/// SD_LISTEN_FDS_START.
const FIRST: RawFd = 3;

/// Why there is nothing to serve.
#[derive(Debug, PartialEq, Eq)]
pub enum Error {
    /// LISTEN_FDS is not set, or not a number above 0.
    None,
    /// LISTEN_PID is another process; that number.
    OtherProcess(String),
    /// An fd below FIRST + LISTEN_FDS is not open.
    Closed(RawFd),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str(
                "no sockets: LISTEN_FDS is not set. Start me by socket activation, \
                 for a try with systemd-socket-activate",
            ),
            Self::OtherProcess(pid) => {
                write!(f, "no sockets for me: LISTEN_PID is {pid}, and I am {}", std::process::id())
            }
            Self::Closed(fd) => write!(f, "fd {fd} is not open, though LISTEN_FDS counts it"),
        }
    }
}

/// The sockets, in order. Called once, before anything else opens an fd.
pub fn take() -> Result<Vec<OwnedFd>, Error> {
    let count = std::env::var("LISTEN_FDS").ok().and_then(|text| text.parse::<RawFd>().ok());
    let count = count.filter(|count| (1..=4096).contains(count)).ok_or(Error::None)?;
    let pid = std::env::var("LISTEN_PID").unwrap_or_default();
    if pid.parse() != Ok(std::process::id()) {
        return Err(Error::OtherProcess(if pid.is_empty() { "not set".into() } else { pid }));
    }
    (FIRST..FIRST + count)
        .map(|fd| {
            // SAFETY: an fd number is only looked at here, by a call that fails if it is closed.
            let open = unsafe { rustix::fd::BorrowedFd::borrow_raw(fd) };
            rustix::io::fcntl_setfd(open, rustix::io::FdFlags::CLOEXEC)
                .map_err(|_| Error::Closed(fd))?;
            // SAFETY: it is open (just seen), it was handed to this process to own, and this
            // function runs once, so nobody else owns it.
            Ok(unsafe { OwnedFd::from_raw_fd(fd) })
        })
        .collect()
}

unsafe extern "C" {
    fn signal(number: i32, handler: extern "C" fn(i32)) -> usize;
    fn _exit(code: i32) -> !;
}

extern "C" fn leave(_: i32) {
    // SAFETY: _exit(2) is async-signal-safe, and there is nothing to clean up: the kernel
    // closes the connections, and the listeners belong to whoever handed them over.
    unsafe { _exit(0) }
}

/// PID 1 of a container has no default action for signals: without a handler, SIGTERM would do
/// nothing there.
pub fn leave_on_signals() {
    for number in [rustix::process::Signal::TERM, rustix::process::Signal::INT] {
        // SAFETY: signal(2) with a handler that only calls an async-signal-safe function.
        unsafe { signal(number.as_raw(), leave) };
    }
}
