//! PID 1's chores, before and after the engine.
//!
//! In this order: a real root, mounts, the console, modules, sysctls, tmpfs over what is to be
//! writable with what the image has there, disks, loopback, the network's interface, host name, limits,
//! ctrl-alt-del. Only a missing manifest, a required module, a disk that cannot be mounted and the
//! engine's own start are worth giving up for; everything else leaves a line in the kernel's log.
//!
//! Where the manifest says that the root is on a disk, none of this is done, but what [`root`] says.
//!
//! **The root.** The kernel unpacks an initramfs into a root without a parent mount, and crun's
//! pivot_root(2) refuses such a one. So `/` is bound to `/sysroot`, that bind is moved onto `/`,
//! and we change our root to it: the same files, now a mount with a parent, and nothing copied.
//! It is then made read-only.

mod disk;
mod root;

pub(crate) use disk::note as note_disks;

use crate::engine::{Engine, Start, Vsock, now};
use crate::files;
use crate::populate;
use crate::reload;
use crate::reload::kept::Kept;
use crate::reload::state::{Place, Role};
use crate::start;
use crate::supervise::Supervisor;
use crate::sys;
use activator::manifest::{self, Boot, Manifest, Module};
use rustix::fs::{self, CWD, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{self, MountFlags, MountPropagationFlags};
use rustix::net::{self, AddressFamily, SocketFlags, SocketType};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::system::{self, RebootCommand};
use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

/// The empty directory of every image for the trick with the root.
const SYSROOT: &CStr = c"/sysroot";
/// statfs(2): RAMFS_MAGIC, TMPFS_MAGIC. An initramfs is one of the two.
const MEMORY_FILE_SYSTEMS: [i64; 2] = [0x8584_58f6, 0x0102_1994];
/// What a service gets as RLIMIT_NOFILE, as from systemd: soft for select(2), hard for who asks.
const FILES: (u64, u64) = (1024, 524_288);

/// Devices that udev's own rules (50-udev-default.rules) open to everybody, and the kernel does
/// not: a user's pasta and fuse-overlayfs use them. Their modules are loaded by then.
const FOR_EVERYBODY: [&CStr; 2] = [c"/dev/net/tun", c"/dev/fuse"];

/// Why PID 1 gives up.
#[derive(Debug)]
enum Fatal {
    /// The manifest cannot be read.
    Read(Errno),
    /// The manifest cannot be used.
    Decode(manifest::DecodeError),
    /// A required module cannot be loaded.
    Module(String, Errno),
    /// The disk with the root, or the activator in it, cannot be used.
    Root(String, Errno),
    /// A disk that keeps what is written cannot be mounted: what services write would be lost.
    Disk(String, Errno),
    Start(crate::engine::StartError),
    /// No console and no /dev/null.
    Console(Errno),
}

impl core::fmt::Display for Fatal {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Read(errno) => write!(f, "failed to read {}: {errno}", manifest::PATH),
            Self::Decode(error) => write!(f, "failed to use {}: {error}", manifest::PATH),
            Self::Module(path, errno) => write!(f, "failed to load {path}: {errno}"),
            Self::Root(path, errno) => write!(f, "failed to go to the root by {path}: {errno}"),
            Self::Disk(path, errno) => write!(f, "failed to mount the disk at {path}: {errno}"),
            Self::Start(error) => write!(f, "{error}"),
            Self::Console(errno) => write!(f, "failed to open the console: {errno}"),
        }
    }
}

/// The life of PID 1. It ends with the machine switched off.
pub(crate) fn main() -> ! {
    let began = now();
    let mut log = KernelLog { fd: None };
    let ended = live(began, &mut log);
    end(ended, &log)
}

/// PID 1 has lost all that it knew: everybody is killed, and all begins with the image's
/// manifest, but for the chores.
pub(crate) fn start_over() -> ! {
    // -1 is everybody but us.
    let _ = sys::kill(-1, libc::SIGKILL);
    // Whom these led to is gone, and nobody above us on the stack comes to life again.
    let _ = sys::close_from(3);
    let log = KernelLog::open();
    let ended = read_manifest().and_then(|(manifest, bytes)| {
        let files = raise_files(&mut Troubles::default());
        serve(manifest, &bytes, now(), files, &log)
    });
    end(ended, &log)
}

