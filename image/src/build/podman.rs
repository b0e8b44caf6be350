//! What Podman needs in a guest, beside its packages: where systemd and a package manager would
//! have made something, and where a modprobe would have loaded something.
//!
//! Podman asks whether systemd runs (sd_booted(3)) and otherwise does by itself what is right
//! here. Its defaults are written down all the same, in the file that /etc/containers overrides, so
//! that a person who looks finds them.

use crate::tree::{Node, Tree, TreeError};

/// Its program.
const PROGRAM: &str = "/usr/bin/podman";
/// Who brings these files.
const ORIGIN: &str = "rouse";
/// The lowest of the files that containers.conf(5) lists; the packaged one has comments alone.
const CONFIGURATION: &str = "/usr/share/containers/containers.conf";
const DEFAULTS: &str = "\
# For a guest without systemd. /etc/containers/containers.conf comes after this file.
[containers]
log_driver = \"k8s-file\"

[engine]
cgroup_manager = \"cgroupfs\"
events_logger = \"file\"
runtime = \"crun\"
";
/// Where the networks of root's Podman are written down, and where that lies: the first is in a
/// read-only root, the second is wherever containers are.
const NETWORKS: (&str, &str) = ("/etc/containers/networks", "/var/lib/containers/networks");

/// aardvark-dns does not start without it; without `[network]` there is nobody to ask.
const RESOLV_CONF: &str = "/etc/resolv.conf";
const NO_NAME_SERVERS: &str = "# There is no [network] in appliance.toml.\n";

/// Storage, networks with and without a bridge, netavark's firewall. The guest has no modprobe:
/// what the kernel would ask for is loaded at boot.
const MODULES: [&str; 18] = [
    "overlay",
    "fuse",
    "tun",
    "dummy",
    "veth",
    "bridge",
    "br_netfilter",
    "nf_tables",
    "nf_conntrack",
    "nf_nat",
    "nft_chain_nat",
    "nft_ct",
    "nft_nat",
    "nft_masq",
    "nft_fib_inet",
    "nft_reject_inet",
    "nft_limit",
    "nft_numgen",
];

/// Whether Podman is in an image.
pub(super) fn is_in(tree: &Tree) -> bool {
    tree.trace(PROGRAM).is_some()
}

/// The kernel modules that it needs.
pub(super) fn modules(tree: &Tree) -> &'static [&'static str] {
    if is_in(tree) { &MODULES } else { &[] }
}

/// Puts into an image what Podman misses there. What the person has put there stays.
pub(super) fn put_into(tree: &mut Tree) -> Result<(), TreeError> {
    if !is_in(tree) {
        return Ok(());
    }
    tree.replace(CONFIGURATION, Node::file(DEFAULTS.as_bytes(), 0o644, ORIGIN))?;
    if tree.node(RESOLV_CONF).is_none() {
        tree.insert(RESOLV_CONF, Node::file(NO_NAME_SERVERS.as_bytes(), 0o644, ORIGIN))?;
    }
    let (named, real) = NETWORKS;
    if tree.node(named).is_none() {
        tree.insert(named, Node::symlink(real, ORIGIN))?;
        tree.make_directory(real, 0o755, ORIGIN)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn podman_finds_its_defaults_and_a_place_for_networks() {
        let mut tree = Tree::new();
        put_into(&mut tree).unwrap();
        assert!(tree.is_empty() && modules(&tree).is_empty());
        tree.insert(PROGRAM, Node::file(&b""[..], 0o755, "podman 5")).unwrap();
        tree.insert(CONFIGURATION, Node::file(&b"# comments"[..], 0o644, "common 1")).unwrap();
        put_into(&mut tree).unwrap();
        assert_eq!(tree.content(CONFIGURATION).unwrap().as_ref(), DEFAULTS.as_bytes());
        assert!(tree.trace(NETWORKS.0).unwrap().contains(&NETWORKS.1.to_owned()));
        assert!(modules(&tree).contains(&"overlay"));
        assert_eq!(tree.content(RESOLV_CONF).unwrap().as_ref(), NO_NAME_SERVERS.as_bytes());
    }

    #[test]
    fn name_servers_of_a_network_stay() {
        let mut tree = Tree::new();
        tree.insert(PROGRAM, Node::file(&b""[..], 0o755, "podman 5")).unwrap();
        tree.insert(RESOLV_CONF, Node::file(&b"nameserver 10.0.2.3"[..], 0o644, "rouse")).unwrap();
        put_into(&mut tree).unwrap();
        assert_eq!(tree.content(RESOLV_CONF).unwrap().as_ref(), b"nameserver 10.0.2.3");
    }

    #[test]
    fn networks_of_the_person_stay() {
        let mut tree = Tree::new();
        tree.insert(PROGRAM, Node::file(&b""[..], 0o755, "podman 5")).unwrap();
        tree.make_directory(NETWORKS.0, 0o755, "appliance.toml").unwrap();
        put_into(&mut tree).unwrap();
        assert!(tree.node(NETWORKS.1).is_none());
    }
}
