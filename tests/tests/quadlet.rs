//! Podman's own generator beside ours: every key of a `.container`, and combinations; and what
//! becomes of the files that go through that generator.
//!
//! The differences that are meant are the rows of `tests/quadlet/DIFFERENCES.md`.

use activator::manifest::{ServiceKind, UnitKind};
use rouse::cache::Cache;
use rouse::config::{Config, Engine, User};
use rouse::debian::{Debian, tools};
use rouse::finding::Severity;
use rouse::generator::Packaged;
use rouse::units::podman::{FOLDER, Generator};
use rouse::units::{Architecture, Compiled, Input, compile};
use rouse_tests::oracle::{compare, divergence};
use rouse_tests::{Appliance, Rouse, cache};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::OnceLock;

/// What lies beside the containers.
const UNITS: [(&str, &str); 8] = [
    ("data.volume", "[Volume]\n"),
    ("lan.network", "[Network]\nNetworkName=my-lan\nSubnet=10.9.8.0/24\n"),
    ("group.pod", "[Pod]\nPodName=together\nPublishPort=80:80\n"),
    ("base.image", "[Image]\nImage=localhost/base\nImageTag=localhost/base:tagged\n"),
    ("built.build", "[Build]\nImageTag=localhost/built\nSetWorkingDirectory=unit\n"),
    ("echo.socket", "[Socket]\nListenStream=/run/echo\n"),
    ("echo.service", "[Service]\nExecStart=/usr/bin/true\n"),
    ("all.kube", "[Kube]\nYaml=all.yml\nNetwork=lan.network\n"),
];

fn generator() -> &'static Packaged {
    static GENERATOR: OnceLock<Packaged> = OnceLock::new();
    GENERATOR.get_or_init(|| {
        let cache = Cache::open_at(&cache()).unwrap();
        Packaged::new(tools::quadlet(&Debian::new(cache, None), &[]).unwrap())
    })
}

/// The containers of the file, each with its text.
fn containers() -> BTreeMap<String, String> {
    let file = Appliance::repository().join("tests/quadlet/containers");
    let text = std::fs::read_to_string(file).unwrap();
    let lines = text.lines().filter(|line| !line.starts_with(';')).collect::<Vec<_>>().join("\n");
    let cases = format!("\n{lines}\n");
    let cases = cases.split("\n= ").skip(1).map(|case| {
        let (name, body) = case.split_once('\n').unwrap_or((case, ""));
        let head = if body.starts_with('[') { "" } else { "[Container]\nImage=localhost/img\n" };
        (name.to_owned(), format!("{head}{body}\n"))
    });
    cases.collect()
}

fn compiled(folder: &Path, generator: &dyn Generator, users: Vec<User>) -> Compiled {
    let config = Config { engine: Engine::Podman, users, ..Config::default() };
    compiled_with(folder, generator, &config)
}

fn compiled_with(folder: &Path, generator: &dyn Generator, config: &Config) -> Compiled {
    compile(&Input {
        folder,
        packaged: &[],
        links: &[],
        name: "test",
        config,
        config_source: None,
        passwd: "root:x:0:0:root:/root:/bin/sh\nann:x:1000:1000::/home/ann:/bin/sh\n",
        group: "root:x:0:\nann:x:1000:\n",
        architecture: Architecture::X86_64,
        has_file: Some(&|_| true),
        generator: Some(generator),
    })
}

/// The errors that a file has, in one line.
fn errors(compiled: &Compiled, file: &str) -> String {
    let of_the_file = |path: &str| path.rsplit('/').next() == Some(file);
    let errors = compiled.findings.iter().filter(|found| {
        found.severity == Severity::Error
            && found.span.as_ref().is_some_and(|span| of_the_file(&span.source.path))
    });
    errors.map(|found| format!("{}: {}", found.message, found.label)).collect::<Vec<_>>().join("; ")
}

#[test]
fn every_key_becomes_what_podmans_generator_makes_of_it() {
    let table = Appliance::repository().join("tests/quadlet/DIFFERENCES.md");
    let table = divergence::parse(&std::fs::read_to_string(table).unwrap());
    let cases = containers();
    let verdict = compare::judge(differences(&cases, None), &table);
    let stale: Vec<&str> = verdict.stale.iter().map(|row| row.id.as_str()).collect();
    println!("{} containers, {} differences that are meant", cases.len(), verdict.explained);
    let unexpected: Vec<String> = verdict.unexpected.iter().map(ToString::to_string).collect();
    assert!(unexpected.is_empty(), "{}", unexpected.join("\n"));
    assert!(stale.is_empty(), "no longer different: {stale:?}");
    assert!(cases.len() > 110 && verdict.explained >= table.len());

    let ann = User { name: "ann".into(), uid: 1000, ..User::default() };
    let of_users = compare::judge(differences(&cases, Some(ann)), &table);
    let unexpected: Vec<String> = of_users.unexpected.iter().map(ToString::to_string).collect();
    assert!(unexpected.is_empty(), "of users: {}", unexpected.join("\n"));
}

