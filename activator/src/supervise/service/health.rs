//! Health checks ([`activator::manifest::HealthCheck`]): a command that is run again and again
//! while the main process runs, and what its ends lead to.
//!
//! | stage | event | next |
//! |---|---|---|
//! | off | the main process was made | startup, if there is such a check, else regular: starting |
//! | startup | so many successes | regular |
//! | startup | so many failures | the service is restarted |
//! | regular | success | healthy; with `Notify=healthy` the service is ready |
//! | regular | failure within the start period | as before |
//! | regular | so many failures in a row | unhealthy, and what `HealthOnFailure=` says |
//! | any | it could not be asked how it is | as before; until there is a verdict, again soon |
//! | any | the main process is gone, or a stop begins | off |
//!
//! A check that takes too long gets SIGTERM, which crun hands on to the command in the container,
//! and later SIGKILL; it has failed. While a service is frozen nobody asks how it is.

use crate::supervise::hands::{Step, Whom};
use crate::supervise::{Cause, JobKind, Supervisor, Turn};
use activator::control::{Event, Exit, HealthState};
use activator::manifest::{HealthCheck, OnUnhealthy, Probe, UnitId};
use activator::wire;

/// The first check comes so soon after the start, or after the interval if that is shorter.
const FIRST_US: u64 = 1_000_000;
/// What SIGTERM does not end in that time gets SIGKILL.
const GRACE_US: u64 = 2_000_000;

/// Where the checks of a service are. Handed over by a reload.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Checkup {
    stage: Stage,
    /// What they have come to; None while they are off.
    verdict: Option<HealthState>,
    /// When the main process was made.
    began: u64,
    /// The process of the check that runs. It may outlast the stage.
    pid: Option<u32>,
    /// It was sent SIGTERM: whatever its exit code, it has failed.
    late: bool,
    /// The time-out of the check that runs, or when the next one does.
    at: Option<u64>,
    /// Failures in a row.
    failures: u32,
    /// Successes of the startup check.
    successes: u32,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Stage {
    #[default]
    Off,
    Startup,
    Regular,
}

wire! {
    struct Checkup { stage, verdict, began, pid, late, at, failures, successes }
    enum Stage { Off, Startup, Regular }
}

impl Checkup {
    /// When there is something to do.
    pub(super) fn next(&self) -> Option<u64> {
        self.at
    }

    /// For the status.
    pub(super) fn verdict(&self) -> Option<HealthState> {
        self.verdict
    }

    /// Whether a check runs.
    pub(super) fn runs(&self) -> bool {
        self.pid.is_some()
    }

    /// Whether it is the process of a check.
    pub(super) fn is(&self, pid: u32) -> bool {
        self.pid == Some(pid)
    }

    /// The main process was made.
    pub(super) fn begin(&mut self, spec: Option<&HealthCheck>, now: u64) {
        let Some(spec) = spec else { return };
        let (pid, late) = (self.pid, self.late);
        let stage = if spec.startup.is_some() { Stage::Startup } else { Stage::Regular };
        let verdict = Some(HealthState::Starting);
        *self = Self { stage, verdict, began: now, pid, late, ..Self::default() };
        match self.pid {
            // One of the run before has not ended yet; its end goes on.
            Some(_) => self.at = Some(now.saturating_add(GRACE_US)),
            None => self.wait(spec, now, FIRST_US),
        }
    }

    /// The main process is gone, or will be. A check that runs goes with it, or in its own time.
    pub(super) fn cease(&mut self) {
        self.stage = Stage::Off;
        self.verdict = None;
        if self.pid.is_none() {
            self.at = None;
        }
    }

    fn wait(&mut self, spec: &HealthCheck, now: u64, most: u64) {
        let interval = self.probe(spec).map_or(0, |(probe, _)| probe.interval_us);
        self.at = (interval > 0).then(|| now.saturating_add(interval.min(most)));
    }

    fn probe<'s>(&self, spec: &'s HealthCheck) -> Option<(&'s Probe, Step)> {
        match self.stage {
            Stage::Off => None,
            Stage::Startup => Some((&spec.startup.as_ref()?.probe, Step::HealthStartup)),
            Stage::Regular => Some((&spec.probe, Step::Health)),
        }
    }
}

