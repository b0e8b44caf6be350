//! Which units there are, and the way of each through the compiler.
//!
//! All units of the appliance's folder are compiled and enabled. A unit that a package brings is
//! compiled when appliance.toml enables it, or when a compiled unit needs it.

mod links;
mod quadlets;
mod relays;

use super::definition::Definition;
use super::exec::dynamic_user;
use super::files::{Entry, Files, Place};
use super::graph::{Body, Graph, Node};
use super::keys::Keys;
use super::manager::Manager;
use super::name::{Kind, Name};
use super::podman::{self, Checks, ImageHealth};
use super::podman_api::Places;
use super::quadlet::ids::Chosen;
use super::quadlet::{self, container};
use super::service::ServiceUnit;
use super::socket::SocketUnit;
use super::unit_section::{Reference, Relation};
use super::{
    Compiled, Facts, addresses, cat, check, drop_in, service, socket, suggest, unit_section, users,
    well_known,
};
use crate::config::{self, Engine};
use crate::container::Container;
use crate::finding::{Finding, Severity, Source, Span};
use activator::manifest::{HealthCheck, Socket, Unit, UnitId};
use links::is_ours;
use std::collections::{BTreeMap, BTreeSet};

/// Compiles everything that `facts` name into `compiled`: the system's units, then each user's.
pub(super) fn run(facts: &mut Facts<'_>, compiled: &mut Compiled) {
    let input = facts.input;
    let mut users = input.config.users.clone();
    users.sort_by(|a, b| a.name.cmp(&b.name));
    users::check(facts, &mut compiled.findings);
    compiled.users = users.iter().map(|user| users::lingering(facts, user)).collect();
    let managers = (0u16..).zip(users).map(|(index, user)| Manager::User(index, user));
    let mut parts = vec![];
    for manager in std::iter::once(Manager::System).chain(managers) {
        facts.manager = manager;
        parts.push(read(facts, compiled));
    }
    container::same_names(&compiled.containers, &mut compiled.findings);
    let sockets = parts.iter().flat_map(|part| &part.nodes);
    let sockets = sockets.filter_map(|(name, node)| match &node.body {
        Body::Socket(socket) if node.lives() => Some((name, socket)),
        _ => None,
    });
    addresses::check(sockets, &mut compiled.findings);
    let places = Places::of(parts.iter().flat_map(Part::services));
    for part in &parts {
        let Part { nodes, aliases, manager } = part;
        let graph = Graph::new(nodes, aliases, manager, &places, &mut compiled.findings);
        let mut units = graph.units(compiled.units.len());
        part.wait_for_network(&mut units, &compiled.units);
        compiled.units.extend(units);
    }
    if parts.iter().all(|part| part.nodes.is_empty()) && compiled.findings.is_empty() {
        compiled.findings.push(Finding {
            severity: Severity::Error,
            span: None,
            message: format!("there is no unit in {}", input.folder.display()),
            label: String::new(),
            help: Some(
                "put a `.socket` and a `.service` or `.container` beside appliance.toml".into(),
            ),
        });
    }
}

/// The units of one manager, read.
struct Part {
    manager: Manager,
    nodes: BTreeMap<Name, Node>,
    aliases: BTreeMap<String, Name>,
}

impl Part {
    /// The services, each with the sockets that start it.
    fn services(&self) -> impl Iterator<Item = (&ServiceUnit, Vec<&Socket>)> {
        let living = || self.nodes.iter().filter(|(_, node)| node.lives());
        let own = |name: &'_ Name| self.aliases.get(name.as_str()).unwrap_or(name).clone();
        let sockets = move |service: &Name, unit: &ServiceUnit| -> Vec<&Socket> {
            let sockets = living().filter_map(|(name, node)| match &node.body {
                Body::Socket(socket) => Some((name, socket)),
                _ => None,
            });
            let starts = |name: &Name, socket: &SocketUnit| {
                socket.service.as_ref().is_some_and(|(starts, _)| own(starts) == *service)
                    || unit.sockets.iter().any(|(socket, _)| own(socket) == *name)
            };
            sockets.filter(|(name, it)| starts(name, it)).map(|(_, it)| &it.socket).collect()
        };
        living().filter_map(move |(name, node)| match &node.body {
            Body::Service(unit) => Some((unit, sockets(name, unit))),
            _ => None,
        })
    }

