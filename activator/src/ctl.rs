//! `activator ctl`: root's way to ask and tell the activator, inside the guest.
//!
//! ```text
//! activator ctl [--control PATH] status [--json]
//! activator ctl [--control PATH] start|stop|restart|reload UNIT [--user[=NAME]]
//! activator ctl [--control PATH] logs [UNIT] [-f|--follow] [--user[=NAME]]
//! activator ctl [--control PATH] poweroff
//! ```
//! Data goes to stdout, everything else to stderr. A unit without a suffix is a service.

use crate::client::{self, Error};
use crate::control::{
    InstanceStatus, Line, Request, SOCKET, ServiceStatus, SocketStatus, Status, UnitName, Whose,
};
use crate::exit;
use crate::json;
use std::ffi::OsString;
use std::fmt::Write as _;
use std::io::{self, Write};
use std::os::unix::net::UnixStream;
use std::process::ExitCode;

const USAGE: &str = "usage: activator ctl [--control PATH] VERB
  status [--json]            what listens and runs
  start|stop|restart|reload UNIT
                             returns when it is done
  logs [UNIT] [-f]           kept lines; -f goes on with new ones
  --user[=NAME]              the unit is one of that user's, or of the only one's
  poweroff                   stop all services, then switch off";

/// `args` is what stands behind `ctl`.
pub fn main(args: &[OsString]) -> ExitCode {
    if let [word] = args
        && (word == "--help" || word == "-h")
    {
        println!("{USAGE}");
        return ExitCode::SUCCESS;
    }
    let Some(call) = Call::parse(args) else {
        eprintln!("{USAGE}");
        return ExitCode::from(exit::USAGE);
    };
    let stream = match UnixStream::connect(&call.control) {
        Ok(stream) => stream,
        Err(error) => {
            let path = call.control.to_string_lossy();
            eprintln!("activator ctl: cannot connect to {path}: {error}");
            return ExitCode::from(exit::UNAVAILABLE);
        }
    };
    match carry_out(stream, &call) {
        Ok(()) => ExitCode::SUCCESS,
        // The reader of our stdout has left, as `| head` does.
        Err(Error::Transport(client::TransportError::Io(io::ErrorKind::BrokenPipe))) => {
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("activator ctl: {error}");
            ExitCode::from(exit::FAILED)
        }
    }
}

/// A command line that makes sense.
#[derive(Debug, PartialEq, Eq)]
struct Call {
    control: OsString,
    request: Request,
    json: bool,
}

impl Call {
    fn parse(args: &[OsString]) -> Option<Self> {
        let (mut control, mut json, mut follow) = (OsString::from(SOCKET), false, false);
        let mut words = Vec::new();
        let mut whose = Whose::System;
        let mut args = args.iter();
        while let Some(arg) = args.next() {
            match arg.to_str() {
                Some("--control") => control = args.next()?.clone(),
                Some("--json") => json = true,
                Some("-f" | "--follow") => follow = true,
                Some("--user") => whose = Whose::SoleUser,
                Some(word) if word.starts_with("--user=") => {
                    whose = Whose::User(word["--user=".len()..].to_owned());
                }
                Some(word) if !word.starts_with('-') => words.push(word),
                _ => return None,
            }
        }
        let of_user = whose != Whose::System;
        let unit = |name: &str| UnitName { name: name.to_owned(), whose: whose.clone() };
        let request = match words[..] {
            ["status"] => Request::Status,
            ["start", name] => Request::Start(unit(name)),
            ["stop", name] => Request::Stop(unit(name)),
            ["restart", name] => Request::Restart(unit(name)),
            ["reload", name] => Request::ReloadUnit(unit(name)),
            ["logs"] => Request::Logs { unit: None, follow },
            ["logs", name] => Request::Logs { unit: Some(unit(name)), follow },
            ["poweroff"] => Request::Poweroff,
            _ => return None,
        };
        let no_unit = matches!(
            request,
            Request::Status | Request::Poweroff | Request::Logs { unit: None, .. }
        );
        let misplaced = json && request != Request::Status
            || of_user && no_unit
            || follow && !matches!(request, Request::Logs { .. });
        (!misplaced).then_some(Self { control, request, json })
    }
}

