//! A service under test that says on stdout what it can do and see: one line for each of its
//! arguments. It opens nothing that it is not asked about, so that it works in any sandbox.

use std::io::Write;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::process::ExitCode;

pub(crate) fn main(asks: &[&str]) -> ExitCode {
    for ask in asks {
        let answer = answer(ask);
        // One write for a line: the next may be the last.
        let line = format!("{ask} -> {}\n", answer.unwrap_or_else(|errno| errno));
        std::io::stdout().write_all(line.as_bytes()).unwrap();
    }
    std::io::stdout().write_all(b"done\n").unwrap();
    ExitCode::SUCCESS
}

type Answer = Result<String, String>;

fn answer(ask: &str) -> Answer {
    let (verb, what) = ask.split_once(':').unwrap_or((ask, ""));
    let said = |error: std::io::Error| name(error.raw_os_error().unwrap_or(0));
    match verb {
        "read" => std::fs::read_to_string(what).map(|text| text.trim().to_owned()).map_err(said),
        "write" => {
            let file = std::fs::File::options().create(true).append(true).open(what);
            file.map(|_| "ok".into()).map_err(said)
        }
        "list" => {
            let entries = std::fs::read_dir(what).map_err(said)?;
            let names = entries.filter_map(|it| it.unwrap().file_name().into_string().ok());
            let mut names: Vec<String> = names.collect();
            names.sort();
            Ok(names.join(" "))
        }
        "stat" => {
            let it = std::fs::metadata(what).map_err(said)?;
            let kind = if it.file_type().is_char_device() { "c" } else { "" };
            Ok(format!("{kind}{:o} {} {}", it.mode() & 0o7777, it.uid(), it.gid()))
        }
        "run" => {
            let status = std::process::Command::new(what).status().map_err(said)?;
            Ok(status.to_string())
        }
        "env" => Ok(std::env::var(what).unwrap_or_else(|_| "none".into())),
        "args" => Ok(std::env::args().skip(2).collect::<Vec<_>>().join("|")),
        "pid" => {
            let own = std::process::id().to_string();
            Ok((std::env::var("LISTEN_PID") == Ok(own)).to_string())
        }
        "status" => {
            let text = std::fs::read_to_string("/proc/self/status").map_err(said)?;
            let line = text.lines().find(|line| line.starts_with(&format!("{what}:")));
            let line = line.unwrap_or_default();
            Ok(line.split_ascii_whitespace().skip(1).collect::<Vec<_>>().join(" "))
        }
        "call" => call(what),
        "socket" => {
            let number = what.parse().unwrap();
            // SAFETY: it is only asked for its name, and stays open.
            #[allow(unsafe_code)]
            let fd = unsafe { rustix::fd::BorrowedFd::borrow_raw(number) };
            let name = rustix::net::getsockname(fd).map_err(|errno| errno.to_string())?;
            let name = std::net::SocketAddr::try_from(name).map_err(|errno| errno.to_string())?;
            Ok(name.to_string())
        }
        "stdin" => std::io::read_to_string(std::io::stdin()).map_err(said),
        "stderr" => {
            std::io::stderr().write_all(b"to stderr\n").map_err(said)?;
            Ok("ok".into())
        }
        "namespace" => {
            let link = std::fs::read_link(format!("/proc/self/ns/{what}")).map_err(said)?;
            Ok(link.to_string_lossy().into_owned())
        }
        "connect" => std::net::TcpStream::connect(what).map(|_| "ok".into()).map_err(said),
        "loopback" => {
            let listener = std::net::TcpListener::bind("127.0.0.1:0").map_err(said)?;
            let address = listener.local_addr().map_err(said)?;
            std::net::TcpStream::connect(address).map(|_| "ok".into()).map_err(said)
        }
        other => panic!("the probe knows no {other}"),
    }
}

const KEY: &std::ffi::CStr = c"rouse-test";