fn end(ended: Result<(), Fatal>, log: &KernelLog) -> ! {
    if let Err(fatal) = ended {
        log.line(&format!("{fatal}; powering off"));
        last_line(&format!("activator: {fatal}; powering off\n"));
    }
    power_off()
}

fn live(began: u64, log: &mut KernelLog) -> Result<(), Fatal> {
    let mut troubles = Troubles::default();
    let manifest = read_manifest();
    if let Ok((manifest, _)) = &manifest
        && let Some(root) = &manifest.boot.root
    {
        return Err(root::switch(manifest, root));
    }
    make_real_root(&mut troubles);
    mount_all(&mut troubles);
    *log = KernelLog::open();
    let (manifest, bytes) = manifest?;
    prepare(manifest, &mut troubles)?;
    let files = raise_files(&mut troubles);
    troubles.lines.drain(..).for_each(|line| log.line(&line));
    serve(manifest, &bytes, began, files, log)
}

fn read_manifest() -> Result<(&'static Manifest, Vec<u8>), Fatal> {
    let bytes = files::read(manifest::PATH).map_err(Fatal::Read)?;
    let manifest = Box::leak(Box::new(Manifest::decode(&bytes).map_err(Fatal::Decode)?));
    Ok((manifest, bytes))
}

fn serve(
    manifest: &'static Manifest,
    bytes: &[u8],
    began: u64,
    files: (u64, u64),
    log: &KernelLog,
) -> Result<(), Fatal> {
    let console = open_console().map_err(Fatal::Console)?;
    // The kernel's name for us.
    let name = start::name().unwrap_or("init");
    let place = Place {
        role: Role::Init,
        name: name.into(),
        path: manifest::PATH.into(),
        activator: activator::ACTIVATOR.into(),
        control: activator::control::SOCKET.into(),
        files: Some(files),
        ..Place::default()
    };
    note_disks(&manifest.boot.disks);
    let copy = reload::keep(bytes).map_err(Fatal::Read)?;
    let start = Start { manifest, copy, place, vsock: Vsock::Listen, console };
    let supervisor = Supervisor::new(manifest, began);
    let trouble = &mut |line: &str| log.line(line);
    let mut engine =
        Engine::new(start, supervisor, &mut Kept::default(), trouble).map_err(Fatal::Start)?;
    engine.run(log.fd());
    Ok(())
}

/// Ends what is left, writes what is not written, and switches off.
pub(crate) fn power_off() -> ! {
    // -1 is everybody but us.
    let _ = sys::kill(-1, libc::SIGKILL);
    fs::sync();
    disk::settle();
    loop {
        // Returns only without the privilege, which PID 1 lacks nowhere but in a container; there
        // its end is the end of the container.
        if system::reboot(RebootCommand::PowerOff).is_err() {
            start::exit(1);
        }
    }
}

/// Lines that are written once there is somewhere to write.
#[derive(Default)]
struct Troubles {
    lines: Vec<String>,
}

impl Troubles {
    fn note(&mut self, what: &str, result: Result<(), Errno>) {
        if let Err(errno) = result {
            self.lines.push(format!("failed to {what}: {errno}"));
        }
    }
}

/// /dev/kmsg, which keeps the lines of a boot that nobody watches, and never blocks.
pub(crate) struct KernelLog {
    fd: Option<OwnedFd>,
}

impl KernelLog {
    pub(crate) fn open() -> Self {
        let flags = OFlags::WRONLY | OFlags::CLOEXEC | OFlags::NOCTTY;
        Self { fd: fs::openat(CWD, c"/dev/kmsg", flags, Mode::empty()).ok() }
    }

    /// Its number; -1 is none.
    pub(crate) fn fd(&self) -> i32 {
        self.fd.as_ref().map_or(-1, AsRawFd::as_raw_fd)
    }

