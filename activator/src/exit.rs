//! Exit codes of `activator` and its verbs, as scripts see them.

/// Done.
pub const DONE: u8 = 0;
/// Understood, and failed.
pub const FAILED: u8 = 1;
/// The command line is wrong.
pub const USAGE: u8 = 2;
/// An input file is wrong: EX_DATAERR of sysexits.h(3head).
pub const DATA: u8 = 65;
/// Something that must be there is not: EX_UNAVAILABLE.
pub const UNAVAILABLE: u8 = 69;
/// A bug of ours: EX_SOFTWARE.
pub const SOFTWARE: u8 = 70;
/// The system refused: EX_OSERR.
pub const SYSTEM: u8 = 71;
/// Try again: EX_TEMPFAIL.
pub const TRY_AGAIN: u8 = 75;
/// A service's program could not be executed: EXIT_EXEC of systemd.exec(5).
pub const EXEC: u8 = 203;
