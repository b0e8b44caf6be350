//! A small guest: services on ports, connections with credit and half-closes. It also watches
//! whether the device keeps the rules.

use super::driver::{Driver, Header};
use std::collections::{HashMap, VecDeque};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

pub const REQUEST: u16 = 1;
pub const RESPONSE: u16 = 2;
pub const RESET: u16 = 3;
pub const SHUTDOWN: u16 = 4;
pub const DATA: u16 = 5;
pub const CREDIT_UPDATE: u16 = 6;
pub const CREDIT_REQUEST: u16 = 7;
pub const NO_RECEIVE: u32 = 1;
pub const NO_SEND: u32 = 2;

const BUFFER: u32 = 256 << 10;
const PACKET: usize = 64 << 10;

/// What a service of the guest does with a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Service {
    /// Sends back what comes; closes when the other side has ended.
    Echo,
    /// Reads everything; at its end, sends the count and a sum, 16 bytes, and closes.
    Count,
    /// Sends so many bytes of the pattern, ends its direction, and closes when the peer does.
    Send(u64),
    /// Reads nothing until [`Guest::release`], then echoes.
    Hold,
    /// Resets the connection at the first byte.
    Reset,
    /// Accepts, sends "bye", and says at once that it will neither send nor receive.
    Bye,
    /// Says that it will receive no more, then sends "still here" and ends.
    Deaf,
    /// Refuses so many times, then echoes.
    Late(u32),
    /// Does not answer at all.
    Mute,
}

/// What the test asks of the guest.
pub enum Command {
    /// Connects to (CID, port) and runs the service on it; what comes is collected.
    Connect { cid: u64, port: u32, service: Service, send: Vec<u8>, report: Arc<Report> },
    /// The driver goes and comes again: every connection is forgotten.
    Restart,
}

/// How a connection of the guest went.
#[derive(Default)]
pub struct Report {
    pub opened: AtomicBool,
    pub closed: AtomicBool,
    pub bytes: Mutex<Vec<u8>>,
}

/// (peer CID, peer port, our port)
type Key = (u64, u32, u32);

struct Connection {
    service: Service,
    open: bool,
    inbox: VecDeque<u8>,
    outbox: VecDeque<u8>,
    peer_size: u32,
    peer_forwarded: u32,
    sent: u32,
    received: u32,
    forwarded: u32,
    announced: u32,
    told_us: u32,
    told_them: u32,
    wants: u32,
    count: u64,
    sum: u64,
    left: u64,
    report: Option<Arc<Report>>,
}

/// A running guest.
pub struct Guest {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    cid: u64,
    stop: AtomicBool,
    released: AtomicBool,
    alive: AtomicU32,
    received: AtomicU64,
    ended: AtomicU32,
    commands: Mutex<VecDeque<Command>>,
    wake: OwnedFd,
    /// (peer CID, peer port, our port) of each connection that came.
    callers: Mutex<Vec<Key>>,
    faults: Mutex<Vec<String>>,
}

impl Guest {
    /// Starts a guest that has these services.
    pub fn start(mut driver: Driver, services: &[(u32, Service)]) -> Self {
        let flags = rustix::event::EventfdFlags::NONBLOCK;
        let shared = Arc::new(Shared {
            cid: driver.cid(),
            stop: AtomicBool::new(false),
            released: AtomicBool::new(false),
            alive: AtomicU32::new(0),
            received: AtomicU64::new(0),
            ended: AtomicU32::new(0),
            commands: Mutex::default(),
            wake: rustix::event::eventfd(0, flags).unwrap(),
            callers: Mutex::default(),
            faults: Mutex::default(),
        });
        driver.start();
        let mut peer = Peer {
            driver,
            shared: shared.clone(),
            services: services.iter().copied().collect(),
            connections: HashMap::new(),
            unsent: VecDeque::new(),
            next_port: 50_000,
        };
        let thread = std::thread::spawn(move || peer.run());
        Self { shared, thread: Some(thread) }
    }

    pub fn command(&self, command: Command) {
        self.shared.commands.lock().unwrap().push_back(command);
        self.wake();
    }

