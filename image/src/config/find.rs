//! The folder that a person means, and the appliance.toml in it.

use super::FILE;
use crate::finding::{Finding, Severity, Source};
use crate::lock;
use crate::units::suggest::nearest;
use std::path::{Path, PathBuf};

/// Subfolders that are named.
const NAMED: usize = 5;

/// Reads `FOLDER/appliance.toml`. `folder` is how the person named it.
pub(super) fn find(folder: &Path) -> Result<Source, Finding> {
    let path = folder.join(FILE);
    let shown = path.display().to_string();
    match std::fs::read_to_string(&path) {
        Ok(text) => Ok(Source { path: shown, text }),
        Err(error) => Err(not_found(folder, &error)),
    }
}

fn not_found(folder: &Path, error: &std::io::Error) -> Finding {
    let shown = folder.display();
    let (message, help) = if folder.is_file() {
        let is_it = folder.file_name().is_some_and(|name| name == FILE);
        let parent = folder.parent().filter(|_| is_it).map(|parent| match parent.as_os_str() {
            name if name.is_empty() => Path::new("."),
            _ => parent,
        });
        let help = parent.map(|parent| format!("name its folder: `{}`", parent.display()));
        (format!("{shown} is a file, not an appliance's folder"), help)
    } else if !folder.exists() {
        (format!("there is no folder {shown}"), like(folder).map(did_you_mean))
    } else if folder.join(FILE).exists() {
        (format!("failed to read {}: {error}", folder.join(FILE).display()), Some(String::new()))
    } else {
        let which = if is_here(folder) { "this folder".into() } else { shown.to_string() };
        (format!("{which} has no {FILE}"), misnamed(folder).or_else(|| below(folder)))
    };
    let general = || "an appliance is a folder with an appliance.toml and units".to_owned();
    Finding {
        severity: Severity::Error,
        span: None,
        message,
        label: String::new(),
        help: Some(help.unwrap_or_else(general)).filter(|help| !help.is_empty()),
    }
}

fn is_here(folder: &Path) -> bool {
    folder == Path::new(".")
}

fn did_you_mean(path: PathBuf) -> String {
    format!("did you mean `{}`?", path.display())
}

/// An appliance beside where the folder would be, with a name like it.
fn like(folder: &Path) -> Option<PathBuf> {
    let parent = folder.parent()?;
    let here = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
    let names = appliances(here);
    let near = nearest(folder.file_name()?.to_str()?, names.iter().map(String::as_str))?;
    Some(parent.join(near))
}

/// A file that was meant to be appliance.toml.
fn misnamed(folder: &Path) -> Option<String> {
    let entries = std::fs::read_dir(folder).ok()?.flatten();
    let names: Vec<String> =
        entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    // Its lock has almost the same name.
    let others = names.iter().map(String::as_str).filter(|name| *name != lock::FILE);
    let near = nearest(FILE, others)?;
    Some(format!("rename {near} to {FILE}"))
}

/// Appliances in the folder.
fn below(folder: &Path) -> Option<String> {
    let names = appliances(folder);
    let named: Vec<String> = names
        .iter()
        .take(NAMED)
        .map(|name| {
            let path = if is_here(folder) { name.into() } else { folder.join(name) };
            format!("`{}`", path.display())
        })
        .collect();
    let more = if names.len() > NAMED { ", ..." } else { "" };
    (!named.is_empty()).then(|| format!("say which appliance in it: {}{more}", named.join(", ")))
}

/// Names of folders with an appliance.toml, sorted.
fn appliances(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries
        .filter(|entry| entry.path().join(FILE).is_file())
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect();
    names.sort();
    names
}

/// What to do about a path below the appliance's folder that leads to nothing.
pub(super) fn near(folder: &Path, named: &Path) -> String {
    let found = named.file_name().and_then(|name| name.to_str()).and_then(|name| {
        let parent = named.parent().unwrap_or(Path::new(""));
        let entries = std::fs::read_dir(folder.join(parent)).ok()?.flatten();
        let names: Vec<String> =
            entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
        Some(parent.join(nearest(name, names.iter().map(String::as_str))?))
    });
    found.map_or_else(|| "paths begin at the appliance's folder".into(), did_you_mean)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_names_no_appliance_is_told_what_lies_there() {
        let scratch = tempfile::tempdir().unwrap();
        for name in ["echo", "httpd"] {
            std::fs::create_dir(scratch.path().join(name)).unwrap();
            std::fs::write(scratch.path().join(name).join(FILE), "").unwrap();
        }
        let wrong = |path: &str| {
            let finding = find(&scratch.path().join(path)).unwrap_err();
            let said = format!("{}; {}", finding.message, finding.help.unwrap());
            said.replace(&format!("{}", scratch.path().display()), "S")
        };
        assert!(find(&scratch.path().join("echo")).is_ok());
        assert_eq!(wrong("ehco"), "there is no folder S/ehco; did you mean `S/echo`?");
        assert_eq!(
            wrong(""),
            "S/ has no appliance.toml; say which appliance in it: `S/echo`, `S/httpd`"
        );
        let file = "S/echo/appliance.toml is a file, not an appliance's folder; \
            name its folder: `S/echo`";
        assert_eq!(wrong("echo/appliance.toml"), file);
        std::fs::rename(
            scratch.path().join("echo").join(FILE),
            scratch.path().join("echo/aplliance.toml"),
        )
        .unwrap();
        let renamed = "S/echo has no appliance.toml; rename aplliance.toml to appliance.toml";
        assert_eq!(wrong("echo"), renamed);
        std::fs::create_dir(scratch.path().join("locked")).unwrap();
        std::fs::write(scratch.path().join("locked").join(lock::FILE), "").unwrap();
        assert!(wrong("locked").ends_with("with an appliance.toml and units"));
        let general = "an appliance is a folder with an appliance.toml and units";
        assert_eq!(wrong("pqrs"), format!("there is no folder S/pqrs; {general}"));
    }
}
