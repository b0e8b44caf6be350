//! PID 1 in a PID namespace: its chores, its end, and what it does not survive.
//!
//! The root is a tmpfs, like an initramfs, with the activator as /init, this file as the service,
//! and the libraries that both need. It is looked into through /proc/PID/root.
//!
//! devtmpfs needs the real root of the machine. Without it PID 1 finds no /dev/null and gives up,
//! which is then what these tests see: [`boots`].

use crate::Test;
use crate::bench::{self, Bench, until};
use crate::build::{Units, listener, service, socket};
use activator::control::Programs;
use activator::manifest::{
    self, Address, Boot, ListenKind, Module, Output, Service, Socket, Writable,
};
use std::io::Read;
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

pub(crate) const TESTS: &[Test] = &[
    ("init::mounts_root_loopback_and_host_name", chores),
    ("init::ctrl_alt_del_stops_in_order_and_powers_off", |bench| {
        ends(bench, |it| it.signal(libc::SIGINT))
    }),
    ("init::sigterm_stops_in_order_and_powers_off", |bench| {
        ends(bench, |it| it.signal(libc::SIGTERM))
    }),
    ("init::pid_1_takes_another_manifest_and_another_activator_without_its_chores", reload),
    ("init::no_manifest_is_a_last_line_and_power_off", no_manifest),
    ("init::a_damaged_manifest_is_a_last_line_and_power_off", damaged),
    ("init::a_required_module_is_a_last_line_and_power_off", no_module),
];

/// A machine of one PID namespace.
struct Init {
    unshare: Child,
    /// Its PID 1, as we see it.
    pid: u32,
}

/// Whether the machine has a network of its own, or the bench's.
#[derive(PartialEq)]
enum Network {
    Own,
    Bench,
}

impl Init {
    /// Boots with what is in the root.
    fn boot(root: &Path, manifest: Option<&[u8]>, network: Network) -> Self {
        if let Some(bytes) = manifest {
            let path = root.join(manifest::PATH.trim_start_matches('/'));
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, bytes).unwrap();
        }
        let mut unshare = Command::new("unshare");
        unshare.args(["--pid", "--fork", "--kill-child", "--mount", "--uts"]);
        if network == Network::Own {
            unshare.arg("--net");
        }
        unshare.args(["--propagation", "private", "chroot"]).arg(root).arg("/init");
        unshare.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut unshare = unshare.spawn().unwrap();
        let children = format!("/proc/{0}/task/{0}/children", unshare.id());
        let mut pid = 0;
        until("PID 1 is there", || {
            let text = std::fs::read_to_string(&children).unwrap_or_default();
            pid = text.split_whitespace().next().and_then(|pid| pid.parse().ok()).unwrap_or(0);
            // It may have ended before we looked, which the test will see.
            pid != 0 || unshare.try_wait().unwrap().is_some()
        });
        Self { unshare, pid }
    }

    /// A path of the machine, for us.
    fn path(&self, path: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root{path}", self.pid))
    }

    /// Asks the service for a file as it sees it.
    fn read(&self, path: &str) -> String {
        let socket = self.path("/run/files.sock");
        until("it listens", || socket.exists());
        bench::ask_unix(&socket, path)
    }

    fn signal(&self, signal: i32) {
        bench::signal(self.pid, signal);
    }

    /// Waits for its end, which is a power-off, and gives back its last words.
    fn end(mut self) -> String {
        let mut words = String::new();
        self.unshare.stderr.take().unwrap().read_to_string(&mut words).unwrap();
        let status = self.unshare.wait().unwrap();
        // reboot(2): in a PID namespace power-off ends its init as if by SIGINT.
        let codes = [Some(libc::SIGINT), Some(128 + libc::SIGINT)];
        assert!(
            codes.contains(&status.signal()) || codes.contains(&status.code()),
            "{status}: {words}"
        );
        words
    }
}

/// A root on a tmpfs: /init, the helper, their libraries.
fn make_root(bench: &Bench) -> PathBuf {
    let root = bench.path().join("root");
    std::fs::create_dir(&root).unwrap();
    let flags = rustix::mount::MountFlags::empty();
    rustix::mount::mount(c"tmpfs", &root, c"tmpfs", flags, None).unwrap();
    let copy = |from: &Path, to: &str| {
        let to = root.join(to.trim_start_matches('/'));
        std::fs::create_dir_all(to.parent().unwrap()).unwrap();
        std::fs::copy(from, to).unwrap();
    };
    copy(Path::new(env!("CARGO_BIN_EXE_init")), "/init");
    copy(Path::new(env!("CARGO_BIN_EXE_activator")), activator::ACTIVATOR);
    copy(&std::env::current_exe().unwrap(), "/helper");
    // What the dynamic linker mapped for us is what the two need.
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let files = maps.lines().filter_map(|line| line.split_whitespace().nth(5));
    for library in files.filter(|path| path.contains(".so")) {
        copy(Path::new(library), library);
        // Where the two look for it, with and without merged /usr.
        copy(Path::new(library), library.strip_prefix("/usr").unwrap_or(library));
    }
    for linker in ["/lib64/ld-linux-x86-64.so.2", "/lib/ld-linux-aarch64.so.1"] {
        if Path::new(linker).exists() {
            copy(Path::new(linker), linker);
        }
    }
    root
}

