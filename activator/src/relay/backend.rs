//! Where the relay carries to: the address, looked up if it is a name, and the first connect.

use super::inside::Inside;
use crate::vsock;
use activator::address::AddressError;
use activator::manifest::{Address, Scope};
use mio::Waker;
use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::net::addr::SocketAddrArg;
use rustix::net::{
    AddressFamily, RecvFlags, SocketAddrAny, SocketAddrUnix, SocketFlags, SocketType, connect,
    recv, socket_with, sockopt,
};
use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6, ToSocketAddrs};
use std::rc::Rc;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, TryRecvError, channel};
use std::time::{Duration, Instant};

/// systemd-socket-proxyd's default.
const DEFAULT_PORT: u16 = 80;
/// How long what a name stood for is used, and how long it is that it stood for nothing.
const FRESH: Duration = Duration::from_secs(5);
const FRESH_FAILURE: Duration = Duration::from_millis(500);

/// What the command line says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Target {
    Address(SocketAddrAny),
    /// A name, looked up when it is needed, again and again.
    Host(String, u16),
    /// The Unix socket of a hypervisor's vsock device, and the guest's port.
    Mux(SocketAddrAny, u32),
}

/// Why a text is no backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TargetError {
    Address(AddressError),
    Port,
    Mux,
    /// A CID that is nobody's.
    AnyCid,
}

impl fmt::Display for TargetError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(error) => error.fmt(f),
            Self::Port => f.write_str("expected a port from 1 to 65535 behind the last `:`"),
            Self::Mux => f.write_str("expected `vsock-mux:/path:PORT`"),
            Self::AnyCid => f.write_str("expected the context id of one machine"),
        }
    }
}

impl FromStr for Target {
    type Err = TargetError;

    fn from_str(text: &str) -> Result<Self, TargetError> {
        if let Some(rest) = text.strip_prefix("vsock-mux:") {
            let (path, port) = rest.rsplit_once(':').ok_or(TargetError::Mux)?;
            let port = port.parse().map_err(|_| TargetError::Mux)?;
            return match path.parse() {
                Ok(Address::Path(path)) => Ok(Self::Mux(unix(SocketAddrUnix::new(path))?, port)),
                _ => Err(TargetError::Mux),
            };
        }
        // An address alone has no port, and a port alone no address.
        let host = text.trim_start_matches('[').trim_end_matches(']');
        if let Ok(ip) = host.parse::<IpAddr>() {
            return Ok(Self::Address(SocketAddr::new(ip, DEFAULT_PORT).into()));
        }
        match text.parse::<Address>() {
            Ok(Address::Path(path)) => Ok(Self::Address(unix(SocketAddrUnix::new(path))?)),
            Ok(Address::Abstract(name)) => {
                let name = SocketAddrUnix::new_abstract_name(name.as_bytes());
                Ok(Self::Address(unix(name)?))
            }
            Ok(Address::Inet(ip, port)) => {
                Ok(Self::Address(SocketAddr::new(Ipv4Addr::from(ip).into(), port).into()))
            }
            Ok(Address::Inet6(ip, port, Scope::None)) => {
                Ok(Self::Address(SocketAddr::new(Ipv6Addr::from(ip).into(), port).into()))
            }
            Ok(Address::Inet6(ip, port, Scope::Index(scope))) => {
                let address = SocketAddrV6::new(Ipv6Addr::from(ip), port, 0, scope);
                Ok(Self::Address(address.into()))
            }
            Ok(Address::Vsock(activator::address::CID_ANY, _)) => Err(TargetError::AnyCid),
            Ok(Address::Vsock(cid, port)) => {
                Ok(Self::Address(vsock::Address { cid, port }.as_any()))
            }
            // With an interface's name: the resolver knows what to do with it.
            Ok(Address::Inet6(ip, port, Scope::Name(scope))) => {
                Ok(Self::Host(format!("{}%{scope}", Ipv6Addr::from(ip)), port))
            }
            Ok(_) | Err(AddressError::HostName) => host_name(text),
            Err(AddressError::Port) if !text.contains(':') => host_name(text),
            Err(error) => Err(TargetError::Address(error)),
        }
    }
}

fn unix(address: Result<SocketAddrUnix, Errno>) -> Result<SocketAddrAny, TargetError> {
    let too_long = TargetError::Address(AddressError::TooLong(activator::address::MAX_PATH + 1));
    address.map(SocketAddrAny::from).map_err(|_| too_long)
}