    /// What Podman's generator has a user's services wait for waits for a target of the system's
    /// manager; here they do so themselves, if there is a network to wait for.
    fn wait_for_network(&self, units: &mut [Unit], of_the_system: &[Unit]) {
        let online = (0u16..)
            .zip(of_the_system)
            .find(|(_, unit)| unit.owner.is_none() && unit.name == well_known::NETWORK_ONLINE);
        let Some(online) = online.map(|(id, _)| UnitId(id)) else { return };
        for (name, node) in self.nodes.iter().filter(|_| self.manager.user().is_some()) {
            let Some(unit) = units.iter_mut().find(|unit| unit.name == name.as_str()) else {
                continue;
            };
            for (relation, reference) in &node.section.relations {
                let list = match relation {
                    Relation::Wants => &mut unit.wants,
                    Relation::After => &mut unit.after,
                    _ => continue,
                };
                if reference.name.as_str() == well_known::NETWORK_ONLINE_OF_USERS {
                    list.push(online);
                }
            }
        }
    }
}

/// Reads all units of `facts.manager`.
fn read(facts: &mut Facts<'_>, compiled: &mut Compiled) -> Part {
    let mut files = Files::read(facts.input, &facts.manager, &mut compiled.findings);
    facts.resources = podman::resources::read(&files);
    facts.quadlets = quadlets::services(&files, facts.input, &mut compiled.findings);
    if facts.input.config.engine == Engine::Podman {
        podman::generate(&mut files, facts, &mut compiled.findings);
    }
    let containers = compiled.containers.len();
    let mut compiler = Compiler {
        facts,
        files: &files,
        compiled,
        nodes: BTreeMap::new(),
        aliases: BTreeMap::new(),
        wanted: vec![],
        seen: BTreeSet::new(),
        enabled: BTreeSet::new(),
        templates: BTreeMap::new(),
        accepting: BTreeSet::new(),
        health: BTreeMap::new(),
    };
    compiler.roots();
    compiler.enable();
    compiler.read();
    compiler.relays();
    compiler.links_of_targets();
    compiler.enabled_in_vain();
    compiler.templates_without_instance();
    compiler.drop_ins_of_nothing();
    let mut nodes = std::mem::take(&mut compiler.nodes);
    let aliases = std::mem::take(&mut compiler.aliases);
    dynamic_user::assign(&mut nodes, &facts.accounts);
    compiled.containers[containers..].sort_by(|a, b| a.0.cmp(&b.0));
    Part { manager: facts.manager.clone(), nodes, aliases }
}

struct Compiler<'c, 'f> {
    facts: &'f Facts<'f>,
    files: &'c Files,
    compiled: &'c mut Compiled,
    nodes: BTreeMap<Name, Node>,
    /// Other names of units.
    aliases: BTreeMap<String, Name>,
    /// To be read.
    wanted: Vec<Name>,
    /// Was in `wanted` already.
    seen: BTreeSet<Name>,
    /// Packaged units whose [Install] counts.
    enabled: BTreeSet<Name>,
    /// Templates of the folder, and where they are.
    templates: BTreeMap<Name, Span>,
    /// Health checks of containers of Podman's.
    health: BTreeMap<Name, Box<HealthCheck>>,
    /// Templates that connections are instances of: units of the manifest themselves.
    accepting: BTreeSet<Name>,
}

