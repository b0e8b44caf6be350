//! A socket: family, type, names, options.

use serde_json::{Map, Value, json};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::os::fd::RawFd;

/// Name, level and number of options that are an int.
#[rustfmt::skip]
const OPTIONS: [(&str, i32, i32); 34] = [
    ("SO_ACCEPTCONN", libc::SOL_SOCKET, libc::SO_ACCEPTCONN),
    ("SO_BROADCAST", libc::SOL_SOCKET, libc::SO_BROADCAST),
    ("SO_KEEPALIVE", libc::SOL_SOCKET, libc::SO_KEEPALIVE),
    ("SO_MARK", libc::SOL_SOCKET, libc::SO_MARK),
    ("SO_PASSCRED", libc::SOL_SOCKET, libc::SO_PASSCRED),
    ("SO_PASSSEC", libc::SOL_SOCKET, libc::SO_PASSSEC),
    ("SO_PASSPIDFD", libc::SOL_SOCKET, 76),
    ("SO_PRIORITY", libc::SOL_SOCKET, libc::SO_PRIORITY),
    ("SO_PROTOCOL", libc::SOL_SOCKET, libc::SO_PROTOCOL),
    ("SO_RCVBUF", libc::SOL_SOCKET, libc::SO_RCVBUF),
    ("SO_REUSEADDR", libc::SOL_SOCKET, libc::SO_REUSEADDR),
    ("SO_REUSEPORT", libc::SOL_SOCKET, libc::SO_REUSEPORT),
    ("SO_SNDBUF", libc::SOL_SOCKET, libc::SO_SNDBUF),
    ("SO_TIMESTAMP", libc::SOL_SOCKET, libc::SO_TIMESTAMP),
    ("SO_TIMESTAMPNS", libc::SOL_SOCKET, libc::SO_TIMESTAMPNS),
    ("TCP_DEFER_ACCEPT", libc::IPPROTO_TCP, libc::TCP_DEFER_ACCEPT),
    ("TCP_KEEPCNT", libc::IPPROTO_TCP, libc::TCP_KEEPCNT),
    ("TCP_KEEPIDLE", libc::IPPROTO_TCP, libc::TCP_KEEPIDLE),
    ("TCP_KEEPINTVL", libc::IPPROTO_TCP, libc::TCP_KEEPINTVL),
    ("TCP_NODELAY", libc::IPPROTO_TCP, libc::TCP_NODELAY),
    ("IP_FREEBIND", libc::IPPROTO_IP, libc::IP_FREEBIND),
    ("IP_PKTINFO", libc::IPPROTO_IP, libc::IP_PKTINFO),
    ("IP_TOS", libc::IPPROTO_IP, libc::IP_TOS),
    ("IP_TRANSPARENT", libc::IPPROTO_IP, libc::IP_TRANSPARENT),
    ("IP_TTL", libc::IPPROTO_IP, libc::IP_TTL),
    ("IPV6_FREEBIND", libc::IPPROTO_IPV6, 78),
    ("IPV6_RECVPKTINFO", libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO),
    ("IPV6_TCLASS", libc::IPPROTO_IPV6, libc::IPV6_TCLASS),
    ("IPV6_TRANSPARENT", libc::IPPROTO_IPV6, 75),
    ("IPV6_UNICAST_HOPS", libc::IPPROTO_IPV6, libc::IPV6_UNICAST_HOPS),
    ("IPV6_V6ONLY", libc::IPPROTO_IPV6, libc::IPV6_V6ONLY),
    ("NETLINK_PKTINFO", libc::SOL_NETLINK, 3),
    ("SO_DOMAIN", libc::SOL_SOCKET, libc::SO_DOMAIN),
    ("SO_TYPE", libc::SOL_SOCKET, libc::SO_TYPE),
];

