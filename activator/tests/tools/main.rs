//! `activator activate` and `activator relay` as processes.
//!
//! ROUSE_RELAY_BYTES is how much goes through the relay in the large test (default 1 GB),
//! ROUSE_RELAY_CLIENTS how many connect on the edge of its exit (default 300).

mod activate;
mod datagrams;
mod exit;
#[path = "../logd/spawn.rs"]
mod spawn;
mod streams;
mod vsock;

use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

const ACTIVATOR: &str = env!("CARGO_BIN_EXE_activator");
/// Nothing here takes long; a hang must end.
const PATIENCE: Duration = Duration::from_secs(60);

/// A process of ours; killed when dropped.
struct Process(Child);

impl Process {
    fn start(command: &mut Command) -> Self {
        Self(command.stdin(Stdio::null()).spawn().unwrap())
    }

    fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(&self.0);
        rustix::process::kill_process(pid, signal).unwrap();
    }

    /// Waits until it ends by itself.
    fn wait(&mut self) -> ExitStatus {
        let mut status = None;
        until("the process ends", || {
            status = self.0.try_wait().unwrap();
            status.is_some()
        });
        status.unwrap()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A relay with these listeners.
fn relay(listeners: &[&dyn AsFd], arguments: &[&str]) -> Process {
    let fds: Vec<_> = listeners.iter().map(|fd| ("", fd.as_fd())).collect();
    Process::start(spawn::activator(&fds).arg("relay").args(arguments))
}

fn listen() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream
}

fn accept(listener: &TcpListener) -> TcpStream {
    let (stream, _) = listener.accept().unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// An address that is free and stays so: of the loopback's many, one that nobody else has, and whose
/// ports no other test's connections come from.
fn free_address() -> SocketAddr {
    static NEXT: AtomicU8 = AtomicU8::new(1);
    let [.., high, low] = std::process::id().to_be_bytes();
    let address = Ipv4Addr::new(127, high | 1, low, NEXT.fetch_add(1, Ordering::Relaxed));
    TcpListener::bind((address, 0)).unwrap().local_addr().unwrap()
}

fn until(what: &str, mut good: impl FnMut() -> bool) {
    let begun = Instant::now();
    while begun.elapsed() < PATIENCE {
        if good() {
            return;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    panic!("waited in vain until {what}");
}

/// The lines of a file, once there is a last one.
fn read_when_done(path: &Path) -> Vec<String> {
    let mut lines = vec![];
    until("the report is complete", || {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        lines = text.lines().map(str::to_owned).collect();
        lines.last().is_some_and(|line| line == "end")
    });
    lines.pop();
    lines
}

fn count(name: &str, default: u64) -> u64 {
    let count = std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default);
    // On stderr itself: what println! writes is shown of tests that fail only.
    let _ = writeln!(std::io::stderr(), "{name}={count}");
    count
}
