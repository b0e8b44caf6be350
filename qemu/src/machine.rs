//! A virtual machine as QEMU's command line.
//!
//! Plain data in, words out: nothing here touches the host, so the golden texts in the tests are
//! the whole truth about how QEMU is called (qemu-system(1)).

use crate::accelerator::Accelerator;
use crate::emulator::Emulator;
use serde::{Deserialize, Serialize};
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

/// The least memory in MiB that Debian's kernel boots with.
pub const MEMORY_MIN: u32 = 128;
/// The most processors that a guest can have.
pub const PROCESSORS_MAX: u32 = 64;

/// A processor architecture of guests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Arch {
    /// Debian's amd64; a q35 machine.
    X86_64,
    /// Debian's arm64; a virt machine.
    Aarch64,
}

impl Arch {
    /// The host's, if guests of it are supported.
    pub fn host() -> Option<Self> {
        Self::from_name(std::env::consts::ARCH)
    }

    /// By the kernel's name (`x86_64`, `aarch64`) or Debian's (`amd64`, `arm64`).
    pub fn from_name(name: &str) -> Option<Self> {
        match name {
            "x86_64" | "amd64" => Some(Self::X86_64),
            "aarch64" | "arm64" => Some(Self::Aarch64),
            _ => None,
        }
    }

    /// The kernel's name, which is also the end of `qemu-system-...`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::X86_64 => "x86_64",
            Self::Aarch64 => "aarch64",
        }
    }

    /// The serial console's device name in the guest.
    pub fn console(self) -> &'static str {
        match self {
            Self::X86_64 => "ttyS0",
            Self::Aarch64 => "ttyAMA0",
        }
    }
}

impl std::fmt::Display for Arch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.as_str())
    }
}

/// A file that the guest reads below /sys/firmware/qemu_fw_cfg/by_name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FwCfg {
    /// Its name, which begins with `opt/` for anything that is not QEMU's own.
    pub name: String,
    /// What it holds.
    pub content: FwCfgContent,
}

/// What a fw_cfg file holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FwCfgContent {
    /// A file of the host, read when QEMU starts. The way to hand over secrets.
    File(PathBuf),
    /// A text on the command line, which every user of the host can read.
    Text(String),
}

/// How the guest's vsock reaches the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum VsockDevice {
    /// No vsock.
    None,
    /// The host kernel's /dev/vhost-vsock.
    Vhost,
    /// A vhost-user device that listens on this socket.
    VhostUser(PathBuf),
}

/// A raw disk image, seen as /dev/vda, /dev/vdb, ... in order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Disk {
    /// The image.
    pub path: PathBuf,
    /// Whether the guest may write.
    pub access: DiskAccess,
}

/// Whether a guest may write to a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DiskAccess {
    /// It may not; several VMs can share the image.
    ReadOnly,
    /// It may.
    ReadWrite,
    /// It may, and what it writes is lost with the VM.
    Snapshot,
}

/// What a guest runs on, and what it boots: the part of a machine that the user chooses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hardware {
    /// The guest's architecture.
    pub arch: Arch,
    /// Memory in MiB, at least [`MEMORY_MIN`].
    pub memory: u32,
    /// Virtual processors, 1 to [`PROCESSORS_MAX`].
    pub cpus: u32,
    /// The kernel: a bzImage, or arm64's Image.
    pub kernel: PathBuf,
    /// The initial ramdisk.
    pub initrd: Option<PathBuf>,
    /// Appended to [`kernel_arguments`].
    pub command_line: String,
    /// Disks, in order.
    pub disks: Vec<Disk>,
    /// Files handed over by the firmware interface.
    pub fw_cfg: Vec<FwCfg>,
}

/// A virtual machine, with its connections to the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Machine {
    /// What the guest runs on.
    pub hardware: Hardware,
    /// The guest's context identifier, 3 to 2^32 - 2.
    pub cid: u32,
    /// The vsock device.
    pub vsock: VsockDevice,
    /// What the guest writes to its serial console is appended to this file.
    pub console: PathBuf,
    /// Where QEMU listens for its monitor (QMP).
    pub monitor: PathBuf,
}

