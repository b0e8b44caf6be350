//! The state machine of sockets and services. Pure: events and the time go in, calls of
//! [`Hands`] come out. It makes no system call, reads no clock and allocates nothing after
//! [`Supervisor::new`], so that a simulation can drive it through any order of events.
//!
//! # How it works
//!
//! Every unit has a *state* and at most one *job*: what somebody wants of it (start, stop, or
//! restart: a stop that turns into a start). An event changes states and jobs; then
//! [`Supervisor::settle`] goes over the units until none can move any more. A start job moves
//! when all that the unit comes `after` has no job left and what it conflicts with is down; a
//! stop job moves when all that comes after the unit is down.
//!
//! A socket unit:
//!
//! | state | event | next |
//! |---|---|---|
//! | dead, failed | start job | listening, or retrying if a listener cannot be opened |
//! | retrying | its time has come | listening, or retrying with twice the delay, at most 10 s |
//! | listening | readable | running; its service gets a start job |
//! | listening | readable, over a limit | paused until the limit's window ends (the poll limit: that listener) |
//! | paused | its time has come | listening |
//! | listening | service is up or has a job by other means | running |
//! | running | service is *gone* and has no job | listening |
//! | listening | the listener was shut down by somebody | closed and opened anew, as retrying |
//! | listening | the kernel can watch no such file: EPERM | failed, fds closed |
//! | any | stop job | dead, fds closed; nothing else ever closes them |
//!
//! Its own commands (`socket_command`) run before and behind opening and closing.
//!
//! "Gone" is dead, failed or waiting for a restart: the main process is reaped and, with
//! `KillMode=control-group` or `mixed`, the cgroup is empty.
//!
//! **A listener is watched or not, and each watch begins with a look at what waits already.**
//! epoll is used edge-triggered, so an edge that came while nobody looked is lost, and so is one
//! that was taken but led to nothing. Therefore a trigger always ends the watch
//! ([`Hands::unwatch`]), whatever becomes of it, and only [`Supervisor::settle`] begins a new one
//! ([`Hands::watch`]). A client that connected while the service was dying is found by that look.
//!
//! A service (`->` is the way when all goes well):
//!
//! | phase | left when |
//! |---|---|
//! | dead, failed | start job -> its conditions (`check`) -> condition |
//! | waiting (`RestartSec=`) | its time, or a start job -> the same |
//! | condition (`ExecCondition=`) | 0 -> the next, or start-pre; 1 to 254: terminating, and skipped |
//! | start-pre | command ended -> the next, or start; failed: terminating |
//! | start | simple, exec: executed; notify: `READY=1`; oneshot: ended -> start-post; forking: ended -> adopting; else terminating |
//! | adopting (`Type=forking`, the child has ended) | main process found, or none to tell -> start-post |
//! | start-post | command ended -> the next, or running; failed: terminating |
//! | running | main process ended, or stop job -> stop; it failed: terminating |
//! | reload, reloading | commands ended, `READY=1`, or time-out -> running (`service::notify`) |
//! | exited (`RemainAfterExit=`) | stop job -> stop |
//! | stop | command ended -> the next, or terminating |
//! | terminating (`KillSignal=` sent) | all gone -> stop-post; time-out: killing |
//! | aborting (`WatchdogSignal=` sent) | as terminating |
//! | killing (`FinalKillSignal=` sent) | all gone -> stop-post; time-out: SIGKILL again |
//! | stop-post | command ended -> the next, or sweeping |
//! | sweeping (what is left gets SIGKILL) | all gone -> cleaning, if there is something to clean |
//! | cleaning (runtime directories, ...) | ended or time-out -> dead, failed or waiting |
//!
//! # Limits
//!
//! Three, each a [`limit::Limiter`]: starts of a service, triggers of a socket unit, wake-ups of
//! one listener. systemd fails the unit when the first two are hit; here each makes whoever hit
//! it wait until the window ends, and longer each time if the service keeps failing (see there).
//! An order by a person is never held by a limit.
//!
//! # Reload
//!
//! A reload executes the activator anew, and [`Unit`] is handed over as it stands
//! ([`activator::wire`]), so that another version of the activator understands what it knows. So a
//! new field stands last in its struct's list, and is zero where nothing else is known; times are
//! CLOCK_BOOTTIME and stay right. What is the manifest's (limits, sizes of tables) stands in the
//! list behind `without`, and is set by `resume` of its struct, and so is what ends with the process
//! (what epoll watches). Maps and borrowed fields have no place there, and no field may hold an fd:
//! those are the hands'.

