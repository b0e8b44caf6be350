//! Socket units: open, watch, trigger, pause.

use super::limit::{Health, Limiter};
use super::socket_command::{Phase, Running};
use super::{Cause, JobKind, State, Supervisor, Turn, id};
use activator::control::{Event, MachineState, SocketState};
use activator::manifest::{self, ListenKind, UnitId, UnitKind};
use activator::wire;

/// The first delay before a listener that could not be opened is tried again.
const FIRST_RETRY_US: u64 = 100_000;
/// The longest.
const LAST_RETRY_US: u64 = 10_000_000;
/// When a watch that could not begin is tried again.
const WATCH_AGAIN_US: u64 = 1_000_000;
/// When an accept that found no fd or memory is tried again.
const ACCEPT_AGAIN_US: u64 = 500_000;
/// After so many tries (about three seconds) the unit goes on with what is open, or its start job has
/// failed if that is nothing; the tries go on.
const TRIES_OF_A_JOB: u32 = 5;

/// What a reload hands over as it stands: see "Reload" in the module above before you add a field.
#[derive(Debug)]
pub(super) struct Socket {
    pub(super) state: SocketState,
    pub(super) triggered: u64,
    pub(super) refused: u64,
    /// With Accept=yes, connections that got an instance. Written by `instance`.
    pub(super) accepted: u64,
    /// Retrying or paused until then.
    until: u64,
    /// Opens that failed in a row.
    tries: u32,
    /// Its own command that runs now. Written by `socket_command`, as the next three are.
    pub(super) command: Option<Running>,
    /// ExecStartPre= is done.
    pub(super) prepared: bool,
    /// ExecStartPost= is done.
    pub(super) posted: bool,
    /// A command failed, so the end is a failure.
    pub(super) failed: bool,
    trigger_limit: Limiter,
    listeners: Box<[Listener]>,
    /// When listeners that could not be opened are tried again while the others serve; 0 if none is
    /// missing.
    again: u64,
}

#[derive(Debug, Default)]
struct Listener {
    /// Whether the engine watches it. Written with every call of watch and unwatch, nowhere else.
    /// Nothing is watched any more after a reload.
    watched: bool,
    /// Not watched before that time, by its poll limit.
    until: u64,
    poll_limit: Limiter,
}

wire! {
    struct Socket {
        state, triggered, refused, accepted, until, tries, command, prepared, posted, failed,
        trigger_limit, listeners, again
    }
    struct Listener { until, poll_limit; without watched }
}

impl Default for Socket {
    fn default() -> Self {
        Self::new(&manifest::Socket::default())
    }
}

impl Socket {
    pub(super) fn new(socket: &manifest::Socket) -> Self {
        let listener = |_: &_| Listener {
            watched: false,
            until: 0,
            poll_limit: Limiter::new(socket.poll_limit),
        };
        Self {
            state: SocketState::Dead,
            triggered: 0,
            refused: 0,
            accepted: 0,
            until: 0,
            tries: 0,
            command: None,
            prepared: false,
            posted: false,
            failed: false,
            trigger_limit: Limiter::new(socket.trigger_limit),
            listeners: socket.listeners.iter().map(listener).collect(),
            again: 0,
        }
    }

    /// Takes the settings of the manifest after a reload; what has happened stays.
    pub(super) fn resume(&mut self, spec: &manifest::Socket) {
        self.trigger_limit.relimit(spec.trigger_limit);
        let mut listeners = std::mem::take(&mut self.listeners).into_vec();
        listeners.resize_with(spec.listeners.len(), Listener::default);
        listeners.iter_mut().for_each(|it| it.poll_limit.relimit(spec.poll_limit));
        self.listeners = listeners.into();
    }

    pub(super) fn deadline(&self) -> Option<u64> {
        let own = match self.state {
            SocketState::Retrying | SocketState::Paused => Some(self.until),
            SocketState::Listening => {
                let paused = self.listeners.iter().filter(|listener| !listener.watched);
                paused.map(|listener| listener.until).min()
            }
            SocketState::Starting | SocketState::Stopping => {
                self.command.and_then(|command| command.deadline)
            }
            SocketState::Dead | SocketState::Failed | SocketState::Running => None,
        };
        own.into_iter().chain(self.again()).min()
    }

    /// When what is missing is tried again.
    fn again(&self) -> Option<u64> {
        (self.again != 0 && self.is_up()).then_some(self.again)
    }

