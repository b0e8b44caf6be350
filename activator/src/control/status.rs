//! What a client is told of the guest: its units, and the lines that they wrote.
//!
//! serde is for the JSON of `rouse status --json`, and for who reads that; the guest has no use of it.

use crate::wire;
use serde::{Deserialize, Serialize};

/// One line that a service or the activator wrote.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// Microseconds since the epoch, when it was read.
    pub realtime_us: u64,
    /// The unit, or `activator`.
    pub unit: String,
    /// The lingering user whose unit it is; None is the system's.
    pub user: Option<String>,
    /// Without the newline; bytes that are not UTF-8 are replaced.
    pub text: String,
}

/// The guest as it is now. `rouse status --json` prints it as it stands here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// The appliance's name.
    pub name: String,
    /// `starting`, `running` or `stopping`.
    pub state: String,
    /// CLOCK_BOOTTIME in microseconds when the activator began.
    pub started_us: u64,
    /// CLOCK_BOOTTIME in microseconds when all sockets of the boot were listening; 0 before.
    pub listening_us: u64,
    /// CLOCK_BOOTTIME in microseconds now.
    pub now_us: u64,
    /// Resident memory of the activator in bytes.
    pub activator_memory: u64,
    /// All socket units, by user (the system first) and name.
    pub sockets: Vec<SocketStatus>,
    /// All services, by user (the system first) and name.
    pub services: Vec<ServiceStatus>,
    /// Instances of Accept=yes that run, the first 200 of them.
    pub instances: Vec<InstanceStatus>,
}

/// One socket unit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SocketStatus {
    /// `echo.socket`
    pub name: String,
    /// The lingering user whose unit it is; None is the system's.
    pub user: Option<String>,
    /// As in the unit: `127.0.0.1:3000`, `vsock:4294967295:3000`, with the kind in front.
    pub addresses: Vec<String>,
    /// See [`SocketState`].
    pub state: String,
    /// The service it starts.
    pub service: String,
    /// Times that it woke its service, or an instance of it.
    pub triggered: u64,
    /// Times that a limit or an error made it wait, and connections that a limit closed.
    pub refused: u64,
    /// With Accept=yes: connections that got an instance.
    pub accepted: u64,
    /// With Accept=yes: instances that run now.
    pub connections: u32,
}

/// One instance of a template.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstanceStatus {
    /// `echo@0-127.0.0.1:3000-127.0.0.1:4555.service`
    pub name: String,
    /// The user whose unit it is, if not the system's.
    pub user: Option<String>,
    /// The socket unit that took its connection.
    pub socket: String,
    /// See [`ServiceState`].
    pub state: String,
    /// Main process, if one runs.
    pub main_pid: Option<u32>,
    /// Who connected.
    pub peer: String,
}

/// One service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceStatus {
    /// `echo.service`
    pub name: String,
    /// The lingering user whose unit it is; None is the system's.
    pub user: Option<String>,
    /// See [`ServiceState`].
    pub state: String,
    /// Main process, if one runs.
    pub main_pid: Option<u32>,
    /// Starts since the guest booted.
    pub starts: u64,
    /// Of those, restarts by `Restart=`.
    pub restarts: u64,
    /// Memory of its cgroup in bytes, where the kernel tells.
    pub memory: Option<u64>,
    /// `exited 0`, `killed 9`, ...; None if it never ran.
    pub last_exit: Option<String>,
    /// What it says of itself (`STATUS=` of sd_notify(3)); empty if nothing.
    pub text: String,
    /// `starting`, `healthy` or `unhealthy`; None while it has no health checks.
    pub health: Option<String>,
}

wire! {
    struct Line { realtime_us, unit, user, text }
    struct Status {
        name, state, started_us, listening_us, now_us, activator_memory, sockets, services,
        instances,
    }
    struct SocketStatus {
        name, user, addresses, state, service, triggered, refused, accepted, connections,
    }
    struct InstanceStatus { name, user, socket, state, main_pid, peer }
    struct ServiceStatus {
        name, user, state, main_pid, starts, restarts, memory, last_exit, text, health,
    }
}
