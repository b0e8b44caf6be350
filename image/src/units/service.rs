//! `[Service]`, systemd.service(5), becomes a [`manifest::Service`].

use super::command::{self, Context};
use super::keys::Keys;
use super::name::{Kind, Name};
use super::value::{self, Expected, time};
use super::{exec, idle, kill, podman_api, resources, restart};
use crate::finding::{Finding, Span};
use activator::manifest::{
    Command, ExitType, FailureMode, Input, NotifyAccess, Output, Restart, Service, ServiceKind,
};

const SECTION: &str = "Service";

/// A service before its sockets are known.
#[derive(Debug)]
pub(crate) struct ServiceUnit {
    /// `sockets` is empty until the graph is there.
    pub(crate) service: Service,
    /// `Sockets=`
    pub(crate) sockets: Vec<(Name, Span)>,
    /// Where `socket` is wanted as a standard stream.
    pub(crate) standard_socket: Option<Span>,
    /// Where `fd:NAME` is, and the name.
    pub(crate) standard_names: Vec<(String, Span)>,
    /// Where an idle time is given.
    pub(crate) idle: Option<Span>,
    /// Where a store of fds is asked for.
    pub(crate) store: Option<Span>,
    /// Where it is said that it is started again.
    pub(crate) restart: Option<Span>,
    /// Where `RestartMode=direct` is.
    pub(crate) direct: Option<Span>,
    /// Where the container is that it runs with crun.
    pub(crate) container: Option<Span>,
    /// Relays to it, when they have been made.
    pub(crate) relays: Vec<Name>,
    /// Whether it offers Podman's API.
    pub(crate) api: Option<podman_api::Api>,
}

/// Reads the section. A Quadlet has no commands of its own for starting and stopping.
pub(crate) fn read(keys: &mut Keys<'_>) -> ServiceUnit {
    let kind = kind(keys);
    let mut exec = exec::read(keys, SECTION);
    let context = Context::new(SECTION, &exec);
    let mut commands = |key: &str| command::list(keys, key, &context);
    let mut service = Service {
        kind,
        condition: commands("ExecCondition"),
        start_pre: commands("ExecStartPre"),
        start: commands("ExecStart"),
        start_post: commands("ExecStartPost"),
        reload: commands("ExecReload"),
        stop: commands("ExecStop"),
        stop_post: commands("ExecStopPost"),
        non_blocking: keys.flag(SECTION, "NonBlocking"),
        remain_after_exit: keys.flag(SECTION, "RemainAfterExit"),
        exit_type: exit_type(keys, kind),
        pid_file: pid_file(keys).filter(|_| kind == ServiceKind::Forking),
        guess_main_pid: keys.setting(SECTION, "GuessMainPID", value::boolean).unwrap_or(true),
        cgroup: resources::read(keys),
        delegate: delegates(keys),
        ..Service::default()
    };
    if keys.flag(SECTION, "PermissionsStartOnly") {
        only_the_main_process_is_confined(&mut service);
    }
    if all_commands(&service).any(|command| command.expand || command.shell) {
        exec::need_stage2(&mut exec.execution);
    }
    service.execution = exec.execution;
    if let Some(path) = &service.pid_file {
        // As systemd tells it; a line of the unit's own comes first.
        let environment = &mut service.execution.environment;
        if !environment.iter().any(|variable| variable.starts_with("PIDFILE=")) {
            environment.push(format!("PIDFILE={path}"));
            environment.sort();
        }
    }
    timeouts(keys, &mut service);
    restart::read(keys, &mut service);
    kill::read(keys, &mut service);
    notify(keys, &mut service);
    if exec::has_instance(&service) {
        exec::need_stage2(&mut service.execution);
    }
    let direct = restart::direct(keys, &service);
    let place = |key| keys.unit.all(SECTION, key).next_back().map(|line| line.key_span.clone());
    let unit = ServiceUnit {
        store: place("FileDescriptorStoreMax").filter(|_| service.fd_store_max > 0),
        restart: place("Restart").filter(|_| service.restart != Restart::No),
        direct,
        idle: idle::read(keys, &mut service),
        standard_socket: standard_socket(keys, &service),
        standard_names: standard_names(keys, &service),
        sockets: sockets(keys),
        container: None,
        relays: vec![],
        api: podman_api::read(keys, &service),
        service,
    };
    if keys.unit.quadlet.is_none() {
        check_commands(keys, &unit.service);
    }
    unit
}

fn all_commands(service: &Service) -> impl Iterator<Item = &Command> {
    [
        &service.condition,
        &service.start_pre,
        &service.start,
        &service.start_post,
        &service.reload,
        &service.stop,
        &service.stop_post,
    ]
    .into_iter()
    .flatten()
}

