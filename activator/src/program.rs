//! Command lines and environments of all services as execve(2) wants them, made at start-up.
//!
//! What only the moment of a start knows (LISTEN_PID, LISTEN_FDS, LISTEN_FDNAMES, MAINPID) has a
//! [`Field`] each: text with room behind it, so that filling it in needs no memory.

use crate::connection::Variables;
use crate::reload::state::Place;
use crate::store::Store;
use crate::supervise::{Step, Told};
use crate::told;
use activator::manifest::{
    Command, Execution, INSTANCE, Input, Manifest, Output, Unit, UnitId, UnitKind,
};
use activator::notification::NAME;
use activator::stage2::{self, List, Next};
use std::ffi::{CStr, CString, NulError, c_char};

/// Digits of the largest pid.
pub(crate) const PID_DIGITS: usize = 10;
/// Digits of the largest number of fds.
const COUNT_DIGITS: usize = 10;

/// Text that ends in a NUL, of which the part behind the prefix is written anew each time.
#[derive(Debug)]
pub(crate) struct Field {
    /// Its capacity is never exceeded, so it never moves.
    bytes: Vec<u8>,
    prefix: usize,
}

impl Field {
    /// Room for so many bytes behind the prefix.
    pub(crate) fn new(prefix: &[u8], room: usize) -> Self {
        let mut bytes = Vec::with_capacity(prefix.len() + room + 1);
        bytes.extend_from_slice(prefix);
        bytes.push(0);
        Self { bytes, prefix: prefix.len() }
    }

    /// Whether nothing stands behind the prefix.
    pub(crate) fn is_empty(&self) -> bool {
        self.bytes.len() <= self.prefix + 1
    }

    /// Back to the prefix.
    pub(crate) fn clear(&mut self) {
        self.bytes.truncate(self.prefix);
        self.push(&[]);
    }

    /// Appends; what does not fit is left out, and the room is made for the longest.
    pub(crate) fn push(&mut self, text: &[u8]) {
        if self.bytes.len() > self.prefix && self.bytes.last() == Some(&0) {
            self.bytes.pop();
        }
        let room = self.bytes.capacity() - self.bytes.len();
        let text = &text[..text.len().min(room.saturating_sub(1))];
        self.bytes.extend_from_slice(text);
        self.bytes.push(0);
    }

    pub(crate) fn push_number(&mut self, number: u32) {
        self.push(decimal(number, &mut [0; 10]));
    }

    /// The same for a number of twenty digits at most.
    pub(crate) fn push_long(&mut self, number: u64) {
        // In two halves of nine digits, the second padded.
        let (high, low) = (number / 1_000_000_000, (number % 1_000_000_000) as u32);
        if high == 0 {
            return self.push_number(low);
        }
        self.push_long(high);
        let mut digits = [0; 10];
        let length = decimal(low, &mut digits).len();
        self.push(&b"000000000"[length..]);
        self.push_number(low);
    }

    /// The whole as a C string; good until it is written to.
    pub(crate) fn pointer(&self) -> *const c_char {
        self.bytes.as_ptr().cast()
    }

    /// Where a number of ten digits and a NUL have room: behind the prefix.
    pub(crate) fn hole(&mut self) -> &mut [u8] {
        self.bytes.truncate(self.prefix);
        self.bytes.resize(self.prefix + PID_DIGITS + 1, 0);
        &mut self.bytes[self.prefix..]
    }
}

impl std::fmt::Write for Field {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        self.push(text.as_bytes());
        Ok(())
    }
}

/// A number as text, without allocation; for the child, too.
pub(crate) fn decimal(mut number: u32, buffer: &mut [u8; 10]) -> &[u8] {
    let mut at = buffer.len();
    loop {
        at -= 1;
        buffer[at] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            return &buffer[at..];
        }
    }
}

/// One argument.
#[derive(Debug)]
enum Argument {
    Fixed(CString),
    /// Has `$MAINPID` or `${MAINPID}` in it: what stands before it, and behind.
    MainPid(Field, Vec<u8>),
}

/// One command line.
#[derive(Debug)]
struct Line {
    program: CString,
    arguments: Box<[Argument]>,
}

