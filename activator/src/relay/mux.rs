//! What is said on a connection to the backend before the client's bytes.
//!
//! Firecracker and Cloud Hypervisor offer a guest's vsock ports on one Unix socket: the client
//! sends `CONNECT PORT\n`, and gets `OK N\n` when the guest has accepted. A port on which nothing
//! listens is an end of file. The PROXY protocol's header comes after that.

use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::net::{self, RecvFlags, SendFlags};
use std::collections::VecDeque;

/// The longest answer: `OK 4294967295\n` is 14 bytes.
const LONGEST: usize = 32;

/// What is still to be said and heard.
#[derive(Debug, Default)]
pub(super) struct Greeting(VecDeque<Step>);

#[derive(Debug)]
enum Step {
    Send(Vec<u8>),
    ExpectOk,
}

/// How far a [`Greeting`] has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Progress {
    /// The client's bytes are next.
    Done,
    Waiting,
    /// The connection is of no use.
    Refused,
}

impl Greeting {
    /// `mux` is the port to ask for, `header` that of the PROXY protocol.
    pub(super) fn new(mux: Option<u32>, header: Option<Vec<u8>>) -> Self {
        let mut steps = VecDeque::new();
        if let Some(port) = mux {
            steps.push_back(Step::Send(format!("CONNECT {port}\n").into_bytes()));
            steps.push_back(Step::ExpectOk);
        }
        steps.extend(header.map(Step::Send));
        Self(steps)
    }

    /// Goes on as far as it can without waiting.
    pub(super) fn drive(&mut self, backend: &OwnedFd) -> Progress {
        while let Some(step) = self.0.front_mut() {
            let done = match step {
                Step::Send(bytes) => send(backend, bytes),
                Step::ExpectOk => expect_ok(backend),
            };
            match done {
                Ok(()) => self.0.pop_front(),
                Err(Errno::AGAIN) => return Progress::Waiting,
                Err(_) => return Progress::Refused,
            };
        }
        Progress::Done
    }
}

fn send(backend: &OwnedFd, bytes: &mut Vec<u8>) -> Result<(), Errno> {
    while !bytes.is_empty() {
        let sent = net::send(backend, bytes, SendFlags::NOSIGNAL | SendFlags::DONTWAIT)?;
        bytes.drain(..sent);
    }
    Ok(())
}

/// Takes the answer, and not a byte more: what comes behind it is the client's.
fn expect_ok(backend: &OwnedFd) -> Result<(), Errno> {
    let mut answer = [0; LONGEST];
    let flags = RecvFlags::DONTWAIT;
    let (length, _) = net::recv(backend, &mut answer, flags | RecvFlags::PEEK)?;
    let seen = answer.get(..length).unwrap_or_default();
    let end = seen.iter().position(|byte| *byte == b'\n');
    match end {
        Some(end) if seen.starts_with(b"OK ") => {
            let mut line = [0; LONGEST];
            let line = line.get_mut(..=end).ok_or(Errno::PROTO)?;
            net::recv(backend, line, flags).map(drop)
        }
        None if (1..LONGEST).contains(&length) => Err(Errno::AGAIN),
        _ => Err(Errno::PROTO),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

    fn pair() -> (OwnedFd, OwnedFd) {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        socketpair(AddressFamily::UNIX, SocketType::STREAM, flags, None).unwrap()
    }

    fn say(fd: &OwnedFd, text: &str) {
        assert_eq!(net::send(fd, text.as_bytes(), SendFlags::empty()), Ok(text.len()));
    }

    fn hear(fd: &OwnedFd) -> String {
        let mut buffer = [0; 100];
        let (length, _) = net::recv(fd, &mut buffer, RecvFlags::empty()).unwrap();
        String::from_utf8(buffer[..length].to_vec()).unwrap()
    }

    #[test]
    fn bytes_behind_the_answer_are_left() {
        let (ours, theirs) = pair();
        let mut greeting = Greeting::new(Some(52), Some("PROXY UNKNOWN\r\n".into()));
        assert_eq!(greeting.drive(&ours), Progress::Waiting);
        assert_eq!(hear(&theirs), "CONNECT 52\n");
        say(&theirs, "OK 10737");
        assert_eq!(greeting.drive(&ours), Progress::Waiting);
        say(&theirs, "41824\nhello");
        assert_eq!(greeting.drive(&ours), Progress::Done);
        assert_eq!(hear(&theirs), "PROXY UNKNOWN\r\n");
        assert_eq!(hear(&ours), "hello");
    }

    #[test]
    fn other_answers_refuse() {
        for answer in ["NO\n", "\n", "OK without an end that is near enough"] {
            let (ours, theirs) = pair();
            say(&theirs, answer);
            assert_eq!(Greeting::new(Some(1), None).drive(&ours), Progress::Refused, "{answer}");
        }
        let (ours, theirs) = pair();
        drop(theirs);
        assert_eq!(Greeting::new(Some(1), None).drive(&ours), Progress::Refused);
    }
}
