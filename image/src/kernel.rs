//! The kernel of a Debian kernel package: its image, and the modules that are asked for with those
//! that they depend on, decompressed and in the order in which they can be loaded.
//!
//! A `.deb` has no modules.dep (that is made when it is installed), so dependencies are read from
//! the modules themselves: each has a section `.modinfo` with `name=`, `depends=`, as modinfo(8)
//! shows it. There is then no kmod in the guest, nothing to look up, and nothing to decompress.
//!
//! Nor is there anything to verify: the signature that stands behind each module is taken off. It is
//! for machines where others may bring modules; here they come from the package whose hash the lock
//! has, and out of the same archive as the programs that load them. Under TCG the kernel needs some
//! 35 ms to verify one, which was a quarter of the time between "Run /init" and the first listener.
//! The guest's kernel is then "tainted" by unsigned modules (E), which changes nothing.

use crate::cache::{self, Cache, Hash};
use crate::debian::deb::{self, Kind};
use crate::terminal::{Measure, Task};
use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::path::{Path, PathBuf};

/// Why a kernel cannot be taken out of its package.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The package cannot be read.
    #[error(transparent)]
    Deb(#[from] deb::Error),
    /// The cache failed.
    #[error(transparent)]
    Cache(#[from] cache::Error),
    /// The package has no kernel.
    #[error("find a kernel in {package}")]
    NoKernel {
        /// The package's file.
        package: PathBuf,
    },
    /// A module that was asked for is neither in the package nor built into its kernel.
    #[error("find kernel module {name} in {package}")]
    NoModule {
        /// The module.
        name: String,
        /// The package's file.
        package: PathBuf,
    },
    /// Modules that depend on each other in a circle, or on one that is not there.
    #[error("order kernel module {name}, which depends on {depends}")]
    Depends {
        /// The module.
        name: String,
        /// What it depends on.
        depends: String,
    },
    /// A module is not what its name says.
    #[error("read kernel module {path}: {reason}")]
    Malformed {
        /// Its path in the package.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
}

/// A kernel and some of its modules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kernel {
    /// What `uname -r` says: `6.12.107+deb13-cloud-amd64`.
    pub release: String,
    /// The image, as the package has it.
    pub image: Vec<u8>,
    /// The modules, each after those that it depends on.
    pub modules: Vec<KernelModule>,
}

/// A module, ready for init_module(2).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KernelModule {
    /// Its name, with `_` where its file's name may have `-`.
    pub name: String,
    /// Its path in a root file system, without a leading slash, and without an ending for its
    /// compression: `usr/lib/modules/RELEASE/kernel/net/vmw_vsock/vsock.ko`.
    pub path: PathBuf,
    /// The ELF object.
    pub bytes: Vec<u8>,
}

impl Kernel {
    /// Takes a kernel out of its package; `sha256` is the package's. `wanted` are names of modules;
    /// those that are built into the kernel are left out silently. The first time takes seconds;
    /// the result is kept in the cache.
    pub fn extract(
        cache: &Cache,
        package: &Path,
        sha256: Hash,
        wanted: &[&str],
    ) -> Result<Self, Error> {
        let names: BTreeSet<String> = wanted.iter().map(|name| underscored(name)).collect();
        let list: String = names.iter().map(|name| format!("{name}\n")).collect();
        let key = format!("kernel-2-{sha256}-{}", &Hash::of(list.as_bytes()).to_string()[..16]);
        if let Some(kernel) = cache.made(&key)?.as_deref().and_then(Self::decode) {
            return Ok(kernel);
        }
        let _task = Task::begin("taking the kernel out of its package", Measure::None, 0);
        let kernel = Contents::read(package)?.kernel(package, &names)?;
        cache.store_made(&key, &kernel.encode())?;
        Ok(kernel)
    }

