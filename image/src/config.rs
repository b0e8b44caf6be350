//! `appliance.toml`: what the units do not say.

mod complaint;
mod dependencies;
pub mod disk;
mod find;
mod image;
pub mod network;
mod place;
pub mod root;
mod secret;
mod user;

pub use dependencies::Dependencies;
pub use disk::Disk;
pub use image::{Image, Registry};
pub use network::Network;
pub use place::{Part, place};
pub use root::{Format, Root};
pub use secret::Secret;
pub use user::{FOLDER as USERS, Ids, User};

use crate::finding::{Finding, Source};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

/// Name of the file in an appliance's folder.
pub const FILE: &str = "appliance.toml";

/// The whole file. Every table and key is optional; an unknown one is an error.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Config {
    /// The appliance's name and host name; by default the folder's name.
    pub name: Option<String>,
    /// Who runs `.container` files.
    #[serde(default)]
    pub engine: Engine,
    /// Debian packages to put into the image, with what they depend on.
    #[serde(default)]
    pub packages: Vec<String>,
    /// What is taken of packages that only others depend on.
    #[serde(default)]
    pub dependencies: Dependencies,
    /// Files and folders of packages that are left out: absolute paths.
    #[serde(default)]
    pub drop: Vec<String>,
    /// Units that come inside packages and are enabled as their `[Install]` says.
    #[serde(default)]
    pub enable: Vec<String>,
    /// Image reference in a `.container` to where that image comes from.
    #[serde(default)]
    pub image: BTreeMap<String, Image>,
    /// How registries are reached, by `HOST` or `HOST:PORT`.
    #[serde(default)]
    pub registry: BTreeMap<String, Registry>,
    /// Path in the guest to a file or folder beside appliance.toml.
    #[serde(default)]
    pub files: BTreeMap<String, PathBuf>,
    /// Name in a `Secret=` to where its content comes from.
    #[serde(default)]
    pub secret: BTreeMap<String, Secret>,
    /// Kernel modules to load at boot, with those that they depend on, beside those that every
    /// guest has.
    #[serde(default)]
    pub modules: Vec<String>,
    /// Whether Podman's API may be offered on TCP.
    #[serde(default)]
    pub podman_api_on_tcp: OnTcp,
    /// Users with units of their own, `[[user]]`.
    #[serde(default, rename = "user")]
    pub users: Vec<User>,
    /// The virtual machine.
    #[serde(default)]
    pub vm: Vm,
    /// The root file system.
    #[serde(default)]
    pub root: Root,
    /// A disk that keeps what is written; none without this table.
    pub disk: Option<Disk>,
    /// The network device; none without this table.
    pub network: Option<Network>,
    /// Where packages come from.
    #[serde(default)]
    pub debian: Debian,
}

/// Who runs containers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Engine {
    /// crun, from a bundle that is made at build time.
    #[default]
    Crun,
    /// `podman run`.
    Podman,
}

/// Whether Podman's API may be offered on TCP, where every client has all rights of its user.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnTcp {
    /// It is refused.
    #[default]
    Refuse,
    /// It is what the person wants.
    Allow,
}

/// The virtual machine's size.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Vm {
    /// Memory in MiB, at least 128.
    pub memory: u32,
    /// Virtual processors, 1 to 64.
    pub cpus: u32,
    /// The main board.
    pub machine: Machine,
    /// Has the guest's kernel unpack itself to a random address. Without, QEMU starts the unpacked
    /// kernel, and the boot takes a quarter to a third less processor time where no KVM is. x86_64 only:
    /// Debian's arm64 kernel has nothing to unpack, and goes to a random address either way.
    pub kaslr: bool,
}

impl Default for Vm {
    fn default() -> Self {
        Self { memory: 256, cpus: 1, machine: Machine::Standard, kaslr: false }
    }
}

/// The virtual machine's main board.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Machine {
    /// QEMU's q35 on x86_64, its virt on aarch64.
    #[default]
    Standard,
    /// QEMU's microvm on x86_64, a board without a PC's old parts, whose kernel unpacks itself as with
    /// `kaslr`; on aarch64 virt, which has none.
    Microvm,
}