fn carry_out(stream: UnixStream, call: &Call) -> Result<(), Error> {
    let mut out = io::stdout().lock();
    match &call.request {
        Request::Status => {
            let status = client::status(stream, "")?;
            let text = if call.json { json::status(&status) } else { describe(&status) };
            out.write_all(text.as_bytes())?;
            out.flush()?;
        }
        Request::Logs { unit, follow } => {
            client::logs(stream, "", unit.as_ref(), *follow, |line| {
                out.write_all(describe_line(&line).as_bytes())?;
                out.flush()
            })?;
        }
        request => client::order(stream, "", request)?,
    }
    Ok(())
}

/// One line of a log as people read it: time in UTC, unit, text; with a newline.
pub fn describe_line(line: &Line) -> String {
    let text = client::printable(&line.text);
    let unit = client::full_name(line.user.as_deref(), &line.unit);
    format!("{} {unit}: {text}\n", client::timestamp(line.realtime_us))
}

/// A status for people, at most 80 columns wide where names and addresses allow: the system's
/// units, then those of each user below the user's name.
pub fn describe(status: &Status) -> String {
    let seconds = |us: u64| format!("{}.{} s", us / 1_000_000, us / 100_000 % 10);
    let up = seconds(status.now_us.saturating_sub(status.started_us));
    let memory = bytes(status.activator_memory);
    let mut text = format!("{}: {}, up {up}, activator {memory}\n", status.name, status.state);
    let sockets = status.sockets.iter().map(|socket| &socket.user);
    let services = status.services.iter().map(|service| &service.user);
    let mut users: Vec<&Option<String>> = sockets.chain(services).collect();
    users.sort();
    users.dedup();
    for user in users {
        if let Some(user) = user {
            let _ = write!(text, "\nuser {user}\n");
        }
        status.sockets.iter().filter(|it| it.user == *user).for_each(|it| socket(&mut text, it));
        status.services.iter().filter(|it| it.user == *user).for_each(|it| service(&mut text, it));
        status
            .instances
            .iter()
            .filter(|it| it.user == *user)
            .for_each(|it| instance(&mut text, it));
    }
    text
}

fn socket(text: &mut String, socket: &SocketStatus) {
    let _ = write!(
        text,
        "\n{}: {}, starts {}, {} triggered",
        socket.name, socket.state, socket.service, socket.triggered
    );
    if socket.refused > 0 {
        let _ = write!(text, ", {} refused", socket.refused);
    }
    if socket.accepted > 0 {
        let _ = write!(text, ", {} accepted, {} connected", socket.accepted, socket.connections);
    }
    text.push('\n');
    for address in &socket.addresses {
        let _ = writeln!(text, "    {address}");
    }
}

fn service(text: &mut String, service: &ServiceStatus) {
    let _ = write!(text, "\n{}: {}", service.name, service.state);
    if let Some(health) = &service.health {
        let _ = write!(text, ", {health}");
    }
    if let Some(pid) = service.main_pid {
        let _ = write!(text, ", pid {pid}");
    }
    let times = if service.starts == 1 { "start" } else { "starts" };
    let _ = write!(text, ", {} {times}", service.starts);
    if service.restarts > 0 {
        let _ = write!(text, " ({} by Restart=)", service.restarts);
    }
    if let Some(memory) = service.memory {
        let _ = write!(text, ", {}", bytes(memory));
    }
    if let Some(exit) = &service.last_exit {
        let _ = write!(text, ", last {exit}");
    }
    text.push('\n');
    if !service.text.is_empty() {
        let _ = writeln!(text, "    \"{}\"", client::printable(&service.text));
    }
}

fn instance(text: &mut String, instance: &InstanceStatus) {
    let _ = write!(text, "\n{}: {}", instance.name, instance.state);
    if let Some(pid) = instance.main_pid {
        let _ = write!(text, ", pid {pid}");
    }
    let _ = writeln!(text, ", for {}", instance.peer);
}

