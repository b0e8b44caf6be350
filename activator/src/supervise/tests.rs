//! The state machine, step by step, with scripted hands.

mod cleaning;
mod conditions;
mod health;
mod relations;
mod relays;
mod service;

use super::{
    Accepted, Executed, Found, Freeze, Hands, OpenFailed, Spawned, Step, Supervisor, Told, Whom,
};
use activator::control::{Event, Exit, JobResult, MachineState, Report, ServiceState, SocketState};
use activator::manifest::*;
use activator::notification::Notification;

/// What was asked of the hands.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Call {
    Open(u16),
    Close(u16),
    Watch(u16, u16),
    Unwatch(u16, u16),
    Spawn(u16, Step),
    Kill(u16, Whom, i32),
    Take(u16, u16),
    Freeze(u16),
    Thaw(u16),
    Keep(u16, u64),
    Refuse,
    Release(u16),
    DropStore(u16),
}
use Call::{
    Close, DropStore, Keep, Kill, Open, Refuse, Release, Spawn, Take, Thaw, Unwatch, Watch,
};

#[derive(Debug, Default)]
struct Script {
    calls: Vec<Call>,
    events: Vec<(Option<UnitId>, Event)>,
    /// Opens that fail from now on, with that errno.
    open_error: Option<i32>,
    /// Whether they fail for one listener of several.
    others: bool,
    /// Watches that fail from now on, with that errno.
    watch_error: Option<i32>,
    spawn_error: Option<i32>,
    /// What becomes of the children from now on.
    executed: Option<Executed>,
    /// Services with processes besides main and control.
    leftovers: Vec<u16>,
    /// Whether a connection is open.
    in_use: bool,
    /// What the next accepts find, the last first.
    clients: Vec<Accepted>,
    pids: u32,
    /// What `Type=forking` finds.
    found: Option<Found>,
    /// Processes that are none.
    dead: Vec<u32>,
    /// What the last child was told.
    told: Option<Told>,
}

impl Script {
    fn take(&mut self) -> Vec<Call> {
        std::mem::take(&mut self.calls)
    }
}

impl Hands for Script {
    fn open(&mut self, unit: UnitId) -> Result<(), OpenFailed> {
        self.calls.push(Open(unit.0));
        let others = self.others;
        self.open_error.map_or(Ok(()), |errno| Err(OpenFailed { listener: 0, errno, others }))
    }
    fn close(&mut self, unit: UnitId) {
        self.calls.push(Close(unit.0));
    }
    fn flush(&mut self, _: UnitId) {}
    fn watch(&mut self, unit: UnitId, listener: u16) -> Result<(), i32> {
        self.calls.push(Watch(unit.0, listener));
        self.watch_error.map_or(Ok(()), Err)
    }
    fn unwatch(&mut self, unit: UnitId, listener: u16) {
        self.calls.push(Unwatch(unit.0, listener));
    }
    fn spawn(&mut self, unit: UnitId, step: Step, told: &Told) -> Result<Spawned, i32> {
        self.told = Some(*told);
        if let Some(errno) = self.spawn_error {
            return Err(errno);
        }
        self.calls.push(Spawn(unit.0, step));
        self.pids += 1;
        Ok(Spawned { pid: 100 + self.pids, executed: self.executed.unwrap_or(Executed::Yes) })
    }
    fn kill(&mut self, unit: UnitId, whom: Whom, signal: i32) {
        if signal != libc::SIGCONT {
            self.calls.push(Kill(unit.0, whom, signal));
        }
    }
    fn populated(&mut self, unit: UnitId) -> bool {
        self.leftovers.contains(&unit.0)
    }
    fn in_use(&mut self, _: UnitId) -> bool {
        self.in_use
    }
    fn freeze(&mut self, unit: UnitId) -> Freeze {
        self.calls.push(Call::Freeze(unit.0));
        Freeze::Soon
    }
    fn is_frozen(&mut self, _: UnitId) -> bool {
        true
    }
    fn thaw(&mut self, unit: UnitId) {
        self.calls.push(Thaw(unit.0));
    }
    fn accept(&mut self, unit: UnitId, listener: u16) -> Accepted {
        self.calls.push(Take(unit.0, listener));
        self.clients.pop().unwrap_or(Accepted::Nothing)
    }
    fn keep(&mut self, instance: UnitId, number: u64) {
        self.calls.push(Keep(instance.0, number));
    }
    fn refuse(&mut self) {
        self.calls.push(Refuse);
    }
    fn release(&mut self, instance: UnitId) {
        self.calls.push(Release(instance.0));
    }
    fn find_main(&mut self, _: UnitId) -> Found {
        self.found.unwrap_or(Found::NotYet)
    }
    fn adopt(&mut self, _: UnitId, pid: u32) -> bool {
        !self.dead.contains(&pid)
    }
    fn alive(&mut self, _: UnitId, pid: u32) -> bool {
        !self.dead.contains(&pid)
    }
    fn drop_store(&mut self, unit: UnitId) {
        self.calls.push(DropStore(unit.0));
    }
    fn tell(&mut self, unit: Option<UnitId>, event: Event) {
        self.events.push((unit, event));
    }
}

