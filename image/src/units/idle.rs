//! `X-StopWhenIdleSec=` and `X-FreezeWhenIdleSec=`: for daemons that do not leave by themselves.
//!
//! Our own keys, which systemd skips as it does all that begin with `X-`. A service that none of
//! its listeners has an open connection to, for that long, is stopped in order, or its cgroup is
//! frozen; the next connection starts or thaws it.

use super::keys::Keys;
use super::value::time;
use crate::finding::{Finding, Span};
use activator::manifest::Service;

const SECTION: &str = "Service";
pub(crate) const STOP: &str = "X-StopWhenIdleSec";
pub(crate) const FREEZE: &str = "X-FreezeWhenIdleSec";

/// Reads both; the place of the last one that is on.
pub(crate) fn read(keys: &mut Keys<'_>, service: &mut Service) -> Option<Span> {
    service.stop_when_idle_us = keys.setting(SECTION, STOP, time::timeout).unwrap_or(0);
    service.freeze_when_idle_us = keys.setting(SECTION, FREEZE, time::timeout).unwrap_or(0);
    let (stop, freeze) = (service.stop_when_idle_us, service.freeze_when_idle_us);
    let unit = keys.unit;
    let place = |key| unit.all(SECTION, key).next_back().map(|line| line.key_span.clone());
    let span = match (stop > 0, freeze > 0) {
        (false, false) => return None,
        (true, _) => place(STOP),
        (false, true) => place(FREEZE),
    };
    if let (true, Some(span)) = (stop > 0 && freeze >= stop, place(FREEZE)) {
        keys.findings.push(
            Finding::error(span, format!("`{FREEZE}=` is not shorter than `{STOP}=`"))
                .label("stopped before it is frozen")
                .help("write a shorter time, or take one of the two out"),
        );
    }
    span
}
