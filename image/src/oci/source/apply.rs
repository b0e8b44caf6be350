//! Lays layers over each other: the files that a container of the image sees.
//!
//! What a layer hides of those below it is taken away first, so that it never hides its own
//! files, whatever the order in its archive (layer.md, "Whiteouts").

use super::layer::{Attributes, Entry, Kind, Layer, LayerError};
use crate::tree::{Last, Node, Tree};
use std::sync::Arc;

/// Puts a layer over the ones that are there.
pub(super) fn apply(tree: &mut Tree, layer: &Layer, origin: &Arc<str>) -> Result<(), LayerError> {
    for entry in &layer.entries {
        match entry {
            Entry::Whiteout(path) => {
                if let Ok(path) = resolve(tree, path) {
                    tree.remove(&path);
                }
            }
            Entry::Opaque(folder) => {
                let Ok(folder) = resolve(tree, &format!("{folder}/.")) else { continue };
                tree.remove_below(&folder);
            }
            Entry::Node(..) | Entry::Link(..) => {}
        }
    }
    for entry in &layer.entries {
        match entry {
            Entry::Node(path, attributes, kind) => put(tree, path, attributes, kind, origin)?,
            Entry::Link(path, target) => link(tree, path, target)?,
            Entry::Whiteout(_) | Entry::Opaque(_) => {}
        }
    }
    Ok(())
}

fn put(
    tree: &mut Tree,
    path: &str,
    attributes: &Attributes,
    kind: &Kind,
    origin: &Arc<str>,
) -> Result<(), LayerError> {
    if path.is_empty() {
        return Ok(()); // the root has no node
    }
    let mut node = Node::new(kind.clone(), attributes.mode, origin.clone())
        .owned_by(attributes.uid, attributes.gid);
    if let Kind::Symlink(_) = kind {
        node.mode = 0o777;
    }
    node.mtime = attributes.mtime;
    node.xattrs = attributes.xattrs.clone();
    let real = resolve(tree, path)?;
    place(tree, &real, path, node)
}

fn link(tree: &mut Tree, path: &str, target: &str) -> Result<(), LayerError> {
    let missing = || LayerError::Link { path: path.into(), target: target.into() };
    let from = resolve(tree, target).map_err(|_| missing())?;
    let node = tree.node(&from).filter(|node| node.kind != Kind::Directory);
    let node = node.ok_or_else(missing)?.clone();
    let real = resolve(tree, path)?;
    if real == from {
        return Ok(());
    }
    place(tree, &real, path, node)
}

/// A folder over a folder changes what that is, and keeps what is in it; all else is replaced.
fn place(tree: &mut Tree, real: &str, path: &str, node: Node) -> Result<(), LayerError> {
    let both_folders = node.kind == Kind::Directory
        && tree.node(real).is_some_and(|present| present.kind == Kind::Directory);
    if !both_folders {
        tree.remove(real);
    }
    tree.set(real, node).map_err(|_| LayerError::NoWay { path: path.into(), at: real.into() })
}

/// Where a path of an archive leads: symlinks on the way are followed as if the image were all
/// there is; the last part is not. What is not there is a folder to be made.
fn resolve(tree: &Tree, path: &str) -> Result<String, LayerError> {
    // What a lower layer had as a file may be a folder now, without a word about it.
    tree.resolve("", path, Last::Kept).map_err(|at| LayerError::NoWay { path: path.into(), at })
}

#[cfg(test)]
mod tests {
    use super::super::layer::LARGEST;
    use super::*;
    use std::io::Write;

    /// An archive in the making; names are written raw, as hostile as they are.
    struct Tar(tar::Builder<Vec<u8>>);

    impl Tar {
        fn new() -> Self {
            Self(tar::Builder::new(Vec::new()))
        }

