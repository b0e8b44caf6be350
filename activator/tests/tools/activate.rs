//! `activator activate`.

use crate::{ACTIVATOR, PATIENCE, Process, connect, free_address, read_when_done, spawn, until};
use rustix::process::Signal;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream, UdpSocket};
use std::os::fd::AsFd;
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::path::Path;
use std::process::Command;

/// What a program that was started sees, line by line, in a file that is whole once it is there.
const REPORT: &str = r#"
{
    echo "pid $([ "$LISTEN_PID" = $$ ] && echo own || echo "$LISTEN_PID")"
    echo "fds ${LISTEN_FDS-none}"
    echo "names ${LISTEN_FDNAMES-none}"
    echo "remote ${REMOTE_ADDR-none}"
    for fd in 0 1 3 4 5 6 7 8; do
        [ -e /proc/$$/fd/$fd ] || continue
        case $(readlink /proc/$$/fd/$fd) in
            socket:*) what=socket ;;
            /dev/null) what=null ;;
            *rouse*) what=fifo ;;
            *) what=other ;;
        esac
        flags=$(sed -n 's/flags:[[:space:]]*//p' /proc/$$/fdinfo/$fd)
        echo "fd $fd $what $([ $((0$flags & 04000)) = 0 ] && echo blocking || echo nonblocking)"
    done
    tr '\0' '\n' < /proc/$$/environ | sed 's/=.*//; s/^/variable /' | sort
    echo end
} > "$0.new"
mv "$0.new" "$0"
"#;

/// `sh` that reports to a file.
fn report(command: &mut Command, file: &Path) -> Process {
    let path = std::env::var_os("PATH").unwrap();
    command
        .env_clear()
        .env("PATH", path)
        .env("LEFT_OUT", "x")
        .env("HANDED_ON", "x")
        .env("HOME", "/")
        .env("TERM", "t");
    Process::start(command.args(["--", "sh", "-c", REPORT]).arg(file))
}

fn activate(arguments: &[&str]) -> Command {
    let mut command = Command::new(ACTIVATOR);
    command.arg("activate").args(arguments);
    command
}

/// Connects as soon as somebody listens.
fn connect_soon(address: SocketAddr) -> TcpStream {
    let mut stream = None;
    until("it listens", || {
        stream = TcpStream::connect(address).ok();
        stream.is_some()
    });
    let stream = stream.unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

fn connect_soon_unix(path: &Path) -> UnixStream {
    let mut stream = None;
    until("it listens", || {
        stream = UnixStream::connect(path).ok();
        stream.is_some()
    });
    stream.unwrap()
}

fn ask(mut stream: TcpStream, text: &str) -> String {
    stream.write_all(text.as_bytes()).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn it_becomes_the_program_when_the_first_client_is_there() {
    let directory = tempfile::tempdir().unwrap();
    let (file, socket) = (directory.path().join("report"), directory.path().join("deep/socket"));
    let address = free_address();
    let mut command = activate(&["-l", &address.to_string(), "-l", socket.to_str().unwrap()]);
    command.args(["--fdname=web:control", "-E", "NEW=1", "-EHANDED_ON"]);
    let mut process = report(&mut command, &file);
    until("it listens", || socket.exists());
    assert!(!file.exists(), "it did not wait for a client");
    let _client = connect_soon(address);
    let lines = read_when_done(&file);
    assert_eq!(process.wait().code(), Some(0));
    let fixed = ["pid own", "fds 2", "names web:control", "remote none", "fd 0 null blocking"];
    assert_eq!(lines[..5], fixed);
    assert_eq!(lines[6..8], ["fd 3 socket blocking", "fd 4 socket blocking"]);
    let variables = "HANDED_ON HOME LISTEN_FDNAMES LISTEN_FDS LISTEN_PID NEW PATH TERM";
    let variables: Vec<String> =
        variables.split(' ').map(|name| format!("variable {name}")).collect();
    assert_eq!(lines[8..], variables);
    use std::os::unix::fs::PermissionsExt;
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&socket), mode(socket.parent().unwrap())), (0o644, 0o755));
}

