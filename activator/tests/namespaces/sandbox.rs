//! Each key of systemd.exec(5) that stage 2 carries out, as seen by a service that is under it.

mod directories;
mod filters;
mod identities;
mod mounts;
mod shared;

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
    ("sandbox::directories_belong_to_the_user_and_are_named", directories::directories),
    ("sandbox::a_dynamic_user_has_private_directories", directories::dynamic_user),
    ("sandbox::credentials_are_for_the_user_alone", directories::credentials),
    ("sandbox::capabilities_are_kept_over_the_change_of_user", identities::capabilities),
    ("sandbox::what_a_run_leaves_behind_is_removed", directories::clean),
    ("sandbox::a_runtime_directory_may_outlive_a_restart", directories::preserve),
    ("sandbox::plus_keeps_all_and_exclamation_mark_root", identities::prefixes),
    ("sandbox::scheduling_and_slack", scheduling),
    ("sandbox::strict_is_read_only_but_where_it_says", mounts::strict),
    ("sandbox::home_tmp_and_devices_are_private", mounts::private),
    ("sandbox::a_private_tmp_is_shared_by_the_commands_of_a_unit", shared::shared_tmp),
    ("sandbox::namespaces_are_shared_by_the_commands_of_a_unit", shared::shared_namespaces),
    ("sandbox::a_restart_has_a_new_tmp_and_new_namespaces", shared::restart_alone),
    ("sandbox::joined_units_share_what_they_have_private", shared::joined),
    ("sandbox::the_last_of_joined_units_takes_what_they_share", shared::joined_in_turn),
    ("sandbox::a_joined_unit_keeps_what_it_began_with_over_a_reload", shared::joined_reload),
    ("sandbox::kernel_files_are_out_of_reach", mounts::kernel),
    ("sandbox::binds_temporary_files_and_no_exec", mounts::binds),
    ("sandbox::a_root_of_its_own", mounts::root),
    ("sandbox::namespaces_of_its_own", identities::namespaces),
    ("sandbox::a_user_namespace_with_all_ids", identities::identity),
    ("sandbox::a_shared_keyring_is_that_outside_of_the_user_namespace", identities::keyrings),
    ("sandbox::a_path_that_is_missing_is_226", mounts::missing_path),
    ("sandbox::system_calls_are_refused_by_feature", filters::features),
    ("sandbox::system_calls_are_refused_by_list", filters::list),
    ("sandbox::another_abi_is_no_way_around_a_filter", filters::other_abi),
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

/// A oneshot that stays active.
fn lasting(room: &Room<'_>, asks: &[&str], stage2: Stage2) -> Service {
    Service { remain_after_exit: true, ..room.service(asks, stage2) }
}

fn said() -> Vec<String> {
    std::fs::read_to_string(OUT).unwrap().lines().map(str::to_owned).collect()
}

fn directory(kind: DirectoryKind, path: &str, mode: u32) -> Directory {
    Directory { kind, path: path.into(), links: vec![], mode, read_only: false }
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
