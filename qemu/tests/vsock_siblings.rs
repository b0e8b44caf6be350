//! The vsock device: from guests to the host, and from guest to guest.

mod vsock_guest;

use rouse_qemu::vsock::{Config, Device, Error};
use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::atomic::Ordering;
use vsock_guest::driver::{Driver, EventIndex};
use vsock_guest::peer::{Guest, Service};
use vsock_guest::{Bench, SERVICES, eventually, patient};

#[test]
fn a_guest_reaches_a_unix_socket_of_the_host() {
    let bench = Bench::new();
    let guest = bench.guest();
    let listener = UnixListener::bind(bench.path(".connect_5000")).unwrap();
    for round in 0..50 {
        let report = guest.connect(2, 5000, Service::Echo, b"from the guest");
        let mut stream = patient(listener.accept().unwrap().0);
        let mut asked = String::new();
        stream.read_to_string(&mut asked).unwrap();
        assert_eq!(asked, "from the guest", "with its end, in round {round}");
        stream.write_all(b"from the host").unwrap();
        drop(stream);
        eventually("the guest has closed", || report.closed.load(Ordering::SeqCst));
        assert_eq!(*report.bytes.lock().unwrap(), b"from the host");
    }
    bench.settle(&guest);
}

#[test]
fn what_is_not_there_is_reset() {
    let bench = Bench::new();
    let guest = bench.guest();
    drop(UnixListener::bind(bench.path(".connect_5001")).unwrap());
    for (cid, port) in [(2, 5000), (2, 5001), (0, 1), (1, 1), (3, 1000), (4, 1000), (1 << 32, 1)] {
        let report = guest.connect(cid, port, Service::Echo, b"hello?");
        eventually("it is reset", || report.closed.load(Ordering::SeqCst));
        assert!(!report.opened.load(Ordering::SeqCst), "{cid}:{port}");
    }
    bench.settle(&guest);
}

#[test]
fn a_full_listener_is_tried_again() {
    let bench = Bench::new();
    let guest = bench.guest();
    let listener = UnixListener::bind(bench.path(".connect_5000")).unwrap();
    rustix::net::listen(&listener, 0).unwrap();
    let reports: Vec<_> =
        (0..10).map(|_| guest.connect(2, 5000, Service::Echo, b"hello")).collect();
    eventually("the guest has asked", || guest.alive() == 10);
    for _ in 0..10 {
        let mut stream = patient(listener.accept().unwrap().0);
        let mut asked = String::new();
        stream.read_to_string(&mut asked).unwrap();
        assert_eq!(asked, "hello");
    }
    for report in reports {
        eventually("it is done", || report.closed.load(Ordering::SeqCst));
        assert!(report.opened.load(Ordering::SeqCst));
    }
    bench.settle(&guest);
}

/// Devices with a directory in common.
struct Street {
    folder: tempfile::TempDir,
}

impl Street {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    fn config(&self, cid: u32) -> Config {
        let mut config = Bench::config(&self.folder, cid);
        config.siblings = Some(self.folder.path().join("siblings"));
        config
    }

    fn house(&self, cid: u32) -> (Device, Guest) {
        let config = self.config(cid);
        let socket = config.vhost_user_socket.clone();
        let device = Device::start(config).unwrap();
        let guest = Guest::start(Driver::connect(&socket, EventIndex::On), SERVICES);
        (device, guest)
    }

    fn door(&self, cid: u32) -> UnixStream {
        let path = self.folder.path().join(format!("siblings/{cid}.sock"));
        patient(UnixStream::connect(path).unwrap())
    }
}

#[test]
fn guests_reach_each_other_by_cid() {
    let street = Street::new();
    let (seven_device, seven) = street.house(7);
    let (eight_device, eight) = street.house(8);
    let sent: Vec<u8> = (0..600_000).map(vsock_guest::pattern).collect();
    for _ in 0..20 {
        let there = seven.connect(8, 1000, Service::Echo, &sent);
        let back = eight.connect(7, 1000, Service::Echo, &sent);
        for report in [&there, &back] {
            eventually("the echo has ended", || report.closed.load(Ordering::SeqCst));
            assert!(*report.bytes.lock().unwrap() == sent);
        }
    }
    for (callers, cid) in [(eight.callers(), 7), (seven.callers(), 8)] {
        assert_eq!(callers.len(), 20);
        for (index, (source_cid, source_port, port)) in callers.into_iter().enumerate() {
            // The guests count their ports up from 50001.
            assert_eq!((source_cid, port), (cid, 1000));
            assert_eq!(source_port as usize, 50_001 + index);
        }
    }
    let refused = seven.connect(8, 9, Service::Echo, b"anybody?");
    eventually("it is refused", || refused.closed.load(Ordering::SeqCst));
    assert!(!refused.opened.load(Ordering::SeqCst));
    eventually("all connections end", || {
        seven_device.connections() == 0 && eight_device.connections() == 0
    });
}

#[test]
fn a_sibling_that_stops_ends_its_connections() {
    let street = Street::new();
    let (device, seven) = street.house(7);
    let (other_device, eight) = street.house(8);
    let report = seven.connect(8, 1003, Service::Hold, b"held");
    eventually("it is there", || report.opened.load(Ordering::SeqCst));
    drop(eight);
    drop(other_device);
    eventually("it has ended", || report.closed.load(Ordering::SeqCst));
    eventually("it is gone", || device.connections() == 0);
    let refused = seven.connect(8, 1000, Service::Echo, b"anybody?");
    eventually("it is refused", || refused.closed.load(Ordering::SeqCst));
    assert!(!refused.opened.load(Ordering::SeqCst));
}

#[test]
fn a_cid_is_not_given_twice() {
    let street = Street::new();
    let (device, guest) = street.house(7);
    let mut config = street.config(7);
    config.vhost_user_socket.set_extension("other");
    let busy = Error::BusyCid { cid: 7, process: std::process::id() as i32 };
    assert_eq!(Device::start(config).unwrap_err(), busy);
    drop((guest, device));
    Device::start(street.config(7)).unwrap();
}

#[test]
fn a_false_introduction_is_turned_away() {
    let street = Street::new();
    let (_device, guest) = street.house(7);
    for (line, answer) in [
        ("SIBLING 8 1 1000\n", "ERR forbidden\n"),
        ("SIBLING 7 1 1000\n", "ERR forbidden\n"),
        ("SIBLING 2 1 1000\n", "ERR forbidden\n"),
        ("SIBLING 4294967295 1 1000\n", "ERR forbidden\n"),
        ("SIBLING 8 1\n", "ERR request\n"),
        ("CONNECT 1000\n", "ERR request\n"),
    ] {
        let mut stream = street.door(7);
        stream.write_all(line.as_bytes()).unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        assert_eq!(text, answer, "{line}");
    }
    // A lock without its process is no proof.
    std::fs::write(street.folder.path().join("siblings/8.lock"), std::process::id().to_string())
        .unwrap();
    let mut stream = street.door(7);
    stream.write_all(b"SIBLING 8 1 1000\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    assert_eq!(text, "ERR forbidden\n");
    assert_eq!(guest.callers(), []);
}
