//! A new manifest, and perhaps new programs, on their way to PID 1.
//!
//! Each part is received into a memfd. When all is there and the checksums fit, it is tried as
//! far as it can be without PID 1: a manifest for this activator is decoded and its files are
//! looked for ([`crate::needs`]); new programs are asked to do that themselves, as `init verify` and
//! `activator verify` ([`needs::verify`]), for they may speak another version of the manifest.

use crate::child;
use crate::control::{Part, Programs, SUM, Unfit, Upload};
use crate::listen;
use crate::manifest::Manifest;
use crate::needs;
use rustix::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use rustix::fs::{self, CWD, MemfdFlags, Mode, OFlags};
use rustix::io::{self, Errno};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, Signal, WaitOptions, WaitStatus, kill_process, waitpid};
use std::path::Path;
use std::time::{Duration, Instant};

/// How long a new program may take to look at a manifest.
const TRIAL: Duration = Duration::from_secs(5);
/// Between two looks whether it is done.
const LOOK: Duration = Duration::from_millis(5);
/// Of what it says, so much is passed on; in bytes.
const WORDS: usize = 4096;

/// What is received.
#[derive(Debug)]
pub struct Receiving {
    /// The parts, in the order of the wire.
    parts: Vec<Receiver>,
}

#[derive(Debug)]
struct Receiver {
    part: Part,
    memory: OwnedFd,
    received: u32,
    digest: Digest,
}

/// A running checksum, with a name to print.
struct Digest(crc::Digest<'static, u32>);

impl std::fmt::Debug for Digest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Digest")
    }
}

/// What PID 1 is given: read-only fds.
#[derive(Debug)]
pub struct Goods {
    /// An encoded manifest.
    pub manifest: OwnedFd,
    /// Executables.
    pub programs: Option<Programs<OwnedFd>>,
}

impl Receiving {
    /// Makes room for what is announced.
    pub fn begin(upload: &Upload) -> Result<Self, Unfit> {
        let (manifest, programs) = (upload.manifest, upload.programs);
        let programs = programs.into_iter().flat_map(Programs::into_array);
        if manifest.length > Upload::LARGEST_MANIFEST
            || programs.clone().any(|part| part.length > Upload::LARGEST_PROGRAM)
        {
            return Err(Unfit::TooLarge);
        }
        let receiver = |part| {
            let flags = MemfdFlags::CLOEXEC;
            let memory = fs::memfd_create(c"rouse-upload", flags).map_err(|_| Unfit::TooLarge)?;
            Ok(Receiver { part, memory, received: 0, digest: Digest(SUM.digest()) })
        };
        let parts = std::iter::once(manifest).chain(programs).map(receiver);
        Ok(Self { parts: parts.collect::<Result<_, Unfit>>()? })
    }

    /// Takes bytes as they come; how many of them belong to it.
    pub fn feed(&mut self, bytes: &[u8]) -> Result<usize, Unfit> {
        let mut taken = 0;
        for receiver in &mut self.parts {
            let rest = bytes.get(taken..).unwrap_or_default();
            let wanted = receiver.part.length.saturating_sub(receiver.received) as usize;
            let bytes = rest.get(..wanted.min(rest.len())).unwrap_or_default();
            receiver.write(bytes).map_err(|_| Unfit::TooLarge)?;
            taken += bytes.len();
        }
        Ok(taken)
    }

    /// Whether all is there.
    pub fn is_complete(&self) -> bool {
        self.parts.iter().all(|receiver| receiver.received == receiver.part.length)
    }

    /// Checks the sums, and closes the memory to changes.
    pub fn finish(self) -> Result<Goods, Unfit> {
        let mut fds = Vec::new();
        for receiver in self.parts {
            if receiver.digest.0.finalize() != receiver.part.sum {
                return Err(Unfit::Damaged);
            }
            fds.push(read_only(receiver.memory).map_err(|_| Unfit::TooLarge)?);
        }
        let mut fds = fds.into_iter();
        let manifest = fds.next().ok_or(Unfit::Damaged)?;
        // None, or both: so many parts were announced.
        let programs = fds.next().zip(fds.next());
        let programs = programs.map(|(init, activator)| Programs { init, activator });
        Ok(Goods { manifest, programs })
    }
}

