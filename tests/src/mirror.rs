//! A mirror of Debian's archive on the loopback: it has what a lock names, out of the tests'
//! cache, and misbehaves when told to.

use crate::command;
use rouse::debian::{Archive, Package};
use rouse::lock::Lock;
use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

/// How one file is answered, every time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The first half, as if that were all.
    Half,
    /// As long as it should be, with another first byte.
    OtherContent,
    /// It has been dropped.
    Gone,
    /// The connection is accepted and nothing comes, until the mirror goes.
    Silence,
}

/// A mirror; it ends when it is dropped.
pub struct Mirror {
    shared: Arc<Shared>,
    address: SocketAddr,
    thread: Option<std::thread::JoinHandle<()>>,
}

struct Shared {
    files: HashMap<String, PathBuf>,
    faults: Mutex<HashMap<String, Fault>>,
    log: Mutex<Vec<String>>,
    stop: AtomicBool,
}

impl Mirror {
    /// A mirror of everything in a lock. The tests' cache has to have it.
    pub fn of(lock: &Path) -> Self {
        let place = |package: &Package| {
            let blob = command::cache().join("blobs").join(package.sha256.to_string());
            (url_path(package), blob)
        };
        let files = packages(lock).iter().map(place).collect();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            files,
            faults: Mutex::default(),
            log: Mutex::default(),
            stop: AtomicBool::new(false),
        });
        let served = shared.clone();
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming() {
                if served.stop.load(Ordering::SeqCst) {
                    return;
                }
                let served = served.clone();
                std::thread::spawn(move || answer(stream.unwrap(), &served));
            }
        });
        Self { shared, address, thread: Some(thread) }
    }

    /// For ROUSE_DEBIAN_MIRROR.
    pub fn url(&self) -> String {
        format!("http://{}/debian", self.address)
    }

    /// For ROUSE_SNAPSHOT_MIRROR: an archive that has nothing.
    pub fn snapshot(&self) -> String {
        format!("http://{}/snapshot", self.address)
    }

    /// From now on a package is answered like that.
    pub fn fail(&self, package: &Package, fault: Fault) {
        self.shared.faults.lock().unwrap().insert(url_path(package), fault);
    }

    /// All is well again.
    pub fn mend(&self) {
        self.shared.faults.lock().unwrap().clear();
    }

    /// What was asked for.
    pub fn log(&self) -> Vec<String> {
        self.shared.log.lock().unwrap().clone()
    }
}

impl Drop for Mirror {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        // Wakes the accept.
        let _ = TcpStream::connect(self.address);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// All packages of a lock for this machine, the kernel first.
pub fn packages(lock: &Path) -> Vec<Package> {
    let lock = Lock::read(lock).unwrap().unwrap();
    let architecture = lock.architectures().next().unwrap();
    let section = lock.section(architecture).unwrap();
    let kernel = std::iter::once(&section.kernel);
    kernel.chain(&section.packages).chain(&section.parts).cloned().collect()
}

fn url_path(package: &Package) -> String {
    let archive = match package.archive {
        Archive::Debian => "debian",
        Archive::DebianSecurity => "debian-security",
    };
    format!("/{archive}/{}", package.path)
}

/// Answers one request and closes. Ranges are not understood: the answer is always the whole.
fn answer(mut stream: TcpStream, shared: &Shared) {
    let mut lines = BufReader::new(stream.try_clone().unwrap()).lines().map_while(Result::ok);
    let Some(request) = lines.next() else { return };
    let path = decoded(request.split(' ').nth(1).unwrap_or_default());
    lines.take_while(|line| !line.is_empty()).for_each(drop);
    shared.log.lock().unwrap().push(path.clone());
    let fault = shared.faults.lock().unwrap().get(&path).copied();
    let content = shared.files.get(&path).map(|file| std::fs::read(file).unwrap());
    let (status, body) = match (content, fault) {
        (_, Some(Fault::Silence)) => {
            while !shared.stop.load(Ordering::SeqCst) {
                std::thread::sleep(std::time::Duration::from_millis(50));
            }
            return;
        }
        (None, _) | (_, Some(Fault::Gone)) => (404, b"no\n".to_vec()),
        (Some(mut whole), Some(Fault::Half)) => {
            whole.truncate(whole.len() / 2);
            (200, whole)
        }
        (Some(mut whole), Some(Fault::OtherContent)) => {
            whole[0] ^= 1;
            (200, whole)
        }
        (Some(whole), None) => (200, whole),
    };
    let length = body.len();
    let head =
        format!("HTTP/1.1 {status} X\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n");
    // The client may have gone; then there is nobody to tell.
    let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&body));
}

/// Without percent-encoding.
fn decoded(path: &str) -> String {
    let mut parts = path.split('%');
    let mut text = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (code, rest) = part.split_at(2);
        text.push(char::from(u8::from_str_radix(code, 16).unwrap()));
        text.push_str(rest);
    }
    text
}