pub(super) fn command() -> Command {
    Command { program: "/bin/true".into(), arguments: vec!["true".into()], ..Command::default() }
}

pub(super) fn service() -> Service {
    let null = Execution { stdout: Output::Null, stderr: Output::Null, ..Execution::default() };
    Service { start: vec![command()], execution: null, ..Service::default() }
}

pub(super) fn socket(service: u16, listeners: usize) -> Socket {
    Socket {
        listeners: vec![
            Listener { kind: ListenKind::Stream, address: Address::AnyPort(1) };
            listeners
        ],
        service: UnitId(service),
        fd_name: "x".into(),
        ..Socket::default()
    }
}

pub(super) fn unit(name: &str, kind: UnitKind) -> Unit {
    Unit { name: name.into(), kind, ..Unit::default() }
}

pub(super) fn manifest(units: Vec<Unit>) -> Manifest {
    Manifest { name: "test".into(), units, ..Manifest::default() }
}

/// Unit 0 is the service, unit 1 its socket, which starts at boot.
fn pair(change: impl FnOnce(&mut Service)) -> Manifest {
    let mut spec = service();
    spec.sockets = vec![UnitId(1)];
    change(&mut spec);
    let mut listener = unit("a.socket", UnitKind::Socket(socket(0, 1)));
    listener.start_at_boot = true;
    manifest(vec![unit("a.service", UnitKind::Service(spec)), listener])
}

fn state(supervisor: &Supervisor, unit: u16) -> ServiceState {
    match supervisor.report(UnitId(unit)) {
        Some(Report::Service { state, .. }) => state,
        other => panic!("{other:?}"),
    }
}

/// How the last start or reload went.
fn result(supervisor: &Supervisor, unit: u16) -> JobResult {
    match supervisor.report(UnitId(unit)) {
        Some(Report::Service { result, .. }) => result,
        other => panic!("{other:?}"),
    }
}

fn socket_state(supervisor: &Supervisor, unit: u16) -> SocketState {
    match supervisor.report(UnitId(unit)) {
        Some(Report::Socket { state, .. }) => state,
        other => panic!("{other:?}"),
    }
}

const A: UnitId = UnitId(0);
const S: UnitId = UnitId(1);

/// The edge: epoll tells of a connection once. One that came while the service ran or died is
/// found only if the listener is watched anew, and not before the service is really gone.
#[test]
fn a_listener_is_watched_anew_each_time_the_service_is_gone() {
    let manifest = pair(|_| {});
    let hands = &mut Script::default();
    let mut it = Supervisor::new(&manifest, 0);
    it.boot(0, hands);
    assert_eq!(hands.take(), [Open(1), Watch(1, 0)]);

    it.triggered(1, hands, S, 0);
    assert_eq!(hands.take(), [Unwatch(1, 0), Spawn(0, Step::Start(0))]);
    assert_eq!(socket_state(&it, 1), SocketState::Running);

    // An edge of the same round of epoll, after the watch has ended.
    it.triggered(1, hands, S, 0);
    assert_eq!(hands.take(), []);

    // The main process is gone, a child of it is not: nobody looks at the socket yet.
    hands.leftovers = vec![0];
    assert!(it.reaped(2, hands, 101, Exit::Code(0)));
    assert_eq!(hands.take(), [Kill(0, Whom::All, libc::SIGTERM)]);
    assert_eq!(state(&it, 0), ServiceState::Stopping);

    hands.leftovers = vec![];
    it.emptied(3, hands);
    assert_eq!(hands.take(), [Watch(1, 0)]);

    // The client that connected in between is found by that watch.
    it.triggered(3, hands, S, 0);
    assert_eq!(hands.take(), [Unwatch(1, 0), Spawn(0, Step::Start(0))]);
}

/// The same trap in one round: a start that fails at once leaves the state as it was, but the
/// edge is used up.
#[test]
fn an_edge_that_led_to_nothing_is_looked_for_again() {
    let manifest = pair(|_| {});
    let hands = &mut Script { spawn_error: Some(libc::EAGAIN), ..Script::default() };
    let mut it = Supervisor::new(&manifest, 0);
    it.boot(0, hands);
    hands.take();
    it.triggered(1, hands, S, 0);
    assert_eq!(hands.take(), [Unwatch(1, 0), Watch(1, 0)]);
    assert_eq!(state(&it, 0), ServiceState::Failed);
    assert!(hands.events.contains(&(Some(A), Event::SpawnFailed(libc::EAGAIN))));
}

