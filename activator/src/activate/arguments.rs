//! The command line of `activator activate`.

use activator::address::AddressError;
use activator::manifest::{Address, ListenKind, Listener};
use lexopt::{Arg, Parser, ValueExt};
use std::ffi::OsString;
use std::fmt;
use std::os::unix::ffi::{OsStrExt, OsStringExt};

pub(super) const USAGE: &str = "\
usage: activator activate [OPTION...] -l ADDRESS... [--] PROGRAM [ARGUMENT...]

Listens, and becomes PROGRAM when the first client is there, with the sockets as sd_listen_fds(3)
expects them. The same options as systemd-socket-activate(1):

  -l, --listen=ADDRESS   listen there; may be given several times
  -d, --datagram         ADDRESSes without a kind are datagram sockets
      --seqpacket        ADDRESSes without a kind are sequential packet sockets
  -a, --accept           start a PROGRAM for each connection, and give it the connection
      --inetd            the socket on stdin and stdout, instead of sd_listen_fds(3)
  -E, --setenv=NAME[=VALUE]  hand a variable on, or set it
      --fdname=NAME[:NAME...]  names of the sockets; a single one is for all of them
      --now              do not wait for a client
  -h, --help
      --version

ADDRESS is a path, @name, a port, IPv4:port, [IPv6]:port, or vsock:CID:port. A kind may stand in
front of it, so that kinds can be mixed: stream:, datagram:, seqpacket:, or fifo: before a path.
  activator activate -l stream:127.0.0.1:53 -l datagram:127.0.0.1:53 named
  activator activate -l vsock::3000 --inetd -a cat

Sockets that were handed to us (LISTEN_FDS) are handed on, before those of --listen. PROGRAM gets
TERM, COLORTERM, NO_COLOR, PATH, USER and HOME, what -E says, and the variables of the protocol;
with --accept also REMOTE_ADDR and REMOTE_PORT. It exits with PROGRAM's code; with 1 if listening
or executing failed, 2 if the command line is wrong. With --accept it serves until SIGTERM or
SIGINT, then exits with 0; the PROGRAMs that still run get SIGTERM.";

/// What to do.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Call {
    Help,
    Version,
    Activate(Activate),
}

/// A command line that makes sense.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Activate {
    /// In the order of the command line, with the text of each.
    pub(super) listeners: Vec<(OsString, Listener)>,
    pub(super) mode: Mode,
    pub(super) hand_over: HandOver,
    /// None is "hand on what we have".
    pub(super) environment: Vec<(OsString, Option<OsString>)>,
    /// None without `--fdname`.
    pub(super) names: Option<Vec<OsString>>,
    /// The program and its arguments; not empty.
    pub(super) command: Vec<OsString>,
}

/// When the program is executed.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    /// In place, by the first event.
    #[default]
    First,
    /// In place, at once.
    Now,
    /// In a child for each connection.
    Accept,
}

/// Where the program finds its sockets.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) enum HandOver {
    /// From fd 3 on.
    #[default]
    Listen,
    /// On stdin and stdout.
    Inetd,
}

/// What is wrong with a command line.
#[derive(Debug)]
pub(super) enum ArgumentError {
    Address(String, AddressError),
    /// `fifo:` and no path, `seqpacket:` and an IP address.
    KindOfAddress(String, &'static str),
    Together(&'static str, &'static str),
    NoCommand,
    Other(lexopt::Error),
}

impl fmt::Display for ArgumentError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(text, error) => write!(f, "address `{text}`: {error}"),
            Self::KindOfAddress(text, expected) => write!(f, "address `{text}`: {expected}"),
            Self::Together(one, other) => write!(f, "{one} and {other} cannot be combined"),
            Self::NoCommand => f.write_str("expected the program to execute"),
            Self::Other(error) => error.fmt(f),
        }
    }
}

impl From<lexopt::Error> for ArgumentError {
    fn from(error: lexopt::Error) -> Self {
        Self::Other(error)
    }
}

