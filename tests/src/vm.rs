//! Appliances and the VMs that run them.

use crate::command::{self, Output, Rouse};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// Under TCG, on a busy machine: long enough that only a fault runs into it.
const PATIENCE: Duration = Duration::from_secs(300);

/// A copy of an appliance in a folder of its own, to change and to run.
pub struct Appliance {
    folder: tempfile::TempDir,
}

impl Appliance {
    /// The repository's root.
    pub fn repository() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
    }

    /// A copy of `configs/NAME`.
    pub fn of_config(name: &str) -> Self {
        let folder = tempfile::Builder::new().prefix("appliance").tempdir().unwrap();
        copy(&Self::repository().join("configs").join(name), folder.path());
        Self { folder }
    }

    /// The echo appliance with a shell on vsock port 1024, and Debian's socat.
    pub fn guest() -> Self {
        let echo = Self::of_config("echo");
        copy(&Self::repository().join("tests/appliances/guest"), echo.folder.path());
        echo
    }

    /// The guest, with services behind relays and services that sleep when idle.
    pub fn relay() -> Self {
        let guest = Self::guest();
        copy(&Self::repository().join("tests/appliances/relay"), guest.folder.path());
        guest
    }

    /// Containers that say what they see, with the guest's shell.
    pub fn containers() -> Self {
        let containers = Self::empty();
        copy(&Self::repository().join("tests/appliances/containers"), containers.path());
        containers.with_shell()
    }

    /// The podman appliances, with the guest's shell, a user with a Podman of his own, and API
    /// services of other kinds.
    pub fn podman() -> Self {
        let podman = Self::of_config("podman");
        for folder in ["configs/podman-ssh", "tests/appliances/podman"] {
            copy(&Self::repository().join(folder), podman.folder.path());
        }
        podman.with_shell()
    }

    /// Adds the guest's shell.
    fn with_shell(self) -> Self {
        for unit in ["shell.socket", "shell.service"] {
            let from = Self::repository().join("tests/appliances/guest").join(unit);
            std::fs::copy(from, self.path().join(unit)).unwrap();
        }
        self
    }

    /// One socket, one service, no container: quick to build.
    pub fn tiny() -> Self {
        Self::empty()
            .with("appliance.toml", "name = \"tiny\"\n\n[files]\n\"/usr/bin/hello\" = \"hello\"\n")
            .with("hello", "hello\n")
            .with("hello.service", "[Service]\nExecStart=/usr/bin/hello\n")
            .with(
                "hello.socket",
                "[Socket]\nListenStream=vsock:4294967295:3000\n\n\
                 [Install]\nWantedBy=sockets.target\n",
            )
    }

    /// The same on QEMU's microvm.
    pub fn on_a_microvm(self) -> Self {
        let config = std::fs::read_to_string(self.path().join("appliance.toml")).unwrap();
        self.with("appliance.toml", &(config + "\n[vm]\nmachine = \"microvm\"\n"))
    }

    /// An empty folder.
    pub fn empty() -> Self {
        Self { folder: tempfile::Builder::new().prefix("appliance").tempdir().unwrap() }
    }

    /// Adds or replaces a file.
    pub fn with(self, file: &str, text: &str) -> Self {
        let path = self.path().join(file);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
        self
    }

    /// Changes a text in a file.
    pub fn replace(self, file: &str, from: &str, to: &str) -> Self {
        let text = std::fs::read_to_string(self.path().join(file)).unwrap();
        assert!(text.contains(from), "{file} has no {from}");
        self.with(file, &text.replace(from, to))
    }

    /// Its folder.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }
}

/// Copies a folder, without locks and build outputs: each test starts from a clean clone.
fn copy(from: &Path, to: &Path) {
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name();
        if name == "target" || name == "appliance.lock" {
            continue;
        }
        let to = to.join(&name);
        if entry.file_type().unwrap().is_dir() {
            std::fs::create_dir_all(&to).unwrap();
            copy(&entry.path(), &to);
        } else {
            std::fs::copy(entry.path(), to).unwrap();
        }
    }
}

/// A running VM, in the foreground of a child that ends with the test.
pub struct Vm {
    /// The command, with the VM's runtime folder.
    pub rouse: std::sync::Arc<Rouse>,
    /// Its name.
    pub name: String,
    /// What `rouse run` printed when the guest listened.
    pub announced: String,
    child: Child,
}

impl Vm {
    /// Boots an appliance and returns when it listens.
    pub fn start(appliance: &Appliance, name: &str, more: &[&str]) -> Self {
        Self::start_in(std::sync::Arc::new(Rouse::new()), appliance, name, more)
    }

