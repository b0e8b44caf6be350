//! Services: from start-pre to gone. The phases are tabled in the module above.
//!
//! [`start`] and [`stop`] are the way up and down, [`end`] is what the ends of processes lead to,
//! [`health`] what its health checks say, [`time`] what runs out, [`notify`] what the service says of itself, [`outcome`] how it went.

mod end;
mod health;
mod notify;
mod outcome;
mod start;
mod stop;
mod time;

pub(crate) use outcome::Outcome;

use super::hands::Ended;
use super::limit::{Health, Limiter};
use super::{Job, JobKind, State, Supervisor, Told};
use activator::control::{Exit, JobResult, Report, ServiceState, Text};
use activator::manifest::{self, ServiceKind, UnitId, UnitKind};
use activator::wire;

/// While the machine goes down, `TimeoutStopSec=infinity` means this, and nothing extends it.
const STOP_AT_SHUTDOWN_US: u64 = 90_000_000;
/// How often SIGKILL is sent again to what does not die.
pub(super) const KILL_AGAIN_US: u64 = 10_000_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Dead,
    Failed,
    Waiting,
    Condition(u16),
    StartPre(u16),
    Start(u16),
    Adopting,
    StartPost(u16),
    Running,
    Reload(u16),
    Reloading,
    Exited,
    Stop(u16),
    Aborting,
    Terminating,
    Killing,
    StopPost(u16),
    Sweeping,
    Cleaning,
}

/// What a reload hands over as it stands: see "Reload" in the module above before you add a field.
#[derive(Debug)]
pub(super) struct Service {
    phase: Phase,
    /// When it came to be; bounds what `EXTEND_TIMEOUT_USEC=` can do at the end.
    since: u64,
    /// The main process, from its spawn until it is reaped. While it is Some no other is spawned:
    /// "never two main processes" rests on it.
    main: Option<u32>,
    /// Named by `MAINPID=` or found by `PIDFile=`; such a process may be somebody else's child.
    adopted: bool,
    /// `Type=forking` left several processes: it runs as long as any of them does.
    mainless: bool,
    /// The process of the one control command that runs.
    control: Option<u32>,
    /// When the phase has lasted too long, or the wait for a restart ends.
    deadline: Option<u64>,
    /// When `WATCHDOG=1` must have come; only while it is up.
    watchdog_at: Option<u64>,
    /// How long after the one before; `WATCHDOG_USEC=` changes it for this run.
    watchdog_us: u64,
    /// When `RuntimeMaxSec=` ends; only while it is up.
    runtime_at: Option<u64>,
    /// When to look for `PIDFile=` again, and how long after the look before.
    look_at: Option<u64>,
    look_delay: u64,
    /// It said `STOPPING=1`, so nobody was sent a signal yet.
    polite: bool,
    /// `Type=notify-reload`: when the signal was sent, and whether `RELOADING=1` has come since.
    reload_at: u64,
    reload_heard: bool,
    outcome: Outcome,
    /// A stop was asked for: no `Restart=`.
    unwanted: bool,
    /// The coming start is one by `Restart=`.
    restarting: bool,
    start_limit: Limiter,
    starts: u64,
    restarts: u64,
    /// Restarts since somebody else started it, for `RestartSteps=`.
    restarts_in_row: u32,
    /// The main process' end, in this run and in any.
    main_exit: Option<Exit>,
    last_exit: Option<Exit>,
    /// `STATUS=`
    status: Text,
    /// Its health checks.
    checkup: health::Checkup,
    /// Whose `OnFailure=` or `OnSuccess=` the coming start is. An index is no good after a reload.
    monitor: Option<(UnitId, Ended)>,
}

