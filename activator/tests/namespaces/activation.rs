//! Sockets wake services, over every kind of socket, again and again.

use crate::Test;
use crate::bench::{self, Bench, ask_tcp, ask_udp, ask_unix, split};
use crate::build::{Units, listener, service, socket, tcp, udp, unix};
use activator::manifest::{Address, Input, ListenKind, Output, Scope, UnitKind};
use std::net::{Shutdown, TcpStream};
use std::os::unix::net::UnixDatagram;

pub(crate) const TESTS: &[Test] = &[
    ("activation::a_client_that_came_while_the_service_died_is_served_by_the_next", dying),
    ("activation::a_connection_that_the_service_left_in_the_backlog_is_served_by_the_next", left),
    ("activation::every_kind_of_socket_wakes_its_service", kinds),
    ("activation::fds_names_and_flags_are_exact", exact),
    ("activation::a_hundred_activations_in_a_row_with_no_client_lost", hundred),
    ("activation::a_socket_on_stdin_is_not_in_listen_fds", inetd),
    ("activation::non_blocking_sockets_are_handed_over_so", non_blocking),
    ("activation::a_listener_that_the_service_shut_down_is_opened_anew", shut_down),
    ("activation::so_is_one_that_was_shut_down_for_reading", shut_reading),
];

fn dying(bench: &mut Bench) {
    let units = Units::default()
        .service("a.service", service(bench.path(), &["die-slowly"]))
        .socket("a.socket", "a.service", socket("a", vec![tcp(3000), udp(3000)]));
    bench.start(&units.build());
    let (first, text) = split_owned(&ask_tcp("127.0.0.1:3000", "one"));
    assert_eq!(text, "one");
    bench.wait_report("dying");
    // It accepts no more, but lives: this client is in the backlog.
    let second = TcpStream::connect("127.0.0.1:3000").unwrap();
    let late = std::thread::spawn(|| ask_udp("127.0.0.1:0", "127.0.0.1:3000", "packet"));
    assert_eq!(bench::service(&bench.status(), "a.service").main_pid, Some(first));
    bench.go();
    second.set_read_timeout(Some(bench::PATIENCE)).unwrap();
    let answer = bench::ask(&second, || second.shutdown(Shutdown::Write).unwrap(), "two");
    let (pid, text) = split(&answer);
    assert_eq!(text, "two");
    assert_ne!(pid, first);
    // And the packet by the one after that, or by the same.
    assert_eq!(split(&late.join().unwrap()).1, "packet");
    bench.wait("it is down", |status| bench::service(status, "a.service").state == "dead");
    bench.stop();
}

fn left(bench: &mut Bench) {
    let mut spec = service(bench.path(), &["serve", "1"]);
    spec.start_limit.burst = 0;
    let units = Units::default().service("a.service", spec).socket(
        "a.socket",
        "a.service",
        socket("a", vec![tcp(3000)]),
    );
    bench.start(&units.build());
    // All are in the backlog before any is served: each instance serves one and ends.
    let clients: Vec<TcpStream> =
        (0..10).map(|_| TcpStream::connect("127.0.0.1:3000").unwrap()).collect();
    let mut pids = vec![];
    for client in clients {
        client.set_read_timeout(Some(bench::PATIENCE)).unwrap();
        let answer = bench::ask(&client, || client.shutdown(Shutdown::Write).unwrap(), "x");
        pids.push(split(&answer).0);
    }
    pids.sort_unstable();
    pids.dedup();
    assert_eq!(pids.len(), 10);
    bench.stop();
}

