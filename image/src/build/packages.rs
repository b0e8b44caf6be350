//! The packages of an image: locked, fetched, read, and cut down to what runs.

use super::images::{self, Images};
use super::reduce::{Wishes, reduce};
use super::{engine, of_debian};
use crate::appliance::{Appliance, Files};
use crate::base;
use crate::command_line::Arch;
use crate::config::{Engine, Network, Part, network, place};
use crate::debian::{self, Debian, Package, deb, solver};
use crate::elf;
use crate::exit::{BAD_INPUT, BUG, FAILED, Failure, with_causes};
use crate::finding::Finding;
use crate::generator::Packaged;
use crate::lock::{self, AskedImage, Lock, Section, Wanted};
use crate::login;
use crate::output::description::LeftOut;
use crate::terminal::{self, Measure, Task};
use crate::tree::{Kind, Tree, filter};
use crate::units::{Compiled, podman};
use std::path::{Path, PathBuf};

/// Podman's default seccomp profile.
const SECCOMP: &str = crate::oci::seccomp::PROFILE;
/// Where packages keep system units.
const UNITS: [&str; 6] = [
    "/usr/lib/systemd/system/",
    "/usr/lib/systemd/user/",
    "/etc/systemd/system/",
    "/etc/systemd/user/",
    "/usr/share/containers/systemd/",
    "/etc/containers/systemd/",
];

/// What the lock says, or a new lock where it does not cover the appliance.
pub fn locked(appliance: &Appliance, debian: &Debian, arch: Arch) -> Result<Section, Failure> {
    let asked = asked(appliance, arch)?;
    let path = appliance.folder.join(lock::FILE);
    let bad = |error: lock::Error| match error {
        lock::Error::Malformed { span, message, .. } => {
            let finding = Finding::error(span, message).help("`rouse lock` writes a new one");
            Failure::findings(BAD_INPUT, vec![finding])
        }
        error => {
            let failure = Failure::new(BAD_INPUT, "use the lock").because(error);
            failure.hint("`rouse lock` writes a new one")
        }
    };
    let wanted = wanted(appliance, arch, &asked);
    let lock = Lock::read(&path).map_err(bad)?;
    if let Some(lock) = &lock {
        match lock.covers(&wanted) {
            Ok(section) => return Ok(section.clone()),
            Err(stale) => terminal::note(format!("{stale}: resolving packages and images anew")),
        }
    }
    resolve(appliance, debian, arch, lock, Keep::IfPossible)
}

/// Whether a lock that cannot be written is an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keep {
    /// It is.
    MustWrite,
    /// A folder that cannot be written to can still be built, but not pinned.
    IfPossible,
}

/// Resolves packages and images anew and writes the lock.
pub fn resolve(
    appliance: &Appliance,
    debian: &Debian,
    arch: Arch,
    old: Option<Lock>,
    keep: Keep,
) -> Result<Section, Failure> {
    let asked = asked(appliance, arch)?;
    let wanted = wanted(appliance, arch, &asked);
    let path = appliance.folder.join(lock::FILE);
    let mut section = wanted.resolve(debian).map_err(|error| unresolved(appliance, error))?;
    section.images = Images::new(appliance, debian, arch).resolve(&asked)?;
    let mut new =
        old.filter(|lock| lock.suite == wanted.suite).unwrap_or_else(|| Lock::new(wanted.suite));
    new.insert(arch.debian(), section.clone());
    match new.write(&path) {
        Ok(()) => terminal::note(format!("wrote {} for {}", path.display(), arch.as_str())),
        Err(error) if keep == Keep::MustWrite => {
            return Err(Failure::of(FAILED, &error));
        }
        Err(error) => {
            terminal::warn(format!("packages and images are not pinned: {}", with_causes(&error)));
        }
    }
    Ok(section)
}

/// A package that the config asks for and that does not exist is shown where it asks for it.
fn unresolved(appliance: &Appliance, error: debian::Error) -> Failure {
    if let debian::Error::Solver(solver::Error::Unknown { name }) = &error
        && appliance.config.packages.contains(name)
    {
        let span = place(&appliance.source, &["packages", name], Part::Value);
        let suite = &appliance.config.debian.suite;
        let finding = Finding::error(span, format!("there is no package `{name}` in {suite}"))
            .label("expected the name of a Debian package")
            .help("packages.debian.org finds packages by the files in them");
        return Failure::findings(BAD_INPUT, vec![finding]);
    }
    of_debian("resolve packages", error)
}

