//! From the host to the guest: who comes through the gates, and what they want.

use super::hub::{Hub, Occupant, Purpose};
use super::line::{self, Introduction, Line};
use super::link::{Key, Link, Origin};
use super::packet::HOST_CID;
use super::slots::Token;
use super::stream::Stream;
use rustix::event::epoll::EventFlags;
use std::io;
use std::time::Instant;

/// Source ports for the host's connections. The range is that of nobody else: Linux gives out
/// ports from 1024 upwards at random, and services have low numbers.
pub(super) const FIRST_HOST_PORT: u32 = 1 << 30;
const LAST_HOST_PORT: u32 = (1 << 31) - 1;

/// Accepted in one go, before others have their turn.
const ACCEPT_BATCH: usize = 64;

impl Hub {
    /// A gate has callers.
    pub(super) fn accept(&mut self, gate: usize) {
        for _ in 0..ACCEPT_BATCH {
            if self.slots.is_full() {
                self.complaints.say(self.guest_cid, "too many connections, new ones wait");
                return self.shut_gates();
            }
            let Some(gate) = self.gates.get(gate) else { return };
            let purpose = gate.purpose;
            match gate.entrance.accept() {
                Ok(stream) => self.admit_caller(stream, purpose),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if is_passing(&error) => {}
                Err(error) => {
                    let what = format!("cannot accept a connection, will try again: {error}");
                    self.complaints.say(self.guest_cid, &what);
                    return self.shut_gates();
                }
            }
        }
    }

    fn admit_caller(&mut self, stream: Stream, purpose: Purpose) {
        if let Purpose::Publish(port) = purpose {
            return self.admit_client(stream, port);
        }
        let deadline = Instant::now() + self.limits.handshake;
        if let Ok(token) = self.admit(Occupant::Caller { stream, purpose, deadline }) {
            self.listen_to(token, EventFlags::empty());
        }
    }

    fn admit_client(&mut self, stream: Stream, port: u32) {
        let key = self.free_key(port);
        let mut link = Link::new(key, Origin::Published, self.asking(), Some(stream));
        (link.deadline, link.patience) = self.first_deadlines();
        if let Ok(token) = self.admit_link(link) {
            self.settle(token);
        }
    }

    /// A caller may have said something.
    pub(super) fn listen_to(&mut self, token: Token, flags: EventFlags) {
        let Some(Occupant::Caller { stream, purpose, .. }) = self.slots.get(token) else { return };
        let purpose = *purpose;
        match (line::read(stream), purpose) {
            (Line::Whole(text), Purpose::Connect) => match line::parse_connect(&text) {
                Some(port) => {
                    let key = self.free_key(port);
                    self.promote(token, key);
                }
                None => self.turn_away(token, "request"),
            },
            (Line::Whole(text), _) => match Introduction::parse(&text) {
                Some(introduction) => self.greet(token, introduction),
                None => self.turn_away(token, "request"),
            },
            (Line::Partial, _) if !flags.intersects(EventFlags::RDHUP | EventFlags::HUP) => {}
            (Line::Partial | Line::Hopeless, _) => self.turn_away(token, "request"),
        }
    }

    /// A sibling has said who it is.
    fn greet(&mut self, token: Token, introduction: Introduction) {
        let Some(Occupant::Caller { stream, .. }) = self.slots.get(token) else { return };
        let Some(siblings) = &self.siblings else { return };
        if let Err(doubt) = siblings.vouch(stream, introduction.source_cid) {
            let what = format!(
                "turned away a sibling that calls itself {}: {doubt:?}",
                introduction.source_cid
            );
            self.complaints.say(self.guest_cid, &what);
            return self.turn_away(token, "forbidden");
        }
        let key = Key {
            cid: u64::from(introduction.source_cid),
            port: introduction.source_port,
            guest_port: introduction.port,
        };
        if self.keys.contains_key(&key) {
            return self.turn_away(token, "busy");
        }
        self.promote(token, key);
    }

    /// A caller becomes a link, in the same slot: its socket stays registered.
    fn promote(&mut self, token: Token, key: Key) {
        let connection = self.asking();
        let (first, patience) = self.first_deadlines();
        let Some(Occupant::Caller { deadline, .. }) = self.slots.get(token) else { return };
        self.deadlines.replace(token, Some(*deadline), None);
        self.slots.transform(token, |occupant| match occupant {
            Occupant::Caller { stream, .. } => {
                let mut link = Link::new(key, Origin::Handshake, connection, Some(stream));
                link.patience = patience;
                Occupant::Link(Box::new(link))
            }
            other => other,
        });
        self.keys.insert(key, token);
        self.set_deadline(token, first);
        self.settle(token);
    }

    /// Until when a new connection waits for the driver; and, if it has to, until when it is
    /// patient with a guest that is not listening yet.
    fn first_deadlines(&self) -> (Option<Instant>, Option<Instant>) {
        let deadline = Some(Instant::now() + self.limits.driver);
        (deadline, deadline.filter(|_| !self.is_ready()))
    }

    /// Ends a caller with a reason.
    pub(super) fn turn_away(&mut self, token: Token, reason: &str) {
        if let Some(Occupant::Caller { stream, .. }) = self.vacated(token) {
            // It may be gone itself.
            let _ = stream.say(&format!("ERR {reason}\n"));
        }
    }

    /// A source port that is not in use towards this port of the guest.
    fn free_key(&mut self, guest_port: u32) -> Key {
        loop {
            let port = self.next_port;
            self.next_port = if port == LAST_HOST_PORT { FIRST_HOST_PORT } else { port + 1 };
            let key = Key { cid: HOST_CID, port, guest_port };
            // There are fewer slots than ports, so this ends.
            if !self.keys.contains_key(&key) {
                return key;
            }
        }
    }
}

/// Whether an error of accept concerns that one connection only (accept(2)).
fn is_passing(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::Interrupted | io::ErrorKind::ConnectionAborted)
}

#[cfg(test)]
mod tests {
    use super::super::config::Config;
    use super::*;
    use rustix::event::epoll;
    use std::sync::Arc;

    #[test]
    fn source_ports_go_round_and_skip_those_in_use() {
        let poll = Arc::new(epoll::create(epoll::CreateFlags::CLOEXEC).unwrap());
        let mut hub = Hub::new(&Config::new(3, "a", "b"), None, Vec::new(), poll).unwrap();
        hub.next_port = LAST_HOST_PORT;
        let key = hub.free_key(3000);
        assert_eq!((key.cid, key.port, key.guest_port), (HOST_CID, LAST_HOST_PORT, 3000));
        let link = Link::new(hub.free_key(3000), Origin::Published, hub.asking(), None);
        assert_eq!(link.key.port, FIRST_HOST_PORT);
        hub.admit_link(link).unwrap();
        hub.next_port = FIRST_HOST_PORT;
        assert_eq!(hub.free_key(3000).port, FIRST_HOST_PORT + 1);
        hub.next_port = FIRST_HOST_PORT;
        assert_eq!(hub.free_key(3001).port, FIRST_HOST_PORT, "another port of the guest");
    }
}
