//! Disks that keep what guests write: one file for each VM's name, made, checked and grown here,
//! before the VM boots.
//!
//! The files lie in `$ROUSE_DATA_DIR`, else `$XDG_DATA_HOME/rouse`, else `~/.local/share/rouse`,
//! each as `NAME.ext4`. Debian's e2fsprogs from the cache does the work on the file, so that the
//! guest carries no tools, nobody needs privileges, and a file system is only ever touched by one of
//! guest and host:
//!
//! | what is there | what is done |
//! |---|---|
//! | nothing | mke2fs on a file beside it, which then takes its place in one step |
//! | a disk | `e2fsck -p`: the journal of a guest that was killed is played back, small faults are mended |
//! | one that is smaller than asked for | the same, the file is enlarged, resize2fs |
//! | one whose growth was interrupted | the same: the file is larger than the file system says |
//! | one that e2fsck does not dare to mend | the VM is not started |
//!
//! A lock on the file keeps two away from each other; the VM's process takes it again for as long as
//! the VM lives.

use crate::debian::tools::Program;
use rustix::fs::FlockOperation;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::Command;
use thiserror::Error;

/// Names the folder of disks.
pub const VARIABLE: &str = "ROUSE_DATA_DIR";
/// Exit codes of e2fsck from here on mean that something is left to mend, e2fsck(8). 1 and 2 say
/// that all was mended.
const LEFT_TO_MEND: i32 = 4;
/// ext4's superblock and its fields: bytes from its beginning.
const SUPERBLOCK: u64 = 1024;
const MAGIC: u16 = 0xef53;

