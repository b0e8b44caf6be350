//! Debian's programs that tests use as clients: from packages in the tests' cache, not the host's.

use crate::command;
use rouse::cache::Cache;
use rouse::debian::{Debian, tools};
use std::path::PathBuf;
use std::process::Command;

/// Debian's socat, to add arguments to.
pub fn socat() -> Command {
    debian("socat", "socat")
}

/// A program of a package of Debian's, to add arguments to.
///
/// # Panics
/// If the package cannot be had, or has no such program.
pub fn debian(package: &str, program: &str) -> Command {
    find(package, program).command()
}

/// Where a program of a package of Debian's lies; one that needs no libraries runs from there.
///
/// # Panics
/// As [`debian`].
pub fn debian_path(package: &str, program: &str) -> PathBuf {
    find(package, program).path
}

/// The same as [`debian`], for a shell.
///
/// # Panics
/// As [`debian`].
pub fn debian_command(package: &str, program: &str) -> String {
    let words = find(package, program).arguments();
    let words: Vec<_> = words.iter().map(|word| word.to_string_lossy()).collect();
    words.join(" ")
}

fn find(package: &str, program: &str) -> tools::Program {
    let cache = Cache::open_at(&command::cache()).unwrap();
    tools::program(&Debian::new(cache, None), package, program).unwrap()
}
