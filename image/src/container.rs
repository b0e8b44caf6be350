//! A Quadlet `.container`, parsed and resolved: what both engines work from.

use crate::config::Ids;
use crate::finding::Span;

/// `[Container]` with its values typed. Keys that no engine can do without more than this are
/// refused where they are read.
#[derive(Debug, Clone, PartialEq)]
pub struct Container {
    /// Where the unit is, for findings about it.
    pub span: Span,
    /// The service that it becomes: `echo.service`.
    pub service: String,
    /// The lingering user whose container it is; None is the system's.
    pub owner: Option<Rootless>,
    /// `Image=`, as written.
    pub image: String,
    /// Where `Image=` is, for "is not mapped".
    pub image_span: Span,
    /// `ContainerName=`, or `systemd-NAME`.
    pub name: String,
    /// `Exec=`: replaces the image's command.
    pub exec: Option<Vec<String>>,
    /// `Entrypoint=`: replaces the image's entrypoint.
    pub entrypoint: Option<Vec<String>>,
    /// `Environment=`, sorted by name, the last of a name wins.
    pub environment: Vec<(String, String)>,
    /// `Network=`.
    pub network: Network,
    /// `User=` and `Group=`: as written, resolved in the image.
    pub user: Option<String>,
    /// `WorkingDir=`.
    pub working_directory: Option<String>,
    /// `HostName=`.
    pub host_name: Option<String>,
    /// `AddCapability=`, upper case, with CAP_.
    pub add_capabilities: Vec<String>,
    /// `DropCapability=`, upper case, with CAP_; `CAP_ALL` drops all.
    pub drop_capabilities: Vec<String>,
    /// `NoNewPrivileges=`.
    pub no_new_privileges: bool,
    /// `ReadOnly=`; None if not given.
    pub read_only: Option<bool>,
    /// `ReadOnlyTmpfs=`, by default true.
    pub read_only_tmpfs: bool,
    /// `Tmpfs=`: path, options.
    pub tmpfs: Vec<(String, Vec<String>)>,
    /// `Volume=` binds: source, destination, options. Absolute.
    pub binds: Vec<(String, String, Vec<String>)>,
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
    /// `Annotation=` and `Label=`.
    pub annotations: Vec<(String, String)>,
    /// `Mask=`, further masked paths.
    pub mask: Vec<String>,
    /// `Unmask=`: paths, or `ALL`.
    pub unmask: Vec<String>,
    /// `StopSignal=`, as written.
    pub stop_signal: Option<String>,
    /// `StopTimeout=` in seconds, by default 10.
    pub stop_timeout: u64,
}

/// `Network=`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Network {
    /// A new network namespace with nothing but its loopback.
    None,
    /// The guest's.
    Host,
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

impl Container {
    /// crun's name for it, and that of its bundle: no other container of any user has it.
    pub fn id(&self) -> String {
        match &self.owner {
            Some(owner) => format!("user-{}-{}", owner.uid, self.name),
            None => self.name.clone(),
        }
    }
}
