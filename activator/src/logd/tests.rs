//! The whole process but for its `main`, in a thread, with a PID 1 played by the test.

use super::server::{Inheritance, Logd, MAX_CONNECTIONS};
use super::store::RING;
use super::token::Token;
use crate::client::{self, Error};
use crate::control::{
    self, Event, Exit, Failure, Hello, Line, MachineState, Order, Reply, Report, Request,
    ServiceState, SocketState,
};
use crate::manifest::{
    Address, Command, ListenKind, Listener, Manifest, Service, Socket, Unit, UnitId, UnitKind,
};
use crate::wire;

use rustix::fd::OwnedFd;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, socketpair};
use std::io::{PipeReader, PipeWriter, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::thread::JoinHandle;
use std::time::Duration;

const ECHO: UnitId = UnitId(0);
const TOKEN: &str = "5ea1ed";
/// Nothing here takes long; a hang must end.
const HANG: Duration = Duration::from_secs(60);

/// logd in a thread, and all that PID 1 would hold.
struct Room {
    dir: tempfile::TempDir,
    /// Dropped to end the thread.
    pid1: Option<OwnedFd>,
    log: Option<PipeWriter>,
    console: PipeReader,
    /// As PID 1 keeps them for the next logd.
    kept: [OwnedFd; 4],
    thread: Option<JoinHandle<()>>,
}

impl Room {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("token"), TOKEN).unwrap();
        let (log_reader, log) = std::io::pipe().unwrap();
        let (console, console_writer) = std::io::pipe().unwrap();
        let kept = [
            log_reader.into(),
            console_writer.into(),
            UnixListener::bind(dir.path().join("unix")).unwrap().into(),
            UnixListener::bind(dir.path().join("vsock")).unwrap().into(),
        ];
        let mut room = Self { dir, pid1: None, log: Some(log), console, kept, thread: None };
        room.start();
        room
    }

    /// A fresh logd over what was kept.
    fn start(&mut self) {
        let flags = SocketFlags::CLOEXEC;
        let (ours, theirs) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).unwrap();
        self.pid1 = Some(ours);
        let [pipe, console, unix, vsock] = self.kept.each_ref().map(|fd| fd.try_clone().unwrap());
        let given = Inheritance {
            source: None,
            manifest: manifest(),
            pid1: theirs,
            console: Some(console),
            pipes: vec![(ECHO, pipe)],
            vsock: vec![vsock],
            unix: vec![unix],
            token: Token::read_from(&self.dir.path().join("token")),
            cgroups: PathBuf::from("/nonexistent"),
            signals: None,
        };
        self.thread = Some(std::thread::spawn(move || Logd::new(given).run()));
    }

    fn stop(&mut self) {
        self.pid1 = None;
        self.thread.take().unwrap().join().unwrap();
    }

    fn connect(&self, listener: &str) -> UnixStream {
        let stream = UnixStream::connect(self.dir.path().join(listener)).unwrap();
        stream.set_read_timeout(Some(HANG)).unwrap();
        stream
    }

    /// A client in a thread, which needs PID 1's help.
    fn ask<T: Send + 'static>(
        &self,
        what: impl FnOnce(UnixStream) -> T + Send + 'static,
    ) -> JoinHandle<T> {
        let stream = self.connect("unix");
        std::thread::spawn(move || what(stream))
    }

    fn ordered(&self) -> Order {
        let pid1 = self.pid1.as_ref().unwrap();
        let timeout = rustix::net::sockopt::Timeout::Recv;
        rustix::net::sockopt::set_socket_timeout(pid1, timeout, Some(HANG)).unwrap();
        let mut packet = [0; 64];
        let (_, length) = rustix::net::recv(pid1, &mut packet[..], RecvFlags::empty()).unwrap();
        wire::from_bytes(&packet[..length]).unwrap()
    }

    fn report(&self, report: Report) {
        let mut packet = [0; Report::MAX];
        let packet = wire::to_slice(&report, &mut packet).unwrap();
        rustix::net::send(self.pid1.as_ref().unwrap(), packet, SendFlags::empty()).unwrap();
    }

    /// Answers the Status that is asked for now.
    fn snapshot(&self, state: ServiceState, job: bool) {
        assert_eq!(self.ordered(), Order::Status);
        self.report(Report::Machine {
            state: MachineState::Running,
            started_us: 1,
            listening_us: 2,
            now_us: 3,
        });
        self.report(Report::Service {
            unit: ECHO,
            state,
            main_pid: Some(42),
            starts: 1,
            restarts: 0,
            last_exit: None,
            status: crate::control::Text::default(),
            health: None,
            job,
            result: crate::control::JobResult::None,
        });
        let state = SocketState::Running;
        self.report(Report::Socket {
            unit: UnitId(1),
            state,
            triggered: 1,
            refused: 0,
            accepted: 0,
            connections: 0,
        });
        self.report(Report::End);
    }

    fn say(&mut self, text: &str) {
        self.log.as_mut().unwrap().write_all(text.as_bytes()).unwrap();
    }

    /// A client that follows all logs.
    fn follow(&self) -> impl Iterator<Item = Line> + use<> {
        let request = Request::Logs { unit: None, follow: true };
        client::ask(self.connect("unix"), "", &request).unwrap().map_while(|reply| {
            match reply.unwrap() {
                Reply::Line(line) => Some(line),
                Reply::Done => None,
                other => panic!("{other:?}"),
            }
        })
    }

    fn logs(&self) -> Vec<String> {
        let mut lines = Vec::new();
        let each = |line: Line| {
            lines.push(format!("{}: {}", line.unit, line.text));
            Ok(())
        };
        client::logs(self.connect("unix"), "", None, false, each).unwrap();
        lines
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.pid1 = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
            && !std::thread::panicking()
        {
            panic!("logd panicked");
        }
    }
}

