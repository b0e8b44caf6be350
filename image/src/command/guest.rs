//! The verbs about a guest that runs: they find it in the registry and ask it over vsock.

use crate::command_line::{Connect, List, Logs, Poweroff, Status, UnitOf};
use crate::exit::{BUG, FAILED, Failure, TRY_AGAIN, UNAVAILABLE};
use activator::client::{self, Error as ClientError};
use activator::control::{self, Failure as Refusal, Request};
use rouse_qemu::connect::{ConnectError, Patience, Route, Stream};
use rouse_qemu::registry::{Entry, Registry, RegistryError};
use rouse_qemu::splice::splice;
use std::io::{self, Write};
use std::time::{Duration, Instant};

/// How long a guest may take to stop its services and switch off.
const POWEROFF_PATIENCE: Duration = Duration::from_secs(120);

/// The VM of that name.
pub fn find(name: &str) -> Result<Entry, Failure> {
    let failed = |error: RegistryError| {
        let missing = matches!(error, RegistryError::NotFound(_));
        let failure = Failure::new(FAILED, format!("find the VM {name}")).because(error);
        if missing { failure.hint("`rouse list` shows what runs") } else { failure }
    };
    Registry::open().map_err(failed)?.find(name).map_err(failed)
}

/// A stream to its control port, with the token.
pub fn control(entry: &Entry, patience: Patience) -> Result<(Stream, String), Failure> {
    let token = entry
        .token()
        .map_err(|error| Failure::new(FAILED, "read the VM's token").because(error))?;
    let stream = Route::of(entry).connect(control::PORT, patience).map_err(unreachable)?;
    Ok((stream, token))
}

/// What a stream that cannot be had means for a person.
fn unreachable(error: ConnectError) -> Failure {
    let (code, hint) = match &error {
        ConnectError::Refused(_) => (FAILED, Some("`rouse status NAME` lists what listens")),
        ConnectError::TimedOut(_) => (TRY_AGAIN, Some("a guest that is busy answers later")),
        ConnectError::Gone(_) => (FAILED, None),
        ConnectError::Protocol { .. } => (BUG, None),
        ConnectError::System { .. } => (UNAVAILABLE, None),
    };
    let failure = Failure::new(code, "reach the guest").because(error);
    match hint {
        Some(hint) => failure.hint(hint),
        None => failure,
    }
}

/// What the guest's refusal means for a person.
fn refused(what: String, error: ClientError) -> Failure {
    let (code, hint) = match &error {
        ClientError::Refused(Refusal::NoSuchUnit(_)) => {
            (FAILED, Some("`rouse status NAME` lists the units"))
        }
        ClientError::Refused(Refusal::StartFailed(_)) => {
            (FAILED, Some("`rouse logs NAME UNIT` tells why"))
        }
        ClientError::Refused(Refusal::BadRequest) => (BUG, None),
        ClientError::Refused(Refusal::NoAnswer) => (TRY_AGAIN, None),
        ClientError::Refused(_) => (FAILED, None),
        ClientError::Transport(_) => (FAILED, Some("`rouse list` shows whether it still runs")),
    };
    let failure = Failure::new(code, what).because(error);
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
    let stream = Route::of(&entry).connect(arguments.port, Patience::ONCE).map_err(unreachable)?;
    let input = io::stdin();
    splice(&stream, std::os::fd::AsFd::as_fd(&input), io::stdout())
        .map_err(|error| Failure::new(FAILED, "carry bytes").because(error))
}

