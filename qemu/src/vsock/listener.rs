//! Listening sockets of the host: made safely, removed when they are dropped.

use super::config::PublishAddress;
use super::error::{Error, errno};
use super::stream::Stream;
use rustix::fs::Mode;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use std::fs;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

/// Connections that the kernel queues for us. The kernel lowers it to net.core.somaxconn, 4096.
const BACKLOG: i32 = 4096;

/// A Unix listener whose file goes with it.
#[derive(Debug)]
pub(super) struct UnixEntrance {
    listener: UnixListener,
    path: PathBuf,
    /// Device and inode of the socket file as we made it: a file that someone put in its place
    /// is not ours to remove.
    identity: Option<(u64, u64)>,
}

impl UnixEntrance {
    /// Listens on `path` with mode 0600. A socket file is replaced if connecting to it is
    /// refused, which the kernel does for Unix sockets exactly when nobody listens.
    pub(super) fn bind(path: &Path) -> Result<Self, Error> {
        let address = SocketAddrUnix::new(path).map_err(|cause| Error::path("use", path, cause))?;
        clear(path)?;
        let socket = unix_socket().map_err(|cause| Error::system("make a socket", cause))?;
        // Before bind, the mode of the descriptor becomes the mode of the file, without a moment
        // in which others could connect.
        rustix::fs::fchmod(&socket, Mode::RUSR | Mode::WUSR)
            .and_then(|()| rustix::net::bind(&socket, &address))
            .and_then(|()| rustix::net::listen(&socket, BACKLOG))
            .map_err(|cause| match cause {
                Errno::ADDRINUSE => Error::BusySocket(path.to_owned()),
                cause => Error::path("listen on", path, cause),
            })?;
        Ok(Self { listener: socket.into(), path: path.to_owned(), identity: identity(path) })
    }

    /// The descriptor, for poll and for handing it to others.
    pub(super) fn listener(&self) -> &UnixListener {
        &self.listener
    }
}

impl Drop for UnixEntrance {
    fn drop(&mut self) {
        if self.identity.is_some() && identity(&self.path) == self.identity {
            // Nobody is left to hear about a failure; the file is stale then and replaceable.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// A listening socket of either kind.
#[derive(Debug)]
pub(super) enum Entrance {
    Unix(UnixEntrance),
    Tcp(TcpListener, SocketAddr),
}

impl Entrance {
    /// Listens on a published address.
    pub(super) fn bind(address: &PublishAddress) -> Result<Self, Error> {
        match address {
            PublishAddress::UnixPath(path) => UnixEntrance::bind(path).map(Self::Unix),
            PublishAddress::Tcp(address) => {
                let failed =
                    |cause: io::Error| Error::Tcp { address: *address, cause: errno(&cause) };
                let listener = TcpListener::bind(address).map_err(failed)?;
                listener.set_nonblocking(true).map_err(failed)?;
                let bound = listener.local_addr().map_err(failed)?;
                Ok(Self::Tcp(listener, bound))
            }
        }
    }

    /// Where it listens, with the real port.
    pub(super) fn address(&self) -> PublishAddress {
        match self {
            Self::Unix(unix) => PublishAddress::UnixPath(unix.path.clone()),
            Self::Tcp(_, bound) => PublishAddress::Tcp(*bound),
        }
    }

    /// Takes one connection; `WouldBlock` if there is none.
    pub(super) fn accept(&self) -> io::Result<Stream> {
        match self {
            Self::Unix(unix) => {
                let (stream, _) = unix.listener.accept()?;
                stream.set_nonblocking(true)?;
                Ok(Stream::unix(stream))
            }
            Self::Tcp(listener, _) => {
                let (stream, _) = listener.accept()?;
                stream.set_nonblocking(true)?;
                // A relay must not hold back small packets for the sake of larger ones.
                stream.set_nodelay(true)?;
                Ok(Stream::tcp(stream))
            }
        }
    }
}

impl AsFd for Entrance {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Unix(unix) => unix.listener.as_fd(),
            Self::Tcp(listener, _) => listener.as_fd(),
        }
    }
}

/// Connects to a Unix socket without waiting. `AGAIN`: its queue is full for now.
pub(super) fn dial(path: &Path) -> Result<OwnedFd, Errno> {
    let address = SocketAddrUnix::new(path)?;
    let socket = unix_socket()?;
    rustix::net::connect(&socket, &address)?;
    Ok(socket)
}

/// A Unix stream socket that neither blocks nor survives exec.
fn unix_socket() -> Result<OwnedFd, Errno> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)
}

/// Makes way for a new socket file, unless someone lives there.
fn clear(path: &Path) -> Result<(), Error> {
    let metadata = match fs::symlink_metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(Error::path("look at", path, error)),
    };
    if !metadata.file_type().is_socket() {
        return Err(Error::NotASocket(path.to_owned()));
    }
    match dial(path) {
        Err(Errno::CONNREFUSED) => {
            fs::remove_file(path).map_err(|cause| Error::path("replace", path, cause))
        }
        Err(Errno::NOENT) => Ok(()),
        // EAGAIN: someone listens, and is behind with accepting.
        Ok(_) | Err(Errno::AGAIN) => Err(Error::BusySocket(path.to_owned())),
        Err(cause) => Err(Error::path("connect to", path, cause)),
    }
}

fn identity(path: &Path) -> Option<(u64, u64)> {
    fs::symlink_metadata(path).ok().map(|metadata| (metadata.dev(), metadata.ino()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_stale_socket_is_replaced_and_a_live_one_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.sock");
        drop(UnixListener::bind(&path).unwrap());
        let first = UnixEntrance::bind(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(UnixEntrance::bind(&path).unwrap_err(), Error::BusySocket(path.clone()));
        drop(first);
        assert!(!path.exists());
    }

    #[test]
    fn other_files_and_other_peoples_sockets_are_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notes");
        fs::write(&path, "mine").unwrap();
        assert_eq!(UnixEntrance::bind(&path).unwrap_err(), Error::NotASocket(path.clone()));
        fs::remove_file(&path).unwrap();
        let entrance = UnixEntrance::bind(&path).unwrap();
        fs::remove_file(&path).unwrap();
        fs::write(&path, "mine").unwrap();
        drop(entrance);
        assert_eq!(fs::read_to_string(&path).unwrap(), "mine");
    }

    #[test]
    fn a_long_path_is_named() {
        let path = PathBuf::from(format!("/tmp/{}", "a".repeat(200)));
        assert_eq!(UnixEntrance::bind(&path).unwrap_err(), Error::LongPath(path));
    }
}