/// All command lines of a unit and its environment.
#[derive(Debug)]
pub(crate) struct Program {
    /// At the index of each list in [`List::ALL`].
    lists: [Box<[Line]>; List::ALL.len()],
    /// Whether all of them go by way of stage 2.
    staged: bool,
    environment: Box<[CString]>,
    /// None for a socket unit.
    told: Option<told::Fields>,
    listen_pid: Field,
    listen_fds: Field,
    listen_names: Field,
    /// ROUSE_EXEC, of a `Type=exec` service by way of stage 2.
    tell_to: Field,
    /// argv of the next exec; capacity for the longest, with the NULL.
    argv: Vec<*const c_char>,
    /// envp of the next exec; the same.
    envp: Vec<*const c_char>,
}

/// Paths and texts that are the same for all commands of a service.
#[derive(Debug)]
pub(crate) struct Surroundings {
    pub(crate) directory: CString,
    /// Files of the standard streams, where they are files.
    pub(crate) stdin: Option<CString>,
    pub(crate) stdout: Option<CString>,
    pub(crate) stderr: Option<CString>,
    /// `OOMScoreAdjust=` as text.
    pub(crate) oom_score: Option<CString>,
}

impl Surroundings {
    /// Fails only for text with a NUL in it.
    pub(crate) fn new(execution: &Execution) -> Result<Self, NulError> {
        let output = |output: &Output| match output {
            Output::File { path, .. } => CString::new(path.as_str()).map(Some),
            _ => Ok(None),
        };
        let stdin = match &execution.stdin {
            Input::File(path) => Some(CString::new(path.as_str())?),
            _ => None,
        };
        let oom_score = match execution.oom_score_adjust {
            Some(score) => Some(CString::new(score.to_string())?),
            None => None,
        };
        Ok(Self {
            directory: CString::new(execution.working_directory.as_str())?,
            stdin,
            stdout: output(&execution.stdout)?,
            stderr: output(&execution.stderr)?,
            oom_score,
        })
    }
}

/// What the moment of a start knows.
pub(crate) struct Moment<'a> {
    pub(crate) told: &'a Told,
    /// Socket units with the number of their open fds that are handed over, in the order of the
    /// fds.
    pub(crate) sockets: &'a mut dyn Iterator<Item = (UnitId, usize)>,
    /// The slot's position, if it is an instance ([`crate::slots::Slots::position`]).
    pub(crate) instance: Option<usize>,
    /// An instance's variables, ROUSE_INSTANCE first.
    pub(crate) variables: &'a [*const c_char],
    /// The fds that it has stored, which come behind those.
    pub(crate) store: Option<&'a Store>,
    /// The fd by which stage 2 tells of its exec.
    pub(crate) tell_to: Option<u32>,
}

/// A command ready for execve(2). The pointers live as long as the borrow of the [`Program`].
pub(crate) struct Ready<'a> {
    pub(crate) program: &'a CStr,
    /// Ends in NULL.
    pub(crate) argv: &'a [*const c_char],
    /// Ends in NULL.
    pub(crate) envp: &'a [*const c_char],
    /// Where the child writes its pid, ten digits at most and a NUL; it is in `envp`.
    pub(crate) listen_pid: *mut u8,
    /// The same for WATCHDOG_PID.
    pub(crate) watchdog_pid: Option<*mut u8>,
    /// It is stage 2 that is executed: it does what may fail for many reasons, or wait.
    pub(crate) staged: bool,
}

/// What every program is made with.
pub(crate) struct Setting<'a> {
    pub(crate) manifest: &'a Manifest,
    /// Path of this executable.
    pub(crate) activator: &'a str,
    /// Path of the manifest.
    pub(crate) path: &'a str,
    /// Directory of the notify sockets.
    pub(crate) notify: &'a str,
}

