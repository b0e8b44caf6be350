//! Relations between packages, as `Depends:` and its kin write them: deb-control(5), Debian Policy
//! chapter 7.

use super::version;
use std::cmp::Ordering;

/// How a version must compare.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Comparison {
    /// `<<`
    Earlier,
    /// `<=` (and the obsolete `<`)
    EarlierOrEqual,
    /// `=`
    Equal,
    /// `>=` (and the obsolete `>`)
    LaterOrEqual,
    /// `>>`
    Later,
}

/// One package that is named in a relation, with the versions that are meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Term<'a> {
    /// The package, without `:any`: within one architecture that changes nothing.
    pub name: &'a str,
    /// The versions; None is any.
    pub version: Option<(Comparison, &'a str)>,
}

impl<'a> Term<'a> {
    /// Any version of a package.
    pub fn any(name: &'a str) -> Self {
        Self { name, version: None }
    }

    /// Whether a version is meant.
    pub fn allows(&self, version: &str) -> bool {
        let Some((comparison, wanted)) = self.version else { return true };
        let order = version::compare(version, wanted);
        match comparison {
            Comparison::Earlier => order == Ordering::Less,
            Comparison::EarlierOrEqual => order != Ordering::Greater,
            Comparison::Equal => order == Ordering::Equal,
            Comparison::LaterOrEqual => order != Ordering::Less,
            Comparison::Later => order == Ordering::Greater,
        }
    }
}

impl std::fmt::Display for Term<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)?;
        let Some((comparison, version)) = self.version else { return Ok(()) };
        let sign = match comparison {
            Comparison::Earlier => "<<",
            Comparison::EarlierOrEqual => "<=",
            Comparison::Equal => "=",
            Comparison::LaterOrEqual => ">=",
            Comparison::Later => ">>",
        };
        write!(f, " ({sign} {version})")
    }
}

/// The groups of a field: each is a list of alternatives. What cannot be read is left out, since an
/// index is made by Debian's own tools, not by hand.
pub fn groups(field: &str) -> impl Iterator<Item = Vec<Term<'_>>> {
    field
        .split(',')
        .map(|group| group.split('|').filter_map(term).collect::<Vec<_>>())
        .filter(|group| !group.is_empty())
}

/// The terms of a field that has no alternatives: `Provides:`, `Conflicts:`, `Breaks:`.
pub fn terms(field: &str) -> impl Iterator<Item = Term<'_>> {
    field.split(',').filter_map(term)
}

fn term(text: &str) -> Option<Term<'_>> {
    let text = text.trim();
    let end = text.find([' ', '(', '[', '<']).unwrap_or(text.len());
    let (name, rest) = text.split_at(end);
    let name = name.split(':').next().filter(|name| !name.is_empty())?;
    let Some(inside) = rest.trim_start().strip_prefix('(') else { return Some(Term::any(name)) };
    let inside = inside.split(')').next()?.trim();
    let at = inside.find(|at| !matches!(at, '<' | '=' | '>'))?;
    let (sign, version) = inside.split_at(at);
    let comparison = match sign {
        "<<" => Comparison::Earlier,
        "<=" | "<" => Comparison::EarlierOrEqual,
        "=" => Comparison::Equal,
        ">=" | ">" => Comparison::LaterOrEqual,
        ">>" => Comparison::Later,
        _ => return None,
    };
    Some(Term { name, version: Some((comparison, version.trim())) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_reads_and_shows() {
        let field = "libc6 (>= 2.41), awk:any , a (<<1) | b(= 1:2-3)|c:amd64 (>> 4~), d [amd64]";
        let shown: Vec<String> = groups(field)
            .map(|group| group.iter().map(Term::to_string).collect::<Vec<_>>().join(" | "))
            .collect();
        assert_eq!(shown, ["libc6 (>= 2.41)", "awk", "a (<< 1) | b (= 1:2-3) | c (>> 4~)", "d"]);
        assert_eq!(groups("").count(), 0);
        assert_eq!(groups(" , ").count(), 0);
    }

    #[test]
    fn a_term_allows_what_it_says() {
        let allows = |text: &str, version: &str| term(text).unwrap().allows(version);
        assert!(allows("a", "1"));
        assert!(allows("a (<< 2)", "1") && !allows("a (<< 2)", "2"));
        assert!(allows("a (<= 2)", "2") && !allows("a (<= 2)", "2.1"));
        assert!(allows("a (= 2)", "2-0") && !allows("a (= 2)", "2-1"));
        assert!(allows("a (>= 2)", "2") && !allows("a (>= 2)", "2~rc1"));
        assert!(allows("a (>> 2)", "2+b1") && !allows("a (>> 2)", "2"));
    }
}
