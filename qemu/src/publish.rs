//! A socket of the host that leads to a port of a guest: `--publish HOST=PORT`.
//!
//! Where the VM has a vsock device of ours, the device listens on it. Where it has the kernel's,
//! a [`Listener`] does.

use crate::connect::{Patience, Route, Stream};
use crate::process::raise_file_limit;
use crate::splice;
use rustix::event::{PollFd, PollFlags};
use serde::{Deserialize, Serialize};
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// For the guest's listener to come up, when a client is there before it.
const PATIENCE: Patience = Patience::boot(Duration::from_secs(60));

/// After a client that could not be accepted, most often since descriptors are used up: it still
/// waits, so that without a pause the next try would follow at once.
const PAUSE: Duration = Duration::from_millis(100);

/// A socket of the host for a guest's vsock port.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Publish {
    /// Where the host listens.
    pub host: HostAddress,
    /// The guest's vsock port.
    pub port: u32,
}

/// Where the host listens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HostAddress {
    /// A Unix stream socket.
    Unix(PathBuf),
    /// A TCP socket.
    Tcp(SocketAddr),
}

impl std::fmt::Display for Publish {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}={}", self.host, self.port)
    }
}

impl std::fmt::Display for HostAddress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unix(path) => path.display().fmt(f),
            Self::Tcp(address) => address.fmt(f),
        }
    }
}

/// Listens on one published socket, and relays what comes. Dropping it ends the listening, and
/// leaves connections to themselves.
#[derive(Debug)]
pub struct Listener {
    /// Where it listens, with the real port.
    published: Publish,
    /// Closed to wake the thread.
    wake: Option<UnixStream>,
    thread: Option<JoinHandle<()>>,
}

enum Socket {
    Unix(UnixListener),
    Tcp(TcpListener),
}

impl Listener {
    /// Listens, and relays each connection to the guest at the end of `route`. The soft limit of
    /// open files of the process is raised to the hard one.
    pub fn start(publish: &Publish, route: Route) -> io::Result<Self> {
        raise_file_limit();
        let mut published = publish.clone();
        let socket = match &mut published.host {
            HostAddress::Unix(path) => Socket::Unix(listen(path)?),
            HostAddress::Tcp(address) => {
                let listener = TcpListener::bind(*address)?;
                *address = listener.local_addr()?;
                Socket::Tcp(listener)
            }
        };
        let (wake, woken) = UnixStream::pair()?;
        let port = publish.port;
        let relay = move |client: OwnedFd| {
            let route = route.clone();
            // Without a thread the client is closed, and may come again.
            let relay = move || {
                if let Ok(stream) = route.connect(port, PATIENCE) {
                    splice::relay(&Stream::from(client), &stream);
                }
            };
            let _ = thread::Builder::new().name("relay".into()).spawn(relay);
        };
        let serve = move || socket.serve(&woken, relay);
        let thread = thread::Builder::new().name("publish".into()).spawn(serve)?;
        Ok(Self { published, wake: Some(wake), thread: Some(thread) })
    }

    /// Where it listens, with the real TCP port where 0 was asked for.
    pub fn published(&self) -> &Publish {
        &self.published
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.wake = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        if let HostAddress::Unix(path) = &self.published.host {
            let _ = std::fs::remove_file(path);
        }
    }
}

impl Socket {
    /// Takes clients until the owner is gone.
    fn serve(&self, woken: &UnixStream, relay: impl Fn(OwnedFd)) {
        while let Ok(true) = self.wait(woken) {
            match self.accept() {
                Ok(client) => relay(client),
                Err(_) => thread::sleep(PAUSE),
            }
        }
    }