impl Program {
    /// Fails only for text with a NUL in it.
    pub(crate) fn new(
        setting: &Setting,
        unit: &Unit,
        execution: &Execution,
    ) -> Result<Self, NulError> {
        let staged = needs_stage2(unit, execution);
        let mut environment: Vec<CString> = strings(&execution.environment)?;
        if staged {
            environment.push(CString::new(format!("ROUSE_MANIFEST={}", setting.path))?);
        }
        let mut lists = [const { Vec::new() }; List::ALL.len()];
        for (lines, list) in lists.iter_mut().zip(List::ALL) {
            for (index, command) in list.of(unit).iter().enumerate() {
                lines.push(match staged {
                    true => stage2_line(setting, unit, list, index)?,
                    false => line(command)?,
                });
            }
        }
        let own = [UnitId(u16::try_from(index_of(setting.manifest, unit)).unwrap_or(u16::MAX))];
        let (sockets, told, stored) = match &unit.kind {
            // For ExecStartPost= and its kin (PassFileDescriptorsToExec=).
            UnitKind::Socket(_) => (&own[..], None, 0),
            UnitKind::Service(service) => {
                let socket = format!("{}/{}", setting.notify, setting.manifest.place(unit));
                let told = told::Fields::new(service, &socket)?;
                (&service.sockets[..], Some(told), Store::room(service))
            }
            _ => (&[][..], None, 0),
        };
        let names = sockets.iter().filter_map(|id| match &setting.manifest.unit(*id)?.kind {
            UnitKind::Socket(socket) => Some((socket.fd_name.len() + 1) * socket.listeners.len()),
            _ => None,
        });
        // An instance has one, of whichever socket unit took its connection.
        let one = setting.manifest.units.iter().map(|other| match &other.kind {
            UnitKind::Socket(socket) if socket.accept.is_some() => socket.fd_name.len(),
            _ => 0,
        });
        let names = names.sum::<usize>().max(one.max().unwrap_or(0));
        let longest = lists.iter().flatten().map(|line: &Line| line.arguments.len()).max();
        Ok(Self {
            argv: Vec::with_capacity(longest.unwrap_or(0) + 1),
            // LISTEN_PID, LISTEN_FDS, LISTEN_FDNAMES, ROUSE_EXEC, NULL, and an instance's
            envp: Vec::with_capacity(environment.len() + told::Fields::MOST + 5 + Variables::COUNT),
            lists: lists.map(Into::into),
            staged,
            environment: environment.into(),
            told,
            listen_pid: Field::new(b"LISTEN_PID=", PID_DIGITS),
            listen_fds: Field::new(b"LISTEN_FDS=", COUNT_DIGITS),
            listen_names: Field::new(b"LISTEN_FDNAMES=", names + stored * (NAME + 1)),
            tell_to: Field::new(b"ROUSE_EXEC=", COUNT_DIGITS),
        })
    }

    /// Whether its commands go by way of stage 2.
    pub(crate) fn is_staged(&self) -> bool {
        self.staged
    }

    /// Fills in the holes for one command.
    pub(crate) fn ready(
        &mut self,
        manifest: &Manifest,
        step: Step,
        moment: Moment,
    ) -> Option<Ready<'_>> {
        let (list, index) = place(step)?;
        let lines = List::ALL.iter().position(|it| *it == list)?;
        let line = self.lists.get_mut(lines)?.get_mut(usize::from(index))?;
        self.argv.clear();
        for argument in &mut line.arguments {
            self.argv.push(match argument {
                Argument::Fixed(text) => text.as_ptr(),
                Argument::MainPid(field, suffix) => {
                    field.clear();
                    if let Some(pid) = moment.told.main {
                        field.push_number(pid);
                    }
                    field.push(suffix);
                    field.pointer()
                }
            });
        }
        self.argv.push(std::ptr::null());
        self.envp.clear();
        self.envp.extend(self.environment.iter().map(|text| text.as_ptr()));
        // The first is stage 2's alone.
        let skipped = usize::from(!self.staged);
        self.envp.extend(moment.variables.iter().skip(skipped));
        let listen_pid = self.listen_pid.hole().as_mut_ptr();
        let watchdog_pid = self.told.as_mut().map(told::Fields::pid_hole);
        if let Some(told) = &mut self.told {
            told.fill(manifest, step, moment.told, moment.instance, &mut self.envp);
        }
        let mut count = 0;
        self.listen_names.clear();
        for (unit, open) in moment.sockets {
            let name = match manifest.unit(unit).map(|unit| &unit.kind) {
                Some(UnitKind::Socket(socket)) => socket.fd_name.as_bytes(),
                _ => &[],
            };
            for _ in 0..open {
                if count > 0 {
                    self.listen_names.push(b":");
                }
                self.listen_names.push(name);
                count += 1;
            }
        }
        for name in moment.store.into_iter().flat_map(Store::names) {
            if count > 0 {
                self.listen_names.push(b":");
            }
            self.listen_names.push(name);
            count += 1;
        }
        if count > 0 {
            self.listen_fds.clear();
            self.listen_fds.push_number(count);
            self.envp.push(self.listen_pid.pointer());
            self.envp.push(self.listen_fds.pointer());
            self.envp.push(self.listen_names.pointer());
        }
        if let Some(fd) = moment.tell_to {
            self.tell_to.clear();
            self.tell_to.push_number(fd);
            self.envp.push(self.tell_to.pointer());
        }
        self.envp.push(std::ptr::null());
        Some(Ready {
            program: &line.program,
            argv: &self.argv,
            envp: &self.envp,
            listen_pid,
            watchdog_pid,
            staged: self.staged,
        })
    }
}

