//! Fills in what only the guest knows into a prepared config.json.
//!
//! Only elements of `process.env` are looked at, and each is taken whole or left alone, so that
//! a text in the arguments that happens to look like a placeholder stays what it is. Devices and a
//! namespace go to the end of their lists. The rest of the file is copied byte by byte: no JSON
//! value is built, which keeps the binary small.

use super::Listen;
use crate::manifest::Container;
use std::fmt;
use std::ops::Range;

/// Why a template cannot be filled in: the image was built wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TemplateError {
    /// A string or the file ends in the middle.
    Truncated,
    /// There is no array `process.env`.
    NoEnvironment,
    /// An element of `process.env` is not a string.
    NotAString,
    /// There is no list of devices or namespaces to add one to.
    NoList,
}

impl fmt::Display for TemplateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Truncated => "it is truncated",
            Self::NoEnvironment => "it has no `process.env`",
            Self::NotAString => "an element of `process.env` is not a string",
            Self::NoList => "it has no list of devices or namespaces",
        })
    }
}

impl std::error::Error for TemplateError {}

/// What else to put into config.json, beside the sockets.
#[derive(Debug, Default)]
pub struct Fill {
    /// Variables; a later one goes before an earlier one, and all before those of the template.
    pub variables: Vec<(String, String)>,
    /// Variables that are taken only where nobody else sets them.
    pub defaults: Vec<(String, String)>,
    /// Names of the template that stay as they are there.
    pub fixed: Vec<String>,
    /// For `linux.devices`, JSON.
    pub devices: Vec<String>,
    /// For `linux.resources.devices`, JSON.
    pub device_rules: Vec<String>,
    /// For `linux.namespaces`, JSON.
    pub namespace: Option<String>,
}

/// The text with the placeholders replaced; without fds, all three `LISTEN_` entries are gone.
pub fn fill(template: &str, listen: Option<&Listen>, fill: &Fill) -> Result<String, TemplateError> {
    let inside = array(template, &["process", "env"])?.ok_or(TemplateError::NoEnvironment)?;
    let variables = variables(&template[inside.clone()], listen, fill)?;
    let mut changes = vec![(inside, variables)];
    let lists: [(&[&str], &[String]); 3] = [
        (&["linux", "devices"], &fill.devices),
        (&["linux", "resources", "devices"], &fill.device_rules),
        (&["linux", "namespaces"], fill.namespace.as_slice()),
    ];
    for (path, added) in lists.into_iter().filter(|(_, added)| !added.is_empty()) {
        let inside = array(template, path)?.ok_or(TemplateError::NoList)?;
        let is_empty = template[inside.clone()].trim().is_empty();
        let comma = if is_empty { "" } else { "," };
        changes.push((inside.end..inside.end, format!("{comma}{}", added.join(","))));
    }
    changes.sort_by_key(|(range, _)| range.start);
    let (mut text, mut at) = (String::with_capacity(template.len()), 0);
    for (range, new) in changes {
        text += &template[at..range.start];
        text += &new;
        at = range.end;
    }
    text += &template[at..];
    Ok(text)
}

/// The elements of `process.env`.
fn variables(inside: &str, listen: Option<&Listen>, fill: &Fill) -> Result<String, TemplateError> {
    let mut kept: Vec<String> = Vec::new();
    let named = |element: &str, name: &str| {
        element[1..].strip_prefix(name).is_some_and(|rest| rest.starts_with('='))
    };
    for element in strings(inside)? {
        let value = |name: &str| format!("\"{name}={{}}\"");
        let filled = match (element, listen) {
            (r#""LISTEN_FDS=@LISTEN_FDS@""#, Some(listen)) => {
                value("LISTEN_FDS").replace("{}", &listen.count.to_string())
            }
            (r#""LISTEN_FDNAMES=@LISTEN_FDNAMES@""#, Some(listen)) => {
                value("LISTEN_FDNAMES").replace("{}", &escape(&listen.names))
            }
            (
                r#""LISTEN_FDS=@LISTEN_FDS@""#
                | r#""LISTEN_FDNAMES=@LISTEN_FDNAMES@""#
                | r#""LISTEN_PID=1""#,
                None,
            ) => continue,
            (element, _) => element.to_owned(),
        };
        kept.push(filled);
    }
    for (name, value) in &fill.variables {
        if fill.fixed.contains(name) {
            continue;
        }
        let name = escape(name);
        kept.retain(|element| !named(element, &name));
        kept.push(format!("\"{name}={}\"", escape(value)));
    }
    for (name, value) in &fill.defaults {
        let name = escape(name);
        if !kept.iter().any(|element| named(element, &name)) {
            kept.push(format!("\"{name}={}\"", escape(value)));
        }
    }
    Ok(kept.join(","))
}

