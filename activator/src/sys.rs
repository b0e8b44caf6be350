//! The few system calls that rustix does not offer in the form needed here.
//!
//! None allocates, none blocks. Errors are the raw errno.
#![allow(unsafe_code)]

use rustix::io::Errno;
use rustix::thread::CapabilitySet;
use std::ffi::{CStr, c_int};
use std::mem::{MaybeUninit, size_of};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// A set of signals for [`signal_fd`].
pub struct Signals(libc::sigset_t);

impl Signals {
    /// The set of exactly these.
    pub fn new(signals: &[c_int]) -> Self {
        let mut set = MaybeUninit::uninit();
        // SAFETY: sigemptyset initialises the set that it is given.
        let mut set = unsafe {
            libc::sigemptyset(set.as_mut_ptr());
            set.assume_init()
        };
        for signal in signals {
            // SAFETY: the set is initialised; a bad number is an error and changes nothing.
            unsafe { libc::sigaddset(&mut set, *signal) };
        }
        Self(set)
    }
}

/// Blocks the signals and makes a non-blocking signalfd(2) of them.
pub fn signal_fd(signals: &Signals) -> Result<OwnedFd, Errno> {
    // SAFETY: both take a valid set; the fd that comes back is new and ours.
    unsafe {
        check(libc::sigprocmask(libc::SIG_BLOCK, &signals.0, std::ptr::null_mut()))?;
        let fd = check(libc::signalfd(-1, &signals.0, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK))?;
        Ok(OwnedFd::from_raw_fd(fd))
    }
}

/// The next pending signal of a signalfd.
pub fn next_signal(fd: BorrowedFd) -> Option<c_int> {
    let mut info = [0; size_of::<libc::signalfd_siginfo>()];
    let read = rustix::io::read(fd, &mut info).ok()?;
    // ssi_signo is the first field, a u32.
    let number = info.first_chunk::<4>().filter(|_| read == info.len())?;
    c_int::try_from(u32::from_ne_bytes(*number)).ok()
}

/// Reaps one child, whichever; the pid and the wait status.
pub fn reap() -> Option<(u32, c_int)> {
    let mut status = 0;
    // SAFETY: the status is written to a live local.
    let pid = unsafe { libc::waitpid(-1, &mut status, libc::WNOHANG) };
    u32::try_from(pid).ok().filter(|pid| *pid > 0).map(|pid| (pid, status))
}

/// Runs with the rights of a user and group to the file system and the network, setfsuid(2) and
/// capset(2): what is made is the user's, and nothing is reached that the user could not reach,
/// no port below 1024 either. None is root.
pub fn with_rights_of<T>(ids: Option<(u32, u32)>, run: impl FnOnce() -> T) -> T {
    let Some((uid, gid)) = ids else { return run() };
    let set = |uid: u32, gid: u32| {
        // SAFETY: both take numbers, and change nothing but the rights of this thread, which is
        // the only one.
        unsafe {
            libc::setfsgid(gid);
            libc::setfsuid(uid);
        }
    };
    // Those of the file system go with the user's id.
    let network =
        CapabilitySet::NET_BIND_SERVICE | CapabilitySet::NET_ADMIN | CapabilitySet::NET_RAW;
    let all = rustix::thread::capabilities(None);
    if let Ok(mut sets) = all {
        sets.effective -= network;
        let _ = rustix::thread::set_capabilities(None, sets);
    }
    set(uid, gid);
    let result = run();
    set(0, 0);
    if let Ok(sets) = all {
        let _ = rustix::thread::set_capabilities(None, sets);
    }
    result
}

/// kill(2), with its meaning of negative numbers.
pub fn kill(pid: i32, signal: c_int) -> Result<(), Errno> {
    // SAFETY: kill takes numbers only.
    check(unsafe { libc::kill(pid, signal) }).map(drop)
}

/// Sends a signal to the process of a pidfd, whoever has its number by now.
pub fn kill_pidfd(pidfd: BorrowedFd, signal: c_int) -> Result<(), Errno> {
    let nothing = std::ptr::null::<libc::siginfo_t>();
    // SAFETY: no siginfo is given, the rest are numbers.
    let done = unsafe {
        libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_raw_fd(), signal, nothing, 0)
    };
    check(done as c_int).map(drop)
}

/// Whether two fds are of one open file description. False where the kernel does not tell.
pub fn same_file(one: BorrowedFd, other: BorrowedFd) -> bool {
    /// linux/kcmp.h
    const KCMP_FILE: c_int = 0;
    let own = std::process::id();
    // SAFETY: takes numbers only.
    let order = unsafe {
        libc::syscall(libc::SYS_kcmp, own, own, KCMP_FILE, one.as_raw_fd(), other.as_raw_fd())
    };
    order == 0
}

