//! Which QEMU runs a guest.
//!
//! The host's own, if it is new enough; else one from Debian's packages, unpacked into a folder
//! (a *tree*) and run from there, without root and without the host's libraries.
//!
//! # What a tree needs
//! The files of `qemu-system-x86` (or `qemu-system-arm`) and of everything it depends on, without
//! recommends, from one Debian suite (for trixie: 92 packages, 37 MB to download), unpacked as they
//! are; no maintainer script has to run. Used of it are
//! * `usr/bin/qemu-system-ARCH`, started through the tree's own dynamic loader
//!   (`usr/lib64/ld-linux-x86-64.so.2`, on arm64 hosts `usr/lib/ld-linux-aarch64.so.1`), since the
//!   host's libc may be older;
//! * `usr/lib/MULTIARCH` for libraries;
//! * `usr/share/qemu` and `usr/share/seabios` for firmware: QEMU looks for them beside the file
//!   that was executed, which is the loader, and so must be told with `-L`;
//! * `usr/lib/MULTIARCH/qemu` for QEMU's own modules: nothing that is asked for here is one, but
//!   without QEMU_MODULE_DIR a host's modules of another version would be looked at.
//!
//! Measured with trixie's 10.0: 280 MB unpacked, of which a guest for x86_64 needs 65 MB: the
//! program, its loader, the 50 libraries that it names (and those that they name), and of the
//! firmware `seabios/bios-256k.bin`, `qemu/linuxboot_dma.bin` and `qemu/kvmvapic.bin`. The rest
//! may be left out. Symbolic links have to be kept as they are, or followed.
//!
//! # Old versions
//! QEMU before version 10 corrupts x86_64 guests under TCG through cmpxchg16b (measured with 7.2:
//! 5 of 16 boots crashed). Such a QEMU is used only where KVM is known to run, or where the user
//! names it, and then without that instruction.

use crate::accelerator::Memory;
use crate::machine::Arch;
use serde::{Deserialize, Serialize};
use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Names a QEMU program to use instead of all others.
pub const VARIABLE: &str = "ROUSE_QEMU";

/// A QEMU that can be run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Emulator {
    /// The program, and what has to stand before QEMU's own arguments.
    pub command: Vec<OsString>,
    /// Folders with firmware (`-L`).
    pub data: Vec<PathBuf>,
    /// To add to its environment.
    pub environment: Vec<(String, OsString)>,
    /// Its version.
    pub version: Version,
    /// Whether it was built with `-sandbox` (seccomp).
    pub sandbox: bool,
}

/// A version of QEMU.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Version {
    /// 10 of 10.0.13.
    pub major: u32,
    /// 0 of 10.0.13.
    pub minor: u32,
    /// 13 of 10.0.13.
    pub patch: u32,
}

impl std::fmt::Display for Version {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

/// Where a QEMU comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// This one.
    Ready(Emulator),
    /// The host has none that would do; make a tree and call [`Emulator::from_tree`].
    NeedsTree,
}

/// Why a QEMU cannot be run.
#[derive(Debug, thiserror::Error)]
pub enum EmulatorError {
    /// A tree lacks a file.
    #[error("find QEMU in {}: {file} is missing", .tree.display())]
    Incomplete {
        /// The tree.
        tree: PathBuf,
        /// Relative to it.
        file: String,
    },
    /// The tree's path has a colon in it.
    #[error("run QEMU in {}, a path with a colon in it", .0.display())]
    Colon(PathBuf),
    /// The host's architecture has no dynamic loader that is known here.
    #[error("run QEMU from packages on this host's architecture")]
    Host,
    /// It could not be executed.
    #[error("execute {program}")]
    Execute {
        /// The program.
        program: String,
        /// Why.
        source: std::io::Error,
    },
    /// It ran, and does not look like QEMU.
    #[error("ask {program} for its version, it said: {said}")]
    NotQemu {
        /// The program.
        program: String,
        /// The first line that it wrote.
        said: String,
    },
}

impl Emulator {
    /// The one to use for guests of `arch`: `ROUSE_QEMU`, else the host's if it can be relied on.
    pub fn find(arch: Arch, memory: &Memory) -> Result<Found, EmulatorError> {
        if let Some(program) = std::env::var_os(VARIABLE).filter(|value| !value.is_empty()) {
            // The VM's process runs elsewhere. A word without a slash is looked for in the PATH.
            let program = match program.as_bytes().contains(&b'/') {
                true => std::path::absolute(&program).map_or(program, Into::into),
                false => program,
            };
            return Self::probe(vec![program], Vec::new(), Vec::new()).map(Found::Ready);
        }
        let reliable = |emulator: &Self| {
            emulator.is_sound_under_tcg() || (Arch::host() == Some(arch) && memory.is_proven())
        };
        Ok(match Self::from_host(arch).filter(reliable) {
            Some(emulator) => Found::Ready(emulator),
            None => Found::NeedsTree,
        })
    }

    /// `qemu-system-ARCH` in the PATH, of any version, if there is one and it runs.
    pub fn from_host(arch: Arch) -> Option<Self> {
        let program = format!("qemu-system-{arch}");
        Self::probe(vec![program.into()], Vec::new(), Vec::new()).ok()
    }

