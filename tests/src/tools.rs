//! Debian's programs that tests use as clients: from packages in the tests' cache, not the host's.

use crate::command;
use rouse::cache::Cache;
use rouse::debian::{Debian, tools};
use std::process::Command;
use std::sync::OnceLock;

/// Debian's socat, to add arguments to.
pub fn socat() -> Command {
    static SOCAT: OnceLock<tools::Program> = OnceLock::new();
    let program = SOCAT.get_or_init(|| {
        let cache = Cache::open_at(&command::cache()).unwrap();
        tools::program(&Debian::new(cache, None), "socat", "socat").unwrap()
    });
    program.command()
}
