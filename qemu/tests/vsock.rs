//! The vsock device against a guest in this process.

mod vsock_guest;

use vsock_guest::driver::EventIndex;
use vsock_guest::{Bench, say_and_end};

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
