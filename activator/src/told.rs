//! The variables that tell a command about its service's run (systemd.exec(5), "Environment
//! Variables in Spawned Processes"): room for each is made at start-up.

use crate::notify;
use crate::program::{Field, PID_DIGITS};
use crate::store::Store;
use crate::supervise::{Ended, Step, Told};
use activator::control::Exit;
use activator::manifest::{Manifest, NotifyAccess, Service, UnitId};
use activator::signals;
use std::ffi::{CString, NulError, c_char};

/// Digits of the largest u64.
const LONG_DIGITS: usize = 20;
/// The longest name of a unit.
const UNIT: usize = 255;
/// The longest result and the longest name of a signal are shorter.
const WORD: usize = 16;

/// All of them for one service.
#[derive(Debug)]
pub(crate) struct Fields {
    /// NOTIFY_SOCKET; an instance's has its slot's position behind it.
    notify: Option<Field>,
    /// Whether ExecStartPre= and its kin may notify, too (`NotifyAccess=exec` and `all`).
    control_notifies: bool,
    fd_store: Option<CString>,
    watchdog_us: Field,
    watchdog_pid: Field,
    main_pid: Field,
    /// SERVICE_RESULT, EXIT_CODE, EXIT_STATUS.
    own: [Field; 3],
    /// MONITOR_UNIT.
    monitor_unit: Field,
    /// The same as `own` for the unit that is monitored.
    monitor: [Field; 3],
}

impl Fields {
    /// The most that [`Fields::fill`] pushes.
    pub(crate) const MOST: usize = 12;

    /// `socket` is the path of the notify socket.
    pub(crate) fn new(service: &Service, socket: &str) -> Result<Self, NulError> {
        let notify = match notify::is_wanted(service) {
            true => {
                let text = CString::new(format!("NOTIFY_SOCKET={socket}"))?;
                Some(Field::new(text.as_bytes(), 1 + PID_DIGITS))
            }
            false => None,
        };
        let fd_store = match Store::room(service) {
            0 => None,
            room => Some(CString::new(format!("FDSTORE={room}"))?),
        };
        let field = |prefix: &str, room| Field::new(prefix.as_bytes(), room);
        Ok(Self {
            notify,
            control_notifies: matches!(
                service.notify_access,
                NotifyAccess::Exec | NotifyAccess::All
            ),
            fd_store,
            watchdog_us: field("WATCHDOG_USEC=", LONG_DIGITS),
            watchdog_pid: field("WATCHDOG_PID=", PID_DIGITS),
            main_pid: field("MAINPID=", PID_DIGITS),
            own: ["SERVICE_RESULT=", "EXIT_CODE=", "EXIT_STATUS="].map(|it| field(it, WORD)),
            monitor_unit: field("MONITOR_UNIT=", UNIT),
            monitor: ["MONITOR_SERVICE_RESULT=", "MONITOR_EXIT_CODE=", "MONITOR_EXIT_STATUS="]
                .map(|it| field(it, WORD)),
        })
    }

    /// Where the child writes its pid once more, ten digits at most and a NUL.
    pub(crate) fn pid_hole(&mut self) -> *mut u8 {
        self.watchdog_pid.hole().as_mut_ptr()
    }

    /// Pushes what a step is told. Called after [`Fields::pid_hole`], whose pointer stays good.
    pub(crate) fn fill(
        &mut self,
        manifest: &Manifest,
        step: Step,
        told: &Told,
        instance: Option<usize>,
        envp: &mut Vec<*const c_char>,
    ) {
        let starts = matches!(step, Step::Start(_));
        if let Some(notify) = &mut self.notify
            && (starts || self.control_notifies)
        {
            notify.clear();
            if let Some(position) = instance {
                notify.push(b".");
                notify.push_number(u32::try_from(position).unwrap_or(u32::MAX));
            }
            envp.push(notify.pointer());
        }
        if starts {
            envp.extend(self.fd_store.iter().map(|text| text.as_ptr()));
            if told.watchdog_us > 0 {
                self.watchdog_us.clear();
                self.watchdog_us.push_long(told.watchdog_us);
                envp.extend([self.watchdog_us.pointer(), self.watchdog_pid.pointer()]);
            }
        } else if let Some(pid) = told.main {
            self.main_pid.clear();
            self.main_pid.push_number(pid);
            envp.push(self.main_pid.pointer());
        }
        if matches!(step, Step::Stop(_) | Step::StopPost(_))
            && let Some(ended) = told.ended
        {
            tell(&mut self.own, ended, envp);
        }
        if let Some((unit, ended)) = told.monitor {
            self.monitor_of(manifest, unit, ended, envp);
        }
    }

    fn monitor_of(
        &mut self,
        manifest: &Manifest,
        unit: UnitId,
        ended: Ended,
        envp: &mut Vec<*const c_char>,
    ) {
        let Some(unit) = manifest.unit(unit) else { return };
        self.monitor_unit.clear();
        self.monitor_unit.push(unit.name.as_bytes());
        envp.push(self.monitor_unit.pointer());
        tell(&mut self.monitor, ended, envp);
    }
}

/// Result, and how the main process ended if it did.
fn tell(fields: &mut [Field; 3], ended: Ended, envp: &mut Vec<*const c_char>) {
    let [result, code, status] = fields;
    result.clear();
    result.push(ended.result.as_str().as_bytes());
    envp.push(result.pointer());
    let Some(exit) = ended.exit else { return };
    code.clear();
    status.clear();
    let (word, signal) = match exit {
        Exit::Code(number) => {
            status.push_number(u32::from(number));
            ("exited", None)
        }
        Exit::Signal(signal) => ("killed", Some(signal)),
        Exit::Dumped(signal) => ("dumped", Some(signal)),
    };
    code.push(word.as_bytes());
    match signal.map(|signal| (signal, signals::name(signal))) {
        Some((_, Some(name))) => status.push(name.as_bytes()),
        Some((signal, None)) => status.push_number(signal.unsigned_abs()),
        None => {}
    }
    envp.extend([code.pointer(), status.pointer()]);
}
