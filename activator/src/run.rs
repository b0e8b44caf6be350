//! `activator run MANIFEST [--control PATH]`: the supervisor without PID 1's chores.
//!
//! Beside another init, or in a container. It becomes the subreaper of what it starts, stops all
//! in order on SIGTERM or SIGINT, and exits 0 when that is done. Troubles go to stderr.

use crate::engine::{Engine, Start, Vsock, now};
use crate::sys;
use activator::control::SOCKET;
use activator::exit;
use activator::manifest::Manifest;
use rustix::process::{getpid, set_child_subreaper};
use std::ffi::OsString;
use std::os::fd::AsFd;
use std::process::ExitCode;

/// Runs until everything has stopped.
pub(crate) fn main(arguments: &[OsString]) -> ExitCode {
    let began = now();
    let texts: Option<Vec<&str>> = arguments.iter().map(|text| text.to_str()).collect();
    let (path, control) = match texts.as_deref() {
        Some([path]) => (*path, SOCKET),
        Some([path, "--control", control] | ["--control", control, path]) => (*path, *control),
        _ => return complain(exit::USAGE, "usage: activator run MANIFEST [--control PATH]"),
    };
    let bytes = match std::fs::read(path) {
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
    drop(bytes);
    // What the one who started us left open is not for our services.
    if let Err(errno) = sys::close_on_exec_from(3) {
        eprintln!("activator: failed to mark inherited fds: {errno}");
    }
    if let Err(errno) = set_child_subreaper(Some(getpid())) {
        eprintln!("activator: failed to become a subreaper, orphans go to init: {errno}");
    }
    let activator = std::fs::read_link("/proc/self/exe").ok();
    let activator = activator.as_deref().and_then(|path| path.to_str()).unwrap_or("activator");
    let path = std::path::absolute(path).ok().and_then(|path| path.to_str().map(str::to_owned));
    let console = match std::io::stderr().as_fd().try_clone_to_owned() {
        Ok(console) => console,
        Err(error) => {
            return complain(exit::FAILED, &format!("failed to copy stderr: {error}"));
        }
    };
    let start = Start {
        manifest,
        path: path.as_deref().unwrap_or_default(),
        activator,
        control,
        vsock: Vsock::Leave,
        console,
        files: None,
    };
    let mut trouble = |line: &str| eprintln!("activator: {line}");
    match Engine::new(start, began, &mut trouble) {
        Ok(mut engine) => {
            engine.run(2);
            ExitCode::SUCCESS
        }
        Err(error) => complain(exit::FAILED, &error.to_string()),
    }
}

fn complain(code: u8, text: &str) -> ExitCode {
    eprintln!("activator: {text}");
    ExitCode::from(code)
}
