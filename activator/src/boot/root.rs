//! The root on a disk: what PID 1 does in an initramfs that holds no more than the way there.
//!
//! Modules for the disk, its device, its file system; then the disk becomes the root, and the
//! activator that lies there is executed in our place, to do the chores of a boot. What was in the
//! initramfs is removed, since it takes memory that nobody could give back later.

use super::disk::wait_for;
use super::{Fatal, load};
use activator::manifest::{self, Manifest, Root};
use rustix::fs::{self, AtFlags, CWD, Mode};
use rustix::io::Errno;
use rustix::mount::{self, MountFlags, UnmountFlags};
use std::ffi::CStr;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

/// Where the disk is mounted before it is the root.
const SYSROOT: &CStr = c"/sysroot";

/// Goes there. Returns only if that fails.
pub(super) fn switch(manifest: &Manifest, root: &Root) -> Fatal {
    match prepare(manifest, root) {
        Ok(()) => {
            let arguments = std::env::args_os();
            let mut command = Command::new(&root.activator);
            // The kernel's name for us, which the new root has too.
            command.arg0("/init").args(arguments.skip(1));
            let errno = command.exec().raw_os_error().unwrap_or(libc::EIO);
            Fatal::Root(root.activator.clone(), Errno::from_raw_os_error(errno))
        }
        Err(fatal) => fatal,
    }
}

fn prepare(manifest: &Manifest, root: &Root) -> Result<(), Fatal> {
    let failed = |errno| Fatal::Root(root.device.clone(), errno);
    let _ = fs::mkdir(c"/dev", Mode::from_raw_mode(0o755));
    let _ = fs::mkdir(SYSROOT, Mode::from_raw_mode(0o755));
    mount::mount(c"devtmpfs", c"/dev", c"devtmpfs", MountFlags::NOSUID, None).map_err(failed)?;
    for module in &manifest.boot.modules {
        match load(module) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(Fatal::Module(module.path.clone(), errno)),
        }
    }
    wait_for(&root.device).map_err(failed)?;
    let (device, kind) = (root.device.as_str(), root.kind.as_str());
    mount::mount(device, SYSROOT, kind, MountFlags::RDONLY, None).map_err(failed)?;
    // The chores of the boot mount it again, where it belongs.
    let _ = mount::unmount(c"/dev", UnmountFlags::DETACH);
    forget(manifest);
    rustix::process::chdir(SYSROOT).map_err(failed)?;
    mount::mount_move(c".", c"/").map_err(failed)?;
    rustix::process::chroot(c".").map_err(failed)?;
    rustix::process::chdir(c"/").map_err(failed)
}

/// Removes what the initramfs holds; the kernel keeps us until we execute something else.
fn forget(manifest: &Manifest) {
    let modules = manifest.boot.modules.iter().map(|module| module.path.as_str());
    for path in modules.chain(["/init", manifest::PATH]).map(Path::new) {
        // At worst it takes some memory.
        let _ = fs::unlinkat(CWD, path, AtFlags::empty());
    }
}
