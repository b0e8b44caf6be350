//! Each key of systemd.exec(5) that stage 2 carries out, as seen by a service that is under it.

use crate::Test;
use crate::bench::{self, Bench};
use crate::build::{Units, service, socket, tcp};
use activator::control::Request;
use activator::manifest::*;
use std::path::{Path, PathBuf};

pub(crate) const TESTS: &[Test] = &[
    ("sandbox::environment_files_and_variables", variables),
    ("sandbox::an_environment_file_that_is_missing_fails_the_start", missing_file),
    ("sandbox::the_shell_expands_a_command_with_a_bar", shell),
    ("sandbox::directories_belong_to_the_user_and_are_named", directories),
    ("sandbox::a_dynamic_user_has_private_directories", dynamic_user),
    ("sandbox::credentials_are_for_the_user_alone", credentials),
    ("sandbox::capabilities_are_kept_over_the_change_of_user", capabilities),
    ("sandbox::what_a_run_leaves_behind_is_removed", clean),
    ("sandbox::a_runtime_directory_may_outlive_a_restart", preserve),
    ("sandbox::plus_keeps_all_and_exclamation_mark_root", prefixes),
    ("sandbox::scheduling_and_slack", scheduling),
    ("sandbox::strict_is_read_only_but_where_it_says", strict),
    ("sandbox::home_tmp_and_devices_are_private", private),
    ("sandbox::a_private_tmp_is_shared_by_the_commands_of_a_unit", shared_tmp),
    ("sandbox::namespaces_are_shared_by_the_commands_of_a_unit", shared_namespaces),
    ("sandbox::a_restart_has_a_new_tmp_and_new_namespaces", restart_alone),
    ("sandbox::joined_units_share_what_they_have_private", joined),
    ("sandbox::the_last_of_joined_units_takes_what_they_share", joined_in_turn),
    ("sandbox::a_joined_unit_keeps_what_it_began_with_over_a_reload", joined_reload),
    ("sandbox::kernel_files_are_out_of_reach", kernel),
    ("sandbox::binds_temporary_files_and_no_exec", binds),
    ("sandbox::a_root_of_its_own", root),
    ("sandbox::namespaces_of_its_own", namespaces),
    ("sandbox::a_user_namespace_with_all_ids", identity),
    ("sandbox::a_shared_keyring_is_that_outside_of_the_user_namespace", keyrings),
    ("sandbox::a_path_that_is_missing_is_226", missing_path),
    ("sandbox::system_calls_are_refused_by_feature", features),
    ("sandbox::system_calls_are_refused_by_list", list),
    ("sandbox::another_abi_is_no_way_around_a_filter", other_abi),
    ("sandbox::standard_streams", streams),
    ("sandbox::a_listener_by_its_name_on_stdin", named),
];

/// A bench whose /run, /var and /home are its own, with the probe where no key hides it.
struct Room<'a> {
    bench: &'a mut Bench,
    probe: String,
}

const OUT: &str = "/run/out";

impl<'a> Room<'a> {
    fn new(bench: &'a mut Bench) -> Self {
        bench.open_to_all();
        let flags = rustix::mount::MountFlags::empty();
        for path in ["/run", "/var", "/home"] {
            rustix::mount::mount(c"tmpfs", path, c"tmpfs", flags, Some(c"mode=755")).unwrap();
        }
        for path in ["/var/lib", "/var/cache", "/var/log", "/var/tmp", "/home/joe", "/run/user"] {
            std::fs::create_dir(path).unwrap();
        }
        std::fs::write(OUT, "").unwrap();
        let probe = "/var/probe".to_owned();
        std::fs::copy(std::env::current_exe().unwrap(), &probe).unwrap();
        Self { bench, probe }
    }

    /// A command that asks the probe.
    fn ask(&self, asks: &[&str]) -> Command {
        let all = [&["probe", "probe"], asks].concat();
        let arguments = all.into_iter().map(str::to_owned).collect();
        Command { program: self.probe.clone(), arguments, ..Command::default() }
    }

    fn service(&self, asks: &[&str], stage2: Stage2) -> Service {
        let mut it = service(self.bench.path(), &[]);
        it.kind = ServiceKind::Oneshot;
        it.start = vec![self.ask(asks)];
        let out = || Output::File { path: OUT.into(), append: true, truncate: false };
        (it.execution.stdout, it.execution.stderr) = (out(), Output::Inherit);
        it.execution.stage2 = Some(Box::new(stage2));
        it
    }

