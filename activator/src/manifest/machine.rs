//! What PID 1 sets up of the machine: the disk that it boots from, a disk that keeps what is
//! written, the network's interface.

use crate::wire;
use serde::Serialize;

/// The disk with the root, of an image whose initramfs holds no more than what it takes to mount
/// that disk. PID 1 mounts it, makes it the root and executes the PID 1 that lies there.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Root {
    /// The block device, `/dev/vda`.
    pub device: String,
    /// Kind of its file system, as mount(2) takes it: `erofs`.
    pub kind: String,
    /// Its PID 1, absolute.
    pub init: String,
}

/// A disk that keeps what is written to it, mounted before any unit starts.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Disk {
    /// The block device, `/dev/vda`.
    pub device: String,
    /// Kind of its file system, as mount(2) takes it: `ext4`.
    pub kind: String,
    /// Where it is mounted, absolute; made where it lacks.
    pub path: String,
    /// User and group of its root, and of directories that are made on the way to it.
    pub owner: (u32, u32),
}

/// The interface of the one network device.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Interface {
    /// Its name, `eth0`.
    pub name: String,
    /// What it is given at boot; None is left to a DHCP client, which is a unit.
    pub fixed: Option<FixedAddress>,
}

/// An IPv4 address that does not change.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct FixedAddress {
    /// In the order in which it is written.
    pub address: [u8; 4],
    /// Length of the network's prefix, 0 to 32.
    pub prefix: u8,
    /// Where the default route leads.
    pub gateway: Option<[u8; 4]>,
}

wire! {
    struct Root { device, kind, init }
    struct Disk { device, kind, path, owner }
    struct Interface { name, fixed }
    struct FixedAddress { address, prefix, gateway }
}
