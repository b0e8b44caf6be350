//! What the sandboxing keys refuse, each as systemd.exec(5) describes it.

use super::program::{Action, Rule, Test};
use crate::manifest::Sandbox;

const EPERM: Action = Action::Refuse(libc::EPERM as u16);
/// For what hides its arguments in memory, where no filter can look: programs fall back to the
/// older call.
const ENOSYS: Action = Action::Refuse(libc::ENOSYS as u16);

/// All rules that a sandbox asks for.
pub(super) fn rules(sandbox: &Sandbox) -> Vec<Rule> {
    let mut rules = vec![];
    if let Some((allow, families)) = &sandbox.address_families {
        address_families(*allow, families, &mut rules);
    }
    if sandbox.restrict_namespaces != 0 {
        namespaces(sandbox.restrict_namespaces as u32, &mut rules);
    }
    if sandbox.restrict_realtime {
        realtime(&mut rules);
    }
    if sandbox.restrict_suid_sgid {
        suid_sgid(&mut rules);
    }
    if sandbox.lock_personality {
        // 0xffffffff asks for what it is, which here is PER_LINUX (0).
        let tests = [Test::IsNot(0, 0), Test::IsNot(0, u32::MAX)];
        rules.push(Rule::when(number(libc::SYS_personality), &tests, EPERM));
    }
    if sandbox.memory_deny_write_execute {
        write_execute(&mut rules);
    }
    for (on, calls) in [
        (sandbox.protect_kernel_modules, MODULES),
        (sandbox.protect_kernel_logs, LOGS),
        (sandbox.protect_clock, CLOCK),
        (sandbox.protect_hostname, HOST_NAME),
        (sandbox.private_devices, RAW_IO),
    ] {
        if on {
            rules.extend(calls.iter().map(|call| Rule::of(number(*call), EPERM)));
        }
    }
    rules
}

const MODULES: &[i64] = &[libc::SYS_init_module, libc::SYS_finit_module, libc::SYS_delete_module];
const LOGS: &[i64] = &[libc::SYS_syslog];
const CLOCK: &[i64] =
    &[libc::SYS_adjtimex, libc::SYS_clock_adjtime, libc::SYS_clock_settime, libc::SYS_settimeofday];
const HOST_NAME: &[i64] = &[libc::SYS_sethostname, libc::SYS_setdomainname];
#[cfg(target_arch = "x86_64")]
const RAW_IO: &[i64] = &[libc::SYS_ioperm, libc::SYS_iopl];
#[cfg(not(target_arch = "x86_64"))]
const RAW_IO: &[i64] = &[];

fn number(call: i64) -> u32 {
    call as u32
}

/// Only socket(2): what is handed over, and socketpair(2), stay as they are.
fn address_families(allow: bool, families: &[u32], rules: &mut Vec<Rule>) {
    let refuse = Action::Refuse(libc::EAFNOSUPPORT as u16);
    let socket = number(libc::SYS_socket);
    if allow {
        let allowed = |family: &u32| Rule::when(socket, &[Test::Is(0, *family)], Action::Allow);
        rules.extend(families.iter().map(allowed));
        rules.push(Rule::of(socket, refuse));
    } else {
        let denied = |family: &u32| Rule::when(socket, &[Test::Is(0, *family)], refuse);
        rules.extend(families.iter().map(denied));
    }
}

fn namespaces(denied: u32, rules: &mut Vec<Rule>) {
    rules.push(Rule::of(number(libc::SYS_clone3), ENOSYS));
    // Of any kind that the fd is.
    rules.push(Rule::when(number(libc::SYS_setns), &[Test::Is(1, 0)], EPERM));
    rules.push(Rule::when(number(libc::SYS_setns), &[Test::HasAny(1, denied)], EPERM));
    rules.push(Rule::when(number(libc::SYS_unshare), &[Test::HasAny(0, denied)], EPERM));
    // In clone(2) CLONE_NEWTIME is part of the signal's number.
    let flags = denied & !(libc::CLONE_NEWTIME as u32);
    rules.push(Rule::when(number(libc::SYS_clone), &[Test::HasAny(0, flags)], EPERM));
}

