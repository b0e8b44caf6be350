//! QEMU as a child process that ends with its parent.
#![allow(unsafe_code)]

use std::collections::VecDeque;
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

/// Lines of stderr that are kept. KVM's internal error takes about forty, the first of which tell.
const LINES: usize = 64;

/// A child that is killed when this is dropped, and by the kernel when the thread that started it
/// ends.
#[derive(Debug)]
pub(crate) struct Emulation {
    child: Child,
    pidfd: OwnedFd,
    /// Written by the reader, until the child has closed its stderr.
    lines: Arc<Mutex<VecDeque<String>>>,
    reader: Option<JoinHandle<()>>,
}

impl Emulation {
    /// Executes `command`, and copies its stderr to the end of `log`.
    pub(crate) fn start(
        command: &[OsString],
        environment: &[(String, OsString)],
        log: File,
    ) -> io::Result<Self> {
        let (program, arguments) = command.split_first().ok_or(io::ErrorKind::InvalidInput)?;
        let parent = rustix::process::getpid();
        let mut command = Command::new(program);
        command
            .args(arguments)
            .envs(environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let end_with_parent = move || {
            let kill = Some(rustix::process::Signal::KILL);
            rustix::process::set_parent_process_death_signal(kill)?;
            // The parent may have died before the line above.
            if rustix::process::getppid() != Some(parent) {
                return Err(io::ErrorKind::Interrupted.into());
            }
            Ok(())
        };
        // SAFETY: between fork and exec it makes two system calls, and neither allocates nor takes
        // a lock.
        unsafe { command.pre_exec(end_with_parent) };
        let mut child = command.spawn()?;
        let pidfd = pidfd(&child);
        let pidfd = pidfd.inspect_err(|_| {
            let _ = child.kill();
            let _ = child.wait();
        })?;
        let lines = Arc::new(Mutex::new(VecDeque::new()));
        let mut emulation = Self { child, pidfd, lines: lines.clone(), reader: None };
        if let Some(stderr) = emulation.child.stderr.take() {
            let read = move || keep_lines(BufReader::new(stderr), &lines, log);
            emulation.reader = Some(std::thread::Builder::new().name("stderr".into()).spawn(read)?);
        }
        Ok(emulation)
    }

    /// Readable when the child has ended.
    pub(crate) fn as_fd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }

    /// How the child ended, if it has.
    pub(crate) fn try_wait(&mut self) -> io::Result<Option<ExitStatus>> {
        self.child.try_wait()
    }

    /// Kills it.
    pub(crate) fn kill(&mut self) {
        // It may have ended meanwhile, which is as good.
        let _ = self.child.kill();
    }

    /// The last lines that the child wrote, all of them once it has ended.
    pub(crate) fn lines(&mut self) -> Vec<String> {
        if matches!(self.try_wait(), Ok(Some(_)))
            && let Some(reader) = self.reader.take()
        {
            let _ = reader.join();
        }
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }
}

impl Drop for Emulation {
    fn drop(&mut self) {
        self.kill();
        let _ = self.child.wait();
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
    }
}

/// The pidfd of a child that has not been waited for.
pub(crate) fn pidfd(child: &Child) -> io::Result<OwnedFd> {
    let pid = rustix::process::Pid::from_raw(child.id().cast_signed());
    let pid = pid.ok_or(io::ErrorKind::InvalidData)?;
    Ok(rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty())?)
}

/// In words: `exited 1`, `was killed by signal 6`.
pub(crate) fn describe(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exited {code}"),
        (None, Some(signal)) => format!("was killed by signal {signal}"),
        (None, None) => "ended".into(),
    }
}

fn keep_lines(stderr: impl BufRead, lines: &Mutex<VecDeque<String>>, mut log: impl Write) {
    for line in stderr.split(b'\n') {
        let Ok(line) = line else { return };
        let line = String::from_utf8_lossy(&line).trim_end().to_owned();
        // A full disk shall not end the VM.
        let _ = writeln!(log, "{line}");
        let mut lines = lines.lock().unwrap_or_else(PoisonError::into_inner);
        if lines.len() == LINES {
            lines.pop_front();
        }
        lines.push_back(line);
    }
}

/// Waits for a child that was told to end.
pub(crate) fn wait_for(emulation: &Emulation, time: Duration) -> rustix::io::Result<bool> {
    crate::connect::wait(emulation.as_fd(), rustix::event::PollFlags::IN, Some(time))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Emulation {
        let words = ["/bin/sh", "-c", script].map(OsString::from);
        Emulation::start(&words, &[("COLOUR".into(), "blue".into())], tempfile::tempfile().unwrap())
            .unwrap()
    }

    #[test]
    fn its_last_lines_and_its_end_are_told() {
        let mut child = shell("for i in $(seq 80); do echo $i $COLOUR >&2; done; exit 3");
        assert!(wait_for(&child, Duration::from_secs(60)).unwrap());
        let status = child.try_wait().unwrap().unwrap();
        assert_eq!(describe(status), "exited 3");
        let lines = child.lines();
        assert_eq!(lines.len(), LINES);
        assert_eq!(lines.last().map(String::as_str), Some("80 blue"));
    }

    #[test]
    fn dropping_it_kills_it() {
        let child = shell("exec sleep 1000");
        let pidfd = child.as_fd().try_clone_to_owned().unwrap();
        drop(child);
        let ended = crate::connect::wait(
            pidfd.as_fd(),
            rustix::event::PollFlags::IN,
            Some(Duration::from_secs(60)),
        );
        assert_eq!(ended, Ok(true));
    }

    #[test]
    fn it_ends_with_the_thread_that_started_it() {
        let starter = std::thread::spawn(|| {
            let child = shell("exec sleep 1000");
            let pidfd = child.as_fd().try_clone_to_owned().unwrap();
            // Its drop would kill it too.
            std::mem::forget(child);
            pidfd
        });
        let pidfd = starter.join().unwrap();
        let ended = crate::connect::wait(
            pidfd.as_fd(),
            rustix::event::PollFlags::IN,
            Some(Duration::from_secs(60)),
        );
        assert_eq!(ended, Ok(true));
    }
}
