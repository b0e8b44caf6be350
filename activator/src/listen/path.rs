//! A path as a C string on the stack, since PID 1 does not allocate.

use rustix::fs::{self, CWD, Mode};
use rustix::io::Errno;
use std::ffi::CStr;

const SIZE: usize = 4096;

/// At most 4095 bytes.
pub(super) struct PathBuffer {
    /// Ends in a NUL at `length`.
    bytes: [u8; SIZE],
    length: usize,
}

impl PathBuffer {
    /// `ENAMETOOLONG` if it is longer, `EINVAL` if it has a NUL in it.
    pub(super) fn new(path: &str) -> Result<Self, Errno> {
        let length = path.len();
        if length >= SIZE {
            return Err(Errno::NAMETOOLONG);
        }
        if path.as_bytes().contains(&0) {
            return Err(Errno::INVAL);
        }
        let mut bytes = [0; SIZE];
        bytes[..length].copy_from_slice(path.as_bytes());
        Ok(Self { bytes, length })
    }

    pub(super) fn as_c_str(&self) -> &CStr {
        CStr::from_bytes_until_nul(&self.bytes).unwrap_or(c"")
    }

    /// Makes the missing directories above it, best effort: the open that follows says what is
    /// wrong.
    pub(super) fn make_parents(&mut self, mode: u32) {
        for index in 1..self.length {
            if self.bytes[index] == b'/' {
                self.bytes[index] = 0;
                let _ = fs::mkdirat(CWD, self.as_c_str(), Mode::from_raw_mode(mode));
                self.bytes[index] = b'/';
            }
        }
    }
}
