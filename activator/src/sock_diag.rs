//! sock_diag(7): asks the kernel whether a connection of a listener is open.
//!
//! | listener | asked for | its connections are |
//! |---|---|---|
//! | TCP | sockets of that local port | those of its address that a process has (an inode) |
//! | Unix | all that are connected | those that carry its name, as accepted sockets do |
//! | vsock | all that are connected | those of its local port |
//!
//! One request to a socket of its own, answered at once; nothing waits and nothing is allocated.
//! The kernel needs the modules tcp_diag, unix_diag and vsock_diag for it.

use activator::manifest::{Address, ListenKind, Listener};
use rustix::io::Errno;
use rustix::net::netlink::SOCK_DIAG;
use rustix::net::{self, AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};

/// linux/netlink.h and linux/sock_diag.h.
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const SOCK_DIAG_BY_FAMILY: u16 = 20;
const NLM_F_REQUEST_DUMP: u16 = 0x301;
const NETLINK_HEADER: usize = 16;

/// Masks of states, include/net/tcp_states.h: ESTABLISHED, FIN_WAIT1, FIN_WAIT2, CLOSE_WAIT,
/// LAST_ACK, CLOSING.
const TCP_OPEN: u32 = 1 << 1 | 1 << 4 | 1 << 5 | 1 << 8 | 1 << 9 | 1 << 11;
const ESTABLISHED: u32 = 1 << 1;
/// vsock closes by way of CLOSING.
const VSOCK_OPEN: u32 = 1 << 1 | 1 << 11;

/// Reads of one answer at most, some hundred sockets each.
const READS: usize = 4096;

/// Whether a connection that was accepted from this listener is open. False for listeners that
/// have none. An error is that of netlink: most often ENOENT, for a module that lacks.
pub(crate) fn is_connected(listener: &Listener) -> Result<bool, Errno> {
    if !matches!(listener.kind, ListenKind::Stream | ListenKind::SequentialPacket) {
        return Ok(false);
    }
    let tcp = |family: i32, port: u16, address: &[u8]| {
        let any = address.iter().all(|byte| *byte == 0);
        ask(&inet_request(family, port), |message| {
            message.get(4..6) == Some(&port.to_be_bytes())
                && (any || message.get(8..8 + address.len()) == Some(address))
                && word(message, 68).is_some_and(|inode| inode != 0)
        })
    };
    match &listener.address {
        Address::Inet(address, port) => tcp(libc::AF_INET, *port, address),
        Address::Inet6(address, port, _) => tcp(libc::AF_INET6, *port, address),
        // Which of the two it is, the kernel knows.
        Address::AnyPort(port) => Ok(tcp(libc::AF_INET6, *port, &[0; 16]).unwrap_or(false)
            || tcp(libc::AF_INET, *port, &[0; 4])?),
        Address::Path(path) => ask(&other_request(libc::AF_UNIX, ESTABLISHED), |message| {
            unix_name(message).is_some_and(|name| name.strip_suffix(b"\0") == Some(path.as_bytes()))
        }),
        Address::Abstract(text) => ask(&other_request(libc::AF_UNIX, ESTABLISHED), |message| {
            unix_name(message).is_some_and(|name| name.strip_prefix(b"\0") == Some(text.as_bytes()))
        }),
        Address::Vsock(_, port) => ask(&other_request(libc::AF_VSOCK, VSOCK_OPEN), |message| {
            word(message, 8) == Some(*port)
        }),
        Address::Netlink(..) | Address::Queue(_) => Ok(false),
    }
}

/// struct inet_diag_req_v2: the kernel sends only what has that local port.
fn inet_request(family: i32, port: u16) -> [u8; 56] {
    let mut request = [0; 56];
    request[0] = family as u8;
    request[1] = libc::IPPROTO_TCP as u8;
    request[4..8].copy_from_slice(&TCP_OPEN.to_ne_bytes());
    request[8..10].copy_from_slice(&port.to_be_bytes());
    request
}

/// struct unix_diag_req and struct vsock_diag_req, which are alike.
fn other_request(family: i32, states: u32) -> [u8; 24] {
    /// UDIAG_SHOW_NAME
    const SHOW_NAME: u32 = 1;
    let mut request = [0; 24];
    request[0] = family as u8;
    request[4..8].copy_from_slice(&states.to_ne_bytes());
    request[12..16].copy_from_slice(&SHOW_NAME.to_ne_bytes());
    request
}

/// UNIX_DIAG_NAME, the first attribute behind struct unix_diag_msg, as bind(2) got it.
fn unix_name(message: &[u8]) -> Option<&[u8]> {
    const UNIX_DIAG_NAME: u16 = 0;
    let mut rest = message.get(16..)?;
    loop {
        let length = usize::from(u16::from_ne_bytes(*rest.first_chunk()?));
        let kind = u16::from_ne_bytes(*rest.get(2..)?.first_chunk()?);
        if kind == UNIX_DIAG_NAME {
            return rest.get(4..length);
        }
        rest = rest.get(length.max(4).next_multiple_of(4)..)?;
    }
}

