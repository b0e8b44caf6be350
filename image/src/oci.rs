//! Containers without Podman: an OCI runtime bundle for crun, made at build time.
//!
//! A [`ContainerImage`] is the files of an image and what it says about running them; it lies
//! below [`IMAGES`] and is shared by the containers that use it. A [`Bundle`] is one container:
//! a config.json that is what `podman run` would have made of the same `.container`, as far as
//! it can be known at build time, and a few files to bind into the container, below [`BUNDLES`].
//!
//! What only the guest knows stands in config.json as a placeholder
//! ([`activator::manifest::Container`]): how many sockets were opened, and their names.
//!
//! Every start finds the same files. As with Podman, a container may write to its root unless
//! `ReadOnly=` says otherwise: the guest mounts an empty layer over the image each time
//! ([`activator::manifest::Container::writable`]). But for a `Rootfs=` that the guest can write to:
//! that one keeps what is written.

pub mod capability;
pub mod entrypoint;
pub mod image;
pub mod mount;
pub mod seccomp;
pub mod source;
pub mod store;
pub mod user;

mod check;
mod files;
mod filter;
mod mount_key;
mod pattern;
mod specification;
mod storage;
mod unsupported;
mod user_namespace;

pub use check::check;
pub use image::{ContainerImage, HealthCheck, folder};

pub use user_namespace::{subordinates, wanted as wanted_ids};

pub use storage::{
    folder as volume_folder, given_away, ids_outside, mounted, mounted_image, overlay_folder,
    root_ids, secret, unit_volume, user_ids, volumes,
};

use crate::container::{Container, Root};
use crate::finding::{Finding, Span};
use crate::tree::{Last, Node, Tree, TreeError};
use activator::manifest;
use std::collections::BTreeMap;

/// Where container images lie in the guest, one folder each.
pub const IMAGES: &str = "/usr/lib/rouse/images";
/// Where bundles lie in the guest, one folder each.
pub const BUNDLES: &str = "/usr/lib/rouse/bundles";

/// What is the first process where `RunInit=` is set, and its package.
pub const INIT: &str = "/usr/bin/catatonit";
/// Where it is in the container.
const INIT_IN_CONTAINER: &str = "/run/podman-init";

/// Whether a container is given sockets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    /// Its service has none.
    None,
    /// Its service has some: LISTEN_FDS, LISTEN_FDNAMES and LISTEN_PID=1 are in its environment.
    Sockets,
}

/// What a bundle is made from, apart from the container itself.
#[derive(Debug, Clone, Copy)]
pub struct Context<'a> {
    /// The image that `Image=` is mapped to.
    pub image: &'a ContainerImage,
    /// Whether there are sockets.
    pub activation: Activation,
    /// `x86_64` or `aarch64`.
    pub architecture: &'a str,
    /// Text of /usr/share/containers/seccomp.json; None runs the container without a filter.
    pub seccomp: Option<&'a str>,
    /// What the guest has already: time zones, profiles, what a glob matches. None has nothing.
    pub guest: Option<&'a Tree>,
}

/// One container, ready for crun.
#[derive(Debug, Clone, PartialEq)]
pub struct Bundle {
    /// crun's container id.
    pub id: String,
    /// config.json with placeholders.
    pub specification: serde_json::Value,
    /// Host name in the container.
    host_name: String,
    /// /etc/hosts
    hosts: String,
    /// /etc/resolv.conf, if it has one of its own.
    resolver: Option<String>,
    /// /etc/localtime, if `Timezone=` names one.
    zone: Option<std::sync::Arc<[u8]>>,
    /// The image's folder in the guest.
    image: String,
    /// What it is to the container.
    root: Root,
    /// Paths in the container that are mounted over, or worked in, so they have to be there.
    mount_points: BTreeMap<String, mount::Point>,
}

impl Bundle {
    /// Makes the bundle of a container; or says what is wrong with it.
    pub fn compile(container: &Container, context: Context<'_>) -> Result<Self, Vec<Finding>> {
        let findings = check(container);
        if crate::finding::forbids(&findings, false) {
            return Err(findings);
        }
        if let Some(finding) = unsupported::with_sockets(container, context.activation) {
            return Err(vec![finding]);
        }
        specification::compile(container, context).map_err(|finding| vec![finding])
    }

