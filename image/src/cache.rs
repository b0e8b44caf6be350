//! The cache: what was downloaded or made from it, shared by all of a person's appliances.
//!
//! | folder | holds |
//! |---|---|
//! | `blobs/SHA256` | a file by its content |
//! | `made/KEY` | a file that was made from blobs; KEY names what of, and how |
//! | `trees/KEY` | a folder that was made from blobs |
//! | `locks/KEY` | empty; flock(2)ed by whoever makes that entry |
//! | `scratch/*` | what is being written, flock(2)ed by its writer |
//!
//! An entry appears by rename(2), whole or not at all, so readers need no lock. A writer that was
//! killed leaves a folder in `scratch/` without a lock on it, and the next [`Cache::open`] removes
//! that. Nothing is synced to disk: what a power cut tears is found by its size or its hash, and
//! fetched again.

use rustix::fs::{FlockOperation, flock};
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

/// Why the cache could not be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Neither `ROUSE_CACHE_DIR`, `XDG_CACHE_HOME` nor `HOME` is set.
    #[error("find a cache folder: set ROUSE_CACHE_DIR or HOME")]
    NoHome,
    /// The system refused.
    #[error("use the cache at {path}")]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// No space or no quota is left.
    #[error("write to the cache at {path}: the disk is full")]
    Full {
        /// The file that was being written; it is removed.
        path: PathBuf,
    },
    /// The content is not what was asked for.
    #[error("store {expected}: the content has sha256 {got}")]
    WrongHash {
        /// The sha256 that was asked for.
        expected: Hash,
        /// The sha256 of what came.
        got: Hash,
    },
}

impl Error {
    /// Whether the same may work a little later, with nothing changed but the machine.
    pub fn is_temporary(&self) -> bool {
        matches!(self, Self::Full { .. })
    }

    fn io(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        |source| match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::Full { path },
            _ => Self::Io { path, source },
        }
    }
}

/// A sha256, shown as 64 lower-case hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Hash([u8; 32]);

impl Hash {
    /// The hash of some bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }

    /// Reads 64 hexadecimal digits.
    pub fn parse(text: &str) -> Option<Self> {
        let digits = text.as_bytes();
        if digits.len() != 64 {
            return None;
        }
        let mut hash = [0; 32];
        for (byte, pair) in hash.iter_mut().zip(digits.chunks(2)) {
            let digit = |at: u8| char::from(at).to_digit(16);
            *byte = u8::try_from(digit(pair[0])? << 4 | digit(pair[1])?).ok()?;
        }
        Some(Self(hash))
    }
}

impl std::fmt::Display for Hash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl std::fmt::Debug for Hash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{self}")
    }
}

impl serde::Serialize for Hash {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for Hash {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text)
            .ok_or_else(|| serde::de::Error::custom("a sha256 has 64 hexadecimal digits"))
    }
}

/// The folder with everything in it. Cheap to clone; any number of processes may use it at once.
#[derive(Debug, Clone)]
pub struct Cache {
    root: PathBuf,
}

