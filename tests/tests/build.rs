//! Builds through the command: the same bytes everywhere, for everybody, and nothing done twice.
//! And every verb that needs no VM. No VM is booted.

use rouse::debian::Architecture;
use rouse::lock::Lock;
use rouse_tests::{Appliance, Mirror, Rouse, feed};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// A port that nobody can listen on by accident.
const NOWHERE: &str = "http://127.0.0.1:1/debian";
/// The files of an image.
const FILES: [&str; 4] = ["image.json", "initramfs.zst", "kernel", "manifest"];
/// Debian's nobody.
const NOBODY: u32 = 65534;

/// The echo appliance, built once from the tests' cache; the first build writes the lock.
struct Reference {
    appliance: Appliance,
    image: tempfile::TempDir,
}

impl Reference {
    fn image(&self) -> PathBuf {
        self.image.path().join("echo")
    }

    fn lock(&self) -> PathBuf {
        self.appliance.path().join("appliance.lock")
    }

    /// Another copy with the same lock.
    fn copy(&self) -> Appliance {
        let lock = std::fs::read_to_string(self.lock()).unwrap();
        Appliance::of_config("echo").with("appliance.lock", &lock)
    }
}

fn reference() -> &'static Reference {
    static REFERENCE: OnceLock<Reference> = OnceLock::new();
    REFERENCE.get_or_init(|| {
        let appliance = Appliance::of_config("echo");
        let reference = Reference { appliance, image: tempfile::tempdir().unwrap() };
        assert!(!reference.lock().exists());
        let mut command = Rouse::new().command(["build", "-q", "--output"]);
        // Another user need not be able to look into the folder of that compiler.
        command.env_remove("ROUSE_RUSTC");
        command.arg(reference.image()).arg(reference.appliance.path());
        let output = feed(&mut command, b"").success();
        assert_eq!(output.text().trim(), reference.image().display().to_string());
        assert!(reference.lock().exists(), "the first build writes the lock");
        reference
    })
}

#[track_caller]
fn same_bytes(one: &Path, other: &Path) {
    for file in FILES {
        let [a, b] = [one, other].map(|folder| std::fs::read(folder.join(file)).unwrap());
        assert!(a == b, "{file} differs");
    }
}

/// Inode and time of change of each file: whether it was written again.
fn written(image: &Path) -> Vec<(u64, i64, i64)> {
    let stamp = |file: &&str| {
        let metadata = image.join(file).metadata().unwrap();
        (metadata.ino(), metadata.mtime(), metadata.mtime_nsec())
    };
    FILES.iter().map(stamp).collect()
}

#[test]
fn another_folder_and_another_cache_give_the_same_bytes() {
    let reference = reference();
    let place = tempfile::tempdir().unwrap();
    let appliance = reference.copy();
    let mirror = Mirror::of(&reference.lock());
    let image = place.path().join("deeper/image");
    let mut command = Rouse::new().command(["build", "-q", ".", "--output"]);
    command
        .arg(&image)
        .current_dir(appliance.path())
        .env_remove("ROUSE_RUSTC")
        .env("ROUSE_CACHE_DIR", place.path().join("cache"))
        .env("ROUSE_DEBIAN_MIRROR", mirror.url());
    feed(&mut command, b"").success();
    same_bytes(&reference.image(), &image);
}

/// No privilege is needed, and who builds does not show in the image.
#[test]
fn another_user_gets_the_same_bytes() {
    if !rustix::process::geteuid().is_root() {
        rouse_tests::skipped(
            "only root can become another user; this user builds without privileges",
        );
        return;
    }
    let may = Command::new("unshare").args(["-m", "true"]).status();
    if !may.is_ok_and(|status| status.success()) {
        rouse_tests::skipped("this machine lets nobody have mounts of their own (unshare -m)");
        return;
    }
    let reference = reference();
    let appliance = reference.copy();
    let mirror = Mirror::of(&reference.lock());
    let rouse = Rouse::new();
    // What root has may lie where nobody else can look: the stranger sees it elsewhere, by mounts
    // that nobody but the stranger's processes sees.
    let place = tempfile::tempdir().unwrap();
    let at = |name: &str| place.path().join(name);
    for folder in ["rust", "home/.cargo/registry", "appliance", "out", "cache"] {
        std::fs::create_dir_all(at(folder)).unwrap();
    }
    std::fs::copy(rouse.program(), at("rouse")).unwrap();
    copy(appliance.path(), &at("appliance"));
    for folder in ["", "home", "home/.cargo", "appliance", "out", "cache"] {
        std::fs::set_permissions(at(folder), PermissionsExt::from_mode(0o755)).unwrap();
        chown(at(folder), Some(NOBODY), Some(NOBODY)).unwrap();
    }
    let script = "set -e; place=$1; mount --bind \"$2\" \"$place/rust\"; \
        test ! -d \"$3\" || mount --bind \"$3\" \"$place/home/.cargo/registry\"; shift 3; \
        cd \"$place\"; exec setpriv --reuid=65534 --regid=65534 --clear-groups --inh-caps=-all \
        --bounding-set=-all --no-new-privs env -i \"$@\"";
    let set = |name: &str, value: PathBuf| format!("{name}={}", value.display());
    let mut command = Command::new("unshare");
    command
        .args(["-m", "sh", "-c", script, "sh"])
        .args([place.path(), &sysroot(), &cargo_home().join("registry")])
        .args(["PATH=/usr/bin:/bin", "CARGO_NET_OFFLINE=true"])
        .args([set("HOME", at("home")), set("ROUSE_CACHE_DIR", at("cache"))])
        .args([set("CARGO", at("rust/bin/cargo")), set("RUSTC", at("rust/bin/rustc"))])
        .arg(format!("ROUSE_DEBIAN_MIRROR={}", mirror.url()))
        .arg(at("rouse"))
        .args(["build", "-q", "appliance", "--output", "out/image"]);
    feed(&mut command, b"").success();
    assert_eq!(at("out/image/kernel").metadata().unwrap().uid(), NOBODY);
    same_bytes(&reference.image(), &at("out/image"));
}

