//! From the text of a unit file to assignments, each with its place in the text.
//!
//! There are two dialects. systemd's (conf-parser.c): a comment line is skipped even in the
//! middle of a continuation, a backslash at the end of a line becomes one space, a blank line
//! ends a continuation. Quadlet's (Podman's own reader): lines are trimmed first, so that a
//! backslash followed by blanks continues too, and the backslash becomes nothing.
//!
//! Only a broken section header (and in Quadlet a line without `=`) spoils the whole file;
//! everything else is a warning, as in systemd.

use crate::finding::{Finding, Source, Span};
use std::ops::Range;
use std::sync::Arc;

/// What systemd calls white space.
pub(crate) const BLANKS: [char; 4] = [' ', '\t', '\n', '\r'];
/// systemd's LONG_LINE_MAX: a longer line, with its continuations, spoils the file.
const LONGEST_LINE: usize = 1 << 20;

/// Whose rules a file follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dialect {
    Systemd,
    Quadlet,
}

/// A file after lexing.
#[derive(Debug, Clone)]
pub(crate) struct File {
    pub(crate) source: Arc<Source>,
    /// Headers in the order of the file; a name may come twice.
    pub(crate) sections: Vec<Header>,
    pub(crate) assignments: Vec<Assignment>,
    /// Nothing of it may be used: a finding says why.
    pub(crate) broken: bool,
}

/// `[Name]`
#[derive(Debug, Clone)]
pub(crate) struct Header {
    pub(crate) name: String,
    pub(crate) span: Span,
}

/// `Key=value`
#[derive(Debug, Clone)]
pub(crate) struct Assignment {
    pub(crate) section: String,
    pub(crate) key: String,
    pub(crate) key_span: Span,
    pub(crate) value: Value,
}

/// The right side of an assignment, joined over its continuations and trimmed.
#[derive(Debug, Clone)]
pub(crate) struct Value {
    pub(crate) text: String,
    source: Arc<Source>,
    /// (offset in `text`, offset in the source), ascending; never empty.
    pieces: Vec<(usize, usize)>,
}

impl Assignment {
    /// One that nobody wrote: `span` is what it was made of.
    pub(crate) fn made(section: &str, key: &str, text: impl Into<String>, span: &Span) -> Self {
        let pieces = vec![(0, span.range.start)];
        Self {
            section: section.into(),
            key: key.into(),
            key_span: span.clone(),
            value: Value::assembled(text.into(), span.source.clone(), pieces),
        }
    }
}

impl Value {
    /// A text that is put together from parts of a file: at which offset of the text each part
    /// begins, and at which of the file, ascending.
    pub(crate) fn assembled(
        text: String,
        source: Arc<Source>,
        mut pieces: Vec<(usize, usize)>,
    ) -> Self {
        if pieces.first().is_none_or(|(at, _)| *at > 0) {
            let from = pieces.first().map_or(0, |(_, from)| *from);
            pieces.insert(0, (0, from));
        }
        Self { text, source, pieces }
    }

    /// Where the whole value is; from its beginning to the end of its first physical line.
    pub(crate) fn span(&self) -> Span {
        self.span_of(0..self.text.len())
    }

    /// Where a part of the value is. A part that runs over a continuation is shown up to there.
    pub(crate) fn span_of(&self, range: Range<usize>) -> Span {
        let piece = self.pieces.iter().rposition(|(at, _)| *at <= range.start).unwrap_or(0);
        let (at, from) = self.pieces[piece];
        let limit = self.pieces.get(piece + 1).map_or(usize::MAX, |(next, _)| *next);
        let start = from + range.start.saturating_sub(at);
        let end = from + range.end.min(limit).saturating_sub(at);
        let length = self.source.text.len();
        let start = start.min(length);
        Span { source: self.source.clone(), range: start..end.clamp(start, length) }
    }
}

/// Splits a text into assignments; what is wrong with it goes to `findings`.
pub(crate) fn parse(source: &Arc<Source>, dialect: Dialect, findings: &mut Vec<Finding>) -> File {
    let mut lexer = Lexer {
        file: File { source: source.clone(), sections: vec![], assignments: vec![], broken: false },
        section: None,
        dialect,
        findings,
    };
    match dialect {
        Dialect::Systemd => lexer.systemd(),
        Dialect::Quadlet => lexer.quadlet(),
    }
    lexer.file
}

struct Lexer<'a> {
    file: File,
    section: Option<String>,
    dialect: Dialect,
    findings: &'a mut Vec<Finding>,
}

/// Physical lines that belong together.
#[derive(Default)]
struct Joined {
    text: String,
    pieces: Vec<(usize, usize)>,
}