/// A program of ours, always the same: `activator logd MANIFEST` with LISTEN_* of fixed names, or
/// `activator stage2 conditions UNIT`.
#[derive(Debug)]
pub(crate) struct OwnProgram {
    program: CString,
    arguments: Box<[CString]>,
    environment: Box<[CString]>,
    listen_pid: Field,
    argv: Vec<*const c_char>,
    envp: Vec<*const c_char>,
}

impl OwnProgram {
    /// The log process; `names` is LISTEN_FDNAMES, one for each fd.
    pub(crate) fn logd(place: &Place, names: &[String]) -> Result<Self, NulError> {
        let environment =
            [format!("LISTEN_FDS={}", names.len()), format!("LISTEN_FDNAMES={}", names.join(":"))];
        let paths = std::iter::once(&place.path).chain(&place.source).map(String::as_str);
        let words: Vec<&str> = std::iter::once("logd").chain(paths).collect();
        Self::new(&place.activator, &words, &environment)
    }

    /// The one that looks at a unit's conditions.
    pub(crate) fn conditions(setting: &Setting, unit: &Unit) -> Result<Self, NulError> {
        let name = stage2::unit_argument(setting.manifest, unit);
        let environment = [format!("ROUSE_MANIFEST={}", setting.path)];
        Self::new(setting.activator, &["stage2", "conditions", &name], &environment)
    }

    /// The one that removes what a run of a unit leaves behind, for each of what may come next.
    pub(crate) fn clean(setting: &Setting, unit: &Unit, next: Next) -> Result<Self, NulError> {
        let name = stage2::unit_argument(setting.manifest, unit);
        let environment = [format!("ROUSE_MANIFEST={}", setting.path)];
        Self::new(setting.activator, &["stage2", "clean", &name, next.name()], &environment)
    }

    fn new(activator: &str, words: &[&str], variables: &[String]) -> Result<Self, NulError> {
        let words = [activator].into_iter().chain(words.iter().copied());
        let arguments = words.map(CString::new).collect::<Result<Vec<_>, _>>()?;
        let path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin".to_owned();
        let environment = strings(&[&[path], variables].concat())?;
        Ok(Self {
            program: CString::new(activator)?,
            argv: Vec::with_capacity(arguments.len() + 1),
            // LISTEN_PID, ROUSE_INSTANCE, NULL
            envp: Vec::with_capacity(environment.len() + 3),
            arguments: arguments.into(),
            environment: environment.into(),
            listen_pid: Field::new(b"LISTEN_PID=", PID_DIGITS),
        })
    }

    /// As [`Program::ready`]; with an instance's variable, if it is about one.
    pub(crate) fn ready(&mut self, instance: Option<*const c_char>) -> Ready<'_> {
        self.argv.clear();
        self.argv.extend(self.arguments.iter().map(|text| text.as_ptr()));
        self.argv.push(std::ptr::null());
        let listen_pid = self.listen_pid.hole().as_mut_ptr();
        self.envp.clear();
        self.envp.extend(self.environment.iter().map(|text| text.as_ptr()));
        self.envp.push(self.listen_pid.pointer());
        self.envp.extend(instance);
        self.envp.push(std::ptr::null());
        Ready {
            program: &self.program,
            argv: &self.argv,
            envp: &self.envp,
            listen_pid,
            watchdog_pid: None,
            staged: false,
        }
    }
}

