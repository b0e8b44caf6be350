//! The services' cgroups: `/sys/fs/cgroup/rouse/UNIT`, of users `.../rouse/user-UID/UNIT`, made at
//! boot and kept. Those of instances are below their template's, made for the first connection in
//! a slot and kept for the next.
//!
//! A container's processes of ours run one level below, in `runtime`: crun puts the container
//! into `payload` beside it, and a cgroup that gives controllers to its children may hold no
//! process itself (cgroups(7), "no internal processes").

mod delegated;

use crate::files;
use crate::program::decimal;
use crate::slots::Slots;
use activator::bpf::{self, Hook};
use activator::manifest::{Manifest, Service, Unit, UnitKind};
use rustix::fs::{self, CWD, FileType, Mode, OFlags, RawDir};
use rustix::io::{self, Errno};
use std::cell::Cell;
use std::ffi::CStr;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// Where cgroup2 is mounted.
pub(crate) const MOUNT: &str = "/sys/fs/cgroup";
/// The directory of all services' cgroups.
pub(crate) const TREE: &str = "/sys/fs/cgroup/rouse";
/// statfs(2): CGROUP2_SUPER_MAGIC.
const MAGIC: i64 = 0x6367_7270;

/// Reads of cgroup.procs at most, each of some seventy pids: more than PID_MAX_DEFAULT.
const READS: usize = 1024;
/// Cgroups below a service's that are looked into at most, and how deep.
const GROUPS: usize = 256;
const DEPTH: usize = 8;

/// One service's cgroup, all of its fds open.
#[derive(Debug)]
pub(crate) struct Group {
    /// Where children are born.
    directory: OwnedFd,
    /// cgroup.events: `populated 1` while any process is in it or below.
    events: OwnedFd,
    /// The whole of it, with what its processes have made below.
    root: OwnedFd,
    /// With `Delegate=yes`, where all but the main process are born.
    control: Option<OwnedFd>,
    /// cgroup.kill, Linux 5.14.
    kill: Option<OwnedFd>,
    /// That has been used: see [`Entry::Moved`].
    killed: Cell<bool>,
    /// cgroup.freeze, of a service that is stopped or frozen when idle.
    freeze: Option<OwnedFd>,
}

/// What is born into a service's cgroup.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Child {
    /// `ExecStart=`
    Main,
    /// Any other command.
    Command,
}

/// How a child comes into its cgroup.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Entry<'a> {
    /// It stays where PID 1 is.
    Nowhere,
    /// CLONE_INTO_CGROUP: there is no moment in which it is elsewhere.
    Born(BorrowedFd<'a>),
    /// By its own write to cgroup.procs, before it does anything else. Where cgroup.kill was used
    /// once, some kernels kill whatever is born: since "cgroup: fix race between fork and
    /// cgroup.kill" (6.14, and stable kernels from February 2025 on) they compare the count of kills
    /// in the new cgroup with that in the parent's. Seen with 6.18.44.
    Moved(BorrowedFd<'a>),
}

/// Whose services may be in the tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tree {
    /// Nobody's, as we have just begun.
    New,
    /// Our own, after a reload.
    Ours,
}

/// Whether services get cgroups: cgroup2 is there, and writable, and nobody else's services are
/// in the tree.
pub(crate) fn available(tree: Tree) -> bool {
    let Ok(stat) = fs::statfs(MOUNT) else { return false };
    if stat.f_type != MAGIC {
        return false;
    }
    give_controllers(MOUNT);
    match fs::mkdir(TREE, Mode::from_raw_mode(0o755)) {
        Ok(()) => {}
        Err(Errno::EXIST) if tree == Tree::Ours => {}
        Err(Errno::EXIST) => {
            let events = files::read(&format!("{TREE}/cgroup.events")).unwrap_or_default();
            if !events.split(|byte| *byte == b'\n').any(|line| line == b"populated 0") {
                return false;
            }
        }
        Err(_) => return false,
    }
    give_controllers(TREE);
    true
}

