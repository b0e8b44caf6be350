//! The clients of Podman's API: docker, docker-compose, `podman --remote`, and a socket.

use rouse_tests::{Output, debian, feed};
use std::ffi::OsStr;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// One API, by the Unix socket on the host that leads to it.
pub(crate) struct Api {
    /// The socket.
    pub(crate) path: PathBuf,
    /// What clients write down about themselves.
    home: tempfile::TempDir,
}

/// What an HTTP request got.
pub(crate) struct Answer {
    /// Its code.
    pub(crate) status: u32,
    /// The text behind the headers.
    pub(crate) body: String,
}

impl Api {
    pub(crate) fn new(path: PathBuf) -> Self {
        Self { path, home: tempfile::tempdir().unwrap() }
    }

    fn client<S: AsRef<OsStr>>(
        &self,
        (package, program): (&str, &str),
        words: impl IntoIterator<Item = S>,
    ) -> Command {
        let mut command = debian(package, program);
        let host = format!("unix://{}", self.path.display());
        command
            .env("DOCKER_HOST", &host)
            .env("CONTAINER_HOST", &host)
            // Debian's docker has no buildx.
            .env("DOCKER_BUILDKIT", "0")
            .env("DOCKER_CONFIG", self.home.path())
            .env("HOME", self.home.path())
            .env("XDG_RUNTIME_DIR", self.home.path())
            .args(words);
        command
    }

    fn docker_command<S: AsRef<OsStr>>(&self, words: impl IntoIterator<Item = S>) -> Command {
        self.client(("docker-cli", "docker"), words)
    }

    #[track_caller]
    fn text(what: &str, output: Output) -> String {
        assert_eq!(output.code, 0, "{what}: {}\n{}", output.text(), output.stderr);
        // docker says on stderr what podman's answers to a run are, and some on stdout: no mixing.
        output.text()
    }

    /// What docker says to some words.
    #[track_caller]
    pub(crate) fn docker<S: AsRef<OsStr>>(&self, words: impl IntoIterator<Item = S>) -> String {
        self.docker_with(words, b"")
    }

    /// The same with an input.
    #[track_caller]
    pub(crate) fn docker_with<S: AsRef<OsStr>>(
        &self,
        words: impl IntoIterator<Item = S>,
        input: &[u8],
    ) -> String {
        let mut command = self.docker_command(words);
        let what = format!("{:?}", command.get_args().skip(6).collect::<Vec<_>>());
        Self::text(&what, feed(&mut command, input))
    }

    /// The same with a file as its input.
    #[track_caller]
    pub(crate) fn docker_from<S: AsRef<OsStr>>(
        &self,
        words: impl IntoIterator<Item = S>,
        input: &Path,
    ) -> String {
        let mut command = self.docker_command(words);
        let output = command.stdin(std::fs::File::open(input).unwrap()).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// The exit code of docker.
    pub(crate) fn docker_status<S: AsRef<OsStr>>(&self, words: impl IntoIterator<Item = S>) -> i32 {
        feed(&mut self.docker_command(words), b"").code
    }

    /// What `podman --remote` says.
    #[track_caller]
    pub(crate) fn podman<S: AsRef<OsStr>>(&self, words: impl IntoIterator<Item = S>) -> String {
        self.podman_with(words, b"")
    }

    /// The same with an input.
    #[track_caller]
    pub(crate) fn podman_with<S: AsRef<OsStr>>(
        &self,
        words: impl IntoIterator<Item = S>,
        input: &[u8],
    ) -> String {
        let mut command = self.client(("podman", "podman"), ["--remote"]);
        command.args(words);
        let what = format!("{:?}", command.get_args().skip(6).collect::<Vec<_>>());
        Self::text(&what, feed(&mut command, input))
    }

    /// What docker-compose says.
    #[track_caller]
    pub(crate) fn compose<S: AsRef<OsStr>>(&self, words: impl IntoIterator<Item = S>) -> String {
        let mut command = self.client(("docker-compose", "docker-compose"), words);
        Self::text("docker-compose", feed(&mut command, b""))
    }

    /// GET, without any client between.
    pub(crate) fn request(&self, path: &str) -> Answer {
        self.exchange(path, Sending::Open)
    }

    /// The same by a client that says nothing more after its request.
    pub(crate) fn request_and_shut(&self, path: &str) -> Answer {
        self.exchange(path, Sending::Shut)
    }

    fn exchange(&self, path: &str, sending: Sending) -> Answer {
        let mut stream = UnixStream::connect(&self.path).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(300))).unwrap();
        write!(stream, "GET {path} HTTP/1.0\r\nHost: d\r\n\r\n").unwrap();
        if sending == Sending::Shut {
            stream.shutdown(std::net::Shutdown::Write).unwrap();
        }
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
        let status = head.split(' ').nth(1).and_then(|code| code.parse().ok());
        Answer { status: status.unwrap_or(0), body: body.to_owned() }
    }
}

/// What becomes of the client's side of a connection.
#[derive(PartialEq, Eq)]
enum Sending {
    Open,
    Shut,
}