        fn add(mut self, name: &str, kind: tar::EntryType, link: &str, content: &[u8]) -> Self {
            let mut header = tar::Header::new_gnu();
            let raw = header.as_gnu_mut().unwrap();
            raw.name[..name.len()].copy_from_slice(name.as_bytes());
            raw.linkname[..link.len()].copy_from_slice(link.as_bytes());
            header.set_entry_type(kind);
            header.set_mode(0o4755);
            header.set_uid(7);
            header.set_gid(8);
            header.set_mtime(9);
            if matches!(kind, tar::EntryType::Char | tar::EntryType::Block) {
                header.set_device_major(1).unwrap();
                header.set_device_minor(3).unwrap();
            }
            header.set_size(content.len() as u64);
            header.set_cksum();
            self.0.append(&header, content).unwrap();
            self
        }

        fn file(self, name: &str, content: &str) -> Self {
            self.add(name, tar::EntryType::Regular, "", content.as_bytes())
        }

        fn folder(self, name: &str) -> Self {
            self.add(name, tar::EntryType::Directory, "", b"")
        }

        fn symlink(self, name: &str, target: &str) -> Self {
            self.add(name, tar::EntryType::Symlink, target, b"")
        }

        fn link(self, name: &str, target: &str) -> Self {
            self.add(name, tar::EntryType::Link, target, b"")
        }

        fn bytes(self) -> Vec<u8> {
            self.0.into_inner().unwrap()
        }
    }

    fn read(bytes: &[u8]) -> Result<Layer, LayerError> {
        Ok(Layer::read(bytes, LARGEST, |_| {})?.0)
    }

    fn image(layers: impl IntoIterator<Item = Tar>) -> Result<Tree, LayerError> {
        let mut tree = Tree::plain();
        for layer in layers {
            apply(&mut tree, &read(&layer.bytes())?, &Arc::from("test"))?;
        }
        Ok(tree)
    }

    fn paths(tree: &Tree) -> Vec<&str> {
        tree.iter().map(|(path, _)| path).collect()
    }

