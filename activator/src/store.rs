//! The fds that services have left with us: `FDSTORE=1` of sd_notify(3), `FileDescriptorStoreMax=`.
//!
//! A service sends an fd with a message; its next process gets it behind the fds of its sockets,
//! under the name that it was given. An fd whose other end is gone (EPOLLHUP, EPOLLERR) is closed,
//! unless its service said `FDPOLL=0`.

use crate::reload::fd::{Arriving, Leaving};
use crate::sys;
use crate::token::Token;
use activator::foreign::Foreign;
use activator::manifest::{Service, UnitId};
use activator::notification::{Name, Watch};
use activator::wire;
use activator::wire::{Put, Writer};
use mio::unix::SourceFd;
use mio::{Interest, Registry};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

/// `FileDescriptorStoreMax=` counts up to this.
const MOST: usize = Service::MOST_STORED as usize;
/// One service's fds, in the order in which they came.
#[derive(Debug)]
pub(crate) struct Store {
    /// Never grows beyond the capacity that it was made with.
    entries: Vec<Entry>,
}

#[derive(Debug)]
struct Entry {
    fd: Foreign,
    name: Name,
    watch: Watch,
}

/// What a reload hands over of one.
#[derive(Debug, Clone)]
pub(crate) struct Saved<F> {
    pub(crate) fd: F,
    name: Name,
    watch: Watch,
}

wire! {
    struct Saved<F> { fd, name, watch }
}

/// All of a service, for the next process.
pub(crate) struct Leave<'a>(&'a Store);

impl Put for Leave<'_> {
    fn put(&self, to: &mut Writer<'_>) {
        to.list(self.0.entries.iter().map(|entry| Saved {
            fd: Leaving(entry.fd.as_fd()),
            name: entry.name.clone(),
            watch: entry.watch,
        }));
    }
}

impl Store {
    /// For the next process.
    pub(crate) fn leave(&self) -> Leave<'_> {
        Leave(self)
    }

    /// From the process before; what has no room any more is closed.
    pub(crate) fn take_over(
        &mut self,
        registry: &Registry,
        unit: UnitId,
        saved: &[Saved<Arriving>],
    ) {
        for Saved { fd, name, watch } in saved {
            if let Some(fd) = fd.take() {
                self.add(registry, unit, fd.into(), name, *watch);
            }
        }
    }

    /// The number of fds that a service may store.
    pub(crate) fn room(service: &Service) -> usize {
        usize::try_from(service.fd_store_max).unwrap_or(MOST).min(MOST)
    }

    /// None for a service that may store none.
    pub(crate) fn new(service: &Service) -> Option<Self> {
        let room = Self::room(service);
        (room > 0).then(|| Self { entries: Vec::with_capacity(room) })
    }

    /// Keeps an fd. False if there is no room; it is closed then. One that is stored already is
    /// closed, too, which is no failure.
    pub(crate) fn add(
        &mut self,
        registry: &Registry,
        unit: UnitId,
        fd: Foreign,
        name: &Name,
        watch: Watch,
    ) -> bool {
        if self.entries.iter().any(|entry| sys::same_file(entry.fd.as_fd(), fd.as_fd())) {
            return true;
        }
        if self.entries.len() == self.entries.capacity() {
            return false;
        }
        if watch == Watch::HangUps {
            // Hang-ups come whatever is asked for. A file that cannot be watched has none.
            let token = Token::Stored(unit).into();
            let _ = registry.register(&mut SourceFd(&fd.as_raw_fd()), token, Interest::PRIORITY);
        }
        self.entries.push(Entry { fd, name: name.clone(), watch });
        true
    }

    /// Closes those of that name.
    pub(crate) fn remove(&mut self, registry: &Registry, name: &Name) {
        self.retain(registry, |entry| entry.name != *name);
    }

    /// Closes those whose other end is gone.
    pub(crate) fn drop_hung_up(&mut self, registry: &Registry) {
        self.retain(registry, |entry| {
            let mut asked = [PollFd::new(&entry.fd, PollFlags::empty())];
            let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
            let gone = poll(&mut asked, Some(&at_once)).is_ok()
                && asked[0].revents().intersects(PollFlags::HUP | PollFlags::ERR);
            entry.watch == Watch::Nothing || !gone
        });
    }

    /// Closes all.
    pub(crate) fn clear(&mut self, registry: &Registry) {
        self.retain(registry, |_| false);
    }

    /// Closes the others. Their watch does not end with that: the service may have the open file
    /// still (epoll(7), "Will closing a file descriptor cause it to be removed?").
    fn retain(&mut self, registry: &Registry, stays: impl Fn(&Entry) -> bool) {
        self.entries.retain(|entry| {
            let stays = stays(entry);
            if !stays {
                // Fails only if it is not watched.
                let _ = registry.deregister(&mut SourceFd(&entry.fd.as_raw_fd()));
            }
            stays
        });
    }

    /// The fds, in their order.
    pub(crate) fn fds(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.entries.iter().map(|entry| entry.fd.as_fd())
    }

    /// Their names, in the same order.
    pub(crate) fn names(&self) -> impl Iterator<Item = &[u8]> {
        self.entries.iter().map(|entry| entry.name.as_slice())
    }
}
