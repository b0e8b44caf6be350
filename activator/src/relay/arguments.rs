//! The command line of `activator relay`.

use super::backend::{Target, TargetError};
use lexopt::{Arg, Parser, ValueExt};
use std::ffi::OsString;
use std::fmt;
use std::time::Duration;

pub(super) const USAGE: &str = "\
usage: activator relay [OPTION...] BACKEND

Carries what comes to inherited sockets (LISTEN_FDS, sd_listen_fds(3)) to BACKEND and back:
connections of stream sockets of any family, packets of datagram sockets. The same options as
systemd-socket-proxyd(8):

  -c, --connections-max=N   so many connections, and so many flows of datagrams, at a time; more
                            wait (256)
      --exit-idle-time=T    exit when there was no connection and no flow for that long (infinity)
      --proxy-protocol=v1   say first who connects, to a BACKEND that understands it; or v2
  -h, --help
      --version
and our own:
      --connect-timeout=T   try for so long to reach BACKEND: it may be starting (30s)
      --flow-idle-time=T    forget a sender of datagrams that was silent for so long (60s)
      --wait-for-backend    take no client before BACKEND answers, and none while it does not; not
                            within --connect-timeout: exit with 1
      --inside=UNIT         BACKEND is in the container that this unit runs: its loopback, its files
      --allow-cid=N         of vsock clients only these context ids; may be given several times

BACKEND is HOST:PORT (port 80 if none is given), /path or @name of a Unix socket, vsock:CID:PORT,
or vsock-mux:/path:PORT for the Unix socket of Firecracker, Cloud Hypervisor or rouse, which takes
`CONNECT PORT`. The last two carry streams only. T is a number of seconds, or has units: 500ms,
1min 30s, infinity.

A connection that comes while the relay exits waits in the backlog for the next one. Exit codes: 0
when idle or after SIGTERM or SIGINT (what the backend has sent and closed is still delivered; the
second signal ends that), 1 failed, 2 the command line is wrong.";

/// What to do.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Call {
    Help,
    Version,
    Relay(Box<Target>, Settings),
}

/// Limits and times.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Settings {
    /// Connections at a time, and flows; never 0.
    pub(super) connections_max: usize,
    /// None is never.
    pub(super) exit_idle: Option<Duration>,
    pub(super) connect_timeout: Duration,
    pub(super) flow_idle: Duration,
    pub(super) header: Header,
    /// Clients are taken when the backend answers.
    pub(super) wait: bool,
    /// The cgroup of the unit in whose container the backend is, below that of all services.
    pub(super) inside: Option<String>,
    /// Empty: all.
    pub(super) allow_cids: Vec<u32>,
}

/// What the backend hears first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Header {
    Nothing,
    /// Version 1 of HAProxy's PROXY protocol.
    ProxyV1,
    /// Version 2.
    ProxyV2,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            connections_max: 256,
            exit_idle: None,
            connect_timeout: Duration::from_secs(30),
            flow_idle: Duration::from_secs(60),
            header: Header::Nothing,
            wait: false,
            inside: None,
            allow_cids: vec![],
        }
    }
}

/// More connections need more fds than a process has.
const MOST: usize = 100_000;
/// As good as never.
const FOREVER: Duration = Duration::from_secs(100 * 365 * 86400);

/// What is wrong with a command line.
#[derive(Debug)]
pub(super) enum ArgumentError {
    Connections(String),
    Time(String),
    Header(String),
    Cid(String),
    NoBackend,
    SecondBackend(OsString),
    Backend(String, TargetError),
    Other(lexopt::Error),
}

impl fmt::Display for ArgumentError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connections(text) => {
                write!(f, "--connections-max={text}: expected a number from 1 to {MOST}")
            }
            Self::Time(text) => {
                write!(f, "time `{text}`: expected seconds, `500ms`, `1min 30s`, ... or `infinity`")
            }
            Self::Header(text) => write!(f, "--proxy-protocol={text}: expected `v1` or `v2`"),
            Self::Cid(text) => write!(f, "--allow-cid={text}: expected a number"),
            Self::NoBackend => f.write_str("expected the address of the backend"),
            Self::SecondBackend(text) => {
                write!(f, "expected one backend, `{}` is a second", text.display())
            }
            Self::Backend(text, error) => write!(f, "backend `{text}`: {error}"),
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
    /// `arguments` is what stands behind `relay`.
    pub(super) fn parse(arguments: &[OsString]) -> Result<Self, ArgumentError> {
        let mut parser = Parser::from_args(arguments);
        let mut settings = Settings::default();
        let mut backend = None;
        while let Some(argument) = parser.next()? {
            match argument {
                Arg::Short('c') | Arg::Long("connections-max") => {
                    let text = parser.value()?.string()?;
                    let number = text.parse().ok().filter(|number| (1..=MOST).contains(number));
                    settings.connections_max = number.ok_or(ArgumentError::Connections(text))?;
                }
                Arg::Long("exit-idle-time") => {
                    settings.exit_idle = Some(time(&mut parser)?).filter(|time| *time != FOREVER);
                }
                Arg::Long("connect-timeout") => settings.connect_timeout = time(&mut parser)?,
                Arg::Long("flow-idle-time") => settings.flow_idle = time(&mut parser)?,
                Arg::Long("proxy-protocol") => match parser.value()?.string()?.as_str() {
                    "v1" => settings.header = Header::ProxyV1,
                    "v2" => settings.header = Header::ProxyV2,
                    other => return Err(ArgumentError::Header(other.into())),
                },
                Arg::Long("wait-for-backend") => settings.wait = true,
                Arg::Long("inside") => settings.inside = Some(parser.value()?.string()?),
                Arg::Long("allow-cid") => {
                    let text = parser.value()?.string()?;
                    let cid = text.parse().map_err(|_| ArgumentError::Cid(text))?;
                    settings.allow_cids.push(cid);
                }
                Arg::Short('h') | Arg::Long("help") => return Ok(Self::Help),
                Arg::Long("version") => return Ok(Self::Version),
                Arg::Value(text) if backend.is_some() => {
                    return Err(ArgumentError::SecondBackend(text));
                }
                Arg::Value(text) => backend = Some(text.string()?),
                other => return Err(other.unexpected().into()),
            }
        }
        let text = backend.ok_or(ArgumentError::NoBackend)?;
        let target: Target = text.parse().map_err(|error| ArgumentError::Backend(text, error))?;
        Ok(Self::Relay(Box::new(target), settings))
    }
}

