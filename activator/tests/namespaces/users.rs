//! Units of lingering users: found by owner and name, theirs in the file system and in cgroups.

use crate::Test;
use crate::bench::{self, Bench, ask_unix, split};
use crate::build::{Units, service, socket, tcp, unix};
use activator::client::Error;
use activator::control::{Failure, Request, UnitName, Whose};
use activator::manifest::{Lingering, Manifest, UnitId, UnitKind, User};
use std::fs;
use std::os::unix::fs::MetadataExt;

pub(crate) const TESTS: &[Test] = &[
    ("users::a_users_socket_and_service_are_the_users", owned),
    ("users::a_link_in_a_users_way_leads_nowhere_that_the_user_cannot_go", links),
];

const UID: u32 = 1000;

/// The system's a.service with its socket, and the same names of a user, who lives in `home`.
fn manifest(bench: &Bench, path: &str) -> Manifest {
    let directory = bench.path();
    let user = User { uid: UID, gid: UID, groups: vec![] };
    let mut theirs = service(directory, &["serve", "1"]);
    theirs.execution.user = Some(user.clone());
    let units = |service, listener| {
        Units::default().service("a.service", service).socket(
            "a.socket",
            "a.service",
            socket("a", vec![listener]),
        )
    };
    let mut manifest = units(service(directory, &["serve", "1"]), tcp(3000)).build();
    let mut theirs = units(theirs, unix(directory, path)).build().units;
    let first = manifest.units.len() as u16;
    for unit in &mut theirs {
        unit.owner = Some(0);
        let shift = |id: &mut UnitId| id.0 += first;
        unit.after.iter_mut().for_each(shift);
        match &mut unit.kind {
            UnitKind::Socket(socket) => shift(&mut socket.service),
            UnitKind::Service(service) => service.sockets.iter_mut().for_each(shift),
            UnitKind::Target => {}
        }
    }
    manifest.units.extend(theirs);
    manifest.users = vec![Lingering {
        name: "ann".into(),
        ids: user,
        home: directory.join("home").to_str().unwrap().into(),
        runtime_directory: directory.join("run/1000").to_str().unwrap().into(),
    }];
    bench.open_to_all();
    let home = directory.join("home");
    fs::create_dir(&home).unwrap();
    std::os::unix::fs::chown(&home, Some(UID), Some(UID)).unwrap();
    manifest
}

fn owned(bench: &mut Bench) {
    if bench::is_mapped_alone() {
        println!("SKIPPED: only root has users to run as");
        return;
    }
    let manifest = manifest(bench, "home/deep/sock");
    bench.start(&manifest);
    let node = bench.path().join("home/deep/sock");
    bench::until("the socket is there", || node.exists());
    for path in ["home/deep", "home/deep/sock", "run/1000"] {
        let found = fs::metadata(bench.path().join(path)).unwrap();
        assert_eq!((found.uid(), found.gid()), (UID, UID), "{path}");
    }
    assert_eq!(fs::metadata(bench.path().join("run/1000")).unwrap().mode() & 0o7777, 0o700);

    let answer = ask_unix(&node, "hello");
    assert_eq!(split(&answer).1, "hello");
    let status = bench.wait("it was started", |status| {
        status.services.iter().any(|it| it.user.is_some() && it.starts > 0)
    });
    let users: Vec<Option<&str>> = status.services.iter().map(|it| it.user.as_deref()).collect();
    assert_eq!(users, [None, Some("ann")]);
    assert_eq!(status.services[0].starts, 0, "the system's was left alone");

    let named = |whose| UnitName { name: "a.socket".into(), whose };
    let nobody = Whose::User("bob".into());
    let refused = Err(Error::Refused(Failure::NoSuchUser("bob".into())));
    assert_eq!(bench.order(Request::Stop(named(nobody))), refused);
    assert_eq!(bench.order(Request::Stop(named(Whose::SoleUser))), Ok(()));
    let status = bench.status();
    let states: Vec<&str> = status.sockets.iter().map(|it| it.state.as_str()).collect();
    assert_eq!(states, ["listening", "dead"]);
    if bench.has_cgroups() {
        let cgroup = "/sys/fs/cgroup/rouse/user-1000/a.service";
        assert!(fs::exists(cgroup).unwrap(), "{cgroup}");
    }
    bench.stop();
}

/// Else a user could have root put sockets, or take away what is in their way, anywhere.
fn links(bench: &mut Bench) {
    if bench::is_mapped_alone() {
        println!("SKIPPED: only root has users to run as");
        return;
    }
    let manifest = manifest(bench, "home/link/sock");
    let root = bench.path().join("of-root");
    fs::create_dir(&root).unwrap();
    fs::write(root.join("sock"), "precious").unwrap();
    std::os::unix::fs::symlink(&root, bench.path().join("home/link")).unwrap();
    bench.start(&manifest);
    bench.wait("it cannot listen", |status| {
        status.sockets.iter().any(|it| it.user.is_some() && it.state == "retrying")
    });
    assert_eq!(fs::read_to_string(root.join("sock")).unwrap(), "precious");
    bench.stop();
}