    /// What the manifest says about it.
    pub fn manifest(&self) -> activator::manifest::Container {
        activator::manifest::Container {
            id: self.id.clone(),
            template: self.path("config.json"),
            writable: (self.root == Root::Layer).then(|| self.image.clone()),
            ..activator::manifest::Container::default()
        }
    }

    /// Puts the bundle's files into the guest's tree, and into its image the places to mount
    /// over, where crun cannot make them in the container's own layer. The image itself is put
    /// there by [`ContainerImage::install`] before.
    pub fn install(&self, tree: &mut Tree, origin: &str) -> Result<(), TreeError> {
        let mut text = serde_json::to_string_pretty(&self.specification).unwrap_or_default();
        text.push('\n');
        let files = [
            ("config.json", text),
            ("hosts", self.hosts.clone()),
            ("hostname", format!("{}\n", self.host_name)),
            ("containerenv", String::new()),
        ];
        if let Some(zone) = &self.zone {
            tree.insert(&self.path("localtime"), Node::file(zone.clone(), 0o644, origin))?;
        }
        let resolver = self.resolver.clone().map(|text| ("resolv.conf", text));
        for (name, text) in files.into_iter().chain(resolver) {
            tree.insert(&self.path(name), Node::file(text.into_bytes(), 0o644, origin))?;
        }
        for (path, point) in self.mount_points.iter().filter(|_| self.root == Root::ReadOnly) {
            // As crun will follow the image's symlinks.
            let path = tree.resolve(&self.image, path, Last::Followed).unwrap_or(path.clone());
            let path = format!("{}{path}", self.image);
            // What the image brings itself is as good.
            if tree.node(&path).is_none() {
                let is_directory = match point {
                    mount::Point::Directory => true,
                    mount::Point::File => false,
                    // What is made at run time is a directory, unless it is called a socket.
                    mount::Point::Like(source) => {
                        let socket = source.ends_with(".sock") || source.ends_with(".socket");
                        tree.content(source).is_none() && !socket
                    }
                };
                let node = match is_directory {
                    true => Node::directory(0o755, origin),
                    false => Node::file(Vec::new(), 0o644, origin),
                };
                tree.insert(&path, node)?;
            }
        }
        Ok(())
    }

    fn path(&self, name: &str) -> String {
        format!("{BUNDLES}/{}/{name}", self.id)
    }
}

/// The folder of the guest that is the container's root, or what is below its own layer.
pub fn root_folder(container: &Container) -> String {
    match &container.rootfs {
        Some(rootfs) => rootfs.text.split(':').next().unwrap_or_default().to_owned(),
        None => match has_ids_of_its_own(container) {
            true => format!("{}~{}", folder(&container.image), owners(container)),
            false => folder(&container.image),
        },
    }
}

/// Whether the image's files have to belong to others for it than for most containers.
fn has_ids_of_its_own(container: &Container) -> bool {
    let maps = user_namespace::maps(container);
    container.rootfs.is_none() && maps.is_some_and(|maps| !user_namespace::is_everyone(&maps))
}

/// Whose the image's files are for it, as a part of a name: root's ids, and a checksum of the
/// others where these do not follow in a row as most have them.
fn owners(container: &Container) -> String {
    let (uid, gid) = root_ids(container);
    let Some(maps) = user_namespace::maps(container) else { return format!("{uid}-{gid}") };
    let is_plain = |ranges: &[user_namespace::Range]| match ranges {
        [(0, _, count)] | [(0, _, 1), (1, _, count)] => *count >= 65_535,
        _ => false,
    };
    match is_plain(&maps.0) && is_plain(&maps.1) {
        true => format!("{uid}-{gid}"),
        false => {
            let sum = manifest::Container::digest_of(format!("{maps:?}").as_bytes());
            format!("{uid}-{gid}-{sum:08x}")
        }
    }
}

/// The files of an image with the owners that they have for a container with `UIDMap=`, or of a
/// user: what is root's in the image is then the user's. It has them in a
/// folder of its own ([`root_folder`]).
pub fn shifted(container: &Container, image: &ContainerImage) -> Result<Option<Tree>, TreeError> {
    let maps = user_namespace::maps(container).filter(|_| has_ids_of_its_own(container));
    let Some((uids, gids)) = maps else { return Ok(None) };
    let mut tree = Tree::plain();
    for (path, node) in image.files.iter() {
        let owner = |ranges: &[_], id| user_namespace::outside(ranges, id);
        let (uid, gid) = (owner(&uids, node.uid), owner(&gids, node.gid));
        tree.insert(path, node.clone().owned_by(uid, gid))?;
    }
    Ok(Some(tree))
}

