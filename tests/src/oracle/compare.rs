//! What two sides saw, side by side.

use super::case::Case;
use super::divergence::Divergence;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

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
        let mut add = |field: &str, systemd: &str, rouse: &str| {
            let [case, field, systemd, rouse] =
                [case.as_str(), field, systemd, rouse].map(str::to_owned);
            found.push(Difference { case, field, systemd, rouse });
        };
        let ours = rouse.get(case).unwrap_or(&Value::Null);
        if let Some(errors) = ours["refused"].as_str() {
            add("refused", "absent", errors);
            continue;
        }
        let (mut theirs, mut ours) = (flat(theirs), flat(ours));
        // A report that the other side lacks is one difference, not a hundred.
        let (of_theirs, of_ours) = (reports(&theirs), reports(&ours));
        for report in of_theirs.difference(&of_ours) {
            add(report, "reported", "absent");
            theirs.retain(|field, _| !field.starts_with(&format!("{report}.")));
        }
        for report in of_ours.difference(&of_theirs) {
            add(report, "absent", "reported");
            ours.retain(|field, _| !field.starts_with(&format!("{report}.")));
        }
        let mut fields: Vec<&String> = theirs.keys().chain(ours.keys()).collect();
        fields.sort();
        fields.dedup();
        for field in fields {
            let value = |side: &Fields| side.get(field).cloned().unwrap_or_else(|| "absent".into());
            let (systemd, rouse) = (value(&theirs), value(&ours));
            if systemd != rouse {
                add(field, &systemd, &rouse);
            }
        }
    }
    found
}

/// The reports in what a side saw: `main.0`.
fn reports(side: &Fields) -> BTreeSet<String> {
    let fields = side.keys().filter(|field| !field.starts_with("steps.") && *field != "order");
    let report = |field: &String| {
        let index = field.match_indices('.').find_map(|(at, _)| {
            let rest = &field[at + 1..];
            let end = rest.find('.').unwrap_or(rest.len());
            rest[..end].bytes().all(|byte| byte.is_ascii_digit()).then_some(at + 1 + end)
        });
        index.map(|end| field[..end].to_owned())
    };
    fields.filter_map(report).collect()
}

fn flat(seen: &Value) -> Fields {
    let mut fields = Fields::new();
    walk(String::new(), seen, &mut fields);
    fields
}

fn walk(path: String, value: &Value, fields: &mut Fields) {
    let below =
        |name: &str| if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
    match value {
        // So that one that says nothing is seen as well.
        Value::Object(map) if map.is_empty() && !path.is_empty() => {
            drop(fields.insert(below("reported"), "yes".into()))
        }
        Value::Object(map) => map.iter().for_each(|(name, value)| {
            walk(if name == "reports" { String::new() } else { below(name) }, value, fields);
        }),
        Value::Array(list) => {
            list.iter()
                .enumerate()
                .for_each(|(index, it)| walk(below(&index.to_string()), it, fields));
        }
        Value::Null => {}
        Value::String(text) => drop(fields.insert(path, text.clone())),
        other => drop(fields.insert(path, other.to_string())),
    }
}

/// Cases of which a side saw nothing, or no process although they wait for one: two sides that see
/// nothing do not differ.
pub fn silent<'a>(cases: &'a [Case], seen: &BTreeMap<String, Value>) -> Vec<&'a str> {
    let is_silent = |case: &&Case| {
        let seen = seen.get(&case.name).unwrap_or(&Value::Null);
        let reports = seen["reports"].as_object().is_some_and(|reports| !reports.is_empty());
        let steps = seen["steps"].as_array().is_some_and(|steps| !steps.is_empty());
        let waits = case.steps.iter().any(|step| step.starts_with("wait "));
        !reports && (waits || !steps)
    };
    cases.iter().filter(is_silent).map(|case| case.name.as_str()).collect()
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
    let stale = table.iter().zip(used).filter(|(row, used)| !used && !row.is_random());
    let stale = stale.map(|(row, _)| row).collect();
    Verdict { unexpected, stale, explained }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_case_of_which_nothing_was_seen_is_silent() {
        let text = "=== a\n--- do\nwait main\n=== b\n--- do\nlook /b\n=== c\n--- do\nwait main\n";
        let cases = crate::oracle::case::parse("group", text, 0);
        let seen = |a, b, c| silent(&cases, &BTreeMap::from([a, b, c])).join(" ");
        let of = |case: &str, reports, steps| {
            (case.to_owned(), json!({ "reports": reports, "steps": steps, "order": "" }))
        };
        let (none, some) = (json!({}), json!({ "main": [{}] }));
        let all = seen(
            of("a", some.clone(), json!([])),
            of("b", none.clone(), json!(["look /b: directory"])),
            of("c", some, json!(["wait main: never"])),
        );
        assert_eq!(all, "");
        let few = seen(
            of("a", none.clone(), json!(["wait main: never"])),
            of("b", none, json!([])),
            ("d".to_owned(), Value::Null),
        );
        assert_eq!(few, "a b c");
    }
}
