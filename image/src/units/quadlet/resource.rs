//! What a `.container` names by another Quadlet file: `Network=a.container`, `Volume=data.volume`.
//! The engine crun makes no networks and no pods; a volume is a folder, and needs no service.

use crate::appliance;
use crate::container::{Container, Root, VolumeSource};
use crate::finding::{Finding, Span};
use crate::oci;
use crate::units::definition::Definition;
use crate::units::keys::Keys;
use crate::units::podman::resources::Resources;
use crate::units::suggest;
use crate::units::syntax::{Assignment, shorten};

/// `Network=a.container` starts that container first.
pub(crate) fn order(unit: &mut Definition, resources: &Resources) {
    let Some(line) = unit.all("Container", "Network").next_back() else { return };
    let file = line.value.text.as_str();
    let Some(other) = resources.get(file).filter(|_| file.ends_with(".container")) else { return };
    let (service, span) = (other.service.to_string(), line.value.span());
    for relation in ["Requires", "After"] {
        unit.assignments.push(Assignment::made("Unit", relation, service.clone(), &span));
    }
}

/// Volumes of a `.volume` become those of its name.
pub(crate) fn name_volumes(keys: &mut Keys<'_>, container: &mut Container) {
    // A `Mount=` of that kind is as good as a `Volume=`.
    let mounts = std::mem::take(&mut container.mounts);
    for written in mounts {
        match oci::unit_volume(&written) {
            Some(volume) => container.volumes.push(volume),
            None => container.mounts.push(written),
        }
    }
    for volume in &mut container.volumes {
        if let VolumeSource::Unit(unit) = &volume.source
            && let Some(name) = name(keys, "Volume", unit, &volume.span)
        {
            volume.source = VolumeSource::Name(name);
        }
    }
}

/// Whether a `Rootfs=` can be written to is a matter of where the guest has it.
pub(crate) fn place_root(keys: &mut Keys<'_>, container: &mut Container) {
    let Some(rootfs) = &container.rootfs else { return };
    let path = oci::root_folder(container);
    container.rootfs_is_writable = appliance::is_writable(keys.facts.input.config, &path);
    let says = rootfs.text.contains(':') || container.root() != Root::Layer;
    if !says {
        let message = format!(
            "`Rootfs={}` is in the guest's read-only root: what the container writes there is \
             gone when it stops",
            shorten(&path)
        );
        keys.findings.push(Finding::note(rootfs.span.clone(), message));
    }
}

/// A `.volume` is a folder for the engine crun: it has a name, and nothing else.
pub(crate) fn check_volume(unit: &Definition, findings: &mut Vec<Finding>) {
    for line in &unit.assignments {
        let (section, key) = (line.section.as_str(), line.key.as_str());
        let span = || line.key_span.clone();
        match (section, key) {
            ("Volume", "VolumeName" | "ServiceName" | "Label") | ("Unit", "Description") => {}
            (_, key) if section.starts_with("X-") || key.starts_with("X-") => {}
            ("Volume", _) => findings.push(
                Finding::error(span(), format!("`{}=` of a volume needs Podman", shorten(key)))
                    .label("refused by the engine crun")
                    .help(super::USE_PODMAN),
            ),
            _ => {
                let why = "the volume is a folder, made when a container with it starts";
                let message = format!("`{}=` has no effect: {why}", shorten(key));
                findings.push(Finding::note(span(), message));
            }
        }
    }
}

/// What the thing of a Quadlet file is called; a finding if that is not known.
pub(super) fn name(keys: &mut Keys<'_>, key: &str, file: &str, span: &Span) -> Option<String> {
    let resources = &keys.facts.resources;
    let (message, label, help) = match resources.get(file) {
        Some(resource) => match &resource.name {
            Some(name) => return Some(name.clone()),
            None => (
                format!("`{key}=` names `{}`, which does not say its name", shorten(file)),
                "no name known",
                "give it a name without specifiers in that file".to_owned(),
            ),
        },
        None => (
            format!("`{key}=` names `{}`, which does not exist", shorten(file)),
            "expected a file beside this one",
            match suggest::nearest(file, resources.keys().map(String::as_str)) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("put `{}` beside appliance.toml", shorten(file)),
            },
        ),
    };
    keys.findings.push(Finding::error(span.clone(), message).label(label).help(help));
    None
}
