//! One client's connection, from its accept to its end.
//!
//! | phase | event | then |
//! |---|---|---|
//! | resolving | addresses are known | connecting to the first |
//! | resolving | a connection was made before the client was taken | greeting |
//! | connecting | connected | greeting |
//! | connecting | refused, or too slow | the next address; after the last one, pausing |
//! | greeting | all said and heard | relaying |
//! | greeting | refused | as above |
//! | pausing | time | resolving |
//! | relaying | both directions done, or a reset | ended |
//! | any but relaying | the client has left, or the time to connect is over | ended |
//!
//! Until it is relayed nothing of the client is read: its bytes wait in the kernel.

use super::arguments::Settings;
use super::backend::{Backend, connected};
use super::half::{Half, Turn};
use super::mux::{Greeting, Progress};
use super::proxy;
use super::slots::{Id, Source};
use crate::remote::Remote;
use mio::event::Event;
use mio::unix::SourceFd;
use mio::{Interest, Registry};
use rustix::fd::{AsRawFd, OwnedFd};
use rustix::io::Errno;
use rustix::net::{SocketAddrAny, SocketType, sockopt};
use std::rc::Rc;
use std::time::{Duration, Instant};

/// Between attempts; doubled up to the last.
const FIRST_PAUSE: Duration = Duration::from_millis(10);
const LAST_PAUSE: Duration = Duration::from_secs(1);
/// For one address: another one may answer.
const ONE_ADDRESS: Duration = Duration::from_secs(10);

/// Bytes, their end, and urgent data, behind which others may wait.
const INCOMING: Interest = Interest::READABLE.add(Interest::PRIORITY);

/// What a connection needs of the relay.
pub(super) struct Context<'a> {
    pub(super) registry: &'a Registry,
    pub(super) backend: &'a mut Backend,
    pub(super) settings: &'a Settings,
    pub(super) now: Instant,
}

/// What a connection wants next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Nothing before an event; or before this time.
    Wait(Option<Instant>),
    /// To be driven again, after others.
    More,
    /// To be dropped.
    Ended,
}

/// Which of its two sockets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    Client,
    Backend,
}

/// What an event says of one of the two.
#[derive(Debug, Clone, Copy)]
pub(super) struct News {
    side: Side,
    readable: bool,
    writable: bool,
    /// Nothing is behind the bytes: no end, no error, no urgent data.
    plain: bool,
    /// Closed by its peer in both directions: nothing can be written to it.
    hung_up: bool,
}

impl News {
    pub(super) fn new(side: Side, event: &Event) -> Self {
        let ends = event.is_read_closed() || event.is_error();
        Self {
            side,
            readable: event.is_readable() || ends,
            writable: event.is_writable() || ends,
            plain: !ends && !event.is_priority(),
            hung_up: event.is_write_closed(),
        }
    }
}

/// Between a client and the backend.
pub(super) struct Connection {
    id: Id,
    client: OwnedFd,
    peer: Remote,
    phase: Phase,
    /// Made before the first connect, so that a backend is not bothered when there are no fds.
    halves: Option<(Half, Half)>,
    addresses: Rc<[SocketAddrAny]>,
    attempts: u32,
    give_up: Instant,
    /// Why the last attempt failed.
    last: Option<Errno>,
    /// The client has closed its socket, and what it sent before waits in it.
    client_left: bool,
    /// Whether client and backend are watched for room to write. A Unix socket has an event for
    /// all that its peer reads, so they are only while something waits for room.
    for_room: [bool; 2],
}

enum Phase {
    Resolving,
    Pausing(Instant),
    Connecting { backend: OwnedFd, next: usize, until: Instant },
    Greeting { backend: OwnedFd, next: usize, greeting: Greeting },
    Relaying { backend: OwnedFd, up: Half, down: Half },
}

impl Connection {
    /// Takes over an accepted connection, which must not block.
    pub(super) fn new(id: Id, client: OwnedFd, peer: Remote, settings: &Settings) -> Self {
        prepare(&client);
        Self {
            id,
            client,
            peer,
            phase: Phase::Resolving,
            halves: None,
            addresses: Rc::from([]),
            attempts: 0,
            give_up: Instant::now() + settings.connect_timeout,
            last: None,
            client_left: false,
            for_room: [false; 2],
        }
    }

    /// To hear of the client; edges only.
    pub(super) fn register(&self, registry: &Registry) -> std::io::Result<()> {
        let token = Source::Client(self.id).into();
        registry.register(&mut SourceFd(&self.client.as_raw_fd()), token, INCOMING)
    }

