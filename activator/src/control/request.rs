//! What clients want of a guest, and what they are told.

use super::{Line, Status, VERSION};
use crate::wire;

/// A unit as a person names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnitName {
    /// In full; without a type it is a service.
    pub name: String,
    /// Among whose units.
    pub whose: Whose,
}

/// Whose units are meant.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Whose {
    /// The system's.
    #[default]
    System,
    /// `--user NAME`: those of the lingering user of that name.
    User(String),
    /// `--user`: those of the one lingering user that there is.
    SoleUser,
}

impl From<&str> for UnitName {
    /// A unit of the system's.
    fn from(name: &str) -> Self {
        Self { name: name.to_owned(), whose: Whose::System }
    }
}

/// What a client wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// Answers with [`Reply::Status`].
    Status,
    /// Answers when the unit is up, or with an error.
    Start(UnitName),
    /// Answers when the unit is down.
    Stop(UnitName),
    /// Stop, then start.
    Restart(UnitName),
    /// Reload the unit's configuration (`ExecReload=`, or the signal of `Type=notify-reload`).
    ReloadUnit(UnitName),
    /// Lines that are kept, of one unit or of all.
    Logs {
        /// None is all units, merged by time.
        unit: Option<UnitName>,
        /// Go on with new lines until the client leaves.
        follow: bool,
    },
    /// Stop all services in order, then switch off. Answered before that happens.
    Poweroff,
    /// Take another manifest, and perhaps other programs, whose bytes follow the frame, in the
    /// order of [`Upload`]. Answered when it is in force, or with [`Failure::Replace`]. What has changed
    /// of a service applies from its next command on; the process that runs is left alone.
    Replace(Upload),
}

/// What follows a [`Request::Replace`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Upload {
    /// An encoded [`crate::manifest::Manifest`], at most [`Upload::LARGEST_MANIFEST`] bytes.
    pub manifest: Part,
    /// Executables for the guest's architecture, at most [`Upload::LARGEST_PROGRAM`] bytes each.
    pub programs: Option<Programs<Part>>,
}

/// The two programs of a guest; one never goes without the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Programs<T> {
    /// PID 1.
    pub init: T,
    /// What it executes for its log process and the second stage of a spawn, and people call.
    pub activator: T,
}

impl<T> Programs<T> {
    /// Both, in the order of the wire.
    pub fn into_array(self) -> [T; 2] {
        [self.init, self.activator]
    }
}

impl Upload {
    /// In bytes.
    pub const LARGEST_MANIFEST: u32 = 16 << 20;
    /// In bytes.
    pub const LARGEST_PROGRAM: u32 = 64 << 20;
}

/// One thing that is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part {
    /// In bytes.
    pub length: u32,
    /// CRC-32 (ISO-HDLC).
    pub sum: u32,
}

impl Part {
    /// That of these bytes; None if there are more than a length can say.
    pub fn of(bytes: &[u8]) -> Option<Self> {
        Some(Self { length: u32::try_from(bytes.len()).ok()?, sum: SUM.checksum(bytes) })
    }
}

/// The checksum of a [`Part`].
pub(crate) const SUM: crc::Crc<u32> = crc::Crc::<u32>::new(&crc::CRC_32_ISO_HDLC);

/// What a client gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// Done; final.
    Done,
    /// Not done; final.
    Failed(Failure),
    /// Answer to [`Request::Status`]; final.
    Status(Status),
    /// One log line; more follow, or [`Reply::Done`].
    Line(Line),
}

impl Reply {
    /// Whether the server closes the connection after it.
    pub fn is_final(&self) -> bool {
        !matches!(self, Self::Line(_))
    }
}

