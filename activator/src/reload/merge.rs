//! Two manifests become one: the new one, and of the old one what still runs.
//!
//! A unit that the new manifest has no more, but that is not down, stays in the manifest with its
//! old definition until the next reload, so that it is stopped in order, by its own commands. It
//! starts at no boot, and no unit of the new manifest refers to it.
//!
//! A listener of such a socket unit whose address the new manifest gives to another unit is not
//! in it any more: its fd goes over to that unit ([`super::listeners`]), and so does the node.

use activator::manifest::{Lingering, Manifest, Owner, Unit, UnitId, UnitKind};
use activator::wire;

/// The manifest that is in force after a reload.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Merged {
    pub(crate) manifest: Manifest,
    /// For each unit: its index in the old manifest.
    pub(crate) before: Vec<Option<usize>>,
    /// For each unit: whether the new manifest has it no more.
    pub(crate) leaves: Vec<bool>,
}

/// A unit's name for both manifests: its user's and its own.
type Key<'a> = (Option<&'a str>, &'a str);

/// Where a unit is in the old and in the new manifest.
type Indices = (Option<usize>, Option<usize>);

fn key<'a>(manifest: &'a Manifest, unit: &'a Unit) -> Key<'a> {
    (user(manifest, unit.owner), &unit.name)
}

fn user(manifest: &Manifest, owner: Owner) -> Option<&str> {
    Some(manifest.users.get(usize::from(owner?))?.name.as_str())
}

/// Merges. `alive` says of a unit of the old manifest whether it is not down.
pub(crate) fn merge(old: &Manifest, new: Manifest, alive: impl Fn(usize) -> bool) -> Merged {
    let leaving = leaving(old, &new, alive);
    let users = users(old, &new, &leaving);
    // All units by their keys, which is the order of a manifest: no user comes first.
    let news = new.units.iter().enumerate();
    let mut units: Vec<(Key, Indices)> =
        news.map(|(index, unit)| (key(&new, unit), (None, Some(index)))).collect();
    for (index, unit) in old.units.iter().enumerate() {
        let key = key(old, unit);
        match units.binary_search_by(|(other, _)| other.cmp(&key)) {
            Ok(at) => units[at].1.0 = Some(index),
            Err(at) if place(&leaving, index).is_ok() => {
                units.insert(at, (key, (Some(index), None)));
            }
            Err(_) => {}
        }
    }
    let (mut from_old, mut from_new) = (vec![None; old.units.len()], vec![None; new.units.len()]);
    for (at, (_, (before, after))) in units.iter().enumerate() {
        let id = u16::try_from(at).ok().map(UnitId);
        if let Some(entry) = before.and_then(|index| from_old.get_mut(index)) {
            *entry = id;
        }
        if let Some(entry) = after.and_then(|index| from_new.get_mut(index)) {
            *entry = id;
        }
    }
    let mut merged = Merged::default();
    for ((user, _), (before, after)) in &units {
        let renumber = |unit: &mut Unit, ids: &[Option<UnitId>]| {
            unit.renumber(|id| ids.get(id.index()).copied().flatten());
        };
        let mut unit = match (after, before) {
            (Some(index), _) => {
                let mut unit = wire::copy(&new.units[*index]);
                renumber(&mut unit, &from_new);
                unit
            }
            (None, Some(index)) => {
                let Ok(at) = place(&leaving, *index) else { continue };
                let mut unit = wire::copy(&leaving[at].1);
                renumber(&mut unit, &from_old);
                unit.start_at_boot = false;
                unit
            }
            (None, None) => continue,
        };
        unit.owner = user.and_then(|name| owner(&users, name));
        merged.manifest.units.push(unit);
        merged.before.push(*before);
        merged.leaves.push(after.is_none());
    }
    merged.manifest = Manifest { users, units: merged.manifest.units, ..new };
    merged
}

fn owner(users: &[Lingering], name: &str) -> Option<u16> {
    let at = users.binary_search_by(|user| user.name.as_str().cmp(name)).ok()?;
    u16::try_from(at).ok()
}

