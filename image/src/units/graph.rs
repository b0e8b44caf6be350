//! The units together: names become indices, dependencies edges, `[Install]` what starts at boot.
//!
//! Edges that nobody writes: a service comes after its sockets, and gets the fds of every socket
//! unit that names it, in the order of their names. Edges to well-known units are dropped.

mod complaints;
mod joins;

use super::cycle;
use super::manager::Manager;
use super::name::Name;
use super::pairing;
use super::podman_api::Places;
use super::service::ServiceUnit;
use super::socket::SocketUnit;
use super::unit_section::{Install, Relation, UnitSection};
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
    /// A link in the folder of a target that the boot reaches wants it.
    pub(crate) at_boot: bool,
    pub(crate) masked: bool,
    pub(crate) broken: bool,
    /// The main file.
    pub(crate) span: Span,
    pub(crate) body: Body,
}

impl Node {
    /// Whether it is a unit of the guest.
    pub(crate) fn lives(&self) -> bool {
        !self.masked && !self.broken && !self.section.conditions.never
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
    /// Whose units these are.
    pub(crate) manager: &'a Manager,
    /// Of Podman's API, whoever's it is.
    pub(crate) places: &'a Places,
    pub(crate) findings: &'a mut Vec<Finding>,
    /// Counted from the first of these units, whatever stands before them in the manifest.
    ids: BTreeMap<&'a Name, UnitId>,
    /// Indexed as `ids`.
    edges: Vec<Edges>,
    /// Where the order of two units was written.
    order: BTreeMap<(UnitId, UnitId), Span>,
}

#[derive(Debug, Default, Clone)]
struct Edges {
    start_at_boot: bool,
    /// Without the relations that are turned round: Before and the two ...From.
    related: BTreeMap<Relation, BTreeSet<UnitId>>,
    /// Of a service.
    sockets: BTreeSet<UnitId>,
    /// Of a socket.
    service: Option<UnitId>,
}

impl Edges {
    fn add(&mut self, relation: Relation, other: UnitId) {
        self.related.entry(relation).or_default().insert(other);
    }

    fn of(&self, relation: Relation) -> impl Iterator<Item = UnitId> {
        self.related.get(&relation).into_iter().flatten().copied()
    }

    fn has(&self, relation: Relation, other: UnitId) -> bool {
        self.related.get(&relation).is_some_and(|others| others.contains(&other))
    }
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
        manager: &'a Manager,
        places: &'a Places,
        findings: &'a mut Vec<Finding>,
    ) -> Self {
        let living = nodes.iter().filter(|(_, node)| node.lives());
        // An index beyond u16 has no edges; more units than that are refused below.
        let ids: BTreeMap<_, _> =
            living.zip(0u16..=u16::MAX).map(|((name, _), id)| (name, UnitId(id))).collect();
        let edges = vec![Edges::default(); ids.len()];
        Self { nodes, aliases, manager, places, findings, ids, edges, order: BTreeMap::new() }
    }

    /// Resolves everything; `first` is the index of the first unit in the manifest. Empty if a
    /// socket has no service: findings say so.
    pub(crate) fn units(mut self, first: usize) -> Vec<Unit> {
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
            self.bound(node, *id);
        }
        for (_, node, id) in &living {
            self.targets(node, *id);
        }
        self.cycles();
        self.unreachable(&living);
        let joins = self.joins(&living);
        let units = living.into_iter().filter_map(|(name, node, id)| {
            let mut unit = self.unit(name, node, id)?;
            if let Some(group) = joins.get(&id) {
                join(&mut unit, group);
            }
            Some(unit)
        });
        moved(units.collect(), first)
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
                        Target::Unit(_) if self.is_relayed(socket) => self.findings.push(
                            Finding::error(
                                span.clone(),
                                format!("`Sockets=` names `{socket}`, which has a relay"),
                            )
                            .label("its fds are the relay's")
                            .help("take the line out, or `X-RelayTo=` out of the socket unit"),
                        ),
                        Target::Unit(socket) => {
                            self.edges[id.index()].add(Relation::Wants, socket);
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
        // With Accept=yes an instance gets its connection, and no listener.
        if !self.accepts(socket) {
            self.edges[service.index()].sockets.insert(socket);
        }
        self.order(service, socket, span);
    }

    fn accepts(&self, socket: UnitId) -> bool {
        let name = self.ids.iter().find(|(_, id)| **id == socket).map(|(name, _)| *name);
        let body = name.and_then(|name| self.nodes.get(name)).map(|node| &node.body);
        matches!(body, Some(Body::Socket(socket)) if socket.socket.accept.is_some())
    }

