//! Health checks of a container, podman-run(1): a command that is run again and again, and what
//! follows from how it ends.
//!
//! They run in the service's cgroup, one at a time, while its main process runs.

use super::Command;
use crate::wire;
use serde::Serialize;

/// `HealthCmd=` and its kin. Exit code 0 of the command is healthy, any other is not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct HealthCheck {
    /// `HealthCmd=`, `HealthInterval=`, `HealthTimeout=`.
    pub probe: Probe,
    /// `HealthRetries=`: so many failures in a row make the service unhealthy; at least 1.
    pub retries: u32,
    /// `HealthStartPeriod=` in microseconds: failures so soon after the start do not count.
    pub start_period_us: u64,
    /// `HealthOnFailure=`: what an unhealthy service comes to.
    pub on_failure: OnUnhealthy,
    /// `HealthStartupCmd=`: the other check begins when this one has succeeded.
    pub startup: Option<StartupCheck>,
    /// An exit code that says nothing of the service, while there is no container yet: podman's
    /// own, or stage 2's before it executes crun. Such a check counts neither way.
    pub no_verdict: Option<u8>,
    /// `Notify=healthy`: the service, of `Type=notify`, is ready with its first success.
    pub makes_ready: bool,
}

/// One command and when it runs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Probe {
    /// The command.
    pub command: Command,
    /// From the end of one run to the next in microseconds; 0 never runs it.
    pub interval_us: u64,
    /// A run that takes longer has failed; in microseconds, 0 is never.
    pub timeout_us: u64,
}

/// `HealthStartupCmd=` and its kin.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct StartupCheck {
    /// `HealthStartupCmd=`, `HealthStartupInterval=`, `HealthStartupTimeout=`.
    pub probe: Probe,
    /// `HealthStartupRetries=`: so many failures restart the service; 0 is never.
    pub retries: u32,
    /// `HealthStartupSuccess=`: so many successes end it; 0 is 1.
    pub successes: u32,
}

/// `HealthOnFailure=`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub enum OnUnhealthy {
    /// Nothing but what the status says.
    #[default]
    None,
    /// All its processes are killed, which is a failure: `Restart=` decides what then.
    Kill,
    /// It is stopped and started, as by order.
    Restart,
    /// It is stopped as it would be by order, but `Restart=` decides what then.
    Stop,
}

wire! {
    struct HealthCheck { probe, retries, start_period_us, on_failure, startup, no_verdict, makes_ready }
    struct Probe { command, interval_us, timeout_us }
    struct StartupCheck { probe, retries, successes }
    enum OnUnhealthy { None, Kill, Restart, Stop }
}
