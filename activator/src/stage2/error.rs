//! What a stage fails at, and the exit code for it.

use super::template::TemplateError;
use crate::exit;
use crate::manifest::DecodeError;
use std::ffi::OsString;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// The stages of an exec that have an exit code of their own (systemd.exec(5), "Process Exit
/// Codes"), which is the number of each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)] // the names there
pub enum Stage {
    Chdir = 200,
    Nice = 201,
    Fds = 202,
    Exec = 203,
    Memory = 204,
    Limits = 205,
    Stdin = 208,
    Stdout = 209,
    Scheduler = 214,
    CpuAffinity = 215,
    Group = 216,
    User = 217,
    Capabilities = 218,
    Cgroup = 219,
    Stderr = 222,
    Network = 225,
    Namespace = 226,
    NoNewPrivileges = 227,
    Seccomp = 228,
    RuntimeDirectory = 233,
    Keyring = 237,
    StateDirectory = 238,
    CacheDirectory = 239,
    LogsDirectory = 240,
    ConfigurationDirectory = 241,
    Credentials = 243,
}

/// What stage 2 fails at.
#[derive(Debug)]
pub enum Error {
    /// PID 1 called it wrongly: our bug.
    Usage,
    /// The manifest's file cannot be used.
    Manifest(PathBuf, DecodeError),
    /// The manifest has no such unit or command.
    NoCommand(String),
    /// A container's id that is no plain file name.
    Id(String),
    /// The template cannot be filled in.
    Template(String, TemplateError),
    /// A file or directory; what was to be done with it.
    File(&'static str, PathBuf, io::Error),
    /// An `EnvironmentFile=` that must be there cannot be read.
    EnvironmentFile(PathBuf, io::Error),
    /// A text of the unit has a NUL in it.
    Nul(String),
    /// One of the stages; what was to be done there.
    Stage(Stage, String, io::Error),
    /// The program could not be executed.
    Exec(OsString, io::Error),
}

/// An [`Error`] on its way to whoever says it: as small as it can be, since the way is taken at
/// every second line of stage 2.
#[derive(Debug)]
pub struct Failed(Box<Error>);

impl Failed {
    #[cold]
    #[inline(never)]
    fn new(error: Error) -> Self {
        Self(Box::new(error))
    }

    /// [`Error::Usage`]
    pub(super) fn usage() -> Self {
        Self::new(Error::Usage)
    }

    /// [`Error::File`]
    #[cold]
    pub(super) fn file(what: &'static str, path: impl AsRef<Path>, error: io::Error) -> Self {
        Self::new(Error::File(what, path.as_ref().to_owned(), error))
    }
}

impl std::ops::Deref for Failed {
    type Target = Error;

    fn deref(&self) -> &Error {
        &self.0
    }
}

impl From<Error> for Failed {
    fn from(error: Error) -> Self {
        Self::new(error)
    }
}

impl Error {
    /// The code to leave with.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Usage => exit::SOFTWARE,
            Self::Manifest(..) | Self::NoCommand(_) | Self::Id(_) | Self::Template(..) => {
                exit::DATA
            }
            Self::File(..) => exit::SYSTEM,
            // systemd has read these before there is a process, which fails with "resources".
            Self::EnvironmentFile(..) => exit::DATA,
            Self::Stage(stage, ..) => *stage as u8,
            Self::Nul(_) | Self::Exec(..) => exit::EXEC,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Usage => write!(
                f,
                "expected `stage2 exec UNIT LIST INDEX` and {} in the environment; this is a bug \
                 in rouse",
                super::MANIFEST_VARIABLE
            ),
            Self::Manifest(path, error) => write!(f, "{}: {error}", path.display()),
            Self::NoCommand(unit) => write!(f, "{unit} has no such command in the manifest"),
            Self::Id(id) => write!(f, "the container's id {id:?} is no plain name"),
            Self::Template(path, error) => write!(f, "{path} cannot be used: {error}"),
            Self::File(what, path, error) => {
                write!(f, "cannot {what} {}: {error}", path.display())
            }
            Self::EnvironmentFile(path, error) => {
                write!(f, "cannot read the environment file {}: {error}", path.display())
            }
            Self::Nul(text) => write!(f, "a NUL is in {text:?}"),
            Self::Stage(_, what, error) => write!(f, "cannot {what}: {error}"),
            Self::Exec(program, error) => {
                write!(f, "cannot execute {}: {error}", program.to_string_lossy())
            }
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::File(_, _, error)
            | Self::EnvironmentFile(_, error)
            | Self::Stage(_, _, error)
            | Self::Exec(_, error) => Some(error),
            _ => None,
        }
    }
}

/// Says which stage failed, and at what.
pub(super) trait At<T> {
    fn at(self, stage: Stage, what: impl FnOnce() -> String) -> Result<T, Failed>;
}

impl<T, E: Into<io::Error>> At<T> for Result<T, E> {
    fn at(self, stage: Stage, what: impl FnOnce() -> String) -> Result<T, Failed> {
        self.map_err(|error| Failed::new(Error::Stage(stage, what(), error.into())))
    }
}
