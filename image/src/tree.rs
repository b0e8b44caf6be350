//! The file tree of an image: what the guest finds under `/`, before it is written as anything.
//!
//! A tree is a map from absolute paths to nodes, in the order of the paths' bytes, so that the
//! same input is written as the same bytes. Parents exist before their children. Directories
//! that merged `/usr` (bin, sbin, lib, lib64) are symlinks, and a path through one of them is
//! kept under the directory that it means. Two files for one path are an error that names who
//! brought each of them.

mod disk;
mod edit;
pub mod filter;
pub mod package;
mod resolve;

pub use disk::DiskError;
pub use resolve::Last;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use thiserror::Error;

/// Modification time of what is in an image, in seconds since the epoch, but for the files of
/// container images: fixed, so that it says nothing about the build; not 0, which some programs
/// take for "unknown".
pub const MTIME: u32 = 1;

/// Directories of the root that live in /usr since Debian 12.
const MERGED: [&str; 4] = ["bin", "lib", "lib64", "sbin"];

/// As many symlinks as the kernel follows in one path, path_resolution(7).
const LINKS: usize = 40;

/// A file tree.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tree {
    /// Absolute, normalised path to node; the root itself is not in it. Written by
    /// [`Tree::insert`] and its kin alone, which keep the rule that every parent is a directory.
    nodes: BTreeMap<String, Node>,
    /// Set once by [`Tree::new`] or [`Tree::plain`].
    layout: Layout,
}

/// Whether /bin, /lib, /lib64 and /sbin are directories of their own.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Layout {
    /// They are symlinks into /usr.
    #[default]
    Merged,
    /// They are what somebody puts there.
    Plain,
}

/// One path's file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// What it is.
    pub kind: Kind,
    /// Permission bits with setuid, setgid and sticky: 0 to 0o7777.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// When it was last changed, in seconds since the epoch: [`MTIME`], or what a container
    /// image says, since Python takes a file for stale whose time is another.
    pub mtime: u32,
    /// Extended attributes by their full names, xattr(7). An initramfs cannot hold them.
    pub xattrs: BTreeMap<String, Arc<[u8]>>,
    /// Who brought it: a package (`crun 1.21-1`), a unit, `appliance.toml`, `rouse`.
    pub origin: Arc<str>,
}

/// What a node is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// A regular file. Names that share one `Arc`, mode and owner are hard links of each other.
    File(Arc<[u8]>),
    /// A directory.
    Directory,
    /// A symlink and what it says.
    Symlink(String),
    /// A character device: major, minor.
    CharacterDevice(u32, u32),
    /// A block device: major, minor.
    BlockDevice(u32, u32),
    /// A named pipe.
    Fifo,
}

impl Node {
    /// A file of root's.
    pub fn file(content: impl Into<Arc<[u8]>>, mode: u32, origin: impl Into<Arc<str>>) -> Self {
        Self::new(Kind::File(content.into()), mode, origin)
    }

    /// A directory of root's.
    pub fn directory(mode: u32, origin: impl Into<Arc<str>>) -> Self {
        Self::new(Kind::Directory, mode, origin)
    }

    /// A symlink; its mode has no meaning and is always 0o777.
    pub fn symlink(target: impl Into<String>, origin: impl Into<Arc<str>>) -> Self {
        Self::new(Kind::Symlink(target.into()), 0o777, origin)
    }

    /// Any node of root's.
    pub fn new(kind: Kind, mode: u32, origin: impl Into<Arc<str>>) -> Self {
        let (mode, xattrs, origin) = (mode & 0o7777, BTreeMap::new(), origin.into());
        Self { kind, mode, uid: 0, gid: 0, mtime: MTIME, xattrs, origin }
    }

    /// The same node with another owner.
    pub fn owned_by(mut self, uid: u32, gid: u32) -> Self {
        (self.uid, self.gid) = (uid, gid);
        self
    }

    /// Bytes of content; 0 for all but files.
    pub fn size(&self) -> u64 {
        match &self.kind {
            Kind::File(content) => content.len() as u64,
            _ => 0,
        }
    }

    fn is_directory(&self) -> bool {
        self.kind == Kind::Directory
    }

    /// Whether it is the same but for who brought it, and when.
    fn is_same(&self, other: &Self) -> bool {
        (self.mode, self.uid, self.gid) == (other.mode, other.uid, other.gid)
            && self.kind == other.kind
            && self.xattrs == other.xattrs
    }
}

