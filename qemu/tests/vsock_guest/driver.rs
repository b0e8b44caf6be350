//! The driver's side of the device: a vhost-user front end, guest memory, and two rings.
#![allow(unsafe_code)]

use rustix::event::{PollFd, PollFlags, Timespec};
use std::fs::File;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::path::Path;
use std::sync::atomic::{Ordering, fence};
use std::time::{Duration, Instant};
use vhost::vhost_user::message::{VhostUserConfigFlags, VhostUserProtocolFeatures};
use vhost::vhost_user::{Frontend, VhostUserFrontend};
use vhost::{VhostBackend, VhostUserMemoryRegionInfo, VringConfigData};
use vm_memory::{Bytes, FileOffset, GuestAddress, GuestMemoryBackend, GuestMemoryMmap};
use vmm_sys_util::eventfd::EventFd;

pub const HEADER: usize = 44;
const MEMORY: usize = 64 << 20;
/// QEMU's ring size.
pub const RING: u16 = 128;
const RX_BUFFER: u64 = 4096;
const TX_BUFFER: u64 = 128 << 10;
const RX_BUFFERS: u64 = 0x10_0000;
const TX_BUFFERS: u64 = 0x100_0000;
const EVENT_INDEX: u64 = 1 << 29;
const PROTOCOL: u64 = 1 << 30;
const VERSION_1: u64 = 1 << 32;
const NEXT: u16 = 1;
const WRITE: u16 = 2;

/// A header as the guest sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Header {
    pub src_cid: u64,
    pub dst_cid: u64,
    pub src_port: u32,
    pub dst_port: u32,
    pub len: u32,
    pub kind: u16,
    pub op: u16,
    pub flags: u32,
    pub buf_alloc: u32,
    pub fwd_cnt: u32,
}

impl Header {
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEADER);
        bytes.extend(self.src_cid.to_le_bytes());
        bytes.extend(self.dst_cid.to_le_bytes());
        bytes.extend(self.src_port.to_le_bytes());
        bytes.extend(self.dst_port.to_le_bytes());
        bytes.extend(self.len.to_le_bytes());
        bytes.extend(self.kind.to_le_bytes());
        bytes.extend(self.op.to_le_bytes());
        bytes.extend(self.flags.to_le_bytes());
        bytes.extend(self.buf_alloc.to_le_bytes());
        bytes.extend(self.fwd_cnt.to_le_bytes());
        bytes
    }

    pub fn decode(bytes: &[u8]) -> Self {
        let u32_at = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
        let u64_at = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
        let u16_at = |at: usize| u16::from_le_bytes(bytes[at..at + 2].try_into().unwrap());
        Self {
            src_cid: u64_at(0),
            dst_cid: u64_at(8),
            src_port: u32_at(16),
            dst_port: u32_at(20),
            len: u32_at(24),
            kind: u16_at(28),
            op: u16_at(30),
            flags: u32_at(32),
            buf_alloc: u32_at(36),
            fwd_cnt: u32_at(40),
        }
    }
}

/// One ring; `base` is where its three tables lie.
struct Ring {
    base: u64,
    avail: u16,
    used: u16,
    kick: EventFd,
    call: EventFd,
}

impl Ring {
    fn new(base: u64) -> Self {
        let event = || EventFd::new(libc::EFD_NONBLOCK | libc::EFD_CLOEXEC).unwrap();
        Self { base, avail: 0, used: 0, kick: event(), call: event() }
    }

    fn descriptors(&self) -> u64 {
        self.base
    }

    fn avail_ring(&self) -> u64 {
        self.base + 0x4000
    }

    fn used_ring(&self) -> u64 {
        self.base + 0x8000
    }
}

/// The driver of one guest.
pub struct Driver {
    pub memory: GuestMemoryMmap,
    file: File,
    frontend: Frontend,
    features: u64,
    rx: Ring,
    tx: Ring,
    free: Vec<u16>,
    /// The transmit ring's descriptors are used in pairs: header and payload apart.
    host_base: u64,
}

/// Whether the rings suppress notifications by index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventIndex {
    On,
    Off,
}

