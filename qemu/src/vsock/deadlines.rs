//! What is due when.

use super::slots::Token;
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

/// The deadlines of all entries; each entry keeps its own, to take it back.
#[derive(Debug, Default)]
pub(super) struct Deadlines {
    due: BTreeSet<(Instant, Token)>,
}

impl Deadlines {
    /// Replaces the deadline of `token`, which was `old`.
    pub(super) fn replace(&mut self, token: Token, old: Option<Instant>, new: Option<Instant>) {
        if old == new {
            return;
        }
        if let Some(old) = old {
            self.due.remove(&(old, token));
        }
        if let Some(new) = new {
            self.due.insert((new, token));
        }
    }

    /// Takes one that has passed.
    pub(super) fn expired(&mut self, now: Instant) -> Option<Token> {
        let (due, token) = self.due.first().copied().filter(|(due, _)| *due <= now)?;
        self.due.remove(&(due, token));
        Some(token)
    }

    /// The next one.
    pub(super) fn next(&self) -> Option<Instant> {
        self.due.first().map(|(due, _)| *due)
    }
}

/// Complaints about a guest that does not keep the rules: at most one line a second, so that it
/// cannot fill the log either.
#[derive(Debug, Default)]
pub(super) struct Complaints {
    last: Option<Instant>,
    unsaid: u64,
}

impl Complaints {
    pub(super) fn say(&mut self, guest_cid: u64, what: &str) {
        let now = Instant::now();
        if self.last.is_some_and(|last| now < last + Duration::from_secs(1)) {
            self.unsaid += 1;
            return;
        }
        let unsaid = std::mem::take(&mut self.unsaid);
        log::warn!("vsock guest {guest_cid}: {what} ({unsaid} more complaints were left out)");
        self.last = Some(now);
    }
}
