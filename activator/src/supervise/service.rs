//! Services: from start-pre to gone. The phases are tabled in the module above.

use super::limit::{Health, Limiter};
use super::{Cause, JobKind, Notification, State, Step, Supervisor, Told, Turn, Whom};
use activator::control::{Event, Exit, MachineState, Report, ServiceState, SocketState};
use activator::manifest::{self, Command, KillMode, Restart, ServiceKind, UnitId, UnitKind};
use serde::{Deserialize, Serialize};

/// `RestartSec=` is at least that long, so that a service that cannot even be cloned does not
/// keep PID 1 busy.
const SHORTEST_RESTART_US: u64 = 10_000;
/// While the machine goes down, `TimeoutStopSec=infinity` means this.
const STOP_AT_SHUTDOWN_US: u64 = 90_000_000;
/// How often SIGKILL is sent again to what does not die.
const KILL_AGAIN_US: u64 = 10_000_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum Phase {
    Dead,
    Failed,
    Waiting,
    Condition(u16),
    StartPre(u16),
    Start(u16),
    StartPost(u16),
    Running,
    Reload(u16),
    Exited,
    Stop(u16),
    Terminating,
    Killing,
    StopPost(u16),
    Sweeping,
}

/// How a run went, which decides about `Restart=`. The first trouble of a run stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum Outcome {
    Success,
    /// An exit code that is no success.
    Code,
    /// A signal, with or without a core dump.
    Signal,
    Timeout,
    /// `Type=notify` ended well without `READY=1`.
    Protocol,
    /// No child could be made.
    Resources,
}

/// What a reload hands over as it stands: see "Reload" in the module above before you add a field.
#[derive(Debug, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Service {
    phase: Phase,
    /// The main process, from its spawn until it is reaped. While it is Some no other is spawned:
    /// "never two main processes" rests on it.
    main: Option<u32>,
    /// Named by `MAINPID=`; such a process may be somebody else's child.
    adopted: bool,
    /// The process of the one control command that runs.
    control: Option<u32>,
    /// When the phase has lasted too long, or the wait for a restart ends.
    deadline: Option<u64>,
    outcome: Outcome,
    /// A stop was asked for: no `Restart=`.
    unwanted: bool,
    /// The coming start is one by `Restart=`.
    restarting: bool,
    start_limit: Limiter,
    starts: u64,
    restarts: u64,
    last_exit: Option<Exit>,
}

impl Default for Service {
    fn default() -> Self {
        Self::new(&manifest::Service::default())
    }
}

impl Service {
    pub(super) fn new(service: &manifest::Service) -> Self {
        Self {
            phase: Phase::Dead,
            main: None,
            adopted: false,
            control: None,
            deadline: None,
            outcome: Outcome::Success,
            unwanted: false,
            restarting: false,
            start_limit: Limiter::new(service.start_limit),
            starts: 0,
            restarts: 0,
            last_exit: None,
        }
    }

    /// One whose main process is all that is known: it counts as up.
    pub(super) fn running(spec: &manifest::Service, main: u32) -> Self {
        Self { phase: Phase::Running, main: Some(main), starts: 1, ..Self::new(spec) }
    }

    /// Takes the settings of the manifest after a reload; what has happened stays.
    pub(super) fn resume(&mut self, spec: &manifest::Service) {
        self.start_limit.relimit(spec.start_limit);
    }

    pub(super) fn report(&self, unit: UnitId, job: bool) -> Report {
        let state = match self.phase {
            Phase::Dead => ServiceState::Dead,
            Phase::Failed => ServiceState::Failed,
            Phase::Waiting => ServiceState::Waiting,
            Phase::Condition(_) | Phase::StartPre(_) | Phase::Start(_) | Phase::StartPost(_) => {
                ServiceState::Starting
            }
            Phase::Reload(_) => ServiceState::Reloading,
            Phase::Running => ServiceState::Running,
            Phase::Exited => ServiceState::Exited,
            _ => ServiceState::Stopping,
        };
        let (main_pid, last_exit) = (self.main, self.last_exit);
        let (starts, restarts) = (self.starts, self.restarts);
        Report::Service { unit, state, main_pid, starts, restarts, last_exit, job }
    }

