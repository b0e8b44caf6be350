//! Random units.

use super::super::tests::{command, manifest, service, socket, unit};
use super::dice::Dice;
use activator::manifest::*;

/// One to four services with up to two sockets each; a later one may depend on earlier ones.
pub(super) fn make(dice: &mut Dice) -> Manifest {
    let services = 1 + dice.below(4) as u16;
    let checked = dice.one_in(6);
    let templates: Vec<bool> = (0..services).map(|_| dice.one_in(4)).collect();
    // Nobody calls at these. What may leave a caller waiting for ever is theirs alone.
    let doorless: Vec<bool> =
        templates.iter().map(|template| !template && dice.one_in(4)).collect();
    let mut units: Vec<Unit> = vec![];
    for index in 0..services {
        let mut spec = service();
        spec.kind = *dice.pick(&[
            ServiceKind::Simple,
            ServiceKind::Exec,
            ServiceKind::Notify,
            ServiceKind::NotifyReload,
            ServiceKind::Oneshot,
            ServiceKind::Forking,
        ]);
        spec.pid_file = dice.one_in(2).then(|| "/run/x.pid".into());
        spec.watchdog_us = *dice.pick(&[0, 0, 2_000_000]);
        spec.restart = restart(dice, spec.kind);
        spec.kill_mode = *dice.pick(&[
            KillMode::ControlGroup,
            KillMode::ControlGroup,
            KillMode::Mixed,
            KillMode::Process,
            KillMode::None,
        ]);
        if spec.restart == Restart::No && dice.one_in(4) {
            spec.runtime_max_us = *dice.pick(&[50_000, 3_000_000]);
        }
        spec.remain_after_exit = doorless[usize::from(index)] && dice.one_in(2);
        if !doorless[usize::from(index)] && dice.one_in(4) {
            spec.stop_when_idle_us = *dice.pick(&[0, 2_000_000, 9_000_000]);
            spec.freeze_when_idle_us = *dice.pick(&[0, 1_000_000, 5_000_000]);
        }
        if checked && dice.one_in(2) {
            spec.health = Some(Box::new(health(dice)));
        }
        spec.restart_delay_us = *dice.pick(&[0, 100_000, 5_000_000]);
        spec.start_limit.burst = *dice.pick(&[0, 1, 5]);
        spec.start_timeout_us = *dice.pick(&[0, 90_000_000]);
        for commands in [
            &mut spec.start_pre,
            &mut spec.start_post,
            &mut spec.stop,
            &mut spec.stop_post,
            &mut spec.reload,
            &mut spec.condition,
        ] {
            *commands = vec![command(); dice.below(4).saturating_sub(2) as usize];
        }
        let mut one = unit(&format!("{index}.service"), UnitKind::Service(spec));
        if dice.one_in(6) {
            let check = Check::PathExists("/x".into());
            let group = Group::Condition;
            one.conditions = vec![Condition { group, triggering: false, negate: false, check }];
        }
        one.start_at_boot = dice.one_in(4) && !templates[usize::from(index)];
        one.stop_when_unneeded = doorless[usize::from(index)] && dice.one_in(4);
        // Nobody can require a template.
        for other in (0..index).map(UnitId).filter(|other| !templates[other.index()]) {
            let of_template = templates[usize::from(index)];
            relate(dice, &mut one, UnitId(index), of_template, &mut units[other.index()], other);
        }
        units.push(one);
    }
    for index in (0..services).filter(|index| doorless[usize::from(*index)]) {
        let id = UnitId(index);
        let of = |unit: &Unit| {
            [&unit.requires, &unit.binds_to, &unit.upholds].map(|it| it.contains(&id))
        };
        if index > 0 && dice.one_in(4) && !units.iter().any(|unit| of(unit).contains(&true)) {
            let other = UnitId(dice.below(u64::from(index)) as u16);
            if !templates[other.index()] {
                units[usize::from(index)].requisite.push(other);
            }
        }
    }
    for index in 0..services {
        if templates[usize::from(index)] {
            let name = format!("{index}-a.socket");
            let mut spec = socket(index, 1 + dice.below(2) as usize);
            spec.accept = Some(Accept {
                max_connections: 1 + dice.below(4) as u32,
                max_per_source: dice.below(3) as u32,
            });
            spec.trigger_limit.burst = *dice.pick(&[0, 2, 200]);
            spec.poll_limit.burst = *dice.pick(&[1, 150]);
            let mut one = unit(&name, UnitKind::Socket(spec));
            one.start_at_boot = true;
            units.push(one);
            continue;
        }
        // With sockets of its own, too, it would be looked at for ever while a relay is up.
        let relayed =
            |unit: &Unit| matches!(&unit.kind, UnitKind::Service(it) if !it.relays.is_empty());
        if doorless[usize::from(index)] || relayed(&units[usize::from(index)]) {
            continue;
        }
        for number in 0..dice.below(3) {
            let name = format!("{index}-{number}.socket");
            let mut spec = socket(index, 1 + dice.below(2) as usize);
            spec.trigger_limit.burst = *dice.pick(&[0, 2, 20]);
            spec.poll_limit.burst = *dice.pick(&[1, 15]);
            // Their failures would close it; they may only take long.
            let command = || Command { ignore_failure: true, ..command() };
            for commands in
                [&mut spec.start_pre, &mut spec.start_post, &mut spec.stop_pre, &mut spec.stop_post]
            {
                *commands = vec![command(); dice.below(4).saturating_sub(2) as usize];
            }
            spec.timeout_us = 0;
            let id = UnitId(units.len() as u16);
            let mut one = unit(&name, UnitKind::Socket(spec));
            one.start_at_boot = true;
            units.push(one);
            let owner = &mut units[usize::from(index)];
            owner.after.push(id);
            if let UnitKind::Service(service) = &mut owner.kind {
                service.sockets.push(id);
            }
        }
    }
    manifest(units)
}