impl Cache {
    /// Opens `$ROUSE_CACHE_DIR`, else `$XDG_CACHE_HOME/rouse`, else `~/.cache/rouse`, and makes it
    /// if it is missing. A variable that is empty counts as not set, and one of the last two that
    /// is not absolute (XDG Base Directory Specification).
    pub fn open() -> Result<Self, Error> {
        let absolute = |name: &str| {
            std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute())
        };
        let named = std::env::var_os("ROUSE_CACHE_DIR").filter(|value| !value.is_empty());
        let root = named
            .map(|path| std::path::absolute(&path).unwrap_or_else(|_| path.into()))
            .or_else(|| absolute("XDG_CACHE_HOME").map(|path| path.join("rouse")))
            .or_else(|| absolute("HOME").map(|path| path.join(".cache/rouse")))
            .ok_or(Error::NoHome)?;
        Self::open_at(&root)
    }

    /// Opens the cache at a folder, makes it if it is missing, and removes what killed processes
    /// left in it.
    pub fn open_at(root: &Path) -> Result<Self, Error> {
        for folder in ["blobs", "made", "trees", "locks", "scratch"] {
            let path = root.join(folder);
            std::fs::create_dir_all(&path).map_err(Error::io(&path))?;
        }
        let cache = Self { root: root.to_owned() };
        cache.sweep();
        Ok(cache)
    }

    /// Where it is.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Where a blob is, or would be.
    pub fn blob_path(&self, hash: Hash) -> PathBuf {
        self.root.join("blobs").join(hash.to_string())
    }

    /// A blob that is there and unharmed. Reads all of it to know that (30 MB take some 20 ms
    /// where the processor has SHA instructions); one that is harmed is removed.
    pub fn blob(&self, hash: Hash) -> Result<Option<PathBuf>, Error> {
        let path = self.blob_path(hash);
        let mut file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Error::io(&path)(error)),
        };
        let mut digest = Sha256::new();
        let mut buffer = vec![0; 1 << 17];
        loop {
            match file.read(&mut buffer).map_err(Error::io(&path))? {
                0 => break,
                read => digest.update(&buffer[..read]),
            }
        }
        if Hash(digest.finalize().into()) == hash {
            return Ok(Some(path));
        }
        remove(&path)?;
        Ok(None)
    }

    /// Removes a blob that is not needed any more.
    pub fn remove_blob(&self, hash: Hash) -> Result<(), Error> {
        remove(&self.blob_path(hash))
    }

    /// Begins a blob. It is in the cache after [`BlobWriter::finish`], and only then.
    pub fn write_blob(&self) -> Result<BlobWriter, Error> {
        let scratch = self.scratch()?;
        let path = scratch.path().join("blob");
        let file = File::create_new(&path).map_err(Error::io(&path))?;
        Ok(BlobWriter { file, path, digest: Sha256::new(), size: 0, cache: self.clone(), scratch })
    }

    /// Stores bytes as a blob.
    pub fn store_blob(&self, bytes: &[u8]) -> Result<(Hash, PathBuf), Error> {
        let mut writer = self.write_blob()?;
        writer.write_all(bytes).map_err(Error::io(&writer.path))?;
        let hash = writer.hash();
        Ok((hash, writer.finish(hash)?))
    }

    /// A file that was made from blobs; `key` is a file name.
    pub fn made(&self, key: &str) -> Result<Option<Vec<u8>>, Error> {
        let path = self.root.join("made").join(key);
        let bytes = match std::fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Error::io(&path)(error)),
        };
        // The last 32 bytes are the hash of the others: a torn file is as good as none.
        let Some((content, hash)) = bytes.split_last_chunk::<32>() else { return Ok(None) };
        if Hash::of(content).0 != *hash {
            return Ok(None);
        }
        let length = content.len();
        let mut bytes = bytes;
        bytes.truncate(length);
        Ok(Some(bytes))
    }

    /// Whether there is such a file; a torn one counts.
    pub fn has_made(&self, key: &str) -> bool {
        self.root.join("made").join(key).exists()
    }

    /// Stores a file that was made from blobs, or replaces it.
    pub fn store_made(&self, key: &str, bytes: &[u8]) -> Result<(), Error> {
        let scratch = self.scratch()?;
        let path = scratch.path().join("made");
        let mut file = File::create_new(&path).map_err(Error::io(&path))?;
        file.write_all(bytes).map_err(Error::io(&path))?;
        file.write_all(&Hash::of(bytes).0).map_err(Error::io(&path))?;
        let end = self.root.join("made").join(key);
        std::fs::rename(&path, &end).map_err(Error::io(&end))
    }

    /// A tree that is there; `key` is a file name.
    pub fn tree(&self, key: &str) -> Option<PathBuf> {
        let path = self.root.join("trees").join(key);
        path.is_dir().then_some(path)
    }

    /// The tree `key`, made by `make` in an empty folder if it is not there. Of two processes that
    /// want the same one, one makes it and the other waits.
    pub fn tree_or_make<E: From<Error>>(
        &self,
        key: &str,
        make: impl FnOnce(&Path) -> Result<(), E>,
    ) -> Result<PathBuf, E> {
        if let Some(path) = self.tree(key) {
            return Ok(path);
        }
        let _guard = self.lock(key)?;
        if let Some(path) = self.tree(key) {
            return Ok(path);
        }
        let scratch = self.scratch()?;
        let path = scratch.path().join("tree");
        std::fs::create_dir(&path).map_err(Error::io(&path))?;
        make(&path)?;
        let end = self.root.join("trees").join(key);
        std::fs::rename(&path, &end).map_err(Error::io(&end))?;
        Ok(end)
    }

    /// Takes the lock of an entry; waits for whoever has it. `key` is a file name.
    pub fn lock(&self, key: &str) -> Result<Guard, Error> {
        let path = self.root.join("locks").join(key);
        let file = File::options()
            .create(true)
            .write(true)
            .truncate(false)
            .open(&path)
            .map_err(Error::io(&path))?;
        wait_for(&file).map_err(Error::io(&path))?;
        Ok(Guard(file))
    }

    /// A folder of one's own on the cache's file system, removed when it is dropped, or by the
    /// next process if this one is killed.
    pub fn scratch(&self) -> Result<Scratch, Error> {
        let parent = self.root.join("scratch");
        loop {
            let folder = tempfile::Builder::new()
                .prefix("")
                .tempdir_in(&parent)
                .map_err(Error::io(&parent))?;
            // Between its making and the lock another process may have swept it away.
            let file = match File::open(folder.path()) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                file => file.map_err(Error::io(folder.path()))?,
            };
            wait_for(&file).map_err(Error::io(folder.path()))?;
            if folder.path().is_dir() {
                return Ok(Scratch { folder, _lock: file });
            }
        }
    }

    /// Removes the scratch folders that nobody holds. What cannot be removed stays: it harms
    /// nobody.
    fn sweep(&self) {
        let Ok(entries) = std::fs::read_dir(self.root.join("scratch")) else { return };
        for entry in entries.flatten() {
            let Ok(file) = File::open(entry.path()) else { continue };
            if flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok() {
                let _ = std::fs::remove_dir_all(entry.path());
            }
        }
    }
}

