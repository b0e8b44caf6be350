//! An appliance's folder, read.

use crate::command_line::{self, Arch};
use crate::config::{self, Config, Engine, Network};
use crate::exit::{BAD_INPUT, Failure, UNAVAILABLE, print_findings};
use crate::finding::{Finding, Severity, Source, Span, forbids};
use crate::oci;
use crate::units::{self, Compiled};
use activator::manifest::{Boot, Manifest, Writable};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Directories that services write to; the guest mounts a tmpfs over each.
const WRITABLE: [(&str, u32); 2] = [("/root", 0o700), ("/var", 0o755)];

/// Those that the guest mounts a tmpfs over whatever the appliance is.
const WRITABLE_ANYWAY: [&str; 3] = ["/dev/shm", "/run", "/tmp"];

/// As Debian's own kernels are set up: nobody gets root to follow a link that he put in its way,
/// proc_sys_fs(5).
const SYSCTLS: [(&str, &str); 2] =
    [("fs/protected_hardlinks", "1"), ("fs/protected_symlinks", "1")];

/// The folder and its appliance.toml.
#[derive(Debug)]
pub struct Appliance {
    /// As the person named it.
    pub folder: PathBuf,
    /// Its name, and the guest's host name.
    pub name: String,
    /// appliance.toml.
    pub config: Config,
    /// Its text.
    pub source: Arc<Source>,
    /// Whether warnings forbid to go on.
    pub strict: bool,
}

/// What is known of an image's files when its units are compiled.
#[derive(Default)]
pub struct Files<'a> {
    /// Units that come inside packages: path without the first `/`, text.
    pub packaged: &'a [(String, String)],
    /// Links among them: path, target.
    pub links: &'a [(String, String)],
    /// /etc/passwd.
    pub passwd: &'a str,
    /// /etc/group.
    pub group: &'a str,
    /// Whether there is such a file; None if that is not known yet.
    pub has_file: Option<&'a dyn Fn(&str) -> bool>,
    /// Podman's generator.
    pub generator: Option<&'a dyn units::podman::Generator>,
}

impl Appliance {
    /// Reads the folder's appliance.toml.
    pub fn open(arguments: &command_line::Appliance) -> Result<Self, Failure> {
        let folder = arguments.folder.clone();
        let bad = |finding| Failure::findings(BAD_INPUT, vec![finding]);
        let (config, source) = Config::read(&folder).map_err(bad)?;
        let name = match &config.name {
            Some(name) => name.clone(),
            None => folder_name(&folder).ok_or_else(|| {
                let shown = folder.display();
                let wrong = Finding {
                    severity: Severity::Error,
                    span: None,
                    message: format!("the folder's name in {shown} cannot name an appliance"),
                    label: String::new(),
                    help: Some("add `name = \"...\"` to appliance.toml".into()),
                };
                bad(wrong)
            })?,
        };
        let mut appliance = Self { folder, name, config, source, strict: arguments.strict };
        appliance.add_built_images();
        Ok(appliance)
    }

    /// What `.build` files make is as if a table said so, for the engine crun. A table goes first.
    fn add_built_images(&mut self) {
        if self.config.engine != Engine::Crun {
            return;
        }
        let built = units::built_images(&self.folder, &self.config);
        for (name, image) in built {
            self.config.image.entry(name).or_insert(image);
        }
    }

    /// Whether its units cannot be compiled without packages: those that are enabled lie in them,
    /// and so does Podman's generator.
    pub fn needs_packages(&self) -> bool {
        let users = &self.config.users;
        !self.config.enable.is_empty()
            || users.iter().any(|user| !user.enable.is_empty())
            || self.config.engine == Engine::Podman && self.has_files_of_podman()
    }

    /// Whether it has Quadlet files that are not ours to compile.
    fn has_files_of_podman(&self) -> bool {
        let users = self.config.users.iter();
        let folders = users.map(|user| self.folder.join(config::USERS).join(&user.name));
        std::iter::once(self.folder.clone()).chain(folders).any(|folder| {
            let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
            let names = entries.map(|entry| entry.file_name());
            names
                .into_iter()
                .any(|name| units::podman::is_of_the_generator(&name.to_string_lossy()))
        })
    }

