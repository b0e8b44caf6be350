//! The asking side of the control protocol, over any stream: the host uses it over vsock or a
//! relay's Unix socket, `activator ctl` in the guest over [`control::SOCKET`].
//!
//! One connection carries one request. Time-outs are the stream's own: set them before.

use crate::control::{
    self, Failure, Hello, Line, Part, Programs, Reply, Request, Status, Unfit, UnitName, Upload,
};
use std::fmt;
use std::io::{self, Read, Write};

/// Bytes of an upload that go at once.
const CHUNK: usize = 64 * 1024;

/// Why there is no good answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TransportError {
    /// The stream failed.
    Io(io::ErrorKind),
    /// The guest closed the connection without an answer.
    Closed,
    /// What came is no frame of the protocol.
    Garbage,
    /// A reply of a kind that does not answer the request; a bug of ours.
    Unexpected,
}

/// What went wrong, told apart by blame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Error {
    /// The way to the guest.
    Transport(TransportError),
    /// The guest understood and said no.
    Refused(Failure),
}

impl fmt::Display for TransportError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(kind) => write!(f, "the connection to the guest failed: {kind}"),
            Self::Closed => f.write_str("the guest closed the connection without an answer"),
            Self::Garbage => f.write_str("what answered does not speak the control protocol"),
            Self::Unexpected => f.write_str("the guest gave another answer than was asked for"),
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Transport(error) => error.fmt(f),
            Self::Refused(failure) => failure.fmt(f),
        }
    }
}

impl std::error::Error for TransportError {}
impl std::error::Error for Error {}

impl From<io::Error> for Error {
    fn from(error: io::Error) -> Self {
        Self::Transport(match error.kind() {
            io::ErrorKind::UnexpectedEof => TransportError::Closed,
            io::ErrorKind::InvalidData => TransportError::Garbage,
            kind => TransportError::Io(kind),
        })
    }
}

/// The replies to one request, up to and with the final one.
#[derive(Debug)]
pub struct Replies<S> {
    stream: S,
    /// Set by [`Iterator::next`] after the final reply or an error.
    ended: bool,
}

/// Sends a request. `token` is empty on the guest's own Unix socket.
pub fn ask<S: Read + Write>(
    mut stream: S,
    token: &str,
    request: &Request,
) -> Result<Replies<S>, Error> {
    let hello = Hello { version: control::VERSION, token: token.to_owned() };
    // One write: both frames arrive together, and a guest that refuses the first has not
    // closed before the second is sent.
    let mut frames = Vec::new();
    control::write_frame(&mut frames, &hello)?;
    control::write_frame(&mut frames, request)?;
    match stream.write_all(&frames).and_then(|()| stream.flush()) {
        // The guest may have refused already: its reason is still to be read.
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(Replies { stream, ended: false }),
    }
}

/// The guest as it is now.
pub fn status<S: Read + Write>(stream: S, token: &str) -> Result<Status, Error> {
    match ask(stream, token, &Request::Status)?.next() {
        Some(Ok(Reply::Status(status))) => Ok(status),
        Some(Ok(Reply::Failed(failure))) => Err(Error::Refused(failure)),
        Some(Err(error)) => Err(error),
        _ => Err(Error::Transport(TransportError::Unexpected)),
    }
}

/// [`Request::Start`], [`Request::Stop`], [`Request::Restart`] or [`Request::Poweroff`]: returns
/// when it is done.
pub fn order<S: Read + Write>(stream: S, token: &str, request: &Request) -> Result<(), Error> {
    match ask(stream, token, request)?.next() {
        Some(Ok(Reply::Done)) => Ok(()),
        Some(Ok(Reply::Failed(failure))) => Err(Error::Refused(failure)),
        Some(Err(error)) => Err(error),
        _ => Err(Error::Transport(TransportError::Unexpected)),
    }
}

/// [`Request::Replace`]: returns when the manifest, and the programs, are in force. `sent` is told
/// how many bytes of them have gone.
pub fn replace<S: Read + Write>(
    mut stream: S,
    token: &str,
    manifest: &[u8],
    programs: Option<Programs<&[u8]>>,
    mut sent: impl FnMut(usize),
) -> Result<(), Error> {
    let part = |bytes| Part::of(bytes).ok_or(Error::Refused(Failure::Replace(Unfit::TooLarge)));
    let parts = match programs {
        Some(Programs { init, activator }) => {
            Some(Programs { init: part(init)?, activator: part(activator)? })
        }
        None => None,
    };
    let upload = Upload { manifest: part(manifest)?, programs: parts };
    let mut replies = ask(&mut stream, token, &Request::Replace(upload))?;
    for bytes in
        std::iter::once(manifest).chain(programs.into_iter().flat_map(Programs::into_array))
    {
        for chunk in bytes.chunks(CHUNK) {
            if replies.stream.write_all(chunk).is_err() {
                // The guest has refused already: its reason is still to be read.
                break;
            }
            sent(chunk.len());
        }
    }
    match replies.next() {
        Some(Ok(Reply::Done)) => Ok(()),
        Some(Ok(Reply::Failed(failure))) => Err(Error::Refused(failure)),
        Some(Err(error)) => Err(error),
        _ => Err(Error::Transport(TransportError::Unexpected)),
    }
}

