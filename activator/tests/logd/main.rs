//! `activator logd`, `ctl` and `stage2` as processes, with a PID 1 played by the test.

mod spawn;

use activator::control::{Event, MachineState, Order, Report};
use activator::exit;
use activator::manifest::{
    Address, Command as ManifestCommand, Container, ListenKind, Listener, Manifest, Service,
    Socket, Unit, UnitId, UnitKind,
};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, socketpair};
use rustix::process::{Pid, Signal, kill_process};
use std::io::{PipeReader, PipeWriter, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output as Finished, Stdio};
use std::time::Duration;

const ACTIVATOR: &str = env!("CARGO_BIN_EXE_activator");
/// Nothing here takes long; a hang must end.
const HANG: Duration = Duration::from_secs(60);

/// A running logd; killed when dropped.
struct Logd {
    dir: tempfile::TempDir,
    pid1: OwnedFd,
    log: PipeWriter,
    console: PipeReader,
    child: Child,
}

impl Logd {
    fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let manifest = dir.path().join("manifest");
        std::fs::write(&manifest, sample("x", "/nonexistent").encode()).unwrap();
        let control = UnixListener::bind(dir.path().join("control")).unwrap();
        let (log_reader, log) = std::io::pipe().unwrap();
        let (console, console_writer) = std::io::pipe().unwrap();
        let (pid1, theirs) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
                .unwrap();
        let timeout = rustix::net::sockopt::Timeout::Recv;
        rustix::net::sockopt::set_socket_timeout(&pid1, timeout, Some(HANG)).unwrap();
        let fds = [
            ("pid1", theirs.as_fd()),
            ("control-unix", control.as_fd()),
            ("log-0", log_reader.as_fd()),
            ("console", console_writer.as_fd()),
        ];
        let child = spawn::activator(&fds).arg("logd").arg(&manifest).spawn().unwrap();
        Self { dir, pid1, log, console, child }
    }

    fn control(&self) -> PathBuf {
        self.dir.path().join("control")
    }

    fn ctl(&self, args: &[&str]) -> Command {
        ctl(&self.control(), args)
    }

    fn report(&self, report: Report) {
        let mut packet = [0; Report::MAX];
        let packet = activator::wire::to_slice(&report, &mut packet).unwrap();
        rustix::net::send(&self.pid1, packet, SendFlags::empty()).unwrap();
    }

    fn ordered(&self) -> Order {
        let mut packet = [0; 64];
        let (_, length) =
            rustix::net::recv(&self.pid1, &mut packet[..], RecvFlags::empty()).unwrap();
        activator::wire::from_bytes(&packet[..length]).unwrap()
    }
}

