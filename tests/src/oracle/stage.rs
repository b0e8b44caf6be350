//! Namespaces for either side, with the same in them: a network with nothing but the loopback,
//! the machine's /usr, and else nothing of the machine's.
#![allow(unsafe_code)]

use super::case::{Case, FOLDERS, PROBE};
use super::manager::{ACTIVATOR, INIT, MANIFEST, UNITS};
use rustix::mount::{MountFlags, MountPropagationFlags};
use std::ffi::CStr;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};

/// The host name of both sides.
pub const HOST_NAME: &str = "oracle";
/// The accounts of both sides.
pub const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\n\
    daemon:x:1:1:daemon:/usr/sbin:/usr/sbin/nologin\n\
    www-data:x:33:33:www-data:/var/www:/usr/sbin/nologin\n\
    ann:x:1000:1000:Ann:/home/ann:/bin/bash\n\
    nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n";
/// Their groups.
pub const GROUP: &str = "root:x:0:\ndaemon:x:1:\nadm:x:4:ann\ntty:x:5:\nwww-data:x:33:\n\
    audio:x:29:ann\nann:x:1000:\nnogroup:x:65534:\n";

/// What a side needs from outside.
pub struct Props {
    /// The probe's program.
    pub probe: PathBuf,
    /// The activator's program.
    pub activator: PathBuf,
    /// The activator's manifest.
    pub manifest: PathBuf,
}

/// A command that runs the rest in fresh namespaces, and ends with all that it started.
pub fn unshare() -> Command {
    let mut command = Command::new("unshare");
    command.args(["--mount", "--pid", "--fork", "--net", "--uts", "--ipc", "--mount-proc"]);
    command.args(["--kill-child", "--propagation", "private"]);
    command
}

/// Inside: makes the file tree, the network, and the cases' files.
pub fn set(props: &Props, cases: &[Case]) {
    rustix::system::sethostname(HOST_NAME.as_bytes()).unwrap();
    loopback_up();
    control_groups();
    mount("tmpfs", "/run", c"mode=755");
    for folder in ["/run/systemd/system", "/run/rouse", FOLDERS, UNITS] {
        std::fs::create_dir_all(folder).unwrap();
    }
    for (file, to) in [
        (&props.probe, PROBE),
        (&props.activator, ACTIVATOR),
        (&props.activator.with_file_name("init"), INIT),
        (&props.manifest, MANIFEST),
    ] {
        std::fs::write(to, "").unwrap();
        rustix::mount::mount_bind(file, to).unwrap();
    }
    for (folder, mode) in [
        ("/tmp", c"mode=1777"),
        ("/var", c"mode=755"),
        ("/root", c"mode=700"),
        ("/home", c"mode=755"),
        ("/etc", c"mode=755"),
        ("/mnt", c"mode=755"),
    ] {
        mount("tmpfs", folder, mode);
    }
    for folder in ["/var/lib", "/var/cache", "/var/log", "/var/www", "/home/ann"] {
        std::fs::create_dir_all(folder).unwrap();
    }
    std::fs::create_dir("/var/tmp").unwrap();
    std::fs::set_permissions("/var/tmp", PermissionsExt::from_mode(0o1777)).unwrap();
    std::os::unix::fs::symlink("/run", "/var/run").unwrap();
    let id = "0123456789abcdef0123456789abcdef\n";
    for (file, text) in [
        ("/etc/passwd", PASSWD),
        ("/etc/group", GROUP),
        ("/etc/nsswitch.conf", "passwd: files\ngroup: files\nshadow: files\nhosts: files\n"),
        ("/etc/machine-id", id),
        ("/etc/hostname", HOST_NAME),
        ("/etc/os-release", "ID=rouse\n"),
        ("/home/ann/file", "of ann\n"),
        ("/root/file", "of root\n"),
    ] {
        std::fs::write(file, text).unwrap();
    }
    for case in cases {
        std::fs::create_dir(case.folder()).unwrap();
        std::fs::set_permissions(case.folder(), PermissionsExt::from_mode(0o1777)).unwrap();
        for (file, text) in &case.files {
            std::fs::create_dir_all(Path::new(file).parent().unwrap()).unwrap();
            std::fs::write(file, text).unwrap();
        }
        case.write_units(Path::new(UNITS));
    }
    targets(cases);
    // What a service inherits is the same, however the test was started.
    rustix::process::umask(rustix::fs::Mode::from(0o022));
    rustix::process::chdir("/").unwrap();
    let limit = rustix::process::Rlimit { current: Some(1024), maximum: Some(8192) };
    rustix::process::setrlimit(rustix::process::Resource::Nofile, limit).unwrap();
}

