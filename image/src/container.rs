//! A Quadlet `.container`, parsed and resolved: what both engines work from.
//!
//! Every key of `[Container]` is in here, whichever engine can do it: an engine refuses what it
//! cannot. A field is None, or empty, where its key is not given; the defaults are the engine's.

mod extra;
mod health;
mod keys;
mod volume;

pub use extra::{DeviceRule, Extra, Space};
pub use health::Health;
pub use keys::{CgroupsMode, Network, Notify, Reload, SecurityLabels, UserNamespace};
pub use volume::{Device, Volume, VolumeSource};

use crate::config::{self, Ids};
use crate::finding::Span;

/// A value with specifiers and variables replaced, as far as this goes for both engines, and
/// where it stands.
#[derive(Debug, Clone, PartialEq)]
pub struct Written {
    /// The text.
    pub text: String,
    /// Where it is, for findings.
    pub span: Span,
}

/// One line of `[Container]`.
#[derive(Debug, Clone, PartialEq)]
pub struct Line {
    /// `PodmanArgs`
    pub key: String,
    /// Its value, specifiers replaced.
    pub value: Written,
}

/// `[Container]` with its values typed.
#[derive(Debug, Clone, PartialEq)]
pub struct Container {
    /// Where the unit is, for findings about it.
    pub span: Span,
    /// The service that it becomes: `echo.service`.
    pub service: String,
    /// The lingering user whose container it is; None is the system's.
    pub owner: Option<Rootless>,
    /// All lines as they stand, in order, those that a later empty one takes back among them.
    pub lines: Vec<Line>,
    /// `Image=`, as written; empty if there is `rootfs` instead.
    pub image: String,
    /// Where `Image=` is, for "is not mapped".
    pub image_span: Span,
    /// `Rootfs=`: an absolute path, perhaps with options behind a colon.
    pub rootfs: Option<Written>,
    /// Whether that folder is in what the guest can write to; engine crun, by the unit compiler.
    pub rootfs_is_writable: bool,
    /// `ContainerName=`, or `systemd-NAME`.
    pub name: String,
    /// `Exec=`: replaces the image's command.
    pub exec: Option<Vec<String>>,
    /// `Entrypoint=`: replaces the image's entrypoint.
    pub entrypoint: Option<Vec<String>>,
    /// `Environment=` with a value, sorted by name, the last of a name wins.
    pub environment: Vec<(String, String)>,
    /// Bare names in `Environment=`: the value is that of the one who starts it.
    pub pass_environment: Vec<String>,
    /// `EnvironmentFile=`, as written.
    pub environment_files: Vec<Written>,
    /// `EnvironmentHost=`
    pub environment_host: Option<bool>,
    /// `HttpProxy=`
    pub http_proxy: Option<bool>,
    /// The last `Network=`.
    pub network: Network,
    /// All `Network=`, as written.
    pub networks: Vec<Written>,
    /// `NetworkAlias=`
    pub network_aliases: Vec<Written>,
    /// `IP=`
    pub ip: Option<Written>,
    /// `IP6=`
    pub ip6: Option<Written>,
    /// `PublishPort=`
    pub publish_ports: Vec<Written>,
    /// `ExposeHostPort=`
    pub expose_ports: Vec<Written>,
    /// `AddHost=`
    pub add_hosts: Vec<Written>,
    /// `DNS=`
    pub dns: Vec<Written>,
    /// `DNSOption=`
    pub dns_options: Vec<Written>,
    /// `DNSSearch=`
    pub dns_search: Vec<Written>,
    /// `User=` and `Group=`: as written, resolved in the image.
    pub user: Option<String>,
    /// `GroupAdd=`
    pub groups: Vec<Written>,
    /// `UserNS=`, `UIDMap=`, `RemapUsers=` and their kin.
    pub user_namespace: UserNamespace,
    /// `WorkingDir=`.
    pub working_directory: Option<String>,
    /// `HostName=`.
    pub host_name: Option<String>,
    /// `Timezone=`
    pub timezone: Option<Written>,
    /// `AddCapability=`, upper case, with CAP_.
    pub add_capabilities: Vec<String>,
    /// `DropCapability=`, upper case, with CAP_; `CAP_ALL` drops all.
    pub drop_capabilities: Vec<String>,
    /// `NoNewPrivileges=`.
    pub no_new_privileges: bool,
    /// `SeccompProfile=`
    pub seccomp_profile: Option<Written>,
    /// `AppArmor=`
    pub app_armor: Option<Written>,
    /// `SecurityLabel*=`
    pub security_labels: SecurityLabels,
    /// `ReadOnly=`; None if not given.
    pub read_only: Option<bool>,
    /// `ReadOnlyTmpfs=`, by default true.
    pub read_only_tmpfs: bool,
    /// `VolatileTmp=`
    pub volatile_tmp: bool,
    /// `Tmpfs=`: path, options.
    pub tmpfs: Vec<(String, Vec<String>)>,
    /// `Volume=`
    pub volumes: Vec<Volume>,
    /// `Mount=`, one comma list each.
    pub mounts: Vec<Written>,
    /// `AddDevice=`
    pub devices: Vec<Device>,
    /// `Secret=`, each a comma list.
    pub secrets: Vec<Written>,
    /// `CgroupsMode=`
    pub cgroups_mode: CgroupsMode,
    /// `PidsLimit=`, by default 2048; None is unlimited.
    pub pids_limit: Option<i64>,
    /// `Memory=` in bytes.
    pub memory: Option<i64>,
    /// `ShmSize=` in bytes, by default 65536000 (64000 KiB, as Podman's "65536k" counts it).
    pub shm_size: u64,
    /// `Sysctl=`.
    pub sysctls: Vec<(String, String)>,
    /// `Ulimit=`: name, soft, hard.
    pub ulimits: Vec<(String, u64, u64)>,
    /// `Ulimit=host`: the limits of whoever starts it.
    pub ulimit_host: bool,
    /// `Annotation=`.
    pub annotations: Vec<(String, String)>,
    /// `Label=`.
    pub labels: Vec<(String, String)>,
    /// `Mask=`, further masked paths.
    pub mask: Vec<String>,
    /// `Unmask=`: paths, or `ALL`.
    pub unmask: Vec<String>,
    /// `RunInit=`
    pub run_init: bool,
    /// `Notify=`
    pub notify: Notify,
    /// `ReloadCmd=` or `ReloadSignal=`
    pub reload: Option<Reload>,
    /// `HealthCmd=` and its kin.
    pub health: Health,
    /// `LogDriver=`
    pub log_driver: Option<Written>,
    /// `LogOpt=`
    pub log_options: Vec<Written>,
    /// `StopSignal=`, as written.
    pub stop_signal: Option<String>,
    /// `StopTimeout=` in seconds, by default 10.
    pub stop_timeout: u64,
    /// `Pod=`
    pub pod: Option<Written>,
    /// `StartWithPod=`
    pub start_with_pod: Option<bool>,
    /// `Pull=`
    pub pull: Option<Written>,
    /// `Retry=`
    pub retry: Option<Written>,
    /// `RetryDelay=`
    pub retry_delay: Option<Written>,
    /// `AutoUpdate=`
    pub auto_update: Option<Written>,
    /// `ContainersConfModule=`
    pub modules: Vec<Written>,
    /// `GlobalArgs=`, one word each.
    pub global_arguments: Vec<Written>,
    /// `PodmanArgs=`, one word each.
    pub podman_arguments: Vec<Written>,
    /// What of those the engine crun takes and no other field holds.
    pub extra: Extra,
}

