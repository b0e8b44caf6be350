//! The vsock device against a guest in this process: the ways in, and how many may take them.

mod vsock_guest;

use rouse_qemu::vsock::{Device, Error, Limits, Publish, PublishAddress, State};
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::unix::net::UnixStream;
use std::time::Duration;
use vsock_guest::driver::EventIndex;
use vsock_guest::peer::Command;
use vsock_guest::{Bench, count, eventually, patient, say_and_end};

#[test]
fn hello_a_thousand_times_with_an_immediate_half_close() {
    let bench = Bench::new();
    for event_index in [EventIndex::On, EventIndex::Off] {
        let guest = bench.guest_with(event_index);
        for round in 0..1000 {
            let text = format!("hello {round}");
            assert_eq!(say_and_end(&mut bench.client(1000), text.as_bytes()), text.as_bytes());
        }
        bench.settle(&guest);
    }
}

#[test]
fn payload_may_come_with_the_handshake() {
    let bench = Bench::new();
    let _guest = bench.guest();
    for _ in 0..100 {
        let mut stream = bench.caller("CONNECT 1000\nhello ");
        let answer = say_and_end(&mut stream, b"world");
        let text = String::from_utf8(answer).unwrap();
        let (first, rest) = text.split_once('\n').unwrap();
        assert!(first.strip_prefix("OK ").unwrap().parse::<u32>().is_ok(), "{first}");
        assert_eq!(rest, "hello world");
    }
}

#[test]
fn what_cannot_be_had_is_said() {
    let bench = Bench::new();
    let guest = bench.guest();
    // Earlier clients would be patient.
    bench.ready();
    for (line, answer) in [
        ("CONNECT 9\n", "ERR refused\n"),
        ("CONNECT 9\nwith payload", "ERR refused\n"),
        ("CONNECT x\n", "ERR request\n"),
        ("connect 1000\n", "ERR request\n"),
        ("GET / HTTP/1.1\r\n", "ERR request\n"),
        ("SIBLING 4 1 1000\n", "ERR request\n"),
    ] {
        let mut stream = bench.caller(line);
        let mut bytes = vec![0; answer.len()];
        stream.read_exact(&mut bytes).unwrap();
        assert_eq!(String::from_utf8(bytes).unwrap(), answer, "{line}");
        // The end, or a reset if the payload was not read.
        assert!(matches!(stream.read(&mut [0]), Ok(0) | Err(_)));
    }
    let mut stream = bench.caller(&"x".repeat(100));
    assert_eq!(read_text(&mut stream), "ERR request\n");
    bench.settle(&guest);
}

fn read_text(stream: &mut UnixStream) -> String {
    let mut bytes = Vec::new();
    // A reset after the text is fine: it had not read all that we wrote.
    let _ = stream.read_to_end(&mut bytes);
    String::from_utf8(bytes).unwrap()
}

#[test]
fn clients_wait_for_the_driver() {
    let bench = Bench::new();
    assert_eq!(bench.device().state(), State::Waiting);
    let mut early: Vec<_> = (0..20).map(|_| bench.client(1000)).collect();
    early.extend((0..20).map(|_| bench.caller("CONNECT 1000\n")));
    for stream in &mut early {
        stream.write_all(b"early").unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
    }
    let gone = bench.client(1000);
    eventually("all are held", || bench.device().connections() == 41);
    drop(gone);
    eventually("a client that left is forgotten", || bench.device().connections() == 40);
    let driver = bench.driver(EventIndex::On);
    eventually("QEMU is seen", || bench.device().state() == State::Connected);
    let guest = vsock_guest::peer::Guest::start(driver, vsock_guest::SERVICES);
    for (index, stream) in early.iter_mut().enumerate() {
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.ends_with("early"), "{index}: {answer}");
    }
    assert_eq!(bench.device().state(), State::Ready);
    assert_eq!(guest.callers().len(), 40);
    bench.settle(&guest);
    drop(guest);
    eventually("QEMU's end is seen", || bench.device().state() == State::Waiting);
}

#[test]
fn early_clients_wait_for_the_listener_too_and_late_ones_do_not() {
    let bench = Bench::new();
    let mut early = bench.caller("CONNECT 1008\n");
    eventually("it is held", || bench.device().connections() == 1);
    let guest = bench.guest();
    let answer = String::from_utf8(say_and_end(&mut early, b"hello")).unwrap();
    assert!(answer.starts_with("OK ") && answer.ends_with("\nhello"), "{answer}");
    assert_eq!(guest.callers().len(), 4, "three refusals were not believed");
    drop(early);
    bench.settle(&guest);
    drop(guest);
    eventually("QEMU's end is seen", || bench.device().state() == State::Waiting);
    let guest = bench.guest();
    bench.ready();
    for _ in 0..3 {
        assert_eq!(read_text(&mut bench.caller("CONNECT 1008\n")), "ERR refused\n");
    }
    assert_eq!(say_and_end(&mut bench.client(1008), b"hello"), b"hello");
    bench.settle(&guest);
}

#[test]
fn waits_have_an_end() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = Bench::config(&folder, 3);
    let soon = Duration::from_millis(100);
    config.limits = Limits { driver: soon, answer: soon, handshake: soon, close: soon };
    let bench = Bench { device: Some(Device::start(config).unwrap()), folder };
    assert_eq!(read_text(&mut bench.caller("CONNECT 1000\n")), "ERR timeout\n", "no driver");
    assert_eq!(read_text(&mut bench.client(1000)), "", "no driver");
    assert_eq!(read_text(&mut bench.caller("CONNE")), "ERR timeout\n", "no line");
    let guest = bench.guest();
    bench.ready();
    assert_eq!(read_text(&mut bench.caller("CONNECT 1007\n")), "ERR timeout\n", "no answer");
    bench.settle(&guest);
}

