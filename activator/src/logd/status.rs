//! A snapshot becomes the [`Status`] that clients get, or a verdict on what they asked for.

use super::orders::Snapshot;
use super::words;
use crate::control::{
    Exit, InstanceStatus, JobResult, MachineState, Report, ServiceState, ServiceStatus,
    SocketState, SocketStatus, Status,
};
use crate::manifest::{Manifest, UnitId, UnitKind};
use crate::peer::instance_unit;
use std::path::Path;

/// Where PID 1 makes the services' cgroups.
pub const CGROUPS: &str = "/sys/fs/cgroup/rouse";

/// A status lists so many instances at most, so that it fits into a frame.
const MOST_INSTANCES: usize = 200;

/// What a client wants a unit to become.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wish {
    /// Start or restart.
    Up,
    /// Stop.
    Down,
    /// Reload of its configuration.
    Reloaded,
}

/// Whether it has become that.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It has.
    Done,
    /// It has not and will not; its state.
    Failed(String),
    /// Its reload failed.
    NotReloaded,
    /// It does not run, so there was nothing to reload.
    NotUp,
    /// The guest is going down.
    ShuttingDown,
    /// Look again.
    NotYet,
}

/// Puts names to a snapshot. `cgroups` is [`CGROUPS`], or elsewhere in tests.
pub fn assemble(manifest: &Manifest, snapshot: &Snapshot, cgroups: &Path) -> Status {
    let (state, started_us, listening_us, now_us) =
        snapshot.machine.unwrap_or((MachineState::Starting, 0, 0, 0));
    let name = |id: UnitId| manifest.unit(id).map_or("", |unit| unit.name.as_str()).to_owned();
    let user = |id: UnitId| {
        let user = manifest.unit(id).and_then(|unit| manifest.user_of(unit));
        user.map(|user| user.name.clone())
    };
    let mut status = Status {
        name: manifest.name.clone(),
        state: state.to_string(),
        started_us,
        listening_us,
        now_us,
        activator_memory: resident_memory(rustix::process::getppid()).unwrap_or(0),
        sockets: Vec::new(),
        services: Vec::new(),
        instances: Vec::new(),
    };
    for report in &snapshot.units {
        match *report {
            Report::Socket { unit, state, triggered, refused, accepted, connections } => {
                let kind = manifest.unit(unit).map(|unit| &unit.kind);
                let Some(UnitKind::Socket(socket)) = kind else { continue };
                status.sockets.push(SocketStatus {
                    name: name(unit),
                    user: user(unit),
                    addresses: socket.listeners.iter().map(words::describe_listener).collect(),
                    state: state.to_string(),
                    service: name(socket.service),
                    triggered,
                    refused,
                    accepted,
                    connections,
                });
            }
            Report::Instance { .. } if status.instances.len() >= MOST_INSTANCES => {}
            Report::Instance { template, socket, number, ref peer, state, main_pid } => {
                status.instances.push(InstanceStatus {
                    name: instance_unit(&name(template), peer.instance(number)),
                    user: user(template),
                    socket: name(socket),
                    state: state.to_string(),
                    main_pid,
                    peer: peer.to_string(),
                });
            }
            Report::Service {
                unit,
                state,
                main_pid,
                starts,
                restarts,
                last_exit,
                status: text,
                health,
                ..
            } => {
                let place = manifest.unit(unit).map(|unit| manifest.place(unit));
                let memory = cgroups.join(place.unwrap_or_default()).join("memory.current");
                status.services.push(ServiceStatus {
                    state: state.to_string(),
                    main_pid,
                    starts,
                    restarts,
                    memory: number_in(&memory),
                    last_exit: last_exit.map(|exit| exit.to_string()),
                    text: text.as_str().to_owned(),
                    health: health.map(|health| health.to_string()),
                    name: name(unit),
                    user: user(unit),
                });
            }
            _ => {}
        }
    }
    status.sockets.sort_by(|a, b| (&a.user, &a.name).cmp(&(&b.user, &b.name)));
    status.services.sort_by(|a, b| (&a.user, &a.name).cmp(&(&b.user, &b.name)));
    status
}

