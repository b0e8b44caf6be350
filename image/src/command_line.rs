//! What can be typed. Help, man page and completions come from this one table.

use crate::config::Format;
use crate::manual;
use clap::error::ErrorKind;
use clap::{Parser, Subcommand, ValueEnum};
use rouse_qemu::publish::{HostAddress, Publish};
use std::ffi::OsString;
use std::net::Ipv4Addr;
use std::path::PathBuf;

/// Appliance VM images whose services sleep until the first connection.
///
/// An appliance is a folder with an appliance.toml, systemd .socket and .service units, and
/// Podman Quadlet .container files.
#[derive(Debug, Parser)]
#[command(
    name = "rouse",
    version,
    max_term_width = 100,
    subcommand_value_name = "COMMAND",
    after_long_help = manual::after_help()
)]
pub struct CommandLine {
    /// Say less: no progress, no notes
    #[arg(long, short, global = true)]
    pub quiet: bool,
    /// What to do
    #[command(subcommand)]
    pub verb: Verb,
}

impl CommandLine {
    /// Reads the arguments, the program's name first; ends the process if they are wrong, or if
    /// help is asked for.
    pub fn read(arguments: Vec<OsString>) -> Self {
        Self::try_read(arguments).unwrap_or_else(|error| error.exit())
    }

    /// `--user` may stand without a name, but takes what stands behind it for one. If an argument
    /// lacks then, it was none.
    fn try_read(arguments: Vec<OsString>) -> Result<Self, clap::Error> {
        let read = Self::try_parse_from(&arguments);
        match read {
            Err(error) if error.kind() == ErrorKind::MissingRequiredArgument => {
                let bare = arguments.into_iter().map(|it| match it == "--user" {
                    true => "--user=".into(),
                    false => it,
                });
                Self::try_parse_from(bare).map_err(|_| error)
            }
            read => read,
        }
    }
}

/// The verbs.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Parse and resolve an appliance; every finding with file, line and column
    Check(Check),
    /// Print a unit after drop-ins, or the service that a Quadlet became
    Cat(Cat),
    /// Print what the guest will do
    Manifest(Manifest),
    /// Resolve packages and images anew and write appliance.lock
    Lock(Lock),
    /// Build the image; prints the folder it is in
    Build(Build),
    /// List what is in a built image: packages, units, files by size
    Inspect(Inspect),
    /// Build and boot an appliance, and print how to reach its listeners
    Run(Run),
    /// List the running appliances
    List(List),
    /// Connect stdin and stdout to a vsock port of a running appliance
    Connect(Connect),
    /// Show sockets and services of a running appliance
    Status(Status),
    /// Show what services wrote
    Logs(Logs),
    /// Start a unit
    Start(UnitOf),
    /// Stop a unit
    Stop(UnitOf),
    /// Stop a unit and start it again
    Restart(UnitOf),
    /// Have a running appliance take its units anew, without a boot and without losing a client
    Reload(Reload),
    /// Have a service of a running VM read its configuration anew
    ReloadUnit(UnitOf),
    /// Stop all services in order and switch off
    Poweroff(Poweroff),
    /// Print a completion script for a shell
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Print the man page
    Man,
    /// The process of one VM; `run` starts it
    #[command(hide = true)]
    Vmm {
        /// What to run
        spec: PathBuf,
    },
}

/// Folder of an appliance.
#[derive(Debug, clap::Args)]
pub struct Appliance {
    /// Folder with appliance.toml and units
    #[arg(value_name = "DIR", default_value = ".")]
    pub folder: PathBuf,
    /// Take warnings for errors
    #[arg(long)]
    pub strict: bool,
}

/// `rouse check`
#[derive(Debug, clap::Args)]
pub struct Check {
    /// The appliance
    #[command(flatten)]
    pub appliance: Appliance,
    /// Architecture of the guest; by default the host's
    #[arg(long)]
    pub arch: Option<Arch>,
    /// One line for each finding: file:line:column: severity: message
    #[arg(long)]
    pub short: bool,
    /// Findings as JSON
    #[arg(long, conflicts_with = "short")]
    pub json: bool,
}

/// `rouse cat`
#[derive(Debug, clap::Args)]
pub struct Cat {
    /// Folder with appliance.toml and units
    #[arg(value_name = "DIR")]
    pub folder: PathBuf,
    /// Name of the unit, such as echo.socket; without a suffix, a service
    pub unit: String,
    /// Take warnings for errors
    #[arg(long)]
    pub strict: bool,
    /// Architecture of the guest; by default the host's
    #[arg(long)]
    pub arch: Option<Arch>,
    /// A unit of that user; without a name, of the only one
    #[arg(long, value_name = "NAME", num_args = 0..=1, default_missing_value = "")]
    pub user: Option<String>,
}

