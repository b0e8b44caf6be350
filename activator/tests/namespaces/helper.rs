//! Little programs that behave and misbehave: the services under test.
//!
//! Each appends lines to the file that `REPORT` names. `wait_for_go` waits for the file `GO`.

use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{OFlags, fcntl_getfl};
use rustix::io::{FdFlags, fcntl_getfd};
use rustix::net::{self, RecvFlags, SendFlags, SocketType, sockopt};
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

pub(crate) fn main(arguments: &[&str]) -> ExitCode {
    // Behind "helper" comes what was the argv[0] of the unit's command.
    match arguments {
        ["helper", rest @ ..] => main(rest),
        ["serve", count] => serve(count.parse().unwrap()),
        // Serves one, then takes its time to die.
        ["die-slowly"] => {
            serve(1);
            report("dying");
            wait_for_go();
            ExitCode::SUCCESS
        }
        // Serves one, and leaves a child behind that has left our session.
        ["leave-child"] => {
            #[allow(clippy::zombie_processes)] // it is to outlive us
            let child = own_command(&["sleep"]).process_group(0).spawn().unwrap();
            report(&format!("child {}", child.id()));
            serve(1)
        }
        ["leave-orphan"] => {
            // The child's child is orphaned when the child ends.
            own_command(&["spawn-short"]).status().unwrap();
            report("orphaned");
            serve(1)
        }
        ["orphan"] => {
            own_command(&["spawn-short"]).status().unwrap();
            ExitCode::SUCCESS
        }
        // Answers the name of a file with what is in it.
        ["files"] => {
            for fd in fds() {
                let listener = std::os::unix::net::UnixListener::from(fd);
                for stream in listener.incoming() {
                    let mut stream = stream.unwrap();
                    let path = std::io::read_to_string(&stream).unwrap();
                    let text = std::fs::read_to_string(path);
                    let text = text.unwrap_or_else(|error| error.to_string());
                    stream.write_all(text.as_bytes()).unwrap();
                }
            }
            ExitCode::SUCCESS
        }
        ["spawn-short"] => {
            #[allow(clippy::zombie_processes)] // it is to be an orphan
            own_command(&["exit", "0"]).spawn().unwrap();
            ExitCode::SUCCESS
        }
        ["exit", code] => {
            report("exit");
            ExitCode::from(code.parse::<u8>().unwrap())
        }
        ["up-and-down", name] => {
            catch_term();
            report(&format!("up {name}"));
            wait_for_term();
            report(&format!("down {name}"));
            ExitCode::SUCCESS
        }
        ["ignore-term"] => {
            catch_term();
            report("deaf");
            loop {
                std::thread::sleep(Duration::from_secs(1));
            }
        }
        // Leaves a child that lives on, and its number in a file.
        ["daemon", path] => {
            #[allow(clippy::zombie_processes)] // it is to outlive us
            let child = own_command(&["sleep"]).process_group(0).spawn().unwrap();
            // Whole at once, as daemons should.
            let draft = format!("{path}.new");
            std::fs::write(&draft, format!("{}\n", child.id())).unwrap();
            std::fs::rename(draft, path).unwrap();
            ExitCode::SUCCESS
        }
        // Type=notify-reload: answers each SIGHUP.
        ["reloads"] => {
            catch(libc::SIGHUP);
            notify(b"READY=1");
            loop {
                if TERM.swap(false, Ordering::Relaxed) {
                    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
                    let us = now.tv_sec * 1_000_000 + now.tv_nsec / 1000;
                    notify(format!("RELOADING=1\nMONOTONIC_USEC={us}").as_bytes());
                    report("reloaded");
                    notify(b"READY=1\nSTATUS=reloaded");
                }
                std::thread::sleep(Duration::from_millis(5));
            }
        }
        // Is watched, and feeds the watchdog from its second run on.
        ["watched"] => {
            let own = variable("WATCHDOG_PID") == std::process::id().to_string();
            report(&format!("watched usec={} own={own}", variable("WATCHDOG_USEC")));
            notify(b"READY=1");
            let path = std::env::var("REPORT").unwrap();
            let runs = std::fs::read_to_string(path).unwrap().lines().count();
            loop {
                if runs > 1 {
                    notify(b"WATCHDOG=1");
                }
                std::thread::sleep(Duration::from_millis(100));
            }
        }
        // Stores a file and fails; with what it stored it stays.
        ["stores"] => {
            let names = variable("LISTEN_FDNAMES");
            let count: i32 = variable("LISTEN_FDS").parse().unwrap();
            let mut text = String::new();
            if count == 2 {
                // SAFETY: this fd is handed to this process, and nobody else has taken it.
                #[allow(unsafe_code)]
                let mut file: std::fs::File = unsafe { rustix::fd::FromRawFd::from_raw_fd(4) };
                use std::io::{Read, Seek};
                file.rewind().unwrap();
                file.read_to_string(&mut text).unwrap();
            }
            report(&format!("names={names} text={text}"));
            if count == 2 || std::fs::exists(std::env::var("GO").unwrap()).unwrap() {
                sleep();
            }
            let path = format!("{}.kept", std::env::var("REPORT").unwrap());
            let mut options = std::fs::File::options();
            options.read(true).write(true).create(true).truncate(true);
            let mut file = options.open(path).unwrap();
            file.write_all(b"remember").unwrap();
            send_fd(b"FDSTORE=1\nFDNAME=kept", file.as_fd());
            ExitCode::FAILURE
        }
        ["wait", code] => {
            wait_for_go();
            ExitCode::from(code.parse::<u8>().unwrap())
        }
        ["monitor"] => {
            let [unit, result, code, status] =
                ["UNIT", "SERVICE_RESULT", "EXIT_CODE", "EXIT_STATUS"]
                    .map(|name| variable(&format!("MONITOR_{name}")));
            report(&format!("monitor {unit} {result} {code} {status}"));
            ExitCode::SUCCESS
        }
        ["client"] => {
            report(&format!("client {} {}", variable("REMOTE_ADDR"), variable("SO_COOKIE")));
            ExitCode::SUCCESS
        }
        ["epilogue"] => {
            let [result, code, status] =
                ["SERVICE_RESULT", "EXIT_CODE", "EXIT_STATUS"].map(variable);
            report(&format!("epilogue {result} {code} {status}"));
            ExitCode::SUCCESS
        }
        ["ready"] => {
            wait_for_go();
            notify(b"STATUS=fine\nREADY=1");
            sleep()
        }
        // Says much more than anybody reads in one go, from several threads, then that it is
        // ready, then more without end.
        ["flood"] => {
            let path = std::env::var("NOTIFY_SOCKET").unwrap();
            let speak = |text: &[u8], times: usize| {
                let socket = std::os::unix::net::UnixDatagram::unbound().unwrap();
                (0..times).for_each(|_| assert!(socket.send_to(text, &path).is_ok()));
            };
            let long = [b'x'; 5000];
            std::thread::scope(|scope| {
                (0..4).for_each(|_| drop(scope.spawn(|| speak(b"STATUS=busy", 2000))));
                scope.spawn(|| speak(&long, 2000));
            });
            speak(b"READY=1", 1);
            std::thread::scope(|scope| {
                (0..4).for_each(|_| drop(scope.spawn(|| speak(b"STATUS=busy", usize::MAX))));
                scope.spawn(|| speak(&long, usize::MAX));
            });
            ExitCode::SUCCESS
        }
        // Listens on what it was given no more, and ends.
        ["shut-down", side] => {
            let side = match *side {
                "reading" => net::Shutdown::Read,
                _ => net::Shutdown::Both,
            };
            for fd in fds() {
                net::shutdown(&fd, side).unwrap();
            }
            report("shut");
            ExitCode::SUCCESS
        }
        ["inetd"] => {
            let stdin = std::io::stdin();
            let connection = net::accept(stdin.as_fd()).unwrap();
            let listen = std::env::var("LISTEN_FDS");
            let text = format!("stdin listens, LISTEN_FDS is {listen:?}");
            net::send(&connection, text.as_bytes(), SendFlags::empty()).unwrap();
            ExitCode::SUCCESS
        }
        // Has one connection, tells what it was given with it, and echoes until the client leaves.
        ["connection"] => {
            let [connection] = <[OwnedFd; 1]>::try_from(fds()).unwrap();
            let given = ["REMOTE_ADDR", "REMOTE_PORT", "ROUSE_INSTANCE"].map(variable).join(" ");
            let cookie = variable("SO_COOKIE").parse::<u64>().is_ok();
            report(&format!("from {given} cookie={cookie}"));
            if std::env::var("NOTIFY_SOCKET").is_ok() {
                notify(b"READY=1");
            }
            let mut buffer = [0; 4096];
            while let Ok((length @ 1.., _)) =
                net::recv(&connection, &mut buffer, RecvFlags::empty())
            {
                let pid = std::process::id();
                let text = [format!("{pid} ").as_bytes(), &buffer[..length]].concat();
                net::send(&connection, &text, SendFlags::NOSIGNAL).unwrap();
            }
            ExitCode::SUCCESS
        }
        // Echoes to any number of clients at once, each until it leaves.
        ["hold"] => {
            let fds = fds();
            let term = Term::block();
            std::thread::scope(|scope| {
                for fd in &fds {
                    scope.spawn(move || hold(fd.as_fd()));
                }
                scope.spawn(move || {
                    term.wait();
                    // From now on nobody takes anything; what was taken is answered.
                    let _rest = TAKING.lock();
                    while OPEN.load(Ordering::Relaxed) > 0 {
                        std::thread::sleep(Duration::from_millis(1));
                    }
                    std::process::exit(0);
                });
            });
            ExitCode::SUCCESS
        }
        // The same, as inetd hands it over.
        ["stdin"] => {
            let text = std::io::read_to_string(std::io::stdin()).unwrap();
            let listen = std::env::var("LISTEN_FDS");
            println!("{text}, LISTEN_FDS is {listen:?}");
            ExitCode::SUCCESS
        }
        // A client of its own, perhaps as another user; says what it got.
        ["connect", path] => {
            let mut stream = std::os::unix::net::UnixStream::connect(path).unwrap();
            // It may be closed already.
            let _ = stream.write_all(b"x");
            let mut answer = [0; 100];
            let length = std::io::Read::read(&mut stream, &mut answer).unwrap_or(0);
            println!("{}", if length == 0 { "closed" } else { "served" });
            let _ = std::io::read_to_string(std::io::stdin());
            ExitCode::SUCCESS
        }
        // Tells whether a file is there at this time, and which fds were given.
        ["look", name, path] => {
            report(&format!("{name} {}", std::fs::exists(path).unwrap()));
            if std::env::var("LISTEN_FDS").is_ok() {
                fds();
            }
            ExitCode::SUCCESS
        }
        ["main-pid", pid] => {
            report(&format!("argument {pid} environment {}", variable("MAINPID")));
            ExitCode::SUCCESS
        }
        ["limits"] => {
            let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
            let umask = rustix::process::umask(rustix::fs::Mode::empty()).bits();
            let here = std::env::current_dir().unwrap();
            let score = std::fs::read_to_string("/proc/self/oom_score_adj").unwrap();
            let status = std::fs::read_to_string("/proc/self/status").unwrap();
            let no_new = status.lines().find(|line| line.starts_with("NoNewPrivs")).unwrap();
            let nice = rustix::process::getpriority_process(None).unwrap();
            report(&format!(
                "files {:?} umask {umask:03o} in {} score {} {} nice {nice}",
                (limit.current, limit.maximum),
                here.display(),
                score.trim(),
                no_new.replace('\t', " "),
            ));
            ExitCode::SUCCESS
        }
        ["who"] => {
            let status = std::fs::read_to_string("/proc/self/status").unwrap();
            let mask = ["SigBlk", "SigIgn"];
            let ids = ["Uid", "Gid", "Groups"];
            for name in ids.into_iter().chain(mask) {
                let line = status.lines().find(|line| line.starts_with(name)).unwrap();
                report(&line.split_whitespace().collect::<Vec<_>>().join(" "));
            }
            ExitCode::SUCCESS
        }
        // Stops whatever it may, but itself.
        ["stop-all"] => loop {
            // SAFETY: kill takes numbers only; we are in a PID namespace of the test's own.
            #[allow(unsafe_code)]
            unsafe {
                libc::kill(-1, libc::SIGSTOP)
            };
        },
        // Leaves an fd with the activator, once.
        ["store"] => {
            let names = variable("LISTEN_FDNAMES");
            if !names.contains("kept") {
                store();
            }
            report(&format!("started with {names}"));
            sleep()
        }
        ["wait"] => {
            report("waits");
            wait_for_go();
            ExitCode::SUCCESS
        }
        ["sd-notify"] => crate::clients::by_sd_notify(),
        ["sleep"] => sleep(),
        other => panic!("no helper {other:?}"),
    }
}

