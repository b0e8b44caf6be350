//! PID 1's end of the socket pair with logd: orders come in, reports and events go out.
//!
//! Events go once a round, all in one packet: each packet wakes logd, which is work that a client
//! of an activation waits for. Nothing here waits. An answer to an order that does not fit into the socket's buffer is kept
//! as the place where it goes on; an event that does not fit is dropped and counted, and the
//! count is sent before the next one that fits. PID 1 holds both ends, so the pair survives logd.

use crate::reload::fd::{Arriving, Leaving};
use crate::supervise::Supervisor;
use activator::control::{Event, Order, Report};
use activator::manifest::UnitId;
use activator::wire;
use rustix::io::{Errno, IoSlice, IoSliceMut};
use rustix::net::{
    self, AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType,
};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// The pair and what is under way on it.
#[derive(Debug)]
pub(crate) struct Link {
    ours: OwnedFd,
    /// For logd. Kept, so that ours never sees an end of file.
    theirs: OwnedFd,
    answer: Option<Answer>,
    lost: u32,
    /// Events that go with the next packet. Anything else that is sent is sent behind them.
    events: Events,
    /// After a reload, what logd has to know before anything else, with an fd each. The last is
    /// sent first.
    news: Vec<(Report, Option<OwnedFd>)>,
    /// logd is to be told that the manifest's file has changed.
    reread: bool,
    /// The fds of the last [`Order::Replace`].
    goods: [Option<OwnedFd>; 3],
}

/// What a reload hands over. No order is under way then but the one to reload.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Saved<F> {
    ours: F,
    theirs: F,
    lost: u32,
}

wire! {
    struct Saved<F> { ours, theirs, lost }
}

/// What is to be sent next of an answer.
#[derive(Debug, Clone, Copy)]
enum Answer {
    Machine,
    Unit(u16),
    End,
    Refused,
    NotReplaced,
}

