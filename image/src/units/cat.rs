//! A unit's files in one text, as `systemctl cat` prints them.

use super::definition::Definition;

/// Each file below a comment with its path, with an empty line between them.
pub(super) fn files(unit: &Definition) -> String {
    let mut text = String::new();
    for source in &unit.sources {
        if !text.is_empty() {
            text.push('\n');
        }
        text.push_str(&format!("# {}\n{}", source.path, source.text));
        if !text.ends_with('\n') {
            text.push('\n');
        }
    }
    text
}
