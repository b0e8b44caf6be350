//! QEMU by hand, with the same devices for whatever boots: where `rouse run` would have an opinion.

use rouse::cache::Cache;
use rouse::debian::{Architecture, Debian, tools};
use rouse_qemu::accelerator::Memory;
use rouse_qemu::emulator::{Emulator, Found};
use rouse_qemu::machine;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// QEMU with a kernel.
pub(crate) struct Qemu {
    emulator: Emulator,
    kernel: PathBuf,
}

impl Qemu {
    /// The machine's own QEMU, else Debian's from the cache.
    pub(crate) fn find(kernel: PathBuf) -> Self {
        let arch = machine::Arch::host().unwrap();
        let cache = Cache::open_at(&rouse_tests::cache()).unwrap();
        let emulator = match Emulator::find(arch, &Memory::new(cache.root())).unwrap() {
            Found::Ready(emulator) => emulator,
            Found::NeedsTree => {
                let host = Architecture::host().unwrap();
                let qemu = tools::qemu(&Debian::new(cache, None), host).unwrap();
                Emulator::from_tree(&qemu.program.tree, arch).unwrap()
            }
        };
        Self { emulator, kernel }
    }

    /// A machine with 768 MiB and a serial console on stdout, ready for further devices. `memory`
    /// is the name of a memory backend that one of them brings.
    pub(crate) fn command(&self, initramfs: &Path, memory: Option<&str>) -> Command {
        let mut command = Command::new(&self.emulator.command[0]);
        command.args(&self.emulator.command[1..]);
        command.envs(self.emulator.environment.iter().map(|(name, value)| (name, value)));
        for data in &self.emulator.data {
            command.arg("-L").arg(data);
        }
        // cmpxchg16b is what only processors of x86_64 have, and QEMU's translator gets wrong.
        let (machine, cpu, console) = match machine::Arch::host().unwrap() {
            machine::Arch::X86_64 => ("q35", "max,cx16=off", "ttyS0"),
            machine::Arch::Aarch64 => ("virt", "max", "ttyAMA0"),
        };
        let machine = match memory {
            None => machine.to_owned(),
            Some(memory) => format!("{machine},memory-backend={memory}"),
        };
        let common = "-nodefaults -no-user-config -no-reboot -display none -serial stdio -accel tcg \
             -m 768M";
        // "Run /init" is of level 6.
        let line = format!("console={console} panic=-1 loglevel=7");
        command
            .args(common.split_whitespace())
            .args(["-machine", &machine, "-cpu", cpu, "-append", &line]);
        command.arg("-kernel").arg(&self.kernel).arg("-initrd").arg(initramfs);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::inherit());
        command
    }
}