    /// Runs it once, and gives back all lines.
    fn run(&mut self, service: Service) -> Vec<String> {
        self.start(service);
        self.bench.wait("it has ended", |status| {
            let it = bench::service(status, "a.service");
            it.starts == 1 && matches!(it.state.as_str(), "dead" | "failed")
        });
        self.bench.stop();
        let text = std::fs::read_to_string(OUT).unwrap();
        text.lines().map(str::to_owned).collect()
    }

    fn start(&mut self, service: Service) {
        let units = Units::default().service("a.service", service).at_boot("a.service");
        self.bench.start(&units.build());
    }

    /// Waits until the unit's log has such a line.
    fn wait_log(&self, line: &str) {
        bench::until(line, || self.bench.log().contains(line));
    }

    /// Runs the probe under these keys; each ask must get its answer.
    #[track_caller]
    fn check(&mut self, service: Service, expected: &[(&str, &str)]) {
        let lines = self.run(service);
        let mut wanted: Vec<String> =
            expected.iter().map(|(ask, answer)| format!("{ask} -> {answer}")).collect();
        wanted.push("done".into());
        assert_eq!(lines, wanted, "{}", self.bench.log());
    }

    /// The same with a service that asks exactly this.
    #[track_caller]
    fn check_stage2(&mut self, stage2: Stage2, expected: &[(&str, &str)]) {
        let asks: Vec<&str> = expected.iter().map(|(ask, _)| *ask).collect();
        let service = self.service(&asks, stage2);
        self.check(service, expected);
    }
}

fn sandboxed(sandbox: Sandbox) -> Stage2 {
    Stage2 { sandbox, ..Stage2::default() }
}

fn rule(path: &str) -> PathRule {
    PathRule { path: path.into(), optional: false }
}

const NOBODY: u32 = 65534;

fn user() -> Option<User> {
    Some(User { uid: NOBODY, gid: NOBODY, groups: vec![] })
}

/// Whether there is another user than root here.
fn has_users() -> bool {
    !bench::is_mapped_alone()
}

fn variables(bench: &mut Bench) {
    let mut room = Room::new(bench);
    std::fs::write("/run/one.env", "A=from one\nB='x y' \n").unwrap();
    let file = |path: &str, optional| EnvironmentFile { path: path.into(), optional };
    let stage2 = Stage2 {
        environment_files: vec![file("/run/*.env", false), file("/run/none", true)],
        pass_environment: vec!["PATH".into(), "NONE".into()],
        unset_environment: vec!["C".into()],
        ..Stage2::default()
    };
    let mut it = room.service(&["args", "env:A", "env:B", "env:C", "$B", "${A}!", "$$A"], stage2);
    it.execution.environment.extend(["A=0".into(), "C=1".into()]);
    it.start[0].expand = true;
    it.start[0].arguments.truncate(6);
    it.start[0].arguments[2] = "args".into();
    it.start[0].arguments.extend(["env:${B}".into(), "env:$$A".into()]);
    let args = "args|env:A|env:B|env:C|env:x y|env:$A";
    room.check(
        it,
        &[
            ("args", args),
            ("env:A", "from one"),
            ("env:B", "x y"),
            ("env:C", "none"),
            ("env:x y", "none"),
            ("env:$A", "none"),
        ],
    );
}

fn missing_file(bench: &mut Bench) {
    let mut room = Room::new(bench);
    let file = EnvironmentFile { path: "/run/none".into(), optional: false };
    let stage2 = Stage2 { environment_files: vec![file], ..Stage2::default() };
    let it = room.service(&[], stage2);
    room.start(it);
    room.wait_log("a.service: activator stage2: cannot read the environment file /run/none: No");
}

fn shell(bench: &mut Bench) {
    let mut room = Room::new(bench);
    let mut it = room.service(&[], Stage2::default());
    it.start[0].arguments = vec!["echo".into(), "one;".into(), "echo two | tr w W".into()];
    it.start[0].shell = true;
    assert_eq!(room.run(it), ["one", "tWo"]);
}

fn directory(kind: DirectoryKind, path: &str, mode: u32) -> Directory {
    Directory { kind, path: path.into(), links: vec![], mode, read_only: false }
}

