//! config.json of the engine crun beside the one that Podman makes of the same Quadlet, property
//! by property.
//!
//! `tests/containers/quadlets.txt` has the Quadlets, `tests/containers/golden.json` what Podman
//! 5.4.2 made of them, `tests/containers/DIFFERENCES.md` where and why ours is another.
//! `ROUSE_RECORD_BUNDLES=1 cargo test -p rouse-tests --test bundles` makes the golden file anew,
//! as root, with Debian's Podman in a namespace of its own (`tests/src/podman.rs`).

use rouse::cache::Cache;
use rouse::config::{Config, User};
use rouse::debian::{Architecture, Debian, tools};
use rouse::finding::Severity;
use rouse::oci::{Activation, Bundle, ContainerImage, Context, seccomp};
use rouse::tree::{Node, Tree};
use rouse::units::Input;
use rouse_tests::{bundles, cache, count, podman, skipped};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// The image of all Quadlets.
const REFERENCE: &str = "localhost/server";
/// What a Containerfile would say of it.
const CHANGES: [&str; 3] = ["ENTRYPOINT [\"/bin/server\"]", "CMD [\"--serve\"]", "ENV A=image"];
const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nweb:x:33:34::/srv:/bin/false\n";
const GROUP: &str = "root:x:0:\nwww:x:34:\ntls:x:50:root,web\n";

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("containers")
}

/// Stem to text of each `.container`.
fn quadlets() -> BTreeMap<String, String> {
    let text = std::fs::read_to_string(folder().join("quadlets.txt")).unwrap();
    let mut all = BTreeMap::new();
    for case in text.split("\n=== ").skip(1) {
        let (name, lines) = case.split_once('\n').unwrap_or((case, ""));
        let mut unit = format!("[Container]\nImage={REFERENCE}\n{}\n", lines.trim_end());
        if !lines.contains("Network=") {
            unit += "Network=none\n";
        }
        assert!(all.insert(name.to_owned(), unit).is_none(), "{name} is there twice");
    }
    all
}

fn files() -> Vec<(&'static str, &'static str, u32)> {
    vec![
        ("/bin/server", "\x7fELF", 0o755),
        ("/bin/other", "\x7fELF", 0o755),
        ("/data/seed", "seed\n", 0o644),
        ("/etc/passwd", PASSWD, 0o644),
        ("/etc/group", GROUP, 0o644),
    ]
}

/// What Podman makes of some of the Quadlets. `Memory=` came with 5.5: this one takes its option.
fn of_podman(units: &BTreeMap<String, String>) -> BTreeMap<String, Value> {
    let older = |text: &String| text.replace("\nMemory=", "\nPodmanArgs=--memory=");
    let units = units.iter().map(|(name, text)| (name.clone(), older(text))).collect();
    let root = tempfile::tempdir().unwrap();
    for (path, text, mode) in files() {
        let path = root.path().join(&path[1..]);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
        let mode = std::os::unix::fs::PermissionsExt::from_mode(mode);
        std::fs::set_permissions(&path, mode).unwrap();
    }
    let tar = tempfile::NamedTempFile::new().unwrap();
    let tarred = std::process::Command::new("tar")
        .args(["--owner=0", "--group=0", "-C"])
        .arg(root.path())
        .arg("-cf")
        .args([tar.path(), Path::new(".")])
        .status()
        .unwrap();
    assert!(tarred.success());
    podman::configurations(&units, tar.path(), REFERENCE, &CHANGES)
}

/// What we make of one of them.
fn of_rouse(name: &str, text: &str, profile: &str, guest: &Tree) -> Value {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join(format!("{name}.container")), text).unwrap();
    // Whose ids /etc/subuid has there, too.
    let ann = User { name: "ann".into(), uid: 1000, ..User::default() };
    let config = Config { users: vec![ann], ..Config::default() };
    let input = Input {
        folder: folder.path(),
        packaged: &[],
        links: &[],
        name: "vm",
        config: &config,
        config_source: None,
        passwd: PASSWD,
        group: GROUP,
        architecture: rouse::units::Architecture::X86_64,
        has_file: None,
        generator: None,
    };
    let compiled = rouse::units::compile(&input);
    let errors: Vec<String> = compiled
        .findings
        .iter()
        .filter(|finding| finding.severity == Severity::Error)
        .map(|finding| finding.one_line())
        .collect();
    assert!(errors.is_empty(), "{name}: {errors:?}");
    let (_, container) = &compiled.containers[0];
    let mut tree = Tree::plain();
    for (path, text, mode) in files() {
        tree.insert(path, Node::file(text.as_bytes(), mode, "test")).unwrap();
    }
    let image = ContainerImage {
        entrypoint: vec!["/bin/server".into()],
        command: vec!["--serve".into()],
        environment: vec![("A".into(), "image".into())],
        ..ContainerImage::new(REFERENCE, tree)
    };
    let context = Context {
        image: &image,
        activation: Activation::None,
        architecture: "x86_64",
        seccomp: Some(profile),
        guest: Some(guest),
    };
    Bundle::compile(container, context).unwrap_or_else(|it| panic!("{name}: {it:?}")).specification
}

