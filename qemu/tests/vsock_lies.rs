//! The vsock device against a guest that lies: whatever it writes into its queues, the device
//! lives on, gives the descriptors back, and serves the next driver.

mod vsock_guest;

use rouse_qemu::vsock::Device;
use std::io::{Read, Write};
use std::time::Duration;
use vsock_guest::driver::{Driver, EventIndex, Header};
use vsock_guest::peer::{DATA, Guest, NO_RECEIVE, NO_SEND, REQUEST, RESET, RESPONSE, SHUTDOWN};
use vsock_guest::{Bench, SERVICES, count, eventually, say_and_end};

/// A generator that gives the same numbers for the same seed.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (self.0 >> 33) % limit
    }

    /// Mostly small, now and then anything.
    fn number(&mut self) -> u32 {
        match self.below(4) {
            0 => self.below(8) as u32,
            1 => u32::MAX - self.below(3) as u32,
            2 => self.below(1 << 20) as u32,
            _ => self.below(1 << 32) as u32,
        }
    }
}

/// The driver is an honest one from now on.
fn reform(bench: &Bench, mut driver: Driver) {
    // Clients that wait for a driver get this one.
    driver.stop();
    let guest = Guest::start(driver, SERVICES);
    for _ in 0..10 {
        assert_eq!(say_and_end(&mut bench.client(1000), b"hello"), b"hello");
    }
    bench.settle(&guest);
}

fn liar(bench: &Bench) -> Driver {
    let mut driver = bench.driver(EventIndex::On);
    driver.start();
    bench.ready();
    driver
}

#[test]
fn descriptors_that_lead_nowhere_are_given_back() {
    let bench = Bench::new();
    let mut driver = liar(&bench);
    let memory = 64 << 20;
    for (address, len, flags, next) in [
        (memory, 100, 0, 0),
        (memory - 10, 100, 0, 0),
        (u64::MAX, 100, 0, 0),
        (u64::MAX - 50, u32::MAX, 0, 0),
        (0x100_0000, 0, 0, 0),
        (0x100_0000, 43, 0, 0),
        (0x100_0000, u32::MAX, 0, 0),
        (0x100_0000, 100, 2, 0),   // writable
        (0x100_0000, 20, 1, 0),    // goes on with descriptor 0
        (0x100_0000, 20, 1, 5000), // goes on beyond the ring
        (0x100_0000, 64, 4, 0),    // an indirect table of nonsense
        (0x100_0000, 65, 4, 0),    // of an odd length
        (memory, 64, 4, 0),        // outside of memory
        (0x100_0000, 100, 0xfff8, 0),
    ] {
        for _ in 0..10 {
            assert!(driver.send_descriptor(address, len, flags, next));
        }
        driver.drain();
    }
    assert_eq!(bench.device().connections(), 0);
    reform(&bench, driver);
}

#[test]
fn a_chain_that_bites_its_tail_ends() {
    let bench = Bench::new();
    let mut driver = liar(&bench);
    for slot in 0..64 {
        // Each descriptor of the ring leads to itself.
        driver.send_descriptor(0x100_0000, 100, 1, slot * 2);
    }
    driver.drain();
    reform(&bench, driver);
}

#[test]
fn a_ring_that_makes_no_sense_waits_for_the_next_driver() {
    let bench = Bench::new();
    let mut driver = liar(&bench);
    driver.overrun(5000);
    let held = bench.client(1000);
    eventually("the client is held", || bench.device().connections() == 1);
    drop(held);
    reform(&bench, driver);
}

#[test]
fn packets_for_nobody_are_reset() {
    let bench = Bench::new();
    let mut driver = liar(&bench);
    let honest = Header { src_cid: 3, dst_cid: 2, src_port: 7, kind: 1, ..Header::default() };
    for op in 2..=9 {
        for kind in [0, 1, 2, 7] {
            let lie = Header { op, kind, dst_port: 5, ..honest };
            assert!(driver.send(&lie, b""));
            driver.drain();
            let answer = driver.receive();
            if op == RESET {
                assert_eq!(answer, None, "a reset is never answered");
                continue;
            }
            let (header, _) = answer.unwrap();
            assert_eq!((header.op, header.kind), (RESET, kind));
            assert_eq!((header.src_port, header.dst_port, header.src_cid), (5, 7, 2));
        }
    }
    // From somebody else: not answered, since the answer would go to somebody else.
    assert!(driver.send(&Header { src_cid: 4, op: DATA, ..honest }, b""));
    // A length that is not there.
    assert!(driver.send(&Header { len: 1 << 20, op: DATA, ..honest }, b"short"));
    driver.drain();
    let (header, _) = driver.receive().unwrap();
    assert_eq!((header.op, driver.receive()), (RESET, None));
    reform(&bench, driver);
}

