//! How a guest is asked and told: the control protocol.
//!
//! Two hops. A client (the host over vsock, root in the guest over a Unix socket) speaks frames
//! with `activator logd`, the process that keeps the logs: see [`Hello`], [`Request`], [`Reply`].
//! That process speaks fixed-size packets with PID 1 over a SEQPACKET pair: see [`Order`] and
//! [`Report`]. So PID 1 never waits for a client, and never sees a string of one.
//!
//! | who | sends | then |
//! |---|---|---|
//! | client | [`Hello`] | logd closes the connection if token or version are wrong |
//! | client | one [`Request`] | |
//! | logd | any number of [`Reply`] | the last one is final ([`Reply::is_final`]), then EOF |
//!
//! A frame is a length (u32, little endian, at most [`MAX_FRAME`]) and that many bytes of postcard.

use crate::manifest::UnitId;
use crate::peer::Peer;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::io::{self, Read, Write};

/// vsock port of the control protocol in every guest. Appliances cannot listen on it.
pub const PORT: u32 = 0x726f_7573;
/// The same for root in the guest, who needs no token.
pub const SOCKET: &str = "/run/rouse/control";
/// Name of the fw_cfg file in which the host hands over the token (64 hexadecimal digits).
pub const TOKEN_FW_CFG: &str = "opt/org.rouse/token";
/// Raised with every change of the types below.
pub const VERSION: u32 = 3;
/// Larger frames are refused.
pub const MAX_FRAME: usize = 64 * 1024;

/// The first frame of a connection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// [`VERSION`] of the client.
    pub version: u32,
    /// The token that `rouse run` made; empty on the Unix socket.
    pub token: String,
}

/// A unit as a person names it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnitName {
    /// In full; without a type it is a service.
    pub name: String,
    /// Among whose units.
    pub whose: Whose,
}

/// Whose units are meant.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
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
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
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
    /// Take another manifest, and perhaps another activator, whose bytes follow the frame, in
    /// that order. Answered when it is in force, or with [`Failure::Replace`]. What has changed
    /// of a service applies from its next command on; the process that runs is left alone.
    Replace(Upload),
}

/// What follows a [`Request::Replace`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Upload {
    /// An encoded [`crate::manifest::Manifest`], at most [`Upload::LARGEST_MANIFEST`] bytes.
    pub manifest: Part,
    /// An executable for the guest's architecture, at most [`Upload::LARGEST_ACTIVATOR`] bytes.
    pub activator: Option<Part>,
}

impl Upload {
    /// In bytes.
    pub const LARGEST_MANIFEST: u32 = 16 << 20;
    /// In bytes.
    pub const LARGEST_ACTIVATOR: u32 = 64 << 20;
}

/// One thing that is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
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
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
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
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
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
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
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

/// One line that a service or the activator wrote.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// Microseconds since the epoch, when it was read.
    pub realtime_us: u64,
    /// The unit, or `activator`.
    pub unit: String,
    /// The lingering user whose unit it is; None is the system's.
    pub user: Option<String>,
    /// Without the newline; bytes that are not UTF-8 are replaced.
    pub text: String,
}

/// The guest as it is now. `rouse status --json` prints it as it stands here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// The appliance's name.
    pub name: String,
    /// `starting`, `running` or `stopping`.
    pub state: String,
    /// CLOCK_BOOTTIME in microseconds when the activator began.
    pub started_us: u64,
    /// CLOCK_BOOTTIME in microseconds when all sockets of the boot were listening; 0 before.
    pub listening_us: u64,
    /// CLOCK_BOOTTIME in microseconds now.
    pub now_us: u64,
    /// Resident memory of the activator in bytes.
    pub activator_memory: u64,
    /// All socket units, by user (the system first) and name.
    pub sockets: Vec<SocketStatus>,
    /// All services, by user (the system first) and name.
    pub services: Vec<ServiceStatus>,
    /// Instances of Accept=yes that run, the first 200 of them.
    pub instances: Vec<InstanceStatus>,
}

/// One socket unit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SocketStatus {
    /// `echo.socket`
    pub name: String,
    /// The lingering user whose unit it is; None is the system's.
    pub user: Option<String>,
    /// As in the unit: `127.0.0.1:3000`, `vsock:4294967295:3000`, with the kind in front.
    pub addresses: Vec<String>,
    /// See [`SocketState`].
    pub state: String,
    /// The service it starts.
    pub service: String,
    /// Times that it woke its service, or an instance of it.
    pub triggered: u64,
    /// Times that a limit or an error made it wait, and connections that a limit closed.
    pub refused: u64,
    /// With Accept=yes: connections that got an instance.
    pub accepted: u64,
    /// With Accept=yes: instances that run now.
    pub connections: u32,
}

