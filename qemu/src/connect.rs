//! A stream from the host to a vsock port of a guest.
//!
//! Where the VM has a vsock device of ours, the way in is a Unix socket: the client writes
//! `CONNECT <port>\n`, and gets `OK <port>\n` when the guest has accepted; then the stream is the
//! connection. If the guest has not, it gets `ERR <reason>\n` or nothing, and the end.
//! (Firecracker and Cloud Hypervisor speak the same, without ERR.) Where the VM has the kernel's
//! vsock, it is an AF_VSOCK socket.
//!
//! A guest that boots does not answer at all until its vsock driver is there, and a connection
//! made before that may hang for seconds. So each attempt has a short time, and is repeated.

use crate::registry::{Entry, VsockKind};
use crate::vhost::VsockAddress;
use rustix::event::{PollFd, PollFlags, Timespec};
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

/// Between two attempts.
const PAUSE: Duration = Duration::from_millis(50);
/// The longest line that a device answers with, in bytes.
const ANSWER_MAX: usize = 128;

/// How to reach a guest's vsock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Route {
    /// The vsock device's socket.
    Device(PathBuf),
    /// The kernel; the guest's CID.
    Kernel(u32),
}

/// How long to try.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// For one attempt.
    pub attempt: Duration,
    /// For all of them; zero is one attempt.
    pub total: Duration,
}

impl Patience {
    /// For a guest that is up: one attempt, of up to ten seconds since guests under TCG are slow.
    pub const ONCE: Self = Self { attempt: Duration::from_secs(10), total: Duration::ZERO };

    /// For a guest that boots: attempts of one second.
    pub const fn boot(total: Duration) -> Self {
        Self { attempt: Duration::from_secs(1), total }
    }
}

/// Why there is no stream.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// Nobody in the guest listens on that port.
    #[error("connect to vsock port {0}: nobody listens there")]
    Refused(u32),
    /// The guest did not answer in time.
    #[error("connect to vsock port {0}: the guest did not answer in time")]
    TimedOut(u32),
    /// The VM is gone.
    #[error("connect to vsock port {0}: the VM has ended")]
    Gone(u32),
    /// What answered does not speak the protocol of vsock devices.
    #[error("connect to vsock port {port}: the device answered {answer:?}")]
    Protocol {
        /// The port.
        port: u32,
        /// What it said.
        answer: String,
    },
    /// Anything else.
    #[error("connect to vsock port {port}")]
    System {
        /// The port.
        port: u32,
        /// What the system said.
        source: io::Error,
    },
}

impl Route {
    /// To that VM.
    pub fn of(entry: &Entry) -> Self {
        match entry.record.vsock {
            VsockKind::Device => Self::Device(entry.folder().vsock()),
            VsockKind::Vhost => Self::Kernel(entry.record.cid),
        }
    }

    /// Opens a stream. Attempts are repeated as long as the guest refuses or does not answer.
    pub fn connect(&self, port: u32, patience: Patience) -> Result<Stream, ConnectError> {
        let deadline = Instant::now() + patience.total;
        loop {
            let attempt = match self {
                Self::Device(path) => handshake(path, port, patience.attempt),
                Self::Kernel(cid) => connect_kernel(*cid, port, patience.attempt),
            };
            match attempt {
                Err(ConnectError::Refused(_) | ConnectError::TimedOut(_))
                    if Instant::now() + PAUSE < deadline =>
                {
                    thread::sleep(PAUSE);
                }
                done => return done,
            }
        }
    }
}

