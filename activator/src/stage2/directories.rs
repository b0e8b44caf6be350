//! `RuntimeDirectory=`, `StateDirectory=`, `CacheDirectory=`, `LogsDirectory=` and
//! `ConfigurationDirectory=` (systemd.exec(5)).
//!
//! With a dynamic user the lasting ones lie in `private` below their base, which only root may
//! enter, and have a link at their usual place: the user's id may be another service's later.
//! In its mount namespace the service sees its own there ([`mounts`](super::mounts)).

use super::call::Subject;
use super::environment::Environment;
use super::error::{At, Failed, Stage};
use super::identity::AsOwner;
use crate::manifest::{Address, Directory, DirectoryKind, Manifest, Stage2, UnitKind, User};
use rustix::fs::{self, AtFlags, CWD, FileType, Gid, Mode, OFlags, Uid};
use rustix::io::Errno;
use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

/// Below the base of lasting directories of dynamic users.
const PRIVATE: &str = "private";

/// One of them, with its places.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place<'a> {
    pub(super) directory: &'a Directory,
    /// Where the service looks for it.
    pub(super) path: PathBuf,
    /// Where it is, if elsewhere.
    pub(super) private: Option<PathBuf>,
    /// Other names of it.
    pub(super) links: Vec<PathBuf>,
}

impl Place<'_> {
    /// Where its files are.
    pub(super) fn real(&self) -> &Path {
        self.private.as_deref().unwrap_or(&self.path)
    }
}

/// All directories of a unit.
pub(super) fn of<'a>(subject: &Subject, stage2: &'a Stage2) -> Vec<Place<'a>> {
    let place = |directory: &'a Directory| {
        let base = base(subject, directory.kind);
        let private = stage2.dynamic_user.is_some()
            && match directory.kind {
                DirectoryKind::Configuration => false,
                DirectoryKind::Runtime => stage2.runtime_preserve.is_some(),
                _ => true,
            };
        Place {
            directory,
            path: base.join(&directory.path),
            private: private.then(|| base.join(PRIVATE).join(&directory.path)),
            links: directory.links.iter().map(|link| base.join(link)).collect(),
        }
    };
    stage2.directories.iter().map(place).collect()
}

/// The directory below which all of a kind lie.
fn base(subject: &Subject, kind: DirectoryKind) -> PathBuf {
    let Some(owner) = subject.owner() else {
        return PathBuf::from(match kind {
            DirectoryKind::Runtime => "/run",
            DirectoryKind::State => "/var/lib",
            DirectoryKind::Cache => "/var/cache",
            DirectoryKind::Logs => "/var/log",
            DirectoryKind::Configuration => "/etc",
        });
    };
    let home = Path::new(&owner.home);
    match kind {
        DirectoryKind::Runtime => PathBuf::from(&owner.runtime_directory),
        DirectoryKind::State => home.join(".local/state"),
        DirectoryKind::Cache => home.join(".cache"),
        DirectoryKind::Logs => home.join(".local/state/log"),
        DirectoryKind::Configuration => home.join(".config"),
    }
}

fn stage(kind: DirectoryKind) -> Stage {
    match kind {
        DirectoryKind::Runtime => Stage::RuntimeDirectory,
        DirectoryKind::State => Stage::StateDirectory,
        DirectoryKind::Cache => Stage::CacheDirectory,
        DirectoryKind::Logs => Stage::LogsDirectory,
        DirectoryKind::Configuration => Stage::ConfigurationDirectory,
    }
}

fn variable(kind: DirectoryKind) -> &'static str {
    match kind {
        DirectoryKind::Runtime => "RUNTIME_DIRECTORY",
        DirectoryKind::State => "STATE_DIRECTORY",
        DirectoryKind::Cache => "CACHE_DIRECTORY",
        DirectoryKind::Logs => "LOGS_DIRECTORY",
        DirectoryKind::Configuration => "CONFIGURATION_DIRECTORY",
    }
}

