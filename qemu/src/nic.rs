//! A network device on QEMU's user networking (libslirp): no privilege, and no address of the
//! host's. The guest is alone in 10.0.2.0/24; 10.0.2.2 is the gateway and the host's loopback,
//! 10.0.2.3 a name server, both QEMU's. IPv6 is off: the guest would prefer its addresses, and most
//! hosts lead them nowhere.

use serde::{Deserialize, Serialize};
use std::net::SocketAddrV4;

/// A network device.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Nic {
    /// To whom the guest may connect.
    pub outgoing: Outgoing,
    /// Ways in.
    pub forwards: Vec<Forward>,
}

/// To whom a guest may connect.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outgoing {
    /// To everybody whom the host can reach, its loopback included.
    #[default]
    Anybody,
    /// To nobody; it answers what is forwarded to it.
    Nobody,
}

/// An address of the host that leads to a port of the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Forward {
    /// What is carried.
    pub protocol: Protocol,
    /// Where QEMU listens.
    pub host: SocketAddrV4,
    /// The guest's port.
    pub port: u16,
}

/// What a [`Forward`] carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[allow(missing_docs)] // their names say it
pub enum Protocol {
    Tcp,
    Udp,
}

impl Nic {
    /// What stands behind `-netdev`; the device's name is `network`.
    pub(crate) fn netdev(&self) -> String {
        let mut word = String::from("user,id=network,ipv6=off");
        if self.outgoing == Outgoing::Nobody {
            word.push_str(",restrict=on");
        }
        for Forward { protocol, host, port } in &self.forwards {
            let protocol = match protocol {
                Protocol::Tcp => "tcp",
                Protocol::Udp => "udp",
            };
            word.push_str(&format!(",hostfwd={protocol}:{}:{}-:{port}", host.ip(), host.port()));
        }
        word
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_word_says_who_gets_in_and_out() {
        assert_eq!(Nic::default().netdev(), "user,id=network,ipv6=off");
        let forward =
            |protocol, host: &str, port| Forward { protocol, host: host.parse().unwrap(), port };
        let nic = Nic {
            outgoing: Outgoing::Nobody,
            forwards: vec![
                forward(Protocol::Tcp, "127.0.0.1:8080", 80),
                forward(Protocol::Udp, "0.0.0.0:53", 5353),
            ],
        };
        assert_eq!(
            nic.netdev(),
            "user,id=network,ipv6=off,restrict=on,\
             hostfwd=tcp:127.0.0.1:8080-:80,hostfwd=udp:0.0.0.0:53-:5353"
        );
    }
}
