//! Datagrams: one flow for each sender, with a socket of its own to the backend, so that answers
//! find back.
//!
//! | state | event | then |
//! |---|---|---|
//! | closed | a datagram, or time | connect the socket: open; impossible: pausing |
//! | open | a datagram | sent; kept for a second, or until an answer, in case it is refused |
//! | open | refused (ICMP, no Unix socket) | pausing; what was kept is sent again after it |
//! | pausing | a datagram | queued; the oldest goes when the queue is full |
//! | any | no datagram in either direction for the idle time | gone |
//!
//! So the first packets of a client survive a backend that is still starting, which
//! `--connect-timeout` bounds. Fds that come with Unix datagrams are not carried.

use super::arguments::Settings;
use super::backend::Backend;
use super::slots::{Id, Slots, Source};
use mio::unix::SourceFd;
use mio::{Interest, Registry};
use rustix::fd::{AsRawFd, BorrowedFd, OwnedFd};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketAddrAny, SocketType, recv, recvfrom, send, sendto,
    sockopt,
};
use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

/// The largest that UDP has; larger Unix datagrams are cut, which is why they are dropped.
const LARGEST: usize = 65_536;
/// What a flow keeps at most, in packets and bytes.
const QUEUE: usize = 16;
const QUEUE_BYTES: usize = 128 * 1024;
/// Refusals come within a round trip.
const REFUSAL: Duration = Duration::from_secs(1);
const FIRST_PAUSE: Duration = Duration::from_millis(10);
const LAST_PAUSE: Duration = Duration::from_millis(500);
/// Packets before others have their turn.
const TURN: usize = 64;

/// All flows.
pub(super) struct Flows {
    flows: Slots<Flow>,
    by_peer: HashMap<(usize, Option<SocketAddrAny>), Id>,
    buffer: Vec<u8>,
}

struct Flow {
    listener: usize,
    /// None: it has no name, and gets no answers.
    peer: Option<SocketAddrAny>,
    /// None: closed.
    socket: Option<OwnedFd>,
    queue: VecDeque<Packet>,
    /// So many at the front of the queue were sent.
    sent: usize,
    /// An answer came: nothing needs to be kept.
    trusted: bool,
    last: Instant,
    /// Pausing until then.
    pause: Option<Instant>,
    attempts: u32,
    refused_since: Option<Instant>,
}

struct Packet {
    bytes: Box<[u8]>,
    sent: Instant,
}

/// What a turn has left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Left {
    Nothing,
    Something,
}

/// What flows need of the relay.
pub(super) struct Context<'a> {
    pub(super) registry: &'a Registry,
    pub(super) backend: &'a mut Backend,
    pub(super) settings: &'a Settings,
    pub(super) now: Instant,
}

