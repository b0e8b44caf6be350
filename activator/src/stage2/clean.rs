//! `activator stage2 clean UNIT stop|restart`: removes what a unit's processes had and what must
//! not outlive them, after its last process is gone. `restart` keeps what the next run of the
//! service is to find (`RuntimeDirectoryPreserve=`).

use super::call::Subject;
use super::error::Failed;
use super::identity::AsOwner;
use super::{container, credentials, directories, say, shared, sys};
use crate::manifest::{Unit, UnitKind};
use std::ffi::OsString;
use std::io;

/// What comes after.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Nothing: the unit has stopped.
    Stop,
    /// The service starts again.
    Restart,
}

impl Next {
    /// Its name in a call.
    pub fn name(self) -> &'static str {
        match self {
            Self::Stop => "stop",
            Self::Restart => "restart",
        }
    }
}

/// Whether there is anything to remove after a unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// Nothing: no child is needed.
    Never,
    /// If a signal ended its main process: a crun that was killed leaves its record.
    Killed,
    /// Each time.
    Always,
}

/// See [`Need`].
pub fn need(unit: &Unit) -> Need {
    if pid_file(&unit.kind).is_some() {
        return Need::Always;
    }
    let (execution, container) = match &unit.kind {
        UnitKind::Service(service) => (&service.execution, service.container.is_some()),
        UnitKind::Socket(socket) => (&socket.execution, false),
        UnitKind::Target => return Need::Never,
    };
    let leaves = execution.stage2.as_deref().is_some_and(|stage2| {
        !stage2.directories.is_empty()
            || !stage2.credentials.is_empty()
            || stage2.sandbox.shares()
            || stage2.sandbox.remove_ipc
    });
    match (leaves, container) {
        (true, _) => Need::Always,
        (false, true) => Need::Killed,
        (false, false) => Need::Never,
    }
}

fn pid_file(kind: &UnitKind) -> Option<&str> {
    match kind {
        UnitKind::Service(service) => service.pid_file.as_deref(),
        _ => None,
    }
}

/// Goes on over what cannot be removed, with a line for each.
pub(super) fn run(arguments: &[OsString]) -> Result<(), Failed> {
    let [unit, next] = arguments else { return Err(Failed::usage()) };
    let next = [Next::Stop, Next::Restart].into_iter().find(|it| next == it.name());
    let (Some(unit), Some(next)) = (unit.to_str(), next) else { return Err(Failed::usage()) };
    let subject = Subject::find(unit)?;
    let mut troubles = vec![];
    if let Some(path) = pid_file(&subject.unit.kind) {
        // A stale one must not be taken for the next run's.
        let _as_owner = AsOwner::of(&subject);
        troubles.extend(sys::not_found_is_fine(std::fs::remove_file(path)).err());
    }
    if let UnitKind::Service(service) = &subject.unit.kind
        && let (Some(container), Some(start)) = (&service.container, service.start.first())
    {
        container::forget(&container.id, start.program.as_ref())?;
    }
    clean_up_stage2(&subject, next, &mut troubles);
    troubles.iter().for_each(|error| say(&format!("cannot clean up: {error}")));
    Ok(())
}

/// What stage 2 has made.
fn clean_up_stage2(subject: &Subject, next: Next, troubles: &mut Vec<io::Error>) {
    let Some(execution) = subject.execution() else { return };
    let Some(stage2) = execution.stage2.as_deref() else { return };
    let preserve = match next {
        Next::Stop => stage2.runtime_preserve == Some(true),
        Next::Restart => stage2.runtime_preserve.is_some(),
    };
    if !preserve {
        let places = directories::of(subject, stage2);
        troubles.extend(directories::remove_runtime(subject, &places));
    }
    troubles.extend(credentials::remove(subject).err());
    troubles.extend(shared::leave(subject).err());
    if next == Next::Stop
        && let Some(user) = super::identity::of(subject, execution, stage2)
        && stage2.sandbox.remove_ipc
        && user.uid != 0
    {
        troubles.extend(super::ipc::remove(user.uid));
    }
}