fn realtime(rules: &mut Vec<Rule>) {
    let call = number(libc::SYS_sched_setscheduler);
    for policy in [libc::SCHED_OTHER, libc::SCHED_BATCH, libc::SCHED_IDLE] {
        rules.push(Rule::when(call, &[Test::Is(1, policy as u32)], Action::Allow));
    }
    rules.push(Rule::of(call, EPERM));
    rules.push(Rule::of(number(libc::SYS_sched_setattr), ENOSYS));
}

fn suid_sgid(rules: &mut Vec<Rule>) {
    let bits = libc::S_ISUID | libc::S_ISGID;
    // Which argument is the mode; for open(2) only if it makes a file.
    let mut mode = |call: i64, index| {
        rules.push(Rule::when(number(call), &[Test::HasAny(index, bits)], EPERM));
    };
    mode(libc::SYS_fchmod, 1);
    mode(libc::SYS_fchmodat, 2);
    mode(SYS_FCHMODAT2, 2);
    mode(libc::SYS_mkdirat, 2);
    mode(libc::SYS_mknodat, 2);
    for (call, index) in OLD_MODES {
        mode(*call, *index);
    }
    let mut open = |call: i64, flags, mode| {
        for flag in [libc::O_CREAT as u32, TEMPORARY_FILE] {
            let tests = [Test::HasAll(flags, flag), Test::HasAny(mode, bits)];
            rules.push(Rule::when(number(call), &tests, EPERM));
        }
    };
    open(libc::SYS_openat, 2, 3);
    for (call, flags, mode) in OLD_OPENS {
        open(*call, *flags, *mode);
    }
    rules.push(Rule::of(number(libc::SYS_openat2), ENOSYS));
}

/// Calls that set a mode, which argument that is, and the same of calls that may make a file, after
/// the flags: those that newer architectures have as `...at` alone.
#[cfg(target_arch = "x86_64")]
const OLD_MODES: &[(i64, u32)] =
    &[(libc::SYS_chmod, 1), (libc::SYS_mkdir, 1), (libc::SYS_mknod, 1), (libc::SYS_creat, 1)];
#[cfg(target_arch = "x86_64")]
const OLD_OPENS: &[(i64, u32, u32)] = &[(libc::SYS_open, 1, 2)];
#[cfg(not(target_arch = "x86_64"))]
const OLD_MODES: &[(i64, u32)] = &[];
#[cfg(not(target_arch = "x86_64"))]
const OLD_OPENS: &[(i64, u32, u32)] = &[];

/// Linux 6.6; the same on all architectures.
const SYS_FCHMODAT2: i64 = 452;
/// __O_TMPFILE: O_TMPFILE without O_DIRECTORY.
const TEMPORARY_FILE: u32 = libc::O_TMPFILE as u32 & !(libc::O_DIRECTORY as u32);

fn write_execute(rules: &mut Vec<Rule>) {
    let (write, execute) = (libc::PROT_WRITE as u32, libc::PROT_EXEC as u32);
    let both = [Test::HasAll(2, write | execute)];
    rules.push(Rule::when(number(libc::SYS_mmap), &both, EPERM));
    let executable = [Test::HasAny(2, execute)];
    rules.push(Rule::when(number(libc::SYS_mprotect), &executable, EPERM));
    rules.push(Rule::when(number(libc::SYS_pkey_mprotect), &executable, EPERM));
    let segment = [Test::HasAny(2, libc::SHM_EXEC as u32)];
    rules.push(Rule::when(number(libc::SYS_shmat), &segment, EPERM));
}

#[cfg(test)]
mod tests {
    use super::super::program::{Program, run};
    use super::*;

    #[track_caller]
    fn check(sandbox: Sandbox, cases: &[(i64, &[u64], Action)]) {
        let program = Program::new(&rules(&sandbox), Action::Allow);
        for (call, arguments, expected) in cases {
            let found = run(&program, number(*call), arguments);
            assert_eq!(found, *expected, "{call} {arguments:x?}");
        }
        assert_eq!(run(&program, number(libc::SYS_read), &[]), Action::Allow);
    }

