//! The guest's one binary: PID 1 of an appliance, and its helpers by subcommand.
//!
//! Principles of PID 1 are in the library's documentation; where things are:
//! * [`boot`]: the chores of PID 1, [`run`]: the same supervisor without them;
//! * [`supervise`]: what is to be done, as a pure state machine;
//! * [`engine`]: the loop that feeds it, [`world`]: its hands;
//! * [`slots`], [`connection`]: the instances of `Accept=yes`; [`sock_diag`]: who is connected;
//! * [`reload`]: how one process of it takes over from another;
//! * [`spawn`], [`program`]: children; [`listen`]: sockets; [`cgroup`], [`notify`];
//! * [`adopted`]: main processes that are no children of ours, [`store`]: fds kept for services;
//! * [`told`]: variables of the moment; [`execs`]: who has executed its program;
//! * [`lease`]: what a DHCP client was given, set;
//! * [`logger`], [`link`]: the log process as a child, and the talk with it.

mod activate;
mod adopted;
mod announce;
mod boot;
mod cgroup;
mod connection;
mod engine;
mod execs;
mod foreign;
mod idle;
mod lease;
mod link;
mod listen;
mod logger;
mod notify;
mod populate;
mod program;
mod relay;
mod reload;
mod remote;
mod run;
mod seal;
mod slots;
mod sock_diag;
mod sources;
mod spawn;
mod store;
mod supervise;
mod sys;
mod token;
mod told;
mod users;
mod vsock;
mod world;

use activator::{ctl, exit, interface, logd, needs, stage2};
use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: seal::Sealable = seal::Sealable;

const USAGE: &str = "\
usage:
  activator run MANIFEST [--control PATH]   supervise beside another init
  activator ctl VERB                        ask the one that runs
  activator activate -l ADDRESS PROGRAM     become PROGRAM when the first client is there
  activator relay BACKEND                   carry inherited sockets to a server that listens
  activator --version
As PID 1, named init or without arguments, it boots the appliance.";

fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    let name = arguments.first().map_or(&b""[..], |path| path.as_bytes());
    let name = name.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
    if arguments.get(1).is_some_and(|word| word.as_bytes() == reload::TAKE_OVER.to_bytes()) {
        return reload::main(arguments.get(2..).unwrap_or_default());
    }
    // The kernel hands us what it does not understand of its command line as arguments.
    if std::process::id() == 1 && (name == b"init" || arguments.len() <= 1) {
        boot::main();
    }
    if name == interface::LEASE.as_bytes() {
        return lease::main(arguments.get(1..).unwrap_or_default());
    }
    let rest = arguments.get(2..).unwrap_or_default();
    match arguments.get(1).map(|verb| verb.as_bytes()) {
        Some(b"activate") => activate::main(rest),
        Some(b"relay") => relay::main(rest),
        Some(b"run") => run::main(rest),
        Some(b"logd") => logd::main(rest),
        Some(b"stage2") => stage2::main(rest),
        Some(b"verify") => needs::verify(rest),
        Some(b"ctl") => ctl::main(rest),
        Some(b"--version") => {
            println!("activator {}", env!("CARGO_PKG_VERSION"));
            ExitCode::from(exit::DONE)
        }
        Some(b"--help" | b"-h") => {
            println!("{USAGE}");
            ExitCode::from(exit::DONE)
        }
        _ => {
            eprintln!("{USAGE}");
            ExitCode::from(exit::USAGE)
        }
    }
}
