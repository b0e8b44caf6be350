//! The built server with real sockets of every family that needs no virtual machine.

mod common;

use common::Server;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use rustix::process::Signal;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream, UdpSocket};
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::process::Command;
use std::time::Duration;

/// Nothing here takes long; a hang must end.
const HANG: Duration = Duration::from_secs(60);

fn tcp() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").unwrap()
}

fn connect(listener: &TcpListener) -> TcpStream {
    let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    stream.set_read_timeout(Some(HANG)).unwrap();
    stream
}

fn hello(mut stream: impl Read + Write) {
    stream.write_all(b"hello").unwrap();
    let mut answer = [0; 5];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"hello");
}

#[test]
fn every_family_and_kind_answers() {
    let dir = tempfile::tempdir().unwrap();
    let (stream_path, datagram_path) = (dir.path().join("stream"), dir.path().join("datagram"));
    let packet_address = SocketAddrUnix::new(dir.path().join("packet")).unwrap();
    let inet = tcp();
    let inet6 = TcpListener::bind("[::1]:0").unwrap();
    let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    let udp6 = UdpSocket::bind("[::1]:0").unwrap();
    let unix = UnixListener::bind(&stream_path).unwrap();
    let datagram = UnixDatagram::bind(&datagram_path).unwrap();
    let seqpacket = |flags| {
        rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).unwrap()
    };
    let packets = seqpacket(SocketFlags::CLOEXEC);
    rustix::net::bind(&packets, &packet_address).unwrap();
    rustix::net::listen(&packets, 16).unwrap();
    let _server = Server::start(&[&inet, &udp, &inet6, &udp6, &unix, &datagram, &packets], &[]);

    hello(connect(&inet));
    hello(connect(&inet6));
    hello(UnixStream::connect(&stream_path).unwrap());

    for (server, from) in [(&udp, "127.0.0.1:0"), (&udp6, "[::1]:0")] {
        let client = UdpSocket::bind(from).unwrap();
        client.set_read_timeout(Some(HANG)).unwrap();
        client.connect(server.local_addr().unwrap()).unwrap();
        client.send(b"hello").unwrap();
        let mut answer = [0; 16];
        let length = client.recv(&mut answer).unwrap();
        assert_eq!(&answer[..length], b"hello");
    }

    // A sender without an address gets no answer, and does no harm.
    UnixDatagram::unbound().unwrap().send_to(b"lost", &datagram_path).unwrap();
    let client = UnixDatagram::bind(dir.path().join("client")).unwrap();
    client.set_read_timeout(Some(HANG)).unwrap();
    client.send_to(b"hello", &datagram_path).unwrap();
    let mut answer = [0; 16];
    let length = client.recv(&mut answer).unwrap();
    assert_eq!(&answer[..length], b"hello");

    let client = seqpacket(SocketFlags::CLOEXEC);
    rustix::net::connect(&client, &packet_address).unwrap();
    for packet in [&b"one"[..], b"two, longer"] {
        rustix::net::send(&client, packet, rustix::net::SendFlags::empty()).unwrap();
    }
    for packet in [&b"one"[..], b"two, longer"] {
        let mut answer = [0; 64];
        let (_, length) =
            rustix::net::recv(&client, &mut answer[..], rustix::net::RecvFlags::empty()).unwrap();
        assert_eq!(&answer[..length], packet);
    }
}

#[test]
fn a_client_that_shuts_down_at_once_gets_everything_back() {
    let listener = tcp();
    let _server = Server::start(&[&listener], &[]);
    let mut client = connect(&listener);
    let sent: Vec<u8> = (0..4_000_000_u32).map(|number| (number % 251) as u8).collect();
    let mut writer = client.try_clone().unwrap();
    let bytes = sent.clone();
    let writing = std::thread::spawn(move || {
        writer.write_all(&bytes).unwrap();
        writer.shutdown(Shutdown::Write).unwrap();
    });
    let mut got = Vec::new();
    client.read_to_end(&mut got).unwrap();
    writing.join().unwrap();
    assert!(got == sent, "{} bytes came back", got.len());
}