fn host_name(text: &str) -> Result<Target, TargetError> {
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) => (host, port.parse().map_err(|_| TargetError::Port)?),
        None => (text, DEFAULT_PORT),
    };
    if host.is_empty() || port == 0 {
        return Err(TargetError::Port);
    }
    Ok(Target::Host(host.to_owned(), port))
}

impl Target {
    /// Whether it can take packets; virtio has no vsock datagrams.
    pub(super) fn takes_datagrams(&self) -> bool {
        match self {
            Self::Address(address) => address.address_family() != AddressFamily::VSOCK,
            Self::Host(..) => true,
            Self::Mux(..) => false,
        }
    }
}

/// The addresses behind a [`Target`].
pub(super) struct Backend {
    target: Target,
    waker: Arc<Waker>,
    lookup: Option<Receiver<io::Result<Vec<SocketAddr>>>>,
    /// Until when they hold; None is for ever.
    known: Option<(Option<Instant>, Rc<[SocketAddrAny]>)>,
    /// Where they are, unless they are where we are.
    inside: Option<Inside>,
    /// A connection that was made before there was a client for it.
    ahead: Option<OwnedFd>,
    /// The last attempt failed.
    failing: bool,
}

impl Backend {
    /// The waker is woken when a name was looked up.
    pub(super) fn new(target: Target, inside: Option<Inside>, waker: Arc<Waker>) -> Self {
        let known = match &target {
            Target::Address(address) | Target::Mux(address, _) => {
                Some((None, Rc::from([address.clone()])))
            }
            Target::Host(..) => None,
        };
        Self { target, waker, lookup: None, known, inside, ahead: None, failing: false }
    }

    /// Begins to connect to one of the addresses.
    pub(super) fn connect(
        &mut self,
        address: &SocketAddrAny,
        kind: SocketType,
    ) -> Result<OwnedFd, Errno> {
        match &mut self.inside {
            Some(inside) => inside.connect(address, kind),
            None => start_connect(address, kind),
        }
    }

    /// How an attempt has ended.
    pub(super) fn note(&mut self, outcome: Result<(), Errno>) {
        self.failing = outcome.is_err();
        if self.failing {
            self.forget();
        }
    }

    /// The container may be another one the next time.
    pub(super) fn forget(&mut self) {
        self.inside.iter_mut().for_each(Inside::forget);
    }

    pub(super) fn is_failing(&self) -> bool {
        self.failing
    }

    /// Keeps a connection for the next client.
    pub(super) fn keep(&mut self, connection: OwnedFd) {
        self.ahead = Some(connection);
    }

    /// What was kept, if the backend has not closed it since.
    pub(super) fn take_kept(&mut self) -> Option<OwnedFd> {
        let kept = self.ahead.take()?;
        let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
        let end = matches!(recv(&kept, &mut [0; 1], flags), Ok((0, _)));
        let lost = end || sockopt::socket_error(&kept) != Ok(Ok(()));
        (!lost).then_some(kept)
    }

    /// The port to ask a multiplexer for.
    pub(super) fn mux_port(&self) -> Option<u32> {
        match self.target {
            Target::Mux(_, port) => Some(port),
            _ => None,
        }
    }

    /// All addresses, in the order to try them; empty if the name stands for none. None while it
    /// is looked up, by a thread: getaddrinfo(3) waits.
    pub(super) fn addresses(&mut self, now: Instant) -> Option<Rc<[SocketAddrAny]>> {
        if let Some(lookup) = &self.lookup {
            let found = match lookup.try_recv() {
                Ok(found) => found.unwrap_or_default(),
                Err(TryRecvError::Empty) => return None,
                Err(TryRecvError::Disconnected) => vec![],
            };
            self.lookup = None;
            let fresh = if found.is_empty() { FRESH_FAILURE } else { FRESH };
            let addresses = found.into_iter().map(SocketAddrAny::from).collect();
            self.known = Some((Some(now + fresh), addresses));
        }
        match &self.known {
            Some((until, addresses)) if until.is_none_or(|until| now < until) => {
                Some(addresses.clone())
            }
            _ => self.look_up(now),
        }
    }

