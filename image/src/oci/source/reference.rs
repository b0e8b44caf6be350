//! References to images in a registry: `HOST[:PORT]/PATH[:TAG][@sha256:DIGEST]`.
//!
//! A short name (`nginx`) means something else on every machine, and on some asks several
//! registries one after the other: here it is an error, with the long name as the hint.

use crate::cache::Hash;
use std::fmt;

/// The tag that is meant where none stands, as everywhere.
const LATEST: &str = "latest";
/// The longest name and tag, distribution-spec "Pull".
const LONGEST_NAME: usize = 255;
const LONGEST_TAG: usize = 128;

/// A fully qualified reference.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Reference {
    /// `HOST` or `HOST:PORT`.
    pub host: String,
    /// What the image is called there.
    pub path: String,
    /// The tag; None only beside a digest.
    pub tag: Option<String>,
    /// Exactly this manifest or index.
    pub digest: Option<Hash>,
}

/// Why a text is no such reference.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReferenceError {
    /// There is no registry in it.
    #[error("`{name}` is a short name, which does not say from which registry it comes")]
    Short {
        /// As written.
        name: String,
    },
    /// A part is not as the specification has it.
    #[error("`{part}` in `{name}` is no {what} of an image")]
    Part {
        /// As written.
        name: String,
        /// What is wrong.
        part: String,
        /// What it should be.
        what: &'static str,
    },
}

impl ReferenceError {
    /// One next step.
    pub fn hint(&self) -> String {
        match self {
            Self::Short { name } if !name.contains('/') => {
                format!("write it in full, such as `docker.io/library/{name}`")
            }
            Self::Short { name } => format!("write it in full, such as `docker.io/{name}`"),
            Self::Part { .. } => "a reference is `registry.example/name:tag`, or with \
                `@sha256:` and 64 hexadecimal digits"
                .into(),
        }
    }
}

impl Reference {
    /// Parses a reference; the registry has to stand in it.
    pub fn parse(name: &str) -> Result<Self, ReferenceError> {
        let wrong =
            |part: &str, what| ReferenceError::Part { name: name.into(), part: part.into(), what };
        let short = || ReferenceError::Short { name: name.into() };
        let (host, rest) = name.split_once('/').ok_or_else(short)?;
        if !is_host(host) {
            return Err(short());
        }
        let (rest, digest) = match rest.split_once('@') {
            None => (rest, None),
            Some((rest, digest)) => {
                let hash = digest.strip_prefix("sha256:").and_then(Hash::parse);
                (rest, Some(hash.ok_or_else(|| wrong(digest, "digest"))?))
            }
        };
        let (path, tag) = match rest.split_once(':') {
            None => (rest, None),
            Some((path, tag)) => (path, Some(tag)),
        };
        if path.len() > LONGEST_NAME || !path.split('/').all(is_component) {
            return Err(wrong(path, "name"));
        }
        if let Some(tag) = tag.filter(|tag| !is_tag(tag)) {
            return Err(wrong(tag, "tag"));
        }
        let tag = match (tag, digest) {
            (None, None) => Some(LATEST),
            (tag, _) => tag,
        };
        let (host, path) = (host.into(), path.into());
        Ok(Self { host, path, tag: tag.map(str::to_owned), digest })
    }

    /// What a registry's API is asked for: the digest, else the tag.
    pub fn version(&self) -> String {
        match (&self.digest, &self.tag) {
            (Some(digest), _) => format!("sha256:{digest}"),
            (None, tag) => tag.clone().unwrap_or_else(|| LATEST.into()),
        }
    }

    /// The same image at exactly this manifest.
    pub fn at(&self, digest: Hash) -> Self {
        Self { tag: None, digest: Some(digest), ..self.clone() }
    }

    /// Whether the registry is this machine itself.
    pub fn is_loopback(&self) -> bool {
        let host = match self.host.strip_prefix('[') {
            Some(rest) => rest.split(']').next().unwrap_or_default(),
            None => self.host.split(':').next().unwrap_or_default(),
        };
        let address: Option<std::net::IpAddr> = host.parse().ok();
        host == "localhost" || address.is_some_and(|address| address.is_loopback())
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.host, self.path)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        match &self.digest {
            Some(digest) => write!(f, "@sha256:{digest}"),
            None => Ok(()),
        }
    }
}

/// A first part is a host if it has a dot or a port, or is `localhost`; else it is a name.
fn is_host(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._:[]".contains(&byte);
    let (name, port) = match text.strip_prefix('[') {
        Some(_) => text.rsplit_once(']').map_or((text, ""), |(name, port)| (name, port)),
        None => text.split_once(':').map_or((text, ""), |(name, port)| (name, port)),
    };
    let port = port.strip_prefix(':').unwrap_or(port);
    let is_port = port.is_empty() || port.parse::<u16>().is_ok();
    !name.is_empty()
        && is_port
        && text.bytes().all(plain)
        && (text.contains(['.', ':']) || text == "localhost")
}

/// `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*`
fn is_component(text: &str) -> bool {
    let alphanumeric = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let ends = text.bytes().next().is_some_and(alphanumeric)
        && text.bytes().next_back().is_some_and(alphanumeric);
    ends && text.bytes().all(|byte| alphanumeric(byte) || b"._-".contains(&byte))
        && !text.contains("..")
        && !text.contains("___")
}

fn is_tag(text: &str) -> bool {
    let first = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    text.len() <= LONGEST_TAG
        && text.bytes().next().is_some_and(first)
        && text.bytes().all(|byte| first(byte) || b".-".contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reference_names_its_registry() {
        let digest = "c".repeat(64);
        let full = format!("127.0.0.1:5000/a/b_c:v1.0@sha256:{digest}");
        for text in ["ghcr.io/eriksjolund/echo:latest", "localhost/x:1", "[::1]:5000/x:y", &full] {
            assert_eq!(Reference::parse(text).unwrap().to_string(), text);
        }
        let reference = Reference::parse("quay.io/a").unwrap();
        assert_eq!((reference.version().as_str(), reference.path.as_str()), ("latest", "a"));
        let exact = Reference::parse(&full).unwrap();
        assert_eq!(exact.version(), format!("sha256:{digest}"));
        let loopback = |text: &str| Reference::parse(text).unwrap().is_loopback();
        assert!(loopback(&full) && loopback("localhost:1/x") && loopback("[::1]:5000/x"));
        assert!(!loopback("127.0.0.1.example/x") && !loopback("quay.io/x"));
    }

    #[test]
    fn short_and_wrong_names_are_refused_with_a_next_step() {
        let hint = |text: &str| Reference::parse(text).unwrap_err().hint();
        assert!(hint("nginx").contains("docker.io/library/nginx"));
        assert!(hint("nginx:1.25").contains("docker.io/library/nginx:1.25"));
        assert!(hint("fedora/httpd").contains("docker.io/fedora/httpd"));
        for text in [
            "quay.io/A",
            "quay.io/a:",
            "quay.io/a@sha256:0",
            "quay.io/",
            "quay.io/a/../b",
            "quay.io//a",
            "quay.io/a:b:c",
            "quay.io/a?x=y",
        ] {
            let error = Reference::parse(text).unwrap_err();
            assert!(matches!(error, ReferenceError::Part { .. }), "{text}: {error}");
        }
    }
}
