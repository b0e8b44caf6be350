//! Types of services, notifications, watchdogs, time-outs, restarts.

use super::*;
use crate::supervise::Found;
use activator::notification::Watchdog;
use activator::stage2::Next;

/// A machine with one service and its socket, the service started by order.
fn started<'m>(manifest: &'m Manifest, hands: &mut Script) -> Supervisor<'m> {
    let mut it = Supervisor::new(manifest, 0);
    it.boot(0, hands);
    it.order_start(0, hands, A);
    hands.take();
    it
}

fn say(change: impl FnOnce(&mut Notification)) -> Notification {
    let mut said = Notification::default();
    change(&mut said);
    said
}

fn ready() -> Notification {
    say(|said| said.ready = true)
}

fn main_pid(it: &Supervisor) -> Option<u32> {
    match it.report(A) {
        Some(Report::Service { main_pid, .. }) => main_pid,
        other => panic!("{other:?}"),
    }
}

#[test]
fn forking_takes_the_process_of_its_pid_file_when_it_is_there() {
    let manifest = pair(|spec| {
        spec.kind = ServiceKind::Forking;
        spec.pid_file = Some("/run/a.pid".into());
    });
    let hands = &mut Script { leftovers: vec![0], ..Script::default() };
    let mut it = started(&manifest, hands);
    it.reaped(1, hands, 101, Exit::Code(0));
    assert_eq!(state(&it, 0), ServiceState::Starting);
    assert_eq!(it.deadline(), Some(10_001));
    it.tick(10_001, hands);
    hands.found = Some(Found::Process(55));
    it.tick(it.deadline().unwrap(), hands);
    assert_eq!((state(&it, 0), main_pid(&it)), (ServiceState::Running, Some(55)));
    // It is our child, as orphans are.
    hands.leftovers = vec![];
    hands.take();
    assert!(it.reaped(100_000, hands, 55, Exit::Code(0)));
    assert_eq!(hands.take(), [Spawn(0, Step::Clean(Next::Stop))]);
    assert!(it.reaped(100_001, hands, 102, Exit::Code(0)));
    assert_eq!(state(&it, 0), ServiceState::Dead);
}

#[test]
fn forking_without_a_main_process_lasts_as_long_as_anything_of_it() {
    let manifest = pair(|spec| spec.kind = ServiceKind::Forking);
    let hands =
        &mut Script { leftovers: vec![0], found: Some(Found::Unclear), ..Script::default() };
    let mut it = started(&manifest, hands);
    it.reaped(1, hands, 101, Exit::Code(0));
    assert_eq!((state(&it, 0), main_pid(&it)), (ServiceState::Running, None));
    it.emptied(2, hands);
    assert_eq!(state(&it, 0), ServiceState::Running);
    hands.leftovers = vec![];
    it.emptied(3, hands);
    assert_eq!(state(&it, 0), ServiceState::Dead);
}

#[test]
fn forking_whose_daemon_dies_before_its_pid_file_is_there_has_failed() {
    let manifest = pair(|spec| {
        spec.kind = ServiceKind::Forking;
        spec.pid_file = Some("/run/a.pid".into());
    });
    let hands = &mut Script { leftovers: vec![0], ..Script::default() };
    let mut it = started(&manifest, hands);
    it.reaped(1, hands, 101, Exit::Code(0));
    hands.leftovers = vec![];
    it.emptied(2, hands);
    it.reaped(3, hands, 102, Exit::Code(0));
    assert_eq!(state(&it, 0), ServiceState::Failed);
}

#[test]
fn a_main_process_that_is_somebody_elses_child_is_missed_when_it_ends() {
    let manifest = pair(|spec| spec.kill_mode = KillMode::Process);
    let hands = &mut Script::default();
    let mut it = started(&manifest, hands);
    it.notified(1, hands, A, &say(|said| said.main_pid = Some(77)));
    it.emptied(2, hands);
    assert_eq!(main_pid(&it), Some(77));
    hands.dead = vec![77];
    it.emptied(3, hands);
    assert_eq!(state(&it, 0), ServiceState::Dead);
}

#[test]
fn who_may_speak_is_what_notify_access_says() {
    let heard = |access, sender| {
        let manifest = pair(|spec| {
            spec.notify_access = access;
            spec.start_post = vec![command()];
        });
        let hands = &mut Script::default();
        // Main is 101, its ExecStartPost= 102.
        started(&manifest, hands).hears(A, sender)
    };
    use NotifyAccess::{All, Exec, Main, None};
    let table = [(None, [false; 3]), (Main, [true, false, false])];
    for (access, expected) in
        table.into_iter().chain([(Exec, [true, true, false]), (All, [true; 3])])
    {
        assert_eq!([101, 102, 9].map(|sender| heard(access, sender)), expected, "{access:?}");
    }
}

