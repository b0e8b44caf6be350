//! `.build` files for the engine crun: what they make is made with the appliance, by Podman or
//! Buildah of this machine, as with `containerfile` of an `[image."..."]` table.

use super::build_options;
use super::image::{AT_BUILD, is_of, lines, refused, unit_name, without};
use crate::config::{Config, FILE, Image};
use crate::finding::Finding;
use crate::units::definition::Definition;
use crate::units::files::{Files, Place};
use crate::units::manager::Manager;
use crate::units::syntax::{Assignment, shorten};
use crate::units::{Architecture, Input};
use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

/// Every key of `[Build]` up to Podman 5.8 that does not matter, and why.
const HARMLESS: [(&str, &str); 7] = [
    ("Annotation", "it only describes the image"),
    ("AuthFile", "the build asks who `podman login` of this machine is"),
    ("ForceRM", AT_BUILD),
    ("Pull", AT_BUILD),
    ("Retry", AT_BUILD),
    ("RetryDelay", AT_BUILD),
    ("TLSVerify", "the build trusts whom this machine trusts"),
];
/// Those that Podman alone can do, or nobody has asked for.
const REFUSED: [&str; 3] = ["ContainersConfModule", "GlobalArgs", "Variant"];
/// Those that count, beside the options.
const HONOURED: [&str; 5] = ["Arch", "File", "ImageTag", "ServiceName", "SetWorkingDirectory"];

/// The images that the `.build` files of an appliance's folder make, by their names. What is wrong
/// with a file is said when the units are compiled.
pub fn images(folder: &Path, config: &Config) -> BTreeMap<String, Image> {
    let input = &Input {
        folder,
        packaged: &[],
        links: &[],
        name: "",
        config,
        config_source: None,
        passwd: "",
        group: "",
        architecture: Architecture::X86_64,
        has_file: None,
        generator: None,
    };
    let users = (0u16..).zip(config.users.clone());
    let managers = users.map(|(index, user)| Manager::User(index, user));
    let mut images = BTreeMap::new();
    for manager in std::iter::once(Manager::System).chain(managers) {
        let files = Files::read(input, &manager, &mut vec![]);
        for (file, entry) in &files.quadlets {
            if !file.ends_with(".build") || entry.place != Place::Folder {
                continue;
            }
            let unit = Definition::quadlet_file(file, entry, &files, &mut vec![]);
            let (Ok(recipe), Ok(options)) = (Recipe::of(&unit, folder), build_options::of(&unit))
            else {
                continue;
            };
            let Recipe { name, file, context } = recipe;
            let (containerfile, context) = (Some(file), Some(context));
            images.insert(name, Image { containerfile, context, options, ..Image::default() });
        }
    }
    images
}

/// Checks a `.build`.
pub(crate) fn check(
    unit: &Definition,
    config: &Config,
    guest: Architecture,
    folder: &Path,
    findings: &mut Vec<Finding>,
) {
    let name = last(unit, "Build", "ImageTag").map(text).unwrap_or_default();
    if config.image.get(name).is_some_and(|image| image.context.is_none()) {
        let message =
            format!("`{}` is not read: {FILE} says how `{name}` is made", unit_name(unit));
        findings.push(Finding::note(unit.section_span("Build"), message));
        return;
    }
    let known: Vec<&'static str> =
        HARMLESS.iter().map(|(key, _)| *key).chain(REFUSED).chain(HONOURED).collect();
    let known: Vec<&'static str> = known.into_iter().chain(build_options::keys()).collect();
    for line in lines(unit, "Build", findings) {
        let key = line.key.as_str();
        match HARMLESS.iter().find(|(known, _)| *known == key) {
            _ if text(line).is_empty() => {}
            Some((_, why)) => {
                let message = format!("`{key}=` has no effect: {why}");
                findings.push(Finding::note(line.key_span.clone(), message));
            }
            None if key == "Arch" && !is_of(guest, text(line)) => findings.push(
                Finding::error(
                    line.value.span(),
                    format!("`Arch={}` is not what the guest runs", shorten(text(line))),
                )
                .label("refused by the engine crun")
                .help("take the line out: images are built for the guest's architecture"),
            ),
            None if HONOURED.contains(&key) || build_options::keys().any(|it| it == key) => {}
            None => findings.push(refused(line, "Build", &known)),
        }
    }
    findings.extend(Recipe::of(unit, folder).err());
    findings.extend(build_options::of(unit).err());
}

