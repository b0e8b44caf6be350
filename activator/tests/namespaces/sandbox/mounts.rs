//! What is seen of the file system.

use super::*;

pub(super) fn strict(bench: &mut Bench) {
    let mut room = Room::new(bench);
    for path in ["/var/lib/rw", "/var/lib/rw/ro", "/var/lib/rw/ro/rw"] {
        std::fs::create_dir(path).unwrap();
    }
    let optional = PathRule { path: "/var/none".into(), optional: true };
    let sandbox = Sandbox {
        protect_system: ProtectSystem::Strict,
        // Whatever their order.
        mounts: vec![
            Mount::ReadWrite(rule("/var/lib/rw/ro/rw")),
            Mount::ReadOnly(rule("/var/lib/rw/ro")),
            Mount::ReadWrite(rule("/var/lib/rw")),
            Mount::ReadWrite(optional),
            Mount::Inaccessible(rule("/var/cache")),
            Mount::Inaccessible(rule("/run/out")),
        ],
        ..Sandbox::default()
    };
    room.check_stage2(
        sandboxed(sandbox),
        &[
            ("write:/usr/file", "EROFS"),
            ("write:/etc/file", "EROFS"),
            ("write:/var/lib/file", "EROFS"),
            ("write:/run/file", "EROFS"),
            ("write:/var/lib/rw/file", "ok"),
            ("write:/var/lib/rw/ro/file", "EROFS"),
            ("write:/var/lib/rw/ro/rw/file", "ok"),
            ("write:/dev/null", "ok"),
            ("write:/home/file", "ok"),
            ("stat:/var/cache", "0 0 0"),
            ("write:/var/cache/file", "EROFS"),
            ("read:/run/out", ""),
        ],
    );
    assert!(!Path::new("/var/lib/rw/ro/file").exists());
}

pub(super) fn private(bench: &mut Bench) {
    let mut room = Room::new(bench);
    std::fs::write("/home/joe/file", "joe").unwrap();
    std::fs::write("/var/tmp/file", "").unwrap();
    let sandbox = Sandbox {
        protect_home: ProtectHome::Tmpfs,
        private_tmp: true,
        private_devices: true,
        mounts: vec![Mount::Bind(Bind {
            source: rule("/home/joe"),
            target: "/home/joe".into(),
            read_only: true,
            recursive: true,
        })],
        ..Sandbox::default()
    };
    let lines = {
        let asks = [
            "list:/home",
            "read:/home/joe/file",
            "write:/home/joe/file",
            "write:/home/file",
            "list:/tmp",
            "list:/var/tmp",
            "write:/tmp/file",
            "stat:/tmp",
            "stat:/dev/null",
            "write:/dev/null",
            "write:/dev/file",
            "list:/dev",
        ];
        let it = room.service(&asks, sandboxed(sandbox));
        room.run(it)
    };
    let expected = [
        "list:/home -> joe",
        "read:/home/joe/file -> joe",
        "write:/home/joe/file -> EROFS",
        "write:/home/file -> EROFS",
        "list:/tmp -> ",
        "list:/var/tmp -> ",
        "write:/tmp/file -> ok",
        "stat:/tmp -> 1777 0 0",
        "stat:/dev/null -> c666 0 0",
        "write:/dev/null -> ok",
        "write:/dev/file -> EROFS",
    ];
    let found: Vec<String> = lines.iter().map(|line| line.replace("65534", "0")).collect();
    assert_eq!(found[..expected.len()], expected, "{}", room.bench.log());
    let devices = &lines[expected.len()];
    assert!(devices.contains("full") && devices.contains("urandom"), "{devices}");
    assert!(!devices.contains("kmsg") && !devices.contains("vda"), "{devices}");
}

pub(super) fn kernel(bench: &mut Bench) {
    let mut room = Room::new(bench);
    let on = true;
    let sandbox = Sandbox {
        protect_kernel_tunables: on,
        protect_kernel_modules: on,
        protect_kernel_logs: on,
        protect_control_groups: on,
        protect_clock: on,
        protect_hostname: on,
        ..Sandbox::default()
    };
    room.check_stage2(
        sandboxed(sandbox),
        &[
            ("write:/proc/sys/kernel/domainname", "EROFS"),
            ("write:/sys/kernel/file", "EROFS"),
            ("write:/sys/fs/cgroup/cgroup.procs", "EROFS"),
            ("read:/proc/kallsyms", ""),
            ("call:kernel-log", "EPERM"),
            ("call:module", "EPERM"),
            ("call:clock", "EPERM"),
            ("call:hostname", "EPERM"),
        ],
    );
}

