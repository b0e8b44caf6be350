//! Counts of the tests: small by default, full in the full run.

use std::io::Write;

/// The number that the environment gives for a test, else `default`. Printed, so that a log shows
/// what was run: on stderr itself, since what println! writes is shown of tests that fail only.
pub fn count(name: &str, default: u64) -> u64 {
    let value = match std::env::var(name) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{name}={text} is no number")),
        Err(_) => default,
    };
    let _ = writeln!(std::io::stderr(), "{name}={value}");
    value
}
