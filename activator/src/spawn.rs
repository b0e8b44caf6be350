//! One clone for each child.
//!
//! The child shares our memory and we sleep until it has executed its program or ended
//! (CLONE_VM|CLONE_VFORK), so no page table is copied, and its errors are read from memory. It
//! runs on a stack of its own. It does nothing that can block, allocates nothing, and touches
//! nothing of ours but [`Report`] and the hole for LISTEN_PID.
//!
//! With a cgroup the child is born in it (CLONE_INTO_CGROUP, Linux 5.7): there is no moment in
//! which it, or a child of it, could escape. (Where that does not work, [`Entry::Moved`], it goes
//! there before all else.) There is no pidfd: one thread clones and reaps, so
//! a pid is ours from the clone until that thread reaps it, and PID 1 has to reap every orphan
//! by waitpid(-1) anyhow.
//!
//! The order in the child: signals, session, cgroup's memory score, nice, fds, rlimits, umask,
//! directory, LISTEN_PID, no_new_privs, exec. A step that fails ends the child with systemd's exit
//! code for it (systemd.exec(5), "Process Exit Codes"). What goes by way of stage 2 gets rlimits,
//! umask, directory and no_new_privs there, behind all that needs root.
//!
//! The child never takes another user's identity here: from then on other processes of that user
//! could send it SIGSTOP, and PID 1 sleeps until it has executed. That is stage 2's, too.
#![allow(unsafe_code)]

use crate::cgroup::Entry;
use crate::program::{Ready, decimal};
use activator::manifest::{Execution, Output};
use rustix::io::Errno;
use std::ffi::{CStr, c_char, c_int, c_long};
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};

/// Size of the child's stack in bytes; its deepest call needs less than a tenth.
const STACK: usize = 64 * 1024;

/// systemd's exit codes of the stages of an exec.
mod code {
    pub(super) const CHDIR: i32 = 200;
    pub(super) const CGROUP: i32 = 219;
    pub(super) const NICE: i32 = 201;
    pub(super) const FDS: i32 = 202;
    pub(super) const EXEC: i32 = 203;
    pub(super) const LIMITS: i32 = 205;
    pub(super) const OOM_ADJUST: i32 = 206;
    pub(super) const STDIN: i32 = 208;
    pub(super) const STDOUT: i32 = 209;
    pub(super) const STDERR: i32 = 222;
    pub(super) const NO_NEW_PRIVILEGES: i32 = 227;
}

/// Where one of the three standard streams comes from.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Stream<'a> {
    /// An fd of ours.
    Fd(RawFd),
    /// A file to open in the child.
    Open(&'a CStr, c_int),
    /// The same as a stream before it, by its fd.
    Same(usize),
}

/// What a child becomes.
pub(crate) struct Plan<'a> {
    pub(crate) ready: Ready<'a>,
    pub(crate) streams: [Stream<'a>; 3],
    /// Whether the listeners are handed over with O_NONBLOCK; None leaves them as they are.
    pub(crate) non_blocking: Option<bool>,
    /// How many of the fds from 3 on are listeners; those behind them are left as they are.
    pub(crate) listeners: usize,
    pub(crate) cgroup: Entry<'a>,
    pub(crate) directory: &'a CStr,
    pub(crate) oom_score: Option<&'a CStr>,
    /// User, limits and the like; None is for our own children.
    pub(crate) execution: Option<&'a Execution>,
}

/// How a child came to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Child {
    pub(crate) pid: u32,
    /// Errno of what kept it from executing its program.
    pub(crate) failed: Option<i32>,
}

/// The memory that a spawn needs, made at start-up.
pub(crate) struct Spawner {
    stack: Box<[u8]>,
    /// Sources of the child's fds 0.. in their order; scratch with room for all.
    fds: Vec<RawFd>,
    /// RLIMIT_NOFILE that a child gets unless its unit says otherwise.
    files: Option<[u64; 2]>,
    /// Signals that we ignore, as bits from 1 on. That does not change while we run, and execve(2)
    /// gives all others their default by itself.
    ignored: u64,
}

