//! kill(1), for units that say `ExecReload=/bin/kill -HUP $MAINPID`, as a great many do, in images
//! where no package brings one.
//!
//! `kill [-s SIGNAL | -SIGNAL] [--] PID...`; a negative PID is a process group.

use activator::{exit, signals, sys};
use std::ffi::OsString;
use std::process::ExitCode;

/// Its name: the link in the image.
pub(crate) const NAME: &[u8] = b"kill";

const USAGE: &str = "usage: kill [-s SIGNAL | -SIGNAL] [--] PID...";

/// Fails if any of them got none.
pub(crate) fn main(arguments: &[OsString]) -> ExitCode {
    let words: Option<Vec<&str>> = arguments.iter().map(|word| word.to_str()).collect();
    let Some((signal, pids)) = words.as_deref().and_then(parse) else {
        eprintln!("{USAGE}");
        return ExitCode::from(exit::FAILED);
    };
    let mut code = exit::DONE;
    for pid in pids {
        if let Err(errno) = sys::kill(pid, signal) {
            eprintln!("failed to send a signal to {pid}: {errno}");
            code = exit::FAILED;
        }
    }
    ExitCode::from(code)
}

/// The signal and who is to get it.
fn parse(words: &[&str]) -> Option<(i32, Vec<i32>)> {
    let (signal, rest) = match words {
        ["-s" | "--signal", name, rest @ ..] => (signal(name)?, rest),
        [option, rest @ ..] if option.len() > 1 && *option != "--" && option.starts_with('-') => {
            let name = option.strip_prefix("--signal=").or_else(|| option.strip_prefix('-'))?;
            (signal(name).or_else(|| signal(name.strip_prefix('s')?))?, rest)
        }
        rest => (libc::SIGTERM, rest),
    };
    let pids = rest.strip_prefix(&["--"]).unwrap_or(rest);
    let pids: Option<Vec<i32>> = pids.iter().map(|pid| pid.parse().ok()).collect();
    pids.filter(|pids| !pids.is_empty()).map(|pids| (signal, pids))
}

/// By name or number; 0 only asks whether the process is there.
fn signal(text: &str) -> Option<i32> {
    match text.parse() {
        Ok(number) => (0..=signals::REAL_TIME.1).contains(&number).then_some(number),
        Err(_) => signals::number(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_units_write_it() {
        for (words, expected) in [
            (&["-HUP", "12"][..], Some((1, vec![12]))),
            (&["-SIGKILL", "12", "13"], Some((9, vec![12, 13]))),
            (&["-s", "HUP", "12"], Some((1, vec![12]))),
            (&["-sUSR1", "12"], Some((10, vec![12]))),
            (&["-SYS", "12"], Some((31, vec![12]))),
            (&["-sys", "12"], Some((31, vec![12]))),
            (&["--signal", "USR2", "12"], Some((12, vec![12]))),
            (&["--signal=USR2", "12"], Some((12, vec![12]))),
            (&["-1", "12"], Some((1, vec![12]))),
            (&["-0", "12"], Some((0, vec![12]))),
            (&["-TERM", "--", "-12"], Some((15, vec![-12]))),
            (&["-TERM", "-12"], Some((15, vec![-12]))),
            (&["--", "-12"], Some((15, vec![-12]))),
            (&["12"], Some((15, vec![12]))),
            (&["-RTMIN+3", "12"], Some((37, vec![12]))),
            // $MAINPID of a service that has none.
            (&["-HUP"], None),
            (&["-HUP", ""], None),
            (&["-65", "12"], None),
            (&["-NOTHING", "12"], None),
            (&["-s"], None),
            (&[], None),
        ] {
            assert_eq!(parse(words), expected, "{words:?}");
        }
    }
}
