//! What a guest wrote to its console, for people.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

/// Lines that an error shows.
const LINES: usize = 12;
/// Bytes from the end that are looked at.
const TAIL: u64 = 16 * 1024;

/// The last lines, without colours and empty ones. None if the file cannot be read.
pub fn last_lines(path: &Path) -> Vec<String> {
    let text = tail(path);
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    let first = lines.len().saturating_sub(LINES);
    lines[first..].iter().map(|line| line.trim_end().to_owned()).collect()
}

/// Whether the kernel's last words are among them.
pub(crate) fn shows_panic(path: &Path) -> bool {
    tail(path).contains("Kernel panic - not syncing")
}

fn tail(path: &Path) -> String {
    let read = || -> std::io::Result<Vec<u8>> {
        let mut file = File::open(path)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(TAIL)))?;
        let mut bytes = Vec::new();
        file.take(TAIL).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    plain(&String::from_utf8_lossy(&read().unwrap_or_default()))
}

/// Without escape sequences (ECMA-48) and control characters, so that a guest cannot write to the
/// terminal of its host's user.
fn plain(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        match character {
            '\x1b' => {
                if characters.next() == Some('[') {
                    // Parameters, then one final byte.
                    characters.by_ref().find(|c| ('\x40'..='\x7e').contains(c));
                }
            }
            '\n' | '\t' => plain.push(character),
            _ if character.is_control() => {}
            _ => plain.push(character),
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_lines_are_plain_text() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("console.log");
        let mut text: String = (0..5000).map(|number| format!("line {number}\r\n\r\n")).collect();
        text.push_str("\x1b[31mred\x1b[0m\x07 \x1bcend");
        std::fs::write(&path, &text).unwrap();
        let lines = last_lines(&path);
        assert_eq!(lines.len(), LINES);
        assert_eq!(lines[LINES - 2..], ["line 4999", "red end"]);
        assert!(!shows_panic(&path));
        std::fs::write(&path, "[ 1.0] Kernel panic - not syncing: Attempted to kill init!\n")
            .unwrap();
        assert!(shows_panic(&path));
        assert!(last_lines(&folder.path().join("none")).is_empty());
    }
}
