//! The world around a supervisor: clients, processes, people, the clock, and what goes wrong.

mod hands;

use super::super::{self as supervise, Supervisor};
use super::dice::Dice;
use crate::slots::Slots;
use activator::control::{Exit, Report, ServiceState, SocketState, Text};
use activator::manifest::*;
use activator::notification::{Notification, Watchdog};
use activator::wire::Raw;
use std::collections::BTreeMap;

/// What is to happen later. Small, since most of a schedule is to keep these in order.
#[derive(Debug, Clone)]
enum Fate {
    Readable(UnitId, u16),
    Client(UnitId, u16),
    Exit(u32, Exit),
    /// What the service left behind is gone.
    Empty(UnitId),
    /// All processes of the service are frozen.
    Frost(UnitId),
    Ready(UnitId),
    /// The program of `Type=exec` was executed, if the process is still there.
    Executed(u32),
    Serve(u32),
    Start(UnitId),
    Stop(UnitId),
    Restart(UnitId),
    Reload(UnitId),
    /// Somebody shuts a listener down.
    HangUp(UnitId, u16),
    Say(UnitId, Box<Notification>),
    /// The machine has slept.
    Jump(u64),
}

#[derive(Debug, Default)]
struct Door {
    open: bool,
    watched: bool,
    waiting: u32,
}

#[derive(Debug)]
struct Process {
    unit: UnitId,
    main: bool,
    deaf: bool,
    kind: Kind,
}

/// What a process is, but for being the main one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Command,
    /// Looks at conditions; in nobody's cgroup.
    Check,
    /// A health check.
    Health,
    /// Removes what a run has left; in nobody's cgroup either, and given up if it hangs.
    Clean,
    /// What the child of `Type=forking` leaves.
    Daemon,
    /// What `KillMode=none` has left.
    Left,
}

impl Kind {
    /// In its cgroup.
    fn is_of_the_service(self) -> bool {
        !matches!(self, Self::Check | Self::Clean)
    }
}

#[derive(Debug, Default)]
struct Connection {
    /// The main process that got it.
    given: Option<u32>,
}

#[derive(Debug)]
pub(super) struct World<'m> {
    manifest: &'m Manifest,
    slots: Slots,
    /// Accepted and not judged yet.
    pending: bool,
    /// Processes that serve when they are thawed.
    asleep: Vec<u32>,
    /// Services that are to be frozen, and whether they are.
    frozen: BTreeMap<UnitId, bool>,
    /// Connections of the slots.
    held: BTreeMap<UnitId, Connection>,
    pub(super) dice: Dice,
    pub(super) now: u64,
    /// By time, then in the order they were made.
    fates: BTreeMap<(u64, u64), Fate>,
    made: u64,
    doors: Vec<Vec<Door>>,
    processes: BTreeMap<u32, Process>,
    /// Services with processes beside those.
    leftovers: Vec<bool>,
    /// Sockets that may be closed: by an order, or by whoever shut a listener down.
    closable: Vec<bool>,
    /// Units that somebody has stopped, and nobody started since.
    stopped: Vec<bool>,
    open_fails: bool,
    calm: bool,
    pub(super) going_down: bool,
    /// Whether what happens is shown.
    shown: bool,
    pids: u32,
    pub(super) calls: u64,
}

impl<'m> World<'m> {
    pub(super) fn new(manifest: &'m Manifest, dice: Dice, shown: bool) -> Self {
        let doors = manifest.units.iter().map(|unit| match &unit.kind {
            UnitKind::Socket(socket) => socket.listeners.iter().map(|_| Door::default()).collect(),
            _ => vec![],
        });
        let slots = Slots::new(manifest);
        Self {
            doors: doors.collect(),
            leftovers: vec![false; slots.len()],
            closable: vec![false; manifest.units.len()],
            stopped: vec![false; manifest.units.len()],
            slots,
            pending: false,
            held: BTreeMap::new(),
            frozen: BTreeMap::new(),
            asleep: vec![],
            manifest,
            dice,
            now: 1,
            fates: BTreeMap::new(),
            made: 0,
            processes: BTreeMap::new(),
            open_fails: false,
            calm: false,
            going_down: false,
            shown,
            pids: 100,
            calls: 0,
        }
    }

