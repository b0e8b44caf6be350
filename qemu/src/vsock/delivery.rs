//! Both queues: the guest's packets to their connections, and the connections' to the guest.

use super::connection::{Phase, Reaction};
use super::hub::{Hub, Occupant, Rest};
use super::link::{Key, Received};
use super::packet::{HEADER_LEN, HOST_CID, Header, NO_MORE, Op, TYPE_STREAM};
use super::ring::{Buffer, Ring, Taken};
use super::slots::Token;
use std::time::{Duration, Instant};
use vm_memory::GuestMemoryMmap;

/// Resets that wait for room at the guest. More are dropped: only a guest that sends thousands
/// of packets for nothing, without looking at the answers, gets there.
pub(super) const MAX_STRAYS: usize = 4096;
/// How soon a guest that is still starting is asked again.
const ASK_AGAIN: Duration = Duration::from_millis(100);
/// Packets each way in one round, so that a round ends.
const BATCH: usize = 256;

impl Hub {
    /// Empties the one queue and fills the other, as far as it goes.
    pub(super) fn exchange(
        &mut self,
        to_guest: &mut Ring<'_>,
        from_guest: &mut Ring<'_>,
        memory: &GuestMemoryMmap,
    ) -> Rest {
        let (mut taken, mut given) = (0, 0);
        from_guest.look();
        to_guest.look();
        loop {
            while taken < BATCH {
                match from_guest.take(memory) {
                    Taken::Buffer(buffer) => {
                        self.packet(&buffer);
                        from_guest.give_back(memory, buffer.head, 0);
                    }
                    Taken::Malformed(what) => self.complaints.say(self.guest_cid, what),
                    Taken::Broken => return self.broken(),
                    Taken::Empty => break,
                }
                taken += 1;
            }
            while given < BATCH && self.has_packets() {
                match to_guest.take(memory) {
                    Taken::Buffer(buffer) => self.fill(buffer, to_guest, memory),
                    Taken::Malformed(what) => self.complaints.say(self.guest_cid, what),
                    Taken::Broken => return self.broken(),
                    Taken::Empty => break,
                }
                given += 1;
            }
            if taken == BATCH || given == BATCH {
                return Rest::More;
            }
            // The order matters: first ask for kicks, then look whether one was just missed.
            let more = from_guest.listen();
            let room = self.has_packets() && to_guest.listen();
            if !more && !room {
                return Rest::Done;
            }
        }
    }

    fn broken(&mut self) -> Rest {
        self.complaints.say(self.guest_cid, "a ring's index runs ahead of the ring");
        Rest::Done
    }

    fn has_packets(&self) -> bool {
        !self.strays.is_empty() || !self.ready.is_empty()
    }

    /// A packet of the guest.
    fn packet(&mut self, buffer: &Buffer<'_>) {
        let mut bytes = [0; HEADER_LEN];
        if !buffer.read(&mut bytes) {
            return self.complaints.say(self.guest_cid, "a packet is shorter than its header");
        }
        let header = Header::decode(&bytes);
        if header.src_cid != self.guest_cid {
            return self.complaints.say(self.guest_cid, "a packet names another source");
        }
        let key = Key { cid: header.dst_cid, port: header.dst_port, guest_port: header.src_port };
        let known = self.keys.get(&key).copied();
        let op = Op::from_wire(header.op).filter(|_| header.kind == TYPE_STREAM);
        let complete = header.len as usize <= buffer.len() - HEADER_LEN;
        match (op, known) {
            (Some(op), Some(token)) if complete && op != Op::Request => {
                self.packet_for(token, &header, op, buffer);
            }
            (Some(Op::Request), None) if complete && self.is_somebody(header.dst_cid) => {
                self.request(&header, key);
            }
            (Some(Op::Reset), None) => {}
            // A stranger to us, or nonsense; for a connection that exists, its end.
            (_, known) => {
                if op.is_none() || !complete {
                    self.complaints.say(self.guest_cid, "a packet makes no sense");
                }
                self.stray(header.refusal());
                if let Some(token) = known.filter(|_| header.kind == TYPE_STREAM) {
                    self.guest_broke(token);
                }
            }
        }
    }

    /// Whether a connection to this CID could come about at all.
    fn is_somebody(&self, cid: u64) -> bool {
        cid == HOST_CID || (self.siblings.is_some() && cid > HOST_CID && cid != self.guest_cid)
    }

