//! The lines that are kept: a bounded ring per unit, and cursors over one or all of them.
//!
//! A cursor remembers, for each ring, the number of the next line. When the ring has dropped
//! that line already, the cursor's reader was too slow: it learns how many it lost, and goes on
//! with the oldest one that is kept. So a reader costs no memory, however slow it is.

use std::collections::VecDeque;

/// Most bytes kept per unit, each line counted with [`OVERHEAD`]; the oldest go first.
pub const RING: usize = 64 * 1024;
/// What a line costs beside its text, so that empty lines are bounded too; in bytes.
pub const OVERHEAD: usize = 48;

/// One line as it is kept.
#[derive(Debug, PartialEq, Eq)]
pub struct Entry {
    /// Counts the lines of all rings: the order for merging.
    sequence: u64,
    /// Microseconds since the epoch, when it was read.
    pub realtime_us: u64,
    /// Without the newline.
    pub text: Box<str>,
}

/// Rings by number.
#[derive(Debug)]
pub struct Store {
    rings: Vec<Ring>,
    next_sequence: u64,
}

#[derive(Debug, Default)]
struct Ring {
    entries: VecDeque<Entry>,
    /// Sum of text and overhead of `entries`; at most [`RING`].
    bytes: usize,
    /// Lines dropped so far: the number of the first entry.
    dropped: u64,
}

impl Ring {
    fn end(&self) -> u64 {
        self.dropped + self.entries.len() as u64
    }
}

/// A reader's place.
#[derive(Debug)]
pub struct Cursor {
    places: Vec<Place>,
    /// Follows all rings, also those that come later.
    all: bool,
}

#[derive(Debug)]
struct Place {
    ring: usize,
    /// Number of the next line of that ring.
    next: u64,
    /// Where the reader is done; None if it follows.
    end: Option<u64>,
}

/// What a cursor meets.
#[derive(Debug, PartialEq, Eq)]
pub enum Item<'a> {
    /// A line of that ring.
    Line(usize, &'a Entry),
    /// Lines of that ring were dropped before they were read: the time of the line that is next
    /// (0 if there is none), and how many.
    Lost(usize, u64, u64),
}

impl Store {
    /// Empty rings 0 to `rings` - 1; an empty one costs no heap.
    pub fn new(rings: usize) -> Self {
        Self {
            rings: std::iter::repeat_with(Ring::default).take(rings).collect(),
            next_sequence: 0,
        }
    }

    /// Adds a ring; its number.
    pub fn add(&mut self) -> usize {
        self.rings.push(Ring::default());
        self.rings.len() - 1
    }

    /// Drops the lines of a ring.
    pub fn clear(&mut self, ring: usize) {
        if let Some(ring) = self.rings.get_mut(ring) {
            ring.dropped = ring.end();
            ring.entries = VecDeque::new();
            ring.bytes = 0;
        }
    }

    /// Keeps a line. A ring that does not exist keeps nothing.
    pub fn push(&mut self, ring: usize, realtime_us: u64, text: &str) {
        let Some(ring) = self.rings.get_mut(ring) else { return };
        ring.bytes += text.len() + OVERHEAD;
        ring.entries.push_back(Entry {
            sequence: self.next_sequence,
            realtime_us,
            text: text.into(),
        });
        self.next_sequence += 1;
        while ring.bytes > RING {
            let Some(oldest) = ring.entries.pop_front() else { break };
            ring.bytes -= oldest.text.len() + OVERHEAD;
            ring.dropped += 1;
        }
    }

    /// Begins with the oldest kept line of one ring, or of all. Without `follow` it ends with
    /// what is kept now.
    pub fn cursor(&self, ring: Option<usize>, follow: bool) -> Cursor {
        let wanted = |index: &usize| ring.is_none_or(|ring| ring == *index);
        let place = |index: usize| {
            let ring = self.rings.get(index)?;
            let end = (!follow).then(|| ring.end());
            Some(Place { ring: index, next: ring.dropped, end })
        };
        let places = (0..self.rings.len()).filter(wanted).filter_map(place).collect();
        Cursor { places, all: follow && ring.is_none() }
    }