fn word(message: &[u8], at: usize) -> Option<u32> {
    message.get(at..)?.first_chunk().map(|bytes| u32::from_ne_bytes(*bytes))
}

/// Sends a request; whether any socket of the answer is one that is looked for.
fn ask(request: &[u8], mut found: impl FnMut(&[u8]) -> bool) -> Result<bool, Errno> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let fd = net::socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, Some(SOCK_DIAG))?;
    let mut packet = [0; 128];
    let length = NETLINK_HEADER + request.len();
    packet[0..4].copy_from_slice(&(length as u32).to_ne_bytes());
    packet[4..6].copy_from_slice(&SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    packet[6..8].copy_from_slice(&NLM_F_REQUEST_DUMP.to_ne_bytes());
    packet[NETLINK_HEADER..length].copy_from_slice(request);
    net::send(&fd, &packet[..length], SendFlags::empty())?;
    let mut answer = [0; 32 * 1024];
    for _ in 0..READS {
        let (length, whole) = match net::recv(&fd, &mut answer[..], RecvFlags::TRUNC) {
            Ok(received) => received,
            Err(Errno::INTR) => continue,
            Err(errno) => return Err(errno),
        };
        if whole > length {
            return Err(Errno::MSGSIZE);
        }
        let mut rest = &answer[..length];
        while let Some(size) = word(rest, 0).map(|size| size as usize) {
            if size < NETLINK_HEADER || size > rest.len() {
                return Err(Errno::BADMSG);
            }
            let kind = u16::from_ne_bytes([rest[4], rest[5]]);
            let message = &rest[NETLINK_HEADER..size];
            match kind {
                NLMSG_DONE => return Ok(false),
                NLMSG_ERROR => {
                    let errno = word(message, 0).map_or(0, |errno| -(errno as i32));
                    return Err(Errno::from_raw_os_error(errno));
                }
                SOCK_DIAG_BY_FAMILY if found(message) => return Ok(true),
                _ => {}
            }
            rest = rest.get(size.next_multiple_of(4)..).unwrap_or_default();
        }
    }
    // More than anybody has: better to be wrong by a service that runs on.
    Err(Errno::OVERFLOW)
}

#[cfg(test)]
mod tests {
    use super::*;
    use activator::manifest::Scope;
    use std::net::{TcpListener, TcpStream};
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};

    fn stream(address: Address) -> Listener {
        Listener { kind: ListenKind::Stream, address }
    }

    #[test]
    fn a_tcp_connection_is_open_from_accept_to_close() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let socket = TcpListener::bind(address).unwrap();
            let port = socket.local_addr().unwrap().port();
            let listener = match socket.local_addr().unwrap().ip() {
                std::net::IpAddr::V4(ip) => stream(Address::Inet(ip.octets(), port)),
                std::net::IpAddr::V6(ip) => stream(Address::Inet6(ip.octets(), port, Scope::None)),
            };
            let any = stream(Address::AnyPort(port));
            assert_eq!(is_connected(&listener), Ok(false));
            let client = TcpStream::connect(socket.local_addr().unwrap()).unwrap();
            let (server, _) = socket.accept().unwrap();
            assert_eq!(is_connected(&listener), Ok(true));
            assert_eq!(is_connected(&any), Ok(true));
            let other = stream(Address::Inet([127, 0, 0, 2], port));
            assert_eq!(is_connected(&other), Ok(false));
            // The client has gone, the server still has something to do.
            drop(client);
            assert_eq!(is_connected(&listener), Ok(true));
            drop(server);
            assert_eq!(is_connected(&listener), Ok(false));
        }
    }

    #[test]
    fn a_unix_connection_carries_its_listeners_name() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("u");
        let name = format!("rouse-diag-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let pairs = [
            (UnixListener::bind(&path).unwrap(), Address::Path(path.to_str().unwrap().into())),
            (UnixListener::bind_addr(&address).unwrap(), Address::Abstract(name)),
        ];
        for (socket, address) in pairs {
            let listener = stream(address);
            assert_eq!(is_connected(&listener), Ok(false));
            let client = UnixStream::connect_addr(&socket.local_addr().unwrap()).unwrap();
            let (server, _) = socket.accept().unwrap();
            assert_eq!(is_connected(&listener), Ok(true));
            drop((client, server));
            assert_eq!(is_connected(&listener), Ok(false));
        }
    }

    #[test]
    fn datagram_sockets_have_no_connections() {
        let kind = ListenKind::Datagram;
        assert_eq!(is_connected(&Listener { kind, address: Address::AnyPort(1) }), Ok(false));
    }
}
