//! Inside the namespaces: starts a manager, does what each case says, and tells what was seen.
//!
//! | step | what |
//! |---|---|
//! | `wait TAG [N]` | until so many reports have that tag |
//! | `connect KIND ADDRESS [TEXT]` | a client: `tcp`, `udp`, `unix`, `unixgram`, `seqpacket`; the text is sent |
//! | `recv` | what the client before gets, to the end of the stream or for one packet |
//! | `close` | closes all clients |
//! | `ask KIND ADDRESS [TEXT]` | connect, recv, close |
//! | `start UNIT`, `stop`, `restart`, `reload` | to its end; whether it went well |
//! | `begin VERB UNIT` | the same without waiting |
//! | `state UNIT` | what it is in |
//! | `await UNIT ACTIVE [DETAIL]` | until it is in that state |
//! | `look PATH` | the node there: kind, mode, owner, target |
//! | `read PATH` | the file's text |
//! | `write PATH [TEXT]`, `remove PATH` | |
//! | `signal TAG NUMBER` | to the process of the last report of that tag |
//! | `gone TAG` | until that process has ended |
//! | `pause MS` | lets things happen that should not |
//! | `unordered` | the order of reports of different tags means nothing |

use super::case::Case;
use super::collector::{Collector, Report};
use super::manager::Manager;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{TcpStream, UdpSocket};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// What is awaited comes in milliseconds; what never comes costs that much, and is then seen as
/// missing, on both sides or as a difference.
const PATIENCE: Duration = Duration::from_secs(15);
/// Cases at one time.
const WORKERS: usize = 12;

/// Does all cases; what was seen, by case.
pub fn run(manager: Manager, systemd: &Path, cases: &[Case]) -> BTreeMap<String, Value> {
    let collector = Collector::start();
    let log = std::fs::File::create("/run/oracle/log").unwrap();
    // The namespace ends with the driver, and the manager with the namespace.
    #[allow(clippy::zombie_processes)]
    let mut child = manager.start(systemd, log);
    let end = Instant::now() + Duration::from_secs(60);
    while !manager.is_up() {
        if Instant::now() > end || child.try_wait().unwrap().is_some() {
            let log = std::fs::read_to_string("/run/oracle/log").unwrap_or_default();
            panic!("{manager:?} does not come up:\n{log}");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    let next = AtomicUsize::new(0);
    let done = Mutex::new(BTreeMap::new());
    std::thread::scope(|scope| {
        for _ in 0..WORKERS {
            scope.spawn(|| {
                while let Some(case) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let mut actor = Actor::new(manager, &collector, case);
                    let steps: Vec<Value> =
                        case.steps.iter().filter_map(|it| actor.step(it)).collect();
                    done.lock().unwrap().insert(case.name.clone(), (steps, actor.ports));
                }
            });
        }
    });
    // Reports that should not come any more would be here by now.
    std::thread::sleep(Duration::from_millis(500));
    let own = Namespaces::own();
    let done = done.into_inner().unwrap();
    let seen = cases.iter().map(|case| {
        let (steps, ports) = &done[&case.name];
        let reports = collector.of(&case.name);
        let text = outcome(case, &reports, steps, &own).to_string();
        // A client's port is another in every run.
        let text = ports.iter().enumerate().fold(text, |text, (index, port)| {
            text.replace(&port.to_string(), &format!("CLIENT{index}"))
        });
        (case.name.clone(), serde_json::from_str(&text).unwrap())
    });
    let seen = seen.collect();
    eprintln!("{}", std::fs::read_to_string("/run/oracle/log").unwrap_or_default());
    let _ = child.kill();
    let _ = child.wait();
    seen
}

/// All of a case, without what is another in every run.
fn outcome(case: &Case, reports: &[Report], steps: &[Value], own: &Namespaces) -> Value {
    let mut tags = Map::new();
    for report in reports {
        let mut seen = report.seen.clone();
        own.name(&mut seen);
        if let Some(main) = seen["environment"].get_mut("MAINPID") {
            let of = reports.iter().find(|it| main.as_str() == Some(&it.pid.to_string()));
            *main = of.map_or_else(|| "of none".into(), |it| format!("of {}", it.tag)).into();
        }
        let list = tags.entry(&report.tag).or_insert_with(|| json!([])).as_array_mut();
        list.unwrap().push(seen);
    }
    let mut outcome = json!({ "reports": tags, "steps": steps });
    if !case.steps.iter().any(|step| step == "unordered") {
        let order: Vec<&str> = reports.iter().map(|report| report.tag.as_str()).collect();
        outcome["order"] = order.join(" ").into();
    }
    outcome
}

/// The driver's own namespaces; those of a probe are either these or not.
struct Namespaces(BTreeMap<String, String>);

impl Namespaces {
    fn own() -> Self {
        let all = std::fs::read_dir("/proc/self/ns").unwrap().flatten();
        Self(
            all.map(|entry| {
                let link = std::fs::read_link(entry.path()).unwrap();
                (entry.file_name().into_string().unwrap(), link.display().to_string())
            })
            .collect(),
        )
    }

    fn name(&self, seen: &mut Value) {
        let Some(all) = seen.get_mut("namespaces").and_then(Value::as_object_mut) else { return };
        for (name, link) in all {
            let shared = self.0.get(name).map(String::as_str) == link.as_str();
            *link = if shared { "shared" } else { "own" }.into();
        }
    }
}

/// A client's end.
enum Client {
    Stream(Box<dyn ReadWrite>),
    Packets(Box<dyn ReadWrite>),
}

trait ReadWrite: Read + Write + Send {}
impl<T: Read + Write + Send> ReadWrite for T {}

struct Actor<'a> {
    manager: Manager,
    collector: &'a Collector,
    case: &'a Case,
    clients: Vec<Client>,
    /// Of TCP clients, in their order.
    ports: Vec<u16>,
}

