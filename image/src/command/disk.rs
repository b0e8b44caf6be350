//! A VM's disks, as QEMU and the person who runs it see them.

use crate::appliance::Appliance;
use crate::build::{self, Built};
use crate::config;
use crate::debian::tools;
use crate::disk::{self, DiskError, Tools};
use crate::exit::{FAILED, Failure, TRY_AGAIN};
use crate::{output, terminal};
use rouse_qemu::machine::{Disk, DiskAccess};

/// In the order that the image counts on: what the guest keeps, what it boots from.
pub(super) fn of(appliance: &Appliance, name: &str, built: &Built) -> Result<Vec<Disk>, Failure> {
    let mut disks = Vec::new();
    if appliance.config.disk.is_some() {
        let path = disk::path(name).map_err(|error| Failure::of(FAILED, &error))?;
        disks.push(Disk { path, access: DiskAccess::ReadWrite });
    }
    let root = built.folder.join(output::ROOT);
    if root.exists() {
        disks.push(Disk { path: root, access: DiskAccess::ReadOnly });
    }
    Ok(disks)
}

/// Makes the disk that keeps what the guest writes ready for a boot.
pub(super) fn prepare(appliance: &Appliance, name: &str) -> Result<(), Failure> {
    let Some(size) = appliance.config.disk.as_ref().and_then(config::Disk::bytes) else {
        return Ok(());
    };
    let cache = build::cache()?;
    let debian = build::debian(appliance, &cache);
    let tool = |binary| {
        tools::program(&debian, "e2fsprogs", binary)
            .map_err(|error| build::of_debian("fetch e2fsprogs", error))
    };
    let tools = Tools { make: tool("mke2fs")?, check: tool("e2fsck")?, grow: tool("resize2fs")? };
    let path = disk::path(name).map_err(|error| Failure::of(FAILED, &error))?;
    let done = disk::prepare(&path, size, &tools).map_err(|error| {
        let code = if matches!(error, DiskError::Busy(_)) { TRY_AGAIN } else { FAILED };
        let damaged = matches!(error, DiskError::Tool { what: "check", .. });
        let failure = Failure::new(code, format!("run {name}")).because(error);
        match damaged {
            true => failure.hint(format!(
                "mend it with `e2fsck {0}`; where there is no {0}, a new disk is made",
                path.display()
            )),
            false => failure,
        }
    })?;
    done.into_iter().for_each(terminal::note);
    Ok(())
}
