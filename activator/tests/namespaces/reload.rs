//! Reload: another manifest, or another activator, under a running one.

use crate::Test;
use crate::bench::{self, Bench, ask_tcp, ask_udp, ask_unix, signal, split, until};
use crate::build::{Units, accepting, command, listener, service, socket, tcp, udp, unix};
use activator::client::{self, Error};
use activator::control::{Failure, Programs, Request, Unfit, UnitName, Whose};
use activator::manifest::{
    Address, Input, ListenKind, Manifest, NotifyAccess, Output, RateLimit, Service, ServiceKind,
    SocketOption,
};
use rustix::net::{self, AddressFamily, SocketAddrUnix, SocketType};
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

pub(crate) const TESTS: &[Test] = &[
    ("reload::a_client_that_waits_is_served_by_the_new_definition", backlog),
    ("reload::a_running_service_goes_on_and_its_end_is_seen", running),
    ("reload::listeners_come_and_go_and_systemd_21707_the_others_keep_their_fds", difference),
    ("reload::systemd_19843_listeners_of_one_port_are_used_once_each", reuse_port),
    ("reload::what_cannot_be_taken_is_refused_and_nothing_changes", refused),
    ("reload::units_come_start_and_go_in_order", come_and_go),
    ("reload::two_hundred_reloads_under_load_lose_no_client_and_no_fd", load),
    ("reload::another_activator_takes_over", upgrade),
    ("reload::sighup_takes_what_the_file_has_now", sighup),
    ("reload::systemd_23815_a_start_that_waits_for_readiness_goes_on", starting),
    ("reload::stored_fds_stay_stored_and_what_is_nobodys_is_closed", stored),
    ("reload::instances_keep_their_connections_and_their_slots", instances),
    ("reload::commands_of_an_instance_are_told_of_its_client_as_before", told),
    ("reload::logs_go_on_and_new_units_have_theirs", logs),
    ("reload::a_listener_that_was_blocking_for_its_service_never_blocks_pid_1", becomes_accept),
    ("reload::children_find_the_manifest_where_no_file_system_has_room_for_it", no_room),
];

/// At the end of a program that is to be taken for an activator of another version of the state.
const OF_ANOTHER_STATE: &[u8] = b"of another state";

/// Whether this process executes such a program.
pub(crate) fn is_of_another_state() -> bool {
    std::fs::read("/proc/self/exe").is_ok_and(|bytes| bytes.ends_with(OF_ANOTHER_STATE))
}

fn replace(bench: &Bench, manifest: &[u8], programs: Option<Programs<&[u8]>>) -> Result<(), Error> {
    let stream = UnixStream::connect(bench.control()).unwrap();
    stream.set_read_timeout(Some(bench::PATIENCE)).unwrap();
    client::replace(stream, "", manifest, programs, |_| ())
}

/// Those under test.
fn programs() -> Programs<Vec<u8>> {
    let read = |path| std::fs::read(path).unwrap();
    Programs {
        init: read(env!("CARGO_BIN_EXE_init")),
        activator: read(env!("CARGO_BIN_EXE_activator")),
    }
}

pub(crate) fn reload(bench: &Bench, manifest: &Manifest) {
    if let Err(error) = replace(bench, &manifest.encode(), None) {
        panic!("{error}\n{}", bench.log());
    }
}

/// One service with one socket on port 3000.
fn one(spec: Service) -> Manifest {
    Units::default()
        .service("a.service", spec)
        .socket("a.socket", "a.service", socket("a", vec![tcp(3000)]))
        .build()
}

/// The open fds of the activator, as what they lead to.
fn fds(pid: u32) -> Vec<String> {
    let entries = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
    let target = |path: std::path::PathBuf| std::fs::read_link(path).unwrap_or_default();
    let all = entries.map(|entry| target(entry.unwrap().path()).to_string_lossy().into_owned());
    let mut all: Vec<String> = all.collect();
    all.sort();
    all
}

fn sockets(pid: u32) -> Vec<String> {
    fds(pid).into_iter().filter(|fd| fd.starts_with("socket:")).collect()
}

