//! `activator logd MANIFEST`: keeps the logs, and answers control requests.
//!
//! PID 1 must not allocate, wait or talk to strangers, so this process does. PID 1 hands it fds
//! by the LISTEN_FDS protocol, by name:
//!
//! | name | what |
//! |---|---|
//! | `pid1` | our end of a SEQPACKET pair: orders out, reports in ([`orders`]) |
//! | `log-N` | read end of the log pipe of unit N (an index of the manifest) |
//! | `control-unix`, `control-vsock` | stream listeners of the control protocol ([`connection`]) |
//! | `console` | where every line is shown ([`console`]) |
//!
//! PID 1 keeps all of them, and starts this process again if it dies. The history is then lost;
//! what is in the pipes is not. When PID 1 closes its end or sends SIGTERM, this process shows
//! the last lines and ends.
//!
//! It may allocate. Everything that others can make it keep is bounded: 64 KiB of text for each
//! unit ([`store::RING`]), lines of 8 KiB ([`split::MAX_LINE`]), 64 KiB for the console, 64
//! clients ([`server::MAX_CONNECTIONS`]) with at most 16 KiB and one reply each.

pub mod connection;
pub mod console;
pub mod journal;
pub mod orders;
pub mod peer;
pub mod request;
pub mod server;
pub mod signals;
pub mod split;
pub mod status;
pub mod store;
pub mod token;
pub mod upload;
pub mod words;

use crate::manifest::{DecodeError, Manifest, UnitId};
use crate::{exit, inherit};
use rustix::fd::OwnedFd;
use server::{Inheritance, Logd};
use std::ffi::OsString;
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

/// What it cannot begin without.
#[derive(Debug)]
pub enum Error {
    /// The arguments are the manifest's path, and perhaps that of its source.
    Usage,
    /// The manifest cannot be read.
    Read(PathBuf, io::Error),
    /// The manifest cannot be used.
    Manifest(PathBuf, DecodeError),
    /// No fd of the name `pid1`.
    NoPid1,
    /// The signals cannot be taken over.
    Signals(io::Error),
}

impl Error {
    /// The code to leave with.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Usage => exit::USAGE,
            Self::Read(..) => exit::UNAVAILABLE,
            Self::Manifest(..) => exit::DATA,
            Self::NoPid1 => exit::SOFTWARE,
            Self::Signals(_) => exit::SYSTEM,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Usage => {
                f.write_str("expected the manifest's path, and perhaps that of its source")
            }
            Self::Read(path, error) => write!(f, "cannot read {}: {error}", path.display()),
            Self::Manifest(path, error) => write!(f, "{}: {error}", path.display()),
            Self::NoPid1 => f.write_str("no fd named `pid1`: only the activator starts this"),
            Self::Signals(error) => write!(f, "cannot take over the signals: {error}"),
        }
    }
}

impl std::error::Error for Error {}

/// `args` is what stands behind `logd`.
pub fn main(args: &[OsString]) -> ExitCode {
    match inheritance(args, inherit::take()) {
        Ok(given) => {
            Logd::new(given).run();
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("activator logd: {error}");
            ExitCode::from(error.exit_code())
        }
    }
}

fn inheritance(args: &[OsString], fds: Vec<(String, OwnedFd)>) -> Result<Inheritance, Error> {
    let (path, source) = match args {
        [path] => (path, None),
        [path, source] => (path, Some(PathBuf::from(source))),
        _ => return Err(Error::Usage),
    };
    let path = PathBuf::from(path);
    let bytes = std::fs::read(&path).map_err(|error| Error::Read(path.clone(), error))?;
    let manifest = Manifest::decode(&bytes).map_err(|error| Error::Manifest(path, error))?;
    let (mut pid1, mut console) = (None, None);
    let (mut pipes, mut vsock, mut unix) = (Vec::new(), Vec::new(), Vec::new());
    for (name, fd) in fds {
        match name.as_str() {
            "pid1" => pid1 = Some(fd),
            "console" => console = Some(fd),
            "control-vsock" => vsock.push(fd),
            "control-unix" => unix.push(fd),
            // An unknown name is of a newer PID 1, which re-executed itself: it starts us anew.
            name => {
                if let Some(Ok(unit)) = name.strip_prefix("log-").map(str::parse) {
                    pipes.push((UnitId(unit), fd));
                }
            }
        }
    }
    Ok(Inheritance {
        manifest,
        source,
        pid1: pid1.ok_or(Error::NoPid1)?,
        console,
        pipes,
        vsock,
        unix,
        token: token::Token::read(),
        cgroups: status::CGROUPS.into(),
        signals: Some(signals::Signals::new().map_err(Error::Signals)?),
    })
}

#[cfg(test)]
mod tests;
