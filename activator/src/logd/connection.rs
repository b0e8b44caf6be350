//! One client of the control protocol: its socket, what it sent, what it is owed.
//!
//! | state | waits for | ends with |
//! |---|---|---|
//! | `Hello` | the first frame | `Request`, or a refusal |
//! | `Request` | the second frame | one of the next four |
//! | `Receiving` | the bytes that follow its request | `Ordered`, or a refusal |
//! | `Status` | the snapshot of that number | the answer |
//! | `Ordered` | PID 1's word that the order was taken | `Settling`, or the answer |
//! | `Settling` | a snapshot that shows the unit up or down | the answer |
//! | `Logs` | room for lines, and lines | the answer, or never if it follows |
//! | `Flushing` | room for the rest of the answer | `Lingering` |
//! | `Lingering` | the client's end of file | closed |
//!
//! A client has [`PROMPTNESS`] to say what it wants. It may shut down its side after that. Bytes
//! behind the request are a mistake, and end the connection. Closing a socket with unread bytes
//! would throw away an answer that is under way, hence `Lingering`.

use super::orders::ClientId;
use super::status::Wish;
use super::store::Cursor;
use super::upload::Receiving;
use crate::control::{self, Reply, Unfit};
use crate::manifest::UnitId;
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, Shutdown};
use std::time::{Duration, Instant};

/// Time for Hello and Request together.
pub const PROMPTNESS: Duration = Duration::from_secs(5);
/// A client that sends a manifest sends something within that time.
const STALLED: Duration = Duration::from_secs(10);
/// Time for a client to close after its answer.
const LINGER: Duration = Duration::from_secs(2);
/// A frame of a client is no larger: a token, or a unit's name (255 bytes).
pub const MAX_ASKED: usize = 4096;

/// Why its words are believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trust {
    /// Not yet: it came over vsock, and must show the token.
    ByToken,
    /// By its credentials on the Unix socket, or by the token that it showed.
    Given,
    /// Never: it came over the Unix socket as somebody else.
    Denied,
}

/// See the table above.
#[derive(Debug)]
pub enum State {
    /// Nothing came yet.
    Hello,
    /// The Hello was good.
    Request,
    /// Sends us a manifest.
    Receiving(Box<Receiving>),
    /// Waits for that snapshot.
    Status(u64),
    /// The order is queued, or out.
    Ordered(Option<(UnitId, Wish)>),
    /// The order was taken.
    Settling(Settling),
    /// Reads the log; `true` is to follow.
    Logs(Cursor, bool),
    /// The final reply is in the output.
    Flushing,
    /// All is sent, and our side shut down; closed by then at the latest.
    Lingering(Instant),
}

/// Waits for a unit to become what was asked for.
#[derive(Debug)]
pub struct Settling {
    /// Of which unit.
    pub unit: UnitId,
    /// What it shall become.
    pub wish: Wish,
    /// The snapshot that will be judged; None while it is too early for another look.
    pub snapshot: Option<u64>,
    /// When to look again.
    pub again: Instant,
    /// When the order was taken.
    pub since: Instant,
}

/// A client.
#[derive(Debug)]
pub struct Connection {
    /// Never used twice.
    pub id: ClientId,
    /// Set when accepted, raised by the token.
    pub trust: Trust,
    /// What it waits for.
    pub state: State,
    socket: OwnedFd,
    /// When it was accepted.
    opened: Instant,
    /// Received and not yet understood; at most one frame of [`MAX_ASKED`] and one read.
    input: Vec<u8>,
    /// Not yet sent. Kept small by whoever adds lines to it.
    output: Vec<u8>,
    /// The client has shut down its side.
    ended: bool,
    /// It is gone, or has misbehaved: dropped at the end of the round.
    broken: bool,
    /// When output last moved, or began to wait.
    moved: Instant,
}

/// What is at the front of the input.
pub enum Frame {
    /// Not all of it is there.
    Incomplete,
    /// Larger than [`MAX_ASKED`].
    TooLarge,
    /// A whole body.
    Body(Vec<u8>),
}

impl Connection {
    /// A client that was just accepted, on a non-blocking socket.
    pub fn new(id: ClientId, socket: OwnedFd, trust: Trust, now: Instant) -> Self {
        Self {
            id,
            trust,
            state: State::Hello,
            socket,
            opened: now,
            input: Vec::new(),
            output: Vec::new(),
            ended: false,
            broken: false,
            moved: now,
        }
    }

    /// To poll it.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Whether there is something to read.
    pub fn reads(&self) -> bool {
        !self.ended
    }

    /// Bytes that wait for room.
    pub fn unsent(&self) -> usize {
        self.output.len()
    }

    /// Whether to forget it.
    pub fn broken(&self) -> bool {
        self.broken
    }

    /// It has nothing more to expect.
    pub fn give_up(&mut self) {
        self.broken = true;
    }

    /// Whether it has not yet said what it wants.
    pub fn undecided(&self) -> bool {
        matches!(self.state, State::Hello | State::Request)
    }

    /// Whether it is owed nothing more, or a refusal at most.
    pub fn answered(&self) -> bool {
        match self.state {
            State::Lingering(_) => true,
            State::Flushing => self.trust != Trust::Given,
            _ => false,
        }
    }