/// What Podman's generator and `rouse cat` make differently of the same containers, of the system
/// or of a user.
fn differences(cases: &BTreeMap<String, String>, user: Option<User>) -> Vec<compare::Difference> {
    let folder = tempfile::tempdir().unwrap();
    let name = user.as_ref().map(|user| user.name.clone());
    let place = match &name {
        Some(name) => folder.path().join("users").join(name),
        None => folder.path().to_owned(),
    };
    std::fs::create_dir_all(&place).unwrap();
    let mut files: BTreeMap<String, String> =
        UNITS.iter().map(|(name, text)| (name.to_string(), text.to_string())).collect();
    for (name, text) in cases {
        files.insert(format!("{name}.container"), text.clone());
    }
    for (name, text) in &files {
        std::fs::write(place.join(name), text).unwrap();
    }
    let generator = generator();
    files.retain(|name, _| !name.starts_with("echo."));
    let theirs = generator.generate(&files, user.is_some()).unwrap();
    // Where the guest has the files.
    let own = user.as_ref().map(|user| format!("{FOLDER}/users/{}", user.uid));
    let ours = compiled(folder.path(), generator, user.into_iter().collect());

    let (mut podman, mut rouse) = (BTreeMap::new(), BTreeMap::new());
    for (case, text) in cases {
        let service = match case.as_str() {
            "service-name" => "another-service.service".to_owned(),
            other => format!("{other}.service"),
        };
        let text_of_ours = ours.cat(name.as_deref(), &service).unwrap_or_default();
        let wrong = errors(&ours, &format!("{case}.container"));
        let theirs_of = theirs.services.get(&service).map(|text| match &own {
            Some(own) => text.replace(FOLDER, own),
            None => text.clone(),
        });
        let refusal = || {
            let named = format!("\"{case}.container\"");
            let line = theirs.messages.iter().find(|line| line.contains(&named));
            format!("refused: {}", line.map_or("", |line| line))
        };
        let (mut one, mut other) = match (theirs_of, wrong.is_empty()) {
            (Some(theirs), true) => (facts(&theirs, text), facts(text_of_ours, text)),
            (None, false) => (json!({}), json!({})),
            (theirs, ours) => (
                json!({ "outcome": if theirs.is_some() { "made".into() } else { refusal() } }),
                json!({ "outcome": if ours { "made".into() } else { format!("refused: {wrong}") } }),
            ),
        };
        for side in [&mut one, &mut other] {
            side["case"] = json!("there");
        }
        podman.insert(case.clone(), one);
        rouse.insert(case.clone(), other);
    }
    // A template is only read with an instance: the case `instance@one` has a file of its own.
    compare::differences(&podman, &rouse)
}

/// A service as fields to compare: lines by key in their order, commands by option.
fn facts(service: &str, container: &str) -> Value {
    let image = container.lines().filter_map(|line| line.strip_prefix("Image=")).next_back();
    let image = match image.unwrap_or("/srv/root:O").trim_matches('"') {
        "base.image" => "localhost/base:tagged",
        "built.build" => "localhost/built",
        image => image,
    };
    let mut fields: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut section = "";
    for line in service.lines().filter(|line| !line.starts_with('#')) {
        if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            section = name;
            continue;
        }
        let Some((key, value)) = line.split_once('=') else { continue };
        if section.starts_with("X-") {
            continue;
        }
        if key == "ExecStart" {
            let words = words(value);
            let end = words.iter().rposition(|word| word == image).unwrap_or(words.len());
            let mut option = "program".to_owned();
            for word in &words[..end] {
                if word.starts_with('-') {
                    option = word.clone();
                    fields.entry(format!("Service ExecStart {option}")).or_default();
                } else {
                    fields
                        .entry(format!("Service ExecStart {option}"))
                        .or_default()
                        .push(word.clone());
                }
            }
            fields.insert("Service ExecStart image".into(), words[end..].to_vec());
        } else {
            fields.entry(format!("{section} {key}")).or_default().push(value.to_owned());
        }
    }
    json!(
        fields.iter().map(|(key, values)| (key, format!("{values:?}"))).collect::<BTreeMap<_, _>>()
    )
}

