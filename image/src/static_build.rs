//! Compiles a Cargo package into static binaries for a guest.
//!
//! Used twice: by this package's build script, for the programs that every image carries, and
//! by `rouse build`, for a container image that is made of a Cargo package. So it depends on
//! little, and on nothing else of this crate.
//!
//! The same sources and toolchain give the same bytes in any directory and for any user: paths
//! are mapped to fixed ones, and flags and wrappers of the caller's environment and Cargo
//! configuration are left out, as are profiles of the environment. Nothing is downloaded but
//! crates: a target that the toolchain lacks is never added.

use std::ffi::OsString;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use thiserror::Error;

/// Names a rustc to use instead of cargo's own: one that has targets which the toolchain lacks.
pub const VARIABLE: &str = "ROUSE_RUSTC";

/// Lines of Cargo's output that an error keeps.
const TAIL: usize = 40;

/// What to compile.
#[derive(Debug, Clone)]
pub struct Package<'a> {
    /// Folder of the package, or of its workspace.
    pub folder: &'a Path,
    /// The package's name where the folder is a workspace's.
    pub member: Option<&'a str>,
    /// Cargo profile.
    pub profile: &'a str,
    /// `x86_64` or `aarch64`, as Rust's targets begin.
    pub architecture: &'a str,
    /// Where Cargo keeps what it made; may be shared by all calls.
    pub target_directory: &'a Path,
}

/// What came out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Binary {
    /// The binary target's name.
    pub name: String,
    /// The ELF file.
    pub content: Vec<u8>,
    /// The Rust target that it was compiled for.
    pub target: String,
}

/// Why there is no binary.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum StaticBuildError {
    /// cargo or rustc cannot be executed.
    #[error("run `{program}`: {kind}")]
    NoToolchain {
        /// Which.
        program: String,
        /// Why.
        kind: std::io::ErrorKind,
    },
    /// The toolchain has no standard library for the architecture.
    #[error(
        "compile for {architecture}: the Rust toolchain has neither {architecture}-unknown-linux-musl \
         nor {architecture}-unknown-linux-gnu"
    )]
    NoTarget {
        /// Which.
        architecture: String,
    },
    /// There is no C compiler to link with.
    #[error("link {package} for {target}: there is no linker `{linker}`")]
    NoLinker {
        /// What was compiled.
        package: PathBuf,
        /// For what.
        target: String,
        /// What was looked for.
        linker: String,
    },
    /// There was no room for what Cargo makes.
    #[error("compile {package}: no space is left in {target_directory}")]
    DiskFull {
        /// What was compiled.
        package: PathBuf,
        /// Where.
        target_directory: PathBuf,
    },
    /// Cargo failed; the end of what it said.
    #[error("compile {package}:\n{tail}")]
    Failed {
        /// What was compiled.
        package: PathBuf,
        /// Its last lines.
        tail: String,
    },
    /// A package for an image has one binary, so that it is known what to start.
    #[error("compile {package}: it has {found} binaries, but it needs just one")]
    NotOneBinary {
        /// What was compiled.
        package: PathBuf,
        /// How many it has.
        found: usize,
    },
    /// The binary wants a loader, which the guest or the image lacks.
    #[error("compile {package}: the binary is not static, it wants {interpreter}")]
    Dynamic {
        /// What was compiled.
        package: PathBuf,
        /// The loader.
        interpreter: String,
    },
    /// A file that Cargo made cannot be read, or is no ELF file.
    #[error("read {path}: {reason}")]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// Why.
        reason: String,
    },
}

impl StaticBuildError {
    /// One next step, if there is one to name.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::NoToolchain { .. } => Some("https://rustup.rs installs Rust".into()),
            Self::NoTarget { architecture } => Some(format!(
                "`rustup target add {architecture}-unknown-linux-musl` adds one, or {VARIABLE} \
                 names a rustc that has one"
            )),
            Self::NoLinker { .. } => Some("Debian's package gcc has one".into()),
            Self::DiskFull { .. } => {
                Some("make room, or set ROUSE_CACHE_DIR to another disk".into())
            }
            Self::Failed { .. }
            | Self::NotOneBinary { .. }
            | Self::Dynamic { .. }
            | Self::Unreadable { .. } => None,
        }
    }
}

