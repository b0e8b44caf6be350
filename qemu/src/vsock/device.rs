//! The device as its owner sees it: started, asked, stopped.

use super::backend::{Backend, Shared};
use super::config::{Config, FIRST_GUEST_CID, Publish};
use super::error::Error;
use super::hub::{Gate, Hub, Purpose, Rest};
use super::listener::{Entrance, UnixEntrance};
use super::siblings::Siblings;
use crate::process;
use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use std::fmt;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Instant;
use vhost::vhost_user::{Error as VhostUserError, Listener};
use vhost_user_backend::{Error as Ended, ShutdownHandle, VhostUserDaemon};
use vm_memory::{GuestMemoryAtomic, GuestMemoryMmap};

/// Marks epoll's token for the waker; no slot and no entrance has it.
const WAKER: u64 = u64::MAX;
/// Events taken from epoll at once.
const EVENTS: usize = 256;

/// How far the guest has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    /// QEMU has not connected, or has gone.
    Waiting,
    /// QEMU is connected; the guest's driver is not there yet, or was reset.
    Connected,
    /// The guest's driver has given us its queues: connections are possible.
    Ready,
}

/// A running device. It works in threads of this process, and stops when it is dropped.
pub struct Device {
    guest_cid: u32,
    published: Vec<Publish>,
    shared: Arc<Shared>,
    control: Arc<Control>,
    threads: Vec<JoinHandle<()>>,
}

/// How the owner and the threads talk.
struct Control {
    stopping: AtomicBool,
    /// Readable when the frontend thread is to stop.
    stop: OwnedFd,
    /// Set by the frontend thread while QEMU is connected.
    session: Mutex<Option<ShutdownHandle>>,
}

impl Device {
    /// Makes every socket of `config` and starts the device. When this returns, QEMU can
    /// connect, and so can clients: they are held until the guest's driver is ready.
    ///
    /// The soft limit of open files (RLIMIT_NOFILE) of the process is raised to the hard one:
    /// each connection takes one.
    ///
    /// # Errors
    /// See [`Error`]; nothing is left behind.
    pub fn start(config: Config) -> Result<Self, Error> {
        if config.guest_cid < FIRST_GUEST_CID || config.guest_cid == u32::MAX {
            return Err(Error::ReservedCid(config.guest_cid));
        }
        process::raise_file_limit();
        let mut gates = Vec::new();
        let siblings = match &config.siblings {
            Some(directory) => {
                let (siblings, entrance) = Siblings::claim(directory, config.guest_cid)?;
                gates.push(Gate { entrance: Entrance::Unix(entrance), purpose: Purpose::Siblings });
                Some(siblings)
            }
            None => None,
        };
        let vhost_user = UnixEntrance::bind(&config.vhost_user_socket)?;
        let connect = Entrance::Unix(UnixEntrance::bind(&config.connect_socket)?);
        gates.push(Gate { entrance: connect, purpose: Purpose::Connect });
        let mut published = Vec::new();
        for publish in &config.publish {
            let entrance = Entrance::bind(&publish.listen)?;
            published.push(Publish { listen: entrance.address(), port: publish.port });
            gates.push(Gate { entrance, purpose: Purpose::Publish(publish.port) });
        }

        let failed = |cause| Error::system("set up the event loop", cause);
        let poll = Arc::new(epoll::create(epoll::CreateFlags::CLOEXEC).map_err(failed)?);
        let hub = Hub::new(&config, siblings, gates, poll.clone()).map_err(failed)?;
        let shared = Arc::new(Shared::new(hub).map_err(failed)?);
        epoll::add(&poll, shared.waker(), EventData::new_u64(WAKER), EventFlags::IN)
            .map_err(failed)?;
        let flags = rustix::event::EventfdFlags::CLOEXEC | rustix::event::EventfdFlags::NONBLOCK;
        let stop = rustix::event::eventfd(0, flags).map_err(failed)?;
        let control =
            Arc::new(Control { stopping: AtomicBool::new(false), stop, session: Mutex::new(None) });

        let mut device = Self {
            guest_cid: config.guest_cid,
            published,
            shared: shared.clone(),
            control: control.clone(),
            threads: Vec::new(),
        };
        let (sockets, sockets_control) = (shared.clone(), control.clone());
        device.spawn("sockets", move || attend_sockets(&sockets, &sockets_control, &poll))?;
        let cid = u64::from(config.guest_cid);
        device.spawn("qemu", move || attend_qemu(&shared, &control, &vhost_user, cid))?;
        Ok(device)
    }

    /// The guest's CID.
    pub fn guest_cid(&self) -> u32 {
        self.guest_cid
    }

    /// How far the guest has come.
    pub fn state(&self) -> State {
        if self.shared.hub().is_ready() {
            State::Ready
        } else if self.control.session().is_some() {
            State::Connected
        } else {
            State::Waiting
        }
    }

    /// The published ports, with the real TCP ports where 0 was asked for.
    pub fn published(&self) -> &[Publish] {
        &self.published
    }

