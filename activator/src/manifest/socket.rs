//! systemd.socket(5): what to listen on.

use super::{Command, Execution, RateLimit, UnitId};
use crate::wire;
use serde::Serialize;

/// systemd.socket(5).
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Socket {
    /// In the order of the Listen lines: the order of the fds. Never empty.
    pub listeners: Vec<Listener>,
    /// The service that a connection starts; with `accept` the template of the instances.
    pub service: UnitId,
    /// `Accept=yes`: one instance for each connection.
    pub accept: Option<Accept>,
    /// `FileDescriptorName=`; without one the unit's name, with `accept` `connection`.
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
    /// `SocketProtocol=`: the third argument of socket(2); 0 is the family's own.
    pub protocol: i32,
    /// `PipeSize=` of FIFOs, in bytes; 0 leaves the kernel's.
    pub pipe_size: u64,
    /// `Writable=` of special files.
    pub writable: bool,
    /// `MessageQueueMaxMessages=`, `MessageQueueMessageSize=`.
    pub message_queue: Option<(u32, u32)>,
    /// `PassFileDescriptorsToExec=`
    pub pass_fds_to_exec: bool,
    /// `X-AllowCID=`: the vsock context ids that may connect; the connections of others are closed.
    /// Empty: all. It is who accepts that looks, so without `accept` the host refuses it: there the
    /// service accepts, and could not know.
    pub allow_cids: Vec<u32>,
    /// `ExecStartPre=`: before the listeners are opened; a failure fails the unit.
    pub start_pre: Vec<Command>,
    /// `ExecStartPost=`
    pub start_post: Vec<Command>,
    /// `ExecStopPre=`
    pub stop_pre: Vec<Command>,
    /// `ExecStopPost=`
    pub stop_post: Vec<Command>,
    /// `TimeoutSec=` of each of these commands in microseconds, 0 is never.
    pub timeout_us: u64,
    /// How these commands run.
    pub execution: Execution,
    /// `TriggerLimitIntervalSec=`, `TriggerLimitBurst=`: hit, the socket pauses and recovers.
    pub trigger_limit: RateLimit,
    /// `PollLimitIntervalSec=`, `PollLimitBurst=`: per listener.
    pub poll_limit: RateLimit,
}

impl Default for Socket {
    /// systemd's defaults; without a listener, which no socket in a manifest is.
    fn default() -> Self {
        Self {
            listeners: vec![],
            service: UnitId(0),
            accept: None,
            fd_name: String::new(),
            mode: 0o666,
            owner: None,
            directory_mode: 0o755,
            symlinks: vec![],
            remove_on_stop: false,
            flush_pending: false,
            backlog: i32::MAX as u32,
            ipv6_only: None,
            options: vec![],
            protocol: 0,
            pipe_size: 0,
            writable: false,
            message_queue: None,
            pass_fds_to_exec: false,
            allow_cids: vec![],
            start_pre: vec![],
            start_post: vec![],
            stop_pre: vec![],
            stop_post: vec![],
            timeout_us: 90_000_000,
            execution: Execution::default(),
            trigger_limit: RateLimit { interval_us: 2_000_000, burst: 20 },
            poll_limit: RateLimit { interval_us: 2_000_000, burst: 15 },
        }
    }
}

/// `Accept=yes`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Accept {
    /// `MaxConnections=`: instances at one time; never 0. The activator makes its tables for so
    /// many at start-up.
    pub max_connections: u32,
    /// `MaxConnectionsPerSource=`: of one IP address, vsock context id, or user
    /// id of a Unix peer; 0 is no limit.
    pub max_per_source: u32,
}

impl Accept {
    /// Connections of all socket units together that a guest has room for: a place costs some
    /// kilobytes, used or not.
    pub const MOST: u32 = 4096;
}

/// One Listen line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Listener {
    /// From the directive's name.
    pub kind: ListenKind,
    /// From its value.
    pub address: Address,
}

/// What a Listen directive makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum ListenKind {
    /// `ListenStream=`
    Stream,
    /// `ListenDatagram=`
    Datagram,
    /// `ListenSequentialPacket=`, Unix only.
    SequentialPacket,
    /// `ListenFIFO=`, the address is [`Address::Path`].
    Fifo,
    /// `ListenSpecial=`: a character device or a file of proc or sys that exists.
    Special,
    /// `ListenNetlink=`
    Netlink,
    /// `ListenMessageQueue=`
    MessageQueue,
}

/// Where to listen.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
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
    /// Netlink family and mask of groups.
    Netlink(i32, u32),
    /// Name of a POSIX message queue, with its leading `/`.
    Queue(String),
}

/// The zone of a link-local IPv6 address.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
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
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
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
    PassPidFd,
    RefuseFileDescriptors,
    PassPacketInfo,
    TimestampingMicroseconds,
    TimestampingNanoseconds,
}

wire! {
    struct Socket {
        listeners, service, accept, fd_name, mode, owner, directory_mode, symlinks,
        remove_on_stop, flush_pending, backlog, ipv6_only, options, protocol, pipe_size, writable,
        message_queue, pass_fds_to_exec, allow_cids, start_pre, start_post, stop_pre, stop_post,
        timeout_us, execution, trigger_limit, poll_limit,
    }
    struct Accept { max_connections, max_per_source }
    struct Listener { kind, address }
    enum ListenKind { Stream, Datagram, SequentialPacket, Fifo, Special, Netlink, MessageQueue }
    enum Address {
        Path(path), Abstract(name), AnyPort(port), Inet(address, port),
        Inet6(address, port, scope), Vsock(cid, port), Netlink(family, groups), Queue(name),
    }
    enum Scope { None, Index(index), Name(name) }
    enum SocketOption {
        FreeBind, Transparent, ReusePort, BindToDevice(value), KeepAlive, KeepAliveTimeSec(value),
        KeepAliveIntervalSec(value), KeepAliveProbes(value), NoDelay, DeferAcceptSec(value),
        Priority(value), Mark(value), ReceiveBuffer(value), SendBuffer(value), IpTos(value),
        IpTtl(value), TcpCongestion(value), Broadcast, PassCredentials, PassSecurity, PassPidFd,
        RefuseFileDescriptors, PassPacketInfo, TimestampingMicroseconds, TimestampingNanoseconds,
    }
}
