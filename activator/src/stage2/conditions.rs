//! `activator stage2 conditions UNIT`: whether a unit's `Condition*=` and `Assert*=` hold
//! (systemd.unit(5)). The exit code is 0 if all do, 1 if a condition does not, which skips the
//! start, 255 if an assertion does not, which fails it; a line says which.
//!
//! Of each group all must hold, but of those with the prefix `|` one is enough.

use super::call::Subject;
use super::error::Failed;
use super::say;
use super::version;
use crate::manifest::{Check, Condition, Group};
use crate::stage2::glob;
use rustix::fs::{self, AtFlags, CWD, StatVfsMountFlags, StatxAttributes, StatxFlags};
use std::ffi::OsString;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::Path;

/// A condition is false.
const SKIP: u8 = 1;
/// An assertion is false.
const FAIL: u8 = 255;

/// The exit code.
pub(super) fn run(arguments: &[OsString]) -> Result<u8, Failed> {
    let [unit] = arguments else { return Err(Failed::usage()) };
    let subject = Subject::find(unit.to_str().ok_or_else(Failed::usage)?)?;
    let conditions = &subject.unit.conditions;
    let machine = Machine::here();
    // A skip is no failure, so what would be one is looked at only behind it, as in systemd.
    for (group, code) in [(Group::Condition, SKIP), (Group::Assert, FAIL)] {
        if let Some(broken) = broken(conditions, group, |check| machine.holds(check)) {
            say(&format!("{} is not started: {} is false", subject.unit.name, describe(broken)));
            return Ok(code);
        }
    }
    Ok(crate::exit::DONE)
}

/// The one that counts against the unit.
fn broken(
    conditions: &[Condition],
    group: Group,
    holds: impl Fn(&Check) -> bool,
) -> Option<&Condition> {
    let of_group = || conditions.iter().filter(|it| it.group == group);
    let holds = |it: &&Condition| holds(&it.check) != it.negate;
    let must = of_group().filter(|it| !it.triggering).find(|it| !holds(it));
    must.or_else(|| {
        let triggering = || of_group().filter(|it| it.triggering);
        // None at all is nothing broken.
        triggering().next_back().filter(|_| !triggering().any(|it| holds(&it)))
    })
}

/// As in the unit's file.
fn describe(condition: &Condition) -> String {
    let group = match condition.group {
        Group::Condition => "Condition",
        Group::Assert => "Assert",
    };
    let (key, value) = match &condition.check {
        Check::PathExists(value) => ("PathExists", value),
        Check::PathExistsGlob(value) => ("PathExistsGlob", value),
        Check::PathIsDirectory(value) => ("PathIsDirectory", value),
        Check::PathIsSymbolicLink(value) => ("PathIsSymbolicLink", value),
        Check::PathIsMountPoint(value) => ("PathIsMountPoint", value),
        Check::PathIsReadWrite(value) => ("PathIsReadWrite", value),
        Check::PathIsSocket(value) => ("PathIsSocket", value),
        Check::DirectoryNotEmpty(value) => ("DirectoryNotEmpty", value),
        Check::FileNotEmpty(value) => ("FileNotEmpty", value),
        Check::FileIsExecutable(value) => ("FileIsExecutable", value),
        Check::KernelCommandLine(value) => ("KernelCommandLine", value),
        Check::KernelModuleLoaded(value) => ("KernelModuleLoaded", value),
        Check::KernelVersion(value) => ("KernelVersion", value),
        Check::Environment(value) => ("Environment", value),
        Check::Capability(value) => ("Capability", value),
        Check::Memory(value) => ("Memory", value),
        Check::Cpus(value) => ("CPUs", value),
        Check::ControlGroupController(value) => ("ControlGroupController", value),
        Check::Credential(value) => ("Credential", value),
        Check::FirstBoot(value) => ("FirstBoot", value),
        Check::OsRelease(value) => ("OSRelease", value),
    };
    let trigger = if condition.triggering { "|" } else { "" };
    let negate = if condition.negate { "!" } else { "" };
    format!("{group}{key}={trigger}{negate}{value}")
}

/// Texts that the machine tells about itself; empty where it does not.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Machine {
    command_line: String,
    /// Of PID 1, or of whoever started us, with NULs.
    environment: String,
    release: String,
    memory: String,
    controllers: String,
    os_release: String,
    status: String,
    cpus: u64,
}

