//! Files as a whole. Less than std's, and less of it: PID 1 reads and writes a few at start-up.

use rustix::fs::{self, AtFlags, CWD, Mode, OFlags};
use rustix::io::{self, Errno};
use std::os::fd::{AsFd, BorrowedFd};

/// Bytes that one read asks for.
const CHUNK: usize = 4096;

/// All that a file has, of one in proc(5), too, which says nothing of its size.
pub(crate) fn read(path: &str) -> Result<Vec<u8>, Errno> {
    let file = fs::openat(CWD, path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    read_from(file.as_fd(), u64::MAX)
}

/// The same of an open file, from its beginning, wherever it is read by others. EFBIG if it has
/// more than `most` bytes.
pub(crate) fn read_from(fd: BorrowedFd, most: u64) -> Result<Vec<u8>, Errno> {
    let size = u64::try_from(fs::fstat(fd)?.st_size).unwrap_or(0);
    if size > most {
        return Err(Errno::FBIG);
    }
    let mut bytes = Vec::with_capacity(size as usize + CHUNK);
    let mut done = 0;
    loop {
        bytes.resize(done + CHUNK.max((size as usize).saturating_sub(done)), 0);
        let room = bytes.get_mut(done..).unwrap_or_default();
        let length = match io::pread(fd, &mut *room, done as u64) {
            // A pipe, which has no places.
            Err(Errno::SPIPE) => io::read(fd, room),
            read => read,
        };
        match length {
            Ok(0) => break,
            Ok(length) => done += length,
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    bytes.truncate(done);
    Ok(bytes)
}

/// Writes what is there already, a setting of the kernel's.
pub(crate) fn set(path: &str, text: &str) -> Result<(), Errno> {
    let flags = OFlags::WRONLY | OFlags::TRUNC | OFlags::CLOEXEC;
    write_all(path, flags, Mode::empty(), text.as_bytes())
}

/// Makes a file, all of it or nothing; what was there is removed.
pub(crate) fn make(path: &str, bytes: &[u8], mode: u32) -> Result<(), Errno> {
    remove(path);
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    write_all(path, flags, Mode::from_raw_mode(mode), bytes).inspect_err(|_| remove(path))
}

/// Removes a file; gone already is as good.
pub(crate) fn remove(path: &str) {
    let _ = fs::unlinkat(CWD, path, AtFlags::empty());
}

fn write_all(path: &str, flags: OFlags, mode: Mode, mut bytes: &[u8]) -> Result<(), Errno> {
    let file = fs::openat(CWD, path, flags, mode)?;
    while !bytes.is_empty() {
        match io::write(&file, bytes) {
            Ok(length) => bytes = bytes.get(length..).unwrap_or_default(),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

/// The directory of a path.
pub(crate) fn parent(path: &str) -> &str {
    match path.rsplit_once('/') {
        Some(("", _)) => "/",
        Some((parent, _)) => parent,
        None => ".",
    }
}

/// Makes a directory and those above it, with mode 0755. A failure shows when it is used.
pub(crate) fn make_directories(path: &str) {
    let ends = path.bytes().enumerate().filter(|(at, byte)| *byte == b'/' && *at > 0);
    for end in ends.map(|(at, _)| at).chain([path.len()]) {
        let _ = fs::mkdir(&path[..end], Mode::from_raw_mode(0o755));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_made_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let below = folder.path().join("a/b");
        let below = below.to_str().unwrap();
        make_directories(below);
        make_directories(below);
        let path = format!("{below}/file");
        assert_eq!(parent(&path), below);
        assert_eq!(read(&path), Err(Errno::NOENT));
        assert_eq!(set(&path, "x"), Err(Errno::NOENT));
        for length in [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 10 * CHUNK + 7] {
            let bytes: Vec<u8> = (0..length).map(|index| index as u8).collect();
            make(&path, &bytes, 0o600).unwrap();
            assert_eq!(read(&path).unwrap(), bytes);
        }
        set(&path, "short").unwrap();
        assert_eq!(read(&path).unwrap(), b"short");
        let file = std::fs::File::open(&path).unwrap();
        assert_eq!(read_from(file.as_fd(), 4), Err(Errno::FBIG));
        assert_eq!(read_from(file.as_fd(), 5).unwrap(), b"short");
        remove(&path);
        remove(&path);
        assert_eq!(read(&path), Err(Errno::NOENT));
        // One that has no size.
        assert!(read("/proc/self/status").unwrap().starts_with(b"Name:"));
    }

    #[test]
    fn the_directory_of_a_path() {
        for (path, directory) in [("/a/b", "/a"), ("/a", "/"), ("a", "."), ("a/b", "a")] {
            assert_eq!(parent(path), directory);
        }
    }
}
