//! Why a device could not start.

use rustix::io::Errno;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// Why a device could not start. The texts complete "failed to start the vsock device: ...".
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The CID is reserved: below 3, or `u32::MAX`.
    #[error("CID {0} is reserved; a guest's CID is from 3 to 4294967294")]
    ReservedCid(u32),
    /// Another running VM has this CID.
    #[error("CID {cid} belongs to another running VM (process {process})")]
    BusyCid {
        /// The CID.
        cid: u32,
        /// The process that holds it; 0 if it did not say.
        process: i32,
    },
    /// Somebody listens on this socket already.
    #[error("{} is in use by another process", .0.display())]
    BusySocket(PathBuf),
    /// The path of a socket is taken by something else, which is left alone.
    #[error("{} exists and is not a socket", .0.display())]
    NotASocket(PathBuf),
    /// A Unix socket's path has at most 107 bytes (unix(7)).
    #[error("{} is too long for a socket path (107 bytes at most)", .0.display())]
    LongPath(PathBuf),
    /// The system refused something about a path.
    #[error("cannot {action} {}: {cause}", .path.display())]
    Path {
        /// What was tried: "create", "listen on".
        action: &'static str,
        /// The path.
        path: PathBuf,
        /// Why.
        #[source]
        cause: Errno,
    },
    /// A TCP address cannot be listened on.
    #[error("cannot listen on {address}: {cause}")]
    Tcp {
        /// The address.
        address: SocketAddr,
        /// Why.
        #[source]
        cause: Errno,
    },
    /// The system has no more threads, memory or file descriptors for us.
    #[error("cannot {action}: {cause}")]
    System {
        /// What was tried.
        action: &'static str,
        /// Why.
        #[source]
        cause: Errno,
    },
    /// The vhost-user library refused; its own words.
    #[error("vhost-user: {0}")]
    VhostUser(String),
}

impl Error {
    pub(super) fn path(action: &'static str, path: &Path, cause: impl Into<io::Error>) -> Self {
        let cause = errno(&cause.into());
        if cause == Errno::NAMETOOLONG {
            return Self::LongPath(path.to_owned());
        }
        Self::Path { action, path: path.to_owned(), cause }
    }

    pub(super) fn system(action: &'static str, cause: impl Into<io::Error>) -> Self {
        Self::System { action, cause: errno(&cause.into()) }
    }
}

/// The number behind an error; EIO for the few that std makes up itself.
pub(super) fn errno(error: &io::Error) -> Errno {
    Errno::from_io_error(error).unwrap_or(Errno::IO)
}
