//! Connections that `Accept=yes` took: held from accept(2) until the instance's process has them;
//! what is known of the client is kept as long as the instance.
//!
//! What an instance finds in its environment (systemd.exec(5)): REMOTE_ADDR and REMOTE_PORT of IP
//! and vsock, REMOTE_ADDR alone of a Unix socket with a name, SO_COOKIE, and LISTEN_* for the one
//! fd; ROUSE_INSTANCE is for stage 2. A client that has gone before its name was asked for leaves
//! no connection.

use crate::listen::{self, options};
use crate::program::Field;
use crate::reload::fd::{Arriving, Leaving};
use crate::supervise::Accepted;
use crate::sys::{self, Name, UnixName};
use activator::foreign::Foreign;
use activator::manifest::Socket;
use activator::peer::{Instance, Peer};
use activator::wire;
use rustix::io::Errno;
use rustix::net::{self, SocketFlags};
use std::ffi::c_char;
use std::fmt::Write;
use std::os::fd::{AsFd, BorrowedFd};

/// Tries after a signal, or a client that went, before others get their turn.
const TRIES: usize = 8;

/// One connection and what is known of its client.
#[derive(Debug)]
pub(crate) struct Connection {
    /// None once the last program that gets it has it.
    fd: Option<Foreign>,
    peer: Peer,
    /// The client's own address.
    remote: Name,
    /// SO_COOKIE, if the kernel tells.
    cookie: Option<u64>,
    /// Among the connections of its socket unit. Set when it is kept.
    number: u64,
}

/// What a reload hands over of one.
#[derive(Debug, Clone)]
pub(crate) struct Saved<F> {
    fd: Option<F>,
    peer: Peer,
    number: u64,
    /// A Unix client's own name: without the fd there is nobody left to ask.
    name: heapless::Vec<u8, { sys::UNIX_NAME }>,
    cookie: Option<u64>,
}

wire! {
    struct Saved<F> { fd, peer, number, name, cookie }
}

impl Saved<Arriving> {
    /// Its fd, taken or not; None if it was handed over to an instance.
    pub(crate) fn fd(&self) -> Option<Arriving> {
        self.fd
    }
}

impl Connection {
    /// For the child.
    pub(crate) fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.fd.as_ref().map(AsFd::as_fd)
    }

    /// For the next process.
    pub(crate) fn leave(&self) -> Saved<Leaving<'_>> {
        let name = match &self.remote {
            Name::Unix(name) => name.bytes(),
            _ => &[],
        };
        Saved {
            fd: self.fd().map(Leaving),
            peer: self.peer,
            number: self.number,
            name: heapless::Vec::from_slice(name).unwrap_or_default(),
            cookie: self.cookie,
        }
    }

    /// From the process before.
    pub(crate) fn take_over(saved: &Saved<Arriving>) -> Option<Self> {
        let fd = match saved.fd {
            Some(fd) => Some(Foreign::from(fd.take()?)),
            None => None,
        };
        // The peer has the addresses of the other families.
        let remote = match saved.peer {
            Peer::Unix { .. } => Name::Unix(UnixName::new(&saved.name)),
            _ => Name::Other,
        };
        Some(Self { fd, peer: saved.peer, remote, cookie: saved.cookie, number: saved.number })
    }
}

/// The connections of all slots.
#[derive(Debug)]
pub(crate) struct Connections {
    /// Accepted, and not judged yet.
    pending: Option<Connection>,
    /// At the slot's id, from the moment that it is kept to the end of the instance.
    held: Box<[Option<Connection>]>,
}

impl Connections {
    /// `length` is the number of units and slots; what is `kept` comes from before a reload.
    pub(crate) fn new(length: usize, kept: impl FnMut(usize) -> Option<Connection>) -> Self {
        Self { pending: None, held: (0..length).map(kept).collect() }
    }

    /// Accepts from a listener.
    pub(crate) fn accept(&mut self, listener: BorrowedFd, socket: &Socket) -> Accepted {
        self.pending = None;
        // A service had it before a reload, and got it blocking; or a command has it now.
        if let Err(errno) = listen::set_nonblocking(listener, true) {
            return Accepted::Failed(errno.raw_os_error());
        }
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        for _ in 0..TRIES {
            let fd = match net::accept_with(listener, flags) {
                Ok(fd) => fd,
                Err(Errno::AGAIN) => return Accepted::Nothing,
                Err(Errno::INTR) => continue,
                Err(errno) if is_gone(errno) => return Accepted::Aborted,
                Err(errno) => return Accepted::Failed(errno.raw_os_error()),
            };
            return match Connection::new(fd.into(), socket) {
                Ok(connection) => {
                    let peer = connection.peer;
                    self.pending = Some(connection);
                    Accepted::Connection(peer)
                }
                Err(_) => Accepted::Aborted,
            };
        }
        Accepted::Aborted
    }

    /// The pending one is that slot's.
    pub(crate) fn keep(&mut self, slot: usize, number: u64) {
        let pending = self.pending.take().map(|connection| Connection { number, ..connection });
        if let Some(held) = self.held.get_mut(slot) {
            *held = pending;
        }
    }

