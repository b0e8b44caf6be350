//! configs/httpd in a VM: a container that takes its socket and one that cannot and has no network,
//! fetched with curl from inside and over vsock from the host; both asleep before and after.

use rouse_tests::{Appliance, Vm};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

const PAGE: &str = "<title>Asleep until you asked</title>";

#[test]
fn two_web_servers() {
    let vm = Vm::start(&appliance(), "httpd", &["--publish", "127.0.0.1:0=8081"]);

    both_sleep(&vm, 0);
    lighttpd_takes_its_socket(&vm);
    apache_is_told_who_asks(&vm);
    both_answer_the_host(&vm);
    nothing_is_published(&vm);
    both_sleep(&vm, 1);
    the_tutorials_second_example(&vm);

    assert_eq!(vm.poweroff(), 0);
}

/// With a shell, and curl to ask from inside.
fn appliance() -> Appliance {
    let tools = "name = \"httpd\"\npackages = [\"socat\", \"dash\", \"busybox\", \"curl\"]\n";
    Appliance::of_config("httpd")
        .replace("appliance.toml", "name = \"httpd\"\n", tools)
        .with("shell.service", include_str!("../appliances/guest/shell.service"))
        .with("shell.socket", include_str!("../appliances/guest/shell.socket"))
}

fn both_sleep(vm: &Vm, at_least: u64) {
    for name in ["httpd.service", "apache.service", "apache-relay.service", "httpd-host.service"] {
        let sleeps = |vm: &Vm| ["dead", "failed"].contains(&vm.service(name).state.as_str());
        vm.wait_until(&format!("{name} sleeps"), sleeps);
        let starts = vm.service(name).starts;
        assert!(starts >= at_least && (at_least > 0 || starts == 0), "{name}: {starts}");
    }
}

fn curl(vm: &Vm, arguments: &str) -> String {
    vm.shell(&format!("curl -s -i -m 120 {arguments}"))
}

fn lighttpd_takes_its_socket(vm: &Vm) {
    let answer = curl(vm, "localhost:8080");
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains(PAGE), "{answer}");
    assert!(answer.contains("Server: lighttpd"), "{answer}");
}

fn apache_is_told_who_asks(vm: &Vm) {
    let answer = curl(vm, "--interface 127.0.0.7 http://127.0.0.1:8081");
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains(PAGE), "{answer}");
    assert!(answer.contains("Server: Apache"), "{answer}");
    assert!(answer.contains("X-Client: 127.0.0.7"), "{answer}");
    let answer = curl(vm, "'http://[::1]:8081'");
    assert!(answer.contains("X-Client: ::1"), "{answer}");
}

fn both_answer_the_host(vm: &Vm) {
    const ASK: &[u8] = b"GET / HTTP/1.0\r\n\r\n";
    for (port, server) in [(8080, "Server: lighttpd"), (8081, "Server: Apache")] {
        let answer = vm.send(port, ASK).text();
        assert!(answer.contains(PAGE) && answer.contains(server), "{answer}");
    }
    // As --publish has it, of which the announcement says the port.
    let words = vm.announced.split_ascii_whitespace();
    let published = words.filter_map(|word| word.split("127.0.0.1:").nth(1));
    let port = published.filter_map(|port| port.parse::<u16>().ok()).find(|port| *port > 9000);
    let mut stream = TcpStream::connect(("127.0.0.1", port.unwrap())).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(120))).unwrap();
    stream.write_all(ASK).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    // A client on vsock has no address that HTTP knows: Apache is told that it is nobody's.
    assert!(answer.contains(PAGE) && answer.contains("X-Client: 127.0.0.1"), "{answer}");
}

/// `systemd-socket-activate -l 8080 podman run ...`, with the activator's own tool and crun: the
/// bundle is the one that httpd.service was started with.
fn the_tutorials_second_example(vm: &Vm) {
    let answer = vm.shell(
        "activator activate -l 8082 crun --root /run/tutorial --cgroup-manager=cgroupfs \
         run --bundle /run/rouse/bundles/systemd-httpd tutorial & \
         pid=$!; \
         for try in $(seq 60); do grep -q :1F92 /proc/net/tcp* && break; sleep 1; done; \
         echo before=$(crun --root /run/tutorial list -q 2>/dev/null); \
         curl -s --retry 20 --retry-connrefused --retry-delay 1 localhost:8082 | busybox head -6; \
         echo; echo after=$(crun --root /run/tutorial list -q); kill $pid; wait",
    );
    assert!(answer.contains(PAGE), "{answer}");
    // The first connection starts it.
    for line in ["before=", "after=tutorial"] {
        assert!(answer.lines().any(|said| said == line), "{answer}");
    }
}

/// What the appliance has is in containers: no web server in the guest, no device to reach it by.
fn nothing_is_published(vm: &Vm) {
    let found = vm.shell("ls /usr/sbin /sys/class/net");
    assert!(!found.contains("lighttpd") && !found.contains("apache2"), "{found}");
    assert!(!found.contains("eth0"), "{found}");
    // Apache listens on its own loopback, and nowhere else.
    let guest = vm.shell("curl -s -m 60 localhost:8081 >/dev/null; cat /proc/net/tcp");
    assert!(!guest.contains(":0050 "), "{guest}");
}
