//! Slots for instances: where the tables of the supervisor and its hands keep room for the
//! connections of `Accept=yes`.
//!
//! A slot is addressed by a [`UnitId`] behind those of the manifest, so that all that is said of
//! a service (its processes, its cgroup, its notify socket) can be said of an instance. Its
//! settings are those of the template. Each socket unit has `MaxConnections=` slots in a row; the
//! layout follows from the manifest alone.

use activator::manifest::{Accept, Manifest, Unit, UnitId, UnitKind};
use std::ops::Range;

/// Slots of all units together.
pub(crate) const MOST: usize = Accept::MOST as usize;

/// The layout.
#[derive(Debug)]
pub(crate) struct Slots {
    /// Units of the manifest; the first slot has this id.
    units: usize,
    /// Who each slot belongs to.
    owners: Box<[Slot]>,
}

/// Who a slot belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Slot {
    /// The socket unit whose connections it takes.
    pub(crate) socket: UnitId,
    /// The template whose instance it is.
    pub(crate) template: UnitId,
}

impl Slots {
    /// Lays out the slots. More than [`MOST`] are cut in proportion, each socket unit keeping
    /// one at least.
    pub(crate) fn new(manifest: &Manifest) -> Self {
        let all: usize = manifest.units.iter().map(wanted).fold(0, usize::saturating_add);
        let units = manifest.units.len();
        let most = MOST.min(usize::from(u16::MAX).saturating_sub(units));
        let takers = manifest.units.iter().filter(|unit| wanted(unit) > 0).count();
        let mut owners = vec![];
        for (index, unit) in manifest.units.iter().enumerate() {
            let UnitKind::Socket(socket) = &unit.kind else { continue };
            let slot = Slot { socket: UnitId(index as u16), template: socket.service };
            let share = match wanted(unit) {
                0 => 0,
                own if all <= most => own,
                // One for each, and the rest in proportion.
                own => {
                    let (rest, others) = (most.saturating_sub(takers), all.saturating_sub(takers));
                    1 + ((own as u128 - 1) * rest as u128 / others as u128) as usize
                }
            };
            let room = most.saturating_sub(owners.len());
            owners.extend(std::iter::repeat_n(slot, share.min(room)));
        }
        Self { units, owners: owners.into() }
    }

    /// The number of units and slots: the length of a table that has an entry for each.
    pub(crate) fn len(&self) -> usize {
        self.units + self.owners.len()
    }

    /// All slots with their ids.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (UnitId, Slot)> {
        self.owners.iter().enumerate().map(|(index, slot)| (id(self.units + index), *slot))
    }

    /// Who a slot belongs to; None for a unit of the manifest.
    pub(crate) fn owner(&self, unit: UnitId) -> Option<Slot> {
        self.owners.get(unit.index().checked_sub(self.units)?).copied()
    }

    /// Whether a unit of the manifest is a template, which never runs itself.
    pub(crate) fn is_template(&self, unit: UnitId) -> bool {
        self.owners.iter().any(|slot| slot.template == unit)
    }

    /// The unit of the manifest that says how this unit, or instance, is to be run.
    pub(crate) fn source(&self, unit: UnitId) -> UnitId {
        self.owner(unit).map_or(unit, |slot| slot.template)
    }

    /// The slots of a socket unit, as indices.
    pub(crate) fn of(&self, socket: UnitId) -> Range<usize> {
        let first = self.owners.partition_point(|slot| slot.socket < socket);
        let end = self.owners.partition_point(|slot| slot.socket <= socket);
        self.units + first..self.units + end
    }

    /// Where a slot is among those of its template: what its files are named by, since a reload
    /// may give it another id.
    pub(crate) fn position(&self, unit: UnitId) -> usize {
        let Some(slot) = self.owner(unit) else { return 0 };
        let before = self.owners.iter().take(unit.index().saturating_sub(self.units));
        before.filter(|other| other.template == slot.template).count()
    }

    /// What to tell about socket units that get fewer slots than they ask for.
    pub(crate) fn troubles(&self, manifest: &Manifest) -> Vec<String> {
        let cut = |(index, unit): (usize, &Unit)| {
            let (asked, got) = (wanted(unit), self.of(id(index)).len());
            (got < asked).then(|| {
                format!(
                    "{}: MaxConnections={asked}, but there is room for {MOST} connections of all \
                     units: {got} is the limit",
                    unit.name
                )
            })
        };
        manifest.units.iter().enumerate().filter_map(cut).collect()
    }
}

fn wanted(unit: &Unit) -> usize {
    match &unit.kind {
        UnitKind::Socket(socket) => socket
            .accept
            .map_or(0, |accept| usize::try_from(accept.max_connections).unwrap_or(MOST)),
        _ => 0,
    }
}

/// Unit ids end at 65535; [`Slots::new`] makes no slot beyond.
fn id(index: usize) -> UnitId {
    UnitId(index as u16)
}

#[cfg(test)]
mod tests {
    use super::*;
    use activator::manifest::{Accept, Socket};

    fn manifest(limits: &[u32]) -> Manifest {
        let unit = |(index, limit): (usize, &u32)| Unit {
            name: format!("{index}.socket"),
            kind: UnitKind::Socket(Socket {
                accept: (*limit > 0)
                    .then_some(Accept { max_connections: *limit, max_per_source: 0 }),
                service: UnitId(9),
                ..Socket::default()
            }),
            ..Unit::default()
        };
        let units = limits.iter().enumerate().map(unit).collect();
        Manifest { units, ..Manifest::default() }
    }

    #[test]
    fn each_socket_unit_has_its_slots_in_a_row() {
        let slots = Slots::new(&manifest(&[2, 0, 3]));
        assert_eq!(slots.len(), 3 + 5);
        assert_eq!(slots.of(UnitId(0)), 3..5);
        assert_eq!(slots.of(UnitId(1)), 5..5);
        assert_eq!(slots.of(UnitId(2)), 5..8);
        assert_eq!(slots.source(UnitId(2)), UnitId(2));
        assert_eq!(slots.source(UnitId(7)), UnitId(9));
        assert_eq!(slots.owner(UnitId(2)), None);
        assert_eq!(slots.owner(UnitId(8)), None);
        assert!(slots.iter().all(|(unit, slot)| slots.owner(unit) == Some(slot)));
    }

    #[test]
    fn too_many_are_cut_in_proportion_and_told() {
        let manifest = manifest(&[1, u32::MAX, 4096]);
        let slots = Slots::new(&manifest);
        assert!(slots.len() <= 3 + MOST);
        assert_eq!(slots.of(UnitId(0)).len(), 1);
        assert!(slots.of(UnitId(1)).len() > 4000);
        assert_eq!(slots.of(UnitId(2)).len(), 1);
        assert_eq!(slots.troubles(&manifest).len(), 2);
    }

    #[test]
    fn nothing_is_told_when_all_have_room() {
        let manifest = manifest(&[64, 64]);
        assert_eq!(Slots::new(&manifest).troubles(&manifest), Vec::<String>::new());
    }
}
