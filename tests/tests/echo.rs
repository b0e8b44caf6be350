//! The tutorial's echo appliance in a real VM: asleep, woken over every socket, asleep again.
//!
//! One VM serves all these checks, in order: each says what it needs to be so before.

use rouse_tests::{Appliance, Rouse, Vm, count, feed, foreign, socat};
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The tutorial's lines, as they stand there, with what each answers.
const SIX_LINES: [&str; 6] = [
    "tcp4:127.0.0.1:3000",
    "tcp6:[::1]:3000",
    "udp4:127.0.0.1:3000",
    "udp6:[::1]:3000",
    "unix:$HOME/echo_stream_sock",
    "VSOCK-CONNECT:1:3000",
];

/// How much of it is shown.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Extent {
    /// Everything.
    Whole,
    /// What an architecture could do otherwise: the rest was shown on the other.
    Core,
}

#[test]
fn the_echo_appliance() {
    echo_appliance(&Appliance::guest(), std::env::consts::ARCH, Extent::Whole);
}

/// The same guest on QEMU's smallest board, which only x86_64 has.
#[test]
fn the_echo_appliance_on_a_microvm() {
    if std::env::consts::ARCH != "x86_64" && foreign().is_none() {
        return;
    }
    let whole = count("ROUSE_TEST_MICROVM_WHOLE", 0) > 0;
    let extent = if whole { Extent::Whole } else { Extent::Core };
    echo_appliance(&Appliance::guest().on_a_microvm(), "x86_64", extent);
}

#[test]
fn the_echo_appliance_of_the_other_architecture() {
    let Some(architecture) = foreign() else { return };
    let whole = count("ROUSE_TEST_FOREIGN_WHOLE", 0) > 0;
    let extent = if whole { Extent::Whole } else { Extent::Core };
    echo_appliance(&Appliance::guest(), architecture, extent);
}

fn echo_appliance(appliance: &Appliance, architecture: &str, extent: Extent) {
    let sockets = tempfile::Builder::new().prefix("pub").tempdir_in("/tmp").unwrap();
    let published = sockets.path().join("echo.sock");
    let publish = format!("{}=3000", published.display());
    let more = ["--arch", architecture, "--publish", &publish, "--publish", "127.0.0.1:0=3000"];
    let vm = Vm::start(appliance, "guest", &more);
    println!("{}", vm.announced);
    assert_eq!(vm.shell("busybox uname -m").trim(), architecture);

    announcement_names_every_listener(&vm, &published);
    asleep_until_the_first_line(&vm);
    six_lines_answer(&vm);
    one_container(&vm);
    isolated(&vm);
    fds_by_the_protocol(&vm);
    if extent == Extent::Whole {
        hello_a_thousand_times(&vm, &published);
        side_by_side(&published);
        much_data_both_ways(&published);
        a_slow_reader_stalls_nobody(&vm, &published);
        resets_harm_nobody(&published);
    }
    it_sleeps_again_and_wakes_again(&vm);
    a_client_of_a_dying_server_is_served_by_the_next(&vm);
    if extent == Extent::Whole {
        a_killed_container_leaves_nothing(&vm);
        units_can_be_started_stopped_and_restarted(&vm);
        logs_are_kept_and_followed(&vm);
    }
    a_users_units_are_the_users(&vm, appliance);
    nobody_gets_in_without_the_token(&vm);
    it_takes_its_units_anew_without_a_boot(&vm, appliance, &published);
    chores(&vm);

    assert_eq!(vm.poweroff(), 0, "rouse run ends with the guest");
}

fn announcement_names_every_listener(vm: &Vm, published: &Path) {
    let expected = [" connect guest 3000", &format!("UNIX-CONNECT:{}", published.display())];
    for text in expected {
        assert!(vm.announced.contains(text), "{text} in {}", vm.announced);
    }
    for listener in ["127.0.0.1:3000", "[::1]:3000", "/root/echo_stream_sock"] {
        assert!(vm.announced.contains(listener), "{listener} in {}", vm.announced);
    }
}

