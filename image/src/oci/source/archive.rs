//! Images in files of this machine: an OCI image layout (a folder, or a tar archive of one), and
//! what `docker save` and `podman save` write.
//!
//! What is needed of them is copied into the cache, each part under the hash that it really has.

use super::manifest::{self, Descriptor, Digest, Document, Index, Manifest};
use super::tar_index::TarIndex;
use super::{Import, SourceError};
use crate::cache::{Cache, Hash};

use serde::Deserialize;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// How deep indexes may be in indexes.
const DEEPEST: usize = 4;

/// Files by their paths, wherever they are.
trait Files {
    /// A file to be read, and its size; None if it is not there.
    fn open(&self, path: &str) -> io::Result<Option<(Box<dyn Read + '_>, u64)>>;
}

struct Folder(PathBuf);

impl Files for Folder {
    fn open(&self, path: &str) -> io::Result<Option<(Box<dyn Read + '_>, u64)>> {
        match File::open(self.0.join(path)) {
            Ok(file) => {
                let size = file.metadata()?.len();
                Ok(Some((Box::new(file), size)))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }
}

impl Files for TarIndex {
    fn open(&self, path: &str) -> io::Result<Option<(Box<dyn Read + '_>, u64)>> {
        TarIndex::open(self, path)
    }
}

/// Somebody's files, with what is needed to say what is wrong with them.
struct Place<'a, F> {
    import: &'a Import<'a>,
    files: F,
    path: &'a Path,
}

/// `oci:DIR[:NAME]`
pub(super) fn layout(
    import: &Import<'_>,
    path: &Path,
    name: Option<&str>,
) -> Result<Digest, SourceError> {
    Place { import, files: Folder(path.into()), path }.take_layout(name)
}

/// `oci-archive:FILE[:NAME]`
pub(super) fn layout_archive(
    import: &Import<'_>,
    path: &Path,
    name: Option<&str>,
) -> Result<Digest, SourceError> {
    let files = TarIndex::read(import.cache, path).map_err(at(path))?;
    Place { import, files, path }.take_layout(name)
}

/// `docker-archive:FILE[:NAME]`
pub(super) fn docker_archive(
    import: &Import<'_>,
    path: &Path,
    name: Option<&str>,
) -> Result<Digest, SourceError> {
    let files = TarIndex::read(import.cache, path).map_err(at(path))?;
    Place { import, files, path }.take_docker(name)
}

impl<F: Files> Place<'_, F> {
    fn take_layout(&self, name: Option<&str>) -> Result<Digest, SourceError> {
        let what = self.path.display().to_string();
        let bytes = self.document("index.json")?;
        let mut index: Index = manifest::parse(&what, &bytes)?;
        index = index.named(&what, name)?;
        for _ in 0..DEEPEST {
            let chosen = index.select(&what, self.import.architecture)?.clone();
            self.take(&chosen)?;
            let bytes = super::read(&self.import.cache.blob_path(chosen.digest.0))?;
            match Document::parse(&what, &bytes)? {
                Document::Index(inner) => index = inner,
                Document::Manifest(manifest) => {
                    for part in std::iter::once(&manifest.config).chain(&manifest.layers) {
                        self.take(part)?;
                    }
                    return Ok(chosen.digest);
                }
            }
        }
        let message = "an index in an index in an index".into();
        Err(SourceError::Malformed { what, message })
    }

    /// Copies a part of a layout.
    fn take(&self, part: &Descriptor) -> Result<(), SourceError> {
        let expected = part.digest;
        let name = format!("blobs/sha256/{}", expected.0);
        let (hash, _) = self.copy(&name)?;
        match Digest(hash) {
            got if got != expected => {
                let what = format!("{name} of {}", self.path.display());
                Err(SourceError::WrongDigest { what, expected, got })
            }
            _ => Ok(()),
        }
    }

    fn take_docker(&self, name: Option<&str>) -> Result<Digest, SourceError> {
        #[derive(Deserialize)]
        #[serde(rename_all = "PascalCase")]
        struct Saved {
            config: String,
            #[serde(default)]
            repo_tags: Option<Vec<String>>,
            layers: Vec<String>,
        }
        let what = self.path.display().to_string();
        let all: Vec<Saved> = manifest::parse(&what, &self.document("manifest.json")?)?;
        let latest = name.map(|name| match name.rsplit('/').next() {
            Some(last) if last.contains(':') => name.to_owned(),
            _ => format!("{name}:latest"),
        });
        let tags = |saved: &Saved| saved.repo_tags.clone().unwrap_or_default();
        let called = |saved: &&Saved| latest.as_ref().is_none_or(|name| tags(saved).contains(name));
        let mut found = all.iter().filter(called);
        let (Some(saved), None) = (found.next(), found.next()) else {
            let has = all.iter().flat_map(tags).collect();
            return Err(SourceError::Which { what, has });
        };
        let config = self.copy(&saved.config)?;
        let mut layers = Vec::new();
        for layer in &saved.layers {
            layers.push(self.copy(layer)?);
        }
        let manifest = Manifest::of(config, &layers).to_json();
        let (hash, _) = self.import.cache.store_blob(&manifest)?;
        Ok(Digest(hash))
    }

    /// A small file.
    fn document(&self, name: &str) -> Result<Vec<u8>, SourceError> {
        let (file, _) = self.open(name)?;
        let mut bytes = Vec::new();
        file.take(manifest::LARGEST).read_to_end(&mut bytes).map_err(at(self.path))?;
        Ok(bytes)
    }

    /// Puts a file into the cache: its hash and size.
    fn copy(&self, name: &str) -> Result<(Hash, u64), SourceError> {
        let (mut file, size) = self.open(name)?;
        let cache: &Cache = self.import.cache;
        let mut blob = cache.write_blob()?;
        let mut buffer = vec![0; 1 << 17];
        loop {
            match file.read(&mut buffer).map_err(at(self.path))? {
                0 => break,
                read => blob.append(&buffer[..read])?,
            }
        }
        if blob.size() != size {
            let part = format!("whole {name}, it is cut short");
            return Err(SourceError::Missing { what: self.path.display().to_string(), part });
        }
        let hash = blob.hash();
        blob.finish(hash)?;
        Ok((hash, size))
    }

    fn open(&self, name: &str) -> Result<(Box<dyn Read + '_>, u64), SourceError> {
        let outside = name.starts_with('/') || name.split('/').any(|part| part == "..");
        let found = match outside {
            true => None,
            false => self.files.open(name).map_err(at(self.path))?,
        };
        found.ok_or_else(|| SourceError::Missing {
            what: self.path.display().to_string(),
            part: name.into(),
        })
    }
}

fn at(path: &Path) -> impl Fn(io::Error) -> SourceError + use<> {
    let path = path.to_owned();
    move |source| SourceError::Read { path: path.clone(), source }
}
