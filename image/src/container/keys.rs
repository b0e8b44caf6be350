//! The smaller types of a [`super::Container`], one for each key or family of keys.

use super::Written;
use crate::config::Ids;

/// `Network=`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Network {
    /// Not given: a bridge that Podman makes.
    #[default]
    Bridge,
    /// `none`: a new network namespace with nothing but its loopback.
    None,
    /// `host`: the guest's.
    Host,
    /// `ns:PATH`: the namespace at that path of the guest.
    Path(String),
    /// `container:NAME` or `NAME.container`: that of another container, by its name.
    Container(String),
    /// Any other, which Podman makes.
    Other(String),
}

/// `UserNS=`, `UIDMap=`, `RemapUsers=` and their kin, as written.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct UserNamespace {
    /// `UserNS=`
    pub mode: Option<Written>,
    /// `UIDMap=`
    pub uid_maps: Vec<Written>,
    /// `GIDMap=`
    pub gid_maps: Vec<Written>,
    /// `SubUIDMap=`
    pub sub_uid: Option<Written>,
    /// `SubGIDMap=`
    pub sub_gid: Option<Written>,
    /// `RemapUsers=`
    pub remap_users: Option<Written>,
    /// `RemapUid=`
    pub remap_uid: Vec<Written>,
    /// `RemapGid=`
    pub remap_gid: Vec<Written>,
    /// `RemapUidSize=`
    pub remap_uid_size: Option<Written>,
    /// The ids of the name in `SubUIDMap=`, subuid(5); engine crun, by the unit compiler.
    pub sub_uids: Vec<Ids>,
    /// Those of `SubGIDMap=`.
    pub sub_gids: Vec<Ids>,
    /// What was chosen for `UserNS=auto`: the first id of the guest, or for a user's the first
    /// among what he has. Engine crun, by the unit compiler.
    pub chosen: Option<u32>,
}

/// `SecurityLabel*=`
#[derive(Debug, Clone, Default, PartialEq)]
pub struct SecurityLabels {
    /// `SecurityLabelDisable=`
    pub disable: bool,
    /// `SecurityLabelNested=`
    pub nested: bool,
    /// `SecurityLabelType=`
    pub kind: Option<Written>,
    /// `SecurityLabelFileType=`
    pub file_type: Option<Written>,
    /// `SecurityLabelLevel=`
    pub level: Option<Written>,
}

/// `CgroupsMode=`
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum CgroupsMode {
    /// `split`: below the service's cgroup. Quadlet's default.
    #[default]
    Split,
    /// `enabled`: in a cgroup of its own elsewhere.
    Enabled,
    /// `no-conmon`: as `enabled`, and conmon stays where it is.
    NoConmon,
    /// `disabled`: in the cgroup of whoever starts it.
    Disabled,
}

/// `Notify=`: who says when the service is ready.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Notify {
    /// `no`: the runtime has started it.
    #[default]
    Runtime,
    /// `yes`: the container says `READY=1`.
    Container,
    /// `healthy`: the first health check that succeeds.
    Healthy,
}

/// `ReloadCmd=` and `ReloadSignal=`, of which there is one at most.
#[derive(Debug, Clone, PartialEq)]
pub enum Reload {
    /// Words of a command that runs in the container.
    Command(Vec<String>),
    /// A signal for its first process, as written.
    Signal(Written),
}
