//! `RuntimeDirectory=` and its kin: directories that are made for a service.

use crate::finding::Finding;
use crate::units::keys::Keys;
use crate::units::quoting::Word;
use crate::units::syntax::Assignment;
use crate::units::value::{self, Expected};
use activator::manifest::{Directory, DirectoryKind};

const KINDS: [(&str, &str, DirectoryKind); 5] = [
    ("RuntimeDirectory", "RuntimeDirectoryMode", DirectoryKind::Runtime),
    ("StateDirectory", "StateDirectoryMode", DirectoryKind::State),
    ("CacheDirectory", "CacheDirectoryMode", DirectoryKind::Cache),
    ("LogsDirectory", "LogsDirectoryMode", DirectoryKind::Logs),
    ("ConfigurationDirectory", "ConfigurationDirectoryMode", DirectoryKind::Configuration),
];

/// All of them, kind by kind, each path once.
pub(super) fn read(keys: &mut Keys<'_>, section: &str) -> Vec<Directory> {
    let mut directories: Vec<Directory> = vec![];
    for (key, mode_key, kind) in KINDS {
        let mode = keys.setting(section, mode_key, value::mode).unwrap_or(0o755);
        for (line, word) in keys.list_words(section, key) {
            let parsed = match parse(&word.text, kind, mode) {
                Some(directory) => directory,
                None => {
                    let expected = Expected::Other("a relative path without `..`, or `path:link`");
                    keys.bad_word(line, &word, &expected);
                    continue;
                }
            };
            if kind == DirectoryKind::Configuration {
                in_the_image(keys, line, &word, &parsed.path);
            }
            let same = |old: &&mut Directory| old.kind == kind && old.path == parsed.path;
            match directories.iter_mut().find(same) {
                Some(old) => {
                    old.links.extend(parsed.links);
                    old.read_only |= parsed.read_only;
                }
                None => directories.push(parsed),
            }
        }
    }
    directories
}

/// The guest's /etc is read-only: what is not there cannot be made.
fn in_the_image(keys: &mut Keys<'_>, line: &Assignment, word: &Word, path: &str) {
    let path = format!("/etc/{path}");
    // A user's lie in his home.
    if keys.facts.manager.user().is_some() || keys.facts.has_file(&path) != Some(false) {
        return;
    }
    let message = format!("`{}=` needs `{path}`, which the image has not", line.key);
    keys.findings.push(
        Finding::error(line.value.span_of(word.range.clone()), message)
            .label("the guest's /etc is read-only")
            .help("add a file below it to `files` in appliance.toml, or the package that has it"),
    );
}

/// `path`, `path:link`, `path:link:ro`, `path::ro`.
fn parse(text: &str, kind: DirectoryKind, mode: u32) -> Option<Directory> {
    let mut parts = text.split(':');
    let path = relative(parts.next()?)?;
    let mut links = vec![];
    if let Some(link) = parts.next().filter(|link| !link.is_empty()) {
        // What a configuration is called is up to its reader.
        if kind == DirectoryKind::Configuration {
            return None;
        }
        links.push(relative(link)?);
    }
    let read_only = match parts.next() {
        None | Some("") => false,
        Some("ro") => true,
        Some(_) => return None,
    };
    parts.next().is_none().then_some(Directory { kind, path, links, mode, read_only })
}

fn relative(text: &str) -> Option<String> {
    if text.starts_with('/') {
        return None;
    }
    // "private" is where systemd keeps what DynamicUser= owns.
    let path = value::path(&format!("/{text}")).ok()?.trim_start_matches('/').to_owned();
    (!path.is_empty() && path != "private" && !path.starts_with("private/")).then_some(path)
}

/// `RuntimeDirectoryPreserve=` as the manifest has it.
pub(super) fn preserve(keys: &mut Keys<'_>, section: &str) -> Option<bool> {
    let preserve = keys.setting(section, "RuntimeDirectoryPreserve", |text| match text {
        "restart" => Ok(Some(false)),
        other => match value::boolean(other) {
            Ok(true) => Ok(Some(true)),
            Ok(false) => Ok(None),
            Err(_) => Err(Expected::OneOf(&["yes", "no", "restart"])),
        },
    });
    preserve.flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_links_and_flags() {
        let parse = |text| {
            let found = parse(text, DirectoryKind::State, 0o750)?;
            Some((found.path, found.links.join(" "), found.read_only))
        };
        for (text, path, link, read_only) in [
            ("echo", "echo", "", false),
            ("a//b/", "a/b", "", false),
            ("a:b", "a", "b", false),
            ("a:b:ro", "a", "b", true),
            ("a::ro", "a", "", true),
        ] {
            assert_eq!(parse(text), Some((path.into(), link.into(), read_only)), "{text}");
        }
        for bad in ["/run/a", "../a", "", "a:/b", "a:b:rw", "a:b:ro:c", "private/a"] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }
}