    /// Each part with its length in front: there are megabytes of bytes, and nothing to parse.
    fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut put = |part: &[u8]| {
            bytes.extend((part.len() as u64).to_le_bytes());
            bytes.extend(part);
        };
        put(self.release.as_bytes());
        put(&self.image);
        for module in &self.modules {
            put(module.name.as_bytes());
            put(module.path.as_os_str().as_encoded_bytes());
            put(&module.bytes);
        }
        bytes
    }

    fn decode(mut bytes: &[u8]) -> Option<Self> {
        let mut take = || {
            let (length, rest) = bytes.split_first_chunk::<8>()?;
            let length = usize::try_from(u64::from_le_bytes(*length)).ok()?;
            let (part, rest) = rest.split_at_checked(length)?;
            bytes = rest;
            Some(part.to_vec())
        };
        let text = |part: Vec<u8>| String::from_utf8(part).ok();
        let (release, image) = (text(take()?)?, take()?);
        let mut modules = Vec::new();
        while let Some(name) = take() {
            let (name, path) = (text(name)?, text(take()?)?.into());
            modules.push(KernelModule { name, path, bytes: take()? });
        }
        Some(Self { release, image, modules })
    }
}

/// What is of interest in a kernel package.
#[derive(Default)]
struct Contents {
    release: Option<String>,
    image: Vec<u8>,
    /// Names of what is built in.
    builtin: BTreeSet<String>,
    /// Compressed modules by name.
    modules: BTreeMap<String, (PathBuf, Vec<u8>)>,
}

impl Contents {
    fn read(package: &Path) -> Result<Self, Error> {
        let mut contents = Self::default();
        deb::entries(package, |entry| {
            if let Kind::File(bytes) = entry.kind {
                contents.add(entry.path, bytes);
            }
            Ok::<_, Error>(())
        })?;
        Ok(contents)
    }

    fn add(&mut self, path: PathBuf, bytes: Vec<u8>) {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if path.starts_with("boot") {
            if let Some(release) = name.strip_prefix("vmlinuz-") {
                self.release = Some(release.to_owned());
                self.image = bytes;
            }
        } else if name == "modules.builtin" {
            self.builtin =
                String::from_utf8_lossy(&bytes).lines().filter_map(module_name).collect();
        } else if let Some(module) = module_name(name) {
            self.modules.insert(module, (path, bytes));
        }
    }

    fn kernel(&self, package: &Path, wanted: &BTreeSet<String>) -> Result<Kernel, Error> {
        let Some(release) = self.release.clone() else {
            return Err(Error::NoKernel { package: package.to_owned() });
        };
        let mut order = Order { contents: self, state: BTreeMap::new(), modules: Vec::new() };
        for name in wanted {
            if self.modules.contains_key(name) {
                if !order.state.contains_key(name) {
                    order.visit(name)?;
                }
            } else if !self.builtin.contains(name) {
                return Err(Error::NoModule { name: name.clone(), package: package.to_owned() });
            }
        }
        Ok(Kernel { release, image: self.image.clone(), modules: order.modules })
    }
}

/// Walks the dependencies, depth first.
struct Order<'a> {
    contents: &'a Contents,
    state: BTreeMap<String, State>,
    modules: Vec<KernelModule>,
}

#[derive(PartialEq)]
enum State {
    /// What it depends on is being visited.
    Open,
    /// It is in the list.
    Done,
}

impl Order<'_> {
    fn visit(&mut self, name: &str) -> Result<(), Error> {
        self.state.insert(name.to_owned(), State::Open);
        let Some((path, compressed)) = self.contents.modules.get(name) else { return Ok(()) };
        let (path, mut bytes) = decompress(path, compressed)?;
        bytes.truncate(without_signature(&bytes).len());
        for depends in depends(&path, &bytes)? {
            match self.state.get(&depends) {
                Some(State::Done) => {}
                None if self.contents.modules.contains_key(&depends) => self.visit(&depends)?,
                None if self.contents.builtin.contains(&depends) => {}
                None | Some(State::Open) => {
                    return Err(Error::Depends { name: name.to_owned(), depends });
                }
            }
        }
        self.state.insert(name.to_owned(), State::Done);
        self.modules.push(KernelModule { name: name.to_owned(), path, bytes });
        Ok(())
    }
}

/// The name of the module in a file: `kernel/net/nf-x.ko.xz` has nf_x.
fn module_name(path: &str) -> Option<String> {
    let file = path.rsplit('/').next()?;
    let endings = [".ko", ".ko.xz", ".ko.zst", ".ko.gz"];
    let name = endings.iter().find_map(|ending| file.strip_suffix(ending))?;
    Some(underscored(name))
}

