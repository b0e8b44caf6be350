//! `activator run MANIFEST [--control PATH]`: executes the supervisor, which lies beside us.

use activator::control::SOCKET;
use activator::{child, exit};
use std::ffi::{OsStr, OsString};
use std::process::ExitCode;

/// The file that is PID 1 in an image.
const PROGRAM: &str = "init";
const USAGE: &str = "usage: activator run MANIFEST [--control PATH]";

/// Becomes it; returns only if that fails.
pub(crate) fn main(arguments: &[OsString]) -> ExitCode {
    let texts: Option<Vec<&str>> = arguments.iter().map(|text| text.to_str()).collect();
    let (path, control) = match texts.as_deref() {
        Some(["--help" | "-h"]) => {
            println!("{USAGE}");
            return ExitCode::from(exit::DONE);
        }
        Some([path]) => (*path, SOCKET),
        Some([path, "--control", control] | ["--control", control, path]) => (*path, *control),
        _ => return complain(exit::USAGE, USAGE),
    };
    let own = match std::fs::read_link("/proc/self/exe") {
        Ok(own) => own,
        Err(error) => {
            return complain(exit::UNAVAILABLE, &format!("failed to read /proc/self/exe: {error}"));
        }
    };
    let program = own.with_file_name(PROGRAM);
    // For children in other directories, and the next manifest.
    let path = std::path::absolute(path).unwrap_or_else(|_| path.into());
    // It goes on under our name, and its children execute us.
    let name = std::env::args_os().next().unwrap_or_else(|| "activator".into());
    let words = [&*name, "run".as_ref(), path.as_ref(), control.as_ref(), own.as_os_str()];
    let errno = match (child::texts([&program]), child::texts::<&OsStr>(words)) {
        (Ok(program), Ok(words)) => child::execute(&program[0], &words, &child::environment(&[])),
        (Err(errno), _) | (_, Err(errno)) => errno,
    };
    let program = program.display();
    complain(exit::UNAVAILABLE, &format!("failed to execute {program}: {errno}"))
}

fn complain(code: u8, text: &str) -> ExitCode {
    eprintln!("activator: {text}");
    ExitCode::from(code)
}
