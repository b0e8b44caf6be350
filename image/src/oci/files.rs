//! The files that a bundle binds into its container: hosts, hostname, resolv.conf.

use crate::container::Container;

/// /etc/hosts: `AddHost=` before the names that every container has, hosts(5).
pub(super) fn hosts(container: &Container, host_name: &str) -> String {
    let mut text = String::new();
    for written in &container.add_hosts {
        if let Some((names, address)) = host(&written.text) {
            text += &format!("{address}\t{}\n", names.join(" "));
        }
    }
    text + &crate::base::hosts(host_name)
}

/// `name[;name...]:address`; None if it is none, or the address is only known to Podman.
pub(super) fn host(text: &str) -> Option<(Vec<&str>, &str)> {
    let (names, address) = text.split_once(':')?;
    let names: Vec<&str> = names.split(';').filter(|name| !name.is_empty()).collect();
    let address = address.trim_start_matches('[').trim_end_matches(']');
    let fits = address.parse::<std::net::IpAddr>().is_ok() && !names.is_empty();
    fits.then_some((names, address))
}

/// /etc/resolv.conf, where `DNS=` and its kin say what is in it, resolv.conf(5).
pub(super) fn resolver(container: &Container) -> Option<String> {
    let texts = |all: &[crate::container::Written]| -> Vec<String> {
        all.iter().map(|written| written.text.clone()).collect()
    };
    let (servers, options) = (texts(&container.dns), texts(&container.dns_options));
    let search = texts(&container.dns_search);
    if servers.is_empty() && options.is_empty() && search.is_empty() {
        return None;
    }
    let mut text = String::new();
    // A single dot stands for none.
    if !search.is_empty() && search != ["."] {
        text += &format!("search {}\n", search.join(" "));
    }
    for server in servers.iter().filter(|server| *server != "none") {
        text += &format!("nameserver {server}\n");
    }
    if !options.is_empty() {
        text += &format!("options {}\n", options.join(" "));
    }
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_names_and_an_address() {
        assert_eq!(host("db:10.0.0.1"), Some((vec!["db"], "10.0.0.1")));
        assert_eq!(host("a;b:[::1]"), Some((vec!["a", "b"], "::1")));
        assert_eq!(host("a:host-gateway"), None);
        assert_eq!(host("a"), None);
    }
}
