//! A VM's process: started, watched, found by others, ended.
//!
//! This test program plays three roles, told apart by its last argument and its environment: the
//! test, the VM's process, and QEMU.

use rouse_qemu::emulator::{Emulator, Version};
use rouse_qemu::machine::{Arch, Board, Hardware};
use rouse_qemu::process;
use rouse_qemu::publish::{HostAddress, Publish};
use rouse_qemu::registry::{Entry, Registry, Stage};
use rouse_qemu::vm::{Blame, Event, Guest, Lifetime, Outcome, Spec};
use serde_json::{Value, json};
use std::ffi::OsString;
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Set for QEMU.
const QEMU: &str = "ROUSE_TEST_QEMU";
const LISTENING: &str = "listening";

struct FakeGuest;

impl Guest for FakeGuest {
    fn is_listening(&self, vm: &Entry) -> bool {
        std::fs::read_to_string(vm.folder().console()).is_ok_and(|text| text == LISTENING)
    }

    fn power_off(&self, vm: &Entry) -> io::Result<()> {
        std::fs::write(vm.folder().path().join("off"), b"")
    }
}

/// Plays the role of the VM's process or of QEMU, if this is one of them.
fn played() -> bool {
    let words: Vec<String> = std::env::args().collect();
    if std::env::var_os(QEMU).is_some() {
        emulate(&words);
        return true;
    }
    match words.last() {
        Some(spec) if spec.ends_with(".json") => {
            // The parent is told what came of it.
            let _ = process::serve(Path::new(spec), &FakeGuest);
            true
        }
        _ => false,
    }
}

/// QEMU: says that the guest listens, and switches off when it is told to.
fn emulate(words: &[String]) {
    let find = |key: &str| PathBuf::from(words.iter().find_map(|w| w.strip_prefix(key)).unwrap());
    let console = find("file,id=console,append=on,path=");
    let monitor = find("socket,id=monitor,server=on,wait=off,path=");
    let token = find("name=opt/test/token,file=");
    assert_eq!(std::fs::read_to_string(token).unwrap().len(), 64);
    std::fs::write(&console, LISTENING).unwrap();
    let (mut client, _) = UnixListener::bind(monitor).unwrap().accept().unwrap();
    writeln!(client, "{}", json!({ "QMP": {} })).unwrap();
    let answers = client.try_clone().unwrap();
    std::thread::spawn(move || {
        for _command in BufReader::new(&answers).lines() {
            let answer = json!({ "return": { "status": "running" } });
            writeln!(&answers, "{answer}").unwrap();
        }
    });
    while !console.with_file_name("off").exists() {
        std::thread::sleep(Duration::from_millis(10));
    }
    let event = json!({ "event": "SHUTDOWN", "data": { "reason": "guest-shutdown" } });
    writeln!(client, "{event}").unwrap();
    std::process::exit(0);
}

struct Test {
    folder: tempfile::TempDir,
    registry: Registry,
    words: Vec<OsString>,
}

impl Test {
    /// `name` is the calling test's; None in the other roles.
    fn new(name: &str) -> Option<Self> {
        if played() {
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("vmlinuz"), b"").unwrap();
        let registry = Registry::at(folder.path().join("run")).unwrap();
        let words = ["--exact", "--nocapture", "--", name].map(OsString::from).to_vec();
        Some(Self { folder, registry, words })
    }

    fn spec(&self, lifetime: Lifetime) -> Spec {
        let mut command = vec![std::env::current_exe().unwrap().into()];
        command.extend(self.words.clone());
        Spec {
            name: "echo".into(),
            cid: None,
            appliance: self.folder.path().into(),
            hardware: Hardware {
                arch: Arch::X86_64,
                board: Board::Standard,
                memory: 256,
                cpus: 1,
                kernel: self.folder.path().join("vmlinuz"),
                initrd: None,
                command_line: String::new(),
                disks: Vec::new(),
                nic: None,
                fw_cfg: Vec::new(),
            },
            token_name: "opt/test/token".into(),
            emulator: Emulator {
                command,
                data: Vec::new(),
                environment: vec![(QEMU.into(), "1".into())],
                version: Version { major: 10, minor: 0, patch: 0 },
                sandbox: false,
            },
            cache: self.folder.path().join("cache"),
            publish: vec![Publish {
                host: HostAddress::Tcp("127.0.0.1:0".parse().unwrap()),
                port: 3000,
            }],
            listeners: Value::Null,
            image: Value::Null,
            lifetime,
            grace: Duration::from_secs(60),
        }
    }

    fn start(&self, spec: &Spec) -> process::Process {
        let program = std::env::current_exe().unwrap();
        process::start(&program, &self.words, &self.registry, spec).unwrap()
    }

