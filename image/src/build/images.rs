//! Container images of an appliance: which there are, what is locked for them, and what they are.

use super::fingerprint;
use super::reduce::{Wishes, reduce};
use crate::appliance::Appliance;
use crate::base;
use crate::cache::{Cache, Hash};
use crate::command_line::Arch;
use crate::config::{self, Part, place};
use crate::debian::{self, Debian, solver};
use crate::download::Client;
use crate::exit::{BAD_INPUT, BUG, FAILED, Failure, TRY_AGAIN, UNAVAILABLE};
use crate::finding::Finding;
use crate::lock::{AskedImage, LockedImage, Section};
use crate::oci::source::{Import, Layers, Origin, SourceError};
use crate::oci::{self, ContainerImage};
use crate::static_build::{self, Binary, StaticBuildError};
use crate::terminal::{self, Measure, Task};
use crate::tree::{Tree, filter};
use crate::units::Compiled;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// The images that have to be locked: all that appliance.toml describes and that do not lie in
/// its folder file by file, and those of a registry that only a unit names.
pub(super) fn asked(
    appliance: &Appliance,
    compiled: &Compiled,
) -> Result<Vec<AskedImage>, Failure> {
    let config = &appliance.config;
    let mut asked = Vec::new();
    for reference in references(appliance, compiled) {
        let source = match config.image.get(&reference) {
            Some(image) if !image.packages.is_empty() => {
                let mut packages = image.packages.clone();
                packages.sort();
                packages.dedup();
                format!("packages:{}", packages.join(","))
            }
            Some(config::Image { from: Some(from), .. }) => from.clone(),
            Some(config::Image { containerfile: Some(file), context, options, .. }) => {
                let path = appliance.path(file);
                let beside = || path.parent().unwrap_or(&appliance.folder).to_owned();
                let folder = context.as_ref().map_or_else(beside, |folder| appliance.path(folder));
                let mut hash = fingerprint::of_folder(&folder)?;
                // A `.build` may have it elsewhere.
                if !path.starts_with(&folder) {
                    let beside = fingerprint::of_folder(&beside())?;
                    hash = Hash::of(format!("{hash}{beside}").as_bytes()).to_string();
                }
                if !options.is_empty() {
                    hash = Hash::of(format!("{hash}{options:?}").as_bytes()).to_string();
                }
                format!("containerfile:{}@sha256:{hash}", file.display())
            }
            Some(_) => continue,
            None => match config.origin(&reference, &appliance.folder) {
                Some(origin) => origin.to_string(),
                None => continue,
            },
        };
        asked.push(AskedImage { reference, source });
    }
    Ok(asked)
}

/// All images: those of appliance.toml, and those that units name.
pub(super) fn references(appliance: &Appliance, compiled: &Compiled) -> BTreeSet<String> {
    let named = compiled.containers.iter().flat_map(|(_, container)| oci::references(container));
    named.chain(appliance.config.image.keys().cloned()).collect()
}

/// Brings and makes images. What was read for one is kept for the next.
pub(super) struct Images<'a> {
    appliance: &'a Appliance,
    arch: Arch,
    debian: &'a Debian,
    client: Client,
    layers: RefCell<Layers>,
}

impl<'a> Images<'a> {
    pub(super) fn new(appliance: &'a Appliance, debian: &'a Debian, arch: Arch) -> Self {
        let layers = RefCell::default();
        Self { appliance, arch, debian, client: Client::new(), layers }
    }

    /// What the images are today.
    pub(super) fn resolve(&self, asked: &[AskedImage]) -> Result<Vec<LockedImage>, Failure> {
        asked.iter().map(|image| self.resolve_one(image)).collect()
    }

    fn resolve_one(&self, asked: &AskedImage) -> Result<LockedImage, Failure> {
        let AskedImage { reference, source } = asked;
        let packages = self.packages_of(reference);
        let (mut digest, mut locked) = (None, Vec::new());
        if packages.is_empty() {
            let origin = self.origin(reference)?;
            let _task = Task::begin(format!("asking for {origin}"), Measure::None, 0);
            let found = self.with_import(|import| import.resolve(&origin));
            digest = Some(found.map_err(|error| self.failed(reference, error))?);
        } else {
            let suite = &self.appliance.config.debian.suite;
            locked = self
                .debian
                .resolve(suite, self.arch.debian(), packages)
                .map_err(|error| self.unresolved(reference, packages, error))?;
        }
        let (reference, source) = (reference.clone(), source.clone());
        Ok(LockedImage { reference, source, digest, packages: locked })
    }

    /// An image with its files.
    pub(super) fn image(
        &self,
        reference: &str,
        section: &Section,
    ) -> Result<ContainerImage, Failure> {
        let config = self.appliance.config.image.get(reference);
        let locked = section.images.iter().find(|image| image.reference == reference);
        let base = match (locked, config.and_then(|config| config.cargo.as_ref())) {
            (Some(LockedImage { digest: Some(digest), .. }), _) => {
                let origin = self.origin(reference)?;
                let image = self.with_import(|import| {
                    let stored = import.fetch(&origin, *digest)?;
                    self.layers.borrow_mut().unpack(reference, &stored, import.architecture)
                });
                image.map_err(|error| self.failed(reference, error))?
            }
            (Some(locked), _) => self.of_packages(locked)?,
            (None, Some(folder)) => {
                let binary = self.compile(folder, reference)?;
                ContainerImage::of_binary(reference, &binary).map_err(super::conflict)?
            }
            // A unit of a package names it: nobody knew of it when the lock was made.
            (None, None) if config.is_none() => {
                let failure =
                    Failure::new(BAD_INPUT, format!("find image {reference} in the lock"));
                let table = format!("[image.\"{reference}\"]");
                return Err(
                    failure.hint(format!("add `{table}` with `from = \"docker://{reference}\"`"))
                );
            }
            (None, None) => ContainerImage::new(reference, Tree::plain()),
        };
        match config {
            None => Ok(base),
            Some(config) => base.with(config, &self.appliance.folder).map_err(|error| {
                Failure::new(BAD_INPUT, format!("make image {reference}")).because(error)
            }),
        }
    }

