//! `rouse run`, and the process of a VM that it starts.

use super::disk;
use super::guest::{self, print};
use super::network;
use crate::appliance::Appliance;
use crate::build;
use crate::cache::Cache;
use crate::command_line::{Arch, Run};
use crate::config::{self, OnTcp};
use crate::exit::{BUG, FAILED, Failure, TRY_AGAIN, UNAVAILABLE, USAGE};
use crate::output::description::Description;
use crate::vmlinux::{self, VmlinuxError};
use crate::{output, terminal, units};
use activator::address::kind_name;
use activator::client;
use activator::control::{self, Request};
use activator::manifest::{Address, Unit, UnitKind};
use rouse_qemu::accelerator::Memory;
use rouse_qemu::connect::{Patience, Route};
use rouse_qemu::emulator::{self, Emulator, EmulatorError, Found};
use rouse_qemu::machine::{self, Hardware};
use rouse_qemu::process::{self, Process};
use rouse_qemu::publish::{HostAddress, Publish};
use rouse_qemu::registry::{Entry, Registry, RegistryError, VsockKind};
use rouse_qemu::vm::{self, Blame, Event, Guest, Lifetime, Outcome, Spec};
use serde_json::json;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long a guest may take to stop its services before its VM is ended.
const GRACE: Duration = Duration::from_secs(100);

/// VMADDR_CID_LOCAL of vsock(7): reached from the same machine only.
const CID_LOCAL: u32 = 1;

/// `rouse run`
pub fn run(arguments: &Run) -> Result<(), Failure> {
    let appliance = Appliance::open(&arguments.appliance)?;
    let arch = Arch::or_host(arguments.arch)?;
    let registry = Registry::open()
        .map_err(|error| Failure::new(FAILED, "open the folder of running VMs").because(error))?;
    let name = arguments.name.clone().unwrap_or_else(|| appliance.name.clone());
    // What is wrong with a name is said before minutes of building.
    if let Err(error @ RegistryError::Name(_)) = registry.find(&name) {
        return Err(Failure::new(USAGE, "run the appliance")
            .because(error)
            .hint("--name gives the VM another name than the appliance's"));
    }
    if !arguments.print_command && registry.find(&name).is_ok() {
        return Err(Failure::new(TRY_AGAIN, format!("run {name}: a VM of that name is running"))
            .hint(format!("`rouse poweroff {name}` ends it; --name gives another name")));
    }
    let built = build::build(&appliance, arch, None)?;
    if appliance.config.podman_api_on_tcp == OnTcp::Refuse
        && let Some(published) = on_tcp(&arguments.publish, &built.compiled.units)
    {
        let what = format!("publish Podman's API on TCP, `{published}`: whoever connects");
        return Err(Failure::new(USAGE, what + " can do all that its user can").hint(
            "publish it at a path, or write `podman-api-on-tcp = \"allow\"` in appliance.toml",
        ));
    }
    if !arguments.print_command {
        disk::prepare(&appliance, &name)?;
    }
    let spec = spec(arguments, &appliance, arch, &registry, name, &built)?;
    if arguments.print_command {
        let command = vm::command(&spec, &registry).map_err(|error| Failure::of(FAILED, &error))?;
        return print(&format!("{}\n", machine::shell_line(&command).to_string_lossy()));
    }
    let program = std::env::current_exe()
        .map_err(|error| Failure::new(BUG, "find this program").because(error))?;
    let process = process::start(&program, &["vmm".into()], &registry, &spec)
        .map_err(|error| Failure::of(FAILED, &error))?;
    watch(process, &spec, &built.compiled.units)
}

