//! The text of a listen address: what stands behind `ListenStream=` and its kin.
//!
//! The grammar is that of systemd.socket(5) and of systemd's `socket_address_parse`:
//!
//! | text | becomes |
//! |---|---|
//! | `/path` | [`Address::Path`], at most 107 bytes |
//! | `@name` | [`Address::Abstract`], at most 107 bytes with the `@` |
//! | `PORT` | [`Address::AnyPort`] |
//! | `a.b.c.d:PORT` | [`Address::Inet`] |
//! | `[v6]:PORT`, `[v6]:PORT%SCOPE`, `[v6%SCOPE]:PORT` | [`Address::Inet6`] |
//! | `vsock:CID:PORT` | [`Address::Vsock`]; CID empty, `any`, `-1`, a name or a number |
//!
//! Numbers are C's: `0x1699`, `+5801`, and `016545` is octal. A scope in front of the bracket is
//! ours (systemd takes it only behind the port). A scope's interface is looked up when the socket
//! is opened, not here. [`fmt::Display`] writes the form that parses back to the same value.
//! PID 1 never calls this.

use crate::manifest::{Address, ListenKind, Scope};
use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// Longest path of a Unix socket in bytes: `sun_path` without its NUL, unix(7).
pub const MAX_PATH: usize = 107;
/// VMADDR_CID_ANY, vsock(7).
pub const CID_ANY: u32 = u32::MAX;
/// Longest name of an interface in bytes; alternative names are longer than IFNAMSIZ.
const MAX_INTERFACE: usize = 127;

/// Why a text is no address; the words say what was expected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AddressError {
    /// Nothing there.
    Empty,
    /// Begins or ends with a blank.
    Blank,
    /// Only `/` or `@`.
    NoName,
    /// Longer than [`MAX_PATH`]; its length in bytes.
    TooLong(usize),
    /// A NUL byte inside.
    Nul,
    /// No port where one must be.
    NoPort,
    /// The port is not a number.
    Port,
    /// The port is 0, or above 65535.
    PortRange,
    /// `localhost:80`, `*:80`: names are not looked up.
    HostName,
    /// IPv6 without brackets.
    Bare6,
    /// What stands between the brackets is no IPv6 address, or one bracket lacks.
    Inet6,
    /// A scope is empty, too long, or 0.
    Scope,
    /// Scopes in both places.
    TwoScopes,
    /// The CID is neither a number nor a known name.
    Cid,
    /// The vsock port is not a number up to 4294967294.
    VsockPort,
}

impl fmt::Display for AddressError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Empty => {
                "expected a path, `@name`, a port, `IPv4:port`, `[IPv6]:port` or `vsock:CID:port`"
            }
            Self::Blank => "expected no blanks before or behind the address",
            Self::NoName => "expected a name behind `/` or `@`",
            Self::TooLong(length) => {
                return write!(f, "expected at most {MAX_PATH} bytes of socket path, not {length}");
            }
            Self::Nul => "expected no NUL byte in the address",
            Self::NoPort => "expected `:port` behind the address",
            Self::Port => "expected the port as a number",
            Self::PortRange => "expected a port from 1 to 65535",
            Self::HostName => {
                "expected an IP address before the port: names are not looked up \
                 (a port alone means all addresses)"
            }
            Self::Bare6 => "expected an IPv6 address in brackets, `[::1]:port`",
            Self::Inet6 => "expected `[IPv6]:port`",
            Self::Scope => "expected an interface's name or index behind `%`",
            Self::TwoScopes => "expected one `%scope`, not two",
            Self::Cid => {
                "expected a CID: a number, nothing or `any`, `hypervisor`, `local` or `host`"
            }
            Self::VsockPort => "expected a vsock port from 0 to 4294967294",
        })
    }
}

