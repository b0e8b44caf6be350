//! Which units anything can be the matter with.
//!
//! Each event looks at units several times, and there may be thousands: so those that sleep are
//! left out. A unit wakes when anything of it is written ([`Units`] sees to that), a socket also
//! when its service is awake, whose state it follows. It falls asleep when all that the event has
//! led to is done, and it waits for nothing: no job, no deadline, no process, no client.
//!
//! A service that is not down never sleeps, nor does a slot that is taken.

use super::{State, Supervisor, Unit, id};
use activator::control::SocketState;
use activator::manifest::UnitKind;
use std::ops::{Deref, Index, IndexMut};
use std::slice::SliceIndex;

/// All units, and behind them the slots. Whoever is written to is awake.
#[derive(Debug)]
pub(super) struct Units {
    units: Box<[Unit]>,
    awake: Bits,
}

impl Units {
    /// All of them are awake.
    pub(super) fn new(units: Box<[Unit]>) -> Self {
        let awake = Bits(vec![!0; units.len().div_ceil(64)].into());
        Self { units, awake }
    }

    pub(super) fn get_mut(&mut self, index: usize) -> Option<&mut Unit> {
        self.awake.set(index, true);
        self.units.get_mut(index)
    }

    fn wake(&mut self, index: usize) {
        self.awake.set(index, true);
    }
}

impl Deref for Units {
    type Target = [Unit];

    fn deref(&self) -> &[Unit] {
        &self.units
    }
}

impl<I: SliceIndex<[Unit]>> Index<I> for Units {
    type Output = I::Output;

    fn index(&self, index: I) -> &I::Output {
        &self.units[index]
    }
}

impl IndexMut<usize> for Units {
    fn index_mut(&mut self, index: usize) -> &mut Unit {
        self.awake.set(index, true);
        &mut self.units[index]
    }
}

impl<'a> IntoIterator for &'a mut Units {
    type Item = &'a mut Unit;
    type IntoIter = std::slice::IterMut<'a, Unit>;

    fn into_iter(self) -> Self::IntoIter {
        self.awake.0.fill(!0);
        self.units.iter_mut()
    }
}

#[derive(Debug)]
struct Bits(Box<[u64]>);

impl Bits {
    fn set(&mut self, index: usize, on: bool) {
        let bit = 1 << (index % 64);
        let Some(word) = self.0.get_mut(index / 64) else { return };
        *word = if on { *word | bit } else { *word & !bit };
    }

    fn is_on(&self, index: usize) -> bool {
        self.0.get(index / 64).is_some_and(|word| word >> (index % 64) & 1 == 1)
    }

    /// The first that is on, from this one on.
    fn next(&self, from: usize) -> Option<usize> {
        let mut index = from / 64;
        let mut bits = self.0.get(index)? & (!0 << (from % 64));
        while bits == 0 {
            index += 1;
            bits = *self.0.get(index)?;
        }
        Some(index * 64 + bits.trailing_zeros() as usize)
    }
}

impl Supervisor<'_> {
    /// The first unit or slot that is awake, from this index on.
    pub(super) fn awake_from(&self, index: usize) -> Option<usize> {
        self.units.awake.next(index).filter(|index| *index < self.units.len())
    }

    /// All of them.
    pub(super) fn awake(&self) -> impl Iterator<Item = usize> {
        let next = |index: &usize| self.awake_from(index + 1);
        std::iter::successors(self.awake_from(0), next)
    }

    /// Calls for each, and for those behind it that it wakes.
    pub(super) fn each_awake(&mut self, mut call: impl FnMut(&mut Self, usize)) {
        let mut next = 0;
        while let Some(index) = self.awake_from(next) {
            call(self, index);
            next = index + 1;
        }
    }

    /// Calls for each unit of the manifest, and each slot that is awake.
    pub(super) fn each_present(&mut self, mut call: impl FnMut(&mut Self, usize)) {
        let own = self.manifest.units.len();
        (0..own).for_each(|index| call(self, index));
        let mut next = own;
        while let Some(index) = self.awake_from(next) {
            call(self, index);
            next = index + 1;
        }
    }

    /// Sockets follow their services.
    pub(super) fn wake_followers(&mut self) {
        let manifest = self.manifest;
        self.each_awake(|it, index| {
            if let Some(UnitKind::Service(service)) = manifest.units.get(index).map(|it| &it.kind) {
                service.sockets.iter().for_each(|socket| it.units.wake(socket.index()));
            }
        });
    }

    /// Lets those fall asleep that wait for nothing.
    pub(super) fn fall_asleep(&mut self) {
        let mut next = 0;
        while let Some(index) = self.awake_from(next) {
            next = index + 1;
            if self.may_sleep(index) {
                self.units.awake.set(index, false);
            }
        }
        debug_assert!((0..self.units.len()).all(|index| {
            self.units.awake.is_on(index) || (self.may_sleep(index) && self.follows(index))
        }));
    }

    fn may_sleep(&self, index: usize) -> bool {
        let unit = &self.units[index];
        let waits = unit.job.is_some()
            || unit.check.is_some()
            || unit.visitor.is_some()
            || unit.idle.deadline().is_some();
        let calm = match &unit.state {
            State::Socket(socket) => {
                let at_rest = [SocketState::Listening, SocketState::Running, SocketState::Dead];
                let over = at_rest.contains(&socket.state) || socket.state == SocketState::Failed;
                over && socket.command.is_none() && socket.deadline().is_none()
            }
            State::Service(service) => {
                service.is_down() && self.service_deadline(index, service).is_none()
            }
            State::Target { .. } => true,
        };
        calm && !waits
    }

    /// Whether a socket listens if its service is gone, and only then.
    fn follows(&self, index: usize) -> bool {
        let State::Socket(socket) = &self.units[index].state else { return true };
        let UnitKind::Socket(spec) = &self.spec(id(index)).kind else { return true };
        let open = [SocketState::Listening, SocketState::Running].contains(&socket.state);
        let gone = spec.accept.is_some() || self.is_gone(spec.service);
        let ends = self.machine == activator::control::MachineState::Stopping;
        !open || ends || gone == (socket.state == SocketState::Listening)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_that_are_on_are_found_in_order() {
        let mut bits = Bits(vec![0; 3].into());
        assert_eq!(bits.next(0), None);
        for index in [0, 63, 64, 129] {
            bits.set(index, true);
        }
        let all = |bits: &Bits| {
            let mut found: Vec<usize> = vec![];
            while let Some(index) = bits.next(found.last().map_or(0, |last| last + 1)) {
                found.push(index);
            }
            found
        };
        assert_eq!(all(&bits), [0, 63, 64, 129]);
        bits.set(64, false);
        assert_eq!(all(&bits), [0, 63, 129]);
        assert_eq!(bits.next(130), None);
        assert_eq!(bits.next(1000), None);
    }
}
