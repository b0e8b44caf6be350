//! One layer of a container image: a tar archive, plain or compressed with gzip or zstd, as the
//! OCI image specification has it (layer.md).
//!
//! A layer comes from strangers. It is read as a stream into memory, never onto this machine's
//! disk, so nothing in it can reach outside; what makes no sense in an image is an error:
//!
//! | in the archive | here |
//! |---|---|
//! | a name with `..`, a NUL, no UTF-8, or longer than the kernel takes | refused |
//! | an absolute name | means the same below the image's root |
//! | a file below a symlink | goes where the link leads inside the image; never out of it |
//! | a hard link to nothing, or to a folder | refused |
//! | a header that promises more than there is | an error; nothing is set aside for it |
//! | a stream that unpacks to more than [`LARGEST`] | refused as soon as it does |
//! | a sparse file | refused |
//! | sockets and other kinds | left out |

use super::extended::{Extended, SPARSE};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Read};
use std::sync::Arc;
use tar::EntryType;

/// The most that one layer may unpack to, in bytes: it is held in memory.
pub const LARGEST: u64 = 4 << 30;
/// The most entries that a layer may have.
const MOST: usize = 1 << 21;
/// PATH_MAX and NAME_MAX of the kernel, without the zero byte.
const LONGEST_PATH: usize = 4095;
const LONGEST_NAME: usize = 255;
/// What a name begins with that stands for the absence of another.
const WHITEOUT: &str = ".wh.";
/// The name that stands for the absence of all that lower layers have in its folder.
const OPAQUE: &str = ".wh..wh..opq";
/// What the names of aufs' own files begin with.
const AUFS: &str = ".wh..wh.";

/// Why a layer cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LayerError {
    /// It is cut short, or its compression or archive is broken.
    #[error("read the layer")]
    Read(#[from] io::Error),
    /// A name that no file of an image can have.
    #[error("read the layer: an entry is called `{name}`: {reason}")]
    Name {
        /// As it stands there; what is not UTF-8 is replaced.
        name: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A hard link that leads nowhere.
    #[error("unpack the layer: {path} is a hard link to {target}, which is no file of the image")]
    Link {
        /// The link.
        path: String,
        /// What it says.
        target: String,
    },
    /// Too many symlinks on the way to an entry, or one that leads to a file.
    #[error("unpack the layer: there is no way to {path}, for {at} is no folder")]
    NoWay {
        /// The entry.
        path: String,
        /// What is in the way.
        at: String,
    },
    /// It unpacks to more than there is room for.
    #[error("unpack the layer: it has more than {limit} bytes")]
    TooLarge {
        /// The most that it may have.
        limit: u64,
    },
    /// It has more files than any image.
    #[error("unpack the layer: it has more than {limit} entries")]
    TooMany {
        /// The most that it may have.
        limit: usize,
    },
    /// What is in it is not what the image's configuration says.
    #[error("unpack the layer: it has sha256 {got}, the image says {expected}")]
    WrongContent {
        /// `rootfs.diff_ids` of the configuration.
        expected: String,
        /// The hash of the unpacked archive.
        got: String,
    },
}

/// A layer, read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Layer {
    /// Its entries in the archive's order.
    pub entries: Vec<Entry>,
}

/// One entry; paths are absolute and normal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry {
    /// A file or folder, or whatever else an image can hold.
    Node(String, Box<Attributes>, Kind),
    /// Another name of a file: path, target.
    Link(String, String),
    /// What lower layers have there is gone.
    Whiteout(String),
    /// What lower layers have below that folder is gone.
    Opaque(String),
}

/// What an archive says about a file beside its content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attributes {
    /// At most 0o7777.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Seconds since the epoch.
    pub mtime: u32,
    /// By full name.
    pub xattrs: BTreeMap<String, Arc<[u8]>>,
}

/// What a file is: that of a tree.
pub use crate::tree::Kind;

impl Layer {
    /// Reads a layer; gives the sha256 of the unpacked archive, by which equal layers are known
    /// however they are compressed. `progress` is called with bytes of the stream.
    pub fn read(
        stream: impl Read,
        limit: u64,
        progress: impl FnMut(u64),
    ) -> Result<(Self, String), LayerError> {
        let counted = Counted { from: stream, progress };
        let plain = decompress(counted)?;
        let mut hashed = Hashed { from: plain, digest: Sha256::new(), left: limit };
        let result = Self::entries(&mut hashed, limit);
        // What stands behind the archive's end belongs to the hash.
        let rest = result.and_then(|layer| {
            io::copy(&mut hashed, &mut io::sink())?;
            Ok(layer)
        });
        match rest {
            Ok(layer) => Ok((layer, hexadecimal(&hashed.digest.finalize()))),
            Err(LayerError::Read(_)) if hashed.left == 0 => Err(LayerError::TooLarge { limit }),
            Err(error) => Err(error),
        }
    }

    fn entries(from: &mut impl Read, limit: u64) -> Result<Self, LayerError> {
        let mut archive = tar::Archive::new(from);
        let mut entries = Vec::new();
        let mut extended = Extended::default();
        for entry in archive.entries()?.raw(true) {
            if entries.len() == MOST {
                return Err(LayerError::TooMany { limit: MOST });
            }
            let mut entry = entry?;
            if entry.size() > limit {
                return Err(LayerError::TooLarge { limit });
            }
            if !extended.take(&mut entry)? {
                entries.extend(convert(&mut entry, std::mem::take(&mut extended))?);
            }
        }
        Ok(Self { entries })
    }
}

