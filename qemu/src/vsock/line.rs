//! The one-line handshakes that open a connection: of clients, and of the devices of siblings.
//!
//! A client writes `CONNECT <port>`, the words of Firecracker and Cloud Hypervisor. The device
//! of a sibling writes `SIBLING <its CID> <its guest's port> <port>`. Both are answered with
//! `OK <host port>` when the guest has accepted, or with `ERR <reason>`, after which comes the
//! end. The reasons: `request` (the line was not understood), `refused` (the guest does not
//! listen there), `timeout` (the guest's driver was not ready, or did not answer, in time),
//! `reset` (the guest restarted), `busy` (too many connections, or the port pair is taken) and
//! `forbidden` (the sibling is not who it claims to be).
//!
//! Bytes behind the newline are payload already. They are left in the socket.

use super::stream::Stream;
use rustix::io::Errno;

/// The longest line, with its newline.
const LONGEST: usize = 64;

/// What was read of a line.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Line {
    /// It has no end yet.
    Partial,
    /// It is here, without its newline, and gone from the socket.
    Whole(String),
    /// It will never be one: too long, not text, or the other side has gone.
    Hopeless,
}

/// Looks for a line.
pub(super) fn read(stream: &Stream) -> Line {
    let mut bytes = [0; LONGEST];
    let count = match stream.peek(&mut bytes) {
        Ok(0) => return Line::Hopeless,
        Ok(count) => count,
        Err(Errno::AGAIN | Errno::INTR) => return Line::Partial,
        Err(_) => return Line::Hopeless,
    };
    match bytes[..count].iter().position(|byte| *byte == b'\n') {
        None if count == LONGEST => Line::Hopeless,
        None => Line::Partial,
        // What was peeked at is there to be taken.
        Some(end) => match (stream.take(&mut bytes[..=end]), std::str::from_utf8(&bytes[..end])) {
            (Ok(taken), Ok(text)) if taken == end + 1 => Line::Whole(text.to_owned()),
            _ => Line::Hopeless,
        },
    }
}

/// `CONNECT <port>`.
pub(super) fn parse_connect(line: &str) -> Option<u32> {
    line.strip_prefix("CONNECT ")?.trim_ascii().parse().ok()
}

/// What the device of a sibling says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Introduction {
    /// The sibling's CID.
    pub(super) source_cid: u32,
    /// The port of the sibling's guest.
    pub(super) source_port: u32,
    /// The port that it wants to reach.
    pub(super) port: u32,
}

impl Introduction {
    pub(super) fn parse(line: &str) -> Option<Self> {
        let mut numbers = line.strip_prefix("SIBLING ")?.split(' ').map(str::parse);
        let introduction = Self {
            source_cid: numbers.next()?.ok()?,
            source_port: numbers.next()?.ok()?,
            port: numbers.next()?.ok()?,
        };
        numbers.next().is_none().then_some(introduction)
    }

    /// With its newline.
    pub(super) fn line(&self) -> String {
        format!("SIBLING {} {} {}\n", self.source_cid, self.source_port, self.port)
    }
}

/// Whether an answer is a consent.
pub(super) fn is_consent(line: &str) -> bool {
    line.strip_prefix("OK").is_some_and(|rest| rest.is_empty() || rest.starts_with(' '))
}

#[cfg(test)]
mod tests {
    use super::super::stream::pair;
    use super::*;
    use std::io::Write;

    #[test]
    fn payload_behind_the_line_stays_in_the_socket() {
        let (ours, mut theirs) = pair();
        assert_eq!(read(&ours), Line::Partial);
        theirs.write_all(b"CONN").unwrap();
        assert_eq!(read(&ours), Line::Partial);
        theirs.write_all(b"ECT 3000\nhello\nworld").unwrap();
        assert_eq!(read(&ours), Line::Whole("CONNECT 3000".into()));
        let mut bytes = [0; 100];
        assert_eq!(ours.take(&mut bytes), Ok(11));
        assert_eq!(&bytes[..11], b"hello\nworld");
    }

    #[test]
    fn endless_binary_and_missing_lines_are_hopeless() {
        let (ours, mut theirs) = pair();
        theirs.write_all(&[b'x'; 200]).unwrap();
        assert_eq!(read(&ours), Line::Hopeless);
        let (ours, mut theirs) = pair();
        theirs.write_all(b"CONNECT \xff\n").unwrap();
        assert_eq!(read(&ours), Line::Hopeless);
        let (ours, theirs) = pair();
        drop(theirs);
        assert_eq!(read(&ours), Line::Hopeless);
    }

    #[test]
    fn lines_are_taken_literally() {
        assert_eq!(parse_connect("CONNECT 3000"), Some(3000));
        assert_eq!(parse_connect("CONNECT 4294967295"), Some(u32::MAX));
        for wrong in
            ["CONNECT", "CONNECT ", "connect 1", "CONNECT -1", "CONNECT 4294967296", "CONNECT 1 2"]
        {
            assert_eq!(parse_connect(wrong), None, "{wrong}");
        }
        let introduction = Introduction { source_cid: 3, source_port: 9, port: 3000 };
        let line = introduction.line();
        assert_eq!(Introduction::parse(line.trim_end()), Some(introduction));
        for wrong in ["SIBLING 3 9", "SIBLING 3 9 3000 1", "SIBLING 3  9 3000", "3 9 3000"] {
            assert_eq!(Introduction::parse(wrong), None, "{wrong}");
        }
        assert!(
            is_consent("OK") && is_consent("OK 7") && !is_consent("OKAY") && !is_consent("ERR")
        );
    }
}