/// The images of units that lie in the appliance's folder, as far as these can be compiled yet:
/// one that comes inside a package is not asked for its images before it is locked itself.
fn asked(appliance: &Appliance, arch: Arch) -> Result<Vec<AskedImage>, Failure> {
    images::asked(appliance, &super::compile_early(appliance, arch))
}

fn wanted<'a>(appliance: &'a Appliance, arch: Arch, images: &'a [AskedImage]) -> Wanted<'a> {
    Wanted {
        suite: &appliance.config.debian.suite,
        architecture: arch.debian(),
        roots: &appliance.config.packages,
        parts: parts(appliance),
        alone: engine::alone(appliance),
        kernel: lock::kernel_root(arch.debian()),
        images,
    }
}

/// Packages of which the image takes some programs and their libraries.
fn parts(appliance: &Appliance) -> Vec<&'static str> {
    let network = appliance.config.network.iter().filter(|network| network.is_dynamic());
    let client = network.map(|_| network::CLIENT_PACKAGE);
    engine::packages(appliance).iter().copied().chain(client).collect()
}

/// The packages of an image, read.
pub(super) struct Packages {
    /// What the person asked for, with all it depends on.
    whole: Tree,
    /// What only parts are taken of: the container runtime and its libraries.
    parts: Tree,
    /// Units in `whole`: path without the first `/`, text.
    units: Vec<(String, String)>,
    /// Links among them: the same, and what they lead to.
    links: Vec<(String, String)>,
    /// Podman's generator, if the appliance has files for it.
    generator: Option<Packaged>,
}

impl Packages {
    /// Fetches and reads what is locked.
    pub(super) fn read(
        appliance: &Appliance,
        debian: &Debian,
        section: &Section,
    ) -> Result<Self, Failure> {
        let mut whole = read(debian, &section.packages)?;
        let parts = read(debian, &section.parts)?;
        let podman = appliance.config.engine == Engine::Podman;
        let generator = match podman {
            true => {
                let program = debian::tools::quadlet(debian, &section.parts);
                let program = program.map_err(|error| of_debian("fetch Podman's generator", error));
                Some(Packaged::new(program?))
            }
            false => None,
        };
        let (mut units, mut links) = (Vec::new(), Vec::new());
        // podman.socket and podman.service come with Podman.
        let with_units = std::iter::once(&whole).chain(podman.then_some(&parts));
        for (path, node) in with_units.flat_map(Tree::iter) {
            if !UNITS.iter().any(|folder| path.starts_with(folder)) {
                continue;
            }
            let short = path.trim_start_matches('/').to_owned();
            match &node.kind {
                Kind::File(content) => {
                    units
                        .extend(String::from_utf8(content.to_vec()).ok().map(|text| (short, text)));
                }
                Kind::Symlink(target) if target == "/dev/null" => {
                    units.push((short, String::new()))
                }
                Kind::Symlink(target) => links.push((short, target.clone())),
                _ => {}
            }
        }
        reduce(&mut whole, &Wishes::of_guest(&appliance.config), &appliance.source)?;
        Ok(Self { whole, parts, units, links, generator })
    }

    /// Compiles the appliance's units with what is known now.
    pub(super) fn compile(&self, appliance: &Appliance, arch: Arch) -> Compiled {
        let has_file = |path: &str| {
            self.whole.trace(path).is_some()
                || self.parts.trace(path).is_some()
                || base::has(path)
                || is_copied(appliance, path)
        };
        let users = &appliance.config.users;
        appliance.compile(
            arch,
            &Files {
                packaged: &self.units,
                links: &self.links,
                passwd: &login::passwd(users),
                group: &login::group(users),
                has_file: Some(&has_file),
                generator: self.generator.as_ref().map(|it| it as &dyn podman::Generator),
            },
        )
    }