impl Machine {
    /// QEMU's program and arguments, word by word.
    pub fn command(&self, emulator: &Emulator, accelerator: Accelerator) -> Vec<OsString> {
        let mut words = Words(emulator.command.clone());
        for folder in &emulator.data {
            words.flag("-L", folder);
        }
        for flag in ["-nodefaults", "-no-user-config", "-no-reboot"] {
            words.0.push(flag.into());
        }
        words.flag("-display", "none");
        if emulator.sandbox {
            words.flag(
                "-sandbox",
                "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny",
            );
        }
        self.board(&mut words, emulator, accelerator);
        self.boot(&mut words);
        self.devices(&mut words);
        words.0
    }

    fn board(&self, words: &mut Words, emulator: &Emulator, accelerator: Accelerator) {
        let mut board = match (self.hardware.arch, accelerator) {
            (Arch::X86_64, _) => String::from("q35"),
            (Arch::Aarch64, Accelerator::Kvm) => String::from("virt,gic-version=host"),
            (Arch::Aarch64, Accelerator::Tcg) => String::from("virt"),
        };
        // A vhost-user device maps the guest's memory, so that has to be a file that can be shared.
        let memory = format!("{}M", self.hardware.memory);
        if matches!(self.vsock, VsockDevice::VhostUser(_)) {
            words.flag("-object", format!("memory-backend-memfd,id=memory,size={memory},share=on"));
            board.push_str(",memory-backend=memory");
        }
        words.flag("-machine", board);
        words.flag("-accel", accelerator.as_str());
        words.flag("-cpu", self.cpu(emulator, accelerator));
        words.flag("-smp", self.hardware.cpus.to_string());
        words.flag("-m", memory);
    }

    fn cpu(&self, emulator: &Emulator, accelerator: Accelerator) -> &'static str {
        match (accelerator, self.hardware.arch) {
            (Accelerator::Kvm, _) => "host",
            (Accelerator::Tcg, Arch::X86_64) if !emulator.is_sound_under_tcg() => "max,-cx16",
            (Accelerator::Tcg, _) => "max",
        }
    }

    fn boot(&self, words: &mut Words) {
        words.flag("-kernel", &self.hardware.kernel);
        if let Some(initrd) = &self.hardware.initrd {
            words.flag("-initrd", initrd);
        }
        let mut line = kernel_arguments(self.hardware.arch);
        if !self.hardware.command_line.is_empty() {
            line.push(' ');
            line.push_str(&self.hardware.command_line);
        }
        words.flag("-append", line);
        for file in &self.hardware.fw_cfg {
            let name = OsString::from(format!("name={}", escape(file.name.as_ref()).display()));
            let (key, value) = match &file.content {
                FwCfgContent::File(path) => (",file=", path.as_os_str()),
                FwCfgContent::Text(text) => (",string=", text.as_ref()),
            };
            words.flag("-fw_cfg", join([name, key.into(), escape(value)]));
        }
    }

    fn devices(&self, words: &mut Words) {
        let console = escape(self.console.as_os_str());
        words.flag("-chardev", join(["file,id=console,append=on,path=".into(), console]));
        words.flag("-serial", "chardev:console");
        let monitor = escape(self.monitor.as_os_str());
        words
            .flag("-chardev", join(["socket,id=monitor,server=on,wait=off,path=".into(), monitor]));
        words.flag("-mon", "chardev=monitor,mode=control");
        for (index, disk) in self.hardware.disks.iter().enumerate() {
            let access = match disk.access {
                DiskAccess::ReadOnly => "readonly=on,file.locking=off",
                DiskAccess::ReadWrite => "readonly=off",
                DiskAccess::Snapshot => "snapshot=on,file.locking=off",
            };
            let drive = format!("id=disk{index},if=none,format=raw,{access},file=");
            words.flag("-drive", join([drive.into(), escape(disk.path.as_os_str())]));
            words.flag("-device", format!("virtio-blk-pci,drive=disk{index}"));
        }
        match &self.vsock {
            VsockDevice::None => {}
            VsockDevice::Vhost => {
                words.flag("-device", format!("vhost-vsock-pci,guest-cid={}", self.cid));
            }
            VsockDevice::VhostUser(path) => {
                let path = escape(path.as_os_str());
                words.flag("-chardev", join(["socket,id=vsock,path=".into(), path]));
                words.flag("-device", "vhost-user-vsock-pci,chardev=vsock");
            }
        }
    }
}

