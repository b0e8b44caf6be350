//! A container image: files, and what to run of them.

use crate::config;
use crate::static_build::Binary;
use crate::tree::{DiskError, Node, Tree, TreeError};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

/// A container image, made at build time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerImage {
    /// As `Image=` names it.
    pub reference: String,
    /// Its files; `/` is the container's root.
    pub files: Tree,
    /// What the container executes, unless the `.container` says otherwise.
    pub entrypoint: Vec<String>,
    /// Its arguments, unless the `.container` says otherwise.
    pub command: Vec<String>,
    /// `NAME=value`, of a name the last; the `.container`'s go before them.
    pub environment: Vec<(String, String)>,
    /// Who it runs as: `user[:group]`, names or numbers; None is root.
    pub user: Option<String>,
    /// Where it runs; None is /.
    pub working_directory: Option<String>,
    /// What asks it to stop: a signal's name or number; None is SIGTERM.
    pub stop_signal: Option<String>,
    /// Paths that are to be volumes, sorted.
    pub volumes: Vec<String>,
    /// Ports that it listens on, as the image says it: `80/tcp`. Sorted.
    pub exposed_ports: Vec<String>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// How to ask whether it is well.
    pub health_check: Option<HealthCheck>,
}

/// `HEALTHCHECK` of a Containerfile.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HealthCheck {
    /// `["NONE"]`, `["CMD", PROGRAM, ...]` or `["CMD-SHELL", COMMAND]`; never empty.
    pub test: Vec<String>,
    /// Between two checks, in nanoseconds; 0 is the engine's default, as in what follows.
    pub interval_ns: u64,
    /// The longest that a check may take, in nanoseconds.
    pub timeout_ns: u64,
    /// After the start, failures do not count for so long, in nanoseconds.
    pub start_period_ns: u64,
    /// Between two checks in that time, in nanoseconds.
    pub start_interval_ns: u64,
    /// So many failures in a row make it unhealthy.
    pub retries: u32,
}

impl ContainerImage {
    /// An image that says nothing about running its files.
    pub fn new(reference: &str, files: Tree) -> Self {
        Self {
            reference: reference.into(),
            files,
            entrypoint: Vec::new(),
            command: Vec::new(),
            environment: Vec::new(),
            user: None,
            working_directory: None,
            stop_signal: None,
            volumes: Vec::new(),
            exposed_ports: Vec::new(),
            labels: BTreeMap::new(),
            health_check: None,
        }
    }

    /// An image that is one program, and runs it.
    pub fn of_binary(reference: &str, binary: &Binary) -> Result<Self, TreeError> {
        let origin = format!("image {reference}");
        let mut image = Self::new(reference, Tree::plain());
        let path = format!("/{}", binary.name);
        image.files.insert(&path, Node::file(&binary.content[..], 0o755, origin))?;
        image.entrypoint.push(path);
        Ok(image)
    }

    /// The same image with what appliance.toml adds to it, and says instead of it. `appliance` is
    /// the folder of appliance.toml. As in a Containerfile, an entrypoint of its own takes the
    /// image's command away.
    pub fn with(mut self, config: &config::Image, appliance: &Path) -> Result<Self, DiskError> {
        let origin: Arc<str> = format!("image {}", self.reference).into();
        for (path, from) in &config.files {
            self.files.insert_from_disk(path, &appliance.join(from), &origin)?;
        }
        let pair = |text: &String| {
            let (name, value) = text.split_once('=').unwrap_or((text, ""));
            (name.to_owned(), value.to_owned())
        };
        self.environment.extend(config.environment.iter().map(pair));
        if let Some(entrypoint) = &config.entrypoint {
            self.entrypoint.clone_from(entrypoint);
            self.command.clear();
        }
        if !config.command.is_empty() {
            self.command.clone_from(&config.command);
        }
        self.user = config.user.clone().or(self.user);
        self.working_directory = config.working_directory.clone().or(self.working_directory);
        Ok(self)
    }

    /// Its folder in the guest.
    pub fn folder(&self) -> String {
        folder(&self.reference)
    }

    /// Puts the image into the guest's tree.
    pub fn install(&self, tree: &mut Tree) -> Result<(), TreeError> {
        let folder = self.folder();
        tree.insert(&folder, Node::directory(0o755, format!("image {}", self.reference)))?;
        tree.graft(&folder, &self.files)
    }

    /// Whether a program can be found in it, by its path or in `search_path`. A name that is not
    /// absolute, but has a `/` in it, depends on the working directory and is taken for good.
    pub fn has_program(&self, program: &str, search_path: &str) -> bool {
        let is_file = |path: &str| self.files.content(path).is_some();
        if program.starts_with('/') {
            return is_file(program);
        }
        program.contains('/')
            || search_path.split(':').any(|folder| is_file(&format!("{folder}/{program}")))
    }
}

/// The folder of an image in the guest: another one for every reference. There is nothing in it
/// that means something to mount(2).
pub fn folder(reference: &str) -> String {
    format!("{}/{}", super::IMAGES, one_component(reference))
}

/// A path or a reference as one component of a path: another one for each.
pub(super) fn one_component(text: &str) -> String {
    let mut name = String::new();
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' => name.push(byte.into()),
            // A leading dot would hide it, or be the folder above.
            b'.' if !name.is_empty() => name.push('.'),
            b'/' => name.push('_'),
            _ => name.push_str(&format!("%{byte:02x}")),
        }
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cargo_package_becomes_the_entrypoint_of_an_empty_image() {
        let binary =
            Binary { name: "server".into(), content: b"\x7fELF".into(), target: String::new() };
        let config =
            config::Image { environment: vec!["A=b=c".into()], ..config::Image::default() };
        let image = ContainerImage::of_binary("example.org/a_b:1", &binary).unwrap();
        let image = image.with(&config, Path::new("/")).unwrap();
        assert_eq!(image.entrypoint, ["/server"]);
        assert_eq!(image.environment, [("A".to_owned(), "b=c".to_owned())]);
        assert_eq!(image.folder(), "/usr/lib/rouse/images/example.org_a%5fb%3a1");
        let mut tree = Tree::new();
        image.install(&mut tree).unwrap();
        let path = "/usr/lib/rouse/images/example.org_a%5fb%3a1/server";
        assert_eq!(tree.node(path).unwrap().mode, 0o755);
        assert_eq!(&*tree.node(path).unwrap().origin, "image example.org/a_b:1");
    }

    #[test]
    fn files_come_from_beside_the_appliance() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(folder.path().join("site/css")).unwrap();
        std::fs::write(folder.path().join("site/css/a"), "a").unwrap();
        let files = [("/bin".to_owned(), "site".into())].into();
        let config = config::Image { files, ..config::Image::default() };
        let image = ContainerImage::new("x", Tree::plain()).with(&config, folder.path()).unwrap();
        assert!(image.entrypoint.is_empty());
        assert!(image.has_program("/bin/css/a", "") && image.has_program("a", "/usr/bin:/bin/css"));
        assert!(!image.has_program("/bin/css", "") && !image.has_program("b", "/bin/css"));
    }
}
