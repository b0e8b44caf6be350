//! Splitting a value into words: quotes, escapes, blanks (systemd.syntax(7), "Quoting").
//!
//! A quote may open anywhere in a word, as systemd's code has it and podman.service needs it
//! (`Environment=LOGGING="--log-level=info"`), although the manual speaks of word starts only.

use std::ops::Range;

/// What a backslash does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Escapes {
    /// C's escapes; an unknown one stays as it is and is reported.
    Decode,
    /// Nothing: Quadlet's `strv` lists.
    Literal,
}

/// One word after unquoting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Word {
    pub(crate) text: String,
    /// Where it was, with its quotes.
    pub(crate) range: Range<usize>,
}

/// A split value.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Words {
    pub(crate) words: Vec<Word>,
    /// Where a quote opens that nothing closes.
    pub(crate) unclosed: Option<usize>,
    /// Escapes that mean nothing.
    pub(crate) unknown: Vec<Range<usize>>,
}

/// Splits at blanks outside quotes.
pub(crate) fn split(text: &str, escapes: Escapes) -> Words {
    let mut found = Words::default();
    let mut word: Option<Word> = None;
    let mut quote: Option<(char, usize)> = None;
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let at = text.len() - rest.len();
        let mut taken = c.len_utf8();
        let blank = c.is_ascii_whitespace();
        if blank && quote.is_none() {
            found.words.extend(word.take());
            rest = &rest[taken..];
            continue;
        }
        let current = word.get_or_insert_with(|| Word { text: String::new(), range: at..at });
        match (c, quote) {
            ('\\', _) if escapes == Escapes::Decode => match unescape(&rest[1..]) {
                Some((decoded, length)) => {
                    current.text.push(decoded);
                    taken += length;
                }
                None => {
                    let next = rest[1..].chars().next();
                    found.unknown.push(at..at + 1 + next.map_or(0, char::len_utf8));
                    current.text.push('\\');
                    // A backslash at the end is only itself.
                    if let Some(next) = next {
                        current.text.push(next);
                        taken += next.len_utf8();
                    }
                }
            },
            (_, Some((open, _))) if c == open => quote = None,
            ('"' | '\'', None) => quote = Some((c, at)),
            _ => current.text.push(c),
        }
        current.range.end = at + taken;
        rest = &rest[taken..];
    }
    found.words.extend(word);
    found.unclosed = quote.map(|(_, at)| at);
    found
}

/// A text with its escapes decoded, blanks and quotes as they are; unknown escapes stay.
pub(crate) fn decode(text: &str) -> String {
    let mut decoded = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        decoded.push_str(&rest[..at]);
        let (character, length) = unescape(&rest[at + 1..]).unwrap_or(('\\', 0));
        decoded.push(character);
        rest = &rest[at + 1 + length..];
    }
    decoded.push_str(rest);
    decoded
}

/// What follows a backslash: the character, and how many bytes it took.
fn unescape(rest: &str) -> Option<(char, usize)> {
    let digits = |from: usize, count: usize, base: u32| {
        let text = rest.get(from..from + count)?;
        let plain = text.chars().all(|c| c.is_digit(base));
        let number = u32::from_str_radix(text, base).ok().filter(|number| plain && *number != 0)?;
        Some((number, from + count))
    };
    let simple = match rest.chars().next()? {
        'a' => '\x07',
        'b' => '\x08',
        'f' => '\x0c',
        'n' => '\n',
        'r' => '\r',
        't' => '\t',
        'v' => '\x0b',
        '\\' => '\\',
        '"' => '"',
        '\'' => '\'',
        's' => ' ',
        // A byte above 127 is no character by itself; argv of such bytes is not supported.
        'x' => return digits(1, 2, 16).and_then(ascii),
        '0'..='3' => return digits(0, 3, 8).and_then(ascii),
        'u' => return digits(1, 4, 16).and_then(unicode),
        'U' => return digits(1, 8, 16).and_then(unicode),
        _ => return None,
    };
    Some((simple, 1))
}

fn ascii((number, length): (u32, usize)) -> Option<(char, usize)> {
    (number < 128).then(|| unicode((number, length)))?
}

fn unicode((number, length): (u32, usize)) -> Option<(char, usize)> {
    Some((char::from_u32(number)?, length))
}

/// A word as it would be written so that it stays one word.
pub(crate) fn quote(word: &str) -> String {
    let plain = |c: char| c.is_alphanumeric() || "-_./:=@%+,$[]{}".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    let mut quoted = String::from("\"");
    for c in word.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            '\n' => quoted.push_str("\\n"),
            '\t' => quoted.push_str("\\t"),
            c if c.is_ascii_control() => quoted.push_str(&format!("\\x{:02x}", u32::from(c))),
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        split(text, Escapes::Decode).words.into_iter().map(|word| word.text).collect()
    }

    #[test]
    fn quotes_and_escapes() {
        assert_eq!(words(r#"a "b c" 'd "e'"#), ["a", "b c", "d \"e"]);
        assert_eq!(words(r#"LOGGING="--log-level=info""#), ["LOGGING=--log-level=info"]);
        assert_eq!(words(r"a\x20b\sc \u00e4 \101"), ["a b c", "ä", "A"]);
        assert_eq!(words(r#""" x"#), ["", "x"]);
        assert_eq!(split("a \"b", Escapes::Decode).unclosed, Some(2));
        let unknown = split(r"\q \", Escapes::Decode);
        assert_eq!(unknown.unknown, [0..2, 3..4]);
        assert_eq!(unknown.words[0].text, r"\q");
        assert_eq!(split(r"a\nb", Escapes::Literal).words[0].text, r"a\nb");
    }

    #[test]
    fn a_text_is_decoded_as_a_whole() {
        assert_eq!(decode(r#"a \"b\tc \q\x41\"#), "a \"b\tc \\qA\\");
    }

    #[test]
    fn a_quoted_word_reads_back() {
        for word in ["", "a b", "a\"b\\c", "\n\t\x01", "$X", "ä;"] {
            assert_eq!(words(&quote(word)), [word]);
        }
    }
}
