//! The host kernel's side of vsock: AF_VSOCK addresses, and /dev/vhost-vsock.
#![allow(unsafe_code)]

use rustix::net::addr::{SocketAddrArg, SocketAddrLen, SocketAddrOpaque};
use std::fs::{File, OpenOptions};
use std::io;
use std::path::Path;

const DEVICE: &str = "/dev/vhost-vsock";
/// The host's own end of vsock.
const OWN: &str = "/dev/vsock";

/// `auto` (the default), `vhost` or `device`: how guests get their vsock.
pub const VARIABLE: &str = "ROUSE_VSOCK";

/// Whether guests can have the kernel's vsock: the device is there, and this user may use it.
pub fn is_usable() -> bool {
    open(Path::new(DEVICE)).is_ok()
}

/// Whether a VM of this host, of whatever program and user, has that CID, or the host itself has it,
/// being a guest: its kernel keeps connections to its own CID, so that they never reach a VM.
pub fn is_taken(cid: u32) -> bool {
    if own_cid() == Some(cid) {
        return true;
    }
    match open(Path::new(DEVICE)) {
        Ok(device) => {
            // SAFETY: the request takes a pointer to a u64, which SetGuestCid holds for the call.
            let set = unsafe { rustix::ioctl::ioctl(&device, SetGuestCid::new(u64::from(cid))) };
            set == Err(rustix::io::Errno::ADDRINUSE)
        }
        Err(_) => false,
    }
}

/// The CID that this host has as a guest of another, or 2 if it is no guest.
fn own_cid() -> Option<u32> {
    let device = File::open(OWN).ok()?;
    // SAFETY: the request takes a pointer to an unsigned int, which GetLocalCid provides.
    unsafe { rustix::ioctl::ioctl(&device, GetLocalCid::new()) }.ok()
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).open(path)
}

/// VHOST_VSOCK_SET_GUEST_CID, _IOW(0xaf, 0x60, __u64) of linux/vhost.h.
type SetGuestCid = rustix::ioctl::Setter<{ rustix::ioctl::opcode::write::<u64>(0xaf, 0x60) }, u64>;

/// IOCTL_VM_SOCKETS_GET_LOCAL_CID, _IO(7, 0xb9) of linux/vm_sockets.h, which writes an unsigned int.
type GetLocalCid = rustix::ioctl::Getter<{ rustix::ioctl::opcode::none(7, 0xb9) }, u32>;

/// struct sockaddr_vm of linux/vm_sockets.h, see vsock(7).
#[repr(C)]
#[derive(Debug, Clone, Copy)]
struct SockaddrVm {
    family: u16,
    reserved: u16,
    port: u32,
    cid: u32,
    flags: u8,
    zero: [u8; 3],
}

/// The address of a vsock port of some machine.
#[derive(Debug, Clone, Copy)]
pub struct VsockAddress(SockaddrVm);

impl VsockAddress {
    /// The port of the guest with that CID.
    pub fn new(cid: u32, port: u32) -> Self {
        let family = rustix::net::AddressFamily::VSOCK.as_raw();
        Self(SockaddrVm { family, reserved: 0, port, cid, flags: 0, zero: [0; 3] })
    }
}

// SAFETY: the pointer is to a whole sockaddr_vm that lives during the call, the length is its size,
// and the kernel only reads it.
unsafe impl SocketAddrArg for VsockAddress {
    // SAFETY: the caller's part is to use the pointer during `f` only, as the trait says; there is
    // nothing unsafe in here.
    unsafe fn with_sockaddr<R>(
        &self,
        f: impl FnOnce(*const SocketAddrOpaque, SocketAddrLen) -> R,
    ) -> R {
        f((&raw const self.0).cast(), size_of::<SockaddrVm>() as SocketAddrLen)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_is_laid_out_as_the_kernel_wants_it() {
        assert_eq!(size_of::<SockaddrVm>(), 16);
        assert_eq!(std::mem::offset_of!(SockaddrVm, port), 4);
        assert_eq!(std::mem::offset_of!(SockaddrVm, cid), 8);
        assert_eq!(VsockAddress::new(3, 5).0.family, 40);
    }

    #[test]
    fn the_requests_have_the_kernels_numbers() {
        assert_eq!(rustix::ioctl::opcode::write::<u64>(0xaf, 0x60), 0x4008_af60);
        assert_eq!(rustix::ioctl::opcode::none(7, 0xb9), 0x7b9);
    }
}