mod check;
mod graph;
mod hands;
mod idle;
mod instance;
mod jobs;
mod limit;
mod live;
mod relations;
#[allow(dead_code)]
mod reload;
mod service;
#[cfg(test)]
mod simulation;
mod socket;
mod socket_command;
#[cfg(test)]
mod tests;

pub(crate) use idle::Freeze;
pub(crate) use instance::Accepted;
#[allow(unused_imports)]
pub(crate) use reload::{Fate, Machine};

use crate::slots::Slots;
use activator::control::{Event, Exit, JobResult, MachineState, Report, ServiceState};
use activator::manifest::{self, Manifest, UnitId, UnitKind};
use activator::notification::Notification;
use activator::wire;
pub(crate) use hands::{Ended, Executed, Found, Hands, OpenFailed, Spawned, Step, Told, Whom};

/// Why somebody asks for a start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cause {
    /// A person: limits are forgiven.
    Order,
    /// The boot, a dependency, a socket, or `Restart=`.
    Machine,
}

/// What is wanted of a unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Job {
    kind: JobKind,
    /// Whether the unit has begun to do it. A start that has not begun survives the end of the
    /// run before it.
    begun: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum JobKind {
    Start,
    Stop,
    Restart,
}

/// What changes of a unit. Handed over by a reload.
#[derive(Debug)]
pub(crate) struct Unit {
    job: Option<Job>,
    /// How the last start or reload went.
    result: JobResult,
    /// Was started by the boot; `listening_us` waits for those that are sockets.
    boot: bool,
    /// Of an instance: the connection that it is for, while the slot is taken.
    visitor: Option<instance::Visitor>,
    /// The look at its conditions, while a start job waits for it.
    check: Option<check::Check>,
    /// Starts that conditions have skipped.
    hold: check::Hold,
    /// What others have reacted to last.
    standing: relations::Standing,
    /// Of a service that is stopped or frozen when idle.
    idle: idle::Idle,
    state: State,
}

impl Unit {
    fn new(state: State) -> Self {
        Self {
            job: None,
            result: JobResult::None,
            boot: false,
            visitor: None,
            check: None,
            hold: check::Hold::default(),
            standing: relations::Standing::default(),
            idle: idle::Idle::default(),
            state,
        }
    }
}

#[derive(Debug)]
#[allow(clippy::large_enum_variant)] // most units are services, and a box would be one more allocation
enum State {
    Socket(socket::Socket),
    Service(service::Service),
    Target { active: bool },
}

wire! {
    struct Job { kind, begun }
    enum JobKind { Start, Stop, Restart }
    struct Unit { job, result, boot, visitor, check, hold, idle, state; without standing }
    enum State { Target { active }, Socket(socket), Service(service) }
}

/// The time and the hands, for the length of one event.
struct Turn<'a> {
    /// CLOCK_BOOTTIME in microseconds.
    now: u64,
    hands: &'a mut dyn Hands,
}

/// All units and where they are.
#[derive(Debug)]
pub(crate) struct Supervisor<'m> {
    manifest: &'m Manifest,
    slots: Slots,
    /// One for each unit of the manifest, at the same index; behind them the instances.
    units: live::Units,
    graph: graph::Graph,
    reach: graph::Reach,
    machine: MachineState,
    started_us: u64,
    listening_us: u64,
    /// The time of the last event. A deadline that is not later has been seen.
    ticked_us: u64,
}

impl<'m> Supervisor<'m> {
    /// Makes the tables. The last thing here that allocates.
    pub(crate) fn new(manifest: &'m Manifest, now: u64) -> Self {
        let unit = |unit: &activator::manifest::Unit| {
            Unit::new(match &unit.kind {
                UnitKind::Socket(socket) => State::Socket(socket::Socket::new(socket)),
                UnitKind::Service(service) => State::Service(service::Service::new(service)),
                UnitKind::Target => State::Target { active: false },
            })
        };
        let slots = Slots::new(manifest);
        let templates = slots.iter().filter_map(|(_, slot)| manifest.unit(slot.template));
        let units: Box<[Unit]> = manifest.units.iter().chain(templates).map(unit).collect();
        Self {
            manifest,
            graph: graph::Graph::new(manifest, &slots),
            reach: graph::Reach::new(units.len()),
            units: live::Units::new(units),
            slots,
            machine: MachineState::Starting,
            started_us: now,
            listening_us: 0,
            ticked_us: now,
        }
    }

