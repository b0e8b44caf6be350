//! The keys that give a service a view of the file system of its own.

use crate::units::keys::Keys;
use crate::units::quoting::Word;
use crate::units::syntax::Assignment;
use crate::units::value::{self, Expected};
use activator::manifest::{Bind, Mount, PathRule};

/// All of them in the order of the files; an empty line takes back its own kind.
pub(super) fn read(keys: &mut Keys<'_>, section: &str) -> Vec<Mount> {
    let unit = keys.unit;
    let mut mounts: Vec<(&str, Mount)> = vec![];
    for line in unit.assignments.iter().filter(|line| line.section == section) {
        let Some(key) = canonical(&line.key) else { continue };
        if line.value.text.is_empty() {
            mounts.retain(|(old, _)| *old != key);
            continue;
        }
        let Some(words) = keys.raw_words(line) else { continue };
        for word in words.words {
            let Some(text) = keys.expand_word(line, &word) else { continue };
            mounts.extend(mount(keys, line, key, &Word { text, ..word }).map(|it| (key, it)));
        }
    }
    mounts.into_iter().map(|(_, mount)| mount).collect()
}

/// The key of today for an old one; None if it is none of these.
fn canonical(key: &str) -> Option<&'static str> {
    Some(match key {
        "ReadWritePaths" | "ReadWriteDirectories" => "ReadWritePaths",
        "ReadOnlyPaths" | "ReadOnlyDirectories" => "ReadOnlyPaths",
        "InaccessiblePaths" | "InaccessibleDirectories" => "InaccessiblePaths",
        "ExecPaths" => "ExecPaths",
        "NoExecPaths" => "NoExecPaths",
        "TemporaryFileSystem" => "TemporaryFileSystem",
        "BindPaths" => "BindPaths",
        "BindReadOnlyPaths" => "BindReadOnlyPaths",
        _ => return None,
    })
}

fn mount(keys: &mut Keys<'_>, line: &Assignment, key: &str, word: &Word) -> Option<Mount> {
    let made = match key {
        "TemporaryFileSystem" => {
            let (path, options) = word.text.split_once(':').unwrap_or((&word.text, ""));
            value::path(path).ok().map(|path| {
                Mount::Temporary(PathRule { path, optional: false }, options.to_owned())
            })
        }
        "BindPaths" => bind(&word.text, false),
        "BindReadOnlyPaths" => bind(&word.text, true),
        _ => rule(&word.text).map(match key {
            "ReadWritePaths" => Mount::ReadWrite,
            "ReadOnlyPaths" => Mount::ReadOnly,
            "InaccessiblePaths" => Mount::Inaccessible,
            "ExecPaths" => Mount::Exec,
            _ => Mount::NoExec,
        }),
    };
    if made.is_none() {
        let expected = match key {
            "TemporaryFileSystem" => "an absolute path, or `/path:options`",
            "BindPaths" | "BindReadOnlyPaths" => {
                "`/source`, `/source:/target` or `/source:/target:rbind` (or `norbind`)"
            }
            _ => "absolute paths, each perhaps with a `-` before it",
        };
        keys.bad_word(line, word, &Expected::Other(expected));
    }
    made
}

/// `-` makes it optional; `+`, relative to `RootDirectory=`, is what happens anyway.
fn rule(text: &str) -> Option<PathRule> {
    let (optional, rest) = optional(text);
    let path = value::path(rest.strip_prefix('+').unwrap_or(rest)).ok()?;
    Some(PathRule { path, optional })
}

fn optional(text: &str) -> (bool, &str) {
    text.strip_prefix('-').map_or((false, text), |rest| (true, rest))
}

fn bind(text: &str, read_only: bool) -> Option<Mount> {
    let (optional, rest) = optional(text);
    let parts = colons(rest);
    let (source, target, options) = match parts.as_slice() {
        [source] => (source, source, ""),
        [source, target] => (source, target, ""),
        [source, target, options] => (source, target, options.as_str()),
        _ => return None,
    };
    let recursive = match options {
        "" | "rbind" => true,
        "norbind" => false,
        _ => return None,
    };
    let source = PathRule { path: value::path(source).ok()?, optional };
    Some(Mount::Bind(Bind { source, target: value::path(target).ok()?, read_only, recursive }))
}

/// Splits at colons; `\:` is one of the text.
fn colons(text: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    let mut characters = text.chars().peekable();
    while let Some(c) = characters.next() {
        let current = parts.last_mut();
        match (c, characters.peek()) {
            (':', _) => parts.push(String::new()),
            ('\\', Some(':')) => {
                characters.next();
                if let Some(current) = current {
                    current.push(':');
                }
            }
            _ => {
                if let Some(current) = current {
                    current.push(c);
                }
            }
        }
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_and_binds() {
        let path = |path: &str, optional| PathRule { path: path.into(), optional };
        assert_eq!(rule("/a//b"), Some(path("/a/b", false)));
        assert_eq!(rule("-/a"), Some(path("/a", true)));
        assert_eq!(rule("-+/a"), Some(path("/a", true)));
        for bad in ["a", "+-/a", "/a/../b", ""] {
            assert_eq!(rule(bad), None, "{bad}");
        }
        let bound = |text: &str| match bind(text, true) {
            Some(Mount::Bind(bind)) => Some((bind.source, bind.target, bind.recursive)),
            _ => None,
        };
        assert_eq!(bound("/a"), Some((path("/a", false), "/a".into(), true)));
        assert_eq!(bound("-/a:/b:norbind"), Some((path("/a", true), "/b".into(), false)));
        assert_eq!(bound(r"/a\:b:/c"), Some((path("/a:b", false), "/c".into(), true)));
        for bad in ["/a:/b:x", "a:/b", "/a:b", "/a:/b:rbind:"] {
            assert_eq!(bound(bad), None, "{bad}");
        }
    }
}
