//! `X-RelayTo=` of a socket unit becomes a service of its own: `foo.socket` starts
//! `foo-relay.service`, and that the service it is for, which gets no sockets.
//!
//! It is written as a unit file and read as one, so that `rouse cat` shows all that it is. It is
//! bound to its service: when that goes down, so does the relay, and the socket listens again.
//! When it has been idle for the service's idle time it ends, and PID 1 sees to the service
//! (`relays` in the manifest).

use super::Compiler;
use crate::finding::{Finding, Source};
use crate::units::cat;
use crate::units::definition::Definition;
use crate::units::files::{Entry, Place};
use crate::units::graph::{Body, Node};
use crate::units::name::Name;
use crate::units::quoting::quote;
use crate::units::service::ServiceUnit;
use crate::units::socket::{RELAY_TO, Relay, SocketUnit};
use crate::units::value::time;
use activator::manifest::{Execution, User};
use std::sync::Arc;

/// How long what a program has sent before it ended may take to its clients.
const STOP_US: u64 = 10_000_000;
/// More than the relay itself waits for the program.
const START_SLACK_US: u64 = 10_000_000;

impl Compiler<'_, '_> {
    /// Makes the relays of all sockets that were read.
    pub(super) fn relays(&mut self) {
        let sockets = self.nodes.iter().filter(|(_, node)| node.lives());
        let relayed: Vec<Name> = sockets
            .filter(|(_, node)| matches!(&node.body, Body::Socket(it) if it.relay.is_some()))
            .map(|(name, _)| name.clone())
            .collect();
        for name in relayed {
            self.relay(&name);
        }
    }

    fn relay(&mut self, name: &Name) {
        let Some(Node { body: Body::Socket(unit), .. }) = self.nodes.get(name) else { return };
        let (Some(relay), Some((target, span))) = (unit.relay.clone(), unit.service.clone()) else {
            return;
        };
        let target = self.own_name(&target);
        let Some(Node { body: Body::Service(service), .. }) = self.nodes.get(&target) else {
            // That there is no such service is said of the socket.
            return;
        };
        let Some(own) = relay_name(name) else { return };
        if self.exists(&own) || self.nodes.contains_key(&own) {
            let message = format!("the relay of `{name}` would be `{own}`, which exists");
            self.compiled.findings.push(
                Finding::error(relay.span, message)
                    .label("needs a service of that name")
                    .help("rename one of the two"),
            );
            return;
        }
        if service.service.execution.stage2.as_ref().is_some_and(|it| {
            it.sandbox.namespaces.network || it.sandbox.network_namespace_path.is_some()
        }) {
            let message = format!("`{target}` has a network of its own, where no relay reaches it");
            self.compiled.findings.push(
                Finding::error(relay.span, message)
                    .label("reaches containers, and the guest's own network")
                    .help("take `PrivateNetwork=` out of it, or make it a `.container`"),
            );
            return;
        }
        // Of either engine.
        let container = self.quadlet(&target).is_some();
        let text = text(name, &target, unit, &relay, service, self.inside(&target, container));
        let path = format!("{own} (made of {RELAY_TO}= in {})", span.source.path);
        let entry = Entry { source: Arc::new(Source { path, text }), place: Place::Folder };
        let files = self.files;
        let definition = Definition::unit(&own, &[], &entry, files, &mut self.compiled.findings);
        self.compiled.texts.insert(self.key(&own), cat::files(&definition));
        let Some(mut node) = self.node(&definition) else { return };
        if let (Body::Service(relay), true) = (&mut node.body, container) {
            // To enter a container takes root. A user's unit is the user's unless it says so.
            let root = self.facts.manager.user().map(|_| User::default());
            relay.service.execution = Execution { user: root, ..Execution::default() };
        }
        self.nodes.insert(own.clone(), node);
        self.seen.insert(own.clone());
        if let Some(Node { body: Body::Socket(unit), .. }) = self.nodes.get_mut(name) {
            unit.service = Some((own.clone(), span));
            // The relay looks at its clients, and nobody else accepts.
            unit.socket.allow_cids.clear();
        }
        if let Some(Node { body: Body::Service(service), .. }) = self.nodes.get_mut(&target) {
            service.relays.push(own);
        }
    }

    /// The cgroup of the container's unit below that of all services.
    fn inside(&self, target: &Name, container: bool) -> Option<String> {
        container.then(|| match self.facts.manager.user() {
            Some(user) => format!("user-{}/{target}", user.uid),
            None => target.to_string(),
        })
    }
}

/// `foo-relay.service` of `foo.socket`, `foo-relay@x.service` of `foo@x.socket`.
fn relay_name(socket: &Name) -> Option<Name> {
    let instance = socket.instance().map(|instance| format!("@{instance}")).unwrap_or_default();
    Name::parse(&format!("{}-relay{instance}.service", socket.prefix()))
}

fn text(
    name: &Name,
    target: &Name,
    unit: &SocketUnit,
    relay: &Relay,
    service: &ServiceUnit,
    inside: Option<String>,
) -> String {
    let mut words = vec!["/usr/bin/activator".to_owned(), "relay".into()];
    words.push("--wait-for-backend".into());
    words.push(format!("--connect-timeout={}", span(relay.timeout_us)));
    let times = [service.service.stop_when_idle_us, service.service.freeze_when_idle_us];
    if let Some(first) = times.into_iter().filter(|time| *time > 0).min() {
        words.push(format!("--exit-idle-time={}", span(first)));
        words.push(format!("--flow-idle-time={}", span(first)));
    }
    words.extend(relay.protocol.map(|protocol| format!("--proxy-protocol={protocol}")));
    words.extend(unit.socket.allow_cids.iter().map(|cid| format!("--allow-cid={cid}")));
    words.extend(inside.map(|place| format!("--inside={place}")));
    words.push(relay.to.to_string());
    let words: Vec<String> = words.iter().map(|word| quote(word)).collect();
    let start = match relay.timeout_us {
        0 => "infinity".into(),
        timeout => time::show(timeout.saturating_add(START_SLACK_US)),
    };
    format!(
        "[Unit]\n\
         Description=Relay from {name} to {} in {target}\n\
         BindsTo={target}\n\
         After={target}\n\
         \n\
         [Service]\n\
         Type=notify\n\
         ExecStart={}\n\
         TimeoutStartSec={start}\n\
         TimeoutStopSec={}\n",
        relay.to,
        words.join(" "),
        time::show(STOP_US),
    )
}

/// A time as an option takes it, without blanks.
fn span(us: u64) -> String {
    match us {
        0 => "infinity".into(),
        us if us.is_multiple_of(1_000_000) => format!("{}s", us / 1_000_000),
        us => format!("{us}us"),
    }
}
