//! Random units.

use super::super::tests::{command, manifest, service, socket, unit};
use super::dice::Dice;
use activator::manifest::*;

/// One to four services with up to two sockets each; a later one may depend on earlier ones.
pub(super) fn make(dice: &mut Dice) -> Manifest {
    let services = 1 + dice.below(4) as u16;
    let checked = dice.one_in(6);
    let templates: Vec<bool> = (0..services).map(|_| dice.one_in(4)).collect();
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
        spec.restart =
            *dice.pick(&[Restart::No, Restart::No, Restart::OnFailure, Restart::OnAbnormal]);
        spec.kill_mode = *dice.pick(&[KillMode::ControlGroup, KillMode::Mixed, KillMode::Process]);
        if dice.one_in(4) {
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
        // Nobody can require a template.
        for other in (0..index).map(UnitId).filter(|other| !templates[other.index()]) {
            match dice.below(8) {
                0 => one.after.push(other),
                1 => {
                    one.requires.push(other);
                    one.after.push(other);
                }
                2 => one.wants.push(other),
                3 if dice.one_in(4) => one.conflicts.push(other),
                4 if !templates[usize::from(index)] => {
                    relay(&mut one, UnitId(index), &mut units[other.index()], other);
                }
                _ => {}
            }
        }
        units.push(one);
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
        if relayed(&units[usize::from(index)]) {
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
    let oneshot = |unit: &Unit| matches!(&unit.kind, UnitKind::Service(it) if it.kind == ServiceKind::Oneshot);
    if oneshot(other) {
        return;
    }
    one.requires.push(target);
    one.binds_to.push(target);
    one.after.push(target);
    if let UnitKind::Service(service) = &mut other.kind {
        service.relays.push(id);
    }
}
