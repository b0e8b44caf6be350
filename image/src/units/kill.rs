//! systemd.kill(5): how a service is stopped. Only commands of services are killed this way;
//! those of a socket unit get SIGTERM, then SIGKILL.

use super::keys::Keys;
use super::value::{self, signal};
use activator::manifest::{KillMode, Service};

const SECTION: &str = "Service";

/// Reads the keys into a service that has the defaults.
pub(crate) fn read(keys: &mut Keys<'_>, service: &mut Service) {
    service.kill_mode = mode(keys);
    let mut signal =
        |key: &str, default| keys.setting(SECTION, key, signal::number).unwrap_or(default);
    service.kill_signal = signal("KillSignal", service.kill_signal);
    service.restart_kill_signal = signal("RestartKillSignal", service.restart_kill_signal);
    service.final_kill_signal = signal("FinalKillSignal", service.final_kill_signal);
    service.watchdog_signal = signal("WatchdogSignal", service.watchdog_signal);
    service.reload_signal = signal("ReloadSignal", service.reload_signal);
    service.send_sigkill =
        keys.setting(SECTION, "SendSIGKILL", value::boolean).unwrap_or(service.send_sigkill);
    service.send_sighup = keys.flag(SECTION, "SendSIGHUP");
}

fn mode(keys: &mut Keys<'_>) -> KillMode {
    const WORDS: &[&str] = &["control-group", "mixed", "process", "none"];
    const VALUES: [KillMode; 4] =
        [KillMode::ControlGroup, KillMode::Mixed, KillMode::Process, KillMode::None];
    let word = |text: &str| value::one_of(text, WORDS, &VALUES);
    keys.setting(SECTION, "KillMode", word).unwrap_or(KillMode::ControlGroup)
}
