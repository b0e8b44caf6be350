//! A connection with its host end: the rules of [`Connection`], carried out on a socket.
//!
//! The socket is registered edge-triggered, for everything, once: epoll says when it becomes
//! readable or writable, and the link remembers that until a call says EAGAIN. So waiting for
//! credit or for room in a queue costs no system call, and a thousand waiting links cost
//! nothing at all.

use super::backlog::Backlog;
use super::connection::{Connection, End, HostWish, Phase};
use super::line;
use super::packet::{Header, Op};
use super::scatter::{self, Piece};
use super::stream::{Kind, Stream};
use rustix::event::epoll::EventFlags;
use rustix::io::Errno;
use std::os::fd::AsFd;
use std::time::Instant;

/// Who is who: what the ports and CIDs in a packet say. Only one link has a given key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Key {
    /// The CID of our side: the host's, or a sibling's.
    pub(super) cid: u64,
    /// The port of our side.
    pub(super) port: u32,
    /// The port of the guest.
    pub(super) guest_port: u32,
}

/// How the host end came about, and so what it is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Origin {
    /// It wrote a line and waits for one: a client of the connect socket, or a sibling.
    Handshake,
    /// It came through a published socket, and is told nothing.
    Published,
    /// The guest asked for it.
    Guest,
    /// The guest asked for it, and it is a sibling that has to consent.
    GuestToSibling,
}

/// What came of an attempt to send bytes of the host to the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Received {
    /// So many bytes.
    Bytes(u32),
    /// The host has no more for now.
    Nothing,
    /// The host said end of file.
    End,
    /// The host broke off.
    Broken,
}

/// One connection.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) key: Key,
    pub(super) origin: Origin,
    pub(super) connection: Connection,
    /// None until the host end that the guest asked for is dialled.
    stream: Option<Stream>,
    backlog: Backlog,
    /// Set by epoll, cleared by EAGAIN.
    readable: bool,
    writable: bool,
    /// EPOLLHUP: the whole of the other side is gone.
    hung_up: bool,
    /// The guest has accepted, and the host was told.
    pub(super) opened: bool,
    /// The link waits in the queue of those who have something for the guest.
    pub(super) queued: bool,
    /// When [`Connection::timed_out`] is due.
    pub(super) deadline: Option<Instant>,
    /// Until when a refusal of the guest is not believed: it was still starting when the client
    /// came. None: it is believed at once.
    pub(super) patience: Option<Instant>,
    /// It was refused, and waits for the deadline before it asks again.
    pub(super) resting: bool,
    /// When dialling is given up.
    pub(super) dial_until: Option<Instant>,
}

impl Link {
    pub(super) fn new(
        key: Key,
        origin: Origin,
        connection: Connection,
        stream: Option<Stream>,
    ) -> Self {
        Self {
            key,
            origin,
            connection,
            stream,
            backlog: Backlog::default(),
            // Unknown: the first attempt tells.
            readable: true,
            writable: true,
            hung_up: false,
            opened: false,
            queued: false,
            deadline: None,
            patience: None,
            resting: false,
            dial_until: None,
        }
    }

    /// The host end.
    pub(super) fn stream(&self) -> Option<&Stream> {
        self.stream.as_ref()
    }

    /// Takes the host end for itself.
    pub(super) fn into_stream(self) -> Option<Stream> {
        self.stream
    }

    /// The host end that was dialled.
    pub(super) fn attach(&mut self, stream: Stream) {
        self.stream = Some(stream);
    }

    /// What epoll says about the host end.
    pub(super) fn event(&mut self, flags: EventFlags) {
        let gone = flags.intersects(EventFlags::HUP | EventFlags::ERR);
        self.hung_up |= flags.contains(EventFlags::HUP);
        self.readable |= gone || flags.intersects(EventFlags::IN | EventFlags::RDHUP);
        self.writable |= gone || flags.contains(EventFlags::OUT);
    }

    /// Whether the client has gone before it sent anything: nothing would be lost with it.
    pub(super) fn is_deserted(&self) -> bool {
        let empty = |stream: &Stream| stream.peek(&mut [0]) == Ok(0);
        self.hung_up && self.stream.as_ref().is_some_and(empty)
    }

    /// Whether there is something for the guest.
    pub(super) fn has_packet(&self) -> bool {
        let bytes = self.readable && self.connection.may_send() > 0;
        !self.resting && (self.connection.owed().is_some() || bytes)
    }

    /// Whether nothing is left to do.
    pub(super) fn is_finished(&self) -> bool {
        self.connection.is_over().is_some()
            && (self.backlog.is_empty() || !self.connection.host_reads())
    }

    /// The guest has accepted: tells the host, if it waits to be told.
    pub(super) fn accepted(&mut self) {
        self.opened = true;
        if self.origin == Origin::Handshake {
            self.say(&format!("OK {}\n", self.key.port));
        }
    }

