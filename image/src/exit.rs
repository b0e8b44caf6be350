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
    source: Option<Box<dyn Error + Send + Sync>>,
    hint: Option<String>,
    findings: Vec<Finding>,
}

impl Failure {
    /// A failure with a code and a text that completes "failed to ...".
    pub fn new(code: u8, what: impl Into<String>) -> Self {
        Self { code, what: what.into(), source: None, hint: None, findings: Vec::new() }
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

    /// What lies beneath. A full disk is nobody's fault, whatever was being done: the same may
    /// work later.
    pub fn because(mut self, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        let source = source.into();
        if is_full(&*source) {
            self.code = TRY_AGAIN;
            self.hint.get_or_insert_with(|| "make room on that disk, and try again".into());
        }
        self.source = Some(source);
        self
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

    /// Prints it on stderr and gives the code to end with.
    pub fn report(&self) -> ExitCode {
        print_findings(&self.findings);
        if !self.what.is_empty() {
            let mut text = format!("failed to {}", self.what);
            let mut cause = self.source.as_deref().map(|source| source as &dyn Error);
            while let Some(error) = cause {
                let part = error.to_string();
                // Some errors repeat their source in their own text.
                if !text.ends_with(&part) {
                    text = format!("{text}: {part}");
                }
                cause = error.source();
            }
            terminal::error(text);
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

/// Prints findings on stderr, the worst last.
pub fn print_findings(findings: &[Finding]) {
    let mut sorted: Vec<&Finding> = findings.iter().collect();
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
