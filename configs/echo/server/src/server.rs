//! The loop: listeners, connections and datagram sockets behind one epoll.

use crate::connection::{BUFFER, Connection, Next};
use rustix::event::{Timespec, epoll};
use rustix::io::Errno;
use rustix::net::sockopt::{socket_acceptconn, socket_type};
use rustix::net::{RecvFlags, SendFlags, SocketFlags, SocketType};
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

/// Packets or connections taken from one socket before the others get their turn.
const TURN: usize = 64;
/// Pause of all listeners when the process or the system has no fd left.
const OUT_OF_FDS: Duration = Duration::from_millis(100);

/// What an fd is to us.
#[derive(Debug)]
enum Entry {
    Listener { socket: OwnedFd, packets: bool },
    Datagram(OwnedFd),
    Connection(Connection),
}

struct Server {
    epoll: OwnedFd,
    /// By fd number, which the kernel keeps small. The number is also the epoll data.
    entries: Vec<Option<Entry>>,
    connections: usize,
    /// When the last connection ended or the last packet came.
    last_active: Instant,
    /// Set when accept found no fd, cleared by the pause that follows.
    out_of_fds: bool,
    /// Until when listeners are left alone.
    paused_until: Option<Instant>,
    scratch: Vec<u8>,
}

/// Serves until idle for `idle`, or for ever.
pub fn run(fds: Vec<OwnedFd>, idle: Option<Duration>) -> Result<(), Errno> {
    raise_fd_limit();
    let mut server = Server {
        epoll: epoll::create(epoll::CreateFlags::CLOEXEC)?,
        entries: Vec::new(),
        connections: 0,
        last_active: Instant::now(),
        out_of_fds: false,
        paused_until: None,
        scratch: vec![0; BUFFER],
    };
    for fd in fds {
        server.adopt(fd)?;
    }
    let mut events = Vec::with_capacity(256);
    loop {
        let now = Instant::now();
        let leave_at =
            idle.filter(|_| server.connections == 0).map(|idle| server.last_active + idle);
        if leave_at.is_some_and(|at| at <= now) {
            return Ok(());
        }
        if server.paused_until.is_some_and(|at| at <= now) {
            server.listen_again()?;
        }
        let until = [leave_at, server.paused_until].into_iter().flatten().min();
        let timeout = until.and_then(|at| Timespec::try_from(at - now).ok());
        events.clear();
        match epoll::wait(
            &server.epoll,
            rustix::buffer::spare_capacity(&mut events),
            timeout.as_ref(),
        ) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
        for event in &events {
            server.serve(usize::try_from(event.data.u64()).unwrap_or(usize::MAX))?;
        }
    }
}

impl Server {
    /// Takes over an inherited fd; one that is no socket is named and left alone.
    fn adopt(&mut self, socket: OwnedFd) -> Result<(), Errno> {
        let number = socket.as_raw_fd();
        let Ok(kind) = socket_type(&socket) else {
            eprintln!("echo-server: fd {number} is no socket, it is ignored");
            return Ok(());
        };
        let packets = kind == SocketType::SEQPACKET;
        let entry = if kind == SocketType::DGRAM {
            Entry::Datagram(socket)
        } else if socket_acceptconn(&socket)? {
            // A client that leaves before accept(2) must not make it wait for the next one.
            rustix::io::ioctl_fionbio(&socket, true)?;
            Entry::Listener { socket, packets }
        } else {
            self.connections += 1;
            Entry::Connection(Connection::new(socket, packets))
        };
        self.insert(entry)
    }

    fn insert(&mut self, entry: Entry) -> Result<(), Errno> {
        let socket = entry.socket();
        let number = usize::try_from(socket.as_raw_fd()).map_err(|_| Errno::BADF)?;
        let data = epoll::EventData::new_u64(number as u64);
        epoll::add(&self.epoll, socket, data, epoll::EventFlags::IN)?;
        if self.entries.len() <= number {
            self.entries.resize_with(number + 1, || None);
        }
        self.entries[number] = Some(entry);
        Ok(())
    }