/// What changes when the toolchain is given a target for an architecture: files, or folders where
/// it keeps no list.
pub fn watched(architecture: &str) -> Result<Vec<PathBuf>, StaticBuildError> {
    let mut watched = Vec::new();
    for (_, triple) in targets(architecture) {
        watched.extend(library(&triple)?.and_then(|library| library.list()));
    }
    watched.dedup();
    Ok(watched)
}

/// Compiles a package that has one binary.
pub fn build(package: &Package<'_>) -> Result<Binary, StaticBuildError> {
    let mut binaries = build_all(package)?;
    match (binaries.pop(), binaries.len()) {
        (Some(binary), 0) => Ok(binary),
        (last, more) => {
            let found = more + usize::from(last.is_some());
            Err(StaticBuildError::NotOneBinary { package: package.folder.into(), found })
        }
    }
}

/// Compiles a package; all its binaries, by their names. Cargo's own messages are kept for the
/// error, and otherwise dropped.
pub fn build_all(package: &Package<'_>) -> Result<Vec<Binary>, StaticBuildError> {
    let target = Target::choose(package.architecture, library)?;
    // Cargo runs inside the folder, where a path relative to here means nothing.
    let absolute = |path: &Path| std::path::absolute(path).unwrap_or_else(|_| path.into());
    let folder = absolute(package.folder);
    let manifest = folder.join("Cargo.toml");
    let mut cargo = command(&["CARGO"], "cargo");
    if let Some(rustc) = value(VARIABLE) {
        cargo.env("RUSTC", rustc);
    }
    cargo.args(["build", "--message-format=json-render-diagnostics", "--bins"]);
    cargo.arg("--manifest-path").arg(&manifest);
    cargo.args(["--profile", package.profile, "--target", &target.triple]);
    cargo.arg("--target-dir").arg(absolute(package.target_directory));
    if let Some(member) = package.member {
        cargo.args(["--package", member]);
    }
    if package.folder.join("Cargo.lock").exists() {
        cargo.arg("--locked");
    }
    // Its `.cargo/config.toml`s are looked for from here.
    cargo.current_dir(&folder);
    target.configure(&mut cargo, &folder)?;
    let (success, stdout, stderr) = run(cargo, "cargo")?;
    if !success {
        return Err(failure(package, &target, &stderr));
    }
    let mut binaries = executables(&stdout);
    binaries.sort();
    let binaries = binaries.into_iter().map(|(name, path)| read(package, &target, name, &path));
    binaries.collect()
}

/// A file that Cargo has made.
fn read(
    package: &Package<'_>,
    target: &Target,
    name: String,
    path: &Path,
) -> Result<Binary, StaticBuildError> {
    let unreadable = |reason: String| StaticBuildError::Unreadable { path: path.into(), reason };
    let content = std::fs::read(path).map_err(|error| unreadable(error.to_string()))?;
    let elf = goblin::elf::Elf::parse(&content).map_err(|error| unreadable(error.to_string()))?;
    if let Some(interpreter) = elf.interpreter {
        let interpreter = interpreter.to_owned();
        return Err(StaticBuildError::Dynamic { package: package.folder.into(), interpreter });
    }
    Ok(Binary { name, content, target: target.triple.clone() })
}

/// A target that the toolchain can compile for.
struct Target {
    triple: String,
    architecture: String,
    libc: Libc,
    sysroot: PathBuf,
}

/// A C library.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Libc {
    /// musl
    Musl,
    /// glibc
    Gnu,
}

impl Libc {
    /// Which one a static program was linked with; None if it is no ELF file. glibc's startup code
    /// carries a note about the oldest kernel it can do with, musl's carries none.
    pub fn of(program: &[u8]) -> Option<Self> {
        let elf = goblin::elf::Elf::parse(program).ok()?;
        let mut notes = elf.iter_note_headers(program).into_iter().flatten().flatten();
        let is_tag = |note: goblin::elf::note::Note<'_>| {
            (note.name, note.n_type) == ("GNU", goblin::elf::note::NT_GNU_ABI_TAG)
        };
        Some(if notes.any(is_tag) { Self::Gnu } else { Self::Musl })
    }
}

