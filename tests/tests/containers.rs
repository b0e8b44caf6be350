//! The keys of `[Container]` in a guest: one VM, in which containers of engine crun say what they
//! see (`tests/appliances/containers`), and do what they are asked to.

use rouse_tests::images::{Compression, Image, machine, tar};
use rouse_tests::{Appliance, Vm, debian_path};
use serde_json::json;
use std::collections::BTreeMap;

#[test]
fn keys_of_a_container_work_in_the_guest() {
    let vm = Vm::start(&appliance(), "containers", &[]);
    root_has_most_keys(&vm);
    a_user_of_the_image_has_no_rights(&vm);
    ids_are_mapped(&vm);
    namespaces_are_joined(&vm);
    a_users_container_is_the_users(&vm);
    templates_have_instances(&vm);
    a_root_may_be_a_folder_of_the_guest(&vm);
    a_container_says_itself_when_it_is_ready(&vm);
    volumes_outlive_a_restart(&vm);
    health_is_checked(&vm);
    images_say_what_their_containers_do_not(&vm);
    containers_stop_as_they_were_told(&vm);
    assert_eq!(vm.poweroff(), 0);
}

fn appliance() -> Appliance {
    let containers = Appliance::containers();
    let rootfs = containers.path().join("rootfs");
    std::fs::create_dir(&rootfs).unwrap();
    let busybox = debian_path("busybox-static", "busybox");
    std::fs::copy(&busybox, rootfs.join("busybox")).unwrap();
    told(&std::fs::read(busybox).unwrap()).write_layout(&containers.path().join("layout"), "told");
    containers
}

/// An image that says itself how it is to be run, as a Containerfile would.
fn told(busybox: &[u8]) -> Image {
    let config = json!({
        "Entrypoint": ["/bin/busybox", "sh", "/report", "polite"],
        "StopSignal": "SIGUSR1",
        "Volumes": { "/data": {} },
        "Healthcheck": {
            "Test": ["CMD", "/bin/busybox", "test", "-e", "/data/seed"],
            "Interval": 1_000_000_000_u64,
            "Retries": 2,
        },
    });
    let report = include_bytes!("../appliances/containers/report.sh");
    let files: [(&str, u32, &[u8]); 3] = [
        ("bin/busybox", 0o755, busybox),
        ("report", 0o644, report),
        ("data/seed", 0o644, b"seed\n"),
    ];
    Image::new(machine(), &config, &[(tar(&files), Compression::Zstd)])
}

/// What a container has said of itself, by name.
struct Facts {
    service: String,
    facts: BTreeMap<String, String>,
}

impl Facts {
    /// Waits until the container has said everything `times` times: once for each start.
    #[track_caller]
    fn of(vm: &Vm, service: &str, times: usize) -> Self {
        let mut log = String::new();
        vm.wait_until(&format!("{service} has told everything"), |vm| {
            log = log_of(vm, service);
            log.lines().filter(|line| line.ends_with("end=1")).count() >= times
        });
        // Behind the time and the unit.
        let said = log.lines().filter_map(|line| line.splitn(3, ' ').nth(2)?.split_once('='));
        let facts = said.map(|(name, value)| (name.to_owned(), value.trim().to_owned())).collect();
        Self { service: service.into(), facts }
    }

    fn get(&self, name: &str) -> &str {
        self.facts.get(name).map_or("(nothing)", String::as_str)
    }

    #[track_caller]
    fn are(&self, expected: &[(&str, &str)]) {
        let wrong: Vec<_> = expected
            .iter()
            .filter(|(name, value)| self.get(name) != *value)
            .map(|(name, value)| format!("{name} is `{}`, expected `{value}`", self.get(name)))
            .collect();
        assert!(wrong.is_empty(), "{}: {}\n{:#?}", self.service, wrong.join("; "), self.facts);
    }

    /// A text that has all of these in it.
    #[track_caller]
    fn has(&self, name: &str, parts: &[&str]) {
        let text = self.get(name);
        let missing: Vec<_> = parts.iter().filter(|part| !text.contains(**part)).collect();
        assert!(missing.is_empty(), "{}: {name} is `{text}`, without {missing:?}", self.service);
    }
}

