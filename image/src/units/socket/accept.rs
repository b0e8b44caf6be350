//! `Accept=yes`, and what only has a meaning with it.

use super::SECTION;
use crate::finding::Finding;
use crate::units::keys::Keys;
use crate::units::value::{self, Expected};
use activator::manifest::{Accept, Address, ListenKind, Listener};

const CIDS: &str = "X-AllowCID";
/// systemd's default of MaxConnections=.
const CONNECTIONS: u32 = 64;
/// What `Accept=yes` says; refuses what systemd's code refuses, which is more than its manual
/// says.
pub(super) fn read(keys: &mut Keys<'_>, listeners: &[Listener]) -> Option<Accept> {
    // 0 is refused whether it matters or not, as in systemd.
    let connections = |text: &str| value::number(text, 1, i64::from(u32::MAX)).map(|n| n as u32);
    let max_connections = keys.setting(SECTION, "MaxConnections", connections);
    let max_per_source = keys.setting(SECTION, "MaxConnectionsPerSource", value::unsigned);
    if !keys.flag(SECTION, "Accept") {
        return None;
    }
    for listener in listeners {
        if !matches!(listener.kind, ListenKind::Stream | ListenKind::SequentialPacket) {
            let kind = activator::address::kind_name(listener.kind);
            let message = format!("`Accept=yes` is for connections, and a {kind} has none");
            refuse(keys, "Accept", message, "put it into a socket unit of its own");
        }
    }
    if let Some(line) = keys.unit.all(SECTION, "MaxConnections").next_back()
        && max_connections.is_some_and(|number| number > Accept::MOST)
    {
        let message = format!(
            "`MaxConnections=` is more than the {} that a guest has room for",
            Accept::MOST
        );
        keys.findings.push(
            Finding::warning(line.value.span(), message)
                .label("for all sockets together")
                .help(format!("write a number up to {}", Accept::MOST)),
        );
    }
    Some(Accept {
        max_connections: max_connections.unwrap_or(CONNECTIONS),
        max_per_source: max_per_source.unwrap_or(0),
    })
}

/// With `Accept=yes` the service is the template of the socket's own name.
pub(super) fn no_service(keys: &mut Keys<'_>) {
    if keys.text(SECTION, "Service").is_some() {
        let message = "`Service=` cannot be said of a socket with `Accept=yes`".to_owned();
        let help = format!(
            "name the template `{}@.service`, and take the line out",
            keys.unit.name.prefix()
        );
        refuse(keys, "Service", message, &help);
    }
}

/// `X-AllowCID=`: our own key. Where neither we nor a relay of ours accepts, nobody could obey it.
pub(super) fn allowed_cids(
    keys: &mut Keys<'_>,
    accepted_by_us: bool,
    listeners: &[Listener],
) -> Vec<u32> {
    let mut cids = vec![];
    for (line, word) in keys.list_words(SECTION, CIDS) {
        match cid(&word.text) {
            Some(cid) => cids.push(cid),
            None => keys.bad_word(
                line,
                &word,
                &Expected::Other("a vsock context id, `hypervisor`, `local` or `host`"),
            ),
        }
    }
    cids.sort_unstable();
    cids.dedup();
    if cids.is_empty() {
        return cids;
    }
    if !accepted_by_us {
        let message = format!("`{CIDS}=` needs `Accept=yes`: else the service accepts by itself");
        let help = "add `Accept=yes` or `X-RelayTo=`, or let the program look at its peers";
        refuse(keys, CIDS, message, help);
    } else if !listeners.iter().all(|one| matches!(one.address, Address::Vsock(..))) {
        let message = format!("`{CIDS}=` is for vsock, and the unit listens elsewhere too");
        refuse(keys, CIDS, message, "put the vsock address into a socket unit of its own");
    }
    cids
}

/// vsock(7); 4294967295 means any, which is what leaving the key out does.
fn cid(text: &str) -> Option<u32> {
    match text {
        "hypervisor" => Some(0),
        "local" => Some(1),
        "host" => Some(2),
        number => value::unsigned(number).ok().filter(|cid| *cid != u32::MAX),
    }
}

pub(super) fn refuse(keys: &mut Keys<'_>, key: &str, message: String, help: &str) {
    let unit = keys.unit;
    let span = match unit.all(SECTION, key).next_back() {
        Some(line) => line.key_span.clone(),
        None => unit.section_span(SECTION),
    };
    keys.findings.push(Finding::error(span, message).label("refused").help(help));
}