    /// True if there is a client, false if the owner is gone.
    fn wait(&self, woken: &UnixStream) -> rustix::io::Result<bool> {
        let socket = match self {
            Self::Unix(socket) => socket.as_fd(),
            Self::Tcp(socket) => socket.as_fd(),
        };
        loop {
            let mut fds = [
                PollFd::from_borrowed_fd(socket, PollFlags::IN),
                PollFd::from_borrowed_fd(woken.as_fd(), PollFlags::IN),
            ];
            match rustix::event::poll(&mut fds, None) {
                Err(rustix::io::Errno::INTR) => {}
                Err(errno) => return Err(errno),
                Ok(_) => return Ok(fds[1].revents().is_empty()),
            }
        }
    }

    fn accept(&self) -> io::Result<OwnedFd> {
        match self {
            Self::Unix(socket) => Ok(socket.accept()?.0.into()),
            Self::Tcp(socket) => {
                let client = socket.accept()?.0;
                client.set_nodelay(true)?;
                Ok(client.into())
            }
        }
    }
}

/// A Unix socket for its owner alone. One that nobody listens on any more is replaced.
fn listen(path: &Path) -> io::Result<UnixListener> {
    let refused = |error: io::Error| error.kind() == io::ErrorKind::ConnectionRefused;
    if UnixStream::connect(path).is_err_and(refused) {
        std::fs::remove_file(path)?;
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::Shutdown;

    #[test]
    fn a_client_that_ends_its_side_gets_its_answer() {
        let folder = tempfile::tempdir().unwrap();
        let device = folder.path().join("vsock.sock");
        let guest = UnixListener::bind(&device).unwrap();
        let server = thread::spawn(move || {
            let (mut stream, _) = guest.accept().unwrap();
            let mut line = [0; "CONNECT 3000\n".len()];
            stream.read_exact(&mut line).unwrap();
            assert_eq!(&line, b"CONNECT 3000\n");
            stream.write_all(b"OK 1\n").unwrap();
            let mut all = Vec::new();
            stream.read_to_end(&mut all).unwrap();
            stream.write_all(&all).unwrap();
        });
        let host = HostAddress::Unix(folder.path().join("echo.sock"));
        let publish = Publish { host, port: 3000 };
        let listener = Listener::start(&publish, Route::Device(device)).unwrap();
        assert_eq!(listener.published().to_string(), publish.to_string());
        let path = folder.path().join("echo.sock");
        let mut client = UnixStream::connect(&path).unwrap();
        client.write_all(b"hello").unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).unwrap();
        assert_eq!(answer, "hello");
        server.join().unwrap();
        drop(listener);
        assert!(!path.exists());
    }

    /// A socket that always has something to take, and refuses each accept(2), as one does that has
    /// a client while descriptors are used up.
    #[test]
    fn a_client_that_cannot_be_accepted_is_no_reason_to_spin() {
        let (mut client, server) = UnixStream::pair().unwrap();
        client.write_all(b"hello").unwrap();
        let socket = Socket::Unix(OwnedFd::from(server).into());
        let (wake, woken) = UnixStream::pair().unwrap();
        let serve = thread::spawn(move || {
            socket.serve(&woken, |_| panic!("nobody can be accepted"));
            rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime)
        });
        thread::sleep(5 * PAUSE);
        drop(wake);
        let busy = Duration::try_from(serve.join().unwrap()).unwrap();
        assert!(busy < PAUSE / 2, "it was busy for {busy:?}");
    }

    #[test]
    fn a_free_tcp_port_is_told() {
        let host = HostAddress::Tcp("127.0.0.1:0".parse().unwrap());
        let route = Route::Device("/nonexistent".into());
        let listener = Listener::start(&Publish { host, port: 1 }, route).unwrap();
        let HostAddress::Tcp(address) = &listener.published().host else { panic!("it is TCP") };
        assert_ne!(address.port(), 0);
    }

    #[test]
    fn a_socket_file_of_the_dead_is_replaced_and_one_of_the_living_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        drop(listen(&path).unwrap());
        let living = listen(&path).unwrap();
        assert_eq!(listen(&path).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        drop(living);
    }
}
