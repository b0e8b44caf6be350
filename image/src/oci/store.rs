//! Container images as Podman's storage keeps them: an additional image store, read-only, in which
//! Podman finds them without a registry and without a copy (containers-storage.conf(5),
//! `additionalimagestores`; the layout is that of the containers/storage library, driver overlay).
//!
//! ```text
//! overlay/LAYER/diff/        the layer's files
//! overlay/LAYER/link         a short name, for mount options
//! overlay/l/SHORT            -> ../LAYER/diff
//! overlay-layers/layers.json which layers there are
//! overlay-images/images.json which images, with their names
//! overlay-images/IMAGE/      manifest and configuration
//! ```
//!
//! Each image is one layer: its files are shared with nobody. A user's Podman needs a store of its own,
//! whose files belong to the ids that his containers have: root's are his, and of others' it could
//! change nothing.

use super::user_namespace::{self, Maps};
use super::{ContainerImage, HealthCheck};
use crate::cache::Hash;
use crate::container::Rootless;
use crate::tree::{Kind, Node, Tree, TreeError};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Where the guest has root's; a user's is beside it, with his name.
pub const STORE: &str = "/usr/lib/containers/storage";
const ORIGIN: &str = "rouse";
/// When everything in it was made: as the files of the image.
const CREATED: &str = "1970-01-01T00:00:01Z";
/// Media types of a manifest, a configuration and a layer that is not compressed: OCI's, and those
/// of Docker's schema 2.
const OCI: [&str; 3] = [
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.oci.image.config.v1+json",
    "application/vnd.oci.image.layer.v1.tar",
];
const DOCKER: [&str; 3] = [
    "application/vnd.docker.distribution.manifest.v2+json",
    "application/vnd.docker.container.image.v1+json",
    "application/vnd.docker.image.rootfs.diff.tar",
];

/// The store in the making.
#[derive(Default)]
pub struct Store {
    /// Where the guest has it.
    folder: String,
    /// The guest's ids for those of the images.
    owners: Maps,
    layers: BTreeMap<String, Value>,
    images: BTreeMap<String, Value>,
    tree: Tree,
}

impl Store {
    /// Of root, or of a user; with no image.
    pub fn new(user: Option<&Rootless>) -> Self {
        Self {
            folder: user.map_or(STORE.into(), |user| format!("{STORE}-of-{}", user.name)),
            owners: user.map_or_else(Maps::default, user_namespace::intermediate),
            tree: Tree::plain(),
            ..Self::default()
        }
    }

    /// Where the guest has it.
    pub fn folder(&self) -> &str {
        &self.folder
    }

    /// Adds an image for guests of an architecture, by OCI's name of it (`amd64`).
    pub fn add(&mut self, image: &ContainerImage, architecture: &str) -> Result<(), TreeError> {
        let (digest, size) = digest_of_layer(&image.files);
        let layer = digest.to_string();
        let configuration = bytes(&configuration(image, architecture, &digest));
        let id = Hash::of(&configuration);
        // Podman looks for a health check in Docker's images alone.
        let types = if image.health_check.is_some() { DOCKER } else { OCI };
        let [manifest_type, configuration_type, layer_type] = types;
        let manifest = bytes(&json!({
            "schemaVersion": 2,
            "mediaType": manifest_type,
            "config": {
                "mediaType": configuration_type,
                "digest": format!("sha256:{id}"),
                "size": configuration.len(),
            },
            "layers": [{
                "mediaType": layer_type,
                "digest": format!("sha256:{digest}"),
                "size": size,
            }],
        }));
        self.layer(&layer, size, &image.files)?;
        self.image(&id.to_string(), &layer, &image.reference, &manifest, &configuration)
    }

    fn layer(&mut self, id: &str, size: u64, files: &Tree) -> Result<(), TreeError> {
        let entry = json!({
            "id": id,
            "created": CREATED,
            "compressed-diff-digest": format!("sha256:{id}"),
            "compressed-size": size,
            "diff-digest": format!("sha256:{id}"),
            "diff-size": size,
        });
        if self.layers.insert(id.into(), entry).is_some() {
            return Ok(());
        }
        let folder = format!("/overlay/{id}");
        let short = id[..26].to_ascii_uppercase();
        let (uids, gids) = &self.owners;
        let owned = |node: Node| {
            let uid = user_namespace::outside(uids, node.uid);
            let gid = user_namespace::outside(gids, node.gid);
            node.owned_by(uid, gid)
        };
        let diff = format!("{folder}/diff");
        self.tree.insert(&diff, owned(Node::directory(0o755, ORIGIN)))?;
        for (path, node) in files.iter() {
            self.tree.insert(&format!("{diff}{path}"), owned(node.clone()))?;
        }
        self.file(&format!("{folder}/link"), short.as_bytes())?;
        let target = format!("../{id}/diff");
        self.tree.insert(&format!("/overlay/l/{short}"), Node::symlink(target, ORIGIN))
    }