impl std::fmt::Display for Libc {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Musl => "musl",
            Self::Gnu => "glibc",
        })
    }
}

/// The targets that a guest's program may be compiled for, the better one first.
fn targets(architecture: &str) -> [(Libc, String); 2] {
    [(Libc::Musl, "musl"), (Libc::Gnu, "gnu")]
        .map(|(libc, suffix)| (libc, format!("{architecture}-unknown-linux-{suffix}")))
}

/// Where a toolchain has the standard library of a target, or would have it.
struct Library {
    /// `SYSROOT/lib/rustlib/TARGET/lib`
    folder: PathBuf,
    sysroot: PathBuf,
}

/// Of the toolchain in use; None if the compiler knows no such target.
fn library(triple: &str) -> Result<Option<Library>, StaticBuildError> {
    let mut rustc = command(&[VARIABLE, "RUSTC"], "rustc");
    rustc.args(["--print", "target-libdir", "--print", "sysroot", "--target", triple]);
    let (success, stdout, _) = run(rustc, "rustc")?;
    let mut lines = stdout.lines().map(PathBuf::from);
    let (folder, sysroot) = (lines.next().unwrap_or_default(), lines.next().unwrap_or_default());
    Ok(success.then_some(Library { folder, sysroot }))
}

impl Library {
    fn has_std(&self) -> bool {
        let Ok(entries) = std::fs::read_dir(&self.folder) else { return false };
        let is_std = |name: &str| name.starts_with("libstd-") && name.ends_with(".rlib");
        entries.flatten().any(|entry| entry.file_name().to_str().is_some_and(is_std))
    }

    /// rustup's list of what is installed, else the folder of all targets. None if neither is
    /// there: Cargo takes a file that is missing for one that has changed, each time.
    fn list(&self) -> Option<PathBuf> {
        let targets = self.folder.ancestors().nth(2)?;
        [targets.join("components"), targets.to_owned()].into_iter().find(|path| path.exists())
    }
}

impl Target {
    /// musl if its standard library is there, since it makes the smaller binary, else glibc.
    fn choose(
        architecture: &str,
        library: impl Fn(&str) -> Result<Option<Library>, StaticBuildError>,
    ) -> Result<Self, StaticBuildError> {
        for (libc, triple) in targets(architecture) {
            let library = library(&triple)?.filter(Library::has_std);
            if let Some(Library { sysroot, .. }) = library {
                return Ok(Self { triple, architecture: architecture.into(), libc, sysroot });
            }
        }
        Err(StaticBuildError::NoTarget { architecture: architecture.into() })
    }

    /// Flags and environment, so that the caller's do not reach the compiler.
    fn configure(&self, cargo: &mut Command, source: &Path) -> Result<(), StaticBuildError> {
        for (name, _) in std::env::vars_os() {
            if name.to_str().is_some_and(leaks) {
                cargo.env_remove(name);
            }
        }
        // Empty, they also switch off those of a configuration file.
        cargo.env("RUSTC_WRAPPER", "").env("RUSTC_WORKSPACE_WRAPPER", "");
        let home = cargo_home();
        let mut flags = vec![OsString::from("-Ctarget-feature=+crt-static")];
        // The last one that matches wins.
        let maps =
            [(&self.sysroot, "/rust"), (&home, "/cargo"), (&source.to_path_buf(), "/source")];
        for (from, to) in maps {
            // The compiler sees a path as Cargo does, which may be either of the two.
            for from in [Some(from.clone()), from.canonicalize().ok()].into_iter().flatten() {
                let mut flag = OsString::from("--remap-path-prefix=");
                flag.push(&from);
                flag.push("=");
                flag.push(to);
                flags.push(flag);
            }
        }
        // This overrides RUSTFLAGS and every configuration file. It does not reach build
        // scripts and procedural macros, since a target is given.
        cargo.env("CARGO_ENCODED_RUSTFLAGS", flags.join(std::ffi::OsStr::new("\x1f")));
        let linker =
            format!("CARGO_TARGET_{}_LINKER", self.triple.to_uppercase().replace('-', "_"));
        if self.architecture != std::env::consts::ARCH && std::env::var_os(&linker).is_none() {
            match self.libc {
                // The toolchain brings the linker, musl's objects and the unwinder.
                Libc::Musl => cargo.env(linker, "rust-lld"),
                Libc::Gnu => cargo.env(linker, format!("{}-linux-gnu-gcc", self.architecture)),
            };
        }
        Ok(())
    }
}

