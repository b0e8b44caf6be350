//! Filters of system calls.

use super::*;

pub(super) fn features(bench: &mut Bench) {
    let mut room = Room::new(bench);
    let on = true;
    let sandbox = Sandbox {
        address_families: Some((true, vec![libc::AF_UNIX as u32])),
        restrict_namespaces: libc::CLONE_NEWNET as u64,
        restrict_realtime: on,
        restrict_suid_sgid: on,
        lock_personality: on,
        memory_deny_write_execute: on,
        ..Sandbox::default()
    };
    let expected = [
        ("call:unix", "ok"),
        ("call:inet", "EAFNOSUPPORT"),
        ("call:unshare-net", "EPERM"),
        ("call:fifo", "EPERM"),
        ("call:suid", "EPERM"),
        ("call:personality", "EPERM"),
        ("call:write-execute", "EACCES"),
        ("call:mkdir", "ok"),
        ("status:NoNewPrivs", "0"),
    ];
    let asks: Vec<&str> = expected.iter().map(|(ask, _)| *ask).collect();
    let it = room.service(&asks, sandboxed(sandbox));
    let mut lines = room.run(it);
    // Refused by the kernel itself from 6.3 on, by a filter before.
    lines.iter_mut().for_each(|line| {
        *line = line.replace("call:write-execute -> EPERM", "call:write-execute -> EACCES");
    });
    let mut wanted: Vec<String> = expected.iter().map(|(a, b)| format!("{a} -> {b}")).collect();
    wanted.push("done".into());
    assert_eq!(lines, wanted, "{}", room.bench.log());
}

#[cfg(target_arch = "x86_64")]
const MKDIR: u32 = libc::SYS_mkdir as u32;
#[cfg(not(target_arch = "x86_64"))]
const MKDIR: u32 = libc::SYS_mkdirat as u32;

pub(super) fn list(bench: &mut Bench) {
    let mut room = Room::new(bench);
    let filter = SystemCallFilter {
        allow: false,
        calls: vec![(MKDIR, Some(libc::ENOSYS as u16)), (libc::SYS_unshare as u32, None)],
        errno: None,
    };
    let sandbox = Sandbox { system_calls: Some(filter), ..Sandbox::default() };
    let asks = ["call:unix", "call:mkdir", "status:NoNewPrivs", "call:unshare-net", "call:unix"];
    let mut it = room.service(&asks, sandboxed(sandbox));
    let privileges = match has_users() {
        true => {
            it.execution.user = user();
            "status:NoNewPrivs -> 1"
        }
        false => "status:NoNewPrivs -> 0",
    };
    // SIGSYS ends it there.
    let expected = ["call:unix -> ok", "call:mkdir -> ENOSYS", privileges];
    assert_eq!(room.run(it), expected, "{}", room.bench.log());
}

pub(super) fn other_abi(bench: &mut Bench) {
    if cfg!(not(target_arch = "x86_64")) {
        return eprintln!("SKIPPED: this machine has no other ABI");
    }
    let mut room = Room::new(bench);
    let sandbox = Sandbox { native_only: true, ..Sandbox::default() };
    let it = room.service(&["call:unix", "call:i386", "call:unix"], sandboxed(sandbox));
    assert_eq!(room.run(it), ["call:unix -> ok"], "{}", room.bench.log());
}
