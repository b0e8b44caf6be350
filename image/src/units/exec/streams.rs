//! `StandardInput=`, `StandardOutput=`, `StandardError=` and what belongs to them.

use crate::units::keys::Keys;
use crate::units::quoting;
use crate::units::value::{self, Expected, base64};
use activator::manifest::{Input, Output};

/// Where `tty` is unless `TTYPath=` says otherwise.
const CONSOLE: &str = "/dev/console";

/// The three standard streams.
pub(super) struct Streams {
    pub(super) stdin: Input,
    pub(super) stdout: Output,
    pub(super) stderr: Output,
}

/// The streams, the terminal if one of them is it, and the text if stdin is one.
pub(super) fn read(keys: &mut Keys<'_>, section: &str) -> (Streams, Option<String>, Vec<u8>) {
    let text = data(keys, section);
    let stdin = match stdin(keys, section) {
        Some(stdin) => stdin,
        // As in systemd: a text is there to be read.
        None if !text.is_empty() => Input::Data,
        None => Input::Null,
    };
    let given = output(keys, section, "StandardOutput");
    let stderr = output(keys, section, "StandardError").unwrap_or(Output::Inherit);
    let stdout = match (given, &stdin) {
        // systemd's default takes the place of a chain that begins nowhere.
        (Some(Output::Inherit), Input::Null) if stderr == Output::Inherit => Output::Log,
        (Some(output), _) => output,
        (None, Input::Socket | Input::Fd(_) | Input::Terminal) => Output::Inherit,
        (None, _) => Output::Log,
    };
    let path = match keys.text(section, "TTYPath") {
        Some(text) => keys.path(&text),
        None => None,
    };
    let is_terminal = stdin == Input::Terminal || [&stdout, &stderr].contains(&&Output::Terminal);
    let terminal = is_terminal.then(|| path.unwrap_or_else(|| CONSOLE.into()));
    let text = if stdin == Input::Data { text } else { vec![] };
    (Streams { stdin, stdout, stderr }, terminal, text)
}

fn stdin(keys: &mut Keys<'_>, section: &str) -> Option<Input> {
    const EXPECTED: Expected = Expected::OneOf(&[
        "null",
        "socket",
        "fd:NAME",
        "file:/path",
        "data",
        "tty",
        "tty-force",
        "tty-fail",
    ]);
    let text = keys.text(section, "StandardInput")?;
    let input = match text.text.as_str() {
        "null" => Some(Input::Null),
        "socket" => Some(Input::Socket),
        "data" => Some(Input::Data),
        "tty" | "tty-force" | "tty-fail" => Some(Input::Terminal),
        "fd" => Some(Input::Fd("stdin".into())),
        other => match other.split_once(':') {
            Some(("file", path)) => value::path(path).ok().map(Input::File),
            Some(("fd", name)) if !name.is_empty() => Some(Input::Fd(name.into())),
            _ => None,
        },
    };
    if input.is_none() {
        keys.bad(text.assignment, &EXPECTED);
    }
    Some(input.unwrap_or(Input::Null))
}

fn output(keys: &mut Keys<'_>, section: &str, key: &str) -> Option<Output> {
    const EXPECTED: Expected = Expected::OneOf(&[
        "journal",
        "kmsg",
        "null",
        "inherit",
        "socket",
        "fd:NAME",
        "tty",
        "file:/path",
        "append:/path",
        "truncate:/path",
    ]);
    let text = keys.text(section, key)?;
    let file = |path: &str, append, truncate| {
        value::path(path).ok().map(|path| Output::File { path, append, truncate })
    };
    let output = match text.text.as_str() {
        "null" => Some(Output::Null),
        "inherit" => Some(Output::Inherit),
        "socket" => Some(Output::Socket),
        "tty" => Some(Output::Terminal),
        "kmsg" | "kmsg+console" => Some(Output::Kmsg),
        // Each goes to the unit's log, which the console shows.
        "journal" | "syslog" | "journal+console" | "syslog+console" => Some(Output::Log),
        "fd" if key == "StandardError" => Some(Output::Fd("stderr".into())),
        "fd" => Some(Output::Fd("stdout".into())),
        other => match other.split_once(':') {
            Some(("file", path)) => file(path, false, false),
            Some(("append", path)) => file(path, true, false),
            Some(("truncate", path)) => file(path, false, true),
            Some(("fd", name)) if !name.is_empty() => Some(Output::Fd(name.into())),
            _ => None,
        },
    };
    if output.is_none() {
        keys.bad(text.assignment, &EXPECTED);
    }
    output
}

/// `StandardInputText=` lines, each with a line break, and `StandardInputData=`, in their order.
fn data(keys: &mut Keys<'_>, section: &str) -> Vec<u8> {
    let unit = keys.unit;
    let mut data = vec![];
    for line in unit.assignments.iter().filter(|line| line.section == section) {
        match line.key.as_str() {
            "StandardInputText" | "StandardInputData" if line.value.text.is_empty() => data.clear(),
            "StandardInputText" => {
                let Some(text) = keys.expand(line) else { continue };
                data.extend(quoting::decode(&text.text).into_bytes());
                data.push(b'\n');
            }
            "StandardInputData" => match base64::decode(&line.value.text) {
                Ok(bytes) => data.extend(bytes),
                Err(expected) => keys.bad(line, &expected),
            },
            _ => {}
        }
    }
    data
}
