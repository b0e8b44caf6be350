//! How processes run, systemd.exec(5): who they are, what they see, their limits, and what is
//! taken from them. `[Socket]` has these keys too, for its own commands.
//!
//! What PID 1 cannot do between clone and exec goes into [`Stage2`]; a unit without any of it has
//! none.

mod account;
mod capabilities;
mod credentials;
mod directories;
pub(crate) mod dynamic_user;
mod environment;
mod filters;
mod limits;
mod mounts;
mod restrictions;
mod sandbox;
mod scheduling;
mod streams;
mod system_calls;

use super::keys::Keys;
use super::value;
use activator::manifest::{Execution, INSTANCE, Stage2};
pub(crate) use environment::Environment;

/// What the keys say, and what the command lines need of it.
pub(crate) struct Exec {
    pub(crate) environment: Environment,
    pub(crate) execution: Execution,
}

impl Exec {
    /// Where programs are looked up: below `RootDirectory=`, which is empty without one.
    pub(crate) fn root(&self) -> &str {
        let stage2 = self.execution.stage2.as_deref();
        stage2.and_then(|stage2| stage2.sandbox.root_directory.as_deref()).unwrap_or_default()
    }
}

/// Reads all keys of systemd.exec(5) in a section.
pub(crate) fn read(keys: &mut Keys<'_>, section: &'static str) -> Exec {
    let account = account::read(keys, section);
    let home =
        account.as_ref().map_or(keys.specifiers.user.home.clone(), |account| account.home.clone());
    let login = account.as_ref().filter(|account| account.named);
    let environment = environment::read(keys, section, login);
    let (streams, terminal, stdin_data) = streams::read(keys, section);
    let (working_directory, working_directory_optional) = working_directory(keys, section, &home);
    let mut stage2 = Stage2 {
        environment_files: environment.files.clone(),
        pass_environment: environment.passed.clone(),
        unset_environment: environment.unset_later.clone(),
        dynamic_user: account.as_ref().and_then(|account| account.dynamic.clone()),
        directories: directories::read(keys, section),
        runtime_preserve: directories::preserve(keys, section),
        terminal,
        stdin_data,
        credentials: credentials::read(keys, section),
        bounding: capabilities::bounding(keys, section),
        ambient: capabilities::ambient(keys, section),
        secure_bits: capabilities::secure_bits(keys, section),
        scheduling: scheduling::read(keys, section),
        sandbox: sandbox::read(keys, section),
    };
    let mut no_new_privileges = keys.flag(section, "NoNewPrivileges");
    if keys.flag(section, "DynamicUser") {
        dynamic_user::confine(&mut stage2.sandbox);
        no_new_privileges = true;
    }
    let mut execution = Execution {
        environment: environment.lines(),
        user: account.map(|account| account.ids),
        umask: keys.setting(section, "UMask", value::mode).unwrap_or(0o022),
        working_directory,
        working_directory_optional,
        stdin: streams.stdin,
        stdout: streams.stdout,
        stderr: streams.stderr,
        limits: limits::read(keys, section),
        oom_score_adjust: keys
            .setting(section, "OOMScoreAdjust", |text| value::number(text, -1000, 1000))
            .map(|score| score as i32),
        nice: keys
            .setting(section, "Nice", |text| value::number(text, -20, 19))
            .map(|nice| nice as i32),
        no_new_privileges,
        ignore_sigpipe: keys.setting(section, "IgnoreSIGPIPE", value::boolean).unwrap_or(true),
        stage2: None,
    };
    if stage2 != Stage2::default() {
        execution.stage2 = Some(Box::new(stage2));
    }
    Exec { environment, execution }
}

/// Gives a unit its stage 2, if it has none yet.
pub(crate) fn need_stage2(execution: &mut Execution) {
    execution.stage2.get_or_insert_default();
}

/// Whether the name of an instance that only the guest knows stands in a text of the unit.
/// [`INSTANCE`] is a prefix of no other text, and of the unescaped name's placeholder.
pub(crate) fn has_instance(unit: &impl serde::Serialize) -> bool {
    let placeholder = INSTANCE.trim_end_matches('@');
    serde_json::to_string(unit).is_ok_and(|text| text.contains(placeholder))
}

/// `WorkingDirectory=`, and whether it may be missing.
fn working_directory(keys: &mut Keys<'_>, section: &str, home: &str) -> (String, bool) {
    let Some(mut text) = keys.text(section, "WorkingDirectory") else {
        let users = keys.facts.manager.user().is_some();
        return (if users { home.to_owned() } else { "/".into() }, false);
    };
    let optional = text.text.starts_with('-');
    if optional {
        text.text.remove(0);
    }
    if text.text == "~" {
        return (home.to_owned(), optional);
    }
    (keys.path(&text).unwrap_or_else(|| "/".into()), optional)
}
