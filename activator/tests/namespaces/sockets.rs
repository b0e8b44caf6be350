//! Socket units: their own commands, and the rarer kinds of listeners.

use crate::Test;
use crate::bench::{self, Bench, ask_tcp, ask_unix, split};
use crate::build::{Units, command, listener, service, socket, tcp, udp, unix};
use activator::control::Request;
use activator::manifest::{Address, Execution, ListenKind, Output, Socket, SocketOption};
use std::ffi::CStr;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;

pub(crate) const TESTS: &[Test] = &[
    ("sockets::their_commands_run_before_and_behind_opening_and_closing", commands),
    ("sockets::a_failing_start_pre_prevents_the_opening", gate),
    ("sockets::a_failing_start_post_closes_what_was_opened", post),
    ("sockets::a_command_that_takes_too_long_is_ended", slow),
    ("sockets::a_stop_does_not_wait_for_a_start", hurry),
    ("sockets::message_queues_wake_their_service_and_are_removed", queue),
    ("sockets::netlink_groups_wake_their_service", netlink),
    ("sockets::special_files_wake_their_service", special),
    ("sockets::a_file_without_poll_fails_its_unit", without_poll),
    ("sockets::a_fifo_that_is_somebody_elses_is_not_taken", fifo),
    ("sockets::what_waits_is_dropped_where_it_is_to_be_flushed", flush),
    ("sockets::links_replace_only_what_would_be_removed_anyway", links),
    ("sockets::one_port_twice_is_two_fds", twice),
    ("sockets::protocols_are_those_that_were_asked_for", protocols),
];

/// A socket unit on `u` whose commands report as the service's do.
fn with_commands(bench: &Bench) -> Socket {
    let Execution { environment, .. } = service(bench.path(), &[]).execution;
    let null = || Output::Null;
    let mut spec = socket("named", vec![unix(bench.path(), "u")]);
    spec.execution =
        Execution { environment, stdout: null(), stderr: null(), ..Execution::default() };
    spec.remove_on_stop = true;
    spec
}

fn units(bench: &Bench, spec: Socket) -> Units {
    Units::default().service("a.service", service(bench.path(), &["serve", "0"])).socket(
        "a.socket",
        "a.service",
        spec,
    )
}

fn commands(bench: &mut Bench) {
    let path = bench.path().join("u").to_str().unwrap().to_owned();
    let look = |name| command(&["look", name, &path]);
    let mut spec = with_commands(bench);
    spec.pass_fds_to_exec = true;
    spec.start_pre = vec![look("pre1"), look("pre2")];
    spec.start_post = vec![look("post")];
    spec.stop_pre = vec![look("stop-pre")];
    spec.stop_post = vec![look("stop-post")];
    bench.start(&units(bench, spec).build());
    bench.wait("it listens", |status| bench::socket(status, "a.socket").state == "listening");
    assert_eq!(split(&ask_unix(&bench.path().join("u"), "x")).1, "x");
    bench.order(Request::Stop("a.service".into())).unwrap();
    bench.order(Request::Stop("a.socket".into())).unwrap();
    let fds = "fds own=true count=1 names=named kinds=stream+nonblock stray=0";
    let served = "fds own=true count=1 names=named kinds=stream stray=0";
    let expected = [
        "pre1 false",
        "pre2 false",
        "post true",
        fds,
        served,
        "stop-pre true",
        // The open file is the service's as well, which has changed the flag.
        fds,
        "stop-post false",
    ];
    bench.wait_report("stop-post");
    assert_eq!(bench.report(), expected);
    bench.stop();
}

fn gate(bench: &mut Bench) {
    let mut spec = with_commands(bench);
    spec.start_pre = vec![command(&["exit", "1"])];
    bench.start(&units(bench, spec).build());
    bench.wait("it failed", |status| bench::socket(status, "a.socket").state == "failed");
    assert!(!bench.path().join("u").exists());
    assert!(bench.order(Request::Start("a.socket".into())).is_err());
    bench.stop();
    assert_eq!(bench.report(), ["exit", "exit"]);
}

