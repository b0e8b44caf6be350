//! `Tmpfs=`, `Volume=`, `AddDevice=`.

use super::reader::Reader;
use crate::container::{Device, Volume, VolumeSource};
use crate::units::quoting::Escapes;
use crate::units::value::{self, Expected};

impl Reader<'_, '_> {
    /// `/path[:option,option]`
    pub(super) fn tmpfs(&mut self) -> Vec<(String, Vec<String>)> {
        let mut mounts = vec![];
        for text in self.values("Tmpfs") {
            let (path, options) = text.text.split_once(':').unwrap_or((&text.text, ""));
            match value::path(path) {
                Ok(path) => mounts.push((path, comma_list(options))),
                Err(expected) => self.keys.bad(text.assignment, &expected),
            }
        }
        mounts
    }

    /// `[source:]destination[:option,option]`
    pub(super) fn volumes(&mut self) -> Vec<Volume> {
        let mut volumes = vec![];
        for text in self.values("Volume") {
            let mut parts = text.text.splitn(3, ':');
            let first = parts.next().unwrap_or_default();
            let (source, destination) = match parts.next() {
                Some(destination) => (first, destination),
                None => ("", first),
            };
            let options = comma_list(parts.next().unwrap_or_default());
            let source = match source {
                "" => VolumeSource::Anonymous,
                unit if unit.ends_with(".volume") => VolumeSource::Unit(unit.into()),
                path if path.starts_with('/') => match value::path(path) {
                    Ok(path) => VolumeSource::Path(path),
                    Err(expected) => {
                        self.keys.bad(text.assignment, &expected);
                        continue;
                    }
                },
                path if path.starts_with('.') => VolumeSource::Path(path.into()),
                name if is_name(name) => VolumeSource::Name(name.into()),
                _ => {
                    let expected = "`/source:/destination`, or `name:/destination`";
                    self.keys.bad(text.assignment, &Expected::Other(expected));
                    continue;
                }
            };
            match value::path(destination) {
                Ok(destination) => {
                    let span = text.assignment.value.span();
                    volumes.push(Volume { source, destination, options, span });
                }
                Err(expected) => self.keys.bad(text.assignment, &expected),
            }
        }
        volumes
    }

    /// `[-]host[:container[:permissions]]`
    pub(super) fn devices(&mut self) -> Vec<Device> {
        let mut devices = vec![];
        for (line, words) in self.words("AddDevice", Escapes::Literal) {
            for word in words {
                let (optional, word) = match word.strip_prefix('-') {
                    Some(rest) => (true, rest),
                    None => (false, word.as_str()),
                };
                let parts: Vec<&str> = word.split(':').collect();
                let are_permissions = |text: &str| {
                    !text.is_empty() && text.chars().all(|letter| "rwm".contains(letter))
                };
                let parsed = match parts[..] {
                    [source] => Some((source, source, "rwm")),
                    [source, other] if are_permissions(other) => Some((source, source, other)),
                    [source, destination] => Some((source, destination, "rwm")),
                    [source, destination, permissions] if are_permissions(permissions) => {
                        Some((source, destination, permissions))
                    }
                    _ => None,
                };
                let paths = parsed.and_then(|(source, destination, permissions)| {
                    let source = value::path(source).ok()?;
                    Some((source, value::path(destination).ok()?, permissions.to_owned()))
                });
                match paths {
                    Some((source, destination, permissions)) => {
                        let span = line.value.span();
                        let device = Device { source, destination, permissions, optional, span };
                        devices.push(device);
                    }
                    None => {
                        let expected = "`/dev/NAME[:/dev/NAME][:rwm]`";
                        self.keys.bad(line, &Expected::Other(expected));
                    }
                }
            }
        }
        devices
    }
}

/// Podman's rule for names of volumes.
fn is_name(name: &str) -> bool {
    let inner = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
    name.starts_with(|c: char| c.is_ascii_alphanumeric()) && name.chars().all(inner)
}

fn comma_list(text: &str) -> Vec<String> {
    text.split(',').filter(|part| !part.is_empty()).map(str::to_owned).collect()
}