    pub(crate) fn line(&self, line: &str) {
        if let Some(fd) = &self.fd {
            // <28> is facility daemon, level warning. Nothing can be done if it is refused.
            let _ = rustix::io::write(fd, format!("<28>activator: {line}\n").as_bytes());
        }
    }
}

/// The last line is for a person who looks at the screen: the kernel gives init the console as
/// stderr. Where there was none, [`start`] has put /dev/null there.
fn last_line(line: &str) {
    let null = fs::stat(c"/dev/null").map(|null| null.st_rdev);
    let is_null = fs::fstat(std::io::stderr()).map(|stat| stat.st_rdev) == null;
    if (is_null || rustix::io::write(std::io::stderr(), line.as_bytes()).is_err())
        && let Ok(fd) = open_console()
    {
        let _ = rustix::io::write(&fd, line.as_bytes());
    }
}

fn open_console() -> Result<OwnedFd, Errno> {
    let flags = OFlags::WRONLY | OFlags::CLOEXEC | OFlags::NOCTTY;
    let open = |path: &CStr| fs::openat(CWD, path, flags, Mode::empty());
    // Without a console device there is still the kernel's log.
    open(c"/dev/console").or_else(|_| open(c"/dev/null"))
}

fn make_real_root(troubles: &mut Troubles) {
    let in_memory = fs::statfs(c"/").is_ok_and(|stat| MEMORY_FILE_SYSTEMS.contains(&stat.f_type));
    if !in_memory {
        // A disk: already a mount with a parent.
        return;
    }
    for path in ["/proc", "/sys", "/dev", "/run", "/tmp", "/sysroot"] {
        // An image has them; they cannot be made later.
        let _ = fs::mkdir(path, Mode::from_raw_mode(0o755));
    }
    let moved = (|| {
        mount::mount_bind(c"/", SYSROOT)?;
        rustix::process::chdir(SYSROOT)?;
        mount::mount_move(c".", c"/")?;
        rustix::process::chroot(c".")?;
        rustix::process::chdir(c"/")
    })();
    troubles.note("make the root a mount", moved);
}

fn mount_all(troubles: &mut Troubles) {
    let no = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    let quiet = MountFlags::NOSUID | MountFlags::NODEV;
    let mounts: [(&CStr, &CStr, MountFlags, Option<&CStr>); 9] = [
        (c"/proc", c"proc", no, None),
        (c"/sys", c"sysfs", no, None),
        (c"/dev", c"devtmpfs", MountFlags::NOSUID, Some(c"mode=755")),
        (
            c"/dev/pts",
            c"devpts",
            MountFlags::NOSUID | MountFlags::NOEXEC,
            Some(c"gid=5,mode=620,ptmxmode=666"),
        ),
        (c"/dev/shm", c"tmpfs", quiet, Some(c"mode=1777")),
        (c"/dev/mqueue", c"mqueue", no, None),
        (c"/run", c"tmpfs", quiet, Some(c"mode=755")),
        (c"/tmp", c"tmpfs", quiet, Some(c"mode=1777")),
        (c"/sys/fs/cgroup", c"cgroup2", no, Some(c"nsdelegate,memory_recursiveprot")),
    ];
    for (target, kind, flags, data) in mounts {
        // Those below /dev are not there yet.
        let _ = fs::mkdir(target, Mode::from_raw_mode(0o755));
        let mounted = match mount::mount(kind, target, kind, flags, data) {
            // The kernel has mounted devtmpfs itself.
            Err(Errno::BUSY) => Ok(()),
            other => other,
        };
        troubles.note(&format!("mount {}", target.to_string_lossy()), mounted);
    }
    for (link, target) in [
        (c"/dev/fd", c"/proc/self/fd"),
        (c"/dev/stdin", c"/proc/self/fd/0"),
        (c"/dev/stdout", c"/proc/self/fd/1"),
        (c"/dev/stderr", c"/proc/self/fd/2"),
    ] {
        // There already, if the image has them.
        let _ = fs::symlink(target, link);
    }
}