/// Whether a manifest has the unit of another one.
fn has(manifest: &Manifest, (user, name): Key) -> bool {
    let owner = match user {
        Some(user) => match owner(&manifest.users, user) {
            Some(owner) => Some(owner),
            None => return false,
        },
        None => None,
    };
    manifest.find_of(owner, name).is_some()
}

/// Units by their index in the old manifest, which is their order.
type Leaving = Vec<(usize, Unit)>;

/// Where a unit is among them, or where it would be.
fn place(leaving: &Leaving, index: usize) -> Result<usize, usize> {
    leaving.binary_search_by(|(other, _)| other.cmp(&index))
}

/// The units of the old manifest that stay for a while, as far as they stay.
fn leaving(old: &Manifest, new: &Manifest, alive: impl Fn(usize) -> bool) -> Leaving {
    let addresses = new.units.iter().flat_map(|unit| match &unit.kind {
        UnitKind::Socket(socket) => &socket.listeners[..],
        _ => &[],
    });
    let addresses: Vec<_> = addresses.collect();
    let mut leaving = vec![];
    for (index, unit) in old.units.iter().enumerate() {
        if has(new, key(old, unit)) || !alive(index) {
            continue;
        }
        let mut unit = wire::copy(unit);
        if let UnitKind::Socket(socket) = &mut unit.kind {
            socket.listeners.retain(|listener| !addresses.contains(&listener));
            if socket.listeners.is_empty() {
                continue;
            }
            // Its service stays too, even if it is down: a socket without one there is not.
            let service = socket.service.index();
            if let Some(spec) = old.units.get(service)
                && !has(new, key(old, spec))
                && let Err(at) = place(&leaving, service)
            {
                leaving.insert(at, (service, wire::copy(spec)));
            }
        }
        match place(&leaving, index) {
            Ok(at) => leaving[at].1 = unit,
            Err(at) => leaving.insert(at, (index, unit)),
        }
    }
    leaving
}

/// The users of both, as far as they have units; sorted by name, the new ones' entries first.
fn users(old: &Manifest, new: &Manifest, leaving: &Leaving) -> Vec<Lingering> {
    let mut users = wire::copy(&new.users);
    for (_, unit) in leaving {
        let user = unit.owner.and_then(|owner| old.users.get(usize::from(owner)));
        if let Some(user) = user
            && let Err(at) = users.binary_search_by(|other| other.name.cmp(&user.name))
        {
            users.insert(at, wire::copy(user));
        }
    }
    users
}

#[cfg(test)]
mod tests {
    use super::*;
    use activator::manifest::{Address, Command, ListenKind, Listener, Service, Socket};

    fn service(sockets: &[u16]) -> UnitKind {
        UnitKind::Service(Service {
            start: vec![Command::default()],
            sockets: sockets.iter().copied().map(UnitId).collect(),
            ..Service::default()
        })
    }

    fn socket(service: u16, ports: &[u16]) -> UnitKind {
        let listener = |port: &u16| Listener {
            kind: ListenKind::Stream,
            address: Address::Inet([127, 0, 0, 1], *port),
        };
        let listeners = ports.iter().map(listener).collect();
        UnitKind::Socket(Socket { service: UnitId(service), listeners, ..Socket::default() })
    }

    fn unit(name: &str, kind: UnitKind) -> Unit {
        Unit { name: name.into(), start_at_boot: true, kind, ..Unit::default() }
    }

    fn manifest(units: Vec<Unit>) -> Manifest {
        Manifest { units, ..Manifest::default() }
    }

    fn names(merged: &Merged) -> Vec<(&str, bool)> {
        let units = merged.manifest.units.iter().zip(&merged.leaves);
        units.map(|(unit, leaves)| (unit.name.as_str(), *leaves)).collect()
    }

