//! What a service says of itself with sd_notify(3), and reloads, which are a conversation.
//!
//! | phase | event | next |
//! |---|---|---|
//! | running | order, `Type=notify-reload` | `ReloadSignal=` is sent; reload, or reloading |
//! | running | order, `ExecReload=` | reload |
//! | reload | last command ended | reloading if a signal was sent and READY=1 has not come; running |
//! | running | `RELOADING=1` | reloading |
//! | reloading | `READY=1`, after `RELOADING=1` | running |
//! | reload, reloading | `TimeoutStartSec=` | running: a reload that fails leaves it as it was |

use super::{Outcome, Phase, STOP_AT_SHUTDOWN_US};
use crate::supervise::hands::{Step, Whom};
use crate::supervise::{State, Supervisor, Turn};
use activator::control::{Event, JobResult, MachineState};
use activator::manifest::{NotifyAccess, ServiceKind, UnitId, UnitKind};
use activator::notification::{Notification, Watchdog};

impl Supervisor<'_> {
    /// Whether a process may speak for a service, by `NotifyAccess=`. Whoever can write to the
    /// socket is of the service: it has one of its own.
    pub(crate) fn hears(&self, unit: UnitId, sender: u32) -> bool {
        let (Some(State::Service(service)), UnitKind::Service(spec)) =
            (self.units.get(unit.index()).map(|unit| &unit.state), &self.spec(unit).kind)
        else {
            return false;
        };
        let speaks = matches!(spec.kind, ServiceKind::Notify | ServiceKind::NotifyReload)
            || spec.watchdog_us > 0
            || spec.fd_store_max > 0;
        let main = service.main == Some(sender);
        match spec.notify_access {
            NotifyAccess::All => true,
            NotifyAccess::Exec => main || service.control == Some(sender),
            NotifyAccess::Main => main,
            // The host raises it for those that cannot do without, as systemd does. A manifest
            // that was made without that word means whoever has the socket.
            NotifyAccess::None => speaks,
        }
    }

    pub(in crate::supervise) fn notify(
        &mut self,
        turn: &mut Turn,
        unit: UnitId,
        said: &Notification,
    ) {
        let Some(service) = self.service(unit) else { return };
        if service.is_gone() {
            return;
        }
        if let Some(pid) = said.main_pid
            && service.main != Some(pid)
            && !matches!(
                service.phase,
                Phase::Condition(_) | Phase::StartPre(_) | Phase::StopPost(_) | Phase::Exited
            )
            && turn.hands.adopt(unit, pid)
        {
            service.main = Some(pid);
            service.adopted = true;
            service.mainless = false;
            turn.hands.tell(Some(unit), Event::Started(pid));
            if service.phase == Phase::Adopting {
                self.started(turn, unit);
            }
        }
        let Some(service) = self.service(unit) else { return };
        if let Some(status) = said.status {
            service.status = status;
        }
        if said.restart_reset {
            service.restarts_in_row = 0;
        }
        self.extend(turn, unit, said);
        self.hear_watchdog(turn, unit, said);
        let Some((service, spec)) = self.service_and_spec(unit) else { return };
        let notifies = matches!(spec.kind, ServiceKind::Notify | ServiceKind::NotifyReload);
        if said.stopping {
            // The rest of such a message counts no more.
            if matches!(service.phase, Phase::Running | Phase::Reloading) {
                self.let_stop(turn, unit);
            }
            return;
        }
        match service.phase {
            Phase::Start(_) if said.ready && notifies => self.started(turn, unit),
            Phase::Running if said.reloading.is_some() && !said.ready => {
                let timeout = spec.start_timeout_us;
                service.reload_heard = true;
                service.enter(Phase::Reloading, turn.now, timeout);
                self.warm(turn, unit);
            }
            Phase::Reload(_) | Phase::Reloading => {
                // One that was sent before the signal is about something else.
                let about = |at: Option<u64>| {
                    at.is_some_and(|at| at >= service.reload_at)
                        || spec.kind != ServiceKind::NotifyReload
                };
                service.reload_heard |= said.reloading.is_some_and(about);
                if said.ready && service.reload_heard {
                    service.reload_at = 0;
                    if service.phase == Phase::Reloading {
                        self.go_on_running(turn, unit);
                    }
                }
            }
            _ => {}
        }
    }

    /// A person wants a unit's configuration read anew, and with it that of those to whom its
    /// reload is propagated.
    pub(in crate::supervise) fn reload_all(&mut self, turn: &mut Turn, unit: UnitId) {
        self.reload(turn, unit);
        let manifest = self.manifest;
        for other in &manifest.units[self.slots.source(unit).index()].reloads {
            self.reload(turn, *other);
        }
    }

    fn reload(&mut self, turn: &mut Turn, unit: UnitId) {
        let Some((service, spec)) = self.service_and_spec(unit) else { return };
        let signals = spec.kind == ServiceKind::NotifyReload && service.main.is_some();
        if service.phase != Phase::Running || (!signals && spec.reload.is_empty()) {
            return;
        }
        let timeout = spec.start_timeout_us;
        service.reload_heard = false;
        service.reload_at = 0;
        self.units[unit.index()].result = JobResult::Done;
        self.warm(turn, unit);
        let Some((service, spec)) = self.service_and_spec(unit) else { return };
        if let Some(main) = service.main.filter(|_| signals) {
            service.reload_at = turn.now.max(1);
            turn.hands.kill(unit, Whom::Process(main), spec.reload_signal);
        }
        if spec.reload.is_empty() {
            service.enter(Phase::Reloading, turn.now, timeout);
        } else {
            self.run(turn, unit, Step::Reload(0));
        }
    }

    /// The last ExecReload= has ended.
    pub(super) fn reloaded(&mut self, turn: &mut Turn, unit: UnitId) {
        let Some((service, spec)) = self.service_and_spec(unit) else { return };
        if service.reload_at != 0 && service.main.is_some() {
            let timeout = spec.start_timeout_us;
            return service.enter(Phase::Reloading, turn.now, timeout);
        }
        self.go_on_running(turn, unit);
    }

    /// A reload has failed, which leaves the service as it was.
    pub(super) fn fail_to_reload(&mut self, turn: &mut Turn, unit: UnitId) {
        self.units[unit.index()].result = JobResult::Failed;
        self.go_on_running(turn, unit);
    }

    /// A reload is over, whatever came of it.
    pub(super) fn go_on_running(&mut self, turn: &mut Turn, unit: UnitId) {
        let Some(service) = self.service(unit) else { return };
        service.reload_at = 0;
        service.enter(Phase::Running, turn.now, 0);
        if service.main.is_none() {
            self.finish(turn, unit);
        }
    }

    /// `EXTEND_TIMEOUT_USEC=`: what would run out before then, does so then.
    fn extend(&mut self, turn: &mut Turn, unit: UnitId, said: &Notification) {
        let stopping = self.machine == MachineState::Stopping;
        let Some(service) = self.service(unit) else { return };
        let Some(extend) = said.extend_timeout_us else { return };
        let mut until = turn.now.saturating_add(extend);
        if stopping {
            until = until.min(service.since.saturating_add(STOP_AT_SHUTDOWN_US));
        }
        for at in [&mut service.deadline, &mut service.runtime_at, &mut service.watchdog_at] {
            *at = at.map(|at| at.max(until));
        }
    }

    fn hear_watchdog(&mut self, turn: &mut Turn, unit: UnitId, said: &Notification) {
        let Some((service, spec)) = self.service_and_spec(unit) else { return };
        if let Some(interval) = said.watchdog_us {
            service.watchdog_us = interval;
            let watched = service.is_up() || matches!(service.phase, Phase::StartPost(_));
            service.watchdog_at = (interval > 0 && watched && service.phase != Phase::Exited)
                .then(|| turn.now.saturating_add(interval));
        }
        match said.watchdog {
            Some(Watchdog::Alive) => {
                let next = turn.now.saturating_add(service.watchdog_us);
                service.watchdog_at = service.watchdog_at.map(|_| next);
            }
            Some(Watchdog::Trigger)
                if service.phase != Phase::Exited
                    && (service.is_up() || matches!(service.phase, Phase::StartPost(_))) =>
            {
                service.blame(Outcome::Watchdog);
                turn.hands.tell(Some(unit), Event::TimedOut(spec.watchdog_signal));
                self.abort(turn, unit);
            }
            _ => {}
        }
    }
}
