//! What a device is told when it starts.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// The lowest CID that a guest can have; 0 to 2 are reserved (vsock(7)).
pub const FIRST_GUEST_CID: u32 = 3;

/// The settings of one device, which serves one VM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The guest's address, from [`FIRST_GUEST_CID`] to `u32::MAX - 1`.
    pub guest_cid: u32,
    /// The socket to which QEMU connects (`-chardev socket,path=...` without `server=on`).
    pub vhost_user_socket: PathBuf,
    /// The host's way into any port of the guest. A client writes `CONNECT <port>\n`, and reads
    /// `OK <host port>\n` once the guest has accepted, or `ERR <reason>\n` and the end.
    ///
    /// The guest's way out is named after it: a connection of the guest to CID 2, port P, ends
    /// at the Unix socket `<connect_socket>_<P>`, or is reset if nobody listens there.
    pub connect_socket: PathBuf,
    /// The directory in which the devices of one user find each other, by CID. It is made, with
    /// mode 0700, if it is missing. None: the guest reaches the host only.
    pub siblings: Option<PathBuf>,
    /// Host sockets that lead to one guest port each.
    pub publish: Vec<Publish>,
    /// How long things may take.
    pub limits: Limits,
}

impl Config {
    /// A device without siblings and without published ports.
    pub fn new(
        guest_cid: u32,
        vhost_user_socket: impl Into<PathBuf>,
        connect_socket: impl Into<PathBuf>,
    ) -> Self {
        Self {
            guest_cid,
            vhost_user_socket: vhost_user_socket.into(),
            connect_socket: connect_socket.into(),
            siblings: None,
            publish: Vec::new(),
            limits: Limits::default(),
        }
    }
}

/// A host socket that leads to one port of the guest. Every connection to it is forwarded at
/// once, without a handshake; if the guest refuses it, it is closed (TCP: reset).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Publish {
    /// Where the host listens.
    pub listen: PublishAddress,
    /// The guest's vsock port.
    pub port: u32,
}

/// Where the host listens for a published port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PublishAddress {
    /// A Unix stream socket, made with mode 0600 and removed when the device stops. A socket
    /// file that nobody listens on is replaced.
    UnixPath(PathBuf),
    /// A TCP socket; port 0 takes a free one, see [`super::Device::published`].
    Tcp(SocketAddr),
}

impl fmt::Display for PublishAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnixPath(path) => write!(f, "{}", path.display()),
            Self::Tcp(address) => write!(f, "{address}"),
        }
    }
}

/// How long the device waits for others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// How long a host connection is held that came before the guest's driver was ready; then
    /// it ends with `ERR timeout`. In this time it is also patient with a guest that is not
    /// listening yet. A connection that comes later believes the first refusal.
    pub driver: Duration,
    /// How long the guest may take to accept or refuse a connection.
    pub answer: Duration,
    /// How long a client of the connect socket may take to write its line.
    pub handshake: Duration,
    /// How long the peer of a closed connection may take to confirm; then it is reset. Linux
    /// gives its own peers 8 s (VSOCK_CLOSE_TIMEOUT).
    pub close: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            driver: Duration::from_secs(60),
            answer: Duration::from_secs(30),
            handshake: Duration::from_secs(10),
            close: Duration::from_secs(10),
        }
    }
}