fn backlog(bench: &mut Bench) {
    let mut spec = service(bench.path(), &["exit", "1"]);
    spec.start_limit = RateLimit { interval_us: 1_000_000, burst: 2 };
    bench.start(&one(spec));
    let client = TcpStream::connect("127.0.0.1:3000").unwrap();
    client.set_read_timeout(Some(bench::PATIENCE)).unwrap();
    bench.wait("it is held", |status| {
        let a = bench::service(status, "a.service");
        a.starts == 2 && a.state == "failed"
    });
    let mut better = service(bench.path(), &["serve", "1"]);
    better.start_limit = RateLimit { interval_us: 1_000_000, burst: 2 };
    reload(bench, &one(better));
    // The very connection that the old process had not accepted.
    let answer = bench::ask(&client, || client.shutdown(Shutdown::Write).unwrap(), "x");
    assert_eq!(split(&answer).1, "x");
    bench.stop();
}

fn running(bench: &mut Bench) {
    bench.start(&one(service(bench.path(), &["serve", "2"])));
    let activator = bench.pid();
    let first = split(&ask_tcp("127.0.0.1:3000", "x")).0;
    let before = bench.status();
    let mut changed = service(bench.path(), &["serve", "0"]);
    changed.execution.nice = Some(5);
    reload(bench, &one(changed));
    let after = bench.status();
    assert_eq!(bench.pid(), activator);
    assert_eq!(after.started_us, before.started_us);
    assert_eq!(after.listening_us, before.listening_us);
    let a = bench::service(&after, "a.service");
    assert_eq!((a.main_pid, a.starts, a.state.as_str()), (Some(first), 1, "running"));
    // It is the old process that serves its second client, and ends as it was told to.
    assert_eq!(split(&ask_tcp("127.0.0.1:3000", "x")).0, first);
    let status =
        bench.wait("it has ended", |status| bench::service(status, "a.service").state == "dead");
    let exit = bench::service(&status, "a.service").last_exit.as_deref();
    assert_eq!(exit, Some("exited 0"));
    let second = split(&ask_tcp("127.0.0.1:3000", "x")).0;
    let stat = std::fs::read_to_string(format!("/proc/{second}/stat")).unwrap();
    assert_eq!(stat.split(' ').nth(18), Some("5"), "the new definition's nice value");
    assert_eq!(split(&ask_tcp("127.0.0.1:3000", "x")).0, second);
    bench.stop();
}

fn difference(bench: &mut Bench) {
    let path = bench.path().to_owned();
    let manifest = |listeners| {
        let mut socket = socket("a", listeners);
        socket.remove_on_stop = true;
        Units::default()
            .service("a.service", service(&path, &["serve", "1"]))
            .socket("a.socket", "a.service", socket)
            .build()
    };
    let [one, two] = ["one", "two"].map(|name| unix(bench.path(), name));
    let first = manifest(vec![tcp(3000), one, tcp(3001)]);
    let second = manifest(vec![tcp(3002), tcp(3001), two]);
    bench.start(&first);
    let before = sockets(bench.pid());
    reload(bench, &second);
    let after = sockets(bench.pid());
    let kept = after.iter().filter(|fd| before.contains(fd)).count();
    // Port 3001, the control socket, and the pair with logd.
    assert_eq!((kept, after.len()), (4, 6), "{before:?} {after:?}");
    let closed = TcpStream::connect("127.0.0.1:3000").unwrap_err();
    assert_eq!(closed.kind(), std::io::ErrorKind::ConnectionRefused);
    assert!(!bench.path().join("one").exists());
    for address in ["127.0.0.1:3001", "127.0.0.1:3002"] {
        assert_eq!(split(&ask_tcp(address, "x")).1, "x");
    }
    assert_eq!(split(&ask_unix(&bench.path().join("two"), "x")).1, "x");
    // One that is not there makes no other one deaf.
    let absent = listener(ListenKind::Stream, Address::Inet([10, 11, 12, 9], 3000));
    reload(bench, &manifest(vec![absent, tcp(3001)]));
    assert_eq!(split(&ask_tcp("127.0.0.1:3001", "x")).1, "x");
    bench.stop();
}

