//! `Accept=yes`: an instance for each connection.

use crate::Test;
use crate::bench::{self, Bench, PATIENCE, ask_tcp, split, until};
use crate::build::{Units, accepting, listener, service, socket, tcp, unix};
use activator::control::Request;
use activator::manifest::{
    Accept, Address, Input, ListenKind, Output, RateLimit, Scope, Service, ServiceKind, Socket,
    SocketOption,
};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, SocketAddrV4, TcpStream};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

pub(crate) const TESTS: &[Test] = &[
    ("accept::each_connection_gets_an_instance_and_its_environment", environment),
    ("accept::vsock_peers_are_named_as_systemd_names_them", vsock),
    ("accept::one_connection_too_many_is_closed_at_once", too_many),
    ("accept::one_too_many_of_one_address_is_closed_and_of_others_is_not", per_address),
    ("accept::one_too_many_of_one_user_is_closed_and_of_others_is_not", per_user),
    ("accept::a_failed_instance_frees_its_slot_systemd_20685", failed),
    ("accept::a_template_that_cannot_be_executed_frees_its_slot", broken),
    ("accept::a_connection_is_stdin_and_stdout_as_inetd_hands_it_over", inetd),
    ("accept::the_stop_of_the_socket_leaves_instances_and_that_of_the_template_does_not", stops),
    ("accept::instances_end_with_the_activator", shutdown),
    ("accept::a_limit_that_was_hit_pauses_and_recovers_systemd_15633", limit),
    ("accept::want_of_fds_is_waited_out_and_no_connection_lost_systemd_11553", no_fds),
    ("accept::a_flooded_listener_starves_no_other", flood),
    ("accept::instances_say_that_they_are_ready_each_for_itself", notify),
    ("accept::each_instance_has_a_cgroup_below_its_template", cgroups),
    ("accept::a_thousand_connections_in_a_row_are_all_answered", thousand),
];

/// A template and its socket.
fn units(template: Service, socket: Socket) -> Units {
    Units::default().service("a@.service", template).socket("a.socket", "a@.service", socket)
}

fn echo(bench: &Bench) -> Service {
    service(bench.path(), &["connection"])
}

/// A client that stays until it is dropped.
fn connect(address: impl Into<SocketAddr>) -> TcpStream {
    let stream = TcpStream::connect(address.into()).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

const PORT: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 3000);

/// Sends one word; the answer, or None if the connection was closed instead.
fn say(mut stream: impl Read + Write, word: &str) -> Option<(u32, String)> {
    stream.write_all(word.as_bytes()).ok()?;
    let mut answer = [0; 100];
    match stream.read(&mut answer) {
        Ok(length @ 1..) => {
            let (pid, text) = split(std::str::from_utf8(&answer[..length]).unwrap());
            Some((pid, text.to_owned()))
        }
        _ => None,
    }
}

fn connections(bench: &Bench, count: u32) {
    bench.wait("so many are connected", |status| {
        bench::socket(status, "a.socket").connections == count
    });
}

fn environment(bench: &mut Bench) {
    let one = Address::Inet6([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1], 3000, Scope::None);
    let six = listener(ListenKind::Stream, one);
    let any = listener(ListenKind::Stream, Address::AnyPort(3001));
    let mut spec = accepting(vec![tcp(3000), six, any, unix(bench.path(), "u")], [64, 0]);
    spec.fd_name = "varlink".into();
    spec.options = vec![SocketOption::KeepAlive, SocketOption::NoDelay];
    bench.start(&units(echo(bench), spec).build());

    let mut clients = vec![];
    let mut pids = vec![];
    for (number, address) in ["127.0.0.1:3000", "[::1]:3000", "127.0.0.1:3001"].iter().enumerate() {
        let client = connect(address.parse::<SocketAddr>().unwrap());
        let (pid, text) = say(&client, "hello").unwrap();
        assert_eq!(text, "hello");
        pids.push(pid);
        let own = client.local_addr().unwrap();
        let (ip, port) = (own.ip().to_canonical(), own.port());
        let at = address.rsplit(':').next().unwrap();
        bench.wait_report(&format!("from {ip} {port} none cookie=true"));
        let name = format!("a@{number}-{ip}:{at}-{ip}:{port}.service");
        let status = bench.wait("it is listed", |status| status.instances.len() == number + 1);
        let instance = status.instances.iter().find(|it| it.name == name);
        let instance = instance.unwrap_or_else(|| panic!("{name}: {status:#?}"));
        assert_eq!((instance.main_pid, instance.socket.as_str()), (Some(pid), "a.socket"));
        clients.push(client);
    }
    pids.dedup();
    assert_eq!(pids.len(), 3);

    let path = bench.path().join("u");
    let nameless = UnixStream::connect(&path).unwrap();
    assert_eq!(say(&nameless, "x").unwrap().1, "x");
    bench.wait_report("from none none none cookie=true");
    let own = std::process::id();
    let status = bench.status();
    let unix = status.instances.iter().any(|it| it.name == format!("a@3-{own}-0.service"));
    assert!(unix, "{status:#?}");

    use rustix::net::{self, AddressFamily, SocketAddrUnix, SocketType};
    let named = net::socket(AddressFamily::UNIX, SocketType::STREAM, None).unwrap();
    net::bind(&named, &SocketAddrUnix::new_abstract_name(b"client").unwrap()).unwrap();
    net::connect(&named, &SocketAddrUnix::new(&path).unwrap()).unwrap();
    assert_eq!(say(UnixStream::from(named), "x").unwrap().1, "x");
    bench.wait_report("from @client none none");

    // One fd, blocking, and nothing else.
    let fds = "fds own=true count=1 names=varlink kinds=stream stray=0";
    let report = bench.report();
    assert!(report.iter().filter(|line| line.starts_with("fds")).all(|it| it == fds), "{report:?}");
    drop((clients, nameless));
    connections(bench, 0);
    let status = bench.status();
    let socket = bench::socket(&status, "a.socket");
    assert_eq!((socket.accepted, socket.refused, socket.state.as_str()), (5, 0, "listening"));
    assert_eq!(status.instances, []);
    bench.stop();
}

