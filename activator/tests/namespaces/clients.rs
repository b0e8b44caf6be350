//! Services in other languages, by other people's libraries or by the protocol alone: all see the
//! same fds under the same names, and all are heard when they say that they are ready.
//!
//! Go is among the real daemons (`tests/daemons`): Prometheus' node exporter and Podman take their
//! sockets by coreos/go-systemd.

use crate::Test;
use crate::bench::{self, Bench, ask_tcp};
use crate::build::{Units, listener, service, socket, tcp, udp, unix};
use activator::manifest::{Address, ListenKind, NotifyAccess, ServiceKind};
use rustix::fd::{FromRawFd, OwnedFd};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketType, sockopt};
use sd_notify::NotifyState;
use std::io::Write;
use std::net::TcpListener;
use std::path::Path;
use std::process::ExitCode;

pub(crate) const TESTS: &[Test] = &[
    ("clients::libsystemd_in_c_finds_its_fds_and_is_heard", in_c),
    ("clients::sd_notify_in_rust_finds_its_fds_and_is_heard", in_rust),
    ("clients::python_finds_its_fds_and_is_heard", in_python),
    ("clients::perl_finds_its_fds_and_is_heard", in_perl),
];

fn in_c(bench: &mut Bench) {
    let library = ["/usr/lib", "/lib", "/usr/lib64"].iter().find_map(|folder| {
        let folders = std::fs::read_dir(folder).ok()?.flatten().map(|entry| entry.path());
        let all = folders.chain([Path::new(folder).to_owned()]);
        all.map(|folder| folder.join("libsystemd.so.0")).find(|path| path.exists())
    });
    let Some(library) = library else {
        println!("SKIPPED: this machine has no libsystemd.so.0");
        return;
    };
    let (source, program) = (bench.path().join("client.c"), bench.path().join("client"));
    std::fs::write(&source, include_str!("clients/client.c")).unwrap();
    let mut cc = std::process::Command::new("cc");
    let output = match cc.arg("-o").arg(&program).arg(&source).arg(&library).output() {
        Ok(output) => output,
        Err(error) => {
            println!("SKIPPED: this machine has no C compiler, cc: {error}");
            return;
        }
    };
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serves(bench, "C", program.to_str().unwrap(), &[]);
}

fn in_rust(bench: &mut Bench) {
    let own = std::env::current_exe().unwrap();
    serves(bench, "Rust", own.to_str().unwrap(), &["helper", "sd-notify"]);
}

fn in_python(bench: &mut Bench) {
    script(bench, "Python", "/usr/bin/python3", include_str!("clients/client.py"));
}

fn in_perl(bench: &mut Bench) {
    script(bench, "Perl", "/usr/bin/perl", include_str!("clients/client.pl"));
}

fn script(bench: &mut Bench, name: &str, interpreter: &str, text: &str) {
    if !Path::new(interpreter).exists() {
        println!("SKIPPED: this machine has no {interpreter}");
        return;
    }
    let path = bench.path().join("script");
    std::fs::write(&path, text).unwrap();
    serves(bench, name, interpreter, &[path.to_str().unwrap()]);
}

/// The service of [`in_rust`].
pub(crate) fn by_sd_notify() -> ExitCode {
    let mut report = std::fs::File::options()
        .append(true)
        .create(true)
        .open(std::env::var("REPORT").unwrap())
        .unwrap();
    for (number, name) in sd_notify::listen_fds_with_names().unwrap() {
        let fd = own(number);
        let kind = match (sockopt::socket_domain(&fd), sockopt::socket_type(&fd)) {
            (Ok(AddressFamily::INET), Ok(SocketType::STREAM)) => "tcp",
            (Ok(AddressFamily::INET), Ok(SocketType::DGRAM)) => "udp",
            (Ok(AddressFamily::UNIX), Ok(SocketType::STREAM)) => "unix",
            (Err(Errno::NOTSOCK), _) => "fifo",
            other => panic!("{other:?}"),
        };
        writeln!(report, "fd {number} {name} {kind}").unwrap();
        // Kept for the end of the process.
        std::mem::forget(fd);
    }
    sd_notify::notify(&[NotifyState::Status("from Rust"), NotifyState::Ready]).unwrap();
    let (mut client, _) = TcpListener::from(own(3)).accept().unwrap();
    client.write_all(b"Rust").unwrap();
    ExitCode::SUCCESS
}

#[allow(unsafe_code)]
fn own(number: i32) -> OwnedFd {
    // SAFETY: the fds of the protocol are this process's, and each is owned by one at a time.
    unsafe { FromRawFd::from_raw_fd(number) }
}

/// Four fds of two socket units, readiness, one client.
fn serves(bench: &mut Bench, name: &str, program: &str, arguments: &[&str]) {
    let fifo = bench.path().join("fifo").to_str().unwrap().to_owned();
    let mut spec = service(bench.path(), &[]);
    spec.kind = ServiceKind::Notify;
    spec.notify_access = NotifyAccess::Main;
    spec.execution.environment.extend([
        format!("UNIX_PATH={}", bench.path().join("unix").display()),
        format!("FIFO_PATH={fifo}"),
    ]);
    for command in &mut spec.start {
        command.program = program.to_owned();
        command.arguments =
            [program].iter().chain(arguments).map(|text| (*text).to_owned()).collect();
    }
    let fifo = listener(ListenKind::Fifo, Address::Path(fifo));
    let control = socket("control", vec![unix(bench.path(), "unix"), fifo]);
    let units = Units::default()
        .service("a.service", spec)
        .socket("a.socket", "a.service", socket("web", vec![tcp(3000), udp(3000)]))
        .socket("b.socket", "a.service", control);
    bench.start(&units.build());
    assert_eq!(ask_tcp("127.0.0.1:3000", ""), name);
    bench.wait("it has ended well", |status| {
        let service = bench::service(status, "a.service");
        service.state == "dead" && service.last_exit.as_deref() == Some("exited 0")
    });
    let expected = ["fd 3 web tcp", "fd 4 web udp", "fd 5 control unix", "fd 6 control fifo"];
    assert_eq!(bench.report(), expected, "{}", bench.log());
    assert_eq!(bench::service(&bench.status(), "a.service").starts, 1);
    bench.stop();
}