/// Whether a variable of the caller changes what is compiled, or is about another package.
fn leaks(name: &str) -> bool {
    const KEPT: [&str; 7] = [
        "CARGO_HOME",
        "CARGO_HTTP_",
        "CARGO_MAKEFLAGS", // the job server of a Cargo above us
        "CARGO_NET_",
        "CARGO_REGISTR",
        "CARGO_SOURCE_",
        "CARGO_TERM_",
    ];
    let linker = name.starts_with("CARGO_TARGET_") && name.ends_with("_LINKER");
    let kept = linker || KEPT.iter().any(|prefix| name.starts_with(prefix));
    (name.starts_with("CARGO_") && !kept)
        || name.starts_with("DEP_")
        || matches!(
            name,
            "RUSTFLAGS"
                | "RUSTDOCFLAGS"
                | "RUSTC_WRAPPER"
                | "RUSTC_WORKSPACE_WRAPPER"
                | "RUSTC_LINKER"
                | "RUSTC_BOOTSTRAP"
                | "CLIPPY_ARGS"
                | "CLIPPY_CONF_DIR"
                | "OUT_DIR"
                | "TARGET"
                | "HOST"
                | "PROFILE"
                | "DEBUG"
                | "OPT_LEVEL"
        )
}

fn cargo_home() -> PathBuf {
    let home = || PathBuf::from(std::env::var_os("HOME").unwrap_or_default()).join(".cargo");
    std::env::var_os("CARGO_HOME").map_or_else(home, PathBuf::from)
}

/// What a variable of the environment says, if it says something.
fn value(variable: &str) -> Option<OsString> {
    std::env::var_os(variable).filter(|value| !value.is_empty())
}

/// The program that the first of some variables names, else the default.
fn command(variables: &[&str], default: &str) -> Command {
    let program = variables.iter().find_map(|variable| value(variable));
    let mut command = Command::new(program.unwrap_or_else(|| default.into()));
    // Where rustup stands in front of the toolchain, it is not to fetch one.
    command.env("RUSTUP_AUTO_INSTALL", "0").stdin(Stdio::null());
    command
}

/// Whether it ended well, its stdout, its stderr.
fn run(mut command: Command, name: &str) -> Result<(bool, String, String), StaticBuildError> {
    let no_toolchain = |error: std::io::Error| StaticBuildError::NoToolchain {
        program: name.into(),
        kind: error.kind(),
    };
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(no_toolchain)?;
    let stderr = child.stderr.take();
    let reader = std::thread::spawn(move || {
        let mut text = Vec::new();
        let _ = stderr.map(|mut stderr| stderr.read_to_end(&mut text));
        text
    });
    let output = child.wait_with_output().map_err(no_toolchain)?;
    let stderr = reader.join().unwrap_or_default();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ok((output.status.success(), text(&output.stdout), text(&stderr)))
}

