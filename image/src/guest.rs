//! The guest's binaries, compiled with this program and carried inside it.

use thiserror::Error;

/// Architecture and static ELF file; written by the build script.
const ACTIVATORS: &[(&str, &[u8])] = include!(concat!(env!("OUT_DIR"), "/activators.rs"));

/// This program was built without an activator for that guest.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error(
    "build for {architecture}: this rouse carries no activator for it; build rouse with a Rust \
     toolchain that has the target {architecture}-unknown-linux-musl, or name a rustc that has it \
     in ROUSE_RUSTC"
)]
pub struct NoActivator {
    /// Which one is missing.
    pub architecture: String,
}

/// The activator for guests of an architecture: `x86_64` or `aarch64`.
pub fn activator(architecture: &str) -> Result<&'static [u8], NoActivator> {
    let found = ACTIVATORS.iter().find(|(name, _)| *name == architecture);
    let missing = || NoActivator { architecture: architecture.into() };
    found.map(|(_, content)| *content).ok_or_else(missing)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_architecture_that_is_missing_is_named() {
        let error = activator("m68k").unwrap_err();
        assert_eq!(error, NoActivator { architecture: "m68k".into() });
        assert!(error.to_string().contains("m68k-unknown-linux-musl"), "{error}");
    }

    #[test]
    fn activators_are_static() {
        for (architecture, content) in ACTIVATORS {
            let elf = goblin::elf::Elf::parse(content).unwrap();
            assert_eq!(elf.interpreter, None, "{architecture}");
            assert!(elf.libraries.is_empty(), "{architecture}");
        }
    }
}