fn sysroot() -> PathBuf {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let output = Command::new(rustc).args(["--print", "sysroot"]).output().unwrap();
    PathBuf::from(String::from_utf8(output.stdout).unwrap().trim())
}

fn cargo_home() -> PathBuf {
    let home = || PathBuf::from(std::env::var_os("HOME").unwrap_or_default()).join(".cargo");
    std::env::var_os("CARGO_HOME").map_or_else(home, PathBuf::from)
}

fn copy(from: &Path, to: &Path) {
    let status = Command::new("cp").arg("-rT").args([from, to]).status().unwrap();
    assert!(status.success());
}

#[test]
fn what_is_unchanged_is_not_built_again_and_needs_no_network() {
    let lock = std::fs::read_to_string(reference().lock()).unwrap();
    let appliance = Appliance::tiny().with("appliance.lock", &lock);
    let place = tempfile::tempdir().unwrap();
    let image = place.path().join("image");
    let rouse = Rouse::new();
    let build = || {
        let mut command = rouse.command(["build", "-q", "--output"]);
        command.arg(&image).arg(appliance.path());
        command.env("ROUSE_DEBIAN_MIRROR", NOWHERE).env("ROUSE_SNAPSHOT_MIRROR", NOWHERE);
        feed(&mut command, b"").success();
        written(&image)
    };
    let first = build();
    assert_eq!(build(), first);
    assert_eq!(std::fs::read_to_string(appliance.path().join("appliance.lock")).unwrap(), lock);

    // A changed file.
    let before = std::fs::read(image.join("initramfs.zst")).unwrap();
    std::fs::write(appliance.path().join("hello"), "goodbye\n").unwrap();
    let second = build();
    assert_ne!(second, first);
    assert!(std::fs::read(image.join("initramfs.zst")).unwrap() != before);

    // An image of another rouse, which has another fingerprint of the same things.
    let path = image.join("image.json");
    let mut description: serde_json::Value =
        serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    let own = description["fingerprint"].as_str().unwrap().to_owned();
    description["fingerprint"] = "0".repeat(64).into();
    std::fs::write(&path, description.to_string()).unwrap();
    assert_ne!(build(), second);
    assert!(std::fs::read_to_string(&path).unwrap().contains(&own));
}

#[test]
fn what_is_no_image_is_not_overwritten() {
    let place = tempfile::tempdir().unwrap();
    std::fs::write(place.path().join("precious"), "x").unwrap();
    let lock = std::fs::read_to_string(reference().lock()).unwrap();
    let appliance = Appliance::tiny().with("appliance.lock", &lock);
    let mut command = Rouse::new().command(["build", "-q", "--output"]);
    let output = feed(command.arg(place.path()).arg(appliance.path()), b"");
    assert_eq!(output.code, 1);
    assert!(output.stderr.contains("it is there already, and no image"), "{}", output.stderr);
    assert_eq!(std::fs::read_dir(place.path()).unwrap().count(), 1);
}