/// Why a VM has no disk.
#[derive(Debug, Error)]
pub enum DiskError {
    /// There is no place for disks.
    #[error("find a folder for disks: {VARIABLE}, XDG_DATA_HOME and HOME are not set")]
    NoFolder,
    /// The host's file system refused.
    #[error("use the disk {}", path.display())]
    Io {
        /// The disk.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Another VM has it.
    #[error("use the disk {}: a running VM has it", .0.display())]
    Busy(PathBuf),
    /// It is no ext4 file system.
    #[error("use the disk {}: there is no file system in it", .0.display())]
    Foreign(PathBuf),
    /// A tool failed.
    #[error("{what} the disk {}: {said}", path.display())]
    Tool {
        /// `make`, `check`, `grow`.
        what: &'static str,
        /// The disk.
        path: PathBuf,
        /// What the tool said last.
        said: String,
    },
}

/// e2fsprogs, as programs of the cache.
#[derive(Debug, Clone)]
pub struct Tools {
    /// mke2fs(8)
    pub make: Program,
    /// e2fsck(8)
    pub check: Program,
    /// resize2fs(8)
    pub grow: Program,
}

/// The file of a VM's disk.
pub fn path(name: &str) -> Result<PathBuf, DiskError> {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    let absolute = |name: &str| set(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let folder = set(VARIABLE)
        .map(|path| std::path::absolute(&path).unwrap_or_else(|_| path.into()))
        .or_else(|| absolute("XDG_DATA_HOME").map(|path| path.join("rouse")))
        .or_else(|| absolute("HOME").map(|path| path.join(".local/share/rouse")))
        .ok_or(DiskError::NoFolder)?;
    Ok(folder.join(format!("{name}.ext4")))
}

/// Makes a disk of at least `bytes` ready to be mounted; says what was done, for people, if it was
/// more than a look.
pub fn prepare(path: &Path, bytes: u64, tools: &Tools) -> Result<Option<String>, DiskError> {
    match OpenOptions::new().read(true).write(true).open(path) {
        Ok(file) => {
            lock(&file, path)?;
            check_and_grow(&file, path, bytes, tools)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => make(path, bytes, tools).map(Some),
        Err(error) => Err(at(path)(error)),
    }
}

/// Nobody sees it before it is whole.
fn make(path: &Path, bytes: u64, tools: &Tools) -> Result<String, DiskError> {
    let folder = path.parent().unwrap_or(Path::new("/"));
    std::fs::create_dir_all(folder).map_err(at(path))?;
    // It goes when we do, but for a kill -9: then it is written over the next time.
    let partial = path.with_extension("ext4.partial");
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .open(&partial)
        .map_err(at(path))?;
    lock(&file, path)?;
    let made = (|| {
        file.set_len(0).map_err(at(path))?;
        file.set_len(bytes).map_err(at(path))?;
        let mut command = tools.make.command();
        // The package's own, and not this machine's.
        command.env("MKE2FS_CONFIG", tools.make.tree.join("etc/mke2fs.conf"));
        command.args(["-q", "-F", "-t", "ext4", "-m", "1", "-E", "root_owner=0:0"]).arg(&partial);
        run("make", path, command, 1)?;
        file.sync_all().map_err(at(path))?;
        std::fs::rename(&partial, path).map_err(at(path))
    })();
    if made.is_err() {
        let _ = std::fs::remove_file(&partial);
    }
    made.map(|()| format!("made the disk {} ({} MiB)", path.display(), bytes >> 20))
}

fn check_and_grow(
    file: &File,
    path: &Path,
    bytes: u64,
    tools: &Tools,
) -> Result<Option<String>, DiskError> {
    let size = file.metadata().map_err(at(path))?.len();
    let inside = file_system_size(file).map_err(at(path))?;
    let inside = inside.ok_or_else(|| DiskError::Foreign(path.into()))?;
    let grows = bytes > inside;
    let mut check = tools.check.command();
    // resize2fs wants one that was looked through in full.
    check.arg(if grows { "-fp" } else { "-p" }).arg(path);
    run("check", path, check, LEFT_TO_MEND)?;
    if !grows {
        return Ok(None);
    }
    if bytes > size {
        file.set_len(bytes).map_err(at(path))?;
    }
    let mut grow = tools.grow.command();
    grow.arg(path);
    run("grow", path, grow, 1)?;
    file.sync_all().map_err(at(path))?;
    Ok(Some(format!("the disk {} has {} MiB now", path.display(), bytes >> 20)))
}

/// Bytes of the ext4 file system in a file; None if there is none.
fn file_system_size(mut file: &File) -> io::Result<Option<u64>> {
    let mut block = [0; 1024];
    file.seek(SeekFrom::Start(SUPERBLOCK))?;
    match file.read_exact(&mut block) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        other => other?,
    }
    let half = |at: usize| u16::from_le_bytes([block[at], block[at + 1]]);
    let word = |at: usize| u64::from(half(at)) | u64::from(half(at + 2)) << 16;
    // s_magic, s_blocks_count_lo, s_blocks_count_hi, s_log_block_size
    let blocks = word(0x04) | word(0x150) << 32;
    let shift = 10 + word(0x18).min(6);
    Ok((half(0x38) == MAGIC).then(|| blocks << shift))
}

/// Runs a tool; an exit code from `bad` on is a failure.
fn run(what: &'static str, path: &Path, mut command: Command, bad: i32) -> Result<(), DiskError> {
    let output = command.output().map_err(at(path))?;
    if output.status.code().is_some_and(|code| code < bad) {
        return Ok(());
    }
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let said = lines.next_back().map_or_else(|| output.status.to_string(), str::to_owned);
    Err(DiskError::Tool { what, path: path.into(), said })
}

fn lock(file: &File, path: &Path) -> Result<(), DiskError> {
    match rustix::fs::flock(file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(()),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(DiskError::Busy(path.into())),
        Err(error) => Err(at(path)(error.into())),
    }
}

fn at(path: &Path) -> impl Fn(io::Error) -> DiskError + use<> {
    let path = path.to_path_buf();
    move |source| DiskError::Io { path: path.clone(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_superblock_says_how_large_the_file_system_is() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("disk");
        let mut bytes = vec![0; 2048];
        std::fs::write(&path, &bytes).unwrap();
        assert_eq!(file_system_size(&File::open(&path).unwrap()).unwrap(), None);
        bytes[1024 + 0x38..1024 + 0x3a].copy_from_slice(&MAGIC.to_le_bytes());
        bytes[1024 + 0x04..1024 + 0x08].copy_from_slice(&16_384_u32.to_le_bytes());
        bytes[1024 + 0x18] = 2;
        std::fs::write(&path, &bytes).unwrap();
        assert_eq!(file_system_size(&File::open(&path).unwrap()).unwrap(), Some(64 << 20));
        std::fs::write(&path, &bytes[..1500]).unwrap();
        assert_eq!(file_system_size(&File::open(&path).unwrap()).unwrap(), None);
    }

    #[test]
    fn a_disk_that_somebody_has_is_busy() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("disk");
        let first = File::create(&path).unwrap();
        lock(&first, &path).unwrap();
        let second = File::open(&path).unwrap();
        assert!(matches!(lock(&second, &path), Err(DiskError::Busy(_))));
    }
}
