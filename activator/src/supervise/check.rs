//! `Condition*=` and `Assert*=` that the guest has to look at, for units of any kind.
//!
//! A start job of a unit that has some first makes a child that looks (`Step::Conditions`), and
//! begins when that has ended well.
//!
//! | the child ends with | the start |
//! |---|---|
//! | 0 | begins |
//! | 1 to 254 | is over, as if it had gone well; the unit is down and has not failed |
//! | 255, a signal, or never | fails |
//!
//! A service that is skipped although a client waits would be tried again at once, for ever
//! (systemd#2467). So each skip in a row holds the starts by sockets for twice as long as the one
//! before, see [`Hold`]. A person's order is not held.

use super::hands::{Step, Told, Whom};
use super::limit::LONGEST_HOLD_US;
use super::service::KILL_AGAIN_US;
use super::{Job, JobKind, Supervisor, Turn};
use activator::control::{Event, Exit, JobResult};
use activator::manifest::UnitId;
use activator::wire;

/// How long the first skip holds.
const FIRST_HOLD_US: u64 = 100_000;
/// The child may take that long: it looks at files, which may be on a disk that hangs.
const PATIENCE_US: u64 = 90_000_000;
/// When a child that could not be made is tried again.
const AGAIN_US: u64 = 1_000_000;

/// Where the look at a unit's conditions has come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Check {
    /// The child looks; it is killed at that time.
    Runs { pid: u32, until: u64 },
    /// No child could be made. The next try.
    Again(u64),
    /// They hold: the job may begin.
    Passed,
}

wire! {
    enum Check { Passed, Runs { pid, until }, Again(time) }
    struct Hold { skipped, skips, until }
}

impl Check {
    pub(super) fn deadline(self) -> Option<u64> {
        match self {
            Self::Runs { until, .. } | Self::Again(until) => Some(until),
            Self::Passed => None,
        }
    }
}

/// What skipped starts lead to.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Hold {
    /// The last start was skipped, which counts as success for those that require the unit.
    pub(super) skipped: bool,
    /// Skips in a row.
    skips: u8,
    /// No start but by order before that time.
    until: u64,
}

impl Hold {
    /// A start was skipped.
    pub(super) fn skip(&mut self, now: u64) {
        let hold = FIRST_HOLD_US << self.skips.min(16);
        self.skips = self.skips.saturating_add(1);
        self.skipped = true;
        self.until = now.saturating_add(hold.min(LONGEST_HOLD_US));
    }

    /// Until when it holds, if it does.
    pub(super) fn held(&self, now: u64) -> Option<u64> {
        (now < self.until).then_some(self.until)
    }
}

impl Supervisor<'_> {
    /// Whether a start job may begin as far as conditions go; else looks at them.
    pub(super) fn conditions_hold(&mut self, turn: &mut Turn, unit: UnitId) -> bool {
        if self.spec(unit).conditions.is_empty() {
            return true;
        }
        let state = &mut self.units[unit.index()];
        match state.check {
            Some(Check::Passed) => {
                state.check = None;
                return true;
            }
            Some(_) => return false,
            None => {}
        }
        state.check = Some(match turn.hands.spawn(unit, Step::Conditions, &Told::default()) {
            Ok(spawned) => {
                Check::Runs { pid: spawned.pid, until: turn.now.saturating_add(PATIENCE_US) }
            }
            Err(errno) => {
                turn.hands.tell(Some(unit), Event::SpawnFailed(errno));
                Check::Again(turn.now.saturating_add(AGAIN_US))
            }
        });
        false
    }

    /// A process has ended: the one that looks at the unit's conditions?
    pub(super) fn check_ended(
        &mut self,
        turn: &mut Turn,
        unit: UnitId,
        pid: u32,
        exit: Exit,
    ) -> bool {
        let state = &mut self.units[unit.index()];
        if !matches!(state.check, Some(Check::Runs { pid: looks, .. }) if looks == pid) {
            return false;
        }
        state.check = None;
        if !matches!(state.job, Some(Job { kind: JobKind::Start, begun: false })) {
            // Nobody wants it any more.
            return true;
        }
        match exit {
            Exit::Code(0) => {
                state.check = Some(Check::Passed);
                state.hold = Hold::default();
            }
            Exit::Code(1..=254) => {
                state.job = None;
                state.result = JobResult::Done;
                state.hold.skip(turn.now);
                turn.hands.tell(Some(unit), Event::Skipped);
            }
            _ => {
                state.job = None;
                self.fail_to_start(turn, unit);
            }
        }
        true
    }

    pub(super) fn check_tick(&mut self, turn: &mut Turn, unit: UnitId) {
        let state = &mut self.units[unit.index()];
        match state.check {
            Some(Check::Runs { pid, until }) if until <= turn.now => {
                turn.hands.kill(unit, Whom::Process(pid), libc::SIGKILL);
                let until = turn.now.saturating_add(KILL_AGAIN_US);
                state.check = Some(Check::Runs { pid, until });
            }
            Some(Check::Again(until)) if until <= turn.now => state.check = None,
            _ => {}
        }
    }
}