/// Verb by verb, on the echo appliance.
#[test]
fn the_verbs_that_need_no_vm() {
    let reference = reference();
    let folder = reference.appliance.path().to_str().unwrap();
    let rouse = Rouse::new();
    let json = |arguments: &[&str]| -> serde_json::Value {
        serde_json::from_slice(&rouse.run(arguments).success().stdout).unwrap()
    };

    for more in [None, Some("--strict"), Some("--short"), Some("-q")] {
        let output = rouse.run(["check", folder].into_iter().chain(more)).success();
        let sound = format!("note: {folder} is sound: 1 socket, 1 service\n");
        let said = if matches!(more, None | Some("--strict")) { sound.as_str() } else { "" };
        assert_eq!((output.text().as_str(), output.stderr.as_str()), ("", said), "{more:?}");
    }
    assert_eq!(json(&["check", "--json", folder]), serde_json::json!([]));
    let wrong =
        Appliance::of_config("echo").replace("echo.socket", "[Socket]\n", "[Socket]\nX=1\n");
    let wrong = wrong.path().to_str().unwrap();
    let found = json(&["check", "--json", wrong]);
    assert_eq!((&found[0]["severity"], &found[0]["line"]), (&"warning".into(), &5.into()));
    let line = rouse.run(["check", "--short", wrong]).success().text();
    assert!(line.contains("/echo.socket:5:1: warning: `X=` is unknown"), "{line}");

    let service = rouse.run(["cat", folder, "echo.service"]).success().text();
    assert!(service.contains("[Service]") && service.contains("Requires=echo.socket"), "{service}");
    let missing = rouse.run(["cat", folder, "none.service"]);
    assert_eq!(missing.code, 1);
    assert!(missing.stderr.contains("echo.socket"), "{}", missing.stderr);
    assert_eq!(rouse.run(["cat", folder, "echo"]).success().text(), service);
    let quadlet = rouse.run(["cat", folder, "echo.container"]).stderr;
    assert!(quadlet.contains("hint: echo.container becomes echo.service"), "{quadlet}");

    let manifest = rouse.run(["manifest", folder]).success().text();
    for text in ["echo.socket", "echo.service", "127.0.0.1:3000", "vsock:"] {
        assert!(manifest.contains(text), "{text} in {manifest}");
    }
    assert_eq!(json(&["manifest", "--json", folder])["name"], "echo");

    let image = reference.image();
    let image = image.to_str().unwrap();
    let shown = rouse.run(["inspect", image]).success().text();
    for text in ["echo for ", "crun", "activator", "initramfs"] {
        assert!(shown.contains(text), "{text} in {shown}");
    }
    assert_eq!(json(&["inspect", "--json", image])["name"], "echo");
    assert_eq!(rouse.run(["inspect", folder]).code, 65);

    let line = rouse.run(["run", "-q", "--print-command", folder]).success().text();
    assert!(line.contains("qemu-system-") && line.contains("-kernel"), "{line}");
    assert_eq!(line.lines().count(), 1);
    assert_eq!(json(&["list", "--json"]), serde_json::json!([]));
    let list = rouse.run(["list"]).success();
    assert!(list.text().is_empty() && list.stderr.contains("`rouse run DIR`"), "{}", list.stderr);
    for verb in ["status", "logs", "poweroff"] {
        let output = rouse.run([verb, "nobody"]);
        assert!(output.code != 0 && output.stderr.contains("nobody"), "{}", output.stderr);
    }
    assert!(rouse.run(["completions", "bash"]).success().text().contains("_rouse"));
    assert!(rouse.run(["man"]).success().text().contains(".TH rouse 1"));
    let usage = rouse.run(["build", "--format", "floppy", folder]);
    assert_eq!(usage.code, 2, "{}", usage.stderr);
}

/// `rouse lock` asks the mirror for both architectures, and says what changed.
#[test]
fn lock_pins_what_the_mirror_has_today() {
    let lock = std::fs::read_to_string(reference().lock()).unwrap();
    let kernel = lock.lines().find(|line| line.starts_with("version = \"")).unwrap().to_owned();
    let old = lock.replacen(&kernel, "version = \"1.0-1\"", 1);
    let appliance = Appliance::tiny().with("appliance.lock", &old);
    let relock = |more: &[&str]| {
        let mut command = Rouse::new().command(["lock", "-q"]);
        feed(command.arg(appliance.path()).args(more), b"").success().text()
    };
    let path = appliance.path().join("appliance.lock");
    let changes = relock(&[]);
    let host = format!("{}: ", std::env::consts::ARCH);
    let is_kernel = |line: &str| line.starts_with(&host) && line.contains("1.0-1");
    assert!(changes.lines().any(is_kernel), "{changes}");
    let new = std::fs::read_to_string(&path).unwrap();
    let [was, is] = [reference().lock(), path.clone()].map(|path| Lock::read(&path).unwrap());
    let (was, is) = (was.unwrap(), is.unwrap());
    let own = Architecture::host().unwrap();
    assert_eq!(is.section(own), was.section(own));
    for architecture in Architecture::ALL {
        let kernel = &is.section(architecture).unwrap().kernel;
        assert_eq!(kernel.architecture, architecture.debian());
    }

    // One alone, and a build that the lock does not cover any more: the other section stays.
    let stale = new.replace(&format!("\"linux-image-cloud-{own}\""), "\"linux-image-gone\"");
    assert_ne!(stale, new);
    std::fs::write(&path, &stale).unwrap();
    relock(&["--arch", std::env::consts::ARCH]);
    assert_eq!(std::fs::read_to_string(&path).unwrap(), new);
    std::fs::write(&path, &stale).unwrap();
    let output = tempfile::tempdir().unwrap();
    let mut command = Rouse::new().command(["build", "-q", "--output"]);
    feed(command.arg(output.path().join("image")).arg(appliance.path()), b"").success();
    assert_eq!(std::fs::read_to_string(&path).unwrap(), new);
}

/// The examples carry no lock: the first build writes one, which git leaves alone.
#[test]
fn the_examples_carry_no_lock() {
    let ignored = std::fs::read_to_string(Appliance::repository().join(".gitignore")).unwrap();
    assert!(ignored.lines().any(|line| line == "configs/*/appliance.lock"));
}