    /// Connections that live now, in any state.
    pub fn connections(&self) -> usize {
        self.shared.hub().connections()
    }

    /// Stops the device: every connection is reset, every socket file removed, every thread
    /// ended. The same as dropping it.
    pub fn shutdown(self) {}

    fn spawn(&mut self, what: &str, body: impl FnOnce() + Send + 'static) -> Result<(), Error> {
        let name = format!("vsock{}-{what}", self.guest_cid);
        let thread = thread::Builder::new().name(name).spawn(body);
        self.threads.push(thread.map_err(|cause| Error::system("start a thread", cause))?);
        Ok(())
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        self.control.stopping.store(true, Ordering::SeqCst);
        self.shared.wake();
        // An eventfd takes a write as long as nobody has written 2^64 times.
        let _ = rustix::io::write(&self.control.stop, &1_u64.to_ne_bytes());
        if let Some(session) = self.control.session().as_ref() {
            session.shutdown();
        }
        for thread in self.threads.drain(..) {
            // A thread that panicked has said so itself.
            let _ = thread.join();
        }
    }
}

impl fmt::Debug for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Device")
            .field("guest_cid", &self.guest_cid)
            .field("published", &self.published)
            .field("state", &self.state())
            .finish_non_exhaustive()
    }
}

impl Control {
    fn session(&self) -> MutexGuard<'_, Option<ShutdownHandle>> {
        self.session.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::SeqCst)
    }
}

/// The thread that waits for sockets and deadlines.
fn attend_sockets(shared: &Shared, control: &Control, poll: &OwnedFd) {
    let mut events = Vec::with_capacity(EVENTS);
    let mut rest = Rest::Done;
    while !control.is_stopping() {
        let timeout = match rest {
            Rest::More => Some(Timespec::default()),
            Rest::Done => shared.hub().next_deadline().map(until),
        };
        events.clear();
        let waited =
            epoll::wait(poll, rustix::buffer::spare_capacity(&mut events), timeout.as_ref());
        match waited {
            Ok(_) | Err(Errno::INTR) => {}
            Err(cause) => {
                log::error!("the vsock device stops, its event loop failed: {cause}");
                return;
            }
        }
        let mut hub = shared.hub();
        for event in &events {
            let event: &epoll::Event = event;
            match event.data.u64() {
                WAKER => {
                    // Whatever was counted, it is one round.
                    let _ = rustix::io::read(shared.waker(), &mut [0_u8; 8]);
                }
                data => hub.event(data, event.flags),
            }
        }
        hub.expire(Instant::now());
        rest = hub.round();
    }
}

fn until(deadline: Instant) -> Timespec {
    let rest = deadline.saturating_duration_since(Instant::now());
    // A nanosecond more than needed is better than waking up just before the deadline.
    Timespec { tv_sec: rest.as_secs() as i64, tv_nsec: i64::from(rest.subsec_nanos()) }
}

/// The thread that serves QEMU, one connection after the other.
fn attend_qemu(shared: &Arc<Shared>, control: &Control, entrance: &UnixEntrance, cid: u64) {
    while wait_for_qemu(control, entrance) {
        match serve_qemu(shared, control, entrance, cid) {
            Ok(()) => {}
            Err(Ended::HandleRequest(
                VhostUserError::Disconnected | VhostUserError::PartialMessage,
            )) => {}
            Err(error) => log::warn!("vsock guest {cid}: QEMU's connection broke: {error}"),
        }
        *control.session() = None;
        shared.work(Hub::detach);
    }
}

/// Waits for a connection; false if the device stops.
fn wait_for_qemu(control: &Control, entrance: &UnixEntrance) -> bool {
    while !control.is_stopping() {
        let mut descriptors = [
            PollFd::from_borrowed_fd(entrance.listener().as_fd(), PollFlags::IN),
            PollFd::from_borrowed_fd(control.stop.as_fd(), PollFlags::IN),
        ];
        match rustix::event::poll(&mut descriptors, None) {
            Ok(_) if !descriptors[0].revents().is_empty() => return !control.is_stopping(),
            Ok(_) | Err(Errno::INTR) => {}
            Err(cause) => {
                log::error!("vsock device: cannot wait for QEMU: {cause}");
                return false;
            }
        }
    }
    false
}

/// Serves one connection of QEMU until its end.
fn serve_qemu(
    shared: &Arc<Shared>,
    control: &Control,
    entrance: &UnixEntrance,
    cid: u64,
) -> Result<(), Ended> {
    let listener = entrance.listener().try_clone().map_err(Ended::StartDaemon)?;
    let memory = GuestMemoryAtomic::new(GuestMemoryMmap::new());
    let backend = Arc::new(Backend::new(shared.clone(), cid));
    // A library object serves one connection: it remembers who owns it, and rings and memory.
    let mut daemon = VhostUserDaemon::new(format!("vsock{cid}-vhost"), backend, memory)?;
    daemon.start(&mut Listener::from(listener))?;
    *control.session() = daemon.shutdown_handle();
    if control.is_stopping() {
        daemon.request_shutdown();
    }
    daemon.wait()
}
