//! HAProxy's PROXY protocol, versions 1 and 2: who connected, and to where, said to the backend
//! before the client's first byte.
//!
//! It knows IP addresses. Of others (vsock, Unix sockets without a name) the backend is told that
//! there is nothing to know, in the form that every backend takes: `UNKNOWN` in version 1, the
//! command `LOCAL` in version 2. With the command PROXY and the families AF_UNSPEC or AF_UNIX a
//! backend is free to refuse the connection (section 2.2), and Apache's mod_remoteip does.

use super::arguments::Header;
use crate::remote::Remote;
use std::net::IpAddr;

/// Begins each header of version 2.
const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
/// Version 2, command LOCAL, and PROXY.
const LOCAL: u8 = 0x20;
const PROXY: u8 = 0x21;
/// Family and STREAM.
const TCP4: u8 = 0x11;
const TCP6: u8 = 0x21;

/// The header for a connection, if there is to be one.
pub(super) fn header(kind: Header, client: &Remote, local: &Remote) -> Option<Vec<u8>> {
    let end = |remote: &Remote| {
        let address = remote.address.as_ref()?.parse::<IpAddr>().ok()?;
        Some((address, u16::try_from(remote.port?).ok()?))
    };
    let ends = end(client).zip(end(local));
    match kind {
        Header::Nothing => None,
        Header::ProxyV1 => Some(version_1(ends)),
        Header::ProxyV2 => Some(version_2(ends)),
    }
}

type Ends = Option<((IpAddr, u16), (IpAddr, u16))>;

fn version_1(ends: Ends) -> Vec<u8> {
    let text = match ends {
        Some(((from, port), (to, local))) if from.is_ipv4() == to.is_ipv4() => {
            let family = if from.is_ipv4() { "TCP4" } else { "TCP6" };
            format!("PROXY {family} {from} {to} {port} {local}\r\n")
        }
        _ => "PROXY UNKNOWN\r\n".to_owned(),
    };
    text.into_bytes()
}

fn version_2(ends: Ends) -> Vec<u8> {
    let mut header = SIGNATURE.to_vec();
    let ports = match ends {
        Some(((IpAddr::V4(from), port), (IpAddr::V4(to), local))) => {
            header.extend([PROXY, TCP4, 0, 12]);
            header.extend(from.octets());
            header.extend(to.octets());
            [port, local]
        }
        Some(((IpAddr::V6(from), port), (IpAddr::V6(to), local))) => {
            header.extend([PROXY, TCP6, 0, 36]);
            header.extend(from.octets());
            header.extend(to.octets());
            [port, local]
        }
        _ => {
            header.extend([LOCAL, 0, 0, 0]);
            return header;
        }
    };
    ports.into_iter().for_each(|port| header.extend(port.to_be_bytes()));
    header
}

#[cfg(test)]
mod tests {
    use super::*;

    fn remote(address: &str, port: u32) -> Remote {
        Remote { address: Some(address.into()), port: Some(port) }
    }

    #[test]
    fn lines_of_version_1() {
        let line = |a, b| String::from_utf8(header(Header::ProxyV1, &a, &b).unwrap()).unwrap();
        assert_eq!(
            line(remote("1.2.3.4", 5), remote("6.7.8.9", 10)),
            "PROXY TCP4 1.2.3.4 6.7.8.9 5 10\r\n"
        );
        assert_eq!(line(remote("::1", 5), remote("::2", 10)), "PROXY TCP6 ::1 ::2 5 10\r\n");
        let vsock = || remote("vsock:3", 5);
        assert_eq!(line(vsock(), vsock()), "PROXY UNKNOWN\r\n");
        assert_eq!(line(remote("::1", 5), remote("1.2.3.4", 10)), "PROXY UNKNOWN\r\n");
        assert_eq!(header(Header::Nothing, &vsock(), &vsock()), None);
    }

    #[test]
    fn bytes_of_version_2() {
        let bytes = |a, b| {
            let all = header(Header::ProxyV2, &a, &b).unwrap();
            assert_eq!(all[..12], SIGNATURE);
            all[12..].to_vec()
        };
        assert_eq!(
            bytes(remote("1.2.3.4", 258), remote("6.7.8.9", 10)),
            [0x21, 0x11, 0, 12, 1, 2, 3, 4, 6, 7, 8, 9, 1, 2, 0, 10]
        );
        let v6 = bytes(remote("::1", 5), remote("fe80::2", 10));
        assert_eq!(v6[..4], [0x21, 0x21, 0, 36]);
        assert_eq!((v6.len(), v6[19], v6[20], v6[35]), (40, 1, 0xfe, 2));
        assert_eq!(v6[36..], [0, 5, 0, 10]);
        let unnamed = Remote { address: None, port: None };
        assert_eq!(bytes(unnamed, remote("/run/x", 1)), [0x20, 0, 0, 0]);
    }
}
