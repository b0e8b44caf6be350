//! A virtual machine as QEMU's command line.
//!
//! Plain data in, words out: nothing here touches the host, so the golden texts in the tests are
//! the whole truth about how QEMU is called (qemu-system(1)).

use crate::accelerator::Accelerator;
use crate::emulator::Emulator;
use crate::nic::Nic;
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

/// The main board (`-machine`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Board {
    /// QEMU's q35 (x86_64) or virt (aarch64).
    #[default]
    Standard,
    /// QEMU's microvm, with PCI Express for the devices and ACPI to find them by: a board without
    /// what a PC has had since 1981, which costs memory, and time in the firmware. x86_64 only; virt
    /// has none of that anyway, and is what aarch64 gets.
    Microvm,
}

/// What a guest runs on, and what it boots: the part of a machine that the user chooses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hardware {
    /// The guest's architecture.
    pub arch: Arch,
    /// The main board.
    pub board: Board,
    /// Memory in MiB, at least [`MEMORY_MIN`].
    pub memory: u32,
    /// Virtual processors, 1 to [`PROCESSORS_MAX`].
    pub cpus: u32,
    /// The kernel: a bzImage, an unpacked one with a PVH entry, or arm64's Image.
    pub kernel: PathBuf,
    /// The initial ramdisk.
    pub initrd: Option<PathBuf>,
    /// Appended to [`kernel_arguments`].
    pub command_line: String,
    /// Disks, in order.
    pub disks: Vec<Disk>,
    /// A network device.
    pub nic: Option<Nic>,
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
    /// How often a guest's time stamp counter counts under TCG, in kHz. A microvm has to be told.
    pub tsc_khz: Option<u32>,
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
        self.boot(&mut words, accelerator);
        self.devices(&mut words);
        words.0
    }

    fn board(&self, words: &mut Words, emulator: &Emulator, accelerator: Accelerator) {
        let mut board = match (self.hardware.arch, accelerator) {
            // Debian's kernel finds virtio devices through ACPI or PCI alone.
            (Arch::X86_64, _) if self.is_microvm() => String::from("microvm,acpi=on,pcie=on"),
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

    fn is_microvm(&self) -> bool {
        (self.hardware.arch, self.hardware.board) == (Arch::X86_64, Board::Microvm)
    }

    fn boot(&self, words: &mut Words, accelerator: Accelerator) {
        words.flag("-kernel", &self.hardware.kernel);
        if let Some(initrd) = &self.hardware.initrd {
            words.flag("-initrd", initrd);
        }
        let mut line = kernel_arguments(self.hardware.arch);
        // By the ACPI of this board the kernel knows of no timer but the processor's, and calibrates
        // that by the counter. KVM tells how fast the counter is, TCG does not: it would wait for ever.
        if let (true, Accelerator::Tcg, Some(khz)) = (self.is_microvm(), accelerator, self.tsc_khz)
        {
            line.push_str(&format!(" tsc_early_khz={khz}"));
        }
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
        if let Some(nic) = &self.hardware.nic {
            words.flag("-netdev", nic.netdev());
            // Nothing boots from it: its option ROM would only take time.
            words.flag("-device", "virtio-net-pci,netdev=network,romfile=");
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
/// costs a trap. An initramfs is unpacked into a ramfs: files of a tmpfs have seals like a memfd's,
/// and crun, which shall not be written to by a container, takes a read-only file of such a kind for
/// a copy that is not sealed. It then copies and executes itself twice more, which were two thirds
/// of a container's cold start under TCG, and keeps a copy of itself for each container that runs.
/// Nor is a ramfs held to half of the memory.
///
/// What speeds up the boot at a price is left to the caller: `cryptomgr.notests` saves a sixth of
/// the boot's processor time under TCG and the kernel's self-tests of its ciphers, `nokaslr` and
/// `mitigations=off` save security. `tsc=reliable` and `no_timer_check` saved nothing that could
/// be told from noise.
pub fn kernel_arguments(arch: Arch) -> String {
    format!("console={} panic=-1 loglevel=4 rootfstype=ramfs", arch.console())
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::emulator::Version;

    fn emulator(major: u32) -> Emulator {
        Emulator {
            command: vec![
                "/t/ld.so".into(),
                "--library-path".into(),
                "/t/lib".into(),
                "qemu".into(),
            ],
            data: vec!["/t/share".into()],
            environment: Vec::new(),
            version: Version { major, minor: 0, patch: 0 },
            sandbox: major >= 10,
        }
    }

    fn hardware(arch: Arch) -> Hardware {
        Hardware {
            arch,
            board: Board::Standard,
            memory: 256,
            cpus: 2,
            kernel: "/k/vmlinuz".into(),
            initrd: Some("/k/a,b.img".into()),
            command_line: "rouse.x=1".into(),
            disks: Vec::new(),
            nic: None,
            fw_cfg: vec![FwCfg {
                name: "opt/org.rouse/token".into(),
                content: FwCfgContent::File("/r/echo/token".into()),
            }],
        }
    }

    fn machine(hardware: Hardware, vsock: VsockDevice) -> Machine {
        let (console, monitor) = ("/r/echo/console.log".into(), "/r/echo/qmp.sock".into());
        Machine { hardware, cid: 3, vsock, console, monitor, tsc_khz: Some(2_300_000) }
    }

    fn line(machine: &Machine, emulator: &Emulator, accelerator: Accelerator) -> String {
        shell_line(&machine.command(emulator, accelerator)).into_string().unwrap()
    }

    #[test]
    fn x86_64_under_tcg_with_our_vsock_device() {
        let vsock = VsockDevice::VhostUser("/r/echo/device.sock".into());
        let machine = machine(hardware(Arch::X86_64), vsock);
        assert_eq!(
            line(&machine, &emulator(10), Accelerator::Tcg),
            "/t/ld.so --library-path /t/lib qemu -L /t/share \
             -nodefaults -no-user-config -no-reboot -display none \
             -sandbox on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny \
             -object memory-backend-memfd,id=memory,size=256M,share=on \
             -machine q35,memory-backend=memory -accel tcg -cpu max -smp 2 -m 256M \
             -kernel /k/vmlinuz -initrd /k/a,b.img \
             -append 'console=ttyS0 panic=-1 loglevel=4 rootfstype=ramfs rouse.x=1' \
             -fw_cfg name=opt/org.rouse/token,file=/r/echo/token \
             -chardev file,id=console,append=on,path=/r/echo/console.log \
             -serial chardev:console \
             -chardev socket,id=monitor,server=on,wait=off,path=/r/echo/qmp.sock \
             -mon chardev=monitor,mode=control \
             -chardev socket,id=vsock,path=/r/echo/device.sock \
             -device vhost-user-vsock-pci,chardev=vsock"
        );
    }

    #[test]
    fn aarch64_under_kvm_with_the_kernels_vsock() {
        let mut hardware = hardware(Arch::Aarch64);
        hardware.initrd = None;
        hardware.command_line.clear();
        hardware.fw_cfg = vec![FwCfg {
            name: "opt/org.rouse/note".into(),
            content: FwCfgContent::Text("a,b".into()),
        }];
        hardware.disks = vec![
            Disk { path: "/i/root,1.erofs".into(), access: DiskAccess::ReadOnly },
            Disk { path: "/i/data".into(), access: DiskAccess::ReadWrite },
            Disk { path: "/i/try".into(), access: DiskAccess::Snapshot },
        ];
        let machine = machine(hardware, VsockDevice::Vhost);
        assert_eq!(
            line(&machine, &emulator(9), Accelerator::Kvm),
            "/t/ld.so --library-path /t/lib qemu -L /t/share \
             -nodefaults -no-user-config -no-reboot -display none \
             -machine virt,gic-version=host -accel kvm -cpu host -smp 2 -m 256M \
             -kernel /k/vmlinuz \
             -append 'console=ttyAMA0 panic=-1 loglevel=4 rootfstype=ramfs' \
             -fw_cfg name=opt/org.rouse/note,string=a,,b \
             -chardev file,id=console,append=on,path=/r/echo/console.log \
             -serial chardev:console \
             -chardev socket,id=monitor,server=on,wait=off,path=/r/echo/qmp.sock \
             -mon chardev=monitor,mode=control \
             -drive id=disk0,if=none,format=raw,readonly=on,file.locking=off,file=/i/root,,1.erofs \
             -device virtio-blk-pci,drive=disk0 \
             -drive id=disk1,if=none,format=raw,readonly=off,file=/i/data \
             -device virtio-blk-pci,drive=disk1 \
             -drive id=disk2,if=none,format=raw,snapshot=on,file.locking=off,file=/i/try \
             -device virtio-blk-pci,drive=disk2 \
             -device vhost-vsock-pci,guest-cid=3"
        );
    }

    #[test]
    fn a_microvm_is_told_how_fast_its_counter_is_where_nobody_else_does() {
        let words = |arch, accelerator| {
            let mut hardware = hardware(arch);
            hardware.board = Board::Microvm;
            line(&machine(hardware, VsockDevice::Vhost), &emulator(10), accelerator)
        };
        let emulated = words(Arch::X86_64, Accelerator::Tcg);
        assert!(emulated.contains(" -machine microvm,acpi=on,pcie=on -accel tcg "), "{emulated}");
        assert!(
            emulated.contains(" loglevel=4 rootfstype=ramfs tsc_early_khz=2300000 rouse.x=1' "),
            "{emulated}"
        );
        let real = words(Arch::X86_64, Accelerator::Kvm);
        assert!(real.contains(" -machine microvm,acpi=on,pcie=on -accel kvm "), "{real}");
        assert!(!real.contains("tsc"), "{real}");
        let other = words(Arch::Aarch64, Accelerator::Tcg);
        assert!(other.contains(" -machine virt -accel tcg ") && !other.contains("tsc"), "{other}");
    }

    #[test]
    fn an_old_qemu_does_without_cmpxchg16b_under_tcg() {
        let cpu = |arch, version, accelerator| {
            let words =
                machine(hardware(arch), VsockDevice::None).command(&emulator(version), accelerator);
            let flag = words.iter().position(|word| word == "-cpu").unwrap();
            words[flag + 1].clone().into_string().unwrap()
        };
        assert_eq!(cpu(Arch::X86_64, 9, Accelerator::Tcg), "max,-cx16");
        assert_eq!(cpu(Arch::X86_64, 10, Accelerator::Tcg), "max");
        assert_eq!(cpu(Arch::X86_64, 7, Accelerator::Kvm), "host");
        assert_eq!(cpu(Arch::Aarch64, 7, Accelerator::Tcg), "max");
    }

    #[test]
    fn a_shell_splits_the_line_into_the_same_words() {
        let words = ["a b", "", "it's", "$HOME", "x=1,y=2", "*", "\\", "caf\u{e9}"];
        let words = words.map(OsString::from);
        let mut command = OsString::from("printf '%s\\0' ");
        command.push(shell_line(&words));
        let output =
            std::process::Command::new("sh").arg("-c").arg(command).output().unwrap().stdout;
        let split: Vec<&[u8]> = output.strip_suffix(b"\0").unwrap().split(|&b| b == 0).collect();
        assert_eq!(split, words.iter().map(|word| word.as_bytes()).collect::<Vec<_>>());
    }

    #[test]
    fn what_cannot_boot_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let kernel = folder.path().join("vmlinuz");
        std::fs::write(&kernel, b"").unwrap();
        let mut hardware = hardware(Arch::X86_64);
        (hardware.kernel, hardware.initrd) = (kernel, None);
        assert_eq!(hardware.check(), Ok(()));
        hardware.cpus = 65;
        assert_eq!(hardware.check(), Err(HardwareError::Processors(65)));
        hardware.memory = 64;
        assert_eq!(hardware.check(), Err(HardwareError::Memory(64)));
        (hardware.cpus, hardware.memory) = (1, 128);
        hardware.initrd = Some(folder.path().into());
        assert_eq!(hardware.check(), Err(HardwareError::NoFile(folder.path().into())));
    }
}