fn vsock(bench: &mut Bench) {
    use rustix::net::{AddressFamily, SocketType, socket};
    let any = listener(ListenKind::Stream, Address::Vsock(u32::MAX, 3000));
    if socket(AddressFamily::VSOCK, SocketType::STREAM, None).is_err() {
        println!("SKIPPED: this kernel has no vsock");
        return;
    }
    let mut spec = accepting(vec![any], [2, 1]);
    spec.allow_cids = vec![1];
    bench.start(&units(echo(bench), spec).build());
    let Some(client) = bench::connect_vsock(1, 3000) else {
        println!("SKIPPED: this kernel has no vsock loopback");
        return bench.stop();
    };
    assert_eq!(say(UnixStream::from(client), "x").unwrap().1, "x");
    bench.wait_report("from vsock:1 ");
    bench.stop();
}

fn too_many(bench: &mut Bench) {
    bench.start(&units(echo(bench), accepting(vec![tcp(3000)], [2, 0])).build());
    let first = connect(PORT);
    let second = connect(PORT);
    assert!(say(&first, "1").is_some() && say(&second, "2").is_some());
    assert_eq!(say(connect(PORT), "3"), None);
    let status = bench.wait("it is counted", |it| bench::socket(it, "a.socket").refused == 1);
    let socket = bench::socket(&status, "a.socket");
    assert_eq!((socket.accepted, socket.connections), (2, 2));
    drop(first);
    connections(bench, 1);
    assert_eq!(say(connect(PORT), "4").unwrap().1, "4");
    assert_eq!(say(&second, "5").unwrap().1, "5");
    bench.stop();
}

fn per_address(bench: &mut Bench) {
    bench.start(&units(echo(bench), accepting(vec![tcp(3000)], [64, 2])).build());
    let from = |last| {
        use rustix::net::{self, AddressFamily, SocketType};
        let fd = net::socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
        net::bind(&fd, &SocketAddrV4::new(Ipv4Addr::new(127, 0, 0, last), 0)).unwrap();
        net::connect(&fd, &PORT).unwrap();
        TcpStream::from(fd)
    };
    let good = [from(2), from(3), from(2), from(3)];
    assert!(good.iter().all(|client| say(client, "x").is_some()));
    assert_eq!(say(from(2), "x"), None);
    assert_eq!(say(from(3), "x"), None);
    assert!(say(from(4), "x").is_some());
    drop(good);
    connections(bench, 0);
    assert!(say(from(2), "x").is_some());
    assert_eq!(bench::socket(&bench.status(), "a.socket").refused, 2);
    bench.stop();
}

