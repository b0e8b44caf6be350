//! Compiles the guest's activator, which `rouse` carries inside.
//!
//! `ROUSE_GUEST=skip` leaves it out: for a quick `cargo check`; such a `rouse` builds no image.

#[allow(unreachable_pub, dead_code)] // it is a module of the library as well
#[path = "src/static_build.rs"]
mod static_build;

use static_build::{Package, StaticBuildError};
use std::fmt::Write;
use std::path::{Path, PathBuf};

/// Guests that an activator is compiled for, if the toolchain can.
const ARCHITECTURES: [&str; 2] = ["x86_64", "aarch64"];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let image = PathBuf::from(std::env::var("CARGO_MANIFEST_DIR")?);
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    let workspace = image.parent().unwrap_or(&image);
    for path in ["activator/src", "activator/Cargo.toml", "Cargo.toml", "Cargo.lock"] {
        println!("cargo::rerun-if-changed={}", workspace.join(path).display());
    }
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=src/static_build.rs");
    println!("cargo::rerun-if-env-changed=ROUSE_GUEST");
    let skip = std::env::var("ROUSE_GUEST").is_ok_and(|value| value == "skip");
    let mut table = String::from("&[\n");
    for architecture in ARCHITECTURES {
        if skip {
            continue;
        }
        let package = Package {
            folder: workspace,
            member: Some("activator"),
            profile: "guest",
            architecture,
            target_directory: &target_directory(&out),
        };
        match static_build::build(&package) {
            Ok(binary) => {
                let path = out.join(format!("activator-{architecture}"));
                std::fs::write(&path, &binary.content)?;
                writeln!(table, "    ({architecture:?}, include_bytes!({path:?})),")?;
            }
            Err(StaticBuildError::NoTarget { .. }) => {}
            // The machine's own is needed; another is a gift of the toolchain.
            Err(error) if architecture != std::env::consts::ARCH => {
                println!("cargo::warning=no activator for {architecture}: failed to {error}");
            }
            Err(error) => {
                eprintln!("failed to {error}");
                std::process::exit(1);
            }
        }
    }
    table.push_str("]\n");
    std::fs::write(out.join("activators.rs"), table)?;
    Ok(())
}

/// One for all profiles of the outer build, so that the guest is compiled once.
fn target_directory(out: &Path) -> PathBuf {
    let root = out.ancestors().find(|folder| folder.join("CACHEDIR.TAG").exists());
    root.unwrap_or(out).join("guest")
}