#[test]
fn two_thousand_clients_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("stream");
    let listener = UnixListener::bind(&path).unwrap();
    let mut limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    limit.current = limit.maximum;
    rustix::process::setrlimit(rustix::process::Resource::Nofile, limit).unwrap();
    let _server = Server::start(&[&listener], &[]);
    let mut clients: Vec<UnixStream> =
        (0..2000).map(|_| UnixStream::connect(&path).unwrap()).collect();
    for (number, client) in clients.iter_mut().enumerate() {
        client.set_read_timeout(Some(HANG)).unwrap();
        client.write_all(&number.to_le_bytes()).unwrap();
        client.shutdown(Shutdown::Write).unwrap();
    }
    for (number, client) in clients.iter_mut().enumerate() {
        let mut answer = Vec::new();
        client.read_to_end(&mut answer).unwrap();
        assert_eq!(answer, number.to_le_bytes());
    }
}

#[test]
fn a_client_that_does_not_read_is_held_back_and_holds_up_nobody() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("stream");
    let listener = UnixListener::bind(&path).unwrap();
    let _server = Server::start(&[&listener], &[]);
    let mut slow = UnixStream::connect(&path).unwrap();
    slow.set_nonblocking(true).unwrap();
    // Until nothing moves any more: the server has stopped to read.
    let (mut sent, mut stuck) = (0_usize, 0);
    while stuck < 20 {
        match slow.write(&[7; 4096]) {
            Ok(length) => (sent, stuck) = (sent + length, 0),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                stuck += 1;
                std::thread::sleep(Duration::from_millis(10));
            }
            Err(error) => panic!("{error}"),
        }
        assert!(sent < 64 << 20, "the server takes everything into its memory");
    }
    hello(UnixStream::connect(&path).unwrap());

    slow.set_nonblocking(false).unwrap();
    slow.set_read_timeout(Some(HANG)).unwrap();
    slow.shutdown(Shutdown::Write).unwrap();
    let mut got = Vec::new();
    slow.read_to_end(&mut got).unwrap();
    assert_eq!(got.len(), sent);
    assert!(got.iter().all(|byte| *byte == 7));
}

#[test]
fn without_fds_left_the_others_wait_and_are_served_later() {
    let listener = tcp();
    // Three standard streams, the listener, the epoll: room for eleven clients.
    let _server = Server::start_after("ulimit -n 16", &[&listener], &[]);
    let mut clients: Vec<TcpStream> = (0..40).map(|_| connect(&listener)).collect();
    for client in &mut clients {
        client.write_all(b"hello").unwrap();
    }
    for mut client in clients {
        let mut answer = [0; 5];
        client.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"hello");
    }
}

#[test]
fn a_connection_may_be_handed_over_itself() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let _server = Server::start(&[&theirs], &[]);
    hello(ours);
}

#[test]
fn idle_counts_from_the_last_connection() {
    let listener = tcp();
    let mut server = Server::start(&[&listener], &["--idle", "0.5"]);
    let mut client = connect(&listener);
    hello(&mut client);
    std::thread::sleep(Duration::from_millis(1500));
    assert!(server.runs(), "a connection is open");
    hello(&mut client);
    drop(client);
    assert_eq!(server.wait().code(), Some(0));
}

#[test]
fn sigterm_is_a_clean_end() {
    let listener = tcp();
    let mut server = Server::start(&[&listener], &[]);
    // It answers, so its handler is in place.
    let client = connect(&listener);
    hello(&client);
    server.signal(Signal::TERM);
    assert_eq!(server.wait().code(), Some(0));
}

#[test]
fn without_sockets_it_says_so() {
    let says = |variables: &[(&str, &str)], args: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_echo-server"));
        command.args(args).env_remove("LISTEN_FDS").env_remove("LISTEN_PID");
        let output = command.envs(variables.iter().copied()).output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let (code, text) = says(&[], &[]);
    assert_eq!(code, Some(1));
    assert!(text.contains("LISTEN_FDS is not set"), "{text}");
    let (code, text) = says(&[("LISTEN_FDS", "1"), ("LISTEN_PID", "1")], &[]);
    assert_eq!(code, Some(1));
    assert!(text.contains("LISTEN_PID is 1"), "{text}");
    let (code, text) = says(&[], &["--idle", "soon"]);
    assert_eq!(code, Some(2));
    assert!(text.contains("--idle takes seconds, not soon"), "{text}");
}