impl<'f> Compiler<'_, 'f> {
    /// What lies in the folder.
    fn roots(&mut self) {
        let files = self.files;
        for (name, entry) in &files.units {
            let Some(name) = Name::parse(name).filter(|_| entry.place == Place::Folder) else {
                continue;
            };
            match name.kind() {
                Kind::Other(kind) => self.compiled.findings.push(
                    Finding::error(
                        Span::file(&entry.source),
                        format!("`{name}`: units of the type `{kind}` are not supported by this version"),
                    )
                    .label("refused")
                    .help("only sockets, services, targets and containers are built; move this file away"),
                ),
                _ => self.wanted.push(name),
            }
        }
        for (service, file) in &self.facts.quadlets {
            let Some(entry) = files.quadlets.get(file) else { continue };
            if entry.place == Place::Folder {
                self.wanted.push(service.clone());
            }
            let Some(unit) = files.unit(service) else { continue };
            if unit.place == Place::Folder {
                let message = format!("`{file}` and `{service}` would be the same service");
                self.compiled.findings.push(
                    Finding::error(Span::file(&entry.source), message)
                        .label("becomes that service")
                        .help("rename one of the two, or change the container in a drop-in"),
                );
            }
        }
        for (link, target) in &files.aliases {
            if let Some(target) = Name::parse(target) {
                self.aliases.insert(link.clone(), target);
            }
        }
        for ((target, _), links) in &files.links {
            if well_known::is_boot_target(target, &self.facts.manager) {
                let ours = links.iter().filter(|(_, link)| is_ours(link));
                self.wanted.extend(ours.filter_map(|(name, _)| Name::parse(name)));
            }
        }
    }

    /// Units that appliance.toml lists.
    fn listed(&self) -> &'f [String] {
        match self.facts.manager.user() {
            None => &self.facts.input.config.enable,
            Some(user) => &user.enable,
        }
    }

    /// What appliance.toml enables.
    fn enable(&mut self) {
        for text in self.listed() {
            let name = Name::parse(text).map(|name| self.own_name(&name));
            let name = name.filter(|name| self.exists(name));
            if let Some(name) = name.filter(|name| !matches!(name.kind(), Kind::Other(_))) {
                self.enabled.insert(name.clone());
                self.wanted.push(name);
                continue;
            }
            let known = self.files.units.keys().chain(self.files.quadlets.keys());
            let near = suggest::nearest(text, known.map(String::as_str));
            let message = format!("`enable` names `{text}`, which is no unit of the image");
            self.compiled.findings.push(Finding {
                severity: Severity::Error,
                span: self.facts.input.config_source.map(|source| quoted(source, text)),
                message,
                label: "no such unit".into(),
                help: Some(match near {
                    Some(near) => format!("did you mean `{near}`?"),
                    None => {
                        format!("add the package that has it to `packages` in {}", config::FILE)
                    }
                }),
            });
        }
    }

    /// A unit by its own name, if it was another.
    fn own_name(&self, name: &Name) -> Name {
        self.aliases.get(name.as_str()).unwrap_or(name).clone()
    }

    /// All other names of a unit.
    fn other_names(&self, name: &Name) -> Vec<String> {
        let others = self.aliases.iter().filter(|(_, target)| *target == name);
        others.map(|(link, _)| link.clone()).collect()
    }

    fn exists(&self, name: &Name) -> bool {
        self.quadlet(name).is_some() || self.files.unit(name).is_some()
    }

    /// The Quadlet file of a service: its own, else its template's.
    fn quadlet(&self, name: &Name) -> Option<&String> {
        let quadlets = &self.facts.quadlets;
        quadlets.get(name).or_else(|| quadlets.get(&name.template()?))
    }

    /// Reads all that is wanted, and what that wants in turn.
    fn read(&mut self) {
        loop {
            while let Some(name) = self.wanted.pop() {
                if !self.seen.insert(name.clone()) {
                    continue;
                }
                if let Some(target) = self.aliases.get(name.as_str()) {
                    self.wanted.push(target.clone());
                    continue;
                }
                let Some(unit) = self.load(&name) else { continue };
                self.compiled.texts.insert(self.key(&name), cat::files(&unit));
                check::keys(&unit, self.facts.input.config.engine, &mut self.compiled.findings);
                let mut unit = self.podman(unit);
                if unit.quadlet.is_some() && self.facts.input.config.engine == Engine::Crun {
                    quadlet::resource::order(&mut unit, &self.facts.resources);
                }
                if let Some(node) = self.node(&unit) {
                    self.nodes.insert(name, node);
                }
            }
            self.also();
            if self.wanted.is_empty() {
                return;
            }
        }
    }

    /// The key of a unit's text.
    fn key(&self, name: &Name) -> (Option<String>, String) {
        let user = self.facts.manager.user().map(|user| user.name.clone());
        (user, name.to_string())
    }

    /// `Also=` of what is enabled enables more, which may have been read before.
    fn also(&mut self) {
        let mut enabling: Vec<Name> = self
            .nodes
            .iter()
            .filter(|(_, node)| node.enabled)
            .map(|(name, _)| name.clone())
            .collect();
        while let Some(name) = enabling.pop() {
            let Some(node) = self.nodes.get(&name) else { continue };
            for reference in node.install.also.clone() {
                let ours = self.nodes.get(&name).is_some_and(|node| node.ours);
                let exists = self.exists(&reference.name);
                match self.nodes.get_mut(&reference.name) {
                    Some(other) if other.enabled => {}
                    Some(other) => {
                        other.enabled = true;
                        enabling.push(reference.name);
                    }
                    None if exists && self.enabled.insert(reference.name.clone()) => {
                        self.wanted.push(reference.name);
                    }
                    None if exists => {}
                    None if ours => self.nothing_to_enable(&reference),
                    None => {}
                }
            }
        }
        for (name, node) in &self.nodes {
            for alias in node.install.alias.iter().filter(|_| node.enabled) {
                self.aliases.insert(alias.name.to_string(), name.clone());
            }
        }
    }

    fn nothing_to_enable(&mut self, reference: &Reference) {
        let message = format!("`Also=` names `{}`, which does not exist", reference.name);
        self.compiled.findings.push(
            Finding::warning(reference.span.clone(), message)
                .label("enables nothing")
                .help("take it out, or add the unit"),
        );
    }

    fn templates_without_instance(&mut self) {
        for (template, span) in &self.templates {
            let made = self.nodes.keys().any(|name| name.template().as_ref() == Some(template));
            if !made && !self.nodes.contains_key(template) {
                let message = format!("`{template}` is a template, and nothing names an instance");
                let help = "add `DefaultInstance=NAME` to [Install], or name an instance elsewhere";
                self.compiled.findings.push(Finding::warning(span.clone(), message).help(help));
            }
        }
    }

    /// A drop-in in the folder that changes no unit was meant for one.
    fn drop_ins_of_nothing(&mut self) {
        let mut used: BTreeSet<String> = BTreeSet::new();
        let others = self.aliases.iter().filter(|(_, name)| self.nodes.contains_key(*name));
        used.extend(others.flat_map(|(link, _)| drop_in::folders(link)));
        for name in self.nodes.keys() {
            used.extend(drop_in::folders(name.as_str()));
            used.extend(self.quadlet(name).iter().flat_map(|file| drop_in::folders(file)));
        }
        used.extend(self.facts.resources.keys().flat_map(|file| drop_in::folders(file)));
        for ((place, folder), entries) in &self.files.drop_ins {
            if *place != Place::Folder || used.contains(folder) {
                continue;
            }
            let near = suggest::nearest(folder, used.iter().map(String::as_str));
            for entry in entries.values() {
                let message = format!("the drop-in changes nothing: no unit belongs to `{folder}`");
                self.compiled.findings.push(
                    Finding::warning(Span::file(&entry.source), message).help(match near {
                        Some(near) => format!("did you mean the folder `{near}`?"),
                        None => "name the folder as the unit, with `.d` behind".into(),
                    }),
                );
            }
        }
    }

    fn load(&mut self, name: &Name) -> Option<Definition> {
        let files = self.files;
        if let Some(file) = self.quadlet(name).cloned() {
            let entry = files.quadlets.get(&file)?;
            let findings = &mut self.compiled.findings;
            return Some(Definition::quadlet(name, &file, entry, files, findings));
        }
        let entry: &Entry = files.unit(name)?;
        let names = self.other_names(name);
        Some(Definition::unit(name, &names, entry, files, &mut self.compiled.findings))
    }

    /// What a `.container` becomes with the engine podman.
    fn podman(&mut self, unit: Definition) -> Definition {
        if unit.quadlet.is_none() || self.facts.input.config.engine == Engine::Crun {
            return unit;
        }
        let facts = self.facts;
        let findings = &mut self.compiled.findings;
        let made = podman::make(&unit, &facts.resources, &facts.manager, findings);
        self.compiled.texts.insert(self.key(&unit.name), cat::made(&made.unit));
        // A specifier that has no value is found with the command line.
        let specifiers = facts.specifiers(&unit.name);
        let expand = |text: &String| specifiers.expand(text).unwrap_or_else(|_| text.clone());
        let image = made.image.map(|(image, span)| (expand(&image), span));
        self.compiled.images.extend(image.clone());
        if let Some(Checks { mut check, of_image }) = made.health.map(|checks| *checks) {
            let startup = check.startup.iter_mut().map(|startup| &mut startup.probe);
            for probe in std::iter::once(&mut check.probe).chain(startup) {
                probe.command.arguments.iter_mut().for_each(|word| *word = expand(word));
            }
            match image {
                Some((image, span)) if of_image => {
                    let (user, service) = self.key(&unit.name);
                    let health = ImageHealth { user, service, image, span, check };
                    self.compiled.image_health.push(health);
                }
                // What another unit makes is not known before.
                None if of_image => {}
                _ => drop(self.health.insert(unit.name.clone(), Box::new(check))),
            }
        }
        made.unit
    }

    /// Reads a unit, and notes which others it needs. A template is no unit itself.
    fn node(&mut self, unit: &Definition) -> Option<Node> {
        let ours = unit.place == Place::Folder;
        let enabled = ours || self.enabled.contains(&unit.name);
        // A mask is empty, and that is all there is to say about it.
        let mut unheard = vec![];
        let findings = match unit.masked {
            true => &mut unheard,
            false => &mut self.compiled.findings,
        };
        let mut keys = Keys::new(unit, self.facts, findings);
        let install = unit_section::read_install(&mut keys);
        if unit.name.is_template() && !self.accepting.contains(&unit.name) {
            self.template(unit, install.default_instance.as_deref(), enabled);
            return None;
        }
        let mut section = unit_section::read(&mut keys);
        let body = match unit.name.kind() {
            Kind::Socket => Body::Socket(socket::read(&mut keys)),
            Kind::Service if unit.quadlet.is_some() => {
                let (service, container) = read_quadlet(&mut keys, &mut self.compiled.chosen);
                if let Some(container) = container {
                    let text = cat::container(unit, &service, &container);
                    self.compiled.texts.insert(self.key(&unit.name), text);
                    self.compiled.containers.push((unit.name.to_string(), container));
                }
                Body::Service(service)
            }
            Kind::Service => {
                let mut service = service::read(&mut keys);
                service.service.health = self.health.remove(&unit.name);
                Body::Service(service)
            }
            Kind::Target => Body::Target,
            Kind::Other(_) => return None,
        };
        if !unit.masked {
            self.link(&unit.name, &mut section);
            self.follow(&section, &body);
        }
        Some(Node {
            section,
            install,
            enabled,
            ours,
            at_boot: false,
            masked: unit.masked,
            broken: unit.broken,
            span: unit.span(),
            body,
        })
    }

    fn template(&mut self, unit: &Definition, instance: Option<&str>, enabled: bool) {
        if unit.place == Place::Folder && !unit.masked {
            self.templates.insert(unit.name.clone(), unit.span());
        }
        if let Some(name) = instance.and_then(|instance| unit.name.instantiate(instance))
            && enabled
        {
            self.enabled.insert(name.clone());
            self.wanted.push(name);
        }
    }

    /// Units that a unit needs are compiled, wherever they are.
    fn follow(&mut self, section: &unit_section::UnitSection, body: &Body) {
        let pulled = section.relations.iter().filter(|(relation, _)| relation.pulls_in());
        self.wanted.extend(pulled.map(|(_, reference)| reference.name.clone()));
        match body {
            Body::Socket(socket) => {
                let services = socket.service.iter().map(|(name, _)| name.clone());
                if socket.socket.accept.is_some() {
                    for template in services.clone() {
                        // It may have been read as a template without an instance before.
                        if self.accepting.insert(template.clone()) {
                            self.seen.remove(&template);
                        }
                    }
                }
                self.wanted.extend(services);
            }
            Body::Service(service) => {
                self.wanted.extend(service.sockets.iter().map(|(name, _)| name.clone()));
            }
            Body::Target => {}
        }
    }
}

/// The service and the container of a `.container`.
fn read_quadlet(
    keys: &mut Keys<'_>,
    chosen: &mut Chosen,
) -> (service::ServiceUnit, Option<Container>) {
    let mut service = service::read(keys);
    let mut container = container::read(keys, &service.service.execution.environment);
    if let Some(container) = &mut container {
        if keys.facts.input.config.engine == Engine::Crun {
            quadlet::arguments::apply(container, keys.findings);
            quadlet::resource::name_volumes(keys, container);
            quadlet::image::name(keys, container);
            quadlet::resource::place_root(keys, container);
            quadlet::ids::look_up(keys, container);
            chosen.choose(container, keys.facts.input.config);
        }
        quadlet::service::complete(keys, &mut service, container);
    }
    (service, container)
}

/// Where a text stands in quotes in appliance.toml.
fn quoted(source: &std::sync::Arc<Source>, text: &str) -> Span {
    let range = match source.text.find(&format!("\"{text}\"")) {
        Some(at) => at + 1..at + 1 + text.len(),
        None => 0..0,
    };
    Span { source: source.clone(), range }
}
