//! The contract between host and guest: what to listen on, what to start, in which order.
//!
//! The host compiles units into a [`Manifest`]; the guest decodes it once at start-up and never
//! parses text. Everything is resolved as far as the host can: absolute paths, numeric ids,
//! argv and environment, addresses, limits. Vectors have a meaning in their order, which is the
//! same for the same input.
//!
//! On the wire: [`MAGIC`], [`VERSION`] (u32, little endian), then the manifest ([`crate::wire`]),
//! followed by its CRC-32 (ISO-HDLC, little endian). A manifest of another version, or with a wrong
//! checksum, is refused and never half used. Each file of this module ends with the list of its
//! types' fields in their order on the wire.

mod condition;
mod execution;
mod health;
mod machine;
mod preparation;
mod sandbox;
mod service;
mod socket;

pub use condition::{Check, Condition, Group};
pub use execution::{
    Credential, CredentialSource, Directory, DirectoryKind, DynamicUser, EnvironmentFile,
    Execution, Input, Output, Scheduling, Stage2, User,
};
pub use health::{HealthCheck, OnUnhealthy, Probe, StartupCheck};
pub use machine::{Disk, FixedAddress, Interface, Root};
pub use preparation::{DeviceNode, ImageFolder, Preparation, Secret, SecretTarget, VolumeFolder};
pub use sandbox::{
    Bind, Device, DeviceRule, Devices, Mount, Namespaces, Network, PathRule, ProtectHome,
    ProtectSystem, Sandbox, SystemCallFilter,
};
pub use service::{
    Command, Container, ExitType, FailureMode, KillMode, NotifyAccess, Restart, Service,
    ServiceKind, Statuses,
};
pub use socket::{Accept, Address, ListenKind, Listener, Scope, Socket, SocketOption};

use crate::wire;
use serde::Serialize;

/// First bytes of an encoded manifest.
pub const MAGIC: [u8; 8] = *b"rouse\0M\n";
/// Raised with every change of the types below.
pub const VERSION: u32 = 7;
/// Where an image keeps its manifest.
pub const PATH: &str = "/usr/lib/rouse/manifest";

/// Everything that a guest will do.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Manifest {
    /// The appliance's name; also its host name.
    pub name: String,
    /// The chores of PID 1. `activator run` leaves them out.
    pub boot: Boot,
    /// Lingering users, sorted by name.
    pub users: Vec<Lingering>,
    /// All units, sorted by owner (the system first) and name, so that a [`UnitId`] is the same
    /// for the same input.
    pub units: Vec<Unit>,
}

/// What PID 1 does before it listens.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Boot {
    /// Kernel modules (absolute paths of uncompressed .ko files), in load order.
    pub modules: Vec<Module>,
    /// Directories that get a tmpfs of their own, since the root is read-only.
    /// /run, /tmp, /dev and the kernel's file systems are not listed: they are always there.
    pub writable: Vec<Writable>,
    /// (path below /proc/sys, value).
    pub sysctls: Vec<(String, String)>,
    /// The root is elsewhere: what is to be done before all else. Only in an initramfs without
    /// units.
    pub root: Option<Root>,
    /// Disks to mount, in this order, after `writable`.
    pub disks: Vec<Disk>,
    /// The network's interface; None is a guest without a network device.
    pub interface: Option<Interface>,
}

/// One kernel module to load.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Module {
    /// Absolute path in the image.
    pub path: String,
    /// Parameters as finit_module(2) takes them; mostly empty.
    pub parameters: String,
    /// A failure to load one that is not required is only logged.
    pub required: bool,
}

/// One tmpfs over a directory of the read-only root.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Writable {
    /// Absolute path; exists in the image.
    pub path: String,
    /// Mode of the tmpfs' root.
    pub mode: u32,
    /// User and group of the tmpfs' root.
    pub owner: (u32, u32),
}

/// Index into [`Manifest::units`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct UnitId(pub u16);

impl UnitId {
    /// The index as the slice wants it.
    pub fn index(self) -> usize {
        usize::from(self.0)
    }
}

/// Whose unit it is: index into [`Manifest::users`], None for the system's.
pub type Owner = Option<u16>;