/// With `Accept=yes`: the connection waits in the backlog, and PID 1 does not spin on it.
#[test]
fn want_of_memory_or_fds_is_waited_out_and_no_connection_lost_systemd_11553() {
    let mut manifest = pair(|service| service.sockets.clear());
    if let UnitKind::Socket(socket) = &mut manifest.units[1].kind {
        socket.accept = Some(Accept { max_connections: 1, max_per_source: 0 });
    }
    for errno in [libc::ENOMEM, libc::ENOBUFS, libc::EMFILE, libc::ENFILE] {
        let client = Accepted::Connection(activator::peer::Peer::Other);
        let clients = vec![client, Accepted::Failed(errno)];
        let hands = &mut Script { clients, ..Script::default() };
        let mut it = Supervisor::new(&manifest, 0);
        it.boot(0, hands);
        hands.take();
        it.triggered(1, hands, S, 0);
        assert_eq!(hands.take(), [Unwatch(1, 0), Take(1, 0)], "{errno}");
        assert!(hands.events.contains(&(Some(S), Event::AcceptFailed(0, errno))));
        let again = it.deadline().unwrap();
        assert!(again > 1_000, "{errno}: again after {again} us");
        it.tick(again, hands);
        assert_eq!(hands.take(), [Watch(1, 0)], "{errno}");
        it.triggered(again + 1, hands, S, 0);
        let calls = hands.take();
        assert!(calls.contains(&Keep(2, 0)), "{errno}: {calls:?}");
        assert!(calls.contains(&Spawn(2, Step::Start(0))), "{errno}: {calls:?}");
    }
}

#[test]
fn the_start_limit_pauses_the_socket_and_recovers() {
    let manifest = pair(|_| {});
    let hands = &mut Script::default();
    let mut it = Supervisor::new(&manifest, 0);
    it.boot(0, hands);
    // It exits without accepting, five times.
    for round in 1..=5 {
        it.triggered(round, hands, S, 0);
        assert!(it.reaped(round, hands, 100 + round as u32, Exit::Code(0)));
    }
    hands.take();
    it.triggered(6, hands, S, 0);
    // The sixth start does not begin: the limit takes it back, the job waits.
    assert_eq!(hands.take(), [Unwatch(1, 0)]);
    let until = it.deadline().unwrap();
    assert_eq!(until, 10_000_001);
    it.tick(until - 1, hands);
    assert_eq!(hands.take(), []);
    it.tick(until, hands);
    assert_eq!(hands.take(), [Spawn(0, Step::Start(0))]);
    assert!(!hands.events.iter().any(|(_, event)| matches!(event, Event::Failed)));
}

#[test]
fn the_poll_limit_pauses_one_listener() {
    let mut manifest = pair(|service| service.start_limit.burst = 0);
    let UnitKind::Socket(spec) = &mut manifest.units[1].kind else { panic!() };
    spec.listeners.push(spec.listeners[0].clone());
    let hands = &mut Script::default();
    let mut it = Supervisor::new(&manifest, 0);
    it.boot(0, hands);
    for round in 1..=15 {
        it.triggered(round, hands, S, 0);
        assert!(it.reaped(round, hands, 100 + round as u32, Exit::Code(0)));
    }
    hands.take();
    it.triggered(16, hands, S, 0);
    assert_eq!(hands.take(), [Unwatch(1, 0)]);
    assert_eq!(socket_state(&it, 1), SocketState::Listening);
    assert_eq!(it.deadline(), Some(2_000_001));
    // The other one still wakes the service.
    it.triggered(17, hands, S, 1);
    assert_eq!(hands.take(), [Unwatch(1, 1), Spawn(0, Step::Start(0))]);
    assert!(it.reaped(18, hands, 116, Exit::Code(0)));
    assert_eq!(hands.take(), [Watch(1, 1)]);
    it.tick(2_000_001, hands);
    assert_eq!(hands.take(), [Watch(1, 0)]);
}

#[test]
fn a_listener_that_cannot_be_opened_is_tried_again_with_longer_delays() {
    let manifest = pair(|_| {});
    let hands = &mut Script { open_error: Some(libc::EADDRNOTAVAIL), ..Script::default() };
    let mut it = Supervisor::new(&manifest, 0);
    it.boot(0, hands);
    assert_eq!(socket_state(&it, 1), SocketState::Retrying);
    let mut now = 0;
    let mut delays = vec![];
    for _ in 0..9 {
        let next = it.deadline().unwrap();
        delays.push((next - now) / 100_000);
        now = next;
        it.tick(now, hands);
    }
    assert_eq!(delays, [1, 2, 4, 8, 16, 32, 64, 100, 100]);
    hands.open_error = None;
    it.tick(it.deadline().unwrap(), hands);
    assert_eq!(socket_state(&it, 1), SocketState::Listening);
    assert_eq!(it.deadline(), None);
    assert!(!hands.calls.contains(&Close(1)));
}

#[test]
fn a_listener_that_stays_missing_makes_the_others_deaf_for_three_seconds_only() {
    let manifest = pair(|_| {});
    let error = Some(libc::EADDRNOTAVAIL);
    let hands = &mut Script { open_error: error, others: true, ..Script::default() };
    let mut it = Supervisor::new(&manifest, 0);
    it.boot(0, hands);
    let tick = |it: &mut Supervisor, hands: &mut Script| {
        let now = it.deadline().unwrap();
        it.tick(now, hands);
        now
    };
    assert_eq!((0..4).map(|_| tick(&mut it, hands)).last(), Some(1_500_000));
    assert!(hands.calls.contains(&Watch(1, 0)));
    assert_eq!(socket_state(&it, 1), SocketState::Retrying);
    hands.take();
    // The service comes and goes meanwhile.
    it.triggered(1_600_000, hands, S, 0);
    it.reaped(1_700_000, hands, 101, Exit::Code(0));
    assert_eq!(hands.take(), [Unwatch(1, 0), Spawn(0, Step::Start(0)), Watch(1, 0)]);
    tick(&mut it, hands);
    assert_eq!(hands.take(), [Unwatch(1, 0), Open(1), Watch(1, 0)]);
    hands.open_error = None;
    tick(&mut it, hands);
    assert_eq!(hands.take(), [Unwatch(1, 0), Open(1), Watch(1, 0)]);
    assert_eq!((socket_state(&it, 1), it.deadline()), (SocketState::Listening, None));
}

