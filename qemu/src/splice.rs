//! A person's or a program's stdin and stdout, joined to a stream.
//!
//! | event | then |
//! |---|---|
//! | stdin ends | the stream's write side is shut down; its answer is still awaited |
//! | the peer shuts down its write side | all of it is written to stdout; stdin goes on |
//! | the peer closes, or resets | all of it is written to stdout; done, whatever stdin does |
//! | stdout's reader leaves | the stream is closed; done |
//!
//! The two directions never wait for each other, so a program may write all it has before it
//! reads the first byte.

use crate::connect::Stream;
use rustix::event::{PollFd, PollFlags, Timespec};
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::thread;

const BUFFER: usize = 64 * 1024;
/// Between two looks at a half-closed AF_VSOCK stream.
const AGAIN: Timespec = Timespec { tv_sec: 0, tv_nsec: 200_000_000 };

/// Carries bytes between `input`, `output` and the stream until both directions have ended, or
/// the peer is gone. `input` is polled, then read: it may be a file, a pipe, a socket, a terminal.
///
/// # Errors
/// Those of reading `input` and of writing to `output`; a peer that resets is an end like others.
pub fn splice(stream: &Stream, input: BorrowedFd, output: impl Write + Send) -> io::Result<()> {
    // The downloading thread drops its end when it is done, which wakes the other.
    let (done, downloading) = UnixStream::pair()?;
    thread::scope(|scope| {
        let download = scope.spawn(move || {
            let result = download(stream, output);
            if result.is_err() {
                let _ = stream.shutdown(Shutdown::Both);
            }
            drop(downloading);
            result
        });
        let uploaded = upload(stream, input, &done);
        if uploaded.is_err() {
            let _ = stream.shutdown(Shutdown::Both);
        }
        let downloaded = download.join().unwrap_or_else(|_| Err(io::ErrorKind::Other.into()));
        uploaded.and(downloaded)
    })
}

fn download(mut stream: &Stream, mut output: impl Write) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER];
    loop {
        let count = match stream.read(&mut buffer) {
            Ok(0) => return output.flush(),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) if is_gone(&error) => return output.flush(),
            Err(error) => return Err(error),
        };
        output.write_all(&buffer[..count])?;
        output.flush()?;
    }
}

fn upload(mut stream: &Stream, input: BorrowedFd, done: &UnixStream) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER];
    while readable(stream, input, done)? {
        let count = match rustix::io::read(input, &mut buffer) {
            Ok(count) => count,
            Err(rustix::io::Errno::INTR | rustix::io::Errno::AGAIN) => continue,
            // A terminal whose other side has hung up, a stdin that was never open.
            Err(rustix::io::Errno::IO | rustix::io::Errno::BADF) => 0,
            Err(errno) => return Err(errno.into()),
        };
        if count == 0 {
            return match stream.shutdown(Shutdown::Write) {
                Err(error) if !is_gone(&error) => Err(error),
                _ => Ok(()),
            };
        }
        match stream.write_all(&buffer[..count]) {
            Err(error) if is_gone(&error) => return Ok(()),
            written => written?,
        }
    }
    Ok(())
}

/// Waits until there is something of `input` to read. False if the peer has gone meanwhile, and
/// all that it sent was written.
fn readable(stream: &Stream, input: BorrowedFd, done: &UnixStream) -> io::Result<bool> {
    loop {
        let mut fds = [
            PollFd::from_borrowed_fd(input, PollFlags::IN),
            PollFd::from_borrowed_fd(done.as_fd(), PollFlags::IN),
        ];
        match rustix::event::poll(&mut fds, None) {
            Err(rustix::io::Errno::INTR) => continue,
            result => result?,
        };
        if !fds[0].revents().is_empty() {
            return Ok(true);
        }
        // The peer sends no more. Only where it does not receive either, all is over.
        if is_closed(stream, input)? {
            return Ok(false);
        }
    }
}

/// Waits, after the end of what the peer sends, for something of `input` (false), or for the end
/// of what the peer receives (true).
fn is_closed(stream: &Stream, input: BorrowedFd) -> io::Result<bool> {
    loop {
        let mut fds = [
            PollFd::from_borrowed_fd(input, PollFlags::IN),
            PollFd::from_borrowed_fd(stream.as_fd(), PollFlags::empty()),
        ];
        match rustix::event::poll(&mut fds, Some(&AGAIN)) {
            Err(rustix::io::Errno::INTR) => continue,
            result => result?,
        };
        if !fds[1].revents().is_empty() {
            return Ok(true);
        }
        if !fds[0].revents().is_empty() {
            return Ok(false);
        }
        // An AF_VSOCK socket raises no POLLHUP when its peer closes, but refuses to send even
        // nothing.
        match rustix::net::send(stream, &[], rustix::net::SendFlags::NOSIGNAL) {
            Err(errno) if is_gone(&errno.into()) => return Ok(true),
            Err(errno) => return Err(errno.into()),
            Ok(_) => {}
        }
    }
}