/// `Delegate=`: a boolean or the names of controllers. All that there are go to all services.
fn delegates(keys: &Keys<'_>) -> bool {
    let line = keys.unit.all(SECTION, "Delegate").next_back();
    line.is_some_and(|line| value::boolean(&line.value.text) != Ok(false))
}

/// `PermissionsStartOnly=`, which units still have: `+` before all but ExecStart.
fn only_the_main_process_is_confined(service: &mut Service) {
    for commands in [
        &mut service.condition,
        &mut service.start_pre,
        &mut service.start_post,
        &mut service.reload,
        &mut service.stop,
        &mut service.stop_post,
    ] {
        for command in commands {
            command.privileged = true;
        }
    }
}

fn kind(keys: &mut Keys<'_>) -> ServiceKind {
    const WORDS: &[&str] =
        &["simple", "exec", "oneshot", "notify", "notify-reload", "forking", "idle"];
    // Of `idle`: systemd waits up to 5 s so that lines on a console do not mix; nothing depends
    // on it.
    const KINDS: [ServiceKind; 7] = [
        ServiceKind::Simple,
        ServiceKind::Exec,
        ServiceKind::Oneshot,
        ServiceKind::Notify,
        ServiceKind::NotifyReload,
        ServiceKind::Forking,
        ServiceKind::Simple,
    ];
    let unit = keys.unit;
    let line = unit.all(SECTION, "Type").next_back().filter(|line| !line.value.text.is_empty());
    if unit.quadlet.is_some() {
        let oneshot = line.is_some_and(|line| line.value.text == "oneshot");
        return if oneshot { ServiceKind::Oneshot } else { ServiceKind::Exec };
    }
    let Some(line) = line else { return implied_kind(keys) };
    if line.value.text == "dbus" {
        no_bus(keys, line.value.span(), "`Type=dbus` waits for a name on D-Bus");
        return ServiceKind::Exec;
    }
    match value::one_of(&line.value.text, WORDS, &KINDS) {
        Ok(kind) => kind,
        Err(expected) => {
            keys.bad(line, &expected);
            ServiceKind::Simple
        }
    }
}

/// What the other keys say where there is no `Type=`.
fn implied_kind(keys: &mut Keys<'_>) -> ServiceKind {
    let unit = keys.unit;
    let bus = unit.all(SECTION, "BusName").next_back().filter(|line| !line.value.text.is_empty());
    if let Some(line) = bus {
        no_bus(keys, line.key_span.clone(), "`BusName=` without `Type=` waits for it on D-Bus");
        return ServiceKind::Exec;
    }
    let credentials = ["LoadCredential", "SetCredential"];
    match unit.has(SECTION, "ExecStart") {
        false => ServiceKind::Oneshot,
        true if credentials.iter().any(|key| unit.has(SECTION, key)) => ServiceKind::Exec,
        true => ServiceKind::Simple,
    }
}

fn no_bus(keys: &mut Keys<'_>, span: Span, what: &str) {
    keys.findings.push(
        Finding::warning(span, format!("{what}, which the guest has not"))
            .label("taken for `Type=exec`")
            .help("write `Type=exec`, in a drop-in perhaps, if the program does without D-Bus"),
    );
}

fn exit_type(keys: &mut Keys<'_>, kind: ServiceKind) -> ExitType {
    const WORDS: &[&str] = &["main", "cgroup"];
    let word = |text: &str| value::one_of(text, WORDS, &[ExitType::Main, ExitType::Cgroup]);
    let found = keys.setting(SECTION, "ExitType", word).unwrap_or(ExitType::Main);
    if let (ExitType::Cgroup, ServiceKind::Oneshot, Some(line)) =
        (found, kind, keys.unit.all(SECTION, "ExitType").next_back())
    {
        keys.bad(line, &Expected::Other("`main`: a oneshot service ends with its last command"));
    }
    found
}

/// Absolute, or below `%t`; systemd moves what is below /var/run, too.
fn pid_file(keys: &mut Keys<'_>) -> Option<String> {
    let mut text = keys.text(SECTION, "PIDFile")?;
    if !text.text.starts_with('/') {
        let runtime = &keys.specifiers.directories.runtime;
        text.text = format!("{runtime}/{}", text.text);
    }
    let path = keys.path(&text)?;
    Some(match path.strip_prefix("/var/run/") {
        Some(rest) => format!("/run/{rest}"),
        None => path,
    })
}

