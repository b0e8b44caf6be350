//! What a guest wrote to its console, for people.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

/// Lines that an error shows.
pub(crate) const LINES: usize = 12;
/// Bytes from the end that are looked at.
const TAIL: u64 = 16 * 1024;
/// Bytes after which a console is begun anew: the registry may lie in memory.
const MAX: u64 = 4 << 20;
/// panic(9) of Linux.
const PANIC: &str = "Kernel panic - not syncing";

/// The last lines, without colours and empty ones; none if the file cannot be read.
pub fn last_lines(path: &Path) -> Vec<String> {
    let lines = lines(path);
    lines[lines.len().saturating_sub(LINES)..].to_vec()
}

/// The lines from the kernel's last words on, if it spoke them: what comes after is registers.
pub(crate) fn panic_lines(path: &Path) -> Option<Vec<String>> {
    let lines = lines(path);
    let first = lines.iter().position(|line| line.contains(PANIC))?;
    Some(lines[first..].iter().take(LINES).cloned().collect())
}

/// Moves what a console holds to `console.log.1` when it has grown too long. QEMU appends, so that
/// it goes on at the new end of the emptied file; a line that it writes in between may be lost.
pub(crate) fn bound(path: &Path) -> io::Result<()> {
    let file = OpenOptions::new().read(true).write(true).open(path)?;
    if file.metadata()?.len() > MAX {
        let mut old = path.as_os_str().to_owned();
        old.push(".1");
        std::fs::copy(path, old)?;
        file.set_len(0)?;
    }
    Ok(())
}

fn lines(path: &Path) -> Vec<String> {
    let text = tail(path);
    let lines = text.lines().map(str::trim_end).filter(|line| !line.is_empty());
    lines.map(str::to_owned).collect()
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
        assert_eq!(panic_lines(&path), None);
        let panic = "[ 1.0] Kernel panic - not syncing: Attempted to kill init!";
        std::fs::write(&path, format!("LAB\n{panic}\nRIP\n")).unwrap();
        assert_eq!(panic_lines(&path).unwrap(), [panic, "RIP"]);
        assert!(last_lines(&folder.path().join("none")).is_empty());
    }

    #[test]
    fn a_long_console_is_begun_anew() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("console.log");
        std::fs::write(&path, "short").unwrap();
        bound(&path).unwrap();
        assert_eq!(last_lines(&path), ["short"]);
        let long = vec![b'x'; MAX as usize + 1];
        std::fs::write(&path, &long).unwrap();
        bound(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().len(), 0);
        assert!(std::fs::read(folder.path().join("console.log.1")).unwrap() == long);
    }
}