    /// Connects from the guest.
    pub fn connect(&self, cid: u64, port: u32, service: Service, send: &[u8]) -> Arc<Report> {
        let report = Arc::new(Report::default());
        let send = send.to_vec();
        self.command(Command::Connect { cid, port, service, send, report: report.clone() });
        report
    }

    /// Lets the holding services go on.
    pub fn release(&self) {
        self.shared.released.store(true, Ordering::SeqCst);
        self.wake();
    }

    /// Connections that the guest has now.
    pub fn alive(&self) -> u32 {
        self.shared.alive.load(Ordering::SeqCst)
    }

    /// Connections that are over.
    pub fn ended(&self) -> u32 {
        self.shared.ended.load(Ordering::SeqCst)
    }

    /// Bytes of payload that have come.
    pub fn received(&self) -> u64 {
        self.shared.received.load(Ordering::SeqCst)
    }

    pub fn callers(&self) -> Vec<Key> {
        self.shared.callers.lock().unwrap().clone()
    }

    fn wake(&self) {
        rustix::io::write(&self.shared.wake, &1_u64.to_ne_bytes()).unwrap();
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        self.wake();
        let joined = self.thread.take().map(JoinHandle::join);
        if !std::thread::panicking() {
            joined.unwrap().unwrap();
            assert_eq!(*self.shared.faults.lock().unwrap(), Vec::<String>::new());
        }
    }
}

struct Peer {
    driver: Driver,
    shared: Arc<Shared>,
    services: HashMap<u32, Service>,
    connections: HashMap<Key, Connection>,
    unsent: VecDeque<(Header, Vec<u8>)>,
    next_port: u32,
}

impl Peer {
    fn run(&mut self) {
        while !self.shared.stop.load(Ordering::SeqCst) {
            let _ = rustix::io::read(&self.shared.wake, &mut [0_u8; 8]);
            loop {
                let command = self.shared.commands.lock().unwrap().pop_front();
                match command {
                    Some(command) => self.obey(command),
                    None => break,
                }
            }
            for _ in 0..64 {
                let Some((header, payload)) = self.driver.receive() else { break };
                self.packet(&header, &payload);
            }
            let keys: Vec<Key> = self.connections.keys().copied().collect();
            for key in keys {
                self.step(key);
            }
            while let Some((header, payload)) = self.unsent.pop_front() {
                if !self.driver.send(&header, &payload) {
                    self.unsent.push_front((header, payload));
                    break;
                }
            }
            self.shared.alive.store(self.connections.len() as u32, Ordering::SeqCst);
            self.driver.wait(self.shared.wake.as_fd(), Duration::from_millis(200));
        }
    }

    fn obey(&mut self, command: Command) {
        match command {
            Command::Connect { cid, port, service, send, report } => {
                self.next_port += 1;
                let mut connection = Connection::new(service, Some(report));
                connection.outbox.extend(send);
                let key = (cid, port, self.next_port);
                self.connections.insert(key, connection);
                self.say(key, REQUEST, 0, Vec::new());
            }
            Command::Restart => {
                self.driver.stop();
                self.connections.clear();
                self.unsent.clear();
                self.driver.start();
            }
        }
    }

    fn fault(&self, what: String) {
        self.shared.faults.lock().unwrap().push(what);
    }

