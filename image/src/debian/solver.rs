//! Chooses packages: the closure of what was asked for under Depends and Pre-Depends.
//!
//! Simple on purpose, and the same for the same index: of a package the highest version that fits;
//! of alternatives the first that can be had; of the providers of a virtual package the one with
//! the highest priority, then the first by name. Relations with one way out are followed before those
//! with several, so that what is chosen anyway settles the alternatives. Nothing is ever taken
//! back: where that leads into a contradiction, an error says which, and naming one of the
//! alternatives in `packages` decides it. Recommends are not followed, and essential packages are
//! not taken for granted: an appliance has what it names.

use super::index::{Index, Record};
use super::package::Package;
use super::relation::{Term, groups, terms};
use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap, VecDeque};

/// Why packages do not go together.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Something that was asked for is in no index.
    #[error("find package {name}")]
    Unknown {
        /// Its name.
        name: String,
    },
    /// A virtual package was asked for, and several packages provide it.
    #[error("choose package {name}: it is provided by {}", .providers.join(", "))]
    Virtual {
        /// Its name.
        name: String,
        /// Who provides it.
        providers: Vec<String>,
    },
    /// Nothing satisfies a dependency.
    #[error("choose packages: {package} depends on {wanted}, {why}")]
    Unsatisfied {
        /// The package, with its version.
        package: String,
        /// The relation.
        wanted: String,
        /// What there is instead.
        why: String,
    },
    /// Two packages that are both needed exclude each other.
    #[error("choose packages: {package} conflicts with {other} ({term})")]
    Conflict {
        /// The package that says so.
        package: String,
        /// The one that it is about.
        other: String,
        /// The term that says so.
        term: String,
    },
    /// The index does not say where a package is.
    #[error("choose packages: the index entry of {name} lacks its file name, size or hash")]
    Incomplete {
        /// Its name.
        name: String,
    },
}

/// All packages that can be chosen for one architecture.
#[derive(Debug)]
pub struct Universe<'a> {
    /// Candidates by name, the highest version first.
    real: HashMap<&'a str, Vec<Record<'a>>>,
    /// Who provides a name, with the version provided, the best first.
    virtuals: HashMap<&'a str, Vec<(Record<'a>, Option<&'a str>)>>,
}

impl<'a> Universe<'a> {
    /// Of some indexes of one architecture.
    pub fn new(indexes: impl IntoIterator<Item = &'a Index>) -> Self {
        let mut real: HashMap<_, Vec<Record>> = HashMap::new();
        let mut virtuals: HashMap<_, Vec<_>> = HashMap::new();
        for record in indexes.into_iter().flat_map(Index::records) {
            real.entry(record.name()).or_default().push(record);
            for term in terms(record.provides()) {
                let version = term.version.map(|(_, version)| version);
                virtuals.entry(term.name).or_default().push((record, version));
            }
        }
        for records in real.values_mut() {
            records.sort_by(|a, b| super::version::compare(b.version(), a.version()));
        }
        for providers in virtuals.values_mut() {
            providers.sort_by(|(a, _), (b, _)| {
                (a.priority(), a.name())
                    .cmp(&(b.priority(), b.name()))
                    .then_with(|| super::version::compare(b.version(), a.version()))
            });
        }
        Self { real, virtuals }
    }

    /// The highest version of a package.
    pub fn find(&self, name: &str) -> Option<Record<'a>> {
        self.real.get(name)?.first().copied()
    }

    /// The closure of some packages, sorted by name.
    pub fn resolve(&self, roots: &[impl AsRef<str>]) -> Result<Vec<Package>, Error> {
        let mut choice = Choice { universe: self, chosen: BTreeMap::new(), open: VecDeque::new() };
        for root in roots {
            choice.add(self.root(root.as_ref())?);
        }
        choice.close()?;
        choice.check()?;
        choice
            .chosen
            .values()
            .map(|record| {
                record.package().ok_or_else(|| Error::Incomplete { name: record.name().into() })
            })
            .collect()
    }

    fn root(&self, name: &str) -> Result<Record<'a>, Error> {
        if let Some(record) = self.find(name) {
            return Ok(record);
        }
        let providers = self.virtuals.get(name).map(Vec::as_slice).unwrap_or_default();
        let mut names: Vec<_> = providers.iter().map(|(record, _)| record.name().into()).collect();
        names.dedup();
        match (names.len(), providers.first()) {
            (_, None) => Err(Error::Unknown { name: name.into() }),
            (1, Some((record, _))) => Ok(*record),
            _ => Err(Error::Virtual { name: name.into(), providers: names }),
        }
    }

    /// Whoever satisfies a term, the best first.
    fn candidates(&self, term: Term<'_>) -> impl Iterator<Item = Record<'a>> {
        let real = self.real.get(term.name).into_iter().flatten().copied();
        let provided = self.virtuals.get(term.name).into_iter().flatten().copied();
        let name = term.name;
        real.filter(move |record| term.allows(record.version())).chain(
            provided
                .filter(move |(record, version)| record.name() != name && provides(term, *version))
                .map(|(record, _)| record),
        )
    }
}