/// Where packages come from.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Debian {
    /// Suite of the guest.
    pub suite: String,
    /// Mirror; by default ROUSE_DEBIAN_MIRROR, else the one that the machine's apt sources name,
    /// else Debian's.
    pub mirror: Option<String>,
}

impl Default for Debian {
    fn default() -> Self {
        Self { suite: "trixie".into(), mirror: None }
    }
}

impl Config {
    /// Reads `DIR/appliance.toml`. `folder` is how the person named it.
    pub fn read(folder: &Path) -> Result<(Self, Arc<Source>), Finding> {
        let source = Arc::new(find::find(folder)?);
        Ok((Self::parse(&source)?, source))
    }

    /// Parses and checks a text. Files that it names are not looked at.
    pub fn parse(source: &Arc<Source>) -> Result<Self, Finding> {
        let config: Self =
            toml::from_str(&source.text).map_err(|error| complaint::complaint(&error, source))?;
        config.check(source)?;
        Ok(config)
    }

    /// What it names beside itself, each with its place in the file. These have to be there.
    pub fn check_paths(&self, folder: &Path, source: &Arc<Source>) -> Vec<Finding> {
        let mut findings = Vec::new();
        for (path, named) in self.paths() {
            let package = path.last() == Some(&"cargo");
            let (real, expected) = match package {
                true => (folder.join(&named).join("Cargo.toml"), "a folder with a Cargo.toml"),
                false => (folder.join(&named), "a file or folder beside appliance.toml"),
            };
            let Err(error) = std::fs::metadata(&real) else { continue };
            let message = format!("cannot read {}: {error}", real.display());
            findings.push(
                Finding::error(place(source, &path, Part::Value), message)
                    .label(format!("expected {expected}"))
                    .help(find::near(folder, &named)),
            );
        }
        findings
    }

    /// Where in the file a path of the host stands, and the path.
    fn paths(&self) -> impl Iterator<Item = (Vec<&str>, PathBuf)> {
        let files = self.files.iter().map(|(to, from)| (vec!["files", to], from.clone()));
        let images = self.image.iter().flat_map(|(name, image)| {
            let paths = image.paths().into_iter();
            paths.map(|(keys, path)| {
                (["image", name.as_str()].into_iter().chain(keys).collect(), path)
            })
        });
        files.chain(images)
    }

    fn check(&self, source: &Arc<Source>) -> Result<(), Finding> {
        let wrong = |path: &[&str], part: Part, message: String| {
            Finding::error(place(source, path, part), message)
        };
        if let Some(name) = &self.name
            && !is_name(name)
        {
            return Err(wrong(&["name"], Part::Value, format!("`{name}` cannot be a name"))
                .label("expected 1 to 32 of a-z, 0-9 and -, not - at either end")
                .help("it becomes the guest's host name"));
        }
        if !(128..=1 << 20).contains(&self.vm.memory) {
            return Err(wrong(
                &["vm", "memory"],
                Part::Key,
                format!("{} MiB is no size for a guest", self.vm.memory),
            )
            .label("expected 128 to 1048576 (MiB)")
            .help("leave the line out for the default, 256"));
        }
        if !(1..=64).contains(&self.vm.cpus) {
            return Err(wrong(
                &["vm", "cpus"],
                Part::Key,
                format!("a guest cannot have {} processors", self.vm.cpus),
            )
            .label("expected 1 to 64")
            .help("leave the line out for the default, 1"));
        }
        user::check(&self.users, source)?;
        if let Some(disk) = &self.disk {
            disk.check(&self.users, source)?;
        }
        if let Some(network) = &self.network {
            network.check(source)?;
        }
        for module in &self.modules {
            let normal = |byte: u8| byte.is_ascii_alphanumeric() || b"_-".contains(&byte);
            if module.is_empty() || !module.bytes().all(normal) {
                let message = format!("`{module}` cannot be a kernel module");
                return Err(wrong(&["modules"], Part::Value, message)
                    .label("expected names as lsmod shows them")
                    .help("no path and no .ko: `modules = [\"vhost_vsock\"]`"));
            }
        }
        if let Some(path) = self.drop.iter().find(|path| !is_guest_path(path)) {
            let message = format!("`{path}` is no path in the guest");
            return Err(wrong(&["drop", path], Part::Value, message)
                .label("expected an absolute path without `..`")
                .help("it is a path in the guest, such as `/usr/share/zoneinfo`"));
        }
        if let Some(mirror) = &self.debian.mirror
            && !["http://", "https://"].iter().any(|scheme| mirror.starts_with(scheme))
        {
            let message = format!("`{mirror}` is no mirror");
            return Err(wrong(&["debian", "mirror"], Part::Value, message)
                .label("expected a URL that begins with `http://` or `https://`")
                .help(format!("did you mean `http://{mirror}`?")));
        }
        image::check(&self.image, source)?;
        for (place_of, _) in self.paths().filter(|(place_of, _)| place_of.contains(&"files")) {
            let path = place_of.last().copied().unwrap_or_default();
            if !is_guest_path(path) {
                return Err(wrong(
                    &place_of,
                    Part::Key,
                    format!("`{path}` is no path in the guest"),
                )
                .label("expected an absolute path without `..`")
                .help("the guest's path is left of the `=`, and the host's right of it"));
            }
        }
        Ok(())
    }
}