/// A lingering user, who has units of their own (`[[user]]` in appliance.toml).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Lingering {
    /// Login name.
    pub name: String,
    /// Ids of the processes of the user's units, unless a unit says otherwise.
    pub ids: User,
    /// Home directory, `%h`.
    pub home: String,
    /// XDG_RUNTIME_DIR, `%t`: made at boot, mode 0700, owned by the user.
    pub runtime_directory: String,
}

/// One unit with its place in the graph.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Unit {
    /// Full name, `echo.socket`. A template that Accept=yes instantiates is `echo@.service`.
    pub name: String,
    /// Whose it is. Units are sorted by owner, then by name.
    pub owner: Owner,
    /// `Description=`, or the name.
    pub description: String,
    /// Started when the guest has booted.
    pub start_at_boot: bool,
    /// Units that are started with this one; when one of them fails to start, so does this one
    /// (if it is ordered after it), and when one is stopped, so is this one.
    pub requires: Vec<UnitId>,
    /// `Requisite=`: as `requires`, but nothing is started: what is not up already fails this one.
    pub requisite: Vec<UnitId>,
    /// Units that are started with this one, whatever becomes of them.
    pub wants: Vec<UnitId>,
    /// `BindsTo=`: this one is stopped, too, when one of these goes down by itself. Each stands
    /// in `requires` as well.
    pub binds_to: Vec<UnitId>,
    /// `PartOf=`: a stop or restart of one of these, by order or dependency, does it to this one.
    pub part_of: Vec<UnitId>,
    /// `Upholds=`: while this one is up, each of these is started again whenever it is down.
    pub upholds: Vec<UnitId>,
    /// Units whose start must have ended before this one starts. `Before=` is turned round by
    /// the host. Stops go the other way. The graph has no cycle.
    pub after: Vec<UnitId>,
    /// Units that cannot run beside this one.
    pub conflicts: Vec<UnitId>,
    /// `OnFailure=`: started when this one fails.
    pub on_failure: Vec<UnitId>,
    /// `OnSuccess=`: started when this one ends well.
    pub on_success: Vec<UnitId>,
    /// `PropagatesReloadTo=` and its inverse, resolved.
    pub reloads: Vec<UnitId>,
    /// `PropagatesStopTo=` and its inverse, resolved: these are stopped when this one goes down,
    /// by order or by itself, and restarted with it if they are up.
    pub stops: Vec<UnitId>,
    /// `StopWhenUnneeded=`: stopped when no unit that is up requires, wants or binds to it.
    pub stop_when_unneeded: bool,
    /// `Condition*=` and `Assert*=` that only the running guest can check, in their order. What
    /// the host knows is resolved at build time.
    pub conditions: Vec<Condition>,
    /// What it is.
    pub kind: UnitKind,
}

impl Unit {
    /// All lists of other units, in the order of the fields.
    fn edges(&self) -> [&Vec<UnitId>; 11] {
        [
            &self.requires,
            &self.requisite,
            &self.wants,
            &self.binds_to,
            &self.part_of,
            &self.upholds,
            &self.after,
            &self.conflicts,
            &self.on_failure,
            &self.on_success,
            &self.reloads,
        ]
    }

    fn edges_mut(&mut self) -> [&mut Vec<UnitId>; 11] {
        [
            &mut self.requires,
            &mut self.requisite,
            &mut self.wants,
            &mut self.binds_to,
            &mut self.part_of,
            &mut self.upholds,
            &mut self.after,
            &mut self.conflicts,
            &mut self.on_failure,
            &mut self.on_success,
            &mut self.reloads,
        ]
    }

    /// Gives all units that this one names another id, where the units have been put into
    /// another order; those without one are named no more. False if a socket has lost its service.
    pub fn renumber(&mut self, id: impl Fn(UnitId) -> Option<UnitId>) -> bool {
        let renumber = |ids: &mut Vec<UnitId>| {
            *ids = ids.iter().filter_map(|old| id(*old)).collect();
        };
        self.edges_mut().into_iter().for_each(renumber);
        match &mut self.kind {
            UnitKind::Service(service) => {
                renumber(&mut service.sockets);
                renumber(&mut service.relays);
            }
            UnitKind::Socket(socket) => match id(socket.service) {
                Some(service) => socket.service = service,
                None => return false,
            },
            UnitKind::Target => {}
        }
        true
    }
}

/// What a unit is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[allow(clippy::large_enum_variant)]
pub enum UnitKind {
    /// A `.socket`.
    Socket(Socket),
    /// A `.service`, or what a `.container` became.
    Service(Service),
    /// A `.target` of the user's; the well-known ones are resolved on the host.
    #[default]
    Target,
}