impl Machine {
    fn here() -> Self {
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let parent = rustix::process::getppid().map_or(1, |pid| pid.as_raw_pid());
        let release = rustix::system::uname().release().to_string_lossy().into_owned();
        let os_release = match read("/etc/os-release") {
            text if text.is_empty() => read("/usr/lib/os-release"),
            text => text,
        };
        Self {
            command_line: read("/proc/cmdline"),
            environment: read(&format!("/proc/{parent}/environ")),
            release,
            memory: read("/proc/meminfo"),
            controllers: read("/sys/fs/cgroup/cgroup.controllers"),
            os_release,
            status: read("/proc/self/status"),
            cpus: rustix::thread::sched_getaffinity(None).map_or(1, |cpus| cpus.count().into()),
        }
    }

    fn holds(&self, check: &Check) -> bool {
        match check {
            Check::PathExists(path) => Path::new(path).exists(),
            Check::PathExistsGlob(pattern) => !glob::find(pattern).is_empty(),
            Check::PathIsDirectory(path) => Path::new(path).is_dir(),
            Check::PathIsSymbolicLink(path) => Path::new(path).is_symlink(),
            Check::PathIsMountPoint(path) => is_mount_point(path),
            // systemd takes one that is missing for writable, too.
            Check::PathIsReadWrite(path) => !fs::statvfs(path.as_str())
                .is_ok_and(|it| it.f_flag.contains(StatVfsMountFlags::RDONLY)),
            Check::PathIsSocket(path) => {
                std::fs::metadata(path).is_ok_and(|it| it.file_type().is_socket())
            }
            Check::DirectoryNotEmpty(path) => {
                std::fs::read_dir(path).is_ok_and(|mut entries| entries.next().is_some())
            }
            Check::FileNotEmpty(path) => {
                std::fs::metadata(path).is_ok_and(|it| it.is_file() && it.len() > 0)
            }
            Check::FileIsExecutable(path) => std::fs::metadata(path)
                .is_ok_and(|it| it.is_file() && it.permissions().mode() & 0o111 != 0),
            Check::KernelCommandLine(word) => {
                has_word(self.command_line.split_ascii_whitespace(), word)
            }
            Check::KernelModuleLoaded(name) => is_loaded(name),
            Check::KernelVersion(text) => {
                text.split_ascii_whitespace().all(|it| version::holds(it, &self.release))
            }
            Check::Environment(word) => has_word(self.environment.split('\0'), word),
            Check::Capability(name) => self.has_capability(name),
            Check::Memory(text) => number(text, bytes, self.memory_bytes()),
            Check::Cpus(text) => number(text, |text| text.parse().ok(), self.cpus),
            Check::ControlGroupController(names) => self.has_controllers(names),
            Check::Credential(name) => has_credential(name),
            Check::FirstBoot(text) => is_yes(text) == Path::new("/run/systemd/first-boot").exists(),
            Check::OsRelease(text) => self.is_release(text),
        }
    }

    fn memory_bytes(&self) -> u64 {
        let total = self.memory.lines().find_map(|line| line.strip_prefix("MemTotal:"));
        let number = total.and_then(|line| line.trim().strip_suffix(" kB"));
        number.and_then(|number| number.parse::<u64>().ok()).unwrap_or(0).saturating_mul(1024)
    }

    fn has_controllers(&self, names: &str) -> bool {
        let all: Vec<&str> = self.controllers.split_ascii_whitespace().collect();
        match names {
            "v1" => false,
            "v2" => !all.is_empty(),
            names => names.split_ascii_whitespace().all(|name| all.contains(&name)),
        }
    }

    /// In our bounding set, which is PID 1's.
    fn has_capability(&self, name: &str) -> bool {
        let name = name.to_ascii_lowercase();
        let Some(bit) = CAPABILITIES.iter().position(|it| Some(*it) == name.strip_prefix("cap_"))
        else {
            return false;
        };
        let set = self.status.lines().find_map(|line| line.strip_prefix("CapBnd:"));
        let set = set.and_then(|set| u64::from_str_radix(set.trim(), 16).ok()).unwrap_or(0);
        set >> bit & 1 == 1
    }