/// Why a request was not carried out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    /// The token is wrong.
    Denied,
    /// The guest speaks that version of the protocol.
    Version(u32),
    /// No unit has that name.
    NoSuchUnit(String),
    /// No lingering user has that name.
    NoSuchUser(String),
    /// `--user` without a name, where there is not exactly one user; their names.
    WhichUser(Vec<String>),
    /// The unit's start failed; the state it is in now.
    StartFailed(String),
    /// The unit's reload failed, and left it as it was.
    ReloadFailed,
    /// The unit does not run, or has nothing that reloads it.
    CannotReload,
    /// The guest is going down.
    ShuttingDown,
    /// The request made no sense.
    BadRequest,
    /// PID 1 did not answer in time.
    NoAnswer,
    /// The manifest or the activator is not taken; all is as it was.
    Replace(Unfit),
}

/// Why a [`Request::Replace`] is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unfit {
    /// Larger than [`Upload`] allows, or than the guest's memory has room for.
    TooLarge,
    /// Somebody else's is under way.
    Busy,
    /// The checksum does not fit.
    Damaged,
    /// It is no manifest that this activator can use: why.
    Manifest(String),
    /// The image lacks files that the manifest needs; what for, and which.
    Lacks(Vec<String>),
    /// Only a boot can do it: what.
    NeedsBoot(Vec<String>),
    /// The new activator does not run, or says no: why.
    Activator(String),
    /// PID 1 has tried, and gone back to the manifest that it had; its log tells why.
    NotTaken,
}

impl core::fmt::Display for Unfit {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::TooLarge => f.write_str("it is too large"),
            Self::Busy => f.write_str("another reload is under way"),
            Self::Damaged => f.write_str("it was damaged on its way"),
            Self::Manifest(why) | Self::Activator(why) => f.write_str(why),
            Self::Lacks(files) => write!(f, "the image lacks {}", files.join(", ")),
            Self::NeedsBoot(what) => write!(f, "only a boot can change {}", what.join(", ")),
            Self::NotTaken => f.write_str("the activator went back to what it had"),
        }
    }
}

impl core::fmt::Display for Failure {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Denied => f.write_str("the token is wrong"),
            Self::Version(found) => {
                write!(f, "the guest speaks control version {found}, this program {VERSION}")
            }
            Self::NoSuchUnit(name) => write!(f, "there is no unit {name}"),
            Self::NoSuchUser(name) => write!(f, "there is no user {name} with units"),
            Self::WhichUser(names) if names.is_empty() => {
                f.write_str("no user has units of his own")
            }
            Self::WhichUser(names) => {
                write!(f, "several users have units: {}", names.join(", "))
            }
            Self::StartFailed(state) => write!(f, "the unit did not start, it is {state}"),
            Self::ReloadFailed => f.write_str("the reload failed, and left the unit as it was"),
            Self::CannotReload => f.write_str(
                "the unit does not run, or has neither `ExecReload=` nor `Type=notify-reload`",
            ),
            Self::ShuttingDown => f.write_str("the guest is shutting down"),
            Self::BadRequest => f.write_str("the guest did not understand the request"),
            Self::NoAnswer => f.write_str("PID 1 did not answer in time"),
            Self::Replace(why) => why.fmt(f),
        }
    }
}

wire! {
    struct UnitName { name, whose }
    enum Whose { System, User(name), SoleUser }
    enum Request {
        Status, Start(unit), Stop(unit), Restart(unit), ReloadUnit(unit), Logs { unit, follow },
        Poweroff, Replace(upload),
    }
    struct Upload { manifest, programs }
    struct Programs<T> { init, activator }
    struct Part { length, sum }
    enum Reply { Done, Failed(failure), Status(status), Line(line) }
    enum Failure {
        Denied, Version(version), NoSuchUnit(name), NoSuchUser(name), WhichUser(names),
        StartFailed(state), ReloadFailed, CannotReload, ShuttingDown, BadRequest, NoAnswer,
        Replace(unfit),
    }
    enum Unfit {
        TooLarge, Busy, Damaged, Manifest(why), Lacks(files), NeedsBoot(chores), Activator(why),
        NotTaken,
    }
}
