//! What PID 1 and the log process tell each other.

use super::{Exit, HealthState, JobResult, MachineState, ServiceState, SocketState, Text};
use crate::manifest::UnitId;
use crate::peer::Peer;
use crate::wire;

/// logd to PID 1; one packet with one value ([`crate::wire`]).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// Answered by one [`Report::Machine`], then one report for each unit, then [`Report::End`].
    Status,
    /// Answered by [`Report::End`] at once; the state tells what became of it.
    Start(UnitId),
    /// The same.
    Stop(UnitId),
    /// The same.
    Restart(UnitId),
    /// The same; refused for a unit that is not up, or has nothing to reload it by.
    ReloadUnit(UnitId),
    /// Answered by [`Report::End`] at once.
    Poweroff,
    /// Take the manifest, and with `programs` the two executables, that come as fds with this
    /// packet. Answered by [`Report::Replaced`].
    Replace {
        /// Whether there are three fds: the manifest, then those of [`super::Programs`].
        programs: bool,
    },
}

impl Order {
    /// The unit that it is about.
    pub fn unit_mut(&mut self) -> Option<&mut UnitId> {
        match self {
            Self::Start(unit) | Self::Stop(unit) | Self::Restart(unit) | Self::ReloadUnit(unit) => {
                Some(unit)
            }
            Self::Status | Self::Poweroff | Self::Replace { .. } => None,
        }
    }
}

/// PID 1 to logd; packets of values, at most [`Report::PACKET`] bytes each. Packets that do not fit
/// into the socket's buffer are kept as state ("the answer goes on at unit n") for an [`Order`],
/// and are dropped and counted for an [`Report::Event`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)] // fields as in Status, SocketStatus, ServiceStatus
pub enum Report {
    Machine {
        state: MachineState,
        started_us: u64,
        listening_us: u64,
        now_us: u64,
    },
    Socket {
        unit: UnitId,
        state: SocketState,
        triggered: u64,
        refused: u64,
        accepted: u64,
        connections: u32,
    },
    /// An instance of Accept=yes; there is one for each that runs.
    Instance {
        template: UnitId,
        socket: UnitId,
        number: u64,
        peer: Peer,
        state: ServiceState,
        main_pid: Option<u32>,
    },
    Service {
        unit: UnitId,
        state: ServiceState,
        main_pid: Option<u32>,
        starts: u64,
        restarts: u64,
        last_exit: Option<Exit>,
        /// A start, stop or reload that was asked for has not ended yet.
        job: bool,
        /// How the last start or reload went.
        result: JobResult,
        /// `STATUS=` of sd_notify(3).
        status: Text,
        /// What its health checks have come to; None while there are none.
        health: Option<HealthState>,
    },
    Target {
        unit: UnitId,
        active: bool,
    },
    /// The answer is complete.
    End,
    /// The guest is going down, the order is not taken.
    Refused,
    /// Something to log: unit, what.
    Event(Option<UnitId>, Event),
    /// The answer to [`Order::Replace`]. With `taken` there is an fd with it: the manifest that is
    /// in force; all ids from here on are of that one.
    Replaced {
        taken: bool,
    },
    /// The fd with it is the read end of the log pipe of a unit that is new.
    Pipe(UnitId),
    /// logd is to send [`Order::Replace`] with what the manifest's file has now.
    Reread,
}

impl Report {
    /// An upper bound of the encoded size in bytes.
    pub const MAX: usize = 320;
    /// The same of a packet. Events go together, one behind the other, as many as fit.
    pub const PACKET: usize = 2 * Self::MAX;
}

