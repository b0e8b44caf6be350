//! Connections through the relay.

use crate::{Process, accept, connect, count, free_address, listen, relay, until};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, send, sendmsg, sockopt};
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, Signal, pidfd_getfd, pidfd_open};
use std::io::{IoSlice, Read, Write};
use std::mem::MaybeUninit;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::thread;
use std::time::Duration;

/// A relay between two TCP ports.
fn tcp(arguments: &[&str]) -> (Process, SocketAddr, TcpListener) {
    let (front, address) = listen();
    let (back, target) = listen();
    let relay = relay(&[&front], &[arguments, &[&target.to_string()]].concat());
    (relay, address, back)
}

fn read_all(mut stream: impl Read) -> String {
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text
}

#[test]
fn each_side_may_end_first_and_hear_the_other_out() {
    let (_relay, address, back) = tcp(&[]);
    let (mut client, mut server) = (connect(address), accept(&back));
    client.write_all(b"question").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(read_all(&server), "question");
    server.write_all(b"a long answer").unwrap();
    drop(server);
    assert_eq!(read_all(&client), "a long answer");

    let (mut client, mut server) = (connect(address), accept(&back));
    server.write_all(b"greeting").unwrap();
    server.shutdown(Shutdown::Write).unwrap();
    assert_eq!(read_all(&client), "greeting");
    client.write_all(b"thanks").unwrap();
    drop(client);
    assert_eq!(read_all(&server), "thanks");
}

/// Numbered blocks, so that one that is lost, doubled or moved is seen.
fn send_blocks(mut to: impl Write, bytes: u64) {
    let mut block = vec![0; 1 << 16];
    for number in 0..bytes >> 16 {
        block[..8].copy_from_slice(&number.to_le_bytes());
        block[65528..].copy_from_slice(&(!number).to_le_bytes());
        to.write_all(&block).unwrap();
    }
}

fn expect_blocks(mut from: impl Read, bytes: u64) {
    let mut block = vec![0; 1 << 16];
    for number in 0..bytes >> 16 {
        from.read_exact(&mut block).unwrap();
        assert_eq!(block[..8], number.to_le_bytes());
        assert_eq!(block[65528..], (!number).to_le_bytes());
    }
    assert_eq!(from.read(&mut block).unwrap(), 0);
}

#[test]
fn a_gigabyte_each_way_at_once_without_loss() {
    let bytes = count("ROUSE_RELAY_BYTES", 1_000_000_000);
    let (_relay, address, back) = tcp(&[]);
    let (client, server) = (connect(address), accept(&back));
    thread::scope(|scope| {
        for stream in [&client, &server] {
            scope.spawn(move || {
                send_blocks(stream, bytes);
                stream.shutdown(Shutdown::Write).unwrap();
            });
            scope.spawn(move || expect_blocks(stream, bytes));
        }
    });
}

#[test]
fn bursts_of_small_writes_stay_in_order() {
    let (_relay, address, back) = tcp(&[]);
    let (client, server) = (connect(address), accept(&back));
    client.set_nodelay(true).unwrap();
    let sender = thread::spawn(move || {
        let mut client = client;
        for number in 0..200_000_u32 {
            client.write_all(&number.to_le_bytes()).unwrap();
        }
        // Slower than the writer: the relay's pipe fills with small pieces.
        client
    });
    let mut server = std::io::BufReader::with_capacity(777, server);
    let mut word = [0; 4];
    for number in 0..200_000_u32 {
        server.read_exact(&mut word).unwrap();
        assert_eq!(u32::from_le_bytes(word), number);
    }
    drop(sender.join().unwrap());
}

#[test]
fn a_reader_that_does_not_read_stops_its_writer_and_nobody_else() {
    let (_relay, address, back) = tcp(&[]);
    let (mut client, stuck) = (connect(address), accept(&back));
    client.set_nonblocking(true).unwrap();
    let block = vec![0; 1 << 16];
    // Until nothing has been taken for a while: buffers of kernel and relay are full.
    let (mut sent, mut refusals) = (0_u64, 0);
    while refusals < 50 {
        match client.write(&block) {
            Ok(count) => (sent, refusals) = (sent + count as u64, 0),
            Err(_) => {
                refusals += 1;
                thread::sleep(Duration::from_millis(10));
            }
        }
        assert!(sent < 1 << 30, "nothing stops the writer");
    }
    let (mut other, mut server) = (connect(address), accept(&back));
    other.write_all(b"hello").unwrap();
    let mut text = [0; 5];
    server.read_exact(&mut text).unwrap();
    assert_eq!(&text, b"hello");
    // And it goes on where it stopped.
    drop(client);
    let read = std::io::copy(&mut &stuck, &mut std::io::sink()).unwrap();
    assert_eq!(read, sent);
}

#[test]
fn a_reset_is_a_reset_on_the_other_side() {
    let (_relay, address, back) = tcp(&[]);
    let (mut client, server) = (connect(address), accept(&back));
    // What was not read makes the close a reset.
    client.write_all(b"unread").unwrap();
    until("it is there", || server.peek(&mut [0; 8]).unwrap() == 6);
    drop(server);
    let error = client.read(&mut [0; 8]).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
}

