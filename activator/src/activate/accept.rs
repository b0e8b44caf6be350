//! `--accept`: a child for each connection, until SIGTERM or SIGINT.

use super::arguments::Activate;
use super::process::{Side, fork, reap};
use super::{Error, become_program};
use crate::announce::Announcer;
use crate::listen;
use crate::remote::Remote;
use crate::sys::{self, Signals};
use activator::exit;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::{AsFd, AsRawFd, OwnedFd};
use rustix::io::Errno;
use rustix::net::{SocketFlags, acceptfrom_with, sockopt};

/// How long it waits when there are no fds, no memory or no processes left.
const PAUSE: Timespec = Timespec { tv_sec: 0, tv_nsec: 200_000_000 };

/// Returns when it was told to end.
pub(super) fn serve(call: &Activate, fds: &[OwnedFd], announcer: &Announcer) -> Result<(), Error> {
    for fd in fds {
        if !matches!(sockopt::socket_acceptconn(fd), Ok(true)) {
            return Err(Error::NoConnections(fd.as_raw_fd()));
        }
        // A client that has left between poll and accept must not make us wait for the next.
        let _ = listen::set_nonblocking(fd.as_fd(), true);
    }
    let signals = Signals::new(&[libc::SIGCHLD, libc::SIGTERM, libc::SIGINT]);
    let signals = sys::signal_fd(&signals).map_err(Error::Wait)?;
    announcer.say("READY=1");
    let mut paused = false;
    let mut waiting = None;
    loop {
        let mut polled = vec![PollFd::new(&signals, PollFlags::IN)];
        if !paused {
            polled.extend(fds.iter().map(|fd| PollFd::new(fd, PollFlags::IN)));
        }
        match poll(&mut polled, paused.then_some(&PAUSE)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(Error::Wait(errno)),
        }
        let ready: Vec<bool> = polled.iter().map(|it| !it.revents().is_empty()).collect();
        drop(polled);
        while let Some(signal) = sys::next_signal(signals.as_fd()) {
            if signal != libc::SIGCHLD {
                announcer.say("STOPPING=1");
                return Ok(());
            }
        }
        for (pid, status) in reap() {
            match (status.exit_status(), status.terminating_signal()) {
                (Some(code), _) => eprintln!("process {pid} exited with code {code}"),
                (_, signal) => eprintln!("process {pid} was killed by signal {signal:?}"),
            }
        }
        let was_paused = std::mem::take(&mut paused);
        let ready = fds.iter().zip(ready.iter().skip(1)).filter(|(_, ready)| **ready);
        for listener in std::iter::once(None).chain(ready.map(|(fd, _)| Some(fd))) {
            // First the connection for which there was no process the last time.
            let accepted = match (waiting.take(), listener) {
                (Some(accepted), _) => Ok(Some(accepted)),
                (None, Some(listener)) => accept(listener),
                (None, None) => Ok(None),
            };
            let started = match accepted {
                Ok(Some(accepted)) => {
                    start(call, &accepted).inspect_err(|_| waiting = Some(accepted))
                }
                Ok(None) => Ok(()),
                Err(errno) => Err(errno),
            };
            if let Err(errno) = started {
                if !was_paused {
                    eprintln!("cannot start a program for a connection, waiting: {errno}");
                }
                paused = true;
                break;
            }
        }
    }
}

/// A connection without a process.
struct Accepted {
    connection: OwnedFd,
    remote: Option<Remote>,
}

/// Takes one connection, if there is one. An error is one that time may mend.
fn accept(listener: &OwnedFd) -> Result<Option<Accepted>, Errno> {
    match acceptfrom_with(listener, SocketFlags::CLOEXEC) {
        Ok((connection, peer)) => {
            Ok(Some(Accepted { connection, remote: peer.as_ref().map(Remote::of) }))
        }
        Err(errno @ (Errno::MFILE | Errno::NFILE | Errno::NOMEM | Errno::NOBUFS)) => Err(errno),
        // The client has left.
        Err(_) => Ok(None),
    }
}

/// Starts its program. An error is one that time may mend.
fn start(call: &Activate, accepted: &Accepted) -> Result<(), Errno> {
    if let Side::Parent = fork()? {
        if let Some(remote) = &accepted.remote {
            eprintln!("a connection from {remote}");
        }
        return Ok(());
    }
    let mut variables = vec![];
    if let Some(Remote { address: Some(address), port }) = &accepted.remote {
        variables.push(("REMOTE_ADDR", address.clone()));
        variables.extend(port.map(|port| ("REMOTE_PORT", port.to_string())));
    }
    // Blocking, whatever the listener is: accept4(2) does not hand that on.
    let error = become_program(call, &[accepted.connection.as_fd()], variables);
    eprintln!("activator activate: {error}");
    std::process::exit(i32::from(exit::FAILED))
}
