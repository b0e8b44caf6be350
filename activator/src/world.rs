//! The hands of the state machine: fds, children, cgroups.

use crate::adopted::Adopted;
use crate::cgroup::{self, Entry, Group};
use crate::connection::{Connections, Pointers, Variables};
use crate::execs::Execs;
use crate::link::Link;
use crate::listen;
use crate::listeners::Listeners;
use crate::notify::Notify;
use crate::program::{Moment, OwnProgram, Program, Surroundings};
use crate::slots::Slots;
use crate::sock_diag;
use crate::sources::Sources;
use crate::spawn::{Child, Plan, Spawner, Stream};
use crate::store::Store;
use crate::supervise::{
    Accepted, Executed, Found, Freeze, Hands, OpenFailed, Spawned, Step, Told, Whom,
};
use crate::sys;
use crate::token::Token;
use activator::control::Event;
use activator::manifest::{
    Input, Manifest, Output, Service, ServiceKind, Socket, UnitId, UnitKind,
};
use activator::stage2::Next;
use mio::unix::SourceFd;
use mio::{Interest, Registry};
use rustix::event::{PollFd, PollFlags};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

/// A pipe for a service's log: the end to read, which logd gets, and the end to write.
pub(crate) type LogPipe = (OwnedFd, OwnedFd);

/// Everything outside that the supervisor acts on. All tables have one entry for each unit, at
/// its index. `notifies`, `groups` and `sessions` have one for each slot of an instance as well.
pub(crate) struct World {
    pub(crate) manifest: &'static Manifest,
    pub(crate) slots: Slots,
    pub(crate) connections: Connections,
    pub(crate) variables: Variables,
    pub(crate) registry: Registry,
    pub(crate) listeners: Listeners,
    pub(crate) programs: Box<[Option<(Program, Surroundings)>]>,
    /// What looks at a unit's conditions, for units of any kind that have some.
    pub(crate) checks: Box<[Option<OwnProgram>]>,
    /// What cleans up after a service, for those that leave something: before a restart, and at
    /// the end.
    pub(crate) cleaners: Box<[Option<[OwnProgram; 2]>]>,
    pub(crate) adopted: Adopted,
    pub(crate) execs: Execs,
    pub(crate) stores: Box<[Option<Store>]>,
    pub(crate) notifies: Box<[Option<Notify>]>,
    pub(crate) groups: Box<[Option<Group>]>,
    /// Without cgroups: the process groups of the main and the control process; 0 is none. A
    /// process that leaves its process group is not found again, which is why cgroups are better.
    pub(crate) sessions: Box<[[i32; 2]]>,
    /// In which round a cgroup was last seen empty. One round asks for it several times.
    pub(crate) emptied: Box<[u64]>,
    /// The number of the engine's round, from 1 on.
    pub(crate) round: u64,
    pub(crate) logs: Box<[Option<LogPipe>]>,
    pub(crate) spawner: Spawner,
    /// /dev/null, for reading and writing.
    pub(crate) null: OwnedFd,
    pub(crate) link: Link,
}