fn kinds(bench: &mut Bench) {
    let path = |name: &str| bench.path().join(name).to_str().unwrap().to_owned();
    let six = Address::Inet6([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1], 3000, Scope::None);
    use ListenKind::{Datagram, Fifo, SequentialPacket, Stream};
    let all = vec![
        tcp(3000),
        udp(3000),
        listener(Stream, six.clone()),
        listener(Datagram, six),
        listener(Stream, Address::Path(path("deep/down/stream"))),
        listener(Datagram, Address::Path(path("datagram"))),
        listener(SequentialPacket, Address::Path(path("packet"))),
        listener(Stream, Address::Abstract("rouse-test".into())),
        listener(Fifo, Address::Path(path("fifo"))),
        listener(Stream, Address::AnyPort(3001)),
    ];
    let mut spec = socket("all", all);
    spec.mode = 0o640;
    spec.poll_limit.burst = 0;
    spec.trigger_limit.burst = 0;
    let mut serve = service(bench.path(), &["serve", "1"]);
    serve.start_limit.burst = 0;
    let units = Units::default().service("a.service", serve).socket("a.socket", "a.service", spec);
    bench.start(&units.build());

    assert_eq!(split(&ask_tcp("127.0.0.1:3000", "tcp")).1, "tcp");
    assert_eq!(split(&ask_tcp("[::1]:3000", "tcp6")).1, "tcp6");
    assert_eq!(split(&ask_tcp("127.0.0.1:3001", "any")).1, "any");
    assert_eq!(split(&ask_tcp("[::1]:3001", "any6")).1, "any6");
    assert_eq!(split(&ask_udp("127.0.0.1:0", "127.0.0.1:3000", "udp")).1, "udp");
    assert_eq!(split(&ask_udp("[::1]:0", "[::1]:3000", "udp6")).1, "udp6");
    let stream = bench.path().join("deep/down/stream");
    assert_eq!(split(&ask_unix(&stream, "unix")).1, "unix");
    let mode = std::fs::metadata(&stream).unwrap();
    assert_eq!(std::os::unix::fs::PermissionsExt::mode(&mode.permissions()) & 0o777, 0o640);

    let datagram = UnixDatagram::bind(bench.path().join("client")).unwrap();
    datagram.set_read_timeout(Some(bench::PATIENCE)).unwrap();
    datagram.send_to(b"packet", bench.path().join("datagram")).unwrap();
    let mut buffer = [0; 100];
    let length = datagram.recv(&mut buffer).unwrap();
    assert_eq!(split(std::str::from_utf8(&buffer[..length]).unwrap()).1, "packet");

    use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketType};
    for (kind, address) in [
        (SocketType::SEQPACKET, SocketAddrUnix::new(bench.path().join("packet")).unwrap()),
        (SocketType::STREAM, SocketAddrUnix::new_abstract_name(b"rouse-test").unwrap()),
    ] {
        let client = rustix::net::socket(AddressFamily::UNIX, kind, None).unwrap();
        rustix::net::connect(&client, &address).unwrap();
        rustix::net::send(&client, b"there", SendFlags::empty()).unwrap();
        let (length, _) = rustix::net::recv(&client, &mut buffer[..], RecvFlags::empty()).unwrap();
        assert_eq!(split(std::str::from_utf8(&buffer[..length]).unwrap()).1, "there");
    }

    std::fs::write(bench.path().join("fifo"), "through").unwrap();
    bench.wait_report("fifo through");
    bench.stop();
    // Nodes stay without RemoveOnStop=, as in systemd.
    assert!(stream.exists());
}

fn exact(bench: &mut Bench) {
    let mut second = socket("named", vec![udp(3001), unix(bench.path(), "u")]);
    second.remove_on_stop = true;
    second.symlinks = vec![bench.path().join("link").to_str().unwrap().to_owned()];
    let units = Units::default()
        .service("x.service", service(bench.path(), &["serve", "0"]))
        // By name b comes before c, whatever the order here.
        .socket("c.socket", "x.service", second)
        .socket("b.socket", "x.service", socket("b.socket", vec![tcp(3000), tcp(3001)]));
    bench.start(&units.build());
    let (pid, _) = split_owned(&ask_unix(&bench.path().join("link"), "hello"));
    let fds = "fds own=true count=4 names=b.socket:b.socket:named:named \
               kinds=stream,stream,datagram,stream stray=0";
    assert_eq!(bench.report(), [fds]);
    // It is up: all others are answered by the same process, and no second one is started.
    assert_eq!(split(&ask_tcp("127.0.0.1:3000", "x")).0, pid);
    assert_eq!(split(&ask_tcp("127.0.0.1:3001", "x")).0, pid);
    let status = bench.status();
    assert_eq!(bench::service(&status, "x.service").starts, 1);
    assert_eq!(bench::service(&status, "x.service").main_pid, Some(pid));
    assert_eq!(bench::socket(&status, "b.socket").state, "running");
    assert_eq!(bench::socket(&status, "c.socket").state, "running");
    bench.stop();
    assert!(!bench.path().join("u").exists());
    assert!(!bench.path().join("link").is_symlink());
}

