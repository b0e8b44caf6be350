//! The programs of this workspace that a test runs besides the one under test.

use crate::vm::Appliance;
use std::path::PathBuf;
use std::process::Command;

/// Builds the guest's programs as the test itself was built: cargo hands a test the programs of its own
/// package alone.
///
/// # Panics
/// If it does not compile.
pub fn build_activator() {
    let programs = programs();
    let mut command = Command::new(env!("CARGO"));
    command.args(["build", "--quiet", "--package", "activator", "--bins"]);
    command.arg("--target-dir").arg(programs.parent().unwrap());
    command.current_dir(Appliance::repository());
    if programs.ends_with("release") {
        command.arg("--release");
    }
    assert!(command.status().unwrap().success());
}

/// Where cargo puts programs: `target/debug`.
///
/// # Panics
/// If the test is not where cargo puts tests.
pub fn programs() -> PathBuf {
    std::env::current_exe().unwrap().ancestors().nth(2).unwrap().to_owned()
}
