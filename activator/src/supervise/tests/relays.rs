//! Services behind relays: idle when the last of them has ended.

use super::super::Supervisor;
use super::*;

const RELAY: UnitId = UnitId(1);
const DOOR: UnitId = UnitId(2);

/// Unit 0 is the service, unit 1 its relay, unit 2 the relay's socket, which starts at boot.
fn relayed(change: impl FnOnce(&mut Service)) -> Manifest {
    let mut target = service();
    target.relays = vec![RELAY];
    change(&mut target);
    let mut relay = service();
    relay.kind = ServiceKind::Notify;
    relay.sockets = vec![DOOR];
    let mut relay = unit("a-relay.service", UnitKind::Service(relay));
    relay.requires = vec![A];
    relay.binds_to = vec![A];
    relay.after = vec![A];
    let mut door = unit("a.socket", UnitKind::Socket(socket(1, 1)));
    door.start_at_boot = true;
    manifest(vec![unit("a.service", UnitKind::Service(target)), relay, door])
}

/// Booted, and woken by a client: the service is child 101, the relay child 102 and ready.
fn woken<'m>(manifest: &'m Manifest, hands: &mut Script) -> Supervisor<'m> {
    let mut it = Supervisor::new(manifest, 0);
    it.boot(0, hands);
    it.triggered(1, hands, DOOR, 0);
    let expected = [Spawn(0, Step::Start(0)), Spawn(1, Step::Start(0))];
    assert_eq!(hands.take(), [&[Open(2), Watch(2, 0), Unwatch(2, 0)], &expected[..]].concat());
    let ready = Notification { ready: true, ..Notification::default() };
    it.notified(2, hands, RELAY, &ready);
    assert_eq!(state(&it, 1), ServiceState::Running);
    it
}

#[test]
fn the_end_of_the_relay_stops_an_idle_service() {
    let manifest = relayed(|service| service.stop_when_idle_us = 800_000);
    let hands = &mut Script::default();
    let mut it = woken(&manifest, hands);
    // However long its clients stay.
    assert_eq!(it.deadline(), None);
    assert!(it.reaped(9_000_000, hands, 102, Exit::Code(0)));
    assert_eq!(hands.take(), [Watch(2, 0)]);
    // The relay has waited for the idle time already.
    assert_eq!(it.deadline(), Some(9_000_000));
    it.tick(9_000_000, hands);
    assert_eq!(hands.take(), [Call::Freeze(0)]);
    it.emptied(9_000_001, hands);
    assert_eq!(hands.take(), [Kill(0, Whom::All, libc::SIGTERM), Thaw(0)]);
    assert!(it.reaped(9_000_002, hands, 101, Exit::Signal(libc::SIGTERM)));
    assert_eq!(state(&it, 0), ServiceState::Dead);
    assert_eq!(it.deadline(), None);
}

#[test]
fn a_client_thaws_the_service_by_way_of_the_relay() {
    let manifest = relayed(|service| {
        service.freeze_when_idle_us = 800_000;
        service.stop_when_idle_us = 2_000_000;
    });
    let hands = &mut Script::default();
    let mut it = woken(&manifest, hands);
    assert!(it.reaped(5_000_000, hands, 102, Exit::Code(0)));
    it.tick(5_000_000, hands);
    it.emptied(5_000_001, hands);
    assert_eq!(hands.take(), [Watch(2, 0), Call::Freeze(0)]);
    assert_eq!(state(&it, 0), ServiceState::Frozen);
    // Both times count from the relay's last connection.
    assert_eq!(it.deadline(), Some(5_000_000 - 800_000 + 2_000_000));
    it.triggered(5_500_000, hands, DOOR, 0);
    assert_eq!(hands.take(), [Unwatch(2, 0), Spawn(1, Step::Start(0)), Thaw(0)]);
    assert_eq!(state(&it, 0), ServiceState::Running);
}

#[test]
fn a_service_that_ends_takes_its_relay_along() {
    let manifest = relayed(|_| {});
    let hands = &mut Script::default();
    let mut it = woken(&manifest, hands);
    assert!(it.reaped(3, hands, 101, Exit::Code(0)));
    assert_eq!(hands.take(), [Kill(1, Whom::All, libc::SIGTERM)]);
    assert!(it.reaped(4, hands, 102, Exit::Code(0)));
    // And the next client starts both.
    assert_eq!(hands.take(), [Watch(2, 0)]);
    it.triggered(5, hands, DOOR, 0);
    let both = [Unwatch(2, 0), Spawn(0, Step::Start(0)), Spawn(1, Step::Start(0))];
    assert_eq!(hands.take(), both);
}