// The literals above are patterns, so they cannot be put together from the contract's constants.
const _: () = assert!(Container::LISTEN_FDS.len() == "@LISTEN_FDS@".len());
const _: () = assert!(Container::LISTEN_FDNAMES.len() == "@LISTEN_FDNAMES@".len());

/// `root.path`, the folder that a container has as its root; None if there is no such text.
pub fn root(template: &str) -> Option<&str> {
    let start = value(template, &["root", "path"]).ok()??;
    let end = string_end(template.as_bytes(), start).ok()?;
    template.get(start..end)?.strip_prefix('"')?.strip_suffix('"')
}

/// What stands between the brackets of the array at a path of keys; None if there is none.
fn array(text: &str, path: &[&str]) -> Result<Option<Range<usize>>, TemplateError> {
    match value(text, path)? {
        Some(start) if text.as_bytes().get(start) == Some(&b'[') => {
            Ok(Some(start + 1..array_end(text.as_bytes(), start + 1)?))
        }
        _ => Ok(None),
    }
}

/// Where the value at a path of keys begins; None if there is none.
fn value(text: &str, path: &[&str]) -> Result<Option<usize>, TemplateError> {
    struct Level<'a> {
        object: bool,
        /// The key last read, if this is an object.
        key: &'a str,
    }
    let bytes = text.as_bytes();
    let mut open: Vec<Level<'_>> = Vec::new();
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'"' => {
                let end = string_end(bytes, at)?;
                let next = |at: usize| {
                    let rest = bytes.get(at..)?;
                    Some(at + rest.iter().position(|byte| !byte.is_ascii_whitespace())?)
                };
                let colon = next(end).filter(|colon| bytes[*colon] == b':');
                if let (Some(colon), Some(level)) = (colon, open.last_mut()) {
                    level.key = &text[at + 1..end - 1];
                    let keys = open.iter().map(|level| level.key);
                    if open.iter().all(|level| level.object) && keys.eq(path.iter().copied()) {
                        return next(colon + 1).map(Some).ok_or(TemplateError::Truncated);
                    }
                }
                at = end;
                continue;
            }
            b'[' => open.push(Level { object: false, key: "" }),
            b'{' => open.push(Level { object: true, key: "" }),
            b'}' | b']' => {
                open.pop();
            }
            _ => {}
        }
        at += 1;
    }
    if open.is_empty() { Ok(None) } else { Err(TemplateError::Truncated) }
}

/// The index of the bracket that closes an array.
fn array_end(bytes: &[u8], mut at: usize) -> Result<usize, TemplateError> {
    let mut depth = 0usize;
    loop {
        match bytes.get(at) {
            None => return Err(TemplateError::Truncated),
            Some(b'"') => {
                at = string_end(bytes, at)?;
                continue;
            }
            Some(b'[' | b'{') => depth += 1,
            Some(b']') if depth == 0 => return Ok(at),
            Some(b']' | b'}') => depth = depth.saturating_sub(1),
            Some(_) => {}
        }
        at += 1;
    }
}

/// The elements of an array of strings, each with its quotes.
fn strings(array: &str) -> Result<Vec<&str>, TemplateError> {
    let bytes = array.as_bytes();
    let (mut found, mut at) = (Vec::new(), 0);
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'"' => {
                let end = string_end(bytes, at)?;
                found.push(&array[at..end]);
                at = end;
            }
            b',' => at += 1,
            byte if byte.is_ascii_whitespace() => at += 1,
            _ => return Err(TemplateError::NotAString),
        }
    }
    Ok(found)
}

/// The index behind the quote that ends the string which begins at `start`.
fn string_end(bytes: &[u8], start: usize) -> Result<usize, TemplateError> {
    let mut at = start + 1;
    loop {
        match bytes.get(at) {
            None => return Err(TemplateError::Truncated),
            Some(b'\\') => at += 2,
            Some(b'"') => return Ok(at + 1),
            Some(_) => at += 1,
        }
    }
}

