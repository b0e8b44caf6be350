//! Where units and the machine are, in one word each.

use crate::wire;

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// exit(2) with that code.
    Code(u8),
    /// Killed by that signal.
    Signal(i32),
    /// Killed by that signal, with a core dump.
    Dumped(i32),
}

impl core::fmt::Display for Exit {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exited {code}"),
            Self::Signal(signal) => write!(f, "killed {signal}"),
            Self::Dumped(signal) => write!(f, "dumped {signal}"),
        }
    }
}

/// The machine as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum MachineState {
    Starting,
    Running,
    Stopping,
}

/// A socket unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SocketState {
    /// Not open.
    Dead,
    /// Not open, since one of its own commands failed.
    Failed,
    /// One of its own commands runs, before it counts as started.
    Starting,
    /// One of its own commands runs, before it is down.
    Stopping,
    /// Open failed; tried again later.
    Retrying,
    /// Open and polled.
    Listening,
    /// Open, the service has it.
    Running,
    /// Open, not polled until a limit's window ends.
    Paused,
}

/// How the last start or reload of a unit went, whatever has become of the unit since.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum JobResult {
    /// There was none, or it is not known any more.
    #[default]
    None,
    /// Well, or a condition has skipped it.
    Done,
    /// Not well; also since an assertion is false, or what the unit requires did not start.
    Failed,
}

/// A service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ServiceState {
    /// Not running.
    Dead,
    /// Being started: ExecStartPre up to readiness.
    Starting,
    /// Up.
    Running,
    /// Up, and frozen until the next connection.
    Frozen,
    /// A oneshot with RemainAfterExit= that is done.
    Exited,
    /// Being reloaded.
    Reloading,
    /// Being stopped.
    Stopping,
    /// Waits for RestartSec.
    Waiting,
    /// Not running, and not because it should.
    Failed,
}

/// What the health checks of a service have come to, podman-inspect(1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HealthState {
    /// None has succeeded yet, and not too many have failed.
    Starting,
    /// The last one succeeded, or too few have failed since.
    Healthy,
    /// So many have failed in a row as `HealthRetries=` allows.
    Unhealthy,
}

macro_rules! lower_case {
    ($($kind:ty { $($variant:ident => $text:literal),* $(,)? })*) => {$(
        impl $kind {
            /// The word that status shows.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text),* }
            }
        }
        impl core::fmt::Display for $kind {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                f.pad(self.as_str())
            }
        }
    )*};
}

lower_case! {
    HealthState { Starting => "starting", Healthy => "healthy", Unhealthy => "unhealthy" }
    MachineState { Starting => "starting", Running => "running", Stopping => "stopping" }
    SocketState {
        Dead => "dead", Failed => "failed", Starting => "starting", Stopping => "stopping",
        Retrying => "retrying", Listening => "listening", Running => "running",
        Paused => "paused",
    }
    ServiceState {
        Dead => "dead", Starting => "starting", Running => "running", Frozen => "frozen",
        Exited => "exited",
        Reloading => "reloading", Stopping => "stopping", Waiting => "waiting",
        Failed => "failed",
    }
}

wire! {
    enum Exit { Code(code), Signal(signal), Dumped(signal) }
    enum MachineState { Starting, Running, Stopping }
    enum SocketState { Dead, Failed, Starting, Stopping, Retrying, Listening, Running, Paused }
    enum JobResult { None, Done, Failed }
    enum ServiceState {
        Dead, Starting, Running, Frozen, Exited, Reloading, Stopping, Waiting, Failed,
    }
    enum HealthState { Starting, Healthy, Unhealthy }
}
