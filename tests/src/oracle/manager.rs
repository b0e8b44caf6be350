//! The two that run units: `systemd --user`, and the activator.

use super::stage;
use activator::client;
use activator::control::{Request, Status, UnitName};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// Which one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Manager {
    /// systemd, as a user's manager.
    Systemd,
    /// `activator run MANIFEST`.
    Activator,
}

/// Where systemd reads units, besides its own.
pub const UNITS: &str = "/run/oracle/units";
/// The activator's program and manifest.
pub const ACTIVATOR: &str = "/run/oracle/activator";
/// The supervisor, which it executes.
pub const INIT: &str = "/run/oracle/init";
/// See [`ACTIVATOR`].
pub const MANIFEST: &str = "/run/oracle/manifest";
const CONTROL: &str = "/run/rouse/control";

/// What both are started with. Services see some of it, so it is the same for both.
const ENVIRONMENT: [(&str, &str); 3] =
    [("PATH", "/usr/local/bin:/usr/bin:/bin"), ("LANG", "C.UTF-8"), ("PASSED", "passed on")];

/// A unit's state in systemd's words.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct State {
    /// `ActiveState`: inactive, activating, active, deactivating, failed.
    pub active: String,
    /// The part of `SubState` that both know.
    pub detail: String,
}

impl std::fmt::Display for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.detail.is_empty() {
            true => f.write_str(&self.active),
            false => write!(f, "{} ({})", self.active, self.detail),
        }
    }
}

impl Manager {
    /// Starts it; all units that are to start at boot are started with it.
    pub fn start(self, systemd: &Path, log: std::fs::File) -> Child {
        let mut command = match self {
            Self::Systemd => {
                let mut command = Command::new(systemd);
                command.args(["--user", "--log-level=info", "--unit=default.target"]);
                // Its directories, as a system's manager has them.
                command
                    .env("XDG_RUNTIME_DIR", "/run")
                    .env("XDG_CONFIG_HOME", "/var/lib")
                    .env("XDG_STATE_HOME", "/var/lib")
                    .env("XDG_CACHE_HOME", "/var/cache")
                    .env("HOME", "/root")
                    .env("SYSTEMD_UNIT_PATH", UNITS);
                command
            }
            Self::Activator => {
                let mut command = Command::new(ACTIVATOR);
                command.args(["run", MANIFEST, "--control", CONTROL]);
                command
            }
        };
        let own: Vec<_> = command
            .get_envs()
            .map(|(name, value)| (name.to_owned(), value.map(ToOwned::to_owned)))
            .collect();
        command.env_clear().envs(ENVIRONMENT);
        for (name, value) in own {
            command.env(name, value.unwrap_or_default());
        }
        let copy = log.try_clone().unwrap();
        command.stdin(Stdio::null()).stdout(copy).stderr(log);
        stage::spawn(command)
    }

    /// Whether everything of the boot was started.
    pub fn is_up(self) -> bool {
        match self {
            Self::Systemd => self.state("default.target").active == "active",
            Self::Activator => status().is_some_and(|status| status.state == "running"),
        }
    }

    /// `start`, `stop`, `restart` or `reload` of a unit, to its end; how that was.
    pub fn tell(self, verb: &str, unit: &str) -> Result<(), String> {
        match self {
            Self::Systemd => {
                let output = systemctl(&[verb, unit]);
                let wrong = String::from_utf8_lossy(&output.stderr).into_owned();
                output.status.success().then_some(()).ok_or(wrong)
            }
            Self::Activator => {
                let unit = UnitName::from(unit);
                let request = match verb {
                    "start" => Request::Start(unit),
                    "stop" => Request::Stop(unit),
                    "restart" => Request::Restart(unit),
                    "reload" => Request::ReloadUnit(unit),
                    _ => return Err(format!("the activator has no {verb}")),
                };
                let stream = connect().ok_or("no activator")?;
                client::order(stream, "", &request).map_err(|error| error.to_string())
            }
        }
    }

    /// What a unit is in.
    pub fn state(self, unit: &str) -> State {
        match self {
            Self::Systemd => {
                let output = systemctl(&["show", "-P", "ActiveState", "-P", "SubState", unit]);
                let text = String::from_utf8_lossy(&output.stdout).into_owned();
                let mut lines = text.lines();
                let mut next = || lines.next().unwrap_or_default().to_owned();
                let (active, detail) = (next(), next());
                let known = ["listening", "running", "exited", "auto-restart"];
                let detail = if known.contains(&detail.as_str()) { detail } else { String::new() };
                State { active, detail }
            }
            Self::Activator => {
                let Some(status) = status() else { return State::default() };
                let socket = status.sockets.iter().find(|it| it.name == unit);
                let service = status.services.iter().find(|it| it.name == unit);
                let state = socket.map(|it| &it.state).or(service.map(|it| &it.state));
                let (active, detail) = match state.map_or("", String::as_str) {
                    "dead" => ("inactive", ""),
                    "starting" => ("activating", ""),
                    "listening" => ("active", "listening"),
                    "running" => ("active", "running"),
                    "exited" => ("active", "exited"),
                    "waiting" => ("activating", "auto-restart"),
                    "stopping" => ("deactivating", ""),
                    other => (other, ""),
                };
                State { active: active.into(), detail: detail.into() }
            }
        }
    }
}

fn systemctl(arguments: &[&str]) -> std::process::Output {
    let mut command = Command::new("systemctl");
    command.arg("--user").args(arguments).env("XDG_RUNTIME_DIR", "/run").stdin(Stdio::null());
    command.output().unwrap()
}

fn connect() -> Option<UnixStream> {
    let stream = UnixStream::connect(CONTROL).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(60))).ok()?;
    Some(stream)
}

fn status() -> Option<Status> {
    client::status(connect()?, "").ok()
}
