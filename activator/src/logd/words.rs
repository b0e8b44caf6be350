//! What PID 1 tells of its own accord, in words.

use crate::address::kind_name;
use crate::control::{Event, Exit, Refusal};
use crate::manifest::{ListenKind, Listener, Manifest, UnitId, UnitKind};
use std::io;

/// The text of an event; the unit's name stands before it anyway.
pub fn describe(manifest: &Manifest, unit: Option<UnitId>, event: Event) -> String {
    let listeners = listeners(manifest, unit);
    match event {
        Event::Listening => {
            let addresses: Vec<String> = listeners.iter().map(describe_listener).collect();
            format!("listening on {}", addresses.join(", "))
        }
        Event::OpenFailed(index, errno) => {
            let address = nth(listeners, index);
            format!("cannot listen on {address}: {}; trying again", cause(errno))
        }
        Event::WatchFailed(index, errno) => {
            let address = nth(listeners, index);
            format!(
                "cannot watch {address}, on which the kernel tells of no events: {}",
                cause(errno)
            )
        }
        Event::AcceptFailed(index, errno) => {
            let address = nth(listeners, index);
            format!("cannot accept on {address}: {}; trying again", cause(errno))
        }
        Event::Triggered(index) => {
            let packets = listeners
                .get(usize::from(index))
                .is_some_and(|listener| listener.kind == ListenKind::Datagram);
            let what = if packets { "packet" } else { "connection" };
            format!("{what} on {}", nth(listeners, index))
        }
        Event::Paused(us) => format!("too much in too short a time, pausing for {}", span(us)),
        Event::Started(pid) => format!("started, process {pid}"),
        Event::Ready => "up".to_owned(),
        Event::SpawnFailed(errno) => format!("cannot be executed: {}", cause(errno)),
        Event::Exited(exit) => format!("main process {}", ended(exit)),
        Event::CommandFailed(exit) => format!("a control command {}", ended(exit)),
        Event::TimedOut(signal) => format!("timed out, sent {}", signal_name(signal)),
        Event::Skipped => "not started, a condition does not hold".to_owned(),
        Event::StoreFull => "its fd store is full, an fd was closed".to_owned(),
        Event::Stopped => "down".to_owned(),
        Event::Failed => "failed".to_owned(),
        Event::Booted => "all units of the boot are started, sockets listen".to_owned(),
        Event::ShuttingDown => "stopping all services".to_owned(),
        Event::Refused(Refusal::Connections) => {
            "connection closed, MaxConnections= are open".to_owned()
        }
        Event::Refused(Refusal::Source) => {
            "connection closed, MaxConnectionsPerSource= of its source are open".to_owned()
        }
        Event::Refused(Refusal::Cid) => "connection closed, not from an X-AllowCID=".to_owned(),
        Event::Idle => "nobody has been connected for long enough, stopping".to_owned(),
        Event::Frozen => "nobody has been connected for long enough, frozen".to_owned(),
        Event::Healthy => "is healthy".to_owned(),
        Event::Unhealthy(failures) => {
            format!("is unhealthy: its check has failed {failures} times in a row")
        }
        Event::Thawed => "thawed for a connection".to_owned(),
        Event::Lost(count) => format!("{count} messages before this one were lost"),
    }
}

/// `stream 127.0.0.1:3000`.
pub fn describe_listener(listener: &Listener) -> String {
    format!("{} {}", kind_name(listener.kind), listener.address)
}

/// Listen lines of a socket unit; none for other units.
pub fn listeners(manifest: &Manifest, unit: Option<UnitId>) -> &[Listener] {
    match unit.and_then(|id| manifest.unit(id)).map(|unit| &unit.kind) {
        Some(UnitKind::Socket(socket)) => &socket.listeners,
        _ => &[],
    }
}

fn nth(listeners: &[Listener], index: u16) -> String {
    let listener = listeners.get(usize::from(index));
    listener.map_or_else(|| format!("listener {index}"), describe_listener)
}

fn cause(errno: i32) -> io::Error {
    io::Error::from_raw_os_error(errno)
}

fn ended(exit: Exit) -> String {
    match exit {
        Exit::Code(code) => format!("exited with code {code}"),
        Exit::Signal(signal) => format!("was killed by {}", signal_name(signal)),
        Exit::Dumped(signal) => format!("was killed by {} (core dumped)", signal_name(signal)),
    }
}

fn signal_name(signal: i32) -> String {
    let name = match signal {
        libc::SIGHUP => "SIGHUP",
        libc::SIGINT => "SIGINT",
        libc::SIGQUIT => "SIGQUIT",
        libc::SIGILL => "SIGILL",
        libc::SIGTRAP => "SIGTRAP",
        libc::SIGABRT => "SIGABRT",
        libc::SIGBUS => "SIGBUS",
        libc::SIGFPE => "SIGFPE",
        libc::SIGKILL => "SIGKILL",
        libc::SIGUSR1 => "SIGUSR1",
        libc::SIGSEGV => "SIGSEGV",
        libc::SIGUSR2 => "SIGUSR2",
        libc::SIGPIPE => "SIGPIPE",
        libc::SIGALRM => "SIGALRM",
        libc::SIGTERM => "SIGTERM",
        libc::SIGSYS => "SIGSYS",
        other => return format!("signal {other}"),
    };
    name.to_owned()
}

fn span(us: u64) -> String {
    match us {
        0..1_000_000 => format!("{} ms", us.div_ceil(1000)),
        _ => format!("{}.{} s", us / 1_000_000, us / 100_000 % 10),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::logd::tests::manifest;

    #[test]
    fn listeners_are_named_by_kind_and_address() {
        let manifest = manifest();
        let say = |event| describe(&manifest, manifest.find("echo.socket"), event);
        let all = "listening on stream 127.0.0.1:3000, datagram 127.0.0.1:3000";
        assert_eq!(say(Event::Listening), all);
        assert_eq!(say(Event::Triggered(0)), "connection on stream 127.0.0.1:3000");
        assert_eq!(say(Event::Triggered(1)), "packet on datagram 127.0.0.1:3000");
        assert_eq!(say(Event::Triggered(7)), "connection on listener 7");
        let failed = say(Event::OpenFailed(0, libc::EADDRINUSE));
        assert!(failed.starts_with("cannot listen on stream 127.0.0.1:3000: Address"), "{failed}");
    }

    #[test]
    fn ends_and_times_are_in_words() {
        let manifest = manifest();
        let say = |event| describe(&manifest, None, event);
        assert_eq!(say(Event::Exited(Exit::Code(3))), "main process exited with code 3");
        let killed = say(Event::Exited(Exit::Signal(9)));
        assert_eq!(killed, "main process was killed by SIGKILL");
        let dumped = say(Event::CommandFailed(Exit::Dumped(34)));
        assert_eq!(dumped, "a control command was killed by signal 34 (core dumped)");
        let paused = say(Event::Paused(1_999_999));
        assert_eq!(paused, "too much in too short a time, pausing for 1.9 s");
        assert!(say(Event::Paused(1)).ends_with("1 ms"));
    }
}