/// One instance of a template.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstanceStatus {
    /// `echo@0-127.0.0.1:3000-127.0.0.1:4555.service`
    pub name: String,
    /// The user whose unit it is, if not the system's.
    pub user: Option<String>,
    /// The socket unit that took its connection.
    pub socket: String,
    /// See [`ServiceState`].
    pub state: String,
    /// Main process, if one runs.
    pub main_pid: Option<u32>,
    /// Who connected.
    pub peer: String,
}

/// One service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceStatus {
    /// `echo.service`
    pub name: String,
    /// The lingering user whose unit it is; None is the system's.
    pub user: Option<String>,
    /// See [`ServiceState`].
    pub state: String,
    /// Main process, if one runs.
    pub main_pid: Option<u32>,
    /// Starts since the guest booted.
    pub starts: u64,
    /// Of those, restarts by `Restart=`.
    pub restarts: u64,
    /// Memory of its cgroup in bytes, where the kernel tells.
    pub memory: Option<u64>,
    /// `exited 0`, `killed 9`, ...; None if it never ran.
    pub last_exit: Option<String>,
    /// What it says of itself (`STATUS=` of sd_notify(3)); empty if nothing.
    pub text: String,
    /// `starting`, `healthy` or `unhealthy`; None while it has no health checks.
    #[serde(default)]
    pub health: Option<String>,
}

/// logd to PID 1; one packet of postcard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Order {
    /// Answered by one [`Report::Machine`], then one report for each unit, then [`Report::End`].
    Status,
    /// Answered by [`Report::End`] at once; the state tells what became of it.
    Start(UnitId),
    /// The same.
    Stop(UnitId),
    /// The same.
    Restart(UnitId),
    /// The same; refused for a unit that is not up, or has nothing to reload it by.
    ReloadUnit(UnitId),
    /// Answered by [`Report::End`] at once.
    Poweroff,
    /// Take the manifest, and with `activator` the executable, that come as fds with this packet.
    /// Answered by [`Report::Replaced`].
    Replace {
        /// Whether there are two fds.
        activator: bool,
    },
}

impl Order {
    /// The unit that it is about.
    pub fn unit_mut(&mut self) -> Option<&mut UnitId> {
        match self {
            Self::Start(unit) | Self::Stop(unit) | Self::Restart(unit) | Self::ReloadUnit(unit) => {
                Some(unit)
            }
            Self::Status | Self::Poweroff | Self::Replace { .. } => None,
        }
    }
}

/// PID 1 to logd; packets of postcard, at most [`Report::PACKET`] bytes each. Packets that do not fit
/// into the socket's buffer are kept as state ("the answer goes on at unit n") for an [`Order`],
/// and are dropped and counted for an [`Report::Event`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)] // fields as in Status, SocketStatus, ServiceStatus
pub enum Report {
    Machine {
        state: MachineState,
        started_us: u64,
        listening_us: u64,
        now_us: u64,
    },
    Socket {
        unit: UnitId,
        state: SocketState,
        triggered: u64,
        refused: u64,
        accepted: u64,
        connections: u32,
    },
    /// An instance of Accept=yes; there is one for each that runs.
    Instance {
        template: UnitId,
        socket: UnitId,
        number: u64,
        peer: Peer,
        state: ServiceState,
        main_pid: Option<u32>,
    },
    Service {
        unit: UnitId,
        state: ServiceState,
        main_pid: Option<u32>,
        starts: u64,
        restarts: u64,
        last_exit: Option<Exit>,
        /// A start, stop or reload that was asked for has not ended yet.
        job: bool,
        /// How the last start or reload went.
        result: JobResult,
        /// `STATUS=` of sd_notify(3).
        status: Text,
        /// What its health checks have come to; None while there are none.
        health: Option<HealthState>,
    },
    Target {
        unit: UnitId,
        active: bool,
    },
    /// The answer is complete.
    End,
    /// The guest is going down, the order is not taken.
    Refused,
    /// Something to log: unit, what.
    Event(Option<UnitId>, Event),
    /// The answer to [`Order::Replace`]. With `taken` there is an fd with it: the manifest that is
    /// in force; all ids from here on are of that one.
    Replaced {
        taken: bool,
    },
    /// The fd with it is the read end of the log pipe of a unit that is new.
    Pipe(UnitId),
    /// logd is to send [`Order::Replace`] with what the manifest's file has now.
    Reread,
}

