//! What a check finds in a file: file, line, column, what is wrong, one next step.

use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};
use std::ops::Range;
use std::sync::Arc;

/// A text file as it was read.
#[derive(Debug, PartialEq, Eq)]
pub struct Source {
    /// The path as the person would write it.
    pub path: String,
    /// The whole text.
    pub text: String,
}

/// A part of a [`Source`], in bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Span {
    /// The file.
    pub source: Arc<Source>,
    /// The bytes meant; may be empty at the end of the file.
    pub range: Range<usize>,
}

impl Span {
    /// The whole beginning of a file, for findings about the file as such.
    pub fn file(source: &Arc<Source>) -> Self {
        Self { source: source.clone(), range: 0..0 }
    }

    /// Line and column, both from 1; the column counts characters.
    pub fn line_column(&self) -> (usize, usize) {
        let before = &self.source.text[..self.range.start.min(self.source.text.len())];
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
        (line, column)
    }
}

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Worth knowing: a key that is harmless to leave out, and why.
    Note,
    /// Probably not what was meant; `--strict` makes it an error.
    Warning,
    /// Nothing is built.
    Error,
}

/// One finding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// Where; None if there is no file to point into.
    pub span: Option<Span>,
    /// What is wrong, with the key: "`Backlog=` takes a number, not `many`".
    pub message: String,
    /// What stands at the caret: what was expected there. May be empty.
    pub label: String,
    /// One next step.
    pub help: Option<String>,
}

impl Finding {
    /// A finding at a span.
    pub fn new(severity: Severity, span: Span, message: impl Into<String>) -> Self {
        Self {
            severity,
            span: Some(span),
            message: message.into(),
            label: String::new(),
            help: None,
        }
    }

    /// An error at a span.
    pub fn error(span: Span, message: impl Into<String>) -> Self {
        Self::new(Severity::Error, span, message)
    }

    /// A warning at a span.
    pub fn warning(span: Span, message: impl Into<String>) -> Self {
        Self::new(Severity::Warning, span, message)
    }

    /// A note at a span.
    pub fn note(span: Span, message: impl Into<String>) -> Self {
        Self::new(Severity::Note, span, message)
    }

    /// Says what was expected, at the caret.
    pub fn label(mut self, label: impl Into<String>) -> Self {
        self.label = label.into();
        self
    }

    /// Says what to do next.
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// `file:line:column: severity: message`, one line, for editors and logs.
    pub fn one_line(&self) -> String {
        let severity = match self.severity {
            Severity::Note => "note",
            Severity::Warning => "warning",
            Severity::Error => "error",
        };
        match &self.span {
            Some(span) => {
                let (line, column) = span.line_column();
                format!("{}:{line}:{column}: {severity}: {}", span.source.path, self.message)
            }
            None => format!("{severity}: {}", self.message),
        }
    }

    /// Several lines with the source and a caret; with colour if asked.
    pub fn render(&self, colour: bool) -> String {
        let level = match self.severity {
            Severity::Note => Level::NOTE,
            Severity::Warning => Level::WARNING,
            Severity::Error => Level::ERROR,
        };
        let title = level.primary_title(self.message.as_str());
        let mut groups = Vec::new();
        match &self.span {
            Some(span) => {
                let annotation = AnnotationKind::Primary.span(span.range.clone());
                let annotation = match self.label.as_str() {
                    "" => annotation,
                    label => annotation.label(label),
                };
                let snippet = Snippet::source(span.source.text.as_str())
                    .path(span.source.path.as_str())
                    .annotation(annotation);
                groups.push(title.element(snippet));
            }
            None => groups.push(Group::with_title(title)),
        }
        if let Some(help) = &self.help {
            groups.push(Group::with_title(Level::HELP.secondary_title(help.as_str())));
        }
        let renderer = if colour { Renderer::styled() } else { Renderer::plain() };
        if self.span.is_none() {
            // In one go they would have the margin of a source between them.
            let each = groups.into_iter().map(|group| renderer.render(&[group]));
            return each.collect::<Vec<_>>().join("\n");
        }
        renderer.render(&groups)
    }
}

/// Whether anything forbids to go on; with `strict`, warnings do too.
pub fn forbids(findings: &[Finding], strict: bool) -> bool {
    let least = if strict { Severity::Warning } else { Severity::Error };
    findings.iter().any(|finding| finding.severity >= least)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finding_names_line_and_column() {
        let source = Arc::new(Source {
            path: "echo.socket".into(),
            text: "[Socket]\nBacklog=many\n".into(),
        });
        let finding = Finding::error(Span { source, range: 17..21 }, "`Backlog=` takes a number")
            .label("a number from 0 to 4294967295")
            .help("leave the line out for the default, 4294967295");
        assert_eq!(finding.one_line(), "echo.socket:2:9: error: `Backlog=` takes a number");
        let text = finding.render(false);
        assert!(text.contains("Backlog=many") && text.contains("^^^^ a number"), "{text}");
    }
}
