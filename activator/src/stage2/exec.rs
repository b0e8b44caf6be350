//! The order in which stage 2 goes about it: first what needs the machine as it is, then what
//! takes it away, last what takes away the right to do any of that.
//!
//! A command with the prefix `+` keeps root and the whole machine; with `!` it keeps root.

use super::call::{Call, List};
use super::container::{self, Places};
use super::environment::Environment;
use super::error::{At, Error, Stage};
use super::{identity, say, sys};
use crate::manifest::{Command, Execution, Service, Stage2, UnitKind};
use rustix::fs::Mode;
use std::convert::Infallible;
use std::ffi::{OsStr, OsString};
use std::io;

/// Returns only what went wrong.
pub(super) fn run(call: &Call) -> Result<Infallible, Error> {
    let Call { subject, command, .. } = call;
    let execution = subject.execution().ok_or(Error::Usage)?;
    let nothing = Stage2::default();
    let stage2 = execution.stage2.as_deref().unwrap_or(&nothing);
    // No other process of ours may see what we open on the way.
    let mut environment = Environment::inherited();
    environment.pass(&stage2.pass_environment);
    environment.read_files(&stage2.environment_files)?;
    environment.unset(&stage2.unset_environment);
    let arguments = arguments(command, &environment);
    prepare_container(call)?;

    limits(execution)?;
    rustix::process::umask(Mode::from_raw_mode(execution.umask));
    let user = identity::of(subject, execution).filter(|_| !keeps_root(command));
    if let Some(user) = user {
        identity::take(user)?;
    }
    change_directory(execution)?;
    if execution.no_new_privileges && !command.privileged {
        rustix::thread::set_no_new_privs(true)
            .at(Stage::NoNewPrivileges, || "give up new privileges".into())?;
    }
    execute(command, &arguments, &environment, execution)
}

fn keeps_root(command: &Command) -> bool {
    command.privileged || command.privileged_user
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
        let shell = environment.value("SHELL").unwrap_or(DEFAULT_SHELL).to_owned();
        return vec![shell, "-c".into(), arguments.join(" ")];
    }
    arguments
}

/// Of users without one.
const DEFAULT_SHELL: &str = "/bin/sh";

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

fn prepare_container(call: &Call) -> Result<(), Error> {
    let UnitKind::Service(Service { container: Some(container), .. }) = &call.subject.unit.kind
    else {
        return Ok(());
    };
    if call.list != List::Start {
        return Ok(());
    }
    let listen = container::listen_from_environment();
    let crun = OsStr::new(&call.command.program);
    container::prepare(container, listen.as_ref(), crun, &Places::default())
}

fn limits(execution: &Execution) -> Result<(), Error> {
    for (resource, soft, hard) in &execution.limits {
        sys::set_limit(*resource, *soft, *hard)
            .at(Stage::Limits, || format!("set resource limit {resource}"))?;
    }
    Ok(())
}

fn change_directory(execution: &Execution) -> Result<(), Error> {
    let path = execution.working_directory.as_str();
    match rustix::process::chdir(path) {
        Err(_) if execution.working_directory_optional => rustix::process::chdir("/"),
        result => result,
    }
    .at(Stage::Chdir, || format!("change to the directory {path}"))
}

fn execute(
    command: &Command,
    arguments: &[String],
    environment: &Environment,
    execution: &Execution,
) -> Result<Infallible, Error> {
    let program = match (command.shell, arguments.first()) {
        (true, Some(shell)) => shell,
        _ => &command.program,
    };
    let (program, arguments) = (sys::c_string(program)?, sys::c_strings(arguments)?);
    let environment = sys::c_strings(&environment.to_texts())?;
    // Rust's runtime has ignored it.
    sys::ignore_broken_pipes(execution.ignore_sigpipe);
    let errno = sys::execute(&program, &arguments, &environment);
    let name = OsString::from(program.to_string_lossy().into_owned());
    Err(Error::Exec(name, io::Error::from(errno)))
}
