//! The archive that the kernel unpacks: cpio, "newc" (Documentation/driver-api/early-userspace
//! /buffer-format.rst).
//!
//! Each entry is a header of 110 hexadecimal characters, the name with a zero byte, and the
//! content, the latter two padded to four bytes. Names that are hard links of each other carry
//! one inode number; the content stands with the last of them, as cpio(1) does it.

use crate::tree::{Kind, Node, Tree};
use activator::manifest;
use std::collections::HashMap;
use std::io::{self, Write};
use std::sync::Arc;
use thiserror::Error;

const HEADER: usize = 110;
const TRAILER: &str = "TRAILER!!!";

/// Longest name that the kernel reads: PATH_MAX with the zero byte.
const LONGEST_NAME: usize = 4096;

/// What the format cannot hold.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum CpioError {
    /// A file of 4 GiB or more.
    #[error("put {path} into the initramfs: {size} bytes are too many, at most 4294967295 fit")]
    TooLarge {
        /// Which.
        path: String,
        /// Its size in bytes.
        size: u64,
    },
    /// A name of more than 4094 bytes.
    #[error("put {path} into the initramfs: the name is too long")]
    NameTooLong {
        /// Which.
        path: String,
    },
}

/// Files of so many bytes or more have an archive of their own.
const ALONE: u64 = 64 << 10;

/// What is unpacked at once. Inode numbers, and so hard links, count within one.
#[derive(Debug, Default)]
pub struct Archive<'a> {
    /// Paths in their order; parents that are not here are in an archive before.
    entries: Vec<(&'a str, &'a Node)>,
}

/// A tree as archives that follow each other, which the kernel unpacks one by one: first all that
/// is small, and every directory; then the manifest, which changes with every unit, and each large
/// file alone, so that what became of the others can be kept from one image for the next. Checks that the format can hold the tree.
pub fn archives(tree: &Tree) -> Result<Vec<Archive<'_>>, CpioError> {
    let mut all = vec![Archive::default()];
    // Names of one file stay together.
    let mut places = HashMap::new();
    for (path, node) in tree.iter() {
        if path.len() > LONGEST_NAME {
            return Err(CpioError::NameTooLong { path: path.into() });
        }
        if u32::try_from(node.size()).is_err() {
            return Err(CpioError::TooLarge { path: path.into(), size: node.size() });
        }
        let alone = node.size() >= ALONE || path == manifest::PATH;
        let place = match key(node).filter(|_| alone) {
            Some(key) => *places.entry(key).or_insert(all.len()),
            None => 0,
        };
        match all.get_mut(place) {
            Some(archive) => archive.entries.push((path, node)),
            None => all.push(Archive { entries: vec![(path, node)] }),
        }
    }
    Ok(all)
}

/// Bytes that [`write`] writes for a tree; checks that the tree can be written.
pub fn size(tree: &Tree) -> Result<u64, CpioError> {
    Ok(archives(tree)?.iter().map(Archive::size).sum())
}

/// Writes a tree as archives. A tree that [`archives`] refuses is an error of kind
/// `InvalidInput`.
pub fn write(tree: &Tree, mut to: impl Write) -> io::Result<()> {
    let refused = |error| io::Error::new(io::ErrorKind::InvalidInput, error);
    archives(tree).map_err(refused)?.iter().try_for_each(|archive| archive.write(&mut to))
}

impl Archive<'_> {
    /// Bytes that [`Self::write`] writes.
    pub fn size(&self) -> u64 {
        let links = Links::of(&self.entries);
        let entry = |(path, node): &(&str, &Node)| {
            padded(HEADER + path.len()) + padded(content(path, node, &links).len())
        };
        let entries: usize = self.entries.iter().map(entry).sum();
        (entries + padded(HEADER + TRAILER.len() + 1)) as u64
    }

    /// Writes it.
    pub fn write(&self, mut to: impl Write) -> io::Result<()> {
        let links = Links::of(&self.entries);
        let mut number = 0;
        let mut numbers = HashMap::new();
        for (path, node) in &self.entries {
            let link = links.find(node);
            let inode = match link {
                Some(link) => *numbers.entry(link.last).or_insert_with(|| next(&mut number)),
                None => next(&mut number),
            };
            let content = content(path, node, &links);
            let too_large = |_| io::Error::from(io::ErrorKind::InvalidInput);
            let header = Header {
                inode,
                mode: file_type(&node.kind) | node.mode,
                uid: node.uid,
                gid: node.gid,
                mtime: node.mtime,
                links: match (&node.kind, link) {
                    (Kind::Directory, _) => 2,
                    (_, Some(link)) => link.count,
                    (_, None) => 1,
                },
                size: u32::try_from(content.len()).map_err(too_large)?,
                device: match node.kind {
                    Kind::CharacterDevice(major, minor) | Kind::BlockDevice(major, minor) => {
                        (major, minor)
                    }
                    _ => (0, 0),
                },
            };
            // The kernel unpacks relative to its root.
            let name = path.strip_prefix('/').unwrap_or(path);
            entry(&mut to, &header, name, content)?;
        }
        let trailer = Header {
            inode: 0,
            mode: 0,
            uid: 0,
            gid: 0,
            mtime: 0,
            links: 1,
            size: 0,
            device: (0, 0),
        };
        entry(&mut to, &trailer, TRAILER, &[])
    }
}

