//! logd as a child: started first, restarted when it dies, stopped last.

use crate::cgroup::Entry;
use crate::engine::{StartError, Vsock};
use crate::files::{make_directories, parent};
use crate::program::OwnProgram;
use crate::reload::fd::{Arriving, Leaving};
use crate::reload::state::Place;
use crate::spawn::{Plan, Stream};
use crate::sys;
use crate::world::{LogPipe, World};
use activator::control::{PORT, SOCKET};
use activator::wire;
use rustix::fs::{self, AtFlags, CWD};
use rustix::io::Errno;
use rustix::net::{self, AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

/// The first delay of a restart in microseconds; doubled each time.
const FIRST_DELAY_US: u64 = 100_000;
/// The longest.
const LAST_DELAY_US: u64 = 10_000_000;
/// Having run for that long, it starts with the first delay again.
const GOOD_RUN_US: u64 = 60_000_000;

/// logd and what it is given. PID 1 keeps every fd, so nothing is lost when logd dies.
#[derive(Debug)]
pub(crate) struct Logger {
    program: OwnProgram,
    vsock: Option<OwnedFd>,
    control: OwnedFd,
    console: OwnedFd,
    count: usize,
    pid: Option<u32>,
    started: u64,
    /// When it is started again.
    again: Option<u64>,
    delay: u64,
    stopping: bool,
}

/// What a reload hands over.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Saved<F> {
    vsock: Option<F>,
    control: F,
    console: F,
    pid: Option<u32>,
    started: u64,
    again: Option<u64>,
    delay: u64,
}

wire! {
    struct Saved<F> { vsock, control, console, pid, started, again, delay }
}

impl Logger {
    /// Opens the control sockets, but for those that are kept, and prepares the command line.
    pub(crate) fn new(
        place: &Place,
        vsock: Vsock,
        console: OwnedFd,
        logs: &[Option<LogPipe>],
        kept: Option<&Saved<Arriving>>,
        trouble: &mut dyn FnMut(&str),
    ) -> Result<Self, StartError> {
        let error = |what, errno: Errno| StartError { what, errno: errno.raw_os_error() };
        let vsock = match (kept.and_then(|kept| kept.vsock?.take()), vsock) {
            (None, Vsock::Listen) => listen_vsock()
                .map_err(|errno| trouble(&format!("no control over vsock: {errno}")))
                .ok(),
            (kept, _) => kept,
        };
        let control = match kept.and_then(|kept| kept.control.take()) {
            Some(control) => control,
            None => listen_unix(&place.control)
                .map_err(|errno| error("listen on the control socket", errno))?,
        };
        let console = kept.and_then(|kept| kept.console.take()).unwrap_or(console);
        let mut names = vec!["pid1".to_owned()];
        names.extend(vsock.iter().map(|_| "control-vsock".to_owned()));
        names.push("control-unix".to_owned());
        let logged = logs.iter().enumerate().filter(|(_, log)| log.is_some());
        names.extend(logged.map(|(index, _)| format!("log-{index}")));
        names.push("console".to_owned());
        let program = OwnProgram::logd(place, &names)
            .map_err(|_| error("prepare a command with a NUL in it", Errno::INVAL))?;
        Ok(Self {
            program,
            vsock,
            control,
            console,
            count: names.len(),
            pid: kept.and_then(|kept| kept.pid),
            started: kept.map_or(0, |kept| kept.started),
            again: kept.and_then(|kept| kept.again),
            delay: kept.map_or(FIRST_DELAY_US, |kept| kept.delay),
            stopping: false,
        })
    }

