//! One VM, from its place in the registry to its end.
//!
//! Everything happens in the process that calls [`run`]: it holds the registry's lock, its threads
//! are the vsock device, and QEMU is its child, which ends with it.
//!
//! | step | if it fails |
//! |---|---|
//! | lock the disks that it writes to | another VM has one |
//! | take a place in the registry | name or CID are busy |
//! | make the token | |
//! | start the vsock device | |
//! | boot, watched | KVM does not run: start the device anew, boot under TCG |
//! | the guest listens | what KVM did is remembered, for good or bad |
//! | the guest switches off | |

mod error;
mod event;

pub use error::VmError;
pub use event::{Blame, Event, Failure, Outcome};

use crate::accelerator::{Accelerator, Choice, Memory};
use crate::connect::Route;
use crate::emulator::Emulator;
use crate::machine::{
    Arch, Board, Disk, DiskAccess, FwCfg, FwCfgContent, Hardware, Machine, VsockDevice,
};
use crate::publish::{self, HostAddress, Publish};
use crate::registry::{Claim, Entry, Folder, Registry, Stage, VsockKind, Wanted, replace_file};
use crate::watch::{End, Fallback, Watch};
use crate::{tsc, vhost, vsock};
use rustix::fs::FlockOperation;
use serde::{Deserialize, Serialize};
use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::fd::BorrowedFd;
use std::path::PathBuf;
use std::time::Duration;

/// A VM that shall run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spec {
    /// Its name.
    pub name: String,
    /// Its context identifier; None is the first free one.
    pub cid: Option<u32>,
    /// The appliance's folder.
    pub appliance: PathBuf,
    /// What it runs on and boots.
    pub hardware: Hardware,
    /// Name of the fw_cfg file in which the guest finds the token of its control protocol.
    pub token_name: String,
    /// QEMU.
    pub emulator: Emulator,
    /// Where is kept what is learned about KVM.
    pub cache: PathBuf,
    /// Sockets of the host that lead into it.
    pub publish: Vec<Publish>,
    /// The guest's listeners, shown by `rouse list`.
    pub listeners: serde_json::Value,
    /// Of the image, for those who look at the VM's record.
    #[serde(default)]
    pub image: serde_json::Value,
    /// Whether it outlives who started it.
    pub lifetime: Lifetime,
    /// How long the guest may take to power off when it is told to.
    pub grace: Duration,
}

/// Whether a VM outlives the process that started it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Lifetime {
    /// It is powered off when that process goes.
    Attached,
    /// It stays.
    Detached,
}

/// What the caller knows of what runs in the guest.
pub trait Guest: Sync {
    /// Whether the guest listens on all that it should. Asked again and again while it boots,
    /// from a thread of its own; an answer may take some seconds.
    fn is_listening(&self, vm: &Entry) -> bool;

    /// Tells the guest to power off.
    fn power_off(&self, vm: &Entry) -> io::Result<()>;
}

/// What tells a VM from outside that it shall end.
#[derive(Debug, Clone, Copy)]
pub struct Stop<'a> {
    /// Readable when a signal came: the first asks the guest, the second kills it.
    pub signals: BorrowedFd<'a>,
    /// Hung up when the process that started an attached VM is gone.
    pub parent: Option<BorrowedFd<'a>>,
}

/// Runs a VM until it ends.
pub fn run(
    spec: &Spec,
    registry: &Registry,
    guest: &dyn Guest,
    stop: Stop,
    report: &mut dyn FnMut(Event),
) -> Result<Outcome, VmError> {
    spec.hardware.check()?;
    let _disks = lock_disks(&spec.hardware)?;
    let vsock = vsock_kind();
    let claim = registry.claim(&Wanted {
        name: &spec.name,
        cid: spec.cid,
        arch: spec.hardware.arch,
        appliance: &spec.appliance,
        vsock,
        publish: &spec.publish,
        listeners: &spec.listeners,
        image: &spec.image,
    })?;
    write_token(claim.folder()).map_err(VmError::system("make a token"))?;
    let vm = Vm { spec, siblings: registry.siblings(), memory: Memory::new(&spec.cache), claim };
    vm.run(guest, stop, report)
}

/// Locks the disks that the guest writes to, for as long as it is there: a disk has one writer.
fn lock_disks(hardware: &Hardware) -> Result<Vec<File>, VmError> {
    let written = hardware.disks.iter().filter(|disk| disk.access == DiskAccess::ReadWrite);
    let lock = |disk: &Disk| {
        let file = File::options().read(true).write(true).open(&disk.path);
        let file = file.map_err(VmError::system("open the disk"))?;
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(file),
            Err(rustix::io::Errno::WOULDBLOCK) => Err(VmError::DiskBusy(disk.path.clone())),
            Err(error) => Err(VmError::system("lock the disk")(error.into())),
        }
    };
    written.map(lock).collect()
}

