//! `$VARIABLES` in command lines (systemd.service(5), "Command lines").
//!
//! The rules are [`activator::variables`]. All is done here, but for `$MAINPID`, which the guest
//! replaces; a command with a variable that only the guest knows is left to the guest as a whole.

use super::exec::Environment;
use activator::manifest::INSTANCE;
pub(crate) use activator::variables::is_name;
use std::collections::BTreeMap;

/// Name of the variable that stays.
const MAIN_PID: &str = "MAINPID";

/// What the guest sets for a process and the host cannot know.
const OF_THE_GUEST: [&str; 24] = [
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
    "SO_COOKIE",
    "SYSTEMD_EXEC_PID",
    "JOURNAL_STREAM",
    "FDSTORE",
    "RUNTIME_DIRECTORY",
    "STATE_DIRECTORY",
    "CACHE_DIRECTORY",
    "LOGS_DIRECTORY",
    "CONFIGURATION_DIRECTORY",
    "CREDENTIALS_DIRECTORY",
    "TERM",
    MAIN_PID,
];

/// Whether the guest gives a variable its value, whatever the unit says.
pub(crate) fn is_of_the_guest(name: &str) -> bool {
    OF_THE_GUEST.contains(&name)
}

/// Whether the host can replace all variables of an argument.
pub(crate) fn is_known(argument: &str, environment: &Environment) -> bool {
    let known = |name: &str| match environment.variables.get(name) {
        // The name of the instance comes later, and might fall into words.
        _ if name == MAIN_PID => true,
        Some(value) => !environment.is_open() && !value.contains(INSTANCE.trim_end_matches('@')),
        None => !environment.is_open() && !is_of_the_guest(name),
    };
    names(argument).into_iter().all(known)
}

/// The variables that an argument uses.
fn names(argument: &str) -> Vec<&str> {
    if let Some(name) = argument.strip_prefix('$').filter(|name| is_name(name)) {
        return vec![name];
    }
    let mut names = vec![];
    let mut rest = argument;
    while let Some(at) = rest.find('$') {
        rest = &rest[at + 1..];
        if let Some(tail) = rest.strip_prefix('$') {
            rest = tail;
            continue;
        }
        let braced = rest.strip_prefix('{').and_then(|tail| tail.split_once('}'));
        if let Some((name, tail)) = braced.filter(|(name, _)| is_name(name)) {
            names.push(name);
            rest = tail;
        }
    }
    names
}

/// Expands one argument to any number of them; `unset` are the variables that nobody sets, which
/// are empty, as in systemd.
pub(crate) fn expand(
    argument: &str,
    variables: &BTreeMap<String, String>,
    unset: &mut Vec<String>,
) -> Vec<String> {
    activator::variables::expand(argument, &mut |name| {
        let value = match name {
            MAIN_PID => Some(format!("${MAIN_PID}")),
            name => variables.get(name).cloned(),
        };
        if value.is_none() {
            unset.push(name.to_owned());
        }
        value
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_braces_and_dollars() {
        let variables =
            [("A", "one 'two three'"), ("E", "")].map(|(k, v)| (k.to_owned(), v.to_owned())).into();
        let mut unset = vec![];
        let mut expand = |text: &str| expand(text, &variables, &mut unset);
        assert_eq!(expand("$A"), ["one", "two three"]);
        assert_eq!(expand("x${A}y"), ["xone 'two three'y"]);
        assert_eq!(expand("$E"), Vec::<String>::new());
        assert_eq!(expand("${E}"), [""]);
        assert_eq!(expand("$$A"), ["$A"]);
        assert_eq!(expand("a$A ${"), ["a$A ${"]);
        assert_eq!(expand("$MAINPID"), ["$MAINPID"]);
        assert_eq!(expand("-p${MAINPID}"), ["-p$MAINPID"]);
        assert_eq!(expand("$NONE"), Vec::<String>::new());
        assert_eq!(unset, ["NONE"]);
    }

    #[test]
    fn some_variables_only_the_guest_knows() {
        let mut environment = Environment::default();
        environment.variables.insert("A".into(), "1".into());
        environment.variables.insert("I".into(), format!("x-{INSTANCE}"));
        for (text, known) in [
            ("$A", true),
            ("${NONE}", true),
            ("-p${MAINPID}", true),
            ("$$LISTEN_FDS", true),
            ("x$LISTEN_FDS", true),
            ("$I", false),
            ("${A}${LISTEN_FDS}", false),
            ("$RUNTIME_DIRECTORY", false),
        ] {
            assert_eq!(is_known(text, &environment), known, "{text}");
        }
        environment.passed.push("HTTP_PROXY".into());
        assert!(!is_known("$A", &environment), "PID 1 may have another value");
        assert!(is_known("A", &environment));
    }
}
