//! Debian's Podman in a root of its own on a tmpfs, in a mount and pid namespace: what it makes of
//! a Quadlet, up to the OCI runtime, which is not called. Needs root, and nothing of the host.

use crate::command;
use rouse::cache::Cache;
use rouse::debian::tools::{Freshness, tree};
use rouse::debian::{Architecture, Debian};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What has to be there beside Podman itself: its files, and what the script below calls.
const PACKAGES: [&str; 9] = [
    "podman",
    "catatonit",
    "golang-github-containers-common",
    "golang-github-containers-image",
    "dash",
    "sed",
    "coreutils",
    "tar",
    "tzdata",
];

/// Makes the root, enters it, and runs what was put into `/job/run`. `$1` is the tree, `$2` an
/// empty folder, `$3` the folder of the job.
const ENTER: &str = r#"
set -e
mount -t tmpfs -o mode=755 tmpfs "$2"
cp -a "$1/." "$2"
cd "$2"
for name in bin sbin lib lib64; do [ -e $name ] || ln -s usr/$name $name; done
mkdir -p proc sys dev run tmp var/tmp var/lib root etc job sys/fs/cgroup
chmod 1777 tmp var/tmp
mount -t proc proc proc
mount --rbind /sys sys
# Podman wants cgroup2 alone, with all controllers, whatever this machine has.
mount -t cgroup2 none sys/fs/cgroup
own=sys/fs/cgroup/rouse-${3##*/}
mkdir -p $own
echo $$ > $own/cgroup.procs
echo "cpuset cpu io memory hugetlb pids rdma misc" > run/controllers
mount --bind run/controllers sys/fs/cgroup/cgroup.controllers
mount --rbind /dev dev
mount --bind "$3" job
[ -e etc/passwd ] || echo root:x:0:0:root:/root:/bin/sh > etc/passwd
[ -e etc/group ] || echo root:x:0: > etc/group
[ -e etc/hosts ] || echo 127.0.0.1 localhost > etc/hosts
printf 'nameserver 192.0.2.53\n' > etc/resolv.conf
printf '[engine]\ncgroup_manager = "cgroupfs"\nevents_logger = "none"\n[containers]\nlog_driver = "k8s-file"\n' > etc/containers/containers.conf
printf '[storage]\ndriver = "vfs"\nrunroot = "/run/containers/storage"\ngraphroot = "/var/lib/containers/storage"\n' > etc/containers/storage.conf
mkdir -p srv/glob
echo '127.0.0.1 srv' > srv/hosts
printf 'FROM_FILE=1\n# a comment\nA=file\nBARE\n' > srv/app.env
echo '{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["chroot"],"action":"SCMP_ACT_ERRNO"}]}' > srv/seccomp.json
printf 'ann:100000:65536\ncontainers:2147483647:2147483648\n' | tee etc/subuid > etc/subgid
touch srv/some srv/glob/a srv/glob/b
chroot . /usr/bin/env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root /bin/sh /job/run
echo $$ > sys/fs/cgroup/cgroup.procs
find $own -depth -type d -exec rmdir {} \; 2> /dev/null || true
"#;

/// A seccomp profile of one's own, at /srv/seccomp.json there.
pub const SECCOMP: &str = r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["chroot"],"action":"SCMP_ACT_ERRNO"}]}"#;

/// Stands in for the runtime: keeps config.json under the container's name, and fails.
const RUNTIME: &str = r#"#!/bin/sh
while [ $# -gt 0 ]; do
    case "$1" in
    create) create=yes ;;
    --bundle) bundle="$2" ;;
    -b) bundle="$2" ;;
    esac
    shift
done
[ -z "$create" ] || cp "$bundle/config.json" "/job/out/$(cat /job/name).json"
exit 1
"#;

/// Why it cannot be asked here.
pub fn missing() -> Option<String> {
    if !rustix::process::geteuid().is_root() {
        return Some("it takes root to mount a file system for Podman".into());
    }
    None
}

/// Where the packages are unpacked.
fn unpacked() -> PathBuf {
    let debian = Debian::new(Cache::open_at(&command::cache()).unwrap(), None);
    let host = Architecture::host().unwrap();
    tree(&debian, "podman-oracle", &PACKAGES, host, Freshness::Kept).unwrap()
}

/// The config.json that Podman makes of each `.container` file in `units`, by the file's stem.
/// `image` is a tar of the files of the one image, `changes` what a Containerfile would say of it.
pub fn configurations(
    units: &BTreeMap<String, String>,
    image: &Path,
    reference: &str,
    changes: &[&str],
) -> BTreeMap<String, serde_json::Value> {
    let job = tempfile::tempdir().unwrap();
    for folder in ["units", "out"] {
        std::fs::create_dir(job.path().join(folder)).unwrap();
    }
    for (stem, text) in units {
        std::fs::write(job.path().join(format!("units/{stem}.container")), text).unwrap();
    }
    let runtime = job.path().join("crun");
    std::fs::write(&runtime, RUNTIME).unwrap();
    Command::new("chmod").arg("755").arg(&runtime).status().unwrap();
    std::fs::copy(image, job.path().join("image.tar")).unwrap();
    let changes: String = changes.iter().map(|change| format!(" -c '{change}'")).collect();
    // The generator's command lines are systemd's; its quotes are double, and a blank is \x20.
    let script = format!(
        r#"
mkdir -p /etc/containers/systemd /run/lock
cp /job/units/* /etc/containers/systemd/
/usr/libexec/podman/quadlet -no-kmsg-log -v /job/services > /job/generator 2>&1 || cat /job/generator >&2
podman import -q{changes} /job/image.tar {reference} > /job/import 2>&1 || cat /job/import >&2
sh /job/create
"#
    );
    std::fs::write(job.path().join("run"), script).unwrap();
    // The command lines are known when the generator has run: one step more.
    let create = r#"
for service in /job/services/*.service; do
    stem=${service##*/}; stem=${stem%.service}
    echo "$stem" > /job/name
    line=$(sed -n 's/^ExecStart=//p' "$service" | head -n 1)
    line=$(printf '%s' "$line" | sed -e 's/\\x20/ /g' -e "s/%t/\/run/g" -e "s/%N/$stem/g" -e 's/%%/%/g')
    line=$(printf '%s' "$line" | sed -e 's, run --name, --runtime /job/crun create --name,' -e 's/ -d / /' -e 's/ --rm / /' -e 's/ --sdnotify=conmon / /')
    eval "$line" > /job/log 2>&1 || { echo "$stem: $line"; cat /job/log; } >&2
    podman --runtime /job/crun init "systemd-$stem" > /job/log 2>&1
    [ -e "/job/out/$stem.json" ] || { echo "$stem: no config.json"; cat /job/log; } >&2
    podman rm -f -v "systemd-$stem" > /dev/null 2>&1
done
"#;
    std::fs::write(job.path().join("create"), create).unwrap();
    let root = tempfile::tempdir().unwrap();
    let output = Command::new("unshare")
        .args(["--mount", "--pid", "--fork", "--kill-child", "sh", "-c", ENTER, "enter"])
        .args([&unpacked(), root.path(), job.path()])
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    if std::env::var_os("ROUSE_VERBOSE").is_some() || !output.status.success() {
        eprintln!("{stderr}");
    }
    let mut found = BTreeMap::new();
    for stem in units.keys() {
        let path = job.path().join(format!("out/{stem}.json"));
        let text = std::fs::read(&path)
            .unwrap_or_else(|error| panic!("Podman made nothing of {stem}: {error}\n{stderr}"));
        found.insert(stem.clone(), serde_json::from_slice(&text).unwrap());
    }
    found
}