    #[test]
    fn the_same_again_is_the_same() {
        let old = manifest(vec![
            unit("a.service", service(&[1])),
            unit("a.socket", socket(0, &[1, 2])),
            unit("b.target", UnitKind::Target),
        ]);
        let merged = merge(&old, old.clone(), |_| true);
        assert_eq!(merged.manifest, old);
        assert_eq!(merged.before, [Some(0), Some(1), Some(2)]);
        assert_eq!(merged.leaves, [false; 3]);
        assert_eq!(Manifest::decode(&merged.manifest.encode()), Ok(old));
    }

    #[test]
    fn what_is_gone_and_down_is_forgotten_and_what_lives_stays_to_be_stopped() {
        let mut b = unit("b.service", service(&[3]));
        b.after = vec![UnitId(0), UnitId(3)];
        let old = manifest(vec![
            unit("a.service", service(&[])),
            b,
            unit("c.service", service(&[])),
            unit("b.socket", socket(1, &[7])),
        ]);
        let mut c = unit("c.service", service(&[]));
        c.wants = vec![UnitId(1)];
        let new = manifest(vec![c, unit("d.service", service(&[]))]);
        let merged = merge(&old, new, |index| index == 1);
        assert_eq!(
            names(&merged),
            [("b.service", true), ("c.service", false), ("d.service", false)]
        );
        let units = &merged.manifest.units;
        // Whom it came after is no more.
        assert_eq!(units[0].after, []);
        assert!(!units[0].start_at_boot);
        assert_eq!(units[1].wants, [UnitId(2)]);
        assert_eq!(merged.before, [Some(1), Some(2), None]);
        assert!(Manifest::decode(&merged.manifest.encode()).is_ok());
    }

    #[test]
    fn a_socket_that_leaves_takes_its_service_along_but_not_an_address_that_stays() {
        let old = manifest(vec![unit("a.service", service(&[1])), {
            unit("a.socket", socket(0, &[7, 8]))
        }]);
        let other = |ports: &[u16]| {
            manifest(vec![unit("z.service", service(&[1])), unit("z.socket", socket(0, ports))])
        };
        let merged = merge(&old, other(&[8]), |index| index == 1);
        let all =
            [("a.service", true), ("a.socket", true), ("z.service", false), ("z.socket", false)];
        assert_eq!(names(&merged), all);
        assert_eq!(merged.manifest.units[1].kind, socket(0, &[7]));
        assert_eq!(merged.manifest.units[3].kind, socket(2, &[8]));
        assert!(Manifest::decode(&merged.manifest.encode()).is_ok());
        // All its addresses stay with another: nothing is left to be closed.
        let merged = merge(&old, other(&[7, 8]), |index| index == 1);
        assert_eq!(names(&merged), [("z.service", false), ("z.socket", false)]);
    }

    #[test]
    fn users_are_matched_by_name() {
        let user = |name: &str| Lingering { name: name.into(), ..Lingering::default() };
        let of = |owner, name: &str| Unit { owner, ..unit(name, service(&[])) };
        let old = Manifest {
            users: vec![user("ann"), user("bob")],
            units: vec![of(None, "x.service"), of(Some(0), "x.service"), of(Some(1), "y.service")],
            ..Manifest::default()
        };
        let new = Manifest {
            users: vec![user("bob"), user("carl")],
            units: vec![of(Some(0), "y.service"), of(Some(1), "x.service")],
            ..Manifest::default()
        };
        let merged = merge(&old, new, |index| index == 1);
        let users: Vec<_> = merged.manifest.users.iter().map(|user| user.name.as_str()).collect();
        assert_eq!(users, ["ann", "bob", "carl"]);
        let owners: Vec<_> = merged.manifest.units.iter().map(|unit| unit.owner).collect();
        assert_eq!(owners, [Some(0), Some(1), Some(2)]);
        assert_eq!(merged.before, [Some(1), Some(2), None]);
        assert_eq!(merged.leaves, [true, false, false]);
        assert!(Manifest::decode(&merged.manifest.encode()).is_ok());
    }
}