fn prepare(manifest: &Manifest, troubles: &mut Troubles) -> Result<(), Fatal> {
    let Boot { modules, writable, sysctls, disks, interface, root: _ } = &manifest.boot;
    for module in modules {
        match load(module) {
            // Built in, or loaded before.
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) if module.required => {
                return Err(Fatal::Module(module.path.clone(), errno));
            }
            Err(errno) => troubles.note(&format!("load {}", module.path), Err(errno)),
        }
    }
    for device in FOR_EVERYBODY {
        match fs::chmod(device, Mode::from_raw_mode(0o666)) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(errno) => troubles.note("open a device to everybody", Err(errno)),
        }
    }
    for directory in writable {
        let _ = fs::mkdir(directory.path.as_str(), Mode::from_raw_mode(0o755));
        let (uid, gid) = directory.owner;
        let mode = format!("mode={:o},uid={uid},gid={gid}", directory.mode);
        let mode = CString::new(mode).unwrap_or_default();
        let flags = MountFlags::NOSUID | MountFlags::NODEV;
        let hidden = populate::open(&directory.path);
        let mounted = mount::mount(c"tmpfs", directory.path.as_str(), c"tmpfs", flags, &*mode);
        let hidden = hidden.filter(|_| mounted.is_ok());
        troubles.note(&format!("mount {}", directory.path), mounted);
        fill(&directory.path, hidden, troubles);
    }
    for disk in disks {
        let hidden = populate::open(&disk.path);
        disk::mount(disk).map_err(|errno| Fatal::Disk(disk.path.clone(), errno))?;
        fill(&disk.path, hidden, troubles);
    }
    // Now that all mount points are there.
    let flags = MountFlags::BIND | MountFlags::RDONLY;
    troubles.note("make the root read-only", mount::mount_remount(c"/", flags, c""));
    let shared = MountPropagationFlags::SHARED | MountPropagationFlags::REC;
    troubles.note("share the mounts", mount::mount_change(c"/", shared));
    for (name, value) in sysctls {
        let written = files::set(&format!("/proc/sys/{name}"), value);
        troubles.note(&format!("set {name}"), written);
    }
    troubles.note("bring the loopback up", loopback_up());
    if let Some(interface) = interface {
        let set_up = activator::interface::set_up(interface);
        troubles.note(&format!("set up {}", interface.name), set_up);
    }
    troubles.note("set the host name", system::sethostname(manifest.name.as_bytes()));
    // Ctrl-alt-del becomes SIGINT for us. In a PID namespace there is no such key.
    let _ = system::reboot(RebootCommand::CadOff);
    Ok(())
}

/// Raises our limit of open files as far as it goes; what children get.
fn raise_files(troubles: &mut Troubles) -> (u64, u64) {
    let (soft, hard) = FILES;
    let raised = Rlimit { current: Some(hard), maximum: Some(hard) };
    if setrlimit(Resource::Nofile, raised).is_ok() {
        return FILES;
    }
    // A container's PID 1 may not raise the hard limit.
    let limit = getrlimit(Resource::Nofile);
    let most = limit.maximum.unwrap_or(hard).min(hard);
    let raised = Rlimit { current: Some(most), ..limit };
    troubles.note("raise the limit of open files", setrlimit(Resource::Nofile, raised));
    (soft.min(most), most)
}

/// What the image has where something was mounted.
fn fill(path: &str, hidden: Option<OwnedFd>, troubles: &mut Troubles) {
    if let Some(hidden) = hidden {
        troubles.note(&format!("fill {path}"), populate::fill(path, &hidden));
    }
}

fn load(module: &Module) -> Result<(), Errno> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let file = fs::openat(CWD, module.path.as_str(), flags, Mode::empty())?;
    let parameters = CString::new(module.parameters.as_str()).map_err(|_| Errno::INVAL)?;
    system::finit_module(&file, &parameters, 0)
}

fn loopback_up() -> Result<(), Errno> {
    let flags = SocketFlags::CLOEXEC;
    let socket = net::socket_with(AddressFamily::INET, SocketType::DGRAM, flags, None)
        .or_else(|_| net::socket_with(AddressFamily::UNIX, SocketType::DGRAM, flags, None))?;
    sys::loopback_up(socket.as_fd())
}
