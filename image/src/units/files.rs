//! Where unit files and drop-ins are found, and which of several files of a name counts
//! (systemd.unit(5), "Unit File Load Path").
//!
//! The appliance's folder comes first (for a user `users/NAME` in it), then the image's /etc, then
//! what packages ship. A file without a byte, or a link to /dev/null, masks the unit or drop-in of
//! its name.
//!
//! A link `A.target.wants/b.service` is as good as `Wants=b.service` in A; only its name counts.
//! `.requires` and `.upholds` are the same for those keys.

use super::Input;
use super::manager::Manager;
use super::name::{self, Name};
use super::suggest;
use super::unit_section::Relation;
use crate::config;
use crate::finding::{Finding, Severity, Source, Span};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

/// A place in the load path; the smaller comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Place {
    Folder,
    Etc,
    Local,
    Vendor,
}

/// Folders of the image that hold units of the system. Quadlet's own come with them: the names
/// differ.
const IN_THE_IMAGE: [(&str, Place); 6] = [
    ("etc/systemd/system/", Place::Etc),
    ("etc/containers/systemd/", Place::Etc),
    ("usr/local/lib/systemd/system/", Place::Local),
    ("usr/lib/systemd/system/", Place::Vendor),
    ("lib/systemd/system/", Place::Vendor),
    ("usr/share/containers/systemd/", Place::Vendor),
];

/// The same for users.
const OF_USERS: [(&str, Place); 5] = [
    ("etc/systemd/user/", Place::Etc),
    ("etc/containers/systemd/users/", Place::Etc),
    ("usr/local/lib/systemd/user/", Place::Local),
    ("usr/lib/systemd/user/", Place::Vendor),
    ("usr/share/containers/systemd/users/", Place::Vendor),
];

/// Folders of links, and what they say.
const LINKS: [(&str, Relation); 3] =
    [("wants", Relation::Wants), ("requires", Relation::Requires), ("upholds", Relation::Upholds)];

/// Quadlet's types.
pub(crate) const QUADLETS: [&str; 8] =
    ["container", "volume", "network", "pod", "kube", "image", "build", "artifact"];

/// One file.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) source: Arc<Source>,
    pub(crate) place: Place,
}

impl Entry {
    pub(crate) fn is_mask(&self) -> bool {
        self.source.text.is_empty()
    }
}

/// A link in a folder of links.
#[derive(Debug, Clone)]
pub(crate) struct Link {
    pub(crate) span: Span,
    pub(crate) place: Place,
    /// It leads to /dev/null: the link of that name elsewhere does not count.
    pub(crate) masked: bool,
}

/// All files, by name.
#[derive(Debug, Default)]
pub(crate) struct Files {
    /// Unit files: the first of a name in the load path.
    pub(crate) units: BTreeMap<String, Entry>,
    /// `.container` and its kin.
    pub(crate) quadlets: BTreeMap<String, Entry>,
    /// Link to the unit that it is another name of.
    pub(crate) aliases: BTreeMap<String, String>,
    /// (`echo.target`, relation) to the units that it wants, requires or upholds.
    pub(crate) links: BTreeMap<(String, Relation), BTreeMap<String, Link>>,
    /// (place, `echo.socket.d`) to file name to drop-in.
    pub(crate) drop_ins: BTreeMap<(Place, String), BTreeMap<String, Entry>>,
}

