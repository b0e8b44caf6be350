//! What is removed behind the last process of a service.

use super::*;
use activator::manifest::{Container, Stage2};
use activator::stage2::Next;

fn untidy() -> Manifest {
    pair(|spec| {
        let mut stage2 = Stage2::default();
        stage2.sandbox.private_tmp = true;
        spec.execution.stage2 = Some(Box::new(stage2));
    })
}

#[test]
fn the_socket_listens_again_when_all_is_removed() {
    let manifest = untidy();
    let hands = &mut Script::default();
    let mut it = Supervisor::new(&manifest, 0);
    it.boot(0, hands);
    it.triggered(1, hands, S, 0);
    hands.take();
    it.reaped(2, hands, 101, Exit::Code(0));
    assert_eq!(hands.take(), [Spawn(0, Step::Clean(Next::Stop))]);
    assert_eq!(state(&it, 0), ServiceState::Stopping);
    assert_eq!(socket_state(&it, 1), SocketState::Running);
    // It says so, but a service is as good as it was.
    it.reaped(3, hands, 102, Exit::Code(1));
    assert_eq!(hands.take(), [Watch(1, 0)]);
    assert_eq!(state(&it, 0), ServiceState::Dead);
}

#[test]
fn what_takes_too_long_is_not_waited_for() {
    let manifest = untidy();
    let hands = &mut Script::default();
    let mut it = Supervisor::new(&manifest, 0);
    it.boot(0, hands);
    it.triggered(1, hands, S, 0);
    it.reaped(2, hands, 101, Exit::Code(0));
    let late = it.deadline().unwrap();
    hands.take();
    it.tick(late, hands);
    assert!(hands.calls.contains(&Kill(0, Whom::Process(102), libc::SIGKILL)), "{:?}", hands.calls);
    assert_eq!(state(&it, 0), ServiceState::Dead);
}

#[test]
fn a_container_is_cleaned_up_after_when_its_runtime_was_killed() {
    for (exit, cleans) in [(Exit::Code(0), false), (Exit::Code(7), false), (Exit::Signal(9), true)]
    {
        let manifest = pair(|spec| spec.container = Some(Container::default()));
        let hands = &mut Script::default();
        let mut it = Supervisor::new(&manifest, 0);
        it.boot(0, hands);
        it.triggered(1, hands, S, 0);
        hands.take();
        it.reaped(2, hands, 101, exit);
        let cleaner = Spawn(0, Step::Clean(Next::Stop));
        assert_eq!(hands.take().contains(&cleaner), cleans, "{exit:?}");
    }
}

/// An instance's slot is free when what it had is removed.
#[test]
fn an_instance_is_cleaned_up_after_too() {
    let mut manifest = untidy();
    if let UnitKind::Socket(socket) = &mut manifest.units[1].kind {
        socket.accept = Some(Accept { max_connections: 1, max_per_source: 0 });
    }
    if let UnitKind::Service(service) = &mut manifest.units[0].kind {
        service.sockets.clear();
        service.restart = Restart::Always;
    }
    let client = Accepted::Connection(activator::peer::Peer::Other);
    let hands = &mut Script { clients: vec![client], ..Script::default() };
    let mut it = Supervisor::new(&manifest, 0);
    it.boot(0, hands);
    it.triggered(1, hands, S, 0);
    let slot = 2;
    assert!(hands.take().contains(&Spawn(slot, Step::Start(0))));
    it.reaped(2, hands, 101, Exit::Code(1));
    assert_eq!(hands.take(), [Spawn(slot, Step::Clean(Next::Stop))]);
    it.reaped(3, hands, 102, Exit::Code(0));
    assert_eq!(hands.take(), [Release(slot)]);
}
