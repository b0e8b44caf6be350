//! The contract between host and guest: what to listen on, what to start, in which order.
//!
//! The host compiles units into a [`Manifest`]; the guest decodes it once at start-up and never
//! parses text. Everything is resolved as far as the host can: absolute paths, numeric ids,
//! argv and environment, addresses, limits. Vectors have a meaning in their order, which is the
//! same for the same input.
//!
//! On the wire: [`MAGIC`], [`VERSION`] (u32, little endian), then the postcard encoding of the
//! manifest followed by its CRC-32 (ISO-HDLC). A manifest of another version, or with a wrong
//! checksum, is refused and never half used.

use serde::{Deserialize, Serialize};

/// First bytes of an encoded manifest.
pub const MAGIC: [u8; 8] = *b"rouse\0M\n";
/// Raised with every change of the types below.
pub const VERSION: u32 = 1;
/// Where an image keeps its manifest.
pub const PATH: &str = "/usr/lib/rouse/manifest";

/// Everything that a guest will do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// The appliance's name; also its host name.
    pub name: String,
    /// The chores of PID 1. `activator run` leaves them out.
    pub boot: Boot,
    /// All units, sorted by name, so that a [`UnitId`] is the same for the same input.
    pub units: Vec<Unit>,
}

/// What PID 1 does before it listens.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Boot {
    /// Kernel modules (absolute paths of uncompressed .ko files), in load order.
    pub modules: Vec<Module>,
    /// Directories that get a tmpfs of their own, since the root is read-only.
    /// /run, /tmp, /dev and the kernel's file systems are not listed: they are always there.
    pub writable: Vec<Writable>,
    /// (path below /proc/sys, value).
    pub sysctls: Vec<(String, String)>,
}

/// One kernel module to load.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Module {
    /// Absolute path in the image.
    pub path: String,
    /// Parameters as finit_module(2) takes them; mostly empty.
    pub parameters: String,
    /// A failure to load one that is not required is only logged.
    pub required: bool,
}

/// One tmpfs over a directory of the read-only root.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Writable {
    /// Absolute path; exists in the image.
    pub path: String,
    /// Mode of the tmpfs' root.
    pub mode: u32,
}

/// Index into [`Manifest::units`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct UnitId(pub u16);

impl UnitId {
    /// The index as the slice wants it.
    pub fn index(self) -> usize {
        usize::from(self.0)
    }
}

/// One unit with its place in the graph.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unit {
    /// Full name, `echo.socket`.
    pub name: String,
    /// `Description=`, or the name.
    pub description: String,
    /// Started when the guest has booted.
    pub start_at_boot: bool,
    /// Units that are started with this one; when one of them fails to start, so does this one
    /// (if it is ordered after it), and when one is stopped, so is this one.
    pub requires: Vec<UnitId>,
    /// Units that are started with this one, whatever becomes of them.
    pub wants: Vec<UnitId>,
    /// Units whose start must have ended before this one starts. `Before=` is turned round by
    /// the host. Stops go the other way. The graph has no cycle.
    pub after: Vec<UnitId>,
    /// Units that cannot run beside this one.
    pub conflicts: Vec<UnitId>,
    /// What it is.
    pub kind: UnitKind,
}

/// What a unit is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[allow(clippy::large_enum_variant)]
pub enum UnitKind {
    /// A `.socket`.
    Socket(Socket),
    /// A `.service`, or what a `.container` became.
    Service(Service),
    /// A `.target` of the user's; the well-known ones are resolved on the host.
    Target,
}

/// systemd.socket(5).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Socket {
    /// In the order of the Listen lines: the order of the fds. Never empty.
    pub listeners: Vec<Listener>,
    /// The service that a connection starts (Accept=no).
    pub service: UnitId,
    /// `FileDescriptorName=`, or the unit's name.
    pub fd_name: String,
    /// `SocketMode=`, exact from the first moment.
    pub mode: u32,
    /// `SocketUser=`, `SocketGroup=` as numbers.
    pub owner: Option<(u32, u32)>,
    /// `DirectoryMode=` of missing parent directories.
    pub directory_mode: u32,
    /// `Symlinks=`: to the one Unix path of the unit.
    pub symlinks: Vec<String>,
    /// `RemoveOnStop=`.
    pub remove_on_stop: bool,
    /// `FlushPending=`.
    pub flush_pending: bool,
    /// `Backlog=`; the kernel caps it at net.core.somaxconn.
    pub backlog: u32,
    /// `BindIPv6Only=`: None leaves the sysctl in charge.
    pub ipv6_only: Option<bool>,
    /// `FreeBind=`, `Transparent=`, `ReusePort=`, `BindToDevice=` and everything else that is
    /// set with setsockopt(2), in the order to set them.
    pub options: Vec<SocketOption>,
    /// `TriggerLimitIntervalSec=`, `TriggerLimitBurst=`: hit, the socket pauses and recovers.
    pub trigger_limit: RateLimit,
    /// `PollLimitIntervalSec=`, `PollLimitBurst=`: per listener.
    pub poll_limit: RateLimit,
}

