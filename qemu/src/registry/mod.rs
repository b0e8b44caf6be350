//! The VMs of this user that run now.
//!
//! A folder, private to the user, with one folder for each VM:
//!
//! | file | written by | what |
//! |---|---|---|
//! | `lock` | the VM's process | held with flock(2) as long as the VM lives, by nobody else |
//! | `vm.json` | the VM's process | a [`Record`] |
//! | `token` | the VM's process | what a control request has to show, 64 hexadecimal digits, mode 0600 |
//! | `vsock.sock` | the vsock device | streams to the guest, see [`crate::connect`] |
//! | `device.sock` | the vsock device | QEMU's connection to it |
//! | `qmp.sock` | QEMU | its monitor, which the VM's process uses |
//! | `console.log` | QEMU | what the guest wrote to its console |
//! | `vmm.log` | the VM's process | what it and QEMU wrote to stderr |
//!
//! Beside them `siblings`, in which the vsock devices find each other, and `lock`, held for the moments in which folders are made or removed. What a dead VM left behind (its
//! `lock` can be taken) is removed by the next one who looks.

use crate::machine::Arch;
use crate::publish::Publish;
use rustix::fs::FlockOperation;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

mod place;

pub use place::{Claim, Entry, Folder, Record, Stage, VsockKind};

/// Names the registry's folder.
pub const VARIABLE: &str = "ROUSE_RUNTIME_DIR";
/// The first context identifier of guests: 0 to 2 have meanings of their own (vsock(7)).
pub const CID_FIRST: u32 = 3;
/// The last: 2^32 - 1 is VMADDR_CID_ANY.
pub const CID_LAST: u32 = u32::MAX - 1;
/// The longest name of a VM in bytes.
pub const NAME_MAX: usize = 32;

/// sun_path of unix(7) without the final zero.
const SOCKET_PATH_MAX: usize = 107;
const SIBLINGS: &str = "siblings";
const LOCK: &str = "lock";

/// Why a VM cannot be found, or has no place in the registry.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// Names are made of lower-case letters, digits, `-`, `_` and `.`, and begin with a letter or
    /// digit.
    #[error("use {0:?} as the name of a VM: 1 to {NAME_MAX} of a-z 0-9 - _ . are allowed")]
    Name(String),
    /// A VM of that name runs.
    #[error("start {0}: a VM of that name runs already")]
    NameTaken(String),
    /// No VM of that name runs.
    #[error("find a running VM named {0}")]
    NotFound(String),
    /// Another VM has that CID.
    #[error("use CID {cid}: {holder} has it")]
    CidBusy {
        /// The CID.
        cid: u32,
        /// The VM, or who else.
        holder: String,
    },
    /// It means something else, see [`CID_FIRST`] and [`CID_LAST`].
    #[error("use CID {0}: guests have {CID_FIRST} to {CID_LAST}")]
    CidReserved(u32),
    /// All are taken.
    #[error("find a free CID")]
    NoCid,
    /// The folder is not the user's own.
    #[error("use {} as it belongs to another user, or is a link", .0.display())]
    NotOurs(PathBuf),
    /// A socket's path would be longer than the kernel takes.
    #[error(
        "make a socket in {}, whose path is too long; {VARIABLE} can name a shorter one",
        .0.display()
    )]
    PathTooLong(PathBuf),
    /// The system said no.
    #[error("access {}", .path.display())]
    System {
        /// To what.
        path: PathBuf,
        /// What it said.
        source: io::Error,
    },
}

trait At<T> {
    fn at(self, path: &Path) -> Result<T, RegistryError>;
}

impl<T> At<T> for io::Result<T> {
    fn at(self, path: &Path) -> Result<T, RegistryError> {
        self.map_err(|source| RegistryError::System { path: path.into(), source })
    }
}

impl<T> At<T> for rustix::io::Result<T> {
    fn at(self, path: &Path) -> Result<T, RegistryError> {
        self.map_err(io::Error::from).at(path)
    }
}

/// The folder with all VMs.
#[derive(Debug, Clone)]
pub struct Registry {
    root: PathBuf,
}

