//! `.volume`, `.network`, `.pod`, `.kube`, `.image` and `.build` go through Podman's own generator,
//! podman-systemd.unit(5), which comes from the package that the guest's Podman comes from.
//!
//! It gets each file with its drop-ins merged, and of a `.container` only what concerns the others.
//! What it writes is put in a fixed order, and the folder that it ran in becomes the guest's.

use super::resources::section;
use super::{folder, is_of_the_generator, order};
use crate::config::Engine;
use crate::finding::{Finding, Severity, Source, Span};
use crate::units::Facts;
use crate::units::definition::Definition;
use crate::units::files::{Entry, Files};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Keys of a `.container` on which what other files become depends.
const OF_CONTAINERS: [&str; 7] =
    ["ContainerName", "Image", "Network", "Pod", "Rootfs", "ServiceName", "StartWithPod"];

/// Podman's generator.
pub trait Generator {
    /// Gives it the files of one folder, by name. `user` are those of a user's manager.
    fn generate(
        &self,
        files: &BTreeMap<String, String>,
        user: bool,
    ) -> Result<Generated, Complaint>;
}

/// What the generator wrote.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Generated {
    /// Services, by file name. The folder that it ran in is [`super::FOLDER`].
    pub services: BTreeMap<String, String>,
    /// Its messages, a line each.
    pub messages: Vec<String>,
}

/// Why it could not be run.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("run Podman's generator: {0}")]
pub struct Complaint(pub String);

/// The services that all Quadlet files but `.container`s become, as if they lay beside them.
pub(in crate::units) fn run(files: &mut Files, facts: &Facts<'_>, findings: &mut Vec<Finding>) {
    let others = |file: &&String| is_of_the_generator(file);
    if !files.quadlets.keys().any(|file| others(&file)) {
        return;
    }
    let mut texts = BTreeMap::new();
    let mut units = BTreeMap::new();
    for (file, entry) in &files.quadlets {
        let unit = Definition::quadlet_file(file, entry, files, findings);
        if !unit.broken {
            texts.insert(file.clone(), text(&unit));
        }
        units.insert(file.clone(), unit);
    }
    let first = units.iter().find(|(file, _)| others(file));
    let span = first.map(|(_, unit)| unit.span());
    let cannot = |message: String, help: &str| Finding {
        severity: Severity::Error,
        span: span.clone(),
        message,
        label: String::new(),
        help: Some(help.into()),
    };
    let Some(generator) =
        facts.input.generator.filter(|_| facts.input.config.engine == Engine::Podman)
    else {
        let message = "the file goes through Podman's generator, which is not at hand";
        findings.push(cannot(message.into(), "set `engine = \"podman\"` in appliance.toml"));
        return;
    };
    let user = facts.manager.user().is_some();
    let generated = match generator.generate(&texts, user) {
        Ok(generated) => generated,
        Err(complaint) => {
            findings.push(cannot(complaint.to_string(), "`rouse lock` takes another package"));
            return;
        }
    };
    for message in &generated.messages {
        findings.extend(finding(message, &units));
    }
    let folder = folder(&facts.manager);
    for (file, unit) in units.iter().filter(|(file, _)| others(file)) {
        let Some(service) = facts.resources.get(file).map(|resource| resource.service.to_string())
        else {
            continue;
        };
        let Some(text) = generated.services.get(&service) else { continue };
        let mut text = order::tidy(text).replace(super::FOLDER, &folder);
        if let Some(image) = put_in(file, unit, facts) {
            text = without_pull(&text, &image);
        }
        let path = format!("{} ({service})", unit.span().source.path);
        let source = Arc::new(Source { path, text });
        files.units.insert(service, Entry { source, place: unit.place });
    }
}

/// The image of a `.image` that is put into the guest when it is built.
fn put_in(file: &str, unit: &Definition, facts: &Facts<'_>) -> Option<String> {
    let named = |key: &str| {
        let line = unit.all("Image", key).next_back()?;
        Some(line.value.text.trim_matches('"').to_owned())
    };
    let names = ["ImageTag", "Image"].into_iter().filter(|_| file.ends_with(".image"));
    names.filter_map(named).find(|name| facts.input.config.image.contains_key(name))
}

/// Nothing is pulled that is there: `podman image exists` says that it is.
fn without_pull(text: &str, image: &str) -> String {
    let line = |line: &str| match line.starts_with("ExecStart=") {
        true => format!("ExecStart=/usr/bin/podman image exists {image}\n"),
        false => format!("{line}\n"),
    };
    text.lines().map(line).collect()
}

/// A Quadlet file with its drop-ins.
fn text(unit: &Definition) -> String {
    let file = unit.quadlet.as_deref().unwrap_or_default();
    let is_container = file.ends_with(".container");
    let mut text = String::new();
    let mut current = "";
    for line in &unit.assignments {
        let concerns = line.section == "Container" && OF_CONTAINERS.contains(&line.key.as_str());
        if is_container && !concerns {
            continue;
        }
        if line.section != current {
            text.push_str(&format!("[{}]\n", line.section));
            current = &line.section;
        }
        text.push_str(&format!("{}={}\n", line.key, line.value.text));
    }
    if text.is_empty() {
        // With nothing in it, the file would be none of its type.
        text = format!("[{}]\n", section(file).unwrap_or_default());
    }
    text
}

/// What the generator says about a file, where it is in the person's; None if it is only chat.
fn finding(message: &str, units: &BTreeMap<String, Definition>) -> Option<Finding> {
    let message = message.split_once("]: ").map_or(message, |(_, rest)| rest);
    let names = |file: &&String| {
        [format!("\"{file}\""), format!("/{file}\"")].iter().any(|name| message.contains(name))
    };
    let file = units.keys().find(|file| names(file));
    let unit = file.and_then(|file| units.get(file));
    // Of `.container`s it only got a part, and those have been checked.
    let container = file.is_some_and(|file| file.ends_with(".container"));
    if message.is_empty() || message.starts_with("Loading source") || container {
        return None;
    }
    let what = message.strip_prefix("converting \"").and_then(|rest| rest.split_once("\": "));
    let what = what.map_or(message, |(_, what)| what);
    let named = what.strip_prefix("unsupported key '").and_then(|rest| rest.split_once('\''));
    let key = named.map(|(key, _)| key);
    let line =
        unit.and_then(|unit| unit.assignments.iter().find(|line| Some(line.key.as_str()) == key));
    let span: Option<Span> = match (line, unit) {
        (Some(line), _) => Some(line.key_span.clone()),
        (None, unit) => unit.map(Definition::span),
    };
    let (message, help) = match key {
        Some(key) => (
            format!("Podman's generator does not know `{key}=`"),
            "the packaged Podman may be older than the key; `PodmanArgs=` takes any option",
        ),
        None => {
            (format!("Podman's generator refuses the file: {what}"), "see podman-systemd.unit(5)")
        }
    };
    Some(Finding {
        severity: Severity::Error,
        span,
        message,
        label: "refused by Podman's generator".into(),
        help: Some(help.into()),
    })
}
