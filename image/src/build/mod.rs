//! From an appliance's folder to an image.
//!
//! ```text
//! appliance.toml, units --compile--> containers, units
//! lock --fetch--> packages --> tree  <-- container images, bundles, files, programs
//!                                |
//!                                v
//!              kernel + initramfs (+ disk) + image.json
//! ```
//!
//! The fingerprint of everything that goes in is kept in image.json: an unchanged appliance is not
//! built again.

mod beside;
mod containers;
mod engine;
mod fingerprint;
mod images;
mod modules;
mod network;
mod packages;
mod podman;
mod reduce;
mod root;

use crate::appliance::{Appliance, Files};
use crate::base;
use crate::cache::Cache;
use crate::command_line::Arch;
use crate::debian::{Architecture, Debian, tools};
use crate::exit::{BAD_INPUT, BUG, FAILED, Failure, TRY_AGAIN, UNAVAILABLE};
use crate::finding::forbids;
use crate::guest;
use crate::kernel::{self, Kernel};
use crate::login;
use crate::output::{self, OutputError, Place, description::Description};
use crate::terminal::{self, Measure, Task};
use crate::tree::Node;
use crate::units::Compiled;
use activator::manifest::{self, Module, UnitKind};
use images::Images;
use packages::{Containers, Packages};
use std::path::{Path, PathBuf};

pub use packages::{Keep, locked, resolve};

/// Kernel modules of every guest: vsock, also to itself (CID 1), and the host's fw_cfg files.
const MODULES: [&str; 3] = ["vmw_vsock_virtio_transport", "vsock_loopback", "qemu_fw_cfg"];

/// Where an image is, and what it is made of.
pub struct Built {
    /// The folder with kernel, initramfs and image.json.
    pub folder: PathBuf,
    /// What the guest will do.
    pub compiled: Compiled,
}

/// Opens the cache.
pub fn cache() -> Result<Cache, Failure> {
    Cache::open().map_err(|error| Failure::of(FAILED, &error))
}

/// Debian, as the appliance wants it.
pub fn debian(appliance: &Appliance, cache: &Cache) -> Debian {
    Debian::new(cache.clone(), appliance.config.debian.mirror.as_deref())
}

/// A failure of fetching or choosing packages.
pub fn of_debian(what: &str, error: crate::debian::Error) -> Failure {
    let code = match &error {
        error if error.is_temporary() => TRY_AGAIN,
        // What the appliance asks for does not exist, or does not go together.
        crate::debian::Error::Solver(_) => BAD_INPUT,
        _ => UNAVAILABLE,
    };
    let hint = error.hint();
    let failure = Failure::new(code, what).because(error);
    match hint {
        Some(hint) => failure.hint(hint),
        None => failure,
    }
}

/// Compiles the units with all that is known of the image's files: fetches packages.
pub fn compile(appliance: &Appliance, arch: Arch) -> Result<Compiled, Failure> {
    let cache = cache()?;
    let debian = debian(appliance, &cache);
    let section = locked(appliance, &debian, arch)?;
    let packages = Packages::read(appliance, &debian, &section)?;
    Ok(packages.compile(appliance, arch))
}

/// Compiles the units without fetching anything: nothing is known of packages then.
pub fn compile_early(appliance: &Appliance, arch: Arch) -> Compiled {
    let users = &appliance.config.users;
    let (passwd, group) = (login::passwd(users), login::group(users));
    let files = Files { passwd: &passwd, group: &group, ..Files::default() };
    appliance.compile(arch, &files)
}

