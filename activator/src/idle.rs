//! What keeps a service from being stopped or frozen when it is idle, told at start-up.

use crate::cgroup::Group;
use crate::sock_diag;
use activator::manifest::{Manifest, Service, Unit, UnitKind};

/// Complaints about the services that ask for it. `groups` are those of the units.
pub(crate) fn troubles(manifest: &Manifest, groups: &[Option<Group>]) -> Vec<String> {
    let mut troubles = vec![];
    for (unit, group) in manifest.units.iter().zip(groups) {
        let UnitKind::Service(service) = &unit.kind else { continue };
        if service.stop_when_idle_us == 0 && service.freeze_when_idle_us == 0 {
            continue;
        }
        if service.freeze_when_idle_us > 0 && !group.as_ref().is_some_and(Group::freezes) {
            troubles.push(format!("{}: it cannot be frozen, for want of a cgroup", unit.name));
        }
        troubles.extend(unseen(manifest, unit, service));
    }
    troubles
}

/// Listeners whose connections the kernel does not show, for want of a module.
fn unseen(manifest: &Manifest, unit: &Unit, service: &Service) -> Vec<String> {
    let sockets = service.sockets.iter().filter_map(|id| match &manifest.unit(*id)?.kind {
        UnitKind::Socket(socket) => Some(&socket.listeners),
        _ => None,
    });
    let unseen = sockets.flatten().filter_map(|listener| {
        let errno = sock_diag::is_connected(listener).err()?;
        Some(format!(
            "{}: it never counts as idle, since the kernel does not tell of connections to {}: \
             {errno}",
            unit.name, listener.address
        ))
    });
    unseen.collect()
}