/// The file flags of `StandardOutput=file:` and its kin.
pub(crate) fn output_flags(output: &Output) -> c_int {
    let base = libc::O_WRONLY | libc::O_CREAT | libc::O_NOCTTY | libc::O_CLOEXEC;
    match output {
        Output::File { append: true, .. } => base | libc::O_APPEND,
        Output::File { truncate: true, .. } => base | libc::O_TRUNC,
        _ => base,
    }
}

impl Spawner {
    /// `most` is the largest number of fds beyond the standard streams.
    pub(crate) fn new(most: usize, files: Option<(u64, u64)>) -> Self {
        let files = files.map(|(soft, hard)| [soft, hard]);
        let ignored = ignored_signals();
        Self { stack: vec![0; STACK].into(), fds: Vec::with_capacity(most + 3), files, ignored }
    }

    /// Makes a child with these fds from 3 on. The error is that of clone(2).
    pub(crate) fn spawn<'f>(
        &mut self,
        plan: &Plan,
        fds: impl Iterator<Item = BorrowedFd<'f>>,
    ) -> Result<Child, Errno> {
        self.fds.clear();
        self.fds.extend([-1; 3]);
        // More than there is room for cannot come: the table has one for each listener.
        let room = self.fds.capacity() - self.fds.len();
        self.fds.extend(fds.take(room).map(|fd| fd.as_raw_fd()));
        let mut report = Report { errno: 0 };
        // A program of ours may have as many as we: logd has a pipe of each service.
        let files = self.files.as_ref().filter(|_| plan.execution.is_some());
        let (fds, ignored) = (&mut self.fds[..], self.ignored);
        let mut errand = Errand { plan, fds, files, ignored, report: &mut report };
        let flags = libc::CLONE_VM | libc::CLONE_VFORK;
        let born = match plan.cgroup {
            Entry::Born(cgroup) => Some(cgroup),
            Entry::Nowhere | Entry::Moved(_) => None,
        };
        let pid = clone(flags, born, &mut self.stack, &mut errand)?;
        let failed = (report.errno != 0).then_some(report.errno);
        Ok(Child { pid, failed })
    }
}

/// Written by the child, read when it has executed or ended.
struct Report {
    errno: i32,
}

/// All that the child reads and writes.
struct Errand<'a> {
    plan: &'a Plan<'a>,
    fds: &'a mut [RawFd],
    files: Option<&'a [u64; 2]>,
    ignored: u64,
    report: &'a mut Report,
}