    /// Starts what starts at boot. Called once.
    pub(crate) fn boot(&mut self, now: u64, hands: &mut dyn Hands) {
        let turn = &mut Turn { now, hands };
        for index in 0..self.manifest.units.len() {
            if self.manifest.units[index].start_at_boot {
                self.start(id(index), Cause::Machine);
            }
        }
        for unit in &mut self.units {
            unit.boot = unit.job.is_some();
        }
        self.settle(turn);
    }

    /// A watched listener is readable.
    pub(crate) fn triggered(
        &mut self,
        now: u64,
        hands: &mut dyn Hands,
        unit: UnitId,
        listener: u16,
    ) {
        let turn = &mut Turn { now, hands };
        self.trigger(turn, unit, listener);
        self.settle(turn);
    }

    /// A watched listener does not listen any more: somebody who had it called shutdown(2).
    pub(crate) fn hung_up(&mut self, now: u64, hands: &mut dyn Hands, unit: UnitId, listener: u16) {
        let turn = &mut Turn { now, hands };
        self.reopen(turn, unit, listener);
        self.settle(turn);
    }

    /// A process was reaped. False if it belongs to no unit.
    pub(crate) fn reaped(&mut self, now: u64, hands: &mut dyn Hands, pid: u32, exit: Exit) -> bool {
        let turn = &mut Turn { now, hands };
        let mut known = false;
        self.each_awake(|it, index| {
            let unit = id(index);
            known = known
                || it.ended(turn, unit, pid, exit)
                || it.socket_command_ended(turn, unit, pid, exit)
                || it.check_ended(turn, unit, pid, exit);
        });
        self.settle(turn);
        known
    }

    /// Processes have ended that are nobody's main or control process, or a cgroup is empty.
    pub(crate) fn emptied(&mut self, now: u64, hands: &mut dyn Hands) {
        let turn = &mut Turn { now, hands };
        self.each_awake(|it, index| {
            it.look_for_processes(turn, id(index));
            it.look_for_frost(turn, id(index));
        });
        self.settle(turn);
    }

    /// A child that was [`Executed::Later`] has executed its program.
    pub(crate) fn executed(&mut self, now: u64, hands: &mut dyn Hands, unit: UnitId) {
        let turn = &mut Turn { now, hands };
        self.program_executed(turn, unit);
        self.settle(turn);
    }

    /// A service wrote to its NOTIFY_SOCKET.
    pub(crate) fn notified(
        &mut self,
        now: u64,
        hands: &mut dyn Hands,
        unit: UnitId,
        notification: &Notification,
    ) {
        let turn = &mut Turn { now, hands };
        self.notify(turn, unit, notification);
        self.settle(turn);
    }

    /// Time has passed; see [`Supervisor::deadline`].
    pub(crate) fn tick(&mut self, now: u64, hands: &mut dyn Hands) {
        let turn = &mut Turn { now, hands };
        self.each_awake(|it, index| {
            match it.units[index].state {
                State::Socket(_) => it.socket_tick(turn, id(index)),
                State::Service(_) => {
                    it.service_tick(turn, id(index));
                    it.idle_tick(turn, id(index));
                }
                State::Target { .. } => {}
            }
            it.check_tick(turn, id(index));
        });
        self.settle(turn);
    }

    /// A person wants a unit up. False if the machine is going down.
    pub(crate) fn order_start(&mut self, now: u64, hands: &mut dyn Hands, unit: UnitId) -> bool {
        let turn = &mut Turn { now, hands };
        let taken = self.start(unit, Cause::Order);
        self.settle(turn);
        taken
    }

    /// A person wants a unit down. False if the machine is going down.
    pub(crate) fn order_stop(&mut self, now: u64, hands: &mut dyn Hands, unit: UnitId) -> bool {
        if self.machine == MachineState::Stopping {
            return false;
        }
        let turn = &mut Turn { now, hands };
        self.stop(unit, JobKind::Stop);
        self.settle(turn);
        true
    }

