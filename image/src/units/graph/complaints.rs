//! What is said about a graph that does not hold together.

use super::{Graph, Node, Target};
use crate::finding::{Finding, Span};
use crate::units::manager::Manager;
use crate::units::name::{Kind, Name};
use crate::units::suggest;
use crate::units::unit_section::{Reference, Relation};
use crate::units::well_known;
use activator::manifest::{INSTANCE, UnitId};
use std::collections::{BTreeMap, BTreeSet};

impl Graph<'_> {
    /// What becomes of a relation to something that is no unit of the guest.
    pub(super) fn unmet(
        &mut self,
        name: &Name,
        node: &Node,
        relation: Relation,
        reference: &Reference,
        found: &Target,
    ) {
        use Relation::*;
        let Reference { name: other, span, key } = reference;
        if other.as_str().contains(INSTANCE) {
            let message = format!("`{key}=` of a template names a unit by its connection");
            self.findings.push(
                Finding::error(span.clone(), message)
                    .label("there is no unit for each connection beside the service")
                    .help("name a unit without `%i` or `%I`"),
            );
            return;
        }
        match (found, relation) {
            (Target::Masked, Requires | Requisite | BindsTo) => {
                let message = format!("`{key}=` names `{other}`, which is masked");
                self.findings.push(
                    Finding::error(span.clone(), message)
                        .label("this unit could never start")
                        .help("take away the empty file or link of that name"),
                );
            }
            (Target::Missing, Requires | Requisite | BindsTo) => {
                self.missing(key, name, other, span);
            }
            (Target::Missing, OnFailure | OnSuccess | Upholds) if node.ours => {
                self.missing(key, name, other, span);
            }
            // It would end or restart the guest.
            (Target::Nothing, OnFailure | OnSuccess)
                if well_known::is_always_there(other.as_str()) =>
            {
                let message = format!("`{key}={other}` is not supported by this version");
                self.findings.push(
                    Finding::error(span.clone(), message)
                        .label("refused")
                        .help("name a unit of the appliance"),
                );
            }
            (Target::Missing, Wants | After | Before | JoinsNamespaceOf) if node.ours => {
                self.absent(reference)
            }
            _ => {}
        }
    }

    pub(super) fn no_service(&mut self, name: &Name, service: &Name, span: &Span) {
        let help = self.nearest(service).unwrap_or_else(|| {
            format!(
                "add `{service}` or `{}.container`, or name another service with `Service=`",
                service.stem()
            )
        });
        self.findings.push(
            Finding::error(
                span.clone(),
                format!("`{name}` starts `{service}`, which does not exist"),
            )
            .label("nothing to start")
            .help(help),
        );
    }

    pub(super) fn missing(&mut self, key: &str, name: &Name, other: &Name, span: &Span) {
        let help = self.nearest(other).unwrap_or_else(|| {
            format!("add `{other}` beside appliance.toml, or the package that has it")
        });
        self.findings.push(
            Finding::error(
                span.clone(),
                format!("`{key}=` of `{name}` names `{other}`, which does not exist"),
            )
            .label("no such unit")
            .help(help),
        );
    }

    /// Not an error for systemd either: the order of what is not there is kept.
    pub(super) fn absent(&mut self, reference: &Reference) {
        let message =
            format!("`{}=` names `{}`, which does not exist", reference.key, reference.name);
        let finding = match self.nearest(&reference.name) {
            Some(help) => {
                Finding::warning(reference.span.clone(), message).label("no effect").help(help)
            }
            None => Finding::note(reference.span.clone(), message),
        };
        self.findings.push(finding);
    }

    pub(super) fn nearest(&self, name: &Name) -> Option<String> {
        let targets = well_known::targets(self.manager).map(|target| -> &str { target });
        let known = self.nodes.keys().map(|name| name.as_str()).chain(targets);
        let near = suggest::nearest_unit(name.as_str(), known)?;
        Some(format!("did you mean `{near}`?"))
    }

    pub(super) fn report(&mut self, cycle: &[UnitId]) {
        let names: BTreeMap<UnitId, &Name> =
            self.ids.iter().map(|(name, id)| (*id, *name)).collect();
        let name = |id: &UnitId| names.get(id).map(|name| name.as_str()).unwrap_or_default();
        let mut text: Vec<&str> = cycle.iter().map(name).collect();
        text.extend(cycle.first().map(name));
        let first = cycle.first().copied().unwrap_or(UnitId(0));
        let second = cycle.get(1).copied().unwrap_or(first);
        let message = format!("these units wait for each other: {}", text.join(" after "));
        let mut finding = match self.order.get(&(first, second)) {
            Some(span) => Finding::error(span.clone(), message),
            None => return,
        };
        finding.label = "one step of the circle".into();
        finding.help = Some(
            "take one `After=` or `Before=` out; a service comes after its sockets by itself"
                .into(),
        );
        self.findings.push(finding);
    }

    /// Notes about units that nothing starts.
    pub(super) fn unreachable(&mut self, living: &[(&Name, &Node, UnitId)]) {
        // What starts it may be what is wrong.
        if crate::finding::forbids(self.findings, false) {
            return;
        }
        let mut wanted: BTreeSet<UnitId> = BTreeSet::new();
        for edges in &self.edges {
            wanted.extend(edges.service);
            let pulled = edges.related.iter().filter(|(relation, _)| relation.pulls_in());
            wanted.extend(pulled.flat_map(|(_, others)| others));
        }
        for (name, node, id) in living {
            let started = self.edges[id.index()].start_at_boot || wanted.contains(id);
            if started || !node.ours {
                continue;
            }
            let help = match (name.kind(), self.manager) {
                (Kind::Socket, _) => {
                    "add `[Install]` and `WantedBy=sockets.target` to listen from boot on"
                }
                (_, Manager::System) => {
                    "add `[Install]` and `WantedBy=multi-user.target` to start it at boot"
                }
                (_, Manager::User(..)) => {
                    "add `[Install]` and `WantedBy=default.target` to start it at boot"
                }
            };
            let message = format!("nothing starts `{name}`, but `rouse start` can");
            self.findings.push(Finding::note(node.span.clone(), message).help(help));
        }
    }
}