    fn is_release(&self, text: &str) -> bool {
        let known = super::environment_file::parse(&self.os_release);
        text.split_ascii_whitespace().all(|word| {
            let Some(at) = word.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')) else {
                return false;
            };
            let (name, test) = word.split_at(at);
            let value = known.iter().find(|(it, _)| it == name).map(|(_, value)| value.as_str());
            version::holds_plain(test, value.unwrap_or_default())
        })
    }
}

fn is_mount_point(path: &str) -> bool {
    if path == "/" {
        return true;
    }
    let found = fs::statx(CWD, path, AtFlags::empty(), StatxFlags::TYPE);
    found.is_ok_and(|it| it.stx_attributes.contains(StatxAttributes::MOUNT_ROOT))
}

/// `word=value` as it stands, or a bare name with whatever value.
fn has_word<'a>(mut words: impl Iterator<Item = &'a str>, wanted: &str) -> bool {
    words.any(|word| match (wanted.contains('='), word.split_once('=')) {
        (false, Some((name, _))) => name == wanted,
        _ => word == wanted,
    })
}

fn is_loaded(name: &str) -> bool {
    let directory = Path::new("/sys/module").join(name.replace('-', "_"));
    match std::fs::read_to_string(directory.join("initstate")) {
        Ok(state) => state.trim() == "live",
        // One that is built in has none.
        Err(_) => directory.exists(),
    }
}

fn has_credential(name: &str) -> bool {
    let places = ["/run/credentials/@system", "/run/credentials/@encrypted"];
    !name.contains('/') && places.iter().any(|place| Path::new(place).join(name).exists())
}

fn is_yes(text: &str) -> bool {
    ["1", "yes", "y", "true", "t", "on"].iter().any(|it| text.eq_ignore_ascii_case(it))
}

/// An operator and a number; without one, at least that.
fn number(text: &str, parse: impl Fn(&str) -> Option<u64>, found: u64) -> bool {
    let (operator, rest) = version::operator(text);
    let Some(wanted) = parse(rest.trim()) else { return false };
    operator.unwrap_or(version::Operator::GreaterOrEqual).is(found.cmp(&wanted))
}

/// With systemd's suffixes, base 1024.
fn bytes(text: &str) -> Option<u64> {
    let (digits, power) = match text.as_bytes().last()? {
        b'B' => (&text[..text.len() - 1], 0),
        b'0'..=b'9' => (text, 0),
        suffix => {
            let power = b"KMGTPE".iter().position(|it| it == suffix)?;
            (&text[..text.len() - 1], power as u32 + 1)
        }
    };
    digits.trim().parse::<u64>().ok()?.checked_mul(1024u64.checked_pow(power)?)
}

