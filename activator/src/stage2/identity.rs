//! Whose process it becomes: `User=`, `Group=`, `SupplementaryGroups=`, `DynamicUser=`, or the
//! lingering user whose unit it is.

use super::call::Subject;
use super::environment::Environment;
use super::error::{At, Failed, Stage};
use super::sys;
use crate::manifest::{Execution, Stage2, UnitKind, User};
use rustix::process::{Gid, Uid};
use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};

/// The ids that a unit's processes get; None is root with what PID 1 has.
pub(super) fn of(subject: &Subject, execution: &Execution, stage2: &Stage2) -> Option<User> {
    // crun needs root to make the user namespace of a user's container.
    let container = matches!(&subject.unit.kind, UnitKind::Service(it) if it.container.is_some());
    let owner = subject.owner().filter(|_| !container);
    let named = execution.user.clone().or_else(|| Some(owner?.ids.clone()));
    match &stage2.dynamic_user {
        Some(dynamic) => {
            let own = User { gid: dynamic.uid, ..User::default() };
            // `Group=` may name one of the image's.
            let named = named.unwrap_or(own);
            Some(User { uid: dynamic.uid, ..named })
        }
        None => named,
    }
}

/// What nss-systemd would tell of a dynamic user.
pub(super) fn describe(stage2: &Stage2, environment: &mut Environment) {
    let Some(dynamic) = &stage2.dynamic_user else { return };
    for (name, value) in [
        ("USER", dynamic.name.as_str()),
        ("LOGNAME", &dynamic.name),
        ("HOME", "/"),
        ("SHELL", "/usr/sbin/nologin"),
    ] {
        environment.set_default(name, value);
    }
}

/// While it lives, files are opened, made and removed with the rights of a lingering user: the
/// paths lie where that user may have put links to anywhere.
pub(super) struct AsOwner(bool);

impl AsOwner {
    pub(super) fn of(subject: &Subject) -> Self {
        let owner = subject.owner();
        if let Some(owner) = owner {
            sys::act_as(owner.ids.uid, owner.ids.gid);
        }
        Self(owner.is_some())
    }
}

impl Drop for AsOwner {
    fn drop(&mut self) {
        if self.0 {
            sys::act_as(0, 0);
        }
    }
}

/// Takes the groups. There is one thread, so the calls for a thread are those for a process.
pub(super) fn take_groups(user: &User) -> Result<(), Failed> {
    let groups: Vec<Gid> = user.groups.iter().copied().map(Gid::from_raw).collect();
    set_thread_groups(&groups).at(Stage::Group, || format!("take the groups {:?}", user.groups))?;
    let gid = Gid::from_raw(user.gid);
    set_thread_res_gid(gid, gid, gid).at(Stage::Group, || format!("take the group {}", user.gid))
}

/// Becomes the user.
pub(super) fn take_user(user: &User) -> Result<(), Failed> {
    let uid = Uid::from_raw(user.uid);
    set_thread_res_uid(uid, uid, uid).at(Stage::User, || format!("become user {}", user.uid))
}