/// Whether a provided version satisfies a term; one without a version satisfies only terms without
/// one (Debian Policy 7.5).
fn provides(term: Term<'_>, version: Option<&str>) -> bool {
    match version {
        Some(version) => term.allows(version),
        None => term.version.is_none(),
    }
}

/// What has been chosen so far.
struct Choice<'u, 'a> {
    universe: &'u Universe<'a>,
    /// By name.
    chosen: BTreeMap<&'a str, Record<'a>>,
    /// Relations of chosen packages that were not looked at yet.
    open: VecDeque<(Record<'a>, Vec<Term<'a>>)>,
}

impl<'a> Choice<'_, 'a> {
    fn add(&mut self, record: Record<'a>) {
        if self.chosen.contains_key(record.name()) {
            return;
        }
        self.chosen.insert(record.name(), record);
        for field in record.depends() {
            self.open.extend(groups(field).map(|group| (record, group)));
        }
    }

    /// Follows relations until none is open. Those with several ways out wait until there is no
    /// other left.
    fn close(&mut self) -> Result<(), Error> {
        let mut later = VecDeque::new();
        loop {
            let (record, group, waited) = match (self.open.pop_front(), later.is_empty()) {
                (Some((record, group)), _) => (record, group, false),
                (None, true) => return Ok(()),
                (None, false) => match later.pop_front() {
                    Some((record, group)) => (record, group, true),
                    None => return Ok(()),
                },
            };
            if group.iter().any(|term| self.satisfies(*term)) {
                continue;
            }
            let mut ways: Vec<_> =
                group.iter().flat_map(|term| self.universe.candidates(*term)).collect();
            // A package of which another version is chosen cannot be chosen again.
            ways.retain(|way| !self.chosen.contains_key(way.name()));
            let several = ways.iter().any(|way| way.name() != ways[0].name());
            if several && !waited {
                later.push_back((record, group));
                continue;
            }
            let fits = ways.iter().find(|way| !self.conflicts(**way));
            match fits.or(ways.first()) {
                Some(way) => self.add(*way),
                None => return Err(self.unsatisfied(record, &group)),
            }
        }
    }

    fn satisfies(&self, term: Term<'_>) -> bool {
        if self.chosen.get(term.name).is_some_and(|record| term.allows(record.version())) {
            return true;
        }
        let providers = self.universe.virtuals.get(term.name).into_iter().flatten();
        providers.into_iter().any(|(record, version)| {
            provides(term, *version)
                && self
                    .chosen
                    .get(record.name())
                    .is_some_and(|chosen| chosen.version() == record.version())
        })
    }

    /// Whether a package excludes a chosen one, or is excluded by one.
    fn conflicts(&self, record: Record<'a>) -> bool {
        self.chosen.values().any(|chosen| {
            excludes(record, *chosen).is_some() || excludes(*chosen, record).is_some()
        })
    }

    fn check(&self) -> Result<(), Error> {
        for record in self.chosen.values() {
            if record.conflicts() == ["", ""] {
                continue;
            }
            for other in self.chosen.values() {
                if let Some(term) = excludes(*record, *other) {
                    return Err(Error::Conflict {
                        package: shown(*record),
                        other: shown(*other),
                        term: term.to_string(),
                    });
                }
            }
        }
        Ok(())
    }

    fn unsatisfied(&self, record: Record<'a>, group: &[Term<'a>]) -> Error {
        let wanted = group.iter().map(Term::to_string).collect::<Vec<_>>().join(" | ");
        let mut there: Vec<_> = group
            .iter()
            .filter_map(|term| {
                let chosen = self.chosen.get(term.name).copied();
                chosen.or_else(|| self.universe.find(term.name))
            })
            .map(shown)
            .collect();
        there.sort_by_key(|name| Reverse(name.len()));
        let why = match there.as_slice() {
            [] => "nothing provides it".to_owned(),
            names => format!("there is only {}", names.join(", ")),
        };
        Error::Unsatisfied { package: shown(record), wanted, why }
    }
}

/// The term by which a package excludes another. A package never excludes itself, nor what it
/// provides itself (Debian Policy 7.6.2).
fn excludes<'a>(record: Record<'a>, other: Record<'_>) -> Option<Term<'a>> {
    if record.name() == other.name() {
        return None;
    }
    record.conflicts().into_iter().flat_map(terms).find(|term| {
        (term.name == other.name() && term.allows(other.version()))
            || terms(other.provides()).any(|provided| {
                provided.name == term.name
                    && provides(*term, provided.version.map(|(_, version)| version))
            })
    })
}

