//! `X-StopWhenIdleSec=` and `X-FreezeWhenIdleSec=`: services that do not leave by themselves.
//!
//! While such a service is up, its listeners are watched as well, so that every new connection is
//! seen, and the kernel is asked now and then whether one is open. None for long enough:
//!
//! | state | event | next |
//! |---|---|---|
//! | open | a listener is readable, or a look finds a connection | open, the time begins anew |
//! | open | idle for long enough | freezing: its cgroup gets `cgroup.freeze` |
//! | open | it cannot be frozen, and is never stopped | unable: nobody watches or looks any more |
//! | freezing | frozen, and a second look finds a connection | open, thawed |
//! | freezing | frozen, and nothing is there | stopped, or frozen |
//! | freezing | takes too long | open, thawed |
//! | freezing, frozen | a listener is readable, or it is reloaded | open, thawed |
//! | frozen | idle for `X-StopWhenIdleSec=`, too | stopped |
//! | any | the service goes down, or is to | thawed |
//!
//! A stop freezes first as well: between the last look and the end of the process nobody can
//! accept a connection and take it along. What comes in that time waits in the backlog, for the
//! next instance. KillSignal= is sent while the service is frozen, and is the first that it sees.
//! (Without cgroups there is nothing to freeze, and a stop does without.)
//!
//! A service behind relays (`X-RelayTo=`) has no listeners; a relay has them, sees every client, and
//! ends when it has had none for long enough. So nothing is watched here and nobody is asked: the
//! service is in use while any of its relays is up or is to start, and idle for the first of its
//! times when the last one has ended.
//!
//! A listener's watch ends with its first event and begins anew at the next look, so that one
//! that is busy costs PID 1 a few wake-ups a second at most.

use super::socket::Socket;
use super::{JobKind, State, Supervisor, Turn, Unit, id};
use activator::control::{Event, MachineState};
use activator::manifest::{Service, UnitId, UnitKind};
use activator::wire;

/// Looks come not closer than that; the idle time is that much longer at most.
const CLOSEST_US: u64 = 10_000;
/// Nor farther apart.
const FARTHEST_US: u64 = 5_000_000;
/// How long the kernel may take to freeze a cgroup.
const FREEZING_US: u64 = 1_000_000;

/// What changes of a service's idleness. Handed over by a reload.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Idle {
    state: Stage,
    /// When a connection was last open or waited.
    since: u64,
    /// A listener has been readable since the last look; or a relay is up.
    seen: bool,
    /// The next look; None is none.
    next: Option<u64>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Stage {
    /// Not up, or no business of ours.
    #[default]
    Off,
    Open,
    Freezing,
    Frozen,
    /// Up, and nothing can be done about its idleness.
    Unable,
}

wire! {
    struct Idle { state, since, seen, next }
    enum Stage { Off, Open, Freezing, Frozen, Unable }
}

/// Whether a cgroup can be frozen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Freeze {
    /// It will be, and the change is an event of its cgroup.
    Soon,
    /// There is none, or it cannot.
    Never,
}

impl Idle {
    /// When there is something to do.
    pub(super) fn deadline(&self) -> Option<u64> {
        self.next
    }

    pub(super) fn is_frozen(&self) -> bool {
        self.state == Stage::Frozen
    }

    /// Whether it is frozen, or about to be.
    pub(super) fn is_cold(&self) -> bool {
        matches!(self.state, Stage::Freezing | Stage::Frozen)
    }
}

