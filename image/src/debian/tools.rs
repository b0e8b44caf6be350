//! Programs of Debian's that run on this machine from the cache: QEMU, socat.
//!
//! Nothing is installed, and no root is needed: a closure of packages is unpacked into a folder,
//! and its programs are started through that folder's own loader, so that neither this machine's
//! libc nor its libraries matter. What was resolved once is kept, so that the next time nobody is
//! asked; these programs are not in the image, and no appliance's lock names them.

use super::{Architecture, Debian, Error, Package, solver, unpack};
use crate::cache::Hash;
use crate::terminal::{Measure, Task};
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The suite that the programs come from.
const SUITE: &str = "trixie";

/// Whether a resolution that is kept is good enough.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Freshness {
    /// Take what was resolved before, if anything was.
    Kept,
    /// Ask the mirror.
    Today,
}

/// How to start a program of a tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Program {
    /// The tree that it lies in.
    pub tree: PathBuf,
    /// The tree's loader.
    pub loader: PathBuf,
    /// Where the program's libraries are.
    pub libraries: Vec<PathBuf>,
    /// The program.
    pub path: PathBuf,
    /// What it needs in its environment.
    pub environment: Vec<(OsString, OsString)>,
}

impl Program {
    /// What stands before the program's own arguments.
    pub fn arguments(&self) -> Vec<OsString> {
        let libraries = std::env::join_paths(&self.libraries).unwrap_or_default();
        let name = self.path.file_name().unwrap_or_default().to_owned();
        vec![
            self.loader.clone().into(),
            // This machine's ld.so.cache names this machine's libraries.
            "--inhibit-cache".into(),
            "--library-path".into(),
            libraries,
            "--argv0".into(),
            name,
            self.path.clone().into(),
        ]
    }

    /// Ready for the program's own arguments.
    pub fn command(&self) -> Command {
        let arguments = self.arguments();
        let mut command = Command::new(&arguments[0]);
        command.args(&arguments[1..]);
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }
}

/// QEMU's system emulator for guests of an architecture, for [`Architecture::host`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Qemu {
    /// The emulator. It needs `-L` for each of `data`, before any device.
    pub program: Program,
    /// Where its firmware and option ROMs are.
    pub data: Vec<PathBuf>,
}

impl Qemu {
    /// Ready for further arguments, `-L` included.
    pub fn command(&self) -> Command {
        let mut command = self.program.command();
        for folder in &self.data {
            command.arg("-L").arg(folder);
        }
        command
    }
}

/// QEMU for guests of an architecture. The first call downloads some 40 MB.
pub fn qemu(debian: &Debian, guest: Architecture) -> Result<Qemu, Error> {
    let package = match guest {
        Architecture::Amd64 => "qemu-system-x86",
        Architecture::Arm64 => "qemu-system-arm",
    };
    let binary = format!("qemu-system-{}", guest.machine());
    let host = host()?;
    // Network devices ask for their boot ROM even when nothing boots from the network;
    // qemu-system-arm only recommends it.
    let roots = [package, "ipxe-qemu"];
    let tree = tree(debian, package, &roots, host, Freshness::Kept)?;
    let mut program = locate(tree, &binary, host)?;
    // QEMU looks for a module that is not here among this machine's, too, which may be of another
    // version and abort it: nobody should make it load them all (`-device help` does).
    let modules = program.tree.join("usr/lib").join(host.triplet()).join("qemu");
    program.environment.push(("QEMU_MODULE_DIR".into(), modules.into()));
    let data = ["usr/share/qemu", "usr/share/seabios"]
        .into_iter()
        .map(|folder| program.tree.join(folder))
        .filter(|folder| folder.is_dir())
        .collect();
    Ok(Qemu { program, data })
}

/// A program of a package, by its file name: `program(debian, "socat", "socat")`.
pub fn program(debian: &Debian, package: &str, binary: &str) -> Result<Program, Error> {
    let host = host()?;
    let tree = tree(debian, package, &[package], host, Freshness::Kept)?;
    locate(tree, binary, host)
}

/// Podman's generator for Quadlet files. From the locked packages of a guest, if they are for this
/// machine, so that it is of the version of the guest's Podman; else today's.
pub fn quadlet(debian: &Debian, locked: &[Package]) -> Result<Program, Error> {
    const PACKAGES: [&str; 2] = ["podman", "libc6"];
    let host = host()?;
    let fits = |package: &&Package| package.architecture == host.to_string();
    let of = |name: &&str| locked.iter().filter(fits).find(|it| it.name == **name).cloned();
    let mut packages: Vec<Package> = PACKAGES.iter().filter_map(of).collect();
    if packages.len() < PACKAGES.len() {
        let pin = format!("tool-quadlet-{SUITE}-{host}");
        let kept = debian.cache.made(&pin)?;
        let kept = kept.and_then(|kept| serde_json::from_slice::<Pin>(&kept).ok());
        packages = match kept {
            Some(kept) => kept.packages,
            None => PACKAGES
                .iter()
                .map(|name| debian.resolve_alone(SUITE, host, name))
                .collect::<Result<_, _>>()?,
        };
        let pin_of = Pin { roots: vec![], packages: packages.clone() };
        debian.cache.store_made(&pin, &serde_json::to_vec(&pin_of).unwrap_or_default())?;
    }
    let tree = unpacked(debian, "quadlet", &packages)?;
    locate(tree, "podman/quadlet", host)
}

