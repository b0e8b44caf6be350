//! What one unit's end or coming up means for others.

use super::*;

/// Services a, b, c...
fn services<const N: usize>(change: impl FnOnce(&mut [Unit; N])) -> Manifest {
    let names = ["a.service", "b.service", "c.service"];
    let mut units: [Unit; N] =
        std::array::from_fn(|index| unit(names[index], UnitKind::Service(service())));
    change(&mut units);
    manifest(units.into())
}

const B: UnitId = UnitId(1);
const C: UnitId = UnitId(2);

fn up<'m>(manifest: &'m Manifest, hands: &mut Script, units: &[UnitId]) -> Supervisor<'m> {
    let mut it = Supervisor::new(manifest, 0);
    it.boot(0, hands);
    for unit in units {
        it.order_start(0, hands, *unit);
    }
    hands.take();
    it
}

fn term(unit: u16) -> Call {
    Kill(unit, Whom::All, libc::SIGTERM)
}

#[test]
fn what_is_bound_to_a_unit_goes_with_it_and_what_only_requires_it_does_not() {
    let manifest = services::<3>(|units| {
        units[0].requires = vec![C];
        units[0].binds_to = vec![C];
        units[1].requires = vec![C];
    });
    let hands = &mut Script::default();
    let mut it = up(&manifest, hands, &[A, B]);
    // 101 is a, 102 is c, 103 is b.
    assert!(it.reaped(1, hands, 102, Exit::Code(0)));
    assert_eq!(hands.take(), [term(0)]);
    assert_eq!(state(&it, 1), ServiceState::Running);
}

#[test]
fn a_stop_is_propagated_by_order_and_by_itself() {
    let manifest = services::<2>(|units| units[1].stops = vec![A]);
    let hands = &mut Script::default();
    let mut it = up(&manifest, hands, &[A, B]);
    it.order_stop(1, hands, B);
    let mut calls = hands.take();
    calls.sort_by_key(|call| format!("{call:?}"));
    assert_eq!(calls, [term(0), term(1)]);

    let hands = &mut Script::default();
    let mut it = up(&manifest, hands, &[A, B]);
    // 101 is a, 102 is b.
    assert!(it.reaped(1, hands, 102, Exit::Code(0)));
    assert_eq!(hands.take(), [term(0)]);
}

#[test]
fn a_part_is_stopped_and_restarted_with_the_whole_but_not_started() {
    let manifest = services::<2>(|units| units[0].part_of = vec![B]);
    let hands = &mut Script::default();
    let mut it = up(&manifest, hands, &[B]);
    assert_eq!(state(&it, 0), ServiceState::Dead);
    it.order_start(1, hands, A);
    hands.take();
    it.order_restart(2, hands, B);
    let mut calls = hands.take();
    calls.sort_by_key(|call| format!("{call:?}"));
    assert_eq!(calls, [term(0), term(1)]);
    it.reaped(3, hands, 101, Exit::Code(0));
    it.reaped(4, hands, 102, Exit::Code(0));
    assert_eq!([0, 1].map(|unit| state(&it, unit)), [ServiceState::Running; 2]);
    // Its end by itself is its own affair.
    it.reaped(5, hands, 103, Exit::Code(0));
    assert_eq!(state(&it, 0), ServiceState::Running);
}

#[test]
fn a_requisite_is_not_started_but_missed() {
    let manifest = services::<2>(|units| units[0].requisite = vec![B]);
    let hands = &mut Script::default();
    let mut it = up(&manifest, hands, &[A]);
    assert_eq!([0, 1].map(|unit| state(&it, unit)), [ServiceState::Failed, ServiceState::Dead]);
    it.order_start(1, hands, B);
    it.order_start(2, hands, A);
    assert_eq!(state(&it, 0), ServiceState::Running);
}

#[test]
fn what_is_upheld_is_started_again_and_held_by_its_limit() {
    let manifest = services::<2>(|units| units[0].upholds = vec![B]);
    let hands = &mut Script::default();
    let mut it = up(&manifest, hands, &[A]);
    assert_eq!(state(&it, 1), ServiceState::Running);
    for round in 0..4 {
        assert!(it.reaped(1 + u64::from(round), hands, 102 + round, Exit::Code(1)));
        assert_eq!(state(&it, 1), ServiceState::Running, "{round}");
    }
    assert!(it.reaped(9, hands, 106, Exit::Code(1)));
    assert_eq!(state(&it, 1), ServiceState::Failed);
    it.tick(it.deadline().unwrap(), hands);
    assert_eq!(state(&it, 1), ServiceState::Running);
    it.order_stop(20_000_000, hands, A);
    it.reaped(20_000_001, hands, 101, Exit::Code(0));
    it.reaped(20_000_002, hands, 107, Exit::Code(0));
    assert_eq!(state(&it, 1), ServiceState::Dead);
}