impl Group {
    /// Makes the cgroup of a service and writes its settings. A setting that the kernel refuses
    /// is returned, the rest goes on. `place` is [`Manifest::place`].
    pub(crate) fn make(place: &str, service: &Service) -> Result<(Self, Vec<String>), Errno> {
        let path = format!("{TREE}/{place}");
        let make = |path: &str| made(fs::mkdir(path, Mode::from_raw_mode(0o755)));
        if let Some((user, _)) = place.split_once('/') {
            let above = format!("{TREE}/{user}");
            make(&above)?;
            give_controllers(&above);
        }
        let is_new = make(&path)?;
        let mut refused = vec![];
        let open =
            |path: String, flags| fs::openat(CWD, path, flags | OFlags::CLOEXEC, Mode::empty());
        let root = open(path.clone(), OFlags::RDONLY | OFlags::DIRECTORY)?;
        set_all(root.as_fd(), is_new, service, |file, errno| {
            refused.push(format!("{place}: {file}: {errno}"));
        });
        let inner = match service.container {
            Some(_) => {
                give_controllers(&path);
                format!("{path}/runtime")
            }
            None => path.clone(),
        };
        make(&inner)?;
        let control = match service.delegate && service.container.is_none() {
            true => Some(delegated::make_control(root.as_fd())?),
            false => None,
        };
        if let (Some(control), Some(user)) = (&control, &service.execution.user) {
            // What it cannot write it cannot share out: the service says so when it starts.
            let given = delegated::give(root.as_fd(), user.uid, user.gid);
            let given = given.and_then(|()| delegated::give(control.as_fd(), user.uid, user.gid));
            refused.extend(given.err().map(|errno| format!("{place}: Delegate=: {errno}")));
        }
        let kill = open(format!("{path}/cgroup.kill"), OFlags::WRONLY).ok();
        let group = Self {
            directory: open(inner.clone(), OFlags::RDONLY | OFlags::DIRECTORY)?,
            events: open(format!("{path}/cgroup.events"), OFlags::RDONLY)?,
            root,
            control,
            killed: was_used(kill.as_ref()),
            kill,
            freeze: (service.stop_when_idle_us > 0 || service.freeze_when_idle_us > 0)
                .then(|| open(format!("{path}/cgroup.freeze"), OFlags::WRONLY).ok())
                .flatten(),
        };
        Ok((group, refused))
    }

    /// Makes the cgroup of an instance below that of its template. Nothing is allocated.
    pub(crate) fn make_instance(&self, position: usize, service: &Service) -> Result<Self, Errno> {
        let mut digits = [0; 10];
        let name = decimal(u32::try_from(position).unwrap_or(u32::MAX), &mut digits);
        let open = |at: BorrowedFd, name: &[u8], flags| {
            let name = Stacked::new(name);
            fs::openat(at, name.as_c_str(), flags | OFlags::CLOEXEC, Mode::empty())
        };
        let within = OFlags::RDONLY | OFlags::DIRECTORY;
        let mode = Mode::from_raw_mode(0o755);
        let is_new = made(fs::mkdirat(self.directory(), Stacked::new(name).as_c_str(), mode))?;
        let outer = open(self.directory(), name, within)?;
        // What the kernel refuses was told of when the template's was made.
        set_all(outer.as_fd(), is_new, service, |_, _| ());
        let events = open(outer.as_fd(), b"cgroup.events", OFlags::RDONLY)?;
        let kill = open(outer.as_fd(), b"cgroup.kill", OFlags::WRONLY).ok();
        let root = open(outer.as_fd(), b".", within)?;
        let control = match service.delegate {
            true => Some(delegated::make_control(outer.as_fd())?),
            false => None,
        };
        let killed = was_used(kill.as_ref());
        Ok(Self { directory: outer, root, control, events, kill, killed, freeze: None })
    }