fn timeouts(keys: &mut Keys<'_>, service: &mut Service) {
    const WORDS: &[&str] = &["terminate", "abort", "kill"];
    const MODES: [FailureMode; 3] = [FailureMode::Terminate, FailureMode::Abort, FailureMode::Kill];
    let oneshot = service.kind == ServiceKind::Oneshot;
    service.start_timeout_us = keys
        .last_of(&[(SECTION, "TimeoutStartSec"), (SECTION, "TimeoutSec")], time::timeout)
        .unwrap_or(if oneshot { 0 } else { service.start_timeout_us });
    service.stop_timeout_us = keys
        .last_of(&[(SECTION, "TimeoutStopSec"), (SECTION, "TimeoutSec")], time::timeout)
        .unwrap_or(service.stop_timeout_us);
    let mut time = |key| keys.setting(SECTION, key, time::timeout);
    service.abort_timeout_us = time("TimeoutAbortSec").unwrap_or(service.stop_timeout_us);
    // A oneshot service that has started runs no more.
    service.runtime_max_us = time("RuntimeMaxSec").filter(|_| !oneshot).unwrap_or(0);
    service.runtime_extra_us = time("RuntimeRandomizedExtraSec").unwrap_or(0);
    service.watchdog_us = time("WatchdogSec").unwrap_or(0);
    let mode = |text: &str| value::one_of(text, WORDS, &MODES);
    let start = keys.setting(SECTION, "TimeoutStartFailureMode", mode);
    service.start_failure = start.unwrap_or(service.start_failure);
    let stop = keys.setting(SECTION, "TimeoutStopFailureMode", mode);
    service.stop_failure = stop.unwrap_or(service.stop_failure);
}

/// Who may send messages, and the file descriptors that they leave.
fn notify(keys: &mut Keys<'_>, service: &mut Service) {
    const WORDS: &[&str] = &["none", "main", "exec", "all"];
    const VALUES: [NotifyAccess; 4] =
        [NotifyAccess::None, NotifyAccess::Main, NotifyAccess::Exec, NotifyAccess::All];
    let store = |text: &str| {
        value::number(text, 0, i64::from(Service::MOST_STORED)).map(|most| most as u32)
    };
    service.fd_store_max = keys.setting(SECTION, "FileDescriptorStoreMax", store).unwrap_or(0);
    // "no" forgets them on a restart too, which only frees them sooner.
    let preserve = keys.setting(SECTION, "FileDescriptorStorePreserve", |text| match text {
        "restart" => Ok(false),
        other => value::boolean(other).map_err(|_| Expected::OneOf(&["yes", "no", "restart"])),
    });
    service.fd_store_preserve = preserve.unwrap_or(false);
    let access = keys
        .setting(SECTION, "NotifyAccess", |text| value::one_of(text, WORDS, &VALUES))
        .unwrap_or(NotifyAccess::None);
    let speaks = matches!(service.kind, ServiceKind::Notify | ServiceKind::NotifyReload)
        || service.watchdog_us > 0
        || service.fd_store_max > 0;
    service.notify_access = match access {
        NotifyAccess::None if speaks => NotifyAccess::Main,
        access => access,
    };
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

/// The lines of the three standard streams, each with its value.
fn standard_lines<'a>(keys: &Keys<'a>) -> impl Iterator<Item = &'a super::syntax::Assignment> {
    let unit = keys.unit;
    let keys = ["StandardInput", "StandardOutput", "StandardError"];
    keys.into_iter().filter_map(|key| unit.all(SECTION, key).next_back())
}

/// Where one of the three standard streams is the socket.
fn standard_socket(keys: &Keys<'_>, service: &Service) -> Option<Span> {
    let execution = &service.execution;
    let socket = execution.stdin == Input::Socket
        || execution.stdout == Output::Socket
        || execution.stderr == Output::Socket;
    let line = standard_lines(keys).find(|line| line.value.text == "socket");
    line.filter(|_| socket).map(|line| line.value.span())
}

/// Where one of the three standard streams is a socket by name.
fn standard_names(keys: &Keys<'_>, service: &Service) -> Vec<(String, Span)> {
    let execution = &service.execution;
    let mut names = vec![];
    if let Input::Fd(name) = &execution.stdin {
        names.push(name.clone());
    }
    for output in [&execution.stdout, &execution.stderr] {
        if let Output::Fd(name) = output {
            names.push(name.clone());
        }
    }
    // As many lines as names, in the same order.
    let lines = standard_lines(keys).filter(|line| line.value.text.starts_with("fd"));
    names.into_iter().zip(lines.map(|line| line.value.span())).collect()
}

fn check_commands(keys: &mut Keys<'_>, service: &Service) {
    let unit = keys.unit;
    let lines = keys.list(SECTION, "ExecStart");
    if lines.is_empty() {
        // There to be stopped: systemd has it too.
        let stops = unit.has(SECTION, "ExecStop") && service.remain_after_exit;
        if stops && service.kind == ServiceKind::Oneshot {
            return;
        }
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
