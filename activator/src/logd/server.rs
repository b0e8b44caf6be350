//! The loop: pipes, the console, PID 1, listeners and clients behind one poll(2).
//!
//! Everything is non-blocking and every turn is bounded, so that no service that writes without
//! end, and no client that does not read, holds up the others.

mod replace;

use super::connection::{Connection, Frame, Settling, State, Trust};
use super::console::Console;
use super::journal::Journal;
use super::orders::{Asked, ClientId, Heard, Passed, Pid1, Snapshot};
use super::signals::Signals;
use super::split::Splitter;
use super::status::{self, Verdict};
use super::token::Token;
use super::{peer, request, words};
use crate::control::{Event, Failure, Order, Reply, Request};
use crate::manifest::{Manifest, UnitId, UnitKind};
use crate::wire;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::net::SocketFlags;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Connections at once. One more, and an idle or stuck one is dropped, or the
/// new one refused.
pub const MAX_CONNECTIONS: usize = 64;
/// Between two looks at a unit that somebody waits for.
const LOOK: Duration = Duration::from_millis(50);
/// A socket or target, which has no job to watch, must have settled by then.
const SETTLED: Duration = Duration::from_secs(10);
/// Lines are added to a client's output while less than that waits; in bytes.
const LOW_WATER: usize = 16 * 1024;
/// A client that took nothing for so long makes room when there are too many.
const STUCK: Duration = Duration::from_secs(10);
/// Between two looks whether clients that have shut down their side are still there.
const PROBE: Duration = Duration::from_secs(1);
/// Pause of the listeners when there is no fd left for another client.
const OUT_OF_FDS: Duration = Duration::from_millis(100);
/// Reads of one pipe in a turn.
const READS: usize = 4;
/// Size of a read; a pipe holds 64 KiB.
const READ: usize = 16 * 1024;
/// Time for the console to take the last lines when PID 1 is gone.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// What logd is given by PID 1.
#[derive(Debug)]
pub struct Inheritance {
    /// What units there are.
    pub manifest: Manifest,
    /// Whose bytes PID 1 wants when it gets SIGHUP.
    pub source: Option<PathBuf>,
    /// Our end of the SEQPACKET pair.
    pub pid1: OwnedFd,
    /// Where lines are shown.
    pub console: Option<OwnedFd>,
    /// Read ends of the services' pipes.
    pub pipes: Vec<(UnitId, OwnedFd)>,
    /// Stream listeners on vsock, for clients with the token.
    pub vsock: Vec<OwnedFd>,
    /// Listeners on Unix sockets, for root.
    pub unix: Vec<OwnedFd>,
    /// None lets nobody in over vsock.
    pub token: Option<Token>,
    /// [`status::CGROUPS`], or elsewhere in tests.
    pub cgroups: PathBuf,
    /// None in tests, where several run in one process.
    pub signals: Option<Signals>,
}

struct Source {
    unit: UnitId,
    pipe: OwnedFd,
    splitter: Splitter,
}

struct Listener {
    socket: OwnedFd,
    /// What its clients are to begin with; those of a Unix socket must be root, too.
    trust: Trust,
}

/// When PID 1 speaks as often as that, many clients come, and each line for the log takes time from
/// them: it is then heard once in a while, for all that it has said meanwhile. Its socket has room
/// for some 250 packets, and there are two for each activation.
const OFTEN: Duration = Duration::from_millis(1);
const REST: Duration = Duration::from_millis(5);

/// What poll reports about.
#[derive(Clone, Copy)]
enum Who {
    Pid1,
    Signals,
    Console,
    Source(usize),
    Listener(usize),
    Client(ClientId),
}

/// The process' whole state.
pub struct Logd {
    manifest: Manifest,
    source: Option<PathBuf>,
    cgroups: PathBuf,
    token: Option<Token>,
    pid1: Pid1,
    /// PID 1's socket had no room for an order.
    pid1_full: bool,
    signals: Option<Signals>,
    /// Emptied of those at their end: PID 1 holds the other ends, but a test may not.
    sources: Vec<Source>,
    listeners: Vec<Listener>,
    /// Until when no client is accepted; set when there was no fd for one.
    paused_until: Option<Instant>,
    connections: Vec<Connection>,
    /// Of the client accepted last.
    last_client: ClientId,
    journal: Journal,
    next_probe: Instant,
    /// When PID 1 last spoke, and until when it is not listened to: see [`REST`].
    heard: Option<Instant>,
    /// Empty; kept, since musl's malloc would map and unmap it each time.
    inbox: Vec<Heard>,
    rests_until: Option<Instant>,
}

