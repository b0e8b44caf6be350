//! The first moments of this process, without Rust's runtime: its maps of threads and its handler
//! of stack overflows are bytes that PID 1 has no use for.
//!
//! What that runtime does and is needed is done here: the standard streams are open, SIGPIPE is
//! ignored.
#![allow(unsafe_code)]

use rustix::fs::{self, CWD, Mode, OFlags};
use std::ffi::{CStr, c_char};
use std::os::fd::{AsRawFd, IntoRawFd};
use std::sync::atomic::{AtomicPtr, Ordering};

/// argv as the kernel gave it to us, which stays where it is.
static ARGV: AtomicPtr<*const c_char> = AtomicPtr::new(std::ptr::null_mut());

/// What the C library calls; what it returns is the exit code.
#[cfg(not(test))]
// SAFETY: no other `main` is linked into this program, and this one is of C's type.
#[unsafe(no_mangle)]
extern "C" fn main(_count: i32, argv: *mut *const c_char) -> i32 {
    ARGV.store(argv, Ordering::Relaxed);
    open_streams();
    // SAFETY: ignoring a signal runs no code of ours.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_IGN) };
    crate::run_as_told().into()
}

/// Writes a word to stdout, without its buffer.
pub(crate) fn say(text: &str) {
    // SAFETY: the text is of that length.
    unsafe { libc::write(1, text.as_ptr().cast(), text.len()) };
}

/// Ends the process at once; nothing of ours is buffered.
pub(crate) fn exit(code: i32) -> ! {
    // SAFETY: it does not return, and frees nothing that anybody could still use.
    unsafe { libc::_exit(code) }
}

/// No fd of ours is to get a number that everybody writes to.
#[cfg_attr(test, allow(dead_code))]
fn open_streams() {
    loop {
        // The lowest number that is free. Where there is no /dev/null yet, the root does as well:
        // it cannot be written to.
        let open = |path: &CStr, flags| fs::openat(CWD, path, flags, Mode::empty());
        let fd = open(c"/dev/null", OFlags::RDWR).or_else(|_| open(c"/", OFlags::RDONLY));
        match fd {
            Ok(fd) if fd.as_raw_fd() > 2 => return,
            // It stays open.
            Ok(fd) => _ = fd.into_raw_fd(),
            Err(_) => return,
        }
    }
}

/// A word of the command line: 0 is the name by which we were called.
pub(crate) fn word(index: usize) -> Option<&'static CStr> {
    words().nth(index)
}

/// The words of the command line.
pub(crate) fn words() -> impl Iterator<Item = &'static CStr> {
    let argv = ARGV.load(Ordering::Relaxed).cast_const();
    let mut index = 0;
    std::iter::from_fn(move || {
        if argv.is_null() {
            return None;
        }
        // SAFETY: argv ends in NULL, behind which `index` never comes; what it points to are C
        // strings that live as long as the process.
        let word = unsafe {
            let word = *argv.add(index);
            (!word.is_null()).then(|| CStr::from_ptr(word))
        };
        index += usize::from(word.is_some());
        word
    })
}

/// The name by which we were called, if it is text.
pub(crate) fn name() -> Option<&'static str> {
    word(0)?.to_str().ok()
}