    fn is_relayed(&self, socket: &Name) -> bool {
        let socket = self.aliases.get(socket.as_str()).unwrap_or(socket);
        let body = self.nodes.get(socket).map(|node| &node.body);
        matches!(body, Some(Body::Socket(socket)) if socket.relay.is_some())
    }

    fn order(&mut self, later: UnitId, earlier: UnitId, span: &Span) {
        self.edges[later.index()].add(Relation::After, earlier);
        self.order.entry((later, earlier)).or_insert_with(|| span.clone());
    }

    fn dependencies(&mut self, name: &Name, node: &Node, id: UnitId) {
        if let Body::Socket(socket) = &node.body
            && let (None, Some((service, span))) = (self.edges[id.index()].service, &socket.service)
            && matches!(self.find(service), Target::Missing)
        {
            self.no_service(name, service, span);
        }
        for (relation, reference) in &node.section.relations {
            let found = self.find(&reference.name);
            match found {
                Target::Unit(other) => self.relate(id, *relation, other, &reference.span),
                _ => self.unmet(name, node, *relation, reference, &found),
            }
        }
    }

    /// Writes down what one unit is to another, from the side that acts on it.
    fn relate(&mut self, id: UnitId, relation: Relation, other: UnitId, span: &Span) {
        use Relation::*;
        match relation {
            // An order of a unit with itself is a circle.
            After => self.order(id, other, span),
            Before => self.order(other, id, span),
            _ if id == other => {}
            // By names, since it goes by way of units that are not there.
            JoinsNamespaceOf => {}
            ReloadPropagatedFrom => self.edges[other.index()].add(PropagatesReloadTo, id),
            StopPropagatedFrom => self.edges[other.index()].add(PropagatesStopTo, id),
            BindsTo => {
                self.edges[id.index()].add(BindsTo, other);
                self.edges[id.index()].add(Requires, other);
            }
            relation => self.edges[id.index()].add(relation, other),
        }
    }

    /// What a target wants comes before it, unless it says otherwise, systemd.target(5).
    fn targets(&mut self, node: &Node, id: UnitId) {
        if !matches!(node.body, Body::Target) || !node.section.default_dependencies {
            return;
        }
        let edges = &self.edges[id.index()];
        let relations = [Relation::Requires, Relation::Requisite, Relation::Wants];
        let wanted: Vec<UnitId> = relations.into_iter().flat_map(|one| edges.of(one)).collect();
        for other in wanted {
            let plain = self.ids.iter().any(|(name, known)| {
                *known == other
                    && self.nodes.get(*name).is_some_and(|it| it.section.default_dependencies)
            });
            if plain && !self.edges[other.index()].has(Relation::After, id) {
                self.order(id, other, &node.span);
            }
        }
    }

