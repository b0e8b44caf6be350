//! The API as its manual recommends it from afar: through ssh, here over vsock.

use crate::Pods;
use rouse_tests::{debian, debian_command, feed};
use std::path::PathBuf;

/// A key of this test's own.
pub(crate) struct Keys {
    folder: tempfile::TempDir,
    /// What authorized_keys gets.
    pub(crate) public: String,
}

impl Keys {
    pub(crate) fn make() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let key = folder.path().join("id");
        let mut command = debian("openssh-client", "ssh-keygen");
        command.args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(&key);
        assert_eq!(feed(&mut command, b"").code, 0);
        let public = std::fs::read_to_string(key.with_extension("pub")).unwrap();
        Self { folder, public }
    }

    fn key(&self) -> PathBuf {
        self.folder.path().join("id")
    }
}

pub(crate) fn as_the_manual_recommends(Pods { vm, keys, .. }: &Pods) {
    // ssh(1) with `rouse connect` as its ProxyCommand, for docker to find first in its path.
    let rouse = vm.rouse.command([] as [&str; 0]);
    let environment: Vec<String> = rouse
        .get_envs()
        .filter_map(|(name, value)| Some(format!("{}={}", name.to_str()?, value?.to_str()?)))
        .collect();
    let proxy = format!(
        "env {} {} connect {} 22",
        environment.join(" "),
        vm.rouse.program().display(),
        vm.name
    );
    let folder = keys.folder.path();
    let config = format!(
        "Host guest\n  User root\n  IdentityFile {}\n  ProxyCommand {proxy}\n  \
         StrictHostKeyChecking accept-new\n  UserKnownHostsFile {}\n",
        keys.key().display(),
        folder.join("known").display(),
    );
    std::fs::write(folder.join("config"), config).unwrap();
    let ssh = debian_command("openssh-client", "ssh");
    let script = format!("#!/bin/sh\nexec {ssh} -F {} \"$@\"\n", folder.join("config").display());
    let wrapper = folder.join("ssh");
    std::fs::write(&wrapper, script).unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(&wrapper, mode).unwrap();

    let mut direct = std::process::Command::new(&wrapper);
    direct.args(["guest", "echo", "hello", "from", "ssh"]);
    assert_eq!(feed(&mut direct, b"").success().text(), "hello from ssh\n");

    let path = std::env::join_paths(
        std::iter::once(folder.to_owned())
            .chain(std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default())),
    );
    let mut docker = debian("docker-cli", "docker");
    docker
        .env("PATH", path.unwrap())
        .env("HOME", folder)
        .env("DOCKER_HOST", "ssh://root@guest")
        .args(["version", "--format", "{{.Server.Platform.Name}}"]);
    let answer = feed(&mut docker, b"").success().text();
    assert!(answer.contains("linux/"), "{answer}");

    // Podman brings an ssh of its own, which knows no ProxyCommand: a published port.
    let line = vm.announced.lines().find_map(|line| line.split_once("TCP:127.0.0.1:"));
    let port = line.unwrap().1.trim();
    let url = format!("ssh://root@127.0.0.1:{port}/run/podman/podman.sock");
    let podman = |words: &[&str]| {
        let mut podman = debian("podman", "podman");
        // Where it writes its connections down.
        let places = ["HOME", "XDG_CONFIG_HOME", "XDG_RUNTIME_DIR"];
        podman.envs(places.map(|place| (place, folder))).args(words);
        feed(&mut podman, b"").success().text()
    };
    let identity = keys.key();
    let identity = identity.to_str().unwrap();
    let version = ["version", "--format", "{{.Server.Version}}"];
    let direct =
        podman(&[&["--remote", "--url", &url, "--identity", identity], &version[..]].concat());
    assert!(direct.starts_with("5."), "{direct}");
    podman(&["system", "connection", "add", "pods", "--identity", identity, &url]);
    let list = ["system", "connection", "list", "--format", "{{.Name}} {{.URI}} {{.Default}}"];
    assert_eq!(podman(&list), format!("pods {url} true\n"));
    let named = podman(&[&["--connection", "pods"], &version[..]].concat());
    assert_eq!(named, direct);
    assert_eq!(podman(&[&["--remote"], &version[..]].concat()), direct, "the default connection");
}