impl std::error::Error for AddressError {}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        if text.is_empty() {
            return Err(AddressError::Empty);
        }
        if text.contains('\0') {
            return Err(AddressError::Nul);
        }
        if text.starts_with('/') {
            return unix_name(text, text).map(Self::Path);
        }
        if let Some(name) = text.strip_prefix('@') {
            return unix_name(text, name).map(Self::Abstract);
        }
        // Only here: a path may well end in a blank.
        if text.trim() != text {
            return Err(AddressError::Blank);
        }
        for prefix in ["vsock:", "vsock-stream:", "vsock-dgram:", "vsock-seqpacket:"] {
            if let Some(rest) = text.strip_prefix(prefix) {
                return vsock(rest);
            }
        }
        if let Some(rest) = text.strip_prefix('[') {
            return inet6(rest);
        }
        match text.rsplit_once(':') {
            Some((host, port)) => inet(text, host, port),
            None if text.parse::<Ipv4Addr>().is_ok() => Err(AddressError::NoPort),
            None => port(text).map(Self::AnyPort),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path(path) => f.write_str(path),
            Self::Abstract(name) => write!(f, "@{name}"),
            Self::AnyPort(port) => write!(f, "{port}"),
            Self::Inet(address, port) => write!(f, "{}:{port}", Ipv4Addr::from(*address)),
            Self::Inet6(address, port, scope) => {
                write!(f, "[{}]:{port}", Ipv6Addr::from(*address))?;
                match scope {
                    Scope::None => Ok(()),
                    Scope::Index(index) => write!(f, "%{index}"),
                    Scope::Name(name) => write!(f, "%{name}"),
                }
            }
            Self::Vsock(cid, port) => write!(f, "vsock:{cid}:{port}"),
            Self::Netlink(family, groups) => write!(f, "{family} {groups}"),
            Self::Queue(name) => f.write_str(name),
        }
    }
}

/// The word that stands before an address where its kind matters: `stream 127.0.0.1:3000`.
pub fn kind_name(kind: ListenKind) -> &'static str {
    match kind {
        ListenKind::Stream => "stream",
        ListenKind::Datagram => "datagram",
        ListenKind::SequentialPacket => "seqpacket",
        ListenKind::Fifo => "fifo",
        ListenKind::Special => "special",
        ListenKind::Netlink => "netlink",
        ListenKind::MessageQueue => "queue",
    }
}

fn unix_name(whole: &str, name: &str) -> Result<String, AddressError> {
    if whole.len() < 2 {
        Err(AddressError::NoName)
    } else if whole.len() > MAX_PATH {
        Err(AddressError::TooLong(whole.len()))
    } else {
        Ok(name.to_owned())
    }
}

fn vsock(rest: &str) -> Result<Address, AddressError> {
    let (cid, port) = rest.rsplit_once(':').ok_or(AddressError::NoPort)?;
    let cid = match cid {
        "" | "any" | "-1" => CID_ANY,
        "hypervisor" => 0,
        "local" => 1,
        "host" => 2,
        number => c_number(number).map_err(|_| AddressError::Cid)?,
    };
    match c_number(port) {
        // VMADDR_PORT_ANY lets the kernel choose, which nobody could then find.
        Ok(u32::MAX) | Err(_) => Err(AddressError::VsockPort),
        Ok(port) => Ok(Address::Vsock(cid, port)),
    }
}

fn inet6(rest: &str) -> Result<Address, AddressError> {
    let (host, behind) = rest.split_once(']').ok_or(AddressError::Inet6)?;
    let (host, inner) = match host.split_once('%') {
        Some((host, scope)) => (host, Some(scope)),
        None => (host, None),
    };
    let address = host.parse::<Ipv6Addr>().map_err(|_| AddressError::Inet6)?;
    let behind = match behind.strip_prefix(':') {
        Some(behind) => behind,
        None if behind.is_empty() => return Err(AddressError::NoPort),
        None => return Err(AddressError::Inet6),
    };
    let (number, outer) = match behind.split_once('%') {
        Some((number, scope)) => (number, Some(scope)),
        None => (behind, None),
    };
    let scope = match (inner, outer) {
        (Some(_), Some(_)) => return Err(AddressError::TwoScopes),
        (Some(text), None) | (None, Some(text)) => scope(text)?,
        (None, None) => Scope::None,
    };
    Ok(Address::Inet6(address.octets(), port(number)?, scope))
}

