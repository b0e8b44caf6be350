//! What the engine's tables are filled with after a reload.

use super::fd::Arriving;
use crate::connection::{self, Connection};
use crate::world::LogPipe;
use crate::{link, logger, store};
use activator::manifest::UnitId;
use std::os::fd::OwnedFd;

/// Fds and process groups, by the ids of the manifest that is in force; nothing at a first start.
/// Each fd is taken once.
#[derive(Debug, Default)]
pub(crate) struct Kept {
    pub(crate) link: Option<link::Saved<Arriving>>,
    pub(crate) logger: Option<logger::Saved<Arriving>>,
    /// At the indices of units and slots.
    pub(crate) units: Vec<KeptUnit>,
    /// Logs that are new, and that logd is to be given.
    pub(crate) without_log: Vec<UnitId>,
}

/// What is kept of one unit.
#[derive(Debug, Default)]
pub(crate) struct KeptUnit {
    /// One for each Listen line.
    pub(crate) listeners: Vec<Option<Arriving>>,
    pub(crate) notify: Option<Arriving>,
    pub(crate) log: Option<(Arriving, Arriving)>,
    pub(crate) sessions: [i32; 2],
    /// Of an instance that does not have it yet.
    pub(crate) connection: Option<connection::Saved<Arriving>>,
    /// What the service has left with us.
    pub(crate) store: Vec<store::Saved<Arriving>>,
}

impl Kept {
    /// Whether this is a first start.
    pub(crate) fn is_empty(&self) -> bool {
        self.link.is_none()
    }

    /// The log pipe of a unit. A unit that has none is noted: it may get one.
    pub(crate) fn log(&mut self, unit: UnitId) -> Option<LogPipe> {
        let kept = self.units.get(unit.index()).and_then(|kept| kept.log);
        let pipe = kept.and_then(|(read, write)| Some((read.take()?, write.take()?)));
        if pipe.is_none() {
            self.without_log.push(unit);
        }
        pipe
    }

    /// The notify socket of a unit.
    pub(crate) fn notify(&self, unit: UnitId) -> Option<OwnedFd> {
        self.units.get(unit.index())?.notify?.take()
    }

    /// A listener of a unit.
    pub(crate) fn listener(&self, unit: UnitId, listener: usize) -> Option<OwnedFd> {
        (*self.units.get(unit.index())?.listeners.get(listener)?)?.take()
    }

    /// The stored fds of a unit.
    pub(crate) fn store(&self, unit: usize) -> &[store::Saved<Arriving>] {
        self.units.get(unit).map_or(&[], |kept| &kept.store)
    }

    /// The connection of an instance.
    pub(crate) fn connection(&self, slot: usize) -> Option<Connection> {
        Connection::take_over(self.units.get(slot)?.connection.as_ref()?)
    }

    /// The process groups of a unit.
    pub(crate) fn sessions(&self, unit: usize) -> [i32; 2] {
        self.units.get(unit).map_or([0; 2], |kept| kept.sessions)
    }
}
