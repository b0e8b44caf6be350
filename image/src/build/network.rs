//! What a network device brings into the image.

use crate::base;
use crate::config::Network;
use crate::tree::{Node, Tree, TreeError};
use activator::interface::RESOLV_CONF;

/// Who brings these files.
const ORIGIN: &str = "appliance.toml";
/// resolv.conf(5)
const RESOLV_CONF_OF_PROGRAMS: &str = "/etc/resolv.conf";

/// Puts /etc/resolv.conf into an image, and the DHCP client's script. What the person copies there
/// wins.
pub(super) fn put_into(tree: &mut Tree, network: &Network) -> Result<(), TreeError> {
    if network.is_dynamic() {
        let from_root = RESOLV_CONF.trim_start_matches('/');
        tree.insert(&Network::script(), Node::symlink(name_of(base::ACTIVATOR), ORIGIN))?;
        tree.insert(RESOLV_CONF_OF_PROGRAMS, Node::symlink(format!("../{from_root}"), ORIGIN))?;
    } else if let Some(text) = network.resolv_conf() {
        tree.insert(RESOLV_CONF_OF_PROGRAMS, Node::file(text.as_bytes(), 0o644, ORIGIN))?;
    }
    Ok(())
}

/// Both lie in one folder.
fn name_of(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::Kind;

    #[test]
    fn programs_find_their_name_servers() {
        let mut tree = base::tree("x", base::tests::PROGRAMS).unwrap();
        put_into(&mut tree, &Network::default()).unwrap();
        assert_eq!(
            tree.content(&Network::script()).unwrap().as_ref(),
            base::tests::PROGRAMS.activator
        );
        let link = &tree.node("/etc/resolv.conf").unwrap().kind;
        assert_eq!(*link, Kind::Symlink("../run/resolv.conf".into()));
        let network = Network {
            address: "10.0.2.15/24".into(),
            dns: vec!["10.0.2.3".parse().unwrap()],
            ..Network::default()
        };
        let mut tree = base::tree("x", base::tests::PROGRAMS).unwrap();
        put_into(&mut tree, &network).unwrap();
        let content = tree.content("/etc/resolv.conf").unwrap();
        assert_eq!(content.as_ref(), b"nameserver 10.0.2.3\n");
    }
}
