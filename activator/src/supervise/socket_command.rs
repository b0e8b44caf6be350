//! A socket unit's own commands: `ExecStartPre=`, `ExecStartPost=`, `ExecStopPre=`,
//! `ExecStopPost=`.
//!
//! | phase | command ended well, or there is none | it failed, or took longer than `TimeoutSec=` |
//! |---|---|---|
//! | start-pre | the next, then the listeners are opened | failed; nothing was opened |
//! | start-post | the next, then the unit is up | stop-pre |
//! | stop-pre | the next, then the listeners are closed | the listeners are closed |
//! | stop-post | the next, then dead | dead |
//!
//! A stop ends a start: what runs gets SIGTERM, and its end counts as a failure. What runs too
//! long gets SIGTERM, and as long later SIGKILL. A unit that is opened anew, since its address was
//! not there or somebody shut a listener down, runs start-pre and start-post once only. Without
//! memory for a child a start tries again, as it does for an address.

use super::{Executed, State, Step, Supervisor, Told, Turn, Whom};
use activator::control::{Event, Exit, MachineState, SocketState};
use activator::manifest::{Command, UnitId, UnitKind};
use activator::wire;

/// `TimeoutSec=infinity` while the machine goes down.
const TIMEOUT_AT_SHUTDOWN_US: u64 = 90_000_000;

/// The command that runs, by its index in the manifest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    StartPre(u16),
    StartPost(u16),
    StopPre(u16),
    StopPost(u16),
}

impl Phase {
    fn step(self) -> Step {
        match self {
            Self::StartPre(index) => Step::StartPre(index),
            Self::StartPost(index) => Step::StartPost(index),
            Self::StopPre(index) => Step::StopPre(index),
            Self::StopPost(index) => Step::StopPost(index),
        }
    }

    fn index(self) -> u16 {
        match self {
            Self::StartPre(index)
            | Self::StartPost(index)
            | Self::StopPre(index)
            | Self::StopPost(index) => index,
        }
    }

    fn next(self) -> Self {
        match self {
            Self::StartPre(index) => Self::StartPre(index.saturating_add(1)),
            Self::StartPost(index) => Self::StartPost(index.saturating_add(1)),
            Self::StopPre(index) => Self::StopPre(index.saturating_add(1)),
            Self::StopPost(index) => Self::StopPost(index.saturating_add(1)),
        }
    }

    fn is_start(self) -> bool {
        matches!(self, Self::StartPre(_) | Self::StartPost(_))
    }

    fn commands(self, socket: &activator::manifest::Socket) -> &[Command] {
        match self {
            Self::StartPre(_) => &socket.start_pre,
            Self::StartPost(_) => &socket.start_post,
            Self::StopPre(_) => &socket.stop_pre,
            Self::StopPost(_) => &socket.stop_post,
        }
    }
}

/// A command that runs.
#[derive(Debug, Clone, Copy)]
pub(super) struct Running {
    phase: Phase,
    pid: u32,
    /// Signalled next at that time; None is never.
    pub(super) deadline: Option<u64>,
    /// What it was sent last; 0 is nothing.
    signalled: i32,
}

wire! {
    enum Phase { StartPre(index), StartPost(index), StopPre(index), StopPost(index) }
    struct Running { phase, pid, deadline, signalled }
}

