//! What the verbs do.

pub mod build;
pub mod check;
mod disk;
pub mod guest;
mod network;
pub mod reload;
pub mod run;

use crate::command_line::{CommandLine, Verb};
use crate::exit::{BUG, Failure};
use crate::manual;
use clap::CommandFactory;
use guest::Change;

/// All that `rouse` can do.
pub fn run(command_line: &CommandLine) -> Result<(), Failure> {
    match &command_line.verb {
        Verb::Check(arguments) => check::check(arguments),
        Verb::Cat(arguments) => check::cat(arguments),
        Verb::Manifest(arguments) => check::manifest(arguments),
        Verb::Lock(arguments) => build::lock(arguments),
        Verb::Build(arguments) => build::build(arguments),
        Verb::Inspect(arguments) => build::inspect(arguments),
        Verb::Run(arguments) => run::run(arguments),
        Verb::List(arguments) => guest::list(arguments),
        Verb::Connect(arguments) => guest::connect(arguments),
        Verb::Status(arguments) => guest::status(arguments),
        Verb::Logs(arguments) => guest::logs(arguments),
        Verb::Start(arguments) => guest::change(arguments, Change::Start),
        Verb::Stop(arguments) => guest::change(arguments, Change::Stop),
        Verb::Restart(arguments) => guest::change(arguments, Change::Restart),
        Verb::Reload(arguments) => reload::reload(arguments),
        Verb::ReloadUnit(arguments) => guest::change(arguments, Change::Reload),
        Verb::Poweroff(arguments) => guest::poweroff(arguments),
        Verb::Completions { shell } => completions(*shell),
        Verb::Man => man(),
        Verb::Vmm { spec } => run::vmm(spec),
    }
}

fn completions(shell: clap_complete::Shell) -> Result<(), Failure> {
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut CommandLine::command(), "rouse", &mut text);
    guest::print(&String::from_utf8_lossy(&text))
}

fn man() -> Result<(), Failure> {
    let text = manual::page(CommandLine::command())
        .map_err(|error| Failure::new(BUG, "write the man page").because(error))?;
    guest::print(&String::from_utf8_lossy(&text))
}