fn asleep_until_the_first_line(vm: &Vm) {
    assert_eq!(containers(vm), Vec::<String>::new());
    assert_eq!(vm.service("echo.service").starts, 0);
    assert_eq!(vm.service("echo.service").state, "dead");
}

/// crun's own list of containers.
fn containers(vm: &Vm) -> Vec<String> {
    let list = vm.shell("crun --root /run/crun list -q");
    list.lines().map(str::to_owned).collect()
}

fn six_lines_answer(vm: &Vm) {
    // Side by side: -t 30 holds the UDP ones for their 30 seconds.
    let mut script = "export HOME=/root; cd /tmp\n".to_owned();
    for (index, address) in SIX_LINES.iter().enumerate() {
        script += &format!("(echo hello | socat -t 30 - {address} >out.{index} 2>&1) &\n");
    }
    script += "wait\nfor n in 0 1 2 3 4 5; do echo \"$n $(cat out.$n)\"; done";
    let answers = vm.shell(&script);
    let expected: String = (0..6).map(|index| format!("{index} hello\n")).collect();
    assert_eq!(answers, expected);
}

fn one_container(vm: &Vm) {
    assert_eq!(containers(vm), ["systemd-echo"]);
    let echo = vm.service("echo.service");
    assert_eq!((echo.state.as_str(), echo.starts), ("running", 1));
}

/// The pid, in the guest, of the echo server in its container.
const SERVER: &str = "pid=$(busybox pidof echo-server)";

fn isolated(vm: &Vm) {
    // On the read-only root crun needs no copy of itself: a start loads it once, not three times.
    let crun = vm.service("echo.service").main_pid.unwrap();
    assert_eq!(vm.shell(&format!("busybox readlink /proc/{crun}/exe")), "/usr/bin/crun\n");
    for kind in ["mnt", "pid", "ipc", "uts", "net", "cgroup"] {
        let same = format!(
            "{SERVER}; test $(readlink /proc/$pid/ns/{kind}) = $(readlink /proc/1/ns/{kind}) \
             && echo shared || echo own"
        );
        assert_eq!(vm.shell(&same), "own\n", "namespace {kind}");
    }
    // The only process of its pid namespace.
    assert_eq!(vm.shell(&format!("{SERVER}; grep ^NSpid: /proc/$pid/status | cut -f3")), "1\n");
    // Podman's eleven capabilities: chown dac_override fowner fsetid kill net_bind_service setfcap
    // setgid setpcap setuid sys_chroot.
    let capabilities = vm.shell(&format!("{SERVER}; grep ^CapEff: /proc/$pid/status | cut -f2"));
    assert_eq!(u64::from_str_radix(capabilities.trim(), 16).unwrap(), 0x8004_05fb);
    let seccomp = vm.shell(&format!("{SERVER}; grep ^Seccomp: /proc/$pid/status | cut -f2"));
    assert_eq!(seccomp, "2\n", "a seccomp filter");
    // The image is read-only below a layer of the container's own, as Podman's default is;
    // /proc/kcore and its kin are masked, only lo is there.
    let mounts = vm.shell(&format!("{SERVER}; cat /proc/$pid/mountinfo"));
    let root = mounts.lines().find(|line| line.split(' ').nth(4) == Some("/")).unwrap_or_default();
    assert!(root.contains(" - overlay ") && root.contains(",upperdir=/run/rouse/"), "{mounts}");
    let options = |point: &str| {
        let line = mounts.lines().find(|line| line.split(' ').nth(4) == Some(point));
        line.and_then(|line| line.split(' ').nth(5)).unwrap_or_default().to_owned()
    };
    assert!(options("/sys").starts_with("ro"), "{mounts}");
    assert!(options("/proc/sys").starts_with("ro"), "{mounts}");
    for masked in ["/proc/kcore", "/proc/keys", "/sys/firmware"] {
        assert!(!options(masked).is_empty(), "{masked} in {mounts}");
    }
    let network = vm.shell(&format!("{SERVER}; tail -n +3 /proc/$pid/net/dev | cut -d: -f1"));
    assert_eq!(network.trim(), "lo");
    let limit = vm.shell("cat /sys/fs/cgroup/rouse/echo.service/payload/pids.max");
    assert_eq!(limit, "2048\n");
}