    fn packet_for(&mut self, token: Token, header: &Header, op: Op, buffer: &Buffer<'_>) {
        if op == Op::Reset && self.is_patient(token) {
            return;
        }
        let Some(Occupant::Link(link)) = self.slots.get_mut(token) else { return };
        match link.connection.packet(header, op) {
            Reaction::Nothing => {}
            Reaction::Accepted => {
                link.accepted();
                self.set_deadline(token, None);
            }
            Reaction::Deliver => link.deliver(&buffer.payload(header.len as usize)),
            Reaction::Reset => {
                if op != Op::Shutdown {
                    self.complaints.say(self.guest_cid, "a packet breaks the rules");
                }
                self.stray(header.refusal());
            }
        }
        self.settle(token);
    }

    /// Whether a link that was refused will ask again.
    fn is_patient(&mut self, token: Token) -> bool {
        let now = Instant::now();
        let Some(Occupant::Link(link)) = self.slots.get_mut(token) else { return false };
        let patient = link.patience.is_some_and(|until| now < until) && link.connection.ask_again();
        if patient {
            link.resting = true;
            self.set_deadline(token, Some(now + ASK_AGAIN));
            self.settle(token);
        }
        patient
    }

    fn guest_broke(&mut self, token: Token) {
        if let Some(Occupant::Link(link)) = self.slots.get_mut(token) {
            link.connection.guest_vanished();
            self.settle(token);
        }
    }

    /// Resets a connection for the guest. Its ports are free for it when this arrives.
    pub(super) fn reset_guest(&mut self, key: Key) {
        self.stray(Some(Header {
            src_cid: key.cid,
            src_port: key.port,
            dst_cid: self.guest_cid,
            dst_port: key.guest_port,
            kind: TYPE_STREAM,
            op: Op::Reset as u16,
            ..Header::default()
        }));
    }

    fn stray(&mut self, header: Option<Header>) {
        match header {
            Some(_) if self.strays.len() >= MAX_STRAYS => {
                self.complaints.say(self.guest_cid, "too many resets are due, some are dropped");
            }
            Some(header) => self.strays.push_back(header),
            None => {}
        }
    }

    /// One packet into one buffer of the guest.
    fn fill(&mut self, buffer: Buffer<'_>, ring: &mut Ring<'_>, memory: &GuestMemoryMmap) {
        let written = match self.strays.pop_front() {
            Some(header) => Some(put(&buffer, &header)),
            None => self.fill_from_link(&buffer),
        };
        match written {
            Some(len) => ring.give_back(memory, buffer.head, len),
            None => ring.untake(),
        }
    }

    /// A packet of the next connection in turn. None: it turned out to have none.
    fn fill_from_link(&mut self, buffer: &Buffer<'_>) -> Option<u32> {
        let token = self.ready.pop_front()?;
        let guest_cid = self.guest_cid;
        let limits = self.limits;
        let Some(Occupant::Link(link)) = self.slots.get_mut(token) else { return None };
        link.queued = false;
        let mut header = None;
        let mut broken = false;
        if link.connection.owed().is_none() {
            let room = (buffer.len() - HEADER_LEN).min(link.connection.may_send() as usize);
            if room == 0 && link.connection.may_send() > 0 {
                self.complaints.say(guest_cid, "a receive buffer has no room for payload");
                self.settle(token);
                return Some(0);
            }
            if room > 0 {
                match link.receive(&buffer.payload(room)) {
                    Received::Bytes(len) => header = Some(link.header(Op::Data, len, guest_cid)),
                    Received::End => link.ended(),
                    Received::Broken => broken = true,
                    Received::Nothing => {}
                }
            }
        }
        if broken {
            self.break_off(token);
            return None;
        }
        let Some(Occupant::Link(link)) = self.slots.get_mut(token) else { return None };
        let mut deadline = None;
        if header.is_none()
            && let Some(op) = link.connection.owed()
        {
            let packet = link.header(op, 0, guest_cid);
            deadline = match op {
                Op::Request => Some(limits.answer),
                Op::Shutdown if packet.flags == NO_MORE => Some(limits.close),
                _ => None,
            };
            header = Some(packet);
        }
        if let Some(after) = deadline {
            debug_assert!(matches!(link.connection.phase(), Phase::Asking | Phase::Closing));
            self.set_deadline(token, Some(Instant::now() + after));
        }
        self.settle(token);
        header.map(|header| put(buffer, &header))
    }
}

/// Writes a header in front of the payload that is there already; the bytes of both.
fn put(buffer: &Buffer<'_>, header: &Header) -> u32 {
    // Every buffer has room for a header, or it would not be one.
    buffer.write(&header.encode());
    HEADER_LEN as u32 + header.len
}
