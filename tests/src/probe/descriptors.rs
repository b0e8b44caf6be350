//! Open file descriptors: what each is, and how it is open.

use crate::socket;
use serde_json::{Map, Value, json};
use std::os::fd::RawFd;

/// All of them, by number.
pub(crate) fn all() -> Value {
    // Read to its end first: the directory's own descriptor is closed by then.
    let entries = std::fs::read_dir("/proc/self/fd").map(|all| all.flatten().collect::<Vec<_>>());
    let names = entries.into_iter().flatten().map(|entry| entry.file_name());
    let mut numbers: Vec<RawFd> = names.filter_map(|name| name.to_str()?.parse().ok()).collect();
    numbers.sort_unstable();
    let mut map = Map::new();
    for fd in numbers {
        if let Some(about) = one(fd) {
            map.insert(fd.to_string(), about);
        }
    }
    map.into()
}

/// None if it is not open.
pub(crate) fn one(fd: RawFd) -> Option<Value> {
    // SAFETY: fcntl(2) with numbers; one that is not open is EBADF.
    let (status, own) = unsafe { (libc::fcntl(fd, libc::F_GETFL), libc::fcntl(fd, libc::F_GETFD)) };
    if status < 0 || own < 0 {
        return None;
    }
    let link = std::fs::read_link(format!("/proc/self/fd/{fd}")).ok()?;
    let link = link.to_string_lossy().into_owned();
    let (kind, name) = match link.split_once(":[") {
        Some((kind, _)) => (kind.to_owned(), None),
        None => ("file".to_owned(), Some(link)),
    };
    let flag = |bit: i32, name: &'static str| (status & bit == bit).then_some(name);
    let access =
        ["read", "write", "read and write", "neither"][(status & libc::O_ACCMODE) as usize];
    let mut flags = vec![access];
    flags.extend(flag(libc::O_NONBLOCK, "nonblock"));
    flags.extend(flag(libc::O_APPEND, "append"));
    flags.extend((own & libc::FD_CLOEXEC != 0).then_some("cloexec"));
    let mut about = json!({ "kind": kind, "flags": flags.join(", ") });
    if let Some(name) = name {
        about["name"] = name.into();
    }
    // SAFETY: fcntl(2) with numbers.
    let pipe = unsafe { libc::fcntl(fd, libc::F_GETPIPE_SZ) };
    if pipe >= 0 && kind == "file" {
        about["pipe_size"] = pipe.into();
    }
    if kind == "socket" {
        about["socket"] = socket::about(fd);
    }
    Some(about)
}
