//! Containers in VMs, asleep until a client on the host connects over vsock: by engine, beside the
//! bare program, beside `podman run` as the tutorial has it, and thawed. And the memory that they
//! take while they sleep.

use crate::client::hybrid;
use crate::measure::{Bound, Measure};
use crate::props::{Props, Size};
use rouse::static_build;
use rouse_tests::{Appliance, Rouse, Vm, cache};
use std::io::{Read, Write};
use std::path::Path;
use std::time::{Duration, Instant};

const CRUN: &str = "engine crun";
const PODMAN: &str = "engine podman";
const DIRECT: &str = "podman run, by activator activate";
const DIRECT_SYSTEMD: &str = "podman run, by systemd-socket-activate";
const BARE: &str = "the program alone";
const FROZEN: &str = "frozen";
const RUNNING: &str = "running";

const IMAGE: &str = "ghcr.io/eriksjolund/socket-activate-echo";
/// Vsock ports.
const ECHO: u32 = 3000;
const BARE_PORT: u32 = 5001;
const NAP_PORT: u32 = 5002;
const DIRECT_PORT: u32 = 5003;
const DIRECT_SYSTEMD_PORT: u32 = 5004;
/// Of the first of many.
const MANY_PORT: u32 = 6000;

/// All of it.
pub(crate) fn run(props: &Props) -> Vec<Measure> {
    let how = "The echo server's image in two VMs of one kernel and memory, one for each engine, that \
               take turns: from connect(2) on the host, over vsock, to the first echoed byte. The \
               container is stopped before each turn.";
    let mut cold = Measure::new("container-cold", "A container that was asleep", "ms", how)
        .floor(BARE)
        .goal(PODMAN, CRUN, Bound::AtLeast(10.0));
    let how = "The same for a container of engine crun that was frozen when idle, and right after.";
    let mut thaw =
        Measure::new("container-thaw", "A container that was frozen", "ms", how).floor(RUNNING);
    let how = "Kernel, initramfs and disk as `rouse build` writes them.";
    let mut size = Measure::new("container-size", "An appliance with one container", "KiB", how);
    let many = props.pick(2, 40, 100);
    let how = format!(
        "What a VM with {many} of them has in use (anonymous and cached pages, slab, kernel stacks, page \
         tables, per-CPU), less that of one without, for each: a socket unit and the container or \
         service that it starts. All are of one image, and each was awake once."
    );
    let mut asleep =
        Measure::new("container-asleep", "Memory of a container that sleeps", "KiB", &how);
    if props.size == Size::Smoke {
        cold.leave_out("all", "a guest is not part of so short a run");
        return vec![cold];
    }
    for round in 1..=props.rounds.min(3) {
        eprintln!("container: memory, round {round} of {}", props.rounds.min(3));
        let nobody = used(&sleeping(0, CRUN));
        for name in [BARE, CRUN] {
            asleep.add(name, (used(&sleeping(many, name)) - nobody) / f64::from(many));
        }
    }
    let (with_crun, with_podman) = (with_crun(), with_podman());
    let one = Appliance::of_config("echo");
    let other = of_podman(Appliance::of_config("echo"), "echo");
    for (name, appliance) in [("no container", &Appliance::tiny()), (CRUN, &one), (PODMAN, &other)]
    {
        size.add(name, built(appliance));
    }
    let crun = Vm::start(&with_crun, "bench-crun", &[]);
    let podman = Vm::start(&with_podman, "bench-podman", &[]);
    let rounds = props.rounds.min(5);
    for round in 0..=rounds {
        eprintln!("container: round {round} of {rounds}, behind one that is not counted");
        let add = |measure: &mut Measure, name: &str, took: f64| {
            // What is read from a disk for the first time is in no later turn.
            if round > 0 {
                measure.add(name, took);
            }
        };
        for (vm, name, service, port) in [
            (&crun, BARE, "bare.service", BARE_PORT),
            (&crun, CRUN, "echo.service", ECHO),
            (&podman, PODMAN, "echo.service", ECHO),
        ] {
            rest(vm, service);
            add(&mut cold, name, hello(vm, port));
        }
        for (name, service, port) in [
            (DIRECT, "direct.service", DIRECT_PORT),
            (DIRECT_SYSTEMD, "direct-systemd.service", DIRECT_SYSTEMD_PORT),
        ] {
            rest(&podman, service);
            podman.tell("start", service);
            add(&mut cold, name, hello(&podman, port));
        }

        hello(&crun, NAP_PORT);
        crun.wait_until("it is frozen", |vm| vm.service("nap.service").state == "frozen");
        add(&mut thaw, FROZEN, hello(&crun, NAP_PORT));
        add(&mut thaw, RUNNING, hello(&crun, NAP_PORT));
    }
    vec![cold, thaw, size, asleep]
}

