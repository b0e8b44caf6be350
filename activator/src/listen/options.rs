//! Socket options of systemd.socket(5) as setsockopt(2).

use crate::manifest::{Socket, SocketOption};
use crate::sys;
use libc::{IPPROTO_IP, IPPROTO_IPV6, IPPROTO_TCP, SOL_SOCKET};
use rustix::io::Errno;
use rustix::net::AddressFamily;
use std::ffi::c_int;
use std::os::fd::BorrowedFd;

/// Linux 6.5; asm-generic/socket.h.
const SO_PASSPIDFD: c_int = 76;
/// Linux 6.16; asm-generic/socket.h.
const SO_PASSRIGHTS: c_int = 83;

/// Sets one. Only a failure of `BindToDevice=` is one, as in systemd: a socket with smaller
/// buffers is better than none.
pub(super) fn set(
    fd: BorrowedFd,
    family: AddressFamily,
    option: &SocketOption,
) -> Result<(), Errno> {
    use SocketOption::*;
    let v6 = family == AddressFamily::INET6;
    let inet = v6 || family == AddressFamily::INET;
    let int = |level, name, value| sys::set_option(fd, level, name, value);
    let tcp = |name, value: u32| int(IPPROTO_TCP, name, clamp(value));
    let by_family = |of_v4, of_v6, value| match family {
        AddressFamily::INET => int(IPPROTO_IP, of_v4, value),
        AddressFamily::INET6 => int(IPPROTO_IPV6, of_v6, value),
        _ => Ok(()),
    };
    let outcome = match option {
        BindToDevice(name) if inet => {
            return sys::set_option_bytes(fd, SOL_SOCKET, libc::SO_BINDTODEVICE, name.as_bytes());
        }
        BindToDevice(_) => Ok(()),
        FreeBind => by_family(libc::IP_FREEBIND, libc::IPV6_FREEBIND, 1),
        Transparent => by_family(libc::IP_TRANSPARENT, libc::IPV6_TRANSPARENT, 1),
        ReusePort if inet => int(SOL_SOCKET, libc::SO_REUSEPORT, 1),
        ReusePort => Ok(()),
        KeepAlive => int(SOL_SOCKET, libc::SO_KEEPALIVE, 1),
        KeepAliveTimeSec(seconds) => tcp(libc::TCP_KEEPIDLE, *seconds),
        KeepAliveIntervalSec(seconds) => tcp(libc::TCP_KEEPINTVL, *seconds),
        KeepAliveProbes(count) => tcp(libc::TCP_KEEPCNT, *count),
        NoDelay => tcp(libc::TCP_NODELAY, 1),
        DeferAcceptSec(seconds) => tcp(libc::TCP_DEFER_ACCEPT, *seconds),
        Priority(priority) => int(SOL_SOCKET, libc::SO_PRIORITY, *priority),
        Mark(mark) => sys::set_option_bytes(fd, SOL_SOCKET, libc::SO_MARK, &mark.to_ne_bytes()),
        ReceiveBuffer(size) => buffer(fd, libc::SO_RCVBUFFORCE, libc::SO_RCVBUF, *size),
        SendBuffer(size) => buffer(fd, libc::SO_SNDBUFFORCE, libc::SO_SNDBUF, *size),
        // Of IPv6 sockets, too: for their IPv4 peers, and the priority follows from it.
        IpTos(tos) => int(IPPROTO_IP, libc::IP_TOS, *tos),
        IpTtl(ttl) => by_family(libc::IP_TTL, libc::IPV6_UNICAST_HOPS, *ttl),
        TcpCongestion(name) => {
            sys::set_option_bytes(fd, IPPROTO_TCP, libc::TCP_CONGESTION, name.as_bytes())
        }
        Broadcast => int(SOL_SOCKET, libc::SO_BROADCAST, 1),
        PassCredentials => int(SOL_SOCKET, libc::SO_PASSCRED, 1),
        PassSecurity => int(SOL_SOCKET, libc::SO_PASSSEC, 1),
        PassPidFd => int(SOL_SOCKET, SO_PASSPIDFD, 1),
        RefuseFileDescriptors => int(SOL_SOCKET, SO_PASSRIGHTS, 0),
        PassPacketInfo if family == AddressFamily::NETLINK => {
            int(libc::SOL_NETLINK, libc::NETLINK_PKTINFO, 1)
        }
        PassPacketInfo => by_family(libc::IP_PKTINFO, libc::IPV6_RECVPKTINFO, 1),
        TimestampingMicroseconds => int(SOL_SOCKET, libc::SO_TIMESTAMP, 1),
        TimestampingNanoseconds => int(SOL_SOCKET, libc::SO_TIMESTAMPNS, 1),
    };
    let _ = outcome;
    Ok(())
}

/// Whether an option means nothing after bind(2).
pub(super) fn is_of_bind(option: &SocketOption) -> bool {
    use SocketOption::*;
    matches!(option, FreeBind | Transparent | ReusePort | BindToDevice(_))
}

/// Sets on an accepted connection what systemd sets there again, and after a reload on a listener:
/// all but what is for bind(2).
pub fn set_again(fd: BorrowedFd, socket: &Socket) {
    let Ok(family) = rustix::net::sockopt::socket_domain(fd) else { return };
    for option in socket.options.iter().filter(|option| !is_of_bind(option)) {
        // Fails for what `set` lets fail only.
        let _ = set(fd, family, option);
    }
}

/// With privilege beyond net.core.[rw]mem_max, else up to it.
fn buffer(fd: BorrowedFd, force: c_int, name: c_int, size: u64) -> Result<(), Errno> {
    let size = c_int::try_from(size).unwrap_or(c_int::MAX);
    sys::set_option(fd, SOL_SOCKET, force, size)
        .or_else(|_| sys::set_option(fd, SOL_SOCKET, name, size))
}

fn clamp(value: u32) -> c_int {
    c_int::try_from(value).unwrap_or(c_int::MAX)
}