    fn look_up(&mut self, now: Instant) -> Option<Rc<[SocketAddrAny]>> {
        let Target::Host(host, port) = &self.target else { return None };
        let (host, port) = (host.clone(), *port);
        let (sender, receiver) = channel();
        let waker = self.waker.clone();
        let thread = std::thread::Builder::new().name("lookup".into()).spawn(move || {
            let found = (host.as_str(), port).to_socket_addrs().map(Iterator::collect);
            // The relay may have ended.
            let _ = sender.send(found);
            let _ = waker.wake();
        });
        match thread {
            Ok(_) => {
                self.lookup = Some(receiver);
                None
            }
            // No threads left: as a name that is not known, which is tried again.
            Err(_) => {
                let none: Rc<[SocketAddrAny]> = Rc::from([]);
                self.known = Some((Some(now + FRESH_FAILURE), none.clone()));
                Some(none)
            }
        }
    }
}

/// A socket that is connected, or on the way to it.
pub(super) fn start_connect(address: &SocketAddrAny, kind: SocketType) -> Result<OwnedFd, Errno> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let fd = socket_with(address.address_family(), kind, flags, None)?;
    if kind == SocketType::DGRAM && address.address_family() == AddressFamily::UNIX {
        // An address by which the backend can answer: the kernel chooses one.
        rustix::net::bind(&fd, &SocketAddrUnix::new_unnamed())?;
    }
    match connect(&fd, address) {
        Ok(()) | Err(Errno::INPROGRESS) => Ok(fd),
        Err(errno) => Err(errno),
    }
}

/// Whether [`start_connect`] has come to its end: None is not yet.
pub(super) fn connected(fd: &OwnedFd) -> Option<Result<(), Errno>> {
    match sockopt::socket_error(fd) {
        Ok(Ok(())) => {}
        Ok(Err(errno)) | Err(errno) => return Some(Err(errno)),
    }
    match rustix::net::getpeername(fd) {
        Ok(_) => Some(Ok(())),
        Err(Errno::NOTCONN) => None,
        Err(errno) => Some(Err(errno)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inet(text: &str) -> Result<Target, TargetError> {
        Ok(Target::Address(text.parse::<SocketAddr>().unwrap().into()))
    }

    #[test]
    fn targets() {
        let parse = str::parse::<Target>;
        assert_eq!(parse("127.0.0.1:81"), inet("127.0.0.1:81"));
        assert_eq!(parse("127.0.0.1"), inet("127.0.0.1:80"));
        assert_eq!(parse("::1"), inet("[::1]:80"));
        assert_eq!(parse("[::1]:81"), inet("[::1]:81"));
        assert_eq!(parse("[fe80::1]:81%7"), {
            let address = SocketAddrV6::new("fe80::1".parse().unwrap(), 81, 0, 7);
            Ok(Target::Address(address.into()))
        });
        assert_eq!(parse("a.example:81"), Ok(Target::Host("a.example".into(), 81)));
        assert_eq!(parse("localhost"), Ok(Target::Host("localhost".into(), 80)));
        let path = SocketAddrUnix::new("/run/x").unwrap();
        assert_eq!(parse("/run/x"), Ok(Target::Address(path.clone().into())));
        assert_eq!(parse("vsock-mux:/run/x:5"), Ok(Target::Mux(path.into(), 5)));
        let vsock = vsock::Address { cid: 3, port: 5 };
        assert_eq!(parse("vsock:3:5"), Ok(Target::Address(vsock.as_any())));
    }

    #[test]
    fn what_is_no_target() {
        let parse = str::parse::<Target>;
        assert_eq!(parse("vsock::5"), Err(TargetError::AnyCid));
        assert_eq!(parse("vsock-mux:x:5"), Err(TargetError::Mux));
        assert_eq!(parse("vsock-mux:/x"), Err(TargetError::Mux));
        assert_eq!(parse("host:"), Err(TargetError::Port));
        assert_eq!(parse("host:99999"), Err(TargetError::Port));
        assert_eq!(parse("/"), Err(TargetError::Address(AddressError::NoName)));
        assert_eq!(parse(""), Err(TargetError::Address(AddressError::Empty)));
    }

    #[test]
    fn what_takes_datagrams() {
        for (text, takes) in
            [("1.2.3.4:5", true), ("/x", true), ("h:1", true), ("vsock:3:5", false)]
        {
            assert_eq!(text.parse::<Target>().unwrap().takes_datagrams(), takes, "{text}");
        }
    }
}
