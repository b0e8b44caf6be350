//! What a process is, besides its file descriptors.

use serde_json::{Map, Value, json};
use std::os::unix::ffi::OsStringExt;

/// Lines of /proc/self/status, proc_pid_status(5).
const STATUS: [&str; 15] = [
    "Umask",
    "Uid",
    "Gid",
    "Groups",
    "SigBlk",
    "SigIgn",
    "SigCgt",
    "CapInh",
    "CapPrm",
    "CapEff",
    "CapBnd",
    "CapAmb",
    "NoNewPrivs",
    "Seccomp",
    "Cpus_allowed_list",
];

const NAMESPACES: [&str; 7] = ["mnt", "net", "ipc", "uts", "user", "pid", "cgroup"];

/// Everything but the file descriptors.
pub(crate) fn report() -> Value {
    let pid = std::process::id();
    json!({
        "environment": environment(),
        "status": status(),
        "limits": limits(),
        "directory": std::env::current_dir().map(|it| it.display().to_string()).ok(),
        "root": std::fs::read_link("/proc/self/root").map(|it| it.display().to_string()).ok(),
        "oom_score_adj": line("/proc/self/oom_score_adj"),
        "personality": line("/proc/self/personality"),
        "timer_slack": line("/proc/self/timerslack_ns"),
        "nice": number(Ask::Nice),
        "scheduler": number(Ask::Scheduler),
        "io_priority": number(Ask::IoPriority),
        "secure_bits": number(Ask::SecureBits),
        "death_signal": death_signal(),
        "leads_session": number(Ask::Session) == pid as i32,
        "leads_group": number(Ask::Group) == pid as i32,
        "host_name": line("/proc/sys/kernel/hostname"),
        "namespaces": namespaces(),
    })
}

/// Numbers that are this process's own, or differ in every run, become words.
fn environment() -> Map<String, Value> {
    let pid = std::process::id().to_string();
    let text = |it: std::ffi::OsString| {
        String::from_utf8(it.into_vec()).unwrap_or_else(|it| format!("{:?}", it.into_bytes()))
    };
    let mut map = Map::new();
    for (name, value) in std::env::vars_os() {
        let (name, value) = (text(name), text(value));
        let shown = match name.as_str() {
            "LISTEN_PID" | "SYSTEMD_EXEC_PID" | "WATCHDOG_PID" if value == pid => "own".into(),
            "INVOCATION_ID" if value.len() == 32 => "32 digits".into(),
            "NOTIFY_SOCKET" => "a socket".into(),
            "SO_COOKIE" => "a cookie".into(),
            _ => value,
        };
        map.insert(name, shown.into());
    }
    map
}

fn status() -> Map<String, Value> {
    let text = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let lines = text.lines().filter_map(|line| line.split_once(':'));
    lines
        .filter(|(name, _)| STATUS.contains(name))
        .map(|(name, value)| {
            let value = value.split_whitespace().collect::<Vec<_>>().join(" ");
            (name.to_owned(), value.into())
        })
        .collect()
}

/// RLIMIT names as /proc has them, with both limits.
fn limits() -> Map<String, Value> {
    let text = std::fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let mut map = Map::new();
    for line in text.lines().skip(1) {
        // The name has 26 columns, each limit 21.
        let (Some(name), Some(rest)) = (line.get(..26), line.get(26..)) else { continue };
        let values: Vec<&str> = rest.split_whitespace().take(2).collect();
        map.insert(name.trim().to_owned(), values.join(" ").into());
    }
    map
}

fn namespaces() -> Map<String, Value> {
    let read = |name: &str| std::fs::read_link(format!("/proc/self/ns/{name}"));
    let each = NAMESPACES.into_iter().map(|name| {
        let link = read(name).map(|it| it.display().to_string()).unwrap_or_default();
        (name.to_owned(), link.into())
    });
    each.collect()
}

fn death_signal() -> i32 {
    let mut signal = 0;
    // SAFETY: the kernel writes an int.
    unsafe { libc::prctl(libc::PR_GET_PDEATHSIG, &raw mut signal) };
    signal
}

fn line(path: &str) -> Option<String> {
    std::fs::read_to_string(path).ok().map(|text| text.trim().to_owned())
}

enum Ask {
    Nice,
    Scheduler,
    IoPriority,
    SecureBits,
    Session,
    Group,
}

fn number(ask: Ask) -> i32 {
    // SAFETY: numbers go in, and a number comes out; 0 is this process.
    unsafe {
        match ask {
            Ask::Nice => libc::getpriority(libc::PRIO_PROCESS, 0),
            Ask::Scheduler => libc::sched_getscheduler(0),
            Ask::IoPriority => libc::syscall(libc::SYS_ioprio_get, 1, 0) as i32,
            Ask::SecureBits => libc::prctl(libc::PR_GET_SECUREBITS),
            Ask::Session => libc::getsid(0),
            Ask::Group => libc::getpgid(0),
        }
    }
}
