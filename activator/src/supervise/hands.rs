//! What the state machine does to the world, and what it is told by it.

use super::service::Outcome;
use super::{Accepted, Freeze};
use activator::control::{Event, Exit};
use activator::manifest::UnitId;
use activator::stage2::Next;

/// What the state machine can do to the world. The engine carries it out at once; none of it
/// blocks. Nothing is told by a return value that could also come as an event later.
pub(crate) trait Hands {
    /// Opens all listeners of a socket unit that are not open yet. Those that could be opened
    /// stay open when one fails.
    fn open(&mut self, unit: UnitId) -> Result<(), OpenFailed>;
    /// Closes all listeners of a socket unit, removes the files if it says so.
    fn close(&mut self, unit: UnitId);
    /// Drops what waits on all listeners of a socket unit (`FlushPending=`).
    fn flush(&mut self, unit: UnitId);
    /// Begins to watch a listener; one that is not open is as one at which nobody ever calls. What
    /// waits already must become an event. The error is the errno of epoll_ctl(2): EPERM is for ever,
    /// for want of memory it is tried again.
    fn watch(&mut self, unit: UnitId, listener: u16) -> Result<(), i32>;
    /// Ends the watch.
    fn unwatch(&mut self, unit: UnitId, listener: u16);
    /// Makes a child; the error is the errno of clone(2).
    fn spawn(&mut self, unit: UnitId, step: Step, told: &Told) -> Result<Spawned, i32>;
    /// Sends a signal.
    fn kill(&mut self, unit: UnitId, whom: Whom, signal: i32);
    /// Whether any process of the service is left, the main process among them.
    fn populated(&mut self, unit: UnitId) -> bool;
    /// Whether a connection of a service's listeners is open, or waits, or a packet does. True if
    /// the kernel does not tell.
    fn in_use(&mut self, unit: UnitId) -> bool;
    /// Freezes all processes of a service.
    fn freeze(&mut self, unit: UnitId) -> Freeze;
    /// Whether all of them are frozen.
    fn is_frozen(&mut self, unit: UnitId) -> bool;
    /// Lets them go on.
    fn thaw(&mut self, unit: UnitId);
    /// Accepts a connection of a listener with `Accept=yes`.
    fn accept(&mut self, unit: UnitId, listener: u16) -> Accepted;
    /// The connection that was accepted last is that instance's, and its number that.
    fn keep(&mut self, instance: UnitId, number: u64);
    /// Closes the connection that was accepted last.
    fn refuse(&mut self);
    /// An instance has ended: what is left of its connection in here is closed.
    fn release(&mut self, instance: UnitId);
    /// The process that the child of `Type=forking` has left, by `PIDFile=` or as the only one.
    fn find_main(&mut self, unit: UnitId) -> Found;
    /// Takes a process, which need not be a child of ours, as the main one. Its end, if nobody
    /// tells us by [`super::Supervisor::reaped`], is an [`super::Supervisor::emptied`]. False if
    /// there is no such process.
    fn adopt(&mut self, unit: UnitId, pid: u32) -> bool;
    /// Whether the process that was adopted has not ended; a zombie of ours, which will be reaped,
    /// has not either.
    fn alive(&mut self, unit: UnitId, pid: u32) -> bool;
    /// Closes the fds that the service has stored (`FDSTORE=1`).
    fn drop_store(&mut self, unit: UnitId);
    /// Tells people.
    fn tell(&mut self, unit: Option<UnitId>, event: Event);
}

/// A listener could not be opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct OpenFailed {
    /// Index of the Listen line.
    pub(crate) listener: u16,
    /// Why.
    pub(crate) errno: i32,
    /// Whether others of the unit are open.
    pub(crate) others: bool,
}

/// A child was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Spawned {
    /// Its process id.
    pub(crate) pid: u32,
    /// What came of the exec.
    pub(crate) executed: Executed,
}

/// Whether a child has executed its program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Executed {
    /// It has, or nobody asked to be told when.
    Yes,
    /// It could not, for that errno; it then ends with systemd's exit code for that, which comes
    /// as an event like any other end.
    No(i32),
    /// Stage 2 is on its way there. [`super::Supervisor::executed`] tells when it has; if it
    /// cannot, nothing but its end does.
    Later,
}

/// Which command of a unit, by its index in the manifest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// `Condition*=` and `Assert*=` of any unit, all in one child: `activator stage2 conditions
    /// UNIT`. It ends with 0 if they hold, 1 to 254 to skip the start, 255 to fail it.
    Conditions,
    /// `ExecCondition=`, with the same codes.
    Condition(u16),
    /// `ExecStartPre=`
    StartPre(u16),
    /// `ExecStart=`: the main process, which gets the fds.
    Start(u16),
    /// `ExecStartPost=`
    StartPost(u16),
    /// `ExecReload=`
    Reload(u16),
    /// `ExecStopPre=`, of a socket unit only.
    StopPre(u16),
    /// `ExecStop=`
    Stop(u16),
    /// `ExecStopPost=`
    StopPost(u16),
    /// `HealthCmd=`, in the service's cgroup, beside whatever else runs.
    Health,
    /// `HealthStartupCmd=`
    HealthStartup,
    /// Removes what must not outlive a run of a service, after its last process is gone:
    /// `activator stage2 clean UNIT stop|restart`.
    Clean(Next),
}

/// What a child is told of its unit in its environment, beside what the manifest says.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Told {
    /// `MAINPID`, for every step but `Start`.
    pub(crate) main: Option<u32>,
    /// `WATCHDOG_USEC`, with WATCHDOG_PID, for `Start`; 0 is none.
    pub(crate) watchdog_us: u64,
    /// `SERVICE_RESULT`, `EXIT_CODE`, `EXIT_STATUS`, for `Stop` and `StopPost`.
    pub(crate) ended: Option<Ended>,
    /// `MONITOR_*`: whose `OnFailure=` or `OnSuccess=` this start is.
    pub(crate) monitor: Option<(UnitId, Ended)>,
}

/// How a run of a service ended, as systemd.exec(5) tells it in variables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ended {
    pub(crate) result: Outcome,
    /// Of the main process, if it ran and is gone.
    pub(crate) exit: Option<Exit>,
}

/// Whom a signal is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Whom {
    /// One process, the service's main or control process.
    Process(u32),
    /// Every process of the service.
    All,
}

/// What came of [`Hands::find_main`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Found {
    /// That one.
    Process(u32),
    /// `PIDFile=` is not there, or not complete, or names nobody.
    NotYet,
    /// There is no `PIDFile=`, and several processes are left, or guessing is not wanted.
    Unclear,
    /// No process is left.
    Nobody,
}