impl World {
    fn socket(&self, unit: UnitId) -> Option<&'static Socket> {
        match &self.manifest.unit(unit)?.kind {
            UnitKind::Socket(socket) => Some(socket),
            _ => None,
        }
    }

    /// User and group of the nodes that a user's socket unit makes; None is root.
    pub(crate) fn rights(&self, unit: UnitId) -> Option<(u32, u32)> {
        let user = self.manifest.user_of(self.manifest.unit(unit)?)?;
        // Without privileges nobody else's rights can be taken.
        rustix::process::geteuid().is_root().then_some((user.ids.uid, user.ids.gid))
    }

    /// The service's settings, or those of an instance's template.
    fn service(&self, unit: UnitId) -> Option<&'static Service> {
        match &self.manifest.unit(self.slots.source(unit))?.kind {
            UnitKind::Service(service) => Some(service),
            _ => None,
        }
    }

    /// What was asked of the kernel in the round before is asked anew.
    pub(crate) fn begin_round(&mut self) {
        self.round += 1;
    }

    /// After a reload: opens the cgroups of the instances that run.
    pub(crate) fn ready_groups(&mut self) {
        for index in self.manifest.units.len()..self.slots.len() {
            if self.sessions.get(index).is_some_and(|sessions| *sessions != [0; 2]) {
                self.ready_group(UnitId(index as u16));
            }
        }
    }

    /// Makes the cgroup of a slot, if it is the first instance there. Without one the instance
    /// goes by its process group.
    fn ready_group(&mut self, unit: UnitId) {
        let source = self.slots.source(unit);
        let (Some(Some(template)), Some(None)) =
            (self.groups.get(source.index()), self.groups.get(unit.index()))
        else {
            return;
        };
        let Some(service) = self.service(unit) else { return };
        let position = self.slots.position(unit);
        let Ok(group) = template.make_instance(position, service) else { return };
        let source = group.events().as_raw_fd();
        let token = Token::Group(unit).into();
        let watched = self.registry.register(&mut SourceFd(&source), token, Interest::PRIORITY);
        // Unwatched it would never be found empty.
        if watched.is_ok() {
            self.groups[unit.index()] = Some(group);
        }
    }
}

impl World {
    /// Makes the child that looks at a unit's conditions, or cleans up after it. It is in no
    /// cgroup of a service, so that no stop waits for it.
    fn spawn_own(&mut self, unit: UnitId, step: Step) -> Result<Spawned, i32> {
        let source = self.slots.source(unit).index();
        let connection = self.connections.of(unit.index());
        let variables = connection.map(|connection| self.variables.fill(connection));
        let instance = variables.as_ref().and_then(|variables| variables.first().copied());
        let program = match step {
            Step::Clean(next) => {
                let cleaners = self.cleaners.get_mut(source).and_then(Option::as_mut);
                cleaners.map(|[restart, stop]| match next {
                    Next::Restart => restart,
                    Next::Stop => stop,
                })
            }
            _ => self.checks.get_mut(source).and_then(Option::as_mut),
        };
        let program = program.ok_or(libc::EINVAL)?;
        let null = Stream::Fd(self.null.as_raw_fd());
        let log = self.logs.get(source).and_then(Option::as_ref);
        let said = log.map_or(null, |(_, write)| Stream::Fd(write.as_raw_fd()));
        let plan = Plan {
            ready: program.ready(instance),
            streams: [null, said, said],
            non_blocking: None,
            listeners: 0,
            cgroup: Entry::Nowhere,
            directory: c"/",
            oom_score: None,
            execution: None,
        };
        let child = self.spawner.spawn(&plan, std::iter::empty());
        let child = child.map_err(|errno| errno.raw_os_error())?;
        Ok(Spawned { pid: child.pid, executed: executed(&child) })
    }
}

impl Hands for World {
    fn open(&mut self, unit: UnitId) -> Result<(), OpenFailed> {
        let Some(socket) = self.socket(unit) else { return Ok(()) };
        sys::with_rights_of(self.rights(unit), || self.listeners.open(unit, socket))
    }

    fn close(&mut self, unit: UnitId) {
        if let Some(socket) = self.socket(unit) {
            let rights = self.rights(unit);
            sys::with_rights_of(rights, || self.listeners.close(unit, socket));
        }
    }

    fn flush(&mut self, unit: UnitId) {
        if let Some(socket) = self.socket(unit) {
            self.listeners.flush(unit, socket);
        }
    }

    fn watch(&mut self, unit: UnitId, listener: u16) -> Result<(), i32> {
        let Some(fd) = self.listeners.fd(unit, listener) else {
            // Skipped for its address family, or its address is not there yet.
            return Ok(());
        };
        let token = Token::Listener(unit, listener).into();
        let watched =
            self.registry.register(&mut SourceFd(&fd.as_raw_fd()), token, Interest::READABLE);
        watched.map_err(|error| error.raw_os_error().unwrap_or(libc::ENOMEM))
    }

