//! How PID 1 calls stage 2: which command of which unit of which manifest.

use super::MANIFEST_VARIABLE;
use super::error::{Error, Failed};
use crate::manifest::{Command, Execution, Lingering, Manifest, Unit, UnitId, UnitKind};
use crate::wire;
use std::ffi::OsString;
use std::path::PathBuf;

/// The variable by which PID 1 names the instance of an Accept=yes template.
pub const INSTANCE_VARIABLE: &str = "ROUSE_INSTANCE";

/// The variable by which PID 1 names the fd that is told of the exec (`Type=exec`).
pub(super) const EXEC_VARIABLE: &str = "ROUSE_EXEC";

/// One of a unit's lists of commands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)] // Exec*= of systemd.service(5) and systemd.socket(5)
pub enum List {
    Condition,
    StartPre,
    Start,
    StartPost,
    Reload,
    StopPre,
    Stop,
    StopPost,
    Health,
    HealthStartup,
}

impl List {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::Condition,
        Self::StartPre,
        Self::Start,
        Self::StartPost,
        Self::Reload,
        Self::StopPre,
        Self::Stop,
        Self::StopPost,
        Self::Health,
        Self::HealthStartup,
    ];

    /// Its name in a call.
    pub fn name(self) -> &'static str {
        match self {
            Self::Condition => "condition",
            Self::StartPre => "start-pre",
            Self::Start => "start",
            Self::StartPost => "start-post",
            Self::Reload => "reload",
            Self::StopPre => "stop-pre",
            Self::Stop => "stop",
            Self::StopPost => "stop-post",
            Self::Health => "health",
            Self::HealthStartup => "health-startup",
        }
    }

    /// The commands of a unit; none where its kind has no such list.
    pub fn of(self, unit: &Unit) -> &[Command] {
        match (&unit.kind, self) {
            (UnitKind::Service(service), Self::Condition) => &service.condition,
            (UnitKind::Service(service), Self::StartPre) => &service.start_pre,
            (UnitKind::Service(service), Self::Start) => &service.start,
            (UnitKind::Service(service), Self::StartPost) => &service.start_post,
            (UnitKind::Service(service), Self::Reload) => &service.reload,
            (UnitKind::Service(service), Self::Stop) => &service.stop,
            (UnitKind::Service(service), Self::StopPost) => &service.stop_post,
            (UnitKind::Service(service), Self::Health) => match service.health.as_deref() {
                Some(health) => std::slice::from_ref(&health.probe.command),
                None => &[],
            },
            (UnitKind::Service(service), Self::HealthStartup) => {
                match service.health.as_deref().and_then(|health| health.startup.as_ref()) {
                    Some(startup) => std::slice::from_ref(&startup.probe.command),
                    None => &[],
                }
            }
            (UnitKind::Socket(socket), Self::StartPre) => &socket.start_pre,
            (UnitKind::Socket(socket), Self::StartPost) => &socket.start_post,
            (UnitKind::Socket(socket), Self::StopPre) => &socket.stop_pre,
            (UnitKind::Socket(socket), Self::StopPost) => &socket.stop_post,
            _ => &[],
        }
    }
}

/// A unit's name as an argument: `USER/NAME` for a lingering user's, else `NAME`.
pub fn unit_argument(manifest: &Manifest, unit: &Unit) -> String {
    let user = unit.owner.and_then(|owner| manifest.users.get(usize::from(owner)));
    match user {
        Some(user) => format!("{}/{}", user.name, unit.name),
        None => unit.name.clone(),
    }
}

/// The unit of such an argument.
pub(super) fn find_unit(manifest: &Manifest, argument: &str) -> Option<UnitId> {
    match argument.split_once('/') {
        Some((user, name)) => {
            let owner = manifest.users.iter().position(|it| it.name == user)?;
            manifest.find_of(Some(u16::try_from(owner).ok()?), name)
        }
        None => manifest.find(argument),
    }
}

/// The manifest that [`MANIFEST_VARIABLE`] names.
pub(super) fn read_manifest() -> Result<Manifest, Failed> {
    let path = PathBuf::from(std::env::var_os(MANIFEST_VARIABLE).ok_or_else(Failed::usage)?);
    let bytes = std::fs::read(&path).map_err(|error| Failed::file("read", &path, error))?;
    Manifest::decode(&bytes).map_err(|error| Error::Manifest(path, error).into())
}

/// A unit of the manifest, with the instance's name filled in.
#[derive(Default)]
pub(super) struct Subject {
    pub(super) manifest: Manifest,
    pub(super) unit: Unit,
    /// Of an Accept=yes template.
    pub(super) instance: Option<String>,
}

impl Subject {
    /// Finds it. The instance is that of [`INSTANCE_VARIABLE`].
    pub(super) fn find(argument: &str) -> Result<Self, Failed> {
        let instance = std::env::var(INSTANCE_VARIABLE).ok();
        Self::of(read_manifest()?, argument, instance.as_deref())
    }