impl Joined {
    fn push(&mut self, line: &str, from: usize) {
        self.pieces.push((self.text.len(), from));
        self.text.push_str(line);
    }
}

impl Lexer<'_> {
    fn systemd(&mut self) {
        let source = self.file.source.clone();
        let mut pending = Joined::default();
        for (from, line) in lines(&source.text) {
            let (from, line) = match line.strip_prefix('\u{feff}') {
                Some(rest) if from == 0 => (from + 3, rest),
                _ => (from, line),
            };
            if line.trim_start_matches(BLANKS).starts_with(['#', ';']) {
                continue;
            }
            pending.push(line, from);
            if pending.text.len() > LONGEST_LINE {
                self.spoil(from..from, "the line is longer than 1 MiB", "split it");
                return;
            }
            if ends_in_backslash(&pending.text) {
                pending.text.pop();
                pending.text.push(' ');
                continue;
            }
            if !self.line(std::mem::take(&mut pending)) {
                return;
            }
        }
        self.line(pending);
    }

    fn quadlet(&mut self) {
        let source = self.file.source.clone();
        let mut pending = Joined::default();
        for (from, line) in lines(&source.text) {
            let line = line.strip_prefix('\u{feff}').filter(|_| from == 0).unwrap_or(line);
            let trimmed = line.trim();
            if trimmed.is_empty() || trimmed.starts_with(['#', ';']) {
                continue;
            }
            let from = offset_in(&source.text, trimmed);
            if let Some(rest) = trimmed.strip_suffix('\\') {
                pending.push(rest, from);
                continue;
            }
            pending.push(trimmed, from);
            if !self.line(std::mem::take(&mut pending)) {
                return;
            }
        }
        if let Some((_, from)) = pending.pieces.last() {
            self.spoil(
                *from..*from,
                "the file ends in the middle of a continued line",
                "remove the backslash at the end of the last line",
            );
        }
    }

    /// One logical line; false if it spoils the file.
    fn line(&mut self, joined: Joined) -> bool {
        let text = joined.text.trim_matches(BLANKS);
        if text.is_empty() {
            return true;
        }
        let at = offset_in(&joined.text, text);
        let place = |range: Range<usize>, joined: &Joined| Value {
            text: joined.text[range.clone()].to_owned(),
            source: self.file.source.clone(),
            pieces: cut(&joined.pieces, range.start),
        };
        let whole = place(at..at + text.len(), &joined);
        if text.contains('\u{fffd}') {
            self.findings.push(
                Finding::warning(whole.span(), "the line is not UTF-8 and is left out")
                    .help("write it in UTF-8"),
            );
            return true;
        }
        if let Some(rest) = text.strip_prefix('[') {
            let Some(name) = rest.strip_suffix(']') else {
                self.spoil(
                    whole.span().range,
                    &format!("the section header `{text}` is broken"),
                    "a header is a name between `[` and `]` on a line of its own",
                );
                return false;
            };
            self.section = Some(name.to_owned());
            self.file.sections.push(Header { name: name.to_owned(), span: whole.span() });
            return true;
        }
        let Some((key, value)) = text.split_once('=') else {
            let message = format!("`{}` is not an assignment: the `=` is missing", shorten(text));
            return self.not_an_assignment(whole.span(), message, "write `Key=value`");
        };
        let key = key.trim_end_matches(BLANKS);
        if key.is_empty() {
            let message = "there is no key before the `=`".to_owned();
            return self.not_an_assignment(whole.span(), message, "write `Key=value`");
        }
        let Some(section) = self.section.clone() else {
            let message = format!("`{key}=` stands before any section");
            let help = "put it below a header such as `[Unit]`";
            return self.not_an_assignment(whole.span(), message, help);
        };
        let value = value.trim_matches(BLANKS);
        let key_at = offset_in(&joined.text, key);
        let value_at = offset_in(&joined.text, value);
        let key_place = place(key_at..key_at + key.len(), &joined);
        self.file.assignments.push(Assignment {
            section,
            key: key.to_owned(),
            key_span: key_place.span(),
            value: place(value_at..value_at + value.len(), &joined),
        });
        true
    }

    /// A warning for systemd, the end of the file for Podman.
    fn not_an_assignment(&mut self, span: Span, message: String, help: &str) -> bool {
        match self.dialect {
            Dialect::Systemd => {
                self.findings.push(Finding::warning(span, message).help(help));
                true
            }
            Dialect::Quadlet => {
                self.spoil(span.range, &message, help);
                false
            }
        }
    }

    fn spoil(&mut self, range: Range<usize>, message: &str, help: &str) {
        let span = Span { source: self.file.source.clone(), range };
        self.findings.push(
            Finding::error(span, message).label("nothing of this file can be used").help(help),
        );
        self.file.broken = true;
    }
}

