//! A `.deb`: deb(5). An ar archive with `control.tar` and `data.tar`, each compressed.
//!
//! The entries come out usr-merged: `bin`, `sbin`, `lib`, `lib32`, `lib64` and `libx32` at the root
//! become the same in `usr`, as on any Debian system since bookworm. Paths that lead out of the
//! package are an error, so whoever writes an entry need only mind symbolic links.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::path::{Component, Path, PathBuf};

/// Folders at the root that are links into `usr`.
pub const MERGED: [&str; 6] = ["bin", "sbin", "lib", "lib32", "lib64", "libx32"];

/// Why a package cannot be read or unpacked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be read, or its compression is broken.
    #[error("read package {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is not laid out as deb(5) says.
    #[error("read package {path}: {reason}")]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: &'static str,
    },
    /// A path in it leads out of it.
    #[error("unpack package {path}: it has an entry {entry:?}, which leads out of it")]
    Escapes {
        /// The file.
        path: PathBuf,
        /// The path inside.
        entry: PathBuf,
    },
    /// An entry cannot be written.
    #[error("write {path}")]
    Write {
        /// The path.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// A file, folder or other thing in a package.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its path without a leading slash; never empty, never with `..`.
    pub path: PathBuf,
    /// Permissions with set-uid, set-gid and sticky bits: at most 07777.
    pub mode: u32,
    /// Its owner.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
    /// When it was last changed, in seconds since 1970.
    pub mtime: u64,
    /// What it is.
    pub kind: Kind,
}

/// What an [`Entry`] is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// A file and what is in it.
    File(Vec<u8>),
    /// A folder.
    Directory,
    /// A symbolic link to this, as written.
    Symlink(PathBuf),
    /// Another name of this entry, which came before; a path as [`Entry::path`].
    Hardlink(PathBuf),
    /// A character device.
    Character {
        /// Its major number.
        major: u32,
        /// Its minor number.
        minor: u32,
    },
    /// A block device.
    Block {
        /// Its major number.
        major: u32,
        /// Its minor number.
        minor: u32,
    },
    /// A named pipe.
    Fifo,
}

/// Calls `f` for each entry of a package, in the package's order. The root folder is left out.
pub fn entries<E: From<Error>>(deb: &Path, f: impl FnMut(Entry) -> Result<(), E>) -> Result<(), E> {
    each(deb, member(deb, "data.tar")?, f)
}

/// What [`repacked_entries`] reads in a tenth of the time that [`entries`] takes, since most
/// packages are compressed by xz: the same, with zstd, and a third larger.
pub fn repack(deb: &Path) -> Result<Vec<u8>, Error> {
    let read = |source| Error::Read { path: deb.to_owned(), source };
    let mut packed = zstd::Encoder::new(Vec::new(), 1).map_err(read)?;
    io::copy(&mut member(deb, "data.tar")?, &mut packed).map_err(read)?;
    packed.finish().map_err(read)
}

/// [`entries`] of what [`repack`] made of a package; `name` is for errors.
pub fn repacked_entries<E: From<Error>>(
    name: &Path,
    repacked: &[u8],
    f: impl FnMut(Entry) -> Result<(), E>,
) -> Result<(), E> {
    let read = |source| Error::Read { path: name.to_owned(), source };
    each(name, zstd::Decoder::new(repacked).map_err(read)?, f)
}

fn each<E: From<Error>>(
    deb: &Path,
    data: impl Read,
    mut f: impl FnMut(Entry) -> Result<(), E>,
) -> Result<(), E> {
    let mut archive = tar::Archive::new(data);
    let read = |source| Error::Read { path: deb.to_owned(), source };
    for entry in archive.entries().map_err(read)? {
        let mut entry = entry.map_err(read)?;
        if let Some(entry) = convert(deb, &mut entry)? {
            f(entry)?;
        }
    }
    Ok(())
}

