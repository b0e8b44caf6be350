//! Boots an appliance image under QEMU.
//!
//! Principles:
//! * One process for each VM: QEMU, its vsock device and its sockets begin and end together.
//! * A VM is found by its name in the user's [`registry`], and by nothing else.
//! * What the host cannot do is noticed, said, and gone round: KVM that does not run, no
//!   vhost-vsock, no QEMU.
//! * No network device, and no user's configuration of QEMU.
//!
//! It will not: build images, know what runs in the guest, or speak its control protocol. The
//! caller supplies that as a [`vm::Guest`].

pub mod accelerator;
mod child;
pub mod connect;
pub mod console;
pub mod emulator;
pub mod machine;
pub mod monitor;
pub mod nic;
pub mod process;
pub mod publish;
pub mod registry;
pub mod splice;
mod tsc;
pub mod vhost;
pub mod vm;
pub mod vsock;
mod watch;