fn post(bench: &mut Bench) {
    let mut spec = with_commands(bench);
    let mut ignored = command(&["exit", "1"]);
    ignored.ignore_failure = true;
    spec.start_pre = vec![ignored];
    spec.start_post = vec![command(&["exit", "2"])];
    bench.start(&units(bench, spec).build());
    bench.wait("it failed", |status| bench::socket(status, "a.socket").state == "failed");
    assert!(!bench.path().join("u").exists());
    bench.stop();
}

fn slow(bench: &mut Bench) {
    let mut spec = with_commands(bench);
    spec.start_pre = vec![command(&["ignore-term"])];
    spec.timeout_us = 200_000;
    bench.start(&units(bench, spec).build());
    bench.wait_report("deaf");
    bench.wait("it failed", |status| bench::socket(status, "a.socket").state == "failed");
    bench.stop();
}

fn hurry(bench: &mut Bench) {
    let mut spec = with_commands(bench);
    spec.start_post = vec![command(&["sleep"])];
    bench.start(&units(bench, spec).build());
    bench.wait("it starts", |status| bench::socket(status, "a.socket").state == "starting");
    bench.order(Request::Stop("a.socket".into())).unwrap();
    assert!(UnixStream::connect(bench.path().join("u")).is_err());
    bench.order(Request::Start("a.service".into())).unwrap();
    bench.stop();
}

/// A service that tells what it was given, and ends.
fn telling(bench: &Bench, spec: Socket) -> Units {
    Units::default().service("a.service", service(bench.path(), &["look", "given", "/"])).socket(
        "a.socket",
        "a.service",
        spec,
    )
}

const GIVEN: &str = "fds own=true count=1 names=x kinds=";

#[allow(unsafe_code)]
fn open_queue(name: &CStr) -> Option<libc::mqd_t> {
    // SAFETY: a C string and flags.
    let queue = unsafe { libc::mq_open(name.as_ptr(), libc::O_RDWR | libc::O_NONBLOCK) };
    (queue >= 0).then_some(queue)
}

#[allow(unsafe_code)]
fn send(queue: libc::mqd_t, text: &[u8]) {
    // SAFETY: pointer and length of a live slice.
    let sent = unsafe { libc::mq_send(queue, text.as_ptr().cast(), text.len(), 0) };
    assert_eq!(sent, 0, "{}", std::io::Error::last_os_error());
}

/// Attributes, and how many messages wait.
#[allow(unsafe_code)]
fn attributes(queue: libc::mqd_t) -> (i64, i64, i64) {
    // SAFETY: all zeroes is a valid mq_attr, and the call writes to a live one.
    unsafe {
        let mut attributes: libc::mq_attr = std::mem::zeroed();
        assert_eq!(libc::mq_getattr(queue, &mut attributes), 0);
        (attributes.mq_maxmsg as _, attributes.mq_msgsize as _, attributes.mq_curmsgs as _)
    }
}

fn queue(bench: &mut Bench) {
    let address = Address::Queue("/rouse-test".into());
    let mut spec = socket("x", vec![listener(ListenKind::MessageQueue, address)]);
    spec.message_queue = Some((5, 100));
    spec.mode = 0o600;
    spec.remove_on_stop = true;
    bench.start(&telling(bench, spec).build());
    bench.wait("it listens", |status| bench::socket(status, "a.socket").state == "listening");
    let queue = open_queue(c"/rouse-test").unwrap();
    assert_eq!(attributes(queue), (5, 100, 0));
    send(queue, b"hello");
    bench.wait_report(&format!("{GIVEN}fifo"));
    bench.order(Request::Stop("a.socket".into())).unwrap();
    assert_eq!(open_queue(c"/rouse-test"), None);
    bench.stop();
}

