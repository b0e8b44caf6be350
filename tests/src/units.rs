//! Units without an appliance around them, compiled for this machine.

use activator::manifest::Manifest;
use rouse::config::Config;
use rouse::finding::{Finding, Severity};
use rouse::units::{Architecture, Input, compile};
use std::path::Path;

/// A folder of units, and what they are resolved against.
pub struct Units<'a> {
    /// The units, and their drop-ins.
    pub folder: &'a Path,
    /// The host name.
    pub name: &'a str,
    /// /etc/passwd.
    pub passwd: &'a str,
    /// /etc/group.
    pub group: &'a str,
    /// Unit files of packages: path without the first `/`, and text.
    pub packaged: &'a [(String, String)],
    /// Links among them: path, and what it leads to.
    pub links: &'a [(String, String)],
    /// Those of them that are enabled.
    pub enable: &'a [String],
    /// Whether the root has a file (absolute path).
    pub has_file: &'a dyn Fn(&str) -> bool,
}

impl Units<'_> {
    /// All of them; else what is wrong.
    pub fn compile(&self) -> Result<Manifest, Vec<Finding>> {
        let config = Config { enable: self.enable.to_vec(), ..Config::default() };
        let compiled = compile(&Input {
            folder: self.folder,
            packaged: self.packaged,
            links: self.links,
            name: self.name,
            config: &config,
            config_source: None,
            passwd: self.passwd,
            group: self.group,
            architecture: match std::env::consts::ARCH {
                "aarch64" => Architecture::Aarch64,
                _ => Architecture::X86_64,
            },
            has_file: Some(self.has_file),
            generator: None,
        });
        let errors = compiled.findings.into_iter().filter(|it| it.severity == Severity::Error);
        let errors: Vec<Finding> = errors.collect();
        match errors.is_empty() {
            true => Ok(Manifest {
                name: self.name.into(),
                units: compiled.units,
                ..Manifest::default()
            }),
            false => Err(errors),
        }
    }
}
