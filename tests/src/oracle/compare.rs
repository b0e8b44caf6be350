//! What two sides saw, side by side.

use super::divergence::Divergence;
use serde_json::Value;
use std::collections::BTreeMap;

/// One value that is not the same on both sides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// The case.
    pub case: String,
    /// Where in what was seen: `main.0.environment.PATH`.
    pub field: String,
    /// `absent` if there is no such field.
    pub systemd: String,
    /// The same of ours.
    pub rouse: String,
}

impl std::fmt::Display for Difference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} | {} | {} | {}", self.case, self.field, self.systemd, self.rouse)
    }
}

/// What a side saw: value by field.
type Fields = BTreeMap<String, String>;

/// All differences, by case and field.
pub fn differences(
    systemd: &BTreeMap<String, Value>,
    rouse: &BTreeMap<String, Value>,
) -> Vec<Difference> {
    let mut found = vec![];
    for (case, theirs) in systemd {
        let theirs = flat(theirs);
        let ours = rouse.get(case).map(flat).unwrap_or_default();
        let mut fields: Vec<&String> = theirs.keys().chain(ours.keys()).collect();
        fields.sort();
        fields.dedup();
        for field in fields {
            let value = |side: &Fields| side.get(field).cloned().unwrap_or_else(|| "absent".into());
            let (systemd, rouse) = (value(&theirs), value(&ours));
            if systemd != rouse {
                found.push(Difference { case: case.clone(), field: field.clone(), systemd, rouse });
            }
        }
    }
    found
}

fn flat(seen: &Value) -> Fields {
    let mut fields = Fields::new();
    walk(String::new(), seen, &mut fields);
    fields
}

/// A report that one side lacks is one difference, not a hundred: its fields are not walked.
fn walk(path: String, value: &Value, fields: &mut Fields) {
    let below = |name: &str| if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
    match value {
        Value::Object(map) => map.iter().for_each(|(name, value)| {
            walk(if name == "reports" { String::new() } else { below(name) }, value, fields);
        }),
        Value::Array(list) => {
            list.iter().enumerate().for_each(|(index, it)| walk(below(&index.to_string()), it, fields));
        }
        Value::Null => {}
        Value::String(text) => drop(fields.insert(path, text.clone())),
        other => drop(fields.insert(path, other.to_string())),
    }
}

/// What the table of divergences does not explain, and the rows that explain nothing any more.
pub struct Verdict<'a> {
    /// Differences that no row names.
    pub unexpected: Vec<Difference>,
    /// Rows that name no difference.
    pub stale: Vec<&'a Divergence>,
    /// How many differences the rows explain.
    pub explained: usize,
}

/// Holds the differences against the table.
pub fn judge(differences: Vec<Difference>, table: &[Divergence]) -> Verdict<'_> {
    let mut used = vec![false; table.len()];
    let (mut unexpected, mut explained) = (vec![], 0);
    for difference in differences {
        let mut named = false;
        for (index, row) in table.iter().enumerate() {
            if row.names(&difference) {
                used[index] = true;
                named = true;
            }
        }
        match named {
            true => explained += 1,
            false => unexpected.push(difference),
        }
    }
    let stale = table.iter().zip(used).filter(|(_, used)| !used).map(|(row, _)| row).collect();
    Verdict { unexpected, stale, explained }
}
