//! The units together: names become indices, dependencies edges, `[Install]` what starts at boot.
//!
//! Edges that nobody writes: a service comes after its sockets, and gets the fds of every socket
//! unit that names it, in the order of their names. Edges to well-known units are dropped.

use super::addresses;
use super::cycle;
use super::name::{Kind, Name};
use super::pairing;
use super::service::ServiceUnit;
use super::socket::SocketUnit;
use super::suggest;
use super::unit_section::{Install, Reference, UnitSection};
use super::well_known;
use crate::finding::{Finding, Span};
use activator::manifest::{Unit, UnitId, UnitKind};
use std::collections::{BTreeMap, BTreeSet};

/// One unit that was read.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) section: UnitSection,
    pub(crate) install: Install,
    /// Its [Install] counts.
    pub(crate) enabled: bool,
    /// It lies in the appliance's folder: its author reads the findings.
    pub(crate) ours: bool,
    pub(crate) masked: bool,
    pub(crate) broken: bool,
    /// The main file.
    pub(crate) span: Span,
    pub(crate) body: Body,
}

impl Node {
    /// Whether it is a unit of the guest.
    fn lives(&self) -> bool {
        !self.masked && !self.broken && self.section.starts_here
    }
}

/// What a node is.
#[derive(Debug)]
#[allow(clippy::large_enum_variant)]
pub(crate) enum Body {
    Socket(SocketUnit),
    Service(ServiceUnit),
    Target,
}

/// All nodes, and other names for them.
pub(crate) struct Graph<'a> {
    pub(crate) nodes: &'a BTreeMap<Name, Node>,
    /// Link or `Alias=` to the unit's own name.
    pub(crate) aliases: &'a BTreeMap<String, Name>,
    pub(crate) findings: &'a mut Vec<Finding>,
    ids: BTreeMap<&'a Name, UnitId>,
    /// Indexed as `ids`.
    edges: Vec<Edges>,
    /// Where the order of two units was written.
    order: BTreeMap<(UnitId, UnitId), Span>,
}

#[derive(Debug, Default, Clone)]
struct Edges {
    start_at_boot: bool,
    requires: BTreeSet<UnitId>,
    wants: BTreeSet<UnitId>,
    after: BTreeSet<UnitId>,
    conflicts: BTreeSet<UnitId>,
    /// Of a service.
    sockets: BTreeSet<UnitId>,
    /// Of a socket.
    service: Option<UnitId>,
}

/// What a name turned out to be.
enum Target {
    Unit(UnitId),
    /// Met, or never to be: no edge.
    Nothing,
    Masked,
    Missing,
}

impl<'a> Graph<'a> {
    /// The graph of some nodes, without an edge yet.
    pub(crate) fn new(
        nodes: &'a BTreeMap<Name, Node>,
        aliases: &'a BTreeMap<String, Name>,
        findings: &'a mut Vec<Finding>,
    ) -> Self {
        let living = nodes.iter().filter(|(_, node)| node.lives());
        // An index beyond u16 has no edges; more units than that are refused below.
        let ids: BTreeMap<_, _> =
            living.zip(0u16..=u16::MAX).map(|((name, _), id)| (name, UnitId(id))).collect();
        let edges = vec![Edges::default(); ids.len()];
        Self { nodes, aliases, findings, ids, edges, order: BTreeMap::new() }
    }

    /// Resolves everything. Empty if a socket has no service: findings say so.
    pub(crate) fn units(mut self) -> Vec<Unit> {
        let nodes = self.nodes;
        let living: Vec<(&Name, &Node, UnitId)> = nodes
            .iter()
            .filter_map(|(name, node)| Some((name, node, *self.ids.get(name)?)))
            .collect();
        for (name, node, id) in &living {
            self.services(name, node, *id);
        }
        for (name, node, id) in &living {
            self.dependencies(name, node, *id);
            self.install(name, node, *id);
        }
        for (_, node, id) in &living {
            self.pairing(node, *id);
        }
        self.cycles();
        let sockets = living.iter().filter_map(|(name, node, _)| match &node.body {
            Body::Socket(socket) => Some((*name, socket)),
            _ => None,
        });
        addresses::check(sockets, self.findings);
        self.unreachable(&living);
        living.into_iter().filter_map(|(name, node, id)| self.unit(name, node, id)).collect()
    }

    fn find(&self, name: &Name) -> Target {
        let name = self.aliases.get(name.as_str()).unwrap_or(name);
        match (self.nodes.get(name), self.ids.get(name)) {
            (_, Some(id)) => Target::Unit(*id),
            (Some(node), None) if node.masked => Target::Masked,
            // Its condition is false, or its file is broken, which is a finding already.
            (Some(_), None) => Target::Nothing,
            (None, None) if well_known::is_always_there(name.as_str()) => Target::Nothing,
            (None, None) => Target::Missing,
        }
    }