/// What a VM wants of the registry.
#[derive(Debug, Clone)]
pub struct Wanted<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its CID; None is the first free one.
    pub cid: Option<u32>,
    /// Its architecture.
    pub arch: Arch,
    /// The appliance's folder.
    pub appliance: &'a Path,
    /// How its vsock is reached.
    pub vsock: VsockKind,
    /// Sockets of the host that lead into it.
    pub publish: &'a [Publish],
    /// The guest's listeners.
    pub listeners: &'a serde_json::Value,
    /// Of the image, for those who look at the record.
    pub image: &'a serde_json::Value,
}

impl Registry {
    /// The user's: `$ROUSE_RUNTIME_DIR`, else `$XDG_RUNTIME_DIR/rouse` where that is the user's
    /// own, else `/tmp/rouse-UID`. Made if it is missing.
    pub fn open() -> Result<Self, RegistryError> {
        let uid = rustix::process::getuid().as_raw();
        let named = |name| std::env::var_os(name).filter(|value| !value.is_empty());
        if let Some(root) = named(VARIABLE) {
            return Self::at(root.into());
        }
        // After su or sudo it names the folder of another user.
        let own = |path: &PathBuf| fs::metadata(path).is_ok_and(|found| found.uid() == uid);
        if let Some(runtime) = named("XDG_RUNTIME_DIR").map(PathBuf::from).filter(own) {
            return Self::at(runtime.join("rouse"));
        }
        Self::at(format!("/tmp/rouse-{uid}").into())
    }

    /// In that folder, which is made if it is missing, and made private.
    pub fn at(root: PathBuf) -> Result<Self, RegistryError> {
        let root = std::path::absolute(&root).at(&root)?;
        make_private(&root)?;
        make_private(&root.join(SIBLINGS))?;
        Ok(Self { root })
    }

    /// The folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Where the vsock devices find each other.
    pub fn siblings(&self) -> PathBuf {
        self.root.join(SIBLINGS)
    }

    /// All that run, by name. What dead ones left behind is removed.
    pub fn list(&self) -> Result<Vec<Entry>, RegistryError> {
        let _lock = self.lock()?;
        self.scan()
    }

    /// The running VM of that name.
    pub fn find(&self, name: &str) -> Result<Entry, RegistryError> {
        check_name(name)?;
        let found = self.list()?.into_iter().find(|entry| entry.record.name == name);
        found.ok_or_else(|| RegistryError::NotFound(name.into()))
    }

    /// Takes a place for this process's VM.
    pub fn claim(&self, wanted: &Wanted) -> Result<Claim, RegistryError> {
        check_name(wanted.name)?;
        let folder = Folder::new(self.root.join(wanted.name));
        if self.longest_socket(&folder) > SOCKET_PATH_MAX {
            return Err(RegistryError::PathTooLong(self.root.clone()));
        }
        let _lock = self.lock()?;
        let running = self.scan()?;
        if folder.path().exists() {
            return Err(RegistryError::NameTaken(wanted.name.into()));
        }
        let cid = choose_cid(wanted.cid, wanted.vsock, &running)?;
        make_private(folder.path())?;
        let since_epoch = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let record = Record {
            name: wanted.name.into(),
            pid: std::process::id(),
            cid,
            arch: wanted.arch,
            appliance: wanted.appliance.into(),
            vsock: wanted.vsock,
            publish: wanted.publish.to_vec(),
            listeners: wanted.listeners.clone(),
            image: wanted.image.clone(),
            started: since_epoch.map_or(0, |since| since.as_secs()),
            accelerator: None,
            stage: Stage::Booting,
        };
        Claim::take(self.clone(), folder, record)
    }

    /// The place and CID that [`Registry::claim`] would give now.
    pub fn preview(
        &self,
        name: &str,
        cid: Option<u32>,
        vsock: VsockKind,
    ) -> Result<(Folder, u32), RegistryError> {
        check_name(name)?;
        let running = self.list()?;
        Ok((Folder::new(self.root.join(name)), choose_cid(cid, vsock, &running)?))
    }

    /// Of those in the VM's folder, where callers may have sockets named after ports.
    fn longest_socket(&self, folder: &Folder) -> usize {
        let numbered = format!("{CID_LAST}.sock");
        let places = [self.siblings().join(&numbered), folder.path().join(&numbered)];
        places.iter().map(|path| path.as_os_str().len()).fold(0, usize::max)
    }

    fn lock(&self) -> Result<File, RegistryError> {
        let path = self.root.join(LOCK);
        let lock = open_lock(&path)?;
        rustix::fs::flock(&lock, FlockOperation::LockExclusive).at(&path)?;
        Ok(lock)
    }