    /// All that can be opened is open, and its commands are done.
    pub(super) fn is_up(&self) -> bool {
        matches!(self.state, SocketState::Listening | SocketState::Running | SocketState::Paused)
    }

    /// The state that a status shows.
    pub(super) fn shown(&self) -> SocketState {
        let deaf = !self.listeners.iter().any(|listener| listener.watched);
        match self.state {
            SocketState::Listening if deaf => SocketState::Paused,
            SocketState::Listening if self.again != 0 => SocketState::Retrying,
            state => state,
        }
    }

    /// Counts a connection against the trigger limit, or says until when it has to wait.
    pub(super) fn take_trigger(&mut self, now: u64) -> Result<(), u64> {
        // One bad instance says nothing about the next: each has a client of its own.
        self.trigger_limit.take(now, Health::Good)
    }

    /// There was no connection after all.
    pub(super) fn give_back_trigger(&mut self) {
        self.trigger_limit.give_back();
    }

    /// Watches nothing until then.
    pub(super) fn pause(&mut self, turn: &mut Turn, unit: UnitId, until: u64) {
        self.unwatch(turn, unit);
        self.refused += 1;
        self.state = SocketState::Paused;
        self.until = until;
        turn.hands.tell(Some(unit), Event::Paused(until - turn.now));
    }

    /// A connection could not be accepted for want of fds or memory. It waits in the backlog.
    pub(super) fn retry_accept(&mut self, turn: &mut Turn, unit: UnitId, listener: u16, why: i32) {
        self.refused += 1;
        if let Some(listener) = self.listeners.get_mut(usize::from(listener)) {
            listener.until = turn.now.saturating_add(ACCEPT_AGAIN_US);
        }
        turn.hands.tell(Some(unit), Event::AcceptFailed(listener, why));
    }

    /// Tries to start again in a while, longer each time; how often it has been tried.
    pub(super) fn retry(&mut self, now: u64) -> u32 {
        self.until = self.next_try(now);
        self.state = SocketState::Retrying;
        self.tries
    }

    /// Counts a failure; when to try again.
    fn next_try(&mut self, now: u64) -> u64 {
        let delay = FIRST_RETRY_US << self.tries.min(7);
        self.tries = self.tries.saturating_add(1);
        self.refused += 1;
        now.saturating_add(delay.min(LAST_RETRY_US))
    }

    /// The unit is down: its next start is a new one.
    pub(super) fn forget(&mut self) {
        self.tries = 0;
        self.again = 0;
        self.command = None;
        self.prepared = false;
        self.posted = false;
        self.failed = false;
    }

    /// No listener waits for its next watch.
    pub(super) fn hurry(&mut self) {
        self.listeners.iter_mut().for_each(|listener| listener.until = 0);
    }

    /// Watches what is not watched, unless it is to wait. The error is a listener that never can
    /// be, such as a file of /proc without poll.
    fn watch(&mut self, turn: &mut Turn, unit: UnitId) -> Result<(), u16> {
        for (index, listener) in self.listeners.iter_mut().enumerate() {
            if !listener.watched && listener.until <= turn.now {
                match turn.hands.watch(unit, index as u16) {
                    Ok(()) => listener.watched = true,
                    Err(libc::EPERM) => return Err(index as u16),
                    Err(_) => listener.until = turn.now.saturating_add(WATCH_AGAIN_US),
                }
            }
        }
        Ok(())
    }

    pub(super) fn unwatch(&mut self, turn: &mut Turn, unit: UnitId) {
        for (index, listener) in self.listeners.iter_mut().enumerate() {
            if std::mem::take(&mut listener.watched) {
                turn.hands.unwatch(unit, index as u16);
            }
        }
    }
}

