//! From the state and the two manifests to what the tables are made of. Touches no fd.

use super::fd::Arriving;
use super::id;
use super::kept::{Kept, KeptUnit};
use super::listeners::{Known, Node, assign};
use super::merge::{Merged, merge};
use super::state::{Arrived, In, Listener as Open};
use crate::engine::Engine;
use crate::listen;
use crate::slots::Slots;
use crate::supervise::{self, Fate};
use crate::sys;
use activator::manifest::{
    Address, Lingering, Listener, Manifest, Service, ServiceKind, Socket, Unit, UnitId, UnitKind,
};
use activator::wire;

/// What goes on.
pub(crate) struct Prepared {
    /// The manifest that is in force from now on.
    pub(crate) manifest: Manifest,
    pub(crate) kept: Kept,
    /// The supervisor's state of each unit; None is new.
    pub(crate) units: Vec<Option<supervise::Unit>>,
    pub(crate) fates: Vec<Fate>,
    /// Listeners that nobody has any more, with the nodes to remove.
    pub(crate) dropped: Vec<(Arriving, Option<Node>)>,
    /// For each unit, for each Listen line that is kept: the old unit that it was of.
    origins: Vec<Vec<Option<usize>>>,
}

/// Prepares. `known` says whether `old` is all that was in force, or a [`sketch`].
pub(crate) fn prepare(arrived: &Arrived, old: &Manifest, known: Known, new: Manifest) -> Prepared {
    let saved: Vec<Option<supervise::Unit>> = old
        .units
        .iter()
        .enumerate()
        .map(|(index, unit)| {
            let arrived = arrived.units.get(index).filter(|arrived| arrived.name == unit.name)?;
            supervise::Unit::take_over(arrived.state.as_ref()?, arrived.main, &unit.kind)
        })
        .collect();
    let has_instances = |index: usize| {
        let own = arrived.units.get(index);
        let instances = arrived.units.iter().filter(|unit| unit.slot.is_some());
        own.is_some_and(|own| {
            instances.into_iter().any(|it| (&it.owner, &it.name) == (&own.owner, &own.name))
        })
    };
    let alive = |index: usize| {
        // Of a socket unit that is only sketched nothing is known that could be stopped.
        let sketched = known == Known::Not
            && matches!(old.units.get(index).map(|unit| &unit.kind), Some(UnitKind::Socket(_)));
        let unit = saved.get(index).and_then(Option::as_ref);
        !sketched && (unit.is_some_and(|unit| !unit.is_idle()) || has_instances(index))
    };
    let mut merged = merge(old, new, alive);
    let instances = instances(arrived, &mut merged.manifest);
    let assigned = assign(old, known, &arrived.units, &merged);
    let mut kept =
        Kept { link: Some(arrived.link), logger: Some(arrived.logger), ..Kept::default() };
    let mut saved = saved;
    let (mut units, mut fates, mut origins) = (vec![], vec![], vec![]);
    for (index, unit) in merged.manifest.units.iter().enumerate() {
        let before = merged.before[index];
        let of_before = before.and_then(|before| arrived.units.get(before));
        let listeners = &assigned.kept[index];
        kept.units.push(of_before.map_or_else(KeptUnit::default, |arrived| KeptUnit {
            listeners: vec![],
            notify: arrived.notify,
            log: arrived.log,
            sessions: arrived.sessions,
            connection: None,
            store: arrived.store.clone().unwrap_or_default(),
        }));
        if let Some(kept) = kept.units.last_mut() {
            kept.listeners = listeners.iter().map(|kept| kept.map(|(fd, _)| fd)).collect();
        }
        origins.push(listeners.iter().map(|kept| kept.map(|(_, from)| from)).collect());
        units.push(before.and_then(|before| saved.get_mut(before)?.take()));
        fates.push(fate(&merged, index, old, listeners.iter().all(Option::is_some), unit));
    }
    let slots = Slots::new(&merged.manifest);
    for (unit, slot) in slots.iter() {
        let position = unit.index() - slots.of(slot.socket).start;
        let here = |(place, _): &&(_, _)| *place == (slot.socket, position);
        let instance = instances.iter().find(here).map(|(_, instance)| *instance);
        let template = merged.manifest.unit(slot.template).map(|unit| &unit.kind);
        kept.units.push(instance.map_or_else(KeptUnit::default, |instance| KeptUnit {
            notify: instance.notify,
            sessions: instance.sessions,
            connection: instance.connection.clone(),
            ..KeptUnit::default()
        }));
        units.push(instance.zip(template).and_then(|(instance, template)| {
            supervise::Unit::take_over(instance.state.as_ref()?, instance.main, template)
        }));
        fates.push(Fate::Stays);
    }
    let dropped = assigned.dropped;
    Prepared { manifest: merged.manifest, kept, units, fates, dropped, origins }
}

