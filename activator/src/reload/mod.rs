//! Reload is re-exec: one path for another manifest and for another activator.
//!
//! PID 1 allocates nothing after start-up, so it cannot make tables for another manifest. It
//! executes itself instead, in the same process: its children stay its children, and every fd
//! that is not close-on-exec stays open, with whatever waits in it.
//!
//! | who | does |
//! |---|---|
//! | a client, or SIGHUP and a file | hands logd a manifest, perhaps the two programs |
//! | logd | checks them as far as can be without PID 1, passes them on as fds |
//! | PID 1 ([`leave`]) | writes its [`state`] into a memfd, leaves open what is in it, executes |
//! | the next process ([`main`]) | reads it, [`merge`]s the manifests, fills its tables with what is [`kept`], goes on |
//! | | tells logd which manifest is in force, and gives it the logs that are new |
//!
//! What each unit becomes is in `supervise::reload`, and which listener is whose in
//! [`listeners`]. Meanwhile signals stay pending, since they are blocked, connections and packets
//! wait in their sockets, and lines in their pipes; nobody but PID 1 is stopped, for a few
//! milliseconds.
//!
//! # When it cannot be done
//!
//! Before execve(2): all stays as it is. After it, nothing of the state is taken until all that
//! could fail is done. If that is the new manifest's fault, the old one stays in force; its bytes
//! are in the state. If it is the new activator that cannot do it, it executes the old one, with
//! the same state. An old activator that cannot read its own state would be a bug; then PID 1
//! kills everybody and starts all over with the image's manifest, as the machine must not be deaf.
//!
//! # Another version of the activator
//!
//! Fields of the state that the reader does not know are skipped, and those it misses take their
//! defaults ([`state`]). A service of which it understands only the main process counts as
//! running with that; one of which not even that is down as far as it knows. Sockets need nothing
//! but their addresses. A manifest of the old version cannot be read by the new activator: then
//! units that the new manifest does not have are stopped without commands of their own. logd is
//! started anew, and has lost the lines that it kept, but none that was still in a pipe.
//!
//! The two programs come together. PID 1 executes the new `init` from the memory that it came in,
//! and writes the new `activator` into a file, since children execute it by its path.

mod exec;
pub(crate) mod fd;
pub(crate) mod kept;
mod leave;
mod listeners;
mod merge;
mod prepare;
pub(crate) mod state;

use crate::boot::{self, KernelLog};
use crate::engine::{Engine, Start, StartError, Vsock, now};
use crate::files::{self, make_directories, parent};
use crate::listen;
use crate::start;
use crate::supervise::Supervisor;
use crate::sys;
use activator::control::Report;
use activator::exit;
use activator::manifest::{Manifest, UnitId};
use activator::wire;
pub(crate) use exec::TAKE_OVER;
use exec::{Errand, Turn, execute};
use fd::Arriving;
use listeners::Node;
use prepare::{Prepared, prepare};
use rustix::fs::{MemfdFlags, memfd_create};
use rustix::io::{self, Errno};
use state::{Arrived, Place, Program, Role};
use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

/// A manifest's bytes where nobody can change them and no file system keeps them: for the next
/// reload, and for logd.
pub(crate) fn keep(bytes: &[u8]) -> Result<OwnedFd, Errno> {
    let memory = memfd_create(c"rouse-manifest", MemfdFlags::CLOEXEC)?;
    let mut rest = bytes;
    while !rest.is_empty() {
        let length = io::write(&memory, rest)?;
        rest = rest.get(length..).unwrap_or_default();
    }
    Ok(memory)
}

/// Gives this process the name by which it was called: execve(2) has taken the file's.
pub(crate) fn be_called(name: &str) {
    let name = name.rsplit('/').next().unwrap_or_default();
    let _ = rustix::thread::set_name(&CString::new(name).unwrap_or_default());
}