    fn watch_for_room(&mut self, registry: &Registry) {
        let Phase::Relaying { backend, up, down } = &self.phase else { return };
        let sides = [
            (&self.client, Source::Client(self.id), down.waits_for_room()),
            (backend, Source::Backend(self.id), up.waits_for_room()),
        ];
        for (watched, (fd, source, wanted)) in self.for_room.iter_mut().zip(sides) {
            let interest = match wanted {
                true => INCOMING.add(Interest::WRITABLE),
                false => INCOMING,
            };
            // Room that is there by now is told at once. It fails for no fd that is watched.
            if *watched != wanted
                && registry
                    .reregister(&mut SourceFd(&fd.as_raw_fd()), source.into(), interest)
                    .is_ok()
            {
                *watched = wanted;
            }
        }
    }

    fn hung_up(&mut self, side: Side) -> Option<Verdict> {
        match (&mut self.phase, side) {
            (Phase::Relaying { backend, down, .. }, Side::Client) => down.abandon(backend),
            (Phase::Relaying { up, .. }, Side::Backend) => up.abandon(&self.client),
            // What it has said is for the backend, when there is one.
            (_, Side::Client) => match rustix::io::ioctl_fionread(&self.client) {
                Ok(1..) => self.client_left = true,
                _ => return Some(Verdict::Ended),
            },
            // The error is found when it is driven.
            (_, Side::Backend) => {}
        }
        None
    }

    /// The backend has said all, and the client has not got it yet.
    pub(super) fn is_ending(&self) -> bool {
        matches!(&self.phase, Phase::Relaying { down, .. } if down.is_ending())
    }

    /// Goes on as far as it can without waiting, after an event or because it is its turn.
    pub(super) fn drive(&mut self, mut news: Option<News>, context: &mut Context) -> Verdict {
        if let Some(news) = news.filter(|news| news.hung_up)
            && let Some(verdict) = self.hung_up(news.side)
        {
            return verdict;
        }
        loop {
            if let Phase::Relaying { backend, up, down } = &mut self.phase {
                let verdict = relay(&self.client, backend, up, down, news);
                if verdict == Verdict::Wait(None) {
                    self.watch_for_room(context.registry);
                }
                return verdict;
            }
            if context.now >= self.give_up {
                let why = self.last.map_or("no answer".to_owned(), |errno| errno.to_string());
                eprintln!("activator relay: no backend for {}: {why}", self.peer);
                return Verdict::Ended;
            }
            // What waited meanwhile is told by no event.
            news = None;
            let phase = std::mem::replace(&mut self.phase, Phase::Resolving);
            match self.step(phase, context) {
                Ok(next) => self.phase = next,
                Err((phase, until)) => {
                    self.phase = phase;
                    return Verdict::Wait(Some(until.min(self.give_up)));
                }
            }
        }
    }

    /// One row of the table: the next phase, or the same and the time it waits for.
    fn step(&mut self, phase: Phase, context: &mut Context) -> Result<Phase, (Phase, Instant)> {
        match phase {
            Phase::Resolving => {
                if self.halves.is_none() {
                    match Half::new().and_then(|up| Ok((up, Half::new()?))) {
                        Ok(halves) => self.halves = Some(halves),
                        Err(errno) => return Ok(self.pause(Some(errno), context)),
                    }
                }
                if let Some(backend) = context.backend.take_kept()
                    && register(&backend, self.id, context).is_ok()
                {
                    let greeting = self.greeting(context);
                    return Ok(Phase::Greeting { backend, next: 0, greeting });
                }
                match context.backend.addresses(context.now) {
                    // The waker tells.
                    None => Err((Phase::Resolving, self.give_up)),
                    Some(addresses) => {
                        self.addresses = addresses;
                        Ok(self.attempt(0, context))
                    }
                }
            }
            Phase::Pausing(until) if context.now < until => Err((phase, until)),
            Phase::Pausing(_) => Ok(Phase::Resolving),
            Phase::Connecting { backend, next, until } => match connected(&backend) {
                None if context.now < until => {
                    Err((Phase::Connecting { backend, next, until }, until))
                }
                None => self.failed(Errno::TIMEDOUT, next, context),
                Some(Err(errno)) => self.failed(errno, next, context),
                Some(Ok(())) => {
                    context.backend.note(Ok(()));
                    let greeting = self.greeting(context);
                    Ok(Phase::Greeting { backend, next, greeting })
                }
            },
            Phase::Greeting { backend, next, mut greeting } => match greeting.drive(&backend) {
                Progress::Waiting => {
                    Err((Phase::Greeting { backend, next, greeting }, self.give_up))
                }
                Progress::Refused => self.failed(Errno::CONNREFUSED, next, context),
                Progress::Done => match self.halves.take() {
                    Some((up, mut down)) => {
                        prepare(&backend);
                        if self.client_left {
                            down.abandon(&backend);
                        }
                        // It was for its connect(2).
                        self.for_room = [false, true];
                        Ok(Phase::Relaying { backend, up, down })
                    }
                    None => Ok(Phase::Resolving),
                },
            },
            relaying @ Phase::Relaying { .. } => Ok(relaying),
        }
    }

