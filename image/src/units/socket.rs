//! `[Socket]`, systemd.socket(5), becomes a [`manifest::Socket`].

use super::keys::{Keys, Text};
use super::name::{Kind, Name};
use super::table;
use super::value::{self, Expected, size, time};
use crate::finding::{Finding, Span};
use activator::control;
use activator::manifest::{Address, ListenKind, Listener, RateLimit, Socket, SocketOption};

const SECTION: &str = "Socket";
/// systemd's default of TriggerLimitIntervalSec= and PollLimitIntervalSec=.
const LIMIT_INTERVAL_US: u64 = 2_000_000;
/// What listen(2) takes at most; the kernel caps it at net.core.somaxconn.
const LONGEST_BACKLOG: u32 = i32::MAX as u32;

/// A socket unit before its service is known.
#[derive(Debug)]
pub(crate) struct SocketUnit {
    /// `service` is a placeholder until the graph is there.
    pub(crate) socket: Socket,
    /// Where each listener was written.
    pub(crate) spans: Vec<Span>,
    /// The service that it starts, and where that is said.
    pub(crate) service: Option<(Name, Span)>,
}

/// Reads the section.
pub(crate) fn read(keys: &mut Keys<'_>) -> SocketUnit {
    let (listeners, spans) = listeners(keys);
    let symlinks = symlinks(keys, &listeners);
    let unsigned = value::unsigned;
    let mut limit = |interval: &str, burst: &str, default: u32| RateLimit {
        interval_us: keys.last(SECTION, interval, time::microseconds).unwrap_or(LIMIT_INTERVAL_US),
        burst: keys.last(SECTION, burst, unsigned).unwrap_or(default),
    };
    let trigger_limit = limit("TriggerLimitIntervalSec", "TriggerLimitBurst", 20);
    let poll_limit = limit("PollLimitIntervalSec", "PollLimitBurst", 15);
    let socket = Socket {
        listeners,
        fd_name: fd_name(keys),
        mode: keys.last(SECTION, "SocketMode", value::mode).unwrap_or(0o666),
        owner: owner(keys),
        directory_mode: keys.last(SECTION, "DirectoryMode", value::mode).unwrap_or(0o755),
        symlinks,
        remove_on_stop: keys.boolean(SECTION, "RemoveOnStop").unwrap_or(false),
        flush_pending: keys.boolean(SECTION, "FlushPending").unwrap_or(false),
        backlog: keys
            .last(SECTION, "Backlog", unsigned)
            .map_or(LONGEST_BACKLOG, |backlog| backlog.min(LONGEST_BACKLOG)),
        ipv6_only: keys.last(SECTION, "BindIPv6Only", ipv6_only).flatten(),
        options: options(keys),
        trigger_limit,
        poll_limit,
        ..Socket::default()
    };
    SocketUnit { socket, spans, service: service(keys) }
}

/// All Listen lines in their order; an empty one of any kind clears all.
fn listeners(keys: &mut Keys<'_>) -> (Vec<Listener>, Vec<Span>) {
    let unit = keys.unit;
    let mut found = vec![];
    let mut given = false;
    for line in unit.assignments.iter().filter(|line| line.section == SECTION) {
        let kind = match line.key.as_str() {
            "ListenStream" => ListenKind::Stream,
            "ListenDatagram" => ListenKind::Datagram,
            "ListenSequentialPacket" => ListenKind::SequentialPacket,
            "ListenFIFO" => ListenKind::Fifo,
            // Refused kinds: no second error about a unit without listeners.
            key => {
                given |= key.starts_with("Listen") && table::find(SECTION, key).is_some();
                continue;
            }
        };
        given = true;
        if line.value.text.is_empty() {
            found.clear();
            given = false;
            continue;
        }
        let Some(text) = keys.expand(line) else { continue };
        if let Some(address) = address(keys, kind, &text) {
            found.push((Listener { kind, address }, line.value.span()));
        }
    }
    if !given && !unit.broken {
        keys.findings.push(
            Finding::error(unit.section_span(SECTION), "the socket unit has no Listen line")
                .label("nothing to listen on")
                .help("add a line such as `ListenStream=127.0.0.1:3000`"),
        );
    }
    found.into_iter().unzip()
}

