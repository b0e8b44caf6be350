//! One direction of a connection. What comes in bulk goes by splice(2) through a pipe, never through
//! this process. A small piece costs more to pass on than to copy, and goes through a buffer.
//!
//! | state | reads | writes | ends by |
//! |---|---|---|---|
//! | open | yes | yes | end of file: draining; a reset: breaking |
//! | draining | no | yes | nothing held: shut the sink down for writing, done |
//! | breaking | no | yes | nothing held: the connection is reset |
//! | done | no | no | |
//!
//! A sink that takes nothing any more ends its half alone: what the other side still says is
//! carried on.

use rustix::fd::{AsFd, OwnedFd};
use rustix::io::{Errno, IoSliceMut, retry_on_intr};
use rustix::net::{
    RecvAncillaryBuffer, RecvFlags, ReturnFlags, SendFlags, Shutdown, recvmsg, send, shutdown,
};
use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, splice};

/// As systemd-socket-proxyd's. A user who may not have so much gets the kernel's 64 KiB.
const PIPE_SIZE: usize = 256 * 1024;
/// Of the buffer. What fills it comes in bulk.
const PIECE_SIZE: usize = 16 * 1024;
/// Passes before others have their turn.
const TURN: usize = 16;

/// One direction.
pub(super) struct Half {
    /// The pipe: where it is read, and where it is written.
    pipe: (OwnedFd, OwnedFd),
    buffer: Box<[u8; PIECE_SIZE]>,
    /// Bytes between source and sink: all in the pipe, or all in the buffer.
    held: usize,
    /// Where in the buffer they begin.
    start: usize,
    /// Whether they are in the pipe.
    piped: bool,
    /// Whether what comes next is expected in bulk.
    bulk: bool,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Open,
    Draining,
    Breaking,
    Done,
}

/// What became of a turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turn {
    /// An event on one of the two will come first.
    Waits,
    /// There is more to do at once.
    More,
    Done,
    /// The source was reset, and all before that was delivered.
    Reset,
}

/// What was taken from a source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Took {
    /// Nothing: it is empty, or there is no room here.
    Nothing,
    Some,
    /// All there was up to what its last event told of.
    All,
}

impl Half {
    /// EMFILE, ENFILE or ENOMEM if there is no pipe left.
    pub(super) fn new() -> Result<Self, Errno> {
        let pipe = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        let _ = fcntl_setpipe_size(&pipe.1, PIPE_SIZE);
        let buffer = Box::new([0; PIECE_SIZE]);
        Ok(Self { pipe, buffer, held: 0, start: 0, piped: false, bulk: false, state: State::Open })
    }

    /// Carries what can be carried. Of a plain source its event says that nothing is behind its
    /// bytes, no end, no error and no urgent data: what comes later has an event of its own, and
    /// the source need not be asked again once a read was not filled (epoll(7)).
    pub(super) fn pump(&mut self, source: impl AsFd, sink: impl AsFd, plain: bool) -> Turn {
        let mut empty = false;
        for _ in 0..TURN {
            let took = if empty { Took::Nothing } else { self.take(source.as_fd()) };
            empty |= plain && took == Took::All;
            let taken = took != Took::Nothing;
            let given = self.give(source.as_fd(), sink.as_fd());
            match self.state {
                State::Done => return Turn::Done,
                State::Draining if self.held == 0 => {
                    // The sink may have gone meanwhile.
                    let _ = shutdown(&sink, Shutdown::Write);
                    self.state = State::Done;
                    return Turn::Done;
                }
                State::Breaking if self.held == 0 => return Turn::Reset,
                _ if !taken && !given => return Turn::Waits,
                _ => {}
            }
        }
        Turn::More
    }

    /// A turn in which there is nothing to carry.
    pub(super) fn rest(&self) -> Turn {
        match self.state {
            State::Done => Turn::Done,
            _ => Turn::Waits,
        }
    }

    /// Nothing more comes from the source, but something is still on its way.
    pub(super) fn is_ending(&self) -> bool {
        matches!(self.state, State::Draining | State::Breaking)
    }

    /// Whether it waits for the sink to have room.
    pub(super) fn waits_for_room(&self) -> bool {
        self.held > 0 && self.state != State::Done
    }

    /// The sink will take nothing more.
    pub(super) fn abandon(&mut self, source: impl AsFd) {
        if self.state != State::Done {
            self.state = State::Done;
            // So that a Unix peer hears of it when it writes.
            let _ = shutdown(source, Shutdown::Read);
        }
    }