/// Family, type, names, options, and the backlog of one of TCP that listens.
pub(crate) fn about(fd: RawFd) -> Value {
    let domain = integer(fd, libc::SOL_SOCKET, libc::SO_DOMAIN).unwrap_or(-1);
    let mut options = Map::new();
    for (name, level, number) in OPTIONS {
        let of_family = match level {
            libc::IPPROTO_TCP | libc::IPPROTO_IP => {
                [libc::AF_INET, libc::AF_INET6].contains(&domain)
            }
            libc::IPPROTO_IPV6 => domain == libc::AF_INET6,
            libc::SOL_NETLINK => domain == libc::AF_NETLINK,
            _ => true,
        };
        if let Some(value) = integer(fd, level, number).filter(|_| of_family) {
            options.insert(name.into(), value.into());
        }
    }
    for (name, level, number) in [
        ("TCP_CONGESTION", libc::IPPROTO_TCP, libc::TCP_CONGESTION),
        ("SO_BINDTODEVICE", libc::SOL_SOCKET, libc::SO_BINDTODEVICE),
    ] {
        let bytes = option(fd, level, number).unwrap_or_default();
        let text = bytes.split(|byte| *byte == 0).next().unwrap_or_default();
        if !text.is_empty() {
            options.insert(name.into(), String::from_utf8_lossy(text).into());
        }
    }
    // On a listener, tcpi_sacked is the backlog: linux/net/ipv4/tcp.c, tcp_get_info.
    let backlog = (integer(fd, libc::SOL_SOCKET, libc::SO_ACCEPTCONN) == Some(1))
        .then(|| option(fd, libc::IPPROTO_TCP, libc::TCP_INFO))
        .flatten()
        .and_then(|info| Some(u32::from_ne_bytes(info.get(28..32)?.try_into().ok()?)));
    json!({ "name": name(fd, Side::Own), "peer": name(fd, Side::Peer), "options": options, "backlog": backlog })
}

enum Side {
    Own,
    Peer,
}

/// None if it has none, as a listener has no peer.
fn name(fd: RawFd, side: Side) -> Option<String> {
    let mut bytes = [0_u8; 128];
    let mut length = bytes.len() as libc::socklen_t;
    let call = match side {
        Side::Own => libc::getsockname,
        Side::Peer => libc::getpeername,
    };
    // SAFETY: the kernel writes at most `length` bytes.
    let result = unsafe { call(fd, bytes.as_mut_ptr().cast(), &raw mut length) };
    let bytes = bytes.get(..length as usize).filter(|_| result == 0)?;
    let (family, rest) = bytes.split_first_chunk::<2>()?;
    let number = |at: usize| Some(u32::from_ne_bytes(rest.get(at..at + 4)?.try_into().ok()?));
    let port = || Some(u16::from_be_bytes(*rest.first_chunk::<2>()?));
    Some(match i32::from(u16::from_ne_bytes(*family)) {
        libc::AF_INET => {
            let ip: [u8; 4] = rest.get(2..6)?.try_into().ok()?;
            format!("{}:{}", Ipv4Addr::from(ip), port()?)
        }
        libc::AF_INET6 => {
            let ip: [u8; 16] = rest.get(6..22)?.try_into().ok()?;
            format!("[{}]:{} scope {}", Ipv6Addr::from(ip), port()?, number(22)?)
        }
        libc::AF_UNIX => match rest.split_first() {
            None => "unnamed".into(),
            Some((0, name)) => format!("@{}", String::from_utf8_lossy(name)),
            Some(_) => {
                let end = rest.iter().position(|byte| *byte == 0).unwrap_or(rest.len());
                String::from_utf8_lossy(&rest[..end]).into_owned()
            }
        },
        libc::AF_NETLINK => format!("netlink groups {}", number(6)?),
        libc::AF_VSOCK => format!("vsock {}:{}", number(6)?, number(2)?),
        family => format!("family {family}"),
    })
}

fn integer(fd: RawFd, level: i32, number: i32) -> Option<i32> {
    let bytes = option(fd, level, number)?;
    Some(i32::from_ne_bytes(*bytes.first_chunk::<4>()?))
}

fn option(fd: RawFd, level: i32, number: i32) -> Option<Vec<u8>> {
    let mut bytes = vec![0_u8; 256];
    let mut length = bytes.len() as libc::socklen_t;
    let to = bytes.as_mut_ptr().cast();
    // SAFETY: the kernel writes at most `length` bytes, which is how long `bytes` is.
    let result = unsafe { libc::getsockopt(fd, level, number, to, &raw mut length) };
    bytes.truncate(length as usize);
    (result == 0).then_some(bytes)
}
