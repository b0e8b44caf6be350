//! Which drop-ins change a unit, and in which order (systemd.unit(5)).
//!
//! For `foo-bar@x.socket` these folders count: `foo-bar@x.socket.d`, `foo-bar@.socket.d`,
//! `foo-.socket.d`, `socket.d`. Of several files of one name the first counts: for systemd the
//! place in the load path comes before the folder, for Quadlet the folder before the place.
//! What is left is applied in the order of the file names.

use super::files::{Entry, Files, Place};
use std::collections::BTreeMap;

/// Which of two files of a name is nearer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Nearest {
    /// systemd
    Place,
    /// Quadlet
    Folder,
}

/// The drop-ins of a unit or Quadlet file, in the order to apply them.
pub(crate) fn of<'a>(files: &'a Files, names: &[&str], nearest: Nearest) -> Vec<&'a Entry> {
    const PLACES: [Place; 4] = [Place::Folder, Place::Etc, Place::Local, Place::Vendor];
    let folders = folders_of(names);
    let mut order: Vec<(Place, String)> = vec![];
    match nearest {
        Nearest::Place => {
            for place in PLACES {
                order.extend(folders.iter().map(|folder| (place, folder.clone())));
            }
        }
        Nearest::Folder => {
            for folder in &folders {
                order.extend(PLACES.map(|place| (place, folder.clone())));
            }
        }
    }
    let mut chosen: BTreeMap<&str, &Entry> = BTreeMap::new();
    for key in order {
        for (name, entry) in files.drop_ins.get(&key).into_iter().flatten() {
            chosen.entry(name).or_insert(entry);
        }
    }
    chosen.into_values().filter(|entry| !entry.is_mask()).collect()
}

/// Folders of drop-ins of a unit with several names: those of each name, and at last that of the
/// type.
fn folders_of(names: &[&str]) -> Vec<String> {
    let mut all: Vec<String> = vec![];
    let mut of_the_type = None;
    for name in names {
        let mut folders = folders(name);
        of_the_type = folders.pop();
        all.extend(folders);
    }
    all.extend(of_the_type);
    all
}

/// Folders of drop-ins, the most specific first.
pub(crate) fn folders(name: &str) -> Vec<String> {
    let Some((stem, suffix)) = name.rsplit_once('.') else { return vec![] };
    let mut folders = vec![format!("{name}.d")];
    let prefix = match stem.split_once('@') {
        Some((prefix, instance)) => {
            if !instance.is_empty() {
                folders.push(format!("{prefix}@.{suffix}.d"));
            }
            prefix
        }
        None => stem,
    };
    let mut rest = prefix.trim_end_matches('-');
    while let Some(at) = rest.rfind('-') {
        folders.push(format!("{}-.{suffix}.d", &rest[..at]));
        rest = &rest[..at];
    }
    folders.push(format!("{suffix}.d"));
    folders
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::finding::Source;
    use std::sync::Arc;

    #[test]
    fn folders_go_from_special_to_general() {
        let expected =
            ["a-b@x.socket.d", "a-b@.socket.d", "a-.socket.d", "socket.d"].map(String::from);
        assert_eq!(folders("a-b@x.socket"), expected);
    }

    #[test]
    fn other_names_come_before_the_type() {
        let expected = ["ssh.service.d", "sshd.service.d", "service.d"].map(String::from);
        assert_eq!(folders_of(&["ssh.service", "sshd.service"]), expected);
    }

    #[test]
    fn the_place_beats_the_folder_for_systemd_only() {
        let mut files = Files::default();
        let mut add = |place, folder: &str, path: &str| {
            let source = Arc::new(Source { path: path.into(), text: "x".into() });
            files
                .drop_ins
                .entry((place, folder.to_owned()))
                .or_default()
                .insert("10.conf".into(), Entry { source, place });
        };
        add(Place::Etc, "foo-.socket.d", "general");
        add(Place::Vendor, "foo-bar.socket.d", "special");
        let path = |nearest| of(&files, &["foo-bar.socket"], nearest)[0].source.path.clone();
        assert_eq!(path(Nearest::Place), "general");
        assert_eq!(path(Nearest::Folder), "special");
    }
}
