//! `PrivateDevices=`: a /dev with nothing that is a piece of the machine.

use super::apply::{clone_tree, place, temporary};
use rustix::fs::{self, CWD, Mode, OFlags};
use rustix::io::Errno;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

/// Devices that give or take bytes only.
const NODES: [&str; 6] = ["null", "zero", "full", "random", "urandom", "tty"];
/// File systems of their own.
const DIRECTORIES: [&str; 4] = ["pts", "shm", "mqueue", "hugepages"];
const LINKS: [(&str, &str); 6] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("core", "/proc/kcore"),
    ("ptmx", "pts/ptmx"),
];

/// Taken hold of while the machine's /dev is there. They are the machine's own nodes, so that
/// this works without the right to make any.
pub(super) struct Nodes(Vec<(&'static str, bool, OwnedFd)>);

impl Nodes {
    pub(super) fn take() -> Result<Self, Errno> {
        let mut nodes = vec![];
        let files = NODES.map(|name| (name, false));
        let directories = DIRECTORIES.map(|name| (name, true));
        for (name, directory) in files.into_iter().chain(directories) {
            match clone_tree(CWD, &Path::new("/dev").join(name), directory) {
                Ok(tree) => nodes.push((name, directory, tree)),
                // Not every machine has all.
                Err(Errno::NOENT) => {}
                Err(errno) => return Err(errno),
            }
        }
        Ok(Self(nodes))
    }

    /// Mounts the new one.
    pub(super) fn mount(&self, over: BorrowedFd) -> Result<(), Errno> {
        let dev = temporary("mode=0755,noexec")?;
        for (name, directory, _) in &self.0 {
            if *directory {
                fs::mkdirat(&dev, *name, Mode::from_raw_mode(0o755))?;
            } else {
                let make = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
                fs::openat(&dev, *name, make, Mode::from_raw_mode(0o644))?;
            }
        }
        for (name, target) in LINKS {
            fs::symlinkat(target, &dev, name)?;
        }
        // First, since nothing can be mounted in what is nowhere itself.
        place(&dev, over)?;
        for (name, _, tree) in &self.0 {
            let flags = OFlags::PATH | OFlags::CLOEXEC;
            place(tree, fs::openat(&dev, *name, flags, Mode::empty())?.as_fd())?;
        }
        Ok(())
    }
}