    /// From the source. EAGAIN is an empty source, or no room here: small packets fill a pipe's
    /// slots long before its bytes.
    fn take(&mut self, source: impl AsFd) -> Took {
        if self.state != State::Open {
            return Took::Nothing;
        }
        if self.held == 0 {
            self.piped = self.bulk;
        }
        let mut took = Took::Some;
        let taken = if self.piped {
            let taken = carry(source, &self.pipe.1, PIPE_SIZE);
            // Little or nothing, and that is not for want of room in the pipe.
            self.bulk = self.held > 0 || taken.is_ok_and(|count| count >= PIECE_SIZE);
            taken
        } else if self.held > 0 {
            // What may come in bulk does not wait behind what is copied.
            Err(Errno::AGAIN)
        } else {
            receive(source, &mut self.buffer[..]).map(|(count, whole)| {
                self.start = 0;
                self.bulk = count == PIECE_SIZE;
                if whole && count < PIECE_SIZE {
                    took = Took::All;
                }
                count
            })
        };
        match taken {
            Ok(0) => self.state = State::Draining,
            Ok(count) => self.held += count,
            Err(Errno::AGAIN) => return Took::Nothing,
            Err(_) => self.state = State::Breaking,
        }
        took
    }

    /// To the sink; whether something has changed.
    fn give(&mut self, source: impl AsFd, sink: impl AsFd) -> bool {
        if self.state == State::Done || self.held == 0 {
            return false;
        }
        let given = if self.piped {
            carry(&self.pipe.0, sink, self.held)
        } else {
            let held = self.buffer.get(self.start..self.start + self.held).unwrap_or_default();
            let given = retry_on_intr(|| send(&sink, held, SendFlags::NOSIGNAL));
            self.start += given.unwrap_or(0);
            given
        };
        match given {
            Ok(count) => self.held -= count.min(self.held),
            Err(Errno::AGAIN) => return false,
            Err(_) => self.abandon(source),
        }
        true
    }
}

/// How many bytes, and whether these are all there were if they are fewer than wanted: what comes
/// with file descriptors, which are not passed on, ends where these do.
fn receive(from: impl AsFd, to: &mut [u8]) -> Result<(usize, bool), Errno> {
    let none = RecvFlags::empty();
    let received = retry_on_intr(|| {
        recvmsg(&from, &mut [IoSliceMut::new(to)], &mut RecvAncillaryBuffer::default(), none)
    })?;
    Ok((received.bytes, !received.flags.contains(ReturnFlags::CTRUNC)))
}

fn carry(from: impl AsFd, to: impl AsFd, most: usize) -> Result<usize, Errno> {
    let flags = SpliceFlags::MOVE | SpliceFlags::NONBLOCK;
    retry_on_intr(|| splice(&from, None, &to, None, most, flags))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;

    /// Two clients with sockets of ours between them.
    fn pairs() -> [UnixStream; 4] {
        let (client, ours) = UnixStream::pair().unwrap();
        let (theirs, backend) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        theirs.set_nonblocking(true).unwrap();
        [client, ours, theirs, backend]
    }

    #[test]
    fn an_end_of_file_follows_the_last_byte() {
        let mut half = Half::new().unwrap();
        let [mut client, ours, theirs, mut backend] = pairs();
        client.write_all(b"hello").unwrap();
        assert_eq!(half.pump(&ours, &theirs, false), Turn::Waits);
        drop(client);
        assert_eq!(half.pump(&ours, &theirs, false), Turn::Done);
        let mut text = String::new();
        backend.read_to_string(&mut text).unwrap();
        assert_eq!(text, "hello");
    }

    #[test]
    fn a_slow_reader_makes_the_writer_wait_and_misses_nothing() {
        let mut half = Half::new().unwrap();
        let [mut client, ours, theirs, mut backend] = pairs();
        client.set_nonblocking(true).unwrap();
        let chunk = [7; 4096];
        let mut written = 0;
        loop {
            match client.write(&chunk) {
                Ok(count) => written += count,
                Err(_) if half.pump(&ours, &theirs, false) == Turn::Waits => break,
                Err(_) => {}
            }
            assert!(written < 64 << 20, "nothing stops the writer");
        }
        written += std::iter::from_fn(|| client.write(&chunk).ok()).sum::<usize>();
        drop(client);
        let mut read = 0;
        let mut buffer = vec![0; 1 << 16];
        loop {
            half.pump(&ours, &theirs, false);
            match backend.read(&mut buffer).unwrap() {
                0 => break,
                count => read += count,
            }
        }
        assert_eq!(read, written);
    }

    #[test]
    fn a_sink_that_has_gone_ends_the_half() {
        let mut half = Half::new().unwrap();
        let [mut client, ours, theirs, backend] = pairs();
        drop(backend);
        client.write_all(b"hello").unwrap();
        assert_eq!(half.pump(&ours, &theirs, false), Turn::Done);
        // And the client hears of it.
        assert!(client.write_all(b"more").is_err());
    }
}
