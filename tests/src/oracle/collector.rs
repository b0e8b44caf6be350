//! Takes the probes' reports, in the order in which they come.

use serde_json::Value;
use std::collections::BTreeMap;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

/// Where it listens; the probe has the same path.
pub const COLLECTOR: &str = "/run/oracle/collector";

/// One report.
#[derive(Debug, Clone)]
pub struct Report {
    /// Without the case.
    pub tag: String,
    /// Of the process that sent it.
    pub pid: u32,
    /// What it said.
    pub seen: Value,
}

type Reports = BTreeMap<String, Vec<Report>>;

/// All reports so far, by case.
#[derive(Clone, Default)]
pub struct Collector {
    shared: Arc<(Mutex<Reports>, Condvar)>,
}

impl Collector {
    /// Listens, and takes reports as long as the process lives.
    pub fn start() -> Self {
        let collector = Self::default();
        let listener = UnixListener::bind(COLLECTOR).unwrap();
        std::fs::set_permissions(COLLECTOR, std::fs::Permissions::from_mode(0o666)).unwrap();
        let taken = collector.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                taken.take(stream.unwrap());
            }
        });
        collector
    }

    /// The probe waits for the end of the stream: the report is kept before that.
    fn take(&self, mut stream: UnixStream) {
        let mut bytes = vec![];
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        if stream.read_to_end(&mut bytes).is_err() {
            return;
        }
        let Ok(mut message) = serde_json::from_slice::<Value>(&bytes) else { return };
        let tag = message["tag"].as_str().unwrap_or_default().to_owned();
        let (case, tag) = tag.split_once(':').unwrap_or(("", &tag));
        let report = Report {
            tag: tag.to_owned(),
            pid: message["pid"].as_u64().unwrap_or(0) as u32,
            seen: message["report"].take(),
        };
        let (reports, changed) = &*self.shared;
        reports.lock().unwrap().entry(case.to_owned()).or_default().push(report);
        changed.notify_all();
    }

    /// Waits until so many reports of a case have a tag; false if they do not come.
    pub fn wait(&self, case: &str, tag: &str, count: usize, patience: Duration) -> bool {
        let end = Instant::now() + patience;
        let (reports, changed) = &*self.shared;
        let mut reports = reports.lock().unwrap();
        loop {
            let of_case = reports.get(case).into_iter().flatten();
            if of_case.filter(|report| report.tag == tag).count() >= count {
                return true;
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            reports = changed.wait_timeout(reports, left).unwrap().0;
        }
    }

    /// What a case's probes have said so far.
    pub fn of(&self, case: &str) -> Vec<Report> {
        self.shared.0.lock().unwrap().get(case).cloned().unwrap_or_default()
    }
}
