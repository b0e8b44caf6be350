//! No two listeners of an appliance may take one address.

use super::name::Name;
use super::socket::SocketUnit;
use crate::finding::{Finding, Span};
use activator::address::{CID_ANY, kind_name};
use activator::manifest::{Address, ListenKind, Listener, SocketOption};

/// One listener and what decides whether it goes with another.
struct Claim<'a> {
    unit: &'a Name,
    listener: &'a Listener,
    span: &'a Span,
    reuse_port: bool,
    ipv6_only: bool,
}

/// Compares all listeners with each other.
pub(crate) fn check<'a>(
    sockets: impl Iterator<Item = (&'a Name, &'a SocketUnit)>,
    findings: &mut Vec<Finding>,
) {
    let claims: Vec<Claim<'_>> = sockets
        .flat_map(|(unit, socket)| {
            let reuse_port = socket.socket.options.contains(&SocketOption::ReusePort);
            let ipv6_only = socket.socket.ipv6_only == Some(true);
            let listeners = socket.socket.listeners.iter().zip(&socket.spans);
            listeners.map(move |(listener, span)| Claim {
                unit,
                listener,
                span,
                reuse_port,
                ipv6_only,
            })
        })
        .collect();
    for (at, claim) in claims.iter().enumerate() {
        let Some(first) = claims[..at].iter().find(|first| collide(first, claim)) else { continue };
        let (line, _) = first.span.line_column();
        let message = format!(
            "`{}` is taken already by `{}` ({} line {line})",
            claim.listener.address, first.unit, first.span.source.path
        );
        findings.push(
            Finding::error(claim.span.clone(), message)
                .label(match claim.listener.address == first.listener.address {
                    true => "the same address again".into(),
                    false => format!("`{}` covers it", first.listener.address),
                })
                .help("choose another address, or take one of the two lines out"),
        );
    }
}

fn collide(a: &Claim<'_>, b: &Claim<'_>) -> bool {
    let same = a.listener.address == b.listener.address;
    if let (Address::Path(_), Address::Path(_)) = (&a.listener.address, &b.listener.address) {
        return same;
    }
    if kind_name(a.listener.kind) != kind_name(b.listener.kind) {
        return false;
    }
    match (&a.listener.address, &b.listener.address) {
        (Address::Vsock(left, left_port), Address::Vsock(right, right_port)) => {
            left_port == right_port && (left == right || *left == CID_ANY || *right == CID_ANY)
        }
        (Address::Abstract(_), _) | (_, Address::Abstract(_)) => same,
        _ if a.reuse_port && b.reuse_port => false,
        _ if same => true,
        // The kernel lets datagram sockets with SO_REUSEADDR overlap; the exact one gets them.
        _ if a.listener.kind == ListenKind::Datagram => false,
        _ => overlap(a, b) || overlap(b, a),
    }
}

/// Whether the first, bound to all addresses, covers the second.
fn overlap(all: &Claim<'_>, one: &Claim<'_>) -> bool {
    let port = |address: &Address| match address {
        Address::AnyPort(port) | Address::Inet(_, port) | Address::Inet6(_, port, _) => Some(*port),
        _ => None,
    };
    if port(&all.listener.address).is_none()
        || port(&all.listener.address) != port(&one.listener.address)
    {
        return false;
    }
    let one_is_ipv4 = matches!(one.listener.address, Address::Inet(..));
    match &all.listener.address {
        Address::AnyPort(_) => !(one_is_ipv4 && all.ipv6_only),
        Address::Inet6(address, ..) if *address == [0; 16] => !(one_is_ipv4 && all.ipv6_only),
        Address::Inet([0, 0, 0, 0], _) => one_is_ipv4,
        _ => false,
    }
}