fn hundred(bench: &mut Bench) {
    let mut spec = service(bench.path(), &["serve", "1"]);
    spec.start_limit.burst = 0;
    let mut listen = socket("a", vec![unix(bench.path(), "s")]);
    listen.poll_limit.burst = 0;
    listen.trigger_limit.burst = 0;
    let units = Units::default().service("a.service", spec).socket("a.socket", "a.service", listen);
    bench.start(&units.build());
    let path = bench.path().join("s");
    // Four clients at a time, so that there is always one that comes while an instance dies.
    let clients: Vec<_> = (0..4)
        .map(|_| {
            let path = path.clone();
            std::thread::spawn(move || {
                (0..25).filter(|_| split(&ask_unix(&path, "x")).1 == "x").count()
            })
        })
        .collect();
    let served: usize = clients.into_iter().map(|client| client.join().unwrap()).sum();
    assert_eq!(served, 100);
    bench.wait("it is down", |status| bench::service(status, "a.service").state == "dead");
    assert_eq!(bench::service(&bench.status(), "a.service").starts, 100);
    bench.stop();
}

fn inetd(bench: &mut Bench) {
    let mut spec = service(bench.path(), &["inetd"]);
    spec.execution.stdin = Input::Socket;
    spec.execution.stdout = Output::Null;
    let units = Units::default().service("a.service", spec).socket(
        "a.socket",
        "a.service",
        socket("a", vec![tcp(3000)]),
    );
    bench.start(&units.build());
    assert_eq!(ask_tcp("127.0.0.1:3000", ""), "stdin listens, LISTEN_FDS is Err(NotPresent)");
    bench.stop();
}

fn non_blocking(bench: &mut Bench) {
    let mut spec = service(bench.path(), &["serve", "0"]);
    spec.non_blocking = true;
    let units = Units::default().service("a.service", spec).socket(
        "a.socket",
        "a.service",
        socket("a", vec![tcp(3000)]),
    );
    bench.start(&units.build());
    ask_tcp("127.0.0.1:3000", "x");
    assert_eq!(bench.report(), ["fds own=true count=1 names=a kinds=stream+nonblock stray=0"]);
    bench.stop();
}

fn shut_down(bench: &mut Bench) {
    shut(bench, "both");
}

fn shut_reading(bench: &mut Bench) {
    shut(bench, "reading");
}

fn shut(bench: &mut Bench, side: &str) {
    let mut units = Units::default()
        .service("a.service", service(bench.path(), &["shut-down", side]))
        .service("b.service", service(bench.path(), &["serve", "0"]))
        .socket("a.socket", "a.service", socket("a", vec![tcp(3000), unix(bench.path(), "u")]))
        .build();
    for unit in &mut units.units {
        if let UnitKind::Socket(socket) = &mut unit.kind {
            socket.trigger_limit.burst = 0;
        }
    }
    bench.start(&units);
    let _first = TcpStream::connect("127.0.0.1:3000").unwrap();
    bench.wait_report("shut");
    // Both listeners are dead, and both are opened again.
    bench.wait("it listens again", |status| {
        bench::socket(status, "a.socket").state == "listening"
            && bench::socket(status, "a.socket").refused == 0
            && bench::service(status, "a.service").state == "dead"
    });
    // "Listening" is also what it is for the moment until epoll has told that they are dead.
    bench::until("one is open", || TcpStream::connect("127.0.0.1:3000").is_ok());
    // Each client has them shut down again, so it may take several.
    let path = bench.path().join("u");
    bench::until("both are open", || std::os::unix::net::UnixStream::connect(&path).is_ok());
    bench.stop();
}

fn split_owned(answer: &str) -> (u32, String) {
    let (pid, text) = split(answer);
    (pid, text.to_owned())
}