/// Modules are named with `_`, their files with either.
fn underscored(name: &str) -> String {
    name.replace('-', "_")
}

fn decompress(path: &Path, bytes: &[u8]) -> Result<(PathBuf, Vec<u8>), Error> {
    let malformed = |error: std::io::Error| Error::Malformed {
        path: path.to_owned(),
        reason: error.to_string(),
    };
    let mut plain = Vec::with_capacity(bytes.len() * 4);
    let ending = path.extension().and_then(|ending| ending.to_str()).unwrap_or_default();
    match ending {
        "xz" => lzma_rust2::XzReader::new(bytes, true).read_to_end(&mut plain),
        "zst" => zstd::Decoder::new(bytes).map_err(malformed)?.read_to_end(&mut plain),
        "gz" => flate2::read::GzDecoder::new(bytes).read_to_end(&mut plain),
        _ => return Ok((path.to_owned(), bytes.to_vec())),
    }
    .map_err(malformed)?;
    Ok((path.with_extension(""), plain))
}

/// What comes before the signature: behind that stand a struct module_signature, whose last field is
/// the signature's length, and a marker (linux/module_signature.h).
fn without_signature(module: &[u8]) -> &[u8] {
    const MARKER: &[u8] = b"~Module signature appended~\n";
    const STRUCTURE: usize = 12;
    let signed = || {
        let rest = module.strip_suffix(MARKER)?;
        let (rest, length) = rest.split_last_chunk::<4>()?;
        let behind = usize::try_from(u32::from_be_bytes(*length)).ok()?;
        rest.get(..rest.len().checked_sub(behind.checked_add(STRUCTURE - 4)?)?)
    };
    signed().unwrap_or(module)
}

