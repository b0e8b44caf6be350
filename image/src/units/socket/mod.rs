//! `[Socket]`, systemd.socket(5), becomes a [`manifest::Socket`].

mod accept;
mod listen;
mod options;
mod relay;

pub(crate) use relay::{Relay, TO as RELAY_TO};

use super::command::{self, Context};
use super::exec;
use super::keys::Keys;
use super::name::{Kind, Name};
use super::value::{self, Expected, size, time};
use crate::finding::{Finding, Span};
use activator::manifest::{Accept, Address, ListenKind, Listener, RateLimit, Socket};

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
    /// `X-RelayTo=`: the service is for a relay, which is made when all units are known.
    pub(crate) relay: Option<Relay>,
}

/// Reads the section.
pub(crate) fn read(keys: &mut Keys<'_>) -> SocketUnit {
    let (listeners, spans) = listen::read(keys);
    let accept = accept::read(keys, &listeners);
    let relay = relay::read(keys, &listeners, accept);
    let symlinks = symlinks(keys, &listeners);
    let unsigned = value::unsigned;
    let mut limit = |interval: &str, burst: &str, default: u32| RateLimit {
        interval_us: keys.last(SECTION, interval, time::microseconds).unwrap_or(LIMIT_INTERVAL_US),
        burst: keys.last(SECTION, burst, unsigned).unwrap_or(default),
    };
    let (triggers, polls) = if accept.is_some() { (200, 150) } else { (20, 15) };
    let trigger_limit = limit("TriggerLimitIntervalSec", "TriggerLimitBurst", triggers);
    let poll_limit = limit("PollLimitIntervalSec", "PollLimitBurst", polls);
    let mut socket = Socket {
        allow_cids: accept::allowed_cids(keys, accept.is_some() || relay.is_some(), &listeners),
        listeners,
        accept,
        fd_name: fd_name(keys, accept),
        mode: keys.last(SECTION, "SocketMode", value::mode).unwrap_or(0o666),
        owner: owner(keys),
        directory_mode: keys.last(SECTION, "DirectoryMode", value::mode).unwrap_or(0o755),
        symlinks,
        remove_on_stop: keys.flag(SECTION, "RemoveOnStop"),
        flush_pending: keys.flag(SECTION, "FlushPending"),
        backlog: keys
            .last(SECTION, "Backlog", unsigned)
            .map_or(LONGEST_BACKLOG, |backlog| backlog.min(LONGEST_BACKLOG)),
        ipv6_only: keys.last(SECTION, "BindIPv6Only", options::ipv6_only).flatten(),
        options: options::read(keys),
        protocol: keys.setting(SECTION, "SocketProtocol", options::protocol).unwrap_or(0),
        pipe_size: keys.setting(SECTION, "PipeSize", size::bytes).unwrap_or(0),
        writable: keys.flag(SECTION, "Writable"),
        message_queue: message_queue(keys),
        pass_fds_to_exec: keys.flag(SECTION, "PassFileDescriptorsToExec"),
        trigger_limit,
        poll_limit,
        ..Socket::default()
    };
    commands(keys, &mut socket);
    SocketUnit { socket, spans, service: service(keys, accept), relay }
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
    let has_node = |one: &&Listener| {
        matches!(one.address, Address::Path(_)) && one.kind != ListenKind::Special
    };
    let paths = listeners.iter().filter(has_node).count();
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
fn fd_name(keys: &mut Keys<'_>, accept: Option<Accept>) -> String {
    let default = match accept {
        Some(_) => "connection".to_owned(),
        None => keys.unit.name.to_string(),
    };
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

/// The service that a connection starts: with Accept=yes the template of its instances, whatever
/// instance the socket itself is.
fn service(keys: &mut Keys<'_>, accept: Option<Accept>) -> Option<(Name, Span)> {
    let default = keys.unit.section_span(SECTION);
    if accept.is_some() {
        accept::no_service(keys);
        let template = format!("{}@.service", keys.unit.name.prefix());
        return Some((Name::parse(&template)?, default));
    }
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
    Some((keys.unit.name.with_type("service")?, default))
}

/// Both or neither, systemd.socket(5).
fn message_queue(keys: &mut Keys<'_>) -> Option<(u32, u32)> {
    let positive =
        |text: &str| value::number(text, 1, i64::from(i32::MAX)).map(|number| number as u32);
    let messages = keys.setting(SECTION, "MessageQueueMaxMessages", positive);
    let size = keys.setting(SECTION, "MessageQueueMessageSize", positive);
    let alone = match (messages, size) {
        (Some(messages), Some(size)) => return Some((messages, size)),
        (None, None) => return None,
        (Some(_), None) => "MessageQueueMaxMessages",
        (None, Some(_)) => "MessageQueueMessageSize",
    };
    if let Some(line) = keys.unit.all(SECTION, alone).next_back() {
        let expected =
            Expected::Other("`MessageQueueMaxMessages=` and `MessageQueueMessageSize=` together");
        keys.bad(line, &expected);
    }
    None
}

/// The commands of the unit itself, and how they run.
fn commands(keys: &mut Keys<'_>, socket: &mut Socket) {
    let mut exec = exec::read(keys, SECTION);
    let context = Context::new(SECTION, &exec);
    let mut commands = |key: &str| command::list(keys, key, &context);
    socket.start_pre = commands("ExecStartPre");
    socket.start_post = commands("ExecStartPost");
    socket.stop_pre = commands("ExecStopPre");
    socket.stop_post = commands("ExecStopPost");
    socket.timeout_us =
        keys.setting(SECTION, "TimeoutSec", time::timeout).unwrap_or(socket.timeout_us);
    let all = [&socket.start_pre, &socket.start_post, &socket.stop_pre, &socket.stop_post];
    if all.iter().all(|commands| commands.is_empty()) {
        return;
    }
    if all.into_iter().flatten().any(|command| command.expand || command.shell) {
        exec::need_stage2(&mut exec.execution);
    }
    socket.execution = exec.execution;
}
