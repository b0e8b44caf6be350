//! What systemd.service(5) promises, done by the real activator to real processes.

use crate::bench::{self, Bench, ask_tcp, split};
use crate::build::{Units, command, service, socket, tcp};
use activator::control::Request;
use activator::manifest::*;

pub(crate) const TESTS: &[crate::Test] = &[
    ("services::forking_by_pid_file", |bench| forking(bench, Some("daemon.pid"))),
    ("services::forking_by_guess", |bench| forking(bench, None)),
    ("services::notify_reload_and_exec_reload", reload),
    ("services::a_watchdog_that_is_not_fed_restarts_its_service", watchdog),
    ("services::stored_fds_come_back_after_a_crash_and_not_after_a_stop", store),
    ("services::bound_parts_and_failures_go_together", relations),
    ("services::a_condition_skips_and_recovers_without_spinning", conditions),
    ("services::type_exec_by_way_of_stage_2_waits_for_the_program", exec),
    ("services::what_was_killed_with_its_cgroup_starts_again", killed),
    ("services::what_runs_after_a_service_knows_how_it_ended", epilogue),
];

fn forking(bench: &mut Bench, pid_file: Option<&str>) {
    if !bench.has_cgroups() {
        eprintln!("SKIPPED: daemons are found by their cgroup, and there is none to have");
        return;
    }
    let path = |name| bench.path().join(name).to_str().unwrap().to_owned();
    let mut spec = service(bench.path(), &["daemon", &path("daemon.pid")]);
    spec.kind = ServiceKind::Forking;
    spec.pid_file = pid_file.map(path);
    spec.restart = Restart::OnFailure;
    spec.restart_delay_us = 10_000;
    let units = Units::default().service("a.service", spec).at_boot("a.service");
    bench.start(&units.build());
    let up = |status: &activator::control::Status| {
        let a = bench::service(status, "a.service");
        a.state == "running" && a.main_pid.is_some()
    };
    let status = bench.wait("the daemon is found", up);
    let first = bench::service(&status, "a.service").main_pid.unwrap();
    let daemon = std::fs::read_to_string(bench.path().join("daemon.pid")).unwrap();
    assert_eq!(daemon.trim().parse(), Ok(first));
    bench::signal(first, libc::SIGKILL);
    bench.wait("it is made anew", |status| {
        up(status) && bench::service(status, "a.service").main_pid != Some(first)
    });
    bench.stop();
}

fn reload(bench: &mut Bench) {
    let mut talks = service(bench.path(), &["reloads"]);
    talks.kind = ServiceKind::NotifyReload;
    let mut plain = service(bench.path(), &["sleep"]);
    plain.reload = vec![command(&["main-pid", "<$MAINPID>"])];
    let units = Units::default()
        .service("a.service", talks)
        .service("b.service", plain)
        .at_boot("a.service")
        .at_boot("b.service");
    bench.start(&units.build());
    let status = bench.wait("both are up", |status| status.state == "running");
    bench.order(Request::ReloadUnit("a.service".into())).unwrap();
    // The order is over when the service has said so.
    assert_eq!(bench.report(), ["reloaded"]);
    assert_eq!(bench::service(&bench.status(), "a.service").text, "reloaded");
    bench.order(Request::ReloadUnit("b.service".into())).unwrap();
    let pid = bench::service(&status, "b.service").main_pid.unwrap();
    assert_eq!(bench.report()[1], format!("argument <{pid}> environment {pid}"));
    bench.stop();
}

fn watchdog(bench: &mut Bench) {
    // The first run stops feeding, the second goes on.
    let mut spec = service(bench.path(), &["watched"]);
    spec.kind = ServiceKind::Notify;
    spec.watchdog_us = 2_000_000;
    spec.restart = Restart::OnWatchdog;
    spec.restart_delay_us = 10_000;
    let units = Units::default().service("a.service", spec).at_boot("a.service");
    bench.start(&units.build());
    let status = bench.wait("it was restarted", |status| {
        let a = bench::service(status, "a.service");
        a.restarts == 1 && a.state == "running"
    });
    let last = bench::service(&status, "a.service").last_exit.clone().unwrap();
    assert!(["killed 6", "dumped 6"].contains(&last.as_str()), "{last}");
    assert_eq!(bench.report(), ["watched usec=2000000 own=true"; 2]);
    bench.stop();
}

fn store(bench: &mut Bench) {
    let mut spec = service(bench.path(), &["stores"]);
    spec.fd_store_max = 4;
    spec.notify_access = NotifyAccess::Main;
    spec.restart = Restart::OnFailure;
    spec.restart_delay_us = 10_000;
    let units = Units::default().service("a.service", spec).socket(
        "a.socket",
        "a.service",
        socket("a", vec![tcp(3000)]),
    );
    bench.start(&units.build());
    // The first run stores a file and crashes, the second finds it. A simple service is up as soon
    // as it is there, so the answer tells which of the two came first.
    let _ = bench.order(Request::Start("a.service".into()));
    bench.wait_report("names=a:kept text=remember");
    assert!(bench.report()[0].starts_with("names=a text="), "{:?}", bench.report());
    bench.order(Request::Stop("a.service".into())).unwrap();
    bench.go();
    bench.order(Request::Start("a.service".into())).unwrap();
    bench::until("it runs anew", || bench.report().len() >= 3);
    assert!(bench.report()[2].starts_with("names=a text="), "{:?}", bench.report());
    bench.stop();
}

