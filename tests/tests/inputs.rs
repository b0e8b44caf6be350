//! Bad input through the command: the text that a person sees, the exit code, and that nothing
//! half-written is left. No VM is booted.
//!
//! The texts are in `inputs/`; `ROUSE_BLESS=1 cargo test -p rouse-tests --test inputs` writes
//! them anew.

use rouse_qemu::machine::Arch;
use rouse_qemu::registry::{Registry, VsockKind, Wanted};
use rouse_tests::{
    Appliance, Fault, Mirror, Output, Rouse, feed, golden, mask, mask_hashes, packages,
};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// A port that nobody can listen on by accident: asking it fails at once.
const NOWHERE: &str = "http://127.0.0.1:1/debian";

/// An appliance, a cache and a place for output, all of their own.
struct Case {
    rouse: Rouse,
    appliance: Appliance,
    scratch: tempfile::TempDir,
}

impl Case {
    fn new(appliance: Appliance) -> Self {
        Self { rouse: Rouse::new(), appliance, scratch: tempfile::tempdir().unwrap() }
    }

    /// The same, with a lock.
    fn locked(appliance: Appliance) -> Self {
        let text = std::fs::read_to_string(lock()).unwrap();
        Self::new(appliance.with("appliance.lock", &text))
    }

    fn cache(&self) -> PathBuf {
        self.scratch.path().join("cache")
    }

    fn output(&self) -> PathBuf {
        self.scratch.path().join("out/image")
    }

    /// `rouse` in the appliance's folder, with an empty cache and no way to any mirror.
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.rouse.command(arguments);
        command
            .current_dir(self.appliance.path())
            .env("ROUSE_CACHE_DIR", self.cache())
            .env("ROUSE_DEBIAN_MIRROR", NOWHERE)
            .env("ROUSE_SNAPSHOT_MIRROR", NOWHERE);
        command
    }

    fn build(&self) -> Command {
        let mut command = self.command(&["build", "-q", "."]);
        command.arg("--output").arg(self.output());
        command
    }

    /// Nothing was written beside the appliance, to the output's place, or half into the cache.
    #[track_caller]
    fn left_nothing(&self, before: &[String]) {
        assert_eq!(names(self.appliance.path()), before);
        assert_eq!(names(&self.scratch.path().join("out")), Vec::<String>::new());
        assert_eq!(names(&self.cache().join("scratch")), Vec::<String>::new());
    }
}

/// The lock of an appliance that asks for no package, and the tests' cache with all of it.
fn lock() -> &'static Path {
    static BUILT: OnceLock<Appliance> = OnceLock::new();
    let built = BUILT.get_or_init(|| {
        let appliance = Appliance::tiny();
        let mut command = Rouse::new().command(["build", "-q"]);
        feed(command.arg(appliance.path()), b"").success();
        appliance
    });
    static LOCK: OnceLock<PathBuf> = OnceLock::new();
    LOCK.get_or_init(|| built.path().join("appliance.lock"))
}

/// Names in a folder, sorted; none if there is no such folder.
fn names(folder: &Path) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let name = |entry: std::io::Result<std::fs::DirEntry>| {
        entry.unwrap().file_name().into_string().unwrap()
    };
    let mut names: Vec<String> = entries.map(name).collect();
    names.sort();
    names
}

#[track_caller]
fn shown(name: &str, output: &Output, code: i32) {
    assert_eq!(output.code, code, "{}", output.stderr);
    let text = mask(&output.stderr, "http://127.0.0.1:", &[' ', ':', ')', '\n'], "URL");
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/inputs/{name}.txt"));
    golden(&file, &format!("exit code {code}\n{}", mask_hashes(&text)));
}

/// A build of a bad appliance: shown, and nothing left.
#[track_caller]
fn refused(name: &str, appliance: Appliance) {
    let case = Case::new(appliance);
    let before = names(case.appliance.path());
    let output = feed(&mut case.build(), b"");
    shown(name, &output, 65);
    assert_eq!(output.text(), "");
    case.left_nothing(&before);
    assert_eq!(names(&case.cache().join("blobs")), Vec::<String>::new());
    // `check` sees the same.
    let checked = feed(&mut case.command(&["check", "."]), b"");
    // But where there is no appliance, nothing was found in it.
    let is_there = case.appliance.path().join("appliance.toml").exists();
    assert_eq!(checked.code, if is_there { 1 } else { 65 }, "{}", checked.stderr);
    assert_eq!(checked.stderr, output.stderr);
}

