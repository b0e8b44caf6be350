//! Who a service is: capabilities, prefixes of commands, namespaces of users, keyrings.

use super::*;

const NET_BIND: u64 = 1 << 10;
const CHOWN: u64 = 1;

pub(super) fn capabilities(bench: &mut Bench) {
    if !has_users() {
        return eprintln!("SKIPPED: needs a second user");
    }
    let mut room = Room::new(bench);
    let stage2 = Stage2 {
        bounding: Some(NET_BIND | CHOWN),
        ambient: NET_BIND,
        // SECBIT_NOROOT
        secure_bits: 1,
        ..Stage2::default()
    };
    let (one, both) = ("0000000000000400", "0000000000000401");
    let expected = [
        ("status:Uid", "65534 65534 65534 65534"),
        ("status:CapEff", one),
        ("status:CapPrm", one),
        ("status:CapInh", one),
        ("status:CapAmb", one),
        ("status:CapBnd", both),
        ("status:NoNewPrivs", "1"),
    ];
    let asks: Vec<&str> = expected.iter().map(|(ask, _)| *ask).collect();
    let mut it = room.service(&asks, stage2);
    it.execution.user = user();
    it.execution.no_new_privileges = true;
    room.check(it, &expected);
}

pub(super) fn prefixes(bench: &mut Bench) {
    if !has_users() {
        return eprintln!("SKIPPED: needs a second user");
    }
    let mut room = Room::new(bench);
    let stage2 = Stage2 {
        bounding: Some(CHOWN),
        sandbox: Sandbox { protect_system: ProtectSystem::Strict, ..Sandbox::default() },
        ..Stage2::default()
    };
    let asks = ["status:Uid", "status:NoNewPrivs", "write:/var/lib/x"];
    let mut it = room.service(&asks, stage2);
    it.execution.user = user();
    it.execution.no_new_privileges = true;
    let mut full = room.ask(&asks);
    full.privileged = true;
    let mut root = room.ask(&[asks[0], asks[1], "status:CapBnd"]);
    root.privileged_user = true;
    it.start.extend([full, root]);
    let lines = room.run(it);
    let (nobody, zero) = ("65534 65534 65534 65534", "0 0 0 0");
    let expected = [
        format!("status:Uid -> {nobody}"),
        "status:NoNewPrivs -> 1".into(),
        "write:/var/lib/x -> EROFS".into(),
        "done".into(),
        format!("status:Uid -> {zero}"),
        "status:NoNewPrivs -> 0".into(),
        "write:/var/lib/x -> ok".into(),
        "done".into(),
        format!("status:Uid -> {zero}"),
        "status:NoNewPrivs -> 1".into(),
    ];
    assert_eq!(lines[..10], expected, "{}", room.bench.log());
    // Root, but with no more than the unit leaves to any of its processes: as systemd 252.
    assert_eq!(lines[10], "status:CapBnd -> 0000000000000001");
}

pub(super) fn namespaces(bench: &mut Bench) {
    let own = |kind: &str| {
        let link = std::fs::read_link(format!("/proc/self/ns/{kind}")).unwrap();
        format!("namespace:{kind} -> {}", link.display())
    };
    let here = ["net", "ipc", "uts", "user"].map(own);
    let _listener = std::net::TcpListener::bind("127.0.0.1:3000").unwrap();
    let mut room = Room::new(bench);
    let sandbox = Sandbox {
        namespaces: Namespaces {
            network: true,
            ipc: true,
            users: true,
            mounts: true,
            identity: false,
        },
        protect_hostname: true,
        ..Sandbox::default()
    };
    let asks = [
        "namespace:net",
        "namespace:ipc",
        "namespace:uts",
        "namespace:user",
        "connect:127.0.0.1:3000",
        "loopback",
        "read:/proc/self/uid_map",
    ];
    let mut it = room.service(&asks, sandboxed(sandbox));
    let mapped = match has_users() {
        true => {
            it.execution.user = user();
            2
        }
        false => 1,
    };
    let lines = room.run(it);
    assert!(lines.len() >= 7, "{lines:?}");
    for (index, here) in here.iter().enumerate() {
        assert_ne!(lines[index], *here);
        assert!(lines[index].contains(":["), "{lines:?}");
    }
    assert_eq!(lines[4..6], ["connect:127.0.0.1:3000 -> ECONNREFUSED", "loopback -> ok"]);
    assert_eq!(lines[6..].len() - 1, mapped, "{lines:?}");
}

pub(super) fn identity(bench: &mut Bench) {
    if !has_users() {
        return eprintln!("SKIPPED: needs a second user");
    }
    let mut room = Room::new(bench);
    let namespaces = Namespaces { users: true, identity: true, ..Namespaces::default() };
    let sandbox = Sandbox { namespaces, ..Sandbox::default() };
    let lines = room.run(room.service(&["read:/proc/self/uid_map"], sandboxed(sandbox)));
    let numbers: Vec<_> = lines[0].split_whitespace().rev().take(3).collect();
    assert_eq!(numbers, ["65536", "0", "0"], "{lines:?}");
}

pub(super) fn keyrings(bench: &mut Bench) {
    let room = Room::new(bench);
    let service = |asks: &[&str], users, shared_keyring| {
        let namespaces = Namespaces { users, ..Namespaces::default() };
        let sandbox =
            Sandbox { private_keyring: true, shared_keyring, namespaces, ..Sandbox::default() };
        let mut it = lasting(&room, asks, sandboxed(sandbox));
        it.execution.user = user().filter(|_| has_users());
        it
    };
    let units = Units::default()
        .service("a.service", service(&["call:add-key", "call:find-key"], false, true))
        .service("b.service", service(&["call:find-key", "status:Uid"], true, true))
        .service("c.service", service(&["call:find-key"], true, false))
        .needs("b.service", "a.service")
        .needs("c.service", "b.service")
        .at_boot("c.service");
    room.bench.start(&units.build());
    room.bench.wait("all are up", |it| bench::service(it, "c.service").state == "exited");
    let uid = if has_users() { NOBODY } else { 0 };
    let expected = [
        "call:add-key -> ok".into(),
        "call:find-key -> ok".into(),
        "done".into(),
        "call:find-key -> ok".into(),
        format!("status:Uid -> {uid} {uid} {uid} {uid}"),
        "done".into(),
        "call:find-key -> ENOKEY".into(),
        "done".into(),
    ];
    assert_eq!(said(), expected, "{}", room.bench.log());
    room.bench.stop();
}