/// The names in a module's `depends=`.
fn depends(path: &Path, module: &[u8]) -> Result<Vec<String>, Error> {
    let malformed =
        |reason: &str| Error::Malformed { path: path.to_owned(), reason: reason.into() };
    let elf = goblin::elf::Elf::parse(module).map_err(|error| malformed(&error.to_string()))?;
    let section = elf
        .section_headers
        .iter()
        .find(|section| elf.shdr_strtab.get_at(section.sh_name) == Some(".modinfo"))
        .and_then(goblin::elf::SectionHeader::file_range)
        .and_then(|range| module.get(range))
        .ok_or_else(|| malformed("it has no section .modinfo"))?;
    let fields = section.split(|at| *at == 0).filter_map(|field| std::str::from_utf8(field).ok());
    Ok(fields
        .filter_map(|field| field.strip_prefix("depends="))
        .flat_map(|names| names.split(','))
        .filter(|name| !name.is_empty())
        .map(underscored)
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::debian::deb::tests::{Item, package, xz};

    /// The smallest ELF file with a section `.modinfo`.
    fn module(modinfo: &str) -> Vec<u8> {
        const NAMES: &[u8] = b"\0.modinfo\0.shstrtab\0";
        let modinfo = modinfo.as_bytes();
        let names_at = 64 + modinfo.len();
        let sections_at = names_at + NAMES.len();
        let mut elf = vec![0x7f, b'E', b'L', b'F', 2, 1, 1];
        elf.resize(16, 0);
        elf.extend(1_u16.to_le_bytes());
        elf.extend(62_u16.to_le_bytes());
        elf.extend(1_u32.to_le_bytes());
        for address in [0, 0, sections_at as u64] {
            elf.extend(address.to_le_bytes());
        }
        elf.extend(0_u32.to_le_bytes());
        for small in [64_u16, 0, 0, 64, 3, 2] {
            elf.extend(small.to_le_bytes());
        }
        elf.extend(modinfo);
        elf.extend(NAMES);
        let rows = [(0, 0, 0, 0), (1, 1, 64, modinfo.len()), (10, 3, names_at, NAMES.len())];
        for (name, kind, offset, size) in rows {
            let mut section = [0_u8; 64];
            section[0..4].copy_from_slice(&(name as u32).to_le_bytes());
            section[4..8].copy_from_slice(&(kind as u32).to_le_bytes());
            section[24..32].copy_from_slice(&(offset as u64).to_le_bytes());
            section[32..40].copy_from_slice(&(size as u64).to_le_bytes());
            elf.extend(section);
        }
        elf
    }

    fn extract(modules: &[(&str, &str)], wanted: &[&str]) -> Result<Kernel, Error> {
        let folder = tempfile::tempdir().unwrap();
        let deb = folder.path().join("linux.deb");
        let paths: Vec<_> = modules
            .iter()
            .map(|(name, _)| format!("./lib/modules/6.1/kernel/{name}.ko.xz"))
            .collect();
        let mut items: Vec<Item<'_>> = paths
            .iter()
            .zip(modules)
            .map(|(path, (_, depends))| {
                let modinfo = format!("license=GPL\0depends={depends}\0name=x\0");
                (path.as_str(), Kind::File(xz(&module(&modinfo))), 0o644)
            })
            .collect();
        let builtin = b"kernel/fs/ext4/ext4.ko\nkernel/lib/crc-x.ko\n".to_vec();
        items.push(("./lib/modules/6.1/modules.builtin", Kind::File(builtin), 0o644));
        items.push(("./boot/vmlinuz-6.1", Kind::File(b"image".to_vec()), 0o644));
        package(&deb, &items, ".xz");
        let cache = Cache::open_at(&folder.path().join("cache")).unwrap();
        let hash = Hash::of(b"the package");
        let first = Kernel::extract(&cache, &deb, hash, wanted)?;
        // The second time it comes out of the cache: there is no package any more.
        std::fs::remove_file(&deb).unwrap();
        assert_eq!(Kernel::extract(&cache, &deb, hash, wanted).unwrap(), first);
        Ok(first)
    }

    fn names(kernel: &Kernel) -> Vec<&str> {
        kernel.modules.iter().map(|module| module.name.as_str()).collect()
    }

    #[test]
    fn modules_come_after_what_they_depend_on_and_only_once() {
        let modules = [
            ("a/transport", "vsock,transport-common,ext4"),
            ("a/transport-common", "vsock"),
            ("a/vsock", ""),
            ("a/other", "crc_x"),
            ("a/unwanted", ""),
        ];
        let wanted = ["vsock", "transport", "other", "ext4", "transport"];
        let kernel = extract(&modules, &wanted).unwrap();
        assert_eq!(names(&kernel), ["other", "vsock", "transport_common", "transport"]);
        assert_eq!((kernel.release.as_str(), &kernel.image[..]), ("6.1", &b"image"[..]));
        let path = Path::new("usr/lib/modules/6.1/kernel/a/transport-common.ko");
        assert_eq!(kernel.modules[2].path, path);
        assert!(kernel.modules[2].bytes.starts_with(b"\x7fELF"));
    }

    #[test]
    fn a_module_that_is_nowhere_is_an_error() {
        let error = extract(&[("a", "b")], &["a"]).unwrap_err();
        assert!(matches!(error, Error::Depends { name, depends } if name == "a" && depends == "b"));
        let error = extract(&[("a", "")], &["c"]).unwrap_err();
        assert!(matches!(error, Error::NoModule { name, .. } if name == "c"));
    }

    #[test]
    fn a_signature_is_taken_off() {
        let of = |length: u32| {
            let parts: [&[u8]; 5] = [
                b"the module",
                b"signed",
                &[0; 8],
                &length.to_be_bytes(),
                b"~Module signature appended~\n",
            ];
            parts.concat()
        };
        assert_eq!(without_signature(&of(6)), b"the module");
        assert_eq!(without_signature(b"the module"), b"the module");
        // Not as long as it says.
        for length in [17, u32::MAX] {
            assert_eq!(without_signature(&of(length)), of(length));
        }
        assert_eq!(without_signature(&of(16)), b"");
    }

    #[test]
    fn modules_in_a_circle_are_an_error() {
        let error = extract(&[("a", "b"), ("b", "a")], &["a"]).unwrap_err();
        assert!(matches!(error, Error::Depends { name, depends } if name == "b" && depends == "a"));
    }

    #[test]
    fn a_module_without_modinfo_is_an_error() {
        let path = Path::new("a.ko");
        assert!(matches!(depends(path, b"no elf"), Err(Error::Malformed { .. })));
        let kernel = Contents::default().kernel(path, &BTreeSet::new());
        assert!(matches!(kernel, Err(Error::NoKernel { .. })));
    }
}