impl Report {
    /// An upper bound of the encoded size in bytes.
    pub const MAX: usize = 320;
    /// The same of a packet. Events go together, one behind the other, as many as fit.
    pub const PACKET: usize = 2 * Self::MAX;
}

/// What PID 1 tells of its own accord; logd makes a line of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Event {
    /// A socket unit listens.
    Listening,
    /// A listener could not be opened (index of the Listen line, errno); it is tried again.
    OpenFailed(u16, i32),
    /// A connection could not be accepted (index of the Listen line, errno); it waits, and is
    /// tried again.
    AcceptFailed(u16, i32),
    /// A connection or packet came in, on which listener.
    Triggered(u16),
    /// A limit was hit; listening again in so many microseconds.
    Paused(u64),
    /// The main process was started.
    Started(u32),
    /// The start has ended with success.
    Ready,
    /// The child could not be made, or not executed: errno.
    SpawnFailed(i32),
    /// The main process is gone.
    Exited(Exit),
    /// A control command (ExecStartPre and its kin) failed.
    CommandFailed(Exit),
    /// A time-out ran out; the signal that was sent.
    TimedOut(i32),
    /// A condition does not hold, so it was not started.
    Skipped,
    /// An fd that the service wanted to be stored was closed: `FileDescriptorStoreMax=`.
    StoreFull,
    /// The unit is down.
    Stopped,
    /// The unit is down, not as it should be.
    Failed,
    /// All units of the boot are started; sockets listen.
    Booted,
    /// Services are being stopped.
    ShuttingDown,
    /// A connection that a limit of Accept=yes does not allow was closed.
    Refused(Refusal),
    /// Nobody has been connected for as long as `X-StopWhenIdleSec=`; it is being stopped.
    Idle,
    /// Nobody has been connected for as long as `X-FreezeWhenIdleSec=`; it is frozen.
    Frozen,
    /// Somebody has connected; it goes on.
    Thawed,
    /// Its health check succeeds.
    Healthy,
    /// Its health check has failed so many times in a row.
    Unhealthy(u32),
    /// So many events before this one were lost.
    Lost(u32),
}

/// Which limit closed a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Refusal {
    /// `MaxConnections=`
    Connections,
    /// `MaxConnectionsPerSource=`
    Source,
    /// `X-AllowCID=`
    Cid,
}

/// As much of a text as a packet between logd and PID 1 has room for, in UTF-8.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Text {
    /// At most [`Text::MOST`], and the end of a character.
    length: u8,
    bytes: [u8; Self::MOST],
}

impl Default for Text {
    fn default() -> Self {
        Self { length: 0, bytes: [0; Self::MOST] }
    }
}

impl Serialize for Text {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl serde::de::Visitor<'_> for Visitor {
            type Value = Text;
            fn expecting(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                f.write_str("a text")
            }
            fn visit_str<E>(self, text: &str) -> Result<Text, E> {
                Ok(Text::new(text.as_bytes()))
            }
        }
        deserializer.deserialize_str(Visitor)
    }
}

impl Text {
    /// Length in bytes of the longest.
    pub const MOST: usize = 128;

    /// The beginning of a text, up to the longest that has room; what is no UTF-8 is left out.
    pub fn new(text: &[u8]) -> Self {
        let text = text.get(..Self::MOST).unwrap_or(text);
        let valid = match core::str::from_utf8(text) {
            Ok(_) => text.len(),
            Err(error) => error.valid_up_to(),
        };
        let mut new = Self::default();
        for (to, from) in new.bytes.iter_mut().zip(&text[..valid]) {
            *to = *from;
        }
        new.length = valid as u8;
        new
    }

    /// The text; empty if a peer has sent nonsense.
    pub fn as_str(&self) -> &str {
        let bytes = self.bytes.get(..usize::from(self.length));
        core::str::from_utf8(bytes.unwrap_or_default()).unwrap_or_default()
    }
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Exit {
    /// exit(2) with that code.
    Code(u8),
    /// Killed by that signal.
    Signal(i32),
    /// Killed by that signal, with a core dump.
    Dumped(i32),
}

impl core::fmt::Display for Exit {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exited {code}"),
            Self::Signal(signal) => write!(f, "killed {signal}"),
            Self::Dumped(signal) => write!(f, "dumped {signal}"),
        }
    }
}

/// The machine as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub enum MachineState {
    Starting,
    Running,
    Stopping,
}

/// A socket unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum SocketState {
    /// Not open.
    Dead,
    /// Not open, since one of its own commands failed.
    Failed,
    /// One of its own commands runs, before it counts as started.
    Starting,
    /// One of its own commands runs, before it is down.
    Stopping,
    /// Open failed; tried again later.
    Retrying,
    /// Open and polled.
    Listening,
    /// Open, the service has it.
    Running,
    /// Open, not polled until a limit's window ends.
    Paused,
}

