//! What is mounted in a container: Podman's defaults, and what the `.container` adds.

use super::BUNDLES;
use crate::container::{Container, VolumeSource};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// What has to lie below a mount, where the root is read-only.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Point {
    /// A directory.
    Directory,
    /// An empty file, for a bind of something that is no directory.
    File,
    /// Whichever of the two fits that path of the guest.
    Like(String),
}

/// One entry of `mounts`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    kind: &'static str,
    source: String,
    options: Vec<String>,
    /// What it is mounted over.
    pub point: Point,
}

impl Mount {
    fn new(kind: &'static str, source: &str, options: &str) -> Self {
        let options = options.split(',').map(str::to_owned).collect();
        Self { kind, source: source.into(), options, point: Point::Directory }
    }

    fn bind(source: String, point: Point) -> Self {
        Self { source, point, ..Self::new("bind", "", "bind,rprivate,ro,nosuid,noexec,nodev") }
    }

    /// As config.json has it.
    pub fn to_json(&self, destination: &str) -> Value {
        json!({
            "destination": destination,
            "type": self.kind,
            "source": self.source,
            "options": self.options,
        })
    }
}

/// All mounts by destination. In the order of the map, what is below another comes after it.
pub fn mounts(container: &Container) -> BTreeMap<String, Mount> {
    let mut mounts = BTreeMap::new();
    let mut add = |destination: &str, mount| mounts.insert(destination.to_owned(), mount);
    let common = "nosuid,noexec,nodev";
    add("/proc", Mount::new("proc", "proc", common));
    add("/dev", Mount::new("tmpfs", "tmpfs", "nosuid,strictatime,mode=755,size=65536k"));
    add("/sys", Mount::new("sysfs", "sysfs", &format!("{common},ro")));
    let pts = "nosuid,noexec,newinstance,ptmxmode=0666,mode=0620,gid=5";
    add("/dev/pts", Mount::new("devpts", "devpts", pts));
    add("/dev/mqueue", Mount::new("mqueue", "mqueue", common));
    let shm = format!("{common},mode=1777,size={}", container.shm_size);
    add("/dev/shm", Mount::new("tmpfs", "shm", &shm));
    let cgroup = format!("rprivate,{common},relatime,ro");
    add("/sys/fs/cgroup", Mount::new("cgroup", "cgroup", &cgroup));
    if container.read_only_tmpfs && !container.writes() {
        for path in ["/run", "/tmp", "/var/tmp"] {
            let mode = if path == "/run" { "755" } else { "1777" };
            let options = format!("rw,rprivate,nosuid,nodev,tmpcopyup,mode={mode}");
            add(path, Mount::new("tmpfs", "tmpfs", &options));
        }
    }
    for (path, name) in [
        ("/etc/hosts", "hosts"),
        ("/etc/hostname", "hostname"),
        ("/run/.containerenv", "containerenv"),
    ] {
        add(path, Mount::bind(format!("{BUNDLES}/{}/{name}", container.id()), Point::File));
    }
    for (path, options) in &container.tmpfs {
        let mut mount = Mount::new("tmpfs", "tmpfs", "rprivate,nosuid,nodev");
        let given =
            |wanted: &[&str]| options.iter().any(|option| wanted.contains(&option.as_str()));
        if !given(&["exec", "noexec"]) {
            mount.options.push("noexec".into());
        }
        if given(&["suid"]) {
            mount.options.retain(|option| option != "nosuid");
        }
        if given(&["dev"]) {
            mount.options.retain(|option| option != "nodev");
        }
        if !given(&["tmpcopyup", "notmpcopyup"]) {
            mount.options.push("tmpcopyup".into());
        }
        let passed = options.iter().filter(|option| *option != "notmpcopyup");
        mount.options.extend(passed.cloned());
        add(&trimmed(path), mount);
    }
    for volume in &container.volumes {
        let VolumeSource::Path(source) = &volume.source else { continue };
        let (destination, options) = (&volume.destination, &volume.options);
        let mut mount = Mount::bind(source.clone(), Point::Like(source.clone()));
        mount.options.clear();
        let given =
            |wanted: &[&str]| options.iter().any(|option| wanted.contains(&option.as_str()));
        if !given(&["bind", "rbind"]) {
            mount.options.push("rbind".into());
        }
        if !given(&PROPAGATION) {
            mount.options.push("rprivate".into());
        }
        // SELinux' labels mean nothing in a guest without it; nocopy is about volumes.
        let passed = |option: &&String| !matches!(option.as_str(), "z" | "Z" | "nocopy" | "copy");
        mount.options.extend(options.iter().filter(passed).cloned());
        add(&trimmed(destination), mount);
    }
    mounts
}

/// Options of a Volume= that crun understands, or that mean nothing here.
pub(super) const BIND_OPTIONS: [&str; 16] = [
    "ro", "rw", "z", "Z", "copy", "nocopy", "bind", "rbind", "exec", "noexec", "suid", "nosuid",
    "dev", "nodev", "relatime", "noatime",
];

/// Options of a Volume= that say how mounts below it spread, mount_namespaces(7).
pub(super) const PROPAGATION: [&str; 6] =
    ["private", "rprivate", "shared", "rshared", "slave", "rslave"];

fn trimmed(path: &str) -> String {
    let path = path.trim_end_matches('/');
    if path.is_empty() { "/".into() } else { path.into() }
}