/// At most `burst` events in `interval_us`; 0 in either switches the limit off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RateLimit {
    /// Length of the window in microseconds.
    pub interval_us: u64,
    /// Events in one window.
    pub burst: u32,
}

/// One Listen line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listener {
    /// From the directive's name.
    pub kind: ListenKind,
    /// From its value.
    pub address: Address,
}

/// What a Listen directive makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ListenKind {
    /// `ListenStream=`
    Stream,
    /// `ListenDatagram=`
    Datagram,
    /// `ListenSequentialPacket=`, Unix only.
    SequentialPacket,
    /// `ListenFIFO=`, the address is [`Address::Path`].
    Fifo,
}

/// Where to listen.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Address {
    /// A Unix socket or FIFO in the file system; at most 107 bytes.
    Path(String),
    /// A Unix socket in the abstract namespace, without the leading `@`; at most 106 bytes.
    Abstract(String),
    /// A bare port: `[::]` where there is IPv6, else `0.0.0.0`.
    AnyPort(u16),
    /// IPv4 address in network order, port.
    Inet([u8; 4], u16),
    /// IPv6 address in network order, port, scope.
    Inet6([u8; 16], u16, Scope),
    /// vsock context id and port. 4294967295 is VMADDR_CID_ANY.
    Vsock(u32, u32),
}

/// The zone of a link-local IPv6 address.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Scope {
    /// None given.
    None,
    /// An interface index.
    Index(u32),
    /// An interface name, resolved when the socket is opened.
    Name(String),
}

/// One setsockopt(2). A failure is logged and otherwise ignored, except for
/// [`SocketOption::BindToDevice`], which fails the unit, as in systemd.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)] // each is the directive of systemd.socket(5) of that name
pub enum SocketOption {
    FreeBind,
    Transparent,
    ReusePort,
    BindToDevice(String),
    KeepAlive,
    KeepAliveTimeSec(u32),
    KeepAliveIntervalSec(u32),
    KeepAliveProbes(u32),
    NoDelay,
    DeferAcceptSec(u32),
    Priority(i32),
    Mark(u32),
    ReceiveBuffer(u64),
    SendBuffer(u64),
    IpTos(i32),
    IpTtl(i32),
    TcpCongestion(String),
    Broadcast,
    PassCredentials,
    PassSecurity,
    PassPacketInfo,
    TimestampingMicroseconds,
    TimestampingNanoseconds,
}

/// systemd.service(5), systemd.exec(5), systemd.kill(5).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Service {
    /// `Type=`: when a start has ended.
    pub kind: ServiceKind,
    /// Socket units whose fds are handed over, in that order: unit-name order.
    pub sockets: Vec<UnitId>,
    /// `ExecStartPre=`, one after the other, without fds.
    pub start_pre: Vec<Command>,
    /// `ExecStart=`: one, but any number for oneshot.
    pub start: Vec<Command>,
    /// `ExecStartPost=`.
    pub start_post: Vec<Command>,
    /// `ExecReload=`.
    pub reload: Vec<Command>,
    /// `ExecStop=`; `$MAINPID` is in the environment.
    pub stop: Vec<Command>,
    /// `ExecStopPost=`, also after a failed start.
    pub stop_post: Vec<Command>,
    /// Environment as `NAME=value`, complete, without what only the guest knows
    /// (LISTEN_*, NOTIFY_SOCKET, MAINPID).
    pub environment: Vec<String>,
    /// `User=`, `Group=`, `SupplementaryGroups=`; None is root.
    pub user: Option<User>,
    /// `UMask=`.
    pub umask: u32,
    /// `WorkingDirectory=`.
    pub working_directory: String,
    /// `StandardInput=`.
    pub stdin: Input,
    /// `StandardOutput=`.
    pub stdout: Output,
    /// `StandardError=`.
    pub stderr: Output,
    /// `NonBlocking=`: whether the sockets are handed over with O_NONBLOCK.
    pub non_blocking: bool,
    /// `Restart=`.
    pub restart: Restart,
    /// `RestartSec=` in microseconds.
    pub restart_delay_us: u64,
    /// `StartLimitIntervalSec=`, `StartLimitBurst=`: hit, starts pause and recover.
    pub start_limit: RateLimit,
    /// `TimeoutStartSec=` in microseconds, 0 is never.
    pub start_timeout_us: u64,
    /// `TimeoutStopSec=` in microseconds, 0 is never.
    pub stop_timeout_us: u64,
    /// `KillMode=`.
    pub kill_mode: KillMode,
    /// `KillSignal=` as a number.
    pub kill_signal: i32,
    /// `SendSIGKILL=`.
    pub send_sigkill: bool,
    /// `RemainAfterExit=`.
    pub remain_after_exit: bool,
    /// `SuccessExitStatus=`: further exit codes that are a success.
    pub success_codes: Vec<u8>,
    /// `SuccessExitStatus=`: further signals that are a success.
    pub success_signals: Vec<i32>,
    /// `LimitNOFILE=` and its kin: RLIMIT number, soft, hard (u64::MAX is infinity).
    pub limits: Vec<(u32, u64, u64)>,
    /// `OOMScoreAdjust=`.
    pub oom_score_adjust: Option<i32>,
    /// `Nice=`.
    pub nice: Option<i32>,
    /// `NoNewPrivileges=`.
    pub no_new_privileges: bool,
    /// File and value below the service's cgroup, `("pids.max", "2048")`.
    pub cgroup: Vec<(String, String)>,
    /// The container that `start` runs, if it is one of engine crun.
    pub container: Option<Container>,
}