/// What is made, and of what. Paths are from the appliance's folder, if they lie in it.
struct Recipe {
    name: String,
    file: PathBuf,
    context: PathBuf,
}

impl Recipe {
    fn of(unit: &Definition, folder: &Path) -> Result<Self, Finding> {
        let tag = last(unit, "Build", "ImageTag");
        let tag = tag.ok_or_else(|| without(unit, "Build", "ImageTag"))?;
        let file = last(unit, "Build", "File");
        let place = last(unit, "Service", "WorkingDirectory")
            .or_else(|| last(unit, "Build", "SetWorkingDirectory"));
        for line in [Some(tag), file, place].into_iter().flatten() {
            if text(line).contains("://") || text(line).contains('%') {
                return Err(of_podman(line, "expected a path or name without specifiers"));
            }
        }
        let own = unit.sources.first().map(|source| PathBuf::from(&source.path));
        let own = own.as_deref().and_then(Path::parent).unwrap_or(folder).to_owned();
        let named = file.map(|line| Path::new(text(line)));
        let context = match (place.map(text), named) {
            (Some("unit"), _) => own.clone(),
            (Some("file"), Some(file)) => own.join(file).parent().unwrap_or(&own).to_owned(),
            (Some(path), _) if path != "file" => own.join(path),
            (None, Some(file)) if file.is_absolute() => file.parent().unwrap_or(file).to_owned(),
            _ => {
                let at = place
                    .or(file)
                    .map_or_else(|| unit.section_span("Build"), |line| line.value.span());
                return Err(Finding::error(at, "nothing says what is copied into the image")
                    .label("no context")
                    .help("add `SetWorkingDirectory=unit` for the folder of this file"));
            }
        };
        let candidates = match named {
            Some(file) => [context.join(file), own.join(file)],
            None => [context.join("Containerfile"), context.join("Dockerfile")],
        };
        let Some(found) = candidates.iter().find(|path| path.is_file()) else {
            let at =
                file.or(place).map_or_else(|| unit.section_span("Build"), |line| line.value.span());
            let expected = &candidates[usize::from(named.is_some())];
            let message = format!("there is no {}", within(expected, folder).display());
            return Err(Finding::error(at, message)
                .label("expected a Containerfile of this machine")
                .help(format!("put it there, or describe the image in {FILE}")));
        };
        let (file, context) = (within(found, folder), within(&context, folder));
        Ok(Self { name: text(tag).to_owned(), file, context })
    }
}

fn last<'u>(unit: &'u Definition, section: &str, key: &str) -> Option<&'u Assignment> {
    let mut lines = unit.assignments.iter().filter(|line| line.section == section);
    let line = match key {
        // The first names the image.
        "ImageTag" => lines.find(|line| line.key == key && !text(line).is_empty()),
        _ => lines.rfind(|line| line.key == key),
    };
    line.filter(|line| !text(line).is_empty())
}

pub(super) fn text(line: &Assignment) -> &str {
    line.value.text.trim_matches('"')
}

/// A value that nobody here can know.
pub(super) fn of_podman(line: &Assignment, expected: &str) -> Finding {
    let message = format!("`{}={}` is only known to Podman", line.key, shorten(text(line)));
    Finding::error(line.value.span(), message).label(expected).help(super::USE_PODMAN)
}

