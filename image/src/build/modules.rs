//! Kernel modules that units need: the guest has no modprobe, so what the kernel would ask for is
//! loaded at boot.

use activator::manifest::{Address, ListenKind, Listener, Service, SocketOption, Unit, UnitKind};
use std::collections::BTreeSet;

/// IPPROTO_SCTP
const SCTP: i32 = 132;
/// What `TCPCongestion=` may name that is a module of its own, `tcp_NAME`.
const CONGESTION: [(&str, &str); 6] = [
    ("bbr", "tcp_bbr"),
    ("dctcp", "tcp_dctcp"),
    ("htcp", "tcp_htcp"),
    ("illinois", "tcp_illinois"),
    ("vegas", "tcp_vegas"),
    ("westwood", "tcp_westwood"),
];

/// Their names, sorted.
pub(super) fn of(units: &[Unit]) -> BTreeSet<&'static str> {
    let mut modules = BTreeSet::new();
    for unit in units {
        match &unit.kind {
            UnitKind::Socket(socket) => {
                modules.extend((socket.protocol == SCTP).then_some("sctp"));
                modules.extend(socket.options.iter().filter_map(congestion));
            }
            UnitKind::Service(service) => {
                modules.extend(diagnoses(units, service));
                let container = service.container.as_ref();
                let writes = container.is_some_and(|container| container.writable.is_some());
                modules.extend(writes.then_some("overlay"));
            }
            UnitKind::Target => {}
        }
    }
    modules
}

fn congestion(option: &SocketOption) -> Option<&'static str> {
    let SocketOption::TcpCongestion(name) = option else { return None };
    CONGESTION.iter().find(|(known, _)| known == name).map(|(_, module)| *module)
}

/// What sock_diag(7) takes to count the connections of a service that may be idle.
fn diagnoses<'a>(
    units: &'a [Unit],
    service: &'a Service,
) -> impl Iterator<Item = &'static str> + use<'a> {
    let idle = service.stop_when_idle_us > 0 || service.freeze_when_idle_us > 0;
    let sockets = service.sockets.iter().filter(move |_| idle).filter_map(|id| {
        match &units.get(id.index())?.kind {
            UnitKind::Socket(socket) => Some(socket),
            _ => None,
        }
    });
    sockets.flat_map(|socket| &socket.listeners).filter_map(diagnosis)
}

fn diagnosis(listener: &Listener) -> Option<&'static str> {
    if !matches!(listener.kind, ListenKind::Stream | ListenKind::SequentialPacket) {
        return None;
    }
    match listener.address {
        Address::AnyPort(_) | Address::Inet(..) | Address::Inet6(..) => Some("tcp_diag"),
        Address::Path(_) | Address::Abstract(_) => Some("unix_diag"),
        Address::Vsock(..) => Some("vsock_diag"),
        Address::Netlink(..) | Address::Queue(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use activator::manifest::{Socket, UnitId};

    fn units(service: Service, socket: Socket) -> Vec<Unit> {
        [UnitKind::Service(service), UnitKind::Socket(socket)]
            .map(|kind| Unit { kind, ..Unit::default() })
            .to_vec()
    }

    fn listening(addresses: &[(ListenKind, Address)]) -> Socket {
        let listener = |(kind, address): &(ListenKind, Address)| Listener {
            kind: *kind,
            address: address.clone(),
        };
        Socket { listeners: addresses.iter().map(listener).collect(), ..Socket::default() }
    }

    #[test]
    fn connections_are_counted_where_somebody_asks() {
        let socket = listening(&[
            (ListenKind::Stream, Address::AnyPort(80)),
            (ListenKind::Stream, Address::Vsock(u32::MAX, 80)),
            (ListenKind::Datagram, Address::Path("/run/a".into())),
        ]);
        let service = |idle| Service {
            sockets: vec![UnitId(1)],
            freeze_when_idle_us: idle,
            ..Service::default()
        };
        assert_eq!(of(&units(service(0), socket.clone())), BTreeSet::new());
        let expected = BTreeSet::from(["tcp_diag", "vsock_diag"]);
        assert_eq!(of(&units(service(5), socket)), expected);
    }

    #[test]
    fn sockets_bring_protocols_and_congestion_controls() {
        let options = ["bbr", "cubic"].map(|name| SocketOption::TcpCongestion(name.into()));
        let socket = Socket { protocol: SCTP, options: options.to_vec(), ..Socket::default() };
        let expected = BTreeSet::from(["sctp", "tcp_bbr"]);
        assert_eq!(of(&units(Service::default(), socket)), expected);
    }
}