    fn unwatch(&mut self, unit: UnitId, listener: u16) {
        if let Some(fd) = self.listeners.fd(unit, listener) {
            // Fails only if it is not registered, which is what is wanted.
            let _ = self.registry.deregister(&mut SourceFd(&fd.as_raw_fd()));
        }
    }

    fn spawn(&mut self, unit: UnitId, step: Step, told: &Told) -> Result<Spawned, i32> {
        if matches!(step, Step::Conditions | Step::Clean(_)) {
            return self.spawn_own(unit, step);
        }
        let index = self.slots.source(unit).index();
        let own_socket = [unit];
        let Some(kind) = self.manifest.units.get(index).map(|unit| &unit.kind) else {
            return Err(libc::EINVAL);
        };
        // Whose fds it may get, whether this command does, and whether they are to block.
        let (execution, from_sockets, passes, non_blocking) = match kind {
            UnitKind::Service(service) => (
                &service.execution,
                &service.sockets[..],
                matches!(step, Step::Start(_)),
                Some(service.non_blocking),
            ),
            // Here they stay non-blocking: the open file is ours as well, and we may accept.
            UnitKind::Socket(socket) => {
                let passes = socket.pass_fds_to_exec && !matches!(step, Step::StartPre(_));
                (&socket.execution, &own_socket[..], passes, None)
            }
            UnitKind::Target => return Err(libc::EINVAL),
        };
        let owner = self.slots.owner(unit);
        if owner.is_some() {
            self.ready_group(unit);
        }
        // A child that is born frozen would never execute, and we wait until it has.
        self.thaw(unit);
        if let Some(emptied) = self.emptied.get_mut(unit.index()) {
            *emptied = 0;
        }
        let listeners = &self.listeners;
        let connection = self.connections.of(unit.index());
        let connected = connection.and_then(|it| it.fd());
        let variables =
            connection.map_or_else(Pointers::new, |connection| self.variables.fill(connection));
        let Some(Some((program, surroundings))) = self.programs.get_mut(index) else {
            return Err(libc::EINVAL);
        };
        let streams_use_socket = matches!(kind, UnitKind::Service(_))
            && (execution.stdin == Input::Socket
                || [&execution.stdout, &execution.stderr].contains(&&Output::Socket));
        let passes = passes && !streams_use_socket;
        // An instance has its connection, any other service the listeners of its sockets.
        let units = || from_sockets.iter().copied().filter(|_| passes && owner.is_none());
        let fds = || units().flat_map(|unit| listeners.fds(unit));
        let own = owner.map(|slot| (slot.socket, 1)).filter(|_| passes && connected.is_some());
        let sockets = &mut units().map(|unit| (unit, listeners.fds(unit).count())).chain(own);
        let instance = owner.map(|_| self.slots.position(unit));
        // Instances store nothing: the next one is for another client.
        let store = self.stores.get(unit.index()).and_then(Option::as_ref);
        let store = store.filter(|_| matches!(step, Step::Start(_)));
        let listening = fds().count() + usize::from(passes && connected.is_some());
        // Whoever waits for the program itself gets word from stage 2, by an fd behind all others.
        let waits = matches!(kind, UnitKind::Service(it) if it.kind == ServiceKind::Exec);
        let waits = waits && program.is_staged() && matches!(step, Step::Start(_));
        let told_by = match waits {
            true => Some(self.execs.begin(&self.registry, unit)?),
            false => None,
        };
        let behind = listening + store.map_or(0, |store| store.fds().count());
        let tell_to = told_by.as_ref().map(|_| 3 + behind as u32);
        let moment = Moment { told, sockets, store, instance, variables: &variables, tell_to };
        let ready = program.ready(self.manifest, step, moment).ok_or(libc::EINVAL)?;

        let mut first = from_sockets.iter().flat_map(|unit| listeners.fds(*unit));
        let socket = match owner {
            Some(_) => connected,
            None => first.next(),
        };
        let socket = socket.filter(|_| streams_use_socket);
        if streams_use_socket && socket.is_none() {
            return Err(libc::ENOTSOCK);
        }
        if let Some(socket) = socket {
            // Programs of inetd's kind expect it blocking, whatever NonBlocking= says.
            let _ = listen::set_nonblocking(socket, false);
        }
        let log = self.logs.get(index).and_then(Option::as_ref).map(|(_, write)| write.as_fd());
        let null = self.null.as_fd();
        let named = |name: &str| {
            let of_name = |id: &UnitId| is_named(self.manifest, *id, name);
            match owner {
                Some(slot) => connected.filter(|_| of_name(&slot.socket)),
                None => from_sockets
                    .iter()
                    .filter(|id| of_name(id))
                    .find_map(|id| listeners.fds(*id).next()),
            }
        };
        let from = Sources { null, log, socket, named: &named, staged: ready.staged };
        let streams = from.streams(execution, surroundings).ok_or(libc::ENOENT)?;
        let group = self.groups.get(unit.index()).and_then(Option::as_ref);
        let child = match step {
            Step::Start(_) => cgroup::Child::Main,
            _ => cgroup::Child::Command,
        };
        let plan = Plan {
            ready,
            streams,
            non_blocking,
            listeners: listening,
            cgroup: group.map_or(Entry::Nowhere, |group| group.entry(child)),
            directory: &surroundings.directory,
            oom_score: surroundings.oom_score.as_deref(),
            execution: Some(execution),
        };
        let child = self
            .spawner
            .spawn(
                &plan,
                fds()
                    .chain(connected.filter(|_| passes))
                    .chain(store.into_iter().flat_map(Store::fds))
                    .chain(told_by.as_ref().map(AsFd::as_fd)),
            )
            .map_err(|errno| errno.raw_os_error())?;
        if matches!(step, Step::Start(_)) {
            self.adopted.forget(unit);
        }
        let which = match step {
            Step::Start(_) => Some(0),
            // Not waited for: its own time-out ends it.
            Step::Health | Step::HealthStartup => None,
            _ => Some(1),
        };
        if let (Some(session), Some(which)) = (self.sessions.get_mut(unit.index()), which) {
            session[which] = i32::try_from(child.pid).unwrap_or(0);
        }
        if let UnitKind::Service(service) = kind
            && owner.is_some()
            && is_last(service, step, streams_use_socket)
        {
            // The client sees the end of the connection when the instance's process ends it.
            self.connections.hand_over(unit.index());
        }
        let executed = match executed(&child) {
            Executed::Yes if told_by.is_some() => Executed::Later,
            executed => executed,
        };
        Ok(Spawned { pid: child.pid, executed })
    }

