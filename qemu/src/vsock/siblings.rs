//! The directory in which the devices of one user find each other.
//!
//! The device of CID 7 holds a lock (flock(2)) on `7.lock` as long as it lives, keeps its
//! process id in that file, and listens on `7.sock`. The lock goes with the process, however it
//! ends: who has the lock owns the CID, and a socket file without a lock is stale. Lock files
//! stay behind; removing one would let two processes lock two files of the same name.
//!
//! A device that calls another names its CID as the source. The called device checks the claim:
//! the caller runs as the same user (SO_PEERCRED), the lock of that CID is held, and it is held
//! by the calling process. So no guest can be made to see a source CID that is not true.

use super::config::FIRST_GUEST_CID;
use super::error::Error;
use super::listener::{UnixEntrance, dial};
use rustix::fs::{FlockOperation, Mode, OFlags};
use rustix::io::Errno;
use std::fs::{DirBuilder, File};
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

/// A sibling that checks a claim holds the lock for a moment, if nobody else does: try again.
const LOCK_ATTEMPTS: u32 = 5;
const LOCK_PAUSE: Duration = Duration::from_millis(20);

/// Our place in the directory. The CID is free again when this is dropped.
#[derive(Debug)]
pub(super) struct Siblings {
    directory: PathBuf,
    own_cid: u32,
    _lock: File,
}

/// Why a caller is turned away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Doubt {
    /// The CID is reserved, or our own.
    Impossible,
    /// The caller is another user, or cannot be asked.
    Stranger,
    /// No living device has that CID, or another process has it.
    Impostor,
}

impl Siblings {
    /// Takes a CID, and listens for siblings.
    pub(super) fn claim(directory: &Path, cid: u32) -> Result<(Self, UnixEntrance), Error> {
        let made = DirBuilder::new().recursive(true).mode(0o700).create(directory);
        made.map_err(|cause| Error::path("create", directory, cause))?;
        let path = directory.join(format!("{cid}.lock"));
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let lock = rustix::fs::open(&path, flags, Mode::RUSR | Mode::WUSR)
            .map_err(|cause| Error::path("open", &path, cause))?;
        let mut lock = File::from(lock);
        for attempt in 1.. {
            match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => break,
                Err(Errno::WOULDBLOCK) if attempt < LOCK_ATTEMPTS => thread::sleep(LOCK_PAUSE),
                Err(Errno::WOULDBLOCK) => {
                    return Err(Error::BusyCid { cid, process: holder(&mut lock).unwrap_or(0) });
                }
                Err(cause) => return Err(Error::path("lock", &path, cause)),
            }
        }
        lock.set_len(0)
            .and_then(|()| write!(lock, "{}", std::process::id()))
            .map_err(|cause| Error::path("write", &path, cause))?;
        let siblings = Self { directory: directory.to_owned(), own_cid: cid, _lock: lock };
        let entrance = UnixEntrance::bind(&siblings.socket(cid))?;
        Ok((siblings, entrance))
    }

    /// Whether the process at the other end of `caller` is the device of `cid`.
    pub(super) fn vouch(&self, caller: impl AsFd, cid: u32) -> Result<(), Doubt> {
        if cid < FIRST_GUEST_CID || cid == u32::MAX || cid == self.own_cid {
            return Err(Doubt::Impossible);
        }
        let process = same_user(caller)?;
        let path = self.directory.join(format!("{cid}.lock"));
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let lock = rustix::fs::open(&path, flags, Mode::empty()).map_err(|_| Doubt::Impostor)?;
        let mut lock = File::from(lock);
        let owner = lock.metadata().map_err(|_| Doubt::Impostor)?.uid();
        let held = rustix::fs::flock(&lock, FlockOperation::NonBlockingLockShared)
            == Err(Errno::WOULDBLOCK);
        if held && owner == own_user() && holder(&mut lock) == Some(process) {
            return Ok(());
        }
        Err(Doubt::Impostor)
    }

    /// Connects to the device of `cid`, which must run as the same user. `AGAIN`: its queue is
    /// full for now.
    pub(super) fn dial(&self, cid: u32) -> Result<OwnedFd, Errno> {
        if cid == self.own_cid {
            return Err(Errno::CONNREFUSED);
        }
        let socket = dial(&self.socket(cid))?;
        same_user(&socket).map_err(|_| Errno::ACCESS)?;
        Ok(socket)
    }

    /// Our own CID.
    pub(super) fn own_cid(&self) -> u32 {
        self.own_cid
    }

    fn socket(&self, cid: u32) -> PathBuf {
        self.directory.join(format!("{cid}.sock"))
    }
}

