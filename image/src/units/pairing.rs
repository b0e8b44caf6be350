//! What a service asks of its sockets, checked when both are known.

use super::idle;
use super::podman_api::{self, Places};
use super::service::ServiceUnit;
use super::socket::SocketUnit;
use crate::finding::{Finding, Span};
use activator::manifest::ListenKind;

/// Checks a service against all socket units that start it. `places` are those of Podman's API.
pub(crate) fn check(
    unit: &ServiceUnit,
    sockets: &[&SocketUnit],
    places: &Places,
    findings: &mut Vec<Finding>,
) {
    if let Some(span) = &unit.standard_socket {
        standard_socket(span, sockets, findings);
    }
    for (name, span) in &unit.standard_names {
        standard_name(name, span, sockets, findings);
    }
    if let Some(span) = &unit.idle {
        findings.extend(idle_finding(span, sockets, !unit.relays.is_empty()));
    }
    if sockets.iter().any(|unit| unit.socket.accept.is_some()) {
        let store = "each instance ends with its connection, and no other gets its fds";
        let restart = "each instance ends with its connection, and is not started again";
        findings.extend(no_effect("FileDescriptorStoreMax", &unit.store, store));
        findings.extend(no_effect("Restart", &unit.restart, restart));
    }
    if let Some(span) = &unit.container
        && sockets.iter().any(|unit| unit.socket.accept.is_some())
    {
        let message = "a container of engine crun is not for a socket with `Accept=yes`";
        findings.push(
            Finding::error(span.clone(), message)
                .label("each connection would start it once more, by the same name")
                .help(
                    "write `Accept=no` for a program that takes LISTEN_FDS, or `X-RelayTo=` for \
                     one that cannot, and take the `@` out of the name",
                ),
        );
    }
    podman_api::check(unit, sockets, places, findings);
}

/// A key that says nothing to an instance.
fn no_effect(key: &str, span: &Option<Span>, why: &str) -> Option<Finding> {
    let message = format!("`{key}=` has no effect on a service of a socket with `Accept=yes`");
    let finding = Finding::warning(span.clone()?, message);
    Some(finding.label(why).help("take the line out"))
}

/// A standard stream can be one socket only: with Accept=yes, the connection.
fn standard_socket(span: &Span, sockets: &[&SocketUnit], findings: &mut Vec<Finding>) {
    if sockets.iter().any(|unit| unit.socket.accept.is_some()) {
        return;
    }
    let listeners: usize = sockets.iter().map(|unit| unit.socket.listeners.len()).sum();
    if listeners != 1 {
        let message =
            format!("the service has {listeners} sockets, and a standard stream takes exactly one");
        findings.push(
            Finding::error(span.clone(), message)
                .label("which socket is meant?")
                .help("give each socket a service of its own, or let the program use LISTEN_FDS"),
        );
    }
}

fn standard_name(name: &str, span: &Span, sockets: &[&SocketUnit], findings: &mut Vec<Finding>) {
    if sockets.iter().any(|unit| unit.socket.fd_name == name) {
        return;
    }
    let names: Vec<&str> = sockets.iter().map(|unit| unit.socket.fd_name.as_str()).collect();
    let help = match names.as_slice() {
        [] => format!("add a socket unit with `FileDescriptorName={name}`"),
        names => format!("its sockets are named {}", names.join(", ")),
    };
    findings.push(
        Finding::error(span.clone(), format!("no socket of the service is named `{name}`"))
            .label("no such `FileDescriptorName=`")
            .help(help),
    );
}

/// Idleness is counted in connections of listening sockets.
fn idle_finding(span: &Span, sockets: &[&SocketUnit], relayed: bool) -> Option<Finding> {
    let refuse = |message: String, label: &str, help: &str| {
        Some(Finding::error(span.clone(), message).label(label).help(help))
    };
    let keys = format!("`{}=` and `{}=`", idle::STOP, idle::FREEZE);
    if relayed {
        // A relay counts its connections, and flows of datagrams.
        return None;
    }
    if sockets.is_empty() {
        return refuse(
            format!("{keys} are for services that a socket starts"),
            "nothing could start it again",
            "add a socket unit, or take the line out",
        );
    }
    if sockets.iter().any(|unit| unit.socket.accept.is_some()) {
        return refuse(
            format!("{keys} are not for services of a socket with `Accept=yes`"),
            "each instance ends with its connection",
            "take the line out",
        );
    }
    // IPPROTO_SCTP, whose connections sock_diag(7) of TCP does not list.
    if sockets.iter().any(|unit| unit.socket.protocol == 132) {
        return refuse(
            format!("{keys} are not for sockets with `SocketProtocol=sctp`"),
            "whether one of its connections is open is not asked for",
            "take the line out, or use TCP",
        );
    }
    let kinds = || sockets.iter().flat_map(|unit| &unit.socket.listeners).map(|one| one.kind);
    let connected = |kind| matches!(kind, ListenKind::Stream | ListenKind::SequentialPacket);
    if kinds().any(connected) {
        return None;
    }
    refuse(
        format!("{keys} need a socket with connections, and the service has none"),
        "datagrams leave no trace by which to tell that the service is idle",
        "let the program end by itself when nothing has come for a while",
    )
}
