//! What is due when.

use super::slots::Token;
use std::collections::BTreeSet;
use std::time::Instant;

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

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn the_earliest_comes_first_and_what_was_taken_back_never() {
        let start = Instant::now();
        let at = |seconds| Some(start + Duration::from_secs(seconds));
        let [first, second, third] = [1, 2, 3].map(Token::from_bits);
        let mut deadlines = Deadlines::default();
        deadlines.replace(second, None, at(2));
        deadlines.replace(first, None, at(9));
        deadlines.replace(third, None, at(3));
        deadlines.replace(first, at(9), at(1));
        deadlines.replace(second, at(2), None);
        assert_eq!(deadlines.next(), at(1));
        assert_eq!(deadlines.expired(start), None);
        let late = start + Duration::from_secs(10);
        assert_eq!([0; 3].map(|_| deadlines.expired(late)), [Some(first), Some(third), None]);
    }
}
