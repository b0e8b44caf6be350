//! What is mounted in a container: Podman's defaults, and what the `.container` adds.

use super::mount_key::{self, Parsed};
use super::{BUNDLES, Context, storage, user_namespace};
use crate::container::{Container, Network, Root, Space, VolumeSource};
use activator::manifest;
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

/// The group of terminals, which every distribution gives this number.
const TTY: u32 = 5;

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
        let options = options.split(',').filter(|it| !it.is_empty()).map(str::to_owned).collect();
        Self { kind, source: source.into(), options, point: Point::Directory }
    }

    /// A file of the bundle, which lies in the image and is the same for every start.
    fn bind(source: String, point: Point) -> Self {
        Self { source, point, ..Self::new("bind", "", "bind,rprivate,ro,nosuid,noexec,nodev") }
    }

    /// As config.json has it.
    pub fn to_json(&self, destination: &str) -> Value {
        let mut json = json!({
            "destination": destination,
            "type": self.kind,
            "source": self.source,
            "options": self.options,
        });
        if let Some(entry) = json.as_object_mut().filter(|_| self.options.is_empty()) {
            entry.remove("options");
        }
        json
    }

    /// Whether there are files in it from the start.
    pub fn brings_files(&self) -> bool {
        matches!(self.kind, "bind" | "overlay")
    }

    /// How mounts in it spread, if it says so.
    pub fn propagation(&self) -> Option<&'static str> {
        let given = |name: &str| self.options.iter().any(|option| option == name);
        match () {
            () if given("rshared") || given("shared") => Some("shared"),
            () if given("rslave") || given("slave") => Some("rslave"),
            () => None,
        }
    }
}

/// All mounts by destination. In the order of the map, what is below another comes after it.
/// `user` are the ids in the container of whom it runs as.
pub fn mounts(
    container: &Container,
    context: Context<'_>,
    user: (u32, u32),
) -> BTreeMap<String, Mount> {
    let mut mounts = BTreeMap::new();
    kernels(container, &mut mounts);
    files(container, context, &mut mounts);
    for (path, options) in &container.tmpfs {
        mounts.insert(trimmed(path), tmpfs(&given_to(options, user)));
    }
    if container.volatile_tmp && container.read_only != Some(true) {
        let options = ["rw", "size=512M", "mode=1777"].map(str::to_owned);
        mounts.insert("/tmp".into(), tmpfs(&options));
    }
    for (number, volume) in storage::volumes(container).iter().enumerate() {
        let mut options = volume.options.clone();
        let source = match &volume.source {
            VolumeSource::Path(path) => path.clone(),
            source => {
                options.extend(["nosuid", "nodev"].map(str::to_owned));
                storage::folder(container, source, &volume.destination).unwrap_or_default()
            }
        };
        let mount = match options.iter().any(|option| option == "O") {
            true => overlay(container, &source, number),
            false => bind(&source, &options, container),
        };
        mounts.insert(trimmed(&volume.destination), mount);
    }
    for written in &container.mounts {
        // What does not parse is a finding of `check`.
        let Ok(parsed) = mount_key::parse(&written.text) else { continue };
        add(container, context, user, parsed, &mut mounts);
    }
    if container.run_init {
        let init =
            Mount { point: Point::File, ..Mount::new("bind", super::INIT, "bind,ro,private") };
        mounts.insert(super::INIT_IN_CONTAINER.into(), init);
    }
    mounts
}

/// proc, sys, dev and their kin.
fn kernels(container: &Container, mounts: &mut BTreeMap<String, Mount>) {
    let mut add = |destination: &str, mount| mounts.insert(destination.to_owned(), mount);
    let common = "nosuid,noexec,nodev";
    let privileged = container.extra.privileged;
    add("/proc", Mount::new("proc", "proc", common));
    let read_only = container.read_only == Some(true) && !container.read_only_tmpfs;
    let ro = if read_only { ",ro" } else { "" };
    let dev = format!("nosuid,strictatime,mode=755,size=65536k{ro}");
    add("/dev", Mount::new("tmpfs", "tmpfs", &dev));
    let sys = match privileged {
        true => format!("rprivate,{common},rw"),
        false => format!("{common},ro"),
    };
    add("/sys", Mount::new("sysfs", "sysfs", &sys));
    let has_tty = |maps: user_namespace::Maps| user_namespace::is_mapped(&maps.1, TTY);
    let pts = "nosuid,noexec,newinstance,ptmxmode=0666,mode=0620";
    let pts = match user_namespace::maps(container).is_none_or(has_tty) {
        true => format!("{pts},gid={TTY}"),
        // It could not be mounted with a group that it has not.
        false => format!("rprivate,{pts}"),
    };
    add("/dev/pts", Mount::new("devpts", "devpts", &pts));
    add("/dev/mqueue", Mount::new("mqueue", "mqueue", common));
    match container.extra.ipc {
        Space::Own => {
            let shm = format!("{common},mode=1777,size={}{ro}", container.shm_size);
            add("/dev/shm", Mount::new("tmpfs", "shm", &shm));
        }
        Space::Guest => {
            let options = format!("bind,rprivate,{common}");
            add("/dev/shm", Mount::new("bind", "/dev/shm", &options));
        }
        Space::Without => {}
    }
    let everything = container.unmask.iter().any(|path| path == "ALL");
    let rw = if privileged || everything { "rw" } else { "ro" };
    let cgroup = format!("rprivate,{common},relatime,{rw}");
    add("/sys/fs/cgroup", Mount::new("cgroup", "cgroup", &cgroup));
    if container.read_only_tmpfs && container.root() == Root::ReadOnly {
        for path in ["/run", "/tmp", "/var/tmp"] {
            add(path, tmpfs(&[]));
        }
    }
}