    /// A person wants a unit to be stopped and started. False if the machine is going down.
    pub(crate) fn order_restart(&mut self, now: u64, hands: &mut dyn Hands, unit: UnitId) -> bool {
        if self.machine == MachineState::Stopping {
            return false;
        }
        let turn = &mut Turn { now, hands };
        self.stop(unit, JobKind::Restart);
        // What the unit requires may be down; its own job is left as it is.
        self.start(unit, Cause::Order);
        self.settle(turn);
        true
    }

    /// A person wants a unit's configuration to be read anew. False if the machine is going down.
    pub(crate) fn order_reload(&mut self, now: u64, hands: &mut dyn Hands, unit: UnitId) -> bool {
        if self.machine == MachineState::Stopping {
            return false;
        }
        let turn = &mut Turn { now, hands };
        self.reload_all(turn, unit);
        self.settle(turn);
        true
    }

    /// Stops everything, in the order that is the reverse of `after`.
    pub(crate) fn shut_down(&mut self, now: u64, hands: &mut dyn Hands) {
        if self.machine == MachineState::Stopping {
            return;
        }
        self.machine = MachineState::Stopping;
        let turn = &mut Turn { now, hands };
        turn.hands.tell(None, Event::ShuttingDown);
        for index in 0..self.units.len() {
            let down = self.is_down(id(index));
            let unit = &mut self.units[index];
            let begun = unit.job.is_some_and(|job| job.kind != JobKind::Start && job.begun);
            unit.job = (!down).then_some(Job { kind: JobKind::Stop, begun });
        }
        self.bound_stops(turn.now);
        self.settle(turn);
    }

    /// Whether [`Supervisor::shut_down`] has nothing left to do.
    pub(crate) fn is_shut_down(&self) -> bool {
        self.machine == MachineState::Stopping && self.units.iter().all(|unit| unit.job.is_none())
    }

    /// When [`Supervisor::tick`] has something to do; None is not before another event.
    pub(crate) fn deadline(&self) -> Option<u64> {
        let deadline = |index: usize| {
            let unit = self.units.get(index)?;
            let own = match &unit.state {
                State::Socket(socket) => socket.deadline(),
                State::Service(service) => self.service_deadline(index, service),
                State::Target { .. } => None,
            };
            let check = unit.check.and_then(check::Check::deadline);
            own.into_iter().chain(check).chain(unit.idle.deadline()).min()
        };
        self.awake().filter_map(deadline).min()
    }

    /// The machine for a status.
    pub(crate) fn machine_report(&self, now: u64) -> Report {
        Report::Machine {
            state: self.machine,
            started_us: self.started_us,
            listening_us: self.listening_us,
            now_us: now,
        }
    }

    /// A unit for a status; None past the last.
    pub(crate) fn report(&self, unit: UnitId) -> Option<Report> {
        let Unit { job, result, state, idle, .. } = self.units.get(unit.index())?;
        Some(match state {
            State::Socket(socket) => Report::Socket {
                unit,
                state: socket.shown(),
                triggered: socket.triggered,
                refused: socket.refused,
                accepted: socket.accepted,
                connections: self.connections(unit),
            },
            State::Service(service) => {
                let mut report = service.report(unit, job.is_some(), *result);
                if let Report::Service { state, .. } = &mut report
                    && idle.is_frozen()
                {
                    *state = ServiceState::Frozen;
                }
                report
            }
            State::Target { active } => Report::Target { unit, active: *active },
        })
    }

    /// What the manifest says of a unit; of an instance, what it says of its template.
    fn spec(&self, unit: UnitId) -> &'m manifest::Unit {
        &self.manifest.units[self.slots.source(unit).index()]
    }

    /// Whether a socket unit's fds are open, as its services see it.
    fn is_open(&self, unit: UnitId) -> bool {
        let state = self.units.get(unit.index()).map(|unit| &unit.state);
        matches!(state, Some(State::Socket(socket)) if socket.is_up())
    }
}

/// The id of an index into the units; there are at most 65535 ([`Manifest::decode`]).
fn id(index: usize) -> UnitId {
    UnitId(index as u16)
}