/// `Type=`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ServiceKind {
    /// Started as soon as the child exists.
    Simple,
    /// Started when execve(2) succeeded.
    Exec,
    /// Started when the last ExecStart has ended with success.
    Oneshot,
    /// Started when READY=1 came.
    Notify,
}

/// `User=` and what follows from it, resolved on the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct User {
    /// User id.
    pub uid: u32,
    /// Primary group id.
    pub gid: u32,
    /// Supplementary group ids.
    pub groups: Vec<u32>,
}

/// One command line. Variables are expanded by the host, but for `$MAINPID`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Command {
    /// Absolute path of the program.
    pub program: String,
    /// argv, with argv\[0\].
    pub arguments: Vec<String>,
    /// Prefix `-`: a failure counts as success.
    pub ignore_failure: bool,
    /// Prefix `+` or `!`: as root, whatever User= says.
    pub privileged: bool,
}

/// `StandardInput=`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Input {
    /// /dev/null
    Null,
    /// The one socket of the service, which is then not in LISTEN_FDS.
    Socket,
    /// A file of the guest.
    File(String),
}

/// `StandardOutput=` and `StandardError=`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Output {
    /// /dev/null
    Null,
    /// The unit's log.
    Log,
    /// The same as stdin (stdout), or as stdout (stderr).
    Inherit,
    /// The one socket of the service.
    Socket,
    /// A file of the guest, truncated (`truncate:`), appended to, or neither.
    File {
        /// Absolute path.
        path: String,
        /// `append:`
        append: bool,
        /// `truncate:`
        truncate: bool,
    },
}

/// `Restart=`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)] // the names of systemd.service(5)
pub enum Restart {
    No,
    OnSuccess,
    OnFailure,
    OnAbnormal,
    OnAbort,
    OnWatchdog,
    Always,
}

/// `KillMode=`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)] // the names of systemd.kill(5)
pub enum KillMode {
    ControlGroup,
    Mixed,
    Process,
    None,
}

/// A container of engine crun. Its one ExecStart runs
/// `crun --root /run/crun run --bundle /run/rouse/bundles/ID ID`; before that, stage 2 makes the
/// bundle directory, writes config.json there with the placeholders filled in, and removes what
/// a killed predecessor left in /run/crun.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Container {
    /// crun's container id, the Quadlet's ContainerName.
    pub id: String,
    /// config.json in the image. In it, stage 2 replaces [`Container::LISTEN_FDS`] and
    /// [`Container::LISTEN_FDNAMES`] by what it knows.
    pub template: String,
}

impl Container {
    /// Stands in `process.env` as `"LISTEN_FDS=@LISTEN_FDS@"`.
    pub const LISTEN_FDS: &str = "@LISTEN_FDS@";
    /// Stands in `process.env` as `"LISTEN_FDNAMES=@LISTEN_FDNAMES@"`; escaped for JSON.
    pub const LISTEN_FDNAMES: &str = "@LISTEN_FDNAMES@";
    /// Below it, one directory for each container's bundle.
    pub const BUNDLES: &str = "/run/rouse/bundles";
    /// crun's `--root`.
    pub const STATE: &str = "/run/crun";
}

/// Why a manifest cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DecodeError {
    /// The first bytes are not [`MAGIC`].
    NotAManifest,
    /// Made by another version of rouse; that version.
    Version(u32),
    /// Truncated, or the checksum does not fit.
    Damaged,
    /// An index points past the end, or a rule of the types above is broken; which.
    Inconsistent(&'static str),
}