/// `rouse manifest`
#[derive(Debug, clap::Args)]
pub struct Manifest {
    /// The appliance
    #[command(flatten)]
    pub appliance: Appliance,
    /// Architecture of the guest; by default the host's
    #[arg(long)]
    pub arch: Option<Arch>,
    /// The whole manifest as JSON
    #[arg(long)]
    pub json: bool,
}

/// A processor architecture.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Arch {
    /// 64-bit PC
    #[value(name = "x86_64", alias = "amd64")]
    X86_64,
    /// 64-bit Arm
    #[value(name = "aarch64", alias = "arm64")]
    Aarch64,
}

/// `rouse lock`
#[derive(Debug, clap::Args)]
pub struct Lock {
    /// The appliance
    #[command(flatten)]
    pub appliance: Appliance,
    /// Architecture to lock, and leave what is locked for the other; by default both
    #[arg(long)]
    pub arch: Option<Arch>,
}

/// `rouse build`
#[derive(Debug, clap::Args)]
pub struct Build {
    /// The appliance
    #[command(flatten)]
    pub appliance: Appliance,
    /// Architecture of the guest; by default the host's
    #[arg(long)]
    pub arch: Option<Arch>,
    /// What the guest boots from; by default what `[root]` says
    #[arg(long, value_enum)]
    pub format: Option<Format>,
    /// Folder to write to; by default one in the cache
    #[arg(long, short)]
    pub output: Option<PathBuf>,
    /// Build twice and compare, byte by byte
    #[arg(long)]
    pub check_reproducible: bool,
}

/// `rouse inspect`
#[derive(Debug, clap::Args)]
pub struct Inspect {
    /// Folder that `rouse build` wrote
    pub image: PathBuf,
    /// As JSON
    #[arg(long)]
    pub json: bool,
}

/// `rouse run`
#[derive(Debug, clap::Args)]
pub struct Run {
    /// The appliance
    #[command(flatten)]
    pub appliance: Appliance,
    /// Architecture of the guest; by default the host's
    #[arg(long)]
    pub arch: Option<Arch>,
    /// Name of the VM; by default the appliance's
    #[arg(long)]
    pub name: Option<String>,
    /// vsock context id, from 3 up; by default the first that is free
    #[arg(long, value_parser = clap::value_parser!(u32).range(3..=4_294_967_294))]
    pub cid: Option<u32>,
    /// A host socket for a vsock port of the guest: /path/to.sock=3000, 127.0.0.1:8080=3000, or
    /// 8080=3000 for a port of the loopback
    #[arg(long, value_name = "HOST=PORT", value_parser = parse_publish)]
    pub publish: Vec<Publish>,
    /// Return when the guest listens, and leave it running
    #[arg(long, short)]
    pub detach: bool,
    /// Build, print the command line of QEMU, and boot nothing
    #[arg(long)]
    pub print_command: bool,
}

/// `rouse list`
#[derive(Debug, clap::Args)]
pub struct List {
    /// As JSON
    #[arg(long)]
    pub json: bool,
}

/// `rouse connect`
#[derive(Debug, clap::Args)]
pub struct Connect {
    /// Name of the VM
    pub name: String,
    /// vsock port in the guest
    #[arg(value_parser = parse_port)]
    pub port: u32,
}

/// `rouse status`
#[derive(Debug, clap::Args)]
pub struct Status {
    /// Name of the VM
    pub name: String,
    /// The units of that user alone; without a name, of all users
    #[arg(long, value_name = "NAME", num_args = 0..=1, default_missing_value = "")]
    pub user: Option<String>,
    /// As JSON
    #[arg(long)]
    pub json: bool,
}

/// `rouse logs`
#[derive(Debug, clap::Args)]
pub struct Logs {
    /// Name of the VM
    pub name: String,
    /// Name of a unit; without a suffix, a service; by default all units
    pub unit: Option<String>,
    /// A unit of that user; without a name, of the only one
    #[arg(long, value_name = "NAME", num_args = 0..=1, default_missing_value = "", requires = "unit")]
    pub user: Option<String>,
    /// Go on with new lines
    #[arg(long, short)]
    pub follow: bool,
    /// One JSON object for each line
    #[arg(long)]
    pub json: bool,
}

/// `rouse start`, `stop`, `restart`, `reload-unit`
#[derive(Debug, clap::Args)]
pub struct UnitOf {
    /// Name of the VM
    pub name: String,
    /// Name of the unit, such as echo.socket; without a suffix, a service
    pub unit: String,
    /// A unit of that user; without a name, of the only one
    #[arg(long, value_name = "NAME", num_args = 0..=1, default_missing_value = "")]
    pub user: Option<String>,
}

/// `rouse reload`
#[derive(Debug, clap::Args)]
pub struct Reload {
    /// Name of the VM
    pub name: String,
    /// The appliance
    #[command(flatten)]
    pub appliance: Appliance,
    /// Have it take this program's activator, too
    #[arg(long)]
    pub activator: bool,
}

