//! The verbs that only read: check, cat, manifest.

use super::guest::{print, print_json};
use crate::appliance::Appliance;
use crate::command_line::{Arch, Cat, Check, Manifest};
use crate::exit::{BAD_INPUT, FAILED, Failure, print_findings};
use crate::finding::{Finding, Severity, forbids};
use crate::units::Compiled;
use serde_json::json;

/// Compiles without fetching anything, unless units from packages are enabled.
fn compile(appliance: &Appliance) -> Result<Compiled, Failure> {
    let arch = Arch::host().unwrap_or(Arch::X86_64);
    match appliance.needs_packages() {
        true => crate::build::compile(appliance, arch),
        false => Ok(crate::build::compile_early(appliance, arch)),
    }
}

/// `rouse check`
pub fn check(arguments: &Check) -> Result<(), Failure> {
    let appliance = match Appliance::open(&arguments.appliance) {
        Ok(appliance) => appliance,
        // The finding is data here.
        Err(failure) if arguments.short || arguments.json => {
            show(arguments, failure.as_findings())?;
            return Err(Failure::silent(failure.code()));
        }
        Err(failure) => return Err(failure),
    };
    let compiled = compile(&appliance)?;
    show(arguments, &compiled.findings)?;
    if forbids(&compiled.findings, appliance.strict) {
        return Err(Failure::silent(FAILED));
    }
    Ok(())
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
    let appliance = Appliance::open(&arguments.appliance)?;
    let compiled = compile(&appliance)?;
    let user = match &arguments.user {
        None => None,
        Some(user) => Some(the_user(&appliance, user)?),
    };
    match compiled.cat(user, &arguments.unit) {
        Some(text) => print(text),
        None if forbids(&compiled.findings, false) => {
            Err(Failure::findings(BAD_INPUT, compiled.findings))
        }
        None => {
            let names: Vec<_> = compiled.names(user).collect();
            let whose = user.map_or("the appliance".into(), |user| format!("user {user}"));
            Err(Failure::new(FAILED, format!("find {}", arguments.unit))
                .hint(format!("{whose} has {}", names.join(", "))))
        }
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
    let compiled = compile(&appliance)?;
    let compiled = appliance.accept(compiled)?;
    let manifest = appliance.manifest(&compiled);
    if arguments.json { print_json(&manifest) } else { print(&crate::units::describe(&manifest)) }
}