/// At most `burst` events in `interval_us`; 0 in either switches the limit off.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct RateLimit {
    /// Length of the window in microseconds.
    pub interval_us: u64,
    /// Events in one window.
    pub burst: u32,
}

/// Stands in any text of an Accept=yes template (`%i` of the connection) until stage 2 replaces
/// it by the instance's name. A service with it in a text has a [`Stage2`].
pub const INSTANCE: &str = "@ROUSE_INSTANCE@";
/// The same for `%I`: the name with `-` turned into `/` and `\xHH` into the byte
/// (`systemd-escape --unescape`).
pub const INSTANCE_UNESCAPED: &str = "@ROUSE_INSTANCE_UNESCAPED@";

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
        let body = wire::to_vec(self);
        bytes.extend_from_slice(&body);
        bytes.extend(CRC.checksum(&body).to_le_bytes());
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
        let (body, sum) = body.split_last_chunk::<4>().ok_or(DecodeError::Damaged)?;
        if CRC.checksum(body) != u32::from_le_bytes(*sum) {
            return Err(DecodeError::Damaged);
        }
        let manifest: Self = wire::from_bytes(body).map_err(|_| DecodeError::Damaged)?;
        manifest.check()?;
        Ok(manifest)
    }

    /// The unit behind an id.
    pub fn unit(&self, id: UnitId) -> Option<&Unit> {
        self.units.get(id.index())
    }

    /// The id of a unit of the system's.
    pub fn find(&self, name: &str) -> Option<UnitId> {
        self.find_of(None, name)
    }

    /// The lingering user whose unit it is.
    pub fn user_of(&self, unit: &Unit) -> Option<&Lingering> {
        self.users.get(usize::from(unit.owner?))
    }

    /// A relative path that no other unit has: `echo.service`, of a user
    /// `user-1000/echo.service`.
    pub fn place(&self, unit: &Unit) -> String {
        match self.user_of(unit) {
            Some(user) => format!("user-{}/{}", user.ids.uid, unit.name),
            None => unit.name.clone(),
        }
    }

    /// The id of a unit by its owner and name.
    pub fn find_of(&self, owner: Owner, name: &str) -> Option<UnitId> {
        let key = |unit: &Unit| (unit.owner, unit.name.as_str()).cmp(&(owner, name));
        let index = self.units.binary_search_by(key).ok()?;
        u16::try_from(index).ok().map(UnitId)
    }

    fn check(&self) -> Result<(), DecodeError> {
        let fail = |rule| Err(DecodeError::Inconsistent(rule));
        if self.units.len() > usize::from(u16::MAX) {
            return fail("at most 65535 units");
        }
        if !self.units.is_sorted_by(|a, b| (a.owner, &a.name) < (b.owner, &b.name)) {
            return fail("units are sorted by owner and name, each once");
        }
        let users = self.users.len();
        if self.units.iter().any(|unit| unit.owner.is_some_and(|it| usize::from(it) >= users)) {
            return fail("an owner is a user");
        }
        for unit in &self.units {
            if unit.edges().into_iter().flatten().any(|id| self.unit(*id).is_none()) {
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
                    let relay = |id: &UnitId| {
                        matches!(self.unit(*id).map(|unit| &unit.kind), Some(UnitKind::Service(_)))
                    };
                    if !service.relays.iter().all(relay) {
                        return fail("a relay is a service");
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

wire! {
    struct Manifest { name, boot, users, units }
    struct Boot { modules, writable, sysctls, root, disks, interface }
    struct Module { path, parameters, required }
    struct Writable { path, mode, owner }
    tuple UnitId(index)
    struct Lingering { name, ids, home, runtime_directory }
    struct Unit {
        name, owner, description, start_at_boot, requires, requisite, wants, binds_to, part_of,
        upholds, after, conflicts, on_failure, on_success, reloads, stops, stop_when_unneeded,
        conditions, kind,
    }
    enum UnitKind { Socket(socket), Service(service), Target }
    struct RateLimit { interval_us, burst }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn small() -> Manifest {
        Manifest {
            name: "echo".into(),
            boot: Boot::default(),
            users: vec![],
            units: vec![Unit {
                name: "a.target".into(),
                description: "a".into(),
                start_at_boot: true,
                ..Unit::default()
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