fn store() {
    let socket = std::os::unix::net::UnixDatagram::unbound().unwrap();
    socket.connect(std::env::var("NOTIFY_SOCKET").unwrap()).unwrap();
    let null = std::fs::File::open("/dev/null").unwrap();
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = net::SendAncillaryBuffer::new(&mut space);
    let fds = [null.as_fd()];
    assert!(control.push(net::SendAncillaryMessage::ScmRights(&fds)));
    let text = rustix::io::IoSlice::new(b"FDSTORE=1\nFDNAME=kept");
    net::sendmsg(&socket, &[text], &mut control, SendFlags::empty()).unwrap();
}

/// Takes nothing over, and executes whom it was to take over from.
pub(crate) fn give_back(state: &str, way_back: &str) -> ExitCode {
    let mut command = Command::new(format!("/proc/self/fd/{way_back}"));
    let error = command.arg0("activator").args(["--take-over", state, way_back, "back"]).exec();
    panic!("{error}");
}

/// Echoes on all fds, with its pid in front, until so many clients were served; 0 is for ever.
fn serve(count: usize) -> ExitCode {
    let fds = fds();
    for fd in &fds {
        // The loop is one of poll, so that a client that has left blocks nobody; whether it was
        // blocking when it came is in the report.
        let flags = fcntl_getfl(fd).unwrap() | OFlags::NONBLOCK;
        rustix::fs::fcntl_setfl(fd, flags).unwrap();
    }
    let mut served = 0;
    loop {
        let mut poll: Vec<_> = fds
            .iter()
            .map(|fd| rustix::event::PollFd::new(fd, rustix::event::PollFlags::IN))
            .collect();
        rustix::event::poll(&mut poll, None).unwrap();
        for fd in &fds {
            if answer(fd.as_fd()) {
                served += 1;
                if served == count {
                    return ExitCode::SUCCESS;
                }
            }
        }
    }
}

