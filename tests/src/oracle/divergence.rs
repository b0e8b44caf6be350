//! The table of the differences from systemd that are meant: `activator/DIVERGENCES.md`.

use super::compare::Difference;

/// One row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Divergence {
    /// A short name, once in the table.
    pub id: String,
    /// Cases; `*` stands for any text here and in the next three.
    pub case: String,
    /// Fields of what was seen.
    pub field: String,
    /// systemd's value; `absent` if it has none; `random` if it is another in every run, so that
    /// the row may name no difference now and then.
    pub systemd: String,
    /// Ours.
    pub rouse: String,
    /// The reason.
    pub why: String,
    /// Which table it stands in.
    pub kind: Kind,
}

/// What a row is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A difference that is meant. Without one, the row fails the test.
    Meant,
    /// Something that is still to be done. Once it is, the row is only reported, so that nobody
    /// who does it has to know the table.
    Gap,
}

impl Divergence {
    /// Whether systemd's value is another in every run.
    pub fn is_random(&self) -> bool {
        self.systemd == "random"
    }

    /// Whether the row is about this difference.
    pub fn names(&self, difference: &Difference) -> bool {
        fits(&self.case, &difference.case)
            && fits(&self.field, &difference.field)
            && (self.is_random() || fits(&self.systemd, &difference.systemd))
            && fits(&self.rouse, &difference.rouse)
    }
}

/// The rows of all tables with the six columns `id`, `cases`, `field`, `systemd` (or `podman`),
/// `rouse` and `why` or `gap`.
/// Values stand in backquotes. A row that is not so, or an id that is there twice, ends the test.
pub fn parse(text: &str) -> Vec<Divergence> {
    let mut rows: Vec<Divergence> = vec![];
    let mut inside = None;
    for line in text.lines() {
        let Some(line) = line.strip_prefix('|').and_then(|line| line.trim_end().strip_suffix('|'))
        else {
            inside = None;
            continue;
        };
        let cells: Vec<&str> = line.split(" | ").map(str::trim).collect();
        if let ["id", "cases", "field", "systemd" | "podman", "rouse", last] = cells[..] {
            inside = Some(if last == "gap" { Kind::Gap } else { Kind::Meant });
        } else if let Some(kind) = inside.filter(|_| !line.starts_with("---")) {
            let [id, case, field, systemd, rouse, why] = cells[..] else {
                panic!("not six columns: {line}")
            };
            let bare = |cell: &str| cell.trim_matches('`').to_owned();
            assert!(rows.iter().all(|row| row.id != id), "twice: {id}");
            assert!(!why.is_empty(), "no reason: {id}");
            rows.push(Divergence {
                id: id.into(),
                case: bare(case),
                field: bare(field),
                systemd: bare(systemd),
                rouse: bare(rouse),
                why: why.into(),
                kind,
            });
        }
    }
    rows
}

/// Whether a text fits a pattern in which `*` is any text.
fn fits(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = text.strip_prefix(first) else { return false };
    let mut parts = parts.peekable();
    if parts.peek().is_none() {
        return rest.is_empty();
    }
    while let Some(part) = parts.next() {
        if parts.peek().is_none() {
            return rest.ends_with(part);
        }
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stars_are_any_text() {
        for (pattern, text, expected) in [
            ("*", "", true),
            ("a", "a", true),
            ("a", "ab", false),
            ("a*", "ab", true),
            ("*b", "ab", true),
            ("a*c*e", "abcde", true),
            ("a*c*e", "abde", false),
            ("*.env.PATH", "main.0.env.PATH", true),
        ] {
            assert_eq!(fits(pattern, text), expected, "{pattern} {text}");
        }
    }
}
