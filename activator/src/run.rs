//! `activator run`: the supervisor without PID 1's chores.
//!
//! Beside another init, or in a container. It becomes the subreaper of what it starts, stops all
//! in order on SIGTERM or SIGINT, and exits 0 when that is done. On SIGHUP it takes what its
//! manifest's file has then. Troubles go to stderr.

use crate::engine::{Engine, Start, Vsock, now};
use crate::files;
use crate::reload;
use crate::reload::kept::Kept;
use crate::reload::state::{Place, Role};
use crate::start;
use crate::supervise::Supervisor;
use crate::sys;
use activator::exit;
use activator::manifest::Manifest;
use rustix::process::{Resource, Rlimit, getpid, getrlimit, set_child_subreaper, setrlimit};
use std::os::fd::AsFd;

/// Runs until everything has stopped. `arguments` are the manifest, absolute, the control socket, and the
/// `activator` that was called.
pub(crate) fn main(arguments: &[&str]) -> u8 {
    let began = now();
    let [path, control, activator] = *arguments else {
        return complain(exit::USAGE, "`activator run` executes this with what it wants");
    };
    let bytes = match files::read(path) {
        Ok(bytes) => bytes,
        Err(error) => {
            return complain(exit::UNAVAILABLE, &format!("failed to read {path}: {error}"));
        }
    };
    let manifest: &'static Manifest = match Manifest::decode(&bytes) {
        Ok(manifest) => Box::leak(Box::new(manifest)),
        Err(error) => {
            return complain(exit::DATA, &format!("failed to use {path}: {error}"));
        }
    };
    let name = start::name().unwrap_or("activator");
    // Not the name of our file.
    reload::be_called(name);
    // What the one who started us left open is not for our services.
    if let Err(errno) = sys::close_on_exec_from(3) {
        eprintln!("activator: failed to mark inherited fds: {errno}");
    }
    if let Err(errno) = set_child_subreaper(Some(getpid())) {
        eprintln!("activator: failed to become a subreaper, orphans go to init: {errno}");
    }
    let copied = std::io::stderr().as_fd().try_clone_to_owned();
    let (console, copy) = match copied.and_then(|fd| Ok((fd, reload::keep(&bytes)?))) {
        Ok(fds) => fds,
        Err(error) => {
            return complain(exit::FAILED, &format!("failed to keep the manifest: {error}"));
        }
    };
    let place = Place {
        role: Role::Beside,
        name: name.into(),
        source: Some(path.into()),
        path: path.into(),
        activator: activator.into(),
        control: control.into(),
        files: Some(raise_files()),
        ..Place::default()
    };
    drop(bytes);
    let start = Start { manifest, copy, place, vsock: Vsock::Leave, console };
    let supervisor = Supervisor::new(manifest, began);
    let mut trouble = |line: &str| eprintln!("activator: {line}");
    match Engine::new(start, supervisor, &mut Kept::default(), &mut trouble) {
        Ok(mut engine) => {
            engine.run(2);
            exit::DONE
        }
        Err(error) => complain(exit::FAILED, &error.to_string()),
    }
}

/// Raises our own soft limit of open files to the hard one: the tables of a manifest with many
/// instances need more than a shell's 1024. Children get what we were started with, as from
/// systemd.
fn raise_files() -> (u64, u64) {
    let limit = getrlimit(Resource::Nofile);
    let number = |limit: Option<u64>| limit.unwrap_or(u64::MAX);
    if let Err(errno) = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }) {
        eprintln!("activator: failed to raise the limit of open files: {errno}");
    }
    (number(limit.current), number(limit.maximum))
}

fn complain(code: u8, text: &str) -> u8 {
    eprintln!("activator: {text}");
    code
}
