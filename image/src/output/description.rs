//! `image.json`: what an image is, for `rouse inspect` and `rouse run`.

use crate::tree::{Kind, Node, Tree};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::Path;

/// Raised when a field changes its meaning or goes.
pub const FORMAT: u32 = 2;

/// What an image is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Description {
    /// [`FORMAT`] of the rouse that wrote it.
    pub format: u32,
    /// The appliance's name.
    pub name: String,
    /// `x86_64` or `aarch64`.
    pub architecture: String,
    /// [`Fingerprint`] of all that the image was made from: when it is the same again, there is
    /// nothing to build.
    pub fingerprint: String,
    /// Memory of the VM in MiB.
    pub memory: u32,
    /// Processors of the VM.
    pub cpus: u32,
    /// Release of the kernel, `6.12.57+deb13-cloud-amd64`.
    pub kernel_release: String,
    /// Names of the units, sorted.
    pub units: Vec<String>,
    /// Debian packages with versions that the image has files of, sorted.
    pub packages: Vec<String>,
    /// Container images by their references in `.container` files, and the folders that they
    /// have in the guest.
    pub images: BTreeMap<String, String>,
    /// Where those of them come from that the lock names, and their digests.
    #[serde(default)]
    pub image_sources: BTreeMap<String, String>,
    /// The kernel's file; filled in when the image is written, like all that follows.
    pub kernel: Part,
    /// The initramfs' file.
    pub initramfs: Part,
    /// Size of the initramfs before compression, in bytes.
    pub initramfs_raw_size: u64,
    /// The disk's file, if the guest's files are on a disk; the initramfs is small then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub root: Option<Part>,
    /// Documentation that packages brought and the image left out.
    pub left_out: LeftOut,
    /// The manifest's file.
    pub manifest: Part,
    /// All files of the guest with a content, by path.
    pub files: Vec<FileEntry>,
    /// SHA-256 of those that `[files]` of appliance.toml brought, by path.
    #[serde(default)]
    pub own: BTreeMap<String, String>,
}

/// One file of an image's folder.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// In bytes.
    pub size: u64,
    /// SHA-256, hexadecimal.
    pub sha256: String,
}

/// Files that are not in the image.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeftOut {
    /// How many.
    pub files: u64,
    /// Their bytes.
    pub size: u64,
}

/// One file of the guest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileEntry {
    /// Absolute.
    pub path: String,
    /// In bytes.
    pub size: u64,
    /// The package, unit or program that brought it.
    pub origin: String,
}

impl Description {
    /// Reads the description of the image in a folder. None if there is no image, or one of
    /// another format.
    pub fn read(folder: &Path) -> Option<Self> {
        let text = std::fs::read(folder.join(super::DESCRIPTION)).ok()?;
        let description: Self = serde_json::from_slice(&text).ok()?;
        (description.format == FORMAT).then_some(description)
    }

    /// Whether the folder holds an image that was made from the same things, and that is whole
    /// as far as the sizes of its files tell.
    pub fn is_current(folder: &Path, fingerprint: &str) -> bool {
        let Some(description) = Self::read(folder) else { return false };
        let parts = [
            (super::KERNEL, &description.kernel),
            (super::INITRAMFS, &description.initramfs),
            (super::MANIFEST, &description.manifest),
        ];
        let whole = |(name, part): (&str, &Part)| {
            folder.join(name).metadata().is_ok_and(|metadata| metadata.len() == part.size)
        };
        let root = description.root.iter().map(|root| (super::ROOT, root));
        description.fingerprint == fingerprint && parts.into_iter().chain(root).all(whole)
    }

    /// The text of `image.json`; the same for the same description.
    pub fn to_json(&self) -> String {
        // Plain data has no way to fail.
        let mut text = serde_json::to_string_pretty(self).unwrap_or_default();
        text.push('\n');
        text
    }

    /// Lists the files of a tree.
    pub(super) fn describe_files(&mut self, tree: &Tree) {
        self.format = FORMAT;
        let files = tree.iter().filter(|(_, node)| matches!(node.kind, Kind::File(_)));
        let entry = |(path, node): (&str, &Node)| FileEntry {
            path: path.into(),
            size: node.size(),
            origin: node.origin.to_string(),
        };
        self.files = files.map(entry).collect();
        let own = tree.iter().filter(|(_, node)| &*node.origin == crate::config::FILE);
        let digest = |(path, node): (&str, &Node)| match &node.kind {
            Kind::File(content) => Some((path.into(), hexadecimal(&Sha256::digest(content)))),
            _ => None,
        };
        self.own = own.filter_map(digest).collect();
    }
}