fn bytes(number: u64) -> String {
    match number {
        0..10_240 => format!("{number} bytes"),
        10_240..10_485_760 => format!("{} KiB", number >> 10),
        _ => format!("{} MiB", number >> 20),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Option<Call> {
        let args: Vec<OsString> = line.split_whitespace().map(OsString::from).collect();
        Call::parse(&args)
    }

    #[test]
    fn command_lines() {
        let call = parse("--control /x status --json").unwrap();
        assert_eq!((call.control, call.request, call.json), ("/x".into(), Request::Status, true));
        let logs = Request::Logs { unit: Some("a.service".into()), follow: true };
        assert_eq!(parse("logs -f a.service").unwrap().request, logs);
        assert_eq!(parse("start a").unwrap().request, Request::Start("a".into()));
        let of = |whose| UnitName { name: "a".into(), whose };
        let start = |line| parse(line).map(|call| call.request);
        assert_eq!(start("start a --user"), Some(Request::Start(of(Whose::SoleUser))));
        let ann = Whose::User("ann".into());
        assert_eq!(start("--user=ann start a"), Some(Request::Start(of(ann))));
        for wrong in [
            "",
            "start",
            "start a b",
            "status --user",
            "status -f",
            "stop --json a",
            "--control",
            "x",
        ] {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
    }

    fn status() -> Status {
        Status {
            name: "echo".into(),
            state: "running".into(),
            started_us: 1_000_000,
            listening_us: 1_200_000,
            now_us: 13_345_678,
            activator_memory: 110_592,
            sockets: vec![SocketStatus {
                name: "echo.socket".into(),
                user: None,
                addresses: vec!["stream 127.0.0.1:3000".into(), "stream vsock:1:3".into()],
                state: "listening".into(),
                service: "echo.service".into(),
                triggered: 2,
                refused: 0,
                accepted: 7,
                connections: 1,
            }],
            services: vec![ServiceStatus {
                name: "echo.service".into(),
                user: None,
                state: "dead".into(),
                main_pid: None,
                starts: 2,
                restarts: 1,
                memory: None,
                last_exit: Some("exited 0".into()),
                text: "at rest".into(),
                health: Some("healthy".into()),
            }],
            instances: vec![InstanceStatus {
                name: "echo@6-1:3-2:9.service".into(),
                user: None,
                socket: "echo.socket".into(),
                state: "running".into(),
                main_pid: Some(50),
                peer: "vsock:2:9".into(),
            }],
        }
    }

    #[test]
    fn a_status_reads_well() {
        assert_eq!(
            describe(&status()),
            "echo: running, up 12.3 s, activator 108 KiB\n\
             \n\
             echo.socket: listening, starts echo.service, 2 triggered, 7 accepted, 1 connected\n\
             \x20   stream 127.0.0.1:3000\n\
             \x20   stream vsock:1:3\n\
             \n\
             echo.service: dead, healthy, 2 starts (1 by Restart=), last exited 0\n\
             \x20   \"at rest\"\n\
             \n\
             echo@6-1:3-2:9.service: running, pid 50, for vsock:2:9\n"
        );
    }

    #[test]
    fn units_of_users_stand_below_their_users() {
        let mut status = status();
        let mut socket = status.sockets[0].clone();
        socket.user = Some("ann".into());
        socket.addresses.truncate(1);
        status.sockets.push(socket);
        let text = describe(&status);
        let end = "\nuser ann\n\
             \n\
             echo.socket: listening, starts echo.service, 2 triggered, \
             7 accepted, 1 connected\n\
             \x20   stream 127.0.0.1:3000\n";
        assert!(text.ends_with(end), "{text}");
    }

    #[test]
    fn json_is_the_status_as_it_stands() {
        let mut status = status();
        status.services[0].text = "a \"b\" \\ \u{1}\n\u{e9}".into();
        status.sockets[0].addresses.clear();
        let as_serde = |status: &Status| serde_json::to_string_pretty(status).unwrap() + "\n";
        // serde has short forms of some control characters.
        let shown = json::status(&status).replace("\\u000a", "\\n");
        assert_eq!(shown, as_serde(&status));
        status.sockets.clear();
        status.services[0].text.clear();
        assert_eq!(json::status(&status), as_serde(&status));
    }
}
