//! From start-pre to gone: order, failure, limits, stops, orphans.

use crate::Test;
use crate::bench::{self, Bench, ask_tcp, signal, split, until};
use crate::build::{Units, command, listener, service, socket, tcp};
use activator::client;
use activator::control::{Failure, Request};
use activator::manifest::{
    Address, KillMode, ListenKind, Output, RateLimit, Restart, ServiceKind, SocketOption, User,
};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::net::TcpStream;

pub(crate) const TESTS: &[Test] = &[
    ("lifecycle::the_start_limit_pauses_and_recovers_and_the_client_is_served", limit),
    ("lifecycle::an_address_that_is_not_there_yet_is_tried_again_systemd_19198", not_there_yet),
    ("lifecycle::restart_on_failure", restart),
    (
        "lifecycle::what_the_main_process_leaves_behind_is_stopped_before_the_socket_listens",
        leftovers,
    ),
    ("lifecycle::what_ignores_sigterm_is_killed", deaf),
    ("lifecycle::orphans_are_reaped", orphans),
    ("lifecycle::services_start_in_order_and_stop_in_reverse", order),
    ("lifecycle::readiness_holds_back_what_comes_after", readiness),
    ("lifecycle::who_talks_without_end_keeps_nobody_else_waiting", flood),
    ("lifecycle::a_notify_socket_that_cannot_be_made_fails_its_service_only", no_notify),
    ("lifecycle::who_stops_all_of_its_user_does_not_stop_pid_1", stopper),
    ("lifecycle::start_stop_restart_by_order", orders),
    ("lifecycle::poweroff_by_order_ends_it", poweroff),
    ("lifecycle::a_program_that_is_not_there_is_203", no_program),
    ("lifecycle::limits_umask_directory_and_scores_are_set", settings),
    ("lifecycle::user_and_groups_are_set_and_no_signal_is_blocked_or_ignored", user),
    ("lifecycle::main_pid_is_known_to_exec_stop", main_pid),
    ("lifecycle::logd_is_restarted_and_nothing_is_lost", logd),
    ("lifecycle::more_services_than_a_process_may_have_files_at_first", many),
    ("lifecycle::exit_codes_of_bad_command_lines", exit_codes),
];

fn limit(bench: &mut Bench) {
    let mut spec = service(bench.path(), &["exit", "1"]);
    spec.start_limit = RateLimit { interval_us: 500_000, burst: 3 };
    let units = Units::default().service("a.service", spec).socket(
        "a.socket",
        "a.service",
        socket("a", vec![tcp(3000)]),
    );
    bench.start(&units.build());
    // It never accepts; the limit is hit and recovers, again and again.
    let client = TcpStream::connect("127.0.0.1:3000").unwrap();
    let status = bench.wait("it was held and tried again", |status| {
        bench::service(status, "a.service").starts >= 9
    });
    assert_ne!(bench::socket(&status, "a.socket").state, "dead");
    drop(client);
    bench.stop();
}

fn not_there_yet(bench: &mut Bench) {
    let there = |last| listener(ListenKind::Stream, Address::Inet([10, 11, 12, last], 3000));
    let mut free = socket("free", vec![there(2)]);
    free.options = vec![SocketOption::FreeBind];
    let units = Units::default()
        .service("a.service", service(bench.path(), &["serve", "1"]))
        .socket("a.socket", "a.service", socket("a", vec![tcp(3000), there(1)]))
        .socket("b.socket", "a.service", free);
    bench.start(&units.build());
    bench.wait("it retries", |status| bench::socket(status, "a.socket").refused >= 2);
    let status = bench.status();
    assert_eq!(bench::socket(&status, "a.socket").state, "retrying");
    assert_eq!(bench::socket(&status, "b.socket").state, "listening");
    assert_eq!(status.listening_us, 0);
    // Whose address is there is served in the end.
    assert_eq!(split(&ask_tcp("127.0.0.1:3000", "x")).1, "x");
    let status = bench
        .wait("the service has gone", |status| bench::service(status, "a.service").state == "dead");
    assert_eq!(bench::socket(&status, "a.socket").state, "retrying");
    assert_ne!(status.listening_us, 0);
    bench::add_address([10, 11, 12, 1]);
    bench.wait("it listens", |status| bench::socket(status, "a.socket").state == "listening");
    assert_eq!(split(&ask_tcp("10.11.12.1:3000", "x")).1, "x");
    bench.stop();
}

