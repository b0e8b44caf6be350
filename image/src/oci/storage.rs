//! Where a container's volumes and secrets lie in the guest, and whose ids its users have there.

use super::ContainerImage;
use super::image::one_component;
use super::mount_key::{self, Parsed};
use super::user::{self, Identity, UserError};
use super::user_namespace::{self, Range, is_mapped, maps, outside};
use crate::container::{Container, Network, Volume, VolumeSource, Written};
use activator::manifest;
use serde_json::{Value, json};

/// Podman's own place for volumes, one folder each.
const VOLUMES: &str = "/var/lib/containers/storage/volumes";
/// Volumes without a name go with the guest.
const ANONYMOUS: &str = "/run/rouse/volumes";

/// `Volume=`, and `Mount=` with `type=volume`. A source that begins with `.` is meant from where
/// Podman would have the unit.
pub fn volumes(container: &Container) -> Vec<Volume> {
    let mut all = container.volumes.clone();
    for written in &container.mounts {
        if let Ok(Parsed::Volume(volume)) = mount_key::parse(&written.text) {
            all.push(volume.to_volume(written.span.clone()));
        }
    }
    all
}

/// `Mount=type=volume` of a `.volume`.
pub fn unit_volume(written: &Written) -> Option<Volume> {
    let Ok(Parsed::Volume(volume)) = mount_key::parse(&written.text) else { return None };
    let volume = volume.to_volume(written.span.clone());
    matches!(volume.source, VolumeSource::Unit(_)).then_some(volume)
}

/// What `Mount=type=image` names.
pub fn mounted_image(written: &Written) -> Option<String> {
    match mount_key::parse(&written.text) {
        Ok(Parsed::Image { reference, .. }) => Some(reference),
        _ => None,
    }
}

/// Paths of the guest that `Mount=type=bind` with `U` gives to whom the container runs as.
pub fn given_away(container: &Container) -> Vec<String> {
    let parsed = container.mounts.iter().filter_map(|it| mount_key::parse(&it.text).ok());
    let given = parsed.filter_map(|parsed| match parsed {
        Parsed::Bind { source, options, .. } => {
            options.iter().any(|option| option == "U").then_some(source)
        }
        _ => None,
    });
    given.collect()
}

/// The places in the container of its volumes, and of `Mount=`.
pub fn mounted(container: &Container) -> Vec<String> {
    let of_mounts = container.mounts.iter().filter_map(|it| mount_key::parse(&it.text).ok());
    let of_volumes = container.volumes.iter().map(|volume| volume.destination.clone());
    of_mounts.map(|parsed| parsed.destination().to_owned()).chain(of_volumes).collect()
}

/// The folder of a volume in the guest; None is one that only Podman knows.
pub fn folder(container: &Container, source: &VolumeSource, destination: &str) -> Option<String> {
    let place = match &container.owner {
        Some(owner) => format!("/run/user/{}/rouse/volumes", owner.uid),
        None => VOLUMES.to_owned(),
    };
    Some(match source {
        VolumeSource::Path(path) => path.clone(),
        VolumeSource::Name(name) => format!("{place}/{name}/_data"),
        VolumeSource::Unit(_) => return None,
        VolumeSource::Anonymous => {
            let name = one_component(destination.trim_matches('/'));
            format!("{ANONYMOUS}/{}/{name}", container.id())
        }
    })
}

/// Where what is written over a volume with `O` goes.
pub fn overlay_folder(container: &Container, number: usize) -> String {
    format!("{}/{}/overlay-{number}", manifest::Container::BUNDLES, container.id())
}

/// Whether its network namespace was made elsewhere, so that no id of its own user namespace may
/// set `net.*` there.
pub(super) fn has_anothers_network(container: &Container) -> bool {
    matches!(container.network, Network::Path(_) | Network::Container(_))
        && maps(container).is_some()
}

/// User and group in the guest that are root in the container.
pub fn root_ids(container: &Container) -> (u32, u32) {
    match maps(container) {
        Some((uids, gids)) => (first(&uids), first(&gids)),
        None => (0, 0),
    }
}

/// Root's; where there is no root in it, that of its first id.
fn first(ranges: &[Range]) -> u32 {
    let first = ranges.iter().min().map_or(0, |(inner, _, _)| *inner);
    outside(ranges, if is_mapped(ranges, 0) { 0 } else { first })
}

/// The guest's ids for a user and group of the container; None if it has not both.
pub fn ids_outside(container: &Container, (uid, gid): (u32, u32)) -> Option<(u32, u32)> {
    let Some((uids, gids)) = maps(container) else { return Some((uid, gid)) };
    let has_both = is_mapped(&uids, uid) && is_mapped(&gids, gid);
    has_both.then(|| (outside(&uids, uid), outside(&gids, gid)))
}

