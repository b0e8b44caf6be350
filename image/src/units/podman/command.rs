//! A command line in the making: words in systemd's quoting, each with the place of the file that
//! it came from, so that what is wrong with a word is shown there.

use super::lines::Text;
use crate::finding::{Source, Span};
use crate::units::quoting::quote;
use crate::units::syntax::{Assignment, Value};
use std::sync::Arc;

/// Podman's path in the image.
pub(super) const PODMAN: &str = "/usr/bin/podman";

/// One command line of `[Service]`.
#[derive(Debug, Clone)]
pub(super) struct Command {
    text: String,
    pieces: Vec<(usize, usize)>,
    source: Arc<Source>,
    /// For words that nobody wrote.
    span: Span,
}

impl Command {
    /// A command that runs Podman. `span` is where words that nobody wrote are shown.
    pub(super) fn podman(span: Span) -> Self {
        let source = span.source.clone();
        let mut command = Self { text: String::new(), pieces: vec![], source, span };
        command.push(PODMAN);
        command
    }

    /// The same command with its failure ignored.
    pub(super) fn ignoring_failure(&self) -> Self {
        let mut other = self.clone();
        other.text.insert(0, '-');
        for (at, _) in &mut other.pieces {
            *at += 1;
        }
        other
    }

    /// Words that nobody wrote.
    pub(super) fn push(&mut self, words: &str) {
        for word in words.split(' ') {
            self.word(word, self.span.range.start);
        }
    }

    /// A word of the file.
    pub(super) fn text(&mut self, text: &Text) {
        // A drop-in's words are shown at the section: a line has only one file.
        let own = Arc::ptr_eq(&text.span.source, &self.source);
        let from = if own { text.span.range.start } else { self.span.range.start };
        self.word(&text.text, from);
    }

    /// An option and its value.
    pub(super) fn option(&mut self, option: &str, value: &Text) {
        self.text(&value.with(option));
        self.text(value);
    }

    fn word(&mut self, word: &str, from: usize) {
        if !self.text.is_empty() {
            self.text.push(' ');
        }
        self.pieces.push((self.text.len(), from));
        self.text.push_str(&quote(word));
    }

    /// As a line of `[Service]`.
    pub(super) fn line(self, key: &str) -> Assignment {
        Assignment {
            section: "Service".into(),
            key: key.into(),
            key_span: self.span,
            value: Value::assembled(self.text, self.source, self.pieces),
        }
    }
}