/// struct clone_args of linux/sched.h, as of Linux 5.7.
#[repr(C)]
#[derive(Default)]
struct CloneArguments {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;
/// The libcs differ in its type, the kernel does not.
const RLIMIT_NOFILE: u32 = 7;
/// Size of the kernel's sigset_t in bytes.
const SIGNAL_SET: usize = 8;

fn clone(
    flags: c_int,
    cgroup: Option<BorrowedFd>,
    stack: &mut [u8],
    errand: &mut Errand,
) -> Result<u32, Errno> {
    let argument = (&raw mut *errand).cast::<libc::c_void>();
    let base = stack.as_mut_ptr() as usize;
    let size = stack.len() - (base + stack.len()) % 16;
    let mut arguments = CloneArguments {
        flags: flags as u64,
        exit_signal: libc::SIGCHLD as u64,
        stack: base as u64,
        stack_size: size as u64,
        ..CloneArguments::default()
    };
    if let Some(cgroup) = cgroup {
        arguments.flags |= CLONE_INTO_CGROUP;
        arguments.cgroup = cgroup.as_raw_fd() as u64;
    }
    let clone3 = [(&raw const arguments) as usize, size_of::<CloneArguments>(), 0, 0, 0];
    // SAFETY: CLONE_VM without CLONE_VFORK is never asked for, so until the child has executed
    // or ended this thread sleeps, and the stack, the errand and all it points to stay as they
    // are. The child runs `child` on the given stack, which never returns.
    let pid = match unsafe { raw_clone(libc::SYS_clone3, clone3, argument) } {
        // Old container engines filter clone3 as unknown. clone can do all but the cgroup.
        pid if pid == -c_long::from(libc::ENOSYS) && cgroup.is_none() => {
            let clone = [(flags | libc::SIGCHLD) as usize, base + size, 0, 0, 0];
            // SAFETY: as above; on both architectures the arguments beyond the stack are unused.
            unsafe { raw_clone(libc::SYS_clone, clone, argument) }
        }
        pid => pid,
    };
    u32::try_from(pid).map_err(|_| Errno::from_raw_os_error(-pid as i32))
}

/// The system call; the child calls `child(argument)`, the parent gets pid or negative errno.
///
/// # Safety
/// The system call must be clone or clone3 with a stack of its own for the child, aligned to 16
/// bytes, and with CLONE_VFORK if with CLONE_VM.
#[cfg(target_arch = "x86_64")]
unsafe fn raw_clone(number: c_long, a: [usize; 5], argument: *mut libc::c_void) -> c_long {
    let result;
    // SAFETY: by the contract above. The child has its own stack, on which it calls a function
    // that does not return. rcx and r11 are what a system call changes on x86_64.
    unsafe {
        std::arch::asm!(
            "syscall",
            "test rax, rax",
            "jnz 2f",
            "xor ebp, ebp",
            "mov rdi, r13",
            "call r12",
            "ud2",
            "2:",
            inlateout("rax") number => result,
            in("rdi") a[0],
            in("rsi") a[1],
            in("rdx") a[2],
            in("r10") a[3],
            in("r8") a[4],
            in("r12") child as extern "C" fn(*mut libc::c_void) -> !,
            in("r13") argument,
            lateout("rcx") _,
            lateout("r11") _,
        );
    }
    result
}

/// The same.
///
/// # Safety
/// The same.
#[cfg(target_arch = "aarch64")]
unsafe fn raw_clone(number: c_long, a: [usize; 5], argument: *mut libc::c_void) -> c_long {
    let result;
    // SAFETY: by the contract above. A system call on aarch64 changes x0 only; x29 and x30 of the
    // child end the chain of frames.
    unsafe {
        std::arch::asm!(
            "svc #0",
            "cbnz x0, 2f",
            "mov x29, xzr",
            "mov x30, xzr",
            "mov x0, x10",
            "blr x9",
            "brk #1",
            "2:",
            in("x8") number,
            inlateout("x0") a[0] => result,
            in("x1") a[1],
            in("x2") a[2],
            in("x3") a[3],
            in("x4") a[4],
            in("x9") child as extern "C" fn(*mut libc::c_void) -> !,
            in("x10") argument,
        );
    }
    result
}

/// The child's whole life here.
extern "C" fn child(argument: *mut libc::c_void) -> ! {
    // SAFETY: `clone` passes its errand, which lives until we have executed or ended, and which
    // nobody else touches meanwhile.
    let errand = unsafe { &mut *argument.cast::<Errand>() };
    let (code, errno) = match errand.prepare() {
        Ok(()) => (code::EXEC, execute(&errand.plan.ready)),
        Err(failed) => failed,
    };
    errand.report.errno = errno;
    // SAFETY: _exit runs nothing of ours.
    unsafe { libc::_exit(code) }
}

type Step = Result<(), (i32, i32)>;

impl Errand<'_> {
    fn prepare(&mut self) -> Step {
        reset_signals(self.ignored);
        // SAFETY: setsid takes nothing. It cannot fail in a new process.
        unsafe { libc::setsid() };
        if let Entry::Moved(cgroup) = self.plan.cgroup {
            enter(cgroup)?;
        }
        self.set_oom_score()?;
        let execution = self.plan.execution;
        if let Some(nice) = execution.and_then(|execution| execution.nice) {
            // SAFETY: takes numbers only.
            check(code::NICE, unsafe { libc::setpriority(libc::PRIO_PROCESS as _, 0, nice) })?;
        }
        self.arrange_fds()?;
        if let Some(files) = self.files {
            set_limit(RLIMIT_NOFILE, files)?;
        }
        write_pid(self.plan.ready.listen_pid);
        if let Some(hole) = self.plan.ready.watchdog_pid {
            write_pid(hole);
        }
        if self.plan.ready.staged {
            return Ok(());
        }
        if let Some(execution) = execution {
            // SAFETY: takes a number, cannot fail.
            unsafe { libc::umask(execution.umask) };
        }
        // SAFETY: a C string.
        check(code::CHDIR, unsafe { libc::chdir(self.plan.directory.as_ptr()) })?;
        let Some(execution) = execution else { return Ok(()) };
        for (resource, soft, hard) in &execution.limits {
            set_limit(*resource, &[*soft, *hard])?;
        }
        if execution.ignore_sigpipe {
            set_disposition(libc::SIGPIPE, libc::SIG_IGN as u64);
        }
        if execution.no_new_privileges {
            // SAFETY: takes numbers only.
            let set = unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) };
            check(code::NO_NEW_PRIVILEGES, set)?;
        }
        Ok(())
    }

    fn set_oom_score(&self) -> Step {
        let Some(score) = self.plan.oom_score else { return Ok(()) };
        let path = c"/proc/self/oom_score_adj";
        // SAFETY: a C string and flags; then a buffer with its length.
        unsafe {
            let fd = libc::open(path.as_ptr(), libc::O_WRONLY | libc::O_CLOEXEC);
            check(code::OOM_ADJUST, fd)?;
            let written = libc::write(fd, score.as_ptr().cast(), score.count_bytes());
            check(code::OOM_ADJUST, written as c_int)
        }
    }

    /// Moves the fds to 0, 1, 2, 3... First all that lie where another has to go are moved out of
    /// the way, so that none is overwritten before its turn.
    fn arrange_fds(&mut self) -> Step {
        let codes = [code::STDIN, code::STDOUT, code::STDERR];
        for (index, code) in codes.into_iter().enumerate() {
            self.fds[index] = match self.plan.streams[index] {
                Stream::Fd(fd) => fd,
                Stream::Open(path, flags) => open(path, flags).map_err(|errno| (code, errno))?,
                Stream::Same(other) => self.fds[other.min(index)],
            };
        }
        let count = self.fds.len() as RawFd;
        for fd in self.fds.iter_mut() {
            if *fd < count {
                // SAFETY: takes numbers only.
                let moved = unsafe { libc::fcntl(*fd, libc::F_DUPFD_CLOEXEC, count) };
                check(code::FDS, moved)?;
                *fd = moved;
            }
        }
        let listeners = 3..3 + self.plan.listeners;
        for (to, from) in self.fds.iter().enumerate() {
            // SAFETY: takes numbers only. dup2 clears close-on-exec, since `from` is not `to`.
            check(code::FDS, unsafe { libc::dup2(*from, to as RawFd) })?;
            if let Some(on) = self.plan.non_blocking.filter(|_| listeners.contains(&to)) {
                set_nonblocking(to as RawFd, on)?;
            }
        }
        Ok(())
    }
}

