//! What a VM's process tells the one that started it.

use crate::accelerator::Accelerator;
use crate::publish::Publish;
use crate::registry::VsockKind;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// What happens to a VM.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Event {
    /// It has its place in the registry.
    Claimed {
        /// The folder.
        folder: PathBuf,
        /// Its context identifier.
        cid: u32,
        /// How its vsock is reached.
        vsock: VsockKind,
        /// The published sockets, with real ports.
        publish: Vec<Publish>,
    },
    /// QEMU was started.
    Booting {
        /// Who executes the guest.
        accelerator: Accelerator,
    },
    /// Something that a person should know: a sentence without a full stop.
    Notice(String),
    /// The guest listens.
    Ready,
    /// It was told to power off.
    Stopping,
    /// It is no more; the last event.
    Ended(Outcome),
    /// It failed; the last event.
    Failed(Failure),
}

/// How a VM ended, other than by an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// The guest switched itself off, on demand or not.
    PoweredOff,
    /// The guest, after it had come up, reset itself, which ends a VM.
    Reset,
    /// The guest was told to power off, did not in time, and was ended.
    Ended,
}

/// An error as the process that started the VM sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// Who is to blame.
    pub blame: Blame,
    /// Completes "failed to ...", with its causes.
    pub message: String,
    /// The last lines of the guest's console, or of QEMU.
    pub lines: Vec<String>,
}

/// Who is to blame for an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Blame {
    /// What the user asked for cannot be had now: a name, a CID, a socket is in use.
    Busy,
    /// What the user asked for makes no sense.
    Request,
    /// The host.
    Host,
    /// The guest.
    Guest,
}
