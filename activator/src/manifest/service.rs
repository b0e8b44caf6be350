//! systemd.service(5) and systemd.kill(5): what to start, and how to stop it.

use super::{Execution, HealthCheck, Preparation, RateLimit, UnitId};
use crate::wire;
use serde::Serialize;

/// systemd.service(5), systemd.kill(5).
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Service {
    /// `Type=`: when a start has ended.
    pub kind: ServiceKind,
    /// Socket units whose fds are handed over, in that order: unit-name order.
    pub sockets: Vec<UnitId>,
    /// `ExecCondition=`: exit codes 1 to 254 skip the start, others fail it.
    pub condition: Vec<Command>,
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
    /// How all of these run.
    pub execution: Execution,
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
    /// `SuccessExitStatus=`: further ends that are a success.
    pub success: Statuses,
    /// `RestartPreventExitStatus=`
    pub restart_prevent: Statuses,
    /// `RestartForceExitStatus=`
    pub restart_force: Statuses,
    /// `RestartSteps=`: the delay grows to `restart_max_delay_us` in so many restarts; 0 is off.
    pub restart_steps: u32,
    /// `RestartMaxDelaySec=` in microseconds.
    pub restart_max_delay_us: u64,
    /// `RuntimeMaxSec=` in microseconds, 0 is never.
    pub runtime_max_us: u64,
    /// `RuntimeRandomizedExtraSec=` in microseconds.
    pub runtime_extra_us: u64,
    /// `WatchdogSec=` in microseconds, 0 is off.
    pub watchdog_us: u64,
    /// `WatchdogSignal=`
    pub watchdog_signal: i32,
    /// `TimeoutAbortSec=` in microseconds, 0 is never.
    pub abort_timeout_us: u64,
    /// `TimeoutStartFailureMode=`
    pub start_failure: FailureMode,
    /// `TimeoutStopFailureMode=`
    pub stop_failure: FailureMode,
    /// `NotifyAccess=`
    pub notify_access: NotifyAccess,
    /// `FileDescriptorStoreMax=`; the activator makes its table for so many at start-up.
    pub fd_store_max: u32,
    /// `FileDescriptorStorePreserve=yes`: the store outlives the stop of the service.
    pub fd_store_preserve: bool,
    /// `PIDFile=` of `Type=forking`, absolute.
    pub pid_file: Option<String>,
    /// `GuessMainPID=`
    pub guess_main_pid: bool,
    /// `ExitType=`
    pub exit_type: ExitType,
    /// `RestartKillSignal=`; 0 is KillSignal.
    pub restart_kill_signal: i32,
    /// `FinalKillSignal=`
    pub final_kill_signal: i32,
    /// `ReloadSignal=` of `Type=notify-reload`.
    pub reload_signal: i32,
    /// `SendSIGHUP=`
    pub send_sighup: bool,
    /// `X-StopWhenIdleSec=` in microseconds: stopped when none of its listeners has had an open
    /// connection for that long; 0 is never.
    pub stop_when_idle_us: u64,
    /// `X-FreezeWhenIdleSec=` in microseconds: the same, but frozen.
    pub freeze_when_idle_us: u64,
    /// Services that relay to this one (`X-RelayTo=` of a socket unit), and require it. Its own
    /// idleness is theirs: it is in use while any of them is up, and a relay ends when it has had
    /// no connection for the shorter of the two times above.
    pub relays: Vec<UnitId>,
    /// File and value below the service's cgroup, `("pids.max", "2048")`.
    pub cgroup: Vec<(String, String)>,
    /// `Delegate=`: its processes make cgroups below the service's.
    pub delegate: bool,
    /// The container that `start` runs, if it is one of engine crun.
    pub container: Option<Container>,
    /// Health checks, while its main process runs.
    pub health: Option<Box<HealthCheck>>,
}

