//! How the processes of a service run, systemd.exec(5): who they are, what they see, their limits.

use super::keys::{Keys, Text};
use super::value::{self, Expected, size, time};
use super::variables;
use crate::finding::Finding;
use activator::manifest::{Execution, Input, Output, User};
use std::collections::BTreeMap;

const SECTION: &str = "Service";
/// systemd's default PATH of system services.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin";
/// What the manifest calls infinity.
const INFINITY: u64 = u64::MAX;

/// What the keys say, and the environment by name, for the command lines.
pub(crate) struct Exec {
    pub(crate) environment: BTreeMap<String, String>,
    pub(crate) execution: Execution,
}

/// Reads it all.
pub(crate) fn read(keys: &mut Keys<'_>) -> Exec {
    let account = user(keys);
    let home =
        account.as_ref().map_or(keys.specifiers.home.clone(), |account| account.home.clone());
    let stdin = stdin(keys);
    let stdout = output(keys, "StandardOutput").unwrap_or(match stdin {
        Input::Socket => Output::Inherit,
        _ => Output::Log,
    });
    let environment = environment(keys, account.as_ref());
    let execution = Execution {
        environment: environment.iter().map(|(name, value)| format!("{name}={value}")).collect(),
        working_directory: working_directory(keys, &home),
        user: account.map(|account| account.ids),
        umask: keys.setting(SECTION, "UMask", value::mode).unwrap_or(0o022),
        stderr: output(keys, "StandardError").unwrap_or(Output::Inherit),
        stdin,
        stdout,
        limits: limits(keys),
        oom_score_adjust: keys
            .setting(SECTION, "OOMScoreAdjust", |text| value::number(text, -1000, 1000))
            .map(|score| score as i32),
        nice: keys
            .setting(SECTION, "Nice", |text| value::number(text, -20, 19))
            .map(|nice| nice as i32),
        no_new_privileges: keys.boolean(SECTION, "NoNewPrivileges").unwrap_or(false),
        ..Execution::default()
    };
    Exec { environment, execution }
}

/// `User=` with what the environment needs of it.
struct Account {
    ids: User,
    name: String,
    home: String,
    shell: String,
}

fn user(keys: &mut Keys<'_>) -> Option<Account> {
    let user = keys.text(SECTION, "User").and_then(|text| keys.user(&text));
    let group = keys.text(SECTION, "Group").and_then(|text| keys.group(&text));
    let mut groups = vec![];
    for line in keys.list(SECTION, "SupplementaryGroups") {
        let Some(words) = keys.raw_words(line) else { continue };
        for word in words.words {
            let Some(text) = keys.expand_word(line, &word) else { continue };
            groups.extend(keys.group(&Text { text, assignment: line }));
        }
    }
    if user.is_none() && group.is_none() && groups.is_empty() {
        return None;
    }
    let accounts = &keys.facts.accounts;
    let user = user.or_else(|| accounts.user("root"))?;
    groups.extend(accounts.groups_of(&user.name));
    groups.sort_unstable();
    groups.dedup();
    let ids = User { uid: user.uid, gid: group.unwrap_or(user.gid), groups };
    Some(Account { ids, name: user.name, home: user.home, shell: user.shell })
}

fn environment(keys: &mut Keys<'_>, account: Option<&Account>) -> BTreeMap<String, String> {
    let mut environment = BTreeMap::from([("PATH".to_owned(), PATH.to_owned())]);
    if let Some(account) = account {
        environment.insert("USER".into(), account.name.clone());
        environment.insert("LOGNAME".into(), account.name.clone());
        environment.insert("HOME".into(), account.home.clone());
        environment.insert("SHELL".into(), account.shell.clone());
    }
    for line in keys.list(SECTION, "Environment") {
        let Some(words) = keys.raw_words(line) else { continue };
        for word in words.words {
            let Some(text) = keys.expand_word(line, &word) else { continue };
            match text.split_once('=').filter(|(name, _)| variables::is_name(name)) {
                Some((name, value)) => {
                    environment.insert(name.to_owned(), value.to_owned());
                }
                None => keys.findings.push(
                    Finding::error(
                        line.value.span_of(word.range),
                        "`Environment=` has a word that sets no variable",
                    )
                    .label("expected `NAME=value`")
                    .help("put the whole assignment in quotes if the value has blanks"),
                ),
            }
        }
    }
    for line in keys.list(SECTION, "UnsetEnvironment") {
        let Some(words) = keys.raw_words(line) else { continue };
        for word in words.words {
            match word.text.split_once('=') {
                Some((name, value)) => {
                    if environment.get(name).is_some_and(|set| set == value) {
                        environment.remove(name);
                    }
                }
                None => {
                    environment.remove(&word.text);
                }
            }
        }
    }
    environment
}

