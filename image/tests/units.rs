//! The unit compiler over folders of units: each case below `tests/units/` holds unit files, and
//! `expected.txt` with the findings as they are printed and what the guest would do.
//!
//! `ROUSE_BLESS=1 cargo test -p rouse --test units` writes the expected texts anew.

use activator::manifest::{
    Command, HealthCheck, Manifest, OnUnhealthy, Preparation, Probe, SecretTarget, StartupCheck,
    UnitKind,
};
use rouse::config::{Config, Engine, FILE};
use rouse::container::VolumeSource;
use rouse::finding::{Severity, Source};
use rouse::units::{Architecture, Compiled, Input, compile, describe};
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

const PASSWD: &str = "root:x:0:0:root:/root:/bin/bash\n\
                      daemon:x:1:1:daemon:/usr/sbin:/usr/sbin/nologin\n\
                      www-data:x:33:33:www-data:/var/www:/usr/sbin/nologin\n";
const GROUP: &str = "root:x:0:\ndaemon:x:1:\nadm:x:4:www-data\nwww-data:x:33:\n";

fn cases() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/units")
}

/// Files below `packaged/` as paths in the image.
fn packaged(folder: &Path) -> Vec<(String, String)> {
    fn walk(folder: &Path, below: &str, found: &mut Vec<(String, String)>) {
        let Ok(entries) = fs::read_dir(folder) else { return };
        for entry in entries {
            let entry = entry.unwrap();
            let name = entry.file_name().into_string().unwrap();
            let path = format!("{below}{name}");
            match entry.path().is_dir() {
                true => walk(&entry.path(), &format!("{path}/"), found),
                false => found.push((path, fs::read_to_string(entry.path()).unwrap())),
            }
        }
    }
    let mut found = vec![];
    walk(&folder.join("packaged"), "", &mut found);
    found.sort();
    found
}

/// Lines of `links.txt`: path in the image, target.
fn links(folder: &Path) -> Vec<(String, String)> {
    let text = fs::read_to_string(folder.join("links.txt")).unwrap_or_default();
    let line = |line: &str| line.split_once(' ').map(|(a, b)| (a.to_owned(), b.to_owned()));
    text.lines().filter_map(line).collect()
}

fn compile_folder(folder: &Path) -> Compiled {
    let (config, source) = match fs::read_to_string(folder.join(FILE)) {
        Ok(text) => {
            let source = Arc::new(Source { path: FILE.into(), text });
            let config = Config::parse(&source);
            assert!(config.is_ok(), "{config:?}");
            (config.unwrap_or_default(), Some(source))
        }
        Err(_) => (Config::default(), None),
    };
    let mut config = config;
    if config.engine == Engine::Crun {
        for (name, image) in rouse::units::built_images(folder, &config) {
            config.image.entry(name).or_insert(image);
        }
    }
    compile_with(folder, &config, source.as_ref())
}

fn compile_with(folder: &Path, config: &Config, source: Option<&Arc<Source>>) -> Compiled {
    let has_file = |path: &str| !path.contains("missing");
    compile(&Input {
        folder,
        packaged: &packaged(folder),
        links: &links(folder),
        name: "test",
        config,
        config_source: source,
        passwd: &format!("{PASSWD}{}", users(config, rouse::login::passwd)),
        group: &format!("{GROUP}{}", users(config, rouse::login::group)),
        architecture: Architecture::X86_64,
        has_file: Some(&has_file),
        generator: None,
    })
}

/// The lines of an account file for the appliance's users.
fn users(config: &Config, file: impl Fn(&[rouse::config::User]) -> String) -> String {
    file(&config.users).strip_prefix(&file(&[])).unwrap_or_default().to_owned()
}

fn manifest(compiled: &Compiled) -> Manifest {
    Manifest {
        name: "test".into(),
        users: compiled.users.clone(),
        units: compiled.units.clone(),
        ..Manifest::default()
    }
}

/// Findings and meaning, without the paths of this machine.
fn render(folder: &Path, compiled: &Compiled) -> String {
    let mut text = String::new();
    for finding in &compiled.findings {
        text.push_str(&finding.render(false));
        text.push_str("\n\n");
    }
    if !compiled.units.is_empty() {
        text.push_str(&describe(&manifest(compiled)));
        for (service, container) in &compiled.containers {
            let user = container.owner.as_ref().map(|owner| owner.name.as_str());
            text.push_str(&format!("\n{}", compiled.cat(user, service).unwrap_or_default()));
        }
    }
    text.replace(&format!("{}/", folder.display()), "")
        .replace(&folder.display().to_string(), "FOLDER")
}

