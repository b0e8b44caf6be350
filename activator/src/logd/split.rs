//! Bytes of a pipe become lines of bounded length.

/// Longer lines are split, at a character's boundary; in bytes.
pub const MAX_LINE: usize = 8 * 1024;

/// What a pipe gave after its last newline.
#[derive(Debug, Default)]
pub struct Splitter {
    /// Never longer than [`MAX_LINE`], never with a newline.
    pending: Vec<u8>,
}

impl Splitter {
    /// Takes bytes and calls `each` for every line that is complete, or too long. What is not
    /// UTF-8 is replaced; one carriage return at the end is left out.
    pub fn feed(&mut self, bytes: &[u8], mut each: impl FnMut(&str)) {
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            let (mut rest, complete) = match part.strip_suffix(b"\n") {
                Some(line) => (line, true),
                None => (part, false),
            };
            while self.pending.len() + rest.len() > MAX_LINE {
                let (head, tail) = rest.split_at(MAX_LINE - self.pending.len());
                self.pending.extend_from_slice(head);
                rest = tail;
                let begun = self.pending.split_off(boundary(&self.pending));
                emit(&self.pending, &mut each);
                self.pending = begun;
            }
            self.pending.extend_from_slice(rest);
            if complete {
                emit(&self.pending, &mut each);
                self.pending.clear();
            }
        }
    }

    /// What is left is a line of its own: nothing more will come, or not soon.
    pub fn flush(&mut self, mut each: impl FnMut(&str)) {
        if !self.pending.is_empty() {
            emit(&self.pending, &mut each);
            self.pending.clear();
        }
    }
}

fn emit(line: &[u8], each: &mut impl FnMut(&str)) {
    each(&String::from_utf8_lossy(line.strip_suffix(b"\r").unwrap_or(line)));
}

/// Where to cut so that no character is cut: up to three bytes before the end.
fn boundary(bytes: &[u8]) -> usize {
    let start = bytes.len().saturating_sub(3);
    for at in (start..bytes.len()).rev() {
        let width = match bytes.get(at) {
            Some(0b1100_0000..=0b1101_1111) => 2,
            Some(0b1110_0000..=0b1110_1111) => 3,
            Some(0b1111_0000..=0b1111_0111) => 4,
            Some(0b1000_0000..=0b1011_1111) => continue,
            _ => return bytes.len(),
        };
        return if at + width > bytes.len() { at } else { bytes.len() };
    }
    bytes.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(chunks: &[&[u8]]) -> (Vec<String>, Vec<String>) {
        let (mut splitter, mut lines, mut rest) = (Splitter::default(), Vec::new(), Vec::new());
        for chunk in chunks {
            splitter.feed(chunk, |line| lines.push(line.to_owned()));
        }
        splitter.flush(|line| rest.push(line.to_owned()));
        (lines, rest)
    }

    #[test]
    fn lines_may_come_in_pieces() {
        let (complete, rest) = lines(&[b"a\nb", b"", b"c\r\n\nd\xff", b"e"]);
        assert_eq!(complete, ["a", "bc", ""]);
        assert_eq!(rest, ["d\u{fffd}e"]);
    }

    #[test]
    fn long_lines_are_split_between_characters() {
        for shift in 0..4 {
            let text = format!("{}{}", "x".repeat(shift), "€".repeat(MAX_LINE));
            let (pieces, rest) = lines(&[text.as_bytes(), b"\n"]);
            assert_eq!(pieces.concat(), text);
            assert!(pieces.iter().all(|piece| piece.len() <= MAX_LINE), "shift {shift}");
            assert!(rest.is_empty());
        }
    }

    #[test]
    fn bytes_without_any_boundary_are_split_too() {
        let (pieces, rest) = lines(&[&[0x80; 3 * MAX_LINE]]);
        assert_eq!(pieces.len() + rest.len(), 3);
    }

    #[test]
    fn a_line_of_exactly_the_most_is_one() {
        let text = "y".repeat(MAX_LINE);
        let (pieces, rest) = lines(&[text.as_bytes(), b"\n"]);
        assert_eq!((pieces, rest.len()), (vec![text], 0));
    }
}
