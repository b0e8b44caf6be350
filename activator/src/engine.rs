//! The loop: fds, signals and the clock become events of the state machine.
//!
//! In one round the order is: notify messages (a service that said READY=1 and ended did become
//! ready), signals (children that ended), cgroups, listeners, orders, and time.

use crate::adopted::Adopted;
use crate::cgroup::{self, Tree};
use crate::connection::{Connections, Variables};
use crate::execs::Execs;
use crate::files::{make_directories, parent};
use crate::idle;
use crate::link::{Link, Taken};
use crate::listeners::Listeners;
use crate::logger::Logger;
use crate::notify::{self, Message, Notify};
use crate::program::{OwnProgram, Program, Setting, Surroundings, needs_stage2};
use crate::reload::kept::Kept;
use crate::reload::state::Place;
use crate::seal;
use crate::slots::Slots;
use crate::spawn::Spawner;
use crate::store::Store;
use crate::supervise::{Fate, Supervisor};
use crate::sys::{self, Signals};
use crate::token::Token;
use crate::users;
use crate::world::World;
use activator::control::{Event, Exit, Order, Programs};
use activator::manifest::{Execution, Manifest, Output, Service, Unit, UnitId, UnitKind};
use activator::notification::{Keep, Notification};
use activator::stage2::{self, Need, Next};
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll};
use rustix::fs::{self, CWD, Mode, OFlags};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::time::{ClockId, clock_gettime};
use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::Duration;

/// Events that one round takes; more wait for the next.
const EVENTS: usize = 64;
/// Messages of one service, and ended processes, that one round takes. More wait for the next, so
/// that nobody who sends, or forks, without end keeps PID 1 from the others.
const TURN: usize = 64;
/// How long logd may take to write its last lines, in microseconds.
const LAST_LINES_US: u64 = 2_000_000;

/// What the engine is started with.
pub(crate) struct Start {
    pub(crate) manifest: &'static Manifest,
    /// The manifest's bytes, for the next reload.
    pub(crate) copy: OwnedFd,
    pub(crate) place: Place,
    /// Whether the host may ask over vsock.
    pub(crate) vsock: Vsock,
    /// Where logd writes lines for people.
    pub(crate) console: OwnedFd,
}

/// Whether there is a control port on vsock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Vsock {
    Listen,
    Leave,
}

/// Why the engine could not start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StartError {
    /// Completes "failed to".
    pub(crate) what: &'static str,
    pub(crate) errno: i32,
}

impl core::fmt::Display for StartError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "failed to {}: {}", self.what, std::io::Error::from_raw_os_error(self.errno))
    }
}

/// Where the end of the run has come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Up,
    /// Everything has stopped, logd writes its last lines until then at most.
    LastLines(u64),
    Over,
}

/// The supervisor, its hands and what wakes them.
pub(crate) struct Engine {
    pub(crate) supervisor: Supervisor<'static>,
    pub(crate) world: World,
    pub(crate) logger: Logger,
    pub(crate) place: Place,
    /// argv\[0\] for the next process.
    pub(crate) name: CString,
    /// The bytes of the manifest that is in force.
    pub(crate) copy: OwnedFd,
    /// logd is of another version, and has to go when it knows all that we know.
    pub(crate) retires_logd: bool,
    signals: OwnedFd,
    poll: Poll,
    events: Events,
    stage: Stage,
    /// A round has left children unreaped, so the next does not wait.
    unreaped: bool,
    /// The link is watched for room, too. Written by `watch_link` alone.
    watches_room: bool,
}

/// CLOCK_BOOTTIME in microseconds.
pub(crate) fn now() -> u64 {
    let time = clock_gettime(ClockId::Boottime);
    (time.tv_sec as u64).saturating_mul(1_000_000).saturating_add(time.tv_nsec as u64 / 1000)
}

