//! The link to PID 1: orders out one at a time, reports in.
//!
//! | PID 1 says | while | means |
//! |---|---|---|
//! | `Event` | any time | a line for the log |
//! | `Machine`, `Socket`, `Service`, `Target` | a Status is out | part of the answer |
//! | `End` | a Status is out, `Machine` has come | the snapshot is complete |
//! | `End` | another order is out | it was taken |
//! | `Replaced` | any time | from here on ids are of the manifest that comes with it; if `Replace` is out, its answer |
//! | `Pipe` | behind `Replaced` | the log of a unit that is new |
//! | `Reread` | any time | the manifest's file is to be taken |
//! | `Refused` | an order is out | the guest is going down |
//! | anything else | | left over from a predecessor of ours, which died: not looked at |
//! | nothing for [`PATIENCE`] | an order is out | all who wait are told so; the answer is still owed, and no order goes out before it has come |
//!
//! Snapshots are numbered, and any number of clients share one: whoever asks while none is
//! queued gets the number of the next one, never of one that has begun before.

use super::upload::Goods;
use crate::control::{Event, MachineState, Order, Report};
use crate::manifest::UnitId;
use crate::wire::{self, Reader};
use rustix::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use rustix::io::{Errno, IoSlice, IoSliceMut};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags,
};
use std::collections::VecDeque;
use std::mem::MaybeUninit;
use std::time::{Duration, Instant};

/// How long PID 1 may take for an answer.
pub const PATIENCE: Duration = Duration::from_secs(10);
/// Packets taken at once before others get their turn.
const TURN: usize = 256;

/// A client's number; never used twice.
pub type ClientId = u64;

/// The state of all units at one time, as PID 1 told it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// State, started, listening and now, as in [`Report::Machine`].
    pub machine: Option<(MachineState, u64, u64, u64)>,
    /// One for each unit.
    pub units: Vec<Report>,
}

impl Snapshot {
    /// The report about a unit.
    pub fn unit(&self, wanted: UnitId) -> Option<&Report> {
        self.units.iter().find(|report| match report {
            Report::Socket { unit, .. }
            | Report::Service { unit, .. }
            | Report::Target { unit, .. } => *unit == wanted,
            _ => false,
        })
    }
}

/// An fd that came with a report; the same as another if it is the same fd.
#[derive(Debug)]
pub struct Passed(pub OwnedFd);

impl PartialEq for Passed {
    fn eq(&self, other: &Self) -> bool {
        self.0.as_raw_fd() == other.0.as_raw_fd()
    }
}

impl Eq for Passed {}

/// What came from PID 1.
#[derive(Debug, PartialEq, Eq)]
pub enum Heard {
    /// To be logged.
    Event(Option<UnitId>, Event),
    /// A snapshot, with its number.
    Snapshot(u64, Snapshot),
    /// The order of that client was taken.
    Taken(ClientId),
    /// The guest is going down.
    Refused(Asked),
    /// What became of [`Order::Replace`], and for whom it was, if it was ours: the manifest that
    /// is in force, if it was taken. What is still queued has ids of the one before
    /// ([`Pid1::renumber`]).
    Replaced(Option<ClientId>, Option<Passed>),
    /// The log of a unit that is new.
    Pipe(UnitId, Passed),
    /// The manifest's file is to be taken.
    Reread,
    /// PID 1 has closed its end: it is going, and so are we.
    Gone,
}

/// An order, and who waits for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    /// The snapshot of that number.
    Status(u64),
    /// A client's order.
    Order(Order, ClientId),
}

/// The socket and what is under way on it.
#[derive(Debug)]
pub struct Pid1 {
    socket: OwnedFd,
    /// Not sent yet; at most one for each client, and one status.
    queue: VecDeque<Asked>,
    current: Option<Current>,
    /// Number of the snapshot asked for last.
    snapshots: u64,
    /// What goes with the next [`Order::Replace`].
    goods: Option<Goods>,
}

#[derive(Debug)]
struct Current {
    asked: Asked,
    /// Of a status, as far as it came.
    snapshot: Snapshot,
    /// When patience ends; None while nobody waits.
    until: Option<Instant>,
    waits: Waits,
}

/// Whom an answer is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Waits {
    /// Whoever has asked.
    Asker,
    /// Nobody: it comes too late, and must not be taken for the answer to another order.
    Nobody,
}