    fn packages_of(&self, reference: &str) -> &[String] {
        let config = self.appliance.config.image.get(reference);
        config.map_or(&[], |config| config.packages.as_slice())
    }

    fn origin(&self, reference: &str) -> Result<Origin, Failure> {
        let origin = self.appliance.config.origin(reference, &self.appliance.folder);
        origin.ok_or_else(|| Failure::new(BUG, format!("find where image {reference} comes from")))
    }

    fn with_import<T>(&self, work: impl FnOnce(&Import<'_>) -> T) -> T {
        work(&Import {
            cache: self.debian.cache(),
            architecture: self.arch.debian(),
            client: &self.client,
            scheme: &|reference| self.appliance.config.scheme(reference),
        })
    }

    /// Everything that the packages have and that is not for people: as in the guest itself, but
    /// with accounts of its own. No maintainer script is run.
    fn of_packages(&self, locked: &LockedImage) -> Result<ContainerImage, Failure> {
        let mut files = super::packages::read(self.debian, &locked.packages)?;
        if let Some(image) = self.appliance.config.image.get(&locked.reference) {
            let table = ["image", locked.reference.as_str()];
            reduce(&mut files, &Wishes::of_image(image, &table), &self.appliance.source)?;
        }
        files.retain(|path, _| filter::is_wanted(path));
        base::complete(&mut files).map_err(super::conflict)?;
        Ok(ContainerImage::new(&locked.reference, files))
    }

    fn compile(&self, folder: &Path, reference: &str) -> Result<Binary, Failure> {
        let cache: &Cache = self.debian.cache();
        let folder = self.appliance.path(folder);
        let _task = Task::begin(format!("compiling {}", folder.display()), Measure::None, 0);
        let package = static_build::Package {
            folder: &folder,
            member: None,
            profile: "release",
            architecture: self.arch.as_str(),
            target_directory: &cache.root().join("cargo"),
        };
        static_build::build(&package).map_err(|error| {
            let code = match error {
                StaticBuildError::NoToolchain { .. }
                | StaticBuildError::NoTarget { .. }
                | StaticBuildError::NoLinker { .. } => UNAVAILABLE,
                StaticBuildError::DiskFull { .. } => TRY_AGAIN,
                _ => BAD_INPUT,
            };
            let hint = error.hint();
            let failure = Failure::new(code, format!("make image {reference}")).because(error);
            match hint {
                Some(hint) => failure.hint(hint),
                None => failure,
            }
        })
    }

    fn failed(&self, reference: &str, error: SourceError) -> Failure {
        let code = match &error {
            error if error.is_temporary() => TRY_AGAIN,
            SourceError::Read { .. } => FAILED,
            error if error.is_input() => BAD_INPUT,
            _ => UNAVAILABLE,
        };
        let hint = error.hint();
        let failure = Failure::new(code, format!("get image {reference}")).because(error);
        match hint {
            Some(hint) => failure.hint(hint),
            None => failure,
        }
    }

    /// A package that an image asks for and that does not exist is shown where it asks for it.
    fn unresolved(&self, reference: &str, asked: &[String], error: debian::Error) -> Failure {
        if let debian::Error::Solver(solver::Error::Unknown { name }) = &error
            && asked.contains(name)
        {
            let keys = ["image", reference, "packages", name.as_str()];
            let span = place(&self.appliance.source, &keys, Part::Value);
            let suite = &self.appliance.config.debian.suite;
            let finding = Finding::error(span, format!("there is no package `{name}` in {suite}"))
                .label("expected the name of a Debian package")
                .help("packages.debian.org finds packages by the files in them");
            return Failure::findings(BAD_INPUT, vec![finding]);
        }
        super::of_debian("resolve the packages of an image", error)
    }
}

/// Says which programs lose rights that only an extended attribute gives them, capabilities(7):
/// an initramfs has none.
pub(super) fn warn_of_lost(tree: &Tree) {
    let has = |node: &crate::tree::Node| node.xattrs.contains_key("security.capability");
    for (path, _) in tree.iter().filter(|(_, node)| has(node)) {
        let text = format!("{path} loses its file capabilities: an initramfs cannot hold them");
        terminal::warn(text);
    }
}

/// Images by their references, for the description: where they come from, and their digests.
pub(super) fn sources(section: &Section) -> BTreeMap<String, String> {
    let digest = |image: &LockedImage| match &image.digest {
        Some(digest) => format!("{} {digest}", image.source),
        None => image.source.clone(),
    };
    section.images.iter().map(|image| (image.reference.clone(), digest(image))).collect()
}