    /// Since when it takes nothing of what waits for it.
    pub fn stuck_since(&self) -> Option<Instant> {
        (!self.output.is_empty()).then_some(self.moved)
    }

    /// Reads what is there, a little at a time.
    pub fn read(&mut self) {
        let mut buffer = [0; 16 * 1024];
        // A request is small, and what does not fit into it is a mistake.
        let most = if matches!(self.state, State::Receiving(_)) { buffer.len() } else { 1024 };
        loop {
            let buffer = buffer.get_mut(..most).unwrap_or_default();
            match rustix::net::recv(&self.socket, &mut *buffer, RecvFlags::DONTWAIT) {
                Ok((_, 0)) => {
                    self.ended = true;
                    return;
                }
                Ok((_, length)) => {
                    if matches!(self.state, State::Receiving(_)) {
                        self.moved = Instant::now();
                        self.input.extend_from_slice(buffer.get(..length).unwrap_or_default());
                        return;
                    } else if self.undecided() {
                        self.input.extend_from_slice(buffer.get(..length).unwrap_or_default());
                        if self.input.len() <= MAX_ASKED {
                            continue;
                        }
                    } else if !matches!(self.state, State::Flushing | State::Lingering(_)) {
                        self.broken = true;
                    }
                    // The rest in the next round, after the others.
                    return;
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return,
                Err(_) => {
                    self.broken = true;
                    return;
                }
            }
        }
    }

    /// It was reported as hung up: after its last bytes were read, nobody is there any more.
    pub fn hung_up(&mut self) {
        if self.ended && !self.undecided() {
            self.broken = true;
        }
    }

    /// Takes one frame off the input.
    pub fn frame(&mut self) -> Frame {
        let Some(length) = self.input.first_chunk::<4>() else { return Frame::Incomplete };
        let length = u32::from_le_bytes(*length) as usize;
        if length > MAX_ASKED {
            return Frame::TooLarge;
        }
        let Some(body) = self.input.get(4..4 + length) else { return Frame::Incomplete };
        let body = body.to_vec();
        self.input.drain(..4 + length);
        Frame::Body(body)
    }

    /// Passes what came on to where it is received. Whether all is there.
    pub fn receive(&mut self) -> Result<bool, Unfit> {
        let State::Receiving(receiving) = &mut self.state else { return Ok(false) };
        let taken = receiving.feed(&self.input)?;
        self.input.drain(..taken);
        Ok(receiving.is_complete())
    }

    /// Whether bytes are left that no frame explains.
    pub fn surplus(&self) -> bool {
        !self.input.is_empty()
    }

    /// Adds a reply; after a final one nothing else comes.
    pub fn reply(&mut self, reply: &Reply, now: Instant) {
        if self.output.is_empty() {
            self.moved = now;
        }
        if control::write_frame(&mut self.output, reply).is_err() {
            // Larger than a frame can be.
            self.broken = true;
        }
        if reply.is_final() {
            self.input = Vec::new();
            self.state = State::Flushing;
        }
    }

    /// Sends what waits, and goes on to the end of the table when all is sent.
    pub fn flush(&mut self, now: Instant) {
        let mut sent = 0;
        while let Some(rest @ [_, ..]) = self.output.get(sent..) {
            let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
            match rustix::net::send(&self.socket, rest, flags) {
                Ok(length) => sent += length,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => break,
                Err(_) => {
                    self.broken = true;
                    return;
                }
            }
        }
        if sent > 0 {
            self.output.drain(..sent);
            self.moved = now;
        }
        if self.output.is_empty() && matches!(self.state, State::Flushing) {
            let _ = rustix::net::shutdown(&self.socket, Shutdown::Write);
            self.state = State::Lingering(now + LINGER);
        }
        if matches!(self.state, State::Lingering(_)) && self.ended {
            self.broken = true;
        }
    }

    /// A client that has shut down its side and then left altogether is not reported by vsock,
    /// before something is sent; nothing is enough.
    pub fn probe(&mut self) {
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        if self.ended
            && let Err(Errno::PIPE | Errno::CONNRESET | Errno::NOTCONN) =
                rustix::net::send(&self.socket, &[], flags)
        {
            self.broken = true;
        }
    }

    /// When it must be looked at without an event.
    pub fn deadline(&self) -> Option<Instant> {
        match &self.state {
            State::Hello | State::Request => Some(self.opened + PROMPTNESS),
            State::Receiving(_) => Some(self.moved + STALLED),
            State::Lingering(until) => Some(*until),
            State::Settling(settling) if settling.snapshot.is_none() => Some(settling.again),
            _ => None,
        }
    }

    /// Ends it if its time is over, or if it left before it said what it wants.
    pub fn expire(&mut self, now: Instant) {
        match self.state {
            State::Hello | State::Request | State::Receiving(_) if self.ended => {
                self.broken = true;
            }
            State::Hello | State::Request | State::Receiving(_) | State::Lingering(_) => {
                self.broken |= self.deadline().is_some_and(|deadline| deadline <= now);
            }
            _ => {}
        }
    }
}
