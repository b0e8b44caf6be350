//! Where other builders of images work: a root of their own with their packages, a repository on
//! disk instead of a mirror, and a tmpfs under all that they write.

use crate::measures::image::Job;
use rouse::cache::{Cache, Hash};
use rouse::debian::{Architecture, Debian, Package, deb};
use rustix::mount::{
    MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_bind, mount_bind_recursive,
    mount_change, unmount,
};
use std::ffi::OsString;
use std::fmt::Write;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// In the workshop: what they take, and where they put what they made.
// Not /repository, which mkosi means something of its own by.
pub(crate) const REPOSITORY: &str = "/debian";
pub(crate) const EXTRA: &str = "/extra";
pub(crate) const OUTPUT: &str = "/output";

const SUITE: &str = "trixie";

/// What Debian installs everywhere: `Essential: yes`, and what its tools add to that.
pub(crate) const EVERYWHERE: [&str; 27] = [
    "apt",
    "base-files",
    "base-passwd",
    "bash",
    "bsdutils",
    "coreutils",
    "dash",
    "debian-archive-keyring",
    "debianutils",
    "diffutils",
    "dpkg",
    "findutils",
    "grep",
    "gzip",
    "hostname",
    "init-system-helpers",
    "libc-bin",
    "login.defs",
    "mawk",
    "ncurses-base",
    "ncurses-bin",
    "perl-base",
    "sed",
    "sysvinit-utils",
    "tar",
    "util-linux",
    "usr-is-merged",
];

/// A repository with the closure of the jobs' packages, of Debian's layout.
pub(crate) fn repository(folder: &Path, jobs: &[Job]) -> Result<PathBuf, String> {
    let cache = Cache::open_at(&rouse_tests::cache()).map_err(|error| error.to_string())?;
    let architecture = Architecture::host().ok_or("Debian has no packages for this machine")?;
    let debian = Debian::new(cache, None);
    let mut roots = EVERYWHERE.to_vec();
    roots.extend(jobs.iter().flat_map(|job| job.packages));
    roots.sort_unstable();
    roots.dedup();
    let packages =
        debian.resolve(SUITE, architecture, &roots).map_err(|error| error.to_string())?;
    let files = debian.fetch(&packages).map_err(|error| error.to_string())?;
    let repository = folder.join("repository");
    let place = format!("main/binary-{architecture}/Packages");
    let suite = repository.join("dists").join(SUITE);
    std::fs::create_dir_all(suite.join(&place).parent().unwrap()).unwrap();
    std::fs::create_dir_all(repository.join("pool")).unwrap();
    let mut index = String::new();
    for (package, file) in packages.iter().zip(files) {
        let Package { name, version, architecture, size, sha256, .. } = package;
        let path = format!("pool/{name}_{}_{architecture}.deb", version.replace(':', "%3a"));
        let to = repository.join(&path);
        std::fs::hard_link(&file, &to)
            .or_else(|_| std::fs::copy(&file, &to).map(drop))
            .map_err(|error| error.to_string())?;
        let control = deb::control(&file).map_err(|error| error.to_string())?;
        let _ = write!(
            index,
            "{}\nFilename: {path}\nSize: {size}\nSHA256: {sha256}\n\n",
            control.trim_end()
        );
    }
    std::fs::write(suite.join(&place), &index).unwrap();
    let release = format!(
        "Origin: bench\nSuite: {SUITE}\nCodename: {SUITE}\nDate: Thu, 01 Jan 2026 00:00:00 UTC\n\
         Architectures: {architecture}\nComponents: main\nSHA256:\n {} {} {place}\n",
        Hash::of(index.as_bytes()),
        index.len()
    );
    std::fs::write(suite.join("Release"), release).unwrap();
    Ok(repository)
}

/// Runs a builder with its packages; `extra` is what it puts into the image besides. What it writes
/// to [`OUTPUT`] is in `output` afterwards. Its error ends in its last lines.
pub(crate) fn run(
    tree: &Path,
    [repository, extra, output]: [&Path; 3],
    words: &[&str],
) -> Result<(), String> {
    let mut command = Command::new("unshare");
    command.args(["--mount", "--pid", "--fork", "--net", "--ipc", "--mount-proc"]);
    command.args(["--kill-child", "--propagation", "private"]);
    command.arg(std::env::current_exe().unwrap()).arg("workshop");
    command.args([tree, repository, extra, output]).args(words);
    let done = command.stdin(Stdio::null()).output().map_err(|error| error.to_string())?;
    if done.status.success() {
        return Ok(());
    }
    let said = [done.stdout, done.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    let lines: Vec<&str> = said.lines().filter(|line| !line.trim().is_empty()).collect();
    Err(lines[lines.len().saturating_sub(4)..].join("; "))
}

/// `workshop TREE REPOSITORY EXTRA OUTPUT PROGRAM...`, in fresh namespaces.
pub(crate) fn enter(words: &[OsString]) -> std::io::Error {
    let root = Path::new("/mnt");
    let tree = Path::new(&words[0]);
    mount("tmpfs", root, "tmpfs", MountFlags::empty(), Some(c"mode=755,size=90%")).unwrap();
    mount_change(root, MountPropagationFlags::PRIVATE).unwrap();
    let at = |path: &str| root.join(path.trim_start_matches('/'));
    for folder in
        ["usr", "proc", "sys", "dev", "run", "tmp", "root", "var/tmp", "var/lib", "var/cache"]
            .into_iter()
            .chain([REPOSITORY, EXTRA, OUTPUT])
    {
        std::fs::create_dir_all(at(folder)).unwrap();
    }
    for name in ["bin", "sbin", "lib", "lib64"] {
        std::os::unix::fs::symlink(format!("usr/{name}"), at(name)).unwrap();
    }
    let etc = tree.join("etc");
    assert!(Command::new("cp").arg("-a").arg(etc).arg(at("etc")).status().unwrap().success());
    for (file, text) in [
        ("etc/passwd", "root:x:0:0:root:/root:/bin/sh\n_apt:x:42:65534::/nonexistent:/bin/false\n"),
        ("etc/group", "root:x:0:\nnogroup:x:65534:\n"),
        ("etc/nsswitch.conf", "passwd: files\ngroup: files\nhosts: files\n"),
        ("etc/hosts", "127.0.0.1 localhost\n"),
    ] {
        std::fs::write(at(file), text).unwrap();
    }
    mount_bind(tree.join("usr"), at("usr")).unwrap();
    for (from, to) in [(&words[1], REPOSITORY), (&words[2], EXTRA), (&words[3], OUTPUT)] {
        mount_bind(Path::new(from), at(to)).unwrap();
    }
    mount_bind_recursive("/dev", at("dev")).unwrap();
    mount("proc", at("proc"), "proc", MountFlags::empty(), None).unwrap();
    mount_bind_recursive("/sys", at("sys")).unwrap();
    // Builders make namespaces, which a chroot is no place for.
    rustix::process::chdir(root).unwrap();
    rustix::process::pivot_root(".", ".").unwrap();
    unmount(".", UnmountFlags::DETACH).unwrap();
    rustix::process::chdir("/").unwrap();
    Command::new(&words[4])
        .args(&words[5..])
        .env_clear()
        .env("PATH", "/usr/bin:/usr/sbin:/bin:/sbin")
        .env("HOME", "/root")
        .env("LC_ALL", "C")
        .exec()
}
