//! How values become bytes: for the manifest, the control protocol, and the state that one
//! activator hands to the next.
//!
//! Code of our own for the sake of size, since every byte of the activator is in every image. A
//! serde format makes, for each type, a visitor with a branch and a clean-up behind each field:
//! 160 kB of machine code for the types here. This makes one call for each field.
//!
//! * Reading cannot fail in the middle: [`Reader`] remembers the first fault, and gives zeros and
//!   empty values from then on. Whoever asked looks at the end ([`from_bytes`]).
//! * Writing allocates nothing: [`Writer`] fills a slice, and counts what has no room.
//! * A length is compared with the bytes that are left before anything is allocated, so damaged
//!   bytes cost no more memory than about [`Take::LEAST`] in relation to the size of the type. How
//!   deep values nest is a matter of the types; none contains itself.
//!
//! | type | bytes, integers in little endian |
//! |---|---|
//! | integer | as wide as it is; a `usize` has 8 |
//! | bool | 0 or 1 |
//! | text, bytes, list | number of bytes or elements (4), then these |
//! | option | 0, or 1 and the value |
//! | enum | its variant's place in the list of [`wire!`](crate::wire!) (1), then the fields |
//! | struct | length of what follows (4), then the fields |
//! | tuple, array, struct in the list as `tuple` | the fields |
//!
//! # Other versions
//!
//! A reader skips what comes behind the last field of a struct that it knows, and a field that an
//! older writer did not have is zero, empty, None, the first variant. So a field may be added at
//! the end of a struct if that is what its lack means, and a variant at the end of an enum if no
//! older reader meets it. All other changes want a new version number of whatever they are in.

/// A value that can be written.
pub trait Put {
    /// Appends it.
    fn put(&self, to: &mut Writer<'_>);
}

/// A value that can be read.
pub trait Take: Sized {
    /// Bytes of the shortest value.
    const LEAST: usize = 1;

    /// The next one; anything of the type after a fault.
    fn take(from: &mut Reader<'_>) -> Self;
}

/// The bytes of a value.
pub fn to_vec(value: &dyn Put) -> Vec<u8> {
    let mut bytes = vec![0; length(value)];
    value.put(&mut Writer::new(&mut bytes));
    bytes
}

/// The bytes of a value in the room that there is for them; None if they do not fit.
pub fn to_slice<'a>(value: &dyn Put, room: &'a mut [u8]) -> Option<&'a mut [u8]> {
    let mut writer = Writer::new(room);
    value.put(&mut writer);
    let used = writer.used;
    room.get_mut(..used)
}

/// The number of bytes that a value takes.
pub fn length(value: &dyn Put) -> usize {
    let mut writer = Writer::new(&mut []);
    value.put(&mut writer);
    writer.used
}

/// The value that all of the bytes are.
pub fn from_bytes<T: Take>(bytes: &[u8]) -> Result<T, Fault> {
    let mut reader = Reader::new(bytes);
    let value = T::take(&mut reader);
    reader.end().map(|()| value)
}

/// Another one of the value, without the code that a `Clone` of a large type takes.
pub fn copy<T: Put + Take>(value: &T) -> T {
    T::take(&mut Reader::new(&to_vec(value)))
}

/// The bytes are not what the type says: they end too early, or there are more, or a length, an
/// enum or a text makes no sense.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fault;

impl core::fmt::Display for Fault {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("the bytes make no sense")
    }
}

impl core::error::Error for Fault {}

/// Where values are written to.
#[derive(Debug)]
pub struct Writer<'a> {
    room: &'a mut [u8],
    /// Bytes so far, with those that had no room.
    used: usize,
}

impl<'a> Writer<'a> {
    /// Fills that room.
    pub fn new(room: &'a mut [u8]) -> Self {
        Self { room, used: 0 }
    }

    /// Appends bytes.
    #[inline(never)]
    pub fn bytes(&mut self, bytes: &[u8]) {
        self.used = self.used.saturating_add(bytes.len());
        let start = self.used - bytes.len();
        let room = self.room.get_mut(start..).unwrap_or_default();
        for (to, from) in room.iter_mut().zip(bytes) {
            *to = *from;
        }
    }

    /// Appends the lowest `size` bytes of a number.
    #[inline(never)]
    pub fn number(&mut self, number: u64, size: usize) {
        self.bytes(number.to_le_bytes().get(..size).unwrap_or_default());
    }

    /// Appends the number of elements or bytes of what follows.
    fn count(&mut self, count: usize) {
        self.number(count as u64, 4);
    }

