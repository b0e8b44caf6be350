//! Fds from one process to the next: by their numbers, over execve(2).
//!
//! All fds of ours are close-on-exec. [`Leaving`] clears that when it is written, so that just
//! what stands in the state is kept; should the exec fail, all are marked again. [`Arriving`] is
//! only a number until it is taken, so that a state that turns out to be of no use can still be
//! handed to somebody else.
#![allow(unsafe_code)]

use activator::wire;
use activator::wire::{Put, Writer};
use rustix::io::{FdFlags, fcntl_getfd, fcntl_setfd};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

/// An fd on its way out.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Leaving<'a>(pub(crate) BorrowedFd<'a>);

impl Put for Leaving<'_> {
    fn put(&self, to: &mut Writer<'_>) {
        // It cannot fail for an fd that is open.
        let _ = fcntl_setfd(self.0, FdFlags::empty());
        self.0.as_raw_fd().put(to);
    }
}

/// An fd that has come with a state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Arriving(RawFd);

// One that lacks is a standard stream, which nobody can take.
wire! {
    tuple Arriving(number)
}

impl Arriving {
    /// As it came on the command line.
    pub(crate) fn new(number: RawFd) -> Self {
        Self(number)
    }

    /// Takes it over; from now on it is close-on-exec. None if it is not open, or was taken
    /// before: nothing else has that flag so early in a process that just began.
    pub(crate) fn take(self) -> Option<OwnedFd> {
        if self.0 <= 2 {
            return None;
        }
        // SAFETY: the number is only used for calls that fail if it is not open.
        let seen = unsafe { BorrowedFd::borrow_raw(self.0) };
        if fcntl_getfd(seen).ok()?.contains(FdFlags::CLOEXEC) {
            return None;
        }
        fcntl_setfd(seen, FdFlags::CLOEXEC).ok()?;
        // SAFETY: it is open, our former self left it for us to own, and the flag that was just
        // set keeps it from being taken twice.
        Some(unsafe { OwnedFd::from_raw_fd(self.0) })
    }

    /// Looks at it without taking it.
    pub(crate) fn peek<T>(self, look: impl FnOnce(BorrowedFd) -> T) -> Option<T> {
        if self.0 < 0 {
            return None;
        }
        // SAFETY: as in `take`; nobody closes it while `look` runs, since nobody owns it yet.
        let seen = unsafe { BorrowedFd::borrow_raw(self.0) };
        fcntl_getfd(seen).ok()?;
        Some(look(seen))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::{AsFd, IntoRawFd};

    #[test]
    fn an_fd_is_taken_once() {
        let file = std::fs::File::open("/dev/null").unwrap();
        let bytes = wire::to_vec(&Leaving(file.as_fd()));
        assert!(!fcntl_getfd(&file).unwrap().contains(FdFlags::CLOEXEC));
        let arriving: Arriving = wire::from_bytes(&bytes).unwrap();
        let number = file.into_raw_fd();
        let taken = arriving.take().unwrap();
        assert_eq!(taken.as_raw_fd(), number);
        assert!(fcntl_getfd(&taken).unwrap().contains(FdFlags::CLOEXEC));
        assert!(arriving.take().is_none());
        drop(taken);
    }

    #[test]
    fn what_is_not_open_is_not_taken() {
        assert!(Arriving::new(-1).take().is_none());
        assert!(Arriving::new(1_000_000).take().is_none());
        assert!(Arriving::new(1_000_000).peek(|_| ()).is_none());
        // The standard streams are nobody's.
        assert!(Arriving::new(2).take().is_none());
    }
}