    fn install(&mut self, name: &Name, node: &Node, id: UnitId) {
        self.edges[id.index()].start_at_boot |= node.at_boot;
        if !node.enabled {
            return;
        }
        for (relation, reference) in &node.install.wanted_by {
            let wanting = reference.name.as_str();
            if well_known::is_boot_target(wanting, self.manager) {
                if *relation == Relation::Upholds {
                    let message = format!("`UpheldBy={wanting}` is not supported by this version");
                    self.findings.push(
                        Finding::error(reference.span.clone(), message)
                            .label("refused: the boot starts units once")
                            .help("write `WantedBy=` here and `Restart=always` in [Service]"),
                    );
                }
                self.edges[id.index()].start_at_boot = true;
                continue;
            }
            match self.find(&reference.name) {
                Target::Unit(other) if other != id => {
                    self.edges[other.index()].add(*relation, id);
                }
                _ if well_known::is_of_the_system(wanting, self.manager) && node.ours => {
                    let message =
                        format!("`{}=` names `{wanting}`, which users do not have", reference.key);
                    self.findings.push(
                        Finding::warning(reference.span.clone(), message)
                            .label("starts nothing")
                            .help(format!("write `{}=default.target`", reference.key)),
                    );
                }
                Target::Missing if node.ours => {
                    let message =
                        format!("`{}=` names `{wanting}`, which does not exist", reference.key);
                    let help = self.nearest(&reference.name).unwrap_or_else(|| {
                        let target = match self.manager {
                            Manager::System => "multi-user.target",
                            Manager::User(..) => "default.target",
                        };
                        format!("write `{}={target}` to start `{name}` at boot", reference.key)
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
        pairing::check(service, &sockets, self.places, self.findings);
    }

    /// `RestartMode=direct` keeps nobody up who is bound to the service.
    fn bound(&mut self, node: &Node, id: UnitId) {
        let Body::Service(service) = &node.body else { return };
        let Some(span) = &service.direct else { return };
        let is_bound = |other: UnitId| {
            self.edges[other.index()].of(Relation::BindsTo).any(|it| it == id)
                || self.edges[id.index()].of(Relation::PropagatesStopTo).any(|it| it == other)
        };
        let Some((bound, _)) = self.ids.iter().find(|(_, other)| is_bound(**other)) else { return };
        let message = format!("`RestartMode=direct` does not keep `{bound}` up");
        self.findings.push(
            Finding::warning(span.clone(), message)
                .label("it is stopped when the service waits for its restart")
                .help("let it name the service in `Requires=` instead, or take the line out"),
        );
    }

    /// One cycle at a time: others may go away with it.
    fn cycles(&mut self) {
        let after: Vec<Vec<UnitId>> =
            self.edges.iter().map(|edges| edges.of(Relation::After).collect()).collect();
        if let Some(cycle) = cycle::find(&after) {
            self.report(&cycle);
        }
    }

    fn unit(&self, name: &Name, node: &Node, id: UnitId) -> Option<Unit> {
        let edges = &self.edges[id.index()];
        let list = |relation| edges.of(relation).collect::<Vec<_>>();
        let kind = match &node.body {
            Body::Socket(socket) => {
                let mut socket = socket.socket.clone();
                socket.service = edges.service?;
                UnitKind::Socket(socket)
            }
            Body::Service(unit) => {
                let mut service = unit.service.clone();
                service.sockets = edges.sockets.iter().copied().collect();
                service.relays =
                    unit.relays.iter().filter_map(|name| self.ids.get(name).copied()).collect();
                UnitKind::Service(service)
            }
            Body::Target => UnitKind::Target,
        };
        Some(Unit {
            name: name.to_string(),
            owner: self.manager.owner(),
            description: node.section.description.clone(),
            start_at_boot: edges.start_at_boot,
            requires: list(Relation::Requires),
            requisite: list(Relation::Requisite),
            wants: list(Relation::Wants),
            binds_to: list(Relation::BindsTo),
            part_of: list(Relation::PartOf),
            upholds: list(Relation::Upholds),
            after: list(Relation::After),
            conflicts: list(Relation::Conflicts),
            on_failure: list(Relation::OnFailure),
            on_success: list(Relation::OnSuccess),
            reloads: list(Relation::PropagatesReloadTo),
            stops: list(Relation::PropagatesStopTo),
            stop_when_unneeded: node.section.stop_when_unneeded,
            conditions: node.section.conditions.later.clone(),
            kind,
        })
    }
}

/// Says in the manifest which group it is in.
fn join(unit: &mut Unit, group: &str) {
    let execution = match &mut unit.kind {
        UnitKind::Socket(socket) => &mut socket.execution,
        UnitKind::Service(service) => &mut service.execution,
        UnitKind::Target => return,
    };
    if let Some(stage2) = &mut execution.stage2 {
        stage2.sandbox.joins = Some(group.to_owned());
    }
}

/// The units with all ids counted from the first unit of the manifest.
fn moved(mut units: Vec<Unit>, first: usize) -> Vec<Unit> {
    // More units than ids are refused when the manifest is made.
    let by = u16::try_from(first).unwrap_or(u16::MAX);
    let shift = |id: &mut UnitId| id.0 = id.0.saturating_add(by);
    for unit in &mut units {
        let lists = [
            &mut unit.requires,
            &mut unit.requisite,
            &mut unit.wants,
            &mut unit.binds_to,
            &mut unit.part_of,
            &mut unit.upholds,
            &mut unit.after,
            &mut unit.conflicts,
            &mut unit.on_failure,
            &mut unit.on_success,
            &mut unit.reloads,
            &mut unit.stops,
        ];
        lists.into_iter().flatten().for_each(shift);
        match &mut unit.kind {
            UnitKind::Socket(socket) => shift(&mut socket.service),
            UnitKind::Service(service) => {
                service.sockets.iter_mut().chain(&mut service.relays).for_each(shift);
            }
            UnitKind::Target => {}
        }
    }
    units
}
