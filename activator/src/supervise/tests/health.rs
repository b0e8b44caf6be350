//! Health checks.

use super::*;
use activator::control::HealthState;

const SECOND: u64 = 1_000_000;

/// One every 10 s with a time-out of 3 s; three failures are too many.
fn check(change: impl FnOnce(&mut HealthCheck)) -> Manifest {
    let probe = |interval| Probe {
        command: command(),
        interval_us: interval * SECOND,
        timeout_us: 3 * SECOND,
    };
    let mut health = HealthCheck {
        probe: probe(10),
        retries: 3,
        start_period_us: 0,
        on_failure: OnUnhealthy::None,
        startup: Some(StartupCheck { probe: probe(5), retries: 2, successes: 2 }),
        no_verdict: Some(125),
        makes_ready: false,
    };
    change(&mut health);
    pair(|spec| {
        spec.kind = match health.makes_ready {
            true => ServiceKind::Notify,
            false => ServiceKind::Exec,
        };
        spec.health = Some(Box::new(health));
    })
}

fn started<'m>(manifest: &'m Manifest, hands: &mut Script) -> Supervisor<'m> {
    let mut it = Supervisor::new(manifest, 0);
    it.boot(0, hands);
    it.order_start(0, hands, A);
    hands.take();
    it
}

fn verdict(it: &Supervisor) -> Option<HealthState> {
    match it.report(A) {
        Some(Report::Service { health, .. }) => health,
        other => panic!("{other:?}"),
    }
}

/// The next check runs, and ends with that code a second later. Gives that time.
fn look(it: &mut Supervisor, hands: &mut Script, step: Step, code: u8) -> u64 {
    let at = it.deadline().unwrap();
    it.tick(at, hands);
    assert_eq!(hands.take(), [Spawn(0, step)], "at {at}");
    let pid = 100 + hands.pids;
    assert!(it.reaped(at + SECOND, hands, pid, Exit::Code(code)));
    at + SECOND
}

fn events(hands: &mut Script) -> Vec<Event> {
    let all = std::mem::take(&mut hands.events).into_iter().map(|(_, event)| event);
    all.filter(|event| matches!(event, Event::Healthy | Event::Unhealthy(_))).collect()
}

#[test]
fn a_service_is_starting_then_healthy_then_unhealthy() {
    let manifest = check(|health| health.startup = None);
    let hands = &mut Script::default();
    let mut it = started(&manifest, hands);
    assert_eq!((verdict(&it), it.deadline()), (Some(HealthState::Starting), Some(SECOND)));
    let at = look(&mut it, hands, Step::Health, 0);
    assert_eq!((verdict(&it), it.deadline()), (Some(HealthState::Healthy), Some(at + 10 * SECOND)));
    look(&mut it, hands, Step::Health, 1);
    look(&mut it, hands, Step::Health, 7);
    assert_eq!(verdict(&it), Some(HealthState::Healthy));
    look(&mut it, hands, Step::Health, 1);
    assert_eq!(verdict(&it), Some(HealthState::Unhealthy));
    look(&mut it, hands, Step::Health, 1);
    look(&mut it, hands, Step::Health, 0);
    assert_eq!(verdict(&it), Some(HealthState::Healthy));
    assert_eq!(events(hands), [Event::Healthy, Event::Unhealthy(3), Event::Healthy]);
    assert_eq!(state(&it, 0), ServiceState::Running);
    it.reaped(900 * SECOND, hands, 101, Exit::Code(0));
    assert_eq!((verdict(&it), it.deadline()), (None, None));
}

#[test]
fn failures_of_the_start_period_do_not_count() {
    let manifest = check(|health| {
        (health.startup, health.retries, health.start_period_us) = (None, 1, 20 * SECOND);
    });
    let hands = &mut Script::default();
    let mut it = started(&manifest, hands);
    assert_eq!(look(&mut it, hands, Step::Health, 1), 2 * SECOND);
    assert_eq!(look(&mut it, hands, Step::Health, 1), 13 * SECOND);
    assert_eq!(verdict(&it), Some(HealthState::Starting));
    assert_eq!(look(&mut it, hands, Step::Health, 1), 24 * SECOND);
    assert_eq!(verdict(&it), Some(HealthState::Unhealthy));
}

#[test]
fn a_check_that_hangs_is_ended_and_has_failed() {
    let manifest = check(|health| (health.startup, health.retries) = (None, 1));
    let hands = &mut Script::default();
    let mut it = started(&manifest, hands);
    it.tick(SECOND, hands);
    hands.take();
    it.tick(it.deadline().unwrap(), hands);
    assert_eq!(hands.take(), [Kill(0, Whom::Process(102), libc::SIGTERM)]);
    it.tick(it.deadline().unwrap(), hands);
    assert_eq!(hands.take(), [Kill(0, Whom::Process(102), libc::SIGKILL)]);
    // It says that all is well, but too late.
    it.reaped(9 * SECOND, hands, 102, Exit::Code(0));
    assert_eq!((verdict(&it), it.deadline()), (Some(HealthState::Unhealthy), Some(19 * SECOND)));
}

