//! From an address to a bound socket.

use super::path::PathBuffer;
use super::{options, with_umask};
use crate::manifest::{Address, Scope, Socket};
use crate::sys;
use rustix::fs::{self, AtFlags, CWD, Mode};
use rustix::io::Errno;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{
    self, AddressFamily, Protocol, SocketAddrUnix, SocketFlags, SocketType, sockopt,
};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddrV4, SocketAddrV6};
use std::num::NonZeroU32;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// Makes a socket, sets its options, binds it. Not listening yet.
pub(super) fn bind(socket: &Socket, kind: SocketType, address: &Address) -> Result<OwnedFd, Errno> {
    match address {
        Address::Path(path) => bind_path(socket, kind, path),
        Address::Abstract(name) => {
            let fd = make(socket, AddressFamily::UNIX, kind)?;
            net::bind(&fd, &SocketAddrUnix::new_abstract_name(name.as_bytes())?)?;
            Ok(fd)
        }
        Address::AnyPort(port) => {
            let v6 = SocketAddrV6::new(Ipv6Addr::UNSPECIFIED, *port, 0, 0);
            match bind_v6(socket, kind, v6) {
                // No IPv6 in the kernel, or switched off by sysctl.
                Err(Errno::AFNOSUPPORT | Errno::ADDRNOTAVAIL) => {
                    bind_v4(socket, kind, SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, *port))
                }
                other => other,
            }
        }
        Address::Inet(ip, port) => {
            bind_v4(socket, kind, SocketAddrV4::new(Ipv4Addr::from(*ip), *port))
        }
        Address::Inet6(ip, port, scope) => {
            let scope = match scope {
                Scope::None => 0,
                Scope::Index(index) => *index,
                Scope::Name(name) => sys::interface_index(PathBuffer::new(name)?.as_c_str())?,
            };
            bind_v6(socket, kind, SocketAddrV6::new(Ipv6Addr::from(*ip), *port, 0, scope))
        }
        Address::Vsock(cid, port) => {
            let fd = make(socket, AddressFamily::VSOCK, kind)?;
            sys::bind_vsock(fd.as_fd(), *cid, *port)?;
            Ok(fd)
        }
        Address::Netlink(..) | Address::Queue(_) => Err(Errno::INVAL),
    }
}

/// A raw netlink socket of that family, in these groups (a mask), netlink(7).
pub(super) fn bind_netlink(socket: &Socket, family: i32, groups: u32) -> Result<OwnedFd, Errno> {
    let protocol = u32::try_from(family).map_err(|_| Errno::PROTONOSUPPORT)?;
    let protocol = NonZeroU32::new(protocol).map(Protocol::from_raw);
    let fd = make_with(socket, AddressFamily::NETLINK, SocketType::RAW, protocol)?;
    net::bind(&fd, &SocketAddrNetlink::new(0, groups))?;
    Ok(fd)
}

fn bind_path(socket: &Socket, kind: SocketType, path: &str) -> Result<OwnedFd, Errno> {
    let address = SocketAddrUnix::new(path)?;
    let mut node = PathBuffer::new(path)?;
    node.make_parents(socket.directory_mode);
    let fd = make(socket, AddressFamily::UNIX, kind)?;
    // The mode of the new node is 0777 without the umask.
    let mask = Mode::from_raw_mode(!socket.mode & 0o777);
    let bind = |fd: BorrowedFd| with_umask(mask, || net::bind(fd, &address));
    match bind(fd.as_fd()) {
        Err(Errno::ADDRINUSE) => {
            fs::unlinkat(CWD, node.as_c_str(), AtFlags::empty())?;
            bind(fd.as_fd())?;
        }
        other => other?,
    }
    Ok(fd)
}

fn bind_v4(socket: &Socket, kind: SocketType, address: SocketAddrV4) -> Result<OwnedFd, Errno> {
    let fd = make(socket, AddressFamily::INET, kind)?;
    net::bind(&fd, &address)?;
    Ok(fd)
}

fn bind_v6(socket: &Socket, kind: SocketType, address: SocketAddrV6) -> Result<OwnedFd, Errno> {
    let fd = make(socket, AddressFamily::INET6, kind)?;
    if let Some(only) = socket.ipv6_only {
        sockopt::set_ipv6_v6only(&fd, only)?;
    }
    net::bind(&fd, &address)?;
    Ok(fd)
}

fn make(socket: &Socket, family: AddressFamily, kind: SocketType) -> Result<OwnedFd, Errno> {
    // `SocketProtocol=` is left out where it means nothing, as in systemd.
    let fits = matches!(family, AddressFamily::INET | AddressFamily::INET6)
        && match socket.protocol {
            libc::IPPROTO_UDPLITE => kind == SocketType::DGRAM,
            _ => kind == SocketType::STREAM,
        };
    let protocol = u32::try_from(socket.protocol).ok().filter(|_| fits);
    make_with(socket, family, kind, protocol.and_then(NonZeroU32::new).map(Protocol::from_raw))
}

fn make_with(
    socket: &Socket,
    family: AddressFamily,
    kind: SocketType,
    protocol: Option<Protocol>,
) -> Result<OwnedFd, Errno> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let fd = net::socket_with(family, kind, flags, protocol)?;
    sockopt::set_socket_reuseaddr(&fd, true)?;
    for option in &socket.options {
        options::set(fd.as_fd(), family, option)?;
    }
    Ok(fd)
}
