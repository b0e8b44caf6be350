//! A VM's place in the registry: its folder, its record, and who holds it.

use super::{At, Registry, RegistryError, open_lock, replace_file};
use crate::accelerator::Accelerator;
use crate::machine::Arch;
use crate::publish::Publish;
use rustix::fs::FlockOperation;
use serde::{Deserialize, Serialize};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

/// How a VM's vsock is reached from the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum VsockKind {
    /// By AF_VSOCK, through the host's kernel.
    Vhost,
    /// By the Unix socket `vsock.sock`.
    Device,
}

/// How far a VM has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stage {
    /// It boots.
    Booting,
    /// Its guest said that it listens.
    Ready,
    /// It was told to power off.
    Stopping,
}

/// What is known of a VM.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Its name.
    pub name: String,
    /// Its process.
    pub pid: u32,
    /// Its context identifier.
    pub cid: u32,
    /// Its architecture.
    pub arch: Arch,
    /// The appliance's folder.
    pub appliance: PathBuf,
    /// How to reach its vsock.
    pub vsock: VsockKind,
    /// Sockets of the host that lead into it.
    pub publish: Vec<Publish>,
    /// The guest's listeners, as the caller describes them.
    pub listeners: serde_json::Value,
    /// What the caller wants to know again of the image.
    #[serde(default)]
    pub image: serde_json::Value,
    /// Seconds since the epoch when its process began.
    pub started: u64,
    /// Who executes it; None before the first boot.
    pub accelerator: Option<Accelerator>,
    /// How far it has come.
    pub stage: Stage,
}

/// A VM that runs, seen from outside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    folder: Folder,
    /// What its process wrote down last.
    pub record: Record,
}

/// A VM's place in the registry, held by its process. Dropping it removes the folder.
#[derive(Debug)]
pub struct Claim {
    folder: Folder,
    record: Record,
    registry: Registry,
    /// Held until this is dropped, which is the last thing to happen.
    _lock: File,
}

/// The paths of one VM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Folder(PathBuf);

impl Folder {
    pub(super) fn new(path: PathBuf) -> Self {
        Self(path)
    }

    /// The folder itself.
    pub fn path(&self) -> &Path {
        &self.0
    }
    /// The control protocol's token.
    pub fn token(&self) -> PathBuf {
        self.0.join("token")
    }
    /// The vsock device's socket for the host's clients.
    pub fn vsock(&self) -> PathBuf {
        self.0.join("vsock.sock")
    }
    /// The vsock device's socket for QEMU.
    pub fn device(&self) -> PathBuf {
        self.0.join("device.sock")
    }
    /// QEMU's monitor.
    pub fn monitor(&self) -> PathBuf {
        self.0.join("qmp.sock")
    }
    /// What the guest wrote to its console.
    pub fn console(&self) -> PathBuf {
        self.0.join("console.log")
    }
    /// What the VM's process wrote to stderr.
    pub fn log(&self) -> PathBuf {
        self.0.join("vmm.log")
    }
    pub(super) fn lock(&self) -> PathBuf {
        self.0.join("lock")
    }
    pub(super) fn record(&self) -> PathBuf {
        self.0.join("vm.json")
    }
}

impl Entry {
    pub(super) fn read(folder: Folder) -> Result<Self, RegistryError> {
        let path = folder.record();
        let text = fs::read(&path).at(&path)?;
        let record = serde_json::from_slice(&text).map_err(io::Error::from).at(&path)?;
        Ok(Self { folder, record })
    }

    /// Its paths.
    pub fn folder(&self) -> &Folder {
        &self.folder
    }

    /// The control protocol's token.
    pub fn token(&self) -> Result<String, RegistryError> {
        let path = self.folder.token();
        Ok(fs::read_to_string(&path).at(&path)?.trim_end().to_owned())
    }

    /// Whether its process still lives.
    pub fn is_alive(&self) -> bool {
        is_alive(&self.folder)
    }

    /// Tells its process to end: SIGTERM, upon which it powers the guest off. The lock shows that
    /// the process lives, so its id cannot belong to another one.
    pub fn terminate(&self) -> Result<(), RegistryError> {
        let pid = rustix::process::Pid::from_raw(self.record.pid.cast_signed());
        match pid.filter(|_| self.is_alive()) {
            Some(pid) => rustix::process::kill_process(pid, rustix::process::Signal::TERM)
                .at(self.folder.path()),
            None => Err(RegistryError::NotFound(self.record.name.clone())),
        }
    }
}

impl Claim {
    /// Takes a folder that was just made, under the registry's lock. If that fails, nobody holds
    /// the folder, and the next scan removes it.
    pub(super) fn take(
        registry: Registry,
        folder: Folder,
        record: Record,
    ) -> Result<Self, RegistryError> {
        let lock = open_lock(&folder.lock())?;
        // Waits at most for somebody who is just looking whether it is held.
        rustix::fs::flock(&lock, FlockOperation::LockExclusive).at(&folder.lock())?;
        write(&folder, &record)?;
        Ok(Self { folder, record, registry, _lock: lock })
    }

    /// The VM's paths.
    pub fn folder(&self) -> &Folder {
        &self.folder
    }

    /// As it stands in `vm.json`.
    pub fn record(&self) -> &Record {
        &self.record
    }

    /// As others see it.
    pub fn entry(&self) -> Entry {
        Entry { folder: self.folder.clone(), record: self.record.clone() }
    }

    /// Changes the record for all to see.
    pub fn update(&mut self, change: impl FnOnce(&mut Record)) -> Result<(), RegistryError> {
        change(&mut self.record);
        write(&self.folder, &self.record)
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        // Somebody else's scan removes what cannot be removed here.
        if let Ok(_lock) = self.registry.lock() {
            let _ = fs::remove_dir_all(self.folder.path());
        }
    }
}

fn write(folder: &Folder, record: &Record) -> Result<(), RegistryError> {
    let path = folder.record();
    let text = serde_json::to_vec_pretty(record).map_err(io::Error::from).at(&path)?;
    replace_file(&path, &text, 0o600).at(&path)
}

/// Whether a VM's process holds its lock. Only that process may take it for good; here it is held
/// shared, and for a moment.
pub(super) fn is_alive(folder: &Folder) -> bool {
    let Ok(lock) = File::open(folder.lock()) else { return false };
    rustix::fs::flock(&lock, FlockOperation::NonBlockingLockShared).is_err()
}
