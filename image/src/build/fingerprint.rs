//! What an image depends on, as one hash: what it says is the same need not be built again.
//!
//! What is in the appliance's folder but never in an image (build outputs, version control, the
//! lock, sockets that were published there) does not count. What `[files]` and `[image."..."]`
//! name counts wherever it lies.

use crate::appliance::Appliance;
use crate::cache::Hash;
use crate::command_line::Arch;
use crate::config;
use crate::exit::{BAD_INPUT, FAILED, Failure};
use crate::lock;
use crate::output::description::Fingerprint;
use crate::tree::Tree;
use activator::control::Programs;
use std::fs::Metadata;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Folders that hold nothing which is built from.
const SKIPPED: [&str; 2] = ["target", ".git"];

/// The appliance's files, what is locked, the guest's programs, this program.
pub(super) fn of(
    appliance: &Appliance,
    arch: Arch,
    packages: Hash,
    programs: Programs<&[u8]>,
) -> Result<String, Failure> {
    let mut fingerprint = Fingerprint::new();
    fingerprint.add("architecture", arch.as_str().as_bytes());
    fingerprint.add("name", appliance.name.as_bytes());
    fingerprint.add("packages", packages.to_string().as_bytes());
    fingerprint.add("init", programs.init);
    fingerprint.add("activator", programs.activator);
    // --format may say something else than appliance.toml.
    fingerprint.add("root", format!("{:?}", appliance.config.root.format).as_bytes());
    add_sources(&mut fingerprint, &appliance.folder)?;
    let images = || appliance.config.image.values();
    for folder in images().filter_map(|image| image.cargo.as_deref()) {
        if config::is_outside(folder) {
            add_sources(&mut fingerprint, &appliance.path(folder))?;
        }
    }
    for path in appliance.config.archives().filter(|path| config::is_outside(path)) {
        let path = appliance.path(&path);
        if path.is_dir() {
            add_sources(&mut fingerprint, &path)?;
        } else if let Ok(metadata) = std::fs::metadata(&path) {
            // The lock has the digest; this is to have it compared with what is there.
            let changed = (metadata.len(), metadata.mtime(), metadata.mtime_nsec());
            fingerprint.add(&path.display().to_string(), format!("{changed:?}").as_bytes());
        }
    }
    let origin = std::sync::Arc::from(config::FILE);
    let copied = images().flat_map(|image| image.files.values());
    for file in appliance.config.files.values().chain(copied) {
        let mut tree = Tree::plain();
        tree.insert_from_disk("/copied", &appliance.path(file), &origin)
            .map_err(|error| Failure::of(BAD_INPUT, &error))?;
        fingerprint.add_tree(&file.display().to_string(), &tree);
    }
    Ok(fingerprint.finish())
}

/// Of a folder that an image is built in.
pub(super) fn of_folder(folder: &Path) -> Result<String, Failure> {
    let mut fingerprint = Fingerprint::default();
    add_sources(&mut fingerprint, folder)?;
    Ok(fingerprint.finish())
}

/// Adds a folder's files and symlinks, sorted.
fn add_sources(fingerprint: &mut Fingerprint, root: &Path) -> Result<(), Failure> {
    let failed = |path: &Path, error: io::Error| {
        Failure::new(FAILED, format!("read {}", path.display())).because(error)
    };
    let mut found = Vec::new();
    list(root, &mut found).map_err(|error| failed(root, error))?;
    found.retain(|(path, _)| *path != root.join(lock::FILE));
    found.sort_by(|one, other| one.0.cmp(&other.0));
    fingerprint.add("folder", &found.len().to_le_bytes());
    for (path, metadata) in found {
        let content = if metadata.is_symlink() {
            std::fs::read_link(&path).map(|target| target.as_os_str().as_bytes().to_vec())
        } else {
            std::fs::read(&path)
        };
        let content = content.map_err(|error| failed(&path, error))?;
        let name = path.strip_prefix(root).unwrap_or(&path).display();
        let executable = metadata.permissions().mode() & 0o100;
        let kind = if metadata.is_symlink() { "symlink" } else { "file" };
        fingerprint.add(&format!("{name}\0{kind} {executable}"), &content);
    }
    Ok(())
}

fn list(folder: &Path, found: &mut Vec<(PathBuf, Metadata)>) -> io::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        if metadata.is_dir() {
            if !SKIPPED.iter().any(|name| entry.file_name() == *name) {
                list(&entry.path(), found)?;
            }
        } else if metadata.is_file() || metadata.is_symlink() {
            found.push((entry.path(), metadata));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{create_dir_all, write};

    fn sources(root: &Path) -> String {
        let mut fingerprint = Fingerprint::new();
        add_sources(&mut fingerprint, root).unwrap();
        fingerprint.finish()
    }

    #[test]
    fn what_is_built_from_counts_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        create_dir_all(root.join("server/target")).unwrap();
        write(root.join("server/main.rs"), "a").unwrap();
        let first = sources(root);
        write(root.join("server/target/out"), "b").unwrap();
        write(root.join(lock::FILE), "c").unwrap();
        let _published = std::os::unix::net::UnixListener::bind(root.join("echo.sock")).unwrap();
        assert_eq!(sources(root), first);
        write(root.join("server/main.rs"), "b").unwrap();
        let second = sources(root);
        assert_ne!(second, first);
        std::fs::rename(root.join("server/main.rs"), root.join("server/lib.rs")).unwrap();
        assert_ne!(sources(root), second);
    }

    #[test]
    fn a_copied_file_counts_even_if_it_is_a_build_output() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        create_dir_all(root.join("target")).unwrap();
        write(root.join("target/tool"), "a").unwrap();
        write(root.join(config::FILE), "[files]\n\"/usr/bin/tool\" = \"target/tool\"\n").unwrap();
        let (config, source) = config::Config::read(root).unwrap();
        let (folder, name) = (root.to_owned(), "x".to_owned());
        let appliance = Appliance { folder, name, config, source, strict: false };
        let with = |init, activator| {
            let programs = Programs { init, activator };
            of(&appliance, Arch::X86_64, Hash::of(b"packages"), programs).unwrap()
        };
        let fingerprint = || with(b"init", b"activator");
        let first = fingerprint();
        assert_ne!(with(b"another", b"activator"), first);
        assert_ne!(with(b"init", b"another"), first);
        write(root.join("target/tool"), "b").unwrap();
        assert_ne!(fingerprint(), first);
    }
}
