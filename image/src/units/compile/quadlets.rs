//! Which services the Quadlet files become.

use crate::finding::{Finding, Span};
use crate::units::files::{Files, Place};
use crate::units::name::Name;
use crate::units::syntax::{self, Dialect};
use std::collections::BTreeMap;

/// Every `.container` and the service that it becomes; other types are refused.
pub(super) fn services(files: &Files, findings: &mut Vec<Finding>) -> BTreeMap<Name, String> {
    let mut services = BTreeMap::new();
    for (file, entry) in &files.quadlets {
        let Some(stem) = file.strip_suffix(".container") else {
            if entry.place == Place::Folder {
                let message = format!("`{file}` is of a type that this version does not build");
                findings.push(
                    Finding::error(Span::file(&entry.source), message)
                        .label("refused")
                        .help("only `.container` files are built; move this file away"),
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
