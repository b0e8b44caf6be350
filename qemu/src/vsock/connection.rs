//! One connection between the guest and somebody on our side: the rules, without any I/O.
//!
//! # Primer
//!
//! A vsock connection is two streams of bytes with one life. The *host end* is a socket that
//! we hold: a client that came through one of our sockets, or a server that we dialled for the
//! guest, or the device of a sibling. The *guest end* is a socket in the guest, of which we see
//! packets. Each stream ends by itself (a half-close), and the connection is over when the
//! guest end is.
//!
//! The guest says with SHUTDOWN what it will no longer do: send, receive, or both. Both is the
//! end of the guest end: the peer confirms with RST, and Linux keeps the port taken until that
//! comes, or for 8 s. We say SHUTDOWN likewise, and wait for the guest's RST with a deadline.
//! A SHUTDOWN or RST travels behind the data that was sent before it, so nothing is overtaken.
//!
//! | phase     | what it means                                      | it ends with |
//! |-----------|----------------------------------------------------|--------------|
//! | Asking    | the host end is there; REQUEST is owed or sent     | RESPONSE: Open. RST or time-out: Over |
//! | Answering | the guest asked; the host end is being dialled     | dialled: RESPONSE, Open. Failed: RST, Over |
//! | Open      | bytes flow, each way until its end                 | see below |
//! | Closing   | we have said SHUTDOWN of both; RST is awaited      | RST, SHUTDOWN of both, time-out: Over |
//! | Over      | the guest end is gone and its ports are free again | the host has got what was held for it |
//!
//! While Open, the two directions:
//!
//! | to the guest | becomes  | when |
//! |--------------|----------|------|
//! | Flowing      | Ended    | the host says end of file: SHUTDOWN(send) follows the last byte |
//! | Flowing      | Unwanted | the guest says SHUTDOWN(receive): the host is told, its bytes are not read |
//!
//! | to the host  | becomes  | when |
//! |--------------|----------|------|
//! | Flowing      | Ending   | the guest says SHUTDOWN(send) |
//! | Ending       | Ended    | all that was held is written: the host is told end of file |
//! | any but Ended| Refused  | the host cannot be written to: SHUTDOWN(receive), further bytes are dropped |
//!
//! When both have ended, we say SHUTDOWN of both, although the guest may not be done reading
//! what we sent: Linux keeps it readable. Bytes that came before the guest's SHUTDOWN or RST
//! still go to the host after it; only bytes for a host that refused them are dropped.
//!
//! The methods are the events; the owner asks afterwards what is to be done ([`Connection::owed`],
//! [`Connection::may_send`], [`Connection::host_wish`], [`Connection::is_over`]).

use super::credit::{Allowance, Window};
use super::packet::{Header, NO_MORE, NO_RECEIVE, NO_SEND, Op};

/// How far the connection has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    Asking,
    Answering,
    Open,
    Closing,
    Over(End),
}

/// How the guest end ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// Both sides were done.
    Clean,
    /// The guest did not take the connection.
    Refused,
    /// The guest did not answer in time.
    TimedOut,
    /// The guest broke the connection off, or its rules, or was restarted.
    Reset,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ToGuest {
    Flowing,
    Ended,
    Unwanted,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ToHost {
    Flowing,
    Ending,
    Ended,
    Refused,
}

/// What a packet of the guest asks of the owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reaction {
    /// Nothing but to look at the wishes again.
    Nothing,
    /// The guest has accepted: tell the host.
    Accepted,
    /// Write the payload to the host, or hold it; say [`Connection::host_took`] for what is gone.
    Deliver,
    /// The guest has broken the rules, or is done: answer with a reset.
    Reset,
}

/// What the host end is to be told once everything held for it is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum HostWish {
    Nothing,
    /// No more bytes will come.
    ShutWrite,
    /// No more bytes are wanted.
    ShutRead,
}

/// The rules of one connection.
#[derive(Debug, Clone)]
pub(super) struct Connection {
    phase: Phase,
    to_guest: ToGuest,
    to_host: ToHost,
    window: Window,
    allowance: Allowance,
    /// REQUEST (Asking) or RESPONSE (Open) is still to be sent.
    opening_owed: bool,
    /// The guest asked for our counters, or we have news about them.
    credit_owed: bool,
    /// We wait for room at the guest and should say so.
    request_owed: bool,
    /// The SHUTDOWN flags that we have sent. They are never taken back.
    told_guest: u32,
    /// The SHUTDOWN flags that the guest has sent.
    told_us: u32,
    /// The host was told that its bytes are not wanted.
    told_host: bool,
}

impl Connection {
    /// The host end is there; the guest is to be asked. `window` is our buffer in bytes.
    pub(super) fn from_host(window: u32) -> Self {
        Self::new(Phase::Asking, window)
    }

