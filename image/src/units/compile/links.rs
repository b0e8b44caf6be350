//! `A.wants/b`, `A.requires/b` and `A.upholds/b`: links that say what a line in A could say.

use super::Compiler;
use crate::finding::Finding;
use crate::units::files::{Link, Place};
use crate::units::name::Name;
use crate::units::unit_section::{Reference, Relation, UnitSection};
use crate::units::{drop_in, well_known};
use std::collections::BTreeSet;

impl Compiler<'_, '_> {
    /// Links in the folders of targets that the boot reaches start what they name.
    pub(super) fn links_of_targets(&mut self) {
        let files = self.files;
        for ((target, _), links) in &files.links {
            let boot = well_known::is_boot_target(target, &self.facts.manager);
            let known = boot
                || well_known::is_always_there(target)
                || Name::parse(target)
                    .is_some_and(|name| self.nodes.contains_key(&self.own_name(&name)));
            for (name, link) in links.iter().filter(|(_, link)| is_ours(link)) {
                let node = Name::parse(name).map(|name| self.own_name(&name));
                let node = node.and_then(|name| self.nodes.get_mut(&name));
                let what = match node {
                    Some(node) if boot => {
                        node.at_boot = true;
                        continue;
                    }
                    _ if !known => target,
                    None if boot => name,
                    _ => continue,
                };
                let message = format!("the link has no effect: there is no unit `{what}`");
                self.compiled.findings.push(
                    Finding::warning(link.span.clone(), message)
                        .label("starts nothing")
                        .help("take it out, or add the unit"),
                );
            }
        }
    }

    /// Adds what links say: `NAME.wants/OTHER` and its kin, in the folders of all its names.
    pub(super) fn link(&self, name: &Name, section: &mut UnitSection) {
        let names = self.other_names(name);
        let names = std::iter::once(name.as_str()).chain(names.iter().map(String::as_str));
        let folders: BTreeSet<String> = names.flat_map(drop_in::folders).collect();
        for ((unit, relation), links) in &self.files.links {
            if !folders.contains(&format!("{unit}.d")) {
                continue;
            }
            for (other, link) in links.iter().filter(|(_, link)| !link.masked) {
                let Some(other) = Name::parse(other) else { continue };
                let key = match relation {
                    Relation::Requires => "Requires",
                    Relation::Upholds => "Upholds",
                    _ => "Wants",
                };
                let reference = Reference { name: other, span: link.span.clone(), key };
                section.relations.push((*relation, reference));
            }
        }
    }
}

/// A link in the appliance's folder that counts.
pub(super) fn is_ours(link: &Link) -> bool {
    link.place == Place::Folder && !link.masked
}
