//! Disks that keep what is written to them: mounted before any unit starts. The host has made,
//! checked and grown the file system before the boot.

use activator::manifest::Disk;
use rustix::fs::{self, AtFlags, CWD, Gid, Mode, Uid};
use rustix::io::Errno;
use rustix::mount::{self, MountFlags};
use rustix::process::{self, WaitOptions};
use std::ffi::CString;
use std::sync::OnceLock;
use std::time::Duration;

/// How often a device is looked for, and how long it is waited for in between: a driver may find
/// its disk a little after it was loaded.
const TRIES: u32 = 500;
const PAUSE: Duration = Duration::from_millis(10);

/// Where the disks are mounted, for [`settle`]: at the machine's end nothing can be allocated.
/// Written once by each program that PID 1 executes.
static MOUNTED: OnceLock<Vec<CString>> = OnceLock::new();

/// Notes which disks are to be left in order.
pub(crate) fn note(disks: &[Disk]) {
    let paths = disks.iter().filter_map(|disk| CString::new(disk.path.as_str()).ok());
    // A program that starts over has the same disks.
    let _ = MOUNTED.set(paths.collect());
}

/// Leaves the disks as e2fsck(8) calls clean. Everybody was killed before; whoever is not gone yet
/// may hold a file that is open for writing.
pub(super) fn settle() {
    let paths = MOUNTED.get().map(Vec::as_slice).unwrap_or_default();
    if paths.is_empty() {
        return;
    }
    for _ in 0..TRIES {
        match process::wait(WaitOptions::NOHANG) {
            Ok(Some(_)) => {}
            Ok(None) => std::thread::sleep(PAUSE),
            Err(_) => break,
        }
    }
    for path in paths {
        // Read-only rather than unmounted: containers may have mounts below it. What a kernel
        // refuses here, the journal mends at the next boot.
        let _ = mount::mount_remount(path.as_c_str(), MountFlags::RDONLY, c"");
    }
}

/// Mounts one, where nothing has to be yet.
pub(super) fn mount(disk: &Disk) -> Result<(), Errno> {
    wait_for(&disk.device)?;
    let ends = disk.path.match_indices('/').skip(1).map(|(end, _)| end);
    for end in ends.chain([disk.path.len()]) {
        let path = &disk.path[..end];
        match fs::mkdir(path, Mode::from_raw_mode(0o755)) {
            Ok(()) => own(path, disk.owner)?,
            // On a read-only root even what is there says that.
            Err(Errno::EXIST | Errno::ROFS) => {}
            Err(errno) => return Err(errno),
        }
    }
    let (device, path, kind) = (disk.device.as_str(), disk.path.as_str(), disk.kind.as_str());
    mount::mount(device, path, kind, MountFlags::NODEV, None)?;
    let stat = fs::stat(path)?;
    if (stat.st_uid, stat.st_gid) == disk.owner { Ok(()) } else { own(path, disk.owner) }
}

fn own(path: &str, (uid, gid): (u32, u32)) -> Result<(), Errno> {
    let (uid, gid) = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
    fs::chownat(CWD, path, uid, gid, AtFlags::SYMLINK_NOFOLLOW)
}

/// Waits until a device is there; ENOENT if it never is.
pub(super) fn wait_for(device: &str) -> Result<(), Errno> {
    for _ in 0..TRIES {
        match fs::stat(device) {
            Err(Errno::NOENT) => std::thread::sleep(PAUSE),
            other => return other.map(drop),
        }
    }
    Err(Errno::NOENT)
}