#[test]
fn every_case_says_what_is_expected() {
    let bless = std::env::var_os("ROUSE_BLESS").is_some();
    let mut folders: Vec<PathBuf> =
        fs::read_dir(cases()).unwrap().map(|entry| entry.unwrap().path()).collect();
    folders.sort();
    assert!(folders.len() > 20);
    let mut different = vec![];
    for folder in folders {
        let compiled = compile_folder(&folder);
        let text = render(&folder, &compiled);
        let expected = folder.join("expected.txt");
        if bless {
            fs::write(&expected, &text).unwrap();
        } else if fs::read_to_string(&expected).unwrap_or_default() != text {
            different.push(format!("{}:\n{text}", folder.display()));
        }
        let name = folder.file_name().unwrap().to_str().unwrap();
        let errors = compiled.findings.iter().any(|found| found.severity == Severity::Error);
        assert_eq!(errors, name.starts_with("bad-"), "{name}: {text}");
        for finding in &compiled.findings {
            let next_step = finding.help.is_some() || finding.severity == Severity::Note;
            assert!(next_step, "{name}: no next step: {}", finding.message);
            assert!(!errors || compiled.units.is_empty(), "{name}");
        }
    }
    assert!(different.is_empty(), "{}", different.join("\n"));
}

#[test]
fn the_echo_appliance_compiles_without_a_finding() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../configs/echo");
    let compiled = compile_folder(&folder);
    assert_eq!(compiled.findings, []);
    let names: Vec<&str> = compiled.units.iter().map(|unit| unit.name.as_str()).collect();
    assert_eq!(names, ["echo.service", "echo.socket"]);
    let at_boot: Vec<bool> = compiled.units.iter().map(|unit| unit.start_at_boot).collect();
    assert_eq!(at_boot, [false, true]);
    assert_eq!(compiled.containers.len(), 1);
    assert_eq!(compiled.containers[0].1.name, "systemd-echo");
}

#[test]
fn the_tutorials_whole_container_starts_at_boot() {
    let compiled = compile_folder(&cases().join("tutorial"));
    assert_eq!(compiled.findings, []);
    assert!(compiled.units.iter().all(|unit| unit.start_at_boot));
}

#[test]
fn the_result_is_the_same_every_time() {
    for case in ["tutorial", "podman", "several-sockets-systemd-16647", "bad-values"] {
        let folder = cases().join(case);
        let (first, second) = (compile_folder(&folder), compile_folder(&folder));
        assert_eq!(manifest(&first), manifest(&second), "{case}");
        assert_eq!(first.findings, second.findings, "{case}");
    }
}

#[test]
fn the_container_of_a_quadlet_is_typed() {
    let compiled = compile_folder(&cases().join("container"));
    let (service, container) = &compiled.containers[0];
    assert_eq!(service, "complete.service");
    assert_eq!(container.name, "full-complete");
    let words = ["serve", "--greeting", "hello world", "--port=8080"].map(String::from);
    assert_eq!(container.exec.as_deref(), Some(&words[..]));
    assert_eq!(container.entrypoint, Some(vec!["/bin/server".into(), "-x".into()]));
    let variables = [("A", "one"), ("B", "2"), ("C", "three words")];
    assert_eq!(container.environment, variables.map(|(k, v)| (k.into(), v.into())));
    assert_eq!(container.user.as_deref(), Some("1000:1000"));
    assert_eq!(container.add_capabilities, ["CAP_NET_RAW", "CAP_SYS_NICE"]);
    assert_eq!(container.drop_capabilities, ["CAP_ALL"]);
    assert_eq!(container.memory, Some(128 << 20));
    assert_eq!(container.shm_size, 1 << 20);
    assert_eq!(container.pids_limit, Some(100));
    assert_eq!(container.read_only, Some(true));
    assert!(!container.read_only_tmpfs);
    let options = vec!["size=10m".into(), "mode=1777".into()];
    assert_eq!(container.tmpfs, [("/scratch".into(), options)]);
    let [volume] = &container.volumes[..] else { panic!("{:?}", container.volumes) };
    assert_eq!(volume.source, VolumeSource::Path("/etc/ssl".into()));
    assert_eq!(
        (volume.destination.as_str(), &volume.options[..]),
        ("/etc/ssl", &["ro".into()][..])
    );
    assert_eq!(container.ulimits, [("nofile".into(), 1024, 2048)]);
    assert_eq!(container.mask, ["/proc/a", "/proc/b"]);
    assert_eq!(container.unmask, ["ALL"]);
    assert_eq!(container.stop_signal.as_deref(), Some("SIGINT"));
    let image = &container.image_span;
    assert_eq!(&image.source.text[image.range.clone()], "localhost/full");
}

