//! Random units, random misfortune, and what must hold all the same.
//!
//! A schedule is made from a seed: units, then clients, ends of processes, failures of clone and
//! open, orders of people, storms of notifications, watchdogs, conditions that do not hold, daemons
//! that fork, units that react to each other's ends, jumps of the clock, in random order and at
//! random times. In it, always:
//! * no fd is closed before the machine goes down, whatever happens to services, unless a person
//!   stops the socket or somebody shuts the listener down;
//! * a service never has two main processes;
//! * a socket is not watched while anything of its service lives, unless it accepts itself;
//! * a connection that was accepted is closed, or given to one main process and to no other;
//! * nothing is frozen to which somebody relays;
//! * a service has one health check at a time, and none while it is frozen.
//!
//! A reload may come between any two events, and changes none of this.
//!
//! Then all misfortune ends, and in the end:
//! * (where no units conflict) every client was served: no edge was lost, every limit has recovered;
//! * nothing happens any more, and no deadline is left;
//! * going down stops everything in bounded time.
//!
//! `ROUSE_SIM_SCHEDULES` is the number of schedules, `ROUSE_SIM_FROM` the first of them (0), so that
//! several runs can share a large number; `ROUSE_SIM_SEED` runs one alone, and shows what happens in it.

mod dice;
mod units;
mod world;

use super::Supervisor;
use activator::manifest::{Unit, UnitKind};
use dice::Dice;
use std::io::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use world::World;

/// Schedules of one run of the tests, unless the environment says otherwise.
const SCHEDULES: u64 = 1_000_000;
/// Events until the misfortune ends.
const STEPS: usize = 60;
/// Events after that until all must be quiet.
const CALM_STEPS: usize = 5_000;
/// The same where health checks never end.
const CHECKED_STEPS: usize = 200;

#[test]
fn nothing_is_lost_in_any_schedule() {
    let number = |name| std::env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    let seed = number("ROUSE_SIM_SEED");
    let (from, count) = match seed {
        Some(seed) => (seed, 1),
        None => (
            number("ROUSE_SIM_FROM").unwrap_or(0),
            number("ROUSE_SIM_SCHEDULES").unwrap_or(SCHEDULES),
        ),
    };
    // On stderr itself: what println! writes is shown of tests that fail only.
    let _ = writeln!(std::io::stderr(), "ROUSE_SIM_FROM={from} ROUSE_SIM_SCHEDULES={count}");
    let next = AtomicU64::new(from);
    let run = || {
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= from + count {
                break;
            }
            let outcome = std::panic::catch_unwind(|| schedule(number, seed.is_some()));
            assert!(outcome.is_ok(), "schedule failed, run it with ROUSE_SIM_SEED={number}");
        }
    };
    // A seed is a whole world of its own: which thread runs it makes no difference.
    std::thread::scope(|scope| {
        for _ in 1..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(run);
        }
        run();
    });
}

fn schedule(seed: u64, shown: bool) {
    let mut dice = Dice::new(seed);
    let manifest = units::make(&mut dice);
    let mut world = World::new(&manifest, dice, shown);
    let mut it = Supervisor::new(&manifest, 0);
    it.boot(world.now, &mut world);
    for _ in 0..STEPS {
        world.fate();
        world.step(&mut it);
        world.assert_thawed(&it);
        if world.dice.one_in(90) {
            it = world.reload(it);
        }
    }
    world.calm_down();
    let is_checked =
        |unit: &Unit| matches!(&unit.kind, UnitKind::Service(service) if service.health.is_some());
    let checked = manifest.units.iter().any(is_checked);
    for _ in 0..if checked { CHECKED_STEPS } else { CALM_STEPS } {
        if !world.step(&mut it) {
            break;
        }
    }
    // Two services that exclude each other, each with a client that waits, go on for ever, and so
    // do health checks.
    if !checked && manifest.units.iter().all(|unit| unit.conflicts.is_empty()) {
        world.assert_served(&it);
        let calls = world.calls;
        it.tick(world.now + 3_600_000_000, &mut world);
        assert_eq!(world.calls, calls, "it is not quiet");
    }
    world.going_down = true;
    it.shut_down(world.now, &mut world);
    for _ in 0..CALM_STEPS {
        if it.is_shut_down() {
            break;
        }
        world.step(&mut it);
    }
    assert!(it.is_shut_down(), "it does not go down: {it:#?}");
}