/// Builds an appliance's image, unless the one that is there is current. Without `output` it
/// goes to the cache.
pub fn build(appliance: &Appliance, arch: Arch, output: Option<&Path>) -> Result<Built, Failure> {
    // What is wrong in the person's files, or with the place, is said before anything is fetched.
    output.map_or(Ok(()), output::check_place).map_err(not_written)?;
    let early = (!appliance.needs_packages()).then(|| compile_early(appliance, arch));
    if let Some(compiled) = &early
        && forbids(&compiled.findings, appliance.strict)
    {
        return Err(Failure::findings(BAD_INPUT, compiled.findings.clone()));
    }
    let programs =
        guest::programs(arch.as_str()).map_err(|error| Failure::of(UNAVAILABLE, &error))?;
    let cache = cache()?;
    let debian = debian(appliance, &cache);
    let section = locked(appliance, &debian, arch)?;
    let fingerprint = fingerprint::of(appliance, arch, section.hash(), programs)?;
    let folder = match output {
        Some(folder) => folder.to_owned(),
        None => default_folder(&cache, appliance, arch)?,
    };
    if let Some(compiled) = early
        && Description::is_current(&folder, &fingerprint)
    {
        return Ok(Built { folder, compiled: appliance.accept(compiled)? });
    }

    let packages = Packages::read(appliance, &debian, &section)?;
    let mut compiled = appliance.accept(packages.compile(appliance, arch))?;
    if Description::is_current(&folder, &fingerprint) {
        return Ok(Built { folder, compiled });
    }
    let mut tree = base::tree(&appliance.name, programs).map_err(conflict)?;
    let containers = Containers::of(appliance, &compiled);
    let left_out = packages.put_into(&mut tree, appliance, containers)?;
    if let Some(network) = &appliance.config.network {
        network::put_into(&mut tree, network).map_err(conflict)?;
    }
    let config = std::sync::Arc::from(crate::config::FILE);
    for (path, from) in &appliance.config.files {
        tree.insert_from_disk(path, &appliance.path(from), &config)
            .map_err(|error| Failure::new(BAD_INPUT, "copy [files]").because(error))?;
    }
    for (name, secret) in &appliance.config.secret {
        if let crate::config::Secret::File(from) = secret {
            let content = std::fs::read(appliance.path(from)).map_err(|error| {
                Failure::new(BAD_INPUT, format!("read the secret {name}")).because(error)
            })?;
            let path = format!("{}/{name}", crate::config::Secret::FOLDER);
            let node = crate::tree::Node::file(content, 0o600, config.clone());
            tree.insert(&path, node).map_err(conflict)?;
        }
    }
    login::put_into(&mut tree, &appliance.config.users).map_err(conflict)?;
    podman::put_into(&mut tree).map_err(conflict)?;
    base::fill_gaps(&mut tree).map_err(conflict)?;
    let images = containers::put_into(
        &mut tree,
        appliance,
        &mut compiled,
        arch,
        &section,
        &Images::new(appliance, &debian, arch),
        &packages.seccomp()?,
    )?;

    beside::put_into(&mut tree, appliance, &compiled)?;

    let kernel_package = debian
        .fetch(std::slice::from_ref(&section.kernel))
        .map_err(|error| of_debian("fetch the kernel", error))?;
    let more = podman::modules(&tree);
    let kernel = kernel(appliance, &compiled, more, &cache, &kernel_package[0], &section)?;
    let mut manifest = appliance.manifest(&compiled);
    for unit in &mut manifest.units {
        if let UnitKind::Service(service) = &mut unit.kind
            && let Some(container) = &mut service.container
        {
            let template = tree.content(&container.template);
            container.digest = template.map(|text| manifest::Container::digest_of(text));
        }
    }
    if let Some(disk) = &appliance.config.disk {
        // Where a tmpfs will be, PID 1 makes it.
        tree.make_directory(&disk.path, 0o755, "appliance.toml").map_err(conflict)?;
    }
    for module in &kernel.modules {
        let path = format!("/{}", module.path.display());
        tree.insert(&path, Node::file(module.bytes.as_slice(), 0o644, section.kernel.to_string()))
            .map_err(conflict)?;
        manifest.boot.modules.push(Module {
            path,
            parameters: String::new(),
            // A guest without vsock_loopback, fw_cfg or the person's own modules still serves.
            required: false,
        });
    }
    let encoded = manifest.encode();
    tree.insert(manifest::PATH, Node::file(encoded.as_slice(), 0o644, "rouse"))
        .map_err(conflict)?;

    let packages = std::iter::once(&section.kernel).chain(&section.packages).chain(&section.parts);
    let mut packages: Vec<String> = packages.map(ToString::to_string).collect();
    packages.sort();
    packages.dedup();
    let description = Description {
        name: appliance.name.clone(),
        architecture: arch.as_str().into(),
        fingerprint,
        memory: appliance.config.vm.memory,
        cpus: appliance.config.vm.cpus,
        kernel_release: kernel.release.clone(),
        units: compiled.units.iter().map(|unit| unit.name.clone()).collect(),
        packages,
        images,
        left_out,
        image_sources: images::sources(&section),
        ..Description::default()
    };
    if left_out.files > 0 {
        let mebibytes = left_out.size.div_ceil(1 << 20);
        terminal::note(format!(
            "left {} files of documentation out ({mebibytes} MiB); `[root] docs = true` keeps them",
            left_out.files
        ));
    }
    let boot;
    let place = match appliance.config.root.format.is_disk(tree.size()) {
        true => {
            let sha256 = section.kernel.sha256;
            let kernel = Kernel::extract(&cache, &kernel_package[0], sha256, &root::MODULES)
                .map_err(|error| Failure::of(FAILED, &error))?;
            let device = root::device(&appliance.config);
            boot = root::tree(programs.init, &kernel, device).map_err(conflict)?;
            let mkfs = tools::program(&debian, "erofs-utils", "mkfs.erofs")
                .map_err(|error| of_debian("fetch mkfs.erofs", error))?;
            Place::Disk { boot: &boot, mkfs: Box::new(mkfs.command()) }
        }
        false => {
            images::warn_of_lost(&tree);
            Place::Initramfs
        }
    };
    let size = place.work(&tree).map_err(not_written)?;
    let task = Task::begin("writing the image", Measure::Bytes, size);
    let (kernel, manifest) = (&kernel.image[..], &encoded[..]);
    let (tree, cache) = (&tree, Some(&cache));
    let image = output::Image { description, kernel, manifest, tree, place, cache };
    output::write(&folder, image, |bytes| task.advance(bytes)).map_err(not_written)?;
    drop(task);
    Ok(Built { folder, compiled })
}

