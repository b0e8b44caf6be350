//! Conditions of units, and `ExecCondition=`.

use super::*;

fn condition() -> Condition {
    Condition {
        group: Group::Condition,
        triggering: false,
        negate: false,
        check: Check::PathExists("/x".into()),
    }
}

fn conditional(change: impl FnOnce(&mut Service)) -> Manifest {
    let mut manifest = pair(change);
    manifest.units[0].conditions = vec![condition()];
    manifest
}

/// systemd#2467: with data that waits and a condition that is false, systemd spins.
#[test]
fn a_condition_that_fails_with_data_pending_does_not_spin_systemd_2467() {
    for (manifest, step) in [
        (conditional(|spec| spec.start_limit.burst = 0), Step::Conditions),
        (
            pair(|spec| {
                spec.condition = vec![command()];
                spec.start_limit.burst = 0;
            }),
            Step::Condition(0),
        ),
    ] {
        let hands = &mut Script::default();
        let mut it = Supervisor::new(&manifest, 0);
        it.boot(0, hands);
        let (mut now, mut looked_at) = (1, vec![]);
        for round in 0..14 {
            // The client waits: each watch finds it at once, whenever there is one.
            while !hands.take().contains(&Spawn(0, step)) {
                if socket_state(&it, 1) == SocketState::Listening {
                    it.triggered(now, hands, S, 0);
                }
                if let Some(next) = it.deadline().filter(|next| *next > now)
                    && !hands.calls.contains(&Spawn(0, step))
                {
                    now = next;
                    it.tick(now, hands);
                }
            }
            looked_at.push(now);
            it.reaped(now, hands, 101 + round, Exit::Code(1));
            assert_eq!(state(&it, 0), ServiceState::Dead);
        }
        let delays: Vec<u64> =
            looked_at.windows(2).map(|pair| (pair[1] - pair[0]) / 100_000).collect();
        assert!(delays[..8].is_sorted() && delays[3] >= 8, "{delays:?}");
        assert!(delays.iter().all(|delay| *delay <= 620), "{delays:?}");
        // It holds at last, and nothing is held any more.
        hands.take();
        while !hands.calls.contains(&Spawn(0, step)) {
            if socket_state(&it, 1) == SocketState::Listening {
                it.triggered(now, hands, S, 0);
            }
            if let Some(next) = it.deadline().filter(|next| *next > now)
                && !hands.calls.contains(&Spawn(0, step))
            {
                now = next;
                it.tick(now, hands);
            }
        }
        it.reaped(now, hands, 115, Exit::Code(0));
        assert_eq!(state(&it, 0), ServiceState::Running);
        assert!(!hands.events.iter().any(|(_, event)| *event == Event::Failed));
    }
}

#[test]
fn a_condition_skips_and_an_assertion_fails() {
    for (exit, expected, told) in [
        (Exit::Code(0), ServiceState::Running, JobResult::Done),
        (Exit::Code(1), ServiceState::Dead, JobResult::Done),
        (Exit::Code(254), ServiceState::Dead, JobResult::Done),
        (Exit::Code(255), ServiceState::Failed, JobResult::Failed),
        (Exit::Signal(9), ServiceState::Failed, JobResult::Failed),
    ] {
        let manifest = conditional(|_| {});
        let hands = &mut Script::default();
        let mut it = Supervisor::new(&manifest, 0);
        it.boot(0, hands);
        it.order_start(1, hands, A);
        assert!(hands.calls.contains(&Spawn(0, Step::Conditions)));
        assert!(it.reaped(2, hands, 101, exit));
        assert_eq!((state(&it, 0), result(&it, 0)), (expected, told), "{exit:?}");
    }
}

#[test]
fn who_requires_a_unit_that_was_skipped_starts_all_the_same() {
    let mut manifest = chain();
    manifest.units[1].conditions = vec![condition()];
    let hands = &mut Script::default();
    let mut it = Supervisor::new(&manifest, 0);
    it.boot(0, hands);
    assert_eq!(hands.take(), [Spawn(1, Step::Conditions)]);
    it.reaped(1, hands, 101, Exit::Code(1));
    assert_eq!(hands.take(), [0, 2].map(|unit| Spawn(unit, Step::Start(0))));
}

#[test]
fn sockets_and_targets_have_conditions_too() {
    let mut manifest = pair(|_| {});
    manifest.units[1].conditions = vec![condition()];
    let hands = &mut Script::default();
    let mut it = Supervisor::new(&manifest, 0);
    it.boot(0, hands);
    assert_eq!(hands.take(), [Spawn(1, Step::Conditions)]);
    it.reaped(1, hands, 101, Exit::Code(1));
    assert_eq!((socket_state(&it, 1), hands.take()), (SocketState::Dead, vec![]));
    it.order_start(2, hands, S);
    it.reaped(3, hands, 102, Exit::Code(0));
    assert_eq!(hands.take(), [Spawn(1, Step::Conditions), Open(1), Watch(1, 0)]);
}

#[test]
fn a_look_that_hangs_is_killed_and_one_that_cannot_be_made_is_tried_again() {
    let manifest = conditional(|_| {});
    let hands = &mut Script { spawn_error: Some(libc::EAGAIN), ..Script::default() };
    let mut it = Supervisor::new(&manifest, 0);
    it.boot(0, hands);
    hands.take();
    it.order_start(0, hands, A);
    hands.spawn_error = None;
    assert_eq!(hands.take(), [Unwatch(1, 0)]);
    it.tick(it.deadline().unwrap(), hands);
    assert_eq!(hands.take(), [Spawn(0, Step::Conditions)]);
    it.tick(it.deadline().unwrap(), hands);
    assert_eq!(hands.take(), [Kill(0, Whom::Process(101), libc::SIGKILL)]);
    it.reaped(100_000_000, hands, 101, Exit::Signal(libc::SIGKILL));
    assert_eq!(state(&it, 0), ServiceState::Failed);
}
