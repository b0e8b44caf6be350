//! `Condition*=` and `Assert*=` of systemd.unit(5) that only the running guest can check.
//!
//! `activator stage2` checks them in a child, as PID 1 must not wait for a file system.

use crate::wire;
use serde::Serialize;

/// One line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Condition {
    /// What a false one does.
    pub group: Group,
    /// Prefix `|`: of all of these at least one must be true.
    pub triggering: bool,
    /// Prefix `!`
    pub negate: bool,
    /// What is asked.
    pub check: Check,
}

/// Whether a false one skips or fails the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum Group {
    /// `Condition*=`: the unit is not started, which is no failure.
    Condition,
    /// `Assert*=`: the start fails.
    Assert,
}

/// What is asked; each is the key of that name, with its value after specifiers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[allow(missing_docs)] // the names of systemd.unit(5)
pub enum Check {
    PathExists(String),
    PathExistsGlob(String),
    PathIsDirectory(String),
    PathIsSymbolicLink(String),
    PathIsMountPoint(String),
    PathIsReadWrite(String),
    PathIsSocket(String),
    DirectoryNotEmpty(String),
    FileNotEmpty(String),
    FileIsExecutable(String),
    KernelCommandLine(String),
    KernelModuleLoaded(String),
    KernelVersion(String),
    Environment(String),
    Capability(String),
    Memory(String),
    Cpus(String),
    ControlGroupController(String),
    Credential(String),
    FirstBoot(String),
    OsRelease(String),
}

wire! {
    struct Condition { group, triggering, negate, check }
    enum Group { Condition, Assert }
    enum Check {
        PathExists(value), PathExistsGlob(value), PathIsDirectory(value),
        PathIsSymbolicLink(value), PathIsMountPoint(value), PathIsReadWrite(value),
        PathIsSocket(socket), DirectoryNotEmpty(value), FileNotEmpty(value),
        FileIsExecutable(value), KernelCommandLine(value), KernelModuleLoaded(value),
        KernelVersion(value), Environment(value), Capability(value), Memory(value), Cpus(value),
        ControlGroupController(value), Credential(value), FirstBoot(value), OsRelease(value),
    }
}