#[test]
fn a_failure_or_a_good_end_starts_others_and_tells_them() {
    let manifest = services::<3>(|units| {
        units[0].on_failure = vec![B];
        units[0].on_success = vec![C];
    });
    let hands = &mut Script::default();
    let mut it = up(&manifest, hands, &[A]);
    it.reaped(1, hands, 101, Exit::Code(7));
    assert_eq!(hands.take(), [Spawn(1, Step::Start(0))]);
    let (unit, ended) = hands.told.unwrap().monitor.unwrap();
    assert_eq!((unit, ended.exit), (A, Some(Exit::Code(7))));
    it.order_start(2, hands, A);
    it.reaped(3, hands, 103, Exit::Code(0));
    assert_eq!(hands.take(), [Spawn(0, Step::Start(0)), Spawn(2, Step::Start(0))]);
    assert_eq!(hands.told.unwrap().monitor.unwrap().1.result.as_str(), "success");
}

#[test]
fn a_failure_that_restart_will_mend_is_not_told() {
    let manifest = services::<2>(|units| {
        units[0].on_failure = vec![B];
        let UnitKind::Service(spec) = &mut units[0].kind else { panic!() };
        spec.restart = Restart::OnFailure;
    });
    let hands = &mut Script::default();
    let mut it = up(&manifest, hands, &[A]);
    it.reaped(1, hands, 101, Exit::Code(7));
    assert_eq!((state(&it, 0), state(&it, 1)), (ServiceState::Waiting, ServiceState::Dead));
}

#[test]
fn a_restart_that_the_start_limit_holds_is_told_once_for_each_hold() {
    for (exit, expected) in [(7, "exit-code"), (0, "start-limit-hit")] {
        let manifest = services::<2>(|units| {
            units[0].on_failure = vec![B];
            let UnitKind::Service(spec) = &mut units[0].kind else { panic!() };
            spec.restart = Restart::Always;
        });
        let hands = &mut Script::default();
        let mut it = up(&manifest, hands, &[A]);
        let (mut now, mut main, mut runs, mut alerts) = (1, 101, 1, vec![]);
        while runs < 16 {
            it.reaped(now, hands, main, Exit::Code(exit));
            while state(&it, 0) != ServiceState::Running {
                now = it.deadline().unwrap();
                it.tick(now, hands);
                let pid = 100 + hands.pids;
                match hands.take()[..] {
                    [] => {}
                    [Spawn(0, Step::Start(0))] => (main, runs) = (pid, runs + 1),
                    [Spawn(1, Step::Start(0))] => {
                        let (unit, ended) = hands.told.unwrap().monitor.unwrap();
                        assert_eq!((unit, ended.result.as_str()), (A, expected));
                        assert_eq!(state(&it, 0), ServiceState::Waiting);
                        alerts.push(runs);
                        it.reaped(now, hands, pid, Exit::Code(0));
                    }
                    ref calls => panic!("{calls:?}"),
                }
            }
        }
        assert_eq!(alerts, [5, 10, 15]);
    }
}

#[test]
fn what_nobody_needs_is_stopped() {
    let manifest = services::<3>(|units| {
        units[0].requires = vec![C];
        units[1].wants = vec![C];
        units[2].stop_when_unneeded = true;
    });
    let hands = &mut Script::default();
    let mut it = up(&manifest, hands, &[A, B]);
    it.reaped(1, hands, 101, Exit::Code(0));
    assert_eq!((state(&it, 2), hands.take()), (ServiceState::Running, vec![]));
    it.reaped(2, hands, 103, Exit::Code(0));
    assert_eq!(hands.take(), [term(2)]);
}

#[test]
fn a_reload_is_propagated() {
    let manifest = services::<2>(|units| {
        units[0].reloads = vec![B];
        for unit in units {
            let UnitKind::Service(spec) = &mut unit.kind else { panic!() };
            spec.reload = vec![command()];
        }
    });
    let hands = &mut Script::default();
    let mut it = up(&manifest, hands, &[A, B]);
    it.order_reload(1, hands, A);
    assert_eq!(hands.take(), [0, 1].map(|unit| Spawn(unit, Step::Reload(0))));
}