#[test]
fn status_is_answered_also_after_a_half_close() {
    let room = Room::new();
    let mut stream = room.connect("unix");
    let hello = Hello { version: control::VERSION, token: String::new() };
    control::write_frame(&stream, &hello).unwrap();
    control::write_frame(&stream, &Request::Status).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    room.snapshot(ServiceState::Running, false);
    let Reply::Status(status) = control::read_frame(&stream).unwrap() else { panic!() };
    assert_eq!((status.name.as_str(), status.state.as_str()), ("echo", "running"));
    assert_eq!(status.services[0].main_pid, Some(42));
    assert_eq!(status.sockets[0].service, "echo.service");
    assert_eq!(stream.read(&mut [0]).unwrap(), 0, "then comes the end of file");
}

#[test]
fn a_start_is_answered_when_its_job_has_ended() {
    let room = Room::new();
    // Without its suffix it is a service.
    let client = room.ask(|stream| client::order(stream, "", &Request::Start("echo".into())));
    assert_eq!(room.ordered(), Order::Start(ECHO));
    room.report(Report::End);
    for _ in 0..3 {
        room.snapshot(ServiceState::Starting, true);
        assert!(!client.is_finished());
    }
    room.snapshot(ServiceState::Running, false);
    assert_eq!(client.join().unwrap(), Ok(()));
}

#[test]
fn a_start_that_fails_names_the_state() {
    let room = Room::new();
    let restart = Request::Restart("echo.service".into());
    let client = room.ask(move |stream| client::order(stream, "", &restart));
    assert_eq!(room.ordered(), Order::Restart(ECHO));
    room.report(Report::End);
    room.snapshot(ServiceState::Failed, false);
    let failure = Failure::StartFailed("failed".into());
    assert_eq!(client.join().unwrap(), Err(Error::Refused(failure)));
}

#[test]
fn a_guest_that_goes_down_takes_no_orders() {
    let room = Room::new();
    let stop = Request::Stop("echo.service".into());
    let client = room.ask(move |stream| client::order(stream, "", &stop));
    assert_eq!(room.ordered(), Order::Stop(ECHO));
    room.report(Report::Refused);
    assert_eq!(client.join().unwrap(), Err(Error::Refused(Failure::ShuttingDown)));
    let client = room.ask(|stream| client::order(stream, "", &Request::Poweroff));
    assert_eq!(room.ordered(), Order::Poweroff);
    room.report(Report::Refused);
    assert_eq!(client.join().unwrap(), Ok(()));
}

#[test]
fn nobody_waits_for_a_pid_1_that_is_gone() {
    let mut room = Room::new();
    let client = room.ask(|stream| client::status(stream, ""));
    assert_eq!(room.ordered(), Order::Status);
    let mut follower = room.follow();
    room.say("line\n");
    assert_eq!(follower.next().unwrap().text, "line");
    room.stop();
    assert_eq!(client.join().unwrap(), Err(Error::Refused(Failure::ShuttingDown)));
    assert_eq!(follower.next(), None);
}

