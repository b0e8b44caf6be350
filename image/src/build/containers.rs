//! Container images and bundles of an appliance.

use super::images::{self, Images};
use crate::appliance::Appliance;
use crate::command_line::Arch;
use crate::config::{self, Engine, Part, User};
use crate::container::{Container, Rootless};
use crate::exit::{BAD_INPUT, Failure, print_findings};
use crate::finding::Finding;
use crate::lock::Section;
use crate::oci::store::{STORE, Store};
use crate::oci::{self, Activation, Bundle, ContainerImage, Context, HealthCheck, entrypoint};
use crate::tree::{Node, Tree};
use crate::units::Compiled;
use activator::manifest::{Unit, UnitKind};
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};

/// Whoever has it may ask for any image.
const PODMAN: &str = "/usr/bin/podman";

/// Puts every image once, and each container's bundle, into the tree. Gives the images by their
/// references, and the folders that they have in the guest.
pub(super) fn put_into(
    tree: &mut Tree,
    appliance: &Appliance,
    compiled: &mut Compiled,
    arch: Arch,
    section: &Section,
    sources: &Images<'_>,
    seccomp: &str,
) -> Result<BTreeMap<String, String>, Failure> {
    if appliance.config.engine == Engine::Podman {
        let all = images::references(appliance, compiled);
        return into_store(tree, appliance, compiled, all, arch, section, sources);
    }
    let mut images: BTreeMap<String, ContainerImage> = BTreeMap::new();
    // What a Rootfs= has instead: its folder is the guest's.
    let nothing = ContainerImage::new("", Tree::plain());
    for index in 0..compiled.containers.len() {
        let (_, container) = &compiled.containers[index];
        for reference in oci::references(container) {
            if let Entry::Vacant(place) = images.entry(reference) {
                let image = sources.image(place.key(), section)?;
                image.install(tree).map_err(super::conflict)?;
                place.insert(image);
            }
        }
        let image = images.get(&container.image).unwrap_or(&nothing);
        inherit(compiled, index, image)?;
        let (service, container) = &compiled.containers[index];
        let folder = oci::root_folder(container);
        if let Some(files) = oci::shifted(container, image).map_err(super::conflict)?
            && tree.node(&folder).is_none()
        {
            let (uid, gid) = oci::root_ids(container);
            let root = Node::directory(0o755, service.as_str()).owned_by(uid, gid);
            tree.insert(&folder, root).map_err(super::conflict)?;
            tree.graft(&folder, &files).map_err(super::conflict)?;
        }
        let context = Context {
            image,
            activation: activation(compiled, container),
            architecture: arch.as_str(),
            seccomp: Some(seccomp),
            guest: Some(tree),
        };
        let bundle = Bundle::compile(container, context)
            .map_err(|findings| Failure::findings(BAD_INPUT, findings))?;
        if context.activation == Activation::Sockets {
            let doubt = entrypoint::check(container, &bundle.specification, &image.files);
            print_findings(doubt.as_slice());
        }
        bundle.install(tree, service).map_err(super::conflict)?;
    }
    let mut folders: BTreeMap<String, String> =
        images.values().map(|image| (image.reference.clone(), image.folder())).collect();
    let mut others = images::references(appliance, compiled);
    others.retain(|reference| !folders.contains_key(reference));
    if tree.node(PODMAN).is_some() {
        folders.extend(into_store(tree, appliance, compiled, others, arch, section, sources)?);
    } else {
        let unused = |reference: &String| {
            Finding::warning(
                config::place(&appliance.source, &["image", reference], Part::Key),
                format!("no container is made from `{reference}`"),
            )
            .label("it is not put in")
            .help("name it by `Image=` in a `.container`; Podman would find it, with its package")
        };
        print_findings(&others.iter().map(unused).collect::<Vec<_>>());
    }
    Ok(folders)
}