impl Pid1 {
    /// Takes over our end of the SEQPACKET pair.
    pub fn new(socket: OwnedFd) -> Self {
        Self { socket, queue: VecDeque::new(), current: None, snapshots: 0, goods: None }
    }

    /// To poll for reports.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Whether an order is out, or waits to be.
    pub fn is_busy(&self) -> bool {
        self.current.is_some() || !self.queue.is_empty()
    }

    /// Asks for a snapshot; its number.
    pub fn want_snapshot(&mut self) -> u64 {
        if let Some(Asked::Status(number)) =
            self.queue.iter().find(|asked| matches!(asked, Asked::Status(_)))
        {
            return *number;
        }
        self.snapshots += 1;
        self.queue.push_back(Asked::Status(self.snapshots));
        self.snapshots
    }

    /// Queues an order.
    pub fn order(&mut self, order: Order, client: ClientId) {
        self.queue.push_back(Asked::Order(order, client));
    }

    /// Queues [`Order::Replace`]; False if there is one already.
    pub fn replace(&mut self, goods: Goods, client: ClientId) -> bool {
        let is_replace = |asked: &Asked| matches!(asked, Asked::Order(Order::Replace { .. }, _));
        let out = self.current.as_ref().map(|current| &current.asked);
        if out.into_iter().chain(&self.queue).any(is_replace) {
            return false;
        }
        let programs = goods.programs.is_some();
        self.goods = Some(goods);
        self.order(Order::Replace { programs }, client);
        true
    }

    /// Gives the queued orders the ids of another manifest; the clients whose units it has no
    /// more, and whose orders are forgotten.
    pub fn renumber(&mut self, id: impl Fn(UnitId) -> Option<UnitId>) -> Vec<ClientId> {
        let mut forgotten = Vec::new();
        self.queue.retain_mut(|asked| {
            let Asked::Order(order, client) = asked else { return true };
            let known = order.unit_mut().is_none_or(|unit| match id(*unit) {
                Some(new) => {
                    *unit = new;
                    true
                }
                None => false,
            });
            if !known {
                forgotten.push(*client);
            }
            known
        });
        forgotten
    }

