//! Podman's API in a real VM, asleep until somebody asks: Debian's docker, docker-compose and
//! `podman --remote` on the host, over vsock, against the packaged podman.socket and podman.service.
//!
//! One VM serves all parts, in order; some are in each run, the rest in the full one.
//! `podman/SCENARIOS.md` says what of Podman's own tests has its counterpart where.

#[path = "podman/client.rs"]
mod client;
#[path = "podman/image.rs"]
mod image;
#[path = "podman/measure.rs"]
mod measure;
#[path = "podman/network.rs"]
mod network;
#[path = "podman/rootless.rs"]
mod rootless;
#[path = "podman/scenarios.rs"]
mod scenarios;
#[path = "podman/ssh.rs"]
mod ssh;

use client::{Answer, Api};
use rouse_tests::{Appliance, Rouse, Vm, count};
use std::time::{Duration, Instant};

/// The vsock ports of root's API, ann's, and of the one with a short patience.
const PORT: u32 = 2375;
const ANNS: u32 = 2376;
const QUICK: u32 = 2380;

/// What the parts share.
struct Pods {
    vm: Vm,
    api: Api,
    keys: ssh::Keys,
    /// Bytes of the large load.
    load: u64,
    /// When `rouse run` was called.
    begun: Instant,
}

/// When a part is run.
#[derive(Clone, Copy, PartialEq, Eq)]
enum When {
    Always,
    /// In the full run, or when `ROUSE_TEST_PODMAN` has its name.
    Full,
}