fn restart(bench: &mut Bench) {
    let mut spec = service(bench.path(), &["exit", "7"]);
    spec.restart = Restart::OnFailure;
    spec.restart_delay_us = 20_000;
    spec.start_limit.burst = 0;
    let units = Units::default().service("a.service", spec).at_boot("a.service");
    bench.start(&units.build());
    let status =
        bench.wait("it was restarted", |status| bench::service(status, "a.service").restarts >= 3);
    assert_eq!(bench::service(&status, "a.service").last_exit.as_deref(), Some("exited 7"));
    bench.stop();
}

fn leftovers(bench: &mut Bench) {
    let units = Units::default()
        .service("a.service", service(bench.path(), &["leave-child"]))
        .socket("a.socket", "a.service", socket("a", vec![tcp(3000)]));
    bench.start(&units.build());
    let child = |bench: &Bench, nth: usize| {
        let line = bench.report().into_iter().filter(|it| it.starts_with("child")).nth(nth);
        line.unwrap()[6..].parse::<u32>().unwrap()
    };
    ask_tcp("127.0.0.1:3000", "x");
    bench.wait("it is gone", |status| bench::service(status, "a.service").state == "dead");
    if bench.has_cgroups() {
        // It had left our process group, but nobody leaves the cgroup.
        assert!(!std::fs::exists(format!("/proc/{}", child(bench, 0))).unwrap());
    }
    assert_eq!(split(&ask_tcp("127.0.0.1:3000", "again")).1, "again");
    bench.stop();
}

fn deaf(bench: &mut Bench) {
    let mut spec = service(bench.path(), &["ignore-term"]);
    spec.stop_timeout_us = 200_000;
    spec.kill_mode = KillMode::Mixed;
    let units = Units::default().service("a.service", spec).at_boot("a.service");
    bench.start(&units.build());
    bench.wait_report("deaf");
    bench.order(Request::Stop("a.service".into())).unwrap();
    let status = bench.wait("it is down", |status| {
        ["failed", "dead"].contains(&bench::service(status, "a.service").state.as_str())
    });
    assert_eq!(bench::service(&status, "a.service").last_exit.as_deref(), Some("killed 9"));
    bench.stop();
}

fn orphans(bench: &mut Bench) {
    let units = Units::default()
        .service("a.service", service(bench.path(), &["leave-orphan"]))
        .socket("a.socket", "a.service", socket("a", vec![tcp(3000)]));
    bench.start(&units.build());
    ask_tcp("127.0.0.1:3000", "x");
    bench.wait("it is down", |status| bench::service(status, "a.service").state == "dead");
    // Only logd is left of all our children, and no zombie.
    let pid = bench.pid();
    until("all children but logd are reaped", || {
        let path = format!("/proc/{pid}/task/{pid}/children");
        std::fs::read_to_string(path).unwrap().split_whitespace().count() == 1
    });
    bench.stop();
}

fn order(bench: &mut Bench) {
    let program = |name: &str| service(bench.path(), &["up-and-down", name]);
    let mut first = program("first");
    first.kind = ServiceKind::Simple;
    let units = Units::default()
        .service("z.service", first)
        .service("b.service", program("second"))
        .service("a.service", program("third"))
        .needs("b.service", "z.service")
        .after("a.service", "b.service")
        .at_boot("a.service")
        .at_boot("b.service");
    bench.start(&units.build());
    for line in ["up first", "up second", "up third"] {
        bench.wait_report(line);
    }
    bench.stop();
    let report = bench.report();
    let downs: Vec<&String> = report.iter().filter(|line| line.starts_with("down")).collect();
    assert_eq!(downs, ["down third", "down second", "down first"]);
}

