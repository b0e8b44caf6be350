//! The verbs about a guest that runs: they find it in the registry and ask it over vsock.

use crate::command_line::{Connect, List, Logs, Poweroff, Status, UnitOf};
use crate::exit::{BUG, FAILED, Failure, TRY_AGAIN, UNAVAILABLE};
use crate::terminal::{self, Measure, Task};
use crate::units::suggest::nearest;
use activator::client::{self, Error as ClientError, TransportError};
use activator::control::{self, Failure as Refusal, Request, UnitName, Whose};
use activator::ctl;
use rouse_qemu::connect::{ConnectError, Patience, Route, Stream};
use rouse_qemu::registry::{Entry, Registry, RegistryError};
use rouse_qemu::splice::splice;
use std::collections::BTreeSet;
use std::io::{self, Write};
use std::time::{Duration, Instant};

/// How long a guest may take to stop its services and switch off.
const POWEROFF_PATIENCE: Duration = Duration::from_secs(120);
/// How long a guest may take for an answer that it has at hand.
const ANSWER_PATIENCE: Duration = Duration::from_secs(30);

const BUSY: &str = "a guest that is busy answers later";

/// The VM of that name.
pub fn find(name: &str) -> Result<Entry, Failure> {
    let failed = |error: RegistryError| Failure::of(FAILED, &error);
    let registry = Registry::open().map_err(failed)?;
    registry.find(name).map_err(|error| {
        let is_missing = matches!(error, RegistryError::NotFound(_));
        let running = registry.list().unwrap_or_default();
        let names = running.iter().map(|entry| entry.record.name.as_str());
        let hint = is_missing.then(|| not_running(name, &names.collect::<Vec<_>>()));
        hinted(failed(error), hint)
    })
}

/// What may be meant by a name that no VM has.
fn not_running(name: &str, running: &[&str]) -> String {
    match (nearest(name, running.iter().copied()), running) {
        (Some(near), _) => format!("did you mean {near}?"),
        (None, []) => "no appliance runs; `rouse run DIR` starts one".into(),
        (None, _) => "`rouse list` shows what runs".into(),
    }
}

/// A stream to its control port, with the token.
pub fn control(entry: &Entry, patience: Patience) -> Result<(Stream, String), Failure> {
    let token = entry
        .token()
        .map_err(|error| Failure::new(FAILED, "read the VM's token").because(error))?;
    let stream = reach(entry, control::PORT, patience)?;
    Ok((stream, token))
}

/// A stream to one of its ports. What stands in the way is said for a person.
fn reach(entry: &Entry, port: u32, patience: Patience) -> Result<Stream, Failure> {
    Route::of(entry).connect(port, patience).map_err(|error| {
        let (code, hint) = match &error {
            ConnectError::Refused(_) => {
                let hint = format!("`rouse status {}` lists what listens", entry.record.name);
                (FAILED, Some(hint))
            }
            ConnectError::TimedOut(_) => (TRY_AGAIN, Some(BUSY.into())),
            ConnectError::Gone(_) => (FAILED, None),
            ConnectError::Protocol { .. } => (BUG, None),
            ConnectError::System { .. } => (UNAVAILABLE, None),
        };
        hinted(Failure::of(code, &error), hint)
    })
}

/// What the guest's refusal means for a person.
pub(super) fn refused(name: &str, what: String, error: ClientError) -> Failure {
    use io::ErrorKind::{TimedOut, WouldBlock};
    let (code, hint) = match &error {
        ClientError::Refused(Refusal::NoSuchUnit(_)) => {
            (FAILED, Some(format!("`rouse status {name}` lists the units")))
        }
        ClientError::Refused(Refusal::NoSuchUser(_)) => {
            (FAILED, Some(format!("`rouse status {name}` lists the users with units")))
        }
        ClientError::Refused(Refusal::WhichUser(names)) if !names.is_empty() => {
            (FAILED, Some("say which with --user NAME".into()))
        }
        ClientError::Refused(Refusal::StartFailed(_) | Refusal::ReloadFailed) => {
            (FAILED, Some(format!("`rouse logs {name}` tells why")))
        }
        ClientError::Refused(Refusal::BadRequest) => (BUG, None),
        ClientError::Refused(Refusal::NoAnswer)
        | ClientError::Transport(TransportError::Io(WouldBlock | TimedOut)) => {
            (TRY_AGAIN, Some(BUSY.into()))
        }
        ClientError::Refused(_) => (FAILED, None),
        ClientError::Transport(_) => {
            (FAILED, Some("`rouse list` shows whether it still runs".into()))
        }
    };
    hinted(Failure::new(code, what).because(error), hint)
}

