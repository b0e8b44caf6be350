//! Packages as a folder of this machine, for programs that run here: QEMU, socat.
//!
//! Made without root: owners, set-uid bits and devices are left out. A symbolic link is followed
//! only inside the folder, as if that were the root.

use super::deb::{self, Entry, Error, Kind, MERGED};
use std::ffi::OsString;
use std::fs::{File, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Component, Path, PathBuf};

/// As many links as the kernel follows in one path (path_resolution(7)).
const MOST_LINKS: usize = 40;

/// Unpacks packages, in their order, into an empty folder.
pub fn unpack(root: &Path, packages: &[PathBuf], mut each: impl FnMut()) -> Result<(), Error> {
    for deb in packages {
        deb::entries(deb, |entry| write(root, deb, entry))?;
        each();
    }
    for name in MERGED {
        let path = root.join(name);
        if root.join("usr").join(name).is_dir() && path.symlink_metadata().is_err() {
            symlink(Path::new("usr").join(name), &path)
                .map_err(|source| Error::Write { path, source })?;
        }
    }
    Ok(())
}

fn write(root: &Path, deb: &Path, entry: Entry) -> Result<(), Error> {
    // The folders that are links into usr are made at the end.
    if entry.path.to_str().is_some_and(|path| MERGED.contains(&path)) {
        return Ok(());
    }
    let path = place(root, deb, &entry.path)?;
    put(root, deb, &path, entry).map_err(|error| match error {
        Failed::Io(source) => Error::Write { path, source },
        Failed::Error(error) => error,
    })
}

enum Failed {
    Io(io::Error),
    Error(Error),
}

