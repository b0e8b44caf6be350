//! Flow control, both ways (virtio 1.3, section 5.10.6.3).
//!
//! Each side tells the other how large its receive buffer is (`buf_alloc`) and how many bytes
//! have left it (`fwd_cnt`). A sender may have `buf_alloc` bytes on the way that were not
//! forwarded yet, and no more. The counters run modulo 2^32.

use std::num::Wrapping;

/// The guest sent more than it was allowed to, or took back what it had forwarded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Breach;

/// What the guest may send to us.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Window {
    size: u32,
    received: Wrapping<u32>,
    forwarded: Wrapping<u32>,
    /// `forwarded` as the guest was last told; never ahead of it.
    announced: Wrapping<u32>,
}

impl Window {
    pub(super) fn new(size: u32) -> Self {
        let zero = Wrapping(0);
        Self { size, received: zero, forwarded: zero, announced: zero }
    }

    /// Bytes that came and did not leave yet.
    pub(super) fn held(&self) -> u32 {
        (self.received - self.forwarded).0
    }

    /// `len` bytes have come.
    pub(super) fn receive(&mut self, len: u32) -> Result<(), Breach> {
        if len > self.size.saturating_sub(self.held()) {
            return Err(Breach);
        }
        self.received += len;
        Ok(())
    }

    /// `len` bytes have gone to the host; at most what is held.
    pub(super) fn forward(&mut self, len: u32) {
        self.forwarded += len.min(self.held());
    }

    /// Whether the guest should be told, because what it believes to be full has emptied by a
    /// quarter. A guest that waits for room has at least three quarters of it announced or held.
    pub(super) fn is_due(&self) -> bool {
        (self.forwarded - self.announced).0 >= self.size / 4
    }

    /// The two fields for a header that goes out now.
    pub(super) fn announce(&mut self) -> (u32, u32) {
        self.announced = self.forwarded;
        (self.size, self.forwarded.0)
    }
}

/// What we may send to the guest.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Allowance {
    size: u32,
    sent: Wrapping<u32>,
    forwarded: Wrapping<u32>,
    /// A credit request is under way: do not repeat it until the guest says something.
    asked: bool,
}

impl Allowance {
    /// The guest told its two fields, which every packet of it carries. It may shrink its
    /// buffer, but it can only forward what was sent.
    pub(super) fn update(&mut self, size: u32, forwarded: u32) -> Result<(), Breach> {
        let forwarded = Wrapping(forwarded);
        if (forwarded - self.forwarded).0 > (self.sent - self.forwarded).0 {
            return Err(Breach);
        }
        self.size = size;
        self.forwarded = forwarded;
        self.asked = false;
        Ok(())
    }

    /// Bytes that we may send now.
    pub(super) fn free(&self) -> u32 {
        self.size.saturating_sub((self.sent - self.forwarded).0)
    }

    /// `len` bytes go; at most [`Self::free`].
    pub(super) fn spend(&mut self, len: u32) {
        self.sent += len.min(self.free());
    }

    /// Whether to ask for credit now; true once for each time that the guest falls silent.
    pub(super) fn ask(&mut self) -> bool {
        !std::mem::replace(&mut self.asked, true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guest_that_sends_too_much_is_caught() {
        let mut window = Window::new(100);
        assert_eq!(window.receive(60), Ok(()));
        assert_eq!(window.receive(41), Err(Breach));
        window.forward(20);
        assert_eq!(window.receive(60), Ok(()));
        assert_eq!(window.receive(1), Err(Breach));
        assert_eq!(window.held(), 100);
    }

    #[test]
    fn an_announcement_is_due_once_a_quarter_has_gone() {
        let mut window = Window::new(100);
        window.receive(100).unwrap();
        window.forward(24);
        assert!(!window.is_due());
        window.forward(1);
        assert!(window.is_due());
        assert_eq!(window.announce(), (100, 25));
        assert!(!window.is_due());
    }

    #[test]
    fn nothing_is_sent_beyond_the_allowance() {
        let mut allowance = Allowance::default();
        assert_eq!(allowance.free(), 0);
        allowance.update(10, 0).unwrap();
        allowance.spend(10);
        assert_eq!(allowance.free(), 0);
        assert_eq!(allowance.update(10, 11), Err(Breach));
        allowance.update(4, 8).unwrap();
        assert_eq!(allowance.free(), 2);
        allowance.update(1, 8).unwrap();
        assert_eq!(allowance.free(), 0, "a shrunken buffer does not underflow");
        assert_eq!(allowance.update(10, 7), Err(Breach), "it cannot take bytes back");
    }

    #[test]
    fn the_counters_wrap() {
        let mut window = Window::new(1 << 16);
        let mut allowance = Allowance::default();
        allowance.update(1 << 16, 0).unwrap();
        let mut total = 0_u32;
        for _ in 0..(1 << 16) + 10 {
            window.receive(1 << 16).unwrap();
            window.forward(1 << 16);
            allowance.spend(1 << 16);
            total = total.wrapping_add(1 << 16);
            allowance.update(1 << 16, total).unwrap();
            assert_eq!(window.announce(), (1 << 16, total));
            assert_eq!(allowance.free(), 1 << 16);
        }
    }

    #[test]
    fn credit_is_asked_for_once() {
        let mut allowance = Allowance::default();
        assert!(allowance.ask());
        assert!(!allowance.ask());
        allowance.update(0, 0).unwrap();
        assert!(allowance.ask());
    }
}
