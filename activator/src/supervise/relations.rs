//! What the end or the coming up of one unit means for others (systemd.unit(5)).
//!
//! | a unit | relation | then |
//! |---|---|---|
//! | goes down by itself | `BindsTo=` to it, its `PropagatesStopTo=` | those are stopped |
//! | is down | `Upholds=` of one that is up | it is started again |
//! | has failed, or a limit holds its restart | its `OnFailure=` | those are started |
//! | has ended well | its `OnSuccess=` | those are started |
//! | goes down, or is up | what it needed, or it itself, has `StopWhenUnneeded=` | stopped, if nobody else needs it |
//!
//! `PartOf=`, `Requires=` and `Requisite=` are about orders and jobs, see [`super::jobs`], and so
//! is `PropagatesStopTo=` where there is an order.
//! Nothing of this happens while the machine goes down, or to instances of `Accept=yes`.

use super::hands::Ended;
use super::{Cause, JobKind, State, Supervisor, id};
use activator::control::{MachineState, SocketState};
use activator::manifest::UnitId;

/// As much of a unit's state as others act on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Standing {
    /// Down, as it should be or because it never ran.
    #[default]
    Down,
    Failed,
    /// Waits for a restart.
    Waiting,
    /// On its way up or down.
    Between,
    Up,
}

impl Supervisor<'_> {
    /// Lets units react to what has changed since the last time. True if any has a job for it.
    pub(super) fn react(&mut self) -> bool {
        if self.machine == MachineState::Stopping {
            return false;
        }
        let mut moved = false;
        let own = self.manifest.units.len();
        self.each_awake(|it, index| {
            let now = it.standing(id(index));
            if index < own && it.units[index].standing != now {
                let before = std::mem::replace(&mut it.units[index].standing, now);
                moved |= it.changed(id(index), before, now);
            }
        });
        moved
    }

    /// After a reload: nothing has changed that others have not seen.
    pub(super) fn note_standing(&mut self) {
        for index in 0..self.manifest.units.len() {
            self.units[index].standing = self.standing(id(index));
        }
    }

    fn standing(&self, unit: UnitId) -> Standing {
        match &self.units[unit.index()].state {
            State::Service(service) if service.is_failed() => Standing::Failed,
            State::Service(service) if service.is_down() => Standing::Down,
            State::Service(service) if service.is_gone() => Standing::Waiting,
            State::Service(service) if service.is_up() => Standing::Up,
            State::Service(_) => Standing::Between,
            State::Socket(socket) if socket.state == SocketState::Failed => Standing::Failed,
            State::Socket(_) if self.is_down(unit) => Standing::Down,
            State::Socket(_) if self.is_open(unit) => Standing::Up,
            State::Socket(_) => Standing::Between,
            State::Target { active: true } => Standing::Up,
            State::Target { active: false } => Standing::Down,
        }
    }

    fn changed(&mut self, unit: UnitId, before: Standing, now: Standing) -> bool {
        use Standing::{Between, Down, Failed, Up, Waiting};
        let manifest = self.manifest;
        let spec = &manifest.units[unit.index()];
        let mut moved = false;
        let ended = match &self.units[unit.index()].state {
            State::Service(service) => Some(service.ended()),
            _ => None,
        };
        match now {
            Failed => moved |= self.start_for(unit, &spec.on_failure, ended),
            Down if matches!(before, Up | Between) && !self.units[unit.index()].hold.skipped => {
                moved |= self.start_for(unit, &spec.on_success, ended);
            }
            _ => {}
        }
        // With a job it did not go by itself, or comes back at once.
        if matches!(now, Down | Failed | Waiting) && self.units[unit.index()].job.is_none() {
            for index in 0..self.graph.bound[unit.index()].len() {
                let other = self.graph.bound[unit.index()][index];
                if !self.is_down(other) && !self.stops(other) {
                    self.stop(other, JobKind::Stop);
                    moved = true;
                }
            }
        }
        if matches!(now, Down | Failed) {
            moved |= self.uphold(unit);
            let needed = [&spec.requires, &spec.requisite, &spec.binds_to, &spec.wants];
            for other in needed.into_iter().chain([&spec.upholds]).flatten() {
                moved |= self.stop_if_unneeded(*other);
            }
        }
        if now == Up {
            moved |= self.stop_if_unneeded(unit);
            for other in &spec.upholds {
                moved |= self.uphold(*other);
            }
        }
        moved
    }

    /// `OnFailure=` and `OnSuccess=`.
    pub(super) fn start_for(
        &mut self,
        unit: UnitId,
        others: &[UnitId],
        ended: Option<Ended>,
    ) -> bool {
        for other in others.iter().filter(|other| **other != unit) {
            if let (State::Service(service), Some(ended)) =
                (&mut self.units[other.index()].state, ended)
                && service.is_gone()
            {
                service.monitor(unit, ended);
            }
            self.start(*other, Cause::Machine);
        }
        !others.is_empty()
    }

    /// Starts a unit that is down if one that is up wants it to be up always.
    fn uphold(&mut self, unit: UnitId) -> bool {
        let wanted = self.graph.upheld_by[unit.index()]
            .iter()
            .any(|other| *other != unit && self.is_up(*other) && !self.stops(*other));
        let idle = self.is_down(unit) && self.units[unit.index()].job.is_none();
        if wanted && idle {
            self.start(unit, Cause::Machine);
        }
        wanted && idle
    }

    /// Stops a unit with `StopWhenUnneeded=` that is up for nobody's sake.
    fn stop_if_unneeded(&mut self, unit: UnitId) -> bool {
        if !self.spec(unit).stop_when_unneeded
            || !self.is_up(unit)
            || self.units[unit.index()].job.is_some()
        {
            return false;
        }
        let needs = |other: &UnitId| {
            let waits = self.units[other.index()].job.is_some_and(|it| it.kind != JobKind::Stop);
            *other != unit && (waits || (!self.is_down(*other) && !self.stops(*other)))
        };
        if self.graph.needed_by[unit.index()].iter().any(needs) {
            return false;
        }
        self.stop(unit, JobKind::Stop);
        true
    }

    /// Whether a unit has a job to go down for good.
    fn stops(&self, unit: UnitId) -> bool {
        self.units[unit.index()].job.is_some_and(|job| job.kind == JobKind::Stop)
    }
}