impl<'a> Actor<'a> {
    fn new(manager: Manager, collector: &'a Collector, case: &'a Case) -> Self {
        Self { manager, collector, case, clients: vec![], ports: vec![] }
    }

    /// What is worth comparing of a step.
    fn step(&mut self, line: &str) -> Option<Value> {
        let words: Vec<&str> = line.split_whitespace().collect();
        let result = match words[..] {
            ["wait", tag] => self.wait(tag, 1),
            ["wait", tag, count] => self.wait(tag, count.parse().unwrap()),
            ["connect", kind, address, ref text @ ..] => Some(self.connect(kind, address, text)),
            ["recv"] => Some(self.receive()),
            ["close"] => {
                self.clients.clear();
                None
            }
            ["ask", kind, address, ref text @ ..] => {
                let connected = self.connect(kind, address, text);
                let answer = if connected == "connected" { self.receive() } else { connected };
                self.clients.pop();
                Some(answer)
            }
            [verb @ ("start" | "stop" | "restart" | "reload"), unit] => {
                let result = self.manager.tell(verb, unit);
                if let Err(why) = &result {
                    eprintln!("{}: {line}: {why}", self.case.name);
                }
                Some(if result.is_ok() { "done" } else { "failed" }.into())
            }
            ["begin", verb, unit] => {
                let (manager, verb, unit) = (self.manager, verb.to_owned(), unit.to_owned());
                std::thread::spawn(move || manager.tell(&verb, &unit));
                None
            }
            ["state", unit] => Some(self.manager.state(unit).to_string()),
            ["await", unit, active] => self.await_state(unit, active, None),
            ["await", unit, active, detail] => self.await_state(unit, active, Some(detail)),
            ["look", path] => Some(look(path)),
            ["read", path] => {
                let text = std::fs::read_to_string(path);
                Some(text.unwrap_or_else(|error| error.kind().to_string()))
            }
            ["write", path, ref text @ ..] => {
                std::fs::write(path, text.join(" ")).unwrap();
                None
            }
            ["remove", path] => {
                let _ = std::fs::remove_file(path);
                None
            }
            ["signal", tag, number] => {
                self.signal(tag, number);
                None
            }
            ["gone", tag] => self.gone(tag),
            ["pause", ms] => {
                std::thread::sleep(Duration::from_millis(ms.parse().unwrap()));
                None
            }
            ["unordered"] => None,
            _ => panic!("{}: what is `{line}`?", self.case.name),
        };
        result.map(|result| format!("{line}: {result}").into())
    }

    fn wait(&self, tag: &str, count: usize) -> Option<String> {
        let came = self.collector.wait(&self.case.name, tag, count, PATIENCE);
        (!came).then(|| "never".into())
    }

    fn pid(&self, tag: &str) -> Option<u32> {
        let reports = self.collector.of(&self.case.name);
        reports.iter().rfind(|report| report.tag == tag).map(|report| report.pid)
    }

    fn signal(&self, tag: &str, number: &str) {
        let Some(pid) = self.pid(tag) else { return };
        let mut command = std::process::Command::new("/bin/kill");
        let _ = command.args(["-s", number, &pid.to_string()]).status();
    }

