//! `[network]`: a network device, which no guest has unless this table is there.
//!
//! It is QEMU's user networking: the guest is alone in 10.0.2.0/24 with a gateway (10.0.2.2, which
//! is also the host's loopback) and a name server (10.0.2.3), and reaches out by connections that
//! QEMU makes. Nobody reaches in but by `forward`.

use super::{Part, place};
use crate::finding::{Finding, Source};
use activator::interface::LEASE;
use activator::manifest::{FixedAddress, Interface};
use serde::Deserialize;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::Arc;

/// The interface of the one network device; there is no udev to give it another name.
pub const INTERFACE: &str = "eth0";
/// The DHCP client: the smallest that Debian has, since its one program needs no library but libc.
/// dhcpcd-base would bring libudev and adduser, isc-dhcp-client has no maintainer any more.
pub const CLIENT_PACKAGE: &str = "busybox";
/// Its program.
pub const CLIENT: &str = "/usr/bin/busybox";
/// The unit that runs it.
const CLIENT_UNIT: &str = "rouse-dhcp.service";
/// Where the activator lies by the name under which it is the client's script.
const SCRIPT_FOLDER: &str = "/usr/lib/rouse";
/// What `address` says for an address that a server gives.
const DHCP: &str = "dhcp";

/// A network device.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Network {
    /// `dhcp`, or an IPv4 address with the length of its network's prefix, `10.0.2.15/24`.
    pub address: String,
    /// Where the default route leads. With `dhcp` the server says it.
    pub gateway: Option<Ipv4Addr>,
    /// Name servers. With `dhcp` the server names them.
    pub dns: Vec<Ipv4Addr>,
    /// Whether the guest may connect to anybody; what `forward` lets in is answered either way.
    pub outgoing: bool,
    /// Addresses of the host that lead to a port of the guest: `127.0.0.1:8080=80`, TCP;
    /// `udp:127.0.0.1:5353=53`.
    pub forward: Vec<String>,
}

impl Default for Network {
    fn default() -> Self {
        Self {
            address: DHCP.into(),
            gateway: None,
            dns: Vec::new(),
            outgoing: true,
            forward: Vec::new(),
        }
    }
}

/// One entry of `forward`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Forward {
    /// What is carried.
    pub protocol: Protocol,
    /// Where the host listens.
    pub host: SocketAddrV4,
    /// The guest's port, 1 to 65535.
    pub port: u16,
}

/// What a [`Forward`] carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)] // their names say it
pub enum Protocol {
    Tcp,
    Udp,
}

impl Network {
    /// Whether a DHCP client asks for the address.
    pub fn is_dynamic(&self) -> bool {
        self.address == DHCP
    }

    /// What PID 1 sets up.
    pub fn interface(&self) -> Interface {
        Interface { name: INTERFACE.into(), fixed: self.fixed() }
    }

    fn fixed(&self) -> Option<FixedAddress> {
        let (address, prefix) = self.address.split_once('/')?;
        let address: Ipv4Addr = address.parse().ok()?;
        let prefix = prefix.parse().ok().filter(|prefix| (1..=32).contains(prefix))?;
        let gateway = self.gateway.map(|gateway| gateway.octets());
        Some(FixedAddress { address: address.octets(), prefix, gateway })
    }

    /// The text of /etc/resolv.conf; None where the DHCP client writes it.
    pub fn resolv_conf(&self) -> Option<String> {
        let lines = self.dns.iter().map(|server| format!("nameserver {server}\n"));
        (!self.is_dynamic()).then(|| lines.collect())
    }

    /// Entries of `forward`.
    pub fn forwards(&self) -> impl Iterator<Item = Forward> {
        self.forward.iter().filter_map(|text| forward(text))
    }