impl Service {
    /// The files of a cgroup that [`Service::cgroup`] may name, and what is in those of a new one,
    /// cgroups(7).
    pub const CGROUP_DEFAULTS: [(&str, &str); 14] = [
        ("memory.min", "0"),
        ("memory.low", "0"),
        ("memory.high", "max"),
        ("memory.max", "max"),
        ("memory.swap.max", "max"),
        ("memory.zswap.max", "max"),
        ("memory.oom.group", "0"),
        ("pids.max", "max"),
        ("cpu.idle", "0"),
        ("cpu.weight", "100"),
        ("cpu.max", "max 100000"),
        ("cpuset.cpus", "\n"),
        ("cpuset.mems", "\n"),
        ("io.weight", "default 100"),
    ];
}

impl Service {
    /// File descriptors that are kept for one service at most, systemd.service(5)
    /// `FileDescriptorStoreMax=`: the activator has a table of so many.
    pub const MOST_STORED: u32 = 1024;
}

impl Default for Service {
    /// systemd's defaults; without a command, which no service but a oneshot one is.
    fn default() -> Self {
        Self {
            kind: ServiceKind::Simple,
            sockets: vec![],
            condition: vec![],
            start_pre: vec![],
            start: vec![],
            start_post: vec![],
            reload: vec![],
            stop: vec![],
            stop_post: vec![],
            execution: Execution::default(),
            non_blocking: false,
            restart: Restart::No,
            restart_delay_us: 100_000,
            start_limit: RateLimit { interval_us: 10_000_000, burst: 5 },
            start_timeout_us: 90_000_000,
            stop_timeout_us: 90_000_000,
            kill_mode: KillMode::ControlGroup,
            kill_signal: libc::SIGTERM,
            send_sigkill: true,
            remain_after_exit: false,
            success: Statuses::default(),
            restart_prevent: Statuses::default(),
            restart_force: Statuses::default(),
            restart_steps: 0,
            restart_max_delay_us: 0,
            runtime_max_us: 0,
            runtime_extra_us: 0,
            watchdog_us: 0,
            watchdog_signal: libc::SIGABRT,
            abort_timeout_us: 90_000_000,
            start_failure: FailureMode::Terminate,
            stop_failure: FailureMode::Terminate,
            notify_access: NotifyAccess::None,
            fd_store_max: 0,
            fd_store_preserve: false,
            pid_file: None,
            guess_main_pid: true,
            exit_type: ExitType::Main,
            restart_kill_signal: 0,
            final_kill_signal: libc::SIGKILL,
            reload_signal: libc::SIGHUP,
            send_sighup: false,
            stop_when_idle_us: 0,
            freeze_when_idle_us: 0,
            relays: vec![],
            cgroup: vec![],
            delegate: false,
            container: None,
            health: None,
        }
    }
}

/// Ends of a process that a key names.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Statuses {
    /// Exit codes, sorted.
    pub codes: Vec<u8>,
    /// Signals, sorted.
    pub signals: Vec<i32>,
}

/// `TimeoutStartFailureMode=`, `TimeoutStopFailureMode=`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[allow(missing_docs)] // the names of systemd.service(5)
pub enum FailureMode {
    Terminate,
    Abort,
    Kill,
}

/// `NotifyAccess=`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[allow(missing_docs)] // the names of systemd.service(5)
pub enum NotifyAccess {
    None,
    Main,
    Exec,
    All,
}

/// `ExitType=`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum ExitType {
    /// The service has ended when its main process has.
    Main,
    /// ... when none of its processes is left.
    Cgroup,
}

/// `Type=`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum ServiceKind {
    /// Started as soon as the child exists.
    Simple,
    /// Started when execve(2) succeeded.
    Exec,
    /// Started when the last ExecStart has ended with success.
    Oneshot,
    /// Started when READY=1 came.
    Notify,
    /// As `Notify`; a reload is `ReloadSignal=`, RELOADING=1 and READY=1.
    NotifyReload,
    /// Started when the child has ended with success; the main process is the one it left, by
    /// `PIDFile=` or by being the only one.
    Forking,
}

