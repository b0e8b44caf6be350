//! The guest's one binary: PID 1 of an appliance, and its helpers by subcommand.
//!
//! Principles of PID 1 are in the library's documentation; where things are:
//! * [`boot`]: the chores of PID 1, [`run`]: the same supervisor without them;
//! * [`supervise`]: what is to be done, as a pure state machine;
//! * [`engine`]: the loop that feeds it, [`world`]: its hands;
//! * [`spawn`], [`program`]: children; [`listen`]: sockets; [`cgroup`], [`notify`];
//! * [`logger`], [`link`]: the log process as a child, and the talk with it.

mod boot;
mod cgroup;
mod engine;
mod link;
mod listen;
mod logger;
mod notify;
mod program;
mod run;
mod seal;
mod spawn;
mod supervise;
mod sys;
mod token;
mod world;

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: seal::Sealable = seal::Sealable;

/// Exit codes, the same as `rouse` has.
mod exit_code {
    /// It did not work.
    pub(crate) const FAILED: u8 = 1;
    /// The command line makes no sense.
    pub(crate) const USAGE: u8 = 2;
    /// An input file makes no sense.
    pub(crate) const BAD_INPUT: u8 = 65;
    /// Something is not there.
    pub(crate) const MISSING: u8 = 69;
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().collect();
    let name = arguments.first().map_or("", |path| path.rsplit('/').next().unwrap_or(path));
    // The kernel hands us what it does not understand of its command line as arguments.
    if std::process::id() == 1 && (name == "init" || arguments.len() <= 1) {
        boot::main();
    }
    let rest = arguments.get(2..).unwrap_or_default();
    match arguments.get(1).map(String::as_str) {
        Some("run") => run::main(rest),
        Some("--version") => {
            println!("activator {}", env!("CARGO_PKG_VERSION"));
            ExitCode::SUCCESS
        }
        _ => {
            eprintln!("usage: activator run MANIFEST [--control PATH] | --version");
            ExitCode::from(exit_code::USAGE)
        }
    }
}