impl Flows {
    pub(super) fn new(settings: &Settings) -> Self {
        Self {
            flows: Slots::new(settings.connections_max),
            by_peer: HashMap::new(),
            // One more byte shows what was too long.
            buffer: vec![0; LARGEST + 1],
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.flows.is_empty()
    }

    /// Takes what waits at a listener.
    pub(super) fn receive(&mut self, index: usize, fd: BorrowedFd, cx: &mut Context) -> Left {
        for _ in 0..TURN {
            let (length, peer) = match recvfrom(fd, &mut self.buffer[..], RecvFlags::DONTWAIT) {
                Ok((length, _, peer)) => (length, peer),
                Err(Errno::INTR) => continue,
                // An ICMP error of an answer: the next call has the next packet.
                Err(Errno::CONNREFUSED) => continue,
                Err(_) => return Left::Nothing,
            };
            if length > LARGEST {
                continue;
            }
            // An unnamed Unix socket's address is only a family.
            let peer = peer
                .filter(|peer| peer.address_family() != AddressFamily::UNIX || peer.addr_len() > 2);
            let id = self.flow_of(index, peer, cx);
            let bytes = self.buffer.get(..length).unwrap_or_default();
            if let Some(flow) = self.flows.get_mut(id) {
                flow.push(bytes, cx.now);
                flow.flush(id, cx);
            }
        }
        Left::Something
    }

    /// A flow's socket, or its time.
    pub(super) fn drive(&mut self, id: Id, listeners: &[BorrowedFd], cx: &mut Context) -> Left {
        let Some(flow) = self.flows.get_mut(id) else { return Left::Nothing };
        let Some(listener) = listeners.get(flow.listener) else { return Left::Nothing };
        match flow.answer(*listener, &mut self.buffer, cx.now) {
            Ok(left) => {
                flow.flush(id, cx);
                left
            }
            Err(_) => {
                flow.refused(cx);
                Left::Nothing
            }
        }
    }

    /// All flows whose pause is over, and the next time that one will be.
    pub(super) fn due(&self, now: Instant) -> (Vec<Id>, Option<Instant>) {
        let pauses = || self.flows.iter().filter_map(|(id, flow)| Some((id, flow.pause?)));
        let due = pauses().filter(|(_, until)| *until <= now).map(|(id, _)| id).collect();
        (due, pauses().map(|(_, until)| until).filter(|until| *until > now).min())
    }

    /// Drops flows that are idle; when to look again.
    pub(super) fn sweep(&mut self, cx: &Context) -> Option<Instant> {
        let idle = cx.settings.flow_idle;
        let old = |flow: &Flow| flow.last + idle <= cx.now;
        let gone: Vec<Id> =
            self.flows.iter().filter(|(_, flow)| old(flow)).map(|(id, _)| id).collect();
        gone.into_iter().for_each(|id| self.remove(id));
        self.flows.iter().map(|(_, flow)| flow.last + idle).min()
    }

    fn flow_of(&mut self, listener: usize, peer: Option<SocketAddrAny>, cx: &Context) -> Id {
        let key = (listener, peer.clone());
        if let Some(id) = self.by_peer.get(&key) {
            return *id;
        }
        if self.flows.is_full() {
            // The one that was silent the longest makes room.
            let oldest = self.flows.iter().min_by_key(|(_, flow)| flow.last).map(|(id, _)| id);
            oldest.into_iter().for_each(|id| self.remove(id));
        }
        let id = self.flows.insert(|_| Flow {
            listener,
            peer,
            socket: None,
            queue: VecDeque::new(),
            sent: 0,
            trusted: false,
            last: cx.now,
            pause: None,
            attempts: 0,
            refused_since: None,
        });
        self.by_peer.insert(key, id);
        id
    }

    fn remove(&mut self, id: Id) {
        if let Some(flow) = self.flows.remove(id) {
            self.by_peer.remove(&(flow.listener, flow.peer));
        }
    }
}

impl Flow {
    fn push(&mut self, bytes: &[u8], now: Instant) {
        self.last = now;
        let expired = |packet: &Packet| packet.sent + REFUSAL <= now;
        while self.sent > 0 && self.queue.front().is_some_and(expired) {
            self.drop_front();
            // It has arrived: the next refusal is another matter.
            self.refused_since = None;
            self.attempts = 0;
        }
        let size = |queue: &VecDeque<Packet>| queue.iter().map(|it| it.bytes.len()).sum::<usize>();
        while self.queue.len() >= QUEUE
            || !self.queue.is_empty() && size(&self.queue) + bytes.len() > QUEUE_BYTES
        {
            self.drop_front();
        }
        self.queue.push_back(Packet { bytes: bytes.into(), sent: now });
    }

    fn drop_front(&mut self) {
        self.queue.pop_front();
        self.sent = self.sent.saturating_sub(1);
    }

