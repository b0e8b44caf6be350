//! A guest in this process: what the tests of the vsock device run against.
#![allow(dead_code, missing_docs, unreachable_pub)]

pub mod driver;
pub mod peer;

use driver::{Driver, EventIndex};
use peer::{Guest, Service};
use rouse_qemu::vsock::{Config, Device, Publish, PublishAddress, State};
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// The bytes that are sent: each differs from its neighbours, and blocks from each other.
pub fn pattern(at: u64) -> u8 {
    (at.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8
}

/// A sum that depends on the place of each byte.
pub fn add(sum: u64, at: u64, byte: u8) -> u64 {
    sum.rotate_left(5) ^ at.wrapping_mul(u64::from(byte) + 1)
}

/// Echo on 1000, and a service on each following port.
pub const SERVICES: &[(u32, Service)] = &[
    (1000, Service::Echo),
    (1001, Service::Count),
    (1002, Service::Send(1 << 20)),
    (1003, Service::Hold),
    (1004, Service::Reset),
    (1005, Service::Bye),
    (1006, Service::Deaf),
    (1007, Service::Mute),
    (1008, Service::Late(3)),
];

/// A device with a published echo port, in a folder of its own.
pub struct Bench {
    pub device: Option<Device>,
    pub folder: tempfile::TempDir,
}

impl Bench {
    pub fn config(folder: &tempfile::TempDir, cid: u32) -> Config {
        let at = |name: &str| folder.path().join(format!("{cid}{name}"));
        let mut config = Config::new(cid, at(".vhost"), at(".connect"));
        for (port, _) in SERVICES {
            let listen = PublishAddress::UnixPath(folder.path().join(format!("{cid}.{port}")));
            config.publish.push(Publish { listen, port: *port });
        }
        config
    }

    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let device = Device::start(Self::config(&folder, 3)).unwrap();
        Self { device: Some(device), folder }
    }

    pub fn guest(&self) -> Guest {
        self.guest_with(EventIndex::On)
    }

    pub fn guest_with(&self, event_index: EventIndex) -> Guest {
        Guest::start(self.driver(event_index), SERVICES)
    }

    pub fn driver(&self, event_index: EventIndex) -> Driver {
        Driver::connect(&self.path(".vhost"), event_index)
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(format!("3{name}"))
    }

    /// A client of a published port.
    pub fn client(&self, port: u32) -> UnixStream {
        patient(UnixStream::connect(self.path(&format!(".{port}"))).unwrap())
    }

    /// A client of the connect socket that has said its line.
    pub fn caller(&self, line: &str) -> UnixStream {
        let mut stream = patient(UnixStream::connect(self.path(".connect")).unwrap());
        stream.write_all(line.as_bytes()).unwrap();
        stream
    }

    pub fn device(&self) -> &Device {
        self.device.as_ref().unwrap()
    }

    /// Waits until no connection is left on either side.
    pub fn settle(&self, guest: &Guest) {
        eventually("all connections end", || {
            self.device().connections() == 0 && guest.alive() == 0
        });
    }

    pub fn ready(&self) {
        eventually("the driver is ready", || self.device().state() == State::Ready);
    }
}

/// A stream that fails rather than hangs.
pub fn patient(stream: UnixStream) -> UnixStream {
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    stream.set_write_timeout(Some(Duration::from_secs(60))).unwrap();
    stream
}

/// Writes, ends at once, and reads to the end.
pub fn say_and_end(stream: &mut UnixStream, bytes: &[u8]) -> Vec<u8> {
    stream.write_all(bytes).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    answer
}

/// Waits for something that must come.
pub fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let limit = Instant::now() + Duration::from_secs(60);
    while !is_so() {
        assert!(Instant::now() < limit, "in vain: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// The size of large transfers, in bytes.
pub fn large() -> u64 {
    count("ROUSE_VSOCK_BYTES", 64 << 20)
}

/// A number of connections or the like, from the environment. Printed on stderr itself: what
/// println! writes is shown of tests that fail only.
pub fn count<T: std::str::FromStr + std::fmt::Display>(variable: &str, default: T) -> T {
    let value = std::env::var(variable).map_or(default, |text| {
        text.parse().unwrap_or_else(|_| panic!("{variable}={text} is no number"))
    });
    let _ = writeln!(std::io::stderr(), "{variable}={value}");
    value
}
