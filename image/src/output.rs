//! Writes an image: a folder with `kernel`, `initramfs.zst`, `manifest` and `image.json`; with
//! `root.erofs` as well where the files are on a disk.
//!
//! The folder appears at once and complete, or not at all: everything is written into a folder
//! beside it, which then takes its place in one step. What a killed build left there is removed
//! by the next one; a lock on the parent folder keeps two builds apart, and goes with its
//! process.

pub mod cpio;
pub mod description;
pub mod erofs;

use crate::cache::{Cache, Hash};
use crate::tree::Tree;
use description::{Description, Part};
use rustix::fs::{CWD, FlockOperation, RenameFlags};
use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use thiserror::Error;

/// Name of the kernel in an image's folder.
pub const KERNEL: &str = "kernel";
/// Name of the initramfs: everything but the kernel, or what it takes to mount [`ROOT`].
pub const INITRAMFS: &str = "initramfs.zst";
/// Name of the disk with everything else, if there is one.
pub const ROOT: &str = "root.erofs";
/// Name of the manifest, which is also among the guest's files.
pub const MANIFEST: &str = "manifest";
/// Name of the [`Description`].
pub const DESCRIPTION: &str = "image.json";

/// zstd's level for images of up to [`LARGE`] bytes, which are worth its seconds: the last one that
/// needs no more memory in the guest than the others.
pub const LEVEL: i32 = 19;
/// zstd's level for larger ones: seconds instead of minutes, for a file that is a little larger.
pub const LEVEL_OF_LARGE: i32 = 9;
/// Uncompressed bytes above which an image is large.
pub const LARGE: u64 = 64 << 20;

/// What an image is made of.
#[derive(Debug)]
pub struct Image<'a> {
    /// Everything but sizes and hashes, which [`write`] fills in.
    pub description: Description,
    /// The kernel as QEMU wants it.
    pub kernel: &'a [u8],
    /// The encoded manifest.
    pub manifest: &'a [u8],
    /// The guest's files; the manifest and the kernel's modules are among them.
    pub tree: &'a Tree,
    /// Where they are.
    pub place: Place<'a>,
    /// Keeps what large files are when compressed, for the next image; None compresses anew.
    pub cache: Option<&'a Cache>,
}

/// Where the guest's files are.
#[derive(Debug)]
pub enum Place<'a> {
    /// In the initramfs.
    Initramfs,
    /// On a disk.
    Disk {
        /// What is in the initramfs then.
        boot: &'a Tree,
        /// mkfs.erofs without arguments.
        mkfs: Box<std::process::Command>,
    },
}

impl Place<'_> {
    /// Numbers of bytes that [`write`] tells of.
    pub fn work(&self, tree: &Tree) -> Result<u64, OutputError> {
        match self {
            Self::Initramfs => Ok(cpio::size(tree)?),
            Self::Disk { boot, .. } => Ok(cpio::size(boot)? + tree.size()),
        }
    }
}