/// Holds the lock of an entry until it is dropped.
#[derive(Debug)]
pub struct Guard(#[expect(dead_code, reason = "held for its lock")] File);

/// A folder for what is being written.
#[derive(Debug)]
pub struct Scratch {
    folder: tempfile::TempDir,
    _lock: File,
}

impl Scratch {
    /// Where it is.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }
}

/// A blob that is being written. Dropped before [`finish`](Self::finish), it leaves nothing.
#[derive(Debug)]
pub struct BlobWriter {
    file: File,
    path: PathBuf,
    digest: Sha256,
    size: u64,
    cache: Cache,
    scratch: Scratch,
}

impl BlobWriter {
    /// Bytes written so far.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The hash of what was written so far.
    pub fn hash(&self) -> Hash {
        Hash(self.digest.clone().finalize().into())
    }

    /// Forgets what was written.
    pub fn restart(&mut self) -> Result<(), Error> {
        self.file.set_len(0).map_err(Error::io(&self.path))?;
        io::Seek::rewind(&mut self.file).map_err(Error::io(&self.path))?;
        self.digest = Sha256::new();
        self.size = 0;
        Ok(())
    }

    /// Writes, with the cache's error.
    pub fn append(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.write_all(bytes).map_err(Error::io(&self.path))
    }

    /// Puts the blob into the cache if its hash is the expected one.
    pub fn finish(self, expected: Hash) -> Result<PathBuf, Error> {
        let got = self.hash();
        if got != expected {
            return Err(Error::WrongHash { expected, got });
        }
        let end = self.cache.blob_path(expected);
        std::fs::rename(&self.path, &end).map_err(Error::io(&end))?;
        drop(self.scratch);
        Ok(end)
    }
}

impl Write for BlobWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.digest.update(&bytes[..written]);
        self.size += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

fn remove(path: &Path) -> Result<(), Error> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Error::io(path)(error)),
        _ => Ok(()),
    }
}

