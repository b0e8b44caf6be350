//! rtnetlink(7): brings an interface up, gives it an address and the default route.
//!
//! Each request goes out alone and is answered by the kernel at once, with an errno or without.
//! PID 1 uses this for an address that the manifest has, and what a DHCP client executes
//! ([`LEASE`]) for one that it was given.

use crate::manifest::{FixedAddress, Interface};
use rustix::io::Errno;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{self, AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// The activator's name as the program that a DHCP client executes at each event: udhcpc gives it
/// no argument of ours.
pub const LEASE: &str = "lease";
/// What /etc/resolv.conf leads to where a DHCP client writes it.
pub const RESOLV_CONF: &str = "/run/resolv.conf";

/// linux/netlink.h and linux/rtnetlink.h.
const NLMSG_ERROR: u16 = 2;
const NLM_F_REQUEST_ACK: u16 = 0x005;
const NLM_F_REPLACE_CREATE: u16 = 0x500;
const RTM_NEWLINK: u16 = 16;
const RTM_NEWADDR: u16 = 20;
const RTM_DELADDR: u16 = 21;
const RTM_NEWROUTE: u16 = 24;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_BROADCAST: u16 = 4;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RT_TABLE_MAIN: u8 = 254;
const RTPROT_BOOT: u8 = 3;
const RTN_UNICAST: u8 = 1;
const IFF_UP: u32 = 1;

/// Brings an interface up, with its address if the manifest has one.
pub fn set_up(interface: &Interface) -> Result<(), Errno> {
    let link = Link::open(&interface.name)?;
    link.up()?;
    match &interface.fixed {
        Some(fixed) => link.add(fixed),
        None => Ok(()),
    }
}

/// An interface, and a socket to the kernel.
pub struct Link {
    socket: OwnedFd,
    index: u32,
}

impl Link {
    /// By its name. ENODEV if there is none.
    pub fn open(name: &str) -> Result<Self, Errno> {
        let flags = SocketFlags::CLOEXEC;
        let family = AddressFamily::NETLINK;
        // Protocol 0 is NETLINK_ROUTE.
        let socket = net::socket_with(family, SocketType::RAW, flags, None)?;
        net::bind(&socket, &SocketAddrNetlink::new(0, 0))?;
        let asked = net::socket_with(AddressFamily::INET, SocketType::DGRAM, flags, None)?;
        let index = net::netdevice::name_to_index(&asked, name)?;
        Ok(Self { socket, index })
    }

    /// `ip link set NAME up`
    pub fn up(&self) -> Result<(), Errno> {
        let mut message = Message::new(RTM_NEWLINK, 0);
        // struct ifinfomsg: family, padding, type, index, flags, which of them.
        message.put(&[0; 4]);
        message.put(&self.index.to_ne_bytes());
        message.put(&IFF_UP.to_ne_bytes());
        message.put(&IFF_UP.to_ne_bytes());
        message.send(self.socket.as_fd())
    }

    /// `ip address replace` and `ip route replace default`
    pub fn add(&self, fixed: &FixedAddress) -> Result<(), Errno> {
        self.address(RTM_NEWADDR, NLM_F_REPLACE_CREATE, fixed)?;
        let Some(gateway) = &fixed.gateway else { return Ok(()) };
        let mut message = Message::new(RTM_NEWROUTE, NLM_F_REPLACE_CREATE);
        // struct rtmsg: family, lengths of destination and source, tos, table, protocol, scope, type.
        message.put(&[libc::AF_INET as u8, 0, 0, 0, RT_TABLE_MAIN, RTPROT_BOOT, 0, RTN_UNICAST]);
        message.put(&0_u32.to_ne_bytes());
        message.attribute(RTA_GATEWAY, gateway);
        message.attribute(RTA_OIF, &self.index.to_ne_bytes());
        message.send(self.socket.as_fd())
    }

    /// `ip address delete`; its routes go with it.
    pub fn remove(&self, fixed: &FixedAddress) -> Result<(), Errno> {
        self.address(RTM_DELADDR, 0, fixed)
    }

    fn address(&self, what: u16, flags: u16, fixed: &FixedAddress) -> Result<(), Errno> {
        let mut message = Message::new(what, flags);
        // struct ifaddrmsg: family, prefix, flags, scope, index.
        message.put(&[libc::AF_INET as u8, fixed.prefix, 0, 0]);
        message.put(&self.index.to_ne_bytes());
        message.attribute(IFA_LOCAL, &fixed.address);
        message.attribute(IFA_ADDRESS, &fixed.address);
        if let Some(broadcast) = broadcast(fixed) {
            message.attribute(IFA_BROADCAST, &broadcast);
        }
        message.send(self.socket.as_fd())
    }
}

/// The last address of the network, where it has more than two.
fn broadcast(fixed: &FixedAddress) -> Option<[u8; 4]> {
    let hosts = u32::MAX.checked_shr(fixed.prefix.into()).filter(|_| fixed.prefix < 31)?;
    Some((u32::from_be_bytes(fixed.address) | hosts).to_be_bytes())
}

/// A request under construction. No request here comes near its room.
struct Message {
    bytes: [u8; 128],
    length: usize,
}

impl Message {
    fn new(kind: u16, flags: u16) -> Self {
        let mut message = Self { bytes: [0; 128], length: 0 };
        message.put(&[0; 4]); // the length, see send
        message.put(&kind.to_ne_bytes());
        message.put(&(NLM_F_REQUEST_ACK | flags).to_ne_bytes());
        message.put(&[0; 8]); // number and sender
        message
    }

    fn put(&mut self, bytes: &[u8]) {
        if let Some(room) = self.bytes.get_mut(self.length..self.length + bytes.len()) {
            room.copy_from_slice(bytes);
            self.length += bytes.len();
        }
    }

    /// All attributes here are four bytes long, so that nothing has to be aligned.
    fn attribute(&mut self, kind: u16, value: &[u8; 4]) {
        self.put(&8_u16.to_ne_bytes());
        self.put(&kind.to_ne_bytes());
        self.put(value);
    }

    fn finish(&mut self) -> &[u8] {
        let length = self.length as u32;
        self.bytes[0..4].copy_from_slice(&length.to_ne_bytes());
        &self.bytes[..self.length]
    }

    fn send(mut self, socket: BorrowedFd) -> Result<(), Errno> {
        net::send(socket, self.finish(), SendFlags::empty())?;
        let mut answer = [0; 256];
        let (length, _) = net::recv(socket, &mut answer[..], RecvFlags::empty())?;
        let answer = answer.get(..length).unwrap_or_default();
        // struct nlmsghdr, then the errno of struct nlmsgerr; 0 is success.
        match (answer.get(4..6), answer.get(16..20).and_then(<[u8]>::first_chunk)) {
            (Some(kind), Some(errno)) if kind == NLMSG_ERROR.to_ne_bytes() => {
                match i32::from_ne_bytes(*errno) {
                    0 => Ok(()),
                    errno => Err(Errno::from_raw_os_error(-errno)),
                }
            }
            _ => Err(Errno::BADMSG),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_ends_with_its_broadcast_address() {
        let of = |address, prefix| {
            broadcast(&FixedAddress { address, prefix, ..FixedAddress::default() })
        };
        assert_eq!(of([10, 0, 2, 15], 24), Some([10, 0, 2, 255]));
        assert_eq!(of([10, 1, 2, 3], 0), Some([255; 4]));
        assert_eq!(of([10, 1, 2, 3], 30), Some([10, 1, 2, 3]));
        assert_eq!(of([10, 1, 2, 3], 31), None);
        assert_eq!(of([10, 1, 2, 3], 32), None);
    }

    #[test]
    fn an_attribute_carries_its_length() {
        let mut message = Message::new(RTM_NEWROUTE, NLM_F_REPLACE_CREATE);
        message.attribute(RTA_GATEWAY, &[10, 0, 2, 2]);
        let bytes = message.finish();
        assert_eq!(bytes[0..8], [24, 0, 0, 0, 24, 0, 0x05, 0x05]);
        assert_eq!(bytes[16..], [8, 0, 5, 0, 10, 0, 2, 2]);
    }

    #[test]
    fn an_interface_that_is_not_there_is_an_error() {
        let nobody = Interface { name: "nobody0".into(), fixed: None };
        assert_eq!(set_up(&nobody), Err(Errno::NODEV));
    }
}
