//! Reading the keys of one unit: the last value of a key, its list, with findings for what does
//! not parse.

use super::Facts;
use super::accounts::User;
use super::definition::Definition;
use super::files::Place;
use super::name::Name;
use super::quoting::{self, Escapes, Word, Words};
use super::specifier::{Reason, Specifiers};
use super::suggest;
use super::syntax::{Assignment, shorten};
use super::table::{self, Page};
use super::value::{self, Expected};
use crate::config::Engine;
use crate::finding::{Finding, Span};
use std::ops::Range;

/// Reads one unit.
pub(crate) struct Keys<'a> {
    pub(crate) unit: &'a Definition,
    pub(crate) facts: &'a Facts<'a>,
    pub(crate) specifiers: Specifiers,
    pub(crate) findings: &'a mut Vec<Finding>,
}

/// A value with its specifiers replaced.
#[derive(Debug, Clone)]
pub(crate) struct Text<'a> {
    pub(crate) text: String,
    pub(crate) assignment: &'a Assignment,
}

impl Text<'_> {
    /// Where a part of the text came from; the whole value if specifiers moved it.
    pub(crate) fn span_of(&self, range: Range<usize>) -> Span {
        if self.text == self.assignment.value.text {
            self.assignment.value.span_of(range)
        } else {
            self.assignment.value.span()
        }
    }
}

impl<'a> Keys<'a> {
    pub(crate) fn new(
        unit: &'a Definition,
        facts: &'a Facts<'a>,
        findings: &'a mut Vec<Finding>,
    ) -> Self {
        let mut specifiers = facts.specifiers(&unit.name);
        if let Some(main) = unit.sources.first().filter(|_| unit.place != Place::Folder) {
            specifiers.fragment = Some(main.path.clone());
        }
        Self { unit, facts, specifiers, findings }
    }