/// A service of the system, or `USER/SERVICE`.
fn log_of(vm: &Vm, service: &str) -> String {
    match service.split_once('/') {
        Some((user, service)) => {
            vm.rouse.run(["logs", &vm.name, service, "--user", user]).success().text()
        }
        None => vm.rouse.run(["logs", &vm.name, service]).success().text(),
    }
}

/// What a program says that is run in a container which is up.
fn inside(vm: &Vm, container: &str, words: &str) -> String {
    vm.shell(&format!("crun --root /run/crun exec {container} /bin/busybox {words}"))
        .trim()
        .to_owned()
}

fn root_has_most_keys(vm: &Vm) {
    let many = Facts::of(vm, "many.service", 1);
    many.are(&[
        ("env.FROM", "file"),
        ("env.A", "unit"),
        ("env.QUOTED", "\"as it stands\""),
        ("env.PASSED", "on"),
        ("env.ONLY_HERE", "of the service"),
        ("env.EVERYWHERE", "yes"),
        ("env.DROPPED_IN", "yes"),
        ("env.KEY", "hush"),
        ("env.container", "podman"),
        ("env.HOME", "/root"),
        ("env.HOSTNAME", "many"),
        ("first", "busybox"),
        ("ids", "0 0 0 77"),
        ("cwd", "/work"),
        ("hostname", "many"),
        ("etc-hostname", "many"),
        ("nofile", "100 200"),
        ("pids", "20"),
        ("memory", "67108864"),
        ("msgmax", "1234"),
        ("oom", "321"),
        ("uid-map", "0 0 4294967295"),
        ("version", ""),
        ("firmware", ""),
        ("timers", "Timer"),
        // The device of that name in the guest: 1:11. The other was left out.
        ("device", "1:b ls: /dev/not-there: No such file or directory"),
        ("secret", "hush 444:0"),
        ("volume", "seed 0"),
        ("bound", "conf"),
        ("root-write", "written"),
        ("image", "other touch: /other/new: Read-only file system"),
        ("link", "linked"),
        ("status.Umask:", "0022"),
        ("status.NoNewPrivs:", "0"),
        ("status.Seccomp:", "2"),
        // Podman's eleven, without KILL, with SYS_TIME.
        ("status.CapEff:", "00000000820405db"),
        ("status.CapBnd:", "00000000820405db"),
        ("status.CapAmb:", "0000000000000000"),
    ]);
    assert!(["CET", "CEST"].contains(&many.get("zone")), "{}", many.get("zone"));
    many.has("hosts", &["10.0.0.1 db", "127.0.0.1 localhost", " many"]);
    many.has("overlay-write", &["app.conf", "new"]);
    many.has("bound-write", &["Read-only file system"]);
    many.has("mknod", &["Operation not permitted"]);
    many.has("device-write", &["Operation not permitted"]);
    for (place, options) in [
        ("/cache", ["tmpfs rw", "size=1024k"]),
        ("/scratch", ["tmpfs rw", "size=2048k"]),
        ("/dev/shm", ["tmpfs rw", "size=1024k"]),
        ("/etc/app.conf", [" ro", ""]),
        ("/sys/fs/cgroup", ["cgroup2 ro", "nosuid"]),
        ("/proc/sys", ["proc ro", ""]),
    ] {
        many.has(&format!("mount.{place}"), &options);
    }
    let untouched = vm.shell("test -e /etc/new || echo untouched; cat /proc/sys/kernel/msgmax");
    assert_eq!(untouched, "untouched\n8192\n");
    vm.tell("reload-unit", "many.service");
    vm.wait_until("it is reloaded", |vm| {
        inside(vm, "systemd-many", "ls /data").contains("reloaded")
    });
}

