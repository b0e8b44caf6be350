//! The process that hands over: from the order to execve(2), without allocation.

use super::exec::{Errand, Turn, execute};
use super::fd::Leaving;
use super::state::{self, Listener, Out, Program, State};
use crate::connection::Connection;
use crate::engine::Engine;
use crate::store::Store;
use crate::{supervise, sys};
use activator::control::{Event, Programs};
use activator::manifest::{Address, UnitId, UnitKind};
use activator::wire::{Put, Writer};
use rustix::fs::{self, CWD, Mode, OFlags};
use rustix::io::Errno;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// The first fd that is not a standard stream.
const FIRST: u32 = 3;

impl Engine {
    /// Executes ourselves, or the new program, with the new manifest. Returns only if that was
    /// not possible; then nothing has changed.
    pub(crate) fn replace(
        &mut self,
        manifest: Option<OwnedFd>,
        programs: Option<Programs<OwnedFd>>,
    ) {
        let Some(manifest) = manifest else { return };
        self.world.link.flush();
        let errno = self.execute(manifest.as_fd(), programs.as_ref());
        // What was to be kept is ours alone again. It cannot fail where it did not before.
        let _ = sys::close_on_exec_from(FIRST);
        self.world.link.tell(None, Event::SpawnFailed(errno.raw_os_error()));
    }

    fn execute(&self, manifest: BorrowedFd, programs: Option<&Programs<OwnedFd>>) -> Errno {
        let own = || {
            let flags = OFlags::PATH | OFlags::CLOEXEC;
            fs::openat(CWD, c"/proc/self/exe", flags, Mode::empty())
        };
        let way_back = match own() {
            Ok(fd) => fd,
            Err(errno) => return errno,
        };
        let state = State {
            place: &self.place,
            machine: self.supervisor.machine(),
            manifest: Leaving(self.copy.as_fd()),
            new: Some(Leaving(manifest)),
            program: if programs.is_some() { Program::New } else { Program::Same },
            activator: programs.map(|new| Leaving(new.activator.as_fd())),
            way_back: Leaving(way_back.as_fd()),
            link: self.world.link.leave(),
            logger: self.logger.leave(),
            units: Units(self),
        };
        let state = match state::write(&state) {
            Ok(state) => state,
            Err(errno) => return errno,
        };
        execute(&Errand {
            program: programs.map_or(way_back.as_fd(), |new| new.init.as_fd()),
            name: &self.name,
            state: state.as_fd(),
            way_back: way_back.as_fd(),
            turn: Turn::Forth,
        })
    }

    /// A unit, or a slot that is taken; None for one that is free.
    fn out(&self, index: usize) -> Option<Out<'_, Listeners<'_>>> {
        let (world, id) = (&self.world, UnitId(index as u16));
        let state = self.supervisor.unit(id);
        let owner = world.slots.owner(id);
        if owner.is_some() && state.is_none_or(supervise::Unit::is_idle) {
            return None;
        }
        let unit = world.manifest.unit(owner.map_or(id, |slot| slot.socket))?;
        let slot = owner.map(|slot| index.saturating_sub(world.slots.of(slot.socket).start));
        let pipe = world.logs.get(index).and_then(Option::as_ref);
        Some(Out {
            owner: world.manifest.user_of(unit).map(|user| user.name.as_str()),
            name: &unit.name,
            slot,
            listeners: Listeners(self, id),
            notify: world.notifies.get(index).and_then(Option::as_ref).map(|it| Leaving(it.fd())),
            log: pipe.map(|(read, write)| (Leaving(read.as_fd()), Leaving(write.as_fd()))),
            sessions: world.sessions.get(index).copied().unwrap_or_default(),
            connection: world.connections.of(index).map(Connection::leave),
            store: world.stores.get(index).and_then(Option::as_ref).map(Store::leave),
            main: state.and_then(supervise::Unit::main),
            state,
        })
    }
}

/// All units, in the manifest's order, and then the instances.
struct Units<'a>(&'a Engine);

impl Put for Units<'_> {
    fn put(&self, to: &mut Writer<'_>) {
        let units = 0..self.0.world.slots.len();
        to.list(units.filter_map(|index| self.0.out(index)));
    }
}

/// The open listeners of a unit.
struct Listeners<'a>(&'a Engine, UnitId);

impl Put for Listeners<'_> {
    fn put(&self, to: &mut Writer<'_>) {
        let (world, unit) = (&self.0.world, self.1);
        let socket = match world.manifest.unit(unit).map(|unit| &unit.kind) {
            Some(UnitKind::Socket(socket)) => Some(socket),
            _ => None,
        };
        let open = world.listeners.open_ones(unit).filter_map(|(index, fd)| {
            let listener = socket?.listeners.get(index)?;
            let (kind, address): (_, &Address) = (listener.kind, &listener.address);
            Some(Listener { index: index as u16, kind, address, fd: Leaving(fd) })
        });
        to.list(open);
    }
}
