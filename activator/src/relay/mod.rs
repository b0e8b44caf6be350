//! `activator relay`: from sockets that a service manager listens on to a server that knows
//! nothing of socket activation.
//!
//! What it takes and does is in [`arguments::USAGE`]; systemd-socket-proxyd(8) is the model.
//! Where it differs on purpose:
//! * A backend that does not answer yet is tried again; systemd's drops the client.
//! * When the limit is reached, clients wait in the backlog; systemd's accepts and closes.
//! * All addresses of a name are tried, not the first alone.
//! * Datagrams are carried, and backends on vsock.
//! * Peers that are gone are noticed by keep-alive.
//! * Backends in containers are reached from outside ([`inside`]), and waited for ([`gate`]).
//!
//! One thread, one loop of mio; bytes never pass through this process ([`half`]), memory is
//! bounded by the number of connections. Events are edges: what has not said EAGAIN is driven
//! again, in turns. Nothing is accepted once the decision to exit is made, so that whoever
//! connects then is the service manager's to see.

mod arguments;
mod backend;
mod connection;
mod datagram;
mod gate;
mod half;
mod inside;
mod mux;
mod proxy;
mod slots;

use crate::announce::Announcer;
use crate::listen;
use crate::remote::Remote;
use crate::sys::{self, Signals};
use crate::vsock;
use activator::{exit, inherit};
use arguments::{Call, Header, Settings};
use backend::{Backend, Target};
use connection::{Connection, News, Side, Verdict};
use datagram::{Flows, Left};
use gate::Gate;
use inside::Inside;
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Waker};
use rustix::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use rustix::io::Errno;
use rustix::net::{SocketFlags, SocketType, acceptfrom_with, sockopt};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use slots::{Id, Slots, Source};
use std::collections::{BTreeSet, HashSet};
use std::ffi::OsString;
use std::fmt;
use std::io;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Clients taken from one listener before others have their turn.
const TURN: usize = 64;
/// How long nothing is accepted when there are no fds or no memory left.
const PAUSE: Duration = Duration::from_millis(100);
/// Two sockets and two pipes of a connection, the socket of a flow; and a few of our own.
const FDS_PER_CONNECTION: u64 = 7;
const FDS_OF_OURS: u64 = 64;

/// `arguments` is what stands behind `relay`.
pub(crate) fn main(arguments: &[OsString]) -> ExitCode {
    let (target, settings) = match Call::parse(arguments) {
        Ok(Call::Help) => {
            println!("{}", arguments::USAGE);
            return ExitCode::from(exit::DONE);
        }
        Ok(Call::Version) => {
            println!("activator {}", env!("CARGO_PKG_VERSION"));
            return ExitCode::from(exit::DONE);
        }
        Ok(Call::Relay(target, settings)) => (target, settings),
        Err(error) => {
            eprintln!("activator relay: {error}\nhint: activator relay --help");
            return ExitCode::from(exit::USAGE);
        }
    };
    let announcer = Announcer::from_environment();
    let outcome = Relay::new(*target, settings).and_then(|mut relay| relay.run(&announcer));
    announcer.say("STOPPING=1");
    match outcome {
        Ok(()) => ExitCode::from(exit::DONE),
        Err(error) => {
            eprintln!("activator relay: {error}");
            ExitCode::from(exit::FAILED)
        }
    }
}

/// Why it does not run.
#[derive(Debug)]
enum Error {
    NoListeners,
    NoListener(RawFd),
    NoDatagrams(&'static str),
    /// It did not answer in time; why not, the last time.
    NoBackend(Errno),
    Loop(io::Error),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoListeners => f.write_str(
                "expected listening sockets by LISTEN_FDS: start it from a socket unit, \
                 or with `activator activate`",
            ),
            Self::NoListener(fd) => {
                write!(f, "fd {fd}: expected a listening stream socket, or a datagram socket")
            }
            Self::NoDatagrams(what) => write!(f, "{what} carries no datagrams"),
            Self::NoBackend(errno) => write!(f, "the backend does not answer: {errno}"),
            Self::Loop(error) => write!(f, "failed to wait for events: {error}"),
        }
    }
}