fn spec(
    arguments: &Run,
    appliance: &Appliance,
    arch: Arch,
    registry: &Registry,
    name: String,
    built: &build::Built,
) -> Result<Spec, Failure> {
    let cache = build::cache()?;
    let machine = match arch {
        Arch::X86_64 => machine::Arch::X86_64,
        Arch::Aarch64 => machine::Arch::Aarch64,
    };
    let failed = |error: EmulatorError| {
        let failure = Failure::of(UNAVAILABLE, &error);
        match std::env::var_os(emulator::VARIABLE) {
            Some(_) => failure.hint(format!("{} names the QEMU to use", emulator::VARIABLE)),
            None => failure,
        }
    };
    let emulator = match Emulator::find(machine, &Memory::new(cache.root())).map_err(failed)? {
        Found::Ready(emulator) => emulator,
        Found::NeedsTree => {
            let qemu = crate::debian::tools::qemu(&build::debian(appliance, &cache), arch.debian())
                .map_err(|error| build::of_debian("fetch QEMU", error))?;
            Emulator::from_tree(&qemu.program.tree, machine).map_err(failed)?
        }
    };
    let mut publish = arguments.publish.clone();
    let folder = registry.root().join(&name);
    for port in vsock_ports(&built.compiled.units) {
        let host = HostAddress::Unix(folder.join(format!("{port}.sock")));
        publish.push(Publish { host, port });
    }
    let listeners = built.compiled.units.iter().flat_map(listeners);
    let listeners: Vec<_> = listeners.map(|(unit, text, _)| json!([unit, text])).collect();
    Ok(Spec {
        cid: arguments.cid,
        appliance: std::path::absolute(&appliance.folder).unwrap_or(appliance.folder.clone()),
        hardware: Hardware {
            arch: machine,
            board: match appliance.config.vm.machine {
                config::Machine::Standard => machine::Board::Standard,
                config::Machine::Microvm => machine::Board::Microvm,
            },
            memory: appliance.config.vm.memory,
            cpus: appliance.config.vm.cpus,
            kernel: kernel(appliance, arch, built, &cache)?,
            initrd: Some(built.folder.join(output::INITRAMFS)),
            command_line: String::new(),
            disks: disk::of(appliance, &name, built)?,
            nic: appliance.config.network.as_ref().map(network::nic),
            fw_cfg: Vec::new(),
        },
        token_name: control::TOKEN_FW_CFG.into(),
        emulator,
        cache: cache.root().to_owned(),
        publish,
        listeners: listeners.into(),
        image: json!(Description::read(&built.folder).map(|image| image.own)),
        lifetime: if arguments.detach { Lifetime::Detached } else { Lifetime::Attached },
        grace: GRACE,
        name,
    })
}

/// The kernel in the form that boots fastest, unless the appliance wants another.
fn kernel(
    appliance: &Appliance,
    arch: Arch,
    built: &build::Built,
    cache: &Cache,
) -> Result<PathBuf, Failure> {
    let packed = built.folder.join(output::KERNEL);
    // QEMU loads the initramfs of an unpacked kernel to the end of memory, and keeps clear of the
    // firmware's ACPI tables there on other boards than this one.
    let is_microvm = appliance.config.vm.machine == config::Machine::Microvm;
    if appliance.config.vm.kaslr || is_microvm || arch != Arch::X86_64 {
        return Ok(packed);
    }
    let image = Description::read(&built.folder);
    let sha256 = image.map(|image| image.kernel.sha256).unwrap_or_default();
    match vmlinux::of(cache, &packed, &sha256) {
        // A kernel that cannot be started so boots as it always did.
        Err(error @ VmlinuxError::Malformed { .. }) => {
            terminal::note(format!("the kernel unpacks itself in the guest: {error}"));
            Ok(packed)
        }
        other => other.map_err(|error| Failure::of(FAILED, &error)),
    }
}

/// Unit, the listener as people write it, its address.
fn listeners(unit: &Unit) -> Vec<(String, String, Address)> {
    let UnitKind::Socket(socket) = &unit.kind else { return Vec::new() };
    let describe = |listener: &activator::manifest::Listener| {
        let text = format!("{} {}", kind_name(listener.kind), listener.address);
        (unit.name.clone(), text, listener.address.clone())
    };
    socket.listeners.iter().map(describe).collect()
}

/// The vsock ports that units of the boot listen on.
fn vsock_ports(units: &[Unit]) -> Vec<u32> {
    let mut ports: Vec<u32> = units
        .iter()
        .flat_map(listeners)
        .filter_map(|(_, _, address)| match address {
            Address::Vsock(cid, port) if cid != CID_LOCAL => Some(port),
            _ => None,
        })
        .collect();
    ports.sort_unstable();
    ports.dedup();
    ports
}

/// What is known when a VM has its place.
struct Place {
    cid: u32,
    vsock: VsockKind,
    publish: Vec<Publish>,
    accelerator: String,
}

