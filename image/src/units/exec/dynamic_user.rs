//! `DynamicUser=`: a user that no image has.
//!
//! systemd takes a free id at each start. Here it is given at build time, from the name: the same
//! in every boot and in most builds, so that state directories keep their owner. Two units with
//! one `User=` share the id, as they do in systemd.

use crate::units::accounts::Accounts;
use crate::units::graph::{Body, Node};
use crate::units::name::Name;
use activator::manifest::{Execution, ProtectHome, ProtectSystem, Sandbox};
use std::collections::{BTreeMap, BTreeSet};

/// The ids that systemd keeps for this: "Dynamic Service Users" in its UIDS-GIDS.
const FIRST: u32 = 61184;
const LAST: u32 = 65519;
/// Stands for the id until all units are read. As an id, it means "none" to chown(2).
pub(super) const PENDING: u32 = u32::MAX;

/// Whether a text can be a login name: the strict rule of systemd.
pub(super) fn is_name(text: &str) -> bool {
    let first = |c: char| c.is_ascii_alphabetic() || c == '_';
    let other = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    text.len() <= 31 && text.starts_with(first) && text.chars().all(other)
}

/// The name for a unit that gives none: its prefix, or a hash of it.
pub(super) fn name_of(unit: &Name) -> String {
    match is_name(unit.prefix()) {
        true => unit.prefix().to_owned(),
        false => format!("_du{:016x}", hash(unit.prefix())),
    }
}

/// What the key implies, whatever else the unit says; stricter values stay.
pub(super) fn confine(sandbox: &mut Sandbox) {
    if sandbox.protect_system == ProtectSystem::No {
        sandbox.protect_system = ProtectSystem::Strict;
    }
    if sandbox.protect_home == ProtectHome::No {
        sandbox.protect_home = ProtectHome::ReadOnly;
    }
    sandbox.private_tmp = true;
    sandbox.remove_ipc = true;
    sandbox.restrict_suid_sgid = true;
}

/// Gives every name its id, in the order of the names: no two names share one, and no account of
/// the image has it.
pub(crate) fn assign(nodes: &mut BTreeMap<Name, Node>, accounts: &Accounts) {
    let mut executions: Vec<&mut Execution> = nodes
        .values_mut()
        .filter_map(|node| match &mut node.body {
            Body::Socket(unit) => Some(&mut unit.socket.execution),
            Body::Service(unit) => Some(&mut unit.service.execution),
            Body::Target => None,
        })
        .collect();
    let name = |execution: &Execution| {
        let stage2 = execution.stage2.as_deref();
        stage2.and_then(|it| it.dynamic_user.as_ref()).map(|user| user.name.clone())
    };
    let names: BTreeSet<String> = executions.iter().filter_map(|it| name(it)).collect();
    let ids = ids(&names, |id| accounts.has_id(id));
    for execution in &mut executions {
        let Some(id) = name(execution).and_then(|name| ids.get(&name).copied()) else { continue };
        if let Some(user) = &mut execution.user {
            user.uid = id;
            user.gid = if user.gid == PENDING { id } else { user.gid };
        }
        if let Some(user) = execution.stage2.as_mut().and_then(|it| it.dynamic_user.as_mut()) {
            user.uid = id;
        }
    }
}

fn ids(names: &BTreeSet<String>, taken: impl Fn(u32) -> bool) -> BTreeMap<String, u32> {
    let count = LAST - FIRST + 1;
    let mut ids = BTreeMap::new();
    let mut given = BTreeSet::new();
    for name in names {
        let start = (hash(name) % u64::from(count)) as u32;
        let mut candidates = (0..count).map(|step| FIRST + (start + step) % count);
        // 65,535 units are the limit; more than 4,336 names share the last one.
        let id = candidates.find(|id| !taken(*id) && !given.contains(id)).unwrap_or(LAST);
        given.insert(id);
        ids.insert(name.clone(), id);
    }
    ids
}

/// FNV-1a: short, and the same everywhere.
fn hash(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_users() {
        for good in ["echo", "_x", "a-b_9"] {
            assert!(is_name(good), "{good}");
        }
        for bad in ["", "9a", "-a", "a.b", "ä", &"a".repeat(32)] {
            assert!(!is_name(bad), "{bad}");
        }
        let name = |text: &str| name_of(&Name::parse(text).unwrap());
        assert_eq!(name("echo@x.service"), "echo");
        assert!(name("a.b.service").starts_with("_du"));
    }

    #[test]
    fn every_name_has_an_id_of_its_own() {
        let names: BTreeSet<String> = (0..1000).map(|number| format!("user{number}")).collect();
        let first = ids(&names, |_| false);
        let different: BTreeSet<u32> = first.values().copied().collect();
        assert_eq!(different.len(), names.len());
        assert!(different.iter().all(|id| (FIRST..=LAST).contains(id)));
        let of_one = first["user0"];
        let around = ids(&names, |id| id == of_one);
        assert!(around.values().all(|id| *id != of_one), "an account of the image has it");
        assert_eq!(ids(&names, |_| false), first, "the same every time");
    }
}