    /// All values since the last empty one.
    pub(crate) fn list(&self, section: &str, key: &str) -> Vec<&'a Assignment> {
        let unit = self.unit;
        let mut list = vec![];
        for found in &unit.assignments {
            if found.section == section && found.key == key {
                if found.value.text.is_empty() {
                    list.clear();
                } else {
                    list.push(found);
                }
            }
        }
        list
    }

    /// The last value that parses; the others become findings. Earlier spellings of a key stand
    /// beside it in `keys`.
    pub(crate) fn last_of<T>(
        &mut self,
        keys: &[(&str, &str)],
        parse: impl Fn(&str) -> Result<T, Expected>,
    ) -> Option<T> {
        let mut last = None;
        let unit = self.unit;
        for found in &unit.assignments {
            if keys.iter().any(|(section, key)| found.section == *section && found.key == *key) {
                match parse(&found.value.text) {
                    Ok(value) => last = Some(value),
                    Err(expected) => self.bad(found, &expected),
                }
            }
        }
        last
    }

    pub(crate) fn last<T>(
        &mut self,
        section: &str,
        key: &str,
        parse: impl Fn(&str) -> Result<T, Expected>,
    ) -> Option<T> {
        self.last_of(&[(section, key)], parse)
    }

    pub(crate) fn boolean(&mut self, section: &str, key: &str) -> Option<bool> {
        self.last(section, key, value::boolean)
    }

    /// Whether the last value that is not empty says yes.
    pub(crate) fn flag(&mut self, section: &str, key: &str) -> bool {
        self.setting(section, key, value::boolean).unwrap_or(false)
    }

    /// The last value as text with specifiers; an empty one resets.
    pub(crate) fn text(&mut self, section: &str, key: &str) -> Option<Text<'a>> {
        let unit = self.unit;
        let found = unit.all(section, key).next_back()?;
        if found.value.text.is_empty() { None } else { self.expand(found) }
    }

    /// The last value that parses, where an empty one resets.
    pub(crate) fn setting<T>(
        &mut self,
        section: &str,
        key: &str,
        parse: impl Fn(&str) -> Result<T, Expected>,
    ) -> Option<T> {
        let some = |text: &str| if text.is_empty() { Ok(None) } else { parse(text).map(Some) };
        self.last(section, key, some).flatten()
    }

    /// Replaces specifiers; a finding if one of them has no value.
    pub(crate) fn expand(&mut self, found: &'a Assignment) -> Option<Text<'a>> {
        let text = self.expand_part(found, 0..found.value.text.len(), &found.value.text)?;
        Some(Text { text, assignment: found })
    }

    /// Replaces specifiers in one word of a value, which is at `range` there.
    pub(crate) fn expand_word(&mut self, found: &Assignment, word: &Word) -> Option<String> {
        self.expand_part(found, word.range.clone(), &word.text)
    }

    fn expand_part(
        &mut self,
        found: &Assignment,
        range: Range<usize>,
        text: &str,
    ) -> Option<String> {
        let unresolved = match self.specifiers.expand(text) {
            Ok(text) => return Some(text),
            Err(unresolved) => unresolved,
        };
        let specifier = text[unresolved.range.clone()].to_owned();
        let key = &found.key;
        let (message, help) = match unresolved.reason {
            Reason::Unknown => (
                format!("`{key}=` has the specifier `{specifier}`, which does not exist"),
                format!("write `%{specifier}` if a percent sign is meant"),
            ),
            Reason::OnlyInTheGuest => (
                format!(
                    "`{key}=` has the specifier `{specifier}`, which only the running guest knows"
                ),
                "write the value itself".to_owned(),
            ),
        };
        let exact = found.value.text.get(range.clone()) == Some(text);
        let place = match exact {
            true => range.start + unresolved.range.start..range.start + unresolved.range.end,
            false => range,
        };
        self.findings.push(
            Finding::error(found.value.span_of(place), message)
                .label("no value for this")
                .help(help),
        );
        None
    }

    /// The words of a value as it was written, before specifiers.
    pub(crate) fn raw_words(&mut self, found: &'a Assignment) -> Option<Words> {
        self.words(&Text { text: found.value.text.clone(), assignment: found })
    }

    /// Splits into words; findings for quotes that do not close and escapes that mean nothing.
    pub(crate) fn words(&mut self, text: &Text<'_>) -> Option<Words> {
        let words = quoting::split(&text.text, Escapes::Decode);
        let key = &text.assignment.key;
        if let Some(at) = words.unclosed {
            let message = format!("`{key}=` has a quote that is never closed");
            self.findings.push(
                Finding::error(text.span_of(at..at + 1), message)
                    .label("opened here")
                    .help("close the quote, or write `\\\"` for the character itself"),
            );
            return None;
        }
        for range in &words.unknown {
            let escape = &text.text[range.clone()];
            // Command lines write a `;` of their own so.
            if escape == "\\;" && key.starts_with("Exec") {
                continue;
            }
            let message = format!("`{key}=` has the escape `{escape}`, which does not exist");
            self.findings.push(
                Finding::warning(text.span_of(range.clone()), message)
                    .label("taken as it stands")
                    .help("write `\\\\` for a backslash"),
            );
        }
        Some(words)
    }

    /// The words of all values since the last empty one, each with its specifiers replaced.
    pub(crate) fn list_words(&mut self, section: &str, key: &str) -> Vec<(&'a Assignment, Word)> {
        let mut found = vec![];
        for line in self.list(section, key) {
            let Some(words) = self.raw_words(line) else { continue };
            for word in words.words {
                let Some(text) = self.expand_word(line, &word) else { continue };
                found.push((line, Word { text, ..word }));
            }
        }
        found
    }

    /// A path with specifiers, made simple.
    pub(crate) fn path(&mut self, text: &Text<'_>) -> Option<String> {
        match value::path(&text.text) {
            Ok(path) => Some(path),
            Err(expected) => {
                self.bad(text.assignment, &expected);
                None
            }
        }
    }

    /// A unit's name. In a Quadlet, that of another stands for the service that it becomes.
    fn name(&self, text: &str) -> Option<Name> {
        if self.unit.quadlet.is_some() && text.ends_with(".container") {
            let quadlets = &self.facts.quadlets;
            let service = quadlets.iter().find(|(_, file)| *file == text);
            return service.map(|(name, _)| name.clone());
        }
        Name::parse(text)
    }

    /// Whether a Quadlet names the file of a thing that no service of engine crun makes: it is
    /// there from the beginning.
    fn is_there_already(&self, text: &str) -> bool {
        self.unit.quadlet.is_some()
            && self.facts.input.config.engine == Engine::Crun
            && [".volume", ".image", ".build"].iter().any(|kind| text.ends_with(kind))
            && self.facts.resources.contains_key(text)
    }

    /// Unit names in a list of words; a finding for each that is none.
    pub(crate) fn names(&mut self, section: &str, key: &str) -> Vec<(Name, Span)> {
        let unit = self.unit;
        let mut names = vec![];
        for found in unit.all(section, key) {
            let Some(text) = self.expand(found) else { continue };
            // Names keep their escapes: `a\x2db.service` is a name.
            for word in quoting::split(&text.text, Escapes::Literal).words {
                if self.is_there_already(&word.text) {
                    continue;
                }
                let span = text.span_of(word.range);
                match self.name(&word.text) {
                    Some(name) => names.push((name, span)),
                    None => {
                        let message = format!(
                            "`{key}=` takes unit names, and `{}` is none",
                            shorten(&word.text)
                        );
                        self.findings.push(
                            Finding::error(span, message)
                                .label("expected a name such as `echo.socket`")
                                .help("write the full name, with its type"),
                        );
                    }
                }
            }
        }
        names
    }

    /// Where a key is explained.
    fn page(&self, found: &Assignment) -> &'static str {
        match table::find(&found.section, &found.key) {
            Some((_, page)) => page.name(),
            None if found.key.starts_with("X-") => "rouse's README",
            None if self.unit.quadlet.is_some() => "podman-systemd.unit(5)",
            None => Page::Unit.name(),
        }
    }

    /// One word of a value that is not what its key takes.
    pub(crate) fn bad_word(&mut self, found: &Assignment, word: &Word, expected: &Expected) {
        let message = format!("`{}=` does not take `{}`", found.key, shorten(&word.text));
        let page = self.page(found);
        self.findings.push(
            Finding::error(found.value.span_of(word.range.clone()), message)
                .label(format!("expected {expected}"))
                .help(format!("see {page}, or take the word out")),
        );
    }

    /// A value that is not what its key takes.
    pub(crate) fn bad(&mut self, found: &Assignment, expected: &Expected) {
        let page = self.page(found);
        let key = &found.key;
        let message = match shorten(&found.value.text).as_str() {
            "" => format!("`{key}=` does not take an empty value"),
            value => format!("`{key}=` does not take `{value}`"),
        };
        let help = format!("see {page}, or leave the line out for the default");
        self.findings.push(
            Finding::error(found.value.span(), message)
                .label(format!("expected {expected}"))
                .help(help),
        );
    }
}

/// Accounts of the image.
impl Keys<'_> {
    /// A user of the image; a finding if there is none of that name.
    pub(crate) fn user(&mut self, text: &Text<'_>) -> Option<User> {
        let user = self.facts.accounts.user(&text.text);
        if user.is_none() {
            let near = suggest::nearest(&text.text, self.facts.accounts.user_names());
            self.nobody(text, "user", near.map(str::to_owned));
        }
        user
    }

    /// A group of the image; a finding if there is none of that name.
    pub(crate) fn group(&mut self, text: &Text<'_>) -> Option<u32> {
        let group = self.facts.accounts.group(&text.text);
        if group.is_none() {
            let near = suggest::nearest(&text.text, self.facts.accounts.group_names());
            self.nobody(text, "group", near.map(str::to_owned));
        }
        group
    }

    fn nobody(&mut self, text: &Text<'_>, what: &str, near: Option<String>) {
        let key = &text.assignment.key;
        let message = format!("`{key}=` names the {what} `{}`, which the image has not", text.text);
        let help = match near {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("write its number, or add the package that makes the {what}"),
        };
        self.findings.push(
            Finding::error(text.assignment.value.span(), message)
                .label(format!("unknown {what}"))
                .help(help),
        );
    }
}
