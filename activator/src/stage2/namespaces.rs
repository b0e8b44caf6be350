//! `PrivateNetwork=`, `PrivateIPC=`, `PrivateUsers=`, `ProtectHostname=`,
//! `NetworkNamespacePath=`.

use super::error::{At, Failed, Stage};
use super::shared::Shared;
use super::sys;
use crate::manifest::{Sandbox, User};
use rustix::fs::{self, CWD, Mode, OFlags};
use rustix::io::Errno;
use rustix::path::Arg;
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space};
use std::io;
use std::os::fd::AsFd;

/// A namespace that may outlive the command that made it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Network,
    Ipc,
}

impl Kind {
    pub(super) const ALL: [Self; 2] = [Self::Network, Self::Ipc];

    /// Its name below /proc/self/ns.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Network => "net",
            Self::Ipc => "ipc",
        }
    }

    /// What fails without it.
    pub(super) fn stage(self) -> Stage {
        match self {
            Self::Network => Stage::Network,
            Self::Ipc => Stage::Namespace,
        }
    }

    fn link(self) -> LinkNameSpaceType {
        match self {
            Self::Network => LinkNameSpaceType::Network,
            Self::Ipc => LinkNameSpaceType::InterProcessCommunication,
        }
    }
}

/// Those of the network and of IPC. Those of [`Shared`] are made once.
pub(super) fn enter_shared(sandbox: &Sandbox, shared: Option<&Shared>) -> Result<(), Failed> {
    let joined = shared.filter(|_| sandbox.joins.is_some());
    match (&sandbox.network_namespace_path, joined, shared) {
        (Some(path), Some(joined), _) => joined.enter(Kind::Network, || join_network(path))?,
        (Some(path), None, _) => join_network(path)?,
        (None, _, Some(shared)) if sandbox.namespaces.network => {
            shared.enter(Kind::Network, make_network)?;
        }
        (None, _, _) => {}
    }
    if let Some(shared) = shared.filter(|_| sandbox.namespaces.ipc) {
        shared.enter(Kind::Ipc, || {
            sys::leave(UnshareFlags::NEWIPC).at(Stage::Namespace, || "make an IPC namespace".into())
        })?;
    }
    Ok(())
}

/// `ProtectHostname=`
pub(super) fn protect_hostname(sandbox: &Sandbox) -> Result<(), Failed> {
    if sandbox.protect_hostname {
        sys::leave(UnshareFlags::NEWUTS)
            .at(Stage::Namespace, || "make a namespace for the host name".into())?;
    }
    Ok(())
}

fn join_network(path: &str) -> Result<(), Failed> {
    join(path, Kind::Network).at(Stage::Network, || format!("join the network namespace {path}"))
}

/// Enters the namespace that a file stands for.
pub(super) fn join(path: impl Arg, kind: Kind) -> Result<(), Errno> {
    let namespace = fs::openat(CWD, path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    move_into_link_name_space(namespace.as_fd(), Some(kind.link()))
}

fn make_network() -> Result<(), Failed> {
    sys::leave(UnshareFlags::NEWNET).at(Stage::Network, || "make a network namespace".into())?;
    // systemd goes on without, too.
    if let Err(errno) = sys::loopback_up() {
        super::say(&format!("cannot bring the loopback up: {errno}"));
    }
    Ok(())
}

/// A user namespace that knows root and the service's user only, or all ids there usually are
/// (`identity`). A child outside of it writes the maps, which we could not: our rights end at its
/// border.
pub(super) fn enter_users(sandbox: &Sandbox, user: Option<&User>) -> Result<(), Failed> {
    let maps = |id: Option<u32>| match id {
        _ if sandbox.namespaces.identity => "0 0 65536\n".to_owned(),
        Some(id @ 1..) => format!("0 0 1\n{id} {id} 1\n"),
        _ => "0 0 1\n".to_owned(),
    };
    let (uids, gids) = (maps(user.map(|user| user.uid)), maps(user.map(|user| user.gid)));
    let (left, right) = io::pipe().at(Stage::User, || "make a pipe".into())?;
    let parent = std::process::id();
    let work = move || {
        // Ends when we have left.
        let _ = io::Read::read(&mut &left, &mut [0]);
        let write = |file: &str, text: &str| std::fs::write(format!("/proc/{parent}/{file}"), text);
        write("gid_map", &gids).and_then(|()| write("uid_map", &uids)).is_ok()
    };
    sys::across_a_border(UnshareFlags::NEWUSER, right, work)
        .at(Stage::User, || "make a user namespace".into())
}
