//! `[disk]`: a disk that keeps what the guest writes, over its boots.

use super::user::User;
use super::{Part, place};
use crate::finding::{Finding, Source};
use activator::manifest;
use serde::Deserialize;
use std::path::{Component, Path};
use std::sync::Arc;

/// The device: it is the first disk, whatever the root is on.
pub const DEVICE: &str = "/dev/vda";
/// Kind of its file system.
pub const KIND: &str = "ext4";
/// The smallest and the largest, in bytes: below, ext4 has no room for a journal.
const SIZES: std::ops::RangeInclusive<u64> = 16 << 20..=16 << 40;
/// Where nothing can be mounted, since it is there before or is no place for files.
const TAKEN: [&str; 9] = ["/", "/dev", "/etc", "/init", "/proc", "/run", "/sys", "/tmp", "/usr"];

/// A disk that keeps what the guest writes.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Disk {
    /// Its size, `4G`, with K, M, G or T for powers of 1024. A larger one than before grows the disk,
    /// a smaller one leaves it as it is. The file on the host takes as much as was written.
    pub size: String,
    /// Where it is mounted in the guest.
    pub path: String,
}

impl Disk {
    /// Bytes; a multiple of 4096.
    pub fn bytes(&self) -> Option<u64> {
        let digits = self.size.trim_end_matches(|unit: char| unit.is_ascii_alphabetic());
        let shift = match &self.size[digits.len()..] {
            "K" => 10,
            "M" => 20,
            "G" => 30,
            "T" => 40,
            _ => return None,
        };
        let bytes = digits.parse::<u64>().ok()?.checked_mul(1 << shift)?;
        SIZES.contains(&bytes).then_some(bytes / 4096 * 4096)
    }

    /// What PID 1 mounts. In a user's home it is the user's.
    pub fn mount(&self, users: &[User]) -> manifest::Disk {
        let user = users.iter().find(|user| Path::new(&self.path).starts_with(user.home()));
        manifest::Disk {
            device: DEVICE.into(),
            kind: KIND.into(),
            path: self.path.clone(),
            owner: user.map_or((0, 0), |user| (user.uid, user.gid())),
        }
    }

    pub(super) fn check(&self, users: &[User], source: &Arc<Source>) -> Result<(), Finding> {
        let wrong = |key: &str, message: String| {
            Finding::error(place(source, &["disk", key], Part::Value), message)
        };
        if self.bytes().is_none() {
            return Err(wrong("size", format!("`{}` is no size for a disk", self.size))
                .label("expected `16M` to `16T`")
                .help("K, M, G and T are powers of 1024: `size = \"4G\"`"));
        }
        let normal = |part| matches!(part, Component::RootDir | Component::Normal(_));
        let path = Path::new(&self.path);
        let plain = path.is_absolute() && path.components().all(normal);
        let below = |taken: &&str| !["/", "/etc"].contains(taken) && path.starts_with(taken);
        if !plain || TAKEN.contains(&self.path.as_str()) || TAKEN.iter().any(below) {
            return Err(wrong("path", format!("no disk can be mounted at `{}`", self.path))
                .label("expected an absolute path for data")
                .help("such as `/var/lib/containers`, `/srv` or a user's home"));
        }
        let hidden = users.iter().map(User::home).find(|home| {
            let home = Path::new(home);
            home.starts_with(path) && home != path
        });
        if let Some(home) = hidden {
            return Err(wrong("path", format!("a disk at `{}` would hide `{home}`", self.path))
                .label("homes of users are below it")
                .help(format!("mount it at one of them: `path = \"{home}\"`")));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn disk(size: &str, path: &str) -> Disk {
        Disk { size: size.into(), path: path.into() }
    }

    #[test]
    fn sizes_are_powers_of_1024() {
        assert_eq!(disk("64M", "/srv").bytes(), Some(64 << 20));
        assert_eq!(disk("4G", "/srv").bytes(), Some(4 << 30));
        assert_eq!(disk("20001K", "/srv").bytes(), Some(20_000 << 10));
        for size in ["", "4", "4g", "G", "1M", "17T", "99999999999T", "-1G"] {
            assert_eq!(disk(size, "/srv").bytes(), None, "{size}");
        }
    }

    #[test]
    fn a_disk_in_a_home_is_the_users() {
        let ann = User { name: "ann".into(), uid: 1000, ..User::default() };
        let of = |path| disk("64M", path).mount(std::slice::from_ref(&ann)).owner;
        assert_eq!(of("/home/ann/.local/share/containers"), (1000, 1000));
        assert_eq!(of("/home/anne"), (0, 0));
    }

    #[test]
    fn what_cannot_be_is_shown_where_it_stands() {
        let first = |text: &str| {
            let text = format!("[disk]\n{text}");
            let source = Arc::new(Source { path: "appliance.toml".into(), text });
            super::super::Config::parse(&source).unwrap_err().one_line()
        };
        assert_eq!(
            first("size = \"4\"\npath = \"/srv\"\n"),
            "appliance.toml:2:9: error: `4` is no size for a disk"
        );
        for path in ["/", "srv", "/srv/../etc", "/usr/local", "/proc/1", "/etc"] {
            assert_eq!(
                first(&format!("size = \"4G\"\npath = \"{path}\"\n")),
                format!("appliance.toml:3:9: error: no disk can be mounted at `{path}`")
            );
        }
        let with_ann = |path: &str| {
            first(&format!(
                "size = \"4G\"\npath = \"{path}\"\n[[user]]\nname = \"ann\"\nuid = 1000\n"
            ))
        };
        assert_eq!(
            with_ann("/home"),
            "appliance.toml:3:9: error: a disk at `/home` would hide `/home/ann`"
        );
    }
}