#[test]
fn the_startup_check_comes_first_and_restarts_what_does_not_start() {
    let manifest = check(|_| {});
    let hands = &mut Script::default();
    let mut it = started(&manifest, hands);
    look(&mut it, hands, Step::HealthStartup, 1);
    look(&mut it, hands, Step::HealthStartup, 0);
    look(&mut it, hands, Step::HealthStartup, 0);
    look(&mut it, hands, Step::Health, 0);
    assert_eq!(verdict(&it), Some(HealthState::Healthy));

    let hands = &mut Script::default();
    let mut it = started(&manifest, hands);
    look(&mut it, hands, Step::HealthStartup, 1);
    it.tick(it.deadline().unwrap(), hands);
    hands.take();
    it.reaped(9 * SECOND, hands, 103, Exit::Code(1));
    assert_eq!(hands.take(), [Kill(0, Whom::All, libc::SIGTERM)]);
    it.reaped(10 * SECOND, hands, 101, Exit::Signal(15));
    assert_eq!(hands.take(), [Spawn(0, Step::Start(0))]);
    assert_eq!(verdict(&it), Some(HealthState::Starting));
}

#[test]
fn what_follows_is_as_the_unit_says() {
    let run = |on_failure| {
        let manifest = check(|health| {
            (health.startup, health.retries, health.on_failure) = (None, 1, on_failure);
        });
        let hands = &mut Script::default();
        let mut it = started(&manifest, hands);
        look(&mut it, hands, Step::Health, 1);
        let calls = hands.take();
        hands.leftovers = vec![];
        it.reaped(5 * SECOND, hands, 101, Exit::Signal(9));
        (calls, hands.take(), state(&it, 0))
    };
    let (term, kill) = (Kill(0, Whom::All, libc::SIGTERM), Kill(0, Whom::All, libc::SIGKILL));
    let (calls, _, _) = run(OnUnhealthy::None);
    assert_eq!(calls, []);
    let (calls, _, end) = run(OnUnhealthy::Kill);
    assert_eq!((calls, end), (vec![kill], ServiceState::Failed));
    let (calls, _, end) = run(OnUnhealthy::Stop);
    assert_eq!((calls, end), (vec![term.clone()], ServiceState::Failed));
    let (calls, then, end) = run(OnUnhealthy::Restart);
    assert_eq!((calls, end), (vec![term], ServiceState::Running));
    assert_eq!(then, [Spawn(0, Step::Start(0))]);
}

#[test]
fn notify_healthy_is_ready_with_the_first_success() {
    let manifest = check(|health| (health.startup, health.makes_ready) = (None, true));
    let hands = &mut Script::default();
    let mut it = started(&manifest, hands);
    look(&mut it, hands, Step::Health, 1);
    assert_eq!(state(&it, 0), ServiceState::Starting);
    look(&mut it, hands, Step::Health, 0);
    assert_eq!(state(&it, 0), ServiceState::Running);
    assert_eq!(verdict(&it), Some(HealthState::Healthy));
}

#[test]
fn a_check_that_found_no_container_counts_neither_way() {
    let manifest = check(|health| (health.startup, health.retries) = (None, 1));
    let hands = &mut Script::default();
    let mut it = started(&manifest, hands);
    // Nobody knows yet how it is: again soon, as often as it takes.
    for _ in 0..3 {
        let at = look(&mut it, hands, Step::Health, 125);
        assert_eq!((verdict(&it), it.deadline()), (Some(HealthState::Starting), Some(at + SECOND)));
    }
    look(&mut it, hands, Step::Health, 0);
    let at = look(&mut it, hands, Step::Health, 125);
    assert_eq!((verdict(&it), it.deadline()), (Some(HealthState::Healthy), Some(at + 10 * SECOND)));
    // The startup check is no other.
    let manifest = check(|health| health.retries = 1);
    let mut it = started(&manifest, hands);
    for _ in 0..3 {
        look(&mut it, hands, Step::HealthStartup, 125);
    }
    assert_eq!(verdict(&it), Some(HealthState::Starting));
    look(&mut it, hands, Step::HealthStartup, 0);
    look(&mut it, hands, Step::HealthStartup, 0);
    look(&mut it, hands, Step::Health, 1);
    assert_eq!(verdict(&it), Some(HealthState::Unhealthy));
}