    /// Joins sockets and services.
    fn services(&mut self, name: &Name, node: &Node, id: UnitId) {
        match &node.body {
            Body::Socket(socket) => {
                let Some((service, span)) = &socket.service else { return };
                match self.find(service) {
                    Target::Unit(service) => self.pair(id, service, span),
                    Target::Masked => self.findings.push(
                        Finding::error(
                            span.clone(),
                            format!("`{service}`, which `{name}` starts, is masked"),
                        )
                        .label("this socket could start nothing")
                        .help("take away the empty file or link of that name"),
                    ),
                    Target::Nothing if self.nodes.get(service).is_some_and(|node| node.broken) => {}
                    Target::Nothing => self.findings.push(
                        Finding::error(
                            span.clone(),
                            format!("`{service}`, which `{name}` starts, never starts here"),
                        )
                        .label("this socket could start nothing")
                        .help("take the socket unit out, or the condition of the service"),
                    ),
                    // Another service may take it with Sockets=.
                    Target::Missing => {}
                }
            }
            Body::Service(service) => {
                for (socket, span) in &service.sockets {
                    match self.find(socket) {
                        Target::Unit(socket) => {
                            self.edges[id.index()].wants.insert(socket);
                            self.pair(socket, id, span);
                        }
                        Target::Nothing => {}
                        Target::Masked | Target::Missing => {
                            self.missing("Sockets", name, socket, span)
                        }
                    }
                }
            }
            Body::Target => {}
        }
    }

    fn pair(&mut self, socket: UnitId, service: UnitId, span: &Span) {
        self.edges[socket.index()].service.get_or_insert(service);
        self.edges[service.index()].sockets.insert(socket);
        self.order(service, socket, span);
    }

    fn order(&mut self, later: UnitId, earlier: UnitId, span: &Span) {
        self.edges[later.index()].after.insert(earlier);
        self.order.entry((later, earlier)).or_insert_with(|| span.clone());
    }

    fn dependencies(&mut self, name: &Name, node: &Node, id: UnitId) {
        if let Body::Socket(socket) = &node.body
            && let (None, Some((service, span))) = (self.edges[id.index()].service, &socket.service)
            && matches!(self.find(service), Target::Missing)
        {
            self.no_service(name, service, span);
        }
        let section = &node.section;
        for reference in &section.requires {
            match self.find(&reference.name) {
                Target::Unit(other) if other != id => {
                    self.edges[id.index()].requires.insert(other);
                }
                Target::Unit(_) | Target::Nothing => {}
                Target::Masked => {
                    let message =
                        format!("`{}=` names `{}`, which is masked", reference.key, reference.name);
                    self.findings.push(
                        Finding::error(reference.span.clone(), message)
                            .label("this unit could never start")
                            .help("take away the empty file or link of that name"),
                    );
                }
                Target::Missing => {
                    self.missing(reference.key, name, &reference.name, &reference.span);
                }
            }
        }
        for reference in &section.wants {
            match self.find(&reference.name) {
                Target::Unit(other) if other != id => {
                    self.edges[id.index()].wants.insert(other);
                }
                Target::Missing if node.ours => self.absent(reference),
                _ => {}
            }
        }
        for reference in &section.after {
            match self.find(&reference.name) {
                Target::Unit(other) => self.order(id, other, &reference.span),
                Target::Missing if node.ours => self.absent(reference),
                _ => {}
            }
        }
        for reference in &section.before {
            match self.find(&reference.name) {
                Target::Unit(other) => self.order(other, id, &reference.span),
                Target::Missing if node.ours => self.absent(reference),
                _ => {}
            }
        }
        for reference in &section.conflicts {
            if let Target::Unit(other) = self.find(&reference.name)
                && other != id
            {
                self.edges[id.index()].conflicts.insert(other);
            }
        }
        for reference in &section.part_of {
            if let Target::Unit(other) = self.find(&reference.name)
                && !self.edges[id.index()].requires.contains(&other)
            {
                let message = format!(
                    "`PartOf=` of `{}` is not supported by this version without `Requires=`",
                    reference.name
                );
                self.findings.push(
                    Finding::warning(reference.span.clone(), message)
                        .label("a stop there does not stop this unit")
                        .help(format!(
                            "add `Requires={}` if the unit cannot do without it",
                            reference.name
                        )),
                );
            }
        }
    }

