//! PID 1 of an appliance, and as `activator run` the same supervisor beside another init.
//!
//! A program of its own, with nothing in it that a service or a person calls: those are in
//! `activator`, which lies beside it, and which it executes for its log process, for the second
//! stage of a spawn and for all that may fail for many reasons. Principles of PID 1 are in the
//! library's documentation; where things are:
//! * [`boot`]: the chores of PID 1, [`run`]: the same supervisor without them;
//! * [`supervise`]: what is to be done, as a pure state machine;
//! * [`engine`]: the loop that feeds it, [`world`]: its hands;
//! * [`slots`], [`connection`]: the instances of `Accept=yes`; [`sock_diag`]: who is connected;
//! * [`reload`]: how one process of it takes over from another;
//! * [`spawn`], [`program`]: children; [`listeners`]: sockets; [`cgroup`], [`notify`];
//! * [`adopted`]: main processes that are no children of ours, [`store`]: fds kept for services;
//! * [`told`]: variables of the moment; [`execs`]: who has executed its program;
//! * [`logger`], [`link`]: the log process as a child, and the talk with it;
//! * [`files`]: files as a whole; [`start`]: `main`, without Rust's runtime.
#![cfg_attr(not(test), no_main)]

mod adopted;
mod boot;
mod cgroup;
mod connection;
mod engine;
mod execs;
mod files;
mod idle;
mod link;
mod listeners;
mod logger;
mod notify;
mod populate;
mod program;
mod reload;
mod run;
mod seal;
mod slots;
mod sock_diag;
mod sources;
mod spawn;
mod start;
mod store;
mod supervise;
mod token;
mod told;
mod users;
mod world;

// The other program needs them as well.
use activator::{listen, sys};

use activator::{exit, needs};

#[global_allocator]
static ALLOCATOR: seal::Sealable = seal::Sealable;

const USAGE: &str = "\
This is PID 1 of an appliance; `activator`, which lies beside it, is for people.";

/// Does what the command line says; the exit code.
#[cfg_attr(test, allow(dead_code))]
fn run_as_told() -> u8 {
    let texts: Vec<&str> = start::words().map(|word| word.to_str().unwrap_or_default()).collect();
    let is_first = std::process::id() == 1;
    match texts[..] {
        [_, reload::TAKE_OVER, ref rest @ ..] => reload::main(rest),
        // The kernel hands us what it does not understand of its command line as arguments.
        [] | [_] if is_first => boot::main(),
        [name, ..] if is_first && name.rsplit('/').next() == Some("init") => boot::main(),
        [_, "run", ref rest @ ..] => run::main(rest),
        [_, "verify", ref rest @ ..] => match verify(rest) {
            Ok(()) => {
                start::say(needs::FIT);
                exit::DONE
            }
            Err((code, why)) => {
                eprintln!("{why}");
                code
            }
        },
        _ => {
            eprintln!("{USAGE}");
            exit::USAGE
        }
    }
}

/// Whether this program can take the manifest on stdin, as far as PID 1 can tell.
fn verify(words: &[&str]) -> Result<(), (u8, String)> {
    let unreadable = |errno| (exit::UNAVAILABLE, format!("cannot read the manifest: {errno}"));
    let manifest = files::read("/proc/self/fd/0").map_err(unreadable)?;
    needs::verify(words, &manifest, |_| Ok(()))
}
