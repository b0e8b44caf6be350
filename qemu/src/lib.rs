//! Boots an appliance image under QEMU.

pub mod vsock;