    fn packet(&mut self, header: &Header, payload: &[u8]) {
        if header.dst_cid != self.shared.cid || header.kind != 1 {
            return self.fault(format!("not for us: {header:?}"));
        }
        let key = (header.src_cid, header.src_port, header.dst_port);
        if header.op == REQUEST {
            self.shared.callers.lock().unwrap().push(key);
            if self.connections.contains_key(&key) {
                return self.fault(format!("a request for a connection that lives: {header:?}"));
            }
            match self.services.get_mut(&key.2) {
                Some(Service::Mute) => {}
                Some(Service::Late(refusals)) if *refusals > 0 => {
                    *refusals -= 1;
                    self.refuse(header);
                }
                Some(service) => {
                    let mut connection = Connection::new(*service, None);
                    connection.open = true;
                    connection.peer_size = header.buf_alloc;
                    self.connections.insert(key, connection);
                    self.say(key, RESPONSE, 0, Vec::new());
                }
                None => self.refuse(header),
            }
            return;
        }
        let Some(connection) = self.connections.get_mut(&key) else {
            if header.op != RESET {
                self.refuse(header);
            }
            return;
        };
        if header.op == RESET {
            return self.forget(key);
        }
        connection.peer_size = header.buf_alloc;
        connection.peer_forwarded = header.fwd_cnt;
        match header.op {
            RESPONSE if !connection.open => {
                connection.open = true;
                if let Some(report) = &connection.report {
                    report.opened.store(true, Ordering::SeqCst);
                }
            }
            DATA => {
                connection.received = connection.received.wrapping_add(header.len);
                let held = connection.received.wrapping_sub(connection.forwarded);
                let late = connection.told_us & NO_SEND != 0;
                connection.inbox.extend(payload);
                self.shared.received.fetch_add(payload.len() as u64, Ordering::SeqCst);
                if late || held > BUFFER || !connection.open {
                    self.fault(format!("data against the rules ({held} held): {header:?}"));
                }
            }
            SHUTDOWN => {
                if header.flags & connection.told_us != connection.told_us {
                    self.fault(format!("a shutdown was taken back: {header:?}"));
                } else {
                    connection.told_us = header.flags;
                }
            }
            CREDIT_UPDATE => {}
            CREDIT_REQUEST => self.say(key, CREDIT_UPDATE, 0, Vec::new()),
            _ => self.fault(format!("unexpected: {header:?}")),
        }
    }

    fn step(&mut self, key: Key) {
        let released = self.shared.released.load(Ordering::SeqCst);
        let Some(connection) = self.connections.get_mut(&key).filter(|this| this.open) else {
            return;
        };
        if connection.serve(released) == Verdict::Reset {
            self.say(key, RESET, 0, Vec::new());
            return self.forget(key);
        }
        while let Some(connection) = self.connections.get_mut(&key)
            && let Some(packet) = connection.packet()
        {
            self.say(key, DATA, 0, packet);
        }
        let Some(connection) = self.connections.get_mut(&key) else { return };
        if connection.outbox.is_empty() && connection.wants & !connection.told_them != 0 {
            connection.told_them |= connection.wants;
            let flags = connection.told_them;
            self.say(key, SHUTDOWN, flags, Vec::new());
        }
        let Some(connection) = self.connections.get_mut(&key) else { return };
        if connection.forwarded.wrapping_sub(connection.announced) >= BUFFER / 4 {
            self.say(key, CREDIT_UPDATE, 0, Vec::new());
        }
        let Some(connection) = self.connections.get_mut(&key) else { return };
        // As Linux: full shutdown by the peer and nothing left to read is confirmed with RST.
        if connection.told_us == NO_SEND | NO_RECEIVE && connection.inbox.is_empty() {
            self.say(key, RESET, 0, Vec::new());
            self.forget(key);
        }
    }

    fn forget(&mut self, key: Key) {
        let Some(connection) = self.connections.remove(&key) else { return };
        self.shared.ended.fetch_add(1, Ordering::SeqCst);
        if let Some(report) = connection.report {
            report.bytes.lock().unwrap().extend(connection.inbox);
            report.closed.store(true, Ordering::SeqCst);
        }
    }

    fn refuse(&mut self, header: &Header) {
        let answer = Header {
            src_cid: header.dst_cid,
            dst_cid: header.src_cid,
            src_port: header.dst_port,
            dst_port: header.src_port,
            kind: header.kind,
            op: RESET,
            ..Header::default()
        };
        self.unsent.push_back((answer, Vec::new()));
    }

