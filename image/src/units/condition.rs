//! `Condition*=` and `Assert*=`, systemd.unit(5): what the image decides is decided here, the rest
//! is for the guest to check at each start.
//!
//! | asked about | who knows |
//! |---|---|
//! | the architecture, the host name, the manager's user, virtualization, security modules | this file |
//! | whether a path of the read-only root exists | this file, once the image's files are known |
//! | paths below /dev, /proc, /sys and what the guest can write to, as /var and `[disk]` | the guest |
//! | anything else about a path (its mode, whether it is empty, a mount point, ...) | the guest |
//! | the kernel, its command line and modules, memory, CPUs, credentials, the environment | the guest |
//!
//! A unit with a false condition never starts, and is left out with a note; a false assertion is
//! an error, since its author says that the unit must be able to start.

use super::keys::Keys;
use super::syntax::Assignment;
use super::table::{self, Class};
use super::value::{self, Expected};
use crate::appliance;
use crate::finding::Finding;
use activator::manifest::{Check, Condition, Group};
use std::path::Path;

/// Folders that the kernel fills.
const OF_THE_KERNEL: [&str; 3] = ["/dev", "/proc", "/sys"];

/// What became of the conditions of a unit.
#[derive(Debug, Default)]
pub(crate) struct Conditions {
    /// One is false in every guest of this image.
    pub(crate) never: bool,
    /// For the guest, in the order of the lines.
    pub(crate) later: Vec<Condition>,
}

/// Reads them all. Findings say which is false.
pub(crate) fn read(keys: &mut Keys<'_>) -> Conditions {
    let asserted = family(keys, "Assert", Group::Assert);
    if let Some(line) = asserted.failed {
        let message = format!("`{}=` is false in every guest of this image", line.key);
        let span = line.value.span();
        keys.findings.push(
            Finding::error(span, message)
                .label("the unit can never start")
                .help("take the unit out, or the assertion"),
        );
    }
    let conditions = family(keys, "Condition", Group::Condition);
    if let Some(line) = conditions.failed {
        let message = format!("`{}=` is false here: `{}` never starts", line.key, keys.unit.name);
        keys.findings.push(Finding::note(line.value.span(), message));
    }
    let mut later = conditions.later;
    later.extend(asserted.later);
    Conditions { never: conditions.failed.is_some(), later }
}

/// What became of the lines of one family.
#[derive(Default)]
struct Outcome<'a> {
    /// The first that is false, or the last of those of which one must be true.
    failed: Option<&'a Assignment>,
    later: Vec<Condition>,
}

/// What a check comes to.
enum Answer {
    Known(bool),
    /// Known once the image's files are; until then nothing is said against the unit.
    NotYet,
    Guest(Check),
}

fn family<'a>(keys: &mut Keys<'a>, prefix: &str, group: Group) -> Outcome<'a> {
    let unit = keys.unit;
    let all = unit.assignments.iter();
    let mut lines: Vec<&Assignment> = vec![];
    for line in all.filter(|line| line.section == "Unit" && line.key.starts_with(prefix)) {
        match line.value.text.as_str() {
            // An empty one clears all of the family, whatever its name.
            "" => lines.clear(),
            _ => lines.push(line),
        }
    }
    lines.retain(|line| matches!(table::find("Unit", &line.key), Some((Class::Honoured, _))));
    let mut outcome = Outcome::default();
    let mut triggering = None;
    let mut triggered = false;
    for line in lines {
        let Some(text) = keys.expand(line) else { continue };
        let (trigger, rest) = strip(&text.text, '|');
        let (negate, rest) = strip(rest, '!');
        let answer = match evaluate(keys, &line.key[prefix.len()..], rest) {
            Ok(answer) => answer,
            Err(expected) => {
                keys.bad(line, &expected);
                continue;
            }
        };
        let holds = match answer {
            Answer::Known(holds) => holds != negate,
            Answer::NotYet => true,
            Answer::Guest(check) => {
                outcome.later.push(Condition { group, triggering: trigger, negate, check });
                continue;
            }
        };
        if trigger {
            triggering = Some(line);
            triggered |= holds;
        } else if !holds {
            outcome.failed = outcome.failed.or(Some(line));
        }
    }
    if triggered {
        // One of them is true already.
        outcome.later.retain(|condition| !condition.triggering);
    } else if !outcome.later.iter().any(|condition| condition.triggering) {
        outcome.failed = outcome.failed.or(triggering);
    }
    outcome
}

