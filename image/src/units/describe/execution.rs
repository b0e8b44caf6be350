//! How commands run, in words.

use super::line;
use crate::units::value::capability;
use activator::manifest::{
    CredentialSource, DirectoryKind, Execution, Input, Output, Scheduling, Stage2,
};

/// Everything that is not the default.
pub(super) fn describe(text: &mut String, execution: &Execution) {
    for variable in &execution.environment {
        line(text, "variable", variable);
    }
    if let Some(user) = &execution.user {
        let groups: Vec<String> = user.groups.iter().map(u32::to_string).collect();
        line(text, "user", &format!("{}:{} {}", user.uid, user.gid, groups.join(" ")));
    }
    if execution.umask != 0o022 {
        line(text, "umask", &format!("{:04o}", execution.umask));
    }
    if execution.working_directory != "/" {
        let optional = if execution.working_directory_optional { " (if it is there)" } else { "" };
        line(text, "in", &format!("{}{optional}", execution.working_directory));
    }
    streams(text, execution);
    for (number, soft, hard) in &execution.limits {
        line(text, "rlimit", &format!("{number}: {soft} {hard}"));
    }
    if let Some(score) = execution.oom_score_adjust {
        line(text, "oom score", &score.to_string());
    }
    if let Some(nice) = execution.nice {
        line(text, "nice", &nice.to_string());
    }
    if execution.no_new_privileges {
        line(text, "privileges", "no new ones");
    }
    if !execution.ignore_sigpipe {
        line(text, "SIGPIPE", "ends the program");
    }
    if let Some(stage2) = &execution.stage2 {
        second_stage(text, stage2);
        super::sandbox::describe(text, &stage2.sandbox);
    }
}

fn second_stage(text: &mut String, stage2: &Stage2) {
    for file in &stage2.environment_files {
        let optional = if file.optional { " (if it is there)" } else { "" };
        line(text, "variables", &format!("of {}{optional}", file.path));
    }
    for (word, names) in
        [("passes", &stage2.pass_environment), ("unsets", &stage2.unset_environment)]
    {
        if !names.is_empty() {
            line(text, word, &names.join(" "));
        }
    }
    if let Some(user) = &stage2.dynamic_user {
        line(text, "user", &format!("{} is {}, given by its name", user.name, user.uid));
    }
    directories(text, stage2);
    if let Some(terminal) = &stage2.terminal {
        line(text, "terminal", terminal);
    }
    for credential in &stage2.credentials {
        let source = match &credential.source {
            CredentialSource::Path(path) => path.clone(),
            CredentialSource::Text(text) => format!("{} bytes of the unit", text.len()),
        };
        line(text, "credential", &format!("{} from {source}", credential.name));
    }
    match stage2.bounding {
        None => {}
        Some(0) => line(text, "may have", "no capability"),
        Some(mask) => line(text, "may have", &capability::show(mask)),
    }
    if stage2.ambient != 0 {
        line(text, "has", &capability::show(stage2.ambient));
    }
    if stage2.secure_bits != 0 {
        line(text, "secure", &format!("bits {:#x}", stage2.secure_bits));
    }
    scheduling(text, &stage2.scheduling);
}

fn directories(text: &mut String, stage2: &Stage2) {
    for directory in &stage2.directories {
        let base = match directory.kind {
            DirectoryKind::Runtime => "/run",
            DirectoryKind::State => "/var/lib",
            DirectoryKind::Cache => "/var/cache",
            DirectoryKind::Logs => "/var/log",
            DirectoryKind::Configuration => "/etc",
        };
        let read_only = if directory.read_only { ", read-only" } else { "" };
        let links = match directory.links.is_empty() {
            true => String::new(),
            false => format!(", also {}", directory.links.join(" ")),
        };
        let mode = directory.mode;
        let path = &directory.path;
        line(text, "folder", &format!("{base}/{path} mode {mode:04o}{read_only}{links}"));
    }
    match stage2.runtime_preserve {
        None => {}
        Some(false) => line(text, "/run stays", "over a restart"),
        Some(true) => line(text, "/run stays", "after it has stopped"),
    }
}

fn scheduling(text: &mut String, scheduling: &Scheduling) {
    if let Some(policy) = scheduling.policy {
        let name = match policy {
            1 => "fifo",
            2 => "rr",
            3 => "batch",
            5 => "idle",
            _ => "other",
        };
        let priority = match scheduling.priority {
            Some(priority) => format!(", priority {priority}"),
            None => String::new(),
        };
        let reset = if scheduling.reset_on_fork { ", not its children" } else { "" };
        line(text, "scheduled", &format!("{name}{priority}{reset}"));
    }
    if !scheduling.affinity.is_empty() {
        let cpus: Vec<String> = scheduling.affinity.iter().map(u16::to_string).collect();
        line(text, "cpus", &cpus.join(" "));
    }
    if let Some(priority) = scheduling.io_priority {
        let class = ["none", "realtime", "best-effort", "idle"];
        let class = class.get((priority >> 13) as usize).copied().unwrap_or("?");
        line(text, "io", &format!("{class}, priority {}", priority & 7));
    }
    if let Some(slack) = scheduling.timer_slack_ns {
        line(text, "timers", &format!("may be {slack} ns late"));
    }
}

fn streams(text: &mut String, execution: &Execution) {
    match &execution.stdin {
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
    if execution.stdout != Output::Log {
        line(text, "stdout", &output(&execution.stdout));
    }
    if execution.stderr != Output::Inherit {
        line(text, "stderr", &output(&execution.stderr));
    }
}
