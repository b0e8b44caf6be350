//! Datagrams through the relay.

use crate::{PATIENCE, free_address, relay};
use std::net::UdpSocket;
use std::os::unix::net::UnixDatagram;
use std::thread;
use std::time::Duration;

fn udp() -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

fn hear(socket: &UdpSocket) -> (String, std::net::SocketAddr) {
    let mut buffer = [0; 100];
    let (length, from) = socket.recv_from(&mut buffer).unwrap();
    (String::from_utf8(buffer[..length].to_vec()).unwrap(), from)
}

#[test]
fn each_sender_has_a_flow_and_gets_its_own_answers() {
    let (front, back) = (udp(), udp());
    let to = front.local_addr().unwrap();
    let _relay = relay(&[&front], &[&back.local_addr().unwrap().to_string()]);
    let clients: Vec<UdpSocket> = (0..10).map(|_| udp()).collect();
    let mut flows = vec![];
    for round in 0..3 {
        for (number, client) in clients.iter().enumerate() {
            client.send_to(format!("{number} {round}").as_bytes(), to).unwrap();
            let (text, from) = hear(&back);
            assert_eq!(text, format!("{number} {round}"));
            flows.push(from);
            back.send_to(format!("to {number}").as_bytes(), from).unwrap();
            let (answer, of) = hear(client);
            assert_eq!((answer, of), (format!("to {number}"), to));
        }
    }
    // The same port for the same client, another for another.
    assert_eq!(flows[..10], flows[10..20]);
    flows.sort();
    flows.dedup();
    assert_eq!(flows.len(), 10);
}

#[test]
fn the_largest_and_the_empty_datagram() {
    let (front, back) = (udp(), udp());
    let _relay = relay(&[&front], &[&back.local_addr().unwrap().to_string()]);
    let client = udp();
    client.connect(front.local_addr().unwrap()).unwrap();
    let mut buffer = vec![0; 1 << 17];
    for length in [0, 1, 65_507] {
        let sent: Vec<u8> = (0..length).map(|at| at as u8).collect();
        client.send(&sent).unwrap();
        let (count, from) = back.recv_from(&mut buffer).unwrap();
        assert!(buffer[..count] == sent, "{length} bytes there, {count} came");
        back.send_to(&sent, from).unwrap();
        let count = client.recv(&mut buffer).unwrap();
        assert!(buffer[..count] == sent, "{length} bytes back, {count} came");
    }
}

#[test]
fn the_first_packets_wait_for_a_backend_that_starts_late() {
    let front = udp();
    let target = free_address();
    let _relay = relay(&[&front], &[&target.to_string()]);
    let client = udp();
    client.connect(front.local_addr().unwrap()).unwrap();
    for number in 0..5 {
        client.send(number.to_string().as_bytes()).unwrap();
    }
    thread::sleep(Duration::from_millis(200));
    let back = UdpSocket::bind(target).unwrap();
    back.set_read_timeout(Some(PATIENCE)).unwrap();
    for number in 0..5 {
        assert_eq!(hear(&back).0, number.to_string());
    }
}

#[test]
fn packets_wait_while_the_backend_restarts() {
    let (front, back) = (udp(), udp());
    let target = back.local_addr().unwrap();
    let _relay = relay(&[&front], &[&target.to_string()]);
    let client = udp();
    client.connect(front.local_addr().unwrap()).unwrap();
    client.send(b"before").unwrap();
    let (text, from) = hear(&back);
    assert_eq!(text, "before");
    back.send_to(b"answer", from).unwrap();
    assert_eq!(hear(&client).0, "answer");
    drop(back);
    client.send(b"meanwhile").unwrap();
    thread::sleep(Duration::from_millis(100));
    let back = UdpSocket::bind(target).unwrap();
    back.set_read_timeout(Some(PATIENCE)).unwrap();
    assert_eq!(hear(&back), ("meanwhile".into(), from));
}

#[test]
fn unix_datagrams_also_to_one_that_comes_late() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    let front = UnixDatagram::bind(path("front")).unwrap();
    let _relay = relay(&[&front], &[path("back").to_str().unwrap()]);
    let client = UnixDatagram::bind(path("client")).unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    client.connect(path("front")).unwrap();
    client.send(b"one").unwrap();
    thread::sleep(Duration::from_millis(50));
    for _ in 0..2 {
        // A second one takes the place of the first.
        let _ = std::fs::remove_file(path("back"));
        let back = UnixDatagram::bind(path("back")).unwrap();
        back.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut buffer = [0; 100];
        let (length, from) = back.recv_from(&mut buffer).unwrap();
        assert_eq!(&buffer[..length], b"one");
        back.send_to_addr(b"two", &from).unwrap();
        let length = client.recv(&mut buffer).unwrap();
        assert_eq!(&buffer[..length], b"two");
        drop(back);
        client.send(b"one").unwrap();
    }
}

#[test]
fn flows_end_when_they_are_idle_and_then_so_does_the_relay() {
    let (front, back) = (udp(), udp());
    let target = back.local_addr().unwrap().to_string();
    let options = ["--flow-idle-time=100ms", "--exit-idle-time=50ms", &target];
    let mut relay = relay(&[&front], &options);
    let client = udp();
    client.connect(front.local_addr().unwrap()).unwrap();
    client.send(b"hello").unwrap();
    assert_eq!(hear(&back).0, "hello");
    assert_eq!(relay.wait().code(), Some(0));
}

#[test]
fn more_senders_than_flows_take_turns() {
    let (front, back) = (udp(), udp());
    let to = front.local_addr().unwrap();
    let _relay = relay(&[&front], &["-c2", &back.local_addr().unwrap().to_string()]);
    let clients: Vec<UdpSocket> = (0..5).map(|_| udp()).collect();
    for round in 0..3 {
        for client in &clients {
            let text = format!("{round} {:?}", client.local_addr());
            client.send_to(text.as_bytes(), to).unwrap();
            let (heard, from) = hear(&back);
            assert_eq!(heard, text);
            back.send_to(b"yes", from).unwrap();
            assert_eq!(hear(client).0, "yes");
        }
    }
}
