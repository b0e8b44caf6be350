//! Fds that a process of ours inherits by the LISTEN_FDS protocol, sd_listen_fds(3).
#![allow(unsafe_code)]

use rustix::fd::{BorrowedFd, FromRawFd, OwnedFd, RawFd};
use rustix::io::{FdFlags, fcntl_setfd};
use std::sync::atomic::{AtomicBool, Ordering};

/// SD_LISTEN_FDS_START.
const FIRST: RawFd = 3;
/// More than any manifest has units.
const MOST: RawFd = 100_000;

/// What was handed over to this process and no other: as [`take`], but nothing unless LISTEN_PID
/// is our own pid, as sd_listen_fds(3) has it.
pub fn take_own() -> Vec<(String, OwnedFd)> {
    let pid = std::env::var("LISTEN_PID").ok().and_then(|text| text.parse::<u32>().ok());
    if pid == Some(std::process::id()) { take() } else { Vec::new() }
}

/// All inherited fds with their names, in order, from now on close-on-exec. Numbers that are not
/// open are left out; a name that lacks is empty. The second call of a process finds none.
///
/// LISTEN_PID is not looked at: for PID 1's own helpers, whoever set LISTEN_FDS meant us.
pub fn take() -> Vec<(String, OwnedFd)> {
    static TAKEN: AtomicBool = AtomicBool::new(false);
    let count = std::env::var("LISTEN_FDS").ok().and_then(|text| text.parse::<RawFd>().ok());
    let Some(count) = count.filter(|count| (1..=MOST).contains(count)) else { return Vec::new() };
    if TAKEN.swap(true, Ordering::SeqCst) {
        return Vec::new();
    }
    let names = std::env::var("LISTEN_FDNAMES").unwrap_or_default();
    let mut names = names.split(':');
    let mut taken = Vec::new();
    for fd in FIRST..FIRST + count {
        let name = names.next().unwrap_or_default().to_owned();
        // SAFETY: the number is only used for one call, which fails if it is not open.
        let seen = unsafe { BorrowedFd::borrow_raw(fd) };
        if fcntl_setfd(seen, FdFlags::CLOEXEC).is_ok() {
            // SAFETY: it is open (just seen), our parent handed it to this process to own, and
            // the flag above lets nobody here take it twice.
            taken.push((name, unsafe { OwnedFd::from_raw_fd(fd) }));
        }
    }
    taken
}
