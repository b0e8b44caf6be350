//! The supervisor over a reload: what is handed over of each unit, and how it goes on.
//!
//! | a unit is | then |
//! |---|---|
//! | in both manifests | it goes on where it was; what it does next is by the new definition |
//! | a socket unit with other listeners | those that it keeps stay open, the others are opened |
//! | only in the new one | it is started, if it starts at boot |
//! | only in the old one, and not down | a stop job, by the old definition |
//!
//! So a running service is left alone whatever has changed, as by systemd's daemon-reload.

use super::{Cause, Hands, Job, JobKind, State, Supervisor, Turn, Unit, id, service};
use activator::control::MachineState;
use activator::manifest::{Manifest, UnitId, UnitKind};
use activator::wire;
use activator::wire::Raw;

/// What is handed over beside the units.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Machine {
    state: MachineState,
    started_us: u64,
    listening_us: u64,
}

wire! {
    struct Machine { state, started_us, listening_us }
}

/// What becomes of a unit of the manifest that is in force after a reload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It goes on, or waits to be started.
    Stays,
    /// A socket unit has listeners that are not open yet.
    Opens,
    /// Started, for it is new.
    Starts,
    /// Stopped, for the new manifest has it no more.
    Ends,
}

impl Unit {
    /// What another process has handed over for a unit of that kind; None if that is nothing to
    /// go on with. A service of which only the main process is understood counts as running.
    pub(crate) fn take_over(saved: &Raw, main: Option<u32>, kind: &UnitKind) -> Option<Self> {
        if let Ok(unit) = saved.read::<Self>() {
            let fits = matches!(
                (&unit.state, kind),
                (State::Socket(_), UnitKind::Socket(_))
                    | (State::Service(_), UnitKind::Service(_))
                    | (State::Target { .. }, UnitKind::Target)
            );
            return fits.then_some(unit);
        }
        let UnitKind::Service(spec) = kind else { return None };
        Some(Self::new(State::Service(service::Service::running(spec, main?))))
    }

    /// The main process of a service.
    pub(crate) fn main(&self) -> Option<u32> {
        match &self.state {
            State::Service(service) => service.main(),
            _ => None,
        }
    }

    /// Whether nothing of it is left, and nobody wants it.
    pub(crate) fn is_idle(&self) -> bool {
        self.job.is_none()
            && self.visitor.is_none()
            && self.check.is_none()
            && match &self.state {
                state @ State::Socket(_) => super::socket_command::is_down(state),
                State::Service(service) => service.is_down() && !service.is_asked(),
                State::Target { active } => !active,
            }
    }
}

impl<'m> Supervisor<'m> {
    /// What changes of a unit.
    pub(crate) fn unit(&self, unit: UnitId) -> Option<&Unit> {
        self.units.get(unit.index())
    }

    /// What changes of the machine as a whole.
    pub(crate) fn machine(&self) -> Machine {
        let (started_us, listening_us) = (self.started_us, self.listening_us);
        Machine { state: self.machine, started_us, listening_us }
    }

    /// Makes the tables from what was handed over, of units and behind them of instances; None is
    /// one that is new. Nothing moves before [`Supervisor::go_on`].
    pub(crate) fn resume(
        manifest: &'m Manifest,
        now: u64,
        machine: Machine,
        units: impl Iterator<Item = Option<Unit>>,
    ) -> Self {
        let mut resumed = Self::new(manifest, machine.started_us);
        resumed.machine = machine.state;
        resumed.listening_us = machine.listening_us;
        resumed.ticked_us = now;
        for (index, saved) in units.enumerate().take(resumed.units.len()) {
            let Some(mut saved) = saved else { continue };
            match (&mut saved.state, &resumed.spec(id(index)).kind) {
                (State::Socket(socket), UnitKind::Socket(spec)) => socket.resume(spec),
                (State::Service(service), UnitKind::Service(spec)) => service.resume(spec),
                _ => {}
            }
            resumed.units[index] = saved;
        }
        resumed.note_standing();
        resumed
    }

    /// Goes on after a reload; one fate for each unit.
    pub(crate) fn go_on(&mut self, now: u64, hands: &mut dyn Hands, fates: &[Fate]) {
        let turn = &mut Turn { now, hands };
        for index in 0..self.units.len() {
            self.adopt_again(turn, id(index));
        }
        for (index, fate) in fates.iter().enumerate().take(self.units.len()) {
            match fate {
                Fate::Opens if self.is_open(id(index)) => self.open(turn, id(index)),
                Fate::Starts => {
                    self.start(id(index), Cause::Machine);
                }
                _ => {}
            }
        }
        // Last, so that no start takes a stop back.
        for (index, fate) in fates.iter().enumerate().take(self.units.len()) {
            if *fate == Fate::Ends {
                let unit = &mut self.units[index];
                let begun = unit.job.is_some_and(|job| job.kind != JobKind::Start && job.begun);
                unit.job = Some(Job { kind: JobKind::Stop, begun });
            }
        }
        self.settle(turn);
    }
}