impl Drop for Logd {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn ctl(control: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(ACTIVATOR);
    command.args(["ctl", "--control"]).arg(control).args(args);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn finish(child: Child) -> (i32, String, String) {
    let Finished { status, stdout, stderr } = child.wait_with_output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (status.code().unwrap(), text(stdout), text(stderr))
}

#[test]
fn ctl_asks_and_tells() {
    let mut logd = Logd::start();
    let status = logd.ctl(&["status", "--json"]).spawn().unwrap();
    assert_eq!(logd.ordered(), Order::Status);
    logd.report(Report::Machine {
        state: MachineState::Running,
        started_us: 1,
        listening_us: 2,
        now_us: 3,
    });
    logd.report(Report::End);
    let (code, out, err) = finish(status);
    assert_eq!((code, err.as_str()), (0, ""));
    let value: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!((&value["name"], &value["state"]), (&"sample".into(), &"running".into()));
    // Our own memory: the test is its parent.
    assert!(value["activator_memory"].as_u64().unwrap() > 0);

    let poweroff = logd.ctl(&["poweroff"]).spawn().unwrap();
    assert_eq!(logd.ordered(), Order::Poweroff);
    logd.report(Report::End);
    assert_eq!(finish(poweroff), (0, String::new(), String::new()));

    let start = logd.ctl(&["start", "other.service"]).spawn().unwrap();
    let said = "activator ctl: there is no unit other.service\n".to_owned();
    assert_eq!(finish(start), (1, String::new(), said));

    logd.log.write_all(b"hello\n").unwrap();
    let mut follower = logd.ctl(&["logs", "-f", "echo"]).spawn().unwrap();
    let mut line = [0; 48];
    follower.stdout.as_mut().unwrap().read_exact(&mut line).unwrap();
    follower.kill().unwrap();
    follower.wait().unwrap();
    let line = std::str::from_utf8(&line).unwrap();
    assert!(line.ends_with("Z echo.service: hello\n"), "{line}");
}

#[test]
fn sigterm_brings_the_last_lines() {
    let mut logd = Logd::start();
    // It shows this, so it is past its start.
    logd.report(Report::Event(None, Event::Booted));
    let booted = "activator: all units of the boot are started, sockets listen\n";
    let mut shown = vec![0; booted.len()];
    logd.console.read_exact(&mut shown).unwrap();
    assert_eq!(std::str::from_utf8(&shown).unwrap(), booted);

    // What a terminal sends to everybody is not for it.
    let pid = Pid::from_child(&logd.child);
    kill_process(pid, Signal::INT).unwrap();
    kill_process(pid, Signal::HUP).unwrap();
    logd.log.write_all(b"last words").unwrap();
    kill_process(pid, Signal::TERM).unwrap();
    assert_eq!(logd.child.wait().unwrap().code(), Some(0));
    let mut rest = String::new();
    logd.console.read_to_string(&mut rest).unwrap();
    assert_eq!(rest, "echo.service: last words\n");
}

#[test]
fn wrong_calls_have_their_exit_codes() {
    let run = |args: &[&str]| {
        let mut command = Command::new(ACTIVATOR);
        command.args(args).env_remove("LISTEN_FDS").env_remove("ROUSE_MANIFEST");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let (code, out, err) = finish(command.spawn().unwrap());
        assert_eq!(out, "");
        assert!(err.starts_with("activator ") || err.starts_with("usage:"), "{err}");
        code as u8
    };
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("manifest");
    let manifest = path.to_str().unwrap();
    assert_eq!(run(&["ctl", "--control", manifest, "status"]), exit::UNAVAILABLE);
    assert_eq!(run(&["ctl", "explode"]), exit::USAGE);
    assert_eq!(run(&["logd"]), exit::USAGE);
    assert_eq!(run(&["logd", manifest]), exit::UNAVAILABLE);
    std::fs::write(&path, "noise").unwrap();
    assert_eq!(run(&["logd", manifest]), exit::DATA);
    std::fs::write(&path, sample("x", "/nonexistent").encode()).unwrap();
    assert_eq!(run(&["logd", manifest]), exit::SOFTWARE);
    assert_eq!(run(&["stage2"]), exit::SOFTWARE);
}

/// Stage 2 with a /run of its own. As another user than root in a user namespace, too.
fn stage2(manifest: &Path, prepare: &str) -> Finished {
    let listener = UnixListener::bind(manifest.with_extension("sock")).unwrap();
    let mut command = Command::new("unshare");
    if !rustix::process::geteuid().is_root() {
        command.arg("--map-root-user");
    }
    // The shell sets LISTEN_PID in the process that becomes stage 2.
    let script = format!(
        r#"mount -t tmpfs none /run && {prepare} && exec 3<&0 </dev/null && \
           LISTEN_PID=$$ exec "$0" stage2 exec echo.service start 0"#
    );
    command.args(["--mount", "/bin/sh", "-c", &script, ACTIVATOR]);
    command.env("ROUSE_MANIFEST", manifest).env("LISTEN_FDS", "1");
    command.env("LISTEN_FDNAMES", "echo.socket");
    command.stdin(OwnedFd::from(listener)).output().unwrap()
}

#[test]
fn stage_2_prepares_the_bundle_and_becomes_the_program() {
    let dir = tempfile::tempdir().unwrap();
    let (manifest, template) = (dir.path().join("manifest"), dir.path().join("template"));
    std::fs::write(
        &template,
        r#"{"process":{"env":["LISTEN_FDS=@LISTEN_FDS@","LISTEN_PID=1","LISTEN_FDNAMES=@LISTEN_FDNAMES@"]}}"#,
    )
    .unwrap();
    // It sees the environment, the bundle, and whether it is still the same process.
    let script = r#"
        test $$ = $LISTEN_PID && echo "fds $LISTEN_FDS $LISTEN_FDNAMES [$ROUSE_MANIFEST]"
        test -S /dev/fd/3 && cat /run/rouse/bundles/echo/config.json
        ls /run/crun"#;
    // A predecessor's state is there; the `crun` that shall delete it is the program itself,
    // here a shell, which does not know `--root`.
    let mut sample = sample("echo", template.to_str().unwrap());
    set_command(&mut sample, &["/bin/sh", "-c", script]);
    std::fs::write(&manifest, sample.encode()).unwrap();
    let Finished { status, stdout, stderr } =
        stage2(&manifest, "mkdir -p /run/crun/echo /run/crun/other");
    let (out, err) = (String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
    assert_eq!(status.code(), Some(0), "{err}");
    let expected = "fds 1 echo.socket []\n\
        {\"process\":{\"env\":[\"LISTEN_FDS=1\",\"LISTEN_PID=1\",\"LISTEN_FDNAMES=echo.socket\"]}}\
        other\n";
    assert_eq!(out, expected, "{err}");
}

#[test]
fn stage_2_says_why_it_cannot() {
    let dir = tempfile::tempdir().unwrap();
    let (manifest, template) = (dir.path().join("manifest"), dir.path().join("template"));
    let run = |argv: &[&str]| {
        let mut sample = sample("echo", template.to_str().unwrap());
        set_command(&mut sample, argv);
        std::fs::write(&manifest, sample.encode()).unwrap();
        let _ = std::fs::remove_file(manifest.with_extension("sock"));
        let Finished { status, stderr, .. } = stage2(&manifest, "true");
        (status.code().unwrap() as u8, String::from_utf8(stderr).unwrap())
    };
    let (code, said) = run(&["/bin/true"]);
    assert_eq!(code, exit::SYSTEM);
    let begin = format!("activator stage2: cannot read {}: ", template.display());
    assert!(said.starts_with(&begin) && said.lines().count() == 1, "{said}");
    std::fs::write(&template, "{}").unwrap();
    let (code, said) = run(&["/bin/true"]);
    assert_eq!(code, exit::DATA, "{said}");
    std::fs::write(&template, r#"{"process":{"env":[]}}"#).unwrap();
    let (code, said) = run(&["/nonexistent/crun"]);
    assert_eq!(code, exit::EXEC);
    assert!(said.starts_with("activator stage2: cannot execute /nonexistent/crun: "), "{said}");
}

fn set_command(manifest: &mut Manifest, argv: &[&str]) {
    if let UnitKind::Service(service) = &mut manifest.units[0].kind {
        service.start[0].program = argv[0].into();
        service.start[0].arguments = argv.iter().map(|word| word.to_string()).collect();
    }
}

/// `echo.service`, a container, and `echo.socket`.
fn sample(id: &str, template: &str) -> Manifest {
    let start = ManifestCommand {
        program: "/usr/bin/crun".into(),
        arguments: vec!["crun".into(), "run".into(), id.into()],
        ..ManifestCommand::default()
    };
    let service = Service {
        sockets: vec![UnitId(1)],
        start: vec![start],
        container: Some(Container {
            id: id.into(),
            template: template.into(),
            ..Container::default()
        }),
        ..Service::default()
    };
    let socket = Socket {
        listeners: vec![Listener { kind: ListenKind::Stream, address: Address::AnyPort(3000) }],
        fd_name: "echo.socket".into(),
        ..Socket::default()
    };
    let unit = |name: &str, kind| Unit {
        name: name.into(),
        description: name.into(),
        kind,
        ..Unit::default()
    };
    Manifest {
        name: "sample".into(),
        units: vec![
            unit("echo.service", UnitKind::Service(service)),
            unit("echo.socket", UnitKind::Socket(socket)),
        ],
        ..Manifest::default()
    }
}
