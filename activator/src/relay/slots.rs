//! Numbered places, each use of one told from the next, and mio's tokens made of them.

use mio::Token;

/// Bits of a token for the index, and for the generation.
const INDEX_BITS: u32 = 20;
const GENERATION_BITS: u32 = 32;

/// One use of a slot. An event that comes late for a use that has ended finds nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Id {
    index: u32,
    generation: u32,
}

/// What an event is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Source {
    Signals,
    /// A name was looked up.
    Waker,
    Listener(usize),
    Client(Id),
    Backend(Id),
    Flow(Id),
}

impl From<Source> for Token {
    fn from(source: Source) -> Self {
        let of = |kind: usize, Id { index, generation }: Id| {
            let generation = (generation as usize) << INDEX_BITS;
            Token(kind << (INDEX_BITS + GENERATION_BITS) | generation | index as usize)
        };
        match source {
            Source::Signals => Token(0),
            Source::Waker => Token(1),
            Source::Listener(index) => Token(2 + index),
            Source::Client(id) => of(1, id),
            Source::Backend(id) => of(2, id),
            Source::Flow(id) => of(3, id),
        }
    }
}

impl From<Token> for Source {
    fn from(Token(token): Token) -> Self {
        let index = (token & ((1 << INDEX_BITS) - 1)) as u32;
        let id = Id { index, generation: (token >> INDEX_BITS) as u32 };
        match (token >> (INDEX_BITS + GENERATION_BITS), token) {
            (0, 0) => Self::Signals,
            (0, 1) => Self::Waker,
            (0, listener) => Self::Listener(listener - 2),
            (1, _) => Self::Client(id),
            (2, _) => Self::Backend(id),
            (_, _) => Self::Flow(id),
        }
    }
}

/// A table that grows to its limit.
pub(super) struct Slots<T> {
    places: Vec<Option<(u32, T)>>,
    free: Vec<u32>,
    generation: u32,
    limit: usize,
}

impl<T> Slots<T> {
    /// `limit` is below a million.
    pub(super) fn new(limit: usize) -> Self {
        Self { places: vec![], free: vec![], generation: 0, limit }
    }

    pub(super) fn is_full(&self) -> bool {
        self.len() >= self.limit
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn len(&self) -> usize {
        self.places.len() - self.free.len()
    }

    /// Puts one in; the caller has seen that there is room.
    pub(super) fn insert(&mut self, make: impl FnOnce(Id) -> T) -> Id {
        self.generation = self.generation.wrapping_add(1);
        let index = self.free.pop().unwrap_or_else(|| {
            self.places.push(None);
            self.places.len() as u32 - 1
        });
        let id = Id { index, generation: self.generation };
        self.places[index as usize] = Some((self.generation, make(id)));
        id
    }

    pub(super) fn get_mut(&mut self, id: Id) -> Option<&mut T> {
        match self.places.get_mut(id.index as usize)? {
            Some((generation, it)) if *generation == id.generation => Some(it),
            _ => None,
        }
    }

    pub(super) fn remove(&mut self, id: Id) -> Option<T> {
        self.get_mut(id)?;
        self.free.push(id.index);
        self.places.get_mut(id.index as usize)?.take().map(|(_, it)| it)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (Id, &T)> {
        self.places.iter().zip(0..).filter_map(|(place, index)| {
            let (generation, it) = place.as_ref()?;
            Some((Id { index, generation: *generation }, it))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_there_and_back() {
        let id = Id { index: 99_999, generation: u32::MAX };
        let all = [
            Source::Signals,
            Source::Waker,
            Source::Listener(0),
            Source::Listener(1000),
            Source::Client(id),
            Source::Backend(id),
            Source::Flow(Id { index: 0, generation: 1 }),
        ];
        for source in all {
            assert_eq!(Source::from(Token::from(source)), source);
        }
    }

    #[test]
    fn a_slot_used_anew_is_another() {
        let mut slots = Slots::new(1);
        let first = slots.insert(|_| 'a');
        assert!(slots.is_full());
        assert_eq!(slots.remove(first), Some('a'));
        let second = slots.insert(|_| 'b');
        assert_eq!(slots.get_mut(first), None);
        assert_eq!(slots.remove(first), None);
        assert_eq!(slots.get_mut(second), Some(&mut 'b'));
        assert_eq!(slots.iter().count(), 1);
    }
}
