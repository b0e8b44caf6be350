//! What a manifest needs that the machine as it runs does not have.
//!
//! An image's files are laid out when it is built. A manifest that comes later may name programs
//! and container templates that are not there, or ask for chores that only a boot does. Whoever
//! takes one asks here first, so that a reload is refused with names instead of leaving services
//! that cannot start.
//!
//! Not looked for is what may well come to be later: environment files, working directories,
//! what a service with a root directory of its own executes there.

use crate::control::Unfit;
use crate::exit;
use crate::manifest::{Command, Container, Execution, Manifest, Unit, UnitKind};
use crate::stage2::{List, template};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// Version of the state that one activator hands to the next on a reload; raised only when its
/// fields no longer mean what they meant, or stand no longer where they stood.
pub const STATE_VERSION: u32 = 3;

/// What [`verify`] prints, so that no other program is taken for an activator.
pub const FIT: &str = "rouse activator: fit";

/// `verify STATE_VERSION < MANIFEST`, of either program: whether it can take a manifest, and a state
/// of that version, on this machine. Then it writes [`FIT`] to stdout; else one line to stderr: the
/// error, with the exit code. `bytes` are the manifest, of which `look` finds more to say.
pub fn verify(
    arguments: &[&str],
    bytes: &[u8],
    look: fn(&Manifest) -> Result<(), Unfit>,
) -> Result<(), (u8, String)> {
    let complain = |code, text: String| Err((code, text));
    let version = match arguments {
        [version] => version.parse::<u32>().ok(),
        _ => None,
    };
    let Some(version) = version else {
        return complain(exit::USAGE, "usage: verify STATE_VERSION < MANIFEST".into());
    };
    if version != STATE_VERSION {
        let text = format!("the new activator reads states of version {STATE_VERSION} only");
        return complain(exit::DATA, text);
    }
    let manifest = match Manifest::decode(bytes) {
        Ok(manifest) => manifest,
        Err(error) => return complain(exit::DATA, error.to_string()),
    };
    match look(&manifest) {
        Ok(()) => Ok(()),
        Err(why) => complain(exit::FAILED, why.to_string()),
    }
}

/// Whether `new` can take over from `old` on a machine whose root is `root`. `old` is None where
/// it cannot be read; then only files are looked for.
pub fn check(root: &Path, old: Option<&Manifest>, new: &Manifest) -> Result<(), Unfit> {
    let chores = old.map(|old| chores(old, new)).unwrap_or_default();
    if !chores.is_empty() {
        return Err(Unfit::NeedsBoot(chores));
    }
    let mut all = vec![];
    for unit in &new.units {
        all.extend(lacking(root, new, unit));
    }
    all.sort();
    all.dedup();
    if !all.is_empty() {
        return Err(Unfit::Lacks(all));
    }
    Ok(())
}

/// What PID 1 does at boot only. A manifest without modules comes from a host that did not look
/// at the image's kernel.
fn chores(old: &Manifest, new: &Manifest) -> Vec<String> {
    let mut chores = vec![];
    for module in &new.boot.modules {
        if !old.boot.modules.contains(module) {
            chores.push(format!("the kernel module {}", module.path));
        }
    }
    for directory in &new.boot.writable {
        if !old.boot.writable.contains(directory) {
            chores.push(format!("the writable directory {}", directory.path));
        }
    }
    for (name, value) in &new.boot.sysctls {
        if !old.boot.sysctls.iter().any(|sysctl| *sysctl == (name.clone(), value.clone())) {
            chores.push(format!("the sysctl {name}"));
        }
    }
    for disk in &new.boot.disks {
        if !old.boot.disks.contains(disk) {
            chores.push(format!("the disk at {}", disk.path));
        }
    }
    if let Some(interface) = &new.boot.interface
        && old.boot.interface.as_ref() != Some(interface)
    {
        chores.push(format!("the network interface {}", interface.name));
    }
    chores
}

fn lacking(root: &Path, manifest: &Manifest, unit: &Unit) -> Vec<String> {
    let name = &unit.name;
    let mut lacking = vec![];
    let (commands, execution): (Vec<&[Command]>, &Execution) = match &unit.kind {
        UnitKind::Service(service) => {
            let lists = [
                &service.condition,
                &service.start_pre,
                &service.start,
                &service.start_post,
                &service.reload,
                &service.stop,
                &service.stop_post,
            ];
            if let Some(container) = &service.container {
                lacking.extend(lacking_container(root, name, container));
            }
            let health = [List::Health, List::HealthStartup].map(|list| list.of(unit));
            let lists = lists.map(Vec::as_slice).into_iter().chain(health);
            (lists.collect(), &service.execution)
        }
        UnitKind::Socket(socket) => {
            let lists =
                [&socket.start_pre, &socket.start_post, &socket.stop_pre, &socket.stop_post];
            (lists.map(Vec::as_slice).to_vec(), &socket.execution)
        }
        UnitKind::Target => return lacking,
    };
    let elsewhere =
        execution.stage2.as_ref().is_some_and(|stage2| stage2.sandbox.root_directory.is_some());
    if !elsewhere {
        // One with a `-` in front may be missing.
        let needed = commands.into_iter().flatten().filter(|command| !command.ignore_failure);
        for program in needed.map(|command| &command.program) {
            if program.starts_with('/') && !is_program(&below(root, program)) {
                lacking.push(format!("{program} ({name})"));
            }
        }
    }
    if let Some(user) = manifest.user_of(unit)
        && !below(root, &user.home).is_dir()
    {
        lacking.push(format!("{} (home of {})", user.home, user.name));
    }
    lacking
}

