//! `[Unit]` and `[Install]`, systemd.unit(5): what a unit has to do with others.

use super::condition::{self, Conditions};
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

/// What one unit is to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Relation {
    Requires,
    Requisite,
    Wants,
    BindsTo,
    PartOf,
    Upholds,
    After,
    Before,
    Conflicts,
    OnFailure,
    OnSuccess,
    PropagatesReloadTo,
    ReloadPropagatedFrom,
    PropagatesStopTo,
    StopPropagatedFrom,
    JoinsNamespaceOf,
}

/// Every key of `[Unit]` that names units; two have an older spelling.
const RELATIONS: [(&str, Relation); 18] = [
    ("Requires", Relation::Requires),
    ("Requisite", Relation::Requisite),
    ("Wants", Relation::Wants),
    ("BindsTo", Relation::BindsTo),
    ("PartOf", Relation::PartOf),
    ("Upholds", Relation::Upholds),
    ("After", Relation::After),
    ("Before", Relation::Before),
    ("Conflicts", Relation::Conflicts),
    ("OnFailure", Relation::OnFailure),
    ("OnSuccess", Relation::OnSuccess),
    ("PropagatesReloadTo", Relation::PropagatesReloadTo),
    ("PropagateReloadTo", Relation::PropagatesReloadTo),
    ("ReloadPropagatedFrom", Relation::ReloadPropagatedFrom),
    ("PropagateReloadFrom", Relation::ReloadPropagatedFrom),
    ("PropagatesStopTo", Relation::PropagatesStopTo),
    ("StopPropagatedFrom", Relation::StopPropagatedFrom),
    ("JoinsNamespaceOf", Relation::JoinsNamespaceOf),
];

impl Relation {
    /// Whether the other unit may be started because of this one, and so has to be compiled.
    pub(crate) fn pulls_in(self) -> bool {
        use Relation::*;
        matches!(self, Requires | Requisite | Wants | BindsTo | Upholds | OnFailure | OnSuccess)
    }
}

/// `[Unit]`
#[derive(Debug)]
pub(crate) struct UnitSection {
    pub(crate) description: String,
    pub(crate) relations: Vec<(Relation, Reference)>,
    pub(crate) default_dependencies: bool,
    pub(crate) stop_when_unneeded: bool,
    pub(crate) conditions: Conditions,
    /// `PrivateTmp=disconnected`, for `JoinsNamespaceOf=`.
    pub(crate) disconnected_tmp: bool,
}

/// `[Install]`
#[derive(Debug)]
pub(crate) struct Install {
    /// `WantedBy=`, `RequiredBy=`, `UpheldBy=`: what this unit is to the others.
    pub(crate) wanted_by: Vec<(Relation, Reference)>,
    pub(crate) also: Vec<Reference>,
    pub(crate) alias: Vec<Reference>,
    pub(crate) default_instance: Option<String>,
}

/// Reads `[Unit]`.
pub(crate) fn read(keys: &mut Keys<'_>) -> UnitSection {
    let conditions = condition::read(keys);
    let name = keys.unit.name.to_string();
    let mut relations = vec![];
    for (key, relation) in RELATIONS {
        let named = references(keys, "Unit", key);
        relations.extend(named.into_iter().map(|reference| (relation, reference)));
    }
    let tmp = keys.unit.all("Service", "PrivateTmp").last();
    UnitSection {
        disconnected_tmp: tmp.is_some_and(|it| it.value.text == "disconnected"),
        relations,
        default_dependencies: keys.boolean("Unit", "DefaultDependencies").unwrap_or(true),
        stop_when_unneeded: keys.boolean("Unit", "StopWhenUnneeded").unwrap_or(false),
        description: keys.text("Unit", "Description").map_or(name, |text| text.text),
        conditions,
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
    let mut wanted_by = vec![];
    for (key, relation) in [
        ("WantedBy", Relation::Wants),
        ("RequiredBy", Relation::Requires),
        ("UpheldBy", Relation::Upholds),
    ] {
        let named = references(keys, "Install", key);
        wanted_by.extend(named.into_iter().map(|reference| (relation, reference)));
    }
    let mut references = |key| references(keys, "Install", key);
    Install { wanted_by, also: references("Also"), alias: references("Alias"), default_instance }
}

fn references(keys: &mut Keys<'_>, section: &str, key: &'static str) -> Vec<Reference> {
    let names = keys.names(section, key);
    names.into_iter().map(|(name, span)| Reference { name, span, key }).collect()
}