/// What a container's root is, of the folder of an image or of `Rootfs=`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Root {
    /// The folder, read-only.
    ReadOnly,
    /// An empty layer over the folder, in memory, and new for each start.
    Layer,
    /// The folder, in which what is written stays.
    Itself,
}

/// `StopTimeout=`, containers.conf(5).
pub const STOP_TIMEOUT: u64 = 10;
/// `PidsLimit=`
pub const PIDS_LIMIT: i64 = 2048;
/// `ShmSize=`, 65536k as Podman counts it.
pub const SHM_SIZE: u64 = 65_536_000;

impl Container {
    /// What its root is, for the engine crun. It may write to it unless `ReadOnly=` says otherwise.
    pub fn root(&self) -> Root {
        let has_layer = |rootfs: &Written| rootfs.text.split([':', ',']).any(|part| part == "O");
        match &self.rootfs {
            _ if self.read_only == Some(true) => Root::ReadOnly,
            Some(rootfs) if self.rootfs_is_writable && !has_layer(rootfs) => Root::Itself,
            _ => Root::Layer,
        }
    }

    /// One of which nothing is given but its image.
    pub fn new(span: Span, service: &str, name: &str, image: &str) -> Self {
        Self {
            image_span: span.clone(),
            span,
            service: service.into(),
            owner: None,
            lines: vec![],
            image: image.into(),
            rootfs: None,
            rootfs_is_writable: false,
            name: name.into(),
            exec: None,
            entrypoint: None,
            environment: vec![],
            pass_environment: vec![],
            environment_files: vec![],
            environment_host: None,
            http_proxy: None,
            network: Network::Bridge,
            networks: vec![],
            network_aliases: vec![],
            ip: None,
            ip6: None,
            publish_ports: vec![],
            expose_ports: vec![],
            add_hosts: vec![],
            dns: vec![],
            dns_options: vec![],
            dns_search: vec![],
            user: None,
            groups: vec![],
            user_namespace: UserNamespace::default(),
            working_directory: None,
            host_name: None,
            timezone: None,
            add_capabilities: vec![],
            drop_capabilities: vec![],
            no_new_privileges: false,
            seccomp_profile: None,
            app_armor: None,
            security_labels: SecurityLabels::default(),
            read_only: None,
            read_only_tmpfs: true,
            volatile_tmp: false,
            tmpfs: vec![],
            volumes: vec![],
            mounts: vec![],
            devices: vec![],
            secrets: vec![],
            cgroups_mode: CgroupsMode::Split,
            pids_limit: Some(PIDS_LIMIT),
            memory: None,
            shm_size: SHM_SIZE,
            sysctls: vec![],
            ulimits: vec![],
            ulimit_host: false,
            annotations: vec![],
            labels: vec![],
            mask: vec![],
            unmask: vec![],
            run_init: false,
            notify: Notify::Runtime,
            reload: None,
            health: Health::default(),
            log_driver: None,
            log_options: vec![],
            stop_signal: None,
            stop_timeout: STOP_TIMEOUT,
            pod: None,
            start_with_pod: None,
            pull: None,
            retry: None,
            retry_delay: None,
            auto_update: None,
            modules: vec![],
            global_arguments: vec![],
            podman_arguments: vec![],
            extra: Extra::default(),
        }
    }