impl Driver {
    /// Connects as QEMU does, and negotiates; the queues are not given yet.
    pub fn connect(socket: &Path, event_index: EventIndex) -> Self {
        let file = rustix::fs::memfd_create("guest", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
        let file = File::from(file);
        file.set_len(MEMORY as u64).unwrap();
        let range = (GuestAddress(0), MEMORY, Some(FileOffset::new(file.try_clone().unwrap(), 0)));
        let memory = GuestMemoryMmap::from_ranges_with_files([range]).unwrap();
        let host_base = memory.get_host_address(GuestAddress(0)).unwrap() as u64;
        let mut frontend = Frontend::connect(socket, 3).unwrap();
        frontend.set_owner().unwrap();
        let offered = frontend.get_features().unwrap();
        assert_eq!(offered & (1 << 1), 0, "SEQPACKET is not offered");
        let mut features = VERSION_1 | PROTOCOL;
        if event_index == EventIndex::On {
            features |= EVENT_INDEX;
        }
        assert_eq!(offered & features, features);
        let protocol = frontend.get_protocol_features().unwrap();
        frontend.set_protocol_features(protocol & VhostUserProtocolFeatures::CONFIG).unwrap();
        Self {
            memory,
            file,
            frontend,
            features,
            rx: Ring::new(0),
            tx: Ring::new(0x2_0000),
            free: Vec::new(),
            host_base,
        }
    }

    /// The CID that the device tells.
    pub fn cid(&mut self) -> u64 {
        let flags = VhostUserConfigFlags::empty();
        let (_, bytes) = self.frontend.get_config(0, 8, flags, &[0; 8]).unwrap();
        u64::from_le_bytes(bytes.try_into().unwrap())
    }

    /// Gives the device its queues: the driver is ready.
    pub fn start(&mut self) {
        self.frontend.set_features(self.features).unwrap();
        let region = VhostUserMemoryRegionInfo {
            guest_phys_addr: 0,
            memory_size: MEMORY as u64,
            userspace_addr: self.host_base,
            mmap_offset: 0,
            mmap_handle: self.file.as_raw_fd(),
        };
        self.frontend.set_mem_table(&[region]).unwrap();
        self.memory.write_slice(&[0; 0x4_0000], GuestAddress(0)).unwrap();
        (self.rx.avail, self.rx.used, self.tx.avail, self.tx.used) = (0, 0, 0, 0);
        self.free = (0..RING / 2).collect();
        for index in 0..RING {
            self.offer(index);
        }
        for (index, ring) in [&self.rx, &self.tx].into_iter().enumerate() {
            self.frontend.set_vring_num(index, RING).unwrap();
            self.frontend.set_vring_base(index, 0).unwrap();
            let addresses = VringConfigData {
                queue_max_size: RING,
                queue_size: RING,
                flags: 0,
                desc_table_addr: self.host_base + ring.descriptors(),
                used_ring_addr: self.host_base + ring.used_ring(),
                avail_ring_addr: self.host_base + ring.avail_ring(),
                log_addr: None,
            };
            self.frontend.set_vring_addr(index, &addresses).unwrap();
            self.frontend.set_vring_call(index, &ring.call).unwrap();
            self.frontend.set_vring_kick(index, &ring.kick).unwrap();
            self.frontend.set_vring_enable(index, true).unwrap();
        }
    }

    /// Takes the queues back, as QEMU does when the guest resets the device.
    pub fn stop(&mut self) {
        for index in 0..2 {
            self.frontend.set_vring_enable(index, false).unwrap();
            self.frontend.get_vring_base(index).unwrap();
        }
    }

    /// The next packet of the device.
    pub fn receive(&mut self) -> Option<(Header, Vec<u8>)> {
        let (index, written) = self.next_used(Side::Rx)?;
        let buffer = GuestAddress(RX_BUFFERS + u64::from(index) * RX_BUFFER);
        let mut bytes = vec![0; written as usize];
        self.memory.read_slice(&mut bytes, buffer).unwrap();
        self.offer(index);
        self.rx.kick.write(1).unwrap();
        if bytes.len() < HEADER {
            return self.receive();
        }
        let header = Header::decode(&bytes);
        assert_eq!(bytes.len(), HEADER + header.len as usize);
        Some((header, bytes.split_off(HEADER)))
    }

    /// Sends a packet, if there is a free descriptor.
    pub fn send(&mut self, header: &Header, payload: &[u8]) -> bool {
        let mut bytes = header.encode();
        bytes.extend(payload);
        // An odd place to cut, so that neither header nor payload is ever in one piece.
        let cut = HEADER + payload.len() / 3;
        self.send_raw(&bytes, if payload.is_empty() { 20 } else { cut })
    }

    /// Sends any bytes, in two descriptors that meet at `cut`.
    pub fn send_raw(&mut self, bytes: &[u8], cut: usize) -> bool {
        self.reclaim();
        let Some(slot) = self.free.pop() else { return false };
        let at = TX_BUFFERS + u64::from(slot) * TX_BUFFER;
        self.memory.write_slice(bytes, GuestAddress(at)).unwrap();
        let cut = cut.min(bytes.len());
        let head = slot * 2;
        self.describe(Side::Tx, head, at, cut as u32, NEXT, head + 1);
        self.describe(Side::Tx, head + 1, at + cut as u64, (bytes.len() - cut) as u32, 0, 0);
        self.publish(Side::Tx, head);
        true
    }

    /// Writes a descriptor by hand and offers it to the device.
    pub fn send_descriptor(&mut self, address: u64, len: u32, flags: u16, next: u16) -> bool {
        self.reclaim();
        let Some(slot) = self.free.pop() else { return false };
        self.describe(Side::Tx, slot * 2, address, len, flags, next);
        self.publish(Side::Tx, slot * 2);
        true
    }

    /// Claims to have offered so many chains, which it has not.
    pub fn overrun(&mut self, chains: u16) {
        let at = GuestAddress(self.tx.avail_ring() + 2);
        let avail = self.tx.avail.wrapping_add(chains);
        self.memory.store(avail, at, Ordering::Release).unwrap();
        self.tx.kick.write(1).unwrap();
    }

    /// Waits for the device to say something.
    pub fn wait(&mut self, other: BorrowedFd<'_>, timeout: Duration) {
        self.arm();
        if self.has_used() {
            return;
        }
        let mut poll: Vec<_> = [&self.rx.call, &self.tx.call]
            .into_iter()
            .map(|event| PollFd::from_borrowed_fd(borrowed(event), PollFlags::IN))
            .collect();
        poll.push(PollFd::from_borrowed_fd(other, PollFlags::IN));
        let timeout = Timespec::try_from(timeout).unwrap();
        let _ = rustix::event::poll(&mut poll, Some(&timeout));
        let _ = (self.rx.call.read(), self.tx.call.read());
    }

    /// Waits until the device has given all transmit descriptors back.
    pub fn drain(&mut self) {
        let limit = Instant::now() + Duration::from_secs(30);
        while self.free.len() < usize::from(RING / 2) {
            assert!(Instant::now() < limit, "the device keeps descriptors");
            std::thread::sleep(Duration::from_millis(1));
            self.reclaim();
        }
    }

    fn reclaim(&mut self) {
        while let Some((head, _)) = self.next_used(Side::Tx) {
            self.free.push(head / 2);
        }
    }

    fn offer(&mut self, index: u16) {
        let at = RX_BUFFERS + u64::from(index) * RX_BUFFER;
        self.describe(Side::Rx, index, at, RX_BUFFER as u32, WRITE, 0);
        self.publish(Side::Rx, index);
    }

    fn describe(&self, side: Side, index: u16, address: u64, len: u32, flags: u16, next: u16) {
        let mut bytes = Vec::new();
        bytes.extend(address.to_le_bytes());
        bytes.extend(len.to_le_bytes());
        bytes.extend(flags.to_le_bytes());
        bytes.extend(next.to_le_bytes());
        let at = self.ring(side).descriptors() + u64::from(index) * 16;
        self.memory.write_slice(&bytes, GuestAddress(at)).unwrap();
    }

    fn publish(&mut self, side: Side, head: u16) {
        let (avail_ring, avail) = (self.ring(side).avail_ring(), self.ring(side).avail);
        let entry = GuestAddress(avail_ring + 4 + u64::from(avail % RING) * 2);
        self.memory.write_obj(head, entry).unwrap();
        let avail = avail.wrapping_add(1);
        self.memory.store(avail, GuestAddress(avail_ring + 2), Ordering::Release).unwrap();
        let ring = self.ring_mut(side);
        ring.avail = avail;
        if side == Side::Tx {
            ring.kick.write(1).unwrap();
        }
    }

    fn next_used(&mut self, side: Side) -> Option<(u16, u32)> {
        let (used_ring, used) = (self.ring(side).used_ring(), self.ring(side).used);
        let index: u16 = self.memory.load(GuestAddress(used_ring + 2), Ordering::Acquire).unwrap();
        if index == used {
            return None;
        }
        let at = used_ring + 4 + u64::from(used % RING) * 8;
        let head: u32 = self.memory.read_obj(GuestAddress(at)).unwrap();
        let len: u32 = self.memory.read_obj(GuestAddress(at + 4)).unwrap();
        self.ring_mut(side).used = used.wrapping_add(1);
        Some((head as u16, len))
    }

    /// Asks for a call at the next used descriptor (used_event).
    fn arm(&self) {
        for ring in [&self.rx, &self.tx] {
            let at = ring.avail_ring() + 4 + u64::from(RING) * 2;
            self.memory.write_obj(ring.used, GuestAddress(at)).unwrap();
        }
        fence(Ordering::SeqCst);
    }

    fn has_used(&self) -> bool {
        [&self.rx, &self.tx].into_iter().any(|ring| {
            let at = GuestAddress(ring.used_ring() + 2);
            self.memory.load::<u16>(at, Ordering::Acquire).unwrap() != ring.used
        })
    }

    fn ring(&self, side: Side) -> &Ring {
        match side {
            Side::Rx => &self.rx,
            Side::Tx => &self.tx,
        }
    }

    fn ring_mut(&mut self, side: Side) -> &mut Ring {
        match side {
            Side::Rx => &mut self.rx,
            Side::Tx => &mut self.tx,
        }
    }
}

fn borrowed(event: &EventFd) -> BorrowedFd<'_> {
    // SAFETY: the descriptor is open as long as the EventFd lives, which the result borrows.
    unsafe { BorrowedFd::borrow_raw(event.as_raw_fd()) }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Rx,
    Tx,
}
