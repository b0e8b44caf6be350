//! The programs run on an eBPF machine without a kernel; that the kernel's verifier takes them is
//! seen in a guest.

use super::*;
use crate::bpf::Instruction;
use std::cell::RefCell;
use std::net::IpAddr;

fn run(program: &[Instruction], context: &mut [u8]) -> bool {
    let bytes: Vec<u8> = program.iter().flat_map(bytes_of).collect();
    let mut machine = rbpf::EbpfVmRaw::new(Some(&bytes)).unwrap();
    machine.register_helper(26, load_bytes).unwrap();
    machine.execute_program(context).unwrap() == 1
}

fn bytes_of(it: &Instruction) -> [u8; 8] {
    let ([a, b], [c, d, e, f]) = (it.offset.to_le_bytes(), it.immediate.to_le_bytes());
    [it.code, it.registers, a, b, c, d, e, f]
}

thread_local! {
    static PACKET: RefCell<Vec<u8>> = const { RefCell::new(vec![]) };
}

/// bpf_skb_load_bytes() of bpf-helpers(7).
#[allow(unsafe_code)]
fn load_bytes(_: u64, offset: u64, to: u64, length: u64, _: u64) -> u64 {
    PACKET.with_borrow(|packet| {
        let (offset, length) = (offset as usize, length as usize);
        let Some(from) = packet.get(offset..offset + length) else { return u64::MAX };
        // SAFETY: the machine's stack, where the program says that there is room.
        unsafe { std::slice::from_raw_parts_mut(to as *mut u8, length) }.copy_from_slice(from);
        0
    })
}

fn may_use(rules: &[Rule], kind: u32, access: u8, major: u32, minor: u32) -> bool {
    let words = [u32::from(access) << 16 | kind, major, minor];
    let mut context: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
    run(&program::of_devices(rules), &mut context)
}

#[test]
fn devices_by_number_and_access() {
    let path = |path: &str, access| DeviceRule { device: Device::Path(path.into()), access };
    let rules = vec![path("/dev/zero", READ), path("/dev/nothing/of/the/kind", EVERY_ACCESS)];
    let strict = device_rules(&Devices { rules, ..Devices::default() }, &[]);
    assert!(may_use(&strict, CHARACTER, READ, 1, 5));
    for (kind, access, major, minor) in [
        (CHARACTER, WRITE, 1, 5),
        (CHARACTER, READ | WRITE, 1, 5),
        (CHARACTER, READ, 1, 3),
        (CHARACTER, READ, 2, 5),
        (BLOCK, READ, 1, 5),
    ] {
        assert!(!may_use(&strict, kind, access, major, minor), "{kind} {access} {major}:{minor}");
    }
    let closed = device_rules(&Devices { standard: true, ..Devices::default() }, &["/dev/null"]);
    for (access, major, minor, allowed) in [
        (EVERY_ACCESS, 1, 3, true),
        (READ | WRITE, 136, 40, true),
        (1, 136, 40, false),
        (READ, 10, 200, false),
        (READ, 5, 1, false),
    ] {
        assert_eq!(may_use(&closed, CHARACTER, access, major, minor), allowed, "{major}:{minor}");
    }
    assert!(!may_use(&[], CHARACTER, READ, 1, 3));
    let strict = device_rules(&Devices::default(), &["/dev/null"]);
    assert!(may_use(&strict, CHARACTER, WRITE, 1, 3));
    assert!(!may_use(&strict, CHARACTER, WRITE, 1, 5));
    assert_eq!(numbers_of("/dev/char/10:200"), Some((CHARACTER, Some(10), Some(200))));
    assert_eq!(numbers_of("/dev/block/8:0"), Some((BLOCK, Some(8), Some(0))));
}

#[test]
fn drivers_by_name_and_number() {
    let text = "Character devices:\n  1 mem\n  4 tty\n  4 ttyS\n136 pts\n\n\
                Block devices:\n  7 loop\n254 virtblk\n";
    let major = |kind, number| (kind, Some(number), None);
    for (kind, names, expected) in [
        (CHARACTER, "pts", vec![major(CHARACTER, 136)]),
        (CHARACTER, "tty*", vec![major(CHARACTER, 4), major(CHARACTER, 4)]),
        (CHARACTER, "loop", vec![]),
        (BLOCK, "loop", vec![major(BLOCK, 7)]),
        (BLOCK, "virt?lk", vec![major(BLOCK, 254)]),
        (BLOCK, "mem", vec![]),
        (CHARACTER, "*", vec![(CHARACTER, None, None)]),
        (BLOCK, "259", vec![major(BLOCK, 259)]),
    ] {
        assert_eq!(majors_in(text, kind, names), expected, "{names}");
    }
}

fn network(text: &str) -> Network {
    let (address, prefix) = text.split_once('/').unwrap();
    let address = match address.parse().unwrap() {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    };
    Network { address, prefix: prefix.parse().unwrap() }
}

