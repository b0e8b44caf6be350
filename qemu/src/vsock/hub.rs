//! Where everything meets: the guest's queues, the connections, and the sockets of the host.
//!
//! One thread waits for sockets and deadlines, another (of the vhost-user library) for the
//! guest's kicks; both lock the hub and let it make a round. A round takes the guest's packets,
//! then gives each connection that has something for the guest one packet in turn, as long as
//! the guest has buffers. Who has nothing to do is in no list.
//!
//! This file holds the state and the round; the other `impl Hub` blocks are in `callers` (from
//! the host to the guest), `requests` (from the guest), and `delivery` (both queues).

use super::complaints::Complaints;
use super::config::{Config, Limits};
use super::connection::{Connection, End, Phase};
use super::deadlines::Deadlines;
use super::link::{Key, Link, Origin};
use super::listener::Entrance;
use super::packet::Header;
use super::ring::{Direction, Memory, Ring, snapshot};
use super::siblings::Siblings;
use super::slots::{Slots, Token};
use super::stream::Stream;
use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::io::Errno;
use std::collections::{HashMap, VecDeque};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};
use vhost_user_backend::{VringMutex, VringT};
use virtio_queue::QueueT;

/// Connections, callers and the like at one time; fewer if there are fewer descriptors.
const MAX_OCCUPANTS: usize = 16 * 1024;
/// Descriptors that are left to the rest of the process.
const RESERVE: usize = 64;
/// The receive buffer that the guest is told of, for each connection; it holds what the host
/// does not take. Most connections use nothing of it.
const WINDOW: u32 = 256 * 1024;
/// The same once there are many connections, so that 16 Ki of them hold 640 MiB at most.
const SMALL_WINDOW: u32 = 32 * 1024;
const MANY: usize = 512;
/// How long a TCP client may go on writing to a guest that has closed.
const LINGER: Duration = Duration::from_secs(2);
/// How long entrances stay shut when descriptors have run out.
const PAUSE: Duration = Duration::from_millis(100);

/// Marks epoll's tokens for entrances; the tokens of slots have this bit clear.
const ENTRANCE_BIT: u64 = 1 << 63;

/// Leads to the guest.
#[derive(Debug)]
pub(super) struct Gate {
    pub(super) entrance: Entrance,
    pub(super) purpose: Purpose,
}

/// Who comes through a gate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// Clients that say which port they want.
    Connect,
    /// Devices of siblings.
    Siblings,
    /// Clients of this port.
    Publish(u32),
}

/// Who holds a slot.
#[derive(Debug)]
pub(super) enum Occupant {
    /// Came through a gate, and has not said what it wants.
    Caller { stream: Stream, purpose: Purpose, deadline: Instant },
    /// A connection.
    Link(Box<Link>),
    /// A finished TCP connection whose client still writes.
    Leaving { stream: Stream, deadline: Instant },
}

/// The queues of a guest whose driver is there.
#[derive(Clone)]
struct Queues {
    to_guest: VringMutex<Memory>,
    from_guest: VringMutex<Memory>,
    memory: Memory,
}

/// The state of a device.
pub(super) struct Hub {
    pub(super) guest_cid: u64,
    pub(super) connect_socket: PathBuf,
    pub(super) limits: Limits,
    pub(super) siblings: Option<Siblings>,
    pub(super) gates: Vec<Gate>,
    pub(super) slots: Slots<Occupant>,
    /// Half of the slots: the guest's own connections take no more, so that it cannot lock out
    /// the host.
    half: usize,
    /// The links whose guest end is alive.
    pub(super) keys: HashMap<Key, Token>,
    /// The links that have something for the guest, in turn.
    pub(super) ready: VecDeque<Token>,
    /// Resets for connections that do not exist here. Bounded by [`super::delivery::MAX_STRAYS`].
    pub(super) strays: VecDeque<Header>,
    pub(super) deadlines: Deadlines,
    pub(super) complaints: Complaints,
    pub(super) next_port: u32,
    /// Until when the gates are shut.
    pub(super) paused: Option<Instant>,
    queues: Option<Queues>,
    epoll: Arc<OwnedFd>,
}

