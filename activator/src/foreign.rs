//! Fds that others have made, and left with us.
//!
//! close(2) of a socket with SO_LINGER waits until its peer has taken all that was sent, whether
//! the socket is non-blocking or not (socket(7)). PID 1 waits for nobody: such a socket loses the
//! option, and what was sent goes its way without us.

use rustix::net::sockopt;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::time::Duration;

/// One that is closed without waiting.
#[derive(Debug)]
pub struct Foreign(OwnedFd);

impl From<OwnedFd> for Foreign {
    fn from(fd: OwnedFd) -> Self {
        Self(fd)
    }
}

impl Drop for Foreign {
    fn drop(&mut self) {
        // With no time at all the connection is reset, for which nobody waits. What is no socket
        // has no such option.
        if sockopt::socket_linger(&self.0).is_ok_and(|it| it.is_some_and(|it| it > Duration::ZERO))
        {
            let _ = sockopt::set_socket_linger(&self.0, None);
        }
    }
}

impl AsFd for Foreign {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl AsRawFd for Foreign {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}