#[test]
fn an_order_counts_though_its_client_has_left() {
    let room = Room::new();
    drop(client::ask(room.connect("unix"), "", &Request::Poweroff).unwrap());
    assert_eq!(room.ordered(), Order::Poweroff);
}

#[test]
fn unknown_units_and_bad_requests_are_refused() {
    let room = Room::new();
    let start = |name: &str| client::order(room.connect("unix"), "", &Request::Start(name.into()));
    let failure = Failure::NoSuchUnit("other.service".into());
    assert_eq!(start("other.service"), Err(Error::Refused(failure)));
    let hello = |version| Hello { version, token: String::new() };
    let refusal = |frames: &[u8]| {
        let mut stream = room.connect("unix");
        stream.write_all(frames).unwrap();
        control::read_frame::<Reply>(&stream).unwrap()
    };
    let mut frames = Vec::new();
    control::write_frame(&mut frames, &hello(control::VERSION + 1)).unwrap();
    let failure = Failure::Version(control::VERSION);
    assert_eq!(refusal(&frames), Reply::Failed(failure));
    frames.clear();
    control::write_frame(&mut frames, &hello(control::VERSION)).unwrap();
    control::write_frame(&mut frames, &[0xff_u8; 9]).unwrap();
    assert_eq!(refusal(&frames), Reply::Failed(Failure::BadRequest));
    assert_eq!(refusal(&[0xff; 4]), Reply::Failed(Failure::BadRequest));
    assert_eq!(refusal(&[0; 4]), Reply::Failed(Failure::BadRequest));
}

#[test]
fn vsock_needs_the_token() {
    let mut room = Room::new();
    let ask = |room: &Room, token: &str| {
        let mut lines = 0;
        let count = |_| {
            lines += 1;
            Ok(())
        };
        client::logs(room.connect("vsock"), token, None, false, count)
    };
    let denied = Err(Error::Refused(Failure::Denied));
    assert_eq!(ask(&room, TOKEN), Ok(()));
    assert_eq!(ask(&room, ""), denied);
    assert_eq!(ask(&room, "5ea1ee"), denied);
    room.stop();
    std::fs::remove_file(room.dir.path().join("token")).unwrap();
    room.start();
    assert_eq!(ask(&room, ""), denied, "without a token nobody gets in");
    assert_eq!(ask(&room, TOKEN), denied);
}

#[test]
fn last_words_come_before_the_news_of_the_end() {
    let mut room = Room::new();
    let mut follower = room.follow();
    room.report(Report::Event(Some(ECHO), Event::Started(7)));
    assert_eq!(follower.next().unwrap().text, "started, process 7");
    room.say("one\ntwo");
    room.report(Report::Event(Some(ECHO), Event::Exited(Exit::Code(0))));
    room.report(Report::Event(None, Event::Booted));
    let lines: Vec<Line> = follower.by_ref().take(4).collect();
    let texts: Vec<&str> = lines.iter().map(|line| line.text.as_str()).collect();
    let booted = "all units of the boot are started, sockets listen";
    assert_eq!(texts, ["one", "two", "main process exited with code 0", booted]);
    assert_eq!((lines[0].unit.as_str(), lines[3].unit.as_str()), ("echo.service", "activator"));
    assert!(lines.is_sorted_by_key(|line| line.realtime_us) && lines[0].realtime_us > 0);
    let begin = "echo.service: started, process 7\necho.service: one\necho.service: two\n";
    let mut shown = vec![0; begin.len()];
    room.console.read_exact(&mut shown).unwrap();
    assert_eq!(std::str::from_utf8(&shown).unwrap(), begin);
}

#[test]
fn a_new_logd_loses_nothing_that_is_in_the_pipes() {
    let mut room = Room::new();
    room.say("seen\n");
    let first = room.follow().next().unwrap();
    assert_eq!(first.text, "seen");
    room.stop();
    room.say("unseen\n");
    room.start();
    assert_eq!(room.follow().next().unwrap().text, "unseen");
    assert_eq!(room.logs(), ["echo.service: unseen"]);
}

