//! A manifest in words: what the guest will do, for people.

use super::quoting::quote;
use super::value::{signal, time};
use activator::address::kind_name;
use activator::manifest::{
    Command, Input, KillMode, Manifest, Output, RateLimit, Restart, Service, ServiceKind, Socket,
    Unit, UnitId, UnitKind,
};
use std::fmt::Write;

/// Everything that differs from one guest to another, in a fixed order; defaults are left out.
pub fn describe(manifest: &Manifest) -> String {
    let mut text = format!("{}\n", manifest.name);
    let boot = &manifest.boot;
    for module in &boot.modules {
        let required = if module.required { "" } else { " (if it loads)" };
        line(&mut text, "module", &format!("{} {}{required}", module.path, module.parameters));
    }
    for (name, value) in &boot.sysctls {
        line(&mut text, "sysctl", &format!("{name} = {value}"));
    }
    for writable in &boot.writable {
        line(&mut text, "tmpfs", &format!("{} mode {:04o}", writable.path, writable.mode));
    }
    let at_boot: Vec<&str> = manifest
        .units
        .iter()
        .filter(|unit| unit.start_at_boot)
        .map(|unit| unit.name.as_str())
        .collect();
    line(
        &mut text,
        "at boot",
        &if at_boot.is_empty() { "nothing".into() } else { at_boot.join(" ") },
    );
    for unit in &manifest.units {
        let _ = write!(text, "\n{}", unit.name);
        if unit.description != unit.name {
            let _ = write!(text, ": {}", unit.description);
        }
        text.push('\n');
        let names = Names { units: &manifest.units };
        match &unit.kind {
            UnitKind::Socket(socket) => describe_socket(&mut text, socket, unit, &names),
            UnitKind::Service(service) => describe_service(&mut text, service, &names),
            UnitKind::Target => {}
        }
        for (word, ids) in [
            ("requires", &unit.requires),
            ("wants", &unit.wants),
            ("after", &unit.after),
            ("conflicts", &unit.conflicts),
        ] {
            if !ids.is_empty() {
                line(&mut text, word, &names.list(ids));
            }
        }
    }
    text
}

struct Names<'a> {
    units: &'a [Unit],
}

impl Names<'_> {
    fn one(&self, id: UnitId) -> &str {
        self.units.get(id.index()).map_or("(no unit)", |unit| unit.name.as_str())
    }

    fn list(&self, ids: &[UnitId]) -> String {
        ids.iter().map(|id| self.one(*id)).collect::<Vec<_>>().join(" ")
    }
}

fn line(text: &mut String, word: &str, value: &str) {
    let _ = writeln!(text, "  {word:<10} {}", value.trim_end());
}

fn describe_socket(text: &mut String, socket: &Socket, unit: &Unit, names: &Names<'_>) {
    for listener in &socket.listeners {
        line(text, kind_name(listener.kind), &listener.address.to_string());
    }
    line(text, "starts", names.one(socket.service));
    if socket.fd_name != unit.name {
        line(text, "fd name", &socket.fd_name);
    }
    if socket.mode != 0o666 {
        line(text, "mode", &format!("{:04o}", socket.mode));
    }
    if socket.directory_mode != 0o755 {
        line(text, "folders", &format!("mode {:04o}", socket.directory_mode));
    }
    if let Some((uid, gid)) = socket.owner {
        line(text, "owner", &format!("{uid}:{gid}"));
    }
    if !socket.symlinks.is_empty() {
        line(text, "links", &socket.symlinks.join(" "));
    }
    if socket.remove_on_stop {
        line(text, "on stop", "removes its nodes");
    }
    if socket.flush_pending {
        line(text, "on start", "drops what waits");
    }
    if let Some(only) = socket.ipv6_only {
        line(text, "ipv6", if only { "only" } else { "and IPv4" });
    }
    if socket.backlog != i32::MAX as u32 {
        line(text, "backlog", &socket.backlog.to_string());
    }
    for option in &socket.options {
        line(text, "option", &format!("{option:?}"));
    }
    let usual = |burst| RateLimit { interval_us: 2_000_000, burst };
    if socket.trigger_limit != usual(20) {
        line(text, "triggers", &limit(socket.trigger_limit));
    }
    if socket.poll_limit != usual(15) {
        line(text, "polls", &limit(socket.poll_limit));
    }
}

fn limit(limit: RateLimit) -> String {
    match (limit.interval_us, limit.burst) {
        (0, _) | (_, 0) => "without limit".into(),
        (interval, burst) => format!("at most {burst} in {}", time::show(interval)),
    }
}

