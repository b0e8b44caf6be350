//! The few system calls that rustix does not offer in the form needed here.
//!
//! None allocates, none blocks. Errors are the raw errno.
#![allow(unsafe_code)]

use rustix::io::Errno;
use std::ffi::{CStr, c_int};
use std::mem::{MaybeUninit, size_of};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// A set of signals for [`signal_fd`].
pub(crate) struct Signals(libc::sigset_t);

impl Signals {
    /// The set of exactly these.
    pub(crate) fn new(signals: &[c_int]) -> Self {
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
pub(crate) fn signal_fd(signals: &Signals) -> Result<OwnedFd, Errno> {
    // SAFETY: both take a valid set; the fd that comes back is new and ours.
    unsafe {
        check(libc::sigprocmask(libc::SIG_BLOCK, &signals.0, std::ptr::null_mut()))?;
        let fd = check(libc::signalfd(-1, &signals.0, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK))?;
        Ok(OwnedFd::from_raw_fd(fd))
    }
}

/// The next pending signal of a signalfd.
pub(crate) fn next_signal(fd: BorrowedFd) -> Option<c_int> {
    let mut info = [0; size_of::<libc::signalfd_siginfo>()];
    let read = rustix::io::read(fd, &mut info).ok()?;
    // ssi_signo is the first field, a u32.
    let number = info.first_chunk::<4>().filter(|_| read == info.len())?;
    c_int::try_from(u32::from_ne_bytes(*number)).ok()
}

/// Reaps one child, whichever; the pid and the wait status.
pub(crate) fn reap() -> Option<(u32, c_int)> {
    let mut status = 0;
    // SAFETY: the status is written to a live local.
    let pid = unsafe { libc::waitpid(-1, &mut status, libc::WNOHANG) };
    u32::try_from(pid).ok().filter(|pid| *pid > 0).map(|pid| (pid, status))
}

/// kill(2), with its meaning of negative numbers.
pub(crate) fn kill(pid: i32, signal: c_int) -> Result<(), Errno> {
    // SAFETY: kill takes numbers only.
    check(unsafe { libc::kill(pid, signal) }).map(drop)
}

/// setsockopt(2) with bytes.
pub(crate) fn set_option_bytes(
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
pub(crate) fn set_option(
    fd: BorrowedFd,
    level: c_int,
    name: c_int,
    value: c_int,
) -> Result<(), Errno> {
    set_option_bytes(fd, level, name, &value.to_ne_bytes())
}

/// bind(2) to a vsock address (vsock(7)).
pub(crate) fn bind_vsock(fd: BorrowedFd, cid: u32, port: u32) -> Result<(), Errno> {
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

/// The index of a network interface.
pub(crate) fn interface_index(name: &CStr) -> Result<u32, Errno> {
    // SAFETY: the name is a C string.
    match unsafe { libc::if_nametoindex(name.as_ptr()) } {
        0 => Err(Errno::NODEV),
        index => Ok(index),
    }
}

/// Sets IFF_UP on the interface `lo` (netdevice(7)).
pub(crate) fn loopback_up(socket: BorrowedFd) -> Result<(), Errno> {
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
pub(crate) fn close_on_exec_from(first: u32) -> Result<(), Errno> {
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

fn check(result: c_int) -> Result<c_int, Errno> {
    match result {
        // SAFETY: errno is this thread's own.
        -1 => Err(Errno::from_raw_os_error(unsafe { *libc::__errno_location() })),
        result => Ok(result),
    }
}
