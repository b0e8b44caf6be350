//! Standard streams that PID 1 leaves to stage 2: files, terminals, the kernel's log, data.
//!
//! Until they are arranged stderr is the unit's log wherever PID 1 could give it, so that what
//! fails on the way is read there, and not by a client.

use super::call::Subject;
use super::error::{At, Failed, Stage};
use super::identity::AsOwner;
use super::sys::{self, Standard};
use crate::manifest::{Execution, Input, Output, Stage2};
use rustix::fs::{self, CWD, MemfdFlags, Mode, OFlags, SeekFrom};
use rustix::io::{Errno, Result as Done};
use std::io;
use std::os::fd::{AsFd, OwnedFd};

/// TTYPath= where the unit has none.
const CONSOLE: &str = "/dev/console";
/// As systemd makes the files of `file:` and its kin, before the umask.
const MODE: Mode = Mode::from_raw_mode(0o644);

/// The streams of a child in the making.
pub(super) struct Streams<'a> {
    subject: &'a Subject,
    execution: &'a Execution,
    stage2: &'a Stage2,
}

impl<'a> Streams<'a> {
    pub(super) fn new(subject: &'a Subject, execution: &'a Execution, stage2: &'a Stage2) -> Self {
        Self { subject, execution, stage2 }
    }

    /// stdin and stdout; before the sandbox takes the paths away.
    pub(super) fn arrange(&self) -> Result<(), Failed> {
        let Execution { stdin, stdout, .. } = self.execution;
        let input = match stdin {
            Input::File(path) if self.execution.stdin_is_output() => {
                Some(self.open_file(path, OFlags::RDWR | OFlags::CREATE))
            }
            Input::File(path) => Some(self.open_file(path, OFlags::RDONLY)),
            Input::Terminal => Some(self.take_terminal()),
            Input::Data => Some(self.data()),
            Input::Null | Input::Socket | Input::Fd(_) => None,
        };
        if let Some(input) = input {
            let input = input.at(Stage::Stdin, || "set up stdin".into())?;
            sys::put(input.as_fd(), Standard::Input).at(Stage::Stdin, || "set up stdin".into())?;
        }
        let what = || "set up stdout".into();
        match (stdout, stdin) {
            (Output::Inherit, Input::File(_) | Input::Terminal) => {
                sys::put(io::stdin().as_fd(), Standard::Output).at(Stage::Stdout, what)
            }
            (stdout, _) if self.execution.is_stdin(stdout) => {
                sys::put(io::stdin().as_fd(), Standard::Output).at(Stage::Stdout, what)
            }
            _ => match self.open_output(stdout) {
                Some(fd) => {
                    fd.and_then(|fd| sys::put(fd.as_fd(), Standard::Output)).at(Stage::Stdout, what)
                }
                None => Ok(()),
            },
        }
    }

    /// stderr; given back, for the last moment.
    pub(super) fn last(&self) -> Result<Option<OwnedFd>, Failed> {
        let Execution { stdin, stdout, stderr, .. } = self.execution;
        let copied = match stderr {
            Output::Inherit => Some(sys::copy(io::stdout())),
            Output::Socket if *stdin == Input::Socket => Some(sys::copy(io::stdin())),
            stderr if self.execution.is_stdin(stderr) => Some(sys::copy(io::stdin())),
            Output::Socket if *stdout == Output::Socket => Some(sys::copy(io::stdout())),
            stderr => self.open_output(stderr),
        };
        copied.transpose().at(Stage::Stderr, || "set up stderr".into())
    }

    /// None: PID 1 has done it.
    fn open_output(&self, output: &Output) -> Option<Done<OwnedFd>> {
        match output {
            Output::File { path, append, truncate } => {
                let more = match (append, truncate) {
                    (true, _) => OFlags::APPEND,
                    (false, true) => OFlags::TRUNC,
                    (false, false) => OFlags::empty(),
                };
                Some(self.open_file(path, OFlags::WRONLY | OFlags::CREATE | more))
            }
            Output::Terminal => Some(match self.execution.stdin {
                Input::Terminal => sys::copy(io::stdin()),
                _ => self.take_terminal(),
            }),
            Output::Kmsg => Some(open("/dev/kmsg", OFlags::WRONLY)),
            Output::Null | Output::Log | Output::Inherit | Output::Socket | Output::Fd(_) => None,
        }
    }

    /// One that the unit names: a lingering user's unit reaches what the user can.
    fn open_file(&self, path: &str, flags: OFlags) -> Done<OwnedFd> {
        let _as_owner = AsOwner::of(self.subject);
        open(path, flags)
    }

    /// Devices that are among them, which the unit may use whatever else it may: as under systemd,
    /// where the journal's daemon writes to /dev/kmsg.
    pub(super) fn devices(&self) -> Vec<&str> {
        let Execution { stdin, stdout, stderr, .. } = self.execution;
        let outputs = [stdout, stderr];
        let mut devices = vec![];
        if *stdin == Input::Terminal || outputs.contains(&&Output::Terminal) {
            devices.push(self.terminal());
        }
        if outputs.contains(&&Output::Kmsg) {
            devices.push("/dev/kmsg");
        }
        devices
    }

    fn terminal(&self) -> &str {
        self.stage2.terminal.as_deref().unwrap_or(CONSOLE)
    }

    /// The terminal as our controlling one: PID 1 has made us the leader of a session.
    fn take_terminal(&self) -> Done<OwnedFd> {
        let terminal = open(self.terminal(), OFlags::RDWR)?;
        match sys::take_terminal(&terminal) {
            // No terminal, only a device that behaves like a file; or one that is nobody's.
            Err(Errno::NOTTY) | Ok(()) => Ok(terminal),
            Err(errno) => Err(errno),
        }
    }

    fn data(&self) -> Done<OwnedFd> {
        let file = fs::memfd_create("stdin", MemfdFlags::CLOEXEC)?;
        let mut rest = &self.stage2.stdin_data[..];
        while !rest.is_empty() {
            let written = rustix::io::write(&file, rest)?;
            rest = rest.get(written..).unwrap_or_default();
        }
        fs::seek(&file, SeekFrom::Start(0))?;
        Ok(file)
    }

    /// `TERM` of a process on a terminal, as systemd sets it.
    pub(super) fn term(&self) -> Option<&'static str> {
        let Execution { stdin, stdout, stderr, .. } = self.execution;
        let any = *stdin == Input::Terminal || [stdout, stderr].contains(&&Output::Terminal);
        any.then(|| match self.terminal().strip_prefix("/dev/tty") {
            Some(number) if number.starts_with(|c: char| c.is_ascii_digit()) => "linux",
            _ => "vt220",
        })
    }
}

/// Does not wait for the other end of a FIFO, as PID 1 would not.
fn open(path: &str, flags: OFlags) -> Done<OwnedFd> {
    let flags = flags | OFlags::CLOEXEC | OFlags::NOCTTY | OFlags::NONBLOCK;
    let fd = match fs::openat(CWD, path, flags, MODE) {
        // The path is a Unix socket, which systemd connects to.
        Err(Errno::NXIO) => sys::connect(path)?,
        fd => fd?,
    };
    let flags = fs::fcntl_getfl(&fd)? - OFlags::NONBLOCK;
    fs::fcntl_setfl(&fd, flags)?;
    Ok(fd)
}