fn fds_by_the_protocol(vm: &Vm) {
    let environment = vm.shell(&format!("{SERVER}; tr '\\0' '\\n' </proc/$pid/environ"));
    let value = |name: &str| {
        let line = environment.lines().find_map(|line| line.strip_prefix(&format!("{name}=")));
        line.unwrap_or_else(|| panic!("no {name} in {environment}")).to_owned()
    };
    assert_eq!(value("LISTEN_FDS"), "6");
    assert_eq!(value("LISTEN_PID"), "1");
    assert_eq!(value("LISTEN_FDNAMES"), ["echo.socket"; 6].join(":"));
    assert_eq!(value("container"), "podman");
    // 3 to 8 are sockets, in the order of the Listen lines, and nothing else came along.
    let fds = vm.shell(&format!("{SERVER}; ls -l /proc/$pid/fd | grep -c 'socket:'"));
    assert!(fds.trim().parse::<u32>().unwrap() >= 6, "{fds}");
}

fn hello_a_thousand_times(vm: &Vm, published: &Path) {
    let hellos = count("ROUSE_TEST_HELLOS", 100);
    let answers = |mut one: Box<dyn FnMut() -> String>| {
        (0..hellos).filter(|_| one() == "hello\n").count() as u64
    };
    let rouse = vm.rouse.clone();
    let connect = move || rouse.run_with(["connect", "guest", "3000"], b"hello\n").text();
    assert_eq!(answers(Box::new(connect)), hellos, "through rouse connect");
    let address = format!("UNIX-CONNECT:{}", published.display());
    let line = move || feed(socat().args(["-t", "30", "-", &address]), b"hello\n").text();
    assert_eq!(answers(Box::new(line)), hellos, "through socat");
    let published = published.to_owned();
    let plain = move || String::from_utf8(exchange(&published, b"hello\n")).unwrap();
    assert_eq!(answers(Box::new(plain)), hellos, "through a plain socket");
}

/// Sends, shuts down the write side at once, reads to the end.
fn exchange(path: &Path, input: &[u8]) -> Vec<u8> {
    let mut stream = UnixStream::connect(path).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(120))).unwrap();
    stream.write_all(input).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    answer
}

fn side_by_side(published: &Path) {
    let connections = count("ROUSE_TEST_CONNECTIONS", 1000);
    let mut streams: Vec<UnixStream> = Vec::new();
    for index in 0..connections {
        let mut stream = UnixStream::connect(published).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(300))).unwrap();
        writeln!(stream, "hello {index}").unwrap();
        streams.push(stream);
    }
    for (index, mut stream) in streams.into_iter().enumerate() {
        stream.shutdown(Shutdown::Write).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert_eq!(answer, format!("hello {index}\n"));
    }
}

/// Bytes that differ at every place: a lost, doubled or moved block is seen.
fn pattern(from: u64, block: &mut [u8]) {
    for (index, word) in block.chunks_exact_mut(8).enumerate() {
        let place = from + 8 * index as u64;
        word.copy_from_slice(&place.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes());
    }
}

fn much_data_both_ways(published: &Path) {
    let bytes = count("ROUSE_TEST_BYTES", 64 << 20);
    const BLOCK: usize = 1 << 16;
    let blocks = bytes.div_ceil(BLOCK as u64);
    let stream = UnixStream::connect(published).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(120))).unwrap();
    let mut sender = stream.try_clone().unwrap();
    let writer = std::thread::spawn(move || {
        let mut block = vec![0; BLOCK];
        for number in 0..blocks {
            pattern(number * BLOCK as u64, &mut block);
            sender.write_all(&block).unwrap();
        }
        sender.shutdown(Shutdown::Write).unwrap();
    });
    let (mut block, mut expected) = (vec![0; BLOCK], vec![0; BLOCK]);
    for number in 0..blocks {
        (&stream).read_exact(&mut block).unwrap();
        pattern(number * BLOCK as u64, &mut expected);
        assert!(block == expected, "a wrong byte in block {number}");
    }
    assert_eq!((&stream).read(&mut block).unwrap(), 0, "the end after the last byte");
    writer.join().unwrap();
}