    fn image(
        &mut self,
        id: &str,
        layer: &str,
        reference: &str,
        manifest: &[u8],
        configuration: &[u8],
    ) -> Result<(), TreeError> {
        let name = full_name(reference);
        if let Some(known) = self.images.get_mut(id) {
            if let Some(names) = known["names"].as_array_mut() {
                names.push(name.into());
            }
            return Ok(());
        }
        let digest = format!("sha256:{}", Hash::of(manifest));
        let data = [
            ("manifest".to_owned(), manifest),
            (format!("manifest-{digest}"), manifest),
            (format!("sha256:{id}"), configuration),
        ];
        let of = |value: fn(&[u8]) -> Value| -> serde_json::Map<String, Value> {
            data.iter().map(|(key, bytes)| (key.clone(), value(bytes))).collect()
        };
        let entry = json!({
            "id": id,
            "digest": digest,
            "names": [name],
            "layer": layer,
            "metadata": "{}",
            "big-data-names": data.iter().map(|(key, _)| key).collect::<Vec<_>>(),
            "big-data-sizes": of(|bytes| bytes.len().into()),
            "big-data-digests": of(|bytes| format!("sha256:{}", Hash::of(bytes)).into()),
            "created": CREATED,
        });
        self.images.insert(id.into(), entry);
        for (key, bytes) in &data {
            self.file(&format!("/overlay-images/{id}/{}", file_name(key)), bytes)?;
        }
        Ok(())
    }

    fn file(&mut self, path: &str, content: &[u8]) -> Result<(), TreeError> {
        self.tree.insert(path, Node::file(content, 0o644, ORIGIN))
    }

    /// Puts the store into a guest's tree.
    pub fn install(mut self, tree: &mut Tree) -> Result<(), TreeError> {
        for (kind, entries) in [("layers", &self.layers), ("images", &self.images)] {
            let list = bytes(&json!(entries.values().collect::<Vec<_>>()));
            let folder = format!("/overlay-{kind}");
            for (file, content) in
                [(format!("{kind}.json"), list), (format!("{kind}.lock"), vec![])]
            {
                let node = Node::file(content, 0o644, ORIGIN);
                self.tree.insert(&format!("{folder}/{file}"), node)?;
            }
        }
        tree.make_directory(&self.folder, 0o755, ORIGIN)?;
        tree.graft(&self.folder, &self.tree)
    }
}

/// What an image says about running it, image-spec's config.md and Docker's addition to it.
fn configuration(image: &ContainerImage, architecture: &str, layer: &Hash) -> Value {
    let environment: Vec<String> =
        image.environment.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let mut config = json!({ "Env": environment });
    let mut set = |key: &str, value: Value| config[key] = value;
    if !image.entrypoint.is_empty() {
        set("Entrypoint", json!(image.entrypoint));
    }
    if !image.command.is_empty() {
        set("Cmd", json!(image.command));
    }
    if let Some(user) = &image.user {
        set("User", json!(user));
    }
    if let Some(folder) = &image.working_directory {
        set("WorkingDir", json!(folder));
    }
    if let Some(signal) = &image.stop_signal {
        set("StopSignal", json!(signal));
    }
    if !image.labels.is_empty() {
        set("Labels", json!(image.labels));
    }
    for (key, names) in [("Volumes", &image.volumes), ("ExposedPorts", &image.exposed_ports)] {
        if !names.is_empty() {
            // A set, as Go writes one.
            let set_of: BTreeMap<&String, Value> =
                names.iter().map(|name| (name, json!({}))).collect();
            set(key, json!(set_of));
        }
    }
    if let Some(check) = &image.health_check {
        set("Healthcheck", health_check(check));
    }
    json!({
        "created": CREATED,
        "architecture": architecture,
        "os": "linux",
        "config": config,
        "rootfs": { "type": "layers", "diff_ids": [format!("sha256:{layer}")] },
    })
}

/// A number of 0 is left out, as Docker does it: it is the default.
fn health_check(check: &HealthCheck) -> Value {
    let numbers = [
        ("Interval", check.interval_ns),
        ("Timeout", check.timeout_ns),
        ("StartPeriod", check.start_period_ns),
        ("StartInterval", check.start_interval_ns),
        ("Retries", check.retries.into()),
    ];
    let mut object = json!({ "Test": check.test });
    for (key, number) in numbers.into_iter().filter(|(_, number)| *number > 0) {
        object[key] = number.into();
    }
    object
}

