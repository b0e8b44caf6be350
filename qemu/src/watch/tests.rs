//! Boots watched to their end, of a QEMU that is this test program in another role.
//!
//! Each test starts itself as QEMU, with a script in its environment: see [`play`].

use super::*;
use crate::machine::Arch;
use crate::registry::{Claim, Registry, VsockKind, Wanted};
use serde_json::{Value, json};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

const SCRIPT: &str = "ROUSE_TEST_QEMU";
/// The console's line that tells the test's [`Guest`] that the guest listens.
const LISTENING: &str = "listening";

/// What the guest does when it is asked to power off.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Manners {
    Obeys,
    CannotBeAsked,
}

struct Test {
    manners: Manners,
    /// SIGTERM is sent when the VM has come that far.
    stop_at: Option<Event>,
    fallback: Fallback,
}

const PLAIN: Test = Test { manners: Manners::Obeys, stop_at: None, fallback: Fallback::None };

/// What became of a boot.
struct Seen {
    end: Result<End, VmError>,
    events: Vec<Event>,
}

impl Test {
    /// Boots; `name` is the calling test's, and `script` what QEMU does. None in QEMU's role.
    fn run(&self, name: &str, script: &str) -> Option<Seen> {
        if let Ok(script) = std::env::var(SCRIPT) {
            play(&script);
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        let registry = Registry::at(folder.path().into()).unwrap();
        let claim = claim(&registry);
        let place = claim.folder();
        let (signals, raise) = UnixStream::pair().unwrap();
        let console = place.console();
        let words = ["--exact", "--nocapture", "--"].map(OsString::from);
        let mut command = vec![std::env::current_exe().unwrap().into()];
        command.extend(words);
        command.push(format!("watch::tests::{name}").into());
        command.extend([console.clone().into(), place.monitor().into()]);
        let watch = Watch {
            emulator: &Emulator {
                command: Vec::new(),
                data: Vec::new(),
                environment: vec![(SCRIPT.into(), script.into())],
                version: crate::emulator::Version { major: 10, minor: 0, patch: 0 },
                sandbox: false,
            },
            command,
            folder: place.clone(),
            accelerator: Accelerator::Kvm,
            fallback: self.fallback,
            spoke: &|| false,
            guest: &FakeGuest { manners: self.manners },
            vm: claim.entry(),
            stop: Stop { signals: signals.as_fd(), parent: None },
            grace: Duration::from_secs(60),
        };
        let events = Mutex::new(Vec::new());
        let end = watch.run(&mut |event| {
            if Some(&event) == self.stop_at.as_ref() {
                (&raise).write_all(b"!").unwrap();
            }
            events.lock().unwrap().push(event);
        });
        Some(Seen { end, events: events.into_inner().unwrap() })
    }
}

fn claim(registry: &Registry) -> Claim {
    let wanted = Wanted {
        name: "test",
        cid: None,
        arch: Arch::X86_64,
        appliance: Path::new("/"),
        vsock: VsockKind::Device,
        publish: &[],
        listeners: &Value::Null,
        image: &Value::Null,
    };
    registry.claim(&wanted).unwrap()
}

struct FakeGuest {
    manners: Manners,
}

impl Guest for FakeGuest {
    fn is_listening(&self, vm: &Entry) -> bool {
        fs::read_to_string(vm.folder().console()).is_ok_and(|text| text.contains(LISTENING))
    }