    /// The guest has sent this REQUEST. The host end is to be dialled.
    pub(super) fn from_guest(request: &Header, window: u32) -> Self {
        let mut connection = Self::new(Phase::Answering, window);
        connection.opening_owed = false;
        // Nothing was sent, so a counter that claims otherwise is a lie; the size counts.
        let _ = connection.allowance.update(request.buf_alloc, 0);
        connection
    }

    fn new(phase: Phase, window: u32) -> Self {
        Self {
            phase,
            to_guest: ToGuest::Flowing,
            to_host: ToHost::Flowing,
            window: Window::new(window),
            allowance: Allowance::default(),
            opening_owed: true,
            credit_owed: false,
            request_owed: false,
            told_guest: 0,
            told_us: 0,
            told_host: false,
        }
    }

    pub(super) fn phase(&self) -> Phase {
        self.phase
    }

    /// The end, if the guest end is gone.
    pub(super) fn is_over(&self) -> Option<End> {
        match self.phase {
            Phase::Over(end) => Some(end),
            _ => None,
        }
    }

    /// Bytes of the guest that are held for the host.
    #[cfg(test)]
    pub(super) fn held(&self) -> u32 {
        self.window.held()
    }

    // Events from the guest.

    /// A packet with our ports, whose payload is as long as its header says.
    pub(super) fn packet(&mut self, header: &Header, op: Op) -> Reaction {
        if self.is_over().is_some() {
            return Reaction::Nothing;
        }
        if op == Op::Reset {
            self.phase = Phase::Over(match self.phase {
                Phase::Asking => End::Refused,
                Phase::Closing => End::Clean,
                _ => End::Reset,
            });
            return Reaction::Nothing;
        }
        if self.allowance.update(header.buf_alloc, header.fwd_cnt).is_err() {
            return self.violated();
        }
        match (op, self.phase) {
            (Op::Response, Phase::Asking) if !self.opening_owed => {
                self.phase = Phase::Open;
                Reaction::Accepted
            }
            (Op::Data, Phase::Open | Phase::Closing) => self.data(header.len),
            (Op::Shutdown, Phase::Open | Phase::Closing) => self.shutdown(header.flags),
            (Op::Shutdown, Phase::Answering) => self.shutdown(NO_MORE),
            (Op::CreditUpdate, Phase::Open | Phase::Closing) => Reaction::Nothing,
            (Op::CreditRequest, Phase::Open | Phase::Closing) => {
                self.credit_owed = true;
                Reaction::Nothing
            }
            _ => self.violated(),
        }
    }

    fn data(&mut self, len: u32) -> Reaction {
        if self.window.receive(len).is_err() || self.told_us & NO_SEND != 0 {
            return self.violated();
        }
        match self.to_host {
            ToHost::Refused => {
                self.forwarded(len);
                Reaction::Nothing
            }
            _ => Reaction::Deliver,
        }
    }

    fn shutdown(&mut self, flags: u32) -> Reaction {
        self.told_us |= flags & NO_MORE;
        if self.told_us & NO_RECEIVE != 0 && self.to_guest == ToGuest::Flowing {
            self.to_guest = ToGuest::Unwanted;
        }
        if self.told_us & NO_SEND != 0 && self.to_host == ToHost::Flowing {
            self.to_host = ToHost::Ending;
        }
        if self.told_us == NO_MORE {
            self.phase = Phase::Over(End::Clean);
            return Reaction::Reset;
        }
        Reaction::Nothing
    }

    fn violated(&mut self) -> Reaction {
        self.phase = Phase::Over(End::Reset);
        Reaction::Reset
    }

    /// The guest has refused, and is to be asked again later. False if there is nothing to ask.
    pub(super) fn ask_again(&mut self) -> bool {
        let asked = self.phase == Phase::Asking && !self.opening_owed;
        self.opening_owed |= asked;
        asked
    }

    /// The guest's driver is gone, and all its connections with it.
    pub(super) fn guest_vanished(&mut self) {
        if self.is_over().is_none() {
            self.phase = Phase::Over(End::Reset);
        }
    }

    /// Whether the guest knows about this connection.
    pub(super) fn guest_knows(&self) -> bool {
        !(self.phase == Phase::Asking && self.opening_owed)
    }

    // Events from the host.

    /// The host end that the guest asked for is there.
    pub(super) fn host_answered(&mut self) {
        if self.phase == Phase::Answering {
            self.phase = Phase::Open;
            self.opening_owed = true;
        }
    }

    /// `len` bytes of the guest have gone to the host, or were dropped.
    pub(super) fn host_took(&mut self, len: u32) {
        self.forwarded(len);
    }

    /// The host will write no more; everything that it wrote has been sent.
    pub(super) fn host_ended(&mut self) {
        if self.to_guest == ToGuest::Flowing {
            self.to_guest = ToGuest::Ended;
        }
    }

