//! One direction of a connection. From TCP and vsock, and from one Unix socket to another, what comes
//! in bulk goes by splice(2) through a pipe, never through this process. A small piece costs more to
//! pass on than to copy, and goes through a buffer; so does all from a Unix socket to others, since it
//! hands out its bytes in many small pieces.
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
use rustix::io::{Errno, read, retry_on_intr};
use rustix::net::{SendFlags, Shutdown, send, shutdown};
use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, splice};

/// As systemd-socket-proxyd's. A user who may not have so much gets the kernel's 64 KiB.
const PIPE_SIZE: usize = 256 * 1024;
/// Fits the second cache of most processors, with what it is copied from.
const BUFFER_SIZE: usize = 128 * 1024;
/// What fills this comes in bulk.
const PIECE_SIZE: usize = 16 * 1024;
/// Passes before others have their turn.
const TURN: usize = 16;

/// One direction.
pub(super) struct Half {
    /// Holds what came in bulk; None where all is copied.
    pipe: Option<Pipe>,
    /// Holds the rest.
    buffer: Box<[u8]>,
    /// Where in the buffer the held bytes begin.
    start: usize,
    /// Bytes between source and sink: all in the pipe, or all in the buffer.
    held: usize,
    state: State,
}

struct Pipe {
    read: OwnedFd,
    write: OwnedFd,
    /// Whether what comes next is expected in bulk.
    bulk: bool,
    /// Whether it is the pipe that holds what is held.
    holds: bool,
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

impl Half {
    /// By copying, or by splice(2). EMFILE, ENFILE or ENOMEM if there is no pipe left.
    pub(super) fn new(copies: bool) -> Result<Self, Errno> {
        let pipe = match copies {
            true => None,
            false => {
                let (read, write) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
                let _ = fcntl_setpipe_size(&write, PIPE_SIZE);
                Some(Pipe { read, write, bulk: false, holds: false })
            }
        };
        let buffer = vec![0; if copies { BUFFER_SIZE } else { PIECE_SIZE }].into();
        Ok(Self { pipe, buffer, start: 0, held: 0, state: State::Open })
    }

    /// Carries what can be carried.
    pub(super) fn pump(&mut self, source: impl AsFd, sink: impl AsFd) -> Turn {
        for _ in 0..TURN {
            let taken = self.take(source.as_fd());
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

    /// From the source; whether something has changed. EAGAIN is an empty source, or no room here:
    /// small packets fill a pipe's slots long before its bytes.
    fn take(&mut self, source: impl AsFd) -> bool {
        if self.state != State::Open {
            return false;
        }
        if self.held == 0 {
            self.start = 0;
            if let Some(pipe) = &mut self.pipe {
                pipe.holds = pipe.bulk;
            }
        }
        let taken = match &mut self.pipe {
            Some(pipe) if pipe.holds => {
                let taken = carry(source, &pipe.write, PIPE_SIZE);
                // Nothing came, and that is not for want of room in the pipe.
                pipe.bulk = self.held > 0 || taken != Err(Errno::AGAIN);
                taken
            }
            // What may be spliced does not wait behind what is copied.
            Some(_) if self.held > 0 => Err(Errno::AGAIN),
            pipe => match self.buffer.get_mut(self.start + self.held..) {
                None | Some([]) => Err(Errno::AGAIN),
                Some(room) => {
                    let taken = retry_on_intr(|| read(&source, &mut *room));
                    if let Some(pipe) = pipe {
                        pipe.bulk = taken == Ok(PIECE_SIZE);
                    }
                    taken
                }
            },
        };
        match taken {
            Ok(0) => self.state = State::Draining,
            Ok(count) => self.held += count,
            Err(Errno::AGAIN) => return false,
            Err(_) => self.state = State::Breaking,
        }
        true
    }

    /// To the sink; whether something has changed.
    fn give(&mut self, source: impl AsFd, sink: impl AsFd) -> bool {
        if self.state == State::Done || self.held == 0 {
            return false;
        }
        let given = match &self.pipe {
            Some(pipe) if pipe.holds => carry(&pipe.read, sink, self.held),
            _ => {
                let held = self.buffer.get(self.start..self.start + self.held).unwrap_or_default();
                let given = retry_on_intr(|| send(&sink, held, SendFlags::NOSIGNAL));
                self.start += given.unwrap_or(0);
                given
            }
        };
        match given {
            Ok(count) => self.held -= count.min(self.held),
            Err(Errno::AGAIN) => return false,
            Err(_) => self.abandon(source),
        }
        true
    }
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

    /// Through a buffer, and through a pipe: the sockets are the same here.
    fn both(test: impl Fn(Half)) {
        [true, false].into_iter().for_each(|copies| test(Half::new(copies).unwrap()));
    }

    #[test]
    fn an_end_of_file_follows_the_last_byte() {
        both(end_of_file);
    }

    fn end_of_file(mut half: Half) {
        let [mut client, ours, theirs, mut backend] = pairs();
        client.write_all(b"hello").unwrap();
        assert_eq!(half.pump(&ours, &theirs), Turn::Waits);
        drop(client);
        assert_eq!(half.pump(&ours, &theirs), Turn::Done);
        let mut text = String::new();
        backend.read_to_string(&mut text).unwrap();
        assert_eq!(text, "hello");
    }

    #[test]
    fn a_slow_reader_makes_the_writer_wait_and_misses_nothing() {
        both(slow_reader);
    }

    fn slow_reader(mut half: Half) {
        let [mut client, ours, theirs, mut backend] = pairs();
        client.set_nonblocking(true).unwrap();
        let chunk = [7; 4096];
        let mut written = 0;
        loop {
            match client.write(&chunk) {
                Ok(count) => written += count,
                Err(_) if half.pump(&ours, &theirs) == Turn::Waits => break,
                Err(_) => {}
            }
            assert!(written < 64 << 20, "nothing stops the writer");
        }
        written += std::iter::from_fn(|| client.write(&chunk).ok()).sum::<usize>();
        drop(client);
        let mut read = 0;
        let mut buffer = vec![0; 1 << 16];
        loop {
            half.pump(&ours, &theirs);
            match backend.read(&mut buffer).unwrap() {
                0 => break,
                count => read += count,
            }
        }
        assert_eq!(read, written);
    }

    #[test]
    fn a_sink_that_has_gone_ends_the_half() {
        both(sink_gone);
    }

    fn sink_gone(mut half: Half) {
        let [mut client, ours, theirs, backend] = pairs();
        drop(backend);
        client.write_all(b"hello").unwrap();
        assert_eq!(half.pump(&ours, &theirs), Turn::Done);
        // And the client hears of it.
        assert!(client.write_all(b"more").is_err());
    }
}
