//! Random units, random misfortune, and what must hold all the same.
//!
//! A schedule is made from a seed: units, then clients, ends of processes, failures of clone and
//! open, orders of people, storms of notifications, watchdogs, conditions that do not hold, daemons
//! that fork, jumps of the clock, in random order and at random times. In it, always:
//! * no fd is closed before the machine goes down, whatever happens to services;
//! * a service never has two main processes;
//! * a socket is not watched while anything of its service lives, unless it accepts itself;
//! * a connection that was accepted is closed, or given to one main process and to no other;
//! * nothing is frozen to which somebody relays.
//!
//! * a service has one health check at a time, and none while it is frozen.
//!
//! A reload may come between any two events, and changes none of this.
//!
//! Then all misfortune ends, and in the end:
//! * (where no units conflict) every client was served: no edge was lost, every limit has recovered;
//! * nothing happens any more, and no deadline is left;
//! * going down stops everything in bounded time.
//!
//! `ROUSE_SIM_SCHEDULES` is the number of schedules, `ROUSE_SIM_FROM` the first of them (0), so that
//! several runs can share a large number; `ROUSE_SIM_SEED` runs one alone.

use super::tests::{command, manifest, service, socket, unit};
use super::{
    Accepted, Executed, Found, Freeze, Hands, OpenFailed, Spawned, Step, Supervisor, Told, Whom,
};
use crate::slots::Slots;
use activator::control::{Event, Exit, Report, ServiceState, SocketState, Text};
use activator::manifest::*;
use activator::notification::{Notification, Watchdog};
use activator::peer::Peer;
use activator::wire::Raw;
use std::collections::BTreeMap;
use std::io::Write;
use std::sync::atomic::{AtomicU64, Ordering};

/// Schedules of one run of the tests, unless the environment says otherwise.
const SCHEDULES: u64 = 1_000_000;
/// Events until the misfortune ends.
const STEPS: usize = 60;
/// Events after that until all must be quiet.
const CALM_STEPS: usize = 5_000;
/// The same where health checks never end.
const CHECKED_STEPS: usize = 200;

#[test]
fn nothing_is_lost_in_any_schedule() {
    let number = |name| std::env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    let (from, count) = match number("ROUSE_SIM_SEED") {
        Some(seed) => (seed, 1),
        None => (
            number("ROUSE_SIM_FROM").unwrap_or(0),
            number("ROUSE_SIM_SCHEDULES").unwrap_or(SCHEDULES),
        ),
    };
    // On stderr itself: what println! writes is shown of tests that fail only.
    let _ = writeln!(std::io::stderr(), "ROUSE_SIM_FROM={from} ROUSE_SIM_SCHEDULES={count}");
    let next = AtomicU64::new(from);
    let run = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= from + count {
                break;
            }
            let outcome = std::panic::catch_unwind(|| schedule(seed));
            assert!(outcome.is_ok(), "schedule failed, run it with ROUSE_SIM_SEED={seed}");
        }
    };
    // A seed is a whole world of its own: which thread runs it makes no difference.
    std::thread::scope(|scope| {
        for _ in 1..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(run);
        }
        run();
    });
}

fn schedule(seed: u64) {
    let mut dice = Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let manifest = units(&mut dice);
    let mut world = World::new(&manifest, dice);
    let mut it = Supervisor::new(&manifest, 0);
    it.boot(world.now, &mut world);
    for _ in 0..STEPS {
        world.fate();
        world.step(&mut it);
        world.assert_thawed(&it);
        if world.dice.one_in(90) {
            it = world.reload(it);
        }
    }
    world.calm_down();
    let is_checked =
        |unit: &Unit| matches!(&unit.kind, UnitKind::Service(service) if service.health.is_some());
    let checked = manifest.units.iter().any(is_checked);
    for _ in 0..if checked { CHECKED_STEPS } else { CALM_STEPS } {
        if !world.step(&mut it) {
            break;
        }
    }
    // Two services that exclude each other, each with a client that waits, go on for ever, and so
    // do health checks.
    if !checked && manifest.units.iter().all(|unit| unit.conflicts.is_empty()) {
        world.assert_served(&it);
        let calls = world.calls;
        it.tick(world.now + 3_600_000_000, &mut world);
        assert_eq!(world.calls, calls, "it is not quiet");
    }
    world.going_down = true;
    it.shut_down(world.now, &mut world);
    for _ in 0..CALM_STEPS {
        if it.is_shut_down() {
            break;
        }
        world.step(&mut it);
    }
    assert!(it.is_shut_down(), "it does not go down: {it:#?}");
}

