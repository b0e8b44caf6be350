//! Command lines: `ExecStart=` and its kin (systemd.service(5), "Command lines").

use super::keys::Keys;
use super::quoting::Word;
use super::syntax::Assignment;
use super::value;
use super::variables::{self, Problem};
use crate::finding::{Finding, Span};
use activator::manifest::Command;
use std::collections::BTreeMap;

/// Where a program without a path is looked for, in that order.
const SEARCH_PATH: [&str; 4] = ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin"];

/// All commands of a key with the place of each.
pub(crate) fn list(
    keys: &mut Keys<'_>,
    key: &str,
    environment: &BTreeMap<String, String>,
) -> Vec<(Command, Span)> {
    let mut commands = vec![];
    for line in keys.list("Service", key) {
        let Some(words) = keys.raw_words(line) else { continue };
        let raw = |word: &Word| line.value.text.get(word.range.clone()).unwrap_or_default();
        for words in words.words.split(|word| raw(word) == ";") {
            // Escaped, it is only a semicolon.
            let mut words = words.to_vec();
            for word in words.iter_mut().filter(|word| raw(word) == "\\;") {
                word.text = ";".into();
            }
            commands.extend(command(keys, line, &words, environment));
        }
    }
    commands
}

/// What stands before the program.
#[derive(Default)]
struct Prefixes {
    ignore_failure: bool,
    own_name: bool,
    verbatim: bool,
    privileged: bool,
    shell: bool,
}

impl Prefixes {
    fn strip(word: &str) -> (Self, &str) {
        let mut prefixes = Self::default();
        let mut rest = word;
        loop {
            let prefix = match rest.chars().next() {
                Some('-') => &mut prefixes.ignore_failure,
                Some('@') => &mut prefixes.own_name,
                Some(':') => &mut prefixes.verbatim,
                Some('+' | '!') => &mut prefixes.privileged,
                Some('|') => &mut prefixes.shell,
                _ => return (prefixes, rest),
            };
            *prefix = true;
            rest = &rest[1..];
        }
    }
}

fn command(
    keys: &mut Keys<'_>,
    line: &Assignment,
    words: &[Word],
    environment: &BTreeMap<String, String>,
) -> Option<(Command, Span)> {
    let key = &line.key;
    let Some((first, rest)) = words.split_first() else {
        let message = format!("`{key}=` has a `;` without a command beside it");
        keys.findings.push(
            Finding::error(line.value.span(), message)
                .label("expected a command on both sides")
                .help("take the `;` out, or write `\\;` for the character itself"),
        );
        return None;
    };
    let span = line.value.span_of(first.range.clone());
    let (prefixes, program) = Prefixes::strip(&first.text);
    if prefixes.shell {
        keys.findings.push(
            Finding::error(
                span.clone(),
                format!("`{key}=` has the prefix `|`, which this version does not support"),
            )
            .label("refused")
            .help("call the shell by name: `/bin/sh -c '...'`"),
        );
    }
    let program = Word { text: program.to_owned(), range: first.range.clone() };
    let program = keys.expand_word(line, &program)?;
    let program = find(keys, key, &program, &span, prefixes.ignore_failure)?;
    let (name, rest) = match (prefixes.own_name, rest.split_first()) {
        (false, _) => (program.clone(), rest),
        (true, Some((name, rest))) => (keys.expand_word(line, name)?, rest),
        (true, None) => {
            keys.findings.push(
                Finding::error(
                    span,
                    format!("`{key}=` has the prefix `@` and no name after the program"),
                )
                .label("expected argv[0] as the second word")
                .help("take the `@` out, or add the name"),
            );
            return None;
        }
    };
    let mut arguments = vec![name];
    for word in rest {
        let text = keys.expand_word(line, word)?;
        if prefixes.verbatim {
            arguments.push(text);
            continue;
        }
        let mut problems = vec![];
        arguments.extend(variables::expand(&text, environment, &mut problems));
        for (name, problem) in problems {
            let span = line.value.span_of(word.range.clone());
            keys.findings.push(variable(key, span, &name, problem));
        }
    }
    let command = Command {
        program,
        arguments,
        ignore_failure: prefixes.ignore_failure,
        privileged: prefixes.privileged,
        ..Command::default()
    };
    Some((command, span))
}

fn variable(key: &str, span: Span, name: &str, problem: Problem) -> Finding {
    match problem {
        Problem::Unset => Finding::warning(
            span,
            format!("`{key}=` uses the variable `{name}`, which nothing sets"),
        )
        .label("becomes empty")
        .help(format!("add `Environment={name}=...`, or write `$$` for a dollar sign")),
        Problem::OnlyInTheGuest => Finding::error(
            span,
            format!("`{key}=` uses the variable `{name}`, which only the running guest knows"),
        )
        .label("only `$MAINPID` is filled in there")
        .help(format!("let the program read `{name}` from its environment")),
    }
}

/// The program's absolute path.
fn find(
    keys: &mut Keys<'_>,
    key: &str,
    program: &str,
    span: &Span,
    may_be_missing: bool,
) -> Option<String> {
    let facts = keys.facts;
    let exists = |path: &str| facts.has_file(path) != Some(false);
    if !program.contains('/') && !program.is_empty() {
        let mut candidates = SEARCH_PATH.iter().map(|folder| format!("{folder}/{program}"));
        return match (facts.input.has_file, candidates.find(|path| exists(path))) {
            (None, _) => Some(format!("/usr/bin/{program}")),
            (Some(_), Some(path)) => Some(path),
            (Some(_), None) if may_be_missing => Some(format!("/usr/bin/{program}")),
            (Some(_), None) => {
                keys.findings.push(missing(key, program, span));
                None
            }
        };
    }
    match value::path(program) {
        Ok(path) if path != "/" => {
            if !exists(&path) && !may_be_missing {
                keys.findings.push(missing(key, &path, span));
            }
            Some(path)
        }
        _ => {
            keys.findings.push(
                Finding::error(span.clone(), format!("`{key}=` does not begin with a program"))
                    .label("expected an absolute path, or a name without `/`")
                    .help("write the program's path in the image"),
            );
            None
        }
    }
}

fn missing(key: &str, program: &str, span: &Span) -> Finding {
    Finding::error(span.clone(), format!("`{key}=` runs `{program}`, which the image has not"))
        .label("no such file")
        .help("add the package that has it to `packages` in appliance.toml, or its file to `files`")
}