/// The process at the other end, if it is of our user.
fn same_user(socket: impl AsFd) -> Result<i32, Doubt> {
    let peer = rustix::net::sockopt::socket_peercred(socket).map_err(|_| Doubt::Stranger)?;
    if peer.uid.as_raw() != own_user() {
        return Err(Doubt::Stranger);
    }
    Ok(peer.pid.as_raw_nonzero().get())
}

fn own_user() -> u32 {
    rustix::process::geteuid().as_raw()
}

/// The process id in a lock file.
fn holder(lock: &mut File) -> Option<i32> {
    let mut text = String::new();
    lock.take(16).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::net::UnixStream;

    #[test]
    fn a_cid_belongs_to_one_device_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let first = Siblings::claim(folder.path(), 7).unwrap();
        let busy = Error::BusyCid { cid: 7, process: std::process::id() as i32 };
        assert_eq!(Siblings::claim(folder.path(), 7).unwrap_err(), busy);
        drop(first);
        assert!(!folder.path().join("7.sock").exists());
        Siblings::claim(folder.path(), 7).unwrap();
    }

    #[test]
    fn what_a_dead_process_left_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("7.lock"), "1").unwrap();
        drop(std::os::unix::net::UnixListener::bind(folder.path().join("7.sock")).unwrap());
        let (siblings, _entrance) = Siblings::claim(folder.path(), 7).unwrap();
        assert_eq!(siblings.own_cid(), 7);
        UnixStream::connect(folder.path().join("7.sock")).unwrap();
    }

    #[test]
    fn a_claim_is_checked_against_the_lock() {
        let folder = tempfile::tempdir().unwrap();
        let (siblings, entrance) = Siblings::claim(folder.path(), 7).unwrap();
        let (other, _other_entrance) = Siblings::claim(folder.path(), 8).unwrap();
        let _caller = other.dial(7).unwrap();
        let (caller, _) = entrance.listener().accept().unwrap();
        assert_eq!(siblings.vouch(&caller, 8), Ok(()));
        assert_eq!(siblings.vouch(&caller, 9), Err(Doubt::Impostor));
        for impossible in [0, 1, 2, 7, u32::MAX] {
            assert_eq!(siblings.vouch(&caller, impossible), Err(Doubt::Impossible));
        }
        // Alive, but another process: the caller cannot be it.
        fs::write(folder.path().join("8.lock"), "1").unwrap();
        assert_eq!(siblings.vouch(&caller, 8), Err(Doubt::Impostor));
        fs::write(folder.path().join("8.lock"), std::process::id().to_string()).unwrap();
        assert_eq!(siblings.vouch(&caller, 8), Ok(()));
        drop(other);
        assert_eq!(siblings.vouch(&caller, 8), Err(Doubt::Impostor));
    }

    #[test]
    fn nobody_is_dialled_where_nobody_is() {
        let folder = tempfile::tempdir().unwrap();
        let (siblings, _entrance) = Siblings::claim(folder.path(), 7).unwrap();
        assert_eq!(siblings.dial(7).unwrap_err(), Errno::CONNREFUSED);
        assert_eq!(siblings.dial(8).unwrap_err(), Errno::NOENT);
    }
}
