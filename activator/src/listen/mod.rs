//! Listeners of socket units: opened, changed, flushed and removed.
//!
//! The semantics are those of systemd.socket(5). What is not obvious:
//! * The mode of a Unix socket or FIFO is exact from the first moment: the umask is replaced for
//!   the bind.
//! * A node that a predecessor left behind is removed, once, and only after bind said EADDRINUSE.
//! * All fds are close-on-exec and non-blocking in here. The flag lives on the open file that
//!   the service shares, so it is set again before anything here that could block.

mod address;
mod node;
pub mod options;
mod path;

use crate::foreign::Foreign;
use crate::manifest::{Address, ListenKind, Listener, Socket};
use crate::sys;
use path::PathBuffer;
use rustix::fs::{self, AtFlags, CWD, FileType, Mode, OFlags};
use rustix::io::Errno;
use rustix::net::{self, RecvFlags, SocketFlags, SocketType};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

/// At most so many connections or packets are dropped by one flush, as in systemd.
const FLUSH_AT_MOST: usize = 1024;

/// Drops what waits.
pub fn flush(fd: BorrowedFd, kind: ListenKind) {
    if set_nonblocking(fd, true).is_err() {
        return;
    }
    let mut scrap = [0; 512];
    for _ in 0..FLUSH_AT_MOST {
        let more = match kind {
            ListenKind::Stream | ListenKind::SequentialPacket => {
                net::accept_with(fd, SocketFlags::CLOEXEC).map(Foreign::from).map(drop)
            }
            ListenKind::Datagram | ListenKind::Netlink => {
                net::recv(fd, &mut scrap[..], RecvFlags::TRUNC | RecvFlags::DONTWAIT).map(drop)
            }
            ListenKind::Fifo | ListenKind::Special => match rustix::io::read(fd, &mut scrap) {
                Ok(0) => Err(Errno::AGAIN),
                other => other.map(drop),
            },
            ListenKind::MessageQueue => return node::flush_queue(fd, FLUSH_AT_MOST),
        };
        if matches!(more, Err(errno) if errno != Errno::INTR && errno != Errno::CONNABORTED) {
            return;
        }
    }
}

/// Sets or clears O_NONBLOCK on the open file, for all who share it.
pub fn set_nonblocking(fd: BorrowedFd, nonblocking: bool) -> Result<(), Errno> {
    let mut flags = fs::fcntl_getfl(fd)?;
    if flags.contains(OFlags::NONBLOCK) == nonblocking {
        return Ok(());
    }
    flags.set(OFlags::NONBLOCK, nonblocking);
    fs::fcntl_setfl(fd, flags)
}

/// Whether a listener that was opened for one unit can serve another, or the same with other
/// settings: whether all that only bind(2) decides is the same.
pub fn is_bound_alike(old: &Socket, new: &Socket) -> bool {
    let bound = |socket: &Socket| {
        let options = socket.options.iter().filter(|option| options::is_of_bind(option));
        options.cloned().collect::<Vec<_>>()
    };
    (old.protocol, old.ipv6_only, old.writable) == (new.protocol, new.ipv6_only, new.writable)
        && old.message_queue == new.message_queue
        && bound(old) == bound(new)
}

/// Gives an open listener what has changed of the settings that can change. An option that is
/// gone stays as it is: what it was before is not known.
pub fn refresh(fd: BorrowedFd, listener: &Listener, old: &Socket, new: &Socket) {
    if old.backlog != new.backlog
        && matches!(listener.kind, ListenKind::Stream | ListenKind::SequentialPacket)
    {
        // It listens already, so nothing but the number can change.
        let _ = net::listen(fd, i32::try_from(new.backlog).unwrap_or(i32::MAX));
    }
    if old.options != new.options {
        options::set_again(fd, new);
    }
    if let Address::Path(path) = &listener.address
        && (old.mode, old.owner) != (new.mode, new.owner)
        && let Ok(path) = PathBuffer::new(path)
    {
        let _ = set_mode(&path, new.mode);
        let _ = own(new, &path);
    }
}

/// chmod(2), but never of what a link leads to: whose directory it is may put one there.
fn set_mode(path: &PathBuffer, mode: u32) -> Result<(), Errno> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let node = fs::openat(CWD, path.as_c_str(), flags, Mode::empty())?;
    if FileType::from_raw_mode(fs::fstat(&node)?.st_mode) == FileType::Symlink {
        return Err(Errno::LOOP);
    }
    // What is held by its path alone, fchmod(2) does not take.
    let held = PathBuffer::new(&format!("/proc/self/fd/{}", node.as_raw_fd()))?;
    fs::chmodat(CWD, held.as_c_str(), Mode::from_raw_mode(mode), AtFlags::empty())
}