impl Supervisor<'_> {
    /// Whether the listeners of a service that is up are watched for its idleness.
    pub(super) fn watches_idle(&self, unit: UnitId) -> bool {
        !matches!(self.units[unit.index()].idle.state, Stage::Off | Stage::Unable)
            && self.units[unit.index()].job.is_none()
            && self.machine != MachineState::Stopping
    }

    /// A listener of a service that is up was readable; when its watch may begin anew.
    pub(super) fn note_busy(&mut self, turn: &mut Turn, unit: UnitId) -> u64 {
        self.warm(turn, unit);
        let idle = &mut self.units[unit.index()].idle;
        idle.seen = true;
        idle.since = turn.now;
        // Without a next look nobody asks any more. Never at once: that would have no end.
        idle.next.unwrap_or(u64::MAX).max(turn.now.saturating_add(1))
    }

    /// Follows a service up and down. Called when all else has been settled: what a stop had to
    /// send is sent.
    pub(super) fn follow_idle(&mut self, turn: &mut Turn, unit: UnitId) {
        let Some((times, step)) = idle_times(&self.spec(unit).kind) else { return };
        let up = self.is_up(unit)
            && self.units[unit.index()].job.is_none()
            && self.slots.owner(unit).is_none()
            && self.machine != MachineState::Stopping;
        let idle = &mut self.units[unit.index()].idle;
        match idle.state {
            Stage::Off if up => {
                let next = Some(turn.now.saturating_add(step));
                *idle = Idle { state: Stage::Open, since: turn.now, seen: false, next };
            }
            Stage::Open | Stage::Freezing | Stage::Frozen | Stage::Unable if !up => {
                let cold = idle.is_cold();
                *idle = Idle::default();
                if cold {
                    turn.hands.thaw(unit);
                }
                // Who comes now is for the next run.
                self.for_each_socket(unit, |_, socket| socket.hurry());
            }
            _ => {}
        }
        if up && !self.relays(unit).is_empty() {
            self.follow_relays(turn, unit, times.first());
        }
    }

    /// A service that is up follows its relays, too.
    fn follow_relays(&mut self, turn: &mut Turn, unit: UnitId, first: u64) {
        let relayed = self.is_relayed(unit);
        if relayed {
            self.warm(turn, unit);
        }
        let listens =
            matches!(&self.spec(unit).kind, UnitKind::Service(it) if !it.sockets.is_empty());
        let idle = &mut self.units[unit.index()].idle;
        if relayed {
            idle.seen = true;
            // The end of a relay is an event; listeners of its own are looked at all the same.
            idle.next = idle.next.filter(|_| listens);
        } else if idle.state == Stage::Open && std::mem::take(&mut idle.seen) {
            // It had been idle for so long before it ended.
            idle.since = turn.now.saturating_sub(first);
            idle.next = Some(turn.now);
        }
    }

    fn relays(&self, unit: UnitId) -> &[UnitId] {
        match &self.spec(unit).kind {
            UnitKind::Service(spec) => &spec.relays,
            _ => &[],
        }
    }

    /// Whether any relay to a service is up, or on its way.
    fn is_relayed(&self, unit: UnitId) -> bool {
        self.relays(unit).iter().any(|relay| {
            let starts = self.units[relay.index()].job.is_some_and(|it| it.kind != JobKind::Stop);
            starts || !self.is_gone(*relay)
        })
    }

    pub(super) fn idle_tick(&mut self, turn: &mut Turn, unit: UnitId) {
        let Some((times, step)) = idle_times(&self.spec(unit).kind) else { return };
        let Unit { idle, state, .. } = &mut self.units[unit.index()];
        let reloads = matches!(state, State::Service(service) if service.is_reloading());
        if idle.next.is_none_or(|next| turn.now < next) {
            return;
        }
        match idle.state {
            Stage::Off | Stage::Unable => idle.next = None,
            Stage::Freezing => self.wake(turn, unit),
            Stage::Frozen => self.stop_idle(turn, unit),
            Stage::Open => {
                let seen = std::mem::take(&mut idle.seen);
                if turn.hands.in_use(unit) || seen || reloads {
                    idle.since = turn.now;
                }
                let over = idle.since.saturating_add(times.first());
                if turn.now < over {
                    idle.next = Some(turn.now.saturating_add(step).min(over));
                    return;
                }
                match turn.hands.freeze(unit) {
                    Freeze::Soon => {
                        idle.state = Stage::Freezing;
                        idle.next = Some(turn.now.saturating_add(FREEZING_US));
                    }
                    Freeze::Never if times.stop > 0 => self.stop_idle(turn, unit),
                    // It was told at start-up that it cannot.
                    Freeze::Never => {
                        idle.state = Stage::Unable;
                        idle.next = None;
                    }
                }
            }
        }
    }

    /// Something of a cgroup has changed: is it frozen?
    pub(super) fn look_for_frost(&mut self, turn: &mut Turn, unit: UnitId) {
        if self.units[unit.index()].idle.state != Stage::Freezing || !turn.hands.is_frozen(unit) {
            return;
        }
        let Some((times, _)) = idle_times(&self.spec(unit).kind) else { return };
        // Nobody can accept any more, so this look is the last word, but for those who come
        // later: they are found by their edge.
        if turn.hands.in_use(unit) {
            return self.wake(turn, unit);
        }
        if times.freeze == 0 {
            return self.stop_idle(turn, unit);
        }
        let idle = &mut self.units[unit.index()].idle;
        idle.state = Stage::Frozen;
        idle.next = (times.stop > 0).then(|| idle.since.saturating_add(times.stop));
        if let Some((service, _)) = self.service_and_spec(unit) {
            // Whoever is frozen cannot say that it is alive.
            service.hold_watchdog();
        }
        turn.hands.tell(Some(unit), Event::Frozen);
        self.watch_anew(turn, unit);
    }

    /// Thaws a service that is frozen or about to be.
    pub(super) fn warm(&mut self, turn: &mut Turn, unit: UnitId) {
        if self.units[unit.index()].idle.is_cold() {
            self.wake(turn, unit);
        }
    }

    /// Thaws a service, which goes on from where it was, and is idle from now on.
    fn wake(&mut self, turn: &mut Turn, unit: UnitId) {
        let step = idle_times(&self.spec(unit).kind).map_or(CLOSEST_US, |(_, step)| step);
        let idle = &mut self.units[unit.index()].idle;
        let told = idle.is_frozen();
        idle.state = Stage::Open;
        idle.since = turn.now;
        idle.next = Some(turn.now.saturating_add(step));
        turn.hands.thaw(unit);
        if told {
            if let Some((service, _)) = self.service_and_spec(unit) {
                service.start_watchdog(turn.now);
            }
            turn.hands.tell(Some(unit), Event::Thawed);
        }
    }

    fn stop_idle(&mut self, turn: &mut Turn, unit: UnitId) {
        turn.hands.tell(Some(unit), Event::Idle);
        self.units[unit.index()].idle.next = None;
        self.stop(unit, JobKind::Stop);
    }

    /// Every listener of a frozen service gets a new watch, which begins with a look at what
    /// waits.
    fn watch_anew(&mut self, turn: &mut Turn, unit: UnitId) {
        self.for_each_socket(unit, |id, socket| {
            socket.unwatch(turn, id);
            socket.hurry();
        });
    }

    fn for_each_socket(&mut self, unit: UnitId, mut act: impl FnMut(UnitId, &mut Socket)) {
        let UnitKind::Service(spec) = &self.spec(unit).kind else { return };
        for id in &spec.sockets {
            if let Some(socket) = self.socket(*id) {
                act(*id, socket);
            }
        }
    }

    /// What all services have to do about idleness after everything else.
    pub(super) fn follow_all_idle(&mut self, turn: &mut Turn) {
        let own = self.manifest.units.len();
        self.each_awake(|it, index| {
            if index < own {
                it.follow_idle(turn, id(index));
            }
        });
    }
}

/// The two keys in microseconds; 0 is never.
#[derive(Debug, Clone, Copy)]
struct Times {
    stop: u64,
    freeze: u64,
}

impl Times {
    /// What comes first.
    fn first(self) -> u64 {
        match (self.stop, self.freeze) {
            (0, one) | (one, 0) => one,
            (one, other) => one.min(other),
        }
    }
}

/// The times of a service that has any, and how often to look.
fn idle_times(kind: &UnitKind) -> Option<(Times, u64)> {
    let UnitKind::Service(Service { stop_when_idle_us, freeze_when_idle_us, .. }) = kind else {
        return None;
    };
    let times = Times { stop: *stop_when_idle_us, freeze: *freeze_when_idle_us };
    let first = times.first();
    (first > 0).then(|| (times, (first / 8).clamp(CLOSEST_US, FARTHEST_US)))
}