fn reuse_port(bench: &mut Bench) {
    let mut twice = socket("a", vec![tcp(3000), tcp(3000)]);
    twice.options = vec![SocketOption::ReusePort];
    let manifest = Units::default()
        .service("a.service", service(bench.path(), &["serve", "1"]))
        .socket("a.socket", "a.service", twice)
        .build();
    bench.start(&manifest);
    let before = sockets(bench.pid());
    for _ in 0..3 {
        reload(bench, &manifest);
    }
    assert_eq!(sockets(bench.pid()), before);
    for _ in 0..8 {
        assert_eq!(split(&ask_tcp("127.0.0.1:3000", "x")).1, "x");
    }
    bench.stop();
}

fn refused(bench: &mut Bench) {
    bench.start(&one(service(bench.path(), &["serve", "0"])));
    let pid = split(&ask_tcp("127.0.0.1:3000", "x")).0;
    let (before, good) = (fds(bench.pid()), one(service(bench.path(), &["sleep"])).encode());
    let why = |result: Result<(), Error>| match result.unwrap_err() {
        Error::Refused(Failure::Replace(why)) => why,
        other => panic!("{other}"),
    };
    let mut damaged = good.clone();
    damaged[40] ^= 1;
    assert!(matches!(why(replace(bench, &damaged, None)), Unfit::Manifest(_)));
    let mut other = good.clone();
    other[8] = 99;
    let Unfit::Manifest(text) = why(replace(bench, &other, None)) else { panic!() };
    assert!(text.contains("version 99"), "{text}");
    let mut lacking = service(bench.path(), &["sleep"]);
    lacking.start[0].program = "/nowhere/daemon".into();
    let lacks = Unfit::Lacks(vec!["/nowhere/daemon (a.service)".into()]);
    assert_eq!(why(replace(bench, &one(lacking).encode(), None)), lacks);
    let (own, program) = (programs(), std::fs::read("/bin/true").unwrap());
    for (name, wrong) in [
        ("init", Programs { init: &program[..], activator: &own.activator }),
        ("activator", Programs { init: &own.init, activator: &program[..] }),
    ] {
        let Unfit::Activator(text) = why(replace(bench, &good, Some(wrong))) else { panic!() };
        assert!(text.contains(&format!("the new {name} does not answer as one")), "{text}");
    }
    let mut other = std::fs::read(std::env::current_exe().unwrap()).unwrap();
    other.extend(OF_ANOTHER_STATE);
    for wrong in [
        Programs { init: &other[..], activator: &own.activator },
        Programs { init: &own.init, activator: &other[..] },
    ] {
        let Unfit::Activator(text) = why(replace(bench, &good, Some(wrong))) else { panic!() };
        assert!(text.contains("states of version"), "{text}");
    }
    let status = bench.status();
    assert_eq!(bench::service(&status, "a.service").main_pid, Some(pid));
    assert_eq!(split(&ask_tcp("127.0.0.1:3000", "x")).0, pid);
    assert_eq!(fds(bench.pid()), before);
    // What was refused is in nobody's way.
    assert_eq!(replace(bench, &good, None), Ok(()));
    bench.stop();
}

