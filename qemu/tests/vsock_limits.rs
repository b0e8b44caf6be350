//! The vsock device in a process that runs out of file descriptors. A test binary of its own:
//! the limit is the process's.

mod vsock_guest;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::os::unix::net::UnixStream;
use vsock_guest::{Bench, patient, say_and_end};

#[test]
fn descriptors_run_out_and_come_back() {
    let all = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: Some(64), ..all }).unwrap();
    let bench = Bench::new();
    assert_eq!(getrlimit(Resource::Nofile).current, all.maximum, "the soft limit is raised");
    let guest = bench.guest();
    bench.ready();
    let used = std::fs::read_dir("/proc/self/fd").unwrap().count() as u64;
    let few = Rlimit { current: Some(used + 40), maximum: all.maximum };
    setrlimit(Resource::Nofile, few).unwrap();
    let mut clients = Vec::new();
    // Each takes one here, and one in the device; who is fast gets more.
    while let Ok(stream) = UnixStream::connect(bench.path(".1000")) {
        clients.push(patient(stream));
    }
    assert!(clients.len() >= 20, "{} clients", clients.len());
    // Some leave; the others get their turn, those too that the device could not accept.
    clients.truncate(clients.len() - 5);
    for mut stream in clients {
        assert_eq!(say_and_end(&mut stream, b"hello"), b"hello");
    }
    setrlimit(Resource::Nofile, all).unwrap();
    bench.settle(&guest);
}
