//! `appliance.lock`: exactly which Debian packages and container images an appliance is made of.
//!
//! A section for each architecture that was locked. It names what was asked for (the roots), so
//! that a config which asks for something else is noticed without a look at any index; and each
//! package's version, path and hash, so that a build needs no index at all. It does not name a
//! mirror. A container image is named by where it comes from, and the digest of its manifest for
//! that architecture.

mod image;

pub use image::{AskedImage, LockedImage};

use crate::cache::Hash;
use crate::debian::{self, Architecture, Debian, Package};
use crate::finding::{Source, Span};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Its name, in an appliance's folder.
pub const FILE: &str = "appliance.lock";
/// The format that is written and read.
const VERSION: u32 = 1;
const HEADER: &str = "\
# Written by `rouse lock` from appliance.toml: which packages and images the appliance is made of.
# Keep it beside appliance.toml; with the same lock, every build gives the same bytes.
";

/// Why a lock cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The system refused.
    #[error("use {path}")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It is not as `rouse lock` writes it.
    #[error("read {path}:{line}: {message}")]
    Malformed {
        /// The file.
        path: PathBuf,
        /// Where, from 1.
        line: usize,
        /// The same, with the text around it.
        span: Span,
        /// What is wrong.
        message: String,
    },
    /// It was written by another version of rouse.
    #[error("read {path}: it has format {got}, this rouse reads {VERSION}")]
    Version {
        /// The file.
        path: PathBuf,
        /// Its format.
        got: u32,
    },
}

/// The whole file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lock {
    version: u32,
    /// Debian's suite.
    pub suite: String,
    // A map of sections would lose where in the file an error is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    amd64: Option<Section>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    arm64: Option<Section>,
}

/// What is locked for one architecture.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Section {
    /// The packages that were asked for, sorted.
    pub roots: Vec<String>,
    /// The packages of which only parts are taken, sorted: see [`Wanted::parts`].
    pub part_roots: Vec<String>,
    /// The kernel package that was asked for: `linux-image-cloud-amd64`.
    pub kernel_root: String,
    /// The package that this stood for.
    pub kernel: Package,
    /// The roots and all that they depend on, sorted by name.
    #[serde(rename = "package", default)]
    pub packages: Vec<Package>,
    /// The same for the parts. A package can be in both lists.
    #[serde(rename = "part", default)]
    pub parts: Vec<Package>,
    /// The container images, sorted by reference.
    #[serde(rename = "image", default, skip_serializing_if = "Vec::is_empty")]
    pub images: Vec<LockedImage>,
}

/// Why a lock does not do for a config: run `rouse lock`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Stale {
    /// It has no section for the architecture.
    #[error("the lock does not cover {0}")]
    Architecture(Architecture),
    /// It is for another suite.
    #[error("the lock is for {locked}, the config asks for {asked}")]
    Suite {
        /// The lock's.
        locked: String,
        /// The config's.
        asked: String,
    },
    /// The config asks for a package that it does not know.
    #[error("the lock does not cover package {0}")]
    Package(String),
    /// It has a package that the config no longer asks for.
    #[error("the lock has package {0}, which nothing asks for any more")]
    Superfluous(String),
    /// It does not know an image, or from elsewhere, or what it is built from has changed.
    #[error("the lock does not cover image {0}")]
    Image(String),
    /// It has an image that the config no longer asks for.
    #[error("the lock has image {0}, which nothing asks for any more")]
    SuperfluousImage(String),
    /// It has another kernel.
    #[error("the lock is for kernel {locked}, the config asks for {asked}")]
    Kernel {
        /// The lock's.
        locked: String,
        /// The config's.
        asked: String,
    },
}

/// What a config asks for, for one architecture.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted<'a> {
    /// Debian's suite.
    pub suite: &'a str,
    /// For which machine.
    pub architecture: Architecture,
    /// Packages, in any order, also more than once.
    pub roots: &'a [String],
    /// Packages of which the image takes what some programs need, and no more.
    pub parts: Vec<&'a str>,
    /// Packages of which the image takes a file or two: without what they depend on.
    pub alone: &'a [&'a str],
    /// The kernel's metapackage: see [`kernel_root`].
    pub kernel: &'a str,
    /// Container images, sorted by reference.
    pub images: &'a [AskedImage],
}

/// The kernel that is used when nothing else is asked for: Debian's for virtual machines.
pub fn kernel_root(architecture: Architecture) -> &'static str {
    match architecture {
        Architecture::Amd64 => "linux-image-cloud-amd64",
        Architecture::Arm64 => "linux-image-cloud-arm64",
    }
}

