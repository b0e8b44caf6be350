//! `A.wants/b`, `A.requires/b` and `A.upholds/b`: links that say what a line in A could say.

use super::{Compiler, quoted};
use crate::finding::{Finding, Severity};
use crate::units::files::{Link, Place};
use crate::units::name::Name;
use crate::units::unit_section::{Reference, Relation, UnitSection};
use crate::units::{drop_in, well_known};
use std::collections::BTreeSet;

impl Compiler<'_, '_> {
    /// Links in the folders of targets that the boot reaches start what they name: those in the
    /// appliance's folder, and those that packages bring for a unit that appliance.toml enables.
    pub(super) fn links_of_targets(&mut self) {
        let files = self.files;
        for ((target, _), links) in &files.links {
            let boot = well_known::is_boot_target(target, &self.facts.manager);
            let known = boot
                || well_known::is_always_there(target)
                || Name::parse(target)
                    .is_some_and(|name| self.nodes.contains_key(&self.own_name(&name)));
            for (name, link) in links.iter().filter(|(_, link)| !link.masked) {
                let node = Name::parse(name).map(|name| self.own_name(&name));
                let node = node.and_then(|name| self.nodes.get_mut(&name));
                if !is_ours(link) {
                    if let Some(node) = node.filter(|node| node.enabled) {
                        node.at_boot |= boot;
                    }
                    continue;
                }
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

    /// A unit that `enable` names, and that neither says by what it is wanted nor is wanted by a
    /// link, is as it was.
    pub(super) fn enabled_in_vain(&mut self) {
        let config = self.facts.input.config_source;
        for text in self.listed() {
            let name = Name::parse(text).map(|name| self.own_name(&name));
            let node = name.and_then(|name| self.nodes.get(&name));
            let Some(node) = node.filter(|node| !node.ours && node.lives()) else { continue };
            let install = &node.install;
            let silent = install.wanted_by.is_empty()
                && install.alias.is_empty()
                && install.also.is_empty()
                && !node.at_boot;
            if silent {
                self.compiled.findings.push(Finding {
                    severity: Severity::Warning,
                    span: config.map(|source| quoted(source, text)),
                    message: format!("`enable` names `{text}`, which has no [Install]"),
                    label: "starts only when another unit needs it".into(),
                    help: Some(format!("a drop-in `{text}.d/*.conf` can add [Install] to it")),
                });
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