/// Follows a VM until it ends; a detached one until it listens.
fn watch(mut process: Process, spec: &Spec, units: &[Unit]) -> Result<(), Failure> {
    end_with_signals(&process)?;
    let mut place =
        Place { cid: 0, vsock: VsockKind::Device, publish: Vec::new(), accelerator: String::new() };
    let mut task = None;
    let mut was_up = false;
    loop {
        let event = process
            .next_event()
            .map_err(|error| Failure::new(BUG, "follow the VM's process").because(error))?;
        match event {
            Some(Event::Claimed { cid, vsock, publish, .. }) => {
                place = Place { cid, vsock, publish, ..place };
            }
            Some(Event::Booting { accelerator }) => {
                place.accelerator = accelerator.to_string();
                // One at a time is drawn, and the last to end takes it off the screen.
                drop(task.take());
                let label = format!("booting {} under {accelerator}", spec.name);
                task = Some(terminal::Task::begin(label, terminal::Measure::None, 0));
            }
            Some(Event::Notice(text)) => terminal::note(text),
            Some(Event::Ready) => {
                drop(task.take());
                was_up = true;
                print(&announcement(spec, &place, units))?;
                if spec.lifetime == Lifetime::Detached {
                    return Ok(());
                }
                follow_logs(&spec.name);
            }
            Some(Event::Stopping) => terminal::note(format!("{} is stopping", spec.name)),
            Some(Event::Ended(outcome)) => {
                // It says that before it has tidied up.
                let _ = process.wait();
                drop(task.take());
                return if was_up { ended(spec, outcome) } else { Err(given_up(spec)) };
            }
            Some(Event::Failed(failure)) => {
                drop(task.take());
                let _ = process.wait();
                for line in &failure.lines {
                    terminal::line(&format!("  {}", client::printable(line)));
                }
                let code = match failure.blame {
                    Blame::Busy => TRY_AGAIN,
                    Blame::Request | Blame::Guest => FAILED,
                    Blame::Host => UNAVAILABLE,
                };
                let failed = Failure::new(code, failure.message);
                return Err(match (failure.blame, spec.cid) {
                    (Blame::Busy, Some(_)) => failed.hint("without --cid, a free one is taken"),
                    _ => failed,
                });
            }
            None => return Err(lost(process, spec)),
        }
    }
}

/// Its process is gone without a word.
fn lost(process: Process, spec: &Spec) -> Failure {
    let what = format!("follow {}", spec.name);
    match process.wait().map(|status| (status, status.signal())) {
        Ok((_, Some(signal))) => {
            Failure::new(FAILED, format!("{what}: its process was killed by signal {signal}"))
        }
        Ok((status, None)) => Failure::new(BUG, format!("{what}: its process ended, {status}")),
        Err(error) => Failure::new(BUG, format!("{what}: its process is gone")).because(error),
    }
}

/// It was told to end while it booted.
fn given_up(spec: &Spec) -> Failure {
    Failure::new(FAILED, format!("boot {}: it was ended before it was up", spec.name))
}

fn ended(spec: &Spec, outcome: Outcome) -> Result<(), Failure> {
    match outcome {
        Outcome::PoweredOff => Ok(()),
        Outcome::Ended => {
            terminal::warn(format!("{} did not power off in time and was ended", spec.name));
            Ok(())
        }
        Outcome::Reset => {
            Err(Failure::new(FAILED, format!("keep {} up: it reset itself", spec.name)))
        }
    }
}

/// Ctrl-C powers the guest off; a second one ends it at once.
fn end_with_signals(process: &Process) -> Result<(), Failure> {
    let mut signals = signal_hook::iterator::Signals::new([SIGINT, SIGTERM, SIGHUP])
        .map_err(|error| Failure::new(BUG, "prepare for signals").because(error))?;
    let terminator = process.terminator();
    std::thread::spawn(move || {
        for _ in signals.forever() {
            // It may just have ended.
            let _ = terminator.terminate();
        }
    });
    Ok(())
}

/// How to reach each listener from the host. Ends with an empty line.
fn announcement(spec: &Spec, place: &Place, units: &[Unit]) -> String {
    let program = called_as();
    let mut text = format!(
        "{} is up: CID {}, {}, {}\n",
        spec.name, place.cid, spec.hardware.arch, place.accelerator
    );
    let all = units.iter().flat_map(|unit| {
        listeners(unit).into_iter().map(move |(name, text, address)| (unit, name, text, address))
    });
    for (unit, name, listener, address) in all {
        text += &format!("{name}: {listener}\n");
        match address {
            Address::Vsock(cid, port) if cid != CID_LOCAL => {
                if place.vsock == VsockKind::Vhost {
                    text += &format!("    socat -t 30 - VSOCK-CONNECT:{}:{port}\n", place.cid);
                }
                for published in place.publish.iter().filter(|published| published.port == port) {
                    text += &match &published.host {
                        HostAddress::Unix(path) => {
                            format!("    socat -t 30 - UNIX-CONNECT:{}\n", path.display())
                        }
                        HostAddress::Tcp(address) => format!("    socat -t 30 - TCP:{address}\n"),
                    };
                }
                text += &format!("    {program} connect {} {port}\n", spec.name);
                if is_podman(unit, units) {
                    text += &docker_host(place, port);
                }
            }
            Address::Vsock(..) => text += "    inside the guest only: CID 1 is the guest itself\n",
            address => {
                let nic = spec.hardware.nic.as_ref();
                text += &network::reached(nic, &listener, &address);
            }
        }
    }
    text + "\n"
}

