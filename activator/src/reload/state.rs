//! The state as bytes: a header, then a [`State`] ([`activator::wire`]).
//!
//! The reader may be another version of the activator: it skips fields that it does not know, and
//! takes zeros for those that lack. It is no input from anybody: we wrote it a moment ago into a
//! memfd that nobody else has.
//!
//! | bytes | |
//! |---|---|
//! | 8 | [`MAGIC`] |
//! | 4 | [`VERSION`], little endian |
//! | 4 | CRC-32 (ISO-HDLC) of the rest, little endian |
//! | rest | [`State`] |
//!
//! Writing allocates nothing: the memfd gets its size and is mapped.
#![allow(unsafe_code)]

use super::fd::{Arriving, Leaving};
use crate::connection;
use crate::files;
use crate::link;
use crate::logger;
use crate::store;
use crate::supervise::{self, Machine};
use activator::manifest::{Address, ListenKind};
use activator::wire;
use activator::wire::{Put, Raw, Writer};
use rustix::fs::{FallocateFlags, MemfdFlags, fallocate, memfd_create};
use rustix::io::Errno;
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};
use std::os::fd::OwnedFd;

/// First bytes of a state.
const MAGIC: [u8; 8] = *b"rouse\0S\n";
/// See the table above.
const VERSION: u32 = activator::needs::STATE_VERSION;
/// Bytes before the JSON.
const HEADER: usize = 16;
/// Larger states are none of ours.
const LARGEST: u64 = 256 << 20;

const CRC: crc::Crc<u32> = crc::Crc::<u32>::new(&crc::CRC_32_ISO_HDLC);

/// Why a state cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StateError {
    /// Its fd cannot be read: errno.
    Read(i32),
    /// The first bytes are not [`MAGIC`].
    NotAState,
    /// Of another version; that version.
    Version(u32),
    /// Truncated, the checksum does not fit, or it is not what [`State`] says.
    Damaged,
}

impl core::fmt::Display for StateError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Read(errno) => {
                write!(f, "cannot be read: {}", std::io::Error::from_raw_os_error(*errno))
            }
            Self::NotAState => f.write_str("is none"),
            Self::Version(found) => {
                write!(f, "has version {found}, this activator reads {VERSION}")
            }
            Self::Damaged => f.write_str("is damaged"),
        }
    }
}

/// How the activator runs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Role {
    /// PID 1 of an appliance.
    Init,
    /// Beside another init.
    #[default]
    Beside,
}

/// Where the activator has its things; the same over all reloads, but for the paths.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) role: Role,
    /// argv\[0\], which it keeps.
    pub(crate) name: String,
    /// Path of the manifest that is in force, for logd and stage 2.
    pub(crate) path: String,
    /// Path of the manifest that SIGHUP reads; PID 1 has none.
    pub(crate) source: Option<String>,
    /// Path of the program for logd and stage 2.
    pub(crate) activator: String,
    /// Path of the control socket; all that the activator makes is beside it.
    pub(crate) control: String,
    /// RLIMIT_NOFILE for children, if they do not simply inherit ours.
    pub(crate) files: Option<(u64, u64)>,
    /// Reloads so far.
    pub(crate) generation: u64,
    /// Files of the generation before, removed by the next reload: until then a child that was
    /// just made may still read them.
    pub(crate) retired: Vec<String>,
}

/// All that is handed over. `F` is [`Leaving`] or [`Arriving`], `P` the place and `U` the units in
/// either form.
#[derive(Debug)]
pub(crate) struct State<P, F, U> {
    pub(crate) place: P,
    pub(crate) machine: Machine,
    /// The manifest that was in force.
    pub(crate) manifest: F,
    /// The one to take.
    pub(crate) new: Option<F>,
    /// Whether another program than before is executed.
    pub(crate) program: Program,
    /// With [`Program::New`], what children are to execute.
    pub(crate) activator: Option<F>,
    /// The program of the process that leaves.
    pub(crate) way_back: F,
    pub(crate) link: link::Saved<F>,
    pub(crate) logger: logger::Saved<F>,
    pub(crate) units: U,
}

/// What is executed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Program {
    /// The one that ran.
    #[default]
    Same,
    /// Another: children get a copy of what comes with it, and logd is started anew.
    New,
}

/// One unit, or instance, on its way out.
pub(crate) struct Out<'a, L> {
    /// The lingering user whose it is.
    pub(crate) owner: Option<&'a str>,
    /// Its name; an instance has that of its socket unit.
    pub(crate) name: &'a str,
    /// Which of the socket unit's slots the instance is in.
    pub(crate) slot: Option<usize>,
    /// Open listeners.
    pub(crate) listeners: L,
    pub(crate) notify: Option<Leaving<'a>>,
    pub(crate) log: Option<(Leaving<'a>, Leaving<'a>)>,
    pub(crate) sessions: [i32; 2],
    pub(crate) connection: Option<connection::Saved<Leaving<'a>>>,
    pub(crate) store: Option<store::Leave<'a>>,
    /// The main process of a service.
    pub(crate) main: Option<u32>,
    pub(crate) state: Option<&'a supervise::Unit>,
}