/// From the appliance's folder, if it lies in it.
fn within(path: &Path, folder: &Path) -> PathBuf {
    let relative = path.strip_prefix(folder).unwrap_or(path);
    relative.components().filter(|part| *part != Component::CurDir).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{create_dir, write};

    /// The paths of the Containerfile and of its context, if it is one.
    fn of(unit: &str) -> Option<(String, String)> {
        let folder = tempfile::tempdir().unwrap();
        for name in ["a", "b"] {
            create_dir(folder.path().join(name)).unwrap();
            write(folder.path().join(name).join("Containerfile"), "FROM scratch\n").unwrap();
        }
        write(folder.path().join("Dockerfile"), "FROM scratch\n").unwrap();
        let unit = unit.replace("HERE", &folder.path().display().to_string());
        let text = format!("[Build]\nImageTag=localhost/x:1\nImageTag=other\n{unit}\n");
        write(folder.path().join("x.build"), text).unwrap();
        let images = images(folder.path(), &Config::default());
        let image = images.get("localhost/x:1")?;
        let show = |path: &Option<PathBuf>| path.as_ref().unwrap().display().to_string();
        Some((show(&image.containerfile), show(&image.context)))
    }

    #[test]
    fn a_builder_is_told_what_podman_would_tell_it() {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path().join("Containerfile"), "FROM scratch\n").unwrap();
        let of = |lines: &str| {
            let text = format!("[Build]\nImageTag=x\nSetWorkingDirectory=unit\n{lines}\n");
            write(folder.path().join("x.build"), text).unwrap();
            images(folder.path(), &Config::default()).remove("x").map(|image| image.options)
        };
        for (lines, options) in [
            ("", &[][..]),
            ("Target=a\nTarget=b", &["--target=b"]),
            ("Target=a\nTarget=", &[]),
            (
                "DNS=10.0.0.1\nDNS=\nDNS=10.0.0.2\nDNS=10.0.0.3",
                &["--dns=10.0.0.2", "--dns=10.0.0.3"],
            ),
            (
                "BuildArg=A=1 \"B=2 3\"\nBuildArg=C",
                &["--build-arg=A=1", "--build-arg=B=2 3", "--build-arg=C"],
            ),
            ("PodmanArgs=--squash\nEnvironment=A=b", &["--env=A=b", "--squash"]),
            (
                "Secret=id=a,src=b\nVolume=/srv:/srv:ro",
                &["--secret=id=a,src=b", "--volume=/srv:/srv:ro"],
            ),
            ("Network=none\nGroupAdd=tape", &["--group-add=tape", "--network=none"]),
        ] {
            let options: Vec<String> = options.iter().map(ToString::to_string).collect();
            assert_eq!(of(lines), Some(options), "{lines}");
        }
        for lines in ["Target=%n", "BuildArg=A=$A", "Network=a.network", "Volume=a.volume:/a"] {
            assert_eq!(of(lines), None, "{lines}");
        }
    }

    #[test]
    fn a_build_is_found_as_podman_finds_it() {
        for (unit, file, context) in [
            ("SetWorkingDirectory=unit", "Dockerfile", ""),
            ("File=a/Containerfile\nSetWorkingDirectory=unit", "a/Containerfile", ""),
            ("File=./a/Containerfile\nSetWorkingDirectory=file", "a/Containerfile", "a"),
            ("SetWorkingDirectory=./b", "b/Containerfile", "b"),
            ("File=Containerfile\nSetWorkingDirectory=HERE/b", "b/Containerfile", "b"),
            ("File=a/Containerfile\nSetWorkingDirectory=b", "a/Containerfile", "b"),
            ("File=HERE/a/Containerfile", "a/Containerfile", "a"),
            (
                "File=HERE/a/Containerfile\n[Service]\nWorkingDirectory=HERE/b",
                "a/Containerfile",
                "b",
            ),
        ] {
            assert_eq!(of(unit), Some((file.into(), context.into())), "{unit}");
        }
        for unit in [
            "",
            "File=a/Containerfile",
            "SetWorkingDirectory=file",
            "File=https://example.com/Containerfile\nSetWorkingDirectory=unit",
            "SetWorkingDirectory=a/none",
            "SetWorkingDirectory=%h",
        ] {
            assert_eq!(of(unit), None, "{unit}");
        }
    }
}