/// The command line that [`run`] would use if it were called now, for a person to read.
pub fn command(spec: &Spec, registry: &Registry) -> Result<Vec<OsString>, VmError> {
    let mut there = spec.hardware.clone();
    // `rouse run` makes those that are kept.
    there.disks.retain(|disk| disk.access != DiskAccess::ReadWrite);
    there.check()?;
    let kind = vsock_kind();
    let (folder, cid) = registry.preview(&spec.name, spec.cid, kind)?;
    let choice = Memory::new(&spec.cache).choose(spec.hardware.arch);
    let machine = machine(spec, &folder, cid, kind);
    let mut words = Vec::new();
    if !spec.emulator.environment.is_empty() {
        words.push("env".into());
    }
    for (name, value) in &spec.emulator.environment {
        let mut word = OsString::from(format!("{name}="));
        word.push(value);
        words.push(word);
    }
    words.extend(machine.command(&spec.emulator, choice.accelerator()));
    Ok(words)
}

/// A VM whose place is taken.
struct Vm<'a> {
    spec: &'a Spec,
    siblings: PathBuf,
    memory: Memory,
    claim: Claim,
}

/// The threads that carry vsock; dropping it ends them.
enum Carrier {
    Device(vsock::Device),
    Kernel(Vec<publish::Listener>),
}

/// What one boot differs in from the next.
struct Attempt<'a> {
    carrier: &'a Carrier,
    accelerator: Accelerator,
    fallback: Fallback,
    /// Why KVM was given up before.
    suspicion: Option<&'a str>,
}

impl Vm<'_> {
    fn run(
        mut self,
        guest: &dyn Guest,
        stop: Stop,
        report: &mut dyn FnMut(Event),
    ) -> Result<Outcome, VmError> {
        let choice = self.memory.choose(self.spec.hardware.arch);
        if let Choice::Tcg(reason) = &choice {
            report(Event::Notice(format!("the guest runs under TCG, which is slow: {reason}")));
        }
        let mut accelerator = choice.accelerator();
        // Why KVM was given up, to be remembered if the guest runs without it.
        let mut suspicion: Option<String> = None;
        let mut carrier = self.start_carrier()?;
        self.tell_place(&carrier, report)?;
        loop {
            if accelerator == Accelerator::Tcg {
                warn_of_old_emulator(self.spec, report);
            }
            self.claim.update(|record| record.accelerator = Some(accelerator))?;
            report(Event::Booting { accelerator });
            let attempt = Attempt {
                carrier: &carrier,
                accelerator,
                fallback: match (accelerator, &choice) {
                    (Accelerator::Kvm, Choice::Untried | Choice::Proven) => Fallback::Tcg,
                    _ => Fallback::None,
                },
                suspicion: suspicion.as_deref(),
            };
            match self.boot(attempt, guest, stop, report)? {
                End::Outcome(outcome) => return Ok(outcome),
                End::Unaccelerated { reason, certain } => {
                    let text = "KVM does not run guests here";
                    report(Event::Notice(format!("{text} ({reason}); booting again under TCG")));
                    if certain {
                        self.memory.learn(Accelerator::Tcg, Some(&reason));
                    }
                    suspicion = Some(reason);
                    accelerator = Accelerator::Tcg;
                    // The guest before left connections and queues behind.
                    drop(carrier);
                    carrier = self.start_carrier()?;
                }
            }
        }
    }

    /// One boot, to its end.
    fn boot(
        &mut self,
        attempt: Attempt,
        guest: &dyn Guest,
        stop: Stop,
        report: &mut dyn FnMut(Event),
    ) -> Result<End, VmError> {
        let folder = self.claim.folder().clone();
        let record = self.claim.record();
        let machine = machine(self.spec, &folder, record.cid, record.vsock);
        let Attempt { carrier, accelerator, fallback, suspicion } = attempt;
        let watch = Watch {
            emulator: &self.spec.emulator,
            command: machine.command(&self.spec.emulator, accelerator),
            folder,
            accelerator,
            fallback,
            spoke: &|| match carrier {
                Carrier::Device(device) => device.state() == vsock::State::Ready,
                Carrier::Kernel(_) => false,
            },
            guest,
            vm: self.claim.entry(),
            stop,
            grace: self.spec.grace,
        };
        let (claim, memory) = (&mut self.claim, &self.memory);
        watch.run(&mut |event| {
            let stage = match event {
                Event::Ready => Some(Stage::Ready),
                Event::Stopping => Some(Stage::Stopping),
                _ => None,
            };
            if event == Event::Ready {
                memory.learn(accelerator, suspicion);
            }
            if let Some(stage) = stage
                && let Err(error) = claim.update(|record| record.stage = stage)
            {
                log::warn!("failed to {error}");
            }
            report(event);
        })
    }

    fn start_carrier(&self) -> Result<Carrier, VmError> {
        let (folder, record) = (self.claim.folder(), self.claim.record());
        if record.vsock == VsockKind::Vhost {
            let start = |publish: &Publish| {
                publish::Listener::start(publish, Route::Kernel(record.cid))
                    .map_err(|source| VmError::Publish { address: publish.host.clone(), source })
            };
            return Ok(Carrier::Kernel(
                record.publish.iter().map(start).collect::<Result<_, _>>()?,
            ));
        }
        let mut config = vsock::Config::new(record.cid, folder.device(), folder.vsock());
        config.siblings = Some(self.siblings.clone());
        config.publish = record.publish.iter().map(into_device).collect();
        vsock::Device::start(config).map(Carrier::Device).map_err(VmError::Vsock)
    }

    /// Writes down and tells where the VM is to be found. From here on TCP ports are real ones,
    /// so that a device that is started anew takes the same.
    fn tell_place(
        &mut self,
        carrier: &Carrier,
        report: &mut dyn FnMut(Event),
    ) -> Result<(), VmError> {
        let publish: Vec<Publish> = match carrier {
            Carrier::Device(device) => device.published().iter().map(from_device).collect(),
            Carrier::Kernel(listeners) => {
                listeners.iter().map(|listener| listener.published().clone()).collect()
            }
        };
        self.claim.update(|record| record.publish = publish.clone())?;
        report(Event::Claimed {
            folder: self.claim.folder().path().into(),
            cid: self.claim.record().cid,
            vsock: self.claim.record().vsock,
            publish,
        });
        Ok(())
    }
}

