//! The receiving end of sd_notify(3): one private datagram socket for each service that may speak,
//! and one for each slot of an instance of such a template.
//!
//! So a message is its service's, whoever of its processes sent it; which of them may is the
//! supervisor's business, by the credentials that the kernel attaches. So anybody may write to the
//! node, as in systemd: a daemon that changes its user itself (rpcbind) does so before it is ready.
//! Only where the credentials decide nothing, with NotifyAccess=all, it is the service's user's
//! alone, with mode 0600.

use crate::files::{make_directories, parent};
use activator::foreign::Foreign;
use activator::manifest::{NotifyAccess, Service, ServiceKind};
use activator::notification::{Keep, Notification};
use rustix::fs::{self, AtFlags, CWD, Mode};
use rustix::io::{Errno, IoSliceMut};
use rustix::net::{
    self, AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags,
    SocketAddrUnix, SocketFlags, SocketType, sockopt,
};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// Longer messages are dropped, as in systemd (PIPE_BUF).
const LONGEST: usize = 4096;
/// The most that the kernel lets through with one message (SCM_MAX_FD).
const FDS: usize = 253;

/// One service's socket.
#[derive(Debug)]
pub(crate) struct Notify {
    fd: OwnedFd,
}

/// One message.
#[derive(Debug, Default)]
pub(crate) struct Message {
    /// What the supervisor hears.
    pub(crate) said: Notification,
    /// The process that sent it; 0 is one that our pid namespace does not know.
    pub(crate) sender: u32,
    pub(crate) keep: Option<Keep>,
    /// What came with it. Dropping them is the answer to `BARRIER=1`.
    pub(crate) fds: heapless::Vec<Foreign, FDS>,
}

/// Whether a service gets a socket: it has something to say, or anything of it is allowed to.
pub(crate) fn is_wanted(service: &Service) -> bool {
    matches!(service.kind, ServiceKind::Notify | ServiceKind::NotifyReload)
        || service.notify_access != NotifyAccess::None
        || service.watchdog_us > 0
        || service.fd_store_max > 0
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
        sockopt::set_socket_passcred(&fd, true)?;
        net::bind(&fd, &SocketAddrUnix::new(path.as_str())?)?;
        fs::chmodat(CWD, path.as_str(), mode(service), AtFlags::empty())?;
        give(&path, service)?;
        Ok(Self { fd })
    }

    /// One that was kept over a reload, which may have changed the service's user.
    pub(crate) fn of(fd: OwnedFd, directory: &str, place: &str, service: &Service) -> Self {
        // If the node is gone, nobody can use it; whoever has it open already can.
        let path = format!("{directory}/{place}");
        let _ = fs::chmodat(CWD, path.as_str(), mode(service), AtFlags::empty());
        let _ = give(&path, service);
        Self { fd }
    }

    /// For the loop to watch.
    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// The next message; None when there is no more.
    pub(crate) fn receive(&self) -> Option<Message> {
        let mut text = [0; LONGEST];
        let mut space =
            [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS), ScmCredentials(1))];
        loop {
            let mut control = RecvAncillaryBuffer::new(&mut space);
            let buffers = &mut [IoSliceMut::new(&mut text)];
            let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
            let received = match net::recvmsg(&self.fd, buffers, &mut control, flags) {
                Ok(received) => received,
                Err(Errno::INTR) => continue,
                Err(_) => return None,
            };
            let mut message = Message::default();
            for part in control.drain() {
                match part {
                    // What has no room, which cannot be, is dropped and so closed.
                    RecvAncillaryMessage::ScmRights(fds) => {
                        message.fds.extend(fds.take(FDS).map(Foreign::from));
                    }
                    RecvAncillaryMessage::ScmCredentials(from) => {
                        message.sender = from.pid.as_raw_nonzero().get().unsigned_abs();
                    }
                    _ => {}
                }
            }
            // One that is too long is a message all the same, so that the caller can count it.
            if !received.flags.contains(ReturnFlags::TRUNC) {
                let text = text.get(..received.bytes).unwrap_or_default();
                message.said = Notification::parse(text);
                message.keep = Keep::parse(text);
            }
            return Some(message);
        }
    }
}

/// The node's mode.
fn mode(service: &Service) -> Mode {
    Mode::from_raw_mode(match service.notify_access {
        NotifyAccess::Main | NotifyAccess::Exec => 0o666,
        NotifyAccess::None | NotifyAccess::All => 0o600,
    })
}

/// Gives the node to the service's user.
fn give(path: &str, service: &Service) -> Result<(), Errno> {
    let Some(user) = &service.execution.user else { return Ok(()) };
    let (uid, gid) = (fs::Uid::from_raw(user.uid), fs::Gid::from_raw(user.gid));
    fs::chownat(CWD, path, Some(uid), Some(gid), AtFlags::empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::io::IoSlice;
    use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags};
    use std::io::Write;
    use std::net::{TcpListener, TcpStream};
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::net::UnixDatagram;
    use std::time::Duration;

    /// Closing it would wait until its peer has read all that was sent: for as long as the service
    /// likes.
    #[test]
    fn a_socket_that_lingers_does_not_keep_us() {
        let directory = tempfile::tempdir().unwrap();
        let directory = directory.path().to_str().unwrap();
        let notify = Notify::new(directory, "a.service", &Service::default()).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (_never_reads, _) = listener.accept().unwrap();
        client.set_nonblocking(true).unwrap();
        while client.write(&[0; 4096]).is_ok() {}
        sockopt::set_socket_linger(&client, Some(Duration::from_secs(3600))).unwrap();
        let sender = UnixDatagram::unbound().unwrap();
        sender.connect(format!("{directory}/a.service")).unwrap();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        let fds = [client.as_fd()];
        assert!(control.push(SendAncillaryMessage::ScmRights(&fds)));
        let text = [IoSlice::new(b"BARRIER=1")];
        net::sendmsg(&sender, &text, &mut control, SendFlags::empty()).unwrap();
        // Ours is the last; the close of this one waits for nobody.
        drop(client);
        let (done, is_done) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let message = notify.receive().unwrap();
            done.send(message.fds.len()).unwrap();
            drop(message);
            done.send(0).unwrap();
        });
        assert_eq!(is_done.recv_timeout(Duration::from_secs(60)), Ok(1));
        assert_eq!(is_done.recv_timeout(Duration::from_secs(60)), Ok(0), "the close waits");
    }

    /// rpcbind becomes `_rpc` before it says READY=1: with a node of root's alone it never is.
    #[test]
    fn a_daemon_that_changed_its_user_can_still_speak() {
        let directory = tempfile::tempdir().unwrap();
        let directory = directory.path().to_str().unwrap();
        for (access, expected) in [(NotifyAccess::Main, 0o666), (NotifyAccess::All, 0o600)] {
            let service = Service { notify_access: access, ..Service::default() };
            let _notify = Notify::new(directory, "rpcbind.service", &service).unwrap();
            let about = std::fs::metadata(format!("{directory}/rpcbind.service")).unwrap();
            assert_eq!(about.permissions().mode() & 0o777, expected, "{access:?}");
        }
    }
}