pub(super) fn binds(bench: &mut Bench) {
    let mut room = Room::new(bench);
    std::fs::create_dir("/var/lib/source").unwrap();
    std::fs::write("/var/lib/source/file", "bound").unwrap();
    for path in ["/var/lib/programs", "/var/lib/programs/good"] {
        std::fs::create_dir(path).unwrap();
        std::fs::copy("/bin/true", format!("{path}/true")).unwrap();
    }
    let bind = |target: &str, read_only| {
        let source = rule("/var/lib/source");
        Mount::Bind(Bind { source, target: target.into(), read_only, recursive: true })
    };
    let sandbox = Sandbox {
        mounts: vec![
            bind("/var/cache/new/one", false),
            bind("/var/cache/new/two", true),
            Mount::Temporary(rule("/var/log"), "size=64K,mode=0700".into()),
            Mount::Temporary(rule("/home"), "ro".into()),
            Mount::NoExec(rule("/var/lib/programs")),
            Mount::Exec(rule("/var/lib/programs/good")),
        ],
        ..Sandbox::default()
    };
    std::fs::write("/var/log/file", "").unwrap();
    room.check_stage2(
        sandboxed(sandbox),
        &[
            ("read:/var/cache/new/one/file", "bound"),
            ("write:/var/cache/new/one/file", "ok"),
            ("write:/var/cache/new/two/file", "EROFS"),
            ("list:/var/log", ""),
            ("stat:/var/log", "700 0 0"),
            ("write:/var/log/file", "ok"),
            ("write:/home/file", "EROFS"),
            ("run:/var/lib/programs/true", "EACCES"),
            ("run:/var/lib/programs/good/true", "exit status: 0"),
        ],
    );
}

pub(super) fn root(bench: &mut Bench) {
    let mut room = Room::new(bench);
    let root = Path::new("/var/root");
    for path in ["proc", "sys", "dev", "run"] {
        std::fs::create_dir_all(root.join(path)).unwrap();
    }
    // What the dynamic linker mapped for us is what the probe needs.
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let libraries = maps.lines().filter_map(|line| line.split_whitespace().nth(5));
    let libraries = libraries.filter(|path| path.contains(".so")).map(PathBuf::from);
    let linkers = ["/lib64/ld-linux-x86-64.so.2", "/lib/ld-linux-aarch64.so.1"];
    let linkers = linkers.into_iter().map(PathBuf::from).filter(|path| path.exists());
    for file in libraries.chain(linkers).chain([room.probe.clone().into()]) {
        // Where it is looked for, with and without merged /usr.
        let other = file.strip_prefix("/usr").unwrap_or(&file).to_owned();
        for place in [file.strip_prefix("/").unwrap(), other.strip_prefix("/").unwrap_or(&other)] {
            let to = root.join(place);
            std::fs::create_dir_all(to.parent().unwrap()).unwrap();
            std::fs::copy(&file, to).unwrap();
        }
    }
    let sandbox = Sandbox {
        root_directory: Some("/var/root".into()),
        mount_api_vfs: true,
        mounts: vec![Mount::ReadOnly(rule("/var"))],
        ..Sandbox::default()
    };
    let stage2 = Stage2 {
        directories: vec![directory(DirectoryKind::State, "s", 0o755)],
        ..sandboxed(sandbox)
    };
    let mut expected = vec![
        ("list:/var", "lib probe"),
        ("write:/var/lib/s/file", "ok"),
        ("write:/var/file", "EROFS"),
        ("write:/dev/null", "ok"),
        ("list:/run", ""),
    ];
    // Only to see that it is there.
    expected.push(("stat:/proc/self/status", "444 0 0"));
    room.check_stage2(stage2, &expected);
    assert!(Path::new("/var/lib/s/file").exists());
}

pub(super) fn missing_path(bench: &mut Bench) {
    let mut room = Room::new(bench);
    let mounts = vec![Mount::ReadOnly(rule("/var/none"))];
    let it = room.service(&["pid"], sandboxed(Sandbox { mounts, ..Sandbox::default() }));
    room.start(it);
    room.wait_log("a.service: activator stage2: cannot find /var/none: No such file or directory");
    let ended = room
        .bench
        .wait("it has ended", |status| bench::service(status, "a.service").last_exit.is_some());
    let exit = format!("{:?}", bench::service(&ended, "a.service").last_exit);
    assert!(exit.contains("226"), "{exit}");
}