    /// For the next process.
    pub(crate) fn leave(&self) -> Saved<Leaving<'_>> {
        Saved {
            vsock: self.vsock.as_ref().map(|fd| Leaving(fd.as_fd())),
            control: Leaving(self.control.as_fd()),
            console: Leaving(self.console.as_fd()),
            pid: self.pid,
            started: self.started,
            again: self.again,
            delay: self.delay,
        }
    }

    /// How many fds it is given.
    pub(crate) fn fds(&self) -> usize {
        self.count
    }

    /// Starts it.
    pub(crate) fn start(&mut self, now: u64, world: &mut World) {
        self.again = None;
        let [null, console] = [&world.null, &self.console].map(|fd| Stream::Fd(fd.as_raw_fd()));
        let plan = Plan {
            ready: self.program.ready(None),
            streams: [null, console, console],
            non_blocking: None,
            listeners: 0,
            cgroup: Entry::Nowhere,
            directory: c"/",
            oom_score: None,
            execution: None,
        };
        let link = std::iter::once(world.link.theirs());
        let control = self.vsock.iter().chain([&self.control]).map(AsFd::as_fd);
        let logs = world.logs.iter().flatten().map(|(read, _)| read.as_fd());
        let fds = link.chain(control).chain(logs).chain([self.console.as_fd()]);
        match world.spawner.spawn(&plan, fds) {
            Ok(child) => {
                self.pid = Some(child.pid);
                self.started = now;
            }
            Err(_) => self.restart(now),
        }
    }

    /// A process was reaped; whether it was logd.
    pub(crate) fn reaped(&mut self, now: u64, pid: u32, world: &mut World) -> bool {
        if self.pid != Some(pid) {
            return false;
        }
        self.pid = None;
        world.link.reset();
        if now.saturating_sub(self.started) >= GOOD_RUN_US {
            self.delay = FIRST_DELAY_US;
        }
        self.restart(now);
        true
    }

    fn restart(&mut self, now: u64) {
        if !self.stopping {
            self.again = Some(now.saturating_add(self.delay));
            self.delay = (self.delay * 2).clamp(FIRST_DELAY_US, LAST_DELAY_US);
        }
    }

    /// When it is started again, if it is to be.
    pub(crate) fn deadline(&self) -> Option<u64> {
        self.again
    }

    /// Starts it if the time has come.
    pub(crate) fn tick(&mut self, now: u64, world: &mut World) {
        if self.again.is_some_and(|again| now >= again) {
            self.start(now, world);
        }
    }

    /// Asks it to write its last lines and end.
    pub(crate) fn stop(&mut self) {
        self.stopping = true;
        self.again = None;
        self.signal(libc::SIGTERM);
    }

    /// Asks it to make room for its successor, which is of another version.
    pub(crate) fn retire(&mut self) {
        self.delay = 0;
        self.signal(libc::SIGTERM);
    }

    /// Ends it now, if it has not ended.
    pub(crate) fn kill(&mut self) {
        self.signal(libc::SIGKILL);
    }

    /// Whether it does not run.
    pub(crate) fn is_gone(&self) -> bool {
        self.pid.is_none()
    }

    fn signal(&self, signal: i32) {
        if let Some(pid) = self.pid.and_then(|pid| i32::try_from(pid).ok()) {
            // Not reaped yet, so the number is its own.
            let _ = sys::kill(pid, signal);
        }
    }
}

fn listen_vsock() -> Result<OwnedFd, Errno> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let fd = net::socket_with(AddressFamily::VSOCK, SocketType::STREAM, flags, None)?;
    sys::bind_vsock(fd.as_fd(), libc::VMADDR_CID_ANY, PORT)?;
    net::listen(&fd, 128)?;
    Ok(fd)
}

fn listen_unix(path: &str) -> Result<OwnedFd, Errno> {
    let path = if path.is_empty() { SOCKET } else { path };
    make_directories(parent(path));
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let fd = net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    let _ = fs::unlinkat(CWD, path, AtFlags::empty());
    // Nobody but the owner from the first moment; one thread, so the umask is ours alone.
    let before = rustix::process::umask(fs::Mode::from_raw_mode(0o177));
    let bound = SocketAddrUnix::new(path).and_then(|address| net::bind(&fd, &address));
    rustix::process::umask(before);
    bound?;
    net::listen(&fd, 128)?;
    Ok(fd)
}