fn describe_service(text: &mut String, service: &Service, names: &Names<'_>) {
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
    if let Some(container) = &service.container {
        line(text, "container", &format!("{} from {}", container.id, container.template));
    }
    for (word, commands) in [
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
    for variable in &service.execution.environment {
        line(text, "variable", variable);
    }
    if let Some(user) = &service.execution.user {
        let groups: Vec<String> = user.groups.iter().map(u32::to_string).collect();
        line(text, "user", &format!("{}:{} {}", user.uid, user.gid, groups.join(" ")));
    }
    if service.execution.umask != 0o022 {
        line(text, "umask", &format!("{:04o}", service.execution.umask));
    }
    if service.execution.working_directory != "/" {
        line(text, "in", &service.execution.working_directory);
    }
    streams(text, service);
    if service.non_blocking {
        line(text, "sockets are", "non-blocking");
    }
    if service.restart != Restart::No {
        let delay = time::show(service.restart_delay_us);
        line(text, "restart", &format!("{:?} after {delay}", service.restart));
    }
    if service.start_limit != (RateLimit { interval_us: 10_000_000, burst: 5 }) {
        line(text, "starts", &limit(service.start_limit));
    }
    for (word, timeout) in [("start", service.start_timeout_us), ("stop", service.stop_timeout_us)]
    {
        let timeout = if timeout == 0 { "any time".into() } else { time::show(timeout) };
        line(text, word, &format!("may take {timeout}"));
    }
    let kill = match service.kill_mode {
        KillMode::ControlGroup => "every process",
        KillMode::Mixed => "the main process, then kills the others",
        KillMode::Process => "the main process only",
        KillMode::None => "nobody",
    };
    let kills = if service.send_sigkill { "" } else { ", without SIGKILL at the end" };
    line(text, "stopped by", &format!("{} to {kill}{kills}", signal::show(service.kill_signal)));
    if service.remain_after_exit {
        line(text, "stays", "active after its program has ended");
    }
    for code in &service.success.codes {
        line(text, "success", &format!("exit code {code}"));
    }
    for number in &service.success.signals {
        line(text, "success", &signal::show(*number));
    }
    for (number, soft, hard) in &service.execution.limits {
        line(text, "rlimit", &format!("{number}: {soft} {hard}"));
    }
    if let Some(score) = service.execution.oom_score_adjust {
        line(text, "oom score", &score.to_string());
    }
    if let Some(nice) = service.execution.nice {
        line(text, "nice", &nice.to_string());
    }
    if service.execution.no_new_privileges {
        line(text, "privileges", "no new ones");
    }
    for (file, value) in &service.cgroup {
        line(text, "cgroup", &format!("{file} = {value}"));
    }
}

fn streams(text: &mut String, service: &Service) {
    match &service.execution.stdin {
        Input::Null => {}
        Input::Socket => line(text, "stdin", "the socket"),
        Input::File(path) => line(text, "stdin", path),
        Input::Fd(name) => line(text, "stdin", &format!("the socket {name}")),
        Input::Terminal => line(text, "stdin", "the terminal"),
        Input::Data => line(text, "stdin", "text of the unit"),
    }
    let output = |output: &Output| match output {
        Output::Null => "nowhere".to_owned(),
        Output::Log => "the log".to_owned(),
        Output::Inherit => "as the stream before it".to_owned(),
        Output::Socket => "the socket".to_owned(),
        Output::Fd(name) => format!("the socket {name}"),
        Output::Terminal => "the terminal".to_owned(),
        Output::Kmsg => "the kernel's log".to_owned(),
        Output::File { path, append, truncate } => {
            let how = if *append { " (appends)" } else { "" };
            let emptied = if *truncate { " (emptied first)" } else { "" };
            format!("{path}{how}{emptied}")
        }
    };
    if service.execution.stdout != Output::Log {
        line(text, "stdout", &output(&service.execution.stdout));
    }
    if service.execution.stderr != Output::Inherit {
        line(text, "stderr", &output(&service.execution.stderr));
    }
}

fn show(command: &Command) -> String {
    let mut words: Vec<String> = command.arguments.iter().map(|word| quote(word)).collect();
    match words.first_mut() {
        Some(first) if command.arguments[0] == command.program => *first = quote(&command.program),
        Some(first) => *first = format!("{} (as {first})", quote(&command.program)),
        None => words.push(quote(&command.program)),
    }
    let mut shown = words.join(" ");
    if command.ignore_failure {
        shown.push_str("  (may fail)");
    }
    if command.privileged {
        shown.push_str("  (as root)");
    }
    shown
}
