//! `activator activate`: listen, wait for the first client, become the program.
//!
//! What it takes and does is in [`arguments::USAGE`]; systemd-socket-activate(1) is the model.
//! Where it differs on purpose: kinds of sockets can be mixed, a command line that is wrong is
//! exit code 2, and with `--accept` nothing that accept(2) says ends it: EMFILE and its kin make
//! it wait.

mod accept;
mod arguments;
mod process;

use crate::announce::Announcer;
use crate::listen;
use activator::address::kind_name;
use activator::manifest::Socket;
use activator::{child, exit, inherit};
use arguments::{Activate, Call, HandOver, Mode};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use rustix::io::Errno;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::process::ExitCode;

/// SD_LISTEN_FDS_START.
const FIRST: RawFd = 3;
/// What of our own environment the program gets without being asked for.
const KEPT: [&str; 6] = ["TERM", "COLORTERM", "NO_COLOR", "PATH", "USER", "HOME"];

/// `arguments` is what stands behind `activate`.
pub(crate) fn main(arguments: &[OsString]) -> ExitCode {
    let call = match Call::parse(arguments) {
        Ok(Call::Help) => {
            println!("{}", arguments::USAGE);
            return ExitCode::from(exit::DONE);
        }
        Ok(Call::Version) => {
            println!("activator {}", env!("CARGO_PKG_VERSION"));
            return ExitCode::from(exit::DONE);
        }
        Ok(Call::Activate(call)) => call,
        Err(error) => {
            eprintln!("activator activate: {error}\nhint: activator activate --help");
            return ExitCode::from(exit::USAGE);
        }
    };
    let Err(error) = run(&call) else { return ExitCode::from(exit::DONE) };
    // Anew: the fd of an earlier one may have become the program's.
    Announcer::from_environment().say("STOPPING=1");
    eprintln!("activator activate: {error}");
    ExitCode::from(exit::FAILED)
}

/// Why there is no program.
#[derive(Debug)]
enum Error {
    Close(Errno),
    Listen(OsString, Errno),
    Nothing,
    TooManyForInetd(usize),
    NoConnections(RawFd),
    Wait(Errno),
    Place(Errno),
    Execute(OsString, io::Error),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Close(errno) => write!(f, "failed to close inherited fds: {errno}"),
            Self::Listen(text, errno) => {
                write!(f, "failed to listen on {}: {errno}", text.display())
            }
            Self::Nothing => {
                f.write_str("nothing to listen on: expected --listen, or sockets by LISTEN_FDS")
            }
            Self::TooManyForInetd(count) => {
                write!(f, "--inetd without --accept takes one socket, there are {count}")
            }
            Self::NoConnections(fd) => {
                write!(f, "--accept takes listening sockets, the inherited fd {fd} is none")
            }
            Self::Wait(errno) => write!(f, "failed to wait for a client: {errno}"),
            Self::Place(errno) => write!(f, "failed to put the sockets in place: {errno}"),
            Self::Execute(program, error) => {
                write!(f, "failed to execute {}: {error}", program.display())
            }
        }
    }
}

fn run(call: &Activate) -> Result<(), Error> {
    let fds = open(call)?;
    if call.hand_over == HandOver::Inetd && call.mode != Mode::Accept && fds.len() > 1 {
        return Err(Error::TooManyForInetd(fds.len()));
    }
    warn_of_names(call, fds.len());
    let announcer = Announcer::from_environment();
    if call.mode == Mode::Accept {
        return accept::serve(call, &fds, &announcer);
    }
    announcer.say("READY=1");
    if call.mode == Mode::First {
        wait(&fds)?;
    }
    for fd in &fds {
        // Blocking, as systemd's; an inherited one stays as it is if it cannot be changed.
        let _ = listen::set_nonblocking(fd.as_fd(), false);
    }
    let fds: Vec<BorrowedFd> = fds.iter().map(|fd| fd.as_fd()).collect();
    Err(become_program(call, &fds, vec![]))
}

/// All sockets: inherited ones first.
fn open(call: &Activate) -> Result<Vec<OwnedFd>, Error> {
    let mut fds: Vec<OwnedFd> = inherit::take_own().into_iter().map(|(_, fd)| fd).collect();
    let next = fds.iter().map(|fd| fd.as_raw_fd() + 1).max().unwrap_or(FIRST);
    process::close_from(next).map_err(Error::Close)?;
    // As systemd-socket-activate makes nodes.
    let settings = Socket { mode: 0o644, directory_mode: 0o755, ..Socket::default() };
    for (text, listener) in &call.listeners {
        let fd = listen::open(&settings, listener)
            .map_err(|errno| Error::Listen(text.clone(), errno))?;
        let number = FIRST as usize + fds.len();
        let kind = kind_name(listener.kind);
        eprintln!("listening on {kind} {} as fd {number}", listener.address);
        fds.push(fd);
    }
    if fds.is_empty() { Err(Error::Nothing) } else { Ok(fds) }
}

