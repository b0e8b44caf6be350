//! `X-StopWhenIdleSec=` and `X-FreezeWhenIdleSec=`.

use crate::Test;
use crate::bench::{self, Bench, ask_tcp, ask_udp, ask_unix, split};
use crate::build::{Units, listener, service, socket, tcp, udp, unix};
use activator::control::Request;
use activator::manifest::{Address, Command, ListenKind, Manifest, Service};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixStream};
use std::time::Duration;

pub(crate) const TESTS: &[Test] = &[
    ("idle::a_service_is_stopped_when_nobody_has_been_connected_for_long_enough", stop),
    ("idle::no_client_is_lost_when_services_are_stopped_all_the_time", stop_edge),
    ("idle::a_frozen_service_goes_on_with_the_next_connection", freeze),
    ("idle::no_client_is_lost_when_services_are_frozen_all_the_time", freeze_edge),
    ("idle::a_frozen_service_can_be_stopped_and_commands_of_its_stop_run", stop_frozen),
    ("idle::a_frozen_service_is_stopped_when_it_stays_idle", both),
];

/// Listens on TCP, UDP and Unix, with no limits in the way.
fn units(bench: &Bench, mut spec: Service) -> Manifest {
    spec.start_limit.burst = 0;
    let name = listener(ListenKind::Stream, Address::Abstract("rouse-idle".into()));
    let mut sockets = socket("a", vec![tcp(3000), udp(3000), unix(bench.path(), "u"), name]);
    sockets.trigger_limit.burst = 0;
    sockets.poll_limit.burst = 0;
    Units::default().service("a.service", spec).socket("a.socket", "a.service", sockets).build()
}

fn idle(bench: &Bench, stop_us: u64, freeze_us: u64) -> Service {
    Service {
        stop_when_idle_us: stop_us,
        freeze_when_idle_us: freeze_us,
        ..service(bench.path(), &["hold"])
    }
}

fn state(bench: &Bench) -> (String, Option<u32>) {
    let status = bench.status();
    let service = bench::service(&status, "a.service");
    (service.state.clone(), service.main_pid)
}

fn wait_state(bench: &Bench, wanted: &str) {
    bench.wait(wanted, |status| bench::service(status, "a.service").state == wanted);
}

/// Sends a word and reads the answer on a connection that stays open.
fn say(mut stream: impl Read + Write, word: &str) -> u32 {
    stream.write_all(word.as_bytes()).unwrap();
    let mut answer = [0; 100];
    let length = stream.read(&mut answer).unwrap();
    let (pid, text) = split(std::str::from_utf8(&answer[..length]).unwrap());
    assert_eq!(text, word);
    pid
}

fn stop(bench: &mut Bench) {
    bench.start(&units(bench, idle(bench, 100_000, 0)));
    let name = SocketAddr::from_abstract_name("rouse-idle").unwrap();
    // Each kind of connection holds it, and for as long as it likes.
    let held = |bench: &Bench, pid: u32| {
        for _ in 0..10 {
            std::thread::sleep(Duration::from_millis(50));
            assert_eq!(state(bench), ("running".into(), Some(pid)));
        }
    };
    let client = TcpStream::connect("127.0.0.1:3000").unwrap();
    held(bench, say(&client, "tcp"));
    drop(client);
    wait_state(bench, "dead");
    let client = UnixStream::connect(bench.path().join("u")).unwrap();
    held(bench, say(&client, "unix"));
    drop(client);
    wait_state(bench, "dead");
    let client = UnixStream::connect_addr(&name).unwrap();
    held(bench, say(&client, "abstract"));
    drop(client);
    wait_state(bench, "dead");
    assert_eq!(bench::service(&bench.status(), "a.service").starts, 3);
    bench.stop();
}

/// Clients one after the other, with pauses about as long as the idle time, on all listeners.
fn clients(bench: &Bench, count: u64) {
    let unix = bench.path().join("u");
    std::thread::scope(|scope| {
        let tcp = scope.spawn(move || {
            for round in 0..count {
                let text = format!("tcp {round}");
                assert_eq!(split(&ask_tcp("127.0.0.1:3000", &text)).1, text);
                std::thread::sleep(Duration::from_millis(round * 7 % 40));
            }
        });
        // A packet is no connection: the service may be put to sleep between it and its answer.
        let udp = scope.spawn(move || {
            for round in 0..count {
                let text = format!("udp {round}");
                assert_eq!(split(&ask_udp("127.0.0.1:0", "127.0.0.1:3000", &text)).1, text);
                std::thread::sleep(Duration::from_millis(round * 13 % 40));
            }
        });
        for round in 0..count {
            let text = format!("unix {round}");
            assert_eq!(split(&ask_unix(&unix, &text)).1, text);
            std::thread::sleep(Duration::from_millis(round * 11 % 40));
        }
        tcp.join().unwrap();
        udp.join().unwrap();
    });
}

fn stop_edge(bench: &mut Bench) {
    bench.start(&units(bench, idle(bench, 10_000, 0)));
    clients(bench, 150);
    wait_state(bench, "dead");
    assert!(bench::service(&bench.status(), "a.service").starts > 1);
    bench.stop();
}

fn freeze(bench: &mut Bench) {
    if !bench.has_cgroups() {
        println!("SKIPPED: no cgroup2 for this user");
        return;
    }
    bench.start(&units(bench, idle(bench, 0, 50_000)));
    let first = split(&ask_tcp("127.0.0.1:3000", "one")).0;
    for text in ["two", "three", "four"] {
        wait_state(bench, "frozen");
        assert_eq!(split(&ask_unix(&bench.path().join("u"), text)), (first, text));
    }
    let client = TcpStream::connect("127.0.0.1:3000").unwrap();
    assert_eq!(say(&client, "stays"), first);
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(state(bench), ("running".into(), Some(first)));
    drop(client);
    wait_state(bench, "frozen");
    // Going down is not held up.
    bench.stop();
}

fn freeze_edge(bench: &mut Bench) {
    if !bench.has_cgroups() {
        println!("SKIPPED: no cgroup2 for this user");
        return;
    }
    bench.start(&units(bench, idle(bench, 0, 10_000)));
    clients(bench, 150);
    wait_state(bench, "frozen");
    assert_eq!(bench::service(&bench.status(), "a.service").starts, 1);
    bench.stop();
}

fn stop_frozen(bench: &mut Bench) {
    if !bench.has_cgroups() {
        println!("SKIPPED: no cgroup2 for this user");
        return;
    }
    let mut spec = idle(bench, 0, 50_000);
    let say = |text| Command { ..crate::build::command(&["look", text, "/"]) };
    spec.stop = vec![say("stopping")];
    spec.stop_post = vec![say("stopped")];
    bench.start(&units(bench, spec));
    ask_tcp("127.0.0.1:3000", "one");
    wait_state(bench, "frozen");
    bench.order(Request::Stop("a.service".into())).unwrap();
    wait_state(bench, "dead");
    let report = bench.report();
    assert!(report.ends_with(&["stopping true".into(), "stopped true".into()]), "{report:?}");
    assert_eq!(split(&ask_tcp("127.0.0.1:3000", "two")).1, "two");
    bench.stop();
}

fn both(bench: &mut Bench) {
    bench.start(&units(bench, idle(bench, 300_000, 50_000)));
    ask_tcp("127.0.0.1:3000", "one");
    wait_state(bench, "dead");
    assert_eq!(split(&ask_tcp("127.0.0.1:3000", "two")).1, "two");
    bench.stop();
}