fn a_user_of_the_image_has_no_rights(vm: &Vm) {
    let strict = Facts::of(vm, "strict.service", 1);
    strict.are(&[
        ("first", "podman-init"),
        ("ids", "33 34 34"),
        ("given", "33:34"),
        ("env.HOME", "/srv"),
        ("resolv", "search example.org nameserver 192.0.2.1 options ndots:3"),
        ("status.CapEff:", "0000000000000000"),
        ("status.CapBnd:", "0000000000000000"),
        ("status.NoNewPrivs:", "1"),
        ("tmp-write", "written"),
        ("pids", "2048"),
        ("memory", "max"),
    ]);
    strict.has("root-write", &["Read-only file system"]);
    strict.has("mount./", &[" ro"]);
    let net = vm.shell("busybox readlink /proc/1/ns/net");
    assert_eq!(strict.get("net"), net.trim());
}

fn ids_are_mapped(vm: &Vm) {
    let mapped = Facts::of(vm, "mapped.service", 1);
    mapped.are(&[
        ("ids", "0 0 0"),
        ("uid-map", "0 200000 1000"),
        ("secret", "hush 400:33"),
        ("volume", "seed 0"),
        ("status.Seccomp:", "0"),
        ("root-write", "written"),
    ]);
    let owner = vm.shell("busybox stat -c %u:%g /var/lib/containers/storage/volumes/theirs/_data");
    assert_eq!(owner, "200000:300000\n");
    let chosen = Facts::of(vm, "chosen.service", 1);
    chosen.are(&[("ids", "33 34 34"), ("volume", "seed 33"), ("given", "33:34")]);
    let map: Vec<u32> =
        chosen.get("uid-map").split(' ').map(|number| number.parse().unwrap()).collect();
    assert!(map[0] == 0 && map[1] >= 2_147_483_647 && map[2] == 1000, "{map:?}");
    let owner = vm.shell("busybox stat -c %u /var/lib/containers/storage/volumes/chosen/_data");
    assert_eq!(owner, format!("{}\n", map[1] + 33));
}

fn namespaces_are_joined(vm: &Vm) {
    let (many, joined) = (Facts::of(vm, "many.service", 1), Facts::of(vm, "joined.service", 1));
    assert_eq!(joined.get("net"), many.get("net"));
    joined.are(&[("status.Seccomp:", "2"), ("env.FROM", "image"), ("env.KEY", "(nothing)")]);
    // Only what its own profile forbids is forbidden: EDQUOT is said so by nobody else.
    joined.has("link", &["Disk quota exceeded"]);
}

fn a_users_container_is_the_users(vm: &Vm) {
    let hers = Facts::of(vm, "ann/hers.service", 1);
    hers.are(&[
        ("ids", "0 0 0"),
        ("uid-map", "0 1000 1"),
        ("volume", "seed 0"),
        ("root-write", "written"),
        ("status.Seccomp:", "2"),
    ]);
    let owner = vm.shell("busybox stat -c %u /run/user/1000/rouse/volumes/hers/_data/seed");
    assert_eq!(owner, "1000\n");
    let kept = Facts::of(vm, "ann/kept.service", 1);
    kept.are(&[
        ("ids", "1000 1000 1000"),
        ("uid-map", "0 100000 1000"),
        ("volume", "seed 1000"),
        ("status.CapEff:", "0000000000000000"),
    ]);
}

fn templates_have_instances(vm: &Vm) {
    let one = Facts::of(vm, "said@one.service", 1);
    one.are(&[("env.INSTANCE", "one"), ("env.ONE", "yes"), ("env.EVERYWHERE", "yes")]);
    vm.wait_until("it has ended well", |vm| vm.service("said@one.service").state == "exited");
    let ids = vm.shell("crun --root /run/crun list -q");
    assert!(!ids.contains("said"), "{ids}");
}