#[test]
fn a_socket_that_cannot_be_opened_does_not_hold_back_the_boot() {
    let manifest = pair(|_| {});
    let hands = &mut Script { open_error: Some(libc::EADDRNOTAVAIL), ..Script::default() };
    let mut it = Supervisor::new(&manifest, 0);
    it.boot(0, hands);
    let machine = |it: &Supervisor| match it.machine_report(0) {
        Report::Machine { state, listening_us, .. } => (state, listening_us),
        other => panic!("{other:?}"),
    };
    assert_eq!(machine(&it), (MachineState::Starting, 0));
    let mut now = 0;
    for _ in 0..4 {
        now = it.deadline().unwrap();
        it.tick(now, hands);
    }
    assert!(hands.events.contains(&(Some(S), Event::Failed)));
    assert_eq!(machine(&it), (MachineState::Running, now));
}

/// As systemd, which fails with "Failed to watch listening fds".
#[test]
fn a_listener_that_can_never_be_watched_fails_the_unit() {
    for kind in [ListenKind::Special, ListenKind::Fifo] {
        let mut manifest = pair(|_| {});
        if let UnitKind::Socket(socket) = &mut manifest.units[1].kind {
            socket.listeners[0].kind = kind;
            socket.stop_post = vec![Command::default()];
        }
        let hands = &mut Script { watch_error: Some(libc::EPERM), ..Script::default() };
        let mut it = Supervisor::new(&manifest, 0);
        it.boot(0, hands);
        let wanted = [Open(1), Watch(1, 0), Close(1), Spawn(1, Step::StopPost(0))];
        assert_eq!(hands.take(), wanted, "{kind:?}");
        assert!(hands.events.contains(&(Some(S), Event::WatchFailed(0, libc::EPERM))));
        it.reaped(1, hands, 101, Exit::Code(0));
        assert_eq!(socket_state(&it, 1), SocketState::Failed);
        assert_eq!(it.deadline(), None, "nothing is tried again");
        // A person may, when another file is there.
        hands.watch_error = None;
        it.order_start(2, hands, S);
        assert_eq!(socket_state(&it, 1), SocketState::Listening);
    }
}

#[test]
fn a_start_of_a_socket_while_its_stop_ends_is_kept() {
    let mut manifest = pair(|_| {});
    if let UnitKind::Socket(socket) = &mut manifest.units[1].kind {
        socket.stop_post = vec![command()];
    }
    let hands = &mut Script::default();
    let mut it = Supervisor::new(&manifest, 0);
    it.boot(0, hands);
    it.order_stop(1, hands, S);
    assert_eq!(socket_state(&it, 1), SocketState::Stopping);
    it.order_start(2, hands, S);
    hands.take();
    it.reaped(3, hands, 101, Exit::Code(0));
    assert_eq!(hands.take(), [Open(1), Watch(1, 0)]);
    assert_eq!(socket_state(&it, 1), SocketState::Listening);
}

#[test]
fn a_watch_without_memory_is_tried_again() {
    let manifest = pair(|_| {});
    let hands = &mut Script { watch_error: Some(libc::ENOMEM), ..Script::default() };
    let mut it = Supervisor::new(&manifest, 0);
    it.boot(0, hands);
    assert_eq!(socket_state(&it, 1), SocketState::Paused);
    hands.watch_error = None;
    it.tick(it.deadline().unwrap(), hands);
    assert_eq!(socket_state(&it, 1), SocketState::Listening);
}

#[test]
fn a_stop_that_waits_is_not_lost_when_a_retry_succeeds() {
    let mut manifest = pair(|_| {});
    manifest.units[0].after = vec![S];
    let hands = &mut Script { open_error: Some(libc::EADDRNOTAVAIL), ..Script::default() };
    let mut it = Supervisor::new(&manifest, 0);
    it.boot(0, hands);
    while !hands.events.contains(&(Some(S), Event::Failed)) {
        it.tick(it.deadline().unwrap(), hands);
    }
    it.order_start(9_000_000, hands, A);
    assert_eq!(state(&it, 0), ServiceState::Running);
    hands.open_error = None;
    it.shut_down(9_000_001, hands);
    it.tick(60_000_000, hands);
    it.reaped(60_000_001, hands, 101, Exit::Code(0));
    assert!(it.is_shut_down());
    assert_eq!(hands.calls.last(), Some(&Close(1)));
}

