//! Where a daemon runs: namespaces whose root is the packages' files with a layer above them that
//! goes when the test does.

use super::daemon::{Daemon, Step};
use super::tree::{GROUP, HOST_NAME, PASSWD};
use crate::oracle::stage;
use activator::client;
use activator::control::Status;
use rustix::mount::{MountFlags, MountPropagationFlags};
use std::ffi::{CStr, CString};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// How long anything may take on a machine that is busy with other things.
const PATIENCE: Duration = Duration::from_secs(60);
const CONTROL: &str = "/run/rouse/control";
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What is needed from outside.
pub struct Props<'a> {
    /// The packages' files.
    pub tree: &'a Path,
    /// An empty folder.
    pub scratch: &'a Path,
    /// The activator's program; `init` is beside it.
    pub activator: &'a Path,
    /// The daemon's manifest.
    pub manifest: &'a Path,
}

/// As PID 1 of fresh namespaces: sets the room, starts the activator, and asks the daemon.
/// What the clients wrote is the answer; the error is what was not as it should be.
pub fn run(props: &Props<'_>, daemon: &Daemon) -> Result<String, String> {
    set(props, daemon);
    if !daemon.prepare.is_empty() {
        let (code, text) = script(&daemon.prepare);
        if code != Some(0) {
            return Err(format!("the preparation ended with {code:?}:\n{text}"));
        }
    }
    let mut command = Command::new("/run/rouse/activator");
    command.args(["run", "/run/rouse/manifest", "--control", CONTROL]);
    command.env_clear().env("PATH", PATH);
    command.stdin(Stdio::null()).stdout(std::io::stderr());
    let mut activator = stage::spawn(command);
    let result = ask(daemon);
    activator.kill().unwrap();
    activator.wait().unwrap();
    result
}

/// Asks the daemon; see [`run`].
fn ask(daemon: &Daemon) -> Result<String, String> {
    let before = until("all sockets listen", |status| {
        let all = status.sockets.iter().all(|it| it.state == "listening");
        all && !status.sockets.is_empty() && status.listening_us > 0
    })?;
    for socket in &before.sockets {
        let service = before.services.iter().find(|it| it.name == socket.service);
        if let Some(service) = service.filter(|it| it.state != "dead") {
            return Err(format!("before any client came, {} is {}", service.name, service.state));
        }
    }
    let (mut all, mut last) = (String::new(), String::new());
    for step in &daemon.steps {
        match step {
            Step::Ask(text) => {
                let (code, text) = script(text);
                all += &text;
                if code != Some(0) {
                    return Err(format!("the client ended with {code:?}:\n{text}"));
                }
                last = text;
            }
            Step::See(parts) => {
                let mut rest = last.as_str();
                for part in parts {
                    let Some(at) = rest.find(part.as_str()) else {
                        return Err(format!("no `{part}` in:\n{last}"));
                    };
                    rest = &rest[at + part.len()..];
                }
            }
            Step::Then(unit, state) => {
                until(&format!("{unit} is {state}"), |status| {
                    let sockets = status.sockets.iter().map(|it| (&it.name, &it.state));
                    let services = status.services.iter().map(|it| (&it.name, &it.state));
                    sockets.chain(services).any(|it| it == (unit, state))
                })?;
            }
        }
    }
    // The daemon did not listen by itself: the activator woke it.
    until("a socket woke its service", |status| {
        status.sockets.iter().any(|socket| socket.triggered + socket.accepted > 0)
    })?;
    Ok(all)
}