#[test]
fn a_service_that_is_gone_leaves_its_last_line() {
    let mut room = Room::new();
    room.say("no newline");
    room.log = None;
    assert_eq!(room.follow().next().unwrap().text, "no newline");
}

#[test]
fn a_client_that_says_nothing_is_let_go() {
    let room = Room::new();
    let mut silent = room.connect("unix");
    let mut half = room.connect("unix");
    let hello = Hello { version: control::VERSION, token: String::new() };
    control::write_frame(&half, &hello).unwrap();
    // Whether the end is an end of file or a reset: both come, though nothing was asked.
    assert_eq!(silent.read(&mut [0]).unwrap_or(0), 0);
    assert_eq!(half.read(&mut [0]).unwrap_or(0), 0);
    assert_eq!(room.logs(), [""; 0]);
}

#[test]
fn slow_followers_lose_lines_and_hold_up_nobody() {
    let mut room = Room::new();
    let (mut slow, mut quick) = (room.follow(), room.follow());
    // Far more than the ring, the follower's output and its socket hold together.
    let filler = "z".repeat(1000);
    let total = 20 * RING / filler.len();
    for number in 0..total {
        room.say(&format!("{number} {filler}\n"));
        let mut line = quick.next().unwrap();
        if line.text.ends_with("lines lost") {
            line = quick.next().unwrap();
        }
        assert!(line.text.starts_with(&format!("{number} ")), "{}", line.text);
    }
    room.say("end\n");
    let (mut seen, mut lost) = (0, 0);
    for line in slow.by_ref().take_while(|line| line.text != "end") {
        match line.text.strip_suffix(" lines lost") {
            Some(count) => lost += count.parse::<usize>().unwrap(),
            None => seen += 1,
        }
    }
    assert!(lost > 0);
    assert_eq!(seen + lost, total);
}

#[test]
fn a_flood_of_clients_keeps_nobody_out() {
    let mut room = Room::new();
    let mut flood = Vec::new();
    let mut seed = 1_u64;
    for number in 0..1000 {
        let mut stream = room.connect(if number % 2 == 0 { "unix" } else { "vsock" });
        // Nothing, half a frame, or noise.
        let mut noise = vec![0; number % 40];
        for byte in &mut noise {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            *byte = seed.to_be_bytes()[0];
        }
        // logd may have refused or dropped it already.
        let _ = stream.write_all(&noise);
        flood.push(stream);
        if number % 100 == 99 {
            room.say(&format!("line {number}\n"));
            let request = Request::Logs { unit: None, follow: true };
            let lines = client::ask(room.connect("vsock"), TOKEN, &request).unwrap();
            let wanted = format!("line {number}");
            let found = |reply: Result<Reply, Error>| match reply.unwrap() {
                Reply::Line(line) => line.text == wanted,
                other => panic!("{other:?}"),
            };
            assert!(lines.into_iter().any(found));
            let client = room.ask(|stream| client::status(stream, ""));
            room.snapshot(ServiceState::Dead, false);
            assert!(client.join().unwrap().is_ok());
        }
    }
    let open = flood.iter().filter(|stream| {
        stream.set_nonblocking(true).unwrap();
        matches!((&**stream).read(&mut [0]), Err(error) if error.kind() == std::io::ErrorKind::WouldBlock)
    });
    assert!(open.count() <= MAX_CONNECTIONS);
}

/// `echo.service` (0) and `echo.socket` (1) on TCP and UDP port 3000.
pub(crate) fn manifest() -> Manifest {
    let unit = |name: &str, kind| Unit {
        name: name.into(),
        description: name.into(),
        kind,
        ..Unit::default()
    };
    let listener = |kind| Listener { kind, address: Address::Inet([127, 0, 0, 1], 3000) };
    let socket = Socket {
        listeners: vec![listener(ListenKind::Stream), listener(ListenKind::Datagram)],
        fd_name: "echo.socket".into(),
        ..Socket::default()
    };
    let start = Command {
        program: "/bin/true".into(),
        arguments: vec!["true".into()],
        ..Command::default()
    };
    let service = Service { sockets: vec![UnitId(1)], start: vec![start], ..Service::default() };
    Manifest {
        name: "echo".into(),
        units: vec![
            unit("echo.service", UnitKind::Service(service)),
            unit("echo.socket", UnitKind::Socket(socket)),
        ],
        ..Manifest::default()
    }
}