    /// The host will read no more. What is held for it is lost, by its own will.
    pub(super) fn host_refused(&mut self) {
        if self.to_host != ToHost::Ended {
            self.to_host = ToHost::Refused;
        }
        let held = self.window.held();
        self.forwarded(held);
    }

    /// The host has broken off. Returns whether the guest must be reset.
    pub(super) fn host_broke(&mut self) -> bool {
        let known = self.guest_knows() && self.is_over().is_none();
        if self.is_over().is_none() {
            self.phase = Phase::Over(End::Reset);
        }
        known
    }

    /// The deadline of this phase has passed. Returns whether the guest must be reset.
    pub(super) fn timed_out(&mut self) -> bool {
        let known = self.guest_knows();
        match self.phase {
            Phase::Asking | Phase::Answering => self.phase = Phase::Over(End::TimedOut),
            Phase::Closing => self.phase = Phase::Over(End::Clean),
            Phase::Open | Phase::Over(_) => return false,
        }
        known
    }

    // Wishes.

    /// The next control packet for the guest.
    pub(super) fn owed(&self) -> Option<Op> {
        match self.phase {
            Phase::Asking if self.opening_owed => Some(Op::Request),
            Phase::Open if self.opening_owed => Some(Op::Response),
            Phase::Open if self.shutdown_flags() & !self.told_guest != 0 => Some(Op::Shutdown),
            Phase::Open if self.credit_owed || self.window.is_due() => Some(Op::CreditUpdate),
            Phase::Open if self.request_owed => Some(Op::CreditRequest),
            _ => None,
        }
    }

    /// Bytes that may go to the guest now, if the host has any.
    pub(super) fn may_send(&self) -> u32 {
        if self.wants_host_bytes() { self.allowance.free() } else { 0 }
    }

    /// Whether bytes of the host, or its end, are of interest.
    pub(super) fn wants_host_bytes(&self) -> bool {
        self.phase == Phase::Open && self.to_guest == ToGuest::Flowing && !self.opening_owed
    }

    /// The host has bytes, and the guest has no room for them: it should be asked, once.
    pub(super) fn starved(&mut self) {
        if self.allowance.ask() {
            self.request_owed = true;
        }
    }

    /// What to tell the host once nothing is held for it.
    pub(super) fn host_wish(&self) -> HostWish {
        if self.to_host == ToHost::Ending {
            HostWish::ShutWrite
        } else if self.to_guest == ToGuest::Unwanted && !self.told_host {
            HostWish::ShutRead
        } else {
            HostWish::Nothing
        }
    }

    /// The wish was fulfilled.
    pub(super) fn host_told(&mut self, wish: HostWish) {
        match wish {
            HostWish::ShutWrite => self.to_host = ToHost::Ended,
            HostWish::ShutRead => self.told_host = true,
            HostWish::Nothing => {}
        }
    }

    /// Whether the host said, or was told, that no more bytes come from it.
    pub(super) fn host_is_done_writing(&self) -> bool {
        self.to_guest == ToGuest::Ended
    }

    /// Whether bytes for the host still have somewhere to go.
    pub(super) fn host_reads(&self) -> bool {
        self.to_host != ToHost::Refused
    }

    /// Fills in the header of a packet that goes now: the control packet that is owed, or
    /// `Op::Data` with `len` bytes. The ports and CIDs are the owner's.
    pub(super) fn send(&mut self, op: Op, len: u32) -> Header {
        let mut flags = 0;
        match op {
            Op::Request | Op::Response => self.opening_owed = false,
            Op::CreditUpdate => self.credit_owed = false,
            Op::CreditRequest => self.request_owed = false,
            Op::Data => self.allowance.spend(len),
            Op::Shutdown => {
                flags = self.shutdown_flags();
                self.told_guest = flags;
                if flags == NO_MORE {
                    self.phase = Phase::Closing;
                }
            }
            Op::Reset => {}
        }
        let (buf_alloc, fwd_cnt) = self.window.announce();
        Header { len, op: op as u16, flags, buf_alloc, fwd_cnt, ..Header::default() }
    }

    /// What the guest should know by now about the two directions.
    fn shutdown_flags(&self) -> u32 {
        let mut flags = 0;
        if self.to_guest == ToGuest::Ended {
            flags |= NO_SEND;
        }
        match self.to_host {
            ToHost::Refused => flags |= NO_RECEIVE,
            ToHost::Ended if flags != 0 => flags |= NO_RECEIVE,
            _ => {}
        }
        // A host that neither reads nor is read from is of no more use.
        if self.to_guest == ToGuest::Unwanted && self.to_host == ToHost::Refused {
            flags = NO_MORE;
        }
        flags | self.told_guest
    }

    fn forwarded(&mut self, len: u32) {
        self.window.forward(len);
    }
}

#[cfg(test)]
#[path = "connection_tests.rs"]
mod tests;