/// Physical lines with their offsets, without their ends.
fn lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.split_inclusive('\n').scan(0, |at, line| {
        let from = *at;
        *at += line.len();
        let line = line.strip_suffix('\n').unwrap_or(line);
        Some((from, line.strip_suffix('\r').unwrap_or(line)))
    })
}

/// Whether a backslash at the end is not itself escaped; counted from the start of the text.
fn ends_in_backslash(text: &str) -> bool {
    text.bytes().fold(false, |escaped, byte| !escaped && byte == b'\\')
}

/// Offset of a slice within the string that it was cut from.
fn offset_in(whole: &str, part: &str) -> usize {
    (part.as_ptr() as usize).saturating_sub(whole.as_ptr() as usize).min(whole.len())
}

/// The mapping of a text that begins at `start` of another.
fn cut(pieces: &[(usize, usize)], start: usize) -> Vec<(usize, usize)> {
    let first = pieces.iter().rposition(|(at, _)| *at <= start).unwrap_or(0);
    pieces[first..]
        .iter()
        .map(|(at, from)| match at.checked_sub(start) {
            Some(at) => (at, *from),
            None => (0, from + (start - at)),
        })
        .collect()
}

/// The first words of a long text, for a message.
pub(crate) fn shorten(text: &str) -> String {
    const LONGEST: usize = 60;
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lex(text: &str, dialect: Dialect) -> (Vec<(String, String, String)>, Vec<String>) {
        let source = Arc::new(Source { path: "a.socket".into(), text: text.into() });
        let mut findings = vec![];
        let file = parse(&source, dialect, &mut findings);
        for assignment in &file.assignments {
            let key = &source.text[assignment.key_span.range.clone()];
            assert_eq!(key, assignment.key, "the key's span is its place");
        }
        let assignments = file
            .assignments
            .into_iter()
            .map(|found| (found.section, found.key, found.value.text))
            .collect();
        (assignments, findings.iter().map(Finding::one_line).collect())
    }

    fn values(text: &str, dialect: Dialect) -> Vec<String> {
        lex(text, dialect).0.into_iter().map(|(_, _, value)| value).collect()
    }

    #[test]
    fn systemd_joins_over_comments_and_with_a_space() {
        let text = "[S]\nA=one \\\n# a comment\n  two\\\n\nB=x \\ \nC=\\\\\nD=end\\";
        assert_eq!(values(text, Dialect::Systemd), ["one    two", "x \\", "\\\\", "end"]);
    }

    #[test]
    fn quadlet_joins_with_nothing_and_trims() {
        let text = "[Container]\nExec=a \\ \n\n; no\n   b\\\nc\nD = e\n";
        assert_eq!(values(text, Dialect::Quadlet), ["a bc", "e"]);
    }

    #[test]
    fn a_quadlet_that_ends_in_a_continuation_is_an_error() {
        let (_, findings) = lex("[Container]\nExec=a \\", Dialect::Quadlet);
        assert_eq!(findings.len(), 1);
    }

    #[test]
    fn a_byte_order_mark_and_line_ends_of_dos_are_left_out() {
        assert_eq!(values("\u{feff}[S]\r\nA=b\r\n", Dialect::Systemd), ["b"]);
    }

    #[test]
    fn only_a_broken_header_spoils_a_file_of_systemd() {
        let (assignments, findings) =
            lex("A=1\n[S]\nnothing\n=2\nB=3\n[Broken\nC=4\n", Dialect::Systemd);
        assert_eq!(assignments, [("S".into(), "B".into(), "3".into())]);
        assert_eq!(
            findings,
            [
                "a.socket:1:1: warning: `A=` stands before any section",
                "a.socket:3:1: warning: `nothing` is not an assignment: the `=` is missing",
                "a.socket:4:1: warning: there is no key before the `=`",
                "a.socket:6:1: error: the section header `[Broken` is broken",
            ]
        );
    }

    #[test]
    fn a_part_of_a_continued_value_maps_back_to_its_line() {
        let text = "[S]\nA=one \\\n  two three\n";
        let source = Arc::new(Source { path: "a".into(), text: text.into() });
        let file = parse(&source, Dialect::Systemd, &mut vec![]);
        let value = &file.assignments[0].value;
        let at = value.text.find("three").unwrap();
        assert_eq!(&text[value.span_of(at..at + 5).range], "three");
        assert_eq!(&text[value.span().range], "one \\");
    }
}