/// The life of a process that takes over: `--take-over STATE WAY_BACK forth|back`, where the
/// first two are fds.
pub(crate) fn main(arguments: &[&str]) -> u8 {
    let [state, way_back, turn] = *arguments else { return exit::USAGE };
    let [state, way_back] = [state, way_back].map(|text| Arriving::new(text.parse().unwrap_or(-1)));
    let turn = if turn == "back" { Turn::Back } else { Turn::Forth };
    let arrived = match state::read(state) {
        Ok(arrived) => arrived,
        Err(why) => return give_back(state, way_back, turn, &format!("the state {why}")),
    };
    let mut log = Log::new(arrived.place.role);
    match take_over(&arrived, turn, &mut log) {
        Ok((mut engine, prepared)) => {
            // Whoever is executed next gets an fd of its own.
            drop((state.take(), way_back.take(), arrived.manifest.take()));
            drop((
                arrived.new.and_then(Arriving::take),
                arrived.activator.and_then(Arriving::take),
            ));
            arrived.units.iter().for_each(state::In::sweep);
            if let Err(errno) = sys::close_on_exec_from(3) {
                log.line(&format!("failed to mark fds that are not known: {errno}"));
            }
            engine.go_on(&prepared.fates, log.fd());
            log.end()
        }
        Err(why) => give_back(state, way_back, turn, &why),
    }
}

/// Makes an engine of what has come. The error is why nothing of it was touched.
fn take_over(arrived: &Arrived, turn: Turn, log: &mut Log) -> Result<(Engine, Prepared), String> {
    // Not the number of an fd, which is what the kernel makes of it.
    be_called(&arrived.place.name);
    let old = read_manifest(arrived.manifest);
    let known = old.is_ok();
    let old = old.unwrap_or_else(|_| prepare::sketch(arrived));
    let wanted = match (turn, arrived.new) {
        (Turn::Forth, Some(new)) => read_manifest(new),
        _ => Err("the new activator went back to the old one".into()),
    };
    let why = match wanted.and_then(|new| begin(arrived, &old, known, Some(new), turn, log)) {
        Ok(begun) => return Ok(begun),
        Err(why) if turn == Turn::Forth && arrived.program == Program::New => return Err(why),
        Err(why) => why,
    };
    log.line(&format!("the manifest stays as it was: {why}"));
    if !known {
        return Err("its manifest cannot be read".into());
    }
    begin(arrived, &old, known, None, turn, log)
}

/// Takes over with the new manifest, or with the old one if there is no new one.
fn begin(
    arrived: &Arrived,
    old: &Manifest,
    known: bool,
    new: Option<Manifest>,
    turn: Turn,
    log: &mut Log,
) -> Result<(Engine, Prepared), String> {
    let taken = new.is_some();
    let said = |what: &str, errno: Errno| format!("failed to {what}: {errno}");
    let known = if known { listeners::Known::Fully } else { listeners::Known::Not };
    let mut prepared = prepare(arrived, old, known, new.unwrap_or_else(|| wire::copy(old)));
    let bytes = prepared.manifest.encode();
    // An index that is wrong would be a bug of ours; better seen here than in the tables.
    let manifest = Manifest::decode(&bytes).map_err(|error| error.to_string())?;
    let manifest: &'static Manifest = Box::leak(Box::new(manifest));
    boot::note_disks(&manifest.boot.disks);
    let copy = keep(&bytes).map_err(|errno| said("keep the manifest", errno))?;
    let mut place = wire::copy(&arrived.place);
    let program = if turn == Turn::Forth { arrived.program } else { Program::Same };
    if taken {
        let activator = arrived.activator.filter(|_| program == Program::New);
        renew(&mut place, activator, &bytes, &copy, log)?;
    } else if place.path.starts_with(FDS) {
        place.path = path_of(&copy);
    }
    let console = || std::io::stderr().as_fd().try_clone_to_owned();
    let console = console().map_err(|error| format!("failed to copy stderr: {error}"))?;
    let vsock = match place.role {
        Role::Init => Vsock::Listen,
        Role::Beside => Vsock::Leave,
    };
    let units = prepared.units.drain(..);
    let supervisor = Supervisor::resume(manifest, now(), arrived.machine, units);
    let start = Start { manifest, copy, place, vsock, console };
    let mut trouble = |line: &str| log.line(line);
    let mut engine = Engine::new(start, supervisor, &mut prepared.kept, &mut trouble)
        .map_err(|error: StartError| error.to_string())?;
    prepared.refresh(&engine, old);
    for (fd, node) in prepared.dropped.drain(..) {
        drop(fd.take());
        if let Some(Node { path, rights }) = node {
            let rights = rights.filter(|_| rustix::process::geteuid().is_root());
            sys::with_rights_of(rights, || listen::remove_node(&path));
        }
    }
    announce(&mut engine, &prepared, taken);
    engine.retires_logd = program == Program::New;
    Ok((engine, prepared))
}

