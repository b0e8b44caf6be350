//! vsock devices, from a Unix socket on the host to the echo server in a guest and back.

use crate::client::hybrid;
use crate::measure::{Bound, Measure};
use crate::props::{Props, Size};
use crate::qemu::Qemu;
use crate::statistics::quantile;
use rouse_tests::{Appliance, Rouse};
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Bytes written at once; less than what is under way in both directions, so that nobody waits.
const CHUNK: usize = 16 * 1024;
/// Turns that may break before the bench gives up on a device.
const TURNS: usize = 100;
/// The tutorial's.
const PORT: u32 = 3000;

const OWN: &str = "rouse's device";
const PEER: &str = "vhost-device-vsock";
/// The peer's version, on crates.io; no distribution has a package of it.
const VERSION: &str = "0.3.0";

/// Bytes, round trips, connections.
pub(crate) fn run(props: &Props) -> Vec<Measure> {
    let how = "Two VMs of one kernel and image, one for each device, that take turns: through the \
               device's Unix socket on the host (`CONNECT 3000`) to the tutorial's echo server, awake.";
    let new = |id: &str, title: &str, unit: &str| Measure::new(id, title, unit, how);
    let mut bytes = new("vsock-bytes", "vsock: bytes per second, there and back", "MB/s").goal(
        OWN,
        PEER,
        Bound::AtLeast(1.0),
    );
    let mut trip = new("vsock-trip", "vsock: round trip of one byte", "us").goal(
        OWN,
        PEER,
        Bound::AtMost(1.0),
    );
    let mut rate = new("vsock-rate", "vsock: connections per second, one client", "1/s").goal(
        OWN,
        PEER,
        Bound::AtLeast(1.0),
    );
    if props.size == Size::Smoke {
        bytes.leave_out("all", "a guest is not part of so short a run");
        return vec![bytes];
    }
    if !Path::new("/dev/vhost-vsock").exists() {
        bytes.leave_out("vhost-vsock", "this kernel has no /dev/vhost-vsock");
    }
    let appliance = Appliance::of_config("echo");
    let output =
        Rouse::new().run(["build".as_ref(), appliance.path().as_os_str()]).success().text();
    let image = Path::new(output.trim_end());
    let folder = tempfile::Builder::new().prefix("vsock").tempdir_in("/tmp").unwrap();
    let mut guests = vec![];
    for (name, start) in [(OWN, own as Start), (PEER, peer)] {
        match Guest::start(image, &folder.path().join(name.replace(' ', "-")), start) {
            Ok(guest) => guests.push((name, guest)),
            Err(why) => bytes.leave_out(name, &why),
        }
    }
    let mut broken = vec![0; guests.len()];
    for round in 0..props.rounds {
        eprintln!("vsock: round {} of {}", round + 1, props.rounds);
        for ((name, Guest { socket, .. }), broken) in guests.iter().zip(&mut broken) {
            let values = loop {
                match turn(props, socket) {
                    Ok(values) => break values,
                    Err(error) if *broken == TURNS => panic!("{name}: {error}"),
                    Err(_) => *broken += 1,
                }
            };
            for (measure, value) in [&mut bytes, &mut trip, &mut rate].into_iter().zip(values) {
                measure.add(name, value);
            }
        }
    }
    for ((name, _), broken) in guests.iter().zip(broken).filter(|(_, broken)| *broken > 0) {
        bytes.note(name, &format!("{broken} turns were tried again: a connection broke"));
    }
    vec![bytes, trip, rate]
}

/// Bytes per second, the median round trip, connections per second.
fn turn(props: &Props, socket: &Path) -> std::io::Result<[f64; 3]> {
    let bytes = echo(socket, props.pick(1, 4, 32) << 20)?;
    let trip = quantile(&round_trips(socket, props.pick(1, 100, 1000))?, 0.5);
    let count = props.pick(1, 20, 200);
    let begun = Instant::now();
    for _ in 0..count {
        hello(socket)?;
    }
    Ok([bytes, trip, f64::from(count) / begun.elapsed().as_secs_f64()])
}

/// Starts a device whose guest has this CID, with a socket for QEMU and one for clients.
type Start = fn(u32, &Path, &Path) -> Result<Device, String>;

/// It ends when it is dropped.
enum Device {
    Own { _threads: rouse_qemu::vsock::Device },
    Peer(Child),
}