/// Why something cannot be put into a tree.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum TreeError {
    /// Relative, with `..`, or with a zero byte.
    #[error("put `{path}` of {origin} into the image: that is no absolute path of a file")]
    Path {
        /// As it came.
        path: String,
        /// Who brought it.
        origin: Arc<str>,
    },
    /// Two different files for one path.
    #[error("put {path} into the image: {first} and {second} both bring it")]
    Conflict {
        /// The path.
        path: String,
        /// Who brought what is there.
        first: Arc<str>,
        /// Who brought the other.
        second: Arc<str>,
    },
    /// A parent is something else than a directory.
    #[error("put {path} of {second} into the image: {parent} of {first} is no directory")]
    NotADirectory {
        /// The path.
        path: String,
        /// The parent.
        parent: String,
        /// Who brought the parent.
        first: Arc<str>,
        /// Who brought the path.
        second: Arc<str>,
    },
}

impl Tree {
    /// An empty tree, in which /bin, /lib, /lib64 and /sbin lie in /usr, as in Debian.
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty tree, in which every path is what it says: a container image's.
    pub fn plain() -> Self {
        Self { layout: Layout::Plain, ..Self::default() }
    }

    /// Puts a node at a path. Missing parents are made, 0o755 and root's. What is there already
    /// may be the same again; a directory keeps what it had, unless it was made as a parent.
    pub fn insert(&mut self, path: &str, node: Node) -> Result<(), TreeError> {
        let mut path = self
            .normalise(path)
            .ok_or_else(|| TreeError::Path { path: path.into(), origin: node.origin.clone() })?;
        if path.is_empty() {
            return Ok(()); // the root is always there
        }
        if let (true, Some(real)) = (node.is_directory(), self.merged(&path)) {
            path = real;
        }
        self.make_parents(&path, &node.origin)?;
        let Some(present) = self.nodes.get_mut(&path) else {
            self.nodes.insert(path, node);
            return Ok(());
        };
        if present.is_directory() && node.is_directory() {
            if &*present.origin == IMPLIED {
                *present = node;
            }
            return Ok(());
        }
        if present.is_same(&node) {
            return Ok(());
        }
        let first = present.origin.clone();
        Err(TreeError::Conflict { path, first, second: node.origin })
    }

    /// Puts a node at a path, in place of a file that is there: for what the person who wrote
    /// the appliance asked for in words. A directory is not replaced by something else.
    pub fn replace(&mut self, path: &str, node: Node) -> Result<(), TreeError> {
        if let Some(path) = self.normalise(path)
            && self.nodes.get(&path).is_some_and(|present| !present.is_directory())
        {
            self.nodes.remove(&path);
        }
        self.insert(path, node)
    }

    /// Makes a directory with its parents.
    pub fn make_directory(&mut self, path: &str, mode: u32, origin: &str) -> Result<(), TreeError> {
        self.insert(path, Node::directory(mode, origin))
    }

    /// Puts another tree below a directory of this one; `/` merges the two.
    pub fn graft(&mut self, below: &str, other: &Self) -> Result<(), TreeError> {
        let below = below.trim_end_matches('/');
        for (path, node) in other.iter() {
            self.insert(&format!("{below}{path}"), node.clone())?;
        }
        Ok(())
    }

    /// The node at a path; symlinks are not followed, but for the merged directories.
    pub fn node(&self, path: &str) -> Option<&Node> {
        self.nodes.get(&self.normalise(path)?)
    }

    /// The content of the file that a path leads to, through symlinks.
    pub fn content(&self, path: &str) -> Option<&Arc<[u8]>> {
        match &self.node(self.trace(path)?.last()?)?.kind {
            Kind::File(content) => Some(content),
            _ => None,
        }
    }

    /// All paths that the kernel touches on the way to a file: each symlink, and at last the
    /// file itself. None if it leads nowhere.
    pub fn trace(&self, path: &str) -> Option<Vec<String>> {
        let mut touched = Vec::new();
        let mut rest: Vec<String> = components(path).rev().map(str::to_owned).collect();
        let mut here = String::new();
        while let Some(name) = rest.pop() {
            if name == ".." {
                here.truncate(here.rfind('/').unwrap_or(0));
                continue;
            }
            let next = self.normalise(&format!("{here}/{name}"))?;
            let Some(node) = self.nodes.get(&next) else {
                // A merged directory is there even before somebody brings the symlink.
                here = match self.merged(&next) {
                    Some(real) if self.nodes.contains_key(&real) => real,
                    _ => return None,
                };
                continue;
            };
            match &node.kind {
                Kind::Symlink(target) => {
                    if target.starts_with('/') {
                        here.clear();
                    }
                    rest.extend(components(target).rev().map(str::to_owned));
                    touched.push(next);
                    if touched.len() > LINKS {
                        return None;
                    }
                }
                _ => here = next,
            }
        }
        touched.push(here);
        Some(touched)
    }

