//! What a probe does after its report.
//!
//! | word | what |
//! |---|---|
//! | `accept`, `accept=N` | answers so many clients (or datagrams) on the sockets from fd 3 on, each with `hello` |
//! | `talk` | writes `hello` to the connection on fd 3, and closes it |
//! | `stdin` | reads stdin to its end, and reports it as `TAG.stdin` |
//! | `inetd` | accepts on stdin, answers `hello` |
//! | `say=TEXT`, `complain=TEXT` | a line on stdout, on stderr |
//! | `write-fd=N` | `hello` on that descriptor |
//! | `hold` | waits for a signal, as the kernel does with it |
//! | `trap` | reports the next of SIGTERM, SIGINT, SIGHUP, SIGUSR1, SIGQUIT, SIGABRT as `TAG.signal`, and goes on |
//! | `ignore` | ignores SIGTERM |
//! | `fork` | the child goes on, the parent ends with 0; the child reports as `TAG.child` |
//! | `spawn` | a child that holds and reports as `TAG.child`; the parent goes on |
//! | `pid-file=PATH` | writes its pid |
//! | `notify=TEXT` | to NOTIFY_SOCKET, `,` is a new line |
//! | `store=NAME` | a memfd named so for the fd store |
//! | `wait=PATH` | until there is such a file |
//! | `touch=PATH` | makes it |
//! | `once=PATH` | what follows only if there is no such file; makes it |
//! | `again=TAG2` | reports anew as `TAG.TAG2` |
//! | `sleep=MS` | |
//! | `try=NAME` | a system call that a sandbox may refuse, reported as `TAG.NAME` |
//! | `exit=N`, `kill=N` | ends |
//! | `args`, `silent`, `look=PATHS` | nothing: `args` ends the words |

use crate::{descriptors, look, process, talk};
use serde_json::{Value, json};
use std::ffi::CString;
use std::io::{IoSlice, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixDatagram;
use std::time::Duration;

/// Carries the words out; the exit code.
pub(crate) fn follow(tag: &str, words: &[&str]) -> i32 {
    for (index, word) in words.iter().enumerate() {
        let (verb, value) = word.split_once('=').unwrap_or((word, ""));
        match verb {
            "args" => break,
            "accept" => accept(value.parse().unwrap_or(1)),
            "talk" => write_all(3, b"hello\n", After::Close),
            "write-fd" => write_all(value.parse().unwrap_or(3), b"hello\n", After::Keep),
            "stdin" => {
                let mut bytes = vec![];
                let result = std::io::stdin().read_to_end(&mut bytes);
                let text = String::from_utf8_lossy(&bytes).into_owned();
                let text = result.map_or_else(|error| error.kind().to_string(), |_| text);
                talk::send(&format!("{tag}.stdin"), &json!({ "text": text }));
            }
            "inetd" => {
                if let Ok(connection) = rustix::net::accept(std::io::stdin().as_fd()) {
                    let _ = rustix::io::write(&connection, b"hello\n");
                }
            }
            "say" => write_all(1, format!("{value}\n").as_bytes(), After::Keep),
            "complain" => write_all(2, format!("{value}\n").as_bytes(), After::Keep),
            "hold" => loop {
                std::thread::park();
            },
            "trap" => {
                let signal = trap(tag);
                talk::send(&format!("{tag}.signal"), &json!({ "signal": signal }));
            }
            "ignore" => {
                // SAFETY: no handler is installed.
                unsafe { libc::signal(libc::SIGTERM, libc::SIG_IGN) };
            }
            "fork" => {
                // SAFETY: the process has one thread.
                let pid = unsafe { libc::fork() };
                if pid > 0 {
                    return 0;
                }
                talk::send(&format!("{tag}.child"), &json!({}));
            }
            "spawn" => {
                // SAFETY: the process has one thread.
                let pid = unsafe { libc::fork() };
                if pid == 0 {
                    talk::send(&format!("{tag}.child"), &json!({}));
                    loop {
                        std::thread::park();
                    }
                }
            }
            "pid-file" => {
                let _ = std::fs::write(value, format!("{}\n", std::process::id()));
            }
            "notify" => notify(&value.replace(',', "\n"), None),
            "store" => {
                let file = rustix::fs::memfd_create(value, rustix::fs::MemfdFlags::CLOEXEC);
                notify(&format!("FDSTORE=1\nFDNAME={value}"), file.ok());
            }
            "wait" => {
                while !std::path::Path::new(value).exists() {
                    std::thread::sleep(Duration::from_millis(5));
                }
            }
            "touch" => {
                let _ = std::fs::write(value, "");
            }
            "once" => match std::fs::File::create_new(value) {
                Ok(_) => {}
                Err(_) => return 0,
            },
            "again" => {
                let mut report = process::report();
                report["descriptors"] = descriptors::all();
                let paths = words[..index].iter().filter_map(|word| word.strip_prefix("look="));
                report["look"] = look::all(paths.flat_map(|paths| paths.split(':')));
                talk::send(&format!("{tag}.{value}"), &report);
            }
            "sleep" => std::thread::sleep(Duration::from_millis(value.parse().unwrap_or(0))),
            "try" => talk::send(&format!("{tag}.{value}"), &json!({ "result": attempt(value) })),
            "exit" => return value.parse().unwrap_or(1),
            "kill" => {
                // SAFETY: numbers; the core's default action may be to dump, which is wanted.
                unsafe { libc::kill(libc::getpid(), value.parse().unwrap_or(libc::SIGKILL)) };
            }
            _ => {}
        }
    }
    0
}

/// The sockets from fd 3 on, by LISTEN_FDS.
fn sockets() -> Vec<OwnedFd> {
    let count = std::env::var("LISTEN_FDS").ok().and_then(|text| text.parse::<RawFd>().ok());
    // SAFETY: they are handed to this process, and nobody else has taken them.
    (3..3 + count.unwrap_or(0)).map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }).collect()
}

