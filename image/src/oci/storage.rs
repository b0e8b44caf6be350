//! Where a container's volumes and secrets lie in the guest, and whose ids its users have there.

use super::mount_key::{self, Parsed};
use crate::container::{Container, Volume, VolumeSource};
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
            let name = destination.trim_matches('/').replace('/', "-");
            format!("{ANONYMOUS}/{}/{name}", container.id())
        }
    })
}

/// Where what is written over a volume with `O` goes.
pub fn overlay_folder(container: &Container, number: usize) -> String {
    format!("{}/{}/overlay-{number}", manifest::Container::BUNDLES, container.id())
}

/// One range of ids: in the container, in the guest, how many.
pub(super) type Range = (u32, u32, u32);

/// The user and group ids of a container in a user namespace; None if it has none of its own.
pub(super) fn maps(container: &Container) -> Option<(Vec<Range>, Vec<Range>)> {
    if let Some(owner) = &container.owner {
        let own = |id: u32, ids: crate::config::Ids| vec![(0, id, 1), (1, ids.first, ids.count)];
        return Some((own(owner.uid, owner.subuids), own(owner.gid, owner.subgids)));
    }
    let given = &container.user_namespace;
    let ranges = |written: &[crate::container::Written]| -> Vec<Range> {
        written.iter().filter_map(|it| range(&it.text)).collect()
    };
    let (uids, gids) = match given.remap_users.as_ref().map(|it| it.text.as_str()) {
        Some("manual") => (ranges(&given.remap_uid), ranges(&given.remap_gid)),
        _ => (ranges(&given.uid_maps), ranges(&given.gid_maps)),
    };
    match (uids.is_empty(), gids.is_empty()) {
        (true, true) => None,
        // Podman takes the one for the other.
        (false, true) => Some((uids.clone(), uids)),
        (true, false) => Some((gids.clone(), gids)),
        (false, false) => Some((uids, gids)),
    }
}

/// `container:guest[:count]`
pub(super) fn range(text: &str) -> Option<Range> {
    let mut parts = text.split(':');
    let inner = parts.next()?.parse().ok()?;
    let outer = parts.next()?.parse().ok()?;
    let count = parts.next().map_or(Ok(1), str::parse).ok()?;
    parts.next().is_none().then_some((inner, outer, count))
}

/// The guest's id for one of the container's.
pub(super) fn outside(ranges: &[Range], id: u32) -> u32 {
    let fits = ranges.iter().find(|(inner, _, count)| id >= *inner && id - inner < *count);
    fits.map_or(id, |(inner, outer, _)| outer + (id - inner))
}

/// Whether the container has that id.
pub(super) fn is_mapped(ranges: &[Range], id: u32) -> bool {
    ranges.iter().any(|(inner, _, count)| id >= *inner && id - inner < *count)
}

/// User and group in the guest that are root in the container.
pub fn root_ids(container: &Container) -> (u32, u32) {
    match maps(container) {
        Some((uids, gids)) => (outside(&uids, 0), outside(&gids, 0)),
        None => (0, 0),
    }
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
    fn ids_are_looked_up_in_ranges() {
        let ranges = [(0, 1000, 1), (1, 100_000, 10)];
        assert_eq!([0, 1, 5, 50].map(|id| outside(&ranges, id)), [1000, 100_000, 100_004, 50]);
        assert_eq!(range("0:1000:1"), Some((0, 1000, 1)));
        assert_eq!(range("@0:1"), None);
    }
}