impl Engine {
    /// Makes all tables, with what is kept of the process before. Troubles that do not prevent a
    /// start are handed to `trouble`. If this fails, nothing that is kept was touched.
    pub(crate) fn new(
        start: Start,
        supervisor: Supervisor<'static>,
        kept: &mut Kept,
        trouble: &mut dyn FnMut(&str),
    ) -> Result<Self, StartError> {
        let Start { manifest, copy, place, vsock, console } = start;
        let signals = [libc::SIGCHLD, libc::SIGTERM, libc::SIGINT, libc::SIGPWR, libc::SIGHUP];
        let signals =
            sys::signal_fd(&Signals::new(&signals)).or_else(|e| fail("block signals", e))?;
        let poll = Poll::new().or_else(|e| fail_io("make an epoll instance", e))?;
        let registry = poll.registry().try_clone().or_else(|e| fail_io("copy an epoll fd", e))?;
        let directory = format!("{}/notify", parent(&place.control));
        make_directories(&directory);
        users::make_directories_of(manifest, trouble);
        let slots = Slots::new(manifest);
        let null = || fs::openat(CWD, c"/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty());
        let null = null().or_else(|e| fail("open /dev/null", e))?;
        let name = CString::new(place.name.as_str()).unwrap_or_else(|_| c"activator".into());
        let (activator, path) = (place.activator.as_str(), place.path.as_str());
        let setting = Setting { manifest, activator, path, notify: &directory };
        let programs = manifest.units.iter().map(|unit| {
            let Some(execution) = execution(unit) else { return Ok(None) };
            let program = Program::new(&setting, unit, execution)?;
            Ok(Some((program, Surroundings::new(execution)?)))
        });
        let programs = programs.collect::<Result<_, _>>().or_else(|_: std::ffi::NulError| {
            fail("prepare a command with a NUL in it", Errno::INVAL)
        })?;
        let check = |unit: &Unit| match unit.conditions.is_empty() {
            true => Ok(None),
            false => OwnProgram::conditions(&setting, unit).map(Some),
        };
        let checks = manifest.units.iter().map(check).collect::<Result<_, _>>();
        let checks = checks.or_else(|_: std::ffi::NulError| {
            fail("prepare a check with a NUL in it", Errno::INVAL)
        })?;
        let adopted = Adopted::new(manifest, slots.len());
        let adopted = adopted.or_else(|_| fail("use a PIDFile= with a NUL in it", Errno::INVAL))?;
        let link = match kept.link.as_ref().and_then(Link::take_over) {
            Some(link) => link,
            None => Link::new().or_else(|e| fail("make a socket pair", e))?,
        };
        let is_first = kept.is_empty();
        let logs = manifest.units.iter().enumerate().map(|(index, unit)| {
            // What stage 2 has to say is said there, whatever the program's streams are.
            let wants = execution(unit).is_some_and(|it| {
                [&it.stdout, &it.stderr].contains(&&Output::Log) || needs_stage2(unit, it)
            });
            let old = kept.log(UnitId(index as u16));
            match old.is_none() && wants {
                true => pipe_with(PipeFlags::CLOEXEC).map(Some),
                // Whoever has its other end still writes to it.
                false => Ok(old),
            }
            // A service without a log is better than an activator that gives up what runs.
            .or_else(|errno| if is_first { Err(errno) } else { Ok(None) })
        });
        let logs: Box<[_]> = logs.collect::<Result<_, _>>().or_else(|e| fail("make a pipe", e))?;
        let logger = Logger::new(&place, vsock, console, &logs, kept.logger.as_ref(), trouble)?;
        let store = |(index, unit): (usize, &Unit)| match &unit.kind {
            UnitKind::Service(service) => {
                let mut store = Store::new(service)?;
                store.take_over(&registry, UnitId(index as u16), kept.store(index));
                Some(store)
            }
            _ => None,
        };
        let stores = manifest.units.iter().enumerate().map(store).collect();
        let cleaner = |unit: &Unit| match stage2::need_of_cleaning(unit) {
            Need::Killed | Need::Always => {
                let program = |next| OwnProgram::clean(&setting, unit, next);
                Ok(Some([program(Next::Restart)?, program(Next::Stop)?]))
            }
            Need::Never => Ok(None),
        };
        let cleaners = manifest.units.iter().map(cleaner).collect::<Result<_, _>>();
        let cleaners = cleaners.or_else(|_: std::ffi::NulError| {
            fail("prepare a cleaner with a NUL in it", Errno::INVAL)
        })?;
        let mut make_notify = |id: UnitId, place: &str, service: &Service| {
            let wants = notify::is_wanted(service);
            // Without it the service is never ready, which is its own trouble and nobody else's.
            let notify = match kept.notify(id) {
                Some(fd) => Ok(Some(Notify::of(fd, &directory, place, service))),
                None => wants.then(|| Notify::new(&directory, place, service)).transpose(),
            };
            let notify = notify.map_err(|errno| {
                trouble(&format!("{place}: failed to make its notify socket: {errno}"));
            });
            notify.unwrap_or_default()
        };
        let notifies = (0..slots.len()).map(|index| {
            let unit = UnitId(index as u16);
            let source = manifest.unit(slots.source(unit))?;
            let place = manifest.place(source);
            match &source.kind {
                UnitKind::Service(service) if slots.owner(unit).is_some() => make_notify(
                    unit,
                    &Notify::instance_place(&place, slots.position(unit)),
                    service,
                ),
                UnitKind::Service(service) => make_notify(unit, &place, service),
                _ => None,
            }
        });
        let notifies = notifies.collect();
        let tree = if is_first { Tree::New } else { Tree::Ours };
        let (groups, troubles) = cgroup::make_all(manifest, &slots, tree);
        troubles.iter().chain(&slots.troubles(manifest)).for_each(|text| trouble(text));
        idle::troubles(manifest, &groups).iter().for_each(|text| trouble(text));
        // An instance gets one.
        let most = most_fds(manifest).max(logger.fds()).max(1);
        let sessions = (0..slots.len()).map(|index| kept.sessions(index));
        let world = World {
            manifest,
            connections: Connections::new(slots.len(), |slot| kept.connection(slot)),
            variables: Variables::new(),
            registry,
            listeners: Listeners::new(manifest, |unit, listener| kept.listener(unit, listener)),
            programs,
            checks,
            cleaners,
            adopted,
            execs: Execs::new(slots.len()),
            stores,
            notifies,
            groups,
            sessions: sessions.collect(),
            emptied: vec![0; slots.len()].into(),
            round: 1,
            slots,
            logs,
            // One more is for the word of the exec.
            spawner: Spawner::new(most + 1, place.files),
            null,
            link,
        };
        let events = Events::with_capacity(EVENTS);
        let (stage, unreaped, retires_logd) = (Stage::Up, false, false);
        let mut engine = Self {
            supervisor,
            world,
            logger,
            place,
            name,
            copy,
            retires_logd,
            signals,
            poll,
            events,
            stage,
            unreaped,
            watches_room: false,
        };
        engine.world.ready_groups();
        match engine.register() {
            Err(error) if !is_first => trouble(&error.to_string()),
            registered => registered?,
        }
        Ok(engine)
    }

    fn register(&self) -> Result<(), StartError> {
        let add = |fd: BorrowedFd, token: Token, interest| {
            let fd = fd.as_raw_fd();
            let added = self.world.registry.register(&mut SourceFd(&fd), token.into(), interest);
            added.or_else(|error| fail_io("watch an fd", error))
        };
        add(self.signals.as_fd(), Token::Signals, Interest::READABLE)?;
        add(self.world.link.ours(), Token::Link, Interest::READABLE)?;
        for index in 0..self.world.slots.len() {
            let unit = UnitId(index as u16);
            if let Some(notify) = &self.world.notifies[index] {
                add(notify.fd(), Token::Notify(unit), Interest::READABLE)?;
            }
            if let Some(group) = &self.world.groups[index] {
                add(group.events(), Token::Group(unit), Interest::PRIORITY)?;
            }
        }
        Ok(())
    }

    /// Boots the units and runs until everything has stopped. `log` is where the allocator
    /// complains, see [`seal`].
    pub(crate) fn run(&mut self, log: i32) {
        seal::seal(log);
        self.logger.start(now(), &mut self.world);
        self.supervisor.boot(now(), &mut self.world);
        self.serve();
    }

    /// The same after a reload; one fate for each unit.
    pub(crate) fn go_on(&mut self, fates: &[Fate], log: i32) {
        seal::seal(log);
        // Whoever ended meanwhile has left nothing but a signal that waits.
        self.unreaped = true;
        self.supervisor.go_on(now(), &mut self.world, fates);
        self.serve();
    }

    fn serve(&mut self) {
        while self.stage != Stage::Over {
            self.round();
        }
    }

    fn round(&mut self) {
        let deadlines = [
            self.supervisor.deadline(),
            self.logger.deadline(),
            match self.stage {
                Stage::LastLines(until) => Some(until),
                _ => None,
            },
        ];
        self.world.link.flush();
        self.watch_link();
        let wait = deadlines.into_iter().flatten().min();
        let wait = wait.map(|deadline| Duration::from_micros(deadline.saturating_sub(now())));
        let wait = if self.unreaped { Some(Duration::ZERO) } else { wait };
        if self.poll.poll(&mut self.events, wait).is_err() {
            // EINTR; anything else leaves the events of the last round, which are harmless.
            self.events.clear();
        }
        let now = now();
        self.world.begin_round();
        self.hear_services(now);
        self.hear_signals(now);
        self.hear_fds(now);
        self.hear_orders(now);
        self.supervisor.tick(now, &mut self.world);
        self.logger.tick(now, &mut self.world);
        self.go_down(now);
        if self.retires_logd && self.world.link.is_announced() {
            self.retires_logd = false;
            self.logger.retire();
        }
    }

    /// What waits for room in the link's buffer is sent when there is some.
    fn watch_link(&mut self) {
        let waits = self.world.link.waits();
        if waits == self.watches_room {
            return;
        }
        let interest = match waits {
            true => Interest::READABLE | Interest::WRITABLE,
            false => Interest::READABLE,
        };
        let fd = self.world.link.ours().as_raw_fd();
        let source = &mut SourceFd(&fd);
        // It fails for no fd that is watched; room that is there already is told as well.
        if self.world.registry.reregister(source, Token::Link.into(), interest).is_ok() {
            self.watches_room = waits;
        }
    }

    fn hear_services(&mut self, now: u64) {
        for event in &self.events {
            let Token::Notify(unit) = event.token().into() else { continue };
            let Some(Some(notify)) = self.world.notifies.get(unit.index()) else { continue };
            let fd = notify.fd().as_raw_fd();
            for left in (0..TURN).rev() {
                let Some(Some(notify)) = self.world.notifies.get(unit.index()) else { break };
                let Some(message) = notify.receive() else { break };
                if left == 0 {
                    // What waits still gives no new edge; this looks for it. It fails for no fd
                    // that is watched.
                    let token = Token::Notify(unit).into();
                    let source = &mut SourceFd(&fd);
                    let _ = self.world.registry.reregister(source, token, Interest::READABLE);
                }
                if self.supervisor.hears(unit, message.sender) {
                    hear_message(&mut self.supervisor, &mut self.world, now, unit, message);
                }
            }
        }
    }

    fn hear_signals(&mut self, now: u64) {
        let mut children = std::mem::take(&mut self.unreaped);
        let signalled = self.events.iter().any(|it| Token::from(it.token()) == Token::Signals);
        while signalled && let Some(signal) = sys::next_signal(self.signals.as_fd()) {
            match signal {
                libc::SIGCHLD => children = true,
                libc::SIGHUP if self.place.source.is_some() => self.world.link.reread(),
                // PID 1 of an appliance has no file that could have changed.
                libc::SIGHUP => {}
                _ => self.supervisor.shut_down(now, &mut self.world),
            }
        }
        if !children {
            return;
        }
        self.unreaped = true;
        for _ in 0..TURN {
            let Some((pid, status)) = sys::reap() else {
                self.unreaped = false;
                break;
            };
            if self.logger.reaped(now, pid, &mut self.world) {
                continue;
            }
            // What nobody knows is an orphan, and has now been reaped.
            self.supervisor.reaped(now, &mut self.world, pid, exit(status));
        }
        self.supervisor.emptied(now, &mut self.world);
    }

    fn hear_fds(&mut self, now: u64) {
        let mut emptied = false;
        for event in &self.events {
            match event.token().into() {
                Token::Group(_) | Token::Adopted(_) => emptied = true,
                Token::Stored(unit) => {
                    if let Some(Some(store)) = self.world.stores.get_mut(unit.index()) {
                        store.drop_hung_up(&self.world.registry);
                    }
                }
                Token::Exec(unit) if self.world.execs.is_done(unit) => {
                    self.supervisor.executed(now, &mut self.world, unit);
                }
                Token::Listener(unit, listener) => {
                    // EPOLLHUP or EPOLLRDHUP: shutdown(2) was called on it, so it is readable for
                    // ever, with nothing to accept. (EPOLLERR alone is an ICMP error on a UDP
                    // socket.)
                    if event.is_read_closed() {
                        self.supervisor.hung_up(now, &mut self.world, unit, listener);
                    } else {
                        self.supervisor.triggered(now, &mut self.world, unit, listener);
                    }
                }
                _ => {}
            }
        }
        if emptied {
            self.supervisor.emptied(now, &mut self.world);
        }
    }

    fn hear_orders(&mut self, now: u64) {
        let heard = self.events.iter().any(|event| Token::from(event.token()) == Token::Link);
        if !heard {
            return;
        }
        while let Some(order) = self.world.link.next_order(&self.supervisor, now) {
            let known = |unit: UnitId| self.world.manifest.unit(unit).is_some();
            let taken = match order {
                Order::Start(unit) if known(unit) => {
                    self.supervisor.order_start(now, &mut self.world, unit)
                }
                Order::Stop(unit) if known(unit) => {
                    self.supervisor.order_stop(now, &mut self.world, unit)
                }
                Order::Restart(unit) if known(unit) => {
                    self.supervisor.order_restart(now, &mut self.world, unit)
                }
                Order::ReloadUnit(unit) if known(unit) => {
                    self.supervisor.order_reload(now, &mut self.world, unit)
                }
                Order::Poweroff => {
                    self.supervisor.shut_down(now, &mut self.world);
                    true
                }
                Order::Replace { .. } if self.stage == Stage::Up => {
                    // Returns only if it failed.
                    let [manifest, init, activator] = self.world.link.take_goods();
                    let programs = init.zip(activator);
                    let programs = programs.map(|(init, activator)| Programs { init, activator });
                    self.replace(manifest, programs);
                    self.world.link.refuse_replace();
                    continue;
                }
                _ => false,
            };
            self.world.link.answer(if taken { Taken::Yes } else { Taken::GoingDown });
        }
    }

    fn go_down(&mut self, now: u64) {
        match self.stage {
            Stage::Up if self.supervisor.is_shut_down() => {
                let until = now.saturating_add(LAST_LINES_US);
                self.world.link.flush();
                self.logger.stop();
                self.stage = Stage::LastLines(until);
                self.go_down(now);
            }
            Stage::LastLines(until) if self.logger.is_gone() || now >= until => {
                self.logger.kill();
                self.stage = Stage::Over;
            }
            _ => {}
        }
    }
}

/// One message of a service that may speak.
fn hear_message(
    supervisor: &mut Supervisor,
    world: &mut World,
    now: u64,
    unit: UnitId,
    message: Message,
) {
    if let (Some(keep), Some(Some(store))) = (message.keep, world.stores.get_mut(unit.index())) {
        match keep {
            Keep::Remove(name) => store.remove(&world.registry, &name),
            Keep::Add(name, watch) => {
                for fd in message.fds {
                    if !store.add(&world.registry, unit, fd, &name, watch) {
                        world.link.tell(Some(unit), Event::StoreFull);
                    }
                }
            }
        }
    }
    let spec = world.manifest.unit(world.slots.source(unit));
    let main_pid = message.said.main_pid.filter(|pid| may_be_main(*pid, spec));
    let ours = |at: u64| at.saturating_add(sleep_us());
    let reloading = message.said.reloading.map(|at| at.map(ours));
    let said = Notification { main_pid, reloading, ..message.said };
    supervisor.notified(now, world, unit, &said);
}

/// By how much CLOCK_BOOTTIME is ahead of CLOCK_MONOTONIC: the time that the machine has slept.
fn sleep_us() -> u64 {
    let time = clock_gettime(ClockId::Monotonic);
    let monotonic =
        (time.tv_sec as u64).saturating_mul(1_000_000).saturating_add(time.tv_nsec as u64 / 1000);
    now().saturating_sub(monotonic)
}

/// Whether a service may name that process as its main one: it exists, and belongs to the
/// service's user if that is not root. Otherwise a service could have us kill anybody's.
pub(crate) fn may_be_main(pid: u32, unit: Option<&Unit>) -> bool {
    let Some(Unit { kind: UnitKind::Service(service), .. }) = unit else { return false };
    let mut path = [0; 24];
    let mut digits = [0; 10];
    let parts = [b"/proc/", crate::program::decimal(pid, &mut digits)];
    // The last byte stays 0.
    for (to, from) in path.iter_mut().zip(parts.into_iter().flatten()) {
        *to = *from;
    }
    let Ok(path) = std::ffi::CStr::from_bytes_until_nul(&path) else { return false };
    let Ok(stat) = fs::stat(path) else { return false };
    service.execution.user.as_ref().is_none_or(|user| user.uid == 0 || user.uid == stat.st_uid)
}

fn exit(status: i32) -> Exit {
    if libc::WIFEXITED(status) {
        Exit::Code(libc::WEXITSTATUS(status) as u8)
    } else if libc::WCOREDUMP(status) {
        Exit::Dumped(libc::WTERMSIG(status))
    } else {
        Exit::Signal(libc::WTERMSIG(status))
    }
}

fn most_fds(manifest: &Manifest) -> usize {
    let fds = |unit: &Unit| match &unit.kind {
        UnitKind::Service(service) => {
            let listeners =
                service.sockets.iter().map(|id| match manifest.unit(*id).map(|it| &it.kind) {
                    Some(UnitKind::Socket(socket)) => socket.listeners.len(),
                    _ => 0,
                });
            listeners.sum::<usize>() + Store::room(service)
        }
        UnitKind::Socket(socket) => socket.listeners.len(),
        UnitKind::Target => 0,
    };
    manifest.units.iter().map(fds).max().unwrap_or(0)
}

/// How the commands of a unit run, if it has any.
fn execution(unit: &Unit) -> Option<&Execution> {
    match &unit.kind {
        UnitKind::Service(service) => Some(&service.execution),
        UnitKind::Socket(socket) => {
            let lists =
                [&socket.start_pre, &socket.start_post, &socket.stop_pre, &socket.stop_post];
            let any = lists.into_iter().any(|commands| !commands.is_empty());
            any.then_some(&socket.execution)
        }
        UnitKind::Target => None,
    }
}

fn fail<T>(what: &'static str, errno: Errno) -> Result<T, StartError> {
    Err(StartError { what, errno: errno.raw_os_error() })
}

fn fail_io<T>(what: &'static str, error: std::io::Error) -> Result<T, StartError> {
    Err(StartError { what, errno: error.raw_os_error().unwrap_or(libc::EIO) })
}