    /// Sends what was not sent.
    fn flush(&mut self, id: Id, cx: &mut Context) {
        if self.pause.is_some_and(|until| cx.now < until) {
            return;
        }
        self.pause = None;
        // A refusal of what was sent earlier; reading it takes it off the socket.
        if let Some(socket) = &self.socket
            && let Ok(Err(Errno::CONNREFUSED)) = sockopt::socket_error(socket)
        {
            return self.refused(cx);
        }
        while self.sent < self.queue.len() {
            if self.socket.is_none() && !self.open(id, cx) {
                return;
            }
            let (Some(socket), Some(packet)) = (&self.socket, self.queue.get_mut(self.sent)) else {
                return;
            };
            packet.sent = cx.now;
            let sent = send(socket, &packet.bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL);
            // On the loopback the refusal is there when send returns.
            let refused = matches!(sockopt::socket_error(socket), Ok(Err(Errno::CONNREFUSED)));
            match sent {
                Ok(_) if refused => return self.refused(cx),
                Ok(_) if self.trusted => {
                    self.queue.remove(self.sent);
                }
                Ok(_) => self.sent += 1,
                // Writable again is an event.
                Err(Errno::AGAIN) => return,
                Err(Errno::INTR) => {}
                Err(Errno::CONNREFUSED | Errno::CONNRESET | Errno::NOTCONN | Errno::PIPE) => {
                    return self.refused(cx);
                }
                // Too long for the way, no route: lost, as packets are.
                Err(_) => {
                    self.queue.remove(self.sent);
                }
            }
        }
    }

    fn open(&mut self, id: Id, cx: &mut Context) -> bool {
        let Some(addresses) = cx.backend.addresses(cx.now) else {
            self.pause = Some(cx.now + FIRST_PAUSE);
            return false;
        };
        for address in addresses.iter() {
            let Ok(socket) = cx.backend.connect(address, SocketType::DGRAM) else { continue };
            let interest = Interest::READABLE | Interest::WRITABLE;
            let token = Source::Flow(id).into();
            let mut source = SourceFd(&socket.as_raw_fd());
            if cx.registry.register(&mut source, token, interest).is_ok() {
                self.socket = Some(socket);
                return true;
            }
        }
        self.refused(cx);
        false
    }

    /// Nobody is there: later again, or given up.
    fn refused(&mut self, cx: &mut Context) {
        cx.backend.forget();
        let since = *self.refused_since.get_or_insert(cx.now);
        if since + cx.settings.connect_timeout <= cx.now {
            self.queue.clear();
            self.refused_since = None;
            self.attempts = 0;
        }
        self.sent = 0;
        self.trusted = false;
        let pause = FIRST_PAUSE.saturating_mul(1 << self.attempts.min(16)).min(LAST_PAUSE);
        self.attempts += 1;
        self.pause = (!self.queue.is_empty()).then(|| cx.now + pause);
        let unix =
            |socket: &OwnedFd| matches!(sockopt::socket_domain(socket), Ok(AddressFamily::UNIX));
        // A Unix socket is bound to the one that has gone; a UDP one keeps its port.
        if self.socket.as_ref().is_some_and(unix) {
            self.socket = None;
        }
    }

    /// Carries answers to the client. One that it has no room for is lost, as packets are.
    /// The error is one of what was sent: nobody is there.
    fn answer(
        &mut self,
        listener: BorrowedFd,
        buffer: &mut [u8],
        now: Instant,
    ) -> Result<Left, Errno> {
        let Some(socket) = &self.socket else { return Ok(Left::Nothing) };
        for _ in 0..TURN {
            let length = match recv(socket, &mut *buffer, RecvFlags::DONTWAIT) {
                Ok((length, _)) if length <= LARGEST => length,
                Ok(_) | Err(Errno::INTR) => continue,
                Err(Errno::CONNREFUSED) => return Err(Errno::CONNREFUSED),
                Err(_) => return Ok(Left::Nothing),
            };
            self.last = now;
            self.trusted = true;
            self.attempts = 0;
            self.refused_since = None;
            self.queue.drain(..self.sent.min(self.queue.len()));
            self.sent = 0;
            if let (Some(peer), Some(bytes)) = (&self.peer, buffer.get(..length)) {
                let _ = sendto(listener, bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL, peer);
            }
        }
        Ok(Left::Something)
    }
}