    /// The same beside other VMs, in their runtime folder.
    pub fn start_in(
        rouse: std::sync::Arc<Rouse>,
        appliance: &Appliance,
        name: &str,
        more: &[&str],
    ) -> Self {
        let mut command = rouse.command(["run", "--name", name]);
        command.arg(appliance.path()).args(more);
        let log = rouse.runtime().join(format!("{name}.stderr"));
        command.stdout(Stdio::piped()).stderr(std::fs::File::create(&log).unwrap());
        let mut child = spawn_tied(command);
        let mut stdout = child.stdout.take().unwrap();
        let (sender, lines) = mpsc::channel();
        std::thread::spawn(move || {
            use std::io::BufRead;
            for line in std::io::BufReader::new(&mut stdout).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        let mut announced = String::new();
        let end = Instant::now() + PATIENCE * 2;
        loop {
            match lines.recv_timeout(end.saturating_duration_since(Instant::now())) {
                // The announcement ends with an empty line.
                Ok(line) if line.is_empty() => break,
                Ok(line) => announced += &(line + "\n"),
                Err(error) => panic!(
                    "{name} did not come up: {error}\n{announced}\n{}",
                    std::fs::read_to_string(&log).unwrap_or_default()
                ),
            }
        }
        Self { rouse, name: name.into(), announced, child }
    }

    /// Connects to a vsock port, sends, closes the sending side at once, and returns all answers.
    pub fn send(&self, port: u32, input: &[u8]) -> Output {
        self.rouse.run_with(["connect", &self.name, &port.to_string()], input)
    }

    /// Runs a script in the guest's shell (see `tests/appliances/guest`).
    #[track_caller]
    pub fn shell(&self, script: &str) -> String {
        // Applets for what is not there as a program of its own.
        let script = format!(
            "exec 2>&1\n\
             busybox test -d /tmp/bin || {{ busybox mkdir /tmp/bin; busybox --install -s /tmp/bin; }}\n\
             PATH=$PATH:/tmp/bin\n{script}\n"
        );
        self.send(1024, script.as_bytes()).success().text()
    }

    /// `rouse status --json`.
    #[track_caller]
    pub fn status(&self) -> activator::control::Status {
        let output = self.rouse.run(["status", "--json", &self.name]).success();
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// One service of it.
    #[track_caller]
    pub fn service(&self, name: &str) -> activator::control::ServiceStatus {
        let found = self.status().services.into_iter().find(|service| service.name == name);
        found.unwrap_or_else(|| panic!("no {name}"))
    }

    /// What a verb without output does.
    #[track_caller]
    pub fn tell(&self, verb: &str, unit: &str) {
        self.rouse.run([verb, &self.name, unit]).success();
    }

    /// Waits until something is so.
    #[track_caller]
    pub fn wait_until(&self, what: &str, mut check: impl FnMut(&Self) -> bool) {
        let end = Instant::now() + PATIENCE;
        while !check(self) {
            assert!(Instant::now() < end, "never: {what}");
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Switches it off as a person would, and gives the exit code of `rouse run`.
    pub fn poweroff(mut self) -> i32 {
        // PID 1 goes on in a VM where it ends in other tests: all that it has is its word.
        let console = self.rouse.runtime().join(&self.name).join("console.log");
        let console = String::from_utf8_lossy(&std::fs::read(console).unwrap()).into_owned();
        assert!(!console.contains("this is a bug of rouse"), "{console}");
        self.rouse.run(["poweroff", &self.name]).success();
        self.child.wait().unwrap().code().unwrap_or(-1)
    }
}

impl Drop for Vm {
    fn drop(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            let pid = rustix::process::Pid::from_child(&self.child);
            // It may have ended by now.
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
            let _ = self.child.wait();
        }
    }
}

/// Starts a command that gets SIGTERM when the test's process ends, however that ends.
fn spawn_tied(mut command: std::process::Command) -> Child {
    // The kernel watches the thread that made the child: so one that lives as long as the process.
    static SPAWNER: std::sync::OnceLock<std::sync::Mutex<mpsc::Sender<Job>>> =
        std::sync::OnceLock::new();
    type Job = (std::process::Command, mpsc::Sender<std::io::Result<Child>>);
    let tie =
        || rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::TERM));
    // SAFETY: between fork and exec, prctl(2) is async-signal-safe and allocates nothing.
    #[allow(unsafe_code)]
    unsafe {
        command.pre_exec(move || tie().map_err(Into::into));
    }
    let spawner = SPAWNER.get_or_init(|| {
        let (sender, jobs) = mpsc::channel::<Job>();
        std::thread::spawn(move || {
            for (mut command, answer) in jobs {
                let _ = answer.send(command.spawn());
            }
        });
        std::sync::Mutex::new(sender)
    });
    let (answer, child) = mpsc::channel();
    spawner.lock().unwrap().send((command, answer)).unwrap();
    child.recv().unwrap().unwrap()
}

/// Runs a command that is not `rouse`, with something on stdin.
pub fn feed(command: &mut std::process::Command, input: &[u8]) -> Output {
    command::feed(command, input)
}
