//! Where container images come from: registries, files of this machine, other programs' stores.
//!
//! ```text
//! from, containerfile, Image= --resolve--> digest of a manifest --> appliance.lock
//! digest --fetch--> manifest, configuration, layers (cache, by hash) --unpack--> ContainerImage
//! ```
//!
//! Whatever an image comes from, it becomes a manifest with a configuration and layers in the
//! cache, and is known by that manifest's digest.

mod apply;
mod archive;
mod auth;
mod challenge;
mod error;
mod extended;
mod host;
pub mod layer;
pub mod manifest;
pub mod reference;
mod registry;
mod tar_index;
pub mod transport;
mod unpack;

pub use error::SourceError;
pub use manifest::Digest;
pub use reference::Reference;
pub use registry::Scheme;
pub use transport::Transport;
pub use unpack::Layers;

use crate::cache::Cache;
use crate::debian::Architecture;
use crate::download::Client;
use crate::terminal::{Measure, Task};
use manifest::{Document, ImageConfig, Manifest};
use registry::Registry;
use std::fmt;
use std::path::{Path, PathBuf};

/// Where an image comes from. Paths are complete here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// `from`, or an `Image=` that names a registry.
    From(Transport),
    /// `containerfile`, or a `.build`.
    Containerfile {
        /// The file.
        file: PathBuf,
        /// The folder that its COPY copies from.
        context: PathBuf,
        /// What the builder is told besides.
        options: Vec<String>,
    },
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::From(transport) => write!(f, "{transport}"),
            Self::Containerfile { file, .. } => write!(f, "{}", file.display()),
        }
    }
}

/// What it takes to bring an image into the cache.
pub struct Import<'a> {
    /// The cache.
    pub cache: &'a Cache,
    /// The guest's machine.
    pub architecture: Architecture,
    /// Makes requests.
    pub client: &'a Client,
    /// How a registry is reached.
    pub scheme: &'a dyn Fn(&Reference) -> Scheme,
}

/// An image in the cache, not unpacked.
#[derive(Debug, Clone, PartialEq)]
pub struct Stored {
    /// Its manifest's digest.
    pub digest: Digest,
    /// Its manifest.
    pub manifest: Manifest,
    /// Its configuration.
    pub config: ImageConfig,
    /// The files of its layers, the lowest first.
    pub layers: Vec<PathBuf>,
}

impl Import<'_> {
    /// What the image is today.
    pub fn resolve(&self, origin: &Origin) -> Result<Digest, SourceError> {
        match origin {
            Origin::From(Transport::Registry(reference)) => {
                let scheme = (self.scheme)(reference);
                Registry::new(self.cache, self.client, reference, scheme)?
                    .resolve(self.architecture)
            }
            Origin::From(Transport::Layout(path, name)) => {
                archive::layout(self, path, name.as_deref())
            }
            Origin::From(Transport::LayoutArchive(path, name)) => {
                archive::layout_archive(self, path, name.as_deref())
            }
            Origin::From(Transport::DockerArchive(path, name)) => {
                archive::docker_archive(self, path, name.as_deref())
            }
            Origin::From(Transport::Storage(name)) => host::storage(self, name),
            Origin::Containerfile { file, context, options } => {
                host::containerfile(self, file, context, options)
            }
        }
    }

    /// Brings the image of that digest into the cache, if it is not there.
    pub fn fetch(&self, origin: &Origin, locked: Digest) -> Result<Stored, SourceError> {
        if let Origin::From(Transport::Registry(reference)) = origin {
            return self.pull(reference, locked);
        }
        // Files are looked at each time: they may have changed without anybody being told.
        let is_file = matches!(origin, Origin::From(transport) if transport.path().is_some());
        if !is_file && let Some(stored) = self.stored(&origin.to_string(), locked)? {
            return Ok(stored);
        }
        let got = self.resolve(origin)?;
        let what = origin.to_string();
        if got != locked {
            return Err(SourceError::Changed { what, got, locked });
        }
        let missing = || SourceError::Missing { what: what.clone(), part: got.to_string() };
        self.stored(&what, locked)?.ok_or_else(missing)
    }

    fn pull(&self, reference: &Reference, locked: Digest) -> Result<Stored, SourceError> {
        let what = reference.to_string();
        if let Some(stored) = self.stored(&what, locked)? {
            return Ok(stored);
        }
        let scheme = (self.scheme)(reference);
        let registry = Registry::new(self.cache, self.client, reference, scheme)?;
        let manifest = registry.manifest(locked)?;
        let parts = || std::iter::once(&manifest.config).chain(&manifest.layers);
        let bytes = parts().map(|part| part.size).sum();
        let task = Task::begin(format!("pulling {reference}"), Measure::Bytes, bytes);
        for part in parts() {
            registry.blob(part.digest, part.size, &task)?;
        }
        let missing = || SourceError::Missing { what: what.clone(), part: locked.to_string() };
        self.stored(&what, locked)?.ok_or_else(missing)
    }

    /// The image, if all of it is in the cache and unharmed.
    fn stored(&self, what: &str, digest: Digest) -> Result<Option<Stored>, SourceError> {
        let Some(path) = self.cache.blob(digest.0)? else { return Ok(None) };
        let bytes = read(&path)?;
        let Document::Manifest(manifest) = Document::parse(what, &bytes)? else { return Ok(None) };
        let Some(config) = self.cache.blob(manifest.config.digest.0)? else { return Ok(None) };
        let config: ImageConfig = manifest::parse(what, &read(&config)?)?;
        let mut layers = Vec::new();
        for layer in &manifest.layers {
            let Some(path) = self.cache.blob(layer.digest.0)? else { return Ok(None) };
            layers.push(path);
        }
        Ok(Some(Stored { digest, manifest, config, layers }))
    }
}

/// A file of the cache, or one that another program wrote.
fn read(path: &Path) -> Result<Vec<u8>, SourceError> {
    std::fs::read(path).map_err(|source| SourceError::Read { path: path.into(), source })
}