/// What every guest's kernel is told: where its console is, to reset (and so to end QEMU) at once
/// when it panics, and to write only warnings and worse, since every byte of a serial console
/// costs a trap. What speeds up the boot at the price of safety (`mitigations=off`, `nokaslr`) or
/// trusts the host's clock (`tsc=reliable`) is left to the caller.
pub fn kernel_arguments(arch: Arch) -> String {
    format!("console={} panic=-1 loglevel=4", arch.console())
}

/// The words as a line that a POSIX shell splits into the same words.
pub fn shell_line(words: &[OsString]) -> OsString {
    let mut line = Vec::new();
    for word in words {
        if !line.is_empty() {
            line.push(b' ');
        }
        quote(word.as_bytes(), &mut line);
    }
    OsString::from_vec(line)
}

fn quote(word: &[u8], line: &mut Vec<u8>) {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"%+,-./:=@_".contains(byte);
    if !word.is_empty() && word.iter().all(plain) {
        return line.extend(word);
    }
    line.push(b'\'');
    for &byte in word {
        match byte {
            b'\'' => line.extend(br"'\''"),
            _ => line.push(byte),
        }
    }
    line.push(b'\'');
}

/// A comma ends a value in QEMU's option lists, two commas are one.
fn escape(value: &OsStr) -> OsString {
    let mut escaped = Vec::with_capacity(value.len());
    for &byte in value.as_bytes() {
        escaped.push(byte);
        if byte == b',' {
            escaped.push(b',');
        }
    }
    OsString::from_vec(escaped)
}

fn join<const N: usize>(parts: [OsString; N]) -> OsString {
    parts.into_iter().collect()
}

struct Words(Vec<OsString>);

impl Words {
    fn flag(&mut self, flag: &str, value: impl AsRef<OsStr>) {
        self.0.push(flag.into());
        self.0.push(value.as_ref().to_owned());
    }
}

/// What a machine lacks before QEMU is asked at all.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HardwareError {
    /// Less than [`MEMORY_MIN`].
    #[error("boot with {0} MiB of memory, the least is {MEMORY_MIN}")]
    Memory(u32),
    /// Not 1 to [`PROCESSORS_MAX`].
    #[error("boot with {0} processors, 1 to {PROCESSORS_MAX} are possible")]
    Processors(u32),
    /// A kernel, initrd or disk that is not there.
    #[error("boot from {}, which is not a file", .0.display())]
    NoFile(PathBuf),
}

impl Hardware {
    /// Checks the sizes, and that the files are there.
    pub fn check(&self) -> Result<(), HardwareError> {
        if self.memory < MEMORY_MIN {
            return Err(HardwareError::Memory(self.memory));
        }
        if !(1..=PROCESSORS_MAX).contains(&self.cpus) {
            return Err(HardwareError::Processors(self.cpus));
        }
        let disks = self.disks.iter().map(|disk| &disk.path);
        let mut files = disks.chain([&self.kernel]).chain(&self.initrd);
        match files.find(|path| !path.exists() || path.is_dir()) {
            Some(path) => Err(HardwareError::NoFile(path.clone())),
            None => Ok(()),
        }
    }
}
