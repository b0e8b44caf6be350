//! Many sleeping containers in one VM of 256 MB: all asleep at boot, all awake at once, all asleep
//! again; and what one of them costs in each state.

use rouse_tests::{Appliance, Vm, count};
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

const FIRST_PORT: u32 = 4000;

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
    let mut streams: Vec<UnixStream> =
        (0..sleepers).map(|index| connect(&vm, FIRST_PORT + index)).collect();
    for (index, stream) in streams.iter_mut().enumerate() {
        writeln!(stream, "hello {index}").unwrap();
    }
    for (index, stream) in streams.iter_mut().enumerate() {
        let expected = format!("hello {index}\n");
        let mut answer = vec![0; expected.len()];
        stream.read_exact(&mut answer).unwrap();
        assert_eq!(String::from_utf8(answer).unwrap(), expected);
    }
    let woken = began.elapsed();
    assert_eq!(up(&vm), sleepers as usize);
    let awake = available(&vm);

    drop(streams);
    vm.wait_until("all are asleep again", |vm| up(vm) == 0);
    assert_eq!(vm.shell("crun --root /run/crun list -q"), "");
    let again = available(&vm);

    let each = |from: i64, to: i64| (from - to) / i64::from(sleepers);
    println!("{sleepers} containers woke together in {:.1} s", woken.as_secs_f64());
    println!("KiB available: {nobody} without them, {asleep} asleep, {awake} awake, {again} again");
    println!("KiB for each: {} asleep, {} awake", each(nobody, asleep), each(asleep, awake));
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
