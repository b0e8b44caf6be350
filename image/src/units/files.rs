//! Where unit files and drop-ins are found, and which of several files of a name counts
//! (systemd.unit(5), "Unit File Load Path").
//!
//! The appliance's folder comes first, then the image's /etc, then what packages ship. A file
//! without a byte, or a link to /dev/null, masks the unit or drop-in of its name.

use super::name::Name;
use crate::finding::{Finding, Severity, Source};
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

/// Folders of the image that hold units. Quadlet's own come with them: the names differ.
const IN_THE_IMAGE: [(&str, Place); 6] = [
    ("etc/systemd/system/", Place::Etc),
    ("etc/containers/systemd/", Place::Etc),
    ("usr/local/lib/systemd/system/", Place::Local),
    ("usr/lib/systemd/system/", Place::Vendor),
    ("lib/systemd/system/", Place::Vendor),
    ("usr/share/containers/systemd/", Place::Vendor),
];

/// Quadlet's types. Only the first is built yet.
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

/// All files, by name.
#[derive(Debug, Default)]
pub(crate) struct Files {
    /// Unit files: the first of a name in the load path.
    pub(crate) units: BTreeMap<String, Entry>,
    /// `.container` and its kin.
    pub(crate) quadlets: BTreeMap<String, Entry>,
    /// Link in the folder to the unit that it is another name of.
    pub(crate) aliases: BTreeMap<String, String>,
    /// (place, `echo.socket.d`) to file name to drop-in.
    pub(crate) drop_ins: BTreeMap<(Place, String), BTreeMap<String, Entry>>,
}

impl Files {
    /// Reads the folder, and sorts in what packages bring.
    pub(crate) fn read(
        folder: &Path,
        packaged: &[(String, String)],
        findings: &mut Vec<Finding>,
    ) -> Self {
        let mut files = Self::default();
        files.read_folder(folder, findings);
        for (path, text) in packaged {
            let path = path.trim_start_matches('/');
            let Some((below, place)) = IN_THE_IMAGE
                .iter()
                .find_map(|(prefix, place)| Some((path.strip_prefix(prefix)?, *place)))
            else {
                continue;
            };
            let source = Arc::new(Source { path: format!("/{path}"), text: text.clone() });
            let entry = Entry { source, place };
            match below.split_once('/') {
                None => files.add_unit(below, entry),
                Some((parent, name)) => files.add_drop_in(parent, name, entry),
            }
        }
        files
    }

    fn read_folder(&mut self, folder: &Path, findings: &mut Vec<Finding>) {
        for name in names_in(folder, findings) {
            let path = folder.join(&name);
            let suffix = name.rsplit_once('.').map_or("", |(_, suffix)| suffix);
            if suffix == "d" && path.is_dir() {
                for inner in names_in(&path, findings) {
                    if is_drop_in(&inner)
                        && let Some(entry) = read(&path.join(&inner), findings)
                    {
                        self.add_drop_in(&name, &inner, entry);
                    }
                }
            } else if (QUADLETS.contains(&suffix) || Name::parse(&name).is_some()) && !path.is_dir()
            {
                match alias(&path, &name) {
                    Some(target) => {
                        self.aliases.insert(name, target);
                    }
                    None => {
                        if let Some(entry) = read(&path, findings) {
                            self.add_unit(&name, entry);
                        }
                    }
                }
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

/// The unit that a link stands for, if it stands for one of another name.
fn alias(path: &Path, name: &str) -> Option<String> {
    let target = std::fs::read_link(path).ok()?;
    let target = Name::parse(target.file_name()?.to_str()?)?;
    let link = Name::parse(name)?;
    let same_type = target.kind() == link.kind() && !target.is_template();
    (target != link && same_type).then(|| target.as_str().to_owned())
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
