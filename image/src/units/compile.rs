//! Which units there are, and the way of each through the compiler.
//!
//! All units of the appliance's folder are compiled. A unit that a package brings is compiled
//! when appliance.toml enables it, or when a compiled unit names it.

use super::definition::Definition;
use super::files::{Entry, Files, Place};
use super::name::{Kind, Name};
use super::{Compiled, Facts, cat, check};
use crate::finding::{Finding, Span};
use std::collections::BTreeMap;

pub(super) fn run(facts: &Facts<'_>, compiled: &mut Compiled) {
    let files = Files::read(facts.input.folder, facts.input.packaged, &mut compiled.findings);
    let quadlets = services_of_quadlets(&files, &mut compiled.findings);
    let mut wanted: Vec<Name> = roots(&files, &quadlets);
    let mut done: BTreeMap<Name, Definition> = BTreeMap::new();
    while let Some(name) = wanted.pop() {
        if done.contains_key(&name) {
            continue;
        }
        let Some(unit) = load(&name, &files, &quadlets, &mut compiled.findings) else { continue };
        check::keys(&unit, &mut compiled.findings);
        compiled.texts.insert(name.to_string(), cat::files(&unit));
        done.insert(name, unit);
    }
}

/// Service name to the Quadlet file that becomes it.
type Quadlets = BTreeMap<Name, String>;

fn services_of_quadlets(files: &Files, findings: &mut Vec<Finding>) -> Quadlets {
    let mut services = Quadlets::new();
    for (file, entry) in &files.quadlets {
        let Some(stem) = file.strip_suffix(".container") else {
            if entry.place == Place::Folder {
                findings.push(
                    Finding::error(
                        Span::file(&entry.source),
                        format!("`{file}` is of a type that this version does not build"),
                    )
                    .help("only `.container` files are built, by the engine crun"),
                );
            }
            continue;
        };
        if let Some(name) = Name::parse(&format!("{stem}.service")) {
            services.insert(name, file.clone());
        }
    }
    services
}

fn roots(files: &Files, quadlets: &Quadlets) -> Vec<Name> {
    let in_folder = |entry: &Entry| entry.place == Place::Folder;
    let units = files.units.iter().filter(|(_, entry)| in_folder(entry));
    let units = units.filter_map(|(name, _)| Name::parse(name));
    let quadlets =
        quadlets.iter().filter(|(_, file)| files.quadlets.get(*file).is_some_and(in_folder));
    let mut roots: Vec<Name> = units.chain(quadlets.map(|(name, _)| name.clone())).collect();
    roots.retain(|name| !name.is_template() && !matches!(name.kind(), Kind::Other(_)));
    roots.sort_by(|a, b| b.cmp(a));
    roots
}

fn load(
    name: &Name,
    files: &Files,
    quadlets: &Quadlets,
    findings: &mut Vec<Finding>,
) -> Option<Definition> {
    if let Some(file) = quadlets.get(name) {
        let entry = files.quadlets.get(file)?;
        return Some(Definition::quadlet(name, file, entry, files, findings));
    }
    let entry = files.unit(name)?;
    Some(Definition::unit(name, entry, files, findings))
}