#[test]
fn its_exit_code_is_the_programs_and_a_program_that_is_not_there_is_1() {
    let run = |arguments: &[&str]| activate(arguments).output().unwrap();
    let name = format!("@rouse-activate-{}", std::process::id());
    let output = run(&["--now", "-l", &name, "sh", "-c", "exit 42"]);
    assert_eq!(output.status.code(), Some(42));
    let output = run(&["--now", "-l", &name, "/nonexistent"]);
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(said.contains("failed to execute /nonexistent: No such file"), "{said}");
    let output = run(&["sh"]);
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(said.contains("nothing to listen on"), "{said}");
    let output = run(&["-l", "localhost:80", "sh"]);
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(said.contains("`localhost:80`: expected an IP address"), "{said}");
}

#[test]
fn an_address_that_is_taken_is_1_and_named() {
    let (_taken, address) = crate::listen();
    let output = activate(&["-l", &address.to_string(), "sh"]).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(said.contains(&format!("failed to listen on {address}")), "{said}");
}

/// systemd#9983
#[test]
fn streams_and_datagrams_and_fifos_in_one_program() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("report");
    let fifo = directory.path().join("rouse-fifo");
    let address = free_address();
    let specs = [
        format!("stream:{address}"),
        format!("datagram:{address}"),
        format!("fifo:{}", fifo.display()),
        format!("seqpacket:{}", directory.path().join("packet").display()),
    ];
    let arguments: Vec<&str> = specs.iter().flat_map(|spec| ["-l", spec]).collect();
    let mut process = report(&mut activate(&arguments), &file);
    until("it listens", || directory.path().join("packet").exists());
    // A packet is a client as well.
    UdpSocket::bind("127.0.0.1:0").unwrap().send_to(b"x", address).unwrap();
    let lines = read_when_done(&file);
    assert_eq!((&*lines[1], &*lines[2]), ("fds 4", "names none"));
    let kinds = ["socket", "socket", "fifo", "socket"];
    for (fd, kind) in (3..).zip(kinds) {
        assert!(lines.contains(&format!("fd {fd} {kind} blocking")), "{lines:#?}");
    }
    process.wait();
}

#[test]
fn inherited_sockets_come_first_and_nothing_else_is_handed_on() {
    let directory = tempfile::tempdir().unwrap();
    let (file, own) = (directory.path().join("report"), directory.path().join("own"));
    let inherited = UnixListener::bind(directory.path().join("inherited")).unwrap();
    // Non-blocking there, blocking here.
    inherited.set_nonblocking(true).unwrap();
    let mut command = spawn::activator(&[("ignored", inherited.as_fd())]);
    command.args(["activate", "--fdname=one", "-l", own.to_str().unwrap()]);
    command.args(["--", "sh", "-c", REPORT]).arg(&file);
    let mut process = Process::start(&mut command);
    let _client = UnixStream::connect(directory.path().join("inherited")).unwrap();
    let lines = read_when_done(&file);
    process.wait();
    assert_eq!(lines[..3], ["pid own", "fds 2", "names one:one"]);
    assert_eq!(lines[6..8], ["fd 3 socket blocking", "fd 4 socket blocking"]);
    assert!(lines[8].starts_with("variable"), "{lines:#?}");
}

