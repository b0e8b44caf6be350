//! One boot of a VM, watched from QEMU's start to its end.
//!
//! | phase | ends with | then |
//! |---|---|---|
//! | booting | the guest listens | up |
//! | booting, KVM on trial | QEMU's `internal-error`, its death, or 60 s of silence | the caller boots again under TCG |
//! | booting, up | a signal, the parent's end | asked; if it was not up yet, quit |
//! | asked | the grace runs out, or the guest cannot be asked | button |
//! | button (ACPI, or arm64's GPIO) | 5 s | quit |
//! | quit (QMP) | 5 s | QEMU is killed |
//! | any | QEMU exits | over |
//!
//! A second signal kills QEMU in any phase.

use crate::accelerator::Accelerator;
use crate::child::{Emulation, describe, wait_for};
use crate::console;
use crate::emulator::Emulator;
use crate::monitor::{self, Monitor, MonitorError, Reason, Status};
use crate::registry::{Entry, Folder, RegistryError};
use crate::vm::{Event, Guest, Outcome, Stop, VmError};
use rustix::event::{PollFd, PollFlags, Timespec};
use std::ffi::OsString;
use std::fs;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::process::ExitStatus;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// Between two looks while something is awaited that gives no sign.
const TICK: Duration = Duration::from_millis(100);
/// Between two looks at the size of the console, while nothing is awaited.
const IDLE: Duration = Duration::from_secs(30);
/// Between two questions whether the guest listens.
const QUESTION: Duration = Duration::from_millis(50);
/// Between two questions what the VM does, while KVM is on trial.
const STATUS: Duration = Duration::from_secs(1);
/// Under KVM a guest has a driver or a line on the console within a second or two, on a host that
/// is not loaded far beyond its processors.
const SILENCE: Duration = Duration::from_secs(60);
/// For QEMU to open its monitor.
const MONITOR: Duration = Duration::from_secs(60);
/// After that time of booting a person is told where to look.
const SLOW: Duration = Duration::from_secs(60);
/// For a guest whose power button was pressed.
const BUTTON: Duration = Duration::from_secs(5);
/// For QEMU to quit.
const QUIT: Duration = Duration::from_secs(5);

/// What can be done when KVM does not run the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fallback {
    /// To boot again under TCG.
    Tcg,
    /// Nothing.
    None,
}

/// How a boot ended, other than by an error.
#[derive(Debug)]
pub(crate) enum End {
    /// For good.
    Outcome(Outcome),
    /// KVM did not run the guest.
    Unaccelerated {
        /// Why.
        reason: String,
        /// Whether nothing else can be the reason.
        certain: bool,
    },
}

/// One boot.
pub(crate) struct Watch<'a> {
    pub(crate) emulator: &'a Emulator,
    pub(crate) command: Vec<OsString>,
    pub(crate) folder: Folder,
    pub(crate) accelerator: Accelerator,
    pub(crate) fallback: Fallback,
    /// Whether the guest has driven a device yet.
    pub(crate) spoke: &'a dyn Fn() -> bool,
    pub(crate) guest: &'a dyn Guest,
    pub(crate) vm: Entry,
    pub(crate) stop: Stop<'a>,
    /// How long the guest may take to power off.
    pub(crate) grace: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Booting,
    Up,
    Asked(Instant),
    Button(Instant),
    Quit(Instant),
}

/// What the helping threads say, in one byte.
const LISTENS: u8 = b'l';
const CANNOT_ASK: u8 = b'c';