fn per_user(bench: &mut Bench) {
    if bench::is_mapped_alone() {
        println!("SKIPPED: there are no other users in this user namespace");
        return;
    }
    bench.open_to_all();
    bench.start(&units(echo(bench), accepting(vec![unix(bench.path(), "u")], [64, 1])).build());
    let path = bench.path().join("u").to_str().unwrap().to_owned();
    let client = |uid: u32| -> (Child, String) {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["helper", "connect", &path]).uid(uid).gid(uid);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = [0; 6];
        child.stdout.as_mut().unwrap().read_exact(&mut line).unwrap();
        (child, String::from_utf8(line.to_vec()).unwrap())
    };
    let clients = [client(1000), client(1001), client(1000), client(1001)];
    let got = clients.each_ref().map(|(_, got)| got.as_str());
    assert_eq!(got, ["served", "served", "closed", "closed"]);
    for (mut child, _) in clients {
        drop(child.stdin.take());
        child.wait().unwrap();
    }
    connections(bench, 0);
    let (mut again, got) = client(1000);
    assert_eq!(got, "served");
    drop(again.stdin.take());
    again.wait().unwrap();
    bench.stop();
}

fn failed(bench: &mut Bench) {
    let spec = service(bench.path(), &["exit", "7"]);
    bench.start(&units(spec, accepting(vec![tcp(3000)], [1, 1])).build());
    for count in 1..=20 {
        assert_eq!(say(connect(PORT), "x"), None);
        bench.wait("the slot is free", |status| {
            let socket = bench::socket(status, "a.socket");
            socket.accepted == count && socket.connections == 0
        });
    }
    assert_eq!(bench::socket(&bench.status(), "a.socket").refused, 0);
    bench.stop();
}

fn broken(bench: &mut Bench) {
    let mut spec = echo(bench);
    spec.start[0].program = "/nonexistent".into();
    bench.start(&units(spec, accepting(vec![tcp(3000)], [1, 0])).build());
    for count in 1..=3 {
        assert_eq!(say(connect(PORT), "x"), None);
        bench.wait("the slot is free", |status| {
            let socket = bench::socket(status, "a.socket");
            socket.accepted == count && socket.connections == 0
        });
    }
    bench.stop();
}

fn inetd(bench: &mut Bench) {
    let mut spec = service(bench.path(), &["stdin"]);
    spec.execution.stdin = Input::Socket;
    spec.execution.stdout = Output::Inherit;
    bench.start(&units(spec, accepting(vec![tcp(3000)], [64, 0])).build());
    for text in ["one", "two"] {
        let answer = ask_tcp("127.0.0.1:3000", text);
        assert_eq!(answer, format!("{text}, LISTEN_FDS is Err(NotPresent)\n"));
    }
    bench.stop();
}

fn stops(bench: &mut Bench) {
    let all = units(echo(bench), accepting(vec![tcp(3000)], [64, 0]))
        .service("b@.service", echo(bench))
        .socket("b.socket", "b@.service", accepting(vec![tcp(3001)], [64, 0]));
    bench.start(&all.build());
    let clients = [connect(PORT), connect(PORT)];
    assert!(clients.iter().all(|client| say(client, "x").is_some()));
    let other = connect(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 3001));
    assert!(say(&other, "x").is_some());
    bench.order(Request::Stop("a.socket".into())).unwrap();
    assert!(TcpStream::connect("127.0.0.1:3000").is_err());
    assert!(clients.iter().all(|client| say(client, "y").is_some()));
    bench.order(Request::Start("a.socket".into())).unwrap();
    assert!(say(connect(PORT), "z").is_some());
    bench.order(Request::Stop("a@.service".into())).unwrap();
    assert!(clients.iter().all(|client| say(client, "gone").is_none()));
    connections(bench, 0);
    // The socket goes on, the other template's instance was left alone.
    assert!(say(connect(PORT), "new").is_some());
    assert!(say(&other, "still").is_some());
    // Nobody starts a template without a connection.
    assert!(bench.order(Request::Start("a@.service".into())).is_err());
    bench.stop();
}

fn shutdown(bench: &mut Bench) {
    bench.start(&units(echo(bench), accepting(vec![tcp(3000)], [64, 0])).build());
    let client = connect(PORT);
    let (pid, _) = say(&client, "x").unwrap();
    bench.stop();
    assert_eq!(say(&client, "y"), None);
    assert!(!std::fs::exists(format!("/proc/{pid}")).unwrap());
}

fn limit(bench: &mut Bench) {
    let mut spec = accepting(vec![tcp(3000)], [64, 0]);
    spec.trigger_limit = RateLimit { interval_us: 300_000, burst: 3 };
    bench.start(&units(echo(bench), spec).build());
    // Many more than the limit takes, all at once: it pauses, and all are answered in the end.
    let clients: Vec<TcpStream> = (0..10).map(|_| connect(PORT)).collect();
    assert!(clients.iter().all(|client| say(client, "x").is_some()));
    let status = bench.status();
    assert!(bench::socket(&status, "a.socket").refused >= 2);
    assert_eq!(bench::socket(&status, "a.socket").accepted, 10);
    bench.stop();
}