/// Makes all that are missing, gives them to the user, and names them in the environment.
pub(super) fn make(
    subject: &Subject,
    places: &[Place<'_>],
    user: Option<&User>,
    environment: &mut Environment,
) -> Result<(), Failed> {
    let _as_owner = AsOwner::of(subject);
    let rights = subject.owner().map_or(0, |owner| owner.ids.uid);
    for place in places {
        make_one(place, user, rights).at(stage(place.directory.kind), || {
            format!("make the directory {}", place.path.display())
        })?;
        let name = variable(place.directory.kind);
        let path = place.path.display();
        let value = match environment.value(name) {
            Some(others) => format!("{others}:{path}"),
            None => path.to_string(),
        };
        environment.set(name, &value);
    }
    Ok(())
}

/// Removes the runtime directories, but those in which a socket unit listens: the socket stays
/// open when the service stops, and its clients must find it. (systemd takes its name away.)
pub(super) fn remove_runtime(subject: &Subject, places: &[Place<'_>]) -> Vec<io::Error> {
    let _as_owner = AsOwner::of(subject);
    let mut troubles = vec![];
    let runtime = places.iter().filter(|it| it.directory.kind == DirectoryKind::Runtime);
    for place in runtime.filter(|it| !has_listener(&subject.manifest, &it.path)) {
        let links = place.links.iter().map(PathBuf::as_path);
        let link = place.private.is_some().then_some(place.path.as_path());
        let removed = links.chain(link).map(std::fs::remove_file);
        let removed = removed.chain([std::fs::remove_dir_all(place.real())]);
        troubles.extend(
            removed.filter_map(Result::err).filter(|it| it.kind() != io::ErrorKind::NotFound),
        );
    }
    troubles
}

fn has_listener(manifest: &Manifest, directory: &Path) -> bool {
    let sockets = manifest.units.iter().filter_map(|unit| match &unit.kind {
        UnitKind::Socket(socket) => Some(socket),
        _ => None,
    });
    sockets.flat_map(|socket| &socket.listeners).any(|listener| {
        matches!(&listener.address, Address::Path(path) if Path::new(path).starts_with(directory))
    })
}

/// `rights` is whose we have.
fn make_one(place: &Place<'_>, user: Option<&User>, rights: u32) -> io::Result<()> {
    let directory = place.directory;
    if let Some(private) = &place.private {
        let root = private.ancestors().find(|it| it.ends_with(PRIVATE)).unwrap_or(private);
        parents(root)?;
        match std::fs::DirBuilder::new().mode(0o700).create(root) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        parents(private)?;
        // One that was made for a user of its own before.
        let before = std::fs::symlink_metadata(&place.path);
        if before.is_ok_and(|it| it.is_dir()) && std::fs::symlink_metadata(private).is_err() {
            std::fs::rename(&place.path, private)?;
        }
    } else {
        give_back(place)?;
    }
    let real = place.real();
    parents(real)?;
    match std::fs::DirBuilder::new().mode(directory.mode).create(real) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        // An administrator's, and nothing that the service may change.
        Err(_) if directory.kind == DirectoryKind::Configuration => return Ok(()),
        _ => {}
    }
    let made = hold(real, rights)?;
    set_mode(&made, directory.mode)?;
    if directory.kind != DirectoryKind::Configuration {
        let (uid, gid) = user.map_or((0, 0), |user| (user.uid, user.gid));
        let found = fs::fstat(&made)?;
        if (found.st_uid, found.st_gid) != (uid, gid) {
            give(made.as_fd(), Path::new("."), uid, gid)?;
        }
    }
    if place.private.is_some() {
        parents(&place.path)?;
        link(real, &place.path)?;
    }
    for other in &place.links {
        parents(other)?;
        link(&place.path, other)?;
    }
    Ok(())
}

/// Takes hold of a directory. A link in its place leads to it if it is an administrator's, or of
/// whom we act for; with one of a service, which has the directory above it, that service would
/// give itself anything.
fn hold(path: &Path, rights: u32) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let found = fs::openat(CWD, path, flags, Mode::empty())?;
    let stat = fs::fstat(&found)?;
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => return Ok(found),
        FileType::Symlink if [0, rights].contains(&stat.st_uid) => {}
        FileType::Symlink => return Err(Errno::LOOP.into()),
        _ => return Err(Errno::NOTDIR.into()),
    }
    // The target of the very link that was looked at.
    let target = fs::readlinkat(&found, c"", vec![])?;
    let target = Path::new(OsStr::from_bytes(target.as_bytes()));
    let target = path.parent().unwrap_or(Path::new("/")).join(target);
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(fs::openat(CWD, &target, flags, Mode::empty())?)
}