impl Supervisor<'_> {
    /// Runs a command of a socket unit, or what follows where there is none with that index.
    pub(super) fn run_socket(&mut self, turn: &mut Turn, unit: UnitId, phase: Phase) {
        let stopping = self.machine == MachineState::Stopping;
        let UnitKind::Socket(spec) = &self.spec(unit).kind else { return };
        let Some(socket) = self.socket(unit) else { return };
        if usize::from(phase.index()) >= phase.commands(spec).len() {
            return match phase {
                Phase::StartPre(_) => {
                    socket.prepared = true;
                    self.open(turn, unit);
                }
                Phase::StartPost(_) => self.socket_is_up(turn, unit),
                Phase::StopPre(_) => self.close_listeners(turn, unit),
                Phase::StopPost(_) => self.socket_is_down(turn, unit),
            };
        }
        socket.state = if phase.is_start() { SocketState::Starting } else { SocketState::Stopping };
        let timeout = match spec.timeout_us {
            0 if stopping => TIMEOUT_AT_SHUTDOWN_US,
            timeout => timeout,
        };
        match turn.hands.spawn(unit, phase.step(), &Told::default()) {
            Ok(spawned) => {
                if let Executed::No(errno) = spawned.executed {
                    turn.hands.tell(Some(unit), Event::SpawnFailed(errno));
                }
                let deadline = (timeout > 0).then(|| turn.now.saturating_add(timeout));
                let pid = spawned.pid;
                socket.command = Some(Running { phase, pid, deadline, signalled: 0 });
            }
            Err(errno) => {
                turn.hands.tell(Some(unit), Event::SpawnFailed(errno));
                match phase {
                    // That is nothing that the command could say: it is tried again.
                    Phase::StartPre(_) | Phase::StartPost(_) => {
                        socket.retry(turn.now);
                    }
                    Phase::StopPre(_) => self.close_listeners(turn, unit),
                    Phase::StopPost(_) => self.socket_is_down(turn, unit),
                }
            }
        }
    }

    /// A process was reaped; whether it was the command of this socket unit.
    pub(super) fn socket_command_ended(
        &mut self,
        turn: &mut Turn,
        unit: UnitId,
        pid: u32,
        exit: Exit,
    ) -> bool {
        let UnitKind::Socket(spec) = &self.spec(unit).kind else { return false };
        let Some(socket) = self.socket(unit) else { return false };
        let Some(Running { phase, signalled, .. }) =
            socket.command.take_if(|command| command.pid == pid)
        else {
            return false;
        };
        let command = phase.commands(spec).get(usize::from(phase.index()));
        let ignored = command.is_some_and(|command| command.ignore_failure);
        let aborted = signalled != 0;
        if aborted || (exit != Exit::Code(0) && !ignored) {
            turn.hands.tell(Some(unit), Event::CommandFailed(exit));
            self.socket_command_failed(turn, unit, phase);
        } else {
            self.run_socket(turn, unit, phase.next());
        }
        true
    }

    /// A stop job has begun while a command of the start runs: it is not waited for.
    pub(super) fn abort_start(&mut self, turn: &mut Turn, unit: UnitId) {
        let UnitKind::Socket(spec) = &self.spec(unit).kind else { return };
        let stopping = self.machine == MachineState::Stopping;
        let Some(socket) = self.socket(unit) else { return };
        let Some(command) = &mut socket.command else { return };
        if command.signalled == 0 && (command.phase.is_start() || stopping) {
            let timeout = match spec.timeout_us {
                0 => TIMEOUT_AT_SHUTDOWN_US,
                timeout => timeout,
            };
            if command.phase.is_start() {
                command.signalled = libc::SIGTERM;
                turn.hands.kill(unit, Whom::All, libc::SIGTERM);
            }
            let until = turn.now.saturating_add(timeout);
            command.deadline = Some(command.deadline.map_or(until, |at| at.min(until)));
        }
    }

    /// The command of a socket unit has run for too long.
    pub(super) fn socket_command_timed_out(&mut self, turn: &mut Turn, unit: UnitId) {
        let UnitKind::Socket(spec) = &self.spec(unit).kind else { return };
        let Some(socket) = self.socket(unit) else { return };
        let Some(command) = &mut socket.command else { return };
        let signal = if command.signalled == 0 { libc::SIGTERM } else { libc::SIGKILL };
        command.signalled = signal;
        let timeout = if spec.timeout_us == 0 { TIMEOUT_AT_SHUTDOWN_US } else { spec.timeout_us };
        command.deadline = Some(turn.now.saturating_add(timeout));
        turn.hands.tell(Some(unit), Event::TimedOut(signal));
        turn.hands.kill(unit, Whom::All, signal);
    }

    fn socket_command_failed(&mut self, turn: &mut Turn, unit: UnitId, phase: Phase) {
        if let Some(socket) = self.socket(unit) {
            socket.failed = true;
        }
        match phase {
            // Nothing is open yet.
            Phase::StartPre(_) => self.socket_is_down(turn, unit),
            Phase::StartPost(_) => self.run_socket(turn, unit, Phase::StopPre(0)),
            Phase::StopPre(_) => self.close_listeners(turn, unit),
            Phase::StopPost(_) => self.socket_is_down(turn, unit),
        }
    }

    fn close_listeners(&mut self, turn: &mut Turn, unit: UnitId) {
        if let Some(socket) = self.socket(unit) {
            socket.unwatch(turn, unit);
        }
        turn.hands.close(unit);
        self.run_socket(turn, unit, Phase::StopPost(0));
    }

    fn socket_is_down(&mut self, turn: &mut Turn, unit: UnitId) {
        let Some(socket) = self.socket(unit) else { return };
        let failed = std::mem::take(&mut socket.failed);
        socket.state = if failed { SocketState::Failed } else { SocketState::Dead };
        socket.forget();
        turn.hands.tell(Some(unit), if failed { Event::Failed } else { Event::Stopped });
        self.end_start(unit);
    }
}

/// Whether a state has nothing left of the unit.
pub(super) fn is_down(state: &State) -> bool {
    matches!(state, State::Socket(socket)
        if matches!(socket.state, SocketState::Dead | SocketState::Failed))
}
