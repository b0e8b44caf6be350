//! Bytes of the guest that the host did not take yet.

use super::scatter::Piece;
use super::stream::Stream;
use rustix::io::Errno;
use rustix::net::SendFlags;
use std::collections::VecDeque;
use std::os::fd::AsFd;

/// Room that an empty backlog may keep.
const KEPT: usize = 4096;

/// A queue of bytes. What it holds is bounded by the credit that the guest was given.
#[derive(Debug, Default)]
pub(super) struct Backlog {
    bytes: VecDeque<u8>,
}

impl Backlog {
    pub(super) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Adds a copy of guest memory.
    pub(super) fn push(&mut self, pieces: &[Piece<'_>]) {
        let mut bytes = [0; 4096];
        for piece in pieces {
            let mut rest = piece.offset(0).ok();
            while let Some(piece) = rest.filter(|piece| !piece.is_empty()) {
                let count = piece.copy_to(&mut bytes[..]);
                self.bytes.extend(&bytes[..count]);
                rest = piece.offset(count).ok();
            }
        }
    }

    /// Writes until the socket takes no more. Returns the bytes taken, and whether it failed
    /// for another reason than being full.
    pub(super) fn flush(&mut self, stream: &Stream) -> (usize, Result<(), Errno>) {
        let mut taken = 0;
        let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
        while let (front, _) = self.bytes.as_slices()
            && !front.is_empty()
        {
            match rustix::net::send(stream.as_fd(), front, flags) {
                Ok(count) => {
                    self.bytes.drain(..count);
                    taken += count;
                }
                Err(Errno::INTR) => {}
                Err(cause) => return (taken, Err(cause)),
            }
        }
        self.bytes.shrink_to(KEPT);
        (taken, Ok(()))
    }

    /// Forgets everything.
    pub(super) fn clear(&mut self) {
        self.bytes = VecDeque::new();
    }
}

#[cfg(test)]
mod tests {
    use super::super::stream::pair;
    use super::*;
    use std::io::Read;
    use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryMmap};

    #[test]
    fn what_a_full_socket_leaves_is_kept_in_order() {
        let memory = GuestMemoryMmap::<()>::from_ranges(&[(GuestAddress(0), 0x10_0000)]).unwrap();
        let sent: Vec<u8> = (0..0x10_0000_u32).map(|at| ((at * 7) >> 3) as u8).collect();
        memory.write_slice(&sent, GuestAddress(0)).unwrap();
        let mut backlog = Backlog::default();
        backlog.push(&[
            memory.get_slice(GuestAddress(0), 0x5_0001).unwrap(),
            memory.get_slice(GuestAddress(0x5_0001), 0xa_ffff).unwrap(),
        ]);
        let (ours, mut theirs) = pair();
        let mut total = 0;
        let mut received: Vec<u8> = Vec::new();
        let mut bytes = vec![0; 0x1_0000];
        while !backlog.is_empty() {
            let (taken, result) = backlog.flush(&ours);
            assert!(matches!(result, Ok(()) | Err(Errno::AGAIN)));
            total += taken;
            while received.len() < total {
                let count = theirs.read(&mut bytes).unwrap();
                received.extend(&bytes[..count]);
            }
        }
        assert!(received == sent);
        assert!(backlog.bytes.capacity() <= KEPT * 2);
    }
}