/// Compiles units of these names and texts, whatever is wrong with them.
fn compile_texts(units: &[(&str, &str)]) -> Compiled {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in units {
        fs::write(folder.path().join(name), text).unwrap();
    }
    compile_with(folder.path(), &Config::default(), None)
}

/// The findings that are no notes, about a container of engine crun: `[Container]`, its image and
/// these lines.
fn complaints(lines: &str) -> Vec<String> {
    let text = format!("[Container]\nImage=x\n{lines}\n");
    let compiled = compile_texts(&[("a.container", text.as_str())]);
    let checked = compiled.containers.iter().flat_map(|(_, it)| rouse::oci::check(it));
    let all = compiled.findings.iter().cloned().chain(checked);
    all.filter(|it| it.severity == Severity::Error).map(|it| it.one_line()).collect()
}

fn preparation<'a>(compiled: &'a Compiled, service: &str) -> &'a Preparation {
    let unit = compiled.units.iter().find(|unit| unit.name == service).unwrap();
    let UnitKind::Service(service) = &unit.kind else { panic!("{service} is no service") };
    &service.container.as_ref().unwrap().preparation
}

#[test]
fn a_container_may_name_other_quadlets() {
    let compiled = compile_texts(&[
        ("a.container", "[Container]\nImage=x\nContainerName=first\nNetwork=none\n"),
        (
            "b.container",
            "[Container]\nImage=x\nNetwork=a.container\nVolume=data.volume:/a\n\
             Mount=type=volume,source=other.volume,destination=/b\n",
        ),
        ("data.volume", "[Volume]\n"),
        ("other.volume", "[Volume]\nVolumeName=mine\nLabel=a=b\n"),
    ]);
    let errors = compiled.findings.iter().filter(|it| it.severity == Severity::Error);
    assert_eq!(errors.count(), 0, "{:?}", compiled.findings);
    let made = preparation(&compiled, "b.service");
    assert_eq!(made.network_of.as_deref(), Some("first"));
    let place = "/var/lib/containers/storage/volumes";
    let folders: Vec<&str> = made.volumes.iter().map(|it| it.path.as_str()).collect();
    assert_eq!(folders, [format!("{place}/systemd-data/_data"), format!("{place}/mine/_data")]);
    let b = describe(&manifest(&compiled));
    let (_, b) = b.split_once("\nb.service").unwrap();
    assert!(b.contains("requires   a.service") && b.contains("after      a.service"), "{b}");
}

#[test]
fn every_secret_is_a_file_of_its_own_and_of_the_containers_ids() {
    let text = "[secret.key]\npath = \"/etc/key\"\n".to_owned();
    let config = Config::parse(&Arc::new(Source { path: FILE.into(), text })).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let of = |maps: &str| {
        let text = format!(
            "[Container]\nImage=x\nNetwork=none\n{maps}Secret=key,uid=33,mode=0400\n\
             Secret=key,target=/etc/key\n"
        );
        fs::write(folder.path().join("a.container"), text).unwrap();
        let compiled = compile_with(folder.path(), &config, None);
        let messages: Vec<_> = compiled.findings.iter().map(|it| it.message.clone()).collect();
        if compiled.units.is_empty() {
            return Err(messages);
        }
        let secrets = &preparation(&compiled, "a.service").secrets;
        Ok(secrets.iter().map(|it| it.target.clone()).collect::<Vec<_>>())
    };
    let file = |name: &str, owner, mode| SecretTarget::File { name: name.into(), owner, mode };
    let expected = vec![file("0-key", (33, 0), 0o400), file("1-key", (0, 0), 0o444)];
    assert_eq!(of(""), Ok(expected));
    // As the ids of a lingering user with a range of subordinate ones.
    let maps = "UIDMap=0:1000:1\nUIDMap=1:100000:1000\n";
    let expected = vec![file("0-key", (100_032, 1000), 0o400), file("1-key", (1000, 1000), 0o444)];
    assert_eq!(of(maps), Ok(expected));
    let few = of("UIDMap=0:1000:1\n").unwrap_err();
    assert!(few.contains(&"`Secret=` is for user 33 and group 0".into()), "{few:?}");
}