#[test]
fn no_appliance() {
    refused("no-appliance", Appliance::empty());
}

#[test]
fn an_unknown_key_of_appliance_toml() {
    let text = "name = \"a\"\npakages = [\"socat\"]\n";
    refused("unknown-config-key", Appliance::empty().with("appliance.toml", text));
}

#[test]
fn a_value_of_appliance_toml_that_has_a_unit() {
    let text = "name = \"a\"\n\n[vm]\nmemory = \"256M\"\n";
    refused("wrong-config-type", Appliance::empty().with("appliance.toml", text));
}

#[test]
fn a_key_of_the_whole_file_below_a_table() {
    let text = "name = \"a\"\n\n[vm]\ncpus = 2\npackages = [\"socat\"]\n";
    refused("misplaced-config-key", Appliance::empty().with("appliance.toml", text));
}

#[test]
fn a_folder_of_appliances() {
    let case = Case::new(Appliance::empty().with("echo/appliance.toml", ""));
    let output = feed(&mut case.command(&["build"]), b"");
    shown("folder-of-appliances", &output, 65);
    let file = feed(&mut case.command(&["run", "echo/appliance.toml"]), b"");
    shown("file-for-folder", &file, 65);
    shown("misspelt-folder", &feed(&mut case.command(&["check", "ehco"]), b""), 65);
}

#[test]
fn findings_of_appliance_toml_are_json() {
    let appliance = Appliance::empty().with("appliance.toml", "name = \"a\"\ncpus = 1\n");
    let case = Case::new(appliance);
    let output = feed(&mut case.command(&["check", "--json"]), b"");
    assert_eq!((output.code, output.stderr.as_str()), (1, ""));
    let found: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let expected = serde_json::json!([{
        "severity": "error", "file": "./appliance.toml", "line": 2, "column": 1,
        "message": "`cpus` is unknown in appliance.toml", "expected": "unknown",
        "help": "it is a key of `[vm]`",
    }]);
    assert_eq!(found, expected);
}

#[test]
fn a_file_that_is_not_there() {
    refused(
        "missing-file",
        Appliance::tiny().replace("appliance.toml", "= \"hello\"", "= \"hallo\""),
    );
}

#[test]
fn a_file_of_an_image_that_is_not_there() {
    let text = "\n[image.\"ghcr.io/eriksjolund/socket-activate-echo\"]\n\
        entrypoint = [\"/server\"]\nfiles = { \"/server\" = \"bin/server\" }\n";
    let echo =
        Appliance::of_config("echo").with("appliance.toml", &format!("name = \"e\"\n{text}"));
    refused("missing-image-file", echo);
}

#[test]
fn a_package_to_compile_that_is_not_there() {
    let echo = Appliance::of_config("echo");
    refused("missing-cargo", echo.replace("appliance.toml", "\"server\"", "\"sever\""));
}

#[test]
fn a_bad_address() {
    let echo = Appliance::of_config("echo");
    refused("bad-address", echo.replace("echo.socket", "127.0.0.1:3000", "127.0.0.1:70000"));
}

#[test]
fn a_broken_section_header() {
    let echo = Appliance::of_config("echo");
    refused("section-header", echo.replace("echo.socket", "[Socket]", "[Socket"));
}

#[test]
fn an_unknown_key_of_a_container() {
    let echo = Appliance::of_config("echo");
    refused("unknown-container-key", echo.replace("echo.container", "Network=", "Netwerk="));
}

#[test]
fn a_service_that_does_not_exist() {
    let echo = Appliance::of_config("echo");
    let changed = echo.replace("echo.socket", "[Socket]\n", "[Socket]\nService=ecko.service\n");
    refused("missing-service", changed);
}