/// Whether a round has left work that no event will announce.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rest {
    Done,
    More,
}

impl Hub {
    pub(super) fn new(
        config: &Config,
        siblings: Option<Siblings>,
        gates: Vec<Gate>,
        epoll: Arc<OwnedFd>,
    ) -> Result<Self, Errno> {
        let hub = Self {
            guest_cid: u64::from(config.guest_cid),
            connect_socket: config.connect_socket.clone(),
            limits: config.limits,
            siblings,
            gates,
            slots: Slots::new(most_occupants()),
            half: most_occupants() / 2,
            keys: HashMap::new(),
            ready: VecDeque::new(),
            strays: VecDeque::new(),
            deadlines: Deadlines::default(),
            complaints: Complaints::default(),
            next_port: super::callers::FIRST_HOST_PORT,
            paused: None,
            queues: None,
            epoll,
        };
        for (index, gate) in hub.gates.iter().enumerate() {
            let data = EventData::new_u64(ENTRANCE_BIT | index as u64);
            epoll::add(&hub.epoll, &gate.entrance, data, EventFlags::IN)?;
        }
        Ok(hub)
    }

    /// The guest has given us its queues; they may be the same as before.
    pub(super) fn attach(&mut self, rings: &[VringMutex<Memory>], memory: &Memory) {
        let (Some(to_guest), Some(from_guest)) = (rings.first(), rings.get(1)) else { return };
        self.queues.get_or_insert_with(|| Queues {
            to_guest: to_guest.clone(),
            from_guest: from_guest.clone(),
            memory: memory.clone(),
        });
    }

    /// The guest's driver is gone, or QEMU is. Connections that the guest knows of are over;
    /// those that wait for a driver go on waiting.
    pub(super) fn detach(&mut self) {
        if self.queues.take().is_none() {
            return;
        }
        self.strays.clear();
        for token in self.slots.tokens() {
            if let Some(Occupant::Link(link)) = self.slots.get_mut(token)
                && link.connection.guest_knows()
            {
                link.connection.guest_vanished();
                self.settle(token);
            }
        }
    }

    /// Whether the guest's driver is there.
    pub(super) fn is_ready(&self) -> bool {
        self.queues.as_ref().is_some_and(|queues| {
            [&queues.to_guest, &queues.from_guest].iter().all(|ring| {
                let state = ring.get_ref();
                state.is_enabled() && state.get_queue().ready()
            })
        })
    }

    /// Does everything that can be done now with the guest's queues.
    pub(super) fn round(&mut self) -> Rest {
        let Some(queues) = self.queues.clone() else { return Rest::Done };
        let memory = snapshot(&queues.memory);
        let (mut to_guest, mut from_guest) =
            (queues.to_guest.get_mut(), queues.from_guest.get_mut());
        let to_guest = Ring::new(&mut to_guest, Direction::ToGuest);
        let from_guest = Ring::new(&mut from_guest, Direction::FromGuest);
        let (Some(mut to_guest), Some(mut from_guest)) = (to_guest, from_guest) else {
            return Rest::Done;
        };
        let rest = self.exchange(&mut to_guest, &mut from_guest, &memory);
        to_guest.signal();
        from_guest.signal();
        rest
    }

    /// An event of epoll.
    pub(super) fn event(&mut self, data: u64, flags: EventFlags) {
        if data & ENTRANCE_BIT != 0 {
            return self.accept((data & !ENTRANCE_BIT) as usize);
        }
        let token = Token::from_bits(data);
        match self.slots.get_mut(token) {
            Some(Occupant::Caller { .. }) => self.listen_to(token, flags),
            Some(Occupant::Link(link)) => {
                link.event(flags);
                self.settle(token);
            }
            Some(Occupant::Leaving { stream, .. }) if drained(stream) => self.vacate(token),
            // There is more to come; or an event from before it was closed.
            Some(Occupant::Leaving { .. }) | None => {}
        }
    }

