//! Main processes that we did not make ourselves: named by `MAINPID=` or `PIDFile=`, or guessed.
//!
//! Such a process may be somebody else's child, and then nobody tells us of its end but its pidfd
//! (pidfd_open(2), Linux 5.3). While one of ours has ended and is not reaped yet it counts as
//! alive: its exit code is still to come.

use crate::cgroup::Group;
use crate::engine::may_be_main;
use crate::supervise::Found;
use crate::sys;
use crate::token::Token;
use activator::manifest::{Manifest, Unit, UnitId, UnitKind};
use mio::unix::SourceFd;
use mio::{Interest, Registry};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{self, CWD, Mode, OFlags};
use rustix::io::{self, Errno};
use rustix::process::{Pid, PidfdFlags, WaitId, WaitIdOptions, pidfd_open, waitid};
use std::ffi::{CString, NulError};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

/// A user and group.
type Rights = Option<(u32, u32)>;

/// One entry for each unit and instance.
#[derive(Debug)]
pub(crate) struct Adopted {
    processes: Box<[Option<(u32, OwnedFd)>]>,
    /// `PIDFile=`, and with whose rights it is read; None is root.
    files: Box<[Option<(CString, Rights)>]>,
}

impl Adopted {
    /// Fails only for a path with a NUL in it.
    pub(crate) fn new(manifest: &Manifest, count: usize) -> Result<Self, NulError> {
        let file = |unit: &Unit| match &unit.kind {
            UnitKind::Service(service) => {
                let rights = manifest.user_of(unit).map(|user| (user.ids.uid, user.ids.gid));
                let path = service.pid_file.clone().map(CString::new).transpose()?;
                Ok(path.map(|path| (path, rights)))
            }
            _ => Ok(None),
        };
        Ok(Self {
            processes: (0..count).map(|_| None).collect(),
            files: manifest.units.iter().map(file).collect::<Result<_, _>>()?,
        })
    }

    /// Watches a process. False if there is none with that number.
    pub(crate) fn adopt(&mut self, registry: &Registry, unit: UnitId, pid: u32) -> bool {
        let Some(entry) = self.processes.get_mut(unit.index()) else { return false };
        let Some(number) = i32::try_from(pid).ok().and_then(Pid::from_raw) else { return false };
        let Ok(pidfd) = pidfd_open(number, PidfdFlags::NONBLOCK) else { return false };
        let token = Token::Adopted(unit).into();
        let watched =
            registry.register(&mut SourceFd(&pidfd.as_raw_fd()), token, Interest::READABLE);
        // Unwatched its end might never be seen.
        if watched.is_err() {
            return false;
        }
        *entry = Some((pid, pidfd));
        true
    }

    /// The service has a main process of its own again.
    pub(crate) fn forget(&mut self, unit: UnitId) {
        if let Some(entry) = self.processes.get_mut(unit.index()) {
            *entry = None;
        }
    }

    /// Whether it has not ended, as far as we would not be told otherwise.
    pub(crate) fn alive(&self, unit: UnitId, pid: u32) -> bool {
        let Some(pidfd) = self.pidfd(unit, pid) else {
            return i32::try_from(pid).is_ok_and(|pid| sys::kill(pid, 0) != Err(Errno::SRCH));
        };
        let mut asked = [PollFd::new(pidfd, PollFlags::IN)];
        let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
        if poll(&mut asked, Some(&at_once)) != Ok(1) {
            return true;
        }
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        !matches!(waitid(WaitId::PidFd(pidfd.as_fd()), options), Err(Errno::CHILD))
    }

    /// Sends a signal if it is one of ours. False if it is not.
    pub(crate) fn kill(&self, unit: UnitId, pid: u32, signal: i32) -> bool {
        let Some(pidfd) = self.pidfd(unit, pid) else { return false };
        // It may have ended meanwhile.
        let _ = sys::kill_pidfd(pidfd.as_fd(), signal);
        true
    }

    /// The process that a child of `Type=forking` has left; `unit` is that of the manifest.
    pub(crate) fn find(&self, unit: UnitId, spec: &Unit, group: Option<&Group>) -> Found {
        let UnitKind::Service(service) = &spec.kind else { return Found::Unclear };
        if let Some(Some((path, rights))) = self.files.get(unit.index()) {
            let pid = sys::with_rights_of(*rights, || read_pid(path))
                .filter(|pid| may_be_main(*pid, Some(spec)));
            return pid.map_or(Found::NotYet, Found::Process);
        }
        let Some(group) = group else { return Found::Unclear };
        let (mut count, mut last) = (0_u32, 0);
        group.each_process(|pid| {
            count = count.saturating_add(1);
            last = pid.unsigned_abs();
        });
        match count {
            0 => Found::Nobody,
            1 if service.guess_main_pid => Found::Process(last),
            _ => Found::Unclear,
        }
    }

    fn pidfd(&self, unit: UnitId, pid: u32) -> Option<&OwnedFd> {
        let (number, pidfd) = self.processes.get(unit.index())?.as_ref()?;
        (*number == pid).then_some(pidfd)
    }
}

/// The number in a file, if it is a whole one.
fn read_pid(path: &CString) -> Option<u32> {
    // A FIFO must not keep us.
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = fs::openat(CWD, path.as_c_str(), flags, Mode::empty()).ok()?;
    let mut text = [0; 32];
    let length = io::read(&file, &mut text).ok()?;
    let text = std::str::from_utf8(text.get(..length)?).ok()?;
    text.trim().parse().ok().filter(|pid| *pid > 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pid_file_is_a_number_or_not_there_yet() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("pid");
        let c_path = CString::new(path.to_str().unwrap()).unwrap();
        assert_eq!(read_pid(&c_path), None);
        for (text, pid) in [("42\n", Some(42)), ("  7 ", Some(7)), ("", None), ("1", None)] {
            std::fs::write(&path, text).unwrap();
            assert_eq!(read_pid(&c_path), pid, "{text:?}");
        }
        for text in ["-3", "12x", "99999999999", "1\n2\n"] {
            std::fs::write(&path, text).unwrap();
            assert_eq!(read_pid(&c_path), None, "{text:?}");
        }
    }
}
