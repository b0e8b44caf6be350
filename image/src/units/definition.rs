//! A unit as all its files together define it: the main file, then its drop-ins.

use super::drop_in::{self, Nearest};
use super::files::{Entry, Files, Place};
use super::name::Name;
use super::syntax::{self, Assignment, Dialect, Header};
use crate::finding::{Finding, Source, Span};
use std::sync::Arc;

/// The joined files of one unit.
#[derive(Debug)]
pub(crate) struct Definition {
    pub(crate) name: Name,
    /// The Quadlet file's name, `echo.container`, if it is one.
    pub(crate) quadlet: Option<String>,
    /// Where the main file is.
    pub(crate) place: Place,
    /// The main file, then the drop-ins.
    pub(crate) sources: Vec<Arc<Source>>,
    pub(crate) sections: Vec<Header>,
    pub(crate) assignments: Vec<Assignment>,
    /// A file of it cannot be used; findings say why.
    pub(crate) broken: bool,
    /// Nothing but a mask.
    pub(crate) masked: bool,
}

impl Definition {
    /// Joins the files of a systemd unit. `names` are its other names.
    pub(crate) fn unit(
        name: &Name,
        names: &[String],
        entry: &Entry,
        files: &Files,
        findings: &mut Vec<Finding>,
    ) -> Self {
        let mut unit = Self::empty(name, entry);
        unit.masked = entry.is_mask();
        unit.add(entry, Dialect::Systemd, findings);
        let names: Vec<&str> =
            std::iter::once(name.as_str()).chain(names.iter().map(String::as_str)).collect();
        for entry in drop_in::of(files, &names, Nearest::Place) {
            unit.add(entry, Dialect::Systemd, findings);
        }
        unit
    }

    /// Joins the files of a Quadlet: its own, then drop-ins of the service that it becomes.
    pub(crate) fn quadlet(
        name: &Name,
        file: &str,
        entry: &Entry,
        files: &Files,
        findings: &mut Vec<Finding>,
    ) -> Self {
        let mut unit =
            Self { name: name.clone(), ..Self::quadlet_file(file, entry, files, findings) };
        for entry in drop_in::of(files, &[name.as_str()], Nearest::Place) {
            unit.add(entry, Dialect::Systemd, findings);
        }
        unit
    }

    /// Joins a Quadlet's own files, whatever service it becomes.
    pub(crate) fn quadlet_file(
        file: &str,
        entry: &Entry,
        files: &Files,
        findings: &mut Vec<Finding>,
    ) -> Self {
        let mut unit = Self::empty(&Name::nameless(), entry);
        unit.quadlet = Some(file.to_owned());
        unit.add(entry, Dialect::Quadlet, findings);
        for entry in drop_in::of(files, &[file], Nearest::Folder) {
            unit.add(entry, Dialect::Quadlet, findings);
        }
        unit
    }

    fn empty(name: &Name, entry: &Entry) -> Self {
        Self {
            name: name.clone(),
            quadlet: None,
            place: entry.place,
            sources: vec![],
            sections: vec![],
            assignments: vec![],
            broken: false,
            masked: false,
        }
    }

    fn add(&mut self, entry: &Entry, dialect: Dialect, findings: &mut Vec<Finding>) {
        let file = syntax::parse(&entry.source, dialect, findings);
        self.sources.push(file.source);
        self.sections.extend(file.sections);
        self.assignments.extend(file.assignments);
        self.broken |= file.broken;
    }

    /// The main file as a whole.
    pub(crate) fn span(&self) -> Span {
        match self.sources.first() {
            Some(source) => Span::file(source),
            None => Span::file(&Arc::new(Source { path: self.name.to_string(), text: "".into() })),
        }
    }

    /// The header of a section, or the file if there is none.
    pub(crate) fn section_span(&self, section: &str) -> Span {
        let header = self.sections.iter().find(|header| header.name == section);
        header.map_or_else(|| self.span(), |header| header.span.clone())
    }

    /// Assignments of a key, in order.
    pub(crate) fn all<'a, 'k>(
        &'a self,
        section: &'k str,
        key: &'k str,
    ) -> impl DoubleEndedIterator<Item = &'a Assignment> + use<'a, 'k> {
        let meant = move |found: &&'a Assignment| found.section == section && found.key == key;
        self.assignments.iter().filter(meant)
    }

    /// Whether the key is given at all.
    pub(crate) fn has(&self, section: &str, key: &str) -> bool {
        self.all(section, key).next().is_some()
    }
}