    /// Tells why there will be no connection.
    pub(super) fn apologise(&mut self, end: End) {
        if self.origin == Origin::Handshake && !self.opened {
            self.say(match end {
                End::Clean | End::Reset => "ERR reset\n",
                End::Refused => "ERR refused\n",
                End::TimedOut => "ERR timeout\n",
            });
        }
    }

    fn say(&mut self, text: &str) {
        // A client that is gone is noticed with the next event.
        let _ = self.stream.as_ref().map(|stream| stream.say(text));
    }

    /// Whether a sibling has consented; None while it has not answered.
    pub(super) fn consent(&self) -> Option<bool> {
        match line::read(self.stream.as_ref()?) {
            line::Line::Partial => None,
            line::Line::Whole(text) => Some(line::is_consent(&text)),
            line::Line::Hopeless => Some(false),
        }
    }

    /// Payload of the guest: written at once as far as the socket takes it, else held.
    pub(super) fn deliver(&mut self, payload: &[Piece<'_>]) {
        let Some(stream) = &self.stream else { return };
        let mut done = 0;
        if self.backlog.is_empty() && self.writable {
            match scatter::send(stream.as_fd(), payload) {
                Ok(count) => {
                    done = count;
                    // The counters are 32 bits wide, and a packet's length is too.
                    self.connection.host_took(count as u32);
                }
                Err(Errno::AGAIN) => self.writable = false,
                Err(Errno::INTR) => {}
                Err(_) => return self.refuse(),
            }
        }
        self.backlog.push(&super::ring::cut(payload, done, usize::MAX));
    }

    /// Bytes of the host, straight into the guest's buffers.
    pub(super) fn receive(&mut self, room: &[Piece<'_>]) -> Received {
        let Some(stream) = &self.stream else { return Received::Nothing };
        match scatter::receive(stream.as_fd(), room) {
            Ok(0) => Received::End,
            Ok(count) => Received::Bytes(count as u32),
            Err(Errno::AGAIN) => {
                self.readable = false;
                Received::Nothing
            }
            Err(Errno::INTR) => Received::Nothing,
            Err(_) => Received::Broken,
        }
    }

    /// The host has said end of file. If the whole of it is gone, both directions have ended,
    /// and the guest is told so in one packet.
    pub(super) fn ended(&mut self) {
        self.connection.host_ended();
        if self.hung_up {
            self.refuse();
        }
    }

    /// Does what the socket allows and the rules wish. Returns whether the guest is to be reset.
    pub(super) fn work(&mut self) -> bool {
        self.flush();
        let reset = self.look_ahead();
        let Some(stream) = &self.stream else { return reset };
        if self.hung_up && !self.connection.wants_host_bytes() && self.opened {
            // Gone, and everything it wrote has been sent, or is not wanted.
            self.refuse();
        } else if self.backlog.is_empty() {
            let wish = self.connection.host_wish();
            match wish {
                HostWish::ShutWrite => stream.shut_write(),
                // A TCP peer would not notice, and the kernel would go on taking its bytes.
                HostWish::ShutRead if stream.kind() == Kind::Unix => stream.shut_read(),
                HostWish::ShutRead | HostWish::Nothing => {}
            }
            self.connection.host_told(wish);
        }
        reset
    }

    fn flush(&mut self) {
        let Some(stream) = &self.stream else { return };
        if self.backlog.is_empty() || !self.writable {
            return;
        }
        let (taken, result) = self.backlog.flush(stream);
        self.connection.host_took(taken as u32);
        match result {
            Ok(()) => {}
            Err(Errno::AGAIN) => self.writable = false,
            Err(_) => self.refuse(),
        }
    }

    /// With no credit there is still a difference between more bytes, none, and the end.
    fn look_ahead(&mut self) -> bool {
        let Some(stream) = &self.stream else { return false };
        if !self.readable || !self.connection.wants_host_bytes() || self.connection.may_send() > 0 {
            return false;
        }
        match stream.peek(&mut [0]) {
            Ok(0) => self.ended(),
            Ok(_) => self.connection.starved(),
            Err(Errno::AGAIN) => self.readable = false,
            Err(Errno::INTR) => {}
            Err(_) => return self.connection.host_broke(),
        }
        false
    }

    /// The host does not read any more.
    fn refuse(&mut self) {
        self.backlog.clear();
        self.connection.host_refused();
    }

    /// The header of a packet that goes to the guest now.
    pub(super) fn header(&mut self, op: Op, len: u32, guest_cid: u64) -> Header {
        Header {
            src_cid: self.key.cid,
            src_port: self.key.port,
            dst_cid: guest_cid,
            dst_port: self.key.guest_port,
            kind: super::packet::TYPE_STREAM,
            ..self.connection.send(op, len)
        }
    }

    /// Whether the host end of a finished link should be waited for: TCP would drop what it has
    /// not read yet if we closed while it still writes.
    pub(super) fn should_linger(&self) -> bool {
        let tcp = self.stream.as_ref().is_some_and(|stream| stream.kind() == Kind::Tcp);
        let clean = self.connection.phase() == Phase::Over(End::Clean);
        tcp && clean && self.connection.host_reads() && !self.connection.host_is_done_writing()
    }
}