#[test]
fn a_backend_that_starts_late_is_waited_for() {
    let (front, address) = listen();
    let target = free_address();
    let _relay = relay(&[&front], &[&target.to_string()]);
    let mut clients: Vec<TcpStream> = (0..20).map(|_| connect(address)).collect();
    for client in &mut clients {
        client.write_all(b"early").unwrap();
        client.shutdown(Shutdown::Write).unwrap();
    }
    // Some attempts are refused meanwhile.
    thread::sleep(Duration::from_millis(300));
    let back = TcpListener::bind(target).unwrap();
    for _ in 0..20 {
        let mut server = accept(&back);
        assert_eq!(read_all(&server), "early");
        server.write_all(b"served").unwrap();
    }
    for client in clients {
        assert_eq!(read_all(client), "served");
    }
}

#[test]
fn a_backend_that_never_starts_is_given_up() {
    let (front, address) = listen();
    let target = free_address().to_string();
    let _relay = relay(&[&front], &["--connect-timeout=200ms", &target]);
    let mut client = connect(address);
    assert_eq!(client.read(&mut [0; 8]).unwrap(), 0);
}

#[test]
fn unix_backends_by_path_and_by_name_also_late_ones() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("socket");
    let name = format!("rouse-relay-{}", std::process::id());
    let (front, address) = listen();
    let relay_to_path = relay(&[&front], &[path.to_str().unwrap()]);
    let client = connect(address);
    thread::sleep(Duration::from_millis(50));
    let back = UnixListener::bind(&path).unwrap();
    (&back.accept().unwrap().0).write_all(b"path").unwrap();
    assert_eq!(read_all(client), "path");
    drop(relay_to_path);

    let abstract_name = std::os::unix::net::SocketAddr::from_abstract_name(&name).unwrap();
    let back = UnixListener::bind_addr(&abstract_name).unwrap();
    let _relay = relay(&[&front], &[&format!("@{name}")]);
    let client = connect(address);
    (&back.accept().unwrap().0).write_all(b"name").unwrap();
    assert_eq!(read_all(client), "name");
}

#[test]
fn several_listeners_of_several_families() {
    let directory = tempfile::tempdir().unwrap();
    let unix = UnixListener::bind(directory.path().join("front")).unwrap();
    let six = TcpListener::bind("[::1]:0").unwrap();
    let (four, address) = listen();
    let (back, target) = listen();
    let _relay = relay(&[&unix, &six, &four], &[&target.to_string()]);
    let clients: Vec<Box<dyn Read>> = vec![
        Box::new(UnixStream::connect(directory.path().join("front")).unwrap()),
        Box::new(connect(six.local_addr().unwrap())),
        Box::new(connect(address)),
    ];
    for _ in &clients {
        accept(&back).write_all(b"here").unwrap();
    }
    clients.into_iter().for_each(|client| assert_eq!(read_all(client), "here"));
}

#[test]
fn a_name_is_looked_up_and_all_its_addresses_are_tried() {
    let (front, address) = listen();
    // localhost is ::1 first where there is IPv6, and nothing listens there.
    let (back, target) = listen();
    let _relay = relay(&[&front], &[&format!("localhost:{}", target.port())]);
    let client = connect(address);
    accept(&back).write_all(b"found").unwrap();
    assert_eq!(read_all(client), "found");
}

#[test]
fn clients_beyond_the_limit_wait_for_their_turn() {
    let (_relay, address, back) = tcp(&["-c", "2"]);
    let clients: Vec<TcpStream> = (0..6).map(|_| connect(address)).collect();
    let mut servers = vec![accept(&back), accept(&back)];
    back.set_nonblocking(true).unwrap();
    thread::sleep(Duration::from_millis(100));
    assert!(back.accept().is_err(), "a third connection although two are the limit");
    back.set_nonblocking(false).unwrap();
    for _ in 0..4 {
        let mut served = servers.remove(0);
        served.write_all(b"served").unwrap();
        served.shutdown(Shutdown::Write).unwrap();
        // The client that it belongs to ends as well, which makes room.
        let mut done = [0; 6];
        let of = |client: &&TcpStream| client.peek(&mut [0; 6]).is_ok_and(|count| count == 6);
        for client in &clients {
            client.set_nonblocking(true).unwrap();
        }
        let mut found = None;
        until("a client is served", || {
            found = clients.iter().find(of);
            found.is_some()
        });
        let mut client = found.unwrap();
        client.read_exact(&mut done).unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        servers.push(accept(&back));
    }
}

#[test]
fn the_proxy_protocol_says_who_connects() {
    let (_relay, address, back) = tcp(&["--proxy-protocol=v1"]);
    let mut client = connect(address);
    client.write_all(b"data").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    let from = client.local_addr().unwrap().port();
    let to = address.port();
    let expected = format!("PROXY TCP4 127.0.0.1 127.0.0.1 {from} {to}\r\ndata");
    assert_eq!(read_all(accept(&back)), expected);
}