fn no_fds(bench: &mut Bench) {
    bench.start(&units(echo(bench), accepting(vec![tcp(3000)], [64, 0])).build());
    assert!(say(connect(PORT), "x").is_some());
    connections(bench, 0);
    // Not one fd more.
    let pid = rustix::process::Pid::from_raw(bench.pid() as i32);
    let open = std::fs::read_dir(format!("/proc/{}/fd", bench.pid())).unwrap().count();
    let limited = |current: u64| {
        let limit = rustix::process::Rlimit { current: Some(current), maximum: Some(4096) };
        rustix::process::prlimit(pid, rustix::process::Resource::Nofile, limit).unwrap()
    };
    limited(open as u64 / 2);
    let clients: Vec<TcpStream> = (0..3).map(|_| connect(PORT)).collect();
    bench.wait("it tries again", |status| bench::socket(status, "a.socket").refused >= 2);
    assert_eq!(bench::socket(&bench.status(), "a.socket").accepted, 1);
    limited(1024);
    assert!(clients.iter().all(|client| say(client, "late").is_some()));
    bench.stop();
}

fn flood(bench: &mut Bench) {
    let mut flooded = accepting(vec![unix(bench.path(), "flooded")], [1, 0]);
    flooded.trigger_limit.burst = 0;
    flooded.poll_limit.burst = 0;
    let all = units(echo(bench), accepting(vec![tcp(3000)], [64, 0]))
        .service("b@.service", service(bench.path(), &["exit", "0"]))
        .socket("b.socket", "b@.service", flooded)
        .service("c.service", service(bench.path(), &["serve", "0"]))
        .socket("c.socket", "c.service", socket("c", vec![tcp(3001)]));
    bench.start(&all.build());
    let over = std::sync::atomic::AtomicBool::new(false);
    let path = bench.path().join("flooded");
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !over.load(std::sync::atomic::Ordering::Relaxed) {
                    // The backlog may be full, which is what is wanted.
                    let _ = UnixStream::connect(&path);
                }
            });
        }
        bench.wait("it is flooded", |status| bench::socket(status, "b.socket").refused > 100);
        for _ in 0..5 {
            assert!(say(connect(PORT), "x").is_some());
            assert_eq!(split(&ask_tcp("127.0.0.1:3001", "y")).1, "y");
        }
        over.store(true, std::sync::atomic::Ordering::Relaxed);
    });
    bench.stop();
}

fn notify(bench: &mut Bench) {
    let mut spec = echo(bench);
    spec.kind = ServiceKind::Notify;
    let socket = Socket {
        accept: Some(Accept { max_connections: 4, max_per_source: 0 }),
        ..accepting(vec![tcp(3000)], [4, 0])
    };
    bench.start(&units(spec, socket).build());
    let clients = [connect(PORT), connect(PORT), connect(PORT)];
    assert!(clients.iter().all(|client| say(client, "x").is_some()));
    bench.wait("all are up", |status| {
        status.instances.len() == 3 && status.instances.iter().all(|it| it.state == "running")
    });
    bench.stop();
}

fn cgroups(bench: &mut Bench) {
    if !bench.has_cgroups() {
        println!("SKIPPED: no cgroup2 for this user");
        return;
    }
    bench.start(&units(echo(bench), accepting(vec![tcp(3000)], [2, 0])).build());
    let mut seen = vec![];
    for _ in 0..3 {
        let clients = [connect(PORT), connect(PORT)];
        for client in &clients {
            let (pid, _) = say(client, "x").unwrap();
            let cgroup = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
            let cgroup = cgroup.lines().find_map(|it| it.strip_prefix("0::")).unwrap().to_owned();
            assert!(cgroup.starts_with("/rouse/a@.service/"), "{cgroup}");
            seen.push(cgroup);
        }
        drop(clients);
        connections(bench, 0);
    }
    seen.sort();
    seen.dedup();
    // One for each slot, used again and again.
    assert_eq!(seen.len(), 2, "{seen:?}");
    bench.stop();
}

fn thousand(bench: &mut Bench) {
    let mut spec = accepting(vec![tcp(3000)], [8, 0]);
    spec.trigger_limit.burst = 0;
    spec.poll_limit.burst = 0;
    bench.start(&units(echo(bench), spec).build());
    for _ in 0..1000 {
        let client = connect(PORT);
        let word = say(&client, "x");
        assert!(word.is_some(), "{:#?}", bench.status());
        client.shutdown(Shutdown::Both).unwrap();
    }
    connections(bench, 0);
    until("all are counted", || bench::socket(&bench.status(), "a.socket").accepted >= 1000);
    bench.stop();
}
