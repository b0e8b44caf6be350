//! `SystemCallFilter=`: names and sets become numbers of the image's architecture.
//!
//! The table of calls and sets is a text of its own, `system_calls.txt`.

use super::capabilities::inverted;
use crate::finding::Finding;
use crate::units::Architecture;
use crate::units::keys::Keys;
use crate::units::quoting::Word;
use crate::units::suggest;
use crate::units::syntax::Assignment;
use crate::units::value::{Expected, errno};
use activator::manifest::SystemCallFilter;
use std::collections::{BTreeMap, BTreeSet};

const TABLE: &str = include_str!("system_calls.txt");
/// The set of everything, which the table need not say.
const KNOWN: &str = "@known";

/// One call of the table.
struct Call {
    name: &'static str,
    /// None: the architecture has it not.
    number: Option<u32>,
    sets: Vec<&'static str>,
}

/// The table for one architecture.
struct Table {
    calls: Vec<Call>,
    /// A set and the sets in it.
    unions: BTreeMap<&'static str, Vec<&'static str>>,
}

impl Table {
    fn new(architecture: Architecture) -> Self {
        let mut table = Self { calls: vec![], unions: BTreeMap::new() };
        for line in TABLE.lines().filter(|line| !line.starts_with('#')) {
            let mut words = line.split(' ');
            let Some(name) = words.next() else { continue };
            if name.starts_with('@') {
                table.unions.insert(name, words.collect());
                continue;
            }
            let (x86_64, aarch64) = (words.next(), words.next());
            let number = match architecture {
                Architecture::X86_64 => x86_64,
                Architecture::Aarch64 => aarch64,
            };
            let number = number.and_then(|number| number.parse().ok());
            table.calls.push(Call { name, number, sets: words.collect() });
        }
        table
    }

    fn is_set(&self, name: &str) -> bool {
        name == KNOWN
            || self.unions.contains_key(name)
            || self.calls.iter().any(|call| call.sets.contains(&name))
    }

    /// The numbers of a set, with those of the sets in it.
    fn set(&self, name: &str) -> BTreeSet<u32> {
        let mut names = BTreeSet::from([name]);
        let mut open = vec![name];
        while let Some(union) = open.pop() {
            for inner in self.unions.get(union).into_iter().flatten() {
                if names.insert(inner) {
                    open.push(inner);
                }
            }
        }
        let within =
            |call: &&Call| name == KNOWN || call.sets.iter().any(|set| names.contains(set));
        self.calls.iter().filter(within).filter_map(|call| call.number).collect()
    }

    /// The numbers behind a word; None if it names nothing.
    fn find(&self, name: &str) -> Option<BTreeSet<u32>> {
        if name.starts_with('@') {
            return self.is_set(name).then(|| self.set(name));
        }
        let call = self.calls.iter().find(|call| call.name == name)?;
        Some(call.number.into_iter().collect())
    }

    fn nearest(&self, name: &str) -> Option<&str> {
        let sets = self.calls.iter().flat_map(|call| call.sets.iter().copied());
        let names = self.calls.iter().map(|call| call.name);
        suggest::nearest(name, names.chain(sets).chain(self.unions.keys().copied()))
    }
}

/// The lines so far.
#[derive(Default)]
struct Filter {
    /// The first line decides.
    allow: Option<bool>,
    calls: BTreeMap<u32, Option<u16>>,
}

/// What the words of a line do.
#[derive(Clone, Copy)]
struct Line {
    invert: bool,
    /// They are of the kind of the first line; else they take back.
    adds: bool,
}

impl Filter {
    fn line(&mut self, invert: bool, table: &Table) -> Line {
        let allow = *self.allow.get_or_insert_with(|| {
            // What a program needs to begin at all.
            let first = if invert { BTreeSet::new() } else { table.set("@default") };
            self.calls = first.into_iter().map(|number| (number, None)).collect();
            !invert
        });
        Line { invert, adds: allow != invert }
    }

    /// An errno counts where the calls are refused, `kill` everywhere.
    fn add(&mut self, line: Line, numbers: BTreeSet<u32>, errno: Option<u16>) {
        let refused = errno.filter(|errno| line.invert || *errno == SystemCallFilter::KILL);
        for number in numbers {
            match (line.adds, refused) {
                (true, refused) => _ = self.calls.insert(number, refused),
                (false, Some(errno)) => _ = self.calls.insert(number, Some(errno)),
                (false, None) => _ = self.calls.remove(&number),
            }
        }
    }
}

/// Reads the filter; None filters nothing.
///
/// The first line decides whether it lists what is allowed or, with `~`, what is not; a later
/// line of the other kind takes back.
pub(super) fn read(keys: &mut Keys<'_>, section: &str) -> Option<SystemCallFilter> {
    let errno = errno_of_all(keys, section);
    let lines = keys.list(section, "SystemCallFilter");
    if lines.is_empty() {
        return None;
    }
    let table = Table::new(keys.facts.input.architecture);
    let mut filter = Filter::default();
    for line in lines {
        let Some(words) = keys.raw_words(line) else { continue };
        let (invert, words) = inverted(words.words);
        let kind = filter.line(invert, &table);
        for word in words {
            if let Some((numbers, errno)) = parse(keys, &table, line, &word) {
                filter.add(kind, numbers, errno);
            }
        }
    }
    let calls = filter.calls.into_iter().collect();
    Some(SystemCallFilter { allow: filter.allow?, calls, errno })
}

/// `SystemCallErrorNumber=`; `kill` is the default.
fn errno_of_all(keys: &mut Keys<'_>, section: &str) -> Option<u16> {
    let number = keys.setting(section, "SystemCallErrorNumber", |text| match text {
        "kill" => Ok(None),
        other => errno::number(other).map(Some),
    });
    number.flatten()
}

