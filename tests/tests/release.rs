//! The release artefacts that `.ci/release` makes, where there is nothing but them.

use rouse::cache::Cache;
use rouse::debian::{Debian, tools};
use rouse_tests::{Appliance, Output, Rouse, feed};
use std::path::{Path, PathBuf};
use std::process::Command;

/// `rouse` for an architecture. None, and a line that says so, where it was not made.
fn artefact(architecture: &str) -> Option<PathBuf> {
    let name = format!("target/release-artefacts/rouse-{architecture}");
    let path = Appliance::repository().join(&name);
    if !path.exists() {
        rouse_tests::skipped(format_args!(
            "there is no {name}; .ci/release makes it, and .ci/full calls that"
        ));
        return None;
    }
    Some(path)
}

/// A root file system with this one program in it, and an appliance.
struct BareRoot {
    folder: tempfile::TempDir,
    cache: PathBuf,
}

impl BareRoot {
    fn new(program: &Path, appliance: &Appliance, cache: &Path) -> Self {
        let folder = tempfile::Builder::new().prefix("bare").tempdir().unwrap();
        let root = folder.path();
        for name in ["appliance", "cache", "dev", "proc", "tmp"] {
            std::fs::create_dir(root.join(name)).unwrap();
        }
        std::fs::write(root.join("dev/null"), "").unwrap();
        std::fs::copy(program, root.join("rouse")).unwrap();
        for entry in std::fs::read_dir(appliance.path()).unwrap() {
            let entry = entry.unwrap();
            std::fs::copy(entry.path(), root.join("appliance").join(entry.file_name())).unwrap();
        }
        Self { folder, cache: cache.into() }
    }

    /// Runs `/rouse` as the only process there, without a network.
    fn rouse(&self, arguments: &[&str]) -> Output {
        // What follows `--` runs in the new root; what is before it is util-linux of this machine.
        const ENTER: &str = "cd \"$1\" && mount --bind \"$2\" cache && mount --bind /dev/null dev/null && \
             shift 2 && exec unshare --pid --fork --mount-proc=/proc --root=. -- \"$@\"";
        let mut command = Command::new("unshare");
        command.args(["--user", "--map-root-user", "--mount", "--net", "--kill-child"]);
        command
            .args(["sh", "-c", ENTER, "sh"])
            .arg(self.folder.path())
            .arg(&self.cache)
            .arg("/rouse")
            .args(arguments);
        command.env_clear().env("PATH", std::env::var_os("PATH").unwrap());
        command.env("ROUSE_CACHE_DIR", "/cache").env("ROUSE_RUNTIME_DIR", "/tmp/run");
        feed(&mut command, b"")
    }
}

/// It checks and builds with what the cache has: no toolchain, no shell, no libraries.
#[test]
fn a_released_rouse_works_on_a_bare_root() {
    let Some(program) = artefact(std::env::consts::ARCH) else { return };
    let appliance = Appliance::tiny();
    let host = Rouse::new();
    // This fills the cache with the packages, and writes the lock.
    let mut locked = host.command(["build", appliance.path().to_str().unwrap()]);
    feed(&mut locked, b"").success();
    let root = BareRoot::new(&program, &appliance, host.cache());

    let version = root.rouse(&["--version"]).success().text();
    assert_eq!(version.trim(), format!("rouse {}", env!("CARGO_PKG_VERSION")));
    root.rouse(&["check", "/appliance"]).success();
    let image = root.rouse(&["build", "/appliance"]).success().text();
    let image = host.cache().join(image.trim().strip_prefix("/cache/").unwrap());
    for file in ["kernel", "initramfs.zst"] {
        assert!(image.join(file).metadata().unwrap().len() > 100_000, "{file}");
    }
    let inside = root.rouse(&["inspect", "--json", &format!("/cache/images/{}", name(&image))]);
    assert!(inside.success().text().contains("/usr/bin/hello"));
}

fn name(path: &Path) -> std::borrow::Cow<'_, str> {
    path.file_name().unwrap().to_string_lossy()
}

/// The other architecture's, by Debian's emulator of processors.
#[test]
fn a_released_rouse_of_the_other_architecture_runs() {
    let (architecture, emulator) = match std::env::consts::ARCH {
        "x86_64" => ("aarch64", "qemu-aarch64"),
        _ => ("x86_64", "qemu-x86_64"),
    };
    let Some(program) = artefact(architecture) else { return };
    let host = Rouse::new();
    let cache = Cache::open_at(host.cache()).unwrap();
    let emulator = tools::program(&Debian::new(cache, None), "qemu-user", emulator).unwrap();
    let appliance = Appliance::tiny();
    let run = |arguments: &[&str]| {
        // It is static itself: it needs no loader.
        let mut command = Command::new(&emulator.path);
        command.arg(&program).args(arguments).env("ROUSE_CACHE_DIR", host.cache());
        feed(&mut command, b"").success().text()
    };
    assert_eq!(run(&["--version"]).trim(), format!("rouse {}", env!("CARGO_PKG_VERSION")));
    run(&["check", appliance.path().to_str().unwrap()]);
    assert!(run(&["manifest", appliance.path().to_str().unwrap()]).contains("hello.socket"));
}