/// chmod(2) of what is held by its path alone, which fchmod(2) does not take.
fn set_mode(held: &OwnedFd, mode: u32) -> io::Result<()> {
    let path = format!("/proc/self/fd/{}", held.as_raw_fd());
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))
}

/// A service that has had a dynamic user finds its directory at the usual place again.
fn give_back(place: &Place<'_>) -> io::Result<()> {
    let Ok(target) = std::fs::read_link(&place.path) else { return Ok(()) };
    let of_a_dynamic_user = target.components().any(|it| it.as_os_str() == PRIVATE);
    if of_a_dynamic_user && target.is_dir() {
        std::fs::remove_file(&place.path)?;
        std::fs::rename(target, &place.path)?;
    }
    Ok(())
}

fn parents(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(parent) => std::fs::DirBuilder::new().recursive(true).mode(0o755).create(parent),
        None => Ok(()),
    }
}

fn link(target: &Path, at: &Path) -> io::Result<()> {
    match std::fs::read_link(at) {
        Ok(found) if found == target => return Ok(()),
        Ok(_) => std::fs::remove_file(at)?,
        Err(_) => {}
    }
    symlink(target, at)
}

/// Gives a tree to a user; never follows a link, and stays where it is.
pub(super) fn give(parent: BorrowedFd<'_>, path: &Path, uid: u32, gid: u32) -> io::Result<()> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let owner = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
    match fs::openat(parent, path, flags, Mode::empty()) {
        Ok(directory) => {
            for entry in fs::Dir::read_from(&directory)? {
                let entry = entry?;
                let name = entry.file_name().to_bytes();
                if !matches!(name, b"." | b"..") {
                    give(directory.as_fd(), Path::new(OsStr::from_bytes(name)), uid, gid)?;
                }
            }
            fs::fchown(&directory, owner.0, owner.1)?;
        }
        Err(Errno::NOTDIR | Errno::LOOP) => {
            fs::chownat(parent, path, owner.0, owner.1, AtFlags::SYMLINK_NOFOLLOW)?;
        }
        Err(errno) => return Err(errno.into()),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::{DynamicUser, Lingering, ListenKind, Listener, Socket, Unit};
    use std::os::unix::fs::MetadataExt;

    fn directory(kind: DirectoryKind) -> Directory {
        Directory {
            kind,
            path: "a/b".into(),
            links: vec!["c".into()],
            mode: 0o750,
            read_only: false,
        }
    }

    fn subject(owner: Option<u16>) -> Subject {
        let joe = Lingering {
            name: "joe".into(),
            home: "/home/joe".into(),
            runtime_directory: "/run/user/1000".into(),
            ..Lingering::default()
        };
        Subject {
            manifest: Manifest { users: vec![joe], ..Manifest::default() },
            unit: Unit { owner, ..Unit::default() },
            instance: None,
        }
    }

    #[test]
    fn places_of_the_system_a_dynamic_user_and_a_lingering_one() {
        let mut stage2 = Stage2 {
            directories: vec![directory(DirectoryKind::Runtime), directory(DirectoryKind::State)],
            ..Stage2::default()
        };
        let paths = |subject: &Subject, stage2: &Stage2| -> Vec<String> {
            let places = of(subject, stage2);
            places.iter().map(|place| place.real().to_str().unwrap().to_owned()).collect()
        };
        assert_eq!(paths(&subject(None), &stage2), ["/run/a/b", "/var/lib/a/b"]);
        let expected = ["/run/user/1000/a/b", "/home/joe/.local/state/a/b"];
        assert_eq!(paths(&subject(Some(0)), &stage2), expected);
        stage2.dynamic_user = Some(DynamicUser { name: "x".into(), uid: 61184 });
        assert_eq!(paths(&subject(None), &stage2), ["/run/a/b", "/var/lib/private/a/b"]);
        stage2.runtime_preserve = Some(true);
        assert_eq!(paths(&subject(None), &stage2)[0], "/run/private/a/b");
        let places = of(&subject(None), &stage2);
        assert_eq!(places[1].path, Path::new("/var/lib/a/b"));
        assert_eq!(places[1].links, [Path::new("/var/lib/c")]);
    }

    #[test]
    fn a_directory_with_a_listener_stays() {
        let address = Address::Path("/run/a/b/c".into());
        let listeners = vec![Listener { kind: ListenKind::Stream, address }];
        let kind = UnitKind::Socket(Socket { listeners, ..Socket::default() });
        let unit = Unit { kind, ..Unit::default() };
        let manifest = Manifest { units: vec![unit], ..Manifest::default() };
        let has = |path: &str| has_listener(&manifest, Path::new(path));
        assert!(has("/run/a") && has("/run/a/b"));
        assert!(!has("/run/a/b/cc") && !has("/run/ab"));
    }

    /// Of two directories, `a` and `a/b`, the first is another service's.
    #[test]
    fn a_link_of_a_service_leads_to_nothing_that_is_given_to_another() {
        if !rustix::process::geteuid().is_root() {
            eprintln!("SKIPPED: only root has users to give directories to");
            return;
        }
        let base = tempfile::tempdir().unwrap();
        let (link, precious) = (base.path().join("a/b"), base.path().join("precious"));
        std::fs::create_dir(base.path().join("a")).unwrap();
        std::fs::create_dir(&precious).unwrap();
        std::fs::set_permissions(&precious, std::fs::Permissions::from_mode(0o700)).unwrap();
        symlink("../precious", &link).unwrap();
        let directory = directory(DirectoryKind::State);
        let user = User { uid: 1234, gid: 1234, groups: vec![] };
        let make = || make_one(&place(&directory, base.path(), false), Some(&user), 0);
        let found = || {
            let found = std::fs::metadata(&precious).unwrap();
            (found.uid(), found.mode() & 0o7777)
        };
        std::os::unix::fs::lchown(&link, Some(1234), Some(1234)).unwrap();
        assert_eq!(make().unwrap_err().raw_os_error(), Some(libc::ELOOP));
        assert_eq!(found(), (0, 0o700));
        // An administrator may have it on another disk.
        std::os::unix::fs::lchown(&link, Some(0), Some(0)).unwrap();
        for _ in 0..2 {
            make().unwrap();
            assert_eq!(found(), (1234, 0o750));
            assert_eq!(std::fs::symlink_metadata(&link).unwrap().uid(), 0, "the link is root's");
        }
    }

    fn place<'a>(directory: &'a Directory, base: &Path, private: bool) -> Place<'a> {
        Place {
            directory,
            path: base.join("a/b"),
            private: private.then(|| base.join("private/a/b")),
            links: vec![base.join("c")],
        }
    }

    #[test]
    fn a_directory_moves_to_private_and_back_with_its_files() {
        let base = tempfile::tempdir().unwrap();
        let base = base.path();
        let directory = directory(DirectoryKind::State);
        let me = std::fs::metadata(base).unwrap();
        let user = User { uid: me.uid(), gid: me.gid(), groups: vec![] };
        let make = |private| {
            make_one(&place(&directory, base, private), Some(&user), 0).unwrap();
            std::fs::metadata(base.join("c/file"))
        };
        assert!(make(false).is_err());
        std::fs::write(base.join("c/file"), "").unwrap();
        for private in [false, true, true, false, true] {
            assert!(make(private).is_ok());
            let link = std::fs::read_link(base.join("a/b"));
            assert_eq!(link.ok(), private.then(|| base.join("private/a/b")));
            let mode = std::fs::metadata(base.join("a/b")).unwrap().mode();
            assert_eq!(mode & 0o7777, 0o750);
        }
        let mode = std::fs::metadata(base.join("private")).unwrap().mode();
        assert_eq!(mode & 0o7777, 0o700);
    }
}