    fn install(&mut self, name: &Name, node: &Node, id: UnitId) {
        if !node.enabled {
            return;
        }
        let install = &node.install;
        for reference in install.wanted_by.iter().chain(&install.required_by) {
            let wanting = reference.name.as_str();
            if well_known::is_boot_target(wanting) {
                self.edges[id.index()].start_at_boot = true;
                continue;
            }
            match self.find(&reference.name) {
                Target::Unit(other) if other != id => {
                    let edges = &mut self.edges[other.index()];
                    match reference.key {
                        "RequiredBy" => edges.requires.insert(id),
                        _ => edges.wants.insert(id),
                    };
                }
                Target::Missing if node.ours => {
                    let message =
                        format!("`{}=` names `{wanting}`, which does not exist", reference.key);
                    let help = self.nearest(&reference.name).unwrap_or_else(|| {
                        format!(
                            "write `{}=multi-user.target` to start `{name}` at boot",
                            reference.key
                        )
                    });
                    self.findings.push(
                        Finding::warning(reference.span.clone(), message)
                            .label("starts nothing")
                            .help(help),
                    );
                }
                _ => {}
            }
        }
    }

    /// What a service asks of its sockets.
    fn pairing(&mut self, node: &Node, id: UnitId) {
        let Body::Service(service) = &node.body else { return };
        let starts = |socket: UnitId| {
            self.edges[socket.index()].service == Some(id)
                || self.edges[id.index()].sockets.contains(&socket)
        };
        let sockets: Vec<&SocketUnit> = self
            .ids
            .iter()
            .filter(|(_, socket)| starts(**socket))
            .filter_map(|(name, _)| match &self.nodes.get(*name)?.body {
                Body::Socket(socket) => Some(socket),
                _ => None,
            })
            .collect();
        pairing::check(service, &sockets, self.findings);
    }

    fn no_service(&mut self, name: &Name, service: &Name, span: &Span) {
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

    fn missing(&mut self, key: &str, name: &Name, other: &Name, span: &Span) {
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
    fn absent(&mut self, reference: &Reference) {
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

    fn nearest(&self, name: &Name) -> Option<String> {
        let targets = well_known::targets().map(|target| -> &str { target });
        let known = self.nodes.keys().map(|name| name.as_str()).chain(targets);
        let near = suggest::nearest_unit(name.as_str(), known)?;
        Some(format!("did you mean `{near}`?"))
    }

    /// One cycle at a time: others may go away with it.
    fn cycles(&mut self) {
        let after: Vec<Vec<UnitId>> =
            self.edges.iter().map(|edges| edges.after.iter().copied().collect()).collect();
        if let Some(cycle) = cycle::find(&after) {
            self.report(&cycle);
        }
    }

    fn report(&mut self, cycle: &[UnitId]) {
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
    fn unreachable(&mut self, living: &[(&Name, &Node, UnitId)]) {
        // What starts it may be what is wrong.
        if crate::finding::forbids(self.findings, false) {
            return;
        }
        let wanted: BTreeSet<UnitId> = self
            .edges
            .iter()
            .flat_map(|edges| edges.requires.iter().chain(&edges.wants).chain(&edges.service))
            .copied()
            .collect();
        for (name, node, id) in living {
            let started = self.edges[id.index()].start_at_boot || wanted.contains(id);
            if started || !node.ours {
                continue;
            }
            let help = match name.kind() {
                Kind::Socket => {
                    "add `[Install]` and `WantedBy=sockets.target` to listen from boot on"
                }
                _ => "add `[Install]` and `WantedBy=multi-user.target` to start it at boot",
            };
            let message = format!("nothing starts `{name}`, but `rouse start` can");
            self.findings.push(Finding::note(node.span.clone(), message).help(help));
        }
    }

    fn unit(&self, name: &Name, node: &Node, id: UnitId) -> Option<Unit> {
        let edges = &self.edges[id.index()];
        let list = |ids: &BTreeSet<UnitId>| ids.iter().copied().collect::<Vec<_>>();
        let kind = match &node.body {
            Body::Socket(socket) => {
                let mut socket = socket.socket.clone();
                socket.service = edges.service?;
                UnitKind::Socket(socket)
            }
            Body::Service(service) => {
                let mut service = service.service.clone();
                service.sockets = list(&edges.sockets);
                UnitKind::Service(service)
            }
            Body::Target => UnitKind::Target,
        };
        Some(Unit {
            name: name.to_string(),
            description: node.section.description.clone(),
            start_at_boot: edges.start_at_boot,
            requires: list(&edges.requires),
            wants: list(&edges.wants),
            after: list(&edges.after),
            conflicts: list(&edges.conflicts),
            kind,
            ..Unit::default()
        })
    }
}