/// The helper at the place that it has in the root.
fn helper(arguments: &[&str]) -> Service {
    let mut spec = service(Path::new("/run"), arguments);
    for command in &mut spec.start {
        command.program = "/helper".into();
    }
    (spec.execution.stdout, spec.execution.stderr) = (Output::Null, Output::Null);
    spec
}

/// devtmpfs is for the machine's own root only. Without it there is no /dev/null, and PID 1
/// gives up: then that is looked at, and the test is over.
fn boots(init: Init) -> Option<Init> {
    if bench::is_mapped_alone() {
        gives_up(init, "failed to open /dev/null");
        return None;
    }
    Some(init)
}

fn gives_up(init: Init, why: &str) {
    let words = init.end();
    let last = words.lines().last().unwrap_or_default();
    assert!(last.starts_with("activator: ") && last.ends_with("; powering off"), "{words}");
    assert!(last.contains(why), "{words}");
}

fn chores(bench: &mut Bench) {
    let path = Address::Path("/run/files.sock".into());
    let spec = socket("files", vec![listener(ListenKind::Stream, path)]);
    let mut units = Units::default()
        .service("files.service", helper(&["files"]))
        .socket("files.socket", "files.service", spec)
        .service("orphan.service", helper(&["orphan"]))
        .at_boot("orphan.service");
    units.boot = Boot {
        modules: vec![Module {
            path: "/no/such/module.ko".into(),
            parameters: String::new(),
            required: false,
        }],
        writable: vec![Writable { path: "/var".into(), mode: 0o750, owner: (0, 0) }],
        sysctls: vec![("net/ipv4/ip_default_ttl".into(), "77".into())],
        ..Boot::default()
    };
    let manifest = units.build().encode();
    let init = Init::boot(&make_root(bench), Some(&manifest), Network::Own);
    let Some(init) = boots(init) else { return };
    let mounts = init.read("/proc/mounts");
    let has = |path: &str, kind: &str, options: &[&str]| {
        let found = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>()).any(|mount| {
            let given: Vec<&str> = mount[3].split(',').collect();
            mount[1] == path && mount[2] == kind && options.iter().all(|it| given.contains(it))
        });
        assert!(found, "{path} {kind} {options:?} in\n{mounts}");
    };
    has("/", "tmpfs", &["ro"]);
    has("/proc", "proc", &["nosuid", "nodev", "noexec"]);
    has("/sys", "sysfs", &["nosuid", "nodev", "noexec"]);
    has("/dev", "devtmpfs", &["nosuid"]);
    has("/dev/pts", "devpts", &["gid=5", "mode=620", "ptmxmode=666"]);
    has("/dev/shm", "tmpfs", &["nosuid", "nodev"]);
    has("/dev/mqueue", "mqueue", &["noexec"]);
    has("/run", "tmpfs", &["mode=755"]);
    has("/tmp", "tmpfs", &["nosuid", "nodev"]);
    has("/sys/fs/cgroup", "cgroup2", &["nosuid"]);
    has("/var", "tmpfs", &["mode=750"]);
    // A mount with a parent, which pivot_root(2) wants, and shared.
    let info = init.read("/proc/self/mountinfo");
    let root = info.lines().rfind(|line| line.split(' ').nth(4) == Some("/")).unwrap();
    assert!(root.contains(" shared:"), "{info}");
    assert_eq!(init.read("/proc/sys/kernel/hostname"), "test\n");
    assert_eq!(init.read("/proc/sys/net/ipv4/ip_default_ttl"), "77\n");
    let flags = init.read("/sys/class/net/lo/flags");
    let flags = u32::from_str_radix(flags.trim().trim_start_matches("0x"), 16).unwrap();
    assert_eq!(flags & libc::IFF_UP as u32, libc::IFF_UP as u32);
    let cgroup = init.read("/proc/self/cgroup");
    assert!(cgroup.lines().any(|line| line.ends_with("/rouse/files.service")), "{cgroup}");
    let limits = init.read("/proc/self/limits");
    let files = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
    let soft = files.split_whitespace().nth(3);
    assert_eq!(soft, Some("1024"), "{files}");
    until("orphans are reaped", || {
        let path = format!("/proc/{0}/task/{0}/children", init.pid);
        let children = std::fs::read_to_string(path).unwrap();
        !children.split_whitespace().any(|pid| {
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            stat.contains(") Z ")
        })
    });
    // We are root in a PID namespace that it does not see.
    let status = bench::status_of(&init.path("/run/rouse/control")).unwrap();
    assert_eq!(bench::socket(&status, "files.socket").state, "running");
    init.signal(libc::SIGTERM);
    init.end();
}