    fn failed(
        &mut self,
        errno: Errno,
        next: usize,
        context: &mut Context,
    ) -> Result<Phase, (Phase, Instant)> {
        self.last = Some(errno);
        Ok(self.attempt(next, context))
    }

    /// Connects to one of the addresses from `next` on.
    fn attempt(&mut self, next: usize, context: &mut Context) -> Phase {
        let mut failure = None;
        for (index, address) in self.addresses.iter().enumerate().skip(next) {
            let started = context.backend.connect(address, SocketType::STREAM);
            let started = started.and_then(|backend| {
                register(&backend, self.id, context)?;
                Ok(backend)
            });
            match started {
                Ok(backend) => {
                    let until = context.now + ONE_ADDRESS;
                    return Phase::Connecting { backend, next: index + 1, until };
                }
                Err(errno) => failure = Some(errno),
            }
        }
        self.pause(failure, context)
    }

    fn pause(&mut self, errno: Option<Errno>, context: &mut Context) -> Phase {
        self.last = errno.or(self.last);
        context.backend.note(Err(self.last.unwrap_or(Errno::CONNREFUSED)));
        let pause = FIRST_PAUSE.saturating_mul(1 << self.attempts.min(16)).min(LAST_PAUSE);
        self.attempts += 1;
        Phase::Pausing(context.now + pause)
    }

    fn greeting(&self, context: &Context) -> Greeting {
        let nobody = Remote { address: None, port: None };
        let local = rustix::net::getsockname(&self.client);
        let local = local.as_ref().map_or(nobody, Remote::of);
        let header = proxy::header(context.settings.header, &self.peer, &local);
        Greeting::new(context.backend.mux_port(), header)
    }
}

fn register(backend: &OwnedFd, id: Id, context: &Context) -> Result<(), Errno> {
    let interest = INCOMING.add(Interest::WRITABLE);
    let token = Source::Backend(id).into();
    let registered =
        context.registry.register(&mut SourceFd(&backend.as_raw_fd()), token, interest);
    registered.map_err(|_| Errno::NOMEM)
}

/// Carries what an event is of; without one, whatever there is.
fn relay(
    client: &OwnedFd,
    backend: &OwnedFd,
    up: &mut Half,
    down: &mut Half,
    news: Option<News>,
) -> Verdict {
    let pump = |half: &mut Half, source: (&OwnedFd, Side), sink: &OwnedFd| match news {
        None => half.pump(source.0, sink, false),
        Some(News { side, readable: true, plain, .. }) if side == source.1 => {
            half.pump(source.0, sink, plain)
        }
        Some(News { side, writable: true, .. }) if side != source.1 => {
            half.pump(source.0, sink, false)
        }
        Some(_) => half.rest(),
    };
    let up = pump(up, (client, Side::Client), backend);
    let down = pump(down, (backend, Side::Backend), client);
    match (up, down) {
        (Turn::Reset, _) | (_, Turn::Reset) => {
            // The other side is to see a reset, too, not an end: what it got is not all. Only
            // TCP has one to send.
            for fd in [client, backend] {
                let _ = sockopt::set_socket_linger(fd, Some(Duration::ZERO));
            }
            Verdict::Ended
        }
        (Turn::Done, Turn::Done) => Verdict::Ended,
        (Turn::More, _) | (_, Turn::More) => Verdict::More,
        _ => Verdict::Wait(None),
    }
}

/// What only TCP has, and other families ignore: keep-alive, without which a peer that lost its power
/// would hold a connection for ever; and no wait for an acknowledgement before the next small piece,
/// which its sender has waited for already if it wanted to.
fn prepare(fd: &OwnedFd) {
    let _ = sockopt::set_socket_keepalive(fd, true);
    let _ = sockopt::set_tcp_nodelay(fd, true);
}
