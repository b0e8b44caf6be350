//! Sockets in words.

use super::{Names, limit, line, show};
use crate::units::value::time;
use activator::address::kind_name;
use activator::manifest::{Execution, RateLimit, Socket, Unit};

pub(super) fn describe(text: &mut String, socket: &Socket, unit: &Unit, names: &Names<'_>) {
    for listener in &socket.listeners {
        line(text, kind_name(listener.kind), &listener.address.to_string());
    }
    line(text, "starts", names.one(socket.service));
    if let Some(accept) = socket.accept {
        line(text, "accepts", &format!("{} connections at a time", accept.max_connections));
        if accept.max_per_source > 0 {
            line(text, "", &format!("{} of one peer", accept.max_per_source));
        }
    }
    if !socket.allow_cids.is_empty() {
        let cids: Vec<String> = socket.allow_cids.iter().map(u32::to_string).collect();
        line(text, "only from", &format!("context ids {}", cids.join(" ")));
    }
    if socket.fd_name != unit.name {
        line(text, "fd name", &socket.fd_name);
    }
    if socket.mode != 0o666 {
        line(text, "mode", &format!("{:04o}", socket.mode));
    }
    if socket.directory_mode != 0o755 {
        line(text, "folders", &format!("mode {:04o}", socket.directory_mode));
    }
    if let Some((uid, gid)) = socket.owner {
        line(text, "owner", &format!("{uid}:{gid}"));
    }
    if !socket.symlinks.is_empty() {
        line(text, "links", &socket.symlinks.join(" "));
    }
    if socket.remove_on_stop {
        line(text, "on stop", "removes its nodes");
    }
    if socket.flush_pending {
        line(text, "on start", "drops what waits");
    }
    if let Some(only) = socket.ipv6_only {
        line(text, "ipv6", if only { "only" } else { "and IPv4" });
    }
    if socket.backlog != i32::MAX as u32 {
        line(text, "backlog", &socket.backlog.to_string());
    }
    for option in &socket.options {
        line(text, "option", &format!("{option:?}"));
    }
    if socket.protocol != 0 {
        line(text, "protocol", &socket.protocol.to_string());
    }
    if socket.pipe_size > 0 {
        line(text, "holds", &format!("{} bytes", socket.pipe_size));
    }
    if socket.writable {
        line(text, "opened", "for writing, too");
    }
    if let Some((messages, bytes)) = socket.message_queue {
        line(text, "holds", &format!("{messages} messages of {bytes} bytes"));
    }
    commands(text, socket);
    let usual = |burst| RateLimit { interval_us: 2_000_000, burst };
    let (triggers, polls) = if socket.accept.is_some() { (200, 150) } else { (20, 15) };
    if socket.trigger_limit != usual(triggers) {
        line(text, "triggers", &limit(socket.trigger_limit));
    }
    if socket.poll_limit != usual(polls) {
        line(text, "polls", &limit(socket.poll_limit));
    }
}

/// What the unit itself runs.
fn commands(text: &mut String, socket: &Socket) {
    for (word, commands) in [
        ("before", &socket.start_pre),
        ("then", &socket.start_post),
        ("stop", &socket.stop_pre),
        ("at the end", &socket.stop_post),
    ] {
        for command in commands {
            line(text, word, &show(command));
        }
    }
    if socket.pass_fds_to_exec {
        line(text, "gives", "its sockets to these commands");
    }
    if socket.timeout_us != 90_000_000 {
        let timeout = match socket.timeout_us {
            0 => "any time".into(),
            timeout => time::show(timeout),
        };
        line(text, "each", &format!("may take {timeout}"));
    }
    if socket.execution != Execution::default() {
        super::execution::describe(text, &socket.execution);
    }
}
