//! Which services the Quadlet files become.

use crate::config::Engine;
use crate::finding::{Finding, Span};
use crate::units::Input;
use crate::units::definition::Definition;
use crate::units::files::{Files, Place};
use crate::units::name::Name;
use crate::units::podman::resources::section;
use crate::units::quadlet::{build, image, resource};
use crate::units::syntax::{self, Dialect};
use std::collections::BTreeMap;

/// Types that a `.container` of engine crun may name, and that become no service.
const CHECKED: [&str; 3] = [".volume", ".image", ".build"];

/// Every `.container` and the service that it becomes. Other types are refused, or Podman's.
pub(super) fn services(
    files: &Files,
    input: &Input<'_>,
    findings: &mut Vec<Finding>,
) -> BTreeMap<Name, String> {
    let engine = input.config.engine;
    let mut services = BTreeMap::new();
    for (file, entry) in &files.quadlets {
        let Some(stem) = file.strip_suffix(".container") else {
            if engine == Engine::Crun && CHECKED.iter().any(|it| file.ends_with(it)) {
                if entry.place == Place::Folder {
                    let unit = Definition::quadlet_file(file, entry, files, findings);
                    check(file, &unit, input, findings);
                }
                continue;
            }
            let is_built = engine == Engine::Podman && section(file).is_some();
            if entry.place == Place::Folder && !is_built {
                let help = match section(file) {
                    Some(_) => "set `engine = \"podman\"` in appliance.toml, or move the file away",
                    None => "the packaged Podman does not know it; move the file away",
                };
                let message = format!("`{file}` is of a type that the engine does not build");
                findings.push(
                    Finding::error(Span::file(&entry.source), message).label("refused").help(help),
                );
            }
            continue;
        };
        let parsed = syntax::parse(&entry.source, Dialect::Quadlet, &mut vec![]);
        let named = parsed.assignments.iter().rfind(|line| {
            line.section == "Container" && line.key == "ServiceName" && !line.value.text.is_empty()
        });
        let stem = named.map_or(stem, |line| line.value.text.as_str());
        match Name::parse(&format!("{stem}.service")) {
            Some(name) => {
                services.insert(name, file.clone());
            }
            None => {
                let span =
                    named.map_or_else(|| Span::file(&entry.source), |line| line.value.span());
                findings.push(
                    Finding::error(span, format!("`{stem}.service` is no valid name of a unit"))
                        .label("expected letters, digits and `:-_.\\@`")
                        .help("rename the file, or set `ServiceName=`"),
                );
            }
        }
    }
    services
}

/// Findings about a file that a `.container` of engine crun may name.
fn check(file: &str, unit: &Definition, input: &Input<'_>, findings: &mut Vec<Finding>) {
    match section(file) {
        Some("Image") => image::check_image(unit, input.config, input.architecture, findings),
        Some("Build") => {
            build::check(unit, input.config, input.architecture, input.folder, findings);
        }
        _ => resource::check_volume(unit, findings),
    }
}
