//! The kernel inside a bzImage, which QEMU can start by itself (PVH: Documentation/arch/x86/pvh,
//! "x86/HVM direct boot ABI").
//!
//! A bzImage unpacks itself in the guest; unpacked on the host, once, the boot saves a quarter to a third of its
//! processor time where every instruction is emulated (QEMU 10.0, TCG, from exec to init, three
//! rounds in turn: 6.9 to 7.9 s against 4.8 to 5.5 s). What is lost is that the unpacker moves the
//! kernel to a random address (KASLR). A bzImage's header says where the payload is
//! (Documentation/arch/x86/boot.rst); it ends with four bytes of its unpacked size.

use crate::cache::{self, Cache};
use std::io::Read;
use std::path::{Path, PathBuf};
use thiserror::Error;

/// Name of the file that is made.
const NAME: &str = "vmlinux";
/// setup_sects, "HdrS", version, payload_offset and payload_length in a bzImage.
const SECTORS: usize = 0x1f1;
const SIGNATURE: usize = 0x202;
const VERSION: usize = 0x206;
const PAYLOAD: usize = 0x248;
/// The first version of the header that has a payload.
const WITH_PAYLOAD: u16 = 0x0208;
/// XEN_ELFNOTE_PHYS32_ENTRY: the note of a kernel that can be started so.
const PHYS32_ENTRY: u32 = 18;

/// Why there is no vmlinux.
#[derive(Debug, Error)]
pub enum VmlinuxError {
    /// The cache failed.
    #[error(transparent)]
    Cache(#[from] cache::Error),
    /// A file cannot be read or written.
    #[error("use {}", path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It is no bzImage, or one that holds something else.
    #[error("unpack {}: {reason}", path.display())]
    Malformed {
        /// The bzImage.
        path: PathBuf,
        /// What is wrong.
        reason: &'static str,
    },
}

/// The vmlinux of a bzImage, in the cache. `sha256` is the bzImage's.
pub fn of(cache: &Cache, kernel: &Path, sha256: &str) -> Result<PathBuf, VmlinuxError> {
    let key = format!("vmlinux-1-{}", sha256.get(..16).unwrap_or(sha256));
    let folder = cache.tree_or_make(&key, |folder| {
        let io = |path: &Path| {
            let path = path.to_owned();
            |source| VmlinuxError::Io { path, source }
        };
        let image = std::fs::read(kernel).map_err(io(kernel))?;
        let vmlinux = unpack(&image)
            .map_err(|reason| VmlinuxError::Malformed { path: kernel.to_owned(), reason })?;
        let path = folder.join(NAME);
        std::fs::write(&path, vmlinux).map_err(io(&path))
    })?;
    Ok(folder.join(NAME))
}

/// The ELF file in a bzImage.
fn unpack(image: &[u8]) -> Result<Vec<u8>, &'static str> {
    let half = |at: usize| image.get(at..)?.first_chunk().map(|bytes| u16::from_le_bytes(*bytes));
    let word = |at: usize| image.get(at..)?.first_chunk().map(|bytes| u32::from_le_bytes(*bytes));
    let header = image.get(SIGNATURE..SIGNATURE + 4) == Some(b"HdrS");
    if !header || half(VERSION).is_none_or(|version| version < WITH_PAYLOAD) {
        return Err("it is no bzImage");
    }
    let sectors = match image[SECTORS] {
        0 => 4,
        sectors => usize::from(sectors),
    };
    let payload = word(PAYLOAD).zip(word(PAYLOAD + 4)).and_then(|(offset, length)| {
        let start = (sectors + 1) * 512 + offset as usize;
        image.get(start..start.checked_add(length as usize)?)?.split_last_chunk::<4>()
    });
    let (packed, size) = payload.ok_or("its payload lies outside of it")?;
    let mut vmlinux = Vec::with_capacity(u32::from_le_bytes(*size).min(1 << 28) as usize);
    let read = match packed {
        [0x28, 0xb5, 0x2f, 0xfd, ..] => {
            zstd::Decoder::new(packed).and_then(|mut payload| payload.read_to_end(&mut vmlinux))
        }
        [0xfd, b'7', b'z', ..] => {
            lzma_rust2::XzReader::new(packed, false).read_to_end(&mut vmlinux)
        }
        [0x1f, 0x8b, ..] => flate2::read::GzDecoder::new(packed).read_to_end(&mut vmlinux),
        _ => return Err("its payload is neither zstd nor xz nor gzip"),
    };
    read.map_err(|_| "its payload is damaged")?;
    if !has_entry(&vmlinux) {
        return Err("its kernel cannot be started by PVH");
    }
    Ok(vmlinux)
}

