//! A table whose entries are named by tokens that are not used twice.

/// Names an entry: its place in the low half, and how often the place was used in the high half.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Token(u64);

impl Token {
    /// As it travels through epoll.
    pub(super) fn to_bits(self) -> u64 {
        self.0
    }

    /// From [`Self::to_bits`].
    pub(super) fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    fn new(place: usize, uses: u32) -> Self {
        Self(u64::from(uses) << 32 | place as u64)
    }

    fn place(self) -> usize {
        (self.0 & 0xffff_ffff) as usize
    }

    fn uses(self) -> u32 {
        (self.0 >> 32) as u32
    }
}

/// The table. It never shrinks, and never has more than its limit.
#[derive(Debug)]
pub(super) struct Slots<T> {
    entries: Vec<(u32, Option<T>)>,
    free: Vec<usize>,
    limit: usize,
}

impl<T> Slots<T> {
    pub(super) fn new(limit: usize) -> Self {
        Self { entries: Vec::new(), free: Vec::new(), limit }
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len() - self.free.len()
    }

    pub(super) fn is_full(&self) -> bool {
        self.len() >= self.limit
    }

    /// Adds an entry; gives it back if the table is full.
    pub(super) fn insert(&mut self, value: T) -> Result<Token, T> {
        if self.is_full() {
            return Err(value);
        }
        let place = match self.free.pop() {
            Some(place) => place,
            None => {
                self.entries.push((0, None));
                self.entries.len() - 1
            }
        };
        let (uses, entry) = &mut self.entries[place];
        // Bit 31 stays clear: the owner has tokens of its own above it.
        *uses = (*uses + 1) & 0x7fff_ffff;
        *entry = Some(value);
        Ok(Token::new(place, *uses))
    }

    pub(super) fn get(&self, token: Token) -> Option<&T> {
        let (uses, entry) = self.entries.get(token.place())?;
        entry.as_ref().filter(|_| *uses == token.uses())
    }

    pub(super) fn get_mut(&mut self, token: Token) -> Option<&mut T> {
        let (uses, entry) = self.entries.get_mut(token.place())?;
        entry.as_mut().filter(|_| *uses == token.uses())
    }

    pub(super) fn remove(&mut self, token: Token) -> Option<T> {
        let (uses, entry) = self.entries.get_mut(token.place())?;
        if *uses != token.uses() {
            return None;
        }
        let value = entry.take()?;
        self.free.push(token.place());
        Some(value)
    }

    /// Makes another value of an entry; its token stays the same.
    pub(super) fn transform(&mut self, token: Token, change: impl FnOnce(T) -> T) {
        if let Some((uses, entry)) = self.entries.get_mut(token.place())
            && *uses == token.uses()
        {
            *entry = entry.take().map(change);
        }
    }

    /// The tokens of all entries.
    pub(super) fn tokens(&self) -> Vec<Token> {
        let named = |(place, (uses, entry)): (usize, &(u32, Option<T>))| {
            entry.is_some().then(|| Token::new(place, *uses))
        };
        self.entries.iter().enumerate().filter_map(named).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_of_the_past_names_nothing() {
        let mut slots = Slots::new(2);
        let first = slots.insert("a").unwrap();
        assert_eq!(slots.remove(first), Some("a"));
        let second = slots.insert("b").unwrap();
        assert_eq!(slots.get(first), None);
        assert_eq!(slots.remove(first), None);
        assert_eq!(slots.get(Token::from_bits(second.to_bits())), Some(&"b"));
    }

    #[test]
    fn the_limit_holds_and_places_are_used_again() {
        let mut slots = Slots::new(2);
        let first = slots.insert(1).unwrap();
        slots.insert(2).unwrap();
        assert_eq!(slots.insert(3), Err(3));
        slots.remove(first);
        assert!(slots.insert(3).is_ok());
        assert_eq!((slots.len(), slots.entries.len(), slots.tokens().len()), (2, 2, 2));
    }
}
