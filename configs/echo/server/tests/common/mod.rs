//! Starts the server as an activator would: sockets from fd 3, and LISTEN_PID its own.
#![allow(unsafe_code)]

use rustix::process::{Pid, Signal};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};

/// Higher than any fd that a test has, so that moving to 3.. overwrites none of them.
const ABOVE: i32 = 500;

/// A server; killed when dropped.
pub struct Server(Child);

impl Server {
    pub fn start(fds: &[&dyn AsFd], args: &[&str]) -> Self {
        Self::start_after(":", fds, args)
    }

    /// The same, after a command of the shell that becomes the server.
    pub fn start_after(first: &str, fds: &[&dyn AsFd], args: &[&str]) -> Self {
        let high: Vec<OwnedFd> = fds
            .iter()
            .map(|fd| rustix::io::fcntl_dupfd_cloexec(fd.as_fd(), ABOVE).unwrap())
            .collect();
        let numbers: Vec<i32> = high.iter().map(AsRawFd::as_raw_fd).collect();
        // The shell knows its pid, and keeps it over exec.
        let mut command = Command::new("/bin/sh");
        command
            .arg("-c")
            .arg(format!(r#"{first}; LISTEN_PID=$$ exec "$0" "$@""#))
            .arg(env!("CARGO_BIN_EXE_echo-server"))
            .args(args)
            .env("LISTEN_FDS", fds.len().to_string())
            .stdin(Stdio::null());
        // SAFETY: between fork and exec it only duplicates fds, and allocates nothing.
        unsafe {
            command.pre_exec(move || {
                for (target, source) in (3..).zip(&numbers) {
                    // SAFETY: the parent keeps `high` open until the child has executed; the
                    // targets are overwritten in this process alone, which executes next.
                    let (source, mut target) = (
                        rustix::fd::BorrowedFd::borrow_raw(*source),
                        std::mem::ManuallyDrop::new(OwnedFd::from_raw_fd(target)),
                    );
                    rustix::io::dup2(source, &mut target)?;
                }
                Ok(())
            });
        }
        Self(command.spawn().unwrap())
    }

    pub fn signal(&self, signal: Signal) {
        rustix::process::kill_process(Pid::from_child(&self.0), signal).unwrap();
    }

    pub fn wait(&mut self) -> ExitStatus {
        self.0.wait().unwrap()
    }

    pub fn runs(&mut self) -> bool {
        self.0.try_wait().unwrap().is_none()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