fn not_written(error: OutputError) -> Failure {
    let is_occupied = matches!(error, OutputError::Occupied { .. });
    let failure = Failure::new(FAILED, "write the image").because(error);
    match is_occupied {
        true => failure.hint("name a folder that is not there yet, or that `rouse build` wrote"),
        false => failure,
    }
}

/// The kernel, with the modules of every guest and those of this appliance.
fn kernel(
    appliance: &Appliance,
    compiled: &Compiled,
    more: &[&str],
    cache: &Cache,
    package: &Path,
    section: &crate::lock::Section,
) -> Result<Kernel, Failure> {
    let own = &appliance.config.modules;
    let mut wanted: Vec<&str> = MODULES.to_vec();
    wanted.extend(modules::of(&compiled.units));
    wanted.extend(more);
    wanted.extend(appliance.config.disk.iter().map(|_| root::DISK_MODULE));
    wanted.extend(appliance.config.network.iter().flat_map(|network| network.modules()));
    wanted.extend(own.iter().map(String::as_str));
    Kernel::extract(cache, package, section.kernel.sha256, &wanted).map_err(|error| {
        let failure = |code| Failure::new(code, "take the kernel from its package");
        match error {
            kernel::Error::NoModule { .. } if !own.is_empty() => failure(BAD_INPUT)
                .because(error)
                .hint("`modules` in appliance.toml has names as lsmod shows them"),
            _ => failure(FAILED).because(error),
        }
    })
}

/// Two things want the same path: the person's files, or a bug of ours.
fn conflict(error: crate::tree::TreeError) -> Failure {
    Failure::new(BUG, "lay out the image").because(error)
}

/// `CACHE/images/NAME-ARCH-HASH`: the hash is of the appliance's folder.
fn default_folder(cache: &Cache, appliance: &Appliance, arch: Arch) -> Result<PathBuf, Failure> {
    let real = std::fs::canonicalize(&appliance.folder).map_err(|error| {
        Failure::new(FAILED, format!("find {}", appliance.folder.display())).because(error)
    })?;
    let hash = crate::cache::Hash::of(real.as_os_str().as_encoded_bytes()).to_string();
    let name = format!("{}-{}-{}", appliance.name, arch.as_str(), &hash[..8]);
    Ok(cache.root().join("images").join(name))
}

impl Arch {
    /// As Debian means it.
    pub fn debian(self) -> Architecture {
        match self {
            Self::X86_64 => Architecture::Amd64,
            Self::Aarch64 => Architecture::Arm64,
        }
    }
}
