//! Fills in what only the guest knows into a prepared config.json.
//!
//! Only elements of `process.env` are looked at, and each is taken whole or left alone, so that
//! a text in the arguments that happens to look like a placeholder stays what it is. The rest of
//! the file is copied byte by byte: no JSON value is built, which keeps the binary small.

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
}

impl fmt::Display for TemplateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Truncated => "it is truncated",
            Self::NoEnvironment => "it has no `process.env`",
            Self::NotAString => "an element of `process.env` is not a string",
        })
    }
}

impl std::error::Error for TemplateError {}

/// The text with the placeholders replaced; without fds, all three `LISTEN_` entries are gone.
pub fn fill(template: &str, listen: Option<&Listen>) -> Result<String, TemplateError> {
    let inside = environment(template)?;
    let mut kept = Vec::new();
    for element in strings(&template[inside.clone()])? {
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
    Ok([&template[..inside.start], &kept.join(","), &template[inside.end..]].concat())
}

// The literals above are patterns, so they cannot be put together from the contract's constants.
const _: () = assert!(Container::LISTEN_FDS.len() == "@LISTEN_FDS@".len());
const _: () = assert!(Container::LISTEN_FDNAMES.len() == "@LISTEN_FDNAMES@".len());

/// What stands between the brackets of `process.env`.
fn environment(text: &str) -> Result<Range<usize>, TemplateError> {
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
                let colon = bytes[end..].iter().find(|byte| !byte.is_ascii_whitespace());
                if let (Some(b':'), Some(level)) = (colon, open.last_mut()) {
                    level.key = &text[at + 1..end - 1];
                }
                at = end;
                continue;
            }
            b'[' => {
                if let [process, env] = &open[..]
                    && process.object
                    && env.object
                    && (process.key, env.key) == ("process", "env")
                {
                    let start = at + 1;
                    return Ok(start..array_end(bytes, start)?);
                }
                open.push(Level { object: false, key: "" });
            }
            b'{' => open.push(Level { object: true, key: "" }),
            b'}' | b']' => {
                open.pop();
            }
            _ => {}
        }
        at += 1;
    }
    if open.is_empty() { Err(TemplateError::NoEnvironment) } else { Err(TemplateError::Truncated) }
}

/// The index of the bracket that closes an array of strings.
fn array_end(bytes: &[u8], mut at: usize) -> Result<usize, TemplateError> {
    loop {
        match bytes.get(at) {
            None => return Err(TemplateError::Truncated),
            Some(b'"') => at = string_end(bytes, at)?,
            Some(b']') => return Ok(at),
            Some(_) => at += 1,
        }
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
fn escape(text: &str) -> String {
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
        let filled = fill(TEMPLATE, Some(&listen)).unwrap();
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
        let filled = fill(TEMPLATE, None).unwrap();
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
        assert_eq!(fill(template, None).unwrap(), r#"{"process":{"env":[]}}"#);
    }

    #[test]
    fn bad_templates_are_refused() {
        let none = |text| fill(text, None);
        assert_eq!(none("{}"), Err(TemplateError::NoEnvironment));
        assert_eq!(none(r#"{"env":["A=b"]}"#), Err(TemplateError::NoEnvironment));
        assert_eq!(none(r#"{"process":{"env":[1]}}"#), Err(TemplateError::NotAString));
        let whole = r#"{"process":{"env":["A=b\"c"]"#;
        for cut in 1..whole.len() {
            assert_eq!(none(&whole[..cut]), Err(TemplateError::Truncated), "cut at {cut}");
        }
    }
}
