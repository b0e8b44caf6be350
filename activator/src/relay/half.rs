//! One direction of a connection: bytes by splice(2) through a pipe, never through this process.
//!
//! | state | reads | writes | ends by |
//! |---|---|---|---|
//! | open | yes | yes | end of file: draining; a reset: breaking |
//! | draining | no | yes | pipe empty: shut the sink down for writing, done |
//! | breaking | no | yes | pipe empty: the connection is reset |
//! | done | no | no | |
//!
//! A sink that takes nothing any more ends its half alone: what the other side still says is
//! carried on.

use rustix::fd::{AsFd, OwnedFd};
use rustix::io::Errno;
use rustix::net::{Shutdown, shutdown};
use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, splice};

/// As systemd-socket-proxyd's. A user who may not have so much gets the kernel's 64 KiB.
const PIPE_SIZE: usize = 256 * 1024;
/// Passes before others have their turn.
const TURN: usize = 16;

/// A pipe for one direction.
pub(super) struct Half {
    read: OwnedFd,
    write: OwnedFd,
    /// Bytes in the pipe.
    held: usize,
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

impl Half {
    /// EMFILE, ENFILE or ENOMEM if there are none left.
    pub(super) fn new() -> Result<Self, Errno> {
        let (read, write) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        let _ = fcntl_setpipe_size(&write, PIPE_SIZE);
        Ok(Self { read, write, held: 0, state: State::Open })
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

    /// Source to pipe; whether something has changed. EAGAIN is an empty source or a full pipe:
    /// small packets fill its slots long before its bytes.
    fn take(&mut self, source: impl AsFd) -> bool {
        if self.state != State::Open {
            return false;
        }
        match self.move_bytes(&source, &self.write, PIPE_SIZE) {
            Ok(0) => self.state = State::Draining,
            Ok(count) => self.held += count,
            Err(Errno::AGAIN) => return false,
            Err(_) => self.state = State::Breaking,
        }
        true
    }

    /// Pipe to sink; whether something has changed.
    fn give(&mut self, source: impl AsFd, sink: impl AsFd) -> bool {
        if self.state == State::Done || self.held == 0 {
            return false;
        }
        match self.move_bytes(&self.read, &sink, self.held) {
            Ok(count) => self.held -= count.min(self.held),
            Err(Errno::AGAIN) => return false,
            Err(_) => self.abandon(source),
        }
        true
    }

    fn move_bytes(&self, from: impl AsFd, to: impl AsFd, most: usize) -> Result<usize, Errno> {
        loop {
            let flags = SpliceFlags::MOVE | SpliceFlags::NONBLOCK;
            match splice(&from, None, &to, None, most, flags) {
                Err(Errno::INTR) => {}
                other => return other,
            }
        }
    }
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
        let [mut client, ours, theirs, mut backend] = pairs();
        let mut half = Half::new().unwrap();
        client.write_all(b"hello").unwrap();
        assert_eq!(half.pump(&ours, &theirs), Turn::Waits);
        drop(client);
        assert_eq!(half.pump(&ours, &theirs), Turn::Done);
        let mut text = String::new();
        backend.read_to_string(&mut text).unwrap();
        assert_eq!(text, "hello");
    }

    #[test]
    fn a_slow_reader_makes_the_writer_wait() {
        let [mut client, ours, theirs, mut backend] = pairs();
        let mut half = Half::new().unwrap();
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
        let [mut client, ours, theirs, backend] = pairs();
        let mut half = Half::new().unwrap();
        drop(backend);
        client.write_all(b"hello").unwrap();
        assert_eq!(half.pump(&ours, &theirs), Turn::Done);
        // And the client hears of it.
        assert!(client.write_all(b"more").is_err());
    }
}