#[test]
fn a_flood_that_is_not_collected_is_bounded() {
    let bench = Bench::new();
    let mut driver = liar(&bench);
    let lie = Header { src_cid: 3, dst_cid: 2, kind: 1, op: DATA, ..Header::default() };
    let mut sent = 0;
    while sent < 20_000 {
        if driver.send(&Header { src_port: sent, ..lie }, b"") {
            sent += 1;
        }
    }
    driver.drain();
    let mut answers = 0;
    loop {
        let before = answers;
        while driver.receive().is_some() {
            answers += 1;
        }
        if answers == before && answers >= 4096 {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    // What lay in the receive buffers, and what the device keeps.
    assert!(answers < 6000, "{answers} resets were kept");
    reform(&bench, driver);
}

#[test]
fn too_many_bytes_end_the_connection() {
    let bench = Bench::new();
    let mut driver = liar(&bench);
    let client = bench.client(1000);
    let (request, _) = next(&mut driver);
    assert_eq!(request.op, REQUEST);
    let mut header = Header {
        src_cid: 3,
        dst_cid: 2,
        src_port: request.dst_port,
        dst_port: request.src_port,
        kind: 1,
        op: RESPONSE,
        buf_alloc: 1 << 18,
        ..Header::default()
    };
    assert!(driver.send(&header, b""));
    // The client does not read; the credit is used up, and then some.
    header.op = DATA;
    let block = vec![1; 64 << 10];
    header.len = block.len() as u32;
    let mut reset = false;
    for _ in 0..100 {
        driver.send(&header, &block);
        driver.drain();
        while let Some((answer, _)) = driver.receive() {
            reset |= answer.op == RESET;
        }
        if reset {
            break;
        }
    }
    assert!(reset, "100 packets of 64 KiB are more than anybody was promised");
    let mut client = vsock_guest::patient(client);
    let mut bytes = Vec::new();
    client.read_to_end(&mut bytes).unwrap();
    assert!(bytes.len() >= 256 << 10, "what was accepted is delivered");
    reform(&bench, driver);
}

#[test]
fn a_guest_that_never_confirms_is_reset() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = Bench::config(&folder, 3);
    config.limits.close = Duration::from_millis(50);
    let bench = Bench { device: Some(Device::start(config).unwrap()), folder };
    let mut driver = liar(&bench);
    drop(bench.client(1000));
    let (request, _) = next(&mut driver);
    let response = Header {
        src_cid: 3,
        dst_cid: 2,
        src_port: request.dst_port,
        dst_port: request.src_port,
        kind: 1,
        op: RESPONSE,
        buf_alloc: 1 << 18,
        ..Header::default()
    };
    assert!(driver.send(&response, b""));
    // The end of what the client sends may be seen before the end of the client.
    let mut told = 0;
    while told != NO_RECEIVE | NO_SEND {
        let (shutdown, _) = next(&mut driver);
        assert_eq!(shutdown.op, SHUTDOWN);
        assert_ne!(shutdown.flags & !told, 0, "nothing new is told");
        told |= shutdown.flags;
    }
    let (reset, _) = next(&mut driver);
    assert_eq!((reset.op, reset.dst_port), (RESET, request.dst_port));
    eventually("it is gone", || bench.device().connections() == 0);
    reform(&bench, driver);
}

fn next(driver: &mut Driver) -> (Header, Vec<u8>) {
    let mut packet = None;
    eventually("a packet comes", || {
        packet = driver.receive();
        packet.is_some()
    });
    packet.unwrap()
}

#[test]
fn nonsense_of_all_kinds() {
    let bench = Bench::new();
    let rounds = count("ROUSE_VSOCK_LIES", 5);
    for seed in 0..rounds as u64 {
        let mut random = Random(seed);
        let mut driver = liar(&bench);
        let mut known: Vec<Header> = Vec::new();
        let mut clients = Vec::new();
        for _ in 0..3000 {
            while let Some((header, _)) = driver.receive() {
                known.push(header);
            }
            if known.len() > 50 {
                known.drain(..25);
            }
            match random.below(20) {
                0 => {
                    let mut client = bench.client(1000 + random.below(3) as u32);
                    let _ = client.write_all(&vec![9; random.below(100_000) as usize % 4096]);
                    clients.push(client);
                    if clients.len() > 20 {
                        clients.remove(random.below(20) as usize);
                    }
                }
                1 => {
                    let bytes: Vec<u8> = (0..random.below(200)).map(|at| at as u8).collect();
                    driver.send_raw(&bytes, random.below(200) as usize);
                }
                2 => {
                    let address = u64::from(random.number());
                    let (len, flags) = (random.number(), random.below(8) as u16);
                    driver.send_descriptor(address, len, flags, random.below(200) as u16);
                }
                _ => {
                    let heard = match known.len() as u64 {
                        0 => Header::default(),
                        many => known[random.below(many) as usize],
                    };
                    let len = random.below(3000);
                    let mut lie = Header {
                        src_cid: 3,
                        dst_cid: heard.src_cid,
                        src_port: heard.dst_port,
                        dst_port: heard.src_port,
                        len: len as u32,
                        kind: 1,
                        op: random.below(9) as u16,
                        flags: random.below(4) as u32,
                        buf_alloc: 1 << 18,
                        fwd_cnt: heard.len,
                    };
                    if random.below(4) == 0 {
                        let number = random.number();
                        match random.below(9) {
                            0 => lie.src_cid = u64::from(number),
                            1 => lie.dst_cid = u64::from(number),
                            2 => lie.src_port = number,
                            3 => lie.dst_port = number,
                            4 => lie.len = number,
                            5 => lie.kind = number as u16,
                            6 => lie.flags = number,
                            7 => lie.buf_alloc = number,
                            _ => lie.fwd_cnt = number,
                        }
                    }
                    driver.send(&lie, &vec![0; len as usize]);
                }
            }
        }
        drop(clients);
        driver.drain();
        reform(&bench, driver);
        eventually("it can go on", || bench.device().state() == rouse_qemu::vsock::State::Waiting);
    }
}