/// One to four services with up to two sockets each; a later one may depend on earlier ones.
fn units(dice: &mut Dice) -> Manifest {
    let services = 1 + dice.below(4) as u16;
    let checked = dice.one_in(6);
    let templates: Vec<bool> = (0..services).map(|_| dice.one_in(4)).collect();
    let mut units: Vec<Unit> = vec![];
    for index in 0..services {
        let mut spec = service();
        spec.kind = *dice.pick(&[
            ServiceKind::Simple,
            ServiceKind::Exec,
            ServiceKind::Notify,
            ServiceKind::NotifyReload,
            ServiceKind::Oneshot,
            ServiceKind::Forking,
        ]);
        spec.pid_file = dice.one_in(2).then(|| "/run/x.pid".into());
        spec.watchdog_us = *dice.pick(&[0, 0, 2_000_000]);
        spec.restart =
            *dice.pick(&[Restart::No, Restart::No, Restart::OnFailure, Restart::OnAbnormal]);
        spec.kill_mode = *dice.pick(&[KillMode::ControlGroup, KillMode::Mixed, KillMode::Process]);
        if dice.one_in(4) {
            spec.stop_when_idle_us = *dice.pick(&[0, 2_000_000, 9_000_000]);
            spec.freeze_when_idle_us = *dice.pick(&[0, 1_000_000, 5_000_000]);
        }
        if checked && dice.one_in(2) {
            spec.health = Some(Box::new(health(dice)));
        }
        spec.restart_delay_us = *dice.pick(&[0, 100_000, 5_000_000]);
        spec.start_limit.burst = *dice.pick(&[0, 1, 5]);
        spec.start_timeout_us = *dice.pick(&[0, 90_000_000]);
        for commands in [
            &mut spec.start_pre,
            &mut spec.start_post,
            &mut spec.stop,
            &mut spec.stop_post,
            &mut spec.reload,
            &mut spec.condition,
        ] {
            *commands = vec![command(); dice.below(4).saturating_sub(2) as usize];
        }
        let mut one = unit(&format!("{index}.service"), UnitKind::Service(spec));
        if dice.one_in(6) {
            let check = Check::PathExists("/x".into());
            let group = Group::Condition;
            one.conditions = vec![Condition { group, triggering: false, negate: false, check }];
        }
        one.start_at_boot = dice.one_in(4) && !templates[usize::from(index)];
        // Nobody can require a template.
        for other in (0..index).map(UnitId).filter(|other| !templates[other.index()]) {
            match dice.below(8) {
                0 => one.after.push(other),
                1 => {
                    one.requires.push(other);
                    one.after.push(other);
                }
                2 => one.wants.push(other),
                3 if dice.one_in(4) => one.conflicts.push(other),
                4 if !templates[usize::from(index)] => {
                    relay(&mut one, UnitId(index), &mut units[other.index()], other);
                }
                _ => {}
            }
        }
        units.push(one);
    }
    for index in 0..services {
        if templates[usize::from(index)] {
            let name = format!("{index}-a.socket");
            let mut spec = socket(index, 1 + dice.below(2) as usize);
            spec.accept = Some(Accept {
                max_connections: 1 + dice.below(4) as u32,
                max_per_source: dice.below(3) as u32,
            });
            spec.trigger_limit.burst = *dice.pick(&[0, 2, 200]);
            spec.poll_limit.burst = *dice.pick(&[1, 150]);
            let mut one = unit(&name, UnitKind::Socket(spec));
            one.start_at_boot = true;
            units.push(one);
            continue;
        }
        // With sockets of its own, too, it would be looked at for ever while a relay is up.
        let relayed =
            |unit: &Unit| matches!(&unit.kind, UnitKind::Service(it) if !it.relays.is_empty());
        if relayed(&units[usize::from(index)]) {
            continue;
        }
        for number in 0..dice.below(3) {
            let name = format!("{index}-{number}.socket");
            let mut spec = socket(index, 1 + dice.below(2) as usize);
            spec.trigger_limit.burst = *dice.pick(&[0, 2, 20]);
            spec.poll_limit.burst = *dice.pick(&[1, 15]);
            // Their failures would close it; they may only take long.
            let command = || Command { ignore_failure: true, ..command() };
            for commands in
                [&mut spec.start_pre, &mut spec.start_post, &mut spec.stop_pre, &mut spec.stop_post]
            {
                *commands = vec![command(); dice.below(4).saturating_sub(2) as usize];
            }
            spec.timeout_us = 0;
            let id = UnitId(units.len() as u16);
            let mut one = unit(&name, UnitKind::Socket(spec));
            one.start_at_boot = true;
            units.push(one);
            let owner = &mut units[usize::from(index)];
            owner.after.push(id);
            if let UnitKind::Service(service) = &mut owner.kind {
                service.sockets.push(id);
            }
        }
    }
    manifest(units)
}

