//! Bytes between a socket and several pieces of guest memory, in one system call and without a
//! copy in between.
#![allow(unsafe_code)]

use rustix::io::Errno;
use std::os::fd::{AsRawFd, BorrowedFd};
use vm_memory::VolatileSlice;

/// A piece of guest memory. The guest may change it at any time: it is never borrowed as a
/// slice, only copied from and to.
pub(super) type Piece<'m> = VolatileSlice<'m, ()>;

/// The kernel takes at most this many pieces at once (UIO_MAXIOV).
const MAX_PIECES: usize = 1024;

/// Receives into `pieces`, in their order. 0 is the end of the stream, if there is any room.
pub(super) fn receive(socket: BorrowedFd<'_>, pieces: &[Piece<'_>]) -> Result<usize, Errno> {
    let pieces = &pieces[..pieces.len().min(MAX_PIECES)];
    let guards: Vec<_> = pieces.iter().map(|piece| piece.ptr_guard_mut()).collect();
    let mut vectors: Vec<libc::iovec> = guards
        .iter()
        .map(|guard| libc::iovec { iov_base: guard.as_ptr().cast(), iov_len: guard.len() })
        .collect();
    let mut message = message(&mut vectors);
    // SAFETY: `message` points to `vectors`, which lives until the end of this function, and has
    // no name and no control part. Each vector is a mapped, writable range of guest memory that
    // `guards` keeps mapped, and of which no Rust reference exists.
    let count = unsafe { libc::recvmsg(socket.as_raw_fd(), &mut message, libc::MSG_DONTWAIT) };
    checked(count)
}

/// Sends `pieces`, in their order.
pub(super) fn send(socket: BorrowedFd<'_>, pieces: &[Piece<'_>]) -> Result<usize, Errno> {
    let pieces = &pieces[..pieces.len().min(MAX_PIECES)];
    let guards: Vec<_> = pieces.iter().map(|piece| piece.ptr_guard()).collect();
    let mut vectors: Vec<libc::iovec> = guards
        .iter()
        .map(|guard| libc::iovec {
            iov_base: guard.as_ptr().cast_mut().cast(),
            iov_len: guard.len(),
        })
        .collect();
    let message = message(&mut vectors);
    let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    // SAFETY: as in `receive`; the kernel only reads from the vectors.
    let count = unsafe { libc::sendmsg(socket.as_raw_fd(), &message, flags) };
    checked(count)
}

fn message(vectors: &mut [libc::iovec]) -> libc::msghdr {
    // SAFETY: msghdr is a plain C structure, for which all zeros is a valid, empty value; it has
    // private padding on some targets, so that it cannot be written out.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = vectors.as_mut_ptr();
    message.msg_iovlen = vectors.len() as _;
    message
}

fn checked(count: libc::ssize_t) -> Result<usize, Errno> {
    usize::try_from(count)
        .map_err(|_| Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO))
}

#[cfg(test)]
mod tests {
    use super::super::stream::pair;
    use super::*;
    use std::io::{Read, Write};
    use std::os::fd::AsFd;
    use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryMmap};

    #[test]
    fn bytes_are_scattered_and_gathered_in_order() {
        let memory = GuestMemoryMmap::<()>::from_ranges(&[(GuestAddress(0), 0x1000)]).unwrap();
        let piece = |at, len| memory.get_slice(GuestAddress(at), len).unwrap();
        let (ours, mut theirs) = pair();
        theirs.write_all(b"hello, world").unwrap();
        let pieces = [piece(0x800, 5), piece(0x100, 0), piece(0x10, 100)];
        assert_eq!(receive(ours.as_fd(), &pieces), Ok(12));
        let mut bytes = [0; 7];
        memory.read_slice(&mut bytes, GuestAddress(0x10)).unwrap();
        assert_eq!(&bytes, b", world");
        assert_eq!(receive(ours.as_fd(), &pieces), Err(Errno::AGAIN));

        assert_eq!(send(ours.as_fd(), &[piece(0x10, 7), piece(0x800, 5)]), Ok(12));
        let mut bytes = [0; 12];
        theirs.read_exact(&mut bytes).unwrap();
        assert_eq!(&bytes, b", worldhello");

        drop(theirs);
        assert_eq!(receive(ours.as_fd(), &pieces), Ok(0));
        assert_eq!(send(ours.as_fd(), &pieces), Err(Errno::PIPE));
    }
}
