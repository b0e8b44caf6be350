//! Services in words.

use super::{Names, limit, line, show};
use crate::units::value::{signal, time};
use activator::manifest::{
    ExitType, FailureMode, KillMode, NotifyAccess, OnUnhealthy, RateLimit, Restart, Service,
    ServiceKind,
};

pub(super) fn describe(text: &mut String, service: &Service, names: &Names<'_>) {
    let ready = match service.kind {
        ServiceKind::Simple => "at once",
        ServiceKind::Exec => "when the program runs",
        ServiceKind::Oneshot => "when the program has ended",
        ServiceKind::Notify | ServiceKind::NotifyReload => "when the program says so",
        ServiceKind::Forking => "when the program has left one in the background",
    };
    line(text, "started", ready);
    if !service.sockets.is_empty() {
        line(text, "sockets", &names.list(&service.sockets));
    }
    if !service.relays.is_empty() {
        line(text, "relayed by", &names.list(&service.relays));
    }
    if let Some(container) = &service.container {
        line(text, "container", &format!("{} from {}", container.id, container.template));
    }
    for (word, commands) in [
        ("only if", &service.condition),
        ("before", &service.start_pre),
        ("runs", &service.start),
        ("then", &service.start_post),
        ("reload", &service.reload),
        ("stop", &service.stop),
        ("at the end", &service.stop_post),
    ] {
        for command in commands {
            line(text, word, &show(command));
        }
    }
    health(text, service);
    super::execution::describe(text, &service.execution);
    if service.non_blocking {
        line(text, "sockets are", "non-blocking");
    }
    restarts(text, service);
    timeouts(text, service);
    stops(text, service);
    if service.remain_after_exit {
        line(text, "stays", "active after its program has ended");
    }
    for (word, statuses) in [
        ("success", &service.success),
        ("no restart", &service.restart_prevent),
        ("restart", &service.restart_force),
    ] {
        for code in &statuses.codes {
            line(text, word, &format!("exit code {code}"));
        }
        for number in &statuses.signals {
            line(text, word, &signal::show(*number));
        }
    }
    if service.exit_type == ExitType::Cgroup {
        line(text, "ends", "when none of its processes is left");
    }
    if let Some(path) = &service.pid_file {
        line(text, "main pid", &format!("in {path}"));
    }
    notify(text, service);
    idle(text, service);
    for (file, value) in &service.cgroup {
        line(text, "cgroup", &format!("{file} = {value}"));
    }
}

fn health(text: &mut String, service: &Service) {
    let Some(health) = service.health.as_deref() else { return };
    let startup = health.startup.as_ref().map(|startup| ("begins healthy", &startup.probe));
    for (word, probe) in startup.into_iter().chain([("is healthy", &health.probe)]) {
        let every = time::show(probe.interval_us);
        line(text, word, &format!("every {every}: {}", show(&probe.command)));
    }
    let then = match health.on_failure {
        OnUnhealthy::None => "is said to be",
        OnUnhealthy::Kill => "is killed",
        OnUnhealthy::Restart => "is restarted",
        OnUnhealthy::Stop => "is stopped",
    };
    line(text, "unhealthy", &format!("{then} after {} failures", health.retries));
}

fn restarts(text: &mut String, service: &Service) {
    let delay = time::show(service.restart_delay_us);
    if service.restart != Restart::No {
        line(text, "restart", &format!("{:?} after {delay}", service.restart));
    }
    if service.restart_steps > 0 {
        let longest = time::show(service.restart_max_delay_us);
        let steps = service.restart_steps;
        line(text, "restart", &format!("later each time, up to {longest} in {steps} steps"));
    }
    if service.start_limit != (RateLimit { interval_us: 10_000_000, burst: 5 }) {
        line(text, "starts", &limit(service.start_limit));
    }
}

fn timeouts(text: &mut String, service: &Service) {
    for (word, timeout) in [("start", service.start_timeout_us), ("stop", service.stop_timeout_us)]
    {
        let timeout = if timeout == 0 { "any time".into() } else { time::show(timeout) };
        line(text, word, &format!("may take {timeout}"));
    }
    for (word, mode) in [("start", service.start_failure), ("stop", service.stop_failure)] {
        match mode {
            FailureMode::Terminate => {}
            FailureMode::Abort => line(text, word, "that is late is aborted"),
            FailureMode::Kill => line(text, word, "that is late is killed"),
        }
    }
    if service.runtime_max_us > 0 {
        let extra = match service.runtime_extra_us {
            0 => String::new(),
            extra => format!(", and up to {} more", time::show(extra)),
        };
        let longest = time::show(service.runtime_max_us);
        line(text, "runs", &format!("{longest} at most{extra}"));
    }
    if service.watchdog_us > 0 {
        let signal = signal::show(service.watchdog_signal);
        let often = time::show(service.watchdog_us);
        line(text, "watchdog", &format!("{signal} if it is silent for {often}"));
    }
    let aborts = service.watchdog_us > 0
        || [service.start_failure, service.stop_failure].contains(&FailureMode::Abort);
    if aborts && service.abort_timeout_us != service.stop_timeout_us {
        let timeout = match service.abort_timeout_us {
            0 => "any time".into(),
            timeout => time::show(timeout),
        };
        line(text, "abort", &format!("may take {timeout}"));
    }
    if !service.guess_main_pid && service.kind == ServiceKind::Forking {
        line(text, "main pid", "is not guessed");
    }
}

fn stops(text: &mut String, service: &Service) {
    let kill = match service.kill_mode {
        KillMode::ControlGroup => "every process",
        KillMode::Mixed => "the main process, then kills the others",
        KillMode::Process => "the main process only",
        KillMode::None => "nobody",
    };
    let hangs_up = if service.send_sighup { ", SIGHUP after it" } else { "" };
    let kills = if service.send_sigkill { "" } else { ", without SIGKILL at the end" };
    let by = signal::show(service.kill_signal);
    line(text, "stopped by", &format!("{by} to {kill}{hangs_up}{kills}"));
    if service.restart_kill_signal != 0 {
        line(text, "to restart", &signal::show(service.restart_kill_signal));
    }
    if service.final_kill_signal != Service::default().final_kill_signal {
        line(text, "at last", &signal::show(service.final_kill_signal));
    }
    if service.kind == ServiceKind::NotifyReload {
        line(text, "reload", &format!("by {}", signal::show(service.reload_signal)));
    }
}

fn notify(text: &mut String, service: &Service) {
    let usual = match service.kind {
        ServiceKind::Notify | ServiceKind::NotifyReload => NotifyAccess::Main,
        _ => NotifyAccess::None,
    };
    if service.notify_access != usual {
        let who = match service.notify_access {
            NotifyAccess::None => "nobody",
            NotifyAccess::Main => "its main process",
            NotifyAccess::Exec => "its main process and its commands",
            NotifyAccess::All => "any process of it",
        };
        line(text, "told by", who);
    }
    if service.fd_store_max > 0 {
        let stay = if service.fd_store_preserve { ", also while it is stopped" } else { "" };
        line(text, "fd store", &format!("{} at most{stay}", service.fd_store_max));
    }
}

fn idle(text: &mut String, service: &Service) {
    for (word, time) in
        [("stopped", service.stop_when_idle_us), ("frozen", service.freeze_when_idle_us)]
    {
        if time > 0 {
            line(text, word, &format!("after {} without a connection", time::show(time)));
        }
    }
}