    /// crun's name for it, and that of its bundle: no other container of any user has it.
    pub fn id(&self) -> String {
        match &self.owner {
            Some(owner) => format!("user-{}-{}", owner.uid, self.name),
            None => self.name.clone(),
        }
    }

    /// Where a key, else `PodmanArgs=`, was last given such a text, in upper or lower case; else as
    /// [`Self::span_of`].
    pub fn span_with(&self, key: &str, text: &str) -> Span {
        let text = text.to_ascii_lowercase();
        let of = |key: &str| {
            let has = |line: &&Line| {
                line.key == key && line.value.text.to_ascii_lowercase().contains(&text)
            };
            self.lines.iter().rfind(has)
        };
        let line = of(key).or_else(|| of("PodmanArgs"));
        line.map_or_else(|| self.span_of(key), |line| line.value.span.clone())
    }

    /// Where a key was given last, else where the unit is.
    pub fn span_of(&self, key: &str) -> Span {
        let line = self.lines.iter().rfind(|line| line.key == key);
        line.map_or_else(|| self.span.clone(), |line| line.value.span.clone())
    }
}

/// Whose ids the processes of a user's container have: root in it is the user, and the others
/// follow from the first subordinate id on, as in rootless Podman.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rootless {
    /// Login name.
    pub name: String,
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// User ids of the others in the container.
    pub subuids: Ids,
    /// Group ids of the others in the container.
    pub subgids: Ids,
}

impl Rootless {
    /// A user's; `index` is his place in appliance.toml.
    pub fn of(user: &config::User, index: usize) -> Self {
        Self {
            name: user.name.clone(),
            uid: user.uid,
            gid: user.gid(),
            subuids: user.subuids(index),
            subgids: user.subgids(index),
        }
    }
}