fn shown(record: Record<'_>) -> String {
    format!("{} {}", record.name(), record.version())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::debian::Archive;

    /// An index of packages, each `name version` and then fields.
    fn index(packages: &[&str]) -> Index {
        let mut text = String::new();
        for package in packages {
            let (name, rest) = package.split_once(' ').unwrap();
            let (version, fields) = rest.split_once('\n').unwrap_or((rest, ""));
            text += &format!(
                "Package: {name}\nVersion: {version}\nArchitecture: amd64\nFilename: p/{name}\n\
                Size: 1\nSHA256: {}\n{fields}\n\n",
                crate::cache::Hash::of(name.as_bytes())
            );
        }
        Index::read(Archive::Debian, text)
    }

    fn resolve(packages: &[&str], roots: &[&str]) -> Result<String, Error> {
        let index = index(packages);
        let chosen = Universe::new([&index]).resolve(roots)?;
        let shown: Vec<_> =
            chosen.iter().map(|package| format!("{} {}", package.name, package.version)).collect();
        Ok(shown.join(", "))
    }

    #[test]
    fn the_closure_has_depends_and_pre_depends_and_no_recommends() {
        let packages = [
            "a 1\nDepends: b, c:any (>= 1)\nRecommends: e",
            "b 1\nPre-Depends: d",
            "c 1",
            "d 1\nDepends: a",
            "e 1",
        ];
        assert_eq!(resolve(&packages, &["a"]).unwrap(), "a 1, b 1, c 1, d 1");
    }

    #[test]
    fn the_highest_version_that_fits_is_taken() {
        let packages = ["a 1", "a 1+deb13u1", "a 1~rc1", "b 1\nDepends: a (<< 1)"];
        assert_eq!(resolve(&packages, &["a"]).unwrap(), "a 1+deb13u1");
        assert_eq!(resolve(&packages, &["b"]).unwrap(), "a 1~rc1, b 1");
    }

    #[test]
    fn the_first_alternative_is_taken_unless_another_is_there_anyway() {
        let packages = ["a 1\nDepends: x | y", "b 1\nDepends: c", "c 1\nDepends: y", "x 1", "y 1"];
        assert_eq!(resolve(&packages, &["a"]).unwrap(), "a 1, x 1");
        // Whatever the order of the roots, since what is settled is followed first.
        assert_eq!(resolve(&packages, &["a", "b"]).unwrap(), "a 1, b 1, c 1, y 1");
        assert_eq!(resolve(&packages, &["b", "a"]).unwrap(), "a 1, b 1, c 1, y 1");
        let packages = ["a 1\nDepends: gone | y", "y 1"];
        assert_eq!(resolve(&packages, &["a"]).unwrap(), "a 1, y 1");
    }

    #[test]
    fn an_alternative_that_conflicts_is_passed_over() {
        let packages = ["a 1\nDepends: x | y\nConflicts: x", "x 1", "y 1"];
        assert_eq!(resolve(&packages, &["a"]).unwrap(), "a 1, y 1");
    }

    #[test]
    fn virtual_packages_have_the_provider_of_the_highest_priority() {
        let packages = [
            "a 1\nDepends: awk",
            "gawk 1\nProvides: awk\nPriority: optional",
            "mawk 1\nProvides: awk\nPriority: required",
        ];
        assert_eq!(resolve(&packages, &["a"]).unwrap(), "a 1, mawk 1");
        assert_eq!(resolve(&packages, &["a", "gawk"]).unwrap(), "a 1, gawk 1");
        let providers = vec!["mawk".into(), "gawk".into()];
        let choose = Error::Virtual { name: "awk".into(), providers };
        assert_eq!(resolve(&packages, &["awk"]), Err(choose));
    }

    #[test]
    fn a_provided_version_counts_and_a_missing_one_does_not() {
        let packages = [
            "a 1\nDepends: v (>= 2)",
            "x 1\nProvides: v",
            "y 1\nProvides: v (= 1)",
            "z 1\nProvides: v (= 2)",
        ];
        assert_eq!(resolve(&packages, &["a"]).unwrap(), "a 1, z 1");
        let wanted = Error::Unsatisfied {
            package: "a 1".into(),
            wanted: "v (>= 2)".into(),
            why: "nothing provides it".into(),
        };
        assert_eq!(resolve(&packages[..3], &["a"]), Err(wanted));
    }

    #[test]
    fn errors_say_what_there_is_instead() {
        let packages = ["a 1\nDepends: b (>= 2) | c", "b 1"];
        let error = resolve(&packages, &["a"]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "choose packages: a 1 depends on b (>= 2) | c, there is only b 1"
        );
        assert_eq!(resolve(&packages, &["d"]), Err(Error::Unknown { name: "d".into() }));
    }

    #[test]
    fn packages_that_exclude_each_other_are_an_error() {
        let packages = ["a 1\nBreaks: b (<< 2)", "b 1", "c 1\nConflicts: v", "d 1\nProvides: v"];
        let conflict =
            Error::Conflict { package: "a 1".into(), other: "b 1".into(), term: "b (<< 2)".into() };
        assert_eq!(resolve(&packages, &["a", "b"]), Err(conflict));
        assert!(matches!(resolve(&packages, &["c", "d"]), Err(Error::Conflict { .. })));
    }

    #[test]
    fn a_package_does_not_exclude_what_it_provides_itself() {
        let packages = ["a 1\nProvides: v\nConflicts: v"];
        assert_eq!(resolve(&packages, &["a"]).unwrap(), "a 1");
    }
}
