//! vsock, where this kernel can carry it to itself: the loopback transport (CID 1).

use crate::{ACTIVATOR, PATIENCE, Process, connect, listen, relay, spawn, until};
use rustix::fd::OwnedFd;
use rustix::net::{self, AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, sockopt};
use std::io::Read;
use std::os::fd::{AsFd, AsRawFd};
use std::process::Command;

/// VMADDR_CID_LOCAL.
const LOCAL: u32 = 1;

#[allow(unsafe_code)]
fn address(cid: u32, port: u32) -> libc::sockaddr_vm {
    // SAFETY: all zeroes is a valid sockaddr_vm.
    let mut address: libc::sockaddr_vm = unsafe { std::mem::zeroed() };
    address.svm_family = libc::AF_VSOCK as libc::sa_family_t;
    (address.svm_cid, address.svm_port) = (cid, port);
    address
}

fn socket() -> Option<OwnedFd> {
    net::socket_with(AddressFamily::VSOCK, SocketType::STREAM, SocketFlags::CLOEXEC, None).ok()
}

#[allow(unsafe_code)]
fn call(
    fd: &OwnedFd,
    address: &libc::sockaddr_vm,
    call: unsafe extern "C" fn(i32, *const libc::sockaddr, libc::socklen_t) -> i32,
) -> bool {
    let size = std::mem::size_of::<libc::sockaddr_vm>() as libc::socklen_t;
    // SAFETY: bind and connect read a sockaddr of that size, which lives.
    unsafe { call(fd.as_raw_fd(), (&raw const *address).cast(), size) == 0 }
}

fn bound(port: u32) -> Option<OwnedFd> {
    let fd = socket()?;
    (call(&fd, &address(u32::MAX, port), libc::bind) && net::listen(&fd, 16).is_ok()).then_some(fd)
}

fn connected(port: u32) -> Option<OwnedFd> {
    let fd = socket()?;
    for timeout in [sockopt::Timeout::Recv, sockopt::Timeout::Send] {
        sockopt::set_socket_timeout(&fd, timeout, Some(PATIENCE)).unwrap();
    }
    call(&fd, &address(LOCAL, port), libc::connect).then_some(fd)
}

/// Other tests of this kernel may have the port: one for each test, from our pid.
fn port(test: u32) -> u32 {
    std::process::id() * 16 + test + (1 << 20)
}

/// Whether a connection to CID 1 arrives; says so loudly if not.
fn loopback(test: u32) -> bool {
    let works = std::path::Path::new("/sys/module/vsock_loopback").exists()
        && bound(port(test)).is_some_and(|_listener| connected(port(test)).is_some());
    if !works {
        println!("SKIPPED: this kernel has no vsock loopback (modprobe vsock_loopback)");
        eprintln!("SKIPPED: this kernel has no vsock loopback (modprobe vsock_loopback)");
    }
    works
}

#[test]
fn activate_listens_on_vsock() {
    if socket().is_none() {
        eprintln!("SKIPPED: this kernel has no AF_VSOCK");
        return;
    }
    let spec = format!("vsock::{}", port(0));
    // `--now` and a program that says what it got; the socket's inode is all that /proc tells.
    let output = Command::new(ACTIVATOR)
        .args(["activate", "--now", "-l", &spec, "sh", "-c", "readlink /proc/$$/fd/3"])
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.starts_with("socket:["), "{text} {}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn from_vsock_and_to_vsock() {
    if !loopback(1) {
        return;
    }
    let (back, target) = listen();
    let front = bound(port(2)).unwrap();
    let _out = relay(&[&front], &["--allow-cid=1", &target.to_string()]);
    let (door, door_address) = listen();
    let _into = relay(&[&door], &[&format!("vsock:{LOCAL}:{}", port(2))]);
    // TCP to vsock to TCP.
    let client = connect(door_address);
    std::io::Write::write_all(&mut &client, b"question").unwrap();
    client.shutdown(std::net::Shutdown::Write).unwrap();
    let mut server = crate::accept(&back);
    let mut text = String::new();
    server.read_to_string(&mut text).unwrap();
    assert_eq!(text, "question");
    std::io::Write::write_all(&mut server, b"answer").unwrap();
    drop(server);
    text.clear();
    (&client).read_to_string(&mut text).unwrap();
    assert_eq!(text, "answer");
}

#[test]
fn a_context_id_that_is_not_allowed_is_refused() {
    if !loopback(3) {
        return;
    }
    let front = bound(port(4)).unwrap();
    let (back, target) = listen();
    let _relay = relay(&[&front], &["--allow-cid=77", &target.to_string()]);
    let client = connected(port(4)).unwrap();
    assert!(matches!(net::recv(&client, &mut [0; 8], RecvFlags::empty()), Ok((0, _)) | Err(_)));
    back.set_nonblocking(true).unwrap();
    assert!(back.accept().is_err());
}

#[test]
fn a_child_of_activate_knows_the_peers_context_id() {
    if !loopback(5) {
        return;
    }
    let script = "echo $REMOTE_ADDR $REMOTE_PORT";
    let spec = format!("vsock::{}", port(6));
    let _activate = Process::start(
        Command::new(ACTIVATOR)
            .args(["activate", "-a", "--inetd", "-l", &spec, "sh", "-c", script]),
    );
    let mut client = None;
    until("it listens", || {
        client = connected(port(6));
        client.is_some()
    });
    let client = client.unwrap();
    let _ = net::send(&client, b"x", SendFlags::NOSIGNAL);
    let mut buffer = [0; 100];
    let (length, _) = net::recv(&client, &mut buffer, RecvFlags::empty()).unwrap();
    let said = String::from_utf8_lossy(&buffer[..length]).into_owned();
    assert!(said.starts_with("vsock:1 "), "{said}");
}

#[test]
fn a_backend_on_vsock_that_never_comes_is_given_up() {
    if socket().is_none() {
        eprintln!("SKIPPED: this kernel has no AF_VSOCK");
        return;
    }
    let (front, front_address) = listen();
    let mut command = spawn::activator(&[("", front.as_fd())]);
    let target = format!("vsock:{LOCAL}:{}", port(7));
    command.args(["relay", "--connect-timeout=300ms", &target]);
    let _relay = Process::start(&mut command);
    let mut client = connect(front_address);
    assert_eq!(client.read(&mut [0; 8]).unwrap(), 0);
}