fn readiness(bench: &mut Bench) {
    let mut first = service(bench.path(), &["ready"]);
    first.kind = ServiceKind::Notify;
    let units = Units::default()
        .service("a.service", first)
        .service("b.service", service(bench.path(), &["up-and-down", "b"]))
        .needs("b.service", "a.service")
        .at_boot("b.service");
    bench.start(&units.build());
    let status = bench.status();
    assert_eq!(status.state, "starting");
    assert_eq!(bench::service(&status, "a.service").state, "starting");
    assert_eq!(bench::service(&status, "b.service").state, "dead");
    bench.go();
    bench.wait_report("up b");
    let status = bench.wait("all is up", |status| status.state == "running");
    assert_eq!(bench::service(&status, "a.service").state, "running");
    bench.stop();
}

fn flood(bench: &mut Bench) {
    let mut spec = service(bench.path(), &["flood"]);
    spec.kind = ServiceKind::Notify;
    let units = Units::default()
        .service("a.service", service(bench.path(), &["serve", "1"]))
        .service("b.service", spec)
        .at_boot("b.service")
        .socket("a.socket", "a.service", socket("a", vec![tcp(3000)]));
    bench.start(&units.build());
    bench.wait("it is ready", |status| bench::service(status, "b.service").state == "running");
    for _ in 0..3 {
        assert_eq!(split(&ask_tcp("127.0.0.1:3000", "x")).1, "x");
    }
    bench.stop();
}

fn no_notify(bench: &mut Bench) {
    // Longer than the address of a Unix socket.
    let name = format!("{}.service", "b".repeat(100));
    let mut spec = service(bench.path(), &["exit", "0"]);
    spec.kind = ServiceKind::Notify;
    let units = Units::default()
        .service("a.service", service(bench.path(), &["serve", "0"]))
        .service(&name, spec)
        .at_boot(&name)
        .socket("a.socket", "a.service", socket("a", vec![tcp(3000)]));
    bench.start(&units.build());
    let status = bench.wait("it runs", |status| status.state == "running");
    assert_eq!(bench::service(&status, &name).state, "failed");
    assert!(bench.log().contains("failed to make its notify socket"), "{}", bench.log());
    assert_eq!(split(&ask_tcp("127.0.0.1:3000", "x")).1, "x");
    bench.stop();
}

fn stopper(bench: &mut Bench) {
    if bench::is_mapped_alone() {
        // All would be root, and the stopper would stop us, too.
        return;
    }
    bench.open_to_all();
    let user = Some(User { uid: 65534, gid: 65533, groups: vec![] });
    let mut short = service(bench.path(), &["exit", "0"]);
    short.kind = ServiceKind::Oneshot;
    short.execution.user = user.clone();
    short.execution.no_new_privileges = true;
    short.restart = Restart::Always;
    short.restart_delay_us = 1;
    short.start_limit = RateLimit { interval_us: 0, burst: 0 };
    (short.start_timeout_us, short.stop_timeout_us) = (3000, 3000);
    let mut stopper = service(bench.path(), &["stop-all"]);
    stopper.execution.user = user;
    let units = Units::default()
        .service("a.service", short)
        .service("b.service", stopper)
        .at_boot("a.service")
        .at_boot("b.service");
    bench.start(&units.build());
    // PID 1 sleeps while a child has not executed yet, and the child is stopped again and again.
    bench.wait("many have started", |status| bench::service(status, "a.service").starts > 200);
    bench.stop();
}