    /// The next line in the order in which lines came; None if there is none now.
    pub fn next(&self, cursor: &mut Cursor) -> Option<Item<'_>> {
        if cursor.all {
            let new = cursor.places.len()..self.rings.len();
            cursor.places.extend(new.map(|ring| Place { ring, next: 0, end: None }));
        }
        let mut first: Option<(&mut Place, &Entry)> = None;
        for place in &mut cursor.places {
            let ring = self.rings.get(place.ring)?;
            let until = place.end.unwrap_or(u64::MAX);
            let kept_from = ring.dropped.min(until);
            if place.next < kept_from {
                let lost = kept_from - place.next;
                place.next = kept_from;
                let time = ring.entries.front().map_or(0, |entry| entry.realtime_us);
                return Some(Item::Lost(place.ring, time, lost));
            }
            if place.next >= until {
                continue;
            }
            let index = usize::try_from(place.next - ring.dropped).unwrap_or(usize::MAX);
            let Some(entry) = ring.entries.get(index) else { continue };
            if first.as_ref().is_none_or(|(_, other)| entry.sequence < other.sequence) {
                first = Some((place, entry));
            }
        }
        let (place, entry) = first?;
        place.next += 1;
        Some(Item::Line(place.ring, entry))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(store: &Store, cursor: &mut Cursor) -> Vec<String> {
        std::iter::from_fn(|| {
            Some(match store.next(cursor)? {
                Item::Line(ring, entry) => format!("{ring}:{}", entry.text),
                Item::Lost(ring, _, count) => format!("{ring} lost {count}"),
            })
        })
        .collect()
    }

    #[test]
    fn rings_are_merged_in_the_order_of_arrival() {
        let mut store = Store::new(3);
        for (ring, text) in [(2, "a"), (0, "b"), (2, "c"), (1, "d")] {
            store.push(ring, 0, text);
        }
        store.push(3, 0, "no such ring");
        assert_eq!(read(&store, &mut store.cursor(None, false)), ["2:a", "0:b", "2:c", "1:d"]);
        assert_eq!(read(&store, &mut store.cursor(Some(2), false)), ["2:a", "2:c"]);
    }

    #[test]
    fn a_reader_that_does_not_follow_ends_where_it_began() {
        let mut store = Store::new(1);
        store.push(0, 0, "a");
        let (mut once, mut following) = (store.cursor(None, false), store.cursor(None, true));
        store.push(0, 0, "b");
        assert_eq!(read(&store, &mut once), ["0:a"]);
        assert_eq!(read(&store, &mut following), ["0:a", "0:b"]);
        store.push(0, 0, "c");
        assert_eq!(read(&store, &mut once), [""; 0]);
        assert_eq!(read(&store, &mut following), ["0:c"]);
    }

    #[test]
    fn the_oldest_lines_go_and_slow_readers_learn_how_many() {
        let mut store = Store::new(2);
        store.push(0, 0, "first");
        let (mut once, mut following) = (store.cursor(None, false), store.cursor(None, true));
        let most = RING / OVERHEAD;
        for _ in 0..most + 10 {
            store.push(0, 0, "");
        }
        store.push(1, 0, "other");
        assert!(store.rings[0].bytes <= RING);
        assert_eq!(read(&store, &mut once), ["0 lost 1"]);
        let seen = read(&store, &mut following);
        assert_eq!(seen[0], "0 lost 11");
        assert_eq!(seen.len(), 1 + most + 1);
        assert_eq!(seen.last().unwrap(), "1:other");
    }

    #[test]
    fn who_follows_all_sees_rings_that_come_later() {
        let mut store = Store::new(1);
        let (mut all, mut one) = (store.cursor(None, true), store.cursor(Some(0), true));
        store.push(0, 0, "a");
        let new = store.add();
        store.push(new, 0, "b");
        assert_eq!(read(&store, &mut all), ["0:a", "1:b"]);
        assert_eq!(read(&store, &mut one), ["0:a"]);
        store.clear(new);
        assert_eq!(read(&store, &mut store.cursor(None, false)), ["0:a"]);
        store.push(new, 0, "c");
        assert_eq!(read(&store, &mut all), ["1:c"]);
    }

    #[test]
    fn a_line_larger_than_a_ring_is_not_kept() {
        let mut store = Store::new(1);
        store.push(0, 0, &"x".repeat(RING));
        assert_eq!(store.rings[0].bytes, 0);
        assert_eq!(read(&store, &mut store.cursor(None, true)), [""; 0]);
    }
}