wire! {
    enum Phase {
        Dead, Failed, Waiting, Condition(index), StartPre(index), Start(index), Adopting,
        StartPost(index), Running, Reload(index), Reloading, Exited, Stop(index), Aborting,
        Terminating, Killing, StopPost(index), Sweeping, Cleaning,
    }
    struct Service {
        phase, since, main, adopted, mainless, control, deadline, watchdog_at, watchdog_us,
        runtime_at, look_at, look_delay, polite, reload_at, reload_heard, outcome, unwanted,
        restarting, start_limit, starts, restarts, restarts_in_row, main_exit, last_exit, status,
        checkup; without monitor
    }
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
            since: 0,
            main: None,
            adopted: false,
            mainless: false,
            control: None,
            deadline: None,
            watchdog_at: None,
            watchdog_us: 0,
            runtime_at: None,
            look_at: None,
            look_delay: 0,
            polite: false,
            reload_at: 0,
            reload_heard: false,
            outcome: Outcome::Success,
            unwanted: false,
            restarting: false,
            start_limit: Limiter::new(service.start_limit),
            starts: 0,
            restarts: 0,
            restarts_in_row: 0,
            main_exit: None,
            last_exit: None,
            status: Text::default(),
            checkup: health::Checkup::default(),
            monitor: None,
        }
    }

    /// The main process.
    pub(super) fn main(&self) -> Option<u32> {
        self.main
    }

    /// One whose main process is all that is known: it counts as up.
    pub(super) fn running(spec: &manifest::Service, main: u32) -> Self {
        Self { phase: Phase::Running, main: Some(main), starts: 1, ..Self::new(spec) }
    }

    /// Takes the settings of the manifest after a reload; what has happened stays.
    pub(super) fn resume(&mut self, spec: &manifest::Service) {
        self.start_limit.relimit(spec.start_limit);
    }

    pub(super) fn report(&self, unit: UnitId, job: bool, result: JobResult) -> Report {
        let state = match self.phase {
            Phase::Dead => ServiceState::Dead,
            Phase::Failed => ServiceState::Failed,
            Phase::Waiting => ServiceState::Waiting,
            Phase::Condition(_)
            | Phase::StartPre(_)
            | Phase::Start(_)
            | Phase::Adopting
            | Phase::StartPost(_) => ServiceState::Starting,
            Phase::Running => ServiceState::Running,
            Phase::Reload(_) | Phase::Reloading => ServiceState::Reloading,
            Phase::Exited => ServiceState::Exited,
            _ => ServiceState::Stopping,
        };
        let (main_pid, last_exit, status) = (self.main, self.last_exit, self.status);
        let (starts, restarts) = (self.starts, self.restarts);
        let job = job || state == ServiceState::Reloading;
        let health = self.checkup.verdict();
        Report::Service {
            unit,
            state,
            main_pid,
            starts,
            restarts,
            last_exit,
            job,
            result,
            status,
            health,
        }
    }

    pub(super) fn is_up(&self) -> bool {
        matches!(self.phase, Phase::Running | Phase::Reload(_) | Phase::Reloading | Phase::Exited)
    }

    /// Whether a reload goes on, and will end: one that says nothing may not have a time-out.
    pub(super) fn is_reloading(&self) -> bool {
        match self.phase {
            Phase::Reload(_) => true,
            Phase::Reloading => self.deadline.is_some(),
            _ => false,
        }
    }

    pub(super) fn is_down(&self) -> bool {
        matches!(self.phase, Phase::Dead | Phase::Failed)
    }

    pub(super) fn is_failed(&self) -> bool {
        self.phase == Phase::Failed
    }

    pub(super) fn is_gone(&self) -> bool {
        self.is_down() || self.phase == Phase::Waiting
    }

    /// Whether a health check runs, which may be one of a run that is over.
    pub(super) fn is_asked(&self) -> bool {
        self.checkup.runs()
    }

    pub(super) fn forgive(&mut self) {
        self.start_limit.forgive();
    }

    /// From now on `WATCHDOG=1` has to come in time, if it is to come at all.
    pub(super) fn start_watchdog(&mut self, now: u64) {
        let watchdog = self.watchdog_us;
        self.watchdog_at = (watchdog > 0).then(|| now.saturating_add(watchdog));
    }

    /// Nobody waits for it.
    pub(super) fn hold_watchdog(&mut self) {
        self.watchdog_at = None;
    }

    /// How the last run ended, for those who are told.
    pub(super) fn ended(&self) -> Ended {
        Ended { result: self.outcome, exit: self.main_exit }
    }

    /// The next start is by another unit's `OnFailure=` or `OnSuccess=`.
    pub(super) fn monitor(&mut self, unit: UnitId, ended: Ended) {
        self.monitor = Some((unit, ended));
    }

    /// When [`Supervisor::service_tick`] has something to do.
    fn next(&self) -> Option<u64> {
        let all =
            [self.deadline, self.watchdog_at, self.runtime_at, self.look_at, self.checkup.next()];
        all.into_iter().flatten().min()
    }

    fn told(&self) -> Told {
        Told {
            main: self.main,
            watchdog_us: self.watchdog_us,
            ended: Some(self.ended()),
            monitor: self.monitor,
        }
    }

    fn blame(&mut self, outcome: Outcome) {
        if self.outcome == Outcome::Success {
            self.outcome = outcome;
        }
    }

    fn enter(&mut self, phase: Phase, now: u64, timeout_us: u64) {
        self.phase = phase;
        self.since = now;
        self.deadline = (timeout_us > 0).then(|| now.saturating_add(timeout_us));
        self.look_at = None;
        let up = matches!(
            phase,
            Phase::StartPost(_) | Phase::Running | Phase::Reload(_) | Phase::Reloading
        );
        if !up {
            self.watchdog_at = None;
            self.runtime_at = None;
            if !matches!(phase, Phase::Start(_) | Phase::Adopting) {
                self.checkup.cease();
            }
        }
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
        if self.units[unit.index()].hold.skipped {
            return true;
        }
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
            State::Service(service) if !service.outcome.is_good() => Health::Failing,
            _ => Health::Good,
        }
    }

    /// Until when the start limit, or a condition that failed, holds a service.
    pub(super) fn start_held(&self, now: u64, unit: UnitId) -> Option<u64> {
        let unit = &self.units[unit.index()];
        let State::Service(service) = &unit.state else { return None };
        service.start_limit.held(now).max(unit.hold.held(now))
    }

    pub(super) fn service_deadline(&self, index: usize, service: &Service) -> Option<u64> {
        let waits =
            self.units[index].job.is_some_and(|job| job.kind == JobKind::Start && !job.begun);
        let held = match waits && service.is_gone() {
            true => self.start_held(self.ticked_us, super::id(index)),
            false => None,
        };
        [service.next(), held].into_iter().flatten().min()
    }

    /// A start job of a service is over, if that is what it had.
    fn end_start_job(&mut self, unit: UnitId) {
        let unit = &mut self.units[unit.index()];
        let State::Service(service) = &unit.state else { return };
        if matches!(unit.job, Some(Job { kind: JobKind::Start, begun: true })) {
            unit.job = None;
            unit.result = match service.outcome.is_good() {
                true => JobResult::Done,
                false => JobResult::Failed,
            };
        }
    }

    fn service(&mut self, unit: UnitId) -> Option<&mut Service> {
        self.service_and_spec(unit).map(|(service, _)| service)
    }

    pub(super) fn service_and_spec(
        &mut self,
        unit: UnitId,
    ) -> Option<(&mut Service, &manifest::Service)> {
        let spec = &self.manifest.units.get(self.slots.source(unit).index())?.kind;
        match (&mut self.units.get_mut(unit.index())?.state, spec) {
            (State::Service(service), UnitKind::Service(spec)) => Some((service, spec)),
            _ => None,
        }
    }
}