    /// Begins a struct: where its length will stand, for [`Writer::close`].
    #[inline(never)]
    pub fn open(&mut self) -> usize {
        self.count(0);
        self.used
    }

    /// Ends it.
    pub fn close(&mut self, start: usize) {
        self.set_count(start, self.used - start);
    }

    /// Appends a list whose length is known when it has ended.
    pub fn list<T: Put>(&mut self, values: impl Iterator<Item = T>) {
        let start = self.open();
        let mut count = 0;
        for value in values {
            value.put(self);
            count += 1;
        }
        self.set_count(start, count);
    }

    #[inline(never)]
    fn set_count(&mut self, start: usize, count: usize) {
        let used = std::mem::replace(&mut self.used, start.saturating_sub(4));
        self.count(count);
        self.used = used;
    }
}

/// Where values are read from.
#[derive(Debug)]
pub struct Reader<'a> {
    /// Up to the end of the struct that is being read. Empty after a fault.
    rest: &'a [u8],
    fault: bool,
}

impl<'a> Reader<'a> {
    /// Begins with the first byte.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes, fault: false }
    }

    /// Whether all has been read without a fault.
    pub fn end(&self) -> Result<(), Fault> {
        if self.fault || !self.rest.is_empty() { Err(Fault) } else { Ok(()) }
    }

    /// The value that stands next, one of several; None at the end, or if it makes no sense.
    pub fn value<T: Take>(&mut self) -> Option<T> {
        if self.rest.is_empty() {
            return None;
        }
        let value = T::take(self);
        (!self.fault).then_some(value)
    }

    #[inline(never)]
    fn fail(&mut self) {
        self.fault = true;
        self.rest = &[];
    }

    /// So many bytes; none if not that many are left, which is a fault unless none is left at all.
    #[inline(never)]
    fn bytes(&mut self, size: usize) -> &'a [u8] {
        match self.rest.split_at_checked(size) {
            Some((bytes, rest)) => {
                self.rest = rest;
                bytes
            }
            None => {
                if !self.rest.is_empty() {
                    self.fail();
                }
                &[]
            }
        }
    }

    /// A number of so many bytes.
    #[inline(never)]
    pub fn number(&mut self, size: usize) -> u64 {
        self.bytes(size).iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte))
    }

    /// The number of elements that follow, each of which has so many bytes at least.
    #[inline(never)]
    fn count(&mut self, least: usize) -> usize {
        let count = self.number(4) as usize;
        if count.saturating_mul(least) > self.rest.len() {
            self.fail();
            return 0;
        }
        count
    }

    /// Which of so many variants follows.
    #[inline(never)]
    pub fn tag(&mut self, count: usize) -> u8 {
        let tag = self.number(1) as u8;
        if usize::from(tag) >= count {
            self.fail();
            return 0;
        }
        tag
    }

    /// A text, where it stands.
    #[inline(never)]
    pub fn text(&mut self) -> &'a str {
        let length = self.count(1);
        core::str::from_utf8(self.bytes(length)).unwrap_or_else(|_| {
            self.fail();
            ""
        })
    }

    fn flag(&mut self) -> bool {
        self.tag(2) != 0
    }

    /// Begins a struct: what comes behind it, for [`Reader::close`].
    #[inline(never)]
    pub fn open(&mut self) -> &'a [u8] {
        let count = self.count(1);
        let (inside, behind) = self.rest.split_at_checked(count).unwrap_or_default();
        self.rest = inside;
        behind
    }

    /// Ends it.
    #[inline(never)]
    pub fn close(&mut self, behind: &'a [u8]) {
        if !self.fault {
            self.rest = behind;
        }
    }
}

