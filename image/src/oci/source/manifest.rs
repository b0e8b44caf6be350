//! The documents of an image: index, manifest and configuration, as the OCI image specification
//! and Docker's schema 2 have them. Of each, what is needed here; the rest is skipped.

use super::SourceError;
use crate::cache::Hash;
use crate::debian::Architecture;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;

/// The largest index, manifest or configuration, in bytes; registries take no larger ones.
pub const LARGEST: u64 = 4 << 20;
/// The most layers of an image; overlayfs, which others lay them over each other with, takes 500.
const MOST_LAYERS: usize = 500;
/// What a registry is asked for.
pub const ACCEPTED: &str = "application/vnd.oci.image.index.v1+json, \
    application/vnd.oci.image.manifest.v1+json, \
    application/vnd.docker.distribution.manifest.list.v2+json, \
    application/vnd.docker.distribution.manifest.v2+json";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
/// The name of an image in the index of a layout.
const NAME: &str = "org.opencontainers.image.ref.name";

/// `sha256:` and its digits; there is no other algorithm in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Digest(pub Hash);

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", self.0)
    }
}

impl Serialize for Digest {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let hash = text.strip_prefix("sha256:").and_then(Hash::parse);
        let expected = "a digest is `sha256:` and 64 hexadecimal digits";
        hash.map(Self).ok_or_else(|| serde::de::Error::custom(expected))
    }
}

/// Points to a document or a layer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// What it is; not relied upon.
    #[serde(default)]
    pub media_type: String,
    /// Its hash.
    pub digest: Digest,
    /// In bytes.
    pub size: u64,
    /// For which machine; in an index.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
    /// Notes about it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

/// A machine, in Go's words.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Platform {
    /// `amd64`, `arm64`, ...
    pub architecture: String,
    /// `linux`, ...
    pub os: String,
}

/// An image for one machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    schema_version: u32,
    #[serde(default)]
    media_type: String,
    /// Its configuration.
    pub config: Descriptor,
    /// Its layers, the lowest first.
    pub layers: Vec<Descriptor>,
}

/// Images for several machines.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Index {
    /// Manifests, or further indexes.
    pub manifests: Vec<Descriptor>,
}

/// What a reference can lead to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Document {
    /// One image.
    Manifest(Manifest),
    /// Several.
    Index(Index),
}

impl Document {
    /// Parses what was fetched as `what`.
    pub fn parse(what: &str, bytes: &[u8]) -> Result<Self, SourceError> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Kind {
            #[serde(default)]
            schema_version: u32,
            manifests: Option<serde::de::IgnoredAny>,
        }
        let kind: Kind = parse(what, bytes)?;
        if kind.schema_version == 1 {
            return Err(SourceError::OldSchema { what: what.into() });
        }
        if kind.manifests.is_some() {
            return parse(what, bytes).map(Self::Index);
        }
        let manifest: Manifest = parse(what, bytes)?;
        if manifest.layers.len() > MOST_LAYERS {
            let message = format!("{} layers are too many", manifest.layers.len());
            return Err(SourceError::Malformed { what: what.into(), message });
        }
        Ok(Self::Manifest(manifest))
    }
}

impl Manifest {
    /// Of an image that came without one: of what it is made, first the configuration.
    pub fn of(config: (Hash, u64), layers: &[(Hash, u64)]) -> Self {
        let descriptor = |media_type: &str, (hash, size): (Hash, u64)| Descriptor {
            media_type: media_type.into(),
            digest: Digest(hash),
            size,
            platform: None,
            annotations: BTreeMap::new(),
        };
        Self {
            schema_version: 2,
            media_type: MANIFEST.into(),
            config: descriptor(CONFIG, config),
            layers: layers.iter().map(|layer| descriptor(LAYER, *layer)).collect(),
        }
    }

    /// Its text; the same for the same manifest.
    pub fn to_json(&self) -> Vec<u8> {
        // Plain data has no way to fail.
        serde_json::to_vec(self).unwrap_or_default()
    }
}

impl Index {
    /// The one for that machine; an index of one image needs not say for which.
    pub fn select(&self, what: &str, wanted: Architecture) -> Result<&Descriptor, SourceError> {
        let fits = |at: &&Descriptor| {
            let platform = at.platform.as_ref();
            platform.is_some_and(|it| it.os == "linux" && it.architecture == wanted.debian())
        };
        if let Some(found) = self.manifests.iter().find(fits) {
            return Ok(found);
        }
        if let [only] = self.manifests.as_slice()
            && only.platform.is_none()
        {
            return Ok(only);
        }
        let mut has: Vec<String> = self
            .manifests
            .iter()
            .filter_map(|at| at.platform.as_ref())
            .filter(|platform| platform.os != "unknown")
            .map(|platform| format!("{}/{}", platform.os, platform.architecture))
            .collect();
        has.sort();
        has.dedup();
        Err(SourceError::NoArchitecture { what: what.into(), wanted, has })
    }