    /// All that run. The registry's lock is held by the caller.
    fn scan(&self) -> Result<Vec<Entry>, RegistryError> {
        let mut running = Vec::new();
        for item in fs::read_dir(&self.root).at(&self.root)? {
            let item = item.at(&self.root)?;
            let is_vm = item.file_name().to_str().is_some_and(|name| check_name(name).is_ok());
            if !is_vm || !item.file_type().is_ok_and(|kind| kind.is_dir()) {
                continue;
            }
            let folder = Folder::new(item.path());
            if place::is_alive(&folder) {
                // A VM of another version of this program cannot be talked to, and does no harm.
                match Entry::read(folder) {
                    Ok(entry) => running.push(entry),
                    Err(error) => log::warn!("failed to {error}: {:?}", item.path()),
                }
            } else {
                fs::remove_dir_all(folder.path()).at(folder.path())?;
            }
        }
        running.sort_by(|a, b| a.record.name.cmp(&b.record.name));
        Ok(running)
    }
}

/// Writes a file so that readers see the old text or the new one, whole.
pub(crate) fn replace_file(path: &Path, text: &[u8], mode: u32) -> io::Result<()> {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{}.new", std::process::id()));
    let new = PathBuf::from(name);
    let mut options = fs::OpenOptions::new();
    let mut file = options.write(true).create(true).truncate(true).mode(mode).open(&new)?;
    let written = file.write_all(text).and_then(|()| fs::rename(&new, path));
    written.inspect_err(|_| {
        let _ = fs::remove_file(&new);
    })
}

/// Refuses what is not a name: it becomes a folder and a word on command lines.
pub fn check_name(name: &str) -> Result<(), RegistryError> {
    let first = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let other = |byte: &u8| first(byte) || b"-_.".contains(byte);
    let bytes = name.as_bytes();
    let fits = bytes.len() <= NAME_MAX && bytes.first().is_some_and(first);
    let reserved = [SIBLINGS, LOCK].contains(&name);
    if fits && bytes.iter().all(other) && !reserved {
        return Ok(());
    }
    Err(RegistryError::Name(name.into()))
}

fn choose_cid(
    asked: Option<u32>,
    vsock: VsockKind,
    running: &[Entry],
) -> Result<u32, RegistryError> {
    let holder = |cid| running.iter().find(|entry| entry.record.cid == cid);
    // The kernel's CIDs are shared by all users of the host, and by other programs' VMs.
    let taken = |cid| vsock == VsockKind::Vhost && crate::vhost::is_taken(cid);
    let Some(cid) = asked else {
        let free = |&cid: &u32| holder(cid).is_none() && !taken(cid);
        return (CID_FIRST..=CID_LAST).find(free).ok_or(RegistryError::NoCid);
    };
    if !(CID_FIRST..=CID_LAST).contains(&cid) {
        return Err(RegistryError::CidReserved(cid));
    }
    match holder(cid).map(|entry| entry.record.name.clone()) {
        Some(holder) => Err(RegistryError::CidBusy { cid, holder }),
        None if taken(cid) => {
            Err(RegistryError::CidBusy { cid, holder: "this host or another VM of it".into() })
        }
        None => Ok(cid),
    }
}

fn open_lock(path: &Path) -> Result<File, RegistryError> {
    let mut options = fs::OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600).open(path).at(path)
}

/// Makes a folder of mode 0700, or takes one that is the user's own.
fn make_private(path: &Path) -> Result<(), RegistryError> {
    if path.as_os_str().as_bytes().contains(&0) {
        return Err(RegistryError::NotOurs(path.into()));
    }
    match fs::DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let parent = path.parent().unwrap_or(Path::new("/"));
            fs::create_dir_all(parent).at(parent)?;
            fs::DirBuilder::new().mode(0o700).create(path).at(path)
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            let found = fs::symlink_metadata(path).at(path)?;
            if !found.is_dir() || found.uid() != rustix::process::getuid().as_raw() {
                return Err(RegistryError::NotOurs(path.into()));
            }
            if found.mode() & 0o077 != 0 {
                let private = fs::Permissions::from_mode(0o700);
                return fs::set_permissions(path, private).at(path);
            }
            Ok(())
        }
        made => made.at(path),
    }
}