/// RFC 8259, section 7, without the quotes.
pub(crate) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '"' | '\\' => escaped.extend(['\\', letter]),
            control if control < ' ' => escaped += &format!("\\u{:04x}", u32::from(control)),
            letter => escaped.push(letter),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEMPLATE: &str = r#"{ "hooks": {"env": ["LISTEN_PID=1"]},
  "process": { "args": ["x", "LISTEN_PID=1", "\"LISTEN_FDS=@LISTEN_FDS@\""],
    "env": [ "PATH=/bin", "LISTEN_FDS=@LISTEN_FDS@",
      "LISTEN_PID=1", "A=[\"b\\", "LISTEN_FDNAMES=@LISTEN_FDNAMES@" ], "cwd": "/" } }"#;

    fn environment_of(text: &str) -> Vec<String> {
        let value: serde_json::Value = serde_json::from_str(text).unwrap();
        let strings = value["process"]["env"].as_array().unwrap().iter();
        strings.map(|value| value.as_str().unwrap().to_owned()).collect()
    }

    #[test]
    fn placeholders_are_filled_in() {
        let names = "a.socket:\"x\\y\n:ü";
        let listen = Listen { count: 3, names: names.into() };
        let filled = fill(TEMPLATE, Some(&listen), &Fill::default()).unwrap();
        let expected = [
            "PATH=/bin",
            "LISTEN_FDS=3",
            "LISTEN_PID=1",
            "A=[\"b\\",
            &format!("LISTEN_FDNAMES={names}"),
        ];
        assert_eq!(environment_of(&filled), expected);
    }

    #[test]
    fn without_fds_the_entries_go_and_nothing_else_does() {
        let filled = fill(TEMPLATE, None, &Fill::default()).unwrap();
        assert_eq!(environment_of(&filled), ["PATH=/bin", "A=[\"b\\"]);
        let mut before: serde_json::Value = serde_json::from_str(TEMPLATE).unwrap();
        let mut after: serde_json::Value = serde_json::from_str(&filled).unwrap();
        before["process"]["env"].take();
        after["process"]["env"].take();
        assert_eq!(before, after);
    }

    #[test]
    fn all_may_go() {
        let template = r#"{"process":{"env":["LISTEN_PID=1"]}}"#;
        assert_eq!(fill(template, None, &Fill::default()).unwrap(), r#"{"process":{"env":[]}}"#);
    }

    #[test]
    fn bad_templates_are_refused() {
        let none = |text| fill(text, None, &Fill::default());
        assert_eq!(none("{}"), Err(TemplateError::NoEnvironment));
        assert_eq!(none(r#"{"env":["A=b"]}"#), Err(TemplateError::NoEnvironment));
        assert_eq!(none(r#"{"process":{"env":[1]}}"#), Err(TemplateError::NotAString));
        let whole = r#"{"process":{"env":["A=b\"c"]"#;
        for cut in 1..whole.len() {
            assert_eq!(none(&whole[..cut]), Err(TemplateError::Truncated), "cut at {cut}");
        }
    }

    #[test]
    fn files_go_before_the_image_and_behind_the_unit() {
        let template = r#"{"process":{"env":["A=image","AB=x","B=unit"]}}"#;
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let added = Fill {
            variables: vec![pair("A", "file"), pair("B", "file"), pair("C", "\"q\"")],
            defaults: vec![pair("A", "host"), pair("D", "host")],
            fixed: vec!["B".into()],
            ..Fill::default()
        };
        let filled = fill(template, None, &added).unwrap();
        assert_eq!(environment_of(&filled), ["AB=x", "B=unit", "A=file", "C=\"q\"", "D=host"]);
    }

    #[test]
    fn devices_and_a_namespace_are_added_at_the_end() {
        let template = r#"{"process":{"env":[]},"linux":{"devices":[],"namespaces":[{"type":"pid"}],
            "resources":{"devices":[{"allow":false,"access":"rwm"}]}}}"#;
        let added = Fill {
            devices: vec![r#"{"path":"/dev/a"}"#.into(), r#"{"path":"/dev/b"}"#.into()],
            device_rules: vec![r#"{"allow":true}"#.into()],
            namespace: Some(r#"{"type":"network"}"#.into()),
            ..Fill::default()
        };
        let filled = fill(template, None, &added).unwrap();
        let value: serde_json::Value = serde_json::from_str(&filled).unwrap();
        assert_eq!(value["linux"]["devices"][1]["path"], "/dev/b");
        assert_eq!(value["linux"]["resources"]["devices"][1]["allow"], true);
        assert_eq!(value["linux"]["namespaces"][1]["type"], "network");
        let none = r#"{"process":{"env":[]}}"#;
        assert_eq!(fill(none, None, &added), Err(TemplateError::NoList));
    }
}