#[test]
fn an_image_that_is_not_mapped() {
    let echo = Appliance::of_config("echo");
    let long = "ghcr.io/eriksjolund/socket-activate-echo";
    refused("unmapped-image", echo.replace("echo.container", long, "socket-activate-echo"));
}

/// The echo appliance with another table for its image.
fn image_of(table: &str) -> Appliance {
    let reference = "ghcr.io/eriksjolund/socket-activate-echo";
    let text = format!("name = \"e\"\n\n[image.\"{reference}\"]\n{table}");
    Appliance::of_config("echo").with("appliance.toml", &text)
}

#[test]
fn an_image_with_two_sources() {
    let table = "from = \"docker://quay.io/echo:1\"\ncargo = \"server\"\n";
    refused("two-image-sources", image_of(table));
}

#[test]
fn an_image_from_nowhere() {
    refused("image-transport", image_of("from = \"quay.io/echo:1\"\n"));
}

#[test]
fn an_image_in_an_archive_that_is_not_there() {
    refused("missing-image-archive", image_of("from = \"oci-archive:image.tar:v1\"\n"));
}

#[test]
fn a_lock_that_was_edited() {
    let lock =
        std::fs::read_to_string(lock()).unwrap().replacen("version = 1", "version = 1\nx", 1);
    let case = Case::new(Appliance::tiny().with("appliance.lock", &lock));
    let before = names(case.appliance.path());
    shown("edited-lock", &feed(&mut case.build(), b""), 65);
    case.left_nothing(&before);
}

#[test]
fn a_unit_that_no_package_has() {
    let enabled = "name = \"tiny\"\nenable = [\"nothing.service\"]\n";
    let case = Case::locked(Appliance::tiny().with("appliance.toml", enabled));
    let mut command = case.build();
    command.env("ROUSE_CACHE_DIR", case.rouse.cache());
    shown("enabled-nothing", &feed(&mut command, b""), 65);
}

#[test]
fn a_package_that_does_not_exist() {
    let text = "name = \"tiny\"\npackages = [\"soccat\"]\n";
    let case = Case::new(Appliance::tiny().with("appliance.toml", text));
    let before = names(case.appliance.path());
    let mut command = case.build();
    // The index is the real mirror's.
    command.env_remove("ROUSE_DEBIAN_MIRROR").env("ROUSE_CACHE_DIR", case.rouse.cache());
    shown("unknown-package", &feed(&mut command, b""), 65);
    case.left_nothing(&before);
}

#[test]
fn an_unknown_key_of_a_unit_is_a_warning() {
    let echo = Appliance::of_config("echo");
    let case = Case::new(echo.replace("echo.socket", "[Socket]\n", "[Socket]\nBaklog=5\n"));
    shown("unknown-unit-key", &feed(&mut case.command(&["check", "."]), b""), 0);
    let strict = feed(&mut case.command(&["check", "--strict", "."]), b"");
    assert_eq!(strict.code, 1, "{}", strict.stderr);
    let before = names(case.appliance.path());
    let strict = feed(case.build().arg("--strict"), b"");
    assert_eq!(strict.code, 65, "{}", strict.stderr);
    case.left_nothing(&before);
}

/// A build whose mirror answers for one package as the fault says.
fn with_fault(name: &str, fault: Fault, code: i32) {
    let case = Case::locked(Appliance::tiny());
    let mirror = Mirror::of(lock());
    let bad = packages(lock()).pop().unwrap();
    mirror.fail(&bad, fault);
    let before = names(case.appliance.path());
    let mut command = case.build();
    command.env("ROUSE_DEBIAN_MIRROR", mirror.url());
    command.env("ROUSE_SNAPSHOT_MIRROR", mirror.snapshot());
    let mut output = feed(&mut command, b"");
    let known = [
        (bad.version.clone(), "VERSION"),
        (format!("expected {} bytes", bad.size), "expected ALL bytes"),
        (format!("got {}", bad.size / 2), "got HALF"),
    ];
    for (text, instead) in known {
        output.stderr = output.stderr.replace(&text, instead);
    }
    shown(name, &output, code);
    case.left_nothing(&before);
    assert!(!names(&case.cache().join("blobs")).contains(&bad.sha256.to_string()));
    // What came whole was kept, and with a good mirror the rest follows.
    mirror.mend();
    feed(&mut command, b"").success();
    assert_eq!(names(&case.output()).len(), 4);
}