    fn serve(&mut self, number: usize) -> Result<(), Errno> {
        // Out of its slot while it is served; an event for an fd that was closed in this round
        // finds an empty slot, or a new connection, which reads nothing and waits on.
        let Some(mut entry) = self.entries.get_mut(number).and_then(Option::take) else {
            return Ok(());
        };
        match &mut entry {
            Entry::Listener { socket, packets } => self.accept(socket, *packets)?,
            Entry::Datagram(socket) => self.send_back(socket),
            Entry::Connection(connection) => match connection.serve(&mut self.scratch) {
                Next::Wait(flags) => {
                    let data = epoll::EventData::new_u64(number as u64);
                    epoll::modify(&self.epoll, connection.socket(), data, flags)?;
                }
                Next::Close => {
                    self.connections -= 1;
                    self.last_active = Instant::now();
                    return Ok(());
                }
            },
        }
        if let Some(slot) = self.entries.get_mut(number) {
            *slot = Some(entry);
        }
        if self.out_of_fds {
            self.pause()?;
        }
        Ok(())
    }

    fn accept(&mut self, listener: &OwnedFd, packets: bool) -> Result<(), Errno> {
        if self.paused_until.is_some() {
            return Ok(());
        }
        for _ in 0..TURN {
            let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
            match rustix::net::accept_with(listener, flags) {
                Ok(socket) => {
                    self.connections += 1;
                    self.insert(Entry::Connection(Connection::new(socket, packets)))?;
                }
                Err(Errno::AGAIN) => break,
                Err(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM) => {
                    self.out_of_fds = true;
                    break;
                }
                // The client has left before it was accepted, or the network says so: accept(2).
                Err(_) => {}
            }
        }
        Ok(())
    }

    /// The connections wait in the backlog; polling for them would only burn the processor.
    fn pause(&mut self) -> Result<(), Errno> {
        self.out_of_fds = false;
        self.paused_until = Some(Instant::now() + OUT_OF_FDS);
        self.watch_listeners(epoll::EventFlags::empty())
    }

    fn listen_again(&mut self) -> Result<(), Errno> {
        self.paused_until = None;
        self.watch_listeners(epoll::EventFlags::IN)
    }

    fn watch_listeners(&self, flags: epoll::EventFlags) -> Result<(), Errno> {
        for (number, entry) in self.entries.iter().enumerate() {
            if let Some(Entry::Listener { socket, .. }) = entry {
                let data = epoll::EventData::new_u64(number as u64);
                epoll::modify(&self.epoll, socket, data, flags)?;
            }
        }
        Ok(())
    }

    /// A datagram that cannot be sent back at once is lost, as datagrams may be: a sender that
    /// does not read must not hold up the others of the same socket.
    fn send_back(&mut self, socket: &OwnedFd) {
        for _ in 0..TURN {
            let buffer = &mut self.scratch[..];
            match rustix::net::recvfrom(socket, buffer, RecvFlags::DONTWAIT) {
                Ok((_, length, sender)) => {
                    self.last_active = Instant::now();
                    // A Unix datagram socket that is not bound has no address to answer to.
                    let (Some(sender), Some(packet)) = (sender, self.scratch.get(..length)) else {
                        continue;
                    };
                    let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
                    let _ = rustix::net::sendto(socket, packet, flags, &sender);
                }
                Err(Errno::AGAIN) => return,
                // An ICMP error of an earlier answer, for one: udp(7).
                Err(_) => {}
            }
        }
    }
}

impl Entry {
    fn socket(&self) -> &OwnedFd {
        match self {
            Self::Listener { socket, .. } | Self::Datagram(socket) => socket,
            Self::Connection(connection) => connection.socket(),
        }
    }
}

/// A thousand clients need more than the customary soft limit of 1024.
fn raise_fd_limit() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    // If refused, accept(2) finds the old limit, and pauses there.
    let _ = setrlimit(Resource::Nofile, limit);
}