impl Logd {
    /// Takes over everything.
    pub fn new(given: Inheritance) -> Self {
        let journal = Journal::new(&given.manifest, given.console.map(Console::new));
        let listener = |trust| move |socket| Listener { socket, trust };
        let listeners = given.vsock.into_iter().map(listener(Trust::ByToken));
        let listeners = listeners.chain(given.unix.into_iter().map(listener(Trust::Given)));
        let listeners: Vec<Listener> = listeners.collect();
        let source = |(unit, pipe)| Source { unit, pipe, splitter: Splitter::default() };
        let sources: Vec<Source> = given.pipes.into_iter().map(source).collect();
        let fds = listeners.iter().map(|listener| &listener.socket);
        for fd in fds.chain(sources.iter().map(|source| &source.pipe)) {
            // It works on every pipe and socket. Each has one reader at a time: us.
            let _ = rustix::io::ioctl_fionbio(fd, true);
        }
        Self {
            manifest: given.manifest,
            source: given.source,
            cgroups: given.cgroups,
            token: given.token,
            pid1: Pid1::new(given.pid1),
            pid1_full: false,
            signals: given.signals,
            sources,
            listeners,
            paused_until: None,
            connections: Vec::new(),
            last_client: 0,
            journal,
            next_probe: Instant::now(),
            heard: None,
            inbox: vec![],
            rests_until: None,
        }
    }

    /// Serves until PID 1 closes its end or sends SIGTERM.
    pub fn run(mut self) {
        loop {
            for (who, flags) in self.wait() {
                match who {
                    Who::Pid1 if !self.hear() => return self.leave(),
                    Who::Signals if self.asked_to_end() => return self.leave(),
                    // What waits for the console is flushed after every round.
                    Who::Pid1 | Who::Signals | Who::Console => {}
                    Who::Source(index) => self.read_source(index, READS),
                    Who::Listener(index) => self.accept(index),
                    Who::Client(id) => self.read_client(id, flags),
                }
            }
            let now = Instant::now();
            if self.pid1.lose_patience(now) {
                self.journal.log(None, "PID 1 does not answer");
                self.fail_waiting(&Failure::NoAnswer, now);
            }
            self.advance(now);
            self.pid1_full = self.pid1.send(now);
        }
    }

    fn wait(&mut self) -> Vec<(Who, PollFlags)> {
        let now = Instant::now();
        self.paused_until = self.paused_until.filter(|until| *until > now);
        let deadlines = self.connections.iter().filter_map(Connection::deadline);
        let deadlines = deadlines.chain(self.pid1.deadline()).chain(self.paused_until);
        let probe =
            self.connections.iter().any(|client| !client.reads()).then_some(self.next_probe);
        // Whoever waits for an answer of PID 1 is not kept waiting.
        let rests_until = self.rests_until.filter(|at| *at > now && !self.pid1.is_busy());
        let timeout = deadlines
            .chain(probe)
            .chain(rests_until)
            .min()
            .and_then(|at| Timespec::try_from(at.saturating_duration_since(now)).ok());

        let mut who = vec![Who::Pid1];
        let room = if self.pid1_full { PollFlags::OUT } else { PollFlags::empty() };
        let input = if rests_until.is_some() { PollFlags::empty() } else { PollFlags::IN };
        let pid1 = self.pid1.fd();
        let mut fds = vec![PollFd::from_borrowed_fd(pid1, input | room)];
        let mut add = |one, fd, flags| {
            who.push(one);
            fds.push(PollFd::from_borrowed_fd(fd, flags));
        };
        if let Some(signals) = &self.signals {
            add(Who::Signals, signals.fd(), PollFlags::IN);
        }
        if let Some(console) = self.journal.waiting_console() {
            add(Who::Console, console.fd(), PollFlags::OUT);
        }
        for (index, source) in self.sources.iter().enumerate() {
            add(Who::Source(index), rustix::fd::AsFd::as_fd(&source.pipe), PollFlags::IN);
        }
        if self.paused_until.is_none() {
            for (index, listener) in self.listeners.iter().enumerate() {
                add(Who::Listener(index), rustix::fd::AsFd::as_fd(&listener.socket), PollFlags::IN);
            }
        }
        for client in &self.connections {
            let mut flags = PollFlags::empty();
            flags.set(PollFlags::IN, client.reads());
            flags.set(PollFlags::OUT, client.unsent() > 0);
            add(Who::Client(client.id), client.fd(), flags);
        }
        match poll(&mut fds, timeout.as_ref()) {
            Ok(_) => {
                let revents = fds.iter().map(PollFd::revents);
                who.into_iter().zip(revents).filter(|(_, flags)| !flags.is_empty()).collect()
            }
            // A signal, or memory that lacks for the moment.
            Err(_) => Vec::new(),
        }
    }