#[test]
fn a_hypervisors_socket_is_asked_for_the_port() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("mux");
    let mux = UnixListener::bind(&path).unwrap();
    let (front, address) = listen();
    let target = format!("vsock-mux:{}:52", path.to_str().unwrap());
    let _relay = relay(&[&front], &[&target]);
    let mut client = connect(address);
    client.write_all(b"data").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    // At first the guest does not listen: an end of file instead of an answer.
    for _ in 0..3 {
        let (mut stream, _) = mux.accept().unwrap();
        let mut line = [0; 11];
        stream.read_exact(&mut line).unwrap();
        assert_eq!(&line, b"CONNECT 52\n");
    }
    let (mut stream, _) = mux.accept().unwrap();
    stream.read_exact(&mut [0; 11]).unwrap();
    // The guest's first bytes are in the same packet.
    stream.write_all(b"OK 1073741824\nwelcome").unwrap();
    assert_eq!(read_all(&stream), "data");
    drop(stream);
    assert_eq!(read_all(client), "welcome");
}

#[test]
fn what_a_client_said_before_it_left_is_for_a_backend_that_comes_later() {
    let directory = tempfile::tempdir().unwrap();
    let (front, back) = (directory.path().join("front"), directory.path().join("back"));
    let listener = UnixListener::bind(&front).unwrap();
    let _relay = relay(&[&listener], &[back.to_str().unwrap()]);
    let mut client = UnixStream::connect(&front).unwrap();
    client.write_all(b"remember me").unwrap();
    drop(client);
    // One that has nothing to say is forgotten.
    drop(UnixStream::connect(&front).unwrap());
    // Taken by the relay, which tries to reach the backend.
    until("both were accepted", || {
        let mut asked = [rustix::event::PollFd::new(&listener, rustix::event::PollFlags::IN)];
        let at_once = rustix::time::Timespec { tv_sec: 0, tv_nsec: 0 };
        rustix::event::poll(&mut asked, Some(&at_once)) == Ok(0)
    });
    let back = UnixListener::bind(&back).unwrap();
    let (server, _) = back.accept().unwrap();
    assert_eq!(read_all(&server), "remember me");
}

#[test]
fn small_pieces_wait_for_no_acknowledgement() {
    let (relay, address, back) = tcp(&[]);
    let (mut client, mut server) = (connect(address), accept(&back));
    client.write_all(b"!").unwrap();
    server.read_exact(&mut [0]).unwrap();
    let process = pidfd_open(Pid::from_child(&relay.0), PidfdFlags::empty()).unwrap();
    let ours = std::fs::read_dir(format!("/proc/{}/fd", relay.0.id())).unwrap();
    let ours = ours.map(|entry| entry.unwrap().file_name().to_str().unwrap().parse().unwrap());
    let connected: Vec<bool> = ours
        .map(|fd| pidfd_getfd(&process, fd, PidfdGetfdFlags::empty()).unwrap())
        .filter(|fd| rustix::net::getpeername(fd).is_ok_and(|peer| peer.is_some()))
        .map(|fd| sockopt::tcp_nodelay(fd).unwrap())
        .collect();
    assert_eq!(connected, [true, true]);
}

/// Says six letters, all before the relay looks, in pieces that one read does not cross.
fn behind_a_mark<T: Write + AsFd>(
    relay: &Process,
    mut client: T,
    mut server: TcpStream,
    say: impl FnOnce(&mut T),
) {
    let mut text = [0; 6];
    // What its beginning still had to do has been done.
    for _ in 0..3 {
        client.write_all(b"before").unwrap();
        server.read_exact(&mut text).unwrap();
    }
    relay.signal(Signal::STOP);
    let stat = format!("/proc/{}/stat", relay.0.id());
    until("it stands still", || std::fs::read_to_string(&stat).unwrap().contains(") T "));
    say(&mut client);
    relay.signal(Signal::CONT);
    server.read_exact(&mut text).unwrap();
    assert_eq!(&text, b"abcdef");
}

#[test]
fn bytes_behind_urgent_data_are_not_forgotten() {
    let (relay, address, back) = tcp(&[]);
    behind_a_mark(&relay, connect(address), accept(&back), |client| {
        client.write_all(b"abc").unwrap();
        assert_eq!(send(&client, b"!", SendFlags::OOB), Ok(1));
        client.write_all(b"def").unwrap();
    });
}

#[test]
fn bytes_behind_passed_descriptors_are_not_forgotten() {
    let directory = tempfile::tempdir().unwrap();
    let front = UnixListener::bind(directory.path().join("front")).unwrap();
    let (back, target) = listen();
    let relay = relay(&[&front], &[&target.to_string()]);
    let client = UnixStream::connect(directory.path().join("front")).unwrap();
    behind_a_mark(&relay, client, accept(&back), |client| {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut descriptors = SendAncillaryBuffer::new(&mut space);
        let passed = [back.as_fd()];
        assert!(descriptors.push(SendAncillaryMessage::ScmRights(&passed)));
        let words = [IoSlice::new(b"abc")];
        assert_eq!(sendmsg(&*client, &words, &mut descriptors, SendFlags::empty()), Ok(3));
        client.write_all(b"def").unwrap();
    });
}