    /// Waits for the end of a VM that is nobody's child.
    fn wait_until_gone(&self) {
        for _ in 0..6000 {
            if self.registry.list().unwrap().is_empty() {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("the VM does not end");
    }
}

/// The events up to the one that tells that the VM is up or has ended.
fn events(process: &mut process::Process) -> Vec<Event> {
    let mut events = Vec::new();
    loop {
        let event = process.next_event().unwrap().expect("there is a last event");
        let last = matches!(event, Event::Ready | Event::Ended(_) | Event::Failed(_));
        events.push(event);
        if last {
            return events;
        }
    }
}

#[test]
fn a_detached_vm_stays_until_it_is_terminated() {
    let Some(test) = Test::new("a_detached_vm_stays_until_it_is_terminated") else { return };
    let mut process = test.start(&test.spec(Lifetime::Detached));
    let events = events(&mut process);
    assert_eq!(events.last(), Some(&Event::Ready), "{events:?}");
    let claimed = events.iter().find_map(|event| match event {
        Event::Claimed { cid, publish, .. } => Some((*cid, publish.clone())),
        _ => None,
    });
    let (cid, publish) = claimed.unwrap();
    assert_eq!(cid, 3);
    let HostAddress::Tcp(address) = publish[0].host else { panic!("it is TCP") };
    assert_ne!(address.port(), 0);
    let id = process.id();
    drop(process);
    let entry = test.registry.find("echo").unwrap();
    assert_eq!((entry.record.pid, entry.record.stage), (id, Stage::Ready));
    assert_eq!(entry.record.publish, publish);
    let token = entry.token().unwrap();
    assert!(token.len() == 64 && token.bytes().all(|byte| byte.is_ascii_hexdigit()));
    let mode = std::fs::metadata(entry.folder().token()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    // Nothing but running VMs: the spec is gone too.
    let specs = std::fs::read_dir(test.registry.root()).unwrap();
    let name = |item: io::Result<std::fs::DirEntry>| item.unwrap().file_name();
    assert!(!specs.map(name).any(|name| name.to_string_lossy().starts_with("start-")));
    entry.terminate().unwrap();
    test.wait_until_gone();
}

#[test]
fn an_attached_vm_ends_with_its_parent() {
    let Some(test) = Test::new("an_attached_vm_ends_with_its_parent") else { return };
    let mut process = test.start(&test.spec(Lifetime::Attached));
    assert_eq!(events(&mut process).last(), Some(&Event::Ready));
    drop(process);
    test.wait_until_gone();
}

#[test]
fn a_vm_tells_its_parent_how_it_ended() {
    let Some(test) = Test::new("a_vm_tells_its_parent_how_it_ended") else { return };
    let mut process = test.start(&test.spec(Lifetime::Attached));
    assert_eq!(events(&mut process).last(), Some(&Event::Ready));
    process.terminate().unwrap();
    assert_eq!(events(&mut process), [Event::Stopping, Event::Ended(Outcome::PoweredOff)]);
    assert_eq!(process.next_event().unwrap(), None);
    process.wait().unwrap();
    assert!(test.registry.list().unwrap().is_empty());
}

#[test]
fn the_command_line_is_told_without_running_it() {
    let name = "the_command_line_is_told_without_running_it";
    let Some(test) = Test::new(name) else { return };
    let mut spec = test.spec(Lifetime::Attached);
    (spec.emulator.command, spec.cid) = (vec!["qemu".into()], Some(7));
    let words = rouse_qemu::vm::command(&spec, &test.registry).unwrap();
    assert_eq!(words[..4], ["env", "ROUSE_TEST_QEMU=1", "qemu", "-nodefaults"]);
    let token = test.registry.root().join("echo/token");
    let token = format!("name=opt/test/token,file={}", token.display());
    assert!(words.iter().any(|word| *word == *token));
    assert!(test.registry.list().unwrap().is_empty());
}

#[test]
fn what_cannot_start_says_why() {
    let Some(test) = Test::new("what_cannot_start_says_why") else { return };
    let mut first = test.start(&test.spec(Lifetime::Attached));
    assert_eq!(events(&mut first).last(), Some(&Event::Ready));
    let failure = |spec: &Spec| match events(&mut test.start(spec)).pop() {
        Some(Event::Failed(failure)) => failure,
        other => panic!("{other:?}"),
    };
    let busy = failure(&test.spec(Lifetime::Attached));
    assert_eq!(busy.blame, Blame::Busy);
    assert_eq!(busy.message, "start echo: a VM of that name runs already");
    let mut spec = test.spec(Lifetime::Attached);
    spec.hardware.kernel = "/nonexistent".into();
    let missing = failure(&spec);
    assert_eq!(missing.blame, Blame::Request);
    assert_eq!(missing.message, "boot from /nonexistent, which is not a file");
    let mut spec = test.spec(Lifetime::Attached);
    spec.name = "two".into();
    spec.emulator.command = vec!["/nonexistent".into()];
    let failed = failure(&spec);
    assert_eq!(failed.blame, Blame::Host);
    assert!(failed.message.starts_with("start QEMU: No such file"), "{failed}");
    drop(first);
    test.wait_until_gone();
}