fn orders(bench: &mut Bench) {
    let units = Units::default()
        .service("a.service", service(bench.path(), &["serve", "0"]))
        .service("bad.service", service(bench.path(), &["exit", "3"]))
        .socket("a.socket", "a.service", socket("a", vec![tcp(3000)]));
    let mut manifest = units.build();
    if let activator::manifest::UnitKind::Service(service) = &mut manifest.units[2].kind {
        service.kind = ServiceKind::Oneshot;
    }
    bench.start(&manifest);
    bench.order(Request::Start("a.service".into())).unwrap();
    let first = bench::service(&bench.status(), "a.service").main_pid;
    assert!(first.is_some());
    // Started by order it has its fds, too.
    assert_eq!(Some(split(&ask_tcp("127.0.0.1:3000", "x")).0), first);
    bench.order(Request::Restart("a.service".into())).unwrap();
    let second = bench::service(&bench.status(), "a.service").main_pid;
    assert!(second.is_some() && second != first);
    bench.order(Request::Stop("a.service".into())).unwrap();
    let status = bench.status();
    assert_eq!(bench::service(&status, "a.service").state, "dead");
    assert_eq!(bench::socket(&status, "a.socket").state, "listening");
    bench.order(Request::Stop("a.socket".into())).unwrap();
    assert!(TcpStream::connect("127.0.0.1:3000").is_err());
    bench.order(Request::Start("a.socket".into())).unwrap();
    assert_eq!(split(&ask_tcp("127.0.0.1:3000", "y")).1, "y");
    let failed = bench.order(Request::Start("bad.service".into()));
    let expected = Failure::StartFailed("failed".into());
    assert!(matches!(failed, Err(client::Error::Refused(it)) if it == expected));
    bench.stop();
}

fn poweroff(bench: &mut Bench) {
    let units = Units::default()
        .service("a.service", service(bench.path(), &["up-and-down", "a"]))
        .at_boot("a.service");
    bench.start(&units.build());
    bench.wait_report("up a");
    bench.order(Request::Poweroff).unwrap();
    bench.wait_exit();
    assert_eq!(bench.report(), ["up a", "down a"]);
}

fn no_program(bench: &mut Bench) {
    let mut spec = service(bench.path(), &["exit", "0"]);
    spec.start[0].program = "/no/such/program".into();
    let mut elsewhere = service(bench.path(), &["exit", "0"]);
    elsewhere.execution.working_directory = "/no/such/directory".into();
    let units = Units::default().service("a.service", spec).service("b.service", elsewhere);
    bench.start(&units.build());
    for (name, code) in [("a.service", "exited 203"), ("b.service", "exited 200")] {
        let failed = bench.order(Request::Start(name.into()));
        assert!(matches!(failed, Err(client::Error::Refused(Failure::StartFailed(_)))));
        let status = bench.status();
        assert_eq!(bench::service(&status, name).last_exit.as_deref(), Some(code));
        assert_eq!(bench::service(&status, name).state, "failed");
    }
    bench.stop();
}

fn settings(bench: &mut Bench) {
    let mut spec = service(bench.path(), &["limits"]);
    spec.execution.umask = 0o027;
    spec.execution.working_directory = "/tmp".into();
    spec.execution.limits = vec![(7, 33, 44)];
    spec.execution.oom_score_adjust = Some(500);
    spec.execution.nice = Some(5);
    spec.execution.no_new_privileges = true;
    let units = Units::default().service("a.service", spec).at_boot("a.service");
    bench.start(&units.build());
    bench
        .wait_report("files (Some(33), Some(44)) umask 027 in /tmp score 500 NoNewPrivs: 1 nice 5");
    bench.stop();
}

