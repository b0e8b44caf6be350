//! What people and units call in the guest, by subcommand; PID 1 and `run` are a program of their
//! own beside it (`init.rs`), so that what stays in memory for good has nothing of this.
//!
//! * [`activate`], [`relay`]: the tools of systemd-socket-activate and systemd-socket-proxyd;
//! * [`supervisor`]: `activator run`, which executes that other program;
//! * [`lease`]: what a DHCP client was given, set; [`kill`]: kill(1); both by names of their own;
//!   [`announce`]: sd_notify(3);
//! * in the library: `ctl`, `logd` (the log process), `stage2` (the second stage of a spawn).

mod activate;
mod announce;
mod kill;
mod lease;
mod relay;
mod supervisor;

// The other program needs them as well.
use activator::{listen, remote, sys, vsock};

use activator::{ctl, exit, interface, logd, needs, stage2};
use std::ffi::OsString;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::ExitCode;

const USAGE: &str = "\
usage:
  activator run MANIFEST [--control PATH]   supervise beside another init
  activator ctl VERB                        ask the one that runs
  activator activate -l ADDRESS PROGRAM     become PROGRAM when the first client is there
  activator relay BACKEND                   carry inherited sockets to a server that listens
  activator --version
The program `init` beside it is PID 1 of an appliance, and what `run` executes.";

fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    let name = arguments.first().map_or(&b""[..], |path| path.as_bytes());
    let name = name.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
    if name == interface::LEASE.as_bytes() {
        return lease::main(arguments.get(1..).unwrap_or_default());
    }
    if name == kill::NAME {
        return kill::main(arguments.get(1..).unwrap_or_default());
    }
    let rest = arguments.get(2..).unwrap_or_default();
    match arguments.get(1).map(|verb| verb.as_bytes()) {
        Some(b"activate") => activate::main(rest),
        Some(b"relay") => relay::main(rest),
        Some(b"run") => supervisor::main(rest),
        Some(b"logd") => logd::main(rest),
        Some(b"stage2") => stage2::main(rest),
        Some(b"verify") => {
            let words: Vec<&str> = rest.iter().filter_map(|word| word.to_str()).collect();
            let mut manifest = vec![];
            let read = std::io::stdin().read_to_end(&mut manifest);
            let look = |new: &_| needs::check(Path::new("/"), None, new);
            match read.map(|_| needs::verify(&words, &manifest, look)) {
                Ok(Ok(())) => {
                    println!("{}", needs::FIT);
                    ExitCode::SUCCESS
                }
                Ok(Err((code, why))) => {
                    eprintln!("{why}");
                    ExitCode::from(code)
                }
                Err(error) => {
                    eprintln!("cannot read the manifest: {error}");
                    ExitCode::from(exit::UNAVAILABLE)
                }
            }
        }
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
