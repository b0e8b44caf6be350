//! Podman's generator as a program: from its Debian package, run on this machine in a folder of
//! its own, without root. It only reads and writes text, so that it does not matter for which
//! machine the guest is.

use crate::debian::tools::Program;
use crate::units::podman::{Complaint, FOLDER, Generated, Generator};
use std::collections::BTreeMap;
use std::path::Path;

/// The program of a package.
#[derive(Debug, Clone)]
pub struct Packaged {
    program: Program,
}

impl Packaged {
    /// See [`crate::debian::tools::quadlet`].
    pub fn new(program: Program) -> Self {
        Self { program }
    }

    /// Runs it over one folder; gives what it wrote to stderr.
    fn run(&self, from: &Path, to: &Path, user: bool) -> std::io::Result<String> {
        let arguments = self.program.arguments();
        let mut command = std::process::Command::new(&arguments[0]);
        command.args(&arguments[1..]).args(user.then_some("-user")).arg("-no-kmsg-log").arg(to);
        // PODMAN and HOME of this machine have no place in the guest.
        command.env_clear().env("QUADLET_UNIT_DIRS", from).env("HOME", "/root");
        let output = command.stdin(std::process::Stdio::null()).output()?;
        Ok(String::from_utf8_lossy(&output.stderr).into_owned())
    }
}

impl Generator for Packaged {
    fn generate(
        &self,
        files: &BTreeMap<String, String>,
        user: bool,
    ) -> Result<Generated, Complaint> {
        let failed = |error: std::io::Error| Complaint(error.to_string());
        let place = tempfile::tempdir().map_err(failed)?;
        // Links on the way are resolved in what it writes.
        let place = place.path().canonicalize().map_err(failed).map(|path| (path, place))?;
        let (from, to) = (place.0.join("from"), place.0.join("to"));
        for folder in [&from, &to] {
            std::fs::create_dir(folder).map_err(failed)?;
        }
        for (name, text) in files {
            std::fs::write(from.join(name), text).map_err(failed)?;
        }
        let messages = self.run(&from, &to, user).map_err(failed)?;
        let here = from.display().to_string();
        let mut generated = Generated::default();
        for entry in std::fs::read_dir(&to).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            // Folders of links say what [Install] says.
            if entry.file_type().map_err(failed)?.is_file() {
                let text = std::fs::read_to_string(entry.path()).map_err(failed)?;
                let name = entry.file_name().to_string_lossy().into_owned();
                generated.services.insert(name, text.replace(&here, FOLDER));
            }
        }
        generated.messages = messages.lines().map(|line| line.replace(&here, FOLDER)).collect();
        Ok(generated)
    }
}
