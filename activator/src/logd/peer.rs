//! Who is at the other end of a Unix socket: SO_PEERCRED, unix(7).
#![allow(unsafe_code)]

use rustix::fd::{AsRawFd, BorrowedFd};

/// The user id of the peer as our user namespace has it; None if the kernel does not say.
///
/// By the raw call: rustix keeps the peer's pid as a number that is not 0, and it is 0 for a
/// peer whose PID namespace is not below ours, which is no reason to turn root away.
pub fn user(socket: BorrowedFd) -> Option<u32> {
    let mut peer = libc::ucred { pid: 0, uid: 0, gid: 0 };
    let mut length = size_of::<libc::ucred>() as libc::socklen_t;
    // SAFETY: value and length are live locals, and the length is the value's size. All bit
    // patterns are values of the three numbers.
    let done = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERCRED,
            (&raw mut peer).cast(),
            &raw mut length,
        )
    };
    (done == 0 && length as usize == size_of::<libc::ucred>()).then_some(peer.uid)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fd::AsFd;
    use std::os::unix::net::{UnixDatagram, UnixStream};

    #[test]
    fn the_peer_of_a_pair_is_us() {
        let (one, _other) = UnixStream::pair().unwrap();
        assert_eq!(user(one.as_fd()), Some(rustix::process::geteuid().as_raw()));
    }

    #[test]
    fn who_is_not_known_is_nobody() {
        // The kernel answers with -1 for a socket without a peer.
        let alone = UnixDatagram::unbound().unwrap();
        assert_eq!(user(alone.as_fd()), Some(u32::MAX));
        let file = tempfile::tempfile().unwrap();
        assert_eq!(user(file.as_fd()), None);
    }
}
