//! A test that cannot run here says so where everybody sees it.

use std::fmt::Display;
use std::io::Write;

/// Says that a test is skipped, and why: on stderr itself, since what print! and eprint! write is
/// shown of tests that fail only.
pub fn skipped(why: impl Display) {
    // Nobody is left to be told where stderr is closed.
    let _ = writeln!(std::io::stderr(), "SKIPPED: {why}");
}
