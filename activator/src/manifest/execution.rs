//! systemd.exec(5): how a process runs. What PID 1 does itself between clone and exec stands in
//! [`Execution`]; what may read, allocate, mount or wait stands in [`Stage2`], and is done by
//! `activator stage2` in the same process.

use super::Sandbox;
use crate::wire;
use serde::Serialize;

/// How the commands of a unit run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Execution {
    /// Environment as `NAME=value`, complete, without what only the guest knows
    /// (LISTEN_*, NOTIFY_SOCKET, MAINPID, ...).
    pub environment: Vec<String>,
    /// `User=`, `Group=`, `SupplementaryGroups=`; None is root.
    pub user: Option<User>,
    /// `UMask=`.
    pub umask: u32,
    /// `WorkingDirectory=`.
    pub working_directory: String,
    /// `WorkingDirectory=-`: one that is missing is no error, `/` takes its place.
    pub working_directory_optional: bool,
    /// `StandardInput=`.
    pub stdin: Input,
    /// `StandardOutput=`.
    pub stdout: Output,
    /// `StandardError=`.
    pub stderr: Output,
    /// `LimitNOFILE=` and its kin: RLIMIT number, soft, hard (u64::MAX is infinity).
    pub limits: Vec<(u32, u64, u64)>,
    /// `OOMScoreAdjust=`.
    pub oom_score_adjust: Option<i32>,
    /// `Nice=`.
    pub nice: Option<i32>,
    /// `NoNewPrivileges=`.
    pub no_new_privileges: bool,
    /// `IgnoreSIGPIPE=`
    pub ignore_sigpipe: bool,
    /// What else is to be done. None: PID 1 executes the program directly.
    pub stage2: Option<Box<Stage2>>,
}

impl Default for Execution {
    /// systemd's defaults for system services.
    fn default() -> Self {
        Self {
            environment: vec![],
            user: None,
            umask: 0o022,
            working_directory: "/".into(),
            working_directory_optional: false,
            stdin: Input::Null,
            stdout: Output::Log,
            stderr: Output::Inherit,
            limits: vec![],
            oom_score_adjust: None,
            nice: None,
            no_new_privileges: false,
            ignore_sigpipe: true,
            stage2: None,
        }
    }
}

/// `User=` and what follows from it, resolved on the host.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct User {
    /// User id.
    pub uid: u32,
    /// Primary group id.
    pub gid: u32,
    /// Supplementary group ids.
    pub groups: Vec<u32>,
}

impl Execution {
    /// Whether an output is the file that stdin is: then that is opened once, for both.
    pub fn is_stdin(&self, output: &Output) -> bool {
        matches!((&self.stdin, output),
            (Input::File(stdin), Output::File { path, append: false, truncate: false })
                if stdin == path)
    }

    /// Whether stdin's file is written to, too.
    pub fn stdin_is_output(&self) -> bool {
        self.is_stdin(&self.stdout) || self.is_stdin(&self.stderr)
    }
}

/// `StandardInput=`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub enum Input {
    /// /dev/null
    Null,
    /// The one socket of the service, which is then not in LISTEN_FDS.
    Socket,
    /// A file of the guest.
    File(String),
    /// `fd:NAME`: the listener of that `FileDescriptorName=`.
    Fd(String),
    /// `tty`, `tty-force`, `tty-fail`: the terminal of `TTYPath=`, by stage 2.
    Terminal,
    /// `data`: `StandardInputText=` and `StandardInputData=`, by stage 2.
    Data,
}

/// `StandardOutput=` and `StandardError=`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub enum Output {
    /// /dev/null
    Null,
    /// The unit's log.
    Log,
    /// The same as stdin (stdout), or as stdout (stderr).
    Inherit,
    /// The one socket of the service.
    Socket,
    /// `fd:NAME`
    Fd(String),
    /// `tty`: the terminal of `TTYPath=`, by stage 2.
    Terminal,
    /// `kmsg`: the kernel's log buffer.
    Kmsg,
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

