//! The system calls of stage 2 that rustix does not offer, or not in this form.
#![allow(unsafe_code)]

use super::error::{Error, Failed};
use rustix::io::Errno;
use rustix::thread::UnshareFlags;
use std::ffi::{CString, c_char, c_int};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// A text as C wants it.
pub(super) fn c_string(text: &str) -> Result<CString, Failed> {
    CString::new(text).map_err(|_| Error::Nul(text.to_owned()).into())
}

/// The same for each of several.
pub(super) fn c_strings(texts: &[String]) -> Result<Vec<CString>, Failed> {
    texts.iter().map(|text| c_string(text)).collect()
}

/// prlimit(2) of this process; u64::MAX is infinity.
pub(super) fn set_limit(resource: u32, soft: u64, hard: u64) -> Result<(), Errno> {
    let nothing = std::ptr::null_mut::<u64>();
    // SAFETY: the kernel's rlimit64 is two u64; an unknown resource is an error.
    let set = |limit: [u64; 2]| unsafe {
        libc::syscall(libc::SYS_prlimit64, 0, resource, limit.as_ptr(), nothing)
    };
    let mut done = set([soft, hard]);
    if done < 0 {
        // Without CAP_SYS_RESOURCE, as near as may be: systemd's setrlimit_closest.
        let mut now = [0u64; 2];
        let nothing = std::ptr::null::<u64>();
        // SAFETY: the kernel writes two u64.
        unsafe { libc::syscall(libc::SYS_prlimit64, 0, resource, nothing, now.as_mut_ptr()) };
        done = set([soft.min(now[1]), hard.min(now[1])]);
    }
    check(done as c_int)
}

/// Whether SIGPIPE is ignored, or ends the process.
pub(super) fn ignore_broken_pipes(ignore: bool) {
    let disposition = if ignore { libc::SIG_IGN } else { libc::SIG_DFL };
    // SAFETY: neither disposition is code of ours.
    unsafe { libc::signal(libc::SIGPIPE, disposition) };
}

/// sched_setscheduler(2) of this process, with SCHED_RESET_ON_FORK in the policy. By the raw
/// call: musl's own refuses it.
pub(super) fn set_scheduler(policy: u32, priority: u32) -> Result<(), Errno> {
    // SAFETY: the kernel's sched_param is one int.
    check(unsafe {
        libc::syscall(libc::SYS_sched_setscheduler, 0, policy, &raw const priority) as c_int
    })
}

/// ioprio_set(2) of this process.
pub(super) fn set_io_priority(priority: u32) -> Result<(), Errno> {
    const IOPRIO_WHO_PROCESS: c_int = 1;
    // SAFETY: takes numbers only.
    check(unsafe { libc::syscall(libc::SYS_ioprio_set, IOPRIO_WHO_PROCESS, 0, priority) as c_int })
}

/// Gives this process a session keyring of its own, keyctl(2).
pub(super) fn join_new_session_keyring() -> Result<(), Errno> {
    const KEYCTL_JOIN_SESSION_KEYRING: c_int = 1;
    // SAFETY: takes a number and no name.
    check(unsafe {
        libc::syscall(libc::SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, 0, 0, 0, 0) as c_int
    })
}

/// Puts the keyring of this process' user into its session keyring.
pub(super) fn link_user_keyring() -> Result<(), Errno> {
    const KEYCTL_LINK: c_int = 8;
    const KEY_SPEC_SESSION_KEYRING: c_int = -3;
    const KEY_SPEC_USER_KEYRING: c_int = -4;
    // SAFETY: takes numbers.
    check(unsafe {
        libc::syscall(
            libc::SYS_keyctl,
            KEYCTL_LINK,
            KEY_SPEC_USER_KEYRING,
            KEY_SPEC_SESSION_KEYRING,
            0,
            0,
        ) as c_int
    })
}