fn a_root_may_be_a_folder_of_the_guest(vm: &Vm) {
    const SAID: &str = "/var/lib/containers/storage/volumes/silent/_data/said";
    // Its network is the one that somebody else has made.
    let inode = vm.shell("busybox stat -c %i /run/other-network");
    let expected = format!("argument net:[{}]\n", inode.trim());
    vm.wait_until("it has spoken", |vm| vm.shell(&format!("cat {SAID}")) == expected);
    assert!(!log_of(vm, "silent.service").contains("heard"));
    assert_eq!(vm.shell("ls /srv/root"), "bin\n", "what it wrote lies elsewhere");
    // Where the guest can write, it is kept.
    let said = |vm: &Vm| vm.shell("cat /var/lib/settled/said");
    vm.wait_until("it has written", |vm| said(vm) == "here\n");
    vm.tell("restart", "settled.service");
    vm.wait_until("it has written again", |vm| said(vm) == "here\nhere\n");
}

fn a_container_says_itself_when_it_is_ready(vm: &Vm) {
    // Answered when the service is up: not before READY=1.
    vm.tell("start", "ready.service");
    assert_eq!(vm.service("ready.service").state, "running");
    assert!(log_of(vm, "ready.service").contains("end=1"));
}

fn volumes_outlive_a_restart(vm: &Vm) {
    assert_eq!(inside(vm, "systemd-many", "cp /etc/hostname /data/seed"), "");
    vm.tell("restart", "many.service");
    // The image's root is as it was; and who joined its network has gone with it, and come back.
    let many = Facts::of(vm, "many.service", 2);
    many.are(&[("volume", "many 0"), ("root-before", "fresh"), ("root-write", "written")]);
}

fn health_is_checked(vm: &Vm) {
    const SICK: &str = "/var/lib/containers/storage/volumes/health/_data/sick";
    vm.tell("start", "healthy.service");
    let health = |vm: &Vm| vm.service("healthy.service");
    assert_eq!(health(vm).state, "running", "it is up with its first good check");
    assert_eq!(health(vm).health.as_deref(), Some("healthy"));
    vm.wait_until("its log is a file", |vm| vm.shell("cat /run/healthy.log").contains("end=1"));
    assert!(!log_of(vm, "healthy.service").contains("end=1"));
    let before = health(vm).starts;
    vm.shell(&format!("busybox touch {SICK}"));
    vm.wait_until("it is restarted", |vm| health(vm).starts > before);
    vm.shell(&format!("busybox rm {SICK}"));
    vm.wait_until("it is healthy again", |vm| health(vm).health.as_deref() == Some("healthy"));
}

fn images_say_what_their_containers_do_not(vm: &Vm) {
    let told = Facts::of(vm, "told.service", 1);
    told.are(&[("volume", "seed 0")]);
    told.has("mount./data", &[" rw", "nosuid", "nodev"]);
    let health = |vm: &Vm| vm.service("told.service").health;
    vm.wait_until("its own check is good", |vm| health(vm).as_deref() == Some("healthy"));
    assert_eq!(inside(vm, "systemd-told", "rm /data/seed"), "");
    vm.wait_until("and then is not", |vm| health(vm).as_deref() == Some("unhealthy"));
    vm.tell("stop", "told.service");
    assert_eq!(vm.service("told.service").last_exit.as_deref(), Some("exited 7"));
    assert!(log_of(vm, "told.service").contains("got=usr1"));
    // A volume without a name goes with its container.
    vm.tell("start", "told.service");
    Facts::of(vm, "told.service", 2).are(&[("volume", "seed 0")]);
}

fn containers_stop_as_they_were_told(vm: &Vm) {
    vm.tell("stop", "strict.service");
    let ended = |vm: &Vm, service: &str| {
        let status = vm.service(service);
        (status.state != "running").then_some(status.last_exit).flatten()
    };
    vm.wait_until("it got its own signal", |vm| ended(vm, "strict.service").is_some());
    assert_eq!(ended(vm, "strict.service").as_deref(), Some("exited 7"));
    assert!(log_of(vm, "strict.service").contains("got=usr1"));

    // It would take a SIGTERM for ever.
    vm.tell("stop", "mapped.service");
    vm.wait_until("it is killed", |vm| ended(vm, "mapped.service").is_some());
    let left = vm.shell("ls /run/crun; grep -l ^0.*mapped /proc/*/cgroup 2>/dev/null");
    assert!(!left.contains("mapped"), "crun's record and all processes are gone: {left}");
}