fn user(bench: &mut Bench) {
    // The helper must be able to write its report.
    bench.open_to_all();
    let mut spec = service(bench.path(), &["who"]);
    spec.execution.user = Some(User { uid: 65534, gid: 65533, groups: vec![7, 9] });
    let units = Units::default().service("a.service", spec).at_boot("a.service");
    bench.start(&units.build());
    let status =
        bench.wait("it ended", |status| bench::service(status, "a.service").last_exit.is_some());
    let exit = bench::service(&status, "a.service").last_exit.clone();
    if bench::is_mapped_alone() {
        // In a user namespace with one id there is no other to become.
        assert_eq!(exit.as_deref(), Some("exited 216"));
        return bench.stop();
    }
    assert_eq!(exit.as_deref(), Some("exited 0"), "{}", bench.log());
    let expected = [
        "Uid: 65534 65534 65534 65534",
        "Gid: 65533 65533 65533 65533",
        "Groups: 7 9",
        "SigBlk: 0000000000000000",
        // Rust's runtime ignores SIGPIPE (13) in the helper itself.
        "SigIgn: 0000000000001000",
    ];
    assert_eq!(bench.report(), expected);
    bench.stop();
}

fn main_pid(bench: &mut Bench) {
    let mut spec = service(bench.path(), &["serve", "0"]);
    spec.stop = vec![command(&["main-pid", "<$MAINPID>"])];
    let units = Units::default().service("a.service", spec).at_boot("a.service");
    bench.start(&units.build());
    let status = bench.wait("it is up", |status| status.state == "running");
    let pid = bench::service(&status, "a.service").main_pid.unwrap();
    bench.wait_report("fds own=false");
    bench.stop();
    let line = format!("argument <{pid}> environment {pid}");
    assert_eq!(bench.report().last(), Some(&line));
}

fn logd(bench: &mut Bench) {
    let mut spec = service(bench.path(), &["serve", "0"]);
    spec.execution.stdout = activator::manifest::Output::Log;
    spec.execution.stderr = activator::manifest::Output::Inherit;
    let units = Units::default().service("a.service", spec).socket(
        "a.socket",
        "a.service",
        socket("a", vec![tcp(3000)]),
    );
    bench.start(&units.build());
    for round in 0..3 {
        let path = format!("/proc/{0}/task/{0}/children", bench.pid());
        let children = std::fs::read_to_string(path).unwrap();
        let logd = children.split_whitespace().map(|pid| pid.parse::<u32>().unwrap()).find(|pid| {
            let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            line.split(|byte| *byte == 0).nth(1) == Some(b"logd")
        });
        signal(logd.unwrap(), libc::SIGKILL);
        assert_eq!(split(&ask_tcp("127.0.0.1:3000", "x")).1, "x");
        let status = bench.wait(&format!("it answers again, {round}"), |_| true);
        assert_eq!(bench::service(&status, "a.service").starts, 1);
    }
    bench.stop();
}

fn exit_codes(bench: &mut Bench) {
    let run = |arguments: &[&str]| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_activator"));
        let output = command.args(arguments).output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let junk = bench.path().join("junk");
    std::fs::write(&junk, "junk").unwrap();
    let junk = junk.to_str().unwrap();
    assert_eq!(
        run(&["run", junk]),
        (Some(65), format!("activator: failed to use {junk}: this is no manifest\n"))
    );
    let (code, text) = run(&["run", "/no/such/file"]);
    assert_eq!(code, Some(69));
    assert!(text.starts_with("activator: failed to read /no/such/file: No such file"), "{text}");
    assert_eq!(run(&["run"]).0, Some(2));
    assert_eq!(run(&["no-such-verb"]).0, Some(2));
}

/// logd has a pipe of each: more than the limit that services start with.
fn many(bench: &mut Bench) {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: Some(64), ..limit }).unwrap();
    let units = (0..100).fold(Units::default(), |units, index| {
        let mut spec = service(bench.path(), &["sleep"]);
        spec.execution.stdout = Output::Log;
        units.service(&format!("s{index:02}.service"), spec)
    });
    bench.start(&units.build());
    assert_eq!(bench.status().services.len(), 100);
    bench.stop();
}
