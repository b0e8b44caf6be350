//! Capabilities and secure bits, capabilities(7): the bounding set before the change of user,
//! ambient capabilities kept over it.

use super::error::{At, Failed, Stage};
use crate::manifest::{Sandbox, Stage2};
use rustix::thread::{
    CapabilitiesSecureBits, CapabilitySet, CapabilitySets, capabilities_secure_bits,
    capability_is_in_bounding_set, configure_capability_in_ambient_set,
    remove_capability_from_bounding_set, set_capabilities, set_capabilities_secure_bits,
    set_keep_capabilities,
};

/// What a unit's processes may keep.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Capabilities {
    /// None leaves all.
    bounding: Option<CapabilitySet>,
    ambient: CapabilitySet,
    secure_bits: CapabilitiesSecureBits,
}

impl Capabilities {
    /// From the manifest, with what the sandbox takes away.
    pub(super) fn of(stage2: &Stage2) -> Self {
        let taken = taken_by(&stage2.sandbox);
        let bounding = stage2.bounding.map(CapabilitySet::from_bits_retain);
        let bounding = match (bounding, taken.is_empty()) {
            (None, true) => None,
            (bounding, _) => Some(bounding.unwrap_or(CapabilitySet::all()) - taken),
        };
        Self {
            bounding,
            ambient: CapabilitySet::from_bits_retain(stage2.ambient) - taken,
            secure_bits: CapabilitiesSecureBits::from_bits_retain(stage2.secure_bits),
        }
    }

    /// Before the change of user.
    pub(super) fn begin(&self) -> Result<(), Failed> {
        if let Some(keep) = self.bounding {
            drop_from_bounding(keep).at(Stage::Capabilities, || "drop capabilities".into())?;
        }
        if self.needs_any() {
            set_keep_capabilities(true)
                .at(Stage::Capabilities, || "keep capabilities over the change of user".into())?;
        }
        Ok(())
    }

    /// After it.
    pub(super) fn finish(&self) -> Result<(), Failed> {
        if !self.needs_any() {
            return Ok(());
        }
        self.raise().at(Stage::Capabilities, || "raise ambient capabilities".into())
    }

    fn needs_any(&self) -> bool {
        !self.ambient.is_empty() || !self.secure_bits.is_empty()
    }

    fn raise(&self) -> rustix::io::Result<()> {
        let root = rustix::process::geteuid().is_root();
        let have = rustix::thread::capabilities(None)?.permitted;
        // The one that setting the bits takes.
        let working = match root {
            true => have,
            false => (self.ambient | CapabilitySet::SETPCAP) & have,
        };
        let sets =
            |held| CapabilitySets { effective: held, permitted: held, inheritable: self.ambient };
        set_capabilities(None, sets(working))?;
        for capability in self.ambient.iter() {
            configure_capability_in_ambient_set(capability, true)?;
        }
        if !self.secure_bits.is_empty() && capabilities_secure_bits()? != self.secure_bits {
            set_capabilities_secure_bits(self.secure_bits)?;
        }
        match root {
            true => Ok(()),
            false => set_capabilities(None, sets(self.ambient)),
        }
    }
}

fn taken_by(sandbox: &Sandbox) -> CapabilitySet {
    let pairs = [
        (sandbox.private_devices, CapabilitySet::MKNOD | CapabilitySet::SYS_RAWIO),
        (sandbox.protect_kernel_modules, CapabilitySet::SYS_MODULE),
        (sandbox.protect_kernel_logs, CapabilitySet::SYSLOG),
        (sandbox.protect_clock, CapabilitySet::SYS_TIME | CapabilitySet::WAKE_ALARM),
    ];
    pairs.iter().filter(|(on, _)| *on).map(|(_, set)| *set).collect()
}

fn drop_from_bounding(keep: CapabilitySet) -> rustix::io::Result<()> {
    // What a later kernel has beyond those known here goes, too.
    for number in 0..64 {
        let capability = CapabilitySet::from_bits_retain(1 << number);
        if keep.contains(capability) {
            continue;
        }
        // An error: this kernel has no such capability.
        if capability_is_in_bounding_set(capability).unwrap_or(false) {
            remove_capability_from_bounding_set(capability)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sandbox_takes_from_both_sets() {
        let both = CapabilitySet::SYSLOG | CapabilitySet::CHOWN;
        let mut stage2 = Stage2 { ambient: both.bits(), ..Stage2::default() };
        assert_eq!(Capabilities::of(&stage2).bounding, None);
        stage2.sandbox.protect_kernel_logs = true;
        let found = Capabilities::of(&stage2);
        assert_eq!(found.ambient, CapabilitySet::CHOWN);
        assert_eq!(found.bounding, Some(CapabilitySet::all() - CapabilitySet::SYSLOG));
        stage2.bounding = Some(both.bits());
        assert_eq!(Capabilities::of(&stage2).bounding, Some(CapabilitySet::CHOWN));
    }
}
