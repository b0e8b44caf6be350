//! How a client's bytes get into a container: by the listener's own socket, by a relay, or through
//! a network that Podman makes for a user. Client and containers are in one guest.

use super::container::{memory, of_podman, program};
use crate::measure::{Bound, Measure};
use crate::props::{Props, Size};
use rouse::cache::Cache;
use rouse::debian::{Debian, tools};
use rouse_tests::{Appliance, Vm, cache};
use std::os::unix::fs::PermissionsExt;

const BARE: &str = "the program alone, activated";
const NATIVE: &str = "container with its socket";
const RELAYED: &str = "container behind X-RelayTo=";
const PASTA: &str = "rootless Podman, pasta";
const SLIRP: &str = "rootless Podman, slirp4netns";

/// TCP ports of the guest's loopback; the tutorial's echo container has the second.
const BARE_PORT: u16 = 8090;
const NATIVE_PORT: u16 = 3000;
const RELAYED_PORT: u16 = 8091;
const PASTA_PORT: u16 = 8092;
const SLIRP_PORT: u16 = 8093;

const IMAGE: &str = "\n[image.\"localhost/busybox\"]\nentrypoint = [\"/bin/busybox\"]\n\
                     files = { \"/bin/busybox\" = \"busybox\" }\n";

/// An echo server on a port of its own network.
const SERVE: &str = "Image=localhost/busybox\nExec=nc -ll -p 8080 -e /bin/busybox cat\n";

/// Round trips and bytes.
pub(crate) fn run(props: &Props) -> Vec<Measure> {
    let how = "From a client to an echo server over TCP, both in one guest: two VMs of one kernel \
               and memory, one for each engine, that take turns. A server that takes no socket is \
               reached through a relay of ours, or through what gives a user's container of \
               Podman its network and its published port.";
    let new = |id: &str, title: &str, unit: &str| Measure::new(id, title, unit, how).floor(BARE);
    let mut trip = new("container-trip", "Into a container: round trip of one byte", "us").goal(
        NATIVE,
        BARE,
        Bound::AtMost(1.1),
    );
    let mut bytes = new("container-bytes", "Into a container: bytes there and back", "MB/s").goal(
        NATIVE,
        BARE,
        Bound::AtLeast(0.9),
    );
    if props.size == Size::Smoke {
        trip.leave_out("all", "a guest is not part of so short a run");
        return vec![trip];
    }
    let (crun, podman) = (with_crun(props), with_podman(props));
    let crun = Vm::start(&crun, "net-crun", &[]);
    let podman = Vm::start(&podman, "net-podman", &[]);
    for service in ["pasta.service", "slirp.service"] {
        podman.rouse.run(["start", &podman.name, service, "--user"]).success();
    }
    let rows = [
        (&crun, BARE, BARE_PORT),
        (&crun, NATIVE, NATIVE_PORT),
        (&crun, RELAYED, RELAYED_PORT),
        (&podman, PASTA, PASTA_PORT),
        (&podman, SLIRP, SLIRP_PORT),
    ];
    // The server in a container may listen later than its service is up.
    for (vm, _, port) in rows {
        vm.shell(&format!("until trip {port} 1 1; do sleep 0.5; done"));
    }
    for round in 0..props.rounds {
        eprintln!("network: round {} of {}", round + 1, props.rounds);
        for (vm, name, port) in rows {
            let (trips, amount) = (props.pick(1, 200, 1000), props.pick(1, 4, 16) << 20);
            let answer = vm.shell(&format!("trip {port} {trips} {amount}"));
            let numbers: Vec<f64> =
                answer.split_whitespace().filter_map(|word| word.parse().ok()).collect();
            let &[took, rate] = numbers.as_slice() else { panic!("{name}: {answer}") };
            trip.add(name, took);
            bytes.add(name, rate);
        }
    }
    vec![trip, bytes]
}

fn with_crun(props: &Props) -> Appliance {
    let guest = Appliance::guest();
    let text = memory(&guest, "");
    let socket = |port: u16| {
        format!("[Socket]\nListenStream=127.0.0.1:{port}\n\n[Install]\nWantedBy=sockets.target\n")
    };
    let relayed = format!("[Socket]\nX-RelayTo=127.0.0.1:8080\n{}", socket(RELAYED_PORT));
    let bare = program(&guest.path().join("server"));
    std::fs::write(guest.path().join("bare"), bare).unwrap();
    let guest = guest
        .with("bare.socket", &socket(BARE_PORT))
        .with("bare.service", "[Service]\nExecStart=/usr/bin/bare\n")
        .with("relayed.socket", &relayed)
        .with("relayed.container", &format!("[Container]\n{SERVE}Network=none\n"));
    furnish(props, guest, text + IMAGE, "\"/usr/bin/bare\" = \"bare\"\n")
}

fn with_podman(props: &Props) -> Appliance {
    let podman = of_podman(Appliance::guest(), "guest").replace(
        "appliance.toml",
        "\"socat\",",
        "\"socat\", \"passt\", \"slirp4netns\",",
    );
    let text = std::fs::read_to_string(podman.path().join("appliance.toml")).unwrap();
    let container = |network: &str, port: u16| {
        format!(
            "[Container]\n{SERVE}Network={network}\nPublishPort=127.0.0.1:{port}:8080\n\n\
             [Service]\nTimeoutStartSec=600\n"
        )
    };
    let podman = podman
        .with("users/ann/pasta.container", &container("pasta", PASTA_PORT))
        .with("users/ann/slirp.container", &container("slirp4netns", SLIRP_PORT));
    furnish(props, podman, text + IMAGE, "")
}

/// With the client and the image's busybox; `text` is its appliance.toml, `more` other files of it.
fn furnish(props: &Props, appliance: Appliance, text: String, more: &str) -> Appliance {
    let files = format!("\n[files]\n\"/usr/bin/trip\" = \"trip\"\n{more}");
    let debian = Debian::new(Cache::open_at(&cache()).unwrap(), None);
    let busybox = tools::program(&debian, "busybox-static", "busybox").unwrap();
    let trip = props.folder.join("bin/trip");
    for (from, to) in [(&trip, "trip"), (&busybox.path, "busybox")] {
        std::fs::copy(from, appliance.path().join(to)).unwrap();
    }
    for program in ["trip", "busybox", "bare"].map(|name| appliance.path().join(name)) {
        if program.exists() {
            std::fs::set_permissions(&program, PermissionsExt::from_mode(0o755)).unwrap();
        }
    }
    appliance.with("appliance.toml", &(text + &files))
}