impl From<io::Error> for Error {
    fn from(error: io::Error) -> Self {
        Self::Loop(error)
    }
}

impl From<Errno> for Error {
    fn from(errno: Errno) -> Self {
        Self::Loop(errno.into())
    }
}

/// One inherited socket.
struct Listener {
    fd: OwnedFd,
    kind: Kind,
    /// It has not said EAGAIN since the last event.
    ready: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Stream,
    Datagram,
}

struct Relay {
    poll: Poll,
    signals: OwnedFd,
    settings: Settings,
    backend: Backend,
    listeners: Vec<Listener>,
    connections: Slots<Entry>,
    flows: Flows,
    /// Deadlines of connections.
    timers: BTreeSet<(Instant, Id)>,
    /// Connections and flows that have more to do at once.
    runnable: HashSet<Source>,
    /// Nothing is accepted until then.
    pause: Option<Instant>,
    /// Told to end: what backends have closed is still delivered, and that is all.
    leaving: bool,
}

struct Entry {
    connection: Connection,
    /// As it stands in the timers.
    deadline: Option<Instant>,
}

impl Relay {
    fn new(target: Target, mut settings: Settings) -> Result<Self, Error> {
        let mut listeners = vec![];
        for (_, fd) in inherit::take_own() {
            listeners.push(Listener::new(fd)?);
        }
        if listeners.is_empty() {
            return Err(Error::NoListeners);
        }
        if listeners.iter().any(|it| it.kind == Kind::Datagram) {
            if !target.takes_datagrams() {
                return Err(Error::NoDatagrams("the backend's vsock"));
            }
            if settings.header != Header::Nothing {
                return Err(Error::NoDatagrams("--proxy-protocol"));
            }
        }
        settings.connections_max = raise_limit(settings.connections_max);
        let poll = Poll::new()?;
        let signals = sys::signal_fd(&Signals::new(&[libc::SIGTERM, libc::SIGINT]))?;
        let registry = poll.registry();
        let watch = |fd: RawFd, source: Source| {
            registry.register(&mut SourceFd(&fd), source.into(), Interest::READABLE)
        };
        watch(signals.as_raw_fd(), Source::Signals)?;
        for (index, listener) in listeners.iter().enumerate() {
            watch(listener.fd.as_raw_fd(), Source::Listener(index))?;
        }
        let inside = settings.inside.as_deref().map(Inside::new);
        let waker = Arc::new(Waker::new(registry, Source::Waker.into())?);
        Ok(Self {
            signals,
            listeners,
            backend: Backend::new(target, inside, waker),
            connections: Slots::new(settings.connections_max),
            flows: Flows::new(&settings),
            timers: BTreeSet::new(),
            runnable: HashSet::new(),
            pause: None,
            leaving: false,
            settings,
            poll,
        })
    }

