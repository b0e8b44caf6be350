//! Every line also goes to the console, as `unit: text`, without ever waiting for it.
//!
//! A serial line carries 11 KB a second, and a service can write more. What does not fit into a
//! bounded buffer is left out and counted; the log itself has it.

use crate::client;
use rustix::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

/// Bytes that wait for the console at most.
pub const BUFFER: usize = 64 * 1024;

/// The console's end and what waits for it.
#[derive(Debug)]
pub struct Console {
    fd: OwnedFd,
    waiting: Vec<u8>,
    /// Lines left out since the last note about it.
    lost: u64,
    /// It failed for good, as a pipe without a reader does; lines are thrown away.
    dead: bool,
}

impl Console {
    /// Takes over an fd. It is opened anew where that goes, so that O_NONBLOCK is our own affair
    /// and not that of all who share it.
    pub fn new(fd: OwnedFd) -> Self {
        let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
        let flags =
            OFlags::WRONLY | OFlags::APPEND | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let fd = rustix::fs::open(path, flags, Mode::empty()).unwrap_or(fd);
        // A socket cannot be opened anew.
        let dead = rustix::io::ioctl_fionbio(&fd, true).is_err();
        Self { fd, waiting: Vec::new(), lost: 0, dead }
    }

    /// Adds a line; control characters are replaced, so that no service commands a terminal.
    pub fn push(&mut self, unit: &str, text: &str) {
        if self.dead {
            return;
        }
        // Without a buffer of its own for each line, which musl's malloc may well map and unmap.
        let start = self.waiting.len();
        self.waiting.extend_from_slice(unit.as_bytes());
        self.waiting.extend_from_slice(b": ");
        for letter in text.chars().map(client::harmless) {
            self.waiting.extend_from_slice(letter.encode_utf8(&mut [0; 4]).as_bytes());
        }
        self.waiting.push(b'\n');
        if self.waiting.len() > BUFFER {
            self.waiting.truncate(start);
            self.lost += 1;
            return;
        }
        self.note_loss(start);
    }

    /// Whether something waits.
    pub fn waits(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// To poll for room.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Writes as much as goes.
    pub fn flush(&mut self) {
        let mut written = 0;
        while let Some(rest @ [_, ..]) = self.waiting.get(written..) {
            match rustix::io::write(&self.fd, rest) {
                Ok(length) => written += length,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => break,
                Err(_) => {
                    self.dead = true;
                    self.waiting = Vec::new();
                    return;
                }
            }
        }
        self.waiting.drain(..written);
        if self.waiting.is_empty() {
            self.note_loss(0);
        }
    }

    /// Where the lines would be.
    fn note_loss(&mut self, at: usize) {
        if self.lost == 0 {
            return;
        }
        let note = format!("activator: {} lines not shown here, the log has them\n", self.lost);
        if self.waiting.len() + note.len() <= BUFFER {
            self.waiting.splice(at..at, note.into_bytes());
            self.lost = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    #[test]
    fn a_full_console_loses_lines_and_says_how_many() {
        let (mut reader, writer) = std::io::pipe().unwrap();
        let mut console = Console::new(writer.into());
        let text = "x".repeat(1000);
        for _ in 0..300 {
            console.push("a.service", &text);
            console.flush();
        }
        assert!(console.waits() && console.lost > 0);
        let (lost, mut seen, mut buffer) = (console.lost, Vec::new(), [0; 65536]);
        while console.waits() {
            let length = reader.read(&mut buffer).unwrap();
            seen.extend_from_slice(&buffer[..length]);
            console.flush();
        }
        drop(console);
        reader.read_to_end(&mut seen).unwrap();
        let seen = String::from_utf8(seen).unwrap();
        let note = format!("activator: {lost} lines not shown here, the log has them");
        assert!(seen.contains(&note), "{}", &seen[seen.len() - 200..]);
        let whole = format!("a.service: {text}");
        assert_eq!(seen.lines().filter(|line| **line == whole).count() as u64, 300 - lost);
    }

    #[test]
    fn a_file_gets_plain_lines_at_its_end() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        std::io::Write::write_all(&mut file, b"before\n").unwrap();
        let mut console = Console::new(file.reopen().unwrap().into());
        console.push("a", "b\x1b[1mc");
        console.flush();
        let text = std::fs::read_to_string(file.path()).unwrap();
        assert_eq!(text, "before\na: b\u{fffd}[1mc\n");
    }

    #[test]
    fn a_console_that_is_gone_is_forgotten() {
        let (reader, writer) = std::io::pipe().unwrap();
        let mut console = Console::new(writer.into());
        drop(reader);
        console.push("a", "b");
        console.flush();
        console.push("a", "c");
        assert!(!console.waits());
    }
}