fn netlink(bench: &mut Bench) {
    // rtnetlink(7): RTMGRP_IPV4_IFADDR.
    let groups = listener(ListenKind::Netlink, Address::Netlink(libc::NETLINK_ROUTE, 0x10));
    let mut spec = socket("x", vec![groups]);
    spec.options = vec![SocketOption::PassPacketInfo];
    bench.start(&telling(bench, spec).build());
    bench.wait("it listens", |status| bench::socket(status, "a.socket").state == "listening");
    bench::add_address([10, 11, 12, 1]);
    bench.wait_report(&format!("{GIVEN}other"));
    bench.stop();
}

fn special(bench: &mut Bench) {
    // Always readable.
    let address = Address::Path("/proc/1/mounts".into());
    let mut spec = socket("x", vec![listener(ListenKind::Special, address)]);
    spec.remove_on_stop = true;
    bench.start(&telling(bench, spec).build());
    bench.wait_report(&format!("{GIVEN}fifo"));
    bench.order(Request::Stop("a.socket".into())).unwrap();
    assert!(std::fs::exists("/proc/1/mounts").unwrap());
    bench.stop();
}

/// The kernel tells of no events on it, unlike on `mounts` beside it.
fn without_poll(bench: &mut Bench) {
    let address = Address::Path("/proc/1/status".into());
    let spec = socket("x", vec![listener(ListenKind::Special, address)]);
    bench.start(&telling(bench, spec).build());
    bench.wait("it has failed", |status| bench::socket(status, "a.socket").state == "failed");
    let why = "a.socket: cannot watch";
    bench::until(why, || bench.log().contains(why));
    assert!(bench.log().contains("Operation not permitted"), "{}", bench.log());
    let failed = bench.order(Request::Start("a.socket".into())).unwrap_err();
    assert!(failed.to_string().contains("failed"), "{failed}");
    bench.stop();
}

#[allow(unsafe_code)]
fn make_fifo(path: &std::path::Path, mode: u32) {
    let name = std::ffi::CString::new(path.to_str().unwrap()).unwrap();
    // SAFETY: a C string and a mode.
    assert_eq!(unsafe { libc::mkfifo(name.as_ptr(), 0o600) }, 0);
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

fn fifo(bench: &mut Bench) {
    let path = bench.path().join("fifo");
    make_fifo(&path, 0o644);
    let address = Address::Path(path.to_str().unwrap().into());
    let mut spec = socket("x", vec![listener(ListenKind::Fifo, address)]);
    spec.mode = 0o620;
    spec.pipe_size = 8192;
    bench.start(&telling(bench, spec).build());
    bench.wait("it tries", |status| bench::socket(status, "a.socket").state == "retrying");
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o644);
    std::fs::remove_file(&path).unwrap();
    bench.wait("it listens", |status| bench::socket(status, "a.socket").state == "listening");
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o620);
    let file = std::fs::File::options().read(true).write(true).open(&path).unwrap();
    assert_eq!(rustix::pipe::fcntl_getpipe_size(&file).unwrap(), 8192);
    bench.stop();
}

fn flush(bench: &mut Bench) {
    let path = bench.path().join("fifo");
    make_fifo(&path, 0o666);
    let mut held = std::fs::File::options().read(true).write(true).open(&path).unwrap();
    std::io::Write::write_all(&mut held, b"old").unwrap();
    // A queue of the same mode and owner, with a message in it.
    #[allow(unsafe_code)]
    // SAFETY: a C string, flags, a mode and no attributes.
    let queue = unsafe {
        let before = libc::umask(0);
        let flags = libc::O_RDWR | libc::O_CREAT;
        let nothing = std::ptr::null_mut::<libc::mq_attr>();
        let queue = libc::mq_open(c"/rouse-flush".as_ptr(), flags, 0o666, nothing);
        libc::umask(before);
        queue
    };
    send(queue, b"old");
    let fifo = listener(ListenKind::Fifo, Address::Path(path.to_str().unwrap().into()));
    let address = Address::Queue("/rouse-flush".into());
    let mut spec = socket("x", vec![fifo, listener(ListenKind::MessageQueue, address)]);
    spec.flush_pending = true;
    spec.remove_on_stop = true;
    bench.start(&telling(bench, spec).build());
    bench.wait("it listens", |status| bench::socket(status, "a.socket").state == "listening");
    assert_eq!(attributes(queue).2, 0);
    assert_eq!(bench::socket(&bench.status(), "a.socket").triggered, 0);
    send(queue, b"new");
    bench.wait_report("given");
    bench.stop();
}