/// For Podman all images of appliance.toml are there, whoever will ask for them, and those of
/// registries that units name; but for those of containers that run without it.
fn into_store(
    tree: &mut Tree,
    appliance: &Appliance,
    compiled: &mut Compiled,
    references: BTreeSet<String>,
    arch: Arch,
    section: &Section,
    sources: &Images<'_>,
) -> Result<BTreeMap<String, String>, Failure> {
    const ORIGIN: &str = "rouse";
    if references.is_empty() {
        return Ok(BTreeMap::new());
    }
    let mut health = BTreeMap::new();
    let mut images = vec![];
    for reference in &references {
        let image = sources.image(reference, section)?;
        health.insert(reference.clone(), image.health_check.clone());
        images.push(image);
    }
    check_health(compiled, &health)?;
    let users = lingering(appliance, compiled);
    let of_whom = std::iter::once(None).chain(users.iter().map(Some));
    for user in of_whom {
        let mut store = Store::new(user.map(|(_, user)| user));
        for image in &images {
            store.add(image, arch.debian().debian()).map_err(super::conflict)?;
        }
        let (home, (uid, gid), places) = match user {
            // Without them root's Podman refuses the file; a user's finds its own.
            None => (
                "/usr/share".to_owned(),
                (0, 0),
                "runroot = \"/run/containers/storage\"\n\
                 graphroot = \"/var/lib/containers/storage\"\n",
            ),
            // A user's Podman does not look for stores in the system's file,
            // containers-storage.conf(5).
            Some((home, user)) => (format!("{home}/.config"), (user.uid, user.gid), ""),
        };
        let text = format!(
            "[storage]\ndriver = \"overlay\"\n{places}\n[storage.options]\n\
             additionalimagestores = [\"{}\"]\n",
            store.folder()
        );
        store.install(tree).map_err(super::conflict)?;
        let folder = format!("{home}/containers");
        // The folder above a user's is his as well.
        for folder in [&home, &folder].into_iter().filter(|_| uid != 0) {
            let node = Node::directory(0o755, ORIGIN).owned_by(uid, gid);
            tree.insert(folder, node).map_err(super::conflict)?;
        }
        let node = Node::file(text.as_bytes(), 0o644, ORIGIN).owned_by(uid, gid);
        tree.insert(&format!("{folder}/storage.conf"), node).map_err(super::conflict)?;
    }
    Ok(references.into_iter().map(|name| (name.to_owned(), STORE.to_owned())).collect())
}

/// The users that have units, with their homes.
fn lingering(appliance: &Appliance, compiled: &Compiled) -> Vec<(String, Rootless)> {
    let owners = compiled.units.iter().filter_map(|unit| unit.owner);
    let owners: BTreeSet<u32> =
        owners.filter_map(|it| Some(compiled.users.get(usize::from(it))?.ids.uid)).collect();
    let has_units = |user: &User| owners.contains(&user.uid);
    let users = appliance.config.users.iter().enumerate();
    let users = users.filter(|(_, user)| has_units(user));
    users.map(|(index, user)| (user.home(), Rootless::of(user, index))).collect()
}

/// Services without a `HealthCmd=` get the checks of their images. Nothing is known of an image that
/// Podman pulls.
fn check_health(
    compiled: &mut Compiled,
    images: &BTreeMap<String, Option<HealthCheck>>,
) -> Result<(), Failure> {
    for asked in std::mem::take(&mut compiled.image_health) {
        let Some(image) = images.get(&asked.image) else { continue };
        let check = asked.with(image.as_ref());
        let check = check.map_err(|finding| Failure::findings(BAD_INPUT, vec![finding]))?;
        let place = place(compiled, &asked.service, asked.user.as_deref());
        if let Some(UnitKind::Service(service)) = place.map(|it| &mut compiled.units[it].kind) {
            service.health = check.map(Box::new);
        }
    }
    Ok(())
}

/// The service of a container has what the image says of it.
fn inherit(compiled: &mut Compiled, index: usize, image: &ContainerImage) -> Result<(), Failure> {
    let place = place_of(compiled, &compiled.containers[index].1);
    let (_, container) = &mut compiled.containers[index];
    let Some(UnitKind::Service(service)) = place.map(|it| &mut compiled.units[it].kind) else {
        return Ok(());
    };
    let findings = crate::units::inherit(container, service, image);
    if crate::finding::forbids(&findings, false) {
        return Err(Failure::findings(BAD_INPUT, findings));
    }
    print_findings(&findings);
    Ok(())
}

/// Where the unit of a container is.
fn place_of(compiled: &Compiled, container: &Container) -> Option<usize> {
    let whose = container.owner.as_ref().map(|owner| owner.name.as_str());
    place(compiled, &container.service, whose)
}

/// Where a unit of a user, or of the system, is.
fn place(compiled: &Compiled, name: &str, whose: Option<&str>) -> Option<usize> {
    let owner = |unit: &Unit| {
        let user = compiled.users.get(usize::from(unit.owner?))?;
        Some(user.name.as_str())
    };
    let mut units = compiled.units.iter();
    units.position(|unit| unit.name == name && owner(unit) == whose)
}

fn activation(compiled: &Compiled, container: &Container) -> Activation {
    match place_of(compiled, container).map(|place| &compiled.units[place].kind) {
        Some(UnitKind::Service(service)) if !service.sockets.is_empty() => Activation::Sockets,
        _ => Activation::None,
    }
}