/// What PID 1 tells of its own accord; logd makes a line of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// A socket unit listens.
    Listening,
    /// A listener could not be opened (index of the Listen line, errno); it is tried again.
    OpenFailed(u16, i32),
    /// A connection could not be accepted (index of the Listen line, errno); it waits, and is
    /// tried again.
    AcceptFailed(u16, i32),
    /// A connection or packet came in, on which listener.
    Triggered(u16),
    /// A limit was hit; listening again in so many microseconds.
    Paused(u64),
    /// The main process was started.
    Started(u32),
    /// The start has ended with success.
    Ready,
    /// The child could not be made, or not executed: errno.
    SpawnFailed(i32),
    /// The main process is gone.
    Exited(Exit),
    /// A control command (ExecStartPre and its kin) failed.
    CommandFailed(Exit),
    /// A time-out ran out; the signal that was sent.
    TimedOut(i32),
    /// A condition does not hold, so it was not started.
    Skipped,
    /// An fd that the service wanted to be stored was closed: `FileDescriptorStoreMax=`.
    StoreFull,
    /// The unit is down.
    Stopped,
    /// The unit is down, not as it should be.
    Failed,
    /// All units of the boot are started; sockets listen.
    Booted,
    /// Services are being stopped.
    ShuttingDown,
    /// A connection that a limit of Accept=yes does not allow was closed.
    Refused(Refusal),
    /// Nobody has been connected for as long as `X-StopWhenIdleSec=`; it is being stopped.
    Idle,
    /// Nobody has been connected for as long as `X-FreezeWhenIdleSec=`; it is frozen.
    Frozen,
    /// Somebody has connected; it goes on.
    Thawed,
    /// Its health check succeeds.
    Healthy,
    /// Its health check has failed so many times in a row.
    Unhealthy(u32),
    /// So many events before this one were lost.
    Lost(u32),
    /// The kernel tells nobody of events on a listener (index of the Listen line, errno), so the unit
    /// fails.
    WatchFailed(u16, i32),
}

/// Which limit closed a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// `MaxConnections=`
    Connections,
    /// `MaxConnectionsPerSource=`
    Source,
    /// `X-AllowCID=`
    Cid,
}

wire! {
    enum Order {
        Status, Start(unit), Stop(unit), Restart(unit), ReloadUnit(unit), Poweroff,
        Replace { programs },
    }
    enum Report {
        Machine { state, started_us, listening_us, now_us },
        Socket { unit, state, triggered, refused, accepted, connections },
        Instance { template, socket, number, peer, state, main_pid },
        Service { unit, state, main_pid, starts, restarts, last_exit, job, result, status, health },
        Target { unit, active },
        End, Refused, Event(unit, event), Replaced { taken }, Pipe(unit), Reread,
    }
    enum Event {
        Listening, OpenFailed(listener, errno), AcceptFailed(listener, errno),
        Triggered(listener), Paused(us), Started(pid), Ready, SpawnFailed(errno), Exited(exit),
        CommandFailed(exit), TimedOut(signal), Skipped, StoreFull, Stopped, Failed, Booted,
        ShuttingDown, Refused(refusal), Idle, Frozen, Thawed, Healthy, Unhealthy(failures),
        Lost(events), WatchFailed(listener, errno),
    }
    enum Refusal { Connections, Source, Cid }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_fit() {
        let widest = Report::Service {
            unit: UnitId(u16::MAX),
            state: ServiceState::Failed,
            main_pid: Some(u32::MAX),
            starts: u64::MAX,
            restarts: u64::MAX,
            last_exit: Some(Exit::Dumped(i32::MIN)),
            job: true,
            result: JobResult::Failed,
            status: Text::new(&[b'x'; 200]),
            health: Some(HealthState::Unhealthy),
        };
        assert!(wire::length(&widest) <= Report::MAX);
        let instance = Report::Instance {
            template: UnitId(u16::MAX),
            socket: UnitId(u16::MAX),
            number: u64::MAX,
            peer: Peer::Inet6([([0xff; 16], u16::MAX); 2]),
            state: ServiceState::Failed,
            main_pid: Some(u32::MAX),
        };
        assert!(wire::length(&instance) <= Report::MAX);
    }
}