impl Wanted<'_> {
    fn sorted(&self) -> Vec<String> {
        let mut roots = self.roots.to_vec();
        roots.sort();
        roots.dedup();
        roots
    }

    fn sorted_parts(&self) -> Vec<String> {
        let all = self.parts.iter().chain(self.alone);
        let mut parts: Vec<String> = all.map(ToString::to_string).collect();
        parts.sort();
        parts.dedup();
        parts
    }

    /// Resolves it as the mirror has it today; but for the images, which are for the caller to
    /// add.
    pub fn resolve(&self, debian: &Debian) -> Result<Section, debian::Error> {
        let roots = self.sorted();
        let packages = debian.resolve(self.suite, self.architecture, &roots)?;
        let part_roots = self.sorted_parts();
        let mut parts = debian.resolve(self.suite, self.architecture, &self.parts)?;
        for name in self.alone {
            parts.push(debian.resolve_alone(self.suite, self.architecture, name)?);
        }
        parts.sort();
        let kernel = debian.resolve_kernel(self.suite, self.architecture, self.kernel)?;
        let kernel_root = self.kernel.to_owned();
        let images = Vec::new();
        Ok(Section { roots, part_roots, kernel_root, kernel, packages, parts, images })
    }
}

impl Lock {
    /// With no section yet.
    pub fn new(suite: &str) -> Self {
        Self { version: VERSION, suite: suite.to_owned(), amd64: None, arm64: None }
    }

    /// Reads a lock; None if there is none.
    pub fn read(path: &Path) -> Result<Option<Self>, Error> {
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(Error::Io { path: path.to_owned(), source }),
        };
        Self::parse(path, &text).map(Some)
    }

    fn parse(path: &Path, text: &str) -> Result<Self, Error> {
        /// Read first, since another format may have anything else in it.
        #[derive(Deserialize)]
        struct Format {
            version: u32,
        }
        let malformed = |error: toml::de::Error| {
            let source = Arc::new(Source { path: path.display().to_string(), text: text.into() });
            let span = Span { source, range: error.span().unwrap_or(0..0) };
            let (line, _) = span.line_column();
            let (path, message) = (path.to_owned(), error.message().to_owned());
            Error::Malformed { path, line, span, message }
        };
        let format: Format = toml::from_str(text).map_err(malformed)?;
        if format.version != VERSION {
            return Err(Error::Version { path: path.to_owned(), got: format.version });
        }
        toml::from_str(text).map_err(malformed)
    }

    /// Replaces the file, whole or not at all.
    pub fn write(&self, path: &Path) -> Result<(), Error> {
        let failed = |source| Error::Io { path: path.to_owned(), source };
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        let folder = folder.unwrap_or(Path::new("."));
        let mut builder = tempfile::Builder::new();
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o644);
        let mut file = builder
            .prefix(".appliance.lock")
            .permissions(mode)
            .tempfile_in(folder)
            .map_err(failed)?;
        file.write_all(self.text().as_bytes()).map_err(failed)?;
        file.persist(path).map_err(|error| failed(error.error))?;
        Ok(())
    }

    /// The file's text.
    pub fn text(&self) -> String {
        let body = toml::to_string(self).unwrap_or_default();
        format!("{HEADER}{body}")
    }

    /// Puts in, or replaces, what is locked for an architecture.
    pub fn insert(&mut self, architecture: Architecture, section: Section) {
        let place = match architecture {
            Architecture::Amd64 => &mut self.amd64,
            Architecture::Arm64 => &mut self.arm64,
        };
        *place = Some(section);
    }

    /// Which architectures are locked.
    pub fn architectures(&self) -> impl Iterator<Item = Architecture> + '_ {
        Architecture::ALL.into_iter().filter(|at| self.section(*at).is_some())
    }

    /// What is locked for an architecture, whatever the config asks for.
    pub fn section(&self, architecture: Architecture) -> Option<&Section> {
        match architecture {
            Architecture::Amd64 => self.amd64.as_ref(),
            Architecture::Arm64 => self.arm64.as_ref(),
        }
    }

    /// What is locked for this config, if the lock does for it.
    pub fn covers(&self, wanted: &Wanted<'_>) -> Result<&Section, Stale> {
        if self.suite != wanted.suite {
            let (locked, asked) = (self.suite.clone(), wanted.suite.to_owned());
            return Err(Stale::Suite { locked, asked });
        }
        let section = self.section(wanted.architecture);
        let section = section.ok_or(Stale::Architecture(wanted.architecture))?;
        if section.kernel_root != wanted.kernel {
            let (locked, asked) = (section.kernel_root.clone(), wanted.kernel.to_owned());
            return Err(Stale::Kernel { locked, asked });
        }
        let pairs =
            [(wanted.sorted(), &section.roots), (wanted.sorted_parts(), &section.part_roots)];
        for (asked, locked) in pairs {
            if let Some(root) = asked.iter().find(|root| !locked.contains(root)) {
                return Err(Stale::Package(root.clone()));
            }
            if let Some(root) = locked.iter().find(|root| !asked.contains(root)) {
                return Err(Stale::Superfluous(root.clone()));
            }
        }
        image::cover(&section.images, wanted.images)?;
        Ok(section)
    }
}

