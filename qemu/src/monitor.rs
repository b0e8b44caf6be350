//! A client of QEMU's monitor, by the QEMU Machine Protocol (QMP): a line of JSON each way.
//!
//! QEMU greets, the client enables commands with `qmp_capabilities`; from then on each command is
//! answered by `return` or `error`, in order, and events come in between. One client at a time is
//! served, which is the VM's own process.

use crate::connect::wait;
use rustix::event::PollFlags;
use serde_json::{Value, json};
use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

/// For an answer. QEMU answers at once, but before it has opened all devices, or on a host that is
/// loaded far beyond its processors.
const ANSWER: Duration = Duration::from_secs(60);
/// For an answer to `quit`: who asks that, kills next.
const LAST_ANSWER: Duration = Duration::from_secs(5);
/// Between two attempts to connect.
const PAUSE: Duration = Duration::from_millis(20);
/// Longer lines are not from QEMU.
const LINE_MAX: usize = 1 << 20;

/// What the VM does, as `query-status` tells. There are more states, which no guest of ours gets
/// into; they are [`Status::Other`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Status {
    /// It runs.
    Running,
    /// It runs, after this event: not started yet, or being stopped.
    Paused,
    /// The accelerator failed.
    InternalError,
    /// The guest has switched itself off.
    Shutdown,
    /// The guest said that it panicked.
    GuestPanicked,
    /// By QEMU's name.
    Other(String),
}

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// QEMU is about to exit.
    Shutdown(Reason),
    /// The guest's processors were stopped; [`Monitor::status`] tells why.
    Stopped,
    /// The guest said that it panicked.
    Panicked,
    /// The monitor's end: QEMU has exited.
    Closed,
    /// By QEMU's name.
    Other(String),
}

/// Why a machine is shut down.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reason {
    /// The guest switched off.
    GuestOff,
    /// The guest wanted to reset, which is a shutdown under `-no-reboot`.
    GuestReset,
    /// The guest panicked.
    GuestPanic,
    /// The host said so: `quit`, or a signal.
    Host,
    /// By QEMU's name.
    Other(String),
}