/// Makes and removes files with the rights of this user from now on, setfsuid(2); as root again
/// with 0. Neither can fail for root, nor say so.
pub(super) fn act_as(uid: u32, gid: u32) {
    // SAFETY: both take a number.
    unsafe {
        libc::syscall(libc::SYS_setfsgid, gid);
        libc::syscall(libc::SYS_setfsuid, uid);
    }
}

/// Leaves namespaces of these kinds for new ones.
pub(super) fn leave(kinds: UnshareFlags) -> Result<(), Errno> {
    // SAFETY: namespaces only; no table of fds or working directory that threads share.
    unsafe { rustix::thread::unshare_unsafe(kinds) }
}

/// Leaves the mount namespace for a copy of it.
pub(super) fn leave_mounts() -> Result<(), Errno> {
    leave(UnshareFlags::NEWNS)
}

/// What a mount is to have beyond what it has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct MountFlags {
    pub(super) read_only: bool,
    pub(super) no_exec: bool,
}

/// mount_setattr(2), Linux 5.12, of the one mount whose root this is.
pub(super) fn set_mount_flags(mount: BorrowedFd, flags: MountFlags) -> Result<(), Errno> {
    /// struct mount_attr
    #[repr(C)]
    #[derive(Default)]
    struct Attributes {
        set: u64,
        clear: u64,
        propagation: u64,
        user_namespace: u64,
    }
    let mut attributes = Attributes::default();
    if flags.read_only {
        attributes.set |= libc::MOUNT_ATTR_RDONLY;
    }
    if flags.no_exec {
        attributes.set |= libc::MOUNT_ATTR_NOEXEC;
    }
    // SAFETY: an empty C string, and pointer and size of a live structure of that layout.
    check(unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            &raw const attributes,
            size_of::<Attributes>(),
        ) as c_int
    })
}

/// Installs a seccomp filter for this process.
pub(super) fn install_filter(instructions: &[libc::sock_filter]) -> Result<(), Errno> {
    let length = u16::try_from(instructions.len()).map_err(|_| Errno::INVAL)?;
    let program = libc::sock_fprog { len: length, filter: instructions.as_ptr().cast_mut() };
    // SAFETY: the program is live and as long as it says; the kernel only reads it.
    check(unsafe {
        libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program, 0, 0)
    })
}

/// PR_SET_MDWE, Linux 6.3: no memory becomes executable that was not from the start.
pub(super) fn refuse_executable_memory() -> Result<(), Errno> {
    const PR_SET_MDWE: c_int = 65;
    const PR_MDWE_REFUSE_EXEC_GAIN: c_int = 1;
    // SAFETY: takes numbers only.
    check(unsafe { libc::prctl(PR_SET_MDWE, PR_MDWE_REFUSE_EXEC_GAIN, 0, 0, 0) })
}

/// Makes a terminal the controlling one, taking it from another session if it must: ours is that
/// of a service, and PID 1 has made us its leader.
pub(super) fn take_terminal(terminal: &OwnedFd) -> Result<(), Errno> {
    const FORCE: c_int = 1;
    // SAFETY: takes a number.
    check(unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCSCTTY as _, FORCE) })
}

/// Sets IFF_UP on the interface `lo` of this network namespace (netdevice(7)).
pub(super) fn loopback_up() -> Result<(), Errno> {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};
    let flags = SocketFlags::CLOEXEC;
    let socket = socket_with(AddressFamily::INET, SocketType::DGRAM, flags, None)?;
    // SAFETY: all zeroes is a valid ifreq, and both ioctls take one; the union's field that is
    // read and written is the one that SIOCGIFFLAGS fills.
    unsafe {
        let mut request: libc::ifreq = std::mem::zeroed();
        for (to, from) in request.ifr_name.iter_mut().zip(b"lo") {
            *to = *from as c_char;
        }
        check(libc::ioctl(socket.as_raw_fd(), libc::SIOCGIFFLAGS as _, &raw mut request))?;
        request.ifr_ifru.ifru_flags |= libc::IFF_UP as libc::c_short;
        check(libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS as _, &raw mut request))
    }
}

