//! What a `.build` tells its builder besides, as options of podman-build(1). Buildah has the same.

use super::build::{of_podman, text};
use crate::finding::Finding;
use crate::units::definition::Definition;
use crate::units::quoting::{self, Escapes};
use crate::units::syntax::Assignment;

/// How the lines of a key become values of its option.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// The last of them.
    Last,
    /// All since the last empty one.
    Each,
    /// The words of these.
    Words,
}

/// Each key and its option, as Podman's generator has them.
const OPTIONS: [(&str, &str, Kind); 13] = [
    ("BuildArg", "--build-arg", Kind::Words),
    ("DNS", "--dns", Kind::Each),
    ("DNSOption", "--dns-option", Kind::Each),
    ("DNSSearch", "--dns-search", Kind::Each),
    ("Environment", "--env", Kind::Words),
    ("GroupAdd", "--group-add", Kind::Each),
    ("IgnoreFile", "--ignorefile", Kind::Last),
    ("Label", "--label", Kind::Words),
    ("Network", "--network", Kind::Each),
    ("Secret", "--secret", Kind::Words),
    ("Target", "--target", Kind::Last),
    ("Volume", "--volume", Kind::Each),
    // As they are; at the end, so that they can say otherwise.
    ("PodmanArgs", "", Kind::Words),
];

pub(super) fn keys() -> impl Iterator<Item = &'static str> {
    OPTIONS.iter().map(|(key, _, _)| *key)
}

/// All of a file; one finding if there is one.
pub(super) fn of(unit: &Definition) -> Result<Vec<String>, Finding> {
    let mut options = vec![];
    for (key, option, kind) in OPTIONS {
        for line in lines(unit, key, kind) {
            for value in values(line, kind)? {
                options.push(if option.is_empty() { value } else { format!("{option}={value}") });
            }
        }
    }
    Ok(options)
}

fn lines<'u>(unit: &'u Definition, key: &str, kind: Kind) -> Vec<&'u Assignment> {
    let all: Vec<_> = unit.all("Build", key).collect();
    let empty = all.iter().rposition(|line| text(line).is_empty());
    let last = all.len().saturating_sub(1);
    let first = empty.map_or(0, |index| index + 1);
    all[if kind == Kind::Last { first.max(last) } else { first }..].to_vec()
}

fn values(line: &Assignment, kind: Kind) -> Result<Vec<String>, Finding> {
    let value = text(line);
    if value.contains(['%', '$']) {
        return Err(of_podman(line, "expected a value without specifiers and variables"));
    }
    let of_other_files = match line.key.as_str() {
        "Network" => [".network", ".container"].iter().any(|end| value.contains(end)),
        "Volume" => !value.starts_with('/'),
        _ => false,
    };
    if of_other_files {
        return Err(of_podman(line, "expected what this machine has"));
    }
    if kind != Kind::Words {
        return Ok(vec![value.to_owned()]);
    }
    let split = quoting::split(&line.value.text, Escapes::Decode);
    if !split.unknown.is_empty() {
        return Err(Finding::error(
            line.value.span(),
            format!("`{}=` has an escape that does not exist", line.key),
        )
        .label("unknown escape")
        .help("write `\\\\` for a backslash"));
    }
    Ok(split.words.into_iter().map(|word| word.text).collect())
}
