//! `rouse reload`: a running guest takes an appliance's units as they are now.
//!
//! The image is built as for a boot, so that the next one has the same; what the running guest
//! gets of it is the manifest, and with `--activator` the two programs. It refuses a manifest that
//! needs files which the image that it has booted from lacks.

use super::guest::{control, find, hinted};
use crate::appliance::Appliance;
use crate::build;
use crate::command_line::{Arch, Reload};
use crate::exit::{BUG, FAILED, Failure, TRY_AGAIN, UNAVAILABLE};
use crate::guest;
use crate::output;
use crate::output::description::Description;
use crate::terminal::{self, Measure, Task};
use activator::client::{self, Error as ClientError};
use activator::control::{Failure as Refusal, Programs, Unfit};
use rouse_qemu::connect::Patience;
use rouse_qemu::machine;
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// How long a guest may take: without hardware acceleration it looks through its files slowly.
const PATIENCE: Duration = Duration::from_secs(60);

/// `rouse reload`
pub fn reload(arguments: &Reload) -> Result<(), Failure> {
    let name = &arguments.name;
    let entry = find(name)?;
    let appliance = Appliance::open(&arguments.appliance)?;
    let arch = match entry.record.arch {
        machine::Arch::X86_64 => Arch::X86_64,
        machine::Arch::Aarch64 => Arch::Aarch64,
    };
    let built = build::build(&appliance, arch, None)?;
    let path = built.folder.join(output::MANIFEST);
    let manifest = std::fs::read(&path)
        .map_err(|error| Failure::new(FAILED, format!("read {}", path.display())).because(error))?;
    let programs = match arguments.activator {
        true => {
            Some(guest::programs(arch.as_str()).map_err(|error| Failure::of(UNAVAILABLE, &error))?)
        }
        false => None,
    };
    let (stream, token) = control(&entry, Patience::ONCE)?;
    stream
        .set_read_timeout(Some(PATIENCE))
        .map_err(|error| Failure::new(BUG, "prepare a connection").because(error))?;
    let sent = programs.into_iter().flat_map(Programs::into_array);
    let size = manifest.len() + sent.map(<[u8]>::len).sum::<usize>();
    let task = Task::begin(format!("reloading {name}"), Measure::Bytes, size as u64);
    client::replace(stream, &token, &manifest, programs, |sent| task.advance(sent as u64))
        .map_err(|error| refused(name, error))?;
    drop(task);
    let now = Description::read(&built.folder).map(|image| image.own).unwrap_or_default();
    if let Ok(booted) = BTreeMap::deserialize(&entry.record.image)
        && let Some(text) = left_behind(name, &booted, &now)
    {
        terminal::warn(text);
    }
    Ok(())
}

/// The files of `[files]` that are not what the guest has booted with: a reload brings units, and
/// no files.
fn left_behind(
    name: &str,
    booted: &BTreeMap<String, String>,
    now: &BTreeMap<String, String>,
) -> Option<String> {
    let all: BTreeSet<&String> = booted.keys().chain(now.keys()).collect();
    let changed = all.into_iter().filter(|path| booted.get(*path) != now.get(*path));
    let changed: Vec<&str> = changed.map(String::as_str).collect();
    (!changed.is_empty()).then(|| {
        format!(
            "a reload brings units and no files, and {name} still has the old {}: power it off \
             and run it again",
            changed.join(", ")
        )
    })
}

/// What a refusal means for a person.
fn refused(name: &str, error: ClientError) -> Failure {
    let what = format!("reload {name}");
    let ClientError::Refused(Refusal::Replace(why)) = &error else {
        return super::guest::refused(name, what, error);
    };
    let (code, hint) = match why {
        Unfit::Lacks(_) | Unfit::NeedsBoot(_) => {
            (FAILED, Some("the image with it is built: power the VM off and run it again".into()))
        }
        Unfit::Manifest(_) => {
            (FAILED, Some("--activator sends the activator that can read it as well".into()))
        }
        Unfit::Busy => (TRY_AGAIN, None),
        Unfit::NotTaken => (BUG, Some(format!("`rouse logs {name} activator` tells why"))),
        Unfit::TooLarge | Unfit::Damaged | Unfit::Activator(_) => (FAILED, None),
    };
    hinted(Failure::new(code, what).because(error), hint)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changed_files_are_named() {
        let files = |all: &[(&str, &str)]| -> BTreeMap<String, String> {
            all.iter().map(|(path, digest)| ((*path).into(), (*digest).into())).collect()
        };
        let booted = files(&[("/etc/a", "1"), ("/etc/b", "1"), ("/etc/c", "1")]);
        let now = files(&[("/etc/a", "1"), ("/etc/b", "2"), ("/etc/d", "1")]);
        assert_eq!(left_behind("x", &booted, &booted), None);
        let text = left_behind("x", &booted, &now).unwrap();
        assert!(text.contains("the old /etc/b, /etc/c, /etc/d:"), "{text}");
    }

    #[test]
    fn each_refusal_names_what_is_to_be_done() {
        let refused = |why| refused("x", ClientError::Refused(Refusal::Replace(why)));
        let lacks = refused(Unfit::Lacks(vec!["/usr/bin/x (x.service)".into()]));
        let text = format!("{lacks:?}");
        assert!(text.contains("/usr/bin/x (x.service)"), "{text}");
        assert!(text.contains("run it again"), "{text}");
        assert_eq!(lacks.code(), FAILED);
        let version = refused(Unfit::Manifest("version 1".into()));
        assert!(format!("{version:?}").contains("--activator"));
        assert_eq!(refused(Unfit::Busy).code(), TRY_AGAIN);
        assert_eq!(refused(Unfit::NotTaken).code(), BUG);
    }
}
