//! `LoadCredential=` and `SetCredential=`: one directory for each unit, for its user to read and
//! nobody to write, which all commands of a start share.

use super::call::Subject;
use super::error::{At, Error, Failed, Stage};
use super::identity::AsOwner;
use super::sys;
use crate::manifest::{Credential, CredentialSource, User};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// As many bytes as systemd takes of one.
const MOST: u64 = 1024 * 1024;

/// Where a unit's credentials are.
pub(super) fn directory(subject: &Subject) -> PathBuf {
    // Of a lingering user, too, below what is root's: nobody else may put links there.
    let base = match subject.owner() {
        Some(_) => "/run/rouse/credentials",
        None => "/run/credentials",
    };
    Path::new(base).join(subject.slot())
}

/// Makes them, unless an earlier command has. The directory is for CREDENTIALS_DIRECTORY.
pub(super) fn make(
    subject: &Subject,
    credentials: &[Credential],
    user: Option<&User>,
) -> Result<Option<PathBuf>, Failed> {
    if credentials.is_empty() {
        return Ok(None);
    }
    let path = directory(subject);
    if !path.is_dir() {
        fill(subject, &path, credentials, user)?;
    }
    Ok(Some(path))
}

/// Makes the directory under another name, so that it is whole or not there.
fn fill(
    subject: &Subject,
    path: &Path,
    credentials: &[Credential],
    user: Option<&User>,
) -> Result<(), Failed> {
    let unfinished = path.with_extension(format!("{}.new", std::process::id()));
    // One that was killed may have had our number.
    let _ = std::fs::remove_dir_all(&unfinished);
    let filled = fill_as(subject, path, &unfinished, credentials, user);
    if filled.is_err() {
        let _ = std::fs::remove_dir_all(&unfinished);
    }
    filled
}

fn fill_as(
    subject: &Subject,
    path: &Path,
    unfinished: &Path,
    credentials: &[Credential],
    user: Option<&User>,
) -> Result<(), Failed> {
    let made = (|| {
        if let Some(parent) = path.parent() {
            std::fs::DirBuilder::new().recursive(true).mode(0o755).create(parent)?;
        }
        std::fs::DirBuilder::new().mode(0o700).create(unfinished)
    })();
    let failed = || format!("make {}", path.display());
    made.at(Stage::Credentials, failed)?;
    for credential in credentials {
        let name = &credential.name;
        if name.contains('/') || matches!(name.as_str(), "" | "." | "..") {
            let error = io::Error::from(io::ErrorKind::InvalidFilename);
            return Err(
                Error::Stage(Stage::Credentials, format!("name one {name:?}"), error).into()
            );
        }
        let at = unfinished.join(name);
        let given = credentials
            .iter()
            .any(|other| other.name == *name && matches!(other.source, CredentialSource::Text(_)));
        match &credential.source {
            CredentialSource::Text(_) if at.exists() => {}
            CredentialSource::Text(text) => {
                write(&at, text, user).at(Stage::Credentials, || format!("write {name}"))?;
            }
            CredentialSource::Path(source) => match read(subject, Path::new(source)) {
                Err(error) if given && error.kind() == io::ErrorKind::NotFound => {}
                read => read
                    .and_then(|text| write(&at, &text, user))
                    .at(Stage::Credentials, || format!("load {name} from {source}"))?,
            },
        }
    }
    let finished = (|| {
        std::fs::set_permissions(unfinished, std::fs::Permissions::from_mode(0o500))?;
        give(unfinished, user)?;
        match std::fs::rename(unfinished, path) {
            // Another command of the unit was faster.
            Err(_) if path.is_dir() => std::fs::remove_dir_all(unfinished),
            renamed => renamed,
        }
    })();
    finished.at(Stage::Credentials, failed)
}

/// A file, or what a socket's other side says.
fn read(subject: &Subject, path: &Path) -> io::Result<Vec<u8>> {
    let _as_owner = AsOwner::of(subject);
    let mut text = vec![];
    match std::fs::File::open(path) {
        Err(error) if error.raw_os_error() == Some(libc::ENXIO) => {
            let socket = std::os::unix::net::UnixStream::connect(path)?;
            socket.take(MOST + 1).read_to_end(&mut text)?;
        }
        file => {
            file?.take(MOST + 1).read_to_end(&mut text)?;
        }
    }
    match text.len() as u64 > MOST {
        true => Err(io::ErrorKind::FileTooLarge.into()),
        false => Ok(text),
    }
}

fn write(path: &Path, text: &[u8], user: Option<&User>) -> io::Result<()> {
    // Of two of the same name the later one counts.
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create_new(true).mode(0o400).open(path)?.write_all(text)?;
    give(path, user)
}

fn give(path: &Path, user: Option<&User>) -> io::Result<()> {
    match user {
        Some(user) => std::os::unix::fs::chown(path, Some(user.uid), Some(user.gid)),
        None => Ok(()),
    }
}

/// Removes them, when the unit has stopped.
pub(super) fn remove(subject: &Subject) -> io::Result<()> {
    sys::not_found_is_fine(std::fs::remove_dir_all(directory(subject)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(name: &str, text: &str) -> Credential {
        Credential { name: name.into(), source: CredentialSource::Text(text.into()) }
    }

    fn path(name: &str, path: &Path) -> Credential {
        let source = CredentialSource::Path(path.to_str().unwrap().into());
        Credential { name: name.into(), source }
    }

    #[test]
    fn loaded_ones_are_stronger_and_missing_ones_fall_back() {
        let directory = tempfile::tempdir().unwrap();
        let source = directory.path().join("source");
        std::fs::write(&source, "loaded").unwrap();
        let missing = directory.path().join("missing");
        let made = directory.path().join("x/made");
        let all = [
            text("a", "set"),
            path("a", &source),
            path("b", &missing),
            text("b", "fallback"),
            path("c", &source),
            text("c", "unused"),
        ];
        let subject = Subject::default();
        let fill = |name: &str, all: &[Credential]| {
            fill(&subject, &directory.path().join(name), all, None)
        };
        fill("x/made", &all).unwrap();
        let read = |name: &str| std::fs::read_to_string(made.join(name)).unwrap();
        assert_eq!(["a", "b", "c"].map(read), ["loaded", "fallback", "loaded"]);
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&made), mode(&made.join("a"))), (0o500, 0o400));
        let error = fill("y", &[path("b", &missing)]).unwrap_err();
        assert_eq!(error.exit_code(), 243);
        let left = std::fs::read_dir(directory.path()).unwrap().count();
        assert_eq!(left, 2, "nothing but the source and x");
        assert!(fill("z", &[text("../z", "")]).is_err());
    }
}