fn handshake(path: &Path, port: u32, time: Duration) -> Result<Stream, ConnectError> {
    let deadline = Instant::now() + time;
    let socket = UnixStream::connect(path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => ConnectError::Gone(port),
        _ => ConnectError::System { port, source: error },
    })?;
    let failed = |source: io::Error| match source.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => ConnectError::TimedOut(port),
        io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => ConnectError::Refused(port),
        _ => ConnectError::System { port, source },
    };
    socket.set_write_timeout(Some(time)).map_err(failed)?;
    (&socket).write_all(format!("CONNECT {port}\n").as_bytes()).map_err(failed)?;
    let mut answer = Vec::new();
    // Byte by byte: what follows the line belongs to the stream.
    while answer.last() != Some(&b'\n') && answer.len() < ANSWER_MAX {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(ConnectError::TimedOut(port));
        }
        socket.set_read_timeout(Some(left)).map_err(failed)?;
        let mut byte = [0];
        match (&socket).read(&mut byte) {
            Ok(0) if answer.is_empty() => return Err(ConnectError::Refused(port)),
            Ok(0) => break,
            Ok(_) => answer.push(byte[0]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(failed(error)),
        }
    }
    let text = String::from_utf8_lossy(&answer).into_owned();
    if let Some(reason) = text.strip_prefix("ERR ") {
        return Err(match reason.trim_end() {
            "timeout" => ConnectError::TimedOut(port),
            _ => ConnectError::Refused(port),
        });
    }
    let number = text.strip_prefix("OK ").and_then(|rest| rest.strip_suffix('\n'));
    if number.is_none_or(|number| number.parse::<u32>().is_err()) {
        return Err(ConnectError::Protocol { port, answer: text });
    }
    socket.set_read_timeout(None).map_err(failed)?;
    socket.set_write_timeout(None).map_err(failed)?;
    Ok(Stream(socket.into()))
}

fn connect_kernel(cid: u32, port: u32, time: Duration) -> Result<Stream, ConnectError> {
    use rustix::io::Errno;
    use rustix::net::{AddressFamily, SocketFlags, SocketType};
    let failed = |errno: Errno| match errno {
        Errno::CONNRESET | Errno::CONNREFUSED => ConnectError::Refused(port),
        Errno::TIMEDOUT => ConnectError::TimedOut(port),
        // No VM has that CID, or its driver is not up yet: vhost answers both at once.
        Errno::NODEV | Errno::NETUNREACH | Errno::HOSTUNREACH => ConnectError::Refused(port),
        other => ConnectError::System { port, source: other.into() },
    };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::VSOCK, SocketType::STREAM, flags, None)
        .map_err(failed)?;
    match rustix::net::connect(&socket, &VsockAddress::new(cid, port)) {
        Ok(()) => {}
        Err(Errno::INPROGRESS) => {
            if !wait(socket.as_fd(), PollFlags::OUT, Some(time)).map_err(failed)? {
                return Err(ConnectError::TimedOut(port));
            }
            rustix::net::sockopt::socket_error(&socket).map_err(failed)?.map_err(failed)?;
        }
        Err(errno) => return Err(failed(errno)),
    }
    rustix::io::ioctl_fionbio(&socket, false).map_err(failed)?;
    Ok(Stream(socket))
}

/// A connection to a guest: bytes in both directions, each of which ends by itself.
#[derive(Debug)]
pub struct Stream(OwnedFd);

impl Stream {
    /// Another handle of the same connection.
    pub fn try_clone(&self) -> io::Result<Self> {
        self.0.try_clone().map(Self)
    }

    /// Ends one direction or both.
    pub fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        let how = match how {
            Shutdown::Read => rustix::net::Shutdown::Read,
            Shutdown::Write => rustix::net::Shutdown::Write,
            Shutdown::Both => rustix::net::Shutdown::Both,
        };
        Ok(rustix::net::shutdown(&self.0, how)?)
    }

    /// Reads fail with `WouldBlock` after that time; None waits for ever.
    pub fn set_read_timeout(&self, time: Option<Duration>) -> io::Result<()> {
        let timeout = rustix::net::sockopt::Timeout::Recv;
        Ok(rustix::net::sockopt::set_socket_timeout(&self.0, timeout, time)?)
    }

    /// Writes fail with `WouldBlock` after that time; None waits for ever.
    pub fn set_write_timeout(&self, time: Option<Duration>) -> io::Result<()> {
        let timeout = rustix::net::sockopt::Timeout::Send;
        Ok(rustix::net::sockopt::set_socket_timeout(&self.0, timeout, time)?)
    }
}