#[test]
fn going_down_does_not_wait_for_ever_for_a_command() {
    let manifest = pair(|spec| {
        spec.stop = vec![command()];
        spec.stop_post = vec![command()];
        spec.stop_timeout_us = 0;
    });
    let hands = &mut Script::default();
    let mut it = Supervisor::new(&manifest, 0);
    it.boot(0, hands);
    it.order_start(0, hands, A);
    it.shut_down(1, hands);
    assert!(hands.calls.contains(&Spawn(0, Step::Stop(0))));
    for _ in 0..10 {
        let Some(next) = it.deadline() else { break };
        it.tick(next, hands);
        // Nothing but SIGKILL ends what it has started.
        if hands.take().iter().any(|call| matches!(call, Kill(_, _, libc::SIGKILL))) {
            (101..=100 + hands.pids).for_each(|pid| {
                it.reaped(next, hands, pid, Exit::Signal(libc::SIGKILL));
            });
        }
    }
    assert!(it.is_shut_down());
}

#[test]
fn restart_waits_and_a_client_cuts_the_wait_short() {
    let manifest = pair(|service| {
        service.restart = Restart::OnFailure;
        service.restart_delay_us = 30_000_000;
    });
    let hands = &mut Script::default();
    let mut it = Supervisor::new(&manifest, 0);
    it.boot(0, hands);
    it.triggered(1, hands, S, 0);
    assert!(it.reaped(2, hands, 101, Exit::Signal(libc::SIGSEGV)));
    assert_eq!(state(&it, 0), ServiceState::Waiting);
    assert_eq!(it.deadline(), Some(30_000_002));
    hands.take();
    it.triggered(3, hands, S, 0);
    assert_eq!(hands.take(), [Unwatch(1, 0), Spawn(0, Step::Start(0))]);
    assert_eq!(state(&it, 0), ServiceState::Running);
    // SIGTERM is a clean end: no restart.
    assert!(it.reaped(4, hands, 102, Exit::Signal(libc::SIGTERM)));
    assert_eq!(state(&it, 0), ServiceState::Dead);
}

#[test]
fn commands_run_in_order_and_stop_post_runs_after_a_failed_start() {
    let manifest = pair(|service| {
        service.kind = ServiceKind::Notify;
        service.start_pre = vec![command(), command()];
        service.start_post = vec![command()];
        service.stop = vec![command()];
        service.stop_post = vec![command()];
    });
    let hands = &mut Script::default();
    let mut it = Supervisor::new(&manifest, 0);
    it.boot(0, hands);
    hands.take();
    it.order_start(1, hands, A);
    it.reaped(2, hands, 101, Exit::Code(0));
    it.reaped(3, hands, 102, Exit::Code(0));
    assert_eq!(state(&it, 0), ServiceState::Starting);
    let ready = Notification { ready: true, ..Notification::default() };
    it.notified(4, hands, A, &ready);
    it.reaped(5, hands, 104, Exit::Code(0));
    assert_eq!(state(&it, 0), ServiceState::Running);
    it.order_stop(6, hands, A);
    it.reaped(7, hands, 105, Exit::Code(0));
    it.reaped(8, hands, 103, Exit::Signal(libc::SIGTERM));
    it.reaped(9, hands, 106, Exit::Code(0));
    assert_eq!(state(&it, 0), ServiceState::Dead);
    use Step::*;
    let steps = [StartPre(0), StartPre(1), Start(0), StartPost(0), Stop(0), StopPost(0)];
    let spawned = |call: Call| match call {
        Spawn(_, step) => Some(step),
        _ => None,
    };
    assert_eq!(hands.take().into_iter().filter_map(spawned).collect::<Vec<_>>(), steps);

    // Now the first ExecStartPre= fails.
    it.order_start(10, hands, A);
    it.reaped(11, hands, 107, Exit::Code(1));
    assert_eq!(
        hands.take().into_iter().filter_map(spawned).collect::<Vec<_>>(),
        [StartPre(0), StopPost(0)]
    );
    it.reaped(12, hands, 108, Exit::Code(0));
    assert_eq!(state(&it, 0), ServiceState::Failed);
    assert_eq!(socket_state(&it, 1), SocketState::Listening);
}

#[test]
fn what_ignores_sigterm_gets_sigkill() {
    let manifest = pair(|service| service.kill_mode = KillMode::Mixed);
    let hands = &mut Script::default();
    let mut it = Supervisor::new(&manifest, 0);
    it.boot(0, hands);
    it.triggered(1, hands, S, 0);
    hands.leftovers = vec![0];
    hands.take();
    it.order_stop(2, hands, A);
    assert_eq!(hands.take(), [Kill(0, Whom::Process(101), libc::SIGTERM)]);
    it.tick(it.deadline().unwrap(), hands);
    assert_eq!(hands.take(), [Kill(0, Whom::All, libc::SIGKILL)]);
    it.reaped(100_000_000, hands, 101, Exit::Signal(libc::SIGKILL));
    assert_eq!(state(&it, 0), ServiceState::Stopping);
    hands.leftovers = vec![];
    it.emptied(100_000_001, hands);
    assert_eq!(state(&it, 0), ServiceState::Failed);
    assert_eq!(hands.take(), [Watch(1, 0)]);
}

