//! The verbs that only read: check, cat, manifest.

use super::guest::{full_name, print, print_json};
use crate::appliance::Appliance;
use crate::command_line::{self, Arch, Cat, Check, Manifest};
use crate::exit::{BAD_INPUT, FAILED, Failure, print_findings};
use crate::finding::{Finding, Severity, forbids};
use crate::terminal;
use crate::units::Compiled;
use crate::units::suggest::nearest_unit;
use serde_json::json;

/// Compiles for an architecture, or the host's; without fetching anything, unless units from
/// packages are enabled.
fn compile(appliance: &Appliance, asked: Option<Arch>) -> Result<Compiled, Failure> {
    let arch = Arch::or_host(asked).unwrap_or(Arch::X86_64);
    match appliance.needs_packages() {
        true => crate::build::compile(appliance, arch),
        false => Ok(crate::build::compile_early(appliance, arch)),
    }
}

/// `rouse check`
pub fn check(arguments: &Check) -> Result<(), Failure> {
    let opened = Appliance::open(&arguments.appliance);
    let both = opened.and_then(|it| compile(&it, arguments.arch).map(|all| (it, all)));
    let (appliance, compiled) = match both {
        Ok(both) => both,
        Err(failure) if failure.as_findings().is_empty() => return Err(failure),
        // The findings are data here.
        Err(failure) => {
            show(arguments, failure.as_findings())?;
            // Where there is no appliance, nothing was checked.
            let is_checked = failure.as_findings().iter().all(|finding| finding.span.is_some());
            return Err(Failure::silent(if is_checked { FAILED } else { failure.code() }));
        }
    };
    show(arguments, &compiled.findings)?;
    if forbids(&compiled.findings, appliance.strict) {
        return Err(Failure::silent(FAILED));
    }
    let is_talk = !arguments.json && !arguments.short;
    if is_talk && !forbids(&compiled.findings, true) {
        terminal::note(format!("{} is sound: {}", appliance.folder.display(), count(&compiled)));
    }
    Ok(())
}

/// How many units of each type there are, `2 sockets, 1 service`.
fn count(compiled: &Compiled) -> String {
    let of = |word: &str| {
        let suffix = format!(".{word}");
        match compiled.units.iter().filter(|unit| unit.name.ends_with(&suffix)).count() {
            0 => None,
            1 => Some(format!("1 {word}")),
            number => Some(format!("{number} {word}s")),
        }
    };
    let counts: Vec<String> = ["socket", "service", "target"].into_iter().filter_map(of).collect();
    if counts.is_empty() { "no units".into() } else { counts.join(", ") }
}

fn show(arguments: &Check, findings: &[Finding]) -> Result<(), Failure> {
    if arguments.json {
        let all: Vec<_> = findings.iter().map(as_json).collect();
        return print_json(&all);
    }
    if arguments.short {
        let lines: String = findings.iter().map(|finding| finding.one_line() + "\n").collect();
        return print(&lines);
    }
    print_findings(findings);
    Ok(())
}

fn as_json(finding: &Finding) -> serde_json::Value {
    let place = finding.span.as_ref().map(|span| {
        let (line, column) = span.line_column();
        (span.source.path.clone(), line, column)
    });
    json!({
        "severity": match finding.severity {
            Severity::Note => "note",
            Severity::Warning => "warning",
            Severity::Error => "error",
        },
        "file": place.as_ref().map(|place| &place.0),
        "line": place.as_ref().map(|place| place.1),
        "column": place.as_ref().map(|place| place.2),
        "message": finding.message,
        "expected": finding.label,
        "help": finding.help,
    })
}

/// `rouse cat`
pub fn cat(arguments: &Cat) -> Result<(), Failure> {
    let folder =
        command_line::Appliance { folder: arguments.folder.clone(), strict: arguments.strict };
    let appliance = Appliance::open(&folder)?;
    let compiled = compile(&appliance, arguments.arch)?;
    let user = match &arguments.user {
        None => None,
        Some(user) => Some(the_user(&appliance, user)?),
    };
    let name = full_name(&arguments.unit);
    match compiled.cat(user, &name) {
        Some(text) => print(text),
        None if forbids(&compiled.findings, false) => {
            Err(Failure::findings(BAD_INPUT, compiled.findings))
        }
        None => {
            let names: Vec<_> = compiled.names(user).collect();
            Err(Failure::new(FAILED, format!("find {name}")).hint(instead_of(&name, user, &names)))
        }
    }
}

/// What may be meant by a name that no unit has.
fn instead_of(name: &str, user: Option<&str>, names: &[&str]) -> String {
    // A Quadlet is known by its service.
    let made = name.strip_suffix(".container").map(|stem| format!("{stem}.service"));
    if let Some(made) = made.filter(|made| names.contains(&made.as_str())) {
        return format!("{name} becomes {made}");
    }
    if let Some(near) = nearest_unit(name, names.iter().copied()) {
        return format!("did you mean {near}?");
    }
    match user {
        None => format!("the appliance has {}", names.join(", ")),
        Some(user) => format!("user {user} has {}", names.join(", ")),
    }
}

/// The user that is meant: by name, or the only one.
fn the_user<'a>(appliance: &'a Appliance, name: &str) -> Result<&'a str, Failure> {
    let users = &appliance.config.users;
    let failed = |hint: String| Failure::new(FAILED, "find the user").hint(hint);
    let names = || users.iter().map(|user| user.name.as_str()).collect::<Vec<_>>().join(", ");
    match (users.as_slice(), name) {
        ([], _) => Err(failed("`[[user]]` in appliance.toml makes one".into())),
        ([user], "") => Ok(&user.name),
        (_, "") => Err(failed(format!("say which with --user NAME: {}", names()))),
        (users, name) => match users.iter().find(|user| user.name == name) {
            Some(user) => Ok(&user.name),
            None => Err(failed(format!("the appliance has {}", names()))),
        },
    }
}

/// `rouse manifest`
pub fn manifest(arguments: &Manifest) -> Result<(), Failure> {
    let appliance = Appliance::open(&arguments.appliance)?;
    let compiled = compile(&appliance, arguments.arch)?;
    let compiled = appliance.accept(compiled)?;
    let manifest = appliance.manifest(&compiled);
    if arguments.json { print_json(&manifest) } else { print(&crate::units::describe(&manifest)) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;

    #[test]
    fn conditions_are_judged_for_the_guest_that_is_asked_for() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text);
        write(config::FILE, "name = \"a\"\n").unwrap();
        let unit = "[Unit]\nConditionArchitecture=arm64\n[Service]\nExecStart=/a\n";
        write("a.service", unit).unwrap();
        let arguments = command_line::Appliance { folder: folder.path().into(), strict: false };
        let appliance = Appliance::open(&arguments).unwrap();
        let is_false = |arch| {
            let findings = compile(&appliance, Some(arch)).unwrap().findings;
            findings.iter().any(|finding| finding.message.contains("ConditionArchitecture"))
        };
        assert_eq!([Arch::X86_64, Arch::Aarch64].map(is_false), [true, false]);
    }
}
