//! The process of one VM, and how it is started.
//!
//! The parent writes the [`Spec`] to a file, and executes its own program with a hidden verb and
//! that file's path. Its end of a socket pair is the child's standard input, over which the child
//! tells what happens, a line of JSON for each [`Event`]. That the parent has gone is seen there
//! too, and ends an attached VM. The child is in a session of its own, so that the terminal's
//! signals reach the parent only.

use crate::registry::{Registry, replace_file};
use crate::vm::{self, Event, Failure, Guest, Lifetime, Outcome, Spec, Stop, VmError};
use std::ffi::OsString;
use std::fs;
use std::io::{self, BufRead, BufReader, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

/// A VM's process, seen by the one that started it.
#[derive(Debug)]
pub struct Process {
    child: Child,
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
    let text = serde_json::to_vec(spec).map_err(io::Error::from);
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
        Ok(Process { child, events: BufReader::new(ours) })
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

    /// The same from another thread, or a signal's handler, while this one waits for events.
    pub fn terminator(&self) -> Terminator {
        Terminator(self.child.id())
    }

    /// Waits for the process's end.
    pub fn wait(mut self) -> io::Result<std::process::ExitStatus> {
        self.child.wait()
    }
}

/// Tells a [`Process`], which has not been waited for, to end.
#[derive(Debug, Clone, Copy)]
pub struct Terminator(u32);

impl Terminator {
    /// See [`Process::terminate`].
    pub fn terminate(self) -> io::Result<()> {
        let pid = rustix::process::Pid::from_raw(self.0.cast_signed());
        let pid = pid.ok_or(io::ErrorKind::NotFound)?;
        Ok(rustix::process::kill_process(pid, rustix::process::Signal::TERM)?)
    }
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
