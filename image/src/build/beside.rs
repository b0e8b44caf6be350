//! Files beside a Quadlet that it names by a relative path: a YAML file of a `.kube`, a bind of a
//! `.container`. With the engine podman they are in the guest where such a path leads there.

use crate::appliance::Appliance;
use crate::config::{self, FILE, USERS};
use crate::exit::{BAD_INPUT, Failure};
use crate::lock;
use crate::tree::Tree;
use crate::units::Compiled;
use crate::units::podman::{FOLDER, is_of_the_generator};
use activator::manifest::{Service, UnitKind};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Puts into an image what the commands of its services name.
pub(super) fn put_into(
    tree: &mut Tree,
    appliance: &Appliance,
    compiled: &Compiled,
) -> Result<(), Failure> {
    let origin = std::sync::Arc::from("appliance");
    for path in named(compiled) {
        let Some(from) = source(appliance, &path) else { continue };
        if !from.exists() {
            continue;
        }
        let all = match from.is_dir() && (path == FOLDER || from == appliance.folder) {
            true => {
                things(&from).into_iter().map(|(name, it)| (format!("{path}/{name}"), it)).collect()
            }
            false => vec![(path, from)],
        };
        for (path, from) in all {
            // The folder itself comes with a package.
            if tree.node(&path).is_some() {
                continue;
            }
            tree.insert_from_disk(&path, &from, &origin).map_err(|error| {
                Failure::new(BAD_INPUT, "copy what a Quadlet names").because(error)
            })?;
        }
    }
    Ok(())
}

/// Paths below [`FOLDER`] in the commands of all services.
fn named(compiled: &Compiled) -> BTreeSet<String> {
    let services = compiled.units.iter().filter_map(|unit| match &unit.kind {
        UnitKind::Service(service) => Some(service),
        _ => None,
    });
    services.flat_map(words).filter_map(|word| path(&word)).collect()
}

fn words(service: &Service) -> Vec<String> {
    let commands = [&service.start_pre, &service.start, &service.start_post];
    let commands = commands.into_iter().flatten();
    let mut words: Vec<String> = commands.flat_map(|command| command.arguments.clone()).collect();
    words.push(service.execution.working_directory.clone());
    words
}

/// The path in a word: up to what separates the parts of an option.
fn path(word: &str) -> Option<String> {
    let at = word.find(FOLDER)?;
    let rest = &word[at..];
    let path = rest.split([':', ',']).next()?.trim_end_matches('/');
    let below = path.strip_prefix(FOLDER)?;
    (below.is_empty() || below.starts_with('/')).then(|| path.to_owned())
}

/// Where the person has it.
fn source(appliance: &Appliance, path: &str) -> Option<PathBuf> {
    let below = path.strip_prefix(FOLDER)?.trim_start_matches('/');
    for user in &appliance.config.users {
        let own = format!("users/{}", user.uid);
        if let Some(rest) =
            below.strip_prefix(&own).filter(|it| it.is_empty() || it.starts_with('/'))
        {
            let folder = appliance.folder.join(USERS).join(&user.name);
            return Some(folder.join(rest.trim_start_matches('/')));
        }
    }
    Some(appliance.folder.join(below))
}

/// What lies in a folder beside units, appliance.toml and its lock.
fn things(folder: &Path) -> Vec<(String, PathBuf)> {
    let is_ours = |name: &str| {
        const UNITS: [&str; 5] = [".container", ".service", ".socket", ".target", ".d"];
        [FILE, lock::FILE, config::USERS].contains(&name)
            || is_of_the_generator(name)
            || UNITS.iter().any(|end| name.ends_with(end))
    };
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut things: Vec<_> = entries
        .filter_map(|entry| Some((entry.file_name().into_string().ok()?, entry.path())))
        .filter(|(name, _)| !is_ours(name))
        .collect();
    things.sort();
    things
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_ends_where_the_option_goes_on() {
        for (word, expected) in [
            ("/etc/containers/systemd/a.yml", Some("/etc/containers/systemd/a.yml")),
            ("/etc/containers/systemd/b/c:/data:ro", Some("/etc/containers/systemd/b/c")),
            ("type=bind,source=/etc/containers/systemd/d,ro", Some("/etc/containers/systemd/d")),
            ("/etc/containers/systemd", Some("/etc/containers/systemd")),
            ("/etc/containers/systemdX", None),
            ("/etc/other", None),
        ] {
            assert_eq!(path(word).as_deref(), expected, "{word}");
        }
    }
}