    /// Kernel modules that it takes. What is built into the kernel is left out later.
    pub fn modules(&self) -> &'static [&'static str] {
        if self.is_dynamic() { &["virtio_net", "af_packet"] } else { &["virtio_net"] }
    }

    /// The path of the activator as the DHCP client's script.
    pub fn script() -> String {
        format!("{SCRIPT_FOLDER}/{LEASE}")
    }

    /// Units that come with it, by name, as if they lay in the appliance's folder: the DHCP client,
    /// and the target that waits for its first address. With a fixed address that target is met
    /// before any unit starts.
    pub fn units(&self) -> Vec<(&'static str, String)> {
        if !self.is_dynamic() {
            return Vec::new();
        }
        let script = Self::script();
        let client = format!(
            "[Unit]\nDescription=DHCP client\n\n\
             [Service]\nType=notify\nNotifyAccess=all\n\
             ExecStart={CLIENT} udhcpc -f -t 3 -T 1 -A 1 -i {INTERFACE} -s {script}\n\
             Restart=always\nRestartSec=1s\n\n\
             [Install]\nWantedBy=multi-user.target\n"
        );
        let target = format!(
            "[Unit]\nDescription=Network is Online\nWants={CLIENT_UNIT}\nAfter={CLIENT_UNIT}\n\n\
             [Install]\nWantedBy=multi-user.target\n"
        );
        vec![(CLIENT_UNIT, client), ("network-online.target", target)]
    }

    pub(super) fn check(&self, source: &Arc<Source>) -> Result<(), Finding> {
        let wrong = |key: &[&str], message: String| {
            let path: Vec<&str> = std::iter::once("network").chain(key.iter().copied()).collect();
            Finding::error(place(source, &path, Part::Value), message)
        };
        if !self.is_dynamic() && self.fixed().is_none() {
            return Err(wrong(&["address"], format!("`{}` is no address", self.address))
                .label("expected `dhcp` or an IPv4 address as `10.0.2.15/24`")
                .help("QEMU's network is 10.0.2.0/24, its gateway 10.0.2.2"));
        }
        if self.is_dynamic() && (self.gateway.is_some() || !self.dns.is_empty()) {
            let key = if self.gateway.is_some() { "gateway" } else { "dns" };
            let message = format!("`{key}` is what the DHCP server says");
            return Err(wrong(&[key], message)
                .label("goes with a fixed `address` only")
                .help("take it out, or set `address = \"10.0.2.15/24\"`"));
        }
        for text in &self.forward {
            if forward(text).is_none() {
                let message = format!("`{text}` cannot be forwarded");
                return Err(wrong(&["forward", text], message)
                    .label("expected the host's address and the guest's port")
                    .help("`127.0.0.1:8080=80`, or `udp:127.0.0.1:5353=53`"));
            }
        }
        Ok(())
    }
}

fn forward(text: &str) -> Option<Forward> {
    let (protocol, rest) = match text.strip_prefix("udp:") {
        Some(rest) => (Protocol::Udp, rest),
        None => (Protocol::Tcp, text.strip_prefix("tcp:").unwrap_or(text)),
    };
    let (host, port) = rest.split_once('=')?;
    let port = port.parse().ok().filter(|port| *port != 0)?;
    Some(Forward { protocol, host: host.parse().ok()?, port })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Network, String> {
        let text = format!("[network]\n{text}");
        let source = Arc::new(Source { path: "appliance.toml".into(), text });
        let config = super::super::Config::parse(&source).map_err(|found| found.one_line())?;
        Ok(config.network.unwrap())
    }

    #[test]
    fn an_empty_table_asks_by_dhcp() {
        let network = parse("").unwrap();
        assert_eq!(network.interface(), Interface { name: "eth0".into(), fixed: None });
        assert_eq!(network.resolv_conf(), None);
        assert!(network.outgoing);
        assert_eq!(network.units().len(), 2);
    }

    #[test]
    fn a_fixed_address_needs_no_client() {
        let network = parse(
            "address = \"10.0.2.15/24\"\ngateway = \"10.0.2.2\"\ndns = [\"10.0.2.3\", \"9.9.9.9\"]\n",
        )
        .unwrap();
        let fixed =
            FixedAddress { address: [10, 0, 2, 15], prefix: 24, gateway: Some([10, 0, 2, 2]) };
        assert_eq!(network.interface().fixed, Some(fixed));
        let expected = "nameserver 10.0.2.3\nnameserver 9.9.9.9\n";
        assert_eq!(network.resolv_conf().as_deref(), Some(expected));
        assert_eq!((network.units().len(), network.modules()), (0, &["virtio_net"][..]));
    }

    #[test]
    fn forwards_name_both_ends() {
        let network =
            parse("forward = [\"127.0.0.1:8080=80\", \"udp:0.0.0.0:53=5353\"]\n").unwrap();
        let found: Vec<Forward> = network.forwards().collect();
        let host = "127.0.0.1:8080".parse().unwrap();
        assert_eq!(found[0], Forward { protocol: Protocol::Tcp, host, port: 80 });
        assert_eq!((found[1].protocol, found[1].port), (Protocol::Udp, 5353));
    }

    #[test]
    fn what_cannot_be_is_shown_where_it_stands() {
        let first = |text: &str| parse(text).unwrap_err();
        assert_eq!(
            first("address = \"10.0.2.15\"\n"),
            "appliance.toml:2:12: error: `10.0.2.15` is no address"
        );
        assert_eq!(
            first("dns = [\"10.0.2.3\"]\n"),
            "appliance.toml:2:7: error: `dns` is what the DHCP server says"
        );
        for text in ["80=80", "127.0.0.1:8080=0", "localhost:1=1"] {
            let expected = format!("appliance.toml:2:13: error: `{text}` cannot be forwarded");
            assert_eq!(first(&format!("forward = [\"{text}\"]\n")), expected);
        }
    }
}
