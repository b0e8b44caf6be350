//! The real binary in namespaces: no VM, milliseconds for each test.
//!
//! Each test is a process of its own in fresh pid, mount, network, cgroup and UTS namespaces
//! (and a user namespace, where it is not root that runs the tests). This file is three programs:
//! without arguments, or with a filter, the runner; as `inside NAME` one test; as `helper ...` a
//! service under test ([`helper`]).
#![allow(missing_docs)]

mod accept;
mod activation;
mod bench;
mod build;
mod clients;
mod helper;
mod idle;
mod init;
mod lifecycle;
mod probe;
mod reload;
mod sandbox;
mod services;
mod sockets;
mod users;

use std::process::{Command, ExitCode};

type Test = (&'static str, fn(&mut bench::Bench));

fn tests() -> Vec<Test> {
    [
        accept::TESTS,
        activation::TESTS,
        clients::TESTS,
        lifecycle::TESTS,
        idle::TESTS,
        sockets::TESTS,
        init::TESTS,
        sandbox::TESTS,
        services::TESTS,
        reload::TESTS,
        users::TESTS,
    ]
    .concat()
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["helper", ref rest @ ..] => helper::main(rest),
        ["probe", ref rest @ ..] => probe::main(rest),
        // An activator that reads states of another version: see `reload`.
        ["verify", version] if reload::is_of_another_state() => {
            let theirs = version.parse::<u32>().unwrap() + 1;
            let (code, why) =
                activator::needs::verify(&[&theirs.to_string()], b"", |_| Ok(())).unwrap_err();
            eprintln!("{why}");
            ExitCode::from(code)
        }
        // One that says it is fit, and then is not.
        ["verify", _] => {
            println!("{}", activator::needs::FIT);
            ExitCode::SUCCESS
        }
        ["--take-over", state, way_back, "forth"] => helper::give_back(state, way_back),
        ["inside", name] => inside(name),
        _ => run(&arguments),
    }
}

fn inside(name: &str) -> ExitCode {
    let Some((_, test)) = tests().into_iter().find(|(it, _)| *it == name) else {
        eprintln!("no such test");
        return ExitCode::FAILURE;
    };
    test(&mut bench::Bench::new());
    ExitCode::SUCCESS
}

/// Takes what `cargo test` may hand on: names to filter by; flags are of no use here, but for
/// `--list`.
fn run(arguments: &[String]) -> ExitCode {
    let filters: Vec<&String> = arguments.iter().filter(|it| !it.starts_with('-')).collect();
    let wanted = |name: &str| filters.is_empty() || filters.iter().any(|it| name.contains(*it));
    let tests: Vec<Test> = tests().into_iter().filter(|(name, _)| wanted(name)).collect();
    if arguments.iter().any(|it| it == "--list") {
        tests.iter().for_each(|(name, _)| println!("{name}: test"));
        return ExitCode::SUCCESS;
    }
    if let Err(why) = namespaces_work() {
        eprintln!("these tests need namespaces, and unshare(1) says:\n{why}");
        return ExitCode::FAILURE;
    }
    println!("\nrunning {} tests in namespaces", tests.len());
    let mut failed = vec![];
    for (name, _) in tests {
        let exe = std::env::current_exe().unwrap();
        let output = unshare().arg(exe).args(["inside", name]).output().unwrap();
        if output.status.success() {
            println!("test {name} ... ok");
            let text = String::from_utf8_lossy(&output.stdout);
            text.lines().filter(|line| line.starts_with("SKIPPED")).for_each(|it| println!("{it}"));
        } else {
            println!("test {name} ... FAILED ({})", output.status);
            println!("{}", String::from_utf8_lossy(&output.stdout));
            println!("{}", String::from_utf8_lossy(&output.stderr));
            failed.push(name);
        }
    }
    println!("\nfailed: {failed:?}\n");
    if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn unshare() -> Command {
    let mut command = Command::new("unshare");
    command.args(["--mount", "--pid", "--fork", "--net", "--uts", "--ipc"]);
    command.args(["--mount-proc", "--kill-child", "--propagation", "private"]);
    if !rustix::process::geteuid().is_root() {
        command.arg("--map-root-user");
    }
    command
}

fn namespaces_work() -> Result<(), String> {
    match unshare().arg("true").output() {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
        Err(error) => Err(format!("it does not run: {error}")),
    }
}