impl core::fmt::Display for DecodeError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::NotAManifest => f.write_str("this is no manifest"),
            Self::Version(found) => {
                write!(f, "the manifest has version {found}, this activator reads {VERSION}")
            }
            Self::Damaged => f.write_str("the manifest is truncated or damaged"),
            Self::Inconsistent(rule) => write!(f, "the manifest breaks a rule: {rule}"),
        }
    }
}

impl core::error::Error for DecodeError {}

const CRC: crc::Crc<u32> = crc::Crc::<u32>::new(&crc::CRC_32_ISO_HDLC);

impl Manifest {
    /// The bytes that the guest reads.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        bytes.extend(VERSION.to_le_bytes());
        // Serialising plain data into memory has no way to fail.
        bytes.extend(postcard::to_allocvec_crc32(self, CRC.digest()).unwrap_or_default());
        bytes
    }

    /// Reads what [`Manifest::encode`] wrote, and checks every index.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let rest = bytes.strip_prefix(&MAGIC).ok_or(DecodeError::NotAManifest)?;
        let (version, body) = rest.split_first_chunk::<4>().ok_or(DecodeError::Damaged)?;
        let version = u32::from_le_bytes(*version);
        if version != VERSION {
            return Err(DecodeError::Version(version));
        }
        let manifest: Self =
            postcard::from_bytes_crc32(body, CRC.digest()).map_err(|_| DecodeError::Damaged)?;
        manifest.check()?;
        Ok(manifest)
    }

    /// The unit behind an id.
    pub fn unit(&self, id: UnitId) -> Option<&Unit> {
        self.units.get(id.index())
    }

    /// The id of a unit's name.
    pub fn find(&self, name: &str) -> Option<UnitId> {
        let index = self.units.binary_search_by(|unit| unit.name.as_str().cmp(name)).ok()?;
        u16::try_from(index).ok().map(UnitId)
    }

    fn check(&self) -> Result<(), DecodeError> {
        let fail = |rule| Err(DecodeError::Inconsistent(rule));
        if self.units.len() > usize::from(u16::MAX) {
            return fail("at most 65535 units");
        }
        if !self.units.is_sorted_by(|a, b| a.name < b.name) {
            return fail("units are sorted by name, each once");
        }
        for unit in &self.units {
            let edges = [&unit.requires, &unit.wants, &unit.after, &unit.conflicts];
            if edges.into_iter().flatten().any(|id| self.unit(*id).is_none()) {
                return fail("a dependency is a unit");
            }
            match &unit.kind {
                UnitKind::Socket(socket) => {
                    if socket.listeners.is_empty() {
                        return fail("a socket listens");
                    }
                    let service = self.unit(socket.service).map(|unit| &unit.kind);
                    if !matches!(service, Some(UnitKind::Service(_))) {
                        return fail("a socket starts a service");
                    }
                }
                UnitKind::Service(service) => {
                    let socket = |id: &UnitId| {
                        matches!(self.unit(*id).map(|unit| &unit.kind), Some(UnitKind::Socket(_)))
                    };
                    if !service.sockets.iter().all(socket) {
                        return fail("a service takes its fds from sockets");
                    }
                    if service.start.is_empty() && service.kind != ServiceKind::Oneshot {
                        return fail("a service has an ExecStart");
                    }
                }
                UnitKind::Target => {}
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn small() -> Manifest {
        Manifest {
            name: "echo".into(),
            boot: Boot::default(),
            units: vec![Unit {
                name: "a.target".into(),
                description: "a".into(),
                start_at_boot: true,
                requires: vec![],
                wants: vec![],
                after: vec![],
                conflicts: vec![],
                kind: UnitKind::Target,
            }],
        }
    }

    #[test]
    fn round_trip() {
        assert_eq!(Manifest::decode(&small().encode()), Ok(small()));
        assert_eq!(small().find("a.target"), Some(UnitId(0)));
    }

    #[test]
    fn every_damaged_byte_is_refused() {
        let good = small().encode();
        for index in 0..good.len() {
            let mut bad = good.clone();
            bad[index] ^= 0x40;
            assert!(Manifest::decode(&bad).is_err(), "byte {index}");
            assert!(Manifest::decode(&good[..index]).is_err(), "cut at {index}");
        }
    }

    #[test]
    fn an_index_past_the_end_is_refused() {
        let mut manifest = small();
        manifest.units[0].after.push(UnitId(1));
        assert_eq!(
            Manifest::decode(&manifest.encode()),
            Err(DecodeError::Inconsistent("a dependency is a unit"))
        );
    }
}
