//! Where in appliance.toml something stands, for findings about what serde has already taken in.

use crate::finding::{Source, Span};
use std::ops::Range;
use std::sync::Arc;
use toml::de::{DeTable, DeValue};

/// Which part of an entry is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// The key, or a table's name.
    Key,
    /// What the key is set to.
    Value,
}

/// The place of an entry: keys from the outermost table inwards, `0` for the first table of an
/// array of tables; the last may be an element of a list of strings. Quotes are left out. What is not found ends in the beginning of the file.
pub fn place(source: &Arc<Source>, path: &[&str], part: Part) -> Span {
    let found = DeTable::parse(&source.text).ok().and_then(|root| {
        let (last, outer) = path.split_last()?;
        let mut table = root.get_ref();
        let mut list = None;
        for key in outer {
            if let Some(tables) = list {
                let tables: &toml::de::DeArray<'_> = tables;
                match tables.get(key.parse::<usize>().ok()?)?.get_ref() {
                    DeValue::Table(inner) => (table, list) = (inner, None),
                    _ => return None,
                }
                continue;
            }
            let (_, value) = table.iter().find(|(name, _)| name.get_ref() == key)?;
            match value.get_ref() {
                DeValue::Table(inner) => table = inner,
                DeValue::Array(inner) => list = Some(inner),
                _ => return None,
            }
        }
        if let Some(list) = list {
            let is_it = |value: &DeValue<'_>| matches!(value, DeValue::String(at) if at == last);
            let found = list.iter().find(|value| is_it(value.get_ref()));
            let nth = || list.get(last.parse::<usize>().ok()?);
            return found.or_else(nth).map(|value| value.span());
        }
        let (name, value) = table.iter().find(|(name, _)| name.get_ref() == last)?;
        Some(if part == Part::Key { name.span() } else { value.span() })
    });
    let range = found.map_or(0..0, |range| without_quotes(&source.text, range));
    Span { source: source.clone(), range }
}

fn without_quotes(text: &str, range: Range<usize>) -> Range<usize> {
    let quoted = text.get(range.clone()).is_some_and(|text| {
        let quote = text.starts_with(['"', '\'']);
        quote && text.len() > 2 && !text.contains('\n')
    });
    if quoted { range.start + 1..range.end - 1 } else { range }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_found_where_they_stand() {
        let text = "# memory\npackages = [\"socat\", 'busybox']\n[vm]\nmemory = 5\n\
            [image.\"x/y\".files]\n\"/bin/server\" = \"server\"\n[files]\na = { b = 1 }\n";
        let source = Arc::new(Source { path: "appliance.toml".into(), text: text.into() });
        let at = |path: &[&str], part| {
            let span = place(&source, path, part);
            (text[span.range.clone()].to_owned(), span.line_column())
        };
        assert_eq!(at(&["vm", "memory"], Part::Key), ("memory".into(), (4, 1)));
        assert_eq!(at(&["vm", "memory"], Part::Value), ("5".into(), (4, 10)));
        assert_eq!(at(&["packages", "busybox"], Part::Value), ("busybox".into(), (2, 23)));
        assert_eq!(at(&["image", "x/y"], Part::Key), ("x/y".into(), (5, 9)));
        let server = ["image", "x/y", "files", "/bin/server"];
        assert_eq!(at(&server, Part::Value), ("server".into(), (6, 18)));
        assert_eq!(at(&["files", "a", "b"], Part::Value), ("1".into(), (8, 11)));
        assert_eq!(at(&["files", "c"], Part::Value), (String::new(), (1, 1)));
    }
}