#[test]
fn a_thousand_connections_at_once() {
    let bench = Bench::new();
    let guest = bench.guest();
    let many = count("ROUSE_VSOCK_CONNECTIONS", 1000);
    let mut streams: Vec<_> = (0..many).map(|_| bench.client(1000)).collect();
    for (index, stream) in streams.iter_mut().enumerate() {
        stream.write_all(format!("this is {index}").as_bytes()).unwrap();
    }
    eventually("the guest has them all", || guest.alive() == many as u32);
    assert_eq!(bench.device().connections(), many);
    for (index, stream) in streams.iter_mut().enumerate() {
        assert_eq!(say_and_end(stream, b"!"), format!("this is {index}!").as_bytes());
    }
    drop(streams);
    bench.settle(&guest);
}

#[test]
fn many_in_a_row_leave_nothing_behind() {
    let bench = Bench::new();
    let guest = bench.guest();
    say_and_end(&mut bench.client(1000), b"warm");
    bench.settle(&guest);
    let many = count("ROUSE_VSOCK_SEQUENCE", 5000);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..many / 4 {
                    assert_eq!(say_and_end(&mut bench.client(1000), b"x"), b"x");
                }
            });
        }
    });
    bench.settle(&guest);
    // Every one had a port of its own, as far as there are live ones to compare with.
    let callers = guest.callers();
    assert_eq!(callers.len(), 1 + many / 4 * 4);
}

#[test]
fn published_tcp_ports_take_a_free_port_and_reset_what_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = Bench::config(&folder, 3);
    let free = PublishAddress::Tcp(([127, 0, 0, 1], 0).into());
    config.publish.push(Publish { listen: free.clone(), port: 1000 });
    config.publish.push(Publish { listen: free, port: 9 });
    let bench = Bench { device: Some(Device::start(config).unwrap()), folder };
    let guest = bench.guest();
    let address = |port: u32| {
        let of_port = |publish: &&Publish| {
            publish.port == port && matches!(publish.listen, PublishAddress::Tcp(_))
        };
        match bench.device().published().iter().find(of_port).unwrap().listen {
            PublishAddress::Tcp(address) => address,
            PublishAddress::UnixPath(_) => unreachable!(),
        }
    };
    for _ in 0..100 {
        let mut stream = TcpStream::connect(address(1000)).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        stream.write_all(b"hello").unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert_eq!(answer, "hello");
    }
    let mut stream = TcpStream::connect(address(9)).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let error = stream.read(&mut [0]).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    bench.settle(&guest);
}

#[test]
fn a_restart_of_the_guest_ends_its_connections_and_no_others() {
    let bench = Bench::new();
    let guest = bench.guest();
    for _ in 0..5 {
        let mut before: Vec<_> = (0..10).map(|_| bench.client(1000)).collect();
        for stream in &mut before {
            stream.write_all(b"x").unwrap();
            stream.read_exact(&mut [0]).unwrap();
        }
        guest.command(Command::Restart);
        for stream in &mut before {
            assert!(matches!(stream.read(&mut [0]), Ok(0) | Err(_)));
        }
        eventually("they are gone", || bench.device().connections() == 0);
        assert_eq!(say_and_end(&mut bench.client(1000), b"after"), b"after");
    }
    bench.settle(&guest);
}

#[test]
fn another_qemu_may_follow() {
    let bench = Bench::new();
    let open = || std::fs::read_dir("/proc/self/fd").unwrap().count();
    drop(bench.guest());
    let before = open();
    for _ in 0..20 {
        let guest = bench.guest();
        assert_eq!(say_and_end(&mut bench.client(1000), b"hello"), b"hello");
        drop(guest);
        eventually("it is gone", || bench.device().state() == State::Waiting);
    }
    // Other tests of this process open and close files at the same time.
    eventually("no descriptor stays open", || open() < before + 20);
}

#[test]
fn a_device_that_stops_takes_everything_with_it() {
    let mut bench = Bench::new();
    let guest = bench.guest();
    let mut client = bench.client(1000);
    client.write_all(b"x").unwrap();
    client.read_exact(&mut [0]).unwrap();
    let mut caller = bench.caller("CONNECT 1000\n");
    caller.read_exact(&mut [0]).unwrap();
    bench.device.take().unwrap().shutdown();
    assert!(matches!(client.read(&mut [0]), Ok(0) | Err(_)));
    assert!(std::fs::read_dir(bench.folder.path()).unwrap().next().is_none());
    drop(guest);
    let again = Device::start(Bench::config(&bench.folder, 3)).unwrap();
    assert_eq!((again.guest_cid(), again.state()), (3, State::Waiting));
}

#[test]
fn what_is_in_use_is_named() {
    let bench = Bench::new();
    let other = tempfile::tempdir().unwrap();
    let mut config = Bench::config(&other, 3);
    config.publish.truncate(1);
    config.publish[0].listen = PublishAddress::UnixPath(bench.path(".1000"));
    let error = Device::start(config.clone()).unwrap_err();
    assert_eq!(error, Error::BusySocket(bench.path(".1000")));
    assert!(std::fs::read_dir(other.path()).unwrap().next().is_none(), "nothing is left");
    for cid in [0, 1, 2, u32::MAX] {
        config.guest_cid = cid;
        assert_eq!(Device::start(config.clone()).unwrap_err(), Error::ReservedCid(cid));
    }
    assert!(patient(UnixStream::connect(bench.path(".1000")).unwrap()).write_all(b"x").is_ok());
}