/// Held by whoever takes a connection, and from a datagram until its answer.
static TAKING: Mutex<()> = Mutex::new(());
/// Connections that were taken.
static OPEN: AtomicUsize = AtomicUsize::new(0);

/// SIGTERM, which waits until it is asked for.
#[derive(Clone, Copy)]
struct Term(libc::sigset_t);

#[allow(unsafe_code)]
impl Term {
    /// For this thread and those that it starts from now on.
    fn block() -> Self {
        // SAFETY: all zero is a set, which sigemptyset(3) then makes in its own way; the calls
        // take pointers to it and to nothing else.
        unsafe {
            let mut set = std::mem::zeroed();
            libc::sigemptyset(&raw mut set);
            libc::sigaddset(&raw mut set, libc::SIGTERM);
            libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut());
            Self(set)
        }
    }

    fn wait(&self) {
        // A freeze ends the call, too.
        // SAFETY: the set is initialized, and nobody asks what came with the signal.
        while unsafe { libc::sigwaitinfo(&raw const self.0, std::ptr::null_mut()) } < 0 {}
    }
}

fn hold(listener: BorrowedFd) {
    let is_stream = sockopt::socket_type(listener) == Ok(SocketType::STREAM);
    let flags = fcntl_getfl(listener).unwrap() | OFlags::NONBLOCK;
    rustix::fs::fcntl_setfl(listener, flags).unwrap();
    loop {
        let mut poll = [rustix::event::PollFd::new(&listener, rustix::event::PollFlags::IN)];
        rustix::event::poll(&mut poll, None).unwrap();
        let _taking = TAKING.lock();
        if !is_stream {
            answer(listener);
            continue;
        }
        let Ok(connection) = net::accept(listener) else { continue };
        OPEN.fetch_add(1, Ordering::Relaxed);
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok((length @ 1.., _)) =
                net::recv(&connection, &mut buffer, RecvFlags::empty())
            {
                let pid = std::process::id();
                let text = [format!("{pid} ").as_bytes(), &buffer[..length]].concat();
                net::send(&connection, &text, SendFlags::NOSIGNAL).unwrap();
            }
            drop(connection);
            OPEN.fetch_sub(1, Ordering::Relaxed);
        });
    }
}

