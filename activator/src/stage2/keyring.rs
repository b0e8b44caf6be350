//! `KeyringMode=`: a session keyring of the service's own, with its user's keyring in it or not.
//!
//! A user has a keyring in each user namespace. As under systemd it is the machine's that is
//! shared, so this comes before `PrivateUsers=`.

use super::error::{At, Failed, Stage};
use super::sys;
use crate::manifest::{Sandbox, User};
use rustix::io::Errno;
use rustix::process::{Gid, Uid, getegid, geteuid, getgid, getuid};
use rustix::thread::{set_thread_res_gid, set_thread_res_uid};

/// Makes it; it belongs to the user.
pub(super) fn join(sandbox: &Sandbox, user: Option<&User>) -> Result<(), Failed> {
    if !sandbox.private_keyring {
        return Ok(());
    }
    let user = user.map(|user| (Uid::from_raw(user.uid), Gid::from_raw(user.gid)));
    let before = (getuid(), getgid());
    // The kernel goes by the real ids.
    if let Some(ids) = user {
        take_real(ids).at(Stage::Keyring, || "act as the user".into())?;
    }
    let joined = match sys::join_new_session_keyring() {
        Ok(()) if sandbox.shared_keyring => sys::link_user_keyring()
            .at(Stage::Keyring, || "link the user's keyring to that of the session".into()),
        // A kernel without keys, or a container's filter in the way: systemd goes on, too.
        Ok(()) | Err(Errno::NOSYS | Errno::PERM | Errno::ACCESS | Errno::DQUOT) => Ok(()),
        failed => failed.at(Stage::Keyring, || "make a session keyring".into()),
    };
    if user.is_some() {
        take_real(before).at(Stage::Keyring, || "act as before".into())?;
    }
    joined
}

/// Changes the real ids alone, so that all rights stay.
fn take_real((uid, gid): (Uid, Gid)) -> Result<(), Errno> {
    let (euid, egid) = (geteuid(), getegid());
    set_thread_res_gid(gid, egid, egid)?;
    set_thread_res_uid(uid, euid, euid)
}