fn inet(whole: &str, host: &str, number: &str) -> Result<Address, AddressError> {
    match host.parse::<Ipv4Addr>() {
        Ok(address) => Ok(Address::Inet(address.octets(), port(number)?)),
        Err(_) if host.contains(':') || whole.parse::<Ipv6Addr>().is_ok() => {
            Err(AddressError::Bare6)
        }
        Err(_) => Err(AddressError::HostName),
    }
}

fn port(text: &str) -> Result<u16, AddressError> {
    match c_number(text) {
        Ok(number) => match u16::try_from(number) {
            Ok(0) | Err(_) => Err(AddressError::PortRange),
            Ok(port) => Ok(port),
        },
        Err(NumberError::Range) => Err(AddressError::PortRange),
        Err(NumberError::NotANumber) if text.is_empty() => Err(AddressError::NoPort),
        Err(NumberError::NotANumber) => Err(AddressError::Port),
    }
}

fn scope(text: &str) -> Result<Scope, AddressError> {
    let fits = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'/' | b'%' | b':');
    if text.is_empty() || text.len() > MAX_INTERFACE || !text.bytes().all(fits) {
        return Err(AddressError::Scope);
    }
    if !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Ok(Scope::Name(text.to_owned()));
    }
    match text.parse() {
        Ok(0) | Err(_) => Err(AddressError::Scope),
        Ok(index) => Ok(Scope::Index(index)),
    }
}

enum NumberError {
    NotANumber,
    Range,
}

