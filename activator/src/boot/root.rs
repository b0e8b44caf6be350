//! The root on a disk: what PID 1 does in an initramfs that holds no more than the way there.
//!
//! Modules for the disk, its device, its file system; then the disk becomes the root, and the
//! program that lies there is executed in our place, to do the chores of a boot. What was in the
//! initramfs is removed, since it takes memory that nobody could give back later.

use super::disk::wait_for;
use super::{Fatal, load};
use crate::files;
use crate::start;
use activator::child;
use activator::manifest::{self, Manifest, Root};
use rustix::fs::{self, Mode};
use rustix::io::Errno;
use rustix::mount::{self, MountFlags, UnmountFlags};
use std::ffi::{CStr, CString};

/// Where the disk is mounted before it is the root.
const SYSROOT: &CStr = c"/sysroot";

/// Goes there. Returns only if that fails.
pub(super) fn switch(manifest: &Manifest, root: &Root) -> Fatal {
    match prepare(manifest, root) {
        Ok(()) => {
            // The kernel's name for us, which the new root has too.
            let name = std::iter::once(c"/init");
            let arguments: Vec<_> =
                name.chain(start::words().skip(1)).map(CStr::to_owned).collect();
            let errno = match CString::new(root.init.as_str()) {
                Ok(program) => child::execute(&program, &arguments, &child::environment(&[])),
                Err(_) => Errno::INVAL,
            };
            Fatal::Root(root.init.clone(), errno)
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
    for path in modules.chain(["/init", manifest::PATH]) {
        // At worst it takes some memory.
        files::remove(path);
    }
}
