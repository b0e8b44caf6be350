//! The same unit files under real `systemd --user` and under the activator: what the services
//! see, and what becomes of them, is compared. See `rouse_tests::oracle`.
//!
//! The differences that are meant are the rows of `activator/DIVERGENCES.md`. One that no row
//! names fails, and so does a row that names none.
//!
//! `cargo test -p rouse-tests --test systemd [-- PART-OF-A-CASE'S-NAME ...]`. With names, only
//! those cases are run, and no row is called stale.

use rouse_tests::oracle::{case, compare, divergence, driver, manager::Manager, ours, stage};
use rouse_tests::{Appliance, build_activator, programs};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Child, Command, ExitCode, Stdio};

const SYSTEMD: &str = "/lib/systemd/systemd";
/// There are at least so many cases: files that are not found are not compared.
const LEAST: usize = 300;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["inside", side, folder] => inside(side, Path::new(folder)),
        ["--list", ..] => {
            println!("systemd: test");
            ExitCode::SUCCESS
        }
        _ => {
            let names = arguments.iter().filter(|it| !it.starts_with('-'));
            compare(&names.map(String::as_str).collect::<Vec<_>>())
        }
    }
}

fn compare(names: &[&str]) -> ExitCode {
    if let Err(why) = possible() {
        rouse_tests::skipped(format_args!("no comparison with systemd: {why}"));
        return ExitCode::SUCCESS;
    }
    let wanted = |name: &str| names.is_empty() || names.iter().any(|part| name.contains(part));
    let mut cases = case::read(&Appliance::repository().join("tests/systemd"));
    cases.retain(|case| wanted(&case.name));
    println!("{} cases", cases.len());
    let ours = ours::compile_all(&cases);
    build_activator();
    // It stays, to look into: what each side saw, and what the managers logged.
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("systemd");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("names"), names.join("\n")).unwrap();
    std::fs::write(folder.join("manifest"), ours.manifest.encode()).unwrap();
    std::fs::write(folder.join("refused"), join(ours.refused.keys())).unwrap();
    // One after the other: vsock ports are the machine's, whatever the network namespace.
    let [systemd, mut rouse] =
        ["systemd", "rouse"].map(|side| finish(side, start(side, &folder), &folder));
    for (case, errors) in &ours.refused {
        rouse.insert(case.clone(), serde_json::json!({ "refused": errors.join("; ") }));
    }
    let text =
        std::fs::read_to_string(Appliance::repository().join("activator/DIVERGENCES.md")).unwrap();
    let table = divergence::parse(&text);
    let differences = compare::differences(&systemd, &rouse);
    let verdict = compare::judge(differences, &table);
    let silent = compare::silent(&cases, &systemd);
    for case in &silent {
        println!("NOTHING SEEN of {case} under systemd");
    }
    let too_few = names.is_empty() && systemd.len() < LEAST;
    if too_few {
        println!("TOO FEW cases: there were {LEAST}");
    }
    for difference in &verdict.unexpected {
        println!("DIFFERENT {difference}");
    }
    let (stale, mended): (Vec<_>, Vec<_>) =
        verdict.stale.into_iter().partition(|row| row.kind == divergence::Kind::Meant);
    let stale = if names.is_empty() { stale } else { vec![] };
    for row in &stale {
        println!("NO LONGER DIFFERENT {}: {} | {}", row.id, row.case, row.field);
    }
    for row in mended.iter().filter(|_| names.is_empty()) {
        println!("MENDED, take it out of the table: {}", row.id);
    }
    println!(
        "{} cases; {} unexpected differences; {} that the {} rows of the table explain",
        systemd.len(),
        verdict.unexpected.len(),
        verdict.explained,
        table.len()
    );
    let good = verdict.unexpected.is_empty() && stale.is_empty() && silent.is_empty();
    match good && !too_few {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}

/// Why there can be no comparison.
fn possible() -> Result<(), String> {
    if !rustix::process::geteuid().is_root() {
        return Err("accounts, mounts and control groups of both sides need root".into());
    }
    if !Path::new(SYSTEMD).exists() {
        return Err(format!("there is no {SYSTEMD}"));
    }
    let output = Command::new(SYSTEMD).arg("--version").output().map_err(|it| it.to_string())?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    match text.split_whitespace().nth(1) {
        Some("252") => Ok(()),
        version => Err(format!("the table of divergences is about systemd 252, not {version:?}")),
    }
}

fn start(side: &str, folder: &Path) -> Child {
    let log = std::fs::File::create(folder.join(format!("{side}.log"))).unwrap();
    let mut command = stage::unshare();
    command.arg(std::env::current_exe().unwrap()).args(["inside", side]).arg(folder);
    command.stdout(Stdio::piped()).stderr(log).stdin(Stdio::null());
    println!("{side} starts");
    command.spawn().unwrap()
}

fn finish(side: &str, child: Child, folder: &Path) -> BTreeMap<String, Value> {
    let output = child.wait_with_output().unwrap();
    let log = || std::fs::read_to_string(folder.join(format!("{side}.log"))).unwrap();
    assert!(output.status.success(), "{side}:\n{}", log());
    std::fs::write(folder.join(format!("{side}.json")), &output.stdout).unwrap();
    serde_json::from_slice(&output.stdout).unwrap()
}

/// One side, as PID 1 of its namespaces. What it saw goes to stdout.
fn inside(side: &str, folder: &Path) -> ExitCode {
    let manager = if side == "systemd" { Manager::Systemd } else { Manager::Activator };
    let text = |name: &str| std::fs::read_to_string(folder.join(name)).unwrap();
    let (names, refused) = (text("names"), text("refused"));
    let mut cases = case::read(&Appliance::repository().join("tests/systemd"));
    cases.retain(|case| names.is_empty() || names.lines().any(|part| case.name.contains(part)));
    if manager == Manager::Activator {
        cases.retain(|case| refused.lines().all(|name| name != case.name));
    }
    let programs = programs();
    let props = stage::Props {
        probe: programs.join("rouse-probe"),
        activator: programs.join("activator"),
        manifest: folder.join("manifest"),
    };
    stage::set(&props, &cases);
    let seen = driver::run(manager, Path::new(SYSTEMD), &cases);
    println!("{}", serde_json::to_string(&seen).unwrap());
    ExitCode::SUCCESS
}

fn join<'a>(names: impl Iterator<Item = &'a String>) -> String {
    names.map(String::as_str).collect::<Vec<_>>().join("\n")
}
