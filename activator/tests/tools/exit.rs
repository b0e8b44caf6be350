//! How the relay comes and goes.

use crate::{
    ACTIVATOR, Process, accept, connect, count, free_address, listen, relay, spawn, until,
};
use rustix::process::Signal;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::AsFd;
use std::os::unix::net::UnixDatagram;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

#[test]
fn it_exits_when_idle_and_not_before() {
    let (front, address) = listen();
    let (back, target) = listen();
    let mut relay = relay(&[&front], &["--exit-idle-time=50ms", &target.to_string()]);
    let mut client = connect(address);
    let mut server = accept(&back);
    // Many times as long as it would wait without a connection.
    thread::sleep(Duration::from_millis(400));
    client.write_all(b"still here").unwrap();
    server.read_exact(&mut [0; 10]).unwrap();
    drop((client, server));
    assert_eq!(relay.wait().code(), Some(0));
}

/// What a service manager does: a relay is started whenever a client waits and none runs.
#[test]
fn clients_that_connect_while_it_exits_are_served_by_the_next() {
    let clients = count("ROUSE_RELAY_CLIENTS", 300);
    let (front, address) = listen();
    let (back, target) = listen();
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let echo = scope.spawn(|| {
            for _ in 0..clients {
                let mut server = accept(&back);
                let mut text = String::new();
                server.read_to_string(&mut text).unwrap();
                server.write_all(text.as_bytes()).unwrap();
            }
        });
        let manager = scope.spawn(|| {
            let mut starts = 0;
            while !done.load(Ordering::SeqCst) {
                let mut polled = [rustix::event::PollFd::new(&front, rustix::event::PollFlags::IN)];
                let wait = rustix::event::Timespec { tv_sec: 0, tv_nsec: 20_000_000 };
                if rustix::event::poll(&mut polled, Some(&wait)).unwrap() == 0 {
                    continue;
                }
                starts += 1;
                let target = target.to_string();
                let status = relay(&[&front], &["--exit-idle-time=3ms", &target]).wait();
                assert_eq!(status.code(), Some(0));
            }
            starts
        });
        for number in 0..clients {
            let mut client = connect(address);
            client.write_all(number.to_string().as_bytes()).unwrap();
            client.shutdown(Shutdown::Write).unwrap();
            let mut text = String::new();
            client.read_to_string(&mut text).unwrap();
            assert_eq!(text, number.to_string());
            // All around the idle time.
            thread::sleep(Duration::from_micros(1000 + number * 7919 % 5000));
        }
        done.store(true, Ordering::SeqCst);
        echo.join().unwrap();
        let starts = manager.join().unwrap();
        println!("{starts} relays for {clients} clients");
        assert!(starts > 3, "it never exits while clients come: {starts}");
    });
}

#[test]
fn it_says_ready_and_alive_and_stopping() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("notify");
    let notify = UnixDatagram::bind(&path).unwrap();
    notify.set_read_timeout(Some(crate::PATIENCE)).unwrap();
    let next = || {
        let mut buffer = [0; 100];
        let length = notify.recv(&mut buffer).unwrap();
        String::from_utf8(buffer[..length].to_vec()).unwrap()
    };
    let (front, _) = listen();
    let mut command = spawn::activator(&[("", front.as_fd())]);
    command.args(["relay", "/nowhere"]).env("NOTIFY_SOCKET", &path).env("WATCHDOG_USEC", "20000");
    let mut relay = Process::start(&mut command);
    assert_eq!(next(), "READY=1");
    assert_eq!(next(), "WATCHDOG=1");
    assert_eq!(next(), "WATCHDOG=1");
    relay.signal(Signal::TERM);
    assert_eq!(relay.wait().code(), Some(0));
    let last = std::iter::repeat_with(next).find(|it| it != "WATCHDOG=1").unwrap();
    assert_eq!(last, "STOPPING=1");
}

/// systemd#11553: no fds left is no end.
#[test]
fn with_few_fds_it_serves_few_at_a_time_and_all_in_the_end() {
    let (back, target) = listen();
    let address = free_address();
    let line = format!(
        "ulimit -n 100; exec {ACTIVATOR} activate -l {address} \
         {ACTIVATOR} relay --connect-timeout=60s {target}"
    );
    let _relay = Process::start(Command::new("sh").args(["-c", &line]));
    let mut clients = vec![];
    until("it listens", || {
        clients.extend(TcpStream::connect(address));
        !clients.is_empty()
    });
    clients.extend((0..40).map(|_| connect(address)));
    for client in &mut clients {
        client.write_all(b"x").unwrap();
        client.shutdown(Shutdown::Write).unwrap();
    }
    for _ in 0..clients.len() {
        let mut server = accept(&back);
        let mut text = String::new();
        server.read_to_string(&mut text).unwrap();
        server.write_all(b"served").unwrap();
    }
    for mut client in clients {
        let mut text = String::new();
        client.read_to_string(&mut text).unwrap();
        assert_eq!(text, "served");
    }
}

#[test]
fn what_cannot_be_is_said_at_once() {
    let run = |command: &mut Command| {
        let output = command.output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let (code, said) = run(Command::new(ACTIVATOR).args(["relay", "/x"]));
    assert_eq!(code, Some(1));
    assert!(said.contains("expected listening sockets by LISTEN_FDS"), "{said}");
    // LISTEN_PID of another process: not ours.
    let (code, _) = run(Command::new(ACTIVATOR)
        .args(["relay", "/x"])
        .env("LISTEN_FDS", "1")
        .env("LISTEN_PID", "1"));
    assert_eq!(code, Some(1));
    let (code, said) = run(Command::new(ACTIVATOR).arg("relay"));
    assert_eq!(code, Some(2));
    assert!(said.contains("expected the address of the backend"), "{said}");
    // A connection is no listener.
    let (front, address) = listen();
    let client = TcpStream::connect(address).unwrap();
    let (code, said) = run(spawn::activator(&[("", client.as_fd())]).args(["relay", "/x"]));
    assert_eq!(code, Some(1));
    assert!(said.contains("fd 3: expected a listening stream socket"), "{said}");
    drop(front);
    let udp = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let (code, said) = run(spawn::activator(&[("", udp.as_fd())]).args(["relay", "vsock:3:5"]));
    assert_eq!(code, Some(1));
    assert!(said.contains("vsock carries no datagrams"), "{said}");
}
