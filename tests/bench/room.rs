//! Where peers run: each has a root of its own, with the /usr of its packages, and a control group
//! whose accounts are read. All share a network that nothing else is in.
//!
//! `/mnt` is the same inside of all rooms and outside: programs in `/mnt/bin`, sockets in `/mnt/s`.

use crate::client::Address;
use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_bind, mount_bind_recursive};
use std::ffi::OsString;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// Programs that are in all rooms.
pub(crate) const PROGRAMS: &str = "/mnt/bin";
/// The activator, and PID 1 beside it, which `activator run` executes.
pub(crate) const OWN: &str = "/mnt/bin/rouse/activator";
/// Unix sockets, and files of peers.
pub(crate) const SHARED: &str = "/mnt/s";
/// Where control groups of the rooms are made.
const GROUPS: &str = "/mnt/groups";

/// What a peer sees besides its packages.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Needs {
    /// It is to be PID 1.
    pub(crate) pid_1: bool,
    /// It has no control groups.
    pub(crate) no_groups: bool,
}

/// One peer's.
#[derive(Debug)]
pub(crate) struct Room {
    root: PathBuf,
    group: PathBuf,
    needs: Needs,
    child: Option<Child>,
}

/// Once, as PID 1 of fresh mount, PID and network namespaces: what all rooms share.
pub(crate) fn prepare(programs: &Path) {
    rouse_tests::oracle::stage::loopback_up();
    tmpfs(Path::new("/mnt"));
    for folder in [PROGRAMS, SHARED, GROUPS] {
        std::fs::create_dir(folder).unwrap();
    }
    std::fs::set_permissions(SHARED, PermissionsExt::from_mode(0o1777)).unwrap();
    mount_bind(programs, PROGRAMS).unwrap();
    mount("cgroup2", GROUPS, "cgroup2", MountFlags::empty(), None).unwrap();
}

fn tmpfs(at: &Path) {
    mount("tmpfs", at, "tmpfs", MountFlags::empty(), Some(c"mode=755")).unwrap();
    rustix::mount::mount_change(at, MountPropagationFlags::PRIVATE).unwrap();
}

