//! The device as the vhost-user library sees it: features, configuration, kicks.

use super::hub::{Hub, Rest};
use super::ring::Memory;
use rustix::event::{EventfdFlags, eventfd};
use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use vhost::vhost_user::message::{VhostUserProtocolFeatures, VhostUserVirtioFeatures};
use vhost_user_backend::{VhostUserBackend, VringMutex};
use vmm_sys_util::epoll::EventSet;
use vmm_sys_util::event::{
    EventConsumer, EventFlag, EventNotifier, new_event_consumer_and_notifier,
};

/// Receive, transmit, and the event queue, which QEMU keeps for itself.
const QUEUES: usize = 3;
/// The largest ring that a driver may choose; QEMU has 128.
const RING_SIZE: usize = 1024;

/// VIRTIO_F_VERSION_1, and the two ring features that QEMU turns on by itself. Not offered:
/// VIRTIO_VSOCK_F_SEQPACKET (bit 1); Linux then refuses such sockets with ESOCKTNOSUPPORT.
const FEATURES: u64 = (1 << 32) | INDIRECT_DESCRIPTORS | EVENT_INDEX;
const INDIRECT_DESCRIPTORS: u64 = 1 << 28;
const EVENT_INDEX: u64 = 1 << 29;

/// The hub, and how to wake the thread that looks after its sockets.
pub(super) struct Shared {
    hub: Mutex<Hub>,
    waker: OwnedFd,
}

impl Shared {
    pub(super) fn new(hub: Hub) -> rustix::io::Result<Self> {
        let waker = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Self { hub: Mutex::new(hub), waker })
    }

    /// The hub, for this thread alone.
    pub(super) fn hub(&self) -> MutexGuard<'_, Hub> {
        // If a thread has panicked, which is our bug, the other one still ends everything in order.
        self.hub.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes the other thread look again.
    pub(super) fn wake(&self) {
        // Full (EAGAIN) means that it will wake up anyway.
        let _ = rustix::io::write(&self.waker, &1_u64.to_ne_bytes());
    }

    /// Readable when the thread is to look again.
    pub(super) fn waker(&self) -> &OwnedFd {
        &self.waker
    }

    /// Changes something, makes a round, and sees to it that what is left is done.
    pub(super) fn work(&self, change: impl FnOnce(&mut Hub)) {
        let mut hub = self.hub();
        let before = hub.next_deadline();
        change(&mut hub);
        let rest = hub.round();
        let earlier = match (hub.next_deadline(), before) {
            (Some(after), Some(before)) => after < before,
            (after, None) => after.is_some(),
            (None, Some(_)) => false,
        };
        drop(hub);
        if rest == Rest::More || earlier {
            self.wake();
        }
    }
}

/// One connection of QEMU.
pub(super) struct Backend {
    shared: Arc<Shared>,
    guest_cid: u64,
    /// Set once by the library; the same object as long as QEMU is connected.
    memory: Mutex<Option<Memory>>,
}

impl Backend {
    pub(super) fn new(shared: Arc<Shared>, guest_cid: u64) -> Self {
        Self { shared, guest_cid, memory: Mutex::new(None) }
    }

    fn memory(&self) -> MutexGuard<'_, Option<Memory>> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl VhostUserBackend for Backend {
    type Bitmap = ();
    type Vring = VringMutex<Memory>;

    fn num_queues(&self) -> usize {
        QUEUES
    }

    fn max_queue_size(&self) -> usize {
        RING_SIZE
    }

    fn features(&self) -> u64 {
        FEATURES | VhostUserVirtioFeatures::PROTOCOL_FEATURES.bits()
    }

    fn protocol_features(&self) -> VhostUserProtocolFeatures {
        VhostUserProtocolFeatures::CONFIG
    }

    fn reset_device(&self) {
        self.shared.work(Hub::detach);
    }

    fn set_event_idx(&self, _enabled: bool) {
        // The library tells the rings themselves.
    }

    fn get_config(&self, offset: u32, size: u32) -> Vec<u8> {
        // struct virtio_vsock_config: the guest's CID, le64.
        let config = self.guest_cid.to_le_bytes();
        let from = (offset as usize).min(config.len());
        let to = from.saturating_add(size as usize).min(config.len());
        config[from..to].to_vec()
    }

    fn update_memory(&self, memory: Memory) -> io::Result<()> {
        *self.memory() = Some(memory);
        Ok(())
    }

    fn exit_event(&self, _thread: usize) -> Option<(EventConsumer, EventNotifier)> {
        new_event_consumer_and_notifier(EventFlag::NONBLOCK | EventFlag::CLOEXEC).ok()
    }

    fn stop_vring(&self, _queue: u32) -> io::Result<()> {
        self.shared.work(Hub::detach);
        Ok(())
    }

    fn handle_event(
        &self,
        _queue: u16,
        _events: EventSet,
        rings: &[VringMutex<Memory>],
        _thread: usize,
    ) -> io::Result<()> {
        let Some(memory) = self.memory().clone() else { return Ok(()) };
        self.shared.work(|hub| hub.attach(rings, &memory));
        Ok(())
    }
}
