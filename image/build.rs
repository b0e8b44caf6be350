//! Compiles the guest's two programs, which `rouse` carries inside, and hashes the sources, so that
//! `rouse` can tell an image of its own from one of another `rouse`.
//!
//! `ROUSE_GUEST=skip` leaves it out: for a quick `cargo check`; such a `rouse` builds no image.
//! `ROUSE_GUEST=DIR` (absolute) takes `DIR/init-ARCH` and `DIR/activator-ARCH`, static programs that
//! were built elsewhere, instead: by another toolchain, or by a quicker profile. `ROUSE_RUSTC` names the rustc that compiles them.

#[allow(unreachable_pub, dead_code)] // it is a module of the library as well
#[path = "src/static_build.rs"]
mod static_build;

use sha2::{Digest, Sha256};
use static_build::{Package, StaticBuildError};
use std::fmt::Write;
use std::path::{Path, PathBuf};

/// What an image's bytes depend on, besides the appliance: the builder, the types of the manifest,
/// and by Cargo.lock every library. Folders are taken with all that is in them.
const SOURCES: [&str; 6] = [
    "image/src",
    "image/build.rs",
    "image/Cargo.toml",
    "activator/src",
    "activator/Cargo.toml",
    "Cargo.lock",
];

/// Guests that programs are compiled for, if the toolchain can.
const ARCHITECTURES: [&str; 2] = ["x86_64", "aarch64"];
/// The programs, as the fields of `activator::control::Programs`.
const PROGRAMS: [&str; 2] = ["init", "activator"];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let image = PathBuf::from(std::env::var("CARGO_MANIFEST_DIR")?);
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    let workspace = image.parent().unwrap_or(&image);
    for path in SOURCES.iter().chain(&["Cargo.toml"]) {
        println!("cargo::rerun-if-changed={}", workspace.join(path).display());
    }
    println!("cargo::rustc-env=ROUSE_SOURCES={}", hash_sources(workspace)?);
    println!("cargo::rerun-if-env-changed=ROUSE_GUEST");
    println!("cargo::rerun-if-env-changed={}", static_build::VARIABLE);
    let own = std::env::var("CARGO_CFG_TARGET_ARCH")?;
    let prebuilt = std::env::var_os("ROUSE_GUEST").map(PathBuf::from);
    let mut table = String::from("&[\n");
    for architecture in ARCHITECTURES {
        if let Some(folder) = &prebuilt {
            if folder.as_os_str() != "skip" {
                add_prebuilt(&mut table, folder, architecture)?;
            }
            continue;
        }
        // One that is added is used; what hinders asking is said below.
        for path in static_build::watched(architecture).unwrap_or_default() {
            println!("cargo::rerun-if-changed={}", path.display());
        }
        let package = Package {
            folder: workspace,
            member: Some("activator"),
            profile: "guest",
            architecture,
            target_directory: &target_directory(&out),
        };
        match static_build::build_all(&package) {
            Ok(binaries) => {
                for binary in binaries {
                    let path = place(&out, &binary.name, architecture);
                    std::fs::write(&path, &binary.content)?;
                }
                add(&mut table, &out, architecture)?;
            }
            Err(StaticBuildError::NoTarget { .. }) => {}
            // Of the machine that rouse will run on it is needed; another is a gift of the toolchain.
            Err(error) if architecture != own => {
                println!(
                    "cargo::warning=no programs for guests of {architecture}: failed to {error}"
                );
            }
            Err(error) => {
                eprintln!("failed to {error}");
                std::process::exit(1);
            }
        }
    }
    table.push_str("]\n");
    std::fs::write(out.join("guests.rs"), table)?;
    Ok(())
}

/// Where a folder has a program.
fn place(folder: &Path, program: &str, architecture: &str) -> PathBuf {
    folder.join(format!("{program}-{architecture}"))
}

/// A row of the table: what is in a folder for an architecture.
fn add(table: &mut String, folder: &Path, architecture: &str) -> std::fmt::Result {
    write!(table, "    ({architecture:?}, Programs {{")?;
    for program in PROGRAMS {
        let path = place(folder, program, architecture);
        write!(table, " {program}: include_bytes!({path:?}),")?;
    }
    writeln!(table, " }}),")
}

/// The same of a folder that has both programs or none.
fn add_prebuilt(
    table: &mut String,
    folder: &Path,
    architecture: &str,
) -> Result<(), Box<dyn std::error::Error>> {
    let paths = PROGRAMS.map(|program| place(folder, program, architecture));
    for path in &paths {
        println!("cargo::rerun-if-changed={}", path.display());
    }
    match paths.each_ref().map(|path| path.exists()) {
        [true, true] => Ok(add(table, folder, architecture)?),
        [false, false] => Ok(()),
        there => {
            let (lacks, has) = if there[0] { (1, 0) } else { (0, 1) };
            let [lacks, has] = [lacks, has].map(|index: usize| paths[index].display());
            Err(format!("ROUSE_GUEST has {has}, but lacks {lacks}: a guest has both programs")
                .into())
        }
    }
}

/// SHA-256 over names and contents: the same in any directory and for any user.
fn hash_sources(workspace: &Path) -> std::io::Result<String> {
    let mut files = Vec::new();
    for source in SOURCES {
        list(workspace, Path::new(source), &mut files)?;
    }
    files.sort();
    let mut hash = Sha256::new();
    for file in files {
        let content = std::fs::read(workspace.join(&file))?;
        for part in [file.as_os_str().as_encoded_bytes(), &content] {
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part);
        }
    }
    Ok(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

/// The files at and below a path, relative to the workspace.
fn list(workspace: &Path, path: &Path, files: &mut Vec<PathBuf>) -> std::io::Result<()> {
    let real = workspace.join(path);
    if !real.is_dir() {
        files.push(path.to_owned());
        return Ok(());
    }
    for entry in std::fs::read_dir(real)? {
        list(workspace, &path.join(entry?.file_name()), files)?;
    }
    Ok(())
}

/// One for all profiles of the outer build, so that the guest is compiled once.
fn target_directory(out: &Path) -> PathBuf {
    let root = out.ancestors().find(|folder| folder.join("CACHEDIR.TAG").exists());
    root.unwrap_or(out).join("guest")
}
