//! Sends back what it gets, on every socket that it is given by the LISTEN_FDS protocol
//! (sd_listen_fds(3)): stream, seqpacket and datagram, of any address family.
//!
//! One thread and one epoll, so that a thousand clients cost a thousand fds and little else.
//! A connection ends when its client has shut down its side and has got everything back.
//!
//! Usage: `echo-server [--idle SECONDS]`. With `--idle` it leaves, with exit code 0, when there
//! was no connection and no packet for so long. SIGTERM and SIGINT end it with exit code 0.

mod connection;
mod inherited;
mod server;

use std::process::ExitCode;
use std::time::Duration;

/// The command line is wrong.
const USAGE: u8 = 2;

fn main() -> ExitCode {
    let idle = match idle(std::env::args().skip(1)) {
        Ok(idle) => idle,
        Err(text) => {
            eprintln!("echo-server: {text}\nusage: echo-server [--idle SECONDS]");
            return ExitCode::from(USAGE);
        }
    };
    inherited::leave_on_signals();
    let result = inherited::take()
        .map_err(|error| error.to_string())
        .and_then(|fds| server::run(fds, idle).map_err(|error| format!("epoll failed: {error}")));
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(text) => {
            eprintln!("echo-server: {text}");
            ExitCode::FAILURE
        }
    }
}

fn idle(mut args: impl Iterator<Item = String>) -> Result<Option<Duration>, String> {
    let mut idle = None;
    while let Some(arg) = args.next() {
        let seconds = match arg.as_str() {
            "--idle" => args.next().ok_or("--idle takes a number of seconds")?,
            other => match other.strip_prefix("--idle=") {
                Some(seconds) => seconds.to_owned(),
                None => return Err(format!("there is no option {other}")),
            },
        };
        let duration = seconds.parse().ok().and_then(|s| Duration::try_from_secs_f64(s).ok());
        idle = Some(duration.ok_or_else(|| format!("--idle takes seconds, not {seconds}"))?);
    }
    Ok(idle)
}
