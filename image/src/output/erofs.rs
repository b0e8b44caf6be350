//! A read-only disk: erofs, made by Debian's mkfs.erofs from a tar archive that never touches a
//! disk of ours.
//!
//! A tar archive says who owns what, so no privilege is needed. The file system's id and times are
//! fixed, and so is the number of threads that compress (one alone cuts large files elsewhere than
//! several), so that the same tree is written as the same bytes by the same mkfs.erofs.
//!
//! Measured on the 81 MB of configs/podman, by zstd at level 9: 30.04 MB with 64 KiB compressed
//! together, 29.87 MB with 128 KiB and the ends of files beside their inodes, 29.35 MB with 256 KiB;
//! level 12 saves 0.4 % of that in twice the time. lzma saves 16 %, and takes it back at every read
//! of the guest. The ends of files in one place (`-Efragments`) would save another 0.4 %, but with
//! them mkfs.erofs 1.8.6 writes zeros for some small files of some archives, and says nothing.

use super::cpio;
use crate::tree::{Kind, MTIME, Node, Tree};
use std::collections::HashMap;
use std::io::{self, BufWriter, Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use thiserror::Error;

/// The file system's id: nothing mounts by it.
const UUID: &str = "726f7573-6500-4000-8000-000000000000";
/// Compression, the bytes that are compressed together, and where the ends of files go.
const COMPRESSION: [&str; 3] = ["-zzstd,level=9", "-C262144", "-Eztailpacking"];

/// Why there is no disk.
#[derive(Debug, Error)]
pub enum ErofsError {
    /// mkfs.erofs cannot be started.
    #[error("start mkfs.erofs")]
    Start(#[source] io::Error),
    /// It took no more input, and said nothing.
    #[error("hand the files to mkfs.erofs")]
    Feed(#[source] io::Error),
    /// It ended with an error.
    #[error("make a disk of the files: mkfs.erofs says {0}")]
    Failed(String),
}

/// Writes a tree to a file that is not there yet. `mkfs` is mkfs.erofs without arguments;
/// `progress` is called with numbers of bytes that add up to [`Tree::size`].
pub fn write(
    tree: &Tree,
    path: &Path,
    mut mkfs: Command,
    progress: impl FnMut(u64),
) -> Result<(), ErofsError> {
    mkfs.args(["--quiet", "--tar=f", "--workers=2", "-x-1"])
        .args(["-U", UUID])
        .arg(format!("-T{MTIME}"))
        .args(COMPRESSION)
        .arg(path)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    let mut child = mkfs.spawn().map_err(ErofsError::Start)?;
    let (input, complaints) = (child.stdin.take(), child.stderr.take());
    // It may say much while it is fed.
    let complaints = std::thread::spawn(move || {
        let mut text = Vec::new();
        if let Some(mut complaints) = complaints {
            let _ = complaints.read_to_end(&mut text);
        }
        String::from_utf8_lossy(&text).trim().to_owned()
    });
    let fed = match input {
        Some(input) => archive(tree, BufWriter::with_capacity(1 << 16, input), progress),
        None => Ok(()),
    };
    let status = child.wait().map_err(ErofsError::Start)?;
    let complaints = complaints.join().unwrap_or_default();
    if !status.success() {
        let said = complaints.lines().last().map_or_else(|| status.to_string(), str::to_owned);
        return Err(ErofsError::Failed(said));
    }
    fed.map_err(ErofsError::Feed)
}

/// The tree as a tar archive.
fn archive(tree: &Tree, to: impl Write, mut progress: impl FnMut(u64)) -> io::Result<()> {
    let mut archive = tar::Builder::new(to);
    let mut first_names: HashMap<_, &str> = HashMap::new();
    for (path, node) in tree.iter() {
        let name = path.trim_start_matches('/');
        let mut header = header(node);
        let names = node.xattrs.keys().map(|name| format!("SCHILY.xattr.{name}"));
        let xattrs: Vec<(String, &[u8])> =
            names.zip(node.xattrs.values().map(|value| &value[..])).collect();
        archive
            .append_pax_extensions(xattrs.iter().map(|(name, value)| (name.as_str(), *value)))?;
        match &node.kind {
            Kind::File(content) => {
                let first = cpio::key(node).map(|key| *first_names.entry(key).or_insert(name));
                if let Some(first) = first.filter(|first| *first != name) {
                    header.set_entry_type(tar::EntryType::Link);
                    header.set_size(0);
                    archive.append_link(&mut header, name, first)?;
                } else {
                    archive.append_data(&mut header, name, &content[..])?;
                }
                progress(content.len() as u64);
            }
            Kind::Symlink(target) => archive.append_link(&mut header, name, target)?,
            _ => archive.append_data(&mut header, name, io::empty())?,
        }
    }
    archive.into_inner()?.flush()
}

fn header(node: &Node) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_mode(node.mode);
    header.set_uid(node.uid.into());
    header.set_gid(node.gid.into());
    header.set_mtime(node.mtime.into());
    header.set_size(node.size());
    header.set_entry_type(match node.kind {
        Kind::File(_) => tar::EntryType::Regular,
        Kind::Directory => tar::EntryType::Directory,
        Kind::Symlink(_) => tar::EntryType::Symlink,
        Kind::CharacterDevice(..) => tar::EntryType::Char,
        Kind::BlockDevice(..) => tar::EntryType::Block,
        Kind::Fifo => tar::EntryType::Fifo,
    });
    if let Kind::CharacterDevice(major, minor) | Kind::BlockDevice(major, minor) = node.kind {
        // A GNU header has both.
        let _ = header.set_device_major(major);
        let _ = header.set_device_minor(minor);
    }
    header
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    fn tree() -> Tree {
        let mut tree = Tree::plain();
        let shared: Arc<[u8]> = Arc::from(&b"perl"[..]);
        let device = Node::new(Kind::CharacterDevice(1, 3), 0o666, "x");
        tree.insert("/bin/perl", Node::file(shared.clone(), 0o4755, "x").owned_by(7, 8)).unwrap();
        tree.insert("/bin/perl5", Node::file(shared, 0o4755, "x").owned_by(7, 8)).unwrap();
        tree.insert("/dev/null", device).unwrap();
        tree.insert("/link", Node::symlink("bin/perl", "x")).unwrap();
        tree
    }

    #[test]
    fn the_archive_says_who_owns_what() {
        let mut bytes = Vec::new();
        let mut told = 0;
        archive(&tree(), &mut bytes, |more| told += more).unwrap();
        assert_eq!(told, tree().size());
        let mut reader = tar::Archive::new(&bytes[..]);
        let entry = |entry: io::Result<tar::Entry<'_, &[u8]>>| {
            let entry = entry.unwrap();
            let header = entry.header();
            let link = entry.link_name().unwrap().map(|path| path.display().to_string());
            let path = entry.path().unwrap().display().to_string();
            let owner = (header.uid().unwrap(), header.gid().unwrap());
            (path, header.mode().unwrap(), owner, link.unwrap_or_default())
        };
        let found: Vec<_> = reader.entries().unwrap().map(entry).collect();
        let expected = [
            ("bin", 0o755, (0, 0), ""),
            ("bin/perl", 0o4755, (7, 8), ""),
            ("bin/perl5", 0o4755, (7, 8), "bin/perl"),
            ("dev", 0o755, (0, 0), ""),
            ("dev/null", 0o666, (0, 0), ""),
            ("link", 0o777, (0, 0), "bin/perl"),
        ];
        let expected: Vec<_> = expected
            .iter()
            .map(|(path, mode, owner, link)| (path.to_string(), *mode, *owner, link.to_string()))
            .collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn what_mkfs_says_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let mut mkfs = Command::new("sh");
        mkfs.args(["-c", "cat >/dev/null; echo first >&2; echo no space >&2; exit 1"]);
        let error = write(&tree(), &folder.path().join("x"), mkfs, |_| {}).unwrap_err();
        assert!(matches!(error, ErofsError::Failed(said) if said == "no space"));
        let missing = Command::new("/no/such/mkfs");
        let error = write(&tree(), &folder.path().join("x"), missing, |_| {}).unwrap_err();
        assert!(matches!(error, ErofsError::Start(_)));
    }
}