    /// The one of that name in a layout; without a name, the only one.
    pub fn named(&self, what: &str, name: Option<&str>) -> Result<Self, SourceError> {
        let called = |at: &Descriptor| at.annotations.get(NAME).cloned();
        let manifests: Vec<Descriptor> = match name {
            Some(name) => {
                let is_it = |at: &&Descriptor| called(at).as_deref() == Some(name);
                self.manifests.iter().filter(is_it).cloned().collect()
            }
            None => self.manifests.clone(),
        };
        let names = manifests.iter().filter_map(called).collect::<std::collections::BTreeSet<_>>();
        if manifests.is_empty() || names.len() > 1 {
            let mut has: Vec<String> = self.manifests.iter().filter_map(called).collect();
            has.sort();
            return Err(SourceError::Which { what: what.into(), has });
        }
        Ok(Self { manifests })
    }
}

/// The configuration: what to run of the image.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct ImageConfig {
    /// `amd64`, `arm64`, ...
    #[serde(default)]
    pub architecture: String,
    /// `linux`, ...
    #[serde(default)]
    pub os: String,
    /// What a Containerfile says.
    #[serde(default)]
    pub config: Option<Settings>,
    /// The layers.
    pub rootfs: RootFs,
}

/// The layers as the configuration knows them.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct RootFs {
    /// The digest of each unpacked layer.
    #[serde(default)]
    pub diff_ids: Vec<String>,
}

/// `config` in the configuration. Any of it may be null.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
#[allow(missing_docs)] // the words of the specification, config.md "Properties"
pub struct Settings {
    pub user: Option<String>,
    pub exposed_ports: Option<BTreeMap<String, serde::de::IgnoredAny>>,
    pub env: Option<Vec<String>>,
    pub entrypoint: Option<Vec<String>>,
    pub cmd: Option<Vec<String>>,
    pub volumes: Option<BTreeMap<String, serde::de::IgnoredAny>>,
    pub working_dir: Option<String>,
    pub labels: Option<BTreeMap<String, String>>,
    pub stop_signal: Option<String>,
    pub healthcheck: Option<Healthcheck>,
}

/// Docker's addition to the configuration. Times in nanoseconds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
#[allow(missing_docs)] // Docker's words
pub struct Healthcheck {
    pub test: Option<Vec<String>>,
    pub interval: Option<i64>,
    pub timeout: Option<i64>,
    pub start_period: Option<i64>,
    pub start_interval: Option<i64>,
    pub retries: Option<i64>,
}

/// Parses a document; `what` is where it came from.
pub fn parse<'a, T: Deserialize<'a>>(what: &str, bytes: &'a [u8]) -> Result<T, SourceError> {
    serde_json::from_slice(bytes)
        .map_err(|error| SourceError::Malformed { what: what.into(), message: error.to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn index(platforms: &[(&str, &str)]) -> Index {
        let one = |(at, (os, architecture)): (usize, &(&str, &str))| {
            let hash = Hash::of(&[at as u8]);
            format!(
                r#"{{"digest": "sha256:{hash}", "size": {at},
                "platform": {{"os": "{os}", "architecture": "{architecture}"}}}}"#
            )
        };
        let list: Vec<String> = platforms.iter().enumerate().map(one).collect();
        let text = format!(r#"{{"schemaVersion": 2, "manifests": [{}]}}"#, list.join(","));
        match Document::parse("x", text.as_bytes()).unwrap() {
            Document::Index(index) => index,
            Document::Manifest(_) => panic!("that is an index"),
        }
    }

    #[test]
    fn the_machine_chooses_from_an_index() {
        let both = index(&[("linux", "arm64"), ("unknown", "unknown"), ("linux", "amd64")]);
        assert_eq!(both.select("x", Architecture::Amd64).unwrap().size, 2);
        assert_eq!(both.select("x", Architecture::Arm64).unwrap().size, 0);
        let other = index(&[("linux", "s390x"), ("windows", "amd64")]);
        let error = other.select("x", Architecture::Amd64).unwrap_err();
        assert!(matches!(error, SourceError::NoArchitecture { has, .. }
            if has == ["linux/s390x", "windows/amd64"]));
    }

    #[test]
    fn what_is_no_image_is_refused() {
        let parse = |text: &str| Document::parse("x", text.as_bytes()).unwrap_err();
        assert!(matches!(parse(r#"{"schemaVersion": 1}"#), SourceError::OldSchema { .. }));
        for text in [
            "",
            "[]",
            "{}",
            r#"{"schemaVersion": 2, "manifests": 3}"#,
            r#"{"config": {"digest": "sha256:12", "size": 1}, "layers": []}"#,
            r#"{"config": {"digest": "md5:12", "size": -1}, "layers": []}"#,
        ] {
            assert!(matches!(parse(text), SourceError::Malformed { .. }), "{text}");
        }
    }

    #[test]
    fn a_manifest_that_was_made_here_is_read_again() {
        let hash = Hash::of(b"x");
        let manifest = Manifest::of((hash, 7), &[(hash, 8)]);
        let read = Document::parse("x", &manifest.to_json()).unwrap();
        assert_eq!(read, Document::Manifest(manifest));
    }
}