fn passes(allowed: &[Network], denied: &[Network], way: Way, peer: &str) -> bool {
    let (ipv4, ipv6) = (address_rules(4, allowed, denied), address_rules(16, allowed, denied));
    let program = program::of_packets(way, &ipv4, &ipv6);
    let mut packet = vec![0; 40];
    let protocol: u16 = match peer.parse().unwrap() {
        IpAddr::V4(address) => {
            let at = if way == Way::In { 12 } else { 16 };
            packet[at..at + 4].copy_from_slice(&address.octets());
            0x0800
        }
        IpAddr::V6(address) => {
            let at = if way == Way::In { 8 } else { 24 };
            packet[at..at + 16].copy_from_slice(&address.octets());
            0x86dd
        }
    };
    PACKET.set(packet);
    let mut context = vec![0; 192];
    context[16..18].copy_from_slice(&protocol.to_be_bytes());
    run(&program, &mut context)
}

#[test]
fn addresses_by_prefix_and_the_allowed_ones_first() {
    let of = |texts: &[&str]| -> Vec<Network> { texts.iter().map(|it| network(it)).collect() };
    let any = of(&["0.0.0.0/0", "::/0"]);
    let some = of(&["127.0.0.0/8", "::1/128", "10.1.2.3/32", "192.168.16.0/20", "fe80::/10"]);
    for way in [Way::In, Way::Out] {
        for (peer, allowed) in [
            ("127.0.0.1", true),
            ("127.255.0.1", true),
            ("128.0.0.1", false),
            ("10.1.2.3", true),
            ("10.1.2.4", false),
            ("192.168.31.255", true),
            ("192.168.32.0", false),
            ("::1", true),
            ("::2", false),
            ("1::1", false),
            ("febf::9", true),
            ("fec0::9", false),
        ] {
            assert_eq!(passes(&some, &any, way, peer), allowed, "{way:?} {peer}");
            // The other way round: what is listed is refused, and nothing else.
            assert_eq!(passes(&[], &some, way, peer), !allowed, "not {way:?} {peer}");
        }
        // A list about one family says nothing of the other.
        assert!(passes(&[], &of(&["0.0.0.0/0"]), way, "::2"));
        assert!(!passes(&[], &of(&["0.0.0.0/0"]), way, "1.2.3.4"));
    }
}

#[test]
fn a_packet_without_a_header_is_refused_and_one_of_another_protocol_is_not() {
    let ipv4 = address_rules(4, &[], &[network("10.0.0.0/8")]);
    let program = program::of_packets(Way::In, &ipv4, &[]);
    PACKET.set(vec![0; 11]);
    let mut context = vec![0; 192];
    context[16..18].copy_from_slice(&0x0800_u16.to_be_bytes());
    assert!(!run(&program, &mut context));
    context[16..18].copy_from_slice(&0x0806_u16.to_be_bytes());
    assert!(run(&program, &mut context));
}

#[test]
fn as_many_addresses_as_there_may_be() {
    let one = |n: usize, text: &str| {
        let mut network = network(text);
        network.address[1] = (n >> 8) as u8;
        network.address[2] = n as u8;
        network
    };
    let most = |text: &str| -> Vec<Network> {
        (0..Sandbox::MOST_ADDRESSES).map(|n| one(n, text)).collect()
    };
    // The longest that a rule can be.
    let (allowed, denied) = (most("ff00:1:2:3:4:5:6:0/127"), most("fe00:1:2:3:4:5:6:0/127"));
    let peer = |network: &Network| {
        let bytes: [u8; 16] = network.address.clone().try_into().unwrap();
        std::net::Ipv6Addr::from(bytes).to_string()
    };
    assert!(passes(&allowed, &denied, Way::Out, &peer(allowed.last().unwrap())));
    assert!(!passes(&allowed, &denied, Way::Out, &peer(denied.last().unwrap())));
    assert!(passes(&allowed, &denied, Way::Out, "10.0.0.1"));
}

#[test]
fn the_cgroup_is_that_of_the_unit() {
    let here = |path: &str, place, below| {
        let found = cgroup_of(&format!("1:name=x:/y\n0::{path}\n"), place, below);
        found.map(|path| path.strip_prefix("/sys/fs/cgroup/rouse/").unwrap().to_owned())
    };
    let some = |path: &str| Some(path.to_owned());
    assert_eq!(here("/rouse/a.service", "a.service", ""), some("a.service"));
    assert_eq!(here("/rouse/c.service/runtime", "c.service", "/runtime"), some("c.service"));
    let (place, path) = ("user-9/a@.service", "user-9/a@.service/3");
    assert_eq!(here("/rouse/user-9/a@.service/3", place, ""), some(path));
    for path in ["/system.slice/a.service", "/", "/rouse/b.service", "/rouse/a.service2"] {
        assert_eq!(here(path, "a.service", ""), None, "{path}");
    }
}