impl Section {
    /// One hash of all that is locked, the kernel included: the key of what is made of it.
    pub fn hash(&self) -> Hash {
        let mut list = String::new();
        for (kind, packages) in [
            ("kernel", std::slice::from_ref(&self.kernel)),
            ("package", &self.packages),
            ("part", &self.parts),
        ] {
            for package in packages {
                list.push_str(&format!("{kind} {}\n", package.sha256));
            }
        }
        self.images.iter().for_each(|image| image.list(&mut list));
        Hash::of(list.as_bytes())
    }

    /// What is another version than before, or new, or gone: a line for each package, sorted.
    pub fn changes_since(&self, before: &Self) -> Vec<String> {
        let versions = |section: &Self| -> BTreeMap<String, String> {
            std::iter::once(&section.kernel)
                .chain(&section.packages)
                .chain(&section.parts)
                .map(|package| (package.name.clone(), package.version.clone()))
                .chain(section.images.iter().flat_map(LockedImage::versions))
                .collect()
        };
        let (old, new) = (versions(before), versions(self));
        let names: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
        let change = |name: &String| match (old.get(name), new.get(name)) {
            (Some(old), Some(new)) if old != new => Some(format!("{name} {old} -> {new}")),
            (None, Some(new)) => Some(format!("{name} {new} is new")),
            (Some(old), None) => Some(format!("{name} {old} is gone")),
            _ => None,
        };
        names.into_iter().filter_map(change).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::debian::Archive;

    fn package(name: &str) -> Package {
        Package {
            name: name.into(),
            version: "1:2-3".into(),
            architecture: "amd64".into(),
            archive: Archive::DebianSecurity,
            path: format!("pool/{name}.deb"),
            size: 7,
            sha256: Hash::of(name.as_bytes()),
        }
    }

    fn lock() -> Lock {
        let section = Section {
            roots: vec!["crun".into(), "socat".into()],
            part_roots: vec!["crun".into()],
            kernel_root: "linux-image-cloud-amd64".into(),
            kernel: package("linux-image-6"),
            packages: vec![package("crun"), package("libc6"), package("socat")],
            parts: vec![package("crun")],
            images: vec![],
        };
        let mut lock = Lock::new("trixie");
        lock.insert(Architecture::Amd64, section.clone());
        lock.insert(Architecture::Arm64, Section { packages: Vec::new(), ..section });
        lock
    }

    fn wanted<'a>(roots: &'a [String]) -> Wanted<'a> {
        Wanted {
            suite: "trixie",
            architecture: Architecture::Amd64,
            roots,
            parts: vec!["crun"],
            alone: &[],
            kernel: "linux-image-cloud-amd64",
            images: &[],
        }
    }

    #[test]
    fn a_lock_comes_back_as_it_was_written() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(FILE);
        assert_eq!(Lock::read(&path).unwrap(), None);
        lock().write(&path).unwrap();
        assert_eq!(Lock::read(&path).unwrap(), Some(lock()));
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.starts_with("# Written by `rouse lock`"), "{text}");
        assert!(text.contains("[amd64.kernel]") && text.contains("[[amd64.package]]"), "{text}");
        assert!(text.contains("archive = \"debian-security\""), "{text}");
        lock().write(&path).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_lock_covers_what_it_was_made_for_and_nothing_else() {
        let lock = lock();
        let roots = |names: &[&str]| names.iter().map(ToString::to_string).collect::<Vec<_>>();
        let same = roots(&["socat", "crun", "socat"]);
        assert!(lock.covers(&wanted(&same)).is_ok());
        let more = roots(&["crun", "podman", "socat"]);
        assert_eq!(lock.covers(&wanted(&more)), Err(Stale::Package("podman".into())));
        let less = roots(&["crun"]);
        assert_eq!(lock.covers(&wanted(&less)), Err(Stale::Superfluous("socat".into())));
        let other = Wanted { suite: "sid", ..wanted(&same) };
        assert!(matches!(lock.covers(&other), Err(Stale::Suite { .. })));
        let other = Wanted { kernel: "linux-image-amd64", ..wanted(&same) };
        assert!(matches!(lock.covers(&other), Err(Stale::Kernel { .. })));
        let none = Lock::new("trixie");
        assert_eq!(none.covers(&wanted(&same)), Err(Stale::Architecture(Architecture::Amd64)));
    }

    #[test]
    fn a_lock_that_was_harmed_or_is_newer_is_refused() {
        let path = Path::new(FILE);
        let text = lock().text();
        let newer = text.replace("version = 1\n", "version = 2\nnew = 1\n");
        assert!(matches!(Lock::parse(path, &newer), Err(Error::Version { got: 2, .. })));
        let odd = text.replacen("size = 7", "size = \"seven\"", 1);
        let line = odd.lines().position(|line| line.contains("seven")).unwrap() + 1;
        assert!(
            matches!(Lock::parse(path, &odd), Err(Error::Malformed { line: at, .. }) if at == line)
        );
        assert!(matches!(Lock::parse(path, "= ="), Err(Error::Malformed { line: 1, .. })));
    }
}