fn exec(bench: &mut Bench) {
    let mut spec = service(bench.path(), &["serve", "0"]);
    spec.kind = ServiceKind::Exec;
    spec.execution.stage2 = Some(Box::default());
    let mut fails = spec.clone();
    fails.execution.working_directory = "/nowhere".into();
    let mut missing = spec.clone();
    missing.start[0].program = "/nowhere/program".into();
    let units = Units::default()
        .service("a.service", spec)
        .socket("a.socket", "a.service", socket("a", vec![tcp(3000)]))
        .service("b.service", fails)
        .service("c.service", missing);
    bench.start(&units.build());
    // Its fds are the same, whatever else stage 2 was given.
    let pid = split(&ask_tcp("127.0.0.1:3000", "x")).0;
    bench.order(Request::Start("a.service".into())).unwrap();
    assert_eq!(bench::service(&bench.status(), "a.service").main_pid, Some(pid));
    for (name, exit) in [("b.service", "exited 200"), ("c.service", "exited 203")] {
        assert!(bench.order(Request::Start(name.into())).is_err(), "{name}");
        let status = bench.status();
        let service = bench::service(&status, name);
        assert_eq!(service.last_exit.as_deref(), Some(exit), "{name}");
        assert_eq!(service.state, "failed");
    }
    bench.stop();
}

/// Some kernels kill whatever is born into a cgroup in which cgroup.kill was used once.
fn killed(bench: &mut Bench) {
    if !bench.has_cgroups() {
        eprintln!("SKIPPED: without cgroups nothing is killed with its cgroup");
        return;
    }
    let mut spec = service(bench.path(), &["serve", "0"]);
    spec.kill_signal = libc::SIGKILL;
    let units = Units::default()
        .service("a.service", spec)
        .socket("a.socket", "a.service", socket("a", vec![tcp(3000)]))
        .build();
    bench.start(&units);
    for _ in 0..3 {
        let pid = split(&ask_tcp("127.0.0.1:3000", "x")).0;
        let group = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
        assert!(group.trim_end().ends_with("/a.service"), "{group}");
        bench.order(Request::Stop("a.service".into())).unwrap();
        // The next activator knows it, too.
        crate::reload::reload(bench, &units);
    }
    bench.stop();
}

fn relations(bench: &mut Bench) {
    let plain = |verb: &[&str]| service(bench.path(), verb);
    let mut manifest = Units::default()
        .service("bound.service", plain(&["sleep"]))
        .service("part.service", plain(&["sleep"]))
        .service("rescue.service", plain(&["monitor"]))
        .service("whole.service", plain(&["wait", "3"]))
        .at_boot("bound.service")
        .at_boot("part.service")
        .needs("bound.service", "whole.service")
        .build();
    let id = |name: &str| manifest.find(name).unwrap();
    let (bound, part) = (id("bound.service"), id("part.service"));
    let (rescue, whole) = (id("rescue.service"), id("whole.service"));
    manifest.units[bound.index()].binds_to = vec![whole];
    manifest.units[part.index()].part_of = vec![whole];
    manifest.units[whole.index()].on_failure = vec![rescue];
    bench.start(&manifest);
    bench.wait("all are up", |status| status.state == "running");
    bench.go();
    bench.wait_report("monitor whole.service exit-code exited 3");
    let status = bench.wait("what was bound is down", |status| {
        bench::service(status, "bound.service").state == "dead"
    });
    assert_eq!(bench::service(&status, "whole.service").state, "failed");
    assert_eq!(bench::service(&status, "part.service").state, "running");
    bench.stop();
}

fn conditions(bench: &mut Bench) {
    let flag = bench.path().join("flag").to_str().unwrap().to_owned();
    let mut manifest = Units::default()
        .service("a.service", service(bench.path(), &["serve", "0"]))
        .socket("a.socket", "a.service", socket("a", vec![tcp(3000)]))
        .build();
    manifest.units[0].conditions = vec![Condition {
        group: Group::Condition,
        triggering: false,
        negate: false,
        check: Check::PathExists(flag.clone()),
    }];
    bench.start(&manifest);
    let client = std::thread::spawn(|| ask_tcp("127.0.0.1:3000", "x"));
    bench
        .wait("it was skipped some times", |status| bench::socket(status, "a.socket").refused >= 2);
    let status = bench.status();
    assert_eq!(bench::service(&status, "a.service").starts, 0);
    // Each waits twice as long as the one before, so there are few.
    assert!(bench::socket(&status, "a.socket").triggered < 20);
    std::fs::write(flag, "").unwrap();
    assert_eq!(split(&client.join().unwrap()).1, "x");
    bench.stop();
}

fn epilogue(bench: &mut Bench) {
    let mut spec = service(bench.path(), &["exit", "4"]);
    spec.stop_post = vec![command(&["epilogue"])];
    let units = Units::default().service("a.service", spec).at_boot("a.service");
    bench.start(&units.build());
    bench.wait_report("epilogue exit-code exited 4");
    bench.stop();
}