pub(super) fn hinted(failure: Failure, hint: Option<String>) -> Failure {
    match hint {
        Some(hint) => failure.hint(hint),
        None => failure,
    }
}

/// `rouse list`
pub fn list(arguments: &List) -> Result<(), Failure> {
    let entries = Registry::open()
        .and_then(|registry| registry.list())
        .map_err(|error| Failure::new(FAILED, "list the VMs").because(error))?;
    if arguments.json {
        let records: Vec<_> = entries.iter().map(|entry| &entry.record).collect();
        return print_json(&records);
    }
    if entries.is_empty() {
        terminal::note("no appliance runs; `rouse run DIR` starts one");
    }
    let mut text = String::new();
    for entry in &entries {
        let record = &entry.record;
        let stage = serde_json::to_value(record.stage).unwrap_or_default();
        text += &format!(
            "{:<20} {:<8} CID {:<6} {:<8} {:<7} {}\n",
            record.name,
            stage.as_str().unwrap_or_default(),
            record.cid,
            record.arch.as_str(),
            record.accelerator.map_or("", |accelerator| accelerator.as_str()),
            record.appliance.display()
        );
    }
    print(&text)
}

/// `rouse connect`
pub fn connect(arguments: &Connect) -> Result<(), Failure> {
    let entry = find(&arguments.name)?;
    let stream = reach(&entry, arguments.port, Patience::ONCE)?;
    let input = io::stdin();
    splice(&stream, std::os::fd::AsFd::as_fd(&input), io::stdout())
        .map_err(|error| Failure::new(FAILED, "carry bytes").because(error))
}

/// `rouse status`
pub fn status(arguments: &Status) -> Result<(), Failure> {
    let entry = find(&arguments.name)?;
    let (stream, token) = control(&entry, Patience::ONCE)?;
    answers_soon(&stream)?;
    let name = &arguments.name;
    let mut status = client::status(stream, &token)
        .map_err(|error| refused(name, format!("ask {name} for its status"), error))?;
    if let Some(wanted) = &arguments.user {
        let is_wanted = |user: &Option<String>| {
            user.as_ref().is_some_and(|user| wanted.is_empty() || user == wanted)
        };
        let users = status.sockets.iter().map(|socket| &socket.user);
        let users: BTreeSet<&str> = users
            .chain(status.services.iter().map(|service| &service.user))
            .filter_map(Option::as_deref)
            .collect();
        if !wanted.is_empty() && !users.contains(wanted.as_str()) {
            let hint = match users.into_iter().collect::<Vec<_>>() {
                none if none.is_empty() => format!("{name} has no users with units"),
                users => format!("{name} has units of {}", users.join(", ")),
            };
            return Err(Failure::new(FAILED, format!("find units of user {wanted}")).hint(hint));
        }
        status.sockets.retain(|socket| is_wanted(&socket.user));
        status.services.retain(|service| is_wanted(&service.user));
    }
    if arguments.json { print_json(&status) } else { print(&ctl::describe(&status)) }
}

/// Gives up a guest that hangs.
fn answers_soon(stream: &Stream) -> Result<(), Failure> {
    stream
        .set_read_timeout(Some(ANSWER_PATIENCE))
        .map_err(|error| Failure::new(BUG, "prepare a connection").because(error))
}

/// `rouse logs`
pub fn logs(arguments: &Logs) -> Result<(), Failure> {
    let entry = find(&arguments.name)?;
    let (stream, token) = control(&entry, Patience::ONCE)?;
    if !arguments.follow {
        answers_soon(&stream)?;
    }
    let mut stdout = io::stdout().lock();
    let unit = arguments.unit.as_deref();
    let unit = unit.map(|unit| unit_name(unit, arguments.user.as_deref()));
    let result = client::logs(stream, &token, unit.as_ref(), arguments.follow, |line| {
        if arguments.json {
            serde_json::to_writer(&mut stdout, &line)?;
            stdout.write_all(b"\n")?;
        } else {
            stdout.write_all(ctl::describe_line(&line).as_bytes())?;
        }
        stdout.flush()
    });
    match result {
        // Somebody read enough of it.
        Err(ClientError::Transport(TransportError::Io(io::ErrorKind::BrokenPipe))) => Ok(()),
        // Followed until the guest went down.
        Err(ClientError::Transport(
            TransportError::Closed | TransportError::Io(io::ErrorKind::ConnectionReset),
        )) if arguments.follow => Ok(()),
        result => {
            let name = &arguments.name;
            result.map_err(|error| refused(name, format!("read the logs of {name}"), error))
        }
    }
}

