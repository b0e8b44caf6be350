//! Manifests made by hand.

use activator::manifest::*;
use std::path::Path;

pub(crate) fn command(arguments: &[&str]) -> Command {
    let helper = std::env::current_exe().unwrap().to_str().unwrap().to_owned();
    let all = [&["helper", "helper"], arguments].concat();
    Command {
        program: helper,
        arguments: all.into_iter().map(str::to_owned).collect(),
        ..Command::default()
    }
}

/// A service that runs the helper; its reports go to `report` in the directory.
pub(crate) fn service(directory: &Path, arguments: &[&str]) -> Service {
    let file = |name: &str| directory.join(name).to_str().unwrap().to_owned();
    let output = || Output::File { path: file("output"), append: true, truncate: false };
    let execution = Execution {
        environment: vec![
            "PATH=/usr/bin:/bin".into(),
            format!("REPORT={}", file("report")),
            format!("GO={}", file("go")),
        ],
        stdout: output(),
        stderr: output(),
        ..Execution::default()
    };
    Service { start: vec![command(arguments)], execution, ..Service::default() }
}

pub(crate) fn listener(kind: ListenKind, address: Address) -> Listener {
    Listener { kind, address }
}

pub(crate) fn tcp(port: u16) -> Listener {
    listener(ListenKind::Stream, Address::Inet([127, 0, 0, 1], port))
}

pub(crate) fn udp(port: u16) -> Listener {
    listener(ListenKind::Datagram, Address::Inet([127, 0, 0, 1], port))
}

/// A Unix stream socket in the directory.
pub(crate) fn unix(directory: &Path, name: &str) -> Listener {
    let path = directory.join(name).to_str().unwrap().to_owned();
    listener(ListenKind::Stream, Address::Path(path))
}

pub(crate) fn socket(name: &str, listeners: Vec<Listener>) -> Socket {
    Socket { listeners, fd_name: name.into(), backlog: 128, ..Socket::default() }
}

/// The same with `Accept=yes`; limits are `MaxConnections=` and `MaxConnectionsPerSource=`.
pub(crate) fn accepting(listeners: Vec<Listener>, limits: [u32; 2]) -> Socket {
    let [max_connections, max_per_source] = limits;
    Socket {
        accept: Some(Accept { max_connections, max_per_source }),
        trigger_limit: RateLimit { interval_us: 2_000_000, burst: 200 },
        poll_limit: RateLimit { interval_us: 2_000_000, burst: 150 },
        ..socket("connection", listeners)
    }
}

/// A manifest in the making; dependencies by name.
#[derive(Clone, Default)]
pub(crate) struct Units {
    units: Vec<Unit>,
    after: Vec<(String, String)>,
    requires: Vec<(String, String)>,
    triggers: Vec<(String, String)>,
    pub(crate) boot: Boot,
}

impl Units {
    pub(crate) fn service(mut self, name: &str, service: Service) -> Self {
        self.add(name, UnitKind::Service(service));
        self
    }

    /// A socket unit that starts at boot, for that service.
    pub(crate) fn socket(mut self, name: &str, service: &str, socket: Socket) -> Self {
        self.add(name, UnitKind::Socket(socket));
        self.triggers.push((name.into(), service.into()));
        self.at_boot(name)
    }

    pub(crate) fn at_boot(mut self, name: &str) -> Self {
        self.units.iter_mut().filter(|unit| unit.name == name).for_each(|unit| {
            unit.start_at_boot = true;
        });
        self
    }

    /// The first requires the second and comes after it.
    pub(crate) fn needs(mut self, name: &str, other: &str) -> Self {
        self.requires.push((name.into(), other.into()));
        self.after(name, other)
    }

    pub(crate) fn after(mut self, name: &str, other: &str) -> Self {
        self.after.push((name.into(), other.into()));
        self
    }

    pub(crate) fn build(mut self) -> Manifest {
        self.units.sort_by(|a, b| a.name.cmp(&b.name));
        let names: Vec<String> = self.units.iter().map(|unit| unit.name.clone()).collect();
        let id = |name: &String| UnitId(names.binary_search(name).unwrap() as u16);
        for (name, other) in &self.after {
            self.units[id(name).index()].after.push(id(other));
        }
        for (name, other) in &self.requires {
            self.units[id(name).index()].requires.push(id(other));
        }
        self.triggers.sort();
        for (name, other) in &self.triggers {
            if let UnitKind::Socket(socket) = &mut self.units[id(name).index()].kind {
                socket.service = id(other);
            }
            if let UnitKind::Service(service) = &mut self.units[id(other).index()].kind {
                service.sockets.push(id(name));
            }
            self.units[id(other).index()].after.push(id(name));
        }
        Manifest { name: "test".into(), boot: self.boot, units: self.units, ..Manifest::default() }
    }

    fn add(&mut self, name: &str, kind: UnitKind) {
        self.units.push(Unit {
            name: name.into(),
            description: name.into(),
            kind,
            ..Unit::default()
        });
    }
}