/// The template of crun's config.json, and the root file system that it names.
fn lacking_container(root: &Path, name: &str, container: &Container) -> Option<String> {
    let template = &container.template;
    let Ok(text) = std::fs::read(below(root, template)) else {
        return Some(format!("{template} ({name})"));
    };
    if container.digest.is_some_and(|digest| Container::digest_of(&text) != digest) {
        return Some(format!("the new {template} ({name})"));
    }
    let path = match &container.writable {
        Some(image) => image,
        None => template::root(std::str::from_utf8(&text).ok()?)?,
    };
    let there = !path.starts_with('/') || below(root, path).is_dir();
    (!there).then(|| format!("{path} ({name})"))
}

fn below(root: &Path, path: &str) -> std::path::PathBuf {
    root.join(path.trim_start_matches('/'))
}

fn is_program(path: &Path) -> bool {
    path.metadata().is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::{Lingering, Service, Writable};

    fn unit(name: &str, kind: UnitKind) -> Unit {
        Unit { name: name.into(), kind, ..Unit::default() }
    }

    fn command(program: &str) -> Command {
        Command { program: program.into(), ..Command::default() }
    }

    fn manifest(units: Vec<Unit>) -> Manifest {
        Manifest { units, ..Manifest::default() }
    }

    #[test]
    fn programs_are_named_once_with_their_units() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join("bin")).unwrap();
        std::fs::write(root.path().join("bin/text"), "no program").unwrap();
        let good = root.path().join("bin/good");
        std::fs::write(&good, "").unwrap();
        std::fs::set_permissions(&good, std::fs::Permissions::from_mode(0o755)).unwrap();
        let mut optional = command("/bin/optional");
        optional.ignore_failure = true;
        let service = Service {
            start_pre: vec![optional],
            start: vec![command("/bin/good"), command("/bin/text")],
            stop: vec![command("/bin/gone"), command("/bin/gone")],
            ..Service::default()
        };
        let new = manifest(vec![unit("a.service", UnitKind::Service(service))]);
        let lacks = ["/bin/gone (a.service)", "/bin/text (a.service)"].map(str::to_owned);
        assert_eq!(check(root.path(), None, &new), Err(Unfit::Lacks(lacks.into())));
    }

    #[test]
    fn a_container_needs_its_template_and_its_root() {
        let root = tempfile::tempdir().unwrap();
        let with = |digest| {
            let container = Container {
                id: "a".into(),
                template: "/a.json".into(),
                digest,
                ..Container::default()
            };
            let service = Service { container: Some(container), ..Service::default() };
            manifest(vec![unit("a.service", UnitKind::Service(service))])
        };
        let new = with(None);
        let lacks = |what: &str| Err(Unfit::Lacks(vec![format!("{what} (a.service)")]));
        assert_eq!(check(root.path(), None, &new), lacks("/a.json"));
        let text = r#"{"root": {"path": "/images/a"}}"#;
        std::fs::write(root.path().join("a.json"), text).unwrap();
        assert_eq!(check(root.path(), None, &new), lacks("/images/a"));
        std::fs::create_dir_all(root.path().join("images/a")).unwrap();
        assert_eq!(check(root.path(), None, &new), Ok(()));
        // The Quadlet has changed, and the image has not.
        let digest = Container::digest_of(text.as_bytes());
        assert_eq!(check(root.path(), None, &with(Some(digest))), Ok(()));
        assert_eq!(check(root.path(), None, &with(Some(digest ^ 1))), lacks("the new /a.json"));
    }

    #[test]
    fn what_only_a_boot_does_is_refused() {
        let old = manifest(vec![]);
        let mut new = manifest(vec![]);
        let path = "/var/lib/x".to_owned();
        new.boot.writable = vec![Writable { path, mode: 0o755, owner: (0, 0) }];
        new.boot.sysctls = vec![("net.x".into(), "1".into())];
        let needs = ["the writable directory /var/lib/x", "the sysctl net.x"].map(str::to_owned);
        let root = Path::new("/");
        assert_eq!(check(root, Some(&old), &new), Err(Unfit::NeedsBoot(needs.into())));
        // What there was may go without a boot: it does no harm.
        assert_eq!(check(root, Some(&new), &old), Ok(()));
    }

    #[test]
    fn a_user_needs_a_home() {
        let root = tempfile::tempdir().unwrap();
        let ann = Lingering { name: "ann".into(), home: "/ann".into(), ..Lingering::default() };
        let mut one = unit("a.service", UnitKind::Service(Service::default()));
        one.owner = Some(0);
        let new = Manifest { users: vec![ann], ..manifest(vec![one]) };
        let lacks = Unfit::Lacks(vec!["/ann (home of ann)".into()]);
        assert_eq!(check(root.path(), None, &new), Err(lacks));
        std::fs::create_dir(root.path().join("ann")).unwrap();
        assert_eq!(check(root.path(), None, &new), Ok(()));
    }
}