fn directories(bench: &mut Bench) {
    if !has_users() {
        return eprintln!("SKIPPED: needs a second user");
    }
    let mut room = Room::new(bench);
    std::fs::create_dir("/var/lib/deep").unwrap();
    std::fs::write("/var/lib/deep/file", "").unwrap();
    use DirectoryKind::{Cache, Logs, Runtime, State};
    let mut linked = directory(Cache, "c", 0o755);
    linked.links.push("other".into());
    let stage2 = Stage2 {
        directories: vec![
            directory(Runtime, "r", 0o750),
            directory(Runtime, "s/t", 0o755),
            directory(State, "deep", 0o700),
            linked,
            directory(Logs, "l", 0o755),
        ],
        sandbox: Sandbox { protect_system: ProtectSystem::Strict, ..Sandbox::default() },
        ..Stage2::default()
    };
    let expected = [
        ("env:RUNTIME_DIRECTORY", "/run/r:/run/s/t"),
        ("env:STATE_DIRECTORY", "/var/lib/deep"),
        ("env:CACHE_DIRECTORY", "/var/cache/c"),
        ("env:LOGS_DIRECTORY", "/var/log/l"),
        ("stat:/run/r", "750 65534 65534"),
        ("stat:/run/s", "755 0 0"),
        ("stat:/run/s/t", "755 65534 65534"),
        ("stat:/var/lib/deep/file", "644 65534 65534"),
        ("write:/var/lib/deep/new", "ok"),
        ("write:/var/cache/other/new", "ok"),
        ("write:/var/cache/new", "EROFS"),
    ];
    let asks: Vec<&str> = expected.iter().map(|(ask, _)| *ask).collect();
    let mut it = room.service(&asks, stage2);
    it.execution.user = user();
    room.check(it, &expected);
}

fn dynamic_user(bench: &mut Bench) {
    if !has_users() {
        return eprintln!("SKIPPED: needs a second user");
    }
    let mut room = Room::new(bench);
    let stage2 = Stage2 {
        dynamic_user: Some(DynamicUser { name: "dyn".into(), uid: 61234 }),
        directories: vec![directory(DirectoryKind::State, "d", 0o755)],
        sandbox: Sandbox {
            protect_system: ProtectSystem::Strict,
            private_tmp: true,
            ..Sandbox::default()
        },
        ..Stage2::default()
    };
    room.check_stage2(
        stage2,
        &[
            ("status:Uid", "61234 61234 61234 61234"),
            ("status:Gid", "61234 61234 61234 61234"),
            ("env:USER", "dyn"),
            ("env:HOME", "/"),
            ("env:STATE_DIRECTORY", "/var/lib/d"),
            ("write:/var/lib/d/file", "ok"),
            ("list:/var/lib/private", "d"),
            ("write:/var/lib/file", "EROFS"),
            ("write:/tmp/file", "ok"),
        ],
    );
    let private = std::fs::metadata("/var/lib/private").unwrap();
    assert_eq!(std::os::unix::fs::MetadataExt::mode(&private) & 0o7777, 0o700);
    assert_eq!(std::fs::read_link("/var/lib/d").unwrap(), Path::new("/var/lib/private/d"));
    assert!(Path::new("/var/lib/private/d/file").exists());
}

fn credentials(bench: &mut Bench) {
    if !has_users() {
        return eprintln!("SKIPPED: needs a second user");
    }
    let mut room = Room::new(bench);
    std::fs::write("/run/secret", "of a file").unwrap();
    let stage2 = Stage2 {
        credentials: vec![
            Credential { name: "a".into(), source: CredentialSource::Path("/run/secret".into()) },
            Credential { name: "b".into(), source: CredentialSource::Text(b"of text".into()) },
        ],
        ..Stage2::default()
    };
    let directory = "/run/credentials/a.service";
    let expected = [
        ("env:CREDENTIALS_DIRECTORY", directory),
        ("stat:/run/credentials/a.service", "500 65534 65534"),
        ("read:/run/credentials/a.service/a", "of a file"),
        ("read:/run/credentials/a.service/b", "of text"),
        ("write:/run/credentials/a.service/b", "EACCES"),
    ];
    let asks: Vec<&str> = expected.iter().map(|(ask, _)| *ask).collect();
    let mut it = room.service(&asks, stage2);
    it.execution.user = user();
    room.check(it, &expected);
}

