//! `[Service]`, systemd.service(5) and systemd.kill(5), becomes a [`manifest::Service`].

use super::command;
use super::exec;
use super::keys::Keys;
use super::name::{Kind, Name};
use super::resources;
use super::value::{self, Expected, signal, time};
use crate::finding::{Finding, Span};
use activator::manifest::{Command, KillMode, Output, RateLimit, Restart, Service, ServiceKind};

const SECTION: &str = "Service";
/// DefaultTimeoutStartSec= and DefaultTimeoutStopSec=.
const TIMEOUT_US: u64 = 90_000_000;
/// DefaultRestartSec=
const RESTART_US: u64 = 100_000;
/// DefaultStartLimitIntervalSec= and DefaultStartLimitBurst=.
const START_LIMIT: RateLimit = RateLimit { interval_us: 10_000_000, burst: 5 };

/// A service before its sockets are known.
#[derive(Debug)]
pub(crate) struct ServiceUnit {
    /// `sockets` is empty until the graph is there.
    pub(crate) service: Service,
    /// `Sockets=`
    pub(crate) sockets: Vec<(Name, Span)>,
    /// Where `socket` is wanted as a standard stream.
    pub(crate) standard_socket: Option<Span>,
}

/// Reads the section. A Quadlet has no commands of its own for starting and stopping.
pub(crate) fn read(keys: &mut Keys<'_>) -> ServiceUnit {
    let kind = kind(keys);
    let exec = exec::read(keys);
    let environment = exec.environment;
    let mut commands = |key: &str| -> Vec<Command> {
        command::list(keys, key, &environment).into_iter().map(|(command, _)| command).collect()
    };
    let service = Service {
        kind,
        start_pre: commands("ExecStartPre"),
        start: commands("ExecStart"),
        start_post: commands("ExecStartPost"),
        reload: commands("ExecReload"),
        stop: commands("ExecStop"),
        stop_post: commands("ExecStopPost"),
        execution: exec.execution,
        non_blocking: keys.boolean(SECTION, "NonBlocking").unwrap_or(false),
        restart: restart(keys, kind),
        restart_delay_us: keys
            .last(SECTION, "RestartSec", time::microseconds)
            .unwrap_or(RESTART_US),
        start_limit: start_limit(keys),
        start_timeout_us: keys
            .last_of(&[(SECTION, "TimeoutStartSec"), (SECTION, "TimeoutSec")], time::timeout)
            .unwrap_or(if kind == ServiceKind::Oneshot { 0 } else { TIMEOUT_US }),
        stop_timeout_us: keys
            .last_of(&[(SECTION, "TimeoutStopSec"), (SECTION, "TimeoutSec")], time::timeout)
            .unwrap_or(TIMEOUT_US),
        kill_mode: kill_mode(keys),
        kill_signal: keys.setting(SECTION, "KillSignal", signal::number).unwrap_or(15),
        send_sigkill: keys.boolean(SECTION, "SendSIGKILL").unwrap_or(true),
        remain_after_exit: keys.boolean(SECTION, "RemainAfterExit").unwrap_or(false),
        cgroup: resources::read(keys),
        ..Service::default()
    };
    let mut unit = ServiceUnit {
        standard_socket: standard_socket(keys, &service),
        service,
        sockets: sockets(keys),
    };
    success(keys, &mut unit.service);
    if keys.unit.quadlet.is_none() {
        check_commands(keys, &unit.service);
    }
    unit
}

fn kind(keys: &mut Keys<'_>) -> ServiceKind {
    const WORDS: &[&str] = &["simple", "exec", "oneshot", "notify"];
    const KINDS: [ServiceKind; 4] =
        [ServiceKind::Simple, ServiceKind::Exec, ServiceKind::Oneshot, ServiceKind::Notify];
    let unit = keys.unit;
    if unit.quadlet.is_some() {
        let oneshot = unit.all(SECTION, "Type").next_back();
        let oneshot = oneshot.is_some_and(|line| line.value.text == "oneshot");
        return if oneshot { ServiceKind::Oneshot } else { ServiceKind::Exec };
    }
    let Some(line) = unit.all(SECTION, "Type").next_back() else {
        let oneshot = !unit.has(SECTION, "ExecStart");
        return if oneshot { ServiceKind::Oneshot } else { ServiceKind::Simple };
    };
    let text = line.value.text.as_str();
    // systemd waits up to 5 s so that lines on a console do not mix; nothing depends on it.
    if text == "idle" {
        return ServiceKind::Simple;
    }
    if let "forking" | "dbus" | "notify-reload" = text {
        let help = match text {
            "forking" => "run the program in the foreground, with `Type=exec` or `Type=notify`",
            "dbus" => "the guest has no D-Bus; `Type=exec` starts the program without it",
            _ => "write `Type=notify` and `ExecReload=/bin/kill -HUP $MAINPID`",
        };
        keys.findings.push(
            Finding::error(
                line.value.span(),
                format!("`Type={text}` is not supported by this version"),
            )
            .label("refused")
            .help(help),
        );
        return ServiceKind::Exec;
    }
    match value::one_of(text, WORDS, &KINDS) {
        Ok(kind) => kind,
        Err(expected) => {
            keys.bad(line, &expected);
            ServiceKind::Simple
        }
    }
}

