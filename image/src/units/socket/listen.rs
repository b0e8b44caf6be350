//! Listen lines: what to open, and where.

use super::SECTION;
use crate::finding::{Finding, Span};
use crate::units::keys::{Keys, Text};
use crate::units::table;
use crate::units::value::{self, Expected};
use activator::control;
use activator::manifest::{Address, ListenKind, Listener};

/// Longest name of a message queue, mq_overview(7): NAME_MAX.
const LONGEST_QUEUE: usize = 255;

/// The first port that anybody may listen on: net.ipv4.ip_unprivileged_port_start.
const FIRST_OF_USERS: u16 = 1024;

/// All Listen lines in their order; an empty one of any kind clears all.
pub(super) fn read(keys: &mut Keys<'_>) -> (Vec<Listener>, Vec<Span>) {
    let unit = keys.unit;
    let mut found = vec![];
    let mut given = false;
    for line in unit.assignments.iter().filter(|line| line.section == SECTION) {
        let kind = match line.key.as_str() {
            "ListenStream" => ListenKind::Stream,
            "ListenDatagram" => ListenKind::Datagram,
            "ListenSequentialPacket" => ListenKind::SequentialPacket,
            "ListenFIFO" => ListenKind::Fifo,
            "ListenSpecial" => ListenKind::Special,
            "ListenNetlink" => ListenKind::Netlink,
            "ListenMessageQueue" => ListenKind::MessageQueue,
            // A refused kind: no second error about a unit without listeners.
            key => {
                given |= key.starts_with("Listen") && table::find(SECTION, key).is_some();
                continue;
            }
        };
        given = true;
        if line.value.text.is_empty() {
            found.clear();
            given = false;
            continue;
        }
        let Some(text) = keys.expand(line) else { continue };
        let address = match kind {
            ListenKind::Fifo | ListenKind::Special => path(keys, &text),
            ListenKind::Netlink => netlink(keys, &text),
            ListenKind::MessageQueue => queue(keys, &text),
            _ => address(keys, kind, &text),
        };
        found.extend(address.map(|address| (Listener { kind, address }, line.value.span())));
    }
    if !given && !unit.broken {
        keys.findings.push(
            Finding::error(unit.section_span(SECTION), "the socket unit has no Listen line")
                .label("nothing to listen on")
                .help("add a line such as `ListenStream=127.0.0.1:3000`"),
        );
    }
    found.into_iter().unzip()
}

/// Of a socket.
fn address(keys: &mut Keys<'_>, kind: ListenKind, text: &Text<'_>) -> Option<Address> {
    let key = &text.assignment.key;
    let span = text.assignment.value.span();
    let refuse = |message: String, label: &str, help: &str| {
        Some(Finding::error(span.clone(), message).label(label).help(help))
    };
    let parsed = if text.text.starts_with('/') {
        node(keys, text)?.parse::<Address>()
    } else {
        text.text.parse::<Address>()
    };
    let finding = match (&parsed, kind) {
        (Err(expected), _) => refuse(
            format!("`{key}=` has an address that does not parse: `{}`", text.text),
            &expected.to_string(),
            "see ListenStream= in systemd.socket(5) for all forms of addresses",
        ),
        (Ok(Address::Vsock(..)), ListenKind::Datagram) => refuse(
            format!("`{key}=` cannot listen on vsock: virtio has no vsock datagrams"),
            "vsock carries streams only",
            "write `ListenStream=` for a vsock address",
        ),
        (Ok(Address::Path(_) | Address::Abstract(_)), ListenKind::SequentialPacket) => None,
        (Ok(_), ListenKind::SequentialPacket) => refuse(
            format!("`{key}=` is for Unix sockets only"),
            "expected a path or `@name`",
            "write `ListenStream=` for this address",
        ),
        (Ok(address), _) if keys.facts.manager.user().is_some() && is_privileged(address) => {
            refuse(
                format!("`{key}=` of a user takes a port below {FIRST_OF_USERS}"),
                "only root may listen there",
                "choose a higher port, or put the socket unit among the system's",
            )
        }
        (Ok(Address::Vsock(_, control::PORT)), _) => refuse(
            format!("`{key}=` takes the vsock port of rouse's own control protocol"),
            "this port is taken in every appliance",
            "choose another port",
        ),
        _ => None,
    };
    keys.findings.extend(finding.clone());
    if finding.is_some() { None } else { parsed.ok() }
}

/// Whether it takes CAP_NET_BIND_SERVICE to listen there, ip(7), vsock(7).
fn is_privileged(address: &Address) -> bool {
    match address {
        Address::AnyPort(port) | Address::Inet(_, port) | Address::Inet6(_, port, _) => {
            *port < FIRST_OF_USERS
        }
        Address::Vsock(_, port) => *port < u32::from(FIRST_OF_USERS),
        _ => false,
    }
}

/// Of a FIFO or a special file.
fn path(keys: &mut Keys<'_>, text: &Text<'_>) -> Option<Address> {
    node(keys, text).map(Address::Path)
}

/// A path, as systemd moves it from below /var/run.
fn node(keys: &mut Keys<'_>, text: &Text<'_>) -> Option<String> {
    let path = keys.path(text)?;
    Some(match path.strip_prefix("/var/run/") {
        Some(rest) => format!("/run/{rest}"),
        None => path,
    })
}

/// `FAMILY [GROUPS]`, netlink(7): a name or a number, and a mask.
fn netlink(keys: &mut Keys<'_>, text: &Text<'_>) -> Option<Address> {
    const FAMILIES: [(&str, i32); 19] = [
        ("route", 0),
        ("firewall", 3),
        ("inet-diag", 4),
        ("nflog", 5),
        ("xfrm", 6),
        ("selinux", 7),
        ("iscsi", 8),
        ("audit", 9),
        ("fib-lookup", 10),
        ("connector", 11),
        ("netfilter", 12),
        ("ip6-fw", 13),
        ("dnrtmsg", 14),
        ("kobject-uevent", 15),
        ("generic", 16),
        ("scsitransport", 18),
        ("ecryptfs", 19),
        ("rdma", 20),
        ("sock-diag", 4),
    ];
    let (family, group) = text.text.split_once(' ').unwrap_or((&text.text, "0"));
    let named = FAMILIES.iter().find(|(name, _)| *name == family).map(|(_, number)| *number);
    let number = || value::number(family, 0, 31).ok().map(|number| number as i32);
    match (named.or_else(number), value::unsigned(group)) {
        (Some(family), Ok(group)) => Some(Address::Netlink(family, group)),
        _ => {
            let expected = Expected::Other("`FAMILY` or `FAMILY GROUP`, as `kobject-uevent 1`");
            keys.bad(text.assignment, &expected);
            None
        }
    }
}

fn queue(keys: &mut Keys<'_>, text: &Text<'_>) -> Option<Address> {
    let name = text.text.strip_prefix('/').filter(|name| {
        !name.is_empty() && name.len() < LONGEST_QUEUE && !name.contains(['/', '\0'])
    });
    if name.is_none() {
        keys.bad(text.assignment, &Expected::Other("`/name`, without another slash"));
    }
    name.map(|_| Address::Queue(text.text.clone()))
}