impl Files {
    /// Reads the folder, and sorts in what packages bring.
    pub(crate) fn read(input: &Input<'_>, manager: &Manager, findings: &mut Vec<Finding>) -> Self {
        let mut files = Self::default();
        match manager.user() {
            None => {
                files.read_folder(input.folder, findings);
                files.add_own(input);
            }
            Some(user) => {
                let folder = input.folder.join(config::USERS).join(&user.name);
                // A user may live by what packages bring.
                if folder.exists() {
                    files.read_folder(&folder, findings);
                }
            }
        }
        let folders = if manager.user().is_some() { &OF_USERS[..] } else { &IN_THE_IMAGE[..] };
        let below = |path: &str| {
            let path = path.trim_start_matches('/');
            let found = folders
                .iter()
                .find_map(|(prefix, place)| Some((path.strip_prefix(prefix)?.to_owned(), *place)));
            found.map(|(below, place)| (below, place, format!("/{path}")))
        };
        for (path, text) in input.packaged {
            let Some((below, place, path)) = below(path) else { continue };
            let source = Arc::new(Source { path, text: text.clone() });
            let entry = Entry { source, place };
            match below.split_once('/') {
                None => files.add_unit(&below, entry),
                Some((parent, name)) => files.add_drop_in(parent, name, entry),
            }
        }
        for (path, target) in input.links {
            let Some((below, place, path)) = below(path) else { continue };
            match below.split_once('/') {
                None => {
                    if let Some(target) = other_name(&below, target) {
                        files.aliases.entry(below).or_insert(target);
                    }
                }
                Some((parent, name)) => files.add_link(parent, name, target, &path, place),
            }
        }
        files
    }

    /// Units that a table of appliance.toml brings, unless the folder has one of that name.
    fn add_own(&mut self, input: &Input<'_>) {
        for (name, text) in input.config.network.iter().flat_map(|network| network.units()) {
            let path = format!("{}: {name}", config::FILE);
            let source = Arc::new(Source { path, text });
            self.add_unit(name, Entry { source, place: Place::Folder });
        }
    }

    fn read_folder(&mut self, folder: &Path, findings: &mut Vec<Finding>) {
        for name in names_in(folder, findings) {
            let path = folder.join(&name);
            let suffix = name.rsplit_once('.').map_or("", |(_, suffix)| suffix);
            let links = LINKS.iter().any(|(known, _)| *known == suffix);
            if (suffix == "d" || links) && path.is_dir() {
                for inner in names_in(&path, findings) {
                    self.read_inner(&name, &inner, &path.join(&inner), findings);
                }
            } else if (QUADLETS.contains(&suffix) || Name::parse(&name).is_some()) && !path.is_dir()
            {
                match alias(folder, &path, &name) {
                    Some(target) => {
                        self.aliases.insert(name, target);
                    }
                    None => {
                        if let Some(entry) = read(&path, findings) {
                            self.add_unit(&name, entry);
                        }
                    }
                }
            } else if path.is_file() {
                findings.extend(misnamed(&path, &name));
            }
        }
    }

    /// A drop-in, or a link in a folder of links.
    fn read_inner(&mut self, parent: &str, name: &str, path: &Path, findings: &mut Vec<Finding>) {
        if parent.ends_with(".d") {
            if is_drop_in(name)
                && let Some(entry) = read(path, findings)
            {
                self.add_drop_in(parent, name, entry);
            }
            return;
        }
        let shown = path.display().to_string();
        match std::fs::read_link(path) {
            Ok(target) => {
                self.add_link(parent, name, &target.to_string_lossy(), &shown, Place::Folder);
            }
            Err(_) => {
                let source = Arc::new(Source { path: shown, text: String::new() });
                let message = format!("`{parent}/{name}` is no link, and systemd passes it over");
                findings.push(
                    Finding::warning(Span::file(&source), message)
                        .label("has no effect")
                        .help(format!("`ln -s ../{name} {parent}/{name}` makes one")),
                );
            }
        }
    }

    fn add_link(&mut self, parent: &str, name: &str, target: &str, path: &str, place: Place) {
        let Some((unit, suffix)) = parent.rsplit_once('.') else { return };
        let Some((_, relation)) = LINKS.iter().find(|(known, _)| *known == suffix) else { return };
        if Name::parse(name).is_none() {
            return;
        }
        let source = Arc::new(Source { path: path.to_owned(), text: String::new() });
        let link = Link { span: Span::file(&source), place, masked: target == "/dev/null" };
        let links = self.links.entry((unit.to_owned(), *relation)).or_default();
        match links.get(name) {
            Some(first) if first.place <= place => {}
            _ => {
                links.insert(name.to_owned(), link);
            }
        }
    }

