//! The sandboxing keys of systemd.exec(5), which stage 2 carries out with namespaces, mounts,
//! prctl(2), seccomp(2) and bpf(2). Paths may begin with `-` (a missing one is no error); the host has
//! taken the prefix off into [`PathRule::optional`].

use crate::wire;
use serde::Serialize;

/// What is taken from a process.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Sandbox {
    /// `ProtectSystem=`
    pub protect_system: ProtectSystem,
    /// `ProtectHome=`
    pub protect_home: ProtectHome,
    /// `PrivateTmp=`
    pub private_tmp: bool,
    /// `PrivateDevices=`
    pub private_devices: bool,
    /// `ProtectKernelTunables=`
    pub protect_kernel_tunables: bool,
    /// `ProtectKernelModules=`
    pub protect_kernel_modules: bool,
    /// `ProtectKernelLogs=`
    pub protect_kernel_logs: bool,
    /// `ProtectControlGroups=`
    pub protect_control_groups: bool,
    /// `ProtectClock=`
    pub protect_clock: bool,
    /// `ProtectHostname=`
    pub protect_hostname: bool,
    /// `ProtectProc=`: the `hidepid=` of a proc mount of its own; empty is default.
    pub protect_proc: String,
    /// `ProcSubset=pid`
    pub proc_subset_pid: bool,
    /// `MountAPIVFS=`
    pub mount_api_vfs: bool,
    /// `RootDirectory=`
    pub root_directory: Option<String>,
    /// `ReadWritePaths=`, `ReadOnlyPaths=`, `InaccessiblePaths=`, `ExecPaths=`, `NoExecPaths=`,
    /// `TemporaryFileSystem=`, `BindPaths=`, `BindReadOnlyPaths=`, in the order of the files.
    pub mounts: Vec<Mount>,
    /// Namespaces of its own.
    pub namespaces: Namespaces,
    /// `NetworkNamespacePath=`
    pub network_namespace_path: Option<String>,
    /// `RestrictAddressFamilies=`: allowed or denied AF_* numbers.
    pub address_families: Option<(bool, Vec<u32>)>,
    /// `RestrictNamespaces=`: CLONE_NEW* that may not be used.
    pub restrict_namespaces: u64,
    /// `RestrictRealtime=`
    pub restrict_realtime: bool,
    /// `RestrictSUIDSGID=`
    pub restrict_suid_sgid: bool,
    /// `LockPersonality=`
    pub lock_personality: bool,
    /// `MemoryDenyWriteExecute=`
    pub memory_deny_write_execute: bool,
    /// `SystemCallFilter=`, `SystemCallLog=`, by name, sets resolved on the host.
    pub system_calls: Option<SystemCallFilter>,
    /// `SystemCallArchitectures=native`: other ABIs are refused.
    pub native_only: bool,
    /// `KeyringMode=private` or `shared`: a session keyring of its own.
    pub private_keyring: bool,
    /// `RemoveIPC=`
    pub remove_ipc: bool,
    /// `DevicePolicy=`, `DeviceAllow=`; None is all devices.
    pub devices: Option<Devices>,
    /// `IPAddressAllow=`, at most [`Sandbox::MOST_ADDRESSES`].
    pub allowed_addresses: Vec<Network>,
    /// `IPAddressDeny=`, at most [`Sandbox::MOST_ADDRESSES`].
    pub denied_addresses: Vec<Network>,
    /// `KeyringMode=shared`: the keyring of its user is in it.
    pub shared_keyring: bool,
    /// `JoinsNamespaceOf=`, from either side: the name of the group in which units of one manager
    /// share what is private ([`Sandbox::shares`]).
    pub joins: Option<String>,
}

impl Sandbox {
    /// More would be too far to jump over for the kernel's eBPF machine (16 bits).
    pub const MOST_ADDRESSES: usize = 1000;
    /// Lines of `DeviceAllow=`.
    pub const MOST_DEVICES: usize = 256;

    /// Whether there is something that a unit's commands have in common, and units with `joins`.
    pub fn shares(&self) -> bool {
        let joined_network = self.joins.is_some() && self.network_namespace_path.is_some();
        self.private_tmp || self.namespaces.network || self.namespaces.ipc || joined_network
    }

    /// Whether there are programs at the unit's cgroup.
    pub fn has_filters(&self) -> bool {
        self.devices.is_some() || !self.denied_addresses.is_empty()
    }
}

/// The devices that a service may use.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Devices {
    /// Those of `DevicePolicy=closed`: null, zero, full, random, urandom, tty, ptmx, pts.
    pub standard: bool,
    /// `DeviceAllow=`
    pub rules: Vec<DeviceRule>,
    /// By keys of their own, not only `PrivateDevices=`, which implies it.
    pub explicit: bool,
}