/// A reference with its registry and tag: Podman looks for names without a registry under
/// `localhost/` as well.
pub fn full_name(reference: &str) -> String {
    let first = reference.split('/').next().unwrap_or_default();
    let registry = reference.contains('/') && (first.contains(['.', ':']) || first == "localhost");
    let name = if registry { reference.to_owned() } else { format!("localhost/{reference}") };
    let last = name.rsplit('/').next().unwrap_or_default();
    if last.contains([':', '@']) { name } else { format!("{name}:latest") }
}

/// As the library names the file of a key: itself, unless a character of it is unusual.
fn file_name(key: &str) -> String {
    let plain = |c: char| c == '.' || c.is_ascii_digit() || c.is_ascii_lowercase();
    if key.chars().all(plain) {
        return key.to_owned();
    }
    format!("={}", base64(key.as_bytes()))
}

/// RFC 4648, section 4.
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for three in bytes.chunks(3) {
        let number = (0..3).fold(0u32, |number, at| {
            number << 8 | u32::from(three.get(at).copied().unwrap_or_default())
        });
        for place in 0..4 {
            let digit = DIGITS[(number >> (18 - 6 * place)) as usize & 63];
            text.push(if place <= three.len() { char::from(digit) } else { '=' });
        }
    }
    text
}

fn bytes(value: &Value) -> Vec<u8> {
    value.to_string().into_bytes()
}

