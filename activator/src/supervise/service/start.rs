//! The way up: conditions, commands, the main process, and what counts as started.

use super::{Outcome, Phase, STOP_AT_SHUTDOWN_US};
use crate::supervise::check::Hold;
use crate::supervise::hands::{Executed, Found, Step};
use crate::supervise::{State, Supervisor, Turn};
use activator::control::{Event, MachineState, SocketState, Text};
use activator::manifest::{Command, ExitType, ServiceKind, UnitId};

/// The first delay before `PIDFile=` is looked for again; each is twice the one before.
const FIRST_LOOK_US: u64 = 10_000;
/// The longest.
const LAST_LOOK_US: u64 = 1_000_000;

impl Supervisor<'_> {
    /// Whether a start job may begin now: the run before it is over, and nothing holds it.
    pub(in crate::supervise) fn may_begin(&self, turn: &Turn, unit: UnitId) -> bool {
        match &self.units[unit.index()].state {
            State::Service(service) => {
                service.is_gone() && self.start_held(turn.now, unit).is_none()
            }
            // A stop that goes on without a job, or a start that does.
            State::Socket(socket) => {
                !matches!(socket.state, SocketState::Starting | SocketState::Stopping)
            }
            State::Target { .. } => true,
        }
    }

    /// A start job has begun.
    pub(in crate::supervise) fn begin(&mut self, turn: &mut Turn, unit: UnitId) {
        let health = self.health(unit);
        let Some((service, spec)) = self.service_and_spec(unit) else { return };
        if let Err(until) = service.start_limit.take(turn.now, health) {
            let mut ended = service.ended();
            if ended.result.is_good() {
                ended.result = Outcome::StartLimit;
            }
            let restarting = service.restarting;
            turn.hands.tell(Some(unit), Event::Paused(until - turn.now));
            // Not begun after all; a tick at the end of the hold goes on.
            if let Some(job) = &mut self.units[unit.index()].job {
                job.begun = false;
            }
            // It has not failed for good, yet somebody should know that it does not run.
            if restarting {
                self.start_for(unit, &self.spec(unit).on_failure, Some(ended));
            }
            return;
        }
        service.starts += 1;
        if std::mem::take(&mut service.restarting) {
            service.restarts += 1;
            service.restarts_in_row = service.restarts_in_row.saturating_add(1);
        } else {
            service.restarts_in_row = 0;
        }
        service.outcome = Outcome::Success;
        service.main_exit = None;
        service.unwanted = false;
        service.mainless = false;
        service.polite = false;
        service.watchdog_us = spec.watchdog_us;
        service.status = Text::default();
        self.run(turn, unit, Step::Condition(0));
    }

    /// Runs a command, or what follows when there is none with that index.
    pub(super) fn run(&mut self, turn: &mut Turn, unit: UnitId, step: Step) {
        let stopping = self.machine == MachineState::Stopping;
        let Some((service, spec)) = self.service_and_spec(unit) else { return };
        let (up, down) = (spec.start_timeout_us, spec.stop_timeout_us);
        let (commands, index, phase, timeout): (&[Command], _, _, _) = match step {
            // Of any unit, and of socket units only: no phase of a service leads to these.
            Step::Conditions
            | Step::StopPre(_)
            | Step::Clean(_)
            | Step::Health
            | Step::HealthStartup => return,
            Step::Condition(i) => (&spec.condition, i, Phase::Condition(i), up),
            Step::StartPre(i) => (&spec.start_pre, i, Phase::StartPre(i), up),
            Step::Start(i) => (&spec.start, i, Phase::Start(i), up),
            Step::StartPost(i) => (&spec.start_post, i, Phase::StartPost(i), up),
            Step::Reload(i) => (&spec.reload, i, Phase::Reload(i), up),
            Step::Stop(i) => (&spec.stop, i, Phase::Stop(i), down),
            Step::StopPost(i) => (&spec.stop_post, i, Phase::StopPost(i), down),
        };
        if usize::from(index) >= commands.len() {
            return match step {
                Step::Conditions
                | Step::StopPre(_)
                | Step::Clean(_)
                | Step::Health
                | Step::HealthStartup => {}
                Step::Condition(_) => {
                    if index > 0 {
                        self.units[unit.index()].hold = Hold::default();
                    }
                    self.run(turn, unit, Step::StartPre(0));
                }
                Step::StartPre(_) => self.run(turn, unit, Step::Start(0)),
                Step::Start(_) => self.started(turn, unit),
                Step::StartPost(_) => self.come_up(turn, unit),
                Step::Reload(_) => self.reloaded(turn, unit),
                Step::Stop(_) => self.terminate(turn, unit),
                Step::StopPost(_) => self.sweep(turn, unit),
            };
        }
        let timeout = if stopping && timeout == 0 { STOP_AT_SHUTDOWN_US } else { timeout };
        service.enter(phase, turn.now, timeout);
        let spawned = match turn.hands.spawn(unit, step, &service.told()) {
            Ok(spawned) => spawned,
            Err(errno) => {
                turn.hands.tell(Some(unit), Event::SpawnFailed(errno));
                if matches!(step, Step::Reload(_)) {
                    return self.fail_to_reload(turn, unit);
                }
                service.blame(Outcome::Resources);
                return match step {
                    Step::StopPost(_) => self.sweep(turn, unit),
                    _ => self.terminate(turn, unit),
                };
            }
        };
        if let Executed::No(errno) = spawned.executed {
            turn.hands.tell(Some(unit), Event::SpawnFailed(errno));
        }
        if !matches!(step, Step::Start(_)) {
            service.control = Some(spawned.pid);
            return;
        }
        service.main = Some(spawned.pid);
        service.adopted = false;
        if !matches!(spawned.executed, Executed::No(_)) {
            turn.hands.tell(Some(unit), Event::Started(spawned.pid));
            if spec.kind != ServiceKind::Oneshot {
                service.checkup.begin(spec.health.as_deref(), turn.now);
            }
            match spec.kind {
                ServiceKind::Simple => self.started(turn, unit),
                ServiceKind::Exec if spawned.executed == Executed::Yes => self.started(turn, unit),
                _ => {}
            }
        }
    }

    /// The program of a `Type=exec` service was executed: that is what its start waits for.
    pub(in crate::supervise) fn program_executed(&mut self, turn: &mut Turn, unit: UnitId) {
        let Some((service, spec)) = self.service_and_spec(unit) else { return };
        let waits = matches!(service.phase, Phase::Start(_)) && spec.kind == ServiceKind::Exec;
        if waits && service.main.is_some() {
            self.started(turn, unit);
        }
    }

    /// The main process of `Type=forking` is the one that its child has left behind.
    pub(super) fn look_for_main(&mut self, turn: &mut Turn, unit: UnitId) {
        let Some((service, spec)) = self.service_and_spec(unit) else { return };
        if service.phase != Phase::Adopting {
            // The time-out of the start goes on.
            let deadline = service.deadline;
            service.enter(Phase::Adopting, turn.now, 0);
            service.deadline = deadline;
            service.look_delay = FIRST_LOOK_US;
        }
        match turn.hands.find_main(unit) {
            Found::Process(pid) if turn.hands.adopt(unit, pid) => {
                service.main = Some(pid);
                service.adopted = true;
                turn.hands.tell(Some(unit), Event::Started(pid));
                self.started(turn, unit);
            }
            Found::Unclear => {
                service.mainless = true;
                self.started(turn, unit);
            }
            Found::NotYet | Found::Process(_) => {
                if !turn.hands.populated(unit) {
                    service.blame(Outcome::Protocol);
                    return self.terminate(turn, unit);
                }
                service.look_at = Some(turn.now.saturating_add(service.look_delay));
                service.look_delay = service.look_delay.saturating_mul(2).min(LAST_LOOK_US);
            }
            Found::Nobody if spec.pid_file.is_some() => {
                service.blame(Outcome::Protocol);
                self.terminate(turn, unit);
            }
            Found::Nobody => self.started(turn, unit),
        }
    }

    /// It counts as started but for `ExecStartPost=`.
    pub(super) fn started(&mut self, turn: &mut Turn, unit: UnitId) {
        let Some(service) = self.service(unit) else { return };
        service.start_watchdog(turn.now);
        self.run(turn, unit, Step::StartPost(0));
    }

    /// The start has ended with success, unless the main process is gone already.
    pub(super) fn come_up(&mut self, turn: &mut Turn, unit: UnitId) {
        let Some((service, spec)) = self.service_and_spec(unit) else { return };
        let oneshot = spec.kind == ServiceKind::Oneshot;
        if service.outcome == Outcome::Success {
            turn.hands.tell(Some(unit), Event::Ready);
        }
        service.monitor = None;
        service.enter(Phase::Running, turn.now, 0);
        if spec.runtime_max_us > 0 {
            let extra = match spec.runtime_extra_us {
                0 => 0,
                most => scatter(turn.now ^ u64::from(unit.0)) % most.saturating_add(1).max(1),
            };
            let longest = spec.runtime_max_us.saturating_add(extra);
            service.runtime_at = Some(turn.now.saturating_add(longest));
        }
        if service.main.is_none() {
            self.finish(turn, unit);
        }
        // A oneshot without RemainAfterExit= is never "up", but its start went well: whoever
        // comes after it may start.
        if oneshot {
            self.end_start_job(unit);
        }
    }

    /// The main process of a running service has ended by itself, or there is none.
    pub(super) fn finish(&mut self, turn: &mut Turn, unit: UnitId) {
        let Some((service, spec)) = self.service_and_spec(unit) else { return };
        let by_group = service.mainless || spec.exit_type == ExitType::Cgroup;
        match service.outcome {
            Outcome::Success if by_group && turn.hands.populated(unit) => {}
            Outcome::Success if spec.remain_after_exit => {
                service.enter(Phase::Exited, turn.now, 0);
            }
            Outcome::Success => self.run(turn, unit, Step::Stop(0)),
            _ => self.terminate(turn, unit),
        }
    }
}

/// splitmix64: spreads `RuntimeRandomizedExtraSec=`; nothing rests on its being hard to guess.
fn scatter(seed: u64) -> u64 {
    let mut z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
