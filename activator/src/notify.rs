//! The receiving end of sd_notify(3): one private datagram socket for each `Type=notify` service,
//! and one for each slot of an instance of such a template.
//!
//! So a message is its service's, whoever of its processes sent it (`NotifyAccess=all`). The node
//! belongs to the service's user with mode 0600: nobody else but root can speak for it.

use crate::engine::{make_directories, parent};
use activator::manifest::Service;
use activator::notification::Notification;
use rustix::fs::{self, AtFlags, CWD, Mode};
use rustix::io::{Errno, IoSliceMut};
use rustix::net::{
    self, AddressFamily, RecvAncillaryBuffer, RecvFlags, ReturnFlags, SocketAddrUnix, SocketFlags,
    SocketType,
};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// Longer messages are dropped, as in systemd (PIPE_BUF).
const LONGEST: usize = 4096;

/// One service's socket.
#[derive(Debug)]
pub(crate) struct Notify {
    fd: OwnedFd,
}

impl Notify {
    /// The place of an instance's node; `program` writes it into NOTIFY_SOCKET.
    pub(crate) fn instance_place(template: &str, position: usize) -> String {
        format!("{template}.{position}")
    }

    /// Makes the node `directory/PLACE`; the place is [`Manifest::place`].
    ///
    /// [`Manifest::place`]: activator::manifest::Manifest::place
    pub(crate) fn new(directory: &str, place: &str, service: &Service) -> Result<Self, Errno> {
        let path = format!("{directory}/{place}");
        make_directories(parent(&path));
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let fd = net::socket_with(AddressFamily::UNIX, SocketType::DGRAM, flags, None)?;
        let _ = fs::unlinkat(CWD, path.as_str(), AtFlags::empty());
        net::bind(&fd, &SocketAddrUnix::new(path.as_str())?)?;
        fs::chmodat(CWD, path.as_str(), Mode::from_raw_mode(0o600), AtFlags::empty())?;
        give(&path, service)?;
        Ok(Self { fd })
    }

    /// One that was kept over a reload, which may have changed the service's user.
    pub(crate) fn of(fd: OwnedFd, directory: &str, place: &str, service: &Service) -> Self {
        // If the node is gone, nobody can use it; whoever has it open already can.
        let _ = give(&format!("{directory}/{place}"), service);
        Self { fd }
    }

    /// For the loop to watch.
    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// The next message; None when there is no more.
    pub(crate) fn receive(&self) -> Option<Notification> {
        let mut text = [0; LONGEST];
        // Room for passed fds, so that they are closed: that is what BARRIER=1 waits for.
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(8))];
        loop {
            let mut control = RecvAncillaryBuffer::new(&mut space);
            let buffers = &mut [IoSliceMut::new(&mut text)];
            let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
            let message = match net::recvmsg(&self.fd, buffers, &mut control, flags) {
                Ok(message) => message,
                Err(Errno::INTR) => continue,
                Err(_) => return None,
            };
            drop(control);
            // One that is too long is a message all the same, so that the caller can count it.
            return Some(match message.flags.contains(ReturnFlags::TRUNC) {
                true => Notification::default(),
                false => Notification::parse(text.get(..message.bytes).unwrap_or_default()),
            });
        }
    }
}

/// Gives the node to the service's user.
fn give(path: &str, service: &Service) -> Result<(), Errno> {
    let Some(user) = &service.execution.user else { return Ok(()) };
    let (uid, gid) = (fs::Uid::from_raw(user.uid), fs::Gid::from_raw(user.gid));
    fs::chownat(CWD, path, Some(uid), Some(gid), AtFlags::empty())
}