fn health(dice: &mut Dice) -> HealthCheck {
    let mut probe = || Probe {
        command: command(),
        interval_us: *dice.pick(&[0, 50_000, 500_000, 30_000_000]),
        timeout_us: *dice.pick(&[0, 1_000_000]),
    };
    let (regular, startup) = (probe(), probe());
    let retries = dice.below(3) as u32;
    let startup = StartupCheck { probe: startup, retries, successes: dice.below(3) as u32 };
    HealthCheck {
        probe: regular,
        retries: 1 + dice.below(3) as u32,
        start_period_us: *dice.pick(&[0, 3_000_000]),
        on_failure: *dice.pick(&[
            OnUnhealthy::None,
            OnUnhealthy::Kill,
            OnUnhealthy::Restart,
            OnUnhealthy::Stop,
        ]),
        startup: dice.one_in(3).then_some(startup),
        no_verdict: dice.one_in(2).then_some(1),
        makes_ready: dice.one_in(2),
    }
}

/// One service relays to another, as the host has it of `X-RelayTo=`. A oneshot service would take
/// its relay along before that has served anybody.
fn relay(one: &mut Unit, id: UnitId, other: &mut Unit, target: UnitId) {
    let oneshot = |unit: &Unit| matches!(&unit.kind, UnitKind::Service(it) if it.kind == ServiceKind::Oneshot);
    if oneshot(other) {
        return;
    }
    one.requires.push(target);
    one.binds_to.push(target);
    one.after.push(target);
    if let UnitKind::Service(service) = &mut other.kind {
        service.relays.push(id);
    }
}

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
struct World<'m> {
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
    dice: Dice,
    now: u64,
    /// By time, then in the order they were made.
    fates: BTreeMap<(u64, u64), Fate>,
    made: u64,
    doors: Vec<Vec<Door>>,
    processes: BTreeMap<u32, Process>,
    /// Services with processes beside those.
    leftovers: Vec<bool>,
    open_fails: bool,
    calm: bool,
    going_down: bool,
    pids: u32,
    calls: u64,
}