    fn text<'a>(tree: &'a Tree, path: &str) -> &'a str {
        std::str::from_utf8(tree.content(path).unwrap()).unwrap()
    }

    #[test]
    fn a_layer_hides_what_is_below_and_not_its_own() {
        let lower = Tar::new()
            .folder("etc/")
            .file("etc/a", "1")
            .file("etc/b", "1")
            .file("opt/x/y", "1")
            .file("opt/x/z/deep", "1")
            .symlink("lib", "usr/lib")
            .file("usr/lib/old", "1");
        // Whiteouts may come before or after what they are about.
        let upper = Tar::new()
            .file("etc/b", "2")
            .file("etc/.wh.b", "")
            .file("etc/.wh.a", "")
            .file("opt/x/y", "2")
            .file("opt/x/.wh..wh..opq", "")
            .file("lib/.wh.old", "")
            .file(".wh..wh.plnk/1", "")
            .file("lib/new", "2");
        let tree = image([lower, upper]).unwrap();
        let expected = [
            "/etc",
            "/etc/b",
            "/lib",
            "/opt",
            "/opt/x",
            "/opt/x/y",
            "/usr",
            "/usr/lib",
            "/usr/lib/new",
        ];
        assert_eq!(paths(&tree), expected);
        assert_eq!((text(&tree, "/etc/b"), text(&tree, "/opt/x/y")), ("2", "2"));
    }

    #[test]
    fn modes_owners_times_devices_and_links_are_kept() {
        let layer = Tar::new()
            .file("bin/su", "su")
            .link("bin/other", "/bin/su")
            .add("dev/null", tar::EntryType::Char, "", b"")
            .add("dev/loop", tar::EntryType::Block, "", b"")
            .add("run/fifo", tar::EntryType::Fifo, "", b"");
        let tree = image([layer]).unwrap();
        let node = tree.node("/bin/su").unwrap();
        assert_eq!((node.mode, node.uid, node.gid, node.mtime), (0o4755, 7, 8, 9));
        let (Kind::File(one), Kind::File(other)) =
            (&node.kind, &tree.node("/bin/other").unwrap().kind)
        else {
            panic!("both are files")
        };
        assert!(Arc::ptr_eq(one, other), "they are one file");
        assert_eq!(tree.node("/dev/null").unwrap().kind, Kind::CharacterDevice(1, 3));
        assert_eq!(tree.node("/dev/loop").unwrap().kind, Kind::BlockDevice(1, 3));
        assert_eq!(tree.node("/run/fifo").unwrap().kind, Kind::Fifo);
    }

    #[test]
    fn extended_attributes_and_long_names_come_along() {
        let long = format!("{}/{}", "d".repeat(120), "f".repeat(120));
        let mut builder = tar::Builder::new(Vec::new());
        let value: &[u8] = &[1, 0, b'\n', b'=', 255];
        builder.append_pax_extensions([("SCHILY.xattr.security.capability", value)]).unwrap();
        let mut header = tar::Header::new_ustar();
        header.set_size(1);
        header.set_mode(0o755);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        builder.append_data(&mut header, "ping", &b"x"[..]).unwrap();
        builder.append_data(&mut header, &long, &b"x"[..]).unwrap();
        let layer = read(&builder.into_inner().unwrap()).unwrap();
        let mut tree = Tree::plain();
        apply(&mut tree, &layer, &Arc::from("test")).unwrap();
        let xattrs = &tree.node("/ping").unwrap().xattrs;
        assert_eq!(xattrs["security.capability"].as_ref(), value);
        assert!(tree.node(&format!("/{long}")).unwrap().xattrs.is_empty());
    }

    #[test]
    fn what_is_replaced_is_gone_and_folders_keep_what_is_in_them() {
        let lower = Tar::new().file("a/x", "1").file("b", "1").symlink("c", "a");
        let upper = Tar::new().file("a", "2").folder("b").file("b/y", "2").folder("c");
        let tree = image([lower, upper]).unwrap();
        assert_eq!(paths(&tree), ["/a", "/b", "/b/y", "/c"]);
        let again = Tar::new().folder("b");
        let lower = Tar::new().file("b/y", "1");
        assert_eq!(paths(&image([lower, again]).unwrap()), ["/b", "/b/y"]);
    }

    #[test]
    fn nothing_leaves_the_image() {
        let inside = Tar::new()
            .symlink("up", "../../../../etc")
            .file("up/passwd", "x")
            .symlink("abs", "/srv")
            .file("abs/file", "y")
            .file("/absolute", "z")
            .link("hard", "/absolute");
        let tree = image([inside]).unwrap();
        assert_eq!(text(&tree, "/etc/passwd"), "x");
        assert_eq!(text(&tree, "/srv/file"), "y");
        assert_eq!(text(&tree, "/hard"), "z");
        for name in ["../x", "a/../../x", "/../x", "a/.."] {
            let error = image([Tar::new().file(name, "")]).unwrap_err();
            assert!(matches!(error, LayerError::Name { .. }), "{name}: {error}");
        }
        for (name, target) in [("a", "../../etc/passwd"), ("a", "a/../b")] {
            let error = image([Tar::new().link(name, target)]).unwrap_err();
            assert!(matches!(error, LayerError::Name { .. }), "{target}: {error}");
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let link = |error: LayerError| matches!(error, LayerError::Link { .. });
        assert!(link(image([Tar::new().link("a", "b")]).unwrap_err()));
        assert!(link(image([Tar::new().folder("b").link("a", "b")]).unwrap_err()));
        let no_way = |error: LayerError| matches!(error, LayerError::NoWay { .. });
        assert!(no_way(image([Tar::new().file("a", "").file("a/b", "")]).unwrap_err()));
        assert!(no_way(image([Tar::new().symlink("a", "a").file("a/b", "")]).unwrap_err()));
        let loops = Tar::new().symlink("a", "b").symlink("b", "a").file("a/b", "");
        assert!(no_way(image([loops]).unwrap_err()));
        for name in [".wh.", ".wh..", "a/.wh..."] {
            let error = image([Tar::new().file(name, "")]).unwrap_err();
            assert!(matches!(error, LayerError::Name { .. }), "{name}");
        }
        let long = "x".repeat(99);
        assert!(image([Tar::new().file(&long, "")]).is_ok());
    }

    #[test]
    fn compressions_are_known_by_their_bytes_and_share_a_hash() {
        let plain = Tar::new().file("a", &"content".repeat(1000)).bytes();
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(&plain).unwrap();
        let gzip = gzip.finish().unwrap();
        let zstd = zstd::encode_all(&plain[..], 1).unwrap();
        let hash = |bytes: &[u8]| Layer::read(bytes, LARGEST, |_| {}).unwrap().1;
        assert_eq!(hash(&plain), crate::cache::Hash::of(&plain).to_string());
        assert_eq!((hash(&gzip), hash(&zstd)), (hash(&plain), hash(&plain)));
        // Cut anywhere, it is an error or another content, never a panic, never the same hash.
        for whole in [&plain, &gzip, &zstd] {
            for end in (0..whole.len()).step_by(1 + whole.len() / 97) {
                if let Ok((_, got)) = Layer::read(&whole[..end], LARGEST, |_| {}) {
                    assert_ne!(got, hash(&plain));
                }
            }
        }
    }

    #[test]
    fn a_layer_that_unpacks_to_too_much_is_refused_as_it_does() {
        let zeros = vec![0_u8; 10 << 20];
        let tar = Tar::new().add("zeros", tar::EntryType::Regular, "", &zeros).bytes();
        let small = zstd::encode_all(&tar[..], 1).unwrap();
        assert!(small.len() < 100_000);
        let error = Layer::read(&small[..], 1 << 20, |_| {}).unwrap_err();
        assert!(matches!(error, LayerError::TooLarge { limit: 1_048_576 }), "{error:?}");
        // A header that promises eight exbibytes, and has nothing behind it.
        let mut header = tar::Header::new_gnu();
        header.as_gnu_mut().unwrap().name[0] = b'a';
        header.set_size(1 << 62);
        header.set_entry_type(tar::EntryType::Regular);
        header.set_cksum();
        let error = Layer::read(&header.as_bytes()[..], LARGEST, |_| {}).unwrap_err();
        assert!(matches!(error, LayerError::TooLarge { .. }), "{error:?}");
        // Less, but still not there.
        header.set_size(1 << 30);
        header.set_cksum();
        let error = Layer::read(&header.as_bytes()[..], LARGEST, |_| {}).unwrap_err();
        assert!(matches!(error, LayerError::Read(_)), "{error:?}");
    }

    #[test]
    fn no_bytes_make_it_panic() {
        use rand::{Rng, SeedableRng};
        let mut random = rand::rngs::StdRng::seed_from_u64(7);
        let good = Tar::new()
            .folder("a/")
            .file("a/b", "content")
            .symlink("l", "a")
            .file("l/c", "x")
            .link("h", "a/b")
            .file("a/.wh.b", "")
            .bytes();
        for _ in 0..3000 {
            let mut bytes = good.clone();
            for _ in 0..random.gen_range(1..20) {
                let at = random.gen_range(0..bytes.len());
                bytes[at] = random.r#gen();
                // Most changes stop at the checksum: mend it now and then.
                let block = at / 512 * 512;
                if random.gen_bool(0.7) && block + 512 <= bytes.len() {
                    let sum: u32 = (0..512)
                        .map(|n| match n {
                            148..156 => 32,
                            n => u32::from(bytes[block + n]),
                        })
                        .sum();
                    bytes[block + 148..block + 155]
                        .copy_from_slice(format!("{sum:06o}\0").as_bytes());
                    bytes[block + 155] = b' ';
                }
            }
            let Ok(layer) = read(&bytes) else { continue };
            let mut tree = Tree::plain();
            if apply(&mut tree, &layer, &Arc::from("test")).is_ok() {
                for (path, _) in tree.iter() {
                    assert!(path.starts_with('/') && !path.split('/').any(|part| part == ".."));
                    let parent = &path[..path.rfind('/').unwrap()];
                    let folder = |node: &Node| node.kind == Kind::Directory;
                    assert!(parent.is_empty() || tree.node(parent).is_some_and(folder), "{path}");
                }
            }
        }
    }
}