/// Some packages and all that they depend on, unpacked. `name` is a file name under which the
/// resolution is kept.
pub fn tree(
    debian: &Debian,
    name: &str,
    roots: &[&str],
    architecture: Architecture,
    freshness: Freshness,
) -> Result<PathBuf, Error> {
    let pin = format!("tool-{name}-{SUITE}-{architecture}");
    let kept = match freshness {
        Freshness::Kept => debian.cache.made(&pin)?,
        Freshness::Today => None,
    };
    let kept = kept.and_then(|kept| serde_json::from_slice::<Pin>(&kept).ok());
    if let Some(kept) = kept.filter(|kept| kept.roots == roots) {
        match unpacked(debian, name, &kept.packages) {
            // Nothing depends on the old version: take today's.
            Err(Error::Gone { .. }) => {}
            other => return other,
        }
    }
    let packages = debian.resolve(SUITE, architecture, roots)?;
    let tree = unpacked(debian, name, &packages)?;
    let pin_of = Pin { roots: roots.iter().map(ToString::to_string).collect(), packages };
    let bytes = serde_json::to_vec(&pin_of).unwrap_or_default();
    debian.cache.store_made(&pin, &bytes)?;
    Ok(tree)
}

/// What was resolved for a tree.
#[derive(serde::Serialize, serde::Deserialize)]
struct Pin {
    roots: Vec<String>,
    packages: Vec<Package>,
}

fn unpacked(debian: &Debian, name: &str, packages: &[Package]) -> Result<PathBuf, Error> {
    let list: String = packages.iter().map(|package| format!("{}\n", package.sha256)).collect();
    let key = format!("{name}-{}", &Hash::of(list.as_bytes()).to_string()[..16]);
    debian.cache.tree_or_make(&key, |folder| {
        let files = debian.fetch(packages)?;
        let label = format!("unpacking {name}");
        let task = Task::begin(label, Measure::Items, files.len() as u64);
        unpack::unpack(folder, &files, || task.advance(1))?;
        Ok(())
    })
}

fn host() -> Result<Architecture, Error> {
    let unknown = || solver::Error::Unknown {
        name: format!("for this machine's architecture, {}", std::env::consts::ARCH),
    };
    Ok(Architecture::host().ok_or_else(unknown)?)
}

fn locate(tree: PathBuf, binary: &str, architecture: Architecture) -> Result<Program, Error> {
    let path = ["usr/bin", "usr/sbin", "usr/libexec", "usr/games"]
        .into_iter()
        .map(|folder| tree.join(folder).join(binary))
        .find(|path| path.is_file());
    let Some(path) = path else {
        return Err(Error::NoProgram { program: binary.to_owned(), tree });
    };
    let loader = tree.join(architecture.loader());
    let libraries = libraries(&tree, &path, architecture);
    Ok(Program { tree, loader, libraries, path, environment: Vec::new() })
}

/// The folders with the libraries that a program needs, directly or not. Most are in the usual one;
/// some are private (pulseaudio's, ceph's), found by a RUNPATH that names a path of this machine.
fn libraries(tree: &Path, program: &Path, architecture: Architecture) -> Vec<PathBuf> {
    let usual = tree.join("usr/lib").join(architecture.triplet());
    let mut folders = vec![usual.clone(), tree.join("usr/lib")];
    let mut private: Option<BTreeMap<OsString, PathBuf>> = None;
    let mut open = vec![program.to_owned()];
    let mut seen = BTreeSet::new();
    while let Some(path) = open.pop() {
        for name in needed(&path) {
            if !seen.insert(name.clone()) {
                continue;
            }
            if let Some(path) = folders.iter().map(|at| at.join(&name)).find(|at| at.exists()) {
                open.push(path);
                continue;
            }
            let private = private.get_or_insert_with(|| shared_objects(&usual));
            if let Some(path) = private.get(&name) {
                folders.extend(path.parent().map(Path::to_owned));
                open.push(path.clone());
            }
        }
    }
    folders
}

fn needed(path: &Path) -> Vec<OsString> {
    let Ok(bytes) = std::fs::read(path) else { return Vec::new() };
    let Ok(elf) = goblin::elf::Elf::parse(&bytes) else { return Vec::new() };
    elf.libraries.iter().map(OsString::from).collect()
}

/// Every shared object below a folder, by its file name.
fn shared_objects(folder: &Path) -> BTreeMap<OsString, PathBuf> {
    let mut found = BTreeMap::new();
    let mut open = vec![folder.to_owned()];
    while let Some(folder) = open.pop() {
        let Ok(entries) = std::fs::read_dir(folder) else { continue };
        for entry in entries.flatten() {
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => open.push(entry.path()),
                _ if entry.file_name().to_string_lossy().contains(".so") => {
                    let name = entry.file_name();
                    let path = entry.path();
                    // Whatever order the folders are read in, the first path wins.
                    found
                        .entry(name)
                        .and_modify(|at: &mut PathBuf| *at = path.clone().min(at.clone()))
                        .or_insert(path);
                }
                _ => {}
            }
        }
    }
    found
}