fn has_entry(vmlinux: &[u8]) -> bool {
    let Ok(elf) = goblin::elf::Elf::parse(vmlinux) else { return false };
    let mut notes = elf.iter_note_headers(vmlinux).into_iter().flatten().flatten();
    notes.any(|note| note.name == "Xen" && note.n_type == PHYS32_ENTRY)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An ELF file with one note.
    fn vmlinux(kind: u32) -> Vec<u8> {
        let mut elf = vec![0x7f, b'E', b'L', b'F', 2, 1, 1];
        elf.resize(16, 0);
        elf.extend(2_u16.to_le_bytes());
        elf.extend(62_u16.to_le_bytes());
        elf.extend(1_u32.to_le_bytes());
        for address in [0_u64, 64, 0] {
            elf.extend(address.to_le_bytes());
        }
        elf.extend(0_u32.to_le_bytes());
        for small in [64_u16, 56, 1, 64, 0, 0] {
            elf.extend(small.to_le_bytes());
        }
        // PT_NOTE, right behind the one program header.
        elf.extend(4_u32.to_le_bytes());
        elf.extend(4_u32.to_le_bytes());
        for field in [120_u64, 0, 0, 20, 20, 4] {
            elf.extend(field.to_le_bytes());
        }
        for field in [4_u32, 4, kind] {
            elf.extend(field.to_le_bytes());
        }
        elf.extend(b"Xen\0\0\0\x10\0");
        elf
    }

    fn image(payload: &[u8], vmlinux: &[u8]) -> Vec<u8> {
        let mut image = vec![0; 1024];
        image[SECTORS] = 1;
        image[SIGNATURE..SIGNATURE + 4].copy_from_slice(b"HdrS");
        image[VERSION..VERSION + 2].copy_from_slice(&0x020f_u16.to_le_bytes());
        image[PAYLOAD..PAYLOAD + 4].copy_from_slice(&16_u32.to_le_bytes());
        let length = payload.len() as u32 + 4;
        image[PAYLOAD + 4..PAYLOAD + 8].copy_from_slice(&length.to_le_bytes());
        image.extend([0; 16]);
        image.extend(payload);
        image.extend((vmlinux.len() as u32).to_le_bytes());
        image
    }

    #[test]
    fn what_a_bzimage_holds_is_unpacked() {
        let kernel = vmlinux(PHYS32_ENTRY);
        let zstd = zstd::encode_all(&kernel[..], 3).unwrap();
        assert_eq!(unpack(&image(&zstd, &kernel)), Ok(kernel.clone()));
        let xz = crate::debian::deb::tests::xz(&kernel);
        assert_eq!(unpack(&image(&xz, &kernel)), Ok(kernel));
    }

    #[test]
    fn what_cannot_be_started_is_refused() {
        assert_eq!(unpack(b"\x7fELF"), Err("it is no bzImage"));
        let kernel = vmlinux(PHYS32_ENTRY + 1);
        let zstd = zstd::encode_all(&kernel[..], 3).unwrap();
        let good = image(&zstd, &kernel);
        assert_eq!(unpack(&good), Err("its kernel cannot be started by PVH"));
        assert_eq!(unpack(&good[..good.len() - 1]), Err("its payload lies outside of it"));
        assert_eq!(
            unpack(&image(b"nothing", b"")),
            Err("its payload is neither zstd nor xz nor gzip")
        );
        let mut cut = zstd;
        cut.truncate(20);
        assert_eq!(unpack(&image(&cut, b"")), Err("its payload is damaged"));
    }
}