    fn gone(&self, tag: &str) -> Option<String> {
        let pid = self.pid(tag)?;
        let end = Instant::now() + PATIENCE;
        while Path::new(&format!("/proc/{pid}")).exists() {
            if Instant::now() > end {
                return Some("never".into());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        None
    }

    fn await_state(&self, unit: &str, active: &str, detail: Option<&str>) -> Option<String> {
        let end = Instant::now() + PATIENCE;
        loop {
            let state = self.manager.state(unit);
            if state.active == active && detail.is_none_or(|detail| state.detail == detail) {
                return None;
            }
            if Instant::now() > end {
                return Some(format!("is {state}"));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn connect(&mut self, kind: &str, address: &str, text: &[&str]) -> String {
        match self.open(kind, address) {
            Ok(mut client) => {
                if !text.is_empty() {
                    let (Client::Stream(end) | Client::Packets(end)) = &mut client;
                    let _ = end.write_all(text.join(" ").as_bytes());
                }
                self.clients.push(client);
                "connected".into()
            }
            Err(error) => error.kind().to_string(),
        }
    }

    fn open(&mut self, kind: &str, address: &str) -> std::io::Result<Client> {
        let patience = Some(PATIENCE);
        Ok(match kind {
            "tcp" => {
                let stream = TcpStream::connect(address)?;
                self.ports.push(stream.local_addr()?.port());
                stream.set_read_timeout(patience)?;
                Client::Stream(Box::new(stream))
            }
            "unix" => {
                let stream = match address.strip_prefix('@') {
                    Some(name) => UnixStream::connect_addr(&abstract_name(name)?)?,
                    None => UnixStream::connect(address)?,
                };
                stream.set_read_timeout(patience)?;
                Client::Stream(Box::new(stream))
            }
            "udp" => {
                let any = if address.starts_with('[') { "[::]:0" } else { "0.0.0.0:0" };
                let socket = UdpSocket::bind(any)?;
                socket.connect(address)?;
                socket.set_read_timeout(patience)?;
                Client::Packets(Box::new(std::fs::File::from(OwnedFd::from(socket))))
            }
            "unixgram" => {
                // With a name, so that it can be answered.
                let own = format!("rouse-oracle-{}-{}", self.case.name, self.clients.len());
                let socket = UnixDatagram::bind_addr(&abstract_name(&own)?)?;
                match address.strip_prefix('@') {
                    Some(name) => socket.connect_addr(&abstract_name(name)?)?,
                    None => socket.connect(address)?,
                }
                socket.set_read_timeout(patience)?;
                Client::Packets(Box::new(std::fs::File::from(OwnedFd::from(socket))))
            }
            "seqpacket" => {
                use rustix::net::{AddressFamily, SocketAddrUnix, SocketType, sockopt};
                let socket = rustix::net::socket(AddressFamily::UNIX, SocketType::SEQPACKET, None)?;
                let address = match address.strip_prefix('@') {
                    Some(name) => SocketAddrUnix::new_abstract_name(name.as_bytes())?,
                    None => SocketAddrUnix::new(address)?,
                };
                rustix::net::connect(&socket, &address)?;
                sockopt::set_socket_timeout(&socket, sockopt::Timeout::Recv, patience)?;
                Client::Packets(Box::new(std::fs::File::from(socket)))
            }
            "fifo" => {
                let file = std::fs::File::options().write(true).open(address)?;
                Client::Packets(Box::new(file))
            }
            other => panic!("{}: what is a client of {other}?", self.case.name),
        })
    }

    fn receive(&mut self) -> String {
        let mut bytes = vec![0; 4096];
        let result = match self.clients.last_mut() {
            None => return "no client".into(),
            Some(Client::Packets(end)) => end.read(&mut bytes).map(|length| bytes.truncate(length)),
            Some(Client::Stream(end)) => {
                bytes.clear();
                end.read_to_end(&mut bytes).map(drop)
            }
        };
        match result {
            Ok(()) => format!("{:?}", String::from_utf8_lossy(&bytes)),
            Err(error) => error.kind().to_string(),
        }
    }
}

fn abstract_name(name: &str) -> std::io::Result<std::os::unix::net::SocketAddr> {
    use std::os::linux::net::SocketAddrExt;
    std::os::unix::net::SocketAddr::from_abstract_name(name)
}

fn look(path: &str) -> String {
    let about = match std::fs::symlink_metadata(path) {
        Ok(about) => about,
        Err(error) => return error.kind().to_string(),
    };
    let kind = about.file_type();
    if kind.is_symlink() {
        return format!("link to {}", std::fs::read_link(path).unwrap().display());
    }
    let word = match () {
        () if kind.is_dir() => "directory",
        () if kind.is_socket() => "socket",
        () if kind.is_fifo() => "fifo",
        () => "file",
    };
    format!("{word} {:04o} {}:{}", about.mode() & 0o7777, about.uid(), about.gid())
}