fn answer(fd: BorrowedFd) -> bool {
    let pid = std::process::id();
    let mut buffer = [0; 4096];
    match sockopt::socket_type(fd) {
        Ok(SocketType::DGRAM) => {
            let Ok((length, _, from)) = net::recvfrom(fd, &mut buffer, RecvFlags::empty()) else {
                return false;
            };
            let text = [format!("{pid} ").as_bytes(), &buffer[..length]].concat();
            if let Some(from) = from {
                net::sendto(fd, &text, SendFlags::empty(), &from).unwrap();
            }
            true
        }
        Ok(_) => {
            let Ok(connection) = net::accept(fd) else { return false };
            let (length, _) = net::recv(&connection, &mut buffer, RecvFlags::empty()).unwrap();
            let text = [format!("{pid} ").as_bytes(), &buffer[..length]].concat();
            net::send(&connection, &text, SendFlags::NOSIGNAL).unwrap();
            true
        }
        // A FIFO.
        Err(_) => match rustix::io::read(fd, &mut buffer) {
            Ok(length @ 1..) => {
                report(&format!("fifo {}", String::from_utf8_lossy(&buffer[..length])));
                true
            }
            _ => false,
        },
    }
}

/// The fds of the protocol, after a line about them.
fn fds() -> Vec<OwnedFd> {
    let count: i32 = variable("LISTEN_FDS").parse().unwrap_or(0);
    let own = variable("LISTEN_PID") == std::process::id().to_string();
    let mut kinds = vec![];
    #[allow(unsafe_code)]
    let take = |fd| {
        // SAFETY: these fds are handed to this process, and nobody else has taken them.
        unsafe { rustix::fd::FromRawFd::from_raw_fd(fd) }
    };
    let fds: Vec<OwnedFd> = (3..3 + count).map(take).collect();
    for fd in &fds {
        let kind = match sockopt::socket_type(fd) {
            Ok(SocketType::STREAM) => "stream",
            Ok(SocketType::DGRAM) => "datagram",
            Ok(SocketType::SEQPACKET) => "seqpacket",
            Ok(_) => "other",
            Err(_) => "fifo",
        };
        let blocking = !fcntl_getfl(fd).unwrap().contains(OFlags::NONBLOCK);
        let cloexec = fcntl_getfd(fd).unwrap().contains(FdFlags::CLOEXEC);
        kinds.push(format!(
            "{kind}{}{}",
            if blocking { "" } else { "+nonblock" },
            if cloexec { "+cloexec" } else { "" }
        ));
    }
    let open: Vec<i32> = std::fs::read_dir("/proc/self/fd")
        .unwrap()
        .filter_map(|entry| entry.unwrap().file_name().to_str()?.parse().ok())
        .collect();
    // One more is the directory that is being read.
    let stray = open.iter().filter(|fd| **fd >= 3 + count).count() - 1;
    report(&format!(
        "fds own={own} count={count} names={} kinds={} stray={stray}",
        variable("LISTEN_FDNAMES"),
        kinds.join(",")
    ));
    fds
}