fn time(parser: &mut Parser) -> Result<Duration, ArgumentError> {
    let text = parser.value()?.string()?;
    time_span(&text).ok_or(ArgumentError::Time(text))
}

/// systemd.time(7), as far as an option needs it.
fn time_span(text: &str) -> Option<Duration> {
    let mut rest = text.trim();
    if rest == "infinity" {
        return Some(FOREVER);
    }
    let mut sum = Duration::ZERO;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (number, behind) = rest.split_at(end);
        let behind = behind.trim_start();
        let end = behind.find(|c: char| !c.is_alphabetic()).unwrap_or(behind.len());
        let (unit, behind) = behind.split_at(end);
        let unit = match unit {
            "us" | "usec" | "µs" | "μs" => Duration::from_micros(1),
            "ms" | "msec" => Duration::from_millis(1),
            "" | "s" | "sec" | "second" | "seconds" => Duration::from_secs(1),
            "m" | "min" | "minute" | "minutes" => Duration::from_secs(60),
            "h" | "hr" | "hour" | "hours" => Duration::from_secs(3600),
            "d" | "day" | "days" => Duration::from_secs(86400),
            "w" | "week" | "weeks" => Duration::from_secs(7 * 86400),
            _ => return None,
        };
        let part = times(number, unit)?;
        sum = sum.checked_add(part).filter(|sum| *sum < FOREVER)?;
        rest = behind.trim_start();
    }
    Some(sum)
}

/// A decimal number of units, without floating point, whose tables would be a percent of the
/// whole program. What is below a nanosecond is dropped.
fn times(number: &str, unit: Duration) -> Option<Duration> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() && fraction.is_empty() {
        return None;
    }
    let mut sum = unit.checked_mul(format!("0{whole}").parse().ok()?)?;
    let mut part = unit;
    for digit in fraction.chars() {
        part /= 10;
        sum += part * digit.to_digit(10)?;
    }
    Some(sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &[&str]) -> Result<Call, String> {
        let arguments: Vec<OsString> = line.iter().map(OsString::from).collect();
        Call::parse(&arguments).map_err(|error| error.to_string())
    }

    #[test]
    fn all_options() {
        let line = [
            "-c7",
            "--exit-idle-time=1min 30s",
            "--proxy-protocol=v1",
            "--connect-timeout",
            "500ms",
            "--flow-idle-time=2",
            "--allow-cid=2",
            "--allow-cid=5",
            "--wait-for-backend",
            "--inside=a.service",
            "/run/x",
        ];
        let Ok(Call::Relay(target, settings)) = parse(&line) else { panic!() };
        assert_eq!(*target, "/run/x".parse().unwrap());
        let expected = Settings {
            connections_max: 7,
            exit_idle: Some(Duration::from_secs(90)),
            connect_timeout: Duration::from_millis(500),
            flow_idle: Duration::from_secs(2),
            header: Header::ProxyV1,
            wait: true,
            inside: Some("a.service".into()),
            allow_cids: vec![2, 5],
        };
        assert_eq!(settings, expected);
        let Ok(Call::Relay(_, settings)) = parse(&["--exit-idle-time=infinity", "@x"]) else {
            panic!()
        };
        assert_eq!(settings, Settings::default());
    }

    #[test]
    fn times() {
        assert_eq!(time_span("1.5"), Some(Duration::from_millis(1500)));
        assert_eq!(time_span("1h 2min 3s"), Some(Duration::from_secs(3723)));
        assert_eq!(time_span("5 s"), Some(Duration::from_secs(5)));
        assert_eq!(time_span("1.25 h"), Some(Duration::from_secs(4500)));
        assert_eq!(time_span(".5s 0.001ms"), Some(Duration::from_nanos(500_001_000)));
        for wrong in ["", "x", "s", "1.2.3", "-1", "1 parsec", ".", "99999999999999999w"] {
            assert_eq!(time_span(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (line, said) in [
            (&[][..], "expected the address of the backend"),
            (&["/a", "/b"], "expected one backend"),
            (&["-c0", "/a"], "--connections-max=0: expected a number"),
            (&["--exit-idle-time=x", "/a"], "time `x`: expected seconds"),
            (&["--proxy-protocol=v3", "/a"], "--proxy-protocol=v3: expected `v1` or `v2`"),
            (&["--allow-cid=host", "/a"], "--allow-cid=host: expected a number"),
            (&["vsock:x:1"], "backend `vsock:x:1`: expected"),
        ] {
            let error = parse(line).unwrap_err();
            assert!(error.starts_with(said), "{line:?}: {error}");
        }
    }
}
