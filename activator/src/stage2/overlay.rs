//! The root of a container that may write to it: an overlay of the image and of an empty layer
//! in memory, Documentation/filesystems/overlayfs.rst.
//!
//! Both are mounted in a mount namespace of the service's own: they are gone, and so is what was
//! written, with the last process that is in it, however that ended. What is written counts as
//! memory of the container's cgroup, and is at most half of the guest's (tmpfs(5)).

use super::error::Failed;
use super::sys;
use rustix::io::Errno;
use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change};
use std::ffi::CString;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::Path;

/// Name of the mounted root in a bundle's directory.
const ROOT: &str = "rootfs";
/// Name of the tmpfs with the empty layer.
const LAYER: &str = "layer";

/// Mounts the root of a container with that image's folder into its bundle's directory.
pub(super) fn mount_root(image: &Path, bundle: &Path) -> Result<(), Failed> {
    let (root, layer) = (bundle.join(ROOT), bundle.join(LAYER));
    fn failed(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Failed {
        move |error| Failed::file(what, path, error)
    }
    for path in [&root, &layer] {
        std::fs::DirBuilder::new().recursive(true).create(path).map_err(failed("make", path))?;
    }
    leave_namespace().map_err(|errno| Failed::file("leave the mounts of", "/", errno))?;
    fill_layer(image, &layer).map_err(failed("mount a layer in memory at", &layer))?;
    overlay(image, &layer, &root).map_err(failed("mount the container's root at", &root))
}

/// Mounts that the guest makes later are still seen; ours are not seen elsewhere.
fn leave_namespace() -> io::Result<()> {
    sys::leave_mounts()?;
    let kind = MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC;
    Ok(mount_change("/", kind)?)
}

/// The merged root has the mode and owner of the upper directory.
fn fill_layer(image: &Path, layer: &Path) -> io::Result<()> {
    mount("tmpfs", layer, "tmpfs", MountFlags::NODEV, Some(c"mode=0711"))?;
    let upper = layer.join("upper");
    std::fs::create_dir(&upper)?;
    std::fs::create_dir(layer.join("work"))?;
    let lower = std::fs::metadata(image)?;
    chown(&upper, Some(lower.uid()), Some(lower.gid()))?;
    std::fs::set_permissions(&upper, PermissionsExt::from_mode(lower.mode() & 0o7777))
}

fn overlay(image: &Path, layer: &Path, root: &Path) -> io::Result<()> {
    let mut options = Vec::new();
    for (name, path) in [
        ("lowerdir=", image.to_owned()),
        (",upperdir=", layer.join("upper")),
        (",workdir=", layer.join("work")),
    ] {
        let path = path.as_os_str().as_bytes();
        // These would end the option. The builder gives no folder such a name.
        if path.iter().any(|byte| b",:\\".contains(byte)) {
            return Err(Errno::INVAL.into());
        }
        options.extend(name.as_bytes());
        options.extend(path);
    }
    let options = CString::new(options)?;
    Ok(mount("overlay", root, "overlay", MountFlags::NODEV, Some(options.as_c_str()))?)
}
