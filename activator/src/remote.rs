//! Who is at the other end of a connection, as systemd.exec(5) has it in the environment.

use crate::vsock;
use rustix::net::{SocketAddrAny, SocketAddrUnix};
use std::fmt;
use std::net::{IpAddr, SocketAddr};

/// REMOTE_ADDR and REMOTE_PORT.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remote {
    /// An IP address (IPv4 in IPv6 as IPv4), `vsock:CID`, `/path` or `@name`. None if the peer
    /// has no name.
    pub address: Option<String>,
    /// Of IP and vsock.
    pub port: Option<u32>,
}

impl Remote {
    /// What getpeername(2) or accept(2) said.
    pub fn of(address: &SocketAddrAny) -> Self {
        if let Some(vsock::Address { cid, port }) = vsock::Address::of(address) {
            return Self { address: Some(format!("vsock:{cid}")), port: Some(port) };
        }
        if let Ok(inet) = SocketAddr::try_from(address.clone()) {
            let ip = inet.ip().to_canonical();
            return Self { address: Some(ip.to_string()), port: Some(u32::from(inet.port())) };
        }
        let name = SocketAddrUnix::try_from(address.clone()).ok().and_then(|unix| {
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            let path = unix.path().map(|path| text(path.to_bytes())).filter(|it| !it.is_empty());
            let name = unix.abstract_name().filter(|name| !name.is_empty());
            path.or_else(|| name.map(|name| format!("@{}", text(name))))
        });
        Self { address: name, port: None }
    }
}

impl fmt::Display for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.address, self.port) {
            (Some(address), Some(port)) => match address.parse::<IpAddr>() {
                Ok(IpAddr::V6(_)) => write!(f, "[{address}]:{port}"),
                _ => write!(f, "{address}:{port}"),
            },
            (Some(address), None) => f.write_str(address),
            _ => f.write_str("a peer without a name"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::net::addr::SocketAddrArg;

    fn of(address: impl SocketAddrArg) -> (Option<String>, Option<u32>, String) {
        let remote = Remote::of(&address.as_any());
        let shown = remote.to_string();
        (remote.address, remote.port, shown)
    }

    #[test]
    fn every_family() {
        let v4: SocketAddr = "127.0.0.1:80".parse().unwrap();
        assert_eq!(of(v4), (Some("127.0.0.1".into()), Some(80), "127.0.0.1:80".into()));
        let mapped: SocketAddr = "[::ffff:127.0.0.1]:80".parse().unwrap();
        assert_eq!(of(mapped), of(v4));
        let v6: SocketAddr = "[::1]:80".parse().unwrap();
        assert_eq!(of(v6), (Some("::1".into()), Some(80), "[::1]:80".into()));
        let vsock = vsock::Address { cid: 2, port: u32::MAX - 1 };
        let shown = "vsock:2:4294967294";
        assert_eq!(of(vsock), (Some("vsock:2".into()), Some(u32::MAX - 1), shown.into()));
        let path = SocketAddrUnix::new("/run/x").unwrap();
        assert_eq!(of(path), (Some("/run/x".into()), None, "/run/x".into()));
        let name = SocketAddrUnix::new_abstract_name(b"x").unwrap();
        assert_eq!(of(name), (Some("@x".into()), None, "@x".into()));
        let unnamed = SocketAddrUnix::new_unnamed();
        assert_eq!(of(unnamed), (None, None, "a peer without a name".into()));
    }
}