/// What systemd warns of, and then does.
fn warn_of_names(call: &Activate, count: usize) {
    let Some(names) = &call.names else { return };
    let count = if call.mode == Mode::Accept { 1 } else { count };
    if call.hand_over == HandOver::Inetd {
        eprintln!("warning: --fdname has no meaning with --inetd");
    } else if names.len() != 1 && names.len() != count {
        let given = names.len();
        eprintln!("warning: {given} names for {count} sockets, sd_listen_fds_with_names(3) fails");
    }
    for name in names {
        let fits = |byte: &u8| (b' '..=b'~').contains(byte);
        if name.len() > 255 || !name.as_bytes().iter().all(fits) {
            eprintln!("warning: {:?} is not a name that systemd takes", name);
        }
    }
}

fn wait(fds: &[OwnedFd]) -> Result<(), Error> {
    let mut polled: Vec<PollFd> = fds.iter().map(|fd| PollFd::new(fd, PollFlags::IN)).collect();
    loop {
        match poll(&mut polled, None) {
            Ok(_) => break,
            Err(Errno::INTR) => {}
            Err(errno) => return Err(Error::Wait(errno)),
        }
    }
    let ready = polled.iter().position(|it| !it.revents().is_empty()).unwrap_or_default();
    eprintln!("a client on fd {}", FIRST as usize + ready);
    Ok(())
}

/// Executes the program in this process; comes back only with why not.
fn become_program(call: &Activate, fds: &[BorrowedFd], more: Vec<(&str, String)>) -> Error {
    let Some((program, arguments)) = call.command.split_first() else {
        return Error::Execute(OsString::new(), io::ErrorKind::InvalidInput.into());
    };
    let placed = match (call.hand_over, fds) {
        (HandOver::Listen, fds) => process::place(fds, FIRST),
        (HandOver::Inetd, [fd]) => process::place(&[*fd, *fd], 0),
        (HandOver::Inetd, _) => Err(Errno::INVAL),
    };
    if let Err(errno) = placed {
        return Error::Place(errno);
    }
    let mut environment = Environment::default();
    for name in KEPT {
        if let Some(value) = std::env::var_os(name) {
            environment.set(name.as_ref(), &value);
        }
    }
    for (name, value) in more {
        environment.set(name.as_ref(), value.as_ref());
    }
    for (name, value) in &call.environment {
        match value.clone().or_else(|| std::env::var_os(name)) {
            Some(value) if is_name(name) => environment.set(name, &value),
            Some(_) => eprintln!("warning: {name:?} is no name of a variable"),
            None => {}
        }
    }
    if call.hand_over == HandOver::Listen {
        environment.set("LISTEN_PID".as_ref(), std::process::id().to_string().as_ref());
        environment.set("LISTEN_FDS".as_ref(), fds.len().to_string().as_ref());
        if let Some(names) = &call.names {
            environment.set("LISTEN_FDNAMES".as_ref(), &listen_names(names, fds.len()));
        }
    }
    let words = std::iter::once(program).chain(arguments);
    let errno = match (child::texts(words), child::texts(&environment.0)) {
        (Ok(words), Ok(environment)) => child::execute_by_name(&words[0], &words, &environment),
        _ => Errno::INVAL,
    };
    Error::Execute(program.clone(), errno.into())
}

/// `NAME=value`, each name once.
#[derive(Debug, Default)]
struct Environment(Vec<OsString>);

impl Environment {
    fn set(&mut self, name: &OsStr, value: &OsStr) {
        let text = [name, value].join(OsStr::new("="));
        let head = name.len() + 1;
        let same = |it: &&mut OsString| it.as_bytes().get(..head) == text.as_bytes().get(..head);
        match self.0.iter_mut().find(same) {
            Some(known) => *known = text,
            None => self.0.push(text),
        }
    }
}

/// One name for all, or as they are.
fn listen_names(names: &[OsString], count: usize) -> OsString {
    match names {
        [name] => vec![name.as_os_str(); count].join(OsStr::new(":")),
        names => names.join(OsStr::new(":")),
    }
}

fn is_name(name: &OsStr) -> bool {
    let bytes = name.as_bytes();
    !bytes.is_empty() && !bytes.iter().any(|byte| matches!(byte, b'=' | 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_name_is_for_all() {
        let names = |texts: &[&str], count| {
            listen_names(&texts.iter().map(OsString::from).collect::<Vec<_>>(), count)
        };
        assert_eq!(names(&["a"], 3), "a:a:a");
        assert_eq!(names(&["a", "b"], 2), "a:b");
        assert_eq!(names(&["a", "b"], 3), "a:b");
        assert_eq!(names(&[""], 2), ":");
    }
}