#[test]
fn what_crun_cannot_do_is_found_at_its_line() {
    let cases = [
        (
            "Network=none\nSysctl=vm.swappiness=1\nSysctl=net.core.somaxconn=1",
            Some((4, "of its own")),
        ),
        ("Network=none\nAddCapability=net_raw\nDropCapability=NET_RAW\nUser=0", Some((5, "both"))),
        ("Network=none\nTmpfs=/a:fish\nTmpfs=/b", Some((4, "option `fish`"))),
        ("Network=none\nPodmanArgs=--ulimit fish=1\nReadOnly=yes", Some((4, "no limit"))),
        // Names of its own.
        ("Network=none\nSysctl=kernel.domainname=a", None),
        (
            "Network=none\nSysctl=kernel.domainname=a\nPodmanArgs=--uts=host",
            Some((4, "of its own")),
        ),
        // A network that another user namespace has made.
        ("Network=ns:/run/netns/a\nUIDMap=0:1000:9\nSysctl=net.a=1", Some((5, "no say about"))),
        ("Network=ns:/run/netns/a\nSysctl=net.a=1", None),
        ("Network=none\nUIDMap=0:1000:9\nSysctl=net.a=1", None),
        // Values of keys.
        ("Network=none\nAppArmor=unconfined\nLogDriver=json-file", None),
        ("Network=none\nAppArmor=strict", Some((4, "`AppArmor=strict` is a profile"))),
        ("Network=none\nPodmanArgs=--security-opt apparmor=x", Some((4, "`AppArmor=x`"))),
        ("Network=none\nLogDriver=journald", Some((4, "needs a journal"))),
        ("Network=none\nLogDriver=fluentd", Some((4, "does not take `fluentd`"))),
        ("Network=none\nMount=type=image,source=x,destination=/i,rw=true", Some((4, "`rw`"))),
        ("Network=none\nMount=type=glob,source=/x/*,destination=/i,U", Some((4, "`U`"))),
        (
            "Network=none\nMount=type=volume,source=../x,destination=/v",
            Some((4, "`../x` cannot be a volume's name")),
        ),
        // Flags take no word.
        ("Network=none\nPodmanArgs=--no-healthcheck --tls-verify --init", None),
        ("Network=none\nPodmanArgs=--systemd=false --init", None),
        (
            "Network=none\nPodmanArgs=--systemd=always",
            Some((4, "`PodmanArgs=--systemd` needs Podman")),
        ),
        ("Network=none\nPodmanArgs=--tty --init", Some((4, "`PodmanArgs=--tty` needs Podman"))),
        // The image may have a check.
        ("Network=none\nNotify=healthy\nHealthStartupCmd=true", None),
        ("Network=none\nNotify=healthy\nHealthCmd=none", Some((4, "none ever runs"))),
        // Other files.
        ("Network=b.container", Some((3, "names `b.container`, which does not exist"))),
        ("Network=none\nVolume=b.volume:/b", Some((4, "names `b.volume`, which does not exist"))),
    ];
    for (lines, expected) in cases {
        let found = complaints(lines);
        match expected {
            None => assert_eq!(found, [""; 0], "{lines}"),
            Some((line, text)) => {
                assert_eq!(found.len(), 1, "{lines}: {found:?}");
                let place = format!("/a.container:{line}:");
                assert!(found[0].contains(&place) && found[0].contains(text), "{}", found[0]);
            }
        }
    }
}

#[test]
fn what_only_podman_can_do_is_refused_with_its_engine_as_a_hint() {
    for lines in [
        "",
        "Network=lan",
        "Network=none\nAddHost=a:host-gateway",
        "Network=none\nMount=type=artifact,source=a,destination=/a",
        "Network=none\nMount=type=bind,source=/a,destination=/a,fish",
        "Network=none\nVolume=/a:/a:fish",
        "Network=none\nLogDriver=journald",
        "Network=none\nPodmanArgs=--tty",
        "Network=none\nPodmanArgs=--systemd=always",
    ] {
        let text = format!("[Container]\nImage=x\n{lines}\n");
        let compiled = compile_texts(&[("a.container", text.as_str())]);
        let checked = compiled.containers.iter().flat_map(|(_, it)| rouse::oci::check(it));
        let all = compiled.findings.iter().cloned().chain(checked);
        let errors: Vec<_> = all.filter(|it| it.severity == Severity::Error).collect();
        assert_eq!(errors.len(), 1, "{lines}: {errors:?}");
        let help = errors[0].help.as_deref().unwrap_or_default();
        assert!(help.contains("engine = \"podman\""), "{lines}: {help}");
        assert!(errors[0].one_line().contains("/a.container:"), "{}", errors[0].one_line());
    }
}

