//! Images that only other programs of this machine can give: those in containers-storage(5), and
//! those that a Containerfile makes.
//!
//! All are taken as a docker-archive, whose layers are not compressed: the same image gives the
//! same digest, whoever compresses how.

use super::manifest::Digest;
use super::{Import, SourceError, archive};
use crate::terminal;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const STORAGE: [&str; 2] = ["skopeo", "podman"];
const BUILDERS: [&str; 2] = ["podman", "buildah"];

/// `containers-storage:NAME`
pub(super) fn storage(import: &Import<'_>, name: &str) -> Result<Digest, SourceError> {
    let what = format!("take image containers-storage:{name}");
    let Some((program, path)) = STORAGE.iter().find_map(|name| Some((*name, find(name)?))) else {
        return Err(SourceError::NoProgram { what, programs: &STORAGE });
    };
    let scratch = import.cache.scratch()?;
    let file = scratch.path().join("image.tar");
    let arguments: Vec<OsString> = match program {
        "skopeo" => vec![
            "copy".into(),
            "--quiet".into(),
            format!("containers-storage:{name}").into(),
            with("docker-archive:", &file),
        ],
        _ => vec![
            "save".into(),
            "--quiet".into(),
            "--format".into(),
            "docker-archive".into(),
            "--output".into(),
            file.clone().into(),
            name.into(),
        ],
    };
    run(&what, program, &path, &arguments, None)?;
    archive::docker_archive(import, &file, None)
}

/// A Containerfile, the folder that its COPY copies from, and options. Paths in these are from that
/// folder, as for a service that Quadlet makes.
pub(super) fn containerfile(
    import: &Import<'_>,
    file: &Path,
    context: &Path,
    options: &[String],
) -> Result<Digest, SourceError> {
    let what = format!("build {}", file.display());
    let Some((program, path)) = BUILDERS.iter().find_map(|name| Some((*name, find(name)?))) else {
        return Err(SourceError::NoProgram { what, programs: &BUILDERS });
    };
    let scratch = import.cache.scratch()?;
    let (id_file, archive) = (scratch.path().join("id"), scratch.path().join("image.tar"));
    let whole = |path: &Path| std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let mut build: Vec<OsString> = vec![
        "build".into(),
        "--platform".into(),
        format!("linux/{}", import.architecture).into(),
        // The same files give the same image at any time.
        "--timestamp".into(),
        "1".into(),
        "--iidfile".into(),
        id_file.clone().into(),
        "--file".into(),
        whole(file).into(),
    ];
    build.extend(options.iter().map(OsString::from));
    build.push(whole(context).into());
    run(&what, program, &path, &build, Some(context))?;
    let id = String::from_utf8_lossy(&super::read(&id_file)?).trim().to_owned();
    let save: Vec<OsString> = match program {
        "podman" => vec![
            "save".into(),
            "--quiet".into(),
            "--format".into(),
            "docker-archive".into(),
            "--output".into(),
            archive.clone().into(),
            id.into(),
        ],
        _ => vec!["push".into(), "--quiet".into(), id.into(), with("docker-archive:", &archive)],
    };
    run(&what, program, &path, &save, None)?;
    super::archive::docker_archive(import, &archive, None)
}

fn with(prefix: &str, path: &Path) -> OsString {
    let mut text = OsString::from(prefix);
    text.push(path);
    text
}

/// A program in PATH.
fn find(name: &str) -> Option<PathBuf> {
    let folders = std::env::var_os("PATH")?;
    std::env::split_paths(&folders).map(|folder| folder.join(name)).find(|path| path.is_file())
}

/// What it says goes to stderr; it is asked no questions. `folder` is where it runs, if not here.
fn run(
    what: &str,
    name: &str,
    path: &Path,
    arguments: &[OsString],
    folder: Option<&Path>,
) -> Result<(), SourceError> {
    let shown: Vec<_> = arguments.iter().map(|argument| argument.to_string_lossy()).collect();
    terminal::note(format!("{name} {}", shown.join(" ")));
    let failed =
        |how: String| SourceError::Program { what: what.into(), program: name.into(), how };
    let status = Command::new(path)
        .current_dir(folder.unwrap_or(Path::new(".")))
        .args(arguments.iter().map(OsStr::new))
        .stdin(Stdio::null())
        .stdout(std::io::stderr())
        .status()
        .map_err(|error| failed(format!("cannot be run: {error}")))?;
    match status.success() {
        true => Ok(()),
        false => Err(failed(format!("failed ({status})"))),
    }
}