/// The guest with so many containers, or services that run the same program; each was awake once,
/// since first uses take memory that a boot has not.
fn sleeping(many: u16, what: &str) -> Vm {
    let guest = with_bare(Appliance::guest(), "");
    let stop = "[Service]\nX-StopWhenIdleSec=1\n";
    let appliance = (0..many).fold(guest, |appliance, index| {
        let (file, text) = match what {
            BARE => ("service", format!("{stop}ExecStart=/usr/bin/bare\n")),
            _ => ("container", format!("{stop}[Container]\nImage={IMAGE}\nNetwork=none\n")),
        };
        appliance
            .with(&format!("many{index}.socket"), &socket(MANY_PORT + u32::from(index)))
            .with(&format!("many{index}.{file}"), &text)
    });
    let vm = Vm::start(&appliance, "bench-asleep", &[]);
    for port in std::iter::once(ECHO).chain((0..many).map(|index| MANY_PORT + u32::from(index))) {
        hello(&vm, port);
    }
    vm.tell("stop", "echo.service");
    vm.wait_until("all are asleep again", |vm| {
        vm.status().services.iter().all(|service| {
            service.state == "dead"
                || !(service.name.starts_with("many") || service.name == "echo.service")
        })
    });
    vm
}

/// KiB that the guest has in use, by what for. What is left of all differs by megabytes from boot to
/// boot.
fn used(vm: &Vm) -> f64 {
    let text = vm.shell("echo 3 >/proc/sys/vm/drop_caches; sleep 1; cat /proc/meminfo");
    let kinds = ["AnonPages:", "Cached:", "Slab:", "KernelStack:", "PageTables:", "Percpu:"];
    let mut all = 0.0;
    for line in text.lines() {
        let mut words = line.split_ascii_whitespace();
        if words.next().is_some_and(|kind| kinds.contains(&kind)) {
            all += words.next().unwrap().parse::<f64>().unwrap();
        }
    }
    all
}

fn with_crun() -> Appliance {
    with_bare(Appliance::guest(), "\n[vm]\nmemory = 1536\n")
        .with("bare.socket", &socket(BARE_PORT))
        .with("bare.service", "[Service]\nExecStart=/usr/bin/bare\n")
        .with("nap.socket", &socket(NAP_PORT))
        .with(
            "nap.container",
            &format!(
                "[Container]\nImage={IMAGE}\nNetwork=none\n\n[Service]\nX-FreezeWhenIdleSec=1\n"
            ),
        )
}

