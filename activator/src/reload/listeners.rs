//! Which open listener is whose after a reload.
//!
//! A listener stays open, with its backlog, where the new manifest has one of the same kind and
//! address that is bound alike: in the same unit, else in any other. Of several that are the same
//! (ReusePort=) each is used once, in order, so that none is opened twice and none is left over.

use super::fd::Arriving;
use super::merge::Merged;
use super::state::{In, Listener as Open};
use crate::listen;
use activator::manifest::{Address, ListenKind, Listener, Manifest, Socket, UnitKind};

/// Who gets what.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Assigned {
    /// For each unit of the merged manifest, for each Listen line: the fd, and the unit of the old
    /// manifest that it came from.
    pub(crate) kept: Vec<Vec<Option<(Arriving, usize)>>>,
    /// Nobody's any more: the fd, and the node to remove.
    pub(crate) dropped: Vec<(Arriving, Option<Node>)>,
}

/// A node to remove.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Node {
    pub(crate) path: String,
    /// With the rights of that user and group; None is root.
    pub(crate) rights: Option<(u32, u32)>,
}

/// Assigns. `arrived` has the units of the old manifest in their order. What is not known of a
/// unit there, since that manifest cannot be read, is taken to be as it should.
pub(crate) fn assign(old: &Manifest, known: Known, arrived: &[In], merged: &Merged) -> Assigned {
    let mut free: Vec<(usize, &Open<Address, Arriving>)> = arrived
        .iter()
        .enumerate()
        .filter(|(_, unit)| unit.slot.is_none())
        .flat_map(|(index, unit)| unit.listeners.iter().map(move |listener| (index, listener)))
        .collect();
    let before = |index: usize| match &old.units.get(index)?.kind {
        UnitKind::Socket(socket) => Some(socket),
        _ => None,
    };
    let mut claim = |unit: Option<usize>, socket: &Socket, wanted: &Listener| {
        let place = free.iter().position(|(index, open)| {
            unit.is_none_or(|unit| unit == *index)
                && (open.kind, &open.address) == (wanted.kind, &wanted.address)
                && (known == Known::Not
                    || before(*index).is_some_and(|old| listen::is_bound_alike(old, socket)))
        })?;
        let (index, open) = free.remove(place);
        Some((open.fd, index))
    };
    let units = &merged.manifest.units;
    let sockets = || {
        units.iter().enumerate().filter_map(|(index, unit)| match &unit.kind {
            UnitKind::Socket(socket) => Some((index, socket)),
            _ => None,
        })
    };
    let mut kept: Vec<Vec<_>> = units.iter().map(|_| vec![]).collect();
    for (index, socket) in sockets() {
        let own = merged.before.get(index).copied().flatten();
        let own = |wanted| own.and_then(|own| claim(Some(own), socket, wanted));
        kept[index] = socket.listeners.iter().map(own).collect();
    }
    for (index, socket) in sockets() {
        for (place, wanted) in kept[index].iter_mut().zip(&socket.listeners) {
            if place.is_none() {
                *place = claim(None, socket, wanted);
            }
        }
    }
    let stays = |path: &String| {
        let address = Address::Path(path.clone());
        sockets().any(|(_, socket)| socket.listeners.iter().any(|it| it.address == address))
    };
    let dropped = free.into_iter().map(|(index, open)| {
        let removes = before(index).is_some_and(|socket| socket.remove_on_stop);
        let node = match &open.address {
            // A special file was there before.
            Address::Path(path) if removes && open.kind != ListenKind::Special && !stays(path) => {
                let user = old.units.get(index).and_then(|unit| old.user_of(unit));
                let rights = user.map(|user| (user.ids.uid, user.ids.gid));
                Some(Node { path: path.clone(), rights })
            }
            _ => None,
        };
        (open.fd, node)
    });
    Assigned { dropped: dropped.collect(), kept }
}