impl Supervisor<'_> {
    /// [`Checkup::next`] has come.
    pub(super) fn health_tick(&mut self, turn: &mut Turn, unit: UnitId) {
        let cold = self.units[unit.index()].idle.is_cold();
        let Some((service, spec)) = self.service_and_spec(unit) else { return };
        let checkup = &mut service.checkup;
        checkup.at = None;
        let Some(spec) = &spec.health else { return };
        if cold {
            return checkup.wait(spec, turn.now, u64::MAX);
        }
        if let Some(pid) = checkup.pid {
            let signal = if checkup.late { libc::SIGKILL } else { libc::SIGTERM };
            checkup.late = true;
            checkup.at = Some(turn.now.saturating_add(GRACE_US));
            return turn.hands.kill(unit, Whom::Process(pid), signal);
        }
        let Some((probe, step)) = checkup.probe(spec) else { return };
        checkup.late = false;
        let timeout = probe.timeout_us;
        let told = service.told();
        match turn.hands.spawn(unit, step, &told) {
            Ok(spawned) => {
                let checkup = &mut service.checkup;
                checkup.pid = Some(spawned.pid);
                checkup.at = (timeout > 0).then(|| turn.now.saturating_add(timeout));
            }
            // That says nothing about the service.
            Err(errno) => {
                turn.hands.tell(Some(unit), Event::SpawnFailed(errno));
                service.checkup.wait(spec, turn.now, u64::MAX);
            }
        }
    }

    /// A check has ended.
    pub(super) fn health_ended(&mut self, turn: &mut Turn, unit: UnitId, exit: Exit) {
        let Some((service, spec)) = self.service_and_spec(unit) else { return };
        let Some(spec) = spec.health.as_deref() else { return };
        let checkup = &mut service.checkup;
        checkup.pid = None;
        let late = std::mem::take(&mut checkup.late);
        let asked = late || !spec.no_verdict.is_some_and(|code| exit == Exit::Code(code));
        if checkup.stage != Stage::Off && !asked {
            // A container is made some time after its service's main process.
            let unknown = checkup.verdict == Some(HealthState::Starting);
            return checkup.wait(spec, turn.now, if unknown { FIRST_US } else { u64::MAX });
        }
        let well = exit == Exit::Code(0) && !late;
        match (checkup.stage, well) {
            (Stage::Off, _) => checkup.at = None,
            (Stage::Startup, true) => self.startup_went_well(turn, unit),
            (Stage::Startup, false) => {
                checkup.failures = checkup.failures.saturating_add(1);
                checkup.wait(spec, turn.now, u64::MAX);
                let most = spec.startup.as_ref().map_or(0, |startup| startup.retries);
                if most > 0 && checkup.failures >= most {
                    let failures = checkup.failures;
                    self.is_unhealthy(turn, unit, failures, OnUnhealthy::Restart);
                }
            }
            (Stage::Regular, true) => {
                checkup.failures = 0;
                checkup.wait(spec, turn.now, u64::MAX);
                let before = checkup.verdict.replace(HealthState::Healthy);
                if before != Some(HealthState::Healthy) {
                    turn.hands.tell(Some(unit), Event::Healthy);
                }
                self.ready_by_health(turn, unit);
            }
            (Stage::Regular, false) => {
                checkup.wait(spec, turn.now, u64::MAX);
                if turn.now < checkup.began.saturating_add(spec.start_period_us) {
                    return;
                }
                checkup.failures = checkup.failures.saturating_add(1);
                if checkup.failures >= spec.retries {
                    let (failures, action) = (checkup.failures, spec.on_failure);
                    self.is_unhealthy(turn, unit, failures, action);
                }
            }
        }
    }

    fn startup_went_well(&mut self, turn: &mut Turn, unit: UnitId) {
        let Some((service, spec)) = self.service_and_spec(unit) else { return };
        let Some(spec) = spec.health.as_deref() else { return };
        let checkup = &mut service.checkup;
        checkup.successes = checkup.successes.saturating_add(1);
        checkup.failures = 0;
        let wanted = spec.startup.as_ref().map_or(1, |startup| startup.successes.max(1));
        if checkup.successes < wanted {
            return checkup.wait(spec, turn.now, u64::MAX);
        }
        checkup.stage = Stage::Regular;
        checkup.wait(spec, turn.now, FIRST_US);
    }

    /// `Notify=healthy`
    fn ready_by_health(&mut self, turn: &mut Turn, unit: UnitId) {
        let Some((service, spec)) = self.service_and_spec(unit) else { return };
        let makes_ready = spec.health.as_ref().is_some_and(|health| health.makes_ready);
        if makes_ready && matches!(service.phase, super::Phase::Start(_)) {
            self.started(turn, unit);
        }
    }

    fn is_unhealthy(&mut self, turn: &mut Turn, unit: UnitId, failures: u32, action: OnUnhealthy) {
        let Some(service) = self.service(unit) else { return };
        let before = service.checkup.verdict.replace(HealthState::Unhealthy);
        if before != Some(HealthState::Unhealthy) {
            turn.hands.tell(Some(unit), Event::Unhealthy(failures));
        }
        match action {
            OnUnhealthy::None => {}
            OnUnhealthy::Kill => turn.hands.kill(unit, Whom::All, libc::SIGKILL),
            OnUnhealthy::Restart => {
                // An instance only stops: its connection does not come back.
                self.stop(unit, JobKind::Restart);
                if self.slots.owner(unit).is_none() {
                    // What it requires may be down.
                    self.start(unit, Cause::Machine);
                }
            }
            OnUnhealthy::Stop => self.stop_now(turn, unit),
        }
    }
}