/// strtoul(3) with base 0 and systemd's `0b` and `0o`; a minus is refused.
fn c_number(text: &str) -> Result<u32, NumberError> {
    let digits = text.strip_prefix('+').unwrap_or(text);
    let (digits, radix) = match digits.as_bytes() {
        [b'0', b'x' | b'X', ..] => (&digits[2..], 16),
        [b'0', b'o', ..] => (&digits[2..], 8),
        [b'0', b'b', ..] => (&digits[2..], 2),
        [b'0', _, ..] => (&digits[1..], 8),
        _ => (digits, 10),
    };
    if digits.is_empty() || !digits.chars().all(|digit| digit.is_digit(radix)) {
        return Err(NumberError::NotANumber);
    }
    u32::from_str_radix(digits, radix).map_err(|_| NumberError::Range)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Address, AddressError> {
        text.parse()
    }

    fn v6(text: &str, port: u16, scope: Scope) -> Result<Address, AddressError> {
        Ok(Address::Inet6(text.parse::<Ipv6Addr>().unwrap().octets(), port, scope))
    }

    #[test]
    fn unix_names() {
        assert_eq!(parse("/run/a b"), Ok(Address::Path("/run/a b".into())));
        assert_eq!(parse("@name"), Ok(Address::Abstract("name".into())));
        assert_eq!(parse("/"), Err(AddressError::NoName));
        assert_eq!(parse("@"), Err(AddressError::NoName));
        let longest = format!("/{}", "x".repeat(106));
        assert_eq!(parse(&longest), Ok(Address::Path(longest.clone())));
        assert_eq!(parse(&format!("{longest}x")), Err(AddressError::TooLong(108)));
        let name = "y".repeat(106);
        assert_eq!(parse(&format!("@{name}")), Ok(Address::Abstract(name.clone())));
        assert_eq!(parse(&format!("@{name}y")), Err(AddressError::TooLong(108)));
        assert_eq!(parse("@a\0b"), Err(AddressError::Nul));
    }

    #[test]
    fn ports_are_c_numbers() {
        assert_eq!(parse("3000"), Ok(Address::AnyPort(3000)));
        assert_eq!(parse("0x1699"), Ok(Address::AnyPort(0x1699)));
        assert_eq!(parse("+5801"), Ok(Address::AnyPort(5801)));
        assert_eq!(parse("016545"), Ok(Address::AnyPort(7525)));
        assert_eq!(parse("0o17"), Ok(Address::AnyPort(15)));
        assert_eq!(parse("0b101"), Ok(Address::AnyPort(5)));
        assert_eq!(parse("05801"), Err(AddressError::Port));
        assert_eq!(parse("0x"), Err(AddressError::Port));
        assert_eq!(parse("-1"), Err(AddressError::Port));
        assert_eq!(parse("0"), Err(AddressError::PortRange));
        assert_eq!(parse("65536"), Err(AddressError::PortRange));
        assert_eq!(parse("99999999999999999999"), Err(AddressError::PortRange));
    }

    #[test]
    fn inet() {
        assert_eq!(parse("127.0.0.1:3000"), Ok(Address::Inet([127, 0, 0, 1], 3000)));
        assert_eq!(parse("127.0.0.1:0"), Err(AddressError::PortRange));
        assert_eq!(parse("127.0.0.1"), Err(AddressError::NoPort));
        assert_eq!(parse("127.0.0.1:"), Err(AddressError::NoPort));
        assert_eq!(parse("localhost:80"), Err(AddressError::HostName));
        assert_eq!(parse("*:80"), Err(AddressError::HostName));
        assert_eq!(parse(" 80"), Err(AddressError::Blank));
        assert_eq!(parse("80\t"), Err(AddressError::Blank));
        assert_eq!(parse(""), Err(AddressError::Empty));
    }

    #[test]
    fn inet6() {
        assert_eq!(parse("[::1]:3000"), v6("::1", 3000, Scope::None));
        assert_eq!(parse("[fe80::1]:80%eth0"), v6("fe80::1", 80, Scope::Name("eth0".into())));
        assert_eq!(parse("[fe80::1%eth0]:80"), v6("fe80::1", 80, Scope::Name("eth0".into())));
        assert_eq!(parse("[fe80::1]:80%2"), v6("fe80::1", 80, Scope::Index(2)));
        assert_eq!(parse("[fe80::1%a]:80%b"), Err(AddressError::TwoScopes));
        assert_eq!(parse("[fe80::1]:80%0"), Err(AddressError::Scope));
        assert_eq!(parse("[fe80::1]:80%"), Err(AddressError::Scope));
        assert_eq!(parse("[fe80::1]%eth0:80"), Err(AddressError::Inet6));
        assert_eq!(parse("[::1]"), Err(AddressError::NoPort));
        assert_eq!(parse("[::1"), Err(AddressError::Inet6));
        assert_eq!(parse("[127.0.0.1]:80"), Err(AddressError::Inet6));
        assert_eq!(parse("::1:80"), Err(AddressError::Bare6));
        assert_eq!(parse("::1"), Err(AddressError::Bare6));
    }

    #[test]
    fn vsock() {
        assert_eq!(parse("vsock:4294967295:3000"), Ok(Address::Vsock(CID_ANY, 3000)));
        assert_eq!(parse("vsock::3000"), Ok(Address::Vsock(CID_ANY, 3000)));
        assert_eq!(parse("vsock:any:3000"), Ok(Address::Vsock(CID_ANY, 3000)));
        assert_eq!(parse("vsock:-1:3000"), Ok(Address::Vsock(CID_ANY, 3000)));
        assert_eq!(parse("vsock:hypervisor:1"), Ok(Address::Vsock(0, 1)));
        assert_eq!(parse("vsock:local:1"), Ok(Address::Vsock(1, 1)));
        assert_eq!(parse("vsock:host:0"), Ok(Address::Vsock(2, 0)));
        assert_eq!(parse("vsock-stream:3:0xff"), Ok(Address::Vsock(3, 255)));
        assert_eq!(parse("vsock:3:4294967294"), Ok(Address::Vsock(3, u32::MAX - 1)));
        assert_eq!(parse("vsock:3:4294967295"), Err(AddressError::VsockPort));
        assert_eq!(parse("vsock:3:"), Err(AddressError::VsockPort));
        assert_eq!(parse("vsock:guest:1"), Err(AddressError::Cid));
        assert_eq!(parse("vsock:1"), Err(AddressError::NoPort));
    }

    #[test]
    fn what_is_written_parses_back() {
        for text in [
            "/run/x",
            "@x",
            "3000",
            "0.0.0.0:1",
            "[::]:65535",
            "[fe80::1]:80%eth0",
            "[fe80::1]:80%7",
            "vsock:4294967295:3000",
        ] {
            assert_eq!(parse(text).unwrap().to_string(), text);
        }
    }
}
