//! A tar archive with images in it, read here and there: where each of its files lies.

use crate::cache::{Cache, Scratch};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

/// As many symlinks as are followed from one name.
const LINKS: usize = 8;

/// Where the files of an archive are.
pub(super) struct TarIndex {
    path: PathBuf,
    files: BTreeMap<String, (u64, u64)>,
    /// Old archives of Docker's have links among their layers.
    links: BTreeMap<String, String>,
    /// Holds the archive, if it was compressed.
    _scratch: Option<Scratch>,
}

impl TarIndex {
    /// Reads an archive's headers. One that is compressed is unpacked into the cache's scratch.
    pub(super) fn read(cache: &Cache, archive: &Path) -> io::Result<Self> {
        let (path, scratch) = match decompressed(cache, archive)? {
            Some((path, scratch)) => (path, Some(scratch)),
            None => (archive.to_owned(), None),
        };
        let (mut files, mut links) = (BTreeMap::new(), BTreeMap::new());
        let mut archive = tar::Archive::new(File::open(&path)?);
        for entry in archive.entries_with_seek()? {
            let entry = entry?;
            let Some(name) = normal(&String::from_utf8_lossy(&entry.path_bytes())) else {
                continue;
            };
            match entry.header().entry_type() {
                tar::EntryType::Regular => {
                    files.insert(name, (entry.raw_file_position(), entry.size()));
                }
                tar::EntryType::Symlink => {
                    let target = entry.link_name_bytes().unwrap_or_default();
                    let folder = name.rsplit_once('/').map_or("", |(folder, _)| folder);
                    let target = format!("{folder}/{}", String::from_utf8_lossy(&target));
                    links.extend(normal(&target).map(|target| (name, target)));
                }
                _ => {}
            }
        }
        Ok(Self { path, files, links, _scratch: scratch })
    }

    /// A file of the archive, and its size; None if it is not there.
    pub(super) fn open(&self, name: &str) -> io::Result<Option<(Box<dyn Read + '_>, u64)>> {
        let mut name = normal(name);
        for _ in 0..LINKS {
            let Some(path) = &name else { break };
            let Some((position, size)) = self.files.get(path) else {
                name = self.links.get(path).cloned();
                continue;
            };
            let mut file = File::open(&self.path)?;
            file.seek(SeekFrom::Start(*position))?;
            return Ok(Some((Box::new(file.take(*size)), *size)));
        }
        Ok(None)
    }
}

/// `a/b` for `./x/../a//b`; None for what leads out.
fn normal(path: &str) -> Option<String> {
    let mut parts = Vec::new();
    for part in path.split('/').filter(|part| !matches!(*part, "" | ".")) {
        match part {
            ".." => drop(parts.pop()?),
            part => parts.push(part),
        }
    }
    Some(parts.join("/"))
}

fn decompressed(cache: &Cache, archive: &Path) -> io::Result<Option<(PathBuf, Scratch)>> {
    let mut file = File::open(archive)?;
    let mut start = Vec::new();
    (&mut file).take(4).read_to_end(&mut start)?;
    file.rewind()?;
    let mut plain: Box<dyn Read> = match start.as_slice() {
        [0x1f, 0x8b, ..] => Box::new(flate2::read::MultiGzDecoder::new(file)),
        [0x28, 0xb5, 0x2f, 0xfd] => Box::new(zstd::Decoder::new(file)?),
        _ => return Ok(None),
    };
    let scratch = cache.scratch().map_err(io::Error::other)?;
    let path = scratch.path().join("archive.tar");
    io::copy(&mut plain, &mut File::create_new(&path)?)?;
    Ok(Some((path, scratch)))
}