/// What it is compressed with, if anything, by its first bytes: media types are not to be relied
/// upon.
fn decompress<'a>(stream: impl Read + 'a) -> io::Result<Box<dyn Read + 'a>> {
    let mut stream = BufReader::with_capacity(1 << 17, stream);
    let start = stream.fill_buf()?;
    if start.starts_with(&[0x1f, 0x8b]) {
        return Ok(Box::new(flate2::bufread::MultiGzDecoder::new(stream)));
    }
    if start.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) {
        return Ok(Box::new(zstd::Decoder::with_buffer(stream)?));
    }
    Ok(Box::new(stream))
}

fn convert(
    entry: &mut tar::Entry<'_, impl Read>,
    extended: Extended,
) -> Result<Option<Entry>, LayerError> {
    let own = entry.header().path_bytes().into_owned();
    let path = absolute(extended.path.as_ref().unwrap_or(&own))?;
    let (folder, name) = path.rsplit_once('/').unwrap_or(("", &path));
    // aufs' own files.
    if folder.split('/').any(|part| part.starts_with(AUFS)) {
        return Ok(None);
    }
    if name == OPAQUE {
        return Ok(Some(Entry::Opaque(folder.to_owned())));
    }
    if let Some(hidden) = name.strip_prefix(WHITEOUT) {
        if name.starts_with(AUFS) {
            return Ok(None);
        }
        if matches!(hidden, "" | "." | "..") {
            let reason = "it stands for the absence of no file";
            return Err(LayerError::Name { name: path, reason });
        }
        return Ok(Some(Entry::Whiteout(format!("{folder}/{hidden}"))));
    }
    let own = entry.header().link_name_bytes().unwrap_or_default().into_owned();
    let target = || target(extended.link.as_ref().unwrap_or(&own));
    let header = entry.header();
    let device = || -> io::Result<(u32, u32)> {
        Ok((header.device_major()?.unwrap_or(0), header.device_minor()?.unwrap_or(0)))
    };
    let kind = match header.entry_type() {
        EntryType::Directory => Kind::Directory,
        EntryType::Symlink => Kind::Symlink(target()?),
        EntryType::Link => {
            let target = absolute(target()?.as_bytes())?;
            return Ok(Some(Entry::Link(path, target)));
        }
        EntryType::Char => {
            let (major, minor) = device()?;
            // Overlayfs' own whiteout, which some tools leave in.
            if (major, minor) == (0, 0) {
                return Ok(Some(Entry::Whiteout(path)));
            }
            Kind::CharacterDevice(major, minor)
        }
        EntryType::Block => {
            let (major, minor) = device()?;
            Kind::BlockDevice(major, minor)
        }
        EntryType::Fifo => Kind::Fifo,
        EntryType::GNUSparse => return Err(LayerError::Name { name: path, reason: SPARSE }),
        EntryType::Regular | EntryType::Continuous => {
            let mut content = Vec::new();
            entry.read_to_end(&mut content)?;
            Kind::File(content.into())
        }
        _ => return Ok(None),
    };
    let header = entry.header();
    // Blank in the archives of some tools, which others read as 0.
    let number = |value: io::Result<u64>| value.unwrap_or(0);
    let small = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
    let attributes = Attributes {
        mode: header.mode().unwrap_or(0) & 0o7777,
        uid: small(extended.uid.unwrap_or_else(|| number(header.uid()))),
        gid: small(extended.gid.unwrap_or_else(|| number(header.gid()))),
        mtime: small(extended.mtime.unwrap_or_else(|| number(header.mtime()))),
        xattrs: extended.xattrs,
    };
    Ok(Some(Entry::Node(path, Box::new(attributes), kind)))
}

fn target(bytes: &[u8]) -> Result<String, LayerError> {
    let text = String::from_utf8_lossy(bytes);
    let reason = match bytes {
        [] => "a link to nothing",
        bytes if bytes.contains(&0) => "there is a NUL in it",
        bytes if bytes.len() > LONGEST_PATH => "it is too long",
        _ if matches!(text, std::borrow::Cow::Borrowed(_)) => return Ok(text.into_owned()),
        _ => "it is not UTF-8",
    };
    Err(LayerError::Name { name: text.into_owned(), reason })
}

/// A name of an archive as an absolute path; the root itself is the empty text.
fn absolute(name: &[u8]) -> Result<String, LayerError> {
    let text = String::from_utf8_lossy(name);
    let refuse = |reason| LayerError::Name { name: text.to_string(), reason };
    if matches!(text, std::borrow::Cow::Owned(_)) {
        return Err(refuse("it is not UTF-8"));
    }
    if name.contains(&0) {
        return Err(refuse("there is a NUL in it"));
    }
    if name.len() > LONGEST_PATH {
        return Err(refuse("it is too long"));
    }
    let mut path = String::new();
    for part in text.split('/').filter(|part| !matches!(*part, "" | ".")) {
        if part == ".." {
            return Err(refuse("it leads out of its folder"));
        }
        if part.len() > LONGEST_NAME {
            return Err(refuse("it is too long"));
        }
        path.push('/');
        path.push_str(part);
    }
    Ok(path)
}

struct Counted<R, F> {
    from: R,
    progress: F,
}

impl<R: Read, F: FnMut(u64)> Read for Counted<R, F> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.from.read(buffer)?;
        (self.progress)(read as u64);
        Ok(read)
    }
}

/// Hashes what goes through, and ends when it is too much.
struct Hashed<R> {
    from: R,
    digest: Sha256,
    left: u64,
}

impl<R: Read> Read for Hashed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.from.read(buffer)?;
        self.digest.update(&buffer[..read]);
        self.left = self.left.saturating_sub(read as u64);
        match self.left {
            0 if read > 0 => Err(io::ErrorKind::FileTooLarge.into()),
            _ => Ok(read),
        }
    }
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