/// The text of a package's `control` file.
pub fn control(deb: &Path) -> Result<String, Error> {
    let mut archive = tar::Archive::new(member(deb, "control.tar")?);
    let read = |source| Error::Read { path: deb.to_owned(), source };
    for entry in archive.entries().map_err(read)? {
        let mut entry = entry.map_err(read)?;
        if entry.path().map_err(read)?.file_name().is_some_and(|name| name == "control") {
            let mut text = String::new();
            entry.read_to_string(&mut text).map_err(read)?;
            return Ok(text);
        }
    }
    Err(Error::Malformed { path: deb.to_owned(), reason: "it has no control file" })
}

/// A member of the ar archive by its name without the compression's ending, decompressed.
fn member(deb: &Path, name: &str) -> Result<Box<dyn Read>, Error> {
    let read = |source| Error::Read { path: deb.to_owned(), source };
    let malformed = |reason| Error::Malformed { path: deb.to_owned(), reason };
    let mut file = BufReader::with_capacity(1 << 16, File::open(deb).map_err(read)?);
    let mut magic = [0; 8];
    file.read_exact(&mut magic).map_err(read)?;
    if &magic != b"!<arch>\n" {
        return Err(malformed("it is no ar archive"));
    }
    loop {
        let mut header = [0; 60];
        match file.read_exact(&mut header) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                return Err(malformed("it has no such member as data.tar or control.tar"));
            }
            other => other.map_err(read)?,
        }
        let text = std::str::from_utf8(&header).map_err(|_| malformed("odd ar header"))?;
        let size = text.get(48..58).and_then(|size| size.trim().parse::<u64>().ok());
        let size = size.ok_or_else(|| malformed("odd ar header"))?;
        let found = text.get(..16).unwrap_or_default().trim_end().trim_end_matches('/');
        if let Some(ending) = found.strip_prefix(name) {
            let data = file.take(size);
            return Ok(match ending {
                "" => Box::new(data),
                ".xz" => Box::new(lzma_rust2::XzReader::new(data, true)),
                ".gz" => Box::new(flate2::read::GzDecoder::new(data)),
                ".zst" => Box::new(zstd::Decoder::new(data).map_err(read)?),
                _ => return Err(malformed("its compression is none of xz, zst and gz")),
            });
        }
        // Members begin at even offsets.
        let skip = i64::try_from(size + size % 2).map_err(|_| malformed("odd ar header"))?;
        file.seek_relative(skip).map_err(read)?;
        let at = file.stream_position().map_err(read)?;
        if at > file.get_ref().metadata().map_err(read)?.len() {
            return Err(malformed("it is cut short"));
        }
        file.seek(SeekFrom::Start(at)).map_err(read)?;
    }
}

fn convert(deb: &Path, entry: &mut tar::Entry<impl Read>) -> Result<Option<Entry>, Error> {
    use tar::EntryType;
    let read = |source| Error::Read { path: deb.to_owned(), source };
    let path = inside(deb, &entry.path().map_err(read)?)?;
    if path.as_os_str().is_empty() {
        return Ok(None);
    }
    let target = |entry: &tar::Entry<_>| {
        let target = entry.link_name().map_err(read)?.map(|target| target.into_owned());
        let reason = "a link leads nowhere";
        target.ok_or_else(|| Error::Malformed { path: deb.to_owned(), reason })
    };
    let device = |header: &tar::Header| {
        let major = header.device_major().map_err(read)?.unwrap_or(0);
        let minor = header.device_minor().map_err(read)?.unwrap_or(0);
        Ok((major, minor))
    };
    let kind = match entry.header().entry_type() {
        EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
            let expected = usize::try_from(entry.size()).unwrap_or(0).min(1 << 28);
            let mut content = Vec::with_capacity(expected);
            entry.read_to_end(&mut content).map_err(read)?;
            Kind::File(content)
        }
        EntryType::Directory => Kind::Directory,
        EntryType::Symlink => Kind::Symlink(target(entry)?),
        EntryType::Link => Kind::Hardlink(inside(deb, &target(entry)?)?),
        EntryType::Char => {
            let (major, minor) = device(entry.header())?;
            Kind::Character { major, minor }
        }
        EntryType::Block => {
            let (major, minor) = device(entry.header())?;
            Kind::Block { major, minor }
        }
        EntryType::Fifo => Kind::Fifo,
        _ => return Ok(None),
    };
    let header = entry.header();
    let small = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
    Ok(Some(Entry {
        path,
        mode: header.mode().map_err(read)? & 0o7777,
        uid: small(header.uid().map_err(read)?),
        gid: small(header.gid().map_err(read)?),
        mtime: header.mtime().map_err(read)?,
        kind,
    }))
}