    #[test]
    fn families() {
        let refused = Action::Refuse(libc::EAFNOSUPPORT as u16);
        let (unix, inet) = (libc::AF_UNIX as u64, libc::AF_INET as u64);
        let only = |allow| Sandbox {
            address_families: Some((allow, vec![unix as u32])),
            ..Sandbox::default()
        };
        let socket = libc::SYS_socket;
        check(only(true), &[(socket, &[unix], Action::Allow), (socket, &[inet], refused)]);
        check(only(false), &[(socket, &[unix], refused), (socket, &[inet], Action::Allow)]);
        let none = Sandbox { address_families: Some((true, vec![])), ..Sandbox::default() };
        check(none, &[(socket, &[unix], refused)]);
    }

    #[test]
    fn namespaces_of_the_denied_kinds() {
        let (net, user) = (libc::CLONE_NEWNET as u64, libc::CLONE_NEWUSER as u64);
        let sandbox = Sandbox { restrict_namespaces: net, ..Sandbox::default() };
        check(
            sandbox,
            &[
                (libc::SYS_unshare, &[net | user], EPERM),
                (libc::SYS_unshare, &[user], Action::Allow),
                (libc::SYS_clone, &[net | 17], EPERM),
                (libc::SYS_clone, &[17], Action::Allow),
                (libc::SYS_setns, &[3, 0], EPERM),
                (libc::SYS_setns, &[3, net], EPERM),
                (libc::SYS_setns, &[3, user], Action::Allow),
                (libc::SYS_clone3, &[], ENOSYS),
            ],
        );
    }

    #[test]
    fn modes_policies_and_memory() {
        let (creat, suid) = (libc::O_CREAT as u64, u64::from(libc::S_ISUID));
        let on = true;
        let sandbox = Sandbox {
            restrict_suid_sgid: on,
            restrict_realtime: on,
            memory_deny_write_execute: on,
            lock_personality: on,
            ..Sandbox::default()
        };
        check(
            sandbox,
            &[
                (libc::SYS_openat, &[0, 0, creat, suid | 0o644], EPERM),
                (libc::SYS_openat, &[0, 0, creat, 0o644], Action::Allow),
                (libc::SYS_openat, &[0, 0, 0, suid], Action::Allow),
                (libc::SYS_openat, &[0, 0, libc::O_TMPFILE as u64, suid], EPERM),
                (libc::SYS_openat, &[0, 0, libc::O_DIRECTORY as u64, suid], Action::Allow),
                (libc::SYS_fchmodat, &[0, 0, 0o2755], EPERM),
                (libc::SYS_fchmod, &[0, 0o755], Action::Allow),
                (libc::SYS_sched_setscheduler, &[0, libc::SCHED_FIFO as u64], EPERM),
                (libc::SYS_sched_setscheduler, &[0, libc::SCHED_IDLE as u64], Action::Allow),
                (libc::SYS_sched_setscheduler, &[0, 0x4000_0000], EPERM),
                (libc::SYS_mmap, &[0, 0, 7], EPERM),
                (libc::SYS_mmap, &[0, 0, 5], Action::Allow),
                (libc::SYS_mmap, &[0, 0, 3], Action::Allow),
                (libc::SYS_mprotect, &[0, 0, 4], EPERM),
                (libc::SYS_mprotect, &[0, 0, 3], Action::Allow),
                (libc::SYS_personality, &[8], EPERM),
                (libc::SYS_personality, &[0xffff_ffff], Action::Allow),
                (libc::SYS_personality, &[0], Action::Allow),
            ],
        );
    }

    #[test]
    fn calls_of_the_machine() {
        let on = true;
        let sandbox = Sandbox {
            protect_kernel_modules: on,
            protect_kernel_logs: on,
            protect_clock: on,
            protect_hostname: on,
            private_devices: on,
            ..Sandbox::default()
        };
        let program = Program::new(&rules(&sandbox), Action::Allow);
        for call in [MODULES, LOGS, CLOCK, HOST_NAME, RAW_IO].into_iter().flatten() {
            assert_eq!(run(&program, number(*call), &[]), EPERM, "{call}");
        }
        assert_eq!(run(&program, number(libc::SYS_clock_gettime), &[]), Action::Allow);
        // Whoever only asks must not set: adjtimex is refused as in systemd, uname is not.
        assert_eq!(run(&program, number(libc::SYS_uname), &[]), Action::Allow);
    }
}
