//! vsock(7) addresses as rustix takes them.
#![allow(unsafe_code)]

use rustix::net::addr::{SocketAddrArg, SocketAddrLen, SocketAddrOpaque};
use rustix::net::{AddressFamily, SocketAddrAny};
use std::mem::size_of;

/// Context id and port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Address {
    /// Context id: 2 is the host, 4294967295 any.
    pub cid: u32,
    /// As in TCP, but of 32 bits.
    pub port: u32,
}

impl Address {
    /// The vsock address that it is; None if it is of another family.
    pub fn of(address: &SocketAddrAny) -> Option<Self> {
        let vsock = address.address_family() == AddressFamily::VSOCK
            && address.addr_len() as usize >= size_of::<libc::sockaddr_vm>();
        // SAFETY: the family and the length say that a sockaddr_vm is what it points to, which
        // has no invalid values; it need not be aligned for one.
        vsock.then(|| unsafe {
            let it: libc::sockaddr_vm =
                address.as_ptr().cast::<libc::sockaddr_vm>().read_unaligned();
            Self { cid: it.svm_cid, port: it.svm_port }
        })
    }
}

// SAFETY: what the closure gets is a live sockaddr_vm and its size.
unsafe impl SocketAddrArg for Address {
    // SAFETY: the address lives until the closure has returned, and the size is its own.
    unsafe fn with_sockaddr<R>(
        &self,
        f: impl FnOnce(*const SocketAddrOpaque, SocketAddrLen) -> R,
    ) -> R {
        // SAFETY: all zeroes is a valid sockaddr_vm.
        let mut address: libc::sockaddr_vm = unsafe { std::mem::zeroed() };
        address.svm_family = libc::AF_VSOCK as libc::sa_family_t;
        address.svm_cid = self.cid;
        address.svm_port = self.port;
        f((&raw const address).cast(), size_of::<libc::sockaddr_vm>() as SocketAddrLen)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_and_back() {
        let address = Address { cid: 3, port: u32::MAX - 1 };
        assert_eq!(Address::of(&address.as_any()), Some(address));
    }

    #[test]
    fn another_family_is_none() {
        let other = SocketAddrAny::from(std::net::SocketAddrV4::new([127, 0, 0, 1].into(), 3));
        assert_eq!(Address::of(&other), None);
    }
}
