//! Where the standard streams of a child come from, as far as PID 1 has it open or opens it in
//! the child. Files, terminals and the kernel's log of what goes by way of stage 2 are stage 2's;
//! until it has them, what it says goes to the unit's log.

use crate::listen;
use crate::program::Surroundings;
use crate::spawn::{Stream, output_flags};
use activator::manifest::{Execution, Input, Output};
use std::ffi::CStr;
use std::os::fd::{AsRawFd, BorrowedFd};

/// All that may be a stream.
pub(crate) struct Sources<'a> {
    pub(crate) null: BorrowedFd<'a>,
    pub(crate) log: Option<BorrowedFd<'a>>,
    /// The one socket of a service whose streams use it.
    pub(crate) socket: Option<BorrowedFd<'a>>,
    /// The first fd of that `FileDescriptorName=`.
    pub(crate) named: &'a dyn Fn(&str) -> Option<BorrowedFd<'a>>,
    pub(crate) staged: bool,
}

impl<'a> Sources<'a> {
    /// stdin, stdout, stderr; None if one is an fd by a name that there is not.
    pub(crate) fn streams(
        &self,
        execution: &Execution,
        files: &'a Surroundings,
    ) -> Option<[Stream<'a>; 3]> {
        let Execution { stdin, stdout, stderr, .. } = execution;
        let input = match self.input(stdin, files.stdin.as_deref())? {
            Stream::Open(path, flags) if execution.stdin_is_output() => {
                Stream::Open(path, flags | libc::O_RDWR | libc::O_CREAT)
            }
            input => input,
        };
        // The file that stdin is: the one that this process opens, if it does.
        let shares = |output: &Output| !self.staged && execution.is_stdin(output);
        let output = match shares(stdout) {
            true => Stream::Same(0),
            false => self.output(stdout, files.stdout.as_deref(), 0)?,
        };
        let copied = *stderr == Output::Inherit
            || (*stderr == Output::Socket
                && (*stdin == Input::Socket || *stdout == Output::Socket));
        let error = match self.staged && copied {
            true => self.log(),
            false if shares(stderr) => Stream::Same(0),
            false => self.output(stderr, files.stderr.as_deref(), 1)?,
        };
        let from_nothing = matches!(stdin, Input::Null | Input::Data);
        let output = match stdout {
            Output::Inherit if from_nothing => self.null(),
            _ => output,
        };
        Some([input, output, error])
    }

    fn input(&self, input: &Input, file: Option<&'a CStr>) -> Option<Stream<'a>> {
        Some(match input {
            Input::Null | Input::Terminal | Input::Data => self.null(),
            Input::Socket => self.socket.map_or(self.null(), stream),
            Input::Fd(name) => self.named(name)?,
            Input::File(_) => match file.filter(|_| !self.staged) {
                Some(path) => Stream::Open(path, libc::O_RDONLY | libc::O_NOCTTY | libc::O_CLOEXEC),
                None => self.null(),
            },
        })
    }

    fn output(&self, output: &Output, file: Option<&'a CStr>, before: usize) -> Option<Stream<'a>> {
        Some(match output {
            Output::Null => self.null(),
            Output::Log | Output::Terminal | Output::Kmsg => self.log(),
            Output::Inherit => Stream::Same(before),
            Output::Socket => self.socket.map_or(self.null(), stream),
            Output::Fd(name) => self.named(name)?,
            Output::File { .. } => match file.filter(|_| !self.staged) {
                Some(path) => Stream::Open(path, output_flags(output)),
                None => self.log(),
            },
        })
    }

    /// As programs of inetd's kind expect it: blocking.
    fn named(&self, name: &str) -> Option<Stream<'a>> {
        let fd = (self.named)(name)?;
        let _ = listen::set_nonblocking(fd, false);
        Some(stream(fd))
    }

    fn null(&self) -> Stream<'a> {
        stream(self.null)
    }

    fn log(&self) -> Stream<'a> {
        self.log.map_or(self.null(), stream)
    }
}

fn stream(fd: BorrowedFd<'_>) -> Stream<'_> {
    Stream::Fd(fd.as_raw_fd())
}
