//! What udhcpc executes when it was given an address, keeps it or loses it: its "script".
//!
//! One argument says what happened, the environment says what was given (udhcpc's documentation):
//!
//! | argument | what is done |
//! |---|---|
//! | `deconfig` | the interface is brought up, an address of before is taken off |
//! | `bound`, `renew` | address, default route and /etc/resolv.conf are set; the first time the service is ready |
//! | others | nothing: it asks again by itself |
//!
//! The last lease is kept in [`KEPT`], to be taken off again.

use crate::announce::Announcer;
use activator::exit;
use activator::interface::{Link, RESOLV_CONF};
use activator::manifest::FixedAddress;
use std::ffi::OsString;
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::ExitCode;

/// The address that is on the interface.
const KEPT: &str = "/run/lease";

/// `lease EVENT`
pub(crate) fn main(arguments: &[OsString]) -> ExitCode {
    let event = arguments.first().and_then(|event| event.to_str()).unwrap_or_default();
    let variable = |name: &str| std::env::var(name).ok();
    match happened(event, &variable) {
        Ok(()) => ExitCode::from(exit::DONE),
        Err(why) => {
            eprintln!("failed to use what DHCP gave: {why}");
            ExitCode::from(exit::FAILED)
        }
    }
}

fn happened(event: &str, variable: &dyn Fn(&str) -> Option<String>) -> Result<(), String> {
    let name = variable("interface").ok_or("no interface was named")?;
    match event {
        "deconfig" => {
            let link = link(variable)?;
            link.up().map_err(|errno| format!("bring up {name}: {errno}"))?;
            drop_old(&link, None);
            Ok(())
        }
        "bound" | "renew" => {
            let lease = Lease::parse(variable).ok_or("the address makes no sense")?;
            let link = link(variable)?;
            drop_old(&link, Some(&lease.address));
            link.add(&lease.address).map_err(|errno| format!("set up {name}: {errno}"))?;
            write(Path::new(RESOLV_CONF), &lease.resolv_conf())?;
            write(Path::new(KEPT), &format!("{}\n", lease.text()))?;
            Announcer::from_environment().say(&format!("READY=1\nSTATUS={}\n", lease.text()));
            Ok(())
        }
        _ => Ok(()),
    }
}

fn link(variable: &dyn Fn(&str) -> Option<String>) -> Result<Link, String> {
    let name = variable("interface").unwrap_or_default();
    Link::open(&name).map_err(|errno| format!("find {name}: {errno}"))
}

/// Takes off what is on the interface, unless it is the same.
fn drop_old(link: &Link, new: Option<&FixedAddress>) {
    let old = std::fs::read_to_string(KEPT).ok().and_then(|text| parse_address(text.trim()));
    if let Some(old) = old
        && new.is_none_or(|new| (new.address, new.prefix) != (old.address, old.prefix))
    {
        // It may be gone already.
        let _ = link.remove(&old);
        let _ = std::fs::remove_file(KEPT);
    }
}

/// Replaced in one step: programs read it at any time.
fn write(path: &Path, text: &str) -> Result<(), String> {
    let partial = path.with_extension("new");
    std::fs::write(&partial, text)
        .and_then(|()| std::fs::rename(&partial, path))
        .map_err(|error| format!("write {}: {error}", path.display()))
}

/// What was given.
#[derive(Debug, PartialEq, Eq)]
struct Lease {
    address: FixedAddress,
    servers: Vec<Ipv4Addr>,
    domain: Option<String>,
}

impl Lease {
    fn parse(variable: &dyn Fn(&str) -> Option<String>) -> Option<Self> {
        let address: Ipv4Addr = variable("ip")?.parse().ok()?;
        let mask: Option<Ipv4Addr> = variable("subnet").and_then(|text| text.parse().ok());
        let prefix = mask.map_or(24, |mask| mask.to_bits().leading_ones() as u8);
        let first = |text: String| text.split_whitespace().next()?.parse::<Ipv4Addr>().ok();
        let gateway = variable("router").and_then(first).map(|gateway| gateway.octets());
        let servers = variable("dns").unwrap_or_default();
        let servers = servers.split_whitespace().filter_map(|text| text.parse().ok()).collect();
        // A name, and nothing that could be another line of resolv.conf(5).
        let is_name = |text: &String| {
            text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-_".contains(&byte))
        };
        let domain = variable("domain").filter(|text| !text.is_empty()).filter(is_name);
        let address = FixedAddress { address: address.octets(), prefix, gateway };
        Some(Self { address, servers, domain })
    }

    fn text(&self) -> String {
        format!("{}/{}", Ipv4Addr::from(self.address.address), self.address.prefix)
    }

    fn resolv_conf(&self) -> String {
        let domain = self.domain.iter().map(|domain| format!("search {domain}\n"));
        let servers = self.servers.iter().map(|server| format!("nameserver {server}\n"));
        domain.chain(servers).collect()
    }
}

/// `10.0.2.15/24`
fn parse_address(text: &str) -> Option<FixedAddress> {
    let (address, prefix) = text.split_once('/')?;
    let address: Ipv4Addr = address.parse().ok()?;
    let prefix = prefix.parse().ok().filter(|prefix| *prefix <= 32)?;
    Some(FixedAddress { address: address.octets(), prefix, gateway: None })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lease(pairs: &[(&str, &str)]) -> Option<Lease> {
        Lease::parse(&|name| {
            let found = pairs.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn what_udhcpc_says_becomes_an_address_and_a_resolv_conf() {
        let found = lease(&[
            ("ip", "10.0.2.15"),
            ("subnet", "255.255.255.0"),
            ("router", "10.0.2.2 10.0.2.4"),
            ("dns", "10.0.2.3 nonsense 10.0.2.4"),
            ("domain", "example.org"),
        ])
        .unwrap();
        let address =
            FixedAddress { address: [10, 0, 2, 15], prefix: 24, gateway: Some([10, 0, 2, 2]) };
        assert_eq!(found.address, address);
        let expected = "search example.org\nnameserver 10.0.2.3\nnameserver 10.0.2.4\n";
        assert_eq!(found.resolv_conf(), expected);
        assert_eq!(parse_address(&found.text()).unwrap().prefix, 24);
    }

    #[test]
    fn a_server_cannot_write_lines_of_its_own() {
        let found = lease(&[("ip", "10.0.2.15"), ("domain", "a\nnameserver 6.6.6.6")]).unwrap();
        assert_eq!(found.resolv_conf(), "");
        assert_eq!(lease(&[("ip", "x")]), None);
        assert_eq!(lease(&[]), None);
    }

    #[test]
    fn events_that_need_nothing_do_nothing() {
        let eth0 = |name: &str| (name == "interface").then(|| "nobody0".to_owned());
        assert_eq!(happened("nak", &eth0), Ok(()));
        assert_eq!(happened("leasefail", &eth0), Ok(()));
        assert!(happened("deconfig", &eth0).unwrap_err().starts_with("find nobody0"));
        assert!(happened("bound", &|_| None).is_err());
    }
}
