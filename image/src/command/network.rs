//! A guest's network device, as QEMU and the person who runs it see it.

use crate::config::{Network, network};
use activator::manifest::Address;
use rouse_qemu::nic::{self, Nic, Outgoing, Protocol};

/// The device that appliance.toml asks for.
pub(super) fn nic(network: &Network) -> Nic {
    let forward = |forward: network::Forward| nic::Forward {
        protocol: match forward.protocol {
            network::Protocol::Tcp => Protocol::Tcp,
            network::Protocol::Udp => Protocol::Udp,
        },
        host: forward.host,
        port: forward.port,
    };
    Nic {
        outgoing: if network.outgoing { Outgoing::Anybody } else { Outgoing::Nobody },
        forwards: network.forwards().map(forward).collect(),
    }
}

/// How a listener that is no vsock is reached from the host: an indented line or more. `listener`
/// begins with its kind.
pub(super) fn reached(nic: Option<&Nic>, listener: &str, address: &Address) -> String {
    let port = match address {
        Address::AnyPort(port) => Some(*port),
        Address::Inet(address, port) if address[0] != 127 => Some(*port),
        _ => None,
    };
    if !matches!(address, Address::AnyPort(_) | Address::Inet(..) | Address::Inet6(..)) {
        return "    inside the guest only: a name of the guest's own\n".into();
    }
    let Some(nic) = nic else {
        return "    inside the guest only: it has no network device\n".into();
    };
    let (protocol, program) = match listener.starts_with("datagram") {
        true => (Protocol::Udp, "UDP"),
        false => (Protocol::Tcp, "TCP"),
    };
    let leads_here =
        |forward: &&nic::Forward| forward.protocol == protocol && Some(forward.port) == port;
    let ways: String = nic
        .forwards
        .iter()
        .filter(leads_here)
        .map(|forward| format!("    socat -t 30 - {program}:{}\n", forward.host))
        .collect();
    if ways.is_empty() {
        return "    inside the guest only: no `forward` leads to it\n".into();
    }
    ways
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_is_reached_by_what_is_forwarded_to_it() {
        let tcp = |host: &str, port| {
            let host = host.parse().unwrap();
            nic::Forward { protocol: Protocol::Tcp, host, port }
        };
        let nic = Nic { forwards: vec![tcp("127.0.0.1:8080", 80)], ..Nic::default() };
        let stream = |address| reached(Some(&nic), "stream x", &address);
        assert_eq!(stream(Address::AnyPort(80)), "    socat -t 30 - TCP:127.0.0.1:8080\n");
        assert!(stream(Address::AnyPort(81)).contains("no `forward`"));
        assert!(stream(Address::Inet([127, 0, 0, 1], 80)).contains("no `forward`"));
        assert!(reached(Some(&nic), "datagram x", &Address::AnyPort(80)).contains("no `forward`"));
        assert!(reached(None, "stream x", &Address::AnyPort(80)).contains("no network device"));
        let path = Address::Path("/run/x.sock".into());
        assert!(reached(Some(&nic), "stream x", &path).contains("the guest's own"));
    }
}