#[test]
fn a_truncated_download() {
    with_fault("truncated", Fault::Half, 75);
}

#[test]
fn a_wrong_hash() {
    with_fault("wrong-hash", Fault::OtherContent, 69);
}

#[test]
fn a_superseded_package() {
    with_fault("superseded", Fault::Gone, 69);
}

#[test]
fn a_lock_that_does_not_cover_a_new_package() {
    let text = "name = \"tiny\"\npackages = [\"socat\"]\n";
    let case = Case::locked(Appliance::tiny().with("appliance.toml", text));
    let before = names(case.appliance.path());
    let mut command = case.command(&["build", "."]);
    let output = feed(command.arg("--output").arg(case.output()), b"");
    shown("uncovered-package", &output, 69);
    case.left_nothing(&before);
}

#[test]
fn a_killed_build() {
    let case = Case::locked(Appliance::tiny());
    let before = names(case.appliance.path());
    let mirror = Mirror::of(lock());
    let mut command = case.build();
    command.env("ROUSE_DEBIAN_MIRROR", mirror.url());

    // In the middle of the downloads.
    mirror.fail(&packages(lock())[1], Fault::Silence);
    let mut child = command.spawn().unwrap();
    wait_until(|| !mirror.log().is_empty());
    child.kill().unwrap();
    assert_eq!(child.wait().unwrap().code(), None, "it was killed");
    assert!(!case.output().exists());

    // While it writes the image.
    mirror.mend();
    let partial = case.output().with_file_name(".image.partial");
    let mut child = command.spawn().unwrap();
    wait_until(|| partial.exists());
    child.kill().unwrap();
    assert_eq!(child.wait().unwrap().code(), None, "it was killed");
    assert!(!case.output().exists());

    feed(&mut command, b"").success();
    assert_eq!(names(case.output().parent().unwrap()), ["image"]);
    assert_eq!(names(&case.output()).len(), 4);
    assert_eq!(names(&case.cache().join("scratch")), Vec::<String>::new());
    assert_eq!(names(case.appliance.path()), before);
}