/// The words of a command line, without their quotes.
fn words(line: &str) -> Vec<String> {
    let mut words = vec![];
    let mut word: Option<String> = None;
    let mut quoted = false;
    let mut characters = line.chars();
    while let Some(c) = characters.next() {
        match c {
            '"' => {
                quoted = !quoted;
                word.get_or_insert_default();
            }
            ' ' if !quoted => words.extend(word.take()),
            '\\' => {
                let decoded = match characters.next() {
                    Some('n') => '\n',
                    Some('t') => '\t',
                    Some('x') => {
                        let digits: String = characters.by_ref().take(2).collect();
                        char::from(u8::from_str_radix(&digits, 16).unwrap())
                    }
                    Some(other) => other,
                    None => '\\',
                };
                word.get_or_insert_default().push(decoded);
            }
            c => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    words
}

#[test]
fn other_files_go_through_podmans_generator_and_come_out_the_same_every_time() {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in UNITS {
        std::fs::write(folder.path().join(name), text).unwrap();
    }
    let lan = "[Network]\nDNS=9.9.9.9\nDNS=1.1.1.1\nDriver=bridge\nIPAMDriver=host-local\nIPv6=yes\n\
               Internal=no\nDisableDNS=yes\nLabel=a=b\nPodmanArgs=--interface-name x\n";
    std::fs::write(folder.path().join("lan.network"), lan).unwrap();
    std::fs::create_dir(folder.path().join("data.volume.d")).unwrap();
    std::fs::write(folder.path().join("data.volume.d/10-name.conf"), "[Volume]\nVolumeName=mine\n")
        .unwrap();
    let user = "[Container]\nImage=localhost/img\nVolume=data.volume:/data\nPod=group.pod\n";
    std::fs::write(folder.path().join("user.container"), user).unwrap();
    let generator = generator();
    let first = compiled(folder.path(), generator, vec![]);
    let names =
        ["data-volume", "lan-network", "group-pod", "base-image", "built-build", "all", "user"];
    for round in 0..10 {
        let again = compiled(folder.path(), generator, vec![]);
        for name in names {
            let service = format!("{name}.service");
            let text = first.cat(None, &service).unwrap_or_else(|| panic!("no {service}"));
            assert_eq!(Some(text), again.cat(None, &service), "round {round}");
            let body =
                text.lines().filter(|line| !line.starts_with('#')).collect::<Vec<_>>().join("\n");
            assert!(!body.contains("/tmp"), "{service} names a path of this machine:\n{body}");
        }
    }
    let cat = |service: &str| first.cat(None, service).unwrap();
    let has = |service: &str, line: &str| {
        assert!(cat(service).lines().any(|it| it == line), "{line} in\n{}", cat(service));
    };
    has("data-volume.service", "ExecStart=/usr/bin/podman volume create --ignore mine");
    has("user.service", "Requires=data-volume.service");
    has("user.service", "BindsTo=group-pod.service");
    has("group-pod.service", "Wants=user.service");
    has("group-pod.service", "SourcePath=/etc/containers/systemd/group.pod");
    has(
        "lan-network.service",
        "ExecStart=/usr/bin/podman network create --ignore --disable-dns --dns 9.9.9.9 --dns 1.1.1.1 \
         --driver bridge --internal=false --ipam-driver host-local --ipv6 --label a=b \
         --interface-name x systemd-lan",
    );
    has("built-build.service", "WorkingDirectory=/etc/containers/systemd");
    assert!(cat("all.service").contains(" /etc/containers/systemd/all.yml\n"));
    assert!(cat("user.service").contains(" -v mine:/data "));
    let wrong: Vec<String> = first.findings.iter().map(|found| found.one_line()).collect();
    let errors = wrong.iter().filter(|line| line.contains("error")).collect::<Vec<_>>();
    assert!(errors.is_empty(), "{errors:#?}");
}

#[test]
fn a_key_that_the_packaged_generator_does_not_know_is_shown_where_it_stands() {
    let appliance = Appliance::empty()
        .with("appliance.toml", "name = \"a\"\nengine = \"podman\"\n")
        .with("data.volume", "[Volume]\nVolumeName=x\n\nUID=5\n")
        .with("lan.network", "[Network]\nGateway=10.0.0.1\n");
    let generator = generator();
    let compiled = compiled(appliance.path(), generator, vec![]);
    let found: Vec<String> = compiled.findings.iter().map(|found| found.one_line()).collect();
    let shown = appliance.path().display();
    assert_eq!(
        found,
        [
            format!("{shown}/data.volume:4:1: error: Podman's generator does not know `UID=`"),
            format!(
                "{shown}/lan.network:1:1: error: Podman's generator refuses the file: cannot set \
                 gateway or range without subnet"
            ),
        ]
    );
}

#[test]
fn an_image_that_is_put_in_at_build_time_is_not_pulled() {
    let appliance = Appliance::empty()
        .with("here.image", "[Image]\nImage=localhost/here\n")
        .with("far.image", "[Image]\nImage=example.org/far\nArch=amd64\n")
        .with("a.container", "[Container]\nImage=here.image\n");
    let image = [("localhost/here".to_owned(), rouse::config::Image::default())].into();
    let config = Config { engine: Engine::Podman, image, ..Config::default() };
    let compiled = compiled_with(appliance.path(), generator(), &config);
    let has = |service: &str, line: &str| {
        let text = compiled.cat(None, service).unwrap();
        assert!(text.lines().any(|it| it == line), "{line} in\n{text}");
    };
    has("here-image.service", "ExecStart=/usr/bin/podman image exists localhost/here");
    has("far-image.service", "ExecStart=/usr/bin/podman image pull --arch amd64 example.org/far");
    has("a.service", "Requires=here-image.service");
}

#[test]
fn a_users_files_are_in_his_folder() {
    let user = User { name: "ann".into(), uid: 1000, ..User::default() };
    let appliance = Appliance::empty().with("users/ann/data.volume", "[Volume]\n").with(
        "users/ann/a.container",
        "[Container]\nImage=x\nVolume=./b:/b\nVolume=data.volume:/c\n",
    );
    let generator = generator();
    let compiled = compiled(appliance.path(), generator, vec![user]);
    let text = compiled.cat(Some("ann"), "a.service").unwrap();
    assert!(
        text.contains(" -v /etc/containers/systemd/users/1000/b:/b -v systemd-data:/c x\n"),
        "{text}"
    );
    // His manager has no network-online.target.
    assert!(text.contains("After=podman-user-wait-network-online.service\n"), "{text}");
    let text = compiled.cat(Some("ann"), "data-volume.service").unwrap();
    assert!(text.contains("SourcePath=/etc/containers/systemd/users/1000/data.volume\n"), "{text}");
}

#[test]
fn what_podman_generate_systemd_writes_is_compiled_as_it_stands() {
    let folder = Appliance::repository().join("tests/quadlet/generated");
    let compiled = compile(&Input {
        folder: &folder,
        packaged: &[],
        links: &[],
        name: "test",
        config: &Config::default(),
        config_source: None,
        passwd: "",
        group: "",
        architecture: Architecture::X86_64,
        has_file: Some(&|_| true),
        generator: None,
    });
    let found = compiled.findings.iter().filter(|found| found.severity != Severity::Note);
    assert_eq!(found.count(), 0, "{:#?}", compiled.findings);
    let service = |name: &str| {
        let unit = compiled.units.iter().find(|unit| unit.name == name);
        match unit.map(|unit| &unit.kind) {
            Some(UnitKind::Service(service)) => service,
            other => panic!("{name}: {other:?}"),
        }
    };
    let pod = service("pod-group.service");
    assert_eq!(pod.kind, ServiceKind::Forking);
    assert_eq!(pod.pid_file.as_deref(), Some("/run/pod-group.pid"));
    assert!(pod.start_pre[0].arguments.ends_with(&["--name".into(), "group".into()]));
    let new = service("container-generated.service");
    assert_eq!(new.kind, ServiceKind::Notify);
    assert!(
        new.start[0]
            .arguments
            .contains(&"--cidfile=/run/container-generated.service.ctr-id".into())
    );
    assert_eq!(service("container-started.service").kind, ServiceKind::Forking);
}

#[test]
fn rouse_shows_what_a_container_became() {
    let appliance = Appliance::of_config("echo").replace(
        "appliance.toml",
        "name = \"echo\"\n",
        "name = \"echo\"\nengine = \"podman\"\n",
    );
    let rouse = Rouse::new();
    let shown = appliance.path().to_str().unwrap();
    let text = rouse.run(["cat", shown, "echo.service"]).success().text();
    let start = "ExecStart=/usr/bin/podman run --name systemd-%N --cidfile=%t/%N.cid --replace --rm \
                 --cgroups=split --network none --sdnotify=conmon -d \
                 ghcr.io/eriksjolund/socket-activate-echo\n";
    assert!(text.contains(start), "{text}");
    rouse.run(["check", shown]).success();
}