impl Watch<'_> {
    /// Boots, and watches until QEMU is gone.
    pub(crate) fn run(&self, report: &mut dyn FnMut(Event)) -> Result<End, VmError> {
        fs::write(self.folder.console(), b"").map_err(VmError::system("empty the console"))?;
        let _ = fs::remove_file(self.folder.monitor());
        let log = fs::OpenOptions::new().append(true).create(true).open(self.folder.log());
        let log = log.map_err(VmError::system("open the log of QEMU"))?;
        let (heard, says) = UnixStream::pair().map_err(VmError::system("make a socket pair"))?;
        let over = AtomicBool::new(false);
        let emulation = Emulation::start(&self.command, &self.emulator.environment, log)
            .map_err(VmError::Spawn)?;
        let (guest, vm) = (self.guest, &self.vm);
        thread::scope(|scope| {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    if guest.is_listening(vm) {
                        let _ = (&says).write_all(&[LISTENS]);
                        return;
                    }
                    thread::sleep(QUESTION);
                }
            });
            let ask = || {
                scope.spawn(|| {
                    if guest.power_off(vm).is_err() {
                        let _ = (&says).write_all(&[CANNOT_ASK]);
                    }
                });
            };
            let now = Instant::now();
            let watching = Watching {
                watch: self,
                emulation,
                monitor: None,
                phase: Phase::Booting,
                begun: now,
                asked_status: now,
                told_slow: false,
                spoke: false,
                reason: None,
                stop_asked: false,
                report,
            };
            let end = watching.run(&heard, &ask);
            over.store(true, Ordering::Relaxed);
            end
        })
    }
}

/// The state of one boot.
struct Watching<'a> {
    watch: &'a Watch<'a>,
    emulation: Emulation,
    /// None before QEMU listens, and after it has closed.
    monitor: Option<Monitor>,
    phase: Phase,
    begun: Instant,
    asked_status: Instant,
    told_slow: bool,
    /// Whether the guest has shown any sign of life.
    spoke: bool,
    /// Why QEMU shuts down, as it said.
    reason: Option<Reason>,
    /// Whether the VM was told to end.
    stop_asked: bool,
    report: &'a mut dyn FnMut(Event),
}