/// What a snapshot, taken after the order, says about a client's wish.
pub fn judge(snapshot: &Snapshot, unit: UnitId, wish: Wish) -> Verdict {
    let going_down = snapshot.machine.is_some_and(|machine| machine.0 == MachineState::Stopping);
    if going_down && wish == Wish::Up {
        return Verdict::ShuttingDown;
    }
    match (snapshot.unit(unit), wish) {
        (Some(Report::Service { job: true, .. }), _) => Verdict::NotYet,
        (Some(Report::Service { state, result, .. }), Wish::Reloaded) => match (state, result) {
            (state, _) if !is_up(*state) => Verdict::NotUp,
            (_, JobResult::Failed) => Verdict::NotReloaded,
            _ => Verdict::Done,
        },
        // What others reload with it is theirs to tell.
        (Some(_), Wish::Reloaded) => Verdict::Done,
        // One that has done its work, and ended, was started all the same.
        (Some(Report::Service { result: JobResult::Done, .. }), Wish::Up) => Verdict::Done,
        (Some(Report::Service { state, last_exit, .. }), Wish::Up) => match state {
            state if is_up(*state) => Verdict::Done,
            ServiceState::Starting | ServiceState::Stopping => Verdict::NotYet,
            // A oneshot, or a service that has done its work already.
            ServiceState::Dead if *last_exit == Some(Exit::Code(0)) => Verdict::Done,
            state => Verdict::Failed(state.to_string()),
        },
        // Whatever it is now: it was stopped, and has perhaps been woken again since.
        (Some(Report::Service { .. }), Wish::Down) => Verdict::Done,
        (Some(Report::Socket { state, .. }), Wish::Up) => match state {
            SocketState::Listening | SocketState::Running | SocketState::Paused => Verdict::Done,
            SocketState::Retrying | SocketState::Failed => Verdict::Failed(state.to_string()),
            SocketState::Dead | SocketState::Starting | SocketState::Stopping => Verdict::NotYet,
        },
        (Some(Report::Socket { state, .. }), Wish::Down) => match state {
            SocketState::Dead | SocketState::Failed => Verdict::Done,
            _ => Verdict::NotYet,
        },
        (Some(Report::Target { active, .. }), wish) if *active == (wish == Wish::Up) => {
            Verdict::Done
        }
        (Some(_), _) => Verdict::NotYet,
        (None, _) => Verdict::Failed("unknown to the activator".to_owned()),
    }
}

fn is_up(state: ServiceState) -> bool {
    use ServiceState::{Exited, Frozen, Reloading, Running};
    matches!(state, Running | Frozen | Exited | Reloading)
}

/// The word for a unit's state; empty if PID 1 does not know the unit.
pub fn state_of(snapshot: &Snapshot, unit: UnitId) -> String {
    match snapshot.unit(unit) {
        Some(Report::Service { state, .. }) => state.to_string(),
        Some(Report::Socket { state, .. }) => state.to_string(),
        Some(Report::Target { active: true, .. }) => "active".to_owned(),
        Some(Report::Target { active: false, .. }) => "inactive".to_owned(),
        _ => String::new(),
    }
}

/// Resident bytes of a process, proc_pid_smaps_rollup(5); less exact by proc_pid_statm(5).
fn resident_memory(process: Option<rustix::process::Pid>) -> Option<u64> {
    let process = process?.as_raw_nonzero();
    let rollup = std::fs::read_to_string(format!("/proc/{process}/smaps_rollup"));
    let exact = rollup.ok().and_then(|text| {
        let line = text.lines().find_map(|line| line.strip_prefix("Rss:"))?;
        line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()
    });
    if let Some(kilobytes) = exact {
        return Some(kilobytes * 1024);
    }
    let statm = std::fs::read_to_string(format!("/proc/{process}/statm")).ok()?;
    let pages = statm.split_whitespace().nth(1)?.parse::<u64>().ok()?;
    Some(pages * rustix::param::page_size() as u64)
}

