//! What only the guest can do for a container of engine crun before each start, beside filling in
//! its config.json ([`super::Container`]).

use crate::wire;
use serde::Serialize;

/// All of it; nothing by default.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Preparation {
    /// `EnvironmentFile=`, in order: absolute paths. A later one overrides an earlier one, and
    /// each what the image says.
    pub environment_files: Vec<String>,
    /// Bare names in `Environment=`, and those of proxies: taken over from the service's
    /// environment if they are there.
    pub pass_environment: Vec<String>,
    /// `EnvironmentHost=`: all of the service's environment, which overrides nothing.
    pub host_environment: bool,
    /// Names that `Environment=` sets: nothing overrides them.
    pub fixed_environment: Vec<String>,
    /// `AddDevice=`
    pub devices: Vec<DeviceNode>,
    /// Named volumes, and those with `U`.
    pub volumes: Vec<VolumeFolder>,
    /// `Secret=`
    pub secrets: Vec<Secret>,
    /// `Network=container:`: the id of that container, whose network namespace this one joins.
    pub network_of: Option<String>,
    /// Ids that root of the container has in the guest.
    pub root: (u32, u32),
}

/// One device of the guest, or all in a folder, made in the container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DeviceNode {
    /// Absolute path in the guest.
    pub source: String,
    /// Absolute path in the container.
    pub destination: String,
    /// Of `r`, `w`, `m`.
    pub permissions: String,
    /// One that is missing is left out.
    pub optional: bool,
}

/// A folder that is made if it is missing. With `U`, it may be a file that is there.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct VolumeFolder {
    /// Absolute path in the guest.
    pub path: String,
    /// What it is filled with while it is empty: the image's files at the volume's place.
    pub copy_from: Option<ImageFolder>,
    /// User and group in the guest that it gets when it is made; what it is filled with may have
    /// others.
    pub owner: (u32, u32),
    /// `U`: it and all in it get them, at each start.
    pub give: bool,
    /// What is in it from the start before is removed first.
    pub fresh: bool,
}

/// A folder of a container image. A link of the image on the way to it is the container's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ImageFolder {
    /// Absolute path in the guest of what is the container's root.
    pub root: String,
    /// Absolute path in the container.
    pub path: String,
}

/// `Secret=`
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Secret {
    /// Absolute path in the guest of its content, read at each start.
    pub source: String,
    /// Where it goes.
    pub target: SecretTarget,
}

/// Where a [`Secret`] goes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub enum SecretTarget {
    /// A file of that name in the folder `secrets` of the bundle, which config.json binds into the
    /// container.
    File {
        /// A plain name.
        name: String,
        /// Owner in the guest.
        owner: (u32, u32),
        /// Mode.
        mode: u32,
    },
    /// A variable of that name.
    Variable(String),
}

wire! {
    struct Preparation {
        environment_files, pass_environment, host_environment, fixed_environment, devices,
        volumes, secrets, network_of, root,
    }
    struct DeviceNode { source, destination, permissions, optional }
    struct VolumeFolder { path, copy_from, owner, give, fresh }
    struct ImageFolder { root, path }
    struct Secret { source, target }
    enum SecretTarget { File { name, owner, mode }, Variable(name) }
}
