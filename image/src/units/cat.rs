//! A unit's files in one text, as `systemctl cat` prints them.

use super::definition::Definition;
use super::quoting::quote;
use super::service::ServiceUnit;
use super::value::{signal, time};
use crate::container::Container;
use activator::manifest::{KillMode, ServiceKind};

/// Each file below a comment with its path, with an empty line between them.
pub(super) fn files(unit: &Definition) -> String {
    let mut text = String::new();
    for source in &unit.sources {
        if !text.is_empty() {
            text.push('\n');
        }
        text.push_str(&format!("# {}\n{}", source.path, source.text));
        if !text.ends_with('\n') {
            text.push('\n');
        }
    }
    text
}

/// The service that a Quadlet became: its `[Unit]` and `[Install]` as they are, `[Container]`
/// kept as `[X-Container]`, `[Service]` as it is run.
pub(super) fn container(unit: &Definition, service: &ServiceUnit, container: &Container) -> String {
    let mut text = String::new();
    for source in &unit.sources {
        text.push_str(&format!("# {}\n", source.path));
    }
    text.push_str(&format!("# bundle: /usr/lib/rouse/bundles/{}\n", container.id()));
    for section in ["Unit", "Container", "Service", "Install"] {
        let lines: Vec<_> = unit
            .assignments
            .iter()
            .filter(|line| line.section == section && !is_made_here(section, &line.key))
            .collect();
        if lines.is_empty() && section != "Service" {
            continue;
        }
        let header = if section == "Container" { "X-Container" } else { section };
        text.push_str(&format!("\n[{header}]\n"));
        for line in lines {
            text.push_str(&format!("{}={}\n", line.key, line.value.text));
        }
        if section == "Service" {
            text.push_str(&service_lines(service));
        }
    }
    text
}

/// The service that a Quadlet became with the engine podman, as its generator would write it.
pub(super) fn made(unit: &Definition) -> String {
    let mut text = String::new();
    for source in &unit.sources {
        text.push_str(&format!("# {}\n", source.path));
    }
    let mut sections = vec!["Unit"];
    sections.extend(unit.sections.iter().map(|header| header.name.as_str()));
    sections.extend(["Service", "Install"]);
    let mut seen = std::collections::BTreeSet::new();
    // Those of Podman come before what they became.
    sections.sort_by_key(|name| match *name {
        "Unit" => 0,
        "Service" => 2,
        "Install" => 3,
        _ => 1,
    });
    for section in sections.into_iter().filter(|name| seen.insert(name.to_owned())) {
        let mut lines = unit.assignments.iter().filter(|line| line.section == section).peekable();
        if lines.peek().is_some() {
            text.push_str(&format!("\n[{section}]\n"));
        }
        for line in lines {
            text.push_str(&format!("{}={}\n", line.key, line.value.text));
        }
    }
    text
}

/// Keys of `[Service]` whose lines are written anew.
fn is_made_here(section: &str, key: &str) -> bool {
    section == "Service" && ["Type", "KillMode", "KillSignal", "TimeoutStopSec"].contains(&key)
}

fn service_lines(unit: &ServiceUnit) -> String {
    let service = &unit.service;
    let kind = if service.kind == ServiceKind::Oneshot { "oneshot" } else { "exec" };
    let kill_mode = if service.kill_mode == KillMode::Mixed { "mixed" } else { "control-group" };
    let mut text = format!(
        "Type={kind}\nKillMode={kill_mode}\nKillSignal={}\nTimeoutStopSec={}\n",
        signal::show(service.kill_signal),
        time::show(service.stop_timeout_us),
    );
    for command in &service.start {
        let words: Vec<String> = command.arguments.iter().map(|word| quote(word)).collect();
        text.push_str(&format!("ExecStart={}\n", words.join(" ")));
    }
    text
}
