//! From the guest: connections that it asks for, to the host or to a sibling.

use super::connection::{Connection, Phase};
use super::hub::{Hub, Occupant};
use super::line::Introduction;
use super::link::{Key, Link, Origin};
use super::listener;
use super::packet::{HOST_CID, Header};
use super::slots::Token;
use super::stream::Stream;
use rustix::io::Errno;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// How soon a listener whose queue was full is tried again.
const RETRY: Duration = Duration::from_millis(20);

impl Hub {
    /// A REQUEST whose ports are not in use.
    pub(super) fn request(&mut self, header: &Header, key: Key) {
        if self.is_half_full() {
            self.complaints.say(self.guest_cid, "too many connections, the guest is refused");
            return self.reset_guest(key);
        }
        let origin = if key.cid == HOST_CID { Origin::Guest } else { Origin::GuestToSibling };
        let connection = Connection::from_guest(header, self.window());
        let mut link = Link::new(key, origin, connection, None);
        link.dial_until = Some(Instant::now() + self.limits.answer);
        match self.admit_link(link) {
            Ok(token) => self.dial(token),
            Err(_) => self.reset_guest(key),
        }
    }

    /// Tries to reach the host end that the guest asked for.
    pub(super) fn dial(&mut self, token: Token) {
        let Some(Occupant::Link(link)) = self.slots.get(token) else { return };
        let (key, origin, until) = (link.key, link.origin, link.dial_until);
        if link.connection.phase() != Phase::Answering {
            return;
        }
        match self.call(key) {
            Ok(stream) => {
                let Some(Occupant::Link(link)) = self.slots.get_mut(token) else { return };
                link.attach(stream);
                if origin == Origin::Guest {
                    link.opened = true;
                    link.connection.host_answered();
                }
                let deadline = until.filter(|_| origin == Origin::GuestToSibling);
                self.set_deadline(token, deadline);
                if !self.register(token) {
                    return self.break_off(token);
                }
                self.settle(token);
            }
            Err(Errno::AGAIN) => self.set_deadline(token, Some(Instant::now() + RETRY)),
            // Nobody there: a reset says so, and a program that tries every second fills no log.
            Err(_) => self.break_off(token),
        }
    }

    fn call(&self, key: Key) -> Result<Stream, Errno> {
        if key.cid == HOST_CID {
            let mut path = self.connect_socket.clone().into_os_string();
            path.push(format!("_{}", key.port));
            return listener::dial(&PathBuf::from(path)).map(Stream::unix);
        }
        let cid = u32::try_from(key.cid).map_err(|_| Errno::CONNREFUSED)?;
        let siblings = self.siblings.as_ref().ok_or(Errno::CONNREFUSED)?;
        let stream = Stream::unix(siblings.dial(cid)?);
        let introduction = Introduction {
            source_cid: siblings.own_cid(),
            source_port: key.guest_port,
            port: key.port,
        };
        stream.say(&introduction.line())?;
        Ok(stream)
    }
}