/// What the oracle's root has beside Podman, as far as it matters.
fn guest() -> Tree {
    let mut tree = Tree::plain();
    for (path, text) in [
        ("/etc/resolv.conf", "nameserver 192.0.2.53\n"),
        ("/usr/bin/catatonit", "\x7fELF"),
        ("/usr/share/zoneinfo/Europe/Berlin", "TZif"),
        ("/srv/some", ""),
        ("/srv/hosts", "127.0.0.1 srv\n"),
        ("/srv/glob/a", ""),
        ("/srv/glob/b", ""),
        ("/srv/seccomp.json", podman::SECCOMP),
    ] {
        tree.insert(path, Node::file(text.as_bytes(), 0o644, "test")).unwrap();
    }
    tree
}

/// Podman's seccomp profile, from the package that an image takes it from.
fn profile() -> String {
    let debian = Debian::new(Cache::open_at(&cache()).unwrap(), None);
    let host = Architecture::host().unwrap();
    let package = "golang-github-containers-common";
    let tree = tools::tree(&debian, "seccomp", &[package], host, tools::Freshness::Kept).unwrap();
    std::fs::read_to_string(tree.join(&seccomp::PROFILE[1..])).unwrap()
}

/// A few of the Quadlets, all of them in the full run, spread over the file.
#[test]
fn podman_makes_today_what_was_recorded() {
    if let Some(why) = podman::missing() {
        return skipped(format_args!("Podman is not asked: {why}"));
    }
    let units = quadlets();
    let asked = usize::try_from(count("ROUSE_TEST_LIVE_BUNDLES", 3)).unwrap().clamp(1, units.len());
    let names: Vec<&String> = units.keys().collect();
    let some = (0..asked).map(|index| names[index * names.len() / asked]);
    let some = some.map(|name| (name.clone(), units[name].clone())).collect();
    let golden = std::fs::read_to_string(folder().join("golden.json")).unwrap();
    let golden = bundles::unpack(&golden);
    let mut other = vec![];
    for (name, live) in of_podman(&some) {
        let live = bundles::properties(&bundles::plain(&live));
        let found = bundles::differences(&golden[&name], &live).into_iter();
        other.extend(found.map(|difference| format!("{name}: {difference}")));
    }
    assert!(other.is_empty(), "what was recorded is now another:\n{}", other.join("\n"));
}

#[test]
fn bundles_are_podmans() {
    let units = quadlets();
    if std::env::var_os("ROUSE_RECORD_BUNDLES").is_some() {
        let golden = bundles::pack(&of_podman(&units));
        std::fs::write(folder().join("golden.json"), golden).unwrap();
    }
    let golden = std::fs::read_to_string(folder().join("golden.json")).unwrap();
    let golden = bundles::unpack(&golden);
    let (recorded, there): (BTreeSet<_>, BTreeSet<_>) =
        (golden.keys().collect(), units.keys().collect());
    assert_eq!(recorded, there, "record the Quadlets anew");
    let table = std::fs::read_to_string(folder().join("DIFFERENCES.md")).unwrap();
    let rows = bundles::rows(&table);
    let (profile, guest) = (profile(), guest());
    let (mut used, mut unlisted, mut compared) = (BTreeSet::new(), vec![], 0);
    for (name, podmans) in &golden {
        let ours = of_rouse(name, &units[name], &profile, &guest).to_string();
        // The container goes by its name, where Podman's has an id.
        let ours = ours.replace(&format!("systemd-{name}"), "ID");
        let ours = bundles::properties(&serde_json::from_str(&ours).unwrap());
        for difference in bundles::differences(podmans, &ours) {
            match rows.iter().position(|row| row.names(name, &difference.property)) {
                Some(row) => {
                    used.insert(row);
                }
                None => unlisted.push(format!("{name}: {difference}")),
            }
        }
        compared += podmans.len();
    }
    println!("{} Quadlets, {compared} properties", golden.len());
    assert!(unlisted.is_empty(), "differences without a reason:\n{}", unlisted.join("\n"));
    let unused = (0..rows.len()).filter(|row| !used.contains(row)).map(|row| &rows[row]);
    let unused: Vec<_> = unused.collect();
    assert!(unused.is_empty(), "rows that name no difference any more: {unused:?}");
}
