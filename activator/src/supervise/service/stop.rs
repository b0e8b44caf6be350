//! The way down: signals, waiting until all are gone, and what is left of a run.

use super::{KILL_AGAIN_US, Outcome, Phase, STOP_AT_SHUTDOWN_US};
use crate::supervise::hands::{Step, Told, Whom};
use crate::supervise::{JobKind, State, Supervisor, Turn};
use activator::control::{Event, Exit, JobResult, MachineState};
use activator::manifest::{KillMode, UnitId};
use activator::stage2::{self, Need, Next};

impl Supervisor<'_> {
    /// A stop job has begun.
    pub(in crate::supervise) fn bring_down(&mut self, turn: &mut Turn, unit: UnitId) {
        let Some(service) = self.service(unit) else { return };
        service.unwanted = true;
        match service.phase {
            Phase::Waiting => {
                service.enter(Phase::Dead, turn.now, 0);
                self.drop_store(turn, unit);
            }
            Phase::Condition(_)
            | Phase::StartPre(_)
            | Phase::Start(_)
            | Phase::Adopting
            | Phase::StartPost(_)
            | Phase::Reload(_) => self.terminate(turn, unit),
            Phase::Running | Phase::Reloading | Phase::Exited => {
                self.run(turn, unit, Step::Stop(0));
            }
            _ => {}
        }
    }

    /// A start job cannot begin, since what it requires is not up, or an `Assert*=` does not hold.
    pub(in crate::supervise) fn fail_to_start(&mut self, turn: &mut Turn, unit: UnitId) {
        if let Some(service) = self.service(unit) {
            service.outcome = Outcome::Resources;
            service.main_exit = None;
            service.enter(Phase::Failed, turn.now, 0);
        }
        self.units[unit.index()].result = JobResult::Failed;
        turn.hands.tell(Some(unit), Event::Failed);
    }

    /// Stops that have begun without a time-out get one, since the machine goes down.
    pub(in crate::supervise) fn bound_stops(&mut self, now: u64) {
        for unit in &mut self.units {
            if let State::Service(service) = &mut unit.state
                && !service.is_gone()
                && !service.is_up()
            {
                let bound = now.saturating_add(STOP_AT_SHUTDOWN_US);
                service.deadline = Some(service.deadline.map_or(bound, |at| at.min(bound)));
                service.unwanted = true;
            }
        }
    }

    /// Sends `KillSignal=` to whom `KillMode=` says, and waits until they are gone.
    pub(super) fn terminate(&mut self, turn: &mut Turn, unit: UnitId) {
        let restart = self.units[unit.index()].job.is_some_and(|job| job.kind == JobKind::Restart);
        let Some((_, spec)) = self.service_and_spec(unit) else { return };
        let signal = match spec.restart_kill_signal {
            signal if restart && signal != 0 => signal,
            _ => spec.kill_signal,
        };
        let timeout = spec.stop_timeout_us;
        self.send(turn, unit, Phase::Terminating, signal, timeout);
    }

    /// Sends `WatchdogSignal=`, so that there is a core dump to look at.
    pub(super) fn abort(&mut self, turn: &mut Turn, unit: UnitId) {
        let Some((_, spec)) = self.service_and_spec(unit) else { return };
        let (signal, timeout) = (spec.watchdog_signal, spec.abort_timeout_us);
        self.send(turn, unit, Phase::Aborting, signal, timeout);
    }

    fn send(&mut self, turn: &mut Turn, unit: UnitId, phase: Phase, signal: i32, timeout: u64) {
        let stopping = self.machine == MachineState::Stopping;
        let Some((service, spec)) = self.service_and_spec(unit) else { return };
        let timeout = if stopping && timeout == 0 { STOP_AT_SHUTDOWN_US } else { timeout };
        service.enter(phase, turn.now, timeout);
        service.polite = false;
        if spec.kill_mode == KillMode::None {
            return self.abandon(turn, unit);
        }
        let own = service.main.is_some() || service.control.is_some();
        let signals = [Some(signal), Some(libc::SIGCONT), spec.send_sighup.then_some(libc::SIGHUP)];
        for signal in signals.into_iter().flatten() {
            match spec.kill_mode {
                KillMode::ControlGroup if !own && !turn.hands.populated(unit) => {}
                KillMode::ControlGroup => turn.hands.kill(unit, Whom::All, signal),
                KillMode::Mixed | KillMode::Process => {
                    for pid in [service.main, service.control].into_iter().flatten() {
                        turn.hands.kill(unit, Whom::Process(pid), signal);
                    }
                }
                KillMode::None => {}
            }
        }
        self.look(turn, unit);
    }

    /// It stops by itself, as it says: only a time-out, and a signal for what its main process
    /// leaves behind.
    pub(super) fn let_stop(&mut self, turn: &mut Turn, unit: UnitId) {
        let stopping = self.machine == MachineState::Stopping;
        let Some((service, spec)) = self.service_and_spec(unit) else { return };
        let timeout = match spec.stop_timeout_us {
            0 if stopping => STOP_AT_SHUTDOWN_US,
            timeout => timeout,
        };
        service.enter(Phase::Terminating, turn.now, timeout);
        service.polite = true;
        self.look(turn, unit);
    }

    /// Sends `FinalKillSignal=` to all that `KillMode=` covers, and waits until they are gone.
    pub(super) fn kill(&mut self, turn: &mut Turn, unit: UnitId, phase: Phase) {
        let Some((service, spec)) = self.service_and_spec(unit) else { return };
        service.enter(phase, turn.now, KILL_AGAIN_US);
        service.polite = false;
        let group = matches!(spec.kill_mode, KillMode::ControlGroup | KillMode::Mixed);
        if group && turn.hands.populated(unit) {
            turn.hands.kill(unit, Whom::All, spec.final_kill_signal);
        } else {
            for pid in [service.main, service.control].into_iter().flatten() {
                turn.hands.kill(unit, Whom::Process(pid), spec.final_kill_signal);
            }
        }
        self.look(turn, unit);
    }

    /// What is left after the last command gets no mercy; with `SendSIGKILL=no`, `KillSignal=` once
    /// more.
    pub(super) fn sweep(&mut self, turn: &mut Turn, unit: UnitId) {
        let Some((_, spec)) = self.service_and_spec(unit) else { return };
        match spec.send_sigkill {
            true => self.kill(turn, unit, Phase::Sweeping),
            false => {
                let (signal, timeout) = (spec.kill_signal, spec.stop_timeout_us);
                self.send(turn, unit, Phase::Sweeping, signal, timeout);
            }
        }
    }

    /// Goes on if nothing is left to wait for.
    pub(super) fn look(&mut self, turn: &mut Turn, unit: UnitId) {
        let Some((service, spec)) = self.service_and_spec(unit) else { return };
        let group = matches!(spec.kill_mode, KillMode::ControlGroup | KillMode::Mixed);
        if let Some(pid) = service.main
            && service.adopted
            && !turn.hands.alive(unit, pid)
        {
            // The main process was somebody else's child, who reaped it.
            service.main = None;
        }
        let own = service.main.is_some() || service.control.is_some();
        let others = group && turn.hands.populated(unit);
        match service.phase {
            _ if own => {}
            Phase::Terminating if others && service.polite => self.terminate(turn, unit),
            Phase::Terminating if others && spec.kill_mode == KillMode::Mixed => {
                self.kill(turn, unit, Phase::Killing);
            }
            _ if others => {}
            Phase::Aborting | Phase::Terminating | Phase::Killing => {
                self.run(turn, unit, Step::StopPost(0));
            }
            Phase::Sweeping => self.clean(turn, unit),
            Phase::Cleaning => self.end(turn, unit),
            _ => {}
        }
    }

    /// Stops waiting for processes that nobody may or can kill.
    pub(super) fn abandon(&mut self, turn: &mut Turn, unit: UnitId) {
        let Some(service) = self.service(unit) else { return };
        service.main = None;
        service.control = None;
        match service.phase {
            Phase::Aborting | Phase::Terminating | Phase::Killing => {
                self.run(turn, unit, Step::StopPost(0));
            }
            _ => self.end(turn, unit),
        }
    }

    /// Removes what must not outlive the run, where there is something. Nobody comes after an
    /// instance.
    fn clean(&mut self, turn: &mut Turn, unit: UnitId) {
        let need = stage2::need_of_cleaning(self.spec(unit));
        let by_signal = self.service(unit).is_some_and(|service| {
            matches!(service.main_exit, Some(Exit::Signal(_) | Exit::Dumped(_)))
        });
        let needed = need == Need::Always || (need == Need::Killed && by_signal);
        if !needed {
            return self.end(turn, unit);
        }
        let running = self.machine != MachineState::Stopping && self.slots.owner(unit).is_none();
        // The start that has just ended, as it may have, is no order for another one.
        let ordered = self.units[unit.index()].job.is_some_and(|job| match job.kind {
            JobKind::Start => !job.begun,
            JobKind::Restart => true,
            JobKind::Stop => false,
        });
        let Some((service, spec)) = self.service_and_spec(unit) else { return };
        let again = running && (ordered || (!service.unwanted && service.restarts(spec)));
        let next = if again { Next::Restart } else { Next::Stop };
        service.enter(Phase::Cleaning, turn.now, KILL_AGAIN_US);
        match turn.hands.spawn(unit, Step::Clean(next), &Told::default()) {
            Ok(spawned) => service.control = Some(spawned.pid),
            Err(errno) => {
                turn.hands.tell(Some(unit), Event::SpawnFailed(errno));
                self.end(turn, unit);
            }
        }
    }

    /// The run is over.
    fn end(&mut self, turn: &mut Turn, unit: UnitId) {
        // The connection of an instance is gone with it: there is nothing to restart it for.
        let running = self.machine != MachineState::Stopping && self.slots.owner(unit).is_none();
        let Some((service, spec)) = self.service_and_spec(unit) else { return };
        let outcome = service.outcome;
        let again = running && !service.unwanted && service.restarts(spec);
        // A stop that was asked for and went as it should leaves nothing to complain about.
        let phase = if outcome.is_good() { Phase::Dead } else { Phase::Failed };
        service.monitor = None;
        if again {
            let delay = service.restart_delay(spec);
            service.enter(Phase::Waiting, turn.now, delay);
        } else {
            service.enter(phase, turn.now, 0);
        }
        match outcome {
            Outcome::Skipped => {
                turn.hands.tell(Some(unit), Event::Skipped);
                self.units[unit.index()].hold.skip(turn.now);
            }
            Outcome::Success => turn.hands.tell(Some(unit), Event::Stopped),
            _ => turn.hands.tell(Some(unit), Event::Failed),
        }
        self.end_start_job(unit);
        if !again {
            self.drop_store(turn, unit);
        }
    }

    /// The fd store ends with the service, unless it is to be started again.
    fn drop_store(&mut self, turn: &mut Turn, unit: UnitId) {
        let again = self.units[unit.index()].job.is_some_and(|job| job.kind != JobKind::Stop);
        let Some((_, spec)) = self.service_and_spec(unit) else { return };
        if spec.fd_store_max > 0 && !spec.fd_store_preserve && !again {
            turn.hands.drop_store(unit);
        }
    }
}
