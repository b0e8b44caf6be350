//! The keys about the network.

use super::reader::Reader;
use crate::container::{Container, Network, Written};

impl Reader<'_, '_> {
    pub(super) fn network_keys(&mut self, container: Container) -> Container {
        let networks = self.all_written("Network");
        Container {
            network: networks.last().map(network).unwrap_or_default(),
            networks,
            network_aliases: self.all_written("NetworkAlias"),
            ip: self.written("IP"),
            ip6: self.written("IP6"),
            publish_ports: self.all_written("PublishPort"),
            expose_ports: self.all_written("ExposeHostPort"),
            add_hosts: self.all_written("AddHost"),
            dns: self.all_written("DNS"),
            dns_options: self.all_written("DNSOption"),
            dns_search: self.all_written("DNSSearch"),
            ..container
        }
    }
}

fn network(written: &Written) -> Network {
    let text = written.text.as_str();
    match (text, text.split_once(':')) {
        ("none", _) => Network::None,
        ("host", _) => Network::Host,
        (_, Some(("ns", path))) => Network::Path(path.into()),
        (_, Some(("container", name))) => Network::Container(name.into()),
        (unit, None) if unit.ends_with(".container") => Network::Container(unit.into()),
        _ => Network::Other(text.into()),
    }
}
