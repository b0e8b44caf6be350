//! Debian's docker-registry on the loopback, and a client that pushes to it.

use crate::command;
use crate::images::{Image, MANIFEST, digest};
use rouse::cache::Cache;
use rouse::debian::{Debian, tools};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

/// The one user of a registry with passwords; the same in base64.
pub const USER: (&str, &str) = ("tester:secret", "dGVzdGVyOnNlY3JldA==");
/// His line in htpasswd's file: bcrypt of `secret`.
const HTPASSWD: &str = "tester:$2y$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a\n";

/// Who may do anything there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Everybody.
    Anybody,
    /// [`USER`] alone.
    Password,
}

/// A registry; it ends when it is dropped.
pub struct ContainerRegistry {
    /// `127.0.0.1:PORT`
    pub address: String,
    access: Access,
    folder: tempfile::TempDir,
    child: Child,
}

/// What a server answered.
pub struct Reply {
    /// The HTTP status.
    pub status: u16,
    /// The headers as they came.
    pub headers: String,
    /// What follows them.
    pub body: Vec<u8>,
}

impl ContainerRegistry {
    /// Starts an empty one.
    pub fn start(access: Access) -> Self {
        let cache = Cache::open_at(&command::cache()).unwrap();
        let debian = Debian::new(cache, None);
        let program = tools::program(&debian, "docker-registry", "docker-registry").unwrap();
        let folder = tempfile::tempdir().unwrap();
        // Nobody else gets a port that was free a moment ago, unless by a rare accident.
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let address = format!("127.0.0.1:{port}");
        let root = folder.path().join("data");
        let mut config = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {}}}, \
             delete: {{enabled: true}}}}\nhttp: {{addr: \"{address}\", secret: test}}\n",
            root.display()
        );
        if access == Access::Password {
            let file = folder.path().join("htpasswd");
            std::fs::write(&file, HTPASSWD).unwrap();
            config += &format!("auth: {{htpasswd: {{realm: test, path: {}}}}}\n", file.display());
        }
        let file = folder.path().join("config.yml");
        std::fs::write(&file, config).unwrap();
        let log = std::fs::File::create(folder.path().join("log")).unwrap();
        let mut command = program.command();
        // It takes every REGISTRY_ variable for a key of its configuration.
        command.env_remove("REGISTRY_AUTH_FILE");
        command.arg("serve").arg(&file).stdin(Stdio::null());
        let child = command.stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap();
        let registry = Self { address, access, folder, child };
        registry.wait();
        registry
    }

    fn wait(&self) {
        let end = Instant::now() + Duration::from_secs(120);
        while TcpStream::connect(&self.address).is_err() {
            let log = || std::fs::read_to_string(self.folder.path().join("log")).unwrap();
            assert!(Instant::now() < end, "the registry does not listen: {}", log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// A fully qualified reference to an image of it.
    pub fn reference(&self, image: &str) -> String {
        format!("{}/{image}", self.address)
    }

    /// Pushes an image under a tag.
    pub fn push(&self, name: &str, tag: &str, image: &Image) {
        for blob in image.layers.iter().chain([&image.config]) {
            self.push_blob(name, blob);
        }
        self.push_manifest(name, tag, MANIFEST, &image.manifest);
    }

    /// Pushes a layer or configuration.
    pub fn push_blob(&self, name: &str, blob: &[u8]) {
        let begun = self.ask("POST", &format!("/v2/{name}/blobs/uploads/"), &[], &[]);
        assert_eq!(begun.status, 202, "{}", begun.headers);
        let location = begun.headers.lines().find_map(|line| {
            let (key, value) = line.split_once(": ")?;
            key.eq_ignore_ascii_case("location").then(|| value.trim().to_owned())
        });
        let location = location.unwrap();
        let path = location.split_once(&self.address).map_or(location.as_str(), |(_, path)| path);
        let path = format!("{path}&digest={}", digest(blob));
        let kind = [("Content-Type", "application/octet-stream")];
        assert_eq!(self.ask("PUT", &path, &kind, blob).status, 201);
    }

    /// Pushes a manifest or an index.
    pub fn push_manifest(&self, name: &str, version: &str, media_type: &str, text: &[u8]) {
        let path = format!("/v2/{name}/manifests/{version}");
        let reply = self.ask("PUT", &path, &[("Content-Type", media_type)], text);
        assert_eq!(reply.status, 201, "{}", String::from_utf8_lossy(&reply.body));
    }

    /// Drops a manifest.
    pub fn delete(&self, name: &str, digest: &str) {
        let path = format!("/v2/{name}/manifests/{digest}");
        assert_eq!(self.ask("DELETE", &path, &[], &[]).status, 202);
    }

    /// The file in which it keeps a blob.
    pub fn file(&self, blob: &[u8]) -> PathBuf {
        let digest = digest(blob);
        let hash = digest.trim_start_matches("sha256:");
        let below = format!("data/docker/registry/v2/blobs/sha256/{}/{hash}/data", &hash[..2]);
        self.folder.path().join(below)
    }

    fn ask(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Reply {
        let authorization = format!("Basic {}", USER.1);
        let mut headers = headers.to_vec();
        if self.access == Access::Password {
            headers.push(("Authorization", &authorization));
        }
        ask(&self.address, method, path, &headers, body)
    }
}

impl Drop for ContainerRegistry {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// One HTTP request.
pub fn ask(
    address: &str,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> Reply {
    let mut stream = TcpStream::connect(address).unwrap();
    let mut head = format!("{method} {path} HTTP/1.0\r\nHost: {address}\r\n");
    for (name, value) in headers {
        head += &format!("{name}: {value}\r\n");
    }
    head += &format!("Content-Length: {}\r\n\r\n", body.len());
    stream.write_all(head.as_bytes()).unwrap();
    stream.write_all(body).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    let end = answer.windows(4).position(|at| at == b"\r\n\r\n").unwrap();
    let head = String::from_utf8(answer[..end].to_vec()).unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Reply { status, headers: head, body: answer[end + 4..].to_vec() }
}
