//! `[Unit]` and `[Install]`, systemd.unit(5): what a unit has to do with others.

use super::condition;
use super::keys::Keys;
use super::name::Name;
use super::value::Expected;
use crate::finding::Span;

/// A unit that another names, and where.
#[derive(Debug, Clone)]
pub(crate) struct Reference {
    pub(crate) name: Name,
    pub(crate) span: Span,
    /// `Requires`
    pub(crate) key: &'static str,
}

/// `[Unit]`
#[derive(Debug)]
pub(crate) struct UnitSection {
    pub(crate) description: String,
    /// `Requires=` and `BindsTo=`.
    pub(crate) requires: Vec<Reference>,
    pub(crate) wants: Vec<Reference>,
    pub(crate) after: Vec<Reference>,
    pub(crate) before: Vec<Reference>,
    pub(crate) conflicts: Vec<Reference>,
    pub(crate) part_of: Vec<Reference>,
    /// All conditions hold in every guest of this image.
    pub(crate) starts_here: bool,
}

/// `[Install]`
#[derive(Debug)]
pub(crate) struct Install {
    pub(crate) wanted_by: Vec<Reference>,
    pub(crate) required_by: Vec<Reference>,
    pub(crate) also: Vec<Reference>,
    pub(crate) alias: Vec<Reference>,
    pub(crate) default_instance: Option<String>,
}

/// Reads `[Unit]`.
pub(crate) fn read(keys: &mut Keys<'_>) -> UnitSection {
    let starts_here = condition::hold(keys);
    let name = keys.unit.name.to_string();
    let mut references = |key| references(keys, "Unit", key);
    let mut requires = references("Requires");
    requires.extend(references("BindsTo"));
    UnitSection {
        requires,
        wants: references("Wants"),
        after: references("After"),
        before: references("Before"),
        conflicts: references("Conflicts"),
        part_of: references("PartOf"),
        description: keys.text("Unit", "Description").map_or(name, |text| text.text),
        starts_here,
    }
}

/// Reads `[Install]`.
pub(crate) fn read_install(keys: &mut Keys<'_>) -> Install {
    let default_instance = keys.text("Install", "DefaultInstance").and_then(|text| {
        let name = format!("x@{}.service", text.text);
        if Name::parse(&name).is_some_and(|name| !name.is_template()) {
            return Some(text.text);
        }
        keys.bad(text.assignment, &Expected::Other("what stands between `@` and the type"));
        None
    });
    let mut references = |key| references(keys, "Install", key);
    Install {
        wanted_by: references("WantedBy"),
        required_by: references("RequiredBy"),
        also: references("Also"),
        alias: references("Alias"),
        default_instance,
    }
}

fn references(keys: &mut Keys<'_>, section: &str, key: &'static str) -> Vec<Reference> {
    let names = keys.names(section, key);
    names.into_iter().map(|(name, span)| Reference { name, span, key }).collect()
}
