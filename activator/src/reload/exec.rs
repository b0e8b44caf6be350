//! execve(2) of ourselves, without allocation.
#![allow(unsafe_code)]

use crate::program::decimal;
use rustix::io::Errno;
use std::ffi::{CStr, c_char, c_int};
use std::os::fd::{AsRawFd, BorrowedFd};

/// The word that tells `main` that it is not the first of its life.
pub(crate) const TAKE_OVER: &str = "--take-over";
const TAKE_OVER_C: &CStr = c"--take-over";

/// What the next process is told.
pub(crate) struct Errand<'a> {
    /// Whom to execute.
    pub(crate) program: BorrowedFd<'a>,
    /// argv\[0\].
    pub(crate) name: &'a CStr,
    /// The state, not close-on-exec.
    pub(crate) state: BorrowedFd<'a>,
    /// Whom to execute if the state is of no use; not close-on-exec.
    pub(crate) way_back: BorrowedFd<'a>,
    /// Whether that has happened already.
    pub(crate) turn: Turn,
}

/// Which way it goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Turn {
    /// To the new manifest, or the new activator.
    Forth,
    /// From a new activator that could not do it: the old manifest stays.
    Back,
}

impl Turn {
    /// The word for it on the command line.
    pub(crate) fn word(self) -> &'static CStr {
        match self {
            Self::Forth => c"forth",
            Self::Back => c"back",
        }
    }
}

/// Executes, with the environment as it is. Returns only if that fails.
pub(crate) fn execute(errand: &Errand) -> Errno {
    let mut numbers = [[0; 11]; 2];
    for (text, fd) in numbers.iter_mut().zip([errand.state, errand.way_back]) {
        let mut digits = [0; 10];
        // An fd is no negative number. The last byte stays 0.
        let digits = decimal(fd.as_raw_fd().unsigned_abs(), &mut digits);
        text[..digits.len()].copy_from_slice(digits);
    }
    let argv: [*const c_char; 6] = [
        errand.name.as_ptr(),
        TAKE_OVER_C.as_ptr(),
        numbers[0].as_ptr().cast(),
        numbers[1].as_ptr().cast(),
        errand.turn.word().as_ptr(),
        std::ptr::null(),
    ];
    let program = errand.program.as_raw_fd();
    let empty: c_int = libc::AT_EMPTY_PATH;
    // SAFETY: argv is an array of C strings that ends in NULL, `environ` is one by definition and
    // this process has one thread; the path is a C string.
    unsafe {
        libc::syscall(libc::SYS_execveat, program, c"".as_ptr(), argv.as_ptr(), environ, empty);
        Errno::from_raw_os_error(*libc::__errno_location())
    }
}

// SAFETY: environ(7); every libc has it, of that type.
unsafe extern "C" {
    static environ: *const *const c_char;
}