/// Files of the bundle, and secrets.
fn files(container: &Container, context: Context<'_>, mounts: &mut BTreeMap<String, Mount>) {
    let id = container.id();
    let mut add = |destination: &str, source: String| {
        mounts.insert(destination.to_owned(), Mount::bind(source, Point::File));
    };
    for (path, name) in [
        ("/etc/hosts", "hosts"),
        ("/etc/hostname", "hostname"),
        ("/run/.containerenv", "containerenv"),
    ] {
        add(path, format!("{BUNDLES}/{id}/{name}"));
    }
    let resolver = "/etc/resolv.conf";
    let guest_has = |path: &str| context.guest.is_some_and(|guest| guest.node(path).is_some());
    if super::files::resolver(container).is_some() {
        add(resolver, format!("{BUNDLES}/{id}/resolv.conf"));
    } else if container.network != Network::None && guest_has(resolver) {
        add(resolver, resolver.into());
    }
    match container.timezone.as_ref().map(|zone| zone.text.as_str()) {
        Some("local") if guest_has("/etc/localtime") => {
            add("/etc/localtime", "/etc/localtime".into());
        }
        Some("local") | None => {}
        Some(_) => add("/etc/localtime", format!("{BUNDLES}/{id}/localtime")),
    }
    let folder = format!("{}/{id}/secrets", manifest::Container::BUNDLES);
    for (number, written) in container.secrets.iter().enumerate() {
        let secret = storage::secret(&written.text).ok();
        if let Some(secret) = secret.filter(|secret| secret.variable.is_none()) {
            add(&secret.path(), format!("{folder}/{}", secret.file(number)));
        }
    }
}

/// `Mount=`
fn add(
    container: &Container,
    context: Context<'_>,
    user: (u32, u32),
    parsed: Parsed,
    mounts: &mut BTreeMap<String, Mount>,
) {
    let destination = trimmed(parsed.destination());
    match parsed {
        Parsed::Bind { source, options, .. } => {
            mounts.insert(destination, bind(&source, &options, container));
        }
        Parsed::Glob { source, options, .. } => {
            for path in
                context.guest.map(|guest| mount_key::matches(guest, &source)).unwrap_or_default()
            {
                let name = path.rsplit('/').next().unwrap_or_default();
                let at = format!("{destination}/{name}");
                mounts.insert(at, bind(&path, &options, container));
            }
        }
        Parsed::Tmpfs { options, .. } => {
            mounts.insert(destination, tmpfs(&given_to(&options, user)));
        }
        Parsed::Kernel { kind, options, .. } => {
            mounts.insert(destination, Mount::new(kind, kind, &options.join(",")));
        }
        Parsed::Image { reference, .. } => {
            let options = ["ro".to_owned()];
            let source = super::folder(&reference);
            mounts.insert(destination, bind(&source, &options, container));
        }
        // Is among the volumes.
        Parsed::Volume(_) => {}
    }
}

/// `U` of a tmpfs makes it that user's, and that group's.
fn given_to(options: &[String], (uid, gid): (u32, u32)) -> Vec<String> {
    let of_one = |option: &String| match option.as_str() {
        "U" => vec![format!("uid={uid}"), format!("gid={gid}")],
        _ => vec![option.clone()],
    };
    options.iter().flat_map(of_one).collect()
}

fn tmpfs(options: &[String]) -> Mount {
    let given = |name: &str| options.iter().any(|option| option == name);
    let passed = options.iter().filter(|option| *option != "notmpcopyup");
    let mut mount = Mount::new("tmpfs", "tmpfs", "");
    mount.options = passed.cloned().collect();
    let unless = |name: &str, others: &[&str]| !given(name) && !others.iter().any(|it| given(it));
    for (name, others) in [
        ("rw", &["ro"][..]),
        ("rprivate", &[]),
        ("nosuid", &["suid"]),
        ("nodev", &["dev"]),
        ("tmpcopyup", &["notmpcopyup"]),
    ] {
        if unless(name, others) {
            mount.options.push(name.into());
        }
    }
    mount
}

/// Options of a Volume= that say how mounts below it spread, mount_namespaces(7).
const PROPAGATION: [&str; 6] = ["private", "rprivate", "shared", "rshared", "slave", "rslave"];
/// Those that are done elsewhere, or mean nothing in a guest without SELinux.
const ELSEWHERE: [&str; 7] = ["z", "Z", "U", "O", "copy", "nocopy", "idmap"];

fn bind(source: &str, options: &[String], container: &Container) -> Mount {
    let mut mount = Mount::new("bind", source, "");
    mount.point = Point::Like(source.to_owned());
    let given = |wanted: &[&str]| options.iter().any(|option| wanted.contains(&option.as_str()));
    let passed = options.iter().filter(|option| !ELSEWHERE.contains(&option.as_str()));
    mount.options = passed.cloned().collect();
    if !given(&["ro", "rw"]) {
        mount.options.push("rw".into());
    }
    if !given(&PROPAGATION) {
        mount.options.push(if given(&["bind"]) { "private" } else { "rprivate" }.into());
    }
    if !given(&["bind", "rbind"]) {
        mount.options.push("rbind".into());
    }
    if given(&["idmap"]) && user_namespace::maps(container).is_some() {
        mount.options.push("idmap".into());
    }
    mount
}

/// `O`: what is written is gone with the container.
fn overlay(container: &Container, source: &str, number: usize) -> Mount {
    let folder = storage::overlay_folder(container, number);
    let options =
        format!("lowerdir={source},upperdir={folder}/upper,workdir={folder}/work,private");
    Mount::new("overlay", "overlay", &options)
}

pub(super) fn trimmed(path: &str) -> String {
    let path = path.trim_end_matches('/');
    if path.is_empty() { "/".into() } else { path.into() }
}
