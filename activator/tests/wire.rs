//! The encoding: what goes in comes out, another version of a type can be read, and no bytes
//! whatever make it panic or ask for more memory than they are worth.

mod random;

use activator::manifest::Manifest;
use activator::wire::{
    self, Fault, Put, Reader, Take, Writer, from_bytes, length, to_slice, to_vec,
};
use random::{Random, cases};

#[derive(Debug, Clone, Default, PartialEq)]
struct Inner {
    word: u16,
    name: String,
}

#[derive(Debug, Clone, Default, PartialEq)]
enum Kind {
    #[default]
    Plain,
    Number(i32),
    Pair(u8, String),
    Named {
        list: Vec<Inner>,
        yes: bool,
    },
}

#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Id(u32);

#[derive(Debug, Clone, Default, PartialEq)]
struct Sample {
    id: Id,
    wide: u64,
    size: usize,
    address: [u8; 4],
    pair: (u32, Option<u16>),
    triple: Vec<(u32, u64, u64)>,
    boxed: Option<Box<Inner>>,
    kinds: Vec<Kind>,
    bytes: Vec<u8>,
    last: bool,
}

activator::wire! {
    struct Inner { word, name }
    enum Kind { Plain, Number(number), Pair(first, second), Named { list, yes } }
    tuple Id(id)
    struct Sample { id, wide, size, address, pair, triple, boxed, kinds, bytes, last }
}

impl Random {
    fn list<T>(&mut self, mut one: impl FnMut(&mut Self) -> T) -> Vec<T> {
        (0..self.below(5)).map(|_| one(self)).collect()
    }

    fn option<T>(&mut self, one: impl FnOnce(&mut Self) -> T) -> Option<T> {
        (self.below(2) == 0).then(|| one(self))
    }

    fn text(&mut self) -> String {
        self.list(|it| ['a', 'é', '€', '\0', '\u{1f980}'][it.below(5)]).iter().collect()
    }

    fn inner(&mut self) -> Inner {
        Inner { word: self.next() as u16, name: self.text() }
    }

    fn kind(&mut self) -> Kind {
        match self.below(4) {
            0 => Kind::Plain,
            1 => Kind::Number(self.next() as i32),
            2 => Kind::Pair(self.next() as u8, self.text()),
            _ => Kind::Named { list: self.list(Self::inner), yes: self.below(2) == 0 },
        }
    }

    fn sample(&mut self) -> Sample {
        Sample {
            id: Id(self.next() as u32),
            wide: self.next(),
            size: self.next() as usize,
            address: self.next().to_le_bytes()[..4].try_into().unwrap(),
            pair: (self.next() as u32, self.option(|it| it.next() as u16)),
            triple: self.list(|it| (it.next() as u32, it.next(), it.next())),
            boxed: self.option(|it| Box::new(it.inner())),
            kinds: self.list(Self::kind),
            bytes: self.list(|it| it.next() as u8),
            last: self.below(2) == 0,
        }
    }
}

#[test]
fn values_come_back() {
    for (seed, mut random) in cases(2_000) {
        let sample = random.sample();
        let bytes = to_vec(&sample);
        assert_eq!(bytes.len(), length(&sample), "seed {seed}");
        assert_eq!(from_bytes(&bytes), Ok(sample.clone()), "seed {seed}");
        let mut room = vec![0; bytes.len()];
        assert_eq!(to_slice(&sample, &mut room).as_deref(), Some(&bytes[..]), "seed {seed}");
        room.pop();
        assert_eq!(to_slice(&sample, &mut room), None, "seed {seed}");
    }
}

#[test]
fn the_bytes_are_those_of_the_table() {
    let pair = Kind::Pair(7, "é".into());
    assert_eq!(to_vec(&pair), [2, 7, 2, 0, 0, 0, 0xc3, 0xa9]);
    assert_eq!(
        to_vec(&Inner { word: 0x102, name: "a".into() }),
        [7, 0, 0, 0, 2, 1, 1, 0, 0, 0, b'a']
    );
    assert_eq!(to_vec(&(Id(1), Some(true))), [1, 0, 0, 0, 1, 1]);
    assert_eq!(to_vec(&vec![None, Some(3_u8)]), [2, 0, 0, 0, 0, 1, 3]);
}

/// A type as it was, and as it is two versions later.
mod versions {
    #[derive(Debug, Default, PartialEq)]
    pub(super) struct Old {
        pub(super) name: String,
        pub(super) parts: Vec<OldPart>,
        pub(super) end: u8,
    }
    #[derive(Debug, Default, PartialEq)]
    pub(super) struct OldPart {
        pub(super) a: u32,
    }
    #[derive(Debug, Default, PartialEq)]
    pub(super) struct New {
        pub(super) name: String,
        pub(super) parts: Vec<NewPart>,
        pub(super) end: u8,
        pub(super) more: Option<String>,
        pub(super) part: NewPart,
        pub(super) mode: Mode,
        pub(super) list: Vec<u64>,
    }
    #[derive(Debug, Default, PartialEq)]
    pub(super) struct NewPart {
        pub(super) a: u32,
        pub(super) b: u64,
        pub(super) c: (bool, String),
    }
    #[derive(Debug, Default, PartialEq)]
    pub(super) enum Mode {
        #[default]
        AsBefore,
        Otherwise,
    }
    activator::wire! {
        struct Old { name, parts, end }
        struct OldPart { a }
        struct New { name, parts, end, more, part, mode, list }
        struct NewPart { a, b, c }
        enum Mode { AsBefore, Otherwise }
    }
}