fn links(bench: &mut Bench) {
    let path = |name: &str| bench.path().join(name).to_str().unwrap().to_owned();
    for name in ["kept", "replaced"] {
        std::fs::write(bench.path().join(name), "").unwrap();
    }
    let with_link = |name: &str, link: &str| {
        let mut spec = socket("x", vec![unix(bench.path(), name)]);
        spec.symlinks = vec![path(link)];
        spec.remove_on_stop = link == "replaced";
        spec
    };
    let units = Units::default()
        .service("a.service", service(bench.path(), &["serve", "0"]))
        .socket("a.socket", "a.service", with_link("u", "kept"))
        .socket("b.socket", "a.service", with_link("v", "replaced"));
    bench.start(&units.build());
    assert_eq!(split(&ask_unix(&bench.path().join("replaced"), "x")).1, "x");
    assert!(bench.path().join("kept").is_file());
    bench.stop();
    assert!(!bench.path().join("replaced").exists());
}

fn twice(bench: &mut Bench) {
    let mut spec = socket("x", vec![tcp(3000), tcp(3000)]);
    spec.options = vec![SocketOption::ReusePort];
    let units = Units::default()
        .service("a.service", service(bench.path(), &["serve", "0"]))
        .socket("a.socket", "a.service", spec);
    bench.start(&units.build());
    for _ in 0..8 {
        assert_eq!(split(&ask_tcp("127.0.0.1:3000", "x")).1, "x");
    }
    bench.wait_report("count=2 names=x:x kinds=stream,stream");
    bench.stop();
}

fn protocols(bench: &mut Bench) {
    use rustix::net::{self, AddressFamily, Protocol, SocketType, ipproto};
    let lite = Protocol::from_raw(std::num::NonZeroU32::new(libc::IPPROTO_UDPLITE as u32).unwrap());
    let make = |kind, protocol| net::socket(AddressFamily::INET, kind, Some(protocol));
    let datagram = make(SocketType::DGRAM, lite);
    let stream = make(SocketType::STREAM, ipproto::MPTCP);
    let asking = |protocol, listeners| {
        let mut spec = socket("x", listeners);
        spec.protocol = protocol;
        spec
    };
    let mut units = Units::default().service("a.service", service(bench.path(), &["serve", "0"]));
    if datagram.is_ok() {
        // Of the two, the protocol is for the datagrams only.
        let spec = asking(libc::IPPROTO_UDPLITE, vec![udp(3000), tcp(3000)]);
        units = units.socket("a.socket", "a.service", spec);
    }
    if stream.is_ok() {
        let spec = asking(libc::IPPROTO_MPTCP, vec![tcp(3001)]);
        units = units.socket("b.socket", "a.service", spec);
    }
    bench.start(&units.build());
    match datagram {
        Ok(client) => {
            let client = std::net::UdpSocket::from(client);
            client.set_read_timeout(Some(bench::PATIENCE)).unwrap();
            client.send_to(b"lite", "127.0.0.1:3000").unwrap();
            let mut buffer = [0; 100];
            let length = client.recv(&mut buffer).unwrap();
            assert_eq!(split(std::str::from_utf8(&buffer[..length]).unwrap()).1, "lite");
            assert_eq!(split(&ask_tcp("127.0.0.1:3000", "x")).1, "x");
        }
        Err(error) => println!("SKIPPED: UDP-Lite: {error}"),
    }
    match stream {
        Ok(_) => assert_eq!(split(&ask_tcp("127.0.0.1:3001", "x")).1, "x"),
        Err(error) => println!("SKIPPED: MPTCP: {error}"),
    }
    bench.stop();
}
