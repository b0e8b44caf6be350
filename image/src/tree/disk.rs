//! Takes files and folders of the host into a tree.

use super::{Node, Tree, TreeError};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use thiserror::Error;

/// Why a file of the host cannot be taken.
#[derive(Debug, Error)]
pub enum DiskError {
    /// It cannot be read.
    #[error("read {}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A socket, a device, or a name that is not UTF-8.
    #[error("take {} into the image: it is no file, folder or symlink with a name in UTF-8", path.display())]
    Strange {
        /// Which.
        path: PathBuf,
    },
    /// The tree does not take it.
    #[error(transparent)]
    Tree(#[from] TreeError),
}

impl Tree {
    /// Puts a file, or a folder with all that is in it, at a path. Of the mode only "executable
    /// by its owner" is kept, and everything is root's, so that neither who checked the files
    /// out nor their umask shows in the image. Files that are there already are replaced.
    pub fn insert_from_disk(
        &mut self,
        path: &str,
        from: &Path,
        origin: &Arc<str>,
    ) -> Result<(), DiskError> {
        // The first may be a symlink to what is meant; those inside stay what they are.
        let metadata = std::fs::metadata(from).map_err(at(from))?;
        self.insert_entry(path, from, &metadata, origin)
    }

    fn insert_entry(
        &mut self,
        path: &str,
        from: &Path,
        metadata: &std::fs::Metadata,
        origin: &Arc<str>,
    ) -> Result<(), DiskError> {
        let strange = || DiskError::Strange { path: from.into() };
        let executable = metadata.permissions().mode() & 0o100 != 0;
        let mode = if executable { 0o755 } else { 0o644 };
        if metadata.is_file() {
            let content = std::fs::read(from).map_err(at(from))?;
            self.replace(path, Node::file(content, mode, origin.clone()))?;
            return Ok(());
        }
        if metadata.is_symlink() {
            let target = std::fs::read_link(from).map_err(at(from))?;
            let target = target.into_os_string().into_string().map_err(|_| strange())?;
            self.replace(path, Node::symlink(target, origin.clone()))?;
            return Ok(());
        }
        if !metadata.is_dir() {
            return Err(strange());
        }
        self.insert(path, Node::directory(0o755, origin.clone()))?;
        for entry in std::fs::read_dir(from).map_err(at(from))? {
            let entry = entry.map_err(at(from))?;
            let name = entry.file_name().into_string();
            let inside = entry.path();
            let name = name.map_err(|_| DiskError::Strange { path: inside.clone() })?;
            let metadata = entry.metadata().map_err(at(&inside))?;
            let path = format!("{}/{name}", path.trim_end_matches('/'));
            self.insert_entry(&path, &inside, &metadata, origin)?;
        }
        Ok(())
    }
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> DiskError + use<> {
    let path = path.to_path_buf();
    |source| DiskError::Read { path, source }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{Permissions, set_permissions, write};

    #[test]
    fn only_the_executable_bit_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let inside = folder.path().join("app");
        std::fs::create_dir(&inside).unwrap();
        write(inside.join("run"), "#!").unwrap();
        set_permissions(inside.join("run"), Permissions::from_mode(0o700)).unwrap();
        write(inside.join("data"), "x").unwrap();
        set_permissions(inside.join("data"), Permissions::from_mode(0o666)).unwrap();
        std::os::unix::fs::symlink("run", inside.join("start")).unwrap();
        let mut tree = Tree::plain();
        let origin = Arc::from("appliance.toml");
        tree.insert_from_disk("/srv/app", &inside, &origin).unwrap();
        let modes: Vec<(&str, u32)> = tree.iter().map(|(path, node)| (path, node.mode)).collect();
        let expected = [
            ("/srv", 0o755),
            ("/srv/app", 0o755),
            ("/srv/app/data", 0o644),
            ("/srv/app/run", 0o755),
            ("/srv/app/start", 0o777),
        ];
        assert_eq!(modes, expected);
        assert_eq!(tree.content("/srv/app/start").unwrap().as_ref(), b"#!");
        write(inside.join("data"), "y").unwrap();
        tree.insert_from_disk("/srv/app/data", &inside.join("data"), &origin).unwrap();
        assert_eq!(tree.content("/srv/app/data").unwrap().as_ref(), b"y");
    }

    #[test]
    fn what_cannot_be_taken_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let missing = folder.path().join("missing");
        let error = Tree::plain().insert_from_disk("/x", &missing, &Arc::from("a")).unwrap_err();
        assert!(error.to_string().ends_with("/missing"), "{error}");
        let socket = folder.path().join("socket");
        let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        let error = Tree::plain().insert_from_disk("/x", folder.path(), &Arc::from("a"));
        assert!(matches!(error, Err(DiskError::Strange { path }) if path == socket));
    }
}