#[test]
fn a_newer_reader_takes_zeros_and_an_older_one_skips() {
    use versions::{Mode, New, NewPart, Old, OldPart};
    let old = || Old { name: "x".into(), parts: vec![OldPart { a: 1 }, OldPart { a: 2 }], end: 3 };
    let part = |a| NewPart { a, ..NewPart::default() };
    let read: New = from_bytes(&to_vec(&old())).unwrap();
    let name = "x".to_owned();
    assert_eq!(read, New { name, parts: vec![part(1), part(2)], end: 3, ..New::default() });
    let part = |a| NewPart { a, b: u64::MAX, c: (true, "long".into()) };
    let new = New {
        more: Some("more".into()),
        part: part(9),
        mode: Mode::Otherwise,
        list: vec![1, 2],
        parts: vec![part(1), part(2)],
        ..read
    };
    assert_eq!(from_bytes(&to_vec(&new)), Ok(old()));
}

#[test]
fn what_makes_no_sense_is_a_fault() {
    // A variant that there is not, a flag that is none, no UTF-8.
    assert_eq!(from_bytes::<Kind>(&[4]), Err(Fault));
    assert_eq!(from_bytes::<bool>(&[2]), Err(Fault));
    assert_eq!(from_bytes::<String>(&[1, 0, 0, 0, 0xff]), Err(Fault));
    // Lengths past the end of all, and past the end of the struct that they are in.
    assert_eq!(from_bytes::<String>(&[2, 0, 0, 0, b'a']), Err(Fault));
    assert_eq!(from_bytes::<Vec<u64>>(&[u8::MAX; 12]), Err(Fault));
    assert_eq!(from_bytes::<Inner>(&[8, 0, 0, 0, 2, 1, 1, 0, 0, 0, b'a']), Err(Fault));
    let inside = [6, 0, 0, 0, 2, 1, 1, 0, 0, 0, b'a'];
    assert_eq!(from_bytes::<(Inner, u8)>(&inside), Err(Fault));
    // Within a number, and more than there should be.
    assert_eq!(from_bytes::<u32>(&[1, 0, 0]), Err(Fault));
    assert_eq!(from_bytes::<u8>(&[1, 0]), Err(Fault));
}

#[test]
fn several_values_stand_one_behind_the_other() {
    let bytes = [to_vec(&Kind::Number(-1)), to_vec(&Kind::Plain), vec![9]].concat();
    let mut reader = Reader::new(&bytes);
    assert_eq!(reader.value(), Some(Kind::Number(-1)));
    assert_eq!(reader.value(), Some(Kind::Plain));
    assert_eq!(reader.value::<Kind>(), None);
    assert_eq!(reader.end(), Err(Fault));
    let mut room = [0; 5];
    let mut writer = Writer::new(&mut room);
    Kind::Number(1).put(&mut writer);
    assert_eq!(room, [1, 1, 0, 0, 0]);
}

/// Bytes of memory that a value has asked for.
trait Weight {
    fn weight(&self) -> usize;
}

impl Weight for Sample {
    fn weight(&self) -> usize {
        let kind = |kind: &Kind| match kind {
            Kind::Plain | Kind::Number(_) => 0,
            Kind::Pair(_, text) => text.capacity(),
            Kind::Named { list, .. } => {
                let names: usize = list.iter().map(|inner| inner.name.capacity()).sum();
                list.capacity() * size_of::<Inner>() + names
            }
        };
        let boxed = |inner: &Inner| size_of::<Inner>() + inner.name.capacity();
        self.triple.capacity() * size_of::<(u32, u64, u64)>()
            + self.boxed.as_deref().map_or(0, boxed)
            + self.kinds.capacity() * size_of::<Kind>()
            + self.kinds.iter().map(kind).sum::<usize>()
            + self.bytes.capacity()
    }
}

#[test]
fn noise_asks_for_no_more_memory_than_it_is_worth() {
    // The type that is largest in relation to its shortest encoding. Two lists within each other
    // are the most that the type has.
    let worst = 2 * (size_of::<Kind>() / Kind::LEAST).max(size_of::<Inner>() / Inner::LEAST);
    for (seed, mut random) in cases(20_000) {
        // Half of them are values with damage, the others noise with lengths that are not far off.
        let mut bytes = to_vec(&random.sample());
        if seed % 2 == 0 {
            let small = |it: &mut Random| [0, 0, 0, 1, 4, 0xff, it.next() as u8][it.below(7)];
            bytes = (0..random.below(300)).map(|_| small(&mut random)).collect();
        }
        for _ in 0..=random.below(3) {
            let at = random.below(bytes.len().max(1));
            if let Some(byte) = bytes.get_mut(at) {
                *byte ^= 1 << random.below(8);
            }
        }
        // What is read up to the fault, too.
        let mut reader = Reader::new(&bytes);
        let value = Sample::take(&mut reader);
        assert!(value.weight() <= worst * bytes.len(), "seed {seed}");
        if reader.end().is_ok() {
            assert_eq!(from_bytes(&to_vec(&value)), Ok(value), "seed {seed}");
        }
    }
}

#[test]
fn a_manifest_of_noise_neither_panics_nor_takes_long() {
    for (_, mut random) in cases(2_000) {
        let bytes: Vec<u8> = (0..random.below(4096)).map(|_| random.next() as u8 & 3).collect();
        if let Ok(manifest) = wire::from_bytes::<Manifest>(&bytes) {
            assert_eq!(wire::from_bytes(&to_vec(&manifest)), Ok(manifest));
        }
    }
}
