//! What a container of engine crun gets before each start ([`Preparation`]): folders for its
//! volumes, its secrets, variables, devices, another container's network namespace.

use super::call::Subject;
use super::directories::give;
use super::environment::Environment;
use super::error::{Error, Failed};
use super::identity::AsOwner;
use super::template::{Fill, escape};
use crate::manifest::{DeviceNode, ImageFolder, Preparation, Secret, SecretTarget, VolumeFolder};
use rustix::fs::{self, AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use rustix::process::{Gid, Uid};
use std::ffi::CStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{
    DirBuilderExt, FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt, chown,
};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Name of the folder of secrets in a bundle's directory.
pub const SECRETS: &str = "secrets";

/// Does all of it, and says what to fill into config.json. `state` is crun's `--root`.
pub(super) fn prepare(
    subject: &Subject,
    preparation: &Preparation,
    environment: &Environment,
    bundle: &Path,
    state: &Path,
) -> Result<Fill, Failed> {
    for volume in &preparation.volumes {
        make_volume(subject, volume)?;
    }
    let mut fill = Fill { fixed: preparation.fixed_environment.clone(), ..Fill::default() };
    add_variables(subject, preparation, environment, &mut fill)?;
    secrets(subject, preparation, bundle, &mut fill)?;
    for device in &preparation.devices {
        add_device(device, &mut fill)?;
    }
    if let Some(other) = &preparation.network_of {
        let pid = wait_for(state, other)?;
        fill.namespace = Some(format!(r#"{{"type":"network","path":"/proc/{pid}/ns/net"}}"#));
    }
    Ok(fill)
}

fn failed(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Failed {
    move |error| Failed::file(what, path, error)
}

/// The host of a container, as its variables go, is its service.
fn add_variables(
    subject: &Subject,
    preparation: &Preparation,
    environment: &Environment,
    fill: &mut Fill,
) -> Result<(), Failed> {
    if preparation.host_environment {
        // What PID 1 tells this process alone is nobody else's.
        let ours = |name: &str| name.starts_with("LISTEN_") || name.starts_with("ROUSE_");
        let all = environment.pairs().iter().filter(|(name, _)| !ours(name));
        fill.defaults = all.cloned().collect();
    }
    let known = |name: &str| environment.value(name).map(str::to_owned);
    let value = |name: &String| Some((name.clone(), known(name)?));
    fill.variables.extend(preparation.pass_environment.iter().filter_map(value));
    for path in &preparation.environment_files {
        let path = Path::new(path);
        let text = read(subject, path)
            .and_then(|text| String::from_utf8(text).map_err(|_| io::ErrorKind::InvalidData.into()))
            .map_err(|error| Error::EnvironmentFile(path.to_owned(), error))?;
        fill.variables.extend(variables(&text, known));
    }
    Ok(())
}

/// With the rights of the user whose container it is, who may have put a link there.
fn read(subject: &Subject, path: &Path) -> io::Result<Vec<u8>> {
    let _as_owner = AsOwner::of(subject);
    std::fs::read(path)
}

/// The lines of a file of podman-run(1) `--env-file`: `NAME=value` as it stands, `#` comments, and
/// bare names, which are looked up.
pub fn variables(text: &str, known: impl Fn(&str) -> Option<String>) -> Vec<(String, String)> {
    let mut all = vec![];
    for line in text.lines() {
        let line = line.trim_start();
        match line.split_once('=') {
            _ if line.is_empty() || line.starts_with('#') => {}
            Some((name, value)) if !name.trim().is_empty() => {
                all.push((name.trim().to_owned(), value.to_owned()));
            }
            Some(_) => {}
            None => {
                let name = line.trim_end();
                all.extend(known(name).map(|value| (name.to_owned(), value)));
            }
        }
    }
    all
}

fn secrets(
    subject: &Subject,
    preparation: &Preparation,
    bundle: &Path,
    fill: &mut Fill,
) -> Result<(), Failed> {
    let folder = bundle.join(SECRETS);
    // That of the run before belongs to its user, who may have put links there.
    super::sys::not_found_is_fine(std::fs::remove_dir_all(&folder))
        .map_err(failed("remove", &folder))?;
    for Secret { source, target } in &preparation.secrets {
        let source = Path::new(source);
        let content = read(subject, source).map_err(failed("read the secret", source))?;
        let (name, owner, mode) = match target {
            SecretTarget::Variable(name) => {
                let value = String::from_utf8(content).map_err(|_| {
                    failed("use as a variable", source)(io::ErrorKind::InvalidData.into())
                })?;
                fill.variables.push((name.clone(), value));
                continue;
            }
            SecretTarget::File { name, owner, mode } => (name, *owner, *mode),
        };
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&folder)
            .map_err(failed("make", &folder))?;
        let path = folder.join(name);
        let written = write(&path, &content, mode).and_then(|()| {
            chown(&path, Some(owner.0), Some(owner.1))?;
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode))
        });
        written.map_err(failed("write", &path))?;
    }
    // crun binds them from within the container's user namespace.
    let (uid, gid) = preparation.root;
    match chown(&folder, Some(uid), Some(gid)) {
        // All of them are variables.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        given => given.map_err(failed("give away", &folder)),
    }
}

fn write(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(mode & 0o600);
    io::Write::write_all(&mut options.open(path)?, content)
}

/// Makes a volume's folder, and fills an empty one with what the image has in its place.
fn make_volume(subject: &Subject, volume: &VolumeFolder) -> Result<(), Failed> {
    let path = Path::new(&volume.path);
    if volume.fresh {
        let removed = super::sys::not_found_is_fine(remove(subject, path));
        removed.map_err(failed("empty", path))?;
    }
    let (uid, gid) = volume.owner;
    let own = own_folder(subject, path, volume.owner).map_err(failed("make the volume", path))?;
    if own.is_none() && !path.exists() {
        let made = std::fs::DirBuilder::new().recursive(true).mode(0o755).create(path);
        made.map_err(failed("make the volume", path))?;
        chown(path, Some(uid), Some(gid)).map_err(failed("give away", path))?;
    }
    if let Some(from) = &volume.copy_from {
        fill_volume(from, own.as_ref(), path).map_err(failed("fill the volume", path))?;
    }
    let given = match own.as_ref().filter(|_| volume.give) {
        Some(own) => give(own.as_fd(), Path::new("."), uid, gid),
        None if volume.give => give(CWD, path, uid, gid),
        None => Ok(()),
    };
    given.map_err(failed("give away", path))
}

/// Removes a folder with all in it. In a user's runtime directory no link leads to it; whose its
/// files are is up to the container, so that the user's rights would not do.
fn remove(subject: &Subject, path: &Path) -> io::Result<()> {
    let owner = subject.owner();
    let inside = owner.and_then(|it| Some((it, path.strip_prefix(&it.runtime_directory).ok()?)));
    let Some((owner, below)) = inside else { return std::fs::remove_dir_all(path) };
    let (Some(name), Some(parent)) = (below.file_name(), below.parent()) else { return Ok(()) };
    let mut folder = open_folder(CWD, Path::new(&owner.runtime_directory), ResolveFlags::empty())?;
    if parent != Path::new("") {
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        folder = open_folder(folder.as_fd(), parent, resolve)?;
    }
    let opened = PathBuf::from(format!("/proc/self/fd/{}", folder.as_raw_fd()));
    std::fs::remove_dir_all(opened.join(name))
}

/// A folder in the runtime directory of a lingering user, who may have put links there: it is made
/// with that user's rights, and no link leads to it. None if it lies elsewhere, or is a file.
fn own_folder(
    subject: &Subject,
    path: &Path,
    (uid, gid): (u32, u32),
) -> io::Result<Option<OwnedFd>> {
    let Some(owner) = subject.owner() else { return Ok(None) };
    let Ok(below) = path.strip_prefix(&owner.runtime_directory) else { return Ok(None) };
    let is_new = {
        let _as_owner = AsOwner::of(subject);
        let is_new = !path.exists();
        if is_new {
            std::fs::DirBuilder::new().recursive(true).mode(0o755).create(path)?;
        }
        is_new
    };
    let runtime = open_folder(CWD, Path::new(&owner.runtime_directory), ResolveFlags::empty())?;
    match open_folder(runtime.as_fd(), below, ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS) {
        Ok(folder) => {
            if is_new {
                fs::fchown(&folder, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?;
            }
            Ok(Some(folder))
        }
        Err(Errno::NOTDIR) => Ok(None),
        Err(errno) => Err(errno.into()),
    }
}

fn open_folder(
    parent: BorrowedFd<'_>,
    path: &Path,
    resolve: ResolveFlags,
) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    fs::openat2(parent, path, flags, Mode::empty(), resolve)
}

/// Copies what the image has, if it has a folder there and the volume's, which `own` is if it is a
/// user's, is empty. No link of the image leads out of it (openat2(2), `RESOLVE_IN_ROOT`).
fn fill_volume(from: &ImageFolder, own: Option<&OwnedFd>, path: &Path) -> io::Result<()> {
    let root = open_folder(CWD, Path::new(&from.root), ResolveFlags::empty())?;
    let from = match open_folder(root.as_fd(), Path::new(&from.path), ResolveFlags::IN_ROOT) {
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(()),
        found => found?,
    };
    let volume = match own {
        Some(own) => own.try_clone()?,
        None => open_folder(CWD, path, ResolveFlags::empty())?,
    };
    let is_entry = |entry: &Result<fs::DirEntry, Errno>| {
        !entry.as_ref().is_ok_and(|it| matches!(it.file_name().to_bytes(), b"." | b".."))
    };
    match fs::Dir::read_from(&volume)?.find(is_entry) {
        Some(entry) => Ok(entry.map(drop)?),
        None => copy(&from, &volume),
    }
}

/// All in a folder, with owners, modes and links, none of which is followed; the folder's own
/// owner and mode, too.
fn copy(from: &OwnedFd, to: &OwnedFd) -> io::Result<()> {
    let inner = |parent: &OwnedFd, name: &CStr, flags| {
        let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        fs::openat(parent, name, flags, Mode::from_raw_mode(0o600))
    };
    for entry in fs::Dir::read_from(from)? {
        let entry = entry?;
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        let of = fs::statat(from, name, AtFlags::SYMLINK_NOFOLLOW)?;
        match FileType::from_raw_mode(of.st_mode) {
            FileType::Directory => {
                fs::mkdirat(to, name, Mode::RWXU)?;
                let folder = OFlags::RDONLY | OFlags::DIRECTORY;
                copy(&inner(from, name, folder)?, &inner(to, name, folder)?)?;
            }
            FileType::Symlink => {
                fs::symlinkat(fs::readlinkat(from, name, vec![])?, to, name)?;
                let (uid, gid) = (Uid::from_raw(of.st_uid), Gid::from_raw(of.st_gid));
                fs::chownat(to, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
            }
            FileType::RegularFile => {
                let mut source = File::from(inner(from, name, OFlags::RDONLY)?);
                let new = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL;
                let mut target = File::from(inner(to, name, new)?);
                io::copy(&mut source, &mut target)?;
                like(&source, &target)?;
            }
            _ => {}
        }
    }
    like(from, to)
}

fn like(source: impl AsFd, target: impl AsFd) -> io::Result<()> {
    let of = fs::fstat(source)?;
    fs::fchown(&target, Some(Uid::from_raw(of.st_uid)), Some(Gid::from_raw(of.st_gid)))?;
    Ok(fs::fchmod(target, Mode::from_raw_mode(of.st_mode & 0o7777))?)
}

fn add_device(device: &DeviceNode, fill: &mut Fill) -> Result<(), Failed> {
    let source = Path::new(&device.source);
    let of = match std::fs::metadata(source) {
        Err(error) if device.optional && error.kind() == io::ErrorKind::NotFound => return Ok(()),
        found => found.map_err(failed("find the device", source))?,
    };
    if of.is_dir() {
        let mut paths: Vec<PathBuf> = vec![];
        for entry in std::fs::read_dir(source).map_err(failed("read", source))? {
            paths.push(entry.map_err(failed("read", source))?.path());
        }
        paths.sort();
        for path in paths {
            let kind = std::fs::metadata(&path).map(|of| of.file_type());
            if !kind.is_ok_and(|it| it.is_char_device() || it.is_block_device() || it.is_dir()) {
                continue;
            }
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let inner = DeviceNode {
                source: path.to_string_lossy().into_owned(),
                destination: format!("{}/{name}", device.destination),
                ..device.clone()
            };
            add_device(&inner, fill)?;
        }
        return Ok(());
    }
    let kind = match of.file_type() {
        kind if kind.is_char_device() => 'c',
        kind if kind.is_block_device() => 'b',
        _ => return Err(failed("use as a device", source)(io::ErrorKind::InvalidInput.into())),
    };
    let (major, minor) = (fs::major(of.rdev()), fs::minor(of.rdev()));
    let (mode, uid, gid) = (of.mode(), of.uid(), of.gid());
    let path = escape(&device.destination);
    fill.devices.push(format!(
        r#"{{"path":"{path}","type":"{kind}","major":{major},"minor":{minor},"fileMode":{mode},"uid":{uid},"gid":{gid}}}"#
    ));
    let access = &device.permissions;
    fill.device_rules.push(format!(
        r#"{{"allow":true,"type":"{kind}","major":{major},"minor":{minor},"access":"{access}"}}"#
    ));
    Ok(())
}

/// The same of a container that may still be on its way: its service is up when crun runs, which
/// takes a while to make it. Half a minute is more than that takes on any machine.
fn wait_for(state: &Path, id: &str) -> Result<u32, Failed> {
    const TRIES: usize = 600;
    const PAUSE: Duration = Duration::from_millis(50);
    for _ in 1..TRIES {
        // A record may be of one that was killed.
        if is_up(state, id) {
            break;
        }
        std::thread::sleep(PAUSE);
    }
    pid_of(state, id)
}

/// Whether there is something to look at for a health check. crun notes a container last of all.
pub(super) fn is_up(state: &Path, id: &str) -> bool {
    pid_of(state, id).is_ok_and(|pid| Path::new("/proc").join(pid.to_string()).exists())
}

/// The first process of a container that runs, by crun's own note of it.
fn pid_of(state: &Path, id: &str) -> Result<u32, Failed> {
    let path = state.join(id).join("status");
    let text = std::fs::read_to_string(&path).map_err(failed("find the container by", &path))?;
    let number = text.split_once("\"pid\"").and_then(|(_, rest)| {
        let rest = rest.trim_start().strip_prefix(':')?.trim_start();
        let end = rest.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(rest.len());
        rest[..end].parse().ok()
    });
    number.ok_or_else(|| failed("find a pid in", &path)(io::ErrorKind::InvalidData.into()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::{Lingering, Manifest, Unit, User};

    fn prepare_in(preparation: &Preparation, room: &Path) -> Result<Fill, Failed> {
        prepare(&Subject::default(), preparation, &Environment::default(), room, room)
    }

    fn me() -> (u32, u32) {
        (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw())
    }

    #[test]
    fn the_services_own_variables_are_the_hosts() {
        let room = tempfile::tempdir().unwrap();
        let file = room.path().join("file");
        std::fs::write(&file, "FROM_FILE\n").unwrap();
        let mut environment = Environment::default();
        for (name, value) in [("TOKEN", "t"), ("FROM_FILE", "f"), ("LISTEN_FDS", "1")] {
            environment.set(name, value);
        }
        let preparation = Preparation {
            environment_files: vec![file.to_str().unwrap().to_owned()],
            pass_environment: vec!["TOKEN".into(), "NOT_SET".into()],
            host_environment: true,
            root: me(),
            ..Preparation::default()
        };
        let subject = Subject::default();
        let fill = prepare(&subject, &preparation, &environment, room.path(), room.path());
        let fill = fill.unwrap();
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(fill.variables, [pair("TOKEN", "t"), pair("FROM_FILE", "f")]);
        assert_eq!(fill.defaults, [pair("FROM_FILE", "f"), pair("TOKEN", "t")]);
    }

    #[test]
    fn environment_files_are_podmans() {
        let known = |name: &str| (name == "KNOWN").then(|| "yes".to_owned());
        let text = "# no\n A=1 \nB=\"as it stands\"\nKNOWN\nUNKNOWN\n=x\n\nC=a=b\n";
        let expected = [("A", "1 "), ("B", "\"as it stands\""), ("KNOWN", "yes"), ("C", "a=b")];
        let expected = expected.map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(variables(text, known), expected);
    }

    #[test]
    fn an_empty_volume_is_filled_once() {
        let room = tempfile::tempdir().unwrap();
        let image = room.path().join("image");
        std::fs::create_dir_all(image.join("sub")).unwrap();
        std::fs::write(image.join("sub/seed"), "seed").unwrap();
        std::os::unix::fs::symlink("sub/seed", image.join("link")).unwrap();
        std::fs::set_permissions(image.join("sub"), PermissionsExt::from_mode(0o750)).unwrap();
        let path = room.path().join("volumes/things/_data");
        let text = |path: &Path| path.to_str().unwrap().to_owned();
        let volume = VolumeFolder {
            path: text(&path),
            copy_from: Some(ImageFolder { root: text(room.path()), path: "/image".into() }),
            owner: me(),
            ..VolumeFolder::default()
        };
        make_volume(&Subject::default(), &volume).unwrap();
        assert_eq!(std::fs::read_to_string(path.join("link")).unwrap(), "seed");
        let mode = std::fs::metadata(path.join("sub")).unwrap().mode() & 0o777;
        assert_eq!(mode, 0o750);
        std::fs::write(path.join("sub/seed"), "grown").unwrap();
        make_volume(&Subject::default(), &volume).unwrap();
        assert_eq!(std::fs::read_to_string(path.join("link")).unwrap(), "grown");
        make_volume(&Subject::default(), &VolumeFolder { fresh: true, ..volume }).unwrap();
        assert_eq!(std::fs::read_to_string(path.join("link")).unwrap(), "seed");
    }

    #[test]
    fn a_link_of_an_image_leads_to_nothing_of_the_guest() {
        let room = tempfile::tempdir().unwrap();
        let (image, guest) = (room.path().join("image"), room.path().join("guest"));
        for (folder, file) in [(&guest, "precious"), (&image.join("real"), "seed")] {
            std::fs::create_dir_all(folder).unwrap();
            std::fs::write(folder.join(file), "").unwrap();
        }
        let links = [
            ("out", guest.to_str().unwrap()),
            ("up", "../guest"),
            ("in", "/real"),
            ("self", "self"),
        ];
        for (name, target) in links {
            std::os::unix::fs::symlink(target, image.join(name)).unwrap();
        }
        std::os::unix::fs::symlink(&guest, image.join("real/inner")).unwrap();
        for (path, expected) in
            [("/out", vec![]), ("/up", vec![]), ("/self", vec![]), ("/in", vec!["inner", "seed"])]
        {
            let volume = room.path().join("volumes").join(&path[1..]);
            let root = image.to_str().unwrap().to_owned();
            let folder = VolumeFolder {
                path: volume.to_str().unwrap().to_owned(),
                copy_from: Some(ImageFolder { root, path: path.into() }),
                owner: me(),
                ..VolumeFolder::default()
            };
            make_volume(&Subject::default(), &folder).unwrap();
            let names = std::fs::read_dir(&volume).unwrap().map(|it| it.unwrap().file_name());
            let mut names: Vec<_> = names.collect();
            names.sort();
            assert_eq!(names, expected, "{path}");
            let inner = std::fs::symlink_metadata(volume.join("inner"));
            assert!(inner.is_ok_and(|it| it.is_symlink()) == (path == "/in"));
        }
    }

    #[test]
    fn a_link_of_a_user_leads_no_volume_elsewhere() {
        // Only root can act as another.
        if me().0 != 0 {
            return;
        }
        let room = tempfile::tempdir().unwrap();
        std::fs::set_permissions(room.path(), PermissionsExt::from_mode(0o711)).unwrap();
        let (runtime, precious) = (room.path().join("1000"), room.path().join("precious"));
        for (path, uid) in [(&runtime, 1000), (&precious, 0)] {
            std::fs::create_dir(path).unwrap();
            chown(path, Some(uid), Some(uid)).unwrap();
        }
        let ids = User { uid: 1000, gid: 1000, groups: vec![] };
        let runtime_directory = runtime.to_str().unwrap().to_owned();
        let ann = Lingering { name: "ann".into(), ids, runtime_directory, ..Lingering::default() };
        let subject = Subject {
            manifest: Manifest { users: vec![ann], ..Manifest::default() },
            unit: Unit { owner: Some(0), ..Unit::default() },
            instance: None,
        };
        let path = runtime.join("volumes/data");
        let volume = VolumeFolder {
            path: path.to_str().unwrap().to_owned(),
            owner: (100_000, 100_000),
            give: true,
            ..VolumeFolder::default()
        };
        let owner = |path: &Path| std::fs::metadata(path).unwrap().uid();
        make_volume(&subject, &volume).unwrap();
        let owners = (owner(&path), owner(&runtime.join("volumes")));
        assert_eq!(owners, (100_000, 1000));
        let fresh = VolumeFolder { fresh: true, ..volume.clone() };
        std::fs::write(path.join("old"), "").unwrap();
        make_volume(&subject, &fresh).unwrap();
        assert!(path.exists() && !path.join("old").exists());
        // There is one, and there is none yet.
        std::fs::remove_dir_all(runtime.join("volumes")).unwrap();
        std::os::unix::fs::symlink(&precious, runtime.join("volumes")).unwrap();
        assert!(make_volume(&subject, &volume).is_err());
        std::fs::create_dir(precious.join("data")).unwrap();
        assert!(make_volume(&subject, &volume).is_err());
        assert!(make_volume(&subject, &fresh).is_err());
        assert_eq!(owner(&precious.join("data")), 0);
    }

    #[test]
    fn a_file_may_be_given_away_too() {
        let room = tempfile::tempdir().unwrap();
        let file = room.path().join("file");
        std::fs::write(&file, "kept").unwrap();
        let path = file.to_str().unwrap().to_owned();
        let volume = VolumeFolder { path, owner: me(), give: true, ..VolumeFolder::default() };
        make_volume(&Subject::default(), &volume).unwrap();
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "kept");
    }

    #[test]
    fn a_volume_is_the_containers_users() {
        // Only root can give anything away.
        if me().0 != 0 {
            return;
        }
        let room = tempfile::tempdir().unwrap();
        let path = room.path().join("data/_data");
        let owner = |path: &Path| {
            let of = std::fs::metadata(path).unwrap();
            (of.uid(), of.gid())
        };
        let volume = VolumeFolder {
            path: path.to_str().unwrap().to_owned(),
            owner: (33, 34),
            ..VolumeFolder::default()
        };
        make_volume(&Subject::default(), &volume).unwrap();
        assert_eq!((owner(&path), owner(room.path())), ((33, 34), me()));
        let file = path.join("file");
        std::fs::write(&file, "").unwrap();
        make_volume(&Subject::default(), &volume).unwrap();
        assert_eq!(owner(&file), me());
        make_volume(&Subject::default(), &VolumeFolder { give: true, ..volume }).unwrap();
        assert_eq!(owner(&file), (33, 34));
    }

    #[test]
    fn devices_are_the_guests() {
        let device = |source: &str, optional| DeviceNode {
            source: source.into(),
            destination: "/dev/other".into(),
            permissions: "r".into(),
            optional,
        };
        let mut fill = Fill::default();
        add_device(&device("/dev/null", false), &mut fill).unwrap();
        add_device(&device("/dev/not-there", true), &mut fill).unwrap();
        let rule = r#"{"allow":true,"type":"c","major":1,"minor":3,"access":"r"}"#;
        assert_eq!(fill.device_rules, [rule]);
        assert!(fill.devices[0].starts_with(r#"{"path":"/dev/other","type":"c","major":1"#));
        assert!(add_device(&device("/dev/not-there", false), &mut fill).is_err());
        assert!(add_device(&device("/etc/passwd", false), &mut fill).is_err());
    }

    #[test]
    fn secrets_are_files_or_variables() {
        let room = tempfile::tempdir().unwrap();
        let source = room.path().join("source");
        std::fs::write(&source, "hush").unwrap();
        let source = source.to_str().unwrap().to_owned();
        let file = SecretTarget::File { name: "key".into(), owner: me(), mode: 0o440 };
        let variable = SecretTarget::Variable("KEY".into());
        let preparation = Preparation {
            secrets: [file, variable]
                .map(|target| Secret { source: source.clone(), target })
                .to_vec(),
            root: me(),
            ..Preparation::default()
        };
        for _ in 0..2 {
            let fill = prepare_in(&preparation, room.path()).unwrap();
            assert_eq!(fill.variables, [("KEY".to_owned(), "hush".to_owned())]);
        }
        let path = room.path().join("secrets/key");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "hush");
        // The folder is the container's user's, who may leave a link there for the next start.
        let precious = room.path().join("precious");
        std::fs::write(&precious, "precious").unwrap();
        std::fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink(&precious, &path).unwrap();
        prepare_in(&preparation, room.path()).unwrap();
        assert_eq!(std::fs::read_to_string(&precious).unwrap(), "precious");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "hush");
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o440);
    }

    #[test]
    fn another_containers_namespace_is_found_by_cruns_note() {
        let room = tempfile::tempdir().unwrap();
        std::fs::create_dir(room.path().join("other")).unwrap();
        std::fs::write(room.path().join("other/status"), "{\"pid\": 42,\"x\":1}").unwrap();
        assert_eq!(pid_of(room.path(), "other").unwrap(), 42);
        assert!(pid_of(room.path(), "nobody").is_err());
        assert!(!is_up(room.path(), "nobody"));
        let of_me = format!("{{\"pid\": {}}}", std::process::id());
        std::fs::write(room.path().join("other/status"), of_me).unwrap();
        assert!(is_up(room.path(), "other"));
    }
}
