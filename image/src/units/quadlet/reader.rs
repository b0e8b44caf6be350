//! How the keys of `[Container]` are looked up, podman-systemd.unit(5): the last value, all of
//! them, their words; with specifiers and variables replaced.

use crate::container::{Line, Written};
use crate::finding::Finding;
use crate::units::keys::{Keys, Text};
use crate::units::quoting::{self, Escapes};
use crate::units::syntax::Assignment;
use crate::units::value::{self, Expected};
use crate::units::variables;
use std::collections::BTreeMap;

pub(super) const SECTION: &str = "Container";

pub(super) struct Reader<'k, 'a> {
    pub(super) keys: &'k mut Keys<'a>,
    /// Of the service: what a Quadlet says passes through a command line of systemd.
    variables: BTreeMap<String, String>,
}

impl<'k, 'a> Reader<'k, 'a> {
    /// `environment` is that of `[Service]`.
    pub(super) fn new(keys: &'k mut Keys<'a>, environment: &[String]) -> Self {
        let pairs = environment.iter().filter_map(|variable| variable.split_once('='));
        let variables = pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        Self { keys, variables }
    }
}

impl<'a> Reader<'_, 'a> {
    /// The last value with specifiers and variables replaced, and without a pair of quotes.
    pub(super) fn last(&mut self, key: &str) -> Option<Text<'a>> {
        let unit = self.keys.unit;
        let line = unit.all(SECTION, key).next_back()?;
        let mut text = self.keys.expand(line)?;
        if let Some(inner) = text.text.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) {
            text.text = inner.to_owned();
        }
        text.text = self.variables(line, &text.text).concat();
        Some(text)
    }

    /// What systemd makes of the words of a command line.
    pub(super) fn variables(&mut self, line: &Assignment, text: &str) -> Vec<String> {
        let mut problems = vec![];
        let expanded = variables::expand(text, &self.variables, &mut problems);
        for name in problems {
            let key = &line.key;
            let message =
                format!("`{key}=` uses the variable `{name}`, which `[Service]` does not set");
            self.keys.findings.push(
                Finding::warning(line.value.span(), message).label("becomes empty").help(format!(
                    "write `$$` for a dollar sign, or set `Environment={name}=...` in [Service]"
                )),
            );
        }
        expanded
    }

    /// Values since the last empty one, with the words of each.
    pub(super) fn words(
        &mut self,
        key: &str,
        escapes: Escapes,
    ) -> Vec<(&'a Assignment, Vec<String>)> {
        let mut all = vec![];
        for line in self.keys.list(SECTION, key) {
            let Some(text) = self.keys.expand(line) else { continue };
            let split = quoting::split(&text.text, escapes);
            if let Some(range) = split.unknown.first() {
                // Podman drops the whole line here, with a warning that few would see.
                let message = format!("`{key}=` has an escape that does not exist");
                self.keys.findings.push(
                    Finding::error(text.span_of(range.clone()), message)
                        .label("unknown escape")
                        .help("write `\\\\` for a backslash"),
                );
                continue;
            }
            let mut words = vec![];
            for word in split.words {
                words.extend(self.variables(line, &word.text));
            }
            all.push((line, words));
        }
        all
    }

    /// Every value as a whole, since the last empty one.
    pub(super) fn values(&mut self, key: &str) -> Vec<Text<'a>> {
        let mut values = vec![];
        for line in self.keys.list(SECTION, key) {
            let Some(mut text) = self.keys.expand(line) else { continue };
            text.text = self.variables(line, &text.text).concat();
            values.push(text);
        }
        values
    }

    pub(super) fn typed<T>(
        &mut self,
        key: &str,
        parse: impl Fn(&str) -> Result<T, Expected>,
    ) -> Option<T> {
        let text = self.last(key).filter(|text| !text.text.is_empty())?;
        match parse(&text.text) {
            Ok(value) => Some(value),
            Err(expected) => {
                self.keys.bad(text.assignment, &expected);
                None
            }
        }
    }

    /// Podman takes everything that is not "yes" for "no"; here it is an error.
    pub(super) fn boolean(&mut self, key: &str) -> Option<bool> {
        self.typed(key, value::boolean)
    }

    pub(super) fn absolute(&mut self, key: &str) -> Option<String> {
        self.typed(key, value::path)
    }

    /// `NAME=value` words and bare names, sorted, the last of a name wins.
    pub(super) fn assignments(&mut self, key: &str) -> BTreeMap<String, Option<String>> {
        let mut pairs = BTreeMap::new();
        for (line, words) in self.words(key, Escapes::Decode) {
            for word in words {
                let (name, value) = match word.split_once('=') {
                    Some((name, value)) => (name, Some(value.to_owned())),
                    None => (word.as_str(), None),
                };
                match name {
                    "" => self.keys.bad(line, &Expected::Other("`NAME=value`")),
                    name => {
                        pairs.insert(name.to_owned(), value);
                    }
                }
            }
        }
        pairs
    }

    /// The same, where a bare name has an empty value, as for Podman.
    pub(super) fn pairs(&mut self, key: &str) -> Vec<(String, String)> {
        let pairs = self.assignments(key).into_iter();
        pairs.map(|(name, value)| (name, value.unwrap_or_default())).collect()
    }

    /// The last value, if it is not empty, for somebody else to parse.
    pub(super) fn written(&mut self, key: &str) -> Option<Written> {
        let text = self.last(key).filter(|text| !text.text.is_empty())?;
        Some(Written { span: text.assignment.value.span(), text: text.text })
    }

    /// Every value since the last empty one, for somebody else to parse.
    pub(super) fn all_written(&mut self, key: &str) -> Vec<Written> {
        let values = self.values(key).into_iter();
        values.map(|it| Written { span: it.assignment.value.span(), text: it.text }).collect()
    }

    /// The words of all values since the last empty one, for somebody else to parse.
    pub(super) fn words_written(&mut self, key: &str, escapes: Escapes) -> Vec<Written> {
        let mut all = vec![];
        for (line, words) in self.words(key, escapes) {
            let span = line.value.span();
            all.extend(words.into_iter().map(|text| Written { text, span: span.clone() }));
        }
        all
    }

    /// All lines of the section, with specifiers replaced where they can be.
    pub(super) fn lines(&mut self) -> Vec<Line> {
        let unit = self.keys.unit;
        let lines = unit.assignments.iter().filter(|line| line.section == SECTION);
        let mut all = vec![];
        for line in lines {
            // What cannot be is a finding where the key is read.
            let text = self.keys.specifiers.expand(&line.value.text);
            let text = text.unwrap_or_else(|_| line.value.text.clone());
            let value = Written { text, span: line.value.span() };
            all.push(Line { key: line.key.clone(), value });
        }
        all
    }
}