const NET_BIND: u64 = 1 << 10;
const CHOWN: u64 = 1;

fn capabilities(bench: &mut Bench) {
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

/// What stands there while it runs is gone when it has stopped, but for what is to stay.
fn clean(bench: &mut Bench) {
    let mut room = Room::new(bench);
    let stage2 = Stage2 {
        directories: vec![
            directory(DirectoryKind::Runtime, "r", 0o755),
            directory(DirectoryKind::State, "s", 0o755),
        ],
        credentials: vec![Credential {
            name: "c".into(),
            source: CredentialSource::Text(b"text".into()),
        }],
        sandbox: Sandbox { private_tmp: true, ..Sandbox::default() },
        ..Stage2::default()
    };
    let expected = [
        ("write:/run/r/file", "ok"),
        ("write:/var/lib/s/file", "ok"),
        ("write:/tmp/file", "ok"),
        ("read:/run/credentials/a.service/c", "text"),
    ];
    room.check_stage2(stage2, &expected);
    for (path, stays) in [
        ("/run/r", false),
        ("/run/rouse/shared/a.service", false),
        ("/run/credentials/a.service", false),
        ("/var/lib/s/file", true),
    ] {
        assert_eq!(Path::new(path).exists(), stays, "{path}");
    }
}

/// With `RuntimeDirectoryPreserve=restart` a restart finds its files, and a stop removes them.
fn preserve(bench: &mut Bench) {
    let mut room = Room::new(bench);
    let stage2 = Stage2 {
        directories: vec![directory(DirectoryKind::Runtime, "r", 0o755)],
        runtime_preserve: Some(false),
        ..Stage2::default()
    };
    let mut it = room.service(&[], stage2);
    let script = "test -e /run/r/file && exit 0; touch /run/r/file; exit 1";
    it.start[0].program = "/bin/sh".into();
    it.start[0].arguments = ["sh", "-c", script].map(str::to_owned).to_vec();
    it.restart = Restart::OnFailure;
    room.start(it);
    room.bench.wait("it has found its file", |status| {
        let it = bench::service(status, "a.service");
        it.starts == 2 && it.state == "dead"
    });
    assert!(!Path::new("/run/r").exists());
    room.bench.stop();
}

fn prefixes(bench: &mut Bench) {
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

fn scheduling(bench: &mut Bench) {
    let mut room = Room::new(bench);
    let stage2 = Stage2 {
        scheduling: Scheduling {
            policy: Some(libc::SCHED_BATCH as u32),
            affinity: vec![0],
            // Class best effort (2), priority 6.
            io_priority: Some(2 << 13 | 6),
            timer_slack_ns: Some(1234),
            ..Scheduling::default()
        },
        ..Stage2::default()
    };
    room.check_stage2(
        stage2,
        &[
            ("call:scheduler", "3"),
            ("status:Cpus_allowed_list", "0"),
            ("call:io-priority", "16390"),
            ("call:slack", "1234"),
        ],
    );
}

fn strict(bench: &mut Bench) {
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

fn private(bench: &mut Bench) {
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

fn shared_tmp(bench: &mut Bench) {
    let mut room = Room::new(bench);
    let sandbox = Sandbox { private_tmp: true, ..Sandbox::default() };
    let mut it = room.service(&["list:/tmp"], sandboxed(sandbox));
    it.start_pre = vec![room.ask(&["write:/tmp/of-pre"])];
    let lines = room.run(it);
    let expected = ["write:/tmp/of-pre -> ok", "done", "list:/tmp -> of-pre", "done"];
    assert_eq!(lines, expected, "{}", room.bench.log());
}

const SHARED: &str = "/run/rouse/shared";

/// Namespaces, and a /tmp of its own, shared with a group.
fn joining(group: Option<&str>) -> Stage2 {
    sandboxed(Sandbox {
        private_tmp: true,
        namespaces: Namespaces { network: true, ipc: true, ..Namespaces::default() },
        joins: group.map(str::to_owned),
        ..Sandbox::default()
    })
}

/// A oneshot that stays active.
fn lasting(room: &Room<'_>, asks: &[&str], stage2: Stage2) -> Service {
    Service { remain_after_exit: true, ..room.service(asks, stage2) }
}

fn said() -> Vec<String> {
    std::fs::read_to_string(OUT).unwrap().lines().map(str::to_owned).collect()
}

/// The folders of what is shared, and the users of each.
fn shared() -> Vec<(String, Vec<String>)> {
    let names = |path: &Path| {
        let entries = std::fs::read_dir(path).into_iter().flatten();
        let mut names: Vec<String> =
            entries.map(|it| it.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    };
    let folders = names(Path::new(SHARED)).into_iter();
    folders.map(|it| (it.clone(), names(&Path::new(SHARED).join(it).join("users")))).collect()
}

fn shared_namespaces(bench: &mut Bench) {
    let mut room = Room::new(bench);
    let mut it = room.service(&["namespace:net", "namespace:ipc", "loopback"], joining(None));
    let privileged = Command { privileged: true, ..room.ask(&["namespace:net", "namespace:ipc"]) };
    it.start_pre = vec![room.ask(&["namespace:net", "namespace:ipc"]), privileged];
    let lines = room.run(it);
    assert_eq!(lines[..2], lines[3..5], "as systemd: `+` is about other things");
    assert_eq!(lines[..2], lines[6..8], "{}", room.bench.log());
    assert_eq!(lines[8], "loopback -> ok");
    let own = std::fs::read_link("/proc/self/ns/net").unwrap();
    assert_ne!(lines[0], format!("namespace:net -> {}", own.display()));
    assert_eq!(shared(), [], "a namespace is left behind");
}

/// As in systemd, whose `RuntimeDirectoryPreserve=` is not about these.
fn restart_alone(bench: &mut Bench) {
    let mut room = Room::new(bench);
    let mut it = room.service(&[], joining(None));
    let script = "readlink /proc/self/ns/net; ls /tmp; touch /tmp/of-$$; test $(wc -l <$OUT) -gt 1";
    it.start[0].program = "/bin/sh".into();
    it.start[0].arguments = ["sh", "-c", script].map(str::to_owned).to_vec();
    it.execution.environment.push(format!("OUT={OUT}"));
    it.restart = Restart::OnFailure;
    room.start(it);
    room.bench.wait("it was restarted", |status| {
        let it = bench::service(status, "a.service");
        it.starts == 2 && it.state == "dead"
    });
    room.bench.stop();
    let lines = said();
    assert_eq!(lines.len(), 2, "the second found a file of the first: {lines:?}");
    assert!(lines.iter().all(|line| line.starts_with("net:[")), "{lines:?}");
}

fn joined(bench: &mut Bench) {
    let room = Room::new(bench);
    let asks = ["list:/tmp", "namespace:net", "namespace:ipc"];
    let tmp_only = sandboxed(Sandbox {
        private_tmp: true,
        joins: Some("a.service".into()),
        ..Sandbox::default()
    });
    let first = [&["write:/tmp/of-a"][..], &asks].concat();
    let units = Units::default()
        .service("a.service", lasting(&room, &first, joining(Some("a.service"))))
        .service("b.service", lasting(&room, &asks, joining(Some("a.service"))))
        .service("c.service", lasting(&room, &asks, joining(None)))
        .service("d.service", lasting(&room, &asks, tmp_only))
        .needs("b.service", "a.service")
        .needs("c.service", "b.service")
        .needs("d.service", "c.service")
        .at_boot("d.service");
    room.bench.start(&units.build());
    room.bench.wait("all are up", |it| bench::service(it, "d.service").state == "exited");
    let lines = said();
    assert_eq!(lines.len(), 17, "{lines:?}");
    let (a, b, c, d) = (&lines[1..4], &lines[5..8], &lines[9..12], &lines[13..16]);
    assert_eq!(a, b, "the same /tmp and namespaces");
    assert_eq!(a[0], "list:/tmp -> of-a");
    assert_eq!(c[0], "list:/tmp -> ");
    assert_ne!(a[1], c[1], "one that is not joined has its own network");
    assert_ne!(a[2], c[2]);
    assert_eq!(d[0], a[0]);
    assert!(![&a[1], &c[1]].contains(&&d[1]), "it has no network of its own: {lines:?}");
    room.bench.stop();
    assert_eq!(shared(), []);
}

/// Units come and go; what is there stays as long as one of them, whoever made it.
fn joined_in_turn(bench: &mut Bench) {
    let room = Room::new(bench);
    let names = ["a.service", "b.service"];
    let asks = ["list:/tmp", "namespace:net"];
    let units = names.iter().fold(Units::default(), |units, name| {
        let touch = format!("write:/tmp/of-{}", &name[..1]);
        let asks = [&asks[..], &[touch.as_str()]].concat();
        units.service(name, lasting(&room, &asks, joining(Some("a.service"))))
    });
    room.bench.start(&units.build());
    let wait = |name: &str, state: &str| {
        room.bench.wait(state, |status| bench::service(status, name).state == state);
    };
    let start = |name: &str| {
        room.bench.order(Request::Start(name.into())).unwrap();
        wait(name, "exited");
    };
    let stop = |name: &str| {
        room.bench.order(Request::Stop(name.into())).unwrap();
        wait(name, "dead");
    };
    start("b.service");
    start("a.service");
    assert_eq!(shared(), [("b.service".into(), names.map(str::to_owned).to_vec())]);
    stop("b.service");
    start("b.service");
    stop("a.service");
    stop("b.service");
    assert_eq!(shared(), []);
    start("a.service");
    let lines = said();
    let tmp: Vec<&String> = lines.iter().step_by(4).collect();
    let expected = ["", "of-b", "of-a of-b", ""].map(|names| format!("list:/tmp -> {names}"));
    assert_eq!(tmp, expected.iter().collect::<Vec<_>>());
    let networks: Vec<&String> = lines[1..].iter().step_by(4).collect();
    assert!(networks[0] == networks[1] && networks[1] == networks[2], "{networks:?}");
}

fn joined_reload(bench: &mut Bench) {
    let room = Room::new(bench);
    let units = |group: Option<&str>| {
        let one = |touch: &str| lasting(&room, &["list:/tmp", touch], joining(group));
        let services =
            [("a.service", one("write:/tmp/of-a")), ("b.service", one("write:/tmp/of-b"))];
        let units = Units::default();
        services.into_iter().fold(units, |units, (name, it)| units.service(name, it)).build()
    };
    let [apart, together] = [units(None), units(Some("a.service"))];
    room.bench.start(&apart);
    let state = |name: &str, state: &str| {
        room.bench.wait(state, |status| bench::service(status, name).state == state);
    };
    room.bench.order(Request::Start("a.service".into())).unwrap();
    state("a.service", "exited");
    let reload = |manifest: &Manifest| crate::reload::reload(room.bench, manifest);
    // The one that runs is joined by the one that starts.
    reload(&together);
    room.bench.order(Request::Start("b.service".into())).unwrap();
    state("b.service", "exited");
    assert_eq!(said()[3], "list:/tmp -> of-a");
    // No longer joined: what runs keeps what it has, and what starts has its own.
    reload(&apart);
    room.bench.order(Request::Stop("a.service".into())).unwrap();
    state("a.service", "dead");
    assert_eq!(shared(), [("a.service".into(), vec!["b.service".to_owned()])]);
    room.bench.order(Request::Start("a.service".into())).unwrap();
    state("a.service", "exited");
    assert_eq!(said()[6], "list:/tmp -> ");
    for unit in ["a.service", "b.service"] {
        room.bench.order(Request::Stop(unit.into())).unwrap();
        state(unit, "dead");
    }
    assert_eq!(shared(), []);
}

fn kernel(bench: &mut Bench) {
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

fn binds(bench: &mut Bench) {
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

fn root(bench: &mut Bench) {
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

fn namespaces(bench: &mut Bench) {
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

fn identity(bench: &mut Bench) {
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

fn keyrings(bench: &mut Bench) {
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

fn missing_path(bench: &mut Bench) {
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

fn features(bench: &mut Bench) {
    let mut room = Room::new(bench);
    let on = true;
    let sandbox = Sandbox {
        address_families: Some((true, vec![libc::AF_UNIX as u32])),
        restrict_namespaces: libc::CLONE_NEWNET as u64,
        restrict_realtime: on,
        restrict_suid_sgid: on,
        lock_personality: on,
        memory_deny_write_execute: on,
        ..Sandbox::default()
    };
    let expected = [
        ("call:unix", "ok"),
        ("call:inet", "EAFNOSUPPORT"),
        ("call:unshare-net", "EPERM"),
        ("call:fifo", "EPERM"),
        ("call:suid", "EPERM"),
        ("call:personality", "EPERM"),
        ("call:write-execute", "EACCES"),
        ("call:mkdir", "ok"),
        ("status:NoNewPrivs", "0"),
    ];
    let asks: Vec<&str> = expected.iter().map(|(ask, _)| *ask).collect();
    let it = room.service(&asks, sandboxed(sandbox));
    let mut lines = room.run(it);
    // Refused by the kernel itself from 6.3 on, by a filter before.
    lines.iter_mut().for_each(|line| {
        *line = line.replace("call:write-execute -> EPERM", "call:write-execute -> EACCES");
    });
    let mut wanted: Vec<String> = expected.iter().map(|(a, b)| format!("{a} -> {b}")).collect();
    wanted.push("done".into());
    assert_eq!(lines, wanted, "{}", room.bench.log());
}

#[cfg(target_arch = "x86_64")]
const MKDIR: u32 = libc::SYS_mkdir as u32;
#[cfg(not(target_arch = "x86_64"))]
const MKDIR: u32 = libc::SYS_mkdirat as u32;

fn list(bench: &mut Bench) {
    let mut room = Room::new(bench);
    let filter = SystemCallFilter {
        allow: false,
        calls: vec![(MKDIR, Some(libc::ENOSYS as u16)), (libc::SYS_unshare as u32, None)],
        errno: None,
    };
    let sandbox = Sandbox { system_calls: Some(filter), ..Sandbox::default() };
    let asks = ["call:unix", "call:mkdir", "status:NoNewPrivs", "call:unshare-net", "call:unix"];
    let mut it = room.service(&asks, sandboxed(sandbox));
    let privileges = match has_users() {
        true => {
            it.execution.user = user();
            "status:NoNewPrivs -> 1"
        }
        false => "status:NoNewPrivs -> 0",
    };
    // SIGSYS ends it there.
    let expected = ["call:unix -> ok", "call:mkdir -> ENOSYS", privileges];
    assert_eq!(room.run(it), expected, "{}", room.bench.log());
}

fn other_abi(bench: &mut Bench) {
    if cfg!(not(target_arch = "x86_64")) {
        return eprintln!("SKIPPED: this machine has no other ABI");
    }
    let mut room = Room::new(bench);
    let sandbox = Sandbox { native_only: true, ..Sandbox::default() };
    let it = room.service(&["call:unix", "call:i386", "call:unix"], sandboxed(sandbox));
    assert_eq!(room.run(it), ["call:unix -> ok"], "{}", room.bench.log());
}

/// A listener by its name is on stdin, and still handed over; stderr goes where stdout goes.
fn named(bench: &mut Bench) {
    let room = Room::new(bench);
    let socket = |name: &str, port| socket(name, vec![tcp(port)]);
    let mut it = room.service(&["socket:0", "socket:3", "socket:4", "stderr"], Stage2::default());
    it.kind = ServiceKind::Simple;
    it.execution.stdin = Input::Fd("second".into());
    let units = Units::default()
        .service("a.service", it)
        .socket("a.socket", "a.service", socket("first", 3000))
        .socket("b.socket", "a.service", socket("second", 3001));
    room.bench.start(&units.build());
    let _client = std::net::TcpStream::connect("127.0.0.1:3000").unwrap();
    let expected = [
        "socket:0 -> 127.0.0.1:3001",
        "socket:3 -> 127.0.0.1:3000",
        "socket:4 -> 127.0.0.1:3001",
        "to stderr",
        "stderr -> ok",
        "done",
    ];
    let out = || std::fs::read_to_string(OUT).unwrap();
    bench::until("it has said all", || out().starts_with(&expected.join("\n")));
}

fn streams(bench: &mut Bench) {
    let mut room = Room::new(bench);
    let stage2 = Stage2 { stdin_data: b"some\ndata".into(), ..Stage2::default() };
    let mut it = room.service(&["stdin", "stderr"], stage2);
    it.execution.stdin = Input::Data;
    it.execution.stderr =
        Output::File { path: "/run/errors".into(), append: false, truncate: true };
    std::fs::write("/run/errors", "old text that is longer than the new one").unwrap();
    assert_eq!(room.run(it), ["stdin -> some", "data", "stderr -> ok", "done"]);
    assert_eq!(std::fs::read_to_string("/run/errors").unwrap(), "to stderr\n");
}
