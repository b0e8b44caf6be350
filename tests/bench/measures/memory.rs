//! Memory of PID 1 and its like: at rest, for each socket, and after many activations. And the
//! sizes of their programs.

use crate::client::{Address, hellos};
use crate::measure::{Bound, Measure};
use crate::peer::{self, Accept, ROUSE, SYSTEMD};
use crate::props::Props;
use crate::room::{Needs, OWN, Room, name_of};
use rouse::static_build::Libc;
use rouse_tests::{ARCHITECTURES, INIT_LIMIT};
use std::time::Duration;

const LOG: &str = "rouse's log process beside it";
const PORT: u16 = 9000;

/// At rest, with one socket.
pub(crate) fn idle(props: &Props) -> Vec<Measure> {
    let how = "smaps_rollup of the process, a second after its start, with one socket or service.";
    let mut resident = Measure::new("memory-idle", "Memory at rest: resident", "kB", how)
        .limit(ROUSE, Bound::AtMost(200.0));
    let mut private = Measure::new(
        "memory-private",
        "Memory at rest: of its own (private and written to)",
        "kB",
        how,
    );
    for (name, tree, needs, set) in keepers() {
        match start(props, name, tree, needs, set) {
            Ok(room) => {
                std::thread::sleep(Duration::from_millis(props.pick(100, 1000, 1000)));
                let pids = room.processes();
                let Some(main) = pids.first() else {
                    resident.leave_out(name, &format!("it has ended: {}", room.log()));
                    continue;
                };
                let [rss, own] = Room::memory(*main);
                resident.add(name, rss);
                private.add(name, own);
                let note = format!("{} processes", pids.len());
                resident.note(name, &note);
                let log = pids.get(1).filter(|_| name == ROUSE);
                if let Some([rss, own]) = log.map(|pid| Room::memory(*pid)) {
                    resident.add(LOG, rss);
                    private.add(LOG, own);
                }
            }
            Err(why) => resident.leave_out(name, &why),
        }
    }
    vec![resident, private]
}

/// For each 1,000 sockets, and after many activations.
pub(crate) fn growth(props: &Props) -> Vec<Measure> {
    let how = "Resident memory of PID 1 with 1,001 sockets less that with one.";
    let mut thousand =
        Measure::new("memory-sockets", "Memory of 1,000 sockets", "kB", how).floor(SYSTEMD);
    let count = rouse_tests::count("ROUSE_BENCH_ACTIVATIONS", props.pick(20, 500, 100_000));
    let how = format!(
        "Resident memory of PID 1 after {count} activations of one socket (Accept=no), less that \
         after the first few; systemd a hundredth of them."
    );
    let mut after = Measure::new("memory-growth", "Memory after many activations", "kB", &how)
        .limit(ROUSE, Bound::AtMost(16.0));
    for name in [ROUSE, SYSTEMD] {
        let many = props.pick(20, 1000, 1000);
        let sizes = [1, many + 1].map(|sockets| {
            let mut room = manager(props, name, &format!("grow-{sockets}"), sockets)?;
            let size = Room::memory(main_of(&room)?)[0];
            room.stop();
            Ok::<f64, String>(size)
        });
        match sizes {
            [Ok(one), Ok(more)] => thousand.add(name, (more - one) * 1000.0 / f64::from(many)),
            [Err(why), _] | [_, Err(why)] => thousand.leave_out(name, &why),
        }
        let count = if name == SYSTEMD { count.div_ceil(100) } else { count };
        match grown(props, name, count as usize) {
            Ok(grown) => after.add(name, grown),
            Err(why) => after.leave_out(name, &why),
        }
    }
    vec![thousand, after]
}

fn grown(props: &Props, name: &'static str, count: usize) -> Result<f64, String> {
    let room = manager(props, name, "grown", 1)?;
    let address = Address::Tcp(PORT);
    hellos(&address, 10, Duration::from_millis(30))?;
    let main = main_of(&room)?;
    let before = Room::memory(main)[0];
    hellos(&address, count, Duration::ZERO)?;
    std::thread::sleep(Duration::from_millis(200));
    Ok(Room::memory(main)[0] - before)
}

