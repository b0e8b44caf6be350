//! Exit codes, and the one error that a command ends with.
//!
//! The codes are fixed points for scripts; those above 64 are the ones of sysexits.h.

use crate::cache;
use crate::finding::{self, Finding};
use crate::terminal;
use std::error::Error;
use std::process::ExitCode;

/// Done.
pub const DONE: u8 = 0;
/// `check` found errors, or what was asked for did not work.
pub const FAILED: u8 = 1;
/// The command line makes no sense (clap uses the same).
pub const USAGE: u8 = 2;
/// A file of the person's is wrong.
pub const BAD_INPUT: u8 = 65;
/// Something is missing on the host, or cannot be reached.
pub const UNAVAILABLE: u8 = 69;
/// Our fault.
pub const BUG: u8 = 70;
/// The same command may work later.
pub const TRY_AGAIN: u8 = 75;

/// How a command fails.
#[derive(Debug)]
pub struct Failure {
    code: u8,
    /// Completes "failed to ...", or stands alone when `what` is empty.
    what: String,
    /// Why, from the nearest cause to the farthest.
    causes: Vec<String>,
    hint: Option<String>,
    findings: Vec<Finding>,
}

impl Failure {
    /// A failure with a code and a text that completes "failed to ...".
    pub fn new(code: u8, what: impl Into<String>) -> Self {
        Self { code, what: what.into(), causes: Vec::new(), hint: None, findings: Vec::new() }
    }

    /// A failure whose error says itself what failed.
    pub fn of(code: u8, error: &(dyn Error + 'static)) -> Self {
        let mut failure = Self::new(code, error.to_string());
        failure.blame_full_disk(error);
        failure.causes = chain(error.source());
        failure
    }

    /// Findings in the person's files; they were or will be printed one by one.
    pub fn findings(code: u8, findings: Vec<Finding>) -> Self {
        Self { findings, ..Self::new(code, "") }
    }

    /// One that has nothing more to say than its code.
    pub fn silent(code: u8) -> Self {
        Self::new(code, "")
    }

    /// The findings in it.
    pub fn as_findings(&self) -> &[Finding] {
        &self.findings
    }

    /// What lies beneath.
    pub fn because(mut self, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        let source: Box<dyn Error + Send + Sync> = source.into();
        self.blame_full_disk(&*source);
        self.causes = chain(Some(&*source));
        self
    }

    /// A full disk is nobody's fault, whatever was being done: the same may work later.
    fn blame_full_disk(&mut self, error: &(dyn Error + 'static)) {
        if is_full(error) {
            self.code = TRY_AGAIN;
            self.hint.get_or_insert_with(|| "make room on that disk, and try again".into());
        }
    }

    /// One next step.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Its exit code.
    pub fn code(&self) -> u8 {
        self.code
    }

    /// Why, in one line: for a command that goes on without what failed.
    pub fn reason(&self) -> String {
        self.findings.first().map_or_else(|| self.text(), |finding| finding.message.clone())
    }

    /// What failed, with its causes.
    fn text(&self) -> String {
        let mut text = format!("failed to {}", self.what);
        for cause in &self.causes {
            // Some errors repeat their source in their own text.
            if !text.ends_with(cause) {
                text = format!("{text}: {cause}");
            }
        }
        text
    }

    /// Prints it on stderr and gives the code to end with.
    pub fn report(&self) -> ExitCode {
        print_findings(&self.findings);
        if !self.what.is_empty() {
            terminal::error(self.text());
        }
        if self.code == BUG {
            terminal::hint("this is a bug in rouse, please report it with the lines above");
        }
        if let Some(hint) = &self.hint {
            terminal::hint(hint);
        }
        ExitCode::from(self.code)
    }
}

/// Whether an error, or what lies beneath it, is a disk or a quota without room.
fn is_full(error: &(dyn Error + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        let full = match error.downcast_ref::<std::io::Error>() {
            Some(error) => {
                use std::io::ErrorKind::{QuotaExceeded, StorageFull};
                matches!(error.kind(), StorageFull | QuotaExceeded)
            }
            None => matches!(error.downcast_ref(), Some(cache::Error::Full { .. })),
        };
        if full {
            return true;
        }
        next = error.source();
    }
    false
}

/// An error's text with its causes, for a message that is not the last one.
pub fn with_causes(error: &(dyn Error + 'static)) -> String {
    Failure::of(FAILED, error).text()
}

fn chain(mut error: Option<&dyn Error>) -> Vec<String> {
    let mut texts = Vec::new();
    while let Some(cause) = error {
        texts.push(cause.to_string());
        error = cause.source();
    }
    texts
}

/// Prints findings on stderr, the worst last; without notes if less is to be said.
pub fn print_findings(findings: &[Finding]) {
    let shown =
        |finding: &&Finding| finding.severity != finding::Severity::Note || !terminal::is_quiet();
    let mut sorted: Vec<&Finding> = findings.iter().filter(shown).collect();
    sorted.sort_by_key(|finding| finding.severity);
    for finding in sorted {
        terminal::line(&finding.render(terminal::colour()));
    }
    let errors = findings.iter().filter(|f| f.severity == finding::Severity::Error).count();
    let warnings = findings.iter().filter(|f| f.severity == finding::Severity::Warning).count();
    if errors + warnings > 0 {
        let count = |number: usize, word: &str| match number {
            0 => None,
            1 => Some(format!("1 {word}")),
            _ => Some(format!("{number} {word}s")),
        };
        let parts: Vec<String> =
            [count(errors, "error"), count(warnings, "warning")].into_iter().flatten().collect();
        terminal::line(&parts.join(", "));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io;

    #[derive(Debug, thiserror::Error)]
    #[error("use the cache at /c")]
    struct Outer(#[source] io::Error);

    fn outer() -> Outer {
        Outer(io::Error::other("no space"))
    }

    #[test]
    fn each_cause_is_said_once() {
        let failure = Failure::new(FAILED, "open the cache").because(outer());
        assert_eq!(failure.text(), "failed to open the cache: use the cache at /c: no space");
        let failure = Failure::of(FAILED, &outer());
        assert_eq!(failure.text(), "failed to use the cache at /c: no space");
        let failure = Failure::new(FAILED, "write: no space").because(io::Error::other("no space"));
        assert_eq!(failure.text(), "failed to write: no space");
        assert_eq!(with_causes(&outer()), "failed to use the cache at /c: no space");
    }
}
