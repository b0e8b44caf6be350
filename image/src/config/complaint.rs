//! What is wrong with the text of appliance.toml, in the words of the person who wrote it.
//!
//! serde speaks of fields, variants and Rust's types; the file has keys, values and tables.

use super::FILE;
use crate::finding::{Finding, Source, Span};
use crate::units::suggest::nearest;
use std::sync::Arc;

/// The keys of the whole file, which many a file has by mistake below a table's header.
const OUTERMOST: [&str; 18] = [
    "name",
    "engine",
    "packages",
    "dependencies",
    "drop",
    "enable",
    "image",
    "registry",
    "files",
    "secret",
    "modules",
    "podman-api-on-tcp",
    "user",
    "vm",
    "root",
    "disk",
    "network",
    "debian",
];

/// Keys that have one table only.
const INNER: [(&str, &str); 12] = [
    ("memory", "vm"),
    ("cpus", "vm"),
    ("machine", "vm"),
    ("kaslr", "vm"),
    ("format", "root"),
    ("docs", "root"),
    ("size", "disk"),
    ("forward", "network"),
    ("outgoing", "network"),
    ("dns", "network"),
    ("suite", "debian"),
    ("mirror", "debian"),
];

/// What a TOML parser says, for a person.
pub(super) fn complaint(error: &toml::de::Error, source: &Arc<Source>) -> Finding {
    let range = error.span().unwrap_or(0..0);
    let span = Span { source: source.clone(), range };
    let message = error.message();
    let (wrong, expected) = message.split_once(", expected ").unwrap_or((message, ""));
    let quoted = wrong.split('`').nth(1).unwrap_or_default();
    if wrong.starts_with("unknown field") {
        return unknown_key(quoted, expected, span);
    }
    if wrong.starts_with("missing field") {
        return Finding::error(span, format!("`{quoted}` is missing"))
            .label(format!("expected `{quoted} = ...` in this table"))
            .help("README.md says what each key of appliance.toml means");
    }
    if wrong.starts_with("unknown variant") {
        return not_taken(span, format!("expected {expected}"), did_you_mean(quoted, expected));
    }
    if wrong.starts_with("invalid type") || wrong.starts_with("invalid value") {
        return not_taken(span, format!("expected {}", in_words(expected)), None);
    }
    let finding = Finding::error(span, wrong.to_owned());
    let finding = match (wrong, expected) {
        ("duplicate key", _) => finding.label("it stands further up, too"),
        (_, "") => finding,
        _ => finding.label(format!("expected {expected}")),
    };
    match wrong {
        "duplicate key" => finding.help("leave one of them"),
        _ => finding.help("appliance.toml is TOML, see https://toml.io"),
    }
}

fn unknown_key(key: &str, expected: &str, span: Span) -> Finding {
    let known: Vec<&str> = expected.split('`').skip(1).step_by(2).collect();
    let near = nearest(key, known.iter().copied());
    let table = INNER.iter().find(|(inner, _)| *inner == key);
    let table = table.filter(|_| known.contains(&"packages")).map(|(_, table)| table);
    let help = match (near, table) {
        (Some(near), _) => format!("did you mean `{near}`?"),
        (None, Some(table)) => format!("it is a key of `[{table}]`"),
        (None, None) if OUTERMOST.contains(&key) => {
            format!("`{key}` is a key of the whole file: put it above the first `[table]`")
        }
        (None, None) => format!("the keys here are {}", known.join(", ")),
    };
    let place = place_of_key(&span);
    Finding::error(span, format!("`{key}` is unknown in {place}")).label("unknown").help(help)
}

fn not_taken(span: Span, expected: String, near: Option<String>) -> Finding {
    let value = span.source.text.get(span.range.clone()).unwrap_or_default();
    // A table, or a list over several lines.
    let is_long = value.contains('\n') || value.starts_with('[') || value.is_empty();
    let value = if is_long { "this" } else { value.trim_matches(['"', '\'']) };
    let message = match key_of_value(&span) {
        Some(key) if is_long => format!("`{key}` does not take {value}"),
        Some(key) => format!("`{key}` does not take `{value}`"),
        None => "this is of the wrong kind".to_owned(),
    };
    let help = "README.md says what each key of appliance.toml takes";
    Finding::error(span, message).label(expected).help(near.unwrap_or_else(|| help.into()))
}

fn did_you_mean(word: &str, expected: &str) -> Option<String> {
    let known = expected.split('`').skip(1).step_by(2);
    Some(format!("did you mean `{}`?", nearest(word, known)?))
}

/// The table that a key stands in, as its header names it.
fn place_of_key(span: &Span) -> String {
    let (above, line) = around(span);
    let is_inline = line.contains('{');
    let header = above.lines().rev().map(str::trim).find(|line| line.starts_with('['));
    match header {
        _ if line.trim_start().starts_with('[') => FILE.into(),
        _ if is_inline => "this table".into(),
        Some(header) => {
            let end = header.rfind(']').map_or(header.len(), |at| at + 1);
            format!("`{}`", &header[..end])
        }
        None => FILE.into(),
    }
}