#[test]
fn what_is_to_see_no_sigkill_sees_none() {
    let manifest = pair(|service| {
        service.send_sigkill = false;
        service.stop_post = vec![command()];
    });
    let hands = &mut Script::default();
    let mut it = Supervisor::new(&manifest, 0);
    it.boot(0, hands);
    it.triggered(1, hands, S, 0);
    hands.leftovers = vec![0];
    it.order_stop(2, hands, A);
    hands.take();
    it.tick(it.deadline().unwrap(), hands);
    assert_eq!(hands.take(), [Spawn(0, Step::StopPost(0))]);
    it.reaped(100_000_000, hands, 102, Exit::Code(0));
    assert_eq!(hands.take(), [Kill(0, Whom::All, libc::SIGTERM)]);
    it.tick(it.deadline().unwrap(), hands);
    assert_eq!(state(&it, 0), ServiceState::Failed);
    assert_eq!(hands.take(), [Watch(1, 0)]);
}

#[test]
fn a_command_that_ends_by_a_status_that_is_a_success_is_followed_by_the_next() {
    let manifest = pair(|service| {
        service.start_pre = vec![command()];
        service.success.codes = vec![3];
    });
    let hands = &mut Script::default();
    let mut it = Supervisor::new(&manifest, 0);
    it.boot(0, hands);
    it.order_start(1, hands, A);
    hands.take();
    it.reaped(2, hands, 101, Exit::Code(3));
    assert_eq!(hands.take(), [Spawn(0, Step::Start(0))]);
    it.reaped(3, hands, 102, Exit::Code(3));
    assert_eq!(state(&it, 0), ServiceState::Dead);
    // A signal ends a daemon well, but no command.
    it.order_start(4, hands, A);
    it.reaped(5, hands, 103, Exit::Signal(libc::SIGTERM));
    assert_eq!(state(&it, 0), ServiceState::Failed);
}

#[test]
fn a_program_that_cannot_be_executed_fails_the_start() {
    let manifest = pair(|_| {});
    let hands = &mut Script { executed: Some(Executed::No(libc::ENOENT)), ..Script::default() };
    let mut it = Supervisor::new(&manifest, 0);
    it.boot(0, hands);
    it.triggered(1, hands, S, 0);
    assert_eq!(state(&it, 0), ServiceState::Starting);
    it.reaped(2, hands, 101, Exit::Code(203));
    assert_eq!(state(&it, 0), ServiceState::Failed);
    assert!(hands.events.contains(&(Some(A), Event::SpawnFailed(libc::ENOENT))));
    assert!(!hands.events.contains(&(Some(A), Event::Ready)));
}

/// a.service requires and comes after b.service; c.service comes after a.service.
fn chain() -> Manifest {
    let mut units: Vec<Unit> = ["a.service", "b.service", "c.service"]
        .map(|name| unit(name, UnitKind::Service(service())))
        .into();
    units[0].requires = vec![UnitId(1)];
    units[0].after = vec![UnitId(1)];
    units[2].after = vec![UnitId(0)];
    units[2].wants = vec![UnitId(0)];
    units[2].start_at_boot = true;
    manifest(units)
}

#[test]
fn the_boot_starts_in_order_and_shutting_down_stops_in_reverse() {
    let manifest = chain();
    let hands = &mut Script::default();
    let mut it = Supervisor::new(&manifest, 0);
    it.boot(0, hands);
    assert_eq!(hands.take(), [1, 0, 2].map(|unit| Spawn(unit, Step::Start(0))));
    assert!(hands.events.contains(&(None, Event::Booted)));
    let term = |unit| Kill(unit, Whom::All, libc::SIGTERM);
    it.shut_down(1, hands);
    assert_eq!(hands.take(), [term(2)]);
    it.reaped(2, hands, 103, Exit::Code(0));
    assert_eq!(hands.take(), [term(0)]);
    it.reaped(3, hands, 102, Exit::Code(0));
    assert_eq!(hands.take(), [term(1)]);
    assert!(!it.is_shut_down());
    it.reaped(4, hands, 101, Exit::Code(0));
    assert!(it.is_shut_down());
    assert!(!it.order_start(5, hands, A));
    let machine = it.machine_report(5);
    assert!(matches!(machine, Report::Machine { state: MachineState::Stopping, .. }));
}

#[test]
fn a_unit_whose_requirement_fails_does_not_start_but_one_that_only_wants_it_does() {
    let manifest = chain();
    let hands = &mut Script { executed: Some(Executed::No(libc::ENOENT)), ..Script::default() };
    let mut it = Supervisor::new(&manifest, 0);
    it.boot(0, hands);
    assert_eq!(hands.take(), [Spawn(1, Step::Start(0))]);
    hands.executed = None;
    it.reaped(1, hands, 101, Exit::Code(203));
    assert_eq!(hands.take(), [Spawn(2, Step::Start(0))]);
    assert_eq!(state(&it, 0), ServiceState::Failed);
    assert_eq!([0, 2].map(|unit| result(&it, unit)), [JobResult::Failed, JobResult::Done]);
}

#[test]
fn stopping_takes_along_what_requires_it_and_a_restart_brings_it_back() {
    let manifest = chain();
    let hands = &mut Script::default();
    let mut it = Supervisor::new(&manifest, 0);
    it.boot(0, hands);
    hands.take();
    let term = |unit| Kill(unit, Whom::All, libc::SIGTERM);
    it.order_restart(1, hands, UnitId(1));
    assert_eq!(hands.take(), [term(0)]);
    it.reaped(2, hands, 102, Exit::Code(0));
    assert_eq!(hands.take(), [term(1)]);
    it.reaped(3, hands, 101, Exit::Code(0));
    assert_eq!(hands.take(), [Spawn(1, Step::Start(0)), Spawn(0, Step::Start(0))]);
    assert_eq!(state(&it, 2), ServiceState::Running);
}

