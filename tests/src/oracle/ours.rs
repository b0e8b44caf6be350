//! The cases as an appliance's units.

use super::case::{Case, PROBE};
use super::stage::{GROUP, HOST_NAME, PASSWD};
use activator::manifest::Manifest;
use rouse::config::Config;
use rouse::finding::Severity;
use rouse::units::{Architecture, Compiled, Input, compile};
use std::collections::BTreeMap;
use std::path::Path;

/// What the compiler made of all cases.
pub struct Ours {
    /// Of all the cases that it took.
    pub manifest: Manifest,
    /// The cases that it refused, with its errors.
    pub refused: BTreeMap<String, Vec<String>>,
}

/// Compiles each case by itself, to learn which are refused, then all others as one appliance.
pub fn compile_all(cases: &[Case]) -> Ours {
    let all = tempfile::tempdir().unwrap();
    let mut refused = BTreeMap::new();
    for case in cases {
        let own = tempfile::tempdir().unwrap();
        case.write_units(own.path());
        let wrong = errors(&compile_folder(own.path()));
        match wrong.is_empty() {
            true => case.write_units(all.path()),
            false => drop(refused.insert(case.name.clone(), wrong)),
        }
    }
    let compiled = compile_folder(all.path());
    let wrong = errors(&compiled);
    assert!(wrong.is_empty(), "each by itself is right, but all together: {wrong:#?}");
    let manifest =
        Manifest { name: HOST_NAME.into(), units: compiled.units, ..Manifest::default() };
    Ours { manifest, refused }
}

fn errors(compiled: &Compiled) -> Vec<String> {
    let errors = compiled.findings.iter().filter(|it| it.severity == Severity::Error);
    errors.map(|finding| finding.message.clone()).collect()
}

fn compile_folder(folder: &Path) -> Compiled {
    // The namespaces have this machine's /usr, and nothing else of it.
    let has_file = |path: &str| {
        path == PROBE
            || ["/usr/", "/bin/", "/sbin/"].iter().any(|below| path.starts_with(below))
                && Path::new(path).exists()
    };
    compile(&Input {
        folder,
        packaged: &[],
        links: &[],
        name: HOST_NAME,
        config: &Config::default(),
        config_source: None,
        passwd: PASSWD,
        group: GROUP,
        architecture: match std::env::consts::ARCH {
            "aarch64" => Architecture::Aarch64,
            _ => Architecture::X86_64,
        },
        has_file: Some(&has_file),
        generator: None,
    })
}