fn address(keys: &mut Keys<'_>, kind: ListenKind, text: &Text<'_>) -> Option<Address> {
    let key = &text.assignment.key;
    let span = text.assignment.value.span();
    let refuse = |message: String, label: &str, help: &str| {
        Some(Finding::error(span.clone(), message).label(label).help(help))
    };
    let parsed = if text.text.starts_with('/') {
        // systemd moves paths below /var/run, too.
        let path = keys.path(text)?;
        match path.strip_prefix("/var/run/") {
            Some(rest) => format!("/run/{rest}"),
            None => path,
        }
        .parse::<Address>()
    } else {
        text.text.parse::<Address>()
    };
    let finding = match (&parsed, kind) {
        (Err(expected), _) => refuse(
            format!("`{key}=` has an address that does not parse: `{}`", text.text),
            &expected.to_string(),
            "see ListenStream= in systemd.socket(5) for all forms of addresses",
        ),
        (Ok(Address::Vsock(..)), ListenKind::Datagram) => refuse(
            format!("`{key}=` cannot listen on vsock: virtio has no vsock datagrams"),
            "vsock carries streams only",
            "write `ListenStream=` for a vsock address",
        ),
        (Ok(Address::Path(_) | Address::Abstract(_)), ListenKind::SequentialPacket) => None,
        (Ok(_), ListenKind::SequentialPacket) => refuse(
            format!("`{key}=` is for Unix sockets only"),
            "expected a path or `@name`",
            "write `ListenStream=` for this address",
        ),
        (Ok(Address::Path(_)), ListenKind::Fifo) => None,
        (Ok(_), ListenKind::Fifo) => refuse(
            format!("`{key}=` takes the path of a FIFO"),
            "expected an absolute path",
            "write a path below /run",
        ),
        (Ok(Address::Vsock(_, control::PORT)), _) => refuse(
            format!("`{key}=` takes the vsock port of rouse's own control protocol"),
            "this port is taken in every appliance",
            "choose another port",
        ),
        _ => None,
    };
    keys.findings.extend(finding.clone());
    if finding.is_some() { None } else { parsed.ok() }
}

fn symlinks(keys: &mut Keys<'_>, listeners: &[Listener]) -> Vec<String> {
    let mut links = vec![];
    let lines = keys.list(SECTION, "Symlinks");
    for line in &lines {
        let Some(text) = keys.expand(line) else { continue };
        let Some(words) = keys.words(&text) else { continue };
        for word in words.words {
            match value::path(&word.text) {
                Ok(path) => links.push(path),
                Err(expected) => keys.bad(line, &expected),
            }
        }
    }
    let paths = listeners.iter().filter(|one| matches!(one.address, Address::Path(_))).count();
    if let (Some(line), true) = (lines.first(), paths != 1) {
        let message = format!("`Symlinks=` needs exactly one Unix path to point to, not {paths}");
        keys.findings.push(
            Finding::error(line.key_span.clone(), message)
                .label("which path is meant?")
                .help("put the path and its links into a socket unit of their own"),
        );
    }
    links
}

/// sd_listen_fds_with_names(3): printable ASCII without `:`, at most 255 bytes.
fn fd_name(keys: &mut Keys<'_>) -> String {
    let default = keys.unit.name.to_string();
    let Some(text) = keys.text(SECTION, "FileDescriptorName") else { return default };
    let printable = |byte: u8| (0x20..0x7f).contains(&byte) && byte != b':';
    if text.text.len() <= 255 && text.text.bytes().all(printable) {
        return text.text;
    }
    let expected = Expected::Other("at most 255 printable ASCII characters without `:`");
    keys.bad(text.assignment, &expected);
    default
}

fn owner(keys: &mut Keys<'_>) -> Option<(u32, u32)> {
    let user = match keys.text(SECTION, "SocketUser") {
        Some(text) => Some(keys.user(&text)?),
        None => None,
    };
    let group = match keys.text(SECTION, "SocketGroup") {
        Some(text) => Some(keys.group(&text)?),
        None => None,
    };
    match (user, group) {
        (None, None) => None,
        (user, group) => {
            let (uid, primary) = user.map_or((0, 0), |user| (user.uid, user.gid));
            Some((uid, group.unwrap_or(primary)))
        }
    }
}

fn service(keys: &mut Keys<'_>) -> Option<(Name, Span)> {
    if let Some(text) = keys.text(SECTION, "Service") {
        let span = text.assignment.value.span();
        return match Name::parse(&text.text).filter(|name| name.kind() == Kind::Service) {
            Some(name) => Some((name, span)),
            None => {
                keys.bad(text.assignment, &Expected::Other("the full name of a service"));
                None
            }
        };
    }
    Some((keys.unit.name.with_type("service")?, keys.unit.section_span(SECTION)))
}

fn ipv6_only(text: &str) -> Result<Option<bool>, Expected> {
    match text {
        "default" => Ok(None),
        "both" => Ok(Some(false)),
        "ipv6-only" => Ok(Some(true)),
        other => value::boolean(other)
            .map(Some)
            .map_err(|_| Expected::OneOf(&["default", "both", "ipv6-only"])),
    }
}

