//! Units of lingering users: found by owner and name, theirs in the file system and in cgroups.

use crate::Test;
use crate::bench::{self, Bench, ask_unix, split};
use crate::build::{Units, service, socket, tcp, unix};
use activator::client::Error;
use activator::control::{Failure, Request, UnitName, Whose};
use activator::manifest::{
    Credential, CredentialSource, EnvironmentFile, Lingering, Manifest, Output, ServiceKind,
    Stage2, UnitId, UnitKind, User,
};
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

pub(crate) const TESTS: &[Test] = &[
    ("users::a_users_socket_and_service_are_the_users", owned),
    ("users::a_link_in_a_users_way_leads_nowhere_that_the_user_cannot_go", links),
    ("users::what_a_users_unit_names_is_opened_with_the_rights_of_the_user", files),
    ("users::a_reload_changes_and_removes_nothing_that_the_user_could_not", reloaded),
    ("users::the_control_socket_is_roots_alone", control),
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

/// By its mode; and where that was changed, by who asks.
fn control(bench: &mut Bench) {
    if bench::is_mapped_alone() {
        println!("SKIPPED: only root has users to run as");
        return;
    }
    let manifest = manifest(bench, "home/sock");
    bench.start(&manifest);
    let path = bench.control();
    let open = |path: &std::path::Path, mode| {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    };
    open(path.parent().unwrap(), 0o755);
    // The rights of one thread alone, which ends after that.
    let connect = || {
        let path = path.clone();
        let user = std::thread::spawn(move || {
            let uid = rustix::process::Uid::from_raw(UID);
            rustix::thread::set_thread_res_uid(uid, uid, uid).unwrap();
            std::os::unix::net::UnixStream::connect(path)
        });
        user.join().unwrap()
    };
    assert_eq!(connect().unwrap_err().kind(), std::io::ErrorKind::PermissionDenied);
    open(&path, 0o666);
    let asked = activator::client::order(connect().unwrap(), "", &Request::Poweroff);
    assert_eq!(asked, Err(Error::Refused(Failure::Denied)));
    assert_eq!(bench.status().state, "running");
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

/// Else a link to a file of root's would have root write to it, remove it, or read it out to the
/// user.
fn files(bench: &mut Bench) {
    if bench::is_mapped_alone() {
        println!("SKIPPED: only root has users to run as");
        return;
    }
    // For what is made below /run.
    let flags = rustix::mount::MountFlags::empty();
    rustix::mount::mount(c"tmpfs", "/run", c"tmpfs", flags, Some(c"mode=755")).unwrap();
    let path = bench.path().to_owned();
    let text = |path: &std::path::Path| path.to_str().unwrap().to_owned();
    let mut manifest = manifest(bench, "home/sock");
    let (home, of_root) = (path.join("home"), path.join("of-root"));
    fs::write(&of_root, "SECRET=precious\n").unwrap();
    fs::set_permissions(&of_root, fs::Permissions::from_mode(0o600)).unwrap();
    symlink(&of_root, home.join("link")).unwrap();
    fs::write(home.join("own"), "SECRET=own\n").unwrap();
    let way = path.join("of-root-way");
    symlink(&way, home.join("link-way")).unwrap();
    for folder in [&way, &home.join("own-way")] {
        fs::create_dir(folder).unwrap();
        fs::write(folder.join("pid"), "7\n").unwrap();
    }
    for theirs in ["own", "own-way", "own-way/pid"] {
        std::os::unix::fs::chown(home.join(theirs), Some(UID), Some(UID)).unwrap();
    }
    let spec = |file: &str, key: &str| {
        let file = text(&home.join(file));
        let mut spec = service(&path, &["exit", "0"]);
        spec.kind = ServiceKind::Oneshot;
        spec.execution.user = Some(User { uid: UID, gid: UID, groups: vec![] });
        let mut stage2 = Stage2::default();
        let own = EnvironmentFile { path: file.clone(), optional: false };
        let secret =
            Credential { name: "secret".into(), source: CredentialSource::Path(file.clone()) };
        match key {
            "environment" => stage2.environment_files = vec![own],
            "credential" => stage2.credentials = vec![secret],
            "pid" => spec.pid_file = Some(format!("{file}-way/pid")),
            _ => {
                let (append, truncate) = (true, false);
                spec.execution.stdout = Output::File { path: file, append, truncate };
                spec.execution.stderr = Output::Log;
            }
        }
        spec.execution.stage2 = Some(Box::new(stage2));
        spec
    };
    let mut units = Units::default();
    for key in ["credential", "environment", "output", "pid"] {
        for file in ["link", "own"] {
            let name = format!("{key}-{file}.service");
            units = units.service(&name, spec(file, key)).at_boot(&name);
        }
    }
    manifest.units = units.build().units;
    manifest.units.iter_mut().for_each(|unit| unit.owner = Some(0));
    bench.start(&manifest);
    let status = bench.wait("all have run", |status| {
        status.services.iter().all(|it| it.starts == 1 && it.last_exit.is_some())
    });
    let data = u32::from(activator::exit::DATA);
    for (name, code) in [("credential", 243), ("environment", data), ("output", 209)] {
        let exit = |file: &str| {
            let it = bench::service(&status, &format!("{name}-{file}.service"));
            it.last_exit.clone().unwrap_or_default()
        };
        assert_eq!(exit("own"), "exited 0", "{name}\n{}", bench.log());
        assert_eq!(exit("link"), format!("exited {code}"), "{name}\n{}", bench.log());
    }
    assert_eq!(fs::read_to_string(&of_root).unwrap(), "SECRET=precious\n");
    bench::until("the user's own is removed", || !home.join("own-way/pid").exists());
    bench.stop();
    assert!(way.join("pid").exists(), "root's file was removed for the user");
}

/// The mode of a node, and nodes that are nobody's any more.
fn reloaded(bench: &mut Bench) {
    if bench::is_mapped_alone() {
        println!("SKIPPED: only root has users to run as");
        return;
    }
    let path = bench.path().to_owned();
    let mut manifest = manifest(bench, "home/deep/sock");
    let socket = |manifest: &mut Manifest, change: &dyn Fn(&mut activator::manifest::Socket)| {
        let theirs = manifest.units.iter_mut().filter(|unit| unit.owner.is_some());
        for unit in theirs {
            if let UnitKind::Socket(socket) = &mut unit.kind {
                change(socket);
            }
        }
    };
    socket(&mut manifest, &|socket| {
        socket.mode = 0o600;
        socket.remove_on_stop = true;
    });
    bench.start(&manifest);
    let node = path.join("home/deep/sock");
    bench::until("the socket is there", || node.exists());

    let of_root = path.join("of-root");
    fs::create_dir(&of_root).unwrap();
    let precious = of_root.join("sock");
    fs::write(&precious, "").unwrap();
    fs::set_permissions(&precious, fs::Permissions::from_mode(0o600)).unwrap();
    fs::remove_file(&node).unwrap();
    symlink(&precious, &node).unwrap();
    socket(&mut manifest, &|socket| socket.mode = 0o666);
    crate::reload::reload(bench, &manifest);
    assert_eq!(fs::metadata(&precious).unwrap().mode() & 0o7777, 0o600);

    fs::rename(path.join("home/deep"), path.join("home/was")).unwrap();
    symlink(&of_root, path.join("home/deep")).unwrap();
    let other = unix(&path, "home/other");
    socket(&mut manifest, &|socket| socket.listeners = vec![other.clone()]);
    crate::reload::reload(bench, &manifest);
    bench::until("it listens elsewhere", || path.join("home/other").exists());
    assert!(precious.exists());
    bench.stop();
}