    fn of(manifest: Manifest, argument: &str, instance: Option<&str>) -> Result<Self, Failed> {
        let missing = || Error::NoCommand(argument.to_owned());
        let id = find_unit(&manifest, argument).ok_or_else(missing)?;
        let mut unit = wire::copy(manifest.unit(id).ok_or_else(missing)?);
        if let Some(instance) = instance {
            super::instance::fill(&mut unit, instance);
        }
        Ok(Self { manifest, unit, instance: instance.map(str::to_owned) })
    }

    /// The lingering user whose unit it is.
    pub(super) fn owner(&self) -> Option<&Lingering> {
        self.unit.owner.and_then(|owner| self.manifest.users.get(usize::from(owner)))
    }

    /// Its name among the directories below /run/rouse, which no other unit or instance has.
    pub(super) fn slot(&self) -> String {
        let mut slot = match self.owner() {
            Some(owner) => format!("{}:{}", owner.name, self.unit.name),
            None => self.unit.name.clone(),
        };
        if let Some(instance) = &self.instance {
            // The address of a Unix socket has slashes.
            slot = format!("{slot}:{}", instance.replace('/', "\\x2f"));
        }
        slot
    }

    pub(super) fn execution(&self) -> Option<&Execution> {
        match &self.unit.kind {
            UnitKind::Service(service) => Some(&service.execution),
            UnitKind::Socket(socket) => Some(&socket.execution),
            UnitKind::Target => None,
        }
    }
}

/// One command of a [`Subject`].
pub(super) struct Call {
    pub(super) subject: Subject,
    pub(super) list: List,
    pub(super) index: usize,
    pub(super) command: Command,
}

impl Call {
    /// Of the arguments behind `exec`.
    pub(super) fn parse(arguments: &[OsString]) -> Result<Self, Failed> {
        let [unit, list, index] = arguments else { return Err(Failed::usage()) };
        let text =
            |argument: &OsString| argument.to_str().map(str::to_owned).ok_or_else(Failed::usage);
        let (unit, list, index) = (text(unit)?, text(list)?, text(index)?);
        let list = List::ALL.into_iter().find(|it| it.name() == list).ok_or_else(Failed::usage)?;
        let index: usize = index.parse().map_err(|_| Failed::usage())?;
        let subject = Subject::find(&unit)?;
        let command = list.of(&subject.unit).get(index).map(wire::copy);
        let command = command.ok_or(Error::NoCommand(unit))?;
        Ok(Self { subject, list, index, command })
    }
}

impl Call {
    /// Whether no other command of this run of the unit came before.
    pub(super) fn is_first(&self) -> bool {
        let order = [List::Condition, List::StartPre, List::Start];
        let first = order.into_iter().find(|list| !list.of(&self.subject.unit).is_empty());
        first == Some(self.list) && self.index == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::{INSTANCE, Service};

    fn sample() -> Manifest {
        let command = |text: &str| Command { program: text.into(), ..Command::default() };
        let service = |text: &str| Service { start: vec![command(text)], ..Service::default() };
        let unit = |owner, service| Unit {
            name: "a@.service".into(),
            owner,
            kind: UnitKind::Service(service),
            ..Unit::default()
        };
        let of_system = service(&format!("/bin/{INSTANCE}"));
        Manifest {
            users: vec![Lingering { name: "joe".into(), ..Lingering::default() }],
            units: vec![unit(None, of_system), unit(Some(0), service("/bin/b"))],
            ..Manifest::default()
        }
    }

    #[test]
    fn a_unit_is_found_by_owner_and_name() {
        let manifest = sample();
        for unit in &manifest.units {
            let argument = unit_argument(&manifest, unit);
            let found = Subject::of(manifest.clone(), &argument, None).unwrap();
            assert_eq!(&found.unit, unit, "{argument}");
        }
        for argument in ["b.service", "joe/b.service", "jim/a@.service", "/a@.service", ""] {
            assert!(Subject::of(manifest.clone(), argument, None).is_err(), "{argument}");
        }
    }

    #[test]
    fn the_first_command_of_a_run() {
        let mut subject = Subject::of(sample(), "a@.service", None).unwrap();
        let command = Command::default();
        if let UnitKind::Service(service) = &mut subject.unit.kind {
            service.start_pre = vec![command.clone(); 2];
        }
        let mut call = Call { subject, list: List::StartPre, index: 0, command };
        assert!(call.is_first());
        call.index = 1;
        assert!(!call.is_first());
        (call.list, call.index) = (List::Start, 0);
        assert!(!call.is_first());
        if let UnitKind::Service(service) = &mut call.subject.unit.kind {
            service.start_pre.clear();
        }
        assert!(call.is_first());
    }

    #[test]
    fn an_instance_has_its_name_filled_in() {
        let found = Subject::of(sample(), "a@.service", Some("1-/x")).unwrap();
        assert_eq!(List::Start.of(&found.unit)[0].program, "/bin/1-/x");
        assert_eq!(found.slot(), r"a@.service:1-\x2fx");
        let found = Subject::of(sample(), "joe/a@.service", None).unwrap();
        assert_eq!(found.slot(), "joe:a@.service");
    }
}
