//! What `PodmanArgs=` may say to the engine crun for which there is no key.

/// Options of podman-run(1); the default of each is Podman's.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Extra {
    /// `--cpu-shares`
    pub cpu_shares: Option<u64>,
    /// `--cpu-quota`, or of `--cpus`, in microseconds.
    pub cpu_quota: Option<i64>,
    /// `--cpu-period`, or of `--cpus`, in microseconds.
    pub cpu_period: Option<u64>,
    /// `--cpuset-cpus`
    pub cpuset_cpus: Option<String>,
    /// `--cpuset-mems`
    pub cpuset_mems: Option<String>,
    /// `--memory-swap` in bytes, -1 is no limit.
    pub memory_swap: Option<i64>,
    /// `--memory-reservation` in bytes.
    pub memory_reservation: Option<i64>,
    /// `--oom-score-adj`
    pub oom_score_adjust: Option<i32>,
    /// `--umask`
    pub umask: Option<u32>,
    /// `--cgroup-conf`: file of the cgroup, and its value.
    pub cgroup_files: Vec<(String, String)>,
    /// `--device-cgroup-rule`
    pub device_rules: Vec<DeviceRule>,
    /// `--privileged`
    pub privileged: bool,
    /// `--systemd=false`: what it runs is no systemd, by whatever name.
    pub no_systemd: bool,
    /// `--pid`
    pub pid: Space,
    /// `--ipc`
    pub ipc: Space,
    /// `--uts`
    pub uts: Space,
    /// `--cgroupns`
    pub cgroup: Space,
}

/// Whose namespace it is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Space {
    /// `private`
    #[default]
    Own,
    /// `host`
    Guest,
    /// `none` of `--ipc`: its own, without /dev/shm.
    Without,
}

/// `c 10:* rwm`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceRule {
    /// `a`, `b` or `c`
    pub kind: char,
    /// None is all.
    pub major: Option<i64>,
    /// None is all.
    pub minor: Option<i64>,
    /// Of `r`, `w`, `m`.
    pub access: String,
}
