//! Programs: executed in this process, or as a child of a helper that may wait for it. The children
//! of PID 1 itself are made elsewhere, without allocation.
//!
//! Not by std's `Command`, which keeps environments in ordered maps and has pipes and pidfds for
//! every case: that is 15 kB of a guest for what these few calls do.
#![allow(unsafe_code)]

use rustix::io::Errno;
use rustix::process::{Pid, WaitOptions, waitpid};
use std::ffi::{CStr, CString, OsStr, c_char};
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

/// Texts as execve(2) takes them; an error if there is a NUL in one.
pub fn texts<T: AsRef<OsStr>>(texts: impl IntoIterator<Item = T>) -> Result<Vec<CString>, Errno> {
    let mut all = vec![];
    for text in texts {
        all.push(CString::new(text.as_ref().as_bytes()).map_err(|_| Errno::INVAL)?);
    }
    Ok(all)
}

/// This process' environment without the variables of those names.
pub fn environment(without: &[&str]) -> Vec<CString> {
    let mut all = vec![];
    for (name, value) in std::env::vars_os() {
        if without.iter().any(|other| name == **other) {
            continue;
        }
        let mut text = name.into_vec();
        text.push(b'=');
        text.extend(value.into_vec());
        // It came from there without a NUL.
        all.extend(CString::new(text));
    }
    all
}

/// execve(2); returns only why not.
pub fn execute(program: &CStr, arguments: &[CString], environment: &[CString]) -> Errno {
    let (arguments, environment) = (pointers(arguments), pointers(environment));
    // SAFETY: both arrays end in NULL and point to C strings that outlive the call.
    unsafe { libc::execve(program.as_ptr(), arguments.as_ptr(), environment.as_ptr()) };
    last_error()
}

/// The same with a program that is looked for in PATH, if there is no slash in its name.
pub fn execute_by_name(name: &CStr, arguments: &[CString], environment: &[CString]) -> Errno {
    let (arguments, environment) = (pointers(arguments), pointers(environment));
    // SAFETY: as in `execute`.
    unsafe { libc::execvpe(name.as_ptr(), arguments.as_ptr(), environment.as_ptr()) };
    last_error()
}

/// posix_spawn(3): a child with these standard streams, ours where there is None. It begins without
/// blocked signals, and SIGPIPE ends it. The caller waits for it.
pub fn spawn(
    program: &CStr,
    arguments: &[CString],
    environment: &[CString],
    streams: [Option<BorrowedFd>; 3],
) -> Result<Pid, Errno> {
    let (arguments, environment) = (pointers(arguments), pointers(environment));
    let mut pid = 0;
    let mut code = 0;
    let mut note = |result: i32| code = if code == 0 { result } else { code };
    let mut actions = MaybeUninit::uninit();
    let mut attributes = MaybeUninit::uninit();
    let (mut none, mut pipe) = (MaybeUninit::uninit(), MaybeUninit::uninit());
    // SAFETY: each object is made by its init call before it is used, and destroyed after its last
    // use; the arrays end in NULL and point to C strings; all of it outlives the calls.
    unsafe {
        libc::posix_spawn_file_actions_init(actions.as_mut_ptr());
        libc::posix_spawnattr_init(attributes.as_mut_ptr());
        for (number, stream) in (0..).zip(streams) {
            if let Some(fd) = stream {
                let (actions, fd) = (actions.as_mut_ptr(), fd.as_raw_fd());
                note(libc::posix_spawn_file_actions_adddup2(actions, fd, number));
            }
        }
        libc::sigemptyset(none.as_mut_ptr());
        libc::sigemptyset(pipe.as_mut_ptr());
        libc::sigaddset(pipe.as_mut_ptr(), libc::SIGPIPE);
        note(libc::posix_spawnattr_setsigmask(attributes.as_mut_ptr(), none.as_ptr()));
        note(libc::posix_spawnattr_setsigdefault(attributes.as_mut_ptr(), pipe.as_ptr()));
        let flags = libc::POSIX_SPAWN_SETSIGMASK | libc::POSIX_SPAWN_SETSIGDEF;
        note(libc::posix_spawnattr_setflags(attributes.as_mut_ptr(), flags as _));
        note(libc::posix_spawn(
            &mut pid,
            program.as_ptr(),
            actions.as_ptr(),
            attributes.as_ptr(),
            arguments.as_ptr().cast(),
            environment.as_ptr().cast(),
        ));
        libc::posix_spawn_file_actions_destroy(actions.as_mut_ptr());
        libc::posix_spawnattr_destroy(attributes.as_mut_ptr());
    }
    match code {
        0 => Pid::from_raw(pid).ok_or(Errno::SRCH),
        code => Err(Errno::from_raw_os_error(code)),
    }
}

/// Waits until a child has ended, however it did.
pub fn wait(child: Pid) {
    while let Err(Errno::INTR) = waitpid(Some(child), WaitOptions::empty()) {}
}

fn last_error() -> Errno {
    // SAFETY: errno is this thread's own.
    Errno::from_raw_os_error(unsafe { *libc::__errno_location() })
}

fn pointers(texts: &[CString]) -> Vec<*const c_char> {
    let mut pointers = Vec::with_capacity(texts.len() + 1);
    pointers.extend(texts.iter().map(|text| text.as_ptr()));
    pointers.push(std::ptr::null());
    pointers
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::os::fd::AsFd;

    #[test]
    fn a_child_has_its_streams_arguments_and_environment() {
        let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
        let script = "read line; echo $line $1 $A; exit 3";
        let arguments = texts(["sh", "-c", script, "sh", "one"]).unwrap();
        let (input, feed) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
        rustix::io::write(&feed, b"in\n").unwrap();
        let environment = texts(["A=b"]).unwrap();
        let streams = [Some(input.as_fd()), Some(write.as_fd()), None];
        let child = spawn(c"/bin/sh", &arguments, &environment, streams).unwrap();
        drop(write);
        let mut said = String::new();
        std::fs::File::from(read).read_to_string(&mut said).unwrap();
        assert_eq!(said, "in one b\n");
        let (_, status) = waitpid(Some(child), WaitOptions::empty()).unwrap().unwrap();
        assert_eq!(status.exit_status(), Some(3));
    }

    #[test]
    fn what_is_no_program_is_an_error() {
        let arguments = texts(["x"]).unwrap();
        let failed = spawn(c"/nonexistent", &arguments, &[], [None; 3]);
        assert_eq!(failed, Err(Errno::NOENT));
        assert_eq!(execute(c"/nonexistent", &arguments, &[]), Errno::NOENT);
        assert_eq!(texts(["a\0b"]), Err(Errno::INVAL));
    }
}
