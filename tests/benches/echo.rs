//! The echo appliance in numbers: `cargo bench -p rouse-tests --bench echo`.
//!
//! Prints a Markdown table. Nothing is asserted about time: machines differ, so what can be is a
//! ratio to a floor that the bench makes itself and measures in the same run, in turns. Rounds:
//! `ROUSE_BENCH_ROUNDS`, by default 5; the table gives medians, and the least and the most.

use rouse::cache::Cache;
use rouse::debian::{Architecture, Debian, tools};
use rouse_qemu::accelerator::Memory;
use rouse_qemu::emulator::{Emulator, Found};
use rouse_qemu::machine;
use rouse_tests::{Appliance, Rouse, Vm, count};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

fn main() {
    // cargo test builds benches, too, and runs them with --test where they are asked for.
    if !std::env::args().any(|argument| argument == "--bench") {
        println!("the benchmark runs by `cargo bench -p rouse-tests --bench echo`");
        return;
    }
    let rounds = count("ROUSE_BENCH_ROUNDS", 5) as usize;
    let appliance = Appliance::of_config("echo");
    let rouse = Rouse::new();
    let image = build(&rouse, &appliance);
    let floor = Floor::make(&image);

    let unchanged = sample(rounds, || {
        let begun = Instant::now();
        build(&rouse, &appliance);
        begun.elapsed().as_secs_f64() * 1e3
    });
    let (mut listening, mut least, mut cold, mut warm, mut memory) =
        (vec![], vec![], vec![], vec![], vec![]);
    for round in 0..rounds {
        eprintln!("round {} of {rounds}", round + 1);
        let vm = Vm::start(&appliance, "bench", &[]);
        let status = vm.status();
        listening.push((status.listening_us - status.started_us) as f64 / 1e3);
        memory.push(status.activator_memory as f64 / 1024.0);
        cold.push(hello(&vm));
        warm.push(hello(&vm));
        drop(vm);
        least.push(floor.boot());
    }

    let activator = rouse::guest::activator(std::env::consts::ARCH).unwrap().len() as f64 / 1024.0;
    let empty = std::fs::metadata(&floor.empty).unwrap().len() as f64 / 1024.0;
    println!("\n| measure | median | least to most | beside |");
    println!("|---|---|---|---|");
    let row = |what: &str, unit: &str, values: &[f64], beside: &str| {
        let (low, middle, high) = spread(values);
        println!("| {what} | {middle:.1} {unit} | {low:.1} to {high:.1} | {beside} |");
    };
    row("guest binary", "KiB", &[activator], &format!("an empty static C program: {empty:.0} KiB"));
    row("PID 1, resident, idle", "kB", &memory, "s6-svscan 108 kB, systemd 12,144 kB");
    let userland = image_without_modules(&image) as f64 / 1024.0;
    row("initramfs without kernel modules", "KiB", &[userland], "");
    let beside = format!(
        "a C init that only mounts, binds and prints: {:.1} ms; ratio {:.1}",
        spread(&least).1,
        spread(&listening).1 / spread(&least).1
    );
    row("init to all sockets listening", "ms", &listening, &beside);
    row("connect to first byte, cold (crun)", "ms", &cold, "");
    row("the same, awake", "ms", &warm, "");
    row("a second, unchanged build", "ms", &unchanged, "mkosi incremental 16 s");
    print!("\n{}", rouse_tests::sizes());
}

fn build(rouse: &Rouse, appliance: &Appliance) -> PathBuf {
    let mut command = rouse.command(["build"]);
    let output = command.arg(appliance.path()).stderr(Stdio::inherit()).output().unwrap();
    assert!(output.status.success());
    PathBuf::from(String::from_utf8(output.stdout).unwrap().trim_end())
}

fn sample(rounds: usize, mut one: impl FnMut() -> f64) -> Vec<f64> {
    (0..rounds).map(|_| one()).collect()
}

/// Milliseconds from the client's start to its answer.
fn hello(vm: &Vm) -> f64 {
    let begun = Instant::now();
    assert_eq!(vm.send(3000, b"hello\n").text(), "hello\n");
    begun.elapsed().as_secs_f64() * 1e3
}

