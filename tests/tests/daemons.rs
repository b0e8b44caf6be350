//! Real daemons, activated by the units of their Debian packages, each asked by its own client.
//! See `rouse_tests::daemons`; `tests/daemons/README.md` says what is asked.
//!
//! `cargo test -p rouse-tests --test daemons [-- PART-OF-A-DAEMON'S-NAME ...]`.

use rouse_tests::daemons::daemon::{self, Daemon, Group};
use rouse_tests::daemons::{room, tree};
use rouse_tests::oracle::stage;
use rouse_tests::{Appliance, build_activator, programs};
use std::path::Path;
use std::process::{ExitCode, Stdio};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["inside", name, tree, folder] => inside(name, Path::new(tree), Path::new(folder)),
        ["--list", ..] => {
            println!("daemons: test");
            ExitCode::SUCCESS
        }
        _ => {
            let names = arguments.iter().filter(|it| !it.starts_with('-'));
            all(&names.map(String::as_str).collect::<Vec<_>>())
        }
    }
}

fn all(names: &[&str]) -> ExitCode {
    if !rustix::process::geteuid().is_root() {
        rouse_tests::skipped("no daemons: namespaces with accounts and mounts need root");
        return ExitCode::SUCCESS;
    }
    build_activator();
    let (mut good, mut bad) = (0, vec![]);
    for mut group in daemon::read(&Appliance::repository().join("tests/daemons")) {
        group.daemons.retain(|daemon| {
            names.is_empty() || names.iter().any(|part| daemon.name.contains(part))
        });
        if group.daemons.is_empty() {
            continue;
        }
        for (daemon, result) in of_group(&group) {
            match result {
                Ok(()) => good += 1,
                Err(why) => {
                    println!("FAILED {daemon}: {why}");
                    bad.push(daemon);
                }
            }
        }
    }
    println!("{good} daemons answered; {} did not: {}", bad.len(), bad.join(" "));
    match bad.is_empty() && good > 0 {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}

fn of_group(group: &Group) -> Vec<(String, Result<(), String>)> {
    let tree = tree::unpacked(group).unwrap();
    let try_it = |daemon: &Daemon| (daemon.name.clone(), of_daemon(daemon, &tree));
    group.daemons.iter().map(try_it).collect()
}

fn of_daemon(daemon: &Daemon, tree: &Path) -> Result<(), String> {
    let manifest = tree::compiled(daemon, tree)?;
    // It stays, to look into: what the activator and the daemon logged.
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("daemons").join(&daemon.name);
    std::fs::create_dir_all(folder.join("scratch")).unwrap();
    std::fs::write(folder.join("manifest"), manifest.encode()).unwrap();
    let log = folder.join("log");
    let mut command = stage::unshare();
    command.arg(std::env::current_exe().unwrap()).args(["inside", &daemon.name]);
    command.arg(tree).arg(&folder);
    command.stderr(std::fs::File::create(&log).unwrap()).stdin(Stdio::null());
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    match output.status.success() {
        true => {
            println!("{} answered: {}", daemon.name, text.escape_debug());
            Ok(())
        }
        false => Err(format!("{text}\nlog:\n{}", std::fs::read_to_string(&log).unwrap())),
    }
}

/// One daemon, as PID 1 of its namespaces. What was seen goes to stdout.
fn inside(name: &str, tree: &Path, folder: &Path) -> ExitCode {
    let groups = daemon::read(&Appliance::repository().join("tests/daemons"));
    let daemon = groups.iter().flat_map(|group| &group.daemons).find(|it| it.name == name).unwrap();
    let props = room::Props {
        tree,
        scratch: &folder.join("scratch"),
        activator: &programs().join("activator"),
        manifest: &folder.join("manifest"),
    };
    let (text, code) = match room::run(&props, daemon) {
        Ok(text) => (text, ExitCode::SUCCESS),
        Err(why) => (why, ExitCode::FAILURE),
    };
    print!("{text}");
    code
}