impl Call {
    /// `arguments` is what stands behind `activate`. Options end at the program's name, as they
    /// do for systemd's.
    pub(super) fn parse(arguments: &[OsString]) -> Result<Self, ArgumentError> {
        let mut parser = Parser::from_args(arguments);
        let mut call = Activate::default();
        let mut addresses = vec![];
        let (mut accept, mut now) = (false, false);
        let mut kind: Option<ListenKind> = None;
        while let Some(argument) = parser.next()? {
            match argument {
                Arg::Short('l') | Arg::Long("listen") => addresses.push(parser.value()?),
                Arg::Short('d') | Arg::Long("datagram") => {
                    choose(&mut kind, ListenKind::Datagram)?;
                }
                Arg::Long("seqpacket") => choose(&mut kind, ListenKind::SequentialPacket)?,
                Arg::Short('a') | Arg::Long("accept") => accept = true,
                Arg::Long("inetd") => call.hand_over = HandOver::Inetd,
                Arg::Long("now") => now = true,
                Arg::Short('E') | Arg::Long("setenv" | "environment") => {
                    call.environment.push(assignment(parser.value()?));
                }
                Arg::Long("fdname") => {
                    call.names.get_or_insert_default().extend(names(&parser.value()?));
                }
                Arg::Short('h') | Arg::Long("help") => return Ok(Self::Help),
                Arg::Long("version") => return Ok(Self::Version),
                Arg::Value(program) => {
                    call.command.push(program);
                    call.command.extend(parser.raw_args()?);
                    break;
                }
                other => return Err(other.unexpected().into()),
            }
        }
        for text in addresses {
            let listener = listener(&text.clone().string()?, kind)?;
            call.listeners.push((text, listener));
        }
        call.mode = match (accept, now) {
            (true, true) => return Err(ArgumentError::Together("--accept", "--now")),
            (true, false) => Mode::Accept,
            (false, true) => Mode::Now,
            (false, false) => Mode::First,
        };
        let unaccepted = |kind| !matches!(kind, ListenKind::Stream | ListenKind::SequentialPacket);
        if accept && call.listeners.iter().any(|(_, it)| unaccepted(it.kind)) {
            return Err(ArgumentError::Together("--accept", "a socket without connections"));
        }
        if call.command.is_empty() {
            return Err(ArgumentError::NoCommand);
        }
        Ok(Self::Activate(call))
    }
}

fn choose(kind: &mut Option<ListenKind>, wanted: ListenKind) -> Result<(), ArgumentError> {
    match kind.replace(wanted) {
        Some(before) if before != wanted => {
            Err(ArgumentError::Together("--datagram", "--seqpacket"))
        }
        _ => Ok(()),
    }
}

/// An address with its kind: of the word in front of it, of the kind that systemd's own prefixes
/// of vsock addresses have, of the options, or a stream.
///
/// No address begins with one of these words, so that nothing that systemd takes means anything
/// else here.
fn listener(text: &str, kind: Option<ListenKind>) -> Result<Listener, ArgumentError> {
    let words = [
        ("stream:", ListenKind::Stream),
        ("datagram:", ListenKind::Datagram),
        ("seqpacket:", ListenKind::SequentialPacket),
        ("fifo:", ListenKind::Fifo),
    ];
    let word = words.into_iter().find_map(|(word, kind)| Some((text.strip_prefix(word)?, kind)));
    let of_vsock = match text.split_once(':') {
        Some(("vsock-stream", _)) => Some(ListenKind::Stream),
        Some(("vsock-dgram", _)) => Some(ListenKind::Datagram),
        Some(("vsock-seqpacket", _)) => Some(ListenKind::SequentialPacket),
        _ => None,
    };
    let (rest, kind) = match word {
        Some((rest, kind)) => (rest, kind),
        None => (text, of_vsock.or(kind).unwrap_or(ListenKind::Stream)),
    };
    let address: Address =
        rest.parse().map_err(|error| ArgumentError::Address(text.to_owned(), error))?;
    let expected = match (kind, &address) {
        (ListenKind::Fifo, Address::Path(_)) => None,
        (ListenKind::Fifo, _) => Some("expected a path behind `fifo:`"),
        (
            ListenKind::SequentialPacket,
            Address::AnyPort(_) | Address::Inet(..) | Address::Inet6(..),
        ) => Some("expected a Unix or vsock address: IP has no sequential packets"),
        _ => None,
    };
    match expected {
        Some(expected) => Err(ArgumentError::KindOfAddress(text.to_owned(), expected)),
        None => Ok(Listener { kind, address }),
    }
}

