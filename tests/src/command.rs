//! The command under test.

use std::ffi::OsStr;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// `rouse` with a runtime folder of its own and the tests' cache.
pub struct Rouse {
    runtime: tempfile::TempDir,
    data: tempfile::TempDir,
    program: PathBuf,
    cache: PathBuf,
    /// `ROUSE_VSOCK`.
    vsock: &'static str,
}

/// How a command ended.
#[derive(Debug)]
pub struct Output {
    /// Exit code; 128 + signal if it was killed.
    pub code: i32,
    /// What it wrote to stdout.
    pub stdout: Vec<u8>,
    /// What it wrote to stderr.
    pub stderr: String,
}

impl Output {
    /// stdout as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// The same output, if the code was 0.
    #[track_caller]
    pub fn success(self) -> Self {
        assert_eq!(self.code, 0, "stdout: {}\nstderr: {}", self.text(), self.stderr);
        self
    }
}

impl Default for Rouse {
    fn default() -> Self {
        Self::new()
    }
}

impl Rouse {
    /// A fresh runtime folder: no VM runs in it.
    pub fn new() -> Self {
        // Unix socket paths are short: not below target/.
        let runtime = tempfile::Builder::new().prefix("rt").tempdir_in("/tmp").unwrap();
        let data = tempfile::Builder::new().prefix("data").tempdir_in("/tmp").unwrap();
        Self { runtime, data, program: program(), cache: cache(), vsock: "device" }
    }

    /// One whose VMs have the vsock of the host's kernel. Without this they have the device of ours
    /// on any machine: its sockets and its siblings are what tests ask.
    pub fn with_vhost() -> Self {
        Self { vsock: "vhost", ..Self::new() }
    }

    /// The folder of its running VMs.
    pub fn runtime(&self) -> &Path {
        self.runtime.path()
    }

    /// The folder of its disks.
    pub fn data(&self) -> &Path {
        self.data.path()
    }

    /// The tests' cache, which all of them share.
    pub fn cache(&self) -> &Path {
        &self.cache
    }

    /// The program itself.
    pub fn program(&self) -> &Path {
        &self.program
    }

    /// A command to add to.
    pub fn command<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Command {
        let mut command = Command::new(&self.program);
        command
            .args(arguments)
            .env("ROUSE_RUNTIME_DIR", self.runtime.path())
            .env("ROUSE_CACHE_DIR", &self.cache)
            .env("ROUSE_DATA_DIR", self.data())
            .env("ROUSE_VSOCK", self.vsock)
            .env("NO_COLOR", "1")
            .stdin(Stdio::null());
        command
    }

    /// Runs it to its end.
    pub fn run<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Output {
        finish(self.command(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()))
    }

    /// Runs it to its end with something on stdin, which is closed at once after that.
    pub fn run_with<S: AsRef<OsStr>>(
        &self,
        arguments: impl IntoIterator<Item = S>,
        input: &[u8],
    ) -> Output {
        feed(&mut self.command(arguments), input)
    }
}

/// Runs a command to its end with something on stdin.
pub(crate) fn feed(command: &mut Command, input: &[u8]) -> Output {
    let command = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_vec();
    let writer = std::thread::spawn(move || {
        // A command that does not read its input ends without it.
        let _ = stdin.write_all(&input);
    });
    let output = collect(child);
    writer.join().unwrap();
    output
}

fn finish(command: &mut Command) -> Output {
    collect(command.spawn().unwrap())
}

fn collect(child: Child) -> Output {
    use std::os::unix::process::ExitStatusExt;
    let output = child.wait_with_output().unwrap();
    let code = output.status.code().or(output.status.signal().map(|signal| 128 + signal));
    Output {
        code: code.unwrap_or(-1),
        stdout: output.stdout,
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// `target/`, wherever cargo put it.
pub(crate) fn target() -> PathBuf {
    // The test's program is target/PROFILE/deps/NAME.
    let own = std::env::current_exe().unwrap();
    own.ancestors().nth(3).unwrap().to_owned()
}

/// The tests' cache; it outlives a test, and starts empty in a clean clone.
pub fn cache() -> PathBuf {
    match std::env::var_os("ROUSE_TEST_CACHE_DIR") {
        Some(folder) => folder.into(),
        None => target().join("rouse-test-cache"),
    }
}

fn program() -> PathBuf {
    let own = std::env::current_exe().unwrap();
    own.ancestors().nth(2).unwrap().join("rouse-under-test")
}
