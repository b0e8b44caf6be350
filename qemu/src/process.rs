//! The process of one VM, and how it is started.
//!
//! The parent writes the [`Spec`] to a file, and executes its own program with a hidden verb and
//! that file's path. Its end of a socket pair is the child's standard input, over which the child
//! tells what happens, a line of JSON for each [`Event`]. That the parent has gone is seen there
//! too, and ends an attached VM. The child is in a session of its own, so that the terminal's
//! signals reach the parent only.

use crate::publish::HostAddress;
use crate::registry::{Registry, replace_file};
use crate::vm::{self, Event, Failure, Guest, Lifetime, Outcome, Spec, Stop, VmError};
use std::ffi::OsString;
use std::fs;
use std::io::{self, BufRead, BufReader, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// Raises the soft limit of open files (RLIMIT_NOFILE) to the hard one: each connection takes a
/// descriptor or two, and 1024 are soon used up.
pub(crate) fn raise_file_limit() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        limit.current = limit.maximum;
        // It only ever rises to what is allowed; if not, there are fewer connections.
        let _ = setrlimit(Resource::Nofile, limit);
    }
}

/// A VM's process, seen by the one that started it.
#[derive(Debug)]
pub struct Process {
    child: Child,
    /// The child's pidfd, which stays its own when its id is another process's.
    pidfd: Arc<OwnedFd>,
    events: BufReader<UnixStream>,
}

/// Starts the process of a VM: `program` with `arguments` and the path of a spec, which has to call
/// [`serve`] with it.
pub fn start(
    program: &Path,
    arguments: &[OsString],
    registry: &Registry,
    spec: &Spec,
) -> Result<Process, VmError> {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let file = format!("start-{}-{number}.json", std::process::id());
    let file = registry.root().join(file);
    let text = absolute(spec).and_then(|spec| Ok(serde_json::to_vec(&spec)?));
    text.and_then(|text| replace_file(&file, &text, 0o600))
        .map_err(VmError::system("write down what to run"))?;
    let spawned = UnixStream::pair().and_then(|(ours, theirs)| {
        let child = Command::new(program)
            .args(arguments)
            .arg(&file)
            .env(crate::registry::VARIABLE, registry.root())
            .stdin(OwnedFd::from(theirs))
            .stdout(Stdio::null())
            .stderr(Stdio::inherit())
            .spawn()?;
        let pidfd = Arc::new(crate::child::pidfd(&child)?);
        Ok(Process { child, pidfd, events: BufReader::new(ours) })
    });
    spawned.map_err(|source| {
        let _ = fs::remove_file(&file);
        VmError::System { action: "start the VM's process", source }
    })
}

