//! For which of systemd's managers units are read: the system's, or that of a user.

use super::Input;
use super::accounts::{Accounts, User};
use super::specifier::Directories;
use crate::config;
use crate::container::Rootless;
use activator::manifest::Owner;

/// Whose units are read.
#[derive(Debug, Clone)]
pub(crate) enum Manager {
    System,
    /// Index into the manifest's users, and the user.
    User(u16, config::User),
}

impl Manager {
    /// Of the units, in the manifest.
    pub(crate) fn owner(&self) -> Owner {
        match self {
            Self::System => None,
            Self::User(index, _) => Some(*index),
        }
    }

    /// The user; None for the system.
    pub(crate) fn user(&self) -> Option<&config::User> {
        match self {
            Self::System => None,
            Self::User(_, user) => Some(user),
        }
    }

    /// Whose ids the processes of containers have.
    pub(crate) fn rootless(&self, input: &Input<'_>) -> Option<Rootless> {
        let user = self.user()?;
        let index = input.config.users.iter().position(|it| it.name == user.name)?;
        Some(Rootless::of(user, index))
    }

    /// Whose processes the units are, unless they say otherwise.
    pub(crate) fn account(&self, accounts: &Accounts) -> User {
        let known = match self {
            Self::System => accounts.user("root"),
            Self::User(_, user) => accounts.user(&user.name),
        };
        known.unwrap_or_else(|| User {
            name: "root".into(),
            uid: 0,
            gid: 0,
            home: "/root".into(),
            shell: "/bin/sh".into(),
        })
    }

    /// What `%t` and its kin are, systemd.unit(5).
    pub(crate) fn directories(&self) -> Directories {
        match self {
            Self::System => Directories {
                runtime: "/run".into(),
                state: "/var/lib".into(),
                cache: "/var/cache".into(),
                logs: "/var/log".into(),
                configuration: "/etc".into(),
                shared: "/usr/share".into(),
            },
            Self::User(_, user) => {
                let home = user.home();
                Directories {
                    runtime: user.runtime_directory(),
                    state: format!("{home}/.local/state"),
                    cache: format!("{home}/.cache"),
                    logs: format!("{home}/.local/state/log"),
                    configuration: format!("{home}/.config"),
                    shared: format!("{home}/.local/share"),
                }
            }
        }
    }

    /// `ConditionUser=`
    pub(crate) fn is_user(&self, text: &str) -> bool {
        let (name, uid) = match self {
            Self::System => ("root", 0),
            Self::User(_, user) => (user.name.as_str(), user.uid),
        };
        // Numbers below 1000 are the system's, login.defs(5).
        text == name || text == uid.to_string() || text == "@system" && uid < 1000
    }

    /// `ConditionGroup=`
    pub(crate) fn is_in_group(&self, accounts: &Accounts, text: &str) -> bool {
        let account = self.account(accounts);
        accounts.group(text).is_some_and(|gid| {
            gid == account.gid || accounts.groups_of(&account.name).contains(&gid)
        })
    }
}