/// The images of a container: its own, and those of `Mount=`.
pub fn references(container: &Container) -> Vec<String> {
    let own = Some(container.image.clone()).filter(|image| !image.is_empty());
    let mounted = container.mounts.iter().filter_map(mounted_image);
    own.into_iter().chain(mounted).collect()
}

/// The content of `Timezone=`, of the guest or of the image.
fn zone(
    container: &Container,
    context: Context<'_>,
) -> Result<Option<std::sync::Arc<[u8]>>, Finding> {
    let Some(zone) = container.timezone.as_ref().filter(|zone| zone.text != "local") else {
        return Ok(None);
    };
    let path = format!("/usr/share/zoneinfo/{}", zone.text);
    let of_guest = context.guest.and_then(|guest| guest.content(&path));
    let content = of_guest.or_else(|| context.image.files.content(&path));
    content.cloned().map(Some).ok_or_else(|| {
        wrong(&zone.span, format!("neither the guest nor the image has {path}"))
            .label("not there")
            .help("add `tzdata` to `packages` in appliance.toml")
    })
}

/// A finding about a container as a whole.
fn wrong(span: &Span, message: impl Into<String>) -> Finding {
    Finding::error(span.clone(), message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::container::{Network, Volume, VolumeSource};
    use crate::finding::Source;
    use std::sync::Arc;

    /// configs/echo's container, with the defaults that the unit compiler gives.
    fn echo() -> Container {
        let text = include_str!("../../configs/echo/echo.container").to_owned();
        let source = Arc::new(Source { path: "echo.container".into(), text });
        let image = "ghcr.io/eriksjolund/socket-activate-echo";
        let new = Container::new(Span::file(&source), "echo.service", "systemd-echo", image);
        Container { network: Network::None, ..new }
    }

    fn volume(source: &str, destination: &str, options: &[&str]) -> Volume {
        Volume {
            source: VolumeSource::Path(source.into()),
            destination: destination.into(),
            options: options.iter().map(|&option| option.to_owned()).collect(),
            span: echo().span,
        }
    }

    fn image() -> ContainerImage {
        let mut files = Tree::plain();
        files.insert("/echo", Node::file(&b"\x7fELF"[..], 0o755, "test")).unwrap();
        let entrypoint = vec!["/echo".into()];
        ContainerImage { entrypoint, ..ContainerImage::new(&echo().image, files) }
    }

    fn compile(container: &Container, image: &ContainerImage) -> Result<Bundle, Vec<Finding>> {
        let activation = Activation::Sockets;
        let context =
            Context { image, activation, architecture: "x86_64", seccomp: None, guest: None };
        Bundle::compile(container, context)
    }

    fn message(container: &Container, image: &ContainerImage) -> String {
        compile(container, image).unwrap_err()[0].message.clone()
    }

    #[test]
    fn the_echo_container_is_as_podman_would_run_it() {
        let bundle = compile(&echo(), &image()).unwrap();
        let mut tree = Tree::new();
        image().install(&mut tree).unwrap();
        bundle.install(&mut tree, "echo.container").unwrap();
        let written = tree.content(&bundle.manifest().template).unwrap();
        let golden = include_str!("../tests/golden/echo.config.json");
        assert_eq!(std::str::from_utf8(written).unwrap(), golden);
        let specification: oci_spec::runtime::Spec = serde_json::from_str(golden).unwrap();
        assert!(specification.process().as_ref().unwrap().capabilities().is_some());
    }

    #[test]
    fn a_users_container_has_a_user_namespace_of_its_own() {
        let ids = crate::config::Ids { first: 100_000, count: 65_536 };
        let mut container = echo();
        container.owner = Some(crate::container::Rootless {
            name: "ann".into(),
            uid: 1000,
            gid: 1001,
            subuids: ids,
            subgids: ids,
        });
        let bundle = compile(&container, &image()).unwrap();
        assert_eq!(bundle.id, "user-1000-systemd-echo");
        let linux = &bundle.specification["linux"];
        assert!(linux["namespaces"].to_string().contains(r#""user""#));
        assert_eq!(linux["cgroupsPath"], "/rouse/user-1000/echo.service/payload");
        let first = |own| serde_json::json!({ "containerID": 0, "hostID": own, "size": 1 });
        let rest = serde_json::json!({ "containerID": 1, "hostID": 100_000, "size": 65_536 });
        assert_eq!(linux["uidMappings"], serde_json::json!([first(1000), rest]));
        assert_eq!(linux["gidMappings"], serde_json::json!([first(1001), rest]));
        container.network = Network::Host;
        assert!(message(&container, &image()).contains("`Network=host`"));
    }

    #[test]
    fn the_ids_that_are_asked_for_are_in_the_bundle() {
        let written =
            |text: &str| Some(crate::container::Written { text: text.into(), span: echo().span });
        let ids = crate::config::Ids { first: 100_000, count: 65_536 };
        let mut container = echo();
        let (name, uid, gid) = ("ann".into(), 1000, 1001);
        container.owner =
            Some(crate::container::Rootless { name, uid, gid, subuids: ids, subgids: ids });
        let plain = root_folder(&container);
        assert!(plain.ends_with("~1000-1001"), "{plain}");
        container.user_namespace.mode = written("keep-id");
        let of_seven = ContainerImage { user: Some("7".into()), ..image() };
        let image = image();
        let user = |container: &Container, image: &ContainerImage| {
            let bundle = compile(container, image).unwrap();
            bundle.specification["process"]["user"]["uid"].as_u64().unwrap()
        };
        assert_eq!((user(&container, &image), user(&container, &of_seven)), (1000, 7));
        // Root is another, and so are the owners of the image's files.
        assert!(root_folder(&container).contains("~100000-100000-"));
        container.user = Some("5".into());
        assert_eq!(user(&container, &of_seven), 5);
        container.user = Some("70000".into());
        assert!(message(&container, &image).contains("has not both user 70000 and group 0"));
        // Without a group for terminals.
        container.user = None;
        container.user_namespace.mode = written("keep-id:uid=3,gid=3,size=4");
        let bundle = compile(&container, &image).unwrap();
        let mounts = bundle.specification["mounts"].to_string();
        assert!(mounts.contains("devpts") && !mounts.contains("gid=5"));
        // All of the guest's own, in a namespace nevertheless.
        (container.owner, container.user_namespace.mode) = (None, written("keep-id"));
        let bundle = compile(&container, &image).unwrap();
        let process = &bundle.specification["process"];
        assert_eq!(
            (&process["user"]["uid"], &process["user"]["additionalGids"][0]),
            (&0.into(), &0.into())
        );
        assert_eq!(process["capabilities"]["effective"].to_string(), "[]");
        assert_eq!(bundle.specification["linux"]["uidMappings"][0]["size"], u32::MAX);
        assert_eq!(root_folder(&container), image.folder());
    }

    #[test]
    fn every_mount_finds_its_place_in_the_read_only_root() {
        let mut container = echo();
        container.read_only = Some(true);
        container.working_directory = Some("/work".into());
        container.tmpfs = vec![("/cache/".into(), vec!["size=1m".into()])];
        container.volumes = vec![
            volume("/etc/app.conf", "/etc/app.conf", &["ro", "Z"]),
            volume("/run/api.sock", "/api.sock", &[]),
            volume("/srv/data", "/data", &["rslave"]),
        ];
        let bundle = compile(&container, &image()).unwrap();
        let mut tree = Tree::new();
        tree.insert("/etc/app.conf", Node::file(&b"x"[..], 0o644, "test")).unwrap();
        image().install(&mut tree).unwrap();
        bundle.install(&mut tree, "echo.container").unwrap();
        // Another container of the same image.
        container.name = "second".into();
        compile(&container, &image()).unwrap().install(&mut tree, "second.container").unwrap();
        let root = image().folder();
        let directories = ["/proc", "/sys", "/dev", "/run", "/var/tmp", "/work", "/cache", "/data"];
        for path in directories {
            let node = tree.node(&format!("{root}{path}")).unwrap();
            assert_eq!(node.kind, crate::tree::Kind::Directory, "{path}");
        }
        for path in ["/etc/hosts", "/etc/hostname", "/etc/app.conf", "/api.sock"] {
            assert!(tree.content(&format!("{root}{path}")).is_some(), "{path}");
        }
        assert!(tree.node(&format!("{root}/dev/pts")).is_none());
        let mounts = bundle.specification["mounts"].as_array().unwrap();
        let options = |path: &str| {
            let mount = mounts.iter().find(|mount| mount["destination"] == path).unwrap();
            mount["options"].to_string()
        };
        assert_eq!(options("/etc/app.conf"), r#"["ro","rprivate","rbind"]"#);
        assert_eq!(options("/data"), r#"["rslave","rw","rbind"]"#);
        let cache = r#"["size=1m","rw","rprivate","nosuid","nodev","tmpcopyup"]"#;
        assert_eq!(options("/cache"), cache);
    }

    #[test]
    fn a_mount_below_a_symlink_finds_its_place_in_the_read_only_root() {
        let mut image = image();
        for (path, target) in
            [("/lib", "usr/lib"), ("/var/run", "/run"), ("/etc/localtime", "/usr/share/zone")]
        {
            image.files.insert(path, Node::symlink(target, "test")).unwrap();
        }
        image.files.insert("/usr/lib/os-release", Node::file(&b""[..], 0o644, "test")).unwrap();
        let mut container = echo();
        container.read_only = Some(true);
        container.tmpfs = vec![("/var/run/mysqld".into(), vec![])];
        container.volumes = vec![
            volume("/usr/lib/firmware", "/lib/firmware", &["ro"]),
            volume("/etc/zone.sock", "/etc/localtime", &["ro"]),
            volume("/etc/os-release", "/lib/os-release", &["ro"]),
        ];
        let mut tree = Tree::new();
        image.install(&mut tree).unwrap();
        compile(&container, &image).unwrap().install(&mut tree, "echo.container").unwrap();
        for path in ["/usr/lib/firmware", "/run/mysqld", "/usr/share/zone"] {
            assert!(tree.node(&format!("{}{path}", image.folder())).is_some(), "{path}");
        }
        container.volumes = vec![volume("/etc/ssl", "/lib/os-release/ssl", &["ro"])];
        let findings = compile(&container, &image).unwrap_err();
        assert!(findings[0].message.contains("/usr/lib/os-release is a file"), "{findings:?}");
        assert!(findings[0].help.is_some());
    }

    #[test]
    fn a_program_may_be_mounted() {
        let mut image = image();
        image.files.insert("/bin", Node::symlink("usr/bin", "test")).unwrap();
        let mut container = echo();
        let runs = |container: &Container| compile(container, &image).is_ok();
        for (program, destination, expected) in [
            ("/opt/tool/run", "/opt/tool", true),
            ("/opt/tool/run", "/opt/tool/run", true),
            ("/opt/tool/run", "/opt/to", false),
            ("/bin/tool", "/usr/bin", true),
            ("tool", "/usr/local/bin", true),
            ("tool", "/opt/tool", false),
        ] {
            container.entrypoint = Some(vec![program.into()]);
            container.volumes = vec![volume("/srv/tool", destination, &["ro"])];
            assert_eq!(runs(&container), expected, "{program} {destination}");
            container.volumes.clear();
            let text = format!("type=bind,src=/srv/tool,dst={destination}");
            container.mounts = vec![crate::container::Written { text, span: echo().span }];
            assert_eq!(runs(&container), expected, "{program} {destination}");
            container.mounts.clear();
            // There is nothing in it.
            container.tmpfs = vec![(destination.into(), vec![])];
            assert!(!runs(&container), "{program} {destination}");
            container.tmpfs.clear();
        }
    }

    #[test]
    fn what_podman_takes_for_systemd_needs_podman() {
        let mut image = image();
        for path in ["/sbin/init", "/usr/lib/systemd/systemd", "/bin/sh", "/opt/init"] {
            image.files.insert(path, Node::file(&b""[..], 0o755, "test")).unwrap();
        }
        let mut container = echo();
        for (line, expected) in [
            ("/sbin/init", true),
            ("/usr/lib/systemd/systemd --unit=x", true),
            ("/bin/sh -c /sbin/init", true),
            ("/opt/init", false),
            ("/echo /sbin/init", false),
        ] {
            container.entrypoint = Some(line.split(' ').map(str::to_owned).collect());
            container.extra.no_systemd = false;
            let found = compile(&container, &image).err();
            let help = found.and_then(|mut found| found.remove(0).help).unwrap_or_default();
            assert_eq!(help.contains("engine = \"podman\""), expected, "{line}");
            container.extra.no_systemd = true;
            assert!(compile(&container, &image).is_ok(), "{line}");
        }
    }

    #[test]
    fn what_the_unit_says_goes_before_the_image() {
        let mut image = image();
        image.command = vec!["--quiet".into()];
        image.environment = vec![("A".into(), "image".into()), ("PATH".into(), "/".into())];
        image.user = Some("7".into());
        let mut container = echo();
        container.environment = vec![("A".into(), "unit".into())];
        let process = compile(&container, &image).unwrap().specification["process"].clone();
        assert_eq!(process["args"].to_string(), r#"["/echo","--quiet"]"#);
        assert_eq!(process["user"]["uid"], 7);
        let environment = process["env"].to_string();
        assert!(environment.contains(r#""A=unit""#) && environment.contains(r#""PATH=/""#));

        container.entrypoint = Some(vec!["echo".into()]);
        container.user = Some("0:5".into());
        let process = compile(&container, &image).unwrap().specification["process"].clone();
        assert_eq!(process["args"].to_string(), r#"["echo"]"#);
        assert_eq!(process["user"]["gid"], 5);
        container.exec = Some(vec!["-v".into()]);
        let process = compile(&container, &image).unwrap().specification["process"].clone();
        assert_eq!(process["args"].to_string(), r#"["echo","-v"]"#);
    }

    #[test]
    fn a_user_other_than_root_has_only_what_was_asked_for() {
        let mut container = echo();
        container.user = Some("65534".into());
        container.add_capabilities = vec!["CAP_NET_RAW".into()];
        container.drop_capabilities = vec!["CAP_CHOWN".into()];
        let bundle = compile(&container, &image()).unwrap();
        let sets = &bundle.specification["process"]["capabilities"];
        assert_eq!(sets["bounding"].as_array().unwrap().len(), 11);
        for name in ["effective", "permitted", "inheritable", "ambient"] {
            assert_eq!(sets[name].to_string(), r#"["CAP_NET_RAW"]"#, "{name}");
        }
    }

    #[test]
    fn limits_masks_and_networks_are_honoured() {
        let mut container = echo();
        container.network = Network::Host;
        container.memory = Some(1 << 20);
        container.pids_limit = None;
        container.ulimits = vec![("nofile".into(), 64, 128)];
        container.unmask = vec!["/proc/acpi:/sys/fs/*".into(), "/proc/sys".into()];
        container.mask = vec!["/etc/shadow".into()];
        container.no_new_privileges = true;
        let json = compile(&container, &image()).unwrap().specification;
        assert!(!json["linux"]["namespaces"].to_string().contains("network"));
        assert_eq!(json["linux"]["sysctl"].to_string(), "{}");
        assert_eq!(json["linux"]["resources"]["memory"]["swap"], 2 << 20);
        assert!(json["linux"]["resources"].get("pids").is_none());
        assert_eq!(json["process"]["rlimits"][0]["hard"], 128);
        assert_eq!(json["process"]["noNewPrivileges"], true);
        let masked = json["linux"]["maskedPaths"].to_string();
        assert!(!masked.contains("acpi") && !masked.contains("selinux"));
        assert!(masked.contains("/etc/shadow") && masked.contains("/proc/kcore"));
        assert!(!json["linux"]["readonlyPaths"].to_string().contains("/proc/sys\""));
    }

    #[test]
    fn what_cannot_run_is_refused_with_a_next_step() {
        let change = |change: fn(&mut Container)| {
            let mut container = echo();
            change(&mut container);
            container
        };
        let cases = [
            (change(|c| c.name = "../x".into()), "cannot be a container's name"),
            (change(|c| c.add_capabilities = vec!["CAP_FLY".into()]), "no capability CAP_FLY"),
            (change(|c| c.ulimits = vec![("fish".into(), 1, 1)]), "no limit `fish`"),
            (change(|c| c.tmpfs = vec![("/x".into(), vec!["fish".into()])]), "option `fish`"),
            (change(|c| c.volumes = vec![volume("/a", "/b", &["fish"])]), "option `fish`"),
            (change(|c| c.sysctls = vec![("vm.swappiness".into(), "1".into())]), "of its own"),
            (change(|c| c.user = Some("nobody".into())), "no user `nobody`"),
            (change(|c| c.entrypoint = Some(vec!["/bin/sh".into()])), "no program `/bin/sh`"),
            (change(|c| c.entrypoint = Some(vec![])), "says what to run"),
        ];
        for (container, expected) in cases {
            let findings = compile(&container, &image()).unwrap_err();
            assert!(findings[0].message.contains(expected), "{}", findings[0].message);
            assert!(findings[0].help.is_some(), "{}", findings[0].message);
        }
        assert_eq!(check(&echo()), []);
        let mut image = image();
        image.entrypoint.clear();
        assert!(message(&echo(), &image).contains("says what to run"));
    }

    #[test]
    fn a_folder_that_can_be_written_to_is_the_root_itself() {
        let written =
            |text: &str| Some(crate::container::Written { text: text.into(), span: echo().span });
        let mut container = echo();
        (container.image, container.rootfs) = (String::new(), written("/var/root"));
        let root = |container: &Container| {
            let bundle = compile(container, &image()).unwrap();
            (bundle.specification["root"].to_string(), bundle.manifest().writable)
        };
        let layer = r#"{"path":"/run/rouse/bundles/systemd-echo/rootfs"}"#;
        let over = (layer.to_owned(), Some("/var/root".to_owned()));
        assert_eq!(root(&container), over);
        container.rootfs_is_writable = true;
        assert_eq!(root(&container), (r#"{"path":"/var/root"}"#.into(), None));
        container.rootfs = written("/var/root:O");
        assert_eq!(root(&container), over);
        container.read_only = Some(true);
        assert_eq!(root(&container), (r#"{"path":"/var/root","readonly":true}"#.into(), None));
        for (text, expected) in [("var/root", "not an absolute path"), ("/a:idmap", "`idmap`")] {
            container.rootfs = written(text);
            assert!(message(&container, &image()).contains(expected), "{text}");
        }
    }

    #[test]
    fn a_network_of_others_is_left_alone_in_a_user_namespace() {
        let mut container = echo();
        let sysctls = |container: &Container| {
            compile(container, &image()).unwrap().specification["linux"]["sysctl"].to_string()
        };
        let default = r#"{"net.ipv4.ping_group_range":"0 0"}"#;
        container.network = Network::Path("/run/netns/a".into());
        assert_eq!(sysctls(&container), default);
        let (text, span) = ("0:1000:65536".into(), container.span.clone());
        container.user_namespace.uid_maps = vec![crate::container::Written { text, span }];
        assert_eq!(sysctls(&container), "{}");
        container.network = Network::None;
        assert_eq!(sysctls(&container), default);
    }

    #[test]
    fn a_tmpfs_may_be_the_users() {
        let mut container = echo();
        container.user = Some("33:34".into());
        let (text, span) = ("type=tmpfs,destination=/t,U,ro", container.span.clone());
        container.mounts = vec![crate::container::Written { text: text.into(), span }];
        container.tmpfs = vec![("/u".into(), vec!["U".into(), "ro".into()])];
        let bundle = compile(&container, &image()).unwrap();
        let mounts = bundle.specification["mounts"].as_array().unwrap();
        let options = r#"["uid=33","gid=34","ro","rprivate","nosuid","nodev","tmpcopyup"]"#;
        for path in ["/t", "/u"] {
            let mount = mounts.iter().find(|mount| mount["destination"] == path).unwrap();
            assert_eq!(mount["options"].to_string(), options);
        }
    }

    #[test]
    fn an_entrypoint_behind_an_init_is_looked_at() {
        let mut image = image();
        let script = Node::file(&b"#!/bin/sh\nserver\n"[..], 0o755, "test");
        image.files.insert("/start", script).unwrap();
        let mut container = echo();
        container.entrypoint = Some(vec!["/start".into()]);
        container.run_init = true;
        let bundle = compile(&container, &image).unwrap();
        let found = entrypoint::check(&container, &bundle.specification, &image.files).unwrap();
        assert!(found.message.contains("/start runs its program as a child"), "{}", found.message);
    }

    #[test]
    fn a_service_without_sockets_is_told_of_none() {
        let image = image();
        let context = Context {
            image: &image,
            activation: Activation::None,
            architecture: "aarch64",
            seccomp: None,
            guest: None,
        };
        let bundle = Bundle::compile(&echo(), context).unwrap();
        assert!(!bundle.specification["process"]["env"].to_string().contains("LISTEN"));
    }
}
