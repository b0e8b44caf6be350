//! Who is at the two ends of a connection that `Accept=yes` took, and how the instance that gets
//! it is named.
//!
//! | family | instance, systemd.socket(5) | source that `MaxConnectionsPerSource=` counts by |
//! |---|---|---|
//! | IPv4, IPv6 | `N-LOCAL:PORT-REMOTE:PORT` | remote address |
//! | vsock | `N-CID:PORT-CID:PORT` | remote CID |
//! | Unix | `N-PID-UID`, `N-unknown` from a foreign PID namespace | remote uid |
//!
//! N counts the connections of the socket unit from 0. (Since v258 systemd puts the socket's
//! cookie behind it.) An IPv4 address that is mapped into IPv6 is written, and counted, as IPv4.

use crate::wire;
use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};

/// The two ends, ours first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Peer {
    /// IPv4 addresses and ports.
    Inet([([u8; 4], u16); 2]),
    /// IPv6 addresses and ports; none is mapped.
    Inet6([([u8; 16], u16); 2]),
    /// vsock context ids and ports.
    Vsock([(u32, u32); 2]),
    /// A Unix socket: process and user of the other end. Pid 0 is in a PID namespace that is
    /// none of ours.
    Unix {
        /// As SO_PEERCRED says.
        pid: u32,
        /// The same.
        uid: u32,
    },
    /// Any other family.
    Other,
}

/// What `MaxConnectionsPerSource=` counts by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// An IPv4 address.
    Inet([u8; 4]),
    /// An IPv6 address.
    Inet6([u8; 16]),
    /// A vsock context id.
    Cid(u32),
    /// A user id.
    Uid(u32),
}

impl Peer {
    /// IPv6 ends, or IPv4 ones if both are mapped.
    pub fn inet6(ends: [([u8; 16], u16); 2]) -> Self {
        let mapped = ends.map(|(address, _)| Ipv6Addr::from(address).to_ipv4_mapped());
        match mapped {
            [Some(local), Some(remote)] => {
                Self::Inet([(local.octets(), ends[0].1), (remote.octets(), ends[1].1)])
            }
            _ => Self::Inet6(ends),
        }
    }

    /// Who connected, for a limit on each; None if that cannot be said.
    pub fn source(&self) -> Option<Source> {
        match *self {
            Self::Inet([_, (address, _)]) => Some(Source::Inet(address)),
            Self::Inet6([_, (address, _)]) => Some(Source::Inet6(address)),
            Self::Vsock([_, (cid, _)]) => Some(Source::Cid(cid)),
            Self::Unix { uid, .. } => Some(Source::Uid(uid)),
            Self::Other => None,
        }
    }

    /// The instance's name, `%i`.
    pub fn instance(&self, number: u64) -> Instance<'_> {
        Instance { number, peer: self }
    }
}

/// The other end, for people.
impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Inet([_, (address, port)]) => write!(f, "{}:{port}", Ipv4Addr::from(address)),
            Self::Inet6([_, (address, port)]) => write!(f, "[{}]:{port}", Ipv6Addr::from(address)),
            Self::Vsock([_, (cid, port)]) => write!(f, "vsock:{cid}:{port}"),
            Self::Unix { pid, uid } => write!(f, "process {pid} of user {uid}"),
            Self::Other => f.write_str("unknown"),
        }
    }
}

/// An instance's name to be written; nothing is allocated for that.
#[derive(Debug, Clone, Copy)]
pub struct Instance<'a> {
    number: u64,
    peer: &'a Peer,
}

impl Instance<'_> {
    /// Longest name in bytes: a number, two IPv6 addresses and ports.
    pub const MAX: usize = 20 + 2 * (1 + 39 + 6);
}

impl fmt::Display for Instance<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = self.number;
        match *self.peer {
            Peer::Inet([(local, at), (remote, from)]) => {
                let (local, remote) = (Ipv4Addr::from(local), Ipv4Addr::from(remote));
                write!(f, "{number}-{local}:{at}-{remote}:{from}")
            }
            Peer::Inet6([(local, at), (remote, from)]) => {
                let (local, remote) = (Ipv6Addr::from(local), Ipv6Addr::from(remote));
                write!(f, "{number}-{local}:{at}-{remote}:{from}")
            }
            Peer::Vsock([(local, at), (remote, from)]) => {
                write!(f, "{number}-{local}:{at}-{remote}:{from}")
            }
            Peer::Unix { pid: 0, .. } => write!(f, "{number}-unknown"),
            Peer::Unix { pid, uid } => write!(f, "{number}-{pid}-{uid}"),
            Peer::Other => write!(f, "{number}"),
        }
    }
}

/// The full name of an instance of a template: `foo@.service` becomes `foo@INSTANCE.service`.
pub fn instance_unit(template: &str, instance: Instance<'_>) -> String {
    match template.split_once("@.") {
        Some((prefix, suffix)) => format!("{prefix}@{instance}.{suffix}"),
        None => format!("{template} {instance}"),
    }
}

wire! {
    enum Peer { Inet(ends), Inet6(ends), Vsock(ends), Unix { pid, uid }, Other }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_systemd() {
        let v4 = Peer::Inet([([127, 0, 0, 1], 3000), ([127, 0, 0, 1], 4555)]);
        let name = instance_unit("foo@.service", v4.instance(0));
        assert_eq!(name, "foo@0-127.0.0.1:3000-127.0.0.1:4555.service");
        let one = Ipv6Addr::LOCALHOST.octets();
        let v6 = Peer::inet6([(one, 22), (one, 5000)]);
        assert_eq!(v6.instance(7).to_string(), "7-::1:22-::1:5000");
        let mapped = |ip: [u8; 4]| Ipv4Addr::from(ip).to_ipv6_mapped().octets();
        let mapped = Peer::inet6([(mapped([127, 0, 0, 1]), 3000), (mapped([127, 0, 0, 1]), 4555)]);
        assert_eq!(mapped, v4);
        let vsock = Peer::Vsock([(3, 22), (2, 1023)]);
        assert_eq!(vsock.instance(1).to_string(), "1-3:22-2:1023");
        assert_eq!(Peer::Unix { pid: 12, uid: 1000 }.instance(2).to_string(), "2-12-1000");
        assert_eq!(Peer::Unix { pid: 0, uid: 0 }.instance(3).to_string(), "3-unknown");
    }

    #[test]
    fn no_name_is_longer_than_the_room_for_it() {
        let longest = Peer::Inet6([([0xab; 16], u16::MAX); 2]);
        assert!(longest.instance(u64::MAX).to_string().len() <= Instance::MAX);
        let longest = Peer::Vsock([(u32::MAX, u32::MAX); 2]);
        assert!(longest.instance(u64::MAX).to_string().len() <= Instance::MAX);
    }

    #[test]
    fn sources_leave_the_port_out() {
        let from = |port| Peer::Inet([([10, 0, 0, 1], 1), ([10, 0, 0, 2], port)]).source();
        assert_eq!(from(1), from(2));
        assert_eq!(Peer::Unix { pid: 3, uid: 5 }.source(), Some(Source::Uid(5)));
        assert_eq!(Peer::Other.source(), None);
    }
}