    fn power_off(&self, vm: &Entry) -> io::Result<()> {
        match self.manners {
            Manners::Obeys => fs::write(off_file(&vm.folder().console()), b""),
            Manners::CannotBeAsked => Err(io::ErrorKind::TimedOut.into()),
        }
    }
}

/// Made by the fake guest when it is told to power off.
fn off_file(console: &Path) -> PathBuf {
    console.with_extension("off")
}

/// QEMU's role. A script is a list of steps: `console TEXT`, `stderr TEXT`, `exit CODE`, `status
/// NAME` (from now on), `event JSON`, `monitor` (opens it, and waits for the client
/// to enable commands), `serve`
/// (answers until it is told to quit, or the guest powers off).
fn play(script: &str) {
    let mut last: Vec<PathBuf> = std::env::args_os().rev().take(2).map(PathBuf::from).collect();
    let (console, socket) = (last.pop().unwrap(), last.pop().unwrap());
    let mut status = "running";
    let mut client: Option<UnixStream> = None;
    for step in script.split(';') {
        let (verb, rest) = step.split_once(' ').unwrap_or((step, ""));
        match verb {
            "console" => fs::write(&console, format!("{rest}\n")).unwrap(),
            "stderr" => eprintln!("{rest}"),
            "exit" => std::process::exit(rest.parse().unwrap()),
            "status" => status = rest,
            "monitor" => {
                let listener = UnixListener::bind(&socket).unwrap();
                let (mut stream, _) = listener.accept().unwrap();
                stream.write_all(b"{\"QMP\": {}}\n").unwrap();
                let mut enable = [0; b"{\"execute\":\"qmp_capabilities\"}\n".len()];
                stream.read_exact(&mut enable).unwrap();
                stream.write_all(b"{\"return\": {}}\n").unwrap();
                stream.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
                client = Some(stream);
            }
            "event" => writeln!(client.as_ref().unwrap(), "{rest}").unwrap(),
            "serve" => serve(client.take().unwrap(), status, &off_file(&console)),
            _ => panic!("what is {verb}?"),
        }
    }
}

fn serve(mut client: UnixStream, status: &str, off: &Path) -> ! {
    let mut pending = Vec::new();
    loop {
        if off.exists() {
            let event = json!({"event": "SHUTDOWN", "data": {"reason": "guest-shutdown"}});
            writeln!(client, "{event}").unwrap();
            std::process::exit(0);
        }
        let mut byte = [0];
        match client.read(&mut byte) {
            Ok(0) => std::process::exit(0),
            Ok(_) => pending.push(byte[0]),
            Err(_) => continue,
        }
        if byte != *b"\n" {
            continue;
        }
        let command: Value = serde_json::from_slice(&std::mem::take(&mut pending)).unwrap();
        let answer = match command["execute"].as_str().unwrap() {
            "query-status" => json!({"return": {"status": status}}),
            _ => json!({"return": {}}),
        };
        writeln!(client, "{answer}").unwrap();
        if command["execute"] == "quit" {
            let event = json!({"event": "SHUTDOWN", "data": {"reason": "host-qmp-quit"}});
            writeln!(client, "{event}").unwrap();
            std::process::exit(0);
        }
    }
}

#[test]
fn a_guest_that_listens_is_up_and_powers_off_when_it_is_told() {
    let test = Test { stop_at: Some(Event::Ready), ..PLAIN };
    let name = "a_guest_that_listens_is_up_and_powers_off_when_it_is_told";
    let Some(seen) = test.run(name, "console listening;monitor;serve") else { return };
    assert!(matches!(seen.end, Ok(End::Outcome(Outcome::PoweredOff))), "{:?}", seen.end);
    assert_eq!(seen.events, [Event::Ready, Event::Stopping]);
}

#[test]
fn a_guest_that_cannot_be_asked_is_ended() {
    let manners = Manners::CannotBeAsked;
    let test = Test { manners, stop_at: Some(Event::Ready), ..PLAIN };
    let name = "a_guest_that_cannot_be_asked_is_ended";
    let Some(seen) = test.run(name, "console listening;monitor;serve") else { return };
    assert!(matches!(seen.end, Ok(End::Outcome(Outcome::Ended))), "{:?}", seen.end);
}

#[test]
fn an_internal_error_of_kvm_on_trial_is_a_reason_to_boot_again() {
    let name = "an_internal_error_of_kvm_on_trial_is_a_reason_to_boot_again";
    let script = "stderr KVM internal error. Suberror: 1;stderr emulation failure;\
                  stderr RAX=0;status internal-error;monitor;event {\"event\": \"STOP\"};serve";
    let test = Test { fallback: Fallback::Tcg, ..PLAIN };
    let Some(seen) = test.run(name, script) else { return };
    let Ok(End::Unaccelerated { reason, certain }) = seen.end else {
        panic!("{:?}", seen.end);
    };
    assert_eq!((reason.as_str(), certain), ("emulation failure", true));
    assert!(seen.events.is_empty());
}

#[test]
fn an_internal_error_of_kvm_without_alternative_is_an_error() {
    let name = "an_internal_error_of_kvm_without_alternative_is_an_error";
    let script = "stderr emulation failure;status internal-error;monitor;\
                  event {\"event\": \"STOP\"};serve";
    let Some(seen) = PLAIN.run(name, script) else { return };
    let Err(VmError::Accelerator { accelerator: Accelerator::Kvm, reason, .. }) = seen.end else {
        panic!("{:?}", seen.end);
    };
    assert_eq!(reason, "emulation failure");
}

#[test]
fn a_qemu_that_dies_before_the_guest_speaks_is_a_reason_to_boot_again() {
    let name = "a_qemu_that_dies_before_the_guest_speaks_is_a_reason_to_boot_again";
    let script = "stderr error: failed to set MSR 0x10a to 0x0;stderr Assertion failed;exit 134";
    let test = Test { fallback: Fallback::Tcg, ..PLAIN };
    let Some(seen) = test.run(name, script) else { return };
    let Ok(End::Unaccelerated { reason, certain }) = seen.end else {
        panic!("{:?}", seen.end);
    };
    assert_eq!(reason, "QEMU exited 134: error: failed to set MSR 0x10a to 0x0");
    assert!(!certain);
}

#[test]
fn a_qemu_that_dies_after_the_guest_spoke_is_an_error() {
    let name = "a_qemu_that_dies_after_the_guest_spoke_is_an_error";
    let test = Test { fallback: Fallback::Tcg, ..PLAIN };
    let Some(seen) = test.run(name, "console hello;stderr out of memory;exit 1") else { return };
    let Err(VmError::Emulator { status, lines }) = seen.end else { panic!("{:?}", seen.end) };
    assert_eq!(status, "exited 1");
    assert!(lines.contains(&"out of memory".to_owned()), "{lines:?}");
}

#[test]
fn a_busy_cid_of_the_host_is_told_as_such() {
    let name = "a_busy_cid_of_the_host_is_told_as_such";
    let says = "vhost-vsock: unable to set guest cid: Address already in use";
    let Some(seen) = PLAIN.run(name, &format!("stderr {says};exit 1")) else { return };
    let Err(VmError::Registry(RegistryError::CidBusy { cid: 3, .. })) = seen.end else {
        panic!("{:?}", seen.end);
    };
}

#[test]
fn a_panic_shows_the_kernels_last_words() {
    let name = "a_panic_shows_the_kernels_last_words";
    let script = "console Kernel panic - not syncing: Attempted to kill init!;monitor;\
                  event {\"event\": \"SHUTDOWN\", \"data\": {\"reason\": \"guest-reset\"}};exit 0";
    let Some(seen) = PLAIN.run(name, script) else { return };
    let Err(VmError::Guest { reason, lines }) = seen.end else { panic!("{:?}", seen.end) };
    assert_eq!(reason, "its kernel panicked");
    assert_eq!(lines, ["Kernel panic - not syncing: Attempted to kill init!"]);
}

#[test]
fn a_guest_that_switches_off_before_it_is_up_is_an_error() {
    let name = "a_guest_that_switches_off_before_it_is_up_is_an_error";
    let script = "console the manifest is of another version;monitor;\
                  event {\"event\": \"SHUTDOWN\", \"data\": {\"reason\": \"guest-shutdown\"}};\
                  exit 0";
    let Some(seen) = PLAIN.run(name, script) else { return };
    let Err(VmError::Guest { reason, lines }) = seen.end else { panic!("{:?}", seen.end) };
    assert_eq!(reason, "it switched itself off before it was up");
    assert_eq!(lines, ["the manifest is of another version"]);
}

#[test]
fn a_qemu_that_is_not_there_is_told_as_such() {
    let folder = tempfile::tempdir().unwrap();
    let log = tempfile::tempfile().unwrap();
    let missing = folder.path().join("qemu").into_os_string();
    let error = Emulation::start(&[missing], &[], log).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::NotFound);
}
