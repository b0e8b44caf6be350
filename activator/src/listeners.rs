//! The open listeners of all socket units. An IPv6 address on a kernel without IPv6 is skipped,
//! and is then no fd of the unit.

use crate::listen;
use crate::supervise::OpenFailed;
use activator::manifest::{Address, Manifest, Socket, Unit, UnitId, UnitKind};
use rustix::io::Errno;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// The fds of all socket units.
#[derive(Debug)]
pub(crate) struct Listeners {
    /// One for each unit, at its index; empty if it is no socket.
    units: Box<[Box<[Slot]>]>,
}

#[derive(Debug)]
enum Slot {
    Closed,
    /// The kernel does not know the address family.
    Skipped,
    Open(OwnedFd),
}

impl Listeners {
    /// Makes the table, with the listeners that are open already.
    pub(crate) fn new(
        manifest: &Manifest,
        mut open: impl FnMut(UnitId, usize) -> Option<OwnedFd>,
    ) -> Self {
        let slots = |(index, unit): (usize, &Unit)| match &unit.kind {
            UnitKind::Socket(socket) => (0..socket.listeners.len())
                .map(|listener| match open(UnitId(index as u16), listener) {
                    Some(fd) => Slot::Open(fd),
                    None => Slot::Closed,
                })
                .collect(),
            _ => Box::default(),
        };
        Self { units: manifest.units.iter().enumerate().map(slots).collect() }
    }

    /// The open ones of a unit, each with its index.
    pub(crate) fn open_ones(&self, unit: UnitId) -> impl Iterator<Item = (usize, BorrowedFd<'_>)> {
        let slots = self.units.get(unit.index()).into_iter().flatten().enumerate();
        slots.filter_map(|(index, slot)| match slot {
            Slot::Open(fd) => Some((index, fd.as_fd())),
            _ => None,
        })
    }

    /// Opens what is not open yet, whatever becomes of the others. The error is the first one.
    pub(crate) fn open(&mut self, unit: UnitId, socket: &Socket) -> Result<(), OpenFailed> {
        let Some(slots) = self.units.get_mut(unit.index()) else { return Ok(()) };
        let mut first = None;
        for (index, (slot, listener)) in slots.iter_mut().zip(&socket.listeners).enumerate() {
            if !matches!(slot, Slot::Open(_)) {
                *slot = match listen::open(socket, listener) {
                    Ok(fd) => Slot::Open(fd),
                    Err(Errno::AFNOSUPPORT) if matches!(listener.address, Address::Inet6(..)) => {
                        Slot::Skipped
                    }
                    Err(errno) => {
                        first = first.or(Some((index as u16, errno.raw_os_error())));
                        Slot::Closed
                    }
                };
            }
        }
        let others = slots.iter().any(|slot| matches!(slot, Slot::Open(_)));
        if others {
            listen::link(socket);
        }
        match first.or((!others).then_some((0, libc::EAFNOSUPPORT))) {
            Some((listener, errno)) => Err(OpenFailed { listener, errno, others }),
            None => Ok(()),
        }
    }

    /// Closes all, and removes the nodes if the unit says so.
    pub(crate) fn close(&mut self, unit: UnitId, socket: &Socket) {
        for slot in self.units.get_mut(unit.index()).into_iter().flatten() {
            *slot = Slot::Closed;
        }
        if !socket.remove_on_stop {
            return;
        }
        listen::remove_nodes(socket);
    }

    /// The fd of one listener, if it is open.
    pub(crate) fn fd(&self, unit: UnitId, listener: u16) -> Option<BorrowedFd<'_>> {
        match self.units.get(unit.index())?.get(usize::from(listener))? {
            Slot::Open(fd) => Some(fd.as_fd()),
            _ => None,
        }
    }

    /// The open fds of a unit, in the order of its Listen lines.
    pub(crate) fn fds(&self, unit: UnitId) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.units.get(unit.index()).into_iter().flatten().filter_map(|slot| match slot {
            Slot::Open(fd) => Some(fd.as_fd()),
            _ => None,
        })
    }

    /// Drops what waits.
    pub(crate) fn flush(&self, unit: UnitId, socket: &Socket) {
        let slots = self.units.get(unit.index()).into_iter().flatten();
        for (slot, listener) in slots.zip(&socket.listeners) {
            if let Slot::Open(fd) = slot {
                listen::flush(fd.as_fd(), listener.kind);
            }
        }
    }
}