/// Whether a text is the path of a file in the guest.
fn is_guest_path(path: &str) -> bool {
    let normal = |part| matches!(part, Component::RootDir | Component::Normal(_));
    path.starts_with('/') && Path::new(path).components().all(normal)
}

/// Whether a path that appliance.toml names lies outside the appliance's folder.
pub fn is_outside(path: &Path) -> bool {
    path.is_absolute() || path.components().any(|part| part == Component::ParentDir)
}

/// Whether a text can name an appliance and a VM: it becomes a host name and a folder.
pub fn is_name(name: &str) -> bool {
    (1..=32).contains(&name.len())
        && name
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
        && !name.starts_with('-')
        && !name.ends_with('-')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Config, String> {
        let source = Arc::new(Source { path: FILE.into(), text: text.into() });
        Config::parse(&source).map_err(|finding| finding.one_line())
    }

    #[test]
    fn an_empty_file_is_an_appliance() {
        let config = parse("").unwrap();
        assert_eq!((config.vm.memory, config.engine), (256, Engine::Crun));
        assert_eq!(config.debian.suite, "trixie");
    }

    #[test]
    fn errors_name_line_and_column() {
        let first = |text: &str| parse(text).unwrap_err();
        assert_eq!(
            first("name = \"a\"\npakages = []\n"),
            "appliance.toml:2:1: error: `pakages` is unknown in appliance.toml"
        );
        assert_eq!(
            first("[vm]\nmemory = 5\n"),
            "appliance.toml:2:1: error: 5 MiB is no size for a guest"
        );
        assert_eq!(
            first("[image.\"x/y\"]\n"),
            "appliance.toml:1:9: error: image `x/y` has no source"
        );
        assert_eq!(
            first("modules = [\"tun\", \"tun.ko\"]\n"),
            "appliance.toml:1:11: error: `tun.ko` cannot be a kernel module"
        );
        assert_eq!(
            first("drop = [\"/usr/share/doc\", \"usr/share\"]\n"),
            "appliance.toml:1:28: error: `usr/share` is no path in the guest"
        );
        assert_eq!(
            first("[debian]\nmirror = \"deb.debian.org/debian\"\n"),
            "appliance.toml:2:11: error: `deb.debian.org/debian` is no mirror"
        );
        assert_eq!(first("name = \"-\"\n"), "appliance.toml:1:9: error: `-` cannot be a name");
        assert!(first("name = \"a\n").starts_with("appliance.toml:1:"));
    }
}