impl Room {
    /// Makes an empty one; `tree` holds the peer's packages, if it comes from any.
    pub(crate) fn new(folder: &Path, name: &str, tree: Option<&Path>, needs: Needs) -> Self {
        let root = folder.join("rooms").join(name);
        std::fs::create_dir_all(&root).unwrap();
        tmpfs(&root);
        let at = |path: &str| root.join(path);
        for folder in [
            "usr",
            "etc",
            "proc",
            "sys",
            "dev",
            "run",
            "tmp",
            "root",
            "mnt",
            "var/lib",
            "var/log",
            "run/rouse",
        ] {
            std::fs::create_dir_all(at(folder)).unwrap();
        }
        for name in ["bin", "sbin", "lib", "lib64"] {
            symlink(format!("usr/{name}"), at(name)).unwrap();
        }
        if let Some(tree) = tree {
            mount_bind_recursive(tree.join("usr"), at("usr")).unwrap();
        }
        mount_bind_recursive("/dev", at("dev")).unwrap();
        mount_bind(SHARED_ROOT, at("mnt")).unwrap();
        mount_bind(PROGRAMS, at("mnt/bin")).unwrap();
        for (file, text) in [
            ("etc/passwd", "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534::/:/bin/false\n"),
            ("etc/group", "root:x:0:\nnogroup:x:65534:\n"),
            ("etc/services", "bench 7/tcp\n"),
            ("etc/protocols", "tcp 6 TCP\n"),
            ("etc/machine-id", "0123456789abcdef0123456789abcdef\n"),
            ("etc/os-release", "ID=bench\n"),
            ("etc/nsswitch.conf", "passwd: files\ngroup: files\nhosts: files\n"),
            ("etc/hosts", "127.0.0.1 localhost\n"),
        ] {
            std::fs::write(at(file), text).unwrap();
        }
        let group = Path::new(GROUPS).join(format!("bench-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&group).unwrap();
        Self { root, group, needs, child: None }
    }

    /// Writes a file of the peer's.
    pub(crate) fn write(&self, path: &str, text: &str) {
        let path = self.root.join(path.trim_start_matches('/'));
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    /// A folder or file of the room as it is outside.
    pub(crate) fn path(&self, path: &str) -> PathBuf {
        self.root.join(path.trim_start_matches('/'))
    }

    /// Starts the peer.
    pub(crate) fn start<S: Into<OsString>>(&mut self, words: impl IntoIterator<Item = S>) {
        let log = std::fs::File::create(self.root.with_extension("log")).unwrap();
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.arg("enter").arg(&self.group).arg(&self.root);
        command.arg(if self.needs.pid_1 { "pid1" } else { "plain" });
        command.arg(if self.needs.no_groups { "none" } else { "groups" });
        command.args(words.into_iter().map(Into::into));
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        self.child = Some(command.spawn().unwrap());
    }

    /// Starts it and waits until it listens.
    pub(crate) fn start_on<S: Into<OsString>>(
        &mut self,
        address: &Address,
        words: impl IntoIterator<Item = S>,
    ) -> Result<(), String> {
        self.start(words);
        address.wait().map_err(|error| format!("{error}: {}", self.log()))
    }

    /// The last lines of what it said.
    pub(crate) fn log(&self) -> String {
        let log = std::fs::read(self.root.with_extension("log")).unwrap_or_default();
        let text = String::from_utf8_lossy(&log);
        // Without colours and cursor movements.
        let text: String =
            text.chars().filter(|it| it.is_ascii_graphic() || " \n".contains(*it)).collect();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(3)..].join("; ")
    }

    /// Ends all that runs in it.
    pub(crate) fn stop(&mut self) {
        let Some(mut child) = self.child.take() else { return };
        std::fs::write(self.group.join("cgroup.kill"), "1").unwrap();
        child.wait().unwrap();
        while std::fs::read_to_string(self.group.join("cgroup.events"))
            .is_ok_and(|events| events.contains("populated 1"))
        {
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
    }

    /// Microseconds of CPU time of all that has ever run in it.
    pub(crate) fn cpu_us(&self) -> f64 {
        let text = std::fs::read_to_string(self.group.join("cpu.stat")).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix("usage_usec "));
        line.unwrap().parse().unwrap()
    }

    /// Its processes now, in those of its groups that it was started in and below.
    pub(crate) fn processes(&self) -> Vec<u32> {
        let mut found = vec![];
        let mut open = vec![self.group.clone()];
        while let Some(group) = open.pop() {
            let pids = std::fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
            found.extend(pids.lines().filter_map(|pid| pid.parse::<u32>().ok()));
            let entries = std::fs::read_dir(group).into_iter().flatten().flatten();
            open.extend(entries.map(|it| it.path()).filter(|path| path.is_dir()));
        }
        found.sort_unstable();
        // That is the room's door, not the peer.
        found.retain(|pid| name_of(*pid) != "unshare");
        found
    }

    /// Resident memory of a process, and what of it nobody else and no file has, in kB.
    pub(crate) fn memory(pid: u32) -> [f64; 2] {
        let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
        let sum = |names: &[&str]| {
            let lines = text.lines().filter_map(|line| line.split_once(':'));
            let mine = lines.filter(|(name, _)| names.contains(name));
            mine.filter_map(|(_, rest)| rest.trim().trim_end_matches(" kB").parse::<f64>().ok())
                .sum::<f64>()
        };
        [sum(&["Rss"]), sum(&["Private_Dirty"])]
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.stop();
        remove(&self.group);
        // Busy only if something has escaped; then it ends with the namespace.
        let _ = rustix::mount::unmount(&self.root, rustix::mount::UnmountFlags::DETACH);
    }
}

const SHARED_ROOT: &str = "/mnt";

/// Removes a control group and those below it.
fn remove(group: &Path) {
    for entry in std::fs::read_dir(group).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove(&entry.path());
        }
    }
    let _ = std::fs::remove_dir(group);
}

/// What the kernel calls a process.
pub(crate) fn name_of(pid: u32) -> String {
    let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    name.trim_end().to_owned()
}

/// `enter GROUP ROOT pid1|plain none|groups PROGRAM...`: the first half of the way in.
pub(crate) fn enter(words: &[OsString]) -> std::io::Error {
    std::fs::write(Path::new(&words[0]).join("cgroup.procs"), "0").unwrap();
    let mut command = Command::new("unshare");
    command.args(["--mount", "--cgroup", "--propagation", "private"]);
    if words[2] == "pid1" {
        command.args(["--pid", "--fork", "--kill-child"]);
    }
    command.arg(std::env::current_exe().unwrap()).arg("inhabit").args(&words[1..]).exec()
}

/// `inhabit ROOT pid1|plain none|groups PROGRAM...`: the second half, in the new namespaces.
pub(crate) fn inhabit(words: &[OsString]) -> std::io::Error {
    let root = Path::new(&words[0]);
    mount("proc", root.join("proc"), "proc", MountFlags::empty(), None).unwrap();
    mount("sysfs", root.join("sys"), "sysfs", MountFlags::empty(), None).unwrap();
    if words[2] == "groups" {
        let at = root.join("sys/fs/cgroup");
        mount("cgroup2", at, "cgroup2", MountFlags::empty(), None).unwrap();
    }
    rustix::process::chroot(root).unwrap();
    rustix::process::chdir("/").unwrap();
    let limit = rustix::process::Rlimit { current: Some(1 << 17), maximum: Some(1 << 19) };
    // Ten thousand sockets are more than the usual limit.
    let _ = rustix::process::setrlimit(rustix::process::Resource::Nofile, limit);
    Command::new(&words[3])
        .args(&words[4..])
        .env_clear()
        .env("PATH", "/usr/bin:/usr/sbin:/bin:/sbin")
        .env("HOME", "/root")
        // Says to systemd that hardware is none of its business.
        .env("container", "bench")
        .exec()
}
