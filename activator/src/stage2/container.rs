//! The bundle of a container of engine crun.
//!
//! 1. makes the bundle directory and what else the container takes ([`prepare`](super::prepare)),
//!    and config.json from the template ([`template`]);
//! 2. removes what a predecessor left in crun's state directory: crun that was killed could not;
//! 3. mounts the root of a container that may write to it ([`overlay`](super::overlay)).

use super::call::Subject;
use super::environment::Environment;
use super::error::{Error, Failed};
use super::{overlay, prepare, template};
use crate::child;
use crate::manifest::Container;
use rustix::fs::{self, Mode, OFlags};
use rustix::io::Errno;
use std::ffi::OsStr;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// What was handed over by the LISTEN_FDS protocol, sd_listen_fds(3). Never none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listen {
    /// Number of fds, from 3.
    pub count: u32,
    /// Their names with colons between them.
    pub names: String,
}

/// Where things lie; the defaults are [`Container::BUNDLES`] and [`Container::STATE`].
#[derive(Debug, Clone)]
pub struct Places {
    /// Parent of the bundle directories.
    pub bundles: PathBuf,
    /// crun's `--root`.
    pub state: PathBuf,
}

impl Default for Places {
    fn default() -> Self {
        Self { bundles: Container::BUNDLES.into(), state: Container::STATE.into() }
    }
}

/// The fds that are meant for this very process.
pub fn listen_from_environment() -> Option<Listen> {
    let number = |name| std::env::var(name).ok()?.parse::<u32>().ok();
    if number("LISTEN_PID")? != std::process::id() {
        return None;
    }
    let count = number("LISTEN_FDS").filter(|count| *count > 0)?;
    Some(Listen { count, names: std::env::var("LISTEN_FDNAMES").unwrap_or_default() })
}

/// Makes the bundle and clears crun's state of it; `crun` is the program that does the latter.
pub(super) fn make(
    subject: &Subject,
    container: &Container,
    environment: &Environment,
    listen: Option<&Listen>,
    crun: &OsStr,
    places: &Places,
) -> Result<(), Failed> {
    let id = &container.id;
    if matches!(id.as_str(), "" | "." | "..") || id.contains(['/', '\0']) {
        return Err(Error::Id(id.clone()).into());
    }
    let bundle = places.bundles.join(id);
    std::fs::DirBuilder::new()
        .recursive(true)
        .create(&bundle)
        .map_err(|error| Failed::file("make", &bundle, error))?;
    // In the user namespace of a user's container crun is no longer root, and goes there. Whatever
    // UMask= says; what is in it is root's alone.
    for path in [&places.bundles, &bundle] {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o711))
            .map_err(|error| Failed::file("open", path, error))?;
    }
    let preparation = &container.preparation;
    let fill = prepare::prepare(subject, preparation, environment, &bundle, &places.state)?;
    let text = std::fs::read_to_string(&container.template)
        .map_err(|error| Failed::file("read", &container.template, error))?;
    let text = template::fill(&text, listen, &fill)
        .map_err(|error| Error::Template(container.template.clone(), error))?;
    let config = bundle.join("config.json");
    write_private(&config, &text).map_err(|error| Failed::file("write", config, error))?;
    clear_state(id, crun, &places.state)?;
    match &container.writable {
        Some(image) => overlay::mount_root(Path::new(image), &bundle),
        None => Ok(()),
    }
}

fn write_private(path: &Path, text: &str) -> io::Result<()> {
    let mut options = std::fs::OpenOptions::new();
    let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(path)?;
    io::Write::write_all(&mut file, text.as_bytes())
}

/// Removes crun's record of a container whose processes are gone.
pub(super) fn forget(id: &str, crun: &OsStr) -> Result<(), Failed> {
    clear_state(id, crun, &Places::default().state)
}

/// A crun that was killed leaves its state directory, and a container that may still run.
fn clear_state(id: &str, crun: &OsStr, root: &Path) -> Result<(), Failed> {
    let state = root.join(id);
    if !state.exists() {
        return Ok(());
    }
    // Its own complaint is in the log already; what counts is whether the directory is gone.
    delete(id, crun, root).map_err(|errno| Error::Exec(crun.to_owned(), errno.into()))?;
    match std::fs::remove_dir_all(&state) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(Failed::file("remove", state, error))
        }
        _ => Ok(()),
    }
}

