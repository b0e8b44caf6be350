//! The API as its manual recommends it from afar: through ssh, here over vsock.

use crate::Pods;
use rouse_tests::{Output, debian, debian_command, feed};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

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
        "Host guest {LOOPBACK}\n  User root\n  IdentityFile {}\n  ProxyCommand {proxy}\n  \
         StrictHostKeyChecking no\n  UserKnownHostsFile /dev/null\n",
        keys.key().display(),
    );
    // Where Podman, too, looks for it.
    let file = folder.join(".ssh/config");
    std::fs::create_dir(file.parent().unwrap()).unwrap();
    std::fs::write(&file, config).unwrap();
    let ssh = debian_command("openssh-client", "ssh");
    let script = format!("#!/bin/sh\nexec {ssh} -F {} \"$@\"\n", file.display());
    let wrapper = folder.join("ssh");
    std::fs::write(&wrapper, script).unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(&wrapper, mode).unwrap();

    let mut direct = Command::new(&wrapper);
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

    // The API of Podman goes through an ssh of its own, which knows no ProxyCommand.
    let podman = Podman { folder, identity: keys.key() };
    podman.by_a_forwarded_socket(&wrapper);
    podman.by_a_published_port(&vm.announced);
    podman.never_by_the_systems_ssh();
}

/// An address that nobody listens on, which ssh(1) takes for the guest.
const LOOPBACK: &str = "127.0.0.77";

const VERSION: [&str; 3] = ["version", "--format", "{{.Server.Version}}"];

/// Podman as a client that writes its connections down.
struct Podman<'a> {
    /// Where; `ssh` is there as well.
    folder: &'a Path,
    /// The private key.
    identity: PathBuf,
}

impl Podman<'_> {
    /// Some words after others.
    fn run(&self, words: &[&[&str]]) -> Output {
        let mut podman = debian("podman", "podman");
        let places = ["HOME", "XDG_CONFIG_HOME", "XDG_RUNTIME_DIR"];
        podman.envs(places.map(|place| (place, self.folder)));
        let others = std::env::var_os("PATH").unwrap_or_default();
        let folders = std::iter::once(self.folder.to_owned()).chain(std::env::split_paths(&others));
        podman.env("PATH", std::env::join_paths(folders).unwrap()).args(words.concat());
        feed(&mut podman, b"")
    }

    fn says(&self, words: &[&[&str]]) -> String {
        self.run(words).success().text()
    }

    fn identity(&self) -> [&str; 2] {
        ["--identity", self.identity.to_str().unwrap()]
    }

    /// ssh(1) forwards the API's socket, through its ProxyCommand.
    fn by_a_forwarded_socket(&self, ssh: &Path) {
        let socket = self.folder.join("guest.sock");
        let url = format!("unix://{}", socket.display());
        let forward = format!("{}:/run/podman/podman.sock", socket.display());
        let mut ssh = Command::new(ssh).args(["-nNT", "-L", &forward, "guest"]).spawn().unwrap();
        let end = Instant::now() + Duration::from_secs(120);
        while !socket.exists() {
            assert!(Instant::now() < end && ssh.try_wait().unwrap().is_none(), "{url}");
            std::thread::sleep(Duration::from_millis(100));
        }
        self.says(&[&["system", "connection", "add", "forwarded", &url]]);
        let version = self.says(&[&["--connection", "forwarded"], &VERSION]);
        assert!(version.starts_with("5."), "{version}");
        ssh.kill().unwrap();
        ssh.wait().unwrap();
        self.says(&[&["system", "connection", "remove", "forwarded"]]);
    }

    fn by_a_published_port(&self, announced: &str) {
        let line = announced.lines().find_map(|line| line.split_once("TCP:127.0.0.1:"));
        let url = format!("ssh://root@127.0.0.1:{}/run/podman/podman.sock", line.unwrap().1.trim());
        let direct = self.says(&[&["--remote", "--url", &url], &self.identity(), &VERSION]);
        assert!(direct.starts_with("5."), "{direct}");
        self.says(&[&["system", "connection", "add", "pods", &url], &self.identity()]);
        let list = ["system", "connection", "list", "--format", "{{.Name}} {{.URI}} {{.Default}}"];
        assert_eq!(self.says(&[&list]), format!("pods {url} true\n"));
        let named = self.says(&[&["--connection", "pods"], &VERSION]);
        assert_eq!(named, direct);
        let default = self.says(&[&["--remote"], &VERSION]);
        assert_eq!(default, direct, "the default connection");
    }

    /// `--ssh=native` writes a connection down, by the ProxyCommand; what then asks by it does not
    /// use it.
    fn never_by_the_systems_ssh(&self) {
        let url = format!("ssh://root@{LOOPBACK}");
        let add = ["--ssh=native", "system", "connection", "add", "native", &url];
        self.says(&[&add, &self.identity()]);
        let asked = self.run(&[&["--ssh=native", "--connection", "native"], &VERSION]);
        assert_ne!(asked.code, 0, "{}", asked.text());
        assert!(asked.stderr.contains("connection refused"), "{}", asked.stderr);
    }
}