fn working_directory(keys: &mut Keys<'_>, home: &str) -> String {
    let Some(mut text) = keys.text(SECTION, "WorkingDirectory") else { return "/".into() };
    if text.text == "~" {
        return home.to_owned();
    }
    if text.text.starts_with('-') {
        let expected = Expected::Other("a path that exists: the prefix `-` is not supported");
        keys.bad(text.assignment, &expected);
        text.text.remove(0);
    }
    keys.path(&text).unwrap_or_else(|| "/".into())
}

fn stdin(keys: &mut Keys<'_>) -> Input {
    let Some(text) = keys.text(SECTION, "StandardInput") else { return Input::Null };
    match text.text.as_str() {
        "null" => Input::Null,
        "socket" => Input::Socket,
        other => match other.strip_prefix("file:").map(value::path) {
            Some(Ok(path)) => Input::File(path),
            _ => {
                keys.bad(text.assignment, &Expected::OneOf(&["null", "socket", "file:/path"]));
                Input::Null
            }
        },
    }
}

fn output(keys: &mut Keys<'_>, key: &str) -> Option<Output> {
    let text = keys.text(SECTION, key)?;
    let file = |path: &str, append, truncate| {
        value::path(path).ok().map(|path| Output::File { path, append, truncate })
    };
    let output = match text.text.as_str() {
        "null" => Some(Output::Null),
        "inherit" => Some(Output::Inherit),
        "socket" => Some(Output::Socket),
        // Each goes to the unit's log, which the console shows.
        "journal" | "syslog" | "kmsg" | "journal+console" | "syslog+console" | "kmsg+console" => {
            Some(Output::Log)
        }
        other => match other.split_once(':') {
            Some(("file", path)) => file(path, false, false),
            Some(("append", path)) => file(path, true, false),
            Some(("truncate", path)) => file(path, false, true),
            _ => None,
        },
    };
    if output.is_none() {
        let expected = Expected::OneOf(&[
            "journal",
            "null",
            "inherit",
            "socket",
            "file:/path",
            "append:/path",
            "truncate:/path",
        ]);
        keys.bad(text.assignment, &expected);
    }
    output
}

/// What a limit counts.
#[derive(Clone, Copy)]
enum Measure {
    Bytes,
    Seconds,
    Microseconds,
    Number,
    /// -20 to 19, which the kernel counts from 40 down.
    Nice,
}

/// Key, RLIMIT number of x86-64 and aarch64 (getrlimit(2)), measure.
const LIMITS: [(&str, u32, Measure); 16] = [
    ("LimitCPU", 0, Measure::Seconds),
    ("LimitFSIZE", 1, Measure::Bytes),
    ("LimitDATA", 2, Measure::Bytes),
    ("LimitSTACK", 3, Measure::Bytes),
    ("LimitCORE", 4, Measure::Bytes),
    ("LimitRSS", 5, Measure::Bytes),
    ("LimitNPROC", 6, Measure::Number),
    ("LimitNOFILE", 7, Measure::Number),
    ("LimitMEMLOCK", 8, Measure::Bytes),
    ("LimitAS", 9, Measure::Bytes),
    ("LimitLOCKS", 10, Measure::Number),
    ("LimitSIGPENDING", 11, Measure::Number),
    ("LimitMSGQUEUE", 12, Measure::Bytes),
    ("LimitNICE", 13, Measure::Nice),
    ("LimitRTPRIO", 14, Measure::Number),
    ("LimitRTTIME", 15, Measure::Microseconds),
];

fn limits(keys: &mut Keys<'_>) -> Vec<(u32, u64, u64)> {
    let mut limits = vec![];
    for (key, number, measure) in LIMITS {
        let limit = keys.setting(SECTION, key, |text| {
            let (soft, hard) = text.split_once(':').unwrap_or((text, text));
            let (soft, hard) = (limit(soft, measure)?, limit(hard, measure)?);
            if soft > hard {
                return Err(Expected::Other("a soft limit that is not above the hard one"));
            }
            Ok((number, soft, hard))
        });
        limits.extend(limit);
    }
    limits
}

fn limit(text: &str, measure: Measure) -> Result<u64, Expected> {
    if text == "infinity" {
        return Ok(INFINITY);
    }
    match measure {
        Measure::Bytes => size::bytes(text),
        Measure::Seconds => Ok(time::microseconds(text)?.div_ceil(1_000_000)),
        // A bare number is in microseconds here.
        Measure::Microseconds => match text.parse() {
            Ok(number) => Ok(number),
            Err(_) => time::microseconds(text),
        },
        Measure::Number => value::number(text, 0, i64::MAX).map(|number| number as u64),
        Measure::Nice => match text.starts_with(['+', '-']) {
            true => value::number(text, -20, 19).map(|nice| (20 - nice) as u64),
            false => value::number(text, 0, 40).map(|number| number as u64),
        },
    }
}