/// Has crun delete a container, and waits for it.
fn delete(id: &str, crun: &OsStr, root: &Path) -> Result<(), Errno> {
    let words = [crun, "--root".as_ref(), root.as_ref(), "delete".as_ref(), "--force".as_ref()];
    let arguments = child::texts(words.into_iter().chain([OsStr::new(id)]))?;
    // crun reads LISTEN_FDS without looking at LISTEN_PID, so a stale one must not reach it.
    let environment = child::environment(&["LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES"]);
    let null = fs::open("/dev/null", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    let streams = [Some(null.as_fd()), None, None];
    let pid = child::spawn(&arguments[0], &arguments, &environment, streams)?;
    child::wait(pid);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exit;
    use crate::manifest::Preparation;
    use std::ffi::OsString;

    struct Room {
        dir: tempfile::TempDir,
        places: Places,
        container: Container,
    }

    impl Room {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let template = dir.path().join("template.json");
            std::fs::write(&template, r#"{"process":{"env":["LISTEN_FDS=@LISTEN_FDS@"]}}"#)
                .unwrap();
            Self {
                places: Places {
                    bundles: dir.path().join("bundles"),
                    state: dir.path().join("crun"),
                },
                container: Container {
                    id: "systemd-echo".into(),
                    template: template.to_str().unwrap().into(),
                    digest: None,
                    preparation: Preparation::default(),
                    writable: None,
                },
                dir,
            }
        }

        fn program(&self, script: &str) -> OsString {
            let path = self.dir.path().join("crun.sh");
            std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
            path.into()
        }

        fn prepare(&self, crun: &OsStr) -> Result<(), Failed> {
            let listen = Listen { count: 2, names: "a:b".into() };
            let environment = Environment::default();
            let subject = Subject::default();
            make(&subject, &self.container, &environment, Some(&listen), crun, &self.places)
        }
    }

    #[test]
    fn the_bundle_is_private_and_filled_in() {
        let room = Room::new();
        // Twice: the second instance finds the first one's bundle.
        for _ in 0..2 {
            room.prepare(OsStr::new("/nonexistent/crun")).unwrap();
        }
        let bundle = room.places.bundles.join("systemd-echo");
        let text = std::fs::read_to_string(bundle.join("config.json")).unwrap();
        assert_eq!(text, r#"{"process":{"env":["LISTEN_FDS=2"]}}"#);
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&bundle), mode(&bundle.join("config.json"))), (0o711, 0o600));
    }

    #[test]
    fn a_killed_predecessor_is_removed() {
        let room = Room::new();
        let state = room.places.state.join("systemd-echo");
        std::fs::create_dir_all(&state).unwrap();
        std::fs::write(state.join("status"), "{}").unwrap();
        let seen = room.dir.path().join("seen");
        let script = format!("echo \"$* [$LISTEN_FDS]\" >{}; exit 1", seen.display());
        room.prepare(&room.program(&script)).unwrap();
        let root = room.places.state.display().to_string();
        let expected = format!("--root {root} delete --force systemd-echo []\n");
        assert_eq!(std::fs::read_to_string(seen).unwrap(), expected);
        assert!(!state.exists());
    }

    #[test]
    fn an_id_never_leaves_its_directory() {
        let mut room = Room::new();
        for id in ["", ".", "..", "../x", "a/b"] {
            room.container.id = id.into();
            let error = room.prepare(OsStr::new("/bin/true")).unwrap_err();
            assert!(matches!(&*error, Error::Id(found) if found == id), "{}", *error);
            assert_eq!(error.exit_code(), exit::DATA);
        }
    }

    #[test]
    fn a_missing_template_is_named() {
        let mut room = Room::new();
        room.container.template = "/nonexistent/config.json".into();
        let error = room.prepare(OsStr::new("/bin/true")).unwrap_err();
        assert_eq!(error.exit_code(), exit::SYSTEM);
        assert!(
            error.to_string().starts_with("cannot read /nonexistent/config.json"),
            "{}",
            *error
        );
    }
}