/// The key whose value a span is; a header's for a table.
fn key_of_value(span: &Span) -> Option<String> {
    let (_, before) = around(span);
    let value = span.source.text.get(span.range.clone()).unwrap_or_default();
    let key = match before.rsplit_once('=') {
        Some((key, _)) => key.rsplit(['{', ',']).next()?,
        None => value.strip_prefix('[')?.split(']').next()?,
    };
    let key = key.trim().trim_matches(['"', '\'', '[']);
    (!key.is_empty()).then(|| key.to_owned())
}

/// The lines above a span's beginning, and what stands before it on its own line.
fn around(span: &Span) -> (&str, &str) {
    let start = span.range.start.min(span.source.text.len());
    let before = span.source.text.get(..start).unwrap_or_default();
    let line = before.rfind('\n').map_or(0, |at| at + 1);
    before.split_at(line)
}

/// Rust's types in the words of TOML.
fn in_words(expected: &str) -> &str {
    match expected {
        "u8" | "u16" | "u32" | "u64" | "usize" => "a whole number, without quotes",
        "a boolean" => "`true` or `false`, without quotes",
        "a string" | "path string" => "a text in quotes",
        "a sequence" => "a list, between `[` and `]`",
        "a map" => "a table",
        expected if expected.starts_with("struct ") => "a table",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::super::Config;
    use super::*;

    fn finding(text: &str) -> Finding {
        let source = Arc::new(Source { path: FILE.into(), text: text.into() });
        Config::parse(&source).unwrap_err()
    }

    #[track_caller]
    fn said(text: &str, message: &str, label: &str, help: &str) {
        let finding = finding(text);
        assert_eq!(finding.message, message);
        assert_eq!(finding.label, label);
        assert_eq!(finding.help.as_deref(), Some(help));
    }

    #[test]
    fn an_unknown_key_is_one_that_was_meant_or_stands_elsewhere() {
        let unknown = |text, message, help| said(text, message, "unknown", help);
        let at_top = "did you mean `packages`?";
        unknown("pakages = []\n", "`pakages` is unknown in appliance.toml", at_top);
        unknown("[iamge.x]\n", "`iamge` is unknown in appliance.toml", "did you mean `image`?");
        unknown("[vm] # size\ncpu = 2\n", "`cpu` is unknown in `[vm]`", "did you mean `cpus`?");
        let above = "`packages` is a key of the whole file: put it above the first `[table]`";
        unknown("[vm]\ncpus = 2\npackages = []\n", "`packages` is unknown in `[vm]`", above);
        let vm = "it is a key of `[vm]`";
        unknown("memory = 512\n", "`memory` is unknown in appliance.toml", vm);
        let keys = "the keys here are memory, cpus, machine, kaslr";
        unknown("[vm]\nframebuffer = 1\n", "`framebuffer` is unknown in `[vm]`", keys);
        unknown("vm = { cpu = 1 }\n", "`cpu` is unknown in this table", "did you mean `cpus`?");
    }

    #[test]
    fn a_value_of_the_wrong_kind_is_said_in_words_of_toml() {
        let help = "README.md says what each key of appliance.toml takes";
        let wrong = |text, message, label| said(text, message, label, help);
        let number = "expected a whole number, without quotes";
        wrong("[vm]\nmemory = \"256M\"\n", "`memory` does not take `256M`", number);
        wrong("vm = { cpus = -1 }\n", "`cpus` does not take `-1`", number);
        let list = "expected a list, between `[` and `]`";
        wrong("packages = \"socat\"\n", "`packages` does not take `socat`", list);
        wrong("[user]\nname = \"ann\"\n", "`user` does not take this", list);
        let text = "expected a text in quotes";
        wrong("[files]\n\"/etc/x\" = 5\n", "`/etc/x` does not take `5`", text);
        let boolean = "expected `true` or `false`, without quotes";
        wrong("[root]\ndocs = \"yes\"\n", "`docs` does not take `yes`", boolean);
        let engines = "expected `crun` or `podman`";
        wrong("engine = \"docker\"\n", "`engine` does not take `docker`", engines);
        let near = "did you mean `podman`?";
        said("engine = \"podmn\"\n", "`engine` does not take `podmn`", engines, near);
    }

    #[test]
    fn what_lacks_and_what_is_there_twice_is_named() {
        let uid = finding("[[user]]\nname = \"ann\"\n");
        assert_eq!(
            (uid.message.as_str(), uid.span.unwrap().line_column()),
            ("`uid` is missing", (1, 1))
        );
        said(
            "name = \"a\"\nname = \"b\"\n",
            "duplicate key",
            "it stands further up, too",
            "leave one of them",
        );
        let broken = finding("packages = [\"socat\"\nname = \"a\"\n");
        assert!(broken.help.unwrap().contains("toml.io"));
    }

    /// The lists here are of the keys that serde knows.
    #[test]
    fn the_lists_of_keys_are_whole() {
        let keys = |text: &str| {
            let source = toml::from_str::<Config>(text).unwrap_err();
            let known: Vec<String> =
                source.message().split('`').skip(3).step_by(2).map(str::to_owned).collect();
            known
        };
        assert_eq!(keys("zzzzzzzz = 1\n"), OUTERMOST);
        for (key, table) in INNER {
            assert!(keys(&format!("[{table}]\nzzzzzzzz = 1\n")).contains(&key.to_owned()), "{key}");
        }
    }
}
