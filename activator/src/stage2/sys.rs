//! The system calls of stage 2 that rustix does not offer, or not in this form.
#![allow(unsafe_code)]

use super::error::Error;
use rustix::io::Errno;
use std::ffi::{CStr, CString, c_char, c_int};

/// A text as C wants it.
pub(super) fn c_string(text: &str) -> Result<CString, Error> {
    CString::new(text).map_err(|_| Error::Nul(text.to_owned()))
}

/// The same for each of several.
pub(super) fn c_strings(texts: &[String]) -> Result<Vec<CString>, Error> {
    texts.iter().map(|text| c_string(text)).collect()
}

/// execve(2); returns only why not.
pub(super) fn execute(program: &CStr, arguments: &[CString], environment: &[CString]) -> Errno {
    let pointers = |texts: &[CString]| -> Vec<*const c_char> {
        texts.iter().map(|text| text.as_ptr()).chain([std::ptr::null()]).collect()
    };
    let (arguments, environment) = (pointers(arguments), pointers(environment));
    // SAFETY: both arrays end in NULL and point to C strings that outlive the call.
    unsafe { libc::execve(program.as_ptr(), arguments.as_ptr(), environment.as_ptr()) };
    last_error()
}

/// prlimit(2) of this process; u64::MAX is infinity.
pub(super) fn set_limit(resource: u32, soft: u64, hard: u64) -> Result<(), Errno> {
    let limit = [soft, hard];
    let nothing = std::ptr::null_mut::<u64>();
    // SAFETY: the kernel's rlimit64 is two u64; an unknown resource is an error.
    let done = unsafe { libc::syscall(libc::SYS_prlimit64, 0, resource, limit.as_ptr(), nothing) };
    check(done as c_int)
}

/// Whether SIGPIPE is ignored, or ends the process.
pub(super) fn ignore_broken_pipes(ignore: bool) {
    let disposition = if ignore { libc::SIG_IGN } else { libc::SIG_DFL };
    // SAFETY: neither disposition is code of ours.
    unsafe { libc::signal(libc::SIGPIPE, disposition) };
}

fn check(result: c_int) -> Result<(), Errno> {
    if result < 0 { Err(last_error()) } else { Ok(()) }
}

fn last_error() -> Errno {
    // SAFETY: errno is this thread's own.
    Errno::from_raw_os_error(unsafe { *libc::__errno_location() })
}