/// The targets that systemd's own units would be, and what `systemctl enable` would link.
fn targets(cases: &[Case]) {
    for target in
        ["basic", "default", "multi-user", "paths", "shutdown", "sockets", "sysinit", "timers"]
    {
        let text = match target {
            "default" => "[Unit]\nWants=multi-user.target\n",
            "multi-user" => "[Unit]\nWants=basic.target\nAfter=basic.target\n",
            "basic" => "[Unit]\nWants=sockets.target\n",
            "shutdown" => "[Unit]\nDefaultDependencies=no\n",
            "sysinit" => "[Unit]\nDefaultDependencies=no\n",
            _ => "[Unit]\n",
        };
        std::fs::write(format!("{UNITS}/{target}.target"), text).unwrap();
    }
    let units = cases.iter().flat_map(|case| &case.units);
    for (file, text) in units.filter(|(file, _)| !file.contains('/')) {
        let mut section = "";
        for line in text.lines().map(str::trim) {
            if line.starts_with('[') {
                section = line;
            }
            let Some((key, value)) = line.split_once('=').filter(|_| section == "[Install]") else {
                continue;
            };
            let kind = match key {
                "WantedBy" => "wants",
                "RequiredBy" => "requires",
                "Alias" => {
                    std::os::unix::fs::symlink(file, format!("{UNITS}/{value}")).unwrap();
                    continue;
                }
                _ => continue,
            };
            let (prefix, suffix) = file.split_once("@.").unwrap_or((file, ""));
            let instance = text.lines().find_map(|line| line.strip_prefix("DefaultInstance="));
            let name = match instance.filter(|_| !suffix.is_empty()) {
                Some(instance) => format!("{prefix}@{instance}.{suffix}"),
                None => file.clone(),
            };
            for target in value.split_whitespace() {
                let folder = format!("{UNITS}/{target}.{kind}");
                std::fs::create_dir_all(&folder).unwrap();
                std::os::unix::fs::symlink(format!("../{file}"), format!("{folder}/{name}"))
                    .unwrap();
            }
        }
    }
}

/// A hierarchy of version 2, and a group in it that the manager may use as it likes.
pub fn control_groups() {
    let root = "/sys/fs/cgroup";
    while rustix::mount::unmount(root, rustix::mount::UnmountFlags::DETACH).is_ok() {}
    let none: Option<&CStr> = None;
    rustix::mount::mount("none", root, "cgroup2", MountFlags::empty(), none).unwrap();
    // Groups of earlier runs; those of one that still runs are busy.
    for entry in std::fs::read_dir(root).unwrap().flatten() {
        if entry.file_name().to_string_lossy().starts_with("rouse-oracle-") {
            remove_groups(&entry.path());
        }
    }
    let namespace = std::fs::metadata("/proc/self/ns/pid").unwrap();
    let own = format!("{root}/rouse-oracle-{}", namespace.ino());
    std::fs::create_dir_all(&own).unwrap();
    std::fs::write(format!("{own}/cgroup.procs"), "0").unwrap();
    // SAFETY: a number; the namespace's root is the group just entered.
    assert_eq!(unsafe { libc::unshare(libc::CLONE_NEWCGROUP) }, 0);
    rustix::mount::unmount(root, rustix::mount::UnmountFlags::DETACH).unwrap();
    rustix::mount::mount("none", root, "cgroup2", MountFlags::empty(), none).unwrap();
}

/// Starts a manager with no signal ignored. The C library has the two that it keeps for itself
/// ignored in what posix_spawn(3) makes, and systemd, which uses that library, never resets them.
pub fn spawn(mut command: Command) -> Child {
    // SAFETY: between fork and exec, system calls with numbers and memory of its own.
    unsafe {
        command.pre_exec(|| {
            default_signals();
            // As PID 1 has it.
            libc::umask(0);
            Ok(())
        });
    }
    command.spawn().unwrap()
}

fn default_signals() {
    for signal in 1..=64_i64 {
        // The kernel's sigaction: handler, flags, restorer, mask; all zero is SIG_DFL.
        let default = [0_u64; 4];
        // SAFETY: it reads four words, and the mask's eight bytes are among them. SIGKILL and
        // SIGSTOP are EINVAL.
        unsafe { libc::syscall(libc::SYS_rt_sigaction, signal, &raw const default, 0, 8) };
    }
}

fn remove_groups(group: &Path) {
    for entry in std::fs::read_dir(group).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_groups(&entry.path());
        }
    }
    let _ = std::fs::remove_dir(group);
}

fn mount(kind: &str, at: &str, options: &CStr) {
    rustix::mount::mount(kind, at, kind, MountFlags::empty(), Some(options))
        .unwrap_or_else(|errno| panic!("{kind} at {at}: {errno}"));
    rustix::mount::mount_change(at, MountPropagationFlags::PRIVATE).unwrap();
}

/// Switches on the only device of a fresh network namespace.
pub fn loopback_up() {
    let socket = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
    // SAFETY: an all-zero ifreq is valid; the name fits and stays terminated.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(b"lo") {
        *to = *from as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as i16;
    use std::os::fd::AsRawFd;
    // musl's ioctl has its number in another type than the constant.
    let number = libc::SIOCSIFFLAGS as _;
    // SAFETY: SIOCSIFFLAGS reads the ifreq.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), number, &raw const request) };
    assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
}