/// rouse or systemd with so many sockets, from [`PORT`] on, all listening.
pub(crate) fn manager(
    props: &Props,
    name: &'static str,
    place: &str,
    sockets: u16,
) -> Result<Room, String> {
    let units: Vec<(String, String)> = (0..sockets)
        .flat_map(|index| {
            let at = format!("127.0.0.1:{}", PORT + index);
            peer::units(&format!("bench{index}"), &at, Accept::No)
        })
        .collect();
    let pid_1 = Needs { pid_1: true, ..Needs::default() };
    let mut room = match name {
        SYSTEMD => Room::new(&props.folder, place, props.tree("systemd")?, pid_1),
        _ => Room::new(&props.folder, place, None, Needs::default()),
    };
    let words = match name {
        SYSTEMD => {
            peer::install(&room, &units);
            peer::systemd_words()
        }
        _ => {
            std::fs::write(room.path("/run/manifest"), peer::manifest(&units)).unwrap();
            vec![OWN.into(), "run".into(), "/run/manifest".into()]
        }
    };
    room.start(words);
    listening(sockets).map_err(|why| format!("{why}: {}", room.log()))?;
    Ok(room)
}

/// Waits until so many ports from [`PORT`] on are listened on.
fn listening(sockets: u16) -> Result<(), String> {
    let end = std::time::Instant::now() + Duration::from_secs(300);
    loop {
        let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
        let ports = table.lines().filter_map(|line| {
            let mut words = line.split_whitespace().skip(1);
            let (_, port) = words.next()?.split_once(':')?;
            let port = u16::from_str_radix(port, 16).ok()?;
            words.nth(1).filter(|state| *state == "0A").map(|_| port)
        });
        let count = ports.filter(|port| (PORT..PORT + sockets).contains(port)).count();
        match count {
            count if count == usize::from(sockets) => return Ok(()),
            count if std::time::Instant::now() > end => {
                return Err(format!("{count} of {sockets} sockets listen after 300 s"));
            }
            _ => std::thread::sleep(Duration::from_millis(2)),
        }
    }
}

fn main_of(room: &Room) -> Result<u32, String> {
    // The log process has the same name, and is younger.
    let names = ["activator", "systemd"];
    let pids = room.processes();
    let main = pids.into_iter().find(|pid| names.contains(&name_of(*pid).as_str()));
    main.ok_or_else(|| format!("it has ended: {}", room.log()))
}

/// 10 to 10,000 sockets.
pub(crate) fn many(props: &Props) -> Vec<Measure> {
    let counts: &[u16] = props.pick(&[10][..], &[10, 100][..], &[10, 100, 1000, 10_000][..]);
    let how = "One service each, Accept=no, in namespaces.";
    let mut boot = Measure::new("many-boot", "Exec to all sockets listening", "ms", how);
    let mut memory = Measure::new("many-memory", "Resident memory of PID 1", "kB", how);
    let mut latency =
        Measure::new("many-latency", "Connect to first byte, by the number of sockets", "us", how);
    let (least, most) = (counts.first().unwrap(), counts.last().unwrap());
    latency =
        latency.goal(&format!("{ROUSE}, {most}"), &format!("{ROUSE}, {least}"), Bound::AtMost(1.1));
    let hellos_of = props.pick(3, 20, 50);
    for round in 0..props.rounds.div_ceil(3) {
        eprintln!("many: round {} of {}", round + 1, props.rounds.div_ceil(3));
        for sockets in counts {
            for name in [ROUSE, SYSTEMD] {
                let row = format!("{name}, {sockets}");
                let place = format!("many-{round}-{sockets}");
                let begun = std::time::Instant::now();
                let made = manager(props, name, &place, *sockets);
                let took = begun.elapsed().as_secs_f64() * 1e3;
                let pause = Duration::from_millis(if name == SYSTEMD { 25 } else { 2 });
                let asked = made.and_then(|room| {
                    let times = hellos(&Address::Tcp(PORT + sockets - 1), hellos_of, pause)?;
                    Ok((room, times))
                });
                match asked {
                    Ok((room, times)) => {
                        boot.add(&row, took);
                        memory.add(&row, Room::memory(main_of(&room).unwrap_or(0))[0]);
                        latency.add(&row, crate::statistics::quantile(&times, 0.5));
                    }
                    Err(why) => boot.leave_out(&row, &why),
                }
            }
        }
    }
    vec![boot, memory, latency]
}

