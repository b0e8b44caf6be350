//! `[root]`: how the guest gets its root file system, and what of packages is in it.

use serde::Deserialize;

/// The root file system. It is read-only in either form.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Root {
    /// What the guest boots from.
    pub format: Format,
    /// Keeps what packages bring for people: manuals, documentation, translations, licences.
    pub docs: bool,
}

/// What a guest boots from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Format {
    /// A disk where there is much in the image, an initramfs where there is little
    #[default]
    Auto,
    /// A kernel and an initramfs that holds everything; all of it takes memory of the guest
    Initramfs,
    /// A kernel, a small initramfs, and a compressed disk that is read as it is used
    Disk,
}

/// Bytes of files from which on [`Format::Auto`] is a disk: unpacking them takes longer than finding
/// the disk, and they would take that much of the guest's memory.
pub const LARGE: u64 = 48 << 20;

impl Format {
    /// Whether an image with that many bytes of files is a disk.
    pub fn is_disk(self, size: u64) -> bool {
        match self {
            Self::Auto => size >= LARGE,
            Self::Initramfs => false,
            Self::Disk => true,
        }
    }
}