fn restart(keys: &mut Keys<'_>, kind: ServiceKind) -> Restart {
    const WORDS: &[&str] =
        &["no", "on-success", "on-failure", "on-abnormal", "on-abort", "on-watchdog", "always"];
    const VALUES: [Restart; 7] = [
        Restart::No,
        Restart::OnSuccess,
        Restart::OnFailure,
        Restart::OnAbnormal,
        Restart::OnAbort,
        Restart::OnWatchdog,
        Restart::Always,
    ];
    let word = |text: &str| value::one_of(text, WORDS, &VALUES);
    let restart = keys.setting(SECTION, "Restart", word).unwrap_or(Restart::No);
    if kind == ServiceKind::Oneshot && matches!(restart, Restart::Always | Restart::OnSuccess) {
        let unit = keys.unit;
        if let Some(line) = unit.all(SECTION, "Restart").next_back() {
            let expected = Expected::Other("another value: with `Type=oneshot` it would never end");
            keys.bad(line, &expected);
        }
    }
    restart
}

fn kill_mode(keys: &mut Keys<'_>) -> KillMode {
    const WORDS: &[&str] = &["control-group", "mixed", "process", "none"];
    const VALUES: [KillMode; 4] =
        [KillMode::ControlGroup, KillMode::Mixed, KillMode::Process, KillMode::None];
    let word = |text: &str| value::one_of(text, WORDS, &VALUES);
    keys.setting(SECTION, "KillMode", word).unwrap_or(KillMode::ControlGroup)
}

fn start_limit(keys: &mut Keys<'_>) -> RateLimit {
    let interval = keys.last_of(
        &[
            ("Unit", "StartLimitIntervalSec"),
            ("Unit", "StartLimitInterval"),
            (SECTION, "StartLimitInterval"),
        ],
        time::microseconds,
    );
    let burst =
        keys.last_of(&[("Unit", "StartLimitBurst"), (SECTION, "StartLimitBurst")], value::unsigned);
    RateLimit {
        interval_us: interval.unwrap_or(START_LIMIT.interval_us),
        burst: burst.unwrap_or(START_LIMIT.burst),
    }
}

/// systemd's names of exit codes, sysexits.h.
const EXIT_NAMES: [(&str, u8); 17] = [
    ("SUCCESS", 0),
    ("FAILURE", 1),
    ("USAGE", 64),
    ("DATAERR", 65),
    ("NOINPUT", 66),
    ("NOUSER", 67),
    ("NOHOST", 68),
    ("UNAVAILABLE", 69),
    ("SOFTWARE", 70),
    ("OSERR", 71),
    ("OSFILE", 72),
    ("CANTCREAT", 73),
    ("IOERR", 74),
    ("TEMPFAIL", 75),
    ("PROTOCOL", 76),
    ("NOPERM", 77),
    ("CONFIG", 78),
];

fn success(keys: &mut Keys<'_>, service: &mut Service) {
    for line in keys.list(SECTION, "SuccessExitStatus") {
        let Some(words) = keys.raw_words(line) else { continue };
        for word in words.words {
            let text = word.text.as_str();
            let named = EXIT_NAMES.iter().find(|(name, _)| *name == text).map(|(_, code)| *code);
            if let Some(code) = named.or_else(|| text.parse().ok()) {
                service.success.codes.push(code);
            } else if let Ok(signal) = signal::number(text) {
                service.success.signals.push(signal);
            } else {
                let expected = Expected::Other("exit codes from 0 to 255 and names of signals");
                keys.bad(line, &expected);
            }
        }
    }
    service.success.codes.sort_unstable();
    service.success.codes.dedup();
    service.success.signals.sort_unstable();
    service.success.signals.dedup();
}

fn sockets(keys: &mut Keys<'_>) -> Vec<(Name, Span)> {
    let mut sockets = vec![];
    for (name, span) in keys.names(SECTION, "Sockets") {
        if name.kind() == Kind::Socket {
            sockets.push((name, span));
            continue;
        }
        keys.findings.push(
            Finding::error(span, format!("`Sockets=` takes socket units, and `{name}` is none"))
                .label("expected a name that ends in `.socket`")
                .help("name other units in `Requires=` or `Wants=`"),
        );
    }
    sockets
}

/// Where one of the three standard streams is the socket.
fn standard_socket(keys: &Keys<'_>, service: &Service) -> Option<Span> {
    let socket = service.execution.stdin == activator::manifest::Input::Socket
        || service.execution.stdout == Output::Socket
        || service.execution.stderr == Output::Socket;
    let line = ["StandardInput", "StandardOutput", "StandardError"]
        .iter()
        .flat_map(|key| keys.unit.all(SECTION, key))
        .find(|line| line.value.text == "socket");
    line.filter(|_| socket).map(|line| line.value.span())
}

fn check_commands(keys: &mut Keys<'_>, service: &Service) {
    let unit = keys.unit;
    let lines = keys.list(SECTION, "ExecStart");
    if lines.is_empty() {
        if !unit.broken {
            keys.findings.push(
                Finding::error(unit.section_span(SECTION), "the service has no `ExecStart=`")
                    .label("nothing to run")
                    .help("add a line such as `ExecStart=/usr/bin/program`"),
            );
        }
        return;
    }
    if service.start.len() > 1 && service.kind != ServiceKind::Oneshot {
        let last = lines.last().map_or_else(|| unit.span(), |line| line.key_span.clone());
        keys.findings.push(
            Finding::error(last, "the service has more than one `ExecStart=`")
                .label("only `Type=oneshot` may have several")
                .help("empty it first in a drop-in, or move commands to `ExecStartPre=`"),
        );
    }
}
