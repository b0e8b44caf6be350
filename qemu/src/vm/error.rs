//! Why a VM did not run, and who is to blame.

use super::event::{Blame, Failure};
use crate::accelerator::Accelerator;
use crate::machine::HardwareError;
use crate::monitor::MonitorError;
use crate::publish::HostAddress;
use crate::registry::RegistryError;
use crate::vsock;
use std::io;
use std::path::PathBuf;

/// Why a VM did not run.
#[derive(Debug, thiserror::Error)]
pub enum VmError {
    /// It has no place in the registry.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// What it boots is not there.
    #[error(transparent)]
    Hardware(#[from] HardwareError),
    /// A disk that the guest would write to is another VM's.
    #[error("use the disk {}: a running VM has it", .0.display())]
    DiskBusy(PathBuf),
    /// The vsock device.
    #[error("start the vsock device: {0}")]
    Vsock(vsock::Error),
    /// A published socket.
    #[error("listen on {address}")]
    Publish {
        /// Where.
        address: HostAddress,
        /// Why.
        source: io::Error,
    },
    /// QEMU cannot be executed.
    #[error("start QEMU")]
    Spawn(#[source] io::Error),
    /// QEMU ended by itself.
    #[error("run QEMU: it {status}")]
    Emulator {
        /// `exited 1`, `was killed by signal 6`.
        status: String,
        /// What it wrote last.
        lines: Vec<String>,
    },
    /// QEMU's monitor.
    #[error(transparent)]
    Monitor(#[from] MonitorError),
    /// The accelerator failed while the guest was up, or there is no other.
    #[error("run the guest under {accelerator}: {reason}")]
    Accelerator {
        /// Who executed it.
        accelerator: Accelerator,
        /// What happened.
        reason: String,
        /// What QEMU wrote last.
        lines: Vec<String>,
    },
    /// The guest's kernel panicked, or reset the machine before it was up.
    #[error("boot the guest: {reason}")]
    Guest {
        /// `its kernel panicked`, ...
        reason: String,
        /// The console's last lines.
        lines: Vec<String>,
    },
    /// The system said no.
    #[error("{action}")]
    System {
        /// What was tried.
        action: &'static str,
        /// What it said.
        source: io::Error,
    },
}

impl VmError {
    pub(crate) fn system(action: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::System { action, source }
    }

    /// Who is to blame.
    pub fn blame(&self) -> Blame {
        match self {
            Self::DiskBusy(_)
            | Self::Registry(RegistryError::NameTaken(_) | RegistryError::CidBusy { .. })
            | Self::Vsock(vsock::Error::BusyCid { .. } | vsock::Error::BusySocket(_)) => {
                Blame::Busy
            }
            Self::Publish { source, .. } if source.kind() == io::ErrorKind::AddrInUse => {
                Blame::Busy
            }
            Self::Vsock(vsock::Error::Tcp { cause, .. })
                if *cause == rustix::io::Errno::ADDRINUSE =>
            {
                Blame::Busy
            }
            Self::Registry(
                RegistryError::Name(_)
                | RegistryError::CidReserved(_)
                | RegistryError::PathTooLong(_),
            )
            | Self::Hardware(_)
            // The sockets in the registry's own folder never fail so; published ones do.
            | Self::Vsock(
                vsock::Error::ReservedCid(_)
                | vsock::Error::NotASocket(_)
                | vsock::Error::LongPath(_)
                | vsock::Error::Path { .. }
                | vsock::Error::Tcp { .. },
            )
            | Self::Publish { .. } => Blame::Request,
            Self::Guest { .. } => Blame::Guest,
            _ => Blame::Host,
        }
    }

    /// As told to the process that started the VM.
    pub fn failure(&self) -> Failure {
        let mut message = self.to_string();
        let mut cause = std::error::Error::source(self);
        while let Some(source) = cause {
            message.push_str(&format!(": {source}"));
            cause = source.source();
        }
        let lines = match self {
            Self::Emulator { lines, .. }
            | Self::Accelerator { lines, .. }
            | Self::Guest { lines, .. } => lines.clone(),
            _ => Vec::new(),
        };
        Failure { blame: self.blame(), message, lines }
    }
}
