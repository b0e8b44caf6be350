//! A whole VM, from `rouse run` to its first answer, by machine type and by what it boots from.

use crate::measure::Measure;
use crate::props::{Props, Size};
use rouse_tests::{Appliance, Rouse, Vm};
use std::time::Instant;

/// What `rouse run` does when nothing is said.
const DEFAULT: &str = "as rouse runs it";
/// What QEMU does when nothing is said.
const PLAIN: &str = "the kernel packed, as Debian has it";

/// What is said in `appliance.toml`.
fn kinds() -> Vec<(&'static str, &'static str)> {
    let mut kinds = vec![(DEFAULT, ""), ("root on a disk", "\n[root]\nformat = \"disk\"\n")];
    // Only there is anything to choose.
    if cfg!(target_arch = "x86_64") {
        kinds.push((PLAIN, "\n[vm]\nkaslr = true\n"));
        kinds.push(("microvm", "\n[vm]\nmachine = \"microvm\"\n"));
    }
    kinds
}

/// From the command to the first byte that a container answers over vsock, and the device beneath.
pub(crate) fn run(props: &Props) -> Vec<Measure> {
    let how = "The echo appliance, built before: from the start of `rouse run` to its announcement, \
               which comes when the guest listens, and from there to the answers of `rouse connect`.";
    let mut parts = Measure::new("machine", "rouse run to the first byte over vsock", "ms", how);
    let how = "The same by machine type and by what it boots from: from the start of `rouse run` to \
               the first byte.";
    let mut types = Measure::new("machine-types", "rouse run by machine", "ms", how).floor(PLAIN);
    let mut memory = Measure::new("guest", "In the guest", "kB", "As `rouse status` has it.");
    if props.size == Size::Smoke {
        parts.leave_out("all", "a guest is not part of so short a run");
        return vec![parts];
    }
    let rouse = Rouse::new();
    let appliances: Vec<_> = kinds()
        .into_iter()
        .map(|(kind, table)| {
            let appliance = Appliance::of_config("echo");
            let toml = std::fs::read_to_string(appliance.path().join("appliance.toml")).unwrap();
            let appliance = appliance.with("appliance.toml", &format!("{toml}{table}"));
            rouse.run(["build".as_ref(), appliance.path().as_os_str()]).success();
            (kind, appliance)
        })
        .collect();
    let hello = |vm: &Vm| {
        let begun = Instant::now();
        assert_eq!(vm.send(3000, b"hello\n").text(), "hello\n");
        begun.elapsed().as_secs_f64() * 1e3
    };
    for round in 0..props.rounds.div_ceil(3) {
        eprintln!("machine: round {} of {}", round + 1, props.rounds.div_ceil(3));
        for (kind, appliance) in &appliances {
            let begun = Instant::now();
            let vm = Vm::start(appliance, "bench", &[]);
            let up = begun.elapsed().as_secs_f64() * 1e3;
            let first = hello(&vm);
            types.add(kind, begun.elapsed().as_secs_f64() * 1e3);
            if *kind != DEFAULT {
                continue;
            }
            parts.add("up", up);
            parts.add("first activation of a container", first);
            parts.add("the same, awake", hello(&vm));
            let status = vm.status();
            let own = (status.listening_us - status.started_us) as f64 / 1e3;
            parts.add("of it in init, to all sockets listening", own);
            memory.add("PID 1, resident", status.activator_memory as f64 / 1024.0);
        }
    }
    vec![parts, types, memory]
}