/// setsockopt(2) with bytes.
pub fn set_option_bytes(
    fd: BorrowedFd,
    level: c_int,
    name: c_int,
    value: &[u8],
) -> Result<(), Errno> {
    // SAFETY: pointer and length are those of a live slice.
    check(unsafe {
        let length = value.len() as libc::socklen_t;
        libc::setsockopt(fd.as_raw_fd(), level, name, value.as_ptr().cast(), length)
    })
    .map(drop)
}

/// setsockopt(2) with an int.
pub fn set_option(fd: BorrowedFd, level: c_int, name: c_int, value: c_int) -> Result<(), Errno> {
    set_option_bytes(fd, level, name, &value.to_ne_bytes())
}

/// bind(2) to a vsock address (vsock(7)).
pub fn bind_vsock(fd: BorrowedFd, cid: u32, port: u32) -> Result<(), Errno> {
    // SAFETY: all zeroes is a valid sockaddr_vm.
    let mut address: libc::sockaddr_vm = unsafe { std::mem::zeroed() };
    address.svm_family = libc::AF_VSOCK as libc::sa_family_t;
    address.svm_cid = cid;
    address.svm_port = port;
    // SAFETY: pointer and size are those of a live sockaddr_vm.
    check(unsafe {
        let size = size_of::<libc::sockaddr_vm>() as libc::socklen_t;
        libc::bind(fd.as_raw_fd(), (&raw const address).cast(), size)
    })
    .map(drop)
}

/// Bytes of a Unix socket's path, unix(7).
pub const UNIX_NAME: usize = 108;

/// The address of one end of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Name {
    /// IPv4 address, port.
    Inet(([u8; 4], u16)),
    /// IPv6 address, port.
    Inet6(([u8; 16], u16)),
    /// vsock context id, port.
    Vsock((u32, u32)),
    /// A Unix socket, named or not.
    Unix(UnixName),
    /// Any other family.
    Other,
}

/// The name of a Unix socket as the kernel has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UnixName {
    path: [u8; UNIX_NAME],
    length: usize,
}

impl UnixName {
    /// From [`Self::bytes`]; what is longer than a name can be is cut off.
    pub fn new(bytes: &[u8]) -> Self {
        let mut path = [0; UNIX_NAME];
        path.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
        Self { path, length: bytes.len().min(UNIX_NAME) }
    }

    /// As the kernel has it.
    pub fn bytes(&self) -> &[u8] {
        self.path.get(..self.length).unwrap_or_default()
    }

    /// What to write: a path, or `@` and an abstract name; nothing for a socket without a name.
    pub fn parts(&self) -> [&[u8]; 2] {
        match self.bytes() {
            [] => [b"", b""],
            [0, name @ ..] => [b"@", name],
            path => {
                let end = path.iter().position(|byte| *byte == 0).unwrap_or(path.len());
                [b"", &path[..end]]
            }
        }
    }
}

/// getsockname(2).
pub fn own_name(fd: BorrowedFd) -> Result<Name, Errno> {
    name(fd, libc::getsockname)
}

/// getpeername(2).
pub fn peer_name(fd: BorrowedFd) -> Result<Name, Errno> {
    name(fd, libc::getpeername)
}

type GetName = unsafe extern "C" fn(c_int, *mut libc::sockaddr, *mut libc::socklen_t) -> c_int;

fn name(fd: BorrowedFd, get: GetName) -> Result<Name, Errno> {
    // SAFETY: all zeroes is a valid sockaddr_storage.
    let mut storage: libc::sockaddr_storage = unsafe { std::mem::zeroed() };
    let mut length = size_of::<libc::sockaddr_storage>() as libc::socklen_t;
    let at = &raw mut storage;
    // SAFETY: pointer and size are those of a live sockaddr_storage.
    check(unsafe { get(fd.as_raw_fd(), at.cast(), &mut length) })?;
    // SAFETY: a sockaddr_storage is as large, and aligned, as each kind of address, every bit
    // pattern of which is valid; the family says which kind the kernel wrote.
    Ok(unsafe {
        match c_int::from(storage.ss_family) {
            libc::AF_INET => {
                let address = &*at.cast::<libc::sockaddr_in>();
                let port = u16::from_be(address.sin_port);
                Name::Inet((address.sin_addr.s_addr.to_ne_bytes(), port))
            }
            libc::AF_INET6 => {
                let address = &*at.cast::<libc::sockaddr_in6>();
                Name::Inet6((address.sin6_addr.s6_addr, u16::from_be(address.sin6_port)))
            }
            libc::AF_VSOCK => {
                let address = &*at.cast::<libc::sockaddr_vm>();
                Name::Vsock((address.svm_cid, address.svm_port))
            }
            libc::AF_UNIX => {
                let address = &*at.cast::<libc::sockaddr_un>();
                let length = (length as usize).saturating_sub(size_of::<libc::sa_family_t>());
                let path = address.sun_path.map(|byte| byte as u8);
                Name::Unix(UnixName { path, length: length.min(UNIX_NAME) })
            }
            _ => Name::Other,
        }
    })
}

