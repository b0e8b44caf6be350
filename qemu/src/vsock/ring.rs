//! The virtqueues: descriptor chains as buffers, and when the guest is woken.
//!
//! virtio-vsock 0.12 has a packet on a chain too, but takes at most one descriptor of payload.
//! Linux sends more than one, from 6.7 for MSG_ZEROCOPY and later for all large packets, so a
//! chain here is any list of pieces.

use super::packet::HEADER_LEN;
use super::scatter::Piece;
use vhost_user_backend::VringState;
use virtio_queue::{DescriptorChain, QueueOwnedT, QueueT};
use vm_memory::{
    GuestAddressSpace, GuestMemory, GuestMemoryAtomic, GuestMemoryMmap, Permissions, VolatileSlice,
};

/// The guest's memory, as the vhost-user library shares it with us.
pub(super) type Memory = GuestMemoryAtomic<GuestMemoryMmap>;

/// The pieces of a chain of descriptors, all readable or all writable.
#[derive(Debug)]
pub(super) struct Buffer<'m> {
    /// The index with which the chain is given back.
    pub(super) head: u16,
    pieces: Vec<Piece<'m>>,
    len: usize,
}

/// Which way a queue goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Direction {
    /// The receive queue: the guest gives empty buffers.
    ToGuest,
    /// The transmit queue: the guest gives packets.
    FromGuest,
}

/// What can come from a queue.
#[derive(Debug)]
pub(super) enum Taken<'m> {
    /// A buffer.
    Buffer(Buffer<'m>),
    /// A chain that cannot be used; it was given back.
    Malformed(&'static str),
    /// The ring itself makes no sense, and will not until the driver sets it up anew.
    Broken,
    /// Nothing, for now.
    Empty,
}

/// A queue that is locked, and in use.
pub(super) struct Ring<'r> {
    state: &'r mut VringState<Memory>,
    direction: Direction,
    /// Something was given back since the guest was last woken.
    used: bool,
}

impl<'r> Ring<'r> {
    /// None if the guest has not given us this queue, or has taken it back.
    pub(super) fn new(state: &'r mut VringState<Memory>, direction: Direction) -> Option<Self> {
        let usable = state.is_enabled() && state.get_queue().ready();
        usable.then_some(Self { state, direction, used: false })
    }

    /// The next chain.
    pub(super) fn take<'m>(&mut self, memory: &'m GuestMemoryMmap) -> Taken<'m> {
        let chain = match self.state.get_queue_mut().iter(memory) {
            Ok(mut chains) => chains.next(),
            Err(_) => return Taken::Broken,
        };
        let Some(chain) = chain else { return Taken::Empty };
        let head = chain.head_index();
        match collect(memory, chain, self.direction) {
            Ok((pieces, len)) => Taken::Buffer(Buffer { head, pieces, len }),
            Err(reason) => {
                self.give_back(memory, head, 0);
                Taken::Malformed(reason)
            }
        }
    }

    /// Puts the chain that was taken last back to where it was taken from.
    pub(super) fn untake(&mut self) {
        self.state.get_queue_mut().go_to_previous_position();
    }

    /// Returns a chain with `len` bytes written.
    pub(super) fn give_back(&mut self, memory: &GuestMemoryMmap, head: u16, len: u32) {
        let queue = self.state.get_queue_mut();
        // A head beyond the ring names no descriptor: there is nothing to give back.
        if head < queue.size() && queue.add_used(memory, head, len).is_ok() {
            self.used = true;
        }
    }

    /// Asks the guest to say when it adds chains. True: it has just done so, look again.
    pub(super) fn listen(&mut self) -> bool {
        self.state.enable_notification().unwrap_or(false)
    }

    /// The guest need not say when it adds chains; we are looking.
    pub(super) fn look(&mut self) {
        // Only an optimisation: if it fails, there are kicks that were not needed.
        let _ = self.state.disable_notification();
    }

    /// Wakes the guest, once for all that was given back, unless it does not want to be woken.
    pub(super) fn signal(&mut self) {
        if std::mem::take(&mut self.used) && self.state.needs_notification().unwrap_or(true) {
            // The eventfd's counter cannot overflow before the other side reads it.
            let _ = self.state.signal_used_queue();
        }
    }
}

impl<'m> Buffer<'m> {
    /// Bytes in all pieces together.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Copies out from the front; false if the buffer is shorter.
    pub(super) fn read(&self, bytes: &mut [u8]) -> bool {
        let mut rest = bytes;
        for piece in &self.pieces {
            let count = piece.copy_to(rest);
            rest = &mut rest[count..];
        }
        rest.is_empty()
    }

    /// Copies in to the front; false if the buffer is shorter.
    pub(super) fn write(&self, bytes: &[u8]) -> bool {
        let mut rest = bytes;
        for piece in &self.pieces {
            let count = rest.len().min(piece.len());
            piece.copy_from(&rest[..count]);
            rest = &rest[count..];
        }
        rest.is_empty()
    }

    /// The pieces behind the header, `len` bytes of them at most.
    pub(super) fn payload(&self, len: usize) -> Vec<Piece<'m>> {
        cut(&self.pieces, HEADER_LEN, len)
    }
}

/// `len` bytes of `pieces` from `start` on, or what there is of them.
pub(super) fn cut<'m>(pieces: &[Piece<'m>], start: usize, len: usize) -> Vec<Piece<'m>> {
    let (mut skip, mut rest) = (start, len);
    let mut part = Vec::with_capacity(pieces.len());
    for piece in pieces {
        let from = skip.min(piece.len());
        let count = rest.min(piece.len() - from);
        skip -= from;
        rest -= count;
        if count > 0
            && let Ok(piece) = piece.subslice(from, count)
        {
            part.push(piece);
        }
    }
    part
}

/// The pieces of a chain and their length.
fn collect<'m>(
    memory: &'m GuestMemoryMmap,
    chain: DescriptorChain<&'m GuestMemoryMmap>,
    direction: Direction,
) -> Result<(Vec<Piece<'m>>, usize), &'static str> {
    let access = match direction {
        Direction::ToGuest => Permissions::Write,
        Direction::FromGuest => Permissions::Read,
    };
    let mut pieces: Vec<VolatileSlice<'m, ()>> = Vec::new();
    let mut len = 0;
    for descriptor in chain {
        if descriptor.is_write_only() != (direction == Direction::ToGuest) {
            return Err("a descriptor goes the wrong way");
        }
        let slices = memory
            .get_slices(descriptor.addr(), descriptor.len() as usize, access)
            .map_err(|_| "a descriptor lies outside of memory")?;
        for slice in slices {
            let slice = slice.map_err(|_| "a descriptor lies outside of memory")?;
            len += slice.len();
            pieces.push(slice);
        }
    }
    if len < HEADER_LEN {
        return Err("a chain is too short for a header");
    }
    Ok((pieces, len))
}

/// Memory for one pass over the queues.
pub(super) fn snapshot(memory: &Memory) -> impl std::ops::Deref<Target = GuestMemoryMmap> + use<> {
    memory.memory()
}
