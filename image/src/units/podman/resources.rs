//! What Quadlet files of other types are to a `.container`: the service that makes the thing, and
//! what Podman calls the thing.

use crate::units::definition::Definition;
use crate::units::files::Files;
use crate::units::name::Name;
use std::collections::BTreeMap;

/// By the file's name: `data.volume`.
pub(crate) type Resources = BTreeMap<String, Resource>;

/// One Quadlet file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Resource {
    /// The service that it becomes.
    pub(crate) service: Name,
    /// The volume's, network's, pod's, container's name, or an image's reference; None if the
    /// file does not say it, or only a started service knows.
    pub(crate) name: Option<String>,
}

/// A type of file: its extension and section, what its service's name ends in, and the keys that
/// name the thing, of which the first that is there counts.
struct Kind {
    extension: &'static str,
    section: &'static str,
    suffix: &'static str,
    names: &'static [&'static str],
    /// Without such a key the name is `systemd-STEM`.
    named_after_file: bool,
}

const fn kind(
    extension: &'static str,
    section: &'static str,
    suffix: &'static str,
    names: &'static [&'static str],
) -> Kind {
    Kind { extension, section, suffix, names, named_after_file: true }
}

const KINDS: [Kind; 7] = [
    kind("container", "Container", "", &["ContainerName"]),
    kind("volume", "Volume", "-volume", &["VolumeName"]),
    kind("network", "Network", "-network", &["NetworkName"]),
    kind("pod", "Pod", "-pod", &["PodName"]),
    kind("kube", "Kube", "", &[]),
    Kind { named_after_file: false, ..kind("image", "Image", "-image", &["ImageTag", "Image"]) },
    Kind { named_after_file: false, ..kind("build", "Build", "-build", &["ImageTag"]) },
];

/// The section that a Quadlet file's type has.
pub(crate) fn section(file: &str) -> Option<&'static str> {
    of(file).map(|(_, kind)| kind.section)
}

/// Stem and kind.
fn of(file: &str) -> Option<(&str, &'static Kind)> {
    let (stem, extension) = file.rsplit_once('.')?;
    KINDS.iter().find(|kind| kind.extension == extension).map(|kind| (stem, kind))
}

/// All Quadlet files. What is wrong in them is said elsewhere.
pub(crate) fn read(files: &Files) -> Resources {
    let mut resources = Resources::new();
    for (file, entry) in &files.quadlets {
        let Some((stem, kind)) = of(file) else { continue };
        let unit = Definition::quadlet_file(file, entry, files, &mut vec![]);
        let last = |key: &str| {
            let line = unit.all(kind.section, key).next_back()?;
            let text = line.value.text.trim_matches('"');
            (!text.is_empty()).then(|| text.to_owned())
        };
        let service = last("ServiceName").unwrap_or_else(|| format!("{stem}{}", kind.suffix));
        let Some(service) = Name::parse(&format!("{service}.service")) else { continue };
        let first_tag =
            || unit.all(kind.section, "ImageTag").find(|line| !line.value.text.is_empty());
        let named = match kind.extension {
            "build" => first_tag().map(|line| line.value.text.clone()),
            _ => kind.names.iter().find_map(|key| last(key)),
        };
        let default = || match kind.extension {
            "container" if stem.contains('@') => None,
            "container" => Some("systemd-%N".to_owned()),
            _ => kind.named_after_file.then(|| format!("systemd-{stem}")),
        };
        let name = named.or_else(default).map(|name| name.replace("%N", service.stem()));
        let name = name.filter(|name| !name.contains('%'));
        resources.insert(file.clone(), Resource { service, name });
    }
    resources
}
