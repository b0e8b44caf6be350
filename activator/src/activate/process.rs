//! Fds put in their places, and children.
#![allow(unsafe_code)]

use rustix::fd::{BorrowedFd, FromRawFd, OwnedFd, RawFd};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, getpid, getppid, set_parent_process_death_signal};
use std::mem::{ManuallyDrop, MaybeUninit};

/// Closes all fds from a number on. Only before this process has opened any itself.
pub(super) fn close_from(first: RawFd) -> Result<(), Errno> {
    // SAFETY: the caller has opened none yet, so that none is owned by anything in this process.
    match unsafe { libc::syscall(libc::SYS_close_range, first, libc::c_uint::MAX, 0) } {
        0 => Ok(()),
        _ => Err(last()),
    }
}

/// Puts fds at `first` and after it, open across an exec. Whatever is there is replaced: only for
/// a process that executes another program next.
pub(super) fn place(fds: &[BorrowedFd], first: RawFd) -> Result<(), Errno> {
    let above = first + RawFd::try_from(fds.len()).map_err(|_| Errno::MFILE)?;
    let high: Vec<OwnedFd> = fds
        .iter()
        .map(|fd| rustix::io::fcntl_dupfd_cloexec(fd, above))
        .collect::<Result<_, _>>()?;
    for (target, fd) in (first..).zip(&high) {
        // SAFETY: the wrapper is never dropped, and the caller executes another program, so that
        // nobody meets another file behind the number.
        let mut target = ManuallyDrop::new(unsafe { OwnedFd::from_raw_fd(target) });
        rustix::io::dup2(fd, &mut target)?;
    }
    Ok(())
}

/// One side of a [`fork`].
pub(super) enum Side {
    Parent,
    /// No signal is blocked, and SIGTERM comes when the parent ends.
    Child,
}

/// fork(2). The parent must have one thread.
pub(super) fn fork() -> Result<Side, Errno> {
    let parent = getpid();
    // SAFETY: there is one thread, so that the child finds no lock taken.
    match unsafe { libc::fork() } {
        -1 => Err(last()),
        0 => {
            unblock_signals();
            // An error here has nobody to go to: the parent goes on in the other process.
            let _ = set_parent_process_death_signal(Some(Signal::TERM));
            // It may have ended before that.
            if getppid() != Some(parent) {
                let _ = rustix::process::kill_process(getpid(), Signal::TERM);
            }
            Ok(Side::Child)
        }
        _ => Ok(Side::Parent),
    }
}

/// The pids of the children that have ended, each with its wait status.
pub(super) fn reap() -> impl Iterator<Item = (Pid, rustix::process::WaitStatus)> {
    std::iter::from_fn(|| {
        rustix::process::wait(rustix::process::WaitOptions::NOHANG).ok().flatten()
    })
}

fn unblock_signals() {
    let mut set = MaybeUninit::uninit();
    // SAFETY: sigemptyset initialises the set that sigprocmask reads.
    unsafe {
        libc::sigemptyset(set.as_mut_ptr());
        libc::sigprocmask(libc::SIG_SETMASK, set.as_ptr(), std::ptr::null_mut());
    }
}

fn last() -> Errno {
    Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::INVAL)
}