fn come_and_go(bench: &mut Bench) {
    let path = bench.path().to_owned();
    let program = |name: &str| service(&path, &["up-and-down", name]);
    let first = Units::default()
        .service("a.service", program("a"))
        .service("b.service", program("b"))
        .service("c.service", program("c"))
        .after("b.service", "a.service")
        .at_boot("a.service")
        .at_boot("b.service")
        .at_boot("c.service");
    let second = Units::default()
        .service("c.service", program("c"))
        .service("d.service", program("d"))
        .at_boot("c.service")
        .at_boot("d.service");
    bench.start(&first.build());
    for line in ["up a", "up b", "up c"] {
        bench.wait_report(line);
    }
    reload(bench, &second.build());
    for line in ["down a", "down b", "up d"] {
        bench.wait_report(line);
    }
    let report = bench.report();
    let downs: Vec<&String> = report.iter().filter(|line| line.starts_with("down")).collect();
    assert_eq!(downs, ["down b", "down a"], "in reverse order, and no other");
    let status = bench.wait("they are down", |status| {
        let state = |name| bench::service(status, name).state.as_str();
        state("a.service") == "dead" && state("b.service") == "dead"
    });
    assert_eq!(bench::service(&status, "c.service").starts, 1);
    // What has been stopped is forgotten with the next reload.
    let third = Units::default().service("d.service", program("d")).at_boot("d.service").build();
    reload(bench, &third);
    bench.wait_report("down c");
    let names = |bench: &Bench| -> Vec<String> {
        bench.status().services.into_iter().map(|service| service.name).collect()
    };
    assert_eq!(names(bench), ["c.service", "d.service"]);
    until("it is down", || bench::service(&bench.status(), "c.service").state == "dead");
    reload(bench, &third);
    assert_eq!(names(bench), ["d.service"]);
    bench.stop();
}

fn load(bench: &mut Bench) {
    let path = bench.path().to_owned();
    let manifest = |nice| {
        let unlimited = |mut spec: Service| {
            spec.start_limit.burst = 0;
            spec.execution.nice = Some(nice);
            spec
        };
        // One that ends with each client, and one that stays.
        let [mut short, mut long] =
            [3000, 3001].map(|port| socket("s", vec![tcp(port), udp(port)]));
        for socket in [&mut short, &mut long] {
            socket.trigger_limit.burst = 0;
            socket.poll_limit.burst = 0;
        }
        Units::default()
            .service("a.service", unlimited(service(&path, &["serve", "1"])))
            .service("b.service", unlimited(service(&path, &["serve", "0"])))
            .socket("a.socket", "a.service", short)
            .socket("b.socket", "b.service", long)
            .build()
    };
    let both = [manifest(1), manifest(2)];
    bench.start(&both[0]);
    let stays = split(&ask_tcp("127.0.0.1:3001", "x")).0;
    let settle = |bench: &Bench| {
        bench.wait("all is quiet", |status| {
            bench::service(status, "a.service").state == "dead"
                && bench::socket(status, "a.socket").state == "listening"
        })
    };
    settle(bench);
    // The first reload changes what is kept in files.
    reload(bench, &both[1]);
    let (before, over) = (fds(bench.pid()), AtomicBool::new(false));
    let served = AtomicUsize::new(0);
    let ask = |address: &str| {
        while !over.load(Ordering::Relaxed) {
            assert_eq!(split(&ask_tcp(address, "hello")).1, "hello");
            served.fetch_add(1, Ordering::Relaxed);
        }
    };
    let send = |address: &str| {
        while !over.load(Ordering::Relaxed) {
            assert_eq!(split(&ask_udp("127.0.0.1:0", address, "packet")).1, "packet");
            served.fetch_add(1, Ordering::Relaxed);
        }
    };
    std::thread::scope(|scope| {
        scope.spawn(|| send("127.0.0.1:3000"));
        scope.spawn(|| send("127.0.0.1:3001"));
        scope.spawn(|| ask("127.0.0.1:3000"));
        scope.spawn(|| ask("127.0.0.1:3000"));
        scope.spawn(|| ask("127.0.0.1:3001"));
        for round in 0..200 {
            let enough = served.load(Ordering::Relaxed) + 1;
            reload(bench, &both[round % 2]);
            until("somebody is served", || served.load(Ordering::Relaxed) >= enough);
        }
        over.store(true, Ordering::Relaxed);
    });
    let status = settle(bench);
    assert_eq!(bench::service(&status, "b.service").main_pid, Some(stays));
    assert_eq!(bench::service(&status, "b.service").starts, 1);
    // Fewer, when the first count met the manifest before the last on its way out.
    assert!(fds(bench.pid()).len() <= before.len(), "{before:#?}\n{:#?}", fds(bench.pid()));
    assert_eq!(sockets(bench.pid()).len(), 7);
    // logd, and the service that stays.
    let children = format!("/proc/{0}/task/{0}/children", bench.pid());
    assert_eq!(std::fs::read_to_string(children).unwrap().split_whitespace().count(), 2);
    bench.stop();
}