    fn kill(&mut self, unit: UnitId, whom: Whom, signal: i32) {
        let send = |pid: i32| {
            // It may have ended meanwhile.
            let _ = sys::kill(pid, signal);
        };
        if let Whom::Process(pid) = whom {
            if self.adopted.kill(unit, pid, signal) {
                return;
            }
            return i32::try_from(pid).map_or((), send);
        }
        if let Some(Some(group)) = self.groups.get(unit.index()) {
            if signal != libc::SIGKILL || !group.kill() {
                group.each_process(send);
            }
            return;
        }
        let sessions = self.sessions.get(unit.index()).into_iter().flatten();
        sessions.filter(|session| **session > 0).for_each(|session| send(-*session));
    }

    fn populated(&mut self, unit: UnitId) -> bool {
        if let Some(Some(group)) = self.groups.get(unit.index()) {
            let Some(emptied) = self.emptied.get_mut(unit.index()) else { return true };
            // Nobody but us fills it, so it stays empty until a spawn.
            if *emptied == self.round {
                return false;
            }
            let populated = group.is_populated();
            *emptied = if populated { 0 } else { self.round };
            return populated;
        }
        let mut alive = false;
        for session in self.sessions.get_mut(unit.index()).into_iter().flatten() {
            // While a process group has members its number is not given away. Once it is empty,
            // it must never be asked for again.
            if *session > 0 && sys::kill(-*session, 0) == Err(rustix::io::Errno::SRCH) {
                *session = 0;
            }
            alive |= *session > 0;
        }
        alive
    }

