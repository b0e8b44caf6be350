//! What a Debian package holds, in a tree.

use super::{Kind, Node, Tree, TreeError};
use crate::debian::deb;
use std::path::Path;
use std::sync::Arc;

/// Why a package's files have no place in a tree.
#[derive(Debug, thiserror::Error)]
pub enum PackageError {
    /// The package cannot be read.
    #[error(transparent)]
    Deb(#[from] deb::Error),
    /// A path is taken, or no path.
    #[error(transparent)]
    Tree(#[from] TreeError),
    /// A path is not UTF-8.
    #[error("take {0:?}: its name is not UTF-8")]
    Name(std::path::PathBuf),
    /// A hard link to something that did not come before.
    #[error("take {path}, which is a hard link to {target}, which is not there")]
    Link {
        /// The link.
        path: String,
        /// Its target.
        target: String,
    },
}

impl Tree {
    /// Puts everything in a package into the tree, with modes and owners as the package has them.
    /// `repacked` is what [`deb::repack`] made of it.
    pub fn insert_package(
        &mut self,
        repacked: &[u8],
        origin: &Arc<str>,
    ) -> Result<(), PackageError> {
        deb::repacked_entries(Path::new(&**origin), repacked, |entry| {
            let path = absolute(&entry.path)?;
            let kind = match entry.kind {
                deb::Kind::File(content) => Kind::File(content.into()),
                deb::Kind::Directory => Kind::Directory,
                deb::Kind::Symlink(target) => Kind::Symlink(text(&target)?.to_owned()),
                deb::Kind::Hardlink(target) => {
                    let target = absolute(&target)?;
                    match self.content(&target) {
                        Some(content) => Kind::File(content.clone()),
                        None => return Err(PackageError::Link { path, target }),
                    }
                }
                deb::Kind::Character { major, minor } => Kind::CharacterDevice(major, minor),
                deb::Kind::Block { major, minor } => Kind::BlockDevice(major, minor),
                deb::Kind::Fifo => Kind::Fifo,
            };
            let node = Node::new(kind, entry.mode, origin.clone()).owned_by(entry.uid, entry.gid);
            Ok(self.insert(&path, node)?)
        })
    }
}

fn text(path: &Path) -> Result<&str, PackageError> {
    path.to_str().ok_or_else(|| PackageError::Name(path.to_owned()))
}

fn absolute(path: &Path) -> Result<String, PackageError> {
    Ok(format!("/{}", text(path)?))
}