/// How the last start or reload of a unit went, whatever has become of the unit since.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum JobResult {
    /// There was none, or it is not known any more.
    #[default]
    None,
    /// Well, or a condition has skipped it.
    Done,
    /// Not well; also since an assertion is false, or what the unit requires did not start.
    Failed,
}

/// A service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ServiceState {
    /// Not running.
    Dead,
    /// Being started: ExecStartPre up to readiness.
    Starting,
    /// Up.
    Running,
    /// Up, and frozen until the next connection.
    Frozen,
    /// A oneshot with RemainAfterExit= that is done.
    Exited,
    /// Being reloaded.
    Reloading,
    /// Being stopped.
    Stopping,
    /// Waits for RestartSec.
    Waiting,
    /// Not running, and not because it should.
    Failed,
}

/// What the health checks of a service have come to, podman-inspect(1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum HealthState {
    /// None has succeeded yet, and not too many have failed.
    Starting,
    /// The last one succeeded, or too few have failed since.
    Healthy,
    /// So many have failed in a row as `HealthRetries=` allows.
    Unhealthy,
}

macro_rules! lower_case {
    ($($kind:ty { $($variant:ident => $text:literal),* $(,)? })*) => {$(
        impl $kind {
            /// The word that status shows.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text),* }
            }
        }
        impl core::fmt::Display for $kind {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                f.pad(self.as_str())
            }
        }
    )*};
}

lower_case! {
    HealthState { Starting => "starting", Healthy => "healthy", Unhealthy => "unhealthy" }
    MachineState { Starting => "starting", Running => "running", Stopping => "stopping" }
    SocketState {
        Dead => "dead", Failed => "failed", Starting => "starting", Stopping => "stopping",
        Retrying => "retrying", Listening => "listening", Running => "running",
        Paused => "paused",
    }
    ServiceState {
        Dead => "dead", Starting => "starting", Running => "running", Frozen => "frozen",
        Exited => "exited",
        Reloading => "reloading", Stopping => "stopping", Waiting => "waiting",
        Failed => "failed",
    }
}

/// Writes one frame.
pub fn write_frame<T: Serialize>(mut to: impl Write, value: &T) -> io::Result<()> {
    let body = postcard::to_allocvec(value).map_err(io::Error::other)?;
    let length = u32::try_from(body.len()).ok().filter(|length| *length as usize <= MAX_FRAME);
    let length = length.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
    let mut frame = length.to_le_bytes().to_vec();
    frame.extend(body);
    to.write_all(&frame)
}

/// Reads one frame; `UnexpectedEof` if the peer left, `InvalidData` if it makes no sense.
pub fn read_frame<T: DeserializeOwned>(mut from: impl Read) -> io::Result<T> {
    let mut length = [0; 4];
    from.read_exact(&mut length)?;
    let length = u32::from_le_bytes(length) as usize;
    if length > MAX_FRAME {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut body = vec![0; length];
    from.read_exact(&mut body)?;
    postcard::from_bytes(&body).map_err(|_| io::ErrorKind::InvalidData.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_round_trip_and_oversized_ones_are_refused() {
        let mut wire = Vec::new();
        write_frame(&mut wire, &Request::Start("echo.service".into())).unwrap();
        let request: Request = read_frame(&wire[..]).unwrap();
        assert_eq!(request, Request::Start("echo.service".into()));
        let huge = u32::MAX.to_le_bytes();
        let error = read_frame::<Request>(&huge[..]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    }

    #[test]
    fn reports_fit() {
        let widest = Report::Service {
            unit: UnitId(u16::MAX),
            state: ServiceState::Failed,
            main_pid: Some(u32::MAX),
            starts: u64::MAX,
            restarts: u64::MAX,
            last_exit: Some(Exit::Dumped(i32::MIN)),
            job: true,
            result: JobResult::Failed,
            status: Text::new(&[b'x'; 200]),
            health: Some(HealthState::Unhealthy),
        };
        assert!(postcard::to_slice(&widest, &mut [0; Report::MAX]).is_ok());
        let instance = Report::Instance {
            template: UnitId(u16::MAX),
            socket: UnitId(u16::MAX),
            number: u64::MAX,
            peer: Peer::Inet6([([0xff; 16], u16::MAX); 2]),
            state: ServiceState::Failed,
            main_pid: Some(u32::MAX),
        };
        assert!(postcard::to_slice(&instance, &mut [0; Report::MAX]).is_ok());
    }
}