#[test]
fn what_conflicts_is_stopped_first() {
    let mut units: Vec<Unit> =
        ["a.service", "b.service"].map(|name| unit(name, UnitKind::Service(service()))).into();
    units[0].conflicts = vec![UnitId(1)];
    units[1].start_at_boot = true;
    let manifest = manifest(units);
    let hands = &mut Script::default();
    let mut it = Supervisor::new(&manifest, 0);
    it.boot(0, hands);
    it.order_start(1, hands, A);
    assert_eq!(state(&it, 0), ServiceState::Dead);
    it.reaped(2, hands, 101, Exit::Signal(libc::SIGTERM));
    assert_eq!(state(&it, 0), ServiceState::Running);
    assert_eq!(state(&it, 1), ServiceState::Dead);
    // And the other way round.
    it.order_start(3, hands, UnitId(1));
    it.reaped(4, hands, 102, Exit::Signal(libc::SIGTERM));
    assert_eq!(state(&it, 1), ServiceState::Running);
}

#[test]
fn a_oneshot_that_is_done_satisfies_who_requires_it() {
    let mut manifest = chain();
    let UnitKind::Service(spec) = &mut manifest.units[1].kind else { panic!() };
    spec.kind = ServiceKind::Oneshot;
    let hands = &mut Script::default();
    let mut it = Supervisor::new(&manifest, 0);
    it.boot(0, hands);
    assert_eq!(hands.take(), [Spawn(1, Step::Start(0))]);
    it.reaped(1, hands, 101, Exit::Code(0));
    assert_eq!(state(&it, 1), ServiceState::Dead);
    assert_eq!(state(&it, 0), ServiceState::Running);
}

#[test]
fn a_listener_that_somebody_shut_down_is_opened_anew() {
    let manifest = pair(|_| {});
    let hands = &mut Script::default();
    let mut it = Supervisor::new(&manifest, 0);
    it.boot(0, hands);
    hands.take();
    it.hung_up(1, hands, S, 0);
    assert_eq!(hands.take(), [Unwatch(1, 0), Close(1)]);
    it.tick(it.deadline().unwrap(), hands);
    assert_eq!(hands.take(), [Open(1), Watch(1, 0)]);
}

/// From the last look on nobody can take a connection along: SIGTERM is sent to a frozen service.
#[test]
fn an_idle_service_is_stopped_while_it_is_frozen() {
    let manifest = pair(|service| service.stop_when_idle_us = 800_000);
    let hands = &mut Script { in_use: true, ..Script::default() };
    let mut it = Supervisor::new(&manifest, 0);
    it.boot(0, hands);
    it.triggered(0, hands, S, 0);
    // While it is up, too, it is watched for who comes.
    assert_eq!(hands.take()[2..], [Unwatch(1, 0), Spawn(0, Step::Start(0)), Watch(1, 0)]);
    // A connection is open for a long time.
    for now in (100_000..=5_000_000).step_by(100_000) {
        it.tick(now, hands);
    }
    assert_eq!(hands.take(), []);
    hands.in_use = false;
    while let Some(now) = it.deadline().filter(|now| *now < 5_800_000) {
        it.tick(now, hands);
    }
    assert_eq!(hands.take(), []);
    it.tick(5_800_000, hands);
    assert_eq!(hands.take(), [Call::Freeze(0)]);
    it.emptied(5_800_001, hands);
    let taken = hands.take();
    assert_eq!(taken[..2], [Kill(0, Whom::All, libc::SIGTERM), Thaw(0)]);
    assert!(hands.events.contains(&(Some(A), Event::Idle)));
    assert!(it.reaped(5_800_002, hands, 101, Exit::Signal(libc::SIGTERM)));
    assert_eq!(hands.take(), [Watch(1, 0)]);
    assert_eq!(it.deadline(), None);
}

/// A frozen service cannot say WATCHDOG=1, and has its whole time again when it is thawed.
#[test]
fn the_watchdog_of_a_frozen_service_waits() {
    let manifest = pair(|service| {
        service.freeze_when_idle_us = 800_000;
        service.watchdog_us = 2_000_000;
    });
    let hands = &mut Script::default();
    let mut it = Supervisor::new(&manifest, 0);
    it.boot(0, hands);
    it.triggered(0, hands, S, 0);
    hands.take();
    while hands.calls.is_empty() {
        it.tick(it.deadline().unwrap(), hands);
    }
    assert_eq!(hands.take(), [Call::Freeze(0)]);
    it.emptied(1_000_000, hands);
    hands.take();
    assert_eq!(state(&it, 0), ServiceState::Frozen);
    assert_eq!(it.deadline(), None);
    let later = 60_000_000;
    it.triggered(later, hands, S, 0);
    assert!(hands.take().contains(&Thaw(0)));
    hands.in_use = true;
    let mut now = later;
    while !hands.calls.contains(&Kill(0, Whom::All, libc::SIGABRT)) {
        now = it.deadline().unwrap();
        it.tick(now, hands);
    }
    assert_eq!(now, later + 2_000_000);
    assert!(hands.events.contains(&(Some(A), Event::TimedOut(libc::SIGABRT))));
}