/// Carries bytes between two streams until both directions have ended.
pub fn relay(one: &Stream, other: &Stream) {
    thread::scope(|scope| {
        scope.spawn(|| pour(one, other));
        pour(other, one);
    });
}

/// Carries one direction. A receiver that is gone ends the sender's direction too.
fn pour(from: &Stream, to: &Stream) {
    let carried = download(from, to);
    let _ = to.shutdown(Shutdown::Write);
    if carried.is_err() {
        let _ = from.shutdown(Shutdown::Both);
    }
}

fn is_gone(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, NotConnected};
    matches!(error.kind(), BrokenPipe | ConnectionReset | ConnectionAborted | NotConnected)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::pipe;

    /// Larger than all the buffers on the way.
    const MUCH: usize = 4 << 20;

    /// Runs `splice` in a thread, between a stream to `peer` and what is returned.
    fn spliced(
        peer: impl FnOnce(UnixStream) + Send + 'static,
    ) -> (io::PipeWriter, io::PipeReader, thread::JoinHandle<io::Result<()>>) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let (stdin, write) = pipe().unwrap();
        let (read, stdout) = pipe().unwrap();
        thread::spawn(move || peer(theirs));
        let run = move || splice(&Stream::from(ours), stdin.as_fd(), stdout);
        (write, read, thread::spawn(run))
    }

    fn pattern() -> Vec<u8> {
        (0..MUCH).map(|index| (index % 251) as u8).collect()
    }

    #[test]
    fn the_answer_comes_after_the_end_of_stdin() {
        let (mut stdin, mut stdout, done) = spliced(|mut peer| {
            let mut all = Vec::new();
            peer.read_to_end(&mut all).unwrap();
            peer.write_all(&all).unwrap();
        });
        // All is written before anything is read.
        stdin.write_all(&pattern()).unwrap();
        drop(stdin);
        let mut answer = Vec::new();
        stdout.read_to_end(&mut answer).unwrap();
        assert!(answer == pattern());
        done.join().unwrap().unwrap();
    }

    #[test]
    fn stdin_goes_on_after_the_peer_has_ended_its_side() {
        let (tell, told) = std::sync::mpsc::channel();
        let (mut stdin, mut stdout, done) = spliced(move |mut peer| {
            peer.write_all(b"bye").unwrap();
            peer.shutdown(Shutdown::Write).unwrap();
            let mut all = Vec::new();
            peer.read_to_end(&mut all).unwrap();
            tell.send(all).unwrap();
        });
        let mut said = [0; 3];
        stdout.read_exact(&mut said).unwrap();
        stdin.write_all(b"still here").unwrap();
        drop(stdin);
        assert_eq!(told.recv().unwrap(), b"still here");
        done.join().unwrap().unwrap();
    }

    #[test]
    fn it_ends_when_the_peer_has_closed_though_stdin_is_open() {
        let (stdin, mut stdout, done) = spliced(|mut peer| {
            peer.write_all(&pattern()).unwrap();
        });
        let mut all = Vec::new();
        stdout.read_to_end(&mut all).unwrap();
        assert!(all == pattern());
        done.join().unwrap().unwrap();
        drop(stdin);
    }

    #[test]
    fn it_ends_when_nobody_reads_stdout() {
        let (stdin, stdout, done) = spliced(|mut peer| {
            // Until it is told that nobody listens.
            while peer.write_all(b"more").is_ok() {}
        });
        drop(stdout);
        let error = done.join().unwrap().unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
        drop(stdin);
    }

    #[test]
    fn a_relay_carries_both_half_closes() {
        let (client, one) = UnixStream::pair().unwrap();
        let (other, mut server) = UnixStream::pair().unwrap();
        let relay = thread::spawn(move || relay(&one.into(), &other.into()));
        let serve = thread::spawn(move || {
            server.write_all(b"ready").unwrap();
            server.shutdown(Shutdown::Write).unwrap();
            let mut all = Vec::new();
            server.read_to_end(&mut all).unwrap();
            all
        });
        let mut greeting = String::new();
        (&client).read_to_string(&mut greeting).unwrap();
        assert_eq!(greeting, "ready");
        (&client).write_all(b"hello").unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        assert_eq!(serve.join().unwrap(), b"hello");
        relay.join().unwrap();
    }
}