    /// Everything that is due by now.
    pub(super) fn expire(&mut self, now: Instant) {
        if self.paused.is_some_and(|until| until <= now) {
            self.open_gates();
        }
        while let Some(token) = self.deadlines.expired(now) {
            match self.slots.get_mut(token) {
                Some(Occupant::Caller { .. }) => self.turn_away(token, "timeout"),
                Some(Occupant::Leaving { .. }) => self.vacate(token),
                Some(Occupant::Link(link)) => {
                    link.deadline = None;
                    self.link_expired(token, now);
                }
                None => {}
            }
        }
    }

    /// When [`Self::expire`] is to be called next.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        [self.paused, self.deadlines.next()].into_iter().flatten().min()
    }

    /// Connections that live now.
    pub(super) fn connections(&self) -> usize {
        self.slots.len()
    }

    /// Whether the guest has to wait until there are fewer connections.
    pub(super) fn is_half_full(&self) -> bool {
        self.slots.len() >= self.half
    }

    /// The size of the receive buffer of a new connection.
    pub(super) fn window(&self) -> u32 {
        if self.slots.len() < MANY { WINDOW } else { SMALL_WINDOW }
    }

    /// Looks after a link when something has happened to it.
    pub(super) fn settle(&mut self, token: Token) {
        let Some(Occupant::Link(link)) = self.slots.get_mut(token) else { return };
        if link.origin == Origin::GuestToSibling && link.connection.phase() == Phase::Answering {
            match link.consent() {
                Some(true) => {
                    link.opened = true;
                    link.connection.host_answered();
                }
                Some(false) => return self.break_off(token),
                None => {}
            }
        }
        let Some(Occupant::Link(link)) = self.slots.get_mut(token) else { return };
        if link.connection.phase() == Phase::Asking
            && !link.connection.guest_knows()
            && link.is_deserted()
        {
            return self.remove_link(token);
        }
        if link.work() {
            let key = link.key;
            self.reset_guest(key);
        }
        let Some(Occupant::Link(link)) = self.slots.get_mut(token) else { return };
        if link.connection.is_over().is_some() && self.keys.get(&link.key) == Some(&token) {
            self.keys.remove(&link.key);
        }
        if link.is_finished() {
            return self.remove_link(token);
        }
        if link.connection.is_over().is_some() {
            self.deadlines.replace(token, link.deadline.take(), None);
        }
        if link.has_packet() && !link.queued {
            link.queued = true;
            self.ready.push_back(token);
        }
    }

    /// Sets the deadline of a link.
    pub(super) fn set_deadline(&mut self, token: Token, deadline: Option<Instant>) {
        if let Some(Occupant::Link(link)) = self.slots.get_mut(token) {
            let old = std::mem::replace(&mut link.deadline, deadline);
            self.deadlines.replace(token, old, deadline);
        }
    }

    fn link_expired(&mut self, token: Token, now: Instant) {
        let Some(Occupant::Link(link)) = self.slots.get_mut(token) else { return };
        if std::mem::take(&mut link.resting) {
            let until = link.patience;
            self.set_deadline(token, until);
            return self.settle(token);
        }
        if link.stream().is_none() && link.dial_until.is_some_and(|until| now < until) {
            return self.dial(token);
        }
        let key = link.key;
        if link.connection.timed_out() {
            self.reset_guest(key);
        }
        self.settle(token);
    }

    /// Ends a link with a reset for the guest, if it knows of it.
    pub(super) fn break_off(&mut self, token: Token) {
        let Some(Occupant::Link(link)) = self.slots.get_mut(token) else { return };
        let key = link.key;
        if link.connection.host_broke() {
            self.reset_guest(key);
        }
        self.settle(token);
    }

    /// Adds an occupant and registers its socket.
    pub(super) fn admit(&mut self, occupant: Occupant) -> Result<Token, Occupant> {
        let deadline = match &occupant {
            Occupant::Caller { deadline, .. } | Occupant::Leaving { deadline, .. } => {
                Some(*deadline)
            }
            Occupant::Link(link) => link.deadline,
        };
        let token = self.slots.insert(occupant)?;
        self.deadlines.replace(token, None, deadline);
        if !self.register(token)
            && let Some(occupant) = self.vacated(token)
        {
            return Err(occupant);
        }
        Ok(token)
    }

    /// Lets epoll watch the socket of an occupant, if it has one.
    pub(super) fn register(&mut self, token: Token) -> bool {
        let stream = match self.slots.get(token) {
            Some(Occupant::Caller { stream, .. } | Occupant::Leaving { stream, .. }) => stream,
            Some(Occupant::Link(link)) => match link.stream() {
                Some(stream) => stream,
                None => return true,
            },
            None => return false,
        };
        let flags = EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET;
        epoll::add(&self.epoll, stream, EventData::new_u64(token.to_bits()), flags).is_ok()
    }

    /// Removes an occupant with its deadline; its socket leaves epoll when it is closed.
    pub(super) fn vacated(&mut self, token: Token) -> Option<Occupant> {
        let occupant = self.slots.remove(token)?;
        let deadline = match &occupant {
            Occupant::Caller { deadline, .. } | Occupant::Leaving { deadline, .. } => {
                Some(*deadline)
            }
            Occupant::Link(link) => link.deadline,
        };
        self.deadlines.replace(token, deadline, None);
        Some(occupant)
    }

    fn vacate(&mut self, token: Token) {
        drop(self.vacated(token));
    }

    /// The end of a link, for both sides.
    fn remove_link(&mut self, token: Token) {
        let Some(Occupant::Link(mut link)) = self.vacated(token) else { return };
        if self.keys.get(&link.key) == Some(&token) {
            self.keys.remove(&link.key);
        }
        let end = link.connection.is_over();
        if let Some(end) = end {
            link.apologise(end);
        }
        let linger = link.should_linger();
        let clean = end == Some(End::Clean);
        let Some(stream) = link.into_stream() else { return };
        if linger {
            stream.shut_write();
            if !drained(&stream) {
                // Registered anew: the old token names nothing any more.
                let _ = epoll::delete(&self.epoll, &stream);
                let deadline = Instant::now() + LINGER;
                let _ = self.admit(Occupant::Leaving { stream, deadline });
            }
        } else if !clean {
            stream.reset_on_close();
        }
    }

    /// Shuts the gates for a moment: there is no room for more.
    pub(super) fn shut_gates(&mut self) {
        self.paused = Some(Instant::now() + PAUSE);
        self.set_gates(EventFlags::empty());
    }

    fn open_gates(&mut self) {
        self.paused = None;
        self.set_gates(EventFlags::IN);
    }

    fn set_gates(&self, flags: EventFlags) {
        for (index, gate) in self.gates.iter().enumerate() {
            let data = EventData::new_u64(ENTRANCE_BIT | index as u64);
            // It was added with the same arguments; there is nothing to be done if not.
            let _ = epoll::modify(&self.epoll, &gate.entrance, data, flags);
        }
    }

    /// Makes a link and files it under its key.
    pub(super) fn admit_link(&mut self, link: Link) -> Result<Token, Occupant> {
        let key = link.key;
        let token = self.admit(Occupant::Link(Box::new(link)))?;
        self.keys.insert(key, token);
        Ok(token)
    }

    /// A connection of the host that the guest is asked to take.
    pub(super) fn asking(&self) -> Connection {
        Connection::from_host(self.window())
    }
}

/// How many sockets there can be.
fn most_occupants() -> usize {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    let descriptors =
        limit.map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX));
    descriptors.saturating_sub(RESERVE).clamp(1, MAX_OCCUPANTS)
}

/// Throws away what comes; true at the end.
fn drained(stream: &Stream) -> bool {
    let mut bytes = [0; 16 * 1024];
    // Bounded: a client that writes without pause is cut off by the deadline.
    for _ in 0..64 {
        match stream.take(&mut bytes) {
            Ok(0) => return true,
            Ok(_) | Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => return false,
            Err(_) => return true,
        }
    }
    false
}