    /// Until it is idle for long enough, or told to end.
    fn run(&mut self, announcer: &Announcer) -> Result<(), Error> {
        let mut events = Events::with_capacity(256);
        let mut idle_since = None;
        let mut alive = announcer.watchdog().map(|period| (period, Instant::now() + period));
        if self.wait_for_backend()? == Gate::Ended {
            return Ok(());
        }
        announcer.say("READY=1");
        loop {
            let now = Instant::now();
            self.turn(now);
            let swept = self.sweep(now);
            let idle = self.connections.is_empty() && self.flows.is_empty();
            if idle && self.leaving {
                return Ok(());
            }
            if idle && self.settings.wait && self.backend.is_failing() {
                return Err(Error::NoBackend(Errno::CONNREFUSED));
            }
            idle_since = idle.then(|| idle_since.unwrap_or(now));
            let leave = idle_since.zip(self.settings.exit_idle).map(|(since, time)| since + time);
            if leave.is_some_and(|leave| leave <= now) {
                return Ok(());
            }
            if let Some((period, next)) = alive.as_mut().filter(|(_, next)| *next <= now) {
                announcer.say("WATCHDOG=1");
                *next = now + *period;
            }
            let (_, flow) = self.flows.due(now);
            let timer = self.timers.first().map(|(deadline, _)| *deadline);
            let watchdog = alive.map(|(_, next)| next);
            let next =
                [leave, timer, flow, swept, watchdog, self.pause].into_iter().flatten().min();
            let timeout = match self.is_busy() {
                true => Some(Duration::ZERO),
                // One more millisecond: epoll rounds down in old kernels.
                false => {
                    next.map(|next| next.saturating_duration_since(now) + Duration::from_millis(1))
                }
            };
            match self.poll.poll(&mut events, timeout) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                other => other?,
            }
            for event in &events {
                match Source::from(event.token()) {
                    Source::Signals => {
                        if sys::next_signal(self.signals.as_fd()).is_some() {
                            if self.leaving {
                                return Ok(());
                            }
                            self.leave();
                        }
                    }
                    // All that waits for addresses; the others say that they still wait.
                    Source::Waker => {
                        let all: Vec<Id> = self.connections.iter().map(|(id, _)| id).collect();
                        all.into_iter().for_each(|id| self.drive(id, None));
                    }
                    Source::Listener(index) => {
                        self.listeners.get_mut(index).into_iter().for_each(|it| it.ready = true);
                    }
                    Source::Client(id) => self.drive(id, Some(News::new(Side::Client, event))),
                    Source::Backend(id) => self.drive(id, Some(News::new(Side::Backend, event))),
                    Source::Flow(id) => self.drive_flow(id),
                }
            }
        }
    }

    /// Told to end: drops all but what only has to be delivered.
    fn leave(&mut self) {
        self.leaving = true;
        self.flows = Flows::new(&self.settings);
        let all: Vec<Id> = self.connections.iter().map(|(id, _)| id).collect();
        for id in all {
            self.drive(id, None);
            if !self.connections.get_mut(id).is_some_and(|it| it.connection.is_ending()) {
                self.connections.remove(id);
            }
        }
    }

    /// What needs no event: what was left over, what waits at listeners, what is due.
    fn turn(&mut self, now: Instant) {
        for source in std::mem::take(&mut self.runnable) {
            match source {
                Source::Client(id) => self.drive(id, None),
                Source::Flow(id) => self.drive_flow(id),
                _ => {}
            }
        }
        while let Some((_, id)) = self.timers.first().copied().filter(|(due, _)| *due <= now) {
            self.timers.pop_first();
            if let Some(entry) = self.connections.get_mut(id) {
                entry.deadline = None;
            }
            self.drive(id, None);
        }
        for id in self.flows.due(now).0 {
            self.drive_flow(id);
        }
        self.pause = self.pause.filter(|pause| *pause > now);
        for index in 0..self.listeners.len() {
            match self.listeners.get(index) {
                Some(Listener { ready: true, kind: Kind::Stream, .. }) => self.accept(index, now),
                Some(Listener { ready: true, kind: Kind::Datagram, .. }) if !self.leaving => {
                    self.receive(index);
                }
                _ => {}
            }
        }
    }

    /// Whether there is more to do without waiting.
    fn is_busy(&self) -> bool {
        let open = self.takes_clients();
        let waits =
            |it: &Listener| it.ready && !self.leaving && (it.kind == Kind::Datagram || open);
        !self.runnable.is_empty() || self.listeners.iter().any(waits)
    }

    fn accept(&mut self, index: usize, now: Instant) {
        for _ in 0..TURN {
            if !self.takes_clients() {
                return;
            }
            let Some(listener) = self.listeners.get_mut(index) else { return };
            let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
            let (client, peer) = match acceptfrom_with(&listener.fd, flags) {
                Ok(accepted) => accepted,
                Err(Errno::AGAIN) => {
                    listener.ready = false;
                    return;
                }
                // This client has left.
                Err(Errno::INTR | Errno::CONNABORTED | Errno::CONNRESET | Errno::PROTO) => continue,
                Err(errno) => {
                    eprintln!("activator relay: cannot accept a connection, waiting: {errno}");
                    self.pause = Some(now + PAUSE);
                    return;
                }
            };
            let cid = peer.as_ref().and_then(vsock::Address::of).map(|address| address.cid);
            let nobody = Remote { address: None, port: None };
            let peer = peer.as_ref().map_or(nobody, Remote::of);
            let allowed = &self.settings.allow_cids;
            if cid.is_some_and(|cid| !allowed.is_empty() && !allowed.contains(&cid)) {
                eprintln!("activator relay: refused a connection of {peer}");
                continue;
            }
            let settings = &self.settings;
            let id = self.connections.insert(|id| Entry {
                connection: Connection::new(id, client, peer, settings),
                deadline: None,
            });
            let registry = self.poll.registry();
            let registered =
                self.connections.get_mut(id).map(|entry| entry.connection.register(registry));
            match registered {
                Some(Ok(())) => self.drive(id, None),
                _ => drop(self.connections.remove(id)),
            }
        }
    }

    fn receive(&mut self, index: usize) {
        let Some(listener) = self.listeners.get_mut(index) else { return };
        let mut context = datagram::Context {
            registry: self.poll.registry(),
            backend: &mut self.backend,
            settings: &self.settings,
            now: Instant::now(),
        };
        let left = self.flows.receive(index, listener.fd.as_fd(), &mut context);
        listener.ready = left == Left::Something;
    }

    fn drive_flow(&mut self, id: Id) {
        let listeners: Vec<BorrowedFd> = self.listeners.iter().map(|it| it.fd.as_fd()).collect();
        let mut context = datagram::Context {
            registry: self.poll.registry(),
            backend: &mut self.backend,
            settings: &self.settings,
            now: Instant::now(),
        };
        if self.flows.drive(id, &listeners, &mut context) == Left::Something {
            self.runnable.insert(Source::Flow(id));
        }
    }

    fn sweep(&mut self, now: Instant) -> Option<Instant> {
        let context = datagram::Context {
            registry: self.poll.registry(),
            backend: &mut self.backend,
            settings: &self.settings,
            now,
        };
        self.flows.sweep(&context)
    }

    fn drive(&mut self, id: Id, news: Option<News>) {
        let Some(Entry { connection, deadline }) = self.connections.get_mut(id) else { return };
        let mut context = connection::Context {
            registry: self.poll.registry(),
            backend: &mut self.backend,
            settings: &self.settings,
            now: Instant::now(),
        };
        let verdict = connection.drive(news, &mut context);
        let wanted = match verdict {
            Verdict::Wait(wanted) => wanted,
            _ => None,
        };
        if *deadline != wanted {
            if let Some(old) = std::mem::replace(deadline, wanted) {
                self.timers.remove(&(old, id));
            }
            self.timers.extend(wanted.map(|new| (new, id)));
        }
        match verdict {
            Verdict::Wait(_) => {}
            Verdict::More => self.runnable.extend([Source::Client(id)]),
            Verdict::Ended => drop(self.connections.remove(id)),
        }
    }
}