/// A unit, and what `--user` says.
fn unit_name(name: &str, user: Option<&str>) -> UnitName {
    let whose = match user {
        None => Whose::System,
        Some("") => Whose::SoleUser,
        Some(user) => Whose::User(user.to_owned()),
    };
    UnitName { name: full_name(name), whose }
}

/// A unit's name as systemctl(1) takes it: without a suffix it is a service's.
pub(super) fn full_name(name: &str) -> String {
    if name.contains('.') { name.to_owned() } else { format!("{name}.service") }
}

/// What `start`, `stop`, `restart` and `reload-unit` do to a unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// `rouse start`
    Start,
    /// `rouse stop`
    Stop,
    /// `rouse restart`
    Restart,
    /// `rouse reload-unit`
    Reload,
}

/// `rouse start`, `stop`, `restart`, `reload-unit`
pub fn change(arguments: &UnitOf, change: Change) -> Result<(), Failure> {
    let unit = unit_name(&arguments.unit, arguments.user.as_deref());
    let (verb, request) = match change {
        Change::Start => ("start", Request::Start(unit)),
        Change::Stop => ("stop", Request::Stop(unit)),
        Change::Restart => ("restart", Request::Restart(unit)),
        Change::Reload => ("reload", Request::ReloadUnit(unit)),
    };
    let entry = find(&arguments.name)?;
    let (stream, token) = control(&entry, Patience::ONCE)?;
    client::order(stream, &token, &request)
        .map_err(|error| refused(&arguments.name, format!("{verb} {}", arguments.unit), error))
}

/// `rouse poweroff`: returns when the VM is gone.
pub fn poweroff(arguments: &Poweroff) -> Result<(), Failure> {
    let name = &arguments.name;
    let entry = find(name)?;
    let _task = Task::begin(format!("powering {name} off"), Measure::None, 0);
    let asked = control(&entry, Patience::ONCE).and_then(|(stream, token)| {
        answers_soon(&stream)?;
        match client::order(stream, &token, &Request::Poweroff) {
            // Somebody else has asked already.
            Err(ClientError::Refused(Refusal::ShuttingDown)) => Ok(()),
            result => result.map_err(|error| refused(name, format!("power {name} off"), error)),
        }
    });
    if let Err(failure) = asked
        && entry.is_alive()
    {
        // A guest that does not listen is switched off by its VM's process, hard if need be.
        terminal::warn(format!("{name} does not answer: ending its VM"));
        entry.terminate().map_err(|error| failure.because(error))?;
    }
    let end = Instant::now() + POWEROFF_PATIENCE;
    while entry.is_alive() {
        if Instant::now() > end {
            return Err(Failure::new(TRY_AGAIN, format!("see {name} end"))
                .hint(format!("its process is {}", entry.record.pid)));
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

/// Data for stdout. A reader that has left is nobody's error.
pub fn print(text: &str) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failure::new(FAILED, "write to stdout").because(error))
        }
        _ => Ok(()),
    }
}

/// Data for stdout, as JSON.
pub fn print_json(value: &impl serde::Serialize) -> Result<(), Failure> {
    let text = serde_json::to_string_pretty(value)
        .map_err(|error| Failure::new(BUG, "write JSON").because(error))?;
    print(&(text + "\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_without_a_suffix_is_a_service() {
        assert_eq!(full_name("echo"), "echo.service");
        assert_eq!(full_name("echo@1"), "echo@1.service");
        assert_eq!(full_name("echo.socket"), "echo.socket");
    }

    #[test]
    fn who_misspells_a_vm_is_told_its_name() {
        assert_eq!(not_running("ehco", &["echo", "httpd"]), "did you mean echo?");
        assert_eq!(not_running("podman", &["echo"]), "`rouse list` shows what runs");
        assert!(not_running("echo", &[]).contains("`rouse run DIR`"));
    }
}