#[test]
fn each_key_of_a_health_check_has_its_own_place() {
    let keys = [
        ("cmd", "Cmd", "CMD /check"),
        ("interval", "Interval", "1s"),
        ("timeout", "Timeout", "2s"),
        ("retries", "Retries", "3"),
        ("start-period", "StartPeriod", "4s"),
        ("on-failure", "OnFailure", "stop"),
        ("startup-cmd", "StartupCmd", "CMD /begin"),
        ("startup-interval", "StartupInterval", "5s"),
        ("startup-timeout", "StartupTimeout", "6s"),
        ("startup-retries", "StartupRetries", "7"),
        ("startup-success", "StartupSuccess", "8"),
    ];
    let of_keys = keys.map(|(_, key, value)| format!("Health{key}={value}\n")).concat();
    let options = keys.map(|(name, _, value)| format!("PodmanArgs=\"--health-{name}={value}\"\n"));
    for lines in [of_keys, options.concat()] {
        let text = format!("[Container]\nImage=x\nNetwork=none\nNotify=healthy\n{lines}");
        let compiled = compile_texts(&[("a.container", text.as_str())]);
        let UnitKind::Service(service) = &compiled.units[0].kind else { panic!() };
        let probe = |program: &str, interval_us, timeout_us| {
            let exec = "/usr/bin/crun --root /run/crun --cgroup-manager=cgroupfs exec systemd-a";
            let words = exec.split(' ').chain([program]).map(str::to_owned);
            let (program, arguments) = ("/usr/bin/crun".into(), words.collect());
            let command = Command { program, arguments, ..Command::default() };
            Probe { command, interval_us, timeout_us }
        };
        let expected = HealthCheck {
            probe: probe("/check", 1_000_000, 2_000_000),
            retries: 3,
            start_period_us: 4_000_000,
            on_failure: OnUnhealthy::Stop,
            startup: Some(StartupCheck {
                probe: probe("/begin", 5_000_000, 6_000_000),
                retries: 7,
                successes: 8,
            }),
            no_verdict: Some(activator::exit::TRY_AGAIN),
            makes_ready: true,
        };
        assert_eq!(service.health.as_deref(), Some(&expected));
    }
}

#[test]
fn flags_in_podman_args_are_honoured() {
    let text = "[Container]\nImage=x\nNetwork=none\nHealthCmd=true\n\
                PodmanArgs=--no-healthcheck --init\n";
    let compiled = compile_texts(&[("a.container", text)]);
    assert!(compiled.containers[0].1.run_init);
    let UnitKind::Service(service) = &compiled.units[0].kind else { panic!() };
    assert_eq!(service.health, None);
}

#[test]
fn a_file_for_what_a_container_writes_is_not_bounded() {
    let of = |lines: &str| {
        let text = format!("[Container]\nImage=x\nNetwork=none\n{lines}");
        let compiled = compile_texts(&[("a.container", text.as_str())]);
        compiled
            .findings
            .iter()
            .map(|it| it.one_line())
            .filter(|it| it.contains("LogOpt"))
            .collect()
    };
    let found: Vec<String> = of("LogOpt=max-size=1m\n");
    assert_eq!(found.len(), 1);
    assert!(found[0].contains("the unit's log is bounded"), "{found:?}");
    let found: Vec<String> = of("LogOpt=max-size=1m\nLogOpt=path=/run/log\n");
    assert_eq!(found.len(), 2);
    assert!(found[0].contains("warning: `LogOpt=max-size` has no effect: nothing bounds"));
    assert!(found[1].contains("without the time and stream"), "{found:?}");
}

#[test]
fn a_folder_that_is_not_there_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let compiled = compile_folder(&folder.path().join("nothing"));
    assert_eq!(compiled.findings[0].severity, Severity::Error);
    assert!(compiled.findings[0].message.contains("failed to read"));
}

/// Marsaglia's xorshift: the same numbers on every machine.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % limit.max(1) as u64) as usize
    }
}