    fn add_unit(&mut self, name: &str, entry: Entry) {
        let suffix = name.rsplit_once('.').map_or("", |(_, suffix)| suffix);
        let files = if QUADLETS.contains(&suffix) {
            &mut self.quadlets
        } else if Name::parse(name).is_some() {
            &mut self.units
        } else {
            return;
        };
        match files.get(name) {
            Some(first) if first.place <= entry.place => {}
            _ => {
                files.insert(name.to_owned(), entry);
            }
        }
    }

    fn add_drop_in(&mut self, parent: &str, name: &str, entry: Entry) {
        if is_drop_in(name) && parent.ends_with(".d") {
            let folder = (entry.place, parent.to_owned());
            self.drop_ins.entry(folder).or_default().insert(name.to_owned(), entry);
        }
    }

    /// The file that a unit is loaded from: its own, else its template's.
    pub(crate) fn unit(&self, name: &Name) -> Option<&Entry> {
        self.units.get(name.as_str()).or_else(|| self.units.get(name.template()?.as_str()))
    }
}

fn is_drop_in(name: &str) -> bool {
    name.ends_with(".conf") && !name.starts_with('.') && !name.contains('/')
}

/// Names in a folder, sorted.
fn names_in(folder: &Path, findings: &mut Vec<Finding>) -> Vec<String> {
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) => {
            findings.push(unreadable(folder, &error));
            return vec![];
        }
    };
    let mut names: Vec<String> = entries
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| !name.starts_with('.'))
        .collect();
    names.sort();
    names
}

/// The unit that a link stands for, if it stands for one of another name. A link out of the
/// folder is the file itself.
fn alias(folder: &Path, path: &Path, name: &str) -> Option<String> {
    let target = std::fs::read_link(path).ok()?;
    let outside = std::fs::canonicalize(folder.join(&target)).is_ok_and(|real| {
        let folder = std::fs::canonicalize(folder);
        folder.is_ok_and(|folder| real.parent() != Some(&folder))
    });
    if outside { None } else { other_name(name, target.to_str()?) }
}

/// The other unit of the same type that a link leads to. A link to a template is an instance.
fn other_name(name: &str, target: &str) -> Option<String> {
    let target = Name::parse(target.rsplit('/').next()?)?;
    let link = Name::parse(name)?;
    let same_type = target.kind() == link.kind() && !target.is_template();
    (target != link && same_type).then(|| target.as_str().to_owned())
}

/// What to say of a file that would be a unit under another name, and is none under its own.
fn misnamed(path: &Path, name: &str) -> Option<Finding> {
    let (stem, suffix) = name.rsplit_once('.')?;
    let kind = suggest::nearest(suffix, QUADLETS.into_iter().chain(name::kinds()))?;
    let text = std::fs::read_to_string(path).ok()?;
    let is_heading = |line: &str| line.starts_with('[') && line.ends_with(']');
    if !text.lines().map(str::trim).any(is_heading) {
        return None;
    }
    let source = Arc::new(Source { path: path.display().to_string(), text });
    let message = format!("`{name}` is no name of a unit: nothing reads this file");
    let finding = Finding::warning(Span::file(&source), message);
    Some(if kind == suffix {
        finding.label("has no effect").help(
            "a name is made of letters, digits and `:-_.\\@` (systemd.unit(5)); \
             `systemd-escape` writes others",
        )
    } else {
        finding.label("has no effect").help(format!("did you mean `{stem}.{kind}`?"))
    })
}

fn read(path: &Path, findings: &mut Vec<Finding>) -> Option<Entry> {
    match std::fs::read(path) {
        Ok(bytes) => {
            let text = String::from_utf8_lossy(&bytes).into_owned();
            let source = Arc::new(Source { path: path.display().to_string(), text });
            Some(Entry { source, place: Place::Folder })
        }
        Err(error) => {
            findings.push(unreadable(path, &error));
            None
        }
    }
}

fn unreadable(path: &Path, error: &std::io::Error) -> Finding {
    Finding {
        severity: Severity::Error,
        span: None,
        message: format!("failed to read {}: {error}", path.display()),
        label: String::new(),
        help: Some("an appliance is a folder with an appliance.toml and units".into()),
    }
}
