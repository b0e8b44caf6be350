//! A registry of one image that sends everybody to a server for tokens, and takes each token
//! twice.

use rouse_tests::container_registry::USER;
use rouse_tests::images::{Image, MANIFEST, digest};
use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

/// Requests that a token is good for.
const GOOD_FOR: u32 = 2;

pub(crate) struct Server {
    pub(crate) address: String,
    /// Path and `Authorization:` of each request.
    pub(crate) log: Arc<Mutex<Vec<String>>>,
}

#[derive(Default)]
struct State {
    given: u32,
    left: u32,
}

impl Server {
    pub(crate) fn start(image: &Image) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let mut files = HashMap::new();
        files.insert("/v2/app/manifests/1".to_owned(), image.manifest.clone());
        for blob in image.layers.iter().chain([&image.config]) {
            files.insert(format!("/v2/app/blobs/{}", digest(blob)), blob.clone());
        }
        let log = Arc::new(Mutex::new(Vec::new()));
        let (shown, own) = (log.clone(), address.clone());
        // It ends with the process: nobody else knows its port.
        std::thread::spawn(move || {
            let mut state = State::default();
            for stream in listener.incoming().map_while(Result::ok) {
                answer(stream, &own, &files, &mut state, &shown);
            }
        });
        Self { address, log }
    }
}

/// Answers one request and closes.
fn answer(
    mut stream: TcpStream,
    own: &str,
    files: &HashMap<String, Vec<u8>>,
    state: &mut State,
    log: &Mutex<Vec<String>>,
) {
    let mut lines = BufReader::new(stream.try_clone().unwrap()).lines().map_while(Result::ok);
    let Some(request) = lines.next() else { return };
    let path = request.split(' ').nth(1).unwrap_or_default().to_owned();
    let mut authorization = String::new();
    for line in lines.take_while(|line| !line.is_empty()) {
        let (name, value) = line.split_once(": ").unwrap_or_default();
        if name.eq_ignore_ascii_case("authorization") {
            authorization = value.to_owned();
        }
    }
    log.lock().unwrap().push(format!("{path} {authorization}"));
    let (mut status, mut body, mut more) = (401, b"{}".to_vec(), String::new());
    if path.starts_with("/token?") {
        if authorization == format!("Basic {}", USER.1) {
            state.given += 1;
            state.left = GOOD_FOR;
            status = 200;
            body = format!(r#"{{"token": "token-{}"}}"#, state.given).into_bytes();
        }
    } else if authorization == format!("Bearer token-{}", state.given) && state.left > 0 {
        state.left -= 1;
        match files.get(&path) {
            Some(file) => (status, body) = (200, file.clone()),
            None => status = 404,
        }
    } else {
        more = format!(
            "WWW-Authenticate: Bearer realm=\"http://{own}/token\",service=\"a b\",\
             scope=\"repository:app:pull\"\r\n"
        );
    }
    let head = format!(
        "HTTP/1.1 {status} X\r\nContent-Type: {MANIFEST}\r\nContent-Length: {}\r\n{more}\
         Connection: close\r\n\r\n",
        body.len()
    );
    // The client may have gone; then there is nobody to tell.
    let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&body));
}
