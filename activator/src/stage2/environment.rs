//! The environment of a command, later sources over earlier ones (systemd.exec(5)):
//! what PID 1 gave (`Environment=` in it), `EnvironmentFile=`, `UnsetEnvironment=`.
//! `PassEnvironment=` adds only what is not there yet, since `Environment=` is stronger.

use super::call::EXEC_VARIABLE;
use super::environment_file;
use super::error::{Error, Failed};
use super::{INSTANCE_VARIABLE, MANIFEST_VARIABLE, glob, say};
use crate::manifest::EnvironmentFile;
use std::io;
use std::path::PathBuf;

/// Variables, sorted by name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Environment(Vec<(String, String)>);

impl Environment {
    /// What PID 1 gave us, without what is ours alone.
    pub(super) fn inherited() -> Self {
        let mut environment = Self::default();
        for (name, value) in std::env::vars_os() {
            // The first of a name is the unit's own.
            if let (Ok(name), Ok(value)) = (name.into_string(), value.into_string()) {
                environment.set_default(&name, &value);
            }
        }
        // crun reads LISTEN_FDS without a look at LISTEN_PID, so a stale one must not get far.
        if environment.value("LISTEN_PID") != Some(&std::process::id().to_string()) {
            for name in ["LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES"] {
                environment.remove(name);
            }
        }
        environment.remove(MANIFEST_VARIABLE);
        environment.remove(INSTANCE_VARIABLE);
        environment.remove(EXEC_VARIABLE);
        environment
    }

    /// The unit's own, which PID 1 gives as they stand in the manifest: with the name of the
    /// instance filled in.
    pub(super) fn fill(&mut self, own: &[String]) {
        for (name, value) in own.iter().filter_map(|text| text.split_once('=')) {
            self.set(name, value);
        }
    }

    pub(super) fn value(&self, name: &str) -> Option<&str> {
        self.0.get(self.place(name).ok()?).map(|(_, value)| value.as_str())
    }

    /// All of them, by name and value.
    pub(super) fn pairs(&self) -> &[(String, String)] {
        &self.0
    }

    /// Where a variable is, or where it would be.
    fn place(&self, name: &str) -> Result<usize, usize> {
        self.0.binary_search_by(|(other, _)| other.as_str().cmp(name))
    }

    fn remove(&mut self, name: &str) {
        if let Ok(at) = self.place(name) {
            self.0.remove(at);
        }
    }

    pub(super) fn set(&mut self, name: &str, value: &str) {
        self.remove(name);
        self.set_default(name, value);
    }

    /// Sets it unless it is set.
    pub(super) fn set_default(&mut self, name: &str, value: &str) {
        if let Err(at) = self.place(name) {
            self.0.insert(at, (name.to_owned(), value.to_owned()));
        }
    }

    /// `PassEnvironment=`: from the environment that PID 1, our parent, was started with.
    pub(super) fn pass(&mut self, names: &[String]) {
        if names.is_empty() {
            return;
        }
        let Some(parent) = rustix::process::getppid() else { return };
        let path = format!("/proc/{}/environ", parent.as_raw_pid());
        match std::fs::read(&path) {
            Ok(texts) => self.pass_from(names, &texts),
            Err(error) => say(&format!("cannot read {path}: {error}")),
        }
    }

    fn pass_from(&mut self, names: &[String], texts: &[u8]) {
        for text in texts.split(|byte| *byte == 0) {
            let text = std::str::from_utf8(text).ok().and_then(|text| text.split_once('='));
            if let Some((name, value)) = text.filter(|(name, _)| names.iter().any(|it| it == name))
            {
                self.set_default(name, value);
            }
        }
    }

    /// `EnvironmentFile=`, in order.
    pub(super) fn read_files(&mut self, files: &[EnvironmentFile]) -> Result<(), Failed> {
        for file in files {
            self.read_file(file)?;
        }
        Ok(())
    }

    fn read_file(&mut self, file: &EnvironmentFile) -> Result<(), Failed> {
        let failed = |path: &str, error| match file.optional {
            true => Ok(()),
            false => Err(Error::EnvironmentFile(PathBuf::from(path), error).into()),
        };
        let paths = glob::find(&file.path);
        if paths.is_empty() {
            return failed(&file.path, io::Error::from_raw_os_error(libc::ENOENT));
        }
        for path in paths {
            let text = match std::fs::read_to_string(&path) {
                Ok(text) => text,
                Err(error) => {
                    failed(&path, error)?;
                    continue;
                }
            };
            for (name, value) in environment_file::parse(&text) {
                match crate::variables::is_name(&name) {
                    true => self.set(&name, &value),
                    false => say(&format!("{path}: {name:?} is no name of a variable, left out")),
                }
            }
        }
        Ok(())
    }

    /// `UnsetEnvironment=`: by name, or only with that value.
    pub(super) fn unset(&mut self, what: &[String]) {
        for text in what {
            match text.split_once('=') {
                Some((name, value)) if self.value(name) == Some(value) => {
                    self.remove(name);
                }
                Some(_) => {}
                None => {
                    self.remove(text);
                }
            }
        }
    }

    /// As execve(2) takes it.
    pub(super) fn to_texts(&self) -> Vec<String> {
        self.0.iter().map(|(name, value)| format!("{name}={value}")).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(texts: &[&str]) -> Environment {
        let pairs = texts.iter().map(|text| text.split_once('=').unwrap());
        Environment(pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect())
    }

    fn file(path: &std::path::Path, optional: bool) -> EnvironmentFile {
        EnvironmentFile { path: path.to_str().unwrap().into(), optional }
    }

    #[test]
    fn files_override_in_their_order_and_globs_are_sorted() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        std::fs::write(path("a.conf"), "A=1\nB=1\nC=1\n").unwrap();
        std::fs::write(path("b.conf"), "B=2\n1X=no\nC=2\n").unwrap();
        std::fs::write(path("c.other"), "C=3\n").unwrap();
        let mut found = environment(&["A=0", "D=0"]);
        let files = [file(&path("*.conf"), false), file(&path("c.other"), false)];
        found.read_files(&files).unwrap();
        assert_eq!(found, environment(&["A=1", "B=2", "C=3", "D=0"]));
    }

    #[test]
    fn a_missing_file_is_an_error_unless_optional() {
        let directory = tempfile::tempdir().unwrap();
        for name in ["missing", "missing-*"] {
            let path = directory.path().join(name);
            let mut found = environment(&[]);
            found.read_files(&[file(&path, true)]).unwrap();
            let error = found.read_files(&[file(&path, false)]).unwrap_err();
            assert!(
                matches!(&*error, Error::EnvironmentFile(at, why)
                    if *at == path && why.kind() == io::ErrorKind::NotFound),
                "{}",
                *error
            );
        }
    }

    #[test]
    fn what_is_passed_is_weaker_and_what_is_unset_is_gone() {
        let mut found = environment(&["A=1", "B=2", "C=3"]);
        let names = ["A", "E", "G"].map(str::to_owned);
        found.pass_from(&names, b"A=9\0E=5=5\0F=6\0");
        found.unset(&["B", "C=4", "A=1", "Z"].map(str::to_owned));
        assert_eq!(found, environment(&["C=3", "E=5=5"]));
        assert_eq!(found.to_texts(), ["C=3", "E=5=5"]);
    }
}