fn assignment(text: OsString) -> (OsString, Option<OsString>) {
    let bytes = text.as_bytes();
    match bytes.iter().position(|byte| *byte == b'=') {
        Some(at) => {
            let part = |bytes: &[u8]| OsString::from_vec(bytes.to_vec());
            (part(&bytes[..at]), Some(part(&bytes[at + 1..])))
        }
        None => (text, None),
    }
}

/// An empty text is one empty name.
fn names(text: &OsString) -> impl Iterator<Item = OsString> {
    text.as_bytes().split(|byte| *byte == b':').map(|name| OsString::from_vec(name.to_vec()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Call, String> {
        let arguments: Vec<OsString> = line.split_whitespace().map(OsString::from).collect();
        Call::parse(&arguments).map_err(|error| error.to_string())
    }

    fn activate(line: &str) -> Activate {
        match parse(line) {
            Ok(Call::Activate(call)) => call,
            other => panic!("{line}: {other:?}"),
        }
    }

    fn kinds(line: &str) -> Vec<ListenKind> {
        activate(line).listeners.into_iter().map(|(_, it)| it.kind).collect()
    }

    #[test]
    fn systemds_own_options() {
        let call =
            activate("-l 2000 --listen=/run/x -aE A=b=c --setenv C --fdname=a:b --inetd -- p -l x");
        assert_eq!(call.listeners[0].1.address, Address::AnyPort(2000));
        assert_eq!(call.listeners[1].1.address, Address::Path("/run/x".into()));
        assert_eq!((call.mode, call.hand_over), (Mode::Accept, HandOver::Inetd));
        assert_eq!(call.environment, [("A".into(), Some("b=c".into())), ("C".into(), None)]);
        assert_eq!(call.names, Some(vec!["a".into(), "b".into()]));
        assert_eq!(call.command, ["p", "-l", "x"]);
        assert_eq!(activate("--now -l 1 p").mode, Mode::Now);
        assert_eq!(activate("-l1 p -d").command, ["p", "-d"]);
        assert_eq!(activate("-l1 --fdname= p").names, Some(vec!["".into()]));
        assert_eq!(parse("-h"), Ok(Call::Help));
        assert_eq!(parse("--version"), Ok(Call::Version));
    }

    #[test]
    fn streams_and_datagrams_may_be_mixed() {
        use ListenKind::{Datagram, Fifo, SequentialPacket, Stream};
        assert_eq!(kinds("-l 1 -l 2 -d p"), [Datagram, Datagram]);
        assert_eq!(kinds("-l stream:1 -l datagram:[::1]:1 p"), [Stream, Datagram]);
        assert_eq!(kinds("-d -l stream:1 -l 1 -l fifo:/f p"), [Stream, Datagram, Fifo]);
        assert_eq!(kinds("-l seqpacket:@x -l vsock::1 p"), [SequentialPacket, Stream]);
        assert_eq!(kinds("--seqpacket -l /x -l vsock-stream::1 p"), [SequentialPacket, Stream]);
        assert_eq!(kinds("-l vsock-dgram:3:1 -l datagram:vsock:3:1 p"), [Datagram, Datagram]);
    }

    #[test]
    fn what_is_wrong_is_said_with_what_was_expected() {
        for (line, said) in [
            ("-l 1", "expected the program to execute"),
            ("-l x:1 p", "address `x:1`: expected an IP address before the port"),
            ("-l stream: p", "address `stream:`: expected a path"),
            ("-l fifo:1 p", "address `fifo:1`: expected a path behind `fifo:`"),
            ("--seqpacket -l 1 p", "address `1`: expected a Unix or vsock address"),
            ("-d --seqpacket -l 1 p", "--datagram and --seqpacket cannot be combined"),
            ("-a -d -l 1 p", "--accept and a socket without connections cannot be combined"),
            ("-a --now -l 1 p", "--accept and --now cannot be combined"),
            ("-x p", "invalid option '-x'"),
            ("--now=1 p", "unexpected argument for option '--now'"),
            ("-l", "missing argument for option '-l'"),
        ] {
            let error = parse(line).unwrap_err();
            assert!(error.starts_with(said), "{line}: {error}");
        }
    }
}
