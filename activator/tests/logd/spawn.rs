//! Starts the binary as PID 1 would: named fds from 3 on.
#![allow(unsafe_code)]

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::Command;

/// Higher than any fd that a test has, so that moving to 3.. overwrites none of them.
const ABOVE: i32 = 500;

/// A shell that executes the binary with these fds. The shell sets LISTEN_PID: it knows its pid,
/// and keeps it over exec.
pub(crate) fn activator(fds: &[(&str, BorrowedFd<'_>)]) -> Command {
    let high: Vec<OwnedFd> =
        fds.iter().map(|(_, fd)| rustix::io::fcntl_dupfd_cloexec(fd, ABOVE).unwrap()).collect();
    let names: Vec<&str> = fds.iter().map(|(name, _)| *name).collect();
    let mut command = Command::new("/bin/sh");
    command
        .args(["-c", r#"LISTEN_PID=$$ exec "$0" "$@""#, env!("CARGO_BIN_EXE_activator")])
        .env("LISTEN_FDS", fds.len().to_string())
        .env("LISTEN_FDNAMES", names.join(":"));
    // SAFETY: between fork and exec it only duplicates fds, and allocates nothing.
    unsafe {
        command.pre_exec(move || {
            for (target, source) in (3..).zip(&high) {
                // SAFETY: the targets are overwritten in this process alone, which executes
                // next, and the wrapper is never dropped.
                let mut target = std::mem::ManuallyDrop::new(OwnedFd::from_raw_fd(target));
                rustix::io::dup2(BorrowedFd::borrow_raw(source.as_raw_fd()), &mut target)?;
            }
            Ok(())
        });
    }
    command
}