fn a_slow_reader_stalls_nobody(vm: &Vm, published: &Path) {
    // It fills every buffer on the way, then does not read.
    let mut slow = UnixStream::connect(published).unwrap();
    slow.set_write_timeout(Some(Duration::from_secs(2))).unwrap();
    let block = [7; 1 << 16];
    let mut sent = 0;
    while let Ok(written) = slow.write(&block) {
        sent += written;
        assert!(sent < 1 << 30, "nothing holds a sender back");
    }
    assert_eq!(vm.send(3000, b"hello\n").text(), "hello\n");
    slow.set_read_timeout(Some(Duration::from_secs(120))).unwrap();
    slow.shutdown(Shutdown::Write).unwrap();
    let mut answer = Vec::new();
    slow.read_to_end(&mut answer).unwrap();
    assert_eq!(answer.len(), sent);
    assert!(answer.iter().all(|byte| *byte == 7));
}

fn resets_harm_nobody(published: &Path) {
    for _ in 0..50 {
        let mut stream = UnixStream::connect(published).unwrap();
        stream.write_all(&[1; 4096]).unwrap();
        // Dropped with answers unread.
    }
    assert_eq!(exchange(published, b"hello\n"), b"hello\n");
}

fn it_sleeps_again_and_wakes_again(vm: &Vm) {
    let before = vm.service("echo.service").starts;
    vm.shell(&format!("{SERVER}; kill $pid"));
    vm.wait_until("the server is gone", |vm| vm.service("echo.service").state == "dead");
    assert_eq!(containers(vm), Vec::<String>::new());
    assert_eq!(vm.send(3000, b"again\n").text(), "again\n");
    assert_eq!(vm.service("echo.service").starts, before + 1);
}

fn a_client_of_a_dying_server_is_served_by_the_next(vm: &Vm) {
    let before = vm.service("echo.service").starts;
    // Stopped, it accepts nobody; the client waits in the backlog while the server dies.
    let script = format!(
        "{SERVER}; kill -STOP $pid; (echo hello | socat -t 30 - tcp4:127.0.0.1:3000 >/tmp/late) &\n\
         sleep 1; kill -KILL $pid; wait; cat /tmp/late"
    );
    assert_eq!(vm.shell(&script), "hello\n");
    assert_eq!(vm.service("echo.service").starts, before + 1);
}

fn a_killed_container_leaves_nothing(vm: &Vm) {
    // crun itself is killed: the container and crun's state of it must not stand in the way.
    let pid = vm.service("echo.service").main_pid.unwrap();
    vm.shell(&format!("kill -KILL {pid}"));
    // Until its end is seen the server in the container lives, and may take a client along.
    vm.wait_until("crun is gone", |vm| vm.service("echo.service").main_pid != Some(pid));
    assert_eq!(vm.send(3000, b"hello\n").text(), "hello\n");
    assert_eq!(vm.shell("busybox pidof echo-server | wc -w").trim(), "1");
}

fn units_can_be_started_stopped_and_restarted(vm: &Vm) {
    vm.tell("stop", "echo.service");
    assert_eq!(vm.service("echo.service").state, "dead");
    vm.tell("start", "echo.service");
    let first = vm.service("echo.service");
    assert_eq!(first.state, "running");
    vm.tell("restart", "echo.service");
    let second = vm.service("echo.service");
    assert_eq!((second.state.as_str(), second.starts), ("running", first.starts + 1));
    assert_ne!(second.main_pid, first.main_pid);
    assert_eq!(vm.send(3000, b"hello\n").text(), "hello\n");
    let output = vm.rouse.run(["start", "guest", "nothing.service"]);
    assert_eq!(output.code, 1);
    assert!(output.stderr.contains("there is no unit nothing.service"), "{}", output.stderr);
    // A stopped socket refuses; started again, it listens.
    vm.tell("stop", "echo.socket");
    assert_eq!(
        vm.shell("echo hello | socat - tcp4:127.0.0.1:3000 >/dev/null || echo refused")
            .lines()
            .last(),
        Some("refused")
    );
    vm.tell("start", "echo.socket");
    assert_eq!(vm.send(3000, b"hello\n").text(), "hello\n");
}