    /// Podman's default seccomp profile.
    pub(super) fn seccomp(&self) -> Result<String, Failure> {
        let content = self
            .parts
            .content(SECCOMP)
            .ok_or_else(|| Failure::new(BUG, format!("find {SECCOMP} in the packages")))?;
        String::from_utf8(content.to_vec())
            .map_err(|error| Failure::new(BUG, format!("read {SECCOMP}")).because(error))
    }

    /// Puts what runs into an image; what runs containers if there are any, the DHCP client if the
    /// network wants one. Says what was left out for being documentation.
    pub(super) fn put_into(
        &self,
        tree: &mut Tree,
        appliance: &Appliance,
        containers: Containers,
    ) -> Result<LeftOut, Failure> {
        let mut left_out = LeftOut::default();
        let docs = appliance.config.root.docs;
        let mut whole = self.whole.clone();
        whole.retain(|path, node| {
            if !filter::is_documentation(path) {
                return filter::is_wanted(path);
            }
            if !docs && node.kind != Kind::Directory {
                left_out.files += 1;
                left_out.size += node.size();
            }
            docs
        });
        tree.graft("/", &whole).map_err(super::conflict)?;
        let mut programs = match containers {
            Containers::Some => engine::roots(appliance),
            Containers::None => vec![],
        };
        if appliance.config.network.as_ref().is_some_and(Network::is_dynamic) {
            programs.push(network::CLIENT);
        }
        if !programs.is_empty() {
            let mut parts = self.parts.clone();
            elf::reduce(&mut parts, programs)
                .map_err(|error| Failure::new(BUG, "find what programs need").because(error))?;
            tree.graft("/", &parts).map_err(super::conflict)?;
        }
        Ok(left_out)
    }
}

impl Containers {
    /// Whether some units have containers; with Podman, others may come at any time.
    pub(super) fn of(appliance: &Appliance, compiled: &Compiled) -> Self {
        match appliance.config.engine {
            Engine::Crun if compiled.containers.is_empty() => Self::None,
            _ => Self::Some,
        }
    }
}

/// Whether an image runs containers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Containers {
    /// It does.
    Some,
    /// It does not.
    None,
}

/// Whether `[files]` puts something there.
fn is_copied(appliance: &Appliance, path: &str) -> bool {
    appliance.config.files.iter().any(|(to, from)| match Path::new(path).strip_prefix(to) {
        Ok(below) if below.as_os_str().is_empty() => true,
        Ok(below) => appliance.path(from).join(below).exists(),
        // A folder above it.
        Err(_) => Path::new(to).starts_with(path),
    })
}

pub(super) fn read(debian: &Debian, packages: &[Package]) -> Result<Tree, Failure> {
    let mut tree = Tree::new();
    let new = packages.iter().filter(|package| !debian.cache().has_made(&key(package)));
    fetch(debian, &new.cloned().collect::<Vec<_>>())?;
    let task = Task::begin("reading packages", Measure::Items, packages.len() as u64);
    for package in packages {
        let origin: std::sync::Arc<str> = package.to_string().into();
        let repacked = repacked(debian, package)?;
        let inserted = tree.insert_package(&repacked, &origin);
        inserted.map_err(|error| unread(package).because(error))?;
        task.advance(1);
    }
    Ok(tree)
}

fn fetch(debian: &Debian, packages: &[Package]) -> Result<Vec<PathBuf>, Failure> {
    debian.fetch(packages).map_err(|error| of_debian("fetch packages", error))
}

fn unread(package: &Package) -> Failure {
    Failure::new(FAILED, format!("read package {package}"))
}

/// Where the cache has what a package holds.
fn key(package: &Package) -> String {
    format!("data-1-{}", package.sha256)
}

/// What a package holds, from the cache if it was read before.
fn repacked(debian: &Debian, package: &Package) -> Result<Vec<u8>, Failure> {
    let key = key(package);
    // A cache that cannot be used costs time, and nothing else.
    if let Ok(Some(repacked)) = debian.cache().made(&key) {
        return Ok(repacked);
    }
    let mut repacked = vec![];
    for deb in fetch(debian, std::slice::from_ref(package))? {
        repacked = deb::repack(&deb).map_err(|error| unread(package).because(error))?;
    }
    let _ = debian.cache().store_made(&key, &repacked);
    Ok(repacked)
}
