//! One test's bench: a directory, a network, a cgroup, and the activator under test.

use activator::client;
use activator::control::{Request, ServiceStatus, SocketStatus, Status};
use activator::manifest::Manifest;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream, UdpSocket};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Generous: it is only waited for that long when something is wrong.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) struct Bench {
    activator: Option<Child>,
    /// Dropped before the directory in which it is mounted.
    cgroup: Option<OwnCgroup>,
    directory: tempfile::TempDir,
}

impl Bench {
    /// Called in namespaces of our own.
    pub(crate) fn new() -> Self {
        loopback_up();
        let directory = tempfile::Builder::new().prefix("rouse-test-").tempdir().unwrap();
        let cgroup = OwnCgroup::make(directory.path().join("cgroup"));
        Self { activator: None, cgroup, directory }
    }

    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }

    pub(crate) fn has_cgroups(&self) -> bool {
        self.cgroup.is_some()
    }

    /// Starts `activator run` and waits until it answers.
    pub(crate) fn start(&mut self, manifest: &Manifest) {
        let path = self.path().join("manifest");
        std::fs::write(&path, manifest.encode()).unwrap();
        let log = std::fs::File::create(self.path().join("log")).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_activator"));
        command.arg("run").arg(&path).arg("--control").arg(self.control());
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        self.activator = Some(command.spawn().unwrap());
        self.wait("it answers", |status| status.state == "running" || status.state == "starting");
    }

    pub(crate) fn control(&self) -> PathBuf {
        // A folder of its own, since the activator writes beside it.
        self.path().join("activator/control")
    }

    pub(crate) fn pid(&self) -> u32 {
        self.activator.as_ref().unwrap().id()
    }

    pub(crate) fn try_status(&self) -> Option<Status> {
        status_of(&self.control())
    }

    pub(crate) fn status(&self) -> Status {
        self.wait("it answers", |_| true)
    }

    pub(crate) fn order(&self, request: Request) -> Result<(), client::Error> {
        client::order(UnixStream::connect(self.control()).unwrap(), "", &request)
    }

    /// Waits until the status is as it should be.
    pub(crate) fn wait(&self, what: &str, good: impl Fn(&Status) -> bool) -> Status {
        let begun = Instant::now();
        let mut last = None;
        while begun.elapsed() < PATIENCE {
            last = self.try_status();
            if let Some(status) = last.take_if(|status| good(status)) {
                return status;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("waited in vain until {what}: {last:#?}\n{}", self.log());
    }

    /// Waits until a file of the directory has such a line.
    pub(crate) fn wait_report(&self, what: &str) {
        let begun = Instant::now();
        while begun.elapsed() < PATIENCE {
            if self.report().iter().any(|line| line.contains(what)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        panic!("waited in vain for the line {what}: {:#?}\n{}", self.report(), self.log());
    }

    /// What the helpers reported.
    pub(crate) fn report(&self) -> Vec<String> {
        let text = std::fs::read_to_string(self.path().join("report")).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    /// What the activator and the services wrote.
    pub(crate) fn log(&self) -> String {
        let read = |name| std::fs::read_to_string(self.path().join(name)).unwrap_or_default();
        format!("log:\n{}\noutput:\n{}", read("log"), read("output"))
    }

    /// Lets helpers go on that wait for it.
    pub(crate) fn go(&self) {
        std::fs::write(self.path().join("go"), "").unwrap();
    }

    /// Waits until it has ended, well.
    pub(crate) fn wait_exit(&mut self) {
        let status = self.activator.take().unwrap().wait().unwrap();
        assert!(status.success(), "{status}\n{}", self.log());
    }

    /// Lets every user write into the directory.
    pub(crate) fn open_to_all(&self) {
        use std::os::unix::fs::PermissionsExt;
        let all = std::fs::Permissions::from_mode(0o777);
        std::fs::set_permissions(self.path(), all).unwrap();
    }

    /// Asks it to end, and waits until it has, well.
    pub(crate) fn stop(&mut self) {
        signal(self.pid(), libc::SIGTERM);
        self.wait_exit();
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        if let Some(mut child) = self.activator.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// The status, if it comes within a few seconds.
pub(crate) fn status_of(control: &Path) -> Option<Status> {
    let stream = UnixStream::connect(control).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
    client::status(stream, "").ok()
}

pub(crate) fn service<'a>(status: &'a Status, name: &str) -> &'a ServiceStatus {
    status.services.iter().find(|it| it.name == name).unwrap()
}

pub(crate) fn socket<'a>(status: &'a Status, name: &str) -> &'a SocketStatus {
    status.sockets.iter().find(|it| it.name == name).unwrap()
}

/// Sends, shuts the write side, reads to the end.
pub(crate) fn ask(mut stream: impl Read + Write, shut: impl FnOnce(), text: &str) -> String {
    stream.write_all(text.as_bytes()).unwrap();
    shut();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

pub(crate) fn ask_tcp(address: &str, text: &str) -> String {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    ask(&stream, || stream.shutdown(Shutdown::Write).unwrap(), text)
}

pub(crate) fn ask_unix(path: &Path, text: &str) -> String {
    let stream = UnixStream::connect(path).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    ask(&stream, || stream.shutdown(Shutdown::Write).unwrap(), text)
}

pub(crate) fn ask_udp(from: &str, to: &str, text: &str) -> String {
    let socket = UdpSocket::bind(from).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.send_to(text.as_bytes(), to).unwrap();
    let mut buffer = [0; 4096];
    let length = socket.recv(&mut buffer).unwrap();
    String::from_utf8_lossy(&buffer[..length]).into_owned()
}

/// The helper's answer without its pid, and the pid.
pub(crate) fn split(answer: &str) -> (u32, &str) {
    let (pid, text) = answer.split_once(' ').unwrap_or_else(|| panic!("answer {answer:?}"));
    (pid.parse().unwrap(), text)
}

pub(crate) fn signal(pid: u32, signal: i32) {
    let pid = rustix::process::Pid::from_raw(pid as i32).unwrap();
    // SAFETY: the numbers that are given here are signals that Linux has.
    #[allow(unsafe_code)]
    let signal = unsafe { rustix::process::Signal::from_raw_unchecked(signal) };
    rustix::process::kill_process(pid, signal).unwrap();
}

/// Waits until a condition holds.
pub(crate) fn until(what: &str, mut good: impl FnMut() -> bool) {
    let begun = Instant::now();
    while begun.elapsed() < PATIENCE {
        if good() {
            return;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    panic!("waited in vain until {what}");
}

/// A vsock connection; None where the kernel knows no way to that CID.
#[allow(unsafe_code)]
pub(crate) fn connect_vsock(cid: u32, port: u32) -> Option<rustix::fd::OwnedFd> {
    use rustix::net::{AddressFamily, SocketType, socket};
    let fd = socket(AddressFamily::VSOCK, SocketType::STREAM, None).ok()?;
    // SAFETY: all zeroes is a valid sockaddr_vm, and pointer and size are those of a live one.
    let done = unsafe {
        let mut address: libc::sockaddr_vm = std::mem::zeroed();
        address.svm_family = libc::AF_VSOCK as libc::sa_family_t;
        address.svm_cid = cid;
        address.svm_port = port;
        let size = size_of::<libc::sockaddr_vm>() as libc::socklen_t;
        libc::connect(rustix::fd::AsRawFd::as_raw_fd(&fd), (&raw const address).cast(), size)
    };
    (done == 0).then_some(fd)
}

/// Whether our user namespace knows no other user than us.
pub(crate) fn is_mapped_alone() -> bool {
    let map = std::fs::read_to_string("/proc/self/uid_map").unwrap();
    map.split_whitespace().nth(2) == Some("1")
}

fn loopback_up() {
    interface("lo", |request| {
        request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
        libc::SIOCSIFFLAGS as _
    });
}

/// Gives the loopback one more address.
pub(crate) fn add_address(address: [u8; 4]) {
    interface("lo:1", |request| {
        // A sockaddr_in: family, port, address.
        let mut bytes = [0; 14];
        bytes[2..6].copy_from_slice(&address);
        request.ifr_ifru.ifru_addr = libc::sockaddr {
            sa_family: libc::AF_INET as _,
            sa_data: bytes.map(|byte| byte as libc::c_char),
        };
        libc::SIOCSIFADDR as _
    });
}

#[allow(unsafe_code)]
fn interface(name: &str, fill: impl FnOnce(&mut libc::ifreq) -> libc::Ioctl) {
    let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
    // SAFETY: an ifreq of zeroes is valid, and the ioctls that `fill` names read one.
    let done = unsafe {
        let mut request: libc::ifreq = std::mem::zeroed();
        for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
            *to = from as libc::c_char;
        }
        let number = fill(&mut request);
        let fd = rustix::fd::AsRawFd::as_raw_fd(&socket);
        libc::ioctl(fd, number, &raw mut request)
    };
    assert_eq!(done, 0, "{name}: {}", std::io::Error::last_os_error());
}

/// A cgroup that is the root of a cgroup namespace, with cgroup2 mounted where the activator
/// looks for it. The host's tree keeps nothing of it.
struct OwnCgroup {
    /// The host's tree, as we see it.
    host: PathBuf,
    own: PathBuf,
}

impl OwnCgroup {
    /// None if this user may not write to cgroup2: then the activator goes by process groups.
    fn make(host: PathBuf) -> Option<Self> {
        std::fs::create_dir(&host).unwrap();
        let mount = |at: &Path| {
            let flags = rustix::mount::MountFlags::empty();
            rustix::mount::mount(c"cgroup2", at, c"cgroup2", flags, None)
        };
        mount(&host).ok()?;
        // Our pid is 1 here, as it is in every other test: the name needs more.
        let unique = format!("rouse-test-{:016x}", rand());
        let made = Self { own: host.join(unique), host };
        std::fs::create_dir(&made.own).ok()?;
        std::fs::write(made.own.join("cgroup.procs"), "0").ok()?;
        // SAFETY: leaving a cgroup namespace shares no memory or fds differently.
        #[allow(unsafe_code)]
        unsafe {
            rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWCGROUP).ok()?;
        }
        mount(Path::new("/sys/fs/cgroup")).ok()?;
        Some(made)
    }
}

impl Drop for OwnCgroup {
    fn drop(&mut self) {
        let _ = std::fs::write(self.host.join("cgroup.procs"), "0");
        let _ = std::fs::write(self.own.join("cgroup.kill"), "1");
        let begun = Instant::now();
        // What was killed takes a moment to go.
        while remove(&self.own).is_err() && begun.elapsed() < PATIENCE {
            std::thread::sleep(Duration::from_millis(5));
        }
        let _ = rustix::mount::unmount(&self.host, rustix::mount::UnmountFlags::DETACH);
    }
}

fn remove(cgroup: &Path) -> std::io::Result<()> {
    for entry in std::fs::read_dir(cgroup)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove(&entry.path())?;
        }
    }
    std::fs::remove_dir(cgroup)
}

fn rand() -> u64 {
    use std::hash::{BuildHasher, Hasher};
    std::collections::hash_map::RandomState::new().build_hasher().finish()
}