fn upgrade(bench: &mut Bench) {
    let manifest = one(service(bench.path(), &["serve", "0"]));
    bench.start(&manifest);
    let pid = split(&ask_tcp("127.0.0.1:3000", "x")).0;
    // The same programs, but not the same bytes: who executes them does not look behind the end.
    let mut new = programs();
    new.init.extend(b"other");
    new.activator.extend(b"other");
    let both = Programs { init: &new.init[..], activator: &new.activator };
    let executed = |bench: &Bench| std::fs::read(format!("/proc/{}/exe", bench.pid())).unwrap();
    for _ in 0..3 {
        assert_eq!(replace(bench, &manifest.encode(), Some(both)), Ok(()));
        assert!(executed(bench) == new.init);
        // logd is one of the new version, too.
        let children = format!("/proc/{0}/task/{0}/children", bench.pid());
        until("logd is executed anew", || {
            let children = std::fs::read_to_string(&children).unwrap();
            let mut others = children.split_whitespace().filter(|it| *it != pid.to_string());
            others.next().is_some_and(|logd| {
                std::fs::read(format!("/proc/{logd}/exe")).is_ok_and(|it| it == new.activator)
            })
        });
        let status = bench.status();
        assert_eq!(bench::service(&status, "a.service").main_pid, Some(pid));
        assert_eq!(split(&ask_tcp("127.0.0.1:3000", "x")).0, pid);
    }
    // One that turns out not to be able to when it is in charge: the one before goes on.
    let fails = std::fs::read(std::env::current_exe().unwrap()).unwrap();
    let failing = Programs { init: &fails[..], activator: &new.activator };
    let failed = replace(bench, &one(service(bench.path(), &["sleep"])).encode(), Some(failing));
    assert_eq!(failed, Err(Error::Refused(Failure::Replace(Unfit::NotTaken))));
    assert!(executed(bench) == new.init);
    assert_eq!(split(&ask_tcp("127.0.0.1:3000", "x")).0, pid);
    assert_eq!(replace(bench, &manifest.encode(), None), Ok(()));
    let name = std::fs::read_to_string(format!("/proc/{}/comm", bench.pid())).unwrap();
    assert_eq!(name, "activator\n");
    bench.stop();
}

fn sighup(bench: &mut Bench) {
    bench.start(&one(service(bench.path(), &["serve", "1"])));
    let path = bench.path().join("manifest");
    let write = |bytes: &[u8], path: &Path| {
        // As a whole, since it may be read at any time.
        let new = path.with_extension("new");
        std::fs::write(&new, bytes).unwrap();
        std::fs::rename(new, path).unwrap();
    };
    let with_b = Units::default()
        .service("b.service", service(bench.path(), &["up-and-down", "b"]))
        .at_boot("b.service")
        .build();
    write(&with_b.encode(), &path);
    signal(bench.pid(), libc::SIGHUP);
    bench.wait_report("up b");
    // A file that makes no sense changes nothing, and what it was before it may be again.
    write(b"nonsense", &path);
    signal(bench.pid(), libc::SIGHUP);
    until("it says so", || bench.log().contains("cannot take the manifest"));
    write(&one(service(bench.path(), &["serve", "1"])).encode(), &path);
    signal(bench.pid(), libc::SIGHUP);
    bench.wait_report("down b");
    assert_eq!(split(&ask_tcp("127.0.0.1:3000", "x")).1, "x");
    bench.stop();
}