/// `RESTART_RESET=1`
#[test]
fn a_service_that_works_at_last_may_have_its_restart_delay_begin_anew() {
    let manifest = pair(|spec| {
        spec.restart = Restart::Always;
        spec.restart_delay_us = 100_000;
        spec.restart_max_delay_us = 1_600_000;
        spec.restart_steps = 4;
        spec.start_limit.burst = 0;
    });
    let hands = &mut Script::default();
    let mut it = started(&manifest, hands);
    let (mut now, mut delays) = (0, vec![]);
    for run in 0..6 {
        if run == 4 {
            it.notified(now, hands, A, &say(|said| said.restart_reset = true));
        }
        it.reaped(now, hands, 101 + run, Exit::Code(1));
        let until = it.deadline().unwrap();
        delays.push((until - now + 1) / 100_000);
        now = until;
        it.tick(now, hands);
    }
    assert_eq!(delays, [1, 2, 4, 8, 1, 2]);
}

#[test]
fn a_watchdog_that_is_not_fed_aborts_and_restarts() {
    let manifest = pair(|spec| {
        spec.kind = ServiceKind::Notify;
        spec.watchdog_us = 1_000;
        spec.restart = Restart::OnWatchdog;
    });
    let hands = &mut Script::default();
    let mut it = started(&manifest, hands);
    assert_eq!(hands.told.unwrap().watchdog_us, 1_000);
    it.notified(10, hands, A, &ready());
    assert_eq!(it.deadline(), Some(1_010));
    it.notified(500, hands, A, &say(|said| said.watchdog = Some(Watchdog::Alive)));
    it.tick(1_010, hands);
    assert_eq!(hands.take(), []);
    it.tick(1_500, hands);
    assert_eq!(hands.take(), [Kill(0, Whom::All, libc::SIGABRT)]);
    it.reaped(1_600, hands, 101, Exit::Dumped(libc::SIGABRT));
    assert_eq!(state(&it, 0), ServiceState::Waiting);

    // Asked for, or with another interval.
    it.order_start(2_000, hands, A);
    it.notified(2_000, hands, A, &ready());
    it.notified(2_000, hands, A, &say(|said| said.watchdog_us = Some(9_000_000)));
    assert_eq!(it.deadline(), Some(9_002_000));
    hands.take();
    it.notified(2_000, hands, A, &say(|said| said.watchdog = Some(Watchdog::Trigger)));
    assert_eq!(hands.take(), [Kill(0, Whom::All, libc::SIGABRT)]);
}

#[test]
fn a_reload_of_notify_reload_is_over_when_it_says_so_about_this_one() {
    let manifest = pair(|spec| spec.kind = ServiceKind::NotifyReload);
    let hands = &mut Script::default();
    let mut it = started(&manifest, hands);
    it.notified(1, hands, A, &ready());
    it.order_reload(100, hands, A);
    assert_eq!(hands.take(), [Kill(0, Whom::Process(101), libc::SIGHUP)]);
    assert_eq!(state(&it, 0), ServiceState::Reloading);
    // What it said before the signal is about something else.
    let reloading = |at| say(|said| said.reloading = Some(at));
    it.notified(101, hands, A, &reloading(Some(99)));
    it.notified(101, hands, A, &ready());
    assert_eq!(state(&it, 0), ServiceState::Reloading);
    it.notified(102, hands, A, &reloading(Some(101)));
    it.notified(103, hands, A, &ready());
    assert_eq!(state(&it, 0), ServiceState::Running);

    // One that never answers is as it was.
    it.order_reload(200, hands, A);
    it.tick(it.deadline().unwrap(), hands);
    assert_eq!(state(&it, 0), ServiceState::Running);
    // And one by itself.
    it.notified(300, hands, A, &reloading(None));
    assert_eq!(state(&it, 0), ServiceState::Reloading);
}

#[test]
fn a_reload_runs_its_commands_and_a_failure_changes_nothing() {
    let manifest = pair(|spec| spec.reload = vec![command(), command()]);
    let hands = &mut Script::default();
    let mut it = started(&manifest, hands);
    it.order_reload(1, hands, A);
    assert_eq!(hands.take(), [Spawn(0, Step::Reload(0))]);
    assert_eq!(hands.told.unwrap().main, Some(101));
    it.reaped(2, hands, 102, Exit::Code(0));
    assert_eq!(hands.take(), [Spawn(0, Step::Reload(1))]);
    it.reaped(3, hands, 103, Exit::Code(1));
    assert_eq!((state(&it, 0), main_pid(&it)), (ServiceState::Running, Some(101)));
    assert_eq!(result(&it, 0), JobResult::Failed);
    // The next one is told by itself, and so is a start that comes to its end at once.
    it.order_reload(4, hands, A);
    it.reaped(5, hands, 104, Exit::Code(0));
    it.reaped(6, hands, 105, Exit::Code(0));
    assert_eq!((state(&it, 0), result(&it, 0)), (ServiceState::Running, JobResult::Done));
    it.reaped(7, hands, 101, Exit::Code(1));
    assert_eq!((state(&it, 0), result(&it, 0)), (ServiceState::Failed, JobResult::Done));
}