/// The kept lines of a unit, or of all; with `follow` it goes on until the guest goes down or
/// `each` returns an error, which is handed back.
pub fn logs<S: Read + Write>(
    stream: S,
    token: &str,
    unit: Option<&UnitName>,
    follow: bool,
    mut each: impl FnMut(Line) -> io::Result<()>,
) -> Result<(), Error> {
    let request = Request::Logs { unit: unit.cloned(), follow };
    for reply in ask(stream, token, &request)? {
        match reply? {
            Reply::Line(line) => each(line)?,
            Reply::Done => return Ok(()),
            Reply::Failed(failure) => return Err(Error::Refused(failure)),
            Reply::Status(_) => return Err(Error::Transport(TransportError::Unexpected)),
        }
    }
    Err(Error::Transport(TransportError::Closed))
}

impl<S: Read> Iterator for Replies<S> {
    type Item = Result<Reply, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let reply = control::read_frame::<Reply>(&mut self.stream);
        self.ended = reply.as_ref().map_or(true, Reply::is_final);
        Some(reply.map_err(Error::from))
    }
}

/// A unit's name as it is shown: `echo.service`, of a user `ann/echo.service`.
pub fn full_name(user: Option<&str>, unit: &str) -> String {
    match user {
        Some(user) => format!("{user}/{unit}"),
        None => unit.to_owned(),
    }
}

/// A log text without what a terminal would obey: control characters other than the tab become
/// `\u{fffd}`. For everyone who prints lines that a service wrote.
pub fn printable(text: &str) -> String {
    text.chars().map(harmless).collect()
}

/// The same of one letter.
pub(crate) fn harmless(letter: char) -> char {
    if letter.is_control() && letter != '\t' { '\u{fffd}' } else { letter }
}

/// Microseconds since the epoch as RFC 3339 in UTC: `2026-11-22T11:06:49.000001Z`.
pub fn timestamp(realtime_us: u64) -> String {
    let (seconds, fraction) = (realtime_us / 1_000_000, realtime_us % 1_000_000);
    let (mut day, second) = (seconds / 86_400, seconds % 86_400);
    let leap = |year: u64| {
        year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
    };
    let mut year = 1970;
    while day >= 365 + u64::from(leap(year)) {
        day -= 365 + u64::from(leap(year));
        year += 1;
    }
    let mut month = 1;
    for length in [31, 28 + u64::from(leap(year)), 31, 30, 31, 30, 31, 31, 30, 31, 30] {
        if day < length {
            break;
        }
        day -= length;
        month += 1;
    }
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    let day = day + 1;
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{fraction:06}Z")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Cursor;

    /// A peer that has answered before it was asked.
    struct Canned {
        asked: Vec<u8>,
        answer: Cursor<Vec<u8>>,
    }

    impl Canned {
        fn new(replies: &[Reply]) -> Self {
            let mut answer = Vec::new();
            for reply in replies {
                control::write_frame(&mut answer, reply).unwrap();
            }
            Self { asked: Vec::new(), answer: Cursor::new(answer) }
        }
    }

    impl Read for &mut Canned {
        fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
            self.answer.read(into)
        }
    }

    impl Write for &mut Canned {
        fn write(&mut self, from: &[u8]) -> io::Result<usize> {
            self.asked.write(from)
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn line(text: &str) -> Line {
        Line { realtime_us: 1, unit: "a.service".into(), user: None, text: text.into() }
    }

    #[test]
    fn a_request_is_a_hello_and_one_frame() {
        let mut peer = Canned::new(&[Reply::Done]);
        assert_eq!(order(&mut peer, "t", &Request::Poweroff), Ok(()));
        let mut asked = &peer.asked[..];
        let hello: Hello = control::read_frame(&mut asked).unwrap();
        assert_eq!(hello, Hello { version: control::VERSION, token: "t".into() });
        assert_eq!(control::read_frame::<Request>(&mut asked).unwrap(), Request::Poweroff);
        assert!(asked.is_empty());
    }

    #[test]
    fn a_refusal_is_not_a_transport_error() {
        let mut peer = Canned::new(&[Reply::Failed(Failure::Denied)]);
        assert_eq!(status(&mut peer, ""), Err(Error::Refused(Failure::Denied)));
        let mut peer = Canned::new(&[]);
        assert_eq!(status(&mut peer, ""), Err(Error::Transport(TransportError::Closed)));
        let mut peer = Canned::new(&[Reply::Done]);
        assert_eq!(status(&mut peer, ""), Err(Error::Transport(TransportError::Unexpected)));
    }

    #[test]
    fn garbage_is_told_apart() {
        let mut peer = Canned { asked: Vec::new(), answer: Cursor::new(b"SSH-2.0-x\r\n".to_vec()) };
        assert_eq!(status(&mut peer, ""), Err(Error::Transport(TransportError::Garbage)));
    }

    #[test]
    fn lines_come_in_order_until_done() {
        let replies = [Reply::Line(line("a")), Reply::Line(line("b")), Reply::Done];
        let mut peer = Canned::new(&replies);
        let mut seen = Vec::new();
        let result = logs(&mut peer, "", None, false, |line| {
            seen.push(line.text);
            Ok(())
        });
        assert_eq!((result, seen), (Ok(()), vec!["a".to_owned(), "b".to_owned()]));
    }

    #[test]
    fn terminals_are_not_commanded() {
        assert_eq!(printable("a\tb\x1b[2Jc\u{9b}d"), "a\tb\u{fffd}[2Jc\u{fffd}d");
    }

    #[test]
    fn timestamps() {
        assert_eq!(timestamp(0), "1970-01-01T00:00:00.000000Z");
        assert_eq!(timestamp(1_795_345_609_000_001), "2026-11-22T11:06:49.000001Z");
        assert_eq!(timestamp(1_709_251_199_999_999), "2024-02-29T23:59:59.999999Z");
        assert_eq!(timestamp(1_735_689_599_000_000), "2024-12-31T23:59:59.000000Z");
    }
}
