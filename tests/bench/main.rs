//! Every promise of rouse beside its peers, in one run: `cargo bench -p rouse-tests`.
//!
//! `-- --quick` takes a minute; `-- --rounds N` sets how often everybody has a turn (9), and names
//! of measures (`-- accept relay`) choose some. Debian's packages of the peers are fetched into
//! the tests' cache and run from there. What comes out goes to `bench/results`, or to the folder
//! that `--output` names.
//!
//! Nothing is asserted about time. `cargo test` runs the same with the smallest counts and without
//! peers from packages, to see that it works.

mod client;
mod measure;
mod measures;
mod peer;
mod plot;
mod props;
mod qemu;
mod report;
mod room;
mod statistics;
mod workshop;

use measure::Measure;
use props::{Props, Size};
use report::Report;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

/// A part of the run.
struct Part {
    name: &'static str,
    place: Place,
    run: fn(&Props) -> Vec<Measure>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// In namespaces of its own, as root.
    Namespaces,
    /// As whoever runs it.
    Anywhere,
}

const PARTS: [Part; 16] = [
    Part { name: "accept-no", place: Place::Namespaces, run: measures::activation::accept_no },
    Part { name: "accept-tcp", place: Place::Namespaces, run: measures::activation::accept_tcp },
    Part { name: "accept-unix", place: Place::Namespaces, run: measures::activation::accept_unix },
    Part { name: "relay", place: Place::Namespaces, run: measures::relay::run },
    Part { name: "vsock-relay", place: Place::Anywhere, run: measures::relay_vsock::run },
    Part { name: "memory", place: Place::Namespaces, run: measures::memory::idle },
    Part { name: "growth", place: Place::Namespaces, run: measures::memory::growth },
    Part { name: "many", place: Place::Namespaces, run: measures::memory::many },
    Part { name: "size", place: Place::Anywhere, run: measures::memory::sizes },
    Part { name: "boot", place: Place::Anywhere, run: measures::boot::run },
    Part { name: "machine", place: Place::Anywhere, run: measures::machine::run },
    Part { name: "container", place: Place::Anywhere, run: measures::container::run },
    Part { name: "network", place: Place::Anywhere, run: measures::network::run },
    Part { name: "vsock", place: Place::Anywhere, run: measures::vsock::run },
    Part { name: "image", place: Place::Anywhere, run: measures::image::run },
    Part { name: "build", place: Place::Anywhere, run: measures::build::run },
];

const ROUNDS: usize = 9;

fn main() -> ExitCode {
    let words: Vec<OsString> = std::env::args_os().skip(1).collect();
    let failed = match words.first().and_then(|word| word.to_str()) {
        Some("enter") => room::enter(&words[1..]),
        Some("inhabit") => room::inhabit(&words[1..]),
        Some("workshop") => workshop::enter(&words[1..]),
        Some("inside") => return inside(&words[1..]),
        Some("--list") => {
            println!("bench: test");
            return ExitCode::SUCCESS;
        }
        _ => return all(&words),
    };
    eprintln!("{failed}");
    ExitCode::FAILURE
}