impl<'m> World<'m> {
    fn new(manifest: &'m Manifest, dice: Dice) -> Self {
        let doors = manifest.units.iter().map(|unit| match &unit.kind {
            UnitKind::Socket(socket) => socket.listeners.iter().map(|_| Door::default()).collect(),
            _ => vec![],
        });
        let slots = Slots::new(manifest);
        Self {
            doors: doors.collect(),
            leftovers: vec![false; slots.len()],
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
    fn fate(&mut self) {
        self.open_fails = self.dice.one_in(20);
        let unit = UnitId(self.dice.below(self.manifest.units.len() as u64) as u16);
        let delay = self.dice.delay();
        match &self.manifest.units[unit.index()].kind {
            UnitKind::Socket(socket) => {
                let listener = self.dice.below(socket.listeners.len() as u64) as u16;
                self.later(delay, Fate::Client(unit, listener));
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
    fn calm_down(&mut self) {
        self.calm = true;
        self.open_fails = false;
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
    fn reload(&mut self, it: Supervisor<'m>) -> Supervisor<'m> {
        self.fates.retain(|_, fate| !matches!(fate, Fate::Readable(..)));
        self.doors.iter_mut().flatten().for_each(|door| door.watched = false);
        let units = (0..self.slots.len()).map(|index| UnitId(index as u16));
        let saved = units.map(|unit| {
            // As the engine has it: a free slot is nothing to hand over.
            if self.slots.owner(unit).is_some() && it.unit(unit).unwrap().is_idle() {
                return None;
            }
            let saved = Raw::of(it.unit(unit).unwrap());
            Some(super::Unit::take_over(&saved, None, &self.spec(unit).kind).unwrap())
        });
        let saved: Vec<_> = saved.collect();
        let mut next = Supervisor::resume(self.manifest, self.now, it.machine(), saved.into_iter());
        let fates = vec![super::Fate::Stays; self.manifest.units.len()];
        next.go_on(self.now, self, &fates);
        next
    }

    /// The next event or deadline, whichever comes first. False if there is none.
    fn step(&mut self, it: &mut Supervisor) -> bool {
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
                    let orphan = !process.main && process.kind != Kind::Check;
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
                it.order_start(now, self, unit);
            }
            Fate::Stop(unit) => {
                it.order_stop(now, self, unit);
            }
            Fate::Restart(unit) => {
                it.order_restart(now, self, unit);
            }
            Fate::Reload(unit) => {
                it.order_reload(now, self, unit);
            }
            Fate::Say(unit, said) => it.notified(now, self, unit, &said),
            Fate::Jump(time) => self.now += time,
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

    fn assert_thawed(&self, it: &Supervisor) {
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

    fn assert_served(&self, it: &Supervisor) {
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
            if kind == ServiceKind::Oneshot || self.dice.one_in(2) {
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

impl Hands for World<'_> {
    fn open(&mut self, unit: UnitId) -> Result<(), OpenFailed> {
        self.calls += 1;
        let some = self.dice.one_in(2);
        let doors = &mut self.doors[unit.index()];
        if let Some(closed) = doors.iter().position(|door| !door.open).filter(|_| self.open_fails) {
            if some {
                doors.iter_mut().skip(closed + 1).for_each(|door| door.open = true);
            }
            let others = doors.iter().any(|door| door.open);
            return Err(OpenFailed { listener: closed as u16, errno: libc::EMFILE, others });
        }
        self.doors[unit.index()].iter_mut().for_each(|door| door.open = true);
        Ok(())
    }

    fn close(&mut self, unit: UnitId) {
        self.calls += 1;
        assert!(self.going_down, "closed {unit:?}");
        self.doors[unit.index()].clear();
    }

    fn flush(&mut self, _: UnitId) {}

    fn watch(&mut self, unit: UnitId, listener: u16) -> Result<(), i32> {
        self.calls += 1;
        let UnitKind::Socket(socket) = &self.manifest.units[unit.index()].kind else {
            panic!("{unit:?} is no socket");
        };
        let group = match &self.manifest.units[socket.service.index()].kind {
            UnitKind::Service(service) => service.kill_mode != KillMode::Process,
            _ => false,
        };
        let main = |process: &Process| process.unit == socket.service && process.main;
        let UnitKind::Service(service) = &self.spec(socket.service).kind else {
            panic!("{unit:?} starts no service");
        };
        let for_idleness = service.stop_when_idle_us > 0 || service.freeze_when_idle_us > 0;
        let main = !for_idleness && self.processes.values().any(main);
        assert!(!main, "{unit:?} is watched, its service lives");
        let group = group && !for_idleness;
        assert!(!group || !self.is_populated(socket.service), "{unit:?}: its cgroup is not empty");
        assert!(!self.pending, "a connection is nobody's");
        if !self.calm && self.dice.one_in(50) {
            return Err(libc::ENOMEM);
        }
        let door = &mut self.doors[unit.index()][usize::from(listener)];
        assert!(!door.watched);
        door.watched = true;
        if door.waiting > 0 {
            self.later(0, Fate::Readable(unit, listener));
        }
        Ok(())
    }

    fn unwatch(&mut self, unit: UnitId, listener: u16) {
        self.calls += 1;
        let door = &mut self.doors[unit.index()][usize::from(listener)];
        assert!(std::mem::take(&mut door.watched));
    }

    fn spawn(&mut self, unit: UnitId, step: Step, _: &Told) -> Result<Spawned, i32> {
        self.calls += 1;
        let main = matches!(step, Step::Start(_));
        let kind = match step {
            Step::Conditions => Kind::Check,
            Step::Health | Step::HealthStartup => Kind::Health,
            Step::Clean(_) => Kind::Clean,
            _ => Kind::Command,
        };
        assert!(kind != Kind::Health || !self.frozen.contains_key(&unit), "{unit:?} is frozen");
        let same = |process: &Process| {
            process.unit == unit
                && process.main == main
                && (process.main || (process.kind == kind && kind != Kind::Clean))
        };
        assert!(!self.processes.values().any(same), "{unit:?} has two for {step:?}");
        // The engine thaws before a spawn, for a command of a stop.
        if self.frozen.remove(&unit).is_some() {
            let asleep = std::mem::take(&mut self.asleep);
            asleep.into_iter().for_each(|pid| self.later(0, Fate::Serve(pid)));
            self.frozen.insert(unit, false);
        }
        if !self.calm && self.dice.one_in(20) {
            return Err(libc::EAGAIN);
        }
        self.pids += 1;
        let pid = self.pids;
        let deaf = !self.calm && self.dice.one_in(6);
        self.processes.insert(pid, Process { unit, main, deaf, kind });
        if self.slots.owner(unit).is_some() && step == Step::Start(0) {
            let connection = self.held.get_mut(&unit).expect("an instance without connection");
            assert_eq!(connection.given.replace(pid), None, "a connection has two owners");
        }
        assert!(!self.slots.is_template(unit), "a template runs");
        let mut executed = Executed::Yes;
        if !self.calm && self.dice.one_in(20) {
            executed = Executed::No(libc::ENOENT);
            self.later(0, Fate::Exit(pid, Exit::Code(203)));
        } else if main {
            if let UnitKind::Service(service) = &self.spec(unit).kind {
                self.plan_of_main(pid, unit, service.kind);
                if service.kind == ServiceKind::Exec && self.dice.one_in(2) {
                    executed = Executed::Later;
                    if self.calm || !self.dice.one_in(8) {
                        let delay = self.dice.delay();
                        self.later(delay, Fate::Executed(pid));
                    }
                }
            }
        } else if kind == Kind::Check {
            let code = if self.calm { 0 } else { *self.dice.pick(&[0, 0, 1, 255]) };
            let delay = self.dice.delay();
            self.later(delay, Fate::Exit(pid, Exit::Code(code)));
        } else if self.calm || !self.dice.one_in(10) {
            let code = u8::from(!self.calm && self.dice.one_in(8));
            let delay = self.dice.delay();
            self.later(delay, Fate::Exit(pid, Exit::Code(code)));
        }
        Ok(Spawned { pid, executed })
    }

    fn kill(&mut self, unit: UnitId, whom: Whom, signal: i32) {
        self.calls += 1;
        let hit: Vec<u32> = match whom {
            Whom::Process(pid) => vec![pid],
            Whom::All => self
                .processes
                .iter()
                .filter(|(_, process)| process.unit == unit && process.kind.is_of_the_service())
                .map(|(pid, _)| *pid)
                .collect(),
        };
        for pid in hit {
            let deaf = self.processes.get(&pid).is_none_or(|process| process.deaf);
            if signal == libc::SIGKILL
                || ([libc::SIGTERM, libc::SIGABRT].contains(&signal) && !deaf)
            {
                let delay = self.dice.delay();
                self.later(delay, Fate::Exit(pid, Exit::Signal(signal)));
            }
        }
        if whom == Whom::All && signal == libc::SIGKILL && self.leftovers[unit.index()] {
            self.later(1, Fate::Empty(unit));
        }
    }

    fn populated(&mut self, unit: UnitId) -> bool {
        self.is_populated(unit)
    }

    fn in_use(&mut self, unit: UnitId) -> bool {
        let UnitKind::Service(service) = &self.spec(unit).kind else { return false };
        let doors = service.sockets.iter().flat_map(|socket| &self.doors[socket.index()]);
        doors.map(|door| door.waiting).sum::<u32>() > 0
    }

    fn freeze(&mut self, unit: UnitId) -> Freeze {
        self.calls += 1;
        if self.dice.one_in(8) {
            return Freeze::Never;
        }
        assert!(self.frozen.insert(unit, false).is_none(), "{unit:?} is frozen already");
        if self.calm || !self.dice.one_in(8) {
            let delay = self.dice.delay();
            self.later(delay, Fate::Frost(unit));
        }
        Freeze::Soon
    }

    fn is_frozen(&mut self, unit: UnitId) -> bool {
        self.frozen.get(&unit) == Some(&true)
    }

    fn thaw(&mut self, unit: UnitId) {
        self.calls += 1;
        assert!(self.frozen.remove(&unit).is_some(), "{unit:?} is not frozen");
        for pid in std::mem::take(&mut self.asleep) {
            self.later(0, Fate::Serve(pid));
        }
    }

    fn accept(&mut self, unit: UnitId, listener: u16) -> Accepted {
        self.calls += 1;
        assert!(!self.pending, "a connection is nobody's");
        if !self.calm && self.dice.one_in(20) {
            let errors = [libc::EMFILE, libc::ENFILE, libc::ENOMEM, libc::ENOBUFS];
            return Accepted::Failed(errors[self.dice.below(4) as usize]);
        }
        let door = &mut self.doors[unit.index()][usize::from(listener)];
        assert!(door.open && !door.watched);
        if door.waiting == 0 {
            return Accepted::Nothing;
        }
        door.waiting -= 1;
        if self.dice.one_in(10) {
            return Accepted::Aborted;
        }
        self.pending = true;
        Accepted::Connection(Peer::Unix { pid: 1, uid: self.dice.below(3) as u32 })
    }

    fn keep(&mut self, instance: UnitId, _: u64) {
        self.calls += 1;
        assert!(std::mem::take(&mut self.pending), "there is no connection to keep");
        // What KillMode=process has left is nobody's.
        let own = |process: &Process| {
            process.unit == instance && (process.main || process.kind == Kind::Command)
        };
        assert!(!self.processes.values().any(own), "{instance:?} has somebody");
        let before = self.held.insert(instance, Connection::default());
        assert!(before.is_none(), "{instance:?} has a connection");
    }

    fn refuse(&mut self) {
        self.calls += 1;
        assert!(std::mem::take(&mut self.pending), "there is no connection to refuse");
    }

    fn release(&mut self, instance: UnitId) {
        self.calls += 1;
        let main = |process: &Process| process.unit == instance && process.main;
        assert!(!self.processes.values().any(main), "{instance:?} is free, but runs");
        assert!(self.held.remove(&instance).is_some(), "{instance:?} had no connection");
    }

    fn find_main(&mut self, unit: UnitId) -> Found {
        let own = |(_, process): &(&u32, &Process)| {
            process.unit == unit && process.kind == Kind::Daemon && !process.main
        };
        let by_file = match &self.spec(unit).kind {
            UnitKind::Service(service) => service.pid_file.is_some(),
            _ => false,
        };
        let hides = !self.calm && self.dice.one_in(4);
        match (self.processes.iter().find(own), by_file) {
            (Some(_) | None, true) if hides => Found::NotYet,
            (Some(_), false) if hides => Found::Unclear,
            (Some((pid, _)), _) => Found::Process(*pid),
            (None, true) => Found::NotYet,
            (None, false) if self.is_populated(unit) => Found::Unclear,
            (None, false) => Found::Nobody,
        }
    }

    fn adopt(&mut self, unit: UnitId, pid: u32) -> bool {
        let other = |(other, process): (&u32, &Process)| {
            *other != pid && process.unit == unit && process.main
        };
        assert!(!self.processes.iter().any(other), "{unit:?} has two main processes");
        let Some(process) = self.processes.get_mut(&pid) else { return false };
        process.main = true;
        true
    }

    fn alive(&mut self, _: UnitId, pid: u32) -> bool {
        self.processes.contains_key(&pid)
    }

    fn drop_store(&mut self, _: UnitId) {}

    fn tell(&mut self, _: Option<UnitId>, event: Event) {
        if let Event::Paused(hold) = event {
            assert!(hold > 0, "a pause of nothing");
        }
    }
}

/// xorshift64*: enough for this, and the same everywhere.
#[derive(Debug)]
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % bound
    }

    fn one_in(&mut self, count: u64) -> bool {
        self.below(count) == 0
    }

    fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len() as u64) as usize]
    }

    /// Microseconds: none, a few, or seconds.
    fn delay(&mut self) -> u64 {
        let most = *self.pick(&[1, 1000, 10_000_000]);
        self.below(most)
    }
}