/// SO_PEERCRED: pid (0 if it is in no PID namespace of ours) and uid of the other end.
pub fn peer_credentials(fd: BorrowedFd) -> Result<(u32, u32), Errno> {
    let mut credentials = libc::ucred { pid: 0, uid: 0, gid: 0 };
    let mut length = size_of::<libc::ucred>() as libc::socklen_t;
    // SAFETY: pointer and size are those of a live ucred.
    check(unsafe {
        libc::getsockopt(
            fd.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERCRED,
            (&raw mut credentials).cast(),
            &mut length,
        )
    })?;
    Ok((u32::try_from(credentials.pid).unwrap_or(0), credentials.uid))
}

/// mq_open(3) for reading, non-blocking; one that is missing is made with that mode and these
/// attributes (messages at most, bytes of one at most).
pub fn open_queue(
    name: &CStr,
    mode: u32,
    attributes: Option<(u32, u32)>,
) -> Result<OwnedFd, Errno> {
    let flags = libc::O_RDONLY | libc::O_CREAT | libc::O_CLOEXEC | libc::O_NONBLOCK;
    // SAFETY: all zeroes is a valid mq_attr.
    let mut attribute: libc::mq_attr = unsafe { std::mem::zeroed() };
    let pointer = match attributes {
        Some((messages, size)) => {
            attribute.mq_maxmsg = messages.into();
            attribute.mq_msgsize = size.into();
            &raw const attribute
        }
        None => std::ptr::null(),
    };
    // SAFETY: a C string, and a live mq_attr or NULL; the fd that comes back is new and ours.
    unsafe {
        let fd = check(libc::mq_open(name.as_ptr(), flags, mode as libc::mode_t, pointer))?;
        Ok(OwnedFd::from_raw_fd(fd))
    }
}

/// mq_unlink(3).
pub fn unlink_queue(name: &CStr) -> Result<(), Errno> {
    // SAFETY: a C string.
    check(unsafe { libc::mq_unlink(name.as_ptr()) }).map(drop)
}

/// mq_receive(3); the buffer must be as long as the queue's messages can be.
pub fn receive_from_queue(fd: BorrowedFd, buffer: &mut [u8]) -> Result<usize, Errno> {
    let nothing = std::ptr::null_mut();
    let (at, length) = (buffer.as_mut_ptr().cast(), buffer.len());
    // SAFETY: pointer and length are those of a live slice, and NULL asks for no priority.
    let received = unsafe { libc::mq_receive(fd.as_raw_fd(), at, length, nothing) };
    check(received as c_int).map(|length| length as usize)
}

/// The index of a network interface.
pub fn interface_index(name: &CStr) -> Result<u32, Errno> {
    // SAFETY: the name is a C string.
    match unsafe { libc::if_nametoindex(name.as_ptr()) } {
        0 => Err(Errno::NODEV),
        index => Ok(index),
    }
}

/// Sets IFF_UP on the interface `lo` (netdevice(7)).
pub fn loopback_up(socket: BorrowedFd) -> Result<(), Errno> {
    // SAFETY: all zeroes is a valid ifreq, and both ioctls take one; the union's field that is
    // read and written is the one that SIOCGIFFLAGS fills.
    unsafe {
        let mut request: libc::ifreq = std::mem::zeroed();
        for (to, from) in request.ifr_name.iter_mut().zip(b"lo") {
            *to = *from as libc::c_char;
        }
        check(libc::ioctl(socket.as_raw_fd(), libc::SIOCGIFFLAGS as _, &raw mut request))?;
        request.ifr_ifru.ifru_flags |= libc::IFF_UP as libc::c_short;
        check(libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS as _, &raw mut request))?;
    }
    Ok(())
}

/// Marks every fd from `first` on as close-on-exec: whatever we were started with is not for our
/// children.
pub fn close_on_exec_from(first: u32) -> Result<(), Errno> {
    const CLOSE_RANGE_CLOEXEC: libc::c_ulong = 4;
    // SAFETY: close_range with this flag changes fd flags only.
    let done = unsafe {
        libc::syscall(
            libc::SYS_close_range,
            libc::c_ulong::from(first),
            libc::c_ulong::from(u32::MAX),
            CLOSE_RANGE_CLOEXEC,
        )
    };
    check(done as c_int).map(drop)
}

/// Closes every fd from `first` on. For a process that has lost count of them.
pub fn close_from(first: u32) -> Result<(), Errno> {
    // SAFETY: whoever owns one of these numbers is not asked for it again: the only caller
    // starts all over, and its owners were made by a process that is gone.
    let done = unsafe {
        libc::syscall(
            libc::SYS_close_range,
            libc::c_ulong::from(first),
            libc::c_ulong::from(u32::MAX),
            0 as libc::c_ulong,
        )
    };
    check(done as c_int).map(drop)
}

fn check(result: c_int) -> Result<c_int, Errno> {
    match result {
        // SAFETY: errno is this thread's own.
        -1 => Err(Errno::from_raw_os_error(unsafe { *libc::__errno_location() })),
        result => Ok(result),
    }
}