    fn asked_to_end(&self) -> bool {
        self.signals.as_ref().is_some_and(Signals::asked_to_end)
    }

    fn read_source(&mut self, index: usize, reads: usize) {
        let Some(source) = self.sources.get_mut(index) else { return };
        let Source { unit, pipe, splitter } = source;
        let mut each = |line: &str| self.journal.log(Some(*unit), line);
        let mut buffer = [0; READ];
        for _ in 0..reads {
            match rustix::io::read(&*pipe, &mut buffer) {
                Ok(0) => {
                    splitter.flush(&mut each);
                    // Its index may be used again in this round; then a read finds nothing.
                    self.sources.remove(index);
                    return;
                }
                Ok(length) => splitter.feed(buffer.get(..length).unwrap_or_default(), &mut each),
                Err(Errno::INTR) => {}
                Err(_) => return,
            }
        }
    }

    /// What a process wrote before its end comes before the news of its end, and what it left
    /// unfinished is not glued to the words of its successor.
    fn drain(&mut self, unit: UnitId) {
        let Some(index) = self.sources.iter().position(|source| source.unit == unit) else {
            return;
        };
        // As much as a pipe holds, and no more: a child that lives on may still write.
        self.read_source(index, 64 * 1024 / READ);
        if let Some(source) = self.sources.iter_mut().find(|source| source.unit == unit) {
            source.splitter.flush(|line| self.journal.log(Some(unit), line));
        }
    }

    /// Takes what PID 1 says; false if it is gone.
    fn hear(&mut self) -> bool {
        let now = Instant::now();
        let before = self.heard.replace(now);
        let is_busy = before.is_some_and(|before| now.duration_since(before) < OFTEN);
        self.rests_until = is_busy.then(|| now + REST);
        let mut inbox = std::mem::take(&mut self.inbox);
        self.pid1.hear(&mut inbox);
        for heard in inbox.drain(..) {
            let now = Instant::now();
            match heard {
                Heard::Gone => return false,
                Heard::Event(unit, event) => {
                    if let (Some(unit), Event::Exited(_)) = (unit, event) {
                        self.drain(unit);
                    }
                    let text = words::describe(&self.manifest, unit, event);
                    self.journal.log(unit, &text);
                }
                Heard::Snapshot(number, snapshot) => self.use_snapshot(number, &snapshot, now),
                Heard::Taken(id) => {
                    if let Some(client) = find(&mut self.connections, id)
                        && let State::Ordered(wish) = client.state
                    {
                        match wish {
                            None => client.reply(&Reply::Done, now),
                            Some((unit, wish)) => {
                                client.state = State::Settling(Settling {
                                    unit,
                                    wish,
                                    snapshot: None,
                                    again: now,
                                    since: now,
                                });
                            }
                        }
                    }
                }
                Heard::Replaced(client, manifest) => self.replaced(client, manifest, now),
                Heard::Pipe(unit, Passed(pipe)) => self.add_source(unit, pipe),
                Heard::Reread => self.reread(),
                Heard::Refused(Asked::Status(_)) => {
                    self.fail_waiting(&Failure::ShuttingDown, now);
                }
                Heard::Refused(Asked::Order(order, id)) => {
                    if let Some(client) = find(&mut self.connections, id) {
                        client.reply(
                            &match order {
                                // It is on its way to what was asked for.
                                Order::Poweroff => Reply::Done,
                                _ => Reply::Failed(Failure::ShuttingDown),
                            },
                            now,
                        );
                    }
                }
            }
        }
        self.inbox = inbox;
        true
    }

