//! A backend in a container, reached from outside: the relay connects in the container's network
//! namespace, and to Unix sockets below its root. Nothing is published, and the container needs
//! no network but its loopback.
//!
//! The container is found by the cgroup of the unit that runs it, which nobody in it can forge:
//! its init is process 1 of a pid namespace there. That process has the container's network
//! namespace from its first moment. Its root is the guest's until it has changed it, so a root
//! that is our own is not looked into. Within it no link leads out (openat2(2),
//! `RESOLVE_IN_ROOT`): a container that makes its socket a link to one of the guest's is refused.
//!
//! Sockets stay in the namespace that they were made in, so the relay's listeners are not moved
//! when it goes where the container is.

use super::backend::start_connect;
use activator::logd::status::CGROUPS;
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{Mode, OFlags, ResolveFlags, Stat, fstat, open, openat2, stat};
use rustix::io::Errno;
use rustix::net::{SocketAddrAny, SocketAddrUnix, SocketType};
use rustix::path::DecInt;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use std::fs;
use std::path::{Path, PathBuf};

/// How deep the container's cgroup lies below the unit's, at most.
const DEPTH: usize = 3;

/// The way into one container.
pub(super) struct Inside {
    /// The unit's cgroup.
    cgroup: PathBuf,
    /// The root of the container whose network namespace we are in. None: to be looked for.
    root: Option<OwnedFd>,
}

impl Inside {
    /// `place` is the unit's cgroup below that of all services.
    pub(super) fn new(place: &str) -> Self {
        Self { cgroup: Path::new(CGROUPS).join(place), root: None }
    }

    /// A connection failed: it may be another container by now.
    pub(super) fn forget(&mut self) {
        self.root = None;
    }

    /// Begins to connect to an address of the container's. ESRCH: it does not run.
    pub(super) fn connect(
        &mut self,
        address: &SocketAddrAny,
        kind: SocketType,
    ) -> Result<OwnedFd, Errno> {
        let root = match self.root.take() {
            Some(root) => root,
            None => self.enter()?,
        };
        let root = self.root.insert(root);
        let unix = SocketAddrUnix::try_from(address.clone()).ok();
        match unix.as_ref().and_then(SocketAddrUnix::path) {
            None => start_connect(address, kind),
            Some(path) => {
                let own = |root: Stat| (root.st_dev, root.st_ino);
                if own(fstat(&root)?) == own(stat("/")?) {
                    self.forget();
                    return Err(Errno::NOENT);
                }
                let flags = OFlags::PATH | OFlags::CLOEXEC;
                let node =
                    openat2(root.as_fd(), path, flags, Mode::empty(), ResolveFlags::IN_ROOT)?;
                let mut path = PathBuf::from("/proc/self/fd");
                path.push(DecInt::from_fd(&node));
                start_connect(&SocketAddrUnix::new(&path)?.into(), kind)
            }
        }
    }

    /// Goes to where the container is; its root.
    fn enter(&self) -> Result<OwnedFd, Errno> {
        let init = find_init(&self.cgroup, DEPTH).ok_or(Errno::SRCH)?;
        let open = |name: &str, flags| {
            open(format!("/proc/{init}/{name}"), flags | OFlags::CLOEXEC, Mode::empty())
        };
        let network = open("ns/net", OFlags::RDONLY)?;
        let root = open("root", OFlags::PATH | OFlags::DIRECTORY)?;
        move_into_link_name_space(network.as_fd(), Some(LinkNameSpaceType::Network))?;
        Ok(root)
    }
}

/// The first process in a cgroup, or below it, that is process 1 of a pid namespace other than
/// ours.
fn find_init(cgroup: &Path, depth: usize) -> Option<u32> {
    let processes = fs::read_to_string(cgroup.join("cgroup.procs")).unwrap_or_default();
    let pids = processes.lines().filter_map(|line| line.parse().ok());
    let is_init = |pid: &u32| {
        let status = fs::read_to_string(format!("/proc/{pid}/status"));
        status.is_ok_and(|status| is_init(&status))
    };
    pids.into_iter().find(is_init).or_else(|| {
        let depth = depth.checked_sub(1)?;
        let below = fs::read_dir(cgroup).ok()?.flatten();
        let folders = below.filter(|it| it.file_type().is_ok_and(|kind| kind.is_dir()));
        folders.into_iter().find_map(|folder| find_init(&folder.path(), depth))
    })
}

/// By proc_pid_status(5): its pids in all namespaces, from ours inwards.
fn is_init(status: &str) -> bool {
    let pids = status.lines().find_map(|line| line.strip_prefix("NSpid:"));
    pids.is_some_and(|pids| {
        let mut inwards = pids.split_ascii_whitespace().skip(1);
        inwards.next() == Some("1") && inwards.next().is_none()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_process_of_a_namespace_within_ours() {
        let with = |pids: &str| is_init(&format!("Name:\tx\nNSpid:\t{pids}\nNSpgid:\t1\n"));
        assert!(with("130\t1"));
        // A process of ours, a later one of the container's, one of a container in that.
        for other in ["130", "1", "131\t2", "140\t10\t1"] {
            assert!(!with(other), "{other}");
        }
        assert!(!is_init(""));
    }

    #[test]
    fn a_container_that_does_not_run() {
        let address: std::net::SocketAddr = "127.0.0.1:9".parse().unwrap();
        let mut inside = Inside::new("nothing/of/the.kind");
        let connected = inside.connect(&address.into(), SocketType::STREAM);
        assert_eq!(connected.unwrap_err(), Errno::SRCH);
    }
}
