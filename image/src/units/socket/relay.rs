//! `X-RelayTo=`: for programs that cannot take a socket. Our own key, which systemd skips.
//!
//! The service is started without the sockets; a relay, which `compile` makes as a unit of its
//! own, accepts, and carries to where the program listens by itself: an address of its container's
//! own network, or a Unix socket among its files. `X-RelayProxyProtocol=v1` or `v2` has it say
//! first who the client is, `X-RelayTimeoutSec=` how long the program may take until it answers.

use super::SECTION;
use super::accept::refuse;
use crate::finding::Span;
use crate::units::keys::Keys;
use crate::units::value::{self, Expected, time};
use activator::manifest::{Accept, Address, ListenKind, Listener, Scope};

pub(crate) const TO: &str = "X-RelayTo";
const PROTOCOL: &str = "X-RelayProxyProtocol";
const TIMEOUT: &str = "X-RelayTimeoutSec";
/// As long as a service may take to start, systemd-system.conf(5).
const TIMEOUT_US: u64 = 90_000_000;

/// What a relay is to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Relay {
    /// Where the program listens.
    pub(crate) to: Address,
    /// Where that is said.
    pub(crate) span: Span,
    /// `v1`, `v2`.
    pub(crate) protocol: Option<&'static str>,
    /// How long it may take until the program answers.
    pub(crate) timeout_us: u64,
}

/// None if there is none, or a finding says why there cannot be.
pub(super) fn read(
    keys: &mut Keys<'_>,
    listeners: &[Listener],
    accept: Option<Accept>,
) -> Option<Relay> {
    const PROTOCOLS: &[&str] = &["v1", "v2"];
    let protocol =
        keys.setting(SECTION, PROTOCOL, |text| value::one_of(text, PROTOCOLS, PROTOCOLS));
    let timeout_us = keys.setting(SECTION, TIMEOUT, time::timeout);
    let Some(text) = keys.text(SECTION, TO) else {
        for (key, given) in [(PROTOCOL, protocol.is_some()), (TIMEOUT, timeout_us.is_some())] {
            if given {
                let message = format!("`{key}=` is for relays, and the unit has no `{TO}=`");
                refuse(keys, key, message, "add the address, or take the line out");
            }
        }
        return None;
    };
    let Some(to) = target(&text.text) else {
        let expected = Expected::Other(
            "where the program listens: `127.0.0.1:PORT`, `[::1]:PORT`, `/path` or `@name`",
        );
        keys.bad(text.assignment, &expected);
        return None;
    };
    if accept.is_some() {
        let message = format!("`{TO}=` cannot be said of a socket with `Accept=yes`");
        refuse(keys, TO, message, "take `Accept=yes` out: the relay accepts");
    }
    let carried = |one: &Listener| matches!(one.kind, ListenKind::Stream | ListenKind::Datagram);
    if let Some(other) = listeners.iter().find(|one| !carried(one)) {
        let kind = activator::address::kind_name(other.kind);
        let message = format!("`{TO}=` carries streams and datagrams, and not a {kind}");
        refuse(keys, TO, message, "put it into a socket unit of its own");
    }
    let packets = listeners.iter().any(|one| one.kind == ListenKind::Datagram);
    if packets && protocol.is_some() {
        let message = format!("`{PROTOCOL}=` is for connections, and a datagram has none");
        refuse(keys, PROTOCOL, message, "put the datagrams into a socket unit of their own");
    }
    Some(Relay {
        to,
        span: text.assignment.value.span(),
        protocol,
        timeout_us: timeout_us.unwrap_or(TIMEOUT_US),
    })
}

/// A port alone is one of the loopback's.
fn target(text: &str) -> Option<Address> {
    match text.parse::<Address>().ok()? {
        Address::AnyPort(port) => Some(Address::Inet([127, 0, 0, 1], port)),
        Address::Inet(ip, _) if ip == [0; 4] => None,
        Address::Inet6(ip, _, _) if ip == [0; 16] => None,
        Address::Inet6(_, _, Scope::Index(_) | Scope::Name(_)) => None,
        Address::Vsock(..) | Address::Netlink(..) | Address::Queue(_) => None,
        other => Some(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_programs_listen() {
        let shown = |text| target(text).map(|address| address.to_string());
        assert_eq!(shown("8080"), Some("127.0.0.1:8080".into()));
        for address in ["127.0.0.1:80", "[::1]:80", "10.0.0.1:1", "/run/x.sock", "@name"] {
            assert_eq!(shown(address), Some(address.into()));
        }
        for wrong in ["0.0.0.0:80", "[::]:80", "vsock:3:80", "localhost:80", "http://x", ""] {
            assert_eq!(shown(wrong), None, "{wrong}");
        }
    }
}
