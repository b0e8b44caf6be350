//! A server that knows nothing of socket activation: it listens by itself, on the loopback and on
//! a Unix socket, and answers with what it gets. The first line of an answer is the client's
//! address as this server sees it.

use std::io::{Read, Write};
use std::net::{TcpListener, UdpSocket};
use std::os::unix::net::UnixListener;
use std::time::Duration;

fn main() -> std::io::Result<()> {
    // As a server that takes its time to start.
    let late = std::env::args().nth(1).and_then(|text| text.parse().ok()).unwrap_or(0);
    std::thread::sleep(Duration::from_millis(late));
    let _ = std::fs::remove_file("/run/plain.sock");
    let unix = UnixListener::bind("/run/plain.sock")?;
    let udp = UdpSocket::bind("127.0.0.1:8080")?;
    std::thread::spawn(move || {
        let mut buffer = [0; 2048];
        while let Ok((length, peer)) = udp.recv_from(&mut buffer) {
            let _ = udp.send_to(&buffer[..length], peer);
        }
    });
    std::thread::spawn(move || {
        for client in unix.incoming().flatten() {
            std::thread::spawn(move || answer(&client, &client, "unix"));
        }
    });
    for address in ["[::1]:8080", "127.0.0.1:8080"].map(TcpListener::bind) {
        let listener = address?;
        std::thread::spawn(move || {
            while let Ok((client, peer)) = listener.accept() {
                let peer = peer.ip().to_string();
                std::thread::spawn(move || answer(&client, &client, &peer));
            }
        });
    }
    loop {
        std::thread::park();
    }
}

fn answer(mut from: impl Read, mut to: impl Write, peer: &str) {
    let mut bytes = format!("{peer}\n").into_bytes();
    let _ = from.read_to_end(&mut bytes).and_then(|_| to.write_all(&bytes));
}