/// Moves this process into a cgroup.
fn enter(cgroup: BorrowedFd) -> Step {
    let (file, own) = (c"cgroup.procs", c"0");
    // SAFETY: C strings and flags; then a buffer with its length, and an fd that is ours.
    unsafe {
        let flags = libc::O_WRONLY | libc::O_CLOEXEC;
        let fd = libc::openat(cgroup.as_raw_fd(), file.as_ptr(), flags);
        check(code::CGROUP, fd)?;
        let written = libc::write(fd, own.as_ptr().cast(), own.count_bytes());
        check(code::CGROUP, written as c_int)?;
        libc::close(fd);
    }
    Ok(())
}

fn set_limit(resource: u32, limit: &[u64; 2]) -> Step {
    let nothing = std::ptr::null_mut::<u64>();
    // SAFETY: the kernel's rlimit64 is two u64; an unknown resource is an error.
    let set = |limit: &[u64; 2]| unsafe {
        libc::syscall(libc::SYS_prlimit64, 0, resource, limit.as_ptr(), nothing)
    };
    let mut done = set(limit);
    if done < 0 {
        // Without CAP_SYS_RESOURCE, as near as may be: systemd's setrlimit_closest.
        let mut now = [0u64; 2];
        let nothing = std::ptr::null::<u64>();
        // SAFETY: the kernel writes two u64.
        unsafe { libc::syscall(libc::SYS_prlimit64, 0, resource, nothing, now.as_mut_ptr()) };
        done = set(&[limit[0].min(now[1]), limit[1].min(now[1])]);
    }
    check(code::LIMITS, done as c_int)
}

