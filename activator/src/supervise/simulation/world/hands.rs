//! What a supervisor does to the world, and what it may not do.

use super::super::super::{
    Accepted, Executed, Found, Freeze, Hands, OpenFailed, Spawned, Step, Told, Whom,
};
use super::{Connection, Door, Fate, Kind, Process, World};
use activator::control::{Event, Exit};
use activator::manifest::*;
use activator::peer::Peer;

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
        let ordered = std::mem::take(&mut self.closable[unit.index()]);
        assert!(self.going_down || ordered, "closed {unit:?}");
        let doors = &mut self.doors[unit.index()];
        assert!(doors.iter().all(|door| !door.watched), "{unit:?} is closed and watched");
        doors.fill_with(Door::default);
    }

    fn flush(&mut self, _: UnitId) {}

    fn watch(&mut self, unit: UnitId, listener: u16) -> Result<(), i32> {
        self.calls += 1;
        let UnitKind::Socket(socket) = &self.manifest.units[unit.index()].kind else {
            panic!("{unit:?} is no socket");
        };
        let group = match &self.manifest.units[socket.service.index()].kind {
            UnitKind::Service(service) => {
                matches!(service.kill_mode, KillMode::ControlGroup | KillMode::Mixed)
            }
            _ => false,
        };
        let left = self.lets_live(socket.service);
        let main = |process: &Process| process.unit == socket.service && process.main && !left;
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
        if main {
            self.leave(unit);
        }
        assert!(kind != Kind::Health || !self.frozen.contains_key(&unit), "{unit:?} is frozen");
        let same = |process: &Process| {
            process.unit == unit
                && process.main == main
                && (process.main || (process.kind == kind && kind != Kind::Clean))
        };
        let left = kind == Kind::Command && self.lets_live(unit);
        assert!(left || !self.processes.values().any(same), "{unit:?} has two for {step:?}");
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
        assert!(!door.watched);
        // An edge may be older than the stop of its socket: there is no fd then.
        if !door.open || door.waiting == 0 {
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
        self.leave(instance);
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

    fn tell(&mut self, unit: Option<UnitId>, event: Event) {
        if self.shown {
            eprintln!("{}: {unit:?} {event:?}", self.now);
        }
        if let Event::Paused(hold) = event {
            assert!(hold > 0, "a pause of nothing");
        }
    }
}
