//! Whose process it becomes: `User=`, `Group=`, `SupplementaryGroups=`.

use super::call::Subject;
use super::error::{At, Error, Stage};
use crate::manifest::{Execution, User};
use rustix::process::{Gid, Uid};
use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};

/// The ids that a unit's processes get; None is root with what PID 1 has.
pub(super) fn of<'a>(subject: &'a Subject, execution: &'a Execution) -> Option<&'a User> {
    let owner = subject.unit.owner.and_then(|it| subject.manifest.users.get(usize::from(it)));
    execution.user.as_ref().or(owner.map(|owner| &owner.ids))
}

/// Takes groups and user. There is one thread, so the calls for a thread are those for a process.
pub(super) fn take(user: &User) -> Result<(), Error> {
    take_groups(user)?;
    take_user(user)
}

fn take_groups(user: &User) -> Result<(), Error> {
    let groups: Vec<Gid> = user.groups.iter().copied().map(Gid::from_raw).collect();
    set_thread_groups(&groups).at(Stage::Group, || format!("take the groups {:?}", user.groups))?;
    let gid = Gid::from_raw(user.gid);
    set_thread_res_gid(gid, gid, gid).at(Stage::Group, || format!("take the group {}", user.gid))
}

fn take_user(user: &User) -> Result<(), Error> {
    let uid = Uid::from_raw(user.uid);
    set_thread_res_uid(uid, uid, uid).at(Stage::User, || format!("become user {}", user.uid))
}
