//! Cgroups of services with `Delegate=yes`: their processes make cgroups of their own below, as
//! Podman does with `--cgroups=split` (`runtime`, `libpod-payload-ID`), and give controllers to
//! them. Then no process can be born into the service's own any more (cgroups(7), "no internal
//! processes"): commands beside the main one run in `.control`, as under systemd, and what the
//! last run left behind is taken away before the next, and when the last process is gone.

use super::DEPTH;
use rustix::fs::{self, AtFlags, FileType, Gid, Mode, OFlags, RawDir, Uid};
use rustix::io::{self, Errno};
use std::ffi::CStr;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// Where commands beside the main one are born.
const CONTROL: &CStr = c".control";
/// Leftovers that are taken away in one go; more wait for the next.
const MOST: usize = 256;

/// Makes the cgroup for commands, below that of the service.
pub(super) fn make_control(root: BorrowedFd<'_>) -> Result<OwnedFd, Errno> {
    match fs::mkdirat(root, CONTROL, Mode::from_raw_mode(0o755)) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(errno) => return Err(errno),
    }
    fs::openat(root, CONTROL, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
}

/// Gives a cgroup to a user: he may make others in it, and move his processes between them.
pub(super) fn give(group: BorrowedFd<'_>, uid: u32, gid: u32) -> Result<(), Errno> {
    let (uid, gid) = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
    for file in [c".", c"cgroup.procs", c"cgroup.subtree_control", c"cgroup.threads"] {
        fs::chownat(group, file, uid, gid, AtFlags::empty())?;
    }
    Ok(())
}

/// Takes away the cgroups below that have no process, and the controllers that were given to
/// them. False if some stay: then nothing can be born beside them. Nothing is allocated.
pub(super) fn sweep(root: BorrowedFd<'_>) -> bool {
    let mut left = MOST;
    if !remove_below(root, 0, &mut left) {
        return false;
    }
    take_controllers(root);
    true
}

/// Removes the cgroups in one, the deepest first; false if one could not be.
fn remove_below(group: BorrowedFd<'_>, depth: usize, left: &mut usize) -> bool {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    // Afresh, so that the place in the directory is ours.
    let Ok(directory) = fs::openat(group, c".", flags, Mode::empty()) else { return false };
    let mut buffer = [MaybeUninit::uninit(); 1024];
    let mut entries = RawDir::new(&directory, &mut buffer);
    let mut all = true;
    while let Some(Ok(entry)) = entries.next() {
        let name = entry.file_name();
        let below = entry.file_type() == FileType::Directory && name != c"." && name != c"..";
        if !below || depth == 0 && name == CONTROL {
            continue;
        }
        if *left == 0 || depth == DEPTH {
            return false;
        }
        *left -= 1;
        let emptied = match fs::openat(&directory, name, flags, Mode::empty()) {
            Ok(inner) => remove_below(inner.as_fd(), depth + 1, left),
            Err(_) => false,
        };
        all &= emptied && fs::unlinkat(&directory, name, AtFlags::REMOVEDIR).is_ok();
    }
    all
}

/// Takes back all controllers that were given to cgroups below.
fn take_controllers(group: BorrowedFd<'_>) {
    let flags = OFlags::RDWR | OFlags::CLOEXEC;
    let Ok(file) = fs::openat(group, c"cgroup.subtree_control", flags, Mode::empty()) else {
        return;
    };
    let mut text = [0; 256];
    let Ok(length) = io::read(&file, &mut text) else { return };
    let names = text.get(..length).unwrap_or_default().split(|byte| b" \n".contains(byte));
    for name in names.filter(|name| !name.is_empty()) {
        let mut order = [0; 64];
        order[0] = b'-';
        let length = name.len().min(order.len() - 1);
        order[1..=length].copy_from_slice(&name[..length]);
        // One that stays makes the next start say so.
        let _ = io::pwrite(&file, &order[..=length], 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn what_a_run_left_behind_is_removed_and_the_place_for_commands_stays() {
        // Directories stand for cgroups: the kernel lets those go by rmdir(2) all the same.
        let folder = tempfile::tempdir().unwrap();
        let open = |path: &Path| std::fs::File::open(path).unwrap();
        let root = open(folder.path());
        make_control(root.as_fd()).unwrap();
        for leftover in ["runtime", "libpod-payload-1/a/b"] {
            std::fs::create_dir_all(folder.path().join(leftover)).unwrap();
        }
        assert!(sweep(root.as_fd()));
        let names: Vec<_> = std::fs::read_dir(folder.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        assert_eq!(names, [".control"]);
        // A file in the way stands for processes.
        std::fs::create_dir(folder.path().join("runtime")).unwrap();
        std::fs::write(folder.path().join("runtime/x"), "").unwrap();
        assert!(!sweep(root.as_fd()));
    }
}
