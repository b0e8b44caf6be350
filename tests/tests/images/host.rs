//! Debian's skopeo, buildah and podman as programs of this machine: each in the file system of its
//! own packages, with a layer above that keeps what they store, and the folders that rouse names.

use rouse::cache::Cache;
use rouse::debian::tools::{self, Freshness};
use rouse::debian::{Architecture, Debian};
use std::ffi::OsString;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Files of theirs. `vfs` needs nothing of the file system below.
const SETTINGS: [(&str, &str); 4] = [
    ("policy.json", "{ \"default\": [{ \"type\": \"insecureAcceptAnything\" }] }\n"),
    ("registries.conf", "unqualified-search-registries = []\n"),
    (
        "storage.conf",
        "[storage]\ndriver = \"vfs\"\ngraphroot = \"/var/lib/containers/storage\"\n\
         runroot = \"/run/containers/storage\"\n",
    ),
    ("containers.conf", "[engine]\ncgroup_manager = \"cgroupfs\"\nevents_logger = \"file\"\n"),
];

/// All of them.
pub(crate) struct Programs {
    folder: tempfile::TempDir,
}

impl Programs {
    /// With nothing stored yet. None, and a line that says so, for somebody who may not mount.
    pub(crate) fn unpack() -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            rouse_tests::skipped("programs in a file system of their own need root");
            return None;
        }
        let debian = Debian::new(Cache::open_at(&rouse_tests::cache()).unwrap(), None);
        let roots = ["buildah", "podman", "skopeo"];
        let host = Architecture::host().unwrap();
        let tree = tools::tree(&debian, "image-programs", &roots, host, Freshness::Kept).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        for name in ["upper", "work", "root"] {
            std::fs::create_dir(path(name)).unwrap();
        }
        let settings = path("upper/etc/containers");
        for below in ["etc/containers", "run", "var/tmp"] {
            std::fs::create_dir_all(path("upper").join(below)).unwrap();
        }
        for (name, text) in SETTINGS {
            std::fs::write(settings.join(name), text).unwrap();
        }
        std::fs::write(path("upper/etc/passwd"), "root:x:0:0:root:/root:/bin/sh\n").unwrap();
        for name in roots {
            std::fs::create_dir(path(name)).unwrap();
            let program = path(name).join(name);
            std::fs::write(&program, wrapper(name, &tree, folder.path())).unwrap();
            std::fs::set_permissions(program, PermissionsExt::from_mode(0o755)).unwrap();
        }
        Some(Self { folder })
    }

    /// What `PATH` has to be where these are installed, and no other: tools of this machine that
    /// rouse itself calls are there.
    pub(crate) fn path(&self, names: &[&str]) -> OsString {
        let own = names.iter().map(|name| self.folder.path().join(name));
        std::env::join_paths(own.chain([self.others()])).unwrap()
    }

    /// This machine's programs without ours.
    fn others(&self) -> PathBuf {
        let folder = self.folder.path().join("others");
        if !folder.exists() {
            std::fs::create_dir(&folder).unwrap();
            let all = std::env::var_os("PATH").unwrap();
            for entry in std::env::split_paths(&all).filter_map(|it| it.read_dir().ok()).flatten() {
                let entry = entry.unwrap();
                let ours = self.folder.path().join(entry.file_name()).exists();
                if !ours {
                    // The first of a name is the one that is found.
                    let _ = symlink(entry.path(), folder.join(entry.file_name()));
                }
            }
        }
        folder
    }

    /// One of them, to add arguments to.
    pub(crate) fn command(&self, name: &str) -> Command {
        Command::new(self.folder.path().join(name).join(name))
    }
}

fn wrapper(name: &str, tree: &Path, folder: &Path) -> String {
    format!(
        "#!/bin/sh\n\
         exec unshare --mount --propagation private sh -ec '\n\
         here=$PWD\n\
         cd {folder}\n\
         mount -t overlay -o lowerdir={tree},upperdir=upper,workdir=work overlay root\n\
         for each in /dev /proc /sys {temporary} {cache}; do\n\
         mkdir -p root$each; mount --rbind $each root$each; done\n\
         mount -t tmpfs tmpfs root/run\n\
         test -d \"root$here\" || here=/\n\
         exec env -i PATH=/usr/bin:/usr/sbin HOME=/root \
         unshare --root=root --wd=\"$here\" /usr/bin/{name} \"$@\"\n\
         ' {name} \"$@\"\n",
        temporary = std::env::temp_dir().display(),
        cache = rouse_tests::cache().display(),
        folder = folder.display(),
        tree = tree.display(),
    )
}