    fn use_snapshot(&mut self, number: u64, snapshot: &Snapshot, now: Instant) {
        // Put together once, however many have asked; and only if one has.
        let mut status = None;
        for client in &mut self.connections {
            match &mut client.state {
                State::Status(wanted) if *wanted <= number => {
                    let status = status.get_or_insert_with(|| {
                        Reply::Status(status::assemble(&self.manifest, snapshot, &self.cgroups))
                    });
                    client.reply(status, now);
                }
                State::Settling(settling) if settling.snapshot.is_some_and(|n| n <= number) => {
                    let unit = settling.unit;
                    let watched = self.manifest.unit(unit).is_some_and(|unit| {
                        // A service has a job and a time-out of its own.
                        matches!(unit.kind, UnitKind::Service(_))
                    });
                    match status::judge(snapshot, unit, settling.wish) {
                        Verdict::NotYet if watched || now < settling.since + SETTLED => {
                            settling.snapshot = None;
                            settling.again = now + LOOK;
                        }
                        Verdict::NotYet => {
                            let state = status::state_of(snapshot, unit);
                            client.reply(&Reply::Failed(Failure::StartFailed(state)), now);
                        }
                        Verdict::Done => client.reply(&Reply::Done, now),
                        Verdict::Failed(state) => {
                            client.reply(&Reply::Failed(Failure::StartFailed(state)), now);
                        }
                        Verdict::NotReloaded => {
                            client.reply(&Reply::Failed(Failure::ReloadFailed), now);
                        }
                        Verdict::NotUp => {
                            client.reply(&Reply::Failed(Failure::CannotReload), now);
                        }
                        Verdict::ShuttingDown => {
                            client.reply(&Reply::Failed(Failure::ShuttingDown), now);
                        }
                    }
                }
                _ => {}
            }
        }
    }

    /// All who wait for PID 1 get the same answer.
    fn fail_waiting(&mut self, failure: &Failure, now: Instant) {
        for client in &mut self.connections {
            if matches!(client.state, State::Status(_) | State::Ordered(_) | State::Settling(_)) {
                client.reply(&Reply::Failed(failure.clone()), now);
            }
        }
    }

    fn accept(&mut self, index: usize) {
        for _ in 0..MAX_CONNECTIONS {
            let Some(listener) = self.listeners.get(index) else { return };
            let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
            let socket = match rustix::net::accept_with(&listener.socket, flags) {
                Ok(socket) => socket,
                Err(Errno::AGAIN) => return,
                Err(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM) => {
                    self.paused_until = Some(Instant::now() + OUT_OF_FDS);
                    return;
                }
                // The client has left already: accept(2).
                Err(_) => continue,
            };
            let trust = match listener.trust {
                Trust::Given if !is_root_or_us(&socket) => Trust::Denied,
                trust => trust,
            };
            let now = Instant::now();
            if self.make_room(now) {
                self.last_client += 1;
                let id = self.last_client;
                self.connections.push(Connection::new(id, socket, trust, now));
                // Its request is often there already; then it is never in the way.
                self.read_client(id, PollFlags::IN);
            }
        }
    }

    /// Drops, if there are too many, the oldest client that has its answer, else the oldest that
    /// has not said what it wants, else the one that is stuck for longest. So a client that
    /// speaks at once gets through any flood, wherever the flood comes from.
    fn make_room(&mut self, now: Instant) -> bool {
        if self.connections.len() < MAX_CONNECTIONS {
            return true;
        }
        let all = &self.connections;
        let stuck =
            |client: &Connection| client.stuck_since().filter(|since| *since + STUCK <= now);
        let index = (all.iter().position(Connection::answered))
            .or_else(|| all.iter().position(Connection::undecided))
            .or_else(|| {
                let stuck = all.iter().enumerate().filter_map(|(at, one)| Some((stuck(one)?, at)));
                stuck.min().map(|(_, index)| index)
            });
        if let Some(index) = index {
            self.connections.remove(index);
        }
        index.is_some()
    }