/// A frozen process cannot answer the signal, and is not frozen again before it has.
#[test]
fn a_reload_thaws_a_frozen_service_and_keeps_it_so() {
    for by_command in [false, true] {
        let manifest = pair(|service| {
            service.freeze_when_idle_us = 800_000;
            service.start_timeout_us = 60_000_000;
            match by_command {
                true => service.reload = vec![command()],
                false => service.kind = ServiceKind::NotifyReload,
            }
        });
        let hands = &mut Script::default();
        let mut it = Supervisor::new(&manifest, 0);
        it.boot(0, hands);
        it.triggered(0, hands, S, 0);
        it.notified(0, hands, A, &Notification { ready: true, ..Notification::default() });
        while !hands.calls.contains(&Call::Freeze(0)) {
            it.tick(it.deadline().unwrap(), hands);
        }
        it.emptied(1_000_000, hands);
        assert_eq!(state(&it, 0), ServiceState::Frozen);
        hands.take();

        it.order_reload(5_000_000, hands, A);
        let begun = match by_command {
            true => Spawn(0, Step::Reload(0)),
            false => Kill(0, Whom::Process(101), libc::SIGHUP),
        };
        assert_eq!(hands.take(), [Thaw(0), begun]);
        while let Some(now) = it.deadline().filter(|now| *now < 20_000_000) {
            it.tick(now, hands);
        }
        assert_eq!((state(&it, 0), hands.take()), (ServiceState::Reloading, vec![]));

        if by_command {
            it.reaped(20_000_000, hands, 102, Exit::Code(0));
        } else {
            let done = Notification {
                ready: true,
                reloading: Some(Some(6_000_000)),
                ..Notification::default()
            };
            it.notified(20_000_000, hands, A, &done);
        }
        assert_eq!((state(&it, 0), result(&it, 0)), (ServiceState::Running, JobResult::Done));
        while hands.calls.is_empty() {
            it.tick(it.deadline().unwrap(), hands);
        }
        assert_eq!(hands.take(), [Call::Freeze(0)]);
        // It had said that it reloads before it froze.
        let now = 30_000_000;
        it.emptied(now, hands);
        hands.take();
        let reloads = Notification { reloading: Some(Some(now)), ..Notification::default() };
        it.notified(now, hands, A, &reloads);
        assert_eq!(hands.take(), [Thaw(0)]);
    }
}

/// `Type=exec` by way of stage 2: the start waits for the program itself.
#[test]
fn a_start_of_type_exec_waits_for_the_program() {
    let manifest = pair(|service| service.kind = ServiceKind::Exec);
    let hands = &mut Script { executed: Some(Executed::Later), ..Script::default() };
    let mut it = Supervisor::new(&manifest, 0);
    it.boot(0, hands);
    it.order_start(0, hands, A);
    assert_eq!(state(&it, 0), ServiceState::Starting);
    // It ends before: that is a start that failed.
    it.reaped(1, hands, 101, Exit::Code(217));
    assert_eq!((state(&it, 0), result(&it, 0)), (ServiceState::Failed, JobResult::Failed));
    // A word about a run that is over is nobody's.
    it.executed(2, hands, A);
    assert_eq!(state(&it, 0), ServiceState::Failed);
    it.order_start(3, hands, A);
    assert_eq!(state(&it, 0), ServiceState::Starting);
    it.executed(4, hands, A);
    assert_eq!((state(&it, 0), result(&it, 0)), (ServiceState::Running, JobResult::Done));
}

/// Who comes between the last look and the frost is served by the same run.
#[test]
fn a_connection_that_came_while_it_froze_thaws_it() {
    let manifest = pair(|service| service.freeze_when_idle_us = 800_000);
    let hands = &mut Script::default();
    let mut it = Supervisor::new(&manifest, 0);
    it.boot(0, hands);
    it.triggered(0, hands, S, 0);
    hands.take();
    while hands.calls.is_empty() {
        it.tick(it.deadline().unwrap(), hands);
    }
    assert_eq!(hands.take(), [Call::Freeze(0)]);
    hands.in_use = true;
    it.emptied(900_000, hands);
    assert_eq!(hands.take(), [Thaw(0)]);
    hands.in_use = false;
    while hands.calls.is_empty() {
        it.tick(it.deadline().unwrap(), hands);
    }
    hands.take();
    let now = 10_000_000;
    it.emptied(now, hands);
    // Each listener gets a new watch, which finds who came at the very last moment.
    assert_eq!(hands.take(), [Unwatch(1, 0), Watch(1, 0)]);
    assert_eq!(state(&it, 0), ServiceState::Frozen);
    assert_eq!(it.deadline(), None);
    it.triggered(now + 1, hands, S, 0);
    assert_eq!(hands.take(), [Unwatch(1, 0), Thaw(0)]);
    assert_eq!(state(&it, 0), ServiceState::Running);
}
