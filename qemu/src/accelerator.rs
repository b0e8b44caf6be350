//! Whether KVM runs guests here.
//!
//! That /dev/kvm opens, and even creates a VM, proves nothing: there are hosts (nested
//! virtualisation, mostly) where QEMU then dies on a model specific register that the host
//! refuses, or stops with an internal error at the first instruction that the host cannot emulate.
//! So the first boot under KVM is watched, and what came of it is remembered until
//! the host boots again.

use crate::machine::Arch;
use serde::{Deserialize, Serialize};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Forces `kvm` or `tcg`.
pub const VARIABLE: &str = "ROUSE_ACCEL";

const DEVICE: &str = "/dev/kvm";
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";
const FILE: &str = "accelerator.json";

/// Who executes the guest's instructions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Accelerator {
    /// The processor.
    Kvm,
    /// QEMU's translator: 5 to 20 times slower, and always there.
    Tcg,
}

impl Accelerator {
    /// QEMU's name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Kvm => "kvm",
            Self::Tcg => "tcg",
        }
    }
}

impl std::fmt::Display for Accelerator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::Kvm => "KVM",
            Self::Tcg => "TCG",
        })
    }
}

/// What to boot with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Choice {
    /// KVM, since the user insists on it.
    Forced,
    /// KVM, which has run a guest since the host booted.
    Proven,
    /// KVM, to be watched.
    Untried,
    /// TCG, since KVM will not do.
    Tcg(NoKvm),
}

impl Choice {
    /// Who executes the guest.
    pub fn accelerator(&self) -> Accelerator {
        match self {
            Self::Forced | Self::Proven | Self::Untried => Accelerator::Kvm,
            Self::Tcg(_) => Accelerator::Tcg,
        }
    }
}

/// Why KVM is not used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum NoKvm {
    /// The environment says so.
    #[error("{VARIABLE}=tcg asks for that")]
    Asked,
    /// The guest's architecture is not the host's.
    #[error("the guest's architecture ({0}) is not the host's")]
    Foreign(String),
    /// There is no /dev/kvm.
    #[error("there is no {DEVICE}")]
    NoDevice,
    /// It may not be opened: errno.
    #[error("{DEVICE} cannot be opened ({})", io::Error::from_raw_os_error(*.0))]
    Denied(i32),
    /// The guest could not run.
    #[error("KVM does not run guests here: {0}")]
    Broken(String),
}

/// The outcome of earlier boots, kept in the cache folder until the host boots again.
#[derive(Debug, Clone)]
pub struct Memory {
    file: PathBuf,
    boot_id: String,
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Record {
    boot_id: String,
    /// None if a guest ran.
    broken: Option<String>,
}

impl Memory {
    /// Kept in `cache`, which need not exist yet.
    pub fn new(cache: &Path) -> Self {
        let boot_id = fs::read_to_string(BOOT_ID).unwrap_or_default().trim().to_owned();
        Self { file: cache.join(FILE), boot_id }
    }

    /// What to boot a guest of `arch` with.
    pub fn choose(&self, arch: Arch) -> Choice {
        let asked = std::env::var(VARIABLE).ok();
        match asked.as_deref() {
            Some("tcg") => return Choice::Tcg(NoKvm::Asked),
            Some("kvm") => return Choice::Forced,
            _ => {}
        }
        if Arch::host() != Some(arch) {
            return Choice::Tcg(NoKvm::Foreign(arch.to_string()));
        }
        if let Err(reason) = probe(Path::new(DEVICE)) {
            return Choice::Tcg(reason);
        }
        match self.recall() {
            Some(Record { broken: None, .. }) => Choice::Proven,
            Some(Record { broken: Some(reason), .. }) => Choice::Tcg(NoKvm::Broken(reason)),
            None => Choice::Untried,
        }
    }

    /// Whether a guest ran under KVM since the host booted.
    pub fn is_proven(&self) -> bool {
        matches!(self.recall(), Some(Record { broken: None, .. }))
    }

    /// A guest ran.
    pub fn proven(&self) -> io::Result<()> {
        self.remember(None)
    }

    /// A guest did not run, and why.
    pub fn broken(&self, reason: &str) -> io::Result<()> {
        self.remember(Some(reason.to_owned()))
    }

    /// A guest came up; `suspicion` is why KVM was given up before that. What cannot be remembered
    /// is found out again, at the price of one more failed boot.
    pub fn learn(&self, accelerator: Accelerator, suspicion: Option<&str>) {
        let learnt = match (accelerator, suspicion) {
            (Accelerator::Kvm, _) if self.is_proven() => Ok(()),
            (Accelerator::Kvm, _) => self.proven(),
            (Accelerator::Tcg, Some(reason)) => self.broken(reason),
            (Accelerator::Tcg, None) => Ok(()),
        };
        if let Err(error) = learnt {
            log::warn!("failed to write {}: {error}", self.file.display());
        }
    }

    fn recall(&self) -> Option<Record> {
        let text = fs::read(&self.file).ok()?;
        let record: Record = serde_json::from_slice(&text).ok()?;
        (!self.boot_id.is_empty() && record.boot_id == self.boot_id).then_some(record)
    }

    fn remember(&self, broken: Option<String>) -> io::Result<()> {
        let record = Record { boot_id: self.boot_id.clone(), broken };
        let folder = self.file.parent().unwrap_or(Path::new("."));
        fs::create_dir_all(folder)?;
        crate::registry::replace_file(&self.file, &serde_json::to_vec(&record)?, 0o644)
    }
}

fn probe(device: &Path) -> Result<(), NoKvm> {
    match fs::OpenOptions::new().read(true).write(true).open(device) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(NoKvm::NoDevice),
        Err(error) => Err(NoKvm::Denied(error.raw_os_error().unwrap_or(0))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn memory(folder: &Path, boot_id: &str) -> Memory {
        Memory { file: folder.join("cache").join(FILE), boot_id: boot_id.into() }
    }

    #[test]
    fn a_verdict_lasts_until_the_host_boots_again() {
        let folder = tempfile::tempdir().unwrap();
        let first = memory(folder.path(), "first");
        assert_eq!(first.recall(), None);
        first.broken("emulation failure").unwrap();
        let reason = first.recall().unwrap().broken;
        assert_eq!(reason.as_deref(), Some("emulation failure"));
        assert!(!first.is_proven());
        assert_eq!(memory(folder.path(), "second").recall(), None);
        first.proven().unwrap();
        assert!(first.is_proven());
    }

    #[test]
    fn an_unreadable_verdict_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let memory = memory(folder.path(), "boot");
        memory.proven().unwrap();
        fs::write(&memory.file, b"{\"boot_id\":").unwrap();
        assert_eq!(memory.recall(), None);
    }

    #[test]
    fn a_missing_device_is_told_from_one_that_cannot_be_opened() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(probe(&folder.path().join("kvm")), Err(NoKvm::NoDevice));
        // A folder cannot be opened for writing, by root either.
        assert_eq!(probe(folder.path()), Err(NoKvm::Denied(21)));
    }

    #[test]
    fn a_foreign_guest_runs_under_tcg() {
        let folder = tempfile::tempdir().unwrap();
        let foreign = match Arch::host() {
            Some(Arch::X86_64) => Arch::Aarch64,
            _ => Arch::X86_64,
        };
        let choice = memory(folder.path(), "boot").choose(foreign);
        assert_eq!(choice.accelerator(), Accelerator::Tcg);
    }
}
