//! What is said about a guest that does not keep the rules.

use std::time::{Duration, Instant};

/// At most this often, so that a guest cannot fill the log either.
const PAUSE: Duration = Duration::from_secs(1);

/// Complaints about one guest, as warnings in the log.
#[derive(Debug, Default)]
pub(super) struct Complaints {
    last: Option<Instant>,
    unsaid: u64,
}

impl Complaints {
    /// Says it, or counts it for the next time.
    pub(super) fn say(&mut self, guest_cid: u64, what: &str) {
        let now = Instant::now();
        if !self.is_time(now) {
            return;
        }
        match std::mem::take(&mut self.unsaid) {
            0 => log::warn!("vsock guest {guest_cid}: {what}"),
            unsaid => log::warn!("vsock guest {guest_cid}: {what} ({unsaid} more were left out)"),
        }
    }

    fn is_time(&mut self, now: Instant) -> bool {
        if self.last.is_some_and(|last| now < last + PAUSE) {
            self.unsaid += 1;
            return false;
        }
        self.last = Some(now);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_counted_and_not_said() {
        let mut complaints = Complaints::default();
        let start = Instant::now();
        assert!(complaints.is_time(start));
        for _ in 0..1000 {
            assert!(!complaints.is_time(start));
        }
        assert_eq!(complaints.unsaid, 1000);
        assert!(complaints.is_time(start + PAUSE));
    }
}