/// systemd refuses those of a oneshot service that would start it for ever.
fn restart(dice: &mut Dice, kind: ServiceKind) -> Restart {
    use Restart::{Always, No, OnAbnormal, OnAbort, OnFailure, OnSuccess, OnWatchdog};
    match *dice.pick(&[No, No, No, OnFailure, OnAbnormal, OnAbort, OnWatchdog, OnSuccess, Always]) {
        OnSuccess | Always if kind == ServiceKind::Oneshot => No,
        restart => restart,
    }
}

/// What one service has to do with an earlier one.
fn relate(
    dice: &mut Dice,
    one: &mut Unit,
    id: UnitId,
    of_template: bool,
    other: &mut Unit,
    target: UnitId,
) {
    // Whoever needs what does not last may never get to its callers.
    match dice.below(12) {
        0 => one.after.push(target),
        1 if lasts(other) => {
            one.requires.push(target);
            one.after.push(target);
        }
        2 => one.wants.push(target),
        3 if dice.one_in(4) => one.conflicts.push(target),
        4 if !of_template && lasts(other) => relay(one, id, other, target),
        5 => one.part_of.push(target),
        6 => one.reloads.push(target),
        7 if lasts(one) && !is_oneshot(one) => one.stops.push(target),
        8 if lasts(other) && !is_oneshot(other) => {
            one.binds_to.push(target);
            one.after.push(target);
        }
        9 if is_upholdable(other) => one.upholds.push(target),
        _ => {}
    }
    if dice.one_in(10) {
        one.on_failure.push(target);
    }
    if dice.one_in(20) {
        one.on_success.push(target);
    }
}

fn is_oneshot(unit: &Unit) -> bool {
    matches!(&unit.kind, UnitKind::Service(it) if it.kind == ServiceKind::Oneshot)
}

/// It has neither `RuntimeMaxSec=` nor `StopWhenUnneeded=`.
fn lasts(unit: &Unit) -> bool {
    let limited = matches!(&unit.kind, UnitKind::Service(it) if it.runtime_max_us > 0);
    !limited && !unit.stop_when_unneeded
}

/// Whether it may be brought up again for ever: nothing brings it down in calm times.
fn is_upholdable(unit: &Unit) -> bool {
    let UnitKind::Service(service) = &unit.kind else { return false };
    let ends = is_oneshot(unit) || !lasts(unit);
    let sleeps = service.stop_when_idle_us > 0 || service.freeze_when_idle_us > 0;
    let others = [&unit.requires, &unit.wants, &unit.binds_to, &unit.part_of];
    let alone = others.iter().all(|it| it.is_empty());
    !ends && !sleeps && alone
}

fn health(dice: &mut Dice) -> HealthCheck {
    let mut probe = || Probe {
        command: command(),
        interval_us: *dice.pick(&[0, 50_000, 500_000, 30_000_000]),
        timeout_us: *dice.pick(&[0, 1_000_000]),
    };
    let (regular, startup) = (probe(), probe());
    let retries = dice.below(3) as u32;
    let startup = StartupCheck { probe: startup, retries, successes: dice.below(3) as u32 };
    HealthCheck {
        probe: regular,
        retries: 1 + dice.below(3) as u32,
        start_period_us: *dice.pick(&[0, 3_000_000]),
        on_failure: *dice.pick(&[
            OnUnhealthy::None,
            OnUnhealthy::Kill,
            OnUnhealthy::Restart,
            OnUnhealthy::Stop,
        ]),
        startup: dice.one_in(3).then_some(startup),
        no_verdict: dice.one_in(2).then_some(1),
        makes_ready: dice.one_in(2),
    }
}

/// One service relays to another, as the host has it of `X-RelayTo=`. A oneshot service would take
/// its relay along before that has served anybody.
fn relay(one: &mut Unit, id: UnitId, other: &mut Unit, target: UnitId) {
    if is_oneshot(other) {
        return;
    }
    one.requires.push(target);
    one.binds_to.push(target);
    one.after.push(target);
    if let UnitKind::Service(service) = &mut other.kind {
        service.relays.push(id);
    }
}