fn logs_are_kept_and_followed(vm: &Vm) {
    let text = vm.rouse.run(["logs", "guest", "echo.service"]).success().text();
    assert!(text.contains("echo.service"), "{text}");
    let mut follower = vm
        .rouse
        .command(["logs", "guest", "-f"])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines =
        std::io::BufRead::lines(std::io::BufReader::new(follower.stdout.take().unwrap()));
    vm.tell("restart", "echo.service");
    let seen = lines.find(|line| {
        line.as_ref().is_ok_and(|line| line.contains("echo.service") && line.contains("started"))
    });
    assert!(seen.is_some());
    follower.kill().unwrap();
    follower.wait().unwrap();
}

/// The tutorial's files again, as units of a user of the appliance, on other ports.
fn a_users_units_are_the_users(vm: &Vm, appliance: &Appliance) {
    let before = vm.service("echo.service").starts;
    let node = "/home/ann/echo_stream_sock";
    let owner = |path: &str| vm.shell(&format!("busybox stat -c '%u:%g %a' {path}"));
    assert_eq!(owner(node), "1000:1000 666\n");
    assert_eq!(owner("/run/user/1000"), "1000:1000 700\n");
    assert_eq!(owner("/home/ann"), "1000:1000 700\n");

    let hello = format!("echo hello | socat -t 30 - unix:{node}");
    assert_eq!(vm.shell(&hello), "hello\n");
    assert_eq!(vm.send(3001, b"hello\n").text(), "hello\n");
    assert_eq!(vm.service("echo.service").starts, before, "the system's was not woken");
    let theirs = vm
        .status()
        .services
        .into_iter()
        .find(|it| it.user.as_deref() == Some("ann") && it.name == "echo.service");
    assert_eq!(theirs.map(|it| (it.starts, it.state)), Some((1, "running".into())));

    // Root in the container is the user outside.
    let procs = "/sys/fs/cgroup/rouse/user-1000/echo.service/payload/cgroup.procs";
    let seen = vm.shell(&format!(
        "pid=$(busybox head -n 1 {procs}); busybox stat -c %u:%g /proc/$pid; \
         busybox awk '{{print $1, $2, $3}}' /proc/$pid/uid_map"
    ));
    assert_eq!(seen, "1000:1000\n0 1000 1\n1 100000 65536\n");

    vm.rouse.run(["start", &vm.name, "who.service", "--user"]).success();
    let logs = vm.rouse.run(["logs", &vm.name, "who.service", "--user", "ann"]).success().text();
    for text in ["uid=1000(ann) gid=1000(ann)", "home /home/ann runtime /run/user/1000 ann"] {
        assert!(logs.contains(text), "{text} in {logs}");
    }
    assert!(logs.contains("ann/who.service"), "{logs}");

    vm.rouse.run(["stop", &vm.name, "echo.service", "--user", "ann"]).success();
    let status = vm.rouse.run(["status", &vm.name, "--user"]).success().text();
    assert!(status.contains("user ann") && !status.contains("shell.socket"), "{status}");
    let refused = vm.rouse.run(["stop", &vm.name, "echo.service", "--user", "bob"]);
    assert_eq!(refused.code, 1, "{}", refused.stderr);
    assert!(refused.stderr.contains("no user bob"), "{}", refused.stderr);

    let folder = appliance.path().to_str().unwrap();
    let cat = vm.rouse.run(["cat", folder, "echo.service", "--user"]).success().text();
    assert!(cat.contains("users/ann/echo.container"), "{cat}");
}