/// Whether the old manifest is the one that was in force, or only what the state tells of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Known {
    Fully,
    Not,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reload::merge::merge;
    use activator::manifest::{Service, SocketOption, Unit, UnitId};

    fn tcp(port: u16) -> Listener {
        let address = Address::Inet([127, 0, 0, 1], port);
        Listener { kind: ListenKind::Stream, address }
    }

    fn path(path: &str) -> Listener {
        Listener { kind: ListenKind::Stream, address: Address::Path(path.into()) }
    }

    fn socket(listeners: &[Listener]) -> Socket {
        Socket { listeners: listeners.to_vec(), ..Socket::default() }
    }

    /// A service, and a socket unit for each.
    fn manifest(sockets: &[(&str, Socket)]) -> Manifest {
        let mut units = vec![Unit {
            name: "a.service".into(),
            kind: UnitKind::Service(Service::default()),
            ..Unit::default()
        }];
        units.extend(sockets.iter().map(|(name, socket)| Unit {
            name: (*name).into(),
            kind: UnitKind::Socket(Socket { service: UnitId(0), ..socket.clone() }),
            ..Unit::default()
        }));
        Manifest { units, ..Manifest::default() }
    }

    /// All listeners of a manifest, open, with fds from 10 on.
    fn open(manifest: &Manifest) -> Vec<In> {
        let mut fd = 9;
        let unit = |unit: &Unit| {
            let mut all = vec![];
            if let UnitKind::Socket(socket) = &unit.kind {
                for (index, listener) in socket.listeners.iter().enumerate() {
                    fd += 1;
                    let Listener { kind, address } = listener.clone();
                    let fd = Arriving::new(fd);
                    all.push(Open { index: index as u16, kind, address, fd });
                }
            }
            In { name: unit.name.clone(), listeners: all, ..In::default() }
        };
        manifest.units.iter().map(unit).collect()
    }

    fn assigned(old: &Manifest, new: &Manifest) -> (Vec<Vec<i32>>, Vec<i32>) {
        let merged = merge(old, new.clone(), |_| false);
        let number = |fd: Arriving| format!("{fd:?}")[9..].trim_end_matches(')').parse().unwrap();
        let assigned = assign(old, Known::Fully, &open(old), &merged);
        let kept = assigned
            .kept
            .iter()
            .skip(1)
            .map(|unit| unit.iter().map(|fd| fd.map_or(-1, |(fd, _)| number(fd))).collect());
        let dropped = assigned.dropped.iter().map(|(fd, _)| number(*fd)).collect();
        (kept.collect(), dropped)
    }

    #[test]
    fn what_is_the_same_stays_in_any_order() {
        let old = manifest(&[("a.socket", socket(&[tcp(1), tcp(2), tcp(3)]))]);
        let new = manifest(&[("a.socket", socket(&[tcp(3), tcp(4), tcp(1)]))]);
        assert_eq!(assigned(&old, &new), (vec![vec![12, -1, 10]], vec![11]));
    }

    #[test]
    fn a_listener_moves_to_another_unit_but_not_away_from_its_own() {
        let old = manifest(&[("b.socket", socket(&[tcp(1)])), ("c.socket", socket(&[tcp(2)]))]);
        let new =
            manifest(&[("a.socket", socket(&[tcp(1), tcp(2)])), ("c.socket", socket(&[tcp(2)]))]);
        assert_eq!(assigned(&old, &new), (vec![vec![10, -1], vec![11]], vec![]));
    }

    /// systemd#19843: two listeners of one port, by ReusePort=.
    #[test]
    fn listeners_that_are_the_same_are_used_once_each() {
        let twice = |count: usize| {
            let mut socket = socket(&vec![tcp(1); count]);
            socket.options = vec![SocketOption::ReusePort];
            manifest(&[("a.socket", socket)])
        };
        assert_eq!(assigned(&twice(2), &twice(2)), (vec![vec![10, 11]], vec![]));
        assert_eq!(assigned(&twice(2), &twice(1)), (vec![vec![10]], vec![11]));
        assert_eq!(assigned(&twice(1), &twice(2)), (vec![vec![10, -1]], vec![]));
    }

    #[test]
    fn what_only_bind_decides_needs_another_socket() {
        let mut free = socket(&[tcp(1)]);
        free.options = vec![SocketOption::FreeBind];
        let mut live = socket(&[tcp(1)]);
        live.options = vec![SocketOption::KeepAlive];
        let [old, free, live] =
            [socket(&[tcp(1)]), free, live].map(|socket| manifest(&[("a.socket", socket)]));
        assert_eq!(assigned(&old, &free), (vec![vec![-1]], vec![10]));
        assert_eq!(assigned(&old, &live), (vec![vec![10]], vec![]));
    }

    #[test]
    fn nodes_are_removed_if_the_old_unit_says_so_and_nobody_needs_them() {
        let mut old = socket(&[path("/a"), path("/b")]);
        old.remove_on_stop = true;
        let mut new = socket(&[path("/a")]);
        new.protocol = 7;
        let (old, new) = (manifest(&[("a.socket", old)]), manifest(&[("a.socket", new)]));
        let merged = merge(&old, new, |_| false);
        let dropped = assign(&old, Known::Fully, &open(&old), &merged).dropped;
        let nodes: Vec<_> =
            dropped.into_iter().map(|(_, node)| node.map(|node| node.path)).collect();
        assert_eq!(nodes, [None, Some("/b".to_owned())]);
    }
}
