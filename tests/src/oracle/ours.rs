//! The cases as an appliance's units.

use super::case::{Case, PROBE};
use super::stage::{GROUP, HOST_NAME, PASSWD};
use crate::Units;
use activator::manifest::Manifest;
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
        match compile_folder(own.path()) {
            Ok(_) => case.write_units(all.path()),
            Err(wrong) => drop(refused.insert(case.name.clone(), wrong)),
        }
    }
    let manifest = compile_folder(all.path())
        .unwrap_or_else(|wrong| panic!("each by itself is right, but all together: {wrong:#?}"));
    Ours { manifest, refused }
}

/// The error is what the compiler says.
fn compile_folder(folder: &Path) -> Result<Manifest, Vec<String>> {
    // The namespaces have this machine's /usr, and nothing else of it.
    let has_file = |path: &str| {
        path == PROBE
            || ["/usr/", "/bin/", "/sbin/"].iter().any(|below| path.starts_with(below))
                && Path::new(path).exists()
    };
    let units = Units {
        folder,
        name: HOST_NAME,
        passwd: PASSWD,
        group: GROUP,
        packaged: &[],
        links: &[],
        enable: &[],
        has_file: &has_file,
    };
    units.compile().map_err(|errors| errors.into_iter().map(|it| it.message).collect())
}