fn starting(bench: &mut Bench) {
    let mut spec = service(bench.path(), &["ready"]);
    spec.kind = ServiceKind::Notify;
    bench.start(&one(spec.clone()));
    let mut client = TcpStream::connect("127.0.0.1:3000").unwrap();
    client.set_read_timeout(Some(bench::PATIENCE)).unwrap();
    client.write_all(b"x").unwrap();
    let state = |bench: &Bench| {
        bench.wait("it is starting", |status| {
            bench::service(status, "a.service").state == "starting"
        })
    };
    let before = bench::service(&state(bench), "a.service").main_pid;
    reload(bench, &one(spec.clone()));
    assert_eq!(bench::service(&state(bench), "a.service").main_pid, before);
    // Restarted while it is activating, and reloaded while that is under way.
    std::thread::scope(|scope| {
        let restart = scope.spawn(|| bench.order(Request::Restart("a.service".into())));
        bench.wait("it is another", |status| {
            let a = bench::service(status, "a.service");
            a.state == "starting" && a.main_pid.is_some() && a.main_pid != before
        });
        reload(bench, &one(spec));
        bench.go();
        assert_eq!(restart.join().unwrap(), Ok(()));
    });
    let status = bench.status();
    assert_eq!(bench::service(&status, "a.service").state, "running");
    assert_eq!(bench::service(&status, "a.service").starts, 2);
    assert_eq!(bench::socket(&status, "a.socket").state, "running");
    bench.stop();
}

fn stored(bench: &mut Bench) {
    let mut spec = service(bench.path(), &["store"]);
    spec.notify_access = NotifyAccess::All;
    (spec.fd_store_max, spec.fd_store_preserve) = (2, true);
    let with = |spec: Service| Units::default().service("a.service", spec).at_boot("a.service");
    bench.start(&with(spec.clone()).build());
    bench.wait_report("started with none");
    // The socket unit comes and goes, and what was its with it.
    let more = with(spec.clone()).socket("z.socket", "a.service", socket("z", vec![tcp(3000)]));
    let nothing = fds(bench.pid()).len();
    for _ in 0..3 {
        reload(bench, &more.clone().build());
        reload(bench, &with(spec.clone()).build());
    }
    bench.order(Request::Restart("a.service".into())).unwrap();
    bench.wait_report("started with kept");
    until("the fds are as many as before", || fds(bench.pid()).len() <= nothing + 1);
    // Without room for it, it is closed.
    spec.fd_store_max = 0;
    reload(bench, &with(spec).build());
    bench.order(Request::Restart("a.service".into())).unwrap();
    until("it starts without", || {
        bench.report().iter().filter(|line| line.ends_with("none")).count() == 2
    });
    bench.stop();
}

fn instances(bench: &mut Bench) {
    let path = bench.path().to_owned();
    let manifest = |name: &str, most: u32, more: &[&str]| {
        let mut template = service(&path, &["connection"]);
        template.start_pre = more.iter().map(|it| command(&[it])).collect();
        Units::default()
            // Another id for each reload.
            .service(name, service(&path, &["sleep"]))
            .service("m@.service", template)
            .socket("m.socket", "m@.service", accepting(vec![tcp(3000)], [most, 0]))
            .build()
    };
    let say = |mut stream: &TcpStream, word: &str| {
        stream.set_read_timeout(Some(bench::PATIENCE)).unwrap();
        stream.write_all(word.as_bytes()).unwrap();
        let mut answer = [0; 100];
        let length = stream.read(&mut answer).unwrap();
        String::from_utf8_lossy(&answer[..length]).into_owned()
    };
    bench.start(&manifest("z.service", 3, &[]));
    let clients = [(); 3].map(|()| TcpStream::connect("127.0.0.1:3000").unwrap());
    let first = clients.each_ref().map(|client| say(client, "x"));
    reload(bench, &manifest("a.service", 1, &[]));
    let status = bench.status();
    assert_eq!(bench::socket(&status, "m.socket").connections, 3);
    assert_eq!(clients.each_ref().map(|client| say(client, "x")), first);
    // The lower limit is in force when those are gone whom the higher one let in.
    drop(clients);
    bench.wait("all are gone", |status| bench::socket(status, "m.socket").connections == 0);
    reload(bench, &manifest("b.service", 1, &["wait"]));
    let client = TcpStream::connect("127.0.0.1:3000").unwrap();
    bench.wait_report("waits");
    let over = TcpStream::connect("127.0.0.1:3000").unwrap();
    over.set_read_timeout(Some(bench::PATIENCE)).unwrap();
    assert_eq!((&over).read(&mut [0]).unwrap(), 0, "one too many");
    // Its connection is still PID 1's, as it has not been started.
    for name in ["a.service", "z.service"] {
        reload(bench, &manifest(name, 1, &["wait"]));
    }
    bench.go();
    assert_eq!(split(&say(&client, "x")).1, "x");
    drop(client);
    bench.wait("it is gone", |status| bench::socket(status, "m.socket").connections == 0);
    assert_eq!(sockets(bench.pid()).len(), 4);
    bench.stop();
}

