//! Programs that cannot take a socket, behind relays; and all that is asleep when nobody comes:
//! containers that are activated directly, relayed ones, plain services.
//!
//! One VM serves all these checks, in order.

use rouse_tests::{Appliance, Vm};
use std::io::{Read, Write};
use std::process::Stdio;
use std::time::Duration;

#[test]
fn relays_and_sleepers() {
    let vm = Vm::start(&Appliance::relay(), "relay", &[]);

    nobody_is_up(&vm);
    a_container_without_sockets_answers(&vm);
    it_has_a_network_of_its_own(&vm);
    it_is_stopped_when_idle_and_woken_again(&vm);
    version_1_names_the_client(&vm);
    it_is_frozen_when_idle_and_thawed(&vm);
    a_late_server_at_a_path_is_waited_for(&vm);
    a_killed_container_is_another_for_the_next_client(&vm);
    a_plain_service_answers(&vm);
    a_users_container_answers(&vm);
    each_connection_has_an_instance(&vm);
    an_activated_container_is_frozen_and_thawed(&vm);
    an_activated_container_is_stopped_and_woken(&vm);
    a_silent_connection_keeps_it_awake(&vm);

    assert_eq!(vm.poweroff(), 0);
}

/// State and starts.
fn seen(vm: &Vm, service: &str) -> (String, u64) {
    let service = vm.service(service);
    (service.state, service.starts)
}

fn wait_for(vm: &Vm, service: &str, state: &str) {
    vm.wait_until(&format!("{service} is {state}"), |vm| seen(vm, service).0 == state);
}

/// However it ended: a server that dies of its SIGTERM, or has to be killed, has failed.
fn wait_for_sleep(vm: &Vm, service: &str) {
    let sleeps = |vm: &Vm| ["dead", "failed"].contains(&seen(vm, service).0.as_str());
    vm.wait_until(&format!("{service} sleeps"), sleeps);
}

fn nobody_is_up(vm: &Vm) {
    for service in ["web", "web-relay", "six", "node", "bare", "nap", "echo"] {
        assert_eq!(seen(vm, &format!("{service}.service")), ("dead".into(), 0), "{service}");
    }
    assert_eq!(vm.shell("crun --root /run/crun list -q"), "");
}

fn a_container_without_sockets_answers(vm: &Vm) {
    assert_eq!(vm.send(3020, b"hello\n").text(), "127.0.0.1\nhello\n");
    assert_eq!(seen(vm, "web.service").1, 1);
    let tcp = vm.shell("echo hello | socat -t 30 - tcp4:127.0.0.1:3020");
    assert_eq!(tcp, "127.0.0.1\nhello\n");
    let udp = vm.shell("echo hello | socat -t 5 - udp4:127.0.0.1:3020");
    assert_eq!(udp, "hello\n");
}

/// The pid of a container's server, by its unit's cgroup.
fn pid(place: &str) -> String {
    format!("pid=$(busybox head -n 1 /sys/fs/cgroup/rouse/{place}/payload/cgroup.procs)")
}

fn it_has_a_network_of_its_own(vm: &Vm) {
    // While a client holds it.
    let script = format!(
        "(echo hello; sleep 3) | socat -t 30 - tcp4:127.0.0.1:3020 >/dev/null & sleep 1\n{}\n\
         test $(readlink /proc/$pid/ns/net) = $(readlink /proc/1/ns/net) && echo shared || echo own\n\
         tail -n +3 /proc/$pid/net/dev | cut -d: -f1\n\
         tr '\\0' '\\n' </proc/$pid/environ | grep -c LISTEN_; wait",
        pid("web.service")
    );
    let told: Vec<String> = vm.shell(&script).split_whitespace().map(str::to_owned).collect();
    assert_eq!(told, ["own", "lo", "0"]);
    // Nobody of the guest listens there.
    let refused = vm.shell("echo | socat - tcp4:127.0.0.1:8080 >/dev/null 2>&1 || echo refused");
    assert_eq!(refused, "refused\n");
}

fn it_is_stopped_when_idle_and_woken_again(vm: &Vm) {
    wait_for_sleep(vm, "web.service");
    // crun's own record of one that had to be killed stays until the next start.
    let left = vm.shell("cat /sys/fs/cgroup/rouse/web.service/payload/cgroup.procs 2>/dev/null");
    assert_eq!(left, "");
    let before = seen(vm, "web.service").1;
    assert_eq!(vm.send(3020, b"again\n").text(), "127.0.0.1\nagain\n");
    assert_eq!(seen(vm, "web.service").1, before + 1);
}

fn version_1_names_the_client(vm: &Vm) {
    // Of vsock there is nothing to say that the protocol has words for.
    assert_eq!(vm.send(3021, b"hello\n").text(), "::1\nPROXY UNKNOWN\r\nhello\n");
    let port = "bind=127.0.0.7:5555,reuseaddr";
    let seen = vm.shell(&format!("echo hello | socat -t 30 - tcp4:127.0.0.1:3021,{port}"));
    assert_eq!(seen, "::1\nPROXY TCP4 127.0.0.7 127.0.0.1 5555 3021\r\nhello\n");
}