    /// Compiles the units. Findings are left to the caller.
    pub fn compile(&self, arch: Arch, files: &Files) -> Compiled {
        let mut compiled = units::compile(&units::Input {
            folder: &self.folder,
            packaged: files.packaged,
            links: files.links,
            name: &self.name,
            config: &self.config,
            config_source: Some(&self.source),
            passwd: files.passwd,
            group: files.group,
            architecture: arch.units(),
            has_file: files.has_file,
            generator: files.generator,
        });
        compiled.findings.extend(self.config.check_paths(&self.folder, &self.source));
        for (image, span) in &compiled.images {
            // With a network Podman pulls what is not there, as `Pull=` says.
            if !self.config.image.contains_key(image) && self.config.network.is_none() {
                compiled.findings.push(not_mapped(image, span));
            }
        }
        for (_, container) in &compiled.containers {
            // A file of that name that is not there is a finding already.
            let references = oci::references(container).into_iter();
            for reference in references.filter(|image| !units::is_image_file(image)) {
                let unmapped = self.config.unmapped(&reference, &container.image_span);
                compiled.findings.extend(unmapped);
            }
            compiled.findings.extend(oci::check(container));
        }
        compiled
    }

    /// Prints what was found, and goes on if it may.
    pub fn accept(&self, compiled: Compiled) -> Result<Compiled, Failure> {
        if forbids(&compiled.findings, self.strict) {
            return Err(Failure::findings(BAD_INPUT, compiled.findings));
        }
        let (notes, rest): (Vec<_>, Vec<_>) = compiled
            .findings
            .iter()
            .cloned()
            .partition(|finding| finding.severity == Severity::Note);
        drop(notes); // `rouse check` shows them
        print_findings(&rest);
        Ok(compiled)
    }

    /// The manifest of some units, with nothing of a kernel in it.
    pub fn manifest(&self, compiled: &Compiled) -> Manifest {
        let common = WRITABLE.iter().map(|(path, mode)| Writable {
            path: (*path).into(),
            mode: *mode,
            owner: (0, 0),
        });
        let homes = compiled.users.iter().map(|user| Writable {
            path: user.home.clone(),
            mode: 0o700,
            owner: (user.ids.uid, user.ids.gid),
        });
        let writable = common.chain(homes).collect();
        let sysctls =
            SYSCTLS.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
        Manifest {
            name: self.name.clone(),
            boot: Boot {
                writable,
                sysctls,
                disks: self.config.disk.iter().map(|disk| disk.mount(&self.config.users)).collect(),
                interface: self.config.network.as_ref().map(Network::interface),
                ..Boot::default()
            },
            users: compiled.users.clone(),
            units: compiled.units.clone(),
        }
    }

    /// A path that appliance.toml names.
    pub fn path(&self, relative: &Path) -> PathBuf {
        self.folder.join(relative)
    }
}

/// Whether a path of the guest is in what can be written to: the root itself is read-only.
pub(crate) fn is_writable(config: &Config, path: &str) -> bool {
    let common = WRITABLE.iter().map(|(path, _)| (*path).to_owned());
    let anyway = WRITABLE_ANYWAY.iter().map(|path| (*path).to_owned());
    let homes = config.users.iter().map(|user| user.home());
    let disk = config.disk.iter().map(|disk| disk.path.clone());
    common.chain(anyway).chain(homes).chain(disk).any(|above| Path::new(path).starts_with(above))
}

/// Of a file that Podman's generator reads: its images are known after the lock is made.
fn not_mapped(image: &str, span: &Span) -> Finding {
    Finding::error(span.clone(), format!("image `{image}` is not mapped"))
        .label(format!("expected an [image.\"...\"] table in {}", config::FILE))
        .help(format!("add `[image.\"{image}\"]` with `from = \"docker://{image}\"`"))
}

/// The name of a folder, also of `.` and `..`.
fn folder_name(folder: &Path) -> Option<String> {
    let real = std::fs::canonicalize(folder).ok()?;
    let name = real.file_name()?.to_str()?;
    config::is_name(name).then(|| name.to_owned())
}