    /// Closes the pending one.
    pub(crate) fn refuse(&mut self) {
        self.pending = None;
    }

    /// Closes our copy of a slot's, of whose client later commands are still told.
    pub(crate) fn hand_over(&mut self, slot: usize) {
        if let Some(Some(held)) = self.held.get_mut(slot) {
            held.fd = None;
        }
    }

    /// The instance of a slot is over.
    pub(crate) fn release(&mut self, slot: usize) {
        if let Some(held) = self.held.get_mut(slot) {
            *held = None;
        }
    }

    /// The one of a slot.
    pub(crate) fn of(&self, slot: usize) -> Option<&Connection> {
        self.held.get(slot)?.as_ref()
    }
}

impl Connection {
    fn new(fd: Foreign, socket: &Socket) -> Result<Self, Errno> {
        let remote = sys::peer_name(fd.as_fd())?;
        let peer = match (sys::own_name(fd.as_fd())?, &remote) {
            (Name::Inet(local), Name::Inet(remote)) => Peer::Inet([local, *remote]),
            (Name::Inet6(local), Name::Inet6(remote)) => Peer::inet6([local, *remote]),
            (Name::Vsock(local), Name::Vsock(remote)) => Peer::Vsock([local, *remote]),
            (Name::Unix(_), _) => {
                let (pid, uid) = sys::peer_credentials(fd.as_fd())?;
                Peer::Unix { pid, uid }
            }
            _ => Peer::Other,
        };
        options::set_again(fd.as_fd(), socket);
        let cookie = cookie(&fd);
        Ok(Self { fd: Some(fd), peer, remote, cookie, number: 0 })
    }
}

fn cookie(fd: impl AsFd) -> Option<u64> {
    net::sockopt::socket_cookie(fd).ok()
}

/// A client that did not wait: systemd takes these for no error of the listener's.
fn is_gone(errno: Errno) -> bool {
    matches!(
        errno,
        Errno::CONNABORTED
            | Errno::CONNREFUSED
            | Errno::CONNRESET
            | Errno::HOSTDOWN
            | Errno::HOSTUNREACH
            | Errno::NETDOWN
            | Errno::NETRESET
            | Errno::NETUNREACH
            | Errno::NONET
            | Errno::NOPROTOOPT
            | Errno::NOTCONN
            | Errno::OPNOTSUPP
            | Errno::PIPE
            | Errno::PROTO
            | Errno::SHUTDOWN
            | Errno::TIMEDOUT
    )
}

/// Room for an instance's variables, written anew for each spawn.
#[derive(Debug)]
pub(crate) struct Variables {
    instance: Field,
    address: Field,
    port: Field,
    cookie: Field,
}

/// The variables of one instance, for envp; ROUSE_INSTANCE is the first.
pub(crate) type Pointers = heapless::Vec<*const c_char, { Variables::COUNT }>;

impl Variables {
    /// So many there are at most.
    pub(crate) const COUNT: usize = 4;

    /// Makes the room.
    pub(crate) fn new() -> Self {
        Self {
            instance: Field::new(b"ROUSE_INSTANCE=", Instance::MAX),
            address: Field::new(b"REMOTE_ADDR=", sys::UNIX_NAME + 1),
            port: Field::new(b"REMOTE_PORT=", 10),
            cookie: Field::new(b"SO_COOKIE=", 20),
        }
    }

    /// Writes those of a connection. The pointers are good until the next call.
    pub(crate) fn fill(&mut self, connection: &Connection) -> Pointers {
        for field in [&mut self.instance, &mut self.address, &mut self.port, &mut self.cookie] {
            field.clear();
        }
        // A field takes what it has room for and never fails.
        let _ = write!(self.instance, "{}", connection.peer.instance(connection.number));
        let mut pointers = Pointers::new();
        let mut add = |field: &Field| {
            let _ = pointers.push(field.pointer());
        };
        add(&self.instance);
        let port = match connection.peer {
            Peer::Inet([_, (address, port)]) => {
                let _ = write!(self.address, "{}", std::net::Ipv4Addr::from(address));
                Some(u32::from(port))
            }
            Peer::Inet6([_, (address, port)]) => {
                let _ = write!(self.address, "{}", std::net::Ipv6Addr::from(address));
                Some(u32::from(port))
            }
            Peer::Vsock([_, (cid, port)]) => {
                let _ = write!(self.address, "vsock:{cid}");
                Some(port)
            }
            Peer::Unix { .. } | Peer::Other => {
                if let Name::Unix(name) = &connection.remote {
                    name.parts().into_iter().for_each(|part| self.address.push(part));
                }
                None
            }
        };
        if !self.address.is_empty() {
            add(&self.address);
        }
        if let Some(port) = port {
            let _ = write!(self.port, "{port}");
            add(&self.port);
        }
        if let Some(cookie) = connection.cookie {
            let _ = write!(self.cookie, "{cookie}");
            add(&self.cookie);
        }
        pointers
    }
}
