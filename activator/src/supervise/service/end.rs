//! What the end of a process leads to.

use super::outcome::{judge, judge_command};
use super::{Outcome, Phase};
use crate::supervise::hands::Step;
use crate::supervise::{Supervisor, Turn};
use activator::control::{Event, Exit};
use activator::manifest::{Command, ExitType, ServiceKind, UnitId};

impl Supervisor<'_> {
    /// A process has ended. False if it is none of this unit's.
    pub(in crate::supervise) fn ended(
        &mut self,
        turn: &mut Turn,
        unit: UnitId,
        pid: u32,
        exit: Exit,
    ) -> bool {
        let Some(service) = self.service(unit) else { return false };
        if service.checkup.is(pid) {
            self.health_ended(turn, unit, exit);
        } else if service.control == Some(pid) {
            service.control = None;
            self.control_ended(turn, unit, exit);
        } else if service.main == Some(pid) {
            service.main = None;
            service.last_exit = Some(exit);
            service.main_exit = Some(exit);
            turn.hands.tell(Some(unit), Event::Exited(exit));
            self.main_ended(turn, unit, exit);
        } else {
            return false;
        }
        true
    }

    /// After a reload: a main process that need not be our child is watched again. What would have
    /// told that a program was executed is gone with the process before: it counts as executed.
    pub(in crate::supervise) fn adopt_again(&mut self, turn: &mut Turn, unit: UnitId) {
        let Some(service) = self.service(unit) else { return };
        if let Some(pid) = service.main.filter(|_| service.adopted) {
            // One that has ended meanwhile is found by the first look.
            turn.hands.adopt(unit, pid);
        }
        self.program_executed(turn, unit);
    }

    /// Other processes have gone: is one that waits for them done?
    pub(in crate::supervise) fn look_for_processes(&mut self, turn: &mut Turn, unit: UnitId) {
        let Some((service, spec)) = self.service_and_spec(unit) else { return };
        let by_group = service.mainless || spec.exit_type == ExitType::Cgroup;
        match service.phase {
            Phase::Dead | Phase::Failed | Phase::Waiting => {}
            Phase::Aborting | Phase::Terminating | Phase::Killing | Phase::Sweeping => {
                self.look(turn, unit);
            }
            Phase::Adopting if !turn.hands.populated(unit) => self.look_for_main(turn, unit),
            Phase::Running | Phase::Reloading
                if by_group && service.main.is_none() && !turn.hands.populated(unit) =>
            {
                // Nobody is left to say that its reload is over.
                service.enter(Phase::Running, turn.now, 0);
                self.finish(turn, unit);
            }
            _ if !service.adopted => {}
            // Its own parent reaped it, so how it ended is not known.
            _ => {
                if let Some(pid) = service.main
                    && !turn.hands.alive(unit, pid)
                {
                    self.ended(turn, unit, pid, Exit::Code(0));
                }
            }
        }
    }

    fn main_ended(&mut self, turn: &mut Turn, unit: UnitId, exit: Exit) {
        let Some((service, spec)) = self.service_and_spec(unit) else { return };
        let ignored = match service.phase {
            Phase::Start(index) => spec.start.get(usize::from(index)),
            _ => spec.start.last(),
        }
        .is_some_and(|command| command.ignore_failure);
        let outcome = if ignored { Outcome::Success } else { judge(spec, exit) };
        service.blame(outcome);
        if matches!((service.phase, spec.kind), (Phase::Start(_), ServiceKind::Forking)) {
            // The child is not the main process, whose end others are told.
            service.main_exit = None;
        }
        match (service.phase, spec.kind) {
            (Phase::Start(index), ServiceKind::Oneshot) if outcome == Outcome::Success => {
                self.run(turn, unit, Step::Start(index.saturating_add(1)));
            }
            (Phase::Start(_), ServiceKind::Forking) if outcome == Outcome::Success => {
                self.look_for_main(turn, unit);
            }
            (Phase::Start(_), kind) => {
                if matches!(kind, ServiceKind::Notify | ServiceKind::NotifyReload) {
                    service.blame(Outcome::Protocol);
                }
                self.terminate(turn, unit);
            }
            (Phase::Running | Phase::Reloading, _) => {
                service.phase = Phase::Running;
                service.deadline = None;
                self.finish(turn, unit);
            }
            (Phase::Aborting | Phase::Terminating | Phase::Killing | Phase::Sweeping, _) => {
                self.look(turn, unit)
            }
            _ => {}
        }
    }

    fn control_ended(&mut self, turn: &mut Turn, unit: UnitId, exit: Exit) {
        let Some((service, spec)) = self.service_and_spec(unit) else { return };
        let (commands, index, next): (&[Command], u16, fn(u16) -> Step) = match service.phase {
            Phase::Condition(index) => (&spec.condition, index, Step::Condition),
            Phase::StartPre(index) => (&spec.start_pre, index, Step::StartPre),
            Phase::StartPost(index) => (&spec.start_post, index, Step::StartPost),
            Phase::Reload(index) => (&spec.reload, index, Step::Reload),
            Phase::Stop(index) => (&spec.stop, index, Step::Stop),
            Phase::StopPost(index) => (&spec.stop_post, index, Step::StopPost),
            _ => return self.look(turn, unit),
        };
        let ignored =
            commands.get(usize::from(index)).is_some_and(|command| command.ignore_failure);
        let outcome = if ignored { Outcome::Success } else { judge_command(spec, exit) };
        if outcome == Outcome::Success {
            return self.run(turn, unit, next(index.saturating_add(1)));
        }
        if matches!((service.phase, exit), (Phase::Condition(_), Exit::Code(1..=254))) {
            service.blame(Outcome::Skipped);
            return self.terminate(turn, unit);
        }
        turn.hands.tell(Some(unit), Event::CommandFailed(exit));
        match service.phase {
            Phase::Reload(_) => self.fail_to_reload(turn, unit),
            // What comes after the service is cleaned up in any case.
            Phase::StopPost(_) => {
                service.blame(outcome);
                self.run(turn, unit, next(index.saturating_add(1)));
            }
            _ => {
                service.blame(outcome);
                self.terminate(turn, unit);
            }
        }
    }
}