    /// Keeps what `keep` wants, and the directories that lead to it.
    pub fn retain(&mut self, mut keep: impl FnMut(&str, &Node) -> bool) {
        let mut kept = BTreeSet::new();
        for (path, node) in &self.nodes {
            if keep(path, node) {
                let ends = path.match_indices('/').skip(1).map(|(end, _)| end);
                kept.extend(ends.chain([path.len()]).map(|end| path[..end].to_owned()));
            }
        }
        self.nodes.retain(|path, _| kept.contains(path));
    }

    /// Names of what lies right in a folder, sorted.
    pub fn names_in(&self, folder: &str) -> Vec<String> {
        let prefix = format!("{}/", folder.trim_end_matches('/'));
        let below = self.iter().filter_map(|(path, _)| path.strip_prefix(&prefix));
        below.filter(|name| !name.is_empty() && !name.contains('/')).map(str::to_owned).collect()
    }

    /// All nodes in the order in which they are written.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Node)> {
        self.nodes.iter().map(|(path, node)| (path.as_str(), node))
    }

    /// Number of nodes.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// Bytes of content, hard links counted once for each name.
    pub fn size(&self) -> u64 {
        self.nodes.values().map(Node::size).sum()
    }

    /// `/a/b` for `./a//b/`, `/usr/lib/x` for `/lib/x`, nothing for `/`; None for a path that is
    /// relative in another way, or leaves its directory.
    fn normalise(&self, path: &str) -> Option<String> {
        let path = path.strip_prefix('.').filter(|rest| rest.starts_with('/')).unwrap_or(path);
        if !path.starts_with('/') || path.contains('\0') {
            return None;
        }
        let parts: Vec<&str> = components(path).collect();
        if parts.contains(&"..") {
            return None;
        }
        let merges = self.layout == Layout::Merged && parts.len() > 1 && MERGED.contains(&parts[0]);
        let mut normal = String::from(if merges { "/usr" } else { "" });
        for part in parts {
            normal.push('/');
            normal.push_str(part);
        }
        Some(normal)
    }

    /// `/usr/lib` for `/lib`, if they are merged.
    fn merged(&self, path: &str) -> Option<String> {
        let name = path.strip_prefix('/')?;
        let merges = self.layout == Layout::Merged && MERGED.contains(&name);
        merges.then(|| format!("/usr/{name}"))
    }

    fn make_parents(&mut self, path: &str, origin: &Arc<str>) -> Result<(), TreeError> {
        for (end, _) in path.match_indices('/').skip(1) {
            let parent = &path[..end];
            match self.nodes.get(parent) {
                Some(node) if node.is_directory() => {}
                Some(node) => {
                    return Err(TreeError::NotADirectory {
                        path: path.into(),
                        parent: parent.into(),
                        first: node.origin.clone(),
                        second: origin.clone(),
                    });
                }
                None => {
                    self.nodes.insert(parent.into(), Node::directory(0o755, IMPLIED));
                }
            }
        }
        Ok(())
    }
}

/// Origin of a directory that nobody brought, but somebody's file needs.
const IMPLIED: &str = "its contents";

