//! Texts that people see, held in files beside the tests.

use std::path::Path;

/// Compares a text with the one in a file. With `ROUSE_BLESS=1` the file is written instead.
#[track_caller]
pub fn golden(file: &Path, text: &str) {
    if std::env::var_os("ROUSE_BLESS").is_some() {
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(file, text).unwrap();
    }
    let expected = std::fs::read_to_string(file).unwrap_or_default();
    assert!(expected == text, "{} should be\n{expected}\nbut is\n{text}", file.display());
}

/// Replaces what begins with `start` and goes on to one of `ends`, or to the end, by a name.
pub fn mask(text: &str, start: &str, ends: &[char], name: &str) -> String {
    let mut parts = text.split(start);
    let mut masked = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        masked += name;
        masked += part.find(ends).map_or("", |end| &part[end..]);
    }
    masked
}

/// Replaces every sha256 by `SHA256`.
pub fn mask_hashes(text: &str) -> String {
    let is_hash = |word: &str| word.len() == 64 && word.bytes().all(|at| at.is_ascii_hexdigit());
    let mut masked = String::new();
    for word in text.split_inclusive(|at: char| !at.is_ascii_alphanumeric()) {
        let bare = word.trim_end_matches(|at: char| !at.is_ascii_alphanumeric());
        masked += &if is_hash(bare) { word.replace(bare, "SHA256") } else { word.to_owned() };
    }
    masked
}