/// A path of a package as [`Entry::path`] has it.
fn inside(deb: &Path, path: &Path) -> Result<PathBuf, Error> {
    let mut clean = PathBuf::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => clean.push(name),
            Component::CurDir | Component::RootDir => {}
            Component::ParentDir | Component::Prefix(_) => {
                return Err(Error::Escapes { path: deb.to_owned(), entry: path.to_owned() });
            }
        }
    }
    let first = clean.components().next().and_then(|first| first.as_os_str().to_str());
    let merged = first.is_some_and(|first| MERGED.contains(&first));
    // The links themselves, in base-files, stay where they are.
    let is_link = clean.components().count() == 1;
    Ok(if merged && !is_link { Path::new("usr").join(clean) } else { clean })
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// What a test puts into a package: path, kind, mode.
    pub(crate) type Item<'a> = (&'a str, Kind, u32);

    /// Writes a package with these entries, `data.tar` compressed by the ending.
    pub(crate) fn package(path: &Path, items: &[Item<'_>], ending: &str) {
        let data = compress(tar_of(items), ending);
        let control = compress(
            tar_of(&[("./control", Kind::File(b"Package: test\n".to_vec()), 0o644)]),
            ".gz",
        );
        let mut bytes = b"!<arch>\n".to_vec();
        let members = [
            ("debian-binary".to_owned(), b"2.0\n".to_vec()),
            ("control.tar.gz".to_owned(), control),
            (format!("data.tar{ending}"), data),
        ];
        for (name, content) in members {
            let size = content.len();
            let header = format!("{name:<16}{:<12}{:<6}{:<6}{:<8}{size:<10}`\n", 0, 0, 0, "100644");
            bytes.extend(header.as_bytes());
            bytes.extend(&content);
            if size % 2 == 1 {
                bytes.push(b'\n');
            }
        }
        std::fs::write(path, bytes).unwrap();
    }

    fn compress(tar: Vec<u8>, ending: &str) -> Vec<u8> {
        use std::io::Write;
        match ending {
            ".gz" => {
                let mut gz = flate2::write::GzEncoder::new(Vec::new(), Default::default());
                gz.write_all(&tar).unwrap();
                gz.finish().unwrap()
            }
            ".zst" => zstd::encode_all(&tar[..], 1).unwrap(),
            ".xz" => xz(&tar),
            _ => tar,
        }
    }

    pub(crate) fn xz(bytes: &[u8]) -> Vec<u8> {
        use std::io::Write;
        let options = lzma_rust2::XzOptions::with_preset(1);
        let mut xz = lzma_rust2::XzWriter::new(Vec::new(), options).unwrap();
        xz.write_all(bytes).unwrap();
        xz.finish().unwrap()
    }

    fn tar_of(items: &[Item<'_>]) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        for (path, kind, mode) in items {
            let mut header = tar::Header::new_gnu();
            // Written raw: the tests need paths that a well-behaved writer refuses.
            let name = &mut header.as_gnu_mut().unwrap().name;
            name[..path.len()].copy_from_slice(path.as_bytes());
            header.set_mode(*mode);
            header.set_uid(0);
            header.set_gid(42);
            header.set_mtime(7);
            let mut content = &b""[..];
            let link = |header: &mut tar::Header, target: &Path| {
                let bytes = target.as_os_str().as_encoded_bytes();
                header.as_gnu_mut().unwrap().linkname[..bytes.len()].copy_from_slice(bytes);
            };
            let kind = match kind {
                Kind::File(bytes) => {
                    content = bytes;
                    tar::EntryType::Regular
                }
                Kind::Directory => tar::EntryType::Directory,
                Kind::Symlink(target) => {
                    link(&mut header, target);
                    tar::EntryType::Symlink
                }
                Kind::Hardlink(target) => {
                    link(&mut header, target);
                    tar::EntryType::Link
                }
                Kind::Character { major, minor } => {
                    header.set_device_major(*major).unwrap();
                    header.set_device_minor(*minor).unwrap();
                    tar::EntryType::Char
                }
                Kind::Block { .. } => tar::EntryType::Block,
                Kind::Fifo => tar::EntryType::Fifo,
            };
            header.set_entry_type(kind);
            header.set_size(content.len() as u64);
            header.set_cksum();
            builder.append(&header, content).unwrap();
        }
        builder.into_inner().unwrap()
    }

    fn all(path: &Path) -> Result<Vec<Entry>, Error> {
        let mut all = Vec::new();
        entries(path, |entry| {
            all.push(entry);
            Ok::<_, Error>(())
        })?;
        Ok(all)
    }

    #[test]
    fn entries_come_out_usr_merged_under_every_compression() {
        let folder = tempfile::tempdir().unwrap();
        let items = [
            ("./", Kind::Directory, 0o755),
            ("./bin/", Kind::Directory, 0o755),
            ("./bin/sh", Kind::File(b"#!".to_vec()), 0o4755),
            ("./usr/bin/ash", Kind::Hardlink("./bin/sh".into()), 0o755),
            ("./lib64", Kind::Symlink("usr/lib64".into()), 0o777),
            ("./dev/null", Kind::Character { major: 1, minor: 3 }, 0o666),
        ];
        for ending in [".xz", ".gz", ".zst", ""] {
            let path = folder.path().join("a.deb");
            package(&path, &items, ending);
            let entries = all(&path).unwrap();
            let paths: Vec<_> = entries.iter().map(|entry| entry.path.to_str().unwrap()).collect();
            assert_eq!(paths, ["bin", "usr/bin/sh", "usr/bin/ash", "lib64", "dev/null"]);
            assert_eq!((entries[1].mode, entries[1].gid, entries[1].mtime), (0o4755, 42, 7));
            assert_eq!(entries[1].kind, Kind::File(b"#!".to_vec()));
            assert_eq!(entries[2].kind, Kind::Hardlink("usr/bin/sh".into()));
            assert_eq!(entries[4].kind, Kind::Character { major: 1, minor: 3 });
            assert_eq!(control(&path).unwrap(), "Package: test\n");
            let mut again = vec![];
            let keep = |entry| {
                again.push(entry);
                Ok::<_, Error>(())
            };
            repacked_entries(&path, &repack(&path).unwrap(), keep).unwrap();
            assert_eq!(again, entries);
        }
    }

    #[test]
    fn a_path_that_leads_out_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.deb");
        for items in [
            [("./../evil", Kind::File(Vec::new()), 0o644)],
            [("usr/../../evil", Kind::File(Vec::new()), 0o644)],
            [("./evil", Kind::Hardlink("../../etc/passwd".into()), 0o644)],
        ] {
            package(&path, &items, "");
            assert!(matches!(all(&path), Err(Error::Escapes { .. })));
        }
    }

    #[test]
    fn what_is_no_package_or_half_of_one_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.deb");
        std::fs::write(&path, b"not a package").unwrap();
        assert!(matches!(all(&path), Err(Error::Malformed { .. })));
        package(&path, &[("a", Kind::File(vec![7; 5000]), 0o644)], ".xz");
        let whole = std::fs::read(&path).unwrap();
        for length in [20, 100, whole.len() - 40] {
            std::fs::write(&path, &whole[..length]).unwrap();
            assert!(all(&path).is_err(), "{length}");
        }
    }
}