/// `rouse status`
pub fn status(arguments: &Status) -> Result<(), Failure> {
    let entry = find(&arguments.name)?;
    let (stream, token) = control(&entry, Patience::ONCE)?;
    let status = client::status(stream, &token)
        .map_err(|error| refused(format!("ask {} for its status", arguments.name), error))?;
    if arguments.json {
        return print_json(&status);
    }
    let mut text = format!(
        "{} {}, CID {}, up {} s, activator {} KiB\n",
        status.name,
        status.state,
        entry.record.cid,
        status.now_us / 1_000_000,
        status.activator_memory / 1024
    );
    for socket in &status.sockets {
        text += &format!(
            "  {:<28} {:<10} {} -> {}, woke it {} times",
            socket.name,
            socket.state,
            socket.addresses.join(" "),
            socket.service,
            socket.triggered
        );
        if socket.refused > 0 {
            text += &format!(", paused {} times", socket.refused);
        }
        text.push('\n');
    }
    for service in &status.services {
        text += &format!("  {:<28} {:<10} starts {}", service.name, service.state, service.starts);
        if service.restarts > 0 {
            text += &format!(", restarts {}", service.restarts);
        }
        if let Some(pid) = service.main_pid {
            text += &format!(", pid {pid}");
        }
        if let Some(memory) = service.memory {
            text += &format!(", {} KiB", memory / 1024);
        }
        if let Some(exit) = &service.last_exit {
            text += &format!(", last {exit}");
        }
        text.push('\n');
    }
    print(&text)
}

/// `rouse logs`
pub fn logs(arguments: &Logs) -> Result<(), Failure> {
    let entry = find(&arguments.name)?;
    let (stream, token) = control(&entry, Patience::ONCE)?;
    let mut stdout = io::stdout().lock();
    let result =
        client::logs(stream, &token, arguments.unit.as_deref(), arguments.follow, |line| {
            if arguments.json {
                serde_json::to_writer(&mut stdout, &line)?;
                stdout.write_all(b"\n")?;
            } else {
                let time = client::timestamp(line.realtime_us);
                let text = client::printable(&line.text);
                writeln!(stdout, "{time} {}: {text}", line.unit)?;
            }
            stdout.flush()
        });
    match result {
        // Somebody read enough of it.
        Err(ClientError::Transport(client::TransportError::Io(io::ErrorKind::BrokenPipe))) => {
            Ok(())
        }
        // Followed until the guest went down.
        Err(ClientError::Transport(client::TransportError::Closed)) if arguments.follow => Ok(()),
        result => {
            result.map_err(|error| refused(format!("read the logs of {}", arguments.name), error))
        }
    }
}

/// What `start`, `stop` and `restart` do to a unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// `rouse start`
    Start,
    /// `rouse stop`
    Stop,
    /// `rouse restart`
    Restart,
}

/// `rouse start`, `stop`, `restart`
pub fn change(arguments: &UnitOf, change: Change) -> Result<(), Failure> {
    let unit = arguments.unit.clone();
    let (verb, request) = match change {
        Change::Start => ("start", Request::Start(unit)),
        Change::Stop => ("stop", Request::Stop(unit)),
        Change::Restart => ("restart", Request::Restart(unit)),
    };
    let entry = find(&arguments.name)?;
    let (stream, token) = control(&entry, Patience::ONCE)?;
    client::order(stream, &token, &request)
        .map_err(|error| refused(format!("{verb} {}", arguments.unit), error))
}

/// `rouse poweroff`: returns when the VM is gone.
pub fn poweroff(arguments: &Poweroff) -> Result<(), Failure> {
    let entry = find(&arguments.name)?;
    let asked = control(&entry, Patience::ONCE).and_then(|(stream, token)| {
        client::order(stream, &token, &Request::Poweroff)
            .map_err(|error| refused(format!("power {} off", arguments.name), error))
    });
    if let Err(failure) = asked {
        // A guest that does not listen is switched off by its VM's process, hard if need be.
        crate::terminal::warn(format!("{} does not answer: ending its VM", arguments.name));
        entry.terminate().map_err(|error| failure.because(error))?;
    }
    let end = Instant::now() + POWEROFF_PATIENCE;
    while entry.is_alive() {
        if Instant::now() > end {
            return Err(Failure::new(TRY_AGAIN, format!("see {} end", arguments.name))
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