/// The instances that run, by socket unit and position. They keep their positions, so a limit
/// that is lower than before is in force when the highest have gone.
fn instances<'a>(arrived: &'a Arrived, manifest: &mut Manifest) -> Vec<((UnitId, usize), &'a In)> {
    let mut instances = vec![];
    for instance in &arrived.units {
        let Some(position) = instance.slot else { continue };
        let owner = instance.owner.as_deref();
        let index = manifest.units.iter().position(|unit| {
            unit.name == instance.name
                && manifest.user_of(unit).map(|user| user.name.as_str()) == owner
        });
        let Some(index) = index else { continue };
        if let UnitKind::Socket(socket) = &mut manifest.units[index].kind
            && let Some(accept) = &mut socket.accept
        {
            let least = u32::try_from(position.saturating_add(1)).unwrap_or(u32::MAX);
            accept.max_connections = accept.max_connections.max(least);
            instances.push(((id(index), position), instance));
        }
    }
    instances
}

fn fate(merged: &Merged, index: usize, old: &Manifest, all_open: bool, unit: &Unit) -> Fate {
    if merged.leaves[index] {
        return Fate::Ends;
    }
    let before = merged.before[index].and_then(|before| old.units.get(before));
    let started_before = before.is_some_and(|before| before.start_at_boot);
    match &unit.kind {
        _ if unit.start_at_boot && !started_before => Fate::Starts,
        UnitKind::Socket(_) if !all_open => Fate::Opens,
        _ => Fate::Stays,
    }
}

impl Prepared {
    /// Gives listeners that are kept the settings that the new manifest has for them.
    pub(crate) fn refresh(&self, engine: &Engine, old: &Manifest) {
        for (index, unit) in engine.world.manifest.units.iter().enumerate() {
            let UnitKind::Socket(socket) = &unit.kind else { continue };
            for (listener, fd) in engine.world.listeners.open_ones(id(index)) {
                let origin = self.origins.get(index).and_then(|unit| *unit.get(listener)?);
                let before = origin.and_then(|origin| old.units.get(origin));
                if let (Some(UnitKind::Socket(before)), Some(listener)) =
                    (before.map(|unit| &unit.kind), socket.listeners.get(listener))
                {
                    let rights = engine.world.rights(id(index));
                    sys::with_rights_of(rights, || listen::refresh(fd, listener, before, socket));
                }
            }
        }
    }
}

/// The old manifest as far as the state tells it, for an activator that cannot read its version:
/// names, and what is listened on.
pub(crate) fn sketch(arrived: &Arrived) -> Manifest {
    let units = || arrived.units.iter().filter(|unit| unit.slot.is_none());
    let mut names: Vec<&String> = units().filter_map(|unit| unit.owner.as_ref()).collect();
    names.sort();
    names.dedup();
    let owner = |unit: &In| {
        let index = names.binary_search(&unit.owner.as_ref()?).ok()?;
        u16::try_from(index).ok()
    };
    let unit = |unit: &In| {
        let listener = |open: &Open<Address, Arriving>| Listener {
            kind: open.kind,
            address: wire::copy(&open.address),
        };
        let kind = match unit.name.rsplit('.').next() {
            Some("service") => {
                UnitKind::Service(Service { kind: ServiceKind::Oneshot, ..Service::default() })
            }
            Some("socket") => UnitKind::Socket(Socket {
                listeners: unit.listeners.iter().map(listener).collect(),
                ..Socket::default()
            }),
            _ => UnitKind::Target,
        };
        // All that was there has been started if it was to be.
        Unit {
            name: unit.name.clone(),
            owner: owner(unit),
            start_at_boot: true,
            kind,
            ..Unit::default()
        }
    };
    Manifest {
        users: names
            .iter()
            .map(|name| Lingering { name: (*name).clone(), ..Lingering::default() })
            .collect(),
        units: units().map(unit).collect(),
        ..Manifest::default()
    }
}
