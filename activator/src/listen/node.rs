//! Listeners that are no sockets: FIFOs, special files, message queues.

use super::path::PathBuffer;
use super::{own, with_umask};
use crate::manifest::Socket;
use crate::sys;
use rustix::fs::{self, CWD, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;
use std::os::fd::{AsFd, OwnedFd};

/// `ListenFIFO=`: made if it is missing. One that is there already, but with another mode or of
/// another owner, is somebody else's: EEXIST, as in systemd. (What a run before this one left
/// behind may be `SocketUser=`'s already.)
pub(super) fn fifo(socket: &Socket, path: &str) -> Result<OwnedFd, Errno> {
    let mut path = PathBuffer::new(path)?;
    path.make_parents(socket.directory_mode);
    let mode = Mode::from_raw_mode(socket.mode);
    let made =
        with_umask(Mode::empty(), || fs::mknodat(CWD, path.as_c_str(), FileType::Fifo, mode, 0));
    match made {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(errno) => return Err(errno),
    }
    // Read-write, so that the last writer's close is no end of file, as in systemd.
    let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let fd = fs::openat(CWD, path.as_c_str(), flags | OFlags::NOCTTY, Mode::empty())?;
    let stat = fs::fstat(&fd)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::Fifo || !is_ours(socket, &stat) {
        return Err(Errno::EXIST);
    }
    own(socket, &path)?;
    if socket.pipe_size > 0 {
        let size = usize::try_from(socket.pipe_size).unwrap_or(usize::MAX);
        // One of another size is better than none, as in systemd.
        let _ = rustix::pipe::fcntl_setpipe_size(&fd, size);
    }
    Ok(fd)
}

/// `ListenSpecial=`: a character device or a regular file, of proc or sys, that exists.
pub(super) fn special(socket: &Socket, path: &str) -> Result<OwnedFd, Errno> {
    let path = PathBuffer::new(path)?;
    let access = if socket.writable { OFlags::RDWR } else { OFlags::RDONLY };
    let flags = OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOCTTY | OFlags::NOFOLLOW;
    let fd = fs::openat(CWD, path.as_c_str(), access | flags, Mode::empty())?;
    match FileType::from_raw_mode(fs::fstat(&fd)?.st_mode) {
        FileType::CharacterDevice | FileType::RegularFile => Ok(fd),
        _ => Err(Errno::EXIST),
    }
}

/// `ListenMessageQueue=`, with the same rule about one that is there already.
pub(super) fn queue(socket: &Socket, name: &str) -> Result<OwnedFd, Errno> {
    let name = PathBuffer::new(name)?;
    let open = || sys::open_queue(name.as_c_str(), socket.mode & 0o777, socket.message_queue);
    let fd = with_umask(Mode::empty(), open)?;
    if !is_ours(socket, &fs::fstat(&fd)?) {
        return Err(Errno::EXIST);
    }
    if let Some((uid, gid)) = socket.owner {
        fs::fchown(&fd, Some(fs::Uid::from_raw(uid)), Some(fs::Gid::from_raw(gid)))?;
    }
    Ok(fd)
}

/// Drops the messages that wait. Longer ones than fit on the stack stay, and all behind them.
pub(super) fn flush_queue(fd: impl AsFd, most: usize) {
    let mut scrap = [0; 64 * 1024];
    for _ in 0..most {
        if sys::receive_from_queue(fd.as_fd(), &mut scrap).is_err() {
            return;
        }
    }
}

fn is_ours(socket: &Socket, stat: &Stat) -> bool {
    let own = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    let owner = (stat.st_uid, stat.st_gid);
    stat.st_mode & 0o777 == socket.mode & 0o777
        && (owner == own || socket.owner.is_some_and(|wanted| wanted == owner))
}