impl Part {
    /// Of a file with that content.
    pub fn of(content: &[u8]) -> Self {
        Self { size: content.len() as u64, sha256: hexadecimal(&Sha256::digest(content)) }
    }
}

/// SHA-256 over everything that an image depends on, each with a label and its length, so that
/// nothing can be moved from one to the other.
#[derive(Debug, Clone, Default)]
pub struct Fingerprint(Sha256);

impl Fingerprint {
    /// Starts with what this program is: a rouse of other sources builds anew. The sources, and
    /// not the executable: that has the paths of its own build in it, and reading it takes longer
    /// than all else when there is nothing to build.
    pub fn new() -> Self {
        let mut fingerprint = Self::default();
        fingerprint.add("rouse", env!("ROUSE_SOURCES").as_bytes());
        fingerprint.add("format", &FORMAT.to_le_bytes());
        fingerprint.add("level", &super::LEVEL.to_le_bytes());
        fingerprint.add("level of large images", &super::LEVEL_OF_LARGE.to_le_bytes());
        fingerprint
    }

    /// Adds one thing, in a fixed order.
    pub fn add(&mut self, label: &str, content: &[u8]) {
        for part in [label.as_bytes(), content] {
            self.0.update((part.len() as u64).to_le_bytes());
            self.0.update(part);
        }
    }

    /// Adds a tree: every path, kind, mode, owner and content.
    pub fn add_tree(&mut self, label: &str, tree: &Tree) {
        self.add(label, &(tree.len() as u64).to_le_bytes());
        for (path, node) in tree.iter() {
            let (kind, content): (String, &[u8]) = match &node.kind {
                Kind::File(content) => ("file".into(), content),
                Kind::Directory => ("directory".into(), &[]),
                Kind::Symlink(target) => ("symlink".into(), target.as_bytes()),
                Kind::CharacterDevice(major, minor) => (format!("c {major} {minor}"), &[]),
                Kind::BlockDevice(major, minor) => (format!("b {major} {minor}"), &[]),
                Kind::Fifo => ("fifo".into(), &[]),
            };
            let Node { mode, uid, gid, mtime, .. } = node;
            self.add(&format!("{path}\0{kind} {mode} {uid} {gid} {mtime}"), content);
            for (name, value) in &node.xattrs {
                self.add(&format!("{path}\0xattr {name}"), value);
            }
        }
    }

    /// 64 hexadecimal digits.
    pub fn finish(self) -> String {
        hexadecimal(&self.0.finalize())
    }
}

/// Counts and hashes what goes through it.
pub(super) struct Hashing<W> {
    to: W,
    hash: Sha256,
    size: u64,
}

impl<W: Write> Hashing<W> {
    pub(super) fn new(to: W) -> Self {
        Self { to, hash: Sha256::new(), size: 0 }
    }

    pub(super) fn finish(self) -> (W, Part) {
        let sha256 = hexadecimal(&self.hash.finalize());
        (self.to, Part { size: self.size, sha256 })
    }
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.to.write(bytes)?;
        self.hash.update(&bytes[..written]);
        self.size += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fingerprint_sees_every_difference() {
        let tree = |path: &str, mode, content: &str| {
            let mut tree = Tree::new();
            tree.insert(path, Node::file(content.as_bytes(), mode, "x")).unwrap();
            let mut fingerprint = Fingerprint::new();
            fingerprint.add_tree("tree", &tree);
            fingerprint.finish()
        };
        let all = [
            tree("/a", 0o644, "b"),
            tree("/a", 0o600, "b"),
            tree("/ab", 0o644, ""),
            tree("/a", 0o644, ""),
        ];
        let different: std::collections::BTreeSet<&String> = all.iter().collect();
        assert_eq!(different.len(), 4);
        assert_eq!(all[0], tree("/a", 0o644, "b"));
        assert_eq!(all[0].len(), 64);
    }

    #[test]
    fn a_part_has_the_well_known_hash() {
        let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(Part::of(b""), Part { size: 0, sha256: empty.into() });
    }
}