/// Why there is no image.
#[derive(Debug, Error)]
pub enum OutputError {
    /// A file or folder cannot be written: no space, no permission, ...
    #[error("write {}", path.display())]
    Write {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// What is at the place of the image was not made by us, and is left alone.
    #[error("write {}: it is there already, and no image", path.display())]
    Occupied {
        /// Where.
        path: PathBuf,
    },
    /// The path ends in nothing that could be a folder's name.
    #[error("write `{}`: that is no name for a folder", path.display())]
    Name {
        /// As given.
        path: PathBuf,
    },
    /// A file that the format cannot hold.
    #[error(transparent)]
    Cpio(#[from] cpio::CpioError),
    /// The disk cannot be made.
    #[error(transparent)]
    Erofs(#[from] erofs::ErofsError),
}

/// Writes an image to a folder, in place of an image that is there. `progress` is called with
/// numbers of bytes that add up to [`Place::work`].
pub fn write(
    folder: &Path,
    image: Image<'_>,
    progress: impl FnMut(u64),
) -> Result<Description, OutputError> {
    let partial = Partial::begin(folder)?;
    let description = write_parts(&partial.path, image, progress)?;
    partial.finish()?;
    Ok(description)
}

fn write_parts(
    folder: &Path,
    image: Image<'_>,
    mut progress: impl FnMut(u64),
) -> Result<Description, OutputError> {
    let mut description = image.description;
    let initramfs = match image.place {
        Place::Initramfs => image.tree,
        Place::Disk { boot, mkfs } => {
            let path = folder.join(ROOT);
            erofs::write(image.tree, &path, *mkfs, &mut progress)?;
            description.root = Some(part_of(&path).map_err(at(&path))?);
            boot
        }
    };
    let path = folder.join(INITRAMFS);
    let archives = cpio::archives(initramfs)?;
    let raw = archives.iter().map(cpio::Archive::size).sum();
    let content = compress(&archives, level(raw), image.cache, progress).map_err(at(&path))?;
    description.initramfs = write_file(&path, &content)?;
    description.initramfs_raw_size = raw;
    description.kernel = write_file(&folder.join(KERNEL), image.kernel)?;
    description.manifest = write_file(&folder.join(MANIFEST), image.manifest)?;
    description.describe_files(image.tree);
    write_file(&folder.join(DESCRIPTION), description.to_json().as_bytes())?;
    Ok(description)
}

fn write_file(path: &Path, content: &[u8]) -> Result<Part, OutputError> {
    let write = || {
        let mut file = File::create_new(path)?;
        file.write_all(content)?;
        file.sync_all()
    };
    write().map_err(at(path))?;
    Ok(Part::of(content))
}

/// Size and hash of a file that somebody else wrote; it is on the disk then.
fn part_of(path: &Path) -> io::Result<Part> {
    let mut file = File::open(path)?;
    let mut hashed = description::Hashing::new(io::sink());
    io::copy(&mut file, &mut hashed)?;
    file.sync_all()?;
    Ok(hashed.finish().1)
}

/// Bytes of an archive from which on its compressed form is kept in the cache.
const WORTH_KEEPING: usize = 64 << 10;

/// The archives, each in a zstd frame of its own, on all processors.
fn compress(
    archives: &[cpio::Archive<'_>],
    level: i32,
    cache: Option<&Cache>,
    mut progress: impl FnMut(u64),
) -> io::Result<Vec<u8>> {
    let next = AtomicUsize::new(0);
    let (done, frames) = mpsc::channel();
    let work = |done: mpsc::Sender<_>| {
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let Some(archive) = archives.get(index) else { break };
            // Nobody waits for it any more after an error.
            let _ = done.send((index, frame(archive, level, cache)));
        }
    };
    let workers = std::thread::available_parallelism().map_or(1, usize::from).min(archives.len());
    let mut parts: Vec<Vec<u8>> = vec![Vec::new(); archives.len()];
    std::thread::scope(|scope| {
        for _ in 0..workers {
            let done = done.clone();
            let work = &work;
            scope.spawn(move || work(done));
        }
        drop(done);
        for (index, frame) in frames {
            if let (Some(part), Some(archive)) = (parts.get_mut(index), archives.get(index)) {
                *part = frame?;
                progress(archive.size());
            }
        }
        Ok(parts.concat())
    })
}

/// An archive, compressed; from the cache if it is large and was in an image before.
fn frame(archive: &cpio::Archive<'_>, level: i32, cache: Option<&Cache>) -> io::Result<Vec<u8>> {
    let mut raw = Vec::new();
    archive.write(&mut raw)?;
    let cache = cache.filter(|_| raw.len() >= WORTH_KEEPING);
    let key = format!("zstd-{level}-{}", Hash::of(&raw));
    // A cache that cannot be used costs time, and nothing else.
    if let Some(Ok(Some(frame))) = cache.map(|cache| cache.made(&key)) {
        return Ok(frame);
    }
    let mut encoder = zstd::Encoder::new(Vec::new(), level)?;
    encoder.include_checksum(true)?;
    encoder.set_pledged_src_size(Some(raw.len() as u64))?;
    encoder.write_all(&raw)?;
    let frame = encoder.finish()?;
    let _ = cache.map(|cache| cache.store_made(&key, &frame));
    Ok(frame)
}

/// Depends on the content only, so that every machine writes the same bytes.
fn level(raw: u64) -> i32 {
    if raw > LARGE { LEVEL_OF_LARGE } else { LEVEL }
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> OutputError + use<> {
    let path = path.to_path_buf();
    |source| OutputError::Write { path, source }
}

/// A folder that is not yet at its place. Dropped before [`Partial::finish`], it is removed.
struct Partial {
    path: PathBuf,
    target: PathBuf,
    /// Holds the lock on the parent folder.
    _parent: File,
}

impl Partial {
    fn begin(target: &Path) -> Result<Self, OutputError> {
        let no_name = || OutputError::Name { path: target.into() };
        let name = target.file_name().and_then(|name| name.to_str()).ok_or_else(no_name)?;
        let parent = match target.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        std::fs::create_dir_all(parent).map_err(at(parent))?;
        let locked = File::open(parent).map_err(at(parent))?;
        rustix::fs::flock(&locked, FlockOperation::LockExclusive)
            .map_err(|error| at(parent)(error.into()))?;
        check_place(target)?;
        let path = parent.join(format!(".{name}.partial"));
        remove(&path).map_err(at(&path))?;
        std::fs::create_dir(&path).map_err(at(&path))?;
        Ok(Self { path, target: target.into(), _parent: locked })
    }

    fn finish(self) -> Result<(), OutputError> {
        let exchange =
            rustix::fs::renameat_with(CWD, &self.path, CWD, &self.target, RenameFlags::EXCHANGE);
        match exchange {
            // What was there is now at our path, where drop removes it.
            Ok(()) => Ok(()),
            Err(rustix::io::Errno::NOENT) => {
                std::fs::rename(&self.path, &self.target).map_err(at(&self.target))
            }
            // A file system without an exchange.
            Err(_) => {
                remove(&self.target).map_err(at(&self.target))?;
                std::fs::rename(&self.path, &self.target).map_err(at(&self.target))
            }
        }
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        let _ = remove(&self.path);
    }
}

/// Refuses a place with something that was not made by us.
pub fn check_place(target: &Path) -> Result<(), OutputError> {
    match may_replace(target).map_err(at(target))? {
        true => Ok(()),
        false => Err(OutputError::Occupied { path: target.into() }),
    }
}

/// Whether there is nothing, an empty folder, or an image.
fn may_replace(target: &Path) -> io::Result<bool> {
    match std::fs::read_dir(target) {
        Ok(mut entries) => Ok(entries.next().is_none() || target.join(DESCRIPTION).is_file()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => Ok(false),
        Err(error) => Err(error),
    }
}

fn remove(folder: &Path) -> io::Result<()> {
    match std::fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::Node;

    fn tree() -> Tree {
        let mut tree = Tree::new();
        let noise: Vec<u8> = (0..1 << 20).map(|n: u32| (n.wrapping_mul(n) >> 7) as u8).collect();
        tree.insert("/init", Node::file(noise, 0o755, "rouse")).unwrap();
        tree.insert("/etc/hostname", Node::file(&b"echo\n"[..], 0o644, "rouse")).unwrap();
        tree
    }

    fn build(folder: &Path, name: &str) -> Result<Description, OutputError> {
        let description = Description {
            name: name.into(),
            fingerprint: format!("of {name}"),
            ..Description::default()
        };
        let (tree, place) = (&tree(), Place::Initramfs);
        let (kernel, manifest, cache) = (b"kernel", b"manifest", None);
        write(folder, Image { description, kernel, manifest, tree, place, cache }, |_| {})
    }

    fn names(folder: &Path) -> Vec<String> {
        let entries = std::fs::read_dir(folder).unwrap();
        let name = |entry: io::Result<std::fs::DirEntry>| {
            entry.unwrap().file_name().into_string().unwrap()
        };
        let mut names: Vec<String> = entries.map(name).collect();
        names.sort();
        names
    }

    #[test]
    fn an_image_is_complete_and_replaced_in_one_step() {
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().join("images/echo");
        let written = build(&folder, "echo").unwrap();
        assert_eq!(names(&folder), [DESCRIPTION, INITRAMFS, KERNEL, MANIFEST]);
        assert_eq!(Description::read(&folder), Some(written.clone()));
        let compressed = std::fs::read(folder.join(INITRAMFS)).unwrap();
        assert_eq!(written.initramfs, Part::of(&compressed));
        let mut archive = Vec::new();
        cpio::write(&tree(), &mut archive).unwrap();
        assert!(zstd::decode_all(&compressed[..]).unwrap() == archive);
        assert_eq!(written.initramfs_raw_size, archive.len() as u64);
        assert!(Description::is_current(&folder, "of echo"));

        build(&folder, "other").unwrap();
        assert!(!Description::is_current(&folder, "of echo"));
        assert!(Description::is_current(&folder, "of other"));
        assert_eq!(names(&parent.path().join("images")), ["echo"]);
        std::fs::write(folder.join(KERNEL), b"ker").unwrap();
        assert!(!Description::is_current(&folder, "of other"));
    }

    #[test]
    fn a_large_image_is_compressed_less() {
        assert_eq!((level(0), level(LARGE), level(LARGE + 1)), (19, 19, 9));
    }

    #[test]
    fn two_folders_get_the_same_bytes() {
        let parent = tempfile::tempdir().unwrap();
        let folders = ["a", "b/c"].map(|name| parent.path().join(name));
        for folder in &folders {
            build(folder, "echo").unwrap();
        }
        for name in [DESCRIPTION, INITRAMFS, KERNEL, MANIFEST] {
            let [a, b] = folders.each_ref().map(|folder| std::fs::read(folder.join(name)).unwrap());
            assert!(a == b, "{name} differs");
        }
    }

    #[test]
    fn the_cache_does_not_change_the_bytes() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::open_at(folder.path()).unwrap();
        let tree = tree();
        let archives = cpio::archives(&tree).unwrap();
        let compress = |cache| compress(&archives, 3, cache, |_| {}).unwrap();
        let without = compress(None);
        assert!(without == compress(Some(&cache)), "the first time");
        let kept = || std::fs::read_dir(folder.path().join("made")).unwrap().count();
        assert_eq!((archives.len(), kept()), (2, 1), "the small files are not worth it");
        assert!(without == compress(Some(&cache)), "the second time");
    }

    #[test]
    fn what_is_no_image_is_left_alone() {
        let parent = tempfile::tempdir().unwrap();
        std::fs::write(parent.path().join("precious"), "x").unwrap();
        let error = build(parent.path(), "echo").unwrap_err();
        assert!(matches!(error, OutputError::Occupied { .. }), "{error}");
        let error = build(&parent.path().join("precious"), "echo").unwrap_err();
        assert!(matches!(error, OutputError::Occupied { .. }), "{error}");
        assert_eq!(names(parent.path()), ["precious"]);
    }

    #[test]
    fn a_build_that_fails_leaves_what_was_there() {
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().join("echo");
        let before = build(&folder, "echo").unwrap();
        let mut tree = tree();
        let path = format!("/{}", "x/".repeat(2049));
        tree.insert(&path, Node::file(&b""[..], 0o600, "x")).unwrap();
        let description = Description::default();
        let (tree, place) = (&tree, Place::Initramfs);
        let image = Image {
            description,
            kernel: b"kernel",
            manifest: b"manifest",
            tree,
            place,
            cache: None,
        };
        let error = write(&folder, image, |_| {}).unwrap_err();
        assert!(matches!(error, OutputError::Cpio(_)), "{error}");
        assert_eq!(Description::read(&folder), Some(before));
        assert_eq!(names(parent.path()), ["echo"]);
    }

    #[test]
    fn what_a_killed_build_left_is_removed() {
        let parent = tempfile::tempdir().unwrap();
        let left = parent.path().join(".echo.partial");
        std::fs::create_dir(&left).unwrap();
        std::fs::write(left.join(KERNEL), "half").unwrap();
        build(&parent.path().join("echo"), "echo").unwrap();
        assert_eq!(names(parent.path()), ["echo"]);
    }
}