    fn in_use(&mut self, unit: UnitId) -> bool {
        let Some(service) = self.service(unit) else { return true };
        service.sockets.iter().any(|id| {
            let Some(socket) = self.socket(*id) else { return false };
            let waits = |fd| {
                let mut poll = [PollFd::from_borrowed_fd(fd, PollFlags::IN)];
                let now = rustix::time::Timespec { tv_sec: 0, tv_nsec: 0 };
                rustix::event::poll(&mut poll, Some(&now)) != Ok(0)
            };
            let connected = |listener| sock_diag::is_connected(listener).unwrap_or(true);
            self.listeners.fds(*id).any(waits) || socket.listeners.iter().any(connected)
        })
    }

    fn freeze(&mut self, unit: UnitId) -> Freeze {
        match self.groups.get(unit.index()) {
            Some(Some(group)) if group.freeze() => Freeze::Soon,
            _ => Freeze::Never,
        }
    }

    fn is_frozen(&mut self, unit: UnitId) -> bool {
        self.groups.get(unit.index()).and_then(Option::as_ref).is_some_and(Group::is_frozen)
    }

    fn thaw(&mut self, unit: UnitId) {
        if let Some(Some(group)) = self.groups.get(unit.index()) {
            group.thaw();
        }
    }

    fn accept(&mut self, unit: UnitId, listener: u16) -> Accepted {
        match (self.socket(unit), self.listeners.fd(unit, listener)) {
            (Some(socket), Some(fd)) => self.connections.accept(fd, socket),
            _ => Accepted::Nothing,
        }
    }

    fn find_main(&mut self, unit: UnitId) -> Found {
        let source = self.slots.source(unit);
        let Some(spec) = self.manifest.unit(source) else { return Found::Unclear };
        let group = self.groups.get(unit.index()).and_then(Option::as_ref);
        self.adopted.find(source, spec, group)
    }

    fn adopt(&mut self, unit: UnitId, pid: u32) -> bool {
        self.adopted.adopt(&self.registry, unit, pid)
    }

    fn alive(&mut self, unit: UnitId, pid: u32) -> bool {
        self.adopted.alive(unit, pid)
    }

    fn drop_store(&mut self, unit: UnitId) {
        if let Some(Some(store)) = self.stores.get_mut(unit.index()) {
            store.clear(&self.registry);
        }
    }

    fn keep(&mut self, instance: UnitId, number: u64) {
        self.connections.keep(instance.index(), number);
    }

    fn refuse(&mut self) {
        self.connections.refuse();
    }

    fn release(&mut self, instance: UnitId) {
        self.connections.release(instance.index());
    }

    fn tell(&mut self, unit: Option<UnitId>, event: Event) {
        // In the log an instance goes by the name of its template.
        self.link.tell(unit.map(|unit| self.slots.source(unit)), event);
    }
}

/// As far as the spawn knows, which has waited for the first exec.
fn executed(child: &Child) -> Executed {
    child.failed.map_or(Executed::Yes, Executed::No)
}

/// Whether no program of an instance behind this one gets the connection.
fn is_last(service: &Service, step: Step, streams_use_socket: bool) -> bool {
    let later = [&service.start_post, &service.reload, &service.stop, &service.stop_post];
    let last = matches!(step, Step::Start(index) if usize::from(index) + 1 == service.start.len());
    last && !(streams_use_socket && later.into_iter().any(|commands| !commands.is_empty()))
}

fn is_named(manifest: &Manifest, socket: UnitId, name: &str) -> bool {
    matches!(manifest.unit(socket).map(|unit| &unit.kind),
        Some(UnitKind::Socket(socket)) if socket.fd_name == name)
}