fn set(props: &Props<'_>, daemon: &Daemon) {
    rustix::system::sethostname(HOST_NAME.as_bytes()).unwrap();
    stage::loopback_up();
    stage::control_groups();
    mount("tmpfs", props.scratch, c"mode=755");
    let root = props.scratch.join("root");
    let (upper, work) = (props.scratch.join("upper"), props.scratch.join("work"));
    for folder in [&root, &upper, &work] {
        std::fs::create_dir(folder).unwrap();
    }
    let layers = format!(
        "lowerdir={},upperdir={},workdir={}",
        props.tree.display(),
        upper.display(),
        work.display()
    );
    mount("overlay", &root, &CString::new(layers).unwrap());
    for folder in ["dev", "etc", "home/ann", "proc", "root", "run", "sys", "tmp", "var/www"] {
        std::fs::create_dir_all(root.join(folder)).unwrap();
    }
    for folder in ["var/lib", "var/cache", "var/log", "var/spool", "var/tmp"] {
        std::fs::create_dir_all(root.join(folder)).unwrap();
    }
    mount("proc", &root.join("proc"), c"");
    mount("tmpfs", &root.join("run"), c"mode=755");
    for folder in ["dev", "sys"] {
        let from = Path::new("/").join(folder);
        rustix::mount::mount_bind_recursive(from, root.join(folder)).unwrap();
    }
    std::fs::create_dir_all(root.join("run/rouse")).unwrap();
    let init = &*props.activator.with_file_name("init");
    for (file, name) in
        [(props.activator, "activator"), (init, "init"), (props.manifest, "manifest")]
    {
        let to = root.join("run/rouse").join(name);
        std::fs::write(&to, "").unwrap();
        rustix::mount::mount_bind(file, to).unwrap();
    }
    // Not chroot(2): who is in one may make no user namespace.
    rustix::process::chdir(&root).unwrap();
    rustix::process::pivot_root(".", ".").unwrap();
    rustix::mount::unmount(".", rustix::mount::UnmountFlags::DETACH).unwrap();
    rustix::process::chdir("/").unwrap();
    rustix::process::umask(rustix::fs::Mode::from(0o022));
    for (link, target) in [("/var/run", "/run"), ("/bin/sh", "busybox")] {
        if Path::new(link).symlink_metadata().is_err() {
            symlink(target, link).unwrap();
        }
    }
    for folder in ["/tmp", "/var/tmp"] {
        std::fs::set_permissions(folder, PermissionsExt::from_mode(0o1777)).unwrap();
    }
    std::os::unix::fs::chown("/home/ann", Some(1000), Some(1000)).unwrap();
    let id = "0123456789abcdef0123456789abcdef\n";
    for (path, text) in [
        ("/etc/passwd", PASSWD),
        ("/etc/group", GROUP),
        ("/etc/nsswitch.conf", "passwd: files\ngroup: files\nshadow: files\nhosts: files\n"),
        ("/etc/hosts", "127.0.0.1 localhost daemons\n::1 localhost\n"),
        ("/etc/machine-id", id),
    ] {
        std::fs::write(path, text).unwrap();
    }
    for (path, mode, text) in &daemon.files {
        std::fs::create_dir_all(Path::new(path).parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
        std::fs::set_permissions(path, PermissionsExt::from_mode(*mode)).unwrap();
    }
}

/// Runs a script; its exit code, and all that it wrote. One that takes too long is killed with
/// all that it started.
fn script(text: &str) -> (Option<i32>, String) {
    let mut command = Command::new("/bin/busybox");
    // One pipe for both, so that they stay in order.
    let text = format!("exec 2>&1\n{text}");
    command.args(["sh", "-e", "-c", &text]).process_group(0);
    command.env_clear().envs([("PATH", PATH), ("HOME", "/root"), ("LANG", "C.UTF-8")]);
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
    let group = rustix::process::Pid::from_child(&child);
    let (sender, receiver) = std::sync::mpsc::channel();
    std::thread::spawn(move || sender.send(child.wait_with_output().unwrap()));
    let output = receiver.recv_timeout(PATIENCE).unwrap_or_else(|_| {
        rustix::process::kill_process_group(group, rustix::process::Signal::KILL).unwrap();
        receiver.recv().unwrap()
    });
    (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Waits until the activator's status is as it should be.
fn until(what: &str, is_so: impl Fn(&Status) -> bool) -> Result<Status, String> {
    let end = Instant::now() + PATIENCE;
    loop {
        let status = status();
        match status {
            Some(status) if is_so(&status) => return Ok(status),
            _ if Instant::now() < end => std::thread::sleep(Duration::from_millis(10)),
            status => return Err(format!("it never came that {what}: {status:#?}")),
        }
    }
}

fn status() -> Option<Status> {
    let stream = UnixStream::connect(CONTROL).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).ok()?;
    client::status(stream, "").ok()
}

fn mount(kind: &str, at: &Path, options: &CStr) {
    rustix::mount::mount(kind, at, kind, MountFlags::empty(), Some(options))
        .unwrap_or_else(|errno| panic!("{kind} at {}: {errno}", at.display()));
    rustix::mount::mount_change(at, MountPropagationFlags::PRIVATE).unwrap();
}