impl From<io::Error> for Failed {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

fn put(root: &Path, deb: &Path, path: &Path, entry: Entry) -> Result<(), Failed> {
    match entry.kind {
        Kind::Directory => match path.symlink_metadata() {
            Ok(there) if there.is_dir() || there.is_symlink() => {}
            _ => std::fs::create_dir(path)?,
        },
        Kind::File(content) => {
            remove(path)?;
            let mut file = File::create_new(path)?;
            file.write_all(&content)?;
            file.set_permissions(Permissions::from_mode(entry.mode & 0o777 | 0o600))?;
        }
        Kind::Symlink(target) => {
            remove(path)?;
            symlink(target, path)?;
        }
        Kind::Hardlink(target) => {
            let target = place(root, deb, &target).map_err(Failed::Error)?;
            remove(path)?;
            std::fs::hard_link(target, path)?;
        }
        Kind::Character { .. } | Kind::Block { .. } | Kind::Fifo => {}
    }
    Ok(())
}

/// Where an entry goes: below its parent, links in which are followed inside the root.
fn place(root: &Path, deb: &Path, path: &Path) -> Result<PathBuf, Error> {
    let escapes = || Error::Escapes { path: deb.to_owned(), entry: path.to_owned() };
    let name = path.file_name().ok_or_else(escapes)?;
    let mut open: Vec<OsString> = Vec::new();
    push(&mut open, path.parent().unwrap_or(Path::new("")));
    // Has no links and no `..` in it, so it cannot lead out.
    let mut at = PathBuf::new();
    let mut links = 0;
    while let Some(name) = open.pop() {
        if name == ".." {
            at.pop();
            continue;
        }
        let here = root.join(&at).join(&name);
        let failed = |source| Error::Write { path: here.clone(), source };
        match here.symlink_metadata() {
            Ok(there) if there.is_symlink() => {
                links += 1;
                if links > MOST_LINKS {
                    return Err(escapes());
                }
                let target = here.read_link().map_err(failed)?;
                if target.is_absolute() {
                    at.clear();
                }
                push(&mut open, &target);
            }
            Ok(_) => at.push(name),
            Err(_) => {
                std::fs::create_dir(&here).map_err(failed)?;
                at.push(name);
            }
        }
    }
    Ok(root.join(at).join(name))
}

/// Puts the names of a path onto a stack, the first on top.
fn push(open: &mut Vec<OsString>, path: &Path) {
    for component in path.components().rev() {
        match component {
            Component::Normal(name) => open.push(name.to_owned()),
            Component::ParentDir => open.push("..".into()),
            _ => {}
        }
    }
}

fn remove(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::deb::tests::{Item, package};
    use super::*;

    /// Unpacks one package with these entries into `tree` of a folder.
    fn tree(items: &[Item<'_>]) -> (tempfile::TempDir, PathBuf, Result<(), Error>) {
        let folder = tempfile::tempdir().unwrap();
        let (deb, root) = (folder.path().join("a.deb"), folder.path().join("tree"));
        std::fs::create_dir(&root).unwrap();
        package(&deb, items, "");
        let result = unpack(&root, &[deb], || {});
        (folder, root, result)
    }

    fn file(text: &str) -> Kind {
        Kind::File(text.as_bytes().to_vec())
    }

    #[test]
    fn a_package_becomes_a_folder() {
        let (_folder, root, result) = tree(&[
            ("./lib/a/", Kind::Directory, 0o755),
            ("./lib/a/one", file("1"), 0o4755),
            ("./lib/a/two", Kind::Hardlink("./lib/a/one".into()), 0o755),
            ("./lib/a/three", Kind::Symlink("one".into()), 0o777),
            ("./dev/null", Kind::Character { major: 1, minor: 3 }, 0o666),
            ("./missing/parent/file", file("2"), 0o400),
        ]);
        result.unwrap();
        assert_eq!(root.join("lib").read_link().unwrap(), Path::new("usr/lib"));
        assert_eq!(std::fs::read(root.join("usr/lib/a/two")).unwrap(), b"1");
        assert_eq!(std::fs::read(root.join("lib/a/three")).unwrap(), b"1");
        let mode = root.join("usr/lib/a/one").metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o755);
        assert!(!root.join("dev/null").exists());
        assert_eq!(std::fs::read(root.join("missing/parent/file")).unwrap(), b"2");
    }

    #[test]
    fn links_are_followed_inside_the_root_only() {
        let (folder, root, result) = tree(&[
            ("./up", Kind::Symlink("../../..".into()), 0o777),
            ("./up/one", file("1"), 0o644),
            ("./etc", Kind::Symlink("/real".into()), 0o777),
            ("./etc/two", file("2"), 0o644),
            ("./a/b", Kind::Symlink("../c/../d".into()), 0o777),
            ("./a/b/three", file("3"), 0o644),
        ]);
        result.unwrap();
        assert_eq!(std::fs::read(root.join("one")).unwrap(), b"1");
        assert_eq!(std::fs::read(root.join("real/two")).unwrap(), b"2");
        assert_eq!(std::fs::read(root.join("d/three")).unwrap(), b"3");
        let mut beside: Vec<_> =
            std::fs::read_dir(folder.path()).unwrap().map(|at| at.unwrap().file_name()).collect();
        beside.sort();
        assert_eq!(beside, ["a.deb", "tree"]);
    }

    #[test]
    fn a_file_replaces_a_link_and_never_writes_through_it() {
        let folder = tempfile::tempdir().unwrap();
        let outside = folder.path().join("outside");
        std::fs::write(&outside, b"whole").unwrap();
        let (_tree, root, result) =
            tree(&[("./a", Kind::Symlink(outside.clone()), 0o777), ("./a", file("new"), 0o644)]);
        result.unwrap();
        assert_eq!(std::fs::read(&outside).unwrap(), b"whole");
        assert_eq!(std::fs::read(root.join("a")).unwrap(), b"new");
    }

    #[test]
    fn links_in_a_circle_are_refused() {
        let (_folder, _, result) = tree(&[
            ("./a", Kind::Symlink("b".into()), 0o777),
            ("./b", Kind::Symlink("a".into()), 0o777),
            ("./a/file", file(""), 0o644),
        ]);
        assert!(matches!(result, Err(Error::Escapes { .. })));
    }
}