impl From<OwnedFd> for Stream {
    fn from(fd: OwnedFd) -> Self {
        Self(fd)
    }
}

impl From<UnixStream> for Stream {
    fn from(socket: UnixStream) -> Self {
        Self(socket.into())
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Read for &Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        Ok(rustix::io::read(&self.0, buffer)?)
    }
}

impl Write for &Stream {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        Ok(rustix::net::send(&self.0, buffer, rustix::net::SendFlags::NOSIGNAL)?)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        (&*self).read(buffer)
    }
}

impl Write for Stream {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        (&*self).write(buffer)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Waits for one of `flags`, or for the end or an error of the file; false when time ran out.
pub(crate) fn wait(
    fd: BorrowedFd,
    flags: PollFlags,
    time: Option<Duration>,
) -> rustix::io::Result<bool> {
    let deadline = time.map(|time| Instant::now() + time);
    loop {
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        let left = left.and_then(|left| Timespec::try_from(left).ok());
        let mut fds = [PollFd::from_borrowed_fd(fd, flags)];
        match rustix::event::poll(&mut fds, left.as_ref()) {
            Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(errno),
            Ok(ready) => return Ok(ready > 0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;

    const LONG: Patience =
        Patience { attempt: Duration::from_secs(60), total: Duration::from_secs(60) };

    /// A device that gives each client the next of `answers`, and then closes.
    fn device(answers: Vec<&'static [u8]>) -> (tempfile::TempDir, Route) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("vsock.sock");
        let listener = UnixListener::bind(&path).unwrap();
        thread::spawn(move || {
            for answer in answers {
                let (mut client, _) = listener.accept().unwrap();
                let mut line = [0; b"CONNECT 3000\n".len()];
                client.read_exact(&mut line).unwrap();
                assert_eq!(&line, b"CONNECT 3000\n");
                client.write_all(answer).unwrap();
            }
        });
        (folder, Route::Device(path))
    }

    #[test]
    fn what_follows_the_answer_belongs_to_the_stream() {
        let (_folder, route) = device(vec![b"OK 1073741824\nhello"]);
        let mut stream = route.connect(3000, LONG).unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        assert_eq!(text, "hello");
    }

    #[test]
    fn a_guest_that_does_not_listen_yet_is_asked_again() {
        let (_folder, route) = device(vec![b"", b"ERR refused\n", b"ERR timeout\n", b"OK 5\n"]);
        route.connect(3000, LONG).unwrap();
    }

    #[test]
    fn one_attempt_tells_what_is_wrong() {
        let answer = |text: &'static [u8]| {
            let (_folder, route) = device(vec![text]);
            route.connect(3000, Patience::ONCE).unwrap_err()
        };
        assert!(matches!(answer(b""), ConnectError::Refused(3000)));
        assert!(matches!(answer(b"ERR refused\n"), ConnectError::Refused(3000)));
        assert!(matches!(answer(b"ERR timeout\n"), ConnectError::TimedOut(3000)));
        let ConnectError::Protocol { answer, .. } = answer(b"HTTP/1.1 400 Bad Request\n") else {
            panic!("that is no answer");
        };
        assert_eq!(answer, "HTTP/1.1 400 Bad Request\n");
    }

    #[test]
    fn a_device_that_does_not_answer_is_given_up() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("vsock.sock");
        let _silent = UnixListener::bind(&path).unwrap();
        let patience = Patience { attempt: Duration::from_millis(20), total: Duration::ZERO };
        let silent = Route::Device(path).connect(1, patience);
        assert!(matches!(silent, Err(ConnectError::TimedOut(1))));
        let gone = Route::Device(folder.path().join("none")).connect(1, patience);
        assert!(matches!(gone, Err(ConnectError::Gone(1))));
    }
}