impl Listener {
    fn new(fd: OwnedFd) -> Result<Self, Error> {
        let kind = match sockopt::socket_type(&fd) {
            Ok(SocketType::STREAM) if matches!(sockopt::socket_acceptconn(&fd), Ok(true)) => {
                Kind::Stream
            }
            Ok(SocketType::DGRAM) => Kind::Datagram,
            _ => return Err(Error::NoListener(fd.as_raw_fd())),
        };
        listen::set_nonblocking(fd.as_fd(), true)?;
        // The first look needs no event.
        Ok(Self { fd, kind, ready: true })
    }
}

/// Room for all connections and flows, as far as the hard limit goes; how many that is. Were there
/// more, each could hold some of its fds and none get its last.
fn raise_limit(connections: usize) -> usize {
    let limit = getrlimit(Resource::Nofile);
    let wanted = FDS_PER_CONNECTION * connections as u64 + FDS_OF_OURS;
    let wanted = limit.maximum.map_or(wanted, |maximum| wanted.min(maximum));
    if limit.current.is_some_and(|current| current < wanted) {
        // What it really is, is looked at next.
        let _ =
            setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum: limit.maximum });
    }
    let Some(current) = getrlimit(Resource::Nofile).current else { return connections };
    let fitting = current.saturating_sub(FDS_OF_OURS) / FDS_PER_CONNECTION;
    let fitting = usize::try_from(fitting).unwrap_or(usize::MAX).max(1);
    if fitting < connections {
        eprintln!(
            "activator relay: {fitting} connections at a time, since {current} files may be open"
        );
    }
    fitting.min(connections)
}