impl Watching<'_> {
    fn run(mut self, heard: &UnixStream, ask: &dyn Fn()) -> Result<End, VmError> {
        loop {
            let ready = self.poll(heard).map_err(VmError::system("wait for the VM"))?;
            self.open_monitor()?;
            if let Some(end) = self.read_monitor()? {
                return Ok(end);
            }
            let status = self.emulation.try_wait().map_err(VmError::system("wait for QEMU"))?;
            if let Some(status) = status {
                return self.conclude(status);
            }
            if ready.helper {
                self.hear(heard);
            }
            if ready.signal {
                drain(self.watch.stop.signals);
                if self.stop_asked {
                    self.emulation.kill();
                }
            }
            if (ready.signal || ready.parent) && !self.stop_asked {
                self.stop(ask);
            }
            if let Some(end) = self.check_time()? {
                return Ok(end);
            }
        }
    }

    fn poll(&self, heard: &UnixStream) -> io::Result<Ready> {
        let quiet = self.phase == Phase::Up && self.monitor.is_some();
        let time = if quiet { IDLE } else { TICK };
        let time = Timespec::try_from(time).map_err(io::Error::other)?;
        let mut fds = vec![
            PollFd::from_borrowed_fd(self.emulation.as_fd(), PollFlags::IN),
            PollFd::from_borrowed_fd(self.watch.stop.signals, PollFlags::IN),
            PollFd::from_borrowed_fd(heard.as_fd(), PollFlags::IN),
        ];
        let parent = self.watch.stop.parent.filter(|_| !self.stop_asked);
        if let Some(parent) = parent {
            fds.push(PollFd::from_borrowed_fd(parent, PollFlags::RDHUP));
        }
        if let Some(monitor) = &self.monitor {
            fds.push(PollFd::from_borrowed_fd(monitor.as_fd(), PollFlags::IN));
        }
        match rustix::event::poll(&mut fds, Some(&time)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        let has = |index: usize| !fds[index].revents().is_empty();
        Ok(Ready { signal: has(1), helper: has(2), parent: parent.is_some() && has(3) })
    }

    fn open_monitor(&mut self) -> Result<(), VmError> {
        if self.monitor.is_some() || self.reason.is_some() {
            return Ok(());
        }
        match Monitor::connect(&self.watch.folder.monitor(), Duration::ZERO) {
            Ok(monitor) => self.monitor = Some(monitor),
            Err(MonitorError::Connect(_) | MonitorError::Closed)
                if self.begun.elapsed() < MONITOR => {}
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    /// Takes what the monitor has to say.
    fn read_monitor(&mut self) -> Result<Option<End>, VmError> {
        while let Some(monitor) = &mut self.monitor {
            match monitor.event(Duration::ZERO)? {
                None => break,
                Some(monitor::Event::Shutdown(reason)) => self.reason = Some(reason),
                Some(monitor::Event::Panicked) => self.reason = Some(Reason::GuestPanic),
                Some(monitor::Event::Stopped) => {
                    if let Some(end) = self.check_status()? {
                        return Ok(Some(end));
                    }
                }
                Some(monitor::Event::Closed) => {
                    // What closes the monitor is exiting.
                    self.reason.get_or_insert(Reason::Other("closed".into()));
                    self.monitor = None;
                }
                Some(monitor::Event::Other(_)) => {}
            }
        }
        Ok(None)
    }

    fn check_status(&mut self) -> Result<Option<End>, VmError> {
        let Some(monitor) = &mut self.monitor else { return Ok(None) };
        self.asked_status = Instant::now();
        match monitor.status() {
            Ok(Status::InternalError) => {
                self.emulation.kill();
                let _ = wait_for(&self.emulation, QUIT);
                let lines = self.emulation.lines();
                let reason = internal_error(&lines);
                self.give_up(reason, lines, Certainty::Certain).map(Some)
            }
            Ok(_) | Err(MonitorError::Closed) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    fn hear(&mut self, mut heard: &UnixStream) {
        let mut said = [0];
        let _ = heard.read(&mut said);
        match (said[0], self.phase) {
            (LISTENS, Phase::Booting) => {
                self.phase = Phase::Up;
                (self.report)(Event::Ready);
            }
            (CANNOT_ASK, Phase::Asked(_)) => self.press_button(),
            _ => {}
        }
    }

    fn stop(&mut self, ask: &dyn Fn()) {
        self.stop_asked = true;
        (self.report)(Event::Stopping);
        if self.phase == Phase::Up {
            self.phase = Phase::Asked(Instant::now() + self.watch.grace);
            ask();
        } else {
            self.quit();
        }
    }

    fn press_button(&mut self) {
        let pressed = self.monitor.as_mut().map(Monitor::power_down);
        self.phase = Phase::Button(Instant::now() + BUTTON);
        if !matches!(pressed, Some(Ok(()))) {
            self.quit();
        }
    }

    fn quit(&mut self) {
        let quit = self.monitor.as_mut().map(Monitor::quit);
        self.phase = Phase::Quit(Instant::now() + QUIT);
        if !matches!(quit, Some(Ok(()))) {
            self.emulation.kill();
        }
    }

    fn check_time(&mut self) -> Result<Option<End>, VmError> {
        let now = Instant::now();
        match self.phase {
            // One that cannot be bounded is looked at again; the guest shall not suffer.
            Phase::Up => drop(console::bound(&self.watch.folder.console())),
            Phase::Booting => return self.check_boot(now),
            Phase::Asked(until) if now >= until => self.press_button(),
            Phase::Button(until) if now >= until => self.quit(),
            Phase::Quit(until) if now >= until => self.emulation.kill(),
            Phase::Asked(_) | Phase::Button(_) | Phase::Quit(_) => {}
        }
        Ok(None)
    }

    fn check_boot(&mut self, now: Instant) -> Result<Option<End>, VmError> {
        if now - self.begun >= SLOW && !self.told_slow {
            self.told_slow = true;
            let console = self.watch.folder.console();
            let text = "the guest does not listen yet; its console is in";
            (self.report)(Event::Notice(format!("{text} {}", console.display())));
        }
        if self.watch.fallback == Fallback::None {
            return Ok(None);
        }
        if now - self.asked_status >= STATUS
            && let Some(end) = self.check_status()?
        {
            return Ok(Some(end));
        }
        if !self.has_spoken() && now - self.begun >= SILENCE {
            self.emulation.kill();
            let reason = "the guest gives no sign of life".to_owned();
            return self.give_up(reason, Vec::new(), Certainty::Likely).map(Some);
        }
        Ok(None)
    }

    fn has_spoken(&mut self) -> bool {
        let wrote = || fs::metadata(self.watch.folder.console()).is_ok_and(|found| found.len() > 0);
        self.spoke = self.spoke || (self.watch.spoke)() || wrote();
        self.spoke
    }

    /// The accelerator has failed: the caller boots again, or it is an error.
    fn give_up(
        &self,
        reason: String,
        mut lines: Vec<String>,
        certainty: Certainty,
    ) -> Result<End, VmError> {
        if self.watch.fallback == Fallback::Tcg && self.phase == Phase::Booting {
            return Ok(End::Unaccelerated { reason, certain: certainty == Certainty::Certain });
        }
        lines.truncate(console::LINES);
        Err(VmError::Accelerator { accelerator: self.watch.accelerator, reason, lines })
    }

    /// QEMU has exited.
    fn conclude(mut self, status: ExitStatus) -> Result<End, VmError> {
        self.read_monitor()?;
        let console = self.watch.folder.console();
        let was_up = self.phase != Phase::Booting;
        let last = || console::last_lines(&console);
        let panic = |lines| VmError::Guest { reason: "its kernel panicked".into(), lines };
        let early = |what: &str| {
            let reason = format!("it {what} before it was up");
            Err(VmError::Guest { reason, lines: last() })
        };
        match self.reason {
            Some(Reason::GuestOff) if was_up => Ok(End::Outcome(Outcome::PoweredOff)),
            Some(Reason::GuestOff) => early("switched itself off"),
            Some(Reason::GuestPanic) => {
                Err(panic(console::panic_lines(&console).unwrap_or_else(last)))
            }
            Some(Reason::GuestReset) => match console::panic_lines(&console) {
                Some(lines) => Err(panic(lines)),
                None if was_up => Ok(End::Outcome(Outcome::Reset)),
                None => early("reset itself"),
            },
            _ if self.stop_asked => Ok(End::Outcome(Outcome::Ended)),
            Some(Reason::Host) if status.success() => Ok(End::Outcome(Outcome::Ended)),
            _ => self.blame_emulator(status),
        }
    }

    /// QEMU has exited, and not for the guest's sake.
    fn blame_emulator(mut self, status: ExitStatus) -> Result<End, VmError> {
        let mut lines = self.emulation.lines();
        let says = |what: &str| lines.iter().any(|line| line.contains(what));
        if says("unable to set guest cid") && says("in use") {
            let cid = self.watch.vm.record.cid;
            let holder = "this host or another VM of it".into();
            return Err(RegistryError::CidBusy { cid, holder }.into());
        }
        if self.watch.fallback == Fallback::Tcg
            && self.phase == Phase::Booting
            && !self.has_spoken()
        {
            let error = lines.iter().find(|line| line.contains("error")).or(lines.last());
            let reason = match error {
                Some(line) => format!("QEMU {}: {line}", describe(status)),
                None => format!("QEMU {}", describe(status)),
            };
            return self.give_up(reason, lines, Certainty::Likely);
        }
        lines.drain(..lines.len().saturating_sub(console::LINES));
        Err(VmError::Emulator { status: describe(status), lines })
    }
}

/// Whether a failure can only be KVM's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Certainty {
    Certain,
    Likely,
}

/// What a poll found.
struct Ready {
    signal: bool,
    helper: bool,
    parent: bool,
}

/// What QEMU says of an internal error: `KVM internal error. Suberror: 1`, numbers, and for that
/// suberror `emulation failure` in a line of its own; then the registers.
fn internal_error(lines: &[String]) -> String {
    let find = |what: &str| lines.iter().find(|line| line.contains(what)).cloned();
    let found = find("emulation failure").or_else(|| find("KVM internal error"));
    found.unwrap_or_else(|| "internal error".into())
}

/// Takes the bytes that stand for signals.
fn drain(signals: std::os::fd::BorrowedFd) {
    // One read takes all that matter: a byte that is left is a second signal.
    let mut bytes = [0; 1];
    let _ = rustix::io::read(signals, &mut bytes);
}

#[cfg(test)]
mod tests;