/// PID 1 has the connection no more, and so nobody to ask for the client's name.
fn told(bench: &mut Bench) {
    let path = bench.path().to_owned();
    let manifest = |other: &str| {
        let mut template = service(&path, &["connection"]);
        template.start_post = vec![command(&["client"])];
        template.stop_post = vec![command(&["client"])];
        Units::default()
            .service(other, service(&path, &["sleep"]))
            .service("m@.service", template)
            .socket("m.socket", "m@.service", accepting(vec![unix(&path, "u")], [1, 0]))
            .build()
    };
    bench.start(&manifest("z.service"));
    let client = net::socket(AddressFamily::UNIX, SocketType::STREAM, None).unwrap();
    net::bind(&client, &SocketAddrUnix::new_abstract_name(b"me").unwrap()).unwrap();
    net::connect(&client, &SocketAddrUnix::new(path.join("u")).unwrap()).unwrap();
    bench.wait_report("client @me ");
    reload(bench, &manifest("a.service"));
    drop(client);
    bench.wait("it is gone", |status| bench::socket(status, "m.socket").connections == 0);
    let report = bench.report();
    let told: Vec<_> = report.iter().filter(|line| line.starts_with("client")).collect();
    assert_eq!(told.len(), 2, "{report:?}");
    assert_eq!(told[0], told[1]);
    bench.stop();
}

/// inetd's programs get their listener blocking. PID 1 accepts from it until nobody waits.
fn becomes_accept(bench: &mut Bench) {
    let path = bench.path().to_owned();
    let mut inetd = service(&path, &["inetd"]);
    inetd.execution.stdin = Input::Socket;
    bench.start(&one(inetd));
    assert!(ask_tcp("127.0.0.1:3000", "").starts_with("stdin listens"));
    bench.wait("it has ended", |status| bench::service(status, "a.service").state == "dead");
    let before = sockets(bench.pid());
    let accepts = Units::default()
        .service("a@.service", service(&path, &["connection"]))
        .socket("a.socket", "a@.service", accepting(vec![tcp(3000)], [9, 0]))
        .build();
    reload(bench, &accepts);
    assert_eq!(sockets(bench.pid()), before, "it is the same listener");
    for _ in 0..3 {
        assert_eq!(split(&ask_tcp("127.0.0.1:3000", "x")).1, "x");
    }
    bench.stop();
}

