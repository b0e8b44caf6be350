//! `--wait-for-backend`: no client is taken before the backend answers.
//!
//! A client that waits in the backlog loses nothing when the relay gives up: the service manager
//! sees it, and starts all anew. One that was taken would be closed. So the first connection to
//! the backend is made before its client is taken, and kept for it; where nobody waits (a person
//! started us) there is nothing to wait for. Later, while connections fail, nobody is taken
//! either ([`Relay::takes_clients`]).

use super::backend::connected;
use super::{Error, Kind, Relay};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::{AsFd, BorrowedFd};
use rustix::io::Errno;
use rustix::net::SocketType;
use std::time::{Duration, Instant};

/// Between attempts; doubled up to the last.
const FIRST_PAUSE: Duration = Duration::from_millis(1);
const LAST_PAUSE: Duration = Duration::from_millis(50);
/// For one connection to come to be.
const ONE_CONNECTION: Duration = Duration::from_secs(10);

/// What the wait has led to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Gate {
    Open,
    /// Told to end.
    Ended,
}

impl Relay {
    /// Waits until the backend answers, if a client does.
    pub(super) fn wait_for_backend(&mut self) -> Result<Gate, Error> {
        let end = Instant::now() + self.settings.connect_timeout;
        let mut pause = FIRST_PAUSE;
        let mut last = Errno::CONNREFUSED;
        while self.settings.wait && self.somebody_waits() {
            // A name's thread wakes the loop, which is not there yet: a pause will do.
            let addresses = self.backend.addresses(Instant::now());
            for address in addresses.iter().flat_map(|addresses| addresses.iter()) {
                match self.backend.connect(address, SocketType::STREAM) {
                    Ok(backend) => {
                        wait(
                            &[
                                (self.signals.as_fd(), PollFlags::IN),
                                (backend.as_fd(), PollFlags::OUT),
                            ],
                            ONE_CONNECTION,
                        );
                        match connected(&backend) {
                            Some(Ok(())) => {
                                self.backend.keep(backend);
                                return Ok(Gate::Open);
                            }
                            failed => {
                                last = failed.and_then(Result::err).unwrap_or(Errno::TIMEDOUT)
                            }
                        }
                    }
                    Err(errno) => last = errno,
                }
            }
            self.backend.forget();
            if Instant::now() >= end {
                return Err(Error::NoBackend(last));
            }
            if wait(&[(self.signals.as_fd(), PollFlags::IN)], pause) {
                return Ok(Gate::Ended);
            }
            pause = (pause * 2).min(LAST_PAUSE);
        }
        Ok(Gate::Open)
    }

    /// Whether a client waits in a backlog.
    fn somebody_waits(&self) -> bool {
        let streams = self.listeners.iter().filter(|it| it.kind == Kind::Stream);
        let streams: Vec<_> = streams.map(|it| (it.fd.as_fd(), PollFlags::IN)).collect();
        wait(&streams, Duration::ZERO)
    }

    /// Whether clients are taken now.
    pub(super) fn takes_clients(&self) -> bool {
        let failing = self.settings.wait && self.backend.is_failing();
        !self.leaving && !failing && !self.connections.is_full() && self.pause.is_none()
    }
}

/// Whether one of these became ready in that time.
fn wait(fds: &[(BorrowedFd, PollFlags)], time: Duration) -> bool {
    let mut fds: Vec<_> =
        fds.iter().map(|(fd, what)| PollFd::from_borrowed_fd(*fd, *what)).collect();
    let time = Timespec::try_from(time).ok();
    // What goes wrong here goes wrong again with what comes next.
    matches!(poll(&mut fds, time.as_ref()), Ok(1..))
}
