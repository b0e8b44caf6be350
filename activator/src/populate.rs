//! What the image has in a directory that a tmpfs or a disk is mounted over: it is copied there, so
//! that services find what packages and the appliance put there. PID 1 does this once, at
//! boot, before anything else runs.

use rustix::fs::{self, AtFlags, CWD, FileType, Gid, Mode, OFlags, Stat, Uid};
use rustix::io::Errno;
use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// Directories in each other at most, so that a damaged image cannot exhaust the stack.
const DEPTH: u32 = 64;
/// Bytes moved at a time.
const BLOCK: usize = 1 << 20;

/// A directory that is about to be hidden, or None where there is none.
pub(crate) fn open(path: &str) -> Option<OwnedFd> {
    fs::openat(CWD, path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).ok()
}

/// Copies what is in `from` to what is at `path` now: directories, files and symlinks with their
/// modes and owners. What is there already, on a disk, is left as it is. The first error is told, and
/// the rest copied all the same.
pub(crate) fn fill(path: &str, from: &OwnedFd) -> Result<(), Errno> {
    let to = fs::openat(CWD, path, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty())?;
    let mut copy = Copy { first: Ok(()) };
    copy.directory(from.as_fd(), to.as_fd(), DEPTH);
    copy.first
}

struct Copy {
    first: Result<(), Errno>,
}

impl Copy {
    fn note(&mut self, result: Result<(), Errno>) {
        if self.first.is_ok() && result != Err(Errno::EXIST) {
            self.first = result;
        }
    }

    fn directory(&mut self, from: BorrowedFd<'_>, to: BorrowedFd<'_>, depth: u32) {
        let entries = match fs::Dir::read_from(from) {
            Ok(entries) => entries,
            Err(errno) => return self.note(Err(errno)),
        };
        for entry in entries.flatten() {
            let name = entry.file_name();
            if name != c"." && name != c".." {
                let copied = self.entry(from, to, name, depth);
                self.note(copied);
            }
        }
    }

    fn entry(
        &mut self,
        from: BorrowedFd<'_>,
        to: BorrowedFd<'_>,
        name: &CStr,
        depth: u32,
    ) -> Result<(), Errno> {
        let stat = fs::statat(from, name, AtFlags::SYMLINK_NOFOLLOW)?;
        let mode = Mode::from_raw_mode(stat.st_mode);
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Symlink => {
                let target: CString = fs::readlinkat(from, name, Vec::new())?;
                fs::symlinkat(&*target, to, name)?;
                return own(to, name, &stat);
            }
            FileType::Directory => {
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW;
                let inner = fs::openat(from, name, flags, Mode::empty())?;
                fs::mkdirat(to, name, Mode::RWXU)?;
                let made = fs::openat(to, name, flags, Mode::empty())?;
                if depth > 0 {
                    self.directory(inner.as_fd(), made.as_fd(), depth - 1);
                }
            }
            FileType::RegularFile => {
                let flags = OFlags::RDONLY | OFlags::NOFOLLOW;
                let inner = fs::openat(from, name, flags, Mode::empty())?;
                let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL;
                let made = fs::openat(to, name, flags, Mode::RWXU)?;
                while fs::sendfile(&made, &inner, None, BLOCK)? > 0 {}
            }
            // An image has no others below a directory that is written to.
            _ => return Ok(()),
        }
        own(to, name, &stat)?;
        // After the owner, whose change takes setuid away.
        fs::chmodat(to, name, mode, AtFlags::empty())
    }
}

fn own(to: BorrowedFd<'_>, name: &CStr, stat: &Stat) -> Result<(), Errno> {
    let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
    fs::chownat(to, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{MetadataExt, PermissionsExt};

    #[test]
    fn files_links_and_directories_are_copied_with_their_modes() {
        let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let inner = from.path().join("www/html");
        std::fs::create_dir_all(&inner).unwrap();
        std::fs::write(inner.join("index"), "hello").unwrap();
        std::fs::set_permissions(&inner, PermissionsExt::from_mode(0o1777)).unwrap();
        std::fs::set_permissions(inner.join("index"), PermissionsExt::from_mode(0o640)).unwrap();
        std::os::unix::fs::symlink("../run", from.path().join("run")).unwrap();
        let opened = open(from.path().to_str().unwrap()).unwrap();
        fill(to.path().to_str().unwrap(), &opened).unwrap();
        let copied = to.path().join("www/html");
        assert_eq!(std::fs::read_to_string(copied.join("index")).unwrap(), "hello");
        assert_eq!(copied.metadata().unwrap().mode() & 0o7777, 0o1777);
        assert_eq!(copied.join("index").metadata().unwrap().mode() & 0o7777, 0o640);
        assert_eq!(std::fs::read_link(to.path().join("run")).unwrap().to_str(), Some("../run"));
        // A second time, what is there is left, and what is not comes.
        std::fs::write(inner.join("index"), "other").unwrap();
        std::fs::write(from.path().join("new"), "").unwrap();
        fill(to.path().to_str().unwrap(), &opened).unwrap();
        assert_eq!(std::fs::read_to_string(copied.join("index")).unwrap(), "hello");
        assert!(to.path().join("new").exists());
    }
}
