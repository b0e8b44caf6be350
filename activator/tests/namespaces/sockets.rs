//! Socket units: their own commands, and the rarer kinds of listeners.

use crate::Test;
use crate::bench::{self, Bench, ask_unix, split};
use crate::build::{Units, command, service, socket, unix};
use activator::control::Request;
use activator::manifest::{Execution, Output, Socket};
use std::os::unix::net::UnixStream;

pub(crate) const TESTS: &[Test] = &[
    ("sockets::their_commands_run_before_and_behind_opening_and_closing", commands),
    ("sockets::a_failing_start_pre_prevents_the_opening", gate),
    ("sockets::a_failing_start_post_closes_what_was_opened", post),
    ("sockets::a_command_that_takes_too_long_is_ended", slow),
    ("sockets::a_stop_does_not_wait_for_a_start", hurry),
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
