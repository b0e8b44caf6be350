//! Whether the programs of `Type=exec` services were executed, where stage 2 is what a spawn has
//! waited for.
//!
//! Stage 2 has the end of a pipe to write, close-on-exec. It writes 1 right before it executes the
//! program, and 0 should that have failed. So the end of the pipe behind a 1 says that it was done;
//! any other says nothing, and the end of the process does.

use crate::token::Token;
use activator::manifest::UnitId;
use mio::unix::SourceFd;
use mio::{Interest, Registry};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use std::os::fd::{AsRawFd, OwnedFd};

/// The pipes of all services and slots, each from a spawn to the end of the pipe.
#[derive(Debug)]
pub(crate) struct Execs(Box<[Option<Exec>]>);

#[derive(Debug)]
struct Exec {
    word: OwnedFd,
    /// The last byte was a 1.
    imminent: bool,
}

impl Execs {
    pub(crate) fn new(length: usize) -> Self {
        Self((0..length).map(|_| None).collect())
    }

    /// Makes a pipe for a child: the end to write.
    pub(crate) fn begin(&mut self, registry: &Registry, unit: UnitId) -> Result<OwnedFd, i32> {
        let pipe = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK);
        let (word, end) = pipe.map_err(|errno| errno.raw_os_error())?;
        let token = Token::Exec(unit).into();
        let watched =
            registry.register(&mut SourceFd(&word.as_raw_fd()), token, Interest::READABLE);
        watched.map_err(|error| error.raw_os_error().unwrap_or(libc::ENOMEM))?;
        // Closing what is left of a spawn before ends its watch.
        let place = self.0.get_mut(unit.index()).ok_or(libc::EINVAL)?;
        *place = Some(Exec { word, imminent: false });
        Ok(end)
    }

    /// A pipe is readable: whether its program was executed, now and not before.
    pub(crate) fn is_done(&mut self, unit: UnitId) -> bool {
        let Some(place) = self.0.get_mut(unit.index()) else { return false };
        let Some(exec) = place else { return false };
        let mut byte = [0];
        loop {
            match rustix::io::read(&exec.word, &mut byte) {
                Ok(1) => exec.imminent = byte == [1],
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return false,
                _ => {
                    let done = exec.imminent;
                    *place = None;
                    return done;
                }
            }
        }
    }
}
