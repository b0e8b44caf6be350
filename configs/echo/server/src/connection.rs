//! One connection: what was read and could not yet be written.
//!
//! | state | waits for | then |
//! |---|---|---|
//! | nothing pending | bytes to read | writes them at once; what does not fit is pending |
//! | bytes pending | room to write | writes; reads on when all is written |
//! | end of file, nothing pending | | shuts down its side and closes |
//!
//! While bytes are pending nothing is read, so that a client that does not read is held back by
//! its own socket buffers, and costs at most one buffer here.

use rustix::event::epoll::EventFlags;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, Shutdown};
use std::os::fd::OwnedFd;

/// Bytes read at once. Also the largest packet of a seqpacket socket that comes back whole;
/// the kernel's default limit of one is net.core.wmem_max, 212992.
pub const BUFFER: usize = 256 * 1024;
/// Reads of one connection before the others get their turn.
const TURN: usize = 8;

/// What a connection wants next.
#[derive(Debug, PartialEq, Eq)]
pub enum Next {
    /// To be called again on that.
    Wait(EventFlags),
    /// To be dropped.
    Close,
}

/// A connected stream or seqpacket socket.
#[derive(Debug)]
pub struct Connection {
    socket: OwnedFd,
    /// Not yet written; never empty at rest unless nothing is pending.
    pending: Vec<u8>,
    /// How much of `pending` is written.
    written: usize,
    /// Packets go out whole or not at all.
    packets: bool,
}

impl Connection {
    /// Takes over a non-blocking socket.
    pub fn new(socket: OwnedFd, packets: bool) -> Self {
        Self { socket, pending: Vec::new(), written: 0, packets }
    }

    /// The socket, to register it.
    pub fn socket(&self) -> &OwnedFd {
        &self.socket
    }

    /// Reads and writes as far as it goes; `scratch` is of [`BUFFER`] bytes and shared by all.
    pub fn serve(&mut self, scratch: &mut [u8]) -> Next {
        match self.flush() {
            Ok(true) => {}
            Ok(false) => return Next::Wait(EventFlags::OUT),
            Err(_) => return Next::Close,
        }
        for _ in 0..TURN {
            let length = match rustix::net::recv(&self.socket, &mut *scratch, RecvFlags::DONTWAIT) {
                Ok((_, 0)) => {
                    let _ = rustix::net::shutdown(&self.socket, Shutdown::Write);
                    return Next::Close;
                }
                Ok((_, length)) => length.min(scratch.len()),
                Err(Errno::INTR) => continue,
                Err(Errno::AGAIN) => return Next::Wait(EventFlags::IN),
                Err(_) => return Next::Close,
            };
            let Some(bytes) = scratch.get(..length) else { return Next::Close };
            match self.send(bytes) {
                Ok(sent) if sent == length => {}
                Ok(sent) => {
                    self.pending = bytes.get(sent..).unwrap_or_default().to_vec();
                    self.written = 0;
                    return Next::Wait(EventFlags::OUT);
                }
                Err(_) => return Next::Close,
            }
        }
        Next::Wait(EventFlags::IN)
    }

    /// Writes what is pending; true if nothing is left.
    fn flush(&mut self) -> Result<bool, Errno> {
        while let Some(rest @ [_, ..]) = self.pending.get(self.written..) {
            match self.send(rest)? {
                0 => return Ok(false),
                sent => self.written += sent,
            }
        }
        // The memory goes back: most connections never need it again.
        self.pending = Vec::new();
        self.written = 0;
        Ok(true)
    }

    /// How many of the bytes the socket took.
    fn send(&self, bytes: &[u8]) -> Result<usize, Errno> {
        let mut sent = 0;
        while sent < bytes.len() {
            let rest = bytes.get(sent..).unwrap_or_default();
            match rustix::net::send(&self.socket, rest, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
                Ok(length) => sent += length,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => break,
                // A packet as large as this one does not fit into the socket's buffer; the
                // sender's was larger. Nothing that waiting would change.
                Err(Errno::MSGSIZE) if self.packets => return Ok(bytes.len()),
                Err(errno) => return Err(errno),
            }
        }
        Ok(sent)
    }
}
