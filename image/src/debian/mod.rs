//! Debian's packages: found in its archive, chosen, downloaded, and unpacked without dpkg.
//!
//! ```text
//! InRelease --signature--> Release --sha256--> Packages.xz --> index --> solver --> packages
//! packages (from here on: from the lock) --sha256--> .deb --> entries
//! ```
//!
//! Trust begins with Debian's archive keys, which are compiled in, and is handed on by hashes, so
//! plain HTTP and any mirror or proxy will do. Maintainer scripts are never run: whatever they would
//! do (users, alternatives, caches) is the image builder's to do, or is not done.

pub mod architecture;
pub mod deb;
pub mod fetch;
pub mod index;
pub mod mirror;
pub mod package;
pub mod relation;
pub mod release;
pub mod repository;
pub mod signature;
pub mod solver;
pub mod tools;
pub mod unpack;
pub mod version;

pub use crate::download;
pub use architecture::Architecture;
pub use mirror::Mirror;
pub use package::{Archive, Package};
pub use repository::Debian;

use crate::cache;
#[cfg(test)]
use crate::download::server;

/// Why packages could not be found, chosen or fetched.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A download failed.
    #[error(transparent)]
    Download(#[from] download::Error),
    /// The cache failed.
    #[error(transparent)]
    Cache(#[from] cache::Error),
    /// The repository's signed list is not to be trusted.
    #[error(transparent)]
    Release(#[from] release::Error),
    /// The index of packages cannot be read.
    #[error(transparent)]
    Index(#[from] index::Error),
    /// The packages that were asked for do not go together.
    #[error(transparent)]
    Solver(#[from] solver::Error),
    /// A package cannot be read.
    #[error(transparent)]
    Deb(#[from] deb::Error),
    /// A locked package is neither in the cache, nor on the mirror, nor in Debian's snapshots.
    #[error("fetch {} {} ({}): the mirror has dropped it, and {snapshot} did not give it",
        .package.name, .package.version, .package.architecture)]
    Gone {
        /// The package.
        package: Box<Package>,
        /// The snapshot archive that was asked.
        snapshot: String,
        /// What the snapshot archive answered.
        source: Box<download::Error>,
    },
    /// A program is not in the packages that should bring it.
    #[error("find {program} in {tree}")]
    NoProgram {
        /// The program.
        program: String,
        /// Where it was looked for.
        tree: std::path::PathBuf,
    },
}

impl Error {
    /// Whether the same may work a little later.
    pub fn is_temporary(&self) -> bool {
        match self {
            Self::Download(error) => error.is_temporary(),
            Self::Cache(error) => error.is_temporary(),
            Self::Release(error) => error.is_temporary(),
            _ => false,
        }
    }

    /// One next step, if there is one to name.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Gone { .. } => Some("`rouse lock` pins the versions that the mirror has today"),
            Self::Download(download::Error::Unreachable { .. }) => {
                Some("set ROUSE_DEBIAN_MIRROR to a mirror that can be reached")
            }
            Self::Download(download::Error::NotFound { url, .. })
                if url.ends_with("/InRelease") =>
            {
                Some("the mirror has no such suite: `[debian]` in appliance.toml names it")
            }
            Self::Download(download::Error::WrongHash { .. }) => Some(
                "ROUSE_DEBIAN_MIRROR names another mirror; `rouse lock` replaces an edited lock",
            ),
            Self::Release(release::Error::Expired { .. }) => Some(
                "the mirror is behind, or an old snapshot: ROUSE_DEBIAN_CHECK_VALID_UNTIL=no accepts it",
            ),
            Self::Cache(cache::Error::Full { .. }) => {
                Some("make room, or set ROUSE_CACHE_DIR to another disk")
            }
            _ => None,
        }
    }
}
