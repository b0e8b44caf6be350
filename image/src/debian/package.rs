//! A package as it is locked: exactly one file of Debian's archive.

use crate::cache::Hash;
use serde::{Deserialize, Serialize};

/// A binary package, chosen.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Package {
    /// Its name: `crun`.
    pub name: String,
    /// Its version: `1.21-1`.
    pub version: String,
    /// Its architecture by Debian's name, or `all`.
    pub architecture: String,
    /// Which of Debian's archives has it.
    pub archive: Archive,
    /// Its path in the archive: `pool/main/c/crun/crun_1.21-1_amd64.deb`.
    pub path: String,
    /// Its size in bytes.
    pub size: u64,
    /// The hash of its file.
    pub sha256: Hash,
}

impl std::fmt::Display for Package {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.name, self.version)
    }
}

/// One of Debian's archives: each has a pool of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Archive {
    /// The main one.
    Debian,
    /// Security updates.
    DebianSecurity,
}