impl Process {
    /// The process's id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// The next event; None if the process is gone without a last one.
    pub fn next_event(&mut self) -> io::Result<Option<Event>> {
        let mut line = String::new();
        match self.events.read_line(&mut line) {
            Ok(0) => Ok(None),
            Ok(_) => Ok(Some(serde_json::from_str(&line)?)),
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Tells the VM to end: SIGTERM, upon which it powers the guest off. Sent twice, it is killed.
    pub fn terminate(&self) -> io::Result<()> {
        self.terminator().terminate()
    }

    /// The same from another thread, while this one waits for events.
    pub fn terminator(&self) -> Terminator {
        Terminator(self.pidfd.clone())
    }

    /// Waits for the process's end.
    pub fn wait(mut self) -> io::Result<std::process::ExitStatus> {
        self.child.wait()
    }
}

/// Tells a [`Process`] to end.
#[derive(Debug, Clone)]
pub struct Terminator(Arc<OwnedFd>);

impl Terminator {
    /// See [`Process::terminate`].
    pub fn terminate(&self) -> io::Result<()> {
        Ok(rustix::process::pidfd_send_signal(&self.0, rustix::process::Signal::TERM)?)
    }
}

/// The same VM, independent of the working directory.
fn absolute(spec: &Spec) -> io::Result<Spec> {
    let mut spec = spec.clone();
    let hardware = &mut spec.hardware;
    let mut paths = vec![&mut spec.appliance, &mut spec.cache, &mut hardware.kernel];
    paths.extend(&mut hardware.initrd);
    paths.extend(hardware.disks.iter_mut().map(|disk| &mut disk.path));
    paths.extend(spec.publish.iter_mut().filter_map(|publish| match &mut publish.host {
        HostAddress::Unix(path) => Some(path),
        HostAddress::Tcp(_) => None,
    }));
    for path in paths {
        *path = std::path::absolute(&path)?;
    }
    Ok(spec)
}

/// What the process of a VM does, from its start to its end.
///
/// # Errors
/// Those of [`vm::run`], which the parent was told already.
pub fn serve(spec: &Path, guest: &dyn Guest) -> Result<Outcome, VmError> {
    // It fails only for the leader of a process group, which has what this is for.
    let _ = rustix::process::setsid();
    let parent = rustix::stdio::stdin().try_clone_to_owned().map(UnixStream::from);
    let parent = parent.map_err(VmError::system("reach the parent"))?;
    let mut report = |event: Event| {
        // A parent that is gone does not want to know.
        let _ = tell(&parent, &event);
    };
    let outcome = serve_spec(spec, guest, &parent, &mut report);
    report(match &outcome {
        Ok(outcome) => Event::Ended(*outcome),
        Err(error) => Event::Failed(error.failure()),
    });
    outcome
}

fn serve_spec(
    path: &Path,
    guest: &dyn Guest,
    parent: &UnixStream,
    report: &mut dyn FnMut(Event),
) -> Result<Outcome, VmError> {
    let text = fs::read(path);
    let _ = fs::remove_file(path);
    let spec: Spec = text
        .and_then(|text| Ok(serde_json::from_slice(&text)?))
        .map_err(VmError::system("read what to run"))?;
    let registry = Registry::open()?;
    // No file system is kept busy by a VM that stays. All paths are absolute.
    rustix::process::chdir("/").map_err(io::Error::from).map_err(VmError::system("enter /"))?;
    let signals = signals().map_err(VmError::system("prepare for signals"))?;
    let attached = spec.lifetime == Lifetime::Attached;
    let stop = Stop { signals: signals.as_fd(), parent: attached.then(|| parent.as_fd()) };
    vm::run(&spec, &registry, guest, stop, &mut |event| {
        if let Event::Claimed { folder, .. } = &event {
            // The terminal belongs to the parent.
            redirect(&folder.join("vmm.log"));
        }
        report(event);
    })
}

/// A socket with a byte for each signal that shall end the VM.
fn signals() -> io::Result<UnixStream> {
    use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
    let (read, write) = UnixStream::pair()?;
    for signal in [SIGTERM, SIGINT, SIGHUP] {
        signal_hook::low_level::pipe::register(signal, write.try_clone()?)?;
    }
    Ok(read)
}

fn redirect(log: &Path) {
    let file = fs::OpenOptions::new().append(true).create(true).open(log);
    if let Ok(file) = file {
        let _ = rustix::stdio::dup2_stderr(&file);
    }
}

fn tell(mut parent: &UnixStream, event: &Event) -> io::Result<()> {
    let mut line = serde_json::to_vec(event)?;
    line.push(b'\n');
    parent.write_all(&line)
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::emulator::{Emulator, Version};
    use crate::machine::{Arch, Board, Hardware};
    use crate::publish::Publish;

    #[test]
    fn paths_are_made_absolute() {
        let spec = Spec {
            name: "echo".into(),
            cid: None,
            appliance: "configs/echo".into(),
            hardware: Hardware {
                arch: Arch::X86_64,
                board: Board::Standard,
                memory: 256,
                cpus: 1,
                kernel: "/boot/vmlinuz".into(),
                initrd: Some("initrd".into()),
                command_line: String::new(),
                disks: Vec::new(),
                nic: None,
                fw_cfg: Vec::new(),
            },
            token_name: "opt/test/token".into(),
            emulator: Emulator {
                command: vec!["qemu".into()],
                data: Vec::new(),
                environment: Vec::new(),
                version: Version { major: 10, minor: 0, patch: 0 },
                sandbox: false,
            },
            cache: "cache".into(),
            publish: vec![Publish { host: HostAddress::Unix("./echo.sock".into()), port: 1 }],
            listeners: serde_json::Value::Null,
            image: serde_json::Value::Null,
            lifetime: Lifetime::Attached,
            grace: std::time::Duration::from_secs(1),
        };
        let absolute = absolute(&spec).unwrap();
        let here = std::env::current_dir().unwrap();
        assert_eq!(absolute.appliance, here.join("configs/echo"));
        assert_eq!(absolute.hardware.kernel, Path::new("/boot/vmlinuz"));
        assert_eq!(absolute.hardware.initrd, Some(here.join("initrd")));
        assert_eq!(absolute.publish[0].host, HostAddress::Unix(here.join("echo.sock")));
        assert_eq!(absolute.cache, here.join("cache"));
    }
}
