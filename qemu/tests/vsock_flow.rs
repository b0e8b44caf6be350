//! The vsock device: half-closes, credit, slow readers, resets, and large amounts.

mod vsock_guest;

use rouse_qemu::vsock::{Device, Publish, PublishAddress};
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::time::Duration;
use vsock_guest::driver::EventIndex;
use vsock_guest::peer::Service;
use vsock_guest::{Bench, add, count, eventually, large, pattern, say_and_end};

/// Writes `total` bytes of the pattern; the sum of them.
fn send_pattern(stream: &mut UnixStream, total: u64) -> u64 {
    let (mut at, mut sum) = (0, 0);
    while at < total {
        let len = (total - at).min(1 << 16);
        let block: Vec<u8> = (at..at + len).map(pattern).collect();
        for byte in &block {
            sum = add(sum, at, *byte);
            at += 1;
        }
        stream.write_all(&block).unwrap();
    }
    sum
}

/// Reads to the end; how many bytes came, all of them right.
fn read_pattern(stream: &mut UnixStream) -> u64 {
    let mut at = 0;
    let mut block = vec![0; 1 << 16];
    loop {
        let count = stream.read(&mut block).unwrap();
        if count == 0 {
            return at;
        }
        for byte in &block[..count] {
            assert_eq!(*byte, pattern(at), "byte {at} is wrong");
            at += 1;
        }
    }
}

#[test]
fn many_bytes_to_the_guest() {
    let bench = Bench::new();
    let guest = bench.guest();
    let mut stream = bench.client(1001);
    let sum = send_pattern(&mut stream, large());
    stream.shutdown(Shutdown::Write).unwrap();
    let mut report = Vec::new();
    stream.read_to_end(&mut report).unwrap();
    assert_eq!(report[..8], large().to_le_bytes(), "the count");
    assert_eq!(report[8..], sum.to_le_bytes(), "the sum");
    drop(stream);
    bench.settle(&guest);
}

#[test]
fn many_bytes_from_the_guest() {
    let bench = Bench::new();
    let guest = vsock_guest::peer::Guest::start(
        bench.driver(EventIndex::On),
        &[(1000, Service::Send(large()))],
    );
    let mut stream = bench.client(1000);
    stream.shutdown(Shutdown::Write).unwrap();
    assert_eq!(read_pattern(&mut stream), large());
    drop(stream);
    bench.settle(&guest);
}

#[test]
fn many_bytes_both_ways_on_several_connections() {
    let bench = Bench::new();
    let guest = bench.guest();
    let each = large() / 8;
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let mut stream = bench.client(1000);
                let mut writer = stream.try_clone().unwrap();
                let writing = std::thread::spawn(move || {
                    send_pattern(&mut writer, each);
                    writer.shutdown(Shutdown::Write).unwrap();
                });
                assert_eq!(read_pattern(&mut stream), each);
                writing.join().unwrap();
            });
        }
    });
    bench.settle(&guest);
}

#[test]
fn the_guest_may_end_first() {
    let bench = Bench::new();
    let guest = bench.guest();
    let mut stream = bench.client(1002);
    assert_eq!(read_pattern(&mut stream), 1 << 20);
    // The guest has ended, and still reads: our direction is open.
    assert_eq!(guest.alive(), 1);
    stream.write_all(&vec![0; 3 << 20]).unwrap();
    assert_eq!(guest.alive(), 1);
    drop(stream);
    bench.settle(&guest);
}

#[test]
fn a_client_that_closes_at_once_is_heard() {
    let bench = Bench::new();
    let guest = bench.guest();
    for _ in 0..100 {
        bench.client(1001).write_all(b"last words").unwrap();
    }
    eventually("all words have come", || guest.received() == 100 * 10);
    bench.settle(&guest);
    assert_eq!(guest.callers().len(), 100);
}

#[test]
fn a_guest_that_closes_at_once_is_heard() {
    let bench = Bench::new();
    let guest = bench.guest();
    for _ in 0..100 {
        let mut answer = String::new();
        bench.client(1005).read_to_string(&mut answer).unwrap();
        assert_eq!(answer, "bye");
    }
    bench.settle(&guest);
}