    fn read_client(&mut self, id: ClientId, flags: PollFlags) {
        let Some(client) = find(&mut self.connections, id) else { return };
        if client.reads() {
            client.read();
        }
        let now = Instant::now();
        while client.undecided() && !client.broken() {
            match client.frame() {
                Frame::Incomplete => break,
                Frame::TooLarge => client.reply(&Reply::Failed(Failure::BadRequest), now),
                Frame::Body(body) if matches!(client.state, State::Hello) => {
                    match request::greet(self.token.as_ref(), client.trust, &body) {
                        Ok(()) => {
                            client.trust = Trust::Given;
                            client.state = State::Request;
                        }
                        Err(failure) => client.reply(&Reply::Failed(failure), now),
                    }
                }
                Frame::Body(body) => match wire::from_bytes::<Request>(&body) {
                    Ok(request) if !client.surplus() || matches!(request, Request::Replace(_)) => {
                        let (manifest, journal) = (&self.manifest, &self.journal);
                        match request::begin(manifest, journal, &mut self.pid1, id, &request) {
                            Ok(state) => client.state = state,
                            Err(failure) => client.reply(&Reply::Failed(failure), now),
                        }
                    }
                    _ => client.reply(&Reply::Failed(Failure::BadRequest), now),
                },
            }
        }
        match client.receive() {
            Ok(true) => self.take_upload(id, now),
            Ok(false) => {}
            Err(why) => client.reply(&Reply::Failed(Failure::Replace(why)), now),
        }
        if let Some(client) = find(&mut self.connections, id)
            && flags.intersects(PollFlags::HUP | PollFlags::ERR)
        {
            client.hung_up();
        }
    }

    /// Moves every client on as far as it goes, and forgets those that are done.
    fn advance(&mut self, now: Instant) {
        let probe = self.next_probe <= now;
        if probe {
            self.next_probe = now + PROBE;
        }
        for client in &mut self.connections {
            loop {
                client.flush(now);
                if client.unsent() >= LOW_WATER || client.broken() {
                    break;
                }
                let State::Logs(cursor, follow) = &mut client.state else { break };
                let reply = match self.journal.next(cursor) {
                    Some(line) => Reply::Line(line),
                    None if *follow => break,
                    None => Reply::Done,
                };
                client.reply(&reply, now);
            }
            if let State::Settling(settling) = &mut client.state
                && settling.snapshot.is_none()
                && settling.again <= now
            {
                settling.snapshot = Some(self.pid1.want_snapshot());
            }
            if probe {
                client.probe();
            }
            client.expire(now);
        }
        self.connections.retain(|client| !client.broken());
        if let Some(console) = self.journal.console() {
            console.flush();
        }
    }

    /// The end: what PID 1 and the pipes still have is read and shown, and clients are told.
    fn leave(mut self) {
        self.hear();
        while let Some(unit) = self.sources.first().map(|source| source.unit) {
            self.drain(unit);
            self.sources.retain(|source| source.unit != unit);
        }
        let now = Instant::now();
        self.fail_waiting(&Failure::ShuttingDown, now);
        self.advance(now);
        for client in &mut self.connections {
            if matches!(client.state, State::Logs(_, true)) {
                client.reply(&Reply::Done, now);
                client.flush(now);
            }
        }
        let Some(console) = self.journal.console() else { return };
        while console.waits() && now.elapsed() < LAST_WORDS {
            let mut fds = [PollFd::from_borrowed_fd(console.fd(), PollFlags::OUT)];
            let timeout = Timespec::try_from(LAST_WORDS.saturating_sub(now.elapsed())).ok();
            let _ = poll(&mut fds, timeout.as_ref());
            console.flush();
        }
    }
}

fn find(connections: &mut [Connection], id: ClientId) -> Option<&mut Connection> {
    connections.iter_mut().find(|client| client.id == id)
}

fn is_root_or_us(socket: &OwnedFd) -> bool {
    let us = rustix::process::geteuid().as_raw();
    peer::user(rustix::fd::AsFd::as_fd(socket)).is_some_and(|user| user == 0 || user == us)
}