/// Sizes of programs, and of what they load.
pub(crate) fn sizes(props: &Props) -> Vec<Measure> {
    let how = "Bytes of the program's file; in brackets, with the libraries that it loads. Of rouse \
        it is PID 1; `activator` is what PID 1 and people execute.";
    let mut size = Measure::new("size", "Size of the supervisor's program", "KiB", how)
        .limit(ROUSE, Bound::AtMost(300.0));
    let bytes = |path: &std::path::Path| std::fs::metadata(path).map(|it| it.len() as f64 / 1024.0);
    for (name, tree, path) in [
        ("C floor", "", "activate"),
        (ROUSE, "", "rouse/init"),
        ("rouse activator", "", "rouse/activator"),
        ("s6-svscan", "s6", "usr/bin/s6-svscan"),
        ("s6-supervise", "s6", "usr/bin/s6-supervise"),
        ("runsvdir", "runit", "usr/bin/runsvdir"),
        ("runsv", "runit", "usr/bin/runsv"),
        ("busybox", "busybox-static", "usr/bin/busybox"),
        ("tini", "tini", "usr/bin/tini-static"),
        ("finit", "finit", "usr/sbin/finit"),
        ("xinetd", "xinetd", "usr/sbin/xinetd"),
        ("openbsd-inetd", "openbsd-inetd", "usr/sbin/inetd"),
        ("socat", "socat", "usr/bin/socat"),
        ("haproxy", "haproxy", "usr/sbin/haproxy"),
        ("systemd", "systemd", "usr/lib/systemd/systemd"),
    ] {
        let place = match props.tree(tree) {
            Ok(None) => props.folder.join("bin").join(path),
            Ok(Some(tree)) => tree.join(path),
            Err(why) => {
                size.leave_out(name, &why);
                continue;
            }
        };
        match bytes(&place) {
            Ok(value) => size.add(name, value),
            Err(error) => size.leave_out(name, &format!("{}: {error}", place.display())),
        }
        let libraries = libraries(&place, props.tree(tree).ok().flatten());
        if !libraries.is_empty() {
            let all: f64 = libraries.iter().filter_map(|path| bytes(path).ok()).sum();
            size.note(name, &format!("and {all:.0} KiB in {} libraries", libraries.len()));
        }
    }
    let own = ["init", "activator"].map(|name| bytes(&props.folder.join("bin/rouse").join(name)));
    if let [Ok(init), Ok(activator)] = own {
        size.add("rouse, both", init + activator);
    }
    vec![size, guests()]
}

/// Sizes of what rouse carries for guests of both architectures.
fn guests() -> Measure {
    let how = "Bytes of what rouse carries for a guest, and the C library that it was linked with. \
        The goal is for musl.";
    let mut size = Measure::new("guest-size", "Size of a guest's programs", "bytes", how);
    for architecture in ARCHITECTURES {
        let programs = match rouse::guest::programs(architecture) {
            Ok(programs) => programs,
            Err(error) => {
                size.leave_out(architecture, &error.to_string());
                continue;
            }
        };
        for (name, program) in [("init", programs.init), ("activator", programs.activator)] {
            let row = format!("{name} of {architecture}");
            let libc = Libc::of(program);
            size.add(&row, program.len() as f64);
            size.note(&row, &libc.map_or_else(String::new, |libc| libc.to_string()));
            if name == "init" && libc == Some(Libc::Musl) {
                size = size.limit(&row, Bound::AtMost(INIT_LIMIT as f64));
            }
        }
    }
    size
}

/// All shared libraries that a program of a tree loads.
fn libraries(program: &std::path::Path, tree: Option<&std::path::Path>) -> Vec<std::path::PathBuf> {
    let Some(tree) = tree else { return vec![] };
    let triplet = format!("usr/lib/{}-linux-gnu", std::env::consts::ARCH);
    let folders = [tree.join(&triplet), tree.join(&triplet).join("systemd"), tree.join("usr/lib")];
    let (mut found, mut open) = (vec![], vec![program.to_owned()]);
    while let Some(path) = open.pop() {
        let output = std::process::Command::new("readelf").arg("-d").arg(&path).output();
        let text = output.map(|it| String::from_utf8_lossy(&it.stdout).into_owned());
        for line in text.unwrap_or_default().lines().filter(|line| line.contains("(NEEDED)")) {
            let Some((_, name)) = line.split_once('[') else { continue };
            let name = name.trim_end_matches(']');
            let place = folders.iter().map(|folder| folder.join(name)).find(|path| path.exists());
            if let Some(place) = place.filter(|place| !found.contains(place)) {
                found.push(place.clone());
                open.push(place);
            }
        }
    }
    found
}

