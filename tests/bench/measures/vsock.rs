//! rouse's vsock device, from a Unix socket on the host to the echo server in a guest and back.

use crate::client::{Address, hello};
use crate::measure::Measure;
use crate::props::{Props, Size};
use crate::statistics::quantile;
use rouse_tests::{Appliance, Vm};
use std::io::{Read, Write};
use std::time::Instant;

/// Bytes written at once; less than what is under way in both directions, so that nobody waits.
const CHUNK: usize = 16 * 1024;

/// Bytes, round trips, connections.
pub(crate) fn run(props: &Props) -> Vec<Measure> {
    let how = "Through `rouse run --publish` to the tutorial's echo server, awake, in a guest.";
    let new = |id: &str, title: &str, unit: &str| Measure::new(id, title, unit, how);
    let mut bytes = new("vsock-bytes", "vsock: bytes per second, there and back", "MB/s");
    let mut trip = new("vsock-trip", "vsock: round trip of one byte", "us");
    let mut rate = new("vsock-rate", "vsock: connections per second, one client", "1/s");
    if props.size == Size::Smoke {
        bytes.leave_out("all", "a guest is not part of so short a run");
        return vec![bytes];
    }
    let why = "Debian has no package of it, and the bench compiles nobody else's code";
    bytes.leave_out("vhost-device-vsock", why);
    if !std::path::Path::new("/dev/vhost-vsock").exists() {
        bytes.leave_out("vhost-vsock", "this kernel has no /dev/vhost-vsock");
    }
    let folder = tempfile::Builder::new().prefix("vsock").tempdir_in("/tmp").unwrap();
    let path = folder.path().join("echo.sock");
    let publish = format!("{}=3000", path.display());
    let appliance = Appliance::of_config("echo");
    let vm = Vm::start(&appliance, "vsock", &["--publish", &publish]);
    let address = Address::Unix(path);
    hello(&address).unwrap();
    let name = "rouse's device";
    for round in 0..props.rounds {
        eprintln!("vsock: round {} of {}", round + 1, props.rounds);
        bytes.add(name, echo(&address, props.pick(1, 4, 32) << 20));
        trip.add(name, quantile(&round_trips(&address, props.pick(1, 100, 1000)), 0.5));
        let count = props.pick(1, 20, 200);
        let begun = Instant::now();
        for _ in 0..count {
            hello(&address).unwrap();
        }
        rate.add(name, f64::from(count) / begun.elapsed().as_secs_f64());
    }
    drop(vm);
    vec![bytes, trip, rate]
}

/// MB/s; every byte that comes back is looked at.
fn echo(address: &Address, bytes: usize) -> f64 {
    let mut stream = address.connect().unwrap();
    let sent: Vec<u8> = (0..CHUNK).map(|index| (index * 31 % 251) as u8).collect();
    let mut heard = vec![0; CHUNK];
    let begun = Instant::now();
    for _ in 0..bytes / CHUNK {
        stream.write_all(&sent).unwrap();
        stream.read_exact(&mut heard).unwrap();
        assert_eq!(sent, heard, "a wrong byte");
    }
    bytes as f64 / 1e6 / begun.elapsed().as_secs_f64()
}

fn round_trips(address: &Address, count: usize) -> Vec<f64> {
    let mut stream = address.connect().unwrap();
    let mut byte = [b'x'];
    let mut one = || {
        let begun = Instant::now();
        stream.write_all(&byte).unwrap();
        stream.read_exact(&mut byte).unwrap();
        begun.elapsed().as_secs_f64() * 1e6
    };
    (0..=count).map(|_| one()).skip(1).collect()
}