/// What went wrong with the monitor.
#[derive(Debug, thiserror::Error)]
pub enum MonitorError {
    /// QEMU does not listen.
    #[error("connect to QEMU's monitor")]
    Connect(#[source] io::Error),
    /// No answer in time.
    #[error("get an answer of QEMU's monitor in time")]
    TimedOut,
    /// QEMU is gone.
    #[error("reach QEMU's monitor, it has closed")]
    Closed,
    /// What it said is not QMP.
    #[error("understand QEMU's monitor, it said {0}")]
    Protocol(String),
    /// It refused a command.
    #[error("have QEMU carry out {command}: {description}")]
    Refused {
        /// The command.
        command: String,
        /// Why.
        description: String,
    },
    /// The system said no.
    #[error("talk to QEMU's monitor")]
    System(#[source] io::Error),
}

/// A connection to a monitor, with commands enabled.
#[derive(Debug)]
pub struct Monitor {
    stream: UnixStream,
    /// Bytes that are not yet a line.
    pending: Vec<u8>,
    /// Events that came while an answer was awaited.
    events: VecDeque<Event>,
}

impl Monitor {
    /// Connects, as soon as QEMU listens.
    pub fn connect(path: &Path, time: Duration) -> Result<Self, MonitorError> {
        let deadline = Instant::now() + time;
        loop {
            match UnixStream::connect(path) {
                Ok(stream) => return Self::greet(stream),
                Err(error) if Instant::now() >= deadline => {
                    return Err(MonitorError::Connect(error));
                }
                Err(_) => std::thread::sleep(PAUSE),
            }
        }
    }

    fn greet(stream: UnixStream) -> Result<Self, MonitorError> {
        stream.set_nonblocking(true).map_err(MonitorError::System)?;
        let mut monitor = Self { stream, pending: Vec::new(), events: VecDeque::new() };
        let greeting = monitor.message(Instant::now() + ANSWER)?;
        if greeting.get("QMP").is_none() {
            return Err(MonitorError::Protocol(greeting.to_string()));
        }
        monitor.execute("qmp_capabilities")?;
        Ok(monitor)
    }

    /// What the VM does.
    pub fn status(&mut self) -> Result<Status, MonitorError> {
        let answer = self.execute("query-status")?;
        let Some(status) = answer.get("status").and_then(Value::as_str) else {
            return Err(MonitorError::Protocol(answer.to_string()));
        };
        Ok(match status {
            "running" => Status::Running,
            "paused" | "prelaunch" => Status::Paused,
            "internal-error" => Status::InternalError,
            "shutdown" => Status::Shutdown,
            "guest-panicked" => Status::GuestPanicked,
            other => Status::Other(other.into()),
        })
    }

    /// Presses the power button.
    pub fn power_down(&mut self) -> Result<(), MonitorError> {
        self.execute("system_powerdown").map(drop)
    }

    /// Ends QEMU. That it closes the monitor in place of an answer is success too.
    pub fn quit(&mut self) -> Result<(), MonitorError> {
        match self.execute_within("quit", LAST_ANSWER) {
            Ok(_) | Err(MonitorError::Closed) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Carries out a command without arguments.
    pub fn execute(&mut self, command: &str) -> Result<Value, MonitorError> {
        self.execute_within(command, ANSWER)
    }

    fn execute_within(&mut self, command: &str, time: Duration) -> Result<Value, MonitorError> {
        let deadline = Instant::now() + time;
        let line = format!("{}\n", json!({ "execute": command }));
        self.write(line.as_bytes(), deadline)?;
        loop {
            let mut message = self.message(deadline)?;
            if let Some(event) = event(&message) {
                self.events.push_back(event);
            } else if let Some(answer) = message.get_mut("return") {
                return Ok(answer.take());
            } else if let Some(error) = message.get("error") {
                let description = error.get("desc").and_then(Value::as_str).unwrap_or_default();
                let description = description.to_owned();
                return Err(MonitorError::Refused { command: command.into(), description });
            } else {
                return Err(MonitorError::Protocol(message.to_string()));
            }
        }
    }

    /// The next event, if there is one within that time. After [`Event::Closed`] come no more.
    pub fn event(&mut self, time: Duration) -> Result<Option<Event>, MonitorError> {
        let deadline = Instant::now() + time;
        loop {
            if let Some(event) = self.events.pop_front() {
                return Ok(Some(event));
            }
            match self.message(deadline) {
                // What is not an event answers a command that was given up.
                Ok(message) => self.events.extend(event(&message)),
                Err(MonitorError::TimedOut) => return Ok(None),
                Err(MonitorError::Closed) => return Ok(Some(Event::Closed)),
                Err(error) => return Err(error),
            }
        }
    }

    fn write(&mut self, mut line: &[u8], deadline: Instant) -> Result<(), MonitorError> {
        while !line.is_empty() {
            match self.stream.write(line) {
                Ok(count) => line = &line[count..],
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.wait(PollFlags::OUT, deadline)?;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(failed(error)),
            }
        }
        Ok(())
    }

    /// The next line.
    fn message(&mut self, deadline: Instant) -> Result<Value, MonitorError> {
        loop {
            if let Some(end) = self.pending.iter().position(|&byte| byte == b'\n') {
                let line: Vec<u8> = self.pending.drain(..=end).collect();
                let text = || String::from_utf8_lossy(&line).trim_end().to_owned();
                return serde_json::from_slice(&line).map_err(|_| MonitorError::Protocol(text()));
            }
            if self.pending.len() > LINE_MAX {
                return Err(MonitorError::Protocol("a line without end".into()));
            }
            let mut buffer = [0; 4096];
            match self.stream.read(&mut buffer) {
                Ok(0) => return Err(MonitorError::Closed),
                Ok(count) => self.pending.extend(&buffer[..count]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.wait(PollFlags::IN, deadline)?;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(failed(error)),
            }
        }
    }

    fn wait(&self, flags: PollFlags, deadline: Instant) -> Result<(), MonitorError> {
        let left = deadline.saturating_duration_since(Instant::now());
        match wait(self.stream.as_fd(), flags, Some(left)) {
            Ok(true) => Ok(()),
            Ok(false) => Err(MonitorError::TimedOut),
            Err(errno) => Err(MonitorError::System(errno.into())),
        }
    }
}

/// To be polled for input: then there is an event, or the end.
impl AsFd for Monitor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

fn failed(error: io::Error) -> MonitorError {
    match error.kind() {
        io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => MonitorError::Closed,
        _ => MonitorError::System(error),
    }
}

fn event(message: &Value) -> Option<Event> {
    let name = message.get("event")?.as_str()?;
    let reason = message.pointer("/data/reason").and_then(Value::as_str).unwrap_or_default();
    Some(match name {
        "SHUTDOWN" => Event::Shutdown(match reason {
            "guest-shutdown" => Reason::GuestOff,
            "guest-reset" => Reason::GuestReset,
            "guest-panic" => Reason::GuestPanic,
            "host-qmp-quit" | "host-signal" => Reason::Host,
            other => Reason::Other(other.into()),
        }),
        "STOP" => Event::Stopped,
        "GUEST_PANICKED" => Event::Panicked,
        other => Event::Other(other.into()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{BufRead, BufReader};
    use std::os::unix::net::UnixListener;
    use std::thread;

    const GREETING: &str = r#"{"QMP": {"version": {}, "capabilities": []}}"#;

    /// A monitor that answers each command by the given lines, and then closes.
    fn fake(
        greeting: &'static str,
        script: &'static [(&str, &str)],
    ) -> (tempfile::TempDir, thread::JoinHandle<()>) {
        let folder = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(folder.path().join("qmp")).unwrap();
        let server = thread::spawn(move || {
            let (mut client, _) = listener.accept().unwrap();
            let mut lines = BufReader::new(client.try_clone().unwrap()).lines();
            client.write_all(greeting.as_bytes()).unwrap();
            client.write_all(b"\r\n").unwrap();
            for (command, answer) in script {
                let Some(line) = lines.next() else { return };
                let line: Value = serde_json::from_str(&line.unwrap()).unwrap();
                assert_eq!(line, json!({ "execute": command }));
                client.write_all(answer.as_bytes()).unwrap();
            }
        });
        (folder, server)
    }

    fn connect(folder: &tempfile::TempDir) -> Result<Monitor, MonitorError> {
        Monitor::connect(&folder.path().join("qmp"), Duration::from_secs(30))
    }

    #[test]
    fn commands_are_answered_and_events_are_kept() {
        let (folder, server) = fake(
            GREETING,
            &[
                ("qmp_capabilities", "{\"return\": {}}\r\n"),
                (
                    "query-status",
                    "{\"event\": \"STOP\", \"timestamp\": {}}\r\n\
                     {\"return\": {\"status\": \"internal-error\", \"running\": false}}\r\n\
                     {\"event\": \"SHUTDOWN\", \"data\": {\"guest\": true, \"reason\": ",
                ),
                (
                    "system_powerdown",
                    "\"guest-reset\"}}\n\
                     {\"error\": {\"class\": \"GenericError\", \"desc\": \"no button\"}}\n",
                ),
                ("quit", ""),
            ],
        );
        let mut monitor = connect(&folder).unwrap();
        assert_eq!(monitor.status().unwrap(), Status::InternalError);
        let Err(MonitorError::Refused { command, description }) = monitor.power_down() else {
            panic!("it was refused");
        };
        assert_eq!((command.as_str(), description.as_str()), ("system_powerdown", "no button"));
        let mut next = || monitor.event(Duration::from_secs(30)).unwrap();
        assert_eq!(next(), Some(Event::Stopped));
        assert_eq!(next(), Some(Event::Shutdown(Reason::GuestReset)));
        monitor.quit().unwrap();
        assert_eq!(monitor.event(Duration::from_secs(30)).unwrap(), Some(Event::Closed));
        server.join().unwrap();
    }

    #[test]
    fn no_event_is_none() {
        let (folder, server) =
            fake(GREETING, &[("qmp_capabilities", "{\"return\": {}}\r\n"), ("quit", "")]);
        let mut monitor = connect(&folder).unwrap();
        assert_eq!(monitor.event(Duration::from_millis(10)).unwrap(), None);
        monitor.quit().unwrap();
        server.join().unwrap();
    }

    #[test]
    fn what_is_not_qmp_is_refused() {
        let (folder, server) = fake("SSH-2.0-OpenSSH", &[]);
        let refused = connect(&folder);
        assert!(matches!(refused, Err(MonitorError::Protocol(said)) if said == "SSH-2.0-OpenSSH"));
        server.join().unwrap();
        let nobody = Monitor::connect(&folder.path().join("nobody"), Duration::ZERO);
        assert!(matches!(nobody, Err(MonitorError::Connect(_))));
    }
}