fn wait_for(file: &File) -> io::Result<()> {
    loop {
        match flock(file, FlockOperation::LockExclusive) {
            Err(rustix::io::Errno::INTR) => {}
            other => return Ok(other?),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_blob_is_there_only_when_it_is_whole_and_right() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::open_at(folder.path()).unwrap();
        let hash = Hash::of(b"hello");
        let mut writer = cache.write_blob().unwrap();
        writer.append(b"hel").unwrap();
        assert_eq!(cache.blob(hash).unwrap(), None);
        writer.append(b"lo").unwrap();
        let path = writer.finish(hash).unwrap();
        assert_eq!(cache.blob(hash).unwrap(), Some(path));

        let mut writer = cache.write_blob().unwrap();
        writer.append(b"hallo").unwrap();
        let error = writer.finish(hash).unwrap_err();
        assert!(matches!(error, Error::WrongHash { expected, got }
                if expected == hash && got == Hash::of(b"hallo")),);
        assert_eq!(std::fs::read_dir(folder.path().join("scratch")).unwrap().count(), 0);
    }

    #[test]
    fn a_harmed_blob_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::open_at(folder.path()).unwrap();
        let (hash, path) = cache.store_blob(b"hello").unwrap();
        std::fs::write(&path, b"").unwrap();
        assert_eq!(cache.blob(hash).unwrap(), None);
        assert!(!path.exists());
    }

    #[test]
    fn a_torn_made_file_is_as_good_as_none() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::open_at(folder.path()).unwrap();
        assert_eq!(cache.made("key").unwrap(), None);
        cache.store_made("key", b"content").unwrap();
        assert_eq!(cache.made("key").unwrap().as_deref(), Some(&b"content"[..]));
        let path = folder.path().join("made/key");
        let bytes = std::fs::read(&path).unwrap();
        std::fs::write(&path, &bytes[..bytes.len() - 1]).unwrap();
        assert_eq!(cache.made("key").unwrap(), None);
    }

    #[test]
    fn what_a_killed_process_left_is_swept_and_what_is_held_stays() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::open_at(folder.path()).unwrap();
        let left = folder.path().join("scratch/left");
        std::fs::create_dir(&left).unwrap();
        std::fs::write(left.join("blob"), b"half").unwrap();
        let held = cache.scratch().unwrap();
        std::fs::write(held.path().join("blob"), b"half").unwrap();
        Cache::open_at(folder.path()).unwrap();
        assert!(!left.exists());
        assert!(held.path().join("blob").exists());
    }

    #[test]
    fn a_scratch_folder_is_had_while_others_sweep() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::open_at(folder.path()).unwrap();
        let done = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    while !done.load(std::sync::atomic::Ordering::Relaxed) {
                        cache.sweep();
                    }
                });
            }
            let write = |_| {
                let scratch = cache.scratch()?;
                let path = scratch.path().join("x");
                std::fs::write(&path, "x").map_err(Error::io(&path))
            };
            let all: Result<Vec<()>, Error> = (0..3000).map(write).collect();
            done.store(true, std::sync::atomic::Ordering::Relaxed);
            all.unwrap();
        });
    }

    #[test]
    fn a_tree_that_fails_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::open_at(folder.path()).unwrap();
        let failed: Result<_, Error> = cache.tree_or_make("key", |path| {
            std::fs::write(path.join("half"), b"").unwrap();
            Err(Error::NoHome)
        });
        assert!(matches!(failed, Err(Error::NoHome)));
        assert_eq!(cache.tree("key"), None);
        assert_eq!(std::fs::read_dir(folder.path().join("scratch")).unwrap().count(), 0);
        let made: Result<_, Error> = cache.tree_or_make("key", |path| {
            std::fs::write(path.join("whole"), b"").unwrap();
            Ok(())
        });
        assert_eq!(made.unwrap(), cache.tree("key").unwrap());
    }

    #[test]
    fn two_makers_of_one_tree_make_it_once() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::open_at(folder.path()).unwrap();
        let made = std::sync::atomic::AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    let tree: Result<_, Error> = cache.tree_or_make("key", |_| {
                        made.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                        Ok(())
                    });
                    assert!(tree.unwrap().is_dir());
                });
            }
        });
        assert_eq!(made.into_inner(), 1);
    }

    #[test]
    fn hashes_read_back() {
        let hash = Hash::of(b"");
        assert_eq!(
            hash.to_string(),
            "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
        );
        assert_eq!(Hash::parse(&hash.to_string()), Some(hash));
        assert_eq!(Hash::parse("e3"), None);
        assert_eq!(Hash::parse(&"g".repeat(64)), None);
    }
}