/// Digest and size of the files as a tar archive.
fn digest_of_layer(files: &Tree) -> (Hash, u64) {
    let mut archive = tar::Builder::new(Vec::new());
    for (path, node) in files.iter() {
        let mut header = tar::Header::new_gnu();
        header.set_mode(node.mode);
        header.set_uid(node.uid.into());
        header.set_gid(node.gid.into());
        header.set_mtime(crate::tree::MTIME.into());
        let path = path.trim_start_matches('/');
        // Writing to memory does not fail; a name that tar cannot hold only changes the digest.
        let _ = match &node.kind {
            Kind::File(content) => {
                header.set_entry_type(tar::EntryType::Regular);
                header.set_size(content.len() as u64);
                archive.append_data(&mut header, path, &content[..])
            }
            Kind::Directory => {
                header.set_entry_type(tar::EntryType::Directory);
                header.set_size(0);
                archive.append_data(&mut header, format!("{path}/"), std::io::empty())
            }
            Kind::Symlink(target) => {
                header.set_entry_type(tar::EntryType::Symlink);
                header.set_size(0);
                archive.append_link(&mut header, path, target)
            }
            Kind::CharacterDevice(major, minor) | Kind::BlockDevice(major, minor) => {
                let character = matches!(node.kind, Kind::CharacterDevice(..));
                let kind = if character { tar::EntryType::Char } else { tar::EntryType::Block };
                header.set_entry_type(kind);
                header.set_size(0);
                let _ = header.set_device_major(*major);
                let _ = header.set_device_minor(*minor);
                archive.append_data(&mut header, path, std::io::empty())
            }
            Kind::Fifo => {
                header.set_entry_type(tar::EntryType::Fifo);
                header.set_size(0);
                archive.append_data(&mut header, path, std::io::empty())
            }
        };
    }
    let archive = archive.into_inner().unwrap_or_default();
    (Hash::of(&archive), archive.len() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;
    use crate::static_build::Binary;
    use std::path::Path;

    fn image(reference: &str) -> ContainerImage {
        let binary = Binary { name: "a".into(), content: b"\x7fELF".into(), target: String::new() };
        let config = config::Image { command: vec!["x".into()], ..config::Image::default() };
        let image = ContainerImage::of_binary(reference, &binary).unwrap();
        image.with(&config, Path::new("/")).unwrap()
    }

    #[test]
    fn keys_become_names_of_files() {
        assert_eq!(file_name("manifest"), "manifest");
        for (key, name) in
            [("a-", "=YS0="), ("a:b", "=YTpi"), ("-", "=LQ=="), ("a:bc", "=YTpiYw==")]
        {
            assert_eq!(file_name(key), name);
        }
    }

    #[test]
    fn references_get_what_podman_would_look_for() {
        for (reference, name) in [
            ("ghcr.io/a/b", "ghcr.io/a/b:latest"),
            ("docker.io/library/httpd:2.4", "docker.io/library/httpd:2.4"),
            ("echo", "localhost/echo:latest"),
            ("team/echo:1", "localhost/team/echo:1"),
            ("localhost/echo", "localhost/echo:latest"),
            ("host:5000/a", "host:5000/a:latest"),
        ] {
            assert_eq!(full_name(reference), name);
        }
    }

    #[test]
    fn an_image_is_a_layer_a_manifest_and_a_configuration() {
        let mut store = Store::new(None);
        for reference in ["one", "two"] {
            store.add(&image(reference), "amd64").unwrap();
        }
        let mut tree = Tree::new();
        store.install(&mut tree).unwrap();
        let read = |path: &str| -> Value {
            serde_json::from_slice(tree.content(&format!("{STORE}/{path}")).unwrap()).unwrap()
        };
        let (images, layers) =
            (read("overlay-images/images.json"), read("overlay-layers/layers.json"));
        assert_eq!((images.as_array().unwrap().len(), layers.as_array().unwrap().len()), (1, 1));
        assert_eq!(images[0]["names"], json!(["localhost/one:latest", "localhost/two:latest"]));
        let (id, layer) = (images[0]["id"].as_str().unwrap(), layers[0]["id"].as_str().unwrap());
        assert_eq!(images[0]["layer"], layer);
        let manifest = read(&format!("overlay-images/{id}/manifest"));
        assert_eq!(manifest["config"]["digest"], format!("sha256:{id}"));
        let key = file_name(&format!("sha256:{id}"));
        let configuration = read(&format!("overlay-images/{id}/{key}"));
        assert_eq!(configuration["config"]["Entrypoint"], json!(["/a"]));
        assert_eq!(configuration["rootfs"]["diff_ids"], json!([format!("sha256:{layer}")]));
        assert_eq!(manifest["mediaType"], OCI[0]);
        let short = tree.content(&format!("{STORE}/overlay/{layer}/link")).unwrap();
        let link = format!("{STORE}/overlay/l/{}/a", std::str::from_utf8(short).unwrap());
        assert!(tree.trace(&link).is_some(), "{link}");
    }

    #[test]
    fn all_that_an_image_says_is_kept() {
        let said = ContainerImage {
            user: Some("101".into()),
            working_directory: Some("/srv".into()),
            stop_signal: Some("SIGQUIT".into()),
            volumes: vec!["/data".into()],
            exposed_ports: vec!["53/udp".into(), "80/tcp".into()],
            labels: [("maintainer".into(), "a".into())].into(),
            environment: vec![("A".into(), "b".into())],
            ..image("x")
        };
        assert_eq!(
            configuration(&said, "amd64", &Hash::of(b""))["config"],
            json!({
                "Env": ["A=b"],
                "Entrypoint": ["/a"],
                "Cmd": ["x"],
                "User": "101",
                "WorkingDir": "/srv",
                "StopSignal": "SIGQUIT",
                "Labels": { "maintainer": "a" },
                "Volumes": { "/data": {} },
                "ExposedPorts": { "53/udp": {}, "80/tcp": {} },
            })
        );
    }

    #[test]
    fn a_users_store_belongs_to_the_ids_of_his_containers() {
        let ids = crate::config::Ids { first: 200_000, count: 65_536 };
        let name = "ann".to_owned();
        let ann = Rootless { name, uid: 1000, gid: 1001, subuids: ids, subgids: ids };
        let mut files = Tree::plain();
        files.insert("/a", Node::file(b"a".as_slice(), 0o644, "test")).unwrap();
        let daemon = Node::file(b"b".as_slice(), 0o644, "test").owned_by(33, 34);
        files.insert("/b", daemon).unwrap();
        let mut store = Store::new(Some(&ann));
        store.add(&ContainerImage { files, ..image("x") }, "amd64").unwrap();
        let layer = store.layers.keys().next().unwrap().clone();
        assert_eq!(store.folder(), format!("{STORE}-of-ann"));
        let owner = |path: &str| {
            let node = store.tree.node(&format!("/overlay/{layer}/diff{path}")).unwrap();
            (node.uid, node.gid)
        };
        assert_eq!(owner(""), (1000, 1001));
        assert_eq!(owner("/a"), (1000, 1001));
        assert_eq!(owner("/b"), (200_032, 200_033));
    }

    #[test]
    fn an_image_with_a_health_check_is_dockers() {
        let check = HealthCheck {
            test: vec!["CMD-SHELL".into(), "true".into()],
            interval_ns: 5_000_000_000,
            retries: 2,
            ..HealthCheck::default()
        };
        let mut store = Store::new(None);
        let checked = ContainerImage { health_check: Some(check), ..image("x") };
        store.add(&checked, "amd64").unwrap();
        let id = store.images.keys().next().unwrap().clone();
        let read = |key: &str| -> Value {
            let path = format!("/overlay-images/{id}/{}", file_name(key));
            serde_json::from_slice(store.tree.content(&path).unwrap()).unwrap()
        };
        let manifest = read("manifest");
        let types = ["/mediaType", "/config/mediaType", "/layers/0/mediaType"]
            .map(|pointer| manifest.pointer(pointer).unwrap().as_str().unwrap());
        assert_eq!(types, DOCKER);
        assert_eq!(
            read(&format!("sha256:{id}"))["config"]["Healthcheck"],
            json!({ "Test": ["CMD-SHELL", "true"], "Interval": 5_000_000_000u64, "Retries": 2 })
        );
    }
}
