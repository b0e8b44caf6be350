//! Signals as events of the loop: signalfd(2).
#![allow(unsafe_code)]

use rustix::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd};
use std::io;

/// SIGTERM asks for the last lines and an end. SIGINT and SIGHUP are for the activator, which a
/// terminal sends them to together with its children; here they are not looked at.
#[derive(Debug)]
pub struct Signals(OwnedFd);

impl Signals {
    /// From now on these signals come through here. For a process of one thread.
    pub fn new() -> io::Result<Self> {
        // SAFETY: an all-zero sigset_t is a value of that plain C struct, which sigemptyset(3)
        // then sets; all pointers are to that local, and null where the call takes null.
        let fd = unsafe {
            let mut set = std::mem::zeroed::<libc::sigset_t>();
            libc::sigemptyset(&mut set);
            for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGHUP] {
                libc::sigaddset(&mut set, signal);
            }
            if libc::sigprocmask(libc::SIG_BLOCK, &set, std::ptr::null_mut()) != 0 {
                return Err(io::Error::last_os_error());
            }
            libc::signalfd(-1, &set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK)
        };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel has just made it for us.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// To poll.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }

    /// Whether one of those that came is SIGTERM.
    pub fn asked_to_end(&self) -> bool {
        let mut record = [0; size_of::<libc::signalfd_siginfo>()];
        let mut asked = false;
        while let Ok(length) = rustix::io::read(&self.0, &mut record) {
            // ssi_signo is the first field, of 32 bits.
            let number = record.get(..length).and_then(|record| record.first_chunk::<4>());
            asked |= number.is_some_and(|bytes| i32::from_ne_bytes(*bytes) == libc::SIGTERM);
        }
        asked
    }
}