    fn say(&mut self, key: Key, op: u16, flags: u32, payload: Vec<u8>) {
        let Some(connection) = self.connections.get_mut(&key) else { return };
        connection.announced = connection.forwarded;
        let header = Header {
            src_cid: self.shared.cid,
            dst_cid: key.0,
            src_port: key.2,
            dst_port: key.1,
            len: payload.len() as u32,
            kind: 1,
            op,
            flags,
            buf_alloc: BUFFER,
            fwd_cnt: connection.forwarded,
        };
        self.unsent.push_back((header, payload));
    }
}

#[derive(PartialEq, Eq)]
enum Verdict {
    GoOn,
    Reset,
}

impl Connection {
    fn new(service: Service, report: Option<Arc<Report>>) -> Self {
        Self {
            service,
            open: false,
            inbox: VecDeque::new(),
            outbox: VecDeque::new(),
            peer_size: 0,
            peer_forwarded: 0,
            sent: 0,
            received: 0,
            forwarded: 0,
            announced: 0,
            told_us: 0,
            told_them: 0,
            wants: 0,
            count: 0,
            sum: 0,
            left: match service {
                Service::Send(bytes) => bytes,
                _ => 0,
            },
            report,
        }
    }

    fn read(&mut self) -> Vec<u8> {
        let bytes: Vec<u8> = self.inbox.drain(..).collect();
        self.forwarded = self.forwarded.wrapping_add(bytes.len() as u32);
        bytes
    }

    fn serve(&mut self, released: bool) -> Verdict {
        let ended = self.told_us & NO_SEND != 0;
        match self.service {
            Service::Hold if !released => {}
            Service::Echo | Service::Late(_) | Service::Hold if self.report.is_none() => {
                if self.outbox.len() < BUFFER as usize {
                    let bytes = self.read();
                    self.outbox.extend(bytes);
                }
                if ended && self.inbox.is_empty() {
                    self.wants = NO_SEND | NO_RECEIVE;
                }
            }
            Service::Echo | Service::Late(_) | Service::Hold => {
                // As a client: send what was given, collect what comes.
                let bytes = self.read();
                self.report.as_ref().unwrap().bytes.lock().unwrap().extend(bytes);
                self.wants = if ended { NO_SEND | NO_RECEIVE } else { NO_SEND };
            }
            Service::Count => {
                for byte in self.read() {
                    self.sum = super::add(self.sum, self.count, byte);
                    self.count += 1;
                }
                if ended && self.wants == 0 {
                    self.outbox.extend(self.count.to_le_bytes());
                    self.outbox.extend(self.sum.to_le_bytes());
                    self.wants = NO_SEND | NO_RECEIVE;
                }
            }
            Service::Send(_) => {
                self.read();
                while self.left > 0 && self.outbox.len() < PACKET {
                    self.outbox.push_back(super::pattern(self.count));
                    self.count += 1;
                    self.left -= 1;
                }
                if self.left == 0 {
                    self.wants = if ended { NO_SEND | NO_RECEIVE } else { NO_SEND };
                }
            }
            Service::Reset => {
                if !self.read().is_empty() {
                    return Verdict::Reset;
                }
            }
            Service::Bye if self.wants == 0 => {
                self.outbox.extend(b"bye");
                self.wants = NO_SEND | NO_RECEIVE;
            }
            Service::Deaf if self.told_them == 0 => self.wants = NO_RECEIVE,
            Service::Deaf if self.wants == NO_RECEIVE => {
                self.outbox.extend(b"still here");
                self.wants = NO_SEND | NO_RECEIVE;
            }
            Service::Bye | Service::Deaf | Service::Mute => {}
        }
        Verdict::GoOn
    }

    fn packet(&mut self) -> Option<Vec<u8>> {
        let flying = self.sent.wrapping_sub(self.peer_forwarded);
        let room = self.peer_size.saturating_sub(flying) as usize;
        let len = self.outbox.len().min(room).min(PACKET);
        if len == 0 || self.told_us & NO_RECEIVE != 0 {
            if self.told_us & NO_RECEIVE != 0 {
                self.outbox.clear();
            }
            return None;
        }
        self.sent = self.sent.wrapping_add(len as u32);
        Some(self.outbox.drain(..len).collect())
    }
}