impl Arch {
    /// The host's.
    pub fn host() -> Result<Self, Failure> {
        match std::env::consts::ARCH {
            "x86_64" => Ok(Self::X86_64),
            "aarch64" => Ok(Self::Aarch64),
            other => Err(Failure::new(UNAVAILABLE, format!("build guests on {other} by default"))
                .hint("say --arch x86_64 or --arch aarch64")),
        }
    }

    /// The one asked for, else the host's.
    pub fn or_host(asked: Option<Self>) -> Result<Self, Failure> {
        asked.map_or_else(Self::host, Ok)
    }

    /// As Rust's targets and QEMU name it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::X86_64 => "x86_64",
            Self::Aarch64 => "aarch64",
        }
    }

    /// For the unit compiler.
    pub fn units(self) -> units::Architecture {
        match self {
            Self::X86_64 => units::Architecture::X86_64,
            Self::Aarch64 => units::Architecture::Aarch64,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base;
    use std::fs::write;

    fn errors(config: &str, container: &str) -> Vec<String> {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path().join(config::FILE), config).unwrap();
        write(folder.path().join("a.container"), container).unwrap();
        let arguments = command_line::Appliance { folder: folder.path().into(), strict: false };
        let appliance = Appliance::open(&arguments).unwrap();
        let files = Files { passwd: base::PASSWD, group: base::GROUP, ..Files::default() };
        let compiled = appliance.compile(Arch::X86_64, &files);
        let errors = compiled.findings.iter().filter(|found| found.severity == Severity::Error);
        let shown = format!("{}/", folder.path().display());
        errors.map(|found| found.one_line().replace(&shown, "")).collect()
    }

    #[test]
    fn the_guest_writes_to_its_disk_and_to_homes() {
        let config = Config {
            disk: Some(config::Disk { size: "1G".into(), path: "/srv".into() }),
            users: vec![config::User { name: "ann".into(), uid: 1000, ..config::User::default() }],
            ..Config::default()
        };
        for path in ["/srv", "/srv/a", "/var/lib/a", "/run/a", "/home/ann/a", "/root"] {
            assert!(is_writable(&config, path), "{path}");
        }
        for path in ["/", "/srvs", "/usr/a", "/home/bob", "/variable"] {
            assert!(!is_writable(&config, path), "{path}");
        }
    }

    #[test]
    fn the_image_of_a_build_is_as_one_of_a_table() {
        let folder = tempfile::tempdir().unwrap();
        let put = |name: &str, text: &str| write(folder.path().join(name), text).unwrap();
        std::fs::create_dir(folder.path().join("x")).unwrap();
        put("x/Containerfile", "FROM scratch\n");
        put("x.build", "[Build]\nImageTag=localhost/x\nSetWorkingDirectory=x\n");
        let arguments = command_line::Appliance { folder: folder.path().into(), strict: false };
        let origin = |config: &str| {
            put(config::FILE, config);
            let Appliance { config, source, .. } = Appliance::open(&arguments).unwrap();
            assert_eq!(config.check_paths(folder.path(), &source), []);
            config.origin("localhost/x", folder.path()).unwrap().to_string()
        };
        let file = folder.path().join("x/Containerfile");
        assert_eq!(origin("name = \"a\"\n"), file.display().to_string());
        let table = "[image.\"localhost/x\"]\nfrom = \"docker://quay.io/x\"\n";
        assert_eq!(origin(&format!("name = \"a\"\n{table}")), "docker://quay.io/x:latest");
        assert_eq!(origin("name = \"a\"\nengine = \"podman\"\n"), "docker://localhost/x:latest");
    }

    #[test]
    fn what_crun_cannot_do_is_found_before_anything_is_fetched() {
        let config = "name = \"a\"\n[image.x]\nentrypoint = [\"/a\"]\nfiles = { \"/a\" = \"a.container\" }\n";
        let found = errors(config, "[Container]\nImage=x\nNetwork=none\nSysctl=vm.swappiness=1\n");
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].contains("a container has no `vm.swappiness`"), "{found:?}");
        let none: [String; 0] = [];
        assert_eq!(errors(config, "[Container]\nImage=x\nNetwork=none\n"), none);
    }
}