/// One command line.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Command {
    /// Absolute path of the program.
    pub program: String,
    /// argv, with argv\[0\].
    pub arguments: Vec<String>,
    /// Whether `$NAME` and `${NAME}` still stand in `arguments`, for stage 2 to expand
    /// (systemd.service(5), "Command lines"). Else the host has done it, but for `$MAINPID`, and
    /// every other `$` is meant.
    pub expand: bool,
    /// Prefix `|`: run by the user's shell. `|` in systemd 258.
    pub shell: bool,
    /// Prefix `-`: a failure counts as success.
    pub ignore_failure: bool,
    /// Prefix `+`: with all privileges, whatever User= and the sandbox say. (`!` keeps the
    /// sandbox, see `privileged_user`.)
    pub privileged: bool,
    /// Prefix `!` or `!!`: User=, Group=, capabilities are not applied, all else is.
    pub privileged_user: bool,
}

/// `Restart=`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
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
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[allow(missing_docs)] // the names of systemd.kill(5)
pub enum KillMode {
    ControlGroup,
    Mixed,
    Process,
    None,
}

/// A container of engine crun. Its one ExecStart runs
/// `crun --root /run/crun run --bundle /run/rouse/bundles/ID ID`; before that, stage 2 makes the
/// bundle directory, writes config.json there with the placeholders filled in, removes what a
/// killed predecessor left in /run/crun, and mounts a root that may be written to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Container {
    /// crun's container id, the Quadlet's ContainerName.
    pub id: String,
    /// config.json in the image. In it, stage 2 replaces [`Container::LISTEN_FDS`] and
    /// [`Container::LISTEN_FDNAMES`] by what it knows.
    pub template: String,
    /// CRC-32 (ISO-HDLC) of that file, so that a reload does not take one that has stayed the
    /// same for one that has changed; None if nobody has laid out the image.
    pub digest: Option<u32>,
    /// What else stage 2 does before.
    pub preparation: Preparation,
    /// The image's folder, if the container may write to its root: an overlay of it and of an
    /// empty layer in memory is mounted, anew for each start, at
    /// [`rootfs`](Container::writable_root) in the bundle directory. None: config.json names the
    /// folder itself, which is read-only.
    pub writable: Option<String>,
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

    /// `root.path` in config.json of a container that may write to it.
    pub fn writable_root(id: &str) -> String {
        format!("{}/{id}/rootfs", Self::BUNDLES)
    }

    /// What [`Container::digest`] is of a template.
    pub fn digest_of(template: &[u8]) -> u32 {
        super::CRC.checksum(template)
    }
}

wire! {
    struct Service {
        kind, sockets, condition, start_pre, start, start_post, reload, stop, stop_post,
        execution, non_blocking, restart, restart_delay_us, start_limit, start_timeout_us,
        stop_timeout_us, kill_mode, kill_signal, send_sigkill, remain_after_exit, success,
        restart_prevent, restart_force, restart_steps, restart_max_delay_us, runtime_max_us,
        runtime_extra_us, watchdog_us, watchdog_signal, abort_timeout_us, start_failure,
        stop_failure, notify_access, fd_store_max, fd_store_preserve, pid_file, guess_main_pid,
        exit_type, restart_kill_signal, final_kill_signal, reload_signal, send_sighup,
        stop_when_idle_us, freeze_when_idle_us, relays, cgroup, delegate, container, health,
    }
    struct Statuses { codes, signals }
    enum FailureMode { Terminate, Abort, Kill }
    enum NotifyAccess { None, Main, Exec, All }
    enum ExitType { Main, Cgroup }
    enum ServiceKind { Simple, Exec, Oneshot, Notify, NotifyReload, Forking }
    struct Command {
        program, arguments, expand, shell, ignore_failure, privileged, privileged_user,
    }
    enum Restart { No, OnSuccess, OnFailure, OnAbnormal, OnAbort, OnWatchdog, Always }
    enum KillMode { ControlGroup, Mixed, Process, None }
    struct Container { id, template, digest, preparation, writable }
}
