//! The users of appliance.toml against the image's accounts and the folders of their units.

use super::Facts;
use super::keys::Keys;
use super::value;
use crate::config::{self, Part, USERS, place};
use crate::finding::{Finding, Severity, Source, Span};
use activator::manifest::{Lingering, User};
use std::sync::Arc;

/// A user as the manifest has him.
pub(super) fn lingering(facts: &Facts<'_>, user: &config::User) -> Lingering {
    let mut groups = facts.accounts.groups_of(&user.name);
    groups.extend(user.groups.iter().filter_map(|group| facts.accounts.group(group)));
    groups.sort_unstable();
    groups.dedup();
    Lingering {
        name: user.name.clone(),
        ids: User { uid: user.uid, gid: user.gid(), groups },
        home: user.home(),
        runtime_directory: user.runtime_directory(),
    }
}

/// Who a user's unit runs as, whatever it says; an error if it says somebody else.
pub(super) fn refuse_others(keys: &mut Keys<'_>, section: &str) {
    let Some(user) = keys.facts.manager.user() else { return };
    let unit = keys.unit;
    for key in ["User", "Group", "SupplementaryGroups", "DynamicUser"] {
        let Some(line) = unit.all(section, key).next_back() else { continue };
        let value = line.value.text.as_str();
        let same = match key {
            "User" => value == user.name || value == user.uid.to_string(),
            "Group" => keys.facts.accounts.group(value) == Some(user.gid()),
            "DynamicUser" => value::boolean(value) == Ok(false),
            _ => false,
        };
        if !same && !value.is_empty() {
            let message = format!("`{key}=` cannot be had in a unit of a user");
            keys.findings.push(
                Finding::error(line.key_span.clone(), message)
                    .label(format!("it runs as `{}`", user.name))
                    .help("take the line out, or make it a unit of the system"),
            );
        }
    }
}

/// Folders below `users/` that belong to nobody, and groups that the image has not.
pub(super) fn check(facts: &Facts<'_>, findings: &mut Vec<Finding>) {
    let input = facts.input;
    for (index, user) in input.config.users.iter().enumerate() {
        for group in user.groups.iter().filter(|group| facts.accounts.group(group).is_none()) {
            let message =
                format!("user `{}` is in the group `{group}`, which the image has not", user.name);
            findings.push(Finding {
                severity: Severity::Error,
                span: input.config_source.map(|source| {
                    place(source, &["user", &index.to_string(), "groups", group], Part::Value)
                }),
                message,
                label: "unknown group".into(),
                help: Some("write its number, or take it out".into()),
            });
        }
    }
    let Ok(folders) = std::fs::read_dir(input.folder.join(USERS)) else { return };
    let mut names: Vec<String> =
        folders.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect();
    names.sort();
    for name in names.iter().filter(|name| !name.starts_with('.')) {
        if input.config.users.iter().any(|user| user.name == *name) {
            continue;
        }
        let path = input.folder.join(USERS).join(name).display().to_string();
        let source = Arc::new(Source { path, text: String::new() });
        let message = format!("there is no user `{name}`");
        findings.push(
            Finding::warning(Span::file(&source), message).label("these units are left out").help(
                format!("add `[[user]]` with `name = \"{name}\"` and a `uid` to {}", config::FILE),
            ),
        );
    }
}