type Keeper = (&'static str, &'static str, Needs, fn(&Room) -> Vec<String>);

/// Everybody who stays.
fn keepers() -> Vec<Keeper> {
    let (here, pid_1) = (Needs::default(), Needs { pid_1: true, ..Needs::default() });
    vec![
        ("C floor", "", here, |_| words(&["/mnt/bin/activate", "wait", "tcp", "9000", "/x"])),
        (ROUSE, "", here, |room| {
            let units = peer::units("bench", "127.0.0.1:9000", Accept::No);
            std::fs::write(room.path("/run/manifest"), peer::manifest(&units)).unwrap();
            words(&[OWN, "run", "/run/manifest"])
        }),
        ("rouse relay", "", here, |_| {
            words(&[OWN, "activate", "--now", "-l", "9000", OWN, "relay", "127.0.0.1:1"])
        }),
        ("s6-svscan", "s6", pid_1, |room| {
            room.write("/run/service/one/run", "#!/mnt/bin/service wait 9\n");
            words(&["/usr/bin/s6-svscan", "/run/service"])
        }),
        ("runsvdir", "runit", pid_1, |room| {
            room.write("/run/service/one/run", "#!/mnt/bin/service\n");
            words(&["/usr/bin/runsvdir", "/run/service"])
        }),
        ("busybox init", "busybox-static", pid_1, |room| {
            room.write("/etc/inittab", "::respawn:/usr/bin/busybox sleep 1000\n");
            std::os::unix::fs::symlink("/usr/bin/busybox", room.path("/run/init")).unwrap();
            words(&["/run/init"])
        }),
        ("finit", "finit", pid_1, |room| {
            room.write("/etc/finit.conf", "");
            words(&["/usr/sbin/finit"])
        }),
        ("tini", "tini", pid_1, |_| {
            words(&["/usr/bin/tini-static", "--", "/mnt/bin/activate", "wait", "tcp", "9001", "/x"])
        }),
        ("xinetd", "xinetd", here, |room| {
            let text = "defaults\n{\n}\nservice bench\n{\n type = UNLISTED\n port = 9002\n \
                        socket_type = stream\n protocol = tcp\n wait = no\n user = root\n \
                        server = /mnt/bin/service\n}\n";
            room.write("/etc/xinetd.conf", text);
            words(&["/usr/sbin/xinetd", "-dontfork", "-f", "/etc/xinetd.conf"])
        }),
        ("openbsd-inetd", "openbsd-inetd", here, |room| {
            room.write("/etc/inetd.conf", "9003 stream tcp nowait root /mnt/bin/service service\n");
            words(&["/usr/sbin/inetd", "-i", "/etc/inetd.conf"])
        }),
        ("socat", "socat", here, |_| {
            words(&["/usr/bin/socat", "TCP4-LISTEN:9004,fork", "EXEC:/x"])
        }),
        ("systemd-socket-activate", "systemd", here, |_| {
            words(&["/usr/bin/systemd-socket-activate", "-l", "9005", "/mnt/bin/service"])
        }),
        ("systemd-socket-proxyd", "systemd", here, |_| {
            let proxyd = "/usr/lib/systemd/systemd-socket-proxyd";
            // Its own starts at the first client only.
            words(&[OWN, "activate", "--now", "-l", "9006", proxyd, "127.0.0.1:1"])
        }),
        (SYSTEMD, "systemd", pid_1, |room| {
            peer::install(room, &peer::units("bench", "127.0.0.1:9007", Accept::No));
            peer::systemd_words()
        }),
    ]
}

fn start(
    props: &Props,
    name: &str,
    tree: &str,
    needs: Needs,
    set: fn(&Room) -> Vec<String>,
) -> Result<Room, String> {
    let place = format!("memory-{}", name.replace(' ', "-"));
    let mut room = Room::new(&props.folder, &place, props.tree(tree)?, needs);
    let words = set(&room);
    room.start(words);
    Ok(room)
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(ToString::to_string).collect()
}
