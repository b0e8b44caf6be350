//! A connected socket of the host, Unix or TCP, that never blocks.

use rustix::io::Errno;
use rustix::net::RecvFlags;
use std::net::TcpStream;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// What kind of socket it is; they differ in how they end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A close keeps what the other side has not read yet, and says so when the whole of the
    /// other side is gone (EPOLLHUP).
    Unix,
    /// A close with unread data resets, and drops what the other side has not read yet; a FIN
    /// does not tell a half-close from a close.
    Tcp,
}

/// A connected, non-blocking stream socket.
#[derive(Debug)]
pub(super) struct Stream {
    socket: OwnedFd,
    kind: Kind,
}

impl Stream {
    pub(super) fn unix(stream: impl Into<OwnedFd>) -> Self {
        Self { socket: stream.into(), kind: Kind::Unix }
    }

    pub(super) fn tcp(stream: TcpStream) -> Self {
        Self { socket: stream.into(), kind: Kind::Tcp }
    }

    pub(super) fn kind(&self) -> Kind {
        self.kind
    }

    /// Says that nothing more will be written.
    pub(super) fn shut_write(&self) {
        // ENOTCONN means that the other side is gone, which the next event tells anyway.
        let _ = rustix::net::shutdown(&self.socket, rustix::net::Shutdown::Write);
    }

    /// Says that nothing more will be read: a Unix peer gets EPIPE, a TCP peer does not notice.
    pub(super) fn shut_read(&self) {
        let _ = rustix::net::shutdown(&self.socket, rustix::net::Shutdown::Read);
    }

    /// Makes the coming close of a TCP socket a reset. Unix sockets have no such thing.
    pub(super) fn reset_on_close(&self) {
        if self.kind == Kind::Tcp {
            let at_once = Some(std::time::Duration::ZERO);
            let _ = rustix::net::sockopt::set_socket_linger(&self.socket, at_once);
        }
    }

    /// Looks at what comes next without taking it. 0 is the end.
    pub(super) fn peek(&self, buffer: &mut [u8]) -> Result<usize, Errno> {
        let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
        rustix::net::recv(&self.socket, buffer, flags).map(|(count, _)| count)
    }

    /// Takes what was peeked at, or throws away what nobody wants any more.
    pub(super) fn take(&self, buffer: &mut [u8]) -> Result<usize, Errno> {
        rustix::net::recv(&self.socket, buffer, RecvFlags::DONTWAIT).map(|(count, _)| count)
    }

    /// Writes a line of a handshake. It is the first thing that is written, and shorter than
    /// any socket buffer, so a short write means that something is wrong.
    pub(super) fn say(&self, line: &str) -> Result<(), Errno> {
        let flags = rustix::net::SendFlags::NOSIGNAL | rustix::net::SendFlags::DONTWAIT;
        match rustix::net::send(&self.socket, line.as_bytes(), flags) {
            Ok(count) if count == line.len() => Ok(()),
            Ok(_) => Err(Errno::AGAIN),
            Err(cause) => Err(cause),
        }
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Two ends of a Unix stream for tests.
#[cfg(test)]
pub(super) fn pair() -> (Stream, std::os::unix::net::UnixStream) {
    let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
    ours.set_nonblocking(true).unwrap();
    (Stream::unix(ours), theirs)
}
