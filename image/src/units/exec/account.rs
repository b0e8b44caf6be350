//! `User=`, `Group=`, `SupplementaryGroups=` and `DynamicUser=`.

use super::dynamic_user;
use crate::units::keys::{Keys, Text};
use crate::units::users;
use crate::units::value::Expected;
use activator::manifest::{DynamicUser, User};

/// Who runs the commands, with what the environment needs of them.
pub(super) struct Account {
    pub(super) ids: User,
    pub(super) name: String,
    pub(super) home: String,
    pub(super) shell: String,
    /// By `User=` or `DynamicUser=`: the environment names them.
    pub(super) named: bool,
    pub(super) dynamic: Option<DynamicUser>,
}

/// None is root, with no groups of its own. Of a user's manager it is always the user.
pub(super) fn read(keys: &mut Keys<'_>, section: &str) -> Option<Account> {
    if let Some(user) = keys.facts.manager.user() {
        users::refuse_others(keys, section);
        return Some(Account {
            ids: users::lingering(keys.facts, user).ids,
            name: user.name.clone(),
            home: user.home(),
            shell: user.shell().to_owned(),
            named: true,
            dynamic: None,
        });
    }
    let name = keys.text(section, "User");
    let dynamic = keys.flag(section, "DynamicUser");
    let known = name.as_ref().map(|text| keys.facts.accounts.user(&text.text));
    let user = match (dynamic, &name, known) {
        // An account of that name is taken, as in systemd.
        (true, Some(_), Some(Some(user))) => Some(user),
        (true, ..) => return dynamic_account(keys, section, name),
        (false, Some(text), _) => keys.user(text),
        (false, None, _) => None,
    };
    let group = keys.text(section, "Group").and_then(|text| keys.group(&text));
    let mut groups = supplementary(keys, section);
    if user.is_none() && group.is_none() && groups.is_empty() {
        return None;
    }
    let named = user.is_some();
    let accounts = &keys.facts.accounts;
    let user = user.or_else(|| accounts.user("root"))?;
    groups.extend(accounts.groups_of(&user.name));
    // initgroups(3) of a user has the primary group among the others.
    groups.extend(named.then_some(group.unwrap_or(user.gid)));
    sort(&mut groups);
    let ids = User { uid: user.uid, gid: group.unwrap_or(user.gid), groups };
    Some(Account { ids, name: user.name, home: user.home, shell: user.shell, named, dynamic: None })
}

fn dynamic_account(keys: &mut Keys<'_>, section: &str, name: Option<Text<'_>>) -> Option<Account> {
    let name = match name {
        Some(text) if dynamic_user::is_name(&text.text) => text.text,
        Some(text) => {
            let expected = Expected::Other("a login name of letters, digits, `_` and `-`");
            keys.bad(text.assignment, &expected);
            return None;
        }
        None => dynamic_user::name_of(&keys.unit.name),
    };
    let group = match keys.text(section, "Group") {
        // The group that comes with the user.
        Some(text) if text.text == name => None,
        Some(text) => Some(keys.group(&text)?),
        None => None,
    };
    let mut groups = supplementary(keys, section);
    sort(&mut groups);
    let uid = dynamic_user::PENDING;
    Some(Account {
        ids: User { uid, gid: group.unwrap_or(uid), groups },
        name: name.clone(),
        home: "/".into(),
        shell: "/usr/sbin/nologin".into(),
        named: true,
        dynamic: Some(DynamicUser { name, uid }),
    })
}

fn supplementary(keys: &mut Keys<'_>, section: &str) -> Vec<u32> {
    let mut groups = vec![];
    for (line, word) in keys.list_words(section, "SupplementaryGroups") {
        groups.extend(keys.group(&Text { text: word.text, assignment: line }));
    }
    groups
}

fn sort(groups: &mut Vec<u32>) {
    groups.sort_unstable();
    groups.dedup();
}