#[test]
fn a_guest_that_receives_no_more_may_still_send() {
    let bench = Bench::new();
    let guest = bench.guest();
    let mut stream = bench.client(1006);
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert_eq!(answer, "still here");
    // std ignores SIGPIPE: the host is told with an error that nobody reads.
    assert_eq!(stream.write_all(b"hello?").unwrap_err().kind(), ErrorKind::BrokenPipe);
    bench.settle(&guest);
}

#[test]
fn a_reset_of_the_guest_reaches_the_host() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = Bench::config(&folder, 3);
    for port in [1000, 1004] {
        let listen = PublishAddress::Tcp(([127, 0, 0, 1], 0).into());
        config.publish.push(Publish { listen, port });
    }
    let bench = Bench { device: Some(Device::start(config).unwrap()), folder };
    let guest = bench.guest();
    let mut stream = bench.client(1004);
    stream.write_all(b"x").unwrap();
    assert!(matches!(stream.read(&mut [0]), Ok(0) | Err(_)));
    let mut stream = tcp(&bench, 1004);
    stream.write_all(b"x").unwrap();
    assert_eq!(stream.read(&mut [0]).unwrap_err().kind(), ErrorKind::ConnectionReset);
    // And the other way: a host that resets is reset for the guest.
    let mut stream = tcp(&bench, 1000);
    stream.write_all(b"x").unwrap();
    stream.read_exact(&mut [0]).unwrap();
    assert_eq!(guest.alive(), 1);
    rustix::net::sockopt::set_socket_linger(&stream, Some(Duration::ZERO)).unwrap();
    drop(stream);
    bench.settle(&guest);
}

fn tcp(bench: &Bench, port: u32) -> TcpStream {
    let address = |publish: &Publish| -> Option<SocketAddr> {
        match publish.listen {
            PublishAddress::Tcp(address) if publish.port == port => Some(address),
            _ => None,
        }
    };
    let address = bench.device().published().iter().find_map(address).unwrap();
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    stream
}

#[test]
fn a_guest_that_does_not_read_stops_nobody_else() {
    let bench = Bench::new();
    let guest = bench.guest();
    let mut stuck: Vec<_> = (0..10).map(|_| bench.client(1003)).collect();
    let mut written = vec![0; stuck.len()];
    for (stream, written) in stuck.iter_mut().zip(&mut written) {
        stream.set_nonblocking(true).unwrap();
        // Credit, and what the socket holds: the writer is stopped soon after that.
        while *written < 256 << 10 {
            *written += stream.write(&[7; 65536]).unwrap_or(0);
        }
        while let Ok(count) = stream.write(&[7; 65536]) {
            *written += count;
            assert!(*written < 4 << 20, "somebody holds {written} bytes");
        }
    }
    for _ in 0..100 {
        assert_eq!(say_and_end(&mut bench.client(1000), b"hello"), b"hello");
    }
    guest.release();
    for (mut stream, written) in stuck.into_iter().zip(written) {
        stream.set_nonblocking(false).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let mut echoed = Vec::new();
        stream.read_to_end(&mut echoed).unwrap();
        assert_eq!(echoed.len(), written);
        assert!(echoed.iter().all(|byte| *byte == 7));
    }
    bench.settle(&guest);
}

#[test]
fn a_host_that_does_not_read_stops_nobody_else() {
    let bench = Bench::new();
    let guest = vsock_guest::peer::Guest::start(
        bench.driver(EventIndex::On),
        &[(1000, Service::Echo), (1002, Service::Send(8 << 20))],
    );
    let stuck: Vec<_> = (0..20).map(|_| bench.client(1002)).collect();
    eventually("they are there", || guest.alive() == 20);
    for _ in 0..100 {
        assert_eq!(say_and_end(&mut bench.client(1000), b"hello"), b"hello");
    }
    for mut stream in stuck {
        stream.shutdown(Shutdown::Write).unwrap();
        assert_eq!(read_pattern(&mut stream), 8 << 20);
    }
    bench.settle(&guest);
}