/// What only a process that may allocate and wait can do, in the order in which systemd does it.
/// PID 1 then leaves `user` and `no_new_privileges` to stage 2 as well.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Stage2 {
    /// `EnvironmentFile=`, in order; each overrides what comes before, `environment` too.
    pub environment_files: Vec<EnvironmentFile>,
    /// `PassEnvironment=`: names that are taken over from PID 1's environment (the kernel command
    /// line's `NAME=value` words, or whoever started `activator run`).
    pub pass_environment: Vec<String>,
    /// `UnsetEnvironment=`: names, or `NAME=value`; applied last.
    pub unset_environment: Vec<String>,
    /// `DynamicUser=`
    pub dynamic_user: Option<DynamicUser>,
    /// `RuntimeDirectory=`, `StateDirectory=`, `CacheDirectory=`, `LogsDirectory=`,
    /// `ConfigurationDirectory=`.
    pub directories: Vec<Directory>,
    /// `RuntimeDirectoryPreserve=`: whether the runtime directories stay when the service stops:
    /// None no, Some(false) only over a restart, Some(true) always.
    pub runtime_preserve: Option<bool>,
    /// `TTYPath=`, where a standard stream is the terminal.
    pub terminal: Option<String>,
    /// `StandardInputText=`, `StandardInputData=`.
    pub stdin_data: Vec<u8>,
    /// `LoadCredential=`, `SetCredential=`.
    pub credentials: Vec<Credential>,
    /// `CapabilityBoundingSet=` as a mask; None leaves all.
    pub bounding: Option<u64>,
    /// `AmbientCapabilities=` as a mask.
    pub ambient: u64,
    /// `SecureBits=` as prctl(2) takes it.
    pub secure_bits: u32,
    /// CPU and I/O scheduling.
    pub scheduling: Scheduling,
    /// Namespaces, mounts and filters.
    pub sandbox: Sandbox,
}

/// `EnvironmentFile=`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct EnvironmentFile {
    /// Absolute path, may be a glob.
    pub path: String,
    /// Prefix `-`: a missing file is no error.
    pub optional: bool,
}

/// `DynamicUser=yes`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DynamicUser {
    /// Login name: `User=`, or the unit's name.
    pub name: String,
    /// The id, given at build time from 61184 to 65519: the same in every boot, so that state
    /// directories keep their owner.
    pub uid: u32,
}

/// One directory that is made, and owned by the service's user, before its first command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Directory {
    /// From the key.
    pub kind: DirectoryKind,
    /// Relative to the kind's base directory.
    pub path: String,
    /// `...Directory=path:link`: further names of it, relative as well.
    pub links: Vec<String>,
    /// `...DirectoryMode=`
    pub mode: u32,
    /// `:ro`
    pub read_only: bool,
}

/// Base directory and variable of a [`Directory`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum DirectoryKind {
    /// /run, RUNTIME_DIRECTORY
    Runtime,
    /// /var/lib, STATE_DIRECTORY
    State,
    /// /var/cache, CACHE_DIRECTORY
    Cache,
    /// /var/log, LOGS_DIRECTORY
    Logs,
    /// /etc, CONFIGURATION_DIRECTORY; never chowned
    Configuration,
}

/// One file below CREDENTIALS_DIRECTORY.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Credential {
    /// Its name there.
    pub name: String,
    /// Its content.
    pub source: CredentialSource,
}

/// Where a credential comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub enum CredentialSource {
    /// `LoadCredential=`: an absolute path, a file or a stream socket.
    Path(String),
    /// `SetCredential=`: the text; used only if no other has made it.
    Text(Vec<u8>),
}

/// `CPUSchedulingPolicy=` and its kin; None leaves what PID 1 has.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Scheduling {
    /// SCHED_* number of `CPUSchedulingPolicy=`.
    pub policy: Option<u32>,
    /// `CPUSchedulingPriority=`
    pub priority: Option<u32>,
    /// `CPUSchedulingResetOnFork=`
    pub reset_on_fork: bool,
    /// `CPUAffinity=`: numbers of the CPUs.
    pub affinity: Vec<u16>,
    /// `IOSchedulingClass=` and `IOSchedulingPriority=`, as ioprio_set(2) takes them.
    pub io_priority: Option<u32>,
    /// `TimerSlackNSec=`
    pub timer_slack_ns: Option<u64>,
}

wire! {
    struct Execution {
        environment, user, umask, working_directory, working_directory_optional, stdin, stdout,
        stderr, limits, oom_score_adjust, nice, no_new_privileges, ignore_sigpipe, stage2,
    }
    struct User { uid, gid, groups }
    enum Input { Null, Socket, File(path), Fd(name), Terminal, Data }
    enum Output {
        Null, Log, Inherit, Socket, Fd(name), Terminal, Kmsg, File { path, append, truncate },
    }
    struct Stage2 {
        environment_files, pass_environment, unset_environment, dynamic_user, directories,
        runtime_preserve, terminal, stdin_data, credentials, bounding, ambient, secure_bits,
        scheduling, sandbox,
    }
    struct EnvironmentFile { path, optional }
    struct DynamicUser { name, uid }
    struct Directory { kind, path, links, mode, read_only }
    enum DirectoryKind { Runtime, State, Cache, Logs, Configuration }
    struct Credential { name, source }
    enum CredentialSource { Path(path), Text(text) }
    struct Scheduling { policy, priority, reset_on_fork, affinity, io_priority, timer_slack_ns }
}
