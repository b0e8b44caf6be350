//! `from` in appliance.toml: where an image lies, in the words of containers-transports(5).

use super::reference::{Reference, ReferenceError};
use std::fmt;
use std::path::{Path, PathBuf};

/// What can stand before the colon.
const TRANSPORTS: &str = "docker://, oci:, oci-archive:, docker-archive: or containers-storage:";

/// Where an image lies. Paths are relative to the appliance's folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Transport {
    /// `docker://REFERENCE`: a registry.
    Registry(Reference),
    /// `oci:DIR[:NAME]`: an OCI image layout, and which of its images.
    Layout(PathBuf, Option<String>),
    /// `oci-archive:FILE[:NAME]`: the same in a tar archive.
    LayoutArchive(PathBuf, Option<String>),
    /// `docker-archive:FILE[:NAME]`: what `docker save` writes.
    DockerArchive(PathBuf, Option<String>),
    /// `containers-storage:NAME`: what Podman, Buildah and CRI-O have on this machine.
    Storage(String),
}

/// Why `from` says nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TransportError {
    /// There is no such transport.
    #[error("`{text}` does not say where the image is")]
    Unknown {
        /// As written.
        text: String,
    },
    /// It is no reference.
    #[error(transparent)]
    Reference(#[from] ReferenceError),
}

impl TransportError {
    /// One next step.
    pub fn hint(&self) -> String {
        match self {
            Self::Unknown { text } if Reference::parse(text).is_ok() => {
                format!("an image of a registry is `docker://{text}`")
            }
            Self::Unknown { text } if text.starts_with("docker-daemon:") => {
                "`docker save -o FILE IMAGE` writes what `docker-archive:FILE` reads".into()
            }
            Self::Unknown { .. } => format!("it begins with {TRANSPORTS}"),
            Self::Reference(error) => error.hint(),
        }
    }
}

impl Transport {
    /// Parses `from`.
    pub fn parse(text: &str) -> Result<Self, TransportError> {
        let unknown = || TransportError::Unknown { text: text.into() };
        if let Some(reference) = text.strip_prefix("docker://") {
            return Ok(Self::Registry(Reference::parse(reference)?));
        }
        let (transport, rest) = text.split_once(':').ok_or_else(unknown)?;
        if rest.is_empty() {
            return Err(unknown());
        }
        let place = || match rest.split_once(':') {
            Some((path, name)) => (PathBuf::from(path), Some(name.to_owned())),
            None => (PathBuf::from(rest), None),
        };
        let (path, name) = place();
        match transport {
            "oci" => Ok(Self::Layout(path, name)),
            "oci-archive" => Ok(Self::LayoutArchive(path, name)),
            "docker-archive" => Ok(Self::DockerArchive(path, name)),
            "containers-storage" => Ok(Self::Storage(rest.into())),
            _ => Err(unknown()),
        }
    }

    /// The same with paths that are complete.
    pub fn below(self, folder: &Path) -> Self {
        match self {
            Self::Layout(path, name) => Self::Layout(folder.join(path), name),
            Self::LayoutArchive(path, name) => Self::LayoutArchive(folder.join(path), name),
            Self::DockerArchive(path, name) => Self::DockerArchive(folder.join(path), name),
            other => other,
        }
    }

    /// The file or folder of the host that it names.
    pub fn path(&self) -> Option<&PathBuf> {
        match self {
            Self::Layout(path, _) | Self::LayoutArchive(path, _) | Self::DockerArchive(path, _) => {
                Some(path)
            }
            Self::Registry(_) | Self::Storage(_) => None,
        }
    }
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (transport, path, name) = match self {
            Self::Registry(reference) => return write!(f, "docker://{reference}"),
            Self::Storage(name) => return write!(f, "containers-storage:{name}"),
            Self::Layout(path, name) => ("oci", path, name),
            Self::LayoutArchive(path, name) => ("oci-archive", path, name),
            Self::DockerArchive(path, name) => ("docker-archive", path, name),
        };
        write!(f, "{transport}:{}", path.display())?;
        name.iter().try_for_each(|name| write!(f, ":{name}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transports_are_those_of_skopeo() {
        for text in [
            "docker://quay.io/a/b:1",
            "oci:image",
            "oci:image:v1",
            "oci-archive:../image.tar",
            "docker-archive:image.tar:localhost/a:1",
            "containers-storage:localhost/a:1",
        ] {
            assert_eq!(Transport::parse(text).unwrap().to_string(), text);
        }
        let hint = |text: &str| Transport::parse(text).unwrap_err().hint();
        assert!(hint("quay.io/a").contains("docker://quay.io/a"));
        assert!(hint("docker-daemon:a").contains("docker save"));
        assert!(hint("docker://nginx").contains("docker.io/library/nginx"));
        assert!(hint("oci:").contains("oci-archive:"));
    }
}