/// Sends a notification with an fd.
fn send_fd(text: &[u8], fd: BorrowedFd) {
    use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SocketAddrUnix};
    let socket = std::os::unix::net::UnixDatagram::unbound().unwrap();
    let to = SocketAddrUnix::new(std::env::var("NOTIFY_SOCKET").unwrap()).unwrap();
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let fds = [fd];
    assert!(control.push(SendAncillaryMessage::ScmRights(&fds)));
    let text = [std::io::IoSlice::new(text)];
    net::sendmsg_addr(&socket, &to, &text, &mut control, SendFlags::empty()).unwrap();
}

fn variable(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| "none".into())
}

fn report(line: &str) {
    let path = std::env::var("REPORT").unwrap();
    if let Some(name) = path.strip_prefix('@') {
        use std::os::linux::net::SocketAddrExt;
        let address = std::os::unix::net::SocketAddr::from_abstract_name(name).unwrap();
        let socket = std::os::unix::net::UnixDatagram::unbound().unwrap();
        socket.send_to_addr(format!("{line}\n").as_bytes(), &address).unwrap();
        return;
    }
    let mut file = std::fs::File::options().create(true).append(true).open(path).unwrap();
    file.write_all(format!("{line}\n").as_bytes()).unwrap();
}

fn notify(text: &[u8]) {
    let path = std::env::var("NOTIFY_SOCKET").unwrap();
    let socket = std::os::unix::net::UnixDatagram::unbound().unwrap();
    socket.send_to(text, path).unwrap();
}

fn wait_for_go() {
    let path = std::env::var("GO").unwrap();
    while !std::fs::exists(&path).unwrap() {
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn sleep() -> ! {
    loop {
        std::thread::sleep(Duration::from_secs(1));
    }
}

fn own_command(arguments: &[&str]) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.arg("helper").args(arguments);
    command
}

static TERM: AtomicBool = AtomicBool::new(false);

fn catch_term() {
    catch(libc::SIGTERM);
}

/// Notes one signal in [`TERM`].
#[allow(unsafe_code)]
fn catch(signal: i32) {
    extern "C" fn note(_: i32) {
        TERM.store(true, Ordering::Relaxed);
    }
    // SAFETY: the handler only stores to an atomic.
    unsafe { libc::signal(signal, note as extern "C" fn(i32) as libc::sighandler_t) };
}

fn wait_for_term() {
    while !TERM.load(Ordering::Relaxed) {
        std::thread::sleep(Duration::from_millis(5));
    }
}
