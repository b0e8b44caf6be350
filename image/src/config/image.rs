//! `[image."REFERENCE"]`: where the image that a `.container` names comes from, and
//! `[registry."HOST"]`: how a registry is reached.

use super::{Config, Dependencies, Part, is_guest_path, place};
use crate::finding::{Finding, Source, Span};
use crate::oci::source::{Origin, Reference, Scheme, Transport};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What an image can be made from; one of them, or `files` alone.
const SOURCES: &str = "`from`, `packages`, `containerfile`, `cargo` or `files`";

/// A container image that is brought or made at build time.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Image {
    /// Where it lies, in the words of containers-transports(5): see [`Transport`].
    pub from: Option<String>,
    /// Debian packages that it is made of, with what they depend on.
    #[serde(default)]
    pub packages: Vec<String>,
    /// What is taken of packages that only others depend on.
    #[serde(default)]
    pub dependencies: Dependencies,
    /// Files and folders of packages that are left out: absolute paths.
    #[serde(default)]
    pub drop: Vec<String>,
    /// A Containerfile, which Podman or Buildah of this machine builds, in its folder.
    pub containerfile: Option<PathBuf>,
    /// What that copies from, if it is not the folder of the file: of a `.build`, whose image it is.
    #[serde(skip)]
    pub context: Option<PathBuf>,
    /// What the builder is told besides, by a `.build`: options of podman-build(1).
    #[serde(skip)]
    pub options: Vec<String>,
    /// Folder of a Cargo package with one binary: it is compiled static for the guest's
    /// architecture, and becomes `/NAME` in an otherwise empty image, and the entrypoint.
    pub cargo: Option<PathBuf>,
    /// Path in the image to a file or folder beside appliance.toml; over what is there.
    #[serde(default)]
    pub files: BTreeMap<String, PathBuf>,
    /// What the container executes, instead of what the image says.
    pub entrypoint: Option<Vec<String>>,
    /// Its arguments, instead of the image's.
    #[serde(default)]
    pub command: Vec<String>,
    /// `NAME=value`, beside the image's.
    #[serde(default)]
    pub environment: Vec<String>,
    /// Who it runs as, `uid[:gid]`, instead of what the image says.
    pub user: Option<String>,
    /// Where it runs, instead of what the image says.
    pub working_directory: Option<String>,
}

/// How a registry is reached.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Registry {
    /// Whether it speaks HTTP without TLS; by default only one on this machine's loopback.
    pub plain_http: Option<bool>,
}

impl Config {
    /// Where an image comes from that is not made of packages or files alone, of a table of its
    /// own or by its name. Paths are below `folder`. None also if it cannot come from anywhere.
    pub fn origin(&self, reference: &str, folder: &Path) -> Option<Origin> {
        let Some(image) = self.image.get(reference) else {
            return Some(Origin::From(Transport::Registry(Reference::parse(reference).ok()?)));
        };
        if let Some(file) = &image.containerfile {
            let file = folder.join(file);
            let beside = || file.parent().unwrap_or(folder).to_owned();
            let context = image.context.as_ref().map_or_else(beside, |path| folder.join(path));
            return Some(Origin::Containerfile { file, context, options: image.options.clone() });
        }
        let transport = Transport::parse(image.from.as_ref()?).ok()?;
        Some(Origin::From(transport.below(folder)))
    }

    /// Layouts and archives that images are taken from, as the file names them.
    pub fn archives(&self) -> impl Iterator<Item = PathBuf> {
        let from = self.image.values().filter_map(|image| image.from.as_ref());
        from.filter_map(|from| Transport::parse(from).ok()?.path().cloned())
    }

    /// How a registry is reached.
    pub fn scheme(&self, reference: &Reference) -> Scheme {
        let table = self.registry.get(&reference.host);
        let plain = table.and_then(|table| table.plain_http);
        match plain.unwrap_or_else(|| reference.is_loopback()) {
            true => Scheme::Http,
            false => Scheme::Https,
        }
    }

    /// What is wrong with an image that a `.container` names and no table does: it has to be in a
    /// registry. `span` is where it is named.
    pub fn unmapped(&self, reference: &str, span: &Span) -> Option<Finding> {
        if self.image.contains_key(reference) {
            return None;
        }
        let error = Reference::parse(reference).err()?;
        Some(
            Finding::error(span.clone(), error.to_string())
                .label(format!("expected an image of a registry, or of {}", super::FILE))
                .help(format!("{}, or add `[image.\"{reference}\"]`", error.hint())),
        )
    }
}

/// Checks all tables, without a look at what they name.
pub(super) fn check(images: &BTreeMap<String, Image>, source: &Arc<Source>) -> Result<(), Finding> {
    for (reference, image) in images {
        image.check(reference, source)?;
    }
    Ok(())
}

