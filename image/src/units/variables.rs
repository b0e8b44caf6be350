//! `$VARIABLES` in command lines (systemd.service(5), "Command lines").
//!
//! `$NAME` as a word of its own becomes the words of its value, `${NAME}` anywhere becomes its
//! value, `$$` is one `$`. All is done here, but for `$MAINPID`, which the guest replaces.

use super::quoting::{self, Escapes};
use std::collections::BTreeMap;

/// What a variable expands to here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Problem {
    /// Nobody sets it: empty, as in systemd.
    Unset,
    /// Only the running guest could know it.
    OnlyInTheGuest,
}

/// Name of the variable that stays.
const MAIN_PID: &str = "MAINPID";

/// What the guest sets for a process and the host cannot know.
const OF_THE_GUEST: [&str; 14] = [
    "LISTEN_FDS",
    "LISTEN_PID",
    "LISTEN_FDNAMES",
    "NOTIFY_SOCKET",
    "INVOCATION_ID",
    "SERVICE_RESULT",
    "EXIT_CODE",
    "EXIT_STATUS",
    "WATCHDOG_PID",
    "WATCHDOG_USEC",
    "REMOTE_ADDR",
    "REMOTE_PORT",
    "SYSTEMD_EXEC_PID",
    "JOURNAL_STREAM",
];

/// Expands one argument to any number of them.
pub(crate) fn expand(
    argument: &str,
    variables: &BTreeMap<String, String>,
    problems: &mut Vec<(String, Problem)>,
) -> Vec<String> {
    if let Some(name) = argument.strip_prefix('$').filter(|name| is_name(name)) {
        return match lookup(name, variables, problems) {
            Some(value) if name == MAIN_PID => vec![value],
            Some(value) => {
                let words = quoting::split(&value, Escapes::Decode).words;
                words.into_iter().map(|word| word.text).collect()
            }
            None => vec![],
        };
    }
    let mut expanded = String::with_capacity(argument.len());
    let mut rest = argument;
    while let Some(at) = rest.find('$') {
        expanded.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(tail) = rest.strip_prefix('$') {
            expanded.push('$');
            rest = tail;
            continue;
        }
        let braced = rest.strip_prefix('{').and_then(|tail| tail.split_once('}'));
        match braced.filter(|(name, _)| is_name(name)) {
            Some((name, tail)) => {
                expanded.push_str(&lookup(name, variables, problems).unwrap_or_default());
                rest = tail;
            }
            None => expanded.push('$'),
        }
    }
    expanded.push_str(rest);
    vec![expanded]
}

fn lookup(
    name: &str,
    variables: &BTreeMap<String, String>,
    problems: &mut Vec<(String, Problem)>,
) -> Option<String> {
    if name == MAIN_PID {
        return Some(format!("${MAIN_PID}"));
    }
    if let Some(value) = variables.get(name) {
        return Some(value.clone());
    }
    let problem = match OF_THE_GUEST.contains(&name) {
        true => Problem::OnlyInTheGuest,
        false => Problem::Unset,
    };
    problems.push((name.to_owned(), problem));
    None
}

/// Whether a text is the name of a variable.
pub(crate) fn is_name(text: &str) -> bool {
    !text.is_empty()
        && !text.starts_with(|c: char| c.is_ascii_digit())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_braces_and_dollars() {
        let variables =
            [("A", "one 'two three'"), ("E", "")].map(|(k, v)| (k.to_owned(), v.to_owned())).into();
        let mut problems = vec![];
        let mut expand = |text: &str| expand(text, &variables, &mut problems);
        assert_eq!(expand("$A"), ["one", "two three"]);
        assert_eq!(expand("x${A}y"), ["xone 'two three'y"]);
        assert_eq!(expand("$E"), Vec::<String>::new());
        assert_eq!(expand("${E}"), [""]);
        assert_eq!(expand("$$A"), ["$A"]);
        assert_eq!(expand("a$A ${"), ["a$A ${"]);
        assert_eq!(expand("$MAINPID"), ["$MAINPID"]);
        assert_eq!(expand("-p${MAINPID}"), ["-p$MAINPID"]);
        assert_eq!(expand("$NONE"), Vec::<String>::new());
        assert_eq!(expand("${LISTEN_FDS}"), [""]);
        let expected = [("NONE", Problem::Unset), ("LISTEN_FDS", Problem::OnlyInTheGuest)];
        assert_eq!(problems, expected.map(|(name, problem)| (name.to_owned(), problem)));
    }
}
