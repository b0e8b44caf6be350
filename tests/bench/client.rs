//! The one client of all peers, and the server behind all relays.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// A peer that has not answered by then never will.
const PATIENCE: Duration = Duration::from_secs(20);

/// Where a peer listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Address {
    /// A port of 127.0.0.1.
    Tcp(u16),
    /// A socket in the file system.
    Unix(PathBuf),
}

/// A stream of either family.
pub(crate) trait Stream: Read + Write + Send {}

impl<T: Read + Write + Send> Stream for T {}

impl Address {
    /// Connects.
    pub(crate) fn connect(&self) -> std::io::Result<Box<dyn Stream>> {
        Ok(match self {
            Self::Tcp(port) => {
                let stream = TcpStream::connect(("127.0.0.1", *port))?;
                stream.set_read_timeout(Some(PATIENCE))?;
                stream.set_nodelay(true)?;
                Box::new(stream)
            }
            Self::Unix(path) => {
                let stream = UnixStream::connect(path)?;
                stream.set_read_timeout(Some(PATIENCE))?;
                Box::new(stream)
            }
        })
    }

    /// The two words that the floors take.
    pub(crate) fn words(&self) -> [String; 2] {
        match self {
            Self::Tcp(port) => ["tcp".into(), port.to_string()],
            Self::Unix(path) => ["unix".into(), path.display().to_string()],
        }
    }

    /// As systemd's ListenStream= and the option -l of the activate commands have it.
    pub(crate) fn listen_stream(&self) -> String {
        match self {
            Self::Tcp(port) => format!("127.0.0.1:{port}"),
            Self::Unix(path) => path.display().to_string(),
        }
    }

    /// Whether somebody listens there, without a connection that would wake somebody.
    pub(crate) fn is_listening(&self) -> bool {
        match self {
            Self::Tcp(port) => {
                let table = std::fs::read_to_string("/proc/net/tcp").unwrap_or_default();
                let table = table + &std::fs::read_to_string("/proc/net/tcp6").unwrap_or_default();
                let port = format!(":{port:04X}");
                table.lines().any(|line| {
                    let mut words = line.split_whitespace().skip(1);
                    let local = words.next().is_some_and(|local| local.ends_with(&port));
                    local && words.nth(1) == Some("0A")
                })
            }
            Self::Unix(path) => {
                let table = std::fs::read_to_string("/proc/net/unix").unwrap_or_default();
                let path = path.display().to_string();
                // Flags with __SO_ACCEPTCON. Who renames what he has bound still has its old name there.
                table.lines().any(|line| line.contains(&path) && line.contains(" 00010000 "))
            }
        }
    }

    /// Waits until somebody listens.
    pub(crate) fn wait(&self) -> Result<(), String> {
        let end = Instant::now() + PATIENCE;
        while !self.is_listening() {
            if Instant::now() > end {
                return Err(format!("nobody listens on {}", self.listen_stream()));
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        Ok(())
    }
}

/// A connection to a vsock port of a guest, through the Unix socket of the device on the host: a
/// line asks for the port, and one answers, as with Firecracker.
pub(crate) fn hybrid(path: &Path, port: u32) -> std::io::Result<UnixStream> {
    let mut stream = UnixStream::connect(path)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    writeln!(stream, "CONNECT {port}")?;
    let mut byte = [0];
    while byte != *b"\n" {
        stream.read_exact(&mut byte)?;
    }
    Ok(stream)
}

/// From connect(2) to the first echoed byte. The connection is closed behind it.
pub(crate) fn hello(address: &Address) -> std::io::Result<Duration> {
    let begun = Instant::now();
    let mut stream = address.connect()?;
    stream.write_all(b"x")?;
    let mut byte = [0];
    stream.read_exact(&mut byte)?;
    Ok(begun.elapsed())
}

/// Microseconds of some hellos, with a pause before each in which the peer comes to rest.
pub(crate) fn hellos(address: &Address, count: usize, pause: Duration) -> Result<Vec<f64>, String> {
    let one = |_| {
        std::thread::sleep(pause);
        hello(address).map(|took| took.as_secs_f64() * 1e6).map_err(|error| error.to_string())
    };
    (0..count).map(one).collect()
}

/// Hellos per second of some clients, each as soon as its last one was answered.
pub(crate) fn rate(address: &Address, clients: usize, time: Duration) -> Result<f64, String> {
    let (done, failed) = (AtomicU64::new(0), Mutex::new(None));
    let begun = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..clients {
            scope.spawn(|| {
                while begun.elapsed() < time {
                    match hello(address) {
                        Ok(_) => drop(done.fetch_add(1, Ordering::Relaxed)),
                        Err(error) => *failed.lock().unwrap() = Some(error.to_string()),
                    }
                }
            });
        }
    });
    let rate = done.into_inner() as f64 / begun.elapsed().as_secs_f64();
    match failed.into_inner().unwrap() {
        Some(why) => Err(format!("one of {clients} clients was not answered: {why}")),
        None => Ok(rate),
    }
}