/// An appliance with the image's program as `/usr/bin/bare`, and more in appliance.toml.
fn with_bare(appliance: Appliance, more: &str) -> Appliance {
    let bare = appliance.path().join("bare");
    std::fs::write(&bare, program(&appliance.path().join("server"))).unwrap();
    std::fs::set_permissions(&bare, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let text = std::fs::read_to_string(appliance.path().join("appliance.toml")).unwrap();
    let text = format!("{text}{more}\n[files]\n\"/usr/bin/bare\" = \"bare\"\n");
    appliance.with("appliance.toml", &text)
}

/// The image's one program, as the image has it.
pub(super) fn program(folder: &Path) -> Vec<u8> {
    let package = static_build::Package {
        folder,
        member: None,
        profile: "release",
        architecture: std::env::consts::ARCH,
        target_directory: &cache().join("cargo"),
    };
    static_build::build(&package).unwrap().content.to_vec()
}

fn with_podman() -> Appliance {
    let direct = |activate: &str, port: u32, name: &str| {
        format!(
            "[Service]\nEnvironment=HOME=/root\nTimeoutStopSec=120\n\
             ExecStart={activate} -l vsock::{port} /usr/bin/podman run --rm \
             --replace --name {name} --network=none {IMAGE}\n\
             ExecStopPost=-/usr/bin/podman rm -f -t 0 {name}\n"
        )
    };
    let ours = direct("/usr/bin/activator activate", DIRECT_PORT, "direct");
    let systemds =
        direct("/usr/bin/systemd-socket-activate", DIRECT_SYSTEMD_PORT, "direct-systemd");
    of_podman(Appliance::guest(), "guest")
        .replace("appliance.toml", "\"socat\",", "\"socat\", \"systemd\",")
        .with("direct.service", &ours)
        .with("direct-systemd.service", &systemds)
}

/// The same appliance with the other engine.
pub(super) fn of_podman(appliance: Appliance, name: &str) -> Appliance {
    let text = memory(&appliance, &format!("name = \"{name}\"\n"));
    appliance.with("appliance.toml", &text)
}

/// appliance.toml with memory for Podman, and with engine podman if its `name` line is given.
pub(super) fn memory(appliance: &Appliance, name: &str) -> String {
    let text = std::fs::read_to_string(appliance.path().join("appliance.toml")).unwrap();
    let text = match name {
        "" => text,
        name => text.replace(name, &format!("{name}engine = \"podman\"\n")),
    };
    format!("{text}\n[vm]\nmemory = 1536\n")
}

fn socket(port: u32) -> String {
    format!("[Socket]\nListenStream=vsock::{port}\n\n[Install]\nWantedBy=sockets.target\n")
}

/// KiB of all files of an image.
fn built(appliance: &Appliance) -> f64 {
    let output = Rouse::new().run(["build".as_ref(), appliance.path().as_os_str()]).success();
    let folder = output.text();
    let files = std::fs::read_dir(Path::new(folder.trim_end())).unwrap().map(Result::unwrap);
    let boots = |name: &str| {
        name == "kernel" || name == rouse::output::INITRAMFS || name.starts_with("root.")
    };
    let sizes = files
        .filter(|entry| entry.file_name().to_str().is_some_and(boots))
        .map(|entry| entry.metadata().unwrap().len() as f64);
    sizes.sum::<f64>() / 1024.0
}

/// Stops a service and waits until nothing of it is left.
fn rest(vm: &Vm, service: &str) {
    vm.tell("stop", service);
    vm.wait_until("it sleeps", |vm| {
        ["dead", "failed"].contains(&vm.service(service).state.as_str())
    });
}

/// Milliseconds from connect(2) to the first byte. Where nobody listens yet, it tries again.
fn hello(vm: &Vm, port: u32) -> f64 {
    let path = vm.rouse.runtime().join(&vm.name).join("vsock.sock");
    let end = Instant::now() + Duration::from_secs(600);
    loop {
        let begun = Instant::now();
        match ask(&path, port) {
            Ok(()) => return begun.elapsed().as_secs_f64() * 1e3,
            Err(error) => assert!(Instant::now() < end, "{}: port {port}: {error}", vm.name),
        }
        std::thread::sleep(Duration::from_millis(200));
    }
}

fn ask(path: &Path, port: u32) -> std::io::Result<()> {
    let mut stream = hybrid(path, port)?;
    stream.set_read_timeout(Some(Duration::from_secs(600)))?;
    stream.write_all(b"hello\n")?;
    stream.read_exact(&mut [0])
}