/// Where a unit stands in the manifest.
fn index_of(manifest: &Manifest, unit: &Unit) -> usize {
    let same = |other: &Unit| (other.owner, &other.name) == (unit.owner, &unit.name);
    manifest.units.iter().position(same).unwrap_or(usize::MAX)
}

/// Where a step's command stands; None is a program of ours, which is made elsewhere.
fn place(step: Step) -> Option<(List, u16)> {
    Some(match step {
        Step::Conditions | Step::Clean(_) => return None,
        Step::Condition(index) => (List::Condition, index),
        Step::StartPre(index) => (List::StartPre, index),
        Step::Start(index) => (List::Start, index),
        Step::StartPost(index) => (List::StartPost, index),
        Step::Reload(index) => (List::Reload, index),
        Step::StopPre(index) => (List::StopPre, index),
        Step::Stop(index) => (List::Stop, index),
        Step::StopPost(index) => (List::StopPost, index),
        Step::Health => (List::Health, 0),
        Step::HealthStartup => (List::HealthStartup, 0),
    })
}

/// Whether PID 1 cannot execute a unit's programs itself. It never takes another user's identity:
/// from then on other processes of that user could send SIGSTOP, and PID 1 sleeps until the
/// child has executed.
pub(crate) fn needs_stage2(unit: &Unit, execution: &Execution) -> bool {
    let container = matches!(&unit.kind, UnitKind::Service(service) if service.container.is_some());
    let commands = || List::ALL.into_iter().flat_map(|list| list.of(unit));
    let has_hole = |text: &String| text.contains(INSTANCE);
    let file = |output: &Output| match output {
        Output::File { path, .. } => has_hole(path),
        output => matches!(output, Output::Terminal | Output::Kmsg),
    };
    container
        || execution.stage2.is_some()
        || execution.user.is_some()
        || unit.owner.is_some()
        || execution.working_directory_optional
        || matches!(execution.stdin, Input::Terminal | Input::Data)
        || file(&execution.stdout)
        || file(&execution.stderr)
        || has_hole(&execution.working_directory)
        || execution.environment.iter().any(has_hole)
        || commands().any(|it| it.expand || it.shell || it.arguments.iter().any(has_hole))
}

fn line(command: &Command) -> Result<Line, NulError> {
    Ok(Line {
        program: CString::new(command.program.as_str())?,
        arguments: command.arguments.iter().map(|it| argument(it)).collect::<Result<_, _>>()?,
    })
}

/// The same command by way of [`stage2`].
fn stage2_line(setting: &Setting, unit: &Unit, list: List, index: usize) -> Result<Line, NulError> {
    let name = stage2::unit_argument(setting.manifest, unit);
    let index = index.to_string();
    let words = [setting.activator, "stage2", "exec", &name, list.name(), &index];
    let fixed = |word: &str| CString::new(word).map(Argument::Fixed);
    Ok(Line {
        program: CString::new(setting.activator)?,
        arguments: words.into_iter().map(fixed).collect::<Result<_, _>>()?,
    })
}

fn argument(text: &str) -> Result<Argument, NulError> {
    for hole in ["${MAINPID}", "$MAINPID"] {
        if let Some((prefix, suffix)) = text.split_once(hole) {
            // Checked for a NUL as the fixed ones are.
            let (prefix, suffix) = (CString::new(prefix)?, CString::new(suffix)?);
            let field = Field::new(prefix.as_bytes(), PID_DIGITS + suffix.as_bytes().len());
            return Ok(Argument::MainPid(field, suffix.into_bytes()));
        }
    }
    CString::new(text).map(Argument::Fixed)
}

fn strings(texts: &[String]) -> Result<Vec<CString>, NulError> {
    texts.iter().map(|text| CString::new(text.as_str())).collect()
}