#[test]
fn a_service_that_stops_by_itself_is_only_timed() {
    let manifest = pair(|_| {});
    let hands = &mut Script::default();
    let mut it = started(&manifest, hands);
    it.notified(1, hands, A, &say(|said| said.stopping = true));
    assert_eq!((state(&it, 0), hands.take()), (ServiceState::Stopping, vec![]));
    // What it leaves behind is told.
    hands.leftovers = vec![0];
    it.reaped(2, hands, 101, Exit::Code(0));
    assert_eq!(hands.take(), [Kill(0, Whom::All, libc::SIGTERM)]);
    hands.leftovers = vec![];
    it.emptied(3, hands);
    assert_eq!(state(&it, 0), ServiceState::Dead);
}

#[test]
fn nothing_extends_a_stop_for_ever_when_the_machine_goes_down() {
    let manifest = pair(|spec| spec.stop_timeout_us = 1_000_000);
    let hands = &mut Script::default();
    let mut it = started(&manifest, hands);
    it.shut_down(0, hands);
    let extend = say(|said| said.extend_timeout_us = Some(u64::MAX));
    it.notified(1, hands, A, &extend);
    assert_eq!(it.deadline(), Some(90_000_000));
    it.notified(89_999_999, hands, A, &extend);
    assert_eq!(it.deadline(), Some(90_000_000));
}

#[test]
fn a_run_that_lasts_too_long_is_stopped() {
    let manifest = pair(|spec| {
        spec.runtime_max_us = 5_000;
        spec.stop = vec![command()];
    });
    let hands = &mut Script::default();
    let mut it = started(&manifest, hands);
    assert_eq!(it.deadline(), Some(5_000));
    it.tick(5_000, hands);
    assert_eq!(hands.take(), [Spawn(0, Step::Stop(0))]);
    it.reaped(5_001, hands, 102, Exit::Code(0));
    it.reaped(5_002, hands, 101, Exit::Signal(libc::SIGTERM));
    assert_eq!(state(&it, 0), ServiceState::Failed);
}

#[test]
fn time_outs_end_as_their_failure_modes_say() {
    use FailureMode::{Abort, Kill as Sigkill, Terminate};
    let signals = [(Terminate, libc::SIGTERM), (Abort, libc::SIGABRT), (Sigkill, libc::SIGKILL)];
    for (mode, signal) in signals {
        let manifest = pair(|spec| {
            spec.kind = ServiceKind::Notify;
            spec.start_failure = mode;
            spec.stop_failure = mode;
        });
        let hands = &mut Script { leftovers: vec![0], ..Script::default() };
        let mut it = started(&manifest, hands);
        it.tick(90_000_000, hands);
        assert_eq!(hands.take(), [Kill(0, Whom::All, signal)], "{mode:?}");
    }
}

#[test]
fn the_signals_of_a_stop_are_those_of_systemd_kill() {
    let manifest = pair(|spec| {
        spec.restart_kill_signal = libc::SIGUSR1;
        spec.final_kill_signal = libc::SIGQUIT;
        spec.send_sighup = true;
    });
    let hands = &mut Script { leftovers: vec![0], ..Script::default() };
    let mut it = started(&manifest, hands);
    it.order_restart(1, hands, A);
    let all = |signal| Kill(0, Whom::All, signal);
    assert_eq!(hands.take(), [all(libc::SIGUSR1), all(libc::SIGHUP)]);
    it.tick(it.deadline().unwrap(), hands);
    assert_eq!(hands.take(), [all(libc::SIGQUIT)]);
}

#[test]
fn what_runs_after_it_is_told_how_it_ended() {
    let manifest = pair(|spec| spec.stop_post = vec![command()]);
    let hands = &mut Script::default();
    let mut it = started(&manifest, hands);
    it.reaped(1, hands, 101, Exit::Code(3));
    let ended = hands.told.unwrap().ended.unwrap();
    assert_eq!((ended.result.as_str(), ended.exit), ("exit-code", Some(Exit::Code(3))));
}

#[test]
fn the_fd_store_lasts_over_a_restart_and_ends_with_a_stop() {
    let manifest = pair(|spec| {
        spec.fd_store_max = 2;
        spec.restart = Restart::OnFailure;
    });
    let hands = &mut Script::default();
    let mut it = started(&manifest, hands);
    it.reaped(1, hands, 101, Exit::Code(3));
    it.tick(it.deadline().unwrap(), hands);
    assert_eq!(state(&it, 0), ServiceState::Running);
    it.order_restart(2, hands, A);
    it.reaped(3, hands, 102, Exit::Code(0));
    assert!(!hands.take().contains(&DropStore(0)));
    it.order_stop(4, hands, A);
    it.reaped(5, hands, 103, Exit::Code(0));
    assert!(hands.take().contains(&DropStore(0)));
}

#[test]
fn exit_type_cgroup_waits_for_the_last_process() {
    let manifest = pair(|spec| spec.exit_type = ExitType::Cgroup);
    let hands = &mut Script { leftovers: vec![0], ..Script::default() };
    let mut it = started(&manifest, hands);
    it.reaped(1, hands, 101, Exit::Code(0));
    assert_eq!(state(&it, 0), ServiceState::Running);
    hands.leftovers = vec![];
    it.emptied(2, hands);
    assert_eq!(state(&it, 0), ServiceState::Dead);
}