#[test]
fn inetd_is_the_listener_on_stdin_and_stdout() {
    let directory = tempfile::tempdir().unwrap();
    let (file, socket) = (directory.path().join("report"), directory.path().join("socket"));
    let mut process = report(&mut activate(&["--inetd", "-l", socket.to_str().unwrap()]), &file);
    let _client = connect_soon_unix(&socket);
    let lines = read_when_done(&file);
    process.wait();
    let expected = ["pid ", "fds none", "names none", "remote none"];
    assert_eq!(lines[..4], expected);
    assert_eq!(lines[4], "fd 0 socket blocking");
    assert!(lines[6].starts_with("variable"), "{lines:#?}");
    let output = activate(&["--inetd", "-l", "@a", "-l", "@b", "cat"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn accept_starts_one_for_each_connection() {
    let address = free_address();
    let listen = address.to_string();
    let mut process = Process::start(&mut activate(&["-a", "--inetd", "-l", &listen, "cat"]));
    drop(connect_soon(address));
    let mut clients: Vec<TcpStream> = (0..10).map(|_| connect(address)).collect();
    // All at once, so that they are different processes.
    for (number, client) in clients.iter_mut().enumerate() {
        client.write_all(format!("{number} ").as_bytes()).unwrap();
        let mut answer = [0; 2];
        client.read_exact(&mut answer).unwrap();
        assert_eq!(answer, *format!("{number} ").as_bytes());
    }
    for client in clients {
        assert_eq!(ask(client, "more"), "more");
    }
    process.signal(Signal::TERM);
    assert_eq!(process.wait().code(), Some(0));
}

#[test]
fn accepted_connections_are_fd_3_with_the_peer_in_the_environment() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("report");
    let address = free_address();
    let mut command = activate(&["-a", "--fdname=c", "-l", &address.to_string()]);
    let _process = report(&mut command, &file);
    let _client = connect_soon(address);
    let lines = read_when_done(&file);
    assert_eq!(lines[..4], ["pid own", "fds 1", "names c", "remote 127.0.0.1"]);
    assert_eq!(lines[6], "fd 3 socket blocking");
    assert!(lines.iter().any(|line| line == "variable REMOTE_PORT"), "{lines:#?}");
}

#[test]
fn children_do_not_outlive_it() {
    let address = free_address();
    let mut process = Process::start(&mut activate(&[
        "-a",
        "--inetd",
        "-l",
        &address.to_string(),
        "sh",
        "-c",
        "echo $$; exec cat",
    ]));
    let mut client = connect_soon(address);
    let mut line = [0; 16];
    let length = client.read(&mut line).unwrap();
    assert!(length > 0);
    process.signal(Signal::KILL);
    process.wait();
    // cat was ended by the kernel: the connection is closed without our closing ours.
    assert!(matches!(client.read(&mut line), Ok(0)));
}

#[test]
fn it_says_ready_when_it_listens() {
    let directory = tempfile::tempdir().unwrap();
    let (path, socket) = (directory.path().join("notify"), directory.path().join("socket"));
    let notify = UnixDatagram::bind(&path).unwrap();
    notify.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut command = activate(&["-l", socket.to_str().unwrap(), "/nonexistent"]);
    let mut process = Process::start(command.env("NOTIFY_SOCKET", &path));
    let mut buffer = [0; 100];
    let length = notify.recv(&mut buffer).unwrap();
    assert_eq!(&buffer[..length], b"READY=1");
    let _client = UnixStream::connect(&socket).unwrap();
    let length = notify.recv(&mut buffer).unwrap();
    assert_eq!(&buffer[..length], b"STOPPING=1");
    assert_eq!(process.wait().code(), Some(1));
}

#[test]
fn its_help_and_version_are_data() {
    for (arguments, said) in [
        (&["activate", "--help"][..], "usage: activator activate"),
        (&["relay", "-h"], "usage: activator relay"),
        (&["activate", "--version"], "activator "),
        (&["relay", "--version"], "activator "),
        (&["ctl", "--help"], "usage: activator ctl"),
        (&["run", "--help"], "usage: activator run"),
        (&["--help"], "usage:\n"),
        (&["-h"], "usage:\n"),
    ] {
        let output = Command::new(ACTIVATOR).args(arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(0));
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(text.starts_with(said), "{text}");
        assert!(text.lines().all(|line| line.len() <= 100), "{text}");
    }
}

/// Both tools together: a server that knows nothing, woken by its first client.
#[test]
fn activate_and_relay_make_a_lazy_door() {
    let (back, target) = crate::listen();
    let address = free_address();
    let (listen, target) = (format!("stream:{address}"), target.to_string());
    let mut process = Process::start(&mut activate(&[
        "-l",
        &listen,
        ACTIVATOR,
        "relay",
        "--exit-idle-time=20ms",
        &target,
    ]));
    let client = connect_soon(address);
    let server = std::thread::spawn(move || {
        let mut server = crate::accept(&back);
        let mut text = String::new();
        server.read_to_string(&mut text).unwrap();
        server.write_all(text.as_bytes()).unwrap();
    });
    assert_eq!(ask(client, "knock"), "knock");
    server.join().unwrap();
    assert_eq!(process.wait().code(), Some(0));
}