    /// Sends the next order if none is out. Whether the socket had no room.
    pub fn send(&mut self, now: Instant) -> bool {
        if let Some(current) = &mut self.current {
            // Whoever is behind an answer that is owed does not wait longer than for his own.
            if !self.queue.is_empty() {
                current.until.get_or_insert(now + PATIENCE);
            }
            return false;
        }
        let Some(asked) = self.queue.front().copied() else { return false };
        let order = match asked {
            Asked::Status(_) => Order::Status,
            Asked::Order(order, _) => order,
        };
        let mut packet = [0; 16];
        let Some(packet) = wire::to_slice(&order, &mut packet) else { return false };
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        let fds: Vec<BorrowedFd> = match (&self.goods, order) {
            (Some(Goods { manifest, programs }), Order::Replace { .. }) => {
                let programs = programs.iter().flat_map(|it| [&it.init, &it.activator]);
                std::iter::once(manifest).chain(programs).map(AsFd::as_fd).collect()
            }
            _ => Vec::new(),
        };
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(3))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !fds.is_empty() {
            control.push(SendAncillaryMessage::ScmRights(&fds));
        }
        let buffers = &[IoSlice::new(packet)];
        match rustix::net::sendmsg(&self.socket, buffers, &mut control, flags) {
            Err(Errno::AGAIN | Errno::INTR) => true,
            // An end that is gone is noticed by `hear`.
            _ => {
                if matches!(order, Order::Replace { .. }) {
                    self.goods = None;
                }
                self.queue.pop_front();
                self.current = Some(Current {
                    asked,
                    snapshot: Snapshot::default(),
                    until: Some(now + PATIENCE),
                    waits: Waits::Asker,
                });
                false
            }
        }
    }

    /// Takes what PID 1 has sent, and adds what it means.
    pub fn hear(&mut self, heard: &mut Vec<Heard>) {
        let mut packet = [0; Report::PACKET];
        for _ in 0..TURN {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
            let mut control = RecvAncillaryBuffer::new(&mut space);
            let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
            let buffers = &mut [IoSliceMut::new(&mut packet)];
            let received = rustix::net::recvmsg(&self.socket, buffers, &mut control, flags);
            let length = match received.map(|message| message.bytes) {
                Ok(0) => {
                    heard.push(Heard::Gone);
                    break;
                }
                Ok(length) => length,
                Err(Errno::INTR) => continue,
                Err(Errno::AGAIN) => break,
                Err(_) => {
                    heard.push(Heard::Gone);
                    break;
                }
            };
            let mut packet = Reader::new(packet.get(..length).unwrap_or_default());
            let mut fd = control.drain().find_map(|message| match message {
                RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
                _ => None,
            });
            while let Some(report) = packet.value() {
                heard.extend(self.take(report, fd.take()));
            }
        }
    }

    /// When [`Pid1::lose_patience`] is due.
    pub fn deadline(&self) -> Option<Instant> {
        self.current.as_ref()?.until
    }

    /// Whether PID 1 was silent for too long. All that was asked is then forgotten.
    pub fn lose_patience(&mut self, now: Instant) -> bool {
        let lost = self.deadline().is_some_and(|until| until <= now);
        if lost && let Some(current) = &mut self.current {
            current.until = None;
            current.waits = Waits::Nobody;
            self.queue.clear();
        }
        lost
    }

    fn take(&mut self, report: Report, fd: Option<OwnedFd>) -> Option<Heard> {
        match report {
            Report::Event(unit, event) => return Some(Heard::Event(unit, event)),
            Report::Pipe(unit) => return fd.map(|fd| Heard::Pipe(unit, Passed(fd))),
            Report::Reread => return Some(Heard::Reread),
            Report::Replaced { taken } => {
                let client = match self.current.take() {
                    Some(Current {
                        asked: Asked::Order(Order::Replace { .. }, client),
                        waits: Waits::Asker,
                        ..
                    }) => Some(client),
                    _ => None,
                };
                return Some(Heard::Replaced(client, fd.filter(|_| taken).map(Passed)));
            }
            _ => {}
        }
        let current = self.current.as_mut()?;
        let waits = current.waits;
        let answer = match report {
            Report::Machine { state, started_us, listening_us, now_us } => {
                current.snapshot = Snapshot {
                    machine: Some((state, started_us, listening_us, now_us)),
                    units: Vec::new(),
                };
                None
            }
            Report::End => match current.asked {
                Asked::Status(_) if current.snapshot.machine.is_none() => None,
                Asked::Status(number) => {
                    let snapshot = std::mem::take(&mut current.snapshot);
                    self.current = None;
                    Some(Heard::Snapshot(number, snapshot))
                }
                Asked::Order(_, client) => {
                    self.current = None;
                    Some(Heard::Taken(client))
                }
            },
            Report::Refused => {
                let asked = current.asked;
                self.current = None;
                Some(Heard::Refused(asked))
            }
            unit => {
                current.snapshot.units.push(unit);
                None
            }
        };
        answer.filter(|_| waits == Waits::Asker)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

    fn heard(link: &mut Pid1) -> Vec<Heard> {
        let mut heard = vec![];
        link.hear(&mut heard);
        heard
    }

    fn pair() -> (Pid1, OwnedFd) {
        let flags = SocketFlags::CLOEXEC;
        let (ours, theirs) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).unwrap();
        (Pid1::new(ours), theirs)
    }

    fn ordered(pid1: &OwnedFd) -> Option<Order> {
        let mut packet = [0; 64];
        let received = rustix::net::recv(pid1, &mut packet[..], RecvFlags::DONTWAIT);
        Some(wire::from_bytes(&packet[..received.ok()?.1]).unwrap())
    }

    fn report(pid1: &OwnedFd, report: Report) {
        let mut packet = [0; Report::MAX];
        let packet = wire::to_slice(&report, &mut packet).unwrap();
        rustix::net::send(pid1, packet, SendFlags::empty()).unwrap();
    }

    const MACHINE: Report =
        Report::Machine { state: MachineState::Running, started_us: 1, listening_us: 2, now_us: 3 };

    #[test]
    fn one_order_is_out_at_a_time() {
        let (mut link, pid1) = pair();
        let now = Instant::now();
        link.order(Order::Start(UnitId(1)), 7);
        link.order(Order::Stop(UnitId(2)), 8);
        link.send(now);
        link.send(now);
        assert_eq!(ordered(&pid1), Some(Order::Start(UnitId(1))));
        assert_eq!(ordered(&pid1), None);
        report(&pid1, Report::End);
        assert_eq!(heard(&mut link), [Heard::Taken(7)]);
        link.send(now);
        assert_eq!(ordered(&pid1), Some(Order::Stop(UnitId(2))));
        report(&pid1, Report::Refused);
        let refused = Asked::Order(Order::Stop(UnitId(2)), 8);
        assert_eq!(heard(&mut link), [Heard::Refused(refused)]);
    }

    #[test]
    fn snapshots_are_shared_but_never_old() {
        let (mut link, pid1) = pair();
        let now = Instant::now();
        assert_eq!((link.want_snapshot(), link.want_snapshot()), (1, 1));
        link.send(now);
        assert_eq!(link.want_snapshot(), 2);
        let target = Report::Target { unit: UnitId(4), active: true };
        for one in [MACHINE, target, Report::End] {
            report(&pid1, one);
        }
        let machine = Some((MachineState::Running, 1, 2, 3));
        let heard = heard(&mut link);
        assert_eq!(heard, [Heard::Snapshot(1, Snapshot { machine, units: vec![target] })]);
        let Heard::Snapshot(_, snapshot) = &heard[0] else { panic!() };
        assert_eq!(snapshot.unit(UnitId(4)), Some(&target));
        assert_eq!(snapshot.unit(UnitId(5)), None);
    }

    #[test]
    fn what_a_predecessor_asked_for_is_not_looked_at() {
        let (mut link, pid1) = pair();
        report(&pid1, Report::End);
        rustix::net::send(&pid1, &[0xff; 300], SendFlags::empty()).unwrap();
        assert_eq!(heard(&mut link), []);
        link.want_snapshot();
        link.send(Instant::now());
        // The rest of an answer that began before, then ours.
        report(&pid1, Report::Target { unit: UnitId(0), active: false });
        for one in [Report::End, MACHINE, Report::End] {
            report(&pid1, one);
        }
        let machine = Some((MachineState::Running, 1, 2, 3));
        assert_eq!(heard(&mut link), [Heard::Snapshot(1, Snapshot { machine, units: vec![] })]);
    }

    #[test]
    fn patience_ends() {
        let (mut link, pid1) = pair();
        let now = Instant::now();
        assert!(!link.lose_patience(now + 2 * PATIENCE), "nothing was asked");
        link.order(Order::Poweroff, 1);
        link.order(Order::Poweroff, 2);
        link.send(now);
        assert!(!link.lose_patience(now));
        assert!(link.lose_patience(now + PATIENCE));
        assert_eq!(link.deadline(), None);
        link.send(now);
        assert_eq!(ordered(&pid1), Some(Order::Poweroff));
        assert_eq!(ordered(&pid1), None);
    }

    #[test]
    fn a_late_answer_is_nobodys() {
        let (mut link, pid1) = pair();
        let now = Instant::now();
        link.order(Order::Start(UnitId(1)), 7);
        link.send(now);
        assert!(link.lose_patience(now + PATIENCE));
        link.order(Order::Stop(UnitId(2)), 8);
        let later = now + 3 * PATIENCE;
        link.send(later);
        assert_eq!(ordered(&pid1), Some(Order::Start(UnitId(1))));
        assert_eq!(ordered(&pid1), None, "the answer to the first is owed");
        assert!(!link.lose_patience(later));
        report(&pid1, Report::Refused);
        assert_eq!(heard(&mut link), []);
        link.send(later);
        assert_eq!(ordered(&pid1), Some(Order::Stop(UnitId(2))));
        report(&pid1, Report::End);
        assert_eq!(heard(&mut link), [Heard::Taken(8)]);
        // Nobody is kept waiting by what never comes.
        for client in [9, 10] {
            link.order(Order::Start(UnitId(1)), client);
            link.send(later);
            assert!(link.lose_patience(later + PATIENCE));
        }
        assert!(link.is_busy());
    }

    #[test]
    fn events_come_at_any_time_and_the_end_is_seen() {
        let (mut link, pid1) = pair();
        report(&pid1, Report::Event(None, Event::Booted));
        drop(pid1);
        assert_eq!(heard(&mut link), [Heard::Event(None, Event::Booted), Heard::Gone]);
    }
}
