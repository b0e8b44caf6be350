//! What runs out: starts, stops, watchdogs, the whole run.

use super::{KILL_AGAIN_US, Outcome, Phase};
use crate::supervise::hands::{Step, Whom};
use crate::supervise::{Cause, Supervisor, Turn};
use activator::control::{Event, MachineState};
use activator::manifest::{FailureMode, KillMode, UnitId};

impl Supervisor<'_> {
    pub(in crate::supervise) fn service_tick(&mut self, turn: &mut Turn, unit: UnitId) {
        let Some((service, spec)) = self.service_and_spec(unit) else { return };
        let now = turn.now;
        let due = |at: Option<u64>| at.is_some_and(|at| at <= now);
        if due(service.deadline) {
            service.deadline = None;
            self.run_out(turn, unit);
        } else if due(service.watchdog_at) {
            service.blame(Outcome::Watchdog);
            turn.hands.tell(Some(unit), Event::TimedOut(spec.watchdog_signal));
            self.abort(turn, unit);
        } else if due(service.runtime_at) {
            service.runtime_at = None;
            service.blame(Outcome::Timeout);
            turn.hands.tell(Some(unit), Event::TimedOut(spec.kill_signal));
            self.stop_now(turn, unit);
        } else if due(service.checkup.next()) {
            self.health_tick(turn, unit);
        } else if due(service.look_at) {
            service.look_at = None;
            self.look_for_main(turn, unit);
        }
    }

    /// ExecStop= and all that follows, from any phase in which it is up or nearly so.
    pub(super) fn stop_now(&mut self, turn: &mut Turn, unit: UnitId) {
        let Some(service) = self.service(unit) else { return };
        match service.control {
            Some(_) => self.terminate(turn, unit),
            None => self.run(turn, unit, Step::Stop(0)),
        }
    }

    /// The phase has lasted too long.
    fn run_out(&mut self, turn: &mut Turn, unit: UnitId) {
        let stopping = self.machine == MachineState::Stopping;
        let Some((service, spec)) = self.service_and_spec(unit) else { return };
        let mode = match service.phase {
            Phase::Stop(_) | Phase::Terminating => spec.stop_failure,
            _ => spec.start_failure,
        };
        match service.phase {
            Phase::Waiting => {
                service.restarting = true;
                self.start(unit, Cause::Machine);
            }
            Phase::Reload(_) | Phase::Reloading => {
                turn.hands.tell(Some(unit), Event::TimedOut(libc::SIGKILL));
                match service.control {
                    // Its end goes on: until then no other command may run.
                    Some(pid) => {
                        service.deadline = Some(turn.now.saturating_add(KILL_AGAIN_US));
                        turn.hands.kill(unit, Whom::Process(pid), libc::SIGKILL);
                    }
                    None => self.fail_to_reload(turn, unit),
                }
            }
            Phase::Condition(_)
            | Phase::StartPre(_)
            | Phase::Start(_)
            | Phase::Adopting
            | Phase::StartPost(_)
            | Phase::Stop(_) => {
                service.blame(Outcome::Timeout);
                let signal = match mode {
                    FailureMode::Terminate => spec.kill_signal,
                    FailureMode::Abort => spec.watchdog_signal,
                    FailureMode::Kill => spec.final_kill_signal,
                };
                turn.hands.tell(Some(unit), Event::TimedOut(signal));
                match mode {
                    FailureMode::Terminate => self.terminate(turn, unit),
                    FailureMode::Abort => self.abort(turn, unit),
                    FailureMode::Kill => self.kill(turn, unit, Phase::Killing),
                }
            }
            Phase::Terminating if mode == FailureMode::Abort => {
                service.blame(Outcome::Timeout);
                turn.hands.tell(Some(unit), Event::TimedOut(spec.watchdog_signal));
                self.abort(turn, unit);
            }
            Phase::Terminating | Phase::Aborting => {
                service.blame(Outcome::Timeout);
                turn.hands.tell(Some(unit), Event::TimedOut(spec.final_kill_signal));
                if spec.send_sigkill && spec.kill_mode != KillMode::None {
                    self.kill(turn, unit, Phase::Killing);
                } else {
                    self.abandon(turn, unit);
                }
            }
            Phase::StopPost(_) => {
                service.blame(Outcome::Timeout);
                turn.hands.tell(Some(unit), Event::TimedOut(libc::SIGKILL));
                if let Some(pid) = service.control {
                    turn.hands.kill(unit, Whom::Process(pid), libc::SIGKILL);
                }
                self.sweep(turn, unit);
            }
            Phase::Cleaning => {
                if let Some(pid) = service.control {
                    turn.hands.kill(unit, Whom::Process(pid), libc::SIGKILL);
                }
                self.abandon(turn, unit);
            }
            // It does not even die of SIGKILL (a hung disk). Going down does not wait for that.
            Phase::Killing | Phase::Sweeping if stopping => self.abandon(turn, unit),
            Phase::Sweeping if !spec.send_sigkill => self.abandon(turn, unit),
            phase @ (Phase::Killing | Phase::Sweeping) => self.kill(turn, unit, phase),
            Phase::Dead | Phase::Failed | Phase::Running | Phase::Exited => {}
        }
    }
}