    /// The service's own.
    fn directory(&self) -> BorrowedFd<'_> {
        self.directory.as_fd()
    }

    /// Where a child is to be.
    pub(crate) fn entry(&self, child: Child) -> Entry<'_> {
        match self.killed.get() {
            true => Entry::Moved(self.place_of(child)),
            false => Entry::Born(self.place_of(child)),
        }
    }

    fn place_of(&self, child: Child) -> BorrowedFd<'_> {
        match (&self.control, child) {
            (None, _) => self.directory(),
            (Some(control), Child::Command) => control.as_fd(),
            // What outlived the last run (KillMode=process) keeps its cgroup.
            (Some(control), Child::Main) => match delegated::sweep(self.root.as_fd()) {
                true => self.directory(),
                false => control.as_fd(),
            },
        }
    }

    /// Becomes ready (POLLPRI) when a process came first or went last.
    pub(crate) fn events(&self) -> BorrowedFd<'_> {
        self.events.as_fd()
    }

    /// Whether any process is in it or below. When there is none, what they made goes as well.
    pub(crate) fn is_populated(&self) -> bool {
        let populated = self.says(b"populated 1");
        if !populated && self.control.is_some() {
            delegated::sweep(self.root.as_fd());
        }
        populated
    }

    /// Whether all processes in it and below are frozen.
    pub(crate) fn is_frozen(&self) -> bool {
        self.says(b"frozen 1")
    }

    /// Begins to freeze all of them. False if that cannot be.
    pub(crate) fn freeze(&self) -> bool {
        self.freeze.as_ref().is_some_and(|freeze| io::write(freeze, b"1").is_ok())
    }

    /// Lets them go on. Nothing if they do.
    pub(crate) fn thaw(&self) {
        if let Some(freeze) = &self.freeze {
            // The kernel has no reason to refuse.
            let _ = io::write(freeze, b"0");
        }
    }

    /// Whether it can be frozen at all.
    pub(crate) fn freezes(&self) -> bool {
        self.freeze.is_some()
    }

    /// Whether cgroup.events has that line.
    fn says(&self, wanted: &[u8]) -> bool {
        let mut text = [0; 256];
        // If it cannot be read, nothing can be said; then waiting would be for ever.
        let length = io::pread(&self.events, &mut text, 0).unwrap_or(0);
        text[..length].split(|byte| *byte == b'\n').any(|line| line == wanted)
    }

    /// Kills all that is in it and below. False if this kernel cannot.
    pub(crate) fn kill(&self) -> bool {
        let Some(kill) = &self.kill else { return false };
        self.killed.set(true);
        // For the activator that comes after a reload.
        let _ = fs::fchmod(kill, USED);
        io::write(kill, b"1").is_ok()
    }

    /// Calls for each process in it and below. One that forks faster than we read, or makes more
    /// cgroups than that, is not followed for ever.
    pub(crate) fn each_process(&self, mut call: impl FnMut(i32)) {
        each_in(self.root.as_fd(), &mut Budget { reads: READS, groups: GROUPS }, 0, &mut call);
    }
}

/// Whether it was not there before.
fn made(result: Result<(), Errno>) -> Result<bool, Errno> {
    match result {
        Ok(()) => Ok(true),
        Err(Errno::EXIST) => Ok(false),
        Err(errno) => Err(errno),
    }
}

/// Writes a service's settings. In a cgroup of an activator before, what the new manifest does not
/// set is as in a new one, and programs are gone of which the new one has none. Nothing is allocated.
fn set_all(
    group: BorrowedFd<'_>,
    is_new: bool,
    service: &Service,
    mut refused: impl FnMut(&str, Errno),
) {
    let set = |file: &str, value: &str| {
        let name = Stacked::new(file.as_bytes());
        let flags = OFlags::WRONLY | OFlags::CLOEXEC;
        let file = fs::openat(group, name.as_c_str(), flags, Mode::empty())?;
        io::write(&file, value.as_bytes()).map(drop)
    };
    if !is_new {
        for (file, value) in Service::CGROUP_DEFAULTS {
            if !service.cgroup.iter().any(|(other, _)| other == file) {
                // A controller that is not there has no file.
                let _ = set(file, value);
            }
        }
        let sandbox = service.execution.stage2.as_deref().map(|stage2| &stage2.sandbox);
        let devices = sandbox.is_some_and(|sandbox| sandbox.devices.is_some());
        let addresses = sandbox.is_some_and(|sandbox| !sandbox.denied_addresses.is_empty());
        for (hook, stays) in
            [(Hook::Device, devices), (Hook::Ingress, addresses), (Hook::Egress, addresses)]
        {
            if !stays {
                // A kernel that knows no programs has none.
                let _ = bpf::replace(group, hook, None);
            }
        }
    }
    for (file, value) in &service.cgroup {
        if let Err(errno) = set(file, value) {
            refused(file, errno);
        }
    }
}

/// The mode of a cgroup.kill that was used. It is root's, whom no mode keeps out.
const USED: Mode = Mode::empty();

