//! A little HTTP server on the loopback, for tests: it serves files from memory and misbehaves
//! when told to.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

/// How a path is answered, once; after that it is served as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The whole length is announced, so many bytes are sent, then the connection is closed.
    CutAfter(usize),
    /// Only so many bytes are announced and sent.
    Short(usize),
    /// This status and no file.
    Status(u16),
}

#[derive(Default)]
struct State {
    files: HashMap<String, Vec<u8>>,
    faults: HashMap<String, Vec<Fault>>,
    /// Whether `Range:` is understood.
    whole_only: bool,
    /// Requests so far: path, and first byte asked for.
    log: Vec<(String, usize)>,
}

pub(crate) struct Server {
    state: Arc<Mutex<State>>,
    stop: Arc<AtomicBool>,
    address: std::net::SocketAddr,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Server {
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(Mutex::new(State::default()));
        let stop = Arc::new(AtomicBool::new(false));
        let (shared, stopped) = (state.clone(), stop.clone());
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming() {
                if stopped.load(Ordering::SeqCst) {
                    return;
                }
                let shared = shared.clone();
                std::thread::spawn(move || answer(stream.unwrap(), &shared));
            }
        });
        Self { state, stop, address, thread: Some(thread) }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) fn put(&self, path: &str, content: impl Into<Vec<u8>>) {
        self.state.lock().unwrap().files.insert(path.to_owned(), content.into());
    }

    pub(crate) fn remove(&self, path: &str) {
        self.state.lock().unwrap().files.remove(path);
    }

    /// The next answers for a path, in their order.
    pub(crate) fn fail(&self, path: &str, faults: &[Fault]) {
        let faults = faults.iter().rev().copied().collect();
        self.state.lock().unwrap().faults.insert(path.to_owned(), faults);
    }

    pub(crate) fn ignore_ranges(&self) {
        self.state.lock().unwrap().whole_only = true;
    }

    /// The requests so far.
    pub(crate) fn log(&self) -> Vec<(String, usize)> {
        self.state.lock().unwrap().log.clone()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        // Wakes the accept.
        let _ = TcpStream::connect(self.address);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Answers one request and closes.
fn answer(mut stream: TcpStream, state: &Mutex<State>) {
    let mut lines = BufReader::new(stream.try_clone().unwrap()).lines().map_while(Result::ok);
    let Some(request) = lines.next() else { return };
    let path = request.split(' ').nth(1).unwrap_or_default().to_owned();
    let mut from = 0;
    for line in lines.take_while(|line| !line.is_empty()) {
        let line = line.to_ascii_lowercase();
        if let Some(range) = line.strip_prefix("range: bytes=") {
            from = range.trim_end_matches('-').parse().unwrap();
        }
    }
    let (content, fault) = {
        let mut state = state.lock().unwrap();
        state.log.push((path.clone(), from));
        if state.whole_only {
            from = 0;
        }
        let fault = state.faults.get_mut(&path).and_then(Vec::pop);
        (state.files.get(&path).cloned(), fault)
    };
    let status = match (&content, fault) {
        (_, Some(Fault::Status(status))) => status,
        (None, _) => 404,
        (Some(_), _) if from > 0 => 206,
        (Some(_), _) => 200,
    };
    let whole = content.unwrap_or_default();
    let body = if status < 300 { whole.get(from..).unwrap_or_default() } else { b"no\n" };
    let (announced, sent) = match fault {
        Some(Fault::CutAfter(bytes)) => (body.len(), bytes.min(body.len())),
        Some(Fault::Short(bytes)) => (bytes.min(body.len()), bytes.min(body.len())),
        _ => (body.len(), body.len()),
    };
    let range = match status {
        206 => format!("Content-Range: bytes {from}-{}/{}\r\n", whole.len() - 1, whole.len()),
        _ => String::new(),
    };
    let head = format!(
        "HTTP/1.1 {status} X\r\nContent-Length: {announced}\r\n{range}Connection: close\r\n\r\n"
    );
    // The client may have gone; then there is nobody to tell.
    let _ = stream.write_all(head.as_bytes());
    let _ = stream.write_all(&body[..sent]);
}
