//! Boots an appliance image under QEMU.
