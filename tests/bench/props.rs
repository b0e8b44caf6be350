//! What all measures need: made once, outside of all namespaces, where there may be a network.

use crate::workshop;
use rouse::cache::Cache;
use rouse::debian::tools::{self, Freshness};
use rouse::debian::{Architecture, Debian};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Debian's packages of the peers: the name of the tree, and its roots.
const TREES: [(&str, &[&str]); 11] = [
    ("systemd", &["systemd"]),
    ("xinetd", &["xinetd"]),
    ("openbsd-inetd", &["openbsd-inetd"]),
    ("ucspi-tcp", &["ucspi-tcp"]),
    ("s6", &["s6"]),
    ("socat", &["socat"]),
    ("haproxy", &["haproxy"]),
    ("runit", &["runit"]),
    ("busybox-static", &["busybox-static"]),
    ("finit", &["finit"]),
    ("tini", &["tini"]),
];

/// Builders of images, and what they call without a word in their packages' relations besides what
/// Debian has everywhere.
const BUILDERS: [(&str, &[&str]); 2] =
    [("mmdebstrap", &["mmdebstrap"]), ("mkosi", &["mkosi", "cpio", "kmod", "mount", "zstd"])];

/// How much is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Size {
    /// Whether everything works: the smallest counts, few peers.
    Smoke,
    /// A minute.
    Quick,
    /// What a table is made of.
    Full,
}

/// See the module.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Props {
    /// Scratch, with a short path; `bin` holds the bench's own programs.
    pub(crate) folder: PathBuf,
    /// Packages of each peer, or why there are none.
    trees: BTreeMap<String, Result<PathBuf, String>>,
    /// How much is measured.
    pub(crate) size: Size,
    /// How often everybody has a turn.
    pub(crate) rounds: usize,
}

impl Props {
    /// Builds the floors, and fetches the peers' packages.
    pub(crate) fn make(folder: &Path, size: Size, rounds: usize) -> Self {
        let bin = folder.join("bin");
        std::fs::create_dir_all(&bin).unwrap();
        for name in ["activate", "service", "relay", "init", "ready", "launch", "trip", "ends"] {
            let source = source(&format!("floor/{name}.c"));
            let mut compiler = Command::new("cc");
            compiler.args(["-static", "-O2", "-s", "-w", "-o"]).arg(bin.join(name)).arg(source);
            assert!(compiler.status().expect("a C compiler named cc").success());
        }
        let programs = rouse::guest::programs(std::env::consts::ARCH).unwrap();
        // Not by the name of PID 1 of an image: the floor has an `init` of its own.
        let own = bin.join("rouse");
        std::fs::create_dir_all(&own).unwrap();
        for (name, content) in [("init", programs.init), ("activator", programs.activator)] {
            use std::os::unix::fs::PermissionsExt;
            let path = own.join(name);
            std::fs::write(&path, content).unwrap();
            std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
        }
        let mut trees: BTreeMap<_, _> = match size {
            Size::Smoke => BTreeMap::new(),
            _ => {
                let builders = BUILDERS
                    .map(|(name, roots)| (name, [roots, &workshop::EVERYWHERE[..]].concat()));
                let all = TREES.map(|(name, roots)| (name, roots.to_vec()));
                let all = all.into_iter().chain(builders);
                all.map(|(name, roots)| (name.to_string(), fetch(name, &roots))).collect()
            }
        };
        trees.insert("s6-networking".into(), installed("s6-tcpserver"));
        Self { folder: folder.into(), trees, size, rounds }
    }

    /// A peer's packages; none if it needs none.
    pub(crate) fn tree(&self, name: &str) -> Result<Option<&Path>, String> {
        match self.trees.get(name) {
            _ if name.is_empty() => Ok(None),
            Some(Ok(tree)) => Ok(Some(tree)),
            Some(Err(why)) => Err(why.clone()),
            None => Err("it is not part of so short a run".into()),
        }
    }

    /// One of three numbers, by how much is measured.
    pub(crate) fn pick<T>(&self, smoke: T, quick: T, full: T) -> T {
        match self.size {
            Size::Smoke => smoke,
            Size::Quick => quick,
            Size::Full => full,
        }
    }
}

/// A file of the bench's.
pub(crate) fn source(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("bench").join(name)
}

fn fetch(name: &str, roots: &[&str]) -> Result<PathBuf, String> {
    let cache = Cache::open_at(&rouse_tests::cache()).map_err(|error| error.to_string())?;
    let host = Architecture::host().ok_or("Debian has no packages for this machine")?;
    tools::tree(&Debian::new(cache, None), name, roots, host, Freshness::Kept)
        .map_err(|error| error.to_string())
}

/// Where Debian has no package: the machine's own root, if it has the program.
fn installed(program: &str) -> Result<PathBuf, String> {
    let path = Path::new("/usr/bin").join(program);
    match path.exists() {
        true => Ok("/".into()),
        false => Err(format!(
            "Debian has no package of {program}, and this machine none in {}",
            path.display()
        )),
    }
}
