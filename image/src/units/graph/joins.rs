//! `JoinsNamespaceOf=`: which units share what they have private, systemd.unit(5).
//!
//! As in systemd it goes both ways, and (since 254) on and on, also by way of a unit that is not
//! there. Only what both have private is shared, so a unit without any of that is in no group.

use super::{Body, Graph, Node, Target};
use crate::finding::Finding;
use crate::units::name::Name;
use crate::units::unit_section::{Reference, Relation};
use activator::manifest::{Sandbox, UnitId};
use std::collections::{BTreeMap, BTreeSet};

impl Graph<'_> {
    /// The group of each unit that is in one, which has the name of the first of them.
    pub(super) fn joins(&mut self, living: &[(&Name, &Node, UnitId)]) -> BTreeMap<UnitId, String> {
        let own = |name: &Name| self.aliases.get(name.as_str()).unwrap_or(name).clone();
        let mut joined: BTreeMap<Name, BTreeSet<Name>> = BTreeMap::new();
        for (name, node, _) in living {
            for reference in references(node) {
                let other = own(&reference.name);
                joined.entry((*name).clone()).or_default().insert(other.clone());
                joined.entry(other).or_default().insert((*name).clone());
            }
        }
        let mut groups = BTreeMap::new();
        for (name, _, id) in living {
            if groups.contains_key(id) || !joined.contains_key(*name) {
                continue;
            }
            let names = reach(name, &joined);
            let members: Vec<_> = living
                .iter()
                .filter(|(name, node, _)| names.contains(*name) && shares(node))
                .collect();
            match members[..] {
                // Connections make several of it.
                [(one, _, id)] if one.is_template() => {
                    groups.insert(*id, one.to_string());
                }
                [(first, ..), _, ..] => {
                    self.refuse(&members);
                    groups.extend(members.iter().map(|(_, _, id)| (*id, first.to_string())));
                }
                _ => {
                    let all = living.iter().filter(|(name, ..)| names.contains(*name));
                    all.for_each(|(name, node, _)| self.joins_nothing(name, node));
                }
            }
        }
        groups
    }

    fn joins_nothing(&mut self, name: &Name, node: &Node) {
        for reference in references(node).filter(|_| node.ours) {
            if let Target::Unit(_) = self.find(&reference.name) {
                let message = format!(
                    "`JoinsNamespaceOf=` has no effect: not both of `{name}` and `{}` have \
                     `PrivateTmp=`, `PrivateNetwork=` or `PrivateIPC=`",
                    reference.name
                );
                self.findings.push(Finding::note(reference.span.clone(), message));
            }
        }
    }

    /// What would not be shared, though it looks as if.
    fn refuse(&mut self, members: &[&(&Name, &Node, UnitId)]) {
        for (name, node, _) in members {
            let what = match &node.body {
                Body::Socket(_) => format!("the commands of `{name}`"),
                _ if node.section.disconnected_tmp => {
                    format!("the `PrivateTmp=disconnected` of `{name}`")
                }
                _ => continue,
            };
            // It may be another unit that says so.
            let all = members.iter().flat_map(|(_, node, _)| references(node));
            let span = references(node).chain(all).next().map(|it| it.span.clone());
            let message = format!("`JoinsNamespaceOf=` is not supported for {what}");
            let help = match node.body {
                Body::Socket(_) => "take the line out, or put it into the service",
                _ => "take the line out, or write `PrivateTmp=yes`",
            };
            self.findings.push(
                Finding::error(span.unwrap_or_else(|| node.span.clone()), message)
                    .label("refused")
                    .help(help),
            );
        }
    }
}

fn references(node: &Node) -> impl Iterator<Item = &Reference> {
    let relations = node.section.relations.iter();
    relations.filter(|(it, _)| *it == Relation::JoinsNamespaceOf).map(|(_, reference)| reference)
}

fn reach(from: &Name, joined: &BTreeMap<Name, BTreeSet<Name>>) -> BTreeSet<Name> {
    let mut reached = BTreeSet::new();
    let mut next = vec![from];
    while let Some(name) = next.pop() {
        if reached.insert(name.clone()) {
            next.extend(joined.get(name).into_iter().flatten());
        }
    }
    reached
}

/// Whether it has something private, of which `JoinsNamespaceOf=` speaks.
fn shares(node: &Node) -> bool {
    let execution = match &node.body {
        Body::Socket(unit) => &unit.socket.execution,
        Body::Service(unit) => &unit.service.execution,
        Body::Target => return false,
    };
    execution.stage2.as_deref().is_some_and(|stage2| {
        let Sandbox { network_namespace_path: path, .. } = &stage2.sandbox;
        stage2.sandbox.shares() || path.is_some()
    })
}