impl Receiver {
    fn write(&mut self, mut bytes: &[u8]) -> Result<(), Errno> {
        self.digest.0.update(bytes);
        while !bytes.is_empty() {
            match io::write(&self.memory, bytes) {
                Ok(length) => {
                    self.received = self.received.saturating_add(length as u32);
                    bytes = bytes.get(length..).unwrap_or_default();
                }
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno),
            }
        }
        Ok(())
    }
}

impl Goods {
    /// The manifest that a file has now.
    pub fn of_file(path: &Path) -> Result<Self, Unfit> {
        let unreadable =
            |error| Unfit::Manifest(format!("cannot read {}: {error}", path.display()));
        let bytes = std::fs::read(path).map_err(unreadable)?;
        let manifest = Part::of(&bytes).ok_or(Unfit::TooLarge)?;
        let mut receiving = Receiving::begin(&Upload { manifest, programs: None })?;
        receiving.feed(&bytes)?;
        receiving.finish()
    }

    /// Whether it can be taken, as far as can be told from here. `old` is what is in force.
    pub fn check(&self, old: &Manifest) -> Result<(), Unfit> {
        match &self.programs {
            Some(Programs { init, activator }) => {
                try_out("init", init, &self.manifest)?;
                try_out("activator", activator, &self.manifest)
            }
            None => {
                let bytes = read(&self.manifest);
                let bytes = bytes.map_err(|error| Unfit::Manifest(error.to_string()))?;
                let new = Manifest::decode(&bytes);
                let new = new.map_err(|error| Unfit::Manifest(error.to_string()))?;
                needs::check(Path::new("/"), Some(old), &new)
            }
        }
    }
}

/// `verify` of a new program: 0 and [`needs::FIT`] if it can take the manifest.
fn try_out(name: &str, program: &OwnedFd, manifest: &OwnedFd) -> Result<(), Unfit> {
    let say = |text: String| Err(Unfit::Activator(text));
    // Opened by its own name, it is at the beginning again.
    let input = std::fs::File::open(format!("/proc/self/fd/{}", manifest.as_raw_fd()));
    let Ok(input) = input else { return say("its manifest cannot be opened".into()) };
    let (child, pipes) = match verify(program, input.as_fd()) {
        Ok(begun) => begun,
        Err(errno) => return say(format!("the new {name} cannot be executed: {errno}")),
    };
    let Some(status) = wait(child) else {
        return say(format!("the new {name} does not come to an end"));
    };
    let [answer, complaint] = pipes.map(|pipe| words(&pipe));
    match status.exit_status() {
        Some(0) if answer == needs::FIT => Ok(()),
        _ if !complaint.is_empty() => say(complaint),
        Some(code) => say(format!("the new {name} does not answer as one: exited {code}")),
        None => say(format!("the new {name} does not answer as one: killed")),
    }
}

/// What a program that has ended left in a pipe. A child of it may hold the other end for ever.
fn words(pipe: &OwnedFd) -> String {
    let mut bytes = vec![0; WORDS];
    let read =
        listen::set_nonblocking(pipe.as_fd(), true).and_then(|()| io::read(pipe, &mut *bytes));
    bytes.truncate(read.unwrap_or(0));
    // What is not text is no answer.
    String::from_utf8(bytes).unwrap_or_default().trim().to_owned()
}

/// Begins it; the ends of its stdout and its stderr.
fn verify(program: &OwnedFd, input: BorrowedFd) -> Result<(Pid, [OwnedFd; 2]), Errno> {
    let program = format!("/proc/self/fd/{}", program.as_raw_fd());
    let arguments = child::texts([&program, "verify", &needs::STATE_VERSION.to_string()])?;
    let (answer, said) = pipe_with(PipeFlags::CLOEXEC)?;
    let (complaint, complained) = pipe_with(PipeFlags::CLOEXEC)?;
    let streams = [input, said.as_fd(), complained.as_fd()].map(Some);
    let child = child::spawn(&arguments[0], &arguments, &[], streams)?;
    Ok((child, [answer, complaint]))
}

/// Waits for a bounded time, then kills.
fn wait(child: Pid) -> Option<WaitStatus> {
    let until = Instant::now() + TRIAL;
    while Instant::now() < until {
        if let Ok(Some((_, status))) = waitpid(Some(child), WaitOptions::NOHANG) {
            return Some(status);
        }
        std::thread::sleep(LOOK);
    }
    let _ = kill_process(child, Signal::KILL);
    child::wait(child);
    None
}