/// Removes the node of a listener that the new manifest does not have.
pub fn remove_node(path: &str) {
    if let Ok(path) = PathBuffer::new(path) {
        // Gone already is as good.
        let _ = fs::unlinkat(CWD, path.as_c_str(), AtFlags::empty());
    }
}

/// Removes what listeners and links have left in the file system, and queues.
pub fn remove_nodes(socket: &Socket) {
    let paths = socket.listeners.iter().filter_map(|listener| match &listener.address {
        // A special file was there before.
        Address::Path(path) if listener.kind != ListenKind::Special => Some(path),
        _ => None,
    });
    for path in paths.chain(&socket.symlinks) {
        if let Ok(path) = PathBuffer::new(path) {
            // Gone already is as good.
            let _ = fs::unlinkat(CWD, path.as_c_str(), AtFlags::empty());
        }
    }
    for listener in &socket.listeners {
        if let Address::Queue(name) = &listener.address
            && let Ok(name) = PathBuffer::new(name)
        {
            let _ = sys::unlink_queue(name.as_c_str());
        }
    }
}

/// Opens one listener.
pub fn open(socket: &Socket, listener: &Listener) -> Result<OwnedFd, Errno> {
    match (listener.kind, &listener.address) {
        (ListenKind::Fifo, Address::Path(path)) => return node::fifo(socket, path),
        (ListenKind::Special, Address::Path(path)) => return node::special(socket, path),
        (ListenKind::MessageQueue, Address::Queue(name)) => return node::queue(socket, name),
        (ListenKind::Netlink, Address::Netlink(family, groups)) => {
            return address::bind_netlink(socket, *family, *groups);
        }
        (ListenKind::Stream | ListenKind::Datagram | ListenKind::SequentialPacket, _) => {}
        _ => return Err(Errno::INVAL),
    }
    let kind = match listener.kind {
        ListenKind::Stream => SocketType::STREAM,
        ListenKind::SequentialPacket => SocketType::SEQPACKET,
        _ => SocketType::DGRAM,
    };
    let fd = address::bind(socket, kind, &listener.address)?;
    if listener.kind != ListenKind::Datagram {
        net::listen(&fd, i32::try_from(socket.backlog).unwrap_or(i32::MAX))?;
    }
    if let Address::Path(path) = &listener.address {
        let path = PathBuffer::new(path)?;
        own(socket, &path)?;
        // Who waits with inotify(7) for a socket to connect to looks again, as in systemd.
        let now = fs::Timespec { tv_sec: 0, tv_nsec: fs::UTIME_NOW };
        let times = fs::Timestamps { last_access: now, last_modification: now };
        let _ = fs::utimensat(CWD, path.as_c_str(), &times, AtFlags::SYMLINK_NOFOLLOW);
    }
    Ok(fd)
}

fn own(socket: &Socket, path: &PathBuffer) -> Result<(), Errno> {
    let Some((uid, gid)) = socket.owner else { return Ok(()) };
    let (uid, gid) = (fs::Uid::from_raw(uid), fs::Gid::from_raw(gid));
    fs::chownat(CWD, path.as_c_str(), Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)
}

/// Makes the symbolic links; a link that cannot be made is not worth a socket, as in systemd.
pub fn link(socket: &Socket) {
    let path = socket.listeners.iter().find_map(|listener| match &listener.address {
        Address::Path(path) => Some(path),
        _ => None,
    });
    let Some(Ok(target)) = path.map(|path| PathBuffer::new(path)) else { return };
    for link in &socket.symlinks {
        let Ok(mut link) = PathBuffer::new(link) else { continue };
        link.make_parents(socket.directory_mode);
        let make = || fs::symlinkat(target.as_c_str(), CWD, link.as_c_str());
        // What is there in its place is replaced only by a unit that would remove it anyway.
        if make() == Err(Errno::EXIST)
            && socket.remove_on_stop
            && fs::unlinkat(CWD, link.as_c_str(), AtFlags::empty()).is_ok()
        {
            let _ = make();
        }
    }
}

/// Runs with another umask. There is one thread, so nobody else sees it.
fn with_umask<T>(mask: Mode, run: impl FnOnce() -> T) -> T {
    let before = rustix::process::umask(mask);
    let result = run();
    rustix::process::umask(before);
    result
}
