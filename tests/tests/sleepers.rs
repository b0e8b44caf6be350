//! Many sleeping containers in one VM of 256 MB: all asleep at boot, all woken, all asleep again; and
//! what one of them costs in each state. Awake at the same time are as many as fit well: each takes
//! 1.5 MiB and more, so that a hundred at once would be more than the guest has.

use rouse_tests::{Appliance, Vm, count};
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

const FIRST_PORT: u32 = 4000;
/// Containers that are awake at the same time.
const AT_ONCE: usize = 20;
const HELLO: &[u8; 6] = b"hello\n";

#[test]
fn sleepers() {
    let sleepers = u32::try_from(count("ROUSE_TEST_SLEEPERS", 20)).unwrap();
    let nobody = {
        let vm = Vm::start(&Appliance::guest(), "nobody", &[]);
        let free = available(&vm);
        assert_eq!(vm.poweroff(), 0);
        free
    };
    let vm = Vm::start(&appliance(sleepers), "sleepers", &[]);
    assert_eq!(up(&vm), 0);
    let asleep = available(&vm);

    let began = Instant::now();
    let mut awake = asleep;
    for wave in (0..sleepers).collect::<Vec<u32>>().chunks(AT_ONCE) {
        let mut streams: Vec<UnixStream> =
            wave.iter().map(|index| connect(&vm, FIRST_PORT + index)).collect();
        for stream in &mut streams {
            stream.write_all(HELLO).unwrap();
        }
        for stream in &mut streams {
            let mut answer = [0; HELLO.len()];
            stream.read_exact(&mut answer).unwrap();
            assert_eq!(&answer, HELLO);
        }
        assert!(up(&vm) >= wave.len());
        awake = awake.min(available(&vm));
        drop(streams);
        vm.wait_until("all are asleep again", |vm| up(vm) == 0);
    }
    let woken = began.elapsed();
    assert_eq!(vm.shell("crun --root /run/crun list -q"), "");
    let again = available(&vm);

    let at_once = i64::from(sleepers).min(AT_ONCE as i64);
    println!("{sleepers} containers woke and slept again in {:.1} s", woken.as_secs_f64());
    println!("KiB available: {nobody} without them, {asleep} asleep, {awake} awake, {again} again");
    println!(
        "KiB for each: {} asleep, {} awake",
        (nobody - asleep) / i64::from(sleepers),
        (asleep - awake) / at_once
    );
    assert_eq!(vm.poweroff(), 0);
}

/// The guest, with so many containers of one image beside the echo server.
fn appliance(sleepers: u32) -> Appliance {
    (0..sleepers).fold(Appliance::guest(), |appliance, index| {
        let socket = format!(
            "[Socket]\nListenStream=vsock::{}\n\n[Install]\nWantedBy=sockets.target\n",
            FIRST_PORT + index
        );
        let container = "[Container]\nImage=ghcr.io/eriksjolund/socket-activate-echo\n\
                         Network=none\n\n[Service]\nX-StopWhenIdleSec=2\n";
        appliance
            .with(&format!("sleeper{index}.socket"), &socket)
            .with(&format!("sleeper{index}.container"), container)
    })
}

/// How many of them are up, or on their way.
fn up(vm: &Vm) -> usize {
    let services = vm.status().services;
    let ours = services.iter().filter(|service| service.name.starts_with("sleeper"));
    ours.filter(|service| service.state != "dead").count()
}

/// MemAvailable in KiB.
fn available(vm: &Vm) -> i64 {
    let text = vm.shell("grep ^MemAvailable /proc/meminfo");
    text.split_ascii_whitespace().nth(1).unwrap().parse().unwrap()
}

/// To a vsock port of the guest.
fn connect(vm: &Vm, port: u32) -> UnixStream {
    let path = vm.rouse.runtime().join(&vm.name).join("vsock.sock");
    let mut stream = UnixStream::connect(path).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(600))).unwrap();
    writeln!(stream, "CONNECT {port}").unwrap();
    let mut byte = [0];
    while byte != *b"\n" {
        stream.read_exact(&mut byte).unwrap();
    }
    stream
}