/// The same memory by an fd that cannot write: it can be executed once nobody can write to it.
fn read_only(memory: OwnedFd) -> Result<OwnedFd, Errno> {
    let path = format!("/proc/self/fd/{}", memory.as_raw_fd());
    fs::openat(CWD, path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
}

/// All that an fd has, from its beginning.
pub fn read(fd: &OwnedFd) -> std::io::Result<Vec<u8>> {
    std::fs::read(format!("/proc/self/fd/{}", fd.as_raw_fd()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn upload(manifest: &[u8], programs: Option<[&[u8]; 2]>) -> Upload {
        let part = |bytes: &[u8]| Part::of(bytes).unwrap();
        let programs = programs.map(|programs| programs.map(part));
        let programs = programs.map(|[init, activator]| Programs { init, activator });
        Upload { manifest: part(manifest), programs }
    }

    #[test]
    fn parts_are_told_apart_however_they_come() {
        let manifest = b"manifest".as_slice();
        let [init, activator] = [b"init".as_slice(), b"activator!".as_slice()];
        let wire = [manifest, init, activator].concat();
        for step in 1..=wire.len() {
            let mut receiving =
                Receiving::begin(&upload(manifest, Some([init, activator]))).unwrap();
            for bytes in wire.chunks(step) {
                assert!(!receiving.is_complete());
                assert_eq!(receiving.feed(bytes), Ok(bytes.len()));
            }
            assert!(receiving.is_complete());
            assert_eq!(receiving.feed(b"more"), Ok(0));
            let goods = receiving.finish().unwrap();
            assert_eq!(read(&goods.manifest).unwrap(), manifest);
            let programs = goods.programs.unwrap();
            assert_eq!(read(&programs.init).unwrap(), init);
            assert_eq!(read(&programs.activator).unwrap(), activator);
        }
    }

    #[test]
    fn damage_and_size_are_seen() {
        let mut receiving = Receiving::begin(&upload(b"manifest", None)).unwrap();
        receiving.feed(b"manifesT").unwrap();
        assert_eq!(receiving.finish().unwrap_err(), Unfit::Damaged);
        let huge = Part { length: Upload::LARGEST_MANIFEST + 1, sum: 0 };
        let refused = Receiving::begin(&Upload { manifest: huge, programs: None });
        assert_eq!(refused.unwrap_err(), Unfit::TooLarge);
        let (fits, huge) = (upload(b"", Some([b"", b""])), Upload::LARGEST_PROGRAM + 1);
        for index in 0..2 {
            let mut lengths = [0; 2];
            lengths[index] = huge;
            let [init, activator] = lengths.map(|length| Part { length, sum: 0 });
            let refused = Upload { programs: Some(Programs { init, activator }), ..fits };
            assert_eq!(Receiving::begin(&refused).unwrap_err(), Unfit::TooLarge);
        }
    }

    #[test]
    fn a_manifest_is_decoded_and_an_activator_is_asked() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("manifest");
        std::fs::write(&file, "nonsense").unwrap();
        let nothing = Manifest::default();
        let mut goods = Goods::of_file(&file).unwrap();
        let why = crate::manifest::DecodeError::NotAManifest.to_string();
        assert_eq!(goods.check(&nothing), Err(Unfit::Manifest(why)));
        std::fs::write(&file, nothing.encode()).unwrap();
        goods.manifest = Goods::of_file(&file).unwrap().manifest;
        assert_eq!(goods.check(&nothing), Ok(()));
        let mut ask = |program: &str| {
            let [init, activator] = [(); 2].map(|()| std::fs::File::open(program).unwrap().into());
            goods.programs = Some(Programs { init, activator });
            goods.check(&nothing)
        };
        for program in ["/bin/true", "/bin/false"] {
            let Err(Unfit::Activator(why)) = ask(program) else { panic!() };
            assert!(why.contains("does not answer as one"), "{why}");
        }
        let Err(Unfit::Activator(why)) = ask("/dev/null") else { panic!() };
        assert!(why.contains("cannot be executed"), "{why}");
    }

    #[test]
    fn words_end_although_somebody_holds_the_pipe() {
        let (ours, theirs) = pipe_with(PipeFlags::CLOEXEC).unwrap();
        assert_eq!(words(&ours), "");
        io::write(&theirs, b"fit\n").unwrap();
        assert_eq!(words(&ours), "fit");
    }
}