/// Changes a few bytes, or moves a part of the text.
fn mutate(text: &[u8], random: &mut Random) -> Vec<u8> {
    const SPICE: &[&str] = &[
        "\\",
        "\"",
        "'",
        "%",
        "%%",
        "$",
        "${",
        "}",
        "[",
        "]",
        "=",
        "\n",
        "\0",
        "\u{feff}",
        "ä",
        ";",
        "@",
        ":",
        ",",
        "-",
        "0",
        "99999999999999999999",
        "infinity",
        "\\x",
        "\\U0010ffff",
        "%i",
        "\\\n",
        "#",
        "|",
        "!",
        "..",
        "//",
        "\u{fffd}",
        ".service",
        "M",
        "\r",
    ];
    let mut text = text.to_vec();
    for _ in 0..=random.below(4) {
        let at = random.below(text.len() + 1);
        let end = at + random.below((text.len() - at).min(12) + 1);
        match random.below(4) {
            0 => drop(text.drain(at..end)),
            1 => text.extend_from_within(at..end),
            2 if at < text.len() => text[at] = random.below(256) as u8,
            _ => {
                let spice = SPICE[random.below(SPICE.len())].bytes();
                drop(text.splice(at..end, spice));
            }
        }
    }
    text
}

/// `ROUSE_MUTATIONS` sets how many.
#[test]
fn no_input_makes_it_panic() {
    let count = std::env::var("ROUSE_MUTATIONS").ok().and_then(|count| count.parse().ok());
    let count: u32 = count.unwrap_or(1000);
    // On stderr itself: what println! writes is shown of tests that fail only.
    let _ = writeln!(std::io::stderr(), "ROUSE_MUTATIONS={count}");
    let mut seeds: Vec<(String, Vec<u8>)> = vec![];
    for case in fs::read_dir(cases()).unwrap() {
        for file in fs::read_dir(case.unwrap().path()).unwrap() {
            let path = file.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            if path.is_file() && name != FILE && name != "expected.txt" {
                seeds.push((name, fs::read(path).unwrap()));
            }
        }
    }
    seeds.sort();
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("service.d")).unwrap();
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let config = Config::default();
    for _ in 0..count {
        let mut written = vec![];
        for _ in 0..=random.below(3) {
            let (name, text) = &seeds[random.below(seeds.len())];
            let name = match random.below(8) {
                0 => "service.d/10.conf",
                _ => name.as_str(),
            };
            let path = folder.path().join(name);
            fs::write(&path, mutate(text, &mut random)).unwrap();
            written.push(path);
        }
        let compiled = compile_with(folder.path(), &config, None);
        for finding in &compiled.findings {
            // The caret must be drawable wherever it is.
            assert!(!finding.render(false).is_empty());
        }
        let described = describe(&manifest(&compiled));
        assert!(described.starts_with("test\n"));
        for path in written {
            // The same file may have been written twice.
            let _ = fs::remove_file(path);
        }
    }
}

#[test]
fn images_go_by_the_names_in_their_files() {
    let compiled = compile_folder(&cases().join("images"));
    let references: Vec<_> =
        compiled.containers.iter().map(|(_, it)| rouse::oci::references(it)).collect();
    let expected = [
        vec!["localhost/made:1"],
        vec!["localhost/own"],
        vec!["quay.io/example/web:2", "localhost/own"],
    ];
    assert_eq!(references, expected);
}

#[test]
fn containers_have_ids_of_their_own() {
    let compiled = compile_folder(&cases().join("ids"));
    let of = |user: Option<&str>, name: &str| {
        let service = format!("{name}.service");
        let found = compiled.containers.iter().find(|(other, it)| {
            *other == service && it.owner.as_ref().map(|owner| owner.name.as_str()) == user
        });
        rouse::oci::root_ids(&found.unwrap().1)
    };
    assert_eq!(of(None, "sub"), (100_000, 200_000));
    assert_eq!(of(None, "sub-argument"), (100_000, 200_000));
    assert_eq!(of(None, "sub-group"), (100_000, 300_000));
    let auto = ["auto", "small", "old"].map(|name| of(None, name));
    assert!(auto.iter().all(|(uid, gid)| *uid >= 2_147_483_647 && uid == gid), "{auto:?}");
    assert!(auto[0] != auto[1] && auto[1] != auto[2] && auto[0] != auto[2], "{auto:?}");
    assert_eq!(of(Some("ann"), "keep"), (100_000, 100_000));
    assert_eq!(of(Some("ann"), "nomap"), (100_000, 100_000));
    assert_eq!(of(Some("ann"), "auto"), (100_000, 100_000));
    assert_eq!(of(Some("ann"), "map"), (100_004, 100_004));
}