    /// The QEMU for guests of `arch` in a tree; see the module for what that holds.
    pub fn from_tree(tree: &Path, arch: Arch) -> Result<Self, EmulatorError> {
        let (loader, libraries) = match Arch::host().ok_or(EmulatorError::Host)? {
            Arch::X86_64 => ("usr/lib64/ld-linux-x86-64.so.2", "usr/lib/x86_64-linux-gnu"),
            Arch::Aarch64 => ("usr/lib/ld-linux-aarch64.so.1", "usr/lib/aarch64-linux-gnu"),
        };
        // It separates the folders of the loader's --library-path.
        if tree.as_os_str().as_bytes().contains(&b':') {
            return Err(EmulatorError::Colon(tree.into()));
        }
        let program = format!("usr/bin/qemu-system-{arch}");
        for file in [loader, &program] {
            if !tree.join(file).exists() {
                return Err(EmulatorError::Incomplete { tree: tree.into(), file: file.into() });
            }
        }
        let libraries = tree.join(libraries);
        let command = vec![
            tree.join(loader).into(),
            "--library-path".into(),
            libraries.clone().into(),
            tree.join(program).into(),
        ];
        let data = vec![tree.join("usr/share/qemu"), tree.join("usr/share/seabios")];
        let modules = libraries.join("qemu").into_os_string();
        Self::probe(command, data, vec![("QEMU_MODULE_DIR".into(), modules)])
    }

    /// Runs it to learn its version.
    fn probe(
        command: Vec<OsString>,
        data: Vec<PathBuf>,
        environment: Vec<(String, OsString)>,
    ) -> Result<Self, EmulatorError> {
        let program = command.last().map(|word| word.display().to_string()).unwrap_or_default();
        let (first, rest) = command.split_first().ok_or(EmulatorError::Host)?;
        let output = Command::new(first)
            .args(rest)
            .arg("-help")
            .envs(environment.iter().map(|(name, value)| (name, value)))
            .output()
            .map_err(|source| EmulatorError::Execute { program: program.clone(), source })?;
        let help = String::from_utf8_lossy(&output.stdout);
        let Some(version) = parse_version(&help) else {
            let said = help.lines().next().map(str::to_owned);
            let errors = String::from_utf8_lossy(&output.stderr);
            let said = said.or_else(|| errors.lines().next().map(str::to_owned));
            return Err(EmulatorError::NotQemu { program, said: said.unwrap_or_default() });
        };
        let sandbox = help.lines().any(|line| line.starts_with("-sandbox on"));
        Ok(Self { command, data, environment, version, sandbox })
    }

    /// Whether x86_64 guests can be trusted under TCG with every instruction.
    pub fn is_sound_under_tcg(&self) -> bool {
        self.version.major >= 10
    }
}

/// `QEMU emulator version 10.0.13 (Debian ...)`
fn parse_version(help: &str) -> Option<Version> {
    let rest = help.lines().next()?.strip_prefix("QEMU emulator version ")?;
    let digits = rest.split(|c: char| c != '.' && !c.is_ascii_digit()).next()?;
    let mut numbers = digits.split('.').map(|number| number.parse().unwrap_or(0));
    let major = numbers.next().filter(|&major| major > 0)?;
    let minor = numbers.next().unwrap_or(0);
    Some(Version { major, minor, patch: numbers.next().unwrap_or(0) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn script(path: &Path, text: &str) {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, format!("#!/bin/sh\n{text}\n")).unwrap();
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
    }

    #[test]
    fn versions() {
        let version = |major, minor, patch| Some(Version { major, minor, patch });
        let debian = "QEMU emulator version 10.0.13 (Debian 1:10.0.13+ds-0+deb13u1)\nusage";
        assert_eq!(parse_version(debian), version(10, 0, 13));
        assert_eq!(parse_version("QEMU emulator version 9.1-rc2"), version(9, 1, 0));
        assert_eq!(parse_version("usage: cat"), None);
        assert_eq!(parse_version("QEMU emulator version "), None);
    }

    #[test]
    fn a_tree_runs_through_its_own_loader() {
        let folder = tempfile::tempdir().unwrap();
        let tree = folder.path();
        let Err(EmulatorError::Incomplete { file, .. }) = Emulator::from_tree(tree, Arch::X86_64)
        else {
            panic!("an empty tree has no QEMU");
        };
        assert!(file.contains("ld-linux"));
        let colon = Emulator::from_tree(&tree.join("a:b"), Arch::X86_64);
        assert!(matches!(colon, Err(EmulatorError::Colon(path)) if path == tree.join("a:b")));
        // A loader that writes what it was asked to run, in place of running it.
        let says = "echo 'QEMU emulator version 10.0.13 (test)'\necho '-sandbox on[,...]'";
        script(&tree.join("usr/lib64/ld-linux-x86-64.so.2"), says);
        script(&tree.join("usr/lib/ld-linux-aarch64.so.1"), says);
        script(&tree.join("usr/bin/qemu-system-x86_64"), "exit 1");
        let emulator = Emulator::from_tree(tree, Arch::X86_64).unwrap();
        assert_eq!(emulator.version.to_string(), "10.0.13");
        assert!(emulator.sandbox && emulator.is_sound_under_tcg());
        assert_eq!(emulator.command.len(), 4);
        assert_eq!(emulator.command[3], tree.join("usr/bin/qemu-system-x86_64"));
    }

    #[test]
    fn what_is_not_qemu_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join("qemu");
        script(&program, "echo hello");
        let probe = |path: PathBuf| Emulator::probe(vec![path.into()], vec![], vec![]);
        let Err(EmulatorError::NotQemu { said, .. }) = probe(program) else {
            panic!("it said hello");
        };
        assert_eq!(said, "hello");
        let missing = probe(folder.path().join("missing"));
        assert!(matches!(missing, Err(EmulatorError::Execute { .. })));
    }
}
