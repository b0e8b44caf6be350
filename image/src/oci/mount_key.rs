//! `Mount=type=...,source=...,destination=...`, podman-run(1).

use super::mount::trimmed;
use super::pattern;
use crate::container::{Volume, VolumeSource};
use crate::tree::Tree;

/// One `Mount=`.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)] // the options of podman-run(1), in mount(8)'s words
pub(super) enum Parsed {
    Bind {
        source: String,
        destination: String,
        options: Vec<String>,
    },
    Glob {
        source: String,
        destination: String,
        options: Vec<String>,
    },
    Tmpfs {
        destination: String,
        options: Vec<String>,
    },
    /// devpts, ramfs
    Kernel {
        kind: &'static str,
        destination: String,
        options: Vec<String>,
    },
    Image {
        reference: String,
        destination: String,
    },
    Volume(VolumeMount),
}

/// `type=volume`; it becomes a [`Volume`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct VolumeMount {
    /// Its name, or that of its `.volume`; None if it has none.
    pub(super) name: Option<String>,
    /// Absolute path in the container.
    pub(super) destination: String,
    /// As in `Volume=`.
    pub(super) options: Vec<String>,
}

impl Parsed {
    /// Where it is mounted in the container.
    pub(super) fn destination(&self) -> &str {
        match self {
            Self::Bind { destination, .. }
            | Self::Glob { destination, .. }
            | Self::Tmpfs { destination, .. }
            | Self::Kernel { destination, .. }
            | Self::Image { destination, .. }
            | Self::Volume(VolumeMount { destination, .. }) => destination,
        }
    }
}

impl VolumeMount {
    /// As a `Volume=` at that place of the file would be.
    pub(super) fn to_volume(&self, span: crate::finding::Span) -> Volume {
        let source = match self.name.clone() {
            None => VolumeSource::Anonymous,
            Some(unit) if unit.ends_with(".volume") => VolumeSource::Unit(unit),
            Some(name) => VolumeSource::Name(name),
        };
        Volume {
            source,
            destination: self.destination.clone(),
            options: self.options.clone(),
            span,
        }
    }
}

/// Parses one; an error is the option that is not known, or what is missing.
pub(super) fn parse(text: &str) -> Result<Parsed, String> {
    let (mut kind, mut source, mut destination) = ("volume".to_owned(), None, None);
    let mut options: Vec<String> = vec![];
    let mut is_recursive = true;
    for part in text.split(',').filter(|part| !part.is_empty()) {
        let (name, value) = match part.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (part, None),
        };
        let is_on = value.as_deref().is_none_or(|value| matches!(value, "true" | "1"));
        let mut option = |text: String| options.push(text);
        match (name, &value) {
            ("type", Some(value)) => kind.clone_from(value),
            ("source" | "src", _) => source = value,
            ("destination" | "dst" | "target", _) => destination = value,
            ("ro" | "readonly", _) => option(if is_on { "ro" } else { "rw" }.into()),
            ("rw", _) => option(if is_on { "rw" } else { "ro" }.into()),
            ("bind-propagation", Some(value)) => option(value.clone()),
            ("bind-nonrecursive", _) => is_recursive = !is_on,
            ("tmpfs-size", Some(value)) => option(format!("size={value}")),
            ("tmpfs-mode", Some(value)) => option(format!("mode={value}")),
            ("U" | "chown", _) if is_on => option("U".into()),
            ("U" | "chown", _) => {}
            ("volume-nocopy", _) => option("nocopy".into()),
            // SELinux.
            ("relabel", _) => {}
            ("size" | "mode" | "uid" | "gid" | "max", Some(_)) => option(part.to_owned()),
            (
                "exec" | "noexec" | "suid" | "nosuid" | "dev" | "nodev" | "tmpcopyup"
                | "notmpcopyup" | "idmap" | "nocopy" | "private" | "rprivate" | "shared"
                | "rshared" | "slave" | "rslave",
                _,
            ) => option(name.to_owned()),
            _ => return Err(part.to_owned()),
        }
    }
    let path = |what: Option<String>, name: &str| {
        let fits = |path: &String| path.starts_with('/') && !path.contains("/../");
        what.filter(fits).ok_or_else(|| format!("no absolute {name}="))
    };
    let destination = path(destination, "destination")?;
    let is_given = options.iter().any(|option| option == "U");
    if is_given && matches!(kind.as_str(), "glob" | "devpts" | "ramfs") {
        return Err("U".into());
    }
    if !is_recursive {
        options.insert(0, "bind".into());
    }
    Ok(match kind.as_str() {
        "bind" => Parsed::Bind { source: path(source, "source")?, destination, options },
        "glob" => Parsed::Glob { source: path(source, "source")?, destination, options },
        "tmpfs" => Parsed::Tmpfs { destination, options },
        "devpts" => Parsed::Kernel { kind: "devpts", destination, options },
        "ramfs" => Parsed::Kernel { kind: "ramfs", destination, options },
        "image" => {
            // An image is shared by the containers that use it, and stays as it is.
            if let Some(other) = options.into_iter().find(|option| option != "ro") {
                return Err(other);
            }
            let reference = source.ok_or("no source=")?;
            Parsed::Image { reference, destination }
        }
        "volume" => Parsed::Volume(VolumeMount { name: source, destination, options }),
        other => return Err(format!("type={other}")),
    })
}

/// The paths of the guest that a pattern matches when the appliance is built: `*` and `?` in its
/// last part.
pub(super) fn matches(guest: &Tree, pattern: &str) -> Vec<String> {
    let Some((folder, pattern)) = pattern.rsplit_once('/') else { return vec![] };
    let folder = trimmed(folder);
    let names = guest.names_in(&folder);
    let fits = names.into_iter().filter(|name| pattern::is_match(pattern, name));
    fits.map(|name| format!("{}/{name}", folder.trim_end_matches('/'))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_podmans() {
        let options = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect();
        let (source, destination) = ("/srv".to_owned(), "/mnt".to_owned());
        assert_eq!(
            parse("type=bind,src=/srv,dst=/mnt,ro=true,bind-propagation=rslave"),
            Ok(Parsed::Bind { source, destination, options: options(&["ro", "rslave"]) })
        );
        assert_eq!(
            parse("type=tmpfs,tmpfs-size=1m,target=/x"),
            Ok(Parsed::Tmpfs { destination: "/x".into(), options: options(&["size=1m"]) })
        );
        assert_eq!(parse("type=image,source=a,destination=/x,rw"), Err("rw".into()));
        assert!(parse("type=image,source=a,destination=/x,ro").is_ok());
        assert_eq!(parse("type=bind,destination=/x"), Err("no absolute source=".into()));
        assert_eq!(parse("type=bind,source=/a,destination=/x,fish"), Err("fish".into()));
        assert_eq!(parse("type=artifact,source=a,destination=/x"), Err("type=artifact".into()));
    }

    #[test]
    fn a_volume_may_be_that_of_a_unit() {
        let volume = |text: &str| match parse(text) {
            Ok(Parsed::Volume(volume)) => {
                let text = String::new();
                let source = std::sync::Arc::new(crate::finding::Source { path: "a".into(), text });
                volume.to_volume(crate::finding::Span::file(&source)).source
            }
            other => panic!("{other:?}"),
        };
        let unit = VolumeSource::Unit("data.volume".into());
        assert_eq!(volume("type=volume,source=data.volume,destination=/x"), unit);
        assert_eq!(volume("type=volume,src=data,dst=/x"), VolumeSource::Name("data".into()));
        assert_eq!(volume("destination=/x"), VolumeSource::Anonymous);
    }
}
