//! The environment of a unit's processes.
//!
//! The host knows all of it, but for what files in the guest, PID 1's own environment or the
//! guest's state say; then it is *open*, and command lines keep their variables.

use super::account::Account;
use crate::finding::Finding;
use crate::units::keys::Keys;
use crate::units::value::{self, Expected};
use crate::units::variables;
use activator::manifest::EnvironmentFile;
use std::collections::BTreeMap;

/// systemd's default PATH of system services.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin";

/// All that the keys say about variables.
#[derive(Debug, Default)]
pub(crate) struct Environment {
    /// What the host knows, by name.
    pub(crate) variables: BTreeMap<String, String>,
    /// `EnvironmentFile=`
    pub(crate) files: Vec<EnvironmentFile>,
    /// `PassEnvironment=`
    pub(crate) passed: Vec<String>,
    /// `UnsetEnvironment=` of what only the guest sets.
    pub(crate) unset_later: Vec<String>,
    /// Where programs without a path are: `ExecSearchPath=`, or what PATH is by default.
    pub(crate) search_path: Vec<String>,
}

impl Environment {
    /// Whether the guest may give any variable another value.
    pub(crate) fn is_open(&self) -> bool {
        !self.files.is_empty() || !self.passed.is_empty()
    }

    /// `NAME=value`, sorted by name.
    pub(crate) fn lines(&self) -> Vec<String> {
        self.variables.iter().map(|(name, value)| format!("{name}={value}")).collect()
    }
}

/// Whether a shell is there to keep people out.
fn is_no_login(shell: &str) -> bool {
    let name = shell.rsplit('/').next().unwrap_or_default();
    ["", "nologin", "false", "true"].contains(&name)
}

/// Reads it; `login` is who `User=` names.
pub(super) fn read(keys: &mut Keys<'_>, section: &str, login: Option<&Account>) -> Environment {
    let search_path = search_path(keys, section);
    let mut variables = BTreeMap::from([("PATH".to_owned(), search_path.join(":"))]);
    if let Some(account) = login {
        variables.insert("USER".into(), account.name.clone());
        if keys.setting(section, "SetLoginEnvironment", value::boolean) != Some(false) {
            variables.insert("LOGNAME".into(), account.name.clone());
            // As get_user_creds_clean of systemd has it: neither is better than one of no use.
            if account.home != "/" {
                variables.insert("HOME".into(), account.home.clone());
            }
            if !is_no_login(&account.shell) {
                variables.insert("SHELL".into(), account.shell.clone());
            }
        }
    }
    if let Some(user) = keys.facts.manager.user() {
        variables.insert("XDG_RUNTIME_DIR".into(), user.runtime_directory());
    }
    for (line, word) in keys.list_words(section, "Environment") {
        match word.text.split_once('=').filter(|(name, _)| variables::is_name(name)) {
            Some((name, value)) => {
                variables.insert(name.to_owned(), value.to_owned());
            }
            None => keys.findings.push(
                Finding::error(
                    line.value.span_of(word.range),
                    "`Environment=` has a word that sets no variable",
                )
                .label("expected `NAME=value`")
                .help("put the whole assignment in quotes if the value has blanks"),
            ),
        }
    }
    let mut environment = Environment {
        variables,
        files: files(keys, section),
        passed: passed(keys, section),
        unset_later: vec![],
        search_path,
    };
    unset(keys, section, &mut environment);
    environment
}

/// `ExecSearchPath=`: lists of folders with colons between them.
fn search_path(keys: &mut Keys<'_>, section: &str) -> Vec<String> {
    let mut folders = vec![];
    for line in keys.list(section, "ExecSearchPath") {
        let Some(text) = keys.expand(line) else { continue };
        for part in text.text.split(':') {
            match value::path(part) {
                Ok(folder) => folders.push(folder),
                Err(expected) => keys.bad(line, &expected),
            }
        }
    }
    match folders.is_empty() {
        true => PATH.split(':').map(str::to_owned).collect(),
        false => folders,
    }
}

/// `EnvironmentFile=`: one path a line, which may have wildcards and a `-`.
fn files(keys: &mut Keys<'_>, section: &str) -> Vec<EnvironmentFile> {
    let mut files = vec![];
    for line in keys.list(section, "EnvironmentFile") {
        let Some(text) = keys.expand(line) else { continue };
        let (optional, path) = match text.text.strip_prefix('-') {
            Some(path) => (true, path),
            None => (false, text.text.as_str()),
        };
        match value::path(path) {
            Ok(path) => files.push(EnvironmentFile { path, optional }),
            Err(expected) => keys.bad(line, &expected),
        }
    }
    files
}

fn passed(keys: &mut Keys<'_>, section: &str) -> Vec<String> {
    let mut names = vec![];
    for (line, word) in keys.list_words(section, "PassEnvironment") {
        match variables::is_name(&word.text) {
            true => names.push(word.text),
            false => keys.bad_word(line, &word, &Expected::Other("names of variables")),
        }
    }
    names
}

/// `UnsetEnvironment=` is applied last: here if nothing comes later, else in the guest.
fn unset(keys: &mut Keys<'_>, section: &str, environment: &mut Environment) {
    for (_, word) in keys.list_words(section, "UnsetEnvironment") {
        let (name, value) = match word.text.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (word.text.as_str(), None),
        };
        let set = environment.variables.get(name);
        if set.is_some_and(|set| value.is_none_or(|value| set == value)) {
            environment.variables.remove(name);
        }
        if environment.is_open() || variables::is_of_the_guest(name) {
            environment.unset_later.push(word.text);
        }
    }
}