fn name(errno: i32) -> String {
    match errno {
        libc::EPERM => "EPERM".into(),
        libc::EACCES => "EACCES".into(),
        libc::EROFS => "EROFS".into(),
        libc::ENOENT => "ENOENT".into(),
        libc::ENOKEY => "ENOKEY".into(),
        libc::ENOSYS => "ENOSYS".into(),
        libc::EAFNOSUPPORT => "EAFNOSUPPORT".into(),
        libc::ECONNREFUSED => "ECONNREFUSED".into(),
        libc::ENETUNREACH => "ENETUNREACH".into(),
        other => format!("errno {other}"),
    }
}

#[allow(unsafe_code)]
fn call(what: &str) -> Answer {
    // SAFETY: each takes numbers, or pointers to live values of the kind it wants; what they
    // change is this process's, in a namespace of the test's own.
    let result = unsafe {
        match what {
            "unshare-net" => libc::unshare(libc::CLONE_NEWNET),
            "unshare-uts" => libc::unshare(libc::CLONE_NEWUTS),
            "inet" => libc::socket(libc::AF_INET, libc::SOCK_STREAM, 0),
            "unix" => libc::socket(libc::AF_UNIX, libc::SOCK_STREAM, 0),
            "fifo" => {
                let priority = 1;
                libc::syscall(
                    libc::SYS_sched_setscheduler,
                    0,
                    libc::SCHED_FIFO,
                    &raw const priority,
                ) as i32
            }
            "scheduler" => libc::syscall(libc::SYS_sched_getscheduler, 0) as i32,
            "suid" => {
                let (create, mode) = (libc::O_CREAT | libc::O_RDWR, 0o4755);
                libc::open(c"/run/suid".as_ptr(), create, mode)
            }
            "write-execute" => {
                let prot = libc::PROT_READ | libc::PROT_WRITE | libc::PROT_EXEC;
                let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
                let memory = libc::mmap(std::ptr::null_mut(), 4096, prot, flags, -1, 0);
                if memory == libc::MAP_FAILED { -1 } else { 0 }
            }
            "personality" => libc::personality(libc::ADDR_NO_RANDOMIZE as libc::c_ulong),
            "hostname" => libc::sethostname(c"x".as_ptr(), 1),
            "kernel-log" => libc::syscall(libc::SYS_syslog, 10, 0, 0) as i32,
            "clock" => libc::syscall(libc::SYS_settimeofday, 0, 0) as i32,
            "mkdir" => libc::mkdir(c"/run/made".as_ptr(), 0o755),
            // To the user's keyring, and from the session's.
            "add-key" => libc::syscall(
                libc::SYS_add_key,
                c"user".as_ptr(),
                KEY.as_ptr(),
                c"x".as_ptr(),
                1,
                libc::KEY_SPEC_USER_KEYRING,
            ) as i32,
            "find-key" => libc::syscall(
                libc::SYS_keyctl,
                libc::KEYCTL_SEARCH,
                libc::KEY_SPEC_SESSION_KEYRING,
                c"user".as_ptr(),
                KEY.as_ptr(),
                0,
            ) as i32,
            "module" => libc::syscall(libc::SYS_delete_module, c"none".as_ptr(), 0) as i32,
            "slack" => libc::prctl(libc::PR_GET_TIMERSLACK),
            "io-priority" => libc::syscall(libc::SYS_ioprio_get, 1, 0) as i32,
            // getpid by the ABI of i386: __NR_getpid is 20 there.
            #[cfg(target_arch = "x86_64")]
            "i386" => {
                let result: i64;
                std::arch::asm!("push rbx", "mov ebx, 0", "int 0x80", "pop rbx",
                    inlateout("rax") 20i64 => result);
                result as i32
            }
            other => panic!("no call {other}"),
        }
    };
    match result {
        -1 => Err(name(std::io::Error::last_os_error().raw_os_error().unwrap_or(0))),
        0 => Ok("ok".into()),
        // An fd, or what was asked for.
        number => Ok(match what {
            "scheduler" | "slack" | "io-priority" => number.to_string(),
            _ => "ok".into(),
        }),
    }
}
