//! The second stage of a spawn: what the child does between PID 1's clone and the service's
//! program, in the same process, so that LISTEN_PID stays right.
//!
//! `activator stage2 exec UNIT LIST INDEX` runs one command: LIST is the name of a [`List`],
//! UNIT is `NAME`, or `USER/NAME` for a lingering user's unit. It reads the manifest that
//! `ROUSE_MANIFEST` names, does all that systemd.exec(5) promises for the unit ([`exec`] has the
//! order), and becomes the program.
//!
//! `activator stage2 conditions UNIT` checks `Condition*=` and `Assert*=` ([`conditions`]),
//! `activator stage2 clean UNIT stop|restart` removes what a unit leaves behind ([`clean`]).
//!
//! It may allocate, read and wait: PID 1 watches it with the unit's start time-out. What goes
//! wrong is one line on stderr, which is the unit's log, and systemd's exit code for the stage
//! that failed ([`error::Stage`]), or one of [`crate::exit`]: `DATA`, `SYSTEM` or `SOFTWARE`.
//!
//! PID 1 has prepared signals, session, cgroup, OOM score, nice value, the fds of LISTEN_FDS and
//! those of the standard streams that it has open. All else is done here.

mod call;
mod capabilities;
mod clean;
mod conditions;
pub mod container;
mod credentials;
mod directories;
mod environment;
pub mod environment_file;
pub mod error;
mod exec;
mod filters;
pub mod glob;
mod identity;
mod instance;
mod ipc;
mod keyring;
mod mounts;
mod namespaces;
mod overlay;
pub mod prepare;
mod scheduling;
mod seccomp;
mod shared;
mod streams;
mod sys;
pub mod template;
mod version;

pub use call::{INSTANCE_VARIABLE, List, unit_argument};
pub use clean::{Need, Next, need as need_of_cleaning};
pub use container::Listen;

use crate::exit;
use error::Failed;
use std::ffi::OsString;
use std::process::ExitCode;

/// The variable that names the manifest's file.
pub const MANIFEST_VARIABLE: &str = "ROUSE_MANIFEST";

/// `args` is what stands behind `stage2`. Returns only if the program was not executed.
pub fn main(args: &[OsString]) -> ExitCode {
    match run(args) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            say(&error.to_string());
            ExitCode::from(error.exit_code())
        }
    }
}

fn run(args: &[OsString]) -> Result<u8, Failed> {
    match args.split_first() {
        Some((verb, rest)) if verb == "exec" => {
            let call = call::Call::parse(rest)?;
            if exec::has_nobody_to_ask(&call) {
                return Ok(exit::TRY_AGAIN);
            }
            match exec::run(&call)? {}
        }
        Some((verb, rest)) if verb == "clean" => clean::run(rest).map(|()| exit::DONE),
        Some((verb, rest)) if verb == "conditions" => conditions::run(rest),
        _ => Err(Failed::usage()),
    }
}

/// One line for the unit's log. Nothing can be done where nobody reads it.
fn say(text: &str) {
    use std::io::Write;
    let _ = std::io::stderr().write_all(format!("activator stage2: {text}\n").as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_call_is_our_bug() {
        let calls = [
            &["exec", "x", "start"][..],
            &["exec", "x", "begin", "0"],
            &["exec", "x", "start", "-1"],
            &["other"],
            &[],
        ];
        for args in calls {
            let args: Vec<OsString> = args.iter().map(OsString::from).collect();
            let error = run(&args).unwrap_err();
            assert_eq!(error.exit_code(), exit::SOFTWARE, "{args:?}");
        }
    }
}