#[track_caller]
fn wait_until(mut check: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(120);
    while !check() {
        assert!(Instant::now() < end, "it never came to that");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// A command on a machine where a folder is a disk of some KiB, and what was in it at the end.
fn on_small_disk(folder: &Path, kibibytes: u32, command: &Command) -> Option<(Output, String)> {
    let script = "mount -t tmpfs -o size=$1k none \"$2\" || exit 99; folder=$2; shift 2; \"$@\"; \
        code=$?; cd \"$folder\"; find . -type f -not -path './locks/*' | sort; exit $code";
    std::fs::create_dir_all(folder).unwrap();
    // Anybody may have a name space of users of their own, where the kernel allows it.
    let flags = if rustix::process::geteuid().is_root() { "-m" } else { "-rm" };
    let mut inside = Command::new("unshare");
    inside.args([flags, "sh", "-c", script, "sh", &kibibytes.to_string()]).arg(folder);
    inside.arg(command.get_program()).args(command.get_args());
    inside.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    inside.current_dir(command.get_current_dir().unwrap());
    if !Command::new("unshare").args([flags, "true"]).status().is_ok_and(|status| status.success())
    {
        rouse_tests::skipped(format_args!(
            "this machine lets nobody have mounts of their own (unshare {flags})"
        ));
        return None;
    }
    let output = feed(&mut inside, b"");
    let left = output.text();
    Some((output, left))
}

#[test]
fn a_full_disk_under_the_cache() {
    let case = Case::locked(Appliance::tiny());
    let mirror = Mirror::of(lock());
    let before = names(case.appliance.path());
    let mut command = case.build();
    command.env("ROUSE_DEBIAN_MIRROR", mirror.url());
    let Some((mut output, left)) = on_small_disk(&case.cache(), 4096, &command) else { return };
    output.stderr = output.stderr.replace(&case.scratch.path().display().to_string(), "");
    output.stderr = mask(&output.stderr, "/cache/scratch/", &['/'], "/cache/scratch/RANDOM");
    shown("full-cache", &output, 75);
    assert!(!left.contains("scratch"), "{left}");
    case.left_nothing(&before);
}

#[test]
fn a_full_disk_under_the_output() {
    let case = Case::locked(Appliance::tiny());
    let before = names(case.appliance.path());
    let mut command = case.build();
    command.env("ROUSE_CACHE_DIR", case.rouse.cache());
    let folder = case.output().parent().unwrap().to_owned();
    let Some((mut output, left)) = on_small_disk(&folder, 64, &command) else { return };
    output.stderr = output.stderr.replace(&case.scratch.path().display().to_string(), "");
    shown("full-output", &output, 75);
    assert_eq!(left, "");
    case.left_nothing(&before);
}

#[test]
fn a_place_for_the_image_that_is_taken() {
    let appliance = Appliance::tiny().with("notes/precious", "x");
    let case = Case::new(appliance);
    let before = names(case.appliance.path());
    // Nothing could be fetched: it is said before that is tried.
    let output = feed(&mut case.command(&["build", "--output", "notes"]), b"");
    shown("occupied-output", &output, 1);
    assert_eq!(names(&case.appliance.path().join("notes")), ["precious"]);
    case.left_nothing(&before);
}

#[test]
fn a_command_line_that_makes_no_sense() {
    let case = Case::new(Appliance::tiny());
    let wrong = |arguments: &[&str]| {
        let output = feed(&mut case.command(arguments), b"");
        assert_eq!(output.code, 2, "{}", output.stderr);
        output.stderr
    };
    let port = "'x' for '<PORT>': `x` is no vsock port, 0 to 4294967294";
    assert!(wrong(&["connect", "vm", "x"]).contains(port));
    let publish = "`example.org:80` is neither a path with a / in it, nor a port, nor ADDRESS:PORT";
    assert!(wrong(&["run", "--publish", "example.org:80=3000"]).contains(publish));
    assert!(wrong(&["run", "--publish", "8080:3000"]).contains("expected HOST=PORT"));
    assert!(wrong(&["chekc"]).contains("similar subcommand exists: 'check'"));
    let nobody = feed(&mut case.command(&["status", "nobody"]), b"");
    assert!(nobody.stderr.contains("hint: no appliance runs"), "{}", nobody.stderr);
    feed(&mut case.command(&["help", "run"]), b"").success();
}

#[test]
fn a_busy_name_and_a_busy_cid() {
    let case = Case::locked(Appliance::tiny());
    let registry = Registry::at(case.rouse.runtime().to_owned()).unwrap();
    let arch = if cfg!(target_arch = "x86_64") { Arch::X86_64 } else { Arch::Aarch64 };
    let wanted = Wanted {
        name: "busy",
        cid: Some(4077),
        arch,
        appliance: case.appliance.path(),
        vsock: VsockKind::Device,
        publish: &[],
        listeners: &serde_json::Value::Null,
        image: &serde_json::Value::Null,
    };
    let _claim = registry.claim(&wanted).unwrap();
    let run = |more: &[&str]| {
        let mut command = case.command(&["run", "-q", "."]);
        command.args(more).env("ROUSE_CACHE_DIR", case.rouse.cache());
        // QEMU may have to be fetched.
        feed(command.env_remove("ROUSE_DEBIAN_MIRROR"), b"")
    };
    shown("bad-name", &run(&["--name", "No Name"]), 2);
    shown("busy-name", &run(&["--name", "busy"]), 75);
    let misspelt = feed(&mut case.command(&["poweroff", "busi"]), b"");
    assert!(misspelt.stderr.ends_with("hint: did you mean busy?\n"), "{}", misspelt.stderr);
    shown("busy-cid", &run(&["--name", "other", "--cid", "4077"]), 75);
    let running: Vec<String> =
        registry.list().unwrap().into_iter().map(|entry| entry.record.name).collect();
    assert_eq!(running, ["busy"]);
}