fn accept(count: usize) {
    let sockets = sockets();
    for _ in 0..count {
        let mut poll: Vec<_> = sockets
            .iter()
            .map(|fd| rustix::event::PollFd::new(fd, rustix::event::PollFlags::IN))
            .collect();
        if rustix::event::poll(&mut poll, None).is_err() {
            return;
        }
        let ready = poll.iter().position(|fd| !fd.revents().is_empty());
        if let Some(socket) = ready.and_then(|index| sockets.get(index)) {
            answer(socket.as_fd());
        }
    }
    // They stay open: closing them would be the program's own doing.
    std::mem::forget(sockets);
}

fn answer(socket: BorrowedFd<'_>) {
    use rustix::net::{RecvFlags, SendFlags};
    if rustix::net::sockopt::socket_acceptconn(socket) == Ok(true) {
        if let Ok(connection) = rustix::net::accept(socket) {
            let _ = rustix::net::send(&connection, b"hello\n", SendFlags::NOSIGNAL);
        }
        return;
    }
    let mut buffer = [0; 4096];
    match rustix::net::recvfrom(socket, &mut buffer, RecvFlags::empty()) {
        Ok((_, _, Some(from))) => {
            let _ = rustix::net::sendto(socket, b"hello\n", SendFlags::empty(), &from);
        }
        Ok(_) => {}
        // A FIFO or a file.
        Err(_) => {
            let _ = rustix::io::read(socket, &mut buffer);
        }
    }
}

enum After {
    Close,
    Keep,
}

fn write_all(fd: RawFd, bytes: &[u8], after: After) {
    // SAFETY: the descriptor, if it is open, is this program's to use; `Keep` gives it back.
    let mut file = unsafe { std::fs::File::from_raw_fd(fd) };
    let _ = file.write_all(bytes);
    match after {
        After::Close => drop(file),
        After::Keep => std::mem::forget(file),
    }
}

/// Waits for a signal; reports `TAG.ready` when it would not be lost.
fn trap(tag: &str) -> i32 {
    let mut set = MaybeUninit::<libc::sigset_t>::uninit();
    let mut signal = 0;
    // SAFETY: sigemptyset initialises the set; the process has one thread.
    unsafe {
        libc::sigemptyset(set.as_mut_ptr());
        for number in
            [libc::SIGTERM, libc::SIGINT, libc::SIGHUP, libc::SIGUSR1, libc::SIGQUIT, libc::SIGABRT]
        {
            libc::sigaddset(set.as_mut_ptr(), number);
        }
        libc::sigprocmask(libc::SIG_BLOCK, set.as_ptr(), std::ptr::null_mut());
        talk::send(&format!("{tag}.ready"), &json!({}));
        libc::sigwait(set.as_ptr(), &raw mut signal);
        libc::sigprocmask(libc::SIG_UNBLOCK, set.as_ptr(), std::ptr::null_mut());
    }
    signal
}