fn failure(package: &Package<'_>, target: &Target, stderr: &str) -> StaticBuildError {
    let missing = stderr.lines().find_map(|line| {
        let rest = line.split_once("linker `")?.1;
        rest.split_once("` not found").map(|(linker, _)| linker.to_owned())
    });
    if let Some(linker) = missing {
        let target = target.triple.clone();
        return StaticBuildError::NoLinker { package: package.folder.into(), target, linker };
    }
    // The text of ENOSPC, of the compiler as of the linker: no other way leads to it.
    if stderr.contains("No space left on device") {
        let target_directory = package.target_directory.into();
        return StaticBuildError::DiskFull { package: package.folder.into(), target_directory };
    }
    let lines: Vec<&str> = stderr.trim_end().lines().collect();
    let tail = lines[lines.len().saturating_sub(TAIL)..].join("\n");
    StaticBuildError::Failed { package: package.folder.into(), tail }
}

/// Names and paths of the binaries that Cargo's messages tell of.
fn executables(messages: &str) -> Vec<(String, PathBuf)> {
    let parse = |line| -> Option<(String, PathBuf)> {
        let message: serde_json::Value = serde_json::from_str(line).ok()?;
        let path = message.get("executable")?.as_str()?;
        let name = message.get("target")?.get("name")?.as_str()?;
        Some((name.into(), path.into()))
    };
    messages.lines().filter_map(parse).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A package with one dependency of its own, made in a folder.
    fn write_package(folder: &Path, main: &str) {
        let manifest = "[package]\nname = \"tiny\"\nversion = \"0.1.0\"\nedition = \"2024\"\n\
            [dependencies]\nhelper = { path = \"helper\" }\n[workspace]\n\
            [profile.release]\nstrip = true\n";
        let helper = "[package]\nname = \"helper\"\nversion = \"0.1.0\"\nedition = \"2024\"\n";
        let library = "pub fn place() -> &'static str { file!() }\n\
            pub fn one(number: Option<u8>) -> u8 { number.expect(\"a number\") }\n";
        let files = [
            ("Cargo.toml", manifest),
            ("src/main.rs", main),
            ("helper/Cargo.toml", helper),
            ("helper/src/lib.rs", library),
        ];
        for (path, text) in files {
            let path = folder.join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
    }

    fn package(folder: &Path) -> Result<Binary, StaticBuildError> {
        build(&Package {
            folder,
            member: None,
            profile: "release",
            architecture: std::env::consts::ARCH,
            target_directory: &folder.join("target"),
        })
    }

    #[test]
    fn two_directories_give_the_same_static_bytes() {
        let folder = tempfile::tempdir().unwrap();
        let places = ["a", "another/deeper place"].map(|name| folder.path().join(name));
        let main = "fn main() { println!(\"{} {}\", helper::place(), helper::one(None)); }";
        let built = places.each_ref().map(|place| {
            write_package(place, main);
            package(place).unwrap()
        });
        assert_eq!(built[0].name, "tiny");
        let chosen = Target::choose(std::env::consts::ARCH, library).unwrap();
        assert_eq!(built[0].target, chosen.triple);
        assert_eq!(Libc::of(&built[0].content), Some(chosen.libc));
        assert!(built[0] == built[1], "the bytes differ");
        let inside = folder.path().to_str().unwrap().as_bytes();
        assert!(!built[0].content.windows(inside.len()).any(|window| window == inside));
    }

    #[test]
    fn a_folder_may_be_relative() {
        let here = std::env::current_dir().unwrap();
        let folder = tempfile::tempdir_in(&here).unwrap();
        write_package(folder.path(), "fn main() {}");
        let relative = folder.path().strip_prefix(&here).unwrap();
        assert_eq!(package(relative).unwrap().name, "tiny");
    }

    #[test]
    fn what_the_compiler_says_is_in_the_error() {
        let folder = tempfile::tempdir().unwrap();
        write_package(folder.path(), "fn main() { missing(); }");
        match package(folder.path()).unwrap_err() {
            StaticBuildError::Failed { tail, .. } => {
                assert!(tail.contains("cannot find function `missing`"), "{tail}");
            }
            error => panic!("{error}"),
        }
    }

    #[test]
    fn two_binaries_are_one_too_many() {
        let folder = tempfile::tempdir().unwrap();
        write_package(folder.path(), "fn main() {}");
        std::fs::create_dir(folder.path().join("src/bin")).unwrap();
        std::fs::write(folder.path().join("src/bin/second.rs"), "fn main() {}").unwrap();
        let error = package(folder.path()).unwrap_err();
        let package = folder.path().into();
        assert_eq!(error, StaticBuildError::NotOneBinary { package, found: 2 });
    }

    #[test]
    fn an_architecture_without_a_standard_library_is_named() {
        let package = Package {
            folder: Path::new("/nonexistent"),
            member: None,
            profile: "release",
            architecture: "m68k",
            target_directory: Path::new("/nonexistent/target"),
        };
        let error = build(&package).unwrap_err();
        assert_eq!(error, StaticBuildError::NoTarget { architecture: "m68k".into() });
    }

    /// A toolchain that has a standard library for some targets.
    fn toolchain(sysroot: &Path, targets: &[&str]) -> impl Fn(&str) -> Library {
        let sysroot = sysroot.to_owned();
        let folder = |root: &Path, triple: &str| root.join("lib/rustlib").join(triple).join("lib");
        for triple in targets {
            let folder = folder(&sysroot, triple);
            std::fs::create_dir_all(&folder).unwrap();
            std::fs::write(folder.join("libstd-0123.rlib"), "").unwrap();
        }
        move |triple| Library { folder: folder(&sysroot, triple), sysroot: sysroot.clone() }
    }

    #[test]
    fn musl_is_preferred_to_glibc() {
        let (musl, gnu) = ("aarch64-unknown-linux-musl", "aarch64-unknown-linux-gnu");
        for (has, chosen) in [
            (&[musl, gnu][..], Ok((musl.to_owned(), Libc::Musl))),
            (&[gnu], Ok((gnu.to_owned(), Libc::Gnu))),
            (&[], Err(StaticBuildError::NoTarget { architecture: "aarch64".into() })),
        ] {
            let folder = tempfile::tempdir().unwrap();
            let library = toolchain(folder.path(), has);
            let target = Target::choose("aarch64", |triple| Ok(Some(library(triple))));
            assert_eq!(target.map(|target| (target.triple, target.libc)), chosen, "{has:?}");
        }
    }

    #[test]
    fn a_toolchain_that_is_given_a_target_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let list = || toolchain(folder.path(), &[])("aarch64-unknown-linux-musl").list();
        assert_eq!(list(), None);
        let _ = toolchain(folder.path(), &["x86_64-unknown-linux-gnu"]);
        let targets = folder.path().join("lib/rustlib");
        assert_eq!(list(), Some(targets.clone()));
        std::fs::write(targets.join("components"), "").unwrap();
        assert_eq!(list(), Some(targets.join("components")));
    }

    #[test]
    fn flags_and_wrappers_of_the_caller_do_not_leak() {
        for name in ["RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS", "RUSTC_WORKSPACE_WRAPPER"] {
            assert!(leaks(name), "{name}");
        }
        for name in ["CARGO_PROFILE_RELEASE_LTO", "CARGO_TARGET_DIR", "CARGO_PKG_NAME", "TARGET"] {
            assert!(leaks(name), "{name}");
        }
        let linker = "CARGO_TARGET_AARCH64_UNKNOWN_LINUX_MUSL_LINKER";
        for name in ["CARGO_HOME", "CARGO_MAKEFLAGS", "CARGO_NET_OFFLINE", "PATH", "CARGO", linker]
        {
            assert!(!leaks(name), "{name}");
        }
    }

    #[test]
    fn a_missing_linker_is_named() {
        let package = Package {
            folder: Path::new("server"),
            member: None,
            profile: "release",
            architecture: "x86_64",
            target_directory: Path::new("target"),
        };
        let target = Target {
            triple: "x86_64-unknown-linux-gnu".into(),
            architecture: "x86_64".into(),
            libc: Libc::Gnu,
            sysroot: PathBuf::new(),
        };
        let error = failure(&package, &target, "x\nerror: linker `cc` not found\n  |\n");
        assert_eq!(
            error,
            StaticBuildError::NoLinker {
                package: "server".into(),
                target: target.triple,
                linker: "cc".into(),
            }
        );
    }
}