fn components(path: &str) -> impl DoubleEndedIterator<Item = &str> {
    path.split('/').filter(|part| !part.is_empty() && *part != ".")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str, origin: &str) -> Node {
        Node::file(text.as_bytes(), 0o644, origin)
    }

    fn paths(tree: &Tree) -> Vec<&str> {
        tree.iter().map(|(path, _)| path).collect()
    }

    #[test]
    fn parents_come_first_and_merged_directories_lie_in_usr() {
        let mut tree = Tree::new();
        tree.insert("./lib/x86_64-linux-gnu/libc.so.6", file("c", "libc6")).unwrap();
        tree.insert("/sbin//init", file("i", "rouse")).unwrap();
        tree.insert("/bin", Node::directory(0o755, "base-files")).unwrap();
        let expected = [
            "/usr",
            "/usr/bin",
            "/usr/lib",
            "/usr/lib/x86_64-linux-gnu",
            "/usr/lib/x86_64-linux-gnu/libc.so.6",
            "/usr/sbin",
            "/usr/sbin/init",
        ];
        assert_eq!(paths(&tree), expected);
        assert_eq!(tree.node("/lib/x86_64-linux-gnu/libc.so.6").unwrap().size(), 1);
    }

    #[test]
    fn two_files_for_one_path_are_a_conflict_that_names_both() {
        let mut tree = Tree::new();
        tree.insert("/etc/motd", file("a", "base 1")).unwrap();
        tree.insert("/etc/motd", file("a", "same 1")).unwrap();
        let error = tree.insert("/etc/motd", file("b", "other 2")).unwrap_err();
        let conflict = TreeError::Conflict {
            path: "/etc/motd".into(),
            first: "base 1".into(),
            second: "other 2".into(),
        };
        assert_eq!(error, conflict);
        assert_eq!(
            error.to_string(),
            "put /etc/motd into the image: base 1 and other 2 both bring it"
        );
        tree.replace("/etc/motd", file("b", "appliance.toml")).unwrap();
        assert_eq!(tree.content("/etc/motd").unwrap().as_ref(), b"b");
        let error = tree.replace("/etc", file("b", "appliance.toml")).unwrap_err();
        assert!(matches!(error, TreeError::Conflict { .. }), "{error}");
    }

    #[test]
    fn a_file_below_a_file_or_outside_is_refused() {
        let mut tree = Tree::new();
        tree.insert("/run", Node::symlink("tmp", "a")).unwrap();
        let error = tree.insert("/run/x", file("", "b")).unwrap_err();
        assert!(matches!(error, TreeError::NotADirectory { .. }), "{error}");
        for path in ["x", "../x", "/a/../b", "/a\0b", ".x"] {
            let error = tree.insert(path, file("", "b")).unwrap_err();
            assert_eq!(error, TreeError::Path { path: path.into(), origin: "b".into() });
        }
    }

    #[test]
    fn a_plain_tree_merges_nothing() {
        let mut tree = Tree::plain();
        tree.insert("/bin/echo", file("", "x")).unwrap();
        assert_eq!(paths(&tree), ["/bin", "/bin/echo"]);
        assert_eq!(tree.trace("/bin/echo").unwrap(), ["/bin/echo"]);
    }

    #[test]
    fn an_explicit_directory_wins_over_an_implied_one() {
        let mut tree = Tree::new();
        tree.insert("/var/lib/x", file("", "b")).unwrap();
        tree.insert("/var/lib", Node::directory(0o700, "b")).unwrap();
        tree.insert("/var/lib", Node::directory(0o755, "c")).unwrap();
        assert_eq!(tree.node("/var/lib").unwrap().mode, 0o700);
    }

    #[test]
    fn a_trace_names_every_symlink() {
        let mut tree = Tree::new();
        tree.insert("/usr/lib/a/libx.so.1.2", file("x", "x")).unwrap();
        tree.insert("/usr/lib/a/libx.so.1", Node::symlink("libx.so.1.2", "x")).unwrap();
        tree.insert("/usr/lib64/ld.so", Node::symlink("../lib/a/libx.so.1", "x")).unwrap();
        let touched = ["/usr/lib64/ld.so", "/usr/lib/a/libx.so.1", "/usr/lib/a/libx.so.1.2"];
        assert_eq!(tree.trace("/lib64/ld.so").unwrap(), touched);
        tree.insert("/lib64", Node::symlink("usr/lib64", "base")).unwrap();
        assert_eq!(tree.trace("/lib64/ld.so").unwrap()[1..], touched);
        tree.insert("/loop", Node::symlink("loop", "x")).unwrap();
        assert_eq!(tree.trace("/loop"), None);
        assert_eq!(tree.trace("/usr/lib/missing"), None);
    }

    #[test]
    fn retain_keeps_the_way_to_what_is_kept() {
        let mut tree = Tree::new();
        tree.insert("/a/b/c", file("", "x")).unwrap();
        tree.insert("/a/d", file("", "x")).unwrap();
        tree.insert("/e/f", file("", "x")).unwrap();
        tree.retain(|path, _| path == "/a/b/c");
        assert_eq!(paths(&tree), ["/a", "/a/b", "/a/b/c"]);
        assert!(tree.remove("/a/b") && !tree.remove("/a/b"));
        assert_eq!(paths(&tree), ["/a"]);
    }

    #[test]
    fn a_graft_lies_below() {
        let mut rootfs = Tree::plain();
        rootfs.insert("/bin/echo", file("", "x")).unwrap();
        let mut tree = Tree::new();
        tree.graft("/images/echo/", &rootfs).unwrap();
        let expected = ["/images", "/images/echo", "/images/echo/bin", "/images/echo/bin/echo"];
        assert_eq!(paths(&tree), expected);
    }
}