/// What logd has to know: which manifest is in force, and the logs that it does not have.
fn announce(engine: &mut Engine, prepared: &Prepared, taken: bool) {
    let copy = engine.copy.try_clone().ok();
    let mut news = vec![(Report::Replaced { taken }, copy.filter(|_| taken))];
    for unit in &prepared.kept.without_log {
        let pipe = engine.world.logs.get(unit.index()).and_then(Option::as_ref);
        if let Some(Ok(read)) = pipe.map(|(read, _)| read.try_clone()) {
            news.push((Report::Pipe(*unit), Some(read)));
        }
    }
    engine.world.link.announce(news);
}

/// The files of the next generation: children read the manifest, and execute the activator.
fn renew(
    place: &mut Place,
    activator: Option<Arriving>,
    bytes: &[u8],
    copy: &OwnedFd,
    log: &mut Log,
) -> Result<(), String> {
    place.generation += 1;
    let directory = parent(&place.control).to_owned();
    make_directories(&directory);
    for path in place.retired.drain(..) {
        // Somebody may have tidied up.
        files::remove(&path);
    }
    let own = |name: &str| format!("{directory}/{name}-{}", place.generation);
    let is_own = |path: &String, name: &str| path.starts_with(&format!("{directory}/{name}-"));
    if let Some(activator) = activator {
        let path = own("activator");
        let program = state::read_all(activator);
        program
            .and_then(|program| files::make(&path, &program, 0o755))
            .map_err(|error| format!("failed to write {path}: {error}"))?;
        let old = std::mem::replace(&mut place.activator, path);
        place.retired.extend(Some(old).filter(|old| is_own(old, "activator")));
    }
    let path = own("manifest");
    // It may have secrets in it.
    let path = match files::make(&path, bytes, 0o600) {
        Ok(()) => path,
        Err(error) => {
            log.line(&format!("failed to write {path}: {error}"));
            path_of(copy)
        }
    };
    let old = std::mem::replace(&mut place.path, path);
    place.retired.extend(Some(old).filter(|old| is_own(old, "manifest")));
    Ok(())
}

/// Where a process finds the fds of others.
const FDS: &str = "/proc/";

/// The manifest where no file system has room for it: for as long as the engine has that fd.
fn path_of(copy: &OwnedFd) -> String {
    format!("{FDS}{}/fd/{}", std::process::id(), copy.as_raw_fd())
}

fn read_manifest(fd: Arriving) -> Result<Manifest, String> {
    let bytes = state::read_all(fd).map_err(|errno| format!("it cannot be read: {errno}"))?;
    Manifest::decode(&bytes).map_err(|error| error.to_string())
}

/// Nothing was taken: the activator before us can still go on, if it was not us.
fn give_back(state: Arriving, way_back: Arriving, turn: Turn, why: &str) -> u8 {
    // As what we run is in the state that may be unreadable.
    let role = if std::process::id() == 1 { Role::Init } else { Role::Beside };
    let log = Log::new(role);
    log.line(&format!("failed to take over: {why}"));
    if turn == Turn::Forth {
        let name = start::word(0).unwrap_or_default();
        let failed = state.peek(|state| {
            way_back.peek(|program| {
                let (way_back, turn) = (program, Turn::Back);
                execute(&Errand { program, name, state, way_back, turn })
            })
        });
        log.line(&format!("failed to go back to the old activator: {failed:?}"));
    }
    match role {
        Role::Init => boot::start_over(),
        Role::Beside => exit::SOFTWARE,
    }
}

/// Where lines go while there is nobody to tell.
enum Log {
    Kernel(KernelLog),
    Stderr,
}

impl Log {
    fn new(role: Role) -> Self {
        match role {
            Role::Init => Self::Kernel(KernelLog::open()),
            Role::Beside => Self::Stderr,
        }
    }

    fn line(&self, line: &str) {
        match self {
            Self::Kernel(log) => log.line(line),
            Self::Stderr => eprintln!("activator: {line}"),
        }
    }

    /// Where the allocator complains.
    fn fd(&self) -> i32 {
        match self {
            Self::Kernel(log) => log.fd(),
            Self::Stderr => 2,
        }
    }

    /// Everything has stopped.
    fn end(self) -> u8 {
        match self {
            Self::Kernel(_) => boot::power_off(),
            Self::Stderr => exit::DONE,
        }
    }
}

/// The id of an index into the units; there are at most 65535 ([`Manifest::decode`]).
fn id(index: usize) -> UnitId {
    UnitId(index as u16)
}
