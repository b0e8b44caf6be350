//! The relations of units, both ways, so that nobody has to look at all units to find a few.
//!
//! Made once from the manifest. Instances of `Accept=yes` are in no relation but order and
//! conflict, which they have from their template.

use crate::slots::Slots;
use activator::manifest::{Manifest, Unit, UnitId};

/// For each unit (and instance), those that are in a relation to it.
type Edges = Box<[Box<[UnitId]>]>;

/// The lists that the manifest does not have.
#[derive(Debug)]
pub(super) struct Graph {
    /// Those that come `after` it.
    pub(super) before: Edges,
    /// Those that cannot run beside it, whichever of the two says so.
    pub(super) conflicts: Edges,
    /// Those that are started with it.
    pub(super) pulls: Edges,
    /// Those that are stopped with it, by order or dependency.
    pub(super) drags: Edges,
    /// Those that are stopped when it goes down by itself (`BindsTo=`).
    pub(super) bound: Edges,
    /// Those that start it again whenever it is down (`Upholds=`).
    pub(super) upheld_by: Edges,
    /// Those for whose sake it runs, if it is one with `StopWhenUnneeded=`.
    pub(super) needed_by: Edges,
}

impl Graph {
    pub(super) fn new(manifest: &Manifest, slots: &Slots) -> Self {
        let spec = |index: usize| &manifest.units[slots.source(UnitId(index as u16)).index()];
        let (own, all) = (manifest.units.len(), slots.len());
        let reverse = |count: usize, of: &dyn Fn(&Unit) -> Vec<UnitId>| {
            let mut edges = vec![vec![]; all];
            for index in 0..count {
                for to in of(spec(index)) {
                    edges[to.index()].push(UnitId(index as u16));
                }
            }
            edges
        };
        let mut conflicts = reverse(all, &|unit| unit.conflicts.clone());
        for (index, edges) in conflicts.iter_mut().enumerate() {
            edges.extend(&spec(index).conflicts);
            edges.retain(|other| other.index() != index);
        }
        let pulls = (0..all).map(|index| {
            let unit = spec(index);
            [&unit.requires, &unit.binds_to, &unit.wants, &unit.upholds].map(|it| &it[..]).concat()
        });
        let drags = |unit: &Unit| {
            [&unit.requires, &unit.requisite, &unit.binds_to, &unit.part_of]
                .map(|it| &it[..])
                .concat()
        };
        let needs = |unit: &Unit| {
            [&unit.requires, &unit.requisite, &unit.binds_to, &unit.wants, &unit.upholds]
                .map(|it| &it[..])
                .concat()
        };
        let (mut drags, mut bound) =
            (reverse(own, &drags), reverse(own, &|unit| unit.binds_to.clone()));
        for index in 0..own {
            drags[index].extend(&spec(index).stops);
            bound[index].extend(&spec(index).stops);
        }
        Self {
            before: finish(reverse(all, &|unit| unit.after.clone())),
            conflicts: finish(conflicts),
            pulls: finish(pulls.collect()),
            drags: finish(drags),
            bound: finish(bound),
            upheld_by: finish(reverse(own, &|unit| unit.upholds.clone())),
            needed_by: finish(reverse(own, &needs)),
        }
    }
}

fn finish(edges: Vec<Vec<UnitId>>) -> Edges {
    let each = |mut list: Vec<UnitId>| {
        list.sort_unstable();
        list.dedup();
        list.into()
    };
    edges.into_iter().map(each).collect()
}

/// Scratch for what is reached from a unit, made at start-up.
#[derive(Debug)]
pub(super) struct Reach {
    /// Whether it is reached.
    pub(super) marks: Box<[bool]>,
    /// Reached, but not gone on from yet. Each unit is in it once at most, so it never grows.
    stack: Vec<UnitId>,
}

impl Reach {
    pub(super) fn new(count: usize) -> Self {
        Self { marks: vec![false; count].into(), stack: Vec::with_capacity(count) }
    }

    /// Marks a unit and all that are reached from it.
    pub(super) fn mark(&mut self, from: UnitId, edges: &Edges) {
        self.marks.fill(false);
        self.stack.clear();
        self.add(from);
        while let Some(unit) = self.stack.pop() {
            edges[unit.index()].iter().for_each(|next| self.add(*next));
        }
    }

    fn add(&mut self, unit: UnitId) {
        if !std::mem::replace(&mut self.marks[unit.index()], true) {
            self.stack.push(unit);
        }
    }
}