/// Makes types that can be written and read: the fields and variants in their order on the wire.
/// What is left out does not compile.
///
/// ```ignore
/// wire! {
///     struct Module { path, parameters, required }
///     tuple UnitId(index)
///     enum Scope { None, Index(index), Name(name) }
///     struct Limiter { count, since; without limit }
/// }
/// ```
///
/// What stands behind `without` is not written, and its type's `Default` where it is read.
#[macro_export]
macro_rules! wire {
    () => {};
    (
        struct $name:ident $(<$($kind:ident),*>)? {
            $($field:ident),* $(,)? $(; without $($skipped:ident),*)?
        }
        $($rest:tt)*
    ) => {
        impl$(<$($kind: $crate::wire::Put),*>)? $crate::wire::Put for $name$(<$($kind),*>)? {
            #[inline(never)]
            fn put(&self, to: &mut $crate::wire::Writer<'_>) {
                let Self { $($field,)* $($($skipped: _),*)? } = self;
                let start = to.open();
                $($crate::wire::Put::put($field, to);)*
                to.close(start);
            }
        }
        impl$(<$($kind: $crate::wire::Take),*>)? $crate::wire::Take for $name$(<$($kind),*>)? {
            const LEAST: usize = 4;
            #[inline(never)]
            fn take(from: &mut $crate::wire::Reader<'_>) -> Self {
                let behind = from.open();
                let value = Self {
                    $($field: $crate::wire::Take::take(from),)*
                    $($($skipped: Default::default()),*)?
                };
                from.close(behind);
                value
            }
        }
        $crate::wire! { $($rest)* }
    };
    (tuple $name:ident($($field:ident),*) $($rest:tt)*) => {
        impl $crate::wire::Put for $name {
            fn put(&self, to: &mut $crate::wire::Writer<'_>) {
                let Self($($field),*) = self;
                $($crate::wire::Put::put($field, to);)*
            }
        }
        impl $crate::wire::Take for $name {
            fn take(from: &mut $crate::wire::Reader<'_>) -> Self {
                $(let $field = $crate::wire::Take::take(from);)*
                Self($($field),*)
            }
        }
        $crate::wire! { $($rest)* }
    };
    (
        enum $name:ident {
            $first:ident $(($($first_item:ident),*))? $({ $($first_field:ident),* })?
            $(, $variant:ident $(($($item:ident),*))? $({ $($field:ident),* })?)* $(,)?
        }
        $($rest:tt)*
    ) => {
        const _: () = {
            #[allow(non_camel_case_types, dead_code)]
            #[derive(Clone, Copy)]
            enum Tag { $first, $($variant),* }
            const COUNT: usize = [Tag::$first, $(Tag::$variant),*].len();
            impl $crate::wire::Put for $name {
                #[inline(never)]
                fn put(&self, to: &mut $crate::wire::Writer<'_>) {
                    match self {
                        Self::$first $(($($first_item),*))? $({ $($first_field),* })? => {
                            to.number(Tag::$first as u64, 1);
                            $($($crate::wire::Put::put($first_item, to);)*)?
                            $($($crate::wire::Put::put($first_field, to);)*)?
                        }
                        $(Self::$variant $(($($item),*))? $({ $($field),* })? => {
                            to.number(Tag::$variant as u64, 1);
                            $($($crate::wire::Put::put($item, to);)*)?
                            $($($crate::wire::Put::put($field, to);)*)?
                        })*
                    }
                }
            }
            impl $crate::wire::Take for $name {
                #[inline(never)]
                fn take(from: &mut $crate::wire::Reader<'_>) -> Self {
                    match from.tag(COUNT) {
                        $(tag if tag == Tag::$variant as u8 => {
                            $($(let $item = $crate::wire::Take::take(from);)*)?
                            $($(let $field = $crate::wire::Take::take(from);)*)?
                            Self::$variant $(($($item),*))? $({ $($field),* })?
                        })*
                        _ => {
                            $($(let $first_item = $crate::wire::Take::take(from);)*)?
                            $($(let $first_field = $crate::wire::Take::take(from);)*)?
                            Self::$first $(($($first_item),*))? $({ $($first_field),* })?
                        }
                    }
                }
            }
        };
        $crate::wire! { $($rest)* }
    };
}

macro_rules! integers {
    ($($kind:ty, $size:literal);*) => {$(
        impl Put for $kind {
            fn put(&self, to: &mut Writer<'_>) {
                to.number(*self as u64, $size);
            }
        }
        impl Take for $kind {
            const LEAST: usize = $size;
            fn take(from: &mut Reader<'_>) -> Self {
                from.number($size) as $kind
            }
        }
    )*};
}

integers!(u8, 1; u16, 2; u32, 4; u64, 8; usize, 8; i32, 4);

impl Put for bool {
    fn put(&self, to: &mut Writer<'_>) {
        to.number(u64::from(*self), 1);
    }
}

impl Take for bool {
    fn take(from: &mut Reader<'_>) -> Self {
        from.flag()
    }
}

impl Put for str {
    #[inline(never)]
    fn put(&self, to: &mut Writer<'_>) {
        to.count(self.len());
        to.bytes(self.as_bytes());
    }
}

