//! The guest's programs, compiled with this program and carried inside it.

use activator::control::Programs;
use thiserror::Error;

/// Architecture and static ELF files; written by the build script.
const GUESTS: &[(&str, Programs<&[u8]>)] = include!(concat!(env!("OUT_DIR"), "/guests.rs"));

/// This program was built without programs for that guest.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error(
    "build for {architecture}: this rouse carries no activator for it; build rouse with a Rust \
     toolchain that has the target {architecture}-unknown-linux-musl, or name a rustc that has it \
     in ROUSE_RUSTC"
)]
pub struct NoPrograms {
    /// Which architecture.
    pub architecture: String,
}

/// The programs for guests of an architecture: `x86_64` or `aarch64`.
pub fn programs(architecture: &str) -> Result<Programs<&'static [u8]>, NoPrograms> {
    let found = GUESTS.iter().find(|(name, _)| *name == architecture);
    let missing = || NoPrograms { architecture: architecture.into() };
    found.map(|(_, programs)| *programs).ok_or_else(missing)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_architecture_that_is_missing_is_named() {
        let error = programs("m68k").unwrap_err();
        assert_eq!(error, NoPrograms { architecture: "m68k".into() });
        assert!(error.to_string().contains("m68k-unknown-linux-musl"), "{error}");
    }

    #[test]
    fn programs_are_static_and_not_the_same() {
        for (architecture, programs) in GUESTS {
            assert_ne!(programs.init, programs.activator, "{architecture}");
            for content in programs.into_array() {
                let elf = goblin::elf::Elf::parse(content).unwrap();
                assert_eq!(elf.interpreter, None, "{architecture}");
                assert!(elf.libraries.is_empty(), "{architecture}");
            }
        }
    }
}