/// `name`, `@set`, each perhaps with `:errno`.
fn parse(
    keys: &mut Keys<'_>,
    table: &Table,
    line: &Assignment,
    word: &Word,
) -> Option<(BTreeSet<u32>, Option<u16>)> {
    let (name, number) = match word.text.split_once(':') {
        Some((name, number)) => (name, Some(number)),
        None => (word.text.as_str(), None),
    };
    let number = match number.map(refusal) {
        Some(Ok(number)) => Some(number),
        Some(Err(expected)) => {
            keys.bad_word(line, word, &expected);
            return None;
        }
        None => None,
    };
    if let Some(numbers) = table.find(name) {
        return Some((numbers, number));
    }
    if name.starts_with('@') {
        keys.bad_word(line, word, &Expected::Other("sets such as `@system-service`"));
        return None;
    }
    // systemd skips what the kernel or its library do not know, too.
    let message = format!("`{}=` names the system call `{name}`, which Linux has not", line.key);
    let help = match table.nearest(name) {
        Some(near) => format!("did you mean `{near}`?"),
        None => "see `man 2 syscalls` for all of them".into(),
    };
    let span = line.value.span_of(word.range.clone());
    keys.findings.push(Finding::warning(span, message).label("left out").help(help));
    None
}

/// What stands behind `name:`.
fn refusal(text: &str) -> Result<u16, Expected> {
    match text {
        "kill" => Ok(SystemCallFilter::KILL),
        other => errno::number(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_have_the_numbers_of_the_architecture() {
        for (name, x86_64, aarch64) in [
            ("read", Some(0), Some(63)),
            ("execve", Some(59), Some(221)),
            ("open", Some(2), None),
            ("openat2", Some(437), Some(437)),
            ("mseal", Some(462), Some(462)),
            ("clone3", Some(435), Some(435)),
            ("seccomp", Some(317), Some(277)),
            ("io_uring_setup", Some(425), Some(425)),
            ("landlock_restrict_self", Some(446), Some(446)),
        ] {
            let number = |architecture| {
                Table::new(architecture).find(name).map(|numbers| numbers.into_iter().next())
            };
            assert_eq!(number(Architecture::X86_64), Some(x86_64), "{name}");
            assert_eq!(number(Architecture::Aarch64), Some(aarch64), "{name}");
        }
        assert_eq!(Table::new(Architecture::X86_64).find("flyaway"), None);
        assert_eq!(Table::new(Architecture::X86_64).find("@flyaway"), None);
    }

    #[test]
    fn later_lines_add_and_take_back() {
        const KILL: u16 = SystemCallFilter::KILL;
        let table = Table::new(Architecture::X86_64);
        let read = |lines: &[&[&str]]| {
            let mut filter = Filter::default();
            for line in lines {
                let (invert, words) = match line[0].strip_prefix('~') {
                    Some(first) => (true, [&[first], &line[1..]].concat()),
                    None => (false, line.to_vec()),
                };
                let line = filter.line(invert, &table);
                for word in words {
                    let (name, errno) = match word.split_once(':') {
                        Some((name, errno)) => (name, refusal(errno).ok()),
                        None => (word, None),
                    };
                    filter.add(line, table.find(name).unwrap_or_default(), errno);
                }
            }
            filter
        };
        let of = |filter: &Filter, name: &str| {
            let number = table.find(name).and_then(|numbers| numbers.into_iter().next());
            filter.calls.get(&number.unwrap()).copied()
        };
        let filter = read(&[&["@file-system", "mount"], &["~open", "chdir:EPERM"], &["bpf:kill"]]);
        assert!(filter.allow == Some(true));
        assert_eq!(of(&filter, "execve"), Some(None), "always allowed");
        assert_eq!(of(&filter, "mount"), Some(None));
        assert_eq!(of(&filter, "open"), None, "taken back");
        assert_eq!(of(&filter, "chdir"), Some(Some(1)), "refused by its own error");
        assert_eq!(of(&filter, "bpf"), Some(Some(KILL)));
        let filter = read(&[&["~@mount:ENOSYS", "bpf"], &["umount2"]]);
        assert!(filter.allow == Some(false));
        assert_eq!(of(&filter, "mount"), Some(Some(38)));
        assert_eq!(of(&filter, "bpf"), Some(None));
        assert_eq!(of(&filter, "umount2"), None, "allowed again");
        assert_eq!(of(&filter, "execve"), None);
    }

    #[test]
    fn sets_contain_sets() {
        let table = Table::new(Architecture::X86_64);
        let service = table.set("@system-service");
        assert!(table.set("@default").is_subset(&service));
        assert!(table.set("@setuid").is_subset(&service));
        assert!(table.set("@mount").is_disjoint(&service));
        assert!(table.set("@module").is_subset(&table.set("@privileged")));
        assert!(service.is_subset(&table.set(KNOWN)));
        for (set, inner) in &table.unions {
            assert!(inner.iter().all(|inner| table.is_set(inner)), "{set}");
        }
    }

    #[test]
    fn the_table_is_sorted_and_has_each_number_once() {
        for architecture in [Architecture::X86_64, Architecture::Aarch64] {
            let table = Table::new(architecture);
            assert!(table.calls.is_sorted_by(|a, b| a.name < b.name));
            let numbers: Vec<u32> = table.calls.iter().filter_map(|call| call.number).collect();
            let different: BTreeSet<u32> = numbers.iter().copied().collect();
            assert_eq!(numbers.len(), different.len());
            assert!(table.set("@default").len() > 30, "what every program needs");
        }
    }
}