/// By number, capabilities(7).
const CAPABILITIES: [&str; 41] = [
    "chown",
    "dac_override",
    "dac_read_search",
    "fowner",
    "fsetid",
    "kill",
    "setgid",
    "setuid",
    "setpcap",
    "linux_immutable",
    "net_bind_service",
    "net_broadcast",
    "net_admin",
    "net_raw",
    "ipc_lock",
    "ipc_owner",
    "sys_module",
    "sys_rawio",
    "sys_chroot",
    "sys_ptrace",
    "sys_pacct",
    "sys_admin",
    "sys_boot",
    "sys_nice",
    "sys_resource",
    "sys_time",
    "sys_tty_config",
    "mknod",
    "lease",
    "audit_write",
    "audit_control",
    "setfcap",
    "mac_override",
    "mac_admin",
    "syslog",
    "wake_alarm",
    "block_suspend",
    "audit_read",
    "perfmon",
    "bpf",
    "checkpoint_restore",
];

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn machine() -> Machine {
        Machine {
            command_line: "quiet root=/dev/vda rw\n".into(),
            environment: "A=1\0B=\0".into(),
            release: "6.12.9-amd64".into(),
            memory: "MemTotal:        2048 kB\nMemFree: 1 kB\n".into(),
            controllers: "cpu memory pids\n".into(),
            os_release: "ID=debian\nVERSION_ID=\"13\"\n".into(),
            status: "CapBnd:\t0000000000200001\n".into(),
            cpus: 2,
        }
    }

    #[test]
    fn what_the_machine_says() {
        let machine = machine();
        type Make = fn(String) -> Check;
        let cases: [(Make, &[&str], &[&str]); 9] = [
            (
                Check::KernelCommandLine,
                &["quiet", "root", "root=/dev/vda"],
                &["root=", "qui", "ro"],
            ),
            (Check::Environment, &["A", "A=1", "B", "B="], &["A=", "C", "1"]),
            (
                Check::KernelVersion,
                &[">=6.1", "6.12.*", "6.12.9-amd64", ">6 <7", "!=6.11"],
                &["<6.2", "6.1", ">=6.13"],
            ),
            (Check::Memory, &["2M", ">=2048K", "<3M", "=2097152"], &["3M", ">2M", "x"]),
            (Check::Cpus, &["2", ">1", "!=3", "<=2"], &["3", "<2", ""]),
            (Check::ControlGroupController, &["cpu", "pids memory", "v2"], &["io", "cpu io", "v1"]),
            (Check::Capability, &["CAP_CHOWN", "cap_sys_admin"], &["CAP_KILL", "CHOWN", "CAP_"]),
            (
                Check::OsRelease,
                &["ID=debian", "ID=debian VERSION_ID>=12", "VERSION_ID=13", "ID!=arch"],
                &["ID=arch", "ID", "VERSION_ID<13", "NONE=x"],
            ),
            (Check::KernelModuleLoaded, &[], &["no-such-module"]),
        ];
        for (make, good, bad) in cases {
            good.iter().for_each(|it| assert!(machine.holds(&make((*it).into())), "{it}"));
            bad.iter().for_each(|it| assert!(!machine.holds(&make((*it).into())), "{it}"));
        }
    }

    #[test]
    fn files() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
        std::fs::write(path("full"), "x").unwrap();
        std::fs::write(path("empty"), "").unwrap();
        std::fs::create_dir(path("directory")).unwrap();
        symlink("full", path("link")).unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(path("socket")).unwrap();
        let holds = |check: fn(String) -> Check| {
            let names = ["full", "empty", "directory", "link", "socket", "none"];
            let holding =
                names.into_iter().filter(|name| Machine::default().holds(&check(path(name))));
            holding.collect::<Vec<_>>().join(" ")
        };
        assert_eq!(holds(Check::PathExists), "full empty directory link socket");
        assert_eq!(holds(Check::PathIsDirectory), "directory");
        assert_eq!(holds(Check::PathIsSymbolicLink), "link");
        assert_eq!(holds(Check::PathIsSocket), "socket");
        assert_eq!(holds(Check::FileNotEmpty), "full link");
        assert_eq!(holds(Check::FileIsExecutable), "");
        assert_eq!(holds(Check::DirectoryNotEmpty), "");
        assert_eq!(holds(Check::PathIsMountPoint), "");
        assert!(Machine::default().holds(&Check::PathIsMountPoint("/proc".into())));
        assert!(Machine::default().holds(&Check::DirectoryNotEmpty(path(""))));
        assert!(Machine::default().holds(&Check::PathExistsGlob(path("f*l"))));
        assert!(!Machine::default().holds(&Check::PathExistsGlob(path("x*"))));
    }

    #[test]
    fn all_must_hold_but_of_the_triggering_ones_one() {
        let condition = |text: &str| Condition {
            group: Group::Condition,
            triggering: text.contains('|'),
            negate: text.contains('!'),
            check: Check::PathExists(text.trim_start_matches(['|', '!']).into()),
        };
        let check = |texts: &[&str]| {
            let conditions: Vec<Condition> = texts.iter().map(|text| condition(text)).collect();
            // Only `yes` exists.
            let holds = |check: &Check| *check == Check::PathExists("yes".into());
            broken(&conditions, Group::Condition, holds).map(describe)
        };
        assert_eq!(check(&[]), None);
        assert_eq!(check(&["yes", "!no", "|no", "|yes"]), None);
        assert_eq!(check(&["yes", "no"]).unwrap(), "ConditionPathExists=no");
        assert_eq!(check(&["|yes", "!yes"]).unwrap(), "ConditionPathExists=!yes");
        assert_eq!(check(&["yes", "|no", "|!yes"]).unwrap(), "ConditionPathExists=|!yes");
        let mut one = condition("no");
        one.group = Group::Assert;
        assert_eq!(broken(&[one.clone()], Group::Condition, |_| false), None);
        assert_eq!(broken(&[one.clone()], Group::Assert, |_| false), Some(&one));
    }
}