fn nobody_gets_in_without_the_token(vm: &Vm) {
    use activator::control::{self, Failure, Hello, Reply, Request};
    let folder = vm.rouse.runtime().join("guest");
    let token = folder.join("token");
    let mode = std::os::unix::fs::PermissionsExt::mode(&token.metadata().unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
    let mut stream = UnixStream::connect(folder.join("vsock.sock")).unwrap();
    writeln!(stream, "CONNECT {}", control::PORT).unwrap();
    let mut answer = [0];
    while answer != *b"\n" {
        stream.read_exact(&mut answer).unwrap();
    }
    let hello = Hello { version: control::VERSION, token: "0".repeat(64) };
    control::write_frame(&stream, &hello).unwrap();
    control::write_frame(&stream, &Request::Poweroff).unwrap();
    let reply: Reply = control::read_frame(&stream).unwrap();
    assert_eq!(reply, Reply::Failed(Failure::Denied));
}

/// `rouse reload`: the same PID 1, a new socket, and the container that runs is left alone; what
/// the image lacks is refused.
fn it_takes_its_units_anew_without_a_boot(vm: &Vm, appliance: &Appliance, published: &Path) {
    let folder = appliance.path();
    let write = |name: &str, text: &str| std::fs::write(folder.join(name), text).unwrap();
    let remove = |name: &str| std::fs::remove_file(folder.join(name)).unwrap();
    let reload = |more: &[&str]| {
        let words = ["reload", "guest", folder.to_str().unwrap()];
        vm.rouse.run(words.into_iter().chain(more.iter().copied()))
    };
    assert_eq!(vm.send(3000, b"hello\n").text(), "hello\n");
    let before = (vm.service("echo.service"), vm.status());
    write("cat@.service", "[Service]\nExecStart=/bin/busybox cat\nStandardInput=socket\n");
    write(
        "cat.socket",
        "[Socket]\nListenStream=vsock::3002\nAccept=yes\n\n[Install]\nWantedBy=sockets.target\n",
    );
    reload(&[]).success();
    let after = (vm.service("echo.service"), vm.status());
    assert_eq!(after.0.main_pid, before.0.main_pid);
    assert_eq!(after.0.starts, before.0.starts);
    assert_eq!(after.1.started_us, before.1.started_us);
    assert_eq!(vm.send(3002, b"meow\n").text(), "meow\n");
    assert_eq!(vm.send(3000, b"hello\n").text(), "hello\n");
    // A program that is not in the image, and a container that has become another.
    let refused = |lacks: &str| {
        let output = reload(&[]);
        assert_ne!(output.code, 0);
        assert!(output.stderr.contains(lacks), "{}", output.stderr);
    };
    write("x.service", "[Service]\nExecStart=/usr/bin/nothing\n");
    refused("/usr/bin/nothing");
    remove("x.service");
    let quadlet = std::fs::read_to_string(folder.join("echo.container")).unwrap();
    write("echo.container", &quadlet.replace("Network=none", "Network=none\nEnvironment=A=b"));
    refused("config.json");
    write("echo.container", &quadlet);
    assert_eq!(vm.send(3002, b"meow\n").text(), "meow\n");
    // While clients come, and with the activator as well.
    for name in ["cat@.service", "cat.socket"] {
        remove(name);
    }
    std::thread::scope(|scope| {
        let clients = scope.spawn(|| {
            (0..50).for_each(|_| assert_eq!(exchange(published, b"hello\n"), b"hello\n"));
        });
        for more in [&["--activator"][..], &[]] {
            reload(more).success();
        }
        clients.join().unwrap();
    });
    assert_eq!(vm.service("echo.service").main_pid, before.0.main_pid);
    assert!(vm.shell("busybox readlink /proc/1/exe").contains("memfd"));
    assert!(!vm.status().sockets.iter().any(|socket| socket.name == "cat.socket"));
}

fn chores(vm: &Vm) {
    let mounts = vm.shell("cat /proc/mounts");
    let kinds = [
        ("/proc", "proc"),
        ("/sys", "sysfs"),
        ("/dev", "devtmpfs"),
        ("/dev/pts", "devpts"),
        ("/dev/shm", "tmpfs"),
        ("/run", "tmpfs"),
        ("/tmp", "tmpfs"),
        ("/sys/fs/cgroup", "cgroup2"),
    ];
    for (point, kind) in kinds {
        let found = mounts.lines().any(|line| {
            let mut words = line.split(' ').skip(1);
            words.next() == Some(point) && words.next() == Some(kind)
        });
        assert!(found, "{kind} on {point} in {mounts}");
    }
    assert!(vm.shell("touch /usr/x").contains("Read-only file system"));
    assert_eq!(vm.shell("cat /proc/sys/kernel/hostname"), "guest\n");
    assert_eq!(vm.shell("cat /sys/class/net/lo/operstate").trim(), "unknown", "lo is up");
    // An orphan is reaped by PID 1.
    vm.shell("(sleep 0.2 & ) ; sleep 1");
    assert_eq!(vm.shell("ps() { busybox ps -o stat; }; ps | grep -c ^Z").trim(), "0");
    // Modules: the closure of what is needed, no more.
    let modules = vm.shell("cut -d' ' -f1 /proc/modules");
    assert!(modules.contains("vsock_loopback") && modules.lines().count() < 12, "{modules}");
}

/// The tutorial's echo.container with its `[Install]`: up at boot, with its sockets.
#[test]
fn the_whole_tutorial_file_starts_at_boot() {
    whole_tutorial_file(std::env::consts::ARCH);
}

fn whole_tutorial_file(architecture: &str) {
    let whole = "\n[Install]\nWantedBy=default.target\n";
    let file = std::fs::read_to_string(Appliance::repository().join("configs/echo/echo.container"));
    let appliance = Appliance::guest().with("echo.container", &(file.unwrap() + whole));
    let vm = Vm::start(&appliance, "whole", &["--arch", architecture]);
    // The service is up when crun was executed; the server in the container comes after that.
    vm.wait_until("the server is up", |vm| !vm.shell("busybox pidof echo-server").is_empty());
    assert_eq!(vm.service("echo.service").state, "running");
    assert_eq!(vm.service("echo.service").starts, 1);
    fds_by_the_protocol(&vm);
    assert_eq!(vm.send(3000, b"hello\n").text(), "hello\n");
    assert_eq!(vm.service("echo.service").starts, 1, "the same container answered");
}

/// A second VM reaches the first by real AF_VSOCK, through the device's sibling routing.
#[test]
fn a_sibling_says_hello() {
    sibling(std::env::consts::ARCH);
}

/// The server's architecture; the client is of this machine's.
fn sibling(architecture: &str) {
    let appliance = Appliance::guest()
        .with(
            "who@.service",
            "[Service]\nExecStart=/bin/busybox sh -c 'echo $REMOTE_ADDR; exec busybox cat'\n\
             StandardInput=socket\nStandardError=journal\n",
        )
        .with(
            "who.socket",
            "[Socket]\nListenStream=vsock::3010\nAccept=yes\nMaxConnectionsPerSource=1\n\n\
             [Install]\nWantedBy=sockets.target\n",
        );
    let first = Vm::start(&appliance, "first", &["--cid", "41", "--arch", architecture]);
    let second = Vm::start_in(first.rouse.clone(), &appliance, "second", &["--cid", "42"]);
    let hellos = count("ROUSE_TEST_SIBLING_HELLOS", 20);
    let script = format!(
        "for n in $(busybox seq {hellos}); do echo hello | socat -t 30 - VSOCK-CONNECT:41:3000; done"
    );
    assert_eq!(second.shell(&script), "hello\n".repeat(hellos as usize));
    // The first sees who came: its own status has one start, the second's none.
    assert_eq!(first.service("echo.service").starts, 1);
    assert_eq!(second.service("echo.service").starts, 0);
    // By its CID, of which one connection is taken at a time; the host's is another.
    let script = "socat -u VSOCK-CONNECT:41:3010 - >/tmp/held 2>/dev/null & held=$!\n\
        until test -s /tmp/held; do sleep 0.2; done; cat /tmp/held\n\
        echo more | socat -t 30 - VSOCK-CONNECT:41:3010 2>/dev/null\n\
        kill $held\n\
        until echo again | socat -t 30 - VSOCK-CONNECT:41:3010 2>/dev/null | grep .; do sleep 0.2; done";
    assert_eq!(second.shell(script), "vsock:42\nvsock:42\nagain\n");
    assert_eq!(first.send(3010, b"host\n").text(), "vsock:2\nhost\n");
    // A busy CID is refused.
    let folder: PathBuf = appliance.path().into();
    let mut command = first.rouse.command(["run", "--detach", "--name", "third", "--cid", "41"]);
    let output = feed(command.arg(folder), b"");
    assert_eq!(output.code, 75, "{}", output.stderr);
    assert!(output.stderr.contains("41"), "{}", output.stderr);
}

/// The rest of what is shown of this machine's architecture, on the other.
#[test]
fn more_of_the_other_architecture() {
    let Some(architecture) = foreign() else { return };
    if count("ROUSE_TEST_FOREIGN_WHOLE", 0) == 0 {
        rouse_tests::skipped("only with ROUSE_TEST_FOREIGN_WHOLE=1, as .ci/full sets it");
        return;
    }
    whole_tutorial_file(architecture);
    sibling(architecture);
    boots(architecture, count("ROUSE_TEST_FOREIGN_BOOTS", 3));
}

/// Where the host's kernel carries vsock: the tutorial's line, as it is announced, from the host.
#[test]
fn the_hosts_own_vsock_reaches_the_guest() {
    if !rouse_qemu::vhost::is_usable() {
        rouse_tests::skipped("vsock of the host's kernel: /dev/vhost-vsock cannot be opened");
        return;
    }
    let folder = tempfile::Builder::new().prefix("pub").tempdir_in("/tmp").unwrap();
    let published = folder.path().join("echo.sock");
    let publish = format!("{}=3000", published.display());
    let rouse = std::sync::Arc::new(Rouse::with_vhost());
    let vm = Vm::start_in(rouse, &Appliance::of_config("echo"), "kernel", &["--publish", &publish]);
    let mut words = vm.announced.split_whitespace();
    let address = words.find(|word| word.starts_with("VSOCK-CONNECT:")).expect(&vm.announced);
    for _ in 0..count("ROUSE_TEST_HELLOS", 20) {
        let answer = feed(socat().args(["-t", "30", "-", address]), b"hello\n").success();
        assert_eq!(answer.text(), "hello\n");
        assert_eq!(exchange(&published, b"hello\n"), b"hello\n");
        assert_eq!(vm.send(3000, b"hello\n").text(), "hello\n");
    }
    assert_eq!(vm.poweroff(), 0);
}

/// A VM that outlives who started it is listed, reached by its name, and switched off.
#[test]
fn a_detached_vm_is_listed_until_it_is_switched_off() {
    /// It would outlive the test as well.
    struct Detached(Rouse);
    impl Drop for Detached {
        fn drop(&mut self) {
            self.0.run(["poweroff", "alone"]);
        }
    }
    let rouse = Detached(Rouse::new());
    let appliance = Appliance::of_config("echo");
    let mut command = rouse.0.command(["run", "--detach", "--name", "alone"]);
    let announced = feed(command.arg(appliance.path()), b"").success().text();
    assert!(announced.contains("connect alone 3000"), "{announced}");
    let listed = rouse.0.run(["list"]).success().text();
    let words: Vec<&str> = listed.split_whitespace().collect();
    assert_eq!((words[0], words[1], words[2]), ("alone", "ready", "CID"), "{listed}");
    let hello = rouse.0.run_with(["connect", "alone", "3000"], b"hello\n").success();
    assert_eq!(hello.text(), "hello\n");
    rouse.0.run(["poweroff", "alone"]).success();
    assert_eq!(rouse.0.run(["list", "--json"]).success().text().trim(), "[]");
}

/// Boots in a row, none lost: TCG guests are stable.
#[test]
fn boots_in_a_row() {
    boots(std::env::consts::ARCH, count("ROUSE_TEST_BOOTS", 3));
}

fn boots(architecture: &str, boots: u64) {
    let appliance = Appliance::of_config("echo");
    for boot in 0..boots {
        let vm = Vm::start(&appliance, "boots", &["--arch", architecture]);
        assert_eq!(vm.send(3000, b"hello\n").text(), "hello\n", "boot {boot}");
        assert_eq!(vm.poweroff(), 0, "boot {boot}");
    }
}