/// The fields of a header that are not always the same.
struct Header {
    inode: u32,
    mode: u32,
    uid: u32,
    gid: u32,
    mtime: u32,
    links: u32,
    size: u32,
    device: (u32, u32),
}

fn entry(mut to: impl Write, header: &Header, name: &str, content: &[u8]) -> io::Result<()> {
    let fields = [
        header.inode,
        header.mode,
        header.uid,
        header.gid,
        header.links,
        header.mtime,
        header.size,
        0, // the device that the file is on
        0,
        header.device.0,
        header.device.1,
        u32::try_from(name.len() + 1).unwrap_or(u32::MAX),
        0, // newc has no checksum
    ];
    let mut bytes = Vec::with_capacity(padded(HEADER + name.len() + 1));
    bytes.extend(b"070701");
    for field in fields {
        bytes.extend(format!("{field:08x}").bytes());
    }
    bytes.extend(name.bytes());
    bytes.push(0);
    bytes.resize(padded(bytes.len()), 0);
    to.write_all(&bytes)?;
    to.write_all(content)?;
    let padding = padded(content.len()) - content.len();
    to.write_all(&[0; 3][..padding])
}

/// What stands in the archive after the name.
fn content<'a>(path: &str, node: &'a Node, links: &Links<'_>) -> &'a [u8] {
    match &node.kind {
        Kind::File(content) => match links.find(node) {
            Some(link) if link.last != path => &[],
            _ => content,
        },
        Kind::Symlink(target) => target.as_bytes(),
        _ => &[],
    }
}

/// Which files have more than one name.
struct Links<'a>(HashMap<(*const u8, u32, u32, u32), Link<'a>>);

/// One file of several names.
struct Link<'a> {
    count: u32,
    last: &'a str,
}

impl<'a> Links<'a> {
    fn of(entries: &[(&'a str, &'a Node)]) -> Self {
        let mut links = HashMap::new();
        for &(path, node) in entries {
            if let Some(key) = key(node) {
                let link = links.entry(key).or_insert(Link { count: 0, last: path });
                link.count += 1;
                link.last = path;
            }
        }
        links.retain(|_, link| link.count > 1);
        Self(links)
    }

    fn find(&self, node: &Node) -> Option<&Link<'a>> {
        self.0.get(&key(node)?)
    }
}

/// Names with the same key are one file. Empty files are never linked: their `Arc`s may share
/// an address by chance.
pub(super) fn key(node: &Node) -> Option<(*const u8, u32, u32, u32)> {
    match &node.kind {
        Kind::File(content) if !content.is_empty() => {
            Some((Arc::as_ptr(content).cast(), node.mode, node.uid, node.gid))
        }
        _ => None,
    }
}

fn next(number: &mut u32) -> u32 {
    *number += 1;
    *number
}

fn padded(size: usize) -> usize {
    size.next_multiple_of(4)
}