fn notify(text: &str, file: Option<OwnedFd>) {
    let Ok(path) = std::env::var("NOTIFY_SOCKET") else { return };
    let Ok(socket) = UnixDatagram::unbound() else { return };
    let connected = match path.strip_prefix('@') {
        Some(name) => {
            use std::os::linux::net::SocketAddrExt;
            std::os::unix::net::SocketAddr::from_abstract_name(name)
                .and_then(|address| socket.connect_addr(&address))
        }
        None => socket.connect(&path),
    };
    if connected.is_err() {
        return;
    }
    let files: Vec<BorrowedFd<'_>> = file.iter().map(AsFd::as_fd).collect();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = rustix::net::SendAncillaryBuffer::new(&mut space);
    if !files.is_empty() {
        control.push(rustix::net::SendAncillaryMessage::ScmRights(&files));
    }
    let text = [IoSlice::new(text.as_bytes())];
    let _ = rustix::net::sendmsg(&socket, &text, &mut control, rustix::net::SendFlags::empty());
}

/// What becomes of a system call; `done` or the errno.
fn attempt(name: &str) -> Value {
    // SAFETY: numbers.
    let socket = |family: i32, kind: i32| unsafe { libc::socket(family, kind, 0) }.into();
    let path = |text: &str| CString::new(text).unwrap_or_default();
    // SAFETY: numbers, and strings that outlive the call; what is made or mapped is left alone.
    let result: i64 = unsafe {
        match name {
            "inet" => socket(libc::AF_INET, libc::SOCK_STREAM),
            "inet6" => socket(libc::AF_INET6, libc::SOCK_STREAM),
            "netlink" => socket(libc::AF_NETLINK, libc::SOCK_RAW),
            "unix" => socket(libc::AF_UNIX, libc::SOCK_STREAM),
            "packet" => socket(libc::AF_PACKET, libc::SOCK_RAW),
            "unshare-user" => libc::unshare(libc::CLONE_NEWUSER).into(),
            "unshare-net" => libc::unshare(libc::CLONE_NEWNET).into(),
            "unshare-uts" => libc::unshare(libc::CLONE_NEWUTS).into(),
            "personality" => libc::personality(0x0008).into(),
            "hostname" => libc::sethostname(c"other".as_ptr(), 5).into(),
            "realtime" => {
                // The kernel's sched_param; musl has another, and refuses to ask.
                let priority: libc::c_int = 1;
                let call = libc::SYS_sched_setscheduler;
                libc::syscall(call, 0, libc::SCHED_RR, &raw const priority)
            }
            "suid" => {
                let file = path("/tmp/suid");
                let _ = std::fs::write("/tmp/suid", "");
                libc::chmod(file.as_ptr(), 0o4755).into()
            }
            "wx" => {
                let both = libc::PROT_READ | libc::PROT_WRITE | libc::PROT_EXEC;
                let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
                match libc::mmap(std::ptr::null_mut(), 4096, both, flags, -1, 0) {
                    libc::MAP_FAILED => -1,
                    _ => 0,
                }
            }
            "syslog" => libc::klogctl(10, std::ptr::null_mut(), 0).into(),
            "settime" => {
                let mut now = std::mem::zeroed::<libc::timespec>();
                libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut now);
                // Before the epoch is EINVAL to all who may set it, EPERM to those who may not.
                now.tv_sec = -1;
                libc::clock_settime(libc::CLOCK_REALTIME, &raw const now).into()
            }
            "mount" => {
                let (none, to) = (path("none"), path("/mnt"));
                libc::mount(none.as_ptr(), to.as_ptr(), c"tmpfs".as_ptr(), 0, std::ptr::null())
                    .into()
            }
            "chroot" => libc::chroot(c"/".as_ptr()).into(),
            "module" => libc::syscall(libc::SYS_delete_module, c"no_such".as_ptr(), 0),
            "mknod" => {
                let file = path("/tmp/node");
                libc::mknod(file.as_ptr(), libc::S_IFCHR | 0o600, libc::makedev(1, 3)).into()
            }
            // KEYCTL_UNLINK of the user's keyring from the session's: ENOENT if it is not there.
            "unlink-user-keyring" => libc::syscall(libc::SYS_keyctl, 9, -4, -3),
            "getcpu" => libc::syscall(libc::SYS_getcpu, 0, 0, 0),
            _ => return "no such attempt".into(),
        }
    };
    match result {
        -1 => {
            let error = std::io::Error::last_os_error().raw_os_error().unwrap_or(0);
            json!(rustix::io::Errno::from_raw_os_error(error).to_string())
        }
        _ => "done".into(),
    }
}