/// In the order to set them: what changes the bind comes first.
fn options(keys: &mut Keys<'_>) -> Vec<SocketOption> {
    use SocketOption as Is;
    let mut options = vec![];
    let positive = |seconds: Option<u32>| seconds.filter(|seconds| *seconds > 0);
    let flags_before: [(&str, SocketOption); 3] = [
        ("FreeBind", Is::FreeBind),
        ("Transparent", Is::Transparent),
        ("ReusePort", Is::ReusePort),
    ];
    let flags_after: [(&str, SocketOption); 5] = [
        ("NoDelay", Is::NoDelay),
        ("Broadcast", Is::Broadcast),
        ("PassCredentials", Is::PassCredentials),
        ("PassSecurity", Is::PassSecurity),
        ("PassPacketInfo", Is::PassPacketInfo),
    ];
    for (key, option) in flags_before {
        if keys.boolean(SECTION, key) == Some(true) {
            options.push(option);
        }
    }
    if let Some(text) = keys.text(SECTION, "BindToDevice").filter(|text| text.text != "*") {
        // IFNAMSIZ is 16 with the NUL.
        let plain = text.text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'/');
        if plain && text.text.len() < 16 {
            options.push(Is::BindToDevice(text.text));
        } else {
            keys.bad(text.assignment, &Expected::Other("the name of a network interface"));
        }
    }
    if keys.boolean(SECTION, "KeepAlive") == Some(true) {
        options.push(Is::KeepAlive);
    }
    let seconds = |keys: &mut Keys<'_>, key: &str| positive(keys.last(SECTION, key, time::seconds));
    options.extend(seconds(keys, "KeepAliveTimeSec").map(Is::KeepAliveTimeSec));
    options.extend(seconds(keys, "KeepAliveIntervalSec").map(Is::KeepAliveIntervalSec));
    let probes = positive(keys.last(SECTION, "KeepAliveProbes", value::unsigned));
    options.extend(probes.map(Is::KeepAliveProbes));
    options.extend(seconds(keys, "DeferAcceptSec").map(Is::DeferAcceptSec));
    for (key, option) in flags_after {
        if keys.boolean(SECTION, key) == Some(true) {
            options.push(option);
        }
    }
    options.extend(keys.last(SECTION, "Timestamping", timestamping).flatten());
    let int = |text: &str| value::number(text, -1, i64::from(i32::MAX)).map(|n| n as i32);
    let set = |number: Option<i32>| number.filter(|number| *number >= 0);
    options.extend(set(keys.last(SECTION, "Priority", int)).map(Is::Priority));
    let buffer = |bytes: Option<u64>| bytes.filter(|bytes| *bytes > 0);
    options.extend(buffer(keys.last(SECTION, "ReceiveBuffer", size::bytes)).map(Is::ReceiveBuffer));
    options.extend(buffer(keys.last(SECTION, "SendBuffer", size::bytes)).map(Is::SendBuffer));
    options.extend(set(keys.last(SECTION, "Mark", int)).map(|mark| Is::Mark(mark as u32)));
    options.extend(set(keys.last(SECTION, "IPTOS", type_of_service)).map(Is::IpTos));
    let ttl = |text: &str| value::number(text, -1, 255).map(|n| n as i32);
    options.extend(set(keys.last(SECTION, "IPTTL", ttl)).map(Is::IpTtl));
    options.extend(keys.text(SECTION, "TCPCongestion").map(|text| Is::TcpCongestion(text.text)));
    options
}

fn timestamping(text: &str) -> Result<Option<SocketOption>, Expected> {
    match text {
        "us" | "usec" | "µs" | "μs" => Ok(Some(SocketOption::TimestampingMicroseconds)),
        "ns" | "nsec" => Ok(Some(SocketOption::TimestampingNanoseconds)),
        other => match value::boolean(other) {
            Ok(false) => Ok(None),
            Ok(true) => Ok(Some(SocketOption::TimestampingMicroseconds)),
            Err(_) => Err(Expected::OneOf(&["off", "us", "ns"])),
        },
    }
}

fn type_of_service(text: &str) -> Result<i32, Expected> {
    match text {
        "low-delay" => Ok(0x10),
        "throughput" => Ok(0x08),
        "reliability" => Ok(0x04),
        "low-cost" => Ok(0x02),
        other => value::number(other, -1, 255).map(|n| n as i32).map_err(|_| {
            Expected::Other(
                "a number from 0 to 255, low-delay, throughput, reliability or low-cost",
            )
        }),
    }
}