/// The whole run.
fn all(words: &[OsString]) -> ExitCode {
    let texts: Vec<&str> = words.iter().filter_map(|word| word.to_str()).collect();
    let has = |name: &str| texts.contains(&name);
    let after = |name: &str| {
        let at = texts.iter().position(|text| *text == name)?;
        texts.get(at + 1).copied()
    };
    let (size, rounds) = match (has("--bench"), has("--quick")) {
        (false, _) => (Size::Smoke, 1),
        (true, true) => (Size::Quick, 3),
        (true, false) => (Size::Full, ROUNDS),
    };
    let rounds = after("--rounds").map_or(rounds, |text| text.parse().expect("--rounds N"));
    let output = after("--output").map_or_else(|| props::source("results"), PathBuf::from);
    let skipped = ["--rounds", "--output"].map(after);
    let names: Vec<&str> = texts
        .iter()
        .filter(|text| !text.starts_with('-') && !skipped.contains(&Some(**text)))
        .copied()
        .collect();
    if let Err(why) = rouse::guest::programs(std::env::consts::ARCH) {
        rouse_tests::skipped(format_args!("nothing to measure: {why}"));
        return if size == Size::Smoke { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    }
    // Paths of Unix sockets are short: not below target/.
    let folder = tempfile::Builder::new().prefix("bench").tempdir_in("/tmp").unwrap();
    let props = Props::make(folder.path(), size, rounds);
    std::fs::write(folder.path().join("props"), serde_json::to_vec(&props).unwrap()).unwrap();
    let mut measures = vec![];
    for part in PARTS
        .iter()
        .filter(|part| names.is_empty() || names.iter().any(|name| part.name.contains(name)))
    {
        match part.place {
            Place::Namespaces => measures.extend(outside(part, folder.path())),
            Place::Anywhere => measures.extend((part.run)(&props)),
        }
    }
    let report = Report { command: command(&texts), machine: machine(), measures };
    println!("{}", report.markdown());
    match size {
        Size::Smoke => smoke(&report, folder.path()),
        _ => report.write(&output).map_or(ExitCode::FAILURE, |()| ExitCode::SUCCESS),
    }
}

/// Runs a part in fresh namespaces; nothing of it outlives them.
fn outside(part: &Part, folder: &Path) -> Vec<Measure> {
    let skipped = |why: &str| {
        let mut measure = Measure::new(part.name, part.name, "", "");
        measure.leave_out("all of it", why);
        vec![measure]
    };
    if !rustix::process::geteuid().is_root() {
        rouse_tests::skipped(format_args!(
            "{}: namespaces with mounts and control groups need root",
            part.name
        ));
        return skipped("namespaces with mounts and control groups need root");
    }
    let mut command = Command::new("unshare");
    command.args(["--mount", "--pid", "--fork", "--net", "--ipc", "--mount-proc"]);
    command.args(["--kill-child", "--propagation", "private"]);
    command.arg(std::env::current_exe().unwrap()).arg("inside").arg(part.name).arg(folder);
    command.stdin(Stdio::null());
    let done = command.status().is_ok_and(|status| status.success());
    let bytes = std::fs::read(folder.join(part.name)).unwrap_or_default();
    match serde_json::from_slice(&bytes) {
        Ok(measures) if done => measures,
        _ => skipped("it failed, see the lines above"),
    }
}

/// `inside PART FOLDER`
fn inside(words: &[OsString]) -> ExitCode {
    let folder = Path::new(&words[1]);
    let props: Props =
        serde_json::from_slice(&std::fs::read(folder.join("props")).unwrap()).unwrap();
    let part = PARTS.iter().find(|part| words[0] == part.name).unwrap();
    room::prepare(&folder.join("bin"));
    let measures = (part.run)(&props);
    std::fs::write(folder.join(part.name), serde_json::to_vec(&measures).unwrap()).unwrap();
    ExitCode::SUCCESS
}

/// Looks at what came out, without a word about time.
fn smoke(report: &Report, folder: &Path) -> ExitCode {
    let output = folder.join("results");
    report.write(&output).unwrap();
    let bytes = std::fs::read(output.join(report::DATA)).unwrap();
    let again: Report = serde_json::from_slice(&bytes).unwrap();
    assert_eq!(again.measures.len(), report.measures.len());
    for measure in &report.measures {
        // Who needs peers, or a guest, says who is absent.
        if rustix::process::geteuid().is_root() && measure.absent.is_empty() {
            assert!(!measure.rows.is_empty(), "{} has no rows", measure.id);
            let plot = std::fs::read_to_string(output.join(format!("{}.svg", measure.id))).unwrap();
            assert!(plot.ends_with("</svg>\n"), "{}", measure.id);
        }
        for row in &measure.rows {
            assert!(row.values.iter().all(|value| value.is_finite()), "{}: {row:?}", measure.id);
        }
    }
    ExitCode::SUCCESS
}

fn command(words: &[&str]) -> String {
    let own: Vec<&str> = words.iter().filter(|word| **word != "--bench").copied().collect();
    match own.is_empty() {
        true => "cargo bench -p rouse-tests --bench peers".into(),
        false => format!("cargo bench -p rouse-tests --bench peers -- {}", own.join(" ")),
    }
}

fn machine() -> String {
    let kernel = rustix::system::uname();
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let count = std::thread::available_parallelism().map_or(0, usize::from);
    format!(
        "{count} x {}, Linux {}",
        model.map_or("unknown", |(_, name)| name),
        kernel.release().to_string_lossy()
    )
}
