//! `Condition*=` and `Assert*=` that the image decides, systemd.unit(5).
//!
//! The guest checks no conditions. What is the same at every start of every guest of this image
//! is decided here; any other condition is refused by the table of keys.

use super::keys::Keys;
use super::syntax::Assignment;
use super::table::{self, Class};
use super::value::{self, Expected};
use crate::finding::Finding;

/// Folders that are read-only in the guest, where a file of the image stays as it is.
const FIXED: [&str; 8] =
    ["/etc/", "/usr/", "/opt/", "/srv/", "/bin/", "/sbin/", "/lib/", "/lib64/"];

/// Whether the unit may start. Findings say which condition is false; a false assertion is an
/// error.
pub(crate) fn hold(keys: &mut Keys<'_>) -> bool {
    let asserted = family(keys, "Assert");
    if let Some(line) = asserted.failed {
        let message = format!("`{}=` is false in every guest of this image", line.key);
        let span = line.value.span();
        keys.findings.push(
            Finding::error(span, message)
                .label("the unit can never start")
                .help("take the unit out, or the assertion"),
        );
    }
    let conditions = family(keys, "Condition");
    if let Some(line) = conditions.failed {
        let message = format!("`{}=` is false here: `{}` never starts", line.key, keys.unit.name);
        keys.findings.push(Finding::note(line.value.span(), message));
    }
    conditions.failed.is_none()
}

/// What became of the conditions of one family.
#[derive(Default)]
struct Outcome<'a> {
    /// The first that is false, or the last of those of which one must be true.
    failed: Option<&'a Assignment>,
}

fn family<'a>(keys: &mut Keys<'a>, prefix: &str) -> Outcome<'a> {
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
        let (negated, rest) = strip(rest, '!');
        let holds = match evaluate(keys, &line.key[prefix.len()..], rest) {
            Ok(holds) => holds != negated,
            Err(expected) => {
                keys.bad(line, &expected);
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
    if !triggered {
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

fn evaluate(keys: &Keys<'_>, kind: &str, text: &str) -> Result<bool, Expected> {
    match kind {
        "Architecture" => {
            Ok(text == "native" || text == keys.facts.input.architecture.systemd_name())
        }
        "Host" if text.contains(['*', '?', '[']) => {
            Err(Expected::Other("the whole host name: patterns are not supported"))
        }
        "Host" => Ok(text == keys.facts.input.name),
        "User" => Ok(matches!(text, "root" | "0" | "@system")),
        "Group" => Ok(matches!(text, "root" | "0")),
        "Virtualization" => virtualization(text),
        "PathExists" => path_exists(keys, text),
        _ => Ok(true),
    }
}

/// The guest is a virtual machine; under which accelerator is decided at each start.
fn virtualization(text: &str) -> Result<bool, Expected> {
    match text {
        "vm" => Ok(true),
        "kvm" | "qemu" => Err(Expected::Other("`vm`: KVM or not is decided at each start")),
        other => Ok(value::boolean(other).unwrap_or(false)),
    }
}

fn path_exists(keys: &Keys<'_>, text: &str) -> Result<bool, Expected> {
    let path = value::path(text)?;
    if !FIXED.iter().any(|folder| path.starts_with(folder)) {
        return Err(Expected::Other("a path that only the image decides, below /etc or /usr"));
    }
    // Before the image is there, nothing is known against it.
    Ok(keys.facts.has_file(&path).unwrap_or(true))
}
