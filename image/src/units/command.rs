//! Command lines: `ExecStart=` and its kin (systemd.service(5), "Command lines").

use super::exec::{self, Environment, Exec};
use super::keys::Keys;
use super::quoting::Word;
use super::syntax::Assignment;
use super::value;
use super::variables;
use crate::appliance;
use crate::finding::{Finding, Span};
use activator::manifest::Command;

/// What the commands of a unit have in common.
pub(crate) struct Context<'a> {
    section: &'static str,
    environment: &'a Environment,
    /// Below it the programs are: `RootDirectory=`, mostly empty.
    root: &'a str,
}

impl<'a> Context<'a> {
    pub(crate) fn new(section: &'static str, exec: &'a Exec) -> Self {
        Self { section, environment: &exec.environment, root: exec.root() }
    }
}

/// All commands of a key.
pub(crate) fn list(keys: &mut Keys<'_>, key: &str, context: &Context<'_>) -> Vec<Command> {
    let mut commands = vec![];
    for line in keys.list(context.section, key) {
        let Some(words) = keys.raw_words(line) else { continue };
        let raw = |word: &Word| line.value.text.get(word.range.clone()).unwrap_or_default();
        for words in words.words.split(|word| raw(word) == ";") {
            // Escaped, it is only a semicolon.
            let mut words = words.to_vec();
            for word in words.iter_mut().filter(|word| raw(word) == "\\;") {
                word.text = ";".into();
            }
            commands.extend(command(keys, line, &words, context));
        }
    }
    commands
}

/// What stands before the program, in any order.
#[derive(Debug, Default, PartialEq)]
struct Prefixes {
    ignore_failure: bool,
    own_name: bool,
    verbatim: bool,
    /// `+`
    privileged: bool,
    /// `!` and `!!`, which is the same where the kernel has ambient capabilities.
    privileged_user: bool,
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
                Some('+') => &mut prefixes.privileged,
                Some('!') => &mut prefixes.privileged_user,
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
    context: &Context<'_>,
) -> Option<Command> {
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
    if prefixes.privileged && prefixes.privileged_user {
        keys.findings.push(
            Finding::error(span.clone(), format!("`{key}=` has both prefixes `+` and `!`"))
                .label("one gives all privileges, the other only keeps the user")
                .help("write one of them"),
        );
    }
    let program = Word { text: program.to_owned(), range: first.range.clone() };
    let program = keys.expand_word(line, &program)?;
    let program = match prefixes.shell {
        // The shell finds it, or has it built in.
        true => program,
        false => {
            let root = if prefixes.privileged { "" } else { context.root };
            let place = Place { key, span: &span, root };
            find(keys, &place, context.environment, &program, prefixes.ignore_failure)?
        }
    };
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
    let mut texts = vec![];
    for word in rest {
        texts.push((keys.expand_word(line, word)?, word));
    }
    let known = |(text, _): &(String, &Word)| variables::is_known(text, context.environment);
    let expand = !prefixes.verbatim && !texts.iter().all(known);
    let mut arguments = vec![name];
    for (text, word) in texts {
        if prefixes.verbatim || expand {
            arguments.push(text);
            continue;
        }
        let mut unset = vec![];
        arguments.extend(variables::expand(&text, &context.environment.variables, &mut unset));
        for name in unset {
            let span = line.value.span_of(word.range.clone());
            keys.findings.push(
                Finding::warning(
                    span,
                    format!("`{key}=` uses the variable `{name}`, which nothing sets"),
                )
                .label("becomes empty")
                .help(format!("add `Environment={name}=...`, or write `$$` for a dollar sign")),
            );
        }
    }
    Some(Command {
        program,
        arguments,
        expand,
        shell: prefixes.shell,
        ignore_failure: prefixes.ignore_failure,
        privileged: prefixes.privileged,
        privileged_user: prefixes.privileged_user,
    })
}

/// Where a program is named, and below which folder it is.
struct Place<'a> {
    key: &'a str,
    span: &'a Span,
    root: &'a str,
}

/// The program's absolute path.
fn find(
    keys: &mut Keys<'_>,
    place: &Place<'_>,
    environment: &Environment,
    program: &str,
    may_be_missing: bool,
) -> Option<String> {
    let Place { key, span, root } = place;
    let facts = keys.facts;
    // The name of an instance stands for one that only the guest knows.
    let exists = |path: &str| {
        exec::has_instance(&path) || facts.has_file(&format!("{root}{path}")) != Some(false)
    };
    let is_writable =
        |path: &str| appliance::is_writable(facts.input.config, &format!("{root}{path}"));
    if !program.contains('/') && !program.is_empty() {
        let folders = &environment.search_path;
        let candidates = || folders.iter().map(|folder| format!("{folder}/{program}"));
        let usual = match folders.iter().any(|folder| folder == "/usr/bin") {
            true => Some(format!("/usr/bin/{program}")),
            false => folders.first().map(|folder| format!("{folder}/{program}")),
        };
        return match (facts.input.has_file, candidates().find(|path| exists(path))) {
            (None, _) => usual,
            (Some(_), Some(path)) => Some(path),
            (Some(_), None) if may_be_missing => usual,
            (Some(_), None) => {
                let written = candidates().find(|path| is_writable(path));
                let path = written.as_deref().unwrap_or(program);
                keys.findings.push(missing(key, path, span, written.is_some()));
                written
            }
        };
    }
    match value::path(program) {
        Ok(path) if path != "/" => {
            if !exists(&path) && !may_be_missing {
                keys.findings.push(missing(key, &path, span, is_writable(&path)));
            }
            Some(path)
        }
        _ => {
            keys.findings.push(
                Finding::error((*span).clone(), format!("`{key}=` does not begin with a program"))
                    .label("expected an absolute path, or a name without `/`")
                    .help("write the program's path in the image"),
            );
            None
        }
    }
}

/// What the guest can write to, only the guest knows.
fn missing(key: &str, program: &str, span: &Span, is_writable: bool) -> Finding {
    let message = format!("`{key}=` runs `{program}`, which the image has not");
    if is_writable {
        return Finding::warning(span.clone(), message)
            .label("nothing is there before the guest has written it")
            .help("see that it is written before the unit starts");
    }
    Finding::error(span.clone(), message)
        .label("no such file")
        .help("add the package that has it to `packages` in appliance.toml, or its file to `files`")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_stand_in_any_order() {
        let none = Prefixes::default;
        for (text, expected) in [
            ("/a", none()),
            ("-/a", Prefixes { ignore_failure: true, ..none() }),
            ("@-:/a", Prefixes { ignore_failure: true, own_name: true, verbatim: true, ..none() }),
            ("-@/a", Prefixes { ignore_failure: true, own_name: true, ..none() }),
            ("+/a", Prefixes { privileged: true, ..none() }),
            ("!!/a", Prefixes { privileged_user: true, ..none() }),
            ("-!/a", Prefixes { ignore_failure: true, privileged_user: true, ..none() }),
            ("|-/a", Prefixes { ignore_failure: true, shell: true, ..none() }),
        ] {
            assert_eq!(Prefixes::strip(text), (expected, "/a"), "{text}");
        }
    }
}
