//! Is every section and key known, and in which class is it.

use super::definition::Definition;
use super::files::Place;
use super::quadlet;
use super::syntax::{Assignment, shorten};
use super::table::{self, Class};
use super::value;
use crate::config::Engine;
use crate::finding::Finding;
use std::collections::BTreeSet;

/// Sections that a unit of a type may have beside [Unit] and [Install].
fn own_sections(unit: &Definition) -> &'static [&'static str] {
    match unit.name.kind() {
        _ if unit.quadlet.is_some() => &["Container", "Quadlet", "Service"],
        super::name::Kind::Socket => &["Socket"],
        super::name::Kind::Service => &["Service"],
        _ => &[],
    }
}

/// Goes through all sections and keys. An `X-` section or key is anybody's own.
pub(crate) fn keys(unit: &Definition, engine: Engine, findings: &mut Vec<Finding>) {
    let own = own_sections(unit);
    let has = |section: &str| section == "Unit" || section == "Install" || own.contains(&section);
    let mut seen = BTreeSet::new();
    for header in &unit.sections {
        let name = header.name.as_str();
        if has(name) || name.starts_with("X-") || !seen.insert(name) {
            continue;
        }
        let known = own.iter().copied().chain(["Unit", "Install"]);
        let mut finding = Finding::warning(
            header.span.clone(),
            format!("the section `[{}]` is unknown in `{}`", shorten(name), unit.name),
        )
        .label("left out, with all its keys");
        finding.help = Some(match super::suggest::nearest(name, known) {
            Some(near) => format!("did you mean `[{near}]`?"),
            None if table::is_section(name) => "put it into a unit of its type".into(),
            None => "begin the name with `X-` if it is meant for another program".into(),
        });
        findings.push(finding);
    }
    if unit.masked {
        return;
    }
    let runs = unit.assignments.iter().any(|line| line.key.starts_with("Exec"));
    for (at, found) in unit.assignments.iter().enumerate() {
        if taken_back(found, &unit.assignments[at + 1..]) {
            continue;
        }
        if found.key.starts_with("X-") || !has(&found.section) {
            continue;
        }
        match found.section.as_str() {
            // What Podman can do with it is up to Podman.
            "Container" | "Quadlet" if engine == Engine::Podman => {
                quadlet::is_known(found, findings);
            }
            "Container" | "Quadlet" => quadlet::check(found, findings),
            section => match table::find(section, &found.key) {
                Some(_) if !runs && table::is_of_commands(section, &found.key) => {
                    let why = "only matters to commands of the socket unit, and it has none";
                    classify(unit, found, Class::Harmless(why), findings);
                }
                Some((class, _)) => classify(unit, found, class, findings),
                None => unknown(found, findings),
            },
        }
    }
}

/// A later line, in a drop-in perhaps, empties the key or says "no".
fn taken_back(found: &Assignment, later: &[Assignment]) -> bool {
    let same = |line: &&Assignment| line.section == found.section && line.key == found.key;
    later.iter().filter(same).any(|line| is_off(&line.value.text))
}

/// Asks for nothing.
fn is_off(value: &str) -> bool {
    value.is_empty() || matches!(value::boolean(value), Ok(false))
}

fn classify(unit: &Definition, found: &Assignment, class: Class, findings: &mut Vec<Finding>) {
    let key = &found.key;
    let value = found.value.text.as_str();
    let off = is_off(value);
    match class {
        Class::Honoured => {}
        // Whoever wrote the unit of a package is not there to read the notes.
        Class::Harmless(_) if unit.place != Place::Folder => {}
        Class::Harmless(why) => {
            findings.push(Finding::note(found.key_span.clone(), format!("`{key}=` {why}")));
        }
        Class::Refused(_) if off || is_default(key, value) => {}
        Class::Refused(why) => {
            findings.push(
                Finding::error(found.key_span.clone(), format!("`{key}=` {why}"))
                    .label("refused")
                    .help(drop_in_hint(unit, found)),
            );
        }
    }
}

/// Values that ask for what happens anyway, beyond "no".
fn is_default(key: &str, value: &str) -> bool {
    match key {
        "FailureAction" | "SuccessAction" | "StartLimitAction" | "JobTimeoutAction" => {
            value == "none"
        }
        "JobTimeoutSec" | "JobRunningTimeoutSec" => value == "infinity",
        "DevicePolicy" => value == "auto",
        // Without such a policy in the kernel, systemd skips what begins so.
        "AppArmorProfile" | "SELinuxContext" | "SmackProcessLabel" => value.starts_with('-'),
        _ => false,
    }
}

/// How to do without a key: in the file itself, or beside one that a package brings.
fn drop_in_hint(unit: &Definition, found: &Assignment) -> String {
    let key = &found.key;
    if unit.place == Place::Folder {
        format!("take the line out if the appliance does well without `{key}=`")
    } else {
        format!(
            "empty it in a drop-in of the appliance, `{}.d/10-rouse.conf`, if it does well \
             without: `[{}]` and `{key}=`",
            unit.name, found.section
        )
    }
}

fn unknown(found: &Assignment, findings: &mut Vec<Finding>) {
    let section = &found.section;
    let help = if let Some(near) = table::nearest(section, &found.key) {
        format!("did you mean `{near}=`?")
    } else if let Some(other) = table::section_of(&found.key) {
        format!("`{}=` belongs into `[{other}]`", found.key)
    } else {
        "begin the key with `X-` if it is meant for another program".into()
    };
    let message = format!("`{}=` is unknown in `[{section}]`", shorten(&found.key));
    findings.push(Finding::warning(found.key_span.clone(), message).label("left out").help(help));
}
