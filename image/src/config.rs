//! `appliance.toml`: what the units do not say.

use crate::finding::{Finding, Source, Span};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
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
    /// Units that come inside packages and are enabled as their `[Install]` says.
    #[serde(default)]
    pub enable: Vec<String>,
    /// Image reference in a `.container` to where that image comes from.
    #[serde(default)]
    pub image: BTreeMap<String, Image>,
    /// Path in the guest to a file or folder beside appliance.toml.
    #[serde(default)]
    pub files: BTreeMap<String, PathBuf>,
    /// The virtual machine.
    #[serde(default)]
    pub vm: Vm,
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

/// A container image that is made at build time. Exactly one of `cargo` and `files` is given.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Image {
    /// Folder of a Cargo package with one binary: it is compiled static for the guest's
    /// architecture, and becomes `/NAME` in an otherwise empty image, and the entrypoint.
    pub cargo: Option<PathBuf>,
    /// Path in the image to a file or folder beside appliance.toml.
    #[serde(default)]
    pub files: BTreeMap<String, PathBuf>,
    /// What the container executes.
    pub entrypoint: Option<Vec<String>>,
    /// Its arguments.
    #[serde(default)]
    pub command: Vec<String>,
    /// `NAME=value`.
    #[serde(default)]
    pub environment: Vec<String>,
    /// Who it runs as, `uid[:gid]`.
    pub user: Option<String>,
    /// Where it runs.
    pub working_directory: Option<String>,
}

/// The virtual machine's size.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Vm {
    /// Memory in MiB, at least 128.
    pub memory: u32,
    /// Virtual processors, 1 to 64.
    pub cpus: u32,
}

impl Default for Vm {
    fn default() -> Self {
        Self { memory: 256, cpus: 1 }
    }
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
    /// Reads `DIR/appliance.toml`. `path` is how the person named the folder.
    pub fn read(folder: &Path) -> Result<(Self, Arc<Source>), Finding> {
        let path = folder.join(FILE);
        let shown = path.display().to_string();
        let text = std::fs::read_to_string(&path).map_err(|error| Finding {
            severity: crate::finding::Severity::Error,
            span: None,
            message: format!("failed to read {shown}: {error}"),
            label: String::new(),
            help: Some("an appliance is a folder with an appliance.toml and units".into()),
        })?;
        let source = Arc::new(Source { path: shown, text });
        let config = Self::parse(&source)?;
        Ok((config, source))
    }

    /// Parses and checks a text.
    pub fn parse(source: &Arc<Source>) -> Result<Self, Finding> {
        let config: Self = toml::from_str(&source.text).map_err(|error| {
            let range = error.span().unwrap_or(0..0);
            Finding::error(Span { source: source.clone(), range }, error.message().to_owned())
        })?;
        Ok(config)
    }
}