impl Image {
    fn check(&self, reference: &str, source: &Arc<Source>) -> Result<(), Finding> {
        let whole = place(source, &["image", reference], Part::Key);
        let given = [
            ("from", self.from.is_some()),
            ("packages", !self.packages.is_empty()),
            ("containerfile", self.containerfile.is_some()),
            ("cargo", self.cargo.is_some()),
        ];
        let given: Vec<&str> =
            given.into_iter().filter(|(_, given)| *given).map(|(name, _)| name).collect();
        match given.as_slice() {
            [] if self.files.is_empty() => {
                return Err(Finding::error(whole, format!("image `{reference}` has no source"))
                    .label(format!("expected one of {SOURCES} in this table"))
                    .help("`from = \"docker://registry.example/name:tag\"` pulls an image"));
            }
            [] | [_] => {}
            [_, second, ..] => {
                let at = place(source, &["image", reference, second], Part::Key);
                let message = format!("image `{reference}` has more than one source");
                return Err(Finding::error(at, message)
                    .label(format!("there is `{}` already", given[0]))
                    .help("leave one of them; `files` may stand beside any"));
            }
        }
        for (key, given) in [
            ("dependencies", self.dependencies != Dependencies::Whole),
            ("drop", !self.drop.is_empty()),
        ] {
            if given && self.packages.is_empty() {
                let at = place(source, &["image", reference, key], Part::Key);
                let message = format!("image `{reference}` is not made of packages");
                return Err(Finding::error(at, message)
                    .label(format!("`{key}` is about the files of packages"))
                    .help("take the line out, or make the image of `packages`"));
            }
        }
        if let Some(path) = self.drop.iter().find(|path| !is_guest_path(path)) {
            let at = place(source, &["image", reference, "drop", path], Part::Value);
            return Err(Finding::error(at, format!("`{path}` is no path in the image"))
                .label("expected an absolute path without `..`")
                .help("it is a path in the image, such as `/usr/share/zoneinfo`"));
        }
        if let Some(from) = &self.from
            && let Err(error) = Transport::parse(from)
        {
            let at = place(source, &["image", reference, "from"], Part::Value);
            return Err(Finding::error(at, error.to_string())
                .label("expected a place as skopeo writes it")
                .help(error.hint()));
        }
        let says_itself =
            self.cargo.is_some() || self.from.is_some() || self.containerfile.is_some();
        if !says_itself && self.entrypoint.is_none() && self.command.is_empty() {
            let message = format!("image `{reference}` has nothing to execute");
            return Err(Finding::error(whole, message)
                .label("expected `entrypoint` or `command` in this table")
                .help("add `entrypoint = [\"/path/in/the/image\"]`"));
        }
        Ok(())
    }

    /// What it names beside appliance.toml: keys below its table, and the path.
    pub(super) fn paths(&self) -> Vec<(Vec<&str>, PathBuf)> {
        let files = self.files.iter().map(|(to, from)| (vec!["files", to], from.clone()));
        let cargo = self.cargo.iter().map(|from| (vec!["cargo"], from.clone()));
        // That of a `.build` is checked with it.
        let built = self.containerfile.iter().filter(|_| self.context.is_none());
        let built = built.map(|from| (vec!["containerfile"], from.clone()));
        let from = self.from.iter().filter_map(|from| {
            let transport = Transport::parse(from).ok()?;
            Some((vec!["from"], transport.path()?.clone()))
        });
        files.chain(cargo).chain(built).chain(from).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Config, String> {
        let source = Arc::new(Source { path: "appliance.toml".into(), text: text.into() });
        Config::parse(&source).map_err(|finding| finding.one_line())
    }

    #[test]
    fn an_image_has_exactly_one_source() {
        let errors = [
            ("[image.x]\n", "1:8: error: image `x` has no source"),
            (
                "[image.x]\nfrom = \"oci:a\"\ncargo = \"b\"\n",
                "3:1: error: image `x` has more than one source",
            ),
            (
                "[image.x]\nfrom = \"quay.io/a\"\n",
                "2:9: error: `quay.io/a` does not say where the image is",
            ),
            ("[image.x]\npackages = [\"a\"]\n", "1:8: error: image `x` has nothing to execute"),
            (
                "[image.x]\nfrom = \"oci:a\"\ndependencies = \"libraries\"\n",
                "3:1: error: image `x` is not made of packages",
            ),
            (
                "[image.x]\npackages = [\"a\"]\ndrop = [\"/usr/bin\", \"etc\"]\n",
                "3:22: error: `etc` is no path in the image",
            ),
        ];
        for (text, expected) in errors {
            assert_eq!(parse(text).unwrap_err(), format!("appliance.toml:{expected}"));
        }
    }

    #[test]
    fn images_come_from_where_tables_or_names_say() {
        let text = "[image.x]\nfrom = \"oci-archive:../x.tar:v1\"\n[image.y]\n\
            containerfile = \"y/Containerfile\"\n[registry.\"r.example:5000\"]\n\
            plain-http = true\n[registry.\"localhost\"]\nplain-http = false\n";
        let config = parse(text).unwrap();
        let origin = |name: &str| config.origin(name, Path::new("/a"));
        let archive = Transport::LayoutArchive("/a/../x.tar".into(), Some("v1".into()));
        assert_eq!(origin("x"), Some(Origin::From(archive)));
        let file = Origin::Containerfile {
            file: "/a/y/Containerfile".into(),
            context: "/a/y".into(),
            options: vec![],
        };
        assert_eq!(origin("y"), Some(file));
        assert_eq!(origin("z"), None);
        assert_eq!(
            origin("r.example:5000/z").unwrap().to_string(),
            "docker://r.example:5000/z:latest"
        );
        let scheme = |name: &str| config.scheme(&Reference::parse(name).unwrap());
        assert_eq!(scheme("r.example:5000/z"), Scheme::Http);
        assert_eq!(scheme("127.0.0.1:5000/z"), Scheme::Http);
        assert_eq!((scheme("localhost/z"), scheme("quay.io/z")), (Scheme::Https, Scheme::Https));
    }
}