/// The S_IFMT bits, inode(7).
fn file_type(kind: &Kind) -> u32 {
    match kind {
        Kind::File(_) => 0o100_000,
        Kind::Directory => 0o040_000,
        Kind::Symlink(_) => 0o120_000,
        Kind::CharacterDevice(..) => 0o020_000,
        Kind::BlockDevice(..) => 0o060_000,
        Kind::Fifo => 0o010_000,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::MTIME;

    /// An entry as it is read back.
    #[derive(Debug, PartialEq)]
    struct Entry {
        name: String,
        inode: u32,
        mode: u32,
        owner: (u32, u32),
        links: u32,
        mtime: u32,
        device: (u32, u32),
        content: Vec<u8>,
    }

    fn read(mut archive: &[u8]) -> Vec<Entry> {
        let mut entries = Vec::new();
        loop {
            assert_eq!(&archive[..6], b"070701");
            let text = std::str::from_utf8(&archive[6..HEADER]).unwrap();
            let field =
                |index: usize| u32::from_str_radix(&text[index * 8..index * 8 + 8], 16).unwrap();
            let name_end = HEADER + field(11) as usize;
            let name = std::str::from_utf8(&archive[HEADER..name_end - 1]).unwrap().to_owned();
            assert_eq!(archive[name_end - 1], 0);
            let start = padded(name_end);
            let end = start + field(6) as usize;
            let content = archive[start..end].to_vec();
            archive = &archive[padded(end)..];
            if name == TRAILER && archive.is_empty() {
                return entries;
            }
            if name == TRAILER {
                continue;
            }
            entries.push(Entry {
                name,
                inode: field(0),
                mode: field(1),
                owner: (field(2), field(3)),
                links: field(4),
                mtime: field(5),
                device: (field(9), field(10)),
                content,
            });
        }
    }

    fn sample() -> Tree {
        let mut tree = Tree::new();
        let shared: Arc<[u8]> = Arc::from(&b"perl"[..]);
        let device = Node::new(Kind::CharacterDevice(1, 3), 0o666, "rouse");
        tree.insert("/usr/bin/perl", Node::file(shared.clone(), 0o755, "perl")).unwrap();
        tree.insert("/usr/bin/perl5.40", Node::file(shared, 0o755, "perl")).unwrap();
        tree.insert("/dev/null", device).unwrap();
        tree.insert("/etc/odd", Node::file(&b"12345"[..], 0o4640, "x").owned_by(7, 8)).unwrap();
        tree.insert("/etc/empty", Node::file(&b""[..], 0o600, "x")).unwrap();
        tree.insert("/etc/empty2", Node::file(&b""[..], 0o600, "x")).unwrap();
        tree.insert("/bin", Node::symlink("usr/bin", "rouse")).unwrap();
        tree
    }

    #[test]
    fn what_was_written_is_read_back() {
        let mut archive = Vec::new();
        write(&sample(), &mut archive).unwrap();
        assert_eq!(size(&sample()), Ok(archive.len() as u64));
        let entries = read(&archive);
        let names: Vec<&str> = entries.iter().map(|entry| entry.name.as_str()).collect();
        let expected = [
            "bin",
            "dev",
            "dev/null",
            "etc",
            "etc/empty",
            "etc/empty2",
            "etc/odd",
            "usr",
            "usr/bin",
            "usr/bin/perl",
            "usr/bin/perl5.40",
        ];
        assert_eq!(names, expected);
        let find = |name: &str| entries.iter().find(|entry| entry.name == name).unwrap();
        let odd = Entry {
            name: "etc/odd".into(),
            inode: 7,
            mode: 0o104_640,
            owner: (7, 8),
            links: 1,
            mtime: MTIME,
            device: (0, 0),
            content: b"12345".into(),
        };
        assert_eq!(*find("etc/odd"), odd);
        assert_eq!((find("dev/null").mode, find("dev/null").device), (0o020_666, (1, 3)));
        assert_eq!((find("bin").mode, &*find("bin").content), (0o120_777, &b"usr/bin"[..]));
        assert_eq!((find("dev").mode, find("dev").links), (0o040_755, 2));
        assert_ne!(find("etc/empty").inode, find("etc/empty2").inode);
    }

    #[test]
    fn hard_links_share_an_inode_and_the_last_has_the_content() {
        let mut archive = Vec::new();
        write(&sample(), &mut archive).unwrap();
        let entries = read(&archive);
        let [first, last] = &entries[entries.len() - 2..] else { panic!() };
        assert_eq!((first.inode, first.links, last.links), (last.inode, 2, 2));
        assert_eq!((&*first.content, &*last.content), (&b""[..], &b"perl"[..]));
    }

    #[test]
    fn a_large_file_stands_alone_with_its_links_behind_its_parents() {
        let mut tree = sample();
        let large: Arc<[u8]> = vec![7; ALONE as usize].into();
        tree.insert("/a", Node::file(large.clone(), 0o755, "x")).unwrap();
        tree.insert("/usr/lib/z", Node::file(large, 0o755, "x")).unwrap();
        tree.insert(manifest::PATH, Node::file(&b"units"[..], 0o644, "x")).unwrap();
        let archives = archives(&tree).unwrap();
        let alone: Vec<usize> = archives.iter().map(|it| it.entries.len()).collect();
        assert_eq!(alone[1..], [2, 1]);
        let mut bytes = Vec::new();
        write(&tree, &mut bytes).unwrap();
        assert_eq!(size(&tree), Ok(bytes.len() as u64));
        let entries = read(&bytes);
        let [.., first, last, units] = &entries[..] else { panic!() };
        assert_eq!((&*first.name, &*last.name), ("a", "usr/lib/z"));
        assert_eq!(units.name, manifest::PATH[1..]);
        assert_eq!((first.inode, first.links, last.inode), (last.inode, 2, 1));
        assert_eq!((first.content.len(), last.content.len() as u64), (0, ALONE));
        assert!(entries[..entries.len() - 3].iter().any(|entry| entry.name == "usr/lib"));
    }

    #[test]
    fn a_name_that_the_kernel_would_not_read_is_refused() {
        let mut tree = Tree::new();
        let path = format!("/{}", "x/".repeat(2049));
        tree.insert(&path, Node::file(&b""[..], 0o600, "x")).unwrap();
        assert!(matches!(size(&tree), Err(CpioError::NameTooLong { .. })));
    }
}