/// A line of `DeviceAllow=`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DeviceRule {
    /// Which.
    pub device: Device,
    /// Some of [`DeviceRule::MAKE`], [`DeviceRule::READ`], [`DeviceRule::WRITE`].
    pub access: u8,
}

/// BPF_DEVCG_ACC_* of linux/bpf.h.
impl DeviceRule {
    /// mknod(2)
    pub const MAKE: u8 = 1;
    /// open(2) for reading.
    pub const READ: u8 = 2;
    /// open(2) for writing.
    pub const WRITE: u8 = 4;
}

/// A device, or all of some drivers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub enum Device {
    /// `/dev/...`
    Path(String),
    /// `char-...`: a pattern of names in /proc/devices, or a major number.
    Character(String),
    /// `block-...`
    Block(String),
}

/// Addresses with a prefix in common.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Network {
    /// 4 bytes or 16, in the order of the network.
    pub address: Vec<u8>,
    /// Bits of the prefix.
    pub prefix: u8,
}

/// `ProtectSystem=`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[allow(missing_docs)] // the values of systemd.exec(5)
pub enum ProtectSystem {
    #[default]
    No,
    Yes,
    Full,
    Strict,
}

/// `ProtectHome=`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[allow(missing_docs)] // the values of systemd.exec(5)
pub enum ProtectHome {
    #[default]
    No,
    Yes,
    ReadOnly,
    Tmpfs,
}

/// One rule about a path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PathRule {
    /// Absolute path.
    pub path: String,
    /// A missing one is no error.
    pub optional: bool,
}

/// One mount of the service's own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[allow(missing_docs)] // the names of systemd.exec(5)
pub enum Mount {
    ReadWrite(PathRule),
    ReadOnly(PathRule),
    Inaccessible(PathRule),
    Exec(PathRule),
    NoExec(PathRule),
    /// Path and mount options.
    Temporary(PathRule, String),
    Bind(Bind),
}

/// `BindPaths=`, `BindReadOnlyPaths=`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Bind {
    /// What is bound.
    pub source: PathRule,
    /// Where it appears.
    pub target: String,
    /// `BindReadOnlyPaths=`
    pub read_only: bool,
    /// `rbind`, the default, or `norbind`.
    pub recursive: bool,
}

/// `PrivateNetwork=`, `PrivateIPC=`, `PrivateUsers=`, `PrivateMounts=`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[allow(missing_docs)]
pub struct Namespaces {
    pub network: bool,
    pub ipc: bool,
    pub users: bool,
    pub mounts: bool,
    /// `PrivateUsers=identity`: the user namespace knows the first 65,536 ids, as themselves.
    pub identity: bool,
}

/// `SystemCallFilter=`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct SystemCallFilter {
    /// Whether `calls` are the only ones that are allowed, or the ones that are not.
    pub allow: bool,
    /// Number on the image's architecture, and the errno of `name:errno`, if any: such a call is
    /// refused, whatever `allow` says. [`SystemCallFilter::KILL`] kills the process instead.
    pub calls: Vec<(u32, Option<u16>)>,
    /// `SystemCallErrorNumber=`; None kills the process.
    pub errno: Option<u16>,
}

impl SystemCallFilter {
    /// Stands for `name:kill` where an errno would be.
    pub const KILL: u16 = u16::MAX;
}

wire! {
    struct Sandbox {
        protect_system, protect_home, private_tmp, private_devices, protect_kernel_tunables,
        protect_kernel_modules, protect_kernel_logs, protect_control_groups, protect_clock,
        protect_hostname, protect_proc, proc_subset_pid, mount_api_vfs, root_directory, mounts,
        namespaces, network_namespace_path, address_families, restrict_namespaces,
        restrict_realtime, restrict_suid_sgid, lock_personality, memory_deny_write_execute,
        system_calls, native_only, private_keyring, remove_ipc, devices, allowed_addresses,
        denied_addresses, shared_keyring, joins,
    }
    struct Devices { standard, rules, explicit }
    struct DeviceRule { device, access }
    enum Device { Path(path), Character(names), Block(names) }
    struct Network { address, prefix }
    enum ProtectSystem { No, Yes, Full, Strict }
    enum ProtectHome { No, Yes, ReadOnly, Tmpfs }
    struct PathRule { path, optional }
    enum Mount {
        ReadWrite(rule), ReadOnly(rule), Inaccessible(rule), Exec(rule), NoExec(rule),
        Temporary(rule, options), Bind(bind),
    }
    struct Bind { source, target, read_only, recursive }
    struct Namespaces { network, ipc, users, mounts, identity }
    struct SystemCallFilter { allow, calls, errno }
}