/// One that has come, as [`Out`].
#[derive(Debug, Default)]
pub(crate) struct In {
    pub(crate) owner: Option<String>,
    pub(crate) name: String,
    pub(crate) slot: Option<usize>,
    pub(crate) listeners: Vec<Listener<Address, Arriving>>,
    pub(crate) notify: Option<Arriving>,
    pub(crate) log: Option<(Arriving, Arriving)>,
    pub(crate) sessions: [i32; 2],
    pub(crate) connection: Option<connection::Saved<Arriving>>,
    pub(crate) store: Option<Vec<store::Saved<Arriving>>>,
    pub(crate) main: Option<u32>,
    /// A [`supervise::Unit`], read on its own, so that what cannot be read of one unit is no
    /// trouble for the others.
    pub(crate) state: Option<Raw>,
}

impl In {
    /// Closes what nobody has taken.
    pub(crate) fn sweep(&self) {
        let listeners = self.listeners.iter().map(|listener| listener.fd);
        let logs = self.log.iter().flat_map(|(read, write)| [*read, *write]);
        let stored = self.store.iter().flatten().map(|stored| stored.fd);
        let connection = self.connection.iter().filter_map(connection::Saved::fd);
        let all = listeners.chain(self.notify).chain(logs).chain(stored).chain(connection);
        all.for_each(|fd| drop(fd.take()));
    }
}

/// One open listener.
#[derive(Debug, Clone)]
pub(crate) struct Listener<A, F> {
    /// Its index among the Listen lines.
    pub(crate) index: u16,
    pub(crate) kind: ListenKind,
    pub(crate) address: A,
    pub(crate) fd: F,
}

/// What has come.
pub(crate) type Arrived = State<Place, Arriving, Vec<In>>;

wire! {
    enum Role { Beside, Init }
    struct Place {
        role, name, path, source, activator, control, files, generation, retired
    }
    struct State<P, F, U> {
        place, machine, manifest, new, program, activator, way_back, link, logger, units
    }
    enum Program { Same, New }
    struct In {
        owner, name, slot, listeners, notify, log, sessions, connection, store, main, state
    }
    struct Listener<A, F> { index, kind, address, fd }
}

impl<L: Put> Put for Out<'_, L> {
    fn put(&self, to: &mut Writer<'_>) {
        // As `In` stands in the list.
        let Self {
            owner,
            name,
            slot,
            listeners,
            notify,
            log,
            sessions,
            connection,
            store,
            main,
            state,
        } = self;
        let start = to.open();
        owner.put(to);
        name.put(to);
        slot.put(to);
        listeners.put(to);
        notify.put(to);
        log.put(to);
        sessions.put(to);
        connection.put(to);
        store.put(to);
        main.put(to);
        state.put(to);
        to.close(start);
    }
}

/// Writes a state into a memfd, which is not close-on-exec.
pub(crate) fn write(state: &dyn Put) -> Result<OwnedFd, Errno> {
    let memory = memfd_create(c"rouse-state", MemfdFlags::empty())?;
    let length = HEADER + wire::length(state);
    // With its pages: a write that finds no memory for one is no error, but a signal.
    fallocate(&memory, FallocateFlags::empty(), 0, length as u64)?;
    let protection = ProtFlags::READ | ProtFlags::WRITE;
    let anywhere = std::ptr::null_mut();
    // SAFETY: a new mapping, wherever the kernel likes, takes nothing away from anybody.
    let start = unsafe { mmap(anywhere, length, protection, MapFlags::SHARED, &memory, 0)? };
    // SAFETY: it is mapped for reading and writing in that length, and nobody else has the memfd
    // that is behind it, so it neither changes nor shrinks while the slice is there.
    let bytes = unsafe { std::slice::from_raw_parts_mut(start.cast::<u8>(), length) };
    fill(bytes, state);
    // SAFETY: the slice was used for the last time.
    unsafe { munmap(start, length)? };
    Ok(memory)
}

fn fill(bytes: &mut [u8], state: &dyn Put) {
    let Some((header, body)) = bytes.split_first_chunk_mut::<HEADER>() else { return };
    state.put(&mut Writer::new(body));
    header[..8].copy_from_slice(&MAGIC);
    header[8..12].copy_from_slice(&VERSION.to_le_bytes());
    header[12..].copy_from_slice(&CRC.checksum(body).to_le_bytes());
}

/// Reads one.
pub(crate) fn read(fd: Arriving) -> Result<Arrived, StateError> {
    let bytes = read_all(fd).map_err(|errno| StateError::Read(errno.raw_os_error()))?;
    parse(&bytes)
}

/// All that is in a memfd, from its beginning.
pub(crate) fn read_all(fd: Arriving) -> Result<Vec<u8>, Errno> {
    fd.peek(|fd| files::read_from(fd, LARGEST)).unwrap_or(Err(Errno::BADF))
}

fn parse(bytes: &[u8]) -> Result<Arrived, StateError> {
    let rest = bytes.strip_prefix(&MAGIC).ok_or(StateError::NotAState)?;
    let (version, rest) = rest.split_first_chunk::<4>().ok_or(StateError::Damaged)?;
    let (sum, body) = rest.split_first_chunk::<4>().ok_or(StateError::Damaged)?;
    match u32::from_le_bytes(*version) {
        VERSION => {}
        other => return Err(StateError::Version(other)),
    }
    if CRC.checksum(body) != u32::from_le_bytes(*sum) {
        return Err(StateError::Damaged);
    }
    wire::from_bytes(body).map_err(|_| StateError::Damaged)
}
