//! Container images that are made here: Debian's static busybox and nothing else.

use rouse::cache::Hash;
use rouse_tests::debian_path;
use std::io::{Seek, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

/// The programs that it is linked to in the image.
const APPLETS: [&str; 10] =
    ["sh", "cat", "echo", "date", "env", "sleep", "test", "true", "wc", "ls"];

/// A busybox that needs nothing.
pub(crate) fn busybox() -> PathBuf {
    debian_path("busybox-static", "busybox")
}

/// What `docker save` would write of an image with busybox.
pub(crate) fn docker_archive(tag: &str) -> Vec<u8> {
    std::fs::read(archive(tag, |_| {}).path()).unwrap()
}

/// The same with a file of so many bytes that compress badly.
pub(crate) fn large_archive(tag: &str, bytes: u64) -> tempfile::NamedTempFile {
    archive(tag, |root| {
        let mut file = std::io::BufWriter::new(std::fs::File::create(root.join("large")).unwrap());
        let mut word = 1u64;
        for _ in 0..bytes / 8 {
            word = word.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            file.write_all(&word.to_be_bytes()).unwrap();
        }
        file.flush().unwrap();
    })
}

fn archive(tag: &str, more: impl Fn(&Path)) -> tempfile::NamedTempFile {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("root");
    std::fs::create_dir_all(root.join("bin")).unwrap();
    std::fs::copy(busybox(), root.join("bin/busybox")).unwrap();
    for applet in APPLETS {
        std::os::unix::fs::symlink("busybox", root.join("bin").join(applet)).unwrap();
    }
    for directory in ["run", "tmp", "usr", "etc"] {
        std::fs::create_dir(root.join(directory)).unwrap();
    }
    // For programs of the guest's /usr.
    for (link, target) in [("lib", "usr/lib"), ("lib64", "usr/lib64")] {
        std::os::unix::fs::symlink(target, root.join(link)).unwrap();
    }
    more(&root);
    let layer = folder.path().join("layer.tar");
    pack(&root, &layer);
    let digest = Hash::of(&std::fs::read(&layer).unwrap());
    let machine = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
    let config = serde_json::json!({
        "architecture": machine,
        "os": "linux",
        "config": { "Env": ["PATH=/bin"], "Cmd": ["/bin/sh"] },
        "rootfs": { "type": "layers", "diff_ids": [format!("sha256:{digest}")] },
    });
    std::fs::write(folder.path().join("config.json"), config.to_string()).unwrap();
    let manifest = serde_json::json!([
        { "Config": "config.json", "RepoTags": [tag], "Layers": ["layer.tar"] }
    ]);
    std::fs::write(folder.path().join("manifest.json"), manifest.to_string()).unwrap();
    std::fs::remove_dir_all(&root).unwrap();
    let mut file = tempfile::NamedTempFile::new().unwrap();
    pack(folder.path(), file.path());
    file.rewind().unwrap();
    file
}

fn pack(folder: &Path, to: &Path) {
    let names = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name());
    let names: Vec<_> = names.filter(|name| Path::new(name) != to.file_name().unwrap()).collect();
    let mut tar = Command::new("tar");
    tar.arg("--owner=0").arg("--group=0").arg("-cf").arg(to).arg("-C").arg(folder).args(names);
    assert!(tar.status().unwrap().success());
}