impl Supervisor<'_> {
    /// A start job of a socket unit has begun, or a retry is due.
    pub(super) fn start_socket(&mut self, turn: &mut Turn, unit: UnitId) {
        match self.socket(unit) {
            Some(socket) if socket.prepared => self.open(turn, unit),
            Some(_) => self.run_socket(turn, unit, Phase::StartPre(0)),
            None => {}
        }
    }

    /// Opens what is not open; then start-post, if that has not been yet.
    pub(super) fn open(&mut self, turn: &mut Turn, unit: UnitId) {
        let opened = turn.hands.open(unit);
        let Some(socket) = self.socket(unit) else { return };
        socket.again = 0;
        if let Err(failed) = opened {
            let tries = socket.retry(turn.now);
            turn.hands.tell(Some(unit), Event::OpenFailed(failed.listener, failed.errno));
            // One that served before goes on at once, as after a reload that adds a listener.
            let patient = tries < TRIES_OF_A_JOB && !socket.posted;
            if patient || !failed.others {
                if tries == TRIES_OF_A_JOB {
                    self.end_start(unit);
                    turn.hands.tell(Some(unit), Event::Failed);
                }
                return;
            }
            // Those who call at the others have waited long enough.
            socket.again = socket.until;
        }
        if socket.posted {
            self.socket_is_up(turn, unit);
        } else {
            self.run_socket(turn, unit, Phase::StartPost(0));
        }
    }

    /// What can be opened is open, and start-post is done.
    pub(super) fn socket_is_up(&mut self, turn: &mut Turn, unit: UnitId) {
        let UnitKind::Socket(spec) = &self.spec(unit).kind else { return };
        let Some(socket) = self.socket(unit) else { return };
        socket.posted = true;
        // Whether it is watched, `follow` decides.
        socket.state = SocketState::Running;
        if spec.listeners.iter().any(|listener| listener.kind == ListenKind::Special) {
            // At once: the start fails with what cannot be watched.
            self.follow(turn, unit);
        }
        let Some(socket) = self.socket(unit).filter(|socket| socket.is_up()) else { return };
        if socket.again == 0 {
            socket.tries = 0;
            turn.hands.tell(Some(unit), Event::Listening);
        }
        self.end_start(unit);
    }

    /// Tries again what is missing while the others serve.
    fn open_missing(&mut self, turn: &mut Turn, unit: UnitId) {
        let Some(socket) = self.socket(unit) else { return };
        // What opens now was no more than taken for watched. `follow` begins anew.
        socket.unwatch(turn, unit);
        match turn.hands.open(unit) {
            Ok(()) => {
                (socket.again, socket.tries) = (0, 0);
                turn.hands.tell(Some(unit), Event::Listening);
            }
            Err(failed) => {
                socket.again = socket.next_try(turn.now);
                turn.hands.tell(Some(unit), Event::OpenFailed(failed.listener, failed.errno));
            }
        }
    }

    /// A start job is over. Neither a stop that waits for its turn while a retry goes on is touched,
    /// nor a start that waits for the end of a stop.
    pub(super) fn end_start(&mut self, unit: UnitId) {
        let job = &mut self.units[unit.index()].job;
        if job.is_some_and(|job| job.kind == JobKind::Start && job.begun) {
            *job = None;
        }
    }

    /// A stop job has begun.
    pub(super) fn close(&mut self, turn: &mut Turn, unit: UnitId) {
        let Some(socket) = self.socket(unit) else { return };
        match socket.state {
            SocketState::Starting | SocketState::Stopping => self.abort_start(turn, unit),
            _ => {
                socket.unwatch(turn, unit);
                self.run_socket(turn, unit, Phase::StopPre(0));
            }
        }
    }

    /// Somebody shut a listener down, so it is worth nothing any more.
    pub(super) fn reopen(&mut self, turn: &mut Turn, unit: UnitId, listener: u16) {
        let Some(socket) = self.socket(unit) else { return };
        if !socket.listeners.get(usize::from(listener)).is_some_and(|listener| listener.watched) {
            return;
        }
        socket.unwatch(turn, unit);
        turn.hands.close(unit);
        socket.state = SocketState::Retrying;
        socket.again = 0;
        socket.tries = 1;
        socket.until = turn.now.saturating_add(FIRST_RETRY_US);
        turn.hands.tell(Some(unit), Event::OpenFailed(listener, libc::EPIPE));
    }

    /// A watched listener is readable: its service gets a start job, or the socket pauses.
    pub(super) fn trigger(&mut self, turn: &mut Turn, unit: UnitId, listener: u16) {
        let UnitKind::Socket(spec) = &self.spec(unit).kind else { return };
        let health = self.health(spec.service);
        let held = self.start_held(turn.now, spec.service);
        let stopping = self.machine == MachineState::Stopping;
        let idle = self.watches_idle(spec.service);
        let Some(socket) = self.socket(unit) else { return };
        let Some(hit) = socket.listeners.get_mut(usize::from(listener)) else { return };
        if !std::mem::take(&mut hit.watched) {
            // An event of the same round as the one that ended the watch.
            return;
        }
        // The edge is used up. Only a new watch finds this connection again.
        turn.hands.unwatch(unit, listener);
        if stopping {
            return;
        }
        if idle {
            let until = self.note_busy(turn, spec.service);
            let listeners = self.socket(unit).map(|socket| &mut socket.listeners);
            if let Some(hit) = listeners.and_then(|all| all.get_mut(usize::from(listener))) {
                hit.until = until;
            }
            return;
        }
        if let Err(until) = hit.poll_limit.take(turn.now, health) {
            hit.until = until;
            socket.refused += 1;
            turn.hands.tell(Some(unit), Event::Paused(until - turn.now));
            return;
        }
        if spec.accept.is_some() {
            return self.take_connections(turn, unit, listener);
        }
        let held = held.or_else(|| socket.trigger_limit.take(turn.now, health).err());
        if let Some(until) = held {
            return socket.pause(turn, unit, until);
        }
        socket.triggered += 1;
        turn.hands.tell(Some(unit), Event::Triggered(listener));
        self.start(spec.service, Cause::Machine);
    }

    pub(super) fn socket_tick(&mut self, turn: &mut Turn, unit: UnitId) {
        let now = turn.now;
        let Some(socket) = self.socket(unit) else { return };
        if socket.deadline().is_none_or(|until| now < until) {
            return;
        }
        let missing = socket.again().is_some_and(|again| again <= now);
        match socket.state {
            SocketState::Starting | SocketState::Stopping => {
                self.socket_command_timed_out(turn, unit);
            }
            SocketState::Retrying => self.start_socket(turn, unit),
            SocketState::Paused if socket.until <= now => socket.state = SocketState::Running,
            // A listener's own pause is over: `follow` sees to it.
            _ => {}
        }
        if missing {
            self.open_missing(turn, unit);
        }
    }

    /// Watches the listeners of a socket whose service is gone, and only those. Instances are in
    /// nobody's way.
    pub(super) fn follow(&mut self, turn: &mut Turn, unit: UnitId) {
        let UnitKind::Socket(spec) = &self.spec(unit).kind else { return };
        let gone = (spec.accept.is_some() || self.is_gone(spec.service))
            && self.machine != MachineState::Stopping;
        let stopping = self.units[unit.index()].job.is_some_and(|job| job.kind != JobKind::Start);
        let idle = self.watches_idle(spec.service);
        let Some(socket) = self.socket(unit) else { return };
        let watched = match socket.state {
            SocketState::Dead
            | SocketState::Failed
            | SocketState::Retrying
            | SocketState::Starting
            | SocketState::Stopping => return,
            // Its listeners are watched for another reason: see `idle`.
            _ if idle && !stopping => {
                socket.state = SocketState::Running;
                socket.watch(turn, unit)
            }
            _ if !gone || stopping => {
                socket.unwatch(turn, unit);
                // A pause goes on, but the service that somebody else started has the socket.
                socket.state = SocketState::Running;
                return;
            }
            SocketState::Paused => return,
            SocketState::Listening | SocketState::Running => {
                let flush = spec.flush_pending && spec.accept.is_none();
                if socket.state == SocketState::Running && flush {
                    turn.hands.flush(unit);
                }
                socket.state = SocketState::Listening;
                socket.watch(turn, unit)
            }
        };
        if let Err(listener) = watched {
            socket.failed = true;
            turn.hands.tell(Some(unit), Event::WatchFailed(listener, libc::EPERM));
            self.close(turn, unit);
        }
    }

    /// Notes when the last socket of the boot has opened. One whose start job was given up is not
    /// waited for: its address may never come.
    pub(super) fn note_listening(&mut self, now: u64) {
        if self.listening_us != 0 {
            return;
        }
        let waits = |index: usize| {
            let unit = &self.units[index];
            unit.boot
                && unit.job.is_some()
                && matches!(unit.state, State::Socket(_))
                && !self.is_open(id(index))
        };
        if !(0..self.units.len()).any(waits) {
            self.listening_us = now;
        }
    }

    pub(super) fn socket(&mut self, unit: UnitId) -> Option<&mut Socket> {
        match &mut self.units.get_mut(unit.index())?.state {
            State::Socket(socket) => Some(socket),
            _ => None,
        }
    }
}