/// Whom the container runs as.
pub(super) fn identity(
    container: &Container,
    image: &ContainerImage,
) -> Result<Identity, UserError> {
    let maps = maps(container);
    let has_group = |id| maps.as_ref().is_none_or(|(_, gids)| is_mapped(gids, id));
    let kept = user_namespace::kept(container).map(|(uid, gid)| format!("{uid}:{gid}"));
    let given = container.user.as_deref().or(image.user.as_deref());
    let user = given.filter(|user| !user.is_empty()).or(kept.as_deref());
    user::resolve(&image.files, user, has_group)
}

/// The ids in the guest of whom the container runs as; those of its root where the image does not
/// know the user, which is a finding of its own.
pub fn user_ids(container: &Container, image: &ContainerImage) -> (u32, u32) {
    let identity = identity(container, image).ok();
    let ids = identity.and_then(|it| ids_outside(container, (it.uid, it.gid)));
    ids.unwrap_or_else(|| root_ids(container))
}

pub(super) fn mapping(ranges: &[Range]) -> Value {
    let one = |(inner, outer, count): &Range| json!({ "containerID": inner, "hostID": outer, "size": count });
    ranges.iter().map(one).collect()
}

/// `Secret=`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Secret {
    /// Its name.
    pub name: String,
    /// `target=`, where it is a file.
    target: Option<String>,
    /// `type=env`: the variable.
    pub variable: Option<String>,
    /// `uid=`, in the container.
    pub uid: u32,
    /// `gid=`, in the container.
    pub gid: u32,
    /// `mode=`
    pub mode: u32,
}

impl Secret {
    /// Its file in the bundle's folder of secrets; `number` is its place among the container's.
    pub fn file(&self, number: usize) -> String {
        format!("{number}-{}", self.name)
    }

    /// Where the file is in the container.
    pub fn path(&self) -> String {
        let name = self.target.as_ref().unwrap_or(&self.name);
        match name.starts_with('/') {
            true => name.clone(),
            false => format!("/run/secrets/{name}"),
        }
    }
}

/// Parses one; an error is the option that is not known.
pub fn secret(text: &str) -> Result<Secret, String> {
    let mut parts = text.split(',');
    let name = parts.next().unwrap_or_default();
    let plain = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
    if name.is_empty() || name.starts_with('.') || !name.chars().all(plain) {
        return Err(name.to_owned());
    }
    let name = name.to_owned();
    let mut secret = Secret { name, target: None, variable: None, uid: 0, gid: 0, mode: 0o444 };
    let mut is_variable = false;
    for part in parts {
        let bad = || part.to_owned();
        match part.split_once('=').ok_or_else(bad)? {
            ("type", "env") => is_variable = true,
            ("type", "mount") => is_variable = false,
            ("target", value) => secret.target = Some(value.to_owned()),
            ("uid", value) => secret.uid = value.parse().map_err(|_| bad())?,
            ("gid", value) => secret.gid = value.parse().map_err(|_| bad())?,
            ("mode", value) => {
                secret.mode = u32::from_str_radix(value, 8).map_err(|_| bad())? & 0o7777;
            }
            _ => return Err(bad()),
        }
    }
    if is_variable {
        secret.variable = Some(secret.target.take().unwrap_or_else(|| secret.name.clone()));
    }
    Ok(secret)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_files_or_variables() {
        assert_eq!(secret("key").unwrap().path(), "/run/secrets/key");
        assert_eq!(secret("key,target=/etc/key,mode=0400").unwrap().path(), "/etc/key");
        assert_eq!(secret("key,target=/etc/key,mode=0400").unwrap().mode, 0o400);
        assert_eq!(secret("key,type=env").unwrap().variable.as_deref(), Some("key"));
        assert_eq!(secret("key,type=env,target=KEY").unwrap().variable.as_deref(), Some("KEY"));
        assert_eq!(secret("key,fish=1"), Err("fish=1".into()));
        assert_eq!(secret("../key"), Err("../key".into()));
    }

    #[test]
    fn every_anonymous_volume_has_a_folder_of_its_own() {
        let source = std::sync::Arc::new(crate::finding::Source {
            path: "a.container".into(),
            text: String::new(),
        });
        let span = crate::finding::Span::file(&source);
        let container = Container::new(span, "a.service", "a", "image");
        let folders =
            ["/a/b", "/a-b", "/a_b"].map(|it| folder(&container, &VolumeSource::Anonymous, it));
        let names = ["a_b", "a-b", "a%5fb"];
        assert_eq!(folders, names.map(|it| Some(format!("/run/rouse/volumes/a/{it}"))));
    }
}