fn was_used(kill: Option<&OwnedFd>) -> Cell<bool> {
    let mode = kill.and_then(|kill| fs::fstat(kill).ok()).map(|stat| stat.st_mode & 0o777);
    Cell::new(mode == Some(USED.as_raw_mode()))
}

/// How much is read at most.
struct Budget {
    reads: usize,
    groups: usize,
}

fn each_in(group: BorrowedFd, budget: &mut Budget, depth: usize, call: &mut impl FnMut(i32)) {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    if let Ok(processes) = fs::openat(group, c"cgroup.procs", flags, Mode::empty()) {
        each_listed(&processes, budget, call);
    }
    if depth == DEPTH {
        return;
    }
    // Afresh, so that the place in the directory is ours.
    let flags = flags | OFlags::DIRECTORY;
    let Ok(directory) = fs::openat(group, c".", flags, Mode::empty()) else { return };
    let mut buffer = [MaybeUninit::uninit(); 1024];
    let mut entries = RawDir::new(&directory, &mut buffer);
    while let Some(Ok(entry)) = entries.next() {
        let name = entry.file_name();
        let below = entry.file_type() == FileType::Directory && name != c"." && name != c"..";
        if !below || budget.groups == 0 {
            continue;
        }
        budget.groups -= 1;
        if let Ok(group) = fs::openat(&directory, name, flags, Mode::empty()) {
            each_in(group.as_fd(), budget, depth + 1, call);
        }
    }
}

fn each_listed(processes: &OwnedFd, budget: &mut Budget, call: &mut impl FnMut(i32)) {
    let mut text = [0; 512];
    let mut pid: i32 = 0;
    while budget.reads > 0 {
        budget.reads -= 1;
        let Ok(length @ 1..) = io::read(processes, &mut text) else { return };
        for byte in text.get(..length).unwrap_or_default() {
            match byte {
                b'0'..=b'9' => {
                    pid = pid.wrapping_mul(10).wrapping_add(i32::from(byte - b'0'));
                }
                _ if pid > 0 => call(std::mem::take(&mut pid)),
                _ => pid = 0,
            }
        }
    }
}

/// The groups of all services, at the units' indices; all None without cgroups. Behind them those
/// of instances, to be made later.
pub(crate) fn make_all(
    manifest: &Manifest,
    slots: &Slots,
    tree: Tree,
) -> (Box<[Option<Group>]>, Vec<String>) {
    let mut troubles = vec![];
    let available = available(tree);
    let mut group = |unit: &Unit| match &unit.kind {
        UnitKind::Service(service) if available => {
            match Group::make(&manifest.place(unit), service) {
                Ok((group, refused)) => {
                    troubles.extend(refused);
                    Some(group)
                }
                Err(errno) => {
                    troubles.push(format!("{}: cgroup: {errno}", unit.name));
                    None
                }
            }
        }
        _ => None,
    };
    let mut groups: Vec<_> = manifest.units.iter().map(&mut group).collect();
    for (_, slot) in slots.iter() {
        if groups.get(slot.template.index()).is_some_and(Option::is_some)
            && let Some(template) = manifest.unit(slot.template)
        {
            give_controllers(&format!("{TREE}/{}", manifest.place(template)));
        }
        groups.push(None);
    }
    (groups.into(), troubles)
}

/// A short name as a C string on the stack.
struct Stacked([u8; 64]);

impl Stacked {
    /// What does not fit is cut off, and then names no file of a cgroup.
    fn new(name: &[u8]) -> Self {
        let mut bytes = [0; 64];
        let length = name.len().min(63);
        bytes[..length].copy_from_slice(&name[..length]);
        Self(bytes)
    }

    fn as_c_str(&self) -> &CStr {
        CStr::from_bytes_until_nul(&self.0).unwrap_or_default()
    }
}

/// Gives all controllers to the children. One at a time, since one that cannot be given (taken
/// by cgroup v1, or processes in the way) fails the whole write.
fn give_controllers(path: &str) {
    let controllers = files::read(&format!("{path}/cgroup.controllers"));
    let Ok(controllers) = String::from_utf8(controllers.unwrap_or_default()) else { return };
    let shared = format!("{path}/cgroup.subtree_control");
    for controller in controllers.split([' ', '\n']).filter(|it| !it.is_empty()) {
        let _ = files::set(&shared, &format!("+{controller}"));
    }
}
