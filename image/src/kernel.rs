//! The kernel of a Debian kernel package: its image, and the modules that are asked for with those
//! that they depend on, decompressed and in the order in which they can be loaded.
//!
//! A `.deb` has no modules.dep (that is made when it is installed), so dependencies are read from
//! the modules themselves: each has a section `.modinfo` with `name=`, `depends=`, as modinfo(8)
//! shows it. There is then no kmod in the guest, nothing to look up, and nothing to decompress.

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
        let key = format!("kernel-1-{sha256}-{}", &Hash::of(list.as_bytes()).to_string()[..16]);
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
                order.visit(name)?;
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
        let (path, bytes) = decompress(path, compressed)?;
        for depends in depends(&path, &bytes)? {
            let circle = || Error::Depends { name: name.to_owned(), depends: depends.clone() };
            match self.state.get(&depends) {
                Some(State::Done) => {}
                Some(State::Open) => return Err(circle()),
                None if self.contents.modules.contains_key(&depends) => self.visit(&depends)?,
                None if self.contents.builtin.contains(&depends) => {}
                None => return Err(circle()),
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
