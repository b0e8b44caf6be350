//! A VM from the kernel's "Run /init" until three sockets are listened on; and what stands in the
//! initramfs for that.

use crate::measure::{Bound, Measure};
use crate::peer::units;
use crate::props::{Props, Size};
use crate::qemu::Qemu;
use crate::{peer::Accept, peer::FLOOR, peer::ROUSE};
use rouse::tree::{Kind, Node, Tree};
use rouse_tests::{Appliance, Rouse};
use std::io::{BufRead, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

const SYSTEMD: &str = "systemd, as Debian has it";

/// What an init boots from.
struct Image {
    name: &'static str,
    initramfs: PathBuf,
}

/// All of it.
pub(crate) fn run(props: &Props) -> Vec<Measure> {
    let how = "Under QEMU, the same kernel for all, from the line \"Run /init\" on its console to the \
               line of a program that each init starts, which looks whether ports 3000 to 3002 are \
               listened on. Inits without socket activation start three C floors as services.";
    let mut boot = Measure::new("boot", "Boot: \"Run /init\" to all sockets listening", "ms", how)
        .floor(FLOOR)
        .goal(ROUSE, FLOOR, Bound::AtMost(1.2))
        .goal(SYSTEMD, ROUSE, Bound::AtLeast(13.0));
    let how = "Kernel modules left out, zstd as rouse compresses.";
    let mut size = Measure::new("initramfs", "Initramfs of the same appliances", "KiB", how);
    if props.size == Size::Smoke {
        boot.leave_out("all", "a guest is not part of so short a run");
        return vec![boot];
    }
    let appliance = appliance(props);
    let rouse = Rouse::new();
    let output = rouse.run(["build".as_ref(), appliance.path().as_os_str()]).success();
    let built = PathBuf::from(output.text().trim_end());
    let mut images = vec![];
    for (name, tree, set) in inits() {
        match props.tree(tree) {
            Ok(packages) => {
                let tree = tree_of(props, packages, set);
                let initramfs = props.folder.join(format!("initramfs-{}", images.len()));
                let file = std::fs::File::create(&initramfs).unwrap();
                let mut file = zstd::Encoder::new(file, 3).unwrap();
                rouse::output::cpio::write(&tree, &mut file).unwrap();
                file.finish().unwrap();
                images.push(Image { name, initramfs });
            }
            Err(why) => boot.leave_out(name, &why),
        }
    }
    images.insert(1, Image { name: ROUSE, initramfs: built.join(rouse::output::INITRAMFS) });
    for image in &images {
        size.add(image.name, without_modules(&image.initramfs) as f64 / 1024.0);
    }
    let qemu = Qemu::find(built.join(rouse::output::KERNEL));
    for round in 0..props.rounds.div_ceil(2) {
        eprintln!("boot: round {} of {}", round + 1, props.rounds.div_ceil(2));
        images.retain(|image| match time(&qemu, &image.initramfs) {
            Ok(took) => {
                boot.add(image.name, took);
                true
            }
            Err(why) => {
                boot.rows.retain(|row| row.name != image.name);
                boot.leave_out(image.name, &why);
                false
            }
        });
    }
    vec![boot, size]
}

/// Three sockets, and the service that looks whether they listen.
fn appliance(props: &Props) -> Appliance {
    let files = "name = \"bench\"\n\n[files]\n\"/usr/bin/service\" = \"service\"\n\
                 \"/usr/bin/ready\" = \"ready\"\n";
    let mut appliance = Appliance::empty().with("appliance.toml", files);
    for name in ["service", "ready"] {
        std::fs::copy(props.folder.join("bin").join(name), appliance.path().join(name)).unwrap();
    }
    for (name, text) in bench_units() {
        appliance = appliance.with(&name, &text);
    }
    appliance
}

/// Three sockets and their services.
pub(super) fn sockets() -> impl Iterator<Item = (String, String)> {
    (3000..3003).flat_map(|port| {
        units(&format!("bench{port}"), &format!("127.0.0.1:{port}"), Accept::No)
            .map(|(name, text)| (name, text.replace(crate::peer::SERVICE, "/usr/bin/service")))
    })
}

fn bench_units() -> Vec<(String, String)> {
    let ready = "[Unit]\nDefaultDependencies=no\n\n[Service]\nExecStart=/usr/bin/ready\n\n\
                 [Install]\nWantedBy=multi-user.target\n";
    sockets().chain([("ready.service".into(), ready.into())]).collect()
}

type Set = fn(&mut Tree);

fn inits() -> Vec<(&'static str, &'static str, Set)> {
    vec![
        (FLOOR, "", |_| {}),
        ("s6-svscan", "s6", |tree| {
            next(tree, "/usr/bin/s6-svscan\n/service\n");
            services(tree);
        }),
        ("runit's runsvdir", "runit", |tree| {
            next(tree, "/usr/bin/runsvdir\n/service\n");
            services(tree);
        }),
        ("busybox init", "busybox-static", |tree| {
            next(tree, "/etc/init\n");
            tree.insert("/etc/init", Node::symlink("/usr/bin/busybox", "bench")).unwrap();
            let lines: String = commands().iter().map(|it| format!("::respawn:{it}\n")).collect();
            tree.insert("/etc/inittab", Node::file(lines.into_bytes(), 0o644, "bench")).unwrap();
        }),
        ("finit", "finit", |tree| {
            next(tree, "/usr/sbin/finit\n");
            let lines: String = commands()
                .iter()
                .enumerate()
                .map(|(index, it)| format!("service :{index} [S12345] {it} --\n"))
                .collect();
            tree.replace("/etc/finit.conf", Node::file(lines.into_bytes(), 0o644, "bench"))
                .unwrap();
        }),
        (SYSTEMD, "systemd", |tree| {
            tree.replace("/init", Node::symlink("/usr/lib/systemd/systemd", "bench")).unwrap();
            let wants = "/etc/systemd/system/sockets.target.wants";
            for (name, text) in bench_units() {
                let path = format!("/etc/systemd/system/{name}");
                tree.insert(&path, Node::file(text.into_bytes(), 0o644, "bench")).unwrap();
                if name.ends_with(".socket") {
                    let link = Node::symlink(format!("../{name}"), "bench");
                    tree.insert(&format!("{wants}/{name}"), link).unwrap();
                }
            }
            let wants = "/etc/systemd/system/multi-user.target.wants/ready.service";
            tree.insert(wants, Node::symlink("../ready.service", "bench")).unwrap();
            let default = Node::symlink("/usr/lib/systemd/system/multi-user.target", "bench");
            tree.insert("/etc/systemd/system/default.target", default).unwrap();
            // Without an id it asks who is there.
            let id = b"0123456789abcdef0123456789abcdef\n".to_vec();
            tree.replace("/etc/machine-id", Node::file(id, 0o644, "bench")).unwrap();
        }),
    ]
}

/// Three activators, and the program that looks for them.
fn commands() -> Vec<String> {
    let one = |port| format!("/usr/bin/activate wait tcp {port} /usr/bin/service wait 3");
    (3000..3003).map(one).chain(["/usr/bin/ready".into()]).collect()
}

fn services(tree: &mut Tree) {
    for (index, command) in commands().into_iter().enumerate() {
        let run = format!("#!/usr/bin/launch {command}\n").into_bytes();
        tree.insert(&format!("/service/{index}/run"), Node::file(run, 0o755, "bench")).unwrap();
    }
}

fn next(tree: &mut Tree, words: &str) {
    tree.insert("/etc/next", Node::file(words.as_bytes().to_vec(), 0o644, "bench")).unwrap();
}

fn tree_of(props: &Props, packages: Option<&Path>, set: Set) -> Tree {
    let mut tree = Tree::plain();
    let origin: Arc<str> = "bench".into();
    if let Some(packages) = packages {
        for folder in ["usr", "etc"].into_iter().filter(|folder| packages.join(folder).is_dir()) {
            let from = packages.join(folder);
            tree.insert_from_disk(&format!("/{folder}"), &from, &origin).unwrap();
        }
        for name in ["bin", "sbin", "lib", "lib64"] {
            let link = Node::symlink(format!("usr/{name}"), "bench");
            tree.insert(&format!("/{name}"), link).unwrap();
        }
    }
    for name in ["service", "activate", "ready", "launch"] {
        let from = props.folder.join("bin").join(name);
        tree.insert_from_disk(&format!("/usr/bin/{name}"), &from, &origin).unwrap();
    }
    let from = props.folder.join("bin/init");
    tree.insert_from_disk("/init", &from, &origin).unwrap();
    for folder in ["/dev", "/etc", "/proc", "/sys", "/run", "/tmp", "/var", "/root"] {
        let _ = tree.make_directory(folder, 0o755, "bench");
    }
    let console = Kind::CharacterDevice(5, 1);
    tree.insert("/dev/console", Node::new(console, 0o600, "bench")).unwrap();
    set(&mut tree);
    tree
}

/// Milliseconds.
fn time(qemu: &Qemu, initramfs: &Path) -> Result<f64, String> {
    let mut child = qemu.command(initramfs, None).spawn().map_err(|error| error.to_string())?;
    let (mut begun, mut took, mut last) = (None, None, String::new());
    let end = Instant::now() + std::time::Duration::from_secs(180);
    let (sender, lines) = std::sync::mpsc::channel();
    let stdout = child.stdout.take().unwrap();
    std::thread::spawn(move || {
        let mut stdout = std::io::BufReader::new(stdout);
        let mut line = vec![];
        while stdout.read_until(b'\n', &mut line).is_ok_and(|count| count > 0) {
            let text = String::from_utf8_lossy(&line).trim().to_owned();
            if sender.send((Instant::now(), text)).is_err() {
                return;
            }
            line.clear();
        }
    });
    while let Ok((at, line)) = lines.recv_timeout(end.saturating_duration_since(Instant::now())) {
        if line.contains("Run /init as init process") {
            begun = Some(at);
        }
        if line == "READY" {
            took = begun.map(|begun| at.duration_since(begun).as_secs_f64() * 1e3);
            break;
        }
        last = line;
    }
    // It may have switched itself off.
    let _ = child.kill();
    child.wait().map_err(|error| error.to_string())?;
    took.ok_or_else(|| format!("its sockets were never listened on; it last said: {last}"))
}

/// Bytes of an initramfs, compressed again without /usr/lib/modules.
pub(super) fn without_modules(initramfs: &Path) -> usize {
    let mut archive = Vec::new();
    let file = std::fs::File::open(initramfs).unwrap();
    zstd::Decoder::new(file).unwrap().read_to_end(&mut archive).unwrap();
    let mut kept = Vec::new();
    let mut at = 0;
    // cpio(5), "newc": a header of 110 bytes with hexadecimal numbers, the name, the content.
    while at < archive.len() && archive[at..].starts_with(b"070701") {
        let number = |index: usize| {
            let digits = &archive[at + 6 + 8 * index..at + 14 + 8 * index];
            usize::from_str_radix(std::str::from_utf8(digits).unwrap(), 16).unwrap()
        };
        let (size, name) = (number(6), number(11));
        let end = (at + 110 + name).next_multiple_of(4);
        let next = (end + size).next_multiple_of(4);
        if !archive[at + 110..at + 109 + name].starts_with(b"usr/lib/modules") {
            kept.extend_from_slice(&archive[at..next]);
        }
        at = next;
    }
    zstd::encode_all(&kept[..], super::image::level(kept.len() as u64)).unwrap().len()
}