    pub(super) fn is_up(&self) -> bool {
        matches!(self.phase, Phase::Running | Phase::Reload(_) | Phase::Exited)
    }

    pub(super) fn is_down(&self) -> bool {
        matches!(self.phase, Phase::Dead | Phase::Failed)
    }

    fn is_gone(&self) -> bool {
        self.is_down() || self.phase == Phase::Waiting
    }

    pub(super) fn forgive(&mut self) {
        self.start_limit.forgive();
    }

    fn blame(&mut self, outcome: Outcome) {
        if self.outcome == Outcome::Success {
            self.outcome = outcome;
        }
    }

    fn enter(&mut self, phase: Phase, now: u64, timeout_us: u64) {
        self.phase = phase;
        self.deadline = (timeout_us > 0).then(|| now.saturating_add(timeout_us));
    }
}

impl Supervisor<'_> {
    /// Whether nothing of a service runs, and nobody wants it to: its sockets may be watched.
    pub(super) fn is_gone(&self, unit: UnitId) -> bool {
        let unit = &self.units[unit.index()];
        matches!(&unit.state, State::Service(service) if service.is_gone()) && unit.job.is_none()
    }

    /// Whether the last start of a unit went well, which is what those that require it ask.
    pub(super) fn is_satisfied(&self, unit: UnitId) -> bool {
        let UnitKind::Service(spec) = &self.spec(unit).kind else {
            return self.is_up(unit);
        };
        let State::Service(service) = &self.units[unit.index()].state else { return false };
        let done = spec.kind == ServiceKind::Oneshot
            && service.starts > 0
            && service.outcome == Outcome::Success;
        service.is_up() || done
    }

    /// How the last run of a service went.
    pub(super) fn health(&self, unit: UnitId) -> Health {
        match &self.units[unit.index()].state {
            State::Service(service) if service.outcome != Outcome::Success => Health::Failing,
            _ => Health::Good,
        }
    }

    /// Until when the start limit holds a service, if it does.
    pub(super) fn start_held(&self, now: u64, unit: UnitId) -> Option<u64> {
        match &self.units[unit.index()].state {
            State::Service(service) => service.start_limit.held(now),
            _ => None,
        }
    }

    pub(super) fn service_deadline(&self, index: usize, service: &Service) -> Option<u64> {
        let waits =
            self.units[index].job.is_some_and(|job| job.kind == JobKind::Start && !job.begun);
        let held = service.start_limit.held(self.ticked_us).filter(|_| waits && service.is_gone());
        [service.deadline, held].into_iter().flatten().min()
    }

    /// Whether a start job may begin now: the run before it is over, and the limit is not hit.
    pub(super) fn may_begin(&mut self, turn: &mut Turn, unit: UnitId) -> bool {
        match &self.units[unit.index()].state {
            State::Service(service) => {
                service.is_gone() && service.start_limit.held(turn.now).is_none()
            }
            // A stop that goes on without a job, or a start that does.
            State::Socket(socket) => {
                !matches!(socket.state, SocketState::Starting | SocketState::Stopping)
            }
            _ => true,
        }
    }

    /// A start job has begun.
    pub(super) fn begin(&mut self, turn: &mut Turn, unit: UnitId) {
        let health = self.health(unit);
        let Some(service) = self.service(unit) else { return };
        if let Err(until) = service.start_limit.take(turn.now, health) {
            turn.hands.tell(Some(unit), Event::Paused(until - turn.now));
            // Not begun after all; a tick at the end of the hold goes on.
            if let Some(job) = &mut self.units[unit.index()].job {
                job.begun = false;
            }
            return;
        }
        service.starts += 1;
        if std::mem::take(&mut service.restarting) {
            service.restarts += 1;
        }
        service.outcome = Outcome::Success;
        service.unwanted = false;
        self.run(turn, unit, Step::Condition(0));
    }

    /// A stop job has begun.
    pub(super) fn bring_down(&mut self, turn: &mut Turn, unit: UnitId) {
        let Some(service) = self.service(unit) else { return };
        service.unwanted = true;
        match service.phase {
            Phase::Waiting => service.enter(Phase::Dead, turn.now, 0),
            Phase::Condition(_)
            | Phase::StartPre(_)
            | Phase::Start(_)
            | Phase::StartPost(_)
            | Phase::Reload(_) => self.terminate(turn, unit),
            Phase::Running | Phase::Exited => self.run(turn, unit, Step::Stop(0)),
            _ => {}
        }
    }

    /// Reloads a service that runs; nothing for any other unit.
    pub(super) fn reload(&mut self, turn: &mut Turn, unit: UnitId) {
        let Some((service, spec)) = self.service_and_spec(unit) else { return };
        if service.phase == Phase::Running && !spec.reload.is_empty() {
            self.run(turn, unit, Step::Reload(0));
        }
    }

    /// A start job cannot begin, since what it requires is not up.
    pub(super) fn fail_for_requirement(&mut self, turn: &mut Turn, unit: UnitId) {
        if let Some(service) = self.service(unit) {
            service.outcome = Outcome::Resources;
            service.enter(Phase::Failed, turn.now, 0);
        }
        turn.hands.tell(Some(unit), Event::Failed);
    }

    /// Stops that have begun without a time-out get one, since the machine goes down.
    pub(super) fn bound_stops(&mut self, now: u64) {
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

    /// A process was reaped; whether it was one of this unit's two.
    pub(super) fn ended(&mut self, turn: &mut Turn, unit: UnitId, pid: u32, exit: Exit) -> bool {
        let Some(service) = self.service(unit) else { return false };
        if service.control == Some(pid) {
            service.control = None;
            self.control_ended(turn, unit, exit);
        } else if service.main == Some(pid) {
            service.main = None;
            service.last_exit = Some(exit);
            turn.hands.tell(Some(unit), Event::Exited(exit));
            self.main_ended(turn, unit, exit);
        } else {
            return false;
        }
        true
    }

    /// Other processes have gone: is one that waits for them done?
    pub(super) fn look_for_processes(&mut self, turn: &mut Turn, unit: UnitId) {
        let Some(service) = self.service(unit) else { return };
        match service.phase {
            Phase::Terminating | Phase::Killing | Phase::Sweeping => self.look(turn, unit),
            // Its own parent reaped it, so its end is seen only by what is left: nothing.
            Phase::StartPost(_) | Phase::Running | Phase::Stop(_)
                if service.adopted && service.main.is_some() && !turn.hands.populated(unit) =>
            {
                if let Some(pid) = service.main {
                    self.ended(turn, unit, pid, Exit::Code(0));
                }
            }
            _ => {}
        }
    }

    pub(super) fn notify(&mut self, turn: &mut Turn, unit: UnitId, said: Notification) {
        let Some((service, spec)) = self.service_and_spec(unit) else { return };
        if let Some(pid) = said.main_pid
            && service.main.is_some()
            && service.main != Some(pid)
        {
            service.main = Some(pid);
            service.adopted = true;
            turn.hands.tell(Some(unit), Event::Started(pid));
        }
        if let (Some(extend), Some(deadline)) = (said.extend_timeout_us, service.deadline)
            && service.phase != Phase::Waiting
        {
            service.deadline = Some(deadline.max(turn.now.saturating_add(extend)));
        }
        if said.ready
            && spec.kind == ServiceKind::Notify
            && matches!(service.phase, Phase::Start(_))
        {
            self.run(turn, unit, Step::StartPost(0));
        }
    }

    pub(super) fn service_tick(&mut self, turn: &mut Turn, unit: UnitId) {
        let stopping = self.machine == MachineState::Stopping;
        let Some((service, spec)) = self.service_and_spec(unit) else { return };
        if service.deadline.is_none_or(|deadline| turn.now < deadline) {
            return;
        }
        service.deadline = None;
        match service.phase {
            Phase::Waiting => {
                service.restarting = true;
                self.start(unit, Cause::Machine);
            }
            Phase::StartPre(_) | Phase::Start(_) | Phase::StartPost(_) | Phase::Stop(_) => {
                service.blame(Outcome::Timeout);
                turn.hands.tell(Some(unit), Event::TimedOut(spec.kill_signal));
                self.terminate(turn, unit);
            }
            Phase::Terminating => {
                service.blame(Outcome::Timeout);
                turn.hands.tell(Some(unit), Event::TimedOut(libc::SIGKILL));
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
                self.kill(turn, unit, Phase::Sweeping);
            }
            // It does not even die of SIGKILL (a hung disk). Going down does not wait for that.
            Phase::Killing | Phase::Sweeping if stopping => self.abandon(turn, unit),
            phase @ (Phase::Killing | Phase::Sweeping) => self.kill(turn, unit, phase),
            _ => {}
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
        match service.phase {
            Phase::Start(index) if spec.kind == ServiceKind::Oneshot => match outcome {
                Outcome::Success => self.run(turn, unit, Step::Start(index.saturating_add(1))),
                _ => self.terminate(turn, unit),
            },
            Phase::Start(_) => {
                if spec.kind == ServiceKind::Notify {
                    service.blame(Outcome::Protocol);
                }
                self.terminate(turn, unit);
            }
            Phase::Running => self.finish(turn, unit),
            Phase::Terminating | Phase::Killing | Phase::Sweeping => self.look(turn, unit),
            _ => {}
        }
    }

    /// The main process of a running service has ended by itself.
    fn finish(&mut self, turn: &mut Turn, unit: UnitId) {
        let Some((service, spec)) = self.service_and_spec(unit) else { return };
        match service.outcome {
            Outcome::Success if spec.remain_after_exit => {
                service.enter(Phase::Exited, turn.now, 0);
            }
            Outcome::Success => self.run(turn, unit, Step::Stop(0)),
            _ => self.terminate(turn, unit),
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
        let failed = exit != Exit::Code(0) && !ignored;
        if failed {
            turn.hands.tell(Some(unit), Event::CommandFailed(exit));
            // A reload that fails leaves the service as it was.
            if matches!(service.phase, Phase::Reload(_)) {
                return service.enter(Phase::Running, turn.now, 0);
            }
            service.blame(judge(spec, exit));
        }
        match service.phase {
            // What comes after the service is cleaned up in any case.
            Phase::StopPost(_) => {}
            _ if failed => return self.terminate(turn, unit),
            _ => {}
        }
        self.run(turn, unit, next(index.saturating_add(1)));
    }

    /// Runs a command, or what follows when there is none with that index.
    fn run(&mut self, turn: &mut Turn, unit: UnitId, step: Step) {
        let stopping = self.machine == MachineState::Stopping;
        let Some((service, spec)) = self.service_and_spec(unit) else { return };
        let (commands, index, phase, timeout) = match step {
            // No phase leads to these.
            Step::Conditions | Step::StopPre(_) => return,
            Step::Condition(i) => (&spec.condition, i, Phase::Condition(i), spec.start_timeout_us),
            Step::Reload(i) => (&spec.reload, i, Phase::Reload(i), spec.start_timeout_us),
            Step::StartPre(i) => (&spec.start_pre, i, Phase::StartPre(i), spec.start_timeout_us),
            Step::Start(i) => (&spec.start, i, Phase::Start(i), spec.start_timeout_us),
            Step::StartPost(i) => (&spec.start_post, i, Phase::StartPost(i), spec.start_timeout_us),
            Step::Stop(i) => (&spec.stop, i, Phase::Stop(i), spec.stop_timeout_us),
            Step::StopPost(i) => (&spec.stop_post, i, Phase::StopPost(i), spec.stop_timeout_us),
        };
        if usize::from(index) >= commands.len() {
            return match step {
                Step::StartPre(_) => self.run(turn, unit, Step::Start(0)),
                Step::Start(_) => self.run(turn, unit, Step::StartPost(0)),
                Step::StartPost(_) => self.come_up(turn, unit),
                Step::Stop(_) => self.terminate(turn, unit),
                Step::StopPost(_) => self.kill(turn, unit, Phase::Sweeping),
                Step::Condition(_) => self.run(turn, unit, Step::StartPre(0)),
                Step::Reload(_) => service.enter(Phase::Running, turn.now, 0),
                Step::Conditions | Step::StopPre(_) => {}
            };
        }
        let timeout = if stopping && timeout == 0 { STOP_AT_SHUTDOWN_US } else { timeout };
        service.enter(phase, turn.now, timeout);
        let told = Told { main: service.main, ..Told::default() };
        let spawned = match turn.hands.spawn(unit, step, &told) {
            Ok(spawned) => spawned,
            Err(errno) => {
                service.blame(Outcome::Resources);
                turn.hands.tell(Some(unit), Event::SpawnFailed(errno));
                return match step {
                    Step::StopPost(_) => self.kill(turn, unit, Phase::Sweeping),
                    _ => self.terminate(turn, unit),
                };
            }
        };
        if let Some(errno) = spawned.exec_error {
            turn.hands.tell(Some(unit), Event::SpawnFailed(errno));
        }
        if !matches!(step, Step::Start(_)) {
            service.control = Some(spawned.pid);
            return;
        }
        service.main = Some(spawned.pid);
        service.adopted = false;
        if spawned.exec_error.is_none() {
            turn.hands.tell(Some(unit), Event::Started(spawned.pid));
            // The spawn has waited for execve, so both are started.
            if matches!(spec.kind, ServiceKind::Simple | ServiceKind::Exec) {
                self.run(turn, unit, Step::StartPost(0));
            }
        }
    }

    /// The start has ended with success, unless the main process is gone already.
    fn come_up(&mut self, turn: &mut Turn, unit: UnitId) {
        let Some((service, spec)) = self.service_and_spec(unit) else { return };
        let oneshot = spec.kind == ServiceKind::Oneshot;
        if service.outcome == Outcome::Success {
            turn.hands.tell(Some(unit), Event::Ready);
        }
        service.enter(Phase::Running, turn.now, 0);
        if service.main.is_none() {
            self.finish(turn, unit);
        }
        // A oneshot without RemainAfterExit= is never "up", but its start went well: whoever
        // comes after it may start.
        let job = &mut self.units[unit.index()].job;
        if oneshot && job.is_some_and(|job| job.kind == JobKind::Start && job.begun) {
            *job = None;
        }
    }

    /// Sends `KillSignal=` to whom `KillMode=` says, and waits until they are gone.
    fn terminate(&mut self, turn: &mut Turn, unit: UnitId) {
        let stopping = self.machine == MachineState::Stopping;
        let Some((service, spec)) = self.service_and_spec(unit) else { return };
        let timeout = match spec.stop_timeout_us {
            0 if stopping => STOP_AT_SHUTDOWN_US,
            timeout => timeout,
        };
        service.enter(Phase::Terminating, turn.now, timeout);
        if spec.kill_mode == KillMode::None {
            return self.abandon(turn, unit);
        }
        let own = service.main.is_some() || service.control.is_some();
        for signal in [spec.kill_signal, libc::SIGCONT] {
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

    /// Sends SIGKILL to all that `KillMode=` covers, and waits until they are gone.
    fn kill(&mut self, turn: &mut Turn, unit: UnitId, phase: Phase) {
        let Some((service, spec)) = self.service_and_spec(unit) else { return };
        service.enter(phase, turn.now, KILL_AGAIN_US);
        let group = matches!(spec.kill_mode, KillMode::ControlGroup | KillMode::Mixed);
        if group && turn.hands.populated(unit) {
            turn.hands.kill(unit, Whom::All, libc::SIGKILL);
        } else {
            for pid in [service.main, service.control].into_iter().flatten() {
                turn.hands.kill(unit, Whom::Process(pid), libc::SIGKILL);
            }
        }
        self.look(turn, unit);
    }

    /// Goes on if nothing is left to wait for.
    fn look(&mut self, turn: &mut Turn, unit: UnitId) {
        let Some((service, spec)) = self.service_and_spec(unit) else { return };
        let group = matches!(spec.kill_mode, KillMode::ControlGroup | KillMode::Mixed);
        let mut own = service.main.is_some() || service.control.is_some();
        let others = group && turn.hands.populated(unit);
        if own && group && !others && service.adopted && service.control.is_none() {
            // The main process was somebody else's child, who reaped it.
            service.main = None;
            own = false;
        }
        match service.phase {
            _ if own => {}
            Phase::Terminating if others && spec.kill_mode == KillMode::Mixed => {
                self.kill(turn, unit, Phase::Killing);
            }
            _ if others => {}
            Phase::Terminating | Phase::Killing => self.run(turn, unit, Step::StopPost(0)),
            Phase::Sweeping => self.end(turn, unit),
            _ => {}
        }
    }

    /// Stops waiting for processes that nobody may or can kill.
    fn abandon(&mut self, turn: &mut Turn, unit: UnitId) {
        let Some(service) = self.service(unit) else { return };
        service.main = None;
        service.control = None;
        match service.phase {
            Phase::Terminating | Phase::Killing => self.run(turn, unit, Step::StopPost(0)),
            _ => self.end(turn, unit),
        }
    }

    /// The run is over.
    fn end(&mut self, turn: &mut Turn, unit: UnitId) {
        // The connection of an instance is gone with it: there is nothing to restart it for.
        let running = self.machine != MachineState::Stopping && self.slots.owner(unit).is_none();
        let Some((service, spec)) = self.service_and_spec(unit) else { return };
        let failed = service.outcome != Outcome::Success;
        let again = running && !service.unwanted && restarts(spec.restart, service.outcome);
        // A stop that was asked for and went as it should leaves nothing to complain about.
        let phase = if failed { Phase::Failed } else { Phase::Dead };
        if again {
            let delay = spec.restart_delay_us.max(SHORTEST_RESTART_US);
            service.enter(Phase::Waiting, turn.now, delay);
        } else {
            service.enter(phase, turn.now, 0);
        }
        turn.hands.tell(Some(unit), if failed { Event::Failed } else { Event::Stopped });
        let job = &mut self.units[unit.index()].job;
        if job.is_some_and(|job| job.kind == JobKind::Start && job.begun) {
            *job = None;
        }
    }

    fn service(&mut self, unit: UnitId) -> Option<&mut Service> {
        self.service_and_spec(unit).map(|(service, _)| service)
    }

    fn service_and_spec(&mut self, unit: UnitId) -> Option<(&mut Service, &manifest::Service)> {
        let spec = &self.manifest.units.get(self.slots.source(unit).index())?.kind;
        match (&mut self.units.get_mut(unit.index())?.state, spec) {
            (State::Service(service), UnitKind::Service(spec)) => Some((service, spec)),
            _ => None,
        }
    }
}

/// What an exit means, by `SuccessExitStatus=` and the signals that are clean (systemd.service(5)).
fn judge(spec: &manifest::Service, exit: Exit) -> Outcome {
    let clean = match exit {
        Exit::Code(code) => code == 0 || spec.success.codes.contains(&code),
        Exit::Signal(signal) => {
            let quiet = [libc::SIGHUP, libc::SIGINT, libc::SIGTERM, libc::SIGPIPE];
            spec.success.signals.contains(&signal)
                || (spec.kind != ServiceKind::Oneshot && quiet.contains(&signal))
        }
        Exit::Dumped(_) => false,
    };
    match exit {
        _ if clean => Outcome::Success,
        Exit::Code(_) => Outcome::Code,
        Exit::Signal(_) | Exit::Dumped(_) => Outcome::Signal,
    }
}

fn restarts(restart: Restart, outcome: Outcome) -> bool {
    use Outcome::{Signal, Success, Timeout};
    match restart {
        // No watchdog is kept, so none runs out.
        Restart::No | Restart::OnWatchdog => false,
        Restart::Always => true,
        Restart::OnSuccess => outcome == Success,
        Restart::OnFailure => outcome != Success,
        Restart::OnAbnormal => matches!(outcome, Signal | Timeout),
        Restart::OnAbort => outcome == Signal,
    }
}
