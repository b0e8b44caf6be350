//! The order in which stage 2 goes about it: first what needs the machine as it is, then what
//! takes it away, last what takes away the right to do any of that.
//!
//! A command with the prefix `+` keeps root and the whole machine, but for the unit's network and IPC
//! (as in systemd); with `!` it keeps root, but no capability that the unit drops.

use super::call::{Call, EXEC_VARIABLE, List, Subject};
use super::capabilities::Capabilities;
use super::container::{self, Places};
use super::directories::{self, Place};
use super::environment::Environment;
use super::error::{At, Error, Failed, Stage};
use super::mounts::View;
use super::seccomp::Filters;
use super::shared::Shared;
use super::streams::Streams;
use super::sys::Standard;
use super::{credentials, filters, identity, keyring, namespaces, prepare, say, scheduling, sys};
use crate::child;
use crate::manifest::{Command, Execution, Sandbox, Service, Stage2, UnitKind, User};
use crate::wire;
use rustix::fs::Mode;
use rustix::thread::CapabilitySet;
use std::convert::Infallible;
use std::ffi::{CString, OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;

/// Returns only what went wrong.
pub(super) fn run(call: &Call) -> Result<Infallible, Failed> {
    let Call { subject, command, .. } = call;
    let execution = subject.execution().ok_or_else(Failed::usage)?;
    let witness = Witness::take();
    let nothing = Stage2::default();
    let stage2 = execution.stage2.as_deref().unwrap_or(&nothing);
    let user = identity::of(subject, execution, stage2);
    // Modes are as given, until the umask is set.
    rustix::process::umask(Mode::empty());

    let streams = Streams::new(subject, execution, stage2);
    // Of the cgroup, and so of commands that keep everything else, and of stage 2 itself: from the
    // second command on they are there anyway.
    filters::apply(subject, &stage2.sandbox, &streams.devices())?;
    streams.arrange()?;
    scheduling::apply(&stage2.scheduling)?;
    let mut environment = Environment::inherited();
    if subject.instance.is_some() {
        environment.fill(&execution.environment);
    }
    identity::describe(stage2, &mut environment);
    streams.term().into_iter().for_each(|term| environment.set_default("TERM", term));
    let places = directories::of(subject, stage2);
    directories::make(subject, &places, user.as_ref(), &mut environment)?;
    if call.is_first() {
        // Those of a run before, which may not have been cleaned up after.
        credentials::remove(subject).at(Stage::Credentials, || "remove old credentials".into())?;
    }
    let credentials = credentials::make(subject, &stage2.credentials, user.as_ref())?;
    if let Some(path) = &credentials {
        environment.set("CREDENTIALS_DIRECTORY", &path.to_string_lossy());
    }
    environment.pass(&stage2.pass_environment);
    {
        let _as_owner = identity::AsOwner::of(subject);
        environment.read_files(&stage2.environment_files)?;
    }
    environment.unset(&stage2.unset_environment);
    let arguments = arguments(command, &environment);
    prepare_container(call, &environment)?;

    let stderr = streams.last()?;
    if command.privileged {
        let shared = Shared::take(subject, &stage2.sandbox)?;
        namespaces::enter_shared(&stage2.sandbox, shared.as_ref())?;
    } else {
        keyring::join(&stage2.sandbox, user.as_ref())?;
        confine(subject, stage2, &places, &environment, credentials)?;
    }
    let ready = Ready::new(command, &arguments, &environment)?;
    rustix::process::umask(Mode::from_raw_mode(execution.umask));
    limits(execution)?;
    let filters = match command.privileged {
        true => None,
        false => Some(Filters::of(&without_what_the_kernel_does(&stage2.sandbox))),
    };
    let user = user.filter(|_| !keeps_root(command));
    become_user(stage2, user.as_ref(), command)?;
    change_directory(execution)?;
    if !command.privileged {
        give_up(execution, filters.as_ref())?;
    }
    ready.execute(execution, filters.as_ref(), stderr, &witness)
}

/// Whether it is a health check of a container that is not there: `crun exec` would fail, which
/// says nothing of the container.
pub(super) fn has_nobody_to_ask(call: &Call) -> bool {
    let UnitKind::Service(Service { container: Some(container), .. }) = &call.subject.unit.kind
    else {
        return false;
    };
    matches!(call.list, List::Health | List::HealthStartup)
        && !prepare::is_up(&Places::default().state, &container.id)
}

/// Who waits for the program itself (`Type=exec`): see PID 1's `execs`.
struct Witness(Option<OwnedFd>);

impl Witness {
    /// Close-on-exec from now on.
    fn take() -> Self {
        let number = std::env::var(EXEC_VARIABLE).ok().and_then(|text| text.parse().ok());
        Self(number.and_then(sys::take_fd))
    }

    /// 1: it will be executed now. 0: it was not.
    fn tell(&self, word: u8) {
        if let Some(fd) = &self.0 {
            // Nobody waits any more, should there be nobody to read it.
            let _ = rustix::io::write(fd, &[word]);
        }
    }
}

fn keeps_root(command: &Command) -> bool {
    command.privileged || command.privileged_user
}

/// Namespaces and mounts.
fn confine(
    subject: &Subject,
    stage2: &Stage2,
    places: &[Place<'_>],
    environment: &Environment,
    credentials: Option<PathBuf>,
) -> Result<(), Failed> {
    let sandbox = &stage2.sandbox;
    let shared = Shared::take(subject, sandbox)?;
    namespaces::enter_shared(sandbox, shared.as_ref())?;
    namespaces::protect_hostname(sandbox)?;
    let tmp = match &shared {
        Some(shared) if sandbox.private_tmp => Some(shared.make_tmp()?),
        _ => None,
    };
    // Others may wait for it.
    drop(shared);
    let mut extra: Vec<PathBuf> = credentials.into_iter().collect();
    if sandbox.root_directory.is_some() {
        let notify = environment.value("NOTIFY_SOCKET").filter(|path| path.starts_with('/'));
        extra.extend(notify.map(PathBuf::from));
    }
    match View::of(stage2, places, tmp.as_deref(), &extra) {
        Some(view) => view.enter(),
        None => Ok(()),
    }
}

fn become_user(stage2: &Stage2, user: Option<&User>, command: &Command) -> Result<(), Failed> {
    if let Some(user) = user {
        identity::take_groups(user)?;
    }
    if stage2.sandbox.namespaces.users && !command.privileged {
        namespaces::enter_users(&stage2.sandbox, user)?;
    }
    // `!` is about the user alone: as in systemd, what the unit takes away stays away.
    let capabilities = (!command.privileged).then(|| Capabilities::of(stage2));
    if let Some(capabilities) = &capabilities {
        capabilities.begin()?;
    }
    if let Some(user) = user {
        identity::take_user(user)?;
    }
    if let Some(capabilities) = &capabilities {
        capabilities.finish()?;
    }
    Ok(())
}

/// What no later step needs.
fn give_up(execution: &Execution, filters: Option<&Filters>) -> Result<(), Failed> {
    let filters = filters.is_some_and(|filters| !filters.is_empty());
    if execution.no_new_privileges || (filters && !may_administrate()) {
        rustix::thread::set_no_new_privs(true)
            .at(Stage::NoNewPrivileges, || "give up new privileges".into())?;
    }
    Ok(())
}

/// The filter is for older kernels.
fn without_what_the_kernel_does(sandbox: &Sandbox) -> Sandbox {
    let mut sandbox = wire::copy(sandbox);
    if sandbox.memory_deny_write_execute && sys::refuse_executable_memory().is_ok() {
        sandbox.memory_deny_write_execute = false;
    }
    sandbox
}

/// Without it a filter takes no_new_privs.
fn may_administrate() -> bool {
    rustix::thread::capabilities(None)
        .is_ok_and(|sets| sets.effective.contains(CapabilitySet::SYS_ADMIN))
}

/// What becomes argv. argv\[0\] stays as it is.
fn arguments(command: &Command, environment: &Environment) -> Vec<String> {
    let (name, rest) = match command.arguments.split_first() {
        Some((name, rest)) => (name, rest),
        None => (&command.program, &[][..]),
    };
    let mut arguments = vec![name.clone()];
    for argument in rest {
        if command.expand {
            arguments.extend(crate::variables::expand(argument, &mut |name| {
                let value = environment.value(name);
                if value.is_none() {
                    say(&format!("the variable {name} is not set, and is taken as empty"));
                }
                value.map(str::to_owned)
            }));
        } else {
            arguments.push(fill_main_pid(argument, environment));
        }
    }
    if command.shell {
        let shell = environment.value("SHELL").filter(|shell| !is_placeholder(shell));
        let shell = shell.unwrap_or(DEFAULT_SHELL).to_owned();
        return vec![shell, "-c".into(), arguments.join(" ")];
    }
    arguments
}

/// Of users without one.
const DEFAULT_SHELL: &str = "/bin/sh";

/// Stands in passwd(5) for no shell.
fn is_placeholder(shell: &str) -> bool {
    matches!(shell.rsplit('/').next(), Some("nologin" | "false" | "true" | ""))
}

/// The one variable that the host leaves in arguments that it has expanded.
fn fill_main_pid(argument: &str, environment: &Environment) -> String {
    let pid = environment.value("MAINPID").unwrap_or_default();
    for hole in ["${MAINPID}", "$MAINPID"] {
        if let Some((prefix, suffix)) = argument.split_once(hole) {
            return [prefix, pid, suffix].concat();
        }
    }
    argument.to_owned()
}

fn prepare_container(call: &Call, environment: &Environment) -> Result<(), Failed> {
    let UnitKind::Service(Service { container: Some(container), .. }) = &call.subject.unit.kind
    else {
        return Ok(());
    };
    if call.list != List::Start {
        return Ok(());
    }
    let listen = container::listen_from_environment();
    let crun = OsStr::new(&call.command.program);
    let places = Places::default();
    container::make(&call.subject, container, environment, listen.as_ref(), crun, &places)
}

fn limits(execution: &Execution) -> Result<(), Failed> {
    for (resource, soft, hard) in &execution.limits {
        sys::set_limit(*resource, *soft, *hard)
            .at(Stage::Limits, || format!("set resource limit {resource}"))?;
    }
    Ok(())
}

fn change_directory(execution: &Execution) -> Result<(), Failed> {
    let path = execution.working_directory.as_str();
    match rustix::process::chdir(path) {
        Err(_) if execution.working_directory_optional => rustix::process::chdir("/"),
        result => result,
    }
    .at(Stage::Chdir, || format!("change to the directory {path}"))
}

/// All that execve(2) takes, so that nothing is left to be made before it.
struct Ready {
    program: CString,
    arguments: Vec<CString>,
    environment: Vec<CString>,
}

impl Ready {
    fn new(
        command: &Command,
        arguments: &[String],
        environment: &Environment,
    ) -> Result<Self, Failed> {
        let program = match (command.shell, arguments.first()) {
            (true, Some(shell)) => shell,
            _ => &command.program,
        };
        Ok(Self {
            program: sys::c_string(program)?,
            arguments: sys::c_strings(arguments)?,
            environment: sys::c_strings(&environment.to_texts())?,
        })
    }

    fn execute(
        &self,
        execution: &Execution,
        filters: Option<&Filters>,
        stderr: Option<OwnedFd>,
        witness: &Witness,
    ) -> Result<Infallible, Failed> {
        // Goes with the exec. Should there be none, the unit's log is told why, not the program's
        // own stderr, which may be a client's connection.
        let log = sys::copy(io::stderr()).ok();
        if let Some(stderr) = stderr {
            sys::put(stderr.as_fd(), Standard::Error)
                .at(Stage::Stderr, || "set up stderr".into())?;
        }
        // Before a signal may come of it, and a filter in its way.
        witness.tell(1);
        // Rust's runtime has ignored it.
        sys::ignore_broken_pipes(execution.ignore_sigpipe);
        if let Some(filters) = filters {
            filters.install()?;
        }
        let errno = child::execute(&self.program, &self.arguments, &self.environment);
        sys::ignore_broken_pipes(true);
        witness.tell(0);
        if let Some(log) = log {
            // A filter may refuse it: then the line goes where the program's would.
            let _ = sys::put(log.as_fd(), Standard::Error);
        }
        let name = OsString::from(self.program.to_string_lossy().into_owned());
        Err(Error::Exec(name, io::Error::from(errno)).into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_command_runs_in_a_shell_that_is_none() {
        for (shell, placeholder) in [
            ("/bin/bash", false),
            ("/usr/bin/false-friend", false),
            ("/usr/sbin/nologin", true),
            ("/bin/false", true),
            ("", true),
        ] {
            assert_eq!(is_placeholder(shell), placeholder, "{shell}");
        }
    }
}
