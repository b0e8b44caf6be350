//! `PrivateNetwork=`, `PrivateIPC=`, `PrivateUsers=`, `ProtectHostname=`,
//! `NetworkNamespacePath=`.

use super::error::{At, Failed, Stage};
use super::sys;
use crate::manifest::{Sandbox, User};
use rustix::fs::{self, CWD, Mode, OFlags};
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space};
use std::io;
use std::os::fd::AsFd;

/// All but the user namespace and that of the mounts.
pub(super) fn enter(sandbox: &Sandbox) -> Result<(), Failed> {
    if let Some(path) = &sandbox.network_namespace_path {
        let joined = (|| {
            let namespace = fs::openat(CWD, path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
            move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))
        })();
        joined.at(Stage::Network, || format!("join the network namespace {path}"))?;
    } else if sandbox.namespaces.network {
        sys::leave(UnshareFlags::NEWNET)
            .at(Stage::Network, || "make a network namespace".into())?;
        // systemd goes on without, too.
        if let Err(errno) = sys::loopback_up() {
            super::say(&format!("cannot bring the loopback up: {errno}"));
        }
    }
    if sandbox.namespaces.ipc {
        sys::leave(UnshareFlags::NEWIPC).at(Stage::Namespace, || "make an IPC namespace".into())?;
    }
    if sandbox.protect_hostname {
        sys::leave(UnshareFlags::NEWUTS)
            .at(Stage::Namespace, || "make a namespace for the host name".into())?;
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
