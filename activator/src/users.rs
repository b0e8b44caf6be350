//! The runtime directories of lingering users, made before anything of theirs starts.
//!
//! systemd mounts a tmpfs there; /run is one already.

use crate::files::{make_directories, parent};
use activator::manifest::{Lingering, Manifest};
use rustix::fs::{self, AtFlags, CWD, Gid, Mode, OFlags, Uid};
use rustix::io::Errno;

/// Makes all of them, mode 0700 and owned by their users. A failure is handed to `trouble`: it
/// shows in what the user's units then cannot do.
pub(crate) fn make_directories_of(manifest: &Manifest, trouble: &mut dyn FnMut(&str)) {
    for user in &manifest.users {
        if let Err(errno) = make(user) {
            let path = &user.runtime_directory;
            trouble(&format!("failed to make {path} for {}: {errno}", user.name));
        }
    }
}

fn make(user: &Lingering) -> Result<(), Errno> {
    let path = user.runtime_directory.as_str();
    make_directories(parent(path));
    match fs::mkdir(path, Mode::from_raw_mode(0o700)) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(errno) => return Err(errno),
    }
    // Not a link that somebody put there before `activator run`.
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let directory = fs::openat(CWD, path, flags, Mode::empty())?;
    let stat = fs::fstat(&directory)?;
    let (uid, gid) = (user.ids.uid, user.ids.gid);
    if (stat.st_uid, stat.st_gid) != (uid, gid) {
        let (uid, gid) = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
        fs::chownat(&directory, "", uid, gid, AtFlags::EMPTY_PATH)?;
    }
    fs::fchmod(&directory, Mode::from_raw_mode(0o700))
}

#[cfg(test)]
mod tests {
    use super::*;
    use activator::manifest::User;
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn a_runtime_directory_is_its_users_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("user/1000");
        let own = rustix::process::geteuid().as_raw();
        let (uid, gid) =
            if own == 0 { (1000, 1001) } else { (own, rustix::process::getegid().as_raw()) };
        let user = Lingering {
            name: "ann".into(),
            ids: User { uid, gid, groups: vec![] },
            runtime_directory: path.to_str().unwrap().into(),
            ..Lingering::default()
        };
        let manifest = Manifest { users: vec![user], ..Manifest::default() };
        // The second time it is there already.
        for _ in 0..2 {
            make_directories_of(&manifest, &mut |line| panic!("{line}"));
            let found = std::fs::metadata(&path).unwrap();
            assert_eq!((found.uid(), found.gid(), found.mode() & 0o7777), (uid, gid, 0o700));
        }
        std::fs::remove_dir(&path).unwrap();
        std::os::unix::fs::symlink("/", &path).unwrap();
        let mut lines = vec![];
        make_directories_of(&manifest, &mut |line| lines.push(line.to_owned()));
        assert_eq!(lines.len(), 1, "{lines:?}");
    }
}
