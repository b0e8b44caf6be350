//! Container images and bundles of an appliance.

use crate::appliance::Appliance;
use crate::cache::Cache;
use crate::command_line::Arch;
use crate::container::Container;
use crate::exit::{BAD_INPUT, BUG, Failure, TRY_AGAIN, UNAVAILABLE};
use crate::oci::{Activation, Bundle, ContainerImage, Context};
use crate::static_build::{self, Binary, StaticBuildError};
use crate::terminal::{Measure, Task};
use crate::tree::Tree;
use crate::units::Compiled;
use activator::manifest::{Unit, UnitKind};
use std::collections::BTreeMap;

/// Puts every image once, and each container's bundle, into the tree. Gives the images by their
/// references, and the folders that they have in the guest.
pub(super) fn put_into(
    tree: &mut Tree,
    appliance: &Appliance,
    compiled: &Compiled,
    arch: Arch,
    cache: &Cache,
    seccomp: &str,
) -> Result<BTreeMap<String, String>, Failure> {
    let mut images: BTreeMap<&str, ContainerImage> = BTreeMap::new();
    for (service, container) in &compiled.containers {
        let reference = container.image.as_str();
        if !images.contains_key(reference) {
            let image = image(appliance, reference, arch, cache)?;
            image.install(tree).map_err(super::conflict)?;
            images.insert(reference, image);
        }
        let Some(image) = images.get(reference) else { continue };
        let context = Context {
            image,
            activation: activation(compiled, container),
            architecture: arch.as_str(),
            seccomp: Some(seccomp),
        };
        let bundle = Bundle::compile(container, context)
            .map_err(|findings| Failure::findings(BAD_INPUT, findings))?;
        bundle.install(tree, service).map_err(super::conflict)?;
    }
    Ok(images.values().map(|image| (image.reference.clone(), image.folder())).collect())
}

fn activation(compiled: &Compiled, container: &Container) -> Activation {
    let owner = |unit: &Unit| {
        let user = compiled.users.get(usize::from(unit.owner?))?;
        Some(user.name.as_str())
    };
    let whose = container.owner.as_ref().map(|owner| owner.name.as_str());
    let mut units = compiled.units.iter();
    let unit = units.find(|unit| unit.name == container.service && owner(unit) == whose);
    match unit.map(|unit| &unit.kind) {
        Some(UnitKind::Service(service)) if !service.sockets.is_empty() => Activation::Sockets,
        _ => Activation::None,
    }
}

fn image(
    appliance: &Appliance,
    reference: &str,
    arch: Arch,
    cache: &Cache,
) -> Result<ContainerImage, Failure> {
    let config = appliance.config.image.get(reference).ok_or_else(|| {
        Failure::new(BUG, format!("find image {reference}, which was there before"))
    })?;
    let binary = match &config.cargo {
        Some(folder) => Some(compile(appliance, folder, reference, arch, cache)?),
        None => None,
    };
    ContainerImage::assemble(reference, config, &appliance.folder, binary.as_ref())
        .map_err(|error| Failure::new(BAD_INPUT, format!("make image {reference}")).because(error))
}

fn compile(
    appliance: &Appliance,
    folder: &std::path::Path,
    reference: &str,
    arch: Arch,
    cache: &Cache,
) -> Result<Binary, Failure> {
    let folder = appliance.path(folder);
    let _task = Task::begin(format!("compiling {}", folder.display()), Measure::None, 0);
    let package = static_build::Package {
        folder: &folder,
        member: None,
        profile: "release",
        architecture: arch.as_str(),
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
        Failure::new(code, format!("make image {reference}")).because(error)
    })
}