#[test]
fn a_slow_reader_gets_what_was_sent_before_the_guest_closed() {
    let bench = Bench::new();
    // More than the host's socket holds (net.core.wmem_default, 208 KiB): the rest is with the
    // device when the guest is done.
    let size = 300 << 10;
    let driver = bench.driver(EventIndex::On);
    let guest = vsock_guest::peer::Guest::start(driver, &[(1000, Service::Send(size))]);
    let mut stream = bench.client(1000);
    stream.shutdown(Shutdown::Write).unwrap();
    eventually("the guest has closed", || guest.ended() == 1);
    assert_eq!(bench.device().connections(), 1);
    assert_eq!(read_pattern(&mut stream), size);
    bench.settle(&guest);
}

#[test]
fn a_client_that_leaves_a_flood_ends_it() {
    let bench = Bench::new();
    let guest = vsock_guest::peer::Guest::start(
        bench.driver(EventIndex::On),
        &[(1000, Service::Send(u64::MAX))],
    );
    for _ in 0..20 {
        let mut stream = bench.client(1000);
        stream.read_exact(&mut vec![0; 100_000]).unwrap();
        drop(stream);
    }
    bench.settle(&guest);
}

#[test]
fn a_tcp_client_that_still_writes_reads_the_last_words() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = Bench::config(&folder, 3);
    let listen = PublishAddress::Tcp(([127, 0, 0, 1], 0).into());
    config.publish.push(Publish { listen, port: 1005 });
    let bench = Bench { device: Some(Device::start(config).unwrap()), folder };
    let guest = bench.guest();
    for _ in 0..50 {
        let mut stream = tcp(&bench, 1005);
        // A close with these bytes unread would be a reset, and take "bye" with it.
        for _ in 0..10 {
            stream.write_all(&[0; 10_000]).unwrap();
        }
        stream.shutdown(Shutdown::Write).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert_eq!(answer, "bye");
    }
    bench.settle(&guest);
}

#[test]
fn conversations_of_any_shape_are_echoed() {
    let bench = Bench::new();
    let guest = bench.guest();
    let many = count("ROUSE_VSOCK_CONVERSATIONS", 200);
    std::thread::scope(|scope| {
        for thread in 0..4_u64 {
            let bench = &bench;
            scope.spawn(move || {
                let mut seed = thread + 1;
                let mut random = |below: u64| {
                    seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    (seed >> 33) % below
                };
                for _ in 0..many / 4 {
                    converse(bench, &mut random);
                }
            });
        }
    });
    bench.settle(&guest);
}

/// Writes and reads amounts of all sizes in any order, ends its direction at some point, and
/// expects everything back.
fn converse(bench: &Bench, random: &mut impl FnMut(u64) -> u64) {
    let mut stream = match random(2) {
        0 => bench.client(1000),
        _ => {
            let mut stream = bench.caller("CONNECT 1000\n");
            let mut byte = [0];
            // One at a time, so that nothing of what follows is taken.
            while byte != *b"\n" {
                stream.read_exact(&mut byte).unwrap();
            }
            stream
        }
    };
    let size = 1 << random(20);
    let total = random(size) + 1;
    let (mut written, mut read) = (0, 0);
    let mut block = vec![0; 100_000];
    while written < total {
        let len = (random(size) + 1).min(total - written).min(100_000);
        let bytes: Vec<u8> = (written..written + len).map(pattern).collect();
        stream.write_all(&bytes).unwrap();
        written += len;
        // Never more on the way than the sockets and the credit hold: nobody reads meanwhile.
        while written - read > 200_000 || (read < written && random(2) == 0) {
            let count = stream.read(&mut block).unwrap();
            assert!(count > 0, "it ended after {read} of {written} bytes");
            for byte in &block[..count] {
                assert_eq!(*byte, pattern(read));
                read += 1;
            }
        }
    }
    stream.shutdown(Shutdown::Write).unwrap();
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).unwrap();
    assert_eq!(read + rest.len() as u64, total);
    assert!(rest.iter().zip(read..).all(|(byte, at)| *byte == pattern(at)));
}
