//! A manifest in words: what the guest will do, for people.

mod execution;
mod sandbox;
mod service;
mod socket;

use super::quoting::quote;
use super::value::time;
use activator::manifest::{
    Check, Command, Condition, Group, INSTANCE, INSTANCE_UNESCAPED, Interface, Manifest, RateLimit,
    Unit, UnitId, UnitKind,
};
use std::fmt::Write;
use std::net::Ipv4Addr;

/// Everything that differs from one guest to another, in a fixed order; defaults are left out.
pub fn describe(manifest: &Manifest) -> String {
    let mut text = format!("{}\n", manifest.name);
    let boot = &manifest.boot;
    for module in &boot.modules {
        let required = if module.required { "" } else { " (if it loads)" };
        line(&mut text, "module", &format!("{} {}{required}", module.path, module.parameters));
    }
    for (name, value) in &boot.sysctls {
        line(&mut text, "sysctl", &format!("{name} = {value}"));
    }
    for writable in &boot.writable {
        line(&mut text, "tmpfs", &format!("{} mode {:04o}", writable.path, writable.mode));
    }
    if let Some(interface) = &boot.interface {
        line(&mut text, "network", &network(interface));
    }
    for disk in &boot.disks {
        line(&mut text, "disk", &format!("{} ({}) at {}", disk.device, disk.kind, disk.path));
    }
    let at_boot: Vec<&str> = manifest
        .units
        .iter()
        .filter(|unit| unit.start_at_boot)
        .map(|unit| unit.name.as_str())
        .collect();
    line(
        &mut text,
        "at boot",
        &if at_boot.is_empty() { "nothing".into() } else { at_boot.join(" ") },
    );
    for user in &manifest.users {
        let ids =
            format!("{} ({}:{}) lives in {}", user.name, user.ids.uid, user.ids.gid, user.home);
        line(&mut text, "user", &ids);
    }
    for unit in &manifest.units {
        let owner = unit.owner.and_then(|owner| manifest.users.get(usize::from(owner)));
        let _ = write!(text, "\n{}", unit.name);
        if let Some(owner) = owner {
            let _ = write!(text, " of {}", owner.name);
        }
        if unit.description != unit.name {
            let _ = write!(text, ": {}", unit.description);
        }
        text.push('\n');
        let names = Names { units: &manifest.units };
        match &unit.kind {
            UnitKind::Socket(socket) => socket::describe(&mut text, socket, unit, &names),
            UnitKind::Service(service) => service::describe(&mut text, service, &names),
            UnitKind::Target => {}
        }
        relations(&mut text, unit, &names);
    }
    // What the guest knows of a connection, as its template says it.
    text.replace(INSTANCE, "%i").replace(INSTANCE_UNESCAPED, "%I")
}

fn network(interface: &Interface) -> String {
    let Some(fixed) = &interface.fixed else { return format!("{} by DHCP", interface.name) };
    let address = Ipv4Addr::from(fixed.address);
    let mut text = format!("{} {address}/{}", interface.name, fixed.prefix);
    if let Some(gateway) = fixed.gateway {
        let _ = write!(text, " by {}", Ipv4Addr::from(gateway));
    }
    text
}

/// What a unit has to do with others.
fn relations(text: &mut String, unit: &Unit, names: &Names<'_>) {
    for (word, ids) in [
        ("requires", &unit.requires),
        ("needs up", &unit.requisite),
        ("wants", &unit.wants),
        ("bound to", &unit.binds_to),
        ("part of", &unit.part_of),
        ("upholds", &unit.upholds),
        ("after", &unit.after),
        ("conflicts", &unit.conflicts),
        ("on failure", &unit.on_failure),
        ("on success", &unit.on_success),
        ("reloads", &unit.reloads),
        ("stops", &unit.stops),
    ] {
        if !ids.is_empty() {
            line(text, word, &names.list(ids));
        }
    }
    if unit.stop_when_unneeded {
        line(text, "stopped", "when no other unit needs it");
    }
    for condition in &unit.conditions {
        let word = match condition.group {
            Group::Condition => "only if",
            Group::Assert => "fails if not",
        };
        line(text, word, &show_condition(condition));
    }
}

/// `!PathExists /a`, as the key and its value.
fn show_condition(condition: &Condition) -> String {
    let negate = if condition.negate { "not " } else { "" };
    let one_of = if condition.triggering { " (one of these is enough)" } else { "" };
    format!("{negate}{}{one_of}", show_check(&condition.check))
}

/// The variant is the key's name, and has its value.
fn show_check(check: &Check) -> String {
    let text = format!("{check:?}");
    let (name, value) = text.split_once('(').unwrap_or((&text, ""));
    format!("{name} {}", value.strip_suffix(')').unwrap_or(value))
}

struct Names<'a> {
    units: &'a [Unit],
}

impl Names<'_> {
    fn one(&self, id: UnitId) -> &str {
        self.units.get(id.index()).map_or("(no unit)", |unit| unit.name.as_str())
    }

    fn list(&self, ids: &[UnitId]) -> String {
        ids.iter().map(|id| self.one(*id)).collect::<Vec<_>>().join(" ")
    }
}

fn line(text: &mut String, word: &str, value: &str) {
    let _ = writeln!(text, "  {word:<10} {}", value.trim_end());
}

fn limit(limit: RateLimit) -> String {
    match (limit.interval_us, limit.burst) {
        (0, _) | (_, 0) => "without limit".into(),
        (interval, burst) => format!("at most {burst} in {}", time::show(interval)),
    }
}

/// A command line, and what is unusual about it.
fn show(command: &Command) -> String {
    let mut words: Vec<String> = command.arguments.iter().map(|word| quote(word)).collect();
    match words.first_mut() {
        Some(first) if command.arguments[0] == command.program => *first = quote(&command.program),
        Some(first) => *first = format!("{} (as {first})", quote(&command.program)),
        None => words.push(quote(&command.program)),
    }
    let mut shown = words.join(" ");
    for (flag, text) in [
        (command.shell, "in a shell"),
        (command.expand, "variables are filled in by the guest"),
        (command.ignore_failure, "may fail"),
        (command.privileged, "as root"),
        (command.privileged_user, "as root, but confined"),
    ] {
        if flag {
            let _ = write!(shown, "  ({text})");
        }
    }
    shown
}