/// What gives Podman's API to whoever reaches a TCP port of the host.
fn on_tcp<'p>(publish: &'p [Publish], units: &[Unit]) -> Option<&'p Publish> {
    let apis: Vec<Unit> = units.iter().filter(|unit| is_podman(unit, units)).cloned().collect();
    let ports = vsock_ports(&apis);
    let mut tcp = publish.iter().filter(|it| matches!(it.host, HostAddress::Tcp(_)));
    tcp.find(|published| ports.contains(&published.port))
}

/// Whether a client of a socket unit talks to Podman's API.
fn is_podman(unit: &Unit, all: &[Unit]) -> bool {
    matches!(&unit.kind, UnitKind::Socket(socket) if units::is_behind_podman_api(socket, all))
}

/// What makes docker, its kin and `podman --remote` talk to the guest.
fn docker_host(place: &Place, port: u32) -> String {
    let published = place.publish.iter().find(|published| published.port == port);
    published.map_or_else(String::new, |published| match &published.host {
        HostAddress::Unix(path) => format!("    export DOCKER_HOST=unix://{}\n", path.display()),
        HostAddress::Tcp(address) => format!("    export DOCKER_HOST=tcp://{address}\n"),
    })
}

/// How this program was called, so that the same words call it again: `target/release/rouse` for
/// who came by `cargo run`.
fn called_as() -> String {
    let word = std::env::args_os().next().unwrap_or_else(|| "rouse".into());
    machine::shell_line(&[word]).to_string_lossy().into_owned()
}

/// Shows on stderr what the guest writes, as long as it runs.
fn follow_logs(name: &str) {
    let name = name.to_owned();
    std::thread::spawn(move || {
        let entry = guest::find(&name).ok()?;
        let (stream, token) = guest::control(&entry, Patience::ONCE).ok()?;
        client::logs(stream, &token, None, true, |line| {
            terminal::line(&format!("{}: {}", line.unit, client::printable(&line.text)));
            Ok(())
        })
        .ok()
    });
}

/// `rouse vmm`: the process of one VM.
pub fn vmm(spec: &Path) -> Result<(), Failure> {
    match process::serve(spec, &Activator) {
        Ok(_) => Ok(()),
        // The parent was told.
        Err(_) => Err(Failure::silent(FAILED)),
    }
}

/// The guest, as its VM's process sees it.
struct Activator;

impl Activator {
    fn ask<T>(
        vm: &Entry,
        question: impl FnOnce(rouse_qemu::connect::Stream, &str) -> Result<T, client::Error>,
    ) -> io::Result<T> {
        let token = vm.token().map_err(io::Error::other)?;
        let patience = Patience { attempt: Duration::from_secs(2), total: Duration::ZERO };
        let stream = Route::of(vm).connect(control::PORT, patience).map_err(io::Error::other)?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        question(stream, &token).map_err(io::Error::other)
    }
}

impl Guest for Activator {
    fn is_listening(&self, vm: &Entry) -> bool {
        let status = Self::ask(vm, client::status);
        status.is_ok_and(|status| status.listening_us > 0)
    }

    fn power_off(&self, vm: &Entry) -> io::Result<()> {
        Self::ask(vm, |stream, token| client::order(stream, token, &Request::Poweroff))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use activator::manifest::{Command, ListenKind, Listener, Service, Socket, UnitId};

    fn unit(name: &str, kind: UnitKind) -> Unit {
        Unit { name: name.into(), kind, ..Unit::default() }
    }

    #[test]
    fn podmans_api_is_found_behind_a_published_port() {
        let arguments = ["activator", "relay", "/run/podman/podman.sock"].map(String::from);
        let command = Command {
            program: "/usr/bin/activator".into(),
            arguments: arguments.to_vec(),
            ..Command::default()
        };
        let relay = Service { start: vec![command], ..Service::default() };
        let socket = |service, port| {
            let address = Address::Vsock(u32::MAX, port);
            let listeners = vec![Listener { address, kind: ListenKind::Stream }];
            UnitKind::Socket(Socket { listeners, service: UnitId(service), ..Socket::default() })
        };
        let units = [
            unit("api.service", UnitKind::Service(relay)),
            unit("other.service", UnitKind::Service(Service::default())),
            unit("api.socket", socket(0, 2375)),
            unit("other.socket", socket(1, 80)),
        ];
        let unix = || HostAddress::Unix("/run/x".into());
        let tcp = || HostAddress::Tcp(([127, 0, 0, 1], 2375).into());
        let found = |host, port| on_tcp(&[Publish { host, port }], &units).is_some();
        assert!(found(tcp(), 2375));
        assert!(!found(tcp(), 80));
        assert!(!found(unix(), 2375));
    }
}
