//! What a unit's commands have in common, and units that `JoinsNamespaceOf=` brings together: a
//! private `/tmp`, and namespaces that outlive the command which made them.
//!
//! It is in one folder below /run/rouse/shared, where only root comes:
//!
//! | there | what |
//! |---|---|
//! | `tmp`, `var-tmp` | `PrivateTmp=` |
//! | `net`, `ipc` | a namespace mounted on a file: `PrivateNetwork=`, `PrivateIPC=` |
//! | `users/SLOT` | a unit or instance whose folder this is; the text is its name in the manifest |
//!
//! A command takes the folder of which its unit is a user, else one that a unit of its group
//! uses, else a new one. The last user that stops takes the folder with it. So a run of a unit
//! keeps what it began with, whatever a new manifest says. Units start and stop at the same time:
//! whoever looks or changes something holds the lock of all folders.

use super::call::{Subject, find_unit, unit_argument};
use super::error::{At, Failed, Stage};
use super::mounts::make_directory;
use super::namespaces::{self, Kind};
use super::sys;
use crate::manifest::{Execution, Sandbox, UnitKind};
use rustix::fs::FlockOperation;
use rustix::io::Errno;
use rustix::mount::{UnmountFlags, mount_bind, unmount};
use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

const TOP: &str = "/run/rouse/shared";

/// A unit's folder, with the lock.
pub(super) struct Shared {
    path: PathBuf,
    /// Held until this is dropped.
    _lock: fs::File,
}

impl Shared {
    /// The unit's, of which it is a user from now on. None if it shares nothing.
    pub(super) fn take(subject: &Subject, sandbox: &Sandbox) -> Result<Option<Self>, Failed> {
        if !sandbox.shares() {
            return Ok(None);
        }
        let take = || -> io::Result<Self> {
            fs::DirBuilder::new().recursive(true).mode(0o700).create(TOP)?;
            let lock = lock()?;
            let slot = subject.slot();
            let folders = folders()?;
            let own = |path: &&PathBuf| users(path).join(&slot).exists();
            let joined = |path: &&PathBuf| has_user_of_group(path, subject, sandbox);
            let found = folders.iter().find(own).or_else(|| folders.iter().find(joined));
            let path = match found {
                Some(path) => path.clone(),
                None => new_folder(&slot)?,
            };
            let name = unit_argument(&subject.manifest, &subject.unit);
            fs::write(users(&path).join(&slot), name)?;
            Ok(Self { path, _lock: lock })
        };
        take().map(Some).at(Stage::Namespace, || format!("take a folder in {TOP}"))
    }

    /// Makes `tmp` and `var-tmp`, unless they are there, and gives back the folder with them.
    pub(super) fn make_tmp(&self) -> Result<PathBuf, Failed> {
        ["tmp", "var-tmp"]
            .iter()
            .try_for_each(|name| make_directory(&self.path.join(name), 0o1777))
            .at(Stage::Namespace, || format!("make a /tmp in {}", self.path.display()))?;
        Ok(self.path.clone())
    }

    /// Enters the folder's namespace. The first one goes there with `make`, and leaves it behind.
    pub(super) fn enter(
        &self,
        kind: Kind,
        make: impl FnOnce() -> Result<(), Failed>,
    ) -> Result<(), Failed> {
        let file = self.path.join(kind.name());
        match namespaces::join(&file, kind) {
            // There is none, or the file for it only.
            Err(Errno::NOENT | Errno::INVAL) => {}
            joined => {
                return joined.at(kind.stage(), || format!("join {}", file.display()));
            }
        }
        make()?;
        let keep = || -> io::Result<()> {
            fs::File::create(&file)?;
            Ok(mount_bind(format!("/proc/self/ns/{}", kind.name()), &file)?)
        };
        keep().at(kind.stage(), || format!("keep a namespace at {}", file.display()))
    }
}

/// After a run, also before a restart: as in systemd, the next run has a new /tmp, unless another
/// unit has it still.
pub(super) fn leave(subject: &Subject) -> io::Result<()> {
    if !Path::new(TOP).exists() {
        return Ok(());
    }
    let lock = lock()?;
    let slot = subject.slot();
    let mut removed = vec![];
    for path in folders()? {
        let users = users(&path);
        if !users.join(&slot).exists() {
            continue;
        }
        fs::remove_file(users.join(&slot))?;
        if fs::read_dir(&users)?.next().is_none() {
            Kind::ALL.into_iter().try_for_each(|kind| let_go(&path.join(kind.name())))?;
            // What takes long is done when nobody has to wait for it.
            let gone = Path::new(TOP).join(format!("gone:{}", std::process::id()));
            removed.push(fs::rename(&path, &gone).map_or(path, |()| gone));
        }
    }
    drop(lock);
    removed.iter().try_for_each(fs::remove_dir_all)
}

/// Waits for it; it ends with the file.
fn lock() -> io::Result<fs::File> {
    let top = fs::File::open(TOP)?;
    rustix::io::retry_on_intr(|| rustix::fs::flock(&top, FlockOperation::LockExclusive))?;
    Ok(top)
}

fn users(folder: &Path) -> PathBuf {
    folder.join("users")
}

/// All of them, in the order of their names.
fn folders() -> io::Result<Vec<PathBuf>> {
    let paths = fs::read_dir(TOP)?.map(|entry| Ok(entry?.path()));
    let mut paths = paths.collect::<io::Result<Vec<PathBuf>>>()?;
    paths.sort();
    Ok(paths)
}

/// Named as its first user, unless another's is.
fn new_folder(slot: &str) -> io::Result<PathBuf> {
    let mut path = Path::new(TOP).join(slot);
    let mut number = 1;
    while path.exists() && fs::read_dir(users(&path)).is_ok_and(|mut it| it.next().is_some()) {
        number += 1;
        path.set_file_name(format!("{slot}:{number}"));
    }
    make_directory(&path, 0o700)?;
    make_directory(&users(&path), 0o700)?;
    Ok(path)
}

/// Groups are those of the manifest as it is now; a unit that it has not is in none.
fn has_user_of_group(folder: &Path, subject: &Subject, sandbox: &Sandbox) -> bool {
    let Some(group) = &sandbox.joins else { return false };
    let Ok(users) = fs::read_dir(users(folder)) else { return false };
    let mut names = users.filter_map(|user| fs::read_to_string(user.ok()?.path()).ok());
    names.any(|name| {
        let unit = find_unit(&subject.manifest, &name);
        unit.and_then(|unit| subject.manifest.unit(unit)).is_some_and(|unit| {
            let joins = match &unit.kind {
                UnitKind::Service(service) => joins(&service.execution),
                UnitKind::Socket(socket) => joins(&socket.execution),
                UnitKind::Target => None,
            };
            unit.owner == subject.unit.owner && joins == Some(group.as_str())
        })
    })
}

fn joins(execution: &Execution) -> Option<&str> {
    execution.stage2.as_deref()?.sandbox.joins.as_deref()
}

/// The namespace itself goes with the last process in it.
fn let_go(file: &Path) -> io::Result<()> {
    match unmount(file, UnmountFlags::DETACH) {
        // Nothing was mounted there.
        Ok(()) | Err(Errno::INVAL | Errno::NOENT) => sys::not_found_is_fine(fs::remove_file(file)),
        Err(errno) => Err(errno.into()),
    }
}
