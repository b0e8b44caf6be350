//! Podman's ways of looking up a key (podman-systemd.unit(5)): the last value, every value, their
//! words. Specifiers and variables stay: what comes out goes into a command line, where they are
//! replaced.

use crate::finding::{Finding, Span};
use crate::units::definition::Definition;
use crate::units::quoting::{self, Escapes};
use crate::units::syntax::{Assignment, shorten};
use crate::units::value::{self, Expected};
use std::collections::BTreeMap;

/// A value, or a word of one, and where it is.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Text {
    pub(super) text: String,
    pub(super) span: Span,
}

impl Text {
    /// The same place with another text.
    pub(super) fn with(&self, text: impl Into<String>) -> Self {
        Self { text: text.into(), span: self.span.clone() }
    }
}

/// The assignments of one section.
pub(super) struct Lines<'a> {
    pub(super) unit: &'a Definition,
    pub(super) section: &'static str,
    pub(super) findings: &'a mut Vec<Finding>,
}

impl<'a> Lines<'a> {
    /// The header of the section.
    pub(super) fn span(&self) -> Span {
        self.unit.section_span(self.section)
    }

    /// The last value without a pair of quotes around it; None if it is empty.
    pub(super) fn last(&self, key: &str) -> Option<Text> {
        let line = self.unit.all(self.section, key).next_back()?;
        let text = line.value.text.as_str();
        let inner = text.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
        let text = inner.unwrap_or(text).to_owned();
        (!text.is_empty()).then(|| Text { text, span: line.value.span() })
    }

    /// The lines since the last empty one.
    fn list(&self, key: &str) -> Vec<&'a Assignment> {
        let unit = self.unit;
        let mut list = vec![];
        for line in unit.all(self.section, key) {
            match line.value.text.is_empty() {
                true => list.clear(),
                false => list.push(line),
            }
        }
        list
    }

    /// Every line as a whole.
    pub(super) fn all(&self, key: &str) -> Vec<Text> {
        let text =
            |line: &Assignment| Text { text: line.value.text.clone(), span: line.value.span() };
        self.list(key).into_iter().map(text).collect()
    }

    /// The words of every line.
    pub(super) fn words(&mut self, key: &str, escapes: Escapes) -> Vec<Text> {
        let lines = self.list(key);
        lines.into_iter().flat_map(|line| self.split(line, escapes)).collect()
    }

    /// The words of the last line.
    pub(super) fn last_words(&mut self, key: &str) -> Vec<Text> {
        let line = self.unit.all(self.section, key).next_back();
        line.map(|line| self.split(line, Escapes::Decode)).unwrap_or_default()
    }

    fn split(&mut self, line: &Assignment, escapes: Escapes) -> Vec<Text> {
        let split = quoting::split(&line.value.text, escapes);
        let key = &line.key;
        if let Some(range) = split.unknown.first() {
            // Podman drops the whole line here, with a warning that few would see.
            let message = format!("`{key}=` has an escape that does not exist");
            self.findings.push(
                Finding::error(line.value.span_of(range.clone()), message)
                    .label("unknown escape")
                    .help("write `\\\\` for a backslash"),
            );
        }
        if let Some(at) = split.unclosed {
            let message = format!("`{key}=` has a quote that is never closed");
            self.findings.push(
                Finding::error(line.value.span_of(at..at + 1), message)
                    .label("opened here")
                    .help("close the quote, or write `\\\"` for the character itself"),
            );
        }
        let word =
            |word: quoting::Word| Text { span: line.value.span_of(word.range), text: word.text };
        split.words.into_iter().map(word).collect()
    }

    /// `NAME=value` words by their names: the last of a name counts.
    pub(super) fn pairs(&mut self, key: &str) -> BTreeMap<String, Text> {
        let mut pairs = BTreeMap::new();
        for word in self.words(key, Escapes::Decode) {
            let name = word.text.split_once('=').map_or(word.text.as_str(), |(name, _)| name);
            if word.text.contains('=') || key == "Environment" {
                pairs.insert(name.to_owned(), word);
            } else {
                let text = word.text.clone();
                self.wrong(key, &word.with(text), &Expected::Other("`name=value`"));
            }
        }
        pairs
    }

    /// Podman takes everything that is not "yes" for "no"; here it is an error.
    pub(super) fn boolean(&mut self, key: &str) -> Option<(bool, Text)> {
        let text = self.last(key)?;
        match value::boolean(&text.text) {
            Ok(value) => Some((value, text)),
            Err(expected) => {
                self.wrong(key, &text, &expected);
                None
            }
        }
    }

    /// Whether the last value says yes, and where.
    pub(super) fn yes(&mut self, key: &str) -> Option<Text> {
        self.boolean(key).filter(|(value, _)| *value).map(|(_, text)| text)
    }

    /// A value that is not what its key takes.
    pub(super) fn wrong(&mut self, key: &str, text: &Text, expected: &Expected) {
        let message = format!("`{key}=` does not take `{}`", shorten(&text.text));
        self.findings.push(
            Finding::error(text.span.clone(), message)
                .label(format!("expected {expected}"))
                .help("see podman-systemd.unit(5), or leave the line out for the default"),
        );
    }
}