/// `rouse poweroff`
#[derive(Debug, clap::Args)]
pub struct Poweroff {
    /// Name of the VM
    pub name: String,
}

/// Reads a vsock port; VMADDR_PORT_ANY of vsock(7) is none.
fn parse_port(text: &str) -> Result<u32, String> {
    let number = text.parse().ok().filter(|port| *port != u32::MAX);
    number.ok_or_else(|| format!("`{text}` is no vsock port, 0 to 4294967294"))
}

/// Reads `--publish`.
fn parse_publish(text: &str) -> Result<Publish, String> {
    let (host, port) = text
        .rsplit_once('=')
        .ok_or("expected HOST=PORT, such as /tmp/echo.sock=3000 or 127.0.0.1:8080=3000")?;
    let port = parse_port(port)?;
    let host = if host.contains('/') {
        HostAddress::Unix(std::path::absolute(host).map_err(|error| error.to_string())?)
    } else if let Ok(port) = host.strip_prefix("localhost:").unwrap_or(host).parse() {
        HostAddress::Tcp((Ipv4Addr::LOCALHOST, port).into())
    } else {
        let wrong =
            |_| format!("`{host}` is neither a path with a / in it, nor a port, nor ADDRESS:PORT");
        HostAddress::Tcp(host.parse().map_err(wrong)?)
    };
    Ok(Publish { host, port })
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_table_is_sound() {
        CommandLine::command().debug_assert();
    }

    #[test]
    fn the_folder_is_this_one_unless_said() {
        let folder = |words: &[&str]| match CommandLine::try_parse_from(words).unwrap().verb {
            Verb::Check(Check { appliance, .. })
            | Verb::Build(Build { appliance, .. })
            | Verb::Run(Run { appliance, .. })
            | Verb::Reload(Reload { appliance, .. }) => appliance.folder,
            other => panic!("{other:?}"),
        };
        assert_eq!(folder(&["rouse", "check"]), PathBuf::from("."));
        assert_eq!(folder(&["rouse", "build", "--arch", "aarch64"]), PathBuf::from("."));
        assert_eq!(folder(&["rouse", "run", "-d", "x"]), PathBuf::from("x"));
        assert_eq!(folder(&["rouse", "reload", "vm"]), PathBuf::from("."));
    }

    #[test]
    fn user_may_stand_without_a_name_wherever() {
        let read = |text: &str| {
            let words = std::iter::once("rouse").chain(text.split(' ')).map(OsString::from);
            CommandLine::try_read(words.collect())
        };
        let start = |text: &str| match read(text) {
            Ok(CommandLine { verb: Verb::Start(it), .. }) => (it.name, it.unit, it.user),
            other => panic!("{other:?}"),
        };
        for (text, user) in [
            ("start vm a.service", None),
            ("start vm a.service --user", Some("")),
            ("start --user vm a.service", Some("")),
            ("start vm --user a.service", Some("")),
            ("start --user ann vm a.service", Some("ann")),
            ("start vm a.service --user ann", Some("ann")),
        ] {
            let expected = ("vm".to_owned(), "a.service".to_owned(), user.map(str::to_owned));
            assert_eq!(start(text), expected, "{text}");
        }
        let logs = match read("logs --user vm a.service") {
            Ok(CommandLine { verb: Verb::Logs(it), .. }) => (it.name, it.unit, it.user),
            other => panic!("{other:?}"),
        };
        assert_eq!(logs, ("vm".into(), Some("a.service".into()), Some(String::new())));
        assert!(matches!(read("status --user vm"), Ok(CommandLine { verb: Verb::Status(it), .. })
            if it.name == "vm" && it.user.as_deref() == Some("")));
        let lacks = read("start --user vm").unwrap_err();
        assert_eq!(lacks.kind(), ErrorKind::MissingRequiredArgument);
    }

    #[test]
    fn publish_takes_paths_and_addresses() {
        let path = Publish { host: HostAddress::Unix("/run/x=y.sock".into()), port: 3000 };
        assert_eq!(parse_publish("/run/x=y.sock=3000"), Ok(path));
        let tcp = Publish { host: HostAddress::Tcp("[::1]:80".parse().unwrap()), port: 1 };
        assert_eq!(parse_publish("[::1]:80=1"), Ok(tcp));
        let loopback = Publish { host: HostAddress::Tcp("127.0.0.1:80".parse().unwrap()), port: 1 };
        assert_eq!(parse_publish("80=1"), Ok(loopback.clone()));
        assert_eq!(parse_publish("localhost:80=1"), Ok(loopback));
        for wrong in ["example.org:80=1", "80:1", "70000=1", "/x", "/x=4294967295", "/x=", "=3"] {
            assert!(parse_publish(wrong).is_err(), "{wrong}");
        }
    }
}