    fn spec(&self, unit: UnitId) -> &'m Unit {
        &self.manifest.units[self.slots.source(unit).index()]
    }

    fn later(&mut self, delay: u64, fate: Fate) {
        self.made += 1;
        self.fates.insert((self.now + delay, self.made), fate);
    }

    /// Makes something happen from outside.
    pub(super) fn fate(&mut self) {
        self.open_fails = self.dice.one_in(20);
        let unit = UnitId(self.dice.below(self.manifest.units.len() as u64) as u16);
        let delay = self.dice.delay();
        match &self.manifest.units[unit.index()].kind {
            UnitKind::Socket(socket) => {
                let listener = self.dice.below(socket.listeners.len() as u64) as u16;
                let fate = match self.dice.below(60) {
                    0 => Fate::Start(unit),
                    1 => Fate::Stop(unit),
                    2 => Fate::Restart(unit),
                    3 => Fate::HangUp(unit, listener),
                    _ => Fate::Client(unit, listener),
                };
                self.later(delay, fate);
            }
            UnitKind::Service(_) if self.dice.one_in(8) => {
                let orders = [Fate::Start, Fate::Stop, Fate::Restart, Fate::Reload];
                let order = self.dice.pick(&orders)(unit);
                self.later(delay, order);
            }
            UnitKind::Service(_) if self.dice.one_in(4) => {
                for _ in 0..=self.dice.below(4) {
                    let said = self.anything();
                    self.later(delay, Fate::Say(unit, said));
                }
            }
            UnitKind::Service(_) if self.dice.one_in(20) => {
                let hours = self.dice.below(3);
                self.later(delay, Fate::Jump(hours * 3_600_000_000));
            }
            _ => {}
        }
    }

    /// What a service may say.
    fn anything(&mut self) -> Box<Notification> {
        let mut said = Box::<Notification>::default();
        let now = self.now;
        match self.dice.below(8) {
            0 => said.ready = true,
            1 => said.stopping = self.dice.one_in(4),
            2 => said.reloading = Some(self.dice.one_in(2).then_some(now)),
            3 => said.extend_timeout_us = Some(self.dice.delay()),
            4 => said.watchdog = Some(Watchdog::Alive),
            5 => said.watchdog = self.dice.one_in(4).then_some(Watchdog::Trigger),
            6 => said.watchdog_us = Some(self.dice.delay()),
            _ => said.status = Some(Text::new(b"busy")),
        }
        said
    }

    /// In calm times nobody is watched, which would never be quiet.
    fn unwatched() -> Box<Notification> {
        Notification { ready: true, watchdog_us: Some(0), ..Notification::default() }.into()
    }

    /// What a forking child leaves.
    fn leave_daemon(&mut self, unit: UnitId) {
        if !self.calm && self.dice.one_in(6) {
            return;
        }
        self.pids += 1;
        let pid = self.pids;
        let deaf = !self.calm && self.dice.one_in(6);
        self.processes.insert(pid, Process { unit, main: false, deaf, kind: Kind::Daemon });
        self.plan_of_main(pid, unit, ServiceKind::Simple);
    }

    /// From now on all goes well, also for those that hang.
    pub(super) fn calm_down(&mut self) {
        self.calm = true;
        self.open_fails = false;
        // Nobody leaves a socket stopped.
        for unit in 0..self.closable.len() {
            if self.stopped[unit] && !self.doors[unit].is_empty() {
                self.later(1, Fate::Start(UnitId(unit as u16)));
            }
        }
        for pid in self.processes.keys().copied().collect::<Vec<_>>() {
            let Some(process) = self.processes.get_mut(&pid) else { continue };
            process.deaf = false;
            let (unit, main, kind) = (process.unit, process.main, process.kind);
            let UnitKind::Service(service) = &self.spec(unit).kind else {
                self.later(1, Fate::Exit(pid, Exit::Code(0)));
                continue;
            };
            let forks = service.kind == ServiceKind::Forking && kind != Kind::Daemon;
            if !main || forks || service.kind == ServiceKind::Oneshot {
                self.later(1, Fate::Exit(pid, Exit::Code(0)));
            } else {
                self.later(1, Fate::Executed(pid));
                self.later(1, Fate::Say(unit, Self::unwatched()));
                self.later(2, Fate::Serve(pid));
            }
        }
    }

    /// The activator executes itself: what it knew goes through the form in which it is handed
    /// over, what epoll knew is gone.
    pub(super) fn reload(&mut self, it: Supervisor<'m>) -> Supervisor<'m> {
        self.fates.retain(|_, fate| !matches!(fate, Fate::Readable(..)));
        self.doors.iter_mut().flatten().for_each(|door| door.watched = false);
        let units = (0..self.slots.len()).map(|index| UnitId(index as u16));
        let saved = units.map(|unit| {
            // As the engine has it: a free slot is nothing to hand over.
            if self.slots.owner(unit).is_some() && it.unit(unit).unwrap().is_idle() {
                return None;
            }
            let saved = Raw::of(it.unit(unit).unwrap());
            Some(supervise::Unit::take_over(&saved, None, &self.spec(unit).kind).unwrap())
        });
        let saved: Vec<_> = saved.collect();
        let mut next = Supervisor::resume(self.manifest, self.now, it.machine(), saved.into_iter());
        let fates = vec![supervise::Fate::Stays; self.manifest.units.len()];
        next.go_on(self.now, self, &fates);
        next
    }

    /// The next event or deadline, whichever comes first. False if there is none.
    pub(super) fn step(&mut self, it: &mut Supervisor) -> bool {
        let event = self.fates.keys().next().copied();
        let deadline = it.deadline();
        match (event, deadline) {
            (None, None) => false,
            (Some((at, _)), _) if deadline.is_none_or(|deadline| at <= deadline) => {
                self.now = self.now.max(at);
                if let Some(fate) = event.and_then(|key| self.fates.remove(&key)) {
                    self.happen(it, fate);
                }
                true
            }
            (_, Some(deadline)) => {
                assert!(self.calm || deadline < u64::MAX / 2);
                self.now = self.now.max(deadline);
                it.tick(self.now, self);
                true
            }
            _ => unreachable!("an event without a deadline is the case above"),
        }
    }

    fn happen(&mut self, it: &mut Supervisor, fate: Fate) {
        let now = self.now;
        if self.shown {
            eprintln!("{now}: {fate:?}");
        }
        match fate {
            // Delivered even if the watch has ended since: one round of epoll may do that.
            Fate::Readable(unit, listener) => it.triggered(now, self, unit, listener),
            Fate::Client(unit, listener) => {
                // There is none when the machine goes down.
                let door = self.doors[unit.index()].get_mut(usize::from(listener));
                if let Some(door) = door.filter(|door| door.open) {
                    door.waiting += 1;
                    if door.watched {
                        self.later(0, Fate::Readable(unit, listener));
                    }
                    self.let_servers_look();
                }
            }
            Fate::Exit(pid, exit) => {
                if let Some(process) = self.processes.remove(&pid) {
                    if process.main && !self.calm && self.dice.one_in(4) {
                        self.leftovers[process.unit.index()] = true;
                        let delay = self.dice.delay();
                        self.later(delay, Fate::Empty(process.unit));
                    }
                    let forks = matches!(&self.spec(process.unit).kind,
                        UnitKind::Service(it) if it.kind == ServiceKind::Forking);
                    let first = process.main && process.kind == Kind::Command;
                    if forks && first && exit == Exit::Code(0) {
                        self.leave_daemon(process.unit);
                    }
                    let known = it.reaped(now, self, pid, exit);
                    // A daemon that nobody has found, and what a reload had no patience with,
                    // are orphans.
                    let orphan = (!process.main && process.kind != Kind::Check)
                        || self.lets_live(process.unit);
                    assert!(known || orphan, "a child that nobody knows");
                }
                it.emptied(now, self);
            }
            Fate::Empty(unit) => {
                self.leftovers[unit.index()] = false;
                it.emptied(now, self);
            }
            Fate::Frost(unit) => {
                if let Some(frozen) = self.frozen.get_mut(&unit) {
                    *frozen = true;
                    it.emptied(now, self);
                }
            }
            Fate::Ready(unit) => {
                let ready = Notification { ready: true, ..Notification::default() };
                it.notified(now, self, unit, &ready);
            }
            Fate::Executed(pid) => {
                if let Some(unit) = self.processes.get(&pid).map(|process| process.unit) {
                    it.executed(now, self, unit);
                }
            }
            Fate::Serve(pid) => self.serve(pid),
            Fate::Start(unit) => {
                self.stopped[unit.index()] = false;
                it.order_start(now, self, unit);
            }
            Fate::Stop(unit) if self.calm && !self.doors[unit.index()].is_empty() => {}
            Fate::Stop(unit) => {
                self.closable[unit.index()] = true;
                self.stopped[unit.index()] = true;
                it.order_stop(now, self, unit);
            }
            Fate::Restart(unit) => {
                self.closable[unit.index()] = true;
                self.stopped[unit.index()] = false;
                it.order_restart(now, self, unit);
            }
            Fate::HangUp(unit, listener) => {
                if self.doors[unit.index()].get(usize::from(listener)).is_some_and(|it| it.watched)
                {
                    self.closable[unit.index()] = true;
                    it.hung_up(now, self, unit, listener);
                }
            }
            Fate::Reload(unit) => {
                it.order_reload(now, self, unit);
            }
            Fate::Say(unit, said) => it.notified(now, self, unit, &said),
            Fate::Jump(time) => self.now += time,
        }
    }

    /// Whether its main process never ends by itself in calm times: it would be started for ever.
    fn goes_on(&self, unit: UnitId) -> bool {
        let source = self.slots.source(unit);
        let UnitKind::Service(service) = &self.spec(unit).kind else { return false };
        matches!(service.restart, Restart::OnSuccess | Restart::Always)
            || self.manifest.units.iter().any(|unit| unit.upholds.contains(&source))
    }

    /// Whether nobody waits for the end of its processes.
    fn lets_live(&self, unit: UnitId) -> bool {
        matches!(&self.spec(unit).kind,
            UnitKind::Service(service) if service.kill_mode == KillMode::None)
    }

    /// With `KillMode=none` a run begins, or a slot is free, while processes of the last run live.
    fn leave(&mut self, unit: UnitId) {
        if self.lets_live(unit) {
            for process in self.processes.values_mut().filter(|process| process.unit == unit) {
                process.main = false;
                if process.kind.is_of_the_service() {
                    process.kind = Kind::Left;
                }
            }
        }
    }

    fn serve(&mut self, pid: u32) {
        let Some(unit) = self.processes.get(&pid).map(|process| process.unit) else { return };
        if self.frozen.get(&unit) == Some(&true) {
            // It does so as soon as it is thawed.
            self.asleep.push(pid);
            return;
        }
        if let UnitKind::Service(service) = &self.spec(unit).kind {
            for socket in &service.sockets {
                self.doors[socket.index()].iter_mut().for_each(|door| door.waiting = 0);
            }
        }
    }

    /// In calm times every main process that runs serves whoever comes.
    fn let_servers_look(&mut self) {
        if self.calm {
            let mains: Vec<u32> = self
                .processes
                .iter()
                .filter(|(_, process)| process.main || process.kind == Kind::Daemon)
                .map(|(pid, _)| *pid)
                .collect();
            mains.into_iter().for_each(|pid| self.later(1, Fate::Serve(pid)));
        }
    }

    pub(super) fn assert_thawed(&self, it: &Supervisor) {
        for (index, unit) in self.manifest.units.iter().enumerate() {
            let UnitKind::Service(service) = &unit.kind else { continue };
            let runs = |relay: &&UnitId| {
                matches!(it.report(**relay), Some(Report::Service { main_pid: Some(_), .. }))
            };
            if let Some(relay) = service.relays.iter().find(runs) {
                let frozen = self.frozen.get(&UnitId(index as u16)) == Some(&true);
                let shown = it.report(UnitId(index as u16));
                let idle =
                    matches!(shown, Some(Report::Service { state: ServiceState::Frozen, .. }));
                assert!(!frozen || !idle, "{index} is frozen, {relay:?} relays to it\n{it:#?}");
            }
        }
    }

    pub(super) fn assert_served(&self, it: &Supervisor) {
        let sockets = (0..self.manifest.units.len()).filter_map(|index| {
            match it.report(UnitId(index as u16))? {
                Report::Socket { connections, .. } => Some(connections as usize),
                _ => None,
            }
        });
        assert_eq!(sockets.sum::<usize>(), self.held.len(), "{it:#?}\n{self:#?}");
        for (unit, connection) in &self.held {
            assert!(connection.given.is_some(), "nobody has it");
            let own = |process: &Process| process.unit == *unit;
            assert!(self.processes.values().any(own), "{unit:?} is over, but not free");
        }
        assert!(self.fates.is_empty(), "events without end: {:?}\n{it:#?}", self.fates);
        assert_eq!(it.deadline(), None, "{it:#?}");
        for (index, doors) in self.doors.iter().enumerate() {
            for door in doors {
                assert!(door.open && door.waiting == 0, "{index} {door:?}\n{it:#?}\n{self:#?}");
            }
            if let Some(Report::Socket { state, .. }) = it.report(UnitId(index as u16)) {
                let good = matches!(state, SocketState::Listening | SocketState::Running);
                assert!(good, "{state:?}\n{it:#?}");
            }
        }
    }

    fn is_populated(&self, unit: UnitId) -> bool {
        let own = |process: &Process| process.unit == unit && process.kind.is_of_the_service();
        self.processes.values().any(own) || self.leftovers[unit.index()]
    }

    fn plan_of_main(&mut self, pid: u32, unit: UnitId, kind: ServiceKind) {
        let (delay, serve) = (self.dice.delay(), self.dice.delay());
        if kind == ServiceKind::Forking {
            let code = u8::from(!self.calm && self.dice.one_in(4));
            if self.calm || !self.dice.one_in(6) {
                self.later(delay, Fate::Exit(pid, Exit::Code(code)));
            }
            return;
        }
        let notifies = matches!(kind, ServiceKind::Notify | ServiceKind::NotifyReload);
        if notifies && !self.calm && !self.dice.one_in(4) {
            self.later(serve, Fate::Ready(unit));
        }
        if self.calm {
            self.later(0, Fate::Say(unit, Self::unwatched()));
            self.later(serve, Fate::Serve(pid));
            if kind == ServiceKind::Oneshot || (self.dice.one_in(2) && !self.goes_on(unit)) {
                self.later(serve + delay + 1, Fate::Exit(pid, Exit::Code(0)));
            }
            return;
        }
        if self.dice.one_in(2) {
            self.later(serve, Fate::Serve(pid));
        }
        let exit = *self.dice.pick(&[Exit::Code(0), Exit::Code(1), Exit::Signal(11)]);
        if !self.dice.one_in(3) {
            self.later(delay, Fate::Exit(pid, exit));
        }
    }
}