fn number_in(path: &Path) -> Option<u64> {
    std::fs::read_to_string(path).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::logd::tests::manifest;

    fn service(unit: UnitId, state: ServiceState, exit: Option<Exit>, job: bool) -> Report {
        Report::Service {
            unit,
            state,
            main_pid: None,
            starts: 2,
            restarts: 1,
            last_exit: exit,
            status: crate::control::Text::default(),
            health: None,
            job,
            result: JobResult::None,
        }
    }

    fn snapshot(units: Vec<Report>) -> Snapshot {
        Snapshot { machine: Some((MachineState::Running, 10, 20, 30)), units }
    }

    #[test]
    fn a_status_has_names_addresses_and_memory() {
        let manifest = manifest();
        let (echo, socket) = (UnitId(0), UnitId(1));
        let cgroups = tempfile::tempdir().unwrap();
        std::fs::create_dir(cgroups.path().join("echo.service")).unwrap();
        std::fs::write(cgroups.path().join("echo.service/memory.current"), "4096\n").unwrap();
        let snapshot = snapshot(vec![
            Report::Socket {
                unit: socket,
                state: SocketState::Listening,
                triggered: 5,
                refused: 6,
                accepted: 0,
                connections: 0,
            },
            Report::Instance {
                template: echo,
                socket,
                number: 4,
                peer: crate::peer::Peer::Unix { pid: 7, uid: 8 },
                state: ServiceState::Running,
                main_pid: Some(9),
            },
            service(echo, ServiceState::Dead, Some(Exit::Signal(9)), false),
        ]);
        let mut status = assemble(&manifest, &snapshot, cgroups.path());
        // Our parent is whoever runs the tests: it is there, and takes some memory.
        assert!(status.activator_memory > 4096);
        status.activator_memory = 0;
        let expected = Status {
            name: "echo".into(),
            state: "running".into(),
            started_us: 10,
            listening_us: 20,
            now_us: 30,
            activator_memory: 0,
            sockets: vec![SocketStatus {
                name: "echo.socket".into(),
                user: None,
                addresses: vec!["stream 127.0.0.1:3000".into(), "datagram 127.0.0.1:3000".into()],
                state: "listening".into(),
                service: "echo.service".into(),
                triggered: 5,
                refused: 6,
                accepted: 0,
                connections: 0,
            }],
            services: vec![ServiceStatus {
                name: "echo.service".into(),
                user: None,
                state: "dead".into(),
                main_pid: None,
                starts: 2,
                restarts: 1,
                memory: Some(4096),
                last_exit: Some("killed 9".into()),
                text: String::new(),
                health: None,
            }],
            instances: vec![InstanceStatus {
                name: "echo.service 4-7-8".into(),
                user: None,
                socket: "echo.socket".into(),
                state: "running".into(),
                main_pid: Some(9),
                peer: "process 7 of user 8".into(),
            }],
        };
        assert_eq!(status, expected);
    }

    #[test]
    fn verdicts_on_services() {
        let unit = UnitId(0);
        let judged = |state, exit, job, wish| {
            judge(&snapshot(vec![service(unit, state, exit, job)]), unit, wish)
        };
        use ServiceState::*;
        assert_eq!(judged(Dead, None, true, Wish::Up), Verdict::NotYet);
        assert_eq!(judged(Running, None, false, Wish::Up), Verdict::Done);
        assert_eq!(judged(Dead, Some(Exit::Code(0)), false, Wish::Up), Verdict::Done);
        assert_eq!(judged(Dead, None, false, Wish::Up), Verdict::Failed("dead".into()));
        assert_eq!(judged(Failed, None, false, Wish::Up), Verdict::Failed("failed".into()));
        assert_eq!(judged(Waiting, None, false, Wish::Up), Verdict::Failed("waiting".into()));
        assert_eq!(judged(Running, None, true, Wish::Down), Verdict::NotYet);
        assert_eq!(judged(Starting, None, false, Wish::Down), Verdict::Done);
        let gone = judge(&snapshot(vec![]), unit, Wish::Up);
        assert!(matches!(gone, Verdict::Failed(_)));
        let machine = Some((MachineState::Stopping, 0, 0, 0));
        let stopping = Snapshot { machine, units: vec![] };
        assert_eq!(judge(&stopping, unit, Wish::Up), Verdict::ShuttingDown);
    }

    #[test]
    fn verdicts_on_sockets_and_targets() {
        let unit = UnitId(1);
        let socket = |state| Report::Socket {
            unit,
            state,
            triggered: 0,
            refused: 0,
            accepted: 0,
            connections: 0,
        };
        let judged = |report, wish| judge(&snapshot(vec![report]), unit, wish);
        assert_eq!(judged(socket(SocketState::Running), Wish::Up), Verdict::Done);
        assert_eq!(judged(socket(SocketState::Dead), Wish::Up), Verdict::NotYet);
        let retrying = Verdict::Failed("retrying".into());
        assert_eq!(judged(socket(SocketState::Retrying), Wish::Up), retrying);
        assert_eq!(judged(socket(SocketState::Dead), Wish::Down), Verdict::Done);
        assert_eq!(judged(socket(SocketState::Paused), Wish::Down), Verdict::NotYet);
        let target = |active| Report::Target { unit, active };
        assert_eq!(judged(target(true), Wish::Up), Verdict::Done);
        assert_eq!(judged(target(true), Wish::Down), Verdict::NotYet);
    }
}