fn strip(text: &str, prefix: char) -> (bool, &str) {
    match text.strip_prefix(prefix) {
        Some(rest) => (true, rest.trim_start()),
        None => (false, text),
    }
}

fn evaluate(keys: &Keys<'_>, kind: &str, text: &str) -> Result<Answer, Expected> {
    let path = |make: fn(String) -> Check| value::path(text).map(|path| Answer::Guest(make(path)));
    let guest = |make: fn(String) -> Check| Ok(Answer::Guest(make(text.to_owned())));
    let manager = &keys.facts.manager;
    let known = match kind {
        "Architecture" => text == "native" || text == keys.facts.input.architecture.systemd_name(),
        "Host" if text.contains(['*', '?', '[']) => {
            return Err(Expected::Other("the whole host name: patterns are not supported"));
        }
        "Host" => text == keys.facts.input.name,
        "User" => manager.is_user(text),
        "Group" => manager.is_in_group(&keys.facts.accounts, text),
        "Virtualization" => virtualization(text)?,
        "Security" => security(text)?,
        // The mains, as far as the guest can see.
        "ACPower" => value::boolean(text)?,
        // An image is made anew instead.
        "NeedsUpdate" => false,
        // Nothing is on an encrypted device: the root is in memory.
        "PathIsEncrypted" => false,
        "PathExists" => return path_exists(keys, text),
        "PathExistsGlob" => return path(Check::PathExistsGlob),
        "PathIsDirectory" => return path(Check::PathIsDirectory),
        "PathIsSymbolicLink" => return path(Check::PathIsSymbolicLink),
        "PathIsMountPoint" => return path(Check::PathIsMountPoint),
        "PathIsReadWrite" => return path(Check::PathIsReadWrite),
        "PathIsSocket" => return path(Check::PathIsSocket),
        "DirectoryNotEmpty" => return path(Check::DirectoryNotEmpty),
        "FileNotEmpty" => return path(Check::FileNotEmpty),
        "FileIsExecutable" => return path(Check::FileIsExecutable),
        "KernelCommandLine" => return guest(Check::KernelCommandLine),
        "KernelModuleLoaded" => return guest(Check::KernelModuleLoaded),
        "KernelVersion" => return guest(Check::KernelVersion),
        "Environment" => return guest(Check::Environment),
        "Capability" => return guest(Check::Capability),
        "Memory" => return guest(Check::Memory),
        "CPUs" => return guest(Check::Cpus),
        "ControlGroupController" => return guest(Check::ControlGroupController),
        "Credential" => return guest(Check::Credential),
        "FirstBoot" => return guest(Check::FirstBoot),
        "OSRelease" => return guest(Check::OsRelease),
        _ => return Ok(Answer::NotYet),
    };
    Ok(Answer::Known(known))
}

/// The guest is a virtual machine; under which accelerator is decided at each start.
fn virtualization(text: &str) -> Result<bool, Expected> {
    match text {
        "vm" => Ok(true),
        "kvm" | "qemu" => Err(Expected::Other("`vm`: KVM or not is decided at each start")),
        other => Ok(value::boolean(other).unwrap_or(false)),
    }
}

/// Debian's kernel has AppArmor and the audit system, which nothing in the guest sets up.
fn security(text: &str) -> Result<bool, Expected> {
    match text {
        "selinux" | "smack" | "tomoyo" | "ima" | "uefi-secureboot" | "tpm2" | "cvm"
        | "measured-uki" | "measured-os" => Ok(false),
        "apparmor" | "audit" => {
            Err(Expected::Other("a condition that does not ask for AppArmor or auditing"))
        }
        _ => Err(Expected::OneOf(&[
            "selinux",
            "smack",
            "tomoyo",
            "ima",
            "uefi-secureboot",
            "tpm2",
            "cvm",
            "measured-uki",
        ])),
    }
}

fn path_exists(keys: &Keys<'_>, text: &str) -> Result<Answer, Expected> {
    let path = value::path(text)?;
    let of_the_kernel = OF_THE_KERNEL.iter().any(|folder| Path::new(&path).starts_with(folder));
    if of_the_kernel || appliance::is_writable(keys.facts.input.config, &path) {
        return Ok(Answer::Guest(Check::PathExists(path)));
    }
    Ok(keys.facts.has_file(&path).map_or(Answer::NotYet, Answer::Known))
}