impl Link {
    /// Makes the pair.
    pub(crate) fn new() -> Result<Self, Errno> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let (ours, theirs) =
            net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
        Ok(Self::of(ours, theirs, 0))
    }

    fn of(ours: OwnedFd, theirs: OwnedFd, lost: u32) -> Self {
        let (answer, news, reread, goods) = (None, vec![], false, [None, None, None]);
        Self { ours, theirs, answer, lost, events: Events::new(), news, reread, goods }
    }

    /// Whether something waits for room in the socket's buffer.
    pub(crate) fn waits(&self) -> bool {
        self.answer.is_some() || !self.news.is_empty() || self.reread
    }

    /// For the next process.
    pub(crate) fn leave(&self) -> Saved<Leaving<'_>> {
        let [ours, theirs] = [&self.ours, &self.theirs].map(|fd| Leaving(fd.as_fd()));
        Saved { ours, theirs, lost: self.lost }
    }

    /// The pair of the process before; None if it is not there.
    pub(crate) fn take_over(saved: &Saved<Arriving>) -> Option<Self> {
        Some(Self::of(saved.ours.take()?, saved.theirs.take()?, saved.lost))
    }

    /// What logd has to know before anything else, in that order.
    pub(crate) fn announce(&mut self, mut news: Vec<(Report, Option<OwnedFd>)>) {
        news.reverse();
        self.news = news;
    }

    /// Whether logd was told all of that.
    pub(crate) fn is_announced(&self) -> bool {
        self.news.is_empty()
    }

    /// Has logd look at the manifest's file.
    pub(crate) fn reread(&mut self) {
        self.reread = true;
        self.send_news();
    }

    /// What came with [`Order::Replace`].
    pub(crate) fn take_goods(&mut self) -> [Option<OwnedFd>; 3] {
        std::mem::take(&mut self.goods)
    }

    /// The reload that was ordered has come to nothing.
    pub(crate) fn refuse_replace(&mut self) {
        self.answer = Some(Answer::NotReplaced);
    }

    /// For the loop to watch; for room only while something [waits](Self::waits), or each packet
    /// that logd reads would wake us.
    pub(crate) fn ours(&self) -> BorrowedFd<'_> {
        self.ours.as_fd()
    }

    /// For logd.
    pub(crate) fn theirs(&self) -> BorrowedFd<'_> {
        self.theirs.as_fd()
    }

    /// Keeps an event for the next packet, or counts it as lost.
    pub(crate) fn tell(&mut self, unit: Option<UnitId>, event: Event) {
        self.send_news();
        if !self.news.is_empty() {
            // Its unit would be taken for another.
            self.lost = self.lost.saturating_add(1);
            return;
        }
        if self.lost > 0 {
            let lost = std::mem::take(&mut self.lost);
            self.keep(&Report::Event(None, Event::Lost(lost)), lost);
        }
        self.keep(&Report::Event(unit, event), 1);
    }

    /// `worth` is what is lost with it.
    fn keep(&mut self, report: &Report, worth: u32) {
        if !self.events.has_room() {
            self.flush();
        }
        if !self.events.push(report, worth) {
            self.lost = self.lost.saturating_add(worth);
        }
    }

    /// Sends the events that are kept. They are lost if there is no room for them.
    pub(crate) fn flush(&mut self) {
        let Some((packet, worth)) = self.events.take() else { return };
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        if net::send(&self.ours, packet, flags).is_err() {
            self.lost = self.lost.saturating_add(worth);
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
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(3))];
            let mut control = RecvAncillaryBuffer::new(&mut space);
            let buffers = &mut [IoSliceMut::new(&mut packet)];
            let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
            match net::recvmsg(&self.ours, buffers, &mut control, flags) {
                Ok(message) => match wire::from_bytes(&packet[..message.bytes]) {
                    Ok(Order::Status) => self.answer = Some(Answer::Machine),
                    Ok(order) => {
                        let fds = control.drain().filter_map(|message| match message {
                            RecvAncillaryMessage::ScmRights(fds) => Some(fds),
                            _ => None,
                        });
                        for (place, fd) in self.goods.iter_mut().zip(fds.flatten()) {
                            *place = Some(fd);
                        }
                        return Some(order);
                    }
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
        // Its successor begins with the manifest that is in force.
        self.news.clear();
        let mut packet = [0; Report::PACKET];
        while net::recv(&self.theirs, &mut packet[..], RecvFlags::DONTWAIT).is_ok() {
            self.lost = self.lost.saturating_add(1);
        }
        while net::recv(&self.ours, &mut packet[..], RecvFlags::DONTWAIT).is_ok() {}
    }

    fn go_on(&mut self, supervisor: &Supervisor, now: u64) {
        self.flush();
        self.send_news();
        if !self.news.is_empty() {
            return;
        }
        while let Some(answer) = self.answer {
            let (report, next) = match answer {
                Answer::Machine => (supervisor.machine_report(now), Some(Answer::Unit(0))),
                Answer::Unit(index) => match supervisor.report_from(index) {
                    Some((report, next)) => (report, Some(Answer::Unit(next))),
                    None => (Report::End, None),
                },
                Answer::End => (Report::End, None),
                Answer::Refused => (Report::Refused, None),
                Answer::NotReplaced => (Report::Replaced { taken: false }, None),
            };
            match self.send(&report) {
                Err(Errno::AGAIN) => return,
                _ => self.answer = next,
            }
        }
    }

    fn send_news(&mut self) {
        if self.news.is_empty() && !self.reread {
            return;
        }
        self.flush();
        while let Some((report, fd)) = self.news.last() {
            match self.send_with(report, fd.as_ref()) {
                Err(Errno::AGAIN) => return,
                _ => self.news.pop(),
            };
        }
        if self.reread && self.send(&Report::Reread) != Err(Errno::AGAIN) {
            self.reread = false;
        }
    }

    fn send(&self, report: &Report) -> Result<(), Errno> {
        self.send_with(report, None)
    }

    fn send_with(&self, report: &Report, fd: Option<&OwnedFd>) -> Result<(), Errno> {
        let mut packet = [0; Report::MAX];
        let packet = wire::to_slice(report, &mut packet).ok_or(Errno::MSGSIZE)?;
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        let Some(fd) = fd else { return net::send(&self.ours, packet, flags).map(drop) };
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        let fds = [fd.as_fd()];
        control.push(SendAncillaryMessage::ScmRights(&fds));
        net::sendmsg(&self.ours, &[IoSlice::new(packet)], &mut control, flags).map(drop)
    }
}

/// Encoded events, one behind the other.
#[derive(Debug)]
struct Events {
    packet: [u8; Report::PACKET],
    length: usize,
    /// How many are lost with it.
    worth: u32,
}

impl Events {
    fn new() -> Self {
        Self { packet: [0; Report::PACKET], length: 0, worth: 0 }
    }

    /// Whether another one surely fits.
    fn has_room(&self) -> bool {
        self.packet.len() - self.length >= Report::MAX
    }

    /// False if it does not fit.
    fn push(&mut self, report: &Report, worth: u32) -> bool {
        let Some(room) = self.packet.get_mut(self.length..) else { return false };
        let Some(encoded) = wire::to_slice(report, room) else { return false };
        self.length += encoded.len();
        self.worth = self.worth.saturating_add(worth);
        true
    }

    /// The packet, and how many are lost if it is; None without events. Empty from then on.
    fn take(&mut self) -> Option<(&[u8], u32)> {
        let (length, worth) = (std::mem::take(&mut self.length), std::mem::take(&mut self.worth));
        self.packet.get(..length).filter(|packet| !packet.is_empty()).map(|packet| (packet, worth))
    }
}

/// What became of an order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Taken {
    Yes,
    GoingDown,
}