fn it_is_frozen_when_idle_and_thawed(vm: &Vm) {
    wait_for(vm, "six.service", "frozen");
    let events = "cat /sys/fs/cgroup/rouse/six.service/payload/cgroup.events";
    assert!(vm.shell(events).contains("frozen 1"));
    assert_eq!(vm.send(3021, b"again\n").text(), "::1\nPROXY UNKNOWN\r\nagain\n");
    assert_eq!(seen(vm, "six.service").1, 1, "it went on from where it was");
}

fn a_late_server_at_a_path_is_waited_for(vm: &Vm) {
    let answer = vm.send(3022, b"hello\n").stdout;
    let signature = b"\r\n\r\n\0\r\nQUIT\n";
    let local = [&b"unix\n"[..], signature, b"\x20\0\0\0", b"hello\n"].concat();
    assert_eq!(answer, local);
    let port = "bind=127.0.0.7:5556,reuseaddr";
    let hex = vm.shell(&format!(
        "echo hello | socat -t 30 - tcp4:127.0.0.1:3022,{port} | tail -c 22 | busybox xxd -p"
    ));
    // PROXY, TCP over IPv4, 127.0.0.7 to 127.0.0.1, 5556 to 3022.
    assert_eq!(hex, "2111000c7f0000077f00000115b40bce68656c6c6f0a\n");
}

fn a_killed_container_is_another_for_the_next_client(vm: &Vm) {
    let before = seen(vm, "node.service").1;
    vm.shell(&format!("{}; kill -KILL $pid", pid("node.service")));
    wait_for_sleep(vm, "node-relay.service");
    let answer = vm.send(3022, b"hello\n").stdout;
    assert!(answer.ends_with(b"hello\n"), "{answer:?}");
    assert_eq!(seen(vm, "node.service").1, before + 1);
}

fn a_plain_service_answers(vm: &Vm) {
    assert_eq!(vm.send(3023, b"hello\n").text(), "hello\n");
    wait_for_sleep(vm, "bare.service");
    assert_eq!(vm.send(3023, b"again\n").text(), "again\n");
    // From the guest itself nobody may.
    assert_eq!(vm.shell("echo hello | socat -t 30 - VSOCK-CONNECT:1:3023 2>/dev/null"), "");
}

fn a_users_container_answers(vm: &Vm) {
    assert_eq!(vm.send(3026, b"hello\n").text(), "127.0.0.1\nhello\n");
    let owner = "busybox stat -c %u /proc/$pid";
    assert_eq!(vm.shell(&format!("{}; {owner}", pid("user-1000/web.service"))), "1000\n");
}

fn each_connection_has_an_instance(vm: &Vm) {
    for _ in 0..3 {
        assert_eq!(vm.send(3024, b"hello\n").text(), "hello\n");
    }
    assert_eq!(vm.shell("echo hello | socat -t 30 - VSOCK-CONNECT:1:3024 2>/dev/null"), "");
}

fn an_activated_container_is_frozen_and_thawed(vm: &Vm) {
    assert_eq!(vm.send(3000, b"hello\n").text(), "hello\n");
    wait_for(vm, "echo.service", "frozen");
    let events = "cat /sys/fs/cgroup/rouse/echo.service/payload/cgroup.events";
    assert!(vm.shell(events).contains("frozen 1"));
    assert_eq!(vm.send(3000, b"again\n").text(), "again\n");
    assert_eq!(seen(vm, "echo.service"), ("running".into(), 1));
    wait_for(vm, "echo.service", "frozen");
    // By the guest's own loopback device, too.
    let line = "echo hello | socat -t 30 - VSOCK-CONNECT:1:3000";
    assert_eq!(vm.shell(line), "hello\n");
}

fn an_activated_container_is_stopped_and_woken(vm: &Vm) {
    assert_eq!(vm.send(3025, b"hello\n").text(), "hello\n");
    wait_for_sleep(vm, "nap.service");
    assert_eq!(vm.send(3025, b"again\n").text(), "again\n");
    assert_eq!(seen(vm, "nap.service").1, 2);
}

/// The kernel is asked for connections over vsock: one that says nothing is one all the same.
fn a_silent_connection_keeps_it_awake(vm: &Vm) {
    let mut connect = vm.rouse.command(["connect", &vm.name, "3025"]);
    let mut client = connect.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let (mut to, mut from) = (client.stdin.take().unwrap(), client.stdout.take().unwrap());
    let mut answers = |word: &[u8; 6]| {
        let mut answer = [0; 6];
        to.write_all(word).unwrap();
        from.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, word);
    };
    answers(b"hello\n");
    let (_, starts) = seen(vm, "nap.service");
    // Three times as long as it may be idle.
    std::thread::sleep(Duration::from_secs(6));
    assert_eq!(seen(vm, "nap.service"), ("running".into(), starts));
    answers(b"still\n");
    drop(to);
    assert!(client.wait().unwrap().success());
    wait_for_sleep(vm, "nap.service");
}