fn spread(values: &[f64]) -> (f64, f64, f64) {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    (sorted[0], sorted[sorted.len() / 2], sorted[sorted.len() - 1])
}

/// A C init on the same kernel.
struct Floor {
    folder: tempfile::TempDir,
    kernel: PathBuf,
    empty: PathBuf,
    emulator: Emulator,
}

impl Floor {
    fn make(image: &Path) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/floor.c");
        std::fs::write(at("empty.c"), "int main(void) { return 0; }\n").unwrap();
        for (from, to) in [(source, at("init")), (at("empty.c"), at("empty"))] {
            let mut compiler = Command::new("cc");
            compiler.args(["-static", "-Os", "-s", "-o"]).arg(to).arg(from);
            assert!(compiler.status().unwrap().success());
        }
        let mut tree = rouse::tree::Tree::plain();
        tree.insert_from_disk("/init", &at("init"), &"floor".into()).unwrap();
        tree.make_directory("/dev", 0o755, "floor").unwrap();
        let console = rouse::tree::Kind::CharacterDevice(5, 1);
        tree.insert("/dev/console", rouse::tree::Node::new(console, 0o600, "floor")).unwrap();
        let file = std::fs::File::create(at("initramfs")).unwrap();
        rouse::output::cpio::write(&tree, file, |_| {}).unwrap();
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
        let (kernel, empty) = (image.join("kernel"), at("empty"));
        Self { kernel, empty, emulator, folder }
    }

    /// Milliseconds from its main to its last socket.
    fn boot(&self) -> f64 {
        let mut command = Command::new(&self.emulator.command[0]);
        command.args(&self.emulator.command[1..]);
        command.envs(self.emulator.environment.iter().map(|(name, value)| (name, value)));
        for data in &self.emulator.data {
            command.arg("-L").arg(data);
        }
        let machine: &[&str] = match machine::Arch::host().unwrap() {
            machine::Arch::X86_64 => &["-machine", "q35", "-append", "console=ttyS0 loglevel=4"],
            machine::Arch::Aarch64 => {
                &["-machine", "virt", "-append", "console=ttyAMA0 loglevel=4"]
            }
        };
        let common = "-nodefaults -no-user-config -no-reboot -display none -serial stdio -accel tcg \
             -cpu max -m 256M";
        command
            .args(common.split_whitespace())
            .args(machine)
            .arg("-kernel")
            .arg(&self.kernel)
            .arg("-initrd")
            .arg(self.folder.path().join("initramfs"))
            .stdin(Stdio::null())
            .stderr(Stdio::inherit());
        let output = command.output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let line = text.lines().find_map(|line| line.trim_end().strip_prefix("FLOOR "));
        let line = line.unwrap_or_else(|| panic!("the floor did not come up:\n{text}"));
        let (micros, failed) = line.split_once(' ').unwrap();
        assert_eq!(failed, "0", "the floor binds all its sockets");
        micros.parse::<f64>().unwrap() / 1e3
    }
}

/// Bytes of the initramfs, compressed again without /usr/lib/modules.
fn image_without_modules(image: &Path) -> usize {
    let mut archive = Vec::new();
    let file = std::fs::File::open(image.join(rouse::output::INITRAMFS)).unwrap();
    zstd::Decoder::new(file).unwrap().read_to_end(&mut archive).unwrap();
    let mut kept = Vec::new();
    let mut at = 0;
    // cpio(5), "newc": a header of 110 bytes with hexadecimal numbers, the name, the content.
    while at < archive.len() && archive[at..].starts_with(b"070701") {
        let number = |index: usize| {
            let digits = &archive[at + 6 + 8 * index..at + 14 + 8 * index];
            usize::from_str_radix(std::str::from_utf8(digits).unwrap(), 16).unwrap()
        };
        let (size, name) = (number(6), number(11));
        let end = (at + 110 + name).next_multiple_of(4);
        let next = (end + size).next_multiple_of(4);
        if !archive[at + 110..at + 109 + name].starts_with(b"usr/lib/modules") {
            kept.extend_from_slice(&archive[at..next]);
        }
        at = next;
    }
    zstd::encode_all(&kept[..], rouse::output::LEVEL).unwrap().len()
}