/// Default dispositions, no signal blocked. execve(2) keeps what is ignored, as SIGPIPE is by us.
/// One call each: for all 64 they were a twentieth of an activation.
fn reset_signals(ignored: u64) {
    for signal in (1..=64).filter(|signal| ignored & bit(*signal) != 0) {
        set_disposition(signal, libc::SIG_DFL as u64);
    }
    let none = [0u64; 1];
    let nothing = std::ptr::null_mut::<u64>();
    // SAFETY: takes a live set of that size.
    unsafe {
        let how = libc::SIG_SETMASK;
        libc::syscall(libc::SYS_rt_sigprocmask, how, none.as_ptr(), nothing, SIGNAL_SET);
    }
}

/// By the raw call: libc's own leaves out the signals that its threads use (32, 33), which
/// whoever started us may have ignored.
fn ignored_signals() -> u64 {
    let nothing = std::ptr::null::<u64>();
    let is_ignored = |signal: &c_int| {
        let mut action = [0u64; 4];
        // SAFETY: the kernel's sigaction is four u64, and is written to a live local.
        let read = unsafe {
            let number = libc::SYS_rt_sigaction;
            libc::syscall(number, *signal, nothing, action.as_mut_ptr(), SIGNAL_SET)
        };
        read == 0 && action[0] == libc::SIG_IGN as u64
    };
    (1..=64).filter(is_ignored).map(bit).sum()
}

fn bit(signal: c_int) -> u64 {
    1 << (signal - 1)
}

/// Signals that cannot be set are errors, which are of no interest.
fn set_disposition(signal: c_int, handler: u64) {
    // Handler, flags, restorer and mask of the kernel's sigaction.
    let action = [handler, 0, 0, 0];
    let nothing = std::ptr::null_mut::<u64>();
    // SAFETY: takes a live structure of that layout; the handler is none of ours.
    unsafe {
        libc::syscall(libc::SYS_rt_sigaction, signal, action.as_ptr(), nothing, SIGNAL_SET);
    }
}

/// Opens without waiting for anybody (a FIFO without a reader), then waits as the program wants.
fn open(path: &CStr, flags: c_int) -> Result<RawFd, i32> {
    // SAFETY: a C string, flags and a mode.
    let fd = unsafe { libc::open(path.as_ptr(), flags | libc::O_NONBLOCK, 0o644) };
    if fd < 0 {
        return Err(errno());
    }
    set_nonblocking(fd, false).map_err(|(_, errno)| errno)?;
    Ok(fd)
}

fn set_nonblocking(fd: RawFd, on: bool) -> Step {
    // SAFETY: takes numbers only.
    unsafe {
        let flags = libc::fcntl(fd, libc::F_GETFL);
        check(code::FDS, flags)?;
        let flags = if on { flags | libc::O_NONBLOCK } else { flags & !libc::O_NONBLOCK };
        check(code::FDS, libc::fcntl(fd, libc::F_SETFL, flags))
    }
}

fn write_pid(hole: *mut u8) {
    let mut buffer = [0; 10];
    let digits = decimal(std::process::id(), &mut buffer);
    // SAFETY: the hole has room for ten digits and a NUL (`Ready`), all zero before.
    unsafe { std::ptr::copy_nonoverlapping(digits.as_ptr(), hole, digits.len()) };
}

fn execute(ready: &Ready) -> i32 {
    let (argv, envp): (*const *const c_char, _) = (ready.argv.as_ptr(), ready.envp.as_ptr());
    // SAFETY: both arrays end in NULL and hold C strings that live as long as `ready`.
    unsafe { libc::execve(ready.program.as_ptr(), argv, envp) };
    errno()
}

fn check(code: i32, result: c_int) -> Step {
    if result < 0 { Err((code, errno())) } else { Ok(()) }
}

fn errno() -> i32 {
    // SAFETY: errno of the parent's sleeping thread, which is ours while it sleeps.
    unsafe { *libc::__errno_location() }
}