/// A name, when it is run, and what it is.
type Part = (&'static str, When, fn(&Pods));

/// All parts, in this order.
const PARTS: [Part; 24] = [
    ("asleep", When::Always, no_process_before_the_first_request),
    ("measures", When::Always, measure::the_first_request),
    ("version", When::Always, |pods| clients_say_who_they_are(&pods.api)),
    ("images", When::Always, |pods| images_come_and_are_listed(&pods.api)),
    ("run", When::Always, |pods| containers_run(&pods.api)),
    ("streams", When::Always, |pods| streams_are_carried_to_their_ends(&pods.api)),
    ("files", When::Full, |pods| files_and_builds(&pods.api)),
    ("events", When::Full, events_are_followed),
    ("compose", When::Full, |pods| a_compose_file_goes_up_and_down(&pods.vm, &pods.api)),
    ("libpod", When::Always, the_api_answers_whatever_its_version),
    ("environment", When::Full, one_stream_fd_and_no_variables_for_others),
    ("outlive", When::Always, a_container_outlives_the_service),
    ("before", When::Full, a_container_was_there_before_the_service),
    ("inode", When::Always, the_socket_stays_the_same),
    ("patience", When::Full, patience_is_what_was_said),
    ("endpoints", When::Full, endpoints_of_ones_own),
    ("inside", When::Full, the_api_from_inside_a_container),
    ("rootless", When::Full, rootless::a_users_podman),
    ("pause", When::Full, scenarios::the_users_pause_process_is_killed),
    ("activated", When::Full, scenarios::a_stopped_service_leaves_its_container),
    ("datagram", When::Full, scenarios::a_datagram_socket_is_refused),
    ("ssh", When::Full, ssh::as_the_manual_recommends),
    ("soak", When::Always, none_is_lost_around_the_end),
    ("load", When::Full, a_large_load),
];

/// Whether `ROUSE_TEST_PODMAN` asks for more than each run has: `whole`, or names of parts.
fn asked(part: &str) -> bool {
    let names = std::env::var("ROUSE_TEST_PODMAN").unwrap_or_default();
    names.split(',').any(|name| name == "whole" || name == part)
}

#[test]
fn the_podman_appliance() {
    let chosen = |(name, when, _): &&Part| *when == When::Always || asked(name);
    let parts: Vec<_> = PARTS.iter().filter(chosen).collect();
    if parts.len() < PARTS.len() {
        rouse_tests::skipped(format!(
            "{} of {} parts of Podman's API: minutes under TCG; .ci/full sets ROUSE_TEST_PODMAN",
            PARTS.len() - parts.len(),
            PARTS.len()
        ));
    }
    let load = count("ROUSE_TEST_PODMAN_LOAD", 8 << 20);
    let keys = ssh::Keys::make();
    // On tmpfs, half of the memory, a load is there as it came, as it is unpacked, and between the two.
    let memory = format!("memory = {}", 1536 + 7 * (load >> 20));
    let appliance = Appliance::podman().with("authorized_keys", &keys.public).replace(
        "appliance.toml",
        "memory = 1536",
        &memory,
    );
    // An image that no unit names: whoever asks the API for it.
    std::fs::write(appliance.path().join("placed.tar"), image::docker_archive("placed:1")).unwrap();
    let toml = std::fs::read_to_string(appliance.path().join("appliance.toml")).unwrap();
    let placed = "\n[image.\"localhost/placed:1\"]\nfrom = \"docker-archive:placed.tar\"\n";
    let appliance = appliance.with("appliance.toml", &(toml + placed));
    let rouse = std::sync::Arc::new(Rouse::new());
    rouse.run(["build".as_ref(), appliance.path().as_os_str()]).success();
    let begun = Instant::now();
    let vm = Vm::start_in(rouse, &appliance, "pods", &["--publish", "127.0.0.1:0=22"]);
    println!("{}", vm.announced);
    let api = Api::new(vm.rouse.runtime().join("pods").join(format!("{PORT}.sock")));
    let pods = Pods { vm, api, keys, load, begun };
    for (name, _, part) in parts {
        let begun = Instant::now();
        part(&pods);
        println!("{name}: {:.1} s", begun.elapsed().as_secs_f64());
    }
    assert_eq!(pods.vm.poweroff(), 0, "rouse run ends with the guest");
}

/// The appliance as it is, on the architecture that this machine is not of: the first request is
/// answered over vsock.
#[test]
fn the_other_architecture_answers() {
    let Some(architecture) = rouse_tests::foreign() else { return };
    if count("ROUSE_TEST_FOREIGN_WHOLE", 0) == 0 {
        rouse_tests::skipped("only with ROUSE_TEST_FOREIGN_WHOLE=1, as .ci/full sets it");
        return;
    }
    let vm = Vm::start(&Appliance::of_config("podman"), "afar", &["--arch", architecture]);
    let api = Api::new(vm.rouse.runtime().join("afar").join(format!("{PORT}.sock")));
    for _ in 0..2 {
        let Answer { status, body } = api.request("/_ping");
        assert_eq!((status, body.as_str()), (200, "OK"), "{architecture}");
    }
    assert_eq!(vm.poweroff(), 0);
}

/// Processes named podman in the guest.
fn podmans(vm: &Vm) -> usize {
    vm.shell("busybox pidof podman || true").split_whitespace().count()
}

fn asleep(vm: &Vm, service: &str) {
    vm.wait_until("the API service is gone", |vm| vm.service(service).state == "dead");
}

/// For how many seconds a service stays after a request, by the guest's own clock. The request and
/// the clock are one script: a way to the guest and back may take seconds.
fn patience(vm: &Vm, service: &str, socket: &str) -> f64 {
    let pid = vm.service(service).main_pid.unwrap();
    let script = format!(
        "until test -S {socket}; do usleep 20000; done\n\
         printf 'GET /_ping HTTP/1.0\\r\\n\\r\\n' | socat -t 60 - unix:{socket} | tail -n 1\n\
         begun=$(cut -d' ' -f1 /proc/uptime)\n\
         while test -d /proc/{pid}; do usleep 20000; done\n\
         echo \" $begun $(cut -d' ' -f1 /proc/uptime)\"\n"
    );
    let answer = vm.shell(&script);
    let words: Vec<&str> = answer.split_whitespace().collect();
    let &["OK", begun, gone] = words.as_slice() else { panic!("{service}: {answer}") };
    gone.parse::<f64>().unwrap() - begun.parse::<f64>().unwrap()
}

fn inode(vm: &Vm) -> String {
    vm.shell("busybox stat -c '%i %a' /run/podman/podman.sock")
}

fn no_process_before_the_first_request(Pods { vm, api, .. }: &Pods) {
    let line = format!("export DOCKER_HOST=unix://{}", api.path.display());
    assert!(vm.announced.contains(&line), "{line} in {}", vm.announced);
    assert_eq!(podmans(vm), 0);
    assert_eq!(vm.service("podman.service").starts, 0);
    assert_eq!(vm.shell("test -d /run/systemd/system && echo there || echo none"), "none\n");
}

fn clients_say_who_they_are(api: &Api) {
    let version = api.docker(["version"]);
    assert!(version.contains("Podman Engine"), "{version}");
    let info = api.podman(["version", "--format", "{{.Server.Version}} {{.Server.OsArch}}"]);
    assert!(info.starts_with("5."), "{info}");
    assert_eq!(api.docker(["ps", "-q"]), "");
}

fn images_come_and_are_listed(api: &Api) {
    let archive = image::docker_archive("busy:1");
    let loaded = api.docker_with(["load"], &archive);
    assert!(loaded.contains("busy:1"), "{loaded}");
    let listed = api.docker(["images", "--format", "{{.Repository}}:{{.Tag}}"]);
    assert!(listed.contains("busy:1"), "{listed}");
    let loaded = api.podman_with(["load"], &image::docker_archive("busy:2"));
    assert!(loaded.contains("busy:2"), "{loaded}");
    let listed = api.podman(["images", "--format", "{{.Repository}}:{{.Tag}}"]);
    assert!(listed.contains("busy:1") && listed.contains("busy:2"), "{listed}");
    it_is_there_from_the_beginning(api);
}

/// The image that was put in when the appliance was built.
fn it_is_there_from_the_beginning(api: &Api) {
    let run = ["run", "--rm", "--network", "none", "--pull", "never", "localhost/placed:1"];
    assert_eq!(api.docker(run.iter().chain(&["echo", "placed"])), "placed\n");
}

fn containers_run(api: &Api) {
    let hello = api.docker(["run", "--rm", "--network", "none", "busy:1", "echo", "hello"]);
    assert_eq!(hello, "hello\n");
    let hello = api.podman(["run", "--rm", "--network", "none", "busy:1", "echo", "hello"]);
    assert_eq!(hello, "hello\n");
    let status =
        api.docker_status(["run", "--rm", "--network", "none", "busy:1", "sh", "-c", "exit 7"]);
    assert_eq!(status, 7);
    let script = "echo first; exec sleep 1000";
    api.docker(["run", "-d", "--name", "long", "--network", "none", "busy:1", "sh", "-c", script]);
    assert_eq!(api.docker(["logs", "long"]), "first\n");
    assert!(api.docker(["ps", "--format", "{{.Names}}"]).contains("long"));
    assert_eq!(api.docker(["exec", "long", "echo", "inside"]), "inside\n");
    assert_eq!(api.podman(["logs", "long"]), "first\n");
    assert!(api.podman(["ps", "--format", "{{.Names}}"]).contains("long"));
    assert_eq!(api.podman(["exec", "long", "echo", "inside"]), "inside\n");
}

/// Hijacked connections: what the client sends ends before what it gets does.
fn streams_are_carried_to_their_ends(api: &Api) {
    let input: Vec<u8> = (0..300_000u32).map(|n| b'a' + (n % 23) as u8).collect();
    let run = ["run", "-i", "--rm", "--network", "none", "busy:1", "cat"];
    assert!(api.docker_with(run, &input).as_bytes() == input, "docker run -i");
    let counted = api.docker_with(["exec", "-i", "long", "wc", "-c"], &input);
    assert_eq!(counted.trim(), input.len().to_string());
    let counted = api.podman_with(["exec", "-i", "long", "wc", "-c"], &input);
    assert_eq!(counted.trim(), input.len().to_string());
    let script = "read line; echo got $line";
    api.docker([
        "create",
        "-i",
        "--name",
        "ear",
        "--network",
        "none",
        "busy:1",
        "sh",
        "-c",
        script,
    ]);
    assert_eq!(api.docker_with(["start", "-ai", "ear"], b"word\n"), "got word\n");
    // It waits for a line until somebody attaches and says one.
    api.docker(["start", "ear"]);
    assert_eq!(api.docker_with(["attach", "ear"], b"word\n"), "got word\n");
    api.docker(["start", "ear"]);
    assert_eq!(api.podman_with(["attach", "ear"], b"word\n"), "got word\n");
    api.docker(["rm", "ear"]);
}

fn files_and_builds(api: &Api) {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    std::fs::write(at("note"), "copied\n").unwrap();
    let path = |name: &str| at(name).to_str().unwrap().to_owned();
    api.docker(["cp", &path("note"), "long:/note"]);
    assert_eq!(api.docker(["exec", "long", "cat", "/note"]), "copied\n");
    api.docker(["cp", "long:/note", &path("back")]);
    assert_eq!(std::fs::read_to_string(at("back")).unwrap(), "copied\n");
    api.podman(["cp", &path("note"), "long:/note2"]);
    // Into a file it would execute itself by a name that the loader of Debian's tree has taken.
    let archive = api.podman(["cp", "long:/note2", "-"]);
    assert!(archive.contains("copied\n"), "{archive}");

    std::fs::copy(image::busybox(), at("busybox")).unwrap();
    let text = "FROM scratch\nCOPY busybox /bin/busybox\nCOPY note /note\n\
                ENTRYPOINT [\"/bin/busybox\", \"cat\", \"/note\"]\n";
    std::fs::write(at("Dockerfile"), text).unwrap();
    api.docker(["build", "-q", "-t", "built:1", folder.path().to_str().unwrap()]);
    assert_eq!(api.docker(["run", "--rm", "--network", "none", "built:1"]), "copied\n");
    let from = folder.path().to_str().unwrap();
    api.podman(["build", "-q", "-t", "built:2", "-f", &path("Dockerfile"), from]);
    assert_eq!(api.docker(["run", "--rm", "--network", "none", "built:2"]), "copied\n");
}

fn events_are_followed(Pods { api, .. }: &Pods) {
    let begun = api.docker(["exec", "long", "date", "+%s"]);
    api.docker(["run", "--rm", "--name", "seen", "--network", "none", "busy:1", "true"]);
    let until = api.docker(["exec", "long", "date", "+%s"]);
    // Whole seconds: what happened in the last of them is before the next.
    let until = (until.trim().parse::<u64>().unwrap() + 2).to_string();
    let seen = ["events", "--filter", "container=seen", "--since", begun.trim()];
    let events = api.docker(seen.into_iter().chain(["--until", &until]));
    for action in ["create", "start", "die"] {
        assert!(events.contains(action), "{action} in {events}");
    }
    // What is followed until a time that is past already may end before it is read.
    let events = api.podman(seen.into_iter().chain(["--stream=false"]));
    for action in ["create", "start", "died"] {
        assert!(events.contains(action), "{action} in {events}");
    }
}

/// One on a network with a published port, one on none.
const COMPOSED: &str = "\
services:
  one:
    image: busy:1
    command: sh -c 'echo composed >/page; exec busybox httpd -f -p 80 -h /'
    ports:
      - \"8089:80\"
  two:
    image: busy:1
    network_mode: none
    command: sleep 1000
";

/// What a guest's own client gets as `/page` from a port of its loopback.
fn fetched(vm: &Vm, port: u32) -> String {
    vm.shell(&format!(
        "for n in $(seq 60); do busybox wget -q -O - http://127.0.0.1:{port}/page && exit; sleep 1; \
         done 2>/tmp/fetched; cat /tmp/fetched"
    ))
    .trim()
    .to_owned()
}

fn a_compose_file_goes_up_and_down(vm: &Vm, api: &Api) {
    let folder = tempfile::Builder::new().prefix("composed").tempdir().unwrap();
    let file = folder.path().join("compose.yaml");
    std::fs::write(&file, COMPOSED).unwrap();
    let words = ["-p", "both", "-f", file.to_str().unwrap()];
    api.compose(words.into_iter().chain(["up", "-d"]));
    let names = api.docker(["ps", "--format", "{{.Names}}"]);
    assert!(names.contains("one") && names.contains("two"), "{names}");
    let networks = api.docker(["network", "ls", "--format", "{{.Name}}"]);
    assert!(networks.contains("both_default"), "{networks}");
    assert_eq!(fetched(vm, 8089), "composed");
    api.compose(words.into_iter().chain(["down", "-t", "0"]));
    let names = api.docker(["ps", "-a", "--format", "{{.Names}}"]);
    assert!(!names.contains("one") && !names.contains("two"), "{names}");
}

fn the_api_answers_whatever_its_version(Pods { api, .. }: &Pods) {
    for path in ["/_ping", "/v1.40/_ping", "/v9.99.9/libpod/_ping", "/libpod/_ping"] {
        let answer = api.request(path);
        assert_eq!((answer.status, answer.body.as_str()), (200, "OK"), "{path}");
    }
    let listed = api.request("/v5.0.0/libpod/containers/json");
    assert!(listed.status == 200 && listed.body.contains("\"long\""), "{}", listed.body);
    let info = api.request("/v9.99.9/info");
    assert_eq!(info.status, 200, "{}", info.body);
    // A connection that carries on, and one that its client ends at once.
    assert_eq!(api.request_and_shut("/_ping").body, "OK");
}

fn one_stream_fd_and_no_variables_for_others(Pods { vm, api, .. }: &Pods) {
    assert_eq!(api.request("/_ping").status, 200);
    let pid = vm.service("podman.service").main_pid.unwrap();
    let environment = vm.shell(&format!("tr '\\0' '\\n' </proc/{pid}/environ"));
    for line in [format!("LISTEN_PID={pid}"), "LISTEN_FDS=1".into()] {
        assert!(environment.lines().any(|one| one == line), "{line} in {environment}");
    }
    let inside = api.docker(["run", "--rm", "--network", "none", "busy:1", "env"]);
    assert!(!inside.contains("LISTEN_") && !inside.contains("NOTIFY_SOCKET"), "{inside}");
    let conmon =
        vm.shell("pid=$(busybox pidof conmon | cut -d' ' -f1); tr '\\0' '\\n' </proc/$pid/environ");
    assert!(!conmon.contains("LISTEN_"), "{conmon}");
    // The relay lets the host in alone; CID 1 is the guest itself.
    let ping =
        "printf 'GET /_ping HTTP/1.0\\r\\n\\r\\n' | socat -t 30 - VSOCK-CONNECT:1:2375 | wc -c";
    assert_eq!(vm.shell(ping).lines().last(), Some("0"));
}

fn a_container_outlives_the_service(Pods { vm, api, .. }: &Pods) {
    let pid = api.docker(["inspect", "-f", "{{.State.Pid}}", "long"]);
    asleep(vm, "podman.service");
    assert_eq!(podmans(vm), 0);
    // KillMode=process: the sleeper sleeps on.
    assert_eq!(vm.shell(&format!("cat /proc/{}/comm", pid.trim())), "sleep\n");
    asleep(vm, "podman-vsock.service");
    let before = vm.service("podman.service").starts;
    assert_eq!(api.docker(["exec", "long", "echo", "still"]), "still\n");
    assert_eq!(vm.service("podman.service").starts, before + 1);
    // Nobody said `--time`: five seconds.
    let stayed = patience(vm, "podman.service", "/run/podman/podman.sock");
    assert!((4.0..60.0).contains(&stayed), "{stayed} s");
}

/// What runs already when the service starts, and that it did not make.
fn a_container_was_there_before_the_service(Pods { vm, .. }: &Pods) {
    asleep(vm, "podman.service");
    let answer = vm.shell(
        // Podman hands the sockets of this script's own service to the container.
        "export HOME=/root; unset LISTEN_FDS LISTEN_PID LISTEN_FDNAMES\n\
         podman run -d --name before --network none busy:1 sleep 1000 >/dev/null\n\
         printf 'GET /libpod/_ping HTTP/1.0\\r\\n\\r\\n' | \
         socat -t 60 - unix:/run/podman/podman.sock | tail -n 1; echo\n\
         podman ps --format 'runs {{.Names}}'\n\
         podman rm -f -t 0 before >/dev/null\n",
    );
    for line in ["OK", "runs before"] {
        assert!(answer.lines().any(|one| one == line), "{line} in {answer}");
    }
}

/// LISTEN_PID is right at each start: else Podman would put a socket of its own in place of ours.
fn the_socket_stays_the_same(Pods { vm, api, .. }: &Pods) {
    let before = (inode(vm), vm.service("podman.service").starts);
    let activations = count("ROUSE_TEST_PODMAN_ACTIVATIONS", 3);
    for _ in 0..activations {
        vm.tell("stop", "podman.service");
        assert_eq!(api.request("/_ping").body, "OK");
        assert_eq!(inode(vm), before.0);
    }
    assert_eq!(vm.service("podman.service").starts, before.1 + activations);
}

/// Those that were told to stay stay, when the one with five seconds has come and gone.
fn patience_is_what_was_said(Pods { vm, .. }: &Pods) {
    for socket in ["zero", "never"] {
        let ping = format!(
            "printf 'GET /_ping HTTP/1.0\\r\\n\\r\\n' | socat -t 60 - unix:/run/{socket}.sock | tail -n 1"
        );
        assert_eq!(vm.shell(&ping), "OK", "{socket}");
    }
    let before = vm.service("podman.service").starts;
    let root = "printf 'GET /_ping HTTP/1.0\\r\\n\\r\\n' | socat -t 60 - unix:/run/podman/podman.sock | tail -n 1";
    assert_eq!(vm.shell(root), "OK");
    asleep(vm, "podman.service");
    assert!(vm.service("podman.service").starts >= before);
    for service in ["zero.service", "never.service"] {
        assert_eq!(vm.service(service).state, "running", "{service}");
        vm.tell("stop", service);
    }
}

/// `podman system service` as its manual page has it, with endpoints.
fn endpoints_of_ones_own(Pods { vm, .. }: &Pods) {
    // `--time 12`: gone after its timeout, and not before.
    vm.tell("start", "direct-unix.service");
    let stayed = patience(vm, "direct-unix.service", "/run/direct.sock");
    assert!((11.0..60.0).contains(&stayed), "{stayed} s");
    asleep(vm, "direct-unix.service");
    vm.tell("start", "direct-tcp.service");
    let ping = "printf 'GET /_ping HTTP/1.0\\r\\n\\r\\n' | socat -t 60 - tcp4:127.0.0.1:8080,retry=60 2>/dev/null";
    let answer = vm.shell(ping);
    assert!(answer.ends_with("OK"), "{answer}");
    assert!(answer.contains("Access-Control-Allow-Origin: *"), "--cors: {answer}");
    vm.tell("stop", "direct-tcp.service");
}

/// As the manual page has it: the socket as a volume, and no labels.
fn the_api_from_inside_a_container(Pods { vm, api, .. }: &Pods) {
    // The guest's own podman and its libraries, in a container that has nothing.
    let run = [
        "run",
        "-d",
        "--name",
        "inner",
        "--network",
        "none",
        "--security-opt",
        "label=disable",
        "-v",
        "/run/podman/podman.sock:/run/podman.sock",
        "-v",
        "/usr:/usr:ro",
        "-e",
        "HOME=/",
        "busy:1",
        "/bin/sh",
        "-c",
        "while test ! -e /go; do sleep 1; done; \
         /usr/bin/podman --remote --url unix:///run/podman.sock ps --format {{.Names}}; exec sleep 1000",
    ];
    api.docker(run);
    let pid = api.docker(["inspect", "-f", "{{.State.Pid}}", "inner"]);
    asleep(vm, "podman.service");
    let before = vm.service("podman.service").starts;
    vm.shell(&format!("echo >/proc/{}/root/go", pid.trim()));
    vm.wait_until("it was woken from inside", |vm| vm.service("podman.service").starts > before);
    vm.wait_until("it was answered", |_| api.docker(["logs", "inner"]).contains("inner"));
    api.docker(["rm", "-f", "inner"]);
}

/// Requests at random times around the end of a service that waits for one second.
fn none_is_lost_around_the_end(Pods { vm, .. }: &Pods) {
    let api = Api::new(vm.rouse.runtime().join("pods").join(format!("{QUICK}.sock")));
    let requests = count("ROUSE_TEST_PODMAN_SOAK", 12);
    let mut seed = 0x2545_f491_4f6c_dd1d_u64;
    let node = "busybox stat -c %i /run/quick/podman/podman.sock";
    let before = vm.shell(node);
    let starts = vm.service("quick.service").starts;
    for request in 0..requests {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        std::thread::sleep(Duration::from_millis(500 + seed % 1500));
        let Answer { status, body } = api.request("/_ping");
        assert_eq!((status, body.as_str()), (200, "OK"), "request {request}");
    }
    assert_eq!(vm.shell(node), before);
    let starts = vm.service("quick.service").starts - starts;
    println!("{starts} starts for {requests} requests");
    // Of two or three, none needs to meet it asleep.
    assert!(starts > 1 || requests < 10, "it never slept between two requests");
}

/// A load of many bytes: none is lost on the way, as the image's digest shows to Podman.
fn a_large_load(Pods { api, load, .. }: &Pods) {
    let archive = image::large_archive("large:1", *load);
    let loaded = api.docker_from(["load"], archive.path());
    assert!(loaded.contains("large:1"), "{loaded}");
    api.docker(["rmi", "large:1"]);
}