impl Put for String {
    fn put(&self, to: &mut Writer<'_>) {
        self.as_str().put(to);
    }
}

impl Take for String {
    const LEAST: usize = 4;

    #[inline(never)]
    fn take(from: &mut Reader<'_>) -> Self {
        from.text().to_owned()
    }
}

impl<T: Put> Put for [T] {
    #[inline(never)]
    fn put(&self, to: &mut Writer<'_>) {
        to.count(self.len());
        self.iter().for_each(|value| value.put(to));
    }
}

impl<T: Put> Put for Vec<T> {
    fn put(&self, to: &mut Writer<'_>) {
        self.as_slice().put(to);
    }
}

impl<T: Take> Take for Vec<T> {
    const LEAST: usize = 4;

    #[inline(never)]
    fn take(from: &mut Reader<'_>) -> Self {
        let count = from.count(T::LEAST);
        let mut list = Self::with_capacity(count);
        while list.len() < count && !from.fault {
            list.push(T::take(from));
        }
        list
    }
}

impl<T: Put> Put for Option<T> {
    #[inline(never)]
    fn put(&self, to: &mut Writer<'_>) {
        self.is_some().put(to);
        self.iter().for_each(|value| value.put(to));
    }
}

impl<T: Take> Take for Option<T> {
    #[inline(never)]
    fn take(from: &mut Reader<'_>) -> Self {
        from.flag().then(|| T::take(from))
    }
}

impl<T: Put + ?Sized> Put for Box<T> {
    fn put(&self, to: &mut Writer<'_>) {
        (**self).put(to);
    }
}

impl<T: Take> Take for Box<T> {
    const LEAST: usize = T::LEAST;

    fn take(from: &mut Reader<'_>) -> Self {
        Self::new(T::take(from))
    }
}

impl<T: Take> Take for Box<[T]> {
    const LEAST: usize = 4;

    fn take(from: &mut Reader<'_>) -> Self {
        Vec::take(from).into()
    }
}

impl<const N: usize> Put for heapless::Vec<u8, N> {
    fn put(&self, to: &mut Writer<'_>) {
        to.count(self.len());
        to.bytes(self);
    }
}

impl<const N: usize> Take for heapless::Vec<u8, N> {
    const LEAST: usize = 4;

    fn take(from: &mut Reader<'_>) -> Self {
        let length = from.count(1);
        let bytes = Self::from_slice(from.bytes(length));
        bytes.unwrap_or_else(|_| {
            from.fail();
            Self::new()
        })
    }
}

/// A struct whose meaning is read later, so that a fault in it is its own.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Raw(Vec<u8>);

impl Raw {
    /// Of that value.
    pub fn of(value: &dyn Put) -> Self {
        Self(to_vec(value))
    }

    /// The value.
    pub fn read<T: Take>(&self) -> Result<T, Fault> {
        from_bytes(&self.0)
    }
}

impl Put for Raw {
    fn put(&self, to: &mut Writer<'_>) {
        to.bytes(&self.0);
    }
}

impl Take for Raw {
    const LEAST: usize = 4;

    fn take(from: &mut Reader<'_>) -> Self {
        let all = from.rest;
        let behind = from.open();
        let length = all.len() - behind.len();
        from.close(behind);
        Self(all.get(..length).unwrap_or_default().to_owned())
    }
}

impl<T: Put + ?Sized> Put for &T {
    fn put(&self, to: &mut Writer<'_>) {
        (**self).put(to);
    }
}

impl<T: Put, const N: usize> Put for [T; N] {
    fn put(&self, to: &mut Writer<'_>) {
        self.iter().for_each(|value| value.put(to));
    }
}

impl<T: Take, const N: usize> Take for [T; N] {
    const LEAST: usize = N * T::LEAST;

    fn take(from: &mut Reader<'_>) -> Self {
        core::array::from_fn(|_| T::take(from))
    }
}

macro_rules! tuples {
    ($(($($name:ident $kind:ident),*))*) => {$(
        impl<$($kind: Put),*> Put for ($($kind,)*) {
            fn put(&self, to: &mut Writer<'_>) {
                let ($($name,)*) = self;
                $($name.put(to);)*
            }
        }
        impl<$($kind: Take),*> Take for ($($kind,)*) {
            const LEAST: usize = 0 $(+ $kind::LEAST)*;
            fn take(from: &mut Reader<'_>) -> Self {
                $(let $name = Take::take(from);)*
                ($($name,)*)
            }
        }
    )*};
}

tuples!((a A, b B) (a A, b B, c C));
