//! The host's side: compiles units, builds images, and the `rouse` command line.
//!
//! Principles:
//! * The host reads, the guest obeys: every text is parsed, checked and resolved here.
//! * No root, no daemon, no host packages: every output is built in this process.
//! * The same config, lock and activator give the same bytes, on any machine.
//!
//! It will not: run anything of the image on the host (but for Podman's generator, which turns text
//! into text), or ask the network for what the cache already holds.

pub mod appliance;
pub mod base;
pub mod build;
pub mod cache;
pub mod command;
pub mod command_line;
pub mod config;
pub mod container;
pub mod debian;
pub mod disk;
pub mod download;
pub mod elf;
pub mod exit;
pub mod finding;
pub mod generator;
pub mod guest;
pub mod kernel;
pub mod lock;
pub mod login;
pub mod manual;
pub mod oci;
pub mod output;
pub mod static_build;
pub mod terminal;
pub mod tree;
pub mod units;
pub mod vmlinux;

use std::process::ExitCode;

/// `rouse`: reads the command line, does what it says, and gives the exit code.
pub fn main() -> ExitCode {
    let command_line = command_line::CommandLine::read(std::env::args_os().collect());
    terminal::set_quiet(command_line.quiet);
    terminal::show_log();
    match command::run(&command_line) {
        Ok(()) => ExitCode::from(exit::DONE),
        Err(failure) => failure.report(),
    }
}