impl Drop for Device {
    fn drop(&mut self) {
        if let Self::Peer(child) = self {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn own(cid: u32, vhost: &Path, socket: &Path) -> Result<Device, String> {
    let config = rouse_qemu::vsock::Config::new(cid, vhost, socket);
    let threads = rouse_qemu::vsock::Device::start(config).map_err(|error| error.to_string())?;
    Ok(Device::Own { _threads: threads })
}

fn peer(cid: u32, vhost: &Path, socket: &Path) -> Result<Device, String> {
    let of_vm = format!("guest-cid={cid},uds-path={},socket={}", socket.display(), vhost.display());
    let mut command = Command::new(installed()?);
    command.args(["--vm", &of_vm]).stdin(Stdio::null()).stderr(Stdio::null());
    Ok(Device::Peer(command.spawn().map_err(|error| error.to_string())?))
}

/// A VM with one of the devices.
struct Guest {
    qemu: Child,
    /// On which the device takes connections to the guest.
    socket: PathBuf,
    _device: Device,
}

impl Guest {
    /// `folder` is its own, and short.
    fn start(image: &Path, folder: &Path, start: Start) -> Result<Self, String> {
        std::fs::create_dir(folder).unwrap();
        let (vhost, socket) = (folder.join("vhost"), folder.join("socket"));
        let device = start(77, &vhost, &socket)?;
        wait(&vhost)?;
        let mut qemu = Qemu::find(image.join(rouse::output::KERNEL))
            .command(&image.join(rouse::output::INITRAMFS), Some("shared"));
        qemu.args(["-object", "memory-backend-memfd,id=shared,size=768M,share=on"]);
        qemu.args(["-chardev", &format!("socket,id=vhost,path={}", vhost.display())]);
        qemu.args(["-device", "vhost-user-vsock-pci,chardev=vhost"]).stdout(Stdio::null());
        let qemu = qemu.spawn().map_err(|error| error.to_string())?;
        let guest = Self { qemu, socket, _device: device };
        let end = Instant::now() + Duration::from_secs(180);
        while hello(&guest.socket).is_err() {
            if Instant::now() > end {
                return Err("the guest did not answer".into());
            }
            std::thread::sleep(Duration::from_millis(200));
        }
        Ok(guest)
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let _ = self.qemu.kill();
        let _ = self.qemu.wait();
    }
}

fn wait(path: &Path) -> Result<(), String> {
    let end = Instant::now() + Duration::from_secs(20);
    while !path.exists() {
        if Instant::now() > end {
            return Err(format!("it made no {}", path.display()));
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

/// The peer's program, compiled once into the tests' cache.
fn installed() -> Result<PathBuf, String> {
    let folder = rouse_tests::cache().join(format!("{PEER}-{VERSION}"));
    let program = folder.join("bin").join(PEER);
    if !program.exists() {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let mut command = Command::new(cargo);
        command.args(["install", "--locked", "--version", VERSION, PEER, "--root"]).arg(&folder);
        // For this machine, whatever the guests are compiled for and with.
        command.env_remove("RUSTC").env_remove("RUSTFLAGS").current_dir("/");
        let output = command.stdin(Stdio::null()).output().map_err(|error| error.to_string())?;
        if !output.status.success() {
            let text = String::from_utf8_lossy(&output.stderr);
            let line = text.lines().find(|line| line.starts_with("error")).unwrap_or("no reason");
            return Err(format!("cargo install failed: {line}"));
        }
    }
    Ok(program)
}

/// With the device's answer, a byte there and back, and the end of the connection.
fn hello(socket: &Path) -> std::io::Result<()> {
    let mut stream = connect(socket)?;
    stream.write_all(b"x")?;
    stream.read_exact(&mut [0])
}

fn connect(socket: &Path) -> std::io::Result<UnixStream> {
    let stream = hybrid(socket, PORT)?;
    stream.set_read_timeout(Some(Duration::from_secs(60)))?;
    Ok(stream)
}

/// MB/s; every byte that comes back is looked at.
fn echo(socket: &Path, bytes: usize) -> std::io::Result<f64> {
    let mut stream = connect(socket)?;
    let sent: Vec<u8> = (0..CHUNK).map(|index| (index * 31 % 251) as u8).collect();
    let mut heard = vec![0; CHUNK];
    let begun = Instant::now();
    for _ in 0..bytes / CHUNK {
        stream.write_all(&sent)?;
        stream.read_exact(&mut heard)?;
        assert_eq!(sent, heard, "a wrong byte");
    }
    Ok(bytes as f64 / 1e6 / begun.elapsed().as_secs_f64())
}

fn round_trips(socket: &Path, count: usize) -> std::io::Result<Vec<f64>> {
    let mut stream = connect(socket)?;
    let mut byte = [b'x'];
    let mut one = || {
        let begun = Instant::now();
        stream.write_all(&byte)?;
        stream.read_exact(&mut byte)?;
        Ok(begun.elapsed().as_secs_f64() * 1e6)
    };
    // Without the first, which may wake somebody.
    (0..=count).map(|_| one()).skip(1).collect()
}
