//! Jobs: which units are wanted up or down, and when each may move.

use super::check::Hold;
use super::{Cause, Job, JobKind, State, Supervisor, Turn, id};
use activator::control::{Event, JobResult, MachineState};
use activator::manifest::UnitId;

impl Supervisor<'_> {
    /// Wants a unit up, with what it requires and wants; what conflicts with them is wanted
    /// down. False if the machine is going down.
    pub(super) fn start(&mut self, unit: UnitId, cause: Cause) -> bool {
        if self.machine == MachineState::Stopping {
            return false;
        }
        self.reach.mark(unit, &self.graph.pulls);
        for index in 0..self.units.len() {
            if !self.reach.marks[index] || self.slots.is_template(id(index)) {
                continue;
            }
            if cause == Cause::Order
                && let State::Service(service) = &mut self.units[index].state
            {
                service.forgive();
                self.units[index].hold = Hold::default();
            }
            let up = self.is_up(id(index));
            let job = &mut self.units[index].job;
            match job {
                Some(Job { kind: JobKind::Start | JobKind::Restart, .. }) => {}
                Some(Job { kind: JobKind::Stop, begun: false }) if up => *job = None,
                None if up => {}
                _ => *job = Some(Job { kind: JobKind::Start, begun: false }),
            }
        }
        // Now the other way: whoever conflicts with one that has a job to start.
        for index in 0..self.units.len() {
            let starts = self.reach.marks[index]
                && self.units[index].job.is_some_and(|job| job.kind == JobKind::Start);
            if !starts {
                continue;
            }
            for edge in 0..self.graph.conflicts[index].len() {
                let other = self.graph.conflicts[index][edge];
                if !self.is_down(other) {
                    self.want_down(other.index(), JobKind::Stop);
                } else if !self.reach.marks[other.index()] {
                    // A start that has not begun gives way, or the two wait for each other.
                    self.units[other.index()].job = None;
                }
            }
        }
        true
    }

    /// Wants a unit down, and all that require it or are part of it; a restart brings all of them
    /// back.
    pub(super) fn stop(&mut self, unit: UnitId, kind: JobKind) {
        self.reach.mark(self.slots.source(unit), &self.graph.drags);
        self.each_present(|it, index| {
            if it.reach.marks[it.slots.source(id(index)).index()] {
                // No instance comes back: its connection does not.
                let instance = it.slots.owner(id(index)).is_some();
                if !it.is_down(id(index)) {
                    it.want_down(index, if instance { JobKind::Stop } else { kind });
                } else if it.units[index].job.is_some_and(|job| job.kind == JobKind::Start) {
                    it.units[index].job = None;
                }
            }
        });
    }

    /// Moves every unit that can move, until none can.
    pub(super) fn settle(&mut self, turn: &mut Turn) {
        self.ticked_us = turn.now;
        // Each round ends at least one job or begins one, and what units do for each other's sake
        // needs a change of state; so rounds are bounded by the number of jobs. The bound is for
        // a mistake in here, which must not hang PID 1.
        for _ in 0..=self.units.len().saturating_mul(4) {
            let mut moved = false;
            self.each_awake(|it, index| {
                if it.units[index].job.is_some() {
                    moved |= it.advance(turn, id(index));
                }
            });
            if !moved && !self.react() {
                break;
            }
        }
        self.free_slots(turn);
        self.follow_all_idle(turn);
        self.wake_followers();
        self.each_awake(|it, index| it.follow(turn, id(index)));
        if self.machine != MachineState::Stopping {
            self.note_listening(turn.now);
        }
        if self.machine == MachineState::Starting
            && self.awake().all(|index| self.units[index].job.is_none())
        {
            self.machine = MachineState::Running;
            turn.hands.tell(None, Event::Booted);
        }
        self.fall_asleep();
    }

    /// Whether a unit counts as started.
    pub(super) fn is_up(&self, unit: UnitId) -> bool {
        match &self.units[unit.index()].state {
            State::Socket(_) => self.is_open(unit),
            State::Service(service) => service.is_up(),
            State::Target { active } => *active,
        }
    }

    /// Whether nothing of a unit is left, not even a restart to come.
    pub(super) fn is_down(&self, unit: UnitId) -> bool {
        match &self.units[unit.index()].state {
            state @ State::Socket(_) => super::socket_command::is_down(state),
            State::Service(service) => service.is_down(),
            State::Target { active } => !*active,
        }
    }

    fn advance(&mut self, turn: &mut Turn, unit: UnitId) -> bool {
        let Some(job) = self.units[unit.index()].job else { return false };
        match job.kind {
            JobKind::Start => self.advance_start(turn, unit, job),
            JobKind::Stop | JobKind::Restart => self.advance_stop(turn, unit, job),
        }
    }

    fn advance_start(&mut self, turn: &mut Turn, unit: UnitId, job: Job) -> bool {
        if self.is_up(unit) {
            self.units[unit.index()].job = None;
            self.units[unit.index()].result = JobResult::Done;
            return true;
        }
        if job.begun || !self.may_begin(turn, unit) || self.waits_to_start(unit) {
            return false;
        }
        if self.lacks_requirement(unit) {
            self.units[unit.index()].job = None;
            self.units[unit.index()].hold.skipped = false;
            self.fail_to_start(turn, unit);
            return true;
        }
        if !self.conditions_hold(turn, unit) {
            return false;
        }
        self.units[unit.index()].hold.skipped = false;
        self.units[unit.index()].job = Some(Job { begun: true, ..job });
        match &mut self.units[unit.index()].state {
            State::Socket(_) => self.start_socket(turn, unit),
            State::Service(_) => self.begin(turn, unit),
            State::Target { active } => *active = true,
        }
        true
    }

    fn advance_stop(&mut self, turn: &mut Turn, unit: UnitId, job: Job) -> bool {
        if self.is_down(unit) {
            self.units[unit.index()].job = match job.kind {
                JobKind::Restart => Some(Job { kind: JobKind::Start, begun: false }),
                _ => None,
            };
            return true;
        }
        if job.begun || self.waits_to_stop(unit) {
            return false;
        }
        self.units[unit.index()].job = Some(Job { begun: true, ..job });
        match &mut self.units[unit.index()].state {
            State::Socket(_) => self.close(turn, unit),
            State::Service(_) => self.bring_down(turn, unit),
            State::Target { active } => *active = false,
        }
        true
    }

    /// A unit starts when what it comes after has no job left, when no unit that comes after it
    /// is still being stopped, and when what it conflicts with is down.
    fn waits_to_start(&self, unit: UnitId) -> bool {
        let job = |other: &UnitId| self.units[other.index()].job;
        let stops = |other: &UnitId| job(other).is_some_and(|job| job.kind != JobKind::Start);
        self.spec(unit).after.iter().any(|other| *other != unit && job(other).is_some())
            || self.graph.before[unit.index()].iter().any(stops)
            || self.graph.conflicts[unit.index()].iter().any(|other| !self.is_down(*other))
    }

    /// A unit stops when all that comes after it, and is to stop, is down.
    fn waits_to_stop(&self, unit: UnitId) -> bool {
        self.graph.before[unit.index()].iter().any(|other| {
            *other != unit
                && self.units[other.index()].job.is_some_and(|job| job.kind != JobKind::Start)
                && !self.is_down(*other)
        })
    }

    fn lacks_requirement(&self, unit: UnitId) -> bool {
        let spec = self.spec(unit);
        let after = |id: &&UnitId| spec.after.contains(id);
        spec.requires.iter().filter(after).any(|id| !self.is_satisfied(*id))
            || spec.binds_to.iter().filter(after).any(|id| !self.is_up(*id))
            || spec.requisite.iter().any(|id| !self.is_up(*id))
    }

    pub(super) fn conflict(&self, one: usize, other: usize) -> bool {
        self.graph.conflicts[one].contains(&id(other))
    }

    pub(super) fn want_down(&mut self, index: usize, kind: JobKind) {
        let job = &mut self.units[index].job;
        let begun = job.is_some_and(|job| job.kind != JobKind::Start && job.begun);
        *job = Some(Job { kind, begun });
    }
}