/// It reads what it is asked for in a new mount of the root, and stays the same PID 1.
fn reload(bench: &mut Bench) {
    let path = Address::Path("/run/files.sock".into());
    let spec = socket("files", vec![listener(ListenKind::Stream, path)]);
    let units = |spec: &Socket| {
        Units::default().service("files.service", helper(&["files"])).socket(
            "files.socket",
            "files.service",
            spec.clone(),
        )
    };
    let manifest = units(&spec).build();
    let other = Address::Path("/run/other.sock".into());
    let new = units(&spec)
        .service("other.service", helper(&["files"]))
        .socket(
            "other.socket",
            "other.service",
            socket("o", vec![listener(ListenKind::Stream, other)]),
        )
        .build();
    let init = Init::boot(&make_root(bench), Some(&manifest.encode()), Network::Own);
    let Some(init) = boots(init) else { return };
    let before = ["/proc/mounts", "/proc/self/stat"].map(|path| init.read(path));
    let control = init.path("/run/rouse/control");
    let [own, other] = [env!("CARGO_BIN_EXE_init"), env!("CARGO_BIN_EXE_activator")]
        .map(|path| std::fs::read(path).unwrap());
    let programs = Programs { init: &own[..], activator: &other[..] };
    for programs in [None, Some(programs), None] {
        let stream = std::os::unix::net::UnixStream::connect(&control).unwrap();
        stream.set_read_timeout(Some(bench::PATIENCE)).unwrap();
        activator::client::replace(stream, "", &new.encode(), programs, |_| ()).unwrap();
        // The same process answers, from the same mounts, as a child of the same PID 1.
        let after = ["/proc/mounts", "/proc/self/stat"].map(|path| init.read(path));
        assert_eq!(after[0], before[0]);
        let id = |stat: &str| stat.split(' ').take(4).map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(id(&after[1]), id(&before[1]));
        let other = init.path("/run/other.sock");
        assert_eq!(bench::ask_unix(&other, "/proc/1/comm"), "init\n");
        let status = bench::status_of(&control);
        until("logd answers", || status.is_some() || bench::status_of(&control).is_some());
    }
    init.signal(libc::SIGTERM);
    init.end();
}

/// Ends it in one of the ways, and sees that services stop in order before that.
fn ends(bench: &mut Bench, end: fn(&Init)) {
    use std::os::linux::net::SocketAddrExt;
    // Abstract, so that it is in the network that we share, whatever the root.
    let name = format!("rouse-report-{}", std::process::id());
    let address = std::os::unix::net::SocketAddr::from_abstract_name(&name).unwrap();
    let reports = UnixDatagram::bind_addr(&address).unwrap();
    reports.set_read_timeout(Some(bench::PATIENCE)).unwrap();
    let program = |which: &str| {
        let mut spec = helper(&["up-and-down", which]);
        spec.execution.environment = vec![format!("REPORT=@{name}")];
        spec
    };
    let units = Units::default()
        .service("a.service", program("second"))
        .service("b.service", program("first"))
        .after("a.service", "b.service")
        .at_boot("a.service")
        .at_boot("b.service");
    let manifest = units.build().encode();
    let init = Init::boot(&make_root(bench), Some(&manifest), Network::Bench);
    let Some(init) = boots(init) else { return };
    let next = || {
        let mut buffer = [0; 100];
        let length = reports.recv(&mut buffer).unwrap();
        String::from_utf8_lossy(&buffer[..length]).into_owned()
    };
    let mut ups = [next(), next()];
    ups.sort();
    assert_eq!(ups, ["up first\n", "up second\n"]);
    end(&init);
    assert_eq!([next(), next()], ["down second\n", "down first\n"]);
    init.end();
}

fn no_manifest(bench: &mut Bench) {
    let init = Init::boot(&make_root(bench), None, Network::Own);
    gives_up(init, "failed to read /usr/lib/rouse/manifest: No such file or directory");
}

fn damaged(bench: &mut Bench) {
    let mut bytes = Units::default().build().encode();
    *bytes.last_mut().unwrap() ^= 1;
    let init = Init::boot(&make_root(bench), Some(&bytes), Network::Own);
    gives_up(init, "failed to use /usr/lib/rouse/manifest: the manifest is truncated or damaged");
}

fn no_module(bench: &mut Bench) {
    let mut units = Units::default();
    units.boot.modules = vec![Module {
        path: "/no/such/module.ko".into(),
        parameters: String::new(),
        required: true,
    }];
    let init = Init::boot(&make_root(bench), Some(&units.build().encode()), Network::Own);
    gives_up(init, "failed to load /no/such/module.ko: No such file or directory");
}