/// The file for it lies in /run, which is memory that services fill as well.
fn no_room(bench: &mut Bench) {
    let path = bench.path().to_owned();
    // Its commands go by way of stage 2, which reads the manifest.
    let staged = |text: &str| {
        let mut spec = service(&path, &["up-and-down", text]);
        spec.start[0].expand = true;
        Units::default().service("a.service", spec).build()
    };
    let order = |bench: &Bench, order: fn(UnitName) -> Request| {
        let name = UnitName { name: "a.service".into(), whose: Whose::System };
        assert_eq!(bench.order(order(name)), Ok(()), "{}", bench.log());
    };
    let control = bench.control();
    let folder = control.parent().unwrap();
    std::fs::create_dir(folder).unwrap();
    let flags = rustix::mount::MountFlags::empty();
    rustix::mount::mount(c"tmpfs", folder, c"tmpfs", flags, Some(c"size=256k")).unwrap();
    bench.start(&staged("first"));
    let leftovers = || {
        let names = std::fs::read_dir(folder).unwrap();
        let names = names.map(|it| it.unwrap().file_name().into_string().unwrap());
        names.filter(|name| name.starts_with("manifest-")).count()
    };
    fill(folder);
    let check = |bench: &Bench, text: &str| {
        order(bench, Request::Start);
        bench.wait_report(&format!("up {text}"));
        order(bench, Request::Stop);
        assert_eq!(leftovers(), 0, "what was begun of it is gone");
    };
    // Twice: the second time the state has such a path already.
    for text in ["second", "third"] {
        reload(bench, &staged(text));
        check(bench, text);
    }
    // An activator that goes back to the one before it, and to its manifest.
    let other = std::fs::read(std::env::current_exe().unwrap()).unwrap();
    let own = programs();
    let other = Programs { init: &other[..], activator: &own.activator };
    let refused = replace(bench, &staged("never").encode(), Some(other)).unwrap_err();
    assert_eq!(refused, Error::Refused(Failure::Replace(Unfit::NotTaken)));
    std::fs::remove_file(bench.path().join("report")).unwrap();
    check(bench, "third");
    std::fs::remove_file(folder.join("filler")).unwrap();
    reload(bench, &staged("last"));
    assert_eq!(leftovers(), 1);
    order(bench, Request::Start);
    bench.wait_report("up last");
    bench.stop();
    rustix::mount::unmount(folder, rustix::mount::UnmountFlags::DETACH).unwrap();
}

/// Leaves no room for a file.
fn fill(folder: &Path) {
    let mut file = std::fs::File::create(folder.join("filler")).unwrap();
    while file.write_all(&[0; 4096]).is_ok() {}
}

fn logs(bench: &mut Bench) {
    let path = bench.path().to_owned();
    let says = |text: &str| {
        let mut spec = service(&path, &["serve", "0"]);
        let script = format!("echo {text}; while read line; do echo {text} $line; done < fifo");
        spec.start[0].program = "/bin/sh".into();
        spec.start[0].arguments = ["sh", "-c", &script].map(str::to_owned).into();
        spec.execution.working_directory = path.to_str().unwrap().into();
        spec.execution.stdout = Output::Log;
        spec
    };
    rustix::fs::mknodat(
        rustix::fs::CWD,
        bench.path().join("fifo"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::from_raw_mode(0o600),
        0,
    )
    .unwrap();
    let first = Units::default().service("m.service", says("old")).at_boot("m.service");
    let second = Units::default()
        .service("a.service", service(bench.path(), &["sleep"]))
        .service("m.service", says("old"))
        .at_boot("m.service");
    let mut new = says("new");
    new.start[0].arguments[2] = "echo new; exec sleep 1000".into();
    let second = second.service("z.service", new).at_boot("z.service").build();
    bench.start(&first.build());
    let follower = UnixStream::connect(bench.control()).unwrap();
    follower.set_read_timeout(Some(bench::PATIENCE)).unwrap();
    let mut seen = vec![];
    let mut fifo = std::fs::File::options().write(true).open(bench.path().join("fifo")).unwrap();
    let mut step = 0;
    let done = client::logs(follower, "", None, true, |line| {
        seen.push(format!("{}: {}", line.unit, line.text));
        let has = |text: &str| seen.iter().any(|line| line == text);
        if step == 0 && has("m.service: old") {
            step = 1;
            reload(bench, &second);
            fifo.write_all(b"again\n").unwrap();
        }
        match has("m.service: old again") && has("z.service: new") {
            true => Err(std::io::ErrorKind::Other.into()),
            false => Ok(()),
        }
    });
    assert!(done.is_err());
    // The lines of before are still there, under the same name, by another id.
    let mut kept = vec![];
    let stream = UnixStream::connect(bench.control()).unwrap();
    client::logs(stream, "", Some(&"m.service".into()), false, |line| {
        kept.push(line.text);
        Ok(())
    })
    .unwrap();
    assert!(kept.iter().any(|line| line == "old") && kept.iter().any(|line| line == "old again"));
    bench.stop();
}
