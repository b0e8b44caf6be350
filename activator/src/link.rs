//! PID 1's end of the socket pair with logd: orders come in, reports and events go out.
//!
//! Nothing here waits. An answer to an order that does not fit into the socket's buffer is kept
//! as the place where it goes on; an event that does not fit is dropped and counted, and the
//! count is sent before the next one that fits. PID 1 holds both ends, so the pair survives logd.

use crate::supervise::Supervisor;
use activator::control::{Event, Order, Report};
use activator::manifest::UnitId;
use rustix::io::Errno;
use rustix::net::{self, AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// The pair and what is under way on it.
#[derive(Debug)]
pub(crate) struct Link {
    ours: OwnedFd,
    /// For logd. Kept, so that ours never sees an end of file.
    theirs: OwnedFd,
    answer: Option<Answer>,
    lost: u32,
}

/// What is to be sent next of an answer.
#[derive(Debug, Clone, Copy)]
enum Answer {
    Machine,
    Unit(u16),
    End,
    Refused,
}

impl Link {
    /// Makes the pair.
    pub(crate) fn new() -> Result<Self, Errno> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let (ours, theirs) =
            net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
        Ok(Self { ours, theirs, answer: None, lost: 0 })
    }

    /// For the loop to watch, in both directions.
    pub(crate) fn ours(&self) -> BorrowedFd<'_> {
        self.ours.as_fd()
    }

    /// For logd.
    pub(crate) fn theirs(&self) -> BorrowedFd<'_> {
        self.theirs.as_fd()
    }

    /// Sends an event, or counts it as lost.
    pub(crate) fn tell(&mut self, unit: Option<UnitId>, event: Event) {
        if self.lost > 0 {
            if self.send(&Report::Event(None, Event::Lost(self.lost))).is_err() {
                self.lost = self.lost.saturating_add(1);
                return;
            }
            self.lost = 0;
        }
        if self.send(&Report::Event(unit, event)).is_err() {
            self.lost = 1;
        }
    }

    /// The next order, once the answer to the one before is out.
    pub(crate) fn next_order(&mut self, supervisor: &Supervisor, now: u64) -> Option<Order> {
        loop {
            self.go_on(supervisor, now);
            if self.answer.is_some() {
                return None;
            }
            let mut packet = [0; Report::MAX];
            match net::recv(&self.ours, &mut packet[..], RecvFlags::DONTWAIT) {
                Ok((length, _)) => match postcard::from_bytes(&packet[..length]) {
                    Ok(Order::Status) => self.answer = Some(Answer::Machine),
                    Ok(order) => return Some(order),
                    // A packet of another version asks for nothing that we know.
                    Err(_) => self.answer = Some(Answer::Refused),
                },
                Err(Errno::INTR) => {}
                Err(_) => return None,
            }
        }
    }

    /// Answers an order other than a status.
    pub(crate) fn answer(&mut self, taken: Taken) {
        self.answer = Some(match taken {
            Taken::Yes => Answer::End,
            Taken::GoingDown => Answer::Refused,
        });
    }

    /// logd is gone, and with it whoever waited for an answer. What was sent and not read would
    /// be a riddle to the next one, so it is read and dropped here.
    pub(crate) fn reset(&mut self) {
        self.answer = None;
        let mut packet = [0; Report::MAX];
        while net::recv(&self.theirs, &mut packet[..], RecvFlags::DONTWAIT).is_ok() {
            self.lost = self.lost.saturating_add(1);
        }
        while net::recv(&self.ours, &mut packet[..], RecvFlags::DONTWAIT).is_ok() {}
    }

    fn go_on(&mut self, supervisor: &Supervisor, now: u64) {
        while let Some(answer) = self.answer {
            let (report, next) = match answer {
                Answer::Machine => (supervisor.machine_report(now), Some(Answer::Unit(0))),
                Answer::Unit(index) => match supervisor.report_from(index) {
                    Some((report, next)) => (report, Some(Answer::Unit(next))),
                    None => (Report::End, None),
                },
                Answer::End => (Report::End, None),
                Answer::Refused => (Report::Refused, None),
            };
            match self.send(&report) {
                Err(Errno::AGAIN) => return,
                _ => self.answer = next,
            }
        }
    }

    fn send(&self, report: &Report) -> Result<(), Errno> {
        let mut packet = [0; Report::MAX];
        let packet = postcard::to_slice(report, &mut packet).map_err(|_| Errno::MSGSIZE)?;
        net::send(&self.ours, packet, SendFlags::DONTWAIT | SendFlags::NOSIGNAL).map(drop)
    }
}

/// What became of an order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Taken {
    Yes,
    GoingDown,
}