fn warn_of_old_emulator(spec: &Spec, report: &mut dyn FnMut(Event)) {
    if spec.hardware.arch == Arch::X86_64 && !spec.emulator.is_sound_under_tcg() {
        report(Event::Notice(format!(
            "QEMU {} corrupts guests by cmpxchg16b under TCG, so they do without that instruction; \
             programs built for x86-64-v2 will not start",
            spec.emulator.version
        )));
    }
}

fn machine(spec: &Spec, folder: &Folder, cid: u32, vsock: VsockKind) -> Machine {
    let mut hardware = spec.hardware.clone();
    let content = FwCfgContent::File(folder.token());
    hardware.fw_cfg.push(FwCfg { name: spec.token_name.clone(), content });
    Machine {
        hardware,
        cid,
        vsock: match vsock {
            VsockKind::Vhost => VsockDevice::Vhost,
            VsockKind::Device => VsockDevice::VhostUser(folder.device()),
        },
        console: folder.console(),
        monitor: folder.monitor(),
        tsc_khz: (spec.hardware.board == Board::Microvm).then(tsc::frequency),
    }
}

/// The kernel's, where this user has it and the environment does not say otherwise.
fn vsock_kind() -> VsockKind {
    let asked = std::env::var(vhost::VARIABLE).unwrap_or_default();
    match asked.as_str() {
        "vhost" => VsockKind::Vhost,
        "device" => VsockKind::Device,
        _ if vhost::is_usable() => VsockKind::Vhost,
        _ => VsockKind::Device,
    }
}

fn write_token(folder: &Folder) -> io::Result<()> {
    let mut bytes = [0; 32];
    let mut filled = 0;
    while filled < bytes.len() {
        let rest = &mut bytes[filled..];
        match rustix::rand::getrandom(rest, rustix::rand::GetRandomFlags::empty()) {
            Ok(count) => filled += count,
            Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    let text: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    replace_file(&folder.token(), text.as_bytes(), 0o600)
}

fn into_device(publish: &Publish) -> vsock::Publish {
    let listen = match &publish.host {
        HostAddress::Unix(path) => vsock::PublishAddress::UnixPath(path.clone()),
        HostAddress::Tcp(address) => vsock::PublishAddress::Tcp(*address),
    };
    vsock::Publish { listen, port: publish.port }
}

fn from_device(publish: &vsock::Publish) -> Publish {
    let host = match &publish.listen {
        vsock::PublishAddress::UnixPath(path) => HostAddress::Unix(path.clone()),
        vsock::PublishAddress::Tcp(address) => HostAddress::Tcp(*address),
    };
    Publish { host, port: publish.port }
}