/// Leaves namespaces while a child stays behind, which then does its work in the old ones: it
/// waits for the end of what it reads from `held`, whose other side it must not keep.
pub(super) fn across_a_border(
    kinds: UnshareFlags,
    held: impl Into<OwnedFd>,
    work: impl FnOnce() -> bool,
) -> Result<(), Errno> {
    let held: OwnedFd = held.into();
    // SAFETY: this process has one thread, so the child's memory is whole.
    let pid = unsafe { libc::fork() };
    if pid == 0 {
        drop(held);
        let code = c_int::from(!work());
        // SAFETY: _exit runs nothing of ours.
        unsafe { libc::_exit(code) }
    }
    check(pid)?;
    let left = leave(kinds);
    drop(held);
    let mut status = 0;
    loop {
        // SAFETY: the status is written to a live local.
        match check(unsafe { libc::waitpid(pid, &mut status, 0) }) {
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
            Ok(()) => break,
        }
    }
    match status {
        0 => left,
        _ => left.and(Err(Errno::PERM)),
    }
}

/// A kind of System V IPC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ipc {
    SharedMemory,
    Semaphores,
    Messages,
}

/// Removes one of them; one that is gone is no error.
pub(super) fn remove_ipc(kind: Ipc, id: c_int) -> Result<(), Errno> {
    // SAFETY: IPC_RMID takes no argument beyond the id.
    let removed = check(unsafe {
        match kind {
            Ipc::SharedMemory => libc::shmctl(id, libc::IPC_RMID, std::ptr::null_mut()),
            Ipc::Semaphores => libc::semctl(id, 0, libc::IPC_RMID),
            Ipc::Messages => libc::msgctl(id, libc::IPC_RMID, std::ptr::null_mut()),
        }
    });
    match removed {
        Err(Errno::IDRM | Errno::INVAL) => Ok(()),
        removed => removed,
    }
}

/// A standard stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standard {
    Input = 0,
    Output = 1,
    Error = 2,
}

/// Makes a file a standard stream, dup2(2).
pub(super) fn put(fd: BorrowedFd, stream: Standard) -> Result<(), Errno> {
    // SAFETY: takes numbers; nobody owns the standard streams.
    check(unsafe { libc::dup2(fd.as_raw_fd(), stream as c_int) })
}

/// Another fd of the same file.
pub(super) fn copy(fd: impl AsFd) -> Result<OwnedFd, Errno> {
    // Not one of the standard streams, which are still to be arranged.
    rustix::io::fcntl_dupfd_cloexec(fd, 3)
}

/// An fd that PID 1 has left open for us alone, close-on-exec from now on. None if there is none.
pub(super) fn take_fd(number: i32) -> Option<OwnedFd> {
    if number < 3 {
        return None;
    }
    // SAFETY: takes numbers only; one that is no fd is an error.
    check(unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) }).ok()?;
    // SAFETY: it is open, and nobody else here owns it: PID 1 names it to us only.
    Some(unsafe { OwnedFd::from_raw_fd(number) })
}

/// A connection to a Unix stream socket.
pub(super) fn connect(path: &str) -> Result<OwnedFd, Errno> {
    use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
    let flags = SocketFlags::CLOEXEC;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    rustix::net::connect(&socket, &SocketAddrUnix::new(path)?)?;
    Ok(socket)
}

/// What is gone need not be removed.
pub(super) fn not_found_is_fine(removed: io::Result<()>) -> io::Result<()> {
    match removed {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

fn check(result: c_int) -> Result<(), Errno> {
    if result < 0 { Err(last_error()) } else { Ok(()) }
}

fn last_error() -> Errno {
    // SAFETY: errno is this thread's own.
    Errno::from_raw_os_error(unsafe { *libc::__errno_location() })
}
