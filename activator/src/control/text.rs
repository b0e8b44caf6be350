//! A text of bounded length, for packets of a process that allocates nothing.

use crate::wire::{Put, Reader, Take, Writer};

/// As much of a text as a packet between logd and PID 1 has room for, in UTF-8.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Text {
    /// At most [`Text::MOST`], and the end of a character.
    length: u8,
    bytes: [u8; Self::MOST],
}

impl Default for Text {
    fn default() -> Self {
        Self { length: 0, bytes: [0; Self::MOST] }
    }
}

impl Text {
    /// Length in bytes of the longest.
    pub const MOST: usize = 128;

    /// The beginning of a text, up to the longest that has room; what is no UTF-8 is left out.
    pub fn new(text: &[u8]) -> Self {
        let text = text.get(..Self::MOST).unwrap_or(text);
        let valid = match core::str::from_utf8(text) {
            Ok(_) => text.len(),
            Err(error) => error.valid_up_to(),
        };
        let mut new = Self::default();
        for (to, from) in new.bytes.iter_mut().zip(&text[..valid]) {
            *to = *from;
        }
        new.length = valid as u8;
        new
    }

    /// The text; empty if a peer has sent nonsense.
    pub fn as_str(&self) -> &str {
        let bytes = self.bytes.get(..usize::from(self.length));
        core::str::from_utf8(bytes.unwrap_or_default()).unwrap_or_default()
    }
}

impl Put for Text {
    fn put(&self, to: &mut Writer<'_>) {
        self.as_str().put(to);
    }
}

impl Take for Text {
    const LEAST: usize = 4;

    fn take(from: &mut Reader<'_>) -> Self {
        Self::new(from.text().as_bytes())
    }
}
